//! Calls between workloads: from the backends of virtual nodes and the routes of virtual gateways to outbounds.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use super::model::{AppMeshModel, NameInMesh, NamedPlace, ServiceProvider};
use super::services::{CalledPort, Services, nodes_behind};

const UNKNOWN_SERVICE: &str = "no virtual service of that name is in the input: add the answer that describes it, or an outbound by hand";
const BEHIND_NOTHING: &str = "no virtual node behind the virtual service is in the input";
const NO_LISTENER: &str = "the virtual nodes behind the virtual service have no listener";
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
    places: &[NamedPlace<'_>],
) {
    for place in places {
        let key = (mesh.to_owned(), place.name.clone());
        match called_ports(model, services, &key) {
            Ok(ports) => {
                place.cursor.changed("outbounds", LOOPBACK, true);
                for port in ports {
                    calls.entry(port).or_default().insert(caller.to_owned());
                }
            }
            Err(reason) => place.cursor.lost("outbounds", reason),
        }
    }
}

/// The ports that a virtual service is called by.
fn called_ports(
    model: &AppMeshModel<'_>,
    services: &Services,
    key: &NameInMesh,
) -> Result<Vec<CalledPort>, &'static str> {
    if !model.services.contains_key(key) {
        return Err(UNKNOWN_SERVICE);
    }
    let service = services.of_virtual_service.get(key).ok_or(BEHIND_NOTHING)?;
    let in_mesh = (key.0.clone(), service.clone());
    let all = services.inbound_ports.get(&in_mesh).filter(|ports| !ports.is_empty()).ok_or(NO_LISTENER)?;
    let routed = routed_ports(model, key);
    let ports = all.keys().filter(|port| routed.is_empty() || routed.contains(port));
    let called = |app_port: &NonZeroU16| CalledPort {
        mesh: key.0.clone(),
        service: service.clone(),
        app_port: *app_port,
    };
    Ok(ports.map(called).collect())
}

/// The ports that the routes name, where there is more than one.
fn routed_ports(model: &AppMeshModel<'_>, (mesh, name): &NameInMesh) -> BTreeSet<NonZeroU16> {
    let service = model.services.get(&(mesh.clone(), name.clone()));
    let Some(ServiceProvider::Router(router)) = service.and_then(|service| service.provider.as_ref()) else {
        return BTreeSet::new();
    };
    let routes = model.routers.get(&(mesh.clone(), router.name.clone()));
    routes
        .into_iter()
        .flatten()
        .flat_map(|route| route.targets.iter().filter_map(|target| target.port))
        .collect()
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
