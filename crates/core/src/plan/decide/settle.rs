//! Withdrawals that only the absence of a document causes. They wait for `cleanup.settle`, since a deployment may have
//! written half of its files.

use std::time::Duration;

use super::{Decision, DecisionInput, Evidence, KnownRegistration};
use crate::intent::{Evaluation, RegistrationId};

/// Documents that may have left the manifests less than `cleanup.settle` ago.
#[derive(Clone, Copy, Debug)]
pub struct Settling<'a> {
    /// `cleanup.settle`.
    pub settle: Duration,
    /// The manifests have been valid for less than that time since the operator started, so a document that it has not
    /// seen may be absent.
    pub starting: bool,
    /// The evaluation as if the documents were still there that this process saw leave; `None` where there are none.
    pub retained: Option<&'a Evaluation>,
}

impl Decision {
    /// Applies the evaluation of a live task. The manifests withdraw a registration only where they would do so with the
    /// absent documents, too.
    pub(super) fn live_while_settling(
        &mut self,
        evaluation: &Evaluation,
        settling: Settling<'_>,
        input: &DecisionInput<'_>,
    ) {
        let retained = settling.retained.map(|evaluation| {
            let mut retained = Self::default();
            retained.apply(evaluation, input, &[]);
            retained
        });
        let is_unsettled = |known: &&KnownRegistration| {
            let is_unknown = settling.starting && !known.was_declared;
            is_unknown || retained.as_ref().is_some_and(|retained| !retained.undeclared.contains(&known.id))
        };
        let unsettled: Vec<RegistrationId> =
            input.known.iter().filter(is_unsettled).map(|known| known.id.clone()).collect();
        self.apply(evaluation, input, &unsettled);
        let Some(retained) = retained.filter(|_| !self.settling.is_empty()) else { return };
        // Role tags that do not allow the registration, absent documents or not, do not wait (I4).
        let Self { steps, owner_steps, settling, .. } = self;
        let is_revoked = |id: &RegistrationId, evidence: Option<&Evidence>| {
            evidence == Some(&Evidence::RoleTags) && settling.contains(id)
        };
        steps.extend(retained.steps.into_iter().filter(|step| is_revoked(&step.id, step.evidence())));
        let withheld = retained.owner_steps.into_iter();
        owner_steps.extend(withheld.filter(|step| is_revoked(&step.id, step.evidence())));
        if let Some(after) = retained.requeue_after {
            self.requeue_within(after);
        }
    }

    /// Whether the registration may be withdrawn now. Records it where the manifests are the evidence.
    pub(super) fn may_withdraw(
        &mut self,
        registration: &KnownRegistration,
        evidence: &Evidence,
        unsettled: &[RegistrationId],
    ) -> bool {
        if !evidence.is_by_manifests() || registration.binding.is_none() {
            return true;
        }
        self.undeclared.push(registration.id.clone());
        let waits = unsettled.contains(&registration.id);
        if waits {
            self.settling.push(registration.id.clone());
        }
        !waits
    }
}
