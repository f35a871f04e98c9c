//! Lost responses and throttling servers: the audit trail has every change in the end, and a throttling server gets no
//! further calls.

use super::*;

const ROLE: &str = "consul-ecs-api-gateway-role";

fn of<'a>(audited: &'a [(String, String, String)], name: &str) -> Vec<(&'a str, &'a str)> {
    let lines = audited.iter().filter(|line| line.0 == name);
    lines.map(|(_, change, result)| (change.as_str(), result.as_str())).collect()
}

/// The field `error` of the audit lines about this object.
fn errors_of(log: &str, name: &str) -> Vec<String> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let about = lines.filter(|line| line["target"] == "audit" && line["name"] == name);
    about.filter_map(|line| line["error"].as_str().map(str::to_owned)).collect()
}

#[tokio::test(start_paused = true)]
async fn lost_write_response_is_audited_when_confirmed() {
    let server = FakeServer::with(ServerFault::Loses(CREATES_ROLE));
    let bench = AclReconcileFixture::at(&server);
    let kept = bench.pass().await;
    assert!(kept.ended_well, "{}", kept.log);
    let lines = audited(&kept.log);
    let [("create", failed), ("create", done)] = of(&lines, ROLE)[..] else { panic!("{lines:#?}") };
    assert_eq!((failed, done), ("error", "success_response_lost"));
    let errors = errors_of(&kept.log, ROLE);
    let [error] = errors.as_slice() else { panic!("{errors:?}") };
    assert!(error.starts_with("PUT /v1/acl/role") && error.contains("outcome unknown"), "{error}");
    assert_eq!(server.writes_of(CREATES_ROLE), 2, "the role is not created twice");
    assert_eq!(audited(&bench.pass().await.log), [], "each change is reported once");
}

#[tokio::test(start_paused = true)]
async fn lost_acl_removal_response_is_audited_when_confirmed() {
    let server = FakeServer::with(ServerFault::None);
    let bench = AclReconcileFixture::at(&server);
    assert!(bench.pass().await.ended_well);
    let mut absent = auth();
    absent["state"] = json!("absent");
    bench.declare(Some(absent));
    server.contains(ServerFault::Loses("DELETE /v1/acl/auth-method/"));
    let kept = bench.pass().await;
    assert!(kept.ended_well, "{}", kept.log);
    let lines = audited(&kept.log);
    let [("remove", failed), ("remove", done)] = of(&lines, "iam-ecs-service-token")[..] else {
        panic!("{lines:#?}")
    };
    assert_eq!((failed, done), ("error", "success_response_lost"));
}

#[tokio::test(start_paused = true)]
async fn rejected_write_is_never_audited_as_success() {
    let server = FakeServer::with(ServerFault::Refuses("\"consul-ecs-api-gateway-role\""));
    let bench = AclReconcileFixture::at(&server);
    bench.pass().await;
    // Another person creates the rejected object.
    server.contains(ServerFault::None);
    let kept = bench.pass().await;
    assert!(kept.ended_well, "{}", kept.log);
    assert!(audited(&kept.log).iter().all(|(_, _, result)| result == "success"), "{}", kept.log);
}

#[tokio::test(start_paused = true)]
async fn cancelled_pass_audits_every_write() {
    let server = FakeServer::with(ServerFault::Hangs(CREATES_ROLE));
    let bench = AclReconcileFixture::at(&server);
    let _logging = bench.log_from_here();
    let stop = CancellationToken::new();
    let keeper = bench.reconciler().run(Heartbeat::default(), Duration::from_secs(1), stop.clone());
    let keeper = tokio::spawn(keeper);
    tokio::time::sleep(RECONCILE_TIMEOUT + Duration::from_secs(1)).await;
    let cancelled = audited(&bench.log.text());
    tokio::time::sleep(RETRY.max).await;
    stop.cancel();
    keeper.await.unwrap();
    let [("create", failed)] = of(&cancelled, ROLE)[..] else { panic!("{cancelled:#?}") };
    assert_eq!(failed, "error");
    // Written before, in the same pass.
    assert_eq!(of(&cancelled, "consul-ecs-api-gateway-policy"), [("create", "success")]);
    let all = audited(&bench.log.text());
    assert_eq!(of(&all, ROLE)[1..], [("create", "success_response_lost")]);
}

#[tokio::test(start_paused = true)]
async fn throttled_server_gets_no_call_for_retry_after() {
    let wait = Duration::from_secs(90);
    let server = FakeServer::with(ServerFault::Busy("GET /v1/acl/roles", Some(wait)));
    let kept = AclReconcileFixture::at(&server).pass().await;
    let calls = server.calls.lock().unwrap().clone();
    assert_eq!(calls.last().unwrap(), "GET /v1/acl/roles", "{calls:#?}");
    assert!(!kept.ended_well);
    assert_eq!(kept.not_before, Some(wait));
}

#[tokio::test(start_paused = true)]
async fn throttled_write_defers_the_rest() {
    for wait in [None, Some(Duration::from_secs(90))] {
        let server = FakeServer::with(ServerFault::Busy(CREATES_POLICY, wait));
        let kept = AclReconcileFixture::at(&server).pass().await;
        let calls = server.calls.lock().unwrap().clone();
        assert_eq!(calls.last().unwrap(), CREATES_POLICY, "{calls:#?}");
        assert_eq!(server.writes.lock().unwrap().len(), 1);
        assert!(!kept.ended_well);
        assert_eq!(kept.not_before, wait);
    }
}
