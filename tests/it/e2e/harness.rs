//! Runs sandbox and operator as processes with their own ports, directory and environment.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_sdk_ecs::types::{
    AwsVpcConfiguration, ContainerDefinition, LaunchType, NetworkConfiguration, NetworkMode,
};
use serde_json::Value;
use tempfile::TempDir;

/// Time limit of an expected event, long enough for a busy machine.
pub(super) const TIMEOUT: Duration = Duration::from_secs(90);
/// Interval between checks of a condition.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Polls `check` until it returns a value.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(expected: &str, check: impl Fn() -> F) -> T {
    let end = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < end, "timed out waiting for: {expected}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// A running program, killed when dropped.
pub(crate) struct OperatorProcess {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl OperatorProcess {
    /// Starts the program with exactly this environment. Its output goes to files in `directory`.
    pub(crate) fn start(
        directory: &Path,
        name: &str,
        environment: &BTreeMap<String, String>,
        arguments: &[&str],
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ecs-mesh-operator"));
        command.args(arguments);
        Self::launch(&mut command, directory, name, environment)
    }

    /// Starts any program in the same way. Its standard input ends with this process.
    pub(crate) fn launch(
        command: &mut Command,
        directory: &Path,
        name: &str,
        environment: &BTreeMap<String, String>,
    ) -> Self {
        Self::launch_logging_to(command, directory, name, environment, None)
    }

    /// The same, with another standard error than the file.
    fn launch_logging_to(
        command: &mut Command,
        directory: &Path,
        name: &str,
        environment: &BTreeMap<String, String>,
        stderr: Option<Stdio>,
    ) -> Self {
        let (out, err) = (directory.join(format!("{name}.out")), directory.join(format!("{name}.err")));
        let file = Stdio::from(File::create(&err).unwrap());
        let child = command
            .env_clear()
            .env("TMPDIR", directory)
            .env("HOME", directory)
            // Many operators run at once, and the default port is one.
            .env("ECS_MESH_METRICS_ADDRESS", "none")
            .env("ECS_MESH_API_ADDRESS", "none")
            .env("ECS_MESH_ALLOW_DIR", format!("{},{}", directory.display(), std::env::temp_dir().display()))
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(File::create(&out).unwrap())
            .stderr(stderr.unwrap_or(file))
            .spawn()
            .unwrap();
        Self { child, out, err }
    }

    pub(crate) fn stdout(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap()
    }

    /// The lines of the JSON log so far.
    pub(super) fn log(&self) -> Vec<Value> {
        self.stderr().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The lines of the log that match all of these fields: a field and a part of its value. An empty part matches any
    /// value, and the field `*` is the whole line.
    pub(crate) fn lines(&self, fields: &[(&str, &str)]) -> Vec<Value> {
        let matches = |line: &Value| {
            fields.iter().all(|(field, part)| match *field {
                "*" => line.to_string().contains(part),
                field => match &line[field] {
                    Value::Null => false,
                    Value::String(text) => text.contains(part),
                    value => value.to_string().contains(part),
                },
            })
        };
        self.log().into_iter().filter(matches).collect()
    }

    /// Waits for the first line of the log that matches the fields as in [`Self::lines`].
    pub(crate) async fn line(&self, fields: &[(&str, &str)]) -> Value {
        let end = Instant::now() + TIMEOUT;
        loop {
            if let Some(line) = self.lines(fields).into_iter().next() {
                return line;
            }
            assert!(Instant::now() < end, "no line with {fields:?}; the log:\n{}", self.stderr());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The lines of finished sweeps.
    pub(crate) fn sweeps(&self, complete: &str) -> Vec<Value> {
        self.lines(&[("clusters", ""), ("tasks", ""), ("complete", complete)])
    }

    /// Waits until this many sweeps have finished.
    pub(crate) async fn wait_for_sweeps(&self, count: usize) {
        eventually("sweeps", || async { (self.sweeps("").len() >= count).then_some(()) }).await;
    }

    /// Waits for a sweep that is `complete` or not.
    pub(crate) async fn wait_for_sweep(&self, complete: bool) {
        let complete = complete.to_string();
        eventually("a sweep", || async { (!self.sweeps(&complete).is_empty()).then_some(()) }).await;
    }

    /// The log's warnings.
    pub(crate) fn warnings(&self) -> Vec<Value> {
        self.lines(&[("level", "WARN")])
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let status =
            Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(status.success());
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The exit code, once it has ended.
    pub(crate) async fn code(&mut self) -> Option<i32> {
        let end = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "it does not end; the log:\n{}", self.stderr());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

impl Drop for OperatorProcess {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("log of {}:\n{}\n{}", self.err.display(), self.stdout(), self.stderr());
        }
    }
}

/// A sandbox without scenario services, and a directory for manifests and logs.
pub(crate) struct Harness {
    // Declared before the directory, since fields drop in order and the process writes into it. `None` if the endpoints
    // belong to this process.
    _sandbox: Option<OperatorProcess>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) directory: TempDir,
    pub(super) http: reqwest::Client,
}

impl Harness {
    /// Starts the sandbox and waits for its endpoints.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts the sandbox with more arguments.
    pub(super) async fn start_with(more: &[&str]) -> Self {
        // Another test may have installed the provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = TempDir::new().unwrap();
        let arguments = [&["sandbox", "--serve", "--world", "none"], more].concat();
        let sandbox = OperatorProcess::start(directory.path(), "sandbox", &BTreeMap::new(), &arguments);
        let text = eventually("the sandbox's line `ready`", || async {
            let text = sandbox.stdout();
            text.lines().any(|line| line == "ready").then_some(text)
        })
        .await;
        let environment = text
            .lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self::with_defaults(Some(sandbox), environment, directory)
    }

    /// Uses endpoints of this process.
    pub(crate) fn with_endpoints(environment: BTreeMap<&'static str, String>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self::with_defaults(None, environment, TempDir::new().unwrap())
    }

    fn with_defaults(
        sandbox: Option<OperatorProcess>,
        environment: BTreeMap<String, String>,
        directory: TempDir,
    ) -> Self {
        std::fs::create_dir(directory.path().join("manifests")).unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { _sandbox: sandbox, environment, directory, http }
    }

    /// A variable that the sandbox printed for export.
    pub(crate) fn variable(&self, name: &str) -> &str {
        &self.environment[name]
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Replaces a manifest file atomically.
    pub(crate) fn manifest(&self, name: &str, text: &str) {
        let draft = self.path("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, self.path("manifests").join(name)).unwrap();
    }

    /// Starts an operator with the harness's manifests.
    pub(super) fn operator(&self, more: &[&str]) -> OperatorProcess {
        self.operator_with("operator", &self.environment, more)
    }

    /// Starts an operator with another environment; `name` names its log file.
    pub(crate) fn operator_with(
        &self,
        name: &str,
        environment: &BTreeMap<String, String>,
        more: &[&str],
    ) -> OperatorProcess {
        self.launch_operator(name, environment, more, None)
    }

    /// Starts an operator that logs to `stderr`.
    pub(super) fn operator_logging_to(&self, stderr: Stdio, more: &[&str]) -> OperatorProcess {
        self.launch_operator("operator", &self.environment, more, Some(stderr))
    }

    fn launch_operator(
        &self,
        name: &str,
        environment: &BTreeMap<String, String>,
        more: &[&str],
        stderr: Option<Stdio>,
    ) -> OperatorProcess {
        let manifests = self.path("manifests");
        let mut arguments = vec![
            "run",
            "--operator-id",
            "harness",
            "--manifests",
            manifests.to_str().unwrap(),
            "--log-format",
            "json",
        ];
        arguments.extend(more);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ecs-mesh-operator"));
        command.args(&arguments);
        let directory = self.directory.path();
        OperatorProcess::launch_logging_to(&mut command, directory, name, environment, stderr)
    }

    /// Runs a subcommand to its end and returns exit code, standard output and standard error.
    pub(crate) async fn run_to_end(&self, arguments: &[&str]) -> (i32, String, String) {
        let manifests = self.path("manifests");
        let mut all = arguments.to_vec();
        all.extend(["--operator-id", "harness", "--manifests", manifests.to_str().unwrap()]);
        let mut process =
            OperatorProcess::start(self.directory.path(), arguments[0], &self.environment, &all);
        let code = process.code().await.expect("it ended by itself");
        (code, process.stdout(), process.stderr())
    }

    /// Runs `plan` with JSON output and returns exit code and report.
    pub(crate) async fn plan(&self) -> (i32, Value) {
        let (code, out, err) = self.run_to_end(&["plan", "--output", "json"]).await;
        let plan = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
        assert_fits_schema(&out);
        (code, plan)
    }

    /// The control plane's response to a GET.
    pub(super) async fn get(&self, path: &str) -> String {
        let url = format!("{}{path}", self.variable("KUMA_API_URL"));
        self.http.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// Writes to the control plane as another client.
    pub(super) async fn put(&self, path: &str, body: &Value) {
        let url = format!("{}{path}", self.variable("KUMA_API_URL"));
        let request = self.http.put(url).header("content-type", "application/json").body(body.to_string());
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{:?}", answer.text().await);
    }

    /// The Dataplanes of the harness's operator, by name.
    pub(crate) async fn dataplanes(&self) -> BTreeMap<String, Value> {
        let list: Value = serde_json::from_str(&self.get("/meshes/default/dataplanes").await).unwrap();
        let items = list["items"].as_array().unwrap().iter();
        items
            .filter(|item| item["labels"]["ecs-mesh.dev/operator"] == "harness")
            .map(|item| (item["name"].as_str().unwrap().to_owned(), item.clone()))
            .collect()
    }

    /// Waits until the Dataplanes fit the condition.
    pub(crate) async fn wait_for_dataplanes(
        &self,
        expected: &str,
        fits: impl Fn(&BTreeMap<String, Value>) -> bool,
    ) -> BTreeMap<String, Value> {
        eventually(expected, || async {
            let found = self.dataplanes().await;
            fits(&found).then_some(found)
        })
        .await
    }

    pub(super) fn sdk(&self) -> SdkConfig {
        crate::sandbox_aws::sdk(self.variable("AWS_ENDPOINT_URL"))
    }

    pub(crate) fn ecs(&self) -> aws_sdk_ecs::Client {
        aws_sdk_ecs::Client::new(&self.sdk())
    }

    pub(super) fn sqs(&self) -> aws_sdk_sqs::Client {
        aws_sdk_sqs::Client::new(&self.sdk())
    }

    pub(super) fn iam(&self) -> aws_sdk_iam::Client {
        aws_sdk_iam::Client::new(&self.sdk())
    }

    /// Creates the task role of a service with the tags that allow it in the mesh.
    pub(crate) async fn role(&self, service: &str) {
        let tags = [
            tag("kuma.io/type", "dataplane"),
            tag("kuma.io/mesh", "default"),
            tag("kuma.io/service", service),
        ];
        self.role_with(service, &tags).await;
    }

    /// Creates the task role of a service with these tags.
    pub(crate) async fn role_with(&self, service: &str, tags: &[aws_sdk_iam::types::Tag]) {
        let trust = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
            "Principal": {"Service": "ecs-tasks.amazonaws.com"}}]}"#;
        let role = self.iam().create_role().role_name(format!("{service}-task"));
        role.assume_role_policy_document(trust).set_tags(Some(tags.to_vec())).send().await.unwrap();
    }

    /// Registers a task definition of the service's family.
    pub(crate) async fn define(&self, service: &str) {
        let app = ContainerDefinition::builder().name("app").image("app:1").memory(128).build();
        let definition = self.ecs().register_task_definition().family(service);
        definition
            .network_mode(NetworkMode::Awsvpc)
            .task_role_arn(format!("arn:aws:iam::111122223333:role/{service}-task"))
            .container_definitions(app)
            .send()
            .await
            .unwrap();
    }

    /// Creates the service.
    pub(crate) async fn serve(&self, cluster: &str, service: &str, count: i32) {
        let request = self.ecs().create_service().cluster(cluster).service_name(service);
        request
            .task_definition(service)
            .desired_count(count)
            .launch_type(LaunchType::Fargate)
            .network_configuration(awsvpc())
            .send()
            .await
            .unwrap();
    }

    /// Creates role, task definition and service in the sandbox's cluster.
    pub(crate) async fn deploy(&self, service: &str, count: i32) {
        self.role(service).await;
        self.define(service).await;
        self.serve("sandbox", service, count).await;
    }

    pub(crate) async fn scale(&self, service: &str, count: i32) {
        let request = self.ecs().update_service().cluster("sandbox").service(service);
        request.desired_count(count).send().await.unwrap();
    }

    /// The ids of the cluster's tasks whose desired status is RUNNING.
    pub(super) async fn task_ids(&self) -> Vec<String> {
        let listed = self.ecs().list_tasks().cluster("sandbox").send().await.unwrap();
        let mut ids: Vec<String> =
            listed.task_arns().iter().map(|arn| arn.rsplit('/').next().unwrap().to_owned()).collect();
        ids.sort();
        ids
    }

    /// Waits until this many tasks run and returns their ids.
    pub(crate) async fn running(&self, count: usize) -> Vec<String> {
        eventually("the tasks run", || async {
            let ids = self.task_ids().await;
            if ids.len() != count {
                return None;
            }
            let described =
                self.ecs().describe_tasks().cluster("sandbox").set_tasks(Some(ids.clone())).send().await;
            let running = described.unwrap().tasks().iter().all(|task| task.last_status() == Some("RUNNING"));
            running.then_some(ids)
        })
        .await
    }

    /// Manifests for the sandbox's cluster and control plane: service `app` from tasks of family `app`.
    pub(super) fn base_manifests(&self) -> String {
        [
            control_plane("kuma", self.variable("KUMA_API_URL"), ""),
            binding("harness", "kuma", self.variable("ECS_MESH_CLUSTER_ARN"), ""),
            workload("app", "app"),
        ]
        .concat()
    }
}

pub(super) fn tag(key: &str, value: &str) -> aws_sdk_iam::types::Tag {
    aws_sdk_iam::types::Tag::builder().key(key).value(value).build().unwrap()
}

pub(crate) fn awsvpc() -> NetworkConfiguration {
    let inner = AwsVpcConfiguration::builder().subnets("subnet-1").build().unwrap();
    NetworkConfiguration::builder().awsvpc_configuration(inner).build()
}

/// A `ControlPlane` of type Kuma; `more` are further fields of `spec.kuma`.
pub(crate) fn control_plane(name: &str, address: &str, more: &str) -> String {
    document("ControlPlane", name, &format!("{{type: kuma, kuma: {{address: \"{address}\"{more}}}}}"))
}

/// A `MeshBinding` with short intervals; `more` are further fields of `spec`.
pub(crate) fn binding(name: &str, control_plane: &str, cluster: &str, more: &str) -> String {
    let cleanup = "{sweepInterval: 10s, graceAge: 20s, drain: 0s, settle: 1s}";
    let spec = format!(
        "{{controlPlane: {control_plane}, mesh: default, selector: {{clusters: [\"{cluster}\"]}}, cleanup: {cleanup}{more}}}"
    );
    document("MeshBinding", name, &spec)
}

/// A `Workload` with one port.
pub(crate) fn workload(name: &str, family: &str) -> String {
    let inbound = "{name: http, containerPort: 8080, port: 15000, protocol: http}";
    let spec = format!("{{selector: {{families: [{family}]}}, service: {family}, inbounds: [{inbound}]}}");
    document("Workload", name, &spec)
}

pub(crate) fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: ecs-mesh.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"
    )
}

/// Validates a plan against its published schema, if a validator is installed.
fn assert_fits_schema(plan: &str) {
    let Some(python) = std::env::var_os("SCHEMA_TEST_PYTHON") else {
        let error = "SCHEMA_TEST_PYTHON does not name a Python with jsonschema";
        let _ = writeln!(std::io::stderr(), "skipped: validation of a plan against its schema: {error}");
        return;
    };
    let program = "import json, sys, jsonschema\n\
                   jsonschema.validate(json.loads(sys.argv[1]), json.load(open(sys.argv[2])))";
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/plan.schema.json");
    let validated = Command::new(python).args(["-c", program, plan, schema]).output().unwrap();
    assert!(validated.status.success(), "{}", String::from_utf8_lossy(&validated.stderr));
}
