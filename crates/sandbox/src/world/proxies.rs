//! Proxies of other kinds than sidecars in a demo: a gateway, a zone ingress behind a load balancer, and a zone egress. Their
//! tasks run throughout; the world's events are those of its services.

use super::scenario::{ScenarioService, deploy, role_name};
use crate::aws::Cloud;
use crate::control_planes::ControlPlanes;
use ecs_mesh_model::{Tags, Timestamp};

/// ECS services, with the type of their role where it is not that of a Dataplane.
const PROXIES: [(&str, Option<&str>); 3] =
    [("edge", None), ("zone-ingress", Some("ingress")), ("zone-egress", Some("egress"))];

/// The manifests of these services, as YAML.
pub const PROXY_MANIFESTS: &str = "---
apiVersion: ecs-mesh.dev/v1alpha1
kind: Workload
metadata: {name: edge}
spec:
  selector: {families: [edge]}
  service: edge
  proxy: gateway
  outbounds:
    - {service: demo-app, targetPort: 15000, listen: {port: 15000}}
---
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

/// Deploys the proxies, each with one task and its own role.
///
/// # Errors
/// The error of ECS or IAM.
pub fn deploy_proxies(cloud: &mut Cloud, now: Timestamp) -> Result<(), String> {
    for (name, role_type) in PROXIES {
        let service = ScenarioService::new(name, 15_000, 8_080, 1);
        deploy(cloud, &service, ControlPlanes::Kuma, now).map_err(|error| error.to_string())?;
        if let Some(role_type) = role_type {
            let tags = Tags::from([("kuma.io/type".to_owned(), role_type.to_owned())]);
            cloud.tag_role(&role_name(name), &tags, now).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_manifests::ManifestSources;

    #[test]
    fn manifests_of_the_proxies_are_valid() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("all.yaml"), PROXY_MANIFESTS).unwrap();
        let loaded = ManifestSources::new([directory.path().to_owned()]).load(None).into_loaded().unwrap();
        assert_eq!((loaded.errors.len(), loaded.set.workloads.len()), (0, PROXIES.len()));
        for (name, _) in PROXIES {
            assert!(loaded.set.workloads.contains_key(name), "{name}");
        }
    }
}
