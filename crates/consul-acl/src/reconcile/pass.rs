//! One look at a control plane's identity set-up, and what follows from it: looked at again for as long as it is not as
//! it was written, and given up once other manifests are in force.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::AclReconciler;
use super::declared;
use super::report::{Outcome, Report, counts};
use super::round::Hand;
use crate::backend::{Identities, Looked};
use crate::desired::{DesiredObjects, Edition, Surroundings, desired};
use crate::plan::{ObjectAction, ObjectStep, plan_objects};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{ConsulAuthSpec, Presence};
use ecs_mesh_control_plane::{Halt, MeshErrorKind, call};
use ecs_mesh_core::plan::proposal::ObjectKind;
use ecs_mesh_model::Timestamp;

/// So often it is looked again at what a look has written: adoption takes two, and a third shows that all is done.
const ROUNDS: usize = 4;

/// So long, one after the other, a write is waited for to show: policies and roles of a secondary datacenter are written
/// in the primary one, and come back from there.
const UNTIL_IT_SHOWS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];

/// How a pass ended.
pub(super) enum Ended {
    /// All that can be done is done.
    Well,
    /// Something failed, or other manifests are in force by now: again soon, and not before this.
    Again(Option<Instant>),
}

/// One pass.
pub(super) struct Pass<'a> {
    pub(super) acl: &'a AclReconciler,
    pub(super) stop: &'a CancellationToken,
}

impl Pass<'_> {
    pub(super) async fn run(&self) -> Ended {
        let identities = &*self.acl.target.backend;
        let set = self.acl.host.manifests();
        let spec = declared(&set, &self.acl.target.name);
        let report = Report { acl: self.acl, is_declared: spec.is_some() };
        let mut hand = Hand::new(self, identities, &set, report);
        let mut rounds = 0;
        let mut pauses = UNTIL_IT_SHOWS.iter();
        loop {
            let (desired, looked) = match self.look(identities, &set, spec).await {
                Ok(found) => found,
                Err(at) => return self.not_reached(spec.is_some(), at),
            };
            report.tell_of_lost_answers(UNTIL_IT_SHOWS.iter().sum(), &looked.actual);
            self.acl.learn_methods(&looked.actual);
            let mut steps = plan_objects(&desired, &looked.actual, &self.acl.operator);
            if !set.complete {
                hold_removals(&mut steps);
            }
            if steps.iter().any(|step| hand.has_written(step))
                && !self.stop.is_cancelled()
                && let Some(pause) = pauses.next()
            {
                self.wait(*pause).await;
                continue;
            }
            if hand.is_superseded() {
                return Ended::Again(None);
            }
            rounds += 1;
            report.tell_failures(&looked.errors);
            let round = hand.carry_out(&desired, steps, looked.busy()).await;
            report.tell(&round.outcomes);
            if hand.is_superseded() {
                return Ended::Again(round.not_before);
            }
            if round.wrote && !round.is_halted && rounds < ROUNDS && !self.stop.is_cancelled() {
                continue;
            }
            let went_well = !round.failed && looked.errors.is_empty();
            let is_as_declared =
                |(_, outcome): &(_, Outcome)| matches!(outcome, Outcome::Seen | Outcome::Done);
            let is_good = went_well && round.outcomes.iter().all(is_as_declared);
            let checked_at = is_good.then(|| seconds(self.acl.clock.now()));
            self.acl.target.keeping.found(counts(&round.outcomes), checked_at);
            // Where nothing is declared nobody waits for it.
            return if went_well || spec.is_none() { Ended::Well } else { Ended::Again(round.not_before) };
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
        identities: &dyn Identities,
        set: &ManifestSet,
        spec: Option<&Arc<ConsulAuthSpec>>,
    ) -> Result<(DesiredObjects, Looked), Instant> {
        let clusters = self.acl.host.clusters_at(set, &self.acl.target.name);
        let mut found = None;
        let look = async {
            let mut errors = Vec::new();
            let mut namespaces = BTreeSet::new();
            let consul = self.acl.target.connection.as_ref();
            let all_count = consul.is_some_and(|consul| consul.namespaces.iter().any(|name| name == "*"));
            if all_count && spec.is_some_and(|spec| speaks_of_namespaces(spec)) {
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
                Surroundings { operator: &self.acl.operator, clusters: &clusters, edition, datacenter };
            let mut desired = spec.map_or_else(|| around.nothing_declared(), |spec| desired(spec, &around));
            desired.in_doubt = !set.complete;
            let mut auths = set.consul_auths.iter();
            let by = auths.find(|(_, spec)| *spec.control_plane == *self.acl.target.name);
            desired.by = by.map(|(name, _)| Arc::clone(name));
            let mut looked = identities.look(&around, &desired).await;
            looked.errors.extend(errors);
            let unreachable = looked.unreachable().cloned();
            found = Some((desired, looked));
            unreachable.map_or(Ok(()), Err)
        };
        match (call(&self.acl.target.circuit, look).await, found) {
            (Err(Halt::Until(at)), _) => Err(at),
            (_, Some(found)) => Ok(found),
            // The look always leaves what it found.
            (_, None) => Err(Instant::now()),
        }
    }

    fn not_reached(&self, is_declared: bool, at: Instant) -> Ended {
        if is_declared {
            self.acl.gap(
                &format!("identity set-up at control plane {}", self.acl.target.name),
                Some("the control plane has not been reachable".to_owned()),
            );
        }
        Ended::Again(Some(at))
    }
}

/// As metrics have it.
#[allow(clippy::cast_precision_loss)] // milliseconds until the year 280,000
fn seconds(at: Timestamp) -> f64 {
    at.0 as f64 / 1_000.0
}

/// Whether something may be wanted of namespaces: what once hung on them, the manifest need not say where all goes.
fn speaks_of_namespaces(spec: &ConsulAuthSpec) -> bool {
    spec.state == Presence::Absent || spec.enterprise.is_some()
}

/// While the manifests have never loaded whole, nothing is taken away.
fn hold_removals(steps: &mut [ObjectStep]) {
    for step in steps.iter_mut() {
        let takes_away = match &step.action {
            ObjectAction::Remove => true,
            // Of these only links to policies change.
            ObjectAction::Update { fields, .. } => {
                matches!(step.id.kind, ObjectKind::AnonymousToken | ObjectKind::Namespace)
                    && fields.iter().any(|change| lost_any(change.before.as_ref(), change.after.as_ref()))
            }
            _ => false,
        };
        if takes_away {
            step.action = ObjectAction::Hold;
            step.reason =
                format!("{}; it waits until the manifests have loaded without an error once", step.reason);
        }
    }
}

fn lost_any(before: Option<&serde_json::Value>, after: Option<&serde_json::Value>) -> bool {
    let items =
        |value: Option<&serde_json::Value>| value.and_then(|v| v.as_array()).cloned().unwrap_or_default();
    let after = items(after);
    items(before).iter().any(|item| !after.contains(item))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::desired::{ObjectId, Scope};
    use ecs_mesh_core::plan::FieldChange;

    fn step(kind: ObjectKind, action: ObjectAction) -> ObjectStep {
        let id = ObjectId { kind, scope: Scope::default(), name: "x".into() };
        ObjectStep { id, server_id: None, action, reason: "r".into(), warnings: Vec::new(), before: None }
    }

    fn update(before: Value, after: Value) -> ObjectAction {
        let field = FieldChange { path: "Policies".into(), before: Some(before), after: Some(after) };
        ObjectAction::Update { fields: vec![field], body: Value::Null }
    }

    #[test]
    fn manifests_that_never_loaded_whole_take_nothing_away() {
        let (two, one) = (json!([{"Name": "a"}, {"Name": "b"}]), json!([{"Name": "a"}]));
        let mut steps = [
            step(ObjectKind::Role, ObjectAction::Remove),
            step(ObjectKind::AnonymousToken, update(two.clone(), one.clone())),
            step(ObjectKind::AnonymousToken, update(one.clone(), two.clone())),
            // A role that has too much is put right all the same.
            step(ObjectKind::Role, update(two, one)),
            step(ObjectKind::Policy, ObjectAction::Create { body: Value::Null }),
        ];
        hold_removals(&mut steps);
        let held: Vec<bool> = steps.iter().map(|step| step.action == ObjectAction::Hold).collect();
        assert_eq!(held, [true, true, false, false, false]);
    }
}
