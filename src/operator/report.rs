//! What a run says: one `info` line per outcome on a registration, target `audit` where an identity comes or goes, and
//! a warning once, not at each retry nor for each of many tasks. In a dry run all of it goes into the plan instead.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{debug, info, warn};

use super::Operator;
use super::apply::ApplyOutcome;
use super::dry_run::TaskPlan;
use super::control_plane_worker::ControlPlaneWorker;
use super::warnings::{Novelty, group_key};
use ecs_mesh_api::LifecyclePolicy;
use ecs_mesh_control_plane::{MeshError, RegistrationOwner};
use ecs_mesh_core::intent::{HoldReason, IgnoreReason, RoleViolation};
use ecs_mesh_core::plan::DrainReason;
use ecs_mesh_core::plan::report::{BlockedBy, Change, PlannedChange};
use ecs_mesh_core::plan::{Action, PlanStep, SkippedAction};
use ecs_mesh_model::{RoleArn, TaskArn, Reason};

/// What came of a removal that took effect without a word.
const RESULT_RESPONSE_LOST: &str = "removed, the answer was lost";

/// Whom a report is about.
pub(super) struct ReportSubject<'a> {
    pub operator: &'a Operator,
    pub worker: &'a ControlPlaneWorker,
    pub task: &'a TaskArn,
}

/// Whose a registration is, as far as that was known before the step.
pub(super) struct OwnerInfo {
    pub service: Option<Arc<str>>,
    pub role: Option<RoleArn>,
}

/// Says what happens to one task at one control plane.
pub(super) struct TaskReporter<'a> {
    subject: ReportSubject<'a>,
    /// Of a dry run: what has been noted in this attempt.
    plan: Option<Mutex<TaskPlan>>,
}

/// The words of a step for a person and for metrics: change, and why.
fn describe_step(step: &PlanStep) -> (&'static str, String) {
    match &step.action {
        Action::Ensure { .. } => ("ensure", "the task runs".to_owned()),
        Action::Drain(reason, evidence) => match reason {
            DrainReason::Stopping => ("drain", "ECS is stopping the task".to_owned()),
            _ => ("drain", evidence.to_string()),
        },
        Action::Remove(evidence) => ("remove", evidence.to_string()),
        Action::Skip { action, evidence } => (action.as_str(), evidence.to_string()),
    }
}

impl<'a> TaskReporter<'a> {
    pub(super) fn new(subject: ReportSubject<'a>) -> Self {
        let page = subject.operator.recorder.is_some().then(Mutex::default);
        Self { subject, plan: page }
    }

    /// A new attempt: what was noted in the last one no longer counts.
    pub(super) fn start_attempt(&self) {
        if let Some(mut page) = self.page() {
            *page = TaskPlan::default();
        }
    }

    /// The run is over: what it noted goes into the plan.
    pub(super) fn finish(&self) {
        if let (Some(recorder), Some(mut page)) = (&self.subject.operator.recorder, self.page()) {
            recorder.replace(&self.subject.worker.name, Some(self.subject.task), std::mem::take(&mut page));
        }
    }

    /// Of a dry run.
    pub(super) fn page(&self) -> Option<MutexGuard<'_, TaskPlan>> {
        self.plan.as_ref().map(|page| page.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes it, where this is a dry run. Whether it is one.
    fn note(&self, item: impl FnOnce() -> PlannedChange) -> bool {
        match self.page() {
            Some(mut page) => {
                let partition = self.subject.worker.partition().map(str::to_owned);
                page.push(PlannedChange { partition, ..item() });
                true
            }
            None => false,
        }
    }

    fn plan_entry(&self, step: &PlanStep, change: Change, reason: impl Into<String>) -> PlannedChange {
        let reason = reason.into();
        let service = match &step.action {
            Action::Ensure { desired, .. } => Some(desired.service.as_str().to_owned()),
            _ => {
                let entries = self.subject.worker.registry.entries(self.subject.task);
                let known = entries.into_iter().find(|entry| entry.id == step.id);
                known.and_then(|entry| entry.service).map(|service| service.to_string())
            }
        };
        let evidence = match &step.action {
            Action::Ensure { .. } => None,
            Action::Drain(_, evidence) | Action::Remove(evidence) | Action::Skip { evidence, .. } => {
                Some(evidence.as_str().to_owned())
            }
        };
        PlannedChange {
            mesh: self.subject.worker.mesh_label(&step.id.mesh).map(str::to_owned),
            name: Some(step.id.name.to_string()),
            binding: Some(step.binding.name.to_string()),
            service,
            // How long it has been so is another time for each.
            key: evidence.clone().unwrap_or_else(|| reason.clone()),
            evidence,
            ..PlannedChange::new(change, reason)
        }
    }

    /// The plan's item for what a step would have come to.
    fn planned_change(&self, step: &PlanStep, outcome: &ApplyOutcome) -> Option<PlannedChange> {
        let (_, why) = describe_step(step);
        let paused = step.binding.spec.paused.then_some(BlockedBy::Paused);
        let item = match outcome {
            ApplyOutcome::Created(normal) => PlannedChange {
                registration: Some(normal.clone()),
                ..self.plan_entry(step, Change::Create, "the task runs and is not registered")
            },
            ApplyOutcome::Updated(fields) => PlannedChange {
                fields: fields.clone(),
                ..self.plan_entry(step, Change::Update, "it differs in these fields")
            },
            ApplyOutcome::UpdateNotAllowed(fields) => PlannedChange {
                fields: fields.clone(),
                blocked_by: Some(BlockedBy::Policy),
                ..self.plan_entry(step, Change::Update, "it differs in these fields; the policy is create-only")
            },
            ApplyOutcome::Drained => PlannedChange { follow_up: follow_up(step), ..self.plan_entry(step, Change::Drain, why) },
            ApplyOutcome::Removed | ApplyOutcome::RemovalConfirmedLate => self.plan_entry(step, Change::Remove, why),
            ApplyOutcome::Equal => match &step.action {
                Action::Skip { .. } => return None,
                Action::Drain(..) => self.plan_entry(step, Change::Unchanged, "it is drained already"),
                _ => self.plan_entry(step, Change::Unchanged, "it is as it should be"),
            },
            ApplyOutcome::Vanished
            | ApplyOutcome::NameConflict(_)
            | ApplyOutcome::NoLease
            | ApplyOutcome::RemovalFailed(_)
            | ApplyOutcome::Unconfirmed => return None,
        };
        let blocked_by = if item.change.writes() { item.blocked_by.or(paused) } else { None };
        Some(PlannedChange { blocked_by, ..item })
    }

    pub(super) fn outcome(&self, step: &PlanStep, whose: &OwnerInfo, outcome: &ApplyOutcome) {
        if self.plan.is_some() {
            if let Some(item) = self.planned_change(step, outcome) {
                self.note(|| item);
            }
            return;
        }
        let (_, why) = describe_step(step);
        let ReportSubject { operator, worker: plane, task } = &self.subject;
        let metrics = &operator.metrics;
        let service = match &step.action {
            Action::Ensure { desired, .. } => desired.service.as_str(),
            _ => whose.service.as_deref().unwrap_or_default(),
        };
        let role = whose.role.as_ref().map(RoleArn::as_str);
        let (mesh, partition) = (plane.mesh_label(&step.id.mesh), plane.partition());
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
            ApplyOutcome::Created(_) => {
                metrics.record_change("create");
                say!("audit", "created", why);
            }
            ApplyOutcome::Updated(changes) => {
                metrics.record_change("update");
                let fields: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
                say!("ecs_mesh_operator", "updated", format!("differs in {}", fields.join(", ")));
            }
            ApplyOutcome::Drained => {
                metrics.record_change("drain");
                if step.needs_guard() {
                    say!("audit", "drained", why);
                } else {
                    say!("ecs_mesh_operator", "drained", why);
                }
            }
            ApplyOutcome::Removed | ApplyOutcome::RemovalConfirmedLate => {
                metrics.record_change("remove");
                if let Action::Remove(evidence) = &step.action {
                    metrics.record_removal(evidence.as_str());
                }
                let is_heard = *outcome == ApplyOutcome::Removed;
                say!("audit", "removed", why, if is_heard { "done" } else { RESULT_RESPONSE_LOST });
            }
            ApplyOutcome::UpdateNotAllowed(changes) => {
                let fields: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
                let words = format!("update of {} skipped by policy", fields.join(", "));
                self.warn_once("skipped_by_policy", &Reason::new(format!("update {binding}"), words));
            }
            ApplyOutcome::Equal
            | ApplyOutcome::Vanished
            | ApplyOutcome::NameConflict(_)
            | ApplyOutcome::NoLease
            | ApplyOutcome::RemovalFailed(_)
            | ApplyOutcome::Unconfirmed => {
                debug!(%task, mesh, %name, ?outcome, "nothing to do");
            }
        }
    }

    /// A removal was sent and failed: once for each kind of failure, neither at each retry nor for each of many.
    pub(super) fn removal_failed(&self, step: &PlanStep, whose: &OwnerInfo, error: &MeshError) {
        let ReportSubject { operator, worker: plane, task } = &self.subject;
        let (version, (_, why)) = (env!("CARGO_PKG_VERSION"), describe_step(step));
        let (service, role) = (whose.service.as_deref(), whose.role.as_ref().map(RoleArn::as_str));
        let (mesh, partition) = (plane.mesh_label(&step.id.mesh), plane.partition());
        let (name, binding) = (&step.id.name, &step.binding.name);
        let message = format!("{} was not removed: {}", plane.display_name(&step.id), error.message);
        let cause = format!("{} {}", error.kind.label(), group_key(&error.message));
        if plane.record_warning(task, "removal_failed", &cause, &message) != Novelty::New {
            debug!(control_plane = %plane.name, %task, reason = "removal_failed", "{message}");
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
    fn warn_once(&self, reason: &'static str, why: &Reason) -> bool {
        let ReportSubject { operator, worker: plane, task } = &self.subject;
        operator.metrics.record_warning(reason);
        let (cause, message) = (&why.key, &why.message);
        let news = plane.record_warning(task, reason, cause, message);
        if news == Novelty::New {
            warn!(control_plane = %plane.name, %task, reason, "{message}");
        } else {
            debug!(control_plane = %plane.name, %task, reason, "{message}");
        }
        news != Novelty::Known
    }

    pub(super) fn warn(&self, reason: &'static str, why: &Reason) {
        if self.note(|| PlannedChange::with_reason(Change::Unknown, why)) {
            return self.subject.operator.metrics.record_warning(reason);
        }
        self.warn_once(reason, why);
    }

    /// A call failed for what the control plane says of this one registration.
    pub(super) fn rejected_by_server(&self, error: &MeshError) {
        self.warn(error.kind.label(), &Reason::new(group_key(&error.message), &*error.message));
    }

    pub(super) fn warnings(&self, all: &[Reason]) {
        if let Some(mut page) = self.page() {
            return page.extend_warnings(all);
        }
        self.warn_once("degraded", &Reason::join(all));
    }

    pub(super) fn held(&self, reason: &HoldReason) {
        let change = if matches!(reason, HoldReason::Unknown(_)) { Change::Unknown } else { Change::Hold };
        if self.note(|| PlannedChange::with_reason(change, &reason.reason())) {
            return self.subject.operator.metrics.record_warning(reason.label());
        }
        self.warn_once(reason.label(), &reason.reason().with_prefix("held, nothing changes"));
    }

    pub(super) fn ignored(&self, reason: &IgnoreReason) {
        // The other control plane's part of the plan has it.
        if self.plan.is_some() && matches!(reason, IgnoreReason::OtherControlPlane) {
            return;
        }
        if self.note(|| PlannedChange::new(Change::Ignore, reason.to_string())) {
            return self.subject.operator.metrics.record_ignored(reason.label());
        }
        let ReportSubject { operator, worker: plane, task } = &self.subject;
        operator.metrics.record_ignored(reason.label());
        if matches!(reason, IgnoreReason::NetworkMode(_)) {
            self.warn_once(reason.label(), &Reason::constant(reason.to_string()));
        } else {
            debug!(control_plane = %plane.name, %task, reason = reason.label(), "{reason}");
        }
    }

    pub(super) fn rejected(&self, violations: &[RoleViolation]) {
        for violation in violations {
            self.subject.operator.metrics.record_violation(violation.rule.label());
        }
        let why = Reason::join(&violations.iter().map(RoleViolation::reason).collect::<Vec<_>>());
        if self.note(|| PlannedChange::with_reason(Change::Reject, &why)) {
            return;
        }
        if self.warn_once("rejected", &why.with_prefix("not allowed in the mesh")) {
            self.subject.operator.metrics.record_rejected();
        }
    }

    pub(super) fn name_conflict(&self, step: &PlanStep, owner: &RegistrationOwner) {
        let (whom, whose) = match owner {
            RegistrationOwner::Foreign => ("somebody", "somebody else's (it has no mark of this operator)".to_owned()),
            RegistrationOwner::Owned(marks) => (
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
            PlannedChange { key: whom.to_owned(), ..self.plan_entry(step, Change::NameConflict, words) }
        };
        if self.note(blocked) {
            return;
        }
        let message = format!(
            "{} is {whose} and is left alone; remove it, or choose another spec.dataplaneName in MeshBinding {}",
            self.subject.worker.display_name(&step.id),
            step.binding.name
        );
        self.warn_once("name_conflict", &Reason::new(format!("{whom} {}", step.binding.name), message));
    }

    pub(super) fn held_by_guard(&self, step: &PlanStep, admitted: usize, owned: usize) {
        let (change, why) = describe_step(step);
        let message = format!(
            "the guard of MeshBinding {} holds back this {change} ({why}): {admitted} of {owned} registrations were \
             already withdrawn within the hour without a STOPPED of their own; if that is right, set \
             spec.cleanup.guard.releaseUntil to a time in the near future",
            step.binding.name
        );
        if self.note(|| self.blocked_change(step, BlockedBy::Guard, message.clone())) {
            return self.subject.operator.metrics.record_warning("held_by_guard");
        }
        // The counts in the words grow; what happens is the same.
        self.warn_once("held_by_guard", &Reason::new(format!("{change} {}", step.binding.name), message));
    }

    pub(super) fn skipped_by_policy(&self, step: &PlanStep) {
        let (change, why) = describe_step(step);
        let policy = step.binding.spec.policy;
        if self.note(|| self.blocked_change(step, BlockedBy::Policy, why.clone())) {
            return self.subject.operator.metrics.record_warning("skipped_by_policy");
        }
        let message =
            format!("{change} of {} ({why}) skipped: policy {policy:?}", self.subject.worker.display_name(&step.id));
        self.warn_once("skipped_by_policy", &Reason::new(format!("{change} {}", step.binding.name), message));
    }

    pub(super) fn paused(&self, step: &PlanStep) {
        let (change, why) = describe_step(step);
        let message = {
            let name = self.subject.worker.display_name(&step.id);
            format!("MeshBinding {} is paused: {change} of {name} ({why})", step.binding.name)
        };
        self.warn_once("paused", &Reason::new(format!("{change} {}", step.binding.name), message));
    }

    /// A withdrawal that would be done, were it not for this.
    fn blocked_change(&self, step: &PlanStep, by: BlockedBy, reason: String) -> PlannedChange {
        let drains = matches!(step.action, Action::Drain(..) | Action::Skip { action: SkippedAction::Drain, .. });
        let change = if drains { Change::Drain } else { Change::Remove };
        PlannedChange { blocked_by: Some(by), ..self.plan_entry(step, change, reason) }
    }

    /// Nothing was noted of a registered task, which a plan should not pass over in silence.
    pub(super) fn record_no_change(&self, reason: &str, change: Change) {
        let is_empty = self.page().is_some_and(|page| page.is_empty());
        if is_empty {
            self.note(|| PlannedChange::new(change, reason));
        }
    }
}

/// What comes after a drain by itself.
fn follow_up(step: &PlanStep) -> Option<String> {
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
