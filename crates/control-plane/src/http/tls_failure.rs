//! TLS failures in the words of the field: what is wrong, and what is supported.
//!
//! The library prints the names of its own types. Each of its errors is translated here; those that only a defect can
//! cause share one text.

use std::fmt::Write as _;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage, PeerIncompatible};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::failure::CallTarget;
use super::trust::{is_ca_as_server, webpki_error};

/// The suites of rustls' ring provider.
const SUITES: &str = "supported are TLS 1.3, and TLS 1.2 with ECDHE and AES-GCM or ChaCha20-Poly1305";
/// The signatures of rustls' ring provider.
const SIGNATURES: &str = "supported are RSA keys of 2048 to 8192 bits, ECDSA keys on P-256 and P-384, and Ed25519, with SHA-256 or longer";
/// The names of a certificate that an error lists.
const MAX_NAMES: usize = 5;

/// A TLS failure and the next step.
pub(super) struct TlsFailure {
    pub(super) problem: String,
    pub(super) help: String,
}

impl TlsFailure {
    fn new(problem: impl Into<String>, help: impl Into<String>) -> Self {
        Self { problem: problem.into(), help: help.into() }
    }

    /// Translates an error of the library.
    pub(super) fn of(error: &TlsError, target: &CallTarget<'_>) -> Self {
        match error {
            TlsError::InvalidCertificate(error) => of_certificate(error, target),
            TlsError::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload,
            ) => Self::new("the server does not speak TLS at this port", ports(target)),
            TlsError::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
                Self::new("the server offers neither TLS 1.2 nor TLS 1.3", SUITES)
            }
            TlsError::PeerIncompatible(_) => unsupported(target),
            TlsError::AlertReceived(alert) => of_alert(*alert, target),
            TlsError::NoCertificatesPresented => {
                Self::new("the server presents no certificate", "give the server a certificate")
            }
            TlsError::InvalidMessage(_)
            | TlsError::InappropriateMessage { .. }
            | TlsError::InappropriateHandshakeMessage { .. }
            | TlsError::PeerMisbehaved(_)
            | TlsError::PeerSentOversizedRecord
            | TlsError::DecryptError => Self::new(
                "the server broke the rules of TLS",
                format!("check which server or proxy answers at this port; {}", ports(target)),
            ),
            TlsError::NoApplicationProtocol => {
                Self::new("the server does not offer HTTP/1.1", "allow HTTP/1.1 at the server's port")
            }
            // Causes within this process, and variants of later versions.
            _ => {
                Self::new("TLS failed within this process", "restart it, and report the failure if it recurs")
            }
        }
    }

    /// The server closed the connection before it answered.
    pub(super) fn closed(target: &CallTarget<'_>) -> Self {
        Self::new("the server closed the connection instead of answering", ports(target))
    }
}

fn ports(target: &CallTarget<'_>) -> String {
    let (plain, tls) = target.product.ports;
    format!("https:// is port {tls}, http:// is port {plain}")
}

fn unsupported(target: &CallTarget<'_>) -> TlsFailure {
    // OpenSSL answers so, too, where it requires a client certificate in TLS 1.2.
    let help = format!(
        "{SUITES}; if the server requires a client certificate, which is not supported, {}",
        target.product.client_certificate_help
    );
    TlsFailure::new("the server offers no TLS 1.2 or 1.3 with a supported cipher suite", help)
}

/// A failure that the server has reported.
fn of_alert(alert: AlertDescription, target: &CallTarget<'_>) -> TlsFailure {
    let block = target.product.block;
    match alert {
        AlertDescription::ProtocolVersion => {
            TlsFailure::new("the server offers neither TLS 1.2 nor TLS 1.3", SUITES)
        }
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => unsupported(target),
        AlertDescription::CertificateRequired
        | AlertDescription::BadCertificate
        | AlertDescription::NoCertificate => TlsFailure::new(
            "the server requires a client certificate, which is not supported",
            target.product.client_certificate_help,
        ),
        AlertDescription::UnrecognisedName => TlsFailure::new(
            "the server knows no certificate for this name",
            format!("set ControlPlane.{block}.tlsServerName to a name that the server knows"),
        ),
        AlertDescription::AccessDenied => {
            TlsFailure::new("the server denies access", "check who may connect to the server")
        }
        AlertDescription::NoApplicationProtocol => {
            TlsFailure::new("the server does not offer HTTP/1.1", "allow HTTP/1.1 at the server's port")
        }
        AlertDescription::InternalError => {
            TlsFailure::new("the server failed within itself", "read the server's log")
        }
        // Numbers as RFC 8446, section 6, has them.
        other => TlsFailure::new(
            format!("the server ended the handshake with TLS alert {}", u8::from(other)),
            format!("read the server's log; {SUITES}"),
        ),
    }
}

/// A certificate that is refused.
fn of_certificate(error: &CertificateError, target: &CallTarget<'_>) -> TlsFailure {
    let (block, trust) = (target.product.block, &target.trust.description);
    let field = format!("ControlPlane.{block}.{}", target.trust.field);
    let renew = "renew the certificate, with those between it and the CA, and check this machine's clock";
    match error {
        CertificateError::UnknownIssuer => TlsFailure::new(
            format!("the server's certificate is not signed by {trust}"),
            format!(
                "set {field} to the CA that signed it, and let the server send the certificates in between"
            ),
        ),
        CertificateError::BadSignature => TlsFailure::new(
            format!("a signature does not fit the server's certificate or {trust}"),
            format!(
                "set {field} to the CA that signed it: one of the same name may have another key; {SIGNATURES}"
            ),
        ),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            TlsFailure::new(
                format!("the server's certificate is for {}, not for {expected}", names(presented)),
                format!(
                    "set ControlPlane.{block}.tlsServerName to a name in the certificate, or add {expected} to the \
                     certificate"
                ),
            )
        }
        CertificateError::NotValidForName => TlsFailure::new(
            "the server's certificate is for another name",
            format!("set ControlPlane.{block}.tlsServerName to a name in the certificate"),
        ),
        CertificateError::ExpiredContext { not_after, .. } => {
            TlsFailure::new(format!("the server's certificate expired on {}", date(*not_after)), renew)
        }
        CertificateError::Expired => TlsFailure::new("the server's certificate has expired", renew),
        CertificateError::NotValidYetContext { not_before, .. } => TlsFailure::new(
            format!("the server's certificate is not valid before {}", date(*not_before)),
            renew,
        ),
        CertificateError::NotValidYet => TlsFailure::new("the server's certificate is not valid yet", renew),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => TlsFailure::new(
            "the server's certificate is not for servers",
            "issue it with the extended key usage serverAuth",
        ),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => TlsFailure::new(
            "the server's certificate has an unsupported kind of key or signature",
            SIGNATURES,
        ),
        CertificateError::BadEncoding => {
            TlsFailure::new("the server's certificate cannot be parsed", "issue it again")
        }
        CertificateError::UnhandledCriticalExtension => TlsFailure::new(
            "the server's certificate has a critical extension that is not supported",
            "issue it without that extension",
        ),
        error if is_ca_as_server(error) => TlsFailure::new(
            format!("the server's certificate is itself that of a CA, and {trust} does not contain it"),
            format!("set {field} to exactly this certificate, or give the server one that a CA has signed"),
        ),
        error => TlsFailure::new(
            format!("the server's certificate breaks a rule: {}", broken_rule(error)),
            "issue it again, by the rules of RFC 5280",
        ),
    }
}

/// The rule of X.509 that a certificate breaks, for errors without a variant of their own.
fn broken_rule(error: &CertificateError) -> &'static str {
    match webpki_error(error) {
        Some(webpki::Error::EndEntityUsedAsCa) => "the certificate that signed it is not a CA's",
        Some(webpki::Error::PathLenConstraintViolated | webpki::Error::MaximumPathDepthExceeded) => {
            "there are more certificates between it and the CA than are allowed"
        }
        Some(webpki::Error::NameConstraintViolation) => "its CA is restricted to other names",
        Some(webpki::Error::EmptyEkuExtension) => "its extended key usage is empty",
        Some(webpki::Error::UnsupportedCertVersion) => "its version is not X.509 v3",
        Some(webpki::Error::SignatureAlgorithmMismatch) => "it names two algorithms for its signature",
        Some(webpki::Error::MalformedDnsIdentifier) => "a DNS name in it is malformed",
        Some(webpki::Error::MalformedExtensions | webpki::Error::ExtensionValueInvalid) => {
            "an extension is malformed"
        }
        _ => "it cannot be verified",
    }
}

/// The names in a certificate, which come as `DnsName("cp.internal")` and `IpAddress(10.0.0.7)`.
fn names(presented: &[String]) -> String {
    let names: Vec<&str> = presented
        .iter()
        .filter_map(|name| {
            let (_, name) =
                name.split_once('(').filter(|(kind, _)| ["DnsName", "IpAddress"].contains(kind))?;
            let name = name.strip_suffix(')')?.trim_matches('"');
            name.bytes().all(|b| b.is_ascii_graphic()).then_some(name)
        })
        .collect();
    if names.is_empty() {
        return "no host (it has no subjectAltName)".to_owned();
    }
    let mut listed = names[..names.len().min(MAX_NAMES)].join(", ");
    if names.len() > MAX_NAMES {
        // Writing to a String cannot fail.
        let _ = write!(listed, " and {} more", names.len() - MAX_NAMES);
    }
    listed
}

fn date(time: UnixTime) -> String {
    let at = i64::try_from(time.as_secs()).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "a date out of range".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_certificate_are_listed_without_their_types() {
        let presented = |count: usize| -> Vec<String> {
            (0..count).map(|number| format!("DnsName(\"cp-{number}.internal\")")).collect()
        };
        assert_eq!(names(&[]), "no host (it has no subjectAltName)");
        assert_eq!(
            names(&["DnsName(\"*.internal\")".into(), "IpAddress(10.0.0.7)".into(), "DirectoryName".into()]),
            "*.internal, 10.0.0.7"
        );
        assert!(names(&presented(7)).ends_with("cp-4.internal and 2 more"));
        assert_eq!(names(&["DnsName(\"a\u{1b}[31m\")".into()]), names(&[]));
    }
}
