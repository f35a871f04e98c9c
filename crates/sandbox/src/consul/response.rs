//! Results of handlers and their HTTP responses.

use serde_json::Value;

use super::message::{ConsulConfig, ConsulResponse, JSON, TEXT};

/// Successful result of a handler.
#[derive(Clone, Debug)]
pub(super) enum HandlerResponse {
    /// The result of a write, or of a read that has no index.
    Plain(Value),
    /// The result of a read with an index.
    Read(ReadResult),
    /// A JSON body with another status, such as a failed transaction.
    Status(u16, Value),
}

/// The result of a read.
#[derive(Clone, Debug)]
pub(super) struct ReadResult {
    /// The JSON body.
    body: String,
    pub(super) index: u64,
    /// Whether results were filtered by permissions.
    pub(super) filtered: bool,
    /// Whether the response has the consistency headers of the catalog.
    pub(super) catalog: bool,
}

impl HandlerResponse {
    /// The result of an ACL read.
    pub(super) fn read(body: &Value, index: u64) -> Self {
        Self::Read(ReadResult { body: body.to_string(), index, filtered: false, catalog: false })
    }

    /// The result of a catalog read.
    pub(super) fn catalog(body: &Value, index: u64, filtered: bool) -> Self {
        Self::catalog_json(body.to_string(), index, filtered)
    }

    /// The result of a catalog read, as JSON.
    pub(super) fn catalog_json(body: String, index: u64, filtered: bool) -> Self {
        Self::Read(ReadResult { body, index, filtered, catalog: true })
    }

    pub(super) fn done() -> Self {
        Self::Plain(Value::Bool(true))
    }
}

pub(super) type HandlerResult = Result<HandlerResponse, ConsulErrorResponse>;

/// An error response: a status and a line of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConsulErrorResponse {
    pub(super) status: u16,
    pub(super) text: String,
    /// Whether the read reached the state, so that the response has an index.
    queried: bool,
    /// Allowed methods, for a request with another method.
    allowed: &'static [&'static str],
    /// Index at which nothing was found, for a later blocking query.
    missing_at: Option<u64>,
}

impl ConsulErrorResponse {
    fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), queried: false, allowed: &[], missing_at: None }
    }

    /// A malformed request (400).
    pub(super) fn malformed(text: impl Into<String>) -> Self {
        Self::new(400, text)
    }

    /// An invalid request, for which Consul returns 500.
    pub(super) fn invalid(text: impl Into<String>) -> Self {
        Self::new(500, text)
    }

    pub(super) fn unknown_token() -> Self {
        Self::new(403, "ACL not found: the token of this request is not known here")
    }

    pub(super) fn no_token() -> Self {
        Self::new(401, "this request has no token")
    }

    pub(super) fn denied(text: impl Into<String>) -> Self {
        Self::new(403, text)
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self::new(404, format!("there is no such {what}"))
    }

    pub(super) fn no_key(index: u64) -> Self {
        Self { missing_at: Some(index), ..Self::new(404, "") }
    }

    pub(super) fn acls_disabled() -> Self {
        // Clients match this text.
        Self::new(401, "ACL support disabled")
    }

    pub(super) fn method(method: &str, allowed: &'static [&'static str]) -> Self {
        let text = format!("{method} is not allowed here; {} are", allowed.join(", "));
        Self { allowed, ..Self::new(405, text) }
    }

    pub(super) fn too_large(text: impl Into<String>) -> Self {
        Self::new(413, text)
    }

    /// Marks a read that reached the state before it failed.
    pub(super) fn queried(mut self) -> Self {
        self.queried = matches!(self.status, 403 | 500);
        self
    }

    /// The response of a DELETE, where an unknown own token and an unknown target are both "not found".
    pub(super) fn of_a_deletion(self, what: &str) -> Self {
        if self == Self::unknown_token() { Self::not_found(what) } else { self }
    }
}

const FILTERED: &str = "X-Consul-Results-Filtered-By-ACLs";

/// The HTTP response.
pub(super) fn response(config: &ConsulConfig, outcome: HandlerResult) -> ConsulResponse {
    let json = |status, body: String| ConsulResponse::new(status, JSON, body.into_bytes());
    let mut response = match outcome {
        Ok(HandlerResponse::Plain(body)) => json(200, body.to_string()),
        Ok(HandlerResponse::Status(status, body)) => json(status, body.to_string()),
        Ok(HandlerResponse::Read(read)) => {
            let mut response = query_headers(json(200, read.body), read.index, true);
            if read.catalog {
                response.headers.push(("X-Consul-Effective-Consistency", "leader".to_owned()));
            }
            if read.filtered {
                response.headers.push((FILTERED, "true".to_owned()));
            }
            response
        }
        Err(refusal) => {
            let response = ConsulResponse::new(refusal.status, TEXT, refusal.text.into_bytes());
            let mut response = match (refusal.missing_at, refusal.queried) {
                (Some(index), _) => query_headers(response, index, true),
                (None, true) => query_headers(response, 0, false),
                (None, false) => response,
            };
            response.headers.extend(refusal.allowed.iter().map(|method| ("Allow", (*method).to_owned())));
            response
        }
    };
    let default = if config.acls_enabled { "deny" } else { "allow" };
    response.headers.push(("X-Consul-Default-Acl-Policy", default.to_owned()));
    response
}

fn query_headers(mut response: ConsulResponse, index: u64, known_leader: bool) -> ConsulResponse {
    response.headers.extend([
        // With index 0, the client's next query would not block.
        ("X-Consul-Index", index.max(1).to_string()),
        ("X-Consul-Knownleader", known_leader.to_string()),
        ("X-Consul-Lastcontact", "0".to_owned()),
        ("X-Consul-Query-Backend", "blocking-query".to_owned()),
    ]);
    response
}
