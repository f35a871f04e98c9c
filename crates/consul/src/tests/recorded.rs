//! Replays exchanges recorded from a 1.21 server and its logins, if a directory of recordings is given.

use std::path::PathBuf;

use super::*;
use ecs_mesh_control_plane::RegistrationOwner;
use ecs_mesh_control_plane::list_owned;

/// Names the directory that holds `consul-1.21.jsonl` and `consul-ecs-objects.json`.
const DIRECTORY: &str = "ECS_MESH_RECORDINGS";

/// Fields that the server computes or that the path contains.
const NOT_SENT: [&str; 6] = ["CreateIndex", "ModifyIndex", "Hash", "SecretID", "AccessorID", "CreateTime"];

fn recorded(name: &str) -> Option<String> {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        println!("skipped: {DIRECTORY} names no directory with recorded exchanges");
        return None;
    };
    Some(std::fs::read_to_string(PathBuf::from(directory).join(name)).unwrap())
}

/// The body that an unchanged update of a stored object sends.
async fn sent_back(stored: &Value) -> Value {
    let script = ScriptedConsulTransport::of(vec![responds(200, stored), responds(200, stored)]);
    let objects = consul(&script).objects();
    match stored {
        stored if stored.get("BindType").is_some() => {
            let rule = objects.binding_rule("x").await.unwrap().unwrap();
            objects.put_binding_rule(&rule).await.unwrap();
        }
        stored if stored.get("Type").is_some() => {
            let method = objects.auth_method("x").await.unwrap().unwrap();
            objects.put_auth_method(&method).await.unwrap();
        }
        stored if stored.get("Rules").is_some() => {
            let policy = objects.policy("x").await.unwrap().unwrap();
            objects.put_policy(&policy).await.unwrap();
        }
        stored if stored.get("AccessorID").is_some() => {
            let token = objects.anonymous_token().await.unwrap().unwrap();
            objects.put_anonymous_token(&token).await.unwrap();
        }
        _ => {
            let role = objects.role("x").await.unwrap().unwrap();
            objects.put_role(&role).await.unwrap();
        }
    }
    script.body(1)
}

#[tokio::test(start_paused = true)]
async fn recorded_objects_round_trip_unchanged() {
    let Some(text) = recorded("consul-ecs-objects.json") else { return };
    let all: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    let mut compared = 0;
    for (name, stored) in all {
        let kind = name.split('.').next().unwrap();
        if !["auth-method", "binding-rule", "policy", "role", "token"].contains(&kind) {
            continue;
        }
        let mut wanted = stored.clone();
        wanted.as_object_mut().unwrap().retain(|field, _| !NOT_SENT.contains(&field.as_str()));
        if kind == "role" {
            wanted.as_object_mut().unwrap().entry("Policies").or_insert_with(|| json!([]));
        }
        assert_eq!(sent_back(&stored).await, wanted, "{name}");
        compared += 1;
    }
    assert!(compared > 10, "only {compared} objects were found");
}

#[tokio::test(start_paused = true)]
async fn recorded_registrations_belong_to_their_tasks() {
    let Some(text) = recorded("consul-ecs-objects.json") else { return };
    let all: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    let logins: Vec<Value> = all
        .iter()
        .filter(|(name, _)| name.starts_with("cli-login-token"))
        .map(|(_, token)| token.clone())
        .collect();
    let services = &all["catalog-node-services.one-service"];
    let anchor = ClusterArn::parse(services["Node"]["Node"].as_str().unwrap()).unwrap();
    let script = ScriptedConsulTransport::of(vec![tokens(&logins), responds(200, services)]);
    let owned = complete(list_owned(&consul(&script), &BTreeSet::from([anchor.clone()])).await);
    assert_eq!(owned.len(), logins.len() + 1);
    let one = ecs_mesh_core::intent::OwnershipLabels::of(
        &operator(),
        &anchor.task(TaskId::parse(&format!("{:032x}", 1)).unwrap()),
    );
    let of_one = owned
        .iter()
        .filter(|registration| registration.owner == RegistrationOwner::Owned(one.clone()))
        .count();
    assert_eq!(of_one, 2, "its token and its service: {owned:?}");
}

#[tokio::test(start_paused = true)]
async fn recorded_lists_are_read_completely() {
    let Some(text) = recorded("consul-1.21.jsonl") else { return };
    let mut read = 0;
    for line in text.lines() {
        let exchange: Value = serde_json::from_str(line).unwrap();
        let path = exchange["path"].as_str().unwrap();
        let is_list = path.starts_with("/v1/acl/tokens") || path.starts_with("/v1/catalog/node-services");
        if !is_list || exchange["status"] != 200 {
            continue;
        }
        let response = responds(200, &exchange["response"]);
        let responses =
            if path.starts_with("/v1/acl") { vec![response, no_node()] } else { vec![tokens(&[]), response] };
        // After an empty node the client checks the own token.
        let responses = [responses, vec![known_token()]].concat();
        let (consul, reported) = observed(&ScriptedConsulTransport::of(responses));
        list_owned(&consul, &clusters()).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        // The recorded foreign service has no metadata, so it is not owned.
        assert!(!reported.all().contains(&"list_owned skipped".to_owned()), "{path}: {:?}", reported.all());
        read += 1;
    }
    assert!(read > 15, "only {read} lists were found");
}
