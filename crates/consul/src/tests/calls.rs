use super::*;
use ecs_mesh_control_plane::list_owned;
use ecs_mesh_control_plane::{ControlPlane, MeshErrorKind, RegistrationOwner};
use ecs_mesh_model::Timestamp;

#[tokio::test(start_paused = true)]
async fn registrations_of_clusters_tasks_are_owned() {
    let mut elsewhere = token(3);
    let description = elsewhere["Description"].as_str().unwrap().replace("cluster/anchor", "cluster/other");
    elsewhere["Description"] = description.into();
    let script = ScriptedConsulTransport::of(vec![
        tokens(&[token(1), elsewhere, token(2)]),
        services(&[service(1, 7)]),
    ]);
    let owned = complete(list_owned(&consul(&script), &clusters()).await);
    let ids: Vec<_> = owned.iter().map(|registration| registration.id.clone()).collect();
    assert_eq!(ids, [service_id("web-1"), token_id(1), token_id(2)]);
    assert_eq!(script.calls(), [TOKENS, SERVICES], "the tokens come first");
    let marks = ecs_mesh_core::intent::OwnershipLabels::of(&operator(), &task(1));
    assert_eq!(
        [&owned[0].owner, &owned[1].owner],
        [&RegistrationOwner::Owned(marks.clone()), &RegistrationOwner::Owned(marks)]
    );
    assert_eq!(owned[1].service.as_deref(), Some("web"));
    assert!(!format!("{owned:?}").contains("hunter2"), "{owned:?}");
}

#[tokio::test(start_paused = true)]
async fn unattributed_items_are_counted_and_list_succeeds() {
    let bad = json!({"ID": "stray", "Service": "s", "Meta": {"source": "consul-ecs"}, "ModifyIndex": 1});
    let foreign = json!({"ID": "vm", "Service": "vm", "Meta": null, "ModifyIndex": 1});
    let script = ScriptedConsulTransport::of(vec![
        tokens(&[
            json!(7),
            json!({"AccessorID": "../x"}),
            token_with_description(3, "token created via login"),
            token_with_description(4, "token created via login: {"),
            token_with_description(5, "token created via login: []"),
            token(1),
        ]),
        services(&[json!("?"), bad, foreign, json!({"ID": 7}), service(1, 7)]),
    ]);
    let (consul, reported) = observed(&script);
    let owned = complete(list_owned(&consul, &clusters()).await);
    assert_eq!(owned.len(), 2, "{owned:?}");
    let mut reported = reported.all();
    reported.sort();
    let skipped = ["list_owned skipped"; 5];
    assert_eq!(reported, [&skipped[..], &["list_owned success", "malformed: 2", "no_metadata: 1"]].concat());
    let unattributed_tokens = consul.unattributed_tokens();
    let counted: Vec<_> = unattributed_tokens.iter().map(|n| (n.reason, n.count, n.examples.len())).collect();
    assert_eq!(counted, [("no_metadata", 1, 1), ("malformed", 2, 2)], "{unattributed_tokens:?}");
}

#[tokio::test(start_paused = true)]
async fn filtered_response_proves_nothing() {
    let nothing = json!({"Node": {"Node": CLUSTER}, "Services": []});
    let (some, one) = (tokens(&[token(1)]), services(&[service(1, 7)]));
    let of_cluster = format!("the services of {CLUSTER}");
    for (responses, segment, permission, call) in [
        (
            vec![text(403, "Permission denied: token lacks acl:read"), one.clone()],
            "the tokens of logins",
            "acl = \"read\"",
            TOKENS,
        ),
        (vec![filtered(&json!([])), one], "the tokens of logins", "acl = \"read\"", TOKENS),
        (
            vec![some.clone(), filtered(&nothing)],
            &of_cluster,
            "service_prefix \"\" { policy = \"read\" }",
            SERVICES,
        ),
        (
            vec![some.clone(), filtered(&json!({"Node": null, "Services": null}))],
            &of_cluster,
            "node_prefix \"\"",
            SERVICES,
        ),
        (
            vec![some, text(403, "Permission denied")],
            &of_cluster,
            "node_prefix \"\" { policy = \"read\" }",
            SERVICES,
        ),
    ] {
        let listed = list_owned(&consul(&ScriptedConsulTransport::of(responses)), &clusters()).await.unwrap();
        assert_eq!(failed_segments(&listed), [segment]);
        let error = &listed.failed[0].error;
        assert_eq!(error.kind, MeshErrorKind::Forbidden, "{error}");
        assert!(error.message.contains(permission) && error.message.contains(call), "{error}");
        assert_eq!(listed.seen.len(), 1, "the other part counts: {:?}", listed.seen);
    }
}

#[tokio::test(start_paused = true)]
async fn failed_cluster_list_does_not_affect_others() {
    let mut clusters = clusters();
    for name in ["b", "c"] {
        clusters.insert(ClusterArn::parse(&CLUSTER.replace("anchor", name)).unwrap());
    }
    for trouble in [text(403, "Permission denied"), text(500, "something else"), text(200, "<html>")] {
        let script = ScriptedConsulTransport::of(vec![
            tokens(&[]),
            services(&[service(1, 7)]),
            trouble,
            foreign_services(),
        ]);
        let listed = list_owned(&consul(&script), &clusters).await.unwrap();
        assert_eq!(failed_segments(&listed), [format!("the services of {}", CLUSTER.replace("anchor", "b"))]);
        assert_eq!(listed.seen[0].id, service_id("web-1"));
        assert_eq!(script.calls().len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn unresponsive_server_is_not_called_for_each_segment() {
    let mut clusters = clusters();
    for name in ["b", "c", "d"] {
        clusters.insert(ClusterArn::parse(&CLUSTER.replace("anchor", name)).unwrap());
    }
    let script = ScriptedConsulTransport::of(vec![unreachable_server()]);
    let error = list_owned(&consul(&script), &clusters).await.unwrap_err();
    assert_eq!((error.kind, script.calls().len()), (MeshErrorKind::Unreachable, 1));
    let script =
        ScriptedConsulTransport::of(vec![tokens(&[token(1)]), unreachable_server(), unreachable_server()]);
    let listed = list_owned(&consul(&script), &clusters).await.unwrap();
    assert_eq!((listed.failed.len(), listed.seen.len(), script.calls().len()), (4, 1, 3));
    // A rejected call is a response, but no segment was listed.
    let script =
        ScriptedConsulTransport::of(vec![text(403, "no"), unreachable_server(), unreachable_server()]);
    let error = list_owned(&consul(&script), &clusters).await.unwrap_err();
    assert_eq!((error.kind, script.calls().len()), (MeshErrorKind::Unreachable, 3));
    let script = ScriptedConsulTransport::of(vec![unknown_token()]);
    let error = list_owned(&consul(&script), &clusters).await.unwrap_err();
    assert!(error.message.contains("tokenFile"), "an unknown own token fails every segment: {error}");
}

#[tokio::test(start_paused = true)]
async fn services_are_listed_when_acls_are_disabled() {
    let off = || text(401, "ACL support disabled");
    let script = ScriptedConsulTransport::of(vec![
        off(),
        services(&[service(1, 7)]),
        off(),
        services(&[service(1, 7)]),
    ]);
    let (consul, reported) = observed(&script);
    for listed in
        [list_owned(&consul, &clusters()).await.unwrap(), consul.list_for_task(&task(1)).await.unwrap()]
    {
        assert_eq!(failed_segments(&listed), ["the tokens of logins"]);
        assert_eq!(listed.seen[0].id, service_id("web-1"));
    }
    assert_eq!(
        reported.all(),
        ["list_owned forbidden", "list_for_task forbidden"],
        "and no tokens are counted"
    );
}

#[tokio::test(start_paused = true)]
async fn missing_namespace_does_not_affect_others() {
    let lost = || text(500, "rpc error making call: Namespace \"lost\" does not exist");
    let (mut token, mut service) = (token(1), service(1, 7));
    (token["Namespace"], service["Namespace"]) = ("team-1".into(), "team-1".into());
    let script = ScriptedConsulTransport::of(vec![lost(), tokens(&[token]), lost(), services(&[service])]);
    let consul = consul_of(&script, &json!({"namespaces": ["lost", "team-1"]}), Arc::new(NoObserver));
    let listed = list_owned(&consul, &clusters()).await.unwrap();
    assert_eq!(
        failed_segments(&listed),
        [
            "the tokens of logins in namespace lost".to_owned(),
            format!("the services of {CLUSTER} in namespace lost"),
        ]
    );
    assert_eq!(listed.seen.len(), 2);
    for failed in &listed.failed {
        assert_eq!(failed.error.kind, MeshErrorKind::MeshNotFound, "{}", failed.error);
        assert!(failed.error.message.contains("spec.consul.namespaces"), "{}", failed.error);
        let holds = |seen: &RegistrationSummary| failed.segment.contains(&seen.id);
        assert!(!listed.seen.iter().any(holds), "{:?}", listed.seen);
    }
}

#[tokio::test(start_paused = true)]
async fn oversized_item_is_skipped_and_others_are_listed() {
    let long = "x".repeat(1024 * 1024 + 1);
    let mut heavy = service(2, 8);
    heavy["Meta"]["note"] = long.clone().into();
    let script = ScriptedConsulTransport::of(vec![
        tokens(&[token_with_description(2, &long), token(1)]),
        services(&[heavy, service(1, 7)]),
    ]);
    let (consul, reported) = observed(&script);
    assert_eq!(complete(list_owned(&consul, &clusters()).await).len(), 2);
    assert_eq!(reported.all().iter().filter(|reported| *reported == "list_owned skipped").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn invalid_or_truncated_list_is_an_error() {
    let cut = text(200, "[{\"AccessorID\": \"");
    let node = foreign_services;
    for (responses, what) in [
        (vec![responds(200, &json!({})), node()], "tokens"),
        (vec![responds(200, &json!(null)), node()], "tokens"),
        (vec![text(200, "<html>hello</html>"), node()], "tokens"),
        (vec![text(200, ""), node()], "tokens"),
        (vec![cut, node()], "tokens"),
        (vec![tokens(&[]), tokens(&[])], "services"),
        (vec![tokens(&[]), responds(200, &json!({"items": []}))], "services"),
    ] {
        let listed = list_owned(&consul(&ScriptedConsulTransport::of(responses)), &clusters()).await.unwrap();
        assert!(failed_segments(&listed)[0].contains(what), "{listed:?}");
        let error = &listed.failed[0].error;
        assert_eq!(error.kind, MeshErrorKind::UnexpectedResponse, "{error}");
        assert!(error.message.contains("spec.consul.address"), "{error}");
    }
    let page = || text(200, "<html>");
    let error = list_owned(&consul(&ScriptedConsulTransport::of(vec![page(), page()])), &clusters())
        .await
        .unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::UnexpectedResponse, "{error}");
}

#[tokio::test(start_paused = true)]
async fn credential_in_a_response_is_never_in_errors() {
    const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
    for (status, body) in [
        (200, KEY.to_owned()),
        (200, format!("[\"{KEY}")),
        (200, json!(KEY).to_string()),
        (200, json!({"Config": {"Version": KEY}}).to_string()),
        (200, json!({"Node": KEY, "Services": KEY}).to_string()),
        (400, KEY.to_owned()),
        (403, json!({"AccessKeyId": KEY}).to_string()),
        (404, format!("Invalid URL path {KEY}")),
        (500, format!("No cluster leader: {KEY}")),
    ] {
        let response = || text(status, &body);
        let script = ScriptedConsulTransport::of(std::iter::repeat_with(response).take(8).collect());
        let consul = consul(&script);
        for error in [
            consul.refresh_capabilities(&BTreeSet::new()).await.unwrap_err(),
            list_owned(&consul, &clusters()).await.unwrap_err(),
        ] {
            assert!(!format!("{error:?}").contains(KEY), "{body}: {error:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_failure_has_its_error_kind() {
    for (response, kind, words) in [
        (text(401, "ACL support disabled"), MeshErrorKind::Forbidden, "ACLs are off"),
        (text(403, "ACL not found"), MeshErrorKind::Forbidden, "tokenFile"),
        (text(429, "too many"), MeshErrorKind::Throttled, "429"),
        (text(503, "rate limit exceeded"), MeshErrorKind::Throttled, "rate limit"),
        (text(500, "No cluster leader"), MeshErrorKind::Unreachable, "leader"),
        (text(500, "No path to datacenter"), MeshErrorKind::Unreachable, "spec.consul.datacenter"),
        (text(500, "something else"), MeshErrorKind::Unreachable, "something else"),
        (text(502, "<html>"), MeshErrorKind::Unreachable, "HTML"),
        (
            text(400, "Namespaces are a Consul Enterprise feature"),
            MeshErrorKind::Invalid,
            "open-source edition",
        ),
        (text(404, "<html>"), MeshErrorKind::UnexpectedResponse, "spec.consul.address"),
        (text(302, ""), MeshErrorKind::UnexpectedResponse, "redirects"),
        (unreachable_server(), MeshErrorKind::Unreachable, "connection refused"),
    ] {
        let error = list_owned(&consul(&ScriptedConsulTransport::of(vec![response])), &BTreeSet::new())
            .await
            .unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(words), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn token_is_foreign_unless_a_task_logged_in() {
    let mut by_hand = token(2);
    by_hand["AuthMethod"] = "".into();
    let script = ScriptedConsulTransport::of(vec![
        responds(200, &token(1)),
        responds(200, &by_hand),
        responds(200, &token_with_description(3, "edited")),
    ]);
    let consul = consul(&script);
    let read = consul.get(&token_id(1)).await.unwrap().unwrap();
    assert_eq!(
        read.owner,
        RegistrationOwner::Owned(ecs_mesh_core::intent::OwnershipLabels::of(&operator(), &task(1)))
    );
    assert_eq!(consul.get(&token_id(2)).await.unwrap().unwrap().owner, RegistrationOwner::Foreign);
    assert_eq!(consul.get(&token_id(3)).await.unwrap().unwrap().owner, RegistrationOwner::Foreign);
    assert_eq!(script.calls()[0], format!("GET /v1/acl/token/{}", accessor(1)));
    assert!(!format!("{read:?}").contains("hunter2"));
}

#[tokio::test(start_paused = true)]
async fn token_is_missing_only_when_a_list_lacks_it() {
    let missing = || text(403, "token does not exist: ACL not found");
    let script =
        ScriptedConsulTransport::of(vec![missing(), tokens(&[token(2)]), missing(), unknown_token()]);
    let consul_1 = consul(&script);
    assert_eq!(consul_1.get(&token_id(1)).await.unwrap(), None);
    let error = consul_1.get(&token_id(2)).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Forbidden, "that it was good before proves nothing: {error}");
    let read = |number| format!("GET /v1/acl/token/{}", accessor(number));
    assert_eq!(script.calls(), [read(1), TOKENS.into(), read(2), TOKENS.into()]);
    let consul = consul(&ScriptedConsulTransport::of(vec![unknown_token(), filtered(&json!([]))]));
    let error = consul.get(&token_id(1)).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Forbidden, "{error}");
}

#[tokio::test(start_paused = true)]
async fn token_is_not_missing_when_own_token_was_unknown() {
    let consul = consul(&ScriptedConsulTransport::of(vec![unknown_token(), tokens(&[token(2), token(1)])]));
    let read = consul.get(&token_id(1)).await.unwrap().unwrap();
    assert_eq!(
        read.owner,
        RegistrationOwner::Owned(ecs_mesh_core::intent::OwnershipLabels::of(&operator(), &task(1)))
    );
}

#[tokio::test(start_paused = true)]
async fn token_is_not_missing_when_it_names_no_task() {
    let consul = consul(&ScriptedConsulTransport::of(vec![
        unknown_token(),
        tokens(&[token_with_description(1, "edited")]),
    ]));
    assert_eq!(consul.get(&token_id(1)).await.unwrap().unwrap().owner, RegistrationOwner::Foreign);
}

#[tokio::test(start_paused = true)]
async fn token_is_not_missing_when_namespace_list_failed() {
    let missing = || text(403, "ACL not found");
    let script = ScriptedConsulTransport::of(vec![
        missing(),
        tokens(&[]),
        text(500, "lost"),
        missing(),
        tokens(&[]),
        text(500, "lost"),
    ]);
    let consul = consul_of(&script, &json!({"namespaces": ["a", "b"]}), Arc::new(NoObserver));
    let in_namespace = |name: &str| id(format!("{}@{name}", token_id(1).name));
    assert_eq!(consul.get(&in_namespace("a")).await.unwrap(), None);
    assert_eq!(consul.get(&in_namespace("b")).await.unwrap_err().kind, MeshErrorKind::Unreachable);
}

/// A server without tokens that counts the lists of tokens.
#[derive(Default)]
struct CountingTransport(Mutex<usize>);

#[async_trait]
impl StreamTransport for CountingTransport {
    async fn stream(
        &self,
        _: HttpMethod,
        path: &str,
        _: Option<Vec<u8>>,
        sink: &mut dyn BodySink,
    ) -> Result<ResponseHead, TransportError> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let response = if TOKENS.ends_with(path) {
            *self.0.lock().unwrap() += 1;
            tokens(&[])?
        } else {
            text(403, "token does not exist: ACL not found")?
        };
        sink.write(&response.head, &response.body);
        Ok(response.head)
    }
}

#[tokio::test(start_paused = true)]
async fn many_missing_tokens_share_token_scans() {
    let server = Arc::new(CountingTransport::default());
    let consul = ConsulControlPlane::new(server.clone(), &spec(&json!({})), operator(), Arc::new(NoObserver));
    consul.watch_auth_methods(BTreeSet::from([DEFAULT_METHOD.into()]));
    let consul = Arc::new(consul);
    for remove in [false, true] {
        let calls = (1..=50).map(|number| {
            let consul = consul.clone();
            tokio::spawn(async move {
                let id = token_id(number);
                if remove {
                    consul.delete(&id).await
                } else {
                    consul.get(&id).await.map(|read| read.is_some())
                }
            })
        });
        for call in calls.collect::<Vec<_>>() {
            assert!(!call.await.unwrap().unwrap());
        }
    }
    assert!(*server.0.lock().unwrap() < 25, "{} lists", server.0.lock().unwrap());
}

#[tokio::test(start_paused = true)]
async fn empty_node_is_trusted_only_with_valid_own_token() {
    // Old servers respond this way to an unknown token; newer ones mark the response as filtered.
    for nothing in [no_node(), services(&[])] {
        let script = ScriptedConsulTransport::of(vec![tokens(&[token(1)]), nothing.clone(), unknown_token()]);
        let listed = list_owned(&consul(&script), &clusters()).await.unwrap();
        assert_eq!(failed_segments(&listed), [format!("the services of {CLUSTER}")]);
        let error = &listed.failed[0].error;
        assert!(error.message.contains("tokenFile"), "{error}");
        let script = ScriptedConsulTransport::of(vec![
            tokens(&[token(1)]),
            nothing.clone(),
            known_token(),
            tokens(&[]),
            nothing,
        ]);
        let consul = consul(&script);
        assert_eq!(complete(list_owned(&consul, &clusters()).await).len(), 1);
        assert_eq!(complete(list_owned(&consul, &clusters()).await).len(), 0);
        assert_eq!(
            script.calls(),
            [TOKENS, SERVICES, SELF, TOKENS, SERVICES],
            "one check is valid for a while"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn declared_auth_methods_replace_the_default() {
    let mut other = token(1);
    other["AuthMethod"] = "ecs-prod".into();
    let script = ScriptedConsulTransport::of(vec![tokens(&[other, token(2)]), foreign_services()]);
    let consul = consul(&script);
    consul.watch_auth_methods(BTreeSet::from(["ecs-prod".into(), "ECS-Prod".into()]));
    let owned = complete(list_owned(&consul, &clusters()).await);
    assert_eq!(owned.len(), 1, "{owned:?}");
    assert_eq!(script.calls()[0], "GET /v1/acl/tokens?authmethod=ECS-Prod", "one method, one call");
}

#[tokio::test(start_paused = true)]
async fn client_tokens_naming_a_task_are_owned() {
    let by = |mut token: Value| {
        token["AuthMethod"] = "iam-ecs-client-token".into();
        token
    };
    let of_client = by(token_with_description(2, "token created via login"));
    let script = ScriptedConsulTransport::of(vec![
        tokens(&[of_client, by(token(1))]),
        tokens(&[token(3)]),
        foreign_services(),
    ]);
    let reported = Arc::new(RecordingConsulObserver::default());
    let consul = ConsulControlPlane::new(script.clone(), &spec(&json!({})), operator(), reported.clone());
    let ids: Vec<_> = complete(list_owned(&consul, &clusters()).await)
        .into_iter()
        .map(|read_cache| read_cache.id)
        .collect();
    assert_eq!(ids, [token_id(1), token_id(3)]);
    assert!(reported.all().contains(&"no_metadata: 1".to_owned()), "{:?}", reported.all());
    assert_eq!(script.calls()[..2], [&TOKENS.replace("service", "client"), TOKENS]);
}

#[tokio::test(start_paused = true)]
async fn enterprise_registrations_are_read_in_their_scope() {
    let spec = json!({"datacenter": "dc2", "partition": "ecs", "namespaces": ["*"]});
    let (mut token, mut service) = (token(1), service(1, 7));
    token["Namespace"] = "team-1".into();
    service["Namespace"] = "team-1".into();
    let script = ScriptedConsulTransport::of(vec![
        tokens(&[token]),
        services(&[service.clone()]),
        services(&[service]),
        responds(200, &json!({"Results": [], "Errors": null})),
    ]);
    let consul = consul_of(&script, &spec, Arc::new(NoObserver));
    let owned = complete(list_owned(&consul, &clusters()).await);
    let names: Vec<&str> = owned.iter().map(|registration| &*registration.id.name).collect();
    assert_eq!(names, [format!("service/web-1@{CLUSTER}@team-1"), format!("token/{}@team-1", accessor(1))]);
    assert_eq!(owned[0].id.mesh.as_str(), "ecs");
    assert!(consul.get(&owned[0].id).await.unwrap().is_some());
    assert!(consul.delete(&owned[0].id).await.unwrap());
    let calls = script.calls();
    assert_eq!(
        calls[0],
        "GET /v1/acl/tokens?dc=dc2&partition=ecs&ns=*&authmethod=iam-ecs-service-token&authmethod-ns=default"
    );
    assert_eq!(calls[1], format!("{SERVICES}?dc=dc2&partition=ecs&ns=*"));
    assert_eq!(calls[3], "PUT /v1/txn?dc=dc2&partition=ecs");
    let removed = &script.body(3)[0]["Service"]["Service"];
    assert_eq!([&removed["Namespace"], &removed["Partition"]], ["team-1", "ecs"]);
}

#[tokio::test(start_paused = true)]
async fn writes_for_a_task_are_rejected() {
    let script = ScriptedConsulTransport::of(vec![]);
    let error = consul(&script).put(&token_id(1), &json!({})).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Invalid);
    assert!(script.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn foreign_id_is_rejected_without_a_call() {
    let script = ScriptedConsulTransport::of(vec![]);
    let consul = consul(&script);
    let elsewhere = RegistrationId { mesh: MeshName::parse("other").unwrap(), name: token_id(1).name };
    for id in [id("token/self"), id("web"), elsewhere] {
        assert_eq!(consul.get(&id).await.unwrap_err().kind, MeshErrorKind::Invalid, "{id}");
        assert_eq!(consul.delete(&id).await.unwrap_err().kind, MeshErrorKind::Invalid, "{id}");
    }
    assert!(script.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn refresh_reads_the_version_and_checks_the_token() {
    let agent = |version: &str| responds(200, &json!({"Config": {"Version": version}, "Member": {}}));
    let consul_1 = consul(&ScriptedConsulTransport::of(vec![agent("1.21.4+ent"), known_token()]));
    consul_1.refresh_capabilities(&BTreeSet::new()).await.unwrap();
    assert!(consul_1.version().unwrap().is_enterprise());
    assert_eq!(consul_1.token_expiry(), None, "it does not expire");
    let expiring = json!({"AccessorID": accessor(0), "ExpirationTime": "2026-12-24T18:00:00.5Z"});
    let consul_1 = consul(&ScriptedConsulTransport::of(vec![agent("1.21.4+ent"), responds(200, &expiring)]));
    consul_1.refresh_capabilities(&BTreeSet::new()).await.unwrap();
    assert_eq!(consul_1.token_expiry(), Timestamp::parse("2026-12-24T18:00:00.5Z"));
    // Access to the agent is not required; newer servers have a call for the version without permissions.
    for (version, expected) in [
        (text(404, "Invalid URL path: not a recognized HTTP API endpoint"), None),
        (responds(200, &json!({"HumanVersion": "1.16.6", "SHA": "e0ab4d29"})), Some("1.16.6")),
    ] {
        let leader = responds(200, &json!("10.0.0.1:8300"));
        let script =
            ScriptedConsulTransport::of(vec![text(403, "Permission denied"), leader, version, known_token()]);
        let consul = consul(&script);
        consul.refresh_capabilities(&BTreeSet::new()).await.unwrap();
        assert_eq!(consul.version().map(|version| version.text.clone()).as_deref(), expected);
    }
    for (responses, kind, words) in [
        (
            vec![text(403, "Permission denied"), responds(200, &json!(""))],
            MeshErrorKind::Unreachable,
            "no leader",
        ),
        (vec![agent("1.21.4"), unknown_token()], MeshErrorKind::Forbidden, "tokenFile"),
        (vec![agent("1.21.4"), text(401, "ACL support disabled")], MeshErrorKind::Forbidden, "ACLs are off"),
        (vec![text(200, "<html>")], MeshErrorKind::UnexpectedResponse, "spec.consul.address"),
        (
            vec![responds(200, &json!({"product": "Kuma"}))],
            MeshErrorKind::UnexpectedResponse,
            "spec.consul.address",
        ),
        (vec![text(404, "not here")], MeshErrorKind::UnexpectedResponse, "spec.consul.address"),
    ] {
        let error = consul(&ScriptedConsulTransport::of(responses))
            .refresh_capabilities(&BTreeSet::new())
            .await
            .unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(words), "{error}");
    }
    let script = ScriptedConsulTransport::of(vec![agent("1.21.4"), known_token()]);
    let spec = spec(&json!({"partition": "ecs"}));
    let consul = ConsulControlPlane::new(script, &spec, operator(), Arc::new(NoObserver));
    let error = consul.refresh_capabilities(&BTreeSet::new()).await.unwrap_err();
    assert!(error.message.contains("open-source edition"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn list_services_returns_catalog_names() {
    let script = ScriptedConsulTransport::of(vec![
        responds(200, &json!({"consul": [], "web": ["v1"]})),
        filtered(&json!({})),
    ]);
    let consul = consul(&script);
    let names = consul.list_services(&MeshName::default()).await.unwrap();
    assert_eq!(names, BTreeSet::from(["consul".to_owned(), "web".to_owned()]));
    assert_eq!(consul.list_services(&MeshName::default()).await.unwrap_err().kind, MeshErrorKind::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn auth_config_reports_each_rejected_call() {
    let link = |name: &str| json!({"ID": name, "Name": name});
    let script = ScriptedConsulTransport::of(vec![
        responds(200, &json!({"Config": {"Version": "1.21.4"}})),
        responds(200, &json!([{"Name": "m", "Type": "aws-iam"}, {"Name": "j", "Type": "jwt"}])),
        responds(200, &json!([{"Node": CLUSTER, "Address": "127.0.0.1"}])),
        responds(200, &json!({"Name": "m", "Type": "aws-iam", "Config": {"iamentitytags": ["t"]}})),
        filtered(&json!([])),
        responds(200, &json!([{"ID": "r", "Name": "anyone", "Policies": [link("more")]}])),
        responds(200, &json!({"Policies": [link("anonymous")], "Roles": [link("r")], "SecretID": "hunter2"})),
        responds(200, &json!({"ID": "1", "Name": "anonymous", "Rules": "acl = \"read\""})),
        responds(200, &json!({"ID": "2", "Name": "more", "Rules": "acl = \"write\""})),
    ]);
    let set_up = consul(&script).read_auth_config(&clusters()).await.unwrap();
    assert_eq!((set_up.acls, set_up.nodes), (Ok(true), Ok(clusters())));
    let methods = set_up.methods.unwrap();
    assert_eq!(methods[0].setting("IAMEntityTags"), Some(&json!(["t"])));
    assert_eq!((methods[1].kind.as_str(), methods[1].setting("IAMEntityTags")), ("jwt", None));
    assert_eq!(set_up.rules.unwrap_err().kind, MeshErrorKind::Forbidden, "filtered");
    let rules: Vec<String> = set_up.anonymous.unwrap().into_iter().map(|policy| policy.rules).collect();
    assert_eq!(rules, ["acl = \"read\"", "acl = \"write\""]);
}

#[tokio::test(start_paused = true)]
async fn disabled_acls_differ_from_unreadable_acls() {
    let agent = || responds(200, &json!({"Config": {"Version": "1.21.4"}}));
    let node = || responds(200, &json!([{"Node": CLUSTER, "Address": "127.0.0.1"}]));
    let off = ScriptedConsulTransport::of(vec![agent(), text(401, "ACL support disabled"), node()]);
    let off = consul(&off).read_auth_config(&clusters()).await.unwrap();
    assert_eq!((off.acls, off.methods, off.nodes), (Ok(false), Ok(vec![]), Ok(clusters())));
    let refused = || text(403, "Permission denied");
    let script = ScriptedConsulTransport::of(vec![
        agent(),
        refused(),
        node(),
        refused(),
        responds(200, &json!([])),
        refused(),
    ]);
    let denied = consul(&script).read_auth_config(&clusters()).await.unwrap();
    assert_eq!((denied.acls, denied.roles), (Ok(true), Ok(vec![])));
    assert!(denied.methods.is_err() && denied.rules.is_err() && denied.anonymous.is_err());
    let unreachable =
        consul(&ScriptedConsulTransport::of(vec![unreachable_server()])).read_auth_config(&clusters()).await;
    assert_eq!(unreachable.unwrap_err().kind, MeshErrorKind::Unreachable);
}

#[tokio::test(start_paused = true)]
async fn diagnostics_reads_fail_independently() {
    let node = json!([{"Node": CLUSTER, "Address": "127.0.0.1"}]);
    let tokens = json!([
        token(1),
        token_with_description(2, "by hand"),
        token_with_description(3, "token created via login")
    ]);
    let script = ScriptedConsulTransport::of(vec![
        text(403, "Permission denied"),
        responds(200, &json!("10.0.0.1:8300")),
        responds(200, &json!({"HumanVersion": "1.21.4"})),
        known_token(),
        responds(200, &tokens),
        responds(200, &json!({"Name": "iam-ecs-service-token", "Type": "aws-iam"})),
        responds(200, &json!([{"ID": "a", "AuthMethod": "iam-ecs-service-token"}])),
        text(403, "Permission denied"),
        responds(200, &json!([{"ID": "a", "Name": "r"}, {"ID": "b", "Name": "s"}])),
        responds(200, &node),
        services(&[service(1, 7)]),
        responds(
            200,
            &json!([{"Resource": "acl", "Access": "write", "Allow": false},
            {"Resource": "service", "Access": "write", "Allow": true},
            {"Resource": "service", "Segment": "web", "Access": "write", "Allow": false}]),
        ),
    ]);
    let request = DiagnosticsRequest {
        clusters: clusters(),
        methods: ["iam-ecs-service-token".into()].into(),
        permissions: [AclPermission::Acls, AclPermission::Services].into(),
    };
    let diagnostics = consul(&script).diagnose(&request).await;
    assert_eq!(diagnostics.version.unwrap().unwrap().text, "1.21.4");
    let probes = diagnostics.probes.unwrap();
    let own = probes.own_token.unwrap();
    assert_eq!((own.policies[0].name.as_str(), own.is_management()), ("operator", false));
    assert_eq!(probes.tokens, Ok(LoginTokenCounts { of_tasks: 1, unattributed: 2 }));
    let permissions = [
        (AclPermission::Acls, false),
        (AclPermission::Services, true),
        (AclPermission::Service("web".into()), false),
    ];
    assert_eq!(probes.permissions, Ok(permissions.into()));
    assert_eq!(probes.rules["iam-ecs-service-token"], Ok(1));
    let method = probes.methods["iam-ecs-service-token"].as_ref().unwrap().as_ref().unwrap();
    assert_eq!(method.kind, "aws-iam");
    assert_eq!(probes.policies.unwrap_err().kind, MeshErrorKind::Forbidden);
    assert_eq!(probes.roles, Ok(2));
    assert_eq!(probes.clusters[&cluster()], ClusterNodeInfo { has_node: Ok(true), services: Ok(1) });
    assert!(!probes.acls_are_off);
    let script = ScriptedConsulTransport::of(vec![
        responds(200, &json!({"Config": {"Version": "1.21.4+ent"}})),
        known_token(),
        responds(200, &json!({"Name": "team"})),
        text(404, "Namespace not found"),
        known_token(),
        text(403, "Permission denied"),
        text(403, "Permission denied"),
        text(403, "Permission denied"),
        text(403, "Permission denied"),
        text(403, "Permission denied"),
        text(403, "Permission denied"),
        text(403, "Permission denied"),
    ]);
    let consul_2 = consul_of(&script, &json!({"namespaces": ["team", "lost"]}), Arc::new(NoObserver));
    let request = DiagnosticsRequest {
        permissions: [AclPermission::Acls, AclPermission::Operator].into(),
        ..DiagnosticsRequest::default()
    };
    let probes = consul_2.diagnose(&request).await.probes.unwrap();
    assert_eq!(probes.namespaces, [("lost".to_owned(), Ok(false)), ("team".to_owned(), Ok(true))].into());
    assert_eq!(script.calls()[2..4], ["GET /v1/namespace/team", "GET /v1/namespace/lost"]);
    assert_eq!(probes.permissions.unwrap_err().kind, MeshErrorKind::Forbidden);
    let unreachable = consul(&ScriptedConsulTransport::of(vec![unreachable_server()]))
        .diagnose(&DiagnosticsRequest::default())
        .await;
    assert!(unreachable.version.is_err() && unreachable.probes.is_none());
}

#[tokio::test(start_paused = true)]
async fn missing_token_is_listed_in_the_same_scope() {
    let script = ScriptedConsulTransport::of(vec![text(404, "ACL not found"), text(403, "ACL not found")]);
    let spec = spec(&json!({"datacenter": "dc2", "partition": "ecs"}));
    let consul = ConsulControlPlane::new(script.clone(), &spec, operator(), Arc::new(NoObserver));
    let id = RegistrationId { mesh: MeshName::parse("ecs").unwrap(), ..token_id(1) };
    assert_eq!(consul.get(&id).await.unwrap_err().kind, MeshErrorKind::Forbidden);
    assert!(script.calls()[1].starts_with("GET /v1/acl/tokens?dc=dc2&partition=ecs"), "{:?}", script.calls());
}
