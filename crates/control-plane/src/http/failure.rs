//! Calls without an answer, in words for a person: what happened, where, and what to do about it.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error as TlsError};

use super::settings::Product;
use super::transport::{TransportError, TransportErrorKind};

/// Where a call went.
pub(super) struct CallTarget<'a> {
    pub(super) product: &'a Product,
    pub(super) base: &'a str,
    pub(super) timeout: Duration,
    /// Which certificates are trusted, in words.
    pub(super) trust: &'a str,
}

impl CallTarget<'_> {
    pub(super) fn failure(&self, error: reqwest::Error) -> TransportError {
        let error = error.without_url();
        let (base, block) = (self.base, self.product.block);
        if let Some(tls) = tls_error(&error) {
            let message = format!("TLS with {base} failed: {tls}; {}", self.tls_advice(tls));
            return TransportError { kind: TransportErrorKind::Tls, message };
        }
        let why = causes(&error);
        let (kind, message) = if error.is_timeout() {
            return self.timed_out();
        } else if error.is_connect() {
            (
                TransportErrorKind::Connect,
                format!(
                    "{base} is not reached: {why}; check ControlPlane.{block}.address and the network's rules"
                ),
            )
        } else if error.is_builder() {
            (TransportErrorKind::Request, format!("the request to {base} cannot be made: {why}"))
        } else {
            (TransportErrorKind::Broken, format!("the connection to {base} broke: {why}"))
        };
        TransportError { kind, message }
    }

    /// No whole answer in time.
    pub(super) fn timed_out(&self) -> TransportError {
        let message = format!("{} gave no whole answer within {:?}", self.base, self.timeout);
        TransportError { kind: TransportErrorKind::Timeout, message }
    }

    /// More than any such control plane answers with.
    pub(super) fn too_large(&self) -> TransportError {
        let message = format!(
            "{} answers with more than {} control planes do: check the address",
            self.base, self.product.name
        );
        TransportError { kind: TransportErrorKind::TooLarge, message }
    }

    fn tls_advice(&self, error: &TlsError) -> String {
        let Product { block, ports: (plain, tls), .. } = self.product;
        match error {
            TlsError::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => {
                format!(
                    "the certificate is not signed by {}: give the CA that signed it as ControlPlane.{block}.caFile",
                    self.trust
                )
            }
            TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => format!(
                "the certificate is for other names: use one of them in ControlPlane.{block}.address, \
                 or have the address added to the certificate"
            ),
            TlsError::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => "renew the control plane's certificate, and check this machine's clock".to_owned(),
            TlsError::InvalidMessage(_) => {
                format!("perhaps this port speaks plain HTTP: https:// is port {tls}, http:// is {plain}")
            }
            TlsError::AlertReceived(
                AlertDescription::CertificateRequired | AlertDescription::BadCertificate,
            ) => format!(
                "the server wants a client certificate, which is not supported: {}",
                self.product.instead_of_certificate
            ),
            _ => format!("certificates are checked against {}", self.trust),
        }
    }
}

/// The TLS failure within an error, if there is one.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a TlsError> {
    let mut fix: Option<&'a (dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = fix {
        if let Some(tls) = error.downcast_ref::<TlsError>() {
            return Some(tls);
        }
        // An io::Error does not name what it wraps as its source, but that thing's source.
        fix = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// The innermost cause: the outer ones say "error sending request".
pub(super) fn causes(error: &reqwest::Error) -> String {
    let mut last = error.to_string();
    let mut fix = error.source();
    while let Some(error) = fix {
        last = error.to_string();
        fix = error.source();
    }
    last
}
