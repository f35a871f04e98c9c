//! Metrics of sweeps.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::init_series;
use super::labels::{ResultLabels, SWEEP_RESULTS};

/// Seconds of a sweep.
const SWEEP_BUCKETS: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Sweeps and their duration.
#[derive(Debug)]
pub struct SweepMetrics {
    sweeps: Family<ResultLabels, Counter>,
    duration: Histogram,
}

impl SweepMetrics {
    /// Creates the metrics and registers them.
    pub(super) fn register(r: &mut Registry) -> Self {
        let metrics = Self { sweeps: Family::default(), duration: Histogram::new(SWEEP_BUCKETS) };
        r.register("ecs_mesh_sweeps", "Sweeps of a cluster by result", metrics.sweeps.clone());
        let help = "Duration of a sweep of all clusters";
        r.register("ecs_mesh_sweep_duration_seconds", help, metrics.duration.clone());
        for result in SWEEP_RESULTS {
            init_series(&metrics.sweeps, &ResultLabels { result });
        }
        metrics
    }

    /// Records the sweep of a cluster.
    pub fn record_sweep(&self, result: &'static str) {
        debug_assert!(SWEEP_RESULTS.contains(&result), "{result} is not in labels::SWEEP_RESULTS");
        self.sweeps.get_or_create(&ResultLabels { result }).inc();
    }

    /// Records the duration of a sweep of all clusters.
    pub fn record_duration(&self, duration: Duration) {
        self.duration.observe(duration.as_secs_f64());
    }
}
