//! Of a dry run: what a real one would only come to later, or passes over in silence, is in the plan as well.

use super::Run;
use ecs_mesh_aws::store::{Life, Snapshot};
use ecs_mesh_control_plane::Halt;
use ecs_mesh_core::intent::Judgement;
use ecs_mesh_core::plan::proposal::Change;
use ecs_mesh_core::plan::{Known, foresee};

impl Run<'_> {
    /// Of a dry run: what would follow once that is confirmed which was seen only once.
    pub(super) async fn look_ahead(
        &self,
        snapshot: &Snapshot,
        known: &[Known],
        judgement: Option<&Judgement>,
    ) -> Result<(), Halt> {
        let situation = self.situation(snapshot, known, judgement);
        let Some((awaited, decision)) = foresee(&situation, Self::grace(known)) else { return Ok(()) };
        let first = self.report.page().map_or(0, |page| page.len());
        self.carry_out(&decision, known).await?;
        if let Some(mut page) = self.report.page() {
            page.all_after(first, &awaited);
        }
        Ok(())
    }

    /// Of a dry run: a registered task that nothing is due for is in the plan, too.
    pub(super) fn say_why_quiet(&self, snapshot: &Snapshot, known: &[Known]) {
        if known.is_empty() {
            return;
        }
        if known.iter().any(|known| known.caretaker.is_none()) {
            self.report.quiet("no MeshBinding takes care of it any more; it is left alone", Change::Hold);
        }
        if snapshot.life == Life::Unknown {
            let words = "its cluster could not be listed whole, so nothing is known of the task";
            self.report.quiet(words, Change::Unknown);
        }
        self.report.quiet("nothing is due", Change::Unchanged);
    }
}
