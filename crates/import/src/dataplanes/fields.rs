//! The fate of each field of Kuma's proxies, unless what it says decides it.

use crate::report::{FieldRule as Rule, ResourceRules};

const OWN_LABELS: &str = "the control plane and the operator write labels";
const ADDRESS: &str = "the operator registers the address of each task";
const STATE: &str = "the control plane decides whether an inbound is ready";
const NAME: &str =
    "the operator names each Dataplane by its task: start the sidecar with --name, and without a template";
const SERVER: &str = "the control plane's record of the resource";
const INTERCEPTION: &str =
    "the operator registers proxies without redirection of traffic: use --bind-outbounds, or outbounds";
const ADMIN: &str = "the sidecar's own setting, KUMA_DATAPLANE_ADMIN_PORT";

const DATAPLANE: &[Rule] = &[
    Rule::carried("type", "Workload.spec.proxy"),
    Rule::carried("mesh", "MeshBinding.spec.mesh"),
    Rule::changed("name", "MeshBinding.spec.dataplaneName", NAME),
    Rule::needless("creationTime", SERVER),
    Rule::needless("modificationTime", SERVER),
    Rule::needless("kri", SERVER),
    Rule::carried("labels[\"kuma.io/workload\"]", "Workload.spec.workload"),
    Rule::needless("labels", OWN_LABELS),
    Rule::needless("networking.address", ADDRESS),
    Rule::instead(
        "networking.advertisedAddress",
        "MeshBinding.spec.addressFamily",
        "the operator registers the task's own address alone",
    ),
    Rule::carried("networking.inbound[].port", "Workload.spec.inbounds[].port"),
    Rule::carried("networking.inbound[].servicePort", "Workload.spec.inbounds[].containerPort"),
    Rule::carried("networking.inbound[].serviceAddress", "Workload.spec.inbounds[].serviceAddress"),
    Rule::carried("networking.inbound[].name", "Workload.spec.inbounds[].name"),
    Rule::carried("networking.inbound[].protocol", "Workload.spec.inbounds[].protocol"),
    Rule::carried("networking.inbound[].tags[\"kuma.io/service\"]", "Workload.spec.service"),
    Rule::carried("networking.inbound[].tags[\"kuma.io/protocol\"]", "Workload.spec.inbounds[].protocol"),
    Rule::needless("networking.inbound[].tags[\"kuma.io/zone\"]", "the control plane sets the zone"),
    Rule::carried("networking.inbound[].tags", "Workload.spec.inbounds[].tags"),
    Rule::needless("networking.inbound[].address", ADDRESS),
    Rule::needless("networking.inbound[].state", STATE),
    Rule::needless("networking.inbound[].health", STATE),
    Rule::carried("networking.inbound[].serviceProbe.tcp", "Workload.spec.probe"),
    Rule::needless("networking.inbound[].serviceProbe", "the control plane's defaults for the probe apply"),
    Rule::carried("networking.outbound[].port", "outbounds[].listen.port"),
    Rule::carried("networking.outbound[].address", "outbounds[].listen.address"),
    Rule::carried("networking.outbound[].tags[\"kuma.io/service\"]", "outbounds[].service"),
    Rule::instead(
        "networking.outbound[].tags",
        "MeshHTTPRoute",
        "a route chooses between versions of a service",
    ),
    Rule::carried("networking.outbound[].backendRef.kind", "outbounds[].backend.kind"),
    Rule::carried("networking.outbound[].backendRef.name", "outbounds[].backend.name"),
    Rule::carried("networking.outbound[].backendRef.port", "outbounds[].backend.port"),
    Rule::carried("networking.outbound[].backendRef.labels", "outbounds[].backend.labels"),
    Rule::carried("networking.gateway.type", "Workload.spec.gateway.type"),
    Rule::carried("networking.gateway.tags[\"kuma.io/service\"]", "Workload.spec.service"),
    Rule::instead(
        "networking.gateway.tags",
        "Workload.spec.service",
        "a gateway is registered with the service's name alone: select it by that",
    ),
    Rule::carried("networking.listeners[].type", "Workload.spec.proxy"),
    Rule::carried("networking.listeners[].port", "Workload.spec.zoneIngress.port, zoneEgress.port"),
    Rule::needless("networking.listeners[].address", ADDRESS),
    Rule::needless("networking.listeners[].name", "the operator names the listener"),
    Rule::needless("networking.listeners[].state", STATE),
    Rule::carried("networking.transparentProxying.reachableBackends.refs[].kind", "outbounds[].backend.kind"),
    Rule::carried("networking.transparentProxying.reachableBackends.refs[].name", "outbounds[].backend.name"),
    Rule::carried("networking.transparentProxying.reachableBackends.refs[].port", "outbounds[].backend.port"),
    Rule::carried(
        "networking.transparentProxying.reachableBackends.refs[].labels",
        "outbounds[].backend.labels",
    ),
    Rule::carried("networking.transparentProxying.reachableBackends", "Workload.spec.outbounds"),
    Rule::changed(
        "networking.transparentProxying.reachableServices",
        "outbounds[].service",
        "services that the sidecar may bind, with --bind-outbounds",
    ),
    Rule::instead("networking.transparentProxying", "Workload.spec.reach", INTERCEPTION),
    Rule::instead("networking.admin.port", "", ADMIN),
    Rule::instead("metrics", "MeshMetric", "metrics of the proxy"),
    Rule::instead("probes", "Workload.spec.probe", "virtual probes are of Kubernetes"),
    Rule::instead("envoy", "MeshProxyPatch", "settings of Envoy"),
];

const ZONE_INGRESS: &[Rule] = &[
    Rule::carried("type", "Workload.spec.proxy"),
    Rule::changed("name", "MeshBinding.spec.dataplaneName", NAME),
    Rule::needless("zone", "the control plane sets the zone"),
    Rule::needless("creationTime", SERVER),
    Rule::needless("modificationTime", SERVER),
    Rule::needless("labels", OWN_LABELS),
    Rule::needless("availableServices", "the control plane lists them"),
    Rule::needless("networking.address", ADDRESS),
    Rule::carried("networking.port", "Workload.spec.zoneIngress.port"),
    Rule::carried("networking.advertisedAddress", "Workload.spec.zoneIngress.advertised.address"),
    Rule::carried("networking.advertisedPort", "Workload.spec.zoneIngress.advertised.port"),
    Rule::instead("networking.admin.port", "", ADMIN),
];

const ZONE_EGRESS: &[Rule] = &[
    Rule::carried("type", "Workload.spec.proxy"),
    Rule::changed("name", "MeshBinding.spec.dataplaneName", NAME),
    Rule::needless("zone", "the control plane sets the zone"),
    Rule::needless("creationTime", SERVER),
    Rule::needless("modificationTime", SERVER),
    Rule::needless("labels", OWN_LABELS),
    Rule::needless("networking.address", ADDRESS),
    Rule::carried("networking.port", "Workload.spec.zoneEgress.port"),
    Rule::instead("networking.admin.port", "", ADMIN),
];

/// The rules of all kinds.
pub(crate) const RULES: [ResourceRules; 3] = [
    ResourceRules { kind: "Dataplane", rules: DATAPLANE },
    ResourceRules { kind: "ZoneIngress", rules: ZONE_INGRESS },
    ResourceRules { kind: "ZoneEgress", rules: ZONE_EGRESS },
];

/// The rules of a kind.
pub(super) fn rules_of(kind: &str) -> &'static [Rule] {
    RULES.iter().find(|rules| rules.kind == kind).map_or(&[], |rules| rules.rules)
}
