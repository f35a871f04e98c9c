//! Limits of the number, the size and the age of connections, so that no client keeps another one out.
//!
//! A connection is accepted in any case. Where its pool is full, the oldest connection that has not sent its request is
//! closed, or else the oldest that is no stream, or else the oldest. Clients of the same host have a pool of their own: however
//! many others connect, the container health check is answered.
//!
//! A response without an end is a stream: [`ConnectionHandle::begin_stream`] takes its age limit away, and limits the time for
//! which its client may take nothing.
//!
//! A connection has one request, in HTTP/1. The limits count connections, and HTTP/2 would have hundreds of requests in one:
//! its first bytes end the connection.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

use super::handshakes::{HandshakeLimits, HandshakeObserver, TlsHandshakes};
use super::tls::{MaybeTls, TlsKeys};

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// Most open connections of each pool.
    pub(crate) open: usize,
    /// Time to send a request, and time for the handshake of TLS before it.
    pub(crate) request: Duration,
    /// Most bytes of a request. Every response closes its connection.
    pub(crate) bytes: usize,
    /// Maximum age. A scrape takes milliseconds.
    pub(crate) age: Duration,
    /// Time for which the client of a stream may take nothing.
    pub(crate) stall: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            open: 32,
            request: Duration::from_secs(3),
            bytes: 64 * 1024,
            age: Duration::from_secs(10),
            stall: Duration::from_secs(10),
        }
    }
}

/// The first bytes of HTTP/2. The server accepts it where another crate turns that feature of the HTTP library on.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// A listener that enforces the limits, with TLS where it has keys.
pub(crate) struct LimitedListener {
    listener: TcpListener,
    limits: ConnectionLimits,
    tls: Option<TlsHandshakes>,
    /// Handshakes in progress, each with its connection's peer. Each has a slot of a pool, which bounds their number: one that
    /// loses its slot ends.
    handshakes: JoinSet<Option<(LimitedConnection, SocketAddr)>>,
    local: ConnectionPool,
    remote: ConnectionPool,
}

impl LimitedListener {
    pub(crate) fn new(listener: TcpListener, limits: ConnectionLimits) -> Self {
        Self {
            listener,
            limits,
            tls: None,
            handshakes: JoinSet::new(),
            local: ConnectionPool::default(),
            remote: ConnectionPool::default(),
        }
    }

    /// Serves TLS with these keys, within these limits of handshakes.
    pub(crate) fn with_tls(
        self,
        keys: Arc<TlsKeys>,
        limits: HandshakeLimits,
        observer: HandshakeObserver,
    ) -> Self {
        Self { tls: Some(TlsHandshakes::new(keys, limits, observer)), ..self }
    }
}

impl Listener for LimitedListener {
    type Io = LimitedConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (LimitedConnection, SocketAddr) {
        loop {
            let (stream, peer) = tokio::select! {
                biased;
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Some(accepted)) => return accepted,
                    // The client or its handshake failed.
                    Ok(None) | Err(_) => continue,
                },
                accepted = Listener::accept(&mut self.listener) => accepted,
            };
            let is_local = is_same_host(peer.ip(), stream.local_addr().ok().map(|own| own.ip()));
            if self.tls.as_ref().is_some_and(|tls| !tls.admit(peer.ip(), is_local)) {
                continue;
            }
            let pool = if is_local { &self.local } else { &self.remote };
            let (slot, limits) = (PoolSlot::take(pool, self.limits.open), self.limits);
            let Some(tls) = &self.tls else {
                return (LimitedConnection::new(MaybeTls::Plain(stream), slot, limits, peer), peer);
            };
            self.handshakes.spawn(tls.perform(stream, peer, slot, limits));
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The connection of a request, for its handler.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionHandle {
    peer: SocketAddr,
    pool: ConnectionPool,
    id: u64,
    response: Arc<ResponseState>,
}

/// The state of a connection's response, as its handler sets it.
#[derive(Debug, Default)]
struct ResponseState {
    /// The handler works on it.
    has_begun: AtomicBool,
    /// It has no end.
    is_stream: AtomicBool,
}

impl ConnectionHandle {
    /// The client.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The request is complete and has an answer, which takes a while: the time to send a request is over, and the connection
    /// makes room after those that have sent none.
    pub(crate) fn begin_response(&self) {
        self.response.has_begun.store(true, Ordering::Relaxed);
        self.pool.mark_answered(self.id);
    }

    /// The response has no end: its age is not limited any more.
    pub(crate) fn begin_stream(&self) {
        self.response.is_stream.store(true, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, LimitedListener>> for ConnectionHandle {
    fn connect_info(stream: IncomingStream<'_, LimitedListener>) -> Self {
        stream.io().handle()
    }
}

/// Whether a client runs on this host: it comes from a loopback address, or from the address that it connected to.
fn is_same_host(peer: IpAddr, own: Option<IpAddr>) -> bool {
    peer.to_canonical().is_loopback() || own == Some(peer)
}

/// The open connections of some clients.
#[derive(Clone, Debug, Default)]
struct ConnectionPool(Arc<Mutex<OpenConnections>>);

#[derive(Debug, Default)]
struct OpenConnections {
    next: u64,
    /// By age, the oldest first.
    open: BTreeMap<u64, OpenConnection>,
}

#[derive(Debug)]
struct OpenConnection {
    /// Dropped to close the connection.
    _close: oneshot::Sender<()>,
    /// The request was received.
    is_answered: bool,
    response: Arc<ResponseState>,
}

impl ConnectionPool {
    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark_answered(&self, id: u64) {
        if let Some(connection) = self.lock().open.get_mut(&id) {
            connection.is_answered = true;
        }
    }
}

impl OpenConnections {
    /// The connection that makes room.
    fn victim(&self) -> Option<u64> {
        let idle = self.open.iter().find(|(_, open)| !open.is_answered);
        let brief = || self.open.iter().find(|(_, open)| !open.response.is_stream.load(Ordering::Relaxed));
        idle.or_else(brief).or_else(|| self.open.iter().next()).map(|(id, _)| *id)
    }
}

/// A place in a pool, which is free again when dropped.
#[derive(Debug)]
pub(super) struct PoolSlot {
    pool: ConnectionPool,
    id: u64,
    /// Completes when the connection has to make room.
    closed: oneshot::Receiver<()>,
    response: Arc<ResponseState>,
}

impl PoolSlot {
    fn take(pool: &ConnectionPool, limit: usize) -> Self {
        let (close, closed) = oneshot::channel();
        let response = Arc::<ResponseState>::default();
        let mut connections = pool.lock();
        if connections.open.len() >= limit {
            let victim = connections.victim();
            victim.and_then(|id| connections.open.remove(&id));
        }
        let id = connections.next;
        connections.next += 1;
        let open = OpenConnection { _close: close, is_answered: false, response: Arc::clone(&response) };
        connections.open.insert(id, open);
        drop(connections);
        Self { pool: pool.clone(), id, closed, response }
    }

    /// Waits until the connection has to make room.
    pub(super) async fn evicted(&mut self) {
        // The sender is dropped and never used.
        let _ = (&mut self.closed).await;
    }
}

impl Drop for PoolSlot {
    fn drop(&mut self) {
        self.pool.lock().open.remove(&self.id);
    }
}

/// A connection that fails once its time is over, or when it has to make room.
pub(crate) struct LimitedConnection {
    stream: MaybeTls,
    slot: PoolSlot,
    limits: ConnectionLimits,
    peer: SocketAddr,
    opened: Instant,
    deadline: Pin<Box<Sleep>>,
    /// Bytes of the request so far.
    received: usize,
    /// How many of the first bytes of HTTP/2 were received, if there were no others.
    http2_bytes: Option<usize>,
    is_answered: bool,
    /// A stream whose client takes nothing at the moment.
    is_stalled: bool,
    is_over: bool,
}

impl LimitedConnection {
    pub(super) fn new(stream: MaybeTls, slot: PoolSlot, limits: ConnectionLimits, peer: SocketAddr) -> Self {
        Self {
            stream,
            slot,
            limits,
            peer,
            opened: Instant::now(),
            deadline: Box::pin(tokio::time::sleep(limits.request)),
            received: 0,
            http2_bytes: Some(0),
            is_answered: false,
            is_stalled: false,
            is_over: false,
        }
    }

    fn handle(&self) -> ConnectionHandle {
        let PoolSlot { pool, id, response, .. } = &self.slot;
        ConnectionHandle { peer: self.peer, pool: pool.clone(), id: *id, response: Arc::clone(response) }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.slot.response.has_begun.load(Ordering::Relaxed) {
            self.begin_answer();
        }
        // The deadline of a stream counts only while its client takes nothing.
        let is_timed =
            !self.is_answered || self.is_stalled || !self.slot.response.is_stream.load(Ordering::Relaxed);
        self.is_over = self.is_over
            || (is_timed && self.deadline.as_mut().poll(cx).is_ready())
            || Pin::new(&mut self.slot.closed).poll(cx).is_ready();
        if self.is_over { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    /// Counts bytes of the request, whose number and beginning are limited.
    fn note_request(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.http2_bytes = self.http2_bytes.and_then(|known| {
            let rest = &HTTP2_PREFACE[known..];
            let compared = rest.len().min(bytes.len());
            (rest[..compared] == bytes[..compared]).then_some(known + compared)
        });
        self.received += bytes.len();
        let error = match () {
            () if self.received > self.limits.bytes => io::ErrorKind::FileTooLarge,
            () if self.http2_bytes == Some(HTTP2_PREFACE.len()) => io::ErrorKind::Unsupported,
            () => return Ok(()),
        };
        self.is_over = true;
        Err(error.into())
    }

    /// The request is complete: its handler says so, or else the first byte that is written.
    fn begin_answer(&mut self) {
        if !self.is_answered {
            self.is_answered = true;
            self.slot.pool.mark_answered(self.slot.id);
            let end = self.opened + self.limits.age;
            self.deadline.as_mut().reset(end);
        }
    }

    /// Begins or ends the time for which the client of a stream takes nothing.
    fn note_progress(&mut self, is_pending: bool) {
        if is_pending && !self.is_stalled && self.slot.response.is_stream.load(Ordering::Relaxed) {
            let end = Instant::now() + self.limits.stall;
            self.deadline.as_mut().reset(end);
        }
        self.is_stalled = is_pending;
    }
}

impl AsyncRead for LimitedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.note_request(&buf.filled()[before..])?;
        read
    }
}

impl AsyncWrite for LimitedConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.begin_answer();
        self.check(cx)?;
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_progress(written.is_pending());
        // Registers the deadline that has just begun.
        self.check(cx)?;
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_closed(slot: &mut PoolSlot) -> bool {
        slot.closed.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn oldest_idle_connection_makes_room() {
        let pool = ConnectionPool::default();
        let mut all: Vec<_> = (0..3).map(|_| PoolSlot::take(&pool, 3)).collect();
        pool.mark_answered(all[0].id);
        let newest = PoolSlot::take(&pool, 3);
        assert_eq!(all.iter_mut().map(is_closed).collect::<Vec<_>>(), [false, true, false]);
        for id in [all[2].id, newest.id] {
            pool.mark_answered(id);
        }
        let _another = PoolSlot::take(&pool, 3);
        assert!(is_closed(&mut all[0]), "all are being answered: the oldest makes room");
    }

    #[test]
    fn stream_makes_room_after_all_others() {
        let pool = ConnectionPool::default();
        let mut all: Vec<_> = (0..3).map(|_| PoolSlot::take(&pool, 3)).collect();
        all.iter().for_each(|slot| pool.mark_answered(slot.id));
        all[0].response.is_stream.store(true, Ordering::Relaxed);
        let _fourth = PoolSlot::take(&pool, 3);
        assert_eq!(all.iter_mut().map(is_closed).collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn client_of_the_same_host_is_recognised() {
        for (peer, own, expected) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("::1", "::1", true),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", true),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.8", "10.0.0.7", false),
        ] {
            assert_eq!(is_same_host(peer.parse().unwrap(), own.parse().ok()), expected, "{peer}");
        }
    }
}
