//! From an answer to what it says, or to what may be done about it, in words for a person.
//!
//! Consul answers 500 for nearly all that it refuses, and tells in plain text what for; so a write's 500 is a refusal
//! of the body unless the text says that the servers are at fault.

use std::fmt;

use serde::de::DeserializeOwned;

use super::api::ApiReply;
use ecs_mesh_control_plane::http::{HttpMethod, TransportError, appearance, quotable};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
use ecs_mesh_controller::BatchError;

/// Longest part of a server's own words that is passed on.
const MAX_QUOTE_LEN: usize = 500;

/// In a 401's text: there are no ACLs on these servers.
const ACLS_OFF: &str = "ACL support disabled";
/// What is said of that.
const ACLS_ARE_OFF: &str = "ACLs are off on these servers";
/// In a 403's or 404's text: a token, ours or the one asked for, is not there.
const NO_SUCH_ACL: &str = "ACL not found";
/// In a 404's text: there is no such call.
const NO_SUCH_CALL: &str = "Invalid URL path";

/// In a 5xx's text: the servers could not do it now.
const SERVER_UNAVAILABLE_TEXT: [(&str, MeshErrorKind); 20] = [
    ("rate limit", MeshErrorKind::Throttled),
    ("No cluster leader", MeshErrorKind::Unreachable),
    ("leadership lost", MeshErrorKind::Unreachable),
    ("not the leader", MeshErrorKind::Unreachable),
    ("No path to datacenter", MeshErrorKind::Unreachable),
    ("rpc error getting client", MeshErrorKind::Unreachable),
    ("No known Consul servers", MeshErrorKind::Unreachable),
    ("timeout", MeshErrorKind::Unreachable),
    ("timed out", MeshErrorKind::Unreachable),
    ("deadline exceeded", MeshErrorKind::Unreachable),
    ("deadline reached", MeshErrorKind::Unreachable),
    ("connection re", MeshErrorKind::Unreachable),
    ("closed network connection", MeshErrorKind::Unreachable),
    ("broken pipe", MeshErrorKind::Unreachable),
    ("EOF", MeshErrorKind::Unreachable),
    // What Raft and the connections between servers say while the leader changes or a server goes.
    ("leadership transfer", MeshErrorKind::Unreachable),
    ("Raft leader not found", MeshErrorKind::Unreachable),
    ("raft is already shutdown", MeshErrorKind::Unreachable),
    ("session shutdown", MeshErrorKind::Unreachable),
    ("stream closed", MeshErrorKind::Unreachable),
];

/// In a 500's text to a removal: it will never be done. All else that a removal is answered may be over later, since
/// there is no body that could be wrong.
const PERMANENT_REMOVAL_ERRORS: &str = "not permitted";

/// One call, and what a token needs for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConsulCall<'a> {
    pub(super) method: HttpMethod,
    pub(super) path: &'a str,
    /// The rules, as they are written in a policy.
    pub(super) needs: &'static str,
}

impl fmt::Display for ConsulCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl ConsulCall<'_> {
    pub(super) fn is_write(&self) -> bool {
        self.method.writes()
    }

    /// What a good answer says.
    pub(super) fn read<R: DeserializeOwned>(&self, reply: &ApiReply) -> Result<R, MeshError> {
        if !reply.is_ok() {
            return Err(self.refused(reply));
        }
        if reply.head.filtered {
            return Err(self.filtered());
        }
        serde_json::from_slice(&reply.body).map_err(|error| self.unreadable(&reply.body, &error.to_string()))
    }

    /// Another copy of the operator writes.
    pub(super) fn without_lease(&self) -> MeshError {
        error(
            MeshErrorKind::NotLeader,
            format!(
                "{} {} was not sent: another copy of this operator holds the lease",
                self.method.as_str(),
                self.path
            ),
        )
    }

    /// The error that an answer other than 2xx is.
    pub(super) fn refused(&self, reply: &ApiReply) -> MeshError {
        let text = reply.text();
        let kind = self.kind(reply.head.status, &text);
        let said = if is_plain_text(&text) {
            format!(" ({})", quotable(&text, MAX_QUOTE_LEN))
        } else {
            format!(" with {}", appearance(&reply.body))
        };
        let hint =
            self.hint(kind, reply.head.status, &text).map(|hint| format!("; {hint}")).unwrap_or_default();
        MeshError {
            kind,
            message: format!("{self}: Consul answered {}{said}{hint}", reply.head.status),
            retry_after: reply.head.retry_after,
        }
    }

    fn kind(&self, status: u16, text: &str) -> MeshErrorKind {
        match status {
            // Whatever the status: servers pass it on from each other as a failure of their own.
            400.. if misses_namespace(text) => MeshErrorKind::MeshNotFound,
            400 if is_plain_text(text) => MeshErrorKind::Invalid,
            401 | 403 => MeshErrorKind::Forbidden,
            408 | 421 | 425 => MeshErrorKind::Unreachable,
            409 => MeshErrorKind::Conflict,
            413 => MeshErrorKind::Invalid,
            429 => MeshErrorKind::Throttled,
            500.. => {
                let known = SERVER_UNAVAILABLE_TEXT.iter().find(|(words, _)| text.contains(words));
                let in_words = status == 500 && is_plain_text(text);
                let unknown = match self.method {
                    HttpMethod::Put if in_words => MeshErrorKind::Invalid,
                    HttpMethod::Delete if in_words && text.contains(PERMANENT_REMOVAL_ERRORS) => MeshErrorKind::Invalid,
                    HttpMethod::Delete if in_words => MeshErrorKind::ServerError,
                    _ => MeshErrorKind::Unreachable,
                };
                known.map_or(unknown, |(_, kind)| *kind)
            }
            _ => MeshErrorKind::UnexpectedResponse,
        }
    }

    fn hint(&self, kind: MeshErrorKind, status: u16, text: &str) -> Option<String> {
        match (kind, status) {
            (MeshErrorKind::Forbidden, 401) if text.contains(ACLS_OFF) => Some(format!(
                "{ACLS_ARE_OFF}, so there are no logins to look after: turn them on (acl.enabled)"
            )),
            (MeshErrorKind::Forbidden, _) if text.contains(NO_SUCH_ACL) => Some(not_accepted().into()),
            (MeshErrorKind::Forbidden, _) => Some(format!(
                "the token that ControlPlane.spec.consul names needs `{}`: add that to one of its policies",
                self.needs
            )),
            (MeshErrorKind::Invalid, _) if text.contains("Enterprise") => Some(
                "these servers are the open-source edition: leave out ControlPlane.spec.consul.partition and \
                 namespaces"
                    .into(),
            ),
            (MeshErrorKind::MeshNotFound, _) => Some(
                "create that namespace, or take it out of ControlPlane.spec.consul.namespaces; a ConsulAuth may name \
                 it, too"
                    .into(),
            ),
            (MeshErrorKind::Unreachable, _) if text.contains("No path to datacenter") => {
                Some("check ControlPlane.spec.consul.datacenter".into())
            }
            (MeshErrorKind::UnexpectedResponse, 300..=399) => {
                Some("redirects are not followed: set ControlPlane.spec.consul.address to where it leads".into())
            }
            (MeshErrorKind::UnexpectedResponse, _) => Some(not_consul_error().into()),
            _ => None,
        }
    }

    /// The answer leaves out what the token may not see, so nothing follows from it.
    pub(super) fn filtered(&self) -> MeshError {
        MeshError {
            kind: MeshErrorKind::Forbidden,
            message: format!(
                "{self}: Consul left out what the token may not see, so nothing follows from the answer; the token \
                 that ControlPlane.spec.consul names needs `{}`: add that to one of its policies",
                self.needs
            ),
            retry_after: None,
        }
    }

    /// An answer of status 2xx that cannot be read.
    pub(super) fn unreadable(&self, body: &[u8], why: &str) -> MeshError {
        let message =
            format!("{self}: the answer cannot be read ({why}), with {}; {}", appearance(body), not_consul_error());
        MeshError { kind: MeshErrorKind::UnexpectedResponse, message, retry_after: None }
    }

    /// No answer.
    pub(super) fn unanswered(&self, error: &TransportError) -> MeshError {
        let message = format!("{self}: {}", error.message);
        MeshError { kind: error.kind.mesh_kind(), message, retry_after: None }
    }
}

/// Whether it says, in Consul's words, that the thing is not there, or that our own token is not: only
/// `/v1/acl/token/self` tells which.
pub(super) fn is_not_found(reply: &ApiReply) -> bool {
    let text = reply.text();
    match reply.head.status {
        404 => !text.contains(NO_SUCH_CALL) && !text.trim_start().starts_with(['<', '{']),
        403 => text.contains(NO_SUCH_ACL),
        _ => false,
    }
}

/// Whether it says that our own token is none: then every call fails alike.
pub(super) fn is_own_token_unknown(error: &MeshError) -> bool {
    error.message.contains(not_accepted())
}

/// Whether it is the error of a call about ACLs to servers that have none.
pub(super) fn is_acls_disabled(error: &MeshError) -> bool {
    error.message.contains(ACLS_ARE_OFF)
}

/// Whether it says that there are no ACLs on these servers.
pub(super) fn acls_disabled(reply: &ApiReply) -> bool {
    reply.head.status == 401 && reply.text().contains(ACLS_OFF)
}

/// The error of a removal that was answered "not found", and whose object is there.
pub(super) fn found_again(call: &ConsulCall<'_>) -> MeshError {
    error(MeshErrorKind::Conflict, format!("{call}: it was not found, and is there by now"))
}

/// An error of this kind in these words.
pub(super) fn error(kind: MeshErrorKind, message: impl Into<String>) -> MeshError {
    MeshError::new(kind, message)
}

/// The error of a call that was shared with others.
pub(super) fn of_batch(failure: BatchError<MeshError>) -> MeshError {
    match failure {
        BatchError::Call(error) => error,
        BatchError::Missing | BatchError::Lost => error(MeshErrorKind::Unreachable, failure.to_string()),
    }
}

pub(super) fn not_accepted() -> &'static str {
    "the token is not known to these servers: put a valid one where ControlPlane.spec.consul's tokenFile, tokenEnv or \
     tokenSecret says"
}

fn not_consul_error() -> &'static str {
    "this is not how Consul's API answers: check ControlPlane.spec.consul.address (http:// is port 8500, https:// is \
     8501) and any proxy before it"
}

/// Whether it says that a namespace is not there. (Enterprise; other things that are not there are named otherwise.)
fn misses_namespace(text: &str) -> bool {
    is_plain_text(text) && text.contains("Namespace") && text.contains("does not exist")
}

/// Plain text, as Consul's own errors are.
fn is_plain_text(text: &str) -> bool {
    let text = text.trim_start();
    !text.is_empty() && !text.starts_with('<')
}
