//! The oracle for Consul.
//!
//! The operator may remove tokens and services of stopped tasks, and write declared objects with its ownership
//! marker. Any other write is a violation. The accessor of the operator's token identifies its writes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::process_guards::PerProcess;
use super::{Invariant, InvariantViolation, OracleConfig};
use crate::aws::Cloud;
use crate::consul::{ConsulJournalEntry, ConsulServer, TokenSummary};
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

/// The counts that the guard of one process may have.
#[derive(Clone, Debug, Default)]
struct ConsulProcessGuard {
    /// Its removals without a STOPPED task.
    unconfirmed_removals: Vec<Timestamp>,
    /// Maximum number of objects of tasks since it started.
    max_owned: usize,
}

impl ConsulProcessGuard {
    /// The guard of a process that starts where this many objects are owned.
    fn started(owned: usize) -> Self {
        Self { unconfirmed_removals: Vec::new(), max_owned: owned }
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
    /// Their names in the registry's order. The registry seldom changes between two checks.
    known_names: Vec<Arc<str>>,
    pub(super) violations: Vec<InvariantViolation>,
    tally: ConsulWriteCounts,
    guards: PerProcess<ConsulProcessGuard>,
    /// The number of owned objects after the last writes.
    owned: usize,
}

/// The id of the task that a journal entry is about.
pub fn consul_task_of(entry: &ConsulJournalEntry, cluster: &str) -> Option<String> {
    task_of(entry.kind, &entry.id, entry.before.as_ref().or(entry.after.as_ref())?, cluster)
}

/// The task id in a token's description or a service's metadata, if it is a task of the cluster.
fn task_of(kind: &str, id: &str, body: &Value, cluster: &str) -> Option<String> {
    match kind {
        "token" => task_of_token(body["Description"].as_str()?, body["AuthMethod"].as_str()?, cluster),
        _ => {
            id.strip_prefix(cluster)?.strip_prefix(' ')?;
            task_of_service(&body["Meta"], cluster)
        }
    }
}

/// The metadata of a task's login.
#[derive(Deserialize)]
struct LoginMeta<'a> {
    #[serde(borrow, rename = "consul.hashicorp.com/cluster")]
    cluster: Cow<'a, str>,
    #[serde(borrow, rename = "consul.hashicorp.com/task-id")]
    task: Cow<'a, str>,
}

fn task_of_token(description: &str, auth_method: &str, cluster: &str) -> Option<String> {
    let is_ours = [LOGIN_METHOD, CLIENT_METHOD].iter().any(|one| one.eq_ignore_ascii_case(auth_method));
    let meta = description.strip_prefix("token created via login: ").filter(|_| is_ours)?;
    let meta: LoginMeta<'_> = serde_json::from_str(meta).ok()?;
    (meta.cluster == cluster && is_task_id(&meta.task)).then(|| meta.task.into_owned())
}

fn task_of_service(meta: &Value, cluster: &str) -> Option<String> {
    let task = meta["task-id"].as_str().filter(|task| meta["source"] == "consul-ecs" && is_task_id(task))?;
    let is_other = meta["task-arn"].as_str().is_some_and(|given| !is_arn_of(given, task, cluster));
    (!is_other).then(|| task.to_owned())
}

fn is_task_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether the ARN is that of the cluster's task.
fn is_arn_of(arn: &str, task: &str, cluster: &str) -> bool {
    let parts = cluster.split_once(":cluster/").zip(arn.split_once(":task/"));
    parts.is_some_and(|((account, cluster), (account_of_arn, path))| {
        account == account_of_arn && path.split_once('/') == Some((cluster, task))
    })
}

/// A token or service of a task.
enum TaskObject<'a> {
    Token(TokenSummary<'a>),
    /// A service by its id.
    Service(&'a str),
}

impl fmt::Display for TaskObject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(token) => {
                let name = token.service.unwrap_or_default();
                write!(f, "the token of {}", name.strip_suffix("-sidecar-proxy").unwrap_or(name))
            }
            Self::Service(id) => write!(f, "the service {id}"),
        }
    }
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
    match kind {
        "token" => consul.token_created(id),
        _ => {
            let (id, node) = id.split_once('@')?;
            consul.service_created(node, id)
        }
    }
}

/// Tokens and services of the cluster's tasks, with the task id.
fn task_objects<'a>(
    consul: &'a ConsulServer,
    cluster: &'a str,
) -> impl Iterator<Item = (String, TaskObject<'a>)> {
    let tokens = consul.token_summaries().filter_map(move |token| {
        let task = task_of_token(token.description, token.auth_method, cluster)?;
        Some((task, TaskObject::Token(token)))
    });
    tokens.chain(services_of_tasks(consul, cluster))
}

/// The services of a cluster's tasks on its node, with the task id.
fn services_of_tasks<'a>(
    consul: &'a ConsulServer,
    cluster: &'a str,
) -> impl Iterator<Item = (String, TaskObject<'a>)> {
    let services = consul.service_meta(cluster);
    services.filter_map(move |(id, meta)| Some((task_of_service(meta, cluster)?, TaskObject::Service(id))))
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
            known_names: Vec::new(),
            violations: Vec::new(),
            tally: ConsulWriteCounts::default(),
            guards: PerProcess::default(),
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
        self.record_other_process();
        // The new process lists what exists now. Tasks may leave before the next write is checked.
        self.guards.current = ConsulProcessGuard::started(self.owned);
    }

    /// Records that a replica starts as a standby: it lists what exists, and its guard has admitted nothing.
    pub fn record_start(&mut self, process: &str) {
        self.guards.start(process, ConsulProcessGuard::started(self.owned));
    }

    /// Records that this replica leads from now on. One that has led before goes on in its guard's hour.
    pub fn record_takeover(&mut self, process: &str) {
        self.record_other_process();
        self.guards.take_over(process);
    }

    /// Another process has other events and another registry.
    fn record_other_process(&mut self) {
        self.stops_delivered.clear();
        self.known.clear();
        self.known_names.clear();
    }

    fn record_owned(&mut self, owned: usize) {
        // A standby lists objects as well.
        self.guards.others_mut().for_each(|guard| guard.max_owned = guard.max_owned.max(owned));
        self.guards.current.max_owned = self.guards.current.max_owned.max(owned);
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
        self.record_owned(self.owned);
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
        // The count includes the object that was just removed.
        self.record_owned(self.owned_count(consul) + 1);
        let ConsulProcessGuard { unconfirmed_removals, max_owned } = &mut self.guards.current;
        unconfirmed_removals.retain(|at| at.age_at(entry.at) < Duration::from_hours(1));
        unconfirmed_removals.push(entry.at);
        let (removed, owned) = (unconfirmed_removals.len(), *max_owned);
        // Of few, the guard allows those for role tags, and others are violations of I2 already.
        if owned >= self.config.min_owned && self.config.exceeds_guard(removed, owned) {
            let message = format!("{removed} of {owned} removed within an hour without a STOPPED task");
            self.report(Invariant::I5, entry, &message);
        }
    }

    /// The tokens and services that the operator's binding owns.
    fn owned_count(&self, consul: &ConsulServer) -> usize {
        let deleted = self.config.deleted_cluster.as_deref();
        let of_deleted = deleted.map_or(0, |cluster| services_of_tasks(consul, cluster).count());
        task_objects(consul, &self.config.cluster).count() + of_deleted
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
        let left = task_objects(consul, &self.config.cluster).filter(|(task, _)| is_gone(task));
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
        let left: BTreeMap<String, TaskObject<'_>> = task_objects(consul, &self.config.cluster).collect();
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
            task_objects(consul, &self.config.cluster).map(|(task, _)| task).collect();
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
        let names: Vec<Arc<str>> = names.collect();
        if names == self.known_names {
            return;
        }
        self.known_names.clone_from(&names);
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
