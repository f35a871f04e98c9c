//! Answers that are lost, and servers that have too much to do: the audit trail tells in the end what was changed, and
//! nobody asks on.

use super::*;

const ROLE: &str = "consul-ecs-api-gateway-role";

fn of<'a>(audited: &'a [(String, String, String)], name: &str) -> Vec<(&'a str, &'a str)> {
    let lines = audited.iter().filter(|line| line.0 == name);
    lines.map(|(_, change, result)| (change.as_str(), result.as_str())).collect()
}

#[tokio::test(start_paused = true)]
async fn lost_write_response_is_audited_when_confirmed() {
    let server = FakeServer::with(ServerFault::Loses(CREATES_ROLE));
    let bench = AclReconcileFixture::at(&server);
    let kept = bench.pass().await;
    assert!(kept.ended_well, "{}", kept.log);
    let lines = audited(&kept.log);
    let [("create", failed), ("create", done)] = of(&lines, ROLE)[..] else { panic!("{lines:#?}") };
    assert!(failed.starts_with("failed: PUT /v1/acl/role"), "{failed}");
    assert!(failed.ends_with("whether it took effect all the same, the next look finds"), "{failed}");
    assert_eq!(done, "done, the answer was lost");
    assert_eq!(server.writes_of(CREATES_ROLE), 2, "it is not made a second time");
    assert_eq!(audited(&bench.pass().await.log), [], "and told of once");
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
    assert!(failed.starts_with("failed: DELETE /v1/acl/auth-method/"), "{failed}");
    assert_eq!(done, "done, the answer was lost");
}

#[tokio::test(start_paused = true)]
async fn rejected_write_is_never_audited_as_success() {
    let server = FakeServer::with(ServerFault::Refuses("\"consul-ecs-api-gateway-role\""));
    let bench = AclReconcileFixture::at(&server);
    bench.pass().await;
    // Somebody makes what we could not.
    server.contains(ServerFault::None);
    let kept = bench.pass().await;
    assert!(kept.ended_well, "{}", kept.log);
    assert!(audited(&kept.log).iter().all(|(_, _, result)| result == "done"), "{}", kept.log);
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
    let cut_off = audited(&bench.log.text());
    tokio::time::sleep(RETRY.max).await;
    stop.cancel();
    keeper.await.unwrap();
    let [("create", failed)] = of(&cut_off, ROLE)[..] else { panic!("{cut_off:#?}") };
    assert!(failed.starts_with("failed: cut off before its answer came"), "{failed}");
    // What was written before, in the same round.
    assert_eq!(of(&cut_off, "consul-ecs-api-gateway-policy"), [("create", "done")]);
    let all = audited(&bench.log.text());
    assert_eq!(of(&all, ROLE)[1..], [("create", "done, the answer was lost")]);
}

#[tokio::test(start_paused = true)]
async fn throttled_server_is_left_alone_for_retry_after() {
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
