//! An emulated server with its AWS, and the map from recorded ids to its ids.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ecs_mesh_clock::Clock;
use ecs_mesh_model::Timestamp;
use ecs_mesh_sandbox::aws::{self, Cloud, CloudConfig};
use ecs_mesh_sandbox::consul::http::{ConsulFaults, ConsulFront, NoConsulFaults, serve};
use ecs_mesh_sandbox::consul::{ConsulConfig, ConsulRequest, ConsulServer, in_process};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub(super) const MANAGEMENT: &str = "cccccccc-0000-4000-8000-000000000001";
pub(super) const ACCOUNT: &str = "123456789012";
pub(super) const REGION: &str = "us-east-1";
/// Changes on this node wake no blocking query of the recording.
const OTHER: &str = "on ANOTHER node";
const NODE: &str = "arn:aws:ecs:us-east-1:123456789012:cluster/anchor";

pub(super) struct ConsulReplayServer {
    pub(super) url: String,
    pub(super) aws_url: String,
    pub(super) client: reqwest::Client,
    pub(super) cloud: aws::AwsFront,
    pub(super) consul: ConsulFront,
}

impl ConsulReplayServer {
    pub(super) async fn start() -> Self {
        Self::with(ConsulConfig::default(), Arc::new(NoConsulFaults)).await
    }

    pub(super) async fn with(config: ConsulConfig, faults: Arc<dyn ConsulFaults>) -> Self {
        // Another test of this binary may have installed the same provider.
        drop(rustls::crypto::ring::default_provider().install_default());
        let clock = Clock::system();
        let now = clock.now();
        let account =
            CloudConfig { region: REGION.into(), account: ACCOUNT.into(), ..CloudConfig::default() };
        let cloud = Arc::new(Mutex::new(Cloud::new(account, now)));
        let time = clock.clone();
        let cloud = aws::AwsFront::new(cloud, Arc::new(aws::NoAwsFaults), move || time.now());
        let aws_url = "http://127.0.0.1:28700".to_owned();
        let config = ConsulConfig { management_token: Some(MANAGEMENT.to_owned()), ..config };
        let server = Arc::new(Mutex::new(ConsulServer::new(config, now)));
        let aws = in_process::account(cloud.clone(), aws_url.clone());
        let consul = ConsulFront::new(server, aws, faults, Arc::new(move || clock.now()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, consul.clone(), std::future::pending()));
        Self { url, aws_url, client: reqwest::Client::new(), cloud, consul }
    }

    /// The same read as a blocking query from the current index, with a short wait if no change is expected.
    pub(super) async fn waiting(&self, url: &str, note: &str) -> String {
        let (base, query) = url.split_once('?').unwrap();
        let first = self.client.get(base).header("x-consul-token", MANAGEMENT).send().await.unwrap();
        let index = first.headers()["x-consul-index"].to_str().unwrap().to_owned();
        let query = form_urlencoded::parse(query.as_bytes()).map(|(name, value)| match name.as_ref() {
            "index" => format!("index={index}"),
            "wait" if !note.contains("after") || note.contains(OTHER) => "wait=500ms".to_owned(),
            name => format!("{name}={value}"),
        });
        format!("{base}?{}", query.collect::<Vec<_>>().join("&"))
    }

    /// The concurrent call of another client in the note.
    pub(super) async fn on_busy_step(&self, note: &str) {
        let service = |node: &str, name: &str| {
            let task = "0123456789abcdef0123456789abcdef";
            json!({
                "Node": node, "Address": "10.0.0.9", "NodeMeta": {"synthetic-node": "true"}, "SkipNodeUpdate": true,
                "Service": {
                    "ID": format!("{name}-{task}"), "Service": name, "Address": "10.0.0.9", "Port": 9090,
                    "Meta": {
                        "task-id": task, "source": "consul-ecs",
                        "task-arn": format!("arn:aws:ecs:us-east-1:123456789012:task/anchor/{task}"),
                    },
                },
            })
        };
        let (path, body) = if note.contains(OTHER) {
            ("/v1/catalog/register", service("another", "other"))
        } else if note.contains("a service is registered after") {
            ("/v1/catalog/register", service(NODE, "late"))
        } else if note.contains("a token is made after") {
            ("/v1/acl/token", json!({"Description": "wake"}))
        } else {
            return;
        };
        tokio::time::sleep(Duration::from_millis(100)).await;
        let request = ConsulRequest::new("PUT", path, Some(MANAGEMENT), &body);
        assert_eq!(self.consul.with(|server, now| server.handle(now, &request)).status, 200);
    }

    pub(super) fn now(&self) -> Timestamp {
        self.cloud.with(|_, now| now)
    }
}

/// The map from values of the recording to values of this server.
#[derive(Default)]
pub(super) struct NameMapping {
    /// Recorded id to id of this server.
    ids: BTreeMap<String, String>,
    /// Secret of this server by recorded accessor.
    secrets: BTreeMap<String, String>,
    /// Recorded accessor by recorded secret.
    accessors: BTreeMap<String, String>,
}

impl NameMapping {
    /// Assigns recorded secrets to tokens. The recording masks secrets except those in requests. A read of the own token or
    /// a response with the accessor reveals the token; the remaining secrets belong to the remaining logins.
    pub(super) fn of(exchanges: &[Value]) -> Self {
        let mut names = Self::default();
        let text = |exchange: &Value, field: &str| exchange[field].as_str().unwrap_or_default().to_owned();
        for exchange in exchanges {
            let secret = text(exchange, "token");
            let response = text(exchange, "response");
            let named = response.split_once("AccessorID '").map(|(_, rest)| rest[..36].to_owned());
            let own = text(exchange, "path").ends_with("/token/self");
            let read = exchange["response"]["AccessorID"].as_str().filter(|_| own).map(str::to_owned);
            if let Some(accessor) = named.or(read)
                && secret.len() == 36
            {
                names.accessors.insert(secret, accessor);
            }
        }
        for exchange in exchanges {
            let secret = text(exchange, "token");
            if secret.len() == 36 && !secret.contains("dead") && !names.accessors.contains_key(&secret) {
                let logins = exchanges.iter().filter(|exchange| exchange["path"] == "/v1/acl/login");
                let mut made = logins.filter_map(|login| login["response"]["AccessorID"].as_str());
                let unclaimed = made.find(|made| names.accessors.values().all(|known| known != made));
                names.accessors.insert(secret, unclaimed.unwrap().to_owned());
            }
        }
        names
    }

    /// Replaces recorded ids by those of this server.
    pub(super) fn ours(&self, text: &str) -> String {
        self.ids.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }

    /// The secret of a request.
    pub(super) fn token(&self, recorded: &str) -> Option<String> {
        match recorded {
            "none" | "" => None,
            "management" => Some(MANAGEMENT.to_owned()),
            other => {
                let accessor = other.strip_prefix("of:").or(self.accessors.get(other).map(String::as_str));
                Some(accessor.map_or_else(|| other.to_owned(), |accessor| self.secrets[accessor].clone()))
            }
        }
    }

    /// Replaces a masked secret in a body by the secret of this server.
    pub(super) fn with_secret(&self, path: &str, body: &str) -> String {
        let mask = "\"(secret)\"";
        if !body.contains(mask) {
            return body.to_owned();
        }
        let there = path.rsplit('/').next().unwrap();
        body.replace(mask, &format!("{:?}", self.secrets[there]))
    }

    /// Records the ids of a response. Lists are ignored, since their order differs and their items are known.
    pub(super) fn learn(&mut self, there: &Value, here: &Value) {
        for field in ["ID", "AccessorID"] {
            if let (Some(there), Some(here)) = (there[field].as_str(), here[field].as_str())
                && there.len() == 36
            {
                self.ids.insert(there.to_owned(), here.to_owned());
            }
        }
        if let (Some(accessor), Some(secret)) = (there["AccessorID"].as_str(), here["SecretID"].as_str()) {
            self.secrets.insert(accessor.to_owned(), secret.to_owned());
        }
    }
}
