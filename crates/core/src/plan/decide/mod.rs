//! The decision on one task's registrations: what to do with each, on which evidence, and what must be asked first.
//!
//! This is where invariant I2 lives: a removal of what may be alive has just the reasons of [`Evidence`].

mod preview;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::intent::{ViolationBasis, DesiredRegistration, IgnoreReason, Evaluation, RegistrationId, RoleRule, Verdict, RoleViolation};
use crate::plan::{DrainReason, TaskLiveness};
use ecs_mesh_api::manifests::Binding;
use ecs_mesh_api::{LifecyclePolicy, OnRevoked};
use ecs_mesh_model::Timestamp;

pub use preview::{PendingConfirmation, decide_if_confirmed};

/// Why a registration may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// ECS wants the task to stop: enough for a drain, which can be undone.
    Stopping,
    /// DescribeTasks says STOPPED, or, after a STOPPED event, MISSING.
    Stopped,
    /// Missing from complete sweeps, older than the grace age, and MISSING in a describe of its own.
    Absent {
        /// Complete sweeps of its cluster, by this process, without it.
        sweeps: u32,
        /// Since when.
        since: Timestamp,
        /// This operator drained the registration before, because ECS was stopping the task: a stop that cannot be taken
        /// back was seen, and traffic left the registration then. Its removal needs no guard.
        after_stop: bool,
    },
    /// The role's tags do not allow it, read twice.
    RoleTags,
    /// The manifests, all valid, no longer ask for it.
    Manifests,
    /// The manifests, all valid, do not let its role in, by these rules.
    RoleNotAllowed(Vec<RoleRule>),
}

impl Evidence {
    /// Whether the task's own STOPPED backs it; what it does not back counts towards the guard.
    pub fn is_confirmed_stop(&self) -> bool {
        matches!(self, Self::Stopping | Self::Stopped | Self::Absent { after_stop: true, .. })
    }

    /// The evidence as it holds for one registration of the task.
    fn of(&self, registration: &KnownRegistration) -> Self {
        match self {
            Self::Absent { sweeps, since, .. } => {
                let after_stop = matches!(registration.drained, Some((DrainReason::Stopping, _)));
                Self::Absent { sweeps: *sweeps, since: *since, after_stop }
            }
            other => other.clone(),
        }
    }

    /// A bounded label for metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Absent { .. } => "absent",
            Self::RoleTags => "role_tags",
            Self::Manifests | Self::RoleNotAllowed(_) => "manifests",
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopping => f.write_str("ECS is stopping the task"),
            Self::Stopped => f.write_str("ECS says that the task has stopped"),
            Self::Absent { sweeps, since, .. } => {
                write!(
                    f,
                    "the task is missing from {sweeps} complete sweeps since {since}, and from a describe"
                )
            }
            Self::RoleTags => f.write_str("the role's tags, read twice, do not allow it"),
            Self::Manifests => f.write_str("the manifests no longer ask for it"),
            Self::RoleNotAllowed(rules) => {
                let rules: Vec<&str> = rules.iter().map(|rule| rule.label()).collect();
                write!(f, "the manifests do not let its role in: {}", rules.join(", "))
            }
        }
    }
}

/// A registration of the task, as last seen.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownRegistration {
    /// Where.
    pub id: RegistrationId,
    /// Why this operator drained it, if so, and since when as far as this process knows.
    pub drained: Option<(DrainReason, Timestamp)>,
    /// The binding whose policy applies; `None`: nobody gave us a mandate any more.
    pub binding: Option<Arc<Binding>>,
}

/// All that a decision rests on.
#[derive(Clone, Debug)]
pub struct DecisionInput<'a> {
    /// What is known of the task's life.
    pub liveness: TaskLiveness,
    /// What it should be; only asked for when it is live.
    pub evaluation: Option<&'a Evaluation>,
    /// Its registrations at this control plane.
    pub known: &'a [KnownRegistration],
    /// Whether it was seen alive within the last minute: an address may have gone to another task since.
    pub seen_recently: bool,
    /// Whether all manifests are valid, so that their silence means something.
    pub manifests_complete: bool,
    /// Tasks register themselves there: nothing is created or drained for them, and they keep what they have as long as
    /// they live, unless their binding says otherwise.
    pub self_registered: bool,
    /// Now.
    pub now: Timestamp,
}

/// What to do with one registration.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make it so: create it, or update it where it differs and `may_update`.
    Ensure {
        /// What it should be.
        desired: Box<DesiredRegistration>,
        /// The policy allows updates.
        may_update: bool,
    },
    /// Take it out of service.
    Drain(DrainReason, Evidence),
    /// Remove it.
    Remove(Evidence),
    /// Would be done, were it not for the policy.
    Skip {
        /// The action that the policy does not permit.
        action: SkippedAction,
        /// Why it would be done.
        evidence: Evidence,
    },
}

/// The action that a policy does not permit.
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

/// An action on a registration, in the name of a binding.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanStep {
    /// Which registration.
    pub id: RegistrationId,
    /// Whose policy, guard and pause apply.
    pub binding: Arc<Binding>,
    /// What to do.
    pub action: Action,
}

impl PlanStep {
    /// Whether the guard has to be asked.
    pub fn needs_guard(&self) -> bool {
        match &self.action {
            Action::Drain(reason, evidence) => *reason != DrainReason::Stopping && !evidence.is_confirmed_stop(),
            Action::Remove(evidence) => !evidence.is_confirmed_stop(),
            Action::Ensure { .. } | Action::Skip { .. } => false,
        }
    }
}

/// What is to be done now, asked first, and looked at again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// In this order.
    pub steps: Vec<PlanStep>,
    /// The task must be described before more can be done.
    pub describe: bool,
    /// The role's tags must be read again before more can be done.
    pub recheck_role: bool,
    /// Come back after this time, even if nothing happens.
    pub requeue_after: Option<Duration>,
}

impl Decision {
    /// Whether a live task's registration is on its way out, or is kept from it by policy or by the drain's delay: what
    /// a guard let through for it still counts.
    pub fn is_withdrawing(&self) -> bool {
        let unbacked = |step: &PlanStep| match &step.action {
            Action::Skip { evidence, .. } => !evidence.is_confirmed_stop(),
            _ => step.needs_guard(),
        };
        self.requeue_after.is_some() || self.steps.iter().any(unbacked)
    }
}

/// Decides what is to be done with a task's registrations.
pub fn decide(situation: &DecisionInput<'_>) -> Decision {
    let mut decision = Decision::default();
    match situation.liveness {
        TaskLiveness::Stopped => decision.remove_all(situation, &Evidence::Stopped),
        TaskLiveness::Absent { sweeps, since } => {
            decision.remove_all(situation, &Evidence::Absent { sweeps, since, after_stop: false });
        }
        // What it has registered itself may not have been seen yet.
        TaskLiveness::StoppedUnconfirmed if situation.self_registered => decision.describe = true,
        TaskLiveness::StoppedUnconfirmed => {
            decision.drain_all(situation.known);
            decision.describe = !situation.known.is_empty();
        }
        // It still has to log out, and takes itself out of service.
        TaskLiveness::Leaving if situation.self_registered => {}
        TaskLiveness::Leaving => decision.drain_all(situation.known),
        TaskLiveness::Missing { due } => decision.describe = due,
        TaskLiveness::Unknown => {}
        TaskLiveness::Live => decision.live(situation),
    }
    decision
}

impl Decision {
    fn remove_all(&mut self, situation: &DecisionInput<'_>, evidence: &Evidence) {
        for registration in situation.known {
            let Some(binding) = &registration.binding else { continue };
            let evidence = &evidence.of(registration);
            let may_drain = registration.drained.is_none() && !situation.self_registered;
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

    fn drain_all(&mut self, known: &[KnownRegistration]) {
        for registration in known {
            let Some(binding) = &registration.binding else { continue };
            let stopping = matches!(registration.drained, Some((DrainReason::Stopping, _)));
            if stopping {
                continue;
            }
            let action = if binding.spec.policy == LifecyclePolicy::CreateOnly {
                Action::Skip { action: SkippedAction::Drain, evidence: Evidence::Stopping }
            } else {
                Action::Drain(DrainReason::Stopping, Evidence::Stopping)
            };
            self.step(registration, binding, action);
        }
    }

    fn live(&mut self, situation: &DecisionInput<'_>) {
        let Some(evaluation) = situation.evaluation else { return };
        match (&evaluation.verdict, &evaluation.binding) {
            (Verdict::Register(desired), Some(binding)) => self.register(desired, binding, situation),
            (Verdict::Reject { violations, confirmed: true }, _) => {
                let Some(evidence) = violations_against(violations, situation.manifests_complete) else { return };
                for registration in situation.known {
                    self.revoke(registration, &evidence, situation);
                }
            }
            (Verdict::Ignore(_), _) if situation.self_registered => {}
            (Verdict::Reject { confirmed: false, .. }, _) => self.recheck_role = true,
            (Verdict::Ignore(reason), _) => {
                let withdrawn = match reason {
                    IgnoreReason::NoBinding
                    | IgnoreReason::OtherControlPlane
                    | IgnoreReason::NoWorkload
                    | IgnoreReason::NotRegistered => situation.manifests_complete,
                    // Nothing in the manifests changed; a task's network mode never does.
                    IgnoreReason::NetworkMode(_) => false,
                };
                if withdrawn {
                    for registration in situation.known {
                        self.withdraw(
                            registration,
                            DrainReason::Unwanted,
                            &Evidence::Manifests,
                            situation.now,
                        );
                    }
                }
            }
            (Verdict::Hold(_) | Verdict::NeedsFact(_) | Verdict::Register(_) | Verdict::Admit, _) => {}
        }
    }

    fn register(&mut self, desired: &DesiredRegistration, binding: &Arc<Binding>, situation: &DecisionInput<'_>) {
        let (here, elsewhere): (Vec<&KnownRegistration>, Vec<&KnownRegistration>) =
            situation.known.iter().partition(|known| known.id.mesh == desired.id.mesh);
        // The sidecar was started with a name and keeps it: another `dataplaneName` counts for tasks to come.
        let current = here.iter().find(|known| known.id == desired.id).or(here.first());
        match current {
            Some(known) => {
                let may_update = binding.spec.policy != LifecyclePolicy::CreateOnly;
                let desired = Box::new(DesiredRegistration { id: known.id.clone(), ..desired.clone() });
                let action = Action::Ensure { desired, may_update };
                self.steps.push(PlanStep { id: known.id.clone(), binding: Arc::clone(binding), action });
            }
            None if situation.seen_recently => {
                let action = Action::Ensure { desired: Box::new(desired.clone()), may_update: true };
                self.steps.push(PlanStep { id: desired.id.clone(), binding: Arc::clone(binding), action });
            }
            None => self.describe = true,
        }
        let twice = here.iter().filter(|known| current.is_some_and(|current| known.id != current.id));
        if situation.manifests_complete {
            for known in elsewhere.into_iter().chain(twice.copied()) {
                self.withdraw(known, DrainReason::Unwanted, &Evidence::Manifests, situation.now);
            }
        }
    }

    /// It is no longer allowed: what follows is the binding's choice.
    fn revoke(&mut self, registration: &KnownRegistration, evidence: &Evidence, situation: &DecisionInput<'_>) {
        let Some(binding) = &registration.binding else { return };
        let by_type = if situation.self_registered { OnRevoked::Keep } else { OnRevoked::Withdraw };
        match binding.spec.role_tags.on_revoked.unwrap_or(by_type) {
            OnRevoked::Keep => {}
            OnRevoked::Withdraw if situation.self_registered => {
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
                    _ => DrainReason::Unwanted,
                };
                self.withdraw(registration, reason, evidence, situation.now);
            }
        }
    }

    /// Drains, and removes after `cleanup.drain`.
    fn withdraw(&mut self, registration: &KnownRegistration, reason: DrainReason, evidence: &Evidence, now: Timestamp) {
        let Some(binding) = &registration.binding else { return };
        let wait = binding.spec.cleanup.drain.0;
        let evidence = evidence.clone();
        let action = match (binding.spec.policy, registration.drained) {
            (LifecyclePolicy::CreateOnly, _) | (LifecyclePolicy::UpsertOnly, Some(_)) => {
                Action::Skip { action: SkippedAction::Remove, evidence }
            }
            (_, None) => {
                self.requeue_within(wait);
                Action::Drain(reason, evidence)
            }
            (LifecyclePolicy::Sync, Some((_, since))) => {
                let left = wait.saturating_sub(since.age_at(now));
                if !left.is_zero() {
                    return self.requeue_within(left);
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

/// What speaks against a live task by the rules that its role breaks; `None` where manifests that did not all load may
/// be why, or where it is no fault of the role.
fn violations_against(violations: &[RoleViolation], manifests_complete: bool) -> Option<Evidence> {
    let of_role = || violations.iter().filter_map(|broken| Some((broken.basis()?, broken.rule)));
    if of_role().any(|(basis, _)| basis == ViolationBasis::Tags) {
        return Some(Evidence::RoleTags);
    }
    let rules: Vec<RoleRule> = of_role().map(|(_, rule)| rule).collect();
    (manifests_complete && !rules.is_empty()).then_some(Evidence::RoleNotAllowed(rules))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_disallowed;
#[cfg(test)]
mod tests_self_registered;
