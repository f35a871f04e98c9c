//! Issues tokens for proxies, in the format of a real server but without a valid signature.

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

#[cfg(test)]
mod tests {
    use super::base64url;

    #[test]
    fn base64_has_no_padding() {
        assert_eq!([base64url(b"f"), base64url(b"fo"), base64url(b"foo")], ["Zg", "Zm8", "Zm9v"]);
    }
}
