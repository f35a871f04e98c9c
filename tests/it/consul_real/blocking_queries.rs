//! Blocking queries: a real Consul and the sandbox's give the same responses to the same steps.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::{MANAGEMENT, RealConsul};
use crate::e2e::harness::eventually;
use crate::identity;

at_real_consuls! {
    sandbox_blocks_queries_like_a_real_consul(Acls::On)
}

async fn sandbox_blocks_queries_like_a_real_consul(server: &RealConsul) {
    let (mut real, mut own) = runners(server).await;
    tokio::join!(waits(&mut real), waits(&mut own));
    for (own, real) in own.records.iter().zip(&real.records) {
        assert_eq!(own, real, "sandbox and real server differ");
    }
    assert_eq!(own.records.len(), real.records.len());
}

/// The real Consul and the sandbox's.
pub(super) async fn runners(server: &RealConsul) -> (StepRunner, StepRunner) {
    let sandbox = identity::empty_consul().await;
    let real = StepRunner::new(server.url(), MANAGEMENT);
    // The server's own node is registered shortly after the start, which would end waits; sessions need it.
    eventually("a server with its own node's check", || async {
        real.send("GET", "/v1/health/service/consul", "").await.body.contains("serfHealth").then_some(())
    })
    .await;
    (real, StepRunner::new(&sandbox.url, identity::MANAGEMENT))
}

/// Reads that time out, and reads that return after a change.
async fn waits(at: &mut StepRunner) {
    const TOKENS: &str = "/v1/acl/tokens";
    const NODE: &str = "/v1/catalog/node-services/anchor";
    let service = |id: &str| {
        let service = json!({"ID": id, "Service": "web", "Port": 9090});
        json!({"Node": "anchor", "Address": "127.0.0.1", "Service": service}).to_string()
    };
    at.step("index is no number", "GET", &format!("{TOKENS}?index=x"), "").await;
    at.step("wait is no duration", "GET", &format!("{TOKENS}?index=1&wait=soon"), "").await;
    for (what, path) in [("tokens", TOKENS), ("a missing node", NODE)] {
        at.wait_times_out(what, path).await;
    }

    at.wait_returns_after("a new token", TOKENS, ("PUT", "/v1/acl/token", "{}")).await;
    at.wait_returns_after("a new node", NODE, ("PUT", "/v1/catalog/register", &service("web-1"))).await;
    at.wait_returns_after("a new service", NODE, ("PUT", "/v1/catalog/register", &service("web-2"))).await;
    at.wait_times_out("a node", NODE).await;
    let gone = json!([{"Service": {"Verb": "delete", "Node": "anchor", "Service": {"ID": "web-1", "Service": "web"}}}]);
    at.wait_returns_after("a removed service", NODE, ("PUT", "/v1/txn", &gone.to_string())).await;
    let gone = r#"{"Node": "anchor", "ServiceID": "web-2"}"#;
    at.wait_returns_after("the last service", NODE, ("PUT", "/v1/catalog/deregister", gone)).await;
}

/// Runs the steps at one Consul and collects the results.
pub(super) struct StepRunner {
    http: reqwest::Client,
    url: String,
    token: String,
    pub(super) records: Vec<String>,
}

struct BlockingQueryResponse {
    status: u16,
    /// 0 without an index.
    index: u64,
    body: String,
}

impl StepRunner {
    fn new(url: &str, token: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, url: url.to_owned(), token: token.to_owned(), records: Vec::new() }
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> impl Future<Output = BlockingQueryResponse> + use<> {
        let request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url));
        let request = request.header("X-Consul-Token", &self.token).body(body.to_owned());
        async move {
            let answer = request.send().await.unwrap();
            let index = answer.headers().get("x-consul-index").map(|index| index.to_str().unwrap());
            let index = index.map_or(0, |index| index.parse().unwrap());
            BlockingQueryResponse {
                status: answer.status().as_u16(),
                index,
                body: answer.text().await.unwrap(),
            }
        }
    }

    fn record(&mut self, what: &str, answer: &BlockingQueryResponse) {
        let has_index = if answer.index > 0 { "with" } else { "without" };
        let shown = shown(answer);
        self.records.push(format!("{what}: {} {has_index} an index: {shown}", answer.status));
    }

    pub(super) async fn step(&mut self, what: &str, method: &str, path: &str, body: &str) {
        let answer = self.send(method, path, body).await;
        self.record(what, &answer);
    }

    /// Creates a session and returns its id.
    pub(super) async fn session(&mut self, body: &Value) -> String {
        let answer = self.send("PUT", "/v1/session/create", &body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let made: Value = serde_json::from_str(&answer.body).unwrap();
        made["ID"].as_str().unwrap().to_owned()
    }

    async fn after(&self, path: &str) -> (u64, String) {
        let index = self.send("GET", path, "").await.index;
        (index, format!("{path}?index={index}"))
    }

    /// Without a change, the response comes at the end of the wait.
    async fn wait_times_out(&mut self, what: &str, path: &str) {
        let (index, path) = self.after(path).await;
        let began = Instant::now();
        let answer = self.send("GET", &format!("{path}&wait=500ms"), "").await;
        assert!(began.elapsed() >= Duration::from_millis(500), "{what}: answered before the wait ended");
        assert_eq!(answer.index, index, "{what}");
        self.record(&format!("{what}, wait timed out"), &answer);
    }

    /// The response comes after this change and not before.
    async fn wait_returns_after(&mut self, what: &str, path: &str, (method, of, body): (&str, &str, &str)) {
        let (index, path) = self.after(path).await;
        let mut waiting = tokio::spawn(self.send("GET", &format!("{path}&wait=2m"), ""));
        let early = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
        assert!(early.is_err(), "{what}: answered before the change");
        assert_eq!(self.send(method, of, body).await.status, 200, "{what}");
        let answer = waiting.await.unwrap();
        assert!(answer.index > index, "{what}: {} after {index}", answer.index);
        self.record(&format!("{what}, wait returned"), &answer);
    }
}

/// A body without values that differ between servers. Nodes and tokens keep only their services and their existence,
/// since other fields depend on the version.
fn shown(answer: &BlockingQueryResponse) -> String {
    if answer.status >= 400 {
        return "an error".to_owned();
    }
    let Ok(body) = serde_json::from_str::<Value>(&answer.body) else { return answer.body.clone() };
    if let Some(services) = body.get("Services") {
        let services = services.as_array().into_iter().flatten();
        return format!("{} services", services.count());
    }
    if body.as_array().is_some_and(|items| items.iter().any(|item| item.get("AccessorID").is_some())) {
        return "tokens".to_owned();
    }
    body.to_string()
}
