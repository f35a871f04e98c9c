//! Holds the old tasks of a rolling update, by ECS's scale-in protection, until their replacements are ready in the mesh.
//!
//! For apps that exit at once on SIGTERM: a drain that waits does not keep them serving. As many old tasks stay protected as
//! ready replacements are missing from the desired count, so that ECS can go on replacing step by step. A hold that has
//! ended does not begin again within its deployment: whatever fails, the deployment goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::intent::{Evaluation, HoldReason, Verdict};
use ecs_mesh_model::{DataplaneOwner, EcsRollout, EcsServiceState, TaskArn, Timestamp};

/// Why a hold has ended, or why there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldEnd {
    /// As many replacements as desired are ready in the mesh.
    Ready,
    /// The deployment is no longer in progress.
    Over,
    /// No binding asks for the hold any more.
    Disabled,
    /// `deployments.maxHold` is over.
    Expired,
    /// ECS gave the deployment up: no more replacements start.
    DeploymentFailed,
    /// The role of a replacement does not allow it in the mesh.
    Rejected,
    /// The registration of a replacement is held.
    TaskHeld,
    /// No binding or workload has the operator register a replacement.
    NotRegistered,
    /// A replacement has no readiness to wait for, such as a gateway.
    NoReadiness,
    /// The binding of a task is paused.
    Paused,
    /// The control plane's version is not supported.
    Unsupported,
    /// The control plane can't be reached.
    Unreachable,
    /// `maximumPercent` leaves no room for replacements beside the old tasks.
    NoRoom,
    /// The scheduling strategy is DAEMON: ECS stops a task before it starts its replacement.
    Daemon,
    /// The deployment is no rolling update of ECS.
    NotRolling,
}

impl HoldEnd {
    /// All reasons.
    pub const ALL: [Self; 15] = [
        Self::Ready,
        Self::Over,
        Self::Disabled,
        Self::Expired,
        Self::DeploymentFailed,
        Self::Rejected,
        Self::TaskHeld,
        Self::NotRegistered,
        Self::NoReadiness,
        Self::Paused,
        Self::Unsupported,
        Self::Unreachable,
        Self::NoRoom,
        Self::Daemon,
        Self::NotRolling,
    ];

    /// Why the evaluated task will not be ready in the mesh soon, if it will not.
    pub fn of_evaluation(evaluation: &Evaluation) -> Option<Self> {
        if evaluation.binding.as_ref().is_some_and(|binding| binding.spec.paused) {
            return Some(Self::Paused);
        }
        match &evaluation.verdict {
            // The next event has the address.
            Verdict::Hold(HoldReason::AddressPending) => None,
            Verdict::Hold(_) => Some(Self::TaskHeld),
            Verdict::Reject { .. } => Some(Self::Rejected),
            Verdict::Ignore(_) => Some(Self::NotRegistered),
            // The operator does not know when the sidecar registers the task.
            Verdict::Register(_) if evaluation.owner != DataplaneOwner::Operator => Some(Self::NotRegistered),
            Verdict::Register(desired) if !desired.has_readiness() => Some(Self::NoReadiness),
            Verdict::Register(_) | Verdict::Admit | Verdict::NeedsFact(_) => None,
        }
    }

    /// A bounded label for metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Over => "over",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::DeploymentFailed => "deployment_failed",
            Self::Rejected => "rejected",
            Self::TaskHeld => "task_held",
            Self::NotRegistered => "not_registered",
            Self::NoReadiness => "no_readiness",
            Self::Paused => "paused",
            Self::Unsupported => "unsupported_control_plane",
            Self::Unreachable => "unreachable",
            Self::NoRoom => "no_room",
            Self::Daemon => "daemon",
            Self::NotRolling => "not_rolling",
        }
    }

    /// Whether the old tasks were held for as long as was needed or wanted.
    pub fn is_expected(self) -> bool {
        matches!(self, Self::Ready | Self::Over | Self::Disabled)
    }
}

/// A task of the service that ECS wants to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeployedTask {
    /// The task.
    pub arn: TaskArn,
    /// The deployment that started it.
    pub deployment: Arc<str>,
    /// All its registrations are ready: clients are routed to them, and their sidecar is connected.
    pub ready: bool,
    /// Why it will not be ready: [`HoldEnd::Rejected`], [`HoldEnd::TaskHeld`], [`HoldEnd::NotRegistered`],
    /// [`HoldEnd::NoReadiness`] or [`HoldEnd::Paused`].
    pub obstacle: Option<HoldEnd>,
}

/// All that a decision about a service rests on.
#[derive(Clone, Debug)]
pub struct HoldRequest<'a> {
    /// The service, as DescribeServices shows it.
    pub service: &'a EcsServiceState,
    /// Its tasks that ECS wants to run.
    pub tasks: &'a [DeployedTask],
    /// `deployments.maxHold`; `None` where no binding asks for a hold.
    pub max_hold: Option<Duration>,
    /// Why the control plane can't be written to: [`HoldEnd::Unsupported`] or [`HoldEnd::Unreachable`].
    pub obstacle: Option<HoldEnd>,
    /// The current steady time, which measures `max_hold`.
    pub now: Timestamp,
}

/// The decision about a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldDecision {
    /// Tasks to protect, unless they are protected already.
    pub protect: Vec<TaskArn>,
    /// How long the new protections last at most.
    pub protect_for: Duration,
    /// Tasks whose protection by this operator is to be cleared.
    pub clear: Vec<TaskArn>,
    /// How the hold stands.
    pub state: HoldState,
}

/// How a hold stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldState {
    /// No deployment is in progress.
    Idle,
    /// Old tasks stay until enough replacements are ready.
    Holding {
        /// Ready replacements.
        ready: usize,
        /// Replacements that must be ready.
        needed: usize,
    },
    /// The hold has ended.
    Ended {
        /// Why.
        reason: HoldEnd,
        /// It ends with this decision.
        now: bool,
    },
}

/// The known protection of an old task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KnownProtection {
    /// Set by this operator.
    Own {
        /// When it expires, as ECS answered: ECS's wall-clock time, which tells protections apart.
        until: Timestamp,
        /// The steady time at which it has expired.
        expires: Timestamp,
    },
    /// Set by another.
    Foreign,
    /// ECS refused to protect the task.
    Refused,
}

/// The hold of one service's deployment.
#[derive(Clone, Debug, Default)]
pub struct DeploymentHold {
    /// The primary deployment that the hold is about.
    deployment: Option<Arc<str>>,
    since: Timestamp,
    ended: Option<HoldEnd>,
    tasks: BTreeMap<TaskArn, KnownProtection>,
}

impl DeploymentHold {
    /// Decides about a service. In this order:
    ///
    /// | condition | the hold |
    /// |---|---|
    /// | the only deployment is another than that of a running hold: an old answer | unchanged |
    /// | the service is gone, or has one deployment only | none; a running one ends |
    /// | a hold of this deployment has ended | stays ended |
    /// | no binding asks for it | ends |
    /// | DAEMON, or no rolling update | none |
    /// | as many replacements as desired are ready | ends |
    /// | `maximumPercent` leaves no room | none |
    /// | the control plane is unsupported or unreachable | ends |
    /// | ECS has given the deployment up | ends |
    /// | a task's binding is paused; a replacement is rejected, held, not registered or without readiness | ends |
    /// | `maxHold` is over | ends |
    /// | else | as many old tasks as ready replacements are missing stay protected |
    ///
    /// Old tasks that are not ready themselves are not protected: they serve no requests.
    pub fn decide(&mut self, request: &HoldRequest<'_>) -> HoldDecision {
        let known: BTreeSet<&TaskArn> = request.tasks.iter().map(|task| &task.arn).collect();
        // ECS stops the others already, has stopped them, or does not show them for now: what this operator has set may still
        // be in force.
        self.tasks.retain(|task, protection| match protection {
            KnownProtection::Own { expires, .. } => *expires > request.now,
            KnownProtection::Foreign | KnownProtection::Refused => known.contains(task),
        });
        let service = request.service;
        let primary = service.primary().filter(|_| service.active && service.deployments.len() > 1);
        let Some(primary) = primary else {
            let only = service.primary().filter(|_| service.active).map(|deployment| &deployment.id);
            let is_older = only.is_some() && self.deployment.is_some() && only != self.deployment.as_ref();
            if is_older && self.ended.is_none() && !self.is_expired(request) {
                // ECS is eventually consistent: the answer does not have the deployment that an earlier one had.
                let state = HoldState::Holding { ready: 0, needed: service.desired_count };
                return HoldDecision {
                    protect: Vec::new(),
                    protect_for: Duration::ZERO,
                    clear: Vec::new(),
                    state,
                };
            }
            let state = match (&self.deployment, self.ended) {
                (Some(_), None) => self.end(HoldEnd::Over),
                _ => HoldState::Idle,
            };
            return self.cleared(state);
        };
        if self.deployment.as_ref() != Some(&primary.id) {
            // Refused for another deployment.
            self.tasks.retain(|_, protection| *protection != KnownProtection::Refused);
            (self.deployment, self.since, self.ended) = (Some(Arc::clone(&primary.id)), request.now, None);
        }
        let (new, old): (Vec<&DeployedTask>, Vec<&DeployedTask>) =
            request.tasks.iter().partition(|task| task.deployment == primary.id);
        let ready = new.iter().filter(|task| task.ready).count();
        if let Some(reason) = self.ended {
            return self.cleared(HoldState::Ended { reason, now: false });
        }
        if let Some(reason) = self.end_reason(request, primary.rollout, &new, &old, ready) {
            let state = self.end(reason);
            return self.cleared(state);
        }
        let max_hold = request.max_hold.unwrap_or_default();
        let left = max_hold.saturating_sub(self.since.age_at(request.now));
        let state = HoldState::Holding { ready, needed: service.desired_count };
        let (protect, clear) = self.changes(&old, service.desired_count - ready);
        HoldDecision { protect, protect_for: left, clear, state }
    }

    fn end_reason(
        &self,
        request: &HoldRequest<'_>,
        rollout: EcsRollout,
        new: &[&DeployedTask],
        old: &[&DeployedTask],
        ready: usize,
    ) -> Option<HoldEnd> {
        let service = request.service;
        let is_paused = |task: &&DeployedTask| task.obstacle == Some(HoldEnd::Paused);
        let obstacle = || new.iter().find_map(|task| task.obstacle);
        if request.max_hold.is_none() {
            Some(HoldEnd::Disabled)
        } else if service.daemon {
            Some(HoldEnd::Daemon)
        } else if !service.rolling {
            Some(HoldEnd::NotRolling)
        } else if ready >= service.desired_count {
            Some(HoldEnd::Ready)
        } else if service.room() == 0 {
            Some(HoldEnd::NoRoom)
        } else if request.obstacle.is_some() {
            request.obstacle
        } else if rollout == EcsRollout::Failed {
            Some(HoldEnd::DeploymentFailed)
        } else if old.iter().any(is_paused) {
            Some(HoldEnd::Paused)
        } else {
            obstacle().or(self.is_expired(request).then_some(HoldEnd::Expired))
        }
    }

    fn is_expired(&self, request: &HoldRequest<'_>) -> bool {
        request.max_hold.is_some_and(|max_hold| self.since.age_at(request.now) >= max_hold)
    }

    /// The old tasks to protect and to clear, so that `missing` of them stay protected.
    fn changes(&self, old: &[&DeployedTask], missing: usize) -> (Vec<TaskArn>, Vec<TaskArn>) {
        let of = |task: &DeployedTask| self.tasks.get(&task.arn);
        let foreign = old.iter().filter(|task| of(task) == Some(&KnownProtection::Foreign)).count();
        let wanted = missing.saturating_sub(foreign);
        let mut own: Vec<_> =
            old.iter().filter(|task| matches!(of(task), Some(KnownProtection::Own { .. }))).collect();
        own.sort_by_key(|task| (!task.ready, &task.arn));
        let kept: BTreeSet<&TaskArn> = own.iter().take(wanted).map(|task| &task.arn).collect();
        let mut free: Vec<_> = old.iter().filter(|task| task.ready && of(task).is_none()).collect();
        free.sort_by_key(|task| &task.arn);
        let protect = free.iter().take(wanted - kept.len()).map(|task| task.arn.clone()).collect();
        // Whether the others are leaving, only their end or that of the hold shows.
        let shown: BTreeSet<&TaskArn> = own.iter().map(|task| &task.arn).collect();
        let clear = self.own().filter(|task| shown.contains(task) && !kept.contains(task)).cloned().collect();
        (protect, clear)
    }

    fn end(&mut self, reason: HoldEnd) -> HoldState {
        self.ended = Some(reason);
        HoldState::Ended { reason, now: true }
    }

    /// Clears all that is protected.
    fn cleared(&self, state: HoldState) -> HoldDecision {
        let clear = self.own().cloned().collect();
        HoldDecision { protect: Vec::new(), protect_for: Duration::ZERO, clear, state }
    }

    fn own(&self) -> impl Iterator<Item = &TaskArn> {
        self.tasks
            .iter()
            .filter(|(_, protection)| matches!(protection, KnownProtection::Own { .. }))
            .map(|(task, _)| task)
    }

    /// The number of tasks that this operator protects.
    pub fn protected_count(&self) -> usize {
        self.own().count()
    }

    /// Whether the task may be protected, by what GetTaskProtection shows: when its protection expires, if it has one. A task
    /// that is protected already is left alone from now on.
    pub fn may_protect(&mut self, task: &TaskArn, shown: Option<Timestamp>) -> bool {
        if shown.is_some() {
            self.tasks.insert(task.clone(), KnownProtection::Foreign);
        }
        shown.is_none()
    }

    /// Whether the protection that GetTaskProtection shows is the one that this operator has set: ECS dates each anew. The
    /// task is left alone from now on if not.
    pub fn may_clear(&mut self, task: &TaskArn, shown: Option<Timestamp>) -> bool {
        let is_own = match self.tasks.get(task) {
            Some(KnownProtection::Own { until, .. }) => shown == Some(*until),
            _ => false,
        };
        match shown {
            Some(_) if is_own => {}
            Some(_) => drop(self.tasks.insert(task.clone(), KnownProtection::Foreign)),
            None => drop(self.tasks.remove(task)),
        }
        is_own
    }

    /// This operator has protected the task. `until` is ECS's answer, and `expires` the steady time of that: no step of the
    /// machine's clock may make this operator forget what it has set.
    pub fn record_protected(&mut self, task: &TaskArn, until: Timestamp, expires: Timestamp) {
        self.tasks.insert(task.clone(), KnownProtection::Own { until, expires });
    }

    /// ECS does not protect the task.
    pub fn record_refused(&mut self, task: &TaskArn) {
        self.tasks.insert(task.clone(), KnownProtection::Refused);
    }

    /// The task has no protection of this operator any more.
    pub fn record_cleared(&mut self, task: &TaskArn) {
        self.tasks.remove(task);
    }
}

#[cfg(test)]
mod tests;
