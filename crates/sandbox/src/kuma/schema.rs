//! The message types of Kuma 2.14 that travel as plain protobuf JSON, as tables.

use super::proto::{Field, Kind, Message, field, repeated, snake};

const ADMIN: Message = Message(&[field("port", Kind::Number)]);
const TAGS: Field = field("tags", Kind::Texts);
const ADDRESS: Field = field("address", Kind::Text);
const PORT: Field = field("port", Kind::Number);
const NAME: Field = field("name", Kind::Text);

const SERVICE_PROBE: Message = Message(&[
    field("interval", Kind::Duration),
    field("timeout", Kind::Duration),
    snake("unhealthyThreshold", "unhealthy_threshold", Kind::NumberValue),
    snake("healthyThreshold", "healthy_threshold", Kind::NumberValue),
    field("tcp", Kind::Message(&Message(&[]))),
]);

const INBOUND: Message = Message(&[
    PORT,
    field("servicePort", Kind::Number),
    field("serviceAddress", Kind::Text),
    ADDRESS,
    TAGS,
    field("health", Kind::Message(&Message(&[field("ready", Kind::Bool)]))),
    field("serviceProbe", Kind::Message(&SERVICE_PROBE)),
    field("state", Kind::Enum(&["Ready", "NotReady", "Ignored"])),
    NAME,
    field("protocol", Kind::Text),
]);

const OUTBOUND: Message = Message(&[
    ADDRESS,
    PORT,
    TAGS,
    field(
        "backendRef",
        Kind::Message(&Message(&[field("kind", Kind::Text), NAME, PORT, field("labels", Kind::Texts)])),
    ),
]);

const REACHABLE_BACKENDS: Message = Message(&[repeated(field(
    "refs",
    Kind::Message(&Message(&[
        field("kind", Kind::Text),
        NAME,
        field("namespace", Kind::Text),
        field("port", Kind::NumberValue),
        field("labels", Kind::Texts),
    ])),
))]);

const TRANSPARENT_PROXYING: Message = Message(&[
    snake("redirectPortInbound", "redirect_port_inbound", Kind::Number),
    snake("redirectPortOutbound", "redirect_port_outbound", Kind::Number),
    repeated(snake("directAccessServices", "direct_access_services", Kind::Text)),
    repeated(snake("reachableServices", "reachable_services", Kind::Text)),
    snake("ipFamilyMode", "ip_family_mode", Kind::Enum(&["UnSpecified", "DualStack", "IPv4", "IPv6"])),
    snake("reachableBackends", "reachable_backends", Kind::Message(&REACHABLE_BACKENDS)),
]);

const LISTENER: Message = Message(&[
    field("type", Kind::Enum(&["Unspecified", "ZoneIngress", "ZoneEgress"])),
    ADDRESS,
    PORT,
    NAME,
    field("state", Kind::Enum(&["Ready", "NotReady"])),
]);

const METRICS_BACKEND: Message = Message(&[NAME, field("type", Kind::Text), field("conf", Kind::Struct)]);

/// `Dataplane`
pub(super) const DATAPLANE: Message = Message(&[
    field(
        "networking",
        Kind::Message(&Message(&[
            ADDRESS,
            field("advertisedAddress", Kind::Text),
            field(
                "gateway",
                Kind::Message(&Message(&[TAGS, field("type", Kind::Enum(&["DELEGATED", "BUILTIN"]))])),
            ),
            repeated(field("inbound", Kind::Message(&INBOUND))),
            repeated(field("outbound", Kind::Message(&OUTBOUND))),
            snake("transparentProxying", "transparent_proxying", Kind::Message(&TRANSPARENT_PROXYING)),
            field("admin", Kind::Message(&ADMIN)),
            repeated(field("listeners", Kind::Message(&LISTENER))),
        ])),
    ),
    field("metrics", Kind::Message(&METRICS_BACKEND)),
    field(
        "probes",
        Kind::Message(&Message(&[
            PORT,
            repeated(field(
                "endpoints",
                Kind::Message(&Message(&[
                    snake("inboundPort", "inbound_port", Kind::Number),
                    snake("inboundPath", "inbound_path", Kind::Text),
                    field("path", Kind::Text),
                ])),
            )),
        ])),
    ),
]);

/// `ZoneIngress`
pub(super) const ZONE_INGRESS: Message = Message(&[
    field("zone", Kind::Text),
    field(
        "networking",
        Kind::Message(&Message(&[
            ADDRESS,
            field("advertisedAddress", Kind::Text),
            PORT,
            field("advertisedPort", Kind::Number),
            field("admin", Kind::Message(&ADMIN)),
        ])),
    ),
    repeated(field(
        "availableServices",
        Kind::Message(&Message(&[
            TAGS,
            field("instances", Kind::Number),
            field("mesh", Kind::Text),
            field("externalService", Kind::Bool),
        ])),
    )),
]);

/// `ZoneEgress`
pub(super) const ZONE_EGRESS: Message = Message(&[
    field("zone", Kind::Text),
    field("networking", Kind::Message(&Message(&[ADDRESS, PORT, field("admin", Kind::Message(&ADMIN))]))),
]);

const REQUEST_TIMEOUT: Message = Message(&[field("requestTimeout", Kind::Duration)]);

const CA_BACKEND: Message = Message(&[
    NAME,
    field("type", Kind::Text),
    field(
        "dpCert",
        Kind::Message(&Message(&[
            field("rotation", Kind::Message(&Message(&[field("expiration", Kind::Text)]))),
            field("requestTimeout", Kind::Duration),
        ])),
    ),
    field("conf", Kind::Struct),
    field("mode", Kind::Enum(&["STRICT", "PERMISSIVE"])),
    field("rootChain", Kind::Message(&REQUEST_TIMEOUT)),
]);

const TRACING_BACKEND: Message = Message(&[
    NAME,
    field("sampling", Kind::DoubleValue),
    field("type", Kind::Text),
    field("conf", Kind::Struct),
]);

const LOGGING_BACKEND: Message =
    Message(&[NAME, field("format", Kind::Text), field("type", Kind::Text), field("conf", Kind::Struct)]);

const TAG_RULES: Kind = Kind::Message(&Message(&[TAGS]));

/// `Mesh`
pub(super) const MESH: Message = Message(&[
    field(
        "mtls",
        Kind::Message(&Message(&[
            field("enabledBackend", Kind::Text),
            repeated(field("backends", Kind::Message(&CA_BACKEND))),
            field("skipValidation", Kind::Bool),
        ])),
    ),
    field(
        "tracing",
        Kind::Message(&Message(&[
            field("defaultBackend", Kind::Text),
            repeated(field("backends", Kind::Message(&TRACING_BACKEND))),
        ])),
    ),
    field(
        "logging",
        Kind::Message(&Message(&[
            field("defaultBackend", Kind::Text),
            repeated(field("backends", Kind::Message(&LOGGING_BACKEND))),
        ])),
    ),
    field(
        "metrics",
        Kind::Message(&Message(&[
            field("enabledBackend", Kind::Text),
            repeated(field("backends", Kind::Message(&METRICS_BACKEND))),
        ])),
    ),
    field(
        "networking",
        Kind::Message(&Message(&[field(
            "outbound",
            Kind::Message(&Message(&[field("passthrough", Kind::BoolValue)])),
        )])),
    ),
    field(
        "routing",
        Kind::Message(&Message(&[
            field("localityAwareLoadBalancing", Kind::Bool),
            field("zoneEgress", Kind::Bool),
            field("defaultForbidMeshExternalServiceAccess", Kind::Bool),
        ])),
    ),
    field(
        "constraints",
        Kind::Message(&Message(&[field(
            "dataplaneProxy",
            Kind::Message(&Message(&[
                repeated(field("requirements", TAG_RULES)),
                repeated(field("restrictions", TAG_RULES)),
            ])),
        )])),
    ),
    repeated(field("skipCreatingInitialPolicies", Kind::Text)),
    field(
        "meshServices",
        Kind::Message(&Message(&[field(
            "mode",
            Kind::Enum(&["Disabled", "Everywhere", "ReachableBackends", "Exclusive"]),
        )])),
    ),
]);
