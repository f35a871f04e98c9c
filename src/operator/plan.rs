//! A plan: a dry run that ends when it has come to rest.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;


use super::{DryRunRecorder, Operator, RunOptions, TaskExited};
use ecs_mesh_control_plane::UnattributedTokenCount;
use ecs_mesh_core::plan::report::{ManifestsSummary, PlanReport, UnattributedTokens};
use ecs_mesh_manifests::ManifestStatus;

/// How long a plan takes at most.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// How long what failed is tried again before it counts as unknown.
    pub retry_timeout: Duration,
    /// After this time whatever is not known is unknown.
    pub timeout: Duration,
    /// Tasks looked at side by side, for each control plane.
    pub concurrency: usize,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self { retry_timeout: Duration::from_secs(10), timeout: Duration::from_mins(5), concurrency: 128 }
    }
}

/// How often it is looked whether everything has come to rest.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

impl Operator {
    /// What a run would do now: sweeps once, looks at every task, and writes nothing.
    ///
    /// The operator must have been made with a book (`Parts::book`), which is given here again.
    ///
    /// # Errors
    /// When one of its loops ended by itself.
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
        let rest = tokio::select! {
            biased;
            ended = &mut running => return Err(ended.map_or(TaskExited, |ended| ended.err().unwrap_or(TaskExited))),
            rest = self.wait_until_settled(recorder, options) => rest,
        };
        let (mut unresolved, warnings, changes) = recorder.snapshot();
        unresolved.extend(rest.err());
        stop.cancel();
        // It has nothing to finish: nothing is written.
        let _ = running.await;
        let manifests = ManifestsSummary {
            files: status.files,
            errors: status.errors.iter().map(ToString::to_string).collect(),
            warnings: status.warnings.iter().map(ToString::to_string).collect(),
        };
        let at = self.context.now();
        let mut proposal = PlanReport::new(self.context.process.id.as_str(), at, manifests, unresolved, warnings, changes);
        proposal.unattributed_tokens = self.unattributed_tokens();
        Ok(proposal)
    }

    /// The login tokens that name no task, as the last lists showed them.
    fn unattributed_tokens(&self) -> Vec<UnattributedTokens> {
        let planes = self.workers();
        let of_plane = planes.values().flat_map(|plane| {
            let nameless = plane.client.unattributed_tokens();
            nameless.into_iter().map(|UnattributedTokenCount { reason, count, examples }| UnattributedTokens {
                control_plane: Arc::clone(&plane.name),
                reason,
                count,
                examples: examples.iter().map(ToString::to_string).collect(),
            })
        });
        of_plane.collect()
    }

    /// Waits until a whole sweep has ended and every task was looked at. What fails is tried again for a while.
    async fn wait_until_settled(
        &self,
        recorder: &DryRunRecorder,
        options: PlanOptions,
    ) -> Result<(), ecs_mesh_core::plan::report::Unresolved> {
        let began = Instant::now();
        loop {
            let (sweeps, whole) = self.context.sweeps.progress();
            let planes = self.workers();
            let idle = planes.values().all(|plane| {
                let stats = plane.queue.stats();
                stats.ready == 0 && stats.processing == 0 && plane.is_acl_settled()
            });
            let patient = began.elapsed() < options.retry_timeout;
            if sweeps > 0 && idle && ((whole && !recorder.has_unresolved()) || (!patient && recorder.has_unresolved())) {
                return Ok(());
            }
            if began.elapsed() >= options.timeout {
                return Err(ecs_mesh_core::plan::report::Unresolved {
                    subject: "everything".to_owned(),
                    error: format!(
                        "not all was found out within {}; raise --timeout, and look whether AWS or a control plane \
                         is slow",
                        ecs_mesh_api::HumanDuration(options.timeout)
                    ),
                });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}
