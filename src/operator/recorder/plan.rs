//! A dry run: what steps would come to goes into the task's part of the plan, and no write is sent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::super::apply::{ApplyOutcome, WriteDecision};
use super::super::dataplane_checks::DataplaneFinding;
use super::super::dry_run::{DryRunRecorder, TaskPlan};
use super::changes::TaskChanges;
use super::dataplane::{NOT_REVOCABLE, NOT_REVOCABLE_TEXT};
use super::{HoldRecorder, OwnerInfo, Recorder, ServiceSubject, Subject, TaskRecorder};
use ecs_mesh_control_plane::{MeshError, RegistrationOwner};
use ecs_mesh_controller::{Lease, WriteObstacle};
use ecs_mesh_core::intent::{Evaluation, HoldReason, IgnoreReason, RegistrationId, RoleViolation};
use ecs_mesh_core::plan::report::{Change, PlannedChange};
use ecs_mesh_core::plan::{
    Decision, Evidence, HeldRemoval, OwnerStep, PendingConfirmation, PlanStep, SkippedAction,
};
use ecs_mesh_model::{Reason, TaskArn, Timestamp};

impl Recorder for DryRunRecorder {
    fn of_task<'a>(self: Arc<Self>, subject: Subject<'a>) -> Box<dyn TaskRecorder + 'a> {
        Box::new(TaskPlanRecorder { subject, recorder: self, changes: TaskChanges::new(subject) })
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
    changes: TaskChanges<'a>,
}

impl TaskPlanRecorder<'_> {
    /// The number of changes so far.
    pub(in crate::operator) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Marks all changes from `first` on as waiting for a confirmation.
    pub(in crate::operator) fn set_precondition_from(&self, first: usize, awaited: &PendingConfirmation) {
        self.changes.set_precondition_from(first, awaited);
    }

    fn count_warning(&self, reason: &'static str) {
        self.subject.context.metrics().record_warning(reason);
    }
}

impl TaskRecorder for TaskPlanRecorder<'_> {
    fn start_attempt(&self) {
        self.changes.clear();
    }

    fn evaluated(&self, _evaluation: &Evaluation) {}

    fn finish(&self) {
        self.recorder.replace(&self.subject.worker.name, Some(self.subject.task), self.changes.take());
    }

    fn write_decision(&self, _lease: &dyn Lease) -> WriteDecision {
        WriteDecision::DryRun
    }

    fn takes_effect(&self) -> bool {
        false
    }

    fn outcome(&self, step: &PlanStep, _owner: &OwnerInfo, outcome: &ApplyOutcome) {
        self.changes.planned(step, outcome);
    }

    fn removal_failed(&self, _step: &PlanStep, _owner: &OwnerInfo, error: &MeshError) {
        // A dry run sends no removal, so only a failed read gets here.
        self.call_failed(error);
    }

    fn obstructed(&self, step: &PlanStep, obstacle: WriteObstacle) {
        // A dry run needs no lease, and its log is not audited: only an unsupported control plane is in its way.
        self.changes.obstructed(step, obstacle);
    }

    fn problem(&self, reason: &'static str, why: &Reason) {
        self.count_warning(reason);
        self.changes.problem(why);
    }

    fn call_failed(&self, error: &MeshError) {
        self.count_warning(error.kind.label());
        self.changes.call_failed(error);
    }

    fn unreachable(&self) {
        self.changes.unreachable();
    }

    fn warnings(&self, all: &[Reason]) {
        self.changes.warnings(all);
    }

    fn held(&self, reason: &HoldReason) {
        self.count_warning(reason.label());
        self.changes.held(reason);
    }

    fn awaits_address(&self) {
        self.changes.held(&HoldReason::AddressPending);
    }

    fn ignored(&self, reason: &IgnoreReason) {
        // The other control plane's part of the plan has the task.
        if !matches!(reason, IgnoreReason::OtherControlPlane) {
            self.subject.context.metrics().evaluations.record_ignored(reason.label());
            if reason.is_refusal() {
                self.count_warning(reason.label());
            }
        }
        self.changes.ignored(reason);
    }

    fn rejected(&self, violations: &[RoleViolation]) {
        for violation in violations {
            self.subject.context.metrics().evaluations.record_violation(violation.rule.label());
        }
        self.changes.rejected(violations);
    }

    fn name_conflict(&self, step: &PlanStep, owner: &RegistrationOwner) {
        self.changes.name_conflict(step, owner);
    }

    fn drain_held(&self, step: &PlanStep, ready: usize, needed: usize, _was_held: bool) {
        self.changes.drain_held(step, ready, needed);
    }

    fn held_by_guard(&self, step: &PlanStep, held: &HeldRemoval) {
        self.count_warning("held_by_guard");
        self.changes.held_by_guard(step, held);
    }

    /// The preview shows what waits, with its precondition.
    fn settling(&self, _waiting: &[RegistrationId], _settle: Duration) {}

    fn skipped_by_policy(&self, step: &PlanStep) {
        self.count_warning("skipped_by_policy");
        self.changes.skipped_by_policy(step);
    }

    fn checked(&self, step: &OwnerStep, finding: &DataplaneFinding) {
        if let Some(reason) = self.changes.checked(step, finding) {
            self.count_warning(reason);
        }
    }

    fn withheld(&self, step: &OwnerStep, action: SkippedAction, evidence: &Evidence) {
        let reason = self.changes.withheld(step, action, evidence);
        self.count_warning(reason);
    }

    /// A plan sends no removal that could race a sidecar.
    fn awaits_sidecar(&self, _step: &PlanStep, _awaited: Option<&TaskArn>) {}

    fn not_revocable(&self) {
        self.count_warning(NOT_REVOCABLE);
        self.changes.warnings(&[Reason::constant(NOT_REVOCABLE_TEXT)]);
    }

    /// A plan sees the task for the first time, and knows no Dataplane that it had.
    fn left_behind(&self, _id: &RegistrationId) {}

    fn paused(&self, _step: &PlanStep) -> bool {
        true
    }

    fn no_change(&self, reason: &str, change: Change) {
        self.changes.no_change(reason, change);
    }

    /// A plan carries the later steps out as far as their obstacles.
    fn decided_later(&self, _awaited: &PendingConfirmation, _decision: &Decision) {}

    fn stood_by(&self, _evaluation: Option<&Evaluation>, _decision: &Decision) {}

    fn shows_verdict(&self) -> bool {
        true
    }

    fn plan(&self) -> Option<&TaskPlanRecorder<'_>> {
        Some(self)
    }
}
