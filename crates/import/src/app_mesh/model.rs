//! The contents of the resources, with the places that have them.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use ecs_mesh_api::manifests::reserved;
use ecs_mesh_api::{AddressFamily, Protocol};

use super::resources::{AppMeshKind, ResourceId, Resources};
use crate::cursor::{Cursor, TrackedResource};

/// A mesh and a name in it.
pub(crate) type NameInMesh = (String, String);

/// A virtual node.
pub(crate) struct VirtualNode<'a> {
    pub(crate) resource: &'a TrackedResource,
    pub(crate) listeners: Vec<NodeListener<'a>>,
    pub(crate) backends: Vec<NamedPlace<'a>>,
    /// Of Cloud Map.
    pub(crate) discovery_name: Option<String>,
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
    pub(crate) targets: Vec<NamedPlace<'a>>,
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
        model
    }

    fn add(&mut self, id: &ResourceId, resource: &'a TrackedResource) {
        let cursor = resource.cursor();
        let key = || (id.mesh.clone(), id.names.last().cloned().unwrap_or_default());
        self.meshes.entry(id.mesh.clone()).or_default();
        cursor.text_of("meshName");
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

fn read_mesh(cursor: &Cursor<'_>) -> Option<AddressFamily> {
    if let Some(filter) = cursor.at(&["spec", "egressFilter", "type"])
        && filter.node.as_text().as_deref() == Some("DROP_ALL")
    {
        filter.lost("security groups", "traffic is not intercepted, so the mesh cannot drop it");
    }
    let preference = cursor.at(&["spec", "serviceDiscovery", "ipPreference"])?;
    match preference.text()?.as_str() {
        "IPv4_ONLY" | "IPv4_PREFERRED" => Some(AddressFamily::Ipv4),
        "IPv6_ONLY" | "IPv6_PREFERRED" => Some(AddressFamily::Ipv6),
        other => {
            preference.lost("MeshBinding.spec.addressFamily", format!("{other:?} is no known preference"));
            None
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
    let backends = backends.iter().filter_map(|backend| place(backend, &names)).collect();
    let discovery = spec.and_then(|spec| spec.at(&["serviceDiscovery", "awsCloudMap", "serviceName"]));
    VirtualNode {
        resource,
        listeners: listeners.into_iter().filter_map(read_listener).collect(),
        backends,
        discovery_name: discovery.and_then(|name| name.node.as_text()),
    }
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
    let mut targets = Vec::new();
    let Some(spec) = cursor.get("spec") else { return Route { targets } };
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
        for target in found {
            let port = target.get("port").and_then(|port| port.port());
            match place(&target, &["virtualNode"]) {
                Some(node) => targets.push(RouteTarget { node, port }),
                None => target.lost("Workload.spec.service", "the target names no virtual node"),
            }
        }
    }
    Route { targets }
}

fn read_gateway_targets<'a>(cursor: &Cursor<'a>) -> Vec<NamedPlace<'a>> {
    let Some(spec) = cursor.get("spec") else { return Vec::new() };
    let routes = ROUTES.iter().filter_map(|key| spec.get(key));
    let names = ["action", "target", "virtualService", "virtualServiceName"];
    routes.filter_map(|route| place(&route, &names)).collect()
}
