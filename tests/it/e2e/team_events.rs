//! Events to teams, from the operator through EventBridge to the queue that a team's rule feeds.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ecs_mesh_sandbox::aws::{AwsFault, AwsFaults, CloudConfig, NoAwsFaults, RuleTarget};
use ecs_mesh_sandbox::control_planes::ControlPlanes;
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use serde_json::{Value, json};

use super::consul_harness::{ConsulHarness, TAG};
use super::harness::{Harness, OperatorProcess, eventually, tag, workload};
use crate::sandbox_aws::FaultScript;

const BUS: &str = "ecs-mesh";
/// The team's queue, and the rule that feeds it.
const TEAM: &str = "team";

/// A sandbox with a bus, and a team that receives each event on it.
struct Team {
    harness: Harness,
    endpoints: Endpoints,
    received: Mutex<Vec<Value>>,
}

impl Team {
    async fn start(aws_faults: Arc<dyn AwsFaults>) -> Self {
        let team = Self::at(ControlPlanes::Kuma, aws_faults).await;
        let workloads = ["web", "api", "shop-web"].map(|name| workload(name, name));
        team.harness.manifest("all.yaml", &(team.harness.base_manifests() + &workloads.concat()));
        team
    }

    /// A sandbox with these control planes, without manifests.
    async fn at(control_planes: ControlPlanes, aws_faults: Arc<dyn AwsFaults>) -> Self {
        let cloud = CloudConfig { accept_aws_sources: true, ..CloudConfig::default() };
        let options = EndpointOptions { cloud, aws_faults, control_planes, ..EndpointOptions::default() };
        let endpoints = Endpoints::start(options).await.unwrap();
        endpoints.front.with(|cloud, _| cloud.create_event_bus(BUS).unwrap());
        let harness = Harness::with_endpoints(endpoints.environment());
        let team = Self { harness, endpoints, received: Mutex::default() };
        team.forward(r#"{"source": ["ecs-mesh.dev"]}"#, TEAM);
        team
    }

    /// Forwards what a rule of this pattern matches to a new queue.
    fn forward(&self, pattern: &str, queue: &str) {
        self.endpoints.front.with(|cloud, now| {
            cloud.create_queue(queue, BTreeMap::new(), now).unwrap();
            let rule = format!("{BUS}/{queue}");
            cloud.put_rule(&rule, pattern, true, None).unwrap();
            let arn = cloud.queue_arn(queue).unwrap();
            let target = RuleTarget { id: "q".into(), arn, input: None, rest: serde_json::Map::new() };
            cloud.put_targets(&rule, vec![target]).unwrap();
        });
    }

    fn operator(&self, more: &[&str]) -> OperatorProcess {
        let queue = self.harness.variable("ECS_MESH_QUEUE_URL").to_owned();
        let given = ["--team-events-bus", BUS, "--queue-url", &queue, "--metrics-address", "127.0.0.1:0"];
        self.harness.operator(&[&given, more].concat())
    }

    /// Creates a service whose role's tag names another one.
    async fn deploy_rejected(&self, service: &str, count: i32) {
        self.harness.role(service).await;
        let wrong = tag("kuma.io/service", "another");
        let role = format!("{service}-task");
        self.harness.iam().tag_role().role_name(role).tags(wrong).send().await.unwrap();
        self.harness.define(service).await;
        self.harness.serve("sandbox", service, count).await;
    }

    /// Waits for an event of this type with these fields in its detail.
    async fn event(&self, kind: &str, fields: &[(&str, Value)]) -> Value {
        let fits = |event: &Value| {
            event["detail-type"] == kind && fields.iter().all(|(name, value)| event["detail"][name] == *value)
        };
        eventually(&format!("{kind} {fields:?}"), || async {
            self.receive().await;
            self.received.lock().unwrap().iter().find(|event| fits(event)).cloned()
        })
        .await
    }

    async fn receive(&self) {
        let events = self.receive_from(TEAM).await;
        self.received.lock().unwrap().extend(events);
    }

    /// Takes the next events out of a queue.
    async fn receive_from(&self, queue: &str) -> Vec<Value> {
        let path = self.endpoints.front.with(|cloud, _| cloud.queue_path(queue).unwrap());
        let url = format!("{}{path}", self.endpoints.aws_url);
        let sqs = self.harness.sqs();
        let batch = sqs.receive_message().queue_url(&url).max_number_of_messages(10).send().await.unwrap();
        let mut events = Vec::new();
        for message in batch.messages() {
            events.push(serde_json::from_str(message.body().unwrap()).unwrap());
            let receipt = message.receipt_handle().unwrap();
            sqs.delete_message().queue_url(&url).receipt_handle(receipt).send().await.unwrap();
        }
        events
    }

    fn put_events_calls(&self) -> u64 {
        self.endpoints.front.calls().get("events.PutEvents").copied().unwrap_or_default()
    }

    /// The status of doctor's check of a bus.
    async fn checked_bus(&self, bus: &str) -> Value {
        let arguments = ["doctor", "--team-events-bus", bus, "--output", "json"];
        let (_, out, err) = self.harness.run_to_end(&arguments).await;
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
        let checks = report["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["id"] == "team-events.bus");
        check.unwrap_or_else(|| panic!("{report}"))["status"].clone()
    }
}

/// Validates events against their published schema, if a validator is installed.
fn assert_fit_schema(events: &[Value]) {
    let Some(python) = std::env::var_os("SCHEMA_TEST_PYTHON") else {
        let error = "SCHEMA_TEST_PYTHON does not name a Python with jsonschema";
        let _ = writeln!(std::io::stderr(), "skipped: validation of events against their schema: {error}");
        return;
    };
    let program = "import json, sys, jsonschema\n\
                   schema = json.load(open(sys.argv[2]))\n\
                   for event in json.loads(sys.argv[1]): jsonschema.validate(event, schema)";
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/team-events.schema.json");
    let given = json!(events).to_string();
    let validated = Command::new(python).args(["-c", program, &given, schema]).output().unwrap();
    assert!(validated.status.success(), "{}", String::from_utf8_lossy(&validated.stderr));
}

#[tokio::test]
async fn events_of_each_type_arrive() {
    let team = Team::start(Arc::new(NoAwsFaults)).await;
    let harness = &team.harness;
    harness.deploy("app", 12).await;
    team.deploy_rejected("web", 2).await;
    let mut operator = team.operator(&[]);
    let of = |service: &str| ("ecsService", json!(service));
    let registered = team.event("TaskRegistered", &[of("app")]).await;
    assert_eq!(registered["detail"]["workload"], "app");
    let rejected = team.event("TaskRejected", &[of("web")]).await;
    let detail = &rejected["detail"];
    assert_eq!((&detail["reason"], &detail["rules"]), (&json!("rejected"), &json!(["kuma.io/service"])));
    assert!(detail["fix"].as_str().unwrap().contains("--role-name web-task"), "{detail}");
    assert_eq!((&detail["cluster"], &detail["operator"]), (&json!("sandbox"), &json!("harness")));
    let task = detail["tasks"][0].as_str().unwrap();
    assert!(rejected["resources"].as_array().unwrap().contains(&json!(task)), "{rejected}");
    team.event("TaskRejected", &[of("web"), ("count", json!(2))]).await;

    // Another client changes one Dataplane and removes another.
    let all = harness.wait_for_dataplanes("all tasks are registered", |all| all.len() == 12).await;
    operator.wait_for_sweep(true).await;
    let mut names = all.keys();
    let (changed, removed) = (names.next().unwrap(), names.next().unwrap());
    let mut body = all[changed].clone();
    body["networking"]["inbound"][0]["port"] = json!(15_999);
    harness.put(&format!("/meshes/default/dataplanes/{changed}"), &body).await;
    let repaired = team.event("DriftRepaired", &[of("app"), ("change", json!("update"))]).await;
    assert!(repaired["detail"]["fields"].to_string().contains("port"), "{repaired}");
    let url = format!("{}/meshes/default/dataplanes/{removed}", harness.variable("KUMA_API_URL"));
    assert!(harness.http.delete(url).send().await.unwrap().status().is_success());
    team.event("DriftRepaired", &[of("app"), ("change", json!("create"))]).await;

    // The guard of twelve registrations admits three withdrawals an hour.
    let wrong = tag("kuma.io/service", "another");
    harness.iam().tag_role().role_name("app-task").tags(wrong).send().await.unwrap();
    let withdrawn = team.event("IdentityWithdrawn", &[of("app")]).await;
    let message = withdrawn["detail"]["message"].as_str().unwrap();
    assert!(message.contains("kuma.io/service"), "{withdrawn}");
    team.event("GuardTripped", &[of("app")]).await;

    team.endpoints.kuma.lock().unwrap().set_version("4.0.1");
    let unsupported = team.event("ControlPlaneUnsupported", &[("controlPlane", json!("kuma"))]).await;
    assert!(unsupported["detail"]["message"].as_str().unwrap().contains("4.0.1"), "{unsupported}");

    let events = team.received.lock().unwrap().clone();
    assert_fit_schema(&events);
    let text = json!(events).to_string();
    assert!(!text.contains("AKID") && !text.contains("Bearer"), "{text}");
    assert_eq!(team.checked_bus(BUS).await, "ok");
    assert_eq!(team.checked_bus("none").await, "error");
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
}

#[tokio::test]
async fn events_about_tasks_at_consul_arrive() {
    let Team { harness, endpoints, received } = Team::at(ControlPlanes::Consul, Arc::new(NoAwsFaults)).await;
    let consul = ConsulHarness(harness);
    let manifests = consul.manifests(", roleTags: {recheck: 1m, onRevoked: withdraw}");
    consul.0.manifest("all.yaml", &manifests);
    let ids = consul.deploy("web", 1).await;
    let joined = consul.join("web", &ids[0]).await;
    let team = Team { harness: consul.0, endpoints, received };
    let operator = team.operator(&[]);
    operator.wait_for_sweep(true).await;
    team.harness.iam().untag_role().role_name("web-task").tag_keys(TAG).send().await.unwrap();
    let of_service = [("ecsService", json!("web"))];
    let rejected = team.event("TaskRejected", &of_service).await;
    let detail = &rejected["detail"];
    assert_eq!((&detail["controlPlane"], &detail["rules"]), (&json!("consul"), &json!([TAG])), "{rejected}");
    assert!(detail["tasks"][0].as_str().unwrap().ends_with(&ids[0]), "{rejected}");
    assert!(detail["fix"].as_str().unwrap().contains("--role-name web-task"), "{rejected}");
    let withdrawn = team.event("IdentityWithdrawn", &of_service).await;
    assert_eq!(withdrawn["detail"]["reason"], "role_tags", "{withdrawn}");
    assert!(withdrawn["detail"]["registration"].is_string(), "{withdrawn}");
    let events = team.received.lock().unwrap().clone();
    assert_fit_schema(&events);
    assert!(!json!(events).to_string().contains(&joined.secret), "{events:?}");
}

#[tokio::test]
async fn failed_events_are_sent_again_and_denied_ones_counted() {
    let script = Arc::new(FaultScript::default());
    script.add("events.PutEvents", AwsFault::Throttle);
    let team = Team::start(Arc::clone(&script) as _).await;
    team.endpoints.front.with(|cloud, _| cloud.script_put_events([Some("InternalFailure")]));
    team.harness.deploy("app", 1).await;
    let operator = team.operator(&[]);
    let listens = operator.line(&[("level", "INFO"), ("address", "")]).await;
    team.event("TaskRegistered", &[("ecsService", json!("app"))]).await;
    assert!(team.put_events_calls() >= 3);
    operator.line(&[("*", "events to teams are sent again")]).await;

    script.add("events.PutEvents", AwsFault::AccessDenied);
    team.deploy_rejected("web", 1).await;
    operator.line(&[("level", "WARN"), ("error", "events:PutEvents on ecs-mesh failed: AccessDenied")]).await;
    team.harness.deploy("api", 1).await;
    team.event("TaskRegistered", &[("ecsService", json!("api"))]).await;
    let kinds = |event: &Value| event["detail-type"].clone();
    let received: Vec<Value> = team.received.lock().unwrap().iter().map(kinds).collect();
    assert!(!received.contains(&json!("TaskRejected")), "{received:?}");
    let url = format!("http://{}/metrics", listens["address"].as_str().unwrap());
    let metrics = team.harness.http.get(&url).send().await.unwrap().text().await.unwrap();
    for line in [
        "ecs_mesh_team_events_total{type=\"TaskRegistered\"} 2",
        "ecs_mesh_team_events_dropped_total{reason=\"refused\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
}

/// EventBridge takes calls and does not answer.
#[derive(Default)]
struct HungEventBridge {
    answered: AtomicUsize,
}

impl AwsFaults for HungEventBridge {
    fn decide(&self, service: &str, _operation: &str) -> AwsFault {
        if service == "events" { AwsFault::Delay(Duration::from_hours(1)) } else { AwsFault::None }
    }

    fn on_response(&self, service: &str, _operation: &str, _response: &Value) {
        self.answered.fetch_add(usize::from(service == "events"), Ordering::SeqCst);
    }
}

#[tokio::test]
async fn tasks_are_registered_while_eventbridge_hangs() {
    let hung = Arc::new(HungEventBridge::default());
    let team = Team::start(Arc::clone(&hung) as _).await;
    team.harness.deploy("app", 1).await;
    let mut operator = team.operator(&[]);
    eventually("a call hangs", || async { (team.put_events_calls() > 0).then_some(()) }).await;
    team.harness.deploy("api", 12).await;
    team.harness.wait_for_dataplanes("all tasks are registered", |all| all.len() == 13).await;
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0), "{}", operator.stderr());
    assert_eq!(hung.answered.load(Ordering::SeqCst), 0);
}

/// The pattern of the template's rule, for a team whose services begin with `shop-`.
fn published_pattern() -> String {
    let template = include_str!("../../../deploy/cloudformation/team-events.yaml");
    let (_, rule) = template.split_once("      EventPattern:\n").unwrap();
    let (pattern, _) = rule.split_once("      Targets:").unwrap();
    let (_, types) = template.split_once("  DetailTypes:").unwrap();
    let default = types.lines().find_map(|line| line.trim().strip_prefix("Default: ")).unwrap();
    let filled = pattern
        .replace("!Ref DetailTypes", &format!("[{default}]"))
        .replace("!Ref EcsServicePrefix", "shop-");
    let parsed: Value = serde_saphyr::from_str(&filled).unwrap_or_else(|error| panic!("{error}: {filled}"));
    parsed.to_string()
}

#[tokio::test]
async fn published_rule_forwards_a_teams_rejections_alone() {
    let team = Team::start(Arc::new(NoAwsFaults)).await;
    team.forward(&published_pattern(), "shop");
    team.deploy_rejected("web", 1).await;
    team.deploy_rejected("shop-web", 1).await;
    team.harness.deploy("app", 1).await;
    let _operator = team.operator(&[]);
    for service in ["web", "shop-web"] {
        team.event("TaskRejected", &[("ecsService", json!(service))]).await;
    }
    team.event("TaskRegistered", &[("ecsService", json!("app"))]).await;
    let received = eventually("an event of the team", || async {
        let events = team.receive_from("shop").await;
        (!events.is_empty()).then_some(events)
    })
    .await;
    let found = received.iter().map(|event| (&event["detail-type"], &event["detail"]["ecsService"]));
    assert_eq!(found.collect::<Vec<_>>(), [(&json!("TaskRejected"), &json!("shop-web"))]);
}

#[tokio::test]
async fn dry_run_sends_no_events() {
    let team = Team::start(Arc::new(NoAwsFaults)).await;
    team.harness.deploy("app", 2).await;
    let queue = team.harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let operator = team.harness.operator(&["--team-events-bus", BUS, "--dry-run", "--queue-url", &queue]);
    operator.line(&[("*", "dry run: no events to teams")]).await;
    operator.line(&[("change", "create")]).await;
    operator.wait_for_sweep(true).await;
    assert_eq!(team.put_events_calls(), 0);
}
