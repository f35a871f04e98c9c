//! Reports outbounds to services that the mesh does not know. The outbounds are kept, since a service may register later;
//! a service that stays unknown is reported once.
//!
//! Where the services of a mesh are resources, their types, names and ports are compared, and whether sidecars can bind
//! their addresses.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{debug, info, warn};

use super::context::Context;
use super::control_plane_worker::ControlPlaneWorker;
use ecs_mesh_api::manifests::{DeclaredReach, ManifestSet};
use ecs_mesh_api::{BackendKind, NamedBackend, ReachableBackend};
use ecs_mesh_control_plane::CallError;
use ecs_mesh_core::intent::{CalledWorkloads, MeshBackend, missing_backends};
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
        let here = |name: &str| {
            set.bindings
                .get(name)
                .is_some_and(|b| b.spec.control_plane == control_plane && b.spec.mesh == *mesh)
        };
        let mut outbounds = Self::default();
        for (name, workload) in &set.workloads {
            if !workload.bindings.is_empty() && !workload.bindings.iter().any(|binding| here(binding)) {
                continue;
            }
            let reach = set.declared_reach(name, workload);
            outbounds.are_bound |= !matches!(reach, DeclaredReach::Listeners(_));
            outbounds.called.extend(reach.backends());
        }
        outbounds
    }

    fn services(&self) -> BTreeSet<&ServiceName> {
        let named = self.called.iter().filter_map(ReachableBackend::named);
        named.filter_map(NamedBackend::service).collect()
    }

    /// The types of the called resources.
    fn kinds(&self) -> BTreeSet<BackendKind> {
        self.called.iter().map(ReachableBackend::kind).chain([BackendKind::MeshService]).collect()
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
    let called = outbounds.services();
    // Kuma 3.x names a service by its workload label.
    let workloads = CalledWorkloads::of(manifests, &worker.name, mesh, called.iter().copied());
    if let Some(known) = worker.call(worker.client.list_backends(mesh, &outbounds.kinds())).await? {
        if outbounds.are_bound {
            report_addresses(context, worker, mesh, &known);
        }
        return Ok(missing_backends(&outbounds.called, &known, &workloads));
    }
    let known = worker.call(worker.client.list_services(mesh)).await?;
    let is_known = |service: &ServiceName| {
        let mut labels = workloads.labels(service).into_iter().flatten();
        known.contains(service.as_str()) || labels.any(|label| known.contains(&**label))
    };
    let unknown = called.into_iter().filter(|service| !is_known(service));
    Ok(unknown.map(|service| (service.to_string(), "the mesh has no such service".to_owned())).collect())
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
