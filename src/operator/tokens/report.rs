//! Reports passes: one line of target `audit` for each change of a token, other conditions once until they change, metrics,
//! and, in a dry run, the planned changes. A token's id is shown; it grants nothing.

use std::sync::Arc;

use tracing::{debug, info, warn};

use super::TokenLoop;
use super::apply::TokenChangeError;
use super::pass::planned_change;
use crate::operator::dry_run::TaskPlan;
use crate::operator::journal::{ChangeCause, ChangeResult, JournalChange, JournalEvent, JournalSubject};
use crate::telemetry::state::TokenStatus;
use ecs_mesh_api::TokenStoreKind;
use ecs_mesh_core::plan::Evidence;
use ecs_mesh_core::plan::report::{BlockedBy, Change, PlannedChange, PlannedKind};
use ecs_mesh_core::tokens::{
    ClockOffset, EntryName, EntryPlan, IssuedToken, TokenAction, TokenId, TokenState,
};
use ecs_mesh_model::{MeshName, docs_url};

/// The label of warnings about tokens.
const TOKEN_FAILED: &str = "token_failed";
/// Values of the log field `change`, and of the metric's label.
const REVOKE: &str = "revoke";
const PRUNE: &str = "prune";

/// The kind of object of changes in the journal.
const DATA_PLANE_TOKEN: &str = "data_plane_token";
/// The names that one line has.
const MAX_EXAMPLES: usize = 3;
/// The page about tokens below no path.
const FORMER_TOKENS_PAGE: &str = "how-to/kuma-tokens.md#find-tokens-below-a-former-path";

/// The key of the warning that the clocks differ.
const CLOCK: &str = "clock";

/// The token that a line is about.
pub(super) struct TokenSubject<'a> {
    pub(super) name: &'a EntryName,
    pub(super) binding: &'a Arc<str>,
    pub(super) mesh: &'a MeshName,
    pub(super) workload: Arc<str>,
}

/// The key of the warning that a subject cannot be read.
fn reading(subject: &str) -> String {
    format!("reading {subject}")
}

/// Reports the passes of one control plane.
pub(super) struct TokenReporter<'a> {
    pub(super) of: &'a TokenLoop,
}

impl TokenReporter<'_> {
    /// Ends a pass.
    pub(super) fn finish(&self, status: TokenStatus, plan: TaskPlan) {
        if let Some(recorder) = &self.of.context.process.dry_run {
            recorder.replace_tokens(&self.of.worker.name, plan);
        }
        self.of.target.with(|inner| inner.status = status);
    }

    /// Something could not be read. `unresolved`: a plan says so.
    pub(super) fn unreadable(&self, subject: &str, error: &str, unresolved: bool) {
        self.of.context.metrics().record_warning(TOKEN_FAILED);
        let control_plane = &self.of.worker.name;
        if unresolved {
            let described = format!("data plane tokens of control plane {control_plane}: {subject}");
            self.of.context.record_unresolved(&described, Some(error.to_owned()));
        }
        if self.of.target.warnings.raise(reading(subject), error.to_owned()) {
            warn!(%control_plane, subject, error, "reading data plane tokens failed; they stay unchanged");
        } else {
            debug!(%control_plane, subject, error, "reading data plane tokens failed again");
        }
    }

    /// The subject was read.
    pub(super) fn readable(&self, subject: &str) {
        let control_plane = &self.of.worker.name;
        let described = format!("data plane tokens of control plane {control_plane}: {subject}");
        self.of.context.record_unresolved(&described, None);
        self.of.target.warnings.clear(&reading(subject));
    }

    /// All stored tokens below no path.
    pub(super) fn former(&self, store: TokenStoreKind, names: &[EntryName]) {
        let (control_plane, store) = (&self.of.worker.name, store.as_str());
        let key = format!("former tokens of {store}");
        if names.is_empty() {
            self.of.target.warnings.clear(&key);
            return;
        }
        let shown =
            |names: &[EntryName]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if self.of.target.warnings.raise(key, shown(names)) {
            let (tokens, examples) = (names.len(), shown(names.get(..MAX_EXAMPLES).unwrap_or(names)));
            let help = docs_url(FORMER_TOKENS_PAGE);
            warn!(%control_plane, store, tokens, examples, help, "stored tokens are below no tokens.path; they stay until removed");
        }
    }

    /// The control plane's clock when it issued a token.
    pub(super) fn clock(&self, clock: ClockOffset) {
        let (control_plane, warnings) = (&self.of.worker.name, &self.of.target.warnings);
        if clock.is_zero() {
            warnings.clear(&CLOCK.to_owned());
        } else {
            self.of.context.metrics().record_warning(TOKEN_FAILED);
            if warnings.raise(CLOCK.to_owned(), "differs".to_owned()) {
                warn!(%control_plane, clock = %clock, "clocks differ; tokens are judged by their issuer's clock");
            }
        }
    }

    /// Nothing withholds a change of the token.
    pub(super) fn clear(&self, name: &EntryName) {
        self.of.target.warnings.clear(&name.to_string());
    }

    /// Nothing is done about the token now.
    pub(super) fn waiting(&self, subject: &TokenSubject<'_>, planned: &EntryPlan, plan: &mut TaskPlan) {
        let change = match planned.state {
            TokenState::Conflict => Change::NameConflict,
            TokenState::Held => Change::Hold,
            TokenState::Issued | TokenState::Pending | TokenState::Withdrawn => Change::Unchanged,
        };
        plan.push(Self::change(subject, change, &planned.reason));
        if change != Change::Unchanged {
            self.warn_once(subject, &planned.reason, planned.state == TokenState::Conflict);
        }
    }

    /// The action is not made.
    pub(super) fn blocked(
        &self,
        subject: &TokenSubject<'_>,
        action: &TokenAction,
        reason: &str,
        blocked_by: BlockedBy,
        plan: &mut TaskPlan,
    ) {
        let change = Self::change(subject, planned_change(action), reason);
        plan.push(PlannedChange { blocked_by: Some(blocked_by), ..change });
        let why = format!("{}: {reason}; withheld by {}", action.label(), blocked_by.as_str());
        self.warn_once(subject, &why, blocked_by == BlockedBy::Guard);
    }

    /// A run would make the action.
    pub(super) fn planned(
        subject: &TokenSubject<'_>,
        action: &TokenAction,
        reason: &str,
        plan: &mut TaskPlan,
    ) {
        let follow_up = match action {
            TokenAction::Withdraw(_) => Some("removed after the token's end"),
            TokenAction::Issue(_) => Some("the token before it is revoked after tokens.overlap")
                .filter(|_| planned_change(action) == Change::Update),
            _ => None,
        };
        let change = Self::change(subject, planned_change(action), reason);
        plan.push(PlannedChange { follow_up: follow_up.map(str::to_owned), ..change });
    }

    fn change(subject: &TokenSubject<'_>, change: Change, reason: &str) -> PlannedChange {
        PlannedChange {
            kind: Some(PlannedKind::TOKEN),
            mesh: Some(subject.mesh.to_string()),
            name: Some(subject.name.to_string()),
            binding: Some(subject.binding.to_string()),
            ..PlannedChange::new(change, reason)
        }
    }

    /// The action was made.
    pub(super) fn changed(
        &self,
        subject: &TokenSubject<'_>,
        action: &TokenAction,
        token: Option<&IssuedToken>,
        reason: &str,
    ) {
        self.audit(subject, action.label(), token.map(|token| &token.id), token, reason, None);
        self.journal(subject, (action.label(), ChangeCause::Declared), reason, None);
    }

    /// The action failed, or its result is unknown.
    pub(super) fn failed(
        &self,
        subject: &TokenSubject<'_>,
        action: &TokenAction,
        reason: &str,
        error: &TokenChangeError,
    ) {
        self.of.context.metrics().record_warning(TOKEN_FAILED);
        let text = error.to_string();
        let is_new = self.of.target.warnings.raise(subject.name.to_string(), text.clone());
        if matches!(error, TokenChangeError::Obstructed(_)) || !is_new {
            let (control_plane, name, change) = (&self.of.worker.name, &*subject.name.name, action.label());
            debug!(%control_plane, name, change, error = text, "data plane token not changed");
            return;
        }
        self.audit(subject, action.label(), None, None, reason, Some(&text));
        self.journal(subject, (action.label(), ChangeCause::Declared), reason, Some(&text));
    }

    /// A token was added to the list of revoked ones, or could not be.
    pub(super) fn revoked(
        &self,
        subject: &TokenSubject<'_>,
        id: &TokenId,
        is_withdrawal: bool,
        error: Option<&str>,
    ) {
        let (reason, cause) = if is_withdrawal {
            ("the manifests do not declare it", ChangeCause::Evidence(Evidence::Manifests))
        } else {
            ("it was replaced tokens.overlap ago", ChangeCause::Declared)
        };
        self.list_changed(subject, (REVOKE, cause), id, reason, error);
    }

    /// An expired token was taken from the list of revoked ones, or could not be.
    pub(super) fn pruned(&self, subject: &TokenSubject<'_>, id: &TokenId, error: Option<&str>) {
        self.list_changed(subject, (PRUNE, ChangeCause::Declared), id, "it has expired", error);
    }

    fn list_changed(
        &self,
        subject: &TokenSubject<'_>,
        (change, cause): (&'static str, ChangeCause),
        id: &TokenId,
        reason: &str,
        error: Option<&str>,
    ) {
        if let Some(error) = error
            && !self.of.target.warnings.raise(subject.name.to_string(), error.to_owned())
        {
            let (control_plane, name) = (&self.of.worker.name, &*subject.name.name);
            debug!(%control_plane, name, change, error, "data plane token not changed");
            return;
        }
        self.audit(subject, change, Some(id), None, reason, error);
        self.journal(subject, (change, cause), reason, error);
    }

    fn warn_once(&self, subject: &TokenSubject<'_>, reason: &str, is_warning: bool) {
        let (control_plane, binding, workload) = (&self.of.worker.name, subject.binding, &subject.workload);
        let (mesh, name) = (subject.mesh, &*subject.name.name);
        if !self.of.target.warnings.raise(subject.name.to_string(), reason.to_owned()) {
            debug!(%control_plane, %binding, %mesh, %workload, name, reason, "data plane token not changed");
        } else if is_warning {
            warn!(%control_plane, %binding, %mesh, %workload, name, reason, "data plane token not changed");
        } else {
            info!(%control_plane, %binding, %mesh, %workload, name, reason, "data plane token not changed");
        }
    }

    /// Records a change in the journal.
    fn journal(
        &self,
        subject: &TokenSubject<'_>,
        (change, cause): (&'static str, ChangeCause),
        reason: &str,
        error: Option<&str>,
    ) {
        self.of.context.process.journal.record(|| {
            let TokenSubject { name, binding, mesh, workload } = subject;
            let about = JournalSubject {
                control_plane: Some(Arc::clone(&self.of.worker.name)),
                mesh: Some(mesh.as_str().into()),
                binding: Some(Arc::clone(binding)),
                workload: Some(Arc::clone(workload)),
                name: Some(name.to_string().into()),
                ..JournalSubject::default()
            };
            let result = error.map_or(ChangeResult::Success, |error| ChangeResult::Error(error.to_owned()));
            let (message, fields) = (reason.to_owned(), Vec::new());
            let change = JournalChange { object: DATA_PLANE_TOKEN, change, cause, message, fields, result };
            (about, JournalEvent::Change(change))
        });
    }

    /// Logs a change for the audit trail, and counts it.
    fn audit(
        &self,
        subject: &TokenSubject<'_>,
        change: &'static str,
        id: Option<&TokenId>,
        issued: Option<&IssuedToken>,
        reason: &str,
        error: Option<&str>,
    ) {
        self.of.context.metrics().changes.record_token_change(change, error.is_none());
        let (operator, control_plane) = (&self.of.context.process.id, &self.of.worker.name);
        let (version, binding, workload) = (env!("CARGO_PKG_VERSION"), subject.binding, &subject.workload);
        let (mesh, name, store) = (subject.mesh, &*subject.name.name, subject.name.store.as_str());
        let (id, expires) = (id.map(TokenId::as_str), issued.map(|token| token.expires.to_string()));
        macro_rules! log {
            ($level:ident, $result:literal, $message:literal) => {
                $level!(
                    target: "audit", %operator, version, %control_plane, %binding, %mesh, %workload, store, name, change,
                    token_id = id, expires, reason, result = $result, error, $message
                )
            };
        }
        if error.is_none() {
            log!(info, "success", "data plane token changed");
        } else {
            log!(warn, "error", "changing a data plane token failed");
        }
    }
}
