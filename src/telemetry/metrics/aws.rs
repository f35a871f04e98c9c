//! Metrics of AWS calls.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::labels::{AWS_ERRORS, AWS_OPERATIONS, AwsCallLabels, AwsOperationLabels, SUCCESS};
use super::{Histograms, calls, init_series};

/// Calls by operation and result.
#[derive(Debug)]
pub(super) struct AwsMetrics {
    calls: Family<AwsCallLabels, Counter>,
    call_time: Histograms<AwsOperationLabels>,
}

impl AwsMetrics {
    /// Creates the metrics and registers them.
    pub(super) fn register(r: &mut Registry) -> Self {
        let metrics = Self { calls: Family::default(), call_time: Family::new_with_constructor(calls) };
        r.register("ecs_mesh_aws_calls", "AWS calls by operation and result", metrics.calls.clone());
        r.register("ecs_mesh_aws_call_duration_seconds", "Duration of AWS calls", metrics.call_time.clone());
        for operation in AWS_OPERATIONS {
            init_series(&metrics.call_time, &AwsOperationLabels { operation });
            for result in AWS_ERRORS.iter().chain(&[SUCCESS]) {
                init_series(&metrics.calls, &AwsCallLabels { operation, result });
            }
        }
        metrics
    }

    pub(super) fn record_call(&self, operation: &'static str, result: &'static str, duration: Duration) {
        self.calls.get_or_create(&AwsCallLabels { operation, result }).inc();
        self.call_time.get_or_create(&AwsOperationLabels { operation }).observe(duration.as_secs_f64());
    }
}
