//! What a run says: one `info` line per outcome on a registration, target `audit` where an identity comes or goes, and
//! a warning once, not at each retry nor for each of many tasks. In a dry run all of it goes into the plan instead.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{debug, info, warn};

use super::Operator;
use super::apply::Outcome;
use super::book::Page;
use super::plane::Plane;
use super::said::{News, cause_of};
use ecs_mesh_api::LifecyclePolicy;
use ecs_mesh_control_plane::{MeshError, Owner};
use ecs_mesh_core::intent::{HoldReason, IgnoreReason, Violation};
use ecs_mesh_core::plan::DrainReason;
use ecs_mesh_core::plan::proposal::{Blocked, Change, Item};
use ecs_mesh_core::plan::{Action, Step};
use ecs_mesh_model::{RoleArn, TaskArn, Why};

/// What came of a removal that took effect without a word.
const UNHEARD: &str = "removed, the answer was lost";

/// Whom a report is about.
pub(super) struct Subject<'a> {
    pub operator: &'a Operator,
    pub plane: &'a Plane,
    pub task: &'a TaskArn,
}

/// Whose a registration is, as far as that was known before the step.
pub(super) struct Whose {
    pub service: Option<Arc<str>>,
    pub role: Option<RoleArn>,
}

/// Says what happens to one task at one control plane.
pub(super) struct Report<'a> {
    subject: Subject<'a>,
    /// Of a dry run: what has been noted in this attempt.
    page: Option<Mutex<Page>>,
}

/// The words of a step for a person and for metrics: change, and why.
fn words(step: &Step) -> (&'static str, String) {
    match &step.action {
        Action::Ensure { .. } => ("ensure", "the task runs".to_owned()),
        Action::Drain(reason, evidence) => match reason {
            DrainReason::Stopping => ("drain", "ECS is stopping the task".to_owned()),
            _ => ("drain", evidence.to_string()),
        },
        Action::Remove(evidence) => ("remove", evidence.to_string()),
        Action::Skip { would, evidence } => (would, evidence.to_string()),
    }
}

impl<'a> Report<'a> {
    pub(super) fn new(subject: Subject<'a>) -> Self {
        let page = subject.operator.book.is_some().then(Mutex::default);
        Self { subject, page }
    }

    /// A new attempt: what was noted in the last one no longer counts.
    pub(super) fn begin(&self) {
        if let Some(mut page) = self.page() {
            *page = Page::default();
        }
    }

    /// The run is over: what it noted goes into the plan.
    pub(super) fn end(&self) {
        if let (Some(book), Some(mut page)) = (&self.subject.operator.book, self.page()) {
            book.turn(&self.subject.plane.name, Some(self.subject.task), std::mem::take(&mut page));
        }
    }

    /// Of a dry run.
    pub(super) fn page(&self) -> Option<MutexGuard<'_, Page>> {
        self.page.as_ref().map(|page| page.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes it, where this is a dry run. Whether it is one.
    fn note(&self, item: impl FnOnce() -> Item) -> bool {
        match self.page() {
            Some(mut page) => {
                let partition = self.subject.plane.partition().map(str::to_owned);
                page.note(Item { partition, ..item() });
                true
            }
            None => false,
        }
    }

    fn item(&self, step: &Step, change: Change, reason: impl Into<String>) -> Item {
        let reason = reason.into();
        let service = match &step.action {
            Action::Ensure { desired, .. } => Some(desired.service.as_str().to_owned()),
            _ => {
                let entries = self.subject.plane.registry.of(self.subject.task);
                let known = entries.into_iter().find(|entry| entry.id == step.id);
                known.and_then(|entry| entry.service).map(|service| service.to_string())
            }
        };
        let evidence = match &step.action {
            Action::Ensure { .. } => None,
            Action::Drain(_, evidence) | Action::Remove(evidence) | Action::Skip { evidence, .. } => {
                Some(evidence.label().to_owned())
            }
        };
        Item {
            mesh: self.subject.plane.mesh_of(&step.id.mesh).map(str::to_owned),
            name: Some(step.id.name.to_string()),
            binding: Some(step.binding.name.to_string()),
            service,
            // How long it has been so is another time for each.
            cause: evidence.clone().unwrap_or_else(|| reason.clone()),
            evidence,
            ..Item::new(change, reason)
        }
    }

    /// The plan's item for what a step would have come to.
    fn planned(&self, step: &Step, outcome: &Outcome) -> Option<Item> {
        let (_, why) = words(step);
        let paused = step.binding.spec.paused.then_some(Blocked::Paused);
        let item = match outcome {
            Outcome::Created(normal) => Item {
                registration: Some(normal.clone()),
                ..self.item(step, Change::Create, "the task runs and is not registered")
            },
            Outcome::Updated(fields) => Item {
                fields: fields.clone(),
                ..self.item(step, Change::Update, "it differs in these fields")
            },
            Outcome::MayNotUpdate(fields) => Item {
                fields: fields.clone(),
                blocked_by: Some(Blocked::Policy),
                ..self.item(step, Change::Update, "it differs in these fields; the policy is create-only")
            },
            Outcome::Drained => Item { then: what_follows(step), ..self.item(step, Change::Drain, why) },
            Outcome::Removed | Outcome::RemovedUnheard => self.item(step, Change::Remove, why),
            Outcome::Equal => match &step.action {
                Action::Skip { .. } => return None,
                Action::Drain(..) => self.item(step, Change::Unchanged, "it is drained already"),
                _ => self.item(step, Change::Unchanged, "it is as it should be"),
            },
            Outcome::Vanished
            | Outcome::Taken(_)
            | Outcome::NoLease
            | Outcome::NotRemoved(_)
            | Outcome::Unconfirmed => return None,
        };
        let blocked_by = if item.change.writes() { item.blocked_by.or(paused) } else { None };
        Some(Item { blocked_by, ..item })
    }

    pub(super) fn outcome(&self, step: &Step, whose: &Whose, outcome: &Outcome) {
        if self.page.is_some() {
            if let Some(item) = self.planned(step, outcome) {
                self.note(|| item);
            }
            return;
        }
        let (_, why) = words(step);
        let Subject { operator, plane, task } = &self.subject;
        let metrics = &operator.metrics;
        let service = match &step.action {
            Action::Ensure { desired, .. } => desired.service.as_str(),
            _ => whose.service.as_deref().unwrap_or_default(),
        };
        let role = whose.role.as_ref().map(RoleArn::as_str);
        let (mesh, partition) = (plane.mesh_of(&step.id.mesh), plane.partition());
        let (name, binding) = (&step.id.name, &step.binding.name);
        let version = env!("CARGO_PKG_VERSION");
        macro_rules! say {
            ($target:literal, $change:literal, $reason:expr) => {
                say!($target, $change, $reason, "done")
            };
            ($target:literal, $change:literal, $reason:expr, $result:expr) => {
                info!(
                    target: $target, operator = %operator.id, version, control_plane = %plane.name, mesh, partition, %name,
                    %binding, %task, role, service, change = $change, reason = %$reason, result = $result, "{}", $change
                )
            };
        }
        match outcome {
            Outcome::Created(_) => {
                metrics.wrote("create");
                say!("audit", "created", why);
            }
            Outcome::Updated(changes) => {
                metrics.wrote("update");
                let fields: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
                say!("ecs_mesh_operator", "updated", format!("differs in {}", fields.join(", ")));
            }
            Outcome::Drained => {
                metrics.wrote("drain");
                if step.needs_guard() {
                    say!("audit", "drained", why);
                } else {
                    say!("ecs_mesh_operator", "drained", why);
                }
            }
            Outcome::Removed | Outcome::RemovedUnheard => {
                metrics.wrote("remove");
                if let Action::Remove(evidence) = &step.action {
                    metrics.removed(evidence.label());
                }
                let is_heard = *outcome == Outcome::Removed;
                say!("audit", "removed", why, if is_heard { "done" } else { UNHEARD });
            }
            Outcome::MayNotUpdate(changes) => {
                let fields: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
                let words = format!("update of {} skipped by policy", fields.join(", "));
                self.once("skipped_by_policy", &Why::new(format!("update {binding}"), words));
            }
            Outcome::Equal
            | Outcome::Vanished
            | Outcome::Taken(_)
            | Outcome::NoLease
            | Outcome::NotRemoved(_)
            | Outcome::Unconfirmed => {
                debug!(%task, mesh, %name, ?outcome, "nothing to do");
            }
        }
    }

    /// A removal was sent and failed: once for each kind of failure, neither at each retry nor for each of many.
    pub(super) fn not_removed(&self, step: &Step, whose: &Whose, error: &MeshError) {
        let Subject { operator, plane, task } = &self.subject;
        let (version, (_, why)) = (env!("CARGO_PKG_VERSION"), words(step));
        let (service, role) = (whose.service.as_deref(), whose.role.as_ref().map(RoleArn::as_str));
        let (mesh, partition) = (plane.mesh_of(&step.id.mesh), plane.partition());
        let (name, binding) = (&step.id.name, &step.binding.name);
        let message = format!("{} was not removed: {}", plane.named(&step.id), error.message);
        let cause = format!("{} {}", error.kind.label(), cause_of(&error.message));
        if plane.note(task, "not_removed", &cause, &message) != News::First {
            debug!(control_plane = %plane.name, %task, reason = "not_removed", "{message}");
            return;
        }
        warn!(
            target: "audit", operator = %operator.id, version, control_plane = %plane.name, mesh, partition, %name, %binding,
            %task, role, service, change = "remove", reason = %why, result = %format!("failed: {}", error.message),
            "not removed"
        );
    }

    /// A warning, once for all tasks that it is true of for the same cause, until it changes; the counter counts each
    /// time. Whether it was news.
    fn once(&self, reason: &'static str, why: &Why) -> bool {
        let Subject { operator, plane, task } = &self.subject;
        operator.metrics.held(reason);
        let (cause, message) = (&why.cause, &why.words);
        let news = plane.note(task, reason, cause, message);
        if news == News::First {
            warn!(control_plane = %plane.name, %task, reason, "{message}");
        } else {
            debug!(control_plane = %plane.name, %task, reason, "{message}");
        }
        news != News::Known
    }

    pub(super) fn trouble(&self, reason: &'static str, why: &Why) {
        if self.note(|| Item::because(Change::Unknown, why)) {
            return self.subject.operator.metrics.held(reason);
        }
        self.once(reason, why);
    }

    /// A call failed for what the control plane says of this one registration.
    pub(super) fn refused(&self, error: &MeshError) {
        self.trouble(error.kind.label(), &Why::new(cause_of(&error.message), &*error.message));
    }

    pub(super) fn warnings(&self, all: &[Why]) {
        if let Some(mut page) = self.page() {
            return page.warn(all);
        }
        self.once("warning", &Why::all(all));
    }

    pub(super) fn held(&self, reason: &HoldReason) {
        let change = if matches!(reason, HoldReason::Unknown(_)) { Change::Unknown } else { Change::Hold };
        if self.note(|| Item::because(change, &reason.why())) {
            return self.subject.operator.metrics.held(reason.label());
        }
        self.once(reason.label(), &reason.why().about("held, nothing changes"));
    }

    pub(super) fn ignored(&self, reason: &IgnoreReason) {
        // The other control plane's part of the plan has it.
        if self.page.is_some() && matches!(reason, IgnoreReason::OtherControlPlane) {
            return;
        }
        if self.note(|| Item::new(Change::Ignore, reason.to_string())) {
            return self.subject.operator.metrics.ignored(reason.label());
        }
        let Subject { operator, plane, task } = &self.subject;
        operator.metrics.ignored(reason.label());
        if matches!(reason, IgnoreReason::NetworkMode(_)) {
            self.once(reason.label(), &Why::of_all(reason.to_string()));
        } else {
            debug!(control_plane = %plane.name, %task, reason = reason.label(), "{reason}");
        }
    }

    pub(super) fn rejected(&self, violations: &[Violation]) {
        for violation in violations {
            self.subject.operator.metrics.violation(violation.rule.label());
        }
        let why = Why::all(&violations.iter().map(Violation::why).collect::<Vec<_>>());
        if self.note(|| Item::because(Change::Reject, &why)) {
            return;
        }
        if self.once("rejected", &why.about("not allowed in the mesh")) {
            self.subject.operator.metrics.rejected();
        }
    }

    pub(super) fn taken(&self, step: &Step, owner: &Owner) {
        let (whom, whose) = match owner {
            Owner::Foreign => ("somebody", "somebody else's (it has no mark of this operator)".to_owned()),
            Owner::Marked(marks) => (
                marks.operator.as_str(),
                format!("of operator {}, cluster {}, task {}", marks.operator, marks.cluster, marks.task),
            ),
        };
        let binding = &step.binding.name;
        let blocked = || {
            let words = format!(
                "the name is {whose}; it is left alone: remove it, or choose another spec.dataplaneName in MeshBinding \
                 {binding}"
            );
            Item { cause: whom.to_owned(), ..self.item(step, Change::NameTaken, words) }
        };
        if self.note(blocked) {
            return;
        }
        let message = format!(
            "{} is {whose} and is left alone; remove it, or choose another spec.dataplaneName in MeshBinding {}",
            self.subject.plane.named(&step.id),
            step.binding.name
        );
        self.once("name_taken", &Why::new(format!("{whom} {}", step.binding.name), message));
    }

    pub(super) fn held_back(&self, step: &Step, admitted: usize, owned: usize) {
        let (change, why) = words(step);
        let message = format!(
            "the guard of MeshBinding {} holds back this {change} ({why}): {admitted} of {owned} registrations were \
             already withdrawn within the hour without a STOPPED of their own; if that is right, set \
             spec.cleanup.guard.releaseUntil to a time in the near future",
            step.binding.name
        );
        if self.note(|| self.blocked(step, Blocked::Guard, message.clone())) {
            return self.subject.operator.metrics.held("guard");
        }
        // The counts in the words grow; what happens is the same.
        self.once("guard", &Why::new(format!("{change} {}", step.binding.name), message));
    }

    pub(super) fn skipped(&self, step: &Step) {
        let (change, why) = words(step);
        let policy = step.binding.spec.policy;
        if self.note(|| self.blocked(step, Blocked::Policy, why.clone())) {
            return self.subject.operator.metrics.held("skipped_by_policy");
        }
        let message =
            format!("{change} of {} ({why}) skipped: policy {policy:?}", self.subject.plane.named(&step.id));
        self.once("skipped_by_policy", &Why::new(format!("{change} {}", step.binding.name), message));
    }

    pub(super) fn paused(&self, step: &Step) {
        let (change, why) = words(step);
        let message = {
            let name = self.subject.plane.named(&step.id);
            format!("MeshBinding {} is paused: {change} of {name} ({why})", step.binding.name)
        };
        self.once("paused", &Why::new(format!("{change} {}", step.binding.name), message));
    }

    /// A withdrawal that would be done, were it not for this.
    fn blocked(&self, step: &Step, by: Blocked, reason: String) -> Item {
        let drains = matches!(step.action, Action::Drain(..) | Action::Skip { would: "drain", .. });
        let change = if drains { Change::Drain } else { Change::Remove };
        Item { blocked_by: Some(by), ..self.item(step, change, reason) }
    }

    /// Nothing was noted of a registered task, which a plan should not pass over in silence.
    pub(super) fn quiet(&self, reason: &str, change: Change) {
        let is_empty = self.page().is_some_and(|page| page.is_empty());
        if is_empty {
            self.note(|| Item::new(change, reason));
        }
    }
}

/// What comes after a drain by itself.
fn what_follows(step: &Step) -> Option<String> {
    if step.binding.spec.policy != LifecyclePolicy::Sync {
        return None;
    }
    Some(match &step.action {
        Action::Drain(DrainReason::Stopping, _) => {
            "removed when ECS says that the task has stopped".to_owned()
        }
        _ => format!("removed {} later (cleanup.drain)", step.binding.spec.cleanup.drain),
    })
}
