//! The SDK's clients against a scripted HTTP server on loopback, without AWS.

mod accounts;
mod dynamodb;
mod failures;
mod hosts;
mod objects;
mod proxy;
mod queue;
mod secrets;
mod token_stores;

use std::collections::VecDeque;
use std::sync::Mutex;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::*;
use crate::aws::{AwsError, AwsErrorKind, Ecs, EventQueue, Iam};
use crate::inspect::AuditApi;
use ecs_mesh_model::{
    ClusterArn, DesiredStatus, LastStatus, RoleArn, SidecarOutbounds, TaskDefinitionArn, TaskHost, TaskId,
    Timestamp,
};

const CLUSTER: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/prod";
const ROLE: &str = "arn:aws:iam::111122223333:role/team/kv-task";

/// One received request.
struct RecordedRequest {
    target: String,
    authorization: String,
    uri: String,
    headers: HeaderMap,
    body: String,
}

impl RecordedRequest {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

#[derive(Default)]
struct ResponseScript {
    answers: Mutex<VecDeque<(u16, String)>>,
    seen: Mutex<Vec<RecordedRequest>>,
    /// Delay of each response.
    delay: Duration,
}

#[derive(Default)]
struct RecordedCalls(Mutex<Vec<(&'static str, &'static str)>>);

impl AwsCallObserver for RecordedCalls {
    fn call(&self, operation: &'static str, result: &'static str, _: Duration) {
        self.0.lock().unwrap().push((operation, result));
    }
}

struct SdkFixture {
    script: Arc<ResponseScript>,
    recorded: Arc<RecordedCalls>,
    aws: AwsClients,
    url: String,
}

impl SdkFixture {
    /// A server with these responses, in order.
    async fn answering(answers: impl IntoIterator<Item = (u16, String)>) -> Self {
        Self::slow(Duration::ZERO, answers).await
    }

    async fn slow(delay: Duration, answers: impl IntoIterator<Item = (u16, String)>) -> Self {
        let answers = Mutex::new(answers.into_iter().collect());
        let script = Arc::new(ResponseScript { answers, delay, ..ResponseScript::default() });
        let handler = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", handler.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(Arc::clone(&script));
        tokio::spawn(async move { axum::serve(handler, app).await });
        let recorded = Arc::new(RecordedCalls::default());
        let options = AwsOptions {
            region: Some("eu-west-1".to_owned()),
            endpoint_url: Some(url.clone()),
            credentials: Some(Credentials::new("AKIAIOSFODNN7EXAMPLE", "secret", None, None, "test")),
            proxy: None,
            observer: Arc::clone(&recorded) as Arc<dyn AwsCallObserver>,
        };
        Self { script, recorded, aws: AwsClients::connect(options).await.unwrap(), url }
    }

    fn queue(&self) -> SdkQueue {
        self.aws.queue(&format!("{}/111122223333/ecs-events", self.url)).unwrap()
    }

    fn seen(&self, index: usize) -> Value {
        self.script.seen.lock().unwrap()[index].json()
    }

    fn calls(&self) -> Vec<(&'static str, &'static str)> {
        self.recorded.0.lock().unwrap().clone()
    }
}

async fn answer(
    State(script): State<Arc<ResponseScript>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let (target, authorization) = (header("x-amz-target"), header("authorization"));
    script.seen.lock().unwrap().push(RecordedRequest {
        target,
        authorization,
        uri: uri.to_string(),
        headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    tokio::time::sleep(script.delay).await;
    let (status, body) = script.answers.lock().unwrap().pop_front().expect("more calls than answers");
    let region = body.split_once("<Region>").and_then(|(_, rest)| rest.split('<').next());
    let region = region.map(|region| HeaderValue::from_str(region).unwrap());
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    // S3 names the bucket's Region in the body of some failures, and in this header of each.
    response
        .headers_mut()
        .extend(region.map(|region| (HeaderName::from_static("x-amz-bucket-region"), region)));
    response
}

fn ok(body: &Value) -> (u16, String) {
    (200, body.to_string())
}

fn refused(status: u16, code: &str, message: &str) -> (u16, String) {
    (status, json!({"__type": format!("com.amazonaws.any#{code}"), "message": message}).to_string())
}

fn cluster() -> ClusterArn {
    ClusterArn::parse(CLUSTER).unwrap()
}

fn id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

fn task(id: &str) -> Value {
    json!({
        "taskArn": format!("arn:aws:ecs:eu-west-1:111122223333:task/prod/{id}"),
        "clusterArn": CLUSTER,
        "taskDefinitionArn": "arn:aws:ecs:eu-west-1:111122223333:task-definition/kv:7",
        "version": 4,
        "lastStatus": "RUNNING",
        "desiredStatus": "RUNNING",
        "group": "service:kv",
        "createdAt": 1_795_317_818.145,
        "launchType": "FARGATE",
        "overrides": {"taskRoleArn": ROLE, "containerOverrides": []},
        "attachments": [{
            "id": "a", "type": "ElasticNetworkInterface", "status": "ATTACHED",
            "details": [{"name": "subnetId", "value": "s"}, {"name": "privateIPv4Address", "value": "10.0.1.7"}],
        }],
        "containers": [{"name": "kv", "networkInterfaces": [{"privateIpv4Address": "10.0.1.7"}]}],
        "tags": [{"key": "mesh", "value": "on"}],
    })
}

#[tokio::test]
async fn list_tasks_filters_by_desired_status_only() {
    let world = SdkFixture::answering([
        ok(&json!({"taskArns": ["arn:aws:ecs:eu-west-1:111122223333:task/prod/a1"], "nextToken": "more"})),
        ok(&json!({"taskArns": [], "nextToken": ""})),
    ])
    .await;
    let first = world.aws.ecs.list_tasks(&cluster(), DesiredStatus::Stopped, None).await.unwrap();
    assert_eq!((first.items[0].id().as_str(), first.next.as_deref()), ("a1", Some("more")));
    let last = world.aws.ecs.list_tasks(&cluster(), DesiredStatus::Stopped, first.next).await.unwrap();
    assert_eq!((last.items.len(), last.next), (0, None));
    assert_eq!(world.seen(0), json!({"cluster": CLUSTER, "desiredStatus": "STOPPED"}));
    assert_eq!(world.seen(1)["nextToken"], "more");
    assert_eq!(world.aws.account(), Some("111122223333"));
    assert_eq!(world.calls(), [("ecs:ListTasks", "success"), ("ecs:ListTasks", "success")]);
}

#[tokio::test]
async fn odd_item_of_a_list_is_skipped_alone() {
    let uuid = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
    let short = format!("arn:aws:ecs:eu-west-1:111122223333:task/{uuid}");
    let long = "arn:aws:ecs:eu-west-1:111122223333:task/prod/a1";
    let world = SdkFixture::answering([
        ok(&json!({"taskArns": [short, "arn:aws:ecs:eu-west-1:111122223333:tusk/prod/a2", long]})),
        ok(&json!({"tasks": [{"taskArn": short, "clusterArn": CLUSTER, "version": 1, "lastStatus": "RUNNING",
            "desiredStatus": "RUNNING", "taskDefinitionArn": "arn:aws:ecs:eu-west-1:111122223333:task-definition/kv:1"}],
            "failures": []})),
    ])
    .await;
    let page = world.aws.ecs.list_tasks(&cluster(), DesiredStatus::Running, None).await.unwrap();
    let found: Vec<_> = page.items.iter().map(|task| task.id().as_str()).collect();
    assert_eq!(found, [uuid, "a1"]);
    assert_eq!(page.skipped.len(), 1);
    assert!(page.skipped[0].contains("tusk/prod/a2"), "{:?}", page.skipped);
    let described = world.aws.ecs.describe_tasks(&cluster(), &[id(uuid)]).await.unwrap();
    assert_eq!(described.tasks[0].arn, page.items[0]);
}

#[tokio::test]
async fn unreachable_address_fails_a_live_task_alone() {
    let with_address = |id: &str, desired: &str| {
        let mut task = task(id);
        task["attachments"][0]["details"][1]["value"] = json!("169.254.170.2");
        task["desiredStatus"] = json!(desired);
        task
    };
    let tasks = [with_address("a1", "RUNNING"), with_address("a2", "STOPPED"), task("a3")];
    let world = SdkFixture::answering([ok(&json!({"tasks": tasks, "failures": []}))]).await;
    let described = world.aws.ecs.describe_tasks(&cluster(), &["a1", "a2", "a3"].map(id)).await.unwrap();
    let found: Vec<_> =
        described.tasks.iter().map(|task| (task.arn.id().as_str(), task.addresses.v4())).collect();
    assert_eq!(found, [("a2", None), ("a3", Some("10.0.1.7".parse().unwrap()))]);
    assert_eq!(described.failed[0].0, id("a1"));
    assert!(described.failed[0].1.starts_with("attachments[].details[privateIPv4Address]: "));
}

#[tokio::test]
async fn dual_stack_task_has_both_addresses_of_its_interface() {
    let mut task = task("a1");
    task["containers"][0]["networkInterfaces"][0] =
        json!({"attachmentId": "a", "privateIpv4Address": "10.0.1.7", "ipv6Address": "2001:db8::7"});
    let world = SdkFixture::answering([ok(&json!({"tasks": [task], "failures": []}))]).await;
    let described = world.aws.ecs.describe_tasks(&cluster(), &[id("a1")]).await.unwrap();
    let addresses: Vec<_> = described.tasks[0].addresses.all().map(|one| one.to_string()).collect();
    assert_eq!(addresses, ["10.0.1.7", "2001:db8::7"]);
}

#[tokio::test]
async fn unreadable_container_instance_fails_no_task() {
    let with_instance = |id: &str, desired: &str| {
        let mut task = task(id);
        task["containerInstanceArn"] = json!("container-instance/prod/c1");
        task["desiredStatus"] = json!(desired);
        task
    };
    let tasks = [with_instance("a1", "RUNNING"), with_instance("a2", "STOPPED")];
    let world = SdkFixture::answering([ok(&json!({"tasks": tasks, "failures": []}))]).await;
    let described = world.aws.ecs.describe_tasks(&cluster(), &["a1", "a2"].map(id)).await.unwrap();
    assert_eq!(described.failed, []);
    let own = Some("10.0.1.7".parse().unwrap());
    let found: Vec<_> = described.tasks.iter().map(|task| (&task.host, task.addresses.v4())).collect();
    assert_eq!(found, [(&TaskHost::None, own), (&TaskHost::None, own)]);
}

#[tokio::test]
async fn clusters_are_listed() {
    let world = SdkFixture::answering([ok(&json!({"clusterArns": [CLUSTER]}))]).await;
    let page = world.aws.ecs.list_clusters(None).await.unwrap();
    assert_eq!((page.items, page.next), (vec![cluster()], None));
}

#[tokio::test]
async fn described_task_has_address_role_tags_and_times() {
    let world = SdkFixture::answering([ok(&json!({"tasks": [task("a1")], "failures": []}))]).await;
    let described = world.aws.ecs.describe_tasks(&cluster(), &[id("a1")]).await.unwrap();
    let task = &described.tasks[0];
    assert_eq!((task.version, task.last_status), (4, LastStatus::Running));
    assert_eq!(task.addresses.v4(), Some("10.0.1.7".parse().unwrap()));
    assert_eq!(task.role_override.as_ref().unwrap().name(), "kv-task");
    assert_eq!(task.created_at, Timestamp::parse("2026-11-22T03:23:38.145Z"));
    assert_eq!(task.tags.as_ref().unwrap()["mesh"], "on");
    assert_eq!(world.seen(0), json!({"cluster": CLUSTER, "tasks": ["a1"], "include": ["TAGS"]}));
}

#[tokio::test]
async fn each_requested_task_is_found_missing_or_failed() {
    let mut strange = task("b2");
    strange["lastStatus"] = json!("DANCING");
    let mut elsewhere = task("c3");
    elsewhere["taskArn"] = json!("arn:aws:ecs:eu-west-1:111122223333:task/other/c3");
    let failure = |id: &str, reason: &str| json!({"arn": format!("arn:aws:ecs:eu-west-1:111122223333:task/prod/{id}"), "reason": reason});
    let world = SdkFixture::answering([ok(&json!({
        "tasks": [task("a1"), strange, elsewhere, task("unasked")],
        "failures": [failure("d4", "MISSING"), failure("e5", "INTERNAL"), failure("unasked2", "MISSING")],
    }))])
    .await;
    let asked: Vec<TaskId> = ["a1", "b2", "c3", "d4", "e5", "f6"].map(id).to_vec();
    let described = world.aws.ecs.describe_tasks(&cluster(), &asked).await.unwrap();
    assert_eq!(described.tasks.iter().map(|task| task.arn.id().as_str()).collect::<Vec<_>>(), ["a1"]);
    assert_eq!(described.missing, [id("d4")]);
    let failed: Vec<_> = described.failed.iter().map(|(id, reason)| (id.as_str(), reason.as_str())).collect();
    assert_eq!(
        failed,
        [
            ("b2", "lastStatus: \"DANCING\" is not a documented status"),
            (
                "c3",
                "taskArn: \"arn:aws:ecs:eu-west-1:111122223333:task/other/c3\" is not the ARN of an ECS task of the \
                 cluster: expected arn:PARTITION:ecs:REGION:ACCOUNT:task/[CLUSTER/]ID",
            ),
            ("e5", "INTERNAL"),
            ("f6", "the response does not mention the task"),
        ]
    );
}

#[tokio::test]
async fn describing_no_tasks_makes_no_call() {
    let world = SdkFixture::answering([]).await;
    assert_eq!(world.aws.ecs.describe_tasks(&cluster(), &[]).await.unwrap().tasks, []);
    assert_eq!(world.queue().delete(&[]).await.unwrap(), Vec::<String>::new());
    world.queue().release(&[]).await.unwrap();
    assert_eq!(world.calls(), []);
}

#[tokio::test]
async fn task_definition_has_role_labels_and_ports() {
    let arn = "arn:aws:ecs:eu-west-1:111122223333:task-definition/kv:7";
    let world = SdkFixture::answering([ok(&json!({"taskDefinition": {
        "taskDefinitionArn": arn, "taskRoleArn": ROLE, "networkMode": "awsvpc",
        "executionRoleArn": "arn:aws:iam::111122223333:role/ecsTaskExecutionRole",
        "containerDefinitions": [
            {"name": "kv", "dockerLabels": {"mesh": "on"}, "portMappings": [{"containerPort": 8080}, {"containerPortRange": "1-9"}]},
            {"name": "log"},
            {"name": "sidecar", "image": "kong/kuma-dp:2.14.3", "entryPoint": ["kuma-dp"], "command": ["run"],
             "environment": [{"name": "KUMA_DATAPLANE_RUNTIME_BIND_OUTBOUNDS", "value": "true"}]},
        ],
    }}))])
    .await;
    let found =
        world.aws.ecs.describe_task_definition(&TaskDefinitionArn::parse(arn).unwrap()).await.unwrap();
    assert_eq!(found.task_role, Some(RoleArn::parse(ROLE).unwrap()));
    assert_eq!(found.network_mode.as_deref(), Some("awsvpc"));
    assert_eq!((found.containers[0].ports.as_slice(), found.containers[1].ports.len()), (&[8080][..], 0));
    assert_eq!(found.containers[0].docker_labels["mesh"], "on");
    assert_eq!(found.kuma_sidecar(), Some(("sidecar", SidecarOutbounds::Bound)));
}

fn get_role(arn: &str) -> (u16, String) {
    let body = format!(
        "<GetRoleResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><GetRoleResult><Role><Path>/team/</Path>\
         <RoleName>kv-task</RoleName><RoleId>AROAEXAMPLE</RoleId><Arn>{arn}</Arn>\
         <CreateDate>2026-11-22T03:23:38Z</CreateDate><Tags>\
         <member><Key>consul.hashicorp.com/service</Key><Value>kv</Value></member>\
         <member><Key>empty</Key><Value></Value></member></Tags></Role></GetRoleResult>\
         <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></GetRoleResponse>"
    );
    (200, body)
}

fn iam_refused(status: u16, code: &str) -> (u16, String) {
    let body = format!(
        "<ErrorResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>No such role.</Message></Error><RequestId>r</RequestId></ErrorResponse>"
    );
    (status, body)
}

#[tokio::test]
async fn role_tags_need_one_call() {
    let world = SdkFixture::answering([get_role(ROLE)]).await;
    let tags = world.aws.iam.role_tags(&RoleArn::parse(ROLE).unwrap()).await.unwrap();
    assert_eq!((tags["consul.hashicorp.com/service"].as_str(), tags["empty"].as_str()), ("kv", ""));
    assert!(
        world.script.seen.lock().unwrap()[0]
            .body
            .contains("Action=GetRole&Version=2010-05-08&RoleName=kv-task")
    );
    assert_eq!(world.calls(), [("iam:GetRole", "success")]);
}

#[tokio::test]
async fn same_role_name_under_another_path_is_not_found() {
    let world = SdkFixture::answering([get_role("arn:aws:iam::111122223333:role/kv-task")]).await;
    let error = world.aws.iam.role_tags(&RoleArn::parse(ROLE).unwrap()).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (AwsErrorKind::NotFound, "AnotherRole"));
}

#[tokio::test]
async fn role_of_other_account_is_denied() {
    let foreign = RoleArn::parse("arn:aws:iam::444455556666:role/team/kv-task").unwrap();
    let world = SdkFixture::answering([get_role(ROLE)]).await;
    for _ in 0..2 {
        let error = world.aws.iam.role_tags(&foreign).await.unwrap_err();
        assert_eq!((error.kind, error.code.as_str()), (AwsErrorKind::Denied, "OtherAccount"));
    }
    assert_eq!(world.calls().len(), 1, "once the account is known no call is wasted");
}

#[tokio::test]
async fn missing_role_of_other_account_is_not_deleted() {
    let world = SdkFixture::answering([ok(&json!({"taskArns": []})), iam_refused(404, "NoSuchEntity")]).await;
    world.aws.ecs.list_tasks(&cluster(), DesiredStatus::Running, None).await.unwrap();
    let foreign = RoleArn::parse("arn:aws:iam::444455556666:role/kv-task").unwrap();
    assert_eq!(world.aws.iam.role_tags(&foreign).await.unwrap_err().kind, AwsErrorKind::Denied);
    let own = world.aws.iam.role_tags(&RoleArn::parse(ROLE).unwrap()).await.unwrap_err();
    assert_eq!((own.kind, own.code.as_str()), (AwsErrorKind::NotFound, "NoSuchEntity"));
}

#[tokio::test]
async fn full_definition_debug_redacts_values() {
    let arn = "arn:aws:ecs:eu-west-1:111122223333:task-definition/kv:7";
    let container = json!({
        "name": "app",
        "environment": [{"name": "A", "value": "planted"}],
        "secrets": [{"name": "B", "valueFrom": "arn"}],
        "command": ["run", "planted"],
        "healthCheck": {"command": ["CMD", "true"]},
        "portMappings": [{"containerPort": 8080}],
        "essential": false,
        "stopTimeout": 45,
        "dependsOn": [{"containerName": "sidecar", "condition": "START"}],
        "dockerLabels": {"kuma.io/service": "kv"},
    });
    let definition = json!({"taskDefinitionArn": arn, "family": "kv", "networkMode": "awsvpc", "containerDefinitions": [container]});
    let answer = json!({"taskDefinition": definition, "tags": [{"key": "a", "value": "b"}]});
    let world = SdkFixture::answering([ok(&answer)]).await;
    let found = world.aws.inspect.definition(&TaskDefinitionArn::parse(arn).unwrap()).await.unwrap();
    assert_eq!(world.seen(0), json!({"taskDefinition": arn, "include": ["TAGS"]}));
    let app = &found.containers[0];
    assert_eq!((app.environment[0].value.expose(), app.command[1].expose()), ("planted", "planted"));
    assert!(
        app.has_variable("B") && app.stop_timeout == Some(45) && !format!("{found:?}").contains("planted")
    );
    let health: Vec<&str> = app
        .health_check
        .iter()
        .flat_map(|check| &check.command)
        .map(crate::inspect::Redacted::expose)
        .collect();
    assert_eq!(health, ["CMD", "true"]);
    assert_eq!((app.port_mappings[0].container_port, found.tags.unwrap()["a"].as_str()), (Some(8080), "b"));
    assert_eq!((app.is_essential(), app.depends_on[0].container_name.as_str()), (false, "sidecar"));
    assert_eq!(app.docker_labels["kuma.io/service"], "kv");
}

#[tokio::test]
async fn services_are_listed_by_name() {
    let arn = "arn:aws:ecs:eu-west-1:111122223333:service/prod/kv";
    let world = SdkFixture::answering([ok(&json!({"serviceArns": [arn], "nextToken": "next"}))]).await;
    let page = world.aws.inspect.services(&cluster(), None).await.unwrap();
    assert_eq!((page.items, page.next.as_deref()), (vec!["kv".to_owned()], Some("next")));
    assert_eq!(world.seen(0), json!({"cluster": cluster().as_str(), "maxResults": 100}));
}

#[tokio::test]
async fn authorization_details_have_decoded_policies() {
    let inline =
        "<member><PolicyName>tags</PolicyName><PolicyDocument>%7B%22a%22%3A1%7D</PolicyDocument></member>";
    let attached =
        "<member><PolicyName>All</PolicyName><PolicyArn>arn:aws:iam::aws:policy/All</PolicyArn></member>";
    let role = format!(
        "<member><Arn>{ROLE}</Arn><RolePolicyList>{inline}</RolePolicyList>\
         <AttachedManagedPolicies>{attached}</AttachedManagedPolicies>\
         <Tags><member><Key>kuma.io/mesh</Key><Value>default</Value></member></Tags></member>"
    );
    let version = "<member><IsDefaultVersion>true</IsDefaultVersion><Document>%7B%7D</Document></member>";
    let xml = format!(
        "<GetAccountAuthorizationDetailsResponse><GetAccountAuthorizationDetailsResult>\
         <RoleDetailList>{role}</RoleDetailList>\
         <Policies><member><Arn>arn:aws:iam::aws:policy/All</Arn>\
         <PolicyVersionList>{version}</PolicyVersionList></member></Policies>\
         <IsTruncated>true</IsTruncated><Marker>next</Marker>\
         </GetAccountAuthorizationDetailsResult></GetAccountAuthorizationDetailsResponse>"
    );
    let world = SdkFixture::answering([(200, xml)]).await;
    let (details, next) = world.aws.inspect.authorization_details(None).await.unwrap();
    let role = &details.principals[0];
    assert_eq!((role.arn.as_str(), role.tags["kuma.io/mesh"].as_str()), (ROLE, "default"));
    assert_eq!((role.policies.inline["tags"].as_str(), next.as_deref()), ("{\"a\":1}", Some("next")));
    assert_eq!(details.managed[&role.policies.managed[0]], "{}");
}

#[tokio::test]
async fn role_may_read_itself_if_the_simulator_allows_it() {
    let result = |decision: &str| {
        let xml = format!(
            "<SimulatePrincipalPolicyResponse><SimulatePrincipalPolicyResult><EvaluationResults><member>\
             <EvalActionName>iam:GetRole</EvalActionName><EvalDecision>{decision}</EvalDecision>\
             </member></EvaluationResults></SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
        );
        (200, xml)
    };
    let world = SdkFixture::answering([result("allowed"), result("implicitDeny")]).await;
    let role = RoleArn::parse(ROLE).unwrap();
    assert!(world.aws.inspect.may_get_own_role(&role).await.unwrap().allowed);
    let denied = world.aws.inspect.may_get_own_role(&role).await.unwrap();
    assert_eq!((denied.allowed, denied.decision.as_str()), (false, "implicitDeny"));
    let body = &world.script.seen.lock().unwrap()[0].body;
    assert!(body.contains("ActionNames.member.1=iam%3AGetRole"), "{body}");
}
