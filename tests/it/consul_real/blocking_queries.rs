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
    for (own, real) in own.stops_delivered.iter().zip(&real.stops_delivered) {
        assert_eq!(own, real, "the sandbox's, and the real one's");
    }
    assert_eq!(own.stops_delivered.len(), real.stops_delivered.len());
}

/// About 20 seconds.
async fn expired_session_releases_its_locks(server: &RealConsul) {
    let (mut real, mut own) = runners(server).await;
    let all = async |at: &mut StepRunner| {
        let id = at.session("one that nobody renews", &json!({"TTL": "10s", "LockDelay": "0s"})).await;
        at.step("it locks", "PUT", &format!("{LOCK}?acquire={id}"), "one").await;
        let (index, path) = at.after(LOCK).await;
        let answer = at.send("GET", &format!("{path}&wait=2m"), "").await;
        assert!(answer.index > index, "not woken");
        at.record("it lets go", &answer);
        at.step("it is over", "GET", &format!("/v1/session/info/{id}"), "").await;
    };
    tokio::join!(all(&mut real), all(&mut own));
    assert_eq!(own.stops_delivered, real.stops_delivered, "the sandbox's, and the real one's");
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
    let lasting = at.session("one with a name", &json!({"Name": "operator", "TTL": "30s"})).await;
    at.step("one of nothing", "PUT", CREATE, "").await;
    at.step("a lock delay in seconds", "PUT", CREATE, r#"{"LockDelay": 5}"#).await;
    at.step("too short", "PUT", CREATE, r#"{"TTL": "1s"}"#).await;
    at.step("no duration", "PUT", CREATE, r#"{"TTL": "soon"}"#).await;
    at.step("an unknown behaviour", "PUT", CREATE, r#"{"Behavior": "x"}"#).await;
    at.step("on no node", "PUT", CREATE, r#"{"Node": "none"}"#).await;
    at.step("cut off", "PUT", CREATE, r#"{"Na"#).await;
    at.step("by a wrong method", "POST", CREATE, "{}").await;
    at.step("read", "GET", &format!("/v1/session/info/{lasting}"), "").await;
    at.step("a missing session, read", "GET", &format!("/v1/session/info/{MISSING_SESSION}"), "").await;
    at.step("of no node", "GET", "/v1/session/node/none", "").await;
    at.step("renewed", "PUT", &format!("/v1/session/renew/{lasting}"), "").await;
    at.step("a missing session, renewed", "PUT", &format!("/v1/session/renew/{MISSING_SESSION}"), "").await;
    at.step("a missing session, ended", "PUT", &format!("/v1/session/destroy/{MISSING_SESSION}"), "").await;
    let management = std::mem::replace(&mut at.token, UNKNOWN.to_owned());
    at.step("by an unknown token", "PUT", CREATE, "{}").await;
    at.step("read by an unknown token", "GET", "/v1/session/list", "").await;
    at.token.clone_from(&management);
    at.token = at.token_without_rules().await;
    at.step("by a token that may not", "PUT", CREATE, "{}").await;
    at.step("what it may see", "GET", "/v1/session/list", "").await;
    at.step("renewed by it", "PUT", &format!("/v1/session/renew/{lasting}"), "").await;
    at.step("ended by it", "PUT", &format!("/v1/session/destroy/{lasting}"), "").await;
    at.token = management;
    at.step("ended", "PUT", &format!("/v1/session/destroy/{lasting}"), "").await;
    at.step("read again", "GET", &format!("/v1/session/info/{lasting}"), "").await;
}

async fn locks(at: &mut StepRunner) {
    let (free, slow) = (json!({"LockDelay": "0s"}), json!({"Behavior": "delete", "LockDelay": "15s"}));
    let (a, b) =
        (at.session("one without a delay", &free).await, at.session("one that deletes", &slow).await);
    let with = |condition: &str, session: &str| format!("{LOCK}?{condition}={session}");
    at.step("not there", "GET", LOCK, "").await;
    at.step("locked", "PUT", &with("acquire", &a), "one").await;
    at.step("locked again", "PUT", &with("acquire", &a), "two").await;
    at.step("locked by another", "PUT", &with("acquire", &b), "x").await;
    at.step("locked by a missing session", "PUT", &with("acquire", MISSING_SESSION), "x").await;
    at.step("locked by no session", "PUT", &with("acquire", ""), "x").await;
    at.step("as it is locked", "GET", LOCK, "").await;
    at.step("its value", "GET", &format!("{LOCK}?raw"), "").await;
    at.step("let go by another", "PUT", &with("release", &b), "x").await;
    at.step("written without the lock", "PUT", LOCK, "three").await;
    at.step("still locked", "GET", LOCK, "").await;
    at.step("let go", "PUT", &with("release", &a), "four").await;
    at.step("as it was let go", "GET", LOCK, "").await;
    at.step("locked by the other", "PUT", &with("acquire", &b), "five").await;
    at.step("its session ends", "PUT", &format!("/v1/session/destroy/{b}"), "").await;
    at.step("deleted with it", "GET", LOCK, "").await;
    at.step("locked too soon", "PUT", &with("acquire", &a), "six").await;
    let other = format!("{LOCK}-2");
    at.step("another, locked", "PUT", &format!("{other}?acquire={a}"), "seven").await;
    at.step("its session ends", "PUT", &format!("/v1/session/destroy/{a}"), "").await;
    at.step("let go with it", "GET", &other, "").await;
    let c = at.session("one more", &free).await;
    at.step("locked at once", "PUT", &format!("{other}?acquire={c}&flags=7"), "eight").await;
    at.step("as it is locked then", "GET", &other, "").await;
    at.step("made when it is there", "PUT", &format!("{other}?cas=0"), "x").await;
    at.step("with no number", "PUT", &format!("{other}?cas=x"), "x").await;
    at.step("with two conditions", "PUT", &format!("{other}?cas=0&acquire={c}"), "x").await;
    at.step("without a name", "PUT", "/v1/kv/", "x").await;
    at.step("all names", "GET", "/v1/kv/ecs?keys", "").await;
    at.step("all below", "GET", "/v1/kv/ecs?recurse", "").await;
    at.step("none below", "GET", "/v1/kv/none?recurse", "").await;
    let powerless = at.token_without_rules().await;
    let management = std::mem::replace(&mut at.token, powerless);
    at.step("read without permission", "GET", &other, "").await;
    at.step("written without permission", "PUT", &other, "x").await;
    at.step("listed without permission", "GET", "/v1/kv/ecs?recurse", "").await;
    at.token = management;
    at.step("deleted when it was otherwise", "DELETE", &format!("{other}?cas=1"), "").await;
    at.step("deleted", "DELETE", &other, "").await;
    at.step("deleted, though gone", "DELETE", &other, "").await;
    at.step("gone", "GET", &other, "").await;
}

async fn waits(at: &mut StepRunner) {
    const TOKENS: &str = "/v1/acl/tokens";
    const NODE: &str = "/v1/catalog/node-services/anchor";
    const KEY: &str = "/v1/kv/waited/for";
    let service = |id: &str| {
        let service = json!({"ID": id, "Service": "web", "Port": 9090});
        json!({"Node": "anchor", "Address": "127.0.0.1", "Service": service}).to_string()
    };
    at.step("no index", "GET", &format!("{TOKENS}?index=x"), "").await;
    at.step("no duration", "GET", &format!("{TOKENS}?index=1&wait=soon"), "").await;
    for (what, path) in [("tokens", TOKENS), ("a node that is not there", NODE), ("no such key", KEY)] {
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

    let id = at.session("one that locks", &json!({"LockDelay": "0s"})).await;
    at.wait_returns_after("a new key", KEY, ("PUT", KEY, "one")).await;
    at.wait_returns_after("a lock", KEY, ("PUT", &format!("{KEY}?acquire={id}"), "two")).await;
    at.wait_returns_after("what was let go", KEY, ("PUT", &format!("{KEY}?release={id}"), "three")).await;
    at.wait_times_out("a key", KEY).await;
    at.wait_returns_after("a key below", "/v1/kv/waited/?recurse", ("PUT", "/v1/kv/waited/too", "four"))
        .await;
    at.wait_returns_after("a key that goes", KEY, ("DELETE", KEY, "")).await;
    at.wait_returns_after("a session", "/v1/session/list", ("PUT", "/v1/session/create", "{}")).await;
    let end = format!("/v1/session/destroy/{id}");
    at.wait_returns_after("a session that ends", "/v1/session/list", ("PUT", &end, "")).await;
}

/// Runs the steps at one Consul and collects the results.
struct StepRunner {
    http: reqwest::Client,
    url: String,
    token: String,
    stops_delivered: Vec<String>,
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
        Self { http, url: url.to_owned(), token: token.to_owned(), stops_delivered: Vec::new() }
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
        self.stops_delivered.push(format!("{what}: {} {has_index} an index: {shown}", answer.status));
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
        assert!(began.elapsed() >= Duration::from_millis(500), "{what}: answered before its time was over");
        assert_eq!(answer.index, index, "{what}");
        self.record(&format!("{what}, waited for in vain"), &answer);
    }

    /// The response comes after this change and not before.
    async fn wait_returns_after(&mut self, what: &str, path: &str, (method, of, body): (&str, &str, &str)) {
        let (index, path) = self.after(path).await;
        let mut waiting = tokio::spawn(self.send("GET", &format!("{path}&wait=2m"), ""));
        let early = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
        assert!(early.is_err(), "{what}: answered before anything happened");
        assert_eq!(self.send(method, of, body).await.status, 200, "{what}");
        let answer = waiting.await.unwrap();
        assert!(answer.index > index, "{what}: {} after {index}", answer.index);
        self.record(&format!("{what}, waited for"), &answer);
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
