//! Whether a cluster no longer exists, once ECS has refused a call on it. A deleted cluster has no tasks: `DeleteCluster`
//! fails while it has any.
//!
//! Source: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteCluster.html>.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::aws::{AwsError, AwsErrorKind, ClusterStatus, Ecs};
use super::read_buckets::ReadBuckets;
use ecs_mesh_model::ClusterArn;

/// Finds out whether clusters exist.
pub struct ClusterChecker {
    ecs: Arc<dyn Ecs>,
    buckets: ReadBuckets,
    /// Clusters that a person has declared as deleted.
    removed: ArcSwap<BTreeSet<ClusterArn>>,
}

/// The answer of [`ClusterChecker::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterExistence {
    /// The cluster exists, or that is unknown.
    NotDeleted,
    /// The cluster has been deleted: ECS says so, or ECS does not find it and the manifests declare it as removed.
    Deleted,
    /// ECS does not find the cluster, which proves nothing: its name may be misspelt, or the Region or account another one.
    NotFound,
}

impl ClusterChecker {
    /// Calls take tokens from `buckets`.
    pub fn new(ecs: Arc<dyn Ecs>, buckets: impl Into<ReadBuckets>) -> Self {
        Self { ecs, buckets: buckets.into(), removed: ArcSwap::default() }
    }

    /// Sets the clusters that a person has declared as deleted.
    pub fn set_removed(&self, clusters: BTreeSet<ClusterArn>) {
        self.removed.store(Arc::new(clusters));
    }

    /// Whether the cluster has been deleted, given the error of a call on it. Asks ECS where the error may be due to that:
    /// ECS answers with `ClusterNotFoundException`, or with `InvalidParameterException` for a while after the deletion.
    pub async fn check(&self, cluster: &ClusterArn, error: &AwsError) -> ClusterExistence {
        if !matches!(error.kind, AwsErrorKind::NotFound | AwsErrorKind::Invalid) {
            return ClusterExistence::NotDeleted;
        }
        self.buckets.of_cluster(cluster).acquire(1).await;
        match self.ecs.describe_cluster(cluster).await {
            Ok(ClusterStatus::Inactive) => ClusterExistence::Deleted,
            Ok(ClusterStatus::Missing) if self.removed.load().contains(cluster) => ClusterExistence::Deleted,
            Ok(ClusterStatus::Missing) => ClusterExistence::NotFound,
            Ok(ClusterStatus::Exists) => ClusterExistence::NotDeleted,
            Err(error) => {
                tracing::debug!(%cluster, %error, "cannot describe the cluster");
                ClusterExistence::NotDeleted
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::fakes::{FakeEcs, task_arn};
    use super::*;
    use ecs_mesh_controller::TokenBucket;

    #[tokio::test(start_paused = true)]
    async fn deleted_cluster_is_found_by_status_or_by_a_persons_word() {
        let cluster = task_arn(1).cluster().clone();
        for (kind, status, declared, expected) in [
            (AwsErrorKind::NotFound, ClusterStatus::Inactive, false, ClusterExistence::Deleted),
            (AwsErrorKind::Invalid, ClusterStatus::Inactive, false, ClusterExistence::Deleted),
            (AwsErrorKind::NotFound, ClusterStatus::Missing, false, ClusterExistence::NotFound),
            (AwsErrorKind::NotFound, ClusterStatus::Missing, true, ClusterExistence::Deleted),
            (AwsErrorKind::NotFound, ClusterStatus::Exists, true, ClusterExistence::NotDeleted),
            // The error says nothing about the cluster.
            (AwsErrorKind::Unavailable, ClusterStatus::Inactive, true, ClusterExistence::NotDeleted),
            (AwsErrorKind::Denied, ClusterStatus::Inactive, true, ClusterExistence::NotDeleted),
        ] {
            let ecs = FakeEcs { deleted: Mutex::new(Some((status, kind))), ..FakeEcs::default() };
            let ecs = Arc::new(ecs);
            let checker = ClusterChecker::new(ecs.clone(), TokenBucket::new(1.0, 10));
            checker.set_removed(declared.then(|| cluster.clone()).into_iter().collect());
            let error = ecs.describe_tasks(&cluster, &[]).await.unwrap_err();
            assert_eq!(checker.check(&cluster, &error).await, expected, "{kind:?} {status:?} {declared}");
        }
    }
}
