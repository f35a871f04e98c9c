//! Changes between the releases of Kuma, in one table. Kong Mesh has the numbers of the Kuma that it contains.
//!
//! The rows are read from `dataplane.proto`, the Dataplane validator and `UPGRADE.md` of each release in
//! <https://github.com/kumahq/kuma>, and were tried with running servers of 2.14 and 3.0.
//!
//! ```
//! use ecs_mesh_api::{ApiDialect, KumaFeature, KumaRelease};
//! use serde_json::json;
//!
//! let release = KumaRelease::new(3, 0);
//! assert_eq!(release.dialect(), Some(ApiDialect::V3));
//! assert!(!release.has(KumaFeature::InboundTags));
//!
//! let body = json!({"networking": {"inbound": [{"port": 15000, "tags": {"kuma.io/service": "web"}}]}});
//! assert_eq!(release.unknown_fields(&body), ["networking.inbound[0].tags"]);
//! ```

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Protocol, ZoneProxyForm};

/// Formats of Dataplanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ApiDialect {
    /// Services are tags, as in 2.7 to 2.14.
    #[serde(rename = "2.x")]
    V2,
    /// Services are workload labels and MeshServices, as in 3.0.
    #[serde(rename = "3.x")]
    V3,
}

impl ApiDialect {
    /// The value in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "2.x",
            Self::V3 => "3.x",
        }
    }

    /// The newest release of the dialect that this operator is tested with.
    pub fn newest_tested(self) -> KumaRelease {
        match self {
            Self::V2 => KumaRelease::new(2, 14),
            Self::V3 => KumaRelease::new(3, 0),
        }
    }

    fn oldest(self) -> KumaRelease {
        match self {
            Self::V2 => KumaRelease::new(2, 7),
            Self::V3 => KumaRelease::new(3, 0),
        }
    }
}

/// A release of Kuma or Kong Mesh. Patch releases do not differ in what they accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KumaRelease {
    /// The major version.
    pub major: u32,
    /// The minor version.
    pub minor: u32,
}

impl fmt::Display for KumaRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A part of the API that not every release has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KumaFeature {
    /// `networking.inbound[].tags`. 3.0 drops them without an error.
    InboundTags,
    /// The tag `kuma.io/service` is required on every inbound. 2.14 requires it only beside other tags.
    ServiceTagRequired,
    /// `networking.outbound[].tags`. 3.0 drops them, and then misses `backendRef`.
    OutboundTags,
    /// `networking.advertisedAddress`. 3.0 drops it without an error.
    AdvertisedAddress,
    /// `networking.transparentProxying.reachableServices`. 3.0 drops it without an error.
    ReachableServices,
    /// `networking.gateway.type: BUILTIN`. 3.0 cannot parse it, and one that is stored breaks the list of its mesh.
    BuiltinGateway,
    /// The protocol `kafka`.
    KafkaProtocol,
    /// `Mesh.mtls`. In 3.0 MeshIdentity and MeshTrust replace it.
    MeshMtls,
    /// Services other than MeshServices, by `Mesh.meshServices.mode`.
    TagServices,
    /// The resources `ZoneIngress` and `ZoneEgress`, and their tokens. In 3.0 zone proxies are Dataplanes with listeners.
    ///
    /// Every release from 2.7 on keeps the labels of what is written to them.
    ZoneProxyResources,
    /// The path `/zoneingresses`. Older servers have `/zone-ingresses` alone; all have `/zoneegresses`.
    ZoneIngressesPath,
    /// `Mesh.meshServices`. In 3.0 each mesh has MeshServices.
    MeshServicesMode,
    /// `networking.transparentProxying.reachableBackends`, and a `backendRef` to other kinds than MeshService, or by labels.
    ReachableBackends,
    /// Sidecars bind services on the services' own addresses (`kuma-dp run --bind-outbounds`).
    BindOutbounds,
    /// `networking.listeners` of zone proxies.
    Listeners,
    /// Names of meshes and MeshServices that are no RFC 1035 labels.
    AnyNames,
    /// `networking.inbound[].name`, by which a MeshService names its ports.
    InboundNames,
    /// Lists can be filtered by labels. Older servers ignore the filter.
    LabelFilters,
    /// The label `kuma.io/workload` names the workload of a Dataplane.
    WorkloadLabel,
    /// A Dataplane needs neither an inbound nor a gateway.
    OptionalInbounds,
    /// `networking.inbound[].protocol`. Older servers know the tag `kuma.io/protocol` alone, which 3.0 ignores.
    InboundProtocol,
}

/// Since which release a feature exists, and in which it does not exist any more.
struct FeatureRow {
    feature: KumaFeature,
    since: KumaRelease,
    removed_in: Option<KumaRelease>,
}

const fn until(feature: KumaFeature, major: u32, minor: u32) -> FeatureRow {
    let removed_in = Some(KumaRelease::new(major, minor));
    FeatureRow { feature, since: KumaRelease::new(0, 0), removed_in }
}

const fn since(feature: KumaFeature, major: u32, minor: u32) -> FeatureRow {
    FeatureRow { feature, since: KumaRelease::new(major, minor), removed_in: None }
}

const FEATURES: [FeatureRow; 21] = [
    until(KumaFeature::ServiceTagRequired, 2, 14),
    until(KumaFeature::InboundTags, 3, 0),
    until(KumaFeature::OutboundTags, 3, 0),
    until(KumaFeature::AdvertisedAddress, 3, 0),
    until(KumaFeature::ReachableServices, 3, 0),
    until(KumaFeature::BuiltinGateway, 3, 0),
    until(KumaFeature::KafkaProtocol, 3, 0),
    until(KumaFeature::MeshMtls, 3, 0),
    until(KumaFeature::TagServices, 3, 0),
    until(KumaFeature::AnyNames, 3, 0),
    until(KumaFeature::ZoneProxyResources, 3, 0),
    FeatureRow { removed_in: Some(KumaRelease::new(3, 0)), ..since(KumaFeature::MeshServicesMode, 2, 9) },
    FeatureRow { removed_in: Some(KumaRelease::new(3, 0)), ..since(KumaFeature::ZoneIngressesPath, 2, 11) },
    since(KumaFeature::InboundNames, 2, 8),
    since(KumaFeature::ReachableBackends, 2, 9),
    since(KumaFeature::LabelFilters, 2, 10),
    since(KumaFeature::BindOutbounds, 2, 11),
    since(KumaFeature::WorkloadLabel, 2, 13),
    since(KumaFeature::OptionalInbounds, 2, 14),
    since(KumaFeature::InboundProtocol, 2, 14),
    since(KumaFeature::Listeners, 2, 14),
];

/// The fields of a Dataplane that belong to a feature: a server without the feature accepts and drops them.
const FIELDS: [(KumaFeature, &[&str]); 8] = [
    (KumaFeature::InboundTags, &["networking", "inbound[]", "tags"]),
    (KumaFeature::InboundNames, &["networking", "inbound[]", "name"]),
    (KumaFeature::InboundProtocol, &["networking", "inbound[]", "protocol"]),
    (KumaFeature::OutboundTags, &["networking", "outbound[]", "tags"]),
    (KumaFeature::AdvertisedAddress, &["networking", "advertisedAddress"]),
    (KumaFeature::Listeners, &["networking", "listeners"]),
    (KumaFeature::ReachableServices, &["networking", "transparentProxying", "reachableServices"]),
    (KumaFeature::ReachableBackends, &["networking", "transparentProxying", "reachableBackends"]),
];

impl KumaRelease {
    /// The release `MAJOR.MINOR`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// The release of a version such as `3.0` or `2.14.3`; `None` if the text has no numbers.
    ///
    /// ```
    /// use ecs_mesh_api::KumaRelease;
    ///
    /// assert_eq!(KumaRelease::of_version("2.14.3"), Some(KumaRelease::new(2, 14)));
    /// assert_eq!(KumaRelease::of_version("unknown"), None);
    /// ```
    pub fn of_version(version: &str) -> Option<Self> {
        let mut parts = version.split(['.', '-', '+']).map(str::parse::<u32>);
        match (parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Some(Self::new(major, minor)),
            _ => None,
        }
    }

    /// Whether the release has the feature. A release later than the tested ones has what the newest of them has.
    pub fn has(self, feature: KumaFeature) -> bool {
        FEATURES.iter().any(|row| {
            row.feature == feature
                && row.since <= self
                && row.removed_in.is_none_or(|removed_in| self < removed_in)
        })
    }

    /// The dialect of the release, also of a later minor release; `None` for releases before 2.7 and for other majors.
    pub fn dialect(self) -> Option<ApiDialect> {
        [ApiDialect::V2, ApiDialect::V3]
            .into_iter()
            .find(|dialect| self.major == dialect.oldest().major && self >= dialect.oldest())
    }

    /// Whether this operator is tested with the release.
    pub fn is_tested(self) -> bool {
        self.dialect().is_some_and(|dialect| self <= dialect.newest_tested())
    }

    /// Whether an inbound may have this protocol.
    pub fn allows(self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Tcp | Protocol::Http | Protocol::Http2 | Protocol::Grpc => true,
            Protocol::Kafka => self.has(KumaFeature::KafkaProtocol),
        }
    }

    /// How the release registers zone proxies whose scope no manifest decides.
    pub fn zone_proxy_form(self) -> ZoneProxyForm {
        if self.has(KumaFeature::ZoneProxyResources) {
            ZoneProxyForm::Resource
        } else {
            ZoneProxyForm::Listener
        }
    }

    /// The fields of a Dataplane that the release does not know, such as `networking.inbound[0].tags`. The server accepts
    /// the body and drops them.
    pub fn unknown_fields(self, dataplane: &Value) -> Vec<String> {
        let mut found = Vec::new();
        for (_, path) in FIELDS.iter().filter(|(feature, _)| !self.has(*feature)) {
            collect_present(dataplane, path, String::new(), &mut found);
        }
        found
    }

    /// The Dataplane as the release shows it: without the fields that it does not know.
    pub fn without_unknown_fields(self, dataplane: &Value) -> Value {
        let mut shown = dataplane.clone();
        for (_, path) in FIELDS.iter().filter(|(feature, _)| !self.has(*feature)) {
            remove_present(&mut shown, path);
        }
        shown
    }

    /// The fields of a Dataplane whose values, or whose absence, the release refuses.
    pub fn refused_fields(self, dataplane: &Value) -> Vec<String> {
        let mut found = Vec::new();
        let gateway = dataplane.pointer("/networking/gateway/type").and_then(Value::as_str);
        if gateway == Some("BUILTIN") && !self.has(KumaFeature::BuiltinGateway) {
            found.push("networking.gateway.type".to_owned());
        }
        if self.has(KumaFeature::ServiceTagRequired) {
            let inbounds = dataplane.pointer("/networking/inbound").and_then(Value::as_array);
            let untagged = inbounds.into_iter().flatten().enumerate().filter(|(_, inbound)| {
                inbound.get("tags").and_then(|tags| tags.get("kuma.io/service")).is_none()
            });
            found.extend(
                untagged.map(|(at, _)| format!("networking.inbound[{at}].tags[\"kuma.io/service\"]")),
            );
        }
        found
    }
}

/// Adds the paths of all present values; `name[]` is each entry of the list `name`.
fn collect_present(value: &Value, path: &[&str], prefix: String, found: &mut Vec<String>) {
    let Some((step, rest)) = path.split_first() else {
        found.push(prefix);
        return;
    };
    let name = step.trim_end_matches("[]");
    let below = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
    match value.get(name) {
        Some(Value::Array(items)) if step.ends_with("[]") => {
            for (at, item) in items.iter().enumerate() {
                collect_present(item, rest, format!("{below}[{at}]"), found);
            }
        }
        Some(inner) if !step.ends_with("[]") => collect_present(inner, rest, below, found),
        _ => {}
    }
}

/// Removes all present values of a path.
fn remove_present(value: &mut Value, path: &[&str]) {
    let Some((step, rest)) = path.split_first() else { return };
    let name = step.trim_end_matches("[]");
    match value.get_mut(name) {
        Some(Value::Array(items)) if step.ends_with("[]") => {
            items.iter_mut().for_each(|item| remove_present(item, rest));
        }
        Some(inner) if !rest.is_empty() => remove_present(inner, rest),
        Some(_) => drop(value.as_object_mut().and_then(|fields| fields.remove(name))),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Each rule with the first release before and after its change.
    #[test]
    fn features_change_at_their_releases() {
        use KumaFeature::{
            AdvertisedAddress, AnyNames, BindOutbounds, BuiltinGateway, InboundNames, InboundProtocol,
            InboundTags, KafkaProtocol, LabelFilters, Listeners, MeshMtls, MeshServicesMode,
            OptionalInbounds, OutboundTags, ReachableBackends, ReachableServices, ServiceTagRequired,
            TagServices, WorkloadLabel, ZoneIngressesPath, ZoneProxyResources,
        };
        let has = |feature, (major, minor)| KumaRelease::new(major, minor).has(feature);
        for (feature, last_without, first_with) in [
            (InboundNames, (2, 7), (2, 8)),
            (ReachableBackends, (2, 8), (2, 9)),
            (LabelFilters, (2, 9), (2, 10)),
            (BindOutbounds, (2, 10), (2, 11)),
            (WorkloadLabel, (2, 12), (2, 13)),
            (OptionalInbounds, (2, 13), (2, 14)),
            (InboundProtocol, (2, 13), (2, 14)),
            (Listeners, (2, 13), (2, 14)),
        ] {
            assert!(!has(feature, last_without) && has(feature, first_with), "{feature:?}");
            assert!(has(feature, (3, 0)) && has(feature, (3, 7)), "{feature:?}");
        }
        for (feature, last_with, first_without) in [
            (ServiceTagRequired, (2, 13), (2, 14)),
            (InboundTags, (2, 15), (3, 0)),
            (OutboundTags, (2, 14), (3, 0)),
            (AdvertisedAddress, (2, 14), (3, 0)),
            (ReachableServices, (2, 14), (3, 0)),
            (BuiltinGateway, (2, 14), (3, 0)),
            (KafkaProtocol, (2, 14), (3, 0)),
            (MeshMtls, (2, 14), (3, 0)),
            (TagServices, (2, 14), (3, 0)),
            (AnyNames, (2, 14), (3, 0)),
            (ZoneProxyResources, (2, 14), (3, 0)),
        ] {
            assert!(has(feature, last_with) && has(feature, (2, 7)), "{feature:?}");
            assert!(!has(feature, first_without) && !has(feature, (3, 1)), "{feature:?}");
        }
        let with_mode = [(2, 8), (2, 9), (2, 14), (3, 0)].map(|release| has(MeshServicesMode, release));
        assert_eq!(with_mode, [false, true, true, false]);
        let with_path = [(2, 10), (2, 11), (2, 14), (3, 0)].map(|release| has(ZoneIngressesPath, release));
        assert_eq!(with_path, [false, true, true, false]);
    }

    #[test]
    fn release_has_the_dialect_of_its_major() {
        for (major, minor, dialect, is_tested) in [
            (0, 0, None, false),
            (1, 8, None, false),
            (2, 6, None, false),
            (2, 7, Some(ApiDialect::V2), true),
            (2, 14, Some(ApiDialect::V2), true),
            (2, 15, Some(ApiDialect::V2), false),
            (3, 0, Some(ApiDialect::V3), true),
            (3, 1, Some(ApiDialect::V3), false),
            (4, 0, None, false),
        ] {
            let release = KumaRelease::new(major, minor);
            assert_eq!((release.dialect(), release.is_tested()), (dialect, is_tested), "{release}");
        }
    }

    #[test]
    fn fields_are_found_where_the_release_lacks_them() {
        let body = json!({"networking": {
            "advertisedAddress": "192.0.2.1",
            "inbound": [{"port": 1, "name": "main"}, {"port": 2, "protocol": "http", "tags": {"a": "b"}}],
            "outbound": [{"port": 3, "tags": {}}, {"port": 4, "backendRef": {"kind": "MeshService"}}],
            "transparentProxying": {"reachableServices": ["kv"], "reachableBackends": {}},
        }});
        assert_eq!(
            KumaRelease::new(3, 0).unknown_fields(&body),
            [
                "networking.inbound[1].tags",
                "networking.outbound[0].tags",
                "networking.advertisedAddress",
                "networking.transparentProxying.reachableServices",
            ]
        );
        assert_eq!(KumaRelease::new(2, 14).unknown_fields(&body), Vec::<String>::new());
        let shown = KumaRelease::new(3, 0).without_unknown_fields(&body);
        assert_eq!(KumaRelease::new(3, 0).unknown_fields(&shown), Vec::<String>::new());
        assert_eq!(shown["networking"]["inbound"][1], json!({"port": 2, "protocol": "http"}));
        let in_2_7 = KumaRelease::new(2, 7).unknown_fields(&body);
        assert_eq!(
            in_2_7,
            [
                "networking.inbound[0].name",
                "networking.inbound[1].protocol",
                "networking.transparentProxying.reachableBackends",
            ]
        );
        for odd in [json!(null), json!({"networking": 7}), json!({"networking": {"inbound": {"tags": 1}}})] {
            assert_eq!(KumaRelease::new(3, 0).unknown_fields(&odd), Vec::<String>::new(), "{odd}");
        }
    }

    #[test]
    fn refused_fields_depend_on_the_release() {
        let untagged = json!({"networking": {"inbound": [{"tags": {"kuma.io/service": "a"}}, {"port": 1}]}});
        let refused = |major, minor, body| KumaRelease::new(major, minor).refused_fields(body);
        assert_eq!(refused(2, 13, &untagged), ["networking.inbound[1].tags[\"kuma.io/service\"]"]);
        assert_eq!(refused(2, 14, &untagged), Vec::<String>::new());
        let gateway = json!({"networking": {"gateway": {"type": "BUILTIN"}}});
        assert_eq!(refused(3, 0, &gateway), ["networking.gateway.type"]);
        assert_eq!(refused(2, 14, &gateway), Vec::<String>::new());
    }
}
