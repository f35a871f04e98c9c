//! From an answer to what may be done about it, and to words for a person.
//!
//! A status counts as the control plane's own only where its body is one of its errors: a proxy's 404 is no proof
//! that a Dataplane is gone, and a plain text 400 is most likely the wrong port.

use std::fmt::Write as _;

use serde_json::Value;

use ecs_mesh_control_plane::http::{HttpResponse, TransportError, appearance, quotable};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};

/// Longest part of a server's own words that is passed on.
const LONGEST_QUOTE: usize = 500;

/// What was asked, which decides what a 404 or a 405 means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// A list over all meshes, or the server's own description.
    Server,
    /// A mesh, or a list within one.
    Mesh,
    /// One Dataplane, to read or remove.
    Dataplane,
    /// One Dataplane, to write.
    Write,
}

/// Status to kind; `None` in the last column: whether or not the body is one of Kuma's errors.
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

/// Counts only with a body that is one of Kuma's errors.
#[derive(Clone, Copy)]
struct KumaErrorBody;

/// The error that an answer other than 2xx is.
pub(super) fn of_answer(call: &str, asked: RequestKind, answer: &HttpResponse) -> MeshError {
    let said = KumaError::read(&answer.body);
    let kind = kind(answer.status, asked, said.is_some());
    let mut message = format!("{call}: the control plane answered {}", answer.status);
    match &said {
        Some(said) => said.describe(&mut message),
        None => describe_other(&mut message, &answer.body),
    }
    if let Some(hint) = hint(kind, answer.status) {
        let _ = write!(message, "; {hint}");
    }
    MeshError { kind, message, retry_after: answer.retry_after }
}

/// Whether the answer says, in Kuma's own words, that the thing is not there.
pub(super) fn is_not_found(answer: &HttpResponse) -> bool {
    answer.status == 404 && KumaError::read(&answer.body).is_some()
}

/// The error of a call that got no answer.
pub(super) fn of_transport(call: &str, error: &TransportError) -> MeshError {
    MeshError {
        kind: error.kind.mesh_kind(),
        message: format!("{call}: {}", error.message),
        retry_after: None,
    }
}

/// An answer of status 2xx that is not what such a control plane gives.
pub(super) fn unexpected(call: &str, what: &str) -> MeshError {
    MeshError { kind: MeshErrorKind::UnexpectedResponse, message: format!("{call}: {what}"), retry_after: None }
}

/// Says what an unreadable body looks like, without repeating much of it.
pub(super) fn unreadable(call: &str, body: &[u8], why: &str) -> MeshError {
    let mut message = format!("{call}: the answer cannot be read ({why})");
    describe_other(&mut message, body);
    message
        .push_str("; check that the address is that of a Kuma control plane's API, and any proxy before it");
    MeshError { kind: MeshErrorKind::UnexpectedResponse, message, retry_after: None }
}

fn kind(status: u16, asked: RequestKind, genuine: bool) -> MeshErrorKind {
    if status >= 500 {
        return MeshErrorKind::Unreachable;
    }
    let found = KINDS.iter().find(|(code, _, needs)| *code == status && (needs.is_none() || genuine));
    let kind = found.map_or(MeshErrorKind::UnexpectedResponse, |(_, kind, _)| *kind);
    match (kind, asked) {
        // A list over all meshes has no mesh to miss; one Dataplane's 404 is an answer, judged by the caller.
        (MeshErrorKind::MeshNotFound, RequestKind::Server | RequestKind::Dataplane)
        | (MeshErrorKind::ReadOnly, RequestKind::Server | RequestKind::Mesh) => MeshErrorKind::UnexpectedResponse,
        (kind, _) => kind,
    }
}

fn hint(kind: MeshErrorKind, status: u16) -> Option<&'static str> {
    match (kind, status) {
        (MeshErrorKind::MeshNotFound, _) => {
            Some("the mesh does not exist: create it, or correct MeshBinding.spec.mesh")
        }
        (MeshErrorKind::ReadOnly, _) => Some(
            "it takes no Dataplanes (a global control plane, or a read-only API): \
             set ControlPlane.spec.kuma.address to that of the zone's own control plane",
        ),
        (MeshErrorKind::Forbidden, 401) => Some(
            "the token is not accepted: put a valid user token into the file or variable that \
             ControlPlane.spec.kuma.tokenFile or tokenEnv names",
        ),
        (MeshErrorKind::Forbidden, _) => Some(
            "the token does not reach that far: give one that may write Dataplanes (an admin's user token) through \
             ControlPlane.spec.kuma.tokenFile or tokenEnv",
        ),
        (MeshErrorKind::UnexpectedResponse, 300..=399) => {
            Some("redirects are not followed: set ControlPlane.spec.kuma.address to where it leads")
        }
        (MeshErrorKind::UnexpectedResponse, _) => Some(
            "this is not how a Kuma control plane's API answers: check ControlPlane.spec.kuma.address \
             (http:// is port 5681, https:// is 5682) and any proxy before it",
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
            let segment = |name: &str| parameter.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
            parameter.is_object().then(|| (segment("field"), segment("reason")))
        });
        Some(Self {
            title: text("title")?,
            detail: text("detail").or_else(|| text("details")),
            fields: fields.collect(),
        })
    }

    fn describe(&self, message: &mut String) {
        let mut quote = self.title.trim().to_owned();
        if let Some(detail) = self.detail.as_deref().map(str::trim).filter(|detail| *detail != quote) {
            let _ = write!(quote, ": {detail}");
        }
        for (at, (field, reason)) in self.fields.iter().enumerate() {
            let _ = write!(quote, "{} {field}: {reason}", if at == 0 { " —" } else { "," });
        }
        let _ = write!(message, " ({})", quotable(&quote, LONGEST_QUOTE));
    }
}

fn describe_other(message: &mut String, body: &[u8]) {
    let _ = write!(message, " with {}", appearance(body));
}
