//! `plan` and `run --dry-run` show exactly the changes of a later run and write nothing.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::harness::{Harness, OperatorProcess, binding, control_plane, document, eventually, workload};

/// The items of a plan as (name, change, blocked by).
fn items(plan: &Value) -> BTreeSet<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = plan["changes"].as_array().unwrap().iter();
    all.map(|item| (text(&item["name"]), text(&item["change"]), text(&item["blockedBy"]))).collect()
}

/// The changes in a run's log, in the form of [`items`].
fn applied(operator: &OperatorProcess) -> BTreeSet<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lines = operator.lines(&[("task", ""), ("change", ""), ("result", "success")]).into_iter();
    lines.map(|line| (text(&line["name"]), text(&line["change"]), String::new())).collect()
}

/// Checks that the run makes exactly the planned changes. A change is logged after its write, so lines are awaited.
async fn assert_applies(operator: &OperatorProcess, plan: &Value) {
    let all = || async { (applied(operator).len() >= items(plan).len()).then_some(()) };
    eventually("the run has done as much as was planned", all).await;
    assert_eq!(applied(operator), items(plan));
}

async fn stop(mut operator: OperatorProcess) {
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0), "{}", operator.stderr());
}

fn outbounds(port: u16) -> String {
    let outbound = format!("{{service: app, targetPort: 15000, listen: {{port: {port}}}}}");
    document("OutboundList", "callers", &format!("{{workloads: [app], outbounds: [{outbound}]}}"))
}

#[tokio::test]
async fn run_applies_exactly_what_plan_shows() {
    let harness = Harness::start().await;
    harness.deploy("app", 3).await;
    harness.running(3).await;
    harness.manifest("base.yaml", &harness.base_manifests());
    // Without the queue, since old events of a stopped task would drain the registration before its removal.
    let mut environment = harness.environment.clone();
    environment.remove("ECS_MESH_QUEUE_URL");

    // No registration exists.
    let (code, plan) = harness.plan().await;
    assert_eq!((code, &plan["summary"]["create"], &plan["complete"]), (2, &json!(3), &json!(true)), "{plan}");
    assert_eq!(harness.dataplanes().await.len(), 0, "a plan wrote something");
    let operator = harness.operator_with("first", &environment, &[]);
    let made = harness.wait_for_dataplanes("three Dataplanes", |found| found.len() == 3).await;
    assert_applies(&operator, &plan).await;
    for item in plan["changes"].as_array().unwrap() {
        let (planned, real) = (&item["registration"], &made[item["name"].as_str().unwrap()]);
        assert_eq!(planned["networking"]["address"], real["networking"]["address"], "{item}");
        assert_eq!(
            planned["networking"]["inbound"][0]["port"], real["networking"]["inbound"][0]["port"],
            "{item}"
        );
    }
    stop(operator).await;

    // One task stops, and the others get an outbound.
    let stopped = harness.task_ids().await[0].clone();
    harness.scale("app", 2).await;
    harness.ecs().stop_task().cluster("sandbox").task(&stopped).send().await.unwrap();
    let tasks = eventually("two tasks, the stopped one gone", || async {
        let tasks = harness.task_ids().await;
        let described =
            harness.ecs().describe_tasks().cluster("sandbox").tasks(&stopped).send().await.unwrap();
        let gone = described.tasks().iter().all(|task| task.last_status() == Some("STOPPED"));
        (gone && tasks.len() == 2 && !tasks.contains(&stopped)).then_some(tasks)
    })
    .await;
    harness.manifest("outbounds.yaml", &outbounds(6000));
    let (code, plan) = harness.plan().await;
    assert_eq!(code, 2, "{plan}");
    let update = plan["changes"].as_array().unwrap().iter().find(|item| item["change"] == "update").unwrap();
    assert_eq!(update["fields"][0]["path"], "networking.outbound", "{update}");
    assert_eq!(update["fields"].as_array().unwrap().len(), 1, "{update}");
    let removal = plan["changes"].as_array().unwrap().iter().find(|item| item["change"] == "remove").unwrap();
    assert_eq!((&removal["name"], &removal["evidence"]), (&json!(stopped), &json!("stopped")), "{removal}");
    let operator = harness.operator_with("second", &environment, &[]);
    harness
        .wait_for_dataplanes("the removal and the outbounds", |found| {
            found.keys().all(|name| tasks.contains(name))
                && found.values().all(|plane| plane["networking"]["outbound"][0]["port"] == 6000)
        })
        .await;
    assert_applies(&operator, &plan).await;
    stop(operator).await;

    let (code, plan) = harness.plan().await;
    assert_eq!((code, &plan["summary"]["unchanged"], &plan["changes"]), (0, &json!(2), &json!([])), "{plan}");
    let (code, text, _) = harness.run_to_end(&["plan"]).await;
    assert_eq!((code, text.lines().count()), (0, 1), "{text}");
    assert!(text.contains("2 unchanged"), "{text}");
}

#[tokio::test]
async fn plan_lists_skipped_changes_with_reason() {
    let harness = Harness::start().await;
    for service in ["app", "bare", "other"] {
        harness.define(service).await;
        if service == "bare" {
            harness
                .iam()
                .create_role()
                .role_name("bare-task")
                .assume_role_policy_document("{}")
                .send()
                .await
                .unwrap();
        } else {
            harness.role(service).await;
        }
        harness.serve("sandbox", service, 1).await;
    }
    harness.running(3).await;
    harness.manifest("base.yaml", &[harness.base_manifests(), workload("bare", "bare")].concat());
    let (code, plan) = harness.plan().await;
    assert_eq!((code, &plan["summary"]["create"]), (2, &json!(1)), "{plan}");
    assert_eq!((&plan["summary"]["reject"], &plan["summary"]["ignore"]), (&json!(1), &json!(1)), "{plan}");
    let (_, text, _) = harness.run_to_end(&["plan", "--all"]).await;
    for part in ["+ create", "x reject", "kuma.io/mesh", "Workload", "1 to create", "1 rejected"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colours in a file:\n{text}");

    // A paused binding changes nothing.
    let paused = [
        control_plane("kuma", harness.variable("KUMA_API_URL"), ""),
        binding("harness", "kuma", harness.variable("ECS_MESH_CLUSTER_ARN"), ", paused: true"),
        workload("app", "app"),
    ];
    harness.manifest("base.yaml", &paused.concat());
    let (code, plan) = harness.plan().await;
    assert_eq!(
        (code, &plan["summary"]["paused"], &plan["summary"]["create"]),
        (0, &json!(1), &json!(0)),
        "{plan}"
    );
}

#[tokio::test]
async fn plan_shows_changes_held_by_the_guard() {
    let harness = Harness::start().await;
    harness.deploy("app", 12).await;
    harness.manifest("base.yaml", &harness.base_manifests());
    let operator = harness.operator(&[]);
    harness.wait_for_dataplanes("twelve Dataplanes", |found| found.len() == 12).await;
    stop(operator).await;

    // A typo in a selector: no workload selects the tasks.
    harness.manifest("base.yaml", &harness.base_manifests().replace("families: [app]", "families: [ap]"));
    let (code, plan) = harness.plan().await;
    let summary = &plan["summary"];
    assert_eq!((code, &summary["drain"], &summary["heldByGuard"]), (2, &json!(3), &json!(9)), "{plan}");
    // A plan cannot tell an edit from a document that is absent.
    let waits =
        |item: &Value| item["precondition"].as_str().is_some_and(|text| text.contains("cleanup.settle"));
    let drains = plan["changes"].as_array().unwrap().iter().filter(|item| item["change"] == "drain");
    assert!(drains.clone().count() == 12 && drains.clone().all(waits), "{plan}");

    // A registration whose task ECS no longer lists is a future removal.
    let gone = json!({
        "type": "Dataplane", "mesh": "default", "name": "ffffffffffffffffffffffffffffffff",
        "labels": harness.dataplanes().await.values().next().unwrap()["labels"].as_object().unwrap().iter()
            .filter(|(key, _)| key.starts_with("ecs-mesh.dev/"))
            .map(|(key, value)| {
                let value = if key.ends_with("task-id") { json!("f".repeat(32)) } else { value.clone() };
                (key.clone(), value)
            }).collect::<serde_json::Map<_, _>>(),
        "networking": {"address": "10.0.77.77", "inbound": [{"port": 1, "tags": {"kuma.io/service": "app", "kuma.io/protocol": "http"}}]},
    });
    harness.put(&format!("/meshes/default/dataplanes/{}", "f".repeat(32)), &gone).await;
    harness.manifest("base.yaml", &harness.base_manifests());
    let (code, plan) = harness.plan().await;
    assert_eq!((code, plan["changes"].as_array().unwrap().len()), (2, 1), "{plan}");
    let item = &plan["changes"][0];
    assert_eq!((&item["change"], &item["name"]), (&json!("remove"), &json!("f".repeat(32))), "{plan}");
    assert!(!item["precondition"].as_str().unwrap().is_empty(), "{plan}");
}

#[tokio::test]
async fn renamed_binding_keeps_its_guard() {
    let harness = Harness::start().await;
    harness.deploy("app", 12).await;
    harness.manifest("base.yaml", &harness.base_manifests());
    let operator = harness.operator(&["--graceful-shutdown-timeout", "5s"]);
    harness.wait_for_dataplanes("twelve Dataplanes", |found| found.len() == 12).await;
    // One edit renames the binding and, by a typo, leaves the tasks without a workload.
    let renamed = harness
        .base_manifests()
        .replace("name: harness", "name: mansion")
        .replace("families: [app]", "families: [ap]");
    harness.manifest("base.yaml", &renamed);
    let guard = [("level", "WARN"), ("reason", "held_by_guard")];
    operator.line(&guard).await;
    harness.wait_for_dataplanes("three go", |found| found.len() == 9).await;
    // The log has no line for each task but their number, each time it has doubled.
    let most = || operator.lines(&guard).iter().filter_map(|line| line["tasks"].as_u64()).max();
    let guarded = || async { most().filter(|tasks| (5..=9).contains(tasks)) };
    eventually("the guard has answered for the rest", guarded).await;
    assert!(operator.lines(&guard).len() <= 4, "{}", operator.stderr());
    assert_eq!(harness.dataplanes().await.len(), 9);
    stop(operator).await;
}

/// A proxy to `url` that denies one call.
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
    let mut harness = Harness::start().await;
    harness.deploy("app", 1).await;
    harness.running(1).await;
    // One control plane is unreachable, GetRole is denied, and one binding names a missing cluster.
    let cluster = harness.variable("ECS_MESH_CLUSTER_ARN").to_owned();
    let manifests = [
        control_plane("kuma", harness.variable("KUMA_API_URL"), ""),
        control_plane("away", "http://127.0.0.1:9", ""),
        binding("harness", "kuma", &cluster, ""),
        binding("gone", "away", "arn:aws:ecs:eu-west-1:111122223333:cluster/another", ""),
        workload("app", "app"),
    ];
    harness.manifest("base.yaml", &manifests.concat());
    let endpoint = deny(harness.variable("AWS_ENDPOINT_URL").to_owned(), "Action=GetRole").await;
    let real = harness.environment.insert("AWS_ENDPOINT_URL".to_owned(), endpoint).unwrap();
    let (code, plan) = {
        let (code, out, _) = harness.run_to_end(&["plan", "--output", "json", "--retry-timeout", "1s"]).await;
        (code, serde_json::from_str::<Value>(&out).unwrap())
    };
    assert_eq!(
        (code, &plan["complete"], &plan["summary"]["unknown"]),
        (1, &json!(false), &json!(1)),
        "{plan}"
    );
    let reason = plan["changes"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("iam:GetRole") && reason.contains("app-task"), "{reason}");
    let unresolved = plan["unresolved"].to_string();
    assert!(
        unresolved.contains("control plane away") && unresolved.contains("cluster/another"),
        "{unresolved}"
    );

    // The rest is planned.
    harness.environment.insert("AWS_ENDPOINT_URL".to_owned(), real);
    let (code, out, _) = harness.run_to_end(&["plan", "--retry-timeout", "1s"]).await;
    assert_eq!(code, 1, "{out}");
    for part in ["+ create", "control plane away", "1 to create"] {
        assert!(out.contains(part), "{part} is not in:\n{out}");
    }
}

#[tokio::test]
async fn plan_fails_without_a_usable_control_plane() {
    let harness = Harness::start().await;
    let address = harness.variable("KUMA_API_URL").to_owned();
    let manifests = [
        control_plane("kuma", &address, ", tokenFile: /nowhere/token"),
        binding("harness", "kuma", harness.variable("ECS_MESH_CLUSTER_ARN"), ""),
    ];
    harness.manifest("base.yaml", &manifests.concat());
    let (code, out, _) = harness.run_to_end(&["plan", "--retry-timeout", "0s"]).await;
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("/nowhere/token"), "{out}");
}

#[tokio::test]
async fn dry_run_writes_nothing_and_reads_no_queue() {
    let harness = Harness::start().await;
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let refused = ["--dry-run", "--queue-url", &queue, "--dry-run-queue-url", &queue];
    harness.manifest("base.yaml", &harness.base_manifests());
    let mut twice = harness.operator_with("twice", &harness.environment, &refused);
    assert_eq!(twice.code().await, Some(1));
    assert!(twice.stderr().contains("--dry-run-queue-url"), "{}", twice.stderr());

    let operator = harness.operator(&["--dry-run", "--queue-url", &queue]);
    operator.wait_for_sweeps(1).await;
    harness.deploy("app", 1).await;
    let task = eventually("a task", || async { harness.task_ids().await.first().cloned() }).await;
    let target = "ecs_mesh_operator::operator::dry_run";
    operator.line(&[("target", target), ("change", "create"), ("task", &task)]).await;
    assert_eq!(operator.lines(&[("target", "audit")]), Vec::<Value>::new());
    let sqs = harness.sqs();
    let attributes = sqs.get_queue_attributes().queue_url(&queue);
    let attributes = attributes.attribute_names("All".into()).send().await.unwrap();
    let waiting = &attributes.attributes().unwrap()
        [&aws_sdk_sqs::types::QueueAttributeName::ApproximateNumberOfMessages];
    assert_ne!(waiting, "0", "the dry run took the real operator's events");
    assert_eq!(harness.dataplanes().await.len(), 0);
    stop(operator).await;
}

#[tokio::test]
async fn plan_and_explain_cover_the_selected_tasks() {
    let harness = Harness::start().await;
    harness.deploy("app", 2).await;
    harness.deploy("kv", 2).await;
    let tasks = harness.running(4).await;
    harness.manifest("base.yaml", &(harness.base_manifests() + &workload("kv", "kv")));

    let plan = |more: Vec<String>| {
        let harness = &harness;
        async move {
            let mut arguments = vec!["plan", "--output", "json"];
            arguments.extend(more.iter().map(String::as_str));
            let (code, out, err) = harness.run_to_end(&arguments).await;
            let plan: Value =
                serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
            assert_eq!((code, &plan["complete"]), (2, &json!(true)), "{plan}");
            plan["changes"].as_array().unwrap().clone()
        }
    };
    let of_service = plan(vec!["--service=kv".to_owned()]).await;
    assert_eq!(of_service.len(), 2, "{of_service:?}");
    assert!(of_service.iter().all(|change| change["service"] == "kv"), "{of_service:?}");
    let of_task = plan(vec![format!("--task={}", tasks[0])]).await;
    assert_eq!(of_task.len(), 1, "{of_task:?}");
    assert!(of_task[0]["task"].as_str().unwrap().ends_with(&tasks[0]), "{of_task:?}");
    assert_eq!(plan(vec!["--cluster=sand*".to_owned()]).await.len(), 4);

    let (code, out, err) = harness.run_to_end(&["explain", "kv", "--offline", "--output", "json"]).await;
    let explained: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
    assert_eq!((code, explained["tasks"].as_array().unwrap().len()), (0, 2), "{explained}");
    assert_eq!(explained["source"], "plan");
    let task = &explained["tasks"][0];
    assert_eq!(
        (&task["ecs"]["lastStatus"], &task["workloads"]),
        (&json!("RUNNING"), &json!(["kv"])),
        "{task}"
    );
    assert_eq!(
        (&task["registrations"], &task["changes"][0]["change"]),
        (&json!([]), &json!("create")),
        "{task}"
    );
    let (code, _, err) = harness.run_to_end(&["explain", "nothing", "--offline"]).await;
    assert!(code == 1 && err.contains("no task or service"), "{err}");
    assert_eq!(harness.dataplanes().await.len(), 0, "a plan wrote something");
}
