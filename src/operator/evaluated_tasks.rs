//! The last evaluation and verdict of each task at one control plane, for readers. A reconcile records both; nothing is
//! evaluated again to be shown.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::dry_run::TaskPlan;
use super::recorder::is_settled;
use ecs_mesh_core::intent::{Evaluation, HoldReason, IgnoreReason, RoleViolation, Verdict};
use ecs_mesh_model::{DataplaneOwner, Reason, TaskArn, intern};
use ecs_mesh_read_api::VerdictFacts;

/// The part of an evaluation that readers see.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EvaluatedTask {
    pub(super) binding: Option<Arc<str>>,
    pub(super) workload: Option<Arc<str>>,
    pub(super) service: Option<Arc<str>>,
    pub(super) verdict: VerdictFacts,
    /// Why the task is not registered by the operator: a bounded label, and the reason for people.
    pub(super) reason: Option<(&'static str, String)>,
    /// The task belongs to another control plane, which has the verdict.
    pub(super) is_elsewhere: bool,
    pub(super) violations: Vec<RoleViolation>,
}

impl EvaluatedTask {
    pub(super) fn of(evaluation: &Evaluation) -> Self {
        let Evaluation { binding, owner, workload, verdict, .. } = evaluation;
        let (facts, reason) = verdict_facts(verdict, *owner);
        let violations = match verdict {
            Verdict::Reject { violations, .. } => violations.clone(),
            _ => Vec::new(),
        };
        Self {
            binding: binding.as_ref().map(|binding| Arc::clone(&binding.name)),
            workload: workload.as_ref().map(|workload| Arc::clone(&workload.name)),
            service: workload.as_ref().map(|workload| intern(workload.service.as_str())),
            verdict: facts,
            reason,
            is_elsewhere: matches!(verdict, Verdict::Ignore(IgnoreReason::OtherControlPlane)),
            violations,
        }
    }
}

fn verdict_facts(verdict: &Verdict, owner: DataplaneOwner) -> (VerdictFacts, Option<(&'static str, String)>) {
    match verdict {
        Verdict::Register(_) if owner != DataplaneOwner::Operator => (VerdictFacts::Admit, None),
        Verdict::Register(_) => (VerdictFacts::Register { wanted: 1 }, None),
        Verdict::Admit => (VerdictFacts::Admit, None),
        Verdict::Reject { violations, .. } => {
            let reasons: Vec<Reason> = violations.iter().map(RoleViolation::reason).collect();
            (VerdictFacts::Reject, Some(("rejected", Reason::join(&reasons).message)))
        }
        Verdict::Hold(reason @ (HoldReason::AddressPending | HoldReason::Unknown(_))) => {
            (VerdictFacts::Wait, Some((reason.label(), reason.to_string())))
        }
        Verdict::Hold(reason) => (VerdictFacts::Hold, Some((reason.label(), reason.to_string()))),
        Verdict::Ignore(reason) => (VerdictFacts::Ignore, Some((reason.label(), reason.to_string()))),
        Verdict::NeedsFact(_) => (VerdictFacts::Wait, None),
    }
}

/// The verdict that the last reconcile of a task came to.
#[derive(Clone, Debug)]
pub(super) enum RecordedVerdict {
    /// Each registration is as desired. Most are, and their verdict follows from the registry.
    Settled,
    /// The changes that are due, or in the way; nothing where the task has no registration and needs none.
    Changes(Arc<TaskPlan>),
}

/// The evaluations and verdicts of one control plane.
#[derive(Debug, Default)]
pub(super) struct EvaluatedTasks {
    evaluations: Mutex<BTreeMap<TaskArn, Arc<EvaluatedTask>>>,
    verdicts: Mutex<BTreeMap<TaskArn, RecordedVerdict>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EvaluatedTasks {
    /// Records an evaluation.
    pub(super) fn record(&self, task: &TaskArn, evaluation: &Evaluation) {
        let evaluated = EvaluatedTask::of(evaluation);
        let mut all = lock(&self.evaluations);
        match all.get_mut(task) {
            Some(known) if **known == evaluated => {}
            Some(known) => *known = Arc::new(evaluated),
            None => drop(all.insert(task.clone(), Arc::new(evaluated))),
        }
    }

    /// Records the verdict of a reconcile that has ended.
    pub(super) fn record_verdict(&self, task: &TaskArn, verdict: TaskPlan) {
        let verdict = if is_settled(&verdict) {
            RecordedVerdict::Settled
        } else {
            RecordedVerdict::Changes(Arc::new(verdict))
        };
        lock(&self.verdicts).insert(task.clone(), verdict);
    }

    /// Forgets tasks that are not known any more.
    pub(super) fn retain(&self, is_known: impl Fn(&TaskArn) -> bool) {
        lock(&self.evaluations).retain(|task, _| is_known(task));
        lock(&self.verdicts).retain(|task, _| is_known(task));
    }

    /// A copy of all evaluations.
    pub(super) fn all(&self) -> BTreeMap<TaskArn, Arc<EvaluatedTask>> {
        lock(&self.evaluations).clone()
    }

    /// The evaluation of a task.
    pub(super) fn get(&self, task: &TaskArn) -> Option<Arc<EvaluatedTask>> {
        lock(&self.evaluations).get(task).cloned()
    }

    /// The verdict on a task.
    pub(super) fn verdict(&self, task: &TaskArn) -> Option<RecordedVerdict> {
        lock(&self.verdicts).get(task).cloned()
    }
}
