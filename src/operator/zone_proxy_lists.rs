//! Lists of zone proxies that the token may not read, where there are none to read.

use tracing::debug;

use super::control_plane_worker::ControlPlaneWorker;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{ProxyRole, ZoneProxyForm, ZoneProxyKind};
use ecs_mesh_control_plane::{FailedSegment, MeshErrorKind};

/// The segments whose failure counts. A token that was made for Dataplanes alone is refused the lists of zone proxies, which
/// matters only where a `Workload` declares one or the operator has registered one.
pub(super) fn without_unused(
    failed: Vec<FailedSegment>,
    manifests: &ManifestSet,
    worker: &ControlPlaneWorker,
) -> Vec<FailedSegment> {
    let is_used = |failed: &FailedSegment| {
        let Some(kind) = failed.segment.zone_proxies() else { return true };
        failed.error.kind != MeshErrorKind::Forbidden
            || declares(manifests, worker, kind)
            || worker.registry.ids().iter().any(|id| failed.segment.contains(id))
    };
    let (used, unused): (Vec<_>, Vec<_>) = failed.into_iter().partition(is_used);
    for FailedSegment { segment, error } in unused {
        debug!(control_plane = %worker.name, %segment, %error, "list forbidden; no workload needs it");
    }
    used
}

/// Whether a workload of the control plane declares a zone proxy that is registered as a resource of this type.
fn declares(manifests: &ManifestSet, worker: &ControlPlaneWorker, kind: ZoneProxyKind) -> bool {
    let form = worker.client.zone_proxy_form().unwrap_or_default();
    let is_here = |name: &str| {
        manifests.bindings.get(name).is_some_and(|binding| *binding.spec.control_plane == *worker.name)
    };
    manifests.workloads.values().any(|workload| {
        let may_apply =
            workload.bindings.is_empty() || workload.bindings.iter().any(|binding| is_here(binding));
        may_apply
            && matches!(
                workload.proxy_role(),
                ProxyRole::Zone(proxy) if proxy.kind() == kind && form.of(&proxy) == ZoneProxyForm::Resource
            )
    })
}
