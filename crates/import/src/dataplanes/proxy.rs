//! Reads one proxy: what a `Workload` says of its tasks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ecs_mesh_api::manifests::{broken_description, is_dns_label};
use ecs_mesh_api::{
    AdvertisedEndpoint, Backend, BackendKind, GatewaySettings, GatewayType, Inbound, Listen, Outbound, Probe,
    Protocol, ProxyKind, Reach, WorkloadSpec, ZoneEgressSettings, ZoneIngressSettings, ZoneProxyScope,
};
use ecs_mesh_model::{AdvertisedAddress, ServiceName, Tags};

use super::documents::FoundProxy;
use crate::cursor::Cursor;
use crate::output::new_workload;

const SERVICE_TAG: &str = "kuma.io/service";
const PROTOCOL_TAG: &str = "kuma.io/protocol";
const ZONE_TAG: &str = "kuma.io/zone";
const WORKLOAD_LABEL: &str = "kuma.io/workload";
/// Kuma's ports of zone proxies.
const INGRESS_PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(10_000);
const EGRESS_PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(10_001);

/// A mesh, a service, and what the template says of them.
pub(super) struct ReadProxy {
    pub(super) mesh: Option<String>,
    pub(super) spec: WorkloadSpec,
}

/// The first inbound port of each service, by mesh and service: an outbound by tags names no port.
pub(super) type ServicePorts = BTreeMap<(String, String), NonZeroU16>;

/// The ports of the services of all proxies.
pub(super) fn service_ports(proxies: &[FoundProxy]) -> ServicePorts {
    let mut ports = ServicePorts::new();
    for proxy in proxies {
        let root = &proxy.resource.root;
        let mesh = root.get("mesh").and_then(super::super::tree::SourceNode::as_text).unwrap_or_default();
        for inbound in
            root.at(&["networking", "inbound"]).into_iter().flat_map(super::super::tree::SourceNode::items)
        {
            let service =
                inbound.at(&["tags", SERVICE_TAG]).and_then(super::super::tree::SourceNode::as_text);
            let port = inbound
                .get("port")
                .and_then(super::super::tree::SourceNode::as_text)
                .and_then(|port| port.parse().ok());
            if let (Some(service), Some(port)) = (service, port) {
                ports.entry((mesh.clone(), service)).or_insert(port);
            }
        }
    }
    ports
}

/// Reads a proxy; `None` where it has no service's name, which is noted.
pub(super) fn read(proxy: &FoundProxy, ports: &ServicePorts) -> Option<ReadProxy> {
    let cursor = proxy.resource.cursor();
    for key in ["type", "name"] {
        cursor.text_of(key);
    }
    match proxy.kind {
        "Dataplane" => read_dataplane(proxy, &cursor, ports),
        kind => Some(ReadProxy { mesh: None, spec: read_zone_proxy(kind, &cursor) }),
    }
}

fn read_zone_proxy(kind: &str, cursor: &Cursor<'_>) -> WorkloadSpec {
    let name = cursor.node.get("name").and_then(super::super::tree::SourceNode::as_text).unwrap_or_default();
    let fallback = if kind == "ZoneIngress" { "zone-ingress" } else { "zone-egress" };
    let mut spec = new_workload(service_or(&name, fallback));
    let networking = cursor.get("networking");
    let port = networking.as_ref().and_then(|networking| networking.get("port")).and_then(|port| port.port());
    read_admin(networking.as_ref());
    if kind == "ZoneIngress" {
        spec.proxy = ProxyKind::ZoneIngress;
        let advertised = networking.as_ref().and_then(read_advertised);
        let port = port.unwrap_or(INGRESS_PORT);
        spec.zone_ingress = Some(ZoneIngressSettings { port, advertised, scope: None });
    } else {
        spec.proxy = ProxyKind::ZoneEgress;
        spec.zone_egress = Some(ZoneEgressSettings { port: port.unwrap_or(EGRESS_PORT), scope: None });
    }
    spec
}

/// Both parts of the advertised address, or none.
fn read_advertised(networking: &Cursor<'_>) -> Option<AdvertisedEndpoint> {
    let address = networking.get("advertisedAddress")?;
    let text = address.text()?;
    let parsed = AdvertisedAddress::parse(&text);
    let port = networking.get("advertisedPort").and_then(|port| port.port());
    match (parsed, port) {
        (Ok(address), Some(port)) => Some(AdvertisedEndpoint { address, port }),
        (Err(_), _) => {
            let reason = "only a stack or a task knows the address: write it into the manifest";
            address.lost("Workload.spec.zoneIngress.advertised.address", reason);
            networking.get("advertisedPort").iter().for_each(|port| {
                port.lost("Workload.spec.zoneIngress.advertised.port", "it needs the address");
            });
            None
        }
        (Ok(_), None) => {
            address.lost("Workload.spec.zoneIngress.advertised.address", "it needs the port");
            None
        }
    }
}

/// A name that Kuma takes for a service, without placeholders.
fn service_or(name: &str, fallback: &str) -> ServiceName {
    let name = if name.contains(['{', '$']) { fallback } else { name };
    ServiceName::parse(name)
        .or_else(|_| ServiceName::parse(fallback))
        .unwrap_or_else(|_| unreachable!("the fallback is a service's name"))
}

fn read_dataplane(proxy: &FoundProxy, cursor: &Cursor<'_>, ports: &ServicePorts) -> Option<ReadProxy> {
    let mesh = read_mesh(cursor);
    let networking = cursor.get("networking");
    let label = cursor.at(&["labels", WORKLOAD_LABEL]).and_then(|label| label.text());
    let zone = networking.as_ref().and_then(read_zone_listener);
    let Some(service) = read_service(cursor, label.as_deref(), zone.is_some()) else {
        let reason = "it names no service that is known before a task runs: a tag kuma.io/service, or a label \
                      kuma.io/workload";
        cursor.lost("Workload.spec.service", reason);
        return None;
    };
    let mut spec = new_workload(service);
    note_labels(cursor);
    spec.workload = label.filter(|label| label != spec.service.as_str() && is_dns_label(label));
    if let Some(networking) = &networking {
        read_gateway(networking, &mut spec);
        let inbounds = read_inbounds(networking, spec.service.as_str(), &mut spec.probe);
        let inbounds = set_inbounds(inbounds, &mut spec);
        read_reach(proxy, networking, &mut spec);
        let outbounds = read_outbounds(networking, mesh.as_deref(), ports, &mut spec);
        read_admin(Some(networking));
        drop_refused(&mut spec, inbounds, outbounds);
    }
    match zone {
        Some((ProxyKind::ZoneIngress, port)) => {
            spec.proxy = ProxyKind::ZoneIngress;
            spec.zone_ingress =
                Some(ZoneIngressSettings { port, advertised: None, scope: Some(ZoneProxyScope::Mesh) });
        }
        Some((_, port)) => {
            spec.proxy = ProxyKind::ZoneEgress;
            spec.zone_egress = Some(ZoneEgressSettings { port, scope: Some(ZoneProxyScope::Mesh) });
        }
        None => {}
    }
    if spec.inbounds.is_empty() {
        spec.probe = Probe::Tcp;
    }
    Some(ReadProxy { mesh, spec })
}

/// Labels that a person gave, such as those that policies select.
fn note_labels(cursor: &Cursor<'_>) {
    let labels = cursor.get("labels").map(|labels| labels.entries()).unwrap_or_default();
    for (_, label) in labels
        .into_iter()
        .filter(|(key, _)| !key.starts_with("kuma.io/") && !key.starts_with("ecs-mesh.dev/"))
    {
        let reason = "a Workload has no labels: select its Dataplanes by a tag of its inbounds, which is a label in Kuma 3.x";
        label.lost("Workload.spec.inbounds[].tags", reason);
    }
}

fn read_mesh(cursor: &Cursor<'_>) -> Option<String> {
    let mesh = cursor.get("mesh")?;
    let text = mesh.text()?;
    if text.contains(['{', '$']) {
        let reason = "the template does not say the mesh: give --mesh, or write it into the MeshBinding";
        mesh.changed("MeshBinding.spec.mesh", reason, true);
        return None;
    }
    Some(text)
}

/// The service of the gateway, of the first inbound, or of the label.
fn read_service(cursor: &Cursor<'_>, label: Option<&str>, is_zone_proxy: bool) -> Option<ServiceName> {
    let gateway = cursor.at(&["networking", "gateway", "tags", SERVICE_TAG]);
    let first = || cursor.get("networking")?.list("inbound").first()?.at(&["tags", SERVICE_TAG]);
    if let Some(name) = gateway.or_else(first).and_then(|tag| tag.text()) {
        return ServiceName::parse(&name).ok();
    }
    if let Some(label) = label {
        return ServiceName::parse(label).ok();
    }
    let name = cursor.node.get("name").and_then(super::super::tree::SourceNode::as_text).unwrap_or_default();
    is_zone_proxy.then(|| service_or(&name, "zone-proxy"))
}

fn read_gateway(networking: &Cursor<'_>, spec: &mut WorkloadSpec) {
    let Some(gateway) = networking.get("gateway") else { return };
    let kind = gateway.get("type");
    let kind = match kind.as_ref().and_then(Cursor::text).as_deref() {
        None | Some("DELEGATED") => GatewayType::Delegated,
        Some("BUILTIN") => GatewayType::Builtin,
        Some(other) => {
            let reason = format!("{other:?} is no type of gateway that Kuma knows");
            kind.iter().for_each(|kind| kind.lost("Workload.spec.gateway.type", reason.clone()));
            GatewayType::Delegated
        }
    };
    spec.proxy = ProxyKind::Gateway;
    spec.gateway = Some(GatewaySettings { kind });
}

/// A Dataplane with a listener of a zone proxy.
fn read_zone_listener(networking: &Cursor<'_>) -> Option<(ProxyKind, NonZeroU16)> {
    let mut listeners = networking.list("listeners").into_iter();
    let listener = listeners.next()?;
    for further in listeners {
        further.lost("Workload.spec.proxy", "a Workload is one zone proxy: write a second one");
    }
    let kind = listener.get("type")?;
    let (kind, default) = match kind.text()?.as_str() {
        "ZoneIngress" => (ProxyKind::ZoneIngress, INGRESS_PORT),
        "ZoneEgress" => (ProxyKind::ZoneEgress, EGRESS_PORT),
        other => {
            kind.lost("Workload.spec.proxy", format!("{other:?} is no type of listener that Kuma knows"));
            return None;
        }
    };
    Some((kind, listener.get("port").and_then(|port| port.port()).unwrap_or(default)))
}

fn set_inbounds<'a>(read: Vec<(Cursor<'a>, Inbound)>, spec: &mut WorkloadSpec) -> Vec<Cursor<'a>> {
    let (places, inbounds) = read.into_iter().unzip();
    spec.inbounds = inbounds;
    places
}

/// Leaves out the inbounds and outbounds that the rules of manifests refuse, such as those on ports that the sidecar uses
/// itself.
fn drop_refused(spec: &mut WorkloadSpec, mut inbounds: Vec<Cursor<'_>>, mut outbounds: Vec<Cursor<'_>>) {
    loop {
        let broken = broken_description(spec);
        let refused = broken.iter().find_map(|(path, message)| {
            let at = |list: &str| -> Option<usize> {
                path.strip_prefix("spec.")?
                    .strip_prefix(list)?
                    .strip_prefix('[')?
                    .split(']')
                    .next()?
                    .parse()
                    .ok()
            };
            let inbound = at("inbounds").filter(|index| *index < inbounds.len());
            let outbound = at("outbounds").filter(|index| *index < outbounds.len());
            (inbound.is_some() || outbound.is_some()).then_some((inbound, outbound, message))
        });
        let Some((inbound, outbound, message)) = refused else { return };
        if let Some(index) = inbound {
            inbounds.remove(index).lost("Workload.spec.inbounds", message.clone());
            spec.inbounds.remove(index);
        }
        if let Some(index) = outbound
            && let Some(list) = &mut spec.outbounds
        {
            outbounds.remove(index).lost("outbounds", message.clone());
            list.remove(index);
        }
    }
}

fn read_inbounds<'a>(
    networking: &Cursor<'a>,
    service: &str,
    probe: &mut Probe,
) -> Vec<(Cursor<'a>, Inbound)> {
    let mut inbounds: Vec<(Cursor<'a>, Inbound)> = Vec::new();
    let mut has_probe = false;
    for cursor in networking.list("inbound") {
        if let Some(other) = cursor.at(&["tags", SERVICE_TAG])
            && other.text().is_some_and(|other| other != service)
        {
            let reason =
                "a Workload has one service: this inbound is left out, so call its port by that service";
            cursor.lost("Workload.spec.inbounds", reason);
            continue;
        }
        let Some(inbound) = read_inbound(&cursor) else {
            cursor.lost(
                "Workload.spec.inbounds",
                "the inbound is left out: the input does not say both of its ports",
            );
            continue;
        };
        has_probe |= cursor.at(&["serviceProbe", "tcp"]).is_some_and(|tcp| {
            tcp.mark_used();
            true
        });
        inbounds.push((cursor, inbound));
    }
    *probe = if has_probe { Probe::Tcp } else { Probe::None };
    inbounds
}

fn read_inbound(cursor: &Cursor<'_>) -> Option<Inbound> {
    let port = cursor.get("port")?.port()?;
    let container_port = match cursor.get("servicePort") {
        Some(service_port) => service_port.port()?,
        None => port,
    };
    let address = cursor.get("serviceAddress");
    let mut service_address: Option<IpAddr> = address.as_ref().and_then(|address| {
        let parsed = address.text()?.parse().ok();
        if parsed.is_none() {
            address.needless("the app's address is the task's own");
        }
        parsed
    });
    if port == container_port && !service_address.is_some_and(|address| address.is_loopback()) {
        let reason = "the sidecar and the app cannot listen on the same port of the task: let the app listen on \
                      127.0.0.1, or choose another port";
        service_address = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
        cursor.get("port").iter().for_each(|port| {
            port.changed("Workload.spec.inbounds[].serviceAddress", reason, true);
        });
    }
    let tags = cursor.get("tags");
    let protocol = cursor.get("protocol").or_else(|| tags.as_ref()?.get(PROTOCOL_TAG));
    Some(Inbound {
        name: read_inbound_name(cursor),
        container: None,
        container_port,
        port,
        service_address,
        protocol: protocol.map(|protocol| read_protocol(&protocol)).unwrap_or_default(),
        tags: tags.map(|tags| read_tags(&tags)).unwrap_or_default(),
    })
}

fn read_inbound_name(cursor: &Cursor<'_>) -> Option<String> {
    let cursor = cursor.get("name")?;
    let name = cursor.text()?;
    if is_dns_label(&name) {
        return Some(name);
    }
    cursor.lost("Workload.spec.inbounds[].name", "it is no DNS label, which a MeshService's port needs");
    None
}

fn read_protocol(cursor: &Cursor<'_>) -> Protocol {
    match cursor.text().unwrap_or_default().as_str() {
        "tcp" => Protocol::Tcp,
        "http" => Protocol::Http,
        "http2" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "kafka" => Protocol::Kafka,
        other => {
            let reason = format!("{other:?} is no protocol that Kuma knows: connections pass as TCP");
            cursor.changed("Workload.spec.inbounds[].protocol", reason, true);
            Protocol::Tcp
        }
    }
}

/// Tags that follow from no other field.
fn read_tags(cursor: &Cursor<'_>) -> Tags {
    let mut tags = Vec::new();
    for (key, cursor) in cursor.entries() {
        if [SERVICE_TAG, PROTOCOL_TAG, ZONE_TAG].contains(&key) {
            // The protocol of the inbound itself outranks its tag.
            cursor.mark_used();
            continue;
        }
        let Some(value) = cursor.text() else { continue };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_:".contains(&b);
        if !value.is_empty() && value.bytes().all(allowed) && key.bytes().all(|b| allowed(b) || b == b'/') {
            tags.push((key.to_owned(), value));
        } else {
            cursor.lost(
                "Workload.spec.inbounds[].tags",
                "only a task knows the value, or Kuma does not allow it",
            );
        }
    }
    tags.into_iter().collect()
}

/// Whether the sidecar binds what it calls, and the backends that it may bind.
fn read_reach(proxy: &FoundProxy, networking: &Cursor<'_>, spec: &mut WorkloadSpec) {
    let proxying = networking.get("transparentProxying");
    let backends = proxying.as_ref().and_then(|proxying| proxying.get("reachableBackends"));
    let services = proxying.as_ref().and_then(|proxying| proxying.get("reachableServices"));
    if !proxy.task.binds_outbounds && backends.is_none() && services.is_none() {
        return;
    }
    spec.reach = Reach::BindOutbounds;
    if let Some(backends) = backends {
        backends.get("refs").filter(|refs| refs.node.items().is_empty()).iter().for_each(Cursor::mark_used);
        if backends.node.entries().is_empty() {
            backends.mark_used();
        }
        let refs = backends.list("refs");
        let read = |backend: &Cursor<'_>| {
            let outbound = read_backend(backend, None);
            if outbound.is_none() {
                backend
                    .lost("outbounds", "the backend is left out: the input does not say its kind and name");
            }
            outbound
        };
        spec.outbounds = Some(refs.iter().filter_map(read).collect());
    } else if services.is_some() {
        let services = proxying.map(|proxying| proxying.list("reachableServices")).unwrap_or_default();
        let names: Vec<(Cursor<'_>, String)> =
            services.into_iter().filter_map(|service| Some((service.clone(), service.text()?))).collect();
        if names.iter().any(|(_, name)| name == "*") {
            return;
        }
        let outbound = |(cursor, name): &(Cursor<'_>, String)| match ServiceName::parse(name) {
            Ok(service) => Some(Outbound { service: Some(service), ..Outbound::default() }),
            Err(_) => {
                cursor
                    .lost("outbounds[].service", "it is no service's name that is known before a task runs");
                None
            }
        };
        spec.outbounds = Some(names.iter().filter_map(outbound).collect());
    }
}

/// A reference to a backend, with the listener of an outbound.
fn read_backend(cursor: &Cursor<'_>, listen: Option<Listen>) -> Option<Outbound> {
    let kind_cursor = cursor.get("kind")?;
    let kind_text = kind_cursor.text()?;
    let Some(kind) = BackendKind::ALL.into_iter().find(|kind| kind.as_str() == kind_text) else {
        cursor
            .lost("outbounds[].backend.kind", format!("{kind_text:?} is no kind that a Dataplane can call"));
        return None;
    };
    let name = cursor.get("name").and_then(|name| {
        let text = name.text()?;
        if is_dns_label(&text) {
            return Some(text);
        }
        name.lost("outbounds[].backend.name", "it is no DNS label that is known before a task runs");
        None
    });
    let labels: Tags = cursor
        .get("labels")
        .map(|labels| labels.entries())
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value.text()?)))
        .collect();
    if name.is_none() && labels.is_empty() {
        return None;
    }
    let port = cursor.get("port");
    let port = match port {
        // With labels, Kuma takes one of the resources alone if a port is given.
        Some(port) if listen.is_none() && name.is_none() => {
            port.lost(
                "outbounds[].backend.port",
                "not possible with labels: all ports of all resources are bound",
            );
            None
        }
        Some(port) => port.port(),
        None => None,
    };
    let backend = Backend { kind, name, labels, port };
    Some(Outbound { service: None, target_port: None, backend: Some(backend), listen })
}

fn read_outbounds<'a>(
    networking: &Cursor<'a>,
    mesh: Option<&str>,
    ports: &ServicePorts,
    spec: &mut WorkloadSpec,
) -> Vec<Cursor<'a>> {
    let outbounds = networking.list("outbound");
    if spec.reach == Reach::BindOutbounds {
        let reason = "a sidecar with --bind-outbounds does not use it";
        outbounds.iter().for_each(|outbound| outbound.needless(reason));
        return Vec::new();
    }
    let mut places = Vec::new();
    for cursor in outbounds {
        let Some(outbound) = read_outbound(&cursor, mesh, ports) else {
            cursor.lost(
                "outbounds",
                "the outbound is left out: the input does not say its listener and its target",
            );
            continue;
        };
        spec.outbounds.get_or_insert_default().push(outbound);
        places.push(cursor);
    }
    places
}

fn read_outbound(cursor: &Cursor<'_>, mesh: Option<&str>, ports: &ServicePorts) -> Option<Outbound> {
    let port = cursor.get("port")?.port()?;
    let address = match cursor.get("address") {
        None => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        Some(address) => {
            let text = address.text()?;
            let Ok(parsed) = text.parse() else {
                address.lost(
                    "outbounds[].listen.address",
                    "it is no IP address that is known before a task runs",
                );
                return None;
            };
            parsed
        }
    };
    let listen = Some(Listen { address, port });
    if let Some(backend) = cursor.get("backendRef") {
        return read_backend(&backend, listen);
    }
    let tag = cursor.at(&["tags", SERVICE_TAG])?;
    let name = tag.text()?;
    let Ok(service) = ServiceName::parse(&name) else {
        tag.lost("outbounds[].service", "it is no service's name that is known before a task runs");
        return None;
    };
    let known = ports.get(&(mesh.unwrap_or_default().to_owned(), name)).copied();
    if known.is_none() {
        let reason = "a tag names no port, and the service's Dataplane is not in the input: correct `targetPort`, which is \
                      the listener's so far";
        tag.changed("outbounds[].targetPort", reason, true);
    }
    Some(Outbound { service: Some(service), target_port: Some(known.unwrap_or(port)), backend: None, listen })
}

fn read_admin(networking: Option<&Cursor<'_>>) {
    let port = networking.and_then(|networking| networking.at(&["admin", "port"]));
    if let Some(port) = port
        && port.node.as_text().as_deref() == Some("9901")
    {
        port.needless("the sidecar's default");
    }
}
