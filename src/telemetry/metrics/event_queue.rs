//! Metrics of the event queue.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::init_series;
use super::labels::{MESSAGE_RESULTS, MessageLabels};

/// Seconds from sent to received. SQS usually delivers within a second, and keeps messages for days.
const MESSAGE_AGE_BUCKETS: [f64; 13] =
    [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0];

/// Received messages.
#[derive(Debug)]
pub(super) struct EventQueueMetrics {
    messages: Family<MessageLabels, Counter>,
    redelivered: Counter,
    message_age: Histogram,
}

impl EventQueueMetrics {
    /// Creates the metrics and registers them.
    pub(super) fn register(r: &mut Registry) -> Self {
        let metrics = Self {
            messages: Family::default(),
            redelivered: Counter::default(),
            message_age: Histogram::new(MESSAGE_AGE_BUCKETS),
        };
        r.register("ecs_mesh_messages", "Queue messages by kind and result", metrics.messages.clone());
        let help = "Messages received a second time or more";
        r.register("ecs_mesh_redelivered_messages", help, metrics.redelivered.clone());
        let help = "Time from SQS's SentTimestamp to receipt";
        r.register("ecs_mesh_message_age_seconds", help, metrics.message_age.clone());
        for (kind, results) in MESSAGE_RESULTS {
            for result in results {
                init_series(&metrics.messages, &MessageLabels { kind, result });
            }
        }
        metrics
    }

    pub(super) fn record_message(&self, kind: &'static str, result: &'static str) {
        debug_assert!(
            MESSAGE_RESULTS.iter().any(|(known, results)| *known == kind && results.contains(&result)),
            "{kind}/{result} is not in labels::MESSAGE_RESULTS"
        );
        self.messages.get_or_create(&MessageLabels { kind, result }).inc();
    }

    pub(super) fn record_received(&self, age: Option<Duration>, receives: u32) {
        if let Some(age) = age {
            self.message_age.observe(age.as_secs_f64());
        }
        if receives > 1 {
            self.redelivered.inc();
        }
    }
}
