//! Counts of the log's lines.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::collect::MetricWriter;
use super::labels::LOG_DROP_REASONS;
use crate::telemetry::log::LogStats;

/// Reads the counts at each scrape.
#[derive(Debug)]
pub(super) struct LogCollector(pub(super) Arc<LogStats>);

impl Collector for LogCollector {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
        let Self(log) = self;
        let mut to = MetricWriter(encoder);
        let [queue_full, write_failed] = LOG_DROP_REASONS.map(|reason| [("reason", reason)]);
        let dropped = [(queue_full, log.dropped()), (write_failed, log.write_failed())];
        to.counters("ecs_mesh_dropped_log_lines", "Log lines that were not written", dropped)?;
        let help = "Repeated warnings and errors that were not logged";
        to.counter("ecs_mesh_suppressed_log_lines", help, log.suppressed())?;
        to.gauge(
            "ecs_mesh_waiting_audit_lines",
            "Audit lines that are not written yet",
            log.audit_waiting(),
        )?;
        let help = "1 while writes are suspended because too many audit lines wait";
        to.gauge("ecs_mesh_audit_blocked", help, i64::from(log.audit_is_blocked()))
    }
}
