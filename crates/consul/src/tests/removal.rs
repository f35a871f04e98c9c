use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use ecs_mesh_control_plane::{ControlPlane, MeshErrorKind};
use ecs_mesh_controller::{FencingToken, HeldTerm, Lease, LeaseTerm, WriteObstacle};

fn done() -> ScriptedResult {
    responds(200, &json!({"Results": [], "Errors": null}))
}

/// A transaction that was rolled back because of these operations.
fn rolled_back(errors: &[(usize, &str)]) -> ScriptedResult {
    let errors: Vec<Value> = errors.iter().map(|(at, what)| json!({"OpIndex": at, "What": what})).collect();
    responds(409, &json!({"Results": null, "Errors": errors}))
}

type Consul = Arc<ConsulControlPlane<Arc<ScriptedConsulTransport>>>;

/// Reads these services, as a reconcile does before a removal, and removes them concurrently.
async fn remove(consul: &Consul, names: &[&str]) -> Vec<Result<bool, MeshErrorKind>> {
    let each = |name: &str, remove: bool| {
        let (consul, id) = (consul.clone(), service_id(name));
        tokio::spawn(async move {
            if remove { consul.delete(&id).await } else { consul.get(&id).await.map(|read| read.is_some()) }
        })
    };
    for read in names.iter().map(|name| each(name, false)).collect::<Vec<_>>() {
        assert!(read.await.unwrap().unwrap());
    }
    let mut results = Vec::new();
    for removal in names.iter().map(|name| each(name, true)).collect::<Vec<_>>() {
        results.push(removal.await.unwrap().map_err(|error| error.kind));
    }
    results
}

/// The operations of a transaction.
fn operations(script: &ScriptedConsulTransport, call: usize) -> Vec<(String, u64)> {
    let body = script.body(call);
    let operations = body.as_array().unwrap().iter().map(|operation| {
        let operation = &operation["Service"];
        assert_eq!([&operation["Verb"], &operation["Node"]], ["delete-cas", CLUSTER]);
        assert_eq!(operation["Service"]["Service"], "web");
        let service = &operation["Service"];
        (service["ID"].as_str().unwrap().to_owned(), service["ModifyIndex"].as_u64().unwrap())
    });
    operations.collect()
}

fn operation(number: u32, index: u64) -> (String, u64) {
    (format!("web-{number}"), index)
}

#[tokio::test(start_paused = true)]
async fn services_are_removed_in_one_cas_transaction() {
    let four = [service(1, 7), service(2, 8), service(3, 9), service(4, 10)];
    let script = ScriptedConsulTransport::of(vec![services(&four), done()]);
    let consul = Arc::new(consul(&script));
    assert_eq!(remove(&consul, &["web-1", "web-2", "web-3", "web-4"]).await, [Ok(true); 4]);
    assert_eq!(script.calls()[1..], [TXN]);
    assert_eq!(operations(&script, 1), [operation(1, 7), operation(2, 8), operation(3, 9), operation(4, 10)]);
}

#[tokio::test(start_paused = true)]
async fn reregistered_service_is_not_removed() {
    let script = ScriptedConsulTransport::of(vec![
        services(&[service(1, 7), service(2, 8), service(3, 9)]),
        rolled_back(&[(1, "failed to delete service, index is stale")]),
        services(&[service(2, 99)]),
        done(),
    ]);
    let consul = Arc::new(consul(&script));
    let results = remove(&consul, &["web-1", "web-2", "web-3"]).await;
    assert_eq!(results, [Ok(true), Err(MeshErrorKind::Conflict), Ok(true)]);
    assert_eq!(operations(&script, 3), [operation(1, 7), operation(3, 9)]);
}

#[tokio::test(start_paused = true)]
async fn removal_reports_missing_and_forbidden_services() {
    let script = ScriptedConsulTransport::of(vec![
        services(&[service(1, 7), service(2, 8), service(3, 9)]),
        rolled_back(&[(0, "failed to delete service, index is stale"), (2, "Permission denied")]),
        no_node(),
        known_token(),
        rolled_back(&[(0, "Permission denied")]),
    ]);
    let consul = Arc::new(consul(&script));
    let results = remove(&consul, &["web-1", "web-2", "web-3"]).await;
    assert_eq!(results, [Ok(false), Err(MeshErrorKind::Forbidden), Err(MeshErrorKind::Forbidden)]);
}

#[tokio::test(start_paused = true)]
async fn stale_service_is_read_before_removal() {
    let script =
        ScriptedConsulTransport::of(vec![services(&[service(1, 7)]), services(&[service(1, 8)]), done()]);
    let consul = consul(&script);
    consul.get(&service_id("web-1")).await.unwrap();
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(consul.delete(&service_id("web-1")).await.unwrap());
    assert_eq!(operations(&script, 2), [operation(1, 8)]);
    let script = ScriptedConsulTransport::of(vec![no_node(), known_token()]);
    assert!(!super::consul(&script).delete(&service_id("web-1")).await.unwrap());
    let script = ScriptedConsulTransport::of(vec![no_node(), unknown_token()]);
    let error = super::consul(&script).delete(&service_id("web-1")).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Forbidden, "{error}");
}

#[tokio::test(start_paused = true)]
async fn service_with_new_owner_is_not_removed() {
    let mut by_hand = service(1, 8);
    by_hand["Meta"] = json!({});
    let mut of_another = service(1, 8);
    of_another["Meta"] = service(2, 8)["Meta"].clone();
    for now in [by_hand, of_another] {
        let script = ScriptedConsulTransport::of(vec![services(&[service(1, 7)]), services(&[now])]);
        let consul = consul(&script);
        consul.get(&service_id("web-1")).await.unwrap();
        tokio::time::advance(Duration::from_secs(61)).await;
        let error = consul.delete(&service_id("web-1")).await.unwrap_err();
        assert_eq!(error.kind, MeshErrorKind::Conflict, "{error}");
        assert_eq!(script.calls().len(), 2, "nothing was sent");
    }
}

#[tokio::test(start_paused = true)]
async fn service_of_unchecked_owner_is_not_removed() {
    let script = ScriptedConsulTransport::of(vec![services(&[service(1, 7)])]);
    let error = consul(&script).delete(&service_id("web-1")).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Conflict, "{error}");
}

#[tokio::test(start_paused = true)]
async fn rejected_transaction_is_split_into_single_removals() {
    let script = ScriptedConsulTransport::of(vec![
        services(&[service(1, 7), service(2, 8), service(3, 9)]),
        text(500, "it is refused"),
        done(),
        text(500, "it is refused"),
        done(),
    ]);
    let consul = Arc::new(consul(&script));
    let results = remove(&consul, &["web-1", "web-2", "web-3"]).await;
    // The error may be temporary: a removal has no body that could be invalid.
    assert_eq!(results, [Ok(true), Err(MeshErrorKind::ServerError), Ok(true)]);
}

#[tokio::test(start_paused = true)]
async fn unreachable_server_fails_batch_after_one_call() {
    let script = ScriptedConsulTransport::of(vec![
        services(&[service(1, 7), service(2, 8), service(3, 9)]),
        text(500, "No cluster leader"),
    ]);
    let consul = Arc::new(consul(&script));
    let results = remove(&consul, &["web-1", "web-2", "web-3"]).await;
    let unreachable = Err(MeshErrorKind::Unreachable);
    assert_eq!(results, [unreachable; 3]);
}

#[tokio::test(start_paused = true)]
async fn hung_server_stops_single_removals() {
    let script = ScriptedConsulTransport::of(vec![
        services(&[service(1, 7), service(2, 8), service(3, 9)]),
        text(500, "it is refused"),
        done(),
        unreachable_server(),
    ]);
    let consul = Arc::new(consul(&script));
    let results = remove(&consul, &["web-1", "web-2", "web-3"]).await;
    let unreachable = Err(MeshErrorKind::Unreachable);
    assert_eq!(results, [Ok(true), unreachable, unreachable]);
}

#[tokio::test(start_paused = true)]
async fn services_are_removed_singly_without_transactions() {
    let script = ScriptedConsulTransport::of(vec![
        services(&[service(1, 7)]),
        text(404, "Invalid URL path: not a recognized HTTP API endpoint"),
        services(&[service(1, 7)]),
        responds(200, &json!(true)),
        services(&[service(1, 7)]),
        text(404, "Invalid URL path: not a recognized HTTP API endpoint"),
        services(&[service(1, 99)]),
    ]);
    let consul = Arc::new(consul(&script));
    assert_eq!(remove(&consul, &["web-1"]).await, [Ok(true)]);
    assert_eq!(script.calls()[3], "PUT /v1/catalog/deregister");
    assert_eq!(script.body(3), json!({"Node": CLUSTER, "ServiceID": "web-1"}));
    assert_eq!(remove(&consul, &["web-1"]).await, [Err(MeshErrorKind::Conflict)]);
}

#[tokio::test(start_paused = true)]
async fn transaction_size_follows_server_version() {
    let of_version = |version: &str| responds(200, &json!({"Config": {"Version": version}}));
    for (reported, sizes) in [
        (vec![of_version("1.14.0"), known_token()], vec![128, 72]),
        (vec![of_version("1.13.9"), known_token()], vec![64, 64, 64, 8]),
        // The token may not read the agent; the servers have a leader.
        (
            vec![
                unknown_token(),
                responds(200, &json!("10.0.0.1:8300")),
                text(404, "Invalid URL path"),
                known_token(),
            ],
            vec![64, 64, 64, 8],
        ),
    ] {
        let all: Vec<Value> = (1..=200).map(|number| service(number, 7)).collect();
        let before = reported.len() + 1;
        let script =
            ScriptedConsulTransport::of([reported, vec![services(&all)], vec![done(); sizes.len()]].concat());
        let consul = Arc::new(consul(&script));
        consul.refresh_capabilities(&BTreeSet::new()).await.unwrap();
        let names: Vec<String> = (1..=200).map(|number| format!("web-{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(remove(&consul, &names).await, [Ok(true); 200]);
        let sent = before..script.calls().len();
        assert_eq!(sent.map(|call| operations(&script, call).len()).collect::<Vec<_>>(), sizes);
    }
}

#[tokio::test(start_paused = true)]
async fn token_removal_404_is_confirmed_by_a_list() {
    let missing = || text(404, "Cannot find token to delete");
    let script = ScriptedConsulTransport::of(vec![
        responds(200, &json!(true)),
        missing(),
        tokens(&[token(3)]),
        // The own token was unknown for a moment, and this token exists.
        missing(),
        tokens(&[token(3)]),
    ]);
    let consul_1 = consul(&script);
    let mut results = Vec::new();
    for number in 1..=3 {
        results.push(consul_1.delete(&token_id(number)).await.map_err(|error| error.kind));
    }
    assert_eq!(results, [Ok(true), Ok(false), Err(MeshErrorKind::Conflict)]);
    // The owner may have changed, so the removal is never repeated.
    let removed = script.calls().iter().filter(|call| call.starts_with("DELETE")).count();
    assert_eq!(removed, 3);
    assert_eq!(script.calls()[0], format!("DELETE /v1/acl/token/{}", accessor(1)));
    for (responses, words) in [
        (vec![missing(), unknown_token()], "tokenFile"),
        (vec![text(403, "Permission denied")], "acl = \"write\""),
        (vec![text(404, "<html>not here</html>")], "spec.consul.address"),
    ] {
        let error = consul(&ScriptedConsulTransport::of(responses)).delete(&token_id(1)).await.unwrap_err();
        assert!(error.kind == MeshErrorKind::Forbidden || words == "spec.consul.address", "{error}");
        assert!(error.message.contains(words), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn rejected_token_removal_is_an_error() {
    let rejected = text(500, "Delete operation not permitted");
    let error = consul(&ScriptedConsulTransport::of(vec![rejected])).delete(&token_id(1)).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Invalid, "{error}");
}

#[tokio::test(start_paused = true)]
async fn removal_error_is_retried_unless_permanent() {
    for (words, kind) in [
        ("Deletion of the request's authorization token is not permitted", MeshErrorKind::Invalid),
        ("leadership transfer in progress", MeshErrorKind::Unreachable),
        ("an unknown error", MeshErrorKind::ServerError),
    ] {
        let script = ScriptedConsulTransport::of(vec![text(500, words)]);
        assert_eq!(consul(&script).delete(&token_id(1)).await.unwrap_err().kind, kind, "{words}");
    }
}

/// A lease that is held until the test takes it away.
#[derive(Debug)]
pub(super) struct LeaseUntilTaken(pub(super) AtomicBool);

impl Lease for LeaseUntilTaken {
    fn term(&self) -> LeaseTerm {
        LeaseTerm::unlimited(!self.0.load(Ordering::Relaxed))
    }
}

#[tokio::test(start_paused = true)]
async fn removal_is_not_sent_without_the_lease() {
    let script = ScriptedConsulTransport::of(vec![services(&[service(1, 7)])]);
    let consul = Arc::new(consul(&script));
    let lease = Arc::new(LeaseUntilTaken(AtomicBool::new(false)));
    consul.set_lease(lease.clone());
    assert!(consul.get(&service_id("web-1")).await.unwrap().is_some());
    lease.0.store(true, Ordering::Relaxed);
    for id in [service_id("web-1"), token_id(1)] {
        assert_eq!(
            consul.delete(&id).await.unwrap_err().kind,
            MeshErrorKind::Obstructed(WriteObstacle::NotLeader),
            "{id}"
        );
    }
    assert_eq!(script.calls().len(), 1, "nothing but the read was sent");
}

/// A lease that another transport's Consul, or this one, keeps.
struct FencedLease(&'static str);

impl HeldTerm for FencedLease {
    fn left(&self) -> Duration {
        Duration::from_mins(1)
    }

    fn fencing_token(&self) -> Option<FencingToken> {
        Some(FencingToken { store: self.0.into(), lock: "ecs-mesh/op/lease".into(), holder: "s1".into() })
    }
}

impl Lease for FencedLease {
    fn term(&self) -> LeaseTerm {
        LeaseTerm::Held(Arc::new(Self(self.0)))
    }
}

/// The store of the specification that these tests use: address, datacenter, partition.
const OWN_STORE: &str = "http://127.0.0.1:8500  ";

#[tokio::test(start_paused = true)]
async fn removals_are_fenced_where_the_lease_is_kept() {
    for (store, count) in [(OWN_STORE, 3), ("http://other:8500  ", 2)] {
        let script = ScriptedConsulTransport::of(vec![services(&[service(1, 7), service(2, 8)]), done()]);
        let consul = Arc::new(consul(&script));
        consul.set_lease(Arc::new(FencedLease(store)));
        assert_eq!(remove(&consul, &["web-1", "web-2"]).await, [Ok(true); 2]);
        let operations = script.body(1).as_array().unwrap().clone();
        assert_eq!(operations.len(), count, "{store}");
        let fence = json!({"Verb": "check-session", "Key": "ecs-mesh/op/lease", "Session": "s1"});
        assert_eq!(operations.get(2), (count == 3).then(|| json!({"KV": fence})).as_ref());
    }
}

#[tokio::test(start_paused = true)]
async fn removals_of_a_deposed_process_are_rejected_by_the_fence() {
    let rejected = rolled_back(&[(2, "failed session check for key \"ecs-mesh/op/lease\"")]);
    let script = ScriptedConsulTransport::of(vec![services(&[service(1, 7), service(2, 8)]), rejected]);
    let consul = Arc::new(consul(&script));
    consul.set_lease(Arc::new(FencedLease(OWN_STORE)));
    let obstructed = Err(MeshErrorKind::Obstructed(WriteObstacle::NotLeader));
    assert_eq!(remove(&consul, &["web-1", "web-2"]).await, [obstructed; 2]);
    assert_eq!(script.calls().len(), 2, "nothing was tried again");
}
