//! Metrics of the evaluation of tasks.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::init_series;
use super::labels::{IGNORE_REASONS, ReasonLabels, RuleLabels};
use ecs_mesh_core::intent::RoleRule;

/// Results of evaluations.
#[derive(Debug)]
pub struct EvaluationMetrics {
    rejected: Counter,
    violations: Family<RuleLabels, Counter>,
    ignored: Family<ReasonLabels, Counter>,
}

impl EvaluationMetrics {
    /// Creates the metrics and registers them.
    pub(super) fn register(r: &mut Registry) -> Self {
        let metrics =
            Self { rejected: Counter::default(), violations: Family::default(), ignored: Family::default() };
        let help = "Times that a task became rejected because of its role";
        r.register("ecs_mesh_rejected_tasks", help, metrics.rejected.clone());
        let help = "Violations of rules for role tags, at each evaluation";
        r.register("ecs_mesh_role_violations", help, metrics.violations.clone());
        let help = "Evaluated tasks that are not in this mesh";
        r.register("ecs_mesh_ignored_tasks", help, metrics.ignored.clone());
        for rule in RoleRule::ALL.map(RoleRule::label) {
            init_series(&metrics.violations, &RuleLabels { rule });
        }
        for reason in IGNORE_REASONS {
            init_series(&metrics.ignored, &ReasonLabels { reason });
        }
        metrics
    }

    /// Records that a task became rejected because of its role.
    pub fn record_rejected(&self) {
        self.rejected.inc();
    }

    /// Times that a task became rejected because of its role.
    pub fn rejected_tasks(&self) -> u64 {
        self.rejected.get()
    }

    /// Records a violation of a rule for role tags.
    pub fn record_violation(&self, rule: &'static str) {
        debug_assert!(
            RoleRule::ALL.iter().any(|known| known.label() == rule),
            "{rule} is not in RoleRule::ALL"
        );
        self.violations.get_or_create(&RuleLabels { rule }).inc();
    }

    /// Records the evaluation of a task that is not in this mesh.
    pub fn record_ignored(&self, reason: &'static str) {
        debug_assert!(IGNORE_REASONS.contains(&reason), "{reason} is not in labels::IGNORE_REASONS");
        self.ignored.get_or_create(&ReasonLabels { reason }).inc();
    }
}
