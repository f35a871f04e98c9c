//! The manifests of a demo, which change as its world does.

use std::path::Path;

use ecs_mesh_api::KumaFeature;
use ecs_mesh_sandbox::endpoints::Endpoints;
use ecs_mesh_sandbox::kuma::EmulatedRelease;
use ecs_mesh_sandbox::world::{
    ConsulManifestOptions, ManifestOptions, ScenarioService, ZoneProxyGeneration, manifests, proxy_manifests,
};

/// Name of the manifest file.
pub const MANIFESTS: &str = "manifests.yaml";

/// A manifest that is added during the demo.
const MORE_OUTBOUNDS: &str = "---
apiVersion: ecs-mesh.dev/v1alpha1
kind: OutboundList
metadata: {name: kv-users}
spec:
  workloads: [\"svc-*\"]
  outbounds:
    - {service: kv, targetPort: 15050, listen: {port: 15051}}
";

/// The form of zone proxies at a release, before anyone moves them.
pub fn first_zone_proxies(release: EmulatedRelease) -> ZoneProxyGeneration {
    if release.has(KumaFeature::ZoneProxyResources) {
        ZoneProxyGeneration::Resources
    } else {
        ZoneProxyGeneration::Listeners
    }
}

/// The manifests of a demo.
#[derive(Clone, Debug)]
pub struct DemoManifests {
    options: ManifestOptions,
    /// The zone proxies, beside a gateway; `None` without proxies of their own.
    pub(super) zone_proxies: Option<Vec<ZoneProxyGeneration>>,
    /// The `OutboundList` that is added during the demo.
    pub(super) more_outbounds: bool,
}

impl DemoManifests {
    /// The manifests at the beginning. `token` is the field of `spec.consul` with the token's source. `proxies` is the form of
    /// zone proxies, if the world has any.
    pub fn new(endpoints: &Endpoints, token: &str, proxies: Option<ZoneProxyGeneration>) -> Self {
        let zone_proxies = proxies.map(|kind| vec![kind]);
        Self { options: manifest_options(endpoints, token), zone_proxies, more_outbounds: false }
    }

    /// The manifests with these services, as YAML.
    pub fn text(&self, services: &[ScenarioService]) -> String {
        let mut text = manifests(&self.options, services);
        text.extend(self.zone_proxies.iter().map(|kinds| proxy_manifests(kinds)));
        if self.more_outbounds {
            text += MORE_OUTBOUNDS;
        }
        text
    }

    /// Writes the manifests with these services, at once: the operator never reads a part of them.
    pub(super) fn write(&self, directory: &Path, services: &[ScenarioService]) -> Result<(), String> {
        let new = directory.join("manifests.new");
        std::fs::write(&new, self.text(services))
            .and_then(|()| std::fs::rename(&new, directory.join(MANIFESTS)))
            .map_err(|error| format!("writing to {}: {error}", directory.display()))
    }
}

/// Settings of the demo's manifests: production defaults with shorter intervals. `token` is the field of `spec.consul` with the
/// token's source.
pub fn manifest_options(endpoints: &Endpoints, token: &str) -> ManifestOptions {
    let consul = |url: &String| ConsulManifestOptions {
        address: url.clone(),
        token: token.to_owned(),
        on_revoked: None,
    };
    ManifestOptions {
        kuma: endpoints.kuma_url.clone(),
        consul: endpoints.consul.as_ref().map(|consul| &consul.url).map(consul),
        cluster: endpoints.cluster.clone(),
        sweep_interval: "10s",
        grace_age: "20s",
        drain: "1s",
        settle: "5s",
        recheck: "30s",
        hold: None,
        dataplane_name: "{taskId}",
    }
}
