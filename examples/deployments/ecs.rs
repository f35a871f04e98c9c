//! The emulated ECS: a service whose containers are started, stopped and replaced in real time.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ecs_mesh_model::{DesiredStatus, LastStatus};
use ecs_mesh_sandbox::aws::{
    Cloud, CloudConfig, CloudTask, ContainerState, CreateRole, CreateService, LifeTimes,
    RegisterTaskDefinition, SERVING_LABEL, UpdateService,
};
use ecs_mesh_sandbox::control_planes::ControlPlanes;
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use ecs_mesh_sandbox::world::{CLUSTER, role_name, role_tags};
use serde_json::json;

use crate::network;

/// The service, with the same name in ECS, IAM and the mesh.
pub(crate) const SERVICE: &str = "kv";
/// The app's port.
pub(crate) const APP_PORT: u16 = 5_050;
/// The sidecar's port for the app.
pub(crate) const SIDECAR_PORT: u16 = 15_050;
/// The container of the app.
pub(crate) const APP: &str = "app";
/// The container of the sidecar.
pub(crate) const SIDECAR: &str = "kuma-dp";
/// Number of tasks.
pub(crate) const TASKS: usize = 3;

/// `stopTimeout` of the app.
const APP_STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// The most that Fargate allows for `stopTimeout`, as that of the sidecar.
const SIDECAR_STOP_TIMEOUT: Duration = Duration::from_mins(2);

/// A task, as far as its processes follow it.
#[derive(Clone, Debug)]
pub(crate) struct EmulatedTask {
    pub arn: Arc<str>,
    pub id: String,
    pub address: Option<Ipv4Addr>,
    pub app: ContainerState,
    pub sidecar: ContainerState,
    pub is_running: bool,
    pub is_stopped: bool,
    /// For people.
    pub status: String,
}

/// The emulated account with the service.
pub(crate) struct EmulatedEcs {
    pub endpoints: Endpoints,
    /// From the end of a task's containers until it is STOPPED.
    deprovisioning: Duration,
}

impl EmulatedEcs {
    /// Starts the servers and creates the service.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) async fn start(deprovisioning: Duration) -> Result<Self, String> {
        let (subnet, life) = (network::SUBNET.to_owned(), life_times(Duration::ZERO, deprovisioning));
        let cloud = CloudConfig { subnet, life, ..CloudConfig::default() };
        let endpoints = Endpoints::start(EndpointOptions { cloud, ..EndpointOptions::default() }).await?;
        endpoints
            .with(|cloud, _, now| {
                let tags = role_tags(SERVICE, ControlPlanes::Kuma);
                let role = cloud.create_role(CreateRole::for_tasks(&role_name(SERVICE), tags), now)?;
                let definition = cloud.register_task_definition(definition(&role.arn), now)?;
                cloud.create_service(CreateService::awsvpc(CLUSTER, SERVICE, &definition.arn, TASKS), now)
            })
            .map_err(|error| error.to_string())?;
        Ok(Self { endpoints, deprovisioning })
    }

    /// The tasks that ECS knows.
    pub(crate) fn tasks(&self) -> Vec<EmulatedTask> {
        self.endpoints.with(|cloud, _, _| cloud.all_tasks().filter_map(|task| view(task)).collect())
    }

    /// Replaces all tasks by a rolling deployment. Old tasks are stopped when new ones have run for `stop_after`, as if
    /// these counted as healthy then.
    ///
    /// # Errors
    /// ECS's error.
    pub(crate) fn deploy(&self, stop_after: Duration) -> Result<(), String> {
        let request = UpdateService {
            cluster: CLUSTER.to_owned(),
            service: SERVICE.to_owned(),
            force_new_deployment: true,
            ..UpdateService::default()
        };
        self.with(|cloud, now| {
            // Tasks that run already count as healthy.
            cloud.set_life(life_times(stop_after, self.deprovisioning));
            cloud.update_service(&request, now).map(drop)
        })
        .map_err(|error| error.to_string())
    }

    /// ECS detects that all containers of a task have gone.
    pub(crate) fn lose(&self, arn: &str) {
        self.with(|cloud, now| cloud.kill_hard(arn, now));
    }

    /// ECS detects that a container has exited.
    pub(crate) fn exit(&self, arn: &str, container: &str, code: i32) {
        self.with(|cloud, now| cloud.exit_container(arn, container, code, now));
    }

    fn with<R>(&self, act: impl FnOnce(&mut Cloud, ecs_mesh_model::Timestamp) -> R) -> R {
        self.endpoints.with(|cloud, _, now| act(cloud, now))
    }
}

/// Real time, without waiting for images and hosts. New tasks count as healthy after `healthy_after`.
fn life_times(healthy_after: Duration, deprovisioning: Duration) -> LifeTimes {
    LifeTimes {
        provisioning: Duration::from_secs(1),
        pending: Duration::from_secs(1),
        unchecked_healthy: healthy_after,
        time_scale: 1.0,
        ready: Duration::ZERO,
        deprovisioning,
        ..LifeTimes::default()
    }
}

/// App and sidecar. ECS starts the sidecar first and stops it last. Both exit when their processes do, or at their
/// `stopTimeout`.
fn definition(role: &str) -> RegisterTaskDefinition {
    let until_killed = json!({SERVING_LABEL: "1h"});
    let mut request = RegisterTaskDefinition::fargate(SERVICE, Some(role), APP_PORT);
    if let Some(app) = request.container_definitions.first_mut() {
        app["essential"] = json!(true);
        app["dependsOn"] = json!([{"containerName": SIDECAR, "condition": "START"}]);
        app["stopTimeout"] = json!(APP_STOP_TIMEOUT.as_secs());
        app["dockerLabels"] = until_killed.clone();
    }
    request.container_definitions.push(json!({
        "name": SIDECAR, "image": "kuma-dp:2.14", "essential": true,
        "stopTimeout": SIDECAR_STOP_TIMEOUT.as_secs(), "dockerLabels": until_killed,
    }));
    request
}

fn view(task: &CloudTask) -> Option<EmulatedTask> {
    let (app, sidecar) = (task.container(APP)?.clone(), task.container(SIDECAR)?.clone());
    Some(EmulatedTask {
        arn: Arc::clone(&task.arn),
        id: task.id().to_owned(),
        address: task.address(),
        is_running: task.last_status == LastStatus::Running && task.desired_status == DesiredStatus::Running,
        is_stopped: task.last_status == LastStatus::Stopped,
        status: format!("{:?}, desired {:?}", task.last_status, task.desired_status),
        app,
        sidecar,
    })
}
