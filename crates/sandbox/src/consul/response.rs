//! What a handler hands back: a body, what it was read at, or a refusal; and how each looks on the wire.

use serde_json::Value;

use super::message::{ConsulConfig, ConsulResponse, JSON, TEXT};

/// An answer.
#[derive(Clone, Debug)]
pub(super) enum HandlerResponse {
    /// The result of a write, or of a read that has no index.
    Plain(Value),
    /// The result of a read that can wait.
    Read(ReadResult),
    /// A JSON body with another status, such as a transaction that lost.
    Status(u16, Value),
    /// A value as it was stored.
    Raw { body: Vec<u8>, index: u64 },
}

/// The result of a read.
#[derive(Clone, Debug)]
pub(super) struct ReadResult {
    pub(super) body: Value,
    pub(super) index: u64,
    /// Something was left out because the token may not see it.
    pub(super) filtered: bool,
    /// The catalog says how consistent its answers are; ACL reads don't.
    pub(super) catalog: bool,
}

impl HandlerResponse {
    /// What an ACL endpoint reads.
    pub(super) fn read(body: Value, index: u64) -> Self {
        Self::Read(ReadResult { body, index, filtered: false, catalog: false })
    }

    /// What the catalog reads.
    pub(super) fn catalog(body: Value, index: u64, filtered: bool) -> Self {
        Self::Read(ReadResult { body, index, filtered, catalog: true })
    }

    pub(super) fn done() -> Self {
        Self::Plain(Value::Bool(true))
    }
}

pub(super) type HandlerResult = Result<HandlerResponse, ConsulErrorResponse>;

/// A refused request: a status and a line of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConsulErrorResponse {
    pub(super) status: u16,
    pub(super) text: String,
    /// The read was tried, so that the answer carries an index, of nothing.
    queried: bool,
    /// The methods that the path takes, where the request's is none of them.
    allowed: &'static [&'static str],
    /// Nothing was found at this index, so that waiting for it goes on there.
    missing_at: Option<u64>,
    /// Something was left out because the token may not see it.
    filtered: bool,
}

impl ConsulErrorResponse {
    fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), queried: false, allowed: &[], missing_at: None, filtered: false }
    }

    /// The request can't be read.
    pub(super) fn malformed(text: impl Into<String>) -> Self {
        Self::new(400, text)
    }

    /// A rule is broken; Consul answers these 500.
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

    pub(super) fn gone(what: &str) -> Self {
        Self::new(404, format!("there is no such {what}"))
    }

    pub(super) fn no_key(index: u64) -> Self {
        Self { missing_at: Some(index), ..Self::new(404, "") }
    }

    /// No key that the token may see.
    pub(super) fn no_key_shown(index: u64, filtered: bool) -> Self {
        Self { filtered, ..Self::no_key(index) }
    }

    pub(super) fn acls_disabled() -> Self {
        // Clients know it by this text.
        Self::new(401, "ACL support disabled")
    }

    pub(super) fn method(method: &str, allowed: &'static [&'static str]) -> Self {
        let text = format!("{method} is not allowed here; {} are", allowed.join(", "));
        Self { allowed, ..Self::new(405, text) }
    }

    pub(super) fn too_large(text: impl Into<String>) -> Self {
        Self::new(413, text)
    }

    /// A read that reached the server's state before it failed.
    pub(super) fn queried(mut self) -> Self {
        self.queried = matches!(self.status, 403 | 500);
        self
    }

    /// A DELETE does not tell an unknown token of its own from an unknown target: both are "not found".
    pub(super) fn of_a_deletion(self, what: &str) -> Self {
        if self == Self::unknown_token() { Self::gone(what) } else { self }
    }
}

const FILTERED: &str = "X-Consul-Results-Filtered-By-ACLs";

/// The response on the wire.
pub(super) fn response(config: &ConsulConfig, outcome: HandlerResult) -> ConsulResponse {
    let json = |status, body: &Value| ConsulResponse::new(status, JSON, body.to_string().into_bytes());
    let mut response = match outcome {
        Ok(HandlerResponse::Plain(body)) => json(200, &body),
        Ok(HandlerResponse::Status(status, body)) => json(status, &body),
        Ok(HandlerResponse::Raw { body, index }) => {
            query_headers(ConsulResponse::new(200, "application/octet-stream", body), index, true)
        }
        Ok(HandlerResponse::Read(read)) => {
            let mut response = query_headers(json(200, &read.body), read.index, true);
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
            if refusal.filtered {
                response.headers.push((FILTERED, "true".to_owned()));
            }
            response.headers.extend(refusal.allowed.iter().map(|method| ("Allow", (*method).to_owned())));
            response
        }
    };
    let default = if config.acls_enabled && config.deny_by_default { "deny" } else { "allow" };
    response.headers.push(("X-Consul-Default-Acl-Policy", default.to_owned()));
    response
}

fn query_headers(mut response: ConsulResponse, index: u64, known_leader: bool) -> ConsulResponse {
    response.headers.extend([
        // A client that asked with 0 would not wait the next time.
        ("X-Consul-Index", index.max(1).to_string()),
        ("X-Consul-Knownleader", known_leader.to_string()),
        ("X-Consul-Lastcontact", "0".to_owned()),
        ("X-Consul-Query-Backend", "blocking-query".to_owned()),
    ]);
    response
}
