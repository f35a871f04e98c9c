//! Resolves who owns the Dataplanes of a task, and compares that with the sidecar in the task definition.

use ecs_mesh_api::manifests::{Binding, ManifestSet};
use ecs_mesh_api::{ProxyRole, WorkloadSpec};
use ecs_mesh_model::{DataplaneOwner, Reason, SidecarDataplane, Task, TaskDefinition};

use super::select::{Match, workload_matches, workloads_for};
use super::{HoldReason, RegistrationId, Verdict, workload_label};

/// The task of a Dataplane.
#[derive(Clone, Copy, Debug)]
pub enum DataplaneTask<'a> {
    /// ECS shows the task.
    Shown(&'a Task),
    /// ECS no longer shows the task of this registration.
    Forgotten {
        /// The registration.
        id: &'a RegistrationId,
        /// Its service, if it has one.
        service: Option<&'a str>,
    },
}

impl DataplaneTask<'_> {
    /// The owner by one Workload; `None` if the Workload is another task's.
    fn owner_by(&self, workload: &WorkloadSpec, default: DataplaneOwner) -> Option<DataplaneOwner> {
        let declared = workload.dataplanes.unwrap_or(default);
        match self {
            Self::Shown(task) => match workload_matches(workload, task) {
                Match::Yes => Some(declared),
                // Another Workload, or none, may describe the task.
                Match::NeedsTags => Some(declared.max(default)),
                Match::No => None,
            },
            Self::Forgotten { service, .. } => {
                let names = [Some(workload.service.as_str()), workload_label(workload)];
                (service.is_some() && names.contains(service)).then_some(declared)
            }
        }
    }

    /// Whether the registration may be that of the Workload.
    fn may_be_of(&self, workload: &WorkloadSpec) -> bool {
        match self {
            Self::Shown(_) => false,
            Self::Forgotten { id, .. } => id.zone_proxy().is_none_or(
                |(kind, _)| matches!(workload.proxy_role(), ProxyRole::Zone(proxy) if proxy.kind() == kind),
            ),
        }
    }
}

/// The owner of the Dataplanes of a task in its binding: the Workload's, or else the binding's. Of several that the task may
/// have, the strictest: one whose Dataplanes are only observed, then those of sidecars. Of a task that ECS no longer shows,
/// the Workloads of the registration's service decide, or else all Workloads that it may have had: a zone proxy has no
/// service, and a Workload's may have changed.
pub fn dataplane_owner(set: &ManifestSet, binding: &Binding, task: DataplaneTask<'_>) -> DataplaneOwner {
    if binding.control_plane_type.tasks_register_themselves() {
        return DataplaneOwner::Operator;
    }
    let default = binding.spec.dataplanes;
    let workloads: Vec<_> = workloads_for(set, &binding.name).map(|(_, workload)| workload).collect();
    let owner = workloads.iter().filter_map(|workload| task.owner_by(workload, default)).max();
    owner.unwrap_or_else(|| {
        let possible = workloads.iter().filter(|workload| task.may_be_of(workload));
        possible.filter_map(|workload| workload.dataplanes).fold(default, DataplaneOwner::max)
    })
}

/// Holds a task whose sidecar would overwrite the operator's registration at each connect.
pub(super) fn check_sidecar(owner: DataplaneOwner, definition: &TaskDefinition) -> Result<(), Verdict> {
    let Some((container, SidecarDataplane::Template)) = definition.sidecar_dataplane() else { return Ok(()) };
    if owner == DataplaneOwner::Sidecar {
        return Ok(());
    }
    let message = format!(
        "container {container} of {} has a Dataplane template, with which the control plane overwrites the operator's \
         registration at each connect; help: deploy a task definition whose sidecar starts with --name and without the \
         template, or set dataplanes: sidecar in the MeshBinding or the Workload",
        definition.arn
    );
    Err(Verdict::Hold(HoldReason::TemplateMode(Reason::new("the sidecar has a Dataplane template", message))))
}

/// The warning that a sidecar waits for a Dataplane that is not created.
pub(super) fn waiting_sidecar(
    owner: DataplaneOwner,
    workload: &str,
    definition: &TaskDefinition,
) -> Option<Reason> {
    let Some((container, SidecarDataplane::Named)) = definition.sidecar_dataplane() else { return None };
    (owner == DataplaneOwner::Sidecar).then(|| {
        Reason::constant(format!(
            "Workload {workload}: dataplanes is {owner}, and container {container} of {} starts by name: it waits for a \
             Dataplane that the operator does not create; help: deploy a task definition whose sidecar has a Dataplane \
             template, or set dataplanes: {}",
            definition.arn,
            DataplaneOwner::Operator
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use DataplaneOwner::{Observe, Operator, Sidecar};
    use ecs_mesh_api::{ControlPlaneType, ZoneProxyKind};
    use ecs_mesh_model::{DesiredStatus, InterfaceAddresses, LastStatus, MeshName, TaskGroup, TaskHost};
    use serde_json::{Value, json};

    use super::*;

    fn binding(dataplanes: &str, control_plane_type: ControlPlaneType) -> Binding {
        let spec = json!({"controlPlane": "kuma", "selector": {"clusters": ["*"]}, "dataplanes": dataplanes});
        let spec = serde_json::from_value(spec).unwrap();
        Binding { name: "prod".into(), spec, control_plane_type, guard_released_until: None }
    }

    fn set(workloads: &[Value]) -> ManifestSet {
        let mut set = ManifestSet::default();
        for (n, workload) in workloads.iter().enumerate() {
            let workload = serde_json::from_value(workload.clone()).unwrap();
            set.workloads.insert(n.to_string().into(), Arc::new(workload));
        }
        set
    }

    /// A task of the service `web`, whose tags are not known.
    fn task() -> Task {
        let arn = |kind: &str| format!("arn:aws:ecs:eu-west-1:111122223333:{kind}");
        Task {
            arn: arn("task/c/1").try_into().unwrap(),
            version: 1,
            last_status: LastStatus::Running,
            desired_status: DesiredStatus::Running,
            group: TaskGroup::Service("web".into()),
            definition: arn("task-definition/web:1").try_into().unwrap(),
            role_override: None,
            addresses: InterfaceAddresses::NONE,
            host: TaskHost::None,
            deployment: None,
            created_at: None,
            tags: None,
            stopped_containers: Box::default(),
        }
    }

    #[test]
    fn owner_is_that_of_the_workload_or_else_of_the_binding() {
        let web = |dataplanes: &str| json!({"selector": {"services": ["web"]}, "service": "web", "dataplanes": dataplanes});
        let plain = json!({"selector": {"services": ["web"]}, "service": "web"});
        let other = json!({"selector": {"services": ["kv"]}, "service": "kv", "dataplanes": "observe"});
        let tagged = json!({"selector": {"tags": {"a": "b"}}, "service": "web", "dataplanes": "operator"});
        let own = json!({"bindings": ["stage"], "selector": {"services": ["web"]}, "service": "web", "dataplanes": "observe"});
        for (workloads, default, expected) in [
            (vec![], "sidecar", Sidecar),
            (vec![plain.clone()], "sidecar", Sidecar),
            (vec![web("operator")], "observe", Operator),
            (vec![web("sidecar"), other.clone()], "operator", Sidecar),
            (vec![web("sidecar"), web("observe")], "operator", Observe),
            // It may be that no Workload selects the task.
            (vec![tagged], "observe", Observe),
            (vec![own], "operator", Operator),
        ] {
            let (set, binding) = (set(&workloads), binding(default, ControlPlaneType::Kuma));
            let task = task();
            let found = dataplane_owner(&set, &binding, DataplaneTask::Shown(&task));
            assert_eq!(found, expected, "{workloads:?}");
        }
    }

    fn of_forgotten(
        workloads: &[Value],
        default: &str,
        id: &RegistrationId,
        service: Option<&str>,
    ) -> DataplaneOwner {
        let binding = binding(default, ControlPlaneType::Kuma);
        dataplane_owner(&set(workloads), &binding, DataplaneTask::Forgotten { id, service })
    }

    #[test]
    fn service_of_the_registration_decides_for_a_task_that_ecs_forgot() {
        let id = RegistrationId { mesh: MeshName::default(), name: "a".into() };
        let web = json!({"selector": {"services": ["x"]}, "service": "Web", "workload": "web", "dataplanes": "operator"});
        for (service, expected) in
            [(Some("Web"), Operator), (Some("web"), Operator), (Some("kv"), Sidecar), (None, Sidecar)]
        {
            assert_eq!(
                of_forgotten(std::slice::from_ref(&web), "sidecar", &id, service),
                expected,
                "{service:?}"
            );
        }
        // The service of a Workload was renamed.
        let observed = json!({"selector": {"services": ["x"]}, "service": "new", "dataplanes": "observe"});
        for (service, expected) in [("old", Observe), ("Web", Operator)] {
            let workloads = [web.clone(), observed.clone()];
            assert_eq!(of_forgotten(&workloads, "operator", &id, Some(service)), expected, "{service}");
        }
    }

    #[test]
    fn workloads_of_its_type_decide_for_a_zone_proxy_that_ecs_forgot() {
        let proxy = |kind: &str| json!({"selector": {"services": ["x"]}, "service": "x", "proxy": kind, "dataplanes": "observe"});
        for (workload, expected) in
            [("zoneIngress", Observe), ("zoneEgress", Operator), ("sidecar", Operator)]
        {
            let id = RegistrationId::of_zone_proxy(ZoneProxyKind::Ingress, "a");
            assert_eq!(of_forgotten(&[proxy(workload)], "operator", &id, None), expected, "{workload}");
        }
    }

    #[test]
    fn tasks_at_consul_have_no_dataplanes() {
        let binding = binding("observe", ControlPlaneType::Consul);
        assert_eq!(dataplane_owner(&set(&[]), &binding, DataplaneTask::Shown(&task())), Operator);
    }
}
