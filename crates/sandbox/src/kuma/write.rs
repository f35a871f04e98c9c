//! PUT and DELETE: the checks in the server's order, and the stored result.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use ecs_mesh_model::Timestamp;

use super::body::{label, list, object, tag, text};
use super::journal::KumaJournalEntry;
use super::kinds::{BodyShape, ResourceType};
use super::message::KumaMode;
use super::object::{FRAME, MeshAndName, StoredObject, computed_labels};
use super::problem::{FieldViolations, KumaProblem};
use super::proto::{self, mismatch};
use super::release::EmulatedRelease;
use super::rules::{self, DISPLAY_NAME, MESH, ORIGIN, WORKLOAD, ZONE, keyed};
use super::server::KumaCp;
use super::{check_dataplane, check_others};
use ecs_mesh_api::KumaFeature;

const NOT_PROCESSED: &str = "The resource was refused";
const NOT_STORED: &str = "The resource could not be stored";

/// The fields of a body that all types share.
#[derive(Default)]
struct Meta {
    kind: String,
    mesh: String,
    name: String,
    labels: BTreeMap<String, String>,
}

impl KumaCp {
    /// Stores a body. Returns whether the object is new, and the warnings.
    pub(super) fn put(
        &mut self,
        now: Timestamp,
        kind: &'static ResourceType,
        key: &MeshAndName,
        bytes: &[u8],
    ) -> Result<(bool, Vec<String>), KumaProblem> {
        self.require_mesh(&key.0)?;
        let body = parse_object(bytes)?;
        let (meta, spec) = read(kind, self.release(), &body)?;
        let current = self.store.get(kind.name, key).cloned();
        if let Some(current) = &current {
            current.read(kind, key, self.release())?;
        }
        self.check_request(kind, key, &meta).or_invalid(NOT_PROCESSED)?;
        let (object, new) = match current {
            None => (self.created(now, kind, key, &meta, spec)?, true),
            Some(current) => (self.updated(now, kind, key, &meta, spec, &current)?, false),
        };
        if self.take_conflict(key) {
            return Err(KumaProblem::new(
                409,
                "Conflict",
                "Someone else wrote the resource at the same time",
            ));
        }
        let warnings = warnings(kind, self.release(), &object.body);
        self.put_object(now, kind, key, object);
        Ok((new, warnings))
    }

    /// Deletes an object.
    pub(super) fn delete(
        &mut self,
        now: Timestamp,
        kind: &'static ResourceType,
        key: &MeshAndName,
    ) -> Result<(), KumaProblem> {
        self.require_mesh(&key.0)?;
        let current = self.store.get(kind.name, key);
        let current = current.ok_or_else(|| KumaProblem::not_found("Nothing to delete"))?;
        current.read(kind, key, self.release())?;
        if kind.name == "Mesh" {
            if self.store.list("Dataplane", Some(&key.1)).next().is_some() {
                let mut violations = FieldViolations::default();
                violations.add("mesh", "still has Dataplanes: remove them first");
                violations.or_invalid("The mesh could not be deleted")?;
            }
            self.store.remove_mesh(&key.1);
        }
        self.remove_object(now, kind, key);
        Ok(())
    }

    /// Stores an object and schedules the consequences.
    pub(super) fn put_object(
        &mut self,
        now: Timestamp,
        kind: &'static ResourceType,
        key: &MeshAndName,
        mut object: StoredObject,
    ) {
        object.show(kind, key, self.instances.leader.release);
        self.store.put(kind.name, key.clone(), object);
        self.after_write(now, kind, key);
    }

    /// Removes an object and schedules the consequences.
    pub(super) fn remove_object(
        &mut self,
        now: Timestamp,
        kind: &'static ResourceType,
        key: &MeshAndName,
    ) -> Option<StoredObject> {
        let removed = self.store.remove(kind.name, key);
        self.after_write(now, kind, key);
        removed
    }

    /// Runs an HTTP write, and records it in the journal if it succeeds.
    pub(super) fn journaled<T>(
        &mut self,
        now: Timestamp,
        method: &'static str,
        kind: &'static ResourceType,
        key: &MeshAndName,
        write: impl FnOnce(&mut Self) -> Result<T, KumaProblem>,
    ) -> Result<T, KumaProblem> {
        let body = |cp: &Self| cp.store.get(kind.name, key).map(|object| object.body.clone());
        let before = body(self);
        let done = write(self)?;
        let after = body(self);
        let changed = KumaJournalEntry::differ(before.as_ref(), after.as_ref());
        let (mesh, name) = key.clone();
        self.journal.push(KumaJournalEntry {
            at: now,
            method,
            kind: kind.name,
            mesh,
            name,
            before,
            after,
            changed,
        });
        Ok(done)
    }

    fn check_request(&self, kind: &ResourceType, key: &MeshAndName, meta: &Meta) -> FieldViolations {
        let mut violations = FieldViolations::default();
        if meta.name != key.1 {
            violations.add("name", "must be the name in the URL");
        }
        if meta.kind != kind.name {
            violations.add("type", format!("must be {}, as the URL says", kind.name));
        }
        if kind.in_mesh && meta.mesh != key.0 {
            violations.add("mesh", "must be the mesh in the URL");
        }
        self.check_labels(&mut violations, meta);
        rules::name(&mut violations, "name", &meta.name);
        if kind.in_mesh {
            rules::mesh_name(&mut violations, &meta.mesh);
        }
        violations
    }

    fn check_labels(&self, violations: &mut FieldViolations, meta: &Meta) {
        let origin = meta.labels.get(ORIGIN).map_or("", String::as_str);
        if !["", "zone", "global"].contains(&origin) {
            violations.add(keyed("labels", ORIGIN), "must be zone or global");
        }
        if self.config.mode == KumaMode::Global {
            if !["", "global"].contains(&origin) {
                violations.add(keyed("labels", ORIGIN), "must be global here");
            }
        } else if origin != "global" {
            if meta.labels.get(ZONE).is_some_and(|zone| *zone != self.config.zone) {
                violations.add(keyed("labels", ZONE), format!("must be {}, the zone here", self.config.zone));
            }
            if meta.labels.get(MESH).is_some_and(|mesh| *mesh != meta.mesh) {
                violations.add(keyed("labels", MESH), "must be the resource's own mesh");
            }
        }
        rules::labels(violations, meta.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    }

    fn created(
        &self,
        now: Timestamp,
        kind: &ResourceType,
        key: &MeshAndName,
        meta: &Meta,
        mut spec: Map<String, Value>,
    ) -> Result<StoredObject, KumaProblem> {
        if kind.name == "Dataplane" {
            if self.release().has(KumaFeature::WorkloadLabel) {
                check_workload(meta)?;
            }
            self.add_zone_tags(&key.0, &mut spec);
            start_unready(&mut spec);
            self.check_membership(&key.0, &spec)?;
        }
        check_name(kind, self.release(), &key.1)?;
        if kind.name == "Mesh" {
            check_others::certificate_authorities(&json!(spec)).or_invalid(NOT_STORED)?;
        }
        if matches!(kind.shape, BodyShape::MeshService) {
            spec.insert("status".to_owned(), json!({"tls": {}, "dataplaneProxies": {}}));
        }
        let labels = computed_labels(&self.config, self.release(), kind, key, &spec, &meta.labels);
        Ok(StoredObject::new(kind, key, self.release(), (now, now), as_values(labels), spec))
    }

    fn updated(
        &self,
        now: Timestamp,
        kind: &ResourceType,
        key: &MeshAndName,
        meta: &Meta,
        mut spec: Map<String, Value>,
        current: &StoredObject,
    ) -> Result<StoredObject, KumaProblem> {
        let release = self.release();
        let labels = computed_labels(&self.config, release, kind, key, &spec, &meta.labels);
        check_immutable(release, &current.body, &labels).or_invalid("The resource could not be updated")?;
        if kind.name == "Dataplane" {
            self.add_zone_tags(&key.0, &mut spec);
            self.check_membership(&key.0, &spec)?;
        }
        if release >= EmulatedRelease::V3_0 {
            check_name(kind, release, &key.1)?;
        }
        if kind.name == "Mesh" {
            let mut violations = FieldViolations::default();
            let enabled =
                |mesh: Option<&Value>| text(mesh.unwrap_or(&Value::Null), "enabledBackend").to_owned();
            let (before, after) = (enabled(current.body.get("mtls")), enabled(spec.get("mtls")));
            if !before.is_empty() && !after.is_empty() && before != after {
                violations
                    .add("mtls.enabledBackend", "cannot change while mTLS is enabled: disable it first");
            }
            violations.0.extend(check_others::certificate_authorities(&json!(spec)).0);
            violations.or_invalid(NOT_STORED)?;
        }
        if let (BodyShape::MeshService, Some(status)) = (kind.shape, current.body.get("status")) {
            spec.insert("status".to_owned(), status.clone());
        }
        Ok(StoredObject::new(kind, key, release, (current.created, now), as_values(labels), spec))
    }

    /// Adds the zone tag to inbounds and gateways, except to inbounds without tags in an `Exclusive` mesh. Since 3.0, only
    /// gateways have tags.
    fn add_zone_tags(&self, mesh: &str, spec: &mut Map<String, Value>) {
        let Some(networking) = spec.get_mut("networking") else { return };
        let release = self.release();
        let exclusive = self.is_exclusive(mesh) && release.has(KumaFeature::OptionalInbounds);
        let zone = &self.config.zone;
        let inbounds = networking.get_mut("inbound").and_then(Value::as_array_mut);
        if let Some(inbounds) = inbounds.filter(|_| release.has(KumaFeature::InboundTags)) {
            for inbound in inbounds {
                if exclusive && object(inbound, "tags").is_empty() {
                    continue;
                }
                inbound["tags"][ZONE] = json!(zone);
            }
        }
        if let Some(gateway) = networking.get_mut("gateway") {
            gateway["tags"][ZONE] = json!(zone);
        }
    }

    /// Checks the tags by the mesh's membership constraints. A violation is an internal error in 2.14.
    fn check_membership(&self, mesh: &str, spec: &Map<String, Value>) -> Result<(), KumaProblem> {
        let Some(mesh) = self.mesh(mesh, self.release()) else { return Ok(()) };
        let rules = &mesh["constraints"]["dataplaneProxy"];
        let matches = |rule: &Value, holder: &Value| {
            object(rule, "tags").iter().all(|(name, wanted)| {
                let found = tag(holder, name);
                wanted == found || (wanted == "*" && !found.is_empty())
            })
        };
        let networking = spec.get("networking").unwrap_or(&Value::Null);
        let refused = list(networking, "inbound").iter().chain(networking.get("gateway")).any(|holder| {
            let needed = list(rules, "requirements");
            (!needed.is_empty() && !needed.iter().any(|rule| matches(rule, holder)))
                || list(rules, "restrictions").iter().any(|rule| matches(rule, holder))
        });
        if refused {
            return Err(KumaProblem::new(
                500,
                NOT_STORED,
                "The mesh does not admit a Dataplane of these tags",
            ));
        }
        Ok(())
    }
}

/// Parses the body. An absent body is rejected as invalid JSON; `null` is an empty object.
pub(super) fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, KumaProblem> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(other) => Err(KumaProblem::malformed(mismatch(&other, "an object"))),
        Err(error) => Err(KumaProblem::malformed(format!("the body is not JSON: {error}"))),
    }
}

fn read(
    kind: &ResourceType,
    release: EmulatedRelease,
    body: &Map<String, Value>,
) -> Result<(Meta, Map<String, Value>), KumaProblem> {
    let value = || Value::Object(body.clone());
    match kind.shape {
        BodyShape::Proto(message) => {
            let meta = read_meta(body)?;
            let spec = proto::decode(message, release, &value()).map_err(KumaProblem::malformed)?;
            let found = Value::Object(spec.clone());
            let violations = match kind.name {
                "Dataplane" => check_dataplane::check(&found, release),
                "ZoneIngress" => check_others::zone_ingress(&found),
                "ZoneEgress" => check_others::zone_egress(&found),
                _ => check_others::mesh(&found),
            };
            violations.or_invalid(NOT_PROCESSED)?;
            Ok((meta, spec))
        }
        BodyShape::MeshService => {
            let spec = match check_others::mesh_service(body, release) {
                Ok(spec) => spec,
                Err(violations) => {
                    violations.or_invalid(NOT_PROCESSED)?;
                    Value::Null
                }
            };
            let mut meta = read_meta(body)?;
            if !body.contains_key("mesh") {
                "default".clone_into(&mut meta.mesh);
            }
            Ok((meta, Map::from_iter([("spec".to_owned(), spec)])))
        }
        BodyShape::Opaque | BodyShape::Computed => {
            let meta = read_meta(body)?;
            let own = |(field, value): (&String, &Value)| {
                (!FRAME.contains(&field.as_str()) && !value.is_null()).then(|| (field.clone(), value.clone()))
            };
            Ok((meta, body.iter().filter_map(own).collect()))
        }
    }
}

/// Reads the shared fields, whose names ignore case in Go.
fn read_meta(body: &Map<String, Value>) -> Result<Meta, KumaProblem> {
    let field = |name: &str| {
        body.get(name)
            .or_else(|| {
                body.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
            })
            .filter(|value| !value.is_null())
    };
    let string = |name: &str| match field(name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(KumaProblem::malformed(format!("{name}: {}", mismatch(other, "a string")))),
    };
    for time in ["creationTime", "modificationTime"] {
        let text = string(time)?;
        if field(time).is_some() && Timestamp::parse(&text).is_none() {
            return Err(KumaProblem::malformed(format!("{time}: {text:?} is not an RFC 3339 time")));
        }
    }
    let mut labels = BTreeMap::new();
    match field("labels") {
        None => {}
        Some(Value::Object(given)) => {
            for (name, value) in given {
                let value = match value {
                    Value::String(value) => value.clone(),
                    Value::Null => String::new(),
                    other => {
                        return Err(KumaProblem::malformed(format!(
                            "labels: {}",
                            mismatch(other, "a string")
                        )));
                    }
                };
                labels.insert(name.clone(), value);
            }
        }
        Some(other) => {
            return Err(KumaProblem::malformed(format!("labels: {}", mismatch(other, "an object"))));
        }
    }
    Ok(Meta { kind: string("type")?, mesh: string("mesh")?, name: string("name")?, labels })
}

fn check_workload(meta: &Meta) -> Result<(), KumaProblem> {
    match meta.labels.get(WORKLOAD) {
        Some(workload) if !workload.is_empty() && !rules::is_dns_1035_label(workload) => {
            Err(KumaProblem::malformed(format!(
                "the label {WORKLOAD} is {workload:?}; it has at most 63 lower-case letters, digits and '-', starts \
                 with a letter and does not end with '-'"
            )))
        }
        _ => Ok(()),
    }
}

/// Checks the name of a mesh or `MeshService`: at most 63 characters, and an RFC 1035 label since 3.0.
fn check_name(kind: &ResourceType, release: EmulatedRelease, name: &str) -> Result<(), KumaProblem> {
    let mut violations = FieldViolations::default();
    if !has_hostname(kind) {
        return Ok(());
    }
    if release >= EmulatedRelease::V3_0 && !rules::is_dns_1035_label(name) {
        violations.add("name", "must be a lower-case DNS label that starts with a letter");
    } else if name.len() > 63 {
        violations.add("name", "must have at most 63 characters");
    }
    violations.or_invalid(NOT_STORED)
}

/// Whether host names are made of the names of the type.
fn has_hostname(kind: &ResourceType) -> bool {
    matches!(kind.name, "Mesh" | "MeshService")
}

/// Violations by labels that an update changes. Since 2.13, and since 3.0 only the zone.
fn check_immutable(
    release: EmulatedRelease,
    current: &Value,
    labels: &BTreeMap<String, String>,
) -> FieldViolations {
    let immutable: &[&str] = match release {
        EmulatedRelease::V3_0 => &[ZONE],
        EmulatedRelease::V2_13 | EmulatedRelease::V2_14 => &[ORIGIN, ZONE, DISPLAY_NAME],
        _ => &[],
    };
    let mut violations = FieldViolations::default();
    for name in immutable {
        let before = object(current, "labels").get(*name).is_some();
        if before && labels.get(*name).map(String::as_str) != Some(label(current, name)) {
            violations.add(keyed("labels", name), "is immutable");
        }
    }
    violations
}

/// Makes new inbounds with a service probe `NotReady`, as the server does.
fn start_unready(spec: &mut Map<String, Value>) {
    let inbounds = spec
        .get_mut("networking")
        .and_then(|networking| networking.get_mut("inbound"))
        .and_then(Value::as_array_mut);
    for inbound in inbounds.into_iter().flatten() {
        if inbound.get("serviceProbe").is_some() {
            inbound["state"] = json!("NotReady");
            inbound["health"] = json!({});
        }
    }
}

fn warnings(kind: &ResourceType, release: EmulatedRelease, body: &Value) -> Vec<String> {
    if release >= EmulatedRelease::V3_0 {
        let selects = !object(&body["spec"], "selector").is_empty();
        let warns = matches!(kind.shape, BodyShape::MeshService) && !selects;
        return warns
            .then(|| format!("{:?} has no selector, so it has no Dataplanes", text(body, "name")))
            .into_iter()
            .collect();
    }
    if !has_hostname(kind) {
        return Vec::new();
    }
    let name = match label(body, DISPLAY_NAME) {
        "" => text(body, "name"),
        display => display,
    };
    let fits = rules::is_dns_1035_label(name);
    (!fits)
        .then(|| format!("{name:?} is not a DNS label, which will not be allowed later"))
        .into_iter()
        .collect()
}

pub(super) fn as_values(labels: BTreeMap<String, String>) -> Map<String, Value> {
    labels.into_iter().map(|(name, value)| (name, Value::from(value))).collect()
}
