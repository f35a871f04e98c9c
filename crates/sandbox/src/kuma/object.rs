//! Stored objects, with the fields that the server adds (labels, KRI, SNIs).
//!
//! A store keeps what the writer's release wrote. A server of another release drops the fields that it does not know when
//! it reads, and the store loses them when it writes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;

use serde_json::{Map, Value, json};

use ecs_mesh_model::Timestamp;

use super::body::{label, list, number, section, text};
use super::kinds::{BodyShape, ResourceType};
use super::message::{KumaConfig, KumaMode};
use super::problem::KumaProblem;
use super::proto;
use super::release::EmulatedRelease;
use super::rules::{DISPLAY_NAME, ENV, MESH, ORIGIN, PROXY_TYPE, ZONE};
use ecs_mesh_api::KumaFeature;

/// Mesh (empty for global objects) and name.
pub(super) type MeshAndName = (String, String);

/// A stored object.
#[derive(Clone, Debug)]
pub(super) struct StoredObject {
    /// The response form, as the release in `read_by` reads it.
    pub(super) body: Value,
    read_by: EmulatedRelease,
    /// The type's own top-level fields, as they were written.
    written: Map<String, Value>,
    pub(super) created: Timestamp,
    pub(super) modified: Timestamp,
}

/// The fields of a body that all types share.
pub(super) const FRAME: [&str; 8] =
    ["type", "mesh", "name", "creationTime", "modificationTime", "labels", "kri", "snis"];

impl StoredObject {
    /// An object that a server of `release` writes. `spec` has the type's own top-level fields.
    pub(super) fn new(
        kind: &ResourceType,
        key: &MeshAndName,
        release: EmulatedRelease,
        (created, modified): (Timestamp, Timestamp),
        labels: Map<String, Value>,
        spec: Map<String, Value>,
    ) -> Self {
        let body = response_form(kind, key, release, (created, modified), labels, &spec);
        Self { body, read_by: release, written: spec, created, modified }
    }

    /// The same object with another `spec`, modified at `now`.
    pub(super) fn rewritten(
        &self,
        kind: &ResourceType,
        key: &MeshAndName,
        now: Timestamp,
        spec: Map<String, Value>,
    ) -> Self {
        Self::new(kind, key, self.read_by, (self.created, now), self.labels(), spec)
    }

    pub(super) fn labels(&self) -> Map<String, Value> {
        super::body::object(&self.body, "labels").clone()
    }

    /// The type's own fields.
    pub(super) fn spec(&self) -> Map<String, Value> {
        Self::spec_of(&self.body)
    }

    /// The type's own fields of a response form.
    pub(super) fn spec_of(body: &Value) -> Map<String, Value> {
        let Value::Object(body) = body else { return Map::new() };
        body.iter()
            .filter(|(field, _)| !FRAME.contains(&field.as_str()))
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect()
    }

    /// The response form of a server of `release`, without the fields that it does not know.
    ///
    /// A value that it does not know, such as a gateway's type `BUILTIN` since 3.0, is an internal error.
    pub(super) fn read(
        &self,
        kind: &ResourceType,
        key: &MeshAndName,
        release: EmulatedRelease,
    ) -> Result<Cow<'_, Value>, KumaProblem> {
        if release == self.read_by {
            return Ok(Cow::Borrowed(&self.body));
        }
        let spec = match kind.shape {
            BodyShape::Proto(message) => {
                proto::decode(message, release, &Value::Object(self.written.clone())).map_err(|error| {
                    KumaProblem::new(500, "Could not read a resource", format!("{}: {error}", key.1))
                })?
            }
            BodyShape::MeshService if !release.has(KumaFeature::TagServices) => {
                without_tag_selector(&self.written)
            }
            _ => self.written.clone(),
        };
        let times = (self.created, self.modified);
        Ok(Cow::Owned(response_form(kind, key, release, times, self.labels(), &spec)))
    }

    /// Shows the object as a server of `release` reads it, if that can read it.
    pub(super) fn show(&mut self, kind: &ResourceType, key: &MeshAndName, release: EmulatedRelease) {
        if release == self.read_by {
            return;
        }
        if let Ok(body) = self.read(kind, key, release).map(Cow::into_owned) {
            self.body = body;
            self.read_by = release;
        }
    }
}

fn response_form(
    kind: &ResourceType,
    key: &MeshAndName,
    release: EmulatedRelease,
    (created, modified): (Timestamp, Timestamp),
    labels: Map<String, Value>,
    spec: &Map<String, Value>,
) -> Value {
    let mut body = json!({
        "type": kind.name,
        "name": key.1,
        "creationTime": created.to_string(),
        "modificationTime": modified.to_string(),
    });
    if kind.in_mesh {
        body["mesh"] = json!(key.0);
    }
    if !labels.is_empty() {
        body["labels"] = Value::Object(labels);
    }
    for (field, value) in spec {
        body[field] = value.clone();
    }
    let display = match label(&body, DISPLAY_NAME) {
        "" => key.1.clone(),
        display => display.to_owned(),
    };
    let (zone, namespace) = (label(&body, ZONE).to_owned(), label(&body, "k8s.kuma.io/namespace").to_owned());
    if !kind.short.is_empty() && release >= EmulatedRelease::V2_13 {
        body["kri"] = json!(format!("kri_{}_{}_{zone}_{namespace}_{display}_", kind.short, key.0));
    }
    if matches!(kind.shape, BodyShape::MeshService) && release >= EmulatedRelease::V2_14 {
        let place: Vec<&str> = [key.0.as_str(), &zone, &namespace, &display]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        add_snis(&mut body, &place.join("."));
    }
    body
}

/// The fields of a `MeshService` without `spec.selector.dataplaneTags`, which 3.0 no longer has.
fn without_tag_selector(spec: &Map<String, Value>) -> Map<String, Value> {
    let mut spec = spec.clone();
    let selector = spec.get_mut("spec").and_then(|spec| spec.get_mut("selector"));
    if let Some(selector) = selector.and_then(Value::as_object_mut) {
        selector.remove("dataplaneTags");
    }
    spec
}

fn add_snis(body: &mut Value, place: &str) {
    let mut snis: Vec<(u64, String)> = list(&body["spec"], "ports")
        .iter()
        .map(|port| (number(port, "port"), format!("sni.msvc.{place}.{}", section(port))))
        .collect();
    snis.sort();
    if !snis.is_empty() {
        body["snis"] = snis.into_iter().map(|(port, sni)| json!({"port": port, "sni": sni})).collect();
    }
}

/// The labels of an object: the given ones and the server's. Since 3.0, a given display name and origin are replaced.
pub(super) fn computed_labels(
    config: &KumaConfig,
    release: EmulatedRelease,
    kind: &ResourceType,
    (mesh, name): &MeshAndName,
    spec: &Map<String, Value>,
    given: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut labels = given.clone();
    let zone_mode = config.mode == KumaMode::Zone;
    if release >= EmulatedRelease::V3_0 {
        labels.insert(DISPLAY_NAME.to_owned(), name.clone());
        let origin = if zone_mode { "zone" } else { "global" };
        labels.insert(ORIGIN.to_owned(), origin.to_owned());
    }
    let mut default =
        |name: &str, value: &str| labels.entry(name.to_owned()).or_insert_with(|| value.to_owned()).clone();
    if kind.in_mesh && release >= EmulatedRelease::V2_9 {
        default(MESH, mesh);
    }
    if zone_mode && kind.comes_from_zones() && default(ORIGIN, "zone") != "global" {
        if release >= EmulatedRelease::V2_8 {
            default(ZONE, &config.zone);
        }
        if release >= EmulatedRelease::V2_9 {
            default(ENV, "universal");
        }
    }
    if kind.is_proxy() {
        let networking = spec.get("networking").unwrap_or(&Value::Null);
        if (EmulatedRelease::V2_10..EmulatedRelease::V3_0).contains(&release) {
            labels.insert(PROXY_TYPE.to_owned(), proxy_type(kind, networking).to_owned());
        } else if release >= EmulatedRelease::V3_0 {
            labels.remove(PROXY_TYPE);
        }
        if kind.name == "Dataplane" && release.has(KumaFeature::Listeners) {
            label_listeners(&mut labels, networking);
        }
    }
    labels
}

fn label_listeners(labels: &mut BTreeMap<String, String>, networking: &Value) {
    for listener in ["ZoneIngress", "ZoneEgress"] {
        let name = format!("kuma.io/listener-{}", listener.to_lowercase());
        if list(networking, "listeners").iter().any(|l| text(l, "type") == listener) {
            labels.insert(name, "enabled".to_owned());
        } else {
            labels.remove(&name);
        }
    }
}

fn proxy_type(kind: &ResourceType, networking: &Value) -> &'static str {
    match kind.name {
        "ZoneIngress" => "zoneingress",
        "ZoneEgress" => "zoneegress",
        _ if networking.get("gateway").is_some_and(|gateway| text(gateway, "type") == "BUILTIN") => "gateway",
        _ => "sidecar",
    }
}

/// All objects, by type, mesh and name.
#[derive(Debug, Default)]
pub(super) struct ObjectStore {
    objects: BTreeMap<&'static str, BTreeMap<MeshAndName, StoredObject>>,
    /// Number of changes so far.
    changes: u64,
}

impl ObjectStore {
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn get(&self, kind: &str, key: &MeshAndName) -> Option<&StoredObject> {
        self.objects.get(kind)?.get(key)
    }

    pub(super) fn put(
        &mut self,
        kind: &'static str,
        key: MeshAndName,
        object: StoredObject,
    ) -> Option<StoredObject> {
        self.changes += 1;
        self.objects.entry(kind).or_default().insert(key, object)
    }

    pub(super) fn remove(&mut self, kind: &str, key: &MeshAndName) -> Option<StoredObject> {
        self.changes += 1;
        self.objects.get_mut(kind)?.remove(key)
    }

    /// The objects of a type by mesh and name, or those of one mesh.
    pub(super) fn list(
        &self,
        kind: &str,
        mesh: Option<&str>,
    ) -> impl Iterator<Item = (&MeshAndName, &StoredObject)> {
        let from = match mesh {
            Some(mesh) => Bound::Included((mesh.to_owned(), String::new())),
            None => Bound::Unbounded,
        };
        let mesh = mesh.map(str::to_owned);
        self.objects
            .get(kind)
            .into_iter()
            .flat_map(move |objects| objects.range((from.clone(), Bound::Unbounded)))
            .take_while(move |(key, _)| mesh.as_ref().is_none_or(|mesh| *mesh == key.0))
    }

    /// Shows all objects as a server of `release` reads them.
    pub(super) fn show(&mut self, release: EmulatedRelease) {
        self.changes += 1;
        for (kind, objects) in &mut self.objects {
            let Some(kind) = super::kinds::named(kind) else { continue };
            for (key, object) in objects {
                object.show(kind, key, release);
            }
        }
    }

    /// Removes all objects of a mesh.
    pub(super) fn remove_mesh(&mut self, mesh: &str) {
        self.changes += 1;
        for objects in self.objects.values_mut() {
            objects.retain(|key, _| key.0 != mesh);
        }
    }
}
