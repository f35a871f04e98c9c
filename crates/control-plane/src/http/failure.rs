//! Error messages for calls without a complete response: the cause, the address and the next step.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use rustls::Error as TlsError;

use super::client_source::TrustSource;
use super::settings::Product;
use super::tls_failure::TlsFailure;
use super::transport::{TransportError, TransportErrorKind};
use ecs_mesh_controller::WriteObstacle;

/// The target of a call, for its error messages.
pub(super) struct CallTarget<'a> {
    pub(super) product: &'a Product,
    pub(super) base: &'a str,
    pub(super) timeout: Duration,
    pub(super) trust: &'a TrustSource,
}

impl CallTarget<'_> {
    pub(super) fn failure(&self, error: reqwest::Error) -> TransportError {
        let error = error.without_url();
        let (base, block) = (self.base, self.product.block);
        if let Some(obstacle) = find_source::<WriteObstacle>(&error) {
            return self.obstructed(*obstacle);
        }
        if let Some(tls) = find_source::<TlsError>(&error) {
            return self.tls_failure(TlsFailure::of(tls, self)).with_source(tls.clone());
        }
        if base.starts_with("https://") && error.is_connect() && is_closed(&error) {
            return self.tls_failure(TlsFailure::closed(self)).with_source(error);
        }
        let cause = innermost_cause(&error);
        let (kind, message) = if error.is_timeout() {
            return self.timed_out();
        } else if error.is_connect() {
            (
                TransportErrorKind::Connect,
                format!(
                    "connecting to {base}: {cause}; help: check ControlPlane.{block}.address and the network rules"
                ),
            )
        } else if error.is_builder() {
            (TransportErrorKind::Request, format!("building the request to {base}: {cause}"))
        } else {
            (TransportErrorKind::Broken, format!("connection to {base} broken: {cause}"))
        };
        TransportError::new(kind, message).with_source(error)
    }

    /// The error of a write that was not sent.
    pub(super) fn obstructed(&self, obstacle: WriteObstacle) -> TransportError {
        let message = format!("calling {}: not sent: {obstacle}", self.base);
        TransportError::new(TransportErrorKind::Obstructed(obstacle), message)
    }

    /// The error of a write that was dropped because the lease ended. It may have taken effect.
    pub(super) fn lease_ended(&self) -> TransportError {
        let message = format!("calling {}: aborted, since the lease ended during the write", self.base);
        TransportError::new(TransportErrorKind::Broken, message)
    }

    /// The error of a call without a complete response in time.
    pub(super) fn timed_out(&self) -> TransportError {
        let message = format!("calling {}: no complete response within {:?}", self.base, self.timeout);
        TransportError::new(TransportErrorKind::Timeout, message)
    }

    /// The error of a response larger than the control plane's API returns.
    pub(super) fn too_large(&self) -> TransportError {
        let message = format!(
            "calling {}: the response is larger than a {} control plane returns; help: check the address",
            self.base, self.product.name
        );
        TransportError::new(TransportErrorKind::TooLarge, message)
    }

    fn tls_failure(&self, failure: TlsFailure) -> TransportError {
        let TlsFailure { problem, help } = failure;
        let message = format!("TLS handshake with {}: {problem}; help: {help}", self.base);
        TransportError::new(TransportErrorKind::Tls, message)
    }
}

/// The error of this type in the chain of causes, if there is one: the innermost.
fn find_source<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    let mut found = None;
    let mut next: Option<&'a (dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        found = error.downcast_ref::<E>().or(found);
        // The source of an io::Error is the source of the error that it wraps, not the wrapped error itself.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    found
}

/// Whether the server closed the connection.
fn is_closed(error: &reqwest::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let cause = find_source::<io::Error>(error);
    cause.is_some_and(|cause| {
        [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof].contains(&cause.kind())
    })
}

/// The innermost cause, since the outer messages are generic ("error sending request").
pub(super) fn innermost_cause(error: &reqwest::Error) -> String {
    let mut last = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        last = error.to_string();
        next = error.source();
    }
    last
}
