//! The judge of Consul: the operator takes away what dead tasks left, keeps the objects that bear its mark where some
//! are declared, and does nothing else. It is known by the accessor of its token; what tasks and people write is theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::registry_view::KnownRegistrations;
use super::{Invariant, OracleConfig, InvariantViolation};
use crate::aws::Cloud;
use crate::consul::{ConsulServer, ConsulJournalEntry};
use crate::world::{CLIENT_METHOD, LOGIN_METHOD, ForeignFixture, SERVICE_TAG};
use ecs_mesh_model::{DesiredStatus, LastStatus, Timestamp};

/// A task that runs has joined by then, if it may.
const JOINS_WITHIN: Duration = Duration::from_secs(20);

/// What the operator took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsulWriteCounts {
    /// Tokens.
    pub tokens: u64,
    /// Services, proxies among them.
    pub services: u64,
    /// Objects of the identity set-up, and anything else that it wrote.
    pub other: u64,
}

impl ConsulWriteCounts {
    /// All accepted writes.
    pub fn writes(&self) -> u64 {
        self.tokens + self.services + self.other
    }
}

/// The judge.
#[derive(Debug)]
pub struct ConsulOracle {
    rules: OracleConfig,
    /// Running tasks lose what they have when their role's tags stop allowing it.
    withdraws: bool,
    /// What is in the description of each object of the identity set-up that is the operator's; none where it has none.
    mark: Option<String>,
    fixtures: Vec<ForeignFixture>,
    /// Tasks of whose end the operator was told, since when, and what was there of them then is not all gone.
    stops_delivered: BTreeMap<String, Timestamp>,
    /// What the operator knows to be there.
    pub(super) known: KnownRegistrations,
    pub(super) violations: Vec<InvariantViolation>,
    tally: ConsulWriteCounts,
    /// Removals that no STOPPED backs, by this process of the operator.
    unbacked: Vec<Timestamp>,
    /// The most that tasks had at any time.
    most_owned: usize,
}

/// The task of what was written.
pub fn consul_task_of(entry: &ConsulJournalEntry, cluster: &str) -> Option<String> {
    task_of(entry.kind, &entry.id, entry.before.as_ref().or(entry.after.as_ref())?, cluster)
}

/// A token's or service's task, by what is written on it; none where it is not a task's of the cluster.
fn task_of(kind: &str, id: &str, body: &Value, cluster: &str) -> Option<String> {
    let task = match kind {
        "token" => {
            let said = body["Description"].as_str()?.strip_prefix("token created via login: ")?;
            let said: Value = serde_json::from_str(said).ok()?;
            let method = body["AuthMethod"].as_str()?;
            let ours = [LOGIN_METHOD, CLIENT_METHOD].iter().any(|one| one.eq_ignore_ascii_case(method))
                && said["consul.hashicorp.com/cluster"] == cluster;
            said["consul.hashicorp.com/task-id"].as_str().filter(|_| ours)?.to_owned()
        }
        _ => {
            id.strip_prefix(cluster)?.strip_prefix(' ')?;
            let meta = &body["Meta"];
            let task = meta["task-id"].as_str().filter(|_| meta["source"] == "consul-ecs")?;
            let arn = format!("{}/{task}", cluster.replacen(":cluster/", ":task/", 1));
            if meta["task-arn"].as_str().is_some_and(|said| said != arn) {
                return None;
            }
            task.to_owned()
        }
    };
    (task.len() == 32 && task.bytes().all(|b| b.is_ascii_hexdigit())).then_some(task)
}

/// The service that a token or service is for.
fn service_of(kind: &str, body: &Value) -> String {
    let name = match kind {
        "token" => &body["ServiceIdentities"][0]["ServiceName"],
        _ => &body["Service"],
    };
    let name = name.as_str().unwrap_or_default();
    name.strip_suffix("-sidecar-proxy").unwrap_or(name).to_owned()
}

/// Without what the server counts.
fn content(body: &Value) -> Value {
    let mut content = body.clone();
    if let Some(fields) = content.as_object_mut() {
        fields.retain(|field, _| !matches!(field.as_str(), "CreateIndex" | "ModifyIndex" | "Hash"));
    }
    content
}

impl ConsulOracle {
    /// A judge who has seen nothing yet. What is planted has to stay as it is.
    pub fn new(rules: OracleConfig, withdraws: bool, fixtures: Vec<ForeignFixture>) -> Self {
        Self {
            rules,
            withdraws,
            mark: None,
            fixtures,
            stops_delivered: BTreeMap::new(),
            known: KnownRegistrations::new(),
            violations: Vec::new(),
            tally: ConsulWriteCounts::default(),
            unbacked: Vec::new(),
            most_owned: 0,
        }
    }

    /// The operator also keeps what is declared: objects whose description has this mark.
    #[must_use]
    pub fn with_fixtures(self, mark: impl Into<String>) -> Self {
        Self { mark: Some(mark.into()), ..self }
    }

    /// What others have left.
    pub fn fixtures(&self) -> &[ForeignFixture] {
        &self.fixtures
    }

    /// What was found.
    pub fn violations(&self) -> &[InvariantViolation] {
        &self.violations
    }

    /// What was taken away.
    pub fn tally(&self) -> ConsulWriteCounts {
        self.tally
    }

    /// A new process of the operator: its guard counts from zero, and of what it was told or knew it knows nothing.
    pub fn restarted(&mut self) {
        self.stops_delivered.clear();
        self.known.clear();
        self.unbacked.clear();
        self.most_owned = 0;
    }

    /// Whether the operator wrote this.
    pub fn is_by_operator(&self, entry: &ConsulJournalEntry) -> bool {
        entry.by.as_deref() == Some(self.rules.operator.as_str())
    }

    /// Judges accepted writes.
    pub fn writes(&mut self, entries: &[ConsulJournalEntry], cloud: &Cloud, consul: &ConsulServer) {
        let ours: Vec<&ConsulJournalEntry> = entries.iter().filter(|entry| self.is_by_operator(entry)).collect();
        for entry in ours {
            match (entry.kind, &entry.before, &entry.after) {
                ("token" | "service", Some(before), None) => self.removal(entry, before, cloud, consul),
                ("token" | "service", ..) => {
                    self.tally.other += 1;
                    self.report(Invariant::I3, entry, "tasks register themselves, and nobody else does");
                }
                // Goes with its service.
                ("check", Some(_), None) => {}
                _ => self.object(entry),
            }
        }
        self.most_owned = self.most_owned.max(self.of_tasks(consul).len());
    }

    /// A write to what is neither a task's token nor its service.
    fn object(&mut self, entry: &ConsulJournalEntry) {
        self.tally.other += 1;
        let Some(mark) = &self.mark else {
            return self.report(Invariant::I3, entry, "nothing of the kind is declared");
        };
        let is_node = entry.kind == "node" && entry.id == self.rules.cluster;
        let bears = |body: &Value| body["Description"].as_str().is_some_and(|said| said.contains(mark));
        let is_ours = matches!(entry.kind, "policy" | "role" | "auth-method" | "binding-rule");
        let sides = [&entry.before, &entry.after];
        if is_node && entry.before.is_none() || is_ours && sides.into_iter().flatten().all(bears) {
            if entry.before.as_ref().map(content) == entry.after.as_ref().map(content) {
                self.report(Invariant::I6, entry, "it was written again as it was");
            }
            return;
        }
        let message = format!("it does not bear the mark {mark}");
        self.report(Invariant::I3, entry, &message);
    }

    fn removal(&mut self, entry: &ConsulJournalEntry, before: &Value, cloud: &Cloud, consul: &ConsulServer) {
        match entry.kind {
            "token" => self.tally.tokens += 1,
            _ => self.tally.services += 1,
        }
        if let Some(fixtures) = self.fixtures.iter().find(|fixtures| fixtures.has_id(&entry.id)) {
            let what = fixtures.what;
            return self.report(Invariant::I3, entry, &format!("it was {what}"));
        }
        let Some(task) = task_of(entry.kind, &entry.id, before, &self.rules.cluster) else {
            return self.report(Invariant::I3, entry, "it does not name a task of the cluster");
        };
        let Some(truth) = self.rules.truth(&task, cloud, entry.at) else { return };
        if truth.last_status.is_stopped() {
            return;
        }
        let service = service_of(entry.kind, before);
        let revoked = self.rules.role_tags_at(&service, entry.at, cloud, |tags| !tags.contains_key(SERVICE_TAG));
        // It may have begun to drain between the decision and the write.
        if !(self.withdraws && revoked) {
            let (last, desired) = (truth.last_status.as_str(), truth.desired_status.as_str());
            let message =
                format!("task {task} of {service} is {last} and wanted {desired}, and nothing excuses it");
            self.report(Invariant::I2, entry, &message);
        }
        self.count_unconfirmed_removals(entry, consul);
    }

    fn count_unconfirmed_removals(&mut self, entry: &ConsulJournalEntry, consul: &ConsulServer) {
        self.unbacked.retain(|at| at.age_at(entry.at) < Duration::from_hours(1));
        self.unbacked.push(entry.at);
        // The removed one was among them a moment ago.
        self.most_owned = self.most_owned.max(self.of_tasks(consul).len() + 1);
        if self.rules.exceeds_guard(self.unbacked.len(), self.most_owned) {
            let (gone, most) = (self.unbacked.len(), self.most_owned);
            self.report(
                Invariant::I5,
                entry,
                &format!("{gone} of {most} went within an hour without a STOPPED"),
            );
        }
    }

    /// What tasks of the cluster have: the task, and what it is in words.
    fn of_tasks(&self, consul: &ConsulServer) -> Vec<(String, String)> {
        let cluster = &self.rules.cluster;
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

    /// What is left of tasks that are gone. `held` names tasks that a guard holds.
    pub fn check_secret_leaks(
        &self,
        cloud: &Cloud,
        consul: &ConsulServer,
        held: &dyn Fn(&str) -> bool,
        now: Timestamp,
    ) -> Vec<String> {
        let gone = |task: &str| {
            !held(task) && self.rules.truth(task, cloud, now).is_none_or(|task| task.last_status.is_stopped())
        };
        let left = self.of_tasks(consul).into_iter().filter(|(task, _)| gone(task));
        left.map(|(task, what)| format!("{what} is there, and its task {task} is gone")).collect()
    }

    /// The operator was given the news that this task has stopped, and nothing keeps it from acting on it.
    pub fn record_stop_delivered(&mut self, task: &str, at: Timestamp) {
        self.stops_delivered.entry(task.to_owned()).or_insert(at);
    }

    /// Something keeps the operator from acting on what it was told so far.
    pub fn is_disturbed(&mut self) {
        self.stops_delivered.clear();
    }

    /// Finds what is still there of tasks of whose end the operator was told longer than this ago.
    pub fn check_deadlines(&mut self, consul: &ConsulServer, within: Duration, now: Timestamp) {
        if self.stops_delivered.is_empty() {
            return;
        }
        let left: BTreeMap<String, String> = self.of_tasks(consul).into_iter().collect();
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
                "{} is there {} ms after the operator was told that its task {task} has stopped",
                left[&task],
                within.as_millis()
            );
            self.violations.push(InvariantViolation { invariant: Invariant::I1, at: now, message });
        }
    }

    /// What is not there any more, or not as it was, of what is nobody's here.
    pub fn modified_fixtures(&self, consul: &ConsulServer) -> Vec<String> {
        let touched = self.fixtures.iter().filter(|fixtures| !fixtures.is_unmodified(consul));
        touched.map(|fixtures| format!("{} is not as it was", fixtures.what)).collect()
    }

    /// Tasks that run, may have a token, and have none. `but` names tasks that may be without.
    pub fn check_missing(
        &self,
        cloud: &Cloud,
        consul: &ConsulServer,
        but: &dyn Fn(&str) -> bool,
        now: Timestamp,
    ) -> Vec<String> {
        let there: BTreeSet<String> = self.of_tasks(consul).into_iter().map(|(task, _)| task).collect();
        let should_be = cloud.all_tasks().filter(|task| {
            task.last_status == LastStatus::Running
                && task.desired_status == DesiredStatus::Running
                && task.started_at.is_some_and(|at| at.age_at(now) >= JOINS_WITHIN)
                && !but(task.id())
        });
        let missing = should_be.filter(|task| !there.contains(task.id()));
        missing
            .map(|task| format!("task {} of {} runs and has nothing at Consul", task.id(), task.family))
            .collect()
    }

    fn report(&mut self, invariant: Invariant, entry: &ConsulJournalEntry, message: &str) {
        let what = if entry.after.is_none() { "removal" } else { "write" };
        let message = format!("{what} of {} {}: {message}", entry.kind, entry.id);
        self.violations.push(InvariantViolation { invariant, at: entry.at, message });
    }
}
