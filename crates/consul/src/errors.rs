//! Parses responses, classifies failures and renders their error messages.
//!
//! Consul responds 500 with a plain-text reason to nearly everything that it rejects. The 500 of a write is therefore a
//! rejected body, unless the text shows a failure of the servers.

use std::fmt;

use serde::de::DeserializeOwned;

use super::reply::ApiReply;
use ecs_mesh_control_plane::http::{HttpMethod, TransportError, describe_body, describe_json_error, quote};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind, Refusal};
use ecs_mesh_controller::{BatchError, WriteObstacle};

/// In the text of a 401: ACLs are disabled.
const ACLS_OFF: &str = "ACL support disabled";
/// In the text of a 403 or 404: a token, the operator's own or the requested one, does not exist.
const NO_SUCH_ACL: &str = "ACL not found";
/// In the text of a 404: the API has no such path.
const NO_SUCH_CALL: &str = "Invalid URL path";

/// In the text of a 5xx: a temporary failure of the servers.
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
    // Errors of Raft and of connections between servers while the leader changes or a server leaves.
    ("leadership transfer", MeshErrorKind::Unreachable),
    ("Raft leader not found", MeshErrorKind::Unreachable),
    ("raft is already shutdown", MeshErrorKind::Unreachable),
    ("session shutdown", MeshErrorKind::Unreachable),
    ("stream closed", MeshErrorKind::Unreachable),
];

/// In the text of a 500 for a removal: a permanent error. All other errors of a removal may be temporary, since a
/// removal has no body that could be invalid.
const PERMANENT_REMOVAL_ERRORS: &str = "not permitted";

/// One call with the permissions that it needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConsulCall<'a> {
    pub(super) method: HttpMethod,
    pub(super) path: &'a str,
    /// The rules of a policy that permits the call.
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

    /// Parses the body of a successful, unfiltered response.
    pub(super) fn read<R: DeserializeOwned>(&self, reply: &ApiReply) -> Result<R, MeshError> {
        if !reply.is_ok() {
            return Err(self.status_error(reply));
        }
        if reply.head.filtered {
            return Err(self.filtered());
        }
        serde_json::from_slice(&reply.body)
            .map_err(|error| self.unreadable(&reply.body, &describe_json_error(&error)))
    }

    /// The error of a call that was not sent because this process may not write.
    pub(super) fn obstructed(&self, obstacle: WriteObstacle) -> MeshError {
        error(MeshErrorKind::Obstructed(obstacle), format!("{self}: not sent: {obstacle}"))
    }

    /// The error of a response other than 2xx.
    pub(super) fn status_error(&self, reply: &ApiReply) -> MeshError {
        let text = reply.text();
        let kind = self.kind(reply.head.status, &text);
        let body = if is_plain_text(&text) && !text.trim_start().starts_with(['{', '[']) {
            format!(" ({})", quote(&text))
        } else {
            format!(" with {}", describe_body(&reply.body))
        };
        let refusal = refusal(kind, reply.head.status, &text);
        let help = self
            .help(kind, refusal, reply.head.status, &text)
            .map(|help| format!("; help: {help}"))
            .unwrap_or_default();
        error(kind, format!("{self}: Consul responded {}{body}{help}", reply.head.status))
            .with_retry_after(reply.head.retry_after)
            .with_refusal(refusal)
    }

    fn kind(&self, status: u16, text: &str) -> MeshErrorKind {
        match status {
            // Any status: servers forward this error from each other as a failure of their own.
            400.. if misses_namespace(text) => MeshErrorKind::MeshNotFound,
            400 if is_plain_text(text) => MeshErrorKind::Invalid,
            401 | 403 => MeshErrorKind::Forbidden,
            408 | 421 | 425 => MeshErrorKind::Unreachable,
            409 => MeshErrorKind::Conflict,
            413 => MeshErrorKind::Invalid,
            429 => MeshErrorKind::Throttled,
            500.. => {
                let known = SERVER_UNAVAILABLE_TEXT.iter().find(|(part, _)| text.contains(part));
                let has_reason = status == 500 && is_plain_text(text);
                let unknown = match self.method {
                    HttpMethod::Put if has_reason => MeshErrorKind::Invalid,
                    HttpMethod::Delete if has_reason && text.contains(PERMANENT_REMOVAL_ERRORS) => {
                        MeshErrorKind::Invalid
                    }
                    HttpMethod::Delete if has_reason => MeshErrorKind::ServerError,
                    _ => MeshErrorKind::Unreachable,
                };
                known.map_or(unknown, |(_, kind)| *kind)
            }
            _ => MeshErrorKind::UnexpectedResponse,
        }
    }

    fn help(&self, kind: MeshErrorKind, refusal: Option<Refusal>, status: u16, text: &str) -> Option<String> {
        match refusal {
            Some(Refusal::AclsDisabled) => {
                return Some(
                    "ACLs are off on these servers, so there are no logins; enable them (acl.enabled)".into(),
                );
            }
            Some(Refusal::OwnTokenUnknown) => return Some(OWN_TOKEN_UNKNOWN.into()),
            None => {}
        }
        match (kind, status) {
            (MeshErrorKind::Forbidden, _) => Some(format!(
                "the token of ControlPlane.spec.consul needs `{}`; add it to one of its policies",
                self.needs
            )),
            (MeshErrorKind::Invalid, _) if text.contains("Enterprise") => Some(
                "these servers are the open-source edition; remove ControlPlane.spec.consul.partition and namespaces"
                    .into(),
            ),
            (MeshErrorKind::MeshNotFound, _) => Some(
                "create the namespace, or remove it from ControlPlane.spec.consul.namespaces and from each ConsulAuth"
                    .into(),
            ),
            (MeshErrorKind::Unreachable, _) if text.contains("No path to datacenter") => {
                Some("check ControlPlane.spec.consul.datacenter".into())
            }
            (MeshErrorKind::UnexpectedResponse, 300..=399) => {
                Some("redirects are not followed; set ControlPlane.spec.consul.address to the redirect's target".into())
            }
            (MeshErrorKind::UnexpectedResponse, _) => Some(NOT_CONSUL.into()),
            _ => None,
        }
    }

    /// The error of a response from which Consul has removed objects that the token may not read.
    pub(super) fn filtered(&self) -> MeshError {
        error(
            MeshErrorKind::Forbidden,
            format!(
                "{self}: Consul filtered the response by the token's permissions, so it is incomplete; help: the \
                 token of ControlPlane.spec.consul needs `{}`; add it to one of its policies",
                self.needs
            ),
        )
    }

    /// The error of an unreadable 2xx response.
    pub(super) fn unreadable(&self, body: &[u8], cause: &str) -> MeshError {
        let body = describe_body(body);
        error(
            MeshErrorKind::UnexpectedResponse,
            format!("{self}: parsing the response: {cause}, with {body}; help: {NOT_CONSUL}"),
        )
    }

    /// The error of a call without a response.
    pub(super) fn transport_error(&self, failure: TransportError) -> MeshError {
        error(failure.kind.mesh_kind(), format!("{self}: {failure}")).with_source(failure)
    }
}

/// Whether the response is Consul's error for a missing object or for an unknown own token: only `/v1/acl/token/self`
/// distinguishes the two.
pub(super) fn is_not_found(reply: &ApiReply) -> bool {
    let text = reply.text();
    match reply.head.status {
        404 => !text.contains(NO_SUCH_CALL) && !text.trim_start().starts_with(['<', '{']),
        403 => text.contains(NO_SUCH_ACL),
        _ => false,
    }
}

fn refusal(kind: MeshErrorKind, status: u16, text: &str) -> Option<Refusal> {
    match (kind, status) {
        (MeshErrorKind::Forbidden, 401) if text.contains(ACLS_OFF) => Some(Refusal::AclsDisabled),
        (MeshErrorKind::Forbidden, _) if text.contains(NO_SUCH_ACL) => Some(Refusal::OwnTokenUnknown),
        _ => None,
    }
}

/// Whether the response shows that ACLs are disabled.
pub(super) fn acls_disabled(reply: &ApiReply) -> bool {
    reply.head.status == 401 && reply.text().contains(ACLS_OFF)
}

/// The error of a call with a token that the servers do not know.
pub(super) fn own_token_unknown(call: &ConsulCall<'_>) -> MeshError {
    error(MeshErrorKind::Forbidden, format!("{call}: {OWN_TOKEN_UNKNOWN}"))
        .with_refusal(Some(Refusal::OwnTokenUnknown))
}

/// The error of a removal with the response "not found" whose object exists.
pub(super) fn found_again(call: &ConsulCall<'_>) -> MeshError {
    error(MeshErrorKind::Conflict, format!("{call}: responded not found, but the object exists now"))
}

/// Creates an error.
pub(super) fn error(kind: MeshErrorKind, message: impl Into<String>) -> MeshError {
    MeshError::new(kind, message)
}

/// The error of a batched call.
pub(super) fn of_batch(failure: BatchError<MeshError>) -> MeshError {
    match failure {
        BatchError::Call(error) => error,
        BatchError::Missing | BatchError::Lost => error(MeshErrorKind::Unreachable, failure.to_string()),
    }
}

/// The message for an own token that the servers do not know.
const OWN_TOKEN_UNKNOWN: &str = "the token is not known to these servers; write a valid token to the source that ControlPlane.spec.consul.tokenFile, \
     tokenEnv or tokenSecret names";

/// The help for a response that is not Consul's.
const NOT_CONSUL: &str = "this is no response of Consul's API; check ControlPlane.spec.consul.address (http:// is port 8500, https:// is \
     port 8501) and any proxy before it";

/// Whether the text is the error for a missing namespace. (Enterprise; other missing objects have other texts.)
fn misses_namespace(text: &str) -> bool {
    is_plain_text(text) && text.contains("Namespace") && text.contains("does not exist")
}

/// Whether the text is plain, as in Consul's own errors.
fn is_plain_text(text: &str) -> bool {
    let text = text.trim_start();
    !text.is_empty() && !text.starts_with('<')
}
