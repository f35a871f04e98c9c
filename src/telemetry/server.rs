//! `/metrics`, `/healthz`, `/readyz`, `/startupz` and a status page over HTTP.
//!
//! The server never blocks the operator: a taken port is logged as an error and retried. No client keeps another one out: a
//! slow or silent one loses its connection (`crate::listener`), and only one `/metrics` is rendered at a time. It answers until shutdown is complete, so that the shutdown can be observed.

mod handlers;
mod startup;
mod status_page;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::metrics::Metrics;
use crate::listener::{ConnectionLimits, LimitedListener, bind};

pub use crate::listener::ListenAddress;

/// Time for responses in flight at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The running server. Dropping it stops it at once.
#[derive(Debug)]
pub struct MetricsServer {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl MetricsServer {
    /// Starts serving, or retries until the address is free. `seed` feeds the jitter of retries.
    pub fn start(address: ListenAddress, metrics: Arc<Metrics>, seed: u64) -> Self {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        match address {
            ListenAddress::At(address) => {
                tasks.spawn(serve(address, metrics, seed, stop.clone()));
            }
            ListenAddress::Disabled => info!("metrics server disabled"),
        }
        Self { tasks, stop }
    }

    /// Finishes the responses in flight and stops.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let end = async { while self.tasks.join_next().await.is_some() {} };
        // A slow client must not delay shutdown.
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, end).await;
    }
}

async fn serve(address: SocketAddr, metrics: Arc<Metrics>, seed: u64, stop: CancellationToken) {
    let listener = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        listener = bind(address, seed, "metrics", "--metrics-address") => listener,
    };
    let listener = LimitedListener::new(listener, ConnectionLimits::default());
    let served = axum::serve(listener, handlers::router(metrics));
    if let Err(error) = served.with_graceful_shutdown(stop.cancelled_owned()).await {
        error!(%address, %error, "metrics server stopped unexpectedly; the operator continues");
    }
}

#[cfg(test)]
mod tests;
