//! The instances of one control plane during a rolling upgrade, when an old and a new one answer in turn behind one address.
//!
//! They share a store, and each reads and writes it by its own release: a new instance hides the fields that it does not know,
//! and a write through it removes them for the old instances, too. So until the old instances are gone:
//!
//! - bodies have the form of the older release, which 2.14 makes complete for both;
//! - each read is repeated until an answer is complete, since the instance that answers is not known;
//! - each write is read back, and repeated until nothing of it was dropped;
//! - no outbound is removed, and a registration that is as the newer release shows it is not written at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::capabilities::KumaVersion;
use ecs_mesh_api::KumaRelease;
use ecs_mesh_core::intent::RegistrationId;

/// Reads of the version once instances of several releases are known, so that all of them answer.
pub(super) const VERSION_READS: usize = 8;

/// Reads of a resource of which a new instance shows a part.
pub(super) const RESOURCE_READS: usize = 4;

/// Writes of a body of which a new instance drops a part.
pub(super) const RESOURCE_WRITES: usize = 5;

/// How long an instance that no longer answers counts after instances of several releases have answered in turn.
const GONE_AFTER: Duration = Duration::from_secs(15);

/// How long before a new instance is found it may have received writes.
const UNNOTICED_FOR: Duration = Duration::from_mins(1);

/// The known instances, and the writes to them.
#[derive(Debug, Default)]
pub(super) struct RollingUpgrade(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By `instanceId`.
    instances: BTreeMap<Arc<str>, (KumaVersion, Instant)>,
    /// Whether instances of several releases have answered in turn.
    is_mixed: bool,
    /// The last writes, of which an instance that was not known yet may have dropped a part.
    written: BTreeMap<RegistrationId, Instant>,
    /// Registrations of which a part may be dropped.
    incomplete: BTreeSet<RegistrationId>,
    /// Registrations that only the newer release accepts in its own form.
    in_newer_form: BTreeSet<RegistrationId>,
}

impl RollingUpgrade {
    /// Records an answer. Whether instances of other releases are known, so that the version is to be read several times.
    pub(super) fn record(&self, instance: &str, version: &KumaVersion, now: Instant) -> bool {
        let mut state = self.lock();
        state.instances.insert(instance.into(), (version.clone(), now));
        state.written.retain(|_, at| now.duration_since(*at) < UNNOTICED_FOR);
        state.versions().len() > 1
    }

    /// Ends a round of reads that began at `began`. Returns the versions of the instances, the oldest first.
    pub(super) fn settle(&self, began: Instant, now: Instant) -> Vec<KumaVersion> {
        let mut state = self.lock();
        let was_mixed = state.is_mixed;
        let counts = |seen: Instant| seen >= began || (was_mixed && now.duration_since(seen) < GONE_AFTER);
        state.instances.retain(|_, (_, seen)| counts(*seen));
        let versions = state.versions();
        state.is_mixed = versions.len() > 1;
        if state.is_mixed {
            let unnoticed = std::mem::take(&mut state.written).into_keys();
            state.incomplete.extend(unnoticed);
        } else {
            state.incomplete.clear();
            state.in_newer_form.clear();
        }
        versions
    }

    /// Records a write whose result is not read back.
    pub(super) fn record_write(&self, id: &RegistrationId, now: Instant) {
        self.lock().written.insert(id.clone(), now);
    }

    /// Records whether a write was read back complete.
    pub(super) fn record_complete(&self, id: &RegistrationId, is_complete: bool) {
        let mut state = self.lock();
        if is_complete {
            state.incomplete.remove(id);
        } else {
            state.incomplete.insert(id.clone());
        }
    }

    /// Whether a part of the registration may be dropped.
    pub(super) fn is_incomplete(&self, id: &RegistrationId) -> bool {
        self.lock().incomplete.contains(id)
    }

    /// Only instances of the newer release have answered writes of this registration, and refused them.
    pub(super) fn use_newer_form(&self, id: &RegistrationId) {
        self.lock().in_newer_form.insert(id.clone());
    }

    /// Whether the registration is written in the form of the newer release.
    pub(super) fn has_newer_form(&self, id: &RegistrationId) -> bool {
        self.lock().in_newer_form.contains(id)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change leaves it consistent, so the lock may be used after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One version of each release, the oldest first. A version without a number comes first.
    fn versions(&self) -> Vec<KumaVersion> {
        let by_release: BTreeMap<Option<KumaRelease>, &KumaVersion> =
            self.instances.values().map(|(version, _)| (version.release, version)).collect();
        by_release.into_values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version(text: &str) -> KumaVersion {
        KumaVersion::read(&json!({"product": "Kuma", "version": text})).unwrap()
    }

    fn settled(upgrade: &RollingUpgrade, began: Instant, now: Instant) -> Vec<String> {
        upgrade.settle(began, now).iter().map(|version| version.text.to_string()).collect()
    }

    #[test]
    fn replaced_instance_is_forgotten_at_once() {
        let (upgrade, start) = (RollingUpgrade::default(), Instant::now());
        assert!(!upgrade.record("a", &version("2.14.3"), start));
        let later = start + Duration::from_secs(1);
        assert!(upgrade.record("b", &version("3.0.1"), later));
        assert_eq!(settled(&upgrade, later, later), ["Kuma 3.0.1"]);
    }

    #[test]
    fn old_instance_counts_for_a_while_after_it_answered_in_turn() {
        let (upgrade, start) = (RollingUpgrade::default(), Instant::now());
        upgrade.record("b", &version("3.0.1"), start);
        upgrade.record("a", &version("2.14.3"), start);
        assert_eq!(settled(&upgrade, start, start), ["Kuma 2.14.3", "Kuma 3.0.1"]);
        for (seconds, wanted) in [(10, &["Kuma 2.14.3", "Kuma 3.0.1"][..]), (16, &["Kuma 3.0.1"])] {
            let now = start + Duration::from_secs(seconds);
            upgrade.record("b", &version("3.0.1"), now);
            assert_eq!(settled(&upgrade, now, now), wanted, "{seconds}");
        }
    }

    #[test]
    fn instances_of_one_release_are_no_upgrade() {
        let (upgrade, start) = (RollingUpgrade::default(), Instant::now());
        upgrade.record("a", &version("2.14.3"), start);
        assert!(!upgrade.record("b", &version("2.14.4"), start));
        assert_eq!(settled(&upgrade, start, start).len(), 1);
    }

    #[test]
    fn last_writes_before_a_new_instance_may_be_incomplete() {
        let (upgrade, start) = (RollingUpgrade::default(), Instant::now());
        let id = |name: &str| RegistrationId { mesh: ecs_mesh_model::MeshName::default(), name: name.into() };
        upgrade.record_write(&id("old"), start);
        let now = start + UNNOTICED_FOR;
        upgrade.record_write(&id("late"), now);
        upgrade.record("a", &version("2.14.3"), now);
        upgrade.record("b", &version("3.0.1"), now);
        upgrade.settle(now, now);
        assert_eq!((upgrade.is_incomplete(&id("old")), upgrade.is_incomplete(&id("late"))), (false, true));
        upgrade.record_complete(&id("late"), true);
        assert!(!upgrade.is_incomplete(&id("late")));
    }
}
