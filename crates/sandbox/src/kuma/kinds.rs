//! The resource types of Kuma: paths, scopes, supported operations, and the releases that have them.

use serde_json::{Value, json};

use super::proto::ProtoMessage;
use super::release::EmulatedRelease;
use super::schema;
use ecs_mesh_api::KumaFeature;

/// Decoding and validation of a type's body.
#[derive(Clone, Copy)]
pub(super) enum BodyShape {
    /// A protobuf message with its fields beside the name.
    Proto(&'static ProtoMessage),
    /// `MeshService`: fields under `spec`, with a `status` that the server sets.
    MeshService,
    /// Stored unchanged and not validated.
    Opaque,
    /// Computed by the server.
    Computed,
}

/// One resource type.
#[derive(Clone, Copy)]
pub(super) struct ResourceType {
    pub(super) name: &'static str,
    pub(super) path: &'static str,
    plural: &'static str,
    singular: &'static str,
    pub(super) in_mesh: bool,
    /// The type's part of a KRI; empty if it has none.
    pub(super) short: &'static str,
    pub(super) read_only: bool,
    federated: bool,
    /// `hasFromTargetRef`, `hasRulesTargetRef`, `hasToTargetRef`, `isFromAsRules`, `isTargetRef`, one digit each.
    policy: Option<&'static str>,
    pub(super) shape: BodyShape,
    since: EmulatedRelease,
    before: Option<EmulatedRelease>,
    feature: Option<KumaFeature>,
}

impl ResourceType {
    fn is_known(&self, release: EmulatedRelease) -> bool {
        release >= self.since
            && self.before.is_none_or(|before| release < before)
            && self.feature.is_none_or(|feature| release.has(feature))
    }

    /// The path in a release.
    fn path_at(&self, release: EmulatedRelease) -> &'static str {
        let is_older = self.name == "ZoneIngress" && !release.has(KumaFeature::ZoneIngressesPath);
        if is_older { ZONE_INGRESSES } else { self.path }
    }

    /// Whether a zone control plane may own objects of the type, which decides their origin, zone and env labels.
    pub(super) fn comes_from_zones(&self) -> bool {
        match self.shape {
            BodyShape::Proto(_) => self.name != "Mesh",
            BodyShape::MeshService => true,
            BodyShape::Opaque => {
                self.policy.is_some_and(|flags| flags.ends_with('1')) || FROM_ZONES.contains(&self.name)
            }
            BodyShape::Computed => false,
        }
    }

    /// Whether a global control plane rejects writes of the type.
    pub(super) fn only_in_zones(&self) -> bool {
        matches!(
            self.name,
            "Dataplane" | "ZoneIngress" | "ZoneEgress" | "MeshService" | "MeshZoneAddress" | "Workload"
        )
    }

    /// Whether the type is a proxy, which has overviews.
    pub(super) fn is_proxy(&self) -> bool {
        matches!(self.name, "Dataplane" | "ZoneIngress" | "ZoneEgress")
    }

    /// Whether only administrators may read the type.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self.name, "Secret" | "GlobalSecret")
    }
}

/// Types other than policies that zones may own.
const FROM_ZONES: [&str; 7] = [
    "MeshExternalService",
    "HostnameGenerator",
    "MeshIdentity",
    "MeshTrust",
    "MeshOpenTelemetryBackend",
    "MeshZoneAddress",
    "Workload",
];

/// The path of zone ingresses before 2.11, which later releases have, too.
const ZONE_INGRESSES: &str = "zone-ingresses";

/// The path of overview lists for older clients.
const OVERVIEW_PATH: &str = "dataplanes+insights";

/// The type with this name.
pub(super) fn named(name: &str) -> Option<&'static ResourceType> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// The type of a path segment in a release, and whether the segment is for overviews.
pub(super) fn at(segment: &str, release: EmulatedRelease) -> Option<(&'static ResourceType, bool)> {
    if let Some(kind) = KINDS.iter().find(|kind| kind.path == segment) {
        return (kind.is_known(release) && kind.path_at(release) == segment).then_some((kind, false));
    }
    match segment {
        ZONE_INGRESSES => {
            named("ZoneIngress").filter(|kind| kind.is_known(release)).map(|kind| (kind, false))
        }
        "global-secrets" => named("GlobalSecret").map(|kind| (kind, false)),
        OVERVIEW_PATH => named("Dataplane").map(|kind| (kind, true)),
        _ => None,
    }
}

/// The response of `GET /_resources`. `read_only` returns whether this server rejects writes of a type.
pub(super) fn described(release: EmulatedRelease, read_only: impl Fn(&ResourceType) -> bool) -> Value {
    // Policies have no `from` since 3.0.
    let has_from = release < EmulatedRelease::V3_0;
    let resources: Vec<Value> = KINDS
        .iter()
        .filter(|kind| kind.is_known(release))
        .map(|kind| {
            let mut described = json!({
                "includeInFederation": kind.federated,
                "name": kind.name,
                "path": kind.path_at(release),
                "pluralDisplayName": kind.plural,
                "singularDisplayName": kind.singular,
                "readOnly": read_only(kind),
                "scope": if kind.in_mesh { "Mesh" } else { "Global" },
                "shortName": kind.short,
            });
            if let Some(flags) = kind.policy {
                let flag = |at: usize| flags.as_bytes().get(at) == Some(&b'1');
                described["policy"] = json!({
                    "hasFromTargetRef": has_from && flag(0),
                    "hasRulesTargetRef": flag(1),
                    "hasToTargetRef": flag(2),
                    "isFromAsRules": has_from && flag(3),
                    "isTargetRef": flag(4),
                });
            }
            described
        })
        .collect();
    json!({ "resources": resources })
}

const fn kind(
    name: &'static str,
    path: &'static str,
    plural: &'static str,
    singular: &'static str,
    short: &'static str,
) -> ResourceType {
    ResourceType {
        name,
        path,
        plural,
        singular,
        in_mesh: true,
        short,
        read_only: false,
        federated: true,
        policy: None,
        shape: BodyShape::Opaque,
        since: EmulatedRelease::V2_7,
        before: None,
        feature: None,
    }
}

const fn policy(flags: &'static str, kind: ResourceType) -> ResourceType {
    ResourceType { policy: Some(flags), ..kind }
}

const fn global(kind: ResourceType) -> ResourceType {
    ResourceType { in_mesh: false, ..kind }
}

const fn local(kind: ResourceType) -> ResourceType {
    ResourceType { federated: false, ..kind }
}

const fn insight(kind: ResourceType) -> ResourceType {
    ResourceType { federated: false, read_only: true, shape: BodyShape::Computed, ..kind }
}

/// A type that this release introduced.
const fn new_in(since: EmulatedRelease, kind: ResourceType) -> ResourceType {
    ResourceType { since, ..kind }
}

/// A type that 3.0 removed.
const fn removed(kind: ResourceType) -> ResourceType {
    ResourceType { before: Some(EmulatedRelease::V3_0), ..kind }
}

const fn zone_proxy(kind: ResourceType) -> ResourceType {
    ResourceType { feature: Some(KumaFeature::ZoneProxyResources), ..global(kind) }
}

const fn shaped(shape: BodyShape, kind: ResourceType) -> ResourceType {
    ResourceType { shape, ..kind }
}

static KINDS: &[ResourceType] = &[
    removed(policy(
        "00000",
        kind("CircuitBreaker", "circuit-breakers", "Circuit Breakers", "Circuit Breaker", ""),
    )),
    shaped(
        BodyShape::Proto(&schema::DATAPLANE),
        local(kind("Dataplane", "dataplanes", "Dataplanes", "Dataplane", "dp")),
    ),
    insight(kind("DataplaneInsight", "dataplane-insights", "Dataplane Insights", "Dataplane Insight", "")),
    removed(kind("ExternalService", "external-services", "External Services", "External Service", "")),
    removed(policy(
        "00000",
        kind("FaultInjection", "fault-injections", "Fault Injections", "Fault Injection", ""),
    )),
    global(kind("GlobalSecret", "globalsecrets", "Global Secrets", "Global Secret", "")),
    removed(policy("00000", kind("HealthCheck", "health-checks", "Health Checks", "Health Check", ""))),
    new_in(
        EmulatedRelease::V2_8,
        global(kind(
            "HostnameGenerator",
            "hostnamegenerators",
            "Hostname Generators",
            "Hostname Generator",
            "hg",
        )),
    ),
    shaped(BodyShape::Proto(&schema::MESH), global(kind("Mesh", "meshes", "Meshes", "Mesh", "m"))),
    policy("11111", kind("MeshAccessLog", "meshaccesslogs", "Mesh Access Logs", "Mesh Access Log", "mal")),
    policy(
        "11111",
        kind(
            "MeshCircuitBreaker",
            "meshcircuitbreakers",
            "Mesh Circuit Breakers",
            "Mesh Circuit Breaker",
            "mcb",
        ),
    ),
    new_in(
        EmulatedRelease::V2_8,
        kind(
            "MeshExternalService",
            "meshexternalservices",
            "Mesh External Services",
            "Mesh External Service",
            "extsvc",
        ),
    ),
    policy(
        "11101",
        kind(
            "MeshFaultInjection",
            "meshfaultinjections",
            "Mesh Fault Injections",
            "Mesh Fault Injection",
            "mfi",
        ),
    ),
    removed(kind("MeshGateway", "meshgateways", "Mesh Gateways", "Mesh Gateway", "mgw")),
    removed(policy(
        "00000",
        kind("MeshGatewayRoute", "meshgatewayroutes", "Mesh Gateway Routes", "Mesh Gateway Route", ""),
    )),
    policy("00101", kind("MeshHTTPRoute", "meshhttproutes", "Mesh HTTP Routes", "Mesh HTTP Route", "mhttpr")),
    policy(
        "00101",
        kind("MeshHealthCheck", "meshhealthchecks", "Mesh Health Checks", "Mesh Health Check", "mhc"),
    ),
    new_in(
        EmulatedRelease::V2_12,
        kind("MeshIdentity", "meshidentities", "Mesh Identities", "Mesh Identity", "mid"),
    ),
    global(insight(kind("MeshInsight", "mesh-insights", "Mesh Insights", "Mesh Insight", ""))),
    policy(
        "00101",
        kind(
            "MeshLoadBalancingStrategy",
            "meshloadbalancingstrategies",
            "Mesh Load Balancing Strategies",
            "Mesh Load Balancing Strategy",
            "mlbs",
        ),
    ),
    policy("00001", kind("MeshMetric", "meshmetrics", "Mesh Metrics", "Mesh Metric", "mm")),
    new_in(
        EmulatedRelease::V2_9,
        kind(
            "MeshMultiZoneService",
            "meshmultizoneservices",
            "Mesh Multi Zone Services",
            "Mesh Multi Zone Service",
            "mzsvc",
        ),
    ),
    new_in(
        EmulatedRelease::V2_14,
        kind(
            "MeshOpenTelemetryBackend",
            "meshopentelemetrybackends",
            "Mesh OpenTelemetry Backends",
            "Mesh OpenTelemetry Backend",
            "motb",
        ),
    ),
    new_in(
        EmulatedRelease::V2_8,
        policy(
            "00001",
            kind("MeshPassthrough", "meshpassthroughs", "Mesh Passthroughs", "Mesh Passthrough", "mp"),
        ),
    ),
    policy(
        "00001",
        kind("MeshProxyPatch", "meshproxypatches", "Mesh Proxy Patches", "Mesh Proxy Patch", "mpp"),
    ),
    policy("11111", kind("MeshRateLimit", "meshratelimits", "Mesh Rate Limits", "Mesh Rate Limit", "mrl")),
    policy("00101", kind("MeshRetry", "meshretries", "Mesh Retries", "Mesh Retry", "mr")),
    shaped(
        BodyShape::MeshService,
        local(kind("MeshService", "meshservices", "Mesh Services", "Mesh Service", "msvc")),
    ),
    policy("00101", kind("MeshTCPRoute", "meshtcproutes", "Mesh TCP Routes", "Mesh TCP Route", "mtcpr")),
    new_in(
        EmulatedRelease::V2_9,
        policy("11011", kind("MeshTLS", "meshtlses", "Mesh TLSes", "Mesh TLS", "mtls")),
    ),
    policy("11111", kind("MeshTimeout", "meshtimeouts", "Mesh Timeouts", "Mesh Timeout", "mt")),
    policy("00001", kind("MeshTrace", "meshtraces", "Mesh Traces", "Mesh Trace", "mtr")),
    policy(
        "11001",
        kind(
            "MeshTrafficPermission",
            "meshtrafficpermissions",
            "Mesh Traffic Permissions",
            "Mesh Traffic Permission",
            "mtp",
        ),
    ),
    new_in(EmulatedRelease::V2_12, kind("MeshTrust", "meshtrusts", "Mesh Trusts", "Mesh Trust", "mtrust")),
    new_in(
        EmulatedRelease::V2_14,
        local(kind(
            "MeshZoneAddress",
            "meshzoneaddresses",
            "Mesh Zone Addresses",
            "Mesh Zone Address",
            "mza",
        )),
    ),
    removed(policy(
        "00000",
        kind("ProxyTemplate", "proxytemplates", "Proxy Templates", "Proxy Template", ""),
    )),
    removed(policy("00000", kind("RateLimit", "rate-limits", "Rate Limits", "Rate Limit", ""))),
    removed(policy("00000", kind("Retry", "retries", "Retries", "Retry", ""))),
    kind("Secret", "secrets", "Secrets", "Secret", ""),
    insight(kind("ServiceInsight", "service-insights", "Service Insights", "Service Insight", "")),
    removed(policy("00000", kind("Timeout", "timeouts", "Timeouts", "Timeout", ""))),
    removed(policy("00000", kind("TrafficLog", "traffic-logs", "Traffic Logs", "Traffic Log", ""))),
    removed(policy(
        "00000",
        kind("TrafficPermission", "traffic-permissions", "Traffic Permissions", "Traffic Permission", ""),
    )),
    removed(policy("00000", kind("TrafficRoute", "traffic-routes", "Traffic Routes", "Traffic Route", ""))),
    removed(policy("00000", kind("TrafficTrace", "traffic-traces", "Traffic Traces", "Traffic Trace", ""))),
    removed(policy(
        "00000",
        kind("VirtualOutbound", "virtual-outbounds", "Virtual Outbounds", "Virtual Outbound", ""),
    )),
    new_in(EmulatedRelease::V2_13, local(kind("Workload", "workloads", "Workloads", "Workload", "wl"))),
    global(local(kind("Zone", "zones", "Zones", "Zone", "z"))),
    shaped(
        BodyShape::Proto(&schema::ZONE_EGRESS),
        zone_proxy(local(kind("ZoneEgress", "zoneegresses", "Zone Egresses", "Zone Egress", "ze"))),
    ),
    zone_proxy(insight(kind(
        "ZoneEgressInsight",
        "zoneegressinsights",
        "Zone Egress Insights",
        "Zone Egress Insight",
        "",
    ))),
    shaped(
        BodyShape::Proto(&schema::ZONE_INGRESS),
        zone_proxy(local(kind("ZoneIngress", "zoneingresses", "Zone Ingresses", "Zone Ingress", "zi"))),
    ),
    zone_proxy(insight(kind(
        "ZoneIngressInsight",
        "zone-ingress-insights",
        "Zone Ingress Insights",
        "Zone Ingress Insight",
        "",
    ))),
    global(insight(kind("ZoneInsight", "zone-insights", "Zone Insights", "Zone Insight", ""))),
];
