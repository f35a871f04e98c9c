//! Metrics of events to teams.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::init_series;
use super::labels::{ReasonLabels, TEAM_EVENT_DROP_REASONS, TEAM_EVENT_TYPES, TeamEventLabels};

/// Sent and dropped events to teams.
#[derive(Debug)]
pub struct TeamEventMetrics {
    sent: Family<TeamEventLabels, Counter>,
    dropped: Family<ReasonLabels, Counter>,
}

impl TeamEventMetrics {
    /// Creates the metrics and registers them.
    pub(super) fn register(r: &mut Registry) -> Self {
        let metrics = Self { sent: Family::default(), dropped: Family::default() };
        let help = "Events to teams that EventBridge took, by detail type";
        r.register("ecs_mesh_team_events", help, metrics.sent.clone());
        let help = "Events to teams, or entries that might have become one, that were dropped";
        r.register("ecs_mesh_team_events_dropped", help, metrics.dropped.clone());
        for kind in TEAM_EVENT_TYPES {
            init_series(&metrics.sent, &TeamEventLabels { r#type: kind });
        }
        for reason in TEAM_EVENT_DROP_REASONS {
            init_series(&metrics.dropped, &ReasonLabels { reason });
        }
        metrics
    }

    /// Records an event that EventBridge took.
    pub fn record_sent(&self, kind: &'static str) {
        debug_assert!(TEAM_EVENT_TYPES.contains(&kind), "{kind} is not in labels::TEAM_EVENT_TYPES");
        self.sent.get_or_create(&TeamEventLabels { r#type: kind }).inc();
    }

    /// Events of this type that EventBridge took.
    pub fn sent_count(&self, kind: &'static str) -> u64 {
        self.sent.get_or_create(&TeamEventLabels { r#type: kind }).get()
    }

    /// Records dropped events.
    pub fn record_dropped(&self, reason: &'static str, count: u64) {
        debug_assert!(TEAM_EVENT_DROP_REASONS.contains(&reason), "{reason} is no reason of a drop");
        self.dropped.get_or_create(&ReasonLabels { reason }).inc_by(count);
    }

    /// Events that were dropped for this reason.
    pub fn dropped_count(&self, reason: &'static str) -> u64 {
        self.dropped.get_or_create(&ReasonLabels { reason }).get()
    }
}
