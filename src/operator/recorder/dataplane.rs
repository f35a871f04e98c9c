//! Messages about Dataplanes that the operator does not own.

use super::super::dataplane_checks::DataplaneFinding;
use super::describe_owner;
use ecs_mesh_core::plan::{Evidence, FieldChange, OwnerStep, SkippedAction};
use ecs_mesh_kuma::OWNERSHIP_LABELS;
use ecs_mesh_model::DataplaneOwner;

/// The reasons of warnings about Dataplanes that the operator does not own, except [`NOT_REVOCABLE`].
pub(super) const CHECK_REASONS: [&str; 5] = [MISSING, DIFFERS, UNLABELLED, NAME_CONFLICT, OBSERVED];

pub(super) const MISSING: &str = "dataplane_missing";
pub(super) const DIFFERS: &str = "dataplane_differs";
pub(super) const UNLABELLED: &str = "dataplane_unlabelled";
pub(super) const LEFT_BEHIND: &str = "dataplane_left_behind";
pub(super) const AWAITING_SIDECAR: &str = "awaiting_sidecar";
pub(super) const NOT_REVOCABLE: &str = "not_revocable";
pub(super) const OBSERVED: &str = "observed";
pub(super) const NAME_CONFLICT: &str = "name_conflict";

/// The remedy for a sidecar whose task the role does not allow.
pub(super) const NOT_REVOCABLE_TEXT: &str = "the task's sidecar registers the Dataplane, again at each connect, so the operator \
                                             does not end it; stop the task, or correct the tags of its role";

/// Its next step.
pub(super) const NOT_REVOCABLE_FIX: &str = "stop the task, or correct the tags of its role";

/// A problem that a check found: the reason of the warning, a grouping key, and words.
pub(super) struct CheckProblem {
    pub(super) reason: &'static str,
    pub(super) key: String,
    pub(super) message: String,
}

/// The problem of a Dataplane with this display name; `None` where it is as declared.
pub(super) fn check_problem(
    step: &OwnerStep,
    name: &str,
    finding: &DataplaneFinding,
) -> Option<CheckProblem> {
    let problem = |reason, key: &str, message| Some(CheckProblem { reason, key: key.to_owned(), message });
    let binding = &step.binding.name;
    match (step.owner, finding) {
        (_, DataplaneFinding::Found { labelled: true, changes }) if changes.is_empty() => None,
        (_, DataplaneFinding::Taken(taker)) => {
            let (key, taker) = describe_owner(taker);
            let message = format!("{name} is that of {taker}; not touching it");
            problem(NAME_CONFLICT, &format!("{key} {binding}"), message)
        }
        (DataplaneOwner::Sidecar, DataplaneFinding::Missing(_)) => {
            let message = format!(
                "the sidecar has not registered {name}; look at its log, and whether its template has the name of \
                 spec.dataplaneName in MeshBinding {binding}"
            );
            problem(MISSING, &format!("missing {binding}"), message)
        }
        (DataplaneOwner::Sidecar, DataplaneFinding::Found { changes, .. }) if !changes.is_empty() => {
            let fields = fields(changes);
            let message = format!(
                "{name}, which the sidecar registers, differs from the manifests in {fields}; correct the template or the \
                 Workload"
            );
            problem(DIFFERS, &format!("{fields} {binding}"), message)
        }
        (DataplaneOwner::Sidecar, DataplaneFinding::Found { .. }) => {
            let message = format!(
                "{name} is not removed once the task is gone: it lacks a label of {}; add them to the sidecar's template",
                OWNERSHIP_LABELS.join(", ")
            );
            problem(UNLABELLED, &format!("unlabelled {binding}"), message)
        }
        (_, DataplaneFinding::Missing(_)) => problem(
            OBSERVED,
            &format!("create {binding}"),
            format!("create of {name} is left out: {}", observes(step)),
        ),
        (_, DataplaneFinding::Found { changes, .. }) => {
            let message = format!("update of {name} in {} is left out: {}", fields(changes), observes(step));
            problem(OBSERVED, &format!("update {binding}"), message)
        }
    }
}

/// The problem of a drain or a removal that the owner does not permit.
pub(super) fn withheld_problem(
    step: &OwnerStep,
    name: &str,
    action: SkippedAction,
    evidence: &Evidence,
) -> CheckProblem {
    let change = action.as_str();
    let (reason, because) = match step.owner {
        DataplaneOwner::Observe => (OBSERVED, observes(step)),
        _ if evidence.is_by_role() => (NOT_REVOCABLE, NOT_REVOCABLE_TEXT.to_owned()),
        _ => (
            NOT_REVOCABLE,
            "the task's sidecar registers the Dataplane, again at each connect; stop the task, or let a Workload select it"
                .to_owned(),
        ),
    };
    let message = format!("{change} of {name} ({evidence}) is left out: {because}");
    CheckProblem { reason, key: format!("{change} {}", step.binding.name), message }
}

/// That the manifests let the operator only observe.
fn observes(step: &OwnerStep) -> String {
    format!("dataplanes is {} in MeshBinding {} or the Workload", DataplaneOwner::Observe, step.binding.name)
}

fn fields(changes: &[FieldChange]) -> String {
    changes.iter().map(|change| change.path.as_str()).collect::<Vec<_>>().join(", ")
}
