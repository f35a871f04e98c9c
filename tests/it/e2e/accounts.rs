//! One operator for several accounts and Regions, over the wire: STS, ECS, IAM and events of each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ecs_mesh_model::{Tags, Timestamp};
use ecs_mesh_sandbox::aws::{
    AwsFront, Bucket, Cloud, CloudConfig, CreateRole, CreateService, NoAwsFaults, RegisterTaskDefinition,
    RuleTarget, Throttling,
};
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use serde_json::{Map, json};

use super::harness::{Harness, OperatorProcess, binding, control_plane, document, eventually, workload};

const OWN: &str = "111122223333";
const MEMBER: &str = "444455556666";
const EXTERNAL_ID: &str = "mesh-7";
/// A sweep after the first would take an hour: what is found, an event has shown.
const RARELY: &str = ", cleanup: {sweepInterval: 1h, graceAge: 20s, drain: 0s, settle: 1s}";

/// Endpoints of the own account in `eu-west-1`, and of a member account in both Regions.
struct Accounts {
    endpoints: Endpoints,
    west: AwsFront,
    north: AwsFront,
    harness: Harness,
}

impl Accounts {
    async fn start(member: impl Fn(CloudConfig) -> CloudConfig) -> Self {
        let endpoints = Endpoints::start(EndpointOptions::default()).await.unwrap();
        let part = |region: &str| {
            let config = member(CloudConfig {
                account: MEMBER.to_owned(),
                region: region.to_owned(),
                subnet: if region == "eu-west-1" { "10.1.0.0/16" } else { "10.2.0.0/16" }.to_owned(),
                ..CloudConfig::default()
            });
            let cloud = Cloud::new(config, endpoints.front.with(|_, now| now));
            let front = endpoints.front.add_account(Arc::new(Mutex::new(cloud)), Arc::new(NoAwsFaults));
            front.with(fill);
            front
        };
        // IAM of the account is in its first part.
        let (west, north) = (part("eu-west-1"), part("eu-north-1"));
        west.with(|cloud, now| {
            let trust = json!({"Statement": {
                "Effect": "Allow", "Action": "sts:AssumeRole",
                "Principal": {"AWS": format!("arn:aws:iam::{OWN}:user/sandbox")},
                "Condition": {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}},
            }});
            let role = CreateRole {
                name: "ecs-mesh".to_owned(),
                assume_role_policy: trust.to_string(),
                ..CreateRole::default()
            };
            cloud.create_role(role, now).unwrap();
            cloud.create_role(CreateRole::for_tasks("app-task", mesh_tags()), now).unwrap();
        });
        endpoints.front.with(|cloud, now| {
            cloud.create_role(CreateRole::for_tasks("app-task", mesh_tags()), now).unwrap();
            define(cloud, now);
        });
        let harness = Harness::with_endpoints(endpoints.environment());
        Self { endpoints, west, north, harness }
    }

    /// The manifests, with this external id and these further fields of the binding.
    fn manifests(&self, external_id: &str, more: &str) -> String {
        let account = format!(
            "{{account: '{MEMBER}', assumeRole: 'arn:aws:iam::{MEMBER}:role/ecs-mesh', externalId: {external_id}, \
             regions: [eu-west-1, eu-north-1]}}"
        );
        let any = binding("harness", "kuma", "*", "");
        let any = if more.is_empty() {
            any
        } else {
            any.split(", cleanup:").next().unwrap().to_owned() + more + "}\n---\n"
        };
        [
            control_plane("kuma", self.harness.variable("KUMA_API_URL"), ""),
            any,
            workload("app", "app"),
            document("AwsAccount", "team-a", &account),
        ]
        .concat()
    }

    fn operator(&self, more: &[&str]) -> OperatorProcess {
        let queue = self.endpoints.queue_url();
        self.harness.operator(&[&["--queue-url", &queue], more].concat())
    }

    /// The addresses of the registrations, in the three subnets: the first two numbers of each.
    async fn subnets(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for dataplane in self.harness.dataplanes().await.values() {
            let address = dataplane["networking"]["address"].as_str().unwrap();
            let subnet = address.split('.').take(2).collect::<Vec<_>>().join(".");
            *counts.entry(subnet).or_default() += 1;
        }
        counts
    }

    async fn wait_for(&self, expected: &[(&str, usize)]) {
        let expected: BTreeMap<String, usize> =
            expected.iter().map(|(subnet, count)| ((*subnet).to_owned(), *count)).collect();
        eventually(&format!("registrations {expected:?}"), || async {
            (self.subnets().await == expected).then_some(())
        })
        .await;
    }
}

fn mesh_tags() -> Tags {
    [("kuma.io/type", "dataplane"), ("kuma.io/mesh", "default"), ("kuma.io/service", "app")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn define(cloud: &mut Cloud, now: Timestamp) {
    let account = cloud.config().account.clone();
    let role = format!("arn:aws:iam::{account}:role/app-task");
    cloud.register_task_definition(RegisterTaskDefinition::fargate("app", Some(&role), 8080), now).unwrap();
}

/// The cluster `prod` and a rule that forwards events to the operator's bus.
fn fill(cloud: &mut Cloud, now: Timestamp) {
    cloud.create_cluster("prod", Tags::new()).unwrap();
    define(cloud, now);
    cloud.put_rule("ecs-mesh", r#"{"source": ["aws.ecs", "aws.iam"]}"#, true, None).unwrap();
    let arn = format!("arn:aws:events:eu-west-1:{OWN}:event-bus/default");
    cloud
        .put_targets("ecs-mesh", vec![RuleTarget { id: "bus".into(), arn, input: None, rest: Map::new() }])
        .unwrap();
}

fn serve(front: &AwsFront, cluster: &str, count: usize) {
    front.with(|cloud, now| {
        cloud.create_service(CreateService::awsvpc(cluster, "app", "app", count), now).unwrap()
    });
}

#[tokio::test]
async fn events_of_all_accounts_and_regions_register_tasks() {
    let accounts = Accounts::start(|config| config).await;
    accounts.harness.manifest("all.yaml", &accounts.manifests(EXTERNAL_ID, RARELY));
    let operator = accounts.operator(&[]);
    operator.wait_for_sweep(true).await;
    serve(&accounts.endpoints.front, "sandbox", 1);
    serve(&accounts.west, "prod", 2);
    serve(&accounts.north, "prod", 3);
    accounts.wait_for(&[("10.0", 1), ("10.1", 2), ("10.2", 3)]).await;
    assert_eq!(operator.sweeps("").len(), 1, "events have shown the tasks");
    assert!(accounts.north.calls()["ecs.DescribeTasks"] > 0);
    assert_eq!(accounts.north.calls().get("iam.GetRole"), None, "IAM has no Regions");
}

#[tokio::test]
async fn account_whose_role_is_refused_delays_no_other() {
    let accounts = Accounts::start(|config| config).await;
    accounts.harness.manifest("all.yaml", &accounts.manifests("wrong-id", ""));
    serve(&accounts.endpoints.front, "sandbox", 1);
    serve(&accounts.west, "prod", 1);
    let operator = accounts.operator(&[]);
    accounts.wait_for(&[("10.0", 1)]).await;
    let refused =
        operator.line(&[("account", MEMBER), ("region", "eu-west-1"), ("step", "sts:AssumeRole")]).await;
    assert!(refused["error"].as_str().unwrap().contains("AccessDenied"), "{refused}");
    accounts.harness.manifest("all.yaml", &accounts.manifests(EXTERNAL_ID, ""));
    accounts.wait_for(&[("10.0", 1), ("10.1", 1)]).await;
    // Unknown is not absent: the registrations of an account that cannot be read any more stay.
    accounts.harness.manifest("all.yaml", &accounts.manifests("wrong-id", ""));
    let refusals = || operator.lines(&[("account", MEMBER), ("step", "sts:AssumeRole")]).len();
    eventually("the role is refused again", || async { (refusals() > 2).then_some(()) }).await;
    let sweeps = operator.sweeps("false").len();
    accounts.endpoints.front.with(|cloud, now| cloud.delete_service("sandbox", "app", true, now).unwrap());
    accounts.wait_for(&[("10.1", 1)]).await;
    operator.wait_for_sweeps(sweeps + 2).await;
    accounts.wait_for(&[("10.1", 1)]).await;
}

#[tokio::test]
async fn throttled_account_delays_no_other() {
    let accounts = Accounts::start(|config| CloudConfig {
        throttling: Some(Throttling {
            buckets: vec![Bucket {
                operations: ["ecs.ListTasks", "ecs.DescribeTasks", "ecs.ListClusters"]
                    .map(str::to_owned)
                    .to_vec(),
                burst: 0.0,
                per_second: 0.0,
            }],
        }),
        ..config
    })
    .await;
    accounts.harness.manifest("all.yaml", &accounts.manifests(EXTERNAL_ID, ""));
    serve(&accounts.endpoints.front, "sandbox", 20);
    let operator = accounts.operator(&[]);
    accounts.wait_for(&[("10.0", 20)]).await;
    let throttled = operator.line(&[("account", MEMBER), ("step", "ecs:")]).await;
    assert!(throttled["error"].as_str().unwrap().contains("Throttl"), "{throttled}");
}

#[tokio::test]
async fn expired_credentials_are_renewed() {
    let accounts =
        Accounts::start(|config| CloudConfig { session_lifetime: Some(Duration::from_secs(12)), ..config })
            .await;
    accounts.harness.manifest("all.yaml", &accounts.manifests(EXTERNAL_ID, ""));
    let operator = accounts.operator(&[]);
    operator.wait_for_sweep(true).await;
    let issued = || accounts.endpoints.front.calls().get("sts.AssumeRole").copied().unwrap_or_default();
    let first = issued();
    eventually("the role is assumed again", || async { (issued() > first + 1).then_some(()) }).await;
    serve(&accounts.north, "prod", 1);
    accounts.wait_for(&[("10.2", 1)]).await;
    assert!(operator.lines(&[("account", MEMBER), ("level", "WARN")]).is_empty());
}

#[tokio::test]
async fn account_without_a_manifest_is_named() {
    let accounts = Accounts::start(|config| config).await;
    let others = accounts.manifests(EXTERNAL_ID, "").replace("kind: AwsAccount", "kind: Nothing");
    let without = others.split("apiVersion").filter(|text| !text.contains("kind: Nothing"));
    let without = without.collect::<Vec<_>>().join("apiVersion");
    let cluster = format!("arn:aws:ecs:eu-west-1:{MEMBER}:cluster/prod");
    let other = "{account: '777788889999', assumeRole: 'arn:aws:iam::777788889999:role/ecs-mesh', regions: [eu-west-1]}";
    let binding = binding("other", "kuma", &cluster, "");
    accounts.harness.manifest("all.yaml", &(without + &binding + &document("AwsAccount", "team-b", other)));
    serve(&accounts.endpoints.front, "sandbox", 1);
    let operator = accounts.operator(&[]);
    let refused = operator.line(&[("account", MEMBER), ("error", "AwsAccount")]).await;
    assert_eq!(refused["region"], "eu-west-1");
    accounts.wait_for(&[("10.0", 1)]).await;
}

/// A queue that is reserved to the events of some tasks, and the operator's first one, which has all others.
#[tokio::test]
async fn events_of_every_queue_register_and_remove_tasks() {
    let endpoints = Endpoints::start(EndpointOptions::default()).await.unwrap();
    let harness = Harness::with_endpoints(endpoints.environment());
    let second = endpoints.front.with(|cloud, now| {
        cloud.create_queue("second", BTreeMap::new(), now).unwrap();
        let pattern = |groups: serde_json::Value| {
            let detail = json!({"group": groups});
            json!({"source": ["aws.ecs"], "detail-type": ["ECS Task State Change"], "detail": detail})
                .to_string()
        };
        // The rule of the sandbox feeds the first queue.
        let others = json!([{"anything-but": ["service:web"]}]);
        cloud.put_rule("ecs-mesh-tasks", &pattern(others), true, None).unwrap();
        cloud.put_rule("second", &pattern(json!(["service:web"])), true, None).unwrap();
        let arn = cloud.queue_arn("second").unwrap();
        let target = RuleTarget { id: "q".into(), arn, input: None, rest: Map::new() };
        cloud.put_targets("second", vec![target]).unwrap();
        format!("{}{}", endpoints.aws_url, cloud.queue_path("second").unwrap())
    });
    let rarely = binding("harness", "kuma", harness.variable("ECS_MESH_CLUSTER_ARN"), "");
    let rarely = rarely.split(", cleanup:").next().unwrap().to_owned() + RARELY + "}\n---\n";
    let kuma = control_plane("kuma", harness.variable("KUMA_API_URL"), "");
    harness.manifest("all.yaml", &[kuma, rarely, workload("app", "app"), workload("web", "web")].concat());
    let first = endpoints.queue_url();
    let operator = harness.operator(&["--queue-url", &first, "--queue-url", &second]);
    operator.wait_for_sweep(true).await;
    harness.deploy("app", 1).await;
    harness.deploy("web", 2).await;
    let services = |all: &BTreeMap<String, serde_json::Value>| {
        let service =
            |one: &serde_json::Value| one["networking"]["inbound"][0]["tags"]["kuma.io/service"].clone();
        let mut found: Vec<_> = all.values().map(|one| service(one).to_string()).collect();
        found.sort();
        found
    };
    let all = ["\"app\"", "\"web\"", "\"web\""];
    harness.wait_for_dataplanes("the tasks of both queues", |found| services(found) == all).await;
    harness.scale("web", 0).await;
    harness
        .wait_for_dataplanes("the second queue showed the stops", |found| services(found) == all[..1])
        .await;
    harness.scale("app", 0).await;
    harness.wait_for_dataplanes("the first queue showed the stop", BTreeMap::is_empty).await;
    assert_eq!(operator.sweeps("").len(), 1, "events have shown the tasks");
}
