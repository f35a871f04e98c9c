//! Past states of tasks and roles, so that a simulation can serve stale reads.
//!
//! States older than [`super::super::CloudConfig::history`] are dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::listing::{ArnPage, ListTasks};
use super::{TaskKey, Timer};
use crate::aws::{AwsApiResult, Cloud, CloudTask};
use ecs_mesh_model::{Tags, Timestamp};

/// A task's current and past states.
#[derive(Debug)]
pub(super) struct TaskHistory {
    pub(super) current: Arc<CloudTask>,
    since: Timestamp,
    /// Past states with their start times, oldest first.
    past: VecDeque<(Timestamp, Arc<CloudTask>)>,
    /// Time at which ECS forgot the task.
    pub(super) gone_at: Option<Timestamp>,
}

impl TaskHistory {
    pub(super) fn new(task: CloudTask, now: Timestamp) -> Self {
        Self { current: Arc::new(task), since: now, past: VecDeque::new(), gone_at: None }
    }

    pub(super) fn replace(&mut self, next: Arc<CloudTask>, now: Timestamp, keep: Duration) {
        let before = std::mem::replace(&mut self.current, next);
        self.past.push_back((self.since, before));
        self.since = now;
        // A state is kept while its successor began within the time to keep.
        while self.past.get(1).is_some_and(|(began, _)| began.age_at(now) > keep) {
            self.past.pop_front();
        }
    }

    pub(super) fn as_of(&self, at: Timestamp) -> Option<&Arc<CloudTask>> {
        if self.gone_at.is_some_and(|gone| gone <= at) {
            return None;
        }
        if self.since <= at {
            return Some(&self.current);
        }
        self.past.iter().rev().find(|(began, _)| *began <= at).map(|(_, task)| task)
    }
}

/// A role name's tags over time; `None` while no such role existed.
#[derive(Debug, Default)]
pub(super) struct RoleHistory {
    states: VecDeque<(Timestamp, Option<Tags>)>,
}

impl RoleHistory {
    pub(super) fn push(&mut self, now: Timestamp, tags: Option<Tags>, keep: Duration) {
        self.states.push_back((now, tags));
        while self.states.get(1).is_some_and(|(began, _)| began.age_at(now) > keep) {
            self.states.pop_front();
        }
    }

    fn as_of(&self, at: Timestamp) -> Option<&Tags> {
        self.states.iter().rev().find(|(began, _)| *began <= at).and_then(|(_, tags)| tags.as_ref())
    }
}

impl Cloud {
    /// The task at `at`; `None` if DescribeTasks would have returned MISSING.
    pub fn task_as_of(&self, arn: &str, at: Timestamp) -> Option<Arc<CloudTask>> {
        self.tasks.get(arn)?.as_of(at).cloned()
    }

    /// The page of tasks that ListTasks would have returned at `at`.
    pub fn list_tasks_as_of(&self, request: &ListTasks, at: Timestamp) -> AwsApiResult<ArnPage> {
        self.list_with(request, |arn| self.task_as_of(arn, at), true)
    }

    /// A role's tags at `at`; `None` if no such role existed.
    pub fn role_tags_as_of(&self, name: &str, at: Timestamp) -> Option<Tags> {
        self.role_history.get(name)?.as_of(at).cloned()
    }

    /// Makes ECS forget the task: DescribeTasks returns MISSING, and only the history has it.
    pub(super) fn forget_task(&mut self, arn: &TaskKey, now: Timestamp) {
        let Some(record) = self.tasks.get_mut(arn) else { return };
        if record.gone_at.replace(now).is_some() {
            return;
        }
        let task = record.current.clone();
        self.reindex(arn, Some(&task), None);
        self.remove_service_task(&task, now);
        self.at(now.plus(self.config.history), Timer::Purge(arn.clone()));
    }

    pub(super) fn purge_task(&mut self, arn: &TaskKey) {
        let Some(record) = self.tasks.remove(arn) else { return };
        if let Some(cluster) = self.clusters.get_mut(&record.current.cluster) {
            cluster.index.all.remove(arn);
        }
    }

    pub(super) fn remember_role(&mut self, name: &str, tags: Option<Tags>, now: Timestamp) {
        let keep = self.config.history;
        self.role_history.entry(name.to_owned()).or_default().push(now, tags, keep);
    }
}
