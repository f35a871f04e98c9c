//! Blockers of an upgrade: resources that the target release refuses, drops in part, or serves no longer.
//!
//! The rules are those of "Upgrade to `3.0.0`" in <https://github.com/kumahq/kuma/blob/master/UPGRADE.md>; the features
//! come from the table of releases.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::capabilities::{KumaVersion, ServicesMode};
use super::dataplane::{self, PROTOCOL_TAG, WORKLOAD_LABEL};
use super::labels::{self, OPERATOR_LABEL};
use super::zone_proxy;
use ecs_mesh_api::limits::DNS_LABEL_RULE;
use ecs_mesh_api::manifests::is_dns_label;
use ecs_mesh_api::{KumaFeature, KumaRelease};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_core::plan::report::{UpgradeBlocker, UpgradeBlockerKind, UpgradeCheck};

/// The names that are shown of one blocker.
const MAX_EXAMPLES: usize = 3;

/// Collects what blocks an upgrade from the resources of a control plane.
pub(super) struct UpgradeScan<'a> {
    target: KumaRelease,
    /// The operator whose Dataplanes the plan itself is about.
    operator: &'a str,
    /// Registrations with the operator's labels that it does not write; `None`: none is known to be written by it.
    unmanaged: Option<&'a BTreeSet<RegistrationId>>,
    found: BTreeMap<BlockerKey, BTreeSet<String>>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct BlockerKey {
    kind: UpgradeBlockerKind,
    mesh: Option<String>,
    resource: &'static str,
    reason: String,
    fix: &'static str,
}

impl<'a> UpgradeScan<'a> {
    pub(super) fn new(
        target: KumaRelease,
        operator: &'a str,
        unmanaged: Option<&'a BTreeSet<RegistrationId>>,
    ) -> Self {
        Self { target, operator, unmanaged, found: BTreeMap::new() }
    }

    /// The result for a server of this version.
    pub(super) fn finish(self, current: &KumaVersion) -> UpgradeCheck {
        let blockers = self.found.into_iter().map(|(key, names)| UpgradeBlocker {
            kind: key.kind,
            mesh: key.mesh,
            resource: key.resource,
            count: names.len(),
            examples: names.into_iter().take(MAX_EXAMPLES).collect(),
            reason: key.reason,
            fix: key.fix.to_owned(),
        });
        UpgradeCheck {
            current_version: current.text.to_string(),
            target_version: self.target.to_string(),
            blockers: blockers.collect(),
        }
    }

    fn lacks(&self, feature: KumaFeature) -> bool {
        !self.target.has(feature)
    }

    fn add(
        &mut self,
        (kind, resource): (UpgradeBlockerKind, &'static str),
        (mesh, name): (&str, &str),
        reason: String,
        fix: &'static str,
    ) {
        let mesh = (!mesh.is_empty()).then(|| mesh.to_owned());
        let key = BlockerKey { kind, mesh, resource, reason, fix };
        self.found.entry(key).or_default().insert(name.to_owned());
    }

    /// A Mesh. `has_identity`: whether it has a MeshIdentity.
    pub(super) fn mesh(&mut self, mesh: &Value, has_identity: bool) {
        let (name, target) = (text(mesh, "name"), self.target);
        if self.lacks(KumaFeature::AnyNames) && !is_dns_label(name) {
            let fix = "create a Mesh of an allowed name, and move its tasks there by MeshBinding.spec.mesh";
            self.add((UpgradeBlockerKind::Name, "Mesh"), ("", name), name_rule(target), fix);
        }
        if self.lacks(KumaFeature::TagServices) && ServicesMode::of(mesh) != ServicesMode::Exclusive {
            let reason = format!(
                "its services are tags, which {target} does not have: clients lose their outbounds until the operator has \
                 replaced them"
            );
            let fix =
                "set meshServices.mode to Everywhere and then, once all MeshServices exist, to Exclusive";
            self.add((UpgradeBlockerKind::MeshServicesMode, "Mesh"), ("", name), reason, fix);
        }
        let has_mtls = !mesh.pointer("/mtls/enabledBackend").is_none_or(|name| name == "" || name.is_null());
        if self.lacks(KumaFeature::MeshMtls) && has_mtls && !has_identity {
            let reason = format!("{target} ignores Mesh.mtls, and the mesh has no MeshIdentity");
            let fix = "create a MeshIdentity, and a MeshTrust for it";
            self.add((UpgradeBlockerKind::MeshMtls, "Mesh"), ("", name), reason, fix);
        }
    }

    /// A `ZoneIngress` or `ZoneEgress`. One of another zone is removed by an upgrade of its own zone.
    pub(super) fn zone_proxy(&mut self, resource: &'static str, proxy: &Value) {
        if self.lacks(KumaFeature::ZoneProxyResources) && !zone_proxy::is_of_other_zone(proxy) {
            let reason =
                format!("{} has no such type: a zone proxy is a Dataplane with listeners", self.target);
            let fix = "run its proxy by a Workload with scope: mesh, and replace its advertised address by a MeshZoneAddress";
            self.add((UpgradeBlockerKind::ZoneProxy, resource), ("", text(proxy, "name")), reason, fix);
        }
    }

    /// A MeshService.
    pub(super) fn mesh_service(&mut self, service: &Value) {
        let (mesh, name, target) = (text(service, "mesh"), text(service, "name"), self.target);
        let resource = "MeshService";
        if self.lacks(KumaFeature::AnyNames) && !is_dns_label(name) {
            let fix = "rename it, or for a generated one set `workload` in the Workload of that service";
            self.add((UpgradeBlockerKind::Name, resource), (mesh, name), name_rule(target), fix);
        }
        let has_tags = service.pointer("/spec/selector/dataplaneTags").is_some_and(Value::is_object);
        if self.lacks(KumaFeature::TagServices) && has_tags {
            let reason = format!(
                "{target} drops the selector dataplaneTags, and gives a generated MeshService another one only when its \
                 ports change: it would have no endpoints"
            );
            let fix = "replace it by dataplaneLabels: {matchLabels: {kuma.io/workload: WORKLOAD}}";
            self.add((UpgradeBlockerKind::MeshServiceSelector, resource), (mesh, name), reason, fix);
        }
    }

    /// A Dataplane of any owner.
    pub(super) fn dataplane(&mut self, stored: &Value) {
        let at = (text(stored, "mesh"), text(stored, "name"));
        let target = self.target;
        let gateway = stored.pointer("/networking/gateway/type").and_then(Value::as_str);
        if self.lacks(KumaFeature::BuiltinGateway) && gateway == Some("BUILTIN") {
            let reason = format!("{target} cannot read it, nor any list of Dataplanes that has it");
            let fix = "replace it by a delegated gateway, and delete its Dataplane";
            self.add((UpgradeBlockerKind::BuiltinGateway, "Dataplane"), at, reason, fix);
        }
        if self.lacks(KumaFeature::InboundTags) && has_tag_protocol(stored) {
            let reason = format!("{target} ignores the tag kuma.io/protocol, and serves the inbound as TCP");
            let fix = "set networking.inbound[].protocol; 2.14 is the first version that keeps it";
            self.add((UpgradeBlockerKind::TagProtocol, "Dataplane"), at, reason, fix);
        }
        // The plan has the changes of those that the operator writes.
        let is_unmanaged =
            || self.unmanaged.is_none_or(|ids| ids.iter().any(|id| (id.mesh.as_str(), &*id.name) == at));
        if labels::label(stored, OPERATOR_LABEL) != Some(self.operator) || is_unmanaged() {
            self.foreign_dataplane(stored, at);
        }
    }

    /// The values that the target refuses, with what to do: an owner that writes the Dataplane again gets an error.
    fn refused(&self, stored: &Value) -> BTreeSet<(String, &'static str)> {
        let mut found = BTreeSet::new();
        let label = labels::label(stored, WORKLOAD_LABEL).filter(|label| !is_dns_label(label));
        if let Some(label) = label.filter(|_| self.target.has(KumaFeature::WorkloadLabel)) {
            let fix = "set the label kuma.io/workload to an RFC 1035 label";
            found.insert((format!("labels[\"kuma.io/workload\"] {label}"), fix));
        }
        let mut inbounds = list_of(stored, "/networking/inbound");
        if self.lacks(KumaFeature::KafkaProtocol) && inbounds.any(|inbound| inbound["protocol"] == "kafka") {
            found.insert(("networking.inbound[].protocol kafka".to_owned(), "set the protocol to tcp"));
        }
        let mut outbounds = list_of(stored, "/networking/outbound");
        if self.lacks(KumaFeature::OutboundTags)
            && outbounds
                .any(|outbound| outbound.get("tags").is_some() && outbound.get("backendRef").is_none())
        {
            let fix = "name the service by backendRef, in a mesh with meshServices.mode Exclusive";
            found.insert(("networking.outbound[] without backendRef".to_owned(), fix));
        }
        found
    }

    fn foreign_dataplane(&mut self, stored: &Value, at: (&str, &str)) {
        let target = self.target;
        let has_label = labels::label(stored, WORKLOAD_LABEL).is_some();
        if self.lacks(KumaFeature::InboundTags) && !has_label && dataplane::services(stored).next().is_some()
        {
            let reason = format!("it names its service by tags alone: in {target} it belongs to no service");
            let fix = "set the label kuma.io/workload (2.13 or later)";
            self.add((UpgradeBlockerKind::NoWorkloadLabel, "Dataplane"), at, reason, fix);
        }
        for (field, fix) in self.refused(stored) {
            let reason = format!("{target} refuses {field}: a sidecar that registers it does not start");
            self.add((UpgradeBlockerKind::RefusedField, "Dataplane"), at, reason, fix);
        }
        // Tags have reasons of their own.
        let is_other = |path: &String| !path.ends_with("].tags");
        let removed: BTreeSet<String> = target
            .unknown_fields(stored)
            .into_iter()
            .filter(is_other)
            .map(|path| without_index(&path))
            .collect();
        for path in removed {
            let reason = format!("{target} drops {path}");
            let fix = "use what replaces the field: backendRef, reachableBackends or a MeshZoneAddress";
            self.add((UpgradeBlockerKind::RemovedField, "Dataplane"), at, reason, fix);
        }
    }
}

fn list_of<'v>(stored: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    stored.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn name_rule(target: KumaRelease) -> String {
    format!("the name is not allowed in {target} ({DNS_LABEL_RULE})")
}

fn text<'v>(resource: &'v Value, field: &str) -> &'v str {
    resource.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Whether an inbound has a protocol other than TCP as a tag alone.
fn has_tag_protocol(stored: &Value) -> bool {
    let inbounds = stored.pointer("/networking/inbound").and_then(Value::as_array);
    inbounds.into_iter().flatten().any(|inbound| {
        let tag = inbound.get("tags").and_then(|tags| tags.get(PROTOCOL_TAG)).and_then(Value::as_str);
        inbound.get("protocol").is_none() && tag.is_some_and(|protocol| protocol != "tcp")
    })
}

/// A path of a field of any item: `outbound[]` for `outbound[3]`.
fn without_index(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut is_index = false;
    for c in path.chars() {
        is_index &= c != ']';
        if !is_index {
            out.push(c);
        }
        is_index |= c == '[';
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use ecs_mesh_model::MeshName;

    fn blockers(target: &str, scan: impl Fn(&mut UpgradeScan<'_>)) -> Vec<(UpgradeBlockerKind, String)> {
        let template = RegistrationId { mesh: MeshName::parse("default").unwrap(), name: "template".into() };
        let unmanaged = [template].into();
        let mut upgrade = UpgradeScan::new(KumaRelease::of_version(target).unwrap(), "op", Some(&unmanaged));
        scan(&mut upgrade);
        let index = json!({"product": "Kuma", "version": "2.14.3"});
        let check = upgrade.finish(&KumaVersion::read(&index).unwrap());
        assert_eq!((&*check.current_version, &*check.target_version), ("Kuma 2.14.3", target));
        check.blockers.into_iter().map(|blocker| (blocker.kind, blocker.examples.join(","))).collect()
    }

    fn expected(kind: UpgradeBlockerKind, name: &str) -> Vec<(UpgradeBlockerKind, String)> {
        vec![(kind, name.to_owned())]
    }

    #[test]
    fn each_kind_of_dataplane_blocks_3_0_and_no_2_x() {
        use UpgradeBlockerKind::{BuiltinGateway, NoWorkloadLabel, RefusedField, RemovedField, TagProtocol};
        let cases = [
            (json!({"gateway": {"type": "BUILTIN", "tags": {}}}), "op", BuiltinGateway),
            (json!({"inbound": [{"tags": {"kuma.io/protocol": "http"}}]}), "op", TagProtocol),
            (json!({"inbound": [{"tags": {"kuma.io/service": "a"}}]}), "other", NoWorkloadLabel),
            (json!({"advertisedAddress": "10.0.0.1"}), "other", RemovedField),
            (json!({"outbound": [{"tags": {}}, {"tags": {}}]}), "other", RefusedField),
            (json!({"inbound": [{"protocol": "kafka"}]}), "other", RefusedField),
        ];
        for (networking, operator, kind) in cases {
            let stored = json!({"mesh": "default", "name": "a", "networking": networking,
                "labels": {"ecs-mesh.dev/operator": operator}});
            assert_eq!(blockers("3.0", |scan| scan.dataplane(&stored)), expected(kind, "a"), "{stored}");
            assert_eq!(blockers("2.14", |scan| scan.dataplane(&stored)), [], "{stored}");
        }
    }

    #[test]
    fn dataplane_of_both_dialects_blocks_nothing() {
        let inbound =
            json!({"protocol": "http", "tags": {"kuma.io/service": "a", "kuma.io/protocol": "http"}});
        let stored = json!({"mesh": "default", "name": "a", "labels": {"kuma.io/workload": "a"},
            "networking": {"inbound": [inbound, {"tags": {"kuma.io/protocol": "tcp"}}],
                "outbound": [{"backendRef": {}}], "gateway": {"tags": {}}}});
        assert_eq!(blockers("3.0", |scan| scan.dataplane(&stored)), []);
    }

    #[test]
    fn mesh_blocks_by_name_mode_and_mtls() {
        use UpgradeBlockerKind::{MeshMtls, MeshServicesMode, Name};
        let good = json!({"name": "m", "meshServices": {"mode": "Exclusive"}});
        let with = |field: &str, value: Value| {
            let mut mesh = good.clone();
            mesh[field] = value;
            mesh
        };
        let mtls = json!({"enabledBackend": "ca", "backends": []});
        for (mesh, has_identity, wanted) in [
            (good.clone(), false, vec![]),
            (with("name", json!("1.m")), false, expected(Name, "1.m")),
            (with("meshServices", json!({"mode": "Everywhere"})), false, expected(MeshServicesMode, "m")),
            (with("mtls", mtls.clone()), false, expected(MeshMtls, "m")),
            (with("mtls", mtls), true, vec![]),
            (with("mtls", json!({"backends": []})), false, vec![]),
        ] {
            assert_eq!(blockers("3.0", |scan| scan.mesh(&mesh, has_identity)), wanted, "{mesh}");
        }
    }

    #[test]
    fn labelled_template_blocks_as_a_foreign_dataplane_does() {
        let stored = |name: &str| {
            json!({"mesh": "default", "name": name, "labels": {"ecs-mesh.dev/operator": "op"},
                "networking": {"inbound": [{"tags": {"kuma.io/service": "a"}}]}})
        };
        let wanted = expected(UpgradeBlockerKind::NoWorkloadLabel, "template");
        assert_eq!(blockers("3.0", |scan| scan.dataplane(&stored("template"))), wanted);
        assert_eq!(blockers("3.0", |scan| scan.dataplane(&stored("rendered"))), [], "the plan changes it");
    }

    #[test]
    fn template_with_a_refused_label_blocks() {
        let stored = json!({"mesh": "default", "name": "template",
            "labels": {"ecs-mesh.dev/operator": "op", "kuma.io/workload": "A_b"}, "networking": {}});
        let wanted = expected(UpgradeBlockerKind::RefusedField, "template");
        assert_eq!(blockers("2.14", |scan| scan.dataplane(&stored)), wanted);
        assert_eq!(blockers("2.12", |scan| scan.dataplane(&stored)), []);
    }

    /// An audit knows neither the operator nor what it writes.
    #[test]
    fn every_template_blocks_where_no_owner_is_known() {
        let mut scan = UpgradeScan::new(KumaRelease::new(3, 0), "op", None);
        scan.dataplane(&json!({"mesh": "default", "name": "a", "labels": {"ecs-mesh.dev/operator": "op"},
            "networking": {"inbound": [{"protocol": "kafka"}]}}));
        let index = json!({"product": "Kuma", "version": "2.14.3"});
        let check = scan.finish(&KumaVersion::read(&index).unwrap());
        assert_eq!(check.blockers[0].kind, UpgradeBlockerKind::RefusedField);
        assert!(check.blockers[0].reason.contains("protocol kafka"), "{check:?}");
    }

    #[test]
    fn zone_proxy_of_another_zone_blocks_nothing() {
        for (origin, wanted) in
            [("zone", expected(UpgradeBlockerKind::ZoneProxy, "zi")), ("global", Vec::new())]
        {
            let proxy = json!({"name": "zi", "labels": {"kuma.io/origin": origin}});
            assert_eq!(blockers("3.0", |scan| scan.zone_proxy("ZoneIngress", &proxy)), wanted, "{origin}");
        }
    }

    #[test]
    fn resources_of_one_reason_are_counted_with_examples() {
        let unmanaged = BTreeSet::new();
        let mut scan = UpgradeScan::new(KumaRelease::new(3, 0), "op", Some(&unmanaged));
        for name in ["d", "c", "b", "a"] {
            scan.mesh_service(
                &json!({"mesh": "m", "name": name, "spec": {"selector": {"dataplaneTags": {}}}}),
            );
        }
        scan.mesh_service(&json!({"mesh": "m", "name": "e", "spec": {"selector": {"dataplaneLabels": {}}}}));
        let index = json!({"product": "Kuma", "version": "2.14.3"});
        let check = scan.finish(&KumaVersion::read(&index).unwrap());
        let [blocker] = &check.blockers[..] else { panic!("{check:?}") };
        assert_eq!((blocker.count, blocker.mesh.as_deref()), (4, Some("m")));
        assert_eq!(blocker.examples, ["a", "b", "c"]);
    }
}
