//! The life cycle of tasks.
//!
//! Every change goes through [`Cloud::change_task`], which updates version, history, index and service, and emits the
//! event.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::history::TaskHistory;
use super::{DefinitionRecord, DescribeFailure, Network, StopCode, TaskKey, TaskOverrides, Timer};
use crate::aws::error::invalid;
use crate::aws::{AwsApiResult, Cloud, CloudTask};
use ecs_mesh_model::{DesiredStatus, LastStatus, Tags, Timestamp};

/// Request of `RunTask`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunTask {
    /// Name or ARN; empty is `default`.
    pub cluster: String,
    /// Family, `family:revision` or ARN.
    pub task_definition: String,
    /// Number of tasks, 1 to 10.
    pub count: usize,
    /// Default `family:FAMILY`.
    pub group: Option<String>,
    /// Value of `startedBy`.
    pub started_by: Option<String>,
    /// `FARGATE` or `EC2`; default: by the task definition.
    pub launch_type: Option<String>,
    /// Overrides of the task definition.
    pub overrides: TaskOverrides,
    /// Required for network mode `awsvpc`.
    pub network_configuration: Option<Value>,
    /// The tasks' tags.
    #[serde(deserialize_with = "super::ecs_tags::from_pairs")]
    pub tags: Tags,
}

impl Default for RunTask {
    fn default() -> Self {
        Self {
            cluster: String::new(),
            task_definition: String::new(),
            count: 1,
            group: None,
            started_by: None,
            launch_type: None,
            overrides: TaskOverrides::default(),
            network_configuration: None,
            tags: Tags::new(),
        }
    }
}

impl RunTask {
    /// One task in network mode `awsvpc`, in an arbitrary subnet.
    pub fn awsvpc(cluster: &str, task_definition: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            task_definition: task_definition.to_owned(),
            network_configuration: Some(any_network()),
            ..Self::default()
        }
    }
}

pub(super) fn any_network() -> Value {
    json!({"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"], "assignPublicIp": "DISABLED"}})
}

/// Input of a new task.
pub(super) struct NewTask {
    pub(super) cluster: String,
    pub(super) definition: Arc<DefinitionRecord>,
    pub(super) group: String,
    pub(super) started_by: Option<String>,
    pub(super) launch_type: String,
    pub(super) overrides: TaskOverrides,
    pub(super) network_configuration: Option<Value>,
    pub(super) tags: Tags,
}

impl Cloud {
    /// Starts tasks in PROVISIONING. [`Cloud::step`] advances them.
    pub fn run_task(&mut self, request: &RunTask, now: Timestamp) -> AwsApiResult<Vec<Arc<CloudTask>>> {
        if !(1..=10).contains(&request.count) {
            return Err(invalid(format!("count is {}; 1 to 10 are allowed", request.count)));
        }
        let cluster = self.cluster_name(&request.cluster)?;
        let definition = self.describe_task_definition(&request.task_definition)?;
        needs_network(&definition, request.network_configuration.as_ref())?;
        let mut started = Vec::new();
        for _ in 0..request.count {
            started.push(self.create_task(
                NewTask {
                    cluster: cluster.clone(),
                    definition: definition.clone(),
                    group: request.group.clone().unwrap_or_else(|| format!("family:{}", definition.family)),
                    started_by: request.started_by.clone(),
                    launch_type: launch_type(request.launch_type.as_deref(), &definition),
                    overrides: request.overrides.clone(),
                    network_configuration: request.network_configuration.clone(),
                    tags: request.tags.clone(),
                },
                now,
            ));
        }
        Ok(started)
    }

    /// Requests a stop. A running task drains; a starting task stops at once; a stopped task is not changed.
    pub fn stop_task(
        &mut self,
        cluster: &str,
        task: &str,
        reason: &str,
        now: Timestamp,
    ) -> AwsApiResult<Arc<CloudTask>> {
        let cluster = self.cluster_name(cluster)?;
        let key = self
            .find_task(&cluster, task)
            .ok_or_else(|| invalid(format!("there is no task {task} in cluster {cluster}")))?;
        let reason = if reason.is_empty() { "stopped at a user's request" } else { reason };
        self.begin_stop(&key, StopCode::UserInitiated, reason, now);
        Ok(self.tasks[&key].current.clone())
    }

    pub(super) fn create_task(&mut self, task: NewTask, now: Timestamp) -> Arc<CloudTask> {
        let NewTask {
            cluster,
            definition,
            group,
            started_by,
            launch_type,
            overrides,
            network_configuration,
            tags,
        } = task;
        let id = self.hex(32);
        let arn: TaskKey = self.arn("ecs", &format!("task/{cluster}/{id}")).into();
        let network = (definition.network_mode == "awsvpc").then(|| {
            let subnet = network_configuration
                .as_ref()
                .and_then(|network| network["awsvpcConfiguration"]["subnets"][0].as_str().map(str::to_owned));
            Network {
                attachment: self.uuid(),
                interface: format!("eni-0{}", self.hex(16)),
                subnet: subnet.unwrap_or_else(|| "subnet-0123456789abcdef0".into()),
                mac: self.mac(),
                address: None,
            }
        });
        let task = CloudTask {
            arn: arn.clone(),
            cluster_arn: self.arn("ecs", &format!("cluster/{cluster}")),
            cluster,
            family: definition.family.clone(),
            version: 1,
            last_status: LastStatus::Provisioning,
            desired_status: DesiredStatus::Running,
            group,
            started_by,
            launch_type,
            overrides: Arc::new(overrides),
            network,
            tags,
            availability_zone: format!("{}a", self.config.region),
            runtime_ids: Arc::new(definition.containers.iter().map(|_| self.uuid()).collect()),
            definition,
            stop_code: None,
            stopped_reason: None,
            exit_code: None,
            created_at: now,
            updated_at: now,
            pull_started_at: None,
            pull_stopped_at: None,
            started_at: None,
            stopping_at: None,
            execution_stopped_at: None,
            stopped_at: None,
        };
        let record = TaskHistory::new(task, now);
        let task = record.current.clone();
        self.tasks.insert(arn, record);
        self.task_changed(None, &task, now);
        task
    }

    fn mac(&mut self) -> String {
        let hex = self.hex(10);
        format!("0a:{}:{}:{}:{}:{}", &hex[..2], &hex[2..4], &hex[4..6], &hex[6..8], &hex[8..])
    }

    /// Begins the stop, once.
    pub(super) fn begin_stop(&mut self, key: &TaskKey, code: StopCode, reason: &str, now: Timestamp) {
        self.change_task(key, now, |task| {
            if task.desired_status == DesiredStatus::Stopped {
                return false;
            }
            task.desired_status = DesiredStatus::Stopped;
            task.stop_code = Some(code);
            task.stopped_reason = Some(reason.to_owned());
            task.stopping_at = Some(now);
            if task.last_status < LastStatus::Running {
                task.last_status = LastStatus::Deprovisioning;
                task.execution_stopped_at = Some(now);
            }
            true
        });
    }

    /// Stops the containers at once, without a drain.
    pub(super) fn end_hard(&mut self, key: &TaskKey, code: StopCode, reason: &str, now: Timestamp) {
        self.change_task(key, now, |task| {
            if task.last_status >= LastStatus::Deprovisioning {
                return false;
            }
            task.desired_status = DesiredStatus::Stopped;
            task.stop_code = Some(code);
            task.stopped_reason = Some(reason.to_owned());
            task.stopping_at.get_or_insert(now);
            task.execution_stopped_at = Some(now);
            task.exit_code = (code == StopCode::EssentialContainerExited).then_some(137);
            task.last_status = LastStatus::Deprovisioning;
            true
        });
    }

    /// Moves the task to its next state, unless it has changed since the timer was set.
    pub(super) fn advance_task(&mut self, key: &TaskKey, version: u64, now: Timestamp) {
        let Some(record) = self.tasks.get(key) else { return };
        if record.current.version != version || record.gone_at.is_some() {
            return;
        }
        if record.current.last_status == LastStatus::Provisioning && lacks_address(&record.current) {
            let Some(address) = self.addresses.take() else {
                self.end_hard(key, StopCode::TaskFailedToStart, "the subnet has no free address", now);
                return;
            };
            self.change_task(key, now, |task| {
                if let Some(network) = &mut task.network {
                    network.address = Some(address);
                }
                true
            });
            return;
        }
        self.change_task(key, now, |task| {
            task.last_status = match task.last_status {
                LastStatus::Provisioning => {
                    task.pull_started_at = Some(now);
                    LastStatus::Pending
                }
                LastStatus::Pending => {
                    task.pull_stopped_at = Some(now);
                    LastStatus::Activating
                }
                LastStatus::Activating => {
                    task.started_at = Some(now);
                    LastStatus::Running
                }
                LastStatus::Running => LastStatus::Deactivating,
                LastStatus::Deactivating => LastStatus::Stopping,
                LastStatus::Stopping => {
                    task.execution_stopped_at = Some(now);
                    task.exit_code = Some(0);
                    LastStatus::Deprovisioning
                }
                LastStatus::Deprovisioning | LastStatus::Stopped | LastStatus::Deleted => {
                    task.stopped_at = Some(now);
                    LastStatus::Stopped
                }
            };
            true
        });
    }

    /// The only place that changes a task. `change` returns whether it changed something.
    fn change_task(&mut self, key: &TaskKey, now: Timestamp, change: impl FnOnce(&mut CloudTask) -> bool) {
        let keep = self.config.history;
        let Some(record) = self.tasks.get_mut(key) else { return };
        if record.gone_at.is_some() {
            return;
        }
        let before = record.current.clone();
        let mut next = (*before).clone();
        if !change(&mut next) {
            return;
        }
        next.version += 1;
        next.updated_at = now;
        let next = Arc::new(next);
        record.replace(next.clone(), now, keep);
        self.task_changed(Some(&before), &next, now);
    }

    fn task_changed(&mut self, before: Option<&CloudTask>, task: &CloudTask, now: Timestamp) {
        self.reindex(&task.arn, before, Some(task));
        let released = task.last_status == LastStatus::Deprovisioning
            && before.is_some_and(|before| before.last_status < LastStatus::Deprovisioning);
        if released && let Some(address) = task.address() {
            self.addresses.release(address);
        }
        self.emit_task_event(task, now);
        self.update_service_tasks(task, now);
        self.set_next(task, now);
    }

    fn set_next(&mut self, task: &CloudTask, now: Timestamp) {
        let life = &self.config.life;
        let after = match task.last_status {
            LastStatus::Provisioning => life.provisioning / 2,
            LastStatus::Pending => life.pending,
            LastStatus::Activating => life.activating,
            LastStatus::Running if task.desired_status == DesiredStatus::Stopped => life.draining,
            LastStatus::Running => return,
            LastStatus::Deactivating => life.deactivating,
            LastStatus::Stopping => life.stopping,
            LastStatus::Deprovisioning => life.deprovisioning,
            LastStatus::Stopped | LastStatus::Deleted => {
                let kept = life.stopped_kept;
                return self.at(now.plus(kept), Timer::Forget(task.arn.clone()));
            }
        };
        self.at(now.plus(after), Timer::Task { arn: task.arn.clone(), version: task.version });
    }
}

fn lacks_address(task: &CloudTask) -> bool {
    task.network.as_ref().is_some_and(|network| network.address.is_none())
}

pub(super) fn launch_type(asked: Option<&str>, definition: &DefinitionRecord) -> String {
    asked.unwrap_or(if definition.requires("FARGATE") { "FARGATE" } else { "EC2" }).to_owned()
}

pub(super) fn needs_network(definition: &DefinitionRecord, network: Option<&Value>) -> AwsApiResult<()> {
    if definition.network_mode == "awsvpc" && network.is_none() {
        return Err(invalid("the network mode awsvpc needs a networkConfiguration with subnets"));
    }
    Ok(())
}

impl DescribeFailure {
    pub(super) fn missing(arn: String) -> Self {
        Self { arn, reason: "MISSING" }
    }
}
