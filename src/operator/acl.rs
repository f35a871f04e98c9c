//! Connects the reconciliation of Consul's ACL objects with the operator's state.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::control_plane_worker::ControlPlaneWorker;
use super::dry_run::{DryRunRecorder, TaskPlan};
use super::journal::{ChangeCause, ChangeResult, JournalChange, JournalEvent, JournalSubject};
use super::recorder::Recorder;
use crate::telemetry::metrics::Metrics;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_consul_acl::reconcile::{
    AclChange, AclChangeResult, AclDryRun, AclHost, AclMetrics, AclReconciler,
};
use ecs_mesh_core::plan::report::{ObjectKind, PlannedChange};
use ecs_mesh_model::ClusterArn;

/// The reconciler of a control plane's ACL objects, if the control plane has any.
pub(super) fn reconciler(context: &Arc<Context>, worker: &ControlPlaneWorker) -> Option<AclReconciler> {
    let process = &context.process;
    Some(AclReconciler {
        target: Arc::clone(worker.acl.as_ref()?),
        host: Arc::clone(context) as _,
        metrics: Arc::clone(&process.metrics) as _,
        dry_run: process.dry_run.clone().map(|recorder| recorder as _),
        lease: Arc::new(worker.lease(&process.lease)),
        clock: process.clock.clone(),
        seed: process.seed,
    })
}

impl AclHost for Context {
    fn manifests(&self) -> Arc<ManifestSet> {
        self.manifests.load()
    }

    fn clusters_at(&self, manifests: &ManifestSet, control_plane: &str) -> BTreeSet<ClusterArn> {
        self.clusters.selected_at(manifests, control_plane)
    }

    fn sweep_interval(&self) -> Duration {
        self.manifests.sweep_interval()
    }

    fn invalidate_sweep(&self) {
        self.sweeps.invalidate();
    }

    fn record_change(&self, change: AclChange<'_>) {
        self.process.journal.record(|| journal_entry(&change));
    }
}

/// The entry of a change. A binding rule has no name of its own at Consul, so its id follows.
fn journal_entry(change: &AclChange<'_>) -> (JournalSubject, JournalEvent) {
    let name = match change.id {
        Some(id) if change.kind == ObjectKind::BindingRule => format!("{} ({id})", change.name).into(),
        _ => change.name.into(),
    };
    let control_plane = Some(Arc::clone(change.control_plane));
    let subject = JournalSubject { control_plane, name: Some(name), ..JournalSubject::default() };
    let made = JournalChange {
        object: change.kind.label(),
        change: change.change,
        cause: ChangeCause::Declared,
        message: change.reason.to_owned(),
        fields: change.fields.clone(),
        result: match change.result {
            AclChangeResult::Success => ChangeResult::Success,
            AclChangeResult::ResponseLost => ChangeResult::SuccessResponseLost,
            AclChangeResult::Error(error) => ChangeResult::Error(error.to_owned()),
        },
    };
    (subject, JournalEvent::Change(made))
}

impl AclMetrics for Metrics {
    fn record_acl_change(&self, kind: ObjectKind, change: &'static str, ok: bool) {
        self.changes.record_acl_change(kind, change, ok);
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
        Recorder::record_unresolved(self, subject, error);
    }
}
