//! The workload labels of called services. Kuma 3.x names a service by the label `kuma.io/workload` of its Dataplanes, and
//! manifests name it by `Workload.service`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::evaluator::workload_label;
use super::select::may_describe;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_model::{MeshName, ServiceName};

/// The workload labels of the services that a task calls, as far as the manifests declare other labels than the service's
/// name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CalledWorkloads(BTreeMap<ServiceName, BTreeSet<Arc<str>>>);

impl CalledWorkloads {
    /// The labels of these services in a mesh.
    pub fn of<'a>(
        set: &ManifestSet,
        control_plane: &str,
        mesh: &MeshName,
        called: impl IntoIterator<Item = &'a ServiceName>,
    ) -> Self {
        let called: BTreeSet<&ServiceName> = called.into_iter().collect();
        let bindings = set.bindings.values();
        let bindings: Vec<_> = bindings
            .filter(|binding| binding.spec.control_plane == control_plane && binding.spec.mesh == *mesh)
            .collect();
        let mut labels: BTreeMap<ServiceName, BTreeSet<Arc<str>>> = BTreeMap::new();
        for workload in set.workloads.values().filter(|workload| called.contains(&workload.service)) {
            if !bindings.iter().any(|binding| may_describe(workload, binding)) {
                continue;
            }
            if let Some(label) = workload_label(workload) {
                labels.entry(workload.service.clone()).or_default().insert(label.into());
            }
        }
        labels.retain(|service, labels| labels.iter().any(|label| **label != *service.as_str()));
        Self(labels)
    }

    /// The declared labels of a service; `None` where its name is its label, as far as the manifests tell.
    pub fn labels(&self, service: &ServiceName) -> Option<&BTreeSet<Arc<str>>> {
        self.0.get(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_api::manifests::Binding;
    use ecs_mesh_api::{ControlPlaneType, WorkloadSpec};
    use serde_json::json;

    fn labels_of(workloads: &[(&str, Option<&str>)]) -> Option<Vec<String>> {
        labels_in("*:cluster/*", workloads)
    }

    /// The labels in a mesh of other clusters or of all.
    fn labels_in(cluster: &str, workloads: &[(&str, Option<&str>)]) -> Option<Vec<String>> {
        let mut set = ManifestSet::default();
        let spec = json!({"controlPlane": "kuma", "selector": {"clusters": [cluster]}});
        let binding = Binding {
            name: "b".into(),
            spec: serde_json::from_value(spec).unwrap(),
            control_plane_type: ControlPlaneType::Kuma,
            guard_released_until: None,
        };
        set.bindings.insert("b".into(), Arc::new(binding));
        for (at, (service, workload)) in workloads.iter().enumerate() {
            let selector = json!({"clusters": ["*:cluster/prod-*"]});
            let spec = json!({"service": service, "workload": workload, "selector": selector});
            let spec: WorkloadSpec = serde_json::from_value(spec).unwrap();
            set.workloads.insert(format!("w{at}").into(), Arc::new(spec));
        }
        let called = ServiceName::parse("kv_store").unwrap();
        let found = CalledWorkloads::of(&set, "kuma", &MeshName::default(), [&called]);
        found.labels(&called).map(|labels| labels.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn called_service_has_the_labels_of_its_workloads() {
        assert_eq!(labels_of(&[("kv_store", Some("kv")), ("other", Some("x"))]), Some(vec!["kv".to_owned()]));
        let several = labels_of(&[("kv_store", Some("kv-b")), ("kv_store", Some("kv-a"))]);
        assert_eq!(several, Some(vec!["kv-a".to_owned(), "kv-b".to_owned()]));
        assert_eq!(labels_of(&[("kv_store", None), ("other", None)]), None);
        let elsewhere = labels_in("*:cluster/stage", &[("kv_store", Some("kv"))]);
        assert_eq!(elsewhere, None, "its tasks are in other clusters than the mesh's");
    }
}
