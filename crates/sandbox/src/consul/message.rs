//! Requests, responses and settings of the server.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use ecs_mesh_model::GoDuration;

/// Settings of a server.
#[derive(Clone)]
pub struct ConsulConfig {
    /// The datacenter, which is also the primary.
    pub datacenter: String,
    /// `acl.enabled`, with the default policy `deny`. Without it, ACL endpoints return 401, and everything else is
    /// allowed.
    pub acls_enabled: bool,
    /// The secret of the management token, `acl.tokens.initial_management`.
    pub management_token: Option<String>,
    /// Seed of ids and secrets.
    pub seed: u64,
    /// `limits.http_max_conns_per_client`: further connections from an address get 429.
    pub connections_per_client: usize,
}

impl Default for ConsulConfig {
    fn default() -> Self {
        Self {
            datacenter: "dc1".to_owned(),
            acls_enabled: true,
            management_token: None,
            seed: 1,
            connections_per_client: 200,
        }
    }
}

impl fmt::Debug for ConsulConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulConfig")
            .field("datacenter", &self.datacenter)
            .field("acls_enabled", &self.acls_enabled)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// The parts of an HTTP request that the server reads.
#[derive(Clone, Default)]
pub struct ConsulRequest {
    /// `GET`, `PUT`, …
    pub method: String,
    /// Percent-encoded path with the query, as in the request line.
    pub path_and_query: String,
    /// The secret from `X-Consul-Token` or `Authorization: Bearer`.
    pub token: Option<String>,
    /// The header that names an Enterprise namespace or partition, if any.
    pub enterprise_header: Option<&'static str>,
    /// The raw body.
    pub body: Vec<u8>,
}

impl fmt::Debug for ConsulRequest {
    /// Bodies and queries may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        write!(f, "{} {path}", self.method)
    }
}

impl ConsulRequest {
    /// A request with a JSON body; `null` means no body.
    pub fn new(method: &str, path_and_query: &str, token: Option<&str>, body: &Value) -> Self {
        Self {
            method: method.to_owned(),
            path_and_query: path_and_query.to_owned(),
            token: token.map(str::to_owned),
            enterprise_header: None,
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
        }
    }
}

/// An HTTP response.
#[derive(Clone, PartialEq, Eq)]
pub struct ConsulResponse {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl fmt::Debug for ConsulResponse {
    /// Bodies may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} bytes", self.status, self.body.len())
    }
}

/// Default wait time of blocking queries.
const WAIT: Duration = Duration::from_mins(5);
const LONGEST_WAIT: Duration = Duration::from_mins(10);

pub(super) const JSON: &str = "application/json";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

impl ConsulResponse {
    pub(super) fn new(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self { status, headers: vec![("Content-Type", content_type.to_owned())], body }
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `null` if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Decoded path and query of a request.
#[derive(Clone, Debug)]
pub(super) struct ConsulRequestTarget {
    pub(super) path: String,
    query: BTreeMap<String, String>,
}

impl ConsulRequestTarget {
    /// `None` if the path cannot be decoded.
    pub(super) fn parse(path_and_query: &str) -> Option<Self> {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?.into_owned();
        let mut parameters = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            parameters.entry(name.into_owned()).or_insert_with(|| value.into_owned());
        }
        Some(Self { path, query: parameters })
    }

    /// The first value of a parameter; empty if absent.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// Whether the parameter exists, with or without a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.query.contains_key(name)
    }

    /// Index and wait time of a blocking query; `None` for other requests.
    pub(super) fn wait(&self) -> Result<Option<(u64, Duration)>, String> {
        let given = |name| Some(self.parameter(name)).filter(|text| !text.is_empty());
        let index = given("index").map(|text| {
            text.parse::<u64>().map_err(|_| format!("index is {text:?}; a whole number is needed"))
        });
        let wait = given("wait").map(|text| {
            let wait = GoDuration::parse(text).and_then(|wait| u64::try_from(wait.0).ok());
            wait.ok_or_else(|| format!("wait is {text:?}; a duration such as 30s is needed"))
        });
        let (index, wait) = (index.transpose()?, wait.transpose()?);
        let wait = wait.map_or(WAIT, Duration::from_nanos).min(LONGEST_WAIT);
        Ok(index.filter(|index| *index > 0).map(|index| (index, wait)))
    }
}
