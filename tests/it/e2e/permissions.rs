//! The permissions that `doctor --print-iam-policy` prints are those that a run uses: each call that reaches the sandbox is
//! compared with actions, resources and conditions of the printed statements.

mod policy;
mod recorder;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ecs_mesh_model::{Tags, Timestamp};
use ecs_mesh_sandbox::aws::{
    Cloud, CloudConfig, CreateRole, CreateSecret, CreateService, PutParameter, RegisterTaskDefinition,
    StoredParameter,
};
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use serde_json::json;

use self::policy::PrintedPolicy;
use self::recorder::CallRecorder;
use super::deployments::{DeploymentHarness, HOLD};
use super::harness::{
    Harness, OperatorProcess, POLL_INTERVAL, TIMEOUT, binding, control_plane, document, workload,
};
use super::host_mode;
use super::servers::now;

/// The account of the operator, and another one.
const OWN: &str = "111122223333";
const MEMBER: &str = "444455556666";

/// A receive that is under way at the end returns its messages to the queue. Nothing else needs it.
const AT_THE_END: [(&str, &str); 1] = [("ConsumeQueue", "sqs:ChangeMessageVisibility")];

/// The permissions that no call of the operator names: Secrets Manager and SSM call KMS with the operator's permissions, as
/// `kms:ViaService` in each statement says.
const CALLED_BY_SERVICES: [(&str, &str); 4] = [
    ("DecryptManifestParameters", "kms:Decrypt"),
    ("EncryptTokenParameters", "kms:Encrypt"),
    ("EncryptTokenSecrets", "kms:Decrypt"),
    ("EncryptTokenSecrets", "kms:GenerateDataKey"),
];

/// The policy that `doctor` prints with these arguments.
async fn printed(harness: &Harness, arguments: &[&str]) -> PrintedPolicy {
    let arguments = [&["doctor", "--print-iam-policy", "--region", "eu-west-1"], arguments].concat();
    let (code, out, err) = harness.run_to_end(&arguments).await;
    assert_eq!(code, 0, "{err}");
    PrintedPolicy::read(&out)
}

fn permissions(list: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    list.iter().map(|(sid, action)| ((*sid).to_owned(), (*action).to_owned())).collect()
}

/// Waits until all permissions but these are used.
async fn wait_until_used(policy: &PrintedPolicy, recorder: &CallRecorder, except: &[(&str, &str)]) {
    let (except, end) = (permissions(except), Instant::now() + TIMEOUT);
    loop {
        let unused: Vec<_> = policy.unused(&recorder.needed()).difference(&except).cloned().collect();
        if unused.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "unused: {unused:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn assert_none_missing(policy: &PrintedPolicy, recorder: &CallRecorder) {
    let needed = recorder.needed();
    let missing = policy.missing(&needed);
    assert!(missing.is_empty(), "not granted: {missing:#?}");
}

/// Ends the operator while it receives a message.
async fn stop_while_receiving(operator: &mut OperatorProcess, harness: &Harness) {
    operator.signal("TERM");
    let queue = harness.variable("ECS_MESH_QUEUE_URL");
    harness.sqs().send_message().queue_url(queue).message_body("{}").send().await.unwrap();
    assert_eq!(operator.code().await, Some(0), "{}", operator.stderr());
}

#[tokio::test]
async fn each_permission_is_used_and_none_is_missing() {
    let recorder = Arc::new(CallRecorder::of(OWN));
    let mut deployment = DeploymentHarness::start_with(HOLD, Arc::clone(&recorder) as _).await;
    let harness = &deployment.harness;
    // ECS describes a cluster whose tasks it cannot list.
    let gone = harness.variable("ECS_MESH_CLUSTER_ARN").replace("/sandbox", "/gone");
    harness.manifest("gone.yaml", &binding("gone", "kuma", &gone, ""));
    let queue = harness.variable("ECS_MESH_QUEUE_URL");
    let policy = printed(harness, &["--host-mode", "--queue-url", queue]).await;
    deployment.deploy("app-task").await;
    deployment.wait_for_protection(&deployment.old).await;
    harness.manifest("agent.yaml", &workload("agent", "agent"));
    harness.role("agent").await;
    host_mode::define(harness, "agent").await;
    host_mode::run(harness, "agent", "EC2").await;

    wait_until_used(&policy, &recorder, &AT_THE_END).await;
    stop_while_receiving(&mut deployment.operator, harness).await;
    assert_eq!(policy.unused(&recorder.needed()), BTreeSet::new());
    assert_none_missing(&policy, &recorder);
}

/// A sandbox that needs each optional permission, with a member account.
struct EveryOption {
    harness: Harness,
    endpoints: Endpoints,
    own: Arc<CallRecorder>,
    member: Arc<CallRecorder>,
}

const TABLE: &str = "leases";
const BUS: &str = "ecs-mesh";
const BUCKET: &str = "mesh-manifests";
/// The flags of the operator, which the policy is printed with.
const FLAGS: [&str; 8] = [
    "--lease",
    "dynamodb:leases",
    "--team-events-bus",
    BUS,
    "--manifests",
    "s3://mesh-manifests/prod/",
    "--manifests",
    "ssm:/mesh/prod/",
];

impl EveryOption {
    async fn start() -> Self {
        let (own, member) = (Arc::new(CallRecorder::of(OWN)), Arc::new(CallRecorder::of(MEMBER)));
        let options = EndpointOptions { aws_faults: Arc::clone(&own) as _, ..EndpointOptions::default() };
        let endpoints = Endpoints::start(options).await.unwrap();
        let config = CloudConfig {
            account: MEMBER.to_owned(),
            subnet: "10.1.0.0/16".to_owned(),
            ..CloudConfig::default()
        };
        let cloud = Arc::new(Mutex::new(Cloud::new(config, endpoints.front.with(|_, now| now))));
        let front = endpoints.front.add_account(cloud, Arc::clone(&member) as _);
        front.with(|cloud, now| {
            let trust = json!({"Statement": {
                "Effect": "Allow", "Action": "sts:AssumeRole",
                "Principal": {"AWS": format!("arn:aws:iam::{OWN}:user/sandbox")},
            }});
            let role = CreateRole {
                name: "ecs-mesh".to_owned(),
                assume_role_policy: trust.to_string(),
                ..CreateRole::default()
            };
            cloud.create_role(role, now).unwrap();
            cloud.create_cluster("prod", Tags::new()).unwrap();
            serve_app(cloud, "prod", now);
        });
        let token = endpoints.front.with(|cloud, now| {
            serve_app(cloud, "sandbox", now);
            fill_stores(cloud, now);
            let token = CreateSecret {
                name: "kuma-token".to_owned(),
                text: "admin".to_owned(),
                kms_key: None,
                tags: BTreeMap::new(),
            };
            cloud.create_secret(token, now).unwrap().arn.clone()
        });
        let harness = Harness::with_endpoints(endpoints.environment());
        let kuma = harness.variable("KUMA_API_URL");
        let manifests = [
            control_plane("kuma", kuma, &format!(", tokenSecret: \"{token}\"")),
            binding("own", "kuma", &endpoints.cluster, &tokens("secretsManager", "own")),
            // ECS describes a cluster whose tasks it cannot list.
            binding("gone", "kuma", &cluster(OWN, "gone"), ""),
            binding("member-gone", "kuma", &cluster(MEMBER, "gone"), ""),
            binding("pattern", "kuma", &cluster("*", "prod*"), &tokens("parameterStore", "pattern")),
            workload("app", "app"),
            document(
                "AwsAccount",
                "team-a",
                &format!(
                    "{{account: '{MEMBER}', assumeRole: 'arn:aws:iam::{MEMBER}:role/ecs-mesh', regions: [eu-west-1]}}"
                ),
            ),
        ];
        harness.manifest("all.yaml", &manifests.concat());
        Self { harness, endpoints, own, member }
    }

    /// The policy of the operator or of `doctor` in its own account, and of its role in the other.
    async fn policies(&self, of: &str) -> (PrintedPolicy, PrintedPolicy) {
        let queue = self.harness.variable("ECS_MESH_QUEUE_URL");
        let flags = [&["--for", of, "--queue-url", queue], &FLAGS[..]].concat();
        let own = printed(&self.harness, &flags).await;
        let member = printed(&self.harness, &[&flags[..], &["--account", MEMBER]].concat()).await;
        assert!(self.own.needed().is_empty(), "printing needs no AWS");
        (own, member)
    }
}

fn cluster(account: &str, name: &str) -> String {
    format!("arn:aws:ecs:eu-west-1:{account}:cluster/{name}")
}

/// The field of a binding that stores tokens below this path, with a key.
fn tokens(store: &str, path: &str) -> String {
    format!(", tokens: {{issue: true, store: {store}, path: /tokens/{path}, kmsKey: alias/mesh}}")
}

/// A task of the service `app` with a role that may register it.
fn serve_app(cloud: &mut Cloud, cluster: &str, now: Timestamp) {
    let tags = [("kuma.io/type", "dataplane"), ("kuma.io/mesh", "default"), ("kuma.io/service", "app")];
    let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let role = cloud.create_role(CreateRole::for_tasks("app-task", tags), now).unwrap().arn;
    cloud.register_task_definition(RegisterTaskDefinition::fargate("app", Some(&role), 8080), now).unwrap();
    cloud.create_service(CreateService::awsvpc(cluster, "app", "app", 1), now).unwrap();
}

/// The lease's table, the bus, manifests, and tokens of earlier runs: one that is due, and one that is over.
fn fill_stores(cloud: &mut Cloud, at: Timestamp) {
    cloud.create_table(TABLE, "operatorId", at).unwrap();
    cloud.create_event_bus(BUS).unwrap();
    cloud.create_bucket(BUCKET, "eu-west-1").unwrap();
    cloud.put_object(BUCKET, "prod/web.yaml", workload("web", "web").as_bytes(), at).unwrap();
    let put = |cloud: &mut Cloud, name: String, value: String, tags: BTreeMap<String, String>| {
        let parameter =
            StoredParameter { name, kind: "String".to_owned(), value, tags, ..StoredParameter::default() };
        cloud.put_parameter(PutParameter { parameter, overwrite: false }).unwrap();
    };
    put(cloud, "/mesh/prod/api".to_owned(), workload("api", "api"), BTreeMap::new());
    let day = Duration::from_hours(24);
    for (workload, end) in [("app", now().plus(day)), ("removed", Timestamp(now().0 - 86_400_000))] {
        let tags: BTreeMap<String, String> = [
            ("operator", "harness"),
            ("control-plane", "kuma"),
            ("mesh", "default"),
            ("workload", workload),
            ("identity", &*format!("workload={workload}")),
            ("token", &*format!("{workload}-1@{}", end.0 / 1_000)),
            ("token-state", "stored"),
        ]
        .map(|(tag, value)| (format!("ecs-mesh.dev/{tag}"), value.to_owned()))
        .into();
        let name = |path: &str| format!("/tokens/{path}/default/{workload}/token");
        let secret =
            CreateSecret { name: name("own"), text: "token".to_owned(), kms_key: None, tags: tags.clone() };
        cloud.create_secret(secret, at).unwrap();
        put(cloud, name("pattern"), "token".to_owned(), tags);
    }
}

#[tokio::test]
async fn each_optional_permission_is_used_and_none_is_missing() {
    let world = EveryOption::start().await;
    let (own, member) = world.policies("operator").await;
    let queue = world.endpoints.queue_url();
    let mut operator = world.harness.operator(&[&["--queue-url", &*queue], &FLAGS[..]].concat());
    let before_the_end = [&AT_THE_END[..], &CALLED_BY_SERVICES].concat();
    wait_until_used(&own, &world.own, &before_the_end).await;
    wait_until_used(&member, &world.member, &[]).await;
    stop_while_receiving(&mut operator, &world.harness).await;
    assert_eq!(own.unused(&world.own.needed()), permissions(&CALLED_BY_SERVICES));
    assert_none_missing(&own, &world.own);
    assert_none_missing(&member, &world.member);
}

#[tokio::test]
async fn each_permission_of_doctor_is_used_and_none_is_missing() {
    let world = EveryOption::start().await;
    let (own, member) = world.policies("doctor").await;
    let queue = world.endpoints.queue_url();
    let (_, out, err) =
        world.harness.run_to_end(&[&["doctor", "--queue-url", &*queue], &FLAGS[..]].concat()).await;
    // Nothing is written, so nothing is encrypted.
    let unused = permissions(&CALLED_BY_SERVICES[..1]);
    assert_eq!(own.unused(&world.own.needed()), unused, "{out}\n{err}");
    assert_eq!(member.unused(&world.member.needed()), BTreeSet::new(), "{out}\n{err}");
    assert_none_missing(&own, &world.own);
    assert_none_missing(&member, &world.member);
}
