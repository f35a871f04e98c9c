//! Renders a desired registration as a Dataplane in the dialect of the server's release, and reads stored Dataplanes.
//!
//! In 2.x, inbounds and outbounds have the tag `kuma.io/service`; in 3.x a Dataplane has the label `kuma.io/workload`, and
//! outbounds refer to the MeshService that the control plane makes of it, whose ports are the inbounds' `port`s. 2.14 has
//! both forms where they do not exclude each other, so that an upgrade to 3.0 keeps the inbounds' protocols.
//!
//! Readiness is carried forward from the stored copy of the same task, inbound by inbound: the control plane decides it,
//! and a write replaces the complete resource.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Map, Value, json};

use super::capabilities::{DataplaneCapabilities, HealthDiscovery};
use super::labels::{self, CLUSTER_NAME_LABEL, DRAIN_LABEL, OPERATOR_LABEL};
use super::normalise::{inbounds_mut, listeners_mut, normalise, without_additions};
use super::reachable::{self, backend_ref, mesh_service};
use super::readiness::stored_readiness;
use super::stored::{MalformedRegistration, display_name, rendered};
use super::zone_proxy;
use ecs_mesh_api::{
    BackendKind, CalledBackend, Inbound, KumaFeature, OutboundListener, Probe, ZoneProxyForm,
};
use ecs_mesh_control_plane::{Registration, RegistrationOwner, RenderedRegistration};
use ecs_mesh_core::intent::{DesiredProxy, DesiredReach, DesiredRegistration, Outbounds, RegistrationId};
use ecs_mesh_core::plan::DrainReason;
use ecs_mesh_model::{MeshName, ServiceName, Timestamp, intern};

pub(super) const SERVICE_TAG: &str = "kuma.io/service";
pub(super) const PROTOCOL_TAG: &str = "kuma.io/protocol";
pub(super) const WORKLOAD_LABEL: &str = "kuma.io/workload";

/// Renders the body of `desired`. Readiness and kept outbounds come from `current` if it belongs to the same task: a
/// reused name inherits nothing from the previous task.
pub(super) fn render(
    desired: &DesiredRegistration,
    current: Option<&Registration>,
    capabilities: DataplaneCapabilities,
) -> RenderedRegistration {
    render_with_services(desired, current, capabilities, &|_, _| true)
}

/// As [`render`], where the mesh may not have the MeshService of each service yet, or not with the port that an outbound
/// declares: an outbound that is a tag is replaced by a `backendRef` only where it has both, since the control plane skips one
/// that it cannot resolve. A tag has no port, so a wrong one shows only then.
pub(super) fn render_with_services(
    desired: &DesiredRegistration,
    current: Option<&Registration>,
    capabilities: DataplaneCapabilities,
    has_mesh_service: &dyn Fn(&str, u16) -> bool,
) -> RenderedRegistration {
    let is_same_task = |owner: &RegistrationOwner| matches!(owner, RegistrationOwner::Owned(labels) if *labels == desired.marks);
    let current = current.filter(|current| is_same_task(&current.owner));
    let kept = reachable::keeping(&desired.reach, current);
    let desired = &match kept {
        Some(reach) => Cow::Owned(DesiredRegistration { reach, ..desired.clone() }),
        None => Cow::Borrowed(desired),
    };
    if let DesiredProxy::Zone(proxy, ZoneProxyForm::Resource) = &desired.proxy {
        return zone_proxy::render(desired, proxy, current);
    }
    let mut networking = Map::new();
    networking.insert("address".to_owned(), desired.address.to_string().into());
    match &desired.proxy {
        DesiredProxy::Gateway(kind) => {
            let gateway = json!({"type": kind.as_str(), "tags": {SERVICE_TAG: desired.service.as_str()}});
            networking.insert("gateway".to_owned(), gateway);
        }
        DesiredProxy::Zone(proxy, ZoneProxyForm::Listener) => {
            networking.insert("listeners".to_owned(), json!([zone_proxy::listener(desired, proxy)]));
        }
        DesiredProxy::Zone(_, ZoneProxyForm::Resource) | DesiredProxy::Sidecar => {}
    }
    let inbounds: Vec<Value> = desired
        .inbounds
        .iter()
        .map(|inbound| render_inbound(inbound, desired, current, capabilities))
        .collect();
    insert_unless_empty(&mut networking, "inbound", inbounds);
    match &desired.reach {
        DesiredReach::Listeners(outbounds) => {
            let rendered = render_outbounds(outbounds, desired, current, capabilities, has_mesh_service);
            insert_unless_empty(&mut networking, "outbound", rendered);
        }
        // Outbounds beside them would take precedence over the reachable backends.
        DesiredReach::Backends(_) | DesiredReach::EveryBackend(_) => {
            if let Some(refs) = reachable::render_refs(desired, current, capabilities) {
                let proxying = json!({"reachableBackends": {"refs": refs}});
                networking.insert("transparentProxying".to_owned(), proxying);
            }
        }
    }
    rendered(json!({
        "type": "Dataplane",
        "mesh": desired.id.mesh.as_str(),
        "name": &*desired.id.name,
        "labels": render_labels(desired, current, capabilities),
        "networking": networking,
    }))
}

/// Renders the drained stored body: not healthy and without `state`. Health discovery leaves such an inbound alone,
/// while it would make a `NotReady` inbound ready again within seconds. A body with neither inbounds nor listeners is
/// only labelled.
pub(super) fn render_drained(current: &Registration, reason: DrainReason) -> RenderedRegistration {
    let mut body = without_additions(&current.stored);
    for inbound in inbounds_mut(&mut body) {
        inbound.remove("state");
        inbound.insert("health".to_owned(), json!({}));
    }
    // An egress that is not ready gets no requests (`GetReadyZoneEgressListeners` in `dataplane_helpers.go`). The state of an
    // ingress changes no routing.
    for listener in listeners_mut(&mut body) {
        listener.insert("state".to_owned(), "NotReady".into());
    }
    let mark = labels::writer_mark(&current.owner);
    if let Some(top) = body.as_object_mut() {
        let labels = top.entry("labels").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.insert(DRAIN_LABEL.to_owned(), reason.as_str().into());
            // The mark is made from the owner's labels; the stored id may be a previous one.
            if let RegistrationOwner::Owned(owner) = &current.owner {
                labels.insert(OPERATOR_LABEL.to_owned(), owner.operator.as_str().into());
            }
            labels.extend(mark);
            labels.extend(display_name(current));
        }
    }
    rendered(body)
}

/// Reads a stored Dataplane.
pub(super) fn registration(stored: Value) -> Result<Registration, MalformedRegistration> {
    let text = |name: &str| stored.get(name).and_then(Value::as_str);
    let malformed = |problem| MalformedRegistration {
        id: format!("{}/{}", text("mesh").unwrap_or("?"), text("name").unwrap_or("?")),
        problem,
    };
    let object_or_absent = |name: &str| stored.get(name).is_none_or(|v| v.is_object() || v.is_null());
    if !stored.is_object() {
        return Err(malformed("not an object"));
    }
    let mesh = text("mesh").and_then(|mesh| MeshName::parse(mesh).ok());
    let mesh = mesh.ok_or_else(|| malformed("no valid mesh name"))?;
    let name = text("name").filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| malformed("no name"))?;
    for (field, problem) in
        [("labels", "field labels is not an object"), ("networking", "field networking is not an object")]
    {
        if !object_or_absent(field) {
            return Err(malformed(problem));
        }
    }
    let service = services(&stored).next().map(intern);
    let service = service.or_else(|| labels::label(&stored, WORKLOAD_LABEL).map(intern));
    Ok(Registration {
        id: RegistrationId { mesh, name: name.into() },
        owner: labels::read_owner(&stored),
        cluster_name: labels::label(&stored, CLUSTER_NAME_LABEL).map(intern),
        service,
        created_at: text("creationTime").and_then(Timestamp::parse),
        drained: labels::read_drain_reason(&stored),
        ready: stored_readiness(&stored),
        has_writer_mark: labels::has_writer_mark(&stored),
        normal: normalise(&stored),
        stored,
    })
}

/// The values of `kuma.io/service` on the inbounds and the gateway of a stored Dataplane.
pub(super) fn services(stored: &Value) -> impl Iterator<Item = &str> {
    let networking = stored.get("networking");
    let inbounds = networking.and_then(|n| n.get("inbound")).and_then(Value::as_array).into_iter().flatten();
    inbounds
        .chain(networking.and_then(|n| n.get("gateway")))
        .filter_map(|tagged| tagged.get("tags")?.get(SERVICE_TAG)?.as_str())
}

fn insert_unless_empty(into: &mut Map<String, Value>, name: &str, items: Vec<Value>) {
    if !items.is_empty() {
        into.insert(name.to_owned(), items.into());
    }
}

fn render_labels(
    desired: &DesiredRegistration,
    current: Option<&Registration>,
    capabilities: DataplaneCapabilities,
) -> Map<String, Value> {
    let mut labels = Map::new();
    if !capabilities.has(KumaFeature::InboundTags) {
        // `expressible` makes sure that all inbounds have the same tags, and that none has a reserved name.
        let tags = desired.inbounds.first().map(Inbound::further_tags).into_iter().flatten();
        labels.extend(tags.map(|(name, value)| (name.to_owned(), value.into())));
    }
    labels::write_labels(&mut labels, &desired.marks, &desired.cluster_name);
    labels.extend(current.and_then(display_name));
    if let Some(workload) = &desired.workload
        && capabilities.has(KumaFeature::WorkloadLabel)
    {
        labels.insert(WORKLOAD_LABEL.to_owned(), (**workload).into());
    }
    labels
}

fn render_inbound(
    inbound: &Inbound,
    desired: &DesiredRegistration,
    current: Option<&Registration>,
    capabilities: DataplaneCapabilities,
) -> Value {
    let mut body = Map::new();
    body.insert("port".to_owned(), inbound.port.get().into());
    body.insert("servicePort".to_owned(), inbound.container_port.get().into());
    if let Some(address) = inbound.service_address {
        body.insert("serviceAddress".to_owned(), address.to_string().into());
    }
    if let Some(name) = inbound.name.as_ref().filter(|_| capabilities.has(KumaFeature::InboundNames)) {
        body.insert("name".to_owned(), name.as_str().into());
    }
    if capabilities.has(KumaFeature::InboundProtocol) {
        body.insert("protocol".to_owned(), inbound.protocol.as_str().into());
    }
    if capabilities.has(KumaFeature::InboundTags) {
        body.insert("tags".to_owned(), render_tags(inbound, desired).into());
    }
    // With a probe the control plane creates the inbound not ready even if health discovery is off, and the inbound
    // would never become ready.
    if desired.probe == Probe::Tcp && capabilities.health_discovery == HealthDiscovery::On {
        body.insert("serviceProbe".to_owned(), json!({"tcp": {}}));
    }
    body.extend(readiness(inbound.port.get(), current, capabilities.health_discovery));
    body.into()
}

fn render_tags(inbound: &Inbound, desired: &DesiredRegistration) -> Map<String, Value> {
    let mut tags: Map<String, Value> =
        inbound.further_tags().map(|(name, value)| (name.to_owned(), value.into())).collect();
    tags.insert(SERVICE_TAG.to_owned(), desired.service.as_str().into());
    tags.insert(PROTOCOL_TAG.to_owned(), inbound.protocol.as_str().into());
    tags
}

/// `state` and `health` of the inbound on this port.
fn readiness(port: u16, current: Option<&Registration>, discovery: HealthDiscovery) -> Map<String, Value> {
    let stored = current.and_then(|current| stored_inbound(&current.stored, port));
    let drained = current.is_some_and(|current| labels::label(&current.stored, DRAIN_LABEL).is_some());
    match (stored, discovery) {
        (Some(_), HealthDiscovery::On) if drained => object(json!({"state": "NotReady"})),
        (Some(_), HealthDiscovery::Off) if drained => ready(),
        // The probe that the inbound waits for is removed, since health discovery is off.
        (Some(stored), HealthDiscovery::Off) if awaits_probe(stored) => ready(),
        (Some(stored), _) => {
            let carried = ["state", "health"];
            carried.iter().filter_map(|f| Some(((*f).to_owned(), stored.get(*f)?.clone()))).collect()
        }
        (None, HealthDiscovery::On) => object(json!({"state": "NotReady"})),
        (None, HealthDiscovery::Off) => Map::new(),
    }
}

fn ready() -> Map<String, Value> {
    object(json!({"state": "Ready", "health": {"ready": true}}))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn awaits_probe(stored: &Value) -> bool {
    stored.get("serviceProbe").is_some() && stored.get("state").and_then(Value::as_str) == Some("NotReady")
}

fn stored_inbound(stored: &Value, port: u16) -> Option<&Value> {
    let inbounds = stored.pointer("/networking/inbound")?.as_array()?;
    inbounds.iter().find(|inbound| inbound.get("port").and_then(Value::as_u64) == Some(port.into()))
}

fn render_outbounds(
    outbounds: &Outbounds<OutboundListener>,
    desired: &DesiredRegistration,
    current: Option<&Registration>,
    capabilities: DataplaneCapabilities,
    has_mesh_service: &dyn Fn(&str, u16) -> bool,
) -> Vec<Value> {
    let stored = current.and_then(|current| current.stored.pointer("/networking/outbound"));
    let stored = stored.and_then(Value::as_array).into_iter().flatten();
    let declared = outbounds.declared();
    let is_declared = |stored: &Value| declared.iter().any(|outbound| listens_at(stored, outbound));
    // In a mesh that was moved to MeshServices, the declared outbound replaces the tag of its service.
    let is_moved = |stored: &&Value| {
        let by_reference = |outbound: &&OutboundListener| is_reference(&outbound.backend, capabilities);
        tagged_service(stored).is_some_and(|service| {
            declared
                .iter()
                .filter(by_reference)
                .any(|outbound| listens_at(stored, outbound) && is_service(&outbound.backend, service))
        })
    };
    let (moved, stored): (Vec<&Value>, Vec<&Value>) = stored.partition(is_moved);
    let has_service = |tag: &str, port: u16| {
        let service = ServiceName::parse(tag).ok();
        let name = service.as_ref().and_then(|service| mesh_service(desired, service, capabilities));
        has_mesh_service(name.unwrap_or(tag), port)
    };
    let is_replaceable = |stored: &&Value| {
        let called = declared.iter().find(|outbound| listens_at(stored, outbound));
        let called = tagged_service(stored).zip(called);
        called.is_none_or(|(service, outbound)| has_service(service, outbound.port.get()))
    };
    let (replaced, waiting): (Vec<&Value>, Vec<&Value>) = moved.into_iter().partition(is_replaceable);
    // An upgrade drops the target of an outbound in the other dialect. The declared outbound of the listener replaces it.
    let (targeted, mut dropped): (Vec<&Value>, Vec<&Value>) =
        stored.into_iter().partition(|outbound| has_target(outbound, capabilities));
    dropped.extend(replaced);
    let is_rendered = |outbound: &&OutboundListener| match outbounds {
        _ if waiting.iter().any(|stored| listens_at(stored, outbound)) => false,
        Outbounds::KeepCurrent { .. } if current.is_some() => {
            dropped.iter().any(|stored| listens_at(stored, outbound))
        }
        _ => true,
    };
    let is_kept = |stored: &&Value| match outbounds {
        Outbounds::Exactly(_) => false,
        Outbounds::AtLeast(_) => !is_declared(stored),
        Outbounds::KeepCurrent { .. } => true,
    };
    let mut sorted: Vec<&OutboundListener> = declared.iter().filter(is_rendered).collect();
    sorted.sort_by_key(|o| (o.listen, *o));
    sorted.dedup();
    let mut rendered: Vec<Value> =
        sorted.into_iter().map(|outbound| render_outbound(outbound, desired, capabilities)).collect();
    rendered.extend(targeted.into_iter().filter(is_kept).chain(waiting.iter().copied()).cloned());
    rendered.sort_by_key(listener);
    rendered
}

/// Whether a stored Dataplane has all that the release needs of it: tags of inbounds, and targets of outbounds. An instance
/// of a newer release hides or drops them.
pub(super) fn is_complete(stored: &Value, capabilities: DataplaneCapabilities) -> bool {
    let items = |list: &str| stored.pointer(list).and_then(Value::as_array).into_iter().flatten();
    let has_tags = |inbound: &Value| inbound.get("tags").is_some();
    (!capabilities.has(KumaFeature::InboundTags) || items("/networking/inbound").all(has_tags))
        && items("/networking/outbound").all(|outbound| has_target(outbound, capabilities))
}

/// Whether an outbound names the backend by a `backendRef`, not by a tag.
fn is_reference(backend: &CalledBackend, capabilities: DataplaneCapabilities) -> bool {
    match backend {
        CalledBackend::Service(_) => capabilities.mesh_services_only(),
        CalledBackend::Resource { .. } | CalledBackend::Labelled { .. } => true,
    }
}

/// Whether the backend is the MeshService that the control plane makes for a service tag.
fn is_service(backend: &CalledBackend, service: &str) -> bool {
    match backend {
        CalledBackend::Service(declared) => declared.as_str() == service,
        CalledBackend::Resource { kind, name } => *kind == BackendKind::MeshService && name == service,
        CalledBackend::Labelled { .. } => false,
    }
}

/// The service of a stored outbound that names it by a tag.
fn tagged_service(outbound: &Value) -> Option<&str> {
    outbound.get("tags")?.get(SERVICE_TAG)?.as_str()
}

/// Whether a stored outbound names its target in a form that the server knows.
fn has_target(outbound: &Value, capabilities: DataplaneCapabilities) -> bool {
    let has_tags = capabilities.has(KumaFeature::OutboundTags) && outbound.get("tags").is_some();
    has_tags || outbound.get("backendRef").is_some()
}

/// Whether a stored outbound has the listener of this one.
fn listens_at(stored: &Value, outbound: &OutboundListener) -> bool {
    listener(stored) == (Some(outbound.listen.address), Some(outbound.listen.port.get().into()))
}

/// The address and the port of a rendered or stored outbound.
fn listener(outbound: &Value) -> (Option<IpAddr>, Option<u64>) {
    let address = outbound.get("address").and_then(Value::as_str).and_then(|text| text.parse().ok());
    // Kuma's default of an outbound without an address.
    let address = address.or(outbound.get("address").is_none().then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    (address, outbound.get("port").and_then(Value::as_u64))
}

fn render_outbound(
    outbound: &OutboundListener,
    desired: &DesiredRegistration,
    capabilities: DataplaneCapabilities,
) -> Value {
    let mut body = object(json!({
        "address": outbound.listen.address.to_string(),
        "port": outbound.listen.port.get(),
    }));
    match &outbound.backend {
        CalledBackend::Service(service) if !is_reference(&outbound.backend, capabilities) => {
            body.insert("tags".to_owned(), json!({SERVICE_TAG: service.as_str()}));
        }
        backend => {
            let mut target = backend_ref(backend, desired, capabilities);
            target.insert("port".to_owned(), outbound.port.get().into());
            body.insert("backendRef".to_owned(), target.into());
        }
    }
    body.into()
}
