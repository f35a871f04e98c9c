//! Checks a client's writes against the invariants.
//!
//! The oracle judges by the emulators' own state: task status, role tags and the writer of each registration. It
//! never reads the operator's state.

mod consul;
mod deployment_hold;
mod last_endpoint;
mod process_guards;
mod reach;
#[cfg(test)]
mod tests;
mod tokens;
mod writers;
mod zone_proxies;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::aws::{Cloud, CloudTask};
use super::kuma::{KumaCp, KumaJournalEntry, service_of};
use super::world::{MESH, SECRET, ScenarioService, has_template, host_name, role_name};
use ecs_mesh_model::{DesiredStatus, LastStatus, Tags, Timestamp};

use last_endpoint::ReadyRegistrations;
use process_guards::PerProcess;
use writers::WritingProcesses;

pub use consul::{ConsulOracle, ConsulWriteCounts};
pub use deployment_hold::{HoldCounts, HoldOracle};
pub use reach::{ReachCounts, ReachOracle, ReachViolation};

pub use consul::consul_task_of;
pub use tokens::TokenOracle;

// Defined again here, since the constants of the client under test could be wrong.
const OPERATOR_LABEL: &str = "ecs-mesh.dev/operator";
const CLUSTER_LABEL: &str = "ecs-mesh.dev/cluster-id";
const TASK_LABEL: &str = "ecs-mesh.dev/task-id";
const DRAIN_LABEL: &str = "ecs-mesh.dev/drain";

/// Registrations that a client may not know of yet: responses in flight or lost.
const MAX_UNCONFIRMED: u8 = 1;

/// Time within which a client may still act on a task that has stopped.
const STOP_EVENT_LAG: Duration = Duration::from_secs(90);

/// The invariants of the operator. I7 is checked where writes name their process; lives that lose a lease check it themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Invariant {
    I1,
    I2,
    I3,
    I4,
    I5,
    I6,
    I7,
    I8,
    I9,
    I10,
    I11,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I10,
        Self::I11,
    ];
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvariantViolation {
    /// The invariant.
    pub invariant: Invariant,
    /// Time of the write or the check.
    pub at: Timestamp,
    /// The write, and the state that contradicts it.
    pub message: String,
}

/// Accepted writes to Kuma, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteCounts {
    /// Created registrations.
    pub created: u64,
    /// Updated registrations.
    pub updated: u64,
    /// Drained registrations.
    pub drained: u64,
    /// Removed registrations.
    pub removed: u64,
}

impl WriteCounts {
    /// All accepted writes.
    pub fn writes(&self) -> u64 {
        self.created + self.updated + self.drained + self.removed
    }
}

/// Settings of an oracle.
#[derive(Clone, Debug)]
pub struct OracleConfig {
    /// The operator under test: its id for Kuma, the accessor of its token for Consul.
    pub operator: String,
    /// The cluster's ARN.
    pub cluster: String,
    /// The ARN of a cluster that was deleted, whose registrations may be removed.
    pub deleted_cluster: Option<String>,
    /// How long a client may act on old role tags: the sum of re-check interval, staleness and rate limit.
    pub tags_lag: Duration,
    /// The removal guard's limit, as a fraction of the owned registrations.
    pub max_fraction: f64,
    /// The number of owned registrations from which the guard's fraction applies. Of fewer, one removal an hour is allowed,
    /// and any because of role tags.
    pub min_owned: usize,
}

/// A removal without a STOPPED task.
#[derive(Clone, Debug)]
struct UnconfirmedRemoval {
    task: String,
    at: Timestamp,
    /// The role's tags did not allow the registration.
    revoked: bool,
}

/// The counts that the guard of one process may have.
#[derive(Clone, Debug, Default)]
struct KumaProcessGuard {
    /// Its removals without a STOPPED task.
    unconfirmed_removals: Vec<UnconfirmedRemoval>,
    /// Registrations of live tasks that it drained on an event alone.
    unconfirmed_drains: BTreeSet<String>,
    /// Maximum number of owned registrations since it started. A simulated run is hardly longer than the guard's hour.
    max_owned: usize,
    /// Since when at least `min_owned` are owned.
    enough_since: Option<Timestamp>,
    /// When `min_owned` had been owned for [`SEEN_WITHIN`]: from then on the guard limits withdrawals for role tags.
    guarded_since: Option<Timestamp>,
}

/// Checks the writes to Kuma.
#[derive(Debug)]
pub struct KumaOracle {
    config: OracleConfig,
    violations: Vec<InvariantViolation>,
    tally: WriteCounts,
    /// Services without a `Workload` manifest, with the period.
    undeclared: BTreeMap<String, (Timestamp, Timestamp)>,
    guards: PerProcess<KumaProcessGuard>,
    /// Registrations drained for role tags while fewer than `min_owned` were owned. The guard admits a withdrawal at its
    /// drain, and did not limit these then.
    drained_unguarded: BTreeSet<String>,
    /// The writes that are checked were sent by a process that has ended.
    by_ended_process: bool,
    dialect_upgraded: Option<Timestamp>,
    /// Since when the control plane shows a version that the operator does not support.
    unsupported_since: Option<Timestamp>,
    /// The service that the operator only observes.
    untouchable: Option<String>,
    /// Tasks whose sidecar has taken over a name between the read and the removal of what a gone task had registered.
    overtaken: BTreeSet<String>,
    ready: ReadyRegistrations,
    processes: WritingProcesses,
    /// The id of a cluster of another account, whose registrations another oracle judges.
    excluded_cluster: Option<String>,
}

/// How long after an upgrade a write may still arrive: the version's age, and a slow call.
const UPGRADE_LAG: Duration = Duration::from_secs(15);

/// How long after an upgrade to another dialect a write may arrive that the old one needs: the version of a registration that
/// lacks something is a second old at most, and the write may be a slow call.
const DIALECT_UPGRADE_LAG: Duration = Duration::from_secs(6);

/// How long registrations must exist for the operator to count them: one may be created while another is being removed.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// How long before a drain its admission by the guard may lie: the first attempt may have failed.
const ADMISSION_LAG: Duration = Duration::from_secs(5);

/// How long a removal may take after the read that it rests on. The control plane has no precondition for a removal, so what a
/// sidecar registers meanwhile under the same name is lost until its next connect.
const OVERTAKEN_WITHIN: Duration = Duration::from_secs(2);

impl OracleConfig {
    /// The task with this id, as ECS knew it at `at`.
    fn truth(&self, id: &str, cloud: &Cloud, at: Timestamp) -> Option<Arc<CloudTask>> {
        cloud.task_as_of(&format!("{}/{id}", self.cluster.replacen(":cluster/", ":task/", 1)), at)
    }

    /// Whether the tags of a service's role matched at any time within `tags_lag`.
    fn role_tags_at(
        &self,
        service: &str,
        at: Timestamp,
        cloud: &Cloud,
        matches: impl Fn(&Tags) -> bool,
    ) -> bool {
        let lag = i64::try_from(self.tags_lag.as_millis()).unwrap_or(i64::MAX);
        (0..=lag / 250).any(|step| {
            let tags = cloud.role_tags_as_of(&role_name(service), Timestamp(at.0 - step * 250));
            tags.is_some_and(|tags| matches(&tags))
        })
    }

    /// Whether this many removals within an hour exceed the guard's limit. Where few are owned, those for role tags are not
    /// among them.
    fn exceeds_guard(&self, removed: usize, owned: usize) -> bool {
        #[allow(clippy::cast_precision_loss)] // small numbers
        let (removed, part) = (removed as f64, self.max_fraction * owned as f64);
        if self.may_be_many(owned) {
            return removed > part + f64::from(MAX_UNCONFIRMED);
        }
        // A client that counts lost creates may take few for many, and then allows a part of the confirmed ones.
        removed > part.max(1.0)
    }

    /// Whether the guard's fraction may apply.
    fn may_be_many(&self, owned: usize) -> bool {
        owned + usize::from(MAX_UNCONFIRMED) >= self.min_owned
    }
}

fn label<'a>(body: &'a Value, key: &str) -> Option<&'a str> {
    body["labels"][key].as_str()
}

impl KumaOracle {
    /// An oracle without recorded writes.
    pub fn new(config: OracleConfig) -> Self {
        Self {
            config,
            violations: Vec::new(),
            tally: WriteCounts::default(),
            undeclared: BTreeMap::new(),
            guards: PerProcess::default(),
            overtaken: BTreeSet::new(),
            drained_unguarded: BTreeSet::new(),
            by_ended_process: false,
            dialect_upgraded: None,
            unsupported_since: None,
            untouchable: None,
            ready: ReadyRegistrations::default(),
            processes: WritingProcesses::default(),
            excluded_cluster: None,
        }
    }

    /// Leaves the registrations of the cluster with this id to another oracle.
    #[must_use]
    pub fn without_cluster(self, id: impl Into<String>) -> Self {
        Self { excluded_cluster: Some(id.into()), ..self }
    }

    /// The violations so far.
    pub fn violations(&self) -> &[InvariantViolation] {
        &self.violations
    }

    /// The number of the operator's processes that have written, as far as writes name theirs.
    pub fn writing_processes(&self) -> usize {
        self.processes.count()
    }

    /// The accepted writes so far.
    pub fn tally(&self) -> WriteCounts {
        self.tally
    }

    /// Records that the manifests have no workload for the service, so that its registrations may be withdrawn from `from`
    /// on: once `cleanup.settle` is over. Writes in flight may use it until `until`.
    pub fn record_undeclared(&mut self, service: &str, from: Timestamp, until: Timestamp) {
        self.undeclared.insert(service.to_owned(), (from, until));
    }

    /// Records that the control plane shows an unsupported version from now on, or, with `None`, a supported one.
    pub fn record_unsupported(&mut self, since: Option<Timestamp>) {
        self.unsupported_since = since;
    }

    /// Sets the service that the operator only observes, and writes nothing of.
    pub fn set_untouchable(&mut self, service: Option<&str>) {
        if self.untouchable.as_deref() != service {
            self.untouchable = service.map(str::to_owned);
        }
    }

    /// Records an upgrade to another dialect. A write that the client rendered before it knew may change nothing.
    pub fn record_dialect_upgrade(&mut self, at: Timestamp) {
        self.dialect_upgraded = Some(at);
    }

    /// Records a restart of the operator: its guard counts from zero.
    pub fn record_restart(&mut self) {
        self.guards.current = KumaProcessGuard::default();
    }

    /// Records that a replica starts as a standby: it counts registrations, and its guard has admitted nothing.
    pub fn record_start(&mut self, process: &str) {
        self.guards.start(process, KumaProcessGuard::default());
    }

    /// Records that this replica leads from now on. One that has led before goes on in its guard's hour, and writes by its
    /// earlier name again.
    pub fn record_takeover(&mut self, process: &str) {
        self.guards.take_over(process);
        self.processes = WritingProcesses::default();
    }

    fn record_owned(&mut self, owned: usize, at: Timestamp) {
        // A standby lists registrations as well.
        self.guards.others_mut().for_each(|guard| guard.max_owned = guard.max_owned.max(owned));
        self.guards.current.max_owned = self.guards.current.max_owned.max(owned);
        self.record_time(at);
        let enough_since = &mut self.guards.current.enough_since;
        if owned < self.config.min_owned {
            *enough_since = None;
        } else {
            enough_since.get_or_insert(at);
        }
    }

    fn record_time(&mut self, at: Timestamp) {
        let guard = &mut self.guards.current;
        if let Some(since) = guard.enough_since.filter(|since| since.age_at(at) >= SEEN_WITHIN) {
            guard.guarded_since.get_or_insert(since.plus(SEEN_WITHIN));
        }
    }

    /// Records whether the writes that are checked next were sent by a process that has ended, before a restart. The guard
    /// of the next process can't count those that arrive late.
    pub fn record_sender(&mut self, has_ended: bool) {
        self.by_ended_process = has_ended;
    }

    /// Checks accepted writes.
    pub fn check_writes(&mut self, entries: Vec<KumaJournalEntry>, cloud: &Cloud, kuma: &KumaCp) {
        let last = entries.last().map(|entry| entry.at);
        entries.first().into_iter().for_each(|entry| self.record_time(entry.at));
        for entry in entries {
            if entry.kind == "Dataplane" {
                self.check_write(&entry, cloud, kuma);
            } else {
                self.check_zone_proxy_write(&entry, cloud, kuma);
            }
        }
        if let Some(at) = last {
            self.record_owned(self.owned_count(kuma), at);
        }
    }

    fn check_write(&mut self, entry: &KumaJournalEntry, cloud: &Cloud, kuma: &KumaCp) {
        if self.is_overtaken(entry, cloud) {
            self.tally.removed += 1;
            return;
        }
        self.check_ownership(entry);
        if self.processes.record(entry) {
            self.report(Invariant::I7, entry, "its process wrote although another one had written since");
        }
        if self.unsupported_since.is_some_and(|since| since.age_at(entry.at) > UPGRADE_LAG) {
            self.report(Invariant::I11, entry, "the control plane's version is not supported");
        }
        if entry.after.as_ref().is_some_and(|body| body.to_string().contains(SECRET)) {
            self.report(Invariant::I9, entry, "the body contains a secret of the task's environment");
        }
        self.check_sidecar_owned(entry, cloud);
        let service = entry.after.as_ref().or(entry.before.as_ref()).and_then(service_of);
        if service.is_some() && service == self.untouchable.as_deref() {
            self.report(Invariant::I3, entry, "the operator only observes the service");
        }
        match (&entry.before, &entry.after) {
            (before, Some(after)) => {
                let drained = |body: &Value| label(body, DRAIN_LABEL).is_some();
                match before {
                    None => self.tally.created += 1,
                    Some(before) if drained(after) && !drained(before) => self.tally.drained += 1,
                    Some(_) => self.tally.updated += 1,
                }
                let is_late =
                    self.dialect_upgraded.is_some_and(|at| at.age_at(entry.at) <= DIALECT_UPGRADE_LAG);
                if !writers::has_changed(entry) && !is_late {
                    self.report(Invariant::I6, entry, "an unchanged body was written again");
                }
                if !drained(after) {
                    self.check_identity(entry, after, cloud);
                } else if before.as_ref().is_none_or(|before| !drained(before)) {
                    self.check_withdrawal(entry, after, "drained", cloud, kuma);
                    if label(after, DRAIN_LABEL) != Some("revoked") {
                        self.check_last_endpoint(entry, after, cloud, kuma);
                    }
                    self.record_drain(entry, after);
                }
            }
            (Some(before), None) => {
                self.tally.removed += 1;
                self.check_withdrawal(entry, before, "removed", cloud, kuma);
            }
            (None, None) => {}
        }
    }

    fn check_ownership(&mut self, entry: &KumaJournalEntry) {
        for body in [&entry.before, &entry.after].into_iter().flatten() {
            if label(body, OPERATOR_LABEL) != Some(&self.config.operator) || label(body, TASK_LABEL).is_none()
            {
                self.report(Invariant::I3, entry, "the operator's ownership labels are missing");
            }
        }
        if let (Some(before), Some(after)) = (&entry.before, &entry.after)
            && [TASK_LABEL, CLUSTER_LABEL].iter().any(|key| label(before, key) != label(after, key))
        {
            self.report(Invariant::I3, entry, "it belonged to another task");
        }
    }

    /// I3: what a sidecar registers is never written, and removed only after its task, whoever the manifests name.
    fn check_sidecar_owned(&mut self, entry: &KumaJournalEntry, cloud: &Cloud) {
        let is_sidecars = |body: &Option<Value>, is_kept: bool| {
            let task = body.as_ref().and_then(|body| self.truth(body, cloud, entry.at));
            task.is_some_and(|task| has_template(&task) && (is_kept || !task.last_status.is_stopped()))
        };
        let is_put = entry.after.is_some();
        if is_sidecars(&entry.before, is_put) || is_sidecars(&entry.after, true) {
            self.report(Invariant::I3, entry, "the Dataplane is its sidecar's");
        }
    }

    /// Whether a sidecar with a template has taken over the name just before the removal, so that the operator read what was
    /// there before.
    fn is_overtaken(&mut self, entry: &KumaJournalEntry, cloud: &Cloud) -> bool {
        let (Some(before), None) = (&entry.before, &entry.after) else { return false };
        let written = before["modificationTime"].as_str().and_then(Timestamp::parse);
        let is_new = written.is_some_and(|at| at.age_at(entry.at) <= OVERTAKEN_WITHIN);
        let Some(task) = self.truth(before, cloud, entry.at).filter(|task| is_new && has_template(task))
        else {
            return false;
        };
        self.overtaken.insert(task.id().to_owned());
        true
    }

    fn truth(&self, body: &Value, cloud: &Cloud, at: Timestamp) -> Option<Arc<CloudTask>> {
        self.config.truth(label(body, TASK_LABEL)?, cloud, at)
    }

    /// I4: a registration needs role tags that allow it, or allowed it within `tags_lag`.
    fn check_identity(&mut self, entry: &KumaJournalEntry, body: &Value, cloud: &Cloud) {
        let Some(service) = service_of(body) else { return };
        if !self.config.role_tags_at(service, entry.at, cloud, |tags| allows(tags, service)) {
            self.report(Invariant::I4, entry, "the role's tags do not allow it");
        }
        let stopped_long_ago = self
            .truth(body, cloud, entry.at)
            .is_none_or(|task| task.stopped_at.is_some_and(|at| at.age_at(entry.at) > STOP_EVENT_LAG));
        if entry.before.is_none() && stopped_long_ago {
            self.report(Invariant::I4, entry, "created for a task that stopped long before");
        }
    }

    /// I2 and I5: removal and drain need evidence.
    fn check_withdrawal(
        &mut self,
        entry: &KumaJournalEntry,
        body: &Value,
        how: &str,
        cloud: &Cloud,
        kuma: &KumaCp,
    ) {
        let truth = self.truth(body, cloud, entry.at);
        let is_stopping = match (how, &truth) {
            // The emulated ECS forgets stopped tasks only.
            (_, None) => true,
            ("removed", Some(task)) => task.last_status.is_stopped(),
            (_, Some(task)) => task.desired_status == DesiredStatus::Stopped || task.last_status.is_stopped(),
        };
        if is_stopping {
            return;
        }
        if how == "drained" && label(body, DRAIN_LABEL) == Some("unconfirmed") {
            self.check_unconfirmed_drains(entry, cloud, kuma);
            return;
        }
        let service = service_of(body).unwrap_or_default();
        let revoked = self.config.role_tags_at(service, entry.at, cloud, |tags| !allows(tags, service));
        let undeclared = self.is_undeclared(service, entry.at);
        if !revoked && !undeclared {
            let status = truth.map_or("MISSING", |task| task.last_status.as_str());
            let message =
                format!("{how} while its task is {status}, its role allows it and the manifests want it");
            self.report(Invariant::I2, entry, &message);
        }
        let guarded_since = self.guards.current.guarded_since;
        let is_unguarded = guarded_since.is_none_or(|since| since.age_at(entry.at) < ADMISSION_LAG);
        if how == "removed" {
            self.count_unconfirmed_removals(entry, revoked, kuma);
        } else if revoked && is_unguarded {
            self.drained_unguarded.insert(entry.name.clone());
        } else {
            self.drained_unguarded.remove(&entry.name);
        }
    }

    /// I5: an event alone may drain live tasks while ECS does not answer, and no more of them than the guard admits.
    fn check_unconfirmed_drains(&mut self, entry: &KumaJournalEntry, cloud: &Cloud, kuma: &KumaCp) {
        let lives = |body: &Value| {
            self.truth(body, cloud, entry.at)
                .is_some_and(|task| task.desired_status == DesiredStatus::Running)
        };
        let drained = self.owned(kuma).into_iter().filter(|(name, body)| {
            let is_new = *name == entry.name || self.guards.current.unconfirmed_drains.contains(*name);
            is_new && label(body, DRAIN_LABEL) == Some("unconfirmed") && lives(body)
        });
        let drained: BTreeSet<String> = drained.map(|(name, _)| name.to_owned()).collect();
        // It is no longer drained by the process that did so before.
        for guard in self.guards.others_mut() {
            guard.unconfirmed_drains.remove(&entry.name);
        }
        let (count, owned) = (drained.len(), self.guards.current.max_owned);
        self.guards.current.unconfirmed_drains = drained;
        // A drain that a describe contradicts no longer counts, and may still be there: undoing it takes a write.
        let undone = if self.config.may_be_many(owned) { 0 } else { usize::from(MAX_UNCONFIRMED) };
        if self.config.exceeds_guard(count.saturating_sub(undone), owned) {
            let message = format!("{count} of {owned} live tasks drained by events alone");
            self.report(Invariant::I5, entry, &message);
        }
    }

    fn count_unconfirmed_removals(&mut self, entry: &KumaJournalEntry, revoked: bool, kuma: &KumaCp) {
        if self.by_ended_process {
            return;
        }
        let removals = &mut self.guards.current.unconfirmed_removals;
        removals.retain(|removal| removal.at.age_at(entry.at) < Duration::from_hours(1));
        let task = entry.before.as_ref().and_then(|body| label(body, TASK_LABEL)).unwrap_or_default();
        removals.push(UnconfirmedRemoval { task: task.to_owned(), at: entry.at, revoked });
        // The count includes the registration that was just removed.
        self.record_owned(self.owned_count(kuma) + 1, entry.at);
        let unguarded = self.drained_unguarded.remove(&entry.name);
        let guard = &self.guards.current;
        let of_few = guard.guarded_since.is_none();
        let counts = |removal: &&UnconfirmedRemoval| !(of_few && removal.revoked);
        let counted = guard.unconfirmed_removals.iter().filter(counts);
        // Of few, one task an hour, however often it comes back.
        let removed = if of_few {
            counted.map(|removal| &removal.task).collect::<BTreeSet<_>>().len()
        } else {
            counted.count()
        };
        let (is_limited, owned) = (if of_few { !revoked } else { !unguarded }, guard.max_owned);
        if is_limited && self.config.exceeds_guard(removed, owned) {
            let message = format!("{removed} of {owned} removed within an hour without a STOPPED task");
            self.report(Invariant::I5, entry, &message);
        }
    }

    fn owned<'k>(&self, kuma: &'k KumaCp) -> Vec<(&'k str, &'k Value)> {
        kuma.dataplanes()
            .filter(|(_, _, body)| self.is_ours(body))
            .map(|(_, name, body)| (name, body))
            .collect()
    }

    /// The number of owned registrations, those of zone proxies included.
    fn owned_count(&self, kuma: &KumaCp) -> usize {
        self.owned(kuma).len() + kuma.zone_proxies().filter(|(_, _, body)| self.is_ours(body)).count()
    }

    fn is_ours(&self, body: &Value) -> bool {
        let is_excluded =
            self.excluded_cluster.is_some() && label(body, CLUSTER_LABEL) == self.excluded_cluster.as_deref();
        label(body, OPERATOR_LABEL) == Some(self.config.operator.as_str()) && !is_excluded
    }

    /// Checks the state after a quiet period: leaked registrations (I1), and live tasks without a correct
    /// registration. `held` names tasks that the guard holds.
    pub fn check_after_quiet(
        &mut self,
        cloud: &Cloud,
        kuma: &KumaCp,
        services: &[ScenarioService],
        held: &dyn Fn(&str) -> bool,
        now: Timestamp,
    ) -> Vec<String> {
        let leaks = self.find_leaks(cloud, kuma, held, now);
        for message in &leaks {
            self.violations.push(InvariantViolation {
                invariant: Invariant::I1,
                at: now,
                message: message.clone(),
            });
        }
        let missing = self.find_missing(cloud, kuma, services, held);
        let missing_proxies = self.missing_zone_proxies(cloud, kuma, services, held);
        leaks.into_iter().chain(missing).chain(missing_proxies).collect()
    }

    /// Registrations of stopped or unknown tasks. `held` names tasks that the guard holds.
    pub fn find_leaks(
        &self,
        cloud: &Cloud,
        kuma: &KumaCp,
        held: &dyn Fn(&str) -> bool,
        now: Timestamp,
    ) -> Vec<String> {
        let stale = |(name, body): &(&str, &Value)| {
            !held(label(body, TASK_LABEL).unwrap_or(name))
                && self.truth(body, cloud, now).is_none_or(|task| task.last_status.is_stopped())
        };
        let owned = self.owned(kuma);
        let dataplanes = owned.iter().filter(|found| stale(found)).map(|(name, body)| {
            format!("{name} ({}) is registered, but its task is gone", service_of(body).unwrap_or("?"))
        });
        dataplanes.chain(self.zone_proxy_leaks(cloud, kuma, held, now)).collect()
    }

    /// Whether the manifests have no workload for the service at `at`, so that its registrations may be withdrawn.
    pub fn is_undeclared(&self, service: &str, at: Timestamp) -> bool {
        self.undeclared.get(service).is_some_and(|(from, until)| (*from..=*until).contains(&at))
    }

    /// Tasks that have been running for `within`, with role tags that have allowed them since before, and that are not
    /// registered.
    pub fn find_late<'s>(
        &self,
        cloud: &Cloud,
        kuma: &KumaCp,
        services: impl IntoIterator<Item = &'s ScenarioService>,
        within: Duration,
        now: Timestamp,
    ) -> Vec<String> {
        let registered: BTreeSet<&str> =
            kuma.dataplanes().filter_map(|(_, _, body)| label(body, TASK_LABEL)).collect();
        let services = services.into_iter().filter(|service| service.zone_proxy.is_none());
        let services: BTreeSet<&str> = services.map(|service| service.name.as_str()).collect();
        let is_due = |task: &&Arc<CloudTask>| {
            task.last_status == LastStatus::Running
                && task.desired_status == DesiredStatus::Running
                && task.started_at.is_some_and(|at| at.age_at(now) >= within)
                && !registered.contains(task.id())
                && services.contains(task.family.as_str())
                && !has_template(task)
                && !self.config.role_tags_at(&task.family, now, cloud, |tags| !allows(tags, &task.family))
        };
        let late = cloud.all_tasks().filter(is_due);
        late.map(|task| format!("task {} of {} is not registered after {within:?}", task.id(), task.family))
            .collect()
    }

    /// Running tasks without a registration, with a wrong address, or drained. `held` names tasks that the guard
    /// holds: their host names are not free for other tasks.
    pub fn find_missing(
        &self,
        cloud: &Cloud,
        kuma: &KumaCp,
        services: &[ScenarioService],
        held: &dyn Fn(&str) -> bool,
    ) -> Vec<String> {
        let all = self.owned(kuma);
        let is_held_name =
            |name: &str| all.iter().any(|(n, body)| *n == name && label(body, TASK_LABEL).is_some_and(held));
        let owned: BTreeMap<&str, &Value> =
            all.iter().filter_map(|(_, body)| Some((label(body, TASK_LABEL)?, *body))).collect();
        let should_be = |task: &&Arc<CloudTask>| {
            task.last_status == LastStatus::Running
                && task.desired_status == DesiredStatus::Running
                && services.iter().any(|service| service.name == task.family)
                && cloud.get_role(&role_name(&task.family)).is_ok_and(|role| allows(&role.tags, &task.family))
        };
        let mut missing = Vec::new();
        for task in cloud.all_tasks().filter(should_be) {
            let reachable = cloud.reachable_address(task);
            let address = reachable.map(|address| address.to_string());
            let message = match owned.get(task.id()) {
                None if reachable.is_some_and(|address| is_held_name(&host_name(address))) => continue,
                None if self.overtaken.contains(task.id()) => continue,
                None => "is not registered",
                Some(body) if body["networking"]["address"].as_str() != address.as_deref() => {
                    "has another address"
                }
                Some(body) if label(body, DRAIN_LABEL).is_some() => "is drained",
                Some(_) => continue,
            };
            missing.push(format!("task {} of {} is running and {message}", task.id(), task.family));
        }
        missing
    }

    fn report(&mut self, invariant: Invariant, entry: &KumaJournalEntry, message: &str) {
        let message = format!("{} {}/{}: {message}", entry.method, entry.mesh, entry.name);
        self.violations.push(InvariantViolation { invariant, at: entry.at, message });
    }
}

/// The rule of Kong Mesh's `aws-iam` authentication, implemented independently of the operator.
fn allows(tags: &Tags, service: &str) -> bool {
    let is = |key: &str, value: &str| tags.get(key).is_some_and(|found| found == value);
    is("kuma.io/type", "dataplane")
        && is("kuma.io/mesh", MESH)
        && tags.get("kuma.io/service").is_none_or(|found| found == service)
}
