//! I10: the last ready registrations of a service are not taken out of load balancing while their tasks still serve.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{DRAIN_LABEL, Invariant, KumaOracle, TASK_LABEL, label, service_of};
use crate::aws::{Cloud, CloudTask};
use crate::kuma::{KumaCp, KumaJournalEntry};
use crate::world::can_serve;
use ecs_mesh_model::{DesiredStatus, Timestamp};

/// How old the operator's knowledge may be at a drain: of two slow reads, and of the write.
const READINESS_LAG: Duration = Duration::from_secs(15);

/// How long a drain is held at most: ECS's default `stopTimeout`, and the operator's addition.
const MAX_HOLD: Duration = Duration::from_secs(35);

/// When each registration was ready last, by service and name.
#[derive(Debug, Default)]
pub(super) struct ReadyRegistrations(BTreeMap<(String, String), ReadyRegistration>);

#[derive(Debug)]
struct ReadyRegistration {
    /// The last time.
    at: Timestamp,
    /// Its task, if it has one, and whether that was leaving then.
    stays: bool,
}

impl KumaOracle {
    /// Records which registrations are ready now. Called at each step of the world.
    pub fn record_ready(&mut self, kuma: &KumaCp, cloud: &Cloud, now: Timestamp) {
        for (mesh, name, body) in kuma.dataplanes() {
            let Some(service) = service_of(body) else { continue };
            if label(body, DRAIN_LABEL).is_some() || !kuma.is_online(mesh, name) {
                continue;
            }
            let leaves = |task: &CloudTask| task.desired_status == DesiredStatus::Stopped;
            let stays = !self.truth(body, cloud, now).is_some_and(|task| leaves(&task));
            self.ready.0.insert((service.to_owned(), name.to_owned()), ReadyRegistration { at: now, stays });
        }
        self.ready.0.retain(|_, ready| ready.at.age_at(now) <= READINESS_LAG);
    }

    /// Checks a drain that no role tags ask for.
    pub(super) fn check_last_endpoint(&mut self, entry: &KumaJournalEntry, body: &Value, cloud: &Cloud) {
        let Some(service) = service_of(body) else { return };
        let Some(task) = self.truth(body, cloud, entry.at) else { return };
        let of_service = |(key, ready): (&(String, String), &ReadyRegistration)| {
            (key.0 == service).then(|| (key.1.clone(), ready.at, ready.stays))
        };
        let known: Vec<_> = self.ready.0.iter().filter_map(of_service).collect();
        let was_ready = known
            .iter()
            .any(|(name, at, _)| *name == entry.name && at.age_at(entry.at) <= Duration::from_secs(1));
        let others = known.iter().any(|(name, _, stays)| *name != entry.name && *stays);
        if !was_ready
            || others
            || !can_serve(&task, entry.at)
            || self.held_long_enough(&task, service, entry.at)
        {
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
