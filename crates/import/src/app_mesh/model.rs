//! The contents of the resources, with the places that have them.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use ecs_mesh_api::manifests::reserved;
use ecs_mesh_api::{AddressFamily, Protocol};

use super::resources::{AppMeshKind, ResourceId, Resources};
use crate::cloudformation::is_of_stack;
use crate::cursor::{Cursor, TrackedResource};
use crate::tree::SourceNode;

/// A mesh and a name in it.
pub(crate) type NameInMesh = (String, String);

/// A virtual node.
pub(crate) struct VirtualNode<'a> {
    pub(crate) resource: &'a TrackedResource,
    pub(crate) listeners: Vec<NodeListener<'a>>,
    pub(crate) backends: Vec<CallPlace<'a>>,
    pub(crate) discovery: NodeDiscovery<'a>,
}

/// The facts about its tasks that a virtual node's service discovery has.
#[derive(Default)]
pub(crate) struct NodeDiscovery<'a> {
    /// The service's name in Cloud Map.
    pub(crate) name: Option<String>,
    /// The ECS service, of the attributes that ECS gives to instances in Cloud Map.
    pub(crate) ecs_service: Option<NamedPlace<'a>>,
    /// The task definition's family, of the same attributes.
    pub(crate) family: Option<NamedPlace<'a>>,
}

/// A port of a virtual node.
pub(crate) struct NodeListener<'a> {
    pub(crate) cursor: Cursor<'a>,
    pub(crate) port: NonZeroU16,
    pub(crate) protocol: Protocol,
}

/// A name that refers to another resource, and its place.
#[derive(Clone)]
pub(crate) struct NamedPlace<'a> {
    pub(crate) name: String,
    pub(crate) cursor: Cursor<'a>,
}

/// A virtual service that is called, its place, and the port if the caller names one.
pub(crate) struct CallPlace<'a> {
    pub(crate) service: NamedPlace<'a>,
    pub(crate) port: Option<Cursor<'a>>,
}

/// A virtual service.
pub(crate) struct VirtualService<'a> {
    pub(crate) cursor: Cursor<'a>,
    pub(crate) provider: Option<ServiceProvider<'a>>,
}

/// The target of a virtual service.
pub(crate) enum ServiceProvider<'a> {
    Node(NamedPlace<'a>),
    Router(NamedPlace<'a>),
}

/// A route of a virtual router.
pub(crate) struct Route<'a> {
    /// The router's port that the route is for; every port without one.
    pub(crate) port: Option<NonZeroU16>,
    pub(crate) targets: Vec<RouteTarget<'a>>,
}

/// A virtual node that a route leads to.
pub(crate) struct RouteTarget<'a> {
    pub(crate) node: NamedPlace<'a>,
    pub(crate) port: Option<NonZeroU16>,
}

/// A virtual gateway.
pub(crate) struct VirtualGateway<'a> {
    pub(crate) resource: &'a TrackedResource,
    /// The virtual services that its routes lead to.
    pub(crate) targets: Vec<CallPlace<'a>>,
}

/// All of it, by mesh and name.
#[derive(Default)]
pub(crate) struct AppMeshModel<'a> {
    pub(crate) meshes: BTreeMap<String, Option<AddressFamily>>,
    pub(crate) nodes: BTreeMap<NameInMesh, VirtualNode<'a>>,
    pub(crate) services: BTreeMap<NameInMesh, VirtualService<'a>>,
    pub(crate) routers: BTreeMap<NameInMesh, Vec<Route<'a>>>,
    pub(crate) gateways: BTreeMap<NameInMesh, VirtualGateway<'a>>,
}

impl<'a> AppMeshModel<'a> {
    pub(crate) fn of(resources: &'a Resources) -> Self {
        let mut model = Self::default();
        for (id, resource) in &resources.found {
            model.add(id, resource);
        }
        // Routes come after all routers and gateways.
        for (id, resource) in &resources.found {
            model.add_route(id, resource);
        }
        note_preferences(&model);
        model
    }

    fn add(&mut self, id: &ResourceId, resource: &'a TrackedResource) {
        let cursor = resource.cursor();
        let key = || (id.mesh.clone(), id.names.last().cloned().unwrap_or_default());
        self.meshes.entry(id.mesh.clone()).or_default();
        cursor.text_of("meshName");
        read_owners(&cursor);
        match id.kind {
            AppMeshKind::Mesh => {
                self.meshes.insert(id.mesh.clone(), read_mesh(&cursor));
            }
            AppMeshKind::VirtualNode => {
                cursor.text_of("virtualNodeName");
                self.nodes.insert(key(), read_node(resource));
            }
            AppMeshKind::VirtualService => {
                self.services.insert(key(), read_service(&cursor));
            }
            AppMeshKind::VirtualRouter => {
                cursor.text_of("virtualRouterName");
                self.routers.entry(key()).or_default();
            }
            AppMeshKind::VirtualGateway => {
                cursor.text_of("virtualGatewayName");
                self.gateways.insert(key(), VirtualGateway { resource, targets: Vec::new() });
            }
            AppMeshKind::Route | AppMeshKind::GatewayRoute => {}
        }
    }

    fn add_route(&mut self, id: &ResourceId, resource: &'a TrackedResource) {
        let cursor = resource.cursor();
        let parent = (id.mesh.clone(), id.names.first().cloned().unwrap_or_default());
        match id.kind {
            AppMeshKind::Route => {
                let route = read_route(&cursor);
                // A route can stand without the answer that describes its router.
                self.routers.entry(parent).or_default().push(route);
                cursor.text_of("virtualRouterName");
            }
            AppMeshKind::GatewayRoute => {
                let targets = read_gateway_targets(&cursor);
                if let Some(gateway) = self.gateways.get_mut(&parent) {
                    gateway.targets.extend(targets);
                    cursor.text_of("virtualGatewayName");
                } else {
                    let reason =
                        "no virtual gateway of that name is in the input, so nothing becomes of the route";
                    cursor.lost("", reason);
                }
            }
            _ => {}
        }
    }
}

/// The account of a resource that another account than the mesh's owns.
pub(super) fn other_owner(root: &SourceNode) -> Option<String> {
    let account = |key| root.at(&["metadata", key]).and_then(SourceNode::as_text);
    account("resourceOwner").filter(|owner| account("meshOwner").is_some_and(|mesh| mesh != *owner))
}

/// In a shared mesh, a resource belongs to another account than its mesh.
fn read_owners(cursor: &Cursor<'_>) {
    if let Some(account) = other_owner(cursor.node)
        && let Some(owner) = cursor.at(&["metadata", "resourceOwner"])
    {
        let reason = format!(
            "the mesh is shared with account {account}: the operator reads tasks of other accounts with an AwsAccount \
             manifest, or another operator runs there"
        );
        owner.lost("AwsAccount", reason);
    }
}

fn read_mesh(cursor: &Cursor<'_>) -> Option<AddressFamily> {
    if let Some(filter) = cursor.at(&["spec", "egressFilter", "type"])
        && filter.node.as_text().as_deref() == Some("DROP_ALL")
    {
        filter.lost("security groups", "traffic is not intercepted, so the mesh cannot drop it");
    }
    let preference = cursor.at(&["spec", "serviceDiscovery", "ipPreference"])?;
    let text = preference.text()?;
    let family = family_of(&text);
    if family.is_none() {
        preference.lost("MeshBinding.spec.addressFamily", format!("{text:?} is no known preference"));
    }
    family
}

fn family_of(preference: &str) -> Option<AddressFamily> {
    match preference {
        "IPv4_ONLY" | "IPv4_PREFERRED" => Some(AddressFamily::Ipv4),
        "IPv6_ONLY" | "IPv6_PREFERRED" => Some(AddressFamily::Ipv6),
        _ => None,
    }
}

/// A virtual node's own preference; a binding has one for all.
fn note_preferences(model: &AppMeshModel<'_>) {
    for ((mesh, _), node) in &model.nodes {
        let of_mesh = model.meshes.get(mesh).copied().flatten().unwrap_or_default();
        let cursor = node.resource.cursor();
        for kind in ["awsCloudMap", "dns"] {
            let Some(own) = cursor.at(&["spec", "serviceDiscovery", kind, "ipPreference"]) else { continue };
            if own.node.as_text().as_deref().and_then(family_of) == Some(of_mesh) {
                own.needless("the binding has the same");
            } else {
                let reason = "a binding registers all tasks by addresses of one family: write a second binding for tasks \
                              that need the other";
                own.lost("MeshBinding.spec.addressFamily", reason);
            }
        }
    }
}

fn read_node(resource: &TrackedResource) -> VirtualNode<'_> {
    let cursor = resource.cursor();
    let spec = cursor.get("spec");
    let spec = spec.as_ref();
    let listeners = spec.map(|spec| spec.list("listeners")).unwrap_or_default();
    let backends = spec.map(|spec| spec.list("backends")).unwrap_or_default();
    let names = ["virtualService", "virtualServiceName"];
    let backends = backends.iter().filter_map(|backend| place(backend, &names));
    let discovery = spec.and_then(|spec| spec.get("serviceDiscovery"));
    VirtualNode {
        resource,
        listeners: listeners.into_iter().filter_map(read_listener).collect(),
        backends: backends.map(|service| CallPlace { service, port: None }).collect(),
        discovery: discovery.as_ref().map(read_discovery).unwrap_or_default(),
    }
}

fn read_discovery<'a>(cursor: &Cursor<'a>) -> NodeDiscovery<'a> {
    let mut discovery = NodeDiscovery::default();
    if let Some(hostname) = cursor.at(&["dns", "hostname"]) {
        let reason = "tasks of ECS are registered by their addresses; where no ECS task is behind the name, delete the \
                      Workload and declare a MeshExternalService";
        hostname.lost("MeshExternalService", reason);
    }
    let Some(cloud_map) = cursor.get("awsCloudMap") else { return discovery };
    discovery.name = cloud_map.get("serviceName").and_then(|name| name.node.as_text());
    for attribute in cloud_map.list("attributes") {
        let key = attribute.get("key").and_then(|key| key.node.as_text()).unwrap_or_default();
        let value = place(&attribute, &["value"]).filter(|value| !is_of_stack(&value.name));
        match (key.as_str(), value) {
            ("ECS_SERVICE_NAME", Some(value)) => discovery.ecs_service = Some(value),
            ("ECS_TASK_DEFINITION_FAMILY", Some(value)) => discovery.family = Some(value),
            _ => {
                let reason = "only tasks with the attribute in Cloud Map were called: select them by ECS service, family or tags";
                attribute.lost("Workload.spec.selector", reason);
                continue;
            }
        }
        attribute.get("key").iter().for_each(Cursor::mark_used);
    }
    discovery
}

fn place<'a>(cursor: &Cursor<'a>, keys: &[&str]) -> Option<NamedPlace<'a>> {
    let cursor = cursor.at(keys)?;
    Some(NamedPlace { name: cursor.node.as_text()?, cursor })
}

fn read_listener(cursor: Cursor<'_>) -> Option<NodeListener<'_>> {
    let mapping = cursor.get("portMapping");
    let port = mapping.as_ref().and_then(|mapping| mapping.get("port")).and_then(|port| port.port());
    let Some(port) = port else {
        cursor.lost("Workload.spec.inbounds", "the listener is left out: the input does not say its port");
        return None;
    };
    if let Some(user) = reserved(port) {
        cursor.lost("Workload.spec.inbounds", format!("the listener is left out: {port} is {user}"));
        return None;
    }
    let protocol = mapping.and_then(|mapping| mapping.get("protocol"));
    let protocol = match protocol.as_ref().and_then(Cursor::text).as_deref() {
        None | Some("tcp") => Protocol::Tcp,
        Some("http") => Protocol::Http,
        Some("http2") => Protocol::Http2,
        Some("grpc") => Protocol::Grpc,
        Some(other) => {
            let reason = format!("{other:?} is no protocol that Kuma knows: requests pass as TCP");
            protocol
                .iter()
                .for_each(|cursor| cursor.changed("Workload.spec.inbounds[].protocol", reason.clone(), true));
            Protocol::Tcp
        }
    };
    read_health_check(&cursor);
    Some(NodeListener { cursor, port, protocol })
}

/// The operator's probe is a TCP connection, whatever the check was.
fn read_health_check(listener: &Cursor<'_>) {
    let Some(protocol) = listener.at(&["healthCheck", "protocol"]) else { return };
    match protocol.text().as_deref() {
        Some("tcp") | None => {}
        Some(other) => {
            let reason = format!(
                "the app is ready once its port accepts a TCP connection; a MeshHealthCheck sends the check's \
                 {other} requests"
            );
            protocol.changed("Workload.spec.probe", reason, true);
        }
    }
}

fn read_service<'a>(cursor: &Cursor<'a>) -> VirtualService<'a> {
    let provider = cursor.at(&["spec", "provider"]);
    let provider = provider.and_then(|provider| {
        place(&provider, &["virtualNode", "virtualNodeName"]).map(ServiceProvider::Node).or_else(|| {
            place(&provider, &["virtualRouter", "virtualRouterName"]).map(ServiceProvider::Router)
        })
    });
    VirtualService { cursor: cursor.clone(), provider }
}

const ROUTES: [&str; 4] = ["httpRoute", "http2Route", "grpcRoute", "tcpRoute"];

fn read_route<'a>(cursor: &Cursor<'a>) -> Route<'a> {
    let (mut targets, mut router_port) = (Vec::new(), None);
    let Some(spec) = cursor.get("spec") else { return Route { port: None, targets } };
    for route in ROUTES.iter().filter_map(|key| spec.get(key)) {
        let found = route.get("action").map(|action| action.list("weightedTargets")).unwrap_or_default();
        if let [only] = found.as_slice()
            && let Some(weight) = only.get("weight")
        {
            weight.needless("the only target gets all requests");
        }
        // The default match of a route is all requests.
        if let Some(matched) = route.get("match")
            && let [(key, prefix)] = matched.entries().as_slice()
            && *key == "prefix"
            && prefix.node.as_text().as_deref() == Some("/")
        {
            prefix.needless("the route matches all requests");
        }
        let matched = route.at(&["match", "port"]).and_then(|port| port.node.as_text());
        router_port = matched.and_then(|port| port.parse().ok()).or(router_port);
        for target in found {
            let port = target.get("port").and_then(|port| port.port());
            match place(&target, &["virtualNode"]) {
                Some(node) => targets.push(RouteTarget { node, port }),
                None => target.lost("Workload.spec.service", "the target names no virtual node"),
            }
        }
    }
    Route { port: router_port, targets }
}

fn read_gateway_targets<'a>(cursor: &Cursor<'a>) -> Vec<CallPlace<'a>> {
    let Some(spec) = cursor.get("spec") else { return Vec::new() };
    let routes = ROUTES.iter().filter_map(|key| spec.get(key));
    let names = ["action", "target", "virtualService", "virtualServiceName"];
    let called = |route: Cursor<'a>| {
        Some(CallPlace { service: place(&route, &names)?, port: route.at(&["action", "target", "port"]) })
    };
    routes.filter_map(called).collect()
}
