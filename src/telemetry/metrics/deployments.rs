//! Metrics of held deployments.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::init_series;
use super::labels::{ACL_RESULTS, PROTECTION_CHANGES, ProtectionLabels, ReasonLabels, SUCCESS};
use ecs_mesh_core::plan::HoldEnd;

/// Held deployments, and the protection of their old tasks.
#[derive(Debug)]
pub struct DeploymentMetrics {
    changes: Family<ProtectionLabels, Counter>,
    ended: Family<ReasonLabels, Counter>,
}

impl DeploymentMetrics {
    /// Creates the metrics and registers them.
    pub(super) fn register(r: &mut Registry) -> Self {
        let metrics = Self { changes: Family::default(), ended: Family::default() };
        let help = "Changes of the scale-in protection of tasks";
        r.register("ecs_mesh_protection_changes", help, metrics.changes.clone());
        let help = "Deployments by why their hold ended, or why there was none";
        r.register("ecs_mesh_deployment_holds", help, metrics.ended.clone());
        for change in PROTECTION_CHANGES {
            for result in ACL_RESULTS {
                init_series(&metrics.changes, &ProtectionLabels { change, result });
            }
        }
        for reason in HoldEnd::ALL.map(HoldEnd::label) {
            init_series(&metrics.ended, &ReasonLabels { reason });
        }
        metrics
    }

    /// Records changes of the protection of `tasks` tasks that were made, or failed.
    pub fn record_changes(&self, change: &'static str, tasks: usize, ok: bool) {
        debug_assert!(PROTECTION_CHANGES.contains(&change), "{change} is not in labels::PROTECTION_CHANGES");
        let result = if ok { SUCCESS } else { "error" };
        self.changes.get_or_create(&ProtectionLabels { change, result }).inc_by(tasks as u64);
    }

    /// Records the end of a hold.
    pub fn record_end(&self, reason: HoldEnd) {
        self.ended.get_or_create(&ReasonLabels { reason: reason.label() }).inc();
    }
}
