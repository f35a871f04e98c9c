//! `plan` and `run --dry-run`: what they say is what a run then does, and they write nothing.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::harness::{Harness, OperatorProcess, binding, control_plane, document, eventually, workload};

/// The items of a plan, as (name, change, blocked by).
fn items(plan: &Value) -> BTreeSet<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = plan["items"].as_array().unwrap().iter();
    all.map(|item| (text(&item["name"]), text(&item["change"]), text(&item["blockedBy"]))).collect()
}

/// What a run's log says that it did, in a plan's words.
fn done(operator: &OperatorProcess) -> BTreeSet<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lines = operator.lines(&[("task", ""), ("change", ""), ("result", "success")]).into_iter();
    lines.map(|line| (text(&line["name"]), text(&line["change"]), String::new())).collect()
}

/// The run does just what the plan says. (A line of the log comes after the write that it tells of.)
async fn does(operator: &OperatorProcess, plan: &Value) {
    let all = || async { (done(operator).len() >= items(plan).len()).then_some(()) };
    eventually("the run has done as much as was planned", all).await;
    assert_eq!(done(operator), items(plan));
}

async fn end(mut operator: OperatorProcess) {
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0), "{}", operator.stderr());
}

fn outbounds(port: u16) -> String {
    let outbound = format!("{{service: app, targetPort: 15000, listen: {{port: {port}}}}}");
    document("OutboundList", "callers", &format!("{{workloads: [app], outbounds: [{outbound}]}}"))
}

#[tokio::test]
async fn run_applies_exactly_what_plan_shows() {
    let house = Harness::open().await;
    house.deploy("app", 3).await;
    house.running(3).await;
    house.manifest("base.yaml", &house.usual());
    // Without the queue: old events of a stopped task would have it drained first, and then removed.
    let mut environment = house.environment.clone();
    environment.remove("ECS_MESH_QUEUE_URL");

    // Nothing is there yet.
    let (code, plan) = house.plan().await;
    assert_eq!((code, &plan["summary"]["create"], &plan["complete"]), (2, &json!(3), &json!(true)), "{plan}");
    assert_eq!(house.dataplanes().await.len(), 0, "a plan wrote something");
    let operator = house.operator_with("first", &environment, &[]);
    let made = house.dataplanes_once("three Dataplanes", |found| found.len() == 3).await;
    does(&operator, &plan).await;
    for item in plan["items"].as_array().unwrap() {
        let (planned, real) = (&item["registration"], &made[item["name"].as_str().unwrap()]);
        assert_eq!(planned["networking"]["address"], real["networking"]["address"], "{item}");
        assert_eq!(
            planned["networking"]["inbound"][0]["port"], real["networking"]["inbound"][0]["port"],
            "{item}"
        );
    }
    end(operator).await;

    // One task goes, and the others get an outbound.
    let stopped = house.task_ids().await[0].clone();
    house.scale("app", 2).await;
    house.ecs().stop_task().cluster("sandbox").task(&stopped).send().await.unwrap();
    let tasks = eventually("two tasks, the stopped one gone", || async {
        let tasks = house.task_ids().await;
        let described = house.ecs().describe_tasks().cluster("sandbox").tasks(&stopped).send().await.unwrap();
        let gone = described.tasks().iter().all(|task| task.last_status() == Some("STOPPED"));
        (gone && tasks.len() == 2 && !tasks.contains(&stopped)).then_some(tasks)
    })
    .await;
    house.manifest("outbounds.yaml", &outbounds(6000));
    let (code, plan) = house.plan().await;
    assert_eq!(code, 2, "{plan}");
    let update = plan["items"].as_array().unwrap().iter().find(|item| item["change"] == "update").unwrap();
    assert_eq!(update["fields"][0]["path"], "networking.outbound", "{update}");
    assert_eq!(update["fields"].as_array().unwrap().len(), 1, "{update}");
    let removal = plan["items"].as_array().unwrap().iter().find(|item| item["change"] == "remove").unwrap();
    assert_eq!((&removal["name"], &removal["evidence"]), (&json!(stopped), &json!("stopped")), "{removal}");
    let operator = house.operator_with("second", &environment, &[]);
    house
        .dataplanes_once("the removal and the outbounds", |found| {
            found.keys().all(|name| tasks.contains(name))
                && found.values().all(|plane| plane["networking"]["outbound"][0]["port"] == 6000)
        })
        .await;
    does(&operator, &plan).await;
    end(operator).await;

    let (code, plan) = house.plan().await;
    assert_eq!((code, &plan["summary"]["unchanged"], &plan["items"]), (0, &json!(2), &json!([])), "{plan}");
    let (code, text, _) = house.ask(&["plan"]).await;
    assert_eq!((code, text.lines().count()), (0, 1), "{text}");
    assert!(text.contains("2 unchanged"), "{text}");
}

#[tokio::test]
async fn plan_lists_skipped_changes_with_reason() {
    let house = Harness::open().await;
    for service in ["app", "bare", "other"] {
        house.define(service).await;
        if service == "bare" {
            house
                .iam()
                .create_role()
                .role_name("bare-task")
                .assume_role_policy_document("{}")
                .send()
                .await
                .unwrap();
        } else {
            house.role(service).await;
        }
        house.serve("sandbox", service, 1).await;
    }
    house.running(3).await;
    house.manifest("base.yaml", &[house.usual(), workload("bare", "bare")].concat());
    let (code, plan) = house.plan().await;
    assert_eq!((code, &plan["summary"]["create"]), (2, &json!(1)), "{plan}");
    assert_eq!((&plan["summary"]["reject"], &plan["summary"]["ignore"]), (&json!(1), &json!(1)), "{plan}");
    let (_, text, _) = house.ask(&["plan", "--all"]).await;
    for words in
        ["+ create", "x reject", "kuma.io/mesh", "Workload", "1 to create", "1 rejected"]
    {
        assert!(text.contains(words), "{words} is not in:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colours in a file:\n{text}");

    // The same under a pause: nothing would be done.
    let paused = [
        control_plane("kuma", house.variable("KUMA_API_URL"), ""),
        binding("house", "kuma", house.variable("ECS_MESH_CLUSTER_ARN"), ", paused: true"),
        workload("app", "app"),
    ];
    house.manifest("base.yaml", &paused.concat());
    let (code, plan) = house.plan().await;
    assert_eq!(
        (code, &plan["summary"]["paused"], &plan["summary"]["create"]),
        (0, &json!(1), &json!(0)),
        "{plan}"
    );
}

#[tokio::test]
async fn plan_shows_changes_held_by_the_guard() {
    let house = Harness::open().await;
    house.deploy("app", 12).await;
    house.manifest("base.yaml", &house.usual());
    let operator = house.operator(&[]);
    house.dataplanes_once("twelve Dataplanes", |found| found.len() == 12).await;
    end(operator).await;

    // A slip in a selector: no workload takes them any more.
    house.manifest("base.yaml", &house.usual().replace("families: [app]", "families: [ap]"));
    let (code, plan) = house.plan().await;
    let summary = &plan["summary"];
    assert_eq!((code, &summary["drain"], &summary["heldByGuard"]), (2, &json!(3), &json!(9)), "{plan}");

    // And what ECS no longer lists is shown as a removal to come.
    let gone = json!({
        "type": "Dataplane", "mesh": "default", "name": "ffffffffffffffffffffffffffffffff",
        "labels": house.dataplanes().await.values().next().unwrap()["labels"].as_object().unwrap().iter()
            .filter(|(key, _)| key.starts_with("ecs-mesh.dev/"))
            .map(|(key, value)| {
                let value = if key.ends_with("task-id") { json!("f".repeat(32)) } else { value.clone() };
                (key.clone(), value)
            }).collect::<serde_json::Map<_, _>>(),
        "networking": {"address": "10.0.77.77", "inbound": [{"port": 1, "tags": {"kuma.io/service": "app", "kuma.io/protocol": "http"}}]},
    });
    house.put(&format!("/meshes/default/dataplanes/{}", "f".repeat(32)), &gone).await;
    house.manifest("base.yaml", &house.usual());
    let (code, plan) = house.plan().await;
    assert_eq!((code, plan["items"].as_array().unwrap().len()), (2, 1), "{plan}");
    let item = &plan["items"][0];
    assert_eq!((&item["change"], &item["name"]), (&json!("remove"), &json!("f".repeat(32))), "{plan}");
    assert!(!item["precondition"].as_str().unwrap().is_empty(), "{plan}");
}

#[tokio::test]
async fn a_renamed_binding_does_not_get_past_its_guard() {
    let house = Harness::open().await;
    house.deploy("app", 12).await;
    house.manifest("base.yaml", &house.usual());
    let operator = house.operator(&["--graceful-shutdown-timeout", "5s"]);
    house.dataplanes_once("twelve Dataplanes", |found| found.len() == 12).await;
    // At one stroke the binding gets another name, and a slip leaves no workload for the tasks.
    let renamed =
        house.usual().replace("name: house", "name: mansion").replace("families: [app]", "families: [ap]");
    house.manifest("base.yaml", &renamed);
    let guard = [("level", "WARN"), ("reason", "held_by_guard")];
    operator.line(&guard).await;
    house.dataplanes_once("three go", |found| found.len() == 9).await;
    // Not a line each, but their number, as often as it has doubled.
    let most = || operator.lines(&guard).iter().filter_map(|line| line["tasks"].as_u64()).max();
    let stops_delivered = || async { most().filter(|tasks| (5..=9).contains(tasks)) };
    eventually("the guard has answered for the rest", stops_delivered).await;
    assert!(operator.lines(&guard).len() <= 4, "{}", operator.stderr());
    assert_eq!(house.dataplanes().await.len(), 9);
    end(operator).await;
}

/// Hands everything on to `url`, but for one call, which it denies.
async fn deny(url: String, what: &'static str) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let handle = move |request: Request| {
        let (client, url) = (client.clone(), url.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = to_bytes(body, 1 << 20).await.unwrap();
            if String::from_utf8_lossy(&body).contains(what) {
                let xml = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User: \
                           arn:aws:iam::111122223333:user/x is not authorized</Message></Error></ErrorResponse>";
                return (StatusCode::FORBIDDEN, [("content-type", "text/xml")], xml).into_response();
            }
            let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
            let answer =
                client.request(parts.method, format!("{url}{path}")).headers(parts.headers).body(body);
            let answer = answer.send().await.unwrap();
            let (status, headers) = (answer.status(), answer.headers().clone());
            let mut response = Response::new(Body::from(answer.bytes().await.unwrap()));
            (*response.status_mut(), *response.headers_mut()) = (status, headers);
            response.headers_mut().remove("transfer-encoding");
            response
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handle)).await });
    format!("http://{address}")
}

#[tokio::test]
async fn plan_reports_unknown_and_plans_the_rest() {
    let mut house = Harness::open().await;
    house.deploy("app", 1).await;
    house.running(1).await;
    // A control plane that is not there, and one that is; GetRole is denied, and one binding does without.
    let cluster = house.variable("ECS_MESH_CLUSTER_ARN").to_owned();
    let manifests = [
        control_plane("kuma", house.variable("KUMA_API_URL"), ""),
        control_plane("away", "http://127.0.0.1:9", ""),
        binding("house", "kuma", &cluster, ""),
        binding("gone", "away", "arn:aws:ecs:eu-west-1:111122223333:cluster/another", ""),
        workload("app", "app"),
    ];
    house.manifest("base.yaml", &manifests.concat());
    let endpoint = deny(house.variable("AWS_ENDPOINT_URL").to_owned(), "Action=GetRole").await;
    let real = house.environment.insert("AWS_ENDPOINT_URL".to_owned(), endpoint).unwrap();
    let (code, plan) = {
        let (code, out, _) = house.ask(&["plan", "--output", "json", "--retry-timeout", "1s"]).await;
        (code, serde_json::from_str::<Value>(&out).unwrap())
    };
    assert_eq!(
        (code, &plan["complete"], &plan["summary"]["unknown"]),
        (1, &json!(false), &json!(1)),
        "{plan}"
    );
    let why = plan["items"][0]["reason"].as_str().unwrap();
    assert!(why.contains("iam:GetRole") && why.contains("app-task"), "{why}");
    let gaps = plan["unresolved"].to_string();
    assert!(gaps.contains("control plane away") && gaps.contains("cluster/another"), "{gaps}");

    // The rest is planned all the same.
    house.environment.insert("AWS_ENDPOINT_URL".to_owned(), real);
    let (code, out, _) = house.ask(&["plan", "--retry-timeout", "1s"]).await;
    assert_eq!(code, 1, "{out}");
    for words in ["+ create", "control plane away", "1 to create"] {
        assert!(out.contains(words), "{words} is not in:\n{out}");
    }
}

#[tokio::test]
async fn a_plan_without_any_usable_control_plane_says_so_and_ends() {
    let house = Harness::open().await;
    let address = house.variable("KUMA_API_URL").to_owned();
    let manifests = [
        control_plane("kuma", &address, ", tokenFile: /nowhere/token"),
        binding("house", "kuma", house.variable("ECS_MESH_CLUSTER_ARN"), ""),
    ];
    house.manifest("base.yaml", &manifests.concat());
    let (code, out, _) = house.ask(&["plan", "--retry-timeout", "0s"]).await;
    assert_eq!(code, 1, "{out}");
    for words in ["/nowhere/token"] {
        assert!(out.contains(words), "{words}: {out}");
    }
}

#[tokio::test]
async fn dry_run_writes_nothing_and_reads_no_queue() {
    let house = Harness::open().await;
    let queue = house.variable("ECS_MESH_QUEUE_URL").to_owned();
    let refused = ["--dry-run", "--queue-url", &queue, "--dry-run-queue-url", &queue];
    house.manifest("base.yaml", &house.usual());
    let mut twice = house.operator_with("twice", &house.environment, &refused);
    assert_eq!(twice.code().await, Some(1));
    assert!(twice.stderr().contains("--dry-run-queue-url"), "{}", twice.stderr());

    let operator = house.operator(&["--dry-run", "--queue-url", &queue]);
    operator.wait_for_sweeps(1).await;
    house.deploy("app", 1).await;
    let task = eventually("a task", || async { house.task_ids().await.first().cloned() }).await;
    let target = "ecs_mesh_operator::operator::dry_run";
    operator.line(&[("target", target), ("change", "create"), ("task", &task)]).await;
    assert_eq!(operator.lines(&[("target", "audit")]), Vec::<Value>::new());
    let sqs = house.sqs();
    let attributes = sqs.get_queue_attributes().queue_url(&queue);
    let attributes = attributes.attribute_names("All".into()).send().await.unwrap();
    let waiting = &attributes.attributes().unwrap()
        [&aws_sdk_sqs::types::QueueAttributeName::ApproximateNumberOfMessages];
    assert_ne!(waiting, "0", "the dry run took the real operator's events");
    assert_eq!(house.dataplanes().await.len(), 0);
    end(operator).await;
}
