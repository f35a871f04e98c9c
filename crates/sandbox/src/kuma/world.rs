//! Connections of proxies, health discovery, and clean-up of disconnected Dataplanes.
//!
//! The caller reports changes of sidecars and applications, and [`KumaCp::tick`] applies their consequences.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use ecs_mesh_model::Timestamp;

use super::body::{inbounds, state, text, workload_port};
use super::kinds::{self, ResourceType};
use super::object::{MeshAndName, StoredObject, computed_labels};
use super::server::KumaCp;
use super::template_mode::TEMPLATE_CLEANUP_AGE;
use super::write::as_values;

/// Time from the connection to Envoy's first health report.
const FIRST_REPORT: Duration = Duration::from_secs(1);
/// Time from a write of `NotReady` without a probe to the report that reverts it.
const NEXT_REPORT: Duration = Duration::from_millis(3500);
/// Time from the application's first response to its report.
const PROBE_UP: Duration = Duration::from_secs(6);
/// Time from the application's last response to its report.
const PROBE_DOWN: Duration = Duration::from_secs(5);
/// Time from a sidecar's last disconnect to the deletion of its Dataplane, as
/// `KUMA_RUNTIME_UNIVERSAL_DATAPLANE_CLEANUP_AGE` by default.
pub(super) const DATAPLANE_CLEANUP_AGE: Duration = Duration::from_hours(72);
/// Maximum number of connections of an insight.
const REMEMBERED: usize = 10;

/// One connection of a sidecar.
#[derive(Clone, Copy, Debug)]
pub(super) struct SidecarConnection {
    pub(super) since: Timestamp,
    pub(super) until: Option<Timestamp>,
}

/// State of the sidecar of a Dataplane.
#[derive(Debug, Default)]
pub(super) struct ConnectedSidecar {
    address: String,
    /// The Dataplane is deleted soon after the connection ends: its sidecar registered it.
    deletes_at_disconnect: bool,
    pub(super) connections: Vec<SidecarConnection>,
    /// The features that it reports, if it reports them.
    pub(super) features: Option<Vec<String>>,
    /// Whether the application responds on a port, and since when.
    apps: BTreeMap<u16, (bool, Timestamp)>,
}

impl ConnectedSidecar {
    /// Start of the current connection.
    pub(super) fn connected(&self) -> Option<Timestamp> {
        self.connections.last().filter(|last| last.until.is_none()).map(|last| last.since)
    }
}

/// The sidecars of Dataplanes.
#[derive(Debug, Default)]
pub(super) struct ConnectedSidecars {
    by_key: BTreeMap<MeshAndName, ConnectedSidecar>,
    /// Number of changes so far.
    changes: u64,
}

impl ConnectedSidecars {
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn get(&self, key: &MeshAndName) -> Option<&ConnectedSidecar> {
        self.by_key.get(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &MeshAndName> {
        self.by_key.keys()
    }

    fn get_mut(&mut self, key: &MeshAndName) -> Option<&mut ConnectedSidecar> {
        self.changes += 1;
        self.by_key.get_mut(key)
    }

    fn get_or_default(&mut self, key: &MeshAndName) -> &mut ConnectedSidecar {
        self.changes += 1;
        self.by_key.entry(key.clone()).or_default()
    }
}

impl KumaCp {
    /// Connects a sidecar. Returns false if its Dataplane does not exist: a real sidecar retries every 3 s for 5 min.
    pub fn connect_sidecar(&mut self, mesh: &str, name: &str, address: &str, now: Timestamp) -> bool {
        self.tick(now);
        let key = (mesh.to_owned(), name.to_owned());
        if self.store.get("Dataplane", &key).is_none() {
            return false;
        }
        let sidecar = self.sidecars.get_or_default(&key);
        address.clone_into(&mut sidecar.address);
        sidecar.deletes_at_disconnect = false;
        if sidecar.connected().is_none() {
            sidecar.connections.push(SidecarConnection { since: now, until: None });
            if sidecar.connections.len() > REMEMBERED {
                sidecar.connections.remove(0);
            }
        }
        self.reschedule(&key);
        self.refresh_by(mesh, now);
        true
    }

    /// Sets the features that a sidecar reports in its metadata, such as `feature-bind-outbounds`.
    pub fn set_sidecar_features(&mut self, mesh: &str, name: &str, features: &[&str]) {
        let sidecar = self.sidecars.get_or_default(&(mesh.to_owned(), name.to_owned()));
        sidecar.features = Some(features.iter().map(|feature| (*feature).to_owned()).collect());
    }

    /// Disconnects a sidecar. Its Dataplane and endpoints remain.
    pub fn disconnect_sidecar(&mut self, mesh: &str, name: &str, now: Timestamp) {
        self.tick(now);
        let key = (mesh.to_owned(), name.to_owned());
        let Some(sidecar) = self.sidecars.get_mut(&key) else { return };
        if let Some(last) = sidecar.connections.last_mut().filter(|last| last.until.is_none()) {
            last.until = Some(now);
        }
        if self.store.get("Dataplane", &key).is_none() {
            sidecar.connections.clear();
        }
        self.reschedule(&key);
        self.refresh_by(mesh, now);
    }

    /// Sets whether the Dataplane is deleted soon after its sidecar's connection ends.
    pub(super) fn set_deletes_at_disconnect(&mut self, key: &MeshAndName, deletes: bool) {
        if let Some(sidecar) = self.sidecars.get_mut(key) {
            sidecar.deletes_at_disconnect = deletes;
        }
    }

    /// Sets whether the application responds on a port (the inbound's `servicePort` or `port`). Affects only inbounds
    /// with a `serviceProbe`. Other ports are down.
    pub fn set_app_up(&mut self, mesh: &str, name: &str, port: u16, up: bool, now: Timestamp) {
        self.tick(now);
        let key = (mesh.to_owned(), name.to_owned());
        let apps = &mut self.sidecars.get_or_default(&key).apps;
        if apps.get(&port).is_none_or(|(was_up, _)| *was_up != up) {
            apps.insert(port, (up, now));
        }
        self.reschedule(&key);
    }

    /// Applies changes that are due by `now`: health discovery and clean-up of disconnected Dataplanes. `MeshService`s
    /// are generated when they are read.
    pub fn tick(&mut self, now: Timestamp) {
        while let Some((at, key)) = self.due.first().filter(|(at, _)| *at <= now).cloned() {
            self.due.pop_first();
            self.due_of.remove(&key);
            self.act(at, &key);
            self.reschedule(&key);
        }
    }

    /// Time of the next change by [`tick`](Self::tick).
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Writes an object of another owner, by the same rules but without a journal entry. `body` names the type, and `mesh` is
    /// empty for global ones.
    ///
    /// # Errors
    /// The error text of the HTTP API, or that no such type exists.
    pub fn insert_foreign(
        &mut self,
        mesh: &str,
        name: &str,
        body: &Value,
        now: Timestamp,
    ) -> Result<(), String> {
        self.tick(now);
        let name_of_kind = text(body, "type");
        let kind =
            kinds::named(name_of_kind).ok_or_else(|| format!("no type of Kuma is named {name_of_kind:?}"))?;
        let key = (mesh.to_owned(), name.to_owned());
        self.put(now, kind, &key, body.to_string().as_bytes())
            .map(drop)
            .map_err(|problem| String::from_utf8_lossy(&problem.response().body).into_owned())
    }

    /// Schedules health reports and refreshes after a write.
    pub(super) fn after_write(&mut self, now: Timestamp, kind: &ResourceType, key: &MeshAndName) {
        match kind.name {
            "Dataplane" => {
                // The insight of a disconnected proxy is removed with its Dataplane; the application's state is kept.
                let is_deleted = self.store.get("Dataplane", key).is_none();
                let sidecar = self.sidecars.get_mut(key).filter(|sidecar| sidecar.connected().is_none());
                if let Some(sidecar) = sidecar.filter(|_| is_deleted) {
                    sidecar.connections.clear();
                }
                self.reschedule(key);
                self.refresh_by(&key.0, now);
            }
            "Mesh" => self.refresh_by(&key.1, now),
            "MeshService" => self.refresh_by(&key.0, now),
            _ => {}
        }
    }

    /// Schedules a refresh of the mesh's services, unless an earlier one is scheduled.
    pub(super) fn refresh_by(&mut self, mesh: &str, at: Timestamp) {
        match self.stale_services.get_mut(mesh) {
            Some(planned) => *planned = at.min(*planned),
            None => drop(self.stale_services.insert(mesh.to_owned(), at)),
        }
    }

    fn reschedule(&mut self, key: &MeshAndName) {
        let next = self.next_for(key);
        let before = match next {
            Some(next) => self.due_of.insert(key.clone(), next),
            None => self.due_of.remove(key),
        };
        if let Some(before) = before {
            self.due.remove(&(before, key.clone()));
        }
        if let Some(next) = next {
            self.due.insert((next, key.clone()));
        }
    }

    fn next_for(&self, key: &MeshAndName) -> Option<Timestamp> {
        let object = self.store.get("Dataplane", key)?;
        let sidecar = self.sidecars.get(key)?;
        match sidecar.connected() {
            Some(since) => inbounds(&object.body)
                .iter()
                .filter_map(|inbound| report(object, sidecar, since, inbound))
                .map(|(at, _)| at)
                .min(),
            None => {
                let disconnected = sidecar.connections.last()?.until?;
                let age =
                    if sidecar.deletes_at_disconnect { TEMPLATE_CLEANUP_AGE } else { DATAPLANE_CLEANUP_AGE };
                Some(disconnected.plus(age))
            }
        }
    }

    fn act(&mut self, at: Timestamp, key: &MeshAndName) {
        let Some(kind) = kinds::named("Dataplane") else { return };
        let (Some(object), Some(sidecar)) = (self.store.get("Dataplane", key), self.sidecars.get(key)) else {
            return;
        };
        let Some(since) = sidecar.connected() else {
            self.remove_object(at, kind, key);
            return;
        };
        self.instances.begin_report();
        // The instance drops fields that it does not know. One that cannot read the Dataplane receives no report of it.
        let shown = object.read(kind, key, self.release()).map(Cow::into_owned);
        let mut spec = match shown {
            Ok(body) => StoredObject::spec_of(&body),
            Err(_) => {
                self.instances.end();
                object.spec()
            }
        };
        let reports: Vec<Option<bool>> = inbounds(&object.body)
            .iter()
            .map(|inbound| report(object, sidecar, since, inbound))
            .map(|report| report.filter(|(due, _)| *due <= at).map(|(_, ready)| ready))
            .collect();
        let listed = spec
            .get_mut("networking")
            .and_then(|networking| networking.get_mut("inbound"))
            .and_then(Value::as_array_mut);
        for (inbound, report) in listed.into_iter().flatten().zip(reports) {
            let (Some(ready), Some(inbound)) = (report, inbound.as_object_mut()) else { continue };
            if ready {
                inbound.remove("state");
                inbound.insert("health".to_owned(), json!({"ready": true}));
            } else {
                inbound.insert("state".to_owned(), json!("NotReady"));
                inbound.insert("health".to_owned(), json!({}));
            }
        }
        let given = object.labels().into_iter();
        let given = given.filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect();
        let labels = computed_labels(&self.config, self.release(), kind, key, &spec, &given);
        let times = (object.created, at);
        let rewritten = StoredObject::new(kind, key, self.release(), times, as_values(labels), spec);
        self.instances.end();
        self.put_object(at, kind, key, rewritten);
    }
}

/// Time at which health discovery changes an inbound, and whether to ready. Health discovery reads only `state`: a
/// drained inbound (`health: {}` without a state) counts as ready, and is not changed while its application responds.
fn report(
    object: &StoredObject,
    sidecar: &ConnectedSidecar,
    since: Timestamp,
    inbound: &Value,
) -> Option<(Timestamp, bool)> {
    let port = workload_port(inbound);
    let probed = inbounds(&object.body)
        .iter()
        .any(|other| other.get("serviceProbe").is_some() && workload_port(other) == port);
    if !probed {
        let due = since.plus(FIRST_REPORT).max(object.modified.plus(NEXT_REPORT));
        return (state(inbound) == "NotReady").then_some((due, true));
    }
    let app = u16::try_from(port).ok().and_then(|port| sidecar.apps.get(&port));
    let (up, changed) = app.copied().unwrap_or((false, since));
    let seen = since.max(object.modified).max(changed);
    match (state(inbound), up) {
        ("NotReady", true) => Some((seen.plus(PROBE_UP), true)),
        ("Ready", false) => Some((seen.plus(PROBE_DOWN), false)),
        _ => None,
    }
}
