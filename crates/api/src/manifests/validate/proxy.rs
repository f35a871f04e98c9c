//! Rules of a `Workload`'s proxy: its settings, and what a proxy of that kind cannot have.

use super::FindingCollector;
use crate::manifests::outbounds::reserved;
use crate::{GatewayType, ProxyKind, ProxyRole, Reach, WorkloadSpec, ZoneProxyKind, ZoneProxyScope};

pub(super) fn check(spec: &WorkloadSpec, report: &mut FindingCollector<'_>) {
    check_blocks(spec, report);
    match spec.proxy_role() {
        ProxyRole::Sidecar => {}
        ProxyRole::Gateway(kind) => {
            check_inbounds(spec, "a gateway", report);
            if kind == GatewayType::Builtin {
                check_outbounds(spec, "a built-in gateway, whose routes are those of a MeshGateway", report);
            }
        }
        ProxyRole::Zone(proxy) => {
            check_inbounds(spec, "a zone proxy, which listens on its own port", report);
            check_outbounds(spec, "a zone proxy, whose destinations the control plane knows", report);
            let block = match proxy.kind() {
                ZoneProxyKind::Ingress => "spec.zoneIngress",
                ZoneProxyKind::Egress => "spec.zoneEgress",
            };
            if let Some(user) = reserved(proxy.port) {
                report.add(format!("{block}.port"), format!("{} is {user}: choose another", proxy.port));
            }
            if proxy.advertised().is_some() && proxy.scope == Some(ZoneProxyScope::Mesh) {
                let message = "is not possible with scope: mesh, since a Dataplane has no such address: create a \
                               MeshZoneAddress with it, and leave it out";
                report.add(format!("{block}.advertised"), message);
            }
        }
    }
}

/// A block without its kind would have no effect.
fn check_blocks(spec: &WorkloadSpec, report: &mut FindingCollector<'_>) {
    let blocks = [
        (ProxyKind::Gateway, spec.gateway.is_some()),
        (ProxyKind::ZoneIngress, spec.zone_ingress.is_some()),
        (ProxyKind::ZoneEgress, spec.zone_egress.is_some()),
    ];
    for (kind, is_given) in blocks {
        if is_given && kind != spec.proxy {
            let (block, proxy) = (kind.as_str(), spec.proxy.as_str());
            let message =
                format!("has no effect with proxy: {proxy}: write proxy: {block}, or delete the block");
            report.add(format!("spec.{block}"), message);
        }
    }
}

/// The server refuses inbounds of a gateway. (`validateDataplane` in `dataplane_validator.go` of 2.14 and 3.0.)
fn check_inbounds(spec: &WorkloadSpec, proxy: &str, report: &mut FindingCollector<'_>) {
    if !spec.inbounds.is_empty() {
        report.add("spec.inbounds", format!("are not possible for {proxy}: delete them"));
    }
}

fn check_outbounds(spec: &WorkloadSpec, proxy: &str, report: &mut FindingCollector<'_>) {
    if spec.outbounds.as_ref().is_some_and(|outbounds| !outbounds.is_empty()) {
        report.add("spec.outbounds", format!("are not possible for {proxy}: delete them"));
    }
    if spec.reach == Reach::BindOutbounds {
        report.add("spec.reach", format!("bindOutbounds is not possible for {proxy}: leave the field out"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use serde_json::{Value, json};

    use crate::manifests::{ManifestScope, assemble, read_file};

    /// The fields that validation rejects.
    fn rejected(spec: &Value) -> Vec<String> {
        let mut spec = spec.clone();
        spec["selector"] = json!({"services": ["a"]});
        spec["service"] = "a".into();
        let document = json!({"apiVersion": "ecs-mesh.dev/v1alpha1", "kind": "Workload", "metadata": {"name": "a"}, "spec": spec});
        let file: Arc<Path> = Path::new("a.json").into();
        let (manifests, errors) = read_file(&file, &document.to_string());
        let assembled = assemble(manifests, ManifestScope::Partial).errors;
        errors.iter().chain(&assembled).map(|finding| finding.path.clone()).collect()
    }

    #[test]
    fn each_kind_of_proxy_has_its_own_settings() {
        let inbounds = json!([{"containerPort": 5000, "port": 15000}]);
        let outbounds = json!([{"service": "kv", "targetPort": 15050, "listen": {"port": 15050}}]);
        let nlb = json!({"address": "nlb-1.elb.eu-west-1.amazonaws.com", "port": 443});
        for (spec, fields) in [
            (json!({"proxy": "gateway"}), vec![]),
            (json!({"proxy": "gateway", "outbounds": outbounds}), vec![]),
            (json!({"proxy": "gateway", "gateway": {"type": "builtin"}}), vec![]),
            (json!({"proxy": "zoneIngress"}), vec![]),
            (json!({"proxy": "zoneIngress", "zoneIngress": {"port": 10001, "advertised": nlb}}), vec![]),
            (json!({"proxy": "zoneEgress", "zoneEgress": {"scope": "mesh"}}), vec![]),
            (json!({"gateway": {}}), vec!["spec.gateway"]),
            (json!({"proxy": "zoneEgress", "zoneIngress": {}}), vec!["spec.zoneIngress"]),
            (json!({"proxy": "gateway", "inbounds": inbounds}), vec!["spec.inbounds"]),
            (json!({"proxy": "zoneIngress", "inbounds": inbounds}), vec!["spec.inbounds"]),
            (json!({"proxy": "zoneEgress", "outbounds": outbounds}), vec!["spec.outbounds"]),
            (
                json!({"proxy": "gateway", "gateway": {"type": "builtin"}, "outbounds": outbounds}),
                vec!["spec.outbounds"],
            ),
            (json!({"proxy": "zoneEgress", "reach": "bindOutbounds"}), vec!["spec.reach"]),
            (json!({"proxy": "zoneIngress", "zoneIngress": {"port": 9901}}), vec!["spec.zoneIngress.port"]),
            (
                json!({"proxy": "zoneIngress", "zoneIngress": {"advertised": nlb, "scope": "mesh"}}),
                vec!["spec.zoneIngress.advertised"],
            ),
            (
                json!({"proxy": "zoneIngress", "zoneIngress": {"advertised": {"address": "0.0.0.0", "port": 1}}}),
                vec!["spec.zoneIngress.advertised.address"],
            ),
            (json!({"proxy": "ingress"}), vec!["spec.proxy"]),
        ] {
            assert_eq!(rejected(&spec), fields, "{spec}");
        }
    }
}
