//! Calls between workloads: from the backends of virtual nodes and the routes of virtual gateways to outbounds.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use super::model::{AppMeshModel, CallPlace, NameInMesh, NamedPlace, ServiceProvider};
use super::services::{CalledPort, Services, nodes_behind};

const UNKNOWN_SERVICE: &str = "no virtual service of that name is in the input: add the answer that describes it, or an outbound by hand";
const BEHIND_NOTHING: &str = "no virtual node behind the virtual service is in the input";
const NO_LISTENER: &str = "the virtual nodes behind the virtual service have no listener";
const NO_SUCH_PORT: &str = "the virtual nodes behind the virtual service have no listener on the port that the route or target names";
const LOOPBACK: &str =
    "the app calls the sidecar, at the address and port of `listen`, instead of the DNS name";

/// The called ports, each with the workloads that call it, by their keys.
pub(crate) type CallsByPort = BTreeMap<CalledPort, BTreeSet<String>>;

/// Adds the calls of one workload. Each place gets a note.
pub(crate) fn add_calls(
    calls: &mut CallsByPort,
    model: &AppMeshModel<'_>,
    services: &Services,
    (mesh, caller): (&str, &str),
    places: &[CallPlace<'_>],
) {
    for CallPlace { service, port } in places {
        let key = (mesh.to_owned(), service.name.clone());
        let port = port.as_ref().and_then(crate::cursor::Cursor::port);
        match called_ports(model, services, &key, port) {
            Ok(ports) => {
                service.cursor.changed("outbounds", LOOPBACK, true);
                for port in ports {
                    calls.entry(port).or_default().insert(caller.to_owned());
                }
            }
            Err(reason) => service.cursor.lost("outbounds", reason),
        }
    }
}

/// The app's ports that a virtual service is called by: those behind one port of it, or else behind all.
fn called_ports(
    model: &AppMeshModel<'_>,
    services: &Services,
    key: &NameInMesh,
    port: Option<NonZeroU16>,
) -> Result<Vec<CalledPort>, &'static str> {
    let Some(virtual_service) = model.services.get(key) else { return Err(UNKNOWN_SERVICE) };
    let service = services.of_virtual_service.get(key).ok_or(BEHIND_NOTHING)?;
    let in_mesh = (key.0.clone(), service.clone());
    let all = services.inbound_ports.get(&in_mesh).filter(|ports| !ports.is_empty()).ok_or(NO_LISTENER)?;
    let routed = match &virtual_service.provider {
        Some(ServiceProvider::Router(router)) => routed_ports(model, (&key.0, &router.name), port),
        _ => port.map(|port| BTreeSet::from([port])),
    };
    let ports = all.keys().filter(|port| routed.as_ref().is_none_or(|routed| routed.contains(port)));
    let called = |app_port: &NonZeroU16| CalledPort {
        mesh: key.0.clone(),
        service: service.clone(),
        app_port: *app_port,
    };
    let found: Vec<CalledPort> = ports.map(called).collect();
    if found.is_empty() { Err(NO_SUCH_PORT) } else { Ok(found) }
}

/// The app's ports that a router's routes lead to, from one of its ports or from all. `None` where a target names no port,
/// since it then has only one.
fn routed_ports(
    model: &AppMeshModel<'_>,
    (mesh, router): (&str, &str),
    port: Option<NonZeroU16>,
) -> Option<BTreeSet<NonZeroU16>> {
    let routes = model.routers.get(&(mesh.to_owned(), router.to_owned()))?;
    let is_for = |own: Option<NonZeroU16>| port.is_none() || own.is_none() || own == port;
    let targets = routes.iter().filter(|route| is_for(route.port)).flat_map(|route| &route.targets);
    targets.map(|target| target.port).collect()
}

/// Notes where a virtual service leads.
pub(crate) fn note_services(model: &AppMeshModel<'_>, services: &Services) {
    for (key, service) in &model.services {
        let name = service.cursor.get("virtualServiceName");
        if services.of_virtual_service.contains_key(key) {
            name.iter().for_each(|name| drop(name.text()));
        } else {
            name.iter().for_each(|name| name.lost("Workload.spec.service", BEHIND_NOTHING));
        }
        match &service.provider {
            None => {
                let cursor = service.cursor.get("spec").unwrap_or_else(|| service.cursor.clone());
                cursor.lost(
                    "Workload.spec.service",
                    "the virtual service has no provider, so that calls have no target",
                );
            }
            Some(ServiceProvider::Node(node)) => {
                if model.nodes.contains_key(&(key.0.clone(), node.name.clone())) {
                    node.cursor.text();
                } else {
                    node.cursor.lost("Workload.spec.service", "no virtual node of that name is in the input");
                }
            }
            Some(ServiceProvider::Router(router)) => note_router(model, services, key, router),
        }
    }
    for ((mesh, _), routes) in &model.routers {
        for target in routes.iter().flat_map(|route| &route.targets) {
            if model.nodes.contains_key(&(mesh.clone(), target.node.name.clone())) {
                target.node.cursor.text();
            } else {
                target
                    .node
                    .cursor
                    .lost("Workload.spec.service", "no virtual node of that name is in the input");
            }
        }
    }
}

fn note_router(model: &AppMeshModel<'_>, services: &Services, key: &NameInMesh, router: &NamedPlace<'_>) {
    let Some(routes) = model.routers.get(&(key.0.clone(), router.name.clone())) else {
        return router.cursor.lost("Workload.spec.service", "no virtual router of that name is in the input");
    };
    if routes.is_empty() {
        return router.cursor.lost("Workload.spec.service", "no route of the virtual router is in the input");
    }
    let of_nodes: BTreeSet<&String> =
        nodes_behind(model, key).iter().filter_map(|node| services.of_node.get(node)).collect();
    if of_nodes.len() > 1 {
        let reason =
            "its virtual nodes belong to several services: calls reach one of them until a route splits them";
        router.cursor.lost("MeshHTTPRoute", reason);
    } else {
        router.cursor.text();
    }
}
