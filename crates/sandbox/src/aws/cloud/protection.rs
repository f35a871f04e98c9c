//! Scale-in protection of tasks.
//!
//! Sources: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection.html> and
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateTaskProtection.html>.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::life_cycle::TaskChange;
use super::{DescribeFailure, TaskKey};
use crate::aws::error::invalid;
use crate::aws::{AwsApiResult, Cloud, CloudTask};
use ecs_mesh_model::{DesiredStatus, Timestamp};

/// Minutes of a protection without `expiresInMinutes`.
const DEFAULT_MINUTES: i64 = 120;
/// Maximum of `expiresInMinutes`: 48 hours.
const MAX_MINUTES: i64 = 2_880;

/// Request of `UpdateTaskProtection`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateTaskProtection {
    /// Name or ARN; empty is `default`.
    pub cluster: String,
    /// Up to ten ids or ARNs.
    pub tasks: Vec<String>,
    /// Whether to protect the tasks.
    pub protection_enabled: Option<bool>,
    /// 1 to 2,880; default 120. A call for a protected task sets the time anew.
    pub expires_in_minutes: Option<i64>,
}

/// The protection of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtectedTask {
    /// Its ARN.
    pub arn: TaskKey,
    /// When its protection ends; `None` if it has none.
    pub until: Option<Timestamp>,
}

/// Response of `UpdateTaskProtection` and `GetTaskProtection`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskProtections {
    /// Tasks of services, in the order of the request.
    pub tasks: Vec<ProtectedTask>,
    /// The other tasks.
    pub failures: Vec<DescribeFailure>,
}

impl ProtectedTask {
    fn of(task: &CloudTask) -> Self {
        Self { arn: task.arn.clone(), until: task.protected_until }
    }

    /// The protection in the responses of the API.
    pub fn to_api_json(&self) -> Value {
        let mut shown = json!({"taskArn": self.arn, "protectionEnabled": self.until.is_some()});
        if let Some(until) = self.until {
            shown["expirationDate"] = json!(until.as_secs_f64());
        }
        shown
    }
}

impl Cloud {
    /// Protects tasks of services from scale-ins and deployments, or ends their protection. `StopTask` stops protected
    /// tasks.
    ///
    /// # Errors
    /// An unknown cluster, or a value out of range. Tasks fail on their own: `MISSING`; `TASK_NOT_VALID` for one that
    /// belongs to no service, and for one that is being stopped; `DEPLOYMENT_BLOCKED` if the service would have more
    /// protected tasks than its desired count.
    pub fn update_task_protection(
        &mut self,
        request: &UpdateTaskProtection,
        now: Timestamp,
    ) -> AwsApiResult<TaskProtections> {
        let cluster = self.cluster_name(&request.cluster)?;
        let enabled = request.protection_enabled.ok_or_else(|| invalid("protectionEnabled is missing"))?;
        let minutes = request.expires_in_minutes.unwrap_or(DEFAULT_MINUTES);
        let Some(lasts) = u64::try_from(minutes).ok().filter(|_| (1..=MAX_MINUTES).contains(&minutes)) else {
            return Err(invalid(format!("expiresInMinutes is {minutes}; 1 to {MAX_MINUTES} are allowed")));
        };
        check_count(&request.tasks, 10)?;
        let until = enabled.then(|| now.plus(Duration::from_mins(lasts)));
        let mut answer = TaskProtections::default();
        for name in &request.tasks {
            let key = match self.protectable(&cluster, name) {
                Ok(task) if enabled && self.is_deployment_blocked(task) => {
                    answer.failures.push(DescribeFailure::new(&task.arn, "DEPLOYMENT_BLOCKED"));
                    continue;
                }
                Ok(task) => task.arn.clone(),
                Err(failure) => {
                    answer.failures.push(failure);
                    continue;
                }
            };
            self.change_task(&key, now, |task| {
                let before = std::mem::replace(&mut task.protected_until, until);
                if before == until { TaskChange::None } else { TaskChange::Silent }
            });
            answer.tasks.push(ProtectedTask { arn: key, until });
        }
        Ok(answer)
    }

    /// The protection of up to 100 tasks of services.
    ///
    /// # Errors
    /// As [`Self::update_task_protection`].
    pub fn task_protection<S: AsRef<str>>(
        &self,
        cluster: &str,
        tasks: &[S],
    ) -> AwsApiResult<TaskProtections> {
        let cluster = self.cluster_name(cluster)?;
        check_count(tasks, 100)?;
        let mut answer = TaskProtections::default();
        for name in tasks {
            match self.protectable(&cluster, name.as_ref()) {
                Ok(task) => answer.tasks.push(ProtectedTask::of(task)),
                Err(failure) => answer.failures.push(failure),
            }
        }
        Ok(answer)
    }

    /// A task that can have a protection.
    fn protectable(&self, cluster: &str, name: &str) -> Result<&CloudTask, DescribeFailure> {
        let found = self.find_task(cluster, name).and_then(|key| self.known_task(&key));
        let task = found.ok_or_else(|| DescribeFailure::missing(self.task_arn(cluster, name)))?;
        if task.service().is_none() || task.desired_status == DesiredStatus::Stopped {
            return Err(DescribeFailure::new(&task.arn, "TASK_NOT_VALID"));
        }
        Ok(task)
    }

    /// Whether the service of a task, once it is protected, has more protected tasks than its desired count.
    fn is_deployment_blocked(&self, task: &CloudTask) -> bool {
        let key = (task.cluster.clone(), task.service().unwrap_or_default().to_owned());
        self.services.get(&key).is_some_and(|service| {
            let others = service.protected.iter().filter(|other| **other != task.arn).count();
            others + 1 > service.desired_count
        })
    }
}

pub(super) fn check_count<S>(named: &[S], most: usize) -> AwsApiResult<()> {
    if (1..=most).contains(&named.len()) {
        return Ok(());
    }
    Err(invalid(format!("{} are named; 1 to {most} are allowed", named.len())))
}
