//! Handshakes of TLS, whose cost is bounded: a client needs no token for one, and each takes a signature of the server.
//!
//! A handshake counts as a connection from its acceptance on and has the time of a request. Over the rate of its client, or of
//! all clients of its pool, the connection is closed before anything is read from it: that costs no signature, and no
//! connection of others makes room for it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use ecs_mesh_controller::TokenBucket;

use super::client_rates::{ClientRates, Rate};
use super::limits::{ConnectionLimits, LimitedConnection, PoolSlot};
use super::tls::{MaybeTls, TlsKeys};

/// Limits of handshakes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandshakeLimits {
    /// Of one client address.
    pub(crate) client: Rate,
    /// Of all clients of the same host, and of all others.
    pub(crate) all: Rate,
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeResult {
    /// The connection is encrypted.
    Ok,
    /// The client gave up, or sent no TLS that the server accepts.
    Failed,
    /// The client took too long.
    Timeout,
    /// It made room for another connection.
    Evicted,
    /// It was over the rate, and did not begin.
    Refused,
}

impl HandshakeResult {
    /// The value of the label `result`.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Evicted => "evicted",
            Self::Refused => "refused",
        }
    }
}

/// Is called with the result of each handshake.
pub(crate) type HandshakeObserver = Arc<dyn Fn(HandshakeResult) + Send + Sync>;

/// TLS of a listener.
pub(super) struct TlsHandshakes {
    keys: Arc<TlsKeys>,
    clients: ClientRates,
    local: TokenBucket,
    remote: TokenBucket,
    observer: HandshakeObserver,
}

impl TlsHandshakes {
    pub(super) fn new(keys: Arc<TlsKeys>, limits: HandshakeLimits, observer: HandshakeObserver) -> Self {
        let bucket = || TokenBucket::new(limits.all.per_second, limits.all.burst);
        Self { keys, clients: ClientRates::new(limits.client), local: bucket(), remote: bucket(), observer }
    }

    /// Whether a handshake with this client may begin.
    pub(super) fn admit(&self, client: IpAddr, is_local: bool) -> bool {
        let all = if is_local { &self.local } else { &self.remote };
        let is_admitted = self.clients.admit(client) && all.try_acquire(1);
        if !is_admitted {
            (self.observer)(HandshakeResult::Refused);
        }
        is_admitted
    }

    /// The handshake with a client; `None` if it did not succeed.
    pub(super) fn perform(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        mut slot: PoolSlot,
        limits: ConnectionLimits,
    ) -> impl Future<Output = Option<(LimitedConnection, SocketAddr)>> + Send + use<> {
        let (acceptor, observer) = (TlsAcceptor::from(self.keys.config()), Arc::clone(&self.observer));
        async move {
            let accepted = tokio::select! {
                biased;
                () = slot.evicted() => Err(HandshakeResult::Evicted),
                accepted = tokio::time::timeout(limits.request, acceptor.accept(stream)) => match accepted {
                    Ok(Ok(stream)) => Ok(stream),
                    Ok(Err(_)) => Err(HandshakeResult::Failed),
                    Err(_) => Err(HandshakeResult::Timeout),
                },
            };
            observer(accepted.as_ref().err().copied().unwrap_or(HandshakeResult::Ok));
            let stream = MaybeTls::Tls(Box::new(accepted.ok()?));
            Some((LimitedConnection::new(stream, slot, limits, peer), peer))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_results_are_distinct() {
        use HandshakeResult::{Evicted, Failed, Ok, Refused, Timeout};
        let labels: std::collections::BTreeSet<_> =
            [Ok, Failed, Timeout, Evicted, Refused].iter().map(|result| result.label()).collect();
        assert_eq!(labels.len(), 5);
    }
}
