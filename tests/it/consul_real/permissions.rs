use std::collections::BTreeSet;

use ecs_mesh_consul::{Asked, OfCluster, Right};
use ecs_mesh_control_plane::{ControlPlane as _, Listed, MeshError, MeshErrorKind, owned};
use ecs_mesh_model::ClusterArn;

use super::server::{MANAGEMENT, METHOD, Server, UNKNOWN, cluster, id, task};

at_real_consuls! {
    a_token_that_does_not_reach_proves_nothing_and_what_it_lacks_is_named(Acls::On)
    where_acls_are_off_it_is_said_so(Acls::Off)
}

const READS: &str =
    "acl = \"read\" node_prefix \"\" { policy = \"read\" } service_prefix \"\" { policy = \"read\" }";

fn assert_forbidden(error: &MeshError, words: &str) {
    assert_eq!(error.kind, MeshErrorKind::Forbidden, "{error}");
    assert!(error.message.contains(words), "{error}");
}

/// Why tokens are not listed. Not every server says that it leaves out services, too, so there may be a list without.
fn refusal(listed: Result<Listed, MeshError>) -> MeshError {
    match listed {
        Ok(mut listed) => {
            assert_eq!(listed.seen, []);
            listed.failed.swap_remove(0).error
        }
        Err(error) => error,
    }
}

async fn a_token_that_does_not_reach_proves_nothing_and_what_it_lacks_is_named(server: &Server) {
    server.let_tasks_log_in(METHOD).await;
    let anchor = cluster("anchor");
    let clusters = BTreeSet::from([anchor.clone()]);
    let task = task(&anchor, 1);
    let token = server.log_in_as(&task).await;
    let service = server.register(&task, "web").await;
    let never = id("token/4fa6e11c-21d1-3462-a316-99515e5544f7");

    for unknown in [server.client(Some(UNKNOWN)), server.client(None)] {
        for error in [
            unknown.refresh(&BTreeSet::new()).await.unwrap_err(),
            refusal(owned(&unknown, &clusters).await),
            refusal(unknown.find(&task).await),
            unknown.read(&token).await.unwrap_err(),
            unknown.read(&never).await.unwrap_err(),
            unknown.read(&service).await.unwrap_err(),
            unknown.delete(&token).await.unwrap_err(),
            unknown.delete(&service).await.unwrap_err(),
        ] {
            assert_forbidden(&error, "spec.consul");
            assert!(!error.message.contains(UNKNOWN), "{error}");
        }
    }

    let blind =
        server.client(Some(&server.token_with("blind", "node_prefix \"\" { policy = \"read\" }").await));
    // It need not see the agent.
    blind.refresh(&BTreeSet::new()).await.unwrap();
    let management = server.client(Some(MANAGEMENT));
    management.refresh(&BTreeSet::new()).await.unwrap();
    let told = management.version().unwrap();
    // Newer servers tell everybody their version, and the oldest only whom they let see the agent.
    if !told.has_iam_logins() {
        assert_eq!(blind.version(), None);
    } else if (told.major, told.minor) >= (1, 16) {
        assert_eq!(blind.version(), Some(told));
    }
    assert_forbidden(&refusal(owned(&blind, &clusters).await), "acl = \"read\"");
    assert_forbidden(&blind.read(&token).await.unwrap_err(), "acl = \"read\"");

    let reader = server.client(Some(&server.token_with("reader", READS).await));
    assert_eq!(owned(&reader, &clusters).await.unwrap().seen.len(), 2);
    assert!(reader.read(&service).await.unwrap().is_some());
    assert_eq!(reader.read(&never).await.unwrap(), None);
    assert_forbidden(&reader.delete(&token).await.unwrap_err(), "acl = \"write\"");
    assert_forbidden(
        &reader.delete(&service).await.unwrap_err(),
        "service_prefix \"\" { policy = \"write\" }",
    );
    let asked = |clusters: &BTreeSet<ClusterArn>| Asked {
        clusters: clusters.clone(),
        methods: [METHOD.into()].into(),
        rights: [Right::Acls, Right::Services, Right::Node("anchor".into()), Right::Nodes("arn:".into())]
            .into(),
    };
    let web = Right::Service("web".into());
    let survey = reader.survey(&asked(&clusters)).await.answers.unwrap();
    assert_eq!(survey.own_token.unwrap().policies[0].name, "reader");
    assert_eq!((survey.tokens.unwrap().of_tasks, &survey.rules[METHOD]), (1, &Ok(1)));
    let rights = survey.rights.unwrap();
    assert!(rights.contains_key(&web) && rights.values().all(|may| !may), "{rights:?}");
    assert_eq!(survey.clusters[&anchor], OfCluster { has_node: Ok(true), services: Ok(1) });

    let all = server.client(Some(MANAGEMENT));
    assert!(all.read(&token).await.unwrap().is_some() && all.read(&service).await.unwrap().is_some());
    let survey = all.survey(&asked(&clusters)).await.answers.unwrap();
    assert!(survey.own_token.unwrap().is_management());
    assert!(survey.rights.unwrap().values().all(|may| *may));
    let rules = "acl = \"write\" service_prefix \"\" { policy = \"write\" } service \"web\" { policy = \"deny\" } \
                 node_prefix \"arn:\" { policy = \"write\" } node_prefix \"\" { policy = \"read\" } ";
    let some = server.client(Some(&server.token_with("some", rules).await));
    let rights = some.survey(&asked(&clusters)).await.answers.unwrap().rights.unwrap();
    let lacking = rights.iter().filter(|(_, may)| !**may).map(|(right, _)| right.clone());
    // What is denied is not shown, so that nobody asks for it by name.
    assert_eq!(lacking.collect::<Vec<_>>(), [Right::Node("anchor".into())]);
    // More than one call's.
    let many = (0..150).map(|number| Right::Node(format!("arn:{number}").as_str().into()));
    let many = Asked { rights: many.chain([Right::Node("x".into())]).collect(), ..Asked::default() };
    let rights = some.survey(&many).await.answers.unwrap().rights.unwrap();
    assert_eq!((rights.len(), rights.values().filter(|may| !**may).count()), (151, 1));
}

async fn where_acls_are_off_it_is_said_so(server: &Server) {
    let consul = server.client(None);
    let clusters = BTreeSet::from([cluster("anchor")]);
    let asked = Asked { clusters: clusters.clone(), ..Asked::default() };
    let answers = consul.survey(&asked).await.answers.unwrap();
    assert!(answers.acls_are_off);
    for error in [
        consul.refresh(&BTreeSet::new()).await.unwrap_err(),
        owned(&consul, &clusters).await.unwrap().failed.swap_remove(0).error,
        answers.own_token.unwrap_err(),
    ] {
        assert_forbidden(&error, "ACLs are off");
    }
}
