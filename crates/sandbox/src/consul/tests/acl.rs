//! Permissions and ACL objects.

use serde_json::{Value, json};

use super::super::ConsulConfig;
use super::{ConsulServerFixture, MANAGEMENT, START};

const RULE: &str = "/v1/acl/binding-rule";

fn method(name: &str) -> Value {
    json!({
        "Name": name, "Type": "aws-iam",
        "Config": {
            "BoundIAMPrincipalARNs": ["arn:aws:iam::1:role/a/*"],
            "EnableIAMEntityDetails": true,
            "IAMEntityTags": ["team"],
        },
    })
}

#[test]
fn delete_with_unknown_token_looks_like_missing() {
    let mut world = ConsulServerFixture::new();
    world.done("PUT", "/v1/acl/auth-method", &method("m"));
    let bad = Some("00000000-dead-beef-0000-000000000000");
    for (call, path, status) in [
        ("DELETE", "/v1/acl/auth-method/m", 404),
        ("GET", "/v1/acl/auth-method/m", 403),
        ("PUT", "/v1/acl/auth-method/m", 403),
    ] {
        assert_eq!(world.call(bad, call, path, &method("m")).status, status, "{call}");
    }
    world.get("/v1/acl/auth-method/m");
}

#[test]
fn deleted_policy_is_removed_from_its_roles() {
    let mut world = ConsulServerFixture::new();
    let policy = world.done("PUT", "/v1/acl/policy", &json!({"Name": "p", "Rules": "acl = \"read\""}));
    world.done("PUT", "/v1/acl/role", &json!({"Name": "r", "Policies": [{"Name": "p"}]}));
    let token = world.done("PUT", "/v1/acl/token", &json!({"Roles": [{"Name": "r"}]}));
    let secret = token["SecretID"].as_str();
    assert_eq!(world.call(secret, "GET", "/v1/acl/tokens", &Value::Null).status, 200);
    world.done("DELETE", &format!("/v1/acl/policy/{}", policy["ID"].as_str().unwrap()), &Value::Null);
    assert_eq!(world.get("/v1/acl/role/name/r").get("Policies"), None);
    assert_eq!(world.call(secret, "GET", "/v1/acl/tokens", &Value::Null).status, 403);
}

#[test]
fn deleting_auth_method_deletes_its_rules() {
    let mut world = ConsulServerFixture::new();
    for name in ["m", "other"] {
        world.done("PUT", "/v1/acl/auth-method", &method(name));
        let rule = json!({"AuthMethod": name, "BindType": "service", "BindName": "web"});
        world.done("PUT", RULE, &rule);
        world.done("PUT", RULE, &rule);
    }
    world.done("DELETE", "/v1/acl/auth-method/m", &Value::Null);
    let left = world.get("/v1/acl/binding-rules");
    let methods: Vec<&Value> = left.as_array().unwrap().iter().map(|rule| &rule["AuthMethod"]).collect();
    assert_eq!(methods, ["other", "other"]);
}

#[test]
fn auth_method_names_ignore_case() {
    let mut world = ConsulServerFixture::new();
    let created = world.done("PUT", "/v1/acl/auth-method", &method("Tasks"))["CreateIndex"].clone();
    assert_eq!(world.get("/v1/acl/auth-method/TASKS")["Name"], "Tasks");
    let again = world.done("PUT", "/v1/acl/auth-method", &method("tasks"));
    assert_eq!((&again["Name"], &again["CreateIndex"]), (&json!("tasks"), &created));
    assert_eq!(world.get("/v1/acl/auth-methods").as_array().unwrap().len(), 1);
    let rule =
        world.done("PUT", RULE, &json!({"AuthMethod": "TASKS", "BindType": "service", "BindName": "web"}));
    assert_eq!(rule["AuthMethod"], "TASKS", "as it was given");
    assert_eq!(world.get("/v1/acl/binding-rules?authmethod=tasks"), json!([rule]));
    // Binding rules are the only place where case matters.
    let moved = json!({"AuthMethod": "tasks", "BindType": "service", "BindName": "web"});
    let path = format!("{RULE}/{}", rule["ID"].as_str().unwrap());
    assert_eq!(world.call(Some(MANAGEMENT), "PUT", &path, &moved).status, 500);
    world.done("DELETE", "/v1/acl/auth-method/TaskS", &Value::Null);
    assert_eq!(world.get("/v1/acl/binding-rules"), json!([]));
}

#[test]
fn invalid_selector_is_rejected() {
    let mut world = ConsulServerFixture::new();
    world.done("PUT", "/v1/acl/auth-method", &method("m"));
    let mut put = |selector: &str| {
        let rule = json!({"AuthMethod": "m", "BindType": "role", "BindName": "r", "Selector": selector});
        world.call(Some(MANAGEMENT), "PUT", RULE, &rule).status
    };
    for (selector, status) in [
        ("entity_tags[\"team\"] == \"a\" and not (entity_name == b or account_id == \"1\")", 200),
        ("entity_tags[\"not-listed\"] != \"\"", 200),
        ("team in entity_tags", 200),
        ("entity_tags[", 500),
        ("entity_tags == \"x\"", 500),
        ("service_name == \"x\"", 500),
    ] {
        assert_eq!(put(selector), status, "{selector}");
    }
}

#[test]
fn secrets_are_hidden_from_readers() {
    let mut world = ConsulServerFixture::new();
    let reader = world.token("acl = \"read\"");
    let listed = world.call(Some(&reader), "GET", "/v1/acl/tokens", &Value::Null).json();
    let hidden = |token: &Value| token["SecretID"] == "<hidden>";
    assert!(listed.as_array().unwrap().iter().all(hidden));
    assert!(!world.get("/v1/acl/tokens").as_array().unwrap().iter().any(hidden));
}

#[test]
fn expired_token_is_unknown() {
    let mut world = ConsulServerFixture::new();
    let token = world.done("PUT", "/v1/acl/token", &json!({"ExpirationTTL": "90s"}));
    let secret = token["SecretID"].as_str();
    assert_eq!(world.server.next_deadline(), Some(START.plus(std::time::Duration::from_secs(90))));
    world.passes(89);
    assert_eq!(world.call(secret, "GET", "/v1/acl/token/self", &Value::Null).status, 200);
    world.passes(1);
    assert_eq!(world.call(secret, "GET", "/v1/acl/token/self", &Value::Null).status, 403);
    assert_eq!(world.server.next_deadline(), None);
}

#[test]
fn disabled_acls_allow_everything_but_acl_endpoints() {
    let mut world =
        ConsulServerFixture::with(ConsulConfig { acls_enabled: false, ..ConsulConfig::default() });
    assert_eq!(world.call(None, "GET", "/v1/acl/tokens", &Value::Null).status, 401);
    let node = json!({"Node": "n", "Address": "10.0.0.1"});
    let registered = world.call(None, "PUT", "/v1/catalog/register", &node);
    assert_eq!((registered.status, registered.header("X-Consul-Default-ACL-Policy")), (200, Some("allow")));
    assert_eq!(world.call(None, "GET", "/v1/agent/self", &Value::Null).status, 200);
}

#[test]
fn enterprise_and_other_datacenters_are_rejected() {
    let mut world = ConsulServerFixture::new();
    let mut status = |path: &str| world.call(Some(MANAGEMENT), "GET", path, &Value::Null).status;
    assert_eq!(status("/v1/acl/tokens?ns=default"), 400);
    assert_eq!(status("/v1/acl/tokens?partition=default"), 400);
    assert_eq!(status("/v1/acl/tokens?dc=elsewhere"), 500);
    assert_eq!(status("/v1/acl/tokens?dc=dc1"), 200);
}

#[test]
fn writes_are_journaled_without_secrets() {
    let mut world = ConsulServerFixture::new();
    let token = world.done("PUT", "/v1/acl/token", &json!({"Description": "a"}));
    let accessor = token["AccessorID"].as_str().unwrap();
    world.done("DELETE", &format!("/v1/acl/token/{accessor}"), &Value::Null);
    let journal = world.server.take_journal();
    let seen = journal.iter().map(|e| (e.kind, e.id.as_str(), e.before.is_some(), e.after.is_some()));
    let seen: Vec<_> = seen.collect();
    assert_eq!(seen, [("token", accessor, false, true), ("token", accessor, true, false)]);
    assert!(!format!("{journal:?}").contains(token["SecretID"].as_str().unwrap()));
    assert!(!format!("{:?}", world.server).contains(MANAGEMENT));
}

#[test]
fn authorize_agrees_with_enforcement() {
    let mut world = ConsulServerFixture::new();
    let rules = "acl = \"read\" service_prefix \"web\" { policy = \"write\" }";
    world.done("PUT", "/v1/acl/policy", &json!({"Name": "p", "Rules": rules}));
    let token = world.done("PUT", "/v1/acl/token", &json!({"Policies": [{"Name": "p"}]}));
    let secret = token["SecretID"].as_str();
    let ask = |world: &mut ConsulServerFixture, secret: Option<&str>, question: Value| {
        world.call(secret, "POST", "/v1/internal/acl/authorize", &json!([question]))
    };
    for (resource, segment, access, allowed) in [
        ("acl", "", "read", true),
        ("acl", "", "write", false),
        ("service", "web-2", "write", true),
        ("service", "", "write", false),
        ("node", "x", "write", false),
    ] {
        let question = json!({"Resource": resource, "Segment": segment, "Access": access});
        let answers = ask(&mut world, secret, question.clone()).json();
        assert_eq!(answers[0]["Allow"], allowed, "{question}");
        assert_eq!(ask(&mut world, Some(MANAGEMENT), question).json()[0]["Allow"], true);
    }
    let question = || json!({"Resource": "acl", "Access": "read"});
    assert_eq!(ask(&mut world, Some("00000000-dead-beef-0000-000000000000"), question()).status, 403);
    for wrong in [
        json!({"Resource": "x", "Access": "read"}),
        json!({"Resource": "acl", "Access": "read", "Namespace": "x"}),
    ] {
        assert_eq!(ask(&mut world, secret, wrong).status, 400);
    }
    let many = json!(vec![question(); 65]);
    assert_eq!(world.call(secret, "POST", "/v1/internal/acl/authorize", &many).status, 400);
}
