//! The sandbox's AWS, called over HTTP by the AWS SDK for Rust. `conformance` calls it with boto3.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ecs::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_ecs::error::ProvideErrorMetadata;
use aws_sdk_ecs::types::{
    AwsVpcConfiguration, ContainerDefinition, DesiredStatus, NetworkConfiguration, NetworkMode, Tag,
    TaskField,
};
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, MessageSystemAttributeName, QueueAttributeName};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use ecs_mesh_model::{Tags, Timestamp};
use ecs_mesh_sandbox::aws::{
    AwsFault, AwsFaults, AwsFront, Cloud, CloudConfig, CreateRole, NoAwsFaults, RegisterTaskDefinition,
    RuleTarget, RunTask, SendMessage, Throttling, serve,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running endpoint with a manual clock.
pub(crate) struct SandboxServer {
    pub(crate) front: AwsFront,
    clock: Arc<AtomicI64>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<std::io::Result<()>>,
}

/// Faults by `service.Operation`, one for each call in order.
#[derive(Default)]
pub(crate) struct FaultScript(Mutex<BTreeMap<String, VecDeque<AwsFault>>>);

impl FaultScript {
    pub(crate) fn add(&self, call: &str, fault: AwsFault) {
        self.0.lock().unwrap().entry(call.to_owned()).or_default().push_back(fault);
    }
}

impl AwsFaults for FaultScript {
    fn decide(&self, service: &str, operation: &str) -> AwsFault {
        let mut faults = self.0.lock().unwrap();
        faults
            .get_mut(&format!("{service}.{operation}"))
            .and_then(VecDeque::pop_front)
            .unwrap_or(AwsFault::None)
    }
}

impl SandboxServer {
    pub(crate) async fn start() -> Self {
        Self::with(CloudConfig::default(), Arc::new(NoAwsFaults)).await
    }

    pub(crate) async fn with(config: CloudConfig, faults: Arc<dyn AwsFaults>) -> Self {
        let clock = Arc::new(AtomicI64::new(1_800_000_000_000));
        let read = clock.clone();
        let cloud = Cloud::new(config, Timestamp(clock.load(Ordering::SeqCst)));
        let front = AwsFront::new(Arc::new(Mutex::new(cloud)), faults, move || {
            Timestamp(read.load(Ordering::SeqCst))
        });
        Self::serve(front, clock).await
    }

    async fn serve(front: AwsFront, clock: Arc<AtomicI64>) -> Self {
        // Another test may have installed the provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(listener, front.clone(), async move {
            let _ = stopped.await;
        }));
        Self { front, clock, address, stop: Some(stop), served }
    }

    fn advance(&self, by: Duration) {
        self.clock.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
        self.front.with(|_, _| ());
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn sdk(&self) -> SdkConfig {
        sdk(&self.url())
    }

    fn ecs(&self) -> aws_sdk_ecs::Client {
        aws_sdk_ecs::Client::new(&self.sdk())
    }

    fn sqs(&self) -> aws_sdk_sqs::Client {
        aws_sdk_sqs::Client::new(&self.sdk())
    }

    fn iam(&self) -> aws_sdk_iam::Client {
        aws_sdk_iam::Client::new(&self.sdk())
    }

    /// Creates the cluster `prod`, the task definition `kv`, and a queue that receives all events.
    fn create_resources(&self) {
        self.front.with(|cloud, now| {
            cloud.create_cluster("prod", Tags::new()).unwrap();
            let kv = RegisterTaskDefinition::fargate("kv", Some("kv-task"), 8080);
            cloud.register_task_definition(kv, now).unwrap();
            cloud.create_queue("events", BTreeMap::new(), now).unwrap();
            cloud.put_rule("all", r#"{"source": [{"prefix": "aws."}]}"#, true, None).unwrap();
            let arn = cloud.queue_arn("events").unwrap();
            let target = RuleTarget { id: "q".into(), arn, input: None, rest: serde_json::Map::new() };
            cloud.put_targets("all", vec![target]).unwrap();
        });
    }

    pub(crate) async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.served.await.unwrap().unwrap();
    }
}

/// The SDK configuration of all clients: one TLS stack, fast retries.
pub(crate) fn sdk(url: &str) -> SdkConfig {
    let http =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .endpoint_url(url)
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            "AKIDTEST", "secret", None, None, "test",
        )))
        .http_client(http)
        .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(1)))
        .build()
}

fn awsvpc() -> NetworkConfiguration {
    let inner = AwsVpcConfiguration::builder().subnets("subnet-1").build().unwrap();
    NetworkConfiguration::builder().awsvpc_configuration(inner).build()
}

#[tokio::test]
async fn sdk_starts_lists_describes_and_stops_tasks() {
    let sandbox = SandboxServer::start().await;
    let ecs = sandbox.ecs();
    ecs.create_cluster().cluster_name("prod").send().await.unwrap();
    let definition = ecs
        .register_task_definition()
        .family("kv")
        .network_mode(NetworkMode::Awsvpc)
        .task_role_arn("arn:aws:iam::111122223333:role/kv-task")
        .container_definitions(ContainerDefinition::builder().name("app").image("kv:1").memory(128).build())
        .send()
        .await
        .unwrap()
        .task_definition
        .unwrap();
    let request =
        ecs.run_task().cluster("prod").task_definition("kv").count(3).network_configuration(awsvpc());
    let started = request.tags(Tag::builder().key("team").value("kv").build()).send().await.unwrap();
    assert_eq!(started.tasks().len(), 3);
    sandbox.advance(Duration::from_secs(5));

    let mut pages = ecs.list_tasks().cluster("prod").max_results(2).into_paginator().send();
    let mut listed = Vec::new();
    while let Some(page) = pages.next().await {
        listed.extend(page.unwrap().task_arns.unwrap());
    }
    assert_eq!(listed.len(), 3);

    let described = ecs
        .describe_tasks()
        .cluster("prod")
        .set_tasks(Some(listed.clone()))
        .tasks("0123456789abcdef0123456789abcdef")
        .include(TaskField::Tags)
        .send()
        .await
        .unwrap();
    assert_eq!(described.failures()[0].reason(), Some("MISSING"));
    let task = &described.tasks()[0];
    assert_eq!((task.last_status(), task.version()), (Some("RUNNING"), 5));
    assert_eq!(task.tags()[0].key(), Some("team"));
    assert_eq!(task.task_definition_arn(), definition.task_definition_arn());
    assert_eq!(task.attachments()[0].r#type(), Some("ElasticNetworkInterface"));
    let address = task.containers()[0].network_interfaces()[0].private_ipv4_address();
    assert!(address.unwrap().starts_with("10.0.0."), "{address:?}");
    // The SDK reads epoch seconds as a float and truncates the fraction.
    let took = task.started_at().unwrap().as_secs_f64() - task.created_at().unwrap().as_secs_f64();
    assert!((took - 0.6).abs() < 0.001, "{took}");

    ecs.stop_task().cluster("prod").task(&listed[0]).reason("enough").send().await.unwrap();
    let stopped =
        ecs.list_tasks().cluster("prod").desired_status(DesiredStatus::Stopped).send().await.unwrap();
    assert_eq!(stopped.task_arns(), &listed[..1]);
    sandbox.advance(Duration::from_secs(5));
    let described = ecs.describe_tasks().cluster("prod").tasks(&listed[0]).send().await.unwrap();
    let task = &described.tasks()[0];
    assert_eq!(task.last_status(), Some("STOPPED"));
    assert_eq!(task.stop_code().unwrap().as_str(), "UserInitiated");
    assert_eq!(task.stopped_reason(), Some("enough"));
    assert_eq!(sandbox.front.calls()["ecs.ListTasks"], 3);
    sandbox.stop().await;
}

#[tokio::test]
async fn sdk_decodes_errors_by_type() {
    let sandbox = SandboxServer::start().await;
    sandbox.create_resources();
    let (ecs, sqs, iam) = (sandbox.ecs(), sandbox.sqs(), sandbox.iam());
    let error = ecs.list_tasks().cluster("none").send().await.unwrap_err().into_service_error();
    assert!(error.is_cluster_not_found_exception(), "{error:?}");
    assert!(error.message().unwrap().contains("none"));
    let error = ecs.describe_task_definition().task_definition("none").send().await.unwrap_err();
    assert!(error.into_service_error().is_client_exception());
    let many = Some(vec!["x".to_owned(); 101]);
    let error = ecs.describe_tasks().cluster("prod").set_tasks(many).send().await.unwrap_err();
    assert!(error.into_service_error().is_invalid_parameter_exception());
    let error = sqs.get_queue_url().queue_name("none").send().await.unwrap_err().into_service_error();
    assert!(error.is_queue_does_not_exist(), "{error:?}");
    let url = sqs.get_queue_url().queue_name("events").send().await.unwrap().queue_url.unwrap();
    let error = sqs.delete_message().queue_url(&url).receipt_handle("x").send().await.unwrap_err();
    assert!(error.into_service_error().is_receipt_handle_is_invalid());
    let entry = || DeleteMessageBatchRequestEntry::builder().id("a").receipt_handle("x").build().unwrap();
    let twice = sqs.delete_message_batch().queue_url(&url).entries(entry()).entries(entry());
    let error = twice.send().await.unwrap_err().into_service_error();
    assert!(error.is_batch_entry_ids_not_distinct(), "{error:?}");
    let error = iam.get_role().role_name("none").send().await.unwrap_err().into_service_error();
    assert!(error.is_no_such_entity_exception(), "{error:?}");
    sandbox.stop().await;
}

#[tokio::test]
async fn task_events_are_received_and_batch_deleted() {
    let sandbox = SandboxServer::start().await;
    sandbox.create_resources();
    sandbox.front.with(|cloud, now| cloud.run_task(&RunTask::awsvpc("prod", "kv"), now).unwrap());
    sandbox.advance(Duration::from_secs(5));
    let sqs = sandbox.sqs();
    let url = sqs.get_queue_url().queue_name("events").send().await.unwrap().queue_url.unwrap();
    let received = sqs
        .receive_message()
        .queue_url(&url)
        .max_number_of_messages(10)
        .message_system_attribute_names(MessageSystemAttributeName::All)
        .send()
        .await
        .unwrap();
    assert_eq!(received.messages().len(), 5);
    let message = &received.messages()[0];
    let event: serde_json::Value = serde_json::from_str(message.body().unwrap()).unwrap();
    assert_eq!(event["detail-type"], "ECS Task State Change");
    let system = message.attributes().unwrap();
    assert_eq!(system[&MessageSystemAttributeName::ApproximateReceiveCount], "1");
    assert!(system.contains_key(&MessageSystemAttributeName::SentTimestamp));
    let entries = received.messages().iter().enumerate().map(|(index, message)| {
        DeleteMessageBatchRequestEntry::builder()
            .id(index.to_string())
            .receipt_handle(message.receipt_handle().unwrap())
            .build()
            .unwrap()
    });
    let deleted =
        sqs.delete_message_batch().queue_url(&url).set_entries(Some(entries.collect())).send().await.unwrap();
    assert_eq!((deleted.successful().len(), deleted.failed().len()), (5, 0));
    let attributes = sqs
        .get_queue_attributes()
        .queue_url(&url)
        .attribute_names(QueueAttributeName::All)
        .send()
        .await
        .unwrap();
    let attributes = attributes.attributes.unwrap();
    assert_eq!(attributes[&QueueAttributeName::ApproximateNumberOfMessages], "0");
    assert_eq!(attributes[&QueueAttributeName::ApproximateNumberOfMessagesNotVisible], "0");
    sandbox.stop().await;
}

#[tokio::test]
async fn long_poll_receives_a_later_message() {
    let sandbox = SandboxServer::start().await;
    sandbox.create_resources();
    let sqs = sandbox.sqs();
    let url = sqs.get_queue_url().queue_name("events").send().await.unwrap().queue_url.unwrap();
    let waiting = tokio::spawn(sqs.receive_message().queue_url(&url).wait_time_seconds(20).send());
    count_call(&sandbox, "sqs.ReceiveMessage", 1).await;
    sandbox.front.with(|cloud, now| cloud.send_message("events", SendMessage::of("hello"), now).unwrap());
    let received = waiting.await.unwrap().unwrap();
    assert_eq!(received.messages()[0].body(), Some("hello"));
    sandbox.stop().await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_long_poll() {
    let sandbox = SandboxServer::start().await;
    sandbox.create_resources();
    let sqs = sandbox.sqs();
    let url = sqs.get_queue_url().queue_name("events").send().await.unwrap().queue_url.unwrap();
    let waiting = tokio::spawn(sqs.receive_message().queue_url(&url).wait_time_seconds(20).send());
    count_call(&sandbox, "sqs.ReceiveMessage", 1).await;
    sandbox.stop().await;
    assert!(waiting.await.unwrap().unwrap().messages().is_empty());
}

/// Waits until an operation was called this often.
async fn count_call(sandbox: &SandboxServer, call: &str, count: u64) {
    while sandbox.front.calls().get(call).copied().unwrap_or(0) < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn role_tags_are_changed_and_read() {
    let sandbox = SandboxServer::start().await;
    let iam = sandbox.iam();
    for name in ["r1", "r2"] {
        sandbox.front.with(|cloud, now| {
            let tags = Tags::from([("mesh".to_owned(), "<a> & b".to_owned())]);
            let role = CreateRole { path: "/team/".into(), ..CreateRole::for_tasks(name, tags) };
            cloud.create_role(role, now).unwrap();
        });
    }
    let tag = aws_sdk_iam::types::Tag::builder().key("team").value("kv").build().unwrap();
    iam.tag_role().role_name("r1").tags(tag).send().await.unwrap();
    iam.untag_role().role_name("r2").tag_keys("mesh").send().await.unwrap();
    let role = iam.get_role().role_name("r1").send().await.unwrap().role.unwrap();
    let tags: Vec<_> = role.tags().iter().map(|tag| (tag.key(), tag.value())).collect();
    assert_eq!(tags, [("mesh", "<a> & b"), ("team", "kv")]);
    assert_eq!(role.arn(), "arn:aws:iam::111122223333:role/team/r1");
    let role = iam.get_role().role_name("r2").send().await.unwrap().role.unwrap();
    assert!(role.tags().is_empty());
    sandbox.stop().await;
}

#[tokio::test]
async fn sdk_retries_throttled_failed_and_dropped_calls() {
    let script = Arc::new(FaultScript::default());
    let sandbox = SandboxServer::with(CloudConfig::default(), script.clone()).await;
    sandbox.create_resources();
    let (ecs, sqs, iam) = (sandbox.ecs(), sandbox.sqs(), sandbox.iam());
    let role = CreateRole::for_tasks("r", Tags::new());
    sandbox.front.with(|cloud, now| cloud.create_role(role, now).unwrap());
    for fault in [AwsFault::Throttle, AwsFault::InternalError, AwsFault::Drop] {
        for call in ["ecs.ListClusters", "sqs.GetQueueUrl", "iam.GetRole"] {
            script.add(call, fault);
        }
        assert_eq!(ecs.list_clusters().send().await.unwrap().cluster_arns().len(), 1, "{fault:?}");
        assert!(sqs.get_queue_url().queue_name("events").send().await.is_ok(), "{fault:?}");
        assert!(iam.get_role().role_name("r").send().await.is_ok(), "{fault:?}");
    }
    for call in ["ecs.ListClusters", "sqs.GetQueueUrl", "iam.GetRole"] {
        assert_eq!(sandbox.front.calls()[call], 6, "{call}");
    }
    sandbox.stop().await;
}

#[tokio::test]
async fn fault_after_the_effect_keeps_the_effect() {
    let script = Arc::new(FaultScript::default());
    let sandbox = SandboxServer::with(CloudConfig::default(), script.clone()).await;
    let once = sandbox.sdk().into_builder().retry_config(RetryConfig::disabled()).build();
    let ecs = aws_sdk_ecs::Client::new(&once);
    for (name, fault) in [("a", AwsFault::ErrorAfterEffect), ("b", AwsFault::DropAfterEffect)] {
        script.add("ecs.CreateCluster", fault);
        assert!(ecs.create_cluster().cluster_name(name).send().await.is_err(), "{fault:?}");
    }
    assert_eq!(ecs.list_clusters().send().await.unwrap().cluster_arns().len(), 2);
    script.add("ecs.ListClusters", AwsFault::EmptyList);
    assert!(ecs.list_clusters().send().await.unwrap().cluster_arns().is_empty());
    script.add("ecs.ListClusters", AwsFault::AccessDenied);
    let error = ecs.list_clusters().send().await.unwrap_err();
    assert_eq!(error.code(), Some("AccessDeniedException"));
    sandbox.stop().await;
}

#[tokio::test]
async fn quotas_throttle_excess_calls() {
    let config = CloudConfig { throttling: Some(Throttling::published()), ..CloudConfig::default() };
    let sandbox = SandboxServer::with(config, Arc::new(NoAwsFaults)).await;
    sandbox.create_resources();
    let once = sandbox.sdk().into_builder().retry_config(RetryConfig::disabled()).build();
    let ecs = aws_sdk_ecs::Client::new(&once);
    for _ in 0..100 {
        ecs.list_tasks().cluster("prod").send().await.unwrap();
    }
    let error = ecs.list_tasks().cluster("prod").send().await.unwrap_err();
    assert_eq!(error.code(), Some("ThrottlingException"));
    sandbox.advance(Duration::from_millis(50));
    ecs.list_tasks().cluster("prod").send().await.unwrap();
    sandbox.stop().await;
}

const LIST: &str = "AmazonEC2ContainerServiceV20141113.ListClusters";
const GET_ROLE: &str = "Action=GetRole&Version=2010-05-08&RoleName=r";

#[tokio::test]
async fn unsigned_and_unknown_requests_are_rejected() {
    let sandbox = SandboxServer::start().await;
    let http = reqwest::Client::new();
    let signed = "AWS4-HMAC-SHA256 Credential=AKID/20270101/eu-west-1/ecs/aws4_request, Signature=0";
    let ask = |target: &'static str, authorization: Option<&'static str>, body: &'static str| {
        let mut request = http.post(sandbox.url()).body(body);
        if !target.is_empty() {
            request = request.header("x-amz-target", target);
        }
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        answer(request)
    };
    for (target, authorization, body, status, part) in [
        (LIST, None, "{}", 400, "MissingAuthenticationTokenException"),
        ("", None, GET_ROLE, 403, "<Code>MissingAuthenticationToken</Code>"),
        ("", Some(signed), GET_ROLE, 404, "<Code>NoSuchEntity</Code>"),
        ("AmazonEC2ContainerServiceV20141113.Fly", Some(signed), "{}", 400, "UnknownOperationException"),
        ("Lambda.Invoke", Some(signed), "{}", 400, "UnknownOperationException"),
        (LIST, Some(signed), "[", 400, "SerializationException"),
        ("", Some(signed), "", 400, "InvalidAction"),
        ("", Some(signed), "Action=Fly&Version=2010-05-08&RoleName=r", 400, "InvalidAction"),
        (LIST, Some(signed), "{}", 200, "clusterArns"),
    ] {
        let (found, text) = ask(target, authorization, body).await;
        assert_eq!(found, status, "{target} {body}: {text}");
        assert!(text.contains(part), "{target} {body}: {text}");
    }
    sandbox.stop().await;
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}
