//! I10: the last ready registrations of a service are not taken out of load balancing while their tasks still serve.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{DRAIN_LABEL, Invariant, KumaOracle, TASK_LABEL, label};
use crate::aws::{Cloud, CloudTask};
use crate::kuma::{KumaCp, KumaJournalEntry, service_of};
use crate::world::can_serve;
use ecs_mesh_model::Timestamp;

/// How old the operator's knowledge may be at a drain: of two slow reads, and of the write.
const READINESS_LAG: Duration = Duration::from_secs(15);

/// How long a drain is held at most: ECS's default `stopTimeout`, and the operator's addition.
const MAX_HOLD: Duration = Duration::from_secs(35);

/// How far apart two steps of the world may be.
const STEP: Duration = Duration::from_secs(1);

/// How long a write may be under way.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// When each registration was ready, and each service lost one by a revocation.
#[derive(Debug, Default)]
pub(super) struct ReadyRegistrations {
    times: BTreeMap<ReadyKey, ReadyTime>,
    revoked: BTreeMap<String, Timestamp>,
    /// The control plane's changes when it was last read.
    changes: Option<u64>,
}

/// A registration. One that was created anew under the name of another has not been ready yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ReadyKey {
    service: String,
    name: String,
    created: String,
}

impl ReadyKey {
    fn new(service: &str, name: &str, body: &Value) -> Self {
        let created = body["creationTime"].as_str().unwrap_or_default().to_owned();
        Self { service: service.to_owned(), name: name.to_owned(), created }
    }
}

#[derive(Clone, Copy, Debug)]
struct ReadyTime {
    /// Without a break. A drain is one, also if it is undone before the next step of the world: the inbounds are not ready
    /// until health discovery has found them again.
    since: Timestamp,
    last: Timestamp,
    /// At the control plane's last change.
    is_ready: bool,
}

impl ReadyRegistrations {
    /// Reads which registrations are ready.
    fn read(&mut self, kuma: &KumaCp, now: Timestamp) {
        self.times.values_mut().for_each(|time| time.is_ready = false);
        for (mesh, name, body) in kuma.dataplanes() {
            if let Some(service) = service_of(body).filter(|_| is_ready(kuma, mesh, name, body)) {
                let first = ReadyTime { since: now, last: now, is_ready: true };
                self.times.entry(ReadyKey::new(service, name, body)).or_insert(first).is_ready = true;
            }
        }
    }
}

impl KumaOracle {
    /// Records which registrations are ready now. Called at each step of the world.
    pub fn record_ready(&mut self, kuma: &KumaCp, now: Timestamp) {
        // Most steps change nothing there.
        if self.ready.changes.replace(kuma.changes()) != Some(kuma.changes()) {
            self.ready.read(kuma, now);
        }
        for time in self.ready.times.values_mut().filter(|time| time.is_ready) {
            if time.last.age_at(now) > STEP {
                time.since = now;
            }
            time.last = now;
        }
        self.ready.times.retain(|_, time| time.last.age_at(now) <= READINESS_LAG);
    }

    /// Records a drain, after it was checked.
    pub(super) fn record_drain(&mut self, entry: &KumaJournalEntry, body: &Value) {
        let Some(service) = service_of(body) else { return };
        if let Some(time) = self.ready.times.get_mut(&ReadyKey::new(service, &entry.name, body)) {
            time.since = entry.at;
            if label(body, DRAIN_LABEL) == Some("revoked") {
                self.ready.revoked.insert(service.to_owned(), entry.at);
            }
        }
    }

    /// Checks a drain that no role tags ask for. The operator knows its own drains and removals at once; that
    /// this registration has become ready, or another one is not ready any more, after [`READINESS_LAG`].
    pub(super) fn check_last_endpoint(
        &mut self,
        entry: &KumaJournalEntry,
        body: &Value,
        cloud: &Cloud,
        kuma: &KumaCp,
    ) {
        let Some(service) = service_of(body) else { return };
        let Some(task) = self.truth(body, cloud, entry.at) else { return };
        let was_ready = |name: &str, body: &Value| self.ready.times.get(&ReadyKey::new(service, name, body));
        let is_known_ready = |time: &ReadyTime| {
            time.last.age_at(entry.at) <= STEP && time.since.age_at(entry.at) >= READINESS_LAG
        };
        let is_last = was_ready(&entry.name, body).is_some_and(is_known_ready)
            && !kuma.dataplanes().any(|(mesh, name, other)| {
                // It may have become ready since the last step of the world.
                let ready = || was_ready(name, other).is_some() || is_ready(kuma, mesh, name, other);
                name != entry.name && service_of(other) == Some(service) && !is_drained(other) && ready()
            });
        if !is_last || !can_serve(&task, entry.at) || self.held_long_enough(&task, service, entry.at) {
            return;
        }
        // The others were revoked, which is due whatever is ready (I4), while this drain was under way.
        if self.ready.revoked.get(service).is_some_and(|at| at.age_at(entry.at) <= WRITE_TIMEOUT) {
            return;
        }
        let id = label(body, TASK_LABEL).unwrap_or_default();
        let message = format!("the last ready one of {service} was drained while its task {id} serves");
        self.report(Invariant::I10, entry, &message);
    }

    /// Whether the drain has been due for the longest hold.
    fn held_long_enough(&self, task: &CloudTask, service: &str, at: Timestamp) -> bool {
        let is_over = |since: Timestamp| since.age_at(at) >= MAX_HOLD;
        let undeclared = self.undeclared.get(service).map(|(from, _)| *from);
        task.stopping_at.into_iter().chain(undeclared).any(is_over)
    }
}

pub(super) fn is_ready(kuma: &KumaCp, mesh: &str, name: &str, body: &Value) -> bool {
    !is_drained(body) && kuma.is_online(mesh, name)
}

fn is_drained(body: &Value) -> bool {
    label(body, DRAIN_LABEL).is_some()
}
