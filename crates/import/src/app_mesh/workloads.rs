//! `Workload`s and `OutboundList`s of virtual nodes and virtual gateways.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use ecs_mesh_api::{
    GatewaySettings, Inbound, Listen, Outbound, OutboundListSpec, ProxyKind, WorkloadSelector, WorkloadSpec,
};
use ecs_mesh_model::{Glob, ServiceName, Tags};

use super::calls::{CallsByPort, add_calls, note_services};
use super::model::{AppMeshModel, NameInMesh, NodeDiscovery, VirtualGateway, VirtualNode};
use super::note_name;
use super::services::{CalledPort, Services, choose_listen_ports};
use crate::cursor::Cursor;
use crate::import::ImportOptions;
use crate::names::{NameRule, assign};
use crate::output::{ImportedManifest, new_workload};

/// A name that a manifest has, and the tasks that it selects.
#[derive(Clone, Debug)]
pub(super) struct Named {
    /// `metadata.name`.
    pub(super) name: String,
    tasks: SelectedTasks,
}

/// The tasks of a virtual node or gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SelectedTasks {
    /// Of the ECS service that an attribute in Cloud Map names.
    Service(String),
    /// Of the family that an attribute in Cloud Map names.
    Family(String),
    /// Of the ECS service that is expected to have the name of the service in Cloud Map.
    Discovered(String),
    /// Of the ECS service that is expected to have the name of the resource.
    Guessed(String),
}

impl SelectedTasks {
    fn of_node(name: &str, discovery: &NodeDiscovery<'_>, is_unique: bool) -> Self {
        match discovery {
            NodeDiscovery { ecs_service: Some(service), .. } => Self::Service(service.name.clone()),
            NodeDiscovery { family: Some(family), .. } => Self::Family(family.name.clone()),
            NodeDiscovery { name: Some(name), .. } if is_unique && !name.is_empty() => {
                Self::Discovered(name.clone())
            }
            _ => Self::Guessed(name.to_owned()),
        }
    }

    fn selector(&self) -> WorkloadSelector {
        match self {
            Self::Family(family) => {
                WorkloadSelector { families: vec![Glob::new(family)], ..WorkloadSelector::default() }
            }
            Self::Service(service) | Self::Discovered(service) | Self::Guessed(service) => {
                WorkloadSelector { services: vec![Glob::new(service)], ..WorkloadSelector::default() }
            }
        }
    }
}

/// The names of all manifests.
pub(super) struct WorkloadNames {
    /// By mesh.
    pub(super) bindings: BTreeMap<String, String>,
    nodes: BTreeMap<NameInMesh, Named>,
    gateways: BTreeMap<NameInMesh, Named>,
}

impl WorkloadNames {
    pub(super) fn of(model: &AppMeshModel<'_>) -> Self {
        let bindings = model.meshes.keys().map(|mesh| (mesh.clone(), mesh.clone())).collect();
        let bindings = assign(NameRule::Manifest, &bindings);
        let of_all = || {
            model
                .nodes
                .keys()
                .map(|key| (key, "node"))
                .chain(model.gateways.keys().map(|key| (key, "gateway")))
        };
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for ((_, name), _) in of_all() {
            *counts.entry(name).or_default() += 1;
        }
        let wanted = |((mesh, name), kind): (&NameInMesh, &str)| {
            let wanted = if counts[name.as_str()] > 1 { format!("{mesh}-{name}") } else { name.clone() };
            (format!("{kind}/{mesh}/{name}"), wanted)
        };
        let names = assign(NameRule::Manifest, &of_all().map(wanted).collect());
        let mut discovered: BTreeMap<&str, usize> = BTreeMap::new();
        for name in model.nodes.values().filter_map(|node| node.discovery.name.as_deref()) {
            *discovered.entry(name).or_default() += 1;
        }
        let node = |(key, node): (&NameInMesh, &VirtualNode<'_>)| {
            // Versions of a service often share a name in Cloud Map, and a task must be one workload.
            let is_unique = node.discovery.name.as_deref().is_some_and(|name| discovered[name] == 1);
            let name = names[&format!("node/{}/{}", key.0, key.1)].clone();
            (key.clone(), Named { name, tasks: SelectedTasks::of_node(&key.1, &node.discovery, is_unique) })
        };
        let gateway = |key: &NameInMesh| {
            let name = names[&format!("gateway/{}/{}", key.0, key.1)].clone();
            (key.clone(), Named { name, tasks: SelectedTasks::Guessed(key.1.clone()) })
        };
        Self {
            bindings,
            nodes: model.nodes.iter().map(node).collect(),
            gateways: model.gateways.keys().map(gateway).collect(),
        }
    }

    /// The selectors of a mesh's workloads.
    pub(super) fn selectors(&self, mesh: &str) -> Vec<WorkloadSelector> {
        let all = self.nodes.iter().chain(&self.gateways);
        all.filter(|((own, _), _)| own == mesh).map(|(_, named)| named.tasks.selector()).collect()
    }
}

/// All manifests of workloads and their outbounds.
pub(super) fn manifests(
    model: &AppMeshModel<'_>,
    names: &WorkloadNames,
    options: &ImportOptions,
) -> Vec<ImportedManifest> {
    let services = Services::of(model);
    note_services(model, &services);
    let calls = calls(model, &services, names);
    let used = used_ports(model, &services, names);
    let listen = choose_listen_ports(&calls, |mesh, caller| {
        used.get(&(mesh.to_owned(), caller.to_owned())).cloned().unwrap_or_default()
    });
    let outbounds = OutboundsByWorkload::of(&calls, &listen, &services);
    let mut manifests = Vec::new();
    for (key, node) in &model.nodes {
        let named = &names.nodes[key];
        let mut spec = node_workload(key, node, &services, named);
        finish(&mut spec, key, named, names, &outbounds, options);
        note_selector(named, &node.resource.cursor(), "virtualNodeName", &key.1);
        note_discovery(named, node);
        let comment = format!("App Mesh {}, {}", node.resource.subject, node.resource.place.file);
        manifests.push(ImportedManifest::workload(&named.name, &comment, &spec));
    }
    for (key, gateway) in &model.gateways {
        let named = &names.gateways[key];
        let mut spec = gateway_workload(&services, key, named);
        finish(&mut spec, key, named, names, &outbounds, options);
        note_selector(named, &gateway.resource.cursor(), "virtualGatewayName", &key.1);
        let comment = format!("App Mesh {}, {}", gateway.resource.subject, gateway.resource.place.file);
        manifests.push(ImportedManifest::workload(&named.name, &comment, &spec));
    }
    manifests.extend(outbounds.lists());
    manifests
}

fn note_selector(named: &Named, cursor: &Cursor<'_>, key: &str, source: &str) {
    let Some(cursor) = cursor.get(key) else { return };
    note_name(named, Some(&cursor), "Workload.metadata.name", source);
    if matches!(named.tasks, SelectedTasks::Guessed(_)) {
        let reason =
            "the ECS service is expected to have this name: correct the selector where it has another";
        cursor.changed("Workload.spec.selector.services", reason, true);
    }
}

fn note_discovery(named: &Named, node: &VirtualNode<'_>) {
    let places = [
        (&node.discovery.ecs_service, matches!(named.tasks, SelectedTasks::Service(_))),
        (&node.discovery.family, matches!(named.tasks, SelectedTasks::Family(_))),
    ];
    for (place, is_selected) in places {
        let Some(place) = place else { continue };
        if is_selected {
            place.cursor.mark_used();
        } else {
            place.cursor.needless("the ECS service selects its tasks");
        }
    }
    let cursor = node.resource.cursor();
    let Some(name) = cursor.at(&["spec", "serviceDiscovery", "awsCloudMap", "serviceName"]) else { return };
    match named.tasks {
        SelectedTasks::Discovered(_) => name.mark_used(),
        SelectedTasks::Guessed(_) => {
            name.needless("several virtual nodes have that name in Cloud Map, so it selects none of them");
        }
        SelectedTasks::Service(_) | SelectedTasks::Family(_) => {
            name.needless("an attribute that ECS gives to the tasks selects them");
        }
    }
}

/// The calls of all workloads.
fn calls(model: &AppMeshModel<'_>, services: &Services, names: &WorkloadNames) -> CallsByPort {
    let mut calls = CallsByPort::new();
    for (key, VirtualNode { backends, .. }) in &model.nodes {
        add_calls(&mut calls, model, services, (&key.0, &names.nodes[key].name), backends);
    }
    for (key, VirtualGateway { targets, .. }) in &model.gateways {
        add_calls(&mut calls, model, services, (&key.0, &names.gateways[key].name), targets);
    }
    calls
}

/// The ports that a workload's own processes listen on, by mesh and `metadata.name`.
fn used_ports(
    model: &AppMeshModel<'_>,
    services: &Services,
    names: &WorkloadNames,
) -> BTreeMap<NameInMesh, BTreeSet<NonZeroU16>> {
    let mut used = BTreeMap::new();
    for (key, node) in &model.nodes {
        let service = (key.0.clone(), services.of_node[key].clone());
        let inbound = services.inbound_ports.get(&service);
        let ports = node.listeners.iter().flat_map(|listener| {
            [Some(listener.port), inbound.and_then(|ports| ports.get(&listener.port)).copied()]
        });
        used.insert((key.0.clone(), names.nodes[key].name.clone()), ports.flatten().collect());
    }
    for (key, gateway) in &model.gateways {
        let listeners = gateway.resource.root.at(&["spec", "listeners"]);
        let ports = listeners
            .into_iter()
            .flat_map(super::super::tree::SourceNode::items)
            .filter_map(|listener| listener.at(&["portMapping", "port"])?.as_text()?.parse().ok());
        used.insert((key.0.clone(), names.gateways[key].name.clone()), ports.collect());
    }
    used
}

fn node_workload(
    key: &NameInMesh,
    node: &VirtualNode<'_>,
    services: &Services,
    named: &Named,
) -> WorkloadSpec {
    let service = &services.of_node[key];
    let in_mesh = (key.0.clone(), service.clone());
    let mut spec = new_workload(service_name(service));
    // Versions of a service are told apart by a tag.
    let version = if services.nodes[&in_mesh].len() > 1 { Some(named.name.clone()) } else { None };
    let mut names = BTreeSet::new();
    for listener in &node.listeners {
        let protocol = listener.protocol.as_str().to_owned();
        let name = if names.contains(&protocol) { format!("{protocol}-{}", listener.port) } else { protocol };
        let Some(port) = services.inbound_ports[&in_mesh].get(&listener.port) else { continue };
        if spec.inbounds.iter().any(|inbound| inbound.container_port == listener.port) {
            listener.cursor.lost("Workload.spec.inbounds", "another listener has the same port");
            continue;
        }
        names.insert(name.clone());
        spec.inbounds.push(Inbound {
            name: Some(name),
            container: None,
            container_port: listener.port,
            port: *port,
            service_address: None,
            protocol: listener.protocol,
            tags: version.iter().map(|version| ("version".to_owned(), version.clone())).collect::<Tags>(),
        });
    }
    spec
}

/// A gateway of its own beside the sidecar: in every version of Kuma, and with outbounds.
fn gateway_workload(services: &Services, key: &NameInMesh, named: &Named) -> WorkloadSpec {
    let is_taken = services.nodes.contains_key(&(key.0.clone(), named.name.clone()));
    let closest = NameRule::Label.closest(&named.name);
    let service = if is_taken { NameRule::Label.closest(&format!("{closest}-gateway")) } else { closest };
    let mut spec = new_workload(service_name(&service));
    spec.proxy = ProxyKind::Gateway;
    spec.gateway = Some(GatewaySettings::default());
    spec
}

fn service_name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap_or_else(|_| unreachable!("a DNS label is a service's name"))
}

fn finish(
    spec: &mut WorkloadSpec,
    key: &NameInMesh,
    named: &Named,
    names: &WorkloadNames,
    outbounds: &OutboundsByWorkload,
    options: &ImportOptions,
) {
    spec.bindings = vec![names.bindings[&key.0].clone()];
    spec.selector = WorkloadSelector { tags: options.task_tags.clone(), ..named.tasks.selector() };
    spec.outbounds = outbounds.own.get(&(key.0.clone(), named.name.clone())).cloned();
}

/// Outbounds by workload, and lists of those that several workloads share.
struct OutboundsByWorkload {
    own: BTreeMap<NameInMesh, Vec<Outbound>>,
    shared: Vec<(String, String, BTreeSet<String>, Vec<Outbound>)>,
}

impl OutboundsByWorkload {
    fn of(calls: &CallsByPort, listen: &BTreeMap<CalledPort, NonZeroU16>, services: &Services) -> Self {
        let mut by_service: BTreeMap<NameInMesh, Vec<(&CalledPort, &BTreeSet<String>)>> = BTreeMap::new();
        for (called, callers) in calls {
            by_service
                .entry((called.mesh.clone(), called.service.clone()))
                .or_default()
                .push((called, callers));
        }
        let outbound = |called: &CalledPort| {
            let ports = &services.inbound_ports[&(called.mesh.clone(), called.service.clone())];
            Outbound {
                service: Some(service_name(&called.service)),
                target_port: ports.get(&called.app_port).copied(),
                backend: None,
                listen: listen
                    .get(called)
                    .map(|port| Listen { address: std::net::Ipv4Addr::LOCALHOST.into(), port: *port }),
            }
        };
        let mut found = Self { own: BTreeMap::new(), shared: Vec::new() };
        for ((mesh, service), ports) in by_service {
            let first = ports[0].1;
            if first.len() > 1 && ports.iter().all(|(_, callers)| *callers == first) {
                let outbounds = ports.iter().map(|(called, _)| outbound(called)).collect();
                found.shared.push((mesh, service, first.clone(), outbounds));
                continue;
            }
            for (called, callers) in ports {
                for caller in callers {
                    found.own.entry((mesh.clone(), caller.clone())).or_default().push(outbound(called));
                }
            }
        }
        found
    }

    fn lists(&self) -> Vec<ImportedManifest> {
        let wanted = self.shared.iter().map(|(mesh, service, ..)| {
            let is_unique = self.shared.iter().filter(|(_, other, ..)| other == service).count() == 1;
            let name = if is_unique { format!("{service}-users") } else { format!("{mesh}-{service}-users") };
            (format!("{mesh}/{service}"), name)
        });
        let names = assign(NameRule::Manifest, &wanted.collect());
        let list =
            |(mesh, service, callers, outbounds): &(String, String, BTreeSet<String>, Vec<Outbound>)| {
                let spec = OutboundListSpec {
                    workloads: callers.iter().map(Glob::new).collect(),
                    outbounds: outbounds.clone(),
                };
                let comment = format!("Workloads of App Mesh {mesh} that have {service} as a backend");
                ImportedManifest::outbound_list(&names[&format!("{mesh}/{service}")], &comment, &spec)
            };
        self.shared.iter().map(list).collect()
    }
}
