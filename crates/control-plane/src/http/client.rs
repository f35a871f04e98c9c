//! Calls over HTTP: few connections and not for ever, every wait bounded, every answer bounded in size, the token
//! read anew for each call, no proxy from the environment, no redirect followed.
//!
//! With a CA given, that CA alone is trusted; without one, the system's roots are.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{ACCEPT, CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Certificate, Client, RequestBuilder};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use super::failure::{CallTarget, causes};
use super::settings::{Product, ConnectionSettings, TextSource, certificates};
use super::token::{Secret, TokenReader};
use super::transport::{
    HttpResponse, ResponseHead, HttpMethod, BodySink, StreamTransport, Transport, TransportError, TransportErrorKind,
};
use ecs_mesh_controller::Lease;
use ecs_mesh_controller::secrets::{NoSecrets, Secrets};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle connections kept; more may be open while calls are under way.
const IDLE_CONNECTIONS: usize = 4;
/// Control planes move behind their names: a connection that rests this long is made anew, and the name looked up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A page of 1,000 Dataplanes is about 1 MB.
const MAX_LIST_BYTES: usize = 64 * 1024 * 1024;
const MAX_RESPONSE_BYTES: usize = 4 * 1024 * 1024;
/// A server cannot ask for more patience than this.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);
/// A CA from a secret that no longer fits is read again, not more often than this.
const CA_REFRESH_INTERVAL: Duration = Duration::from_mins(1);
/// Consul's sign that the token may not see all there is.
const FILTERED: &str = "x-consul-results-filtered-by-acls";

/// HTTP/1.1 to one control plane.
pub struct HttpTransport {
    product: Product,
    /// Without a slash at the end.
    base: String,
    token: TokenReader,
    timeout: Duration,
    client: ClientState,
    calls: Option<Semaphore>,
    /// Without it nothing is written, once it is known.
    lease: OnceLock<Arc<dyn Lease>>,
}

/// A client, with the certificates that it trusts in words.
#[derive(Clone)]
struct PreparedClient {
    client: Client,
    trust: Arc<str>,
    since: Instant,
}

enum ClientState {
    Done(PreparedClient),
    /// At the first call: the CA is a secret, which has to be fetched.
    Later {
        arn: String,
        secrets: Arc<dyn Secrets>,
        made: Mutex<Option<PreparedClient>>,
    },
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("base", &self.base).finish_non_exhaustive()
    }
}

impl HttpTransport {
    /// Reads the connection's settings and the CA; connects to nothing, and does not need the token yet.
    /// The process must have a default rustls provider. The error names the field and what is allowed.
    pub fn new(settings: ConnectionSettings) -> Result<Self, String> {
        Self::with_secrets(settings, Arc::new(NoSecrets))
    }

    /// As [`Self::new`], for settings that may name secrets. None is read yet.
    pub fn with_secrets(settings: ConnectionSettings, secrets: Arc<dyn Secrets>) -> Result<Self, String> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(
                "no TLS provider is installed in this process: install rustls' ring provider first".into()
            );
        }
        let ConnectionSettings { product, address, ca, token, timeout } = settings;
        let base = product.base_url(&address)?;
        let token = TokenReader::new(product, token.one(product.block, "token")?, Arc::clone(&secrets));
        let secure = base.starts_with("https://");
        let block = product.block;
        let made = |certificates, trust: String| {
            let client = client(timeout, certificates).map_err(|why| {
                format!("the client for {base} cannot be made: {why}; is a caFile missing?")
            })?;
            Ok::<_, String>(ClientState::Done(PreparedClient { client, trust: trust.into(), since: Instant::now() }))
        };
        let client = match ca.one(block, "ca")? {
            TextSource::File(file) => {
                let source = format!("the CA in {}", file.display());
                let pem = std::fs::read(&file)
                    .map_err(|error| format!("{block}.caFile {} cannot be read: {error}", file.display()))?;
                made(Some(certificates(&pem, &source)?), source)?
            }
            TextSource::Env(name) => {
                let pem = std::env::var(&name)
                    .map_err(|error| format!("{block}.caEnv {name} cannot be read: {error}"))?;
                let source = format!("the CA in the environment variable {name}");
                made(Some(certificates(pem.as_bytes(), &source)?), source)?
            }
            TextSource::Secret(arn) => ClientState::Later { arn, secrets, made: Mutex::default() },
            // Without TLS no roots are needed, and an image without any must not keep the client from being made.
            TextSource::None if !secure => made(Some(Vec::new()), String::new())?,
            TextSource::None => made(None, "the system's roots (no caFile is given)".to_owned())?,
        };
        let calls = product.most_calls.map(Semaphore::new);
        Ok(Self { product, base, token, timeout, client, calls, lease: OnceLock::new() })
    }

    async fn client(&self) -> Result<PreparedClient, TransportError> {
        let (arn, secrets, made) = match &self.client {
            ClientState::Done(made) => return Ok(made.clone()),
            ClientState::Later { arn, secrets, made } => (arn, secrets, made),
        };
        let mut made = made.lock().await;
        if let Some(made) = made.as_ref() {
            return Ok(made.clone());
        }
        let trust = format!("the CA in the secret {arn}");
        let read = async {
            let pem = secrets.read(arn).await?;
            client(self.timeout, Some(certificates(pem.as_bytes(), &trust)?))
        };
        let client = read.await.map_err(|why| TransportError {
            kind: TransportErrorKind::Tls,
            message: format!(
                "{} is not called: {why} (ControlPlane.{}.caSecret)",
                self.base, self.product.block
            ),
        })?;
        let new = PreparedClient { client, trust: trust.into(), since: Instant::now() };
        *made = Some(new.clone());
        Ok(new)
    }

    /// A CA that no longer fits may have been replaced in its secret.
    async fn on_failure(&self, error: &TransportError) {
        if let ClientState::Later { made, .. } = &self.client
            && error.kind == TransportErrorKind::Tls
        {
            made.lock().await.take_if(|made| made.since.elapsed() >= CA_REFRESH_INTERVAL);
        }
    }

    async fn token(&self) -> Result<Option<Secret>, TransportError> {
        // A file on a remote file system can hang as a server can.
        let token = tokio::time::timeout(self.timeout, self.token.read()).await;
        let token = token.unwrap_or_else(|_| Err("reading the token took too long".to_owned()));
        token.map_err(|message| TransportError { kind: TransportErrorKind::Token, message })
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
        place: &CallTarget<'_>,
        token: Option<&Secret>,
        sink: &mut dyn BodySink,
    ) -> Result<ResponseHead, TransportError> {
        let patience = sink.timeout_factor();
        let request = if patience > 1 { request.timeout(self.timeout * patience) } else { request };
        let in_time = |_| place.timed_out();
        let response = tokio::time::timeout(self.timeout, request.send()).await.map_err(in_time)?;
        let mut response = response.map_err(|error| place.failure(error))?;
        let head = ResponseHead {
            status: response.status().as_u16(),
            retry_after: retry_after(response.headers()),
            filtered: response.headers().get(FILTERED).is_some_and(|value| value != "false"),
        };
        let mut failure = (head.status >= 300).then(BufferSink::default);
        loop {
            let segment = tokio::time::timeout(self.timeout, response.chunk()).await.map_err(in_time)?;
            let Some(segment) = segment.map_err(|error| place.failure(error))? else { break };
            let wanted = match &mut failure {
                Some(whole) => whole.take(&head, &segment),
                None => sink.take(&head, &segment),
            };
            if !wanted {
                return Err(place.too_large());
            }
        }
        if let Some(BufferSink { mut body, .. }) = failure {
            self.token.on_failure(head.status, &body);
            if let Some(token) = token {
                token.erase_from(&mut body);
            }
            if !sink.take(&head, &body) {
                return Err(place.too_large());
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
        let _turn = match &self.calls {
            // It is never closed.
            Some(calls) => calls.acquire().await.ok(),
            None => None,
        };
        let token = self.token().await?;
        let PreparedClient { client, trust, .. } = self.client().await?;
        // A turn may have taken long to come.
        if method.writes() && self.lease.get().is_some_and(|lease| !lease.holds()) {
            return Err(without_lease());
        }
        let place = CallTarget { product: &self.product, base: &self.base, timeout: self.timeout, trust: &trust };
        let request = self.request(&client, method, path_and_query, body, token.as_ref());
        let answer = self.exchange(request, &place, token.as_ref(), sink).await;
        if let Err(error) = &answer {
            self.on_failure(error).await;
        }
        answer
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
        let most = if path_and_query.contains('?') { MAX_LIST_BYTES } else { MAX_RESPONSE_BYTES };
        let mut whole = BufferSink { body: Vec::new(), most };
        let head = self.stream(method, path_and_query, body, &mut whole).await?;
        Ok(HttpResponse { status: head.status, retry_after: head.retry_after, body: whole.body })
    }

    fn set_lease(&self, lease: Arc<dyn Lease>) {
        <Self as StreamTransport>::set_lease(self, lease);
    }
}

fn without_lease() -> TransportError {
    let message = "it was not sent: another copy of this operator holds the lease".to_owned();
    TransportError { kind: TransportErrorKind::NotLeader, message }
}

/// A whole body.
struct BufferSink {
    body: Vec<u8>,
    most: usize,
}

impl Default for BufferSink {
    fn default() -> Self {
        Self { body: Vec::new(), most: MAX_RESPONSE_BYTES }
    }
}

impl BodySink for BufferSink {
    fn take(&mut self, _head: &ResponseHead, segment: &[u8]) -> bool {
        let fits = self.body.len() + segment.len() <= self.most;
        if fits {
            self.body.extend_from_slice(segment);
        }
        fits
    }
}

/// Trusts these certificates alone, or the system's roots. The error says why it cannot be made.
fn client(timeout: Duration, certificates: Option<Vec<Certificate>>) -> Result<Client, String> {
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
    builder.build().map_err(|error| causes(&error))
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
    Some(wait.min(MAX_RETRY_AFTER))
}

fn http_date(text: &str) -> Option<time::OffsetDateTime> {
    time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc2822).ok()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

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
}
