//! The registrations of this operator at one control plane, as last seen. A cache that decides what to look at: every
//! write reads the server's copy first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::telemetry::state::OwnedCounts;
use ecs_mesh_control_plane::{ContentHash, FailedSegment, RegistrationSummary};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_core::plan::DrainReason;
use ecs_mesh_core::plan::{OwnedCount, PlanStep};
use ecs_mesh_model::{TaskArn, Timestamp};

/// How long a reading with the sidecar's connection counts more than what the registration itself shows.
const READING_COUNTS_FOR: Duration = Duration::from_mins(5);

/// One registration of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistryEntry {
    /// Mesh and name.
    pub id: RegistrationId,
    /// Why the registration is drained, and since when as far as this process knows.
    pub drained: Option<(DrainReason, Timestamp)>,
    /// Whether the operator wrote the registration last, as far as this process knows.
    pub has_writer_mark: bool,
    /// Hash of the normal form; `None` if a write was sent and not answered, so that the registration may not exist.
    pub content_hash: Option<ContentHash>,
    /// The service of the registration, for reports.
    pub service: Option<Arc<str>>,
    /// Whether it serves, as last read, and when that was, on the steady clock. A write leaves it as it was.
    pub readiness: Option<(bool, Timestamp)>,
    /// The removal that was sent and not acknowledged.
    pub unacknowledged: Option<Arc<PlanStep>>,
    /// Whether complete manifests have declared the registration since the operator started.
    pub was_declared: bool,
    /// Whether this process has seen the registration exactly as declared.
    was_exact: bool,
    /// The hash of what was declared, if the registration was exactly so after this process's last write or look.
    exact: Option<ContentHash>,
    /// Since when the manifests ask for its withdrawal, in the time for which they have been valid.
    undeclared_since: Option<Duration>,
    /// When the registration was last written or read.
    seen_at: Timestamp,
    /// The binding that owns the registration, once known.
    binding: Option<Arc<str>>,
}

impl RegistryEntry {
    /// The name of the binding that owns the registration, once known.
    pub fn binding(&self) -> Option<&Arc<str>> {
        self.binding.as_ref()
    }

    /// Records the readiness that the registration itself shows. It lacks whether the sidecar is connected, so it does not
    /// outdo a recent reading that had it.
    fn record_stored_readiness(&mut self, ready: Option<bool>, now: Timestamp) {
        let Some(ready) = ready else { return };
        let is_recent = |(_, at): (bool, Timestamp)| at.age_at(now) < READING_COUNTS_FOR;
        if !ready || !self.readiness.is_some_and(is_recent) {
            self.readiness = Some((ready, now));
        }
    }

    /// Whether a list requested at `requested` that lacks the registration ends its entry. An unacknowledged removal keeps
    /// the entry, since the next lookup reports its outcome.
    fn may_be_forgotten(&self, requested: Timestamp) -> bool {
        self.seen_at < requested && self.unacknowledged.is_none()
    }

    /// Whether the registration was as declared, and this operator has not withdrawn it.
    fn is_in_force(&self) -> bool {
        self.exact.is_some() && self.drained.is_none() && self.unacknowledged.is_none()
    }

    /// Updates the entry with what was written or read. A missing service keeps the known one.
    fn update(
        &mut self,
        service: Option<Arc<str>>,
        drained: Option<DrainReason>,
        content_hash: Option<ContentHash>,
        now: Timestamp,
    ) {
        if service.is_some() && self.service != service {
            self.service = service;
        }
        self.drained = drained.map(|reason| match self.drained {
            Some((earlier, at)) if earlier == reason => (reason, at),
            _ => (reason, now),
        });
        (self.content_hash, self.seen_at) = (content_hash, now);
    }
}

/// The registrations of one control plane, by task.
#[derive(Debug, Default)]
pub struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_task: BTreeMap<TaskArn, Vec<RegistryEntry>>,
    /// The number of registrations, by owning binding.
    owned: BTreeMap<Arc<str>, OwnedCount>,
    /// Registrations in force that the server no longer had, since the last list.
    lost: BTreeSet<(TaskArn, RegistrationId)>,
}

impl Inner {
    fn insert(&mut self, task: &TaskArn, entry: RegistryEntry) {
        if let Some(binding) = &entry.binding {
            let owned = self.owned.entry(Arc::clone(binding)).or_default();
            owned.possible += 1;
            owned.confirmed += usize::from(entry.content_hash.is_some());
        }
        match self.by_task.get_mut(task) {
            // Few tasks get another registration, so reserve for this one only.
            Some(entries) => {
                entries.reserve_exact(1);
                entries.push(entry);
                entries.sort_by(|a, b| a.id.cmp(&b.id));
            }
            None => drop(self.by_task.insert(task.clone(), vec![entry])),
        }
    }

    fn find(&mut self, task: &TaskArn, id: &RegistrationId) -> Option<&mut RegistryEntry> {
        self.by_task.get_mut(task)?.iter_mut().find(|entry| entry.id == *id)
    }

    fn remove(&mut self, task: &TaskArn, id: &RegistrationId) -> Option<RegistryEntry> {
        let entries = self.by_task.get_mut(task)?;
        let index = entries.iter().position(|entry| entry.id == *id)?;
        let entry = entries.remove(index);
        if entries.is_empty() {
            self.by_task.remove(task);
        }
        if let Some(binding) = &entry.binding
            && let Some(owned) = self.owned.get_mut(binding)
        {
            owned.possible -= 1;
            owned.confirmed -= usize::from(entry.content_hash.is_some());
        }
        Some(entry)
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registrations of a task.
    pub fn entries(&self, task: &TaskArn) -> Vec<RegistryEntry> {
        self.lock().by_task.get(task).cloned().unwrap_or_default()
    }

    /// Whether the task has a registration.
    pub fn contains(&self, task: &TaskArn) -> bool {
        self.lock().by_task.contains_key(task)
    }

    /// Records the server's registration.
    pub fn record_seen(&self, task: &TaskArn, seen: &RegistrationSummary, now: Timestamp) {
        self.put(task, &seen.id, seen.service.clone(), seen.drained, Some(seen.content_hash), now);
        self.update_entry(task, &seen.id, |entry| {
            entry.has_writer_mark = seen.has_writer_mark;
            entry.record_stored_readiness(seen.ready, now);
        });
    }

    /// Records a create before it is sent: if the response is lost, the next list still finds it, owned by this binding.
    pub fn record_pending(
        &self,
        task: &TaskArn,
        id: &RegistrationId,
        service: &str,
        binding: &Arc<str>,
        now: Timestamp,
    ) {
        self.put(task, id, Some(service.into()), None, None, now);
        self.assign_binding(task, id, Some(binding));
        self.update_entry(task, id, |entry| (entry.was_declared, entry.has_writer_mark) = (true, true));
    }

    /// Records an acknowledged write.
    pub fn record_written(
        &self,
        task: &TaskArn,
        id: &RegistrationId,
        drained: Option<DrainReason>,
        normal: &Value,
        now: Timestamp,
    ) {
        self.put(task, id, None, drained, Some(ContentHash::of(normal)), now);
        self.update_entry(task, id, |entry| (entry.has_writer_mark, entry.exact) = (true, None));
    }

    fn put(
        &self,
        task: &TaskArn,
        id: &RegistrationId,
        service: Option<Arc<str>>,
        drained: Option<DrainReason>,
        content_hash: Option<ContentHash>,
        now: Timestamp,
    ) {
        let mut inner = self.lock();
        // Update in place: a list of thousands would otherwise fragment the heap.
        if let Some(known) = inner.find(task, id)
            && known.content_hash.is_some() == content_hash.is_some()
        {
            known.update(service, drained, content_hash, now);
            return;
        }
        let mut entry = inner.remove(task, id).unwrap_or_else(|| RegistryEntry {
            id: id.clone(),
            drained: None,
            has_writer_mark: false,
            content_hash: None,
            service: None,
            readiness: None,
            unacknowledged: None,
            was_declared: false,
            was_exact: false,
            exact: None,
            undeclared_since: None,
            seen_at: now,
            binding: None,
        });
        entry.update(service, drained, content_hash, now);
        inner.insert(task, entry);
    }

    /// Records the readiness of a registration, if it is known.
    pub fn record_readiness(&self, task: &TaskArn, id: &RegistrationId, ready: bool, at: Timestamp) {
        self.update_entry(task, id, |entry| entry.readiness = Some((ready, at)));
    }

    /// Records a removal before it is sent: its response may be lost.
    pub fn begin_removal(&self, task: &TaskArn, step: &PlanStep) {
        self.update_entry(task, &step.id, |entry| entry.unacknowledged = Some(Arc::new(step.clone())));
    }

    /// Whether a removal was sent and not acknowledged.
    pub fn is_unacknowledged(&self, task: &TaskArn, id: &RegistrationId) -> bool {
        self.update_entry(task, id, |entry| entry.unacknowledged.is_some()).unwrap_or(false)
    }

    /// Whether this operator has drained the registration, or sent its removal; `None` if it is not known.
    pub fn is_withdrawn(&self, task: &TaskArn, id: &RegistrationId) -> Option<bool> {
        self.update_entry(task, id, |entry| entry.drained.is_some() || entry.unacknowledged.is_some())
    }

    /// The removal that was sent did not take effect.
    pub fn acknowledge(&self, task: &TaskArn, id: &RegistrationId) {
        self.update_entry(task, id, |entry| entry.unacknowledged = None);
    }

    /// Records what complete manifests that have been valid for `valid_for` ask for: the withdrawal of the `undeclared`
    /// registrations of the task, and nothing of the others, which they declare where `declared` is set.
    pub fn record_declarations(
        &self,
        task: &TaskArn,
        undeclared: &[RegistrationId],
        declared: bool,
        valid_for: Duration,
    ) {
        for entry in self.lock().by_task.get_mut(task).into_iter().flatten() {
            if undeclared.contains(&entry.id) {
                entry.undeclared_since.get_or_insert(valid_for);
            } else {
                entry.undeclared_since = None;
                entry.was_declared |= declared;
            }
        }
    }

    /// Records that the registration is exactly as declared, in this normal form.
    pub fn record_exact(&self, task: &TaskArn, id: &RegistrationId, declared: &Value) {
        let declared = ContentHash::of(declared);
        self.update_entry(task, id, |entry| {
            (entry.was_exact, entry.was_declared) = (true, true);
            entry.exact = Some(declared);
        });
    }

    /// Whether this process has seen the registration exactly in this normal form: then a difference of the server's copy is
    /// another writer's.
    pub fn was_exactly(&self, task: &TaskArn, id: &RegistrationId, declared: &Value) -> bool {
        self.update_entry(task, id, |entry| entry.exact).flatten() == Some(ContentHash::of(declared))
    }

    /// Takes note that another writer removed a registration that this process had seen as declared. Whether it did, once.
    pub fn take_lost(&self, task: &TaskArn, id: &RegistrationId) -> bool {
        self.lock().lost.remove(&(task.clone(), id.clone()))
    }

    /// Drops the entry: the server no longer has the registration, and this operator has not removed it.
    pub fn forget_missing(&self, task: &TaskArn, id: &RegistrationId) {
        let mut inner = self.lock();
        if inner.remove(task, id).is_some_and(|entry| entry.is_in_force()) {
            inner.lost.insert((task.clone(), id.clone()));
        }
    }

    /// Whether this process has seen each registration of the task exactly as declared.
    pub fn were_exact(&self, task: &TaskArn) -> bool {
        self.lock().by_task.get(task).into_iter().flatten().all(|entry| entry.was_exact)
    }

    /// For how long manifests that have been valid for `valid_for` have asked for the withdrawal of the registration.
    pub fn undeclared_for(&self, task: &TaskArn, id: &RegistrationId, valid_for: Duration) -> Duration {
        let since = self.update_entry(task, id, |entry| entry.undeclared_since).flatten();
        since.map_or(Duration::ZERO, |since| valid_for.saturating_sub(since))
    }

    /// Changes fields that neither the counts nor the order depend on.
    fn update_entry<T>(
        &self,
        task: &TaskArn,
        id: &RegistrationId,
        change: impl FnOnce(&mut RegistryEntry) -> T,
    ) -> Option<T> {
        self.lock().find(task, id).map(change)
    }

    /// Drops the entry: the registration does not exist, or has another owner.
    pub fn forget(&self, task: &TaskArn, id: &RegistrationId) {
        self.lock().remove(task, id);
    }

    /// Records an item of a list that was requested at `requested`, unless the registration was written since. (A clock may
    /// be set back, and a listed registration is no older than its list.)
    pub fn record_listed(
        &self,
        task: &TaskArn,
        seen: &RegistrationSummary,
        requested: Timestamp,
        now: Timestamp,
    ) {
        if !self.update_entry(task, &seen.id, |known| known.seen_at >= requested).unwrap_or(false) {
            self.record_seen(task, seen, now.max(requested));
        }
    }

    /// Ends a list that was requested at `requested`: entries that it lacked are dropped, unless their segment failed or
    /// they were written since. Each is read again before a write.
    pub fn finish_list(&self, failed: &[FailedSegment], requested: Timestamp) {
        let mut inner = self.lock();
        let lost: Vec<(TaskArn, RegistrationId)> = inner
            .by_task
            .iter()
            .flat_map(|(task, entries)| entries.iter().map(move |entry| (task, entry)))
            .filter(|(_, entry)| entry.may_be_forgotten(requested) && is_covered(failed, &entry.id))
            .map(|(task, entry)| (task.clone(), entry.id.clone()))
            .collect();
        // An older loss was repaired, or its task is gone.
        inner.lost.clear();
        for (task, id) in lost {
            if inner.remove(&task, &id).is_some_and(|entry| entry.is_in_force()) {
                inner.lost.insert((task, id));
            }
        }
    }

    /// Replaces the registrations of one task by those found by a search that was requested at `requested`. Entries of
    /// failed segments are kept.
    pub fn replace_task(
        &self,
        task: &TaskArn,
        found: &[RegistrationSummary],
        failed: &[FailedSegment],
        requested: Timestamp,
        now: Timestamp,
    ) {
        for entry in self.entries(task).into_iter().filter(|entry| is_covered(failed, &entry.id)) {
            if entry.may_be_forgotten(requested) && !found.iter().any(|seen| seen.id == entry.id) {
                self.forget(task, &entry.id);
            }
        }
        found.iter().for_each(|seen| self.record_seen(task, seen, now));
    }

    /// All tasks that have a registration.
    pub fn tasks(&self) -> Vec<TaskArn> {
        self.lock().by_task.keys().cloned().collect()
    }

    /// All registrations of all tasks.
    pub fn ids(&self) -> BTreeSet<RegistrationId> {
        self.lock().by_task.values().flatten().map(|entry| entry.id.clone()).collect()
    }

    /// Calls `visitor` with each registration, by task. It may not use the registry.
    pub fn visit(&self, visitor: impl FnMut(&RegistryEntry)) {
        self.lock().by_task.values().flatten().for_each(visitor);
    }

    /// Assigns the registration to its owning binding.
    pub fn assign_binding(&self, task: &TaskArn, id: &RegistrationId, binding: Option<&Arc<str>>) {
        let mut inner = self.lock();
        let known = inner.by_task.get(task).and_then(|entries| entries.iter().find(|entry| entry.id == *id));
        if known.is_none_or(|entry| entry.binding.as_ref() == binding) {
            return;
        }
        if let Some(entry) = inner.remove(task, id) {
            inner.insert(task, RegistryEntry { binding: binding.cloned(), ..entry });
        }
    }

    /// The number of registrations that the binding owns.
    pub fn owned_by(&self, binding: &str) -> OwnedCount {
        self.lock().owned.get(binding).copied().unwrap_or_default()
    }

    /// The number of registrations by state.
    pub fn owned(&self) -> OwnedCounts {
        let mut owned = OwnedCounts::default();
        self.visit(|entry| match (entry.content_hash, entry.drained) {
            (None, _) => owned.unconfirmed += 1,
            (Some(_), Some(_)) => owned.drained += 1,
            (Some(_), None) => owned.ready += 1,
        });
        owned
    }

    /// The number of live and of drained registrations.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        let all = inner.by_task.values().flatten().count();
        let drained = inner.by_task.values().flatten().filter(|entry| entry.drained.is_some()).count();
        (all - drained, drained)
    }
}

/// Whether the segment of the registration was listed, so that its absence from the list counts.
fn is_covered(failed: &[FailedSegment], id: &RegistrationId) -> bool {
    !failed.iter().any(|failed| failed.segment.contains(id))
}

#[cfg(test)]
mod tests;
