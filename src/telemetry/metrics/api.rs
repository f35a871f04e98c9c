//! Metrics of the read API.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::init_series;
use super::labels::{API_RESULTS, ResultLabels};

/// Requests to the read API and its page.
#[derive(Clone, Debug)]
pub struct ApiMetrics {
    requests: Family<ResultLabels, Counter>,
    /// Without a series until there is a certificate.
    certificate_expiry: Family<[(&'static str, &'static str); 0], Gauge<f64, AtomicU64>>,
}

impl ApiMetrics {
    /// Creates the metrics and registers them.
    pub(super) fn register(r: &mut Registry) -> Self {
        let metrics = Self { requests: Family::default(), certificate_expiry: Family::default() };
        r.register("ecs_mesh_api_requests", "Requests to the read API by result", metrics.requests.clone());
        r.register(
            "ecs_mesh_api_certificate_expiry_timestamp_seconds",
            "Expiry of the API's certificate; absent without TLS",
            metrics.certificate_expiry.clone(),
        );
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

    /// Sets when the certificate expires, since 1970; `None` where its period cannot be parsed.
    pub fn set_certificate_expiry(&self, at: Option<Duration>) {
        match at {
            Some(at) => drop(self.certificate_expiry.get_or_create(&[]).set(at.as_secs_f64())),
            None => drop(self.certificate_expiry.remove(&[])),
        }
    }

    /// Requests with this result.
    pub fn request_count(&self, result: &'static str) -> u64 {
        self.requests.get_or_create(&ResultLabels { result }).get()
    }
}
