//! Data plane tokens: issues them, and revokes them in the mesh's list.
//!
//! Sources: <https://kuma.io/docs/latest/production/secure-deployment/dp-auth/> and `pkg/tokens/builtin/issuer` in
//! <https://github.com/kumahq/kuma>. The list is the mesh's Secret `dataplane-token-revocations-MESH`, with the ids
//! separated by commas.
//!
//! No error has a part of a token.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::client::KumaControlPlane;
use super::errors::{self, RequestKind};
use ecs_mesh_api::KumaRelease;
use ecs_mesh_control_plane::http::{HttpMethod, Transport, segment};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
use ecs_mesh_core::tokens::{ClockOffset, IssuedToken, RevocationList, TokenId, TokenIdentity};
use ecs_mesh_model::{MeshName, Timestamp};

const ISSUE_PATH: &str = "/tokens/dataplane";
const SERVICE_TAG: &str = "kuma.io/service";
/// Attempts to change the list while other writers do.
const MAX_LIST_WRITES: usize = 5;
/// The difference of requested and granted validity that is none, in milliseconds.
const VALIDITY_TOLERANCE_MS: u64 = 60_000;
/// The longest token that is accepted. A parameter of the standard tier holds 4 KB.
const MAX_TOKEN_BYTES: usize = 4_096;

/// The text of a token, which neither logs nor errors show.
pub struct TokenText(String);

impl TokenText {
    /// The text, to be stored.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(redacted)")
    }
}

/// A new token.
#[derive(Debug)]
pub struct NewToken {
    /// The token.
    pub text: TokenText,
    /// Its id and end. Its clock is that of the control plane, of which nothing is known here.
    pub issued: IssuedToken,
    /// When it was issued, by the control plane's clock.
    pub issued_at: Timestamp,
}

/// A token to issue.
#[derive(Clone, Copy, Debug)]
pub struct TokenRequest<'a> {
    /// The mesh.
    pub mesh: &'a MeshName,
    /// The token's binding, beside the mesh.
    pub identity: &'a TokenIdentity,
    /// How long it is valid.
    pub valid_for: Duration,
}

/// Issues and revokes data plane tokens.
#[async_trait]
pub trait TokenIssuer: Send + Sync {
    /// The release whose tokens are issued, as of the last refresh: during a rolling upgrade, the oldest.
    fn token_release(&self) -> KumaRelease;

    /// Issues a token. One that is bound to less than requested is not returned: servers before 2.13 ignore the workload.
    ///
    /// # Errors
    /// If it is not issued, or not as requested.
    async fn issue_token(&self, request: TokenRequest<'_>) -> Result<NewToken, MeshError>;

    /// Reads the mesh's list of revoked tokens; an empty one if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    async fn revocations(&self, mesh: &MeshName) -> Result<RevocationList, MeshError>;

    /// Adds and removes ids, and keeps all others as best effort: the server has no conditional writes. Reads the list right
    /// before it writes it, reads it back, and repeats that if an id of the first read is lost. An id that another writer
    /// adds between read and write is lost without notice.
    ///
    /// # Errors
    /// If the list does not have the ids in the end.
    async fn change_revocations(
        &self,
        mesh: &MeshName,
        add: &BTreeSet<TokenId>,
        remove: &BTreeSet<TokenId>,
    ) -> Result<(), MeshError>;
}

#[async_trait]
impl<T: Transport> TokenIssuer for KumaControlPlane<T> {
    fn token_release(&self) -> KumaRelease {
        self.release()
    }

    async fn issue_token(&self, request: TokenRequest<'_>) -> Result<NewToken, MeshError> {
        self.observed("issue_token", self.issue(request)).await
    }

    async fn revocations(&self, mesh: &MeshName) -> Result<RevocationList, MeshError> {
        let read = async { Ok(self.read_list(mesh).await?.list) };
        self.observed("revocations", read).await
    }

    async fn change_revocations(
        &self,
        mesh: &MeshName,
        add: &BTreeSet<TokenId>,
        remove: &BTreeSet<TokenId>,
    ) -> Result<(), MeshError> {
        self.observed("change_revocations", self.change_list(mesh, add, remove)).await
    }
}

/// The list as it is stored.
struct StoredList {
    list: RevocationList,
    /// The resource; `None` if there is none.
    body: Option<Value>,
}

impl<T: Transport> KumaControlPlane<T> {
    async fn issue(&self, request: TokenRequest<'_>) -> Result<NewToken, MeshError> {
        self.check_known_support().await?;
        let mut body = json!({
            "mesh": request.mesh, "type": "dataplane", "validFor": format!("{}s", request.valid_for.as_secs()),
        });
        match request.identity {
            TokenIdentity::Workload(label) => body["workload"] = (&**label).into(),
            TokenIdentity::Service(service) => body["tags"] = json!({SERVICE_TAG: [&**service]}),
        }
        let call = format!("POST {ISSUE_PATH}");
        self.check_lease(&call)?;
        let body = body.to_string().into_bytes();
        let response = self.send(HttpMethod::Post, ISSUE_PATH, Some(body)).await?;
        if response.status != 200 {
            return Err(errors::response_error(&call, RequestKind::Token, &response));
        }
        let problem = |problem: &str| errors::unexpected(&call, problem);
        let text =
            std::str::from_utf8(&response.body).map_err(|_| problem("the response is no text"))?.trim();
        if text.len() > MAX_TOKEN_BYTES {
            return Err(problem("the token is longer than 4096 bytes"));
        }
        let claims = claims(text).ok_or_else(|| problem("the response is no token (JWT)"))?;
        let (issued, issued_at) =
            issued(&claims).ok_or_else(|| problem("the token has no usable jti, iat and exp"))?;
        if !is_bound(&claims, &request) {
            let found = "the token is not bound to the requested mesh and workload or service, so it is not used; help: use \
                         Kuma 2.13 or later for tokens that are bound to a workload";
            return Err(problem(found));
        }
        if issued_at.plus(request.valid_for).0.abs_diff(issued.expires.0) > VALIDITY_TOLERANCE_MS {
            return Err(problem("the token is not valid for the requested time, so it is not used"));
        }
        Ok(NewToken { text: TokenText(text.to_owned()), issued, issued_at })
    }

    async fn read_list(&self, mesh: &MeshName) -> Result<StoredList, MeshError> {
        let path = list_path(mesh);
        let response = self.send(HttpMethod::Get, &path, None).await?;
        let call = format!("GET {path}");
        if errors::is_not_found(&response) {
            return Ok(StoredList { list: RevocationList::default(), body: None });
        }
        if response.status != 200 {
            return Err(errors::response_error(&call, RequestKind::Token, &response));
        }
        let problem = |problem: &str| errors::unexpected(&call, problem);
        let body: Value =
            serde_json::from_slice(&response.body).map_err(|_| problem("the response is no JSON"))?;
        let data = body.get("data").and_then(Value::as_str).unwrap_or_default();
        let bytes = STANDARD.decode(data).map_err(|_| problem("data is not base64"))?;
        let text = String::from_utf8(bytes).map_err(|_| problem("data is no text"))?;
        Ok(StoredList { list: RevocationList::parse(&text), body: Some(body) })
    }

    async fn change_list(
        &self,
        mesh: &MeshName,
        add: &BTreeSet<TokenId>,
        remove: &BTreeSet<TokenId>,
    ) -> Result<(), MeshError> {
        // It may ask the server: nothing comes between the read of the list and its write.
        self.check_known_support().await?;
        let path = list_path(mesh);
        for _ in 0..MAX_LIST_WRITES {
            let before = self.read_list(mesh).await?;
            let Some(changed) = before.list.changed(add, remove) else { return Ok(()) };
            match self.write_list(mesh, &path, &changed, before.body.as_ref()).await {
                Err(error) if error.kind == MeshErrorKind::Conflict => continue,
                written => written?,
            }
            if self.read_list(mesh).await?.list.is_result_of(&before.list, add, remove) {
                return Ok(());
            }
        }
        let message =
            format!("PUT {path}: other writers changed the list {MAX_LIST_WRITES} times; retried later");
        Err(MeshError::new(MeshErrorKind::Conflict, message))
    }

    async fn write_list(
        &self,
        mesh: &MeshName,
        path: &str,
        list: &RevocationList,
        stored: Option<&Value>,
    ) -> Result<(), MeshError> {
        let call = format!("PUT {path}");
        self.check_lease(&call)?;
        let mut body = json!({
            "type": "Secret", "mesh": mesh, "name": list_name(mesh), "data": STANDARD.encode(list.text()),
        });
        // A write replaces all labels; the server adds its own.
        let labels = stored.and_then(|stored| stored.get("labels")).and_then(Value::as_object);
        let own = labels.into_iter().flatten().filter(|(label, _)| !label.starts_with("kuma.io/"));
        let own: serde_json::Map<String, Value> =
            own.map(|(label, value)| (label.clone(), value.clone())).collect();
        if !own.is_empty() {
            body["labels"] = own.into();
        }
        let response = self.send(HttpMethod::Put, path, Some(body.to_string().into_bytes())).await?;
        match response.status {
            200..=299 => Ok(()),
            _ => Err(errors::response_error(&call, RequestKind::Token, &response)),
        }
    }
}

fn list_name(mesh: &MeshName) -> String {
    format!("dataplane-token-revocations-{mesh}")
}

fn list_path(mesh: &MeshName) -> String {
    format!("/meshes/{}/secrets/{}", segment(mesh.as_str()), segment(&list_name(mesh)))
}

/// The claims of a token, whose signature only servers check.
fn claims(text: &str) -> Option<Value> {
    let mut parts = text.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

/// The token, and when it was issued.
fn issued(claims: &Value) -> Option<(IssuedToken, Timestamp)> {
    let time = |name: &str| Some(Timestamp(claims.get(name)?.as_i64()?.checked_mul(1_000)?));
    let id = TokenId::parse(claims.get("jti")?.as_str()?)?;
    Some((IssuedToken { id, expires: time("exp")?, clock: ClockOffset::default() }, time("iat")?))
}

/// Whether the claims have the requested mesh and workload or service. Their names are those of Go's fields.
fn is_bound(claims: &Value, request: &TokenRequest<'_>) -> bool {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let is_identity = match request.identity {
        TokenIdentity::Workload(label) => text("Workload") == Some(&**label),
        TokenIdentity::Service(service) => {
            claims.get("Tags").and_then(|tags| tags.get(SERVICE_TAG)) == Some(&json!([&**service]))
        }
    };
    text("Mesh") == Some(request.mesh.as_str()) && is_identity
}
