//! Records a reconcile in the [journal](super::super::journal).

use std::sync::{Arc, Mutex, PoisonError};

use super::super::journal::{
    ChangeCause, ChangeResult, JournalChange, JournalEvent, JournalHold, JournalSubject, JournalWarning,
};
use super::{OwnerInfo, Subject, describe_step, guard_message, release_guard};
use ecs_mesh_core::intent::{Evaluation, SelectedWorkload};
use ecs_mesh_core::plan::{Action, HeldRemoval, PlanStep};
use ecs_mesh_model::Reason;

/// The journal's part of the recorder of one reconcile.
pub(super) struct TaskJournal<'a> {
    subject: Subject<'a>,
    evaluated: Mutex<Evaluated>,
}

/// The part of the last evaluation that entries name.
#[derive(Clone, Default)]
struct Evaluated {
    binding: Option<Arc<str>>,
    workload: Option<SelectedWorkload>,
}

/// The parts of a warning that tools read, besides its reason.
#[derive(Default)]
pub(super) struct WarningDetails {
    /// The rules that the task breaks.
    pub(super) rules: Vec<&'static str>,
    /// The next step.
    pub(super) fix: Option<String>,
}

/// A change of a registration, as the log names it.
pub(super) struct RecordedChange<'a> {
    pub(super) step: &'a PlanStep,
    pub(super) subject: &'a JournalSubject,
    pub(super) change: &'static str,
    /// The cause, where it is not the step's.
    pub(super) cause: Option<ChangeCause>,
    /// The reason, for people.
    pub(super) message: String,
    pub(super) fields: Vec<String>,
    pub(super) result: ChangeResult,
}

impl<'a> TaskJournal<'a> {
    pub(super) fn new(subject: Subject<'a>) -> Self {
        Self { subject, evaluated: Mutex::default() }
    }

    /// Takes note of what the task is.
    pub(super) fn evaluated(&self, evaluation: &Evaluation) {
        let binding = evaluation.binding.as_ref().map(|binding| Arc::clone(&binding.name));
        let evaluated = Evaluated { binding, workload: evaluation.workload.clone() };
        *self.evaluated.lock().unwrap_or_else(PoisonError::into_inner) = evaluated;
    }

    /// A registration was changed, or was to be.
    pub(super) fn changed(&self, recorded: RecordedChange<'_>) {
        self.record(|| {
            let RecordedChange { step, subject, change, cause, message, fields, result } = recorded;
            let cause = cause.unwrap_or_else(|| match step.evidence() {
                Some(evidence) => ChangeCause::Evidence(evidence.clone()),
                None => ChangeCause::Declared,
            });
            let change = JournalChange { object: "registration", change, cause, message, fields, result };
            (subject.clone(), JournalEvent::Change(change))
        });
    }

    /// The subject of a change, for journal and log.
    pub(super) fn subject_of_change(&self, step: &PlanStep, owner: &OwnerInfo) -> JournalSubject {
        let mut subject = self.subject_of(step);
        if let Action::Ensure { desired, .. } = &step.action {
            subject.service = Some(desired.service.as_str().into());
        } else if owner.service.is_some() {
            subject.service.clone_from(&owner.service);
        }
        if owner.role.is_some() {
            subject.role.clone_from(&owner.role);
        }
        subject
    }

    /// A condition of the task began or changed.
    pub(super) fn warned(&self, reason: &'static str, why: &Reason, details: WarningDetails) {
        self.record(|| {
            let WarningDetails { rules, fix } = details;
            let (key, message) = (why.key.clone(), why.message.clone());
            (self.subject(), JournalEvent::Warning(JournalWarning { reason, key, message, rules, fix }))
        });
    }

    /// The guard holds a step.
    pub(super) fn held_by_guard(&self, step: &PlanStep, held: &HeldRemoval) {
        self.record(|| {
            let (change, _) = describe_step(step);
            let HeldRemoval { admitted, owned, stable_in } = *held;
            let hold = JournalHold {
                change,
                cause: step.evidence().map_or("", |evidence| evidence.as_str()),
                message: guard_message(step, held),
                admitted,
                owned,
                stable_in,
                fix: release_guard(step),
            };
            (self.subject_of(step), JournalEvent::HeldByGuard(hold))
        });
    }

    fn record(&self, entry: impl FnOnce() -> (JournalSubject, JournalEvent)) {
        self.subject.context.process.journal.record(entry);
    }

    /// The subject of an entry about the task.
    fn subject(&self) -> JournalSubject {
        let Subject { context, worker, task } = self.subject;
        let Evaluated { binding, workload } =
            self.evaluated.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let registered = || worker.registry.entries(task).into_iter().find_map(|entry| entry.service);
        let service = workload.as_ref().map(|workload| workload.service.as_str().into());
        JournalSubject {
            control_plane: Some(Arc::clone(&worker.name)),
            binding,
            task: Some(task.clone()),
            ecs_service: context.aws.store.service_of(task),
            service: service.or_else(registered),
            workload: workload.map(|workload| workload.name),
            role: context.aws.store.role_of(task),
            ..JournalSubject::default()
        }
    }

    /// The subject of an entry about a step.
    fn subject_of(&self, step: &PlanStep) -> JournalSubject {
        JournalSubject {
            mesh: self.subject.worker.mesh_label(&step.id).map(Into::into),
            binding: Some(Arc::clone(&step.binding.name)),
            name: Some(Arc::clone(&step.id.name)),
            ..self.subject()
        }
    }
}
