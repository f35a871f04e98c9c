//! Tasks that wait for a fact from AWS. Reads of task definitions, roles and instances are rate-limited: a run that waited
//! for one would keep a worker from tasks that need none, at a start with many roles most of the time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ecs_mesh_controller::{Priority, WorkQueue};
use ecs_mesh_model::{ContainerInstanceArn, RoleArn, TaskArn, TaskDefinitionArn};

/// A fact that AWS is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AwsFact {
    /// A task definition.
    Definition(TaskDefinitionArn),
    /// The tags of a role.
    Role(RoleArn),
    /// The addresses of a container instance.
    Host(ContainerInstanceArn),
}

/// The tasks that wait, by control plane.
type WaitingTasks = BTreeMap<(Arc<str>, TaskArn), WorkQueue<TaskArn>>;

/// The tasks that wait for a fact, by fact.
#[derive(Default)]
pub(super) struct FactWaiters {
    waiting: Mutex<BTreeMap<AwsFact, WaitingTasks>>,
}

impl FactWaiters {
    /// Reads the fact in the background, unless it is being read already, and then adds the task to the control plane's
    /// queue, whatever the result: the caller of `read` keeps it.
    pub(super) fn wait(
        self: &Arc<Self>,
        fact: AwsFact,
        task: (Arc<str>, TaskArn),
        queue: WorkQueue<TaskArn>,
        read: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut all = self.lock();
        if let Some(waiting) = all.get_mut(&fact) {
            waiting.insert(task, queue);
            return;
        }
        all.insert(fact.clone(), [(task, queue)].into());
        // Wakes the tasks even if the read panics.
        let wake = WakeAtEnd { waiters: Arc::clone(self), fact };
        tokio::spawn(async move {
            read.await;
            drop(wake);
        });
    }

    fn wake(&self, fact: &AwsFact) {
        let waiting = self.lock().remove(fact).unwrap_or_default();
        for ((_, task), queue) in waiting {
            // The least urgent one: the task keeps the priority of its run.
            queue.add(task, Priority::Sweep);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AwsFact, WaitingTasks>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct WakeAtEnd {
    waiters: Arc<FactWaiters>,
    fact: AwsFact,
}

impl Drop for WakeAtEnd {
    fn drop(&mut self) {
        self.waiters.wake(&self.fact);
    }
}

#[cfg(test)]
mod tests {
    use ecs_mesh_aws::fakes::{definition_arn, task_arn};
    use ecs_mesh_controller::Backoff;
    use tokio::sync::oneshot;

    use super::*;

    fn fact() -> AwsFact {
        AwsFact::Definition(definition_arn(1))
    }

    #[tokio::test]
    async fn tasks_of_one_fact_share_a_read_and_are_added_afterwards() {
        let (waiters, queue) = (Arc::new(FactWaiters::default()), WorkQueue::new(Backoff::default(), 1));
        let (done, read) = oneshot::channel::<()>();
        let kuma: Arc<str> = "kuma".into();
        waiters.wait(fact(), (Arc::clone(&kuma), task_arn(1)), queue.clone(), async { drop(read.await) });
        waiters.wait(fact(), (kuma, task_arn(2)), queue.clone(), async { panic!("a second read") });
        tokio::task::yield_now().await;
        assert_eq!(queue.take(), None);
        done.send(()).unwrap();
        assert_eq!(queue.next().await.key, task_arn(1));
        assert_eq!(queue.next().await.key, task_arn(2));
    }

    #[tokio::test]
    async fn tasks_are_added_after_a_panic_of_the_read() {
        let (waiters, queue) = (Arc::new(FactWaiters::default()), WorkQueue::new(Backoff::default(), 1));
        waiters.wait(fact(), ("kuma".into(), task_arn(1)), queue.clone(), async { panic!("a defect") });
        assert_eq!(queue.next().await.key, task_arn(1));
        assert!(waiters.lock().is_empty());
    }
}
