//! The changes that one reconcile of a task comes to, each with its reason: the plan of a dry run, and the verdict that readers of
//! a live run see.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::super::apply::ApplyOutcome;
use super::super::control_plane_worker::ControlPlaneWorker;
use super::super::dataplane_checks::DataplaneFinding;
use super::super::dry_run::TaskPlan;
use super::super::registry::RegistryEntry;
use super::super::warnings::group_key;
use super::dataplane::{check_problem, withheld_problem};
use super::{Subject, describe_owner, describe_step, guard_message, hold_message};
use ecs_mesh_api::LifecyclePolicy;
use ecs_mesh_api::manifests::Binding;
use ecs_mesh_control_plane::{MeshError, MeshErrorKind, RegistrationOwner};
use ecs_mesh_controller::WriteObstacle;
use ecs_mesh_core::intent::{
    DesiredRegistration, Evaluation, HoldReason, IgnoreReason, RegistrationId, RoleViolation, Verdict,
};
use ecs_mesh_core::plan::report::{BlockedBy, Change, PlannedChange};
use ecs_mesh_core::plan::{
    Action, Decision, DrainReason, Evidence, FieldChange, HeldRemoval, OwnerAction, OwnerStep,
    PendingConfirmation, PlanStep, SkippedAction,
};
use ecs_mesh_model::{Reason, TaskArn};

/// The reason of a registration with nothing to write.
const AS_DESIRED: &str = "as desired";

/// Collects the changes of one reconcile. The next attempt of the reconcile starts anew.
pub(super) struct TaskChanges<'a> {
    subject: Subject<'a>,
    plan: Mutex<TaskPlan>,
}

impl<'a> TaskChanges<'a> {
    pub(super) fn new(subject: Subject<'a>) -> Self {
        Self { subject, plan: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, TaskPlan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what is collected.
    pub(super) fn clear(&self) {
        *self.lock() = TaskPlan::default();
    }

    /// Takes what is collected.
    pub(super) fn take(&self) -> TaskPlan {
        std::mem::take(&mut *self.lock())
    }

    /// The number of changes so far.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Marks all changes from `first` on as waiting for a confirmation.
    pub(super) fn set_precondition_from(&self, first: usize, awaited: &PendingConfirmation) {
        self.lock().set_precondition_from(first, awaited);
    }

    /// Adds warnings: valid states that are probably unintended.
    pub(super) fn warnings(&self, all: &[Reason]) {
        self.lock().extend_warnings(all);
    }

    fn push(&self, change: PlannedChange) {
        let partition = self.subject.worker.partition().map(str::to_owned);
        self.lock().push(PlannedChange { partition, ..change });
    }

    /// Why nothing changes, if nothing else is collected: a task with registrations is not passed over.
    pub(super) fn no_change(&self, reason: &str, change: Change) {
        if self.lock().is_empty() {
            self.push(PlannedChange::new(change, reason));
        }
    }

    fn entry<'s>(
        &self,
        step: impl Into<ShownStep<'s>>,
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
        PlannedChange { blocked_by: Some(by), ..self.entry(step, self.change_of(step), reason) }
    }

    /// The change of a step that was not carried out.
    fn change_of(&self, step: &PlanStep) -> Change {
        match step.action {
            Action::Ensure { .. } if self.is_registered(&step.id) => Change::Hold,
            Action::Ensure { .. } => Change::Create,
            Action::Drain(..) | Action::Skip { action: SkippedAction::Drain, .. } => Change::Drain,
            Action::Remove(_) | Action::Skip { .. } => Change::Remove,
        }
    }

    fn is_registered(&self, id: &RegistrationId) -> bool {
        let Subject { worker, task, .. } = self.subject;
        worker.registry.entries(task).iter().any(|entry| entry.id == *id)
    }

    /// The outcome of a step: the change that a dry run would make.
    pub(super) fn planned(&self, step: &PlanStep, outcome: &ApplyOutcome) {
        if let Some(change) = self.planned_change(step, outcome) {
            self.push(change);
        }
    }

    /// The outcome of a step that was carried out: what is still due after it.
    pub(super) fn carried_out(&self, step: &PlanStep, outcome: &ApplyOutcome) {
        match outcome {
            ApplyOutcome::Created(..) | ApplyOutcome::Updated(..) | ApplyOutcome::Drained => {
                self.planned(step, &ApplyOutcome::Equal);
            }
            ApplyOutcome::Removed | ApplyOutcome::RemovalConfirmedLate => {}
            other => self.planned(step, other),
        }
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
                _ => self.entry(step, Change::Unchanged, AS_DESIRED),
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

    /// The steps of a decision that is not carried out, from the decision alone: those that wait for a confirmation, and those
    /// of a standby.
    pub(super) fn decided(&self, decision: &Decision) {
        for step in &decision.steps {
            let (_, why) = describe_step(step);
            match &step.action {
                Action::Ensure { .. } if self.is_registered(&step.id) => {
                    self.planned(step, &ApplyOutcome::Equal);
                }
                Action::Ensure { .. } => {
                    self.push(self.entry(step, Change::Create, "the task runs and is not registered"));
                }
                Action::Drain(..) => self.planned(step, &ApplyOutcome::Drained),
                Action::Remove(_) => self.planned(step, &ApplyOutcome::Removed),
                Action::Skip { .. } => self.push(self.blocked(step, BlockedBy::Policy, why)),
            }
        }
        for step in &decision.owner_steps {
            if let OwnerAction::Withhold(action, evidence) = &step.action {
                self.withheld(step, *action, evidence);
            }
        }
    }

    /// The verdict on a live task, where it is no registration.
    pub(super) fn evaluated(&self, evaluation: &Evaluation) {
        match &evaluation.verdict {
            Verdict::Reject { violations, .. } => self.rejected(violations),
            Verdict::Hold(reason) => self.held(reason),
            Verdict::Ignore(reason) => self.ignored(reason),
            Verdict::Register(_) | Verdict::Admit | Verdict::NeedsFact(_) => {}
        }
        self.warnings(&evaluation.warnings);
    }

    /// A removal was sent and failed.
    pub(super) fn removal_failed(&self, step: &PlanStep, error: &MeshError) {
        let (_, why) = describe_step(step);
        let warnings = vec![format!("the last attempt failed: {}", error.message)];
        self.push(PlannedChange { warnings, ..self.entry(step, Change::Remove, why) });
    }

    /// This process may not write, so the step was not carried out.
    pub(super) fn obstructed(&self, step: &PlanStep, obstacle: WriteObstacle) {
        let is_unsupported = obstacle == WriteObstacle::UnsupportedControlPlane;
        let blocked_by = is_unsupported.then_some(BlockedBy::UnsupportedControlPlane);
        self.push(PlannedChange { blocked_by, ..self.entry(step, self.change_of(step), obstacle.reason()) });
    }

    /// The control plane cannot be reached.
    pub(super) fn unreachable(&self) {
        self.no_change("the control plane is not reachable", Change::Unknown);
    }

    /// An input that could not be read, or another obstacle.
    pub(super) fn problem(&self, why: &Reason) {
        self.push(PlannedChange::with_reason(Change::Unknown, why));
    }

    /// A call to the control plane failed.
    pub(super) fn call_failed(&self, error: &MeshError) {
        let reason = Reason::new(group_key(&error.message), &*error.message);
        // Nothing was asked of the control plane: what is registered stays until the manifests or the version change.
        let is_held = error.kind == MeshErrorKind::NotExpressible;
        let change = if is_held { Change::Hold } else { Change::Unknown };
        let blocked_by = is_held.then_some(BlockedBy::NotExpressible);
        self.push(PlannedChange { blocked_by, ..PlannedChange::with_reason(change, &reason) });
    }

    /// The task is held: registrations are kept as they are.
    pub(super) fn held(&self, reason: &HoldReason) {
        match reason {
            HoldReason::Unknown(_) => {
                self.push(PlannedChange::with_reason(Change::Unknown, &reason.reason()));
            }
            HoldReason::AddressPending => {
                self.no_change(&format!("{reason}; registered when it is"), Change::Hold);
            }
            _ => self.push(PlannedChange::with_reason(Change::Hold, &reason.reason())),
        }
    }

    /// The task is not this operator's, or not this control plane's.
    pub(super) fn ignored(&self, reason: &IgnoreReason) {
        // The verdict of the other control plane has the task.
        if !matches!(reason, IgnoreReason::OtherControlPlane) {
            self.push(PlannedChange::new(Change::Ignore, reason.to_string()));
        }
    }

    /// The task's role does not allow it.
    pub(super) fn rejected(&self, violations: &[RoleViolation]) {
        let why = Reason::join(&violations.iter().map(RoleViolation::reason).collect::<Vec<_>>());
        self.push(PlannedChange::with_reason(Change::Reject, &why));
    }

    /// The name of a step's registration belongs to another owner.
    pub(super) fn name_conflict(&self, step: &PlanStep, owner: &RegistrationOwner) {
        let (key, owner) = describe_owner(owner);
        let reason = format!(
            "the name is already taken by {owner}; not touching it: remove it, or choose another spec.dataplaneName in \
             MeshBinding {}",
            step.binding.name
        );
        self.push(PlannedChange { key: key.to_owned(), ..self.entry(step, Change::NameConflict, reason) });
    }

    /// A drain waits, since too few other registrations of its service are ready.
    pub(super) fn drain_held(&self, step: &PlanStep, ready: usize, needed: usize) {
        let (_, why) = describe_step(step);
        let precondition = Some(hold_message(ready, needed));
        let follow_up = follow_up(step);
        self.push(PlannedChange { precondition, follow_up, ..self.entry(step, Change::Drain, why) });
    }

    /// The guard holds a step.
    pub(super) fn held_by_guard(&self, step: &PlanStep, held: &HeldRemoval) {
        self.push(self.blocked(step, BlockedBy::Guard, guard_message(step, held)));
    }

    /// The binding's policy does not permit a step.
    pub(super) fn skipped_by_policy(&self, step: &PlanStep) {
        let (_, why) = describe_step(step);
        self.push(self.blocked(step, BlockedBy::Policy, why));
    }

    /// The binding of a step is paused, so the step was not carried out.
    pub(super) fn paused(&self, step: &PlanStep) {
        let (_, why) = describe_step(step);
        self.push(self.blocked(step, BlockedBy::Paused, why));
    }

    /// A removal waits until another sidecar has registered the name.
    pub(super) fn awaits_sidecar(&self, step: &PlanStep, other: &TaskArn) {
        let (_, why) = describe_step(step);
        let precondition = Some(format!(
            "once the sidecar of task {other}, which registers the same name, has begun or 5 minutes are over"
        ));
        self.push(PlannedChange { precondition, ..self.entry(step, Change::Remove, why) });
    }

    /// A gone task has left a Dataplane without ownership labels.
    pub(super) fn left_behind(&self, id: &RegistrationId, message: &str) {
        let mesh = self.subject.worker.mesh_label(id).map(str::to_owned);
        let name = Some(id.name.to_string());
        self.push(PlannedChange { mesh, name, ..PlannedChange::new(Change::Unmanaged, message) });
    }

    /// A check has compared a Dataplane that the operator does not own. Returns the reason of the problem's warning.
    pub(super) fn checked(&self, step: &OwnerStep, finding: &DataplaneFinding) -> Option<&'static str> {
        let name = self.subject.worker.display_name(&step.id);
        let Some(problem) = check_problem(step, &name, finding) else {
            let reason = format!("as declared; dataplanes is {}", step.owner);
            self.push(self.entry(step, Change::Unchanged, reason));
            return None;
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
        self.push(PlannedChange { key: problem.key, blocked_by, fields, registration, ..entry });
        Some(problem.reason)
    }

    /// The owner of the Dataplane does not permit a step. Returns the reason of its warning.
    pub(super) fn withheld(
        &self,
        step: &OwnerStep,
        action: SkippedAction,
        evidence: &Evidence,
    ) -> &'static str {
        let name = self.subject.worker.display_name(&step.id);
        let problem = withheld_problem(step, &name, action, evidence);
        let change = match action {
            SkippedAction::Drain => Change::Drain,
            SkippedAction::Remove => Change::Remove,
        };
        let blocked_by = Some(BlockedBy::DataplaneOwner);
        self.push(PlannedChange { blocked_by, ..self.entry(step, change, problem.message) });
        problem.reason
    }
}

/// Whether the plan says of each registration that it is as desired, and nothing else: [`settled_change`] says it again.
pub(in crate::operator) fn is_settled(plan: &TaskPlan) -> bool {
    let is_as_desired =
        |change: &PlannedChange| change.change == Change::Unchanged && change.reason == AS_DESIRED;
    !plan.is_empty() && plan.warnings().is_empty() && plan.changes().iter().all(is_as_desired)
}

/// The change of a registration that is as desired.
pub(in crate::operator) fn settled_change(
    worker: &ControlPlaneWorker,
    entry: &RegistryEntry,
) -> PlannedChange {
    PlannedChange {
        mesh: worker.mesh_label(&entry.id).map(str::to_owned),
        partition: worker.partition().map(str::to_owned),
        name: Some(entry.id.name.to_string()),
        binding: entry.binding().map(ToString::to_string),
        service: entry.service.as_deref().map(str::to_owned),
        ..PlannedChange::new(Change::Unchanged, AS_DESIRED)
    }
}

/// The parts of a step that its change shows.
struct ShownStep<'a> {
    id: &'a RegistrationId,
    binding: &'a Arc<Binding>,
    desired: Option<&'a DesiredRegistration>,
    evidence: Option<&'a Evidence>,
}

impl<'a> From<&'a PlanStep> for ShownStep<'a> {
    fn from(step: &'a PlanStep) -> Self {
        let desired = match &step.action {
            Action::Ensure { desired, .. } => Some(&**desired),
            Action::Drain(..) | Action::Remove(_) | Action::Skip { .. } => None,
        };
        Self { id: &step.id, binding: &step.binding, desired, evidence: step.evidence() }
    }
}

impl<'a> From<&'a OwnerStep> for ShownStep<'a> {
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
