//! A plan: a dry run that ends when it has come to rest.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::run::{LoopEnded, RunOptions};
use super::{Book, Operator};
use ecs_mesh_control_plane::Nameless;
use ecs_mesh_core::plan::proposal::{Manifests, Proposal, Unplaced};
use ecs_mesh_manifests::Status;

/// How long a plan takes at most.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// How long what failed is tried again before it counts as unknown.
    pub patience: Duration,
    /// After this time whatever is not known is unknown.
    pub timeout: Duration,
    /// Tasks looked at side by side, for each control plane.
    pub concurrency: usize,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self { patience: Duration::from_secs(10), timeout: Duration::from_mins(5), concurrency: 128 }
    }
}

/// How often it is looked whether everything has come to rest.
const LOOK: Duration = Duration::from_millis(20);

impl Operator {
    /// What a run would do now: sweeps once, looks at every task, and writes nothing.
    ///
    /// The operator must have been made with a book (`Parts::book`), which is given here again.
    ///
    /// # Errors
    /// When one of its loops ended by itself.
    pub async fn plan(
        self: Arc<Self>,
        book: &Book,
        manifests: watch::Receiver<Arc<Status>>,
        options: PlanOptions,
    ) -> Result<Proposal, LoopEnded> {
        let stop = CancellationToken::new();
        let status = Arc::clone(&manifests.borrow());
        let run = RunOptions { concurrency: options.concurrency, ..RunOptions::default() };
        let mut running = tokio::spawn(Arc::clone(&self).run(None, manifests, run, stop.clone()));
        let rest = tokio::select! {
            biased;
            ended = &mut running => return Err(ended.map_or(LoopEnded, |ended| ended.err().unwrap_or(LoopEnded))),
            rest = self.come_to_rest(book, options) => rest,
        };
        let (mut gaps, warnings, items) = book.read();
        gaps.extend(rest.err());
        stop.cancel();
        // It has nothing to finish: nothing is written.
        let _ = running.await;
        let manifests = Manifests {
            files: status.files,
            errors: status.errors.iter().map(ToString::to_string).collect(),
            warnings: status.warnings.iter().map(ToString::to_string).collect(),
        };
        let at = self.clock.now();
        let mut proposal = Proposal::new(self.id.as_str(), at, manifests, gaps, warnings, items);
        proposal.unplaced = self.unplaced();
        Ok(proposal)
    }

    /// The login tokens that name no task, as the last lists showed them.
    fn unplaced(&self) -> Vec<Unplaced> {
        let planes = self.planes();
        let of_plane = planes.values().flat_map(|plane| {
            let nameless = plane.mesh.nameless_tokens();
            nameless.into_iter().map(|Nameless { reason, count, examples }| Unplaced {
                control_plane: Arc::clone(&plane.name),
                reason,
                count,
                examples: examples.iter().map(ToString::to_string).collect(),
            })
        });
        of_plane.collect()
    }

    /// Waits until a whole sweep has ended and every task was looked at. What fails is tried again for a while.
    async fn come_to_rest(
        &self,
        book: &Book,
        options: PlanOptions,
    ) -> Result<(), ecs_mesh_core::plan::proposal::Gap> {
        let began = Instant::now();
        loop {
            let (sweeps, whole) = *self.swept_so_far.borrow();
            let planes = self.planes();
            let idle = planes.values().all(|plane| {
                let stats = plane.queue.stats();
                stats.ready == 0 && stats.processing == 0 && plane.has_settled_identities()
            });
            let patient = began.elapsed() < options.patience;
            if sweeps > 0 && idle && ((whole && !book.has_gaps()) || (!patient && book.has_gaps())) {
                return Ok(());
            }
            if began.elapsed() >= options.timeout {
                return Err(ecs_mesh_core::plan::proposal::Gap {
                    what: "everything".to_owned(),
                    why: format!(
                        "not all was found out within {}; raise --timeout, and look whether AWS or a control plane \
                         is slow",
                        ecs_mesh_api::HumanDuration(options.timeout)
                    ),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
