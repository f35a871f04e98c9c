//! A real Consul with the tokens and services of the sandbox's tasks, and a relay in front that records removals.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use ecs_mesh_model::TaskArn;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::watch::Watcher;

/// Environment variable with the path of the program; without it the Consul phases are skipped.
pub(crate) const PROGRAM: &str = "BENCH_CONSUL_BIN";
/// Name of the log file.
pub(crate) const DIRECTORY: &str = "BENCH_CONSUL_DIR";
/// The management token of a server that runs as long as the benchmark.
pub(crate) const MANAGEMENT: &str = "11111111-1111-1111-1111-111111111111";

const METHOD: &str = "iam-ecs-service-token";
/// Consul 1.8 has no logins by AWS IAM, so tasks log in with a JWT to an auth method of the usual name. The tokens have
/// the same form.
const JWT: &str = include_str!("../../tests/fixtures/consul/login.jwt");
const JWT_KEY: &str = include_str!("../../tests/fixtures/consul/jwt.pub.pem");
/// Time limit of the start.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Concurrent requests while tasks log in.
const AT_ONCE: usize = 8;
/// Size limit of a relayed body.
const LARGEST: usize = 256 * 1024 * 1024;

/// The server and the relay.
pub(crate) struct BenchConsul {
    child: Child,
    server: Arc<RealConsulServer>,
    /// The relay's address, as configured for the operator.
    pub url: String,
}

struct RealConsulServer {
    url: String,
    http: reqwest::Client,
    watcher: Arc<Watcher>,
}

impl Drop for BenchConsul {
    fn drop(&mut self) {
        // The server may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl BenchConsul {
    /// Starts server and relay, if a program is named.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) async fn start(watcher: Arc<Watcher>) -> Result<Option<Self>, String> {
        let (Some(program), Some(directory)) = (std::env::var_os(PROGRAM), std::env::var_os(DIRECTORY))
        else {
            return Ok(None);
        };
        let (child, url) = run(Path::new(&program), Path::new(&directory))?;
        let http = reqwest::Client::builder().no_proxy().build().map_err(|error| error.to_string())?;
        let server = Arc::new(RealConsulServer { url, http, watcher });
        let mut consul = Self { child, server, url: String::new() };
        consul.server.wait_for_leader().await?;
        consul.server.create_auth_method().await?;
        consul.url = relay(Arc::clone(&consul.server)).await?;
        Ok(Some(consul))
    }

    /// Logs in each task and registers its service and sidecar.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) async fn log_in(&self, tasks: Vec<TaskArn>) -> Result<(), String> {
        let mut under_way = JoinSet::new();
        for task in tasks {
            if under_way.len() >= AT_ONCE {
                joined(under_way.join_next().await)?;
            }
            let server = Arc::clone(&self.server);
            under_way.spawn(async move { server.register_task(&task).await });
        }
        while !under_way.is_empty() {
            joined(under_way.join_next().await)?;
        }
        Ok(())
    }
}

fn joined(ended: Option<Result<Result<(), String>, tokio::task::JoinError>>) -> Result<(), String> {
    ended.map_or(Ok(()), |ended| ended.map_err(|error| error.to_string())?)
}

/// Starts the program on loopback with ACLs and default policy `deny`. The connection limit is the default.
fn run(program: &Path, directory: &Path) -> Result<(Child, String), String> {
    let io = |error: std::io::Error| format!("starting Consul: {error}");
    let free: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>().map_err(io)?;
    let ports: Vec<u16> =
        free.iter().map(|port| port.local_addr().map(|a| a.port())).collect::<Result<_, _>>().map_err(io)?;
    drop(free);
    let config = json!({
        "ports": {
            "http": ports[0], "server": ports[1], "serf_lan": ports[2], "serf_wan": -1, "dns": -1, "grpc": -1,
        },
        "acl": {"enabled": true, "default_policy": "deny", "tokens": {"master": MANAGEMENT}},
    });
    let file = directory.join("consul.json");
    std::fs::write(&file, config.to_string()).map_err(io)?;
    // The program starts in another directory.
    let program = program.canonicalize().map_err(|error| format!("{}: {error}", program.display()))?;
    let child = Command::new(program)
        .args(["agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1", "-log-level=warn", "-config-file"])
        .arg(&file)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(File::create(directory.join("consul.log")).map_err(io)?)
        .stderr(Stdio::null())
        .spawn()
        .map_err(io)?;
    Ok((child, format!("http://127.0.0.1:{}", ports[0])))
}

impl RealConsulServer {
    async fn ask(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let mut request =
            self.http.request(method, format!("{}{path}", self.url)).header("X-Consul-Token", MANAGEMENT);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        answer.map_err(|error| error.to_string())?.json().await.map_err(|error| format!("{path}: {error}"))
    }

    async fn put(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.ask(reqwest::Method::PUT, path, Some(body)).await
    }

    async fn wait_for_leader(&self) -> Result<(), String> {
        let until = Instant::now() + TIMEOUT;
        while self.ask(reqwest::Method::GET, "/v1/acl/token/self", None).await.is_err() {
            if Instant::now() > until {
                return Err("Consul elected no leader in time".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn create_auth_method(&self) -> Result<(), String> {
        let config = json!({
            "BoundAudiences": ["consul"], "BoundIssuer": "ecs-mesh-test", "JWTValidationPubKeys": [JWT_KEY],
            "ClaimMappings": {"service": "service"},
        });
        let method = json!({"Name": METHOD, "Type": "jwt", "Config": config});
        self.put("/v1/acl/auth-method", &method).await?;
        let rule = json!({"AuthMethod": METHOD, "BindType": "service", "BindName": "${value.service}"});
        self.put("/v1/acl/binding-rule", &rule).await.map(drop)
    }

    async fn register_task(&self, task: &TaskArn) -> Result<(), String> {
        let (cluster, id) = (task.cluster().as_str(), task.id().as_str());
        let meta = json!({"consul.hashicorp.com/cluster": cluster, "consul.hashicorp.com/task-id": id});
        let login = json!({"AuthMethod": METHOD, "BearerToken": JWT.trim(), "Meta": meta});
        let token = self.ask(reqwest::Method::POST, "/v1/acl/login", Some(&login)).await?;
        let accessor = token["AccessorID"].as_str().ok_or("the login response has no accessor")?;
        self.watcher.logged_in(accessor, id);
        for (kind, name) in [("", "web"), ("connect-proxy", "web-sidecar-proxy")] {
            let mut service = json!({
                "ID": format!("{name}-{id}"), "Service": name, "Kind": kind, "Port": 9090,
                "Meta": {"source": "consul-ecs", "task-id": id, "task-arn": task.to_string()},
            });
            if !kind.is_empty() {
                service["Proxy"] = json!({"DestinationServiceName": "web"});
            }
            let entry = json!({
                "Node": cluster, "Address": "127.0.0.1", "NodeMeta": {"synthetic-node": "true"},
                "SkipNodeUpdate": true, "Service": service,
            });
            self.put("/v1/catalog/register", &entry).await?;
            self.watcher.registered();
        }
        Ok(())
    }

    /// Forwards a request and records removals.
    async fn relay(&self, request: Request) -> Result<Response<Body>, String> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, LARGEST).await.map_err(|error| error.to_string())?;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let sent = self.http.request(parts.method.clone(), format!("{}{path}", self.url));
        let mut headers = parts.headers.clone();
        headers.remove("host");
        let answer =
            sent.headers(headers).body(body.clone()).send().await.map_err(|error| error.to_string())?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let relayed = answer.bytes().await.map_err(|error| error.to_string())?;
        if status == StatusCode::OK {
            self.record(parts.method.as_str(), parts.uri.path(), &body);
        }
        let mut response = Response::new(Body::from(relayed));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.headers_mut().remove("transfer-encoding");
        Ok(response)
    }

    fn record(&self, method: &str, path: &str, body: &Bytes) {
        match (method, path) {
            ("DELETE", _) => {
                if let Some(accessor) = path.strip_prefix("/v1/acl/token/") {
                    self.watcher.token_removed(accessor, Instant::now());
                }
            }
            ("PUT", "/v1/txn") => {
                let operations: Vec<Value> = serde_json::from_slice(body).unwrap_or_default();
                let deletes = |operation: &&Value| {
                    operation["Service"]["Verb"].as_str().is_some_and(|verb| verb.starts_with("delete"))
                };
                self.watcher.services_removed(operations.iter().filter(deletes).count());
            }
            ("PUT", "/v1/catalog/deregister") => self.watcher.services_removed(1),
            _ => {}
        }
    }
}

/// Serves the relay and returns its address.
async fn relay(server: Arc<RealConsulServer>) -> Result<String, String> {
    let handle = |State(server): State<Arc<RealConsulServer>>, request: Request| async move {
        server.relay(request).await.unwrap_or_else(|error| {
            let mut response = Response::new(Body::from(error));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        })
    };
    let router = axum::Router::new().fallback(handle).with_state(server);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
    let url = format!("http://{}", listener.local_addr().map_err(|error| error.to_string())?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}
