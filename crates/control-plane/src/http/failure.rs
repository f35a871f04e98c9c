//! Error messages for calls without a complete response: the cause, the address and the next step.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error as TlsError};

use super::settings::Product;
use super::transport::{TransportError, TransportErrorKind};

/// The target of a call, for its error messages.
pub(super) struct CallTarget<'a> {
    pub(super) product: &'a Product,
    pub(super) base: &'a str,
    pub(super) timeout: Duration,
    /// The trusted certificates, for error messages.
    pub(super) trust: &'a str,
}

impl CallTarget<'_> {
    pub(super) fn failure(&self, error: reqwest::Error) -> TransportError {
        let error = error.without_url();
        let (base, block) = (self.base, self.product.block);
        if let Some(tls) = tls_error(&error) {
            let message = format!("TLS handshake with {base}: {tls}; help: {}", self.tls_advice(tls));
            return TransportError::new(TransportErrorKind::Tls, message).with_source(tls.clone());
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

    fn tls_advice(&self, error: &TlsError) -> String {
        let Product { block, ports: (plain, tls), .. } = self.product;
        match error {
            TlsError::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => {
                format!(
                    "the certificate is not signed by {}; set ControlPlane.{block}.caFile to the CA that signed it",
                    self.trust
                )
            }
            TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => format!(
                "the certificate is for other names; use one of them in ControlPlane.{block}.address, \
                 or add the address to the certificate"
            ),
            TlsError::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => "renew the control plane's certificate and check this machine's clock".to_owned(),
            TlsError::InvalidMessage(_) => {
                format!("the port may serve plain HTTP: https:// is port {tls}, http:// is port {plain}")
            }
            TlsError::AlertReceived(
                AlertDescription::CertificateRequired | AlertDescription::BadCertificate,
            ) => format!(
                "the server requires a client certificate, which is not supported; {}",
                self.product.client_certificate_help
            ),
            _ => format!("certificates are checked against {}", self.trust),
        }
    }
}

/// The TLS error in the chain of causes, if there is one.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a TlsError> {
    let mut next: Option<&'a (dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<TlsError>() {
            return Some(tls);
        }
        // The source of an io::Error is the source of the error that it wraps, not the wrapped error itself.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
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
