//! The control plane behind a real socket, with faults on request.
//!
//! A dropped answer is really dropped: the connection closes and not a byte of the response leaves.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Response, header};
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use ecs_mesh_model::Timestamp;

use super::message::{KumaRequest, KumaResponse};
use super::problem::KumaProblem;
use super::server::KumaCp;

/// What happens to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KumaFault {
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
pub trait KumaFaults: Send + Sync {
    /// Called once a request, before it has any effect. `path` has no query.
    fn decide(&self, method: &str, path: &str) -> KumaFault;
}

/// All requests are answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKumaFaults;

impl KumaFaults for NoKumaFaults {
    fn decide(&self, _method: &str, _path: &str) -> KumaFault {
        KumaFault::None
    }
}

/// Tells the time.
pub type KumaClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Largest body that is read.
const MAX_BODY: usize = 16 << 20;

/// Serves the control plane until `shutdown` is done and the requests under way are answered.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    cp: Arc<Mutex<KumaCp>>,
    faults: Arc<dyn KumaFaults>,
    clock: KumaClock,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let app = Router::new().fallback(answer).with_state(KumaFront { cp, faults, clock });
    axum::serve(Severable(listener), app.into_make_service_with_connect_info::<KumaConnectionCut>())
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
    ConnectInfo(cut): ConnectInfo<KumaConnectionCut>,
    request: Request,
) -> Response<Body> {
    let fault = front.faults.decide(request.method().as_str(), request.uri().path());
    match fault {
        KumaFault::Status(status) => return injected(status),
        KumaFault::Drop => return cut.now(),
        KumaFault::Delay(by) => tokio::time::sleep(by).await,
        _ => {}
    }
    let Some(request) = taken_in(request).await else { return cut.now() };
    let now = (front.clock)();
    let response = front.cp.lock().unwrap_or_else(PoisonError::into_inner).handle(now, &request);
    match fault {
        KumaFault::StatusAfterEffect(status) => injected(status),
        KumaFault::DropAfterEffect => cut.now(),
        _ => sent(response),
    }
}

/// Nothing where the body can't be read: the client went away, or sends too much.
async fn taken_in(request: Request) -> Option<KumaRequest> {
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
    sent(KumaProblem::new(status, "Injected fault", "The sandbox was told to answer so").response())
}

fn sent(response: KumaResponse) -> Response<Body> {
    let built = Response::builder()
        .status(response.status)
        .header(header::CONTENT_TYPE, response.content_type)
        .body(Body::from(response.body));
    // Only a status that HTTP does not have can get here, from a test's own fault.
    built.unwrap_or_else(|_| Response::new(Body::empty()))
}

/// Closes a connection before anything of the answer is written.
#[derive(Clone, Debug, Default)]
struct KumaConnectionCut(Arc<AtomicBool>);

impl KumaConnectionCut {
    fn now(&self) -> Response<Body> {
        self.0.store(true, Ordering::Relaxed);
        Response::new(Body::empty())
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::ConnectionReset));
        }
        Ok(())
    }
}

impl Connected<IncomingStream<'_, Severable>> for KumaConnectionCut {
    fn connect_info(stream: IncomingStream<'_, Severable>) -> Self {
        stream.io().cut.clone()
    }
}

/// A listener whose connections can be cut.
struct Severable(TcpListener);

impl Listener for Severable {
    type Io = SeverableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        (SeverableStream { stream, cut: KumaConnectionCut::default() }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

struct SeverableStream {
    stream: TcpStream,
    cut: KumaConnectionCut,
}

impl AsyncRead for SeverableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for SeverableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.cut.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
