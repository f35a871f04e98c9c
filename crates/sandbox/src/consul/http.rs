//! Serves the server on a socket, with blocking queries and injected faults.
//!
//! A dropped response closes the connection before a byte of the response is sent. Requests to AWS are sent while the
//! server is not locked, so that callers can lock AWS before Consul.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Response, header};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use ecs_mesh_model::Timestamp;

use super::bearer::{AwsAnswer, SignedCall};
use super::connections::PerClientListener;
use super::message::{ConsulRequest, ConsulRequestTarget, ConsulResponse, TEXT};
use super::server::ConsulServer;
use crate::cuttable::ConnectionCut;

/// Fault of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsulFault {
    /// No fault.
    #[default]
    None,
    /// The request is rejected with this status, without effect.
    Status(u16),
    /// The request takes effect, and the response has this status.
    StatusAfterEffect(u16),
    /// The connection closes before the request takes effect.
    Drop,
    /// The connection closes after the request took effect.
    DropAfterEffect,
    /// The request is delayed.
    Delay(Duration),
}

/// Chooses the fault of each request.
pub trait ConsulFaults: Send + Sync {
    /// Called once for each request, before it takes effect. `path` has no query.
    fn decide(&self, method: &str, path: &str) -> ConsulFault;
}

/// Injects no faults.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoConsulFaults;

impl ConsulFaults for NoConsulFaults {
    fn decide(&self, _method: &str, _path: &str) -> ConsulFault {
        ConsulFault::None
    }
}

/// Returns the current time.
pub type ConsulClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Sends a login's signed request to AWS.
pub type SignedRequestSender = Arc<dyn Fn(&SignedCall) -> Result<AwsAnswer, String> + Send + Sync>;

/// Maximum size of a request body.
const MAX_BODY: usize = 16 << 20;

/// A [`ConsulServer`] with a clock, shared between its socket and the world.
#[derive(Clone)]
pub struct ConsulFront {
    server: Arc<Mutex<ConsulServer>>,
    aws: SignedRequestSender,
    faults: Arc<dyn ConsulFaults>,
    clock: ConsulClock,
    /// Notified after each change.
    changed: Arc<Notify>,
}

impl ConsulFront {
    /// Combines a server with AWS, faults and a clock.
    pub fn new(
        server: Arc<Mutex<ConsulServer>>,
        aws: SignedRequestSender,
        faults: Arc<dyn ConsulFaults>,
        clock: ConsulClock,
    ) -> Self {
        Self { server, aws, faults, clock, changed: Arc::new(Notify::new()) }
    }

    /// Advances the server to now, calls `act`, and wakes blocking queries. Changes by another way do not wake them.
    pub fn with<R>(&self, act: impl FnOnce(&mut ConsulServer, Timestamp) -> R) -> R {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (self.clock)();
        let before = server.index();
        server.tick(now);
        let result = act(&mut server, now);
        if server.index() != before {
            self.changed.notify_waiters();
        }
        result
    }

    fn answer(&self, request: &ConsulRequest) -> ConsulResponse {
        let calls = self.with(|server, _| server.signed_calls(request));
        let answers: Vec<_> = calls.iter().map(|call| (self.aws)(call)).collect();
        self.with(|server, now| server.handle_with(now, request, &answers))
    }

    /// Handles a request, after waiting for a blocking query.
    pub(super) async fn respond(
        &self,
        request: &ConsulRequest,
        stopping: &CancellationToken,
    ) -> ConsulResponse {
        self.wait(request, stopping).await;
        self.answer(request)
    }

    /// Waits until the requested data has changed since the request's index, or the wait time is over.
    async fn wait(&self, request: &ConsulRequest, stopping: &CancellationToken) {
        let target = ConsulRequestTarget::parse(&request.path_and_query);
        let Some((index, wait)) = target.and_then(|target| target.wait().ok().flatten()) else { return };
        let until = Instant::now() + wait;
        loop {
            // Subscribe before reading, so that no change is missed.
            let change = self.changed.notified();
            tokio::pin!(change);
            change.as_mut().enable();
            let (at, deadline) = self.with(|server, now| {
                (server.waits_on(request), server.next_deadline().map(|at| now.age_at(at)))
            });
            if at.is_none_or(|at| at > index) || Instant::now() >= until {
                return;
            }
            let next = deadline.map_or(until, |deadline| until.min(Instant::now() + deadline));
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = change => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }
}

/// Serves the server until `shutdown`. Completes requests in flight, and answers blocking queries at once.
///
/// # Errors
/// The listener's error.
pub async fn serve(
    listener: TcpListener,
    front: ConsulFront,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let stopping = CancellationToken::new();
    let most = front.with(|server, _| server.connections_per_client());
    let app = Router::new().fallback(answer).with_state((front, stopping.clone()));
    axum::serve(
        PerClientListener::new(listener, most),
        app.into_make_service_with_connect_info::<ConnectionCut>(),
    )
    .with_graceful_shutdown(async move {
        shutdown.await;
        stopping.cancel();
    })
    .await
}

async fn answer(
    State((front, stopping)): State<(ConsulFront, CancellationToken)>,
    ConnectInfo(cut): ConnectInfo<ConnectionCut>,
    request: Request,
) -> Response<Body> {
    let fault = front.faults.decide(request.method().as_str(), request.uri().path());
    match fault {
        ConsulFault::Status(status) => return injected(status),
        ConsulFault::Drop => return cut.now(),
        ConsulFault::Delay(by) => tokio::time::sleep(by).await,
        _ => {}
    }
    let Some(request) = read_request(request).await else { return cut.now() };
    let response = front.respond(&request, &stopping).await;
    match fault {
        ConsulFault::StatusAfterEffect(status) => injected(status),
        ConsulFault::DropAfterEffect => cut.now(),
        _ => sent(response),
    }
}

/// `None` if the body cannot be read: the client disconnected, or the body is too large.
async fn read_request(request: Request) -> Option<ConsulRequest> {
    let (parts, body) = request.into_parts();
    let of_enterprise = |name: &&str| parts.headers.contains_key(*name);
    Some(ConsulRequest {
        method: parts.method.to_string(),
        path_and_query: parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        token: token(&parts.headers),
        enterprise_header: ["X-Consul-Namespace", "X-Consul-Partition"].into_iter().find(of_enterprise),
        body: axum::body::to_bytes(body, MAX_BODY).await.ok()?.to_vec(),
    })
}

fn token(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
    text("x-consul-token").filter(|token| !token.is_empty()).or(bearer).map(str::to_owned)
}

fn injected(status: u16) -> Response<Body> {
    sent(ConsulResponse::new(status, TEXT, b"injected fault of the sandbox".to_vec()))
}

fn sent(response: ConsulResponse) -> Response<Body> {
    let mut builder = Response::builder().status(response.status);
    for (name, value) in response.headers {
        builder = builder.header(name, value);
    }
    // Fails only for an invalid status of an injected fault.
    builder.body(Body::from(response.body)).unwrap_or_else(|_| Response::new(Body::empty()))
}
