//! Metrics of the read API.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::init_series;
use super::labels::{API_RESULTS, ResultLabels};

/// Requests to the read API and its page.
#[derive(Clone, Debug)]
pub struct ApiMetrics {
    requests: Family<ResultLabels, Counter>,
}

impl ApiMetrics {
    /// Creates the metrics and registers them.
    pub(super) fn register(r: &mut Registry) -> Self {
        let metrics = Self { requests: Family::default() };
        r.register("ecs_mesh_api_requests", "Requests to the read API by result", metrics.requests.clone());
        for result in API_RESULTS {
            init_series(&metrics.requests, &ResultLabels { result });
        }
        metrics
    }

    /// Records a request with this result: `ok`, or the code of the error.
    pub fn record_request(&self, result: &'static str) {
        debug_assert!(API_RESULTS.contains(&result), "{result} is not in labels::API_RESULTS");
        self.requests.get_or_create(&ResultLabels { result }).inc();
    }

    /// Requests with this result.
    pub fn request_count(&self, result: &'static str) -> u64 {
        self.requests.get_or_create(&ResultLabels { result }).get()
    }
}
