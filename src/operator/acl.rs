//! What the operator is to those who look after Consul's ACL objects.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::dry_run::{DryRunRecorder, TaskPlan};
use super::{ControlPlaneWorker, Operator};
use crate::telemetry::metrics::Metrics;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_consul_acl::reconcile::{AclDryRun, AclHost, AclMetrics, AclReconciler};
use ecs_mesh_core::plan::report::{ObjectKind, PlannedChange};
use ecs_mesh_model::ClusterArn;

impl Operator {
    /// Looks after a plane's objects, where it has such.
    pub(super) fn acl_reconciler(self: &Arc<Self>, plane: &ControlPlaneWorker) -> Option<AclReconciler> {
        Some(AclReconciler {
            operator: self.id.clone(),
            target: Arc::clone(plane.acl.as_ref()?),
            host: Arc::clone(self) as _,
            metrics: Arc::clone(&self.metrics) as _,
            dry_run: self.recorder.clone().map(|book| book as _),
            lease: Arc::clone(&self.lease),
            clock: self.clock.clone(),
            seed: self.seed,
        })
    }
}

impl AclHost for Operator {
    fn manifests(&self) -> Arc<ManifestSet> {
        Operator::manifests(self)
    }

    fn clusters_at(&self, set: &ManifestSet, control_plane: &str) -> BTreeSet<ClusterArn> {
        Operator::clusters_at(self, set, control_plane)
    }

    fn sweep_interval(&self) -> Duration {
        Operator::sweep_interval(self)
    }

    fn invalidate_sweep(&self) {
        Operator::invalidate_sweep(self);
    }
}

impl AclMetrics for Metrics {
    fn record_acl_change(&self, kind: ObjectKind, change: &'static str, ok: bool) {
        Metrics::record_acl_change(self, kind, change, ok);
    }

    fn record_warning(&self, reason: &'static str) {
        Metrics::record_warning(self, reason);
    }
}

impl AclDryRun for DryRunRecorder {
    fn record(&self, control_plane: &Arc<str>, changes: Vec<PlannedChange>) {
        let mut plan = TaskPlan::default();
        changes.into_iter().for_each(|change| plan.push(change));
        self.replace(control_plane, None, plan);
    }

    fn record_unresolved(&self, subject: &str, error: Option<String>) {
        match error {
            Some(error) => DryRunRecorder::record_unresolved(self, subject, error),
            None => self.clear_unresolved(subject),
        }
    }
}
