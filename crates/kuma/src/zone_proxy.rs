//! Zone proxies in both forms: `ZoneIngress` and `ZoneEgress`, which are resources of the zone, and Dataplanes with a listener.
//!
//! The resources have the labels of Dataplanes, which servers of 2.7 to 2.14 keep (`pkg/api-server/resource_endpoints.go`). In
//! a federation the lists of a zone also have the resources of other zones, whose origin is `global` there
//! (`pkg/kds/context/context.go`): they are no registrations of this control plane, whatever labels they carry.

use std::fmt;

use serde_json::{Map, Value, json};

use super::labels::{self, CLUSTER_NAME_LABEL};
use super::normalise::{CARRIED_FIELDS, normalise};
use super::stored::{MalformedRegistration, display_name, rendered};
use ecs_mesh_api::{KumaFeature, KumaRelease, ZoneProxy, ZoneProxyKind};
use ecs_mesh_control_plane::http::segment;
use ecs_mesh_control_plane::{ListSegment, Registration, RegistrationOwner, RenderedRegistration};
use ecs_mesh_core::intent::{DesiredRegistration, RegistrationId};
use ecs_mesh_model::{Timestamp, intern};

/// The label of a resource's origin.
const ORIGIN_LABEL: &str = "kuma.io/origin";

/// The path of a type's list.
pub(super) fn list_path(kind: ZoneProxyKind, release: KumaRelease) -> &'static str {
    match kind {
        ZoneProxyKind::Ingress if release.has(KumaFeature::ZoneIngressesPath) => "/zoneingresses",
        ZoneProxyKind::Ingress => "/zone-ingresses",
        ZoneProxyKind::Egress => "/zoneegresses",
    }
}

/// The path of a resource.
pub(super) fn path(kind: ZoneProxyKind, name: &str, release: KumaRelease) -> String {
    format!("{}/{}", list_path(kind, release), segment(name))
}

/// Whether a body is one of the resources.
pub(super) fn is_resource(body: &Value) -> bool {
    let found = body.get("type").and_then(Value::as_str);
    ZoneProxyKind::ALL.iter().any(|kind| found == Some(kind.resource()))
}

/// Renders a `ZoneIngress` or `ZoneEgress`. `current` is of the same task.
pub(super) fn render(
    desired: &DesiredRegistration,
    proxy: &ZoneProxy,
    current: Option<&Registration>,
) -> RenderedRegistration {
    let mut networking = json!({"address": desired.address.to_string(), "port": proxy.port});
    if let Some(advertised) = proxy.advertised() {
        networking["advertisedAddress"] = advertised.address.as_str().into();
        networking["advertisedPort"] = advertised.port.get().into();
    }
    let name = desired.id.zone_proxy().map_or(&*desired.id.name, |(_, name)| name);
    let mut labels = Map::new();
    labels::write_labels(&mut labels, &desired.marks, &desired.cluster_name);
    labels.extend(current.and_then(display_name));
    let mut body = json!({
        "type": proxy.kind().resource(),
        "name": name,
        "labels": labels,
        "networking": networking,
    });
    for field in CARRIED_FIELDS {
        if let Some(value) = current.and_then(|current| current.stored.get(field)) {
            body[field] = value.clone();
        }
    }
    rendered(body)
}

/// The listener of a zone proxy that is a Dataplane.
pub(super) fn listener(desired: &DesiredRegistration, proxy: &ZoneProxy) -> Value {
    json!({
        "type": proxy.kind().resource(),
        "address": desired.address.to_string(),
        "port": proxy.port,
    })
}

/// Reads a stored `ZoneIngress` or `ZoneEgress`.
pub(super) fn registration(
    kind: ZoneProxyKind,
    stored: Value,
) -> Result<Registration, MalformedRegistration> {
    let text = |name: &str| stored.get(name).and_then(Value::as_str);
    let malformed = |problem| MalformedRegistration { id: text("name").unwrap_or("?").to_owned(), problem };
    if !stored.is_object() {
        return Err(malformed("not an object"));
    }
    let name = text("name").filter(|name| !name.is_empty()).ok_or_else(|| malformed("no name"))?;
    let is_object = |field: &str| stored.get(field).is_none_or(|value| value.is_object() || value.is_null());
    for (field, problem) in
        [("labels", "field labels is not an object"), ("networking", "field networking is not an object")]
    {
        if !is_object(field) {
            return Err(malformed(problem));
        }
    }
    Ok(Registration {
        id: RegistrationId::of_zone_proxy(kind, name),
        owner: if is_of_other_zone(&stored) {
            RegistrationOwner::Foreign
        } else {
            labels::read_owner(&stored)
        },
        cluster_name: labels::label(&stored, CLUSTER_NAME_LABEL).map(intern),
        service: None,
        created_at: text("creationTime").and_then(Timestamp::parse),
        drained: labels::read_drain_reason(&stored),
        ready: None,
        has_writer_mark: labels::has_writer_mark(&stored),
        normal: normalise(&stored),
        stored,
    })
}

/// Whether the resource was synced from another zone.
pub(super) fn is_of_other_zone(stored: &Value) -> bool {
    labels::label(stored, ORIGIN_LABEL) == Some("global")
}

/// The zone proxies of one type, which have a list of their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct ZoneProxySegment(pub(super) ZoneProxyKind);

impl fmt::Display for ZoneProxySegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            ZoneProxyKind::Ingress => "zone ingresses",
            ZoneProxyKind::Egress => "zone egresses",
        })
    }
}

impl ListSegment for ZoneProxySegment {
    fn contains(&self, id: &RegistrationId) -> bool {
        id.zone_proxy().is_some_and(|(kind, _)| kind == self.0)
    }

    fn zone_proxies(&self) -> Option<ZoneProxyKind> {
        Some(self.0)
    }
}
