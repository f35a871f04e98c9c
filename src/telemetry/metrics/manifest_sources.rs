//! Metrics of the manifests' remote sources.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::init_series;
use super::labels::{AWS_ERRORS, SourceLabels, SourceReadLabels};
use ecs_mesh_manifests::SOURCE_RESULTS;

/// Reads of remote sources.
#[derive(Debug)]
pub(super) struct ManifestSourceMetrics {
    reads: Family<SourceReadLabels, Counter>,
    last_read: Family<SourceLabels, Gauge<f64, AtomicU64>>,
}

impl ManifestSourceMetrics {
    /// Creates the metrics and registers them.
    pub(super) fn register(r: &mut Registry) -> Self {
        let metrics = Self { reads: Family::default(), last_read: Family::default() };
        let help = "Reads of remote manifest sources by result";
        r.register("ecs_mesh_manifest_source_reads", help, metrics.reads.clone());
        let help = "Last complete read of the remote manifest source; 0: none yet";
        r.register("ecs_mesh_manifest_source_last_read_timestamp_seconds", help, metrics.last_read.clone());
        metrics
    }

    /// Creates the series of a source.
    pub(super) fn add(&self, source: &str) {
        let source: Arc<str> = source.into();
        for result in SOURCE_RESULTS.iter().chain(AWS_ERRORS) {
            init_series(&self.reads, &SourceReadLabels { source: Arc::clone(&source), result });
        }
        init_series(&self.last_read, &SourceLabels { source });
    }

    pub(super) fn record_read(&self, source: &str, result: &'static str) {
        debug_assert!(
            SOURCE_RESULTS.contains(&result) || AWS_ERRORS.contains(&result),
            "{result} is no result of a manifest source"
        );
        let source: Arc<str> = source.into();
        self.reads.get_or_create(&SourceReadLabels { source: Arc::clone(&source), result }).inc();
        if result == "success" {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last_read.get_or_create(&SourceLabels { source }).set(now.as_secs_f64());
        }
    }
}
