//! How far a plan is: which tasks it is about, and which of them are evaluated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use ecs_mesh_core::plan::report::Unresolved;
use ecs_mesh_model::TaskArn;

/// Tasks that are named where many are missing.
const MAX_NAMED: usize = 20;

/// The progress of one plan.
#[derive(Default)]
pub struct PlanProgress(Mutex<ProgressState>);

#[derive(Default)]
struct ProgressState {
    retry_timeout: Duration,
    swept: bool,
    /// The number of tasks to evaluate, by control plane.
    expected: BTreeMap<Arc<str>, usize>,
    /// Tasks that are not evaluated, by control plane.
    pending: BTreeMap<Arc<str>, BTreeSet<TaskArn>>,
    /// When the first evaluation of a task failed. Its entry in the plan says why.
    failing: BTreeMap<(Arc<str>, TaskArn), Instant>,
}

/// The numbers of a plan in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanProgressCounts {
    /// Whether clusters and control planes are listed.
    pub swept: bool,
    /// Evaluated tasks, at each control plane.
    pub evaluated: usize,
    /// Tasks to evaluate, at each control plane.
    pub expected: usize,
}

impl PlanProgress {
    fn lock(&self) -> MutexGuard<'_, ProgressState> {
        // Each change below leaves the data consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The numbers now.
    pub fn counts(&self) -> PlanProgressCounts {
        let state = self.lock();
        let pending: usize = state.pending.values().map(BTreeSet::len).sum();
        let expected: usize = state.expected.values().sum();
        PlanProgressCounts { swept: state.swept, evaluated: expected.saturating_sub(pending), expected }
    }

    pub(super) fn limit_retries(&self, timeout: Duration) {
        self.lock().retry_timeout = timeout;
    }

    /// The sweep has ended.
    pub(super) fn record_swept(&self) {
        self.lock().swept = true;
    }

    /// These tasks are to be evaluated at the control plane, whatever was evaluated before.
    pub(super) fn expect(&self, control_plane: &Arc<str>, tasks: &[TaskArn]) {
        let mut state = self.lock();
        state.failing.retain(|(at, _), _| at != control_plane);
        state.expected.insert(Arc::clone(control_plane), tasks.len());
        state.pending.insert(Arc::clone(control_plane), tasks.iter().cloned().collect());
    }

    pub(super) fn is_swept(&self) -> bool {
        self.lock().swept
    }

    /// Whether the task is to be evaluated.
    pub(super) fn awaits(&self, control_plane: &str, task: &TaskArn) -> bool {
        self.lock().pending.get(control_plane).is_some_and(|pending| pending.contains(task))
    }

    /// An evaluation failed. Whether another attempt is due.
    pub(super) fn may_retry(&self, control_plane: &Arc<str>, task: &TaskArn) -> bool {
        let mut state = self.lock();
        let limit = state.retry_timeout;
        let since =
            state.failing.entry((Arc::clone(control_plane), task.clone())).or_insert_with(Instant::now);
        since.elapsed() < limit
    }

    pub(super) fn record_evaluated(&self, control_plane: &Arc<str>, task: &TaskArn) {
        let mut state = self.lock();
        if let Some(pending) = state.pending.get_mut(control_plane) {
            pending.remove(task);
        }
        state.failing.remove(&(Arc::clone(control_plane), task.clone()));
    }

    /// Whether every task is evaluated, or has failed for as long as failures are retried.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.lock();
        let is_over = |control_plane: &Arc<str>, task: &TaskArn| {
            let since = state.failing.get(&(Arc::clone(control_plane), task.clone()));
            since.is_some_and(|since| since.elapsed() >= state.retry_timeout)
        };
        state.swept
            && state
                .pending
                .iter()
                .all(|(control_plane, tasks)| tasks.iter().all(|task| is_over(control_plane, task)))
    }

    /// The tasks that were never evaluated, by control plane and service. The errors name the tasks.
    pub(super) fn missing(&self, service_of: impl Fn(&TaskArn) -> Option<String>) -> Vec<Unresolved> {
        let state = self.lock();
        let mut groups: BTreeMap<(&Arc<str>, Option<String>), Vec<&TaskArn>> = BTreeMap::new();
        for (control_plane, tasks) in &state.pending {
            for task in tasks {
                if !state.failing.contains_key(&(Arc::clone(control_plane), task.clone())) {
                    groups.entry((control_plane, service_of(task))).or_default().push(task);
                }
            }
        }
        let describe = |((control_plane, service), tasks): ((&Arc<str>, Option<String>), Vec<&TaskArn>)| {
            let word = if tasks.len() == 1 { "task" } else { "tasks" };
            let of = service.map(|service| format!(" of service {service}")).unwrap_or_default();
            let named = tasks.iter().take(MAX_NAMED);
            let named: Vec<String> =
                named.map(|task| format!("{}/{}", task.cluster().name(), task.id())).collect();
            let more = tasks.len().saturating_sub(MAX_NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            Unresolved {
                subject: format!("{} {word}{of} at control plane {control_plane}", tasks.len()),
                error: format!("{}{more}", named.join(", ")),
            }
        };
        groups.into_iter().map(describe).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str) -> TaskArn {
        TaskArn::parse(&format!("arn:aws:ecs:eu-west-1:111122223333:task/demo/{id}")).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn failing_tasks_settle_after_the_retry_timeout() {
        let (progress, kuma) = (PlanProgress::default(), Arc::from("kuma"));
        progress.limit_retries(Duration::from_secs(10));
        assert!(!progress.is_settled(), "the sweep has not ended");
        progress.expect(&kuma, &[task("a"), task("b")]);
        progress.record_swept();
        assert!(progress.awaits("kuma", &task("a")) && !progress.awaits("consul", &task("a")));
        progress.record_evaluated(&kuma, &task("a"));
        assert!(!progress.awaits("kuma", &task("a")), "each task is evaluated once");
        assert!(progress.may_retry(&kuma, &task("b")) && !progress.is_settled());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!progress.may_retry(&kuma, &task("b")) && progress.is_settled());
        let counts = PlanProgressCounts { swept: true, evaluated: 1, expected: 2 };
        assert_eq!(progress.counts(), counts);
        assert_eq!(progress.missing(|_| None), [], "the plan says why it failed");
    }

    #[test]
    fn missing_tasks_are_named_by_service() {
        let (progress, kuma) = (PlanProgress::default(), Arc::from("kuma"));
        progress.expect(&kuma, &[task("a"), task("b"), task("c")]);
        progress.record_evaluated(&kuma, &task("c"));
        let missing = progress.missing(|task| (task.id().as_str() == "b").then(|| "kv".to_owned()));
        let found: Vec<(&str, &str)> =
            missing.iter().map(|one| (one.subject.as_str(), one.error.as_str())).collect();
        assert_eq!(
            found,
            [
                ("1 task at control plane kuma", "demo/a"),
                ("1 task of service kv at control plane kuma", "demo/b")
            ]
        );
    }
}
