//! One call to a control plane's API and its answer, whatever carries it: HTTP, or a simulation that answers directly.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::MeshErrorKind;
use ecs_mesh_controller::Lease;

/// The methods that this client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HttpMethod {
    /// Reads.
    Get,
    /// Asks what does not fit into an address; changes nothing.
    Post,
    /// Creates or replaces.
    Put,
    /// Removes.
    Delete,
}

impl HttpMethod {
    /// Whether it changes something.
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

/// A whole answer, of any status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpResponse {
    /// The HTTP status.
    pub status: u16,
    /// The header `Retry-After`, as a span from now.
    pub retry_after: Option<Duration>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// Why there is no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportErrorKind {
    /// No connection: the name does not resolve, nobody listens.
    Connect,
    /// No whole answer within the time limit. A write may have taken effect.
    Timeout,
    /// The two ends do not agree on TLS, or the server's certificate is not trusted.
    Tls,
    /// The connection broke in the middle. A write may have taken effect.
    Broken,
    /// The token cannot be read, so nothing was sent.
    Token,
    /// Another copy of the operator holds the lease, so nothing was sent.
    NotLeader,
    /// The answer is larger than any that a control plane gives.
    TooLarge,
    /// The request cannot be expressed.
    Request,
}

impl TransportErrorKind {
    /// What it means to a caller who only knows control planes.
    pub fn mesh_kind(self) -> MeshErrorKind {
        match self {
            Self::Connect | Self::Timeout | Self::Tls | Self::Broken => MeshErrorKind::Unreachable,
            Self::Token => MeshErrorKind::Forbidden,
            Self::NotLeader => MeshErrorKind::NotLeader,
            Self::TooLarge => MeshErrorKind::UnexpectedResponse,
            Self::Request => MeshErrorKind::Invalid,
        }
    }
}

/// No answer. The message never holds a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    /// Which failure.
    pub kind: TransportErrorKind,
    /// What happened, where, and what to do about it.
    pub message: String,
}

/// Carries calls to one control plane.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends one request and waits for the whole answer. `path_and_query` starts with `/` and is already encoded;
    /// `body`, where given, is JSON. Any status is an `Ok`.
    async fn send(
        &self,
        method: HttpMethod,
        path_and_query: &str,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError>;

    /// From now on the lease is asked right before a write goes out, where writes wait for others after their caller
    /// has asked; only the first caller gives it.
    fn set_lease(&self, lease: Arc<dyn Lease>) {
        let _ = lease;
    }
}

/// What is known of an answer before its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// The HTTP status.
    pub status: u16,
    /// The header `Retry-After`, as a span from now.
    pub retry_after: Option<Duration>,
    /// Consul's header that says that the token may not see all there is.
    pub filtered: bool,
}

/// Takes a body as it arrives, so that a long list need not be held.
pub trait BodySink: Send {
    /// Takes the next part. `false`: it grows too large, and the rest is not wanted.
    fn take(&mut self, head: &ResponseHead, segment: &[u8]) -> bool;

    /// How many times the time limit of one answer the whole may take, as long as parts keep coming within it.
    fn timeout_factor(&self) -> u32 {
        1
    }
}

/// Carries calls whose answers are taken as they arrive.
#[async_trait]
pub trait StreamTransport: Send + Sync {
    /// As [`Transport::send`], but the body goes to `sink`. That of a failure (status 300 and above) goes there too,
    /// whole.
    async fn stream(
        &self,
        method: HttpMethod,
        path_and_query: &str,
        body: Option<Vec<u8>>,
        sink: &mut dyn BodySink,
    ) -> Result<ResponseHead, TransportError>;

    /// From now on the lease is asked right before a write goes out, where writes wait for others: see
    /// [`Transport::write_under`].
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
impl<T: Transport + ?Sized> Transport for std::sync::Arc<T> {
    async fn send(
        &self,
        method: HttpMethod,
        path_and_query: &str,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        (**self).send(method, path_and_query, body).await
    }

    fn set_lease(&self, lease: Arc<dyn Lease>) {
        (**self).set_lease(lease);
    }
}
