use ecs_mesh_consul::{
    AclPolicy, AclRole, AuthMethod, BindingRule, ClusterNode, DiagnosticsRequest, ObjectLink,
};
use ecs_mesh_control_plane::MeshErrorKind;
use serde_json::{Map, Value, json};

use super::server::{MANAGEMENT, METHOD, RealConsul, UNKNOWN, cluster, task};

at_real_consuls! {
    acl_objects_are_created_read_updated_and_removed(Acls::On)
    anonymous_token_and_nodes_are_kept(Acls::On)
}

fn map(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

async fn acl_objects_are_created_read_updated_and_removed(server: &RealConsul) {
    let objects = server.client(Some(MANAGEMENT)).objects();

    // Policies and roles are found by name and changed by id, and a name is unique.
    assert_eq!(objects.policy("ecs").await.unwrap(), None);
    let policy = AclPolicy {
        name: "ecs".into(),
        rules: "node \"a\" { policy = \"read\" }".into(),
        ..AclPolicy::default()
    };
    let made = objects.put_policy(&policy).await.unwrap();
    assert_eq!(objects.put_policy(&policy).await.unwrap_err().kind, MeshErrorKind::Invalid);
    let changed = AclPolicy { description: "changed".into(), ..made.clone() };
    objects.put_policy(&changed).await.unwrap();
    let found = objects.policy("ecs").await.unwrap().unwrap();
    assert_eq!((found.description.as_str(), &found.rules, &found.id), ("changed", &made.rules, &made.id));
    assert!(objects.policies().await.unwrap().iter().any(|policy| policy.name == "ecs"));

    assert_eq!(objects.role("ecs").await.unwrap(), None);
    let role = AclRole { name: "ecs".into(), policies: vec![ObjectLink::named("ecs")], ..AclRole::default() };
    let role = objects.put_role(&role).await.unwrap();
    assert_eq!(role.policies, [ObjectLink { id: made.id.clone(), name: "ecs".into() }]);
    let missing =
        AclRole { name: "other".into(), policies: vec![ObjectLink::named("none")], ..AclRole::default() };
    assert_eq!(objects.put_role(&missing).await.unwrap_err().kind, MeshErrorKind::Invalid);
    assert!(objects.delete_policy(&made.id).await.unwrap());
    assert_eq!(
        objects.role("ecs").await.unwrap().unwrap().policies,
        [],
        "a deleted policy is removed from its roles"
    );
    assert_eq!(objects.roles().await.unwrap().len(), 1);
    assert!(objects.delete_role(&role.id).await.unwrap());
    assert_eq!(objects.role("ecs").await.unwrap(), None);

    // An auth method is created and replaced by the same call, and its removal removes its rules.
    assert_eq!(objects.auth_method(METHOD).await.unwrap(), None);
    server.create_auth_method(METHOD).await;
    let method = objects.auth_method(METHOD).await.unwrap().unwrap();
    let described = AuthMethod { description: "ours".into(), ..method.clone() };
    objects.put_auth_method(&described).await.unwrap();
    let found = objects.auth_method(METHOD).await.unwrap().unwrap();
    assert_eq!((found.description.as_str(), &found.config), ("ours", &method.config));
    let other_kind = AuthMethod { kind: "kubernetes".into(), ..found };
    assert_eq!(objects.put_auth_method(&other_kind).await.unwrap_err().kind, MeshErrorKind::Invalid);
    assert_eq!(objects.auth_methods().await.unwrap()[0].name, METHOD);

    let rule = BindingRule {
        auth_method: METHOD.into(),
        bind_type: "role".into(),
        bind_name: "gateway".into(),
        selector: "value.service == \"gw\"".into(),
        ..BindingRule::default()
    };
    let rule = objects.put_binding_rule(&rule).await.unwrap();
    let twice = objects.put_binding_rule(&BindingRule { id: String::new(), ..rule.clone() }).await.unwrap();
    assert_ne!(rule.id, twice.id, "twice makes two");
    assert_eq!(objects.binding_rules(METHOD).await.unwrap().len(), 3);
    let changed = BindingRule { description: "changed".into(), ..rule.clone() };
    objects.put_binding_rule(&changed).await.unwrap();
    assert_eq!(objects.binding_rule(&rule.id).await.unwrap().unwrap().description, "changed");
    let moved = BindingRule { auth_method: "other".into(), ..rule.clone() };
    assert_eq!(objects.put_binding_rule(&moved).await.unwrap_err().kind, MeshErrorKind::Invalid);
    assert!(objects.delete_binding_rule(&twice.id).await.unwrap());
    assert_eq!(objects.binding_rule(&twice.id).await.unwrap(), None);
    let unknown = server.client(Some(UNKNOWN)).objects();
    for error in [
        unknown.binding_rule(&rule.id).await.unwrap_err(),
        unknown.auth_method("none").await.unwrap_err(),
        unknown.delete_binding_rule(&rule.id).await.unwrap_err(),
        unknown.node(&cluster("none")).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, MeshErrorKind::Forbidden, "{error}");
    }
    assert!(objects.delete_auth_method_with_its_tokens(METHOD).await.unwrap());
    assert_eq!(objects.binding_rules(METHOD).await.unwrap(), []);
}

async fn anonymous_token_and_nodes_are_kept(server: &RealConsul) {
    let objects = server.client(Some(MANAGEMENT)).objects();
    let policy = AclPolicy { name: "anonymous".into(), ..AclPolicy::default() };
    objects.put_policy(&policy).await.unwrap();
    let mut token = objects.anonymous_token().await.unwrap().unwrap();
    assert!(!format!("{token:?}").contains("SecretID"), "{token:?}");
    token.policies.push(ObjectLink::named("anonymous"));
    objects.put_anonymous_token(&token).await.unwrap();
    let found = objects.anonymous_token().await.unwrap().unwrap();
    assert_eq!((found.policies[0].name.as_str(), &found.description), ("anonymous", &token.description));

    let anchor = cluster("anchor");
    assert_eq!(objects.node(&anchor).await.unwrap(), None);
    let node = ClusterNode {
        node: anchor.to_string(),
        address: "127.0.0.1".into(),
        meta: [("synthetic-node".to_owned(), "true".to_owned())].into(),
        other: map(json!({"ID": ""})),
        ..ClusterNode::default()
    };
    objects.register_node(&node).await.unwrap();
    server.register(&task(&anchor, 1), "web").await;
    let found = objects.node(&anchor).await.unwrap().unwrap();
    assert_eq!((&found.node, &found.address, &found.meta), (&node.node, &node.address, &node.meta));
    objects.register_node(&ClusterNode { meta: [].into(), ..found }).await.unwrap();
    assert!(objects.node(&anchor).await.unwrap().unwrap().meta.is_empty());
    let request = DiagnosticsRequest { clusters: [anchor.clone()].into(), ..DiagnosticsRequest::default() };
    let kept = server.client(Some(MANAGEMENT)).diagnose(&request).await.probes.unwrap();
    assert_eq!(kept.clusters[&anchor].services, Ok(1), "its services stay");
    objects.deregister_node_with_its_services(&anchor).await.unwrap();
    assert_eq!(objects.node(&anchor).await.unwrap(), None);
}
