//! The read API: the operator's view of tasks, services, registrations and changes, over HTTP.
//!
//! Guarantees that the cost of readers is bounded, however many they are: they share snapshots and answers (`cache`), all of which
//! one thread of low priority makes (`read_thread`), and no lock of the operator is held while an answer is rendered. They are not
//! free for reconciles: `docs/benchmarks.md` has the measured delay. Connections, rates and sizes are limited. A listener that is not on loopback needs a bearer token. `docs/reference/api.md` describes the API for its users.

mod access;
mod answers;
mod cache;
mod history;
mod page;
mod read_thread;
mod routes;
mod source;
mod stream;
#[cfg(test)]
mod tests;
mod token;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::listener::{
    ConnectionHandle, ConnectionLimits, HandshakeLimits, HandshakeResult, LimitedListener, Rate, TlsFiles,
    TlsKeys, bind,
};
use crate::telemetry::metrics::ApiMetrics;
use ecs_mesh_controller::Secrets;
use read_thread::ReadThread;
use routes::{ApiState, router};
use token::ReadToken;

pub use history::{DEFAULT_HISTORY_ENTRIES, History, HistoryEntry, HistoryRecord};
pub use source::{ReadSource, ReadTaskFacts, Snapshot, SnapshotLists};
pub use token::{ReadTokenError, ReadTokenSource};

/// Time for responses in flight at shutdown. Streams end at once.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Limits of connections. A stream has none of the age.
const LIMITS: ConnectionLimits = ConnectionLimits {
    open: 128,
    request: Duration::from_secs(3),
    bytes: 64 * 1024,
    age: Duration::from_secs(30),
    stall: Duration::from_secs(20),
};

/// Limits of handshakes, of which each request has one. The signature in it takes 0.03 ms with a key of P-256, and 0.8 ms with
/// RSA of 2,048 bits: `docs/benchmarks.md`.
const HANDSHAKES: HandshakeLimits = HandshakeLimits {
    client: Rate { per_second: 100.0, burst: 400 },
    all: Rate { per_second: 200.0, burst: 800 },
};

/// How the API is served.
#[derive(Clone, Debug)]
pub struct ReadApiOptions {
    /// The address.
    pub address: SocketAddr,
    /// The token that readers must present.
    pub token: Option<ReadTokenSource>,
    /// The files of the certificate chain and of its key; without them, there is no TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Counts requests.
    pub metrics: ApiMetrics,
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ReadApiError {
    /// Other machines could read without a token.
    #[error(
        "the address of the API, {0}, is not on loopback, so readers need a token; help: set --api-token-file or \
         --api-token-secret, or use an address such as 127.0.0.1:9103"
    )]
    NeedsToken(SocketAddr),
    /// The token cannot be read.
    #[error(transparent)]
    Token(#[from] ReadTokenError),
    /// The certificate or the key cannot be used.
    #[error("{0}")]
    Tls(String),
    /// The system has no thread for readers.
    #[error("starting the readers' thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// The running server. Dropping it stops it at once.
#[derive(Debug)]
pub struct ReadServer {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl ReadServer {
    /// Checks the options, reads token and certificate, and serves; binds the address as soon as it is free. `seed` feeds the
    /// jitter of retries.
    ///
    /// # Errors
    /// The options are not safe, or token or certificate cannot be used.
    pub async fn start(
        options: ReadApiOptions,
        secrets: Arc<dyn Secrets>,
        source: Arc<dyn ReadSource>,
        seed: u64,
    ) -> Result<Self, ReadApiError> {
        let prepared = Prepared::new(&options, secrets, source).await?;
        let address = options.address;
        Ok(prepared.spawn(async move { bind(address, seed, "api", "--api-address").await }))
    }

    /// Serves at a listener that is bound, whose address replaces that of the options.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn serve(
        listener: TcpListener,
        options: ReadApiOptions,
        secrets: Arc<dyn Secrets>,
        source: Arc<dyn ReadSource>,
    ) -> Result<Self, ReadApiError> {
        let address = listener.local_addr().unwrap_or(options.address);
        let prepared = Prepared::new(&ReadApiOptions { address, ..options }, secrets, source).await?;
        Ok(prepared.spawn(async move { listener }))
    }

    /// Finishes the responses in flight and stops.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let end = async { while self.tasks.join_next().await.is_some() {} };
        // A slow client must not delay shutdown.
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, end).await;
    }
}

/// The parts that a server needs before it listens.
struct Prepared {
    state: Arc<ApiState>,
    keys: Option<Arc<TlsKeys>>,
    limits: ConnectionLimits,
    handshakes: HandshakeLimits,
}

impl Prepared {
    async fn new(
        options: &ReadApiOptions,
        secrets: Arc<dyn Secrets>,
        source: Arc<dyn ReadSource>,
    ) -> Result<Self, ReadApiError> {
        let is_loopback = options.address.ip().to_canonical().is_loopback();
        if !is_loopback && options.token.is_none() {
            return Err(ReadApiError::NeedsToken(options.address));
        }
        let token = match options.token.clone() {
            Some(source) => Some(ReadToken::load(source, secrets).await?),
            None => None,
        };
        let keys = match options.tls.clone() {
            Some((certificate, key)) => {
                let loaded = TlsKeys::load(TlsFiles { certificate, key }).await;
                Some(Arc::new(loaded.map_err(|error| ReadApiError::Tls(error.to_string()))?))
            }
            None => None,
        };
        let thread = ReadThread::start().map_err(ReadApiError::Thread)?;
        let state = Arc::new(ApiState::new(source, thread, token, options));
        Ok(Self { state, keys, limits: LIMITS, handshakes: HANDSHAKES })
    }

    fn spawn(self, listener: impl Future<Output = TcpListener> + Send + 'static) -> ReadServer {
        let Self { state, keys, limits, handshakes } = self;
        let (mut tasks, stop) = (JoinSet::new(), state.stop.clone());
        if let Some(keys) = keys.clone() {
            let (stopped, state) = (stop.clone(), Arc::clone(&state));
            tasks.spawn(async move {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = keys.keep_current(|at| state.metrics.set_certificate_expiry(at)) => {}
                }
            });
        }
        let (notices, stopped) = (Arc::clone(&state), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = notices.notices.run(&notices.views) => {}
            }
        });
        let stopped = stop.clone();
        tasks.spawn(async move {
            let listener = tokio::select! {
                biased;
                () = stopped.cancelled() => return,
                listener = listener => listener,
            };
            let mut listener = LimitedListener::new(listener, limits);
            if let Some(keys) = keys {
                let metrics = state.metrics.clone();
                let observer =
                    Arc::new(move |result: HandshakeResult| metrics.record_handshake(result.label()));
                listener = listener.with_tls(keys, handshakes, observer);
            }
            let service = router(state).into_make_service_with_connect_info::<ConnectionHandle>();
            let served = axum::serve(listener, service).with_graceful_shutdown(stopped.cancelled_owned());
            if let Err(error) = served.await {
                error!(%error, "read API stopped unexpectedly; the operator continues");
            }
        });
        ReadServer { tasks, stop }
    }
}
