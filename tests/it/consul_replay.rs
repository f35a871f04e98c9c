//! The sandbox's Consul answers like a recorded one: status, headers and stored bodies.
//!
//! Each run replays the fixtures. `ECS_MESH_RECORDINGS` names a directory of complete recordings
//! (`consul-1.21*.jsonl`) to replay as well.

mod login;
mod normal;
mod server;
mod socket;

use std::path::Path;

use serde_json::Value;

use self::normal::{normal, sorted};
use self::server::{ConsulReplayServer, MANAGEMENT, NameMapping};

const OWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/consul/scenario-1.21.jsonl");

/// Required headers, with a value or with any value.
const HEADERS: [(&str, bool); 7] = [
    ("Content-Type", true),
    ("X-Consul-Default-Acl-Policy", true),
    ("X-Consul-Effective-Consistency", true),
    ("X-Consul-Index", false),
    ("X-Consul-Knownleader", true),
    ("X-Consul-Query-Backend", true),
    ("X-Consul-Results-Filtered-By-Acls", true),
];

/// Known differences: the prefix of an exchange's id, and the reason.
const TOLERATED: &[(&str, &str)] = &[];

#[tokio::test]
async fn emulated_consul_matches_the_fixtures() {
    let differences = differences(&read(Path::new(OWN))).await;
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn emulated_consul_matches_the_recordings() {
    let Ok(directory) = std::env::var("ECS_MESH_RECORDINGS") else {
        println!("skipped: ECS_MESH_RECORDINGS names no directory of recordings");
        return;
    };
    let entries = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("consul-1.21") && name.ends_with(".jsonl")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{directory} has no consul-1.21*.jsonl");
    for file in files {
        let exchanges = read(&file);
        let differences = differences(&exchanges).await;
        println!("{}: {} exchanges, {} differ", file.display(), exchanges.len(), differences.len());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}

fn read(path: &Path) -> Vec<Value> {
    let lines = std::fs::read_to_string(path).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Replays all exchanges in order on one server.
async fn differences(exchanges: &[Value]) -> Vec<String> {
    let server = ConsulReplayServer::start().await;
    let mut names = NameMapping::of(exchanges);
    let mut differences = Vec::new();
    for exchange in exchanges {
        let id = exchange["id"].as_str().unwrap();
        let found = difference(&server, &mut names, exchange).await;
        let tolerated = TOLERATED.iter().any(|(start, _)| id.starts_with(start));
        assert!(!tolerated || found.is_some(), "{id} is tolerated and does not differ");
        differences.extend(found.filter(|_| !tolerated).map(|what| format!("{id}: {what}")));
    }
    differences
}

async fn difference(
    server: &ConsulReplayServer,
    names: &mut NameMapping,
    exchange: &Value,
) -> Option<String> {
    let text = |field: &str| exchange[field].as_str().unwrap_or_default();
    let (method, path, note) = (text("method"), text("path"), text("note"));
    let mut url = format!("{}{}", server.url, names.ours(path));
    if path.contains("index=") {
        url = server.waiting(&url, note).await;
    }
    let mut request = server.client.request(method.parse().unwrap(), url);
    if note.contains("Bearer") {
        request = request.bearer_auth(MANAGEMENT);
    } else {
        let token = names.token(text("token"));
        request = request
            .headers(token.iter().map(|t| ("x-consul-token".parse().unwrap(), t.parse().unwrap())).collect());
    }
    match &exchange["request"] {
        Value::Null => {}
        Value::String(raw) => request = request.body(raw.clone()),
        body => {
            let mut body = names.ours(&body.to_string()).replace("http://127.0.0.1:28700", &server.aws_url);
            if path == "/v1/acl/login" {
                body = server.login(note, &body);
            }
            request = request.body(names.with_secret(path, &body));
        }
    }
    // The call of another client during this blocking query.
    let meanwhile = server.on_busy_step(note);
    let (response, ()) = tokio::join!(request.send(), meanwhile);
    let response = response.unwrap();
    let status = u64::from(response.status().as_u16());
    let headers = response.headers().clone();
    let body = response.text().await.unwrap();
    if Some(status) != exchange["status"].as_u64() {
        return Some(format!("wanted {}, found {status}: {body}", exchange["status"]));
    }
    for (name, exact) in HEADERS {
        let wanted = exchange["headers"]
            .as_object()
            .unwrap()
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        let wanted = wanted.map(|(_, value)| value.as_str().unwrap());
        let found = headers.get(name).map(|value| value.to_str().unwrap());
        let same = if exact { wanted == found } else { wanted.is_some() == found.is_some() };
        if !same {
            return Some(format!("the header {name} is {found:?}, wanted {wanted:?}"));
        }
    }
    if exchange["headers"]["Content-Type"] != "application/json" {
        return None;
    }
    let found: Value = serde_json::from_str(&body).unwrap();
    let wanted = &exchange["response"];
    names.learn(wanted, &found);
    let (wanted, found) = (sorted(normal(wanted)), sorted(normal(&found)));
    (wanted != found).then(|| format!("\n wanted {wanted}\n found  {found}"))
}
