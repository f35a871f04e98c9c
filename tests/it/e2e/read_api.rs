//! The read API of a running operator, over the wire.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Command;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::consul_harness::{ConsulHarness, TAG};
use super::harness::{Harness, OperatorProcess, eventually, tag};
use super::read_api_access::address;

/// No part of an answer is enough: its end is.
pub(super) fn is_whole(_: &str) -> bool {
    false
}

/// Sends a request, and reads until the end of the answer or until `is_enough` of it.
async fn get(address: &str, path: &str, is_enough: impl Fn(&str) -> bool) -> String {
    get_with(address, path, "", is_enough).await
}

/// The same with further lines of the head.
pub(super) async fn get_with(
    address: &str,
    path: &str,
    lines: &str,
    is_enough: impl Fn(&str) -> bool,
) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
        }
        if is_enough(&String::from_utf8_lossy(&answer)) {
            break;
        }
    }
    String::from_utf8(answer).unwrap()
}

async fn json(address: &str, path: &str) -> Value {
    let answer = get(address, path, is_whole).await;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
}

/// The address in the first lines of the sandbox's output: that of the page, whose URL ends with a slash.
async fn address_of(sandbox: &OperatorProcess) -> String {
    eventually("the address of the page", || async {
        let text = sandbox.stdout();
        let mut urls = text.split("http://").skip(1).filter_map(|rest| rest.split_whitespace().next());
        urls.find_map(|url| url.strip_suffix('/')).map(str::to_owned)
    })
    .await
}

/// The events of a stream, as the schema names their data.
fn events(text: &str) -> Vec<(String, Value)> {
    let blocks = text.split("\n\n").filter_map(|block| {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        Some((field("event: ")?.to_owned(), serde_json::from_str(field("data: ")?).ok()?))
    });
    blocks.filter(|(name, _)| name != "reset").collect()
}

/// Validates answers and events against the published schema, if a validator is installed.
fn assert_fits_schema(answers: &[Value], events: &[(String, Value)]) {
    let Some(python) = std::env::var_os("SCHEMA_TEST_PYTHON") else {
        let error = "SCHEMA_TEST_PYTHON does not name a Python with jsonschema";
        let _ = writeln!(std::io::stderr(), "skipped: validation of answers against their schema: {error}");
        return;
    };
    let program = "import json, sys, jsonschema\n\
                   data = json.load(open(sys.argv[1])); schema = json.load(open(sys.argv[2]))\n\
                   for one in data['answers']:\n    \
                   jsonschema.validate(one, {**schema, 'oneOf': [{'$ref': '#/$defs/' + one['kind']}]})\n\
                   for name, one in data['events']:\n    \
                   jsonschema.validate(one, {'$defs': schema['$defs'], '$ref': '#/$defs/Event.' + name})";
    let file = tempfile::NamedTempFile::new().unwrap();
    let data = json!({"answers": answers, "events": events});
    std::fs::write(file.path(), data.to_string()).unwrap();
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/api.schema.json");
    let validated = Command::new(python).args(["-c", program]).arg(file.path()).arg(schema).output().unwrap();
    assert!(validated.status.success(), "{}", String::from_utf8_lossy(&validated.stderr));
}

#[tokio::test]
async fn answers_of_a_running_operator_fit_the_schema() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["sandbox", "--duration", "40s", "--tasks", "30", "--seed", "5"];
    let environment = BTreeMap::from([("ECS_MESH_SANDBOX_API_ADDRESS".to_owned(), "127.0.0.1:0".to_owned())]);
    let sandbox = OperatorProcess::start(directory.path(), "sandbox", &environment, &arguments);
    let address = address_of(&sandbox).await;
    let has_all = |text: &str| {
        ["status", "change", "tasks"].iter().all(|name| {
            // The last event may be cut off.
            text.rsplit_once("\n\n")
                .is_some_and(|(complete, _)| complete.contains(&format!("event: {name}\n")))
        })
    };
    let stream = get(&address, "/api/v1/stream", has_all).await;
    assert!(has_all(&stream), "{stream}");
    let events = events(&stream);
    let mut answers = Vec::new();
    for path in [
        "status",
        "topology",
        "tasks?limit=1000&all=true",
        "tasks?state=registered",
        "services",
        "bindings",
        "identities",
        "outbounds",
        "warnings",
        "changes?since=1h&limit=1000",
        "tasks?limit=0",
        "pods",
    ] {
        answers.push(json(&address, &format!("/api/v1/{path}")).await);
    }
    let registered = answers[3]["items"][0].clone();
    let name = registered["name"].as_str().expect("a task is registered").to_owned();
    assert_eq!(registered["registrations"][0]["kind"], "dataplane", "{registered}");
    let detail = json(&address, &format!("/api/v1/tasks/{name}")).await;
    assert!(detail["verdict"][0]["text"].as_str().unwrap().contains("as desired"), "{detail}");
    assert_eq!(detail["history"][0]["kind"], "create", "{detail}");
    let stored = json(&address, &format!("/api/v1/tasks/{name}/registrations")).await;
    assert!(stored["registrations"][0]["body"]["networking"].is_object(), "{stored}");
    let service = &answers[4]["items"][0];
    let path = format!(
        "/api/v1/services/{}/{}/{}",
        service["controlPlane"].as_str().unwrap(),
        service["mesh"].as_str().unwrap(),
        service["name"].as_str().unwrap()
    );
    let of_service = json(&address, &path).await;
    assert_eq!(of_service["name"], service["name"]);
    assert!(!answers[1]["edges"].as_array().unwrap().is_empty(), "{}", answers[1]);
    assert!(answers[9]["total"].as_u64().unwrap() > 0, "{}", answers[9]);
    answers.extend([detail, stored, of_service]);
    assert_fits_schema(&answers, &events);
}

/// The events of a stream until one of this name, in a task of its own.
fn stream_until(address: &str, last: &'static str) -> tokio::task::JoinHandle<Vec<(String, Value)>> {
    let address = address.to_owned();
    tokio::spawn(async move {
        let has_it = |text: &str| {
            let complete = text.rsplit_once("\n\n").map_or("", |(complete, _)| complete);
            complete.contains(&format!("event: {last}\n"))
        };
        events(&get(&address, "/api/v1/stream", has_it).await)
    })
}

fn of_name<'a>(events: &'a [(String, Value)], name: &str) -> &'a Value {
    let found = events.iter().find(|(of, _)| of == name);
    &found.unwrap_or_else(|| panic!("{name}: {events:#?}")).1
}

/// Waits until a list has an item that fits.
async fn item(address: &str, list: &str, fits: impl Fn(&Value) -> bool) -> Value {
    eventually(list, || async {
        let answer = json(address, &format!("/api/v1/{list}")).await;
        answer["items"].as_array().unwrap().iter().find(|item| fits(item)).cloned()
    })
    .await
}

#[tokio::test]
async fn warning_and_its_end_fit_the_schema() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &harness.base_manifests());
    let wrong = tag("kuma.io/service", "another");
    harness
        .role_with("app", &[tag("kuma.io/type", "dataplane"), tag("kuma.io/mesh", "default"), wrong])
        .await;
    harness.define("app").await;
    harness.serve("sandbox", "app", 1).await;
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let operator = harness.operator(&["--queue-url", &queue, "--api-address", "127.0.0.1:0"]);
    let address = address(&operator).await;
    let stream = stream_until(&address, "resolved");
    let listed = item(&address, "warnings", |item| item["reason"] == "rejected").await;
    let held = json(&address, "/api/v1/tasks?state=rejected").await;
    let status = json(&address, "/api/v1/status").await;
    harness.iam().tag_role().role_name("app-task").tags(tag("kuma.io/service", "app")).send().await.unwrap();
    let events = stream.await.unwrap();
    let (warning, end) = (of_name(&events, "warning"), of_name(&events, "resolved"));
    assert_eq!((&warning["reason"], &end["reason"]), (&json!("rejected"), &json!("rejected")));
    let task = listed["examples"][0].as_str().unwrap();
    assert_eq!((&warning["examples"][0], &listed["tasks"]), (&json!(task), &json!(1)), "{listed}");
    assert!(end["task"].as_str().unwrap().ends_with(task), "{end}");
    assert!(warning["fix"].as_str().unwrap().contains("--role-name app-task"), "{warning}");
    let after = json(&address, "/api/v1/warnings").await;
    let changes = json(&address, "/api/v1/changes?warnings=true").await;
    let kinds: Vec<&str> =
        changes["items"].as_array().unwrap().iter().filter_map(|item| item["kind"].as_str()).collect();
    assert!(kinds.contains(&"warning") && kinds.contains(&"resolved"), "{changes}");
    assert_fits_schema(&[held, status, after, changes], &events);
}

#[tokio::test]
async fn answers_about_consul_fit_the_schema() {
    let consul = ConsulHarness::start().await;
    consul.0.manifest("all.yaml", &consul.manifests(", roleTags: {recheck: 1m}"));
    let ids = consul.deploy("web", 2).await;
    let (alive, dead) = (consul.join("web", &ids[0]).await, consul.join("web", &ids[1]).await);
    let queue = consul.0.variable("ECS_MESH_QUEUE_URL").to_owned();
    let operator = consul.0.operator(&["--queue-url", &queue, "--api-address", "127.0.0.1:0"]);
    operator.wait_for_sweep(true).await;
    let address = address(&operator).await;
    let identity = |item: &Value| item.to_string().contains(&alive.accessor);
    item(&address, "identities", identity).await;
    let stream = stream_until(&address, "resolved");
    consul.stop(&dead.id).await;
    consul.wait_until_gone(&dead).await;
    consul.0.iam().untag_role().role_name("web-task").tag_keys(TAG).send().await.unwrap();
    let warning = item(&address, "warnings", |item| item["reason"] == "rejected").await;
    assert!(warning.to_string().contains(TAG), "{warning}");
    let mut answers = Vec::new();
    for path in [
        "status",
        "topology",
        "services",
        "bindings",
        "identities",
        "outbounds",
        "warnings",
        "tasks?all=true",
    ] {
        answers.push(json(&address, &format!("/api/v1/{path}")).await);
    }
    let task = json(&address, &format!("/api/v1/tasks/{}", alive.id)).await;
    let stored = json(&address, &format!("/api/v1/tasks/{}/registrations", alive.id)).await;
    consul.0.iam().tag_role().role_name("web-task").tags(tag(TAG, "web")).send().await.unwrap();
    let events = stream.await.unwrap();
    let removed: Vec<&Value> = events
        .iter()
        .filter(|(name, data)| name == "change" && data["kind"] == "remove")
        .map(|(_, data)| data)
        .collect();
    assert!(removed.iter().any(|data| data.to_string().contains(&dead.accessor)), "{events:#?}");
    assert_eq!(of_name(&events, "resolved")["reason"], "rejected");
    let kinds: Vec<&str> =
        task["registrations"].as_array().unwrap().iter().filter_map(|one| one["kind"].as_str()).collect();
    assert!(kinds.contains(&"token") && kinds.contains(&"catalogService"), "{task}");
    answers.extend([task, stored, json(&address, "/api/v1/changes").await]);
    assert_fits_schema(&answers, &events);
}
