//! Calls over HTTP: few connections and not for ever, every wait bounded, every answer bounded in size, the token
//! read anew for each call, no proxy from the environment, no redirect followed.
//!
//! With a CA given, that CA alone is trusted; without one, the system's roots are.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Response, Url};
use rustls::{AlertDescription, CertificateError, Error as TlsError};

use super::transport::{Answer, Method, Transport, TransportError, TransportErrorKind};
use crate::api::KumaConnection;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle connections kept; more may be open while calls are under way.
const IDLE_CONNECTIONS: usize = 4;
/// Control planes move behind their names: a connection that rests this long is made anew, and the name looked up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A page of 1,000 Dataplanes is about 1 MB.
const LARGEST_LIST: usize = 64 * 1024 * 1024;
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;
const LARGEST_TOKEN: usize = 64 * 1024;
/// A server cannot ask for more patience than this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// HTTP/1.1 to one control plane.
pub struct HttpTransport {
    client: Client,
    /// Without a slash at the end.
    base: String,
    token: Token,
    timeout: Duration,
    /// Which certificates are trusted, in words.
    trust: String,
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("base", &self.base).finish_non_exhaustive()
    }
}

impl HttpTransport {
    /// Reads the connection's settings and the CA; connects to nothing, and does not need the token yet.
    /// The process must have a default rustls provider. The error names the field and what is allowed.
    pub fn new(spec: &KumaConnection) -> Result<Self, String> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(
                "no TLS provider is installed in this process: install rustls' ring provider first".into()
            );
        }
        let base = base_url(&spec.address)?;
        let token = Token::of(spec)?;
        let secure = base.starts_with("https://");
        let timeout = spec.timeout.0;
        let builder = Client::builder()
            .user_agent(concat!("ecs-mesh-operator/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .timeout(timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let (builder, trust) = match ca(spec)? {
            Some((certificates, source)) => (builder.tls_certs_only(certificates), source),
            // Without TLS no roots are needed, and an image without any must not keep the client from being made.
            None if !secure => (builder.tls_certs_only([]), String::new()),
            None => (builder, "the system's roots (no caFile is given)".to_owned()),
        };
        let client = builder.build().map_err(|error| {
            format!("the client for {base} cannot be made: {}; is a caFile missing?", causes(&error))
        })?;
        Ok(Self { client, base, token, timeout, trust })
    }

    async fn exchange(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Vec<u8>>,
        token: Option<&Secret>,
    ) -> Result<Answer, TransportError> {
        let url = format!("{}{path_and_query}", self.base);
        let method = match method {
            Method::Get => reqwest::Method::GET,
            Method::Put => reqwest::Method::PUT,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut request = self.client.request(method, url).header(ACCEPT, "application/json");
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token.header.clone());
        }
        let response = request.send().await.map_err(|error| self.failure(error))?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let mut body = self.whole_body(response, largest(path_and_query)).await?;
        if status >= 300
            && let Some(token) = token
        {
            token.erase_from(&mut body);
        }
        Ok(Answer { status, retry_after, body })
    }

    async fn whole_body(&self, mut response: Response, largest: usize) -> Result<Vec<u8>, TransportError> {
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.failure(error))? {
            if body.len() + part.len() > largest {
                let message = format!(
                    "{} answers with more than {largest} bytes, which no Kuma control plane does: check the address",
                    self.base
                );
                return Err(TransportError { kind: TransportErrorKind::TooLarge, message });
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    fn failure(&self, error: reqwest::Error) -> TransportError {
        let error = error.without_url();
        let base = &self.base;
        if let Some(tls) = tls_error(&error) {
            let message = format!("TLS with {base} failed: {tls}; {}", self.tls_advice(tls));
            return TransportError { kind: TransportErrorKind::Tls, message };
        }
        let why = causes(&error);
        let (kind, message) = if error.is_timeout() {
            (TransportErrorKind::Timeout, format!("{base} gave no whole answer within {:?}", self.timeout))
        } else if error.is_connect() {
            (
                TransportErrorKind::Connect,
                format!(
                    "{base} is not reached: {why}; check ControlPlane.spec.kuma.address and the network's rules"
                ),
            )
        } else if error.is_builder() {
            (TransportErrorKind::Request, format!("the request to {base} cannot be made: {why}"))
        } else {
            (TransportErrorKind::Broken, format!("the connection to {base} broke: {why}"))
        };
        TransportError { kind, message }
    }

    fn tls_advice(&self, error: &TlsError) -> String {
        match error {
            TlsError::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => {
                format!(
                    "the certificate is not signed by {}: give the CA that signed it as ControlPlane.spec.kuma.caFile",
                    self.trust
                )
            }
            TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => "the certificate is for other names: use one of them in ControlPlane.spec.kuma.address, \
                  or have the address added to the certificate"
                .to_owned(),
            TlsError::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => "renew the control plane's certificate, and check this machine's clock".to_owned(),
            TlsError::InvalidMessage(_) => {
                "perhaps this port speaks plain HTTP: https:// is port 5682, http:// is 5681".to_owned()
            }
            TlsError::AlertReceived(
                AlertDescription::CertificateRequired | AlertDescription::BadCertificate,
            ) => "the server wants a client certificate, which is not supported: let it accept user tokens"
                .to_owned(),
            _ => format!("certificates are checked against {}", self.trust),
        }
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn send(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, TransportError> {
        // A file on a remote file system can hang as a server can.
        let token = tokio::time::timeout(self.timeout, self.token.read()).await;
        let token = token.unwrap_or_else(|_| Err("reading the token took too long".to_owned()));
        let token = token.map_err(|message| TransportError { kind: TransportErrorKind::Token, message })?;
        self.exchange(method, path_and_query, body, token.as_ref()).await
    }
}

/// Only lists have a query.
fn largest(path_and_query: &str) -> usize {
    if path_and_query.contains('?') { LARGEST_LIST } else { LARGEST_ANSWER }
}

fn base_url(address: &str) -> Result<String, String> {
    const RULE: &str = "write http://HOST:5681 or https://HOST:5682, with a path only where a proxy adds one";
    let url = Url::parse(address)
        .map_err(|error| format!("spec.kuma.address {address:?} is not a URL ({error}): {RULE}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!(
            "spec.kuma.address holds a user or password: leave it out, and give a token as tokenFile; {RULE}"
        ));
    }
    let fits = matches!(url.scheme(), "http" | "https") && url.has_host();
    if !fits || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("spec.kuma.address {address:?} is not a control plane's address: {RULE}"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The CA's certificates, and where they came from.
fn ca(spec: &KumaConnection) -> Result<Option<(Vec<Certificate>, String)>, String> {
    let (pem, source) = match (&spec.ca_file, &spec.ca_env) {
        (Some(_), Some(_)) => {
            return Err("spec.kuma has both caFile and caEnv: give one of them".to_owned());
        }
        (None, None) => return Ok(None),
        (Some(file), None) => {
            let source = format!("the CA in {}", file.display());
            let pem = std::fs::read(file)
                .map_err(|error| format!("spec.kuma.caFile {} cannot be read: {error}", file.display()))?;
            (pem, source)
        }
        (None, Some(name)) => {
            let pem = std::env::var(name)
                .map_err(|error| format!("spec.kuma.caEnv {name} cannot be read: {error}"))?;
            (pem.into_bytes(), format!("the CA in the environment variable {name}"))
        }
    };
    let refused = |why: &str| {
        format!("{source} is not usable ({why}): it must be PEM text with -----BEGIN CERTIFICATE----- blocks")
    };
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| refused(&causes(&error)))?;
    if certificates.is_empty() {
        return Err(refused("it holds no certificate"));
    }
    Ok(Some((certificates, source)))
}

/// Where the user token comes from.
enum Token {
    None,
    File(PathBuf),
    Env(String),
}

impl Token {
    fn of(spec: &KumaConnection) -> Result<Self, String> {
        match (&spec.token_file, &spec.token_env) {
            (Some(_), Some(_)) => {
                Err("spec.kuma has both tokenFile and tokenEnv: give one of them".to_owned())
            }
            (Some(file), None) => Ok(Self::File(file.clone())),
            (None, Some(name)) => Ok(Self::Env(name.clone())),
            (None, None) => Ok(Self::None),
        }
    }

    /// The token as it is now: rotated tokens count from the next call on. The error never quotes it.
    async fn read(&self) -> Result<Option<Secret>, String> {
        let (text, source) = match self {
            Self::None => return Ok(None),
            Self::File(file) => {
                let source = format!("the token file {}", file.display());
                let bytes = tokio::fs::read(file).await.map_err(|error| {
                    format!("{source} cannot be read: {error}; correct ControlPlane.spec.kuma.tokenFile, or make it")
                })?;
                let text = String::from_utf8(bytes).map_err(|_| format!("{source} holds no text"))?;
                (text, source)
            }
            Self::Env(name) => {
                let source = format!("the environment variable {name}");
                let text = std::env::var(name).map_err(|_| {
                    format!("{source} holds no text; set it, or correct ControlPlane.spec.kuma.tokenEnv")
                })?;
                (text, source)
            }
        };
        let token = text.trim();
        if token.is_empty() || token.len() > LARGEST_TOKEN {
            return Err(format!("{source} should hold a user token, and holds {} bytes", text.len()));
        }
        let mut header = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| format!("{source} should hold a user token, one line of printable characters"))?;
        header.set_sensitive(true);
        Ok(Some(Secret { header, text: token.as_bytes().to_vec() }))
    }
}

struct Secret {
    header: HeaderValue,
    text: Vec<u8>,
}

impl Secret {
    /// Some proxies repeat the request in their error pages.
    fn erase_from(&self, body: &mut Vec<u8>) {
        const STAND_IN: &[u8] = b"(token)";
        let mut clean = Vec::with_capacity(body.len());
        let mut rest = body.as_slice();
        while let Some(at) = rest.windows(self.text.len()).position(|window| window == self.text) {
            clean.extend_from_slice(&rest[..at]);
            clean.extend_from_slice(STAND_IN);
            rest = &rest[at + self.text.len()..];
        }
        clean.extend_from_slice(rest);
        *body = clean;
    }
}

/// `Retry-After` in seconds, or as a date, which is measured against the server's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse::<u64>() {
        Duration::from_secs(seconds)
    } else {
        let until = http_date(text)?;
        let now = http_date(headers.get(DATE)?.to_str().ok()?.trim())?;
        Duration::try_from(until - now).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

fn http_date(text: &str) -> Option<time::OffsetDateTime> {
    time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc2822).ok()
}

/// The TLS failure within an error, if there is one.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a TlsError> {
    let mut next: Option<&'a (dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<TlsError>() {
            return Some(tls);
        }
        // An io::Error does not name what it wraps as its source, but that thing's source.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// The innermost cause: the outer ones say "error sending request".
fn causes(error: &reqwest::Error) -> String {
    let mut last = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        last = error.to_string();
        next = error.source();
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (reqwest::header::HeaderName::from_static(name), HeaderValue::from_static(value))
            })
            .collect()
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date_and_is_bounded() {
        for (given, wait) in [
            (headers(&[("retry-after", "7")]), Some(Duration::from_secs(7))),
            (headers(&[("retry-after", "999999999")]), Some(LONGEST_RETRY_AFTER)),
            (
                headers(&[
                    ("date", "Wed, 21 Oct 2026 07:28:00 GMT"),
                    ("retry-after", "Wed, 21 Oct 2026 07:28:30 GMT"),
                ]),
                Some(Duration::from_secs(30)),
            ),
            (
                headers(&[
                    ("date", "Wed, 21 Oct 2026 07:28:00 GMT"),
                    ("retry-after", "Wed, 21 Oct 2026 07:00:00 GMT"),
                ]),
                Some(Duration::ZERO),
            ),
            (headers(&[("retry-after", "soon")]), None),
            (headers(&[]), None),
        ] {
            assert_eq!(retry_after(&given), wait, "{given:?}");
        }
    }

    #[test]
    fn an_address_is_refused_with_what_is_allowed() {
        for bad in ["", "kuma:5681", "ftp://kuma", "http://kuma?x=1", "http://kuma#x", "//kuma"] {
            let error = base_url(bad).unwrap_err();
            assert!(error.contains("http://HOST:5681"), "{error}");
        }
        let error = base_url("http://user:hunter2@kuma:5681").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn an_address_may_carry_a_proxys_path() {
        assert_eq!(base_url("https://proxy.example/kuma/").unwrap(), "https://proxy.example/kuma");
        assert_eq!(base_url("http://cp:5681").unwrap(), "http://cp:5681");
    }

    #[test]
    fn a_token_that_an_error_page_repeats_is_erased() {
        let secret = Secret { header: HeaderValue::from_static("x"), text: b"abc".to_vec() };
        let mut page = b"Authorization: Bearer abc, again abc.".to_vec();
        secret.erase_from(&mut page);
        assert_eq!(page, b"Authorization: Bearer (token), again (token).");
    }
}
