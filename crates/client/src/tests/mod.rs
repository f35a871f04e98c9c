//! The client against a server that follows the read API.

mod columns;
mod failures;
mod lists;
mod server;
mod texts;
mod watching;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::ApiAddress;
use crate::change_selector::ChangeSelector;
use crate::get::{GetError, GetRequest, get};
use crate::http::{ApiClient, ApiClientSettings};
use crate::output::printer::{ObjectFormat, ObjectPrinter};
use crate::resource::ResourceKind;
use ecs_mesh_clock::Clock;
use ecs_mesh_model::Timestamp;
use server::FakeOperator;

/// Longer than any step of a test takes; a test that waits for what never comes fails.
const PATIENCE: Duration = Duration::from_secs(30);

fn settings(operator: &FakeOperator) -> ApiClientSettings {
    // A process has one provider; a second attempt to set it is no error here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ApiClientSettings {
        address: operator.address().parse::<ApiAddress>().unwrap(),
        token_file: None,
        ca_file: None,
        timeout: PATIENCE,
        seed: 7,
    }
}

fn client(operator: &FakeOperator) -> ApiClient {
    ApiClient::new(settings(operator)).unwrap()
}

fn request(kind: ResourceKind, names: &[&str], query: &[(&str, &str)]) -> GetRequest {
    GetRequest {
        kind,
        names: names.iter().map(ToString::to_string).collect(),
        query: query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        selector: ChangeSelector::default(),
        sort_by: None,
    }
}

fn task_id(number: usize) -> String {
    format!("{number:032x}")
}

fn task(number: usize, state: &str) -> Value {
    let id = task_id(number);
    json!({
        "name": id, "arn": format!("arn:aws:ecs:eu-west-1:111122223333:task/demo/{id}"),
        "cluster": "arn:aws:ecs:eu-west-1:111122223333:cluster/demo", "account": "111122223333", "region": "eu-west-1",
        "state": state, "service": "kv", "workloads": ["kv"], "registrations": [], "warnings": [],
    })
}

fn change(id: u64, kind: &str) -> Value {
    json!({
        "id": id, "time": format!("2026-11-30T01:{:02}:00Z", id % 60), "kind": kind, "object": "registration",
        "service": "kv", "reason": {"key": "declared", "message": "new task"}, "result": "success",
    })
}

/// Standard output of a test: line by line.
#[derive(Clone)]
struct Lines {
    partial: Arc<Mutex<String>>,
    lines: mpsc::UnboundedSender<String>,
}

impl Lines {
    fn new() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (lines, received) = mpsc::unbounded_channel();
        (Self { partial: Arc::default(), lines }, received)
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut partial = self.partial.lock().unwrap();
        partial.push_str(std::str::from_utf8(bytes).unwrap());
        while let Some(end) = partial.find('\n') {
            let line: String = partial.drain(..=end).collect();
            let sent = self.lines.send(line.trim_end().to_owned());
            sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn printer<W: Write>(kind: ResourceKind, format: ObjectFormat, out: W) -> ObjectPrinter<W> {
    let now = Timestamp::parse("2026-11-30T03:00:00Z").unwrap();
    ObjectPrinter::new(kind, format, true, None, Clock::simulated(now), out)
}

async fn printed(
    operator: &FakeOperator,
    request: &GetRequest,
    format: ObjectFormat,
) -> (String, Result<usize, GetError>) {
    let mut out = Vec::new();
    let result = get(&client(operator), request, &mut printer(request.kind, format, &mut out)).await;
    (String::from_utf8(out).unwrap(), result)
}
