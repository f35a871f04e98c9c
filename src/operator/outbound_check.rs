//! Reports outbounds to services that the mesh does not know. The outbounds are kept, since a service may register later;
//! a service that stays unknown is reported once.
//!
//! Where the services of a mesh are resources, their types, names and ports are compared, and whether sidecars can bind
//! their addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::{debug, info, warn};

use super::context::Context;
use super::control_plane_worker::ControlPlaneWorker;
use ecs_mesh_api::manifests::{Binding, DeclaredReach, ManifestSet};
use ecs_mesh_api::{CalledBackend, ControlPlaneType, ReachableBackend};
use ecs_mesh_control_plane::CallError;
use ecs_mesh_core::intent::{CalledWorkloads, MeshBackend, may_describe};
use ecs_mesh_model::{MeshName, ServiceName};

/// Compares the services that outbounds name in each mesh with those that the mesh knows.
pub(super) async fn run(
    context: &Context,
    worker: &ControlPlaneWorker,
    manifests: &ManifestSet,
    meshes: &BTreeSet<MeshName>,
) {
    worker.retain_meshes(meshes);
    for mesh in meshes {
        let outbounds = MeshOutbounds::of(manifests, &worker.name, mesh);
        if outbounds.called.is_empty() && !outbounds.are_bound {
            // The last outbound may have left the manifests.
            worker.record_unknown_outbounds(mesh, BTreeSet::new(), context.now());
            worker.clear_unbindable(mesh);
            continue;
        }
        match missing(context, worker, manifests, mesh, &outbounds).await {
            Ok(missing) => report(context, worker, mesh, &missing),
            Err(error) => {
                debug!(control_plane = %worker.name, %mesh, ?error, "cannot list the services of the mesh");
            }
        }
    }
}

/// The outbounds of all workloads in a mesh.
#[derive(Default)]
struct MeshOutbounds {
    called: BTreeSet<ReachableBackend>,
    /// Sidecars of a workload bind them on the services' own addresses.
    are_bound: bool,
}

impl MeshOutbounds {
    fn of(set: &ManifestSet, control_plane: &str, mesh: &MeshName) -> Self {
        let is_here = |b: &Binding| b.spec.control_plane == control_plane && b.spec.mesh == *mesh;
        let mut outbounds = Self::default();
        for (name, workload) in &set.workloads {
            let bindings = set.bindings.values().filter(|binding| may_describe(workload, binding));
            let (here, others): (Vec<_>, Vec<_>) = bindings.partition(|binding| is_here(binding));
            let of_kuma = |binding: &&Arc<Binding>| binding.control_plane_type == ControlPlaneType::Kuma;
            // Nothing at Consul is made of outbounds: those of tasks that are in a mesh of Kuma, too, are of that mesh.
            if here.is_empty() || !here.iter().any(of_kuma) && others.iter().any(of_kuma) {
                continue;
            }
            let reach = set.declared_reach(name, workload);
            outbounds.are_bound |= !matches!(reach, DeclaredReach::Listeners(_));
            outbounds.called.extend(reach.backends());
        }
        outbounds
    }

    fn services(&self) -> BTreeSet<&ServiceName> {
        let named = self.called.iter().filter_map(ReachableBackend::one);
        named.filter_map(CalledBackend::service).collect()
    }
}

/// The outbounds that the mesh does not have, each with the reason.
async fn missing(
    context: &Context,
    worker: &ControlPlaneWorker,
    manifests: &ManifestSet,
    mesh: &MeshName,
    outbounds: &MeshOutbounds,
) -> Result<BTreeMap<String, String>, CallError> {
    // Kuma 3.x names a service by its workload label.
    let workloads = CalledWorkloads::of(manifests, &worker.name, mesh, outbounds.services());
    let known = worker.call(worker.client.list_callable(mesh)).await?;
    worker.record_mesh_services(mesh, &known);
    if outbounds.are_bound && known.names.is_none() {
        report_addresses(context, worker, mesh, &known.resources);
    }
    Ok(known.missing(&outbounds.called, &workloads))
}

fn report(
    context: &Context,
    worker: &ControlPlaneWorker,
    mesh: &MeshName,
    missing: &BTreeMap<String, String>,
) {
    let (late, found) =
        worker.record_unknown_outbounds(mesh, missing.keys().cloned().collect(), context.now());
    for service in late {
        context.metrics().record_warning("unknown_outbound_service");
        warn!(
            control_plane = %worker.name, %mesh, service,
            reason = missing.get(&service).map(String::as_str),
            fix = "check spec.outbounds[] for a typo",
            "outbound targets unknown service; keeping the outbound"
        );
    }
    for service in found {
        info!(control_plane = %worker.name, %mesh, service, "outbound service is known to the mesh again");
    }
}

/// Reports once that services have addresses on which no sidecar can listen.
fn report_addresses(context: &Context, worker: &ControlPlaneWorker, mesh: &MeshName, known: &[MeshBackend]) {
    let Some(example) = known.iter().find(|backend| !backend.is_bindable()) else {
        worker.clear_unbindable(mesh);
        return;
    };
    if worker.raise_unbindable(mesh) {
        context.metrics().record_warning("unbindable_addresses");
        warn!(
            control_plane = %worker.name, %mesh, service = %example.name, addresses = ?example.addresses,
            fix = "set KUMA_IPAM_MESH_SERVICE_CIDR and its siblings to ranges in 127.0.0.0/8",
            "sidecars cannot bind service addresses outside 127.0.0.0/8"
        );
    }
}
