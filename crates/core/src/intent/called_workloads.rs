//! The workload labels of called services. Kuma 3.x names a service by the label `kuma.io/workload` of its Dataplanes, and
//! manifests name it by `Workload.service`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::evaluator::workload_label;
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
        let is_here = |binding: &String| {
            set.bindings.get(binding.as_str()).is_some_and(|binding| {
                binding.spec.control_plane == control_plane && binding.spec.mesh == *mesh
            })
        };
        let mut labels: BTreeMap<ServiceName, BTreeSet<Arc<str>>> = BTreeMap::new();
        for workload in set.workloads.values().filter(|workload| called.contains(&workload.service)) {
            if !workload.bindings.is_empty() && !workload.bindings.iter().any(is_here) {
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
    use ecs_mesh_api::WorkloadSpec;
    use serde_json::json;

    fn labels_of(workloads: &[(&str, Option<&str>)]) -> Option<Vec<String>> {
        let mut set = ManifestSet::default();
        for (at, (service, workload)) in workloads.iter().enumerate() {
            let spec: WorkloadSpec =
                serde_json::from_value(json!({"service": service, "workload": workload, "selector": {}}))
                    .unwrap();
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
    }
}
