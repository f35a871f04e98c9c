//! Issues tokens for proxies, in the format of a real server but without a valid signature.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use ecs_mesh_model::{GoDuration, Timestamp};

use super::body::text;
use super::message::{KumaRequest, KumaResponse};
use super::problem::{FieldViolations, KumaProblem};
use super::server::KumaCp;
use ecs_mesh_api::KumaFeature;

const INVALID: &str = "The token request was refused";

/// Handles `POST /tokens/dataplane` and `POST /tokens/zone`.
pub(super) fn issue(
    cp: &mut KumaCp,
    now: Timestamp,
    request: &KumaRequest,
    zone: bool,
    admin: bool,
) -> Result<KumaResponse, KumaProblem> {
    let Some(wanted) = parse(&request.body) else {
        return Ok(KumaResponse { status: 400, content_type: "text/plain; charset=utf-8", body: Vec::new() });
    };
    let who = "mesh-system:anonymous";
    let mut violations = FieldViolations::default();
    if zone {
        if !admin {
            return Err(KumaProblem::denied(who, "issue tokens for zones"));
        }
        // Scopes named the zone proxies, which have Dataplane tokens since 3.0.
        let needs_scope = cp.release().has(KumaFeature::ZoneProxyResources);
        if needs_scope && wanted.get("scope").is_none_or(Value::is_null) {
            violations.add("scope", "must be given");
        }
        valid_for(&mut violations, &wanted);
        violations.or_invalid(INVALID)?;
    } else {
        if text(&wanted, "mesh").is_empty() {
            violations.add("mesh", "must be given");
        }
        valid_for(&mut violations, &wanted);
        let types = if cp.release().has(KumaFeature::ZoneProxyResources) {
            &["", "dataplane", "ingress", "egress"][..]
        } else {
            &["", "dataplane"]
        };
        if !types.contains(&text(&wanted, "type")) {
            violations.add("type", format!("must be one of {}", types[1..].join(", ")));
        }
        violations.or_invalid(INVALID)?;
        if !admin {
            return Err(KumaProblem::denied(who, "issue tokens for Dataplanes"));
        }
        cp.require_mesh(text(&wanted, "mesh")).map_err(|_| {
            KumaProblem::new(404, "No signing key", "The mesh has no key to sign tokens with")
        })?;
    }
    cp.tokens_issued += 1;
    let claims = claims(cp, now, &wanted, zone);
    let token = jwt(&claims);
    Ok(KumaResponse { status: 200, content_type: "text/plain", body: token.into_bytes() })
}

fn parse(body: &[u8]) -> Option<Value> {
    let wanted: Value = serde_json::from_slice(body).ok()?;
    let strings = ["name", "mesh", "type", "validFor", "workload", "zone"];
    let well_typed = wanted.is_object()
        && strings.iter().all(|field| wanted.get(field).is_none_or(|v| v.is_string() || v.is_null()))
        && wanted.get("tags").is_none_or(|v| v.is_object() || v.is_null())
        && wanted.get("scope").is_none_or(|v| v.is_array() || v.is_null());
    well_typed.then_some(wanted)
}

fn valid_for(violations: &mut FieldViolations, wanted: &Value) {
    let given = text(wanted, "validFor");
    if !given.is_empty() && GoDuration::parse(given).is_none() {
        violations.add("validFor", "must be a duration such as 24h or 30m");
    }
}

/// The claims of Go's structs: `Name`, `Mesh` and so on, with the registered ones beside them.
fn claims(cp: &KumaCp, now: Timestamp, wanted: &Value, zone: bool) -> Value {
    let seconds = now.0 / 1_000;
    let valid_for =
        GoDuration::parse(text(wanted, "validFor")).map_or(0, |duration| duration.0 / 1_000_000_000);
    // Ten years, if the request has no end.
    let valid_for = if valid_for == 0 { 10 * 365 * 86_400 } else { valid_for };
    let mut claims = json!({
        "exp": seconds + valid_for, "nbf": seconds - 300, "iat": seconds, "jti": token_id(cp.tokens_issued),
    });
    let own = if zone {
        json!({"Zone": wanted["zone"], "Scope": wanted["scope"]})
    } else {
        let name = |field: &str| text(wanted, field).to_owned();
        let mut own = json!({
            "Name": name("name"), "Mesh": name("mesh"), "Tags": wanted["tags"], "Type": name("type"),
        });
        if cp.release().has(KumaFeature::WorkloadLabel) {
            own["Workload"] = json!(name("workload"));
        }
        own
    };
    if let (Some(claims), Some(own)) = (claims.as_object_mut(), own.as_object()) {
        claims.extend(own.clone());
    }
    claims
}

/// A UUID that depends on the number.
fn token_id(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

fn jwt(claims: &Value) -> String {
    let header = base64url(json!({"alg": "RS256", "kid": "1", "typ": "JWT"}).to_string().as_bytes());
    let claims = base64url(claims.to_string().as_bytes());
    let signature = base64url(&Sha256::digest(format!("{header}.{claims}")));
    format!("{header}.{claims}.{signature}")
}

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_usize, |word, byte| (word << 8) | usize::from(*byte))
            << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * at)) & 63]));
        }
    }
    text
}

/// The claims of an issued token.
pub fn token_claims(token: &str) -> Option<Value> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok()
}

impl KumaCp {
    /// Another writer adds an id to the mesh's list of revoked tokens.
    ///
    /// # Errors
    /// The answer of the API.
    pub fn revoke_token(&mut self, mesh: &str, id: &str, now: Timestamp) -> Result<(), KumaResponse> {
        let mut list = self.revoked_tokens(mesh);
        if !list.iter().any(|listed| listed == id) {
            list.push(id.to_owned());
        }
        let name = format!("dataplane-token-revocations-{mesh}");
        let data = STANDARD.encode(list.join(","));
        let body = json!({"type": "Secret", "mesh": mesh, "name": name, "data": data});
        let path = format!("/meshes/{mesh}/secrets/{name}");
        let response = self.handle(now, &KumaRequest::json("PUT", &path, body.to_string().into_bytes()));
        if matches!(response.status, 200 | 201) { Ok(()) } else { Err(response) }
    }

    /// The ids in the mesh's list of revoked tokens.
    pub fn revoked_tokens(&self, mesh: &str) -> Vec<String> {
        let key = (mesh.to_owned(), format!("dataplane-token-revocations-{mesh}"));
        let data = self.store.get("Secret", &key).map(|secret| text(&secret.body, "data").to_owned());
        let list =
            data.and_then(|data| STANDARD.decode(data).ok()).and_then(|list| String::from_utf8(list).ok());
        list.iter().flat_map(|list| list.split(',')).filter(|id| !id.is_empty()).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::base64url;

    #[test]
    fn base64_has_no_padding() {
        assert_eq!([base64url(b"f"), base64url(b"fo"), base64url(b"foo")], ["Zg", "Zm8", "Zm9v"]);
    }
}
