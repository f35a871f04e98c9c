//! The first write to a server whose version is not tested with this operator: it is read back before any other is sent.
//! A server that stores it differently is of an unknown dialect, and gets no further write.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::normalise::normalise;
use ecs_mesh_core::plan::diff;

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
    /// The reason if the server stored it differently.
    refutation: Option<String>,
}

impl FirstWrite {
    /// Whether a write to this version was read back as it was sent.
    pub(super) fn is_verified(&self, version: &str) -> bool {
        self.lock().as_ref().is_some_and(|last| *last.version == *version && last.refutation.is_none())
    }

    /// The reason why this version gets no further write, if its server stored the first one differently.
    pub(super) fn refutation(&self, version: &str) -> Option<String> {
        let last = self.lock();
        last.as_ref().filter(|last| *last.version == *version).and_then(|last| last.refutation.clone())
    }

    /// Compares what was sent with what the server returns.
    pub(super) fn record(&self, version: &Arc<str>, sent: &Value, stored: Option<&Value>) {
        let changed: Vec<String> = match stored {
            Some(stored) => {
                diff(&normalise(sent), &normalise(stored)).into_iter().map(|change| change.path).collect()
            }
            None => vec!["the Dataplane itself".to_owned()],
        };
        let refutation = (!changed.is_empty()).then(|| {
            format!(
                "{version} is not tested with this operator, and the first Dataplane written to it was stored differently \
                 ({}): nothing more is written to it; help: use a tested version, or another ControlPlane.spec.kuma.dialect \
                 where the version decides none",
                changed.join(", ")
            )
        });
        *self.lock() = Some(VerifiedVersion { version: Arc::clone(version), refutation });
    }

    fn lock(&self) -> MutexGuard<'_, Option<VerifiedVersion>> {
        // It is replaced as a whole, so it may be used after a panic.
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dropped_field_refutes_the_version_until_it_changes() {
        let (version, first) = (Arc::from("Kuma 3.1.0"), FirstWrite::default());
        assert!(!first.is_verified(&version) && first.refutation(&version).is_none());
        let sent = json!({"networking": {"inbound": [{"port": 1, "protocol": "http", "state": "NotReady"}]}});
        first.record(&version, &sent, Some(&json!({"networking": {"inbound": [{"port": 1}]}})));
        let reason = first.refutation(&version).unwrap();
        assert!(
            reason.contains("Kuma 3.1.0") && reason.contains("networking.inbound[0].protocol"),
            "{reason}"
        );
        assert!(!first.is_verified(&version));
        assert_eq!(first.refutation("Kuma 3.1.1"), None);
        let stored = json!({"kri": "x", "networking": {"inbound": [{"port": 1, "protocol": "http"}]}});
        first.record(&version, &sent, Some(&stored));
        assert!(first.is_verified(&version) && first.refutation(&version).is_none());
        first.record(&version, &sent, None);
        assert!(first.refutation(&version).is_some(), "the server does not have it at all");
    }
}
