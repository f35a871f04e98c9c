//! The SDK's clients against a server on loopback that answers what it is told to: the real wire, no AWS.

mod secrets;

use std::collections::VecDeque;
use std::sync::Mutex;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::*;
use crate::model::{ClusterArn, DesiredStatus, LastStatus, RoleArn, TaskDefinitionArn, TaskId, Timestamp};
use crate::observe::aws::{AwsError, AwsErrorKind, Ecs, Iam, Queue};
use crate::observe::inspect::Inspect;

const CLUSTER: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/prod";
const ROLE: &str = "arn:aws:iam::111122223333:role/team/kv-task";

/// What the server saw of one request.
struct Seen {
    target: String,
    body: String,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<(u16, String)>>,
    seen: Mutex<Vec<Seen>>,
    /// How long each answer takes.
    delay: Duration,
}

#[derive(Default)]
struct Told(Mutex<Vec<(&'static str, &'static str)>>);

impl AwsCallObserver for Told {
    fn call(&self, operation: &'static str, outcome: &'static str, _: Duration) {
        self.0.lock().unwrap().push((operation, outcome));
    }
}

struct World {
    script: Arc<Script>,
    told: Arc<Told>,
    aws: AwsClients,
    url: String,
}

impl World {
    /// A server that gives these answers in turn.
    async fn answering(answers: impl IntoIterator<Item = (u16, String)>) -> Self {
        Self::slow(Duration::ZERO, answers).await
    }

    async fn slow(delay: Duration, answers: impl IntoIterator<Item = (u16, String)>) -> Self {
        let answers = Mutex::new(answers.into_iter().collect());
        let script = Arc::new(Script { answers, delay, ..Script::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(Arc::clone(&script));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let told = Arc::new(Told::default());
        let options = AwsOptions {
            region: Some("eu-west-1".to_owned()),
            endpoint_url: Some(url.clone()),
            credentials: Some(Credentials::new("AKIAIOSFODNN7EXAMPLE", "secret", None, None, "test")),
            observer: Arc::clone(&told) as Arc<dyn AwsCallObserver>,
        };
        Self { script, told, aws: AwsClients::connect(options).await.unwrap(), url }
    }

    fn queue(&self) -> SdkQueue {
        self.aws.queue(&format!("{}/111122223333/ecs-events", self.url)).unwrap()
    }

    fn seen(&self, index: usize) -> Value {
        self.script.seen.lock().unwrap()[index].json()
    }

    fn told(&self) -> Vec<(&'static str, &'static str)> {
        self.told.0.lock().unwrap().clone()
    }
}

async fn answer(State(script): State<Arc<Script>>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").map_or("", |target| target.to_str().unwrap()).to_owned();
    script.seen.lock().unwrap().push(Seen { target, body: String::from_utf8(body.to_vec()).unwrap() });
    tokio::time::sleep(script.delay).await;
    let (status, body) = script.answers.lock().unwrap().pop_front().expect("more calls than answers");
    (StatusCode::from_u16(status).unwrap(), body).into_response()
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
async fn tasks_are_listed_by_desired_status_whatever_their_launch_type() {
    let world = World::answering([
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
    assert_eq!(world.told(), [("ecs:ListTasks", "ok"), ("ecs:ListTasks", "ok")]);
}

#[tokio::test]
async fn clusters_are_listed() {
    let world = World::answering([ok(&json!({"clusterArns": [CLUSTER]}))]).await;
    let page = world.aws.ecs.list_clusters(None).await.unwrap();
    assert_eq!((page.items, page.next), (vec![cluster()], None));
}

#[tokio::test]
async fn a_described_task_has_its_address_role_tags_and_times() {
    let world = World::answering([ok(&json!({"tasks": [task("a1")], "failures": []}))]).await;
    let described = world.aws.ecs.describe_tasks(&cluster(), &[id("a1")]).await.unwrap();
    let task = &described.tasks[0];
    assert_eq!((task.version, task.last_status), (4, LastStatus::Running));
    assert_eq!(task.address, Some("10.0.1.7".parse().unwrap()));
    assert_eq!(task.role_override.as_ref().unwrap().name(), "kv-task");
    assert_eq!(task.created_at, Timestamp::parse("2026-11-22T03:23:38.145Z"));
    assert_eq!(task.tags.as_ref().unwrap()["mesh"], "on");
    assert_eq!(world.seen(0), json!({"cluster": CLUSTER, "tasks": ["a1"], "include": ["TAGS"]}));
}

#[tokio::test]
async fn each_task_that_was_asked_for_is_found_missing_or_failed() {
    let mut strange = task("b2");
    strange["lastStatus"] = json!("DANCING");
    let mut elsewhere = task("c3");
    elsewhere["taskArn"] = json!("arn:aws:ecs:eu-west-1:111122223333:task/other/c3");
    let failure = |id: &str, reason: &str| json!({"arn": format!("arn:aws:ecs:eu-west-1:111122223333:task/prod/{id}"), "reason": reason});
    let world = World::answering([ok(&json!({
        "tasks": [task("a1"), strange, elsewhere, task("unasked")],
        "failures": [failure("d4", "MISSING"), failure("e5", "INTERNAL"), failure("unasked2", "MISSING")],
    }))])
    .await;
    let asked: Vec<TaskId> = ["a1", "b2", "c3", "d4", "e5", "f6"].map(id).to_vec();
    let described = world.aws.ecs.describe_tasks(&cluster(), &asked).await.unwrap();
    assert_eq!(described.tasks.iter().map(|task| task.arn.id().as_str()).collect::<Vec<_>>(), ["a1"]);
    assert_eq!(described.missing, [id("d4")]);
    let failed: Vec<_> = described.failed.iter().map(|(id, why)| (id.as_str(), why.as_str())).collect();
    assert_eq!(
        failed,
        [
            ("b2", "lastStatus: \"DANCING\" is not a status that ECS documents"),
            ("c3", "taskArn: it is a task of arn:aws:ecs:eu-west-1:111122223333:cluster/other"),
            ("e5", "INTERNAL"),
            ("f6", "ECS's answer does not mention the task"),
        ]
    );
}

#[tokio::test]
async fn no_tasks_need_no_call() {
    let world = World::answering([]).await;
    assert_eq!(world.aws.ecs.describe_tasks(&cluster(), &[]).await.unwrap().tasks, []);
    assert_eq!(world.queue().delete(&[]).await.unwrap(), Vec::<String>::new());
    world.queue().give_back(&[]).await.unwrap();
    assert_eq!(world.told(), []);
}

#[tokio::test]
async fn a_task_definition_has_its_task_role_labels_and_ports() {
    let arn = "arn:aws:ecs:eu-west-1:111122223333:task-definition/kv:7";
    let world = World::answering([ok(&json!({"taskDefinition": {
        "taskDefinitionArn": arn, "taskRoleArn": ROLE, "networkMode": "awsvpc",
        "executionRoleArn": "arn:aws:iam::111122223333:role/ecsTaskExecutionRole",
        "containerDefinitions": [
            {"name": "kv", "dockerLabels": {"mesh": "on"}, "portMappings": [{"containerPort": 8080}, {"containerPortRange": "1-9"}]},
            {"name": "log"},
        ],
    }}))])
    .await;
    let found =
        world.aws.ecs.describe_task_definition(&TaskDefinitionArn::parse(arn).unwrap()).await.unwrap();
    assert_eq!(found.task_role, Some(RoleArn::parse(ROLE).unwrap()));
    assert_eq!(found.network_mode.as_deref(), Some("awsvpc"));
    assert_eq!((found.containers[0].ports.as_slice(), found.containers[1].ports.len()), (&[8080][..], 0));
    assert_eq!(found.containers[0].docker_labels["mesh"], "on");
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
async fn a_roles_tags_come_in_one_call() {
    let world = World::answering([get_role(ROLE)]).await;
    let tags = world.aws.iam.role_tags(&RoleArn::parse(ROLE).unwrap()).await.unwrap();
    assert_eq!((tags["consul.hashicorp.com/service"].as_str(), tags["empty"].as_str()), ("kv", ""));
    assert!(
        world.script.seen.lock().unwrap()[0]
            .body
            .contains("Action=GetRole&Version=2010-05-08&RoleName=kv-task")
    );
    assert_eq!(world.told(), [("iam:GetRole", "ok")]);
}

#[tokio::test]
async fn a_role_of_the_same_name_under_another_path_is_not_the_role() {
    let world = World::answering([get_role("arn:aws:iam::111122223333:role/kv-task")]).await;
    let error = world.aws.iam.role_tags(&RoleArn::parse(ROLE).unwrap()).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (AwsErrorKind::NotFound, "AnotherRole"));
}

#[tokio::test]
async fn a_role_of_another_account_is_denied_and_never_a_same_named_one() {
    let foreign = RoleArn::parse("arn:aws:iam::444455556666:role/team/kv-task").unwrap();
    let world = World::answering([get_role(ROLE)]).await;
    for _ in 0..2 {
        let error = world.aws.iam.role_tags(&foreign).await.unwrap_err();
        assert_eq!((error.kind, error.code.as_str()), (AwsErrorKind::Denied, "OtherAccount"));
    }
    assert_eq!(world.told().len(), 1, "once the account is known no call is wasted");
}

#[tokio::test]
async fn a_missing_role_of_another_account_is_not_taken_for_a_deleted_one() {
    let world = World::answering([ok(&json!({"taskArns": []})), iam_refused(404, "NoSuchEntity")]).await;
    world.aws.ecs.list_tasks(&cluster(), DesiredStatus::Running, None).await.unwrap();
    let foreign = RoleArn::parse("arn:aws:iam::444455556666:role/kv-task").unwrap();
    assert_eq!(world.aws.iam.role_tags(&foreign).await.unwrap_err().kind, AwsErrorKind::Denied);
    let own = world.aws.iam.role_tags(&RoleArn::parse(ROLE).unwrap()).await.unwrap_err();
    assert_eq!((own.kind, own.code.as_str()), (AwsErrorKind::NotFound, "NoSuchEntity"));
}

#[tokio::test]
async fn messages_are_received_with_when_they_were_sent_and_how_often_received() {
    let world = World::answering([
        ok(&json!({"Messages": [
            {"MessageId": "m", "ReceiptHandle": "r1", "Body": "{}",
             "Attributes": {"SentTimestamp": "1795317818145", "ApproximateReceiveCount": "3"}},
            {"MessageId": "n", "ReceiptHandle": "r2", "Body": "x"},
        ]})),
        ok(&json!({})),
    ])
    .await;
    let messages = world.queue().receive().await.unwrap();
    assert_eq!(
        (messages[0].receipt.as_str(), messages[0].body.as_str(), messages[0].receives),
        ("r1", "{}", 3)
    );
    assert_eq!(messages[0].sent_at, Some(Timestamp(1_795_317_818_145)));
    assert_eq!((messages[1].sent_at, messages[1].receives), (None, 1));
    let asked = world.seen(0);
    assert_eq!((&asked["MaxNumberOfMessages"], &asked["WaitTimeSeconds"]), (&json!(10), &json!(20)));
    assert_eq!(asked["MessageSystemAttributeNames"], json!(["SentTimestamp", "ApproximateReceiveCount"]));
    assert_eq!(world.queue().receive().await.unwrap(), []);
}

#[tokio::test]
async fn a_batch_delete_gives_back_the_receipts_that_failed() {
    let world = World::answering([ok(&json!({
        "Successful": [{"Id": "0"}],
        "Failed": [{"Id": "1", "SenderFault": true, "Code": "ReceiptHandleIsInvalid", "Message": "old"}],
    }))])
    .await;
    let receipts = ["r1".to_owned(), "r2".to_owned()];
    assert_eq!(world.queue().delete(&receipts).await.unwrap(), ["r2"]);
    assert_eq!(world.seen(0)["Entries"][1], json!({"Id": "1", "ReceiptHandle": "r2"}));
    assert_eq!(world.script.seen.lock().unwrap()[0].target, "AmazonSQS.DeleteMessageBatch");
}

#[tokio::test]
async fn messages_are_given_back_by_making_them_visible_at_once() {
    let failed = json!({"Successful": [], "Failed": [
        {"Id": "0", "SenderFault": true, "Code": "ReceiptHandleIsInvalid", "Message": "old"}]});
    let world =
        World::answering([ok(&json!({"Successful": [{"Id": "0"}], "Failed": []})), ok(&failed)]).await;
    let receipts = ["r1".to_owned()];
    world.queue().give_back(&receipts).await.unwrap();
    assert_eq!(world.seen(0)["Entries"], json!([{"Id": "0", "ReceiptHandle": "r1", "VisibilityTimeout": 0}]));
    let error = world.queue().give_back(&receipts).await.unwrap_err();
    assert!(error.to_string().contains("ReceiptHandleIsInvalid: 1 of 1 messages: old"), "{error}");
}

#[tokio::test]
async fn a_queues_settings_tell_visibility_retention_and_redrive() {
    let world = World::answering([
        ok(&json!({"Attributes": {"VisibilityTimeout": "60", "MessageRetentionPeriod": "1209600",
                   "RedrivePolicy": "{\"maxReceiveCount\":5}"}})),
        ok(&json!({"Attributes": {"VisibilityTimeout": "30", "MessageRetentionPeriod": "345600"}})),
    ])
    .await;
    let good = world.queue().attributes().await.unwrap();
    assert_eq!(
        (good.visibility_timeout.as_secs(), good.retention.as_secs(), good.has_redrive),
        (60, 1_209_600, true)
    );
    assert!(!world.queue().attributes().await.unwrap().has_redrive);
}

#[tokio::test]
async fn each_refusal_is_of_the_kind_that_says_what_to_do() {
    use AwsErrorKind::{Credentials as Creds, Denied, Invalid, NotFound, Throttled, Unavailable};
    for (status, code, kind, hint) in [
        (400, "ThrottlingException", Throttled, ""),
        (429, "Whatever", Throttled, ""),
        (500, "ServerException", Unavailable, ""),
        (503, "Whatever", Unavailable, ""),
        (400, "AccessDeniedException", Denied, "ecs:DescribeTasks on task/CLUSTER/*"),
        (403, "Whatever", Denied, "ecs:DescribeTasks"),
        (400, "ExpiredTokenException", Creds, "expired"),
        (400, "UnrecognizedClientException", Creds, "does not know these credentials"),
        (400, "InvalidSignatureException", Creds, "clock"),
        (400, "ClusterNotFoundException", NotFound, "no such cluster"),
        (400, "InvalidParameterException", Invalid, ""),
    ] {
        let world = World::answering([refused(status, code, "Said AWS.")]).await;
        let error = world.aws.ecs.describe_tasks(&cluster(), &[id("a1")]).await.unwrap_err();
        assert_eq!((error.kind, error.code.as_str()), (kind, code), "{error}");
        assert!(error.hint.contains(hint), "{error}");
        let start = format!("ecs:DescribeTasks on 1 tasks of {CLUSTER} failed: {code}: Said AWS.");
        assert!(error.to_string().starts_with(&start), "{error}");
        assert_eq!(world.told(), [("ecs:DescribeTasks", kind.label())]);
    }
}

#[tokio::test]
async fn a_queue_that_does_not_exist_is_said_so() {
    for code in ["QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"] {
        let world = World::answering([refused(400, code, "None.")]).await;
        let error = world.queue().receive().await.unwrap_err();
        assert_eq!(error.kind, AwsErrorKind::NotFound);
        assert!(error.hint.contains("does not exist in this account and Region"), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_awss_is_classified_by_its_status() {
    for (status, kind) in [
        (200, AwsErrorKind::Unavailable),
        (404, AwsErrorKind::Invalid),
        (502, AwsErrorKind::Unavailable),
        (403, AwsErrorKind::Denied),
    ] {
        let world = World::answering([(status, "<html>a proxy</html>".to_owned())]).await;
        let error = world.aws.ecs.list_clusters(None).await.unwrap_err();
        assert_eq!((error.kind, error.code), (kind, format!("HTTP {status}")));
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_says_why() {
    let mut odd = task("a1");
    odd["cpu"] = json!(256);
    let world = World::answering([ok(&json!({"tasks": [odd]}))]).await;
    let error = world.aws.ecs.describe_tasks(&cluster(), &[id("a1")]).await.unwrap_err();
    assert!(error.message.starts_with("the answer cannot be read: "), "{error}");
    assert!(error.message.contains("expected string"), "{error}");
}

#[tokio::test]
async fn a_call_is_tried_once() {
    let world =
        World::answering([refused(500, "ServerException", "x"), ok(&json!({"clusterArns": []}))]).await;
    assert!(world.aws.ecs.list_clusters(None).await.is_err());
    assert_eq!(world.script.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_connection_failure() {
    let world = World::answering([]).await;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/111122223333/q", nobody.local_addr().unwrap());
    drop(nobody);
    let options = AwsOptions {
        endpoint_url: Some(url),
        region: Some("eu-west-1".to_owned()),
        credentials: Some(Credentials::new("a", "b", None, None, "test")),
        observer: Arc::clone(&world.told) as Arc<dyn AwsCallObserver>,
    };
    let error = AwsClients::connect(options).await.unwrap().ecs.list_clusters(None).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (AwsErrorKind::Unavailable, "connection"), "{error}");
    assert!(error.hint.contains("could not be reached"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_ends_after_five_seconds() {
    let world = World::slow(Duration::from_hours(1), []).await;
    let started = tokio::time::Instant::now();
    let error = world.aws.ecs.list_clusters(None).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (AwsErrorKind::Unavailable, "timeout"), "{error}");
    assert_eq!(started.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_is_not_cut_before_sqs_answers() {
    let world = World::slow(Duration::from_secs(20), [ok(&json!({}))]).await;
    assert_eq!(world.queue().receive().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_without_an_answer_ends_after_25_seconds() {
    let world = World::slow(Duration::from_hours(1), []).await;
    let started = tokio::time::Instant::now();
    assert_eq!(world.queue().receive().await.unwrap_err().code, "timeout");
    assert_eq!(started.elapsed().as_secs(), 25);
}

#[tokio::test]
async fn missing_credentials_say_where_they_could_come_from() {
    let world = World::answering([]).await;
    let none = aws_config::profile::ProfileFileCredentialsProvider::builder()
        .profile_name("a-profile-that-nobody-has")
        .configure(
            &aws_config::provider_config::ProviderConfig::without_region()
                .with_http_client(http_client(true)),
        )
        .build();
    let config = aws_sdk_ecs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .endpoint_url(&world.url)
        .credentials_provider(none)
        .http_client(http_client(true))
        .build();
    let calls = Calls::new(Arc::clone(&world.told) as Arc<dyn AwsCallObserver>);
    let ecs = SdkEcs::new(aws_sdk_ecs::Client::from_conf(config), calls);
    let error: AwsError = ecs.list_clusters(None).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (AwsErrorKind::Credentials, "credentials"), "{error}");
    assert!(error.hint.contains("give the task a task role"), "{error}");
    assert_eq!(world.told(), [("ecs:ListClusters", "credentials")]);
}

#[tokio::test]
async fn what_is_no_queue_url_is_refused() {
    let world = World::answering([]).await;
    for bad in
        ["", "ecs-events", "arn:aws:sqs:eu-west-1:111122223333:q", "https://sqs.eu-west-1.amazonaws.com/"]
    {
        assert!(world.aws.queue(bad).is_err(), "{bad:?} was accepted");
    }
    let error = world.aws.queue("ecs-events").err().unwrap().to_string();
    assert!(error.contains("get-queue-url"), "{error}");
}

#[test]
fn a_queues_region_is_that_of_its_url() {
    for (host, region) in [
        ("sqs.us-east-1.amazonaws.com", Some("us-east-1")),
        ("sqs.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
        ("eu-west-1.queue.amazonaws.com", Some("eu-west-1")),
        ("vpce-1.sqs.eu-west-1.vpce.amazonaws.com", None),
        ("127.0.0.1", None),
        ("localhost", None),
    ] {
        assert_eq!(region_of_queue_host(host), region, "{host}");
    }
}

#[tokio::test]
async fn a_whole_definition_has_variables_commands_and_tags_and_shows_no_value() {
    let arn = "arn:aws:ecs:eu-west-1:111122223333:task-definition/kv:7";
    let container = json!({
        "name": "app",
        "environment": [{"name": "A", "value": "planted"}],
        "secrets": [{"name": "B", "valueFrom": "arn"}],
        "command": ["run", "planted"],
        "healthCheck": {"command": ["CMD", "true"]},
        "portMappings": [{"containerPort": 8080}],
    });
    let definition = json!({"taskDefinitionArn": arn, "family": "kv", "networkMode": "awsvpc", "containerDefinitions": [container]});
    let answer = json!({"taskDefinition": definition, "tags": [{"key": "a", "value": "b"}]});
    let world = World::answering([ok(&answer)]).await;
    let found = world.aws.inspect.definition(&TaskDefinitionArn::parse(arn).unwrap()).await.unwrap();
    assert_eq!(world.seen(0), json!({"taskDefinition": arn, "include": ["TAGS"]}));
    let app = &found.containers[0];
    assert_eq!((app.environment[0].value.expose(), app.command[1].expose()), ("planted", "planted"));
    assert!(app.has_variable("B") && app.health_check && !format!("{found:?}").contains("planted"));
    assert_eq!((app.port_mappings[0].container_port, found.tags.unwrap()["a"].as_str()), (Some(8080), "b"));
}

#[tokio::test]
async fn a_role_may_read_itself_if_the_simulator_says_so() {
    let result = |decision: &str| {
        let xml = format!(
            "<SimulatePrincipalPolicyResponse><SimulatePrincipalPolicyResult><EvaluationResults><member>\
             <EvalActionName>iam:GetRole</EvalActionName><EvalDecision>{decision}</EvalDecision>\
             </member></EvaluationResults></SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
        );
        (200, xml)
    };
    let world = World::answering([result("allowed"), result("implicitDeny")]).await;
    let role = RoleArn::parse(ROLE).unwrap();
    assert!(world.aws.inspect.may_get_itself(&role).await.unwrap().allowed);
    let denied = world.aws.inspect.may_get_itself(&role).await.unwrap();
    assert_eq!((denied.allowed, denied.decision.as_str()), (false, "implicitDeny"));
    let body = &world.script.seen.lock().unwrap()[0].body;
    assert!(body.contains("ActionNames.member.1=iam%3AGetRole"), "{body}");
}
