//! Changes during a reconcile: newer manifests, a policy that cannot be written, an auth method that is no longer declared.

use super::*;

fn at(server: &Arc<FakeServer>, call: &'static str, deed: impl FnOnce() + Send + 'static) {
    *server.meanwhile.lock().unwrap() = Some((call, Box::new(deed)));
}

#[tokio::test(start_paused = true)]
async fn superseded_manifests_write_nothing() {
    let mut absent = auth();
    absent["state"] = json!("absent");
    // While the server's copy is read, and while the first removal is under way.
    for (call, removals) in [("GET /v1/acl/binding-rule/", 0), ("DELETE /v1/acl/binding-rule/", 1)] {
        let server = FakeServer::with(ServerFault::None);
        let bench = Arc::new(AclReconcileFixture::at(&server));
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
async fn widened_role_is_narrowed_when_policy_write_fails() {
    const POLICY: &str = "consul-ecs-mesh-gateway-policy";
    const ROLE: &str = "/v1/acl/role/name/consul-ecs-mesh-gateway-role";
    let server = FakeServer::with(ServerFault::None);
    let bench = AclReconcileFixture::at(&server);
    assert!(bench.pass().await.ended_well);
    let policy = server.by_hand(HttpMethod::Get, &format!("/v1/acl/policy/name/{POLICY}"), &Value::Null);
    let mut policy = policy.clone();
    policy["Rules"] = json!("acl = \"write\"");
    server.by_hand(HttpMethod::Put, &format!("/v1/acl/policy/{}", policy["ID"].as_str().unwrap()), &policy);
    let mut role = server.by_hand(HttpMethod::Get, ROLE, &Value::Null);
    role["Policies"] = json!([{"Name": "global-management"}]);
    server.by_hand(HttpMethod::Put, &format!("/v1/acl/role/{}", role["ID"].as_str().unwrap()), &role);

    server.contains(ServerFault::Refuses("peering"));
    let kept = bench.pass().await;
    assert!(!kept.ended_well);
    let audited = audited(&kept.log);
    let narrowed = ("consul-ecs-mesh-gateway-role".to_owned(), "update".to_owned(), "success".to_owned());
    assert_eq!(audited.iter().filter(|line| **line == narrowed).count(), 1, "{audited:#?}");
    assert_eq!(kept.states, [("ok", 7), ("drifted", 2)].into(), "neither is passed off as well");
    assert!(kept.took < Duration::from_secs(10), "nothing is waited for to show: {:?}", kept.took);
    assert_eq!(
        server.by_hand(HttpMethod::Get, ROLE, &Value::Null)["Policies"].as_array().map_or(0, Vec::len),
        0
    );

    let kept = bench.pass().await;
    assert!(kept.ended_well, "{}", kept.log);
    assert_eq!(kept.states, [("ok", 9)].into());
    let role = server.by_hand(HttpMethod::Get, ROLE, &Value::Null);
    assert_eq!(role["Policies"][0]["Name"], POLICY);
}

#[tokio::test(start_paused = true)]
async fn owned_auth_method_is_watched_until_removed() {
    async fn wait_for_request(bench: &AclReconcileFixture, server: &FakeServer, method: &str) -> bool {
        server.calls.lock().unwrap().clear();
        let listed = bench.consul.list_owned(&BTreeSet::new(), &mut |_| {}).await;
        assert!(listed.unwrap().is_empty());
        let call = format!("GET /v1/acl/tokens?authmethod={method}");
        server.calls.lock().unwrap().contains(&call)
    }
    let of = |name: &str| {
        let mut tokens = auth();
        tokens["authMethod"] = json!(name);
        Some(tokens)
    };
    let server = FakeServer::with(ServerFault::None);
    let bench = AclReconcileFixture::at(&server);
    bench.declare(of("eu-v1"));
    bench.pass().await;
    for set in [of("eu-v2"), None] {
        bench.declare(set);
        bench.target.watch_auth_methods(&bench.host.manifests());
        assert!(wait_for_request(&bench, &server, "eu-v1").await, "before the first snapshot");
        bench.pass().await;
        assert!(wait_for_request(&bench, &server, "eu-v1").await);
    }
    // A process that starts with these manifests finds the auth method and lists its tokens soon.
    let restarted = AclReconcileFixture::at(&server);
    restarted.declare(None);
    assert!(!wait_for_request(&restarted, &server, "eu-v1").await);
    restarted.pass().await;
    let mut notify = std::pin::pin!(restarted.host.sweep_soon.notified());
    assert!(notify.as_mut().enable(), "a sweep was asked for");
    for method in ["eu-v1", "eu-v2"] {
        assert!(wait_for_request(&restarted, &server, method).await);
    }
    server.by_hand(HttpMethod::Delete, "/v1/acl/auth-method/eu-v1", &Value::Null);
    restarted.pass().await;
    assert!(
        !wait_for_request(&restarted, &server, "eu-v1").await
            && wait_for_request(&restarted, &server, "eu-v2").await
    );
}
