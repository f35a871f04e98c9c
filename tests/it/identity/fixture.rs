//! Runs an operator in this process on a Consul's ACL objects, and makes the calls of an administrator.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use ecs_mesh_aws::aws::{
    AwsError, AwsErrorKind, ClusterStatus, DescribeContainerInstancesOutput, DescribeServicesOutput,
    DescribeTasksOutput, Ec2, Ecs, Iam, ListPage, TaskProtectionOutput,
};
use ecs_mesh_clock::Clock;
use ecs_mesh_consul::ConsulControlPlane;
use ecs_mesh_control_plane::NoObserver;
use ecs_mesh_controller::NoSecrets;
use ecs_mesh_controller::{AlwaysHeld, Lease, LeaseTerm};
use ecs_mesh_core::plan::report::{Change, PlanReport};
use ecs_mesh_manifests::{ManifestSources, WatchOptions, watch};
use ecs_mesh_model::{
    ClusterArn, ContainerInstanceArn, DesiredStatus, InterfaceAddresses, OperatorId, RoleArn, Tags, TaskArn,
    TaskDefinition, TaskDefinitionArn, TaskId,
};
use ecs_mesh_operator::operator::{
    ConnectFn, Connected, DryRunRecorder, Operator, OperatorDeps, PlanOptions, ReadRates, RunOptions,
};
use ecs_mesh_operator::telemetry::metrics::Metrics;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::e2e::harness::eventually;

pub(crate) const DEMO: &str = "arn:aws:ecs:us-east-1:000000000000:cluster/anchor";
/// A cluster that only a pattern selects.
pub(crate) const PROD: &str = "arn:aws:ecs:us-east-1:000000000000:cluster/prod-1";

/// An account with two clusters and no tasks.
struct EmptyAccount;

fn not_found(operation: &'static str) -> AwsError {
    AwsError {
        kind: AwsErrorKind::NotFound,
        operation,
        resource: String::new(),
        code: String::new(),
        message: String::new(),
        hint: "",
    }
}

#[async_trait]
impl Ecs for EmptyAccount {
    async fn list_clusters(&self, _page: Option<String>) -> Result<ListPage<ClusterArn>, AwsError> {
        let items = [DEMO, PROD].map(|arn| ClusterArn::parse(arn).unwrap()).into();
        Ok(ListPage { items, skipped: Vec::new(), next: None })
    }

    async fn describe_cluster(&self, _cluster: &ClusterArn) -> Result<ClusterStatus, AwsError> {
        Ok(ClusterStatus::Exists)
    }

    async fn list_tasks(
        &self,
        _cluster: &ClusterArn,
        _desired: DesiredStatus,
        _page: Option<String>,
    ) -> Result<ListPage<TaskArn>, AwsError> {
        Ok(ListPage { items: Vec::new(), skipped: Vec::new(), next: None })
    }

    async fn describe_tasks(
        &self,
        _cluster: &ClusterArn,
        tasks: &[TaskId],
    ) -> Result<DescribeTasksOutput, AwsError> {
        Ok(DescribeTasksOutput { missing: tasks.to_vec(), ..DescribeTasksOutput::default() })
    }

    async fn describe_task_definition(&self, _arn: &TaskDefinitionArn) -> Result<TaskDefinition, AwsError> {
        Err(not_found("ecs:DescribeTaskDefinition"))
    }

    async fn describe_services(
        &self,
        _cluster: &ClusterArn,
        _names: &[String],
    ) -> Result<DescribeServicesOutput, AwsError> {
        Err(not_found("ecs:DescribeServices"))
    }

    async fn describe_container_instances(
        &self,
        _cluster: &ClusterArn,
        _instances: &[ContainerInstanceArn],
    ) -> Result<DescribeContainerInstancesOutput, AwsError> {
        Ok(DescribeContainerInstancesOutput::default())
    }

    async fn task_protection(
        &self,
        _cluster: &ClusterArn,
        _tasks: &[TaskId],
    ) -> Result<TaskProtectionOutput, AwsError> {
        Err(not_found("ecs:GetTaskProtection"))
    }

    async fn update_task_protection(
        &self,
        _cluster: &ClusterArn,
        _tasks: &[TaskId],
        _minutes: Option<u16>,
    ) -> Result<TaskProtectionOutput, AwsError> {
        Err(not_found("ecs:UpdateTaskProtection"))
    }
}

#[async_trait]
impl Ec2 for EmptyAccount {
    async fn instance_addresses(
        &self,
        _ids: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, InterfaceAddresses>, AwsError> {
        Ok(BTreeMap::new())
    }
}

#[async_trait]
impl Iam for EmptyAccount {
    async fn role_tags(&self, _role: &RoleArn) -> Result<Tags, AwsError> {
        Err(not_found("iam:GetRole"))
    }
}

pub(crate) struct NeverHeld;

impl Lease for NeverHeld {
    fn term(&self) -> LeaseTerm {
        LeaseTerm::NotHeld
    }
}

/// The result of a run.
pub(crate) struct RunResult {
    pub(crate) metrics: Arc<Metrics>,
    /// The text of `/metrics` at the end of the run.
    pub(crate) text: String,
}

impl RunResult {
    /// Number of changes of ACL objects.
    pub(crate) fn writes(&self) -> u64 {
        let lines = self.text.lines().filter(|line| line.starts_with("ecs_mesh_acl_changes_total{"));
        lines.filter(|line| line.contains("result=\"success\"")).map(value).sum()
    }

    /// Number of objects in this state.
    pub(crate) fn objects(&self, state: &str) -> u64 {
        let lines = self.text.lines().filter(|line| line.starts_with("ecs_mesh_acl_objects{"));
        lines.filter(|line| line.contains(&format!("state=\"{state}\""))).map(value).sum()
    }
}

fn value(line: &str) -> u64 {
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

pub(crate) struct IdentityFixture {
    pub(crate) url: String,
    management: String,
    http: reqwest::Client,
    directory: TempDir,
    /// The secret of the operator's token; by default the administrator's.
    pub(crate) token: Option<String>,
    pub(crate) lease: Arc<dyn Lease>,
    /// A further cluster pattern of the binding.
    pub(crate) pattern: Option<&'static str>,
    /// Adds an invalid document to the manifests.
    pub(crate) broken: bool,
}

impl IdentityFixture {
    pub(crate) fn at(url: &str, management: &str) -> Self {
        // Another test may have installed the provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            url: url.to_owned(),
            management: management.to_owned(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            directory: TempDir::new().unwrap(),
            token: Some(management.to_owned()),
            lease: Arc::new(AlwaysHeld),
            pattern: None,
            broken: false,
        }
    }

    /// Calls Consul as an administrator; `None` on failure.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
        let url = format!("{}{path}", self.url);
        let mut request = self.http.request(method.parse().unwrap(), url);
        request = request.header("X-Consul-Token", &self.management);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.ok()?.error_for_status().ok()?;
        serde_json::from_str(&answer.text().await.ok()?).ok()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ask("GET", path, None).await.unwrap_or_else(|| panic!("GET {path} failed"))
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Value {
        self.ask("PUT", path, Some(body)).await.unwrap_or_else(|| panic!("PUT {path} {body} failed"))
    }

    pub(crate) async fn delete(&self, path: &str) {
        self.ask("DELETE", path, None).await.unwrap_or_else(|| panic!("DELETE {path} failed"));
    }

    /// Creates a token with these rules and returns its secret.
    pub(crate) async fn token_with(&self, name: &str, rules: &str) -> String {
        self.put("/v1/acl/policy", &json!({"Name": name, "Rules": rules})).await;
        let token = self.put("/v1/acl/token", &json!({"Policies": [{"Name": name}]})).await;
        token["SecretID"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn rule_for(&self, bind_name: &str) -> Value {
        let rules = self.get("/v1/acl/binding-rules").await;
        let mut rules = rules.as_array().unwrap().iter();
        rules
            .find(|rule| rule["BindName"] == bind_name)
            .unwrap_or_else(|| panic!("no rule {bind_name}"))
            .clone()
    }

    /// All ACL objects with indexes and ids.
    pub(crate) async fn everything(&self) -> Value {
        let names = |list: &Value| -> Vec<String> {
            list.as_array().unwrap().iter().map(|one| one["Name"].as_str().unwrap().to_owned()).collect()
        };
        let mut policies = Vec::new();
        for name in names(&self.get("/v1/acl/policies").await) {
            policies.push(self.get(&format!("/v1/acl/policy/name/{name}")).await);
        }
        let mut methods = Vec::new();
        for name in names(&self.get("/v1/acl/auth-methods").await) {
            methods.push(self.get(&format!("/v1/acl/auth-method/{name}")).await);
        }
        json!({
            "policies": policies,
            "roles": self.get("/v1/acl/roles").await,
            "methods": methods,
            "rules": self.get("/v1/acl/binding-rules").await,
            "nodes": self.get("/v1/catalog/nodes").await,
            "anonymous": self.get("/v1/acl/token/00000000-0000-0000-0000-000000000002").await,
        })
    }

    /// All ACL objects without generated values, sorted.
    pub(crate) async fn content(&self) -> Value {
        content(self.everything().await)
    }

    fn manifests(&self, auth: Option<&Value>) {
        let token_file = self.directory.path().join("token");
        let mut consul = json!({"address": self.url, "timeout": "5s"});
        if let Some(token) = &self.token {
            std::fs::write(&token_file, token).unwrap();
            consul["tokenFile"] = token_file.to_str().unwrap().into();
        }
        let clusters: Vec<&str> = [DEMO].into_iter().chain(self.pattern).collect();
        let mut all = vec![
            json!({"kind": "ControlPlane", "spec": {"type": "consul", "consul": consul}}),
            json!({"kind": "MeshBinding", "spec": {
                "controlPlane": "consul", "mesh": "default", "selector": {"clusters": clusters},
            }}),
        ];
        all.extend(auth.map(|spec| json!({"kind": "ConsulAuth", "spec": spec})));
        if self.broken {
            all.push(json!({"kind": "Workload", "spec": {"no": "such field"}}));
        }
        let directory = self.directory.path().join("manifests");
        std::fs::create_dir_all(&directory).unwrap();
        let mut text = String::new();
        for mut document in all {
            document["apiVersion"] = "ecs-mesh.dev/v1alpha1".into();
            document["metadata"] = json!({"name": "consul"});
            let _ = writeln!(text, "---\n{document}");
        }
        std::fs::write(directory.join("all.yaml"), text).unwrap();
    }

    fn operator(&self, recorder: Option<Arc<DryRunRecorder>>, metrics: Arc<Metrics>) -> Arc<Operator> {
        let id = OperatorId::parse("op").unwrap();
        let operator = id.clone();
        let connect: ConnectFn = Arc::new(move |_, spec| {
            let consul = spec.consul.as_ref().ok_or("spec.consul is missing")?;
            let observer = Arc::new(NoObserver);
            let secrets = Arc::new(NoSecrets);
            let allowed = crate::allow_all();
            let plane = ConsulControlPlane::connect(consul, &allowed, operator.clone(), observer, secrets)?;
            Ok(Connected::consul(plane))
        });
        Operator::new(OperatorDeps {
            id,
            previous_id: None,
            ecs: Arc::new(EmptyAccount),
            ec2: Arc::new(EmptyAccount),
            iam: Arc::new(EmptyAccount),
            accounts: Arc::new(()),
            token_stores: crate::fake_token_stores(),
            connect,
            lease: Arc::clone(&self.lease),
            replicas: None,
            clock: Clock::system(),
            metrics,
            rates: ReadRates::default(),
            seed: 1,
            recorder,
        })
    }

    /// Plans a run.
    pub(crate) async fn plan(&self, auth: Option<&Value>) -> PlanReport {
        self.manifests(auth);
        let metrics = Arc::new(Metrics::default());
        let recorder = Arc::new(DryRunRecorder::new(Arc::clone(&metrics)));
        let operator = self.operator(Some(Arc::clone(&recorder)), metrics);
        let sources = ManifestSources::new([self.directory.path().join("manifests")]);
        let manifests = watch(sources, WatchOptions::default()).await;
        let options =
            PlanOptions { retry_timeout: std::time::Duration::from_millis(500), ..PlanOptions::default() };
        operator.plan(&recorder, manifests, options, &Arc::default()).await.unwrap()
    }

    /// Runs the operator until all objects have settled.
    pub(crate) async fn run(&self, auth: Option<&Value>) -> RunResult {
        self.manifests(auth);
        let metrics = Arc::new(Metrics::default());
        let operator = self.operator(None, Arc::clone(&metrics));
        let sources = ManifestSources::new([self.directory.path().join("manifests")]);
        let manifests = watch(sources, WatchOptions::default()).await;
        let stop = CancellationToken::new();
        let running =
            tokio::spawn(Arc::clone(&operator).run(None, manifests, RunOptions::default(), stop.clone()));
        eventually("a sweep and a reconcile of ACL objects", || async {
            let workers = operator.workers();
            let is_known = !operator.fully_swept_clusters().is_empty() && !workers.is_empty();
            (is_known && workers.values().all(|plane| plane.are_objects_settled())).then_some(())
        })
        .await;
        let text = metrics.render();
        assert!(metrics.state().unwrap().stuck().is_empty());
        stop.cancel();
        running.await.unwrap().unwrap();
        RunResult { metrics, text }
    }
}

/// The changes of a plan: change, kind, name and fields.
pub(crate) fn lines(plan: &PlanReport) -> BTreeSet<String> {
    let changes = plan.changes.iter().map(|planned| &planned.change);
    let changes = changes.filter(|item| !matches!(item.change, Change::Unchanged | Change::Ignore));
    changes
        .map(|item| {
            let object = item.kind.map_or("task", |kind| kind.as_str());
            let fields: Vec<&str> = item.fields.iter().map(|change| change.path.as_str()).collect();
            let fields = if fields.is_empty() { String::new() } else { format!(": {}", fields.join(", ")) };
            format!("{} {object} {}{fields}", item.change.as_str(), item.name.as_deref().unwrap_or_default())
        })
        .collect()
}

fn content(value: Value) -> Value {
    const GENERATED: [&str; 7] =
        ["ID", "CreateIndex", "ModifyIndex", "Hash", "CreateTime", "SecretID", "AccessorID"];
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(name, value)| !GENERATED.contains(&name.as_str()) && !value.is_null())
            .map(|(name, value)| (name, content(value)))
            .collect(),
        Value::Array(changes) => {
            let mut changes: Vec<Value> = changes.into_iter().map(content).collect();
            changes.sort_by_key(Value::to_string);
            changes.into()
        }
        other => other,
    }
}
