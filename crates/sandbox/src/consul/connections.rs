//! Connections that can be cut, with a limit for each client address.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::http::Response;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Response to a connection above the limit.
const TOO_MANY_CONNECTIONS: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nConnection: close\r\n\
    Content-Length: 53\r\n\r\nThis address has as many connections as are allowed.\n";

/// Closes a connection before the response is written.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionCut(Arc<AtomicBool>);

impl ConnectionCut {
    pub(super) fn now(&self) -> Response<Body> {
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

impl Connected<IncomingStream<'_, PerClientListener>> for ConnectionCut {
    fn connect_info(stream: IncomingStream<'_, PerClientListener>) -> Self {
        stream.io().cut.clone()
    }
}

type Open = Arc<Mutex<BTreeMap<IpAddr, usize>>>;

/// A listener with a maximum number of connections for each client address.
pub(super) struct PerClientListener {
    listener: TcpListener,
    most: usize,
    open: Open,
}

impl PerClientListener {
    pub(super) fn new(listener: TcpListener, most: usize) -> Self {
        Self { listener, most, open: Open::default() }
    }

    fn slot(&self, address: IpAddr) -> Option<ConnectionSlot> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(ConnectionSlot { address, open: Arc::clone(&self.open) })
    }
}

impl Listener for PerClientListener {
    type Io = ClientConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            match self.slot(address.ip()) {
                Some(slot) => {
                    return (
                        ClientConnection { stream, cut: ConnectionCut::default(), _slot: slot },
                        address,
                    );
                }
                None => reject_connection(stream),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

fn reject_connection(mut stream: TcpStream) {
    tokio::spawn(async move {
        // The client may have disconnected.
        if stream.write_all(TOO_MANY_CONNECTIONS).await.is_ok() {
            drop(stream.shutdown().await);
        }
    });
}

/// A counted connection of an address.
struct ConnectionSlot {
    address: IpAddr,
    open: Open,
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

pub(super) struct ClientConnection {
    stream: TcpStream,
    cut: ConnectionCut,
    _slot: ConnectionSlot,
}

impl AsyncRead for ClientConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientConnection {
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
