//! Manifests for the world's control planes and services.

use std::fmt::Write as _;

use super::{BOUND_SERVICES, MESH, ScenarioService};
use ecs_mesh_api::{ZoneProxyForm, ZoneProxyKind};

/// Settings of the generated manifests.
#[derive(Clone, Debug)]
pub struct ManifestOptions {
    /// The address of Kuma, if there is one.
    pub kuma: Option<String>,
    /// Consul, if there is one.
    pub consul: Option<ConsulManifestOptions>,
    /// The cluster's ARN.
    pub cluster: String,
    /// `sweepInterval` of the bindings.
    pub sweep_interval: &'static str,
    /// `graceAge` of the bindings.
    pub grace_age: &'static str,
    /// `drain` of the bindings.
    pub drain: &'static str,
    /// `settle` of the bindings.
    pub settle: &'static str,
    /// `recheck` of the role tags.
    pub recheck: &'static str,
    /// `maxHold` of held deployments; `None` if deployments are not held.
    pub hold: Option<&'static str>,
    /// `{taskId}` or `{hostname}`.
    pub dataplane_name: &'static str,
}

/// Settings of the Consul control plane.
#[derive(Clone, Debug)]
pub struct ConsulManifestOptions {
    /// Its address.
    pub address: String,
    /// The field of `spec.consul` with the token's source, such as `tokenEnv: CONSUL_HTTP_TOKEN`.
    pub token: String,
    /// `onRevoked` of the role tags, if not the default.
    pub on_revoked: Option<&'static str>,
}

/// The manifests of these services, as YAML.
pub fn manifests(options: &ManifestOptions, services: &[ScenarioService]) -> String {
    let mut documents = Vec::new();
    if let Some(address) = &options.kuma {
        documents.extend(kuma_manifests(options, address, services));
    }
    if let Some(consul) = &options.consul {
        documents.extend(consul_manifests(options, consul));
    }
    documents.join("---\n")
}

/// A `ConsulAuth` manifest that adopts the world's ACL objects. `aws` is the endpoint that verifies logins.
pub fn consul_auth(cluster: &str, aws: &str) -> String {
    let mut parts = cluster.split(':');
    let (partition, account) = (parts.nth(1).unwrap_or("aws"), parts.nth(2).unwrap_or_default());
    format!(
        "---
apiVersion: ecs-mesh.dev/v1alpha1
kind: ConsulAuth
metadata: {{name: sandbox}}
spec:
  controlPlane: consul
  adopt: [\"*\"]
  serviceTokens:
    boundPrincipals: [\"arn:{partition}:iam::{account}:role/consul-ecs/*\"]
    gateways: [mesh-gateway]
    stsEndpoint: \"{aws}\"
    iamEndpoint: \"{aws}\"
"
    )
}

fn consul_manifests(options: &ManifestOptions, consul: &ConsulManifestOptions) -> Vec<String> {
    let ManifestOptions { cluster, sweep_interval, grace_age, settle, recheck, .. } = options;
    let ConsulManifestOptions { address, token, on_revoked } = consul;
    let on_revoked = on_revoked.map(|value| format!(", onRevoked: {value}")).unwrap_or_default();
    let connection = format!("{{address: \"{address}\", {token}}}");
    let control_plane = format!(
        "apiVersion: ecs-mesh.dev/v1alpha1
kind: ControlPlane
metadata: {{name: consul}}
spec:
  type: consul
  consul: {connection}
"
    );
    let binding = format!(
        "apiVersion: ecs-mesh.dev/v1alpha1
kind: MeshBinding
metadata: {{name: sandbox-consul}}
spec:
  controlPlane: consul
  selector: {{clusters: [\"{cluster}\"]}}
  roleTags: {{mode: enforce, recheck: {recheck}{on_revoked}}}
  cleanup: {{sweepInterval: {sweep_interval}, graceAge: {grace_age}, settle: {settle}}}
"
    );
    vec![control_plane, binding]
}

fn kuma_manifests(options: &ManifestOptions, address: &str, services: &[ScenarioService]) -> Vec<String> {
    let ManifestOptions {
        cluster, sweep_interval, grace_age, drain, settle, recheck, dataplane_name, ..
    } = options;
    let deployments = options
        .hold
        .map(|hold| format!("  deployments: {{hold: true, maxHold: {hold}}}\n"))
        .unwrap_or_default();
    let shared = format!(
        "apiVersion: ecs-mesh.dev/v1alpha1
kind: ControlPlane
metadata: {{name: kuma}}
spec:
  type: kuma
  kuma: {{address: \"{address}\"}}
---
apiVersion: ecs-mesh.dev/v1alpha1
kind: MeshBinding
metadata: {{name: sandbox}}
spec:
  controlPlane: kuma
  mesh: {MESH}
  selector: {{clusters: [\"{cluster}\"]}}
  roleTags: {{mode: enforce, recheck: {recheck}}}
  dataplaneName: \"{dataplane_name}\"
  cleanup: {{sweepInterval: {sweep_interval}, graceAge: {grace_age}, drain: {drain}, settle: {settle}}}
{deployments}---
apiVersion: ecs-mesh.dev/v1alpha1
kind: OutboundList
metadata: {{name: redis-users}}
spec:
  workloads: [demo-app, \"svc-*\"]
  outbounds:
    - {{service: redis, targetPort: 16379, listen: {{port: 6379}}}}
"
    );
    let mut documents = vec![shared];
    for ScenarioService { name, port, app_port, template_operator, binds_outbounds, zone_proxy, .. } in
        services
    {
        if let Some((kind, form)) = zone_proxy {
            documents.push(zone_proxy_manifest(name, *kind, *form));
            continue;
        }
        let mut text = format!(
            "apiVersion: ecs-mesh.dev/v1alpha1
kind: Workload
metadata: {{name: {name}}}
spec:
  selector: {{families: [{name}]}}
  service: {name}
  inbounds:
    - {{name: main, containerPort: {app_port}, port: {port}, protocol: http}}
"
        );
        if name == "demo-app" {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "  outbounds:\n    - {{service: kv, targetPort: 15050, listen: {{port: 15051}}}}"
            );
        }
        if *binds_outbounds {
            text += "  reach: bindOutbounds\n  outbounds:\n";
            text.extend(BOUND_SERVICES.map(|service| format!("    - {{service: {service}}}\n")));
        }
        if template_operator.is_some() {
            text += "  dataplanes: sidecar\n";
        }
        documents.push(text);
    }
    documents
}

fn zone_proxy_manifest(name: &str, kind: ZoneProxyKind, form: ZoneProxyForm) -> String {
    let (proxy, advertised) = match kind {
        ZoneProxyKind::Ingress => {
            ("zoneIngress", "advertised: {address: mesh-0a1b2c3d.elb.eu-west-1.amazonaws.com, port: 10001}")
        }
        ZoneProxyKind::Egress => ("zoneEgress", "port: 10002"),
    };
    let settings = match form {
        ZoneProxyForm::Resource => advertised,
        ZoneProxyForm::Listener => "scope: mesh",
    };
    format!(
        "apiVersion: ecs-mesh.dev/v1alpha1
kind: Workload
metadata: {{name: {name}}}
spec:
  selector: {{families: [{name}]}}
  service: {name}
  proxy: {proxy}
  {proxy}: {{{settings}}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_manifests::ManifestSources;

    #[test]
    fn manifests_with_consul_auth_are_valid() {
        const CLUSTER: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/sandbox";
        let aws = "http://127.0.0.1:1";
        let token = "tokenEnv: T".to_owned();
        let options = ManifestOptions {
            kuma: None,
            consul: Some(ConsulManifestOptions { address: aws.to_owned(), token, on_revoked: None }),
            cluster: CLUSTER.to_owned(),
            sweep_interval: "10s",
            grace_age: "20s",
            drain: "1s",
            settle: "1s",
            recheck: "30s",
            hold: None,
            dataplane_name: "{taskId}",
        };
        let directory = tempfile::tempdir().unwrap();
        let text = manifests(&options, &[]) + &consul_auth(CLUSTER, aws);
        std::fs::write(directory.path().join("all.yaml"), text).unwrap();
        let loaded = ManifestSources::new([directory.path().to_owned()]).load(None).into_loaded().unwrap();
        assert_eq!(loaded.errors, []);
        let auth = &loaded.set.consul_auths["sandbox"];
        let bound = &auth.service_tokens.as_ref().unwrap().bound_principals;
        assert_eq!(bound.as_slice(), ["arn:aws:iam::111122223333:role/consul-ecs/*"]);
    }
}
