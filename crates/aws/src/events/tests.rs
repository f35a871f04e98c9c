//! Decoding of whole bodies in the shape that AWS documents.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::*;

const SECRET: &str = "PLANTED-SECRET";

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/fixtures/events/{name}.json"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn fixtures() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/events");
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .map(|name| (name.clone(), fixture(&name)))
        .collect()
}

fn hint(name: &str) -> TaskHint {
    match decode(&fixture(name)) {
        Decoded::Task(hint) => hint,
        other => panic!("{name}: {other:?}"),
    }
}

/// A running task's event with one field set; `null` counts as absent.
fn changed(pointer: &str, value: Value) -> Decoded {
    let mut event: Value = serde_json::from_str(&fixture("task_fargate_running")).unwrap();
    *event.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is not in the fixture")) = value;
    decode(&event.to_string())
}

fn poison(decoded: Decoded) -> (&'static str, String) {
    match decoded {
        Decoded::Poison { reason, path } => (reason.label(), path),
        other => panic!("not poison: {other:?}"),
    }
}

fn ignored(decoded: Decoded) -> &'static str {
    match decoded {
        Decoded::Ignored { detail_type } => detail_type,
        other => panic!("not ignored: {other:?}"),
    }
}

#[test]
fn event_names_the_task_its_version_and_its_state() {
    let hint = hint("task_fargate_running");
    let task = "arn:aws:ecs:eu-west-1:111122223333:task/prod/3f2a9c0d5e6b4a718293a4b5c6d7e8f9";
    assert_eq!(hint.task.to_string(), task);
    assert_eq!((hint.version, hint.state), (4, HintedState::Running));
}

#[test]
fn each_lifecycle_stage_is_read() {
    use HintedState::{Running, Stopped, Stopping};
    for (name, state) in [
        ("task_provisioning_without_address", Running),
        ("task_fargate_running", Running),
        ("task_spot_interruption", Stopping),
        ("task_stopping", Stopping),
        ("task_stopped", Stopped),
        ("task_ec2_bridge", Running),
        ("task_ipv6_only", Running),
        ("task_govcloud", Running),
        ("task_unknown_fields", Running),
        ("task_through_sns", Running),
        ("task_role_override", Running),
        ("task_empty_texts", Running),
    ] {
        assert_eq!(hint(name).state, state, "{name}");
    }
}

#[test]
fn task_event_is_the_same_read_in_one_pass_or_two() {
    let mut read = 0;
    for (name, body) in fixtures() {
        let Some(in_one) = task_state_change::read_body(&body) else { continue };
        let envelope: EventEnvelope<'_> = json::read(&body).unwrap();
        assert_eq!(task_state_change::read(&envelope).unwrap(), in_one, "{name}");
        read += 1;
    }
    assert!(read >= 11, "only {read} of the tasks' events are read in one pass");
}

#[test]
fn short_task_arn_gets_its_cluster_from_the_event() {
    let short = "arn:aws:ecs:eu-west-1:111122223333:task/0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
    let Decoded::Task(hint) = changed("/detail/taskArn", json!(short)) else { panic!("it is a task") };
    assert_eq!(
        hint.task.to_string(),
        "arn:aws:ecs:eu-west-1:111122223333:task/prod/0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
    );
}

#[test]
fn event_from_another_account_or_region_is_poison() {
    for (pointer, value) in [("/account", "444455556666"), ("/region", "us-east-1")] {
        let (reason, path) = poison(changed(pointer, json!(value)));
        assert_eq!((reason, path.as_str()), ("origin_mismatch", &pointer[1..]));
        assert_eq!(poison(changed(pointer, json!(null))).0, "missing_field");
    }
    let mut event: Value = serde_json::from_str(&fixture("cloudtrail_tag_role")).unwrap();
    event["region"] = json!("eu-west-1");
    assert_eq!(poison(decode(&event.to_string())), ("origin_mismatch", "region".to_owned()));
}

#[test]
fn subscription_confirmation_is_recognised() {
    let body = json!({"Type": "SubscriptionConfirmation", "Token": SECRET, "TopicArn": "arn:aws:sns:a:b:c"});
    assert_eq!(decode(&body.to_string()), Decoded::SubscriptionConfirmation);
}

#[test]
fn other_events_are_ignored_with_a_bounded_label() {
    for (name, label) in [
        ("container_instance_state_change", "container_instance_state_change"),
        ("service_action", "service_action"),
        ("cloudtrail_tag_role_denied", "iam_call_failed"),
        ("cloudtrail_create_role", "iam_call"),
    ] {
        assert_eq!(ignored(decode(&fixture(name))), label);
    }
    assert_eq!(ignored(changed("/source", json!("my.app"))), "unexpected_source");
    assert_eq!(ignored(changed("/detail-type", json!("Something New"))), "unknown");
}

#[test]
fn deployment_change_has_service_and_deployment() {
    let body = fixture("deployment_state_change");
    let service = "arn:aws:ecs:eu-west-1:111122223333:service/prod/kv";
    let hint = |service| {
        let service = EcsServiceArn::parse(service).unwrap();
        Decoded::Deployment(DeploymentHint { service, deployment: "ecs-svc/1234567890123456789".to_owned() })
    };
    assert_eq!(decode(&body), hint(service));
    let changed = |pointer: &str, value: Value| {
        let mut event: Value = serde_json::from_str(&body).unwrap();
        *event.pointer_mut(pointer).unwrap() = value;
        decode(&event.to_string())
    };
    let short = "arn:aws:ecs:eu-west-1:111122223333:service/kv";
    assert_eq!(changed("/resources/0", json!(short)), hint(short));
    for (pointer, value, reason, path) in [
        ("/resources", json!([]), "missing_field", "resources[0]"),
        ("/resources", json!("kv"), "wrong_type", "resources"),
        ("/resources/0", json!("kv"), "invalid_arn", "resources[0]"),
        ("/account", json!("444455556666"), "origin_mismatch", "account"),
        ("/region", json!("us-east-1"), "origin_mismatch", "region"),
        ("/detail/deploymentId", json!(null), "missing_field", "detail.deploymentId"),
        ("/detail/deploymentId", json!("ecs-svc/\n"), "invalid_name", "detail.deploymentId"),
        ("/detail/deploymentId", json!("x".repeat(10_000)), "invalid_name", "detail.deploymentId"),
    ] {
        assert_eq!(poison(changed(pointer, value)), (reason, path.to_owned()), "{pointer}");
    }
}

#[test]
fn role_change_has_role_account_and_time() {
    for (name, event) in [
        ("cloudtrail_tag_role", RoleEvent::TagRole),
        ("cloudtrail_untag_role", RoleEvent::UntagRole),
        ("cloudtrail_delete_role", RoleEvent::DeleteRole),
    ] {
        assert_eq!(
            decode(&fixture(name)),
            Decoded::RoleChange {
                role_name: "kv-task".to_owned(),
                account: "111122223333".to_owned(),
                event,
                at: Timestamp::parse("2026-11-22T03:30:05Z"),
            }
        );
    }
}

#[test]
fn poison_names_the_field() {
    for (pointer, value, reason, path) in [
        ("/detail", json!(null), "missing_field", "detail"),
        ("/detail", json!("x"), "wrong_type", "detail"),
        ("/detail-type", json!(null), "missing_field", "detail-type"),
        ("/source", json!(""), "missing_field", "source"),
        ("/detail/taskArn", json!(null), "missing_field", "detail.taskArn"),
        ("/detail/taskArn", json!(7), "wrong_type", "detail.taskArn"),
        (
            "/detail/taskArn",
            json!("arn:aws:ecs:eu-west-1:111122223333:task/"),
            "invalid_arn",
            "detail.taskArn",
        ),
        (
            "/detail/taskArn",
            json!("arn:aws:ecs:eu-west-1:444455556666:task/3f2a"),
            "invalid_arn",
            "detail.taskArn",
        ),
        ("/detail/clusterArn", json!(""), "missing_field", "detail.clusterArn"),
        (
            "/detail/clusterArn",
            json!("arn:aws:ecs:eu-west-1:111122223333:cluster/other"),
            "cluster_mismatch",
            "detail.clusterArn",
        ),
        ("/detail/lastStatus", json!("DANCING"), "unknown_status", "detail.lastStatus"),
        ("/detail/desiredStatus", json!("running"), "unknown_status", "detail.desiredStatus"),
        ("/detail/desiredStatus", json!(null), "missing_field", "detail.desiredStatus"),
        ("/detail/version", json!(null), "missing_field", "detail.version"),
        ("/detail/version", json!(-1), "invalid_version", "detail.version"),
        ("/detail/version", json!(1.5), "invalid_version", "detail.version"),
        ("/detail/version", json!("4"), "wrong_type", "detail.version"),
    ] {
        let found = poison(changed(pointer, value.clone()));
        assert_eq!((found.0, found.1.as_str()), (reason, path), "{pointer} = {value}");
    }
}

#[test]
fn role_change_with_invalid_role_is_poison() {
    for (pointer, value, reason, path) in [
        ("/account", json!("1"), "invalid_name", "account"),
        ("/detail/requestParameters", json!(null), "missing_field", "detail.requestParameters.roleName"),
        (
            "/detail/requestParameters/roleName",
            json!("a/b"),
            "invalid_name",
            "detail.requestParameters.roleName",
        ),
        ("/detail/eventName", json!(null), "missing_field", "detail.eventName"),
    ] {
        let mut event: Value = serde_json::from_str(&fixture("cloudtrail_tag_role")).unwrap();
        *event.pointer_mut(pointer).unwrap() = value;
        let found = poison(decode(&event.to_string()));
        assert_eq!((found.0, found.1.as_str()), (reason, path), "{pointer}");
    }
}

#[test]
fn body_without_event_is_poison() {
    for (body, reason, path) in [
        ("", "not_json", "line 1 column 0"),
        ("hello", "not_json", "line 1 column 1"),
        ("{} {}", "not_json", "line 1 column 4"),
        ("null", "wrong_type", "the body"),
        ("[]", "wrong_type", "the body"),
        ("{}", "missing_field", "detail-type"),
        (r#"{"source":"aws.ecs","source":"aws.ecs"}"#, "wrong_type", "the body"),
        (r#"{"Type":"Notification","Message":"hello"}"#, "not_json", "line 1 column 1"),
        (r#"{"Type":"Notification"}"#, "missing_field", "detail-type"),
    ] {
        let found = poison(decode(body));
        assert_eq!((found.0, found.1.as_str()), (reason, path), "{body:?}");
    }
}

#[test]
fn nested_sns_envelope_is_unwrapped_once() {
    let inner = json!({"Type": "Notification", "Message": fixture("task_fargate_running")}).to_string();
    let outer = json!({"Type": "Notification", "Message": inner}).to_string();
    assert_eq!(poison(decode(&outer)), ("missing_field", "detail-type".to_owned()));
}

#[test]
fn body_over_one_mebibyte_is_not_parsed() {
    let padded = |to: usize| {
        let body = fixture("task_fargate_running");
        let padding = " ".repeat(to - body.len());
        body + &padding
    };
    assert!(matches!(decode(&padded(MAX_BODY_BYTES)), Decoded::Task(_)));
    assert_eq!(poison(decode(&padded(MAX_BODY_BYTES + 1))).0, "too_large");
}

#[test]
fn deep_nesting_is_harmless() {
    for open in ["[", r#"{"a":"#, r#"{"detail":"#, r#"{"detail":{"overrides":{"containerOverrides":["#] {
        let body = open.repeat(MAX_BODY_BYTES / open.len());
        assert_eq!(poison(decode(&body)).0, if open == "[" { "wrong_type" } else { "not_json" });
    }
}

#[test]
fn secrets_in_overrides_are_never_output() {
    let body = fixture("task_secrets_in_overrides");
    assert!(body.contains(SECRET));
    assert!(!format!("{:?}", decode(&body)).contains(SECRET));
}

/// Corrupts every fixture in thousands of seeded ways. A failure prints its seed.
#[test]
fn broken_bodies_neither_panic_nor_echo_a_secret() {
    let fixtures = fixtures();
    let planted: Vec<String> = fixtures
        .values()
        .cloned()
        .chain(fixtures.values().map(|body| with_secrets_everywhere(body)))
        .collect();
    for seed in 0..6_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let body = broken(&planted[random.usize(..planted.len())], &mut random);
        let text = std::panic::catch_unwind(|| format!("{:?}", decode(&body)))
            .unwrap_or_else(|_| panic!("seed {seed} panics"));
        assert!(!text.contains(SECRET), "seed {seed} echoes a secret");
    }
}

/// The body with every text of its detail replaced by a secret.
fn with_secrets_everywhere(body: &str) -> String {
    fn plant(value: &mut Value) {
        match value {
            Value::String(text) => SECRET.clone_into(text),
            Value::Array(items) => items.iter_mut().for_each(plant),
            Value::Object(fields) => fields.values_mut().for_each(plant),
            _ => {}
        }
    }
    let mut event: Value = serde_json::from_str(body).unwrap();
    if let Some(detail) = event.pointer_mut("/detail") {
        plant(detail);
    }
    event.to_string()
}

fn broken(body: &str, random: &mut fastrand::Rng) -> String {
    if random.bool() {
        return with_a_field_broken(body, random);
    }
    let mut bytes = body.as_bytes().to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..bytes.len());
        match random.u8(..4) {
            0 => bytes.truncate(at.max(1)),
            1 => bytes[at] = random.u8(..),
            2 => bytes[at] = *random.choice(b"\"{}[]:,\\0-").unwrap(),
            _ => drop(bytes.remove(at.min(bytes.len() - 1))),
        }
        if bytes.is_empty() {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn with_a_field_broken(body: &str, random: &mut fastrand::Rng) -> String {
    let mut event: Value = serde_json::from_str(body).unwrap();
    break_within(&mut event, random);
    event.to_string()
}

/// Walks down at random, then removes a field or replaces a value.
fn break_within(at: &mut Value, random: &mut fastrand::Rng) {
    let stop = random.u8(..4) == 0;
    match at {
        Value::Object(fields) if !fields.is_empty() => {
            let key = random.choice(fields.keys().cloned().collect::<Vec<_>>()).unwrap();
            if stop {
                fields.remove(&key);
            } else {
                break_within(&mut fields[&key], random);
            }
        }
        Value::Array(items) if !items.is_empty() && !stop => {
            let index = random.usize(..items.len());
            break_within(&mut items[index], random);
        }
        leaf => {
            // The blank makes it an invalid role name; valid ones are read on purpose.
            let secret = format!("{SECRET} x");
            let others = [json!(null), json!(secret), json!(-1), json!([secret]), json!({SECRET: secret})];
            *leaf = random.choice(others).unwrap();
        }
    }
}
