//! Limits of the number and the age of connections, so that no client keeps another one out.
//!
//! A connection is accepted in any case. Where its pool is full, the oldest connection that has not sent its request is
//! closed, or else the oldest. Clients of the same host have a pool of their own: however many others connect, the container
//! health check is answered.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionLimits {
    /// Most open connections of each pool.
    pub(super) open: usize,
    /// Time to send a request.
    pub(super) request: Duration,
    /// Maximum age. A scrape takes milliseconds, and every response closes its connection.
    pub(super) age: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { open: 32, request: Duration::from_secs(3), age: Duration::from_secs(10) }
    }
}

/// A listener that enforces the limits.
pub(super) struct LimitedListener {
    listener: TcpListener,
    limits: ConnectionLimits,
    local: ConnectionPool,
    remote: ConnectionPool,
}

impl LimitedListener {
    pub(super) fn new(listener: TcpListener, limits: ConnectionLimits) -> Self {
        Self { listener, limits, local: ConnectionPool::default(), remote: ConnectionPool::default() }
    }
}

impl Listener for LimitedListener {
    type Io = LimitedConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (LimitedConnection, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let is_local = is_same_host(peer.ip(), stream.local_addr().ok().map(|own| own.ip()));
        let pool = if is_local { &self.local } else { &self.remote };
        (LimitedConnection::new(stream, pool, self.limits), peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
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
}

impl ConnectionPool {
    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection. The receiver completes when the connection has to make room.
    fn add(&self, limit: usize) -> (u64, oneshot::Receiver<()>) {
        let (close, closed) = oneshot::channel();
        let mut connections = self.lock();
        if connections.open.len() >= limit {
            let idle = connections.open.iter().find(|(_, connection)| !connection.is_answered);
            let oldest = idle.or_else(|| connections.open.first_key_value()).map(|(id, _)| *id);
            oldest.and_then(|id| connections.open.remove(&id));
        }
        let id = connections.next;
        connections.next += 1;
        connections.open.insert(id, OpenConnection { _close: close, is_answered: false });
        (id, closed)
    }

    fn mark_answered(&self, id: u64) {
        if let Some(connection) = self.lock().open.get_mut(&id) {
            connection.is_answered = true;
        }
    }
}

/// A connection that fails once its time is over, or when it has to make room.
pub(super) struct LimitedConnection {
    stream: TcpStream,
    pool: ConnectionPool,
    id: u64,
    limits: ConnectionLimits,
    opened: Instant,
    deadline: Pin<Box<Sleep>>,
    closed: oneshot::Receiver<()>,
    is_answered: bool,
    is_over: bool,
}

impl LimitedConnection {
    fn new(stream: TcpStream, pool: &ConnectionPool, limits: ConnectionLimits) -> Self {
        let (id, closed) = pool.add(limits.open);
        Self {
            stream,
            pool: pool.clone(),
            id,
            limits,
            opened: Instant::now(),
            deadline: Box::pin(tokio::time::sleep(limits.request)),
            closed,
            is_answered: false,
            is_over: false,
        }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.is_over = self.is_over
            || self.deadline.as_mut().poll(cx).is_ready()
            || Pin::new(&mut self.closed).poll(cx).is_ready();
        if self.is_over { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl Drop for LimitedConnection {
    fn drop(&mut self) {
        self.pool.lock().open.remove(&self.id);
    }
}

impl AsyncRead for LimitedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for LimitedConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // Nothing is written before the request is complete.
        if !self.is_answered {
            self.is_answered = true;
            self.pool.mark_answered(self.id);
            let end = self.opened + self.limits.age;
            self.deadline.as_mut().reset(end);
        }
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
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

    fn is_closed(closed: &mut oneshot::Receiver<()>) -> bool {
        closed.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn oldest_idle_connection_makes_room() {
        let pool = ConnectionPool::default();
        let mut all: Vec<_> = (0..3).map(|_| pool.add(3)).collect();
        pool.mark_answered(all[0].0);
        let (newest, _receiver) = pool.add(3);
        assert_eq!(all.iter_mut().map(|(_, c)| is_closed(c)).collect::<Vec<_>>(), [false, true, false]);
        for id in [all[2].0, newest] {
            pool.mark_answered(id);
        }
        let _another = pool.add(3);
        assert!(is_closed(&mut all[0].1), "all are being answered: the oldest makes room");
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
