//! The operator against an independent AWS emulator: moto, whose EventBridge delivers events of `aws.ecs`.
//!
//! moto sends no events itself, so the test sends those of ECS and CloudTrail. `StopTask` of moto goes to STOPPED at
//! once, so the event of a stopping task is sent before the call.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use aws_sdk_ecs::types::{AwsVpcConfiguration, LaunchType, NetworkConfiguration, Task};
use aws_sdk_eventbridge::types::{PutEventsRequestEntry, Target};
use aws_sdk_sqs::types::QueueAttributeName;
use ecs_mesh_model::Timestamp;
use serde_json::{Value, json};

use super::harness::{Harness, OperatorProcess, binding, control_plane, document, eventually, tag, workload};
use crate::conformance::python;

const ACCOUNT: &str = "111122223333";
const PATTERN: &str = r#"{"source": ["aws.ecs"]}"#;

/// A harness with moto as AWS and the sandbox's Kuma.
pub(super) struct MotoHarness {
    // Declared before the harness, since fields drop in order and moto writes into its directory.
    _moto: OperatorProcess,
    pub(super) harness: Harness,
    subnet: String,
}

impl MotoHarness {
    async fn start_all(python: &OsStr) -> Self {
        Self::start_as(python, Some(ACCOUNT)).await
    }

    /// Starts moto with one account for all requests; with `None`, the access key determines the account, and an unknown key is of
    /// moto's own.
    pub(super) async fn start_as(python: &OsStr, account: Option<&str>) -> Self {
        let mut harness = Harness::start().await;
        let moto = start(python, harness.directory.path(), account);
        let url =
            eventually("moto's endpoint", || async { moto.stdout().lines().next().map(str::to_owned) }).await;
        harness.environment.insert("AWS_ENDPOINT_URL".to_owned(), url.clone());
        let cluster = harness.ecs().create_cluster().cluster_name("moto").send().await.unwrap();
        let arn = cluster.cluster.unwrap().cluster_arn.unwrap();
        harness.environment.insert("ECS_MESH_CLUSTER_ARN".to_owned(), arn);
        let queue = create_queue_and_rules(&harness).await;
        harness.environment.insert("ECS_MESH_QUEUE_URL".to_owned(), queue);
        Self { _moto: moto, subnet: subnet(&url, "AKID", "eu-west-1").await, harness }
    }

    fn events(&self) -> aws_sdk_eventbridge::Client {
        aws_sdk_eventbridge::Client::new(&self.harness.sdk())
    }

    async fn put(&self, source: &str, detail_type: &str, detail: &Value) {
        let entry = PutEventsRequestEntry::builder().source(source).detail_type(detail_type);
        let entry = entry.detail(detail.to_string()).build();
        let put = self.events().put_events().entries(entry).send().await.unwrap();
        assert_eq!(put.failed_entry_count(), 0, "{put:?}");
    }

    pub(super) async fn run(&self) -> Task {
        run_task(&self.harness.ecs(), "moto", &self.subnet).await
    }

    async fn stop(&self, task: &Task) {
        let request = self.harness.ecs().stop_task().cluster("moto").task(task.task_arn().unwrap());
        request.send().await.unwrap();
    }

    /// Sends a task's event as ECS does, with the content of DescribeTasks.
    async fn send_task_event(&self, task: &Task, version: u64, desired: &str, last: &str) {
        let described =
            self.harness.ecs().describe_tasks().cluster("moto").tasks(task.task_arn().unwrap()).send().await;
        let task = described.unwrap().tasks.unwrap().remove(0);
        let detail = state_change(&task, version, desired, last);
        self.put("aws.ecs", "ECS Task State Change", &detail).await;
    }

    /// Sends the CloudTrail event of a call that changed a role.
    pub(super) async fn send_role_event(&self, account: &str, call: &str, role: &str) {
        let detail = json!({
            "eventTime": now(), "eventSource": "iam.amazonaws.com", "eventName": call, "awsRegion": "us-east-1",
            "requestParameters": {"roleName": role}, "responseElements": null, "eventType": "AwsApiCall",
        });
        // IAM's events come from us-east-1, and moto's from the Region of their bus.
        let event = json!({
            "version": "0", "id": "1", "detail-type": "AWS API Call via CloudTrail", "source": "aws.iam",
            "account": account, "time": now(), "region": "us-east-1", "resources": [], "detail": detail,
        });
        let queue = self.harness.variable("ECS_MESH_QUEUE_URL");
        let sent = self.harness.sqs().send_message().queue_url(queue).message_body(event.to_string());
        sent.send().await.unwrap();
    }
}

/// Runs a task of the family `app`.
pub(super) async fn run_task(ecs: &aws_sdk_ecs::Client, cluster: &str, subnet: &str) -> Task {
    let network = AwsVpcConfiguration::builder().subnets(subnet).set_security_groups(Some(vec![]));
    let network = NetworkConfiguration::builder().awsvpc_configuration(network.build().unwrap()).build();
    let request = ecs.run_task().cluster(cluster).task_definition("app").launch_type(LaunchType::Fargate);
    request.network_configuration(network).send().await.unwrap().tasks.unwrap().remove(0)
}

fn start(python: &OsStr, directory: &Path, account: Option<&str>) -> OperatorProcess {
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/moto_server.py")).arg("--patched");
    let account = account.map(|account| ("MOTO_ACCOUNT_ID".to_owned(), account.to_owned()));
    let environment = account.into_iter().collect();
    OperatorProcess::launch(&mut command, directory, "moto", &environment)
}

/// Creates a queue that receives the events and returns its URL.
async fn create_queue_and_rules(harness: &Harness) -> String {
    let (sqs, events) = (harness.sqs(), aws_sdk_eventbridge::Client::new(&harness.sdk()));
    let url = sqs.create_queue().queue_name("events").send().await.unwrap().queue_url.unwrap();
    let request = sqs.get_queue_attributes().queue_url(&url).attribute_names(QueueAttributeName::QueueArn);
    let arn =
        request.send().await.unwrap().attributes.unwrap().remove(&QueueAttributeName::QueueArn).unwrap();
    events.put_rule().name("events").event_pattern(PATTERN).send().await.unwrap();
    let target = Target::builder().id("queue").arn(arn).build().unwrap();
    events.put_targets().rule("events").targets(target).send().await.unwrap();
    url
}

/// One of moto's own subnets, since moto accepts no other. The request is raw, since the EC2 client is not a
/// dependency and moto checks no signature.
pub(super) async fn subnet(url: &str, access_key: &str, region: &str) -> String {
    let signed = format!(
        "AWS4-HMAC-SHA256 Credential={access_key}/20270101/{region}/ec2/aws4_request, SignedHeaders=host, Signature=0"
    );
    let request = reqwest::Client::builder().no_proxy().build().unwrap().post(url);
    let form = "Action=DescribeSubnets&Version=2016-11-15";
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
    let answer = request.header("authorization", signed).send().await.unwrap().text().await.unwrap();
    let (_, rest) = answer.split_once("<subnetId>").unwrap_or_else(|| panic!("no subnet: {answer}"));
    rest.split('<').next().unwrap().to_owned()
}

/// The `detail` of an ECS event as documented.
fn state_change(task: &Task, version: u64, desired: &str, last: &str) -> Value {
    let attachment = &task.attachments()[0];
    let details = attachment.details().iter().map(|pair| json!({"name": pair.name(), "value": pair.value()}));
    let details: Vec<Value> = details.collect();
    let interface = json!({"attachmentId": attachment.id(), "privateIpv4Address": address(task)});
    json!({
        "attachments": [{"id": attachment.id(), "type": "eni", "status": "ATTACHED", "details": details}],
        "availabilityZone": "eu-west-1a",
        "clusterArn": task.cluster_arn(),
        "containers": [{
            "containerArn": task.containers()[0].container_arn(), "taskArn": task.task_arn(), "name": "app",
            "lastStatus": last, "networkInterfaces": [interface], "cpu": "0", "memory": "128",
        }],
        "createdAt": now(),
        "desiredStatus": desired,
        "group": task.group(),
        "lastStatus": last,
        "launchType": "FARGATE",
        "overrides": {"containerOverrides": [{"name": "app"}]},
        "taskArn": task.task_arn(),
        "taskDefinitionArn": task.task_definition_arn(),
        "updatedAt": now(),
        "version": version,
    })
}

fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_millis()).unwrap()).to_string()
}

pub(super) fn address(task: &Task) -> &str {
    let mut details = task.attachments()[0].details().iter();
    details.find(|pair| pair.name() == Some("privateIPv4Address")).and_then(|pair| pair.value()).unwrap()
}

pub(super) fn id(task: &Task) -> &str {
    task.task_arn().unwrap().rsplit('/').next().unwrap()
}

fn outbounds(port: u16) -> String {
    let outbound = format!("{{service: kv, targetPort: {port}, listen: {{port: {port}}}}}");
    document("OutboundList", "kv-users", &format!("{{workloads: [app], outbounds: [{outbound}]}}"))
}

#[tokio::test]
async fn task_lifecycle_on_moto() {
    let Some(python) = python("the run against moto") else { return };
    let moto = MotoHarness::start_all(&python).await;
    let harness = &moto.harness;
    harness.role("app").await;
    harness.define("app").await;
    harness.manifest("all.yaml", &harness.base_manifests());
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let mut operator = harness.operator(&["--queue-url", &queue]);
    operator.wait_for_sweep(true).await;

    // One task with an event, and one without, which the sweep finds.
    let with_event = moto.run().await;
    moto.send_task_event(&with_event, 1, "RUNNING", "RUNNING").await;
    harness.wait_for_dataplanes("the task of the event", |found| found.contains_key(id(&with_event))).await;
    let without_event = moto.run().await;
    let both = harness.wait_for_dataplanes("the task of the sweep", |found| found.len() == 2).await;
    for task in [&with_event, &without_event] {
        assert_eq!(both[id(task)]["networking"]["address"].as_str(), Some(address(task)), "{both:?}");
    }

    // An edited OutboundList is applied to both.
    harness.manifest("outbounds.yaml", &outbounds(6379));
    let edited = |dataplane: &Value| dataplane["networking"]["outbound"][0]["port"].as_u64() == Some(6379);
    harness.wait_for_dataplanes("the outbound at both", |found| found.values().all(edited)).await;

    // A removed role tag removes the registrations, and a restored one registers again.
    harness.iam().untag_role().role_name("app-task").tag_keys("kuma.io/mesh").send().await.unwrap();
    moto.send_role_event(ACCOUNT, "UntagRole", "app-task").await;
    harness.wait_for_dataplanes("withdrawal of both", BTreeMap::is_empty).await;
    operator.line(&[("reason", "rejected"), ("error", "app-task"), ("error", "kuma.io/mesh")]).await;
    harness.iam().tag_role().role_name("app-task").tags(tag("kuma.io/mesh", "default")).send().await.unwrap();
    moto.send_role_event(ACCOUNT, "TagRole", "app-task").await;
    harness.wait_for_dataplanes("registration of both", |found| found.len() == 2).await;

    // An event alone stops nothing, and a task is removed when ECS reports STOPPED.
    moto.send_task_event(&with_event, 2, "STOPPED", "STOPPED").await;
    moto.stop(&with_event).await;
    moto.send_task_event(&with_event, 3, "STOPPED", "STOPPED").await;
    harness
        .wait_for_dataplanes("removal of the stopped task", |found| !found.contains_key(id(&with_event)))
        .await;

    // The sweep finds a stop without an event.
    moto.stop(&without_event).await;
    harness.wait_for_dataplanes("removal by the sweep", BTreeMap::is_empty).await;
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0), "{}", operator.stderr());
    assert!(operator.lines(&[("reason", ""), ("action", "")]).is_empty(), "{}", operator.stderr());
}

impl MotoHarness {
    /// Calls a JSON service of moto, whose client is no dependency; moto checks no signature.
    async fn call(&self, service: &str, target: &str, body: Value) -> Value {
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential=AKID/20270101/eu-west-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
        );
        let request = self.harness.http.post(self.harness.variable("AWS_ENDPOINT_URL"));
        let request = request.header("authorization", signed).header("x-amz-target", target);
        let request = request.header("content-type", "application/x-amz-json-1.1").body(body.to_string());
        let answer = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// The stored token of the workload, and its tags.
    async fn stored(&self, store: &str, path: &str) -> Option<(String, BTreeMap<String, String>)> {
        let name = format!("{path}/default/app/token");
        let (text, tags) = if store == "secretsManager" {
            let id = json!({ "SecretId": name });
            let value = self.call("secretsmanager", "secretsmanager.GetSecretValue", id.clone()).await;
            let described = self.call("secretsmanager", "secretsmanager.DescribeSecret", id).await;
            (value["SecretString"].clone(), described["Tags"].clone())
        } else {
            let get = json!({"Name": name, "WithDecryption": true});
            let value = self.call("ssm", "AmazonSSM.GetParameter", get).await["Parameter"].take();
            if value.is_object() {
                assert_eq!((&value["Type"], value["Version"].is_u64()), (&json!("SecureString"), true));
            }
            let tagged = json!({"ResourceType": "Parameter", "ResourceId": name});
            let tags = self.call("ssm", "AmazonSSM.ListTagsForResource", tagged).await;
            (value["Value"].clone(), tags["TagList"].clone())
        };
        let tags = tags.as_array()?.iter().map(|tag| {
            let text = |field: &str| tag[field].as_str().unwrap().to_owned();
            (text("Key"), text("Value"))
        });
        Some((text.as_str()?.to_owned(), tags.collect()))
    }
}

/// Tokens are issued, stored with their tags, replaced when the binding asks for a shorter life, and revoked when the
/// workload is removed, in both stores.
#[tokio::test]
async fn tokens_are_stored_and_revoked_on_moto() {
    let Some(python) = python("the run against moto") else { return };
    for store in ["secretsManager", "parameterStore"] {
        let moto = MotoHarness::start_all(&python).await;
        let harness = &moto.harness;
        let kuma = control_plane("kuma", harness.variable("KUMA_API_URL"), "");
        let binding = |valid_for: &str| {
            let cluster = harness.variable("ECS_MESH_CLUSTER_ARN");
            let tokens = format!("issue: true, path: /mesh, store: {store}, {valid_for}");
            binding("prod", "kuma", cluster, &format!(", tokens: {{{tokens}}}"))
        };
        harness.manifest("all.yaml", &[&kuma, &*binding(""), &workload("app", "app")].concat());
        let (code, plan) = harness.plan().await;
        let planned: Vec<&Value> = plan["changes"].as_array().unwrap().iter().collect();
        let planned = planned.iter().find(|change| change["kind"] == "dataplaneToken");
        assert_eq!((code, &planned.unwrap()["change"]), (2, &json!("create")), "{plan}");
        assert_eq!(moto.stored(store, "/mesh").await, None, "a plan writes nothing");

        let operator = harness.operator(&[]);
        let created = operator.line(&[("message", "data plane token changed"), ("change", "create")]).await;
        assert_eq!((&created["target"], &created["workload"]), (&json!("audit"), &json!("app")), "{created}");
        let (text, tags) = moto.stored(store, "/mesh").await.unwrap();
        assert_eq!((text.split('.').count(), tags["ecs-mesh.dev/operator"].as_str()), (3, "harness"));
        assert_eq!(tags["ecs-mesh.dev/identity"], "workload=app");
        let id = created["token_id"].as_str().unwrap().to_owned();
        assert!(tags["ecs-mesh.dev/token"].starts_with(&id), "{tags:?}");

        // Another life for tokens replaces the stored one, which stays valid for now.
        let shorter = binding("validFor: 10d, rotateBefore: 5d, overlap: 1d");
        harness.manifest("all.yaml", &[&kuma, &*shorter, &workload("app", "app")].concat());
        operator.line(&[("message", "data plane token changed"), ("change", "rotate")]).await;
        let (next, tags) = moto.stored(store, "/mesh").await.unwrap();
        assert_ne!(next, text);
        assert!(tags["ecs-mesh.dev/prior-tokens"].starts_with(&id), "{tags:?}");

        harness.manifest("all.yaml", &[&kuma, &*shorter].concat());
        operator
            .line(&[("message", "data plane token changed"), ("change", "revoke"), ("token_id", &id)])
            .await;
        let list = harness.get("/meshes/default/secrets/dataplane-token-revocations-default").await;
        let list: Value = serde_json::from_str(&list).unwrap();
        // Two ids of 36 characters and a comma, in base64.
        assert_eq!(list["data"].as_str().unwrap().len(), 100, "{list}");
        let log = operator.stderr();
        assert!(!log.contains(&text) && !log.contains(&next), "{log}");
    }
}
