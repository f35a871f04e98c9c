//! ListTasks and DescribeTasks. The cost of a page depends on its size only.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;

use super::TaskKey;
use crate::aws::error::invalid;
use crate::aws::{AwsApiError, AwsApiResult, Cloud, CloudTask};
use ecs_mesh_model::{DesiredStatus, Timestamp};

/// Request of `ListTasks`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListTasks {
    /// Name or ARN; empty is `default`.
    pub cluster: String,
    /// `RUNNING` (the default), `STOPPED`, or `PENDING`, which matches no task.
    pub desired_status: Option<String>,
    /// Only tasks of this family.
    pub family: Option<String>,
    /// Only tasks of this service.
    pub service_name: Option<String>,
    /// Only tasks started by this.
    pub started_by: Option<String>,
    /// Only tasks of this launch type.
    pub launch_type: Option<String>,
    /// Only tasks on this container instance.
    pub container_instance: Option<String>,
    /// Token of the previous page.
    pub next_token: Option<String>,
    /// 1 to 100; default 100.
    pub max_results: Option<usize>,
}

impl ListTasks {
    /// A request for the first page of a cluster's tasks with this desired status.
    pub fn of(cluster: &str, desired: DesiredStatus) -> Self {
        Self {
            cluster: cluster.to_owned(),
            desired_status: Some(desired.as_str().to_owned()),
            ..Self::default()
        }
    }
}

/// A page of ARNs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArnPage {
    /// The ARNs.
    pub arns: Vec<TaskKey>,
    /// Token of the next page; `None` on the last page.
    pub next_token: Option<String>,
}

/// A requested resource that does not exist, or that the operation does not apply to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeFailure {
    /// The ARN, even if the request named an id.
    pub arn: String,
    /// `MISSING`; for protections also `TASK_NOT_VALID` and `DEPLOYMENT_BLOCKED`.
    pub reason: &'static str,
}

/// Response of `DescribeTasks`.
#[derive(Clone, Debug, Default)]
pub struct DescribedTasks {
    /// Known tasks, in the order of the request.
    pub tasks: Vec<Arc<CloudTask>>,
    /// Unknown tasks.
    pub failures: Vec<DescribeFailure>,
}

impl Cloud {
    /// One page of the tasks of a cluster, in the order of their ARNs.
    pub fn list_tasks(&self, request: &ListTasks) -> AwsApiResult<ArnPage> {
        self.list_with(request, |arn| self.known_task(arn).cloned(), false)
    }

    /// With `past`, reads all tasks, since the index has current states only.
    pub(super) fn list_with(
        &self,
        request: &ListTasks,
        look_up: impl Fn(&str) -> Option<Arc<CloudTask>>,
        past: bool,
    ) -> AwsApiResult<ArnPage> {
        let cluster = self.cluster_name(&request.cluster)?;
        let limit = match request.max_results {
            None => 100,
            Some(limit @ 1..=100) => limit,
            Some(other) => return Err(invalid(format!("maxResults is {other}; 1 to 100 are allowed"))),
        };
        let desired = match request.desired_status.as_deref() {
            None | Some("RUNNING") => DesiredStatus::Running,
            Some("STOPPED") => DesiredStatus::Stopped,
            Some("PENDING") => return Ok(ArnPage::default()),
            Some(other) => {
                return Err(invalid(format!(
                    "desiredStatus is {other:?}; RUNNING, PENDING and STOPPED are allowed"
                )));
            }
        };
        let service = request.service_name.as_deref().map(super::services::service_name_of);
        if let Some(service) = service
            && !self.services.contains_key(&(cluster.clone(), service.to_owned()))
        {
            return Err(AwsApiError::new(
                "ServiceNotFoundException",
                format!("there is no service {service}"),
            ));
        }
        let after =
            request.next_token.as_deref().map(|token| self.arn_of_token(&cluster, token)).transpose()?;

        let index = &self.cluster_state(&cluster)?.index;
        let none = BTreeSet::new();
        let candidates = match (past, service, request.family.as_deref(), desired) {
            (true, ..) => &index.all,
            (_, Some(service), ..) => index.by_service.get(service).unwrap_or(&none),
            (_, _, Some(family), _) => index.by_family.get(family).unwrap_or(&none),
            (_, _, _, DesiredStatus::Running) => &index.desired_running,
            (_, _, _, DesiredStatus::Stopped) => &index.desired_stopped,
        };
        let matches = |task: &CloudTask| {
            task.desired_status == desired
                && service.is_none_or(|service| task.service() == Some(service))
                && request.family.as_deref().is_none_or(|family| task.family == family)
                && request.started_by.as_deref().is_none_or(|by| task.started_by.as_deref() == Some(by))
                && request.container_instance.as_deref().is_none_or(|instance| {
                    task.container_instance_arn().is_some_and(|arn| arn.ends_with(instance))
                })
                && request.launch_type.as_deref().is_none_or(|launch_type| task.launch_type == launch_type)
        };
        let mut listed = ArnPage::default();
        for arn in from(candidates, after) {
            if look_up(arn).is_none_or(|task| !matches(&task)) {
                continue;
            }
            if listed.arns.len() == limit {
                listed.next_token =
                    listed.arns.last().and_then(|last| last.rsplit('/').next()).map(str::to_owned);
                break;
            }
            listed.arns.push(arn.clone());
        }
        Ok(listed)
    }

    /// Describes up to 100 tasks by ARN or id.
    pub fn describe_tasks<S: AsRef<str>>(&self, cluster: &str, tasks: &[S]) -> AwsApiResult<DescribedTasks> {
        if tasks.len() > 100 {
            return Err(invalid(format!("{} tasks were named; at most 100 are allowed", tasks.len())));
        }
        if tasks.is_empty() {
            return Err(invalid("no task was named"));
        }
        let cluster = self.cluster_name(cluster)?;
        let mut described = DescribedTasks::default();
        for task in tasks {
            match self.find_task(&cluster, task.as_ref()) {
                Some(key) => described.tasks.push(self.tasks[&key].current.clone()),
                None => {
                    described.failures.push(DescribeFailure::missing(self.task_arn(&cluster, task.as_ref())));
                }
            }
        }
        Ok(described)
    }

    /// The current state of a task; `None` once ECS has forgotten it.
    pub fn task(&self, arn: &str) -> Option<Arc<CloudTask>> {
        self.known_task(arn).cloned()
    }

    /// All tasks that ECS knows, in the order of their ARNs.
    pub fn all_tasks(&self) -> impl Iterator<Item = &Arc<CloudTask>> {
        self.tasks.values().filter(|record| record.gone_at.is_none()).map(|record| &record.current)
    }

    /// All tasks that ECS knew at `at`, in the order of their ARNs.
    pub fn tasks_as_of(&self, at: Timestamp) -> impl Iterator<Item = &Arc<CloudTask>> {
        self.tasks.values().filter_map(move |record| record.as_of(at))
    }

    pub(super) fn known_task(&self, arn: &str) -> Option<&Arc<CloudTask>> {
        self.tasks.get(arn).filter(|record| record.gone_at.is_none()).map(|record| &record.current)
    }

    pub(super) fn find_task(&self, cluster: &str, task: &str) -> Option<TaskKey> {
        let task = self.known_task(&self.task_arn(cluster, task))?;
        (task.cluster == cluster).then(|| task.arn.clone())
    }

    pub(super) fn task_arn(&self, cluster: &str, task: &str) -> String {
        if task.starts_with("arn:") {
            task.to_owned()
        } else {
            self.arn("ecs", &format!("task/{cluster}/{task}"))
        }
    }

    /// Decodes a token, which is the id of the last task of the previous page.
    fn arn_of_token(&self, cluster: &str, token: &str) -> AwsApiResult<TaskKey> {
        if token.len() != 32 || !token.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid(format!("{token:?} is not a token of ListTasks")));
        }
        Ok(self.task_arn(cluster, token).into())
    }
}

fn from(set: &BTreeSet<TaskKey>, after: Option<TaskKey>) -> impl Iterator<Item = &TaskKey> {
    use std::ops::Bound::{Excluded, Unbounded};
    set.range((after.map_or(Unbounded, Excluded), Unbounded))
}
