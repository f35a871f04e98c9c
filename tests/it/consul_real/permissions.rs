use std::collections::BTreeSet;

use ecs_mesh_consul::{AclPermission, ClusterNodeInfo, DiagnosticsRequest};
use ecs_mesh_control_plane::{ControlPlane as _, MeshError, MeshErrorKind, PartialList, list_owned};
use ecs_mesh_model::ClusterArn;

use super::server::{MANAGEMENT, METHOD, RealConsul, UNKNOWN, cluster, id, task};

at_real_consuls! {
    insufficient_token_proves_nothing(Acls::On)
    disabled_acls_are_reported(Acls::Off)
}

const READS: &str =
    "acl = \"read\" node_prefix \"\" { policy = \"read\" } service_prefix \"\" { policy = \"read\" }";

fn assert_forbidden(error: &MeshError, part: &str) {
    assert_eq!(error.kind, MeshErrorKind::Forbidden, "{error}");
    assert!(error.message.contains(part), "{error}");
}

/// The error of the token list. Not every server reports that it filters services, so the list may be empty instead.
fn refusal(listed: Result<PartialList, MeshError>) -> MeshError {
    match listed {
        Ok(mut listed) => {
            assert_eq!(listed.seen, []);
            listed.failed.swap_remove(0).error
        }
        Err(error) => error,
    }
}

async fn insufficient_token_proves_nothing(server: &RealConsul) {
    server.create_auth_method(METHOD).await;
    let anchor = cluster("anchor");
    let clusters = BTreeSet::from([anchor.clone()]);
    let task = task(&anchor, 1);
    let token = server.log_in_as(&task).await;
    let service = server.register(&task, "web").await;
    let never = id("token/4fa6e11c-21d1-3462-a316-99515e5544f7");

    for unknown in [server.client(Some(UNKNOWN)), server.client(None)] {
        for error in [
            unknown.refresh_capabilities(&BTreeSet::new()).await.unwrap_err(),
            refusal(list_owned(&unknown, &clusters).await),
            refusal(unknown.list_for_task(&task).await),
            unknown.get(&token).await.unwrap_err(),
            unknown.get(&never).await.unwrap_err(),
            unknown.get(&service).await.unwrap_err(),
            unknown.delete(&token).await.unwrap_err(),
            unknown.delete(&service).await.unwrap_err(),
        ] {
            assert_forbidden(&error, "spec.consul");
            assert!(!error.message.contains(UNKNOWN), "{error}");
        }
    }

    let blind =
        server.client(Some(&server.token_with("blind", "node_prefix \"\" { policy = \"read\" }").await));
    // The token needs no permission for the agent.
    blind.refresh_capabilities(&BTreeSet::new()).await.unwrap();
    let management = server.client(Some(MANAGEMENT));
    management.refresh_capabilities(&BTreeSet::new()).await.unwrap();
    let version = management.version().unwrap();
    // Newer servers show their version to everyone; the oldest needs the permission `agent:read`.
    if !version.has_iam_logins() {
        assert_eq!(blind.version(), None);
    } else if (version.major, version.minor) >= (1, 16) {
        assert_eq!(blind.version(), Some(version));
    }
    assert_forbidden(&refusal(list_owned(&blind, &clusters).await), "acl = \"read\"");
    assert_forbidden(&blind.get(&token).await.unwrap_err(), "acl = \"read\"");

    let reader = server.client(Some(&server.token_with("reader", READS).await));
    assert_eq!(list_owned(&reader, &clusters).await.unwrap().seen.len(), 2);
    assert!(reader.get(&service).await.unwrap().is_some());
    assert_eq!(reader.get(&never).await.unwrap(), None);
    assert_forbidden(&reader.delete(&token).await.unwrap_err(), "acl = \"write\"");
    assert_forbidden(
        &reader.delete(&service).await.unwrap_err(),
        "service_prefix \"\" { policy = \"write\" }",
    );
    let request = |clusters: &BTreeSet<ClusterArn>| DiagnosticsRequest {
        clusters: clusters.clone(),
        methods: [METHOD.into()].into(),
        permissions: [
            AclPermission::Acls,
            AclPermission::Services,
            AclPermission::Node("anchor".into()),
            AclPermission::Nodes("arn:".into()),
        ]
        .into(),
    };
    let web = AclPermission::Service("web".into());
    let survey = reader.diagnose(&request(&clusters)).await.probes.unwrap();
    assert_eq!(survey.own_token.unwrap().policies[0].name, "reader");
    assert_eq!((survey.tokens.unwrap().of_tasks, &survey.rules[METHOD]), (1, &Ok(1)));
    let permissions = survey.permissions.unwrap();
    assert!(permissions.contains_key(&web) && permissions.values().all(|may| !may), "{permissions:?}");
    assert_eq!(survey.clusters[&anchor], ClusterNodeInfo { has_node: Ok(true), services: Ok(1) });

    let all = server.client(Some(MANAGEMENT));
    assert!(all.get(&token).await.unwrap().is_some() && all.get(&service).await.unwrap().is_some());
    let survey = all.diagnose(&request(&clusters)).await.probes.unwrap();
    assert!(survey.own_token.unwrap().is_management());
    assert!(survey.permissions.unwrap().values().all(|may| *may));
    let rules = "acl = \"write\" service_prefix \"\" { policy = \"write\" } service \"web\" { policy = \"deny\" } \
                 node_prefix \"arn:\" { policy = \"write\" } node_prefix \"\" { policy = \"read\" } ";
    let some = server.client(Some(&server.token_with("some", rules).await));
    let permissions = some.diagnose(&request(&clusters)).await.probes.unwrap().permissions.unwrap();
    let lacking = permissions.iter().filter(|(_, may)| !**may).map(|(right, _)| right.clone());
    // Denied objects are not listed, so no call names them.
    assert_eq!(lacking.collect::<Vec<_>>(), [AclPermission::Node("anchor".into())]);
    // More permissions than one call checks.
    let many = (0..150).map(|number| AclPermission::Node(format!("arn:{number}").as_str().into()));
    let many = DiagnosticsRequest {
        permissions: many.chain([AclPermission::Node("x".into())]).collect(),
        ..DiagnosticsRequest::default()
    };
    let permissions = some.diagnose(&many).await.probes.unwrap().permissions.unwrap();
    assert_eq!((permissions.len(), permissions.values().filter(|may| !**may).count()), (151, 1));
}

async fn disabled_acls_are_reported(server: &RealConsul) {
    let consul = server.client(None);
    let clusters = BTreeSet::from([cluster("anchor")]);
    let request = DiagnosticsRequest { clusters: clusters.clone(), ..DiagnosticsRequest::default() };
    let answers = consul.diagnose(&request).await.probes.unwrap();
    assert!(answers.acls_are_off);
    for error in [
        consul.refresh_capabilities(&BTreeSet::new()).await.unwrap_err(),
        list_owned(&consul, &clusters).await.unwrap().failed.swap_remove(0).error,
        answers.own_token.unwrap_err(),
    ] {
        assert_forbidden(&error, "ACLs are off");
    }
}
