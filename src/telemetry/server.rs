//! `/metrics`, `/healthz` and `/readyz` over HTTP.
//!
//! Nothing here holds up anything else: a port that is taken costs a loud word and is tried again, and a client that is
//! slow or says nothing loses its connection ([`limits`]). It answers until the very end, so that a drain can be watched.

mod handlers;
mod limits;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use super::metrics::Metrics;
use ecs_mesh_controller::Backoff;
use limits::LimitedListener;

/// Between two tries to get a port that is taken.
const PORT_RETRY: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(30) };

/// How long answers under way at the end may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Where to serve: an address, or nowhere.
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
        let wrong = |_| {
            format!(
                "{text:?} is no address to serve at: write IP:PORT such as 0.0.0.0:9102, [::]:9102 or \
                 127.0.0.1:9102, or none"
            )
        };
        text.parse().map(Self::At).map_err(wrong)
    }
}

/// The running server; dropped, it ends at once.
#[derive(Debug)]
pub struct MetricsServer {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl MetricsServer {
    /// Serves from now on, or as soon as the address can be had. `seed` feeds the jitter of retries.
    pub fn start(address: ListenAddress, metrics: Arc<Metrics>, seed: u64) -> Self {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        match address {
            ListenAddress::At(address) => {
                tasks.spawn(serve(address, metrics, seed, stop.clone()));
            }
            ListenAddress::Disabled => info!("metrics, health and readiness are not served"),
        }
        Self { tasks, stop }
    }

    /// Finishes the answers under way and ends.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let end = async { while self.tasks.join_next().await.is_some() {} };
        // Clients that are slow to read must not hold up the end.
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, end).await;
    }
}

async fn serve(address: SocketAddr, metrics: Arc<Metrics>, seed: u64, stop: CancellationToken) {
    let listener = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        listener = bind(address, seed) => listener,
    };
    let served = axum::serve(LimitedListener::new(listener), handlers::router(metrics));
    if let Err(error) = served.with_graceful_shutdown(stop.cancelled_owned()).await {
        error!(%address, %error, "metrics, health and readiness are no longer served; all else goes on");
    }
}

/// The listener, once it can be had.
async fn bind(address: SocketAddr, seed: u64) -> TcpListener {
    let mut trouble = None;
    loop {
        let why = match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                info!(%address, "metrics, health and readiness are served");
                return listener;
            }
            Err(why) => why,
        };
        if trouble.is_none() {
            error!(
                %address, %why,
                "metrics, health and readiness are not served: the address cannot be had; all else goes on, and it is \
                 tried again. Free the port, or give another one by --metrics-address"
            );
        } else {
            debug!(%address, %why, "the address for metrics still cannot be had");
        }
        let delays = trouble.get_or_insert_with(|| PORT_RETRY.start(seed));
        tokio::time::sleep(delays.after_failure()).await;
    }
}

#[cfg(test)]
mod tests;
