//! One step: the reads before it, the request, and the error of a refusal.

use super::*;
use crate::backend::{WriteGate, WriteResult};
use crate::desired::{ObjectId, ObjectScope};
use crate::plan::{AclAction, AclStep};
use ecs_mesh_control_plane::{ControlPlane, MeshErrorKind};
use ecs_mesh_core::plan::report::ObjectKind;

const METHOD: &str = "iam-ecs-service-token";
const ROLE: &str = "consul-ecs-mesh-gateway-role";

fn step(kind: ObjectKind, name: &str, action: AclAction) -> AclStep {
    let id = ObjectId { kind, scope: ObjectScope::default(), name: name.into() };
    AclStep { id, server_id: None, action, reason: String::new(), warnings: Vec::new(), before: None }
}

fn create(kind: ObjectKind, name: &str, body: Value) -> AclStep {
    step(kind, name, AclAction::Create { body })
}

fn yes() -> WriteGate {
    WriteGate::Allowed
}

fn owned(mut body: Value) -> Value {
    body["Description"] = json!("made [ecs-mesh:op-1]");
    body
}

fn role() -> Value {
    owned(json!({"ID": accessor(70), "Name": ROLE}))
}

fn policy() -> Value {
    owned(json!({"ID": accessor(71), "Name": "p", "Rules": "mesh = \"write\""}))
}

fn removal(kind: ObjectKind, before: Value) -> AclStep {
    let server_id = before["ID"].as_str().map(Arc::from);
    let before = Some(before);
    AclStep { server_id, before, ..step(kind, "x", AclAction::Remove) }
}

fn rule_of(method: &str, bind_type: &str, bind_name: &str, description: &str) -> Value {
    json!([{
        "ID": accessor(9), "AuthMethod": method, "BindType": bind_type, "BindName": bind_name,
        "Description": description,
    }])
}

/// The auth methods: an owned one and another one.
fn methods() -> ScriptedResult {
    responds(200, &json!([owned(json!({"Name": METHOD, "Type": "aws-iam"})), {"Name": "sso", "Type": "jwt"}]))
}

fn by(method: &str, number: u32) -> Value {
    json!({"AccessorID": accessor(number), "SecretID": "hunter2", "AuthMethod": method})
}

#[tokio::test(start_paused = true)]
async fn invalid_selector_error_quotes_call_and_server() {
    let body = json!({"AuthMethod": METHOD, "BindType": "service", "BindName": "x", "Selector": "1 =="});
    let script =
        ScriptedConsulTransport::of(vec![responds(200, &json!([])), text(500, "no good selector: 1 ==")]);
    let step = create(ObjectKind::BindingRule, "iam-ecs-service-token/service", body);
    let error = acl(&script).apply(&step, &yes).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Invalid, "trying again soon would change nothing");
    for words in ["PUT /v1/acl/binding-rule", "500", "no good selector: 1 =="] {
        assert!(error.message.contains(words), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn binding_rule_created_meanwhile_is_not_duplicated() {
    // A rule for every login has an empty selector.
    let body = owned(json!({"AuthMethod": METHOD, "BindType": "service", "BindName": "x"}));
    let step = create(ObjectKind::BindingRule, "iam-ecs-service-token/service", body.clone());
    let made = |selector: &str| {
        let mut rule = rule_of(METHOD, "service", "x", "by hand");
        rule[0]["Selector"] = selector.into();
        responds(200, &rule)
    };
    let script = ScriptedConsulTransport::of(vec![made("")]);
    let written = acl(&script).apply(&step, &yes).await.unwrap();
    assert!(
        matches!(&written, WriteResult::Stale(reason) if reason.contains("created by another client")),
        "{written:?}"
    );
    assert_eq!(script.calls(), [format!("GET /v1/acl/binding-rules?authmethod={METHOD}")]);
    let script = ScriptedConsulTransport::of(vec![made("entity_name == \"y\""), responds(200, &body)]);
    assert_eq!(acl(&script).apply(&step, &yes).await.unwrap(), WriteResult::Done);
    assert_eq!(script.calls()[1], "PUT /v1/acl/binding-rule", "another selector makes it another rule");
}

#[tokio::test(start_paused = true)]
async fn auth_method_is_skipped_when_type_is_unsupported() {
    let script = ScriptedConsulTransport::of(vec![
        responds(200, &json!({"Config": {"Version": "1.8.7"}})),
        known_token(),
    ]);
    let consul = Arc::new(consul(&script));
    consul.refresh_capabilities(&BTreeSet::new()).await.unwrap();
    let asked = script.calls().len();
    let step = create(ObjectKind::AuthMethod, METHOD, json!({"Name": METHOD, "Type": "aws-iam"}));
    let WriteResult::Unsupported(why) = ConsulAclBackend::new(consul).apply(&step, &yes).await.unwrap()
    else {
        panic!("sent")
    };
    assert!(why.contains("Consul 1.8.7") && why.contains("aws-iam") && why.contains("1.12"), "{why}");
    assert_eq!(script.calls().len(), asked);
}

#[tokio::test(start_paused = true)]
async fn role_references_are_counted_without_secrets() {
    let all =
        [by(METHOD, 1), by(METHOD, 2), by("", 3), json!({"AccessorID": accessor(4), "AuthMethod": null})];
    let script = ScriptedConsulTransport::of(vec![tokens(&all), tokens(&[]), text(403, "Permission denied")]);
    let objects = consul(&script).objects();
    let holders = objects.token_refs(TokenRefKind::Role, &accessor(70)).await.unwrap();
    let words = holders.of_others(|method| method == METHOD).unwrap();
    assert!(words.contains("2 created manually") && !words.contains("hunter2"), "{words}");
    assert!(objects.token_refs(TokenRefKind::Policy, &accessor(71)).await.unwrap().is_empty());
    let error = objects.token_refs(TokenRefKind::Policy, &accessor(71)).await.unwrap_err();
    assert!(error.message.contains("acl = \"read\""), "{error}");
    assert_eq!(
        script.calls()[..2],
        [
            format!("GET /v1/acl/tokens?role={}", accessor(70)),
            format!("GET /v1/acl/tokens?policy={}", accessor(71)),
        ]
    );
}

/// Whether the write was sent, given the server's response to the read before it.
async fn goes(step: &AclStep, probes: Vec<ScriptedResult>) -> bool {
    let script = ScriptedConsulTransport::of(probes);
    let written = acl(&script).apply(step, &yes).await.unwrap();
    let sent = script.calls().iter().any(|call| call.starts_with("DELETE"));
    assert_eq!(written == WriteResult::Done, sent, "{written:?}");
    sent
}

#[tokio::test(start_paused = true)]
async fn role_with_foreign_references_is_not_removed() {
    let now = || responds(200, &role());
    let none = || responds(200, &json!([]));
    let gone = || responds(200, &json!(true));
    for (what, rules, holders, goes_out) in [
        ("no token has it", none(), vec![tokens(&[])], true),
        ("our logins have it", none(), vec![tokens(&[by(METHOD, 1)]), methods()], true),
        ("a person's token", none(), vec![tokens(&[by(METHOD, 1), by("", 2)]), methods()], false),
        ("a login by another method", none(), vec![tokens(&[by("sso", 1)]), methods()], false),
        ("a rule of others", responds(200, &rule_of("sso", "role", ROLE, "SSO")), vec![], false),
        (
            "an owned rule",
            responds(200, &rule_of(METHOD, "role", ROLE, "made [ecs-mesh:op-1]")),
            vec![tokens(&[])],
            true,
        ),
        (
            "a rule for another role",
            responds(200, &rule_of("sso", "role", "a", "SSO")),
            vec![tokens(&[])],
            true,
        ),
    ] {
        let mut answers = vec![now(), rules];
        answers.extend(holders);
        answers.push(gone());
        assert_eq!(goes(&removal(ObjectKind::Role, role()), answers).await, goes_out, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn policy_with_foreign_references_is_not_removed() {
    for (what, holder, goes_out) in [("our login", METHOD, true), ("a person", "", false)] {
        let answers = vec![
            responds(200, &policy()),
            responds(200, &json!([])),
            responds(200, &json!([])),
            tokens(&[by(holder, 1)]),
            methods(),
            responds(200, &json!(true)),
        ];
        assert_eq!(goes(&removal(ObjectKind::Policy, policy()), answers).await, goes_out, "{what}");
    }
}
