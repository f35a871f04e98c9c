//! The first write to a server whose version is not tested with this operator: it is read back before any other is sent.
//! A server that stores it differently is of an unknown dialect, and gets no further write for a while.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::normalise::normalise;
use ecs_mesh_core::plan::diff;

/// Reads of the first write, until the server shows it as it was sent. A store's read replica may lag.
pub(super) const FIRST_WRITE_READS: usize = 10;

/// Pause between these reads.
pub(super) const FIRST_WRITE_PAUSE: Duration = Duration::from_millis(500);

/// How long a version that stored it differently is not tried again: the difference may have been another writer's.
const REFUTED_FOR: Duration = Duration::from_mins(10);

/// The first write to each version of one server.
#[derive(Debug, Default)]
pub(super) struct FirstWrite {
    /// Held while the first write is sent and read back.
    pub(super) in_progress: tokio::sync::Mutex<()>,
    result: Mutex<Option<VerifiedVersion>>,
}

/// The result of the first write to a version.
#[derive(Debug)]
struct VerifiedVersion {
    version: Arc<str>,
    /// The reason if the server stored it differently, and when that was seen.
    refutation: Option<(String, Instant)>,
}

impl FirstWrite {
    /// Whether a write to this version was read back as it was sent.
    pub(super) fn is_verified(&self, version: &str) -> bool {
        self.lock().as_ref().is_some_and(|last| *last.version == *version && last.refutation.is_none())
    }

    /// The reason why this version gets no further write, if its server stored the first one differently.
    pub(super) fn refutation(&self, version: &str, now: Instant) -> Option<String> {
        let last = self.lock();
        let (reason, at) = last.as_ref().filter(|last| *last.version == *version)?.refutation.as_ref()?;
        (now.duration_since(*at) < REFUTED_FOR).then(|| reason.clone())
    }

    /// Compares what was sent with what the server returns.
    pub(super) fn record(&self, version: &Arc<str>, sent: &Value, stored: Option<&Value>, now: Instant) {
        let refutation = difference(sent, stored).map(|changed| {
            let reason = format!(
                "{version} is not tested with this operator, and the first Dataplane written to it was stored differently \
                 ({changed}): nothing is written to it for {} minutes; help: use a tested version, or another \
                 ControlPlane.spec.kuma.dialect where the version decides none",
                REFUTED_FOR.as_secs() / 60
            );
            (reason, now)
        });
        *self.lock() = Some(VerifiedVersion { version: Arc::clone(version), refutation });
    }

    fn lock(&self) -> MutexGuard<'_, Option<VerifiedVersion>> {
        // It is replaced as a whole, so it may be used after a panic.
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fields that the server stored otherwise than they were sent.
pub(super) fn difference(sent: &Value, stored: Option<&Value>) -> Option<String> {
    let Some(stored) = stored else { return Some("the Dataplane itself".to_owned()) };
    let changed: Vec<String> =
        diff(&normalise(sent), &normalise(stored)).into_iter().map(|change| change.path).collect();
    (!changed.is_empty()).then(|| changed.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dropped_field_refutes_the_version_for_a_while() {
        let (version, first, now) = (Arc::from("Kuma 3.1.0"), FirstWrite::default(), Instant::now());
        let later = now + REFUTED_FOR;
        assert!(!first.is_verified(&version) && first.refutation(&version, now).is_none());
        let sent = json!({"networking": {"inbound": [{"port": 1, "protocol": "http", "state": "NotReady"}]}});
        first.record(&version, &sent, Some(&json!({"networking": {"inbound": [{"port": 1}]}})), now);
        let reason = first.refutation(&version, now).unwrap();
        assert!(
            reason.contains("Kuma 3.1.0") && reason.contains("networking.inbound[0].protocol"),
            "{reason}"
        );
        assert!(!first.is_verified(&version));
        assert_eq!(first.refutation("Kuma 3.1.1", now), None);
        assert_eq!(first.refutation(&version, later), None, "it is tried again");
        let stored = json!({"kri": "x", "networking": {"inbound": [{"port": 1, "protocol": "http"}]}});
        first.record(&version, &sent, Some(&stored), now);
        assert!(first.is_verified(&version) && first.refutation(&version, now).is_none());
        first.record(&version, &sent, None, now);
        assert!(first.refutation(&version, now).is_some(), "the server does not have it at all");
    }
}
