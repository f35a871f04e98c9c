//! The instances of one control plane during a rolling upgrade, when an old and a new one answer in turn behind one address.
//!
//! They share a store, and each reads and writes it by its own release: a new instance hides the fields that it does not know,
//! and a write through it removes them for the old instances, too. So until the old instances are gone:
//!
//! - bodies have the form of the older release, which 2.14 makes complete for both;
//! - each read is repeated until an answer is complete, since the instance that answers is not known;
//! - each write is read back, and repeated until nothing of it was dropped;
//! - what a later read shows of it counts: a new instance stores a Dataplane again when it receives a sidecar's health report,
//!   so a registration that no answer shows complete is written again;
//! - no outbound is removed.
//!
//! An upgrade in place looks the same until the old instance was not seen for a while. Reads and writes are repeated only where
//! an old instance was among those that answered the last reads of the version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::capabilities::KumaVersion;
use ecs_mesh_api::KumaRelease;
use ecs_mesh_core::intent::RegistrationId;

/// Reads of the version once instances of several releases are known, so that all of them answer.
pub(super) const VERSION_READS: usize = 8;

/// Reads of what was just written, of which a new instance shows a part.
pub(super) const RESOURCE_READS: usize = 4;

/// Reads of a resource of which every answer shows a part, until it counts as dropped. A single old instance behind a load
/// balancer with three new ones is missed once in a thousand times.
pub(super) const HIDDEN_READS: usize = 24;

/// Writes of a body of which a new instance drops a part, while an old one answers, too.
pub(super) const RESOURCE_WRITES: usize = 5;

/// How long an instance counts after its last answer. A load balancer may choose others for a while.
const GONE_AFTER: Duration = Duration::from_secs(15);

/// The known instances, and what only the new ones accept.
#[derive(Debug, Default)]
pub(super) struct RollingUpgrade(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By `instanceId`.
    instances: BTreeMap<Arc<str>, (KumaVersion, Instant)>,
    /// Registrations that only the newer release accepts in its own form.
    in_newer_form: BTreeSet<RegistrationId>,
}

impl RollingUpgrade {
    /// Records an answer. Whether instances of other releases are known, so that the version is to be read several times.
    pub(super) fn record(&self, instance: &str, version: &KumaVersion, now: Instant) -> bool {
        let mut state = self.lock();
        state.instances.insert(instance.into(), (version.clone(), now));
        state.versions().len() > 1
    }

    /// Ends a round of reads. Returns the versions of the instances, the oldest first.
    pub(super) fn settle(&self, now: Instant) -> Vec<KumaVersion> {
        let mut state = self.lock();
        state.instances.retain(|_, (_, seen)| now.duration_since(*seen) < GONE_AFTER);
        let versions = state.versions();
        if versions.len() < 2 {
            state.in_newer_form.clear();
        }
        versions
    }

    /// Whether an instance of another release than the newest has answered since then.
    pub(super) fn older_answers_since(&self, began: Instant) -> bool {
        let state = self.lock();
        let newest = state.instances.values().map(|(version, _)| version.release).max().flatten();
        state.instances.values().any(|(version, seen)| version.release != newest && *seen >= began)
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
    fn older_instance_answers_while_a_round_of_reads_has_seen_it() {
        let (upgrade, start) = (RollingUpgrade::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        upgrade.record("a", &version("2.14.3"), at(0));
        assert!(!upgrade.older_answers_since(at(0)), "it is the newest");
        upgrade.record("b", &version("3.0.1"), at(5));
        for (began, expected) in [(0, true), (5, false)] {
            assert_eq!(upgrade.older_answers_since(at(began)), expected, "{began}");
        }
    }

    #[test]
    fn instances_of_one_release_are_no_upgrade() {
        let (upgrade, start) = (RollingUpgrade::default(), Instant::now());
        upgrade.record("a", &version("2.14.3"), start);
        assert!(!upgrade.record("b", &version("2.14.4"), start));
        assert_eq!(settled(&upgrade, start).len(), 1);
    }
}
