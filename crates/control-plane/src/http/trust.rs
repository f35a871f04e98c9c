//! Which certificates a server may present.
//!
//! A server's certificate must be signed by a trusted CA, be valid now and have the server's name. kuma-cp makes a
//! certificate for itself that is a CA and the server's at once, which the rules of X.509 do not allow. It is accepted if
//! the configured CA contains exactly this certificate: the operator's configuration trusts its key for every name, so also for
//! this server. Period, purpose, name and the handshake's signature are checked as for any other certificate.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::oid::db::rfc5280::ID_KP_SERVER_AUTH;
use x509_cert::ext::pkix::ExtendedKeyUsage;
use x509_cert::time::Time;

/// A CA that is not PEM text of certificates. Never contains the text.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCa {
    /// The text cannot be parsed.
    #[error("parsing {from}: {problem}; help: {PEM_HELP}")]
    Unreadable {
        /// The source of the text.
        from: String,
        /// The defect.
        problem: &'static str,
    },
    /// A block is no certificate.
    #[error("parsing {from}: certificate {number} is not an X.509 certificate; help: {PEM_HELP}")]
    Certificate {
        /// The source of the text.
        from: String,
        /// The number of the certificate, from 1.
        number: usize,
        /// The parser's error.
        source: TlsError,
    },
    /// The text contains no certificate.
    #[error("parsing {from}: no certificate found; help: {PEM_HELP}")]
    Empty {
        /// The source of the text.
        from: String,
    },
}

const PEM_HELP: &str = "use PEM text with -----BEGIN CERTIFICATE----- blocks";

/// A TLS client that cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// The system has no root certificates.
    #[error("no root certificates found on this system")]
    NoRoots(#[source] VerifierBuilderError),
    /// The process's rustls provider has no cipher suite.
    #[error("the TLS provider of this process supports no version of TLS")]
    NoVersions(#[source] TlsError),
}

/// The certificates that a connection trusts.
pub(super) struct TrustedCertificates {
    roots: RootCertStore,
    /// The certificates of a configured CA.
    configured: Vec<CertificateDer<'static>>,
}

impl TrustedCertificates {
    /// The system's roots.
    pub(super) fn of_system() -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self { roots, configured: Vec::new() }
    }

    /// The certificates of a CA's PEM text, which was read from `from`.
    pub(super) fn from_pem(pem: &[u8], from: &str) -> Result<Self, InvalidCa> {
        let configured: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let configured = configured
            .map_err(|error| InvalidCa::Unreadable { from: from.to_owned(), problem: pem_problem(&error) })?;
        if configured.is_empty() {
            return Err(InvalidCa::Empty { from: from.to_owned() });
        }
        let mut roots = RootCertStore::empty();
        for (index, certificate) in configured.iter().enumerate() {
            roots.add(certificate.clone()).map_err(|source| InvalidCa::Certificate {
                from: from.to_owned(),
                number: index + 1,
                source,
            })?;
        }
        Ok(Self { roots, configured })
    }

    /// A client that accepts servers with certificates of these, for `name` instead of the name that it calls.
    pub(super) fn tls_config(
        self,
        provider: &Arc<CryptoProvider>,
        name: Option<ServerName<'static>>,
    ) -> Result<ClientConfig, TlsConfigError> {
        let roots = Arc::new(self.roots);
        let webpki = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
        let webpki = webpki.map_err(TlsConfigError::NoRoots)?;
        // No SNI is better than another name than the one that is checked. TLS sends no address as SNI (RFC 6066).
        let enable_sni = !matches!(name, Some(ServerName::IpAddress(_)));
        let verifier = ServerVerifier { webpki, configured: self.configured, name };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsConfigError::NoVersions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.enable_sni = enable_sni;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The problem in words that repeat nothing of the text.
fn pem_problem(error: &PemError) -> &'static str {
    match error {
        PemError::MissingSectionEnd { .. } => "a -----BEGIN line has no matching -----END line",
        PemError::IllegalSectionStart { .. } => "a -----BEGIN line is incomplete",
        PemError::Base64Decode(_) => "the text between the -----BEGIN and -----END lines is not base64",
        _ => "it is not PEM text",
    }
}

/// Checks a server's certificate by the rules of webpki, with the exception that the module's documentation describes.
#[derive(Debug)]
struct ServerVerifier {
    webpki: Arc<WebPkiServerVerifier>,
    configured: Vec<CertificateDer<'static>>,
    /// The name that the certificate must have, instead of the one that is called.
    name: Option<ServerName<'static>>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let name: &ServerName<'_> = match &self.name {
            Some(name) => name,
            None => server_name,
        };
        match self.webpki.verify_server_cert(end_entity, intermediates, name, ocsp_response, now) {
            Err(TlsError::InvalidCertificate(error))
                if is_ca_as_server(&error) && self.configured.contains(end_entity) =>
            {
                verify_configured(end_entity, name, now)
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.webpki.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.webpki.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Whether the only objection is that a server presents the certificate of a CA.
pub(super) fn is_ca_as_server(error: &CertificateError) -> bool {
    webpki_error(error) == Some(&webpki::Error::CaUsedAsEndEntity)
}

/// An error of webpki for which rustls has no variant.
pub(super) fn webpki_error(error: &CertificateError) -> Option<&webpki::Error> {
    match error {
        CertificateError::Other(other) => other.0.downcast_ref(),
        _ => None,
    }
}

/// Checks a configured certificate that a server presents as its own, all but its issuer. webpki checks the period
/// before it objects to a CA, and the purpose after that; neither is relied on.
fn verify_configured(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, TlsError> {
    let parsed = Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let parsed = parsed.tbs_certificate();
    let at = |time: Time| UnixTime::since_unix_epoch(time.to_unix_duration());
    let validity = parsed.validity();
    let (not_before, not_after) = (at(validity.not_before), at(validity.not_after));
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    let purposes = parsed.get_extension::<ExtendedKeyUsage>().map_err(|_| CertificateError::BadEncoding)?;
    if purposes.is_some_and(|(_, ExtendedKeyUsage(purposes))| !purposes.contains(&ID_KP_SERVER_AUTH)) {
        return Err(CertificateError::InvalidPurpose.into());
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
    Ok(ServerCertVerified::assertion())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};

    use super::*;

    /// The error of a certificate that is valid in 2025, by the seconds since 1970.
    fn refusal(purposes: &[ExtendedKeyUsagePurpose], name: &'static str, now: i64) -> Option<TlsError> {
        let mut params = CertificateParams::new(["cp.internal".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2026, 1, 1));
        params.extended_key_usages = purposes.to_vec();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.try_into().unwrap()));
        verify_configured(certificate.der(), &ServerName::try_from(name).unwrap(), now).err()
    }

    #[test]
    fn configured_certificate_is_verified_without_webpki() {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let (from, until) =
            (date_time_ymd(2025, 1, 1).unix_timestamp(), date_time_ymd(2026, 1, 1).unix_timestamp());
        let at = |seconds: i64| UnixTime::since_unix_epoch(Duration::from_secs(seconds.try_into().unwrap()));
        for (now, expected) in [
            (
                from - 1,
                Some(CertificateError::NotValidYetContext { time: at(from - 1), not_before: at(from) }),
            ),
            (from, None),
            (until, None),
            (until + 1, Some(CertificateError::ExpiredContext { time: at(until + 1), not_after: at(until) })),
        ] {
            assert_eq!(refusal(&[ServerAuth], "cp.internal", now), expected.map(TlsError::from), "{now}");
        }
        assert_eq!(refusal(&[], "cp.internal", from), None);
        assert_eq!(refusal(&[ClientAuth, ServerAuth], "cp.internal", from), None);
        let purpose = refusal(&[ClientAuth], "cp.internal", from);
        assert_eq!(purpose, Some(CertificateError::InvalidPurpose.into()));
        let name = refusal(&[], "other.internal", from);
        let expected = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("other.internal").unwrap(),
            presented: vec!["DnsName(\"cp.internal\")".to_owned()],
        };
        assert_eq!(name, Some(expected.into()));
    }
}
