//! What this operator has registered at one control plane, as last seen. A cache for deciding what to look at: every
//! write reads the server's copy first.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::intent::RegistrationId;
use crate::mesh::{DrainReason, Registration};
use crate::model::{MeshName, TaskArn, Timestamp};

/// One registration of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where.
    pub id: RegistrationId,
    /// Why it is drained, and since when as far as this process knows.
    pub drained: Option<(DrainReason, Timestamp)>,
    /// Of its normal form; `None`: it may or may not exist, a write was cut off before its answer.
    pub fingerprint: Option<Fingerprint>,
    /// The service that it says it is, for reports.
    pub service: Option<Arc<str>>,
    /// When it was last written or read.
    seen_at: Timestamp,
}

/// Stands for a normal form: equal bodies have equal fingerprints, in this process and every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Of a body in normal form.
    pub fn of(normal: &Value) -> Self {
        let mut hasher = DefaultHasher::new();
        feed(normal, &mut hasher);
        Self(hasher.finish())
    }
}

fn feed(value: &Value, hasher: &mut DefaultHasher) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            (0_u8, sorted.len()).hash(hasher);
            for (key, value) in sorted {
                key.hash(hasher);
                feed(value, hasher);
            }
        }
        Value::Array(items) => {
            (1_u8, items.len()).hash(hasher);
            items.iter().for_each(|item| feed(item, hasher));
        }
        other => (2_u8, other.to_string()).hash(hasher),
    }
}

/// The registrations of one control plane, by task.
#[derive(Debug, Default)]
pub struct Registry {
    by_task: Mutex<BTreeMap<TaskArn, Vec<Entry>>>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskArn, Vec<Entry>>> {
        self.by_task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registrations of a task.
    pub fn of(&self, task: &TaskArn) -> Vec<Entry> {
        self.lock().get(task).cloned().unwrap_or_default()
    }

    /// Whether the task has any.
    pub fn has(&self, task: &TaskArn) -> bool {
        self.lock().contains_key(task)
    }

    /// Takes in what the server holds.
    pub fn record(&self, task: &TaskArn, registration: &Registration, now: Timestamp) {
        let fingerprint = Some(Fingerprint::of(&registration.normal));
        let service = registration.service.clone();
        self.put(task, &registration.id, service, registration.drained, fingerprint, now);
    }

    /// A write is about to be sent whose answer may get lost.
    pub fn expect(&self, task: &TaskArn, id: &RegistrationId, service: &str, now: Timestamp) {
        self.put(task, id, Some(service.into()), None, None, now);
    }

    /// Takes in what was written.
    pub fn wrote(
        &self,
        task: &TaskArn,
        id: &RegistrationId,
        drained: Option<DrainReason>,
        normal: &Value,
        now: Timestamp,
    ) {
        self.put(task, id, None, drained, Some(Fingerprint::of(normal)), now);
    }

    fn put(
        &self,
        task: &TaskArn,
        id: &RegistrationId,
        service: Option<Arc<str>>,
        drained: Option<DrainReason>,
        fingerprint: Option<Fingerprint>,
        now: Timestamp,
    ) {
        let mut by_task = self.lock();
        let entries = by_task.entry(task.clone()).or_default();
        let before = entries.iter().position(|entry| entry.id == *id).map(|index| entries.remove(index));
        let (since, said) = before.map_or((None, None), |entry| (entry.drained, entry.service));
        let service = service.or(said);
        let drained = drained.map(|reason| match since {
            Some((earlier, at)) if earlier == reason => (reason, at),
            _ => (reason, now),
        });
        entries.push(Entry { id: id.clone(), drained, fingerprint, service, seen_at: now });
        entries.sort_by(|a, b| a.id.cmp(&b.id));
    }

    /// It is not there, or not ours.
    pub fn forget(&self, task: &TaskArn, id: &RegistrationId) {
        let mut by_task = self.lock();
        if let Some(entries) = by_task.get_mut(task) {
            entries.retain(|entry| entry.id != *id);
            if entries.is_empty() {
                by_task.remove(task);
            }
        }
    }

    /// Takes in a whole list that was asked for at `asked`. What it lacks is forgotten, unless written since: it will
    /// be read again before anything is done about it.
    pub fn replace(&self, listed: &[(TaskArn, Registration)], asked: Timestamp, now: Timestamp) {
        let mut by_task = self.lock();
        let there: std::collections::BTreeSet<(&TaskArn, &RegistrationId)> =
            listed.iter().map(|(task, registration)| (task, &registration.id)).collect();
        by_task.retain(|task, entries| {
            entries.retain(|entry| entry.seen_at >= asked || there.contains(&(task, &entry.id)));
            !entries.is_empty()
        });
        drop(by_task);
        for (task, registration) in listed {
            let newer = self.of(task).iter().any(|e| e.id == registration.id && e.seen_at >= asked);
            if !newer {
                self.record(task, registration, now);
            }
        }
    }

    /// All tasks that have a registration.
    pub fn tasks(&self) -> Vec<TaskArn> {
        self.lock().keys().cloned().collect()
    }

    /// How many registrations a mesh holds of this operator.
    pub fn owned_in(&self, mesh: &MeshName) -> usize {
        self.lock().values().flatten().filter(|entry| entry.id.mesh == *mesh).count()
    }

    /// How many registrations are live and how many drained.
    pub fn counts(&self) -> (usize, usize) {
        let by_task = self.lock();
        let all = by_task.values().flatten().count();
        let drained = by_task.values().flatten().filter(|entry| entry.drained.is_some()).count();
        (all - drained, drained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_bodies_have_equal_fingerprints_whatever_their_order() {
        let a = Fingerprint::of(&json!({"a": 1, "b": [1, 2]}));
        assert_eq!(a, Fingerprint::of(&json!({"b": [1, 2], "a": 1})));
        for other in [json!({"a": 1, "b": [2, 1]}), json!({"a": 1}), json!({"a": "1", "b": [1, 2]})] {
            assert_ne!(a, Fingerprint::of(&other), "{other}");
        }
    }

    #[test]
    fn a_list_does_not_forget_what_was_written_while_it_was_read() {
        let registry = Registry::default();
        let task = TaskArn::parse("arn:aws:ecs:eu-west-1:111122223333:task/c/1").unwrap();
        let id = RegistrationId { mesh: MeshName::parse("default").unwrap(), name: "1".into() };
        registry.wrote(&task, &id, None, &json!({}), Timestamp(10));
        registry.replace(&[], Timestamp(5), Timestamp(20));
        assert!(registry.has(&task));
        registry.replace(&[], Timestamp(15), Timestamp(20));
        assert!(!registry.has(&task));
    }

    #[test]
    fn a_drain_is_dated_from_its_first_sight() {
        let registry = Registry::default();
        let task = TaskArn::parse("arn:aws:ecs:eu-west-1:111122223333:task/c/1").unwrap();
        let id = RegistrationId { mesh: MeshName::parse("default").unwrap(), name: "1".into() };
        registry.wrote(&task, &id, Some(DrainReason::Revoked), &json!({}), Timestamp(10));
        registry.wrote(&task, &id, Some(DrainReason::Revoked), &json!({}), Timestamp(20));
        assert_eq!(registry.of(&task)[0].drained, Some((DrainReason::Revoked, Timestamp(10))));
    }
}
