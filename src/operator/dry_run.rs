//! The changes that a dry run records instead of writing them to the control planes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::info;

use crate::telemetry::metrics::Metrics;
use ecs_mesh_core::plan::PendingConfirmation;
use ecs_mesh_core::plan::report::{
    BlockedBy, PlanEntry, PlanWarning, PlannedChange, PlannedKind, Unresolved, label,
};
use ecs_mesh_model::{Reason, TaskArn};

/// The plan so far, by control plane and task; without a task, of the control plane's ACL objects and tokens. The next reconcile of a
/// task replaces its plan.
pub struct DryRunRecorder {
    metrics: Arc<Metrics>,
    inner: Mutex<Inner>,
}

/// The part of a task's plan, each of which another loop replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PlanPart {
    /// Registrations of a task, or ACL objects.
    Registrations,
    /// The task's protection from its deployment.
    Protection,
    /// The data plane tokens of a control plane.
    Tokens,
}

#[derive(Default)]
struct Inner {
    plans: BTreeMap<(Arc<str>, Option<TaskArn>, PlanPart), TaskPlan>,
    /// By what could not be read: the error.
    unresolved: BTreeMap<String, String>,
    counts: BTreeMap<(Arc<str>, &'static str), i64>,
}

/// The plan of one task, which is its verdict in a live run, or of a control plane's ACL objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TaskPlan {
    items: Vec<PlannedChange>,
    warnings: Vec<Reason>,
}

impl TaskPlan {
    pub(super) fn push(&mut self, item: PlannedChange) {
        self.items.push(item);
    }

    pub(super) fn extend_warnings(&mut self, warnings: &[Reason]) {
        self.warnings.extend_from_slice(warnings);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Marks the changes from `first` on as waiting for a confirmation.
    pub(super) fn set_precondition_from(&mut self, first: usize, awaited: &PendingConfirmation) {
        for item in &mut self.items[first..] {
            awaited.observation().clone_into(&mut item.reason);
            awaited.observation().clone_into(&mut item.key);
            item.precondition = Some(awaited.to_string());
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn changes(&self) -> &[PlannedChange] {
        &self.items
    }

    pub(super) fn warnings(&self) -> &[Reason] {
        &self.warnings
    }
}

impl DryRunRecorder {
    /// An empty plan, with counts in these metrics.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change below leaves the data consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the plan of a task, or of the control plane's ACL objects, and logs the new changes. An empty plan drops it.
    pub(super) fn replace(&self, control_plane: &Arc<str>, task: Option<&TaskArn>, plan: TaskPlan) {
        self.replace_part(control_plane, task, PlanPart::Registrations, plan);
    }

    /// Replaces the part of a task's plan that is about its protection, in the same way.
    pub(super) fn replace_protection(&self, control_plane: &Arc<str>, task: &TaskArn, plan: TaskPlan) {
        self.replace_part(control_plane, Some(task), PlanPart::Protection, plan);
    }

    /// Replaces the plan of a control plane's data plane tokens, in the same way.
    pub(super) fn replace_tokens(&self, control_plane: &Arc<str>, plan: TaskPlan) {
        self.replace_part(control_plane, None, PlanPart::Tokens, plan);
    }

    fn replace_part(&self, control_plane: &Arc<str>, task: Option<&TaskArn>, part: PlanPart, plan: TaskPlan) {
        let key = (Arc::clone(control_plane), task.cloned(), part);
        let mut inner = self.lock();
        let before = inner.plans.remove(&key).unwrap_or_default();
        for item in &before.items {
            inner.count(&self.metrics, control_plane, label(item), -1);
        }
        for item in &plan.items {
            inner.count(&self.metrics, control_plane, label(item), 1);
        }
        let new_changes: Vec<PlannedChange> = plan
            .items
            .iter()
            .filter(|item| {
                (item.change.writes() || item.blocked_by.is_some()) && !before.items.contains(item)
            })
            .cloned()
            .collect();
        if plan != TaskPlan::default() {
            inner.plans.insert(key, plan);
        }
        drop(inner);
        for item in new_changes {
            let (mesh, partition, name) =
                (item.mesh.as_deref(), item.partition.as_deref(), item.name.as_deref());
            let kind = item.kind.map(PlannedKind::label);
            info!(
                %control_plane, mesh, partition, kind, name = name.unwrap_or_default(), task = task.map(tracing::field::display),
                service = item.service.as_deref().unwrap_or_default(), change = item.change.as_str(),
                reason = item.reason, blocked_by = item.blocked_by.map(BlockedBy::as_str), precondition = item.precondition, "planned"
            );
        }
    }

    /// Records an input that could not be read.
    pub(super) fn record_unresolved(&self, subject: impl Into<String>, error: impl Into<String>) {
        self.lock().unresolved.insert(subject.into(), error.into());
    }

    /// The input was read.
    pub(super) fn clear_unresolved(&self, subject: &str) {
        self.lock().unresolved.remove(subject);
    }

    /// Whether an input of the plan, or of a task's plan, could not be read.
    pub(super) fn has_unresolved(&self) -> bool {
        let inner = self.lock();
        !inner.unresolved.is_empty()
            || inner.counts.iter().any(|((_, label), count)| *label == "unknown" && *count > 0)
    }

    /// Drops the plans of other control planes.
    pub(super) fn retain_control_planes(&self, control_planes: &BTreeSet<Arc<str>>) {
        let mut inner = self.lock();
        let Inner { plans, counts, .. } = &mut *inner;
        plans.retain(|(control_plane, ..), _| control_planes.contains(control_plane));
        counts.retain(|(control_plane, label), _| {
            let stays = control_planes.contains(control_plane);
            if !stays {
                self.metrics.changes.set_planned(control_plane, label, 0);
            }
            stays
        });
    }

    /// The whole plan.
    pub fn snapshot(&self) -> (Vec<Unresolved>, Vec<PlanWarning>, Vec<PlanEntry>) {
        let inner = self.lock();
        let unresolved = inner
            .unresolved
            .iter()
            .map(|(subject, error)| Unresolved { subject: subject.clone(), error: error.clone() })
            .collect();
        let mut warnings = Vec::new();
        let mut items = Vec::new();
        for ((control_plane, task, _), plan) in &inner.plans {
            warnings.extend(plan.warnings.iter().map(|error| PlanWarning {
                control_plane: Arc::clone(control_plane),
                task: task.as_ref().map(ToString::to_string).unwrap_or_default(),
                message: error.message.clone(),
                key: error.key.clone(),
            }));
            items.extend(plan.items.iter().map(|item| PlanEntry {
                control_plane: Arc::clone(control_plane),
                task: task.clone(),
                change: item.clone(),
            }));
        }
        (unresolved, warnings, items)
    }
}

impl Inner {
    fn count(&mut self, metrics: &Metrics, control_plane: &Arc<str>, label: &'static str, by: i64) {
        let count = self.counts.entry((Arc::clone(control_plane), label)).or_default();
        *count += by;
        metrics.changes.set_planned(control_plane, label, *count);
    }
}
