//! `/metrics`, `/healthz`, `/readyz` and a status page over HTTP.
//!
//! The server never blocks the operator: a taken port is logged as an error and retried. No client keeps another one out: a
//! slow or silent one loses its connection (`limits`), and only one `/metrics` is rendered at a time. It answers until shutdown is complete, so that the shutdown can be observed.

mod handlers;
mod limits;
mod status_page;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use super::metrics::Metrics;
use ecs_mesh_controller::Backoff;
use limits::{ConnectionLimits, LimitedListener};

/// Delays between attempts to bind a port.
const PORT_RETRY: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(30) };

/// Time for responses in flight at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The address to serve at, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `IP:PORT`; port 0 takes a free one.
    At(SocketAddr),
    /// `none`.
    Disabled,
}

impl std::str::FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text, "none" | "off") {
            return Ok(Self::Disabled);
        }
        let invalid = |_| {
            format!(
                "{text:?} is not a listen address: use IP:PORT, such as 0.0.0.0:9102, [::]:9102 or \
                 127.0.0.1:9102, or none"
            )
        };
        text.parse().map(Self::At).map_err(invalid)
    }
}

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
        listener = bind(address, seed) => listener,
    };
    let listener = LimitedListener::new(listener, ConnectionLimits::default());
    let served = axum::serve(listener, handlers::router(metrics));
    if let Err(error) = served.with_graceful_shutdown(stop.cancelled_owned()).await {
        error!(%address, %error, "metrics server stopped unexpectedly; the operator continues");
    }
}

/// Binds the address, retrying until it is free.
async fn bind(address: SocketAddr, seed: u64) -> TcpListener {
    let mut retries = None;
    loop {
        let error = match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                info!(%address, "metrics server listening");
                return listener;
            }
            Err(error) => error,
        };
        if retries.is_none() {
            let help = "free the port, or set another --metrics-address";
            error!(%address, %error, help, "cannot bind the metrics address; retrying");
        } else {
            debug!(%address, %error, "cannot bind the metrics address; retrying");
        }
        let delays = retries.get_or_insert_with(|| PORT_RETRY.start(seed));
        tokio::time::sleep(delays.after_failure()).await;
    }
}

#[cfg(test)]
mod tests;
