//! One look at a control plane's identity set-up, and what follows from it, step by step. One object that fails holds
//! up only what rests on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::plane::Halt;
use super::super::status::seconds;
use super::super::{Operator, Plane};
use super::declared;
use super::keeping::Key;
use super::report::{Outcome, Report, counts};
use crate::api::ConsulAuthSpec;
use crate::intent::identity::{DesiredObjects, Edition, ObjectId, ObjectKind, Surroundings, Want, desired};
use crate::manifests::ManifestSet;
use crate::mesh::{Identities, Looked, MaySend, MeshErrorKind, Written};
use crate::plan::{ObjectAction, ObjectStep, plan_objects};

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
    /// Something failed: again soon, and not before this.
    Again(Option<Instant>),
}

/// One pass.
pub(super) struct Pass<'a> {
    pub(super) operator: &'a Operator,
    pub(super) plane: &'a Plane,
    pub(super) stop: &'a CancellationToken,
}

/// What a round's steps came to.
#[derive(Default)]
struct Round {
    outcomes: Vec<(ObjectStep, Outcome)>,
    wrote: bool,
    failed: bool,
    not_before: Option<Instant>,
}

impl Pass<'_> {
    pub(super) async fn run(&self) -> Ended {
        let Some(identities) = self.plane.mesh.identities() else { return Ended::Well };
        let set = self.operator.manifests();
        let spec = declared(&set, &self.plane.name);
        let mut written = BTreeMap::new();
        let mut rounds = 0;
        let mut pauses = UNTIL_IT_SHOWS.iter();
        loop {
            let (desired, looked) = match self.look(identities, &set, spec).await {
                Ok(found) => found,
                Err(at) => return self.not_reached(spec.is_some(), at),
            };
            let mut steps = plan_objects(&desired, &looked.actual, &self.operator.id);
            if !set.complete {
                hold_removals(&mut steps);
            }
            if steps.iter().any(|step| is_written(&written, step))
                && !self.stop.is_cancelled()
                && let Some(pause) = pauses.next()
            {
                self.wait(*pause).await;
                continue;
            }
            rounds += 1;
            let round = self.carry_out(identities, &desired, steps, &mut written).await;
            let report = Report { operator: self.operator, plane: self.plane, is_declared: spec.is_some() };
            report.tell(&round.outcomes, &looked.errors);
            if round.wrote && rounds < ROUNDS && !self.stop.is_cancelled() {
                continue;
            }
            let went_well = !round.failed && looked.errors.is_empty();
            let is_as_declared =
                |(_, outcome): &(_, Outcome)| matches!(outcome, Outcome::Seen | Outcome::Done);
            let is_good = went_well && round.outcomes.iter().all(is_as_declared);
            let checked_at = is_good.then(|| seconds(self.operator.clock.now()));
            self.plane.keeping.found(counts(&round.outcomes), checked_at);
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
        let clusters = self.operator.clusters_at(set, self.plane);
        let mut found = None;
        let look = async {
            let mut errors = Vec::new();
            let mut namespaces = BTreeSet::new();
            let consul = self.plane.spec.consul.as_ref();
            if consul.is_some_and(|consul| consul.namespaces.iter().any(|name| name == "*")) {
                match identities.namespaces().await {
                    Ok(all) => namespaces = all,
                    Err(error) => errors.push(error),
                }
            }
            let edition = consul.map_or(Edition::Community, |consul| Edition::of(consul, &namespaces));
            let datacenter = identities.datacenter().await;
            let around =
                Surroundings { operator: &self.operator.id, clusters: &clusters, edition, datacenter };
            let mut desired = spec.map_or_else(|| around.nothing_declared(), |spec| desired(spec, &around));
            let mut auths = set.consul_auths.iter();
            let by = auths.find(|(_, spec)| *spec.control_plane == *self.plane.name);
            desired.by = by.map(|(name, _)| Arc::clone(name));
            let mut looked = identities.look(&around, &desired).await;
            looked.errors.extend(errors);
            let unreachable = looked.unreachable().cloned();
            found = Some((desired, looked));
            unreachable.map_or(Ok(()), Err)
        };
        match (self.plane.call(look).await, found) {
            (Err(Halt::Until(at)), _) => Err(at),
            (_, Some(found)) => Ok(found),
            // The look always leaves what it found.
            (_, None) => Err(Instant::now()),
        }
    }

    fn not_reached(&self, is_declared: bool, at: Instant) -> Ended {
        if is_declared {
            self.operator.gap(
                &format!("identity set-up at control plane {}", self.plane.name),
                Some("the control plane has not been reachable".to_owned()),
            );
        }
        Ended::Again(Some(at))
    }

    async fn carry_out(
        &self,
        identities: &dyn Identities,
        desired: &DesiredObjects,
        steps: Vec<ObjectStep>,
        written: &mut BTreeMap<Key, ObjectAction>,
    ) -> Round {
        let mut round = Round::default();
        let mut failed: BTreeSet<ObjectId> = BTreeSet::new();
        // Of these something is there; what could not be made rests on nothing.
        let mut left: BTreeSet<ObjectId> = BTreeSet::new();
        for step in steps {
            let removes = step.action == ObjectAction::Remove;
            let key = (step.id.clone(), step.server_id.clone());
            let outcome = if !step.writes() {
                Outcome::Seen
            } else if self.stop.is_cancelled() || round.not_before.is_some() {
                Outcome::Later("it is tried again later".to_owned())
            } else if let Some(need) = rests_on(desired, &step, if removes { &left } else { &failed }) {
                Outcome::Waits(format!("something must come first: {need} could not be written"))
            } else if is_written(written, &step) {
                Outcome::Stubborn
            } else {
                self.write(identities, &step, &mut round.not_before).await
            };
            match &outcome {
                Outcome::Seen | Outcome::Planned => {}
                Outcome::Done => {
                    round.wrote = true;
                    written.insert(key, step.action.clone());
                }
                // Trying again soon would change nothing.
                Outcome::NoLease | Outcome::Stubborn | Outcome::Impossible(_) | Outcome::Waits(_) => {
                    failed.insert(step.id.clone());
                }
                Outcome::Later(_) | Outcome::Moved(_) | Outcome::Failed(_) => {
                    round.failed = true;
                    failed.insert(step.id.clone());
                }
            }
            if failed.contains(&step.id) && !matches!(step.action, ObjectAction::Create { .. }) {
                left.insert(step.id.clone());
            }
            round.outcomes.push((step, outcome));
        }
        round
    }

    async fn write(
        &self,
        identities: &dyn Identities,
        step: &ObjectStep,
        not_before: &mut Option<Instant>,
    ) -> Outcome {
        let dry = self.operator.is_dry();
        if !dry {
            // Before the read that comes before the write: between these nothing may wait.
            self.plane.writes.acquire(1).await;
        }
        let may_send = || match (dry, self.operator.lease.holds()) {
            (true, _) => MaySend::Dry,
            (false, true) => MaySend::Yes,
            (false, false) => MaySend::NoLease,
        };
        match self.plane.call(identities.carry_out(step, &may_send)).await {
            Ok(Written::Done) => Outcome::Done,
            Ok(Written::Dry) => Outcome::Planned,
            Ok(Written::NoLease) => Outcome::NoLease,
            Ok(Written::Moved(why)) => Outcome::Moved(why),
            Ok(Written::Impossible(why)) => Outcome::Impossible(why),
            Err(Halt::Until(at)) => {
                *not_before = Some(at);
                Outcome::Later("the control plane has not been reachable".to_owned())
            }
            Err(Halt::Failed(error)) => {
                if error.kind == MeshErrorKind::Busy {
                    *not_before = error.retry_after.map(|wait| Instant::now() + wait);
                }
                Outcome::Failed(error)
            }
        }
    }
}

/// Whether just this has been written in this pass.
fn is_written(written: &BTreeMap<Key, ObjectAction>, step: &ObjectStep) -> bool {
    let key = (step.id.clone(), step.server_id.clone());
    step.writes() && written.get(&key).is_some_and(|before| before.is_like(&step.action))
}

impl ObjectAction {
    /// Whether both would write the same.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Update { fields: a, .. }, Self::Update { fields: b, .. }) => {
                a.iter().map(|change| &change.path).eq(b.iter().map(|change| &change.path))
            }
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

/// What the step's object rests on and could not be written, or what rests on it and could not be removed.
fn rests_on(desired: &DesiredObjects, step: &ObjectStep, failed: &BTreeSet<ObjectId>) -> Option<ObjectId> {
    if step.action == ObjectAction::Remove {
        // Removals come last, and each kind of them before what it rests on.
        let above: &[ObjectKind] = match step.id.kind {
            ObjectKind::AuthMethod => &[ObjectKind::BindingRule],
            ObjectKind::Role => &[ObjectKind::BindingRule, ObjectKind::AuthMethod],
            ObjectKind::Policy => &[ObjectKind::Role, ObjectKind::AnonymousToken, ObjectKind::Namespace],
            _ => &[],
        };
        return failed.iter().find(|id| above.contains(&id.kind)).cloned();
    }
    let object = desired.objects.iter().find(|object| object.id == step.id)?;
    let needs = match &object.want {
        Want::Present { needs, .. } => needs,
        Want::Links { attach, .. } => attach,
        Want::Absent | Want::Held(_) => return None,
    };
    needs.iter().find(|need| failed.contains(need)).cloned()
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
    use crate::intent::identity::Scope;
    use crate::plan::FieldChange;

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

    #[test]
    fn what_something_rests_on_goes_after_it_or_not_at_all() {
        let failed = |kind| BTreeSet::from([step(kind, ObjectAction::Remove).id]);
        let desired = DesiredObjects::default();
        for (goes, stays, waits) in [
            (ObjectKind::Policy, ObjectKind::Role, true),
            (ObjectKind::Policy, ObjectKind::AnonymousToken, true),
            (ObjectKind::AuthMethod, ObjectKind::BindingRule, true),
            (ObjectKind::Node, ObjectKind::Role, false),
            (ObjectKind::BindingRule, ObjectKind::Policy, false),
        ] {
            let found = rests_on(&desired, &step(goes, ObjectAction::Remove), &failed(stays));
            assert_eq!(found.is_some(), waits, "{goes:?} after {stays:?}");
        }
    }
}
