//! A small account for the tests of this module.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Cloud, CloudTask, CreateService, EcsService, ListTasks, ReceiveMessages, RegisterTaskDefinition,
    RuleTarget, RunTask, UpdateService,
};
use crate::aws::{AwsApiResult, CloudConfig};
use ecs_mesh_model::{DesiredStatus, LastStatus, Tags, Timestamp};

pub(super) struct CloudFixture {
    pub(super) cloud: Cloud,
    pub(super) now: Timestamp,
}

/// An account with the cluster `prod`, the definition `kv:1` and the queue `events` that gets all events.
pub(super) fn cloud() -> CloudFixture {
    cloud_with(CloudConfig::default())
}

pub(super) fn cloud_with(config: CloudConfig) -> CloudFixture {
    let now = Timestamp(1_800_000_000_000);
    let mut world = CloudFixture { cloud: Cloud::new(config, now), now };
    world.cloud.create_cluster("prod", Tags::new()).unwrap();
    world.definition("kv");
    world.cloud.create_queue("events", std::collections::BTreeMap::new(), now).unwrap();
    world.cloud.put_rule("all", r#"{"source": [{"prefix": "aws."}]}"#, true, None).unwrap();
    let arn = world.cloud.queue_arn("events").unwrap();
    let target = RuleTarget { id: "q".into(), arn, input: None, rest: serde_json::Map::new() };
    world.cloud.put_targets("all", vec![target]).unwrap();
    world
}

impl CloudFixture {
    pub(super) fn definition(&mut self, family: &str) {
        let request = RegisterTaskDefinition::fargate(family, Some("kv-task"), 8080);
        self.cloud.register_task_definition(request, self.now).unwrap();
    }

    /// Registers the next revision of a Fargate family with these containers.
    pub(super) fn define(&mut self, family: &str, containers: &Value) -> AwsApiResult<()> {
        let request = RegisterTaskDefinition {
            container_definitions: containers.as_array().cloned().unwrap_or_default(),
            ..RegisterTaskDefinition::fargate(family, Some("kv-task"), 8080)
        };
        self.cloud.register_task_definition(request, self.now).map(drop)
    }

    /// Creates a service of `kv` with these limits in percent.
    pub(super) fn service_within(&mut self, count: usize, least: usize, most: usize) {
        let limits = json!({"minimumHealthyPercent": least, "maximumPercent": most});
        let request = CreateService {
            deployment_configuration: Some(limits),
            ..CreateService::awsvpc("prod", "kv", "kv", count)
        };
        self.cloud.create_service(request, self.now).unwrap();
    }

    /// Updates the service `kv`.
    pub(super) fn update(&mut self, change: UpdateService) {
        let request = UpdateService { cluster: "prod".into(), service: "kv".into(), ..change };
        self.cloud.update_service(&request, self.now).unwrap();
    }

    /// Deploys a revision of `kv` to the service `kv`.
    pub(super) fn deploy(&mut self, revision: u64) {
        let task_definition = Some(format!("kv:{revision}"));
        self.update(UpdateService { task_definition, ..UpdateService::default() });
    }

    /// The tasks of the service `kv` of this revision that ECS wants to run.
    pub(super) fn live(&self, revision: u64) -> Vec<Arc<CloudTask>> {
        let is_live = |task: &&Arc<CloudTask>| {
            task.service() == Some("kv")
                && task.definition.revision == revision
                && task.desired_status == DesiredStatus::Running
        };
        self.cloud.all_tasks().filter(is_live).cloned().collect()
    }

    pub(super) fn service(&mut self, name: &str, count: usize) {
        self.cloud.create_service(CreateService::awsvpc("prod", name, "kv", count), self.now).unwrap();
    }

    pub(super) fn task(&mut self) -> Arc<str> {
        self.cloud.run_task(&RunTask::awsvpc("prod", "kv"), self.now).unwrap()[0].arn.clone()
    }

    pub(super) fn run_for_secs(&mut self, seconds: u64) {
        self.run_for_millis(seconds * 1000);
    }

    pub(super) fn run_for_millis(&mut self, millis: u64) {
        self.now = self.now.plus(Duration::from_millis(millis));
        self.cloud.step(self.now);
    }

    pub(super) fn running(&self, service: &str) -> Vec<Arc<str>> {
        let request =
            ListTasks { service_name: Some(service.into()), ..ListTasks::of("prod", DesiredStatus::Running) };
        let listed = self.cloud.list_tasks(&request).unwrap().arns;
        listed.into_iter().filter(|arn| self.status(arn) == LastStatus::Running).collect()
    }

    pub(super) fn status(&self, arn: &str) -> LastStatus {
        self.cloud.task(arn).unwrap().last_status
    }

    /// Whether the service has one deployment left and all its tasks run.
    pub(super) fn is_stable(&self, service: &str) -> bool {
        let service = self.ecs_service(service);
        service.deployments.len() == 1 && service.running_count() == service.desired_count
    }

    pub(super) fn ecs_service(&self, name: &str) -> &EcsService {
        &self.cloud.services[&("prod".to_owned(), name.to_owned())]
    }

    /// Receives and deletes all events in the queue.
    pub(super) fn events(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let request = ReceiveMessages { max: 10, visibility: None };
            let batch = self.cloud.receive_message("events", request, self.now).unwrap();
            if batch.is_empty() {
                return events;
            }
            for message in batch {
                self.cloud.delete_message("events", &message.receipt_handle).unwrap();
                events.push(serde_json::from_str(&message.body).unwrap());
            }
        }
    }
}
