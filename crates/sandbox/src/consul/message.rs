//! Requests, responses and settings of the server, as plain values.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::duration;

/// Settings of a server.
#[derive(Clone)]
pub struct ConsulConfig {
    /// The datacenter; it is its own primary.
    pub datacenter: String,
    /// The server's own node, on which `agent:read` is asked for `/v1/agent/self`.
    pub node_name: String,
    /// `acl.enabled`. Without it every ACL endpoint answers 401, and everything else is open.
    pub acls_enabled: bool,
    /// `acl.default_policy` is `deny`, not `allow`.
    pub deny_by_default: bool,
    /// The secret of the token with every power, `acl.tokens.initial_management`. Without it somebody has to bootstrap.
    pub management_token: Option<String>,
    /// Decides every id and secret.
    pub seed: u64,
    /// `limits.http_max_conns_per_client`: connections above that are answered 429, whoever else is on the address.
    pub connections_per_client: usize,
    /// Refuses names of services that are no DNS label, as builds with a distribution's patches do.
    pub strict_service_names: bool,
}

impl Default for ConsulConfig {
    fn default() -> Self {
        Self {
            datacenter: "dc1".to_owned(),
            node_name: "server-1".to_owned(),
            acls_enabled: true,
            deny_by_default: true,
            management_token: None,
            seed: 1,
            connections_per_client: 200,
            strict_service_names: true,
        }
    }
}

impl fmt::Debug for ConsulConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulConfig")
            .field("datacenter", &self.datacenter)
            .field("acls_enabled", &self.acls_enabled)
            .field("deny_by_default", &self.deny_by_default)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// An HTTP request, as far as the server looks at it.
#[derive(Clone, Default)]
pub struct ConsulRequest {
    /// `GET`, `PUT`, …
    pub method: String,
    /// As in the request line: percent-encoded, with the query.
    pub path_and_query: String,
    /// The secret of `X-Consul-Token`, or of `Authorization: Bearer`.
    pub token: Option<String>,
    /// Whether a header names an Enterprise namespace or partition.
    pub enterprise_header: Option<&'static str>,
    /// The body as it came.
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
    /// A request with a JSON body; `null` sends none.
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

/// How long a read waits that does not say.
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

    /// The body as JSON; `null` where it is something else.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// The path, decoded once, and the query of a request.
#[derive(Clone, Debug)]
pub(super) struct ConsulRequestTarget {
    pub(super) path: String,
    query: BTreeMap<String, String>,
}

impl ConsulRequestTarget {
    /// Nothing where the path is not decodable.
    pub(super) fn parse(path_and_query: &str) -> Option<Self> {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?.into_owned();
        let mut parameters = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            parameters.entry(name.into_owned()).or_insert_with(|| value.into_owned());
        }
        Some(Self { path, query: parameters })
    }

    /// The first value of a parameter; empty where it is absent.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// Whether the parameter is there, with or without a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.query.contains_key(name)
    }

    /// The index and the time that a read waits with; nothing where it does not wait. An error says what is at fault.
    pub(super) fn wait(&self) -> Result<Option<(u64, Duration)>, String> {
        let given = |name| Some(self.parameter(name)).filter(|text| !text.is_empty());
        let index = given("index").map(|text| {
            text.parse::<u64>().map_err(|_| format!("index is {text:?}; a whole number is needed"))
        });
        let wait = given("wait").map(|text| {
            let wait = duration::parse(text).and_then(|wait| u64::try_from(wait).ok());
            wait.ok_or_else(|| format!("wait is {text:?}; a duration such as 30s is needed"))
        });
        let (index, wait) = (index.transpose()?, wait.transpose()?);
        let wait = wait.map_or(WAIT, Duration::from_nanos).min(LONGEST_WAIT);
        Ok(index.filter(|index| *index > 0).map(|index| (index, wait)))
    }
}
