//! The evidence and state of single tasks, for `explain`.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::PlanSelection;
use super::selection::may_describe;
use crate::operator::Operator;
use crate::operator::control_plane_worker::ControlPlaneWorker;
use ecs_mesh_core::plan::report::{PlanEntry, PlanReport, PlanWarning};
use ecs_mesh_model::{RoleArn, Task, TaskArn, TaskHost};

/// A task as ECS and the control planes show it, and what a run would make of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskExplanation {
    /// The task's ARN.
    pub task: TaskArn,
    /// ECS's state; absent where ECS does not show the task any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecs: Option<ExplainedState>,
    /// Workloads whose selector fits, as far as tags do not decide.
    pub workloads: Vec<Arc<str>>,
    /// The registrations of this operator.
    pub registrations: Vec<KnownRegistrationState>,
    /// The changes of a run at each control plane, or the reason why there are none.
    pub changes: Vec<PlanEntry>,
    /// Valid states of the task that are probably unintended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<PlanWarning>,
}

/// The state of a task in ECS.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedState {
    /// `lastStatus`.
    pub last_status: &'static str,
    /// `desiredStatus`.
    pub desired_status: &'static str,
    /// The version, which grows with every change of the task.
    pub version: u64,
    /// The ECS service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The task definition.
    pub definition: String,
    /// The task role, once read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleArn>,
    /// The addresses of the task's network interface, IPv4 first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The container instance that the task runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_instance: Option<String>,
    /// The container instance's addresses, as last read. Read only where the task has no address of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub container_instance_addresses: Vec<String>,
    /// Whether the task runs on an external instance (launch type EXTERNAL).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_external: bool,
    /// `createdAt` (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
}

/// A registration of the task.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownRegistrationState {
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// The name, with the mesh where there is one.
    pub name: String,
    /// The service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Arc<str>>,
    /// Why the registration is drained: `stopping`, `revoked` or `unwanted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drained: Option<&'static str>,
}

impl Operator {
    /// Explains the selected tasks by what a plan read, with that plan's changes and warnings.
    pub fn explain(&self, selection: &PlanSelection, report: &PlanReport) -> Vec<TaskExplanation> {
        let PlanReport { changes, warnings, .. } = report;
        let workers = self.workers();
        let registered = workers.values().flat_map(|worker| worker.registry.tasks());
        let mut tasks: Vec<TaskArn> = self.context.aws.store.all().into_iter().chain(registered).collect();
        tasks.sort_unstable();
        tasks.dedup();
        tasks.retain(|task| workers.values().any(|worker| self.selects(selection, worker, task)));
        let explain = |task: TaskArn| {
            let known = self.context.aws.store.snapshot(&task, Duration::MAX, self.context.now()).task;
            let manifests = self.context.manifests.load();
            let workloads = manifests.workloads.iter();
            let workloads = workloads
                .filter(|(_, workload)| known.as_ref().is_some_and(|known| may_describe(workload, known)));
            TaskExplanation {
                workloads: workloads.map(|(name, _)| Arc::clone(name)).collect(),
                registrations: workers.values().flat_map(|worker| registrations(worker, &task)).collect(),
                changes: changes.iter().filter(|entry| entry.task.as_ref() == Some(&task)).cloned().collect(),
                warnings: warnings
                    .iter()
                    .filter(|warning| warning.task == task.to_string())
                    .cloned()
                    .collect(),
                ecs: known.map(|known| self.state(&known)),
                task,
            }
        };
        tasks.into_iter().map(explain).collect()
    }

    fn state(&self, task: &Task) -> ExplainedState {
        let instance = match &task.host {
            TaskHost::ContainerInstance(instance) => Some(instance),
            TaskHost::None | TaskHost::External => None,
        };
        let hosts = &self.context.aws.hosts;
        let read = instance
            .and_then(|instance| hosts.cached(task.arn.cluster(), instance)?.ok())
            .unwrap_or_default();
        ExplainedState {
            last_status: task.last_status.as_str(),
            desired_status: task.desired_status.as_str(),
            version: task.version,
            service: task.group.service().map(str::to_owned),
            definition: task.definition.to_string(),
            role: self.context.aws.store.role_of(&task.arn),
            addresses: task.addresses.all().map(|address| address.to_string()).collect(),
            container_instance: instance.map(ToString::to_string),
            container_instance_addresses: read.all().map(|address| address.to_string()).collect(),
            is_external: task.host == TaskHost::External,
            created_at: task.created_at.map(|at| at.to_string()),
        }
    }
}

fn registrations(worker: &ControlPlaneWorker, task: &TaskArn) -> Vec<KnownRegistrationState> {
    let state = |entry: crate::operator::registry::RegistryEntry| KnownRegistrationState {
        control_plane: Arc::clone(&worker.name),
        name: worker.display_name(&entry.id),
        drained: entry.drained.map(|(reason, _)| reason.as_str()),
        service: entry.service,
    };
    worker.registry.entries(task).into_iter().map(state).collect()
}
