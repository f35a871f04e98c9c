//! The decision on one task's registrations: the step for each, its evidence, and the facts that are required first.
//!
//! Guarantees invariant I2: a registration is drained or removed on one of the reasons of [`Evidence`] alone.

mod evidence;
mod owner;
mod preview;
mod settle;

use std::sync::Arc;
use std::time::Duration;

use crate::intent::{
    DesiredProxy, DesiredRegistration, Evaluation, IgnoreReason, RegistrationId, RoleRule, RoleViolation,
    Verdict, ViolationBasis,
};
use crate::plan::{DrainReason, RemovalBasis, TaskLiveness};
use ecs_mesh_api::manifests::Binding;
use ecs_mesh_api::{LifecyclePolicy, OnRevoked};
use ecs_mesh_model::{DataplaneOwner, Timestamp};

pub use evidence::Evidence;
pub use owner::{OwnerAction, OwnerStep};
pub use preview::{PendingConfirmation, decide_if_confirmed};
pub use settle::Settling;

/// How long DescribeTasks shows a stopped task, at least.
///
/// Source: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html>.
const STOPPED_TASKS_SHOWN: Duration = Duration::from_hours(1);

/// Wait before a task with an unconfirmed stop is decided on again, if no describe succeeds before.
const UNCONFIRMED_RETRY: Duration = Duration::from_secs(30);

/// A registration of the task, as last read.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownRegistration {
    /// The mesh and the name.
    pub id: RegistrationId,
    /// The reason of this operator's drain, and when this process first saw the drain.
    pub drained: Option<(DrainReason, Timestamp)>,
    /// The owning binding; `None` where no binding covers the registration, which is then never changed.
    pub binding: Option<Arc<Binding>>,
    /// Whether complete manifests have declared the registration since the operator started.
    pub was_declared: bool,
    /// The owner of the Dataplane: the operator drains its own alone.
    pub owner: DataplaneOwner,
}

impl KnownRegistration {
    /// Whether the operator drained its own registration of a task whose Dataplane the manifests now leave to `owner`: no other
    /// writer undoes the drain.
    fn has_own_drain(&self, owner: DataplaneOwner) -> bool {
        owner == DataplaneOwner::Sidecar && self.owner == DataplaneOwner::Operator && self.drained.is_some()
    }
}

/// How recently, and how often, describes showed a task alive and wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sighting {
    /// Not within the last minute: the task's address may belong to another task.
    Old,
    /// Within the last minute.
    Recent,
    /// Within the last minute, and by another describe at least 10 s before.
    Confirmed,
}

/// The input of a decision.
#[derive(Clone, Debug)]
pub struct DecisionInput<'a> {
    /// The task's liveness.
    pub liveness: TaskLiveness,
    /// The desired state; evaluated for live tasks only.
    pub evaluation: Option<&'a Evaluation>,
    /// The task's registrations at this control plane.
    pub known: &'a [KnownRegistration],
    /// How recently, and how often, describes showed the task alive.
    pub sighting: Sighting,
    /// Whether all manifests are valid. Only then is a missing declaration evidence.
    pub manifests_complete: bool,
    /// Documents may have left the manifests less than `cleanup.settle` ago.
    pub settling: Option<Settling<'a>>,
    /// Tasks register themselves at this control plane. The operator creates and drains nothing for them, and removes
    /// registrations of live tasks only where the binding requests it (`onRevoked: withdraw`).
    pub self_registered: bool,
    /// The current time.
    pub now: Timestamp,
}

impl DecisionInput<'_> {
    /// Whether this operator, or an earlier process of it, drained a registration because ECS was stopping the task.
    fn is_drained_for_stopping(&self) -> bool {
        self.known.iter().any(|known| matches!(known.drained, Some((DrainReason::Stopping, _))))
    }
}

/// The operator's action on one registration.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create the registration, or update it where it differs and `may_update` is set.
    Ensure {
        /// The desired registration.
        desired: Box<DesiredRegistration>,
        /// The policy allows updates.
        may_update: bool,
    },
    /// Take the registration out of load balancing.
    Drain(DrainReason, Evidence),
    /// Remove the registration.
    Remove(Evidence),
    /// An action that the policy does not permit.
    Skip {
        /// The action that the policy does not permit.
        action: SkippedAction,
        /// The reason for the action.
        evidence: Evidence,
    },
}

/// The action that a policy, or the owner of a Dataplane, does not permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkippedAction {
    /// A drain.
    Drain,
    /// A removal.
    Remove,
}

impl SkippedAction {
    /// The value of the log field `change`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Remove => "remove",
        }
    }
}

/// An action on a registration, on behalf of a binding.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanStep {
    /// The registration.
    pub id: RegistrationId,
    /// The binding whose policy, guard and pause apply.
    pub binding: Arc<Binding>,
    /// The action.
    pub action: Action,
}

impl PlanStep {
    /// Whether the guard must admit the step.
    pub fn needs_guard(&self) -> bool {
        match &self.action {
            Action::Drain(reason, evidence) => {
                *reason != DrainReason::Stopping && !evidence.is_confirmed_stop()
            }
            Action::Remove(evidence) => !evidence.is_confirmed_stop(),
            Action::Ensure { .. } | Action::Skip { .. } => false,
        }
    }

    /// The evidence of the drain or removal.
    pub fn evidence(&self) -> Option<&Evidence> {
        match &self.action {
            Action::Drain(_, evidence) | Action::Remove(evidence) | Action::Skip { evidence, .. } => {
                Some(evidence)
            }
            Action::Ensure { .. } => None,
        }
    }

    /// The basis of the drain or removal, for the guard. The manifests have asked for it for `asked_for`.
    pub fn removal_basis(&self, asked_for: Duration) -> RemovalBasis {
        self.evidence().map_or(RemovalBasis::Unconfirmed, |evidence| evidence.removal_basis(asked_for))
    }
}

/// The steps to execute now, the facts to read first, and when to reconcile again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// The steps, in this order.
    pub steps: Vec<PlanStep>,
    /// The steps that are left to the owners of Dataplanes.
    pub owner_steps: Vec<OwnerStep>,
    /// A describe of the task must come before further steps.
    pub describe: bool,
    /// A registration is drained because ECS was stopping the task, and ECS now wants the task to run: a second describe,
    /// at least 10 s after the first, must come before further steps.
    pub confirm_running: bool,
    /// A second read of the role's tags must come before further steps.
    pub recheck_role: bool,
    /// Reconcile again after this time, even without an event.
    pub requeue_after: Option<Duration>,
    /// The registrations that the manifests no longer ask for, or no longer allow.
    pub undeclared: Vec<RegistrationId>,
    /// Those of them whose withdrawal waits for `cleanup.settle`.
    pub settling: Vec<RegistrationId>,
}

impl Decision {
    /// Whether a registration is being withdrawn, or is kept only by the policy or by the drain's delay. The guard's
    /// admissions for such a task stay counted.
    pub fn is_withdrawing(&self) -> bool {
        let needs_guard = |step: &PlanStep| match &step.action {
            Action::Skip { evidence, .. } => !evidence.is_confirmed_stop(),
            _ => step.needs_guard(),
        };
        self.requeue_after.is_some() || self.steps.iter().any(needs_guard)
    }
}

/// Decides the steps for a task's registrations, by liveness and, for live tasks, by verdict and policy.
///
/// A registration without an owning binding gets no step. *g* marks steps that the guard must admit.
///
/// | liveness | `sync` | `upsert-only` | `create-only` | also |
/// |---|---|---|---|---|
/// | `Stopped` | remove | drain, once | skip remove | |
/// | `StoppedMissing` | remove *g* (not an hour after the event, nor after a drain for stopping) | skip remove | skip remove | |
/// | `Absent` | remove *g* (not after a drain for stopping) | skip remove | skip remove | |
/// | `StopUnconfirmed` | drain *g* | drain *g* | skip drain | |
/// | `Leaving` | drain | drain | skip drain | |
/// | `Live`, drained for stopping | – | – | – | a second describe; once confirmed, as any live task |
/// | `Missing` | – | – | – | describe, once due |
/// | `Unknown` | – | – | – | |
///
/// | verdict of a live task | `sync` | `upsert-only` | `create-only` | also |
/// |---|---|---|---|---|
/// | register, not registered | create | create | create | describe instead, unless seen recently |
/// | register, registered | update | update | – | keeps the registered name |
/// | register, registered elsewhere, as another type or twice | withdraw the others | withdraw the others | skip remove | complete manifests only; not a `ZoneIngress` or `ZoneEgress` of what is still a zone proxy |
/// | reject, confirmed | withdraw | withdraw | skip remove | by manifests: complete ones only; `onRevoked: keep`: – |
/// | reject, read once | – | – | – | read the role again |
/// | ignore: no longer declared | withdraw | withdraw | skip remove | complete manifests only |
/// | ignore: network mode or external instance; hold; fact missing; admit | – | – | – | |
///
/// *Withdraw* is: drain *g*; after `cleanup.drain`, remove *g* under `sync`, and skip remove under `upsert-only`. By the
/// manifests, and only because a document is absent, it waits for `cleanup.settle` first.
///
/// The table is that of Dataplanes that the operator owns. Of others it creates, updates and drains none:
///
/// | | owned by the sidecar | observed |
/// |---|---|---|
/// | register | check | check |
/// | drain | – (of a live task: withhold) | withhold |
/// | remove, since the task is gone | as `sync` or `create-only` | withhold |
/// | withdraw from a live task | withhold | withhold |
///
/// Where tasks register themselves (Consul), nothing is created or drained: `Leaving` and `StopUnconfirmed`
/// give no step; `Stopped`, `StoppedMissing` and `Absent` remove under `sync` and are skipped otherwise. A live task keeps its registrations unless `onRevoked` is `withdraw`, which removes them without a drain.
pub fn decide(input: &DecisionInput<'_>) -> Decision {
    let mut decision = Decision::default();
    match input.liveness {
        TaskLiveness::Stopped => decision.remove_all(input, &Evidence::Stopped),
        TaskLiveness::StoppedMissing { since } => {
            let doubtful = since.age_at(input.now) < STOPPED_TASKS_SHOWN;
            decision.remove_all(input, &Evidence::StoppedMissing { doubtful });
            if doubtful {
                decision.requeue_within(STOPPED_TASKS_SHOWN.saturating_sub(since.age_at(input.now)));
            }
        }
        TaskLiveness::Absent { sweeps, since } => {
            decision.remove_all(input, &Evidence::Absent { sweeps, since, after_stop: false });
        }
        // The task logs out and leaves load balancing by itself.
        TaskLiveness::StopUnconfirmed | TaskLiveness::Leaving if input.self_registered => {}
        TaskLiveness::StopUnconfirmed => {
            decision.drain_all(input.known, DrainReason::Unconfirmed, &Evidence::StopEvent);
            decision.requeue_within(UNCONFIRMED_RETRY);
        }
        TaskLiveness::Leaving => {
            decision.drain_all(input.known, DrainReason::Stopping, &Evidence::Stopping);
        }
        TaskLiveness::Missing { due } => decision.describe = due,
        TaskLiveness::Unknown => {}
        TaskLiveness::Live if input.is_drained_for_stopping() && input.sighting < Sighting::Confirmed => {
            decision.confirm_running = true;
        }
        TaskLiveness::Live => decision.live(input),
    }
    decision
}

impl Decision {
    fn remove_all(&mut self, input: &DecisionInput<'_>, evidence: &Evidence) {
        for registration in input.known {
            let Some(binding) = &registration.binding else { continue };
            let evidence = &evidence.of(registration);
            if registration.owner == DataplaneOwner::Observe {
                self.withhold(registration, SkippedAction::Remove, evidence);
                continue;
            }
            let is_own = registration.owner == DataplaneOwner::Operator;
            let may_drain = registration.drained.is_none() && !input.self_registered && is_own;
            let action = match binding.spec.policy {
                LifecyclePolicy::Sync => Action::Remove(evidence.clone()),
                LifecyclePolicy::UpsertOnly if may_drain && evidence.is_confirmed_stop() => {
                    Action::Drain(DrainReason::Stopping, evidence.clone())
                }
                LifecyclePolicy::UpsertOnly | LifecyclePolicy::CreateOnly => {
                    Action::Skip { action: SkippedAction::Remove, evidence: evidence.clone() }
                }
            };
            self.step(registration, binding, action);
        }
    }

    fn drain_all(&mut self, known: &[KnownRegistration], reason: DrainReason, evidence: &Evidence) {
        for registration in known {
            let Some(binding) = &registration.binding else { continue };
            // A drain for stopping is the stronger one: it is final, and needs no guard.
            let drained = registration.drained.map(|(reason, _)| reason);
            if drained == Some(DrainReason::Stopping)
                || (drained.is_some() && reason != DrainReason::Stopping)
            {
                continue;
            }
            match registration.owner {
                DataplaneOwner::Operator => {}
                // The sidecar drains Envoy when it is stopped, and the control plane deletes its Dataplane then.
                DataplaneOwner::Sidecar => continue,
                DataplaneOwner::Observe => {
                    self.withhold(registration, SkippedAction::Drain, evidence);
                    continue;
                }
            }
            let action = if binding.spec.policy == LifecyclePolicy::CreateOnly {
                Action::Skip { action: SkippedAction::Drain, evidence: evidence.clone() }
            } else {
                Action::Drain(reason, evidence.clone())
            };
            self.step(registration, binding, action);
        }
    }

    fn live(&mut self, input: &DecisionInput<'_>) {
        let Some(evaluation) = input.evaluation else { return };
        match input.settling {
            Some(settling) => self.live_while_settling(evaluation, settling, input),
            None => self.apply(evaluation, input, &[]),
        }
    }

    /// Applies an evaluation. The manifests do not withdraw the `unsettled` registrations yet.
    fn apply(&mut self, evaluation: &Evaluation, input: &DecisionInput<'_>, unsettled: &[RegistrationId]) {
        match (&evaluation.verdict, &evaluation.binding) {
            (Verdict::Register(desired), Some(binding)) => {
                self.register(desired, (binding, evaluation.owner), input, unsettled);
            }
            (Verdict::Reject { violations, confirmed: true, .. }, _) => {
                let Some(evidence) = violations_against(violations, input.manifests_complete) else { return };
                for registration in input.known {
                    self.revoke(registration, &evidence, input, unsettled);
                }
            }
            (Verdict::Ignore(_), _) if input.self_registered => {}
            (Verdict::Reject { confirmed: false, .. }, _) => self.recheck_role = true,
            (Verdict::Ignore(reason), _) => {
                let withdrawn = match reason {
                    IgnoreReason::NoBinding
                    | IgnoreReason::OtherControlPlane
                    | IgnoreReason::NoWorkload
                    | IgnoreReason::NotRegistered => input.manifests_complete,
                    // Where a task runs never changes, so the registration is not this operator's decision.
                    IgnoreReason::NetworkMode(_) | IgnoreReason::ExternalInstance => false,
                };
                if withdrawn {
                    self.withdraw_undeclared(input.known, input.now, unsettled);
                }
            }
            (Verdict::Hold(_) | Verdict::NeedsFact(_) | Verdict::Register(_) | Verdict::Admit, _) => {}
        }
    }

    fn register(
        &mut self,
        desired: &DesiredRegistration,
        (binding, owner): (&Arc<Binding>, DataplaneOwner),
        input: &DecisionInput<'_>,
        unsettled: &[RegistrationId],
    ) {
        let (alike, elsewhere): (Vec<&KnownRegistration>, Vec<&KnownRegistration>) =
            input.known.iter().partition(|known| known.id.is_alike(&desired.id));
        // The sidecar keeps the name that it was started with: a changed `dataplaneName` applies to new tasks.
        let current = alike.iter().find(|known| known.id == desired.id).or(alike.first());
        match current {
            _ if owner != DataplaneOwner::Operator
                && !current.is_some_and(|known| known.has_own_drain(owner)) =>
            {
                let id = current.map_or(&desired.id, |known| &known.id).clone();
                self.check(DesiredRegistration { id, ..desired.clone() }, owner, binding);
            }
            Some(known) => {
                let may_update = binding.spec.policy != LifecyclePolicy::CreateOnly;
                let desired = Box::new(DesiredRegistration { id: known.id.clone(), ..desired.clone() });
                let action = Action::Ensure { desired, may_update };
                self.steps.push(PlanStep { id: known.id.clone(), binding: Arc::clone(binding), action });
            }
            None if input.sighting >= Sighting::Recent => {
                let action = Action::Ensure { desired: Box::new(desired.clone()), may_update: true };
                self.steps.push(PlanStep { id: desired.id.clone(), binding: Arc::clone(binding), action });
            }
            None => self.describe = true,
        }
        let duplicates = alike.iter().filter(|known| current.is_some_and(|current| known.id != current.id));
        if input.manifests_complete {
            let others = elsewhere.into_iter().filter(|known| !is_running_zone_proxy(known, desired));
            self.withdraw_undeclared(others.chain(duplicates.copied()), input.now, unsettled);
        }
    }

    /// Withdraws registrations that the manifests no longer declare.
    fn withdraw_undeclared<'k>(
        &mut self,
        known: impl IntoIterator<Item = &'k KnownRegistration>,
        now: Timestamp,
        unsettled: &[RegistrationId],
    ) {
        for registration in known {
            if self.may_withdraw(registration, &Evidence::Manifests, unsettled) {
                self.withdraw(registration, DrainReason::NotDesired, &Evidence::Manifests, now);
            }
        }
    }

    /// Applies the binding's `onRevoked` to a registration that the role no longer allows.
    fn revoke(
        &mut self,
        registration: &KnownRegistration,
        evidence: &Evidence,
        input: &DecisionInput<'_>,
        unsettled: &[RegistrationId],
    ) {
        let Some(binding) = &registration.binding else { return };
        let default = if input.self_registered { OnRevoked::Keep } else { OnRevoked::Withdraw };
        match binding.spec.role_tags.on_revoked.unwrap_or(default) {
            OnRevoked::Keep => {}
            OnRevoked::Withdraw if !self.may_withdraw(registration, evidence, unsettled) => {}
            OnRevoked::Withdraw if input.self_registered => {
                let evidence = evidence.clone();
                let action = match binding.spec.policy {
                    LifecyclePolicy::Sync => Action::Remove(evidence),
                    LifecyclePolicy::UpsertOnly | LifecyclePolicy::CreateOnly => {
                        Action::Skip { action: SkippedAction::Remove, evidence }
                    }
                };
                self.step(registration, binding, action);
            }
            OnRevoked::Withdraw => {
                let reason = match evidence {
                    Evidence::RoleTags => DrainReason::Revoked,
                    _ => DrainReason::NotDesired,
                };
                self.withdraw(registration, reason, evidence, input.now);
            }
        }
    }

    /// Drains the registration, and removes it after `cleanup.drain`.
    fn withdraw(
        &mut self,
        registration: &KnownRegistration,
        reason: DrainReason,
        evidence: &Evidence,
        now: Timestamp,
    ) {
        let Some(binding) = &registration.binding else { return };
        if registration.owner != DataplaneOwner::Operator {
            return self.withhold(registration, SkippedAction::Drain, evidence);
        }
        let delay = binding.spec.cleanup.drain.0;
        let evidence = evidence.clone();
        let action = match (binding.spec.policy, registration.drained) {
            (LifecyclePolicy::CreateOnly, _) | (LifecyclePolicy::UpsertOnly, Some(_)) => {
                Action::Skip { action: SkippedAction::Remove, evidence }
            }
            (_, None) => {
                self.requeue_within(delay);
                Action::Drain(reason, evidence)
            }
            (LifecyclePolicy::Sync, Some((_, since))) => {
                let remaining = delay.saturating_sub(since.age_at(now));
                if !remaining.is_zero() {
                    return self.requeue_within(remaining);
                }
                Action::Remove(evidence)
            }
        };
        self.step(registration, binding, action);
    }

    fn step(&mut self, registration: &KnownRegistration, binding: &Arc<Binding>, action: Action) {
        self.steps.push(PlanStep { id: registration.id.clone(), binding: Arc::clone(binding), action });
    }

    fn requeue_within(&mut self, after: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(after, |earlier| earlier.min(after)));
    }
}

/// The evidence against a live task in the rules that its role breaks; `None` where incomplete manifests may be the cause,
/// or where no rule is the role's.
fn violations_against(violations: &[RoleViolation], manifests_complete: bool) -> Option<Evidence> {
    let role_violations =
        || violations.iter().filter_map(|violation| Some((violation.basis()?, violation.rule)));
    if role_violations().any(|(basis, _)| basis == ViolationBasis::Tags) {
        return Some(Evidence::RoleTags);
    }
    let by_edit = role_violations().all(|(basis, _)| basis == ViolationBasis::Manifests);
    let rules: Vec<RoleRule> = role_violations().map(|(_, rule)| rule).collect();
    (manifests_complete && !rules.is_empty()).then_some(Evidence::RoleNotAllowed { rules, by_edit })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_disallowed;
#[cfg(test)]
mod tests_owner;
#[cfg(test)]
mod tests_self_registered;
/// Whether the registration is a `ZoneIngress` or `ZoneEgress`, and the task is to be a zone proxy of another form or type. A
/// proxy keeps the type that it was started with: until the task is replaced, it serves as what is registered.
fn is_running_zone_proxy(known: &KnownRegistration, desired: &DesiredRegistration) -> bool {
    known.id.zone_proxy().is_some() && matches!(desired.proxy, DesiredProxy::Zone(..))
}

#[cfg(test)]
mod tests_settle;
