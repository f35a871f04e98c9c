//! Classifies failed responses and renders their error messages.
//!
//! A status is accepted as the control plane's own only with one of Kuma's error bodies: a proxy's 404 does not prove
//! that a Dataplane is gone, and a plain text 400 is most likely the wrong port.

use std::fmt::Write as _;

use serde_json::Value;

use ecs_mesh_control_plane::http::{HttpResponse, TransportError, describe_body, describe_json_error, quote};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};

/// The kind of request, which decides the meaning of a 404 or a 405.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// A list over all meshes, or the server's description.
    Server,
    /// A mesh, or a list within one.
    Mesh,
    /// One Dataplane, to read or remove.
    Dataplane,
    /// One Dataplane, to write.
    Write,
    /// A token, or the list of revoked ones.
    Token,
}

/// The kind of each status. `Some` in the last column: only with one of Kuma's error bodies.
const KINDS: [(u16, MeshErrorKind, Option<KumaErrorBody>); 12] = [
    (400, MeshErrorKind::Invalid, Some(KumaErrorBody)),
    (401, MeshErrorKind::Forbidden, None),
    (403, MeshErrorKind::Forbidden, None),
    (404, MeshErrorKind::MeshNotFound, Some(KumaErrorBody)),
    (405, MeshErrorKind::ReadOnly, None),
    (408, MeshErrorKind::Unreachable, None),
    (409, MeshErrorKind::Conflict, None),
    (413, MeshErrorKind::Invalid, None),
    (421, MeshErrorKind::Unreachable, None),
    (422, MeshErrorKind::Invalid, Some(KumaErrorBody)),
    (425, MeshErrorKind::Unreachable, None),
    (429, MeshErrorKind::Throttled, None),
];

/// Requires one of Kuma's error bodies.
#[derive(Clone, Copy)]
struct KumaErrorBody;

/// The error of a response other than 2xx.
pub(super) fn response_error(call: &str, request: RequestKind, response: &HttpResponse) -> MeshError {
    let body = KumaError::read(&response.body);
    let kind = kind(response.status, request, body.is_some());
    let mut message = format!("{call}: the control plane responded {}", response.status);
    match &body {
        Some(error) => error.describe(&mut message),
        None => describe_other(&mut message, &response.body),
    }
    let help =
        if request == RequestKind::Token { token_help(kind) } else { None }.or(help(kind, response.status));
    if let Some(help) = help {
        let _ = write!(message, "; help: {help}");
    }
    MeshError::new(kind, message).with_retry_after(response.retry_after)
}

/// Whether the response is Kuma's own error for a missing resource.
pub(super) fn is_not_found(response: &HttpResponse) -> bool {
    response.status == 404 && KumaError::read(&response.body).is_some()
}

/// The error of a call without a response.
pub(super) fn transport_error(call: &str, error: TransportError) -> MeshError {
    MeshError::new(error.kind.mesh_kind(), format!("{call}: {error}")).with_source(error)
}

/// The error of a 2xx response that a Kuma control plane does not send.
pub(super) fn unexpected(call: &str, problem: &str) -> MeshError {
    MeshError::new(MeshErrorKind::UnexpectedResponse, format!("{call}: {problem}"))
}

/// The error of an unreadable body, with a description instead of the body and of the cause, which may contain values.
pub(super) fn unreadable(call: &str, body: &[u8], error: &serde_json::Error) -> MeshError {
    let mut message = format!("{call}: parsing the response: {},", describe_json_error(error));
    describe_other(&mut message, body);
    message.push_str("; help: check that the address is a Kuma control plane's API, and any proxy before it");
    MeshError::new(MeshErrorKind::UnexpectedResponse, message)
}

fn kind(status: u16, request: RequestKind, has_kuma_body: bool) -> MeshErrorKind {
    if status >= 500 {
        return MeshErrorKind::Unreachable;
    }
    let found = KINDS.iter().find(|(code, _, needs)| *code == status && (needs.is_none() || has_kuma_body));
    let kind = found.map_or(MeshErrorKind::UnexpectedResponse, |(_, kind, _)| *kind);
    match (kind, request) {
        // A list over all meshes names no mesh, and the caller handles the 404 of one Dataplane.
        (MeshErrorKind::MeshNotFound, RequestKind::Server | RequestKind::Dataplane)
        | (MeshErrorKind::ReadOnly, RequestKind::Server | RequestKind::Mesh) => {
            MeshErrorKind::UnexpectedResponse
        }
        (kind, _) => kind,
    }
}

/// The next step where tokens need more than Dataplanes do.
fn token_help(kind: MeshErrorKind) -> Option<&'static str> {
    match kind {
        MeshErrorKind::MeshNotFound => {
            Some("create the mesh, which has a key to sign tokens with, or correct MeshBinding.spec.mesh")
        }
        MeshErrorKind::ReadOnly => Some(
            "a zone that is joined to a global control plane cannot change the mesh's Secrets: revoke the token at the \
             global one, or set MeshBinding.spec.tokens.issue to false",
        ),
        MeshErrorKind::Forbidden => Some(
            "issuing and revoking tokens needs an admin's user token in ControlPlane.spec.kuma.tokenFile, tokenEnv or \
             tokenSecret",
        ),
        _ => None,
    }
}

fn help(kind: MeshErrorKind, status: u16) -> Option<&'static str> {
    match (kind, status) {
        (MeshErrorKind::MeshNotFound, _) => Some("create the mesh, or correct MeshBinding.spec.mesh"),
        (MeshErrorKind::ReadOnly, _) => Some(
            "a global control plane or a read-only API accepts no Dataplanes; \
             set ControlPlane.spec.kuma.address to the zone's own control plane",
        ),
        (MeshErrorKind::Forbidden, 401) => Some(
            "the token is invalid; write a valid user token to the source that ControlPlane.spec.kuma.tokenFile, \
             tokenEnv or tokenSecret names",
        ),
        (MeshErrorKind::Forbidden, _) => Some(
            "the token lacks permissions; use one that may write Dataplanes (an admin's user token) in \
             ControlPlane.spec.kuma.tokenFile, tokenEnv or tokenSecret",
        ),
        (MeshErrorKind::UnexpectedResponse, 300..=399) => {
            Some("redirects are not followed; set ControlPlane.spec.kuma.address to the redirect's target")
        }
        (MeshErrorKind::UnexpectedResponse, _) => Some(
            "this is no response of a Kuma control plane's API; check ControlPlane.spec.kuma.address \
             (http:// is port 5681, https:// is port 5682) and any proxy before it",
        ),
        _ => None,
    }
}

/// Kuma's error body.
struct KumaError {
    title: String,
    detail: Option<String>,
    fields: Vec<(String, String)>,
}

impl KumaError {
    fn read(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let fields = body.get("invalid_parameters").and_then(Value::as_array);
        let fields = fields.into_iter().flatten().filter_map(|parameter| {
            let text = |name: &str| parameter.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
            parameter.is_object().then(|| (text("field"), text("reason")))
        });
        Some(Self {
            title: text("title")?,
            detail: text("detail").or_else(|| text("details")),
            fields: fields.collect(),
        })
    }

    fn describe(&self, message: &mut String) {
        let mut text = self.title.trim().to_owned();
        if let Some(detail) = self.detail.as_deref().map(str::trim).filter(|detail| *detail != text) {
            let _ = write!(text, ": {detail}");
        }
        for (at, (field, reason)) in self.fields.iter().enumerate() {
            let _ = write!(text, "{} {field}: {reason}", if at == 0 { " —" } else { "," });
        }
        let _ = write!(message, " ({})", quote(&text));
    }
}

fn describe_other(message: &mut String, body: &[u8]) {
    let _ = write!(message, " with {}", describe_body(body));
}
