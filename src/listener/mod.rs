//! Listeners of HTTP that no client can hold up: limits of connections, and TLS.

mod client_rates;
mod handshakes;
mod limits;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tracing::{debug, error, info};

use ecs_mesh_controller::Backoff;

pub(crate) use client_rates::{ClientRates, Rate};
pub(crate) use handshakes::{HandshakeLimits, HandshakeResult};
pub(crate) use limits::{ConnectionHandle, ConnectionLimits, LimitedListener};
pub(crate) use tls::{TlsFiles, TlsKeys};

/// Delays between attempts to bind a port.
const PORT_RETRY: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(30) };

/// The address to serve at, or none.
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
        let invalid = |_| {
            format!(
                "{text:?} is not a listen address: use IP:PORT, such as 0.0.0.0:9102, [::]:9102 or \
                 127.0.0.1:9102, or none"
            )
        };
        text.parse().map(Self::At).map_err(invalid)
    }
}

/// Binds the address, retrying until it is free. `server` and `flag` name the listener in the log.
pub(crate) async fn bind(
    address: SocketAddr,
    seed: u64,
    server: &'static str,
    flag: &'static str,
) -> TcpListener {
    let mut retries = None;
    loop {
        let error = match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                info!(server, %address, "server listening");
                return listener;
            }
            Err(error) => error,
        };
        if retries.is_none() {
            let help = format!("free the port, or set another {flag}");
            error!(server, %address, %error, help, "cannot bind the address; retrying");
        } else {
            debug!(server, %address, %error, "cannot bind the address; retrying");
        }
        let delays = retries.get_or_insert_with(|| PORT_RETRY.start(seed));
        tokio::time::sleep(delays.after_failure()).await;
    }
}
