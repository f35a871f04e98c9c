//! Stored objects, with the fields that the server adds (labels, KRI, SNIs).

use std::collections::BTreeMap;
use std::ops::Bound;

use serde_json::{Map, Value, json};

use ecs_mesh_model::Timestamp;

use super::body::{label, list, number, section, text};
use super::kinds::{BodyShape, ResourceType};
use super::message::{KumaConfig, KumaMode};
use super::rules::{DISPLAY_NAME, ENV, MESH, ORIGIN, PROXY_TYPE, ZONE};

/// Mesh (empty for global objects) and name.
pub(super) type MeshAndName = (String, String);

/// A stored object in its response form.
#[derive(Clone, Debug)]
pub(super) struct StoredObject {
    pub(super) body: Value,
    pub(super) created: Timestamp,
    pub(super) modified: Timestamp,
}

/// The fields of a body that all types share.
pub(super) const FRAME: [&str; 8] =
    ["type", "mesh", "name", "creationTime", "modificationTime", "labels", "kri", "snis"];

impl StoredObject {
    /// Builds the response form. `spec` has the type's own top-level fields.
    pub(super) fn new(
        kind: &ResourceType,
        key: &MeshAndName,
        created: Timestamp,
        modified: Timestamp,
        labels: Map<String, Value>,
        spec: Map<String, Value>,
    ) -> Self {
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
            body[field] = value;
        }
        let display = match label(&body, DISPLAY_NAME) {
            "" => key.1.clone(),
            display => display.to_owned(),
        };
        let (zone, namespace) =
            (label(&body, ZONE).to_owned(), label(&body, "k8s.kuma.io/namespace").to_owned());
        if !kind.short.is_empty() {
            body["kri"] = json!(format!("kri_{}_{}_{zone}_{namespace}_{display}_", kind.short, key.0));
        }
        if matches!(kind.shape, BodyShape::MeshService) {
            let place: Vec<&str> = [key.0.as_str(), &zone, &namespace, &display]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect();
            add_snis(&mut body, &place.join("."));
        }
        Self { body, created, modified }
    }

    /// The same object with another `spec`, modified at `now`.
    pub(super) fn rewritten(
        &self,
        kind: &ResourceType,
        key: &MeshAndName,
        now: Timestamp,
        spec: Map<String, Value>,
    ) -> Self {
        Self::new(kind, key, self.created, now, self.labels(), spec)
    }

    pub(super) fn labels(&self) -> Map<String, Value> {
        super::body::object(&self.body, "labels").clone()
    }

    /// The type's own fields.
    pub(super) fn spec(&self) -> Map<String, Value> {
        let Value::Object(body) = &self.body else { return Map::new() };
        body.iter()
            .filter(|(field, _)| !FRAME.contains(&field.as_str()))
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect()
    }
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

/// The labels of an object: the given ones and the server's.
pub(super) fn computed_labels(
    config: &KumaConfig,
    kind: &ResourceType,
    mesh: &str,
    spec: &Map<String, Value>,
    given: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut labels = given.clone();
    let mut default =
        |name: &str, value: &str| labels.entry(name.to_owned()).or_insert_with(|| value.to_owned()).clone();
    if kind.in_mesh {
        default(MESH, mesh);
    }
    if config.mode == KumaMode::Zone && kind.comes_from_zones() && default(ORIGIN, "zone") != "global" {
        default(ZONE, &config.zone);
        default(ENV, "universal");
    }
    if kind.is_proxy() {
        let networking = spec.get("networking").unwrap_or(&Value::Null);
        labels.insert(PROXY_TYPE.to_owned(), proxy_type(kind, networking).to_owned());
        for listener in ["ZoneIngress", "ZoneEgress"] {
            if kind.name != "Dataplane" {
                continue;
            }
            let name = format!("kuma.io/listener-{}", listener.to_lowercase());
            if list(networking, "listeners").iter().any(|l| text(l, "type") == listener) {
                labels.insert(name, "enabled".to_owned());
            } else {
                labels.remove(&name);
            }
        }
    }
    labels
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
pub(super) struct ObjectStore(BTreeMap<&'static str, BTreeMap<MeshAndName, StoredObject>>);

impl ObjectStore {
    pub(super) fn get(&self, kind: &str, key: &MeshAndName) -> Option<&StoredObject> {
        self.0.get(kind)?.get(key)
    }

    pub(super) fn put(
        &mut self,
        kind: &'static str,
        key: MeshAndName,
        object: StoredObject,
    ) -> Option<StoredObject> {
        self.0.entry(kind).or_default().insert(key, object)
    }

    pub(super) fn remove(&mut self, kind: &str, key: &MeshAndName) -> Option<StoredObject> {
        self.0.get_mut(kind)?.remove(key)
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
        self.0
            .get(kind)
            .into_iter()
            .flat_map(move |objects| objects.range((from.clone(), Bound::Unbounded)))
            .take_while(move |(key, _)| mesh.as_ref().is_none_or(|mesh| *mesh == key.0))
    }

    /// Removes all objects of a mesh.
    pub(super) fn remove_mesh(&mut self, mesh: &str) {
        for objects in self.0.values_mut() {
            objects.retain(|key, _| key.0 != mesh);
        }
    }
}
