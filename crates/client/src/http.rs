//! Calls of the read API.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Response, redirect};
use serde_json::Value;
use url::{Host, Url};

use crate::address::ApiAddress;
use crate::error::ApiError;
use ecs_mesh_controller::read_file;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The operator closes idle connections; one that is older than this is not used for another call.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_TOKEN_BYTES: u64 = 64 * 1024;
const MAX_CA_BYTES: u64 = 1024 * 1024;
/// A page of 1,000 tasks has about 2 MB.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
/// A reader that is too fast waits as often as this, for as long as the operator asks.
const MAX_RATE_WAITS: usize = 20;
const RATE_WAIT: Duration = Duration::from_millis(500);
const MAX_RATE_WAIT: Duration = Duration::from_secs(10);

/// The settings of a client.
#[derive(Clone, Debug)]
pub struct ApiClientSettings {
    /// Where the operator serves its API.
    pub address: ApiAddress,
    /// The file with the bearer token, which is read for each call.
    pub token_file: Option<PathBuf>,
    /// The file with the CA (PEM) that has signed the operator's certificate; without it, the system's roots count.
    pub ca_file: Option<PathBuf>,
    /// The limit of each call.
    pub timeout: Duration,
    /// Spreads the attempts of many clients to connect again.
    pub seed: u64,
}

/// Calls one operator. Redirects are not followed and no proxy is used, so that the token goes nowhere else.
#[derive(Clone, Debug)]
pub struct ApiClient {
    client: Client,
    base: Url,
    token_file: Option<PathBuf>,
    timeout: Duration,
    seed: u64,
}

impl ApiClient {
    /// Reads the CA, which blocks the caller; does not connect. The process must have a default rustls provider.
    ///
    /// # Errors
    /// If the address is `none`, or the CA cannot be read.
    pub fn new(settings: ApiClientSettings) -> Result<Self, ApiError> {
        let ApiClientSettings { address, token_file, ca_file, timeout, seed } = settings;
        let base = address.base(ca_file.is_some()).ok_or(ApiError::Disabled)?.map_err(ApiError::Settings)?;
        let is_secure = base.scheme() == "https";
        if ca_file.is_some() && !is_secure {
            return Err(ApiError::Settings(format!("--api-ca-file: {base} is no https address")));
        }
        let certificates = match ca_file {
            Some(file) => ca_of(&file).map_err(|cause| {
                ApiError::Settings(format!("--api-ca-file: reading {}: {cause}", file.display()))
            })?,
            None if is_secure => system_roots(),
            None => Vec::new(),
        };
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .tls_certs_only(certificates)
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()
            .map_err(|error| ApiError::Settings(format!("building the HTTP client: {error}")))?;
        Ok(Self { client, base, token_file, timeout, seed })
    }

    /// The address, for people.
    pub fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Whether the token is sent to another machine where others on the way can read it.
    pub fn exposes_token(&self) -> bool {
        let is_loopback = match self.base.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
            None => false,
        };
        self.token_file.is_some() && self.base.scheme() == "http" && !is_loopback
    }

    /// The limit of each call.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The seed of waits.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Gets an object below `/api/v1/`. Each segment of the path is encoded.
    pub async fn get(&self, path: &[&str], query: &[(String, String)]) -> Result<Value, ApiError> {
        let url = self.url(path, query);
        // A URL has no such segments: they would lead to another object.
        if path.iter().any(|segment| matches!(*segment, "" | "." | "..")) {
            return Err(ApiError::NotFound {
                url: url.to_string(),
                message: "no object has this name".to_owned(),
            });
        }
        let mut waits = 0;
        loop {
            let response = self.send(&url, "application/json", &[]).await?;
            if response.status() == 429 && waits < MAX_RATE_WAITS {
                waits += 1;
                tokio::time::sleep(rate_wait(&response)).await;
                continue;
            }
            let body = tokio::time::timeout(self.timeout, self.body(&url, response)).await;
            let body = body.unwrap_or_else(|_| Err(self.timed_out(&url)))?;
            return serde_json::from_slice(&body).map_err(|_| ApiError::Malformed {
                url: url.to_string(),
                cause: "the answer is not JSON".to_owned(),
            });
        }
    }

    /// Opens the stream of events, behind the last one that was seen.
    pub(crate) async fn open_stream(&self, last_event: Option<&str>) -> Result<Response, ApiError> {
        let url = self.url(&["stream"], &[]);
        let id = last_event.and_then(|id| HeaderValue::from_str(id).ok());
        let headers: Vec<_> = id.into_iter().map(|id| ("last-event-id", id)).collect();
        let response = self.send(&url, "text/event-stream", &headers).await?;
        if response.status() != 200 {
            return Err(match self.body(&url, response).await {
                Err(error) => error,
                Ok(_) => {
                    ApiError::Malformed { url: url.to_string(), cause: "the stream has no events".to_owned() }
                }
            });
        }
        Ok(response)
    }

    fn url(&self, path: &[&str], query: &[(String, String)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(["api", "v1"]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    async fn send(
        &self,
        url: &Url,
        accept: &'static str,
        headers: &[(&'static str, HeaderValue)],
    ) -> Result<Response, ApiError> {
        let mut request = self.client.get(url.clone()).header(ACCEPT, accept);
        for (name, value) in headers {
            request = request.header(*name, value.clone());
        }
        if let Some(token) = self.token().await? {
            request = request.header(AUTHORIZATION, token);
        }
        let sent = tokio::time::timeout(self.timeout, request.send()).await;
        let sent = sent.map_err(|_| self.timed_out(url))?;
        sent.map_err(|error| ApiError::of_transport(url.as_str(), self.timeout, error))
    }

    async fn body(&self, url: &Url, mut response: Response) -> Result<Vec<u8>, ApiError> {
        let status = response.status().as_u16();
        let mut body = Vec::new();
        let failed = |error| ApiError::of_transport(url.as_str(), self.timeout, error);
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&piece);
            if body.len() > MAX_BODY_BYTES {
                let cause = "the answer is too long".to_owned();
                return Err(ApiError::Malformed { url: url.to_string(), cause });
            }
        }
        if status == 200 {
            return Ok(body);
        }
        let file = self.token_file.as_ref().map(|file| file.display().to_string());
        Err(ApiError::of_answer(url.as_str(), status, &body, file.as_deref()))
    }

    fn timed_out(&self, url: &Url) -> ApiError {
        ApiError::TimedOut { url: url.to_string(), limit: self.timeout }
    }

    /// The header with the token. The file is read each time, since it may be replaced.
    async fn token(&self) -> Result<Option<HeaderValue>, ApiError> {
        let Some(file) = self.token_file.clone() else { return Ok(None) };
        let name = file.display().to_string();
        let read = tokio::task::spawn_blocking(move || read_file(&file, MAX_TOKEN_BYTES)).await;
        let bytes = read
            .map_err(|error| ApiError::Token(format!("reading {name}: {error}")))?
            .map_err(|error| ApiError::Token(format!("reading {name}: {error}")))?;
        let token = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
        // The error of the header would quote the token.
        let header = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| !token.is_empty());
        let mut header = header.ok_or_else(|| ApiError::Token(format!("{name} has no token of one line")))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

fn rate_wait(response: &Response) -> Duration {
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    seconds.map_or(RATE_WAIT, Duration::from_secs).min(MAX_RATE_WAIT)
}

fn ca_of(file: &std::path::Path) -> Result<Vec<Certificate>, String> {
    let pem = read_file(file, MAX_CA_BYTES).map_err(|error| error.to_string())?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| error.to_string())?;
    if found.is_empty() { Err("it has no certificate in PEM".to_owned()) } else { Ok(found) }
}

fn system_roots() -> Vec<Certificate> {
    let found = rustls_native_certs::load_native_certs().certs;
    found.iter().filter_map(|root| Certificate::from_der(root).ok()).collect()
}
