//! Several accounts and Regions at moto, which keeps the state of each account apart: by the access key of a request, and
//! those of an assumed role are of the role's account.
//!
//! moto checks no signature, trust policy, external id or permission. That the operator handles refusals is shown with the
//! sandbox, in `accounts`.

use std::collections::BTreeMap;

use aws_config::Region;
use aws_sdk_ecs::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_ecs::types::{ContainerDefinition, NetworkMode, Task};
use serde_json::Value;

use super::harness::{OperatorProcess, binding, control_plane, document, tag, workload};
use super::moto::{MotoHarness, address, id, run_task, subnet};
use crate::conformance::python;

/// The account of access keys that moto does not know.
const OWN: &str = "123456789012";
const MEMBER: &str = "444455556666";
const REGIONS: [&str; 2] = ["eu-west-1", "eu-north-1"];

/// The member account in one Region.
struct MemberRegion {
    ecs: aws_sdk_ecs::Client,
    iam: aws_sdk_iam::Client,
    subnet: String,
}

impl MemberRegion {
    /// With a cluster and a task definition.
    async fn start(moto: &MotoHarness, region: &'static str) -> Self {
        let own = moto.harness.sdk();
        let role = format!("arn:aws:iam::{MEMBER}:role/admin");
        let assumed = aws_sdk_sts::Client::new(&own).assume_role().role_arn(role).role_session_name("test");
        let assumed = assumed.send().await.unwrap().credentials.unwrap();
        let subnet = subnet(moto.harness.variable("AWS_ENDPOINT_URL"), &assumed.access_key_id, region).await;
        let credentials = Credentials::new(
            assumed.access_key_id,
            assumed.secret_access_key,
            Some(assumed.session_token),
            None,
            "test",
        );
        let sdk = own.into_builder().region(Region::new(region));
        let sdk = sdk.credentials_provider(SharedCredentialsProvider::new(credentials)).build();
        let (ecs, iam) = (aws_sdk_ecs::Client::new(&sdk), aws_sdk_iam::Client::new(&sdk));
        ecs.create_cluster().cluster_name("prod").send().await.unwrap();
        define(&ecs, MEMBER).await;
        Self { ecs, iam, subnet }
    }

    async fn run(&self) -> Task {
        run_task(&self.ecs, "prod", &self.subnet).await
    }
}

async fn define(ecs: &aws_sdk_ecs::Client, account: &str) {
    let app = ContainerDefinition::builder().name("app").image("app:1").memory(128).build();
    let definition = ecs.register_task_definition().family("app").network_mode(NetworkMode::Awsvpc);
    let definition = definition.task_role_arn(format!("arn:aws:iam::{account}:role/app-task"));
    definition.container_definitions(app).send().await.unwrap();
}

#[tokio::test]
async fn tasks_of_two_accounts_and_regions_on_moto() {
    let Some(python) = python("several accounts at moto") else { return };
    let moto = MotoHarness::start_as(&python, None).await;
    let harness = &moto.harness;
    harness.role("app").await;
    define(&harness.ecs(), OWN).await;
    let [west, north] =
        [MemberRegion::start(&moto, REGIONS[0]).await, MemberRegion::start(&moto, REGIONS[1]).await];
    // The account's role of the same name lacks a tag.
    let role = west.iam.create_role().role_name("app-task").assume_role_policy_document("{}");
    let tags = [tag("kuma.io/type", "dataplane"), tag("kuma.io/service", "app")];
    role.set_tags(Some(tags.to_vec())).send().await.unwrap();

    let account = format!(
        "{{account: '{MEMBER}', assumeRole: 'arn:aws:iam::{MEMBER}:role/ecs-mesh', externalId: mesh-7, \
         regions: [{}]}}",
        REGIONS.join(", ")
    );
    let manifests = [
        control_plane("kuma", harness.variable("KUMA_API_URL"), ""),
        binding("harness", "kuma", "*", ""),
        workload("app", "app"),
        document("AwsAccount", "member", &account),
    ];
    harness.manifest("all.yaml", &manifests.concat());
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let mut operator: OperatorProcess = harness.operator(&["--queue-url", &queue]);
    operator.wait_for_sweep(true).await;
    let (own, in_west, in_north) = (moto.run().await, west.run().await, north.run().await);
    harness.wait_for_dataplanes("the own task", |found| found.contains_key(id(&own))).await;
    operator.line(&[("reason", "rejected"), ("error", "app-task"), ("error", "kuma.io/mesh")]).await;

    west.iam.tag_role().role_name("app-task").tags(tag("kuma.io/mesh", "default")).send().await.unwrap();
    moto.send_role_event(MEMBER, "TagRole", "app-task").await;
    let all = harness.wait_for_dataplanes("the tasks of all parts", |found| found.len() == 3).await;
    let addresses = |found: &BTreeMap<String, Value>| -> BTreeMap<String, String> {
        let address = |body: &Value| body["networking"]["address"].as_str().unwrap().to_owned();
        found.iter().map(|(name, body)| (name.clone(), address(body))).collect()
    };
    let tasks = [&own, &in_west, &in_north];
    let expected = tasks.map(|task| (id(task).to_owned(), address(task).to_owned()));
    assert_eq!(addresses(&all), expected.into());

    // A stop in one Region of the member account.
    north.ecs.stop_task().cluster("prod").task(in_north.task_arn().unwrap()).send().await.unwrap();
    let left = harness.wait_for_dataplanes("removal of one", |found| found.len() == 2).await;
    assert!(!left.contains_key(id(&in_north)), "{left:?}");
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0), "{}", operator.stderr());
}
