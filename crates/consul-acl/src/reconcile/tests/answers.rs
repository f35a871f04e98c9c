//! Answers that are lost, and servers that have too much to do: the audit trail tells in the end what was changed, and
//! nobody asks on.

use super::*;

const ROLE: &str = "consul-ecs-api-gateway-role";

fn of<'a>(audited: &'a [(String, String, String)], name: &str) -> Vec<(&'a str, &'a str)> {
    let lines = audited.iter().filter(|line| line.0 == name);
    lines.map(|(_, change, result)| (change.as_str(), result.as_str())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_was_lost_is_told_of_when_the_next_look_finds_it_done() {
    let server = Server::with(Trouble::Loses(CREATES_ROLE));
    let bench = Bench::at(&server);
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
async fn a_removal_whose_answer_was_lost_is_told_of_when_the_next_look_finds_it_gone() {
    let server = Server::with(Trouble::None);
    let bench = Bench::at(&server);
    assert!(bench.pass().await.ended_well);
    let mut absent = auth();
    absent["state"] = json!("absent");
    bench.declare(Some(absent));
    server.has(Trouble::Loses("DELETE /v1/acl/auth-method/"));
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
async fn what_was_refused_is_never_said_to_be_done() {
    let server = Server::with(Trouble::Refuses("\"consul-ecs-api-gateway-role\""));
    let bench = Bench::at(&server);
    bench.pass().await;
    // Somebody makes what we could not.
    server.has(Trouble::None);
    let kept = bench.pass().await;
    assert!(kept.ended_well, "{}", kept.log);
    assert!(audited(&kept.log).iter().all(|(_, _, result)| result == "done"), "{}", kept.log);
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_is_cut_off_leaves_no_write_untold() {
    let server = Server::with(Trouble::Hangs(CREATES_ROLE));
    let bench = Bench::at(&server);
    let _logging = bench.log_from_here();
    let stop = CancellationToken::new();
    let keeper = bench.reconciler().run(Pulse::default(), Duration::from_secs(1), stop.clone());
    let keeper = tokio::spawn(keeper);
    tokio::time::sleep(LONGEST + Duration::from_secs(1)).await;
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
async fn a_server_that_has_too_much_to_do_is_asked_nothing_more_in_a_look_and_for_as_long_as_it_says() {
    let wait = Duration::from_secs(90);
    let server = Server::with(Trouble::Busy("GET /v1/acl/roles", Some(wait)));
    let kept = Bench::at(&server).pass().await;
    let calls = server.calls.lock().unwrap().clone();
    assert_eq!(calls.last().unwrap(), "GET /v1/acl/roles", "{calls:#?}");
    assert!(!kept.ended_well);
    assert_eq!(kept.not_before, Some(wait));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_the_server_has_no_time_for_holds_up_the_rest() {
    for wait in [None, Some(Duration::from_secs(90))] {
        let server = Server::with(Trouble::Busy(CREATES_POLICY, wait));
        let kept = Bench::at(&server).pass().await;
        let calls = server.calls.lock().unwrap().clone();
        assert_eq!(calls.last().unwrap(), CREATES_POLICY, "{calls:#?}");
        assert_eq!(server.writes.lock().unwrap().len(), 1);
        assert!(!kept.ended_well);
        assert_eq!(kept.not_before, wait);
    }
}
