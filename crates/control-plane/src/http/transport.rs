//! Requests to a control plane's API and their responses, independent of the transport: HTTP or a simulation.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{ErrorSource, MeshErrorKind};
use ecs_mesh_controller::{Lease, WriteObstacle};
use ecs_mesh_model::Timestamp;

/// The HTTP methods that the clients use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HttpMethod {
    /// Reads.
    Get,
    /// Reads with a request body, or issues a token; changes nothing that is stored.
    Post,
    /// Creates or replaces.
    Put,
    /// Removes.
    Delete,
}

impl HttpMethod {
    /// Whether the method changes state.
    pub fn writes(self) -> bool {
        matches!(self, Self::Put | Self::Delete)
    }

    /// The method's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

impl fmt::Display for HttpMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A complete response, of any status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpResponse {
    /// The HTTP status.
    pub status: u16,
    /// The header `Retry-After`, as a duration from now.
    pub retry_after: Option<Duration>,
    /// The complete body.
    pub body: Vec<u8>,
}

/// The reason why a call has no complete response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportErrorKind {
    /// No connection: the name does not resolve or the port is closed.
    Connect,
    /// No complete response within the time limit. A write may have taken effect.
    Timeout,
    /// The TLS handshake failed or the server's certificate is not trusted.
    Tls,
    /// The connection broke in the middle. A write may have taken effect.
    Broken,
    /// The token cannot be read, so nothing was sent.
    Token,
    /// This process may not write, so nothing was sent.
    Obstructed(WriteObstacle),
    /// The response is larger than a control plane returns.
    TooLarge,
    /// The request cannot be built.
    Request,
}

impl TransportErrorKind {
    /// The kind of the corresponding [`MeshError`](crate::MeshError).
    pub fn mesh_kind(self) -> MeshErrorKind {
        match self {
            Self::Connect | Self::Timeout | Self::Tls | Self::Broken => MeshErrorKind::Unreachable,
            Self::Token => MeshErrorKind::Forbidden,
            Self::Obstructed(obstacle) => MeshErrorKind::Obstructed(obstacle),
            Self::TooLarge => MeshErrorKind::UnexpectedResponse,
            Self::Request => MeshErrorKind::Invalid,
        }
    }
}

/// A call without a complete response. The message never contains a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    /// The kind of failure.
    pub kind: TransportErrorKind,
    /// The address, the cause and the next step.
    pub message: String,
    /// The cause, which the message contains or, for TLS, translates.
    pub source: Option<ErrorSource>,
}

impl TransportError {
    /// Creates an error without a cause.
    pub fn new(kind: TransportErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same error with a cause, which the message contains or translates.
    #[must_use]
    pub fn with_source(self, source: impl Into<ErrorSource>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}

/// Sends calls to one control plane.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends one request and waits for the complete response. `path_and_query` starts with `/` and is already encoded;
    /// `body` is JSON. Any status is an `Ok`.
    async fn send(
        &self,
        method: HttpMethod,
        path_and_query: &str,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError>;

    /// As [`Self::send`], on a new connection that no other call uses: a load balancer that chooses the instance for each
    /// connection may choose another one.
    async fn send_on_new_connection(
        &self,
        method: HttpMethod,
        path_and_query: &str,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        self.send(method, path_and_query, body).await
    }

    /// Sets the lease that is checked right before a write is sent, where writes may wait after their caller's check.
    /// Only the first call has an effect.
    fn set_lease(&self, lease: Arc<dyn Lease>) {
        let _ = lease;
    }

    /// When the token that was sent last expires; `None` if there is none, or if it does not say so.
    fn token_expiry(&self) -> Option<Timestamp> {
        None
    }
}

/// The status and headers of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// The HTTP status.
    pub status: u16,
    /// The header `Retry-After`, as a duration from now.
    pub retry_after: Option<Duration>,
    /// Consul's header for results that the token's permissions have filtered.
    pub filtered: bool,
}

/// Consumes a body as it arrives, so that a long list is never held in memory.
pub trait BodySink: Send {
    /// Consumes the next chunk. Returns `false` to abort: the body is too large.
    fn write(&mut self, head: &ResponseHead, chunk: &[u8]) -> bool;

    /// The time limit of the complete body, as a multiple of the limit between two chunks.
    fn timeout_factor(&self) -> u32 {
        1
    }
}

/// Sends calls whose responses are consumed as they arrive.
#[async_trait]
pub trait StreamTransport: Send + Sync {
    /// As [`Transport::send`], but `sink` consumes the body. The body of a failure (status 300 and above) is one chunk.
    async fn stream(
        &self,
        method: HttpMethod,
        path_and_query: &str,
        body: Option<Vec<u8>>,
        sink: &mut dyn BodySink,
    ) -> Result<ResponseHead, TransportError>;

    /// Sets the lease that is checked right before a write is sent: see [`Transport::set_lease`].
    fn set_lease(&self, lease: Arc<dyn Lease>) {
        let _ = lease;
    }
}

#[async_trait]
impl<T: StreamTransport + ?Sized> StreamTransport for Arc<T> {
    async fn stream(
        &self,
        method: HttpMethod,
        path_and_query: &str,
        body: Option<Vec<u8>>,
        sink: &mut dyn BodySink,
    ) -> Result<ResponseHead, TransportError> {
        (**self).stream(method, path_and_query, body, sink).await
    }

    fn set_lease(&self, lease: Arc<dyn Lease>) {
        (**self).set_lease(lease);
    }
}

#[async_trait]
impl<T: Transport + ?Sized> Transport for Arc<T> {
    async fn send(
        &self,
        method: HttpMethod,
        path_and_query: &str,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        (**self).send(method, path_and_query, body).await
    }

    async fn send_on_new_connection(
        &self,
        method: HttpMethod,
        path_and_query: &str,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        (**self).send_on_new_connection(method, path_and_query, body).await
    }

    fn token_expiry(&self) -> Option<Timestamp> {
        (**self).token_expiry()
    }

    fn set_lease(&self, lease: Arc<dyn Lease>) {
        (**self).set_lease(lease);
    }
}
