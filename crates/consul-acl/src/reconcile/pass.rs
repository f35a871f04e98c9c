//! One reconcile: snapshot, plan and apply, repeated until the objects are as written, and abandoned once other manifests
//! are in force.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::AclReconciler;
use super::apply::Applier;
use super::declared_auth;
use super::report::{AclOutcome, AclReporter, counts};
use super::sightings::SnapshotSeen;
use crate::backend::{AclBackend, AclSnapshot};
use crate::desired::{AclContext, DesiredObjects, Edition, OperatorIds, desired};
use crate::plan::{AclAction, AclStep, plan_objects};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{ConsulAuthSpec, Presence};
use ecs_mesh_control_plane::{CallError, MeshErrorKind, call};
use ecs_mesh_core::plan::report::ObjectKind;

/// Maximum passes. Adoption needs two; a third verifies convergence.
const MAX_PASSES: usize = 4;

/// Delays between reads until a write shows: a secondary datacenter writes policies and roles in the primary one, which
/// replicates them back.
const REPLICATION_DELAYS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];

/// A snapshot, with all that it is compared by.
struct SnapshotRead {
    desired: DesiredObjects,
    snapshot: AclSnapshot,
    /// The ids whose objects are owned, as far as their processes have ended.
    operators: OperatorIds,
}

/// How a reconcile ended.
pub(super) enum ReconcileEnd {
    /// Nothing is left to do.
    Settled,
    /// Something failed, or newer manifests are in force: retry soon, but not before this.
    Retry(Option<Instant>),
}

/// One reconcile.
pub(super) struct AclReconcile<'a> {
    pub(super) acl: &'a AclReconciler,
    pub(super) stop: &'a CancellationToken,
}

impl AclReconcile<'_> {
    pub(super) async fn run(&self) -> ReconcileEnd {
        // A standby reads nothing: its pass would be out of date when it leads, and a new leader requests one.
        if !self.acl.is_dry_run() && !self.acl.lease.holds() {
            return ReconcileEnd::Settled;
        }
        let backend = &*self.acl.target.backend;
        let set = self.acl.host.manifests();
        let spec = declared_auth(&set, &self.acl.target.name);
        let report = AclReporter { acl: self.acl, is_declared: spec.is_some() };
        let mut applier = Applier::new(self, backend, &set, report);
        let mut passes = 0;
        let mut pauses = REPLICATION_DELAYS.iter();
        loop {
            let SnapshotRead { desired, snapshot, operators } = match self.read(backend, &set, spec).await {
                Ok(found) => found,
                Err(at) => return self.unreachable(spec.is_some(), at),
            };
            report.report_lost_responses(REPLICATION_DELAYS.iter().sum(), &snapshot.actual);
            self.acl.record_auth_methods(&snapshot.actual, &operators);
            let mut steps = plan_objects(&desired, &snapshot.actual, &operators);
            if !set.complete {
                block_removals(&mut steps);
            }
            if steps.iter().any(|step| applier.has_written(step))
                && !self.stop.is_cancelled()
                && let Some(pause) = pauses.next()
            {
                self.wait(*pause).await;
                continue;
            }
            if applier.is_superseded() {
                return ReconcileEnd::Retry(None);
            }
            passes += 1;
            report.report_errors(&snapshot.errors);
            let result = applier.apply(&desired, steps, snapshot.throttled()).await;
            report.finish_pass(&result.outcomes);
            if applier.is_superseded() {
                return ReconcileEnd::Retry(result.not_before);
            }
            if result.wrote && !result.is_halted && passes < MAX_PASSES && !self.stop.is_cancelled() {
                continue;
            }
            let succeeded = !result.failed && snapshot.errors.is_empty();
            let is_as_declared =
                |(_, outcome): &(_, AclOutcome)| matches!(outcome, AclOutcome::Unchanged | AclOutcome::Done);
            let is_synced = succeeded && result.outcomes.iter().all(is_as_declared);
            let last_sync = is_synced.then(|| self.acl.clock.wall().as_secs_f64());
            self.acl.target.state.record_result(counts(&result.outcomes), last_sync);
            // Without a ConsulAuth there is nothing to retry for.
            return if succeeded || spec.is_none() {
                ReconcileEnd::Settled
            } else {
                ReconcileEnd::Retry(result.not_before)
            };
        }
    }

    async fn wait(&self, pause: Duration) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// Reads the snapshot. `Err`: the control plane is unreachable, and the next attempt is not before this.
    async fn read(
        &self,
        backend: &dyn AclBackend,
        set: &ManifestSet,
        spec: Option<&Arc<ConsulAuthSpec>>,
    ) -> Result<SnapshotRead, Instant> {
        let clusters = self.acl.host.clusters_at(set, &self.acl.target.name);
        let mut found = None;
        let (began, term) = (Instant::now(), self.acl.lease.term());
        let read = async {
            let mut errors = Vec::new();
            let mut namespaces = BTreeSet::new();
            let consul = self.acl.target.connection.as_ref();
            let manages_all = consul.is_some_and(|consul| consul.namespaces.iter().any(|name| name == "*"));
            if manages_all && spec.is_some_and(|spec| manages_namespaces(spec)) {
                match backend.namespaces().await {
                    Ok(all) => namespaces = all,
                    // If the snapshot needs the namespaces, it fails with the same error.
                    Err(error) if error.kind == MeshErrorKind::Forbidden => {}
                    Err(error) => errors.push(error),
                }
            }
            let edition = consul.map_or(Edition::Community, |consul| Edition::of(consul, &namespaces));
            let datacenter = backend.datacenter().await;
            let context =
                AclContext { operators: backend.operators(), clusters: &clusters, edition, datacenter };
            let mut desired = spec.map_or_else(|| context.nothing_declared(), |spec| desired(spec, &context));
            desired.manifests_incomplete = !set.complete;
            let mut auths = set.consul_auths.iter();
            let by = auths.find(|(_, spec)| *spec.control_plane == *self.acl.target.name);
            desired.declared_by = by.map(|(name, _)| Arc::clone(name));
            let mut snapshot = backend.snapshot(&context, &desired).await;
            snapshot.errors.extend(errors);
            let unreachable = snapshot.unreachable().cloned();
            let seen = SnapshotSeen {
                actual: &snapshot.actual,
                datacenter: &context.datacenter,
                began,
                term: &term,
            };
            let operators = self.acl.target.sightings.observe(&seen);
            found = Some(SnapshotRead { desired, snapshot, operators });
            unreachable.map_or(Ok(()), Err)
        };
        match (call(&self.acl.target.circuit, read).await, found) {
            (Err(CallError::CircuitOpen(at)), _) => Err(at),
            (_, Some(found)) => Ok(found),
            // Not reached: a call that ran leaves a snapshot.
            (_, None) => Err(Instant::now()),
        }
    }

    fn unreachable(&self, is_declared: bool, at: Instant) -> ReconcileEnd {
        if is_declared {
            self.acl.record_unresolved(
                &format!("ACL objects of control plane {}", self.acl.target.name),
                Some("the control plane is unreachable".to_owned()),
            );
        }
        ReconcileEnd::Retry(Some(at))
    }
}

/// Whether namespaces may need changes. A `ConsulAuth` that is absent need not declare the policies that were attached.
fn manages_namespaces(spec: &ConsulAuthSpec) -> bool {
    spec.state == Presence::Absent || spec.enterprise.is_some()
}

/// Holds removals until the manifests have loaded without an error once.
fn block_removals(steps: &mut [AclStep]) {
    for step in steps.iter_mut() {
        let removes = match &step.action {
            AclAction::Remove => true,
            // Only the policy links of these objects change.
            AclAction::Update { fields, .. } => {
                matches!(step.id.kind, ObjectKind::AnonymousToken | ObjectKind::Namespace)
                    && fields
                        .iter()
                        .any(|change| has_removed_items(change.before.as_ref(), change.after.as_ref()))
            }
            _ => false,
        };
        if removes {
            step.action = AclAction::Hold;
            step.reason =
                format!("{}; held until the manifests have loaded without an error once", step.reason);
        }
    }
}

fn has_removed_items(before: Option<&serde_json::Value>, after: Option<&serde_json::Value>) -> bool {
    let items =
        |value: Option<&serde_json::Value>| value.and_then(|v| v.as_array()).cloned().unwrap_or_default();
    let after = items(after);
    items(before).iter().any(|item| !after.contains(item))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::desired::{ObjectId, ObjectScope};
    use ecs_mesh_core::plan::FieldChange;

    fn step(kind: ObjectKind, action: AclAction) -> AclStep {
        let id = ObjectId { kind, scope: ObjectScope::default(), name: "x".into() };
        AclStep { id, server_id: None, action, reason: "r".into(), warnings: Vec::new(), before: None }
    }

    fn update(before: Value, after: Value) -> AclAction {
        let field = FieldChange { path: "Policies".into(), before: Some(before), after: Some(after) };
        AclAction::Update { fields: vec![field], body: Value::Null }
    }

    #[test]
    fn incomplete_manifests_remove_nothing() {
        let (two, one) = (json!([{"Name": "a"}, {"Name": "b"}]), json!([{"Name": "a"}]));
        let mut steps = [
            step(ObjectKind::Role, AclAction::Remove),
            step(ObjectKind::AnonymousToken, update(two.clone(), one.clone())),
            step(ObjectKind::AnonymousToken, update(one.clone(), two.clone())),
            // A role with too many policies is corrected nevertheless.
            step(ObjectKind::Role, update(two, one)),
            step(ObjectKind::Policy, AclAction::Create { body: Value::Null }),
        ];
        block_removals(&mut steps);
        let held: Vec<bool> = steps.iter().map(|step| step.action == AclAction::Hold).collect();
        assert_eq!(held, [true, true, false, false, false]);
    }
}
