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

/// How long an instance counts after its last answer. A load balancer may choose others for a while.
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

    /// Ends a round of reads. Returns the versions of the instances, the oldest first.
    pub(super) fn settle(&self, now: Instant) -> Vec<KumaVersion> {
        let mut state = self.lock();
        state.instances.retain(|_, (_, seen)| now.duration_since(*seen) < GONE_AFTER);
        let versions = state.versions();
        if versions.len() > 1 {
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

    fn settled(upgrade: &RollingUpgrade, now: Instant) -> Vec<String> {
        upgrade.settle(now).iter().map(|version| version.text.to_string()).collect()
    }

    #[test]
    fn replaced_instance_counts_until_it_is_not_seen_for_15_s() {
        let (upgrade, start) = (RollingUpgrade::default(), Instant::now());
        assert!(!upgrade.record("a", &version("2.14.3"), start));
        assert_eq!(settled(&upgrade, start), ["Kuma 2.14.3"]);
        for (seconds, expected) in [
            (1, &["Kuma 2.14.3", "Kuma 3.0.1"][..]),
            (14, &["Kuma 2.14.3", "Kuma 3.0.1"]),
            (15, &["Kuma 3.0.1"]),
        ] {
            let now = start + Duration::from_secs(seconds);
            upgrade.record("b", &version("3.0.1"), now);
            assert_eq!(settled(&upgrade, now), expected, "{seconds}");
        }
    }

    #[test]
    fn instance_that_answers_again_counts_from_then() {
        let (upgrade, start) = (RollingUpgrade::default(), Instant::now());
        for (seconds, instance, text) in
            [(0, "a", "2.14.3"), (10, "b", "3.0.1"), (14, "a", "2.14.3"), (28, "b", "3.0.1")]
        {
            upgrade.record(instance, &version(text), start + Duration::from_secs(seconds));
        }
        assert_eq!(settled(&upgrade, start + Duration::from_secs(28)).len(), 2);
        assert_eq!(settled(&upgrade, start + Duration::from_secs(29)), ["Kuma 3.0.1"]);
    }

    #[test]
    fn instances_of_one_release_are_no_upgrade() {
        let (upgrade, start) = (RollingUpgrade::default(), Instant::now());
        upgrade.record("a", &version("2.14.3"), start);
        assert!(!upgrade.record("b", &version("2.14.4"), start));
        assert_eq!(settled(&upgrade, start).len(), 1);
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
        upgrade.settle(now);
        assert_eq!((upgrade.is_incomplete(&id("old")), upgrade.is_incomplete(&id("late"))), (false, true));
        upgrade.record_complete(&id("late"), true);
        assert!(!upgrade.is_incomplete(&id("late")));
    }
}
