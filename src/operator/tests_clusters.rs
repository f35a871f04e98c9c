//! Clusters that were deleted: their registrations are removed on evidence of ECS, or on a person's word.

use std::time::Duration;

use tokio::time::sleep;

use super::context::{KnownClusters, MAX_REGISTERED_CLUSTERS, NamedCluster};
use super::test_fixture::{OperatorFixture, workloads};
use ecs_mesh_aws::aws::{AwsErrorKind, ClusterStatus};
use ecs_mesh_model::{ClusterArn, ClusterId, TaskArn};
use ecs_mesh_sandbox::kuma::KumaRequest;

/// The cluster of the fixture's tasks.
const CLUSTER: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/c";

/// Longer than two sweeps and the grace age.
const WHILE: Duration = Duration::from_mins(5);

/// Registrations of 12 tasks, of which the guard admits 3 an hour. The operator restarts after ECS has deleted the cluster.
async fn after_deletion(status: ClusterStatus, error: AwsErrorKind, cleanup: &str) -> OperatorFixture {
    let mut fixture = OperatorFixture::new(&[("a", 12)]);
    fixture.edit(&workloads(&["a"]));
    fixture.start();
    sleep(WHILE).await;
    assert_eq!(fixture.serving()["a"], 12);
    // Without tasks, ECS lists no cluster any more.
    fixture.ecs.tasks.lock().unwrap().clear();
    *fixture.ecs.deleted.lock().unwrap() = Some((status, error));
    fixture.cleanup = format!("{{sweepInterval: 30s, graceAge: 1m, drain: 1s{cleanup}}}");
    fixture.edit(&workloads(&["a"]));
    fixture.start();
    fixture
}

#[tokio::test(start_paused = true)]
async fn inactive_cluster_is_cleaned_up_within_the_guard() {
    for error in [AwsErrorKind::NotFound, AwsErrorKind::Invalid] {
        let fixture = after_deletion(ClusterStatus::Inactive, error, "").await;
        sleep(Duration::from_secs(50)).await;
        assert_eq!(fixture.serving()["a"], 12, "before the grace age");
        sleep(WHILE).await;
        assert_eq!(fixture.serving()["a"], 9, "the guard admits 30 % an hour");
        sleep(Duration::from_hours(12)).await;
        assert_eq!(fixture.serving().get("a"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn cluster_that_ecs_does_not_find_needs_a_persons_word() {
    let mut fixture = after_deletion(ClusterStatus::Missing, AwsErrorKind::NotFound, "").await;
    sleep(Duration::from_hours(2)).await;
    assert_eq!(fixture.serving()["a"], 12);
    fixture.cleanup =
        format!("{{sweepInterval: 30s, graceAge: 1m, drain: 1s, removedClusters: [\"{CLUSTER}\"]}}");
    fixture.edit(&workloads(&["a"]));
    sleep(WHILE).await;
    assert_eq!(fixture.serving()["a"], 9, "the guard admits 30 % an hour");
    sleep(Duration::from_hours(12)).await;
    assert_eq!(fixture.serving().get("a"), None);
}

#[tokio::test(start_paused = true)]
async fn failing_cluster_is_not_taken_for_a_deleted_one() {
    let declared = format!(", removedClusters: [\"{CLUSTER}\"]");
    for (status, error) in [
        (ClusterStatus::Exists, AwsErrorKind::Invalid),
        (ClusterStatus::Inactive, AwsErrorKind::Unavailable),
        (ClusterStatus::Missing, AwsErrorKind::Denied),
    ] {
        let fixture = after_deletion(status, error, &declared).await;
        sleep(Duration::from_hours(2)).await;
        assert_eq!(fixture.serving()["a"], 12, "{status:?} {error:?}");
    }
}

fn unknown_cluster(n: usize) -> ClusterArn {
    ClusterArn::parse(&format!("arn:aws:ecs:eu-west-1:111122223333:cluster/unknown-{n}")).unwrap()
}

/// A writer of Dataplanes may name any cluster in their labels. Each known one costs lists.
#[tokio::test(start_paused = true)]
async fn flood_of_named_clusters_does_not_grow_the_operator() {
    const OVER: usize = 50;
    let mut fixture = OperatorFixture::new(&[("a", 2)]);
    for n in 0..MAX_REGISTERED_CLUSTERS + OVER {
        let cluster = unknown_cluster(n);
        let (name, id, task) = (cluster.name(), ClusterId::of(&cluster), format!("{n:032x}"));
        let body = serde_json::json!({
            "type": "Dataplane", "mesh": "default", "name": task,
            "labels": {
                "ecs-mesh.dev/operator": "op", "ecs-mesh.dev/cluster": name,
                "ecs-mesh.dev/cluster-id": id.as_str(), "ecs-mesh.dev/task-id": task,
            },
            "networking": {"address": "10.250.0.1", "inbound": [{
                "port": 15000, "servicePort": 8080, "tags": {"kuma.io/service": "flood"},
            }]},
        });
        let path = format!("/meshes/default/dataplanes/{task}");
        let request = KumaRequest::json("PUT", &path, body.to_string().into_bytes());
        assert_eq!(fixture.kuma.lock().unwrap().handle(fixture.clock.now(), &request).status, 201);
    }
    fixture.edit(&workloads(&["a"]));
    fixture.start();
    sleep(Duration::from_mins(10)).await;
    let worker = fixture.operator.as_ref().unwrap().workers()["kuma"].clone();
    let registered = worker.registry.tasks();
    let clusters: std::collections::BTreeSet<_> = registered.iter().map(TaskArn::cluster).collect();
    assert_eq!(clusters.len(), MAX_REGISTERED_CLUSTERS + 1);
    assert_eq!(worker.unattributed_registrations(), OVER);
    let serving = fixture.serving();
    assert_eq!((serving["a"], serving["flood"]), (2, MAX_REGISTERED_CLUSTERS + OVER), "none is removed");
}

#[test]
fn cluster_that_ecs_lists_is_known_beyond_the_limit() {
    let clusters = KnownClusters::default();
    for n in 0..MAX_REGISTERED_CLUSTERS {
        assert_eq!(clusters.record_registered(&unknown_cluster(n)), NamedCluster::New);
    }
    let another = unknown_cluster(MAX_REGISTERED_CLUSTERS);
    assert_eq!(clusters.record_registered(&another), NamedCluster::OverLimit);
    assert!(!clusters.by_id().contains_key(&ClusterId::of(&another)));
    assert_eq!(clusters.record_registered(&unknown_cluster(0)), NamedCluster::Known);

    clusters.record(&another);
    assert_eq!(clusters.by_id()[&ClusterId::of(&another)], another);
    assert_eq!(clusters.registered_only().len(), MAX_REGISTERED_CLUSTERS);
    // One that ECS lists after all makes room.
    clusters.record(&unknown_cluster(0));
    assert_eq!(clusters.record_registered(&unknown_cluster(MAX_REGISTERED_CLUSTERS + 1)), NamedCluster::New);
}
