//! A live run: one `info` line for each change of a registration, target `audit` for identity changes, and each warning
//! once for all tasks with the same cause.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::super::apply::{ApplyOutcome, WriteCause, WriteDecision};
use super::super::dataplane_checks::DataplaneFinding;
use super::super::journal::{ChangeCause, ChangeResult, JournalChange, JournalEvent, JournalSubject};
use super::super::warnings::{Novelty, group_key};
use super::changes::TaskChanges;
use super::dataplane::{
    AWAITING_SIDECAR, CHECK_REASONS, CheckProblem, LEFT_BEHIND, NOT_REVOCABLE, NOT_REVOCABLE_FIX,
    NOT_REVOCABLE_TEXT, check_problem, withheld_problem,
};
use super::task_journal::{RecordedChange, TaskJournal, WarningDetails};
use super::{
    HoldRecorder, OwnerInfo, Recorder, ServiceSubject, Subject, TaskPlanRecorder, TaskRecorder,
    describe_owner, describe_step, guard_message,
};
use ecs_mesh_api::HumanDuration;
use ecs_mesh_control_plane::{MeshError, RegistrationOwner};
use ecs_mesh_controller::{Lease, WriteObstacle};
use ecs_mesh_core::intent::{Evaluation, HoldReason, IgnoreReason, RegistrationId, RoleViolation};
use ecs_mesh_core::plan::report::Change;
use ecs_mesh_core::plan::{
    Action, Decision, Evidence, HeldRemoval, OwnerStep, PendingConfirmation, PlanStep, SkippedAction,
};
use ecs_mesh_model::{Reason, RoleArn, TaskArn, Timestamp};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Values of the field `result` of audit lines.
const SUCCESS: &str = "success";
const ERROR: &str = "error";

/// Logs and counts.
pub(in crate::operator) struct LiveRecorder;

impl Recorder for LiveRecorder {
    fn of_task<'a>(self: Arc<Self>, subject: Subject<'a>) -> Box<dyn TaskRecorder + 'a> {
        let shows_verdict = subject.context.process.journal.is_observed();
        Box::new(LiveTaskRecorder {
            subject,
            journal: TaskJournal::new(subject),
            verdict: shows_verdict.then(|| TaskChanges::new(subject)),
        })
    }

    fn of_service<'a>(self: Arc<Self>, subject: ServiceSubject<'a>) -> Box<dyn HoldRecorder + 'a> {
        Box::new(LiveHoldRecorder(subject))
    }

    fn record_unresolved(&self, _subject: &str, _error: Option<String>) {}

    fn retain_control_planes(&self, _control_planes: &BTreeSet<Arc<str>>) {}
}

struct LiveTaskRecorder<'a> {
    subject: Subject<'a>,
    journal: TaskJournal<'a>,
    /// The changes that are still due after the reconcile, where there may be readers of it.
    verdict: Option<TaskChanges<'a>>,
}

struct LiveHoldRecorder<'a>(ServiceSubject<'a>);

impl LiveHoldRecorder<'_> {
    /// Records a change of the task's protection in the journal.
    fn journal(&self, task: &TaskArn, change: &'static str, message: &str, result: ChangeResult) {
        let ServiceSubject { context, service, control_plane, binding } = self.0;
        context.process.journal.record(|| {
            let subject = JournalSubject {
                control_plane: Some(Arc::clone(control_plane)),
                binding: Some(Arc::clone(binding)),
                task: Some(task.clone()),
                ecs_service: Some(service.clone()),
                role: context.aws.store.role_of(task),
                ..JournalSubject::default()
            };
            let (message, fields) = (message.to_owned(), Vec::new());
            let cause = ChangeCause::Deployment;
            let change = JournalChange { object: "protection", change, cause, message, fields, result };
            (subject, JournalEvent::Change(change))
        });
    }
}

impl HoldRecorder for LiveHoldRecorder<'_> {
    fn write_decision(&self, lease: &dyn Lease) -> WriteDecision {
        lease.obstacle().map_or(WriteDecision::Send, WriteDecision::Obstructed)
    }

    fn planned(&self, _tasks: &BTreeSet<TaskArn>, _all: &BTreeSet<TaskArn>) {}

    fn protected(&self, task: &TaskArn, until: Timestamp) {
        let ServiceSubject { context, service, control_plane, binding } = self.0;
        context.metrics().deployments.record_changes("protect", 1, true);
        self.journal(task, "protect", &format!("protected until {until}"), ChangeResult::Success);
        info!(
            target: "audit", operator = %context.process.id, version = VERSION, %control_plane, %binding, %task,
            ecs_service = %service, change = "protect", reason = "deployment", %until, result = SUCCESS,
            "task protected from its deployment"
        );
    }

    fn unprotected(&self, task: &TaskArn, reason: &'static str) {
        let ServiceSubject { context, service, control_plane, binding } = self.0;
        context.metrics().deployments.record_changes("unprotect", 1, true);
        self.journal(task, "unprotect", reason, ChangeResult::Success);
        info!(
            target: "audit", operator = %context.process.id, version = VERSION, %control_plane, %binding, %task,
            ecs_service = %service, change = "unprotect", reason, result = SUCCESS, "protection of the task cleared"
        );
    }

    fn failed(&self, change: &'static str, tasks: &[TaskArn], error: &str) {
        let ServiceSubject { context, service, control_plane, binding } = self.0;
        context.metrics().record_warning("protection_failed");
        context.metrics().deployments.record_changes(change, tasks.len(), false);
        for task in tasks {
            self.journal(task, change, "a deployment of the service", ChangeResult::Error(error.to_owned()));
            warn!(
                target: "audit", operator = %context.process.id, version = VERSION, %control_plane, %binding, %task,
                ecs_service = %service, change, reason = "deployment", result = ERROR, error,
                "change of a task's protection failed"
            );
        }
    }
}

/// Logs a change of a registration. (A macro: level, target and message of a log line are constants.)
macro_rules! log_change {
    (
        $level:ident, $recorder:expr, $subject:expr, $target:literal, $change:literal, $message:literal, $reason:expr,
        $result:expr $(, error = $error:expr)?
    ) => {{
        let Subject { context, worker, task } = $recorder.subject;
        let JournalSubject { mesh, binding, ecs_service, service, workload, name, role, .. } = &$subject;
        $level!(
            target: $target, operator = %context.process.id, version = VERSION, control_plane = %worker.name,
            mesh = mesh.as_deref(), partition = worker.partition(), name = name.as_deref(),
            binding = binding.as_deref(), %task, role = role.as_ref().map(RoleArn::as_str),
            ecs_service = ecs_service.as_ref().map(tracing::field::display), service = service.as_deref(),
            workload = workload.as_deref(), change = $change, reason = %$reason, result = $result,
            $(error = $error,)? $message
        );
    }};
}

impl<'a> LiveTaskRecorder<'a> {
    /// Adds to the verdict, where there may be readers of it.
    fn show(&self, add: impl FnOnce(&TaskChanges<'a>)) {
        if let Some(verdict) = &self.verdict {
            add(verdict);
        }
    }

    /// Counts a warning, and logs it unless the same is already logged of a task with the same cause. Whether it is new
    /// for this task.
    fn warn_once(&self, reason: &'static str, why: &Reason) -> bool {
        self.warn_with(reason, why, WarningDetails::default())
    }

    /// As [`Self::warn_once`], with more for tools.
    fn warn_with(&self, reason: &'static str, why: &Reason, details: WarningDetails) -> bool {
        let novelty = self.count_warning(reason, why);
        if novelty != Novelty::Known {
            self.journal.warned(reason, why, details);
        }
        novelty != Novelty::Known
    }

    fn count_warning(&self, reason: &'static str, why: &Reason) -> Novelty {
        let Subject { context, worker, task } = self.subject;
        context.metrics().record_warning(reason);
        let novelty = worker.record_warning(task, reason, &why.key, &why.message);
        if novelty == Novelty::New {
            warn!(control_plane = %worker.name, %task, reason, error = why.message, "task needs attention");
        } else {
            debug!(control_plane = %worker.name, %task, reason, error = why.message, "task needs attention");
        }
        novelty
    }

    /// Records a change in the journal, and returns its subject for the log.
    fn record_change(
        &self,
        step: &PlanStep,
        owner: &OwnerInfo,
        change: &'static str,
        written: JournalWrite,
    ) -> JournalSubject {
        let JournalWrite { cause, message, fields, result } = written;
        let subject = self.journal.subject_of_change(step, owner);
        self.journal.changed(RecordedChange {
            step,
            subject: &subject,
            change,
            cause,
            message,
            fields,
            result,
        });
        subject
    }
}

/// The parts of a change that depend on its outcome.
struct JournalWrite {
    cause: Option<ChangeCause>,
    message: String,
    fields: Vec<String>,
    result: ChangeResult,
}

impl JournalWrite {
    /// A change for the step's own reason.
    fn of(message: &str, result: ChangeResult) -> Self {
        Self { cause: None, message: message.to_owned(), fields: Vec::new(), result }
    }

    fn caused_by(self, cause: WriteCause) -> Self {
        let cause = match cause {
            WriteCause::Declared => ChangeCause::Declared,
            WriteCause::Drift => ChangeCause::Drift,
        };
        Self { cause: Some(cause), ..self }
    }
}

impl TaskRecorder for LiveTaskRecorder<'_> {
    fn start_attempt(&self) {
        self.show(TaskChanges::clear);
    }

    fn finish(&self) {
        let Subject { worker, task, .. } = self.subject;
        self.show(|verdict| worker.evaluated.record_verdict(task, verdict.take()));
    }

    fn evaluated(&self, evaluation: &Evaluation) {
        self.journal.evaluated(evaluation);
        self.subject.worker.record_evaluation(self.subject.task, evaluation);
    }

    fn write_decision(&self, lease: &dyn Lease) -> WriteDecision {
        lease.obstacle().map_or(WriteDecision::Send, WriteDecision::Obstructed)
    }

    fn takes_effect(&self) -> bool {
        true
    }

    fn outcome(&self, step: &PlanStep, owner: &OwnerInfo, outcome: &ApplyOutcome) {
        self.show(|verdict| verdict.carried_out(step, outcome));
        let (_, why) = describe_step(step);
        let metrics = self.subject.context.metrics();
        match outcome {
            ApplyOutcome::Created(_, cause) => {
                metrics.changes.record_change("create");
                let written = JournalWrite::of(&why, ChangeResult::Success).caused_by(*cause);
                let subject = self.record_change(step, owner, "create", written);
                log_change!(info, self, subject, "audit", "create", "registration created", why, SUCCESS);
            }
            ApplyOutcome::Updated(changes, cause) => {
                metrics.changes.record_change("update");
                let fields: Vec<String> = changes.iter().map(|change| change.path.clone()).collect();
                let reason = format!("differs in {}", fields.join(", "));
                let written = JournalWrite::of(&reason, ChangeResult::Success).caused_by(*cause);
                let written = JournalWrite { fields, ..written };
                let subject = self.record_change(step, owner, "update", written);
                log_change!(
                    info,
                    self,
                    subject,
                    "ecs_mesh_operator",
                    "update",
                    "registration updated",
                    reason,
                    SUCCESS
                );
            }
            ApplyOutcome::Drained => {
                metrics.changes.record_change("drain");
                let written = JournalWrite::of(&why, ChangeResult::Success);
                let subject = self.record_change(step, owner, "drain", written);
                if step.needs_guard() {
                    log_change!(info, self, subject, "audit", "drain", "registration drained", why, SUCCESS);
                } else {
                    log_change!(
                        info,
                        self,
                        subject,
                        "ecs_mesh_operator",
                        "drain",
                        "registration drained",
                        why,
                        SUCCESS
                    );
                }
            }
            ApplyOutcome::Removed | ApplyOutcome::RemovalConfirmedLate => {
                metrics.changes.record_change("remove");
                if let Action::Remove(evidence) = &step.action {
                    metrics.changes.record_removal(evidence.as_str());
                }
                let answered = *outcome == ApplyOutcome::Removed;
                let result = if answered { ChangeResult::Success } else { ChangeResult::SuccessResponseLost };
                let label = result.label();
                let subject = self.record_change(step, owner, "remove", JournalWrite::of(&why, result));
                log_change!(info, self, subject, "audit", "remove", "registration removed", why, label);
            }
            ApplyOutcome::UpdateNotAllowed(changes) => {
                let fields: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
                let message = format!("update of {} skipped by policy", fields.join(", "));
                self.warn_once(
                    "skipped_by_policy",
                    &Reason::new(format!("update {}", step.binding.name), message),
                );
            }
            ApplyOutcome::Equal
            | ApplyOutcome::Vanished
            | ApplyOutcome::NameConflict(_)
            | ApplyOutcome::Obstructed(_)
            | ApplyOutcome::RemovalFailed(_)
            | ApplyOutcome::Unconfirmed => {
                let Subject { worker, task, .. } = self.subject;
                let mesh = worker.mesh_label(&step.id);
                debug!(%task, mesh, name = %step.id.name, ?outcome, "nothing to do");
            }
        }
    }

    fn removal_failed(&self, step: &PlanStep, owner: &OwnerInfo, error: &MeshError) {
        self.show(|verdict| verdict.removal_failed(step, error));
        let Subject { worker, task, .. } = self.subject;
        let (_, why) = describe_step(step);
        let message = format!("{} was not removed: {}", worker.display_name(&step.id), error.message);
        let key = format!("{} {}", error.kind.label(), group_key(&error.message));
        let novelty = worker.record_warning(task, "removal_failed", &key, &message);
        if novelty != Novelty::Known {
            let written = JournalWrite::of(&why, ChangeResult::Error(error.message.clone()));
            let subject = self.record_change(step, owner, "remove", written);
            if novelty == Novelty::New {
                let error = &*error.message;
                log_change!(
                    warn,
                    self,
                    subject,
                    "audit",
                    "remove",
                    "removal failed",
                    why,
                    ERROR,
                    error = error
                );
                return;
            }
        }
        debug!(control_plane = %worker.name, %task, reason = "removal_failed", error = message, "removal failed");
    }

    fn obstructed(&self, step: &PlanStep, obstacle: WriteObstacle) {
        self.show(|verdict| verdict.obstructed(step, obstacle));
        self.warn_once(obstacle.label(), &Reason::constant(obstacle.reason()));
    }

    fn problem(&self, reason: &'static str, why: &Reason) {
        self.show(|verdict| verdict.problem(why));
        self.warn_once(reason, why);
    }

    fn call_failed(&self, error: &MeshError) {
        self.show(|verdict| verdict.call_failed(error));
        if error.kind.affects_one_registration() {
            self.warn_once(error.kind.label(), &Reason::new(group_key(&error.message), &*error.message));
        } else {
            self.subject.context.metrics().record_warning(error.kind.label());
            self.subject.worker.warn_once(error);
        }
    }

    fn unreachable(&self) {
        self.show(TaskChanges::unreachable);
    }

    fn warnings(&self, all: &[Reason]) {
        self.show(|verdict| verdict.warnings(all));
        self.warn_once("degraded", &Reason::join(all));
    }

    fn held(&self, reason: &HoldReason) {
        self.show(|verdict| verdict.held(reason));
        self.warn_once(reason.label(), &reason.reason().with_prefix("held, registrations are kept"));
    }

    fn awaits_address(&self) {
        self.show(|verdict| verdict.held(&HoldReason::AddressPending));
    }

    fn ignored(&self, reason: &IgnoreReason) {
        self.show(|verdict| verdict.ignored(reason));
        let Subject { context, worker, task } = self.subject;
        context.metrics().evaluations.record_ignored(reason.label());
        if reason.is_refusal() {
            self.warn_once(reason.label(), &Reason::constant(reason.to_string()));
        } else {
            debug!(control_plane = %worker.name, %task, reason = reason.label(), "task ignored");
        }
    }

    fn rejected(&self, violations: &[RoleViolation]) {
        self.show(|verdict| verdict.rejected(violations));
        let metrics = self.subject.context.metrics();
        for violation in violations {
            metrics.evaluations.record_violation(violation.rule.label());
        }
        let why = Reason::join(&violations.iter().map(RoleViolation::reason).collect::<Vec<_>>());
        let fixes: Vec<String> = violations.iter().map(RoleViolation::fix).collect();
        let rules = violations.iter().map(|violation| violation.rule.label()).collect();
        let details = WarningDetails { rules, fix: Some(fixes.join("; ")) };
        if self.warn_with("rejected", &why.with_prefix("the task role is not allowed in the mesh"), details) {
            metrics.evaluations.record_rejected();
        }
    }

    fn name_conflict(&self, step: &PlanStep, owner: &RegistrationOwner) {
        self.show(|verdict| verdict.name_conflict(step, owner));
        let (key, owner) = describe_owner(owner);
        let binding = &step.binding.name;
        let message = format!(
            "{} is already taken by {owner}; not touching it; remove it, or choose another spec.dataplaneName in \
             MeshBinding {binding}",
            self.subject.worker.display_name(&step.id),
        );
        let fix = format!("remove it, or choose another spec.dataplaneName in MeshBinding {binding}");
        let details = WarningDetails { fix: Some(fix), ..WarningDetails::default() };
        self.warn_with("name_conflict", &Reason::new(format!("{key} {binding}"), message), details);
    }

    fn drain_held(&self, step: &PlanStep, ready: usize, needed: usize, was_held: bool) {
        self.show(|verdict| verdict.drain_held(step, ready, needed));
        if was_held {
            return;
        }
        let Subject { context, worker, task } = self.subject;
        context.metrics().changes.record_held_drain();
        info!(
            control_plane = %worker.name, mesh = worker.mesh_label(&step.id), name = %step.id.name, %task, ready,
            needed, "drain held; too few other registrations are ready"
        );
    }

    fn held_by_guard(&self, step: &PlanStep, held: &HeldRemoval) {
        self.show(|verdict| verdict.held_by_guard(step, held));
        let (change, _) = describe_step(step);
        // The counts in the message grow while the cause stays the same.
        let key = format!("{change} {}", step.binding.name);
        if self.count_warning("held_by_guard", &Reason::new(key, guard_message(step, held))) != Novelty::Known
        {
            self.journal.held_by_guard(step, held);
        }
    }

    fn settling(&self, waiting: &[RegistrationId], settle: Duration) {
        let Subject { worker, task, .. } = self.subject;
        let Some(first) = waiting.first() else { return worker.clear_warning(task, "settling") };
        let message = format!(
            "the manifests no longer ask for {}; it is withdrawn once they have been valid for {} without the document \
             that did (cleanup.settle)",
            worker.display_name(first),
            HumanDuration(settle)
        );
        self.warn_once("settling", &Reason::new("a document has left the manifests", message));
    }

    fn skipped_by_policy(&self, step: &PlanStep) {
        self.show(|verdict| verdict.skipped_by_policy(step));
        let (change, why) = describe_step(step);
        let (name, policy) = (self.subject.worker.display_name(&step.id), step.binding.spec.policy);
        let message = format!("{change} of {name} ({why}) skipped: policy {policy:?}");
        self.warn_once("skipped_by_policy", &Reason::new(format!("{change} {}", step.binding.name), message));
    }

    fn checked(&self, step: &OwnerStep, finding: &DataplaneFinding) {
        self.show(|verdict| {
            verdict.checked(step, finding);
        });
        let Subject { worker, task, .. } = self.subject;
        let problem = check_problem(step, &worker.display_name(&step.id), finding);
        let current = problem.as_ref().map(|problem| problem.reason);
        for reason in CHECK_REASONS.into_iter().filter(|reason| Some(*reason) != current) {
            worker.clear_warning(task, reason);
        }
        worker.clear_warning(task, NOT_REVOCABLE);
        if let Some(CheckProblem { reason, key, message }) = problem {
            self.warn_once(reason, &Reason::new(key, message));
        }
    }

    fn withheld(&self, step: &OwnerStep, action: SkippedAction, evidence: &Evidence) {
        self.show(|verdict| {
            verdict.withheld(step, action, evidence);
        });
        let problem = withheld_problem(step, &self.subject.worker.display_name(&step.id), action, evidence);
        self.warn_once(problem.reason, &Reason::new(problem.key, problem.message));
    }

    fn awaits_sidecar(&self, step: &PlanStep, awaited: Option<&TaskArn>) {
        let Subject { worker, task, .. } = self.subject;
        let Some(other) = awaited else { return worker.clear_warning(task, AWAITING_SIDECAR) };
        self.show(|verdict| verdict.awaits_sidecar(step, other));
        let message = format!(
            "remove of {} waits for the sidecar of task {other}, which is about to register the same name; for 5 minutes \
             after its start at most",
            worker.display_name(&step.id)
        );
        self.warn_once(
            AWAITING_SIDECAR,
            &Reason::new("another sidecar is about to register the name", message),
        );
    }

    fn not_revocable(&self) {
        self.show(|verdict| verdict.warnings(&[Reason::constant(NOT_REVOCABLE_TEXT)]));
        let details = WarningDetails { fix: Some(NOT_REVOCABLE_FIX.to_owned()), ..WarningDetails::default() };
        self.warn_with(NOT_REVOCABLE, &Reason::constant(NOT_REVOCABLE_TEXT), details);
    }

    fn left_behind(&self, id: &RegistrationId) {
        let name = self.subject.worker.display_name(id);
        let message = format!(
            "{name} of the stopped task remains, and lacks ownership labels: it is not removed; remove it, or wait for the \
             control plane, and label the sidecar's template"
        );
        self.show(|verdict| verdict.left_behind(id, &message));
        self.warn_once(LEFT_BEHIND, &Reason::new("a gone task left its Dataplane", message));
    }

    fn paused(&self, step: &PlanStep) -> bool {
        self.show(|verdict| verdict.paused(step));
        let (change, why) = describe_step(step);
        let (name, binding) = (self.subject.worker.display_name(&step.id), &step.binding.name);
        let message = format!("MeshBinding {binding} is paused: {change} of {name} ({why})");
        self.warn_once("paused", &Reason::new(format!("{change} {binding}"), message));
        false
    }

    fn no_change(&self, reason: &str, change: Change) {
        self.show(|verdict| verdict.no_change(reason, change));
    }

    fn decided_later(&self, awaited: &PendingConfirmation, decision: &Decision) {
        self.show(|verdict| {
            let first = verdict.len();
            verdict.decided(decision);
            verdict.set_precondition_from(first, awaited);
        });
    }

    fn stood_by(&self, evaluation: Option<&Evaluation>, decision: &Decision) {
        self.show(|verdict| {
            verdict.decided(decision);
            evaluation.into_iter().for_each(|evaluation| verdict.evaluated(evaluation));
        });
    }

    fn shows_verdict(&self) -> bool {
        self.verdict.is_some()
    }

    fn plan(&self) -> Option<&TaskPlanRecorder<'_>> {
        None
    }
}
