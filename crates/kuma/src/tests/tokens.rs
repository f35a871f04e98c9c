//! Tokens: what is requested, which answers are refused, and how the list of revoked ids is changed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::calls::{text, version};
use super::{ScriptedKumaTransport, kuma, mesh, responds, std_error};
use crate::{HttpResponse, TokenIssuer, TokenRequest, TransportError};
use ecs_mesh_control_plane::{ControlPlane, MeshErrorKind};
use ecs_mesh_controller::{Lease, LeaseTerm, WriteObstacle};
use ecs_mesh_core::tokens::{TokenId, TokenIdentity};
use ecs_mesh_model::Timestamp;

type Answer = Result<HttpResponse, TransportError>;

const SECRET: &str = "c2VjcmV0LXNpZ25hdHVyZQ";
const LIST: &str = "/meshes/default/secrets/dataplane-token-revocations-default";

/// A token in the form of a real server.
fn token(claims: &Value) -> Answer {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    text(200, &format!("{}.{}.{SECRET}", part(&json!({"alg": "RS256", "kid": "1"})), part(claims)))
}

fn claims(bound: &Value) -> Value {
    let mut claims = json!({"Name": "", "Mesh": "default", "Tags": {}, "Type": "dataplane", "Workload": "",
        "exp": 1_800_003_600, "iat": 1_800_000_000, "jti": "0e120ec9-6b42-495d-9758-07b59fe86fb9"});
    claims.as_object_mut().unwrap().extend(bound.as_object().unwrap().clone());
    claims
}

/// The list as a server stores it.
fn list(ids: &str) -> Answer {
    responds(
        200,
        &json!({
            "type": "Secret", "mesh": "default", "name": "dataplane-token-revocations-default",
            "labels": {"kuma.io/mesh": "default", "team": "platform"}, "data": STANDARD.encode(ids),
        }),
    )
}

fn ids(ids: &[&str]) -> BTreeSet<TokenId> {
    ids.iter().map(|id| TokenId::parse(id).unwrap()).collect()
}

async fn issue(
    identity: &TokenIdentity,
    answer: Answer,
) -> (Arc<ScriptedKumaTransport>, Result<String, String>) {
    let script = ScriptedKumaTransport::of(vec![version("2.14.3"), answer]);
    let (mesh, valid_for) = (mesh("default"), Duration::from_hours(1));
    let issued = kuma(&script).issue_token(TokenRequest { mesh: &mesh, identity, valid_for }).await;
    let shown = issued.map(|new| {
        assert_eq!(
            (new.issued.expires, new.issued_at),
            (Timestamp(1_800_003_600_000), Timestamp(1_800_000_000_000))
        );
        assert!(new.text.expose().ends_with(SECRET) && !format!("{new:?}").contains(SECRET));
        new.issued.id.to_string()
    });
    (script, shown.map_err(|error| format!("{error} {error:?}")))
}

#[tokio::test]
async fn token_is_requested_for_workload_or_service() {
    for (identity, bound, expected) in [
        (
            TokenIdentity::Workload("web".into()),
            json!({"Workload": "web"}),
            json!({"mesh": "default", "type": "dataplane", "validFor": "3600s", "workload": "web"}),
        ),
        (
            TokenIdentity::Service("web.v1".into()),
            json!({"Tags": {"kuma.io/service": ["web.v1"]}}),
            json!({"mesh": "default", "type": "dataplane", "validFor": "3600s", "tags": {"kuma.io/service": ["web.v1"]}}),
        ),
    ] {
        let (script, issued) = issue(&identity, token(&claims(&bound))).await;
        assert_eq!(issued.as_deref(), Ok("0e120ec9-6b42-495d-9758-07b59fe86fb9"));
        let requests = script.requests.lock().unwrap();
        assert_eq!(requests.last().unwrap().1, "/tokens/dataplane");
        assert_eq!(requests.last().unwrap().2.as_ref(), Some(&expected));
    }
}

#[tokio::test]
async fn token_that_is_bound_to_less_is_refused() {
    let workload = TokenIdentity::Workload("web".into());
    let with = |field: &str, value: Value| {
        let mut claims = claims(&json!({"Workload": "web"}));
        claims[field] = value;
        token(&claims)
    };
    for (answer, expected) in [
        // A server before 2.13.
        (token(&claims(&json!({}))), "not bound"),
        (with("Mesh", "other".into()), "not bound"),
        (with("Workload", "kv".into()), "not bound"),
        (with("jti", "a,b".into()), "no usable jti"),
        (with("exp", Value::Null), "no usable jti, iat and exp"),
        (with("iat", Value::Null), "no usable jti, iat and exp"),
        // A server that grants less would be asked again and again.
        (with("exp", 1_800_001_800.into()), "not valid for the requested time"),
        (text(200, "not.a.token"), "no token"),
        (text(200, &"x".repeat(5_000)), "longer than"),
        (std_error(404), "create the mesh"),
        (std_error(403), "an admin's user token"),
    ] {
        let (_, issued) = issue(&workload, answer).await;
        let error = issued.unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains(SECRET) && !error.contains("eyJ") && !error.contains("xxx"), "{error}");
    }
}

/// Changes the list by these answers. Returns the requests, and the kind of the error.
async fn change(add: &[&str], remove: &[&str], answers: Vec<Answer>) -> (Vec<String>, Option<MeshErrorKind>) {
    let script = ScriptedKumaTransport::of(answers);
    let client = kuma(&script);
    let changed = client.change_revocations(&mesh("default"), &ids(add), &ids(remove)).await;
    let requests = script.requests.lock().unwrap();
    let show = |(method, path, body): &(crate::HttpMethod, String, Option<Value>)| {
        let data = body.as_ref().map(|body| STANDARD.decode(body["data"].as_str().unwrap()).unwrap());
        let data = data.map(|data| format!(" {}", String::from_utf8(data).unwrap())).unwrap_or_default();
        format!("{method} {}{data}", path.strip_prefix(LIST).unwrap_or(path))
    };
    (requests.iter().map(show).collect(), changed.err().map(|error| error.kind))
}

#[tokio::test]
async fn ids_are_merged_into_the_list_and_read_back() {
    let answers = vec![version("2.14.3"), list("x\n"), responds(200, &json!({})), list("x,a")];
    let (requests, error) = change(&["a"], &[], answers).await;
    assert_eq!(requests, ["GET /", "GET ", "PUT  x,a", "GET "], "nothing between read and write");
    assert_eq!(error, None);
    // The first list of a mesh.
    let answers = vec![version("2.14.3"), std_error(404), responds(201, &json!({})), list("a")];
    assert_eq!(
        change(&["a"], &[], answers).await,
        (vec!["GET /".into(), "GET ".into(), "PUT  a".into(), "GET ".into()], None)
    );
    // Nothing to change.
    let answers = vec![version("2.14.3"), list("x,a")];
    assert_eq!(change(&["a"], &["gone"], answers).await, (vec!["GET /".into(), "GET ".into()], None));
}

#[tokio::test]
async fn list_is_merged_again_when_another_writer_changed_it() {
    let done = || responds(200, &json!({}));
    let answers = vec![
        version("2.14.3"),
        list("x"),
        std_error(409),
        list("x,y"),
        done(),
        // Another writer has overwritten it.
        list("z"),
        list("z"),
        done(),
        list("z,a"),
    ];
    let (requests, error) = change(&["a"], &[], answers).await;
    let writes: Vec<&str> = requests.iter().filter_map(|request| request.strip_prefix("PUT ")).collect();
    assert_eq!(writes, [" x,a", " x,y,a", " z,a"]);
    assert_eq!(error, None);

    let mut endless = vec![version("2.14.3"), list("x"), done(), list("x")];
    endless.extend((0..4).flat_map(|_| [list("x"), done(), list("x")]));
    assert_eq!(change(&["a"], &[], endless).await.1, Some(MeshErrorKind::Conflict));
}

#[tokio::test]
async fn list_keeps_the_labels_of_users() {
    let script =
        ScriptedKumaTransport::of(vec![version("3.0.1"), list("x"), responds(200, &json!({})), list("x,a")]);
    kuma(&script).change_revocations(&mesh("default"), &ids(&["a"]), &ids(&[])).await.unwrap();
    let requests = script.requests.lock().unwrap();
    let body = requests[2].2.as_ref().unwrap();
    assert_eq!((&body["labels"], &body["type"]), (&json!({"team": "platform"}), &json!("Secret")));
}

#[tokio::test]
async fn unreadable_list_is_not_overwritten() {
    let stored = |data: &str| responds(200, &json!({"type": "Secret", "data": data}));
    for answer in
        [stored("%"), stored(&STANDARD.encode([0xff])), text(200, "<html>"), text(404, "no such page")]
    {
        let (requests, error) = change(&["a"], &[], vec![version("2.14.3"), answer]).await;
        assert_eq!((requests.len(), error), (2, Some(MeshErrorKind::UnexpectedResponse)));
    }
}

struct NotLeader;

impl Lease for NotLeader {
    fn term(&self) -> LeaseTerm {
        LeaseTerm::NotHeld
    }
}

#[tokio::test]
async fn nothing_is_issued_or_revoked_without_the_lease() {
    let script = ScriptedKumaTransport::of(vec![version("2.14.3"), list("x")]);
    let client = kuma(&script);
    client.set_lease(Arc::new(NotLeader));
    let (mesh, identity) = (mesh("default"), TokenIdentity::Workload("web".into()));
    let request = TokenRequest { mesh: &mesh, identity: &identity, valid_for: Duration::from_hours(1) };
    let obstructed = MeshErrorKind::Obstructed(WriteObstacle::NotLeader);
    assert_eq!(client.issue_token(request).await.unwrap_err().kind, obstructed);
    assert_eq!(client.change_revocations(&mesh, &ids(&["a"]), &ids(&[])).await.unwrap_err().kind, obstructed);
    assert_eq!(script.paths(), ["GET /".to_owned(), format!("GET {LIST}")]);
}
