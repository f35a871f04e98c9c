//! Metrics of changes at control planes, written and planned.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

use super::init_series;
use super::labels::{
    ACL_CHANGES, ACL_RESULTS, AclChangeLabels, CHANGE_VALUES, ChangeLabels, EVIDENCE_VALUES, EvidenceLabels,
    PlannedChangeLabels, SUCCESS, TOKEN_CHANGES, TokenChangeLabels,
};
use ecs_mesh_core::plan::report::ObjectKind;

/// Seconds from received to written.
const EVENT_TO_WRITE_BUCKETS: [f64; 12] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0];

/// Changes of registrations and ACL objects.
#[derive(Debug)]
pub struct ChangeMetrics {
    changes: Family<ChangeLabels, Counter>,
    removals: Family<EvidenceLabels, Counter>,
    acl_changes: Family<AclChangeLabels, Counter>,
    token_changes: Family<TokenChangeLabels, Counter>,
    planned: Family<PlannedChangeLabels, Gauge>,
    drain_holds: Counter,
    event_to_write: Histogram,
    latency_tap: OnceLock<mpsc::UnboundedSender<Duration>>,
}

impl ChangeMetrics {
    /// Creates the metrics and registers them.
    pub(super) fn register(r: &mut Registry) -> Self {
        let metrics = Self {
            changes: Family::default(),
            removals: Family::default(),
            acl_changes: Family::default(),
            token_changes: Family::default(),
            planned: Family::default(),
            drain_holds: Counter::default(),
            event_to_write: Histogram::new(EVENT_TO_WRITE_BUCKETS),
            latency_tap: OnceLock::new(),
        };
        r.register("ecs_mesh_changes", "Changes written to control planes", metrics.changes.clone());
        r.register("ecs_mesh_removals", "Removed registrations by evidence", metrics.removals.clone());
        r.register("ecs_mesh_acl_changes", "Changes of ACL objects", metrics.acl_changes.clone());
        let help = "Changes of data plane tokens";
        r.register("ecs_mesh_dataplane_token_changes", help, metrics.token_changes.clone());
        let help = "Changes that a dry run would write";
        r.register("ecs_mesh_planned_changes", help, metrics.planned.clone());
        let help = "Drains that had to wait for other registrations of their service";
        r.register("ecs_mesh_drain_holds", help, metrics.drain_holds.clone());
        let help = "Time from receipt of an event to the write that it caused";
        r.register("ecs_mesh_event_to_write_seconds", help, metrics.event_to_write.clone());
        metrics.init_to_zero();
        metrics
    }

    fn init_to_zero(&self) {
        for change in CHANGE_VALUES {
            init_series(&self.changes, &ChangeLabels { change });
        }
        for evidence in EVIDENCE_VALUES {
            init_series(&self.removals, &EvidenceLabels { evidence });
        }
        for change in TOKEN_CHANGES {
            for result in ACL_RESULTS {
                init_series(&self.token_changes, &TokenChangeLabels { change, result });
            }
        }
        for kind in ObjectKind::ALL.map(ObjectKind::label) {
            for change in ACL_CHANGES {
                for result in ACL_RESULTS {
                    init_series(&self.acl_changes, &AclChangeLabels { kind, change, result });
                }
            }
        }
    }

    /// Records a written change.
    pub fn record_change(&self, change: &'static str) {
        debug_assert!(CHANGE_VALUES.contains(&change), "{change} is not in labels::CHANGE_VALUES");
        self.changes.get_or_create(&ChangeLabels { change }).inc();
    }

    /// Written changes of this kind.
    pub fn change_count(&self, change: &'static str) -> u64 {
        self.changes.get_or_create(&ChangeLabels { change }).get()
    }

    /// Records that a drain has to wait.
    pub fn record_held_drain(&self) {
        self.drain_holds.inc();
    }

    /// Records the removal of a registration.
    pub fn record_removal(&self, evidence: &'static str) {
        debug_assert!(EVIDENCE_VALUES.contains(&evidence), "{evidence} is not in labels::EVIDENCE_VALUES");
        self.removals.get_or_create(&EvidenceLabels { evidence }).inc();
    }

    /// Records a change of an ACL object that was written, or failed.
    pub fn record_acl_change(&self, kind: ObjectKind, change: &'static str, ok: bool) {
        debug_assert!(ACL_CHANGES.contains(&change), "{change} is not in labels::ACL_CHANGES");
        let result = if ok { SUCCESS } else { "error" };
        self.acl_changes.get_or_create(&AclChangeLabels { kind: kind.label(), change, result }).inc();
    }

    /// Records a change of a data plane token that was made, or failed.
    pub fn record_token_change(&self, change: &'static str, ok: bool) {
        debug_assert!(TOKEN_CHANGES.contains(&change), "{change} is not in labels::TOKEN_CHANGES");
        let result = if ok { SUCCESS } else { "error" };
        self.token_changes.get_or_create(&TokenChangeLabels { change, result }).inc();
    }

    /// Sets the number of changes of this kind that a dry run would write to a control plane.
    pub fn set_planned(&self, control_plane: &str, change: &'static str, count: i64) {
        let labels = PlannedChangeLabels { control_plane: control_plane.into(), change };
        self.planned.get_or_create(&labels).set(count);
    }

    /// Records the time from receipt of an event to the write that it caused.
    pub fn record_event_to_write(&self, after: Duration) {
        self.event_to_write.observe(after.as_secs_f64());
        if let Some(tap) = self.latency_tap.get() {
            // The receiver may be dropped.
            let _ = tap.send(after);
        }
    }

    /// Also sends each time from event to write to `tap`, for exact percentiles. Only the first tap is used.
    pub fn tap_latency(&self, tap: mpsc::UnboundedSender<Duration>) {
        // An error means that a tap is set already.
        let _ = self.latency_tap.set(tap);
    }
}
