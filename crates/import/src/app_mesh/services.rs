//! Finds the service of each virtual node, and the ports by which it is called.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use ecs_mesh_api::manifests::reserved;

use super::model::{AppMeshModel, NameInMesh, ServiceProvider};
use crate::names::{NameRule, assign};

/// The first port of inbounds.
const FIRST_INBOUND_PORT: u16 = 15_000;
/// The range of ports on loopback for services whose own port is taken.
const LISTEN_PORTS: std::ops::Range<u16> = 20_000..30_000;

const FIRST_UNPRIVILEGED_PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(1023);

/// The services that the virtual nodes are.
#[derive(Default)]
pub(crate) struct Services {
    /// The service of each virtual node.
    pub(crate) of_node: BTreeMap<NameInMesh, String>,
    /// The virtual nodes of each service, by mesh and service.
    pub(crate) nodes: BTreeMap<NameInMesh, Vec<String>>,
    /// The service that each virtual service calls.
    pub(crate) of_virtual_service: BTreeMap<NameInMesh, String>,
    /// The inbound port of each app's port, by mesh and service.
    pub(crate) inbound_ports: BTreeMap<NameInMesh, BTreeMap<NonZeroU16, NonZeroU16>>,
}

impl Services {
    pub(crate) fn of(model: &AppMeshModel<'_>) -> Self {
        let mut services = Self::default();
        let names = service_names(model);
        services.group(model, &names);
        services.choose_inbound_ports(model);
        services
    }

    /// Virtual nodes of one virtual service are one service. A virtual node of several belongs to the one that it
    /// provides directly, or else to the first by name.
    fn group(&mut self, model: &AppMeshModel<'_>, names: &BTreeMap<String, String>) {
        let targets: BTreeMap<&NameInMesh, Vec<NameInMesh>> =
            model.services.keys().map(|key| (key, nodes_behind(model, key))).collect();
        let is_direct =
            |key: &NameInMesh| matches!(model.services[key].provider, Some(ServiceProvider::Node(_)));
        let (direct, routed): (Vec<_>, Vec<_>) = targets.iter().partition(|(key, _)| is_direct(key));
        for (key, nodes) in direct.into_iter().chain(routed) {
            for node in nodes.iter().filter(|node| model.nodes.contains_key(*node)) {
                self.of_node.entry(node.clone()).or_insert_with(|| names[&key_text(key)].clone());
            }
        }
        for node in model.nodes.keys() {
            self.of_node.entry(node.clone()).or_insert_with(|| names[&node_text(node)].clone());
        }
        for ((mesh, node), service) in &self.of_node {
            self.nodes.entry((mesh.clone(), service.clone())).or_default().push(node.clone());
        }
        for (key, nodes) in &targets {
            let own = &names[&key_text(key)];
            let of_nodes: BTreeSet<&String> =
                nodes.iter().filter_map(|node| self.of_node.get(node)).collect();
            let service = if of_nodes.contains(own) { Some(own) } else { of_nodes.first().copied() };
            if let Some(service) = service {
                self.of_virtual_service.insert((*key).clone(), service.clone());
            }
        }
    }

    /// Ports from 15000 on, the same for all virtual nodes of a service, and none that one of their apps uses.
    fn choose_inbound_ports(&mut self, model: &AppMeshModel<'_>) {
        for ((mesh, service), nodes) in &self.nodes {
            let listeners = nodes.iter().filter_map(|node| model.nodes.get(&(mesh.clone(), node.clone())));
            let used: BTreeSet<NonZeroU16> =
                listeners.flat_map(|node| node.listeners.iter().map(|listener| listener.port)).collect();
            let free = (FIRST_INBOUND_PORT..).filter_map(NonZeroU16::new);
            let free = free.filter(|port| !used.contains(port) && reserved(*port).is_none());
            let ports = used.iter().copied().zip(free).collect();
            self.inbound_ports.insert((mesh.clone(), service.clone()), ports);
        }
    }
}

/// The virtual nodes that a virtual service leads to.
pub(crate) fn nodes_behind(model: &AppMeshModel<'_>, (mesh, name): &NameInMesh) -> Vec<NameInMesh> {
    let in_mesh = |name: &str| (mesh.clone(), name.to_owned());
    match model.services.get(&in_mesh(name)).and_then(|service| service.provider.as_ref()) {
        None => Vec::new(),
        Some(ServiceProvider::Node(node)) => vec![in_mesh(&node.name)],
        Some(ServiceProvider::Router(router)) => {
            let routes = model.routers.get(&in_mesh(&router.name)).map(Vec::as_slice).unwrap_or_default();
            let targets = routes.iter().flat_map(|route| &route.targets);
            let mut nodes: Vec<NameInMesh> = targets.map(|target| in_mesh(&target.node.name)).collect();
            nodes.sort();
            nodes.dedup();
            nodes
        }
    }
}

/// The names of all services: the first label of the virtual service's name, or the virtual node's name.
fn service_names(model: &AppMeshModel<'_>) -> BTreeMap<String, String> {
    let mut wanted = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, name) in model.services.keys() {
        *counts.entry(first_label(name)).or_default() += 1;
    }
    let called: BTreeSet<NameInMesh> =
        model.services.keys().flat_map(|key| nodes_behind(model, key)).collect();
    for key in model.services.keys() {
        let label = first_label(&key.1);
        let name = if counts[label] > 1 { &key.1 } else { label };
        wanted.insert(key_text(key), name.to_owned());
    }
    for node in model.nodes.keys().filter(|node| !called.contains(*node)) {
        wanted.insert(node_text(node), node.1.clone());
    }
    assign(NameRule::Label, &wanted)
}

fn first_label(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

fn key_text((mesh, name): &NameInMesh) -> String {
    format!("service/{mesh}/{name}")
}

fn node_text((mesh, name): &NameInMesh) -> String {
    format!("node/{mesh}/{name}")
}

/// A service's port, as callers use it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CalledPort {
    pub(crate) mesh: String,
    pub(crate) service: String,
    /// The app's port.
    pub(crate) app_port: NonZeroU16,
}

/// The port on loopback for each called port, the same for all callers: the app's own port where that is free for each
/// of them, else one that follows from the name.
pub(crate) fn choose_listen_ports(
    calls: &BTreeMap<CalledPort, BTreeSet<String>>,
    used_by: impl Fn(&str, &str) -> BTreeSet<NonZeroU16>,
) -> BTreeMap<CalledPort, NonZeroU16> {
    let mut taken: BTreeMap<String, BTreeSet<NonZeroU16>> = BTreeMap::new();
    let mut counts: BTreeMap<(&str, NonZeroU16), usize> = BTreeMap::new();
    for called in calls.keys() {
        *counts.entry((&called.mesh, called.app_port)).or_default() += 1;
    }
    for (called, callers) in calls {
        let taken = taken.entry(called.mesh.clone()).or_default();
        callers.iter().for_each(|caller| taken.extend(used_by(&called.mesh, caller)));
    }
    let mut chosen = BTreeMap::new();
    for (called, callers) in calls {
        let own = called.app_port;
        let is_unique = counts[&(called.mesh.as_str(), own)] == 1;
        let is_free = callers.iter().all(|caller| !used_by(&called.mesh, caller).contains(&own));
        // A sidecar without root's rights cannot listen below.
        if is_unique && is_free && own >= FIRST_UNPRIVILEGED_PORT && reserved(own).is_none() {
            chosen.insert(called.clone(), own);
            taken.entry(called.mesh.clone()).or_default().insert(own);
        }
    }
    for called in calls.keys().filter(|called| !chosen.contains_key(*called)).cloned().collect::<Vec<_>>() {
        let taken = taken.entry(called.mesh.clone()).or_default();
        let text = format!("{}:{}", called.service, called.app_port);
        let digest = u16::from_str_radix(&ecs_mesh_model::short_digest(&text)[..4], 16).unwrap_or_default();
        let start = digest % (LISTEN_PORTS.end - LISTEN_PORTS.start);
        let ports = (0..LISTEN_PORTS.end - LISTEN_PORTS.start)
            .map(|step| LISTEN_PORTS.start + (start + step) % (LISTEN_PORTS.end - LISTEN_PORTS.start));
        let port =
            ports.filter_map(NonZeroU16::new).find(|port| !taken.contains(port)).unwrap_or(called.app_port);
        taken.insert(port);
        chosen.insert(called, port);
    }
    chosen
}
