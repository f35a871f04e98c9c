//! The old tasks of a deployment stay, by ECS's scale-in protection, until their replacements are ready in the mesh.
//!
//! The apps exit at once on SIGTERM. New tasks do not count as healthy at ECS, and `minimumHealthyPercent` decides when ECS
//! stops old ones, so that each test knows what ECS would do without the hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ecs::types::{ContainerDefinition, DeploymentConfiguration, NetworkMode, ProtectedTask};
use ecs_mesh_model::Timestamp;
use ecs_mesh_sandbox::aws::{AwsFaults, CloudConfig, LifeTimes, NoAwsFaults};
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use serde_json::{Value, json};

use super::harness::{Harness, OperatorProcess, binding, control_plane, eventually, tag, workload};
use super::servers::now;

pub(super) const HOLD: &str = ", deployments: {hold: true}";

/// A service of two ready tasks, and an operator.
pub(super) struct DeploymentHarness {
    // Declared before the harness, whose directory has its log.
    pub(super) operator: OperatorProcess,
    pub(super) harness: Harness,
    pub(super) endpoints: Endpoints,
    pub(super) old: Vec<String>,
}

impl DeploymentHarness {
    /// Registers the tasks by a binding with these further fields.
    pub(super) async fn start(more: &str) -> Self {
        Self::start_with(more, Arc::new(NoAwsFaults)).await
    }

    /// The same, with faults or an observer of AWS calls.
    pub(super) async fn start_with(more: &str, aws_faults: Arc<dyn AwsFaults>) -> Self {
        let cloud = CloudConfig { accept_aws_sources: true, ..CloudConfig::default() };
        let options = EndpointOptions { cloud, aws_faults, ..EndpointOptions::default() };
        let endpoints = Endpoints::start(options).await.unwrap();
        let harness = Harness::with_endpoints(endpoints.environment());
        let cluster = harness.variable("ECS_MESH_CLUSTER_ARN");
        let manifests = [
            control_plane("kuma", harness.variable("KUMA_API_URL"), ""),
            binding("harness", "kuma", cluster, more),
            workload("app", "app"),
        ];
        harness.manifest("all.yaml", &manifests.concat());
        harness.deploy("app", 2).await;
        let old = harness.running(2).await;
        let addresses = ["--metrics-address", "127.0.0.1:0", "--api-address", "127.0.0.1:0"];
        let operator = harness.operator(&addresses);
        let deployment = Self { operator, harness, endpoints, old };
        deployment.connect(&deployment.old).await;
        // New tasks do not count as healthy.
        let life = LifeTimes { unchecked_healthy: Duration::from_hours(1), ..LifeTimes::default() };
        deployment.endpoints.front.with(|cloud, _| cloud.set_life(life));
        deployment
    }

    /// Connects the sidecars of these tasks, whose apps answer, and waits until they are ready.
    async fn connect(&self, tasks: &[String]) {
        let harness = &self.harness;
        let all = harness
            .wait_for_dataplanes("they are registered", |all| tasks.iter().all(|task| all.contains_key(task)))
            .await;
        {
            let mut kuma = self.endpoints.kuma.lock().unwrap();
            for task in tasks {
                let address = all[task]["networking"]["address"].as_str().unwrap();
                assert!(kuma.connect_sidecar("default", task, address, now()));
                kuma.set_app_up("default", task, 8080, true, now());
            }
        }
        let is_ready = |body: &Value| body["networking"]["inbound"][0]["health"]["ready"] == true;
        harness
            .wait_for_dataplanes("health discovery finds the apps", |all| {
                tasks.iter().all(|task| all.get(task).is_none_or(is_ready))
            })
            .await;
    }

    /// Deploys a new revision, whose task role this is, and returns the replacements once they run.
    pub(super) async fn deploy(&self, role: &str) -> Vec<String> {
        let ecs = self.harness.ecs();
        let app = ContainerDefinition::builder().name("app").image("app:2").memory(128).build();
        let definition = ecs.register_task_definition().family("app").network_mode(NetworkMode::Awsvpc);
        let role = format!("arn:aws:iam::111122223333:role/{role}");
        definition.task_role_arn(role).container_definitions(app).send().await.unwrap();
        ecs.update_service().cluster("sandbox").service("app").task_definition("app").send().await.unwrap();
        let all = self.harness.running(4).await;
        all.into_iter().filter(|task| !self.old.contains(task)).collect()
    }

    /// Lets ECS stop all old tasks, healthy replacements or not.
    async fn stop_old_tasks(&self) {
        let limits =
            DeploymentConfiguration::builder().minimum_healthy_percent(0).maximum_percent(200).build();
        let update = self.harness.ecs().update_service().cluster("sandbox").service("app");
        update.deployment_configuration(limits).send().await.unwrap();
    }

    /// The protection of the old tasks that are not being stopped, by id.
    async fn protections(&self) -> BTreeMap<String, ProtectedTask> {
        let call = self.harness.ecs().get_task_protection().cluster("sandbox");
        let shown = call.set_tasks(Some(self.old.clone())).send().await.unwrap();
        let id = |task: &ProtectedTask| task.task_arn().unwrap().rsplit('/').next().unwrap().to_owned();
        shown.protected_tasks().iter().map(|task| (id(task), task.clone())).collect()
    }

    /// Waits until these old tasks, and no others, are protected.
    pub(super) async fn wait_for_protection(&self, of: &[String]) {
        eventually("the old tasks are protected", || async {
            let shown = self.protections().await;
            let is_protected = |task: &String| shown.get(task).is_some_and(ProtectedTask::protection_enabled);
            self.old.iter().all(|task| is_protected(task) == of.contains(task)).then_some(())
        })
        .await;
    }

    /// The operator's metrics.
    pub(super) async fn metrics(&self) -> String {
        let listens = self.operator.line(&[("server", "metrics"), ("address", "")]).await;
        let url = format!("http://{}/metrics", listens["address"].as_str().unwrap());
        self.harness.http.get(&url).send().await.unwrap().text().await.unwrap()
    }

    /// Waits until the operator has looked at the deployment twice more, so that one look began after this.
    async fn wait_for_looks(&self) {
        let series = "ecs_mesh_aws_calls_total{operation=\"ecs:DescribeServices\",result=\"success\"} ";
        let looks = || async {
            let text = self.metrics().await;
            let count = text.lines().find_map(|line| line.strip_prefix(series)).map(str::parse::<usize>);
            count.unwrap().unwrap()
        };
        let before = looks().await;
        eventually("two more looks", || async { (looks().await >= before + 2).then_some(()) }).await;
    }

    /// When ECS began to stop the task, if it did.
    fn stopping_at(&self, task: &str) -> Option<Timestamp> {
        self.endpoints.front.with(|cloud, _| {
            let arn = format!("arn:aws:ecs:eu-west-1:111122223333:task/sandbox/{task}");
            cloud.task(&arn).and_then(|task| task.stopping_at)
        })
    }

    /// Waits until ECS stops all old tasks.
    async fn wait_for_stops(&self) -> Vec<Timestamp> {
        eventually("the old tasks are stopped", || async {
            self.old.iter().map(|task| self.stopping_at(task)).collect::<Option<Vec<_>>>()
        })
        .await
    }
}

#[tokio::test]
async fn old_tasks_are_protected_until_replacements_are_ready() {
    let deployment = DeploymentHarness::start(HOLD).await;
    let new = deployment.deploy("app-task").await;
    deployment.wait_for_protection(&deployment.old).await;
    let line = [("target", "audit"), ("change", "protect"), ("task", &*deployment.old[0]), ("until", "")];
    deployment.operator.line(&line).await;

    let harness = &deployment.harness;
    harness.wait_for_dataplanes("the new ones", |all| new.iter().all(|task| all.contains_key(task))).await;
    deployment.stop_old_tasks().await;
    // Registered is not ready: the hold goes on.
    deployment.wait_for_looks().await;
    deployment.wait_for_protection(&deployment.old).await;
    let ready = now();
    deployment.connect(&new).await;
    for stopped in deployment.wait_for_stops().await {
        assert!(stopped >= ready, "a task was stopped at {stopped}, before its replacement was ready");
    }
    deployment
        .operator
        .line(&[("reason", "ready"), ("ecs_service", "sandbox/app"), ("deployment", "")])
        .await;
    for task in &deployment.old {
        deployment.operator.line(&[("target", "audit"), ("change", "unprotect"), ("task", task)]).await;
    }
    assert_eq!(deployment.operator.warnings(), Vec::<Value>::new());
}

#[tokio::test]
async fn nothing_is_protected_without_the_opt_in() {
    let deployment = DeploymentHarness::start("").await;
    let new = deployment.deploy("app-task").await;
    deployment
        .harness
        .wait_for_dataplanes("the new ones", |all| new.iter().all(|task| all.contains_key(task)))
        .await;
    deployment.stop_old_tasks().await;
    deployment.wait_for_stops().await;
    let protections = deployment.operator.lines(&[("change", "protect")]);
    assert_eq!(protections, Vec::<Value>::new());
}

#[tokio::test]
async fn rejected_replacement_releases_the_old_tasks() {
    let deployment = DeploymentHarness::start(HOLD).await;
    deployment.harness.role("next").await;
    let iam = deployment.harness.iam();
    // The mesh allows the role for the service that its tag names.
    let allow = tag("kuma.io/service", "app");
    iam.tag_role().role_name("next-task").tags(allow).send().await.unwrap();
    deployment.deploy("next-task").await;
    deployment.wait_for_protection(&deployment.old).await;

    let forbid = tag("kuma.io/service", "other");
    iam.tag_role().role_name("next-task").tags(forbid).send().await.unwrap();
    deployment
        .operator
        .line(&[("level", "WARN"), ("ecs_service", "sandbox/app"), ("reason", "rejected")])
        .await;
    deployment.wait_for_protection(&[]).await;
    deployment.stop_old_tasks().await;
    deployment.wait_for_stops().await;
}

#[tokio::test]
async fn protection_by_others_is_left_alone() {
    let deployment = DeploymentHarness::start(HOLD).await;
    let (theirs, ours) = (&deployment.old[0], &deployment.old[1]);
    let call = deployment.harness.ecs().update_task_protection().cluster("sandbox").tasks(theirs);
    call.protection_enabled(true).expires_in_minutes(60).send().await.unwrap();
    let before = deployment.protections().await[theirs].clone();
    let new = deployment.deploy("app-task").await;
    deployment.wait_for_protection(&deployment.old).await;
    deployment.operator.line(&[("level", "INFO"), ("task", theirs), ("*", "left alone")]).await;

    deployment.connect(&new).await;
    deployment.operator.line(&[("change", "unprotect"), ("task", ours)]).await;
    deployment.operator.line(&[("reason", "ready"), ("ecs_service", "sandbox/app")]).await;
    assert_eq!(deployment.protections().await[theirs], before);
    let changed = deployment.operator.lines(&[("target", "audit"), ("change", "protect"), ("task", theirs)]);
    assert_eq!(changed, Vec::<Value>::new());
}

#[tokio::test]
async fn plan_shows_old_tasks_that_a_run_protects() {
    let DeploymentHarness { endpoints, harness, mut operator, old } = DeploymentHarness::start(HOLD).await;
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
    let deployment = DeploymentHarness { operator, harness, endpoints, old };
    deployment.deploy("app-task").await;

    let (code, plan) = deployment.harness.plan().await;
    assert_eq!((code, &plan["summary"]["protect"]), (2, &json!(2)), "{plan}");
    deployment.wait_for_protection(&[]).await;
    let _operator = deployment.harness.operator_with("second", &deployment.harness.environment, &[]);
    deployment.wait_for_protection(&deployment.old).await;
}

#[tokio::test]
async fn service_without_room_is_reported_and_not_held() {
    let deployment = DeploymentHarness::start(HOLD).await;
    let limits = DeploymentConfiguration::builder().minimum_healthy_percent(50).maximum_percent(100).build();
    let update = deployment.harness.ecs().update_service().cluster("sandbox").service("app");
    update.deployment_configuration(limits).force_new_deployment(true).send().await.unwrap();
    let line =
        deployment.operator.line(&[("level", "WARN"), ("reason", "no_room"), ("maximum_percent", "100")]);
    line.await;
    let protections = deployment.operator.lines(&[("change", "protect")]);
    assert_eq!(protections, Vec::<Value>::new());
}
