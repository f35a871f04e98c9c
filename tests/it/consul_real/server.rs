//! Starts a real Consul on loopback, and makes the calls of tasks and administrators.
//!
//! Two releases can be named; each test states the one it runs against.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use ecs_mesh_consul::ConsulControlPlane;
use ecs_mesh_control_plane::NoObserver;
use ecs_mesh_control_plane::http::HttpTransport;
use ecs_mesh_controller::NoSecrets;
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::{ClusterArn, MeshName, OperatorId, TaskArn, TaskId};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::e2e::harness::eventually;

/// The management token.
pub(crate) const MANAGEMENT: &str = "11111111-1111-1111-1111-111111111111";
/// An unknown token.
pub(super) const UNKNOWN: &str = "00000000-dead-beef-0000-000000000000";
pub(super) const METHOD: &str = "iam-ecs-service-token";

const JWT: &str = include_str!("../../fixtures/consul/login.jwt");
const JWT_KEY: &str = include_str!("../../fixtures/consul/jwt.pub.pem");

/// The release of a Consul.
#[derive(Clone, Copy)]
pub(crate) enum ConsulRelease {
    /// 1.8, as Debian packages it, without logins by AWS IAM.
    Oldest,
    /// 1.12 or later.
    Newer,
}

impl ConsulRelease {
    /// The environment variable with the path of the program.
    fn variable(self) -> &'static str {
        match self {
            Self::Oldest => "CONSUL_TEST_BIN",
            Self::Newer => "CONSUL_BIN",
        }
    }
}

/// Whether ACLs are enabled, with default policy `deny`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acls {
    On,
    Off,
}

pub(super) type RealControlPlane = ConsulControlPlane<HttpTransport>;

pub(crate) struct RealConsul {
    child: Child,
    url: String,
    http: reqwest::Client,
    directory: TempDir,
}

impl Drop for RealConsul {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("consul.log")).unwrap_or_default();
            println!("log of consul:\n{log}");
        }
    }
}

impl RealConsul {
    /// `None` if no program is named, which is printed.
    pub(crate) async fn start(release: ConsulRelease, what: &str, acls: Acls) -> Option<Self> {
        let Some(path) = std::env::var_os(release.variable()) else {
            println!("skipped: {what}: {} names no Consul", release.variable());
            return None;
        };
        // Another test may have installed the provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = TempDir::new().unwrap();
        // The ports are free and probably stay so until Consul binds them.
        let free: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = free.iter().map(|port| port.local_addr().unwrap().port()).collect();
        drop(free);
        let mut config = json!({"ports": {
            "http": ports[0], "server": ports[1], "serf_lan": ports[2], "serf_wan": -1, "dns": -1, "grpc": -1,
        }});
        // Consul does not start with an unknown setting.
        let version = version(&path);
        if version >= (1, 14) {
            config["ports"]["grpc_tls"] = (-1).into();
        }
        let management = if version >= (1, 11) { "initial_management" } else { "master" };
        if acls == Acls::On {
            config["acl"] =
                json!({"enabled": true, "default_policy": "deny", "tokens": {management: MANAGEMENT}});
        }
        let file = directory.path().join("config.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let child = Command::new(&path)
            .args([
                "agent",
                "-dev",
                "-bind=127.0.0.1",
                "-client=127.0.0.1",
                "-log-level=warn",
                "-config-file",
            ])
            .arg(&file)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(File::create(directory.path().join("consul.log")).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let server = Self { child, url: format!("http://127.0.0.1:{}", ports[0]), http, directory };
        let ready = if acls == Acls::On { "/v1/acl/token/self" } else { "/v1/catalog/nodes" };
        eventually("a Consul with a leader that answers", || async {
            let leader = server.ask("GET", "/v1/status/leader", None).await?;
            server.ask("GET", ready, None).await?;
            leader.as_str().is_some_and(|leader| !leader.is_empty()).then_some(())
        })
        .await;
        Some(server)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Calls Consul with the management token; `None` on failure.
    pub(super) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
        let mut request = self
            .http
            .request(method.parse().unwrap(), format!("{}{path}", self.url))
            .header("X-Consul-Token", MANAGEMENT);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.ok()?.error_for_status().ok()?;
        serde_json::from_str(&answer.text().await.ok()?).ok()
    }

    pub(super) async fn put(&self, path: &str, body: &Value) -> Value {
        self.ask("PUT", path, Some(body)).await.unwrap_or_else(|| panic!("PUT {path} {body} failed"))
    }

    /// The client under test with this token, or without one.
    pub(super) fn client(&self, token: Option<&str>) -> RealControlPlane {
        let mut spec = json!({"address": self.url, "timeout": "5s"});
        if let Some(token) = token {
            let file = self.directory.path().join(format!("token-{token}"));
            std::fs::write(&file, token).unwrap();
            spec["tokenFile"] = file.to_str().unwrap().into();
        }
        let spec = serde_json::from_value(spec).unwrap();
        let operator = OperatorId::parse("op").unwrap();
        let secrets = Arc::new(NoSecrets);
        RealControlPlane::connect(&spec, &crate::allow_all(), operator, Arc::new(NoObserver), secrets)
            .unwrap()
    }

    /// Creates a token with these rules and returns its secret.
    pub(super) async fn token_with(&self, name: &str, rules: &str) -> String {
        self.put("/v1/acl/policy", &json!({"Name": name, "Rules": rules})).await;
        let token =
            self.put("/v1/acl/token", &json!({"Description": name, "Policies": [{"Name": name}]})).await;
        token["SecretID"].as_str().unwrap().to_owned()
    }

    /// Creates an auth method of this name for tasks.
    pub(crate) async fn create_auth_method(&self, method: &str) {
        let config = json!({
            "BoundAudiences": ["consul"], "BoundIssuer": "ecs-mesh-test", "JWTValidationPubKeys": [JWT_KEY],
            "ClaimMappings": {"service": "service"},
        });
        self.put("/v1/acl/auth-method", &json!({"Name": method, "Type": "jwt", "Config": config})).await;
        let rule = json!({"AuthMethod": method, "BindType": "service", "BindName": "${value.service}"});
        self.put("/v1/acl/binding-rule", &rule).await;
    }

    /// Logs in as a task and returns the accessor.
    pub(super) async fn log_in(&self, method: &str, meta: Value) -> String {
        let body = json!({"AuthMethod": method, "BearerToken": JWT.trim(), "Meta": meta});
        let token = self.ask("POST", "/v1/acl/login", Some(&body)).await.expect("a login");
        token["AccessorID"].as_str().unwrap().to_owned()
    }

    pub(super) async fn log_in_as(&self, task: &TaskArn) -> RegistrationId {
        let meta = json!({
            "consul.hashicorp.com/cluster": task.cluster().as_str(), "consul.hashicorp.com/task-id": task.id().as_str(),
        });
        id(&format!("token/{}", self.log_in(METHOD, meta).await))
    }

    /// Registers a service as a task.
    pub(super) async fn register(&self, task: &TaskArn, service: &str) -> RegistrationId {
        let service_id = format!("{service}-{}", task.id());
        let meta =
            json!({"source": "consul-ecs", "task-id": task.id().as_str(), "task-arn": task.to_string()});
        self.register_as(task.cluster(), &service_id, service, &meta).await;
        id(&format!("service/{service_id}@{}", task.cluster()))
    }

    pub(super) async fn register_as(&self, cluster: &ClusterArn, id: &str, service: &str, meta: &Value) {
        let body = json!({
            "Node": cluster.as_str(), "Address": "127.0.0.1", "NodeMeta": {"synthetic-node": "true"},
            "SkipNodeUpdate": true, "Service": {"ID": id, "Service": service, "Meta": meta, "Port": 9090},
            "Check": {"CheckID": format!("{id}-check"), "Name": "health", "Status": "passing", "ServiceID": id},
        });
        self.put("/v1/catalog/register", &body).await;
    }
}

fn version(program: &OsStr) -> (u32, u32) {
    let said = Command::new(program).arg("version").output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    let version = said.strip_prefix("Consul v").unwrap_or_else(|| panic!("no version: {said}"));
    let mut parts = version.split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

impl RealConsul {
    /// The ids of the checks on a cluster's node.
    pub(super) async fn checks_on(&self, cluster: &ClusterArn) -> BTreeSet<String> {
        let node: String = form_urlencoded::byte_serialize(cluster.as_str().as_bytes()).collect();
        let checks = self.ask("GET", &format!("/v1/health/node/{node}"), None).await.expect("checks");
        let ids =
            checks.as_array().unwrap().iter().map(|check| check["CheckID"].as_str().unwrap().to_owned());
        ids.collect()
    }
}

pub(super) fn cluster(name: &str) -> ClusterArn {
    ClusterArn::parse(&format!("arn:aws:ecs:us-east-1:123456789012:cluster/{name}")).unwrap()
}

pub(super) fn task(cluster: &ClusterArn, number: u32) -> TaskArn {
    cluster.task(TaskId::parse(&format!("{number:032x}")).unwrap())
}

pub(super) fn id(name: &str) -> RegistrationId {
    RegistrationId { mesh: MeshName::default(), name: name.into() }
}
