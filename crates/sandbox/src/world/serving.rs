//! Which tasks of a service can serve, as ECS's truth: whatever a control plane or a client of it says.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::MESH;
use super::rollout::SIDECAR;
use crate::aws::{Cloud, CloudTask, ContainerState};
use ecs_mesh_model::{DesiredStatus, Timestamp};

/// The tasks of a service in a mesh that can serve at some time.
#[derive(Clone, Debug, Default)]
pub struct ServingTasks {
    /// Tasks whose app answers and whose sidecar works, in the order of their ARNs. Those that ECS is stopping are
    /// among them as long as their app serves.
    pub serving: Vec<Arc<CloudTask>>,
    /// Those of `serving` that ECS is stopping.
    pub leaving: Vec<Arc<CloudTask>>,
}

/// The tasks that can serve at `at`, within the history of the account, by mesh and service. The world's workloads are
/// selected by family, so standalone tasks are among them.
pub fn serving_tasks(cloud: &Cloud, at: Timestamp) -> BTreeMap<(&'static str, String), ServingTasks> {
    let mut services: BTreeMap<(&'static str, String), ServingTasks> = BTreeMap::new();
    for task in cloud.tasks_as_of(at).filter(|task| can_serve(task, at)) {
        let service = services.entry((MESH, task.family.clone())).or_default();
        service.serving.push(Arc::clone(task));
        if task.desired_status == DesiredStatus::Stopped {
            service.leaving.push(Arc::clone(task));
        }
    }
    services
}

/// Whether a task, in its state at `at`, can serve: its app answers, and its sidecar works.
pub fn can_serve(task: &CloudTask, at: Timestamp) -> bool {
    app_and_sidecar(task).is_some_and(|(app, sidecar)| app.answers(at) && sidecar.is_up(at))
}

/// The containers of app and sidecar. A task without a container for the sidecar has it in the app's.
pub(super) fn app_and_sidecar(task: &CloudTask) -> Option<(&ContainerState, &ContainerState)> {
    let app = task.container("app").or(task.containers.first())?;
    Some((app, task.container(SIDECAR).unwrap_or(app)))
}
