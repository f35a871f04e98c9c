//! A dry run: what steps would come to goes into the task's part of the plan, and no write is sent.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::super::apply::{ApplyOutcome, WriteDecision};
use super::super::dataplane_checks::DataplaneFinding;
use super::super::dry_run::{DryRunRecorder, TaskPlan};
use super::super::warnings::group_key;
use super::dataplane::{NOT_REVOCABLE, NOT_REVOCABLE_TEXT, check_problem, withheld_problem};
use super::{
    HoldRecorder, OwnerInfo, Recorder, ServiceSubject, Subject, TaskRecorder, describe_owner, describe_step,
    guard_message, hold_message,
};
use ecs_mesh_api::LifecyclePolicy;
use ecs_mesh_api::manifests::Binding;
use ecs_mesh_control_plane::{MeshError, MeshErrorKind, RegistrationOwner};
use ecs_mesh_controller::{Lease, WriteObstacle};
use ecs_mesh_core::intent::{
    DesiredRegistration, Evaluation, HoldReason, IgnoreReason, RegistrationId, RoleViolation,
};
use ecs_mesh_core::plan::report::{BlockedBy, Change, PlannedChange};
use ecs_mesh_core::plan::{
    Action, DrainReason, Evidence, FieldChange, HeldRemoval, OwnerAction, OwnerStep, PendingConfirmation,
    PlanStep, SkippedAction,
};
use ecs_mesh_model::{Reason, TaskArn, Timestamp};

impl Recorder for DryRunRecorder {
    fn of_task<'a>(self: Arc<Self>, subject: Subject<'a>) -> Box<dyn TaskRecorder + 'a> {
        Box::new(TaskPlanRecorder { subject, recorder: self, plan: Mutex::default() })
    }

    fn of_service<'a>(self: Arc<Self>, subject: ServiceSubject<'a>) -> Box<dyn HoldRecorder + 'a> {
        Box::new(HoldPlanRecorder { subject, recorder: self })
    }

    fn record_unresolved(&self, subject: &str, error: Option<String>) {
        match error {
            Some(error) => DryRunRecorder::record_unresolved(self, subject, error),
            None => self.clear_unresolved(subject),
        }
    }

    fn retain_control_planes(&self, control_planes: &BTreeSet<Arc<str>>) {
        DryRunRecorder::retain_control_planes(self, control_planes);
    }
}

/// Puts the tasks of a service that would be protected into the plan.
struct HoldPlanRecorder<'a> {
    subject: ServiceSubject<'a>,
    recorder: Arc<DryRunRecorder>,
}

impl HoldRecorder for HoldPlanRecorder<'_> {
    fn write_decision(&self, _lease: &dyn Lease) -> WriteDecision {
        WriteDecision::DryRun
    }

    fn planned(&self, tasks: &BTreeSet<TaskArn>, all: &BTreeSet<TaskArn>) {
        let reason = "a deployment replaces the task, and its replacements are not ready in the mesh";
        let follow_up = "cleared once they are, and after deployments.maxHold at the latest";
        for task in all {
            let mut plan = TaskPlan::default();
            if tasks.contains(task) {
                plan.push(PlannedChange {
                    binding: Some(self.subject.binding.to_string()),
                    follow_up: Some(follow_up.to_owned()),
                    ..PlannedChange::new(Change::Protect, reason)
                });
            }
            self.recorder.replace_protection(self.subject.control_plane, task, plan);
        }
    }

    fn protected(&self, _task: &TaskArn, _until: Timestamp) {}

    fn unprotected(&self, _task: &TaskArn, _reason: &'static str) {}

    fn failed(&self, _change: &'static str, _tasks: &[TaskArn], _error: &str) {}
}

/// Collects the plan of one task.
pub(in crate::operator) struct TaskPlanRecorder<'a> {
    subject: Subject<'a>,
    recorder: Arc<DryRunRecorder>,
    /// The records of this attempt.
    plan: Mutex<TaskPlan>,
}

impl TaskPlanRecorder<'_> {
    fn lock(&self) -> MutexGuard<'_, TaskPlan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, change: PlannedChange) {
        let partition = self.subject.worker.partition().map(str::to_owned);
        self.lock().push(PlannedChange { partition, ..change });
    }

    /// Counts a warning, and puts the change into the plan.
    fn push_warning(&self, reason: &'static str, change: PlannedChange) {
        self.subject.context.metrics().record_warning(reason);
        self.push(change);
    }

    /// The number of changes so far.
    pub(in crate::operator) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Marks all changes from `first` on as waiting for a confirmation.
    pub(in crate::operator) fn set_precondition_from(&self, first: usize, awaited: &PendingConfirmation) {
        self.lock().set_precondition_from(first, awaited);
    }

    /// Records why nothing changes for a registered task, if nothing else is recorded: a plan does not pass over it.
    pub(in crate::operator) fn record_no_change(&self, reason: &str, change: Change) {
        if self.lock().is_empty() {
            self.push(PlannedChange::new(change, reason));
        }
    }

    fn entry<'s>(
        &self,
        step: impl Into<PlannedStep<'s>>,
        change: Change,
        reason: impl Into<String>,
    ) -> PlannedChange {
        let Subject { worker, task, .. } = self.subject;
        let (step, reason) = (step.into(), reason.into());
        let service = match step.desired {
            Some(desired) => Some(desired.service.as_str().to_owned()),
            None => {
                let entry = worker.registry.entries(task).into_iter().find(|entry| entry.id == *step.id);
                entry.and_then(|entry| entry.service).map(|service| service.to_string())
            }
        };
        let evidence = step.evidence.map(|evidence| evidence.as_str().to_owned());
        PlannedChange {
            mesh: worker.mesh_label(step.id).map(str::to_owned),
            name: Some(step.id.name.to_string()),
            binding: Some(step.binding.name.to_string()),
            service,
            // The evidence's words have a time that differs from task to task.
            key: evidence.clone().unwrap_or_else(|| reason.clone()),
            evidence,
            ..PlannedChange::new(change, reason)
        }
    }

    /// A withdrawal that something blocks.
    fn blocked(&self, step: &PlanStep, by: BlockedBy, reason: String) -> PlannedChange {
        let change = match step.action {
            Action::Drain(..) | Action::Skip { action: SkippedAction::Drain, .. } => Change::Drain,
            _ => Change::Remove,
        };
        PlannedChange { blocked_by: Some(by), ..self.entry(step, change, reason) }
    }

    fn planned_change(&self, step: &PlanStep, outcome: &ApplyOutcome) -> Option<PlannedChange> {
        let (_, why) = describe_step(step);
        let paused = step.binding.spec.paused.then_some(BlockedBy::Paused);
        let change = match outcome {
            ApplyOutcome::Created(normal, _) => PlannedChange {
                registration: Some(normal.clone()),
                ..self.entry(step, Change::Create, "the task runs and is not registered")
            },
            ApplyOutcome::Updated(fields, _) => PlannedChange {
                fields: fields.clone(),
                warnings: unsettled_outbounds(step, fields).into_iter().collect(),
                ..self.entry(step, Change::Update, "differs in these fields")
            },
            ApplyOutcome::UpdateNotAllowed(fields) => PlannedChange {
                fields: fields.clone(),
                blocked_by: Some(BlockedBy::Policy),
                ..self.entry(step, Change::Update, "differs in these fields; the policy is create-only")
            },
            ApplyOutcome::Drained => {
                PlannedChange { follow_up: follow_up(step), ..self.entry(step, Change::Drain, why) }
            }
            ApplyOutcome::Removed | ApplyOutcome::RemovalConfirmedLate => {
                self.entry(step, Change::Remove, why)
            }
            ApplyOutcome::Equal => match &step.action {
                Action::Skip { .. } => return None,
                Action::Drain(..) => self.entry(step, Change::Unchanged, "already drained"),
                _ => self.entry(step, Change::Unchanged, "as desired"),
            },
            ApplyOutcome::Vanished
            | ApplyOutcome::NameConflict(_)
            | ApplyOutcome::Obstructed(_)
            | ApplyOutcome::RemovalFailed(_)
            | ApplyOutcome::Unconfirmed => return None,
        };
        let blocked_by = if change.change.writes() { change.blocked_by.or(paused) } else { None };
        Some(PlannedChange { blocked_by, ..change })
    }
}

impl TaskRecorder for TaskPlanRecorder<'_> {
    fn start_attempt(&self) {
        *self.lock() = TaskPlan::default();
    }

    fn evaluated(&self, _evaluation: &Evaluation) {}

    fn finish(&self) {
        let plan = std::mem::take(&mut *self.lock());
        self.recorder.replace(&self.subject.worker.name, Some(self.subject.task), plan);
    }

    fn write_decision(&self, _lease: &dyn Lease) -> WriteDecision {
        WriteDecision::DryRun
    }

    fn takes_effect(&self) -> bool {
        false
    }

    fn outcome(&self, step: &PlanStep, _owner: &OwnerInfo, outcome: &ApplyOutcome) {
        if let Some(change) = self.planned_change(step, outcome) {
            self.push(change);
        }
    }

    fn removal_failed(&self, _step: &PlanStep, _owner: &OwnerInfo, error: &MeshError) {
        // A dry run sends no removal, so only a failed read gets here.
        self.call_failed(error);
    }

    fn obstructed(&self, step: &PlanStep, registered: bool, obstacle: WriteObstacle) {
        // A dry run needs no lease, and its log is not audited: only an unsupported control plane is in its way.
        let change = match step.action {
            Action::Ensure { .. } if registered => Change::Hold,
            Action::Ensure { .. } => Change::Create,
            Action::Drain(..) | Action::Skip { action: SkippedAction::Drain, .. } => Change::Drain,
            Action::Remove(_) | Action::Skip { .. } => Change::Remove,
        };
        let blocked_by = Some(BlockedBy::UnsupportedControlPlane);
        self.push(PlannedChange { blocked_by, ..self.entry(step, change, obstacle.reason()) });
    }

    fn problem(&self, reason: &'static str, why: &Reason) {
        self.push_warning(reason, PlannedChange::with_reason(Change::Unknown, why));
    }

    fn call_failed(&self, error: &MeshError) {
        let reason = Reason::new(group_key(&error.message), &*error.message);
        // Nothing was asked of the control plane: what is registered stays until the manifests or the version change.
        let is_held = error.kind == MeshErrorKind::NotExpressible;
        let change = if is_held { Change::Hold } else { Change::Unknown };
        let blocked_by = is_held.then_some(BlockedBy::NotExpressible);
        let change = PlannedChange { blocked_by, ..PlannedChange::with_reason(change, &reason) };
        self.push_warning(error.kind.label(), change);
    }

    fn unreachable(&self) {
        self.record_no_change("the control plane is not reachable", Change::Unknown);
    }

    fn warnings(&self, all: &[Reason]) {
        self.lock().extend_warnings(all);
    }

    fn held(&self, reason: &HoldReason) {
        let change = if matches!(reason, HoldReason::Unknown(_)) { Change::Unknown } else { Change::Hold };
        self.push_warning(reason.label(), PlannedChange::with_reason(change, &reason.reason()));
    }

    fn ignored(&self, reason: &IgnoreReason) {
        // The other control plane's part of the plan has the task.
        if !matches!(reason, IgnoreReason::OtherControlPlane) {
            self.subject.context.metrics().evaluations.record_ignored(reason.label());
            let change = PlannedChange::new(Change::Ignore, reason.to_string());
            if reason.is_refusal() {
                self.push_warning(reason.label(), change);
            } else {
                self.push(change);
            }
        }
    }

    fn rejected(&self, violations: &[RoleViolation]) {
        for violation in violations {
            self.subject.context.metrics().evaluations.record_violation(violation.rule.label());
        }
        let why = Reason::join(&violations.iter().map(RoleViolation::reason).collect::<Vec<_>>());
        self.push(PlannedChange::with_reason(Change::Reject, &why));
    }

    fn name_conflict(&self, step: &PlanStep, owner: &RegistrationOwner) {
        let (key, owner) = describe_owner(owner);
        let reason = format!(
            "the name is already taken by {owner}; not touching it: remove it, or choose another spec.dataplaneName in \
             MeshBinding {}",
            step.binding.name
        );
        self.push(PlannedChange { key: key.to_owned(), ..self.entry(step, Change::NameConflict, reason) });
    }

    fn drain_held(&self, step: &PlanStep, ready: usize, needed: usize, _was_held: bool) {
        let (_, why) = describe_step(step);
        let precondition = Some(hold_message(ready, needed));
        let follow_up = follow_up(step);
        self.push(PlannedChange { precondition, follow_up, ..self.entry(step, Change::Drain, why) });
    }

    fn held_by_guard(&self, step: &PlanStep, held: &HeldRemoval) {
        let reason = guard_message(step, held);
        self.push_warning("held_by_guard", self.blocked(step, BlockedBy::Guard, reason));
    }

    /// The preview shows what waits, with its precondition.
    fn settling(&self, _waiting: &[RegistrationId], _settle: Duration) {}

    fn skipped_by_policy(&self, step: &PlanStep) {
        let (_, why) = describe_step(step);
        self.push_warning("skipped_by_policy", self.blocked(step, BlockedBy::Policy, why));
    }

    fn checked(&self, step: &OwnerStep, finding: &DataplaneFinding) {
        let name = self.subject.worker.display_name(&step.id);
        let Some(problem) = check_problem(step, &name, finding) else {
            let reason = format!("as declared; dataplanes is {}", step.owner);
            return self.push(self.entry(step, Change::Unchanged, reason));
        };
        let (change, fields, registration) = match finding {
            DataplaneFinding::Missing(normal) => (Change::Create, Vec::new(), Some(normal.clone())),
            DataplaneFinding::Taken(_) => (Change::NameConflict, Vec::new(), None),
            DataplaneFinding::Found { changes, .. } if changes.is_empty() => {
                (Change::Unmanaged, Vec::new(), None)
            }
            DataplaneFinding::Found { changes, .. } => (Change::Update, changes.clone(), None),
        };
        let blocked_by = change.writes().then_some(BlockedBy::DataplaneOwner);
        let entry = self.entry(step, change, problem.message);
        let change = PlannedChange { key: problem.key, blocked_by, fields, registration, ..entry };
        self.push_warning(problem.reason, change);
    }

    fn withheld(&self, step: &OwnerStep, action: SkippedAction, evidence: &Evidence) {
        let name = self.subject.worker.display_name(&step.id);
        let problem = withheld_problem(step, &name, action, evidence);
        let change = match action {
            SkippedAction::Drain => Change::Drain,
            SkippedAction::Remove => Change::Remove,
        };
        let blocked_by = Some(BlockedBy::DataplaneOwner);
        let change = PlannedChange { blocked_by, ..self.entry(step, change, problem.message) };
        self.push_warning(problem.reason, change);
    }

    /// A plan sends no removal that could race a sidecar.
    fn awaits_sidecar(&self, _step: &PlanStep, _awaited: Option<&TaskArn>) {}

    fn not_revocable(&self) {
        self.subject.context.metrics().record_warning(NOT_REVOCABLE);
        self.lock().extend_warnings(&[Reason::constant(NOT_REVOCABLE_TEXT)]);
    }

    /// A plan sees the task for the first time, and knows no Dataplane that it had.
    fn left_behind(&self, _id: &RegistrationId) {}

    fn paused(&self, _step: &PlanStep) -> bool {
        true
    }

    fn plan(&self) -> Option<&TaskPlanRecorder<'_>> {
        Some(self)
    }
}

/// The parts of a step that an entry of the plan shows.
struct PlannedStep<'a> {
    id: &'a RegistrationId,
    binding: &'a Arc<Binding>,
    desired: Option<&'a DesiredRegistration>,
    evidence: Option<&'a Evidence>,
}

impl<'a> From<&'a PlanStep> for PlannedStep<'a> {
    fn from(step: &'a PlanStep) -> Self {
        let desired = match &step.action {
            Action::Ensure { desired, .. } => Some(&**desired),
            Action::Drain(..) | Action::Remove(_) | Action::Skip { .. } => None,
        };
        Self { id: &step.id, binding: &step.binding, desired, evidence: step.evidence() }
    }
}

impl<'a> From<&'a OwnerStep> for PlannedStep<'a> {
    fn from(step: &'a OwnerStep) -> Self {
        let desired = match &step.action {
            OwnerAction::Check(desired) => Some(&**desired),
            OwnerAction::Withhold(..) => None,
        };
        Self { id: &step.id, binding: &step.binding, desired, evidence: step.evidence() }
    }
}

/// The change that follows a drain by itself.
fn follow_up(step: &PlanStep) -> Option<String> {
    if step.binding.spec.policy != LifecyclePolicy::Sync {
        return None;
    }
    Some(match &step.action {
        Action::Drain(DrainReason::Stopping, _) => "removed once ECS reports the task STOPPED".to_owned(),
        _ => format!("removed {} later (cleanup.drain)", step.binding.spec.cleanup.drain),
    })
}

/// Where an update removes outbounds: that it does so later, as far as a list may be missing.
fn unsettled_outbounds(step: &PlanStep, fields: &[FieldChange]) -> Option<String> {
    let Action::Ensure { desired, .. } = &step.action else { return None };
    (desired.reach.awaits_settling() && fields.iter().any(removes_outbound)).then(|| {
        format!(
            "outbounds that no list declares are removed once the manifests have been valid for {} (cleanup.settle)",
            step.binding.spec.cleanup.settle
        )
    })
}

/// Whether a change of a Dataplane's field takes a listener from its outbounds, or a backend from the reachable ones.
fn removes_outbound(change: &FieldChange) -> bool {
    let reachable = change.path.strip_prefix("networking.transparentProxying");
    let Some(below) = change.path.strip_prefix("networking.outbound").or(reachable) else { return false };
    if reachable.is_some() && !matches!(change.before, None | Some(Value::Array(_))) {
        return true;
    }
    let items = |list: &Option<Value>| list.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    let (before, after) = (items(&change.before), items(&change.after));
    let is_listener = matches!(below.rsplit('.').next(), Some("port" | "address"));
    is_listener || before.iter().any(|outbound| !after.contains(outbound))
}
