//! The sandbox's Kuma control plane answers like a recorded one: status, stored bodies and error fields.
//!
//! Each run replays the fixtures. `ECS_MESH_RECORDINGS` names a directory of complete recordings
//! (`kuma-2.14*.jsonl` and `kuma-3.0*.jsonl`) to replay as well.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use ecs_mesh_model::Timestamp;
use ecs_mesh_sandbox::kuma::http::{KumaFault, KumaFaults, NoKumaFaults, serve};
use ecs_mesh_sandbox::kuma::{EmulatedRelease, KumaConfig, KumaCp, KumaMode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/kuma");

/// A recorded server.
struct RecordedKuma {
    release: EmulatedRelease,
    /// The version that it shows.
    version: &'static str,
}

const RECORDED: [RecordedKuma; 2] = [
    RecordedKuma { release: EmulatedRelease::V2_14, version: "2.14.3" },
    RecordedKuma { release: EmulatedRelease::V3_0, version: "3.0.0-dev" },
];

#[tokio::test]
async fn emulated_kuma_matches_the_fixtures() {
    for recorded in &RECORDED {
        let file = Path::new(FIXTURES).join(format!("scenario-{}.jsonl", recorded.release));
        let exchanges = read(&file, Exchange::from_fixture);
        assert_eq!(differences(recorded, &exchanges).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn emulated_kuma_matches_the_recordings() {
    let Ok(directory) = std::env::var("ECS_MESH_RECORDINGS") else {
        println!("skipped: ECS_MESH_RECORDINGS names no directory of recordings");
        return;
    };
    for recorded in &RECORDED {
        let files = recordings(&directory, recorded.release);
        assert!(!files.is_empty(), "{directory} has no kuma-{}*.jsonl", recorded.release);
        for file in files {
            let exchanges = read(&file, Exchange::from_recording);
            let differences = differences(recorded, &exchanges).await;
            println!("{}: {} exchanges, {} differ", file.display(), exchanges.len(), differences.len());
            assert_eq!(differences, Vec::<String>::new());
        }
    }
}

/// The files of a directory with exchanges of this release.
fn recordings(directory: &str, release: EmulatedRelease) -> Vec<PathBuf> {
    let prefix = format!("kuma-{release}");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with(&prefix) && name.ends_with(".jsonl")
        })
        .collect();
    files.sort();
    files
}

struct LoseKumaResponses;

impl KumaFaults for LoseKumaResponses {
    fn decide(&self, method: &str, path: &str) -> KumaFault {
        match (method, path) {
            ("PUT", "/meshes/lost") => KumaFault::DropAfterEffect,
            ("PUT", "/meshes/never") => KumaFault::Drop,
            ("PUT", "/meshes/late") => KumaFault::StatusAfterEffect(503),
            ("PUT", "/meshes/refused") => KumaFault::Status(500),
            _ => KumaFault::None,
        }
    }
}

#[tokio::test]
async fn fault_drops_response_before_or_after_the_effect() {
    let server = KumaReplayServer::start(KumaConfig::default(), Arc::new(LoseKumaResponses)).await;
    let client = client();
    let mut seen = Vec::new();
    for mesh in ["lost", "never", "late", "refused"] {
        let url = format!("{}/meshes/{mesh}", server.base);
        let put = client.put(&url).json(&json!({"type": "Mesh", "name": mesh})).send().await;
        let got = client.get(&url).send().await.unwrap();
        seen.push((mesh, put.ok().map(|put| put.status().as_u16()), got.status().as_u16()));
    }
    assert_eq!(
        seen,
        [("lost", None, 200), ("never", None, 404), ("late", Some(503), 200), ("refused", Some(500), 404)]
    );
}

/// The expectation of a response body.
enum ExpectedBody {
    Body(Value),
    Part(Value),
    Fields(Value),
    Nothing,
}

struct Exchange {
    id: String,
    server: String,
    wait: i64,
    method: String,
    path: String,
    bearer: Option<String>,
    body: Option<String>,
    sent_as: String,
    status: u64,
    content_type: String,
    wanted: ExpectedBody,
}

impl Exchange {
    fn from_fixture(line: &Value) -> Self {
        let wanted = if let Some(body) = line.get("response") {
            ExpectedBody::Body(body.clone())
        } else if let Some(part) = line.get("part") {
            ExpectedBody::Part(part.clone())
        } else {
            line.get("fields").map_or(ExpectedBody::Nothing, |fields| ExpectedBody::Fields(fields.clone()))
        };
        let mut exchange = Self::common(line, wanted);
        exchange.server = text(line, "server");
        exchange.wait = line["wait"].as_i64().unwrap_or_default();
        exchange.bearer = line["bearer"].as_str().map(str::to_owned);
        if let Some(sent_as) = line["sent_as"].as_str() {
            sent_as.clone_into(&mut exchange.sent_as);
        }
        exchange
    }

    /// Converts the notes of a recording into the fields of a fixture.
    fn from_recording(line: &Value) -> Self {
        let note = text(line, "note");
        let response = normal(&line["response"]);
        let wanted = if line["content_type"] != "application/json" {
            ExpectedBody::Nothing
        } else if line["status"].as_u64() >= Some(400) {
            ExpectedBody::Fields(fields(&response))
        } else if note.starts_with("cut") {
            ExpectedBody::Part(response)
        } else {
            ExpectedBody::Body(response)
        };
        let mut exchange = Self::common(line, wanted);
        let servers = [
            ("LOCALHOST_IS_ADMIN=false", "localhost-is-not-admin"),
            ("same control plane", "localhost-is-not-admin"),
            ("READ_ONLY=true", "read-only"),
            ("KUMA_MODE=global", "global"),
            ("writers on one name", "race"),
        ];
        let server = servers.iter().find(|(mark, _)| note.contains(mark)).map_or("", |(_, server)| server);
        server.clone_into(&mut exchange.server);
        exchange.wait =
            note.split_once(" s after").and_then(|(wait, _)| wait.parse().ok()).unwrap_or_default();
        exchange.bearer =
            note.split_once("Bearer ").map(|(_, token)| token.split_whitespace().next().unwrap().to_owned());
        if line["status"] == 415 {
            "text/plain".clone_into(&mut exchange.sent_as);
        }
        exchange
    }

    fn common(line: &Value, wanted: ExpectedBody) -> Self {
        let body = match &line["request"] {
            Value::Null => None,
            Value::String(raw) => Some(raw.clone()),
            other => Some(other.to_string()),
        };
        Self {
            id: text(line, "id"),
            server: String::new(),
            wait: 0,
            method: text(line, "method"),
            path: text(line, "path"),
            bearer: None,
            body,
            sent_as: "application/json".to_owned(),
            status: line["status"].as_u64().unwrap(),
            content_type: text(line, "content_type"),
            wanted,
        }
    }

    async fn difference(&self, client: &reqwest::Client, server: &KumaReplayServer) -> Option<String> {
        server.now.fetch_add(self.wait * 1000 + 1, Ordering::Relaxed);
        if self.server == "race" {
            let name = self.path.rsplit('/').next().unwrap();
            server.cp.lock().unwrap().inject_conflict("default", name);
        }
        let method = self.method.parse().unwrap();
        let mut request = client.request(method, format!("{}{}", server.base, self.path));
        if let Some(body) = &self.body {
            request = request.header("content-type", &self.sent_as).body(body.clone());
        }
        if let Some(token) = &self.bearer {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.unwrap();
        let status = u64::from(response.status().as_u16());
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        let found = response.text().await.unwrap();
        if status != self.status || content_type != self.content_type {
            let wanted = (self.status, &self.content_type);
            return Some(format!("{}: wanted {wanted:?}, found {status} {content_type}: {found}", self.id));
        }
        let body = || normal(&serde_json::from_str(&found).unwrap());
        let (wanted, found) = match &self.wanted {
            ExpectedBody::Nothing => return None,
            ExpectedBody::Body(wanted) => (wanted.clone(), body()),
            ExpectedBody::Fields(wanted) => (wanted.clone(), fields(&body())),
            ExpectedBody::Part(wanted) => (wanted.clone(), cut_to(wanted, &body())),
        };
        (wanted != found).then(|| format!("{}:\nwanted {wanted}\nfound  {found}", self.id))
    }
}

fn client() -> reqwest::Client {
    // Another test of this binary may have installed the same provider.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::new()
}

struct KumaReplayServer {
    base: String,
    cp: Arc<Mutex<KumaCp>>,
    now: Arc<AtomicI64>,
}

impl KumaReplayServer {
    async fn start(config: KumaConfig, faults: Arc<dyn KumaFaults>) -> Self {
        let now = Arc::new(AtomicI64::new(1_800_000_000_000));
        let read = Timestamp(now.load(Ordering::Relaxed));
        let cp = Arc::new(Mutex::new(KumaCp::new(config, read)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let time = now.clone();
        let clock = Arc::new(move || Timestamp(time.load(Ordering::Relaxed)));
        tokio::spawn(serve(listener, cp.clone(), faults, clock, std::future::pending()));
        Self { base, cp, now }
    }

    /// A server with the named settings.
    async fn named(recorded: &RecordedKuma, name: &str) -> Self {
        let mut config = KumaConfig { release: recorded.release, ..KumaConfig::default() };
        match name {
            "localhost-is-not-admin" => config.localhost_is_admin = false,
            "read-only" => config.read_only = true,
            "global" => config.mode = KumaMode::Global,
            _ => {}
        }
        let server = Self::start(config, Arc::new(NoKumaFaults)).await;
        server.cp.lock().unwrap().set_version(recorded.version);
        server
    }
}

async fn differences(recorded: &RecordedKuma, exchanges: &[Exchange]) -> Vec<String> {
    let client = client();
    let mut servers = BTreeMap::new();
    let mut differences = Vec::new();
    for exchange in exchanges {
        if !servers.contains_key(&exchange.server) {
            let server = KumaReplayServer::named(recorded, &exchange.server).await;
            servers.insert(exchange.server.clone(), server);
        }
        differences.extend(exchange.difference(&client, &servers[&exchange.server]).await);
    }
    differences
}

fn read(path: &Path, exchange: fn(&Value) -> Exchange) -> Vec<Exchange> {
    let lines = std::fs::read_to_string(path).unwrap();
    lines.lines().map(|line| exchange(&serde_json::from_str(line).unwrap())).collect()
}

fn text(line: &Value, field: &str) -> String {
    line[field].as_str().unwrap_or_default().to_owned()
}

/// A body without values that differ between runs.
fn normal(body: &Value) -> Value {
    const CHANGING: [&str; 4] = ["creationTime", "modificationTime", "clusterId", "instanceId"];
    match body {
        Value::Object(object) => object
            .iter()
            .filter(|(field, value)| {
                let own_host = *field == "hostname" && !value.as_str().unwrap_or_default().contains(".svc.");
                !CHANGING.contains(&field.as_str()) && !own_host
            })
            .map(|(field, value)| match (field.as_str(), value) {
                // Their wording is the server's own.
                ("warnings", Value::Array(warnings)) => (field.clone(), json!(vec![""; warnings.len()])),
                _ => (field.clone(), normal(value)),
            })
            .collect(),
        Value::Array(items) => items.iter().map(normal).collect(),
        Value::String(text) if text.starts_with("http://127.0.0.1:") => {
            json!(text.splitn(4, '/').nth(3).map(|path| format!("/{path}")))
        }
        other => other.clone(),
    }
}

/// Keeps only the fields of `part`.
fn cut_to(part: &Value, body: &Value) -> Value {
    match (part, body) {
        (Value::Object(part), Value::Object(body)) => part
            .iter()
            .map(|(field, part)| {
                (field.clone(), body.get(field).map_or(Value::Null, |body| cut_to(part, body)))
            })
            .collect(),
        _ => body.clone(),
    }
}

fn fields(body: &Value) -> Value {
    let listed = body["invalid_parameters"].as_array().into_iter().flatten();
    listed.map(|parameter| parameter["field"].clone()).collect()
}
