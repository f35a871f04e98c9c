//! HTTP calls with few, short-lived connections, bounded waits and bounded response sizes. The token is read for each
//! call; proxies from the environment are ignored and redirects are not followed.
//!
//! If a CA is configured, only that CA is trusted; otherwise the system's roots are.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{ACCEPT, CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Certificate, Client, RequestBuilder};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use super::failure::{CallTarget, innermost_cause};
use super::secret_text::{SecretTextError, read_secret};
use super::settings::{ConnectionSettings, InvalidCa, Product, SettingsError, TextSource, certificates};
use super::token::{Secret, TokenError, TokenReader};
use super::transport::{
    BodySink, HttpMethod, HttpResponse, ResponseHead, StreamTransport, Transport, TransportError,
    TransportErrorKind,
};
use ecs_mesh_controller::{Lease, Secrets, WriteObstacle, read_file};
use ecs_mesh_model::SecretRef;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle connections that are kept; more may be open during calls.
const IDLE_CONNECTIONS: usize = 4;
/// Control planes move behind their names: after this idle time a new connection resolves the name again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A page of 1,000 Dataplanes is about 1 MB.
const MAX_LIST_BYTES: usize = 64 * 1024 * 1024;
const MAX_RESPONSE_BYTES: usize = 4 * 1024 * 1024;
/// Longer `Retry-After` values are cut to this.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);
/// A bundle of all public CAs is a fifth of this.
const MAX_CA_BYTES: u64 = 1024 * 1024;
/// The shortest interval between reads of a CA secret after TLS failures.
const CA_REFRESH_INTERVAL: Duration = Duration::from_mins(1);
/// Consul's header for results that the token's permissions have filtered.
const FILTERED: &str = "x-consul-results-filtered-by-acls";

/// Sends HTTP/1.1 calls to one control plane.
pub struct HttpTransport {
    product: Product,
    /// The address without a trailing slash.
    base: String,
    token: TokenReader,
    timeout: Duration,
    client: ClientState,
    call_limit: Option<Semaphore>,
    /// Checked before each write, once it is set.
    lease: OnceLock<Arc<dyn Lease>>,
}

/// A client with a description of the certificates that it trusts.
#[derive(Clone)]
struct PreparedClient {
    client: Client,
    trust: Arc<str>,
    since: Instant,
}

/// A CA of a secret that cannot be used.
#[derive(Debug, thiserror::Error)]
enum CaSecretError {
    #[error(transparent)]
    Read(#[from] SecretTextError),
    #[error(transparent)]
    Parse(#[from] InvalidCa),
    #[error("{}", innermost_cause(.0))]
    Client(#[from] reqwest::Error),
}

enum ClientState {
    Prepared(PreparedClient),
    /// Built at the first call: the CA is a secret, which has to be read.
    Lazy {
        secret: SecretRef,
        secrets: Arc<dyn Secrets>,
        cached: Mutex<Option<PreparedClient>>,
    },
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("base", &self.base).finish_non_exhaustive()
    }
}

impl HttpTransport {
    /// Reads the connection's settings and the CA, whose file blocks the caller. Does not connect, and reads the token and
    /// secrets at the first call. The process must have a default rustls provider.
    ///
    /// # Errors
    /// Names the invalid field and the allowed values.
    pub fn new(settings: ConnectionSettings, secrets: Arc<dyn Secrets>) -> Result<Self, SettingsError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(SettingsError::NoTlsProvider);
        }
        let ConnectionSettings { product, address, ca, token, timeout } = settings;
        let base = product.base_url(&address)?;
        let token = TokenReader::new(product, token.one(product.block, "token")?, Arc::clone(&secrets));
        let secure = base.starts_with("https://");
        let block = product.block;
        let prepare = |certificates, trust: String| {
            let client = build_client(timeout, certificates).map_err(|source| SettingsError::Client {
                base: base.clone(),
                block,
                source,
            })?;
            let prepared = PreparedClient { client, trust: trust.into(), since: Instant::now() };
            Ok::<_, SettingsError>(ClientState::Prepared(prepared))
        };
        let client = match ca.one(block, "ca")? {
            TextSource::File(file) => {
                let trust = format!("the CA in {}", file.display());
                let pem = read_file(&file, MAX_CA_BYTES).map_err(|source| SettingsError::CaFile {
                    block,
                    file,
                    source,
                })?;
                prepare(Some(certificates(&pem, &trust)?), trust)?
            }
            TextSource::Env(name) => {
                let trust = format!("the CA in the environment variable {name}");
                let pem = std::env::var_os(&name).ok_or_else(|| SettingsError::CaEnv { block, name })?;
                prepare(Some(certificates(pem.as_encoded_bytes(), &trust)?), trust)?
            }
            TextSource::Secret(secret) => ClientState::Lazy { secret, secrets, cached: Mutex::default() },
            // Without TLS no roots are needed, and an image may have none.
            TextSource::None if !secure => prepare(Some(Vec::new()), String::new())?,
            TextSource::None => prepare(None, "the system's roots (no caFile is set)".to_owned())?,
        };
        let call_limit = product.max_concurrent_calls.map(Semaphore::new);
        Ok(Self { product, base, token, timeout, client, call_limit, lease: OnceLock::new() })
    }

    async fn client(&self) -> Result<PreparedClient, TransportError> {
        let (secret, secrets, cached) = match &self.client {
            ClientState::Prepared(prepared) => return Ok(prepared.clone()),
            ClientState::Lazy { secret, secrets, cached } => (secret, secrets, cached),
        };
        let mut cached = cached.lock().await;
        if let Some(prepared) = cached.as_ref() {
            return Ok(prepared.clone());
        }
        let trust = format!("the CA in the secret {secret}");
        let read = async {
            let pem = read_secret(secrets.as_ref(), secret).await?;
            Ok(build_client(self.timeout, Some(certificates(pem.as_bytes(), &trust)?))?)
        };
        let client = read.await.map_err(|cause: CaSecretError| {
            let message =
                format!("calling {}: {cause} (ControlPlane.{}.caSecret)", self.base, self.product.block);
            TransportError::new(TransportErrorKind::Tls, message).with_source(cause)
        })?;
        let new = PreparedClient { client, trust: trust.into(), since: Instant::now() };
        *cached = Some(new.clone());
        Ok(new)
    }

    /// Drops the cached client after a TLS failure: the CA may have been replaced in its secret.
    async fn on_failure(&self, error: &TransportError) {
        if let ClientState::Lazy { cached, .. } = &self.client
            && error.kind == TransportErrorKind::Tls
        {
            cached.lock().await.take_if(|prepared| prepared.since.elapsed() >= CA_REFRESH_INTERVAL);
        }
    }

    async fn token(&self) -> Result<Option<Secret>, TransportError> {
        // A read from a remote file system can hang.
        let token = tokio::time::timeout(self.timeout, self.token.read()).await;
        let token = token.unwrap_or(Err(TokenError::TimedOut));
        token.map_err(|cause| {
            TransportError::new(TransportErrorKind::Token, cause.to_string()).with_source(cause)
        })
    }

    fn request(
        &self,
        client: &Client,
        method: HttpMethod,
        path_and_query: &str,
        body: Option<Vec<u8>>,
        token: Option<&Secret>,
    ) -> RequestBuilder {
        let url = format!("{}{path_and_query}", self.base);
        let method = match method {
            HttpMethod::Get => reqwest::Method::GET,
            HttpMethod::Post => reqwest::Method::POST,
            HttpMethod::Put => reqwest::Method::PUT,
            HttpMethod::Delete => reqwest::Method::DELETE,
        };
        let mut request = client.request(method, url).header(ACCEPT, "application/json");
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        if let Some(token) = token {
            request = request.header(token.name.clone(), token.value.clone());
        }
        request
    }

    async fn exchange(
        &self,
        request: RequestBuilder,
        target: &CallTarget<'_>,
        token: Option<&Secret>,
        sink: &mut dyn BodySink,
    ) -> Result<ResponseHead, TransportError> {
        let factor = sink.timeout_factor();
        let request = if factor > 1 { request.timeout(self.timeout * factor) } else { request };
        let timed_out = |_| target.timed_out();
        let response = tokio::time::timeout(self.timeout, request.send()).await.map_err(timed_out)?;
        let mut response = response.map_err(|error| target.failure(error))?;
        let head = ResponseHead {
            status: response.status().as_u16(),
            retry_after: retry_after(response.headers()),
            filtered: response.headers().get(FILTERED).is_some_and(|value| value != "false"),
        };
        let mut failure = (head.status >= 300).then(BufferSink::default);
        loop {
            let chunk = tokio::time::timeout(self.timeout, response.chunk()).await.map_err(timed_out)?;
            let Some(chunk) = chunk.map_err(|error| target.failure(error))? else { break };
            let accepted = match &mut failure {
                Some(buffer) => buffer.write(&head, &chunk),
                None => sink.write(&head, &chunk),
            };
            if !accepted {
                return Err(target.too_large());
            }
        }
        if let Some(BufferSink { mut body, .. }) = failure {
            self.token.on_failure(head.status, &body);
            if let Some(token) = token {
                token.erase_from(&mut body);
            }
            if !sink.write(&head, &body) {
                return Err(target.too_large());
            }
        }
        Ok(head)
    }
}

#[async_trait]
impl StreamTransport for HttpTransport {
    async fn stream(
        &self,
        method: HttpMethod,
        path_and_query: &str,
        body: Option<Vec<u8>>,
        sink: &mut dyn BodySink,
    ) -> Result<ResponseHead, TransportError> {
        let _permit = match &self.call_limit {
            // The semaphore is never closed, so `ok` drops no error.
            Some(limit) => limit.acquire().await.ok(),
            None => None,
        };
        let token = self.token().await?;
        let PreparedClient { client, trust, .. } = self.client().await?;
        // The lease may have been lost while the call waited for its permit.
        if method.writes()
            && let Some(obstacle) = self.lease.get().and_then(|lease| lease.obstacle())
        {
            return Err(obstructed(obstacle));
        }
        let target =
            CallTarget { product: &self.product, base: &self.base, timeout: self.timeout, trust: &trust };
        let request = self.request(&client, method, path_and_query, body, token.as_ref());
        let response = self.exchange(request, &target, token.as_ref(), sink).await;
        if let Err(error) = &response {
            self.on_failure(error).await;
        }
        response
    }

    fn set_lease(&self, lease: Arc<dyn Lease>) {
        let _ = self.lease.set(lease);
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn send(
        &self,
        method: HttpMethod,
        path_and_query: &str,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        // Only lists have a query.
        let max_bytes = if path_and_query.contains('?') { MAX_LIST_BYTES } else { MAX_RESPONSE_BYTES };
        let mut buffer = BufferSink { body: Vec::new(), max_bytes };
        let head = self.stream(method, path_and_query, body, &mut buffer).await?;
        Ok(HttpResponse { status: head.status, retry_after: head.retry_after, body: buffer.body })
    }

    fn set_lease(&self, lease: Arc<dyn Lease>) {
        <Self as StreamTransport>::set_lease(self, lease);
    }
}

fn obstructed(obstacle: WriteObstacle) -> TransportError {
    TransportError::new(TransportErrorKind::Obstructed(obstacle), format!("not sent: {obstacle}"))
}

/// Buffers a body of limited size.
struct BufferSink {
    body: Vec<u8>,
    max_bytes: usize,
}

impl Default for BufferSink {
    fn default() -> Self {
        Self { body: Vec::new(), max_bytes: MAX_RESPONSE_BYTES }
    }
}

impl BodySink for BufferSink {
    fn write(&mut self, _head: &ResponseHead, chunk: &[u8]) -> bool {
        let fits = self.body.len() + chunk.len() <= self.max_bytes;
        if fits {
            self.body.extend_from_slice(chunk);
        }
        fits
    }
}

/// Builds a client that trusts only these certificates, or the system's roots.
fn build_client(timeout: Duration, certificates: Option<Vec<Certificate>>) -> Result<Client, reqwest::Error> {
    let builder = Client::builder()
        .user_agent(concat!("ecs-mesh-operator/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    let builder = match certificates {
        Some(certificates) => builder.tls_certs_only(certificates),
        None => builder,
    };
    builder.build()
}

/// Parses `Retry-After`, in seconds or as a date, which is compared with the server's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse::<u64>() {
        Duration::from_secs(seconds)
    } else {
        let until = http_date(text)?;
        let now = http_date(headers.get(DATE)?.to_str().ok()?.trim())?;
        Duration::try_from(until - now).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn http_date(text: &str) -> Option<time::OffsetDateTime> {
    time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc2822).ok()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::super::settings::{Credential, TextSources};
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
    fn retry_after_parses_seconds_and_dates_within_bounds() {
        for (given, wait) in [
            (headers(&[("retry-after", "7")]), Some(Duration::from_secs(7))),
            (headers(&[("retry-after", "999999999")]), Some(MAX_RETRY_AFTER)),
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
    fn ca_file_is_refused_when_it_is_no_small_file() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let (fifo, large) = (directory.path().join("fifo"), directory.path().join("large"));
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        std::fs::File::create(&large).unwrap().set_len(MAX_CA_BYTES + 1).unwrap();
        for (file, found) in [
            (fifo, "not a regular file but a FIFO"),
            ("/dev/zero".into(), "not a regular file but a device"),
            (large, "larger than 1 MiB"),
        ] {
            let settings = ConnectionSettings {
                product: Product {
                    name: "Kuma",
                    block: "spec.kuma",
                    ports: (5681, 5682),
                    token: "a user token",
                    credential: Credential::Bearer,
                    client_certificate_help: "let it accept user tokens",
                    max_concurrent_calls: None,
                },
                address: "https://cp:5682".to_owned(),
                ca: TextSources { file: Some(file), ..TextSources::default() },
                token: TextSources::default(),
                timeout: Duration::from_secs(5),
            };
            let error = HttpTransport::new(settings, Arc::new(ecs_mesh_controller::NoSecrets));
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with("spec.kuma.caFile: reading ") && error.contains(found), "{error}");
        }
    }
}
