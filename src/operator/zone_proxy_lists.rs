//! Lists of zone proxies that the token may not read, where there are none to read.

use tracing::debug;

use super::control_plane_worker::ControlPlaneWorker;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_control_plane::{FailedSegment, MeshErrorKind};

/// The segments whose failure counts. A token that was made for Dataplanes alone is refused the lists of zone proxies, which
/// matters only where a `Workload` declares one or the operator has registered one.
pub(super) fn without_unused(
    failed: Vec<FailedSegment>,
    manifests: &ManifestSet,
    worker: &ControlPlaneWorker,
) -> Vec<FailedSegment> {
    let form = worker.client.zone_proxy_form().unwrap_or_default();
    let is_used = |failed: &FailedSegment| {
        let Some(kind) = failed.segment.zone_proxies() else { return true };
        failed.error.kind != MeshErrorKind::Forbidden
            || manifests.declares_zone_proxy(&worker.name, kind, form)
            || worker.registry.ids().iter().any(|id| failed.segment.contains(id))
    };
    let (used, unused): (Vec<_>, Vec<_>) = failed.into_iter().partition(is_used);
    for FailedSegment { segment, error } in unused {
        debug!(control_plane = %worker.name, %segment, %error, "list forbidden; no workload needs it");
    }
    used
}
