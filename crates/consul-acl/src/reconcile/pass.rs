//! One look at a control plane's identity set-up, and what follows from it: looked at again for as long as it is not as
//! it was written, and given up once other manifests are in force.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::AclReconciler;
use super::declared_auth;
use super::report::{AclOutcome, AclReporter, counts};
use super::apply::Applier;
use crate::backend::{AclBackend, AclSnapshot};
use crate::desired::{DesiredObjects, Edition, AclContext, desired};
use crate::plan::{AclAction, AclStep, plan_objects};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{ConsulAuthSpec, Presence};
use ecs_mesh_control_plane::{CallError, MeshErrorKind, call};
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_model::Timestamp;

/// So often it is looked again at what a look has written: adoption takes two, and a third shows that all is done.
const MAX_PASSES: usize = 4;

/// So long, one after the other, a write is waited for to show: policies and roles of a secondary datacenter are written
/// in the primary one, and come back from there.
const REPLICATION_DELAYS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];

/// How a pass ended.
pub(super) enum ReconcileEnd {
    /// All that can be done is done.
    Settled,
    /// Something failed, or other manifests are in force by now: again soon, and not before this.
    Retry(Option<Instant>),
}

/// One pass.
pub(super) struct AclReconcile<'a> {
    pub(super) acl: &'a AclReconciler,
    pub(super) stop: &'a CancellationToken,
}

impl AclReconcile<'_> {
    pub(super) async fn run(&self) -> ReconcileEnd {
        let identities = &*self.acl.target.backend;
        let set = self.acl.host.manifests();
        let spec = declared_auth(&set, &self.acl.target.name);
        let report = AclReporter { acl: self.acl, is_declared: spec.is_some() };
        let mut hand = Applier::new(self, identities, &set, report);
        let mut rounds = 0;
        let mut pauses = REPLICATION_DELAYS.iter();
        loop {
            let (desired, looked) = match self.look(identities, &set, spec).await {
                Ok(found) => found,
                Err(at) => return self.unreachable(spec.is_some(), at),
            };
            report.report_lost_responses(REPLICATION_DELAYS.iter().sum(), &looked.actual);
            self.acl.record_auth_methods(&looked.actual);
            let mut steps = plan_objects(&desired, &looked.actual, &self.acl.operator);
            if !set.complete {
                block_removals(&mut steps);
            }
            if steps.iter().any(|step| hand.has_written(step))
                && !self.stop.is_cancelled()
                && let Some(pause) = pauses.next()
            {
                self.wait(*pause).await;
                continue;
            }
            if hand.is_superseded() {
                return ReconcileEnd::Retry(None);
            }
            rounds += 1;
            report.report_errors(&looked.errors);
            let round = hand.carry_out(&desired, steps, looked.throttled()).await;
            report.finish_pass(&round.outcomes);
            if hand.is_superseded() {
                return ReconcileEnd::Retry(round.not_before);
            }
            if round.wrote && !round.is_halted && rounds < MAX_PASSES && !self.stop.is_cancelled() {
                continue;
            }
            let went_well = !round.failed && looked.errors.is_empty();
            let is_as_declared =
                |(_, outcome): &(_, AclOutcome)| matches!(outcome, AclOutcome::Unchanged | AclOutcome::Done);
            let is_good = went_well && round.outcomes.iter().all(is_as_declared);
            let last_sync = is_good.then(|| seconds(self.acl.clock.now()));
            self.acl.target.keeping.record_result(counts(&round.outcomes), last_sync);
            // Where nothing is declared nobody waits for it.
            return if went_well || spec.is_none() { ReconcileEnd::Settled } else { ReconcileEnd::Retry(round.not_before) };
        }
    }

    async fn wait(&self, pause: Duration) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// `Err`: the control plane has not been reachable, and is not asked before this.
    async fn look(
        &self,
        identities: &dyn AclBackend,
        set: &ManifestSet,
        spec: Option<&Arc<ConsulAuthSpec>>,
    ) -> Result<(DesiredObjects, AclSnapshot), Instant> {
        let clusters = self.acl.host.clusters_at(set, &self.acl.target.name);
        let mut found = None;
        let look = async {
            let mut errors = Vec::new();
            let mut namespaces = BTreeSet::new();
            let consul = self.acl.target.connection.as_ref();
            let all_count = consul.is_some_and(|consul| consul.namespaces.iter().any(|name| name == "*"));
            if all_count && spec.is_some_and(|spec| manages_namespaces(spec)) {
                match identities.namespaces().await {
                    Ok(all) => namespaces = all,
                    // The look is refused just so where it needs them, and says so.
                    Err(error) if error.kind == MeshErrorKind::Forbidden => {}
                    Err(error) => errors.push(error),
                }
            }
            let edition = consul.map_or(Edition::Community, |consul| Edition::of(consul, &namespaces));
            let datacenter = identities.datacenter().await;
            let around =
                AclContext { operator: &self.acl.operator, clusters: &clusters, edition, datacenter };
            let mut desired = spec.map_or_else(|| around.nothing_declared(), |spec| desired(spec, &around));
            desired.manifests_incomplete = !set.complete;
            let mut auths = set.consul_auths.iter();
            let by = auths.find(|(_, spec)| *spec.control_plane == *self.acl.target.name);
            desired.declared_by = by.map(|(name, _)| Arc::clone(name));
            let mut looked = identities.snapshot(&around, &desired).await;
            looked.errors.extend(errors);
            let unreachable = looked.unreachable().cloned();
            found = Some((desired, looked));
            unreachable.map_or(Ok(()), Err)
        };
        match (call(&self.acl.target.circuit, look).await, found) {
            (Err(CallError::Until(at)), _) => Err(at),
            (_, Some(found)) => Ok(found),
            // The look always leaves what it found.
            (_, None) => Err(Instant::now()),
        }
    }

    fn unreachable(&self, is_declared: bool, at: Instant) -> ReconcileEnd {
        if is_declared {
            self.acl.gap(
                &format!("identity set-up at control plane {}", self.acl.target.name),
                Some("the control plane has not been reachable".to_owned()),
            );
        }
        ReconcileEnd::Retry(Some(at))
    }
}

/// As metrics have it.
#[allow(clippy::cast_precision_loss)] // milliseconds until the year 280,000
fn seconds(at: Timestamp) -> f64 {
    at.0 as f64 / 1_000.0
}

/// Whether something may be wanted of namespaces: what once hung on them, the manifest need not say where all goes.
fn manages_namespaces(spec: &ConsulAuthSpec) -> bool {
    spec.state == Presence::Absent || spec.enterprise.is_some()
}

/// While the manifests have never loaded whole, nothing is taken away.
fn block_removals(steps: &mut [AclStep]) {
    for step in steps.iter_mut() {
        let takes_away = match &step.action {
            AclAction::Remove => true,
            // Of these only links to policies change.
            AclAction::Update { fields, .. } => {
                matches!(step.id.kind, ObjectKind::AnonymousToken | ObjectKind::Namespace)
                    && fields.iter().any(|change| has_removed_items(change.before.as_ref(), change.after.as_ref()))
            }
            _ => false,
        };
        if takes_away {
            step.action = AclAction::Hold;
            step.reason =
                format!("{}; it waits until the manifests have loaded without an error once", step.reason);
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
            // A role that has too much is put right all the same.
            step(ObjectKind::Role, update(two, one)),
            step(ObjectKind::Policy, AclAction::Create { body: Value::Null }),
        ];
        block_removals(&mut steps);
        let held: Vec<bool> = steps.iter().map(|step| step.action == AclAction::Hold).collect();
        assert_eq!(held, [true, true, false, false, false]);
    }
}
