//! The fate of each field of App Mesh's resources, unless what it says decides it.

use crate::report::{FieldRule as Rule, ResourceRules};

use super::resources::AppMeshKind;

const METADATA: &str = "AWS's record of the resource";
const STATUS: &str = "the state of the resource at AWS";
const TAGS: &str = "AWS tags of the App Mesh resource";
const MTLS: &str = "certificates are those of the mesh: `mtls` of the Mesh, and MeshTLS for its mode";
const CREATED: &str = "an argument of the call that created the resource";
const SHARED: &str =
    "the mesh is of another account: an AwsAccount manifest lets the operator read that account's tasks";
const POOL: &str = "limits of connections and requests";
const OUTLIERS: &str = "ejection of endpoints that fail";
const HEALTH: &str = "active checks by the callers; the operator's probe is a TCP connection";
const LOG: &str = "access logs";

const MESH: &[Rule] = &[
    Rule::carried("meshName", "MeshBinding.spec.mesh"),
    Rule::needless("metadata", METADATA),
    Rule::needless("status", STATUS),
    Rule::needless("tags", TAGS),
    Rule::needless("clientToken", CREATED),
    Rule::instead("meshOwner", "AwsAccount", SHARED),
    Rule::needless("spec.egressFilter", "traffic that is not intercepted is not filtered"),
    Rule::carried("spec.serviceDiscovery.ipPreference", "MeshBinding.spec.addressFamily"),
];

const VIRTUAL_NODE: &[Rule] = &[
    Rule::carried("meshName", "Workload.spec.bindings"),
    Rule::carried("virtualNodeName", "Workload.metadata.name"),
    Rule::needless("metadata", METADATA),
    Rule::needless("status", STATUS),
    Rule::needless("tags", TAGS),
    Rule::needless("clientToken", CREATED),
    Rule::instead("meshOwner", "AwsAccount", SHARED),
    Rule::carried("spec.listeners[].portMapping.port", "Workload.spec.inbounds[].containerPort"),
    Rule::carried("spec.listeners[].portMapping.protocol", "Workload.spec.inbounds[].protocol"),
    Rule::carried("spec.listeners[].healthCheck.protocol", "Workload.spec.probe"),
    Rule::instead("spec.listeners[].healthCheck", "MeshHealthCheck", HEALTH),
    Rule::instead("spec.listeners[].timeout", "MeshTimeout", "timeouts of the listener"),
    Rule::instead("spec.listeners[].connectionPool", "MeshCircuitBreaker", POOL),
    Rule::instead("spec.listeners[].outlierDetection", "MeshCircuitBreaker", OUTLIERS),
    Rule::instead("spec.listeners[].tls", "MeshTLS", MTLS),
    Rule::carried("spec.backends[].virtualService.virtualServiceName", "outbounds[].service"),
    Rule::instead("spec.backends[].virtualService.clientPolicy", "MeshTLS", MTLS),
    Rule::instead("spec.backendDefaults.clientPolicy", "MeshTLS", MTLS),
    Rule::instead("spec.logging", "MeshAccessLog", LOG),
    Rule::changed(
        "spec.serviceDiscovery.awsCloudMap.serviceName",
        "Workload.spec.selector.services",
        "the ECS service is expected to have the name of the Cloud Map service",
    ),
    Rule::changed(
        "spec.serviceDiscovery.awsCloudMap.attributes",
        "Workload.spec.selector",
        "attributes that ECS gives to its tasks select the ECS service or the family",
    ),
    Rule::needless("spec.serviceDiscovery", "the operator registers the address of each task"),
];

const VIRTUAL_SERVICE: &[Rule] = &[
    Rule::carried("meshName", "Workload.spec.bindings"),
    Rule::changed(
        "virtualServiceName",
        "Workload.spec.service",
        "services are called by an address on loopback, `outbounds[].listen`, and not by a DNS name",
    ),
    Rule::needless("metadata", METADATA),
    Rule::needless("status", STATUS),
    Rule::needless("tags", TAGS),
    Rule::needless("clientToken", CREATED),
    Rule::instead("meshOwner", "AwsAccount", SHARED),
    Rule::carried("spec.provider.virtualNode.virtualNodeName", "Workload.spec.service"),
    Rule::carried("spec.provider.virtualRouter.virtualRouterName", "Workload.spec.service"),
];

const VIRTUAL_ROUTER: &[Rule] = &[
    Rule::carried("meshName", "Workload.spec.bindings"),
    Rule::carried("virtualRouterName", "Workload.spec.service"),
    Rule::needless("metadata", METADATA),
    Rule::needless("status", STATUS),
    Rule::needless("tags", TAGS),
    Rule::needless("clientToken", CREATED),
    Rule::instead("meshOwner", "AwsAccount", SHARED),
    Rule::needless("spec.listeners", "callers use the inbound port of the called service"),
];

const RETRY: &str = "retries by the callers";
const ROUTE_TIMEOUT: &str = "timeouts of the route";

const ROUTE: &[Rule] = &[
    Rule::carried("meshName", "Workload.spec.bindings"),
    Rule::carried("virtualRouterName", "Workload.spec.service"),
    Rule::needless("routeName", "only the targets of a route become a manifest"),
    Rule::needless("metadata", METADATA),
    Rule::needless("status", STATUS),
    Rule::needless("tags", TAGS),
    Rule::needless("clientToken", CREATED),
    Rule::instead("meshOwner", "AwsAccount", SHARED),
    Rule::instead("spec.priority", "MeshHTTPRoute", "the order of routes"),
    Rule::instead("spec.httpRoute.match", "MeshHTTPRoute", "matches of requests"),
    Rule::instead("spec.http2Route.match", "MeshHTTPRoute", "matches of requests"),
    Rule::instead("spec.grpcRoute.match", "MeshHTTPRoute", "matches of requests"),
    Rule::instead("spec.tcpRoute.match", "MeshTCPRoute", "matches of connections"),
    Rule::instead("spec.httpRoute.retryPolicy", "MeshRetry", RETRY),
    Rule::instead("spec.http2Route.retryPolicy", "MeshRetry", RETRY),
    Rule::instead("spec.grpcRoute.retryPolicy", "MeshRetry", RETRY),
    Rule::instead("spec.httpRoute.timeout", "MeshTimeout", ROUTE_TIMEOUT),
    Rule::instead("spec.http2Route.timeout", "MeshTimeout", ROUTE_TIMEOUT),
    Rule::instead("spec.grpcRoute.timeout", "MeshTimeout", ROUTE_TIMEOUT),
    Rule::instead("spec.tcpRoute.timeout", "MeshTimeout", ROUTE_TIMEOUT),
    Rule::carried("spec.httpRoute.action.weightedTargets[].virtualNode", "Workload.spec.service"),
    Rule::carried("spec.http2Route.action.weightedTargets[].virtualNode", "Workload.spec.service"),
    Rule::carried("spec.grpcRoute.action.weightedTargets[].virtualNode", "Workload.spec.service"),
    Rule::carried("spec.tcpRoute.action.weightedTargets[].virtualNode", "Workload.spec.service"),
    Rule::carried("spec.httpRoute.action.weightedTargets[].port", "outbounds[].targetPort"),
    Rule::carried("spec.http2Route.action.weightedTargets[].port", "outbounds[].targetPort"),
    Rule::carried("spec.grpcRoute.action.weightedTargets[].port", "outbounds[].targetPort"),
    Rule::carried("spec.tcpRoute.action.weightedTargets[].port", "outbounds[].targetPort"),
    Rule::instead("spec.httpRoute.action.weightedTargets[].weight", "MeshHTTPRoute", WEIGHT),
    Rule::instead("spec.http2Route.action.weightedTargets[].weight", "MeshHTTPRoute", WEIGHT),
    Rule::instead("spec.grpcRoute.action.weightedTargets[].weight", "MeshHTTPRoute", WEIGHT),
    Rule::instead("spec.tcpRoute.action.weightedTargets[].weight", "MeshTCPRoute", WEIGHT),
];

const WEIGHT: &str = "the split between versions; without it, each ready task gets the same part";
const LISTENER: &str =
    "the gateway program beside the sidecar listens; a built-in gateway of Kuma 2.x has a MeshGateway";
const GATEWAY_TLS: &str = "certificates of the gateway program, or of the load balancer before it";
const GATEWAY_HEALTH: &str = "checks of the gateway by its callers: those of the load balancer before it";
const GATEWAY_MATCH: &str =
    "routes of the gateway program; a built-in gateway of Kuma 2.x has MeshHTTPRoutes";

const VIRTUAL_GATEWAY: &[Rule] = &[
    Rule::carried("meshName", "Workload.spec.bindings"),
    Rule::carried("virtualGatewayName", "Workload.metadata.name"),
    Rule::needless("metadata", METADATA),
    Rule::needless("status", STATUS),
    Rule::needless("tags", TAGS),
    Rule::needless("clientToken", CREATED),
    Rule::instead("meshOwner", "AwsAccount", SHARED),
    Rule::instead("spec.listeners[].portMapping", "MeshGateway", LISTENER),
    Rule::instead("spec.listeners[].tls", "MeshGateway", GATEWAY_TLS),
    Rule::instead("spec.listeners[].healthCheck", "load balancer", GATEWAY_HEALTH),
    Rule::instead("spec.listeners[].connectionPool", "MeshCircuitBreaker", POOL),
    Rule::instead("spec.backendDefaults.clientPolicy", "MeshTLS", MTLS),
    Rule::instead("spec.logging", "MeshAccessLog", LOG),
];

const GATEWAY_ROUTE: &[Rule] = &[
    Rule::carried("meshName", "Workload.spec.bindings"),
    Rule::carried("virtualGatewayName", "Workload.metadata.name"),
    Rule::needless("gatewayRouteName", "only the target of a gateway route becomes a manifest"),
    Rule::needless("metadata", METADATA),
    Rule::needless("status", STATUS),
    Rule::needless("tags", TAGS),
    Rule::needless("clientToken", CREATED),
    Rule::instead("meshOwner", "AwsAccount", SHARED),
    Rule::instead("spec.priority", "MeshHTTPRoute", GATEWAY_MATCH),
    Rule::instead("spec.httpRoute.match", "MeshHTTPRoute", GATEWAY_MATCH),
    Rule::instead("spec.http2Route.match", "MeshHTTPRoute", GATEWAY_MATCH),
    Rule::instead("spec.grpcRoute.match", "MeshHTTPRoute", GATEWAY_MATCH),
    Rule::instead("spec.httpRoute.action.rewrite", "MeshHTTPRoute", GATEWAY_MATCH),
    Rule::instead("spec.http2Route.action.rewrite", "MeshHTTPRoute", GATEWAY_MATCH),
    Rule::instead("spec.grpcRoute.action.rewrite", "MeshHTTPRoute", GATEWAY_MATCH),
    Rule::carried("spec.httpRoute.action.target.virtualService.virtualServiceName", "outbounds[].service"),
    Rule::carried("spec.http2Route.action.target.virtualService.virtualServiceName", "outbounds[].service"),
    Rule::carried("spec.grpcRoute.action.target.virtualService.virtualServiceName", "outbounds[].service"),
    Rule::carried("spec.httpRoute.action.target.port", "outbounds[].targetPort"),
    Rule::carried("spec.http2Route.action.target.port", "outbounds[].targetPort"),
    Rule::carried("spec.grpcRoute.action.target.port", "outbounds[].targetPort"),
];

/// The rules of all kinds.
pub(crate) const RULES: [ResourceRules; 7] = [
    ResourceRules { kind: "Mesh", rules: MESH },
    ResourceRules { kind: "VirtualNode", rules: VIRTUAL_NODE },
    ResourceRules { kind: "VirtualService", rules: VIRTUAL_SERVICE },
    ResourceRules { kind: "VirtualRouter", rules: VIRTUAL_ROUTER },
    ResourceRules { kind: "Route", rules: ROUTE },
    ResourceRules { kind: "VirtualGateway", rules: VIRTUAL_GATEWAY },
    ResourceRules { kind: "GatewayRoute", rules: GATEWAY_ROUTE },
];

/// The rules of a kind.
pub(crate) fn rules_of(kind: AppMeshKind) -> &'static [Rule] {
    match kind {
        AppMeshKind::Mesh => MESH,
        AppMeshKind::VirtualNode => VIRTUAL_NODE,
        AppMeshKind::VirtualService => VIRTUAL_SERVICE,
        AppMeshKind::VirtualRouter => VIRTUAL_ROUTER,
        AppMeshKind::Route => ROUTE,
        AppMeshKind::VirtualGateway => VIRTUAL_GATEWAY,
        AppMeshKind::GatewayRoute => GATEWAY_ROUTE,
    }
}
