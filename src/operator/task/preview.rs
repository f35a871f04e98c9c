//! Of a dry run: what a real one would only come to later, or passes over in silence, is in the plan as well.

use super::TaskRun;
use ecs_mesh_aws::store::TaskSnapshot;
use ecs_mesh_control_plane::CallError;
use ecs_mesh_core::intent::Evaluation;
use ecs_mesh_core::plan::report::Change;
use ecs_mesh_core::plan::{KnownRegistration, TaskLiveness, decide_if_confirmed};

impl TaskRun<'_> {
    /// Of a dry run: what would follow once that is confirmed which was seen only once.
    pub(super) async fn preview_confirmed(
        &self,
        snapshot: &TaskSnapshot,
        known: &[KnownRegistration],
        judgement: Option<&Evaluation>,
    ) -> Result<(), CallError> {
        let situation = self.situation(snapshot, known, judgement);
        let Some((awaited, decision)) = decide_if_confirmed(&situation, Self::grace(known)) else { return Ok(()) };
        let first = self.reporter.page().map_or(0, |page| page.len());
        self.carry_out(&decision, known).await?;
        if let Some(mut page) = self.reporter.page() {
            page.set_precondition_from(first, &awaited);
        }
        Ok(())
    }

    /// Of a dry run: a registered task that nothing is due for is in the plan, too.
    pub(super) fn record_unchanged(&self, snapshot: &TaskSnapshot, known: &[KnownRegistration]) {
        if known.is_empty() {
            return;
        }
        if known.iter().any(|known| known.binding.is_none()) {
            self.reporter.record_no_change("no MeshBinding takes care of it any more; it is left alone", Change::Hold);
        }
        if snapshot.liveness == TaskLiveness::Unknown {
            let words = "its cluster could not be listed whole, so nothing is known of the task";
            self.reporter.record_no_change(words, Change::Unknown);
        }
        self.reporter.record_no_change("nothing is due", Change::Unchanged);
    }
}
