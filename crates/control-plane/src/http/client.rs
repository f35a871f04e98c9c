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

use super::failure::{Place, causes};
use super::settings::{Product, Settings, Source, certificates};
use super::token::{Secret, Token};
use super::transport::{
    Answer, Head, Method, Sink, StreamTransport, Transport, TransportError, TransportErrorKind,
};
use ecs_mesh_controller::Lease;
use ecs_mesh_controller::secrets::{NoSecrets, Secrets};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle connections kept; more may be open while calls are under way.
const IDLE_CONNECTIONS: usize = 4;
/// Control planes move behind their names: a connection that rests this long is made anew, and the name looked up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A page of 1,000 Dataplanes is about 1 MB.
const LARGEST_LIST: usize = 64 * 1024 * 1024;
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;
/// A server cannot ask for more patience than this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);
/// A CA from a secret that no longer fits is read again, not more often than this.
const CA_READ_AGAIN_AFTER: Duration = Duration::from_mins(1);
/// Consul's sign that the token may not see all there is.
const FILTERED: &str = "x-consul-results-filtered-by-acls";

/// HTTP/1.1 to one control plane.
pub struct HttpTransport {
    product: Product,
    /// Without a slash at the end.
    base: String,
    token: Token,
    timeout: Duration,
    client: Making,
    calls: Option<Semaphore>,
    /// Without it nothing is written, once it is known.
    lease: OnceLock<Arc<dyn Lease>>,
}

/// A client, with the certificates that it trusts in words.
#[derive(Clone)]
struct Made {
    client: Client,
    trust: Arc<str>,
    since: Instant,
}

enum Making {
    Done(Made),
    /// At the first call: the CA is a secret, which has to be fetched.
    Later {
        arn: String,
        secrets: Arc<dyn Secrets>,
        made: Mutex<Option<Made>>,
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
    pub fn new(settings: Settings) -> Result<Self, String> {
        Self::with_secrets(settings, Arc::new(NoSecrets))
    }

    /// As [`Self::new`], for settings that may name secrets. None is read yet.
    pub fn with_secrets(settings: Settings, secrets: Arc<dyn Secrets>) -> Result<Self, String> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(
                "no TLS provider is installed in this process: install rustls' ring provider first".into()
            );
        }
        let Settings { product, address, ca, token, timeout } = settings;
        let base = product.base_url(&address)?;
        let token = Token::new(product, token.one(product.block, "token")?, Arc::clone(&secrets));
        let secure = base.starts_with("https://");
        let block = product.block;
        let made = |certificates, trust: String| {
            let client = client(timeout, certificates).map_err(|why| {
                format!("the client for {base} cannot be made: {why}; is a caFile missing?")
            })?;
            Ok::<_, String>(Making::Done(Made { client, trust: trust.into(), since: Instant::now() }))
        };
        let client = match ca.one(block, "ca")? {
            Source::File(file) => {
                let source = format!("the CA in {}", file.display());
                let pem = std::fs::read(&file)
                    .map_err(|error| format!("{block}.caFile {} cannot be read: {error}", file.display()))?;
                made(Some(certificates(&pem, &source)?), source)?
            }
            Source::Env(name) => {
                let pem = std::env::var(&name)
                    .map_err(|error| format!("{block}.caEnv {name} cannot be read: {error}"))?;
                let source = format!("the CA in the environment variable {name}");
                made(Some(certificates(pem.as_bytes(), &source)?), source)?
            }
            Source::Secret(arn) => Making::Later { arn, secrets, made: Mutex::default() },
            // Without TLS no roots are needed, and an image without any must not keep the client from being made.
            Source::None if !secure => made(Some(Vec::new()), String::new())?,
            Source::None => made(None, "the system's roots (no caFile is given)".to_owned())?,
        };
        let calls = product.most_calls.map(Semaphore::new);
        Ok(Self { product, base, token, timeout, client, calls, lease: OnceLock::new() })
    }

    async fn client(&self) -> Result<Made, TransportError> {
        let (arn, secrets, made) = match &self.client {
            Making::Done(made) => return Ok(made.clone()),
            Making::Later { arn, secrets, made } => (arn, secrets, made),
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
        let new = Made { client, trust: trust.into(), since: Instant::now() };
        *made = Some(new.clone());
        Ok(new)
    }

    /// A CA that no longer fits may have been replaced in its secret.
    async fn hear(&self, error: &TransportError) {
        if let Making::Later { made, .. } = &self.client
            && error.kind == TransportErrorKind::Tls
        {
            made.lock().await.take_if(|made| made.since.elapsed() >= CA_READ_AGAIN_AFTER);
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
        method: Method,
        path_and_query: &str,
        body: Option<Vec<u8>>,
        token: Option<&Secret>,
    ) -> RequestBuilder {
        let url = format!("{}{path_and_query}", self.base);
        let method = match method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Delete => reqwest::Method::DELETE,
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
        place: &Place<'_>,
        token: Option<&Secret>,
        sink: &mut dyn Sink,
    ) -> Result<Head, TransportError> {
        let patience = sink.patience();
        let request = if patience > 1 { request.timeout(self.timeout * patience) } else { request };
        let in_time = |_| place.late();
        let response = tokio::time::timeout(self.timeout, request.send()).await.map_err(in_time)?;
        let mut response = response.map_err(|error| place.failure(error))?;
        let head = Head {
            status: response.status().as_u16(),
            retry_after: retry_after(response.headers()),
            filtered: response.headers().get(FILTERED).is_some_and(|value| value != "false"),
        };
        let mut failure = (head.status >= 300).then(Whole::default);
        loop {
            let part = tokio::time::timeout(self.timeout, response.chunk()).await.map_err(in_time)?;
            let Some(part) = part.map_err(|error| place.failure(error))? else { break };
            let wanted = match &mut failure {
                Some(whole) => whole.take(&head, &part),
                None => sink.take(&head, &part),
            };
            if !wanted {
                return Err(place.too_large());
            }
        }
        if let Some(Whole { mut body, .. }) = failure {
            self.token.hear(head.status, &body);
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
        method: Method,
        path_and_query: &str,
        body: Option<Vec<u8>>,
        sink: &mut dyn Sink,
    ) -> Result<Head, TransportError> {
        let _turn = match &self.calls {
            // It is never closed.
            Some(calls) => calls.acquire().await.ok(),
            None => None,
        };
        let token = self.token().await?;
        let Made { client, trust, .. } = self.client().await?;
        // A turn may have taken long to come.
        if method.writes() && self.lease.get().is_some_and(|lease| !lease.holds()) {
            return Err(without_lease());
        }
        let place = Place { product: &self.product, base: &self.base, timeout: self.timeout, trust: &trust };
        let request = self.request(&client, method, path_and_query, body, token.as_ref());
        let answer = self.exchange(request, &place, token.as_ref(), sink).await;
        if let Err(error) = &answer {
            self.hear(error).await;
        }
        answer
    }

    fn write_under(&self, lease: Arc<dyn Lease>) {
        let _ = self.lease.set(lease);
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
        // Only lists have a query.
        let most = if path_and_query.contains('?') { LARGEST_LIST } else { LARGEST_ANSWER };
        let mut whole = Whole { body: Vec::new(), most };
        let head = self.stream(method, path_and_query, body, &mut whole).await?;
        Ok(Answer { status: head.status, retry_after: head.retry_after, body: whole.body })
    }

    fn write_under(&self, lease: Arc<dyn Lease>) {
        StreamTransport::write_under(self, lease);
    }
}

fn without_lease() -> TransportError {
    let message = "it was not sent: another copy of this operator holds the lease".to_owned();
    TransportError { kind: TransportErrorKind::NoLease, message }
}

/// A whole body.
struct Whole {
    body: Vec<u8>,
    most: usize,
}

impl Default for Whole {
    fn default() -> Self {
        Self { body: Vec::new(), most: LARGEST_ANSWER }
    }
}

impl Sink for Whole {
    fn take(&mut self, _head: &Head, part: &[u8]) -> bool {
        let fits = self.body.len() + part.len() <= self.most;
        if fits {
            self.body.extend_from_slice(part);
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
    Some(wait.min(LONGEST_RETRY_AFTER))
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
}
