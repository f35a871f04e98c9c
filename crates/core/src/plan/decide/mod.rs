//! The decision on one task's registrations: what to do with each, on which evidence, and what must be asked first.
//!
//! This is where invariant I2 lives: a removal of what may be alive has just the reasons of [`Evidence`].

mod foresee;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::intent::{Basis, Desired, IgnoreReason, Judgement, RegistrationId, Rule, Verdict, Violation};
use crate::plan::DrainReason;
use ecs_mesh_api::manifests::Binding;
use ecs_mesh_api::{LifecyclePolicy, OnRevoked};
use ecs_mesh_model::Timestamp;

pub use foresee::{Awaited, foresee};

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
    Disallowed(Vec<Rule>),
}

impl Evidence {
    /// Whether the task's own STOPPED backs it; what it does not back counts towards the guard.
    pub fn is_own_stop(&self) -> bool {
        matches!(self, Self::Stopping | Self::Stopped | Self::Absent { after_stop: true, .. })
    }

    /// The evidence as it holds for one registration of the task.
    fn of(&self, registration: &Known) -> Self {
        match self {
            Self::Absent { sweeps, since, .. } => {
                let after_stop = matches!(registration.drained, Some((DrainReason::Stopping, _)));
                Self::Absent { sweeps: *sweeps, since: *since, after_stop }
            }
            other => other.clone(),
        }
    }

    /// A bounded label for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Absent { .. } => "absent",
            Self::RoleTags => "role_tags",
            Self::Manifests | Self::Disallowed(_) => "manifests",
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
            Self::Disallowed(rules) => {
                let rules: Vec<&str> = rules.iter().map(|rule| rule.label()).collect();
                write!(f, "the manifests do not let its role in: {}", rules.join(", "))
            }
        }
    }
}

/// What is known of the task's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// ECS wants it to run.
    Live,
    /// ECS is taking it down.
    Leaving,
    /// An event said STOPPED; a describe has yet to confirm it.
    SaidStopped,
    /// It is gone for good.
    Gone(Evidence),
    /// Sweeps do not find it. With `due` it has been missing long enough to be asked for by name.
    Missing {
        /// Whether a describe would now decide.
        due: bool,
    },
    /// Nothing is known of it (yet).
    Unknown,
}

/// A registration of the task, as last seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Where.
    pub id: RegistrationId,
    /// Why this operator drained it, if so, and since when as far as this process knows.
    pub drained: Option<(DrainReason, Timestamp)>,
    /// The binding whose policy applies; `None`: nobody gave us a mandate any more.
    pub caretaker: Option<Arc<Binding>>,
}

/// All that a decision rests on.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// What is known of the task's life.
    pub standing: Standing,
    /// What it should be; only asked for when it is live.
    pub judgement: Option<&'a Judgement>,
    /// Its registrations at this control plane.
    pub known: &'a [Known],
    /// Whether it was seen alive within the last minute: an address may have gone to another task since.
    pub fresh: bool,
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
        desired: Box<Desired>,
        /// The policy allows updates.
        may_update: bool,
    },
    /// Take it out of service.
    Drain(DrainReason, Evidence),
    /// Remove it.
    Remove(Evidence),
    /// Would be done, were it not for the policy.
    Skip {
        /// `drain` or `remove`.
        would: &'static str,
        /// Why it would be done.
        evidence: Evidence,
    },
}

/// An action on a registration, in the name of a binding.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Which registration.
    pub id: RegistrationId,
    /// Whose policy, guard and pause apply.
    pub binding: Arc<Binding>,
    /// What to do.
    pub action: Action,
}

impl Step {
    /// Whether the guard has to be asked.
    pub fn needs_guard(&self) -> bool {
        match &self.action {
            Action::Drain(reason, evidence) => *reason != DrainReason::Stopping && !evidence.is_own_stop(),
            Action::Remove(evidence) => !evidence.is_own_stop(),
            Action::Ensure { .. } | Action::Skip { .. } => false,
        }
    }
}

/// What is to be done now, asked first, and looked at again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// In this order.
    pub steps: Vec<Step>,
    /// The task must be described before more can be done.
    pub describe: bool,
    /// The role's tags must be read again before more can be done.
    pub reread_role: bool,
    /// Come back after this time, even if nothing happens.
    pub again: Option<Duration>,
}

impl Decision {
    /// Whether a live task's registration is on its way out, or is kept from it by policy or by the drain's delay: what
    /// a guard let through for it still counts.
    pub fn withdraws(&self) -> bool {
        let unbacked = |step: &Step| match &step.action {
            Action::Skip { evidence, .. } => !evidence.is_own_stop(),
            _ => step.needs_guard(),
        };
        self.again.is_some() || self.steps.iter().any(unbacked)
    }
}

/// Decides what is to be done with a task's registrations.
pub fn decide(situation: &Situation<'_>) -> Decision {
    let mut decision = Decision::default();
    match &situation.standing {
        Standing::Gone(evidence) => decision.remove_all(situation, evidence),
        // What it has registered itself may not have been seen yet.
        Standing::SaidStopped if situation.self_registered => decision.describe = true,
        Standing::SaidStopped => {
            decision.drain_all(situation.known);
            decision.describe = !situation.known.is_empty();
        }
        // It still has to log out, and takes itself out of service.
        Standing::Leaving if situation.self_registered => {}
        Standing::Leaving => decision.drain_all(situation.known),
        Standing::Missing { due } => decision.describe = *due,
        Standing::Unknown => {}
        Standing::Live => decision.live(situation),
    }
    decision
}

impl Decision {
    fn remove_all(&mut self, situation: &Situation<'_>, evidence: &Evidence) {
        for registration in situation.known {
            let Some(binding) = &registration.caretaker else { continue };
            let evidence = &evidence.of(registration);
            let may_drain = registration.drained.is_none() && !situation.self_registered;
            let action = match binding.spec.policy {
                LifecyclePolicy::Sync => Action::Remove(evidence.clone()),
                LifecyclePolicy::UpsertOnly if may_drain && evidence.is_own_stop() => {
                    Action::Drain(DrainReason::Stopping, evidence.clone())
                }
                LifecyclePolicy::UpsertOnly | LifecyclePolicy::CreateOnly => {
                    Action::Skip { would: "remove", evidence: evidence.clone() }
                }
            };
            self.step(registration, binding, action);
        }
    }

    fn drain_all(&mut self, known: &[Known]) {
        for registration in known {
            let Some(binding) = &registration.caretaker else { continue };
            let stopping = matches!(registration.drained, Some((DrainReason::Stopping, _)));
            if stopping {
                continue;
            }
            let action = if binding.spec.policy == LifecyclePolicy::CreateOnly {
                Action::Skip { would: "drain", evidence: Evidence::Stopping }
            } else {
                Action::Drain(DrainReason::Stopping, Evidence::Stopping)
            };
            self.step(registration, binding, action);
        }
    }

    fn live(&mut self, situation: &Situation<'_>) {
        let Some(judgement) = situation.judgement else { return };
        match (&judgement.verdict, &judgement.binding) {
            (Verdict::Register(desired), Some(binding)) => self.register(desired, binding, situation),
            (Verdict::Reject { violations, confirmed: true }, _) => {
                let Some(evidence) = against(violations, situation.manifests_complete) else { return };
                for registration in situation.known {
                    self.revoke(registration, &evidence, situation);
                }
            }
            (Verdict::Ignore(_), _) if situation.self_registered => {}
            (Verdict::Reject { confirmed: false, .. }, _) => self.reread_role = true,
            (Verdict::Ignore(reason), _) => {
                let withdrawn = match reason {
                    IgnoreReason::NoBinding
                    | IgnoreReason::OtherControlPlane
                    | IgnoreReason::NoWorkload
                    | IgnoreReason::NothingThere => situation.manifests_complete,
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
            (Verdict::Hold(_) | Verdict::Need(_) | Verdict::Register(_) | Verdict::Admit, _) => {}
        }
    }

    fn register(&mut self, desired: &Desired, binding: &Arc<Binding>, situation: &Situation<'_>) {
        let (here, elsewhere): (Vec<&Known>, Vec<&Known>) =
            situation.known.iter().partition(|known| known.id.mesh == desired.id.mesh);
        // The sidecar was started with a name and keeps it: another `dataplaneName` counts for tasks to come.
        let current = here.iter().find(|known| known.id == desired.id).or(here.first());
        match current {
            Some(known) => {
                let may_update = binding.spec.policy != LifecyclePolicy::CreateOnly;
                let desired = Box::new(Desired { id: known.id.clone(), ..desired.clone() });
                let action = Action::Ensure { desired, may_update };
                self.steps.push(Step { id: known.id.clone(), binding: Arc::clone(binding), action });
            }
            None if situation.fresh => {
                let action = Action::Ensure { desired: Box::new(desired.clone()), may_update: true };
                self.steps.push(Step { id: desired.id.clone(), binding: Arc::clone(binding), action });
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
    fn revoke(&mut self, registration: &Known, evidence: &Evidence, situation: &Situation<'_>) {
        let Some(binding) = &registration.caretaker else { return };
        let by_type = if situation.self_registered { OnRevoked::Keep } else { OnRevoked::Withdraw };
        match binding.spec.role_tags.on_revoked.unwrap_or(by_type) {
            OnRevoked::Keep => {}
            OnRevoked::Withdraw if situation.self_registered => {
                let evidence = evidence.clone();
                let action = match binding.spec.policy {
                    LifecyclePolicy::Sync => Action::Remove(evidence),
                    LifecyclePolicy::UpsertOnly | LifecyclePolicy::CreateOnly => {
                        Action::Skip { would: "remove", evidence }
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
    fn withdraw(&mut self, registration: &Known, reason: DrainReason, evidence: &Evidence, now: Timestamp) {
        let Some(binding) = &registration.caretaker else { return };
        let wait = binding.spec.cleanup.drain.0;
        let evidence = evidence.clone();
        let action = match (binding.spec.policy, registration.drained) {
            (LifecyclePolicy::CreateOnly, _) | (LifecyclePolicy::UpsertOnly, Some(_)) => {
                Action::Skip { would: "remove", evidence }
            }
            (_, None) => {
                self.come_back(wait);
                Action::Drain(reason, evidence)
            }
            (LifecyclePolicy::Sync, Some((_, since))) => {
                let left = wait.saturating_sub(since.age_at(now));
                if !left.is_zero() {
                    return self.come_back(left);
                }
                Action::Remove(evidence)
            }
        };
        self.step(registration, binding, action);
    }

    fn step(&mut self, registration: &Known, binding: &Arc<Binding>, action: Action) {
        self.steps.push(Step { id: registration.id.clone(), binding: Arc::clone(binding), action });
    }

    fn come_back(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |earlier| earlier.min(after)));
    }
}

/// What speaks against a live task by the rules that its role breaks; `None` where manifests that did not all load may
/// be why, or where it is no fault of the role.
fn against(violations: &[Violation], manifests_complete: bool) -> Option<Evidence> {
    let of_role = || violations.iter().filter_map(|broken| Some((broken.basis()?, broken.rule)));
    if of_role().any(|(basis, _)| basis == Basis::Tags) {
        return Some(Evidence::RoleTags);
    }
    let rules: Vec<Rule> = of_role().map(|(_, rule)| rule).collect();
    (manifests_complete && !rules.is_empty()).then_some(Evidence::Disallowed(rules))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_disallowed;
#[cfg(test)]
mod tests_self_registered;
