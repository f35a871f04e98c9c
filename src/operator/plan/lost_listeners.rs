//! Listeners that an upgrade to Kuma 3.0 loses without an error.

use std::collections::BTreeSet;

use super::super::control_plane_worker::ControlPlaneWorker;
use ecs_mesh_api::manifests::{DeclaredReach, ManifestSet};
use ecs_mesh_api::{KumaFeature, KumaRelease};
use ecs_mesh_core::intent::workloads_in;
use ecs_mesh_core::plan::report::{UpgradeBlocker, UpgradeBlockerKind};

/// The workloads of the control plane whose sidecars would lose a listener by the upgrade to `target`, each with the listeners.
pub(super) fn lost_listeners(
    manifests: &ManifestSet,
    worker: &ControlPlaneWorker,
    target: &str,
) -> Vec<UpgradeBlocker> {
    if KumaRelease::of_version(target).is_none_or(|target| target.has(KumaFeature::TagServices)) {
        return Vec::new();
    }
    let bindings = manifests.bindings.values().filter(|binding| *binding.spec.control_plane == *worker.name);
    let workloads: BTreeSet<_> =
        bindings.flat_map(|binding| workloads_in(manifests, binding)).map(|(name, _)| name).collect();
    let blocker = |name: &std::sync::Arc<str>| {
        let reach = manifests.declared_reach(name, manifests.workloads.get(name)?);
        let DeclaredReach::Listeners(merged) = reach else { return None };
        let lost: Vec<String> = merged.lost_in_3_0().iter().map(ToString::to_string).collect();
        (!lost.is_empty()).then(|| UpgradeBlocker {
            kind: UpgradeBlockerKind::LostListener,
            mesh: None,
            resource: "Workload",
            count: 1,
            examples: vec![name.to_string()],
            reason: format!(
                "of several listeners for one destination {target} opens that with the highest port alone; lost: {}",
                lost.join(", ")
            ),
            fix: "let the app use one listener for each destination".to_owned(),
        })
    };
    workloads.into_iter().filter_map(blocker).collect()
}
