//! Metrics of the read API.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::collect::MetricWriter;
use super::init_series;
use super::labels::{API_HANDSHAKE_RESULTS, API_RESULTS, ResultLabels};

/// Requests to the read API and its page.
#[derive(Clone, Debug)]
pub struct ApiMetrics {
    requests: Family<ResultLabels, Counter>,
    handshakes: Family<ResultLabels, Counter>,
    certificate_expiry: CertificateExpiry,
}

impl ApiMetrics {
    /// Creates the metrics and registers them.
    pub(super) fn register(r: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            handshakes: Family::default(),
            certificate_expiry: CertificateExpiry::default(),
        };
        r.register("ecs_mesh_api_requests", "Requests to the read API by result", metrics.requests.clone());
        let help = "TLS handshakes with clients of the read API by result";
        r.register("ecs_mesh_api_handshakes", help, metrics.handshakes.clone());
        for result in API_HANDSHAKE_RESULTS {
            init_series(&metrics.handshakes, &ResultLabels { result });
        }
        r.register_collector(Box::new(metrics.certificate_expiry.clone()));
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

    /// Records a handshake of TLS with this result.
    pub fn record_handshake(&self, result: &'static str) {
        debug_assert!(
            API_HANDSHAKE_RESULTS.contains(&result),
            "{result} is not in labels::API_HANDSHAKE_RESULTS"
        );
        self.handshakes.get_or_create(&ResultLabels { result }).inc();
    }

    /// Handshakes with this result.
    pub fn handshake_count(&self, result: &'static str) -> u64 {
        self.handshakes.get_or_create(&ResultLabels { result }).get()
    }

    /// Sets when the certificate expires, since 1970; `None` where its period cannot be parsed.
    pub fn set_certificate_expiry(&self, at: Option<Duration>) {
        *self.certificate_expiry.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Requests with this result.
    pub fn request_count(&self, result: &'static str) -> u64 {
        self.requests.get_or_create(&ResultLabels { result }).get()
    }
}

/// When the API's certificate expires, since 1970. A registered gauge would be 0 without a certificate.
#[derive(Clone, Debug, Default)]
struct CertificateExpiry(Arc<Mutex<Option<Duration>>>);

impl Collector for CertificateExpiry {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(at) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else { return Ok(()) };
        let help = "Expiry of the API's certificate; absent without TLS";
        let name = "ecs_mesh_api_certificate_expiry_timestamp_seconds";
        MetricWriter(encoder).gauge(name, help, at.as_secs_f64())
    }
}
