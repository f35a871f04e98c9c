//! Records what reconciles do and find. A live run logs and counts; a dry run collects a plan, and lets no write be sent.

mod changes;
mod dataplane;
mod live;
mod plan;
mod task_journal;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::apply::{ApplyOutcome, WriteDecision};
use super::context::Context;
use super::control_plane_worker::ControlPlaneWorker;
use super::dataplane_checks::DataplaneFinding;
use ecs_mesh_api::HumanDuration;
use ecs_mesh_control_plane::{MeshError, RegistrationOwner};
use ecs_mesh_controller::{Lease, WriteObstacle};
use ecs_mesh_core::intent::{Evaluation, HoldReason, IgnoreReason, RegistrationId, RoleViolation};
use ecs_mesh_core::plan::report::Change;
use ecs_mesh_core::plan::{
    Action, Decision, DrainReason, Evidence, HeldRemoval, OwnerStep, PendingConfirmation, PlanStep,
    SkippedAction,
};
use ecs_mesh_model::{EcsServiceRef, Reason, RoleArn, TaskArn, Timestamp};

pub(super) use changes::{is_settled, settled_change};
pub(super) use live::LiveRecorder;
pub(super) use plan::TaskPlanRecorder;

/// Records what an operator does.
pub(super) trait Recorder: Send + Sync {
    /// The recorder of one reconcile of one task.
    fn of_task<'a>(self: Arc<Self>, subject: Subject<'a>) -> Box<dyn TaskRecorder + 'a>;

    /// The recorder of one look at the deployments of a service.
    fn of_service<'a>(self: Arc<Self>, subject: ServiceSubject<'a>) -> Box<dyn HoldRecorder + 'a>;

    /// Records an input that could not be read, or, with `None`, that it now was.
    fn record_unresolved(&self, subject: &str, error: Option<String>);

    /// Drops what is recorded of other control planes.
    fn retain_control_planes(&self, control_planes: &BTreeSet<Arc<str>>);
}

/// The task of a reconcile, and where it is reconciled.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub context: &'a Context,
    pub worker: &'a ControlPlaneWorker,
    pub task: &'a TaskArn,
}

/// The service of a look, and where its tasks are registered.
#[derive(Clone, Copy)]
pub(super) struct ServiceSubject<'a> {
    pub context: &'a Context,
    pub service: &'a EcsServiceRef,
    pub control_plane: &'a Arc<str>,
    pub binding: &'a Arc<str>,
}

/// Records one look at the deployments of a service.
pub(super) trait HoldRecorder: Send + Sync {
    /// Whether a write may be sent now. Asked last, right before each write.
    fn write_decision(&self, lease: &dyn Lease) -> WriteDecision;

    /// These tasks would be protected, of all those that an earlier look may have planned to protect.
    fn planned(&self, tasks: &BTreeSet<TaskArn>, all: &BTreeSet<TaskArn>);

    /// ECS protects the task until then, by its own clock.
    fn protected(&self, task: &TaskArn, until: Timestamp);

    /// The protection of the task is cleared.
    fn unprotected(&self, task: &TaskArn, reason: &'static str);

    /// A change of the protection of these tasks failed; it may have taken effect.
    fn failed(&self, change: &'static str, tasks: &[TaskArn], error: &str);
}

/// The registration as known before a step, since a removal forgets it.
pub(super) struct OwnerInfo {
    pub service: Option<Arc<str>>,
    pub role: Option<RoleArn>,
}

/// Records one reconcile of one task.
pub(super) trait TaskRecorder: Send + Sync {
    /// Starts another attempt: what the last one recorded no longer counts.
    fn start_attempt(&self);

    /// The reconcile has ended.
    fn finish(&self);

    /// The task was evaluated.
    fn evaluated(&self, evaluation: &Evaluation);

    /// Whether a write may be sent now. Asked last, right before each write.
    fn write_decision(&self, lease: &dyn Lease) -> WriteDecision;

    /// Whether steps take effect, so that they count for guards and answer events.
    fn takes_effect(&self) -> bool;

    /// The outcome of a step.
    fn outcome(&self, step: &PlanStep, owner: &OwnerInfo, outcome: &ApplyOutcome);

    /// A removal was sent and failed.
    fn removal_failed(&self, step: &PlanStep, owner: &OwnerInfo, error: &MeshError);

    /// This process may not write, so the step was not carried out.
    fn obstructed(&self, step: &PlanStep, obstacle: WriteObstacle);

    /// Something is in the way, or an input could not be read; `reason` is a bounded label.
    fn problem(&self, reason: &'static str, why: &Reason);

    /// A call to the control plane failed.
    fn call_failed(&self, error: &MeshError);

    /// The circuit of the control plane is open.
    fn unreachable(&self);

    /// The task is registered, and something about it needs attention.
    fn warnings(&self, all: &[Reason]);

    /// The task is held: registrations are kept as they are.
    fn held(&self, reason: &HoldReason);

    /// ECS has not attached the task's network interface yet.
    fn awaits_address(&self);

    /// The task is not this operator's.
    fn ignored(&self, reason: &IgnoreReason);

    /// The task's role does not allow it.
    fn rejected(&self, violations: &[RoleViolation]);

    /// The name of a step's registration belongs to another owner.
    fn name_conflict(&self, step: &PlanStep, owner: &RegistrationOwner);

    /// A drain waits, since too few other registrations of its service are ready. `was_held`: it waited already.
    fn drain_held(&self, step: &PlanStep, ready: usize, needed: usize, was_held: bool);

    /// The guard holds a step.
    fn held_by_guard(&self, step: &PlanStep, held: &HeldRemoval);

    /// The withdrawal of these registrations waits for `cleanup.settle`; of none, where the list is empty.
    fn settling(&self, waiting: &[RegistrationId], settle: Duration);

    /// The binding's policy does not permit a step.
    fn skipped_by_policy(&self, step: &PlanStep);

    /// A check has compared a Dataplane that the operator does not own.
    fn checked(&self, step: &OwnerStep, finding: &DataplaneFinding);

    /// The owner of the Dataplane does not permit a step.
    fn withheld(&self, step: &OwnerStep, action: SkippedAction, evidence: &Evidence);

    /// A removal waits for the sidecar of another task, which is about to register the same name; of none, it waits no more.
    fn awaits_sidecar(&self, step: &PlanStep, awaited: Option<&TaskArn>);

    /// The role does not allow the task, and its sidecar registers it.
    fn not_revocable(&self);

    /// A task that is gone has left a Dataplane without ownership labels.
    fn left_behind(&self, id: &RegistrationId);

    /// The binding of a step is paused. Whether the step is carried out all the same, as a plan does.
    fn paused(&self, step: &PlanStep) -> bool;

    /// Why nothing changes for the task, unless something else is recorded.
    fn no_change(&self, reason: &str, change: Change);

    /// The steps that follow once an observation is confirmed.
    fn decided_later(&self, awaited: &PendingConfirmation, decision: &Decision);

    /// A standby has evaluated the task, and carries out nothing of the decision.
    fn stood_by(&self, evaluation: Option<&Evaluation>, decision: &Decision);

    /// Whether the verdict is shown to anyone.
    fn shows_verdict(&self) -> bool;

    /// The plan of this task, where this is a dry run.
    fn plan(&self) -> Option<&TaskPlanRecorder<'_>>;
}

/// The change of a step and its reason, for people.
fn describe_step(step: &PlanStep) -> (&'static str, String) {
    match &step.action {
        Action::Ensure { .. } => ("ensure", "the task runs".to_owned()),
        Action::Drain(DrainReason::Stopping, _) => ("drain", "ECS is stopping the task".to_owned()),
        Action::Drain(_, evidence) => ("drain", evidence.to_string()),
        Action::Remove(evidence) => ("remove", evidence.to_string()),
        Action::Skip { action, evidence } => (action.as_str(), evidence.to_string()),
    }
}

/// The owner of a conflicting registration: a grouping key, and words.
fn describe_owner(owner: &RegistrationOwner) -> (&str, String) {
    match owner {
        RegistrationOwner::Foreign => ("foreign", "an owner without this operator's labels".to_owned()),
        RegistrationOwner::Owned(labels) => (
            labels.operator.as_str(),
            format!("operator {}, cluster {}, task {}", labels.operator, labels.cluster, labels.task),
        ),
    }
}

/// The condition that a held drain waits for, for people.
fn hold_message(ready: usize, needed: usize) -> String {
    format!(
        "{ready} other registrations of the service are ready, and {needed} must be; until then the drain waits for the \
         task to stop serving, and for drain.maxHold at most"
    )
}

fn guard_message(step: &PlanStep, held: &HeldRemoval) -> String {
    let (change, why) = describe_step(step);
    let HeldRemoval { admitted, owned, stable_in } = held;
    let by_itself = stable_in.map(|wait| {
        let wait = HumanDuration(Duration::from_secs(wait.as_secs().max(1)));
        format!("it follows in {wait} unless the manifests change; ")
    });
    format!(
        "{change} held by the guard of MeshBinding {} ({why}): {admitted} of {owned} registrations already withdrawn in \
         the last hour without a STOPPED of their own; {}if that is right, {RELEASE_GUARD}",
        step.binding.name,
        by_itself.unwrap_or_default()
    )
}

/// The remedy for a step that the guard holds and that is right.
const RELEASE_GUARD: &str = "set spec.cleanup.guard.releaseUntil to a time in the near future";

/// [`RELEASE_GUARD`], with the binding.
fn release_guard(step: &PlanStep) -> String {
    format!("if the withdrawal is right, {RELEASE_GUARD} in MeshBinding {}", step.binding.name)
}
