//! Sessions, locks and fenced transactions: a real Consul and the sandbox's give the same responses to the same steps.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ecs_mesh_control_plane::{ControlPlane as _, MeshErrorKind};
use ecs_mesh_controller::{FencingToken, HeldTerm, Lease, LeaseTerm, WriteObstacle};
use ecs_mesh_lease::{HolderId, LeaseRecord, LeaseStore as _, LeaseTiming, LeaseWrite, LeaseWriteKind};
use serde_json::json;

use super::blocking_queries::{StepRunner, runners};
use super::server::{MANAGEMENT, RealConsul, cluster, task};
use crate::lease::{hands_over, lock_store};

at_real_consuls! {
    sandbox_locks_keys_like_a_real_consul(Acls::On)
    lock_elects_a_leader_and_hands_over(Acls::On)
    fence_of_an_ended_session_keeps_the_service(Acls::On)
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

/// The term of a process that does not know that its session has ended.
struct SessionTerm(FencingToken);

impl HeldTerm for SessionTerm {
    fn left(&self) -> Duration {
        Duration::from_mins(1)
    }

    fn fencing_token(&self) -> Option<FencingToken> {
        Some(self.0.clone())
    }
}

struct SessionLease(FencingToken);

impl Lease for SessionLease {
    fn term(&self) -> LeaseTerm {
        LeaseTerm::Held(Arc::new(SessionTerm(self.0.clone())))
    }
}

async fn fence_of_an_ended_session_keeps_the_service(server: &RealConsul) {
    // Sessions need the server's own node.
    runners(server).await;
    let store = lock_store(server.url(), MANAGEMENT);
    let writer = HolderId::recorded("leader");
    let duration = LeaseTiming::default().lease_duration();
    let record = LeaseRecord { holder: Some(writer.clone()), epoch: 1, duration };
    let acquire = LeaseWrite { kind: LeaseWriteKind::Acquire, writer, expected: None, record };
    assert!(store.write(&acquire).await.unwrap().is_some());
    let token = store.fencing_token().unwrap();
    let consul = server.client(Some(MANAGEMENT));
    consul.refresh_capabilities(&BTreeSet::new()).await.unwrap();
    consul.set_lease(Arc::new(SessionLease(token.clone())));

    let anchor = cluster("anchor");
    let [removed, kept] =
        [server.register(&task(&anchor, 1), "web").await, server.register(&task(&anchor, 2), "web").await];
    for id in [&removed, &kept] {
        assert!(consul.get(id).await.unwrap().is_some());
    }
    assert_eq!(consul.delete(&removed).await, Ok(true), "the session has the lock");
    server.put(&format!("/v1/session/destroy/{}", token.holder), &json!({})).await;
    let error = consul.delete(&kept).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Obstructed(WriteObstacle::NotLeader), "{error}");
    assert!(consul.get(&kept).await.unwrap().is_some(), "the service was removed");

    // The same as a plain call: the check fails, and with it the deletion.
    let node = anchor.as_str();
    let service = json!({"ID": format!("web-{}", task(&anchor, 2).id()), "Service": "web"});
    let delete = json!({"Service": {"Verb": "delete", "Node": node, "Service": service}});
    let check = json!({"KV": {"Verb": "check-session", "Key": &*token.lock, "Session": &*token.holder}});
    assert_eq!(server.ask("PUT", "/v1/txn", Some(&json!([delete, check]))).await, None);
    assert!(consul.get(&kept).await.unwrap().is_some(), "the service was removed");
    assert!(server.ask("PUT", "/v1/txn", Some(&json!([delete]))).await.is_some());
    assert_eq!(consul.get(&kept).await.unwrap(), None, "the deletion alone is right");
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
