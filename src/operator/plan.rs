//! A plan: a dry run that ends once it has settled.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{DryRunRecorder, Operator, RunOptions, TaskExited};
use ecs_mesh_control_plane::UnattributedTokenCount;
use ecs_mesh_core::plan::report::{ManifestsSummary, PlanReport, UnattributedTokens};
use ecs_mesh_manifests::ManifestStatus;

/// Limits of a plan.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// Time to retry failed reads before they count as unresolved.
    pub retry_timeout: Duration,
    /// Overall time limit. What is not known then is unresolved.
    pub timeout: Duration,
    /// Concurrent reconciles per control plane.
    pub concurrency: usize,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self { retry_timeout: Duration::from_secs(10), timeout: Duration::from_mins(5), concurrency: 128 }
    }
}

/// Interval at which a plan checks whether it has settled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

impl Operator {
    /// Plans what a run would do now: sweeps once, evaluates every task, and writes nothing.
    ///
    /// `recorder` is the one of [`OperatorDeps::recorder`](super::OperatorDeps::recorder).
    ///
    /// # Errors
    /// [`TaskExited`] when an internal task ended unexpectedly.
    pub async fn plan(
        self: Arc<Self>,
        recorder: &DryRunRecorder,
        manifests: watch::Receiver<Arc<ManifestStatus>>,
        options: PlanOptions,
    ) -> Result<PlanReport, TaskExited> {
        let stop = CancellationToken::new();
        let status = Arc::clone(&manifests.borrow());
        let run = RunOptions { concurrency: options.concurrency, ..RunOptions::default() };
        let mut running = tokio::spawn(Arc::clone(&self).run(None, manifests, run, stop.clone()));
        let settled = tokio::select! {
            biased;
            ended = &mut running => return Err(ended.map_or(TaskExited, |ended| ended.err().unwrap_or(TaskExited))),
            settled = self.wait_until_settled(recorder, options) => settled,
        };
        let (mut unresolved, warnings, changes) = recorder.snapshot();
        unresolved.extend(settled.err());
        stop.cancel();
        // A dry run has no write to finish.
        let _ = running.await;
        let manifests = ManifestsSummary {
            files: status.files,
            errors: status.errors.iter().map(ToString::to_string).collect(),
            warnings: status.warnings.iter().map(ToString::to_string).collect(),
        };
        let at = self.context.now();
        let mut report =
            PlanReport::new(self.context.process.id.as_str(), at, manifests, unresolved, warnings, changes);
        report.unattributed_tokens = self.unattributed_tokens();
        Ok(report)
    }

    /// Login tokens that name no task, as of the last lists.
    fn unattributed_tokens(&self) -> Vec<UnattributedTokens> {
        let workers = self.workers();
        let of_control_plane = workers.values().flat_map(|worker| {
            let unattributed = worker.client.unattributed_tokens();
            unattributed.into_iter().map(|UnattributedTokenCount { reason, count, examples }| {
                UnattributedTokens {
                    control_plane: Arc::clone(&worker.name),
                    reason,
                    count,
                    examples: examples.iter().map(ToString::to_string).collect(),
                }
            })
        });
        of_control_plane.collect()
    }

    /// Waits until a complete sweep has ended and every task was reconciled. Failures are retried for `retry_timeout`.
    async fn wait_until_settled(
        &self,
        recorder: &DryRunRecorder,
        options: PlanOptions,
    ) -> Result<(), ecs_mesh_core::plan::report::Unresolved> {
        let began = Instant::now();
        loop {
            let (sweeps, all_complete) = self.context.sweeps.progress();
            let workers = self.workers();
            let idle = workers.values().all(|worker| {
                let stats = worker.queue.stats();
                stats.ready == 0 && stats.processing == 0 && worker.is_acl_settled()
            });
            let within_timeout = began.elapsed() < options.retry_timeout;
            if sweeps > 0
                && idle
                && ((all_complete && !recorder.has_unresolved())
                    || (!within_timeout && recorder.has_unresolved()))
            {
                return Ok(());
            }
            if began.elapsed() >= options.timeout {
                return Err(ecs_mesh_core::plan::report::Unresolved {
                    subject: "plan".to_owned(),
                    error: format!(
                        "timed out after {}; raise --timeout or check for a slow AWS or control-plane endpoint",
                        ecs_mesh_api::HumanDuration(options.timeout)
                    ),
                });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}
