//! HTTP calls with few, short-lived connections, bounded waits and bounded response sizes. The token is read for each
//! call; proxies from the environment are ignored and redirects are not followed.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{ACCEPT, CONTENT_TYPE, DATE, HOST, HeaderMap, RETRY_AFTER};
use reqwest::{Body, Client, RequestBuilder};
use tokio::sync::Semaphore;

use super::client_source::{ClientSource, PreparedClient};
use super::endpoint::Endpoint;
use super::failure::CallTarget;
use super::permitted_body::PermittedBody;
use super::settings::{ConnectionSettings, Product, SettingsError};
use super::token::{Secret, TokenError, TokenReader};
use super::transport::{
    BodySink, HttpMethod, HttpResponse, ResponseHead, StreamTransport, Transport, TransportError,
    TransportErrorKind,
};
use ecs_mesh_controller::{AlwaysHeld, Lease, Secrets, WritePermit};
use ecs_mesh_model::Timestamp;

/// A page of 1,000 Dataplanes is about 1 MB.
const MAX_LIST_BYTES: usize = 64 * 1024 * 1024;
const MAX_RESPONSE_BYTES: usize = 4 * 1024 * 1024;
/// Longer `Retry-After` values are cut to this.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);
/// Consul's header for results that the token's permissions have filtered.
const FILTERED: &str = "x-consul-results-filtered-by-acls";

/// Sends HTTP/1.1 calls to one control plane.
pub struct HttpTransport {
    product: Product,
    endpoint: Arc<Endpoint>,
    token: TokenReader,
    timeout: Duration,
    clients: ClientSource,
    call_limit: Option<Semaphore>,
    /// Checked before each write, once it is set.
    lease: OnceLock<Arc<dyn Lease>>,
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("base", &self.endpoint.base).finish_non_exhaustive()
    }
}

impl HttpTransport {
    /// Reads the connection's settings and the CA, whose file blocks the caller. Does not connect, and reads the token and
    /// secrets at the first call. The process must have a default rustls provider.
    ///
    /// # Errors
    /// Names the invalid field and the allowed values.
    pub fn new(settings: ConnectionSettings, secrets: Arc<dyn Secrets>) -> Result<Self, SettingsError> {
        let ConnectionSettings { product, address, tls_server_name, ca, token, allowed, proxy, timeout } =
            settings;
        let block = product.block;
        let endpoint = Arc::new(Endpoint::new(&product, &address, tls_server_name)?);
        let proxy = proxy.map(|proxy| endpoint.proxy(&product, &proxy)).transpose()?;
        let token = token.one(block, "token", &allowed)?;
        let token = TokenReader::new(product, token, allowed.clone(), Arc::clone(&secrets));
        let ca = ca.one(block, "ca", &allowed)?;
        let clients = ClientSource::new(block, Arc::clone(&endpoint), timeout, proxy, ca, &allowed, secrets)?;
        let call_limit = product.max_concurrent_calls.map(Semaphore::new);
        Ok(Self { product, endpoint, token, timeout, clients, call_limit, lease: OnceLock::new() })
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
        body: Option<Body>,
        token: Option<&Secret>,
    ) -> RequestBuilder {
        let method = match method {
            HttpMethod::Get => reqwest::Method::GET,
            HttpMethod::Post => reqwest::Method::POST,
            HttpMethod::Put => reqwest::Method::PUT,
            HttpMethod::Delete => reqwest::Method::DELETE,
        };
        let url = self.endpoint.url(path_and_query);
        let mut request = client.request(method, url).header(ACCEPT, "application/json");
        if let Some(host) = self.endpoint.host_header() {
            request = request.header(HOST, host.clone());
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        if let Some(token) = token {
            request = request.header(token.name.clone(), token.value.clone());
        }
        request
    }

    /// Permits a write, if this process holds the lease for longer than the write may take.
    fn permit(&self, target: &CallTarget<'_>) -> Result<WritePermit, TransportError> {
        let lease = self.lease.get().map_or(&AlwaysHeld as &dyn Lease, AsRef::as_ref);
        WritePermit::request(lease, self.timeout).map_err(|obstacle| target.obstructed(obstacle))
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

/// The connection of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallConnection {
    /// An idle one, if there is one.
    Pooled,
    /// A new one, closed after the call.
    New,
}

impl HttpTransport {
    async fn call(
        &self,
        connection: CallConnection,
        (method, path_and_query): (HttpMethod, &str),
        body: Option<Vec<u8>>,
        sink: &mut dyn BodySink,
    ) -> Result<ResponseHead, TransportError> {
        let _permit = match &self.call_limit {
            // The semaphore is never closed, so `ok` drops no error.
            Some(limit) => limit.acquire().await.ok(),
            None => None,
        };
        let token = self.token().await?;
        let PreparedClient { pooled, unpooled, trust, .. } = self.clients.client().await?;
        let client = match connection {
            CallConnection::Pooled => pooled,
            CallConnection::New => unpooled,
        };
        let target = CallTarget {
            product: &self.product,
            base: &self.endpoint.base,
            timeout: self.timeout,
            trust: &trust,
        };
        // The lease may have been lost while the call waited for its turn.
        let permit = if method.writes() { Some(self.permit(&target)?) } else { None };
        let body = body.map(|body| match &permit {
            Some(permit) => Body::wrap(PermittedBody::new(body, permit.clone())),
            None => Body::from(body),
        });
        let request = self.request(&client, method, path_and_query, body, token.as_ref());
        let exchange = self.exchange(request, &target, token.as_ref(), sink);
        let response = match &permit {
            Some(permit) => permit.run(exchange).await.unwrap_or_else(|| Err(target.lease_ended())),
            None => exchange.await,
        };
        if let Err(error) = &response {
            self.clients.on_failure(error).await;
        }
        response
    }

    async fn call_buffered(
        &self,
        connection: CallConnection,
        (method, path_and_query): (HttpMethod, &str),
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        // Only lists have a query.
        let max_bytes = if path_and_query.contains('?') { MAX_LIST_BYTES } else { MAX_RESPONSE_BYTES };
        let mut buffer = BufferSink { body: Vec::new(), max_bytes };
        let head = self.call(connection, (method, path_and_query), body, &mut buffer).await?;
        Ok(HttpResponse { status: head.status, retry_after: head.retry_after, body: buffer.body })
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
        self.call(CallConnection::Pooled, (method, path_and_query), body, sink).await
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
        self.call_buffered(CallConnection::Pooled, (method, path_and_query), body).await
    }

    async fn send_on_new_connection(
        &self,
        method: HttpMethod,
        path_and_query: &str,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        self.call_buffered(CallConnection::New, (method, path_and_query), body).await
    }

    fn token_expiry(&self) -> Option<Timestamp> {
        self.token.expiry()
    }

    fn set_lease(&self, lease: Arc<dyn Lease>) {
        <Self as StreamTransport>::set_lease(self, lease);
    }
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
