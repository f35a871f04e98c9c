//! Proxies of other kinds than sidecars in a demo: a gateway, a zone ingress behind a load balancer, and a zone egress. Their
//! tasks run throughout, until zone proxies are moved to the form of 3.x; the world's events are those of its services.

use serde_json::json;

use super::scenario::{CLUSTER, MESH, ScenarioService, deploy, role_name};
use crate::aws::Cloud;
use crate::control_planes::ControlPlanes;
use crate::kuma::KumaCp;
use ecs_mesh_model::{Tags, Timestamp};

/// The ECS service of the gateway.
const GATEWAY: &str = "edge";

const GATEWAY_MANIFEST: &str = "---
apiVersion: ecs-mesh.dev/v1alpha1
kind: Workload
metadata: {name: edge}
spec:
  selector: {families: [edge]}
  service: edge
  proxy: gateway
  outbounds:
    - {service: demo-app, targetPort: 15000, listen: {port: 15000}}
";

const RESOURCE_MANIFESTS: &str = "---
apiVersion: ecs-mesh.dev/v1alpha1
kind: Workload
metadata: {name: zone-ingress}
spec:
  selector: {families: [zone-ingress]}
  service: zone-ingress
  proxy: zoneIngress
  zoneIngress:
    advertised: {address: mesh-0a1b2c3d.elb.eu-west-1.amazonaws.com, port: 10001}
---
apiVersion: ecs-mesh.dev/v1alpha1
kind: Workload
metadata: {name: zone-egress}
spec:
  selector: {families: [zone-egress]}
  service: zone-egress
  proxy: zoneEgress
";

const LISTENER_MANIFESTS: &str = "---
apiVersion: ecs-mesh.dev/v1alpha1
kind: Workload
metadata: {name: mesh-ingress}
spec:
  selector: {families: [mesh-ingress]}
  service: mesh-ingress
  proxy: zoneIngress
  zoneIngress: {scope: mesh}
---
apiVersion: ecs-mesh.dev/v1alpha1
kind: Workload
metadata: {name: mesh-egress}
spec:
  selector: {families: [mesh-egress]}
  service: mesh-egress
  proxy: zoneEgress
  zoneEgress: {scope: mesh}
";

/// The form in which a zone proxy is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneProxyGeneration {
    /// A `ZoneIngress` or `ZoneEgress` of the zone: 2.x.
    Resources,
    /// A Dataplane with a listener: 2.14 in meshes whose services are MeshServices, and 3.x.
    Listeners,
}

impl ZoneProxyGeneration {
    /// The ECS services of ingress and egress.
    pub fn services(self) -> [&'static str; 2] {
        match self {
            Self::Resources => ["zone-ingress", "zone-egress"],
            Self::Listeners => ["mesh-ingress", "mesh-egress"],
        }
    }

    fn manifests(self) -> &'static str {
        match self {
            Self::Resources => RESOURCE_MANIFESTS,
            Self::Listeners => LISTENER_MANIFESTS,
        }
    }
}

/// The manifests of the gateway and of these zone proxies, as YAML.
pub fn proxy_manifests(zone_proxies: &[ZoneProxyGeneration]) -> String {
    let zone_proxies = zone_proxies.iter().map(|kind| kind.manifests());
    std::iter::once(GATEWAY_MANIFEST).chain(zone_proxies).collect()
}

/// Deploys the gateway, with one task and a role of its own.
///
/// # Errors
/// The error of ECS or IAM.
pub fn deploy_gateway(cloud: &mut Cloud, now: Timestamp) -> Result<(), String> {
    deploy_proxy(cloud, GATEWAY, None, now)
}

/// Deploys zone proxies, each with one task and a role of its own. Where they are Dataplanes, the mesh gets the address of the
/// load balancer.
///
/// # Errors
/// The error of ECS, IAM or the control plane.
pub fn deploy_zone_proxies(
    kind: ZoneProxyGeneration,
    cloud: &mut Cloud,
    kuma: &mut KumaCp,
    now: Timestamp,
) -> Result<(), String> {
    let [ingress, egress] = kind.services();
    let types = match kind {
        ZoneProxyGeneration::Resources => [Some("ingress"), Some("egress")],
        // They authenticate as Dataplanes.
        ZoneProxyGeneration::Listeners => [None, None],
    };
    deploy_proxy(cloud, ingress, types[0], now)?;
    deploy_proxy(cloud, egress, types[1], now)?;
    if kind == ZoneProxyGeneration::Listeners {
        let address = json!({
            "type": "MeshZoneAddress", "mesh": MESH, "name": ingress,
            "labels": {"kuma.io/origin": "zone"},
            "spec": {"address": "203.0.113.10", "port": 10_001},
        });
        kuma.insert_foreign(MESH, ingress, &address, now)?;
    }
    Ok(())
}

/// Deletes the ECS services of zone proxies, whose tasks then stop.
///
/// # Errors
/// The error of ECS.
pub fn delete_zone_proxies(
    kind: ZoneProxyGeneration,
    cloud: &mut Cloud,
    now: Timestamp,
) -> Result<(), String> {
    for service in kind.services() {
        cloud.delete_service(CLUSTER, service, true, now).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn deploy_proxy(
    cloud: &mut Cloud,
    name: &str,
    role_type: Option<&str>,
    now: Timestamp,
) -> Result<(), String> {
    let service = ScenarioService::new(name, 15_000, 8_080, 1);
    deploy(cloud, &service, ControlPlanes::Kuma, now).map_err(|error| error.to_string())?;
    if let Some(role_type) = role_type {
        let tags = Tags::from([("kuma.io/type".to_owned(), role_type.to_owned())]);
        cloud.tag_role(&role_name(name), &tags, now).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_manifests::ManifestSources;

    #[test]
    fn manifests_of_the_proxies_are_valid() {
        let both = [ZoneProxyGeneration::Resources, ZoneProxyGeneration::Listeners];
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("all.yaml"), proxy_manifests(&both)).unwrap();
        let loaded = ManifestSources::new([directory.path().to_owned()]).load(None).into_loaded().unwrap();
        let names: Vec<&str> = loaded.set.workloads.keys().map(|name| &**name).collect();
        assert_eq!(loaded.errors, []);
        assert_eq!(names, ["edge", "mesh-egress", "mesh-ingress", "zone-egress", "zone-ingress"]);
    }
}
