//! The server behind a real socket: reads that wait for changes, and faults on request.
//!
//! A dropped answer is really dropped: the connection closes and not a byte of the response leaves. AWS is asked while
//! the server is not locked, so that whoever works on both at once can lock AWS first.

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
use super::connections::{ConnectionCut, PerClientListener};
use super::message::{ConsulRequest, ConsulResponse, TEXT, ConsulRequestTarget};
use super::server::ConsulServer;

/// What happens to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsulFault {
    /// It is answered.
    #[default]
    None,
    /// It is answered with that status, and has no effect.
    Status(u16),
    /// It takes effect and is answered with that status all the same.
    StatusAfterEffect(u16),
    /// It has no effect, and the connection closes without an answer.
    Drop,
    /// It takes effect, and the connection closes without an answer.
    DropAfterEffect,
    /// It is answered after that time.
    Delay(Duration),
}

/// Decides what happens to each request.
pub trait ConsulFaults: Send + Sync {
    /// Called once a request, before it has any effect. `path` has no query.
    fn decide(&self, method: &str, path: &str) -> ConsulFault;
}

/// All requests are answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoConsulFaults;

impl ConsulFaults for NoConsulFaults {
    fn decide(&self, _method: &str, _path: &str) -> ConsulFault {
        ConsulFault::None
    }
}

/// Tells the time.
pub type ConsulClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Sends the signed requests of logins to AWS.
pub type SignedRequestSender = Arc<dyn Fn(&SignedCall) -> Result<AwsAnswer, String> + Send + Sync>;

/// Largest body that is read.
const MAX_BODY: usize = 16 << 20;

/// A [`ConsulServer`] with a clock, shared between its socket and those who play with its world.
#[derive(Clone)]
pub struct ConsulFront {
    server: Arc<Mutex<ConsulServer>>,
    aws: SignedRequestSender,
    faults: Arc<dyn ConsulFaults>,
    clock: ConsulClock,
    /// Something changed.
    changed: Arc<Notify>,
}

impl ConsulFront {
    /// Puts a clock, AWS and faults to a server.
    pub fn new(
        server: Arc<Mutex<ConsulServer>>,
        aws: SignedRequestSender,
        faults: Arc<dyn ConsulFaults>,
        clock: ConsulClock,
    ) -> Self {
        Self { server, aws, faults, clock, changed: Arc::new(Notify::new()) }
    }

    /// Brings the server up to now and does something with it. Waiting reads learn of what changed; whoever changes the
    /// server otherwise leaves them asleep.
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

    /// Waits, where the request does, and answers it.
    pub(super) async fn respond(
        &self,
        request: &ConsulRequest,
        stopping: &CancellationToken,
    ) -> ConsulResponse {
        self.wait(request, stopping).await;
        self.answer(request)
    }

    /// Waits until what the request reads has changed since the index that it names, or its time is over.
    async fn wait(&self, request: &ConsulRequest, stopping: &CancellationToken) {
        let target = ConsulRequestTarget::parse(&request.path_and_query);
        let Some((index, wait)) = target.and_then(|target| target.wait().ok().flatten()) else { return };
        let until = Instant::now() + wait;
        loop {
            // Listen before looking, so that nothing changes unseen in between.
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

/// Serves it until `shutdown` is done and the requests under way are answered; reads that wait are answered at once.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    front: ConsulFront,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let stopping = CancellationToken::new();
    let most = front.with(|server, _| server.connections_per_client());
    let app = Router::new().fallback(answer).with_state((front, stopping.clone()));
    axum::serve(PerClientListener::new(listener, most), app.into_make_service_with_connect_info::<ConnectionCut>())
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
    let Some(request) = taken_in(request).await else { return cut.now() };
    let response = front.respond(&request, &stopping).await;
    match fault {
        ConsulFault::StatusAfterEffect(status) => injected(status),
        ConsulFault::DropAfterEffect => cut.now(),
        _ => sent(response),
    }
}

/// Nothing where the body can't be read: the client went away, or sends too much.
async fn taken_in(request: Request) -> Option<ConsulRequest> {
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
    sent(ConsulResponse::new(status, TEXT, b"the sandbox was told to answer so".to_vec()))
}

fn sent(response: ConsulResponse) -> Response<Body> {
    let mut builder = Response::builder().status(response.status);
    for (name, value) in response.headers {
        builder = builder.header(name, value);
    }
    // Only a status that HTTP does not have can get here, from a test's own fault.
    builder.body(Body::from(response.body)).unwrap_or_else(|_| Response::new(Body::empty()))
}
