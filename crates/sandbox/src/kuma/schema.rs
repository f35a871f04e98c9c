//! The message types of Kuma in protobuf JSON, with the releases that have each field.

use super::proto::{ProtoField, ProtoKind, ProtoMessage, field, repeated, snake};
use super::release::EmulatedRelease;
use ecs_mesh_api::KumaFeature;

const ADMIN: ProtoMessage = ProtoMessage(&[field("port", ProtoKind::Number)]);
const TAGS: ProtoField = field("tags", ProtoKind::Texts);
const ADDRESS: ProtoField = field("address", ProtoKind::Text);
const PORT: ProtoField = field("port", ProtoKind::Number);
const NAME: ProtoField = field("name", ProtoKind::Text);

const SERVICE_PROBE: ProtoMessage = ProtoMessage(&[
    field("interval", ProtoKind::Duration),
    field("timeout", ProtoKind::Duration),
    snake("unhealthyThreshold", "unhealthy_threshold", ProtoKind::NumberValue),
    snake("healthyThreshold", "healthy_threshold", ProtoKind::NumberValue),
    field("tcp", ProtoKind::Message(&ProtoMessage(&[]))),
]);

const INBOUND: ProtoMessage = ProtoMessage(&[
    PORT,
    field("servicePort", ProtoKind::Number),
    field("serviceAddress", ProtoKind::Text),
    ADDRESS,
    field("tags", ProtoKind::Texts).of(KumaFeature::InboundTags),
    field("health", ProtoKind::Message(&ProtoMessage(&[field("ready", ProtoKind::Bool)]))),
    field("serviceProbe", ProtoKind::Message(&SERVICE_PROBE)),
    field("state", ProtoKind::Enum(&["Ready", "NotReady", "Ignored"])),
    field("name", ProtoKind::Text).of(KumaFeature::InboundNames),
    field("protocol", ProtoKind::Text).of(KumaFeature::InboundProtocol),
]);

const OUTBOUND: ProtoMessage = ProtoMessage(&[
    ADDRESS,
    PORT,
    field("tags", ProtoKind::Texts).of(KumaFeature::OutboundTags),
    field(
        "backendRef",
        ProtoKind::Message(&ProtoMessage(&[
            field("kind", ProtoKind::Text),
            NAME,
            PORT,
            field("labels", ProtoKind::Texts).of(KumaFeature::ReachableBackends),
        ])),
    ),
]);

const REACHABLE_BACKENDS: ProtoMessage = ProtoMessage(&[repeated(field(
    "refs",
    ProtoKind::Message(&ProtoMessage(&[
        field("kind", ProtoKind::Text),
        NAME,
        field("namespace", ProtoKind::Text),
        field("port", ProtoKind::NumberValue),
        field("labels", ProtoKind::Texts),
    ])),
))]);

const TRANSPARENT_PROXYING: ProtoMessage = ProtoMessage(&[
    snake("redirectPortInbound", "redirect_port_inbound", ProtoKind::Number),
    snake("redirectPortOutbound", "redirect_port_outbound", ProtoKind::Number),
    repeated(snake("directAccessServices", "direct_access_services", ProtoKind::Text)),
    repeated(snake("reachableServices", "reachable_services", ProtoKind::Text))
        .of(KumaFeature::ReachableServices),
    snake("ipFamilyMode", "ip_family_mode", ProtoKind::Enum(&["UnSpecified", "DualStack", "IPv4", "IPv6"])),
    snake("reachableBackends", "reachable_backends", ProtoKind::Message(&REACHABLE_BACKENDS))
        .of(KumaFeature::ReachableBackends),
]);

const LISTENER: ProtoMessage = ProtoMessage(&[
    field("type", ProtoKind::Enum(&["Unspecified", "ZoneIngress", "ZoneEgress"])),
    ADDRESS,
    PORT,
    NAME,
    field("state", ProtoKind::Enum(&["Ready", "NotReady"])),
]);

const METRICS_BACKEND: ProtoMessage =
    ProtoMessage(&[NAME, field("type", ProtoKind::Text), field("conf", ProtoKind::Struct)]);

/// `Dataplane`
pub(super) const DATAPLANE: ProtoMessage = ProtoMessage(&[
    field(
        "networking",
        ProtoKind::Message(&ProtoMessage(&[
            ADDRESS,
            field("advertisedAddress", ProtoKind::Text).of(KumaFeature::AdvertisedAddress),
            field(
                "gateway",
                ProtoKind::Message(&ProtoMessage(&[
                    TAGS,
                    field("type", ProtoKind::Enum(&["DELEGATED", "BUILTIN"])).of(KumaFeature::BuiltinGateway),
                    // The value is reserved now, so that it is not just dropped: parsing fails.
                    field("type", ProtoKind::Enum(&["DELEGATED"])).since(EmulatedRelease::V3_0),
                ])),
            ),
            repeated(field("inbound", ProtoKind::Message(&INBOUND))),
            repeated(field("outbound", ProtoKind::Message(&OUTBOUND))),
            snake("transparentProxying", "transparent_proxying", ProtoKind::Message(&TRANSPARENT_PROXYING)),
            field("admin", ProtoKind::Message(&ADMIN)),
            repeated(field("listeners", ProtoKind::Message(&LISTENER))).of(KumaFeature::Listeners),
        ])),
    ),
    field("metrics", ProtoKind::Message(&METRICS_BACKEND)).before(EmulatedRelease::V3_0),
    field(
        "probes",
        ProtoKind::Message(&ProtoMessage(&[
            PORT,
            repeated(field(
                "endpoints",
                ProtoKind::Message(&ProtoMessage(&[
                    snake("inboundPort", "inbound_port", ProtoKind::Number),
                    snake("inboundPath", "inbound_path", ProtoKind::Text),
                    field("path", ProtoKind::Text),
                ])),
            )),
        ])),
    )
    .before(EmulatedRelease::V3_0),
]);

/// `ZoneIngress`
pub(super) const ZONE_INGRESS: ProtoMessage = ProtoMessage(&[
    field("zone", ProtoKind::Text),
    field(
        "networking",
        ProtoKind::Message(&ProtoMessage(&[
            ADDRESS,
            field("advertisedAddress", ProtoKind::Text),
            PORT,
            field("advertisedPort", ProtoKind::Number),
            field("admin", ProtoKind::Message(&ADMIN)),
        ])),
    ),
    repeated(field(
        "availableServices",
        ProtoKind::Message(&ProtoMessage(&[
            TAGS,
            field("instances", ProtoKind::Number),
            field("mesh", ProtoKind::Text),
            field("externalService", ProtoKind::Bool),
        ])),
    )),
]);

/// `ZoneEgress`
pub(super) const ZONE_EGRESS: ProtoMessage = ProtoMessage(&[
    field("zone", ProtoKind::Text),
    field(
        "networking",
        ProtoKind::Message(&ProtoMessage(&[ADDRESS, PORT, field("admin", ProtoKind::Message(&ADMIN))])),
    ),
]);

const REQUEST_TIMEOUT: ProtoMessage = ProtoMessage(&[field("requestTimeout", ProtoKind::Duration)]);

const CA_BACKEND: ProtoMessage = ProtoMessage(&[
    NAME,
    field("type", ProtoKind::Text),
    field(
        "dpCert",
        ProtoKind::Message(&ProtoMessage(&[
            field("rotation", ProtoKind::Message(&ProtoMessage(&[field("expiration", ProtoKind::Text)]))),
            field("requestTimeout", ProtoKind::Duration),
        ])),
    ),
    field("conf", ProtoKind::Struct),
    field("mode", ProtoKind::Enum(&["STRICT", "PERMISSIVE"])),
    field("rootChain", ProtoKind::Message(&REQUEST_TIMEOUT)),
]);

const TRACING_BACKEND: ProtoMessage = ProtoMessage(&[
    NAME,
    field("sampling", ProtoKind::DoubleValue),
    field("type", ProtoKind::Text),
    field("conf", ProtoKind::Struct),
]);

const LOGGING_BACKEND: ProtoMessage = ProtoMessage(&[
    NAME,
    field("format", ProtoKind::Text),
    field("type", ProtoKind::Text),
    field("conf", ProtoKind::Struct),
]);

const TAG_RULES: ProtoKind = ProtoKind::Message(&ProtoMessage(&[TAGS]));

/// `Mesh`
pub(super) const MESH: ProtoMessage = ProtoMessage(&[
    field(
        "mtls",
        ProtoKind::Message(&ProtoMessage(&[
            field("enabledBackend", ProtoKind::Text),
            repeated(field("backends", ProtoKind::Message(&CA_BACKEND))),
            field("skipValidation", ProtoKind::Bool),
        ])),
    )
    .of(KumaFeature::MeshMtls),
    field(
        "tracing",
        ProtoKind::Message(&ProtoMessage(&[
            field("defaultBackend", ProtoKind::Text),
            repeated(field("backends", ProtoKind::Message(&TRACING_BACKEND))),
        ])),
    )
    .before(EmulatedRelease::V3_0),
    field(
        "logging",
        ProtoKind::Message(&ProtoMessage(&[
            field("defaultBackend", ProtoKind::Text),
            repeated(field("backends", ProtoKind::Message(&LOGGING_BACKEND))),
        ])),
    )
    .before(EmulatedRelease::V3_0),
    field(
        "metrics",
        ProtoKind::Message(&ProtoMessage(&[
            field("enabledBackend", ProtoKind::Text),
            repeated(field("backends", ProtoKind::Message(&METRICS_BACKEND))),
        ])),
    )
    .before(EmulatedRelease::V3_0),
    field(
        "networking",
        ProtoKind::Message(&ProtoMessage(&[field(
            "outbound",
            ProtoKind::Message(&ProtoMessage(&[field("passthrough", ProtoKind::BoolValue)])),
        )])),
    )
    .before(EmulatedRelease::V3_0),
    field(
        "routing",
        ProtoKind::Message(&ProtoMessage(&[
            field("localityAwareLoadBalancing", ProtoKind::Bool),
            field("zoneEgress", ProtoKind::Bool),
            field("defaultForbidMeshExternalServiceAccess", ProtoKind::Bool),
        ])),
    )
    .before(EmulatedRelease::V3_0),
    field(
        "constraints",
        ProtoKind::Message(&ProtoMessage(&[field(
            "dataplaneProxy",
            ProtoKind::Message(&ProtoMessage(&[
                repeated(field("requirements", TAG_RULES)),
                repeated(field("restrictions", TAG_RULES)),
            ])),
        )])),
    )
    .before(EmulatedRelease::V3_0),
    repeated(field("skipCreatingInitialPolicies", ProtoKind::Text)),
    field(
        "meshServices",
        ProtoKind::Message(&ProtoMessage(&[field(
            "mode",
            ProtoKind::Enum(&["Disabled", "Everywhere", "ReachableBackends", "Exclusive"]),
        )])),
    )
    .of(KumaFeature::MeshServicesMode),
]);
