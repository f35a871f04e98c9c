use std::collections::BTreeSet;
use std::sync::Arc;

use ecs_mesh_control_plane::{
    ControlPlane as _, MeshErrorKind, RegistrationOwner, RegistrationSummary, list_owned,
};
use ecs_mesh_core::intent::{OwnershipLabels, RegistrationId};
use ecs_mesh_model::OperatorId;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::server::{MANAGEMENT, METHOD, RealConsul, cluster, id, task};

at_real_consuls! {
    only_the_tasks_objects_are_found_and_removed(Acls::On)
    batch_removal_skips_reregistered_service(Acls::On)
    transaction_size_is_limited(Acls::On)
}

fn ids(found: &[RegistrationSummary]) -> BTreeSet<RegistrationId> {
    found.iter().map(|registration| registration.id.clone()).collect()
}

async fn only_the_tasks_objects_are_found_and_removed(server: &RealConsul) {
    let consul = server.client(Some(MANAGEMENT));
    consul.refresh_capabilities(&BTreeSet::new()).await.unwrap();
    assert!(consul.version().is_some());
    server.create_auth_method(METHOD).await;
    server.create_auth_method("other").await;
    let (anchor, other) = (cluster("anchor"), cluster("other"));
    let (gone, alive, elsewhere) = (task(&anchor, 1), task(&anchor, 2), task(&other, 1));
    let mut of_gone = BTreeSet::new();
    let mut foreign_ids = BTreeSet::new();
    of_gone.insert(server.log_in_as(&gone).await);
    of_gone.insert(server.log_in_as(&gone).await);
    of_gone.insert(server.register(&gone, "web").await);
    of_gone.insert(server.register(&gone, "web-sidecar-proxy").await);
    foreign_ids.insert(server.log_in_as(&alive).await);
    foreign_ids.insert(server.register(&alive, "web").await);
    let not_here = [server.log_in_as(&elsewhere).await, server.register(&elsewhere, "web").await];
    // Neither may be removed.
    let foreign = [
        server.log_in(METHOD, json!({})).await,
        server.log_in(METHOD, json!({"consul.hashicorp.com/task-id": "x"})).await,
        server
            .log_in(
                "other",
                json!({"consul.hashicorp.com/cluster": anchor.as_str(), "consul.hashicorp.com/task-id": "x"}),
            )
            .await,
    ];
    server.register_as(&anchor, "stray", "stray", &json!({"source": "consul-ecs"})).await;
    server.register_as(&anchor, "vm", "vm", &json!({"task-id": gone.id().as_str()})).await;

    let owned = list_owned(&consul, &BTreeSet::from([anchor.clone()])).await.unwrap().seen;
    assert_eq!(ids(&owned), of_gone.union(&foreign_ids).cloned().collect());
    let found = consul.list_for_task(&gone).await.unwrap().seen;
    assert_eq!(ids(&found), of_gone);
    let ours = RegistrationOwner::Owned(OwnershipLabels::of(&OperatorId::parse("op").unwrap(), &gone));
    for registration in &found {
        assert_eq!(registration.owner, ours);
        let read = consul.get(&registration.id).await.unwrap().unwrap();
        assert_eq!(&RegistrationSummary::from(&read), registration);
        assert!(consul.delete(&registration.id).await.unwrap(), "{}", registration.id);
        assert_eq!(consul.get(&registration.id).await.unwrap(), None, "{}", registration.id);
    }
    assert_eq!(consul.list_for_task(&gone).await.unwrap().seen, []);
    let checks = ["stray", "vm", &format!("web-{}", alive.id())].map(|service| format!("{service}-check"));
    assert_eq!(server.checks_on(&anchor).await, checks.into(), "a service's checks go with it");
    assert_eq!(ids(&consul.list_for_task(&alive).await.unwrap().seen), foreign_ids);
    for id in &not_here {
        assert!(consul.get(id).await.unwrap().is_some(), "{id}");
    }
    for accessor in foreign {
        let read = consul.get(&id(&format!("token/{accessor}"))).await.unwrap().unwrap();
        assert_eq!(read.owner, RegistrationOwner::Foreign, "{accessor}");
    }
    for service in ["stray", "vm"] {
        let read = consul.get(&id(&format!("service/{service}@{anchor}"))).await.unwrap().unwrap();
        assert_eq!(read.owner, RegistrationOwner::Foreign, "{service}");
    }
    // A second removal finds nothing.
    assert!(!consul.delete(&id(&format!("service/web-{}@{anchor}", gone.id()))).await.unwrap());
    assert!(!consul.delete(&id(&format!("service/web@{}", cluster("never")))).await.unwrap());
    let names = consul.list_services(&ecs_mesh_model::MeshName::default()).await.unwrap();
    assert!(names.contains("web") && names.contains("vm"), "{names:?}");
}

async fn batch_removal_skips_reregistered_service(server: &RealConsul) {
    let consul = Arc::new(server.client(Some(MANAGEMENT)));
    consul.refresh_capabilities(&BTreeSet::new()).await.unwrap();
    let anchor = cluster("anchor");
    let mut services = Vec::new();
    for number in 0..150 {
        services.push(server.register(&task(&anchor, number), "web").await);
    }
    let mut finds = JoinSet::new();
    for number in 0..150 {
        let (consul, task) = (Arc::clone(&consul), task(&anchor, number));
        finds.spawn(async move { consul.list_for_task(&task).await.unwrap().seen.len() });
    }
    assert_eq!(finds.join_all().await, vec![1; 150]);
    for id in &services {
        assert!(consul.get(id).await.unwrap().is_some());
    }
    // The same id is registered again with other content.
    let meta = json!({"source": "consul-ecs", "task-id": task(&anchor, 7).id().as_str(), "new": "yes"});
    server.register_as(&anchor, &format!("web-{}", task(&anchor, 7).id()), "web", &meta).await;
    let mut removals = JoinSet::new();
    for id in services.clone() {
        let consul = Arc::clone(&consul);
        removals.spawn(async move { (consul.delete(&id).await, id) });
    }
    for (outcome, id) in removals.join_all().await {
        if id == services[7] {
            assert_eq!(outcome.unwrap_err().kind, MeshErrorKind::Conflict);
        } else {
            assert_eq!(outcome, Ok(true), "{id}");
        }
    }
    let left = list_owned(&*consul, &BTreeSet::from([anchor])).await.unwrap().seen;
    assert_eq!(ids(&left), BTreeSet::from([services[7].clone()]));
    // After another read the removal succeeds.
    consul.get(&services[7]).await.unwrap();
    assert!(consul.delete(&services[7]).await.unwrap());
}

async fn transaction_size_is_limited(server: &RealConsul) {
    let consul = server.client(Some(MANAGEMENT));
    consul.refresh_capabilities(&BTreeSet::new()).await.unwrap();
    let version = consul.version().unwrap();
    let most = if (version.major, version.minor) >= (1, 14) { 128 } else { 64 };
    let service = json!({"ID": "none", "Service": "web"});
    let operation = json!({"Service": {"Verb": "delete", "Node": "anchor", "Service": service}});
    for (number, is_taken) in [(most, true), (most + 1, false)] {
        let transaction = Value::from(vec![operation.clone(); number]);
        let answer = server.ask("PUT", "/v1/txn", Some(&transaction)).await;
        assert_eq!(answer.is_some(), is_taken, "{number} operations, at {version}");
    }
}
