//! A state for each task that ECS knows, for what the world simulates within tasks.

use std::sync::Arc;

use crate::aws::{Cloud, CloudTask};

/// The states of all tasks, in the order of their ARNs, so that an update walks through them and the account once.
#[derive(Debug)]
pub(super) struct TaskStates<T>(Vec<TrackedTask<T>>);

/// A task and its state.
#[derive(Debug)]
pub(super) struct TrackedTask<T> {
    /// The task as ECS shows it.
    pub(super) task: Arc<CloudTask>,
    pub(super) state: T,
    /// Its stop has been processed.
    pub(super) is_finished: bool,
    is_forgotten: bool,
}

impl<T> Default for TaskStates<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Default> TaskStates<T> {
    /// Reads the account's current tasks. Returns the number of new ones, and those that ECS has forgotten.
    pub(super) fn update(&mut self, cloud: &Cloud) -> (usize, Vec<TrackedTask<T>>) {
        let (mut at, mut forgets) = (0, false);
        let mut new = Vec::new();
        for task in cloud.all_tasks() {
            let mut known = self.0.get_mut(at);
            while let Some(before) = known.take_if(|known| known.task.arn < task.arn) {
                (before.is_forgotten, forgets) = (true, true);
                at += 1;
                known = self.0.get_mut(at);
            }
            match known.filter(|known| known.task.arn == task.arn) {
                Some(known) => {
                    if !Arc::ptr_eq(&known.task, task) {
                        known.task = Arc::clone(task);
                    }
                    at += 1;
                }
                None => new.push(TrackedTask::new(task)),
            }
        }
        for known in &mut self.0[at..] {
            (known.is_forgotten, forgets) = (true, true);
        }
        let forgotten =
            if forgets { self.0.extract_if(.., |known| known.is_forgotten).collect() } else { Vec::new() };
        let started = new.len();
        if started > 0 {
            self.0.append(&mut new);
            self.0.sort_by(|a, b| a.task.arn.cmp(&b.task.arn));
        }
        (started, forgotten)
    }
}

impl<T> TaskStates<T> {
    /// The tasks whose stop has not been processed.
    pub(super) fn unfinished(&mut self) -> impl Iterator<Item = &mut TrackedTask<T>> {
        self.0.iter_mut().filter(|tracked| !tracked.is_finished)
    }
}

impl<T: Default> TrackedTask<T> {
    fn new(task: &Arc<CloudTask>) -> Self {
        Self { task: Arc::clone(task), state: T::default(), is_finished: false, is_forgotten: false }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::aws::CloudConfig;
    use crate::control_planes::ControlPlanes;
    use crate::world::{CLUSTER, RoutedEvents, create_queue_and_rules, deploy, services};
    use ecs_mesh_model::Timestamp;

    const START: Timestamp = Timestamp(1_800_000_000_000);

    fn ids(states: &mut TaskStates<u32>) -> Vec<String> {
        states.unfinished().map(|tracked| tracked.task.id().to_owned()).collect()
    }

    #[test]
    fn states_last_until_ecs_forgets_the_task() {
        let mut cloud = Cloud::new(CloudConfig::default(), START);
        create_queue_and_rules(&mut cloud, RoutedEvents::Tasks, START).unwrap();
        for service in services(12) {
            deploy(&mut cloud, &service, ControlPlanes::Kuma, START).unwrap();
        }
        cloud.step(START.plus(Duration::from_mins(1)));
        let mut states = TaskStates::<u32>::default();
        let (started, forgotten) = states.update(&cloud);
        assert_eq!((started, forgotten.len()), (cloud.all_tasks().count(), 0));
        for (number, tracked) in (0..).zip(states.unfinished()) {
            tracked.state = number;
        }
        let killed = ids(&mut states).swap_remove(2);
        let arn = cloud.all_tasks().find(|task| task.id() == killed).unwrap().arn.clone();
        cloud.stop_task(CLUSTER, &arn, "test", START.plus(Duration::from_mins(1))).unwrap();
        cloud.step(START.plus(Duration::from_mins(3)));
        // The service has started another one.
        assert_eq!(states.update(&cloud).0, 1);
        let stopped = states.unfinished().find(|tracked| tracked.task.last_status.is_stopped()).unwrap();
        assert_eq!((stopped.task.id(), stopped.state), (killed.as_str(), 2));
        stopped.is_finished = true;
        assert!(!ids(&mut states).contains(&killed));
        cloud.step(START.plus(Duration::from_hours(3)));
        let (_, forgotten) = states.update(&cloud);
        assert_eq!(forgotten.iter().map(|tracked| tracked.task.id()).collect::<Vec<_>>(), [killed]);
        let known: Vec<String> = cloud.all_tasks().map(|task| task.id().to_owned()).collect();
        assert_eq!(ids(&mut states), known);
    }
}
