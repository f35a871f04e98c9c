//! Outbounds to services that the mesh does not know: kept as they are (the service may come), and told of once, when
//! it has not come for a while.

use std::collections::BTreeSet;

use tracing::{debug, info, warn};

use super::{Operator, ControlPlaneWorker};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_model::MeshName;

impl Operator {
    /// Compares what the manifests call in each of the meshes with what the mesh knows.
    pub(super) async fn check_outbounds(&self, worker: &ControlPlaneWorker, set: &ManifestSet, meshes: &BTreeSet<MeshName>) {
        for mesh in meshes {
            let called = outbound_services(set, &worker.name, mesh);
            if called.is_empty() {
                continue;
            }
            match worker.call(worker.client.list_services(mesh)).await {
                Ok(known) => {
                    let unknown = called.into_iter().filter(|service| !known.contains(service)).collect();
                    self.report_unknown_outbounds(worker, mesh, unknown);
                }
                Err(halt) => {
                    debug!(control_plane = %worker.name, %mesh, ?halt, "its services cannot be listed");
                }
            }
        }
    }

    fn report_unknown_outbounds(&self, worker: &ControlPlaneWorker, mesh: &MeshName, unknown: BTreeSet<String>) {
        let (late, found) = worker.record_unknown_outbounds(mesh, unknown, self.clock.now());
        for service in late {
            self.metrics.record_warning("unknown_outbound_service");
            warn!(
                control_plane = %worker.name, %mesh, service,
                "outbounds go to a service that the mesh does not know; they are kept, and calls will fail until a \
                 task registers as it (look for a slip in spec.outbounds[].service)"
            );
        }
        for service in found {
            info!(control_plane = %worker.name, %mesh, service, "the mesh now knows this service that outbounds go to");
        }
    }
}

/// The services that workloads of this mesh call.
fn outbound_services(set: &ManifestSet, control_plane: &str, mesh: &MeshName) -> BTreeSet<String> {
    let here = |name: &str| {
        set.bindings.get(name).is_some_and(|b| b.spec.control_plane == control_plane && b.spec.mesh == *mesh)
    };
    let mut called = BTreeSet::new();
    for (name, workload) in &set.workloads {
        if !workload.bindings.is_empty() && !workload.bindings.iter().any(|binding| here(binding)) {
            continue;
        }
        let merged = set.merged_outbounds(name, workload).resolved;
        called.extend(merged.iter().map(|outbound| outbound.service.to_string()));
    }
    called
}
