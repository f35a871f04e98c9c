//! What happens while the set-up is kept: other manifests come into force, a policy cannot be written, a method is
//! declared no more.

use super::*;

fn at(server: &Arc<Server>, call: &'static str, deed: impl FnOnce() + Send + 'static) {
    *server.meanwhile.lock().unwrap() = Some((call, Box::new(deed)));
}

#[tokio::test(start_paused = true)]
async fn manifests_that_were_replaced_write_nothing_more() {
    let mut absent = auth();
    absent["state"] = json!("absent");
    // While the server's copy is read, and while the first removal is under way.
    for (call, removals) in [("GET /v1/acl/binding-rule/", 0), ("DELETE /v1/acl/binding-rule/", 1)] {
        let server = Server::with(Trouble::None);
        let bench = Arc::new(Bench::at(&server));
        assert!(bench.pass().await.ended_well);
        bench.declare(Some(absent.clone()));
        let other = Arc::clone(&bench);
        at(&server, call, move || other.declare(Some(auth())));
        let kept = bench.pass().await;
        assert_eq!(server.writes_of("DELETE"), removals, "{}", kept.log);
        assert!(!kept.ended_well, "it is looked again soon");
        let kept = bench.pass().await;
        assert!(kept.ended_well, "{}", kept.log);
        assert_eq!((kept.states, server.writes_of("DELETE")), ([("ok", 9)].into(), removals));
    }
}

#[tokio::test(start_paused = true)]
async fn a_widened_role_loses_what_is_too_much_while_its_own_policy_cannot_be_written() {
    const POLICY: &str = "consul-ecs-mesh-gateway-policy";
    const ROLE: &str = "/v1/acl/role/name/consul-ecs-mesh-gateway-role";
    let server = Server::with(Trouble::None);
    let bench = Bench::at(&server);
    assert!(bench.pass().await.ended_well);
    let policy = server.by_hand(Method::Get, &format!("/v1/acl/policy/name/{POLICY}"), &Value::Null);
    let mut policy = policy.clone();
    policy["Rules"] = json!("acl = \"write\"");
    server.by_hand(Method::Put, &format!("/v1/acl/policy/{}", policy["ID"].as_str().unwrap()), &policy);
    let mut role = server.by_hand(Method::Get, ROLE, &Value::Null);
    role["Policies"] = json!([{"Name": "global-management"}]);
    server.by_hand(Method::Put, &format!("/v1/acl/role/{}", role["ID"].as_str().unwrap()), &role);

    server.has(Trouble::Refuses("peering"));
    let kept = bench.pass().await;
    assert!(!kept.ended_well);
    let audited = audited(&kept.log);
    let narrowed = ("consul-ecs-mesh-gateway-role".to_owned(), "update".to_owned(), "done".to_owned());
    assert_eq!(audited.iter().filter(|line| **line == narrowed).count(), 1, "{audited:#?}");
    assert_eq!(kept.states, [("ok", 7), ("drifted", 2)].into(), "neither is passed off as well");
    assert!(kept.took < Duration::from_secs(10), "nothing is waited for to show: {:?}", kept.took);
    assert_eq!(server.by_hand(Method::Get, ROLE, &Value::Null)["Policies"].as_array().map_or(0, Vec::len), 0);

    let kept = bench.pass().await;
    assert!(kept.ended_well, "{}", kept.log);
    assert_eq!(kept.states, [("ok", 9)].into());
    let role = server.by_hand(Method::Get, ROLE, &Value::Null);
    assert_eq!(role["Policies"][0]["Name"], POLICY);
}

#[tokio::test(start_paused = true)]
async fn tokens_of_a_method_of_ours_are_looked_after_for_as_long_as_it_is_there() {
    async fn asked_for(bench: &Bench, server: &Server, method: &str) -> bool {
        server.calls.lock().unwrap().clear();
        let listed = bench.consul.owned(&BTreeSet::new(), &mut |_| {}).await;
        assert!(listed.unwrap().is_empty());
        let call = format!("GET /v1/acl/tokens?authmethod={method}");
        server.calls.lock().unwrap().contains(&call)
    }
    let of = |name: &str| {
        let mut tokens = auth();
        tokens["authMethod"] = json!(name);
        Some(tokens)
    };
    let server = Server::with(Trouble::None);
    let bench = Bench::at(&server);
    bench.declare(of("eu-v1"));
    bench.pass().await;
    for set in [of("eu-v2"), None] {
        bench.declare(set);
        bench.target.look_after_methods(&bench.host.manifests());
        assert!(asked_for(&bench, &server, "eu-v1").await, "before anybody has looked");
        bench.pass().await;
        assert!(asked_for(&bench, &server, "eu-v1").await);
    }
    // Whoever starts with these manifests learns of it, and has the tokens listed soon.
    let anew = Bench::at(&server);
    anew.declare(None);
    assert!(!asked_for(&anew, &server, "eu-v1").await);
    anew.pass().await;
    let mut soon = std::pin::pin!(anew.host.sweep_soon.notified());
    assert!(soon.as_mut().enable(), "a sweep was asked for");
    for method in ["eu-v1", "eu-v2"] {
        assert!(asked_for(&anew, &server, method).await);
    }
    server.by_hand(Method::Delete, "/v1/acl/auth-method/eu-v1", &Value::Null);
    anew.pass().await;
    assert!(!asked_for(&anew, &server, "eu-v1").await && asked_for(&anew, &server, "eu-v2").await);
}
