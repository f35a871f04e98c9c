//! Holds what a client wrote against the world's own truth: which task lives, which role has which tags, who made which
//! registration. Never asks the operator what it believes.

mod consul;
mod registry_view;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::aws::{Cloud, CloudTask};
use super::kuma::{KumaJournalEntry, KumaCp};
use super::world::{MESH, SECRET, ScenarioService, host_name, role_name};
use ecs_mesh_model::{DesiredStatus, LastStatus, Tags, Timestamp};

pub use consul::{ConsulOracle, ConsulWriteCounts};

pub use consul::consul_task_of;

// The contract with the client, in words of our own: the client's could be wrong.
const OPERATOR_LABEL: &str = "ecs-mesh.dev/operator";
const CLUSTER_LABEL: &str = "ecs-mesh.dev/cluster-id";
const TASK_LABEL: &str = "ecs-mesh.dev/task-id";
const DRAIN_LABEL: &str = "ecs-mesh.dev/drain";

/// A client may be this many behind in what it knows to be registered: answers under way and lost.
const MAX_UNCONFIRMED: u8 = 1;

/// For so long a client may not have heard of a task's end.
const STOP_EVENT_LAG: Duration = Duration::from_secs(90);

/// The promises. I7 is not judged here: it takes a lease that is lost, which only a simulation has.
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
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 9] =
        [Self::I1, Self::I2, Self::I3, Self::I4, Self::I5, Self::I6, Self::I7, Self::I8, Self::I9];
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvariantViolation {
    /// Which.
    pub invariant: Invariant,
    /// When.
    pub at: Timestamp,
    /// What was done, and what was true.
    pub message: String,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteCounts {
    /// New registrations.
    pub created: u64,
    /// Changed ones.
    pub updated: u64,
    /// Taken out of service.
    pub drained: u64,
    /// Removed.
    pub removed: u64,
}

impl WriteCounts {
    /// All accepted writes.
    pub fn writes(&self) -> u64 {
        self.created + self.updated + self.drained + self.removed
    }
}

/// What the judge is told.
#[derive(Clone, Debug)]
pub struct OracleConfig {
    /// Whose registrations are judged: the operator's id, or at Consul the accessor of its token.
    pub operator: String,
    /// The cluster's ARN.
    pub cluster: String,
    /// How long ago a role's tags may have changed without the client having to know: re-check, staleness and pace.
    pub tags_lag: Duration,
    /// The guard's limit.
    pub max_fraction: f64,
    /// The guard's floor.
    pub min_owned: usize,
}

/// The judge.
#[derive(Debug)]
pub struct KumaOracle {
    rules: OracleConfig,
    violations: Vec<InvariantViolation>,
    tally: WriteCounts,
    /// Services whose workload the manifests lack, from and until when.
    unwanted: BTreeMap<String, (Timestamp, Timestamp)>,
    /// Removals that no STOPPED backs, by this process of the operator.
    unbacked: Vec<Timestamp>,
    /// The most that were owned at any time (a simulated life is hardly longer than the guard's hour).
    most_owned: usize,
}

impl OracleConfig {
    /// The task of the cluster with this id, as it was.
    fn truth(&self, id: &str, cloud: &Cloud, at: Timestamp) -> Option<Arc<CloudTask>> {
        cloud.task_as_of(&format!("{}/{id}", self.cluster.replacen(":cluster/", ":task/", 1)), at)
    }

    /// Whether the role's tags of a service were so at any time of the last while.
    fn role_tags_at(&self, service: &str, at: Timestamp, cloud: &Cloud, so: impl Fn(&Tags) -> bool) -> bool {
        let lag = i64::try_from(self.tags_lag.as_millis()).unwrap_or(i64::MAX);
        (0..=lag / 250).any(|step| {
            let tags = cloud.role_tags_as_of(&role_name(service), Timestamp(at.0 - step * 250));
            tags.is_some_and(|tags| so(&tags))
        })
    }

    /// Whether so many of so many may not have gone within an hour.
    fn exceeds_guard(&self, gone: usize, owned: usize) -> bool {
        #[allow(clippy::cast_precision_loss)] // small numbers
        let (part, all) = (gone as f64, owned as f64);
        owned >= self.min_owned && part > self.max_fraction * all + f64::from(MAX_UNCONFIRMED)
    }
}

fn label<'a>(body: &'a Value, key: &str) -> Option<&'a str> {
    body["labels"][key].as_str()
}

fn service_of(body: &Value) -> Option<&str> {
    body["networking"]["inbound"][0]["tags"]["kuma.io/service"]
        .as_str()
        .or_else(|| label(body, "kuma.io/workload"))
}

impl KumaOracle {
    /// A judge who has seen nothing yet.
    pub fn new(rules: OracleConfig) -> Self {
        Self {
            rules,
            violations: Vec::new(),
            tally: WriteCounts::default(),
            unwanted: BTreeMap::new(),
            unbacked: Vec::new(),
            most_owned: 0,
        }
    }

    /// What was found.
    pub fn violations(&self) -> &[InvariantViolation] {
        &self.violations
    }

    /// What was written.
    pub fn tally(&self) -> WriteCounts {
        self.tally
    }

    /// The manifests lack this service's workload from now until (with what is under way) `until`.
    pub fn is_undeclared(&mut self, service: &str, from: Timestamp, until: Timestamp) {
        self.unwanted.insert(service.to_owned(), (from, until));
    }

    /// A new process of the operator: its guard counts from zero.
    pub fn restarted(&mut self) {
        self.unbacked.clear();
        self.most_owned = 0;
    }

    /// Judges accepted writes.
    pub fn writes(&mut self, entries: Vec<KumaJournalEntry>, cloud: &Cloud, kuma: &KumaCp) {
        self.most_owned = self.most_owned.max(self.owned(kuma).len());
        for entry in entries.into_iter().filter(|entry| entry.kind == "Dataplane") {
            self.write(&entry, cloud, kuma);
        }
    }

    fn write(&mut self, entry: &KumaJournalEntry, cloud: &Cloud, kuma: &KumaCp) {
        self.ownership(entry);
        if entry.after.as_ref().is_some_and(|body| body.to_string().contains(SECRET)) {
            self.report(Invariant::I9, entry, "it shows a secret of the task's environment");
        }
        match (&entry.before, &entry.after) {
            (before, Some(after)) => {
                let drained = |body: &Value| label(body, DRAIN_LABEL).is_some();
                match before {
                    None => self.tally.created += 1,
                    Some(before) if drained(after) && !drained(before) => self.tally.drained += 1,
                    Some(_) => self.tally.updated += 1,
                }
                if !entry.changed {
                    self.report(Invariant::I6, entry, "an unchanged body was written again");
                }
                if !drained(after) {
                    self.allowed(entry, after, cloud);
                } else if before.as_ref().is_none_or(|before| !drained(before)) {
                    self.check_withdrawal(entry, after, "drained", cloud, kuma);
                }
            }
            (Some(before), None) => {
                self.tally.removed += 1;
                self.check_withdrawal(entry, before, "removed", cloud, kuma);
            }
            (None, None) => {}
        }
    }

    fn ownership(&mut self, entry: &KumaJournalEntry) {
        for body in [&entry.before, &entry.after].into_iter().flatten() {
            if label(body, OPERATOR_LABEL) != Some(&self.rules.operator) || label(body, TASK_LABEL).is_none()
            {
                self.report(Invariant::I3, entry, "it does not carry this operator's marks");
            }
        }
        if let (Some(before), Some(after)) = (&entry.before, &entry.after)
            && [TASK_LABEL, CLUSTER_LABEL].iter().any(|mark| label(before, mark) != label(after, mark))
        {
            self.report(Invariant::I3, entry, "it was another task's");
        }
    }

    fn truth(&self, body: &Value, cloud: &Cloud, at: Timestamp) -> Option<Arc<CloudTask>> {
        self.rules.truth(label(body, TASK_LABEL)?, cloud, at)
    }

    /// I4: registered only where the role's tags allow it, or did a moment ago.
    fn allowed(&mut self, entry: &KumaJournalEntry, body: &Value, cloud: &Cloud) {
        let Some(service) = service_of(body) else { return };
        if !self.rules.role_tags_at(service, entry.at, cloud, |tags| allows(tags, service)) {
            self.report(Invariant::I4, entry, "the role's tags do not allow it");
        }
        let long_over = self
            .truth(body, cloud, entry.at)
            .is_none_or(|task| task.stopped_at.is_some_and(|at| at.age_at(entry.at) > STOP_EVENT_LAG));
        if entry.before.is_none() && long_over {
            self.report(Invariant::I4, entry, "it was created for a task that stopped long before");
        }
    }

    /// I2 and I5: taken away, or out of service, only for a reason.
    fn check_withdrawal(&mut self, entry: &KumaJournalEntry, body: &Value, how: &str, cloud: &Cloud, kuma: &KumaCp) {
        let truth = self.truth(body, cloud, entry.at);
        let over = match (how, &truth) {
            // In this world nothing vanishes that has not stopped.
            (_, None) => true,
            ("removed", Some(task)) => task.last_status.is_stopped(),
            (_, Some(task)) => task.desired_status == DesiredStatus::Stopped || task.last_status.is_stopped(),
        };
        if over {
            return;
        }
        let service = service_of(body).unwrap_or_default();
        let revoked = self.rules.role_tags_at(service, entry.at, cloud, |tags| !allows(tags, service));
        let unwanted =
            self.unwanted.get(service).is_some_and(|(from, until)| (*from..=*until).contains(&entry.at));
        if !revoked && !unwanted {
            let status = truth.map_or("MISSING", |task| task.last_status.as_str());
            let message =
                format!("{how} while its task is {status}, its role allows it and the manifests want it");
            self.report(Invariant::I2, entry, &message);
        }
        if how == "removed" {
            self.count_unconfirmed_removals(entry, kuma);
        }
    }

    fn count_unconfirmed_removals(&mut self, entry: &KumaJournalEntry, kuma: &KumaCp) {
        let old = |at: &Timestamp| at.age_at(entry.at) >= Duration::from_hours(1);
        self.unbacked.retain(|at| !old(at));
        self.unbacked.push(entry.at);
        // The removed one was among them a moment ago.
        self.most_owned = self.most_owned.max(self.owned(kuma).len() + 1);
        if self.rules.exceeds_guard(self.unbacked.len(), self.most_owned) {
            let message = format!(
                "{} of {} went within an hour without a STOPPED",
                self.unbacked.len(),
                self.most_owned
            );
            self.report(Invariant::I5, entry, &message);
        }
    }

    fn owned<'k>(&self, kuma: &'k KumaCp) -> Vec<(&'k str, &'k Value)> {
        let ours = |body: &Value| label(body, OPERATOR_LABEL) == Some(self.rules.operator.as_str());
        kuma.dataplanes().filter(|(_, _, body)| ours(body)).map(|(_, name, body)| (name, body)).collect()
    }

    /// What is not as it should be, now that everything has been quiet for long enough: stale registrations (I1), and
    /// live tasks that are not registered as they should be. `but` names tasks that a guard holds.
    pub fn check_after_quiet(
        &mut self,
        cloud: &Cloud,
        kuma: &KumaCp,
        services: &[ScenarioService],
        held: &dyn Fn(&str) -> bool,
        now: Timestamp,
    ) -> Vec<String> {
        let leaks = self.check_secret_leaks(cloud, kuma, held, now);
        for message in &leaks {
            self.violations.push(InvariantViolation { invariant: Invariant::I1, at: now, message: message.clone() });
        }
        leaks.into_iter().chain(self.check_missing(cloud, kuma, services, held)).collect()
    }

    /// Registrations whose task is gone.
    pub fn check_secret_leaks(
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
        self.owned(kuma)
            .iter()
            .filter(|found| stale(found))
            .map(|(name, body)| {
                format!("{name} ({}) is registered and its task is gone", service_of(body).unwrap_or("?"))
            })
            .collect()
    }

    /// Live tasks that are not registered, not with their address, or drained. `held` names tasks that a guard holds: the
    /// host name of such a task is not free for the next one.
    pub fn check_missing(
        &self,
        cloud: &Cloud,
        kuma: &KumaCp,
        services: &[ScenarioService],
        held: &dyn Fn(&str) -> bool,
    ) -> Vec<String> {
        let all = self.owned(kuma);
        let of_held =
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
            let address = task.address().map(|address| address.to_string());
            let message = match owned.get(task.id()) {
                None if task.address().is_some_and(|address| of_held(&host_name(address))) => continue,
                None => "is not registered",
                Some(body) if body["networking"]["address"].as_str() != address.as_deref() => {
                    "has another address"
                }
                Some(body) if label(body, DRAIN_LABEL).is_some() => "is drained",
                Some(_) => continue,
            };
            missing.push(format!("task {} of {} runs and {message}", task.id(), task.family));
        }
        missing
    }

    fn report(&mut self, invariant: Invariant, entry: &KumaJournalEntry, message: &str) {
        let message = format!("{} {}/{}: {message}", entry.method, entry.mesh, entry.name);
        self.violations.push(InvariantViolation { invariant, at: entry.at, message });
    }
}

/// The rule of Kong Mesh's aws-iam authentication, in the judge's own words.
fn allows(tags: &Tags, service: &str) -> bool {
    let is = |key: &str, value: &str| tags.get(key).is_some_and(|found| found == value);
    is("kuma.io/type", "dataplane")
        && is("kuma.io/mesh", MESH)
        && tags.get("kuma.io/service").is_none_or(|found| found == service)
}
