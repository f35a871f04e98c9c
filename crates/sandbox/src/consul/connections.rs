//! Connections with a limit for each client address.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::cuttable::{ConnectionCut, CuttableStream};

/// Response to a connection above the limit.
const TOO_MANY_CONNECTIONS: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nConnection: close\r\n\
    Content-Length: 53\r\n\r\nThis address has as many connections as are allowed.\n";

impl Connected<IncomingStream<'_, PerClientListener>> for ConnectionCut {
    fn connect_info(stream: IncomingStream<'_, PerClientListener>) -> Self {
        stream.io().cut()
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
    type Io = CuttableStream<ConnectionSlot>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            match self.slot(address.ip()) {
                Some(slot) => return (CuttableStream::new(stream, slot), address),
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
pub(super) struct ConnectionSlot {
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
