//! A harness with Consul: tasks run in the sandbox's ECS, and the test logs in and registers on their behalf.

use std::collections::BTreeMap;
use std::time::SystemTime;

use aws_sdk_ecs::types::{ContainerDefinition, NetworkMode};
use ecs_mesh_model::Timestamp;
use ecs_mesh_sandbox::aws::AssumedRole;
use ecs_mesh_sandbox::consul::{EntityDetails, SignedLogin};
use serde_json::{Value, json};

use super::harness::{Harness, OperatorProcess, document, eventually, tag};

pub(super) const TAG: &str = "consul.hashicorp.com.service-name";
const METHOD: &str = "iam-ecs-service-token";

/// A task with its token and services at Consul.
#[derive(Clone, Debug)]
pub(super) struct JoinedTask {
    pub(super) id: String,
    pub(super) accessor: String,
    pub(super) secret: String,
    service: String,
}

impl JoinedTask {
    /// The names of the task's objects, as in [`ConsulHarness::everything`].
    pub(super) fn names(&self, node: &str) -> [String; 5] {
        let Self { id, accessor, service, .. } = self;
        [
            format!("token {accessor}"),
            format!("service {service}-{id} on {node}"),
            format!("service {service}-{id}-sidecar-proxy on {node}"),
            format!("check {service}-{id}-check on {node}"),
            format!("check {service}-{id}-sidecar-proxy-check on {node}"),
        ]
    }
}

pub(super) struct ConsulHarness(pub(super) Harness);

impl ConsulHarness {
    pub(super) async fn start() -> Self {
        Self(Harness::start_with(&["--control-plane", "consul"]).await)
    }

    pub(super) fn cluster(&self) -> &str {
        self.0.variable("ECS_MESH_CLUSTER_ARN")
    }

    pub(super) fn management(&self) -> &str {
        self.0.variable("CONSUL_HTTP_TOKEN")
    }

    /// Manifests for the sandbox's Consul and cluster; `more` are further fields of the binding's `spec`.
    pub(super) fn manifests(&self, more: &str) -> String {
        let address = self.0.variable("CONSUL_HTTP_ADDR");
        [consul_at("consul", address, ""), bound("harness", "consul", self.cluster(), more)].concat()
    }

    /// Starts an operator that reads the event queue.
    pub(super) fn operator(&self) -> OperatorProcess {
        let queue = self.0.variable("ECS_MESH_QUEUE_URL").to_owned();
        self.0.operator(&["--queue-url", &queue, "--log", "debug"])
    }

    /// Calls Consul and returns the status and the body.
    pub(super) async fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> (u16, Value) {
        let url = format!("{}{path}", self.0.variable("CONSUL_HTTP_ADDR"));
        let mut request = self.0.http.request(method.parse().unwrap(), url);
        if let Some(token) = token {
            request = request.header("x-consul-token", token);
        }
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Calls Consul with the management token and expects success.
    pub(super) async fn call_as_admin(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.call(method, path, Some(self.management()), body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// Creates a token with these rules and returns its secret.
    pub(super) async fn token_with(&self, name: &str, rules: &str) -> String {
        self.call_as_admin("PUT", "/v1/acl/policy", &json!({"Name": name, "Rules": rules})).await;
        let token = json!({"Description": name, "Policies": [{"Name": name}]});
        let token = self.call_as_admin("PUT", "/v1/acl/token", &token).await;
        token["SecretID"].as_str().unwrap().to_owned()
    }

    /// All tokens, services and checks by name, as shown by the API.
    pub(super) async fn all_objects(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for token in self.call_as_admin("GET", "/v1/acl/tokens", &Value::Null).await.as_array().unwrap() {
            all.insert(format!("token {}", token["AccessorID"].as_str().unwrap()), token.to_string());
        }
        for node in self.call_as_admin("GET", "/v1/catalog/nodes", &Value::Null).await.as_array().unwrap() {
            let name = node["Node"].as_str().unwrap();
            let segment: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
            let path = format!("/v1/catalog/node-services/{segment}");
            let found = self.call_as_admin("GET", &path, &Value::Null).await;
            for service in found["Services"].as_array().into_iter().flatten() {
                let id = service["ID"].as_str().unwrap();
                all.insert(format!("service {id} on {name}"), service.to_string());
            }
            for check in self
                .call_as_admin("GET", &format!("/v1/health/node/{segment}"), &Value::Null)
                .await
                .as_array()
                .unwrap()
            {
                all.insert(
                    format!("check {} on {name}", check["CheckID"].as_str().unwrap()),
                    check.to_string(),
                );
            }
        }
        all
    }

    /// Waits until all objects fit the condition.
    pub(super) async fn wait_for_objects(
        &self,
        expected: &str,
        fits: impl Fn(&BTreeMap<String, String>) -> bool,
    ) -> BTreeMap<String, String> {
        eventually(expected, || async {
            let all = self.all_objects().await;
            fits(&all).then_some(all)
        })
        .await
    }

    /// Waits until the task's objects are gone and returns the others.
    pub(super) async fn wait_until_gone(&self, joined: &JoinedTask) -> BTreeMap<String, String> {
        let names = joined.names(self.cluster());
        self.wait_for_objects("what the task had is gone", |all| {
            names.iter().all(|name| !all.contains_key(name))
        })
        .await
    }

    pub(super) fn role_arn(service: &str) -> String {
        format!("arn:aws:iam::111122223333:role/consul-ecs/{service}-task")
    }

    /// Creates role, task definition and service, waits until the tasks run, and returns their ids.
    pub(super) async fn deploy(&self, service: &str, count: usize) -> Vec<String> {
        let trust = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
            "Principal": {"Service": "ecs-tasks.amazonaws.com"}}]}"#;
        let role = self.0.iam().create_role().role_name(format!("{service}-task")).path("/consul-ecs/");
        role.assume_role_policy_document(trust).tags(tag(TAG, service)).send().await.unwrap();
        let app = ContainerDefinition::builder().name("app").image("app:1").memory(128).build();
        let definition = self.0.ecs().register_task_definition().family(service);
        definition
            .network_mode(NetworkMode::Awsvpc)
            .task_role_arn(Self::role_arn(service))
            .container_definitions(app)
            .send()
            .await
            .unwrap();
        self.0.serve("sandbox", service, i32::try_from(count).unwrap()).await;
        self.0.running(count).await
    }

    /// Logs in and registers service and proxy, as a task does at its start.
    pub(super) async fn join(&self, service: &str, id: &str) -> JoinedTask {
        let (accessor, secret) = self.log_in(service, &self.meta(id)).await;
        let arn = format!("{}/{id}", self.cluster().replacen(":cluster/", ":task/", 1));
        let meta = json!({"source": "consul-ecs", "task-id": id, "task-arn": arn});
        for (suffix, kind) in [("", ""), ("-sidecar-proxy", "connect-proxy")] {
            let name = format!("{service}{suffix}");
            let service_id = format!("{service}-{id}{suffix}");
            let mut registered = json!({
                "ID": service_id, "Service": name, "Kind": kind, "Address": "10.0.0.9", "Port": 9090, "Meta": meta,
            });
            if !kind.is_empty() {
                registered["Proxy"] = json!({"DestinationServiceName": service});
            }
            let check = json!({
                "CheckID": format!("{service_id}-check"), "Name": "health", "Status": "passing", "ServiceID": service_id,
            });
            let body = json!({
                "Node": self.cluster(), "Address": "127.0.0.1", "SkipNodeUpdate": true,
                "NodeMeta": {"synthetic-node": "true"}, "Service": registered, "Checks": [check],
            });
            let (status, answer) = self.call("PUT", "/v1/catalog/register", Some(&secret), &body).await;
            assert_eq!(status, 200, "{answer}");
        }
        JoinedTask { id: id.to_owned(), accessor, secret, service: service.to_owned() }
    }

    /// Deregisters and logs out, as a task does at a clean stop.
    pub(super) async fn leave(&self, joined: &JoinedTask) {
        let secret = Some(joined.secret.as_str());
        for suffix in ["-sidecar-proxy", ""] {
            let id = format!("{}-{}{suffix}", joined.service, joined.id);
            let body = json!({"Node": self.cluster(), "ServiceID": id});
            assert_eq!(self.call("PUT", "/v1/catalog/deregister", secret, &body).await.0, 200);
        }
        assert_eq!(self.call("POST", "/v1/acl/logout", secret, &Value::Null).await.0, 200);
    }

    /// The metadata of a task's login.
    pub(super) fn meta(&self, id: &str) -> Vec<(&'static str, String)> {
        vec![
            ("consul.hashicorp.com/cluster", self.cluster().to_owned()),
            ("consul.hashicorp.com/task-id", id.to_owned()),
        ]
    }

    /// Logs in as a service's role and returns the token's accessor and secret.
    pub(super) async fn log_in(&self, service: &str, meta: &[(&'static str, String)]) -> (String, String) {
        let sts = aws_sdk_sts::Client::new(&self.0.sdk());
        let assumed = sts.assume_role().role_arn(Self::role_arn(service)).role_session_name("task");
        let assumed = assumed.send().await.unwrap().credentials.unwrap();
        let credentials = AssumedRole {
            access_key_id: assumed.access_key_id,
            secret_access_key: assumed.secret_access_key,
            session_token: assumed.session_token,
            expiration: Timestamp(0),
            arn: format!("arn:aws:sts::111122223333:assumed-role/{service}-task/task"),
            id: String::new(),
        };
        let aws = self.0.variable("AWS_ENDPOINT_URL");
        let meta: Vec<(&str, &str)> = meta.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let login = SignedLogin {
            auth_method: METHOD,
            credentials: &credentials,
            region: "eu-west-1",
            sts_endpoint: Some(aws),
            iam_endpoint: Some(aws),
            server_id: None,
            entity: EntityDetails::Own,
            meta: &meta,
        };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let request = login.request(Timestamp(i64::try_from(since.as_millis()).unwrap())).unwrap();
        let body = serde_json::from_slice(&request.body).unwrap();
        let (status, token) = self.call("POST", "/v1/acl/login", None, &body).await;
        assert_eq!(status, 200, "{token}");
        let text = |field: &str| token[field].as_str().unwrap().to_owned();
        (text("AccessorID"), text("SecretID"))
    }

    /// Waits until a task has stopped.
    pub(super) async fn wait_until_stopped(&self, id: &str) {
        eventually("the task has stopped", || async {
            let described = self.0.ecs().describe_tasks().cluster("sandbox").tasks(id).send().await.unwrap();
            (described.tasks()[0].last_status() == Some("STOPPED")).then_some(())
        })
        .await;
    }

    /// Stops a task through ECS.
    pub(super) async fn stop(&self, id: &str) {
        self.0.ecs().stop_task().cluster("sandbox").task(id).send().await.unwrap();
    }
}

/// A `ControlPlane` of type Consul; `more` are further fields of `spec.consul`.
pub(super) fn consul_at(name: &str, address: &str, more: &str) -> String {
    let spec =
        format!("{{type: consul, consul: {{address: \"{address}\", tokenEnv: CONSUL_HTTP_TOKEN{more}}}}}");
    document("ControlPlane", name, &spec)
}

/// A binding to a Consul with short intervals; `more` are further fields of `spec`.
pub(super) fn bound(name: &str, control_plane: &str, cluster: &str, more: &str) -> String {
    let spec = format!(
        "{{controlPlane: {control_plane}, selector: {{clusters: [\"{cluster}\"]}}, \
         cleanup: {{sweepInterval: 10s, graceAge: 0s}}{more}}}"
    );
    document("MeshBinding", name, &spec)
}
