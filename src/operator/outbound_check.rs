//! Reports outbounds to services that the mesh does not know. The outbounds are kept, since a service may register later;
//! a service that stays unknown is reported once.

use std::collections::BTreeSet;

use tracing::{debug, info, warn};

use super::context::Context;
use super::control_plane_worker::ControlPlaneWorker;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_core::intent::CalledWorkloads;
use ecs_mesh_model::{MeshName, ServiceName};

/// Compares the services that outbounds name in each mesh with those that the mesh knows.
pub(super) async fn run(
    context: &Context,
    worker: &ControlPlaneWorker,
    manifests: &ManifestSet,
    meshes: &BTreeSet<MeshName>,
) {
    for mesh in meshes {
        let called = outbound_services(manifests, &worker.name, mesh);
        if called.is_empty() {
            continue;
        }
        match worker.call(worker.client.list_services(mesh)).await {
            Ok(known) => {
                // Kuma 3.x names a service by its workload label.
                let workloads = CalledWorkloads::of(manifests, &worker.name, mesh, &called);
                let is_known = |service: &ServiceName| {
                    let mut labels = workloads.labels(service).into_iter().flatten();
                    known.contains(service.as_str()) || labels.any(|label| known.contains(&**label))
                };
                let unknown = called.iter().filter(|service| !is_known(service));
                let unknown = unknown.map(ToString::to_string).collect();
                report(context, worker, mesh, unknown);
            }
            Err(error) => {
                debug!(control_plane = %worker.name, %mesh, ?error, "cannot list the services of the mesh");
            }
        }
    }
}

fn report(context: &Context, worker: &ControlPlaneWorker, mesh: &MeshName, unknown: BTreeSet<String>) {
    let (late, found) = worker.record_unknown_outbounds(mesh, unknown, context.now());
    for service in late {
        context.metrics().record_warning("unknown_outbound_service");
        warn!(
            control_plane = %worker.name, %mesh, service,
            fix = "check spec.outbounds[].service for a typo",
            "outbound targets unknown service; keeping the outbound"
        );
    }
    for service in found {
        info!(control_plane = %worker.name, %mesh, service, "outbound service is known to the mesh again");
    }
}

/// The services that workloads of a mesh name in outbounds.
fn outbound_services(set: &ManifestSet, control_plane: &str, mesh: &MeshName) -> BTreeSet<ServiceName> {
    let here = |name: &str| {
        set.bindings.get(name).is_some_and(|b| b.spec.control_plane == control_plane && b.spec.mesh == *mesh)
    };
    let mut called = BTreeSet::new();
    for (name, workload) in &set.workloads {
        if !workload.bindings.is_empty() && !workload.bindings.iter().any(|binding| here(binding)) {
            continue;
        }
        let merged = set.merged_outbounds(name, workload).resolved;
        called.extend(merged.into_iter().map(|outbound| outbound.service));
    }
    called
}
