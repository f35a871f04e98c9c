use super::*;
use ecs_mesh_control_plane::MeshErrorKind;

#[tokio::test(start_paused = true)]
async fn put_creates_without_id_and_replaces_with_id() {
    let rule = BindingRule {
        auth_method: "m".into(),
        bind_type: "service".into(),
        bind_name: "${x}".into(),
        ..BindingRule::default()
    };
    let stored = json!({
        "ID": accessor(1), "AuthMethod": "m", "Selector": "", "BindType": "service", "BindName": "${x}",
        "BindVars": {"name": "x"}, "CreateIndex": 3, "ModifyIndex": 4,
    });
    let script = ScriptedConsulTransport::of(vec![responds(200, &stored), responds(200, &stored)]);
    let objects = consul(&script).objects();
    let made = objects.put_binding_rule(&rule).await.unwrap();
    assert_eq!((made.id.clone(), made.modify_index), (accessor(1), 4));
    objects.put_binding_rule(&made).await.unwrap();
    assert_eq!(
        script.calls(),
        ["PUT /v1/acl/binding-rule".to_owned(), format!("PUT /v1/acl/binding-rule/{}", accessor(1))]
    );
    let sent = script.body(1);
    assert_eq!(sent["BindVars"], json!({"name": "x"}), "what is not known is kept");
    assert!(sent.get("ModifyIndex").is_none() && sent.get("CreateIndex").is_none(), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn name_conflict_is_not_a_server_error() {
    let script = ScriptedConsulTransport::of(vec![
        text(500, "Invalid Policy: it already exists"),
        text(500, "rpc error making call: Invalid Role: it already exists"),
        text(500, "No cluster leader"),
    ]);
    let objects = consul(&script).objects();
    let policy = AclPolicy { name: "p".into(), ..AclPolicy::default() };
    assert_eq!(objects.put_policy(&policy).await.unwrap_err().kind, MeshErrorKind::Invalid);
    let role = AclRole { name: "r".into(), ..AclRole::default() };
    assert_eq!(objects.put_role(&role).await.unwrap_err().kind, MeshErrorKind::Invalid);
    assert_eq!(objects.put_role(&role).await.unwrap_err().kind, MeshErrorKind::Unreachable);
}

#[tokio::test(start_paused = true)]
async fn object_is_missing_only_when_own_token_is_valid() {
    let missing = text(404, "Requested role does not exist: ACL not found");
    let script = ScriptedConsulTransport::of(vec![
        missing.clone(),
        known_token(),
        text(404, ""),
        text(403, "ACL not found"),
    ]);
    let objects = consul(&script).objects();
    assert_eq!(objects.role("r").await.unwrap(), None);
    assert_eq!(objects.auth_method("m").await.unwrap(), None);
    // Old servers respond this way to a missing policy.
    assert_eq!(objects.policy("p").await.unwrap(), None);
    let objects = consul(&ScriptedConsulTransport::of(vec![missing, unknown_token()])).objects();
    assert_eq!(objects.role("r").await.unwrap_err().kind, MeshErrorKind::Forbidden);
    let gone = || text(404, "Cannot find binding rule to delete");
    // A check before a response proves nothing about that response.
    for checks in
        [vec![gone(), unknown_token()], vec![gone(), known_token(), unknown_token(), unknown_token()]]
    {
        let objects = consul(&ScriptedConsulTransport::of(checks)).objects();
        let error = objects.delete_binding_rule(&accessor(1)).await.unwrap_err();
        assert_eq!(error.kind, MeshErrorKind::Forbidden, "{error}");
    }
    let objects =
        consul(&ScriptedConsulTransport::of(vec![gone(), known_token(), text(404, ""), known_token()]))
            .objects();
    assert!(!objects.delete_binding_rule(&accessor(1)).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn cluster_node_is_registered_as_synthetic() {
    let script = ScriptedConsulTransport::of(vec![
        responds(200, &json!([])),
        known_token(),
        responds(200, &json!(true)),
        responds(
            200,
            &json!([{"Node": CLUSTER, "ID": "", "Address": "127.0.0.1", "Meta": {"synthetic-node": "true"},
            "TaggedAddresses": null, "ModifyIndex": 9}]),
        ),
    ]);
    let objects = consul(&script).objects();
    assert_eq!(objects.node(&cluster()).await.unwrap(), None);
    let node = ClusterNode {
        node: CLUSTER.into(),
        address: "127.0.0.1".into(),
        meta: [("synthetic-node".to_owned(), "true".to_owned())].into(),
        ..ClusterNode::default()
    };
    objects.register_node(&node).await.unwrap();
    let sent = json!({"Node": CLUSTER, "Address": "127.0.0.1", "NodeMeta": {"synthetic-node": "true"}});
    assert_eq!(script.body(2), sent);
    let found = objects.node(&cluster()).await.unwrap().unwrap();
    assert_eq!((found.meta, found.modify_index), (node.meta, 9));
}

#[tokio::test(start_paused = true)]
async fn namespaced_objects_are_read_in_their_namespace() {
    let script = ScriptedConsulTransport::of(vec![
        responds(200, &json!([])),
        responds(200, &json!({"Name": "team-1", "ACLs": null})),
    ]);
    let objects = consul(&script).objects();
    objects.in_namespace("team-1").policies().await.unwrap();
    let found = objects.namespace("team-1").await.unwrap().unwrap();
    assert_eq!(found.acls, NamespaceAcls::default());
    assert_eq!(script.calls(), ["GET /v1/acl/policies?ns=team-1", "GET /v1/namespace/team-1"]);
}
