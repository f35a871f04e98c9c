//! The oracle for Consul.
//!
//! The operator may remove tokens and services of stopped tasks, and write declared objects with its ownership
//! marker. Any other write is a violation. The accessor of the operator's token identifies its writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Invariant, InvariantViolation, OracleConfig};
use crate::aws::Cloud;
use crate::consul::{ConsulJournalEntry, ConsulServer};
use crate::world::{CLIENT_METHOD, ForeignFixture, LOGIN_METHOD, SERVICE_TAG};
use ecs_mesh_model::{DesiredStatus, LastStatus, Timestamp};

/// Time from RUNNING within which a task has registered itself.
const REGISTRATION_DEADLINE: Duration = Duration::from_secs(20);

/// `CreateIndex` of each registration in the operator's registry, by name; `None` if Consul does not have it.
type KnownRegistrations = BTreeMap<Arc<str>, Option<u64>>;

/// Accepted writes of the operator, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsulWriteCounts {
    /// Removed tokens.
    pub tokens: u64,
    /// Removed services, including proxies.
    pub services: u64,
    /// Writes of ACL objects and everything else.
    pub other: u64,
}

impl ConsulWriteCounts {
    /// All accepted writes.
    pub fn writes(&self) -> u64 {
        self.tokens + self.services + self.other
    }
}

/// Checks the writes to Consul.
#[derive(Debug)]
pub struct ConsulOracle {
    config: OracleConfig,
    /// Whether registrations of running tasks may be removed once the role tags no longer allow them.
    removes_revoked: bool,
    /// The writes that are checked were sent by a process that has ended.
    by_ended_process: bool,
    /// The marker in the description of the operator's ACL objects; `None` if no objects are declared.
    ownership_marker: Option<String>,
    fixtures: Vec<ForeignFixture>,
    /// Delivery times of stop events of tasks that still have registrations.
    stops_delivered: BTreeMap<String, Timestamp>,
    /// The operator's registry at the last check.
    pub(super) known: KnownRegistrations,
    pub(super) violations: Vec<InvariantViolation>,
    tally: ConsulWriteCounts,
    /// Removals without a STOPPED task, by the operator's current process.
    unconfirmed_removals: Vec<Timestamp>,
    /// Maximum number of objects of tasks so far.
    max_owned: usize,
    /// The number of owned objects after the last writes.
    owned: usize,
}

/// The id of the task that a journal entry is about.
pub fn consul_task_of(entry: &ConsulJournalEntry, cluster: &str) -> Option<String> {
    task_of(entry.kind, &entry.id, entry.before.as_ref().or(entry.after.as_ref())?, cluster)
}

/// The task id in a token's description or a service's metadata, if it is a task of the cluster.
fn task_of(kind: &str, id: &str, body: &Value, cluster: &str) -> Option<String> {
    let task = match kind {
        "token" => {
            let meta = body["Description"].as_str()?.strip_prefix("token created via login: ")?;
            let meta: Value = serde_json::from_str(meta).ok()?;
            let method = body["AuthMethod"].as_str()?;
            let ours = [LOGIN_METHOD, CLIENT_METHOD].iter().any(|one| one.eq_ignore_ascii_case(method))
                && meta["consul.hashicorp.com/cluster"] == cluster;
            meta["consul.hashicorp.com/task-id"].as_str().filter(|_| ours)?.to_owned()
        }
        _ => {
            id.strip_prefix(cluster)?.strip_prefix(' ')?;
            let meta = &body["Meta"];
            let task = meta["task-id"].as_str().filter(|_| meta["source"] == "consul-ecs")?;
            let arn = format!("{}/{task}", cluster.replacen(":cluster/", ":task/", 1));
            if meta["task-arn"].as_str().is_some_and(|given| given != arn) {
                return None;
            }
            task.to_owned()
        }
    };
    (task.len() == 32 && task.bytes().all(|b| b.is_ascii_hexdigit())).then_some(task)
}

/// The mesh service of a token, a service or its proxy.
fn service_of(kind: &str, body: &Value) -> String {
    let name = match kind {
        "token" => &body["ServiceIdentities"][0]["ServiceName"],
        _ => &body["Service"],
    };
    let name = name.as_str().unwrap_or_default();
    name.strip_suffix("-sidecar-proxy").unwrap_or(name).to_owned()
}

/// The body without indexes and hash, which the server sets.
fn content(body: &Value) -> Value {
    let mut content = body.clone();
    if let Some(fields) = content.as_object_mut() {
        fields.retain(|field, _| !matches!(field.as_str(), "CreateIndex" | "ModifyIndex" | "Hash"));
    }
    content
}

/// `CreateIndex` of the registration `token/ACCESSOR` or `service/ID@NODE`.
fn creation_index(consul: &ConsulServer, name: &str) -> Option<u64> {
    let (kind, id) = name.split_once('/')?;
    let found = match kind {
        "token" => consul.tokens().find(|token| token["AccessorID"] == id)?,
        _ => {
            let (id, node) = id.split_once('@')?;
            consul.services(node).remove(id)?
        }
    };
    found.get("CreateIndex").and_then(Value::as_u64)
}

impl ConsulOracle {
    /// An oracle without recorded writes. The fixtures must stay unmodified.
    pub fn new(config: OracleConfig, removes_revoked: bool, fixtures: Vec<ForeignFixture>) -> Self {
        Self {
            config,
            removes_revoked,
            by_ended_process: false,
            ownership_marker: None,
            fixtures,
            stops_delivered: BTreeMap::new(),
            known: KnownRegistrations::new(),
            violations: Vec::new(),
            tally: ConsulWriteCounts::default(),
            unconfirmed_removals: Vec::new(),
            max_owned: 0,
            owned: 0,
        }
    }

    /// Allows writes of objects whose description contains the marker.
    #[must_use]
    pub fn with_ownership_marker(self, marker: impl Into<String>) -> Self {
        Self { ownership_marker: Some(marker.into()), ..self }
    }

    /// Objects that the operator must not modify.
    pub fn fixtures(&self) -> &[ForeignFixture] {
        &self.fixtures
    }

    /// The violations so far.
    pub fn violations(&self) -> &[InvariantViolation] {
        &self.violations
    }

    /// The operator's accepted writes so far.
    pub fn tally(&self) -> ConsulWriteCounts {
        self.tally
    }

    /// Records a restart of the operator: it loses its events, its registry and the guard's count.
    pub fn record_restart(&mut self) {
        self.stops_delivered.clear();
        self.known.clear();
        self.unconfirmed_removals.clear();
        // The new process lists what exists now. Tasks may leave before the next write is checked.
        self.max_owned = self.owned;
    }

    /// Whether the operator made this write.
    pub fn is_by_operator(&self, entry: &ConsulJournalEntry) -> bool {
        entry.by.as_deref() == Some(self.config.operator.as_str())
    }

    /// Records whether the writes that are checked next were sent by a process that has ended, before a restart. The guard
    /// of the next process can't count those that arrive late.
    pub fn record_sender(&mut self, has_ended: bool) {
        self.by_ended_process = has_ended;
    }

    /// Checks accepted writes.
    pub fn check_writes(&mut self, entries: &[ConsulJournalEntry], cloud: &Cloud, consul: &ConsulServer) {
        let ours: Vec<&ConsulJournalEntry> =
            entries.iter().filter(|entry| self.is_by_operator(entry)).collect();
        for entry in ours {
            match (entry.kind, &entry.before, &entry.after) {
                ("token" | "service", Some(before), None) => self.check_removal(entry, before, cloud, consul),
                ("token" | "service", ..) => {
                    self.tally.other += 1;
                    self.report(Invariant::I3, entry, "only tasks register themselves");
                }
                // A check is removed with its service.
                ("check", Some(_), None) => {}
                _ => self.check_object_write(entry),
            }
        }
        self.owned = self.owned_count(consul);
        self.max_owned = self.max_owned.max(self.owned);
    }

    /// Checks a write to an object that is neither a token nor a service.
    fn check_object_write(&mut self, entry: &ConsulJournalEntry) {
        self.tally.other += 1;
        let Some(marker) = &self.ownership_marker else {
            return self.report(Invariant::I3, entry, "no object of this kind is declared");
        };
        let is_node = entry.kind == "node" && entry.id == self.config.cluster;
        let has_marker =
            |body: &Value| body["Description"].as_str().is_some_and(|text| text.contains(marker));
        let is_ours = matches!(entry.kind, "policy" | "role" | "auth-method" | "binding-rule");
        let sides = [&entry.before, &entry.after];
        if is_node && entry.before.is_none() || is_ours && sides.into_iter().flatten().all(has_marker) {
            if entry.before.as_ref().map(content) == entry.after.as_ref().map(content) {
                self.report(Invariant::I6, entry, "an unchanged object was written again");
            }
            return;
        }
        let message = format!("the ownership marker {marker} is missing");
        self.report(Invariant::I3, entry, &message);
    }

    fn check_removal(
        &mut self,
        entry: &ConsulJournalEntry,
        before: &Value,
        cloud: &Cloud,
        consul: &ConsulServer,
    ) {
        match entry.kind {
            "token" => self.tally.tokens += 1,
            _ => self.tally.services += 1,
        }
        if let Some(fixture) = self.fixtures.iter().find(|fixture| fixture.has_id(&entry.id)) {
            let description = fixture.description;
            return self.report(Invariant::I3, entry, &format!("it was {description}"));
        }
        let deleted = self.config.deleted_cluster.as_deref();
        if deleted.is_some_and(|cluster| task_of(entry.kind, &entry.id, before, cluster).is_some()) {
            return;
        }
        let Some(task) = task_of(entry.kind, &entry.id, before, &self.config.cluster) else {
            return self.report(Invariant::I3, entry, "it does not name a task of the cluster");
        };
        let Some(truth) = self.config.truth(&task, cloud, entry.at) else { return };
        if truth.last_status.is_stopped() {
            return;
        }
        // By its role: a token that a widened binding rule gave names no service.
        let service = &truth.family;
        let revoked =
            self.config.role_tags_at(service, entry.at, cloud, |tags| !tags.contains_key(SERVICE_TAG));
        // A drain may begin between the decision and the write.
        if !(self.removes_revoked && revoked) {
            let (last, desired) = (truth.last_status.as_str(), truth.desired_status.as_str());
            let message = format!(
                "task {task} of {service} is {last} (desired {desired}), without evidence for a removal"
            );
            self.report(Invariant::I2, entry, &message);
        }
        self.count_unconfirmed_removals(entry, consul);
    }

    fn count_unconfirmed_removals(&mut self, entry: &ConsulJournalEntry, consul: &ConsulServer) {
        if self.by_ended_process {
            return;
        }
        self.unconfirmed_removals.retain(|at| at.age_at(entry.at) < Duration::from_hours(1));
        self.unconfirmed_removals.push(entry.at);
        // The count includes the object that was just removed.
        self.max_owned = self.max_owned.max(self.owned_count(consul) + 1);
        // Of few, the guard allows those for role tags, and others are violations of I2 already.
        let is_limited = self.max_owned >= self.config.min_owned;
        if is_limited && self.config.exceeds_guard(self.unconfirmed_removals.len(), self.max_owned) {
            let (removed, owned) = (self.unconfirmed_removals.len(), self.max_owned);
            self.report(
                Invariant::I5,
                entry,
                &format!("{removed} of {owned} removed within an hour without a STOPPED task"),
            );
        }
    }

    /// The tokens and services that the operator's binding owns.
    fn owned_count(&self, consul: &ConsulServer) -> usize {
        let deleted = self.config.deleted_cluster.as_deref();
        let of_deleted = deleted.map_or(0, |cluster| {
            let is_of_task = |(id, service): &(String, Value)| {
                task_of("service", &format!("{cluster} {id}"), service, cluster).is_some()
            };
            consul.services(cluster).into_iter().filter(is_of_task).count()
        });
        self.task_objects(consul).len() + of_deleted
    }

    /// Tokens and services of the cluster's tasks: task id and description.
    fn task_objects(&self, consul: &ConsulServer) -> Vec<(String, String)> {
        let cluster = &self.config.cluster;
        let tokens = consul.tokens().filter_map(|token| {
            let message = format!("the token of {}", service_of("token", &token));
            Some((task_of("token", "", &token, cluster)?, message))
        });
        let services = consul.services(cluster).into_iter().filter_map(|(id, service)| {
            let task = task_of("service", &format!("{cluster} {id}"), &service, cluster)?;
            Some((task, format!("the service {id}")))
        });
        tokens.chain(services).collect()
    }

    /// Tokens and services of stopped or unknown tasks. `held` names tasks that the guard holds.
    pub fn find_leaks(
        &self,
        cloud: &Cloud,
        consul: &ConsulServer,
        held: &dyn Fn(&str) -> bool,
        now: Timestamp,
    ) -> Vec<String> {
        let is_gone = |task: &str| {
            !held(task)
                && self.config.truth(task, cloud, now).is_none_or(|task| task.last_status.is_stopped())
        };
        let left = self.task_objects(consul).into_iter().filter(|(task, _)| is_gone(task));
        left.map(|(task, what)| format!("{what} exists, but its task {task} is gone")).collect()
    }

    /// Records that the operator received the task's stop event and can act on it.
    pub fn record_stop_delivered(&mut self, task: &str, at: Timestamp) {
        self.stops_delivered.entry(task.to_owned()).or_insert(at);
    }

    /// Records a fault that may keep the operator from acting on the events delivered so far.
    pub fn record_disturbance(&mut self) {
        self.stops_delivered.clear();
    }

    /// Reports registrations that still exist longer than `within` after the delivery of the task's stop event.
    pub fn check_deadlines(&mut self, consul: &ConsulServer, within: Duration, now: Timestamp) {
        if self.stops_delivered.is_empty() {
            return;
        }
        let left: BTreeMap<String, String> = self.task_objects(consul).into_iter().collect();
        self.stops_delivered.retain(|task, _| left.contains_key(task));
        let late: Vec<String> = self
            .stops_delivered
            .iter()
            .filter(|(_, at)| at.age_at(now) > within)
            .map(|(task, _)| task.clone())
            .collect();
        for task in late {
            self.stops_delivered.remove(&task);
            let message = format!(
                "{} still exists {} ms after the stop event of task {task} was delivered",
                left[&task],
                within.as_millis()
            );
            self.violations.push(InvariantViolation { invariant: Invariant::I1, at: now, message });
        }
    }

    /// Fixtures that were modified or removed.
    pub fn modified_fixtures(&self, consul: &ConsulServer) -> Vec<String> {
        let modified = self.fixtures.iter().filter(|fixture| !fixture.is_unmodified(consul));
        modified.map(|fixture| format!("{} was modified", fixture.description)).collect()
    }

    /// Running tasks without a registration. `but` names tasks that may have none.
    pub fn find_missing(
        &self,
        cloud: &Cloud,
        consul: &ConsulServer,
        but: &dyn Fn(&str) -> bool,
        now: Timestamp,
    ) -> Vec<String> {
        let registered: BTreeSet<String> =
            self.task_objects(consul).into_iter().map(|(task, _)| task).collect();
        let should_be = cloud.all_tasks().filter(|task| {
            task.last_status == LastStatus::Running
                && task.desired_status == DesiredStatus::Running
                && task.started_at.is_some_and(|at| at.age_at(now) >= REGISTRATION_DEADLINE)
                && !but(task.id())
        });
        let missing = should_be.filter(|task| !registered.contains(task.id()));
        missing
            .map(|task| {
                format!("task {} of {} is running and has no registration at Consul", task.id(), task.family)
            })
            .collect()
    }

    fn report(&mut self, invariant: Invariant, entry: &ConsulJournalEntry, message: &str) {
        let what = if entry.after.is_none() { "removal" } else { "write" };
        let message = format!("{what} of {} {}: {message}", entry.kind, entry.id);
        self.violations.push(InvariantViolation { invariant, at: entry.at, message });
    }

    /// Records the content of the operator's registry. Reports entries that it dropped although Consul still has
    /// them.
    pub fn record_known(
        &mut self,
        names: impl Iterator<Item = Arc<str>>,
        consul: &ConsulServer,
        now: Timestamp,
    ) {
        let mut known = KnownRegistrations::new();
        for name in names {
            let since = self.known.remove(&name).unwrap_or_else(|| creation_index(consul, &name));
            known.insert(name, since);
        }
        // The rest was dropped. A registration that was created again since then is another one.
        for (name, since) in std::mem::replace(&mut self.known, known) {
            if since.is_some() && creation_index(consul, &name) == since {
                let message = format!("{name} was dropped from the registry but still exists");
                self.violations.push(InvariantViolation { invariant: Invariant::I1, at: now, message });
            }
        }
    }
}
