//! Clusters that were deleted: their registrations are removed on evidence of ECS, or on a person's word.

use std::time::Duration;

use tokio::time::sleep;

use super::test_fixture::{OperatorFixture, workloads};
use ecs_mesh_aws::aws::{AwsErrorKind, ClusterStatus};

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
