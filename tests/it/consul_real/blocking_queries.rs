//! Sessions, locks and blocking queries: a real Consul and the sandbox's give the same responses to the same steps.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::{MANAGEMENT, RealConsul, UNKNOWN};
use crate::e2e::harness::eventually;
use crate::identity;

at_real_consuls! {
    sandbox_locks_and_waits_like_a_real_consul(Acls::On)
    expired_session_releases_its_locks(Acls::On)
}

async fn sandbox_locks_and_waits_like_a_real_consul(server: &RealConsul) {
    let (mut real, mut own) = runners(server).await;
    let all = async |at: &mut StepRunner| {
        sessions(at).await;
        locks(at).await;
        waits(at).await;
    };
    tokio::join!(all(&mut real), all(&mut own));
    for (own, real) in own.records.iter().zip(&real.records) {
        assert_eq!(own, real, "sandbox and real server differ");
    }
    assert_eq!(own.records.len(), real.records.len());
}

/// About 20 seconds.
async fn expired_session_releases_its_locks(server: &RealConsul) {
    let (mut real, mut own) = runners(server).await;
    let all = async |at: &mut StepRunner| {
        let id =
            at.session("create a session without renewal", &json!({"TTL": "10s", "LockDelay": "0s"})).await;
        at.step("acquire the lock", "PUT", &format!("{LOCK}?acquire={id}"), "one").await;
        let (index, path) = at.after(LOCK).await;
        let answer = at.send("GET", &format!("{path}&wait=2m"), "").await;
        assert!(answer.index > index, "the read was not woken");
        at.record("released at expiry", &answer);
        at.step("expired session", "GET", &format!("/v1/session/info/{id}"), "").await;
    };
    tokio::join!(all(&mut real), all(&mut own));
    assert_eq!(own.records, real.records, "sandbox and real server differ");
}

/// Compares the real Consul with the sandbox's.
async fn runners(server: &RealConsul) -> (StepRunner, StepRunner) {
    let sandbox = identity::empty_consul().await;
    let real = StepRunner::new(server.url(), MANAGEMENT);
    // Sessions need the server's own node, which is registered shortly after the start.
    eventually("a server with its own node's check", || async {
        (real.send("PUT", "/v1/session/create", "{}").await.status == 200).then_some(())
    })
    .await;
    (real, StepRunner::new(&sandbox.url, identity::MANAGEMENT))
}

const MISSING_SESSION: &str = "4fa6e11c-21d1-3462-a316-99515e5544f7";
const LOCK: &str = "/v1/kv/ecs/lock";

async fn sessions(at: &mut StepRunner) {
    const CREATE: &str = "/v1/session/create";
    let lasting = at.session("create a named session", &json!({"Name": "operator", "TTL": "30s"})).await;
    at.step("create with an empty body", "PUT", CREATE, "").await;
    at.step("lock delay as a number", "PUT", CREATE, r#"{"LockDelay": 5}"#).await;
    at.step("TTL too short", "PUT", CREATE, r#"{"TTL": "1s"}"#).await;
    at.step("TTL is no duration", "PUT", CREATE, r#"{"TTL": "soon"}"#).await;
    at.step("unknown behaviour", "PUT", CREATE, r#"{"Behavior": "x"}"#).await;
    at.step("on a missing node", "PUT", CREATE, r#"{"Node": "none"}"#).await;
    at.step("truncated JSON", "PUT", CREATE, r#"{"Na"#).await;
    at.step("wrong method", "POST", CREATE, "{}").await;
    at.step("info", "GET", &format!("/v1/session/info/{lasting}"), "").await;
    at.step("info of a missing session", "GET", &format!("/v1/session/info/{MISSING_SESSION}"), "").await;
    at.step("sessions of a missing node", "GET", "/v1/session/node/none", "").await;
    at.step("renew", "PUT", &format!("/v1/session/renew/{lasting}"), "").await;
    at.step("renew a missing session", "PUT", &format!("/v1/session/renew/{MISSING_SESSION}"), "").await;
    at.step("destroy a missing session", "PUT", &format!("/v1/session/destroy/{MISSING_SESSION}"), "").await;
    let management = std::mem::replace(&mut at.token, UNKNOWN.to_owned());
    at.step("create with an unknown token", "PUT", CREATE, "{}").await;
    at.step("list with an unknown token", "GET", "/v1/session/list", "").await;
    at.token.clone_from(&management);
    at.token = at.token_without_rules().await;
    at.step("create without permission", "PUT", CREATE, "{}").await;
    at.step("list without permission", "GET", "/v1/session/list", "").await;
    at.step("renew without permission", "PUT", &format!("/v1/session/renew/{lasting}"), "").await;
    at.step("destroy without permission", "PUT", &format!("/v1/session/destroy/{lasting}"), "").await;
    at.token = management;
    at.step("destroy", "PUT", &format!("/v1/session/destroy/{lasting}"), "").await;
    at.step("info after destroy", "GET", &format!("/v1/session/info/{lasting}"), "").await;
}

async fn locks(at: &mut StepRunner) {
    let (free, slow) = (json!({"LockDelay": "0s"}), json!({"Behavior": "delete", "LockDelay": "15s"}));
    let (a, b) = (
        at.session("create a session without lock delay", &free).await,
        at.session("create a session with behaviour delete", &slow).await,
    );
    let with = |condition: &str, session: &str| format!("{LOCK}?{condition}={session}");
    at.step("read a missing key", "GET", LOCK, "").await;
    at.step("acquire", "PUT", &with("acquire", &a), "one").await;
    at.step("acquire again", "PUT", &with("acquire", &a), "two").await;
    at.step("acquire with another session", "PUT", &with("acquire", &b), "x").await;
    at.step("acquire with a missing session", "PUT", &with("acquire", MISSING_SESSION), "x").await;
    at.step("acquire without a session", "PUT", &with("acquire", ""), "x").await;
    at.step("read while locked", "GET", LOCK, "").await;
    at.step("read the raw value", "GET", &format!("{LOCK}?raw"), "").await;
    at.step("release with another session", "PUT", &with("release", &b), "x").await;
    at.step("write without the lock", "PUT", LOCK, "three").await;
    at.step("read after the write", "GET", LOCK, "").await;
    at.step("release", "PUT", &with("release", &a), "four").await;
    at.step("read after the release", "GET", LOCK, "").await;
    at.step("acquire with the other session", "PUT", &with("acquire", &b), "five").await;
    at.step("destroy the session", "PUT", &format!("/v1/session/destroy/{b}"), "").await;
    at.step("read after deletion with the session", "GET", LOCK, "").await;
    at.step("acquire within the lock delay", "PUT", &with("acquire", &a), "six").await;
    let other = format!("{LOCK}-2");
    at.step("acquire another key", "PUT", &format!("{other}?acquire={a}"), "seven").await;
    at.step("destroy the session", "PUT", &format!("/v1/session/destroy/{a}"), "").await;
    at.step("read after release with the session", "GET", &other, "").await;
    let c = at.session("create a third session", &free).await;
    at.step("acquire without a delay", "PUT", &format!("{other}?acquire={c}&flags=7"), "eight").await;
    at.step("read with flags", "GET", &other, "").await;
    at.step("create an existing key", "PUT", &format!("{other}?cas=0"), "x").await;
    at.step("cas is no number", "PUT", &format!("{other}?cas=x"), "x").await;
    at.step("cas and acquire", "PUT", &format!("{other}?cas=0&acquire={c}"), "x").await;
    at.step("write without a key", "PUT", "/v1/kv/", "x").await;
    at.step("list keys", "GET", "/v1/kv/ecs?keys", "").await;
    at.step("read recursively", "GET", "/v1/kv/ecs?recurse", "").await;
    at.step("read recursively, no keys", "GET", "/v1/kv/none?recurse", "").await;
    let powerless = at.token_without_rules().await;
    let management = std::mem::replace(&mut at.token, powerless);
    at.step("read without permission", "GET", &other, "").await;
    at.step("write without permission", "PUT", &other, "x").await;
    at.step("read recursively without permission", "GET", "/v1/kv/ecs?recurse", "").await;
    at.token = management;
    at.step("delete with a stale index", "DELETE", &format!("{other}?cas=1"), "").await;
    at.step("delete", "DELETE", &other, "").await;
    at.step("delete a missing key", "DELETE", &other, "").await;
    at.step("read after the delete", "GET", &other, "").await;
}

async fn waits(at: &mut StepRunner) {
    const TOKENS: &str = "/v1/acl/tokens";
    const NODE: &str = "/v1/catalog/node-services/anchor";
    const KEY: &str = "/v1/kv/waited/for";
    let service = |id: &str| {
        let service = json!({"ID": id, "Service": "web", "Port": 9090});
        json!({"Node": "anchor", "Address": "127.0.0.1", "Service": service}).to_string()
    };
    at.step("index is no number", "GET", &format!("{TOKENS}?index=x"), "").await;
    at.step("wait is no duration", "GET", &format!("{TOKENS}?index=1&wait=soon"), "").await;
    for (what, path) in [("tokens", TOKENS), ("a missing node", NODE), ("a missing key", KEY)] {
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

    let id = at.session("create a session that locks", &json!({"LockDelay": "0s"})).await;
    at.wait_returns_after("a new key", KEY, ("PUT", KEY, "one")).await;
    at.wait_returns_after("a lock", KEY, ("PUT", &format!("{KEY}?acquire={id}"), "two")).await;
    at.wait_returns_after("a released lock", KEY, ("PUT", &format!("{KEY}?release={id}"), "three")).await;
    at.wait_times_out("a key", KEY).await;
    at.wait_returns_after("a key below", "/v1/kv/waited/?recurse", ("PUT", "/v1/kv/waited/too", "four"))
        .await;
    at.wait_returns_after("a deleted key", KEY, ("DELETE", KEY, "")).await;
    at.wait_returns_after("a session", "/v1/session/list", ("PUT", "/v1/session/create", "{}")).await;
    let end = format!("/v1/session/destroy/{id}");
    at.wait_returns_after("a destroyed session", "/v1/session/list", ("PUT", &end, "")).await;
}

/// Runs the steps at one Consul and collects the results.
struct StepRunner {
    http: reqwest::Client,
    url: String,
    token: String,
    records: Vec<String>,
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

    async fn step(&mut self, what: &str, method: &str, path: &str, body: &str) {
        let answer = self.send(method, path, body).await;
        self.record(what, &answer);
    }

    /// Creates a session and returns its id.
    async fn session(&mut self, what: &str, body: &Value) -> String {
        let answer = self.send("PUT", "/v1/session/create", &body.to_string()).await;
        self.record(what, &answer);
        let made: Value = serde_json::from_str(&answer.body).unwrap();
        made["ID"].as_str().unwrap().to_owned()
    }

    async fn token_without_rules(&self) -> String {
        let made = self.send("PUT", "/v1/acl/token", "{}").await.body;
        serde_json::from_str::<Value>(&made).unwrap()["SecretID"].as_str().unwrap().to_owned()
    }

    async fn after(&self, path: &str) -> (u64, String) {
        let index = self.send("GET", path, "").await.index;
        let more = if path.contains('?') { '&' } else { '?' };
        (index, format!("{path}{more}index={index}"))
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
    let Ok(mut body) = serde_json::from_str::<Value>(&answer.body) else { return answer.body.clone() };
    if let Some(services) = body.get("Services") {
        let services = services.as_array().into_iter().flatten();
        return format!("{} services", services.count());
    }
    if body.as_array().is_some_and(|items| items.iter().any(|item| item.get("AccessorID").is_some())) {
        return "tokens".to_owned();
    }
    let items = match &mut body {
        Value::Array(items) => items.as_mut_slice(),
        one => std::slice::from_mut(one),
    };
    for item in items {
        for name in ["ID", "Session", "Node", "CreateIndex", "ModifyIndex"] {
            if let Some(value) = item.get_mut(name) {
                *value = "some".into();
            }
        }
    }
    // Sessions are in the order of their ids, and the real server has one more.
    if let Value::Array(items) = &mut body {
        items.sort_by_key(Value::to_string);
        items.dedup();
    }
    body.to_string()
}
