//! The services that proxies reach by their Dataplanes, as the leading instance configures them.
//!
//! Sources: `pkg/xds/sync/dataplane_proxy_builder.go` and `pkg/xds/context/mesh_context_builder.go` of Kuma. A `backendRef` that
//! cannot be resolved is skipped without an error. A sidecar that binds its outbounds gets a listener for each reachable
//! MeshService, and none of `networking.outbound`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::body::{label, list, number, object, service_of, tag, text};
use super::release::EmulatedRelease;
use super::rules::{DISPLAY_NAME, SERVICE_TAG};
use super::server::{KumaCp, MeshServicesMode};
use super::services::selects;
use ecs_mesh_api::KumaFeature;

/// The features that a sidecar reports which was started with `--bind-outbounds` (`pkg/core/xds/types/features.go`).
pub const BIND_OUTBOUNDS: &str = "feature-bind-outbounds";

/// A service that a proxy reaches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReachedService {
    /// The port of the listener; `None` if the proxy binds the service on the service's own address.
    pub port: Option<u16>,
    /// The service.
    pub service: String,
}

impl KumaCp {
    /// The services that the proxy of a Dataplane reaches. Whether they have endpoints makes no difference.
    pub fn reached_services(&self, mesh: &str, name: &str, dataplane: &Value) -> BTreeSet<ReachedService> {
        if self.binds_outbounds(mesh, name) {
            let bound = self.bound_services(mesh, dataplane).into_iter();
            return bound.map(|service| ReachedService { port: None, service }).collect();
        }
        let outbounds = list(&dataplane["networking"], "outbound").iter();
        outbounds.filter_map(|outbound| self.reached_by(mesh, outbound)).collect()
    }

    /// Whether the sidecar has reported that it binds its outbounds.
    pub fn binds_outbounds(&self, mesh: &str, name: &str) -> bool {
        let features = self.sidecars.get(&(mesh.to_owned(), name.to_owned()));
        let features = features.and_then(|sidecar| sidecar.features.as_ref());
        features.is_some_and(|features| features.iter().any(|feature| feature == BIND_OUTBOUNDS))
    }

    /// Whether clients find a Dataplane as an endpoint of its service. Whether it is ready makes no difference.
    pub fn is_endpoint(&self, mesh: &str, dataplane: &Value) -> bool {
        let Some(service) = service_of(dataplane) else { return false };
        if self.leader_mode(mesh) != MeshServicesMode::Exclusive {
            return true;
        }
        self.mesh_service(mesh, service).is_some_and(|found| selects(&found["spec"]["selector"], dataplane))
    }

    fn leader_release(&self) -> EmulatedRelease {
        self.instances.leader.release
    }

    fn leader_mode(&self, mesh: &str) -> MeshServicesMode {
        self.mesh_services_mode(mesh, self.leader_release())
    }

    fn mesh_service(&self, mesh: &str, name: &str) -> Option<&Value> {
        let stored = self.store.get("MeshService", &(mesh.to_owned(), name.to_owned()));
        stored.map(|object| &object.body)
    }

    fn reached_by(&self, mesh: &str, outbound: &Value) -> Option<ReachedService> {
        let port = u16::try_from(number(outbound, "port")).ok();
        if outbound.get("tags").is_some() {
            let service = tag(outbound, SERVICE_TAG).to_owned();
            return self
                .leader_release()
                .has(KumaFeature::OutboundTags)
                .then_some(ReachedService { port, service });
        }
        let to = outbound.get("backendRef")?;
        let service = self.mesh_service(mesh, text(to, "name"))?;
        let has_port = |wanted: &Value| number(wanted, "port") == number(to, "port");
        let ports = list(&service["spec"], "ports");
        ports.iter().any(has_port).then(|| ReachedService { port, service: text(to, "name").to_owned() })
    }

    /// The MeshServices that a sidecar binds: those of `reachableBackends`, or all without that field.
    fn bound_services(&self, mesh: &str, dataplane: &Value) -> BTreeSet<String> {
        if self.leader_mode(mesh) != MeshServicesMode::Exclusive {
            return BTreeSet::new();
        }
        let backends = dataplane.pointer("/networking/transparentProxying/reachableBackends");
        let is_reachable = |name: &str, service: &Value| {
            backends.is_none_or(|backends| {
                list(backends, "refs").iter().any(|to| is_reference(to, name, service))
            })
        };
        let all = self.mesh_services(mesh);
        all.filter(|(name, service)| is_reachable(name, service)).map(|(name, _)| name.to_owned()).collect()
    }
}

/// The outbounds of a Dataplane that name their service by a tag.
pub fn outbounds_by_tag(dataplane: &Value) -> usize {
    list(&dataplane["networking"], "outbound")
        .iter()
        .filter(|outbound| outbound.get("tags").is_some())
        .count()
}

fn is_reference(to: &Value, name: &str, service: &Value) -> bool {
    if text(to, "kind") != "MeshService" {
        return false;
    }
    let labels = object(to, "labels");
    if labels.is_empty() {
        return text(to, "name") == name;
    }
    labels.iter().all(|(key, value)| {
        let found = label(service, key);
        let found = if found.is_empty() && key == DISPLAY_NAME { name } else { found };
        value.as_str() == Some(found)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kuma::KumaConfig;
    use crate::kuma::tests::{START, at};

    const CALLER: &str = "caller";

    fn control_plane(mode: &str, networking: &Value) -> KumaCp {
        let mut cp = KumaCp::new(KumaConfig::default(), START);
        let mesh = json!({"type": "Mesh", "name": "default", "meshServices": {"mode": mode}});
        cp.insert_foreign("", "default", &mesh, START).unwrap();
        for (name, service, networking) in [
            ("kv-1", "kv", json!({"address": "10.0.0.1"})),
            ("redis-1", "redis", json!({"address": "10.0.0.2"})),
            (CALLER, CALLER, networking.clone()),
        ] {
            let mut networking = networking;
            networking["inbound"] = json!([{"port": 1_000, "tags": {"kuma.io/service": service}}]);
            let labels = json!({"kuma.io/workload": service});
            let body = json!({"type": "Dataplane", "mesh": "default", "name": name, "labels": labels,
                "networking": networking});
            cp.insert_foreign("default", name, &body, at(0)).unwrap();
        }
        cp.catch_up(at(1));
        cp
    }

    fn reached(cp: &KumaCp) -> Vec<(Option<u16>, String)> {
        let (mesh, name, body) = cp.dataplanes().find(|(_, name, _)| *name == CALLER).unwrap();
        let reached = cp.reached_services(mesh, name, body).into_iter();
        reached.map(|ReachedService { port, service }| (port, service)).collect()
    }

    #[test]
    fn listeners_reach_services_by_tag_until_3_0() {
        let outbounds = json!([
            {"port": 80, "tags": {"kuma.io/service": "kv"}},
            {"port": 81, "backendRef": {"kind": "MeshService", "name": "redis", "port": 1_000}},
            {"port": 82, "backendRef": {"kind": "MeshService", "name": "redis", "port": 1_001}},
            {"port": 83, "backendRef": {"kind": "MeshService", "name": "unknown", "port": 1_000}},
        ]);
        let mut cp = control_plane("Everywhere", &json!({"address": "10.0.0.3", "outbound": outbounds}));
        assert_eq!(reached(&cp), [(Some(80), "kv".to_owned()), (Some(81), "redis".to_owned())]);
        cp.upgrade(EmulatedRelease::V3_0, at(2));
        assert_eq!(reached(&cp), [(Some(81), "redis".to_owned())]);
    }

    #[test]
    fn bound_sidecars_reach_their_backends_in_exclusive_meshes() {
        let refs = json!([{"kind": "MeshService", "name": "kv"}, {"kind": "MeshService", "name": "unknown"}]);
        let limited = json!({"address": "10.0.0.3",
            "transparentProxying": {"reachableBackends": {"refs": refs}}});
        let by_label = json!([{"kind": "MeshService", "labels": {"kuma.io/display-name": "redis"}}]);
        let labelled = json!({"address": "10.0.0.3",
            "transparentProxying": {"reachableBackends": {"refs": by_label}}});
        let everything = json!({"address": "10.0.0.3"});
        for (mode, networking, services) in [
            ("Exclusive", &limited, vec!["kv"]),
            ("Exclusive", &labelled, vec!["redis"]),
            ("Exclusive", &everything, vec![CALLER, "kv", "redis"]),
            ("Everywhere", &limited, vec![]),
        ] {
            let mut cp = control_plane(mode, networking);
            assert!(cp.connect_sidecar("default", CALLER, "10.0.0.3", at(2)));
            cp.set_sidecar_features("default", CALLER, &[BIND_OUTBOUNDS]);
            let expected: Vec<_> = services.into_iter().map(|service| (None, service.to_owned())).collect();
            assert_eq!(reached(&cp), expected, "{mode} {networking}");
        }
    }

    #[test]
    fn selectors_by_tag_lose_their_endpoints_at_3_0() {
        let mut cp = control_plane("Exclusive", &json!({"address": "10.0.0.3"}));
        let endpoints = |cp: &KumaCp| {
            cp.dataplanes().filter(|(mesh, _, dataplane)| cp.is_endpoint(mesh, dataplane)).count()
        };
        assert_eq!(endpoints(&cp), 3);
        cp.upgrade(EmulatedRelease::V3_0, at(2));
        assert_eq!(endpoints(&cp), 0);
    }
}
