//! Serves the control plane on a socket, with injected faults.
//!
//! A dropped response closes the connection before a byte of the response is sent.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Response, header};
use tokio::net::TcpListener;

use ecs_mesh_model::Timestamp;

use super::message::{KumaRequest, KumaResponse};
use super::problem::KumaProblem;
use super::server::KumaCp;
use crate::cuttable::{ConnectionCut, CuttableListener};

/// Fault of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KumaFault {
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
pub trait KumaFaults: Send + Sync {
    /// Called once for each request, before it takes effect. `path` has no query.
    fn decide(&self, method: &str, path: &str) -> KumaFault;
}

/// Injects no faults.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKumaFaults;

impl KumaFaults for NoKumaFaults {
    fn decide(&self, _method: &str, _path: &str) -> KumaFault {
        KumaFault::None
    }
}

/// Returns the current time.
pub type KumaClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Maximum size of a request body.
const MAX_BODY: usize = 16 << 20;

/// Serves the control plane until `shutdown`, and completes requests in flight.
///
/// # Errors
/// The listener's error.
pub async fn serve(
    listener: TcpListener,
    cp: Arc<Mutex<KumaCp>>,
    faults: Arc<dyn KumaFaults>,
    clock: KumaClock,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let app = Router::new().fallback(answer).with_state(KumaFront { cp, faults, clock });
    axum::serve(CuttableListener(listener), app.into_make_service_with_connect_info::<ConnectionCut>())
        .with_graceful_shutdown(shutdown)
        .await
}

#[derive(Clone)]
struct KumaFront {
    cp: Arc<Mutex<KumaCp>>,
    faults: Arc<dyn KumaFaults>,
    clock: KumaClock,
}

async fn answer(
    State(front): State<KumaFront>,
    ConnectInfo(cut): ConnectInfo<ConnectionCut>,
    request: Request,
) -> Response<Body> {
    let fault = front.faults.decide(request.method().as_str(), request.uri().path());
    match fault {
        KumaFault::Status(status) => return injected(status),
        KumaFault::Drop => return cut.now(),
        KumaFault::Delay(by) => tokio::time::sleep(by).await,
        _ => {}
    }
    let Some(request) = read_request(request).await else { return cut.now() };
    let now = (front.clock)();
    let response = front.cp.lock().unwrap_or_else(PoisonError::into_inner).handle(now, &request);
    match fault {
        KumaFault::StatusAfterEffect(status) => injected(status),
        KumaFault::DropAfterEffect => cut.now(),
        _ => sent(response),
    }
}

/// `None` if the body cannot be read: the client disconnected, or the body is too large.
async fn read_request(request: Request) -> Option<KumaRequest> {
    let (parts, body) = request.into_parts();
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let host = header(header::HOST).or_else(|| parts.uri.authority().map(ToString::to_string));
    let bearer =
        header(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned));
    Some(KumaRequest {
        method: parts.method.to_string(),
        path_and_query: parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        content_type: header(header::CONTENT_TYPE),
        host: host.unwrap_or_default(),
        bearer,
        body: axum::body::to_bytes(body, MAX_BODY).await.ok()?.to_vec(),
    })
}

fn injected(status: u16) -> Response<Body> {
    sent(KumaProblem::new(status, "Injected fault", "a fault of the sandbox").response())
}

fn sent(response: KumaResponse) -> Response<Body> {
    let built = Response::builder()
        .status(response.status)
        .header(header::CONTENT_TYPE, response.content_type)
        .body(Body::from(response.body));
    // Fails only for an invalid status of an injected fault.
    built.unwrap_or_else(|_| Response::new(Body::empty()))
}
