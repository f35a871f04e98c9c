//! Sessions, locks and fenced transactions: a real Consul and the sandbox's give the same responses to the same steps.

use serde_json::json;

use super::blocking_queries::{StepRunner, runners};
use super::server::{MANAGEMENT, RealConsul};
use crate::lease::{hands_over, lock_store};

at_real_consuls! {
    sandbox_locks_keys_like_a_real_consul(Acls::On)
    lock_elects_a_leader_and_hands_over(Acls::On)
}

const KEY: &str = "/v1/kv/ecs-mesh/op/lease";
const NO_SESSION: &str = "4fa6e11c-21d1-3462-a316-99515e5544f7";

async fn sandbox_locks_keys_like_a_real_consul(server: &RealConsul) {
    let (mut real, mut own) = runners(server).await;
    tokio::join!(locks(&mut real), locks(&mut own));
    for (own, real) in own.records.iter().zip(&real.records) {
        assert_eq!(own, real, "sandbox and real server differ");
    }
    assert_eq!(own.records.len(), real.records.len());
}

async fn lock_elects_a_leader_and_hands_over(server: &RealConsul) {
    // Sessions need the server's own node.
    runners(server).await;
    let store = || lock_store(server.url(), MANAGEMENT);
    hands_over(store(), store()).await;
}

async fn locks(at: &mut StepRunner) {
    let body = |delay: &str| json!({"TTL": "15000ms", "LockDelay": delay, "Checks": [], "NodeChecks": []});
    let (a, b) = (at.session(&body("0s")).await, at.session(&body("15s")).await);
    let with = |condition: &str, session: &str| format!("{KEY}?{condition}={session}");
    at.step("TTL too short", "PUT", "/v1/session/create", r#"{"TTL": "1s"}"#).await;
    at.step("renew", "PUT", &format!("/v1/session/renew/{NO_SESSION}"), "").await;
    at.step("read a missing key", "GET", &format!("{KEY}?consistent="), "").await;
    at.step("acquire", "PUT", &with("acquire", &a), "one").await;
    at.step("acquire again", "PUT", &with("acquire", &a), "two").await;
    at.step("acquire with another session", "PUT", &with("acquire", &b), "x").await;
    at.step("acquire with a missing session", "PUT", &with("acquire", NO_SESSION), "x").await;
    at.step("release with another session", "PUT", &with("release", &b), "x").await;
    let fence = |session: &str| {
        json!([{"KV": {"Verb": "check-session", "Key": "ecs-mesh/op/lease", "Session": session}}]).to_string()
    };
    at.step("fence of another session", "PUT", "/v1/txn", &fence(&b)).await;
    at.step("write without the lock", "PUT", KEY, "three").await;
    at.step("release", "PUT", &with("release", &a), "four").await;
    at.step("fence of a free lock", "PUT", "/v1/txn", &fence(&a)).await;
    at.step("acquire after the release", "PUT", &with("acquire", &b), "five").await;
    at.step("destroy the session", "PUT", &format!("/v1/session/destroy/{b}"), "").await;
    at.step("destroy a missing session", "PUT", &format!("/v1/session/destroy/{b}"), "").await;
    at.step("acquire within the lock-delay", "PUT", &with("acquire", &a), "six").await;
    at.step("delete", "DELETE", KEY, "").await;
    at.step("delete a missing key", "DELETE", KEY, "").await;
}
