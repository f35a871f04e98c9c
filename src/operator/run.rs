//! The operator's loops, from start to an orderly stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::Operator;
use ecs_mesh_aws::aws::EventQueue;
use ecs_mesh_aws::consumer::{QueueConsumer, PoisonPolicy};
use ecs_mesh_controller::ShutdownSummary;
use ecs_mesh_manifests::ManifestStatus;

/// How an operator runs.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// Runs at once, for each control plane.
    pub concurrency: usize,
    /// Receivers of the queue.
    pub receivers: usize,
    /// What becomes of messages that cannot be read.
    pub poison: PoisonPolicy,
    /// How long a stop waits for what is in flight; must be below ECS's stopTimeout.
    pub graceful_shutdown_timeout: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { concurrency: 128, receivers: 4, poison: PoisonPolicy::Delete, graceful_shutdown_timeout: Duration::from_secs(20) }
    }
}

/// One of the operator's loops ended although nobody stopped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a loop of the operator ended by itself; the log has the panic")]
pub struct TaskExited;

impl Operator {
    /// Runs until `stop`: hears events (where there is a queue), sweeps, re-reads roles and follows manifests. Then
    /// stops receiving, finishes what is in flight up to `options.drain`, and leaves the rest to the next start.
    ///
    /// # Errors
    /// When a loop ended by itself: half an operator would go on deleting events that nobody acts on.
    pub async fn run(
        self: Arc<Self>,
        queue: Option<Arc<dyn EventQueue>>,
        manifests: watch::Receiver<Arc<ManifestStatus>>,
        options: RunOptions,
        stop: CancellationToken,
    ) -> Result<ShutdownSummary, TaskExited> {
        let told_by = Arc::downgrade(&self);
        self.metrics.set_state_source(told_by);
        self.metrics.health().set_stop_token(stop.clone());
        // From the first message on it must be known which clusters are ours.
        self.manifests.store(Arc::clone(&manifests.borrow().set));
        // In sets of their own: should this future be dropped, nothing may go on writing behind its back.
        let mut planes = tokio::task::JoinSet::new();
        planes.spawn(Arc::clone(&self).watch_manifests(manifests, options, stop.child_token()));
        let mut loops = tokio::task::JoinSet::new();
        loops.spawn(Arc::clone(&self).run_sweeps(stop.child_token()));
        loops.spawn(Arc::clone(&self).watch_roles(stop.child_token()));
        if let Some(queue) = queue {
            let intake = QueueConsumer {
                queue,
                handler: Arc::clone(&self) as _,
                poison: options.poison,
                observer: Arc::clone(&self.metrics) as _,
                health: self.metrics.health().clone(),
                clock: self.clock.clone(),
                seed: self.seed,
            };
            loops.spawn(intake.run(options.receivers, stop.child_token()));
        } else {
            info!("no queue is given: changes are found by sweeps only");
        }
        let mut drained = None;
        let broken = tokio::select! {
            biased;
            () = stop.cancelled() => false,
            ended = planes.join_next() => {
                drained = ended.and_then(Result::ok);
                !stop.is_cancelled()
            }
            _ = loops.join_next() => !stop.is_cancelled(),
        };
        if broken {
            error!(
                "a loop of the operator ended by itself, which is a defect; stopping, so that ECS starts it anew"
            );
            stop.cancel();
        }
        let drained = match drained {
            Some(drained) => drained,
            None => planes.join_next().await.and_then(Result::ok).unwrap_or_default(),
        };
        while loops.join_next().await.is_some() {}
        info!(completed = drained.completed, cancelled = drained.cancelled, "stopped");
        if broken { Err(TaskExited) } else { Ok(drained) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::OperatorDeps;
    use ecs_mesh_aws::fakes::FakeEcs;

    #[tokio::test(start_paused = true)]
    async fn unexpected_task_exit_stops_the_operator() {
        // This ECS panics when it is asked to list, and so does the sweep.
        let ecs = FakeEcs { panics: true, ..FakeEcs::default() };
        let operator = Operator::new(OperatorDeps::for_tests(Arc::new(ecs)));
        let directory = tempfile::tempdir().unwrap();
        let text = "apiVersion: ecs-mesh.dev/v1alpha1\nkind: ControlPlane\nmetadata: {name: kuma}\nspec: {type: kuma, \
                    kuma: {address: \"http://127.0.0.1:9\"}}\n---\napiVersion: ecs-mesh.dev/v1alpha1\nkind: MeshBinding\n\
                    metadata: {name: b}\nspec: {controlPlane: kuma, mesh: default, selector: {clusters: [\"*\"]}}\n";
        std::fs::write(directory.path().join("all.yaml"), text).unwrap();
        let sources = ecs_mesh_manifests::ManifestSources::new(vec![directory.path().to_owned()]);
        let loaded = sources.load(None).into_loaded().unwrap();
        assert_eq!(loaded.set.bindings.len(), 1);
        let (_keep, manifests) = watch::channel(Arc::new(ManifestStatus::from(&loaded)));
        let ended = operator.run(None, manifests, RunOptions::default(), CancellationToken::new()).await;
        assert_eq!(ended, Err(TaskExited));
    }
}
