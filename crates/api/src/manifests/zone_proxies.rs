//! Which zone proxies a set of manifests declares.

use super::ManifestSet;
use crate::{ProxyRole, ZoneProxyForm, ZoneProxyKind};

impl ManifestSet {
    /// Whether a workload of the control plane declares a zone proxy of this type that is registered as a resource.
    /// `form`: how the control plane registers zone proxies whose scope no manifest decides.
    pub fn declares_zone_proxy(&self, control_plane: &str, kind: ZoneProxyKind, form: ZoneProxyForm) -> bool {
        let is_here = |name: &str| {
            self.bindings.get(name).is_some_and(|binding| *binding.spec.control_plane == *control_plane)
        };
        self.workloads.values().any(|workload| {
            let may_apply =
                workload.bindings.is_empty() || workload.bindings.iter().any(|binding| is_here(binding));
            may_apply
                && matches!(
                    workload.proxy_role(),
                    ProxyRole::Zone(proxy) if proxy.kind() == kind && form.of(&proxy) == ZoneProxyForm::Resource
                )
        })
    }
}
