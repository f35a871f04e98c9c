//! Checks the scale-in protection that a client gives to the old tasks of deployments.
//!
//! A model of its own: which deployment started a task, by ECS's state; who set a protection, by the calls that ECS has
//! carried out; which replacements are ready, by Kuma's state. Source of the rules: `docs/decisions/0026-hold-deployments.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::last_endpoint::is_ready;
use super::{Invariant, InvariantViolation, TASK_LABEL, allows, label};
use crate::aws::{Cloud, CloudTask, HealthStatus, StopCode, TaskProtections};
use crate::kuma::{KumaCp, service_of};
use crate::world::{CLUSTER, ScenarioService, role_name, short};
use ecs_mesh_model::{DesiredStatus, EcsServiceState, Timestamp};

/// How long a client may act on manifests that have changed: it evaluates each task anew, and may wait for role tags.
const MANIFESTS_LAG: Duration = Duration::from_secs(100);
/// How old a client's knowledge of a version or of another's protection may be at its write: a read, and a wait for the rate.
const READ_LAG: Duration = Duration::from_secs(15);
/// ECS takes whole minutes.
const ROUNDING: Duration = Duration::from_mins(1);
/// How long a registration must be ready for the client to know.
const KNOWN_AFTER: Duration = Duration::from_secs(15);
/// How long after its start a deployment may stop tasks before they are protected.
const TOO_EARLY: Duration = Duration::from_secs(5);
/// How long other stops of a service's tasks keep a client from protecting what is left.
const SHAKEN_FOR: Duration = Duration::from_secs(10);
/// How far apart two steps of the world may be.
const STEP: Duration = Duration::from_secs(1);

/// The calls of a client, and those of them that were checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldCounts {
    /// Protections set.
    pub protected: u64,
    /// Protections cleared.
    pub cleared: u64,
    /// Undisturbed deployments, without faults, whose service kept ready endpoints until enough replacements were ready.
    pub kept: u64,
}

/// A protection that the client under test has set, and knows of.
#[derive(Clone, Debug)]
struct OwnProtection {
    service: String,
    until: Timestamp,
    /// The process that has set it.
    process: Arc<str>,
}

/// The primary deployment of a service.
#[derive(Clone, Debug)]
struct SeenDeployment {
    id: Arc<str>,
    since: Timestamp,
    desired_count: usize,
    /// Something other than the deployment has kept the client from holding it.
    is_spoiled: bool,
    /// As many replacements as desired have been ready.
    was_complete: bool,
    /// When a task of the service was last stopped by other causes.
    shaken: Option<Timestamp>,
    /// When the client first protected a task from it.
    first_protection: Option<Timestamp>,
    /// Since when more tasks are protected than ready replacements are missing.
    excess_since: Option<Timestamp>,
}

impl SeenDeployment {
    /// Whether the client has been able to hold it.
    fn is_held_at(&self, now: Timestamp) -> bool {
        !self.is_spoiled
            && self.since.age_at(now) >= TOO_EARLY
            && self.shaken.is_none_or(|at| at.age_at(now) >= SHAKEN_FOR)
    }
}

#[derive(Clone, Copy, Debug)]
struct ReadySpell {
    since: Timestamp,
    last: Timestamp,
}

/// Checks one client.
#[derive(Debug)]
pub struct HoldOracle {
    max_hold: Duration,
    violations: Vec<InvariantViolation>,
    tally: HoldCounts,
    /// Since when no manifest asks for a hold.
    unwanted_since: Option<Timestamp>,
    /// Since when the control plane's version is not supported.
    unsupported_since: Option<Timestamp>,
    /// Since when the client could act at once.
    undisturbed_since: Timestamp,
    /// How long a protection may outlive its reason while the client is undisturbed; `None` while faults make this unclear.
    patience: Option<Duration>,
    /// Whether a held deployment must leave ready endpoints.
    keeps_endpoints: bool,
    own: BTreeMap<Arc<str>, OwnProtection>,
    /// The process that leads.
    process: Arc<str>,
    /// When each protection was set, by anyone.
    set_at: BTreeMap<Arc<str>, Timestamp>,
    deployments: BTreeMap<String, SeenDeployment>,
    /// Until when each service may lack its `Workload`.
    undeclared: BTreeMap<String, Timestamp>,
    /// By task id.
    ready: BTreeMap<String, ReadySpell>,
    last_step: Timestamp,
}

impl HoldOracle {
    /// An oracle for a client whose manifests do not ask for a hold.
    pub fn new(now: Timestamp) -> Self {
        Self {
            max_hold: Duration::ZERO,
            violations: Vec::new(),
            tally: HoldCounts::default(),
            unwanted_since: Some(Timestamp(0)),
            unsupported_since: None,
            undisturbed_since: now,
            patience: None,
            keeps_endpoints: false,
            own: BTreeMap::new(),
            process: Arc::default(),
            set_at: BTreeMap::new(),
            deployments: BTreeMap::new(),
            undeclared: BTreeMap::new(),
            ready: BTreeMap::new(),
            last_step: now,
        }
    }

    /// An oracle for a client that holds deployments for `max_hold`. Without faults, a protection ends within `patience` of its
    /// reason, and the service keeps ready endpoints.
    pub fn holding(max_hold: Duration, patience: Option<Duration>, now: Timestamp) -> Self {
        let keeps_endpoints = patience.is_some();
        Self { max_hold, patience, keeps_endpoints, unwanted_since: None, ..Self::new(now) }
    }

    /// The violations so far.
    pub fn violations(&self) -> &[InvariantViolation] {
        &self.violations
    }

    /// The number of calls and checks so far.
    pub fn tally(&self) -> HoldCounts {
        self.tally
    }

    /// The services of which the client protects tasks now.
    pub fn held_services(&self) -> BTreeSet<&str> {
        self.known().map(|own| own.service.as_str()).collect()
    }

    /// The protections that the process that leads has set.
    fn known(&self) -> impl Iterator<Item = &OwnProtection> {
        self.own.values().filter(|own| own.process == self.process)
    }

    /// Records whether the manifests ask for a hold.
    pub fn record_wanted(&mut self, wanted: bool, now: Timestamp) {
        self.unwanted_since = (!wanted).then(|| self.unwanted_since.unwrap_or(now));
        // Another hold begins.
        self.deployments.values_mut().for_each(|deployment| deployment.first_protection = None);
        self.record_disturbance(now);
    }

    /// Records that the service has no `Workload` until then, so that its replacements are not registered.
    pub fn record_undeclared(&mut self, service: &str, until: Timestamp) {
        self.undeclared.insert(service.to_owned(), until);
    }

    /// Records that the control plane shows an unsupported version from now on, or, with `None`, a supported one.
    pub fn record_unsupported(&mut self, since: Option<Timestamp>) {
        self.unsupported_since = since;
    }

    /// Records that something keeps the client from acting at once.
    pub fn record_disturbance(&mut self, now: Timestamp) {
        self.undisturbed_since = now;
        self.deployments.values_mut().for_each(|deployment| deployment.is_spoiled = true);
    }

    /// Records that another process begins: it does not know which protections the one before it has set.
    pub fn record_restart(&mut self, now: Timestamp) {
        self.own.clear();
        self.record_other_process(now);
    }

    /// Records that this replica leads from now on. It knows which protections it has set if it has led before.
    pub fn record_takeover(&mut self, process: &str, now: Timestamp) {
        self.process = process.into();
        self.record_other_process(now);
    }

    fn record_other_process(&mut self, now: Timestamp) {
        for deployment in self.deployments.values_mut() {
            (deployment.first_protection, deployment.excess_since) = (None, None);
        }
        self.record_disturbance(now);
    }

    /// Records that faults have ended: from now on a protection ends within `patience` of its reason.
    pub fn record_end_of_faults(&mut self, patience: Duration, now: Timestamp) {
        self.patience = Some(patience);
        self.record_disturbance(now);
    }

    /// Records that someone else has set or cleared the protection of tasks.
    pub fn record_foreign_update(&mut self, answer: &TaskProtections, cloud: &Cloud, now: Timestamp) {
        for task in &answer.tasks {
            self.own.remove(&task.arn);
            self.set_at.insert(Arc::clone(&task.arn), now);
            let service = cloud.task(&task.arn).and_then(|task| task.service().map(str::to_owned));
            if let Some(deployment) = service.and_then(|service| self.deployments.get_mut(&service)) {
                deployment.is_spoiled = true;
            }
        }
    }

    /// Checks an update by the client that ECS has carried out. `before` has the protections before it; the client does not know
    /// of those that it has set if the answer is lost.
    pub fn check_update(
        &mut self,
        before: &BTreeMap<Arc<str>, Timestamp>,
        answer: &TaskProtections,
        is_lost: bool,
        cloud: &Cloud,
        now: Timestamp,
    ) {
        for shown in &answer.tasks {
            let Some(task) = cloud.task(&shown.arn) else { continue };
            let own = self.own.remove(&shown.arn).filter(|own| own.process == self.process);
            let replaced =
                before.get(&shown.arn).filter(|until| own.as_ref().is_none_or(|own| own.until != **until));
            let is_known = self.set_at.get(&shown.arn).is_some_and(|set_at| set_at.age_at(now) >= READ_LAG);
            if replaced.is_some() && is_known {
                let how = if shown.until.is_some() { "replaced" } else { "cleared" };
                self.report(Invariant::I3, &task, &format!("{how} the protection that another set"), now);
            }
            match shown.until {
                Some(until) => self.check_protection(&task, until, is_lost, cloud, now),
                None => self.tally.cleared += 1,
            }
            self.set_at.insert(Arc::clone(&shown.arn), now);
        }
    }

    fn check_protection(
        &mut self,
        task: &CloudTask,
        until: Timestamp,
        is_lost: bool,
        cloud: &Cloud,
        now: Timestamp,
    ) {
        self.tally.protected += 1;
        let is_over = |since: Option<Timestamp>, lag| since.is_some_and(|since| since.age_at(now) > lag);
        if is_over(self.unwanted_since, MANIFESTS_LAG) {
            self.report(Invariant::I3, task, "protected, although no manifest asks for it", now);
        }
        if is_over(self.unsupported_since, READ_LAG) {
            self.report(Invariant::I11, task, "protected for an unsupported control plane", now);
        }
        let service = task.service().unwrap_or_default().to_owned();
        let primary = service_state(cloud, &service).and_then(|state| Some(Arc::clone(&state.primary()?.id)));
        if primary.as_deref() == task.started_by.as_deref() {
            self.report(Invariant::I3, task, "protected, although it is of the current deployment", now);
        }
        let seen = self.deployments.get_mut(&service).filter(|seen| Some(&seen.id) == primary.as_ref());
        let first = seen.map(|seen| *seen.first_protection.get_or_insert(now));
        let limit = first.unwrap_or(now).plus(self.max_hold + ROUNDING + READ_LAG);
        if until > limit {
            let message = format!("protected until {until}, which is after {limit}");
            self.report(Invariant::I1, task, &message, now);
        }
        if !is_lost {
            let process = Arc::clone(&self.process);
            self.own.insert(Arc::clone(&task.arn), OwnProtection { service, until, process });
        }
    }

    /// Checks how things stand. Called at each step of the world. `is_disturbed`: something keeps the client from acting now.
    pub fn step(
        &mut self,
        services: &[ScenarioService],
        cloud: &Cloud,
        kuma: &KumaCp,
        is_disturbed: bool,
        now: Timestamp,
    ) {
        if is_disturbed {
            self.record_disturbance(now);
        }
        self.own
            .retain(|arn, own| cloud.task(arn).is_some_and(|task| task.protected_until == Some(own.until)));
        self.set_at.retain(|arn, _| cloud.task(arn).is_some_and(|task| task.protected_until.is_some()));
        self.record_ready(kuma, now);
        for service in services {
            if let Some(state) = service_state(cloud, &service.name) {
                self.record_deployment(&service.name, &state, cloud, now);
            }
        }
        self.check_stops(cloud, now);
        for service in services {
            if let Some(state) = service_state(cloud, &service.name) {
                self.check_excess(&service.name, &state, cloud, now);
            }
        }
        self.last_step = now;
    }

    fn record_ready(&mut self, kuma: &KumaCp, now: Timestamp) {
        for (mesh, name, body) in kuma.dataplanes() {
            let Some(id) = label(body, TASK_LABEL) else { continue };
            if service_of(body).is_some() && is_ready(kuma, mesh, name, body) {
                let first = ReadySpell { since: now, last: now };
                let spell = self.ready.entry(id.to_owned()).or_insert(first);
                if spell.last.age_at(now) > STEP {
                    spell.since = now;
                }
                spell.last = now;
            }
        }
        self.ready.retain(|_, spell| spell.last.age_at(now) <= KNOWN_AFTER);
    }

    fn record_deployment(&mut self, service: &str, state: &EcsServiceState, cloud: &Cloud, now: Timestamp) {
        let Some(primary) = state.primary() else { return };
        let desired_count = state.desired_count;
        let is_new = self.deployments.get(service).is_none_or(|seen| seen.id != primary.id);
        if is_new {
            let disturbed = self.undisturbed_since.age_at(now) < KNOWN_AFTER;
            let seen = SeenDeployment {
                id: Arc::clone(&primary.id),
                since: now,
                desired_count,
                is_spoiled: disturbed || self.unwanted_since.is_some(),
                was_complete: false,
                shaken: None,
                first_protection: None,
                excess_since: None,
            };
            self.deployments.insert(service.to_owned(), seen);
        }
        let is_undeclared = self.undeclared.get(service).is_some_and(|until| now < *until);
        let is_allowed = cloud.get_role(&role_name(service)).is_ok_and(|role| allows(&role.tags, service));
        let was_complete = self.deployments.get(service).is_some_and(|seen| seen.was_complete);
        let is_complete =
            was_complete || self.ready_replacements(service, &primary.id, cloud, now) >= desired_count;
        let keeps_endpoints = self.keeps_endpoints;
        if let Some(seen) = self.deployments.get_mut(service) {
            let is_spoiled = is_undeclared || !is_allowed || desired_count != seen.desired_count;
            seen.is_spoiled |= is_spoiled;
            if keeps_endpoints && seen.is_held_at(now) && !was_complete && is_complete {
                self.tally.kept += 1;
            }
            seen.was_complete = is_complete;
        }
    }

    /// Ready tasks of this deployment that ECS wants to run.
    fn ready_replacements(&self, service: &str, deployment: &str, cloud: &Cloud, now: Timestamp) -> usize {
        let is_ready = |task: &&Arc<CloudTask>| {
            task.service() == Some(service)
                && task.started_by.as_deref() == Some(deployment)
                && self.is_ready_endpoint(task, now)
        };
        cloud.all_tasks().filter(is_ready).count()
    }

    fn is_ready_endpoint(&self, task: &CloudTask, now: Timestamp) -> bool {
        let is_ready = |spell: &ReadySpell| spell.last.age_at(now) <= STEP;
        task.desired_status == DesiredStatus::Running && self.ready.get(task.id()).is_some_and(is_ready)
    }

    /// Checks the stops since the last step: protected tasks go on, and a held deployment leaves ready endpoints.
    fn check_stops(&mut self, cloud: &Cloud, now: Timestamp) {
        let is_new = |task: &&Arc<CloudTask>| {
            task.stopping_at.is_some_and(|at| at > self.last_step) && task.service().is_some()
        };
        let stops: Vec<Arc<CloudTask>> = cloud.all_tasks().filter(is_new).cloned().collect();
        for task in &stops {
            if task.stop_code == Some(StopCode::ServiceSchedulerInitiated) {
                self.check_scheduled_stop(task, cloud, now);
            }
        }
        for task in stops.iter().filter(|task| task.stop_code != Some(StopCode::ServiceSchedulerInitiated)) {
            if let Some(seen) = task.service().and_then(|service| self.deployments.get_mut(service)) {
                seen.shaken = Some(now);
            }
        }
    }

    fn check_scheduled_stop(&mut self, task: &CloudTask, cloud: &Cloud, now: Timestamp) {
        let Some(at) = task.stopping_at else { return };
        let before = cloud.task_as_of(&task.arn, Timestamp(at.0 - 1));
        let is_protected = before.is_some_and(|before| {
            before.protected_until.is_some_and(|until| until > at)
                && before.health() != HealthStatus::Unhealthy
        });
        if is_protected {
            self.report(Invariant::I10, task, "stopped by ECS, although it is protected", now);
        }
        let service = task.service().unwrap_or_default().to_owned();
        let Some(seen) = self.deployments.get(&service) else { return };
        let was_ready = self
            .ready
            .get(task.id())
            .is_some_and(|spell| spell.last.age_at(now) <= STEP && spell.since.age_at(now) >= KNOWN_AFTER);
        let is_held = self.keeps_endpoints
            && was_ready
            && task.started_by.as_deref() != Some(&seen.id)
            && seen.is_held_at(now)
            && !seen.was_complete
            && seen.since.age_at(now) < self.max_hold.saturating_sub(TOO_EARLY)
            && service_state(cloud, &service)
                .is_some_and(|state| state.desired_count > 0 && state.room() > 0);
        if !is_held {
            return;
        }
        let has_others = cloud
            .all_tasks()
            .any(|other| other.service() == Some(&*service) && self.is_ready_endpoint(other, now));
        if !has_others {
            let message = format!("the last ready endpoint of {service} was stopped by its deployment");
            self.report(Invariant::I10, task, &message, now);
        }
    }

    /// Checks that no more tasks are protected than ready replacements are missing.
    fn check_excess(&mut self, service: &str, state: &EcsServiceState, cloud: &Cloud, now: Timestamp) {
        let protected = self.known().filter(|own| own.service == service).count();
        let is_needed = self.unwanted_since.is_none() && state.active && state.deployments.len() > 1;
        let Some(primary) = state.primary() else { return };
        let missing = match self.unsupported_since {
            None if is_needed && protected > 0 => {
                let ready = self.ready_replacements(service, &primary.id, cloud, now);
                state.desired_count.saturating_sub(ready)
            }
            _ => 0,
        };
        let (patience, undisturbed_since) = (self.patience, self.undisturbed_since);
        let Some(seen) = self.deployments.get_mut(service) else { return };
        if protected <= missing {
            seen.excess_since = None;
            return;
        }
        let since = (*seen.excess_since.get_or_insert(now)).max(undisturbed_since);
        if patience.is_some_and(|patience| since.age_at(now) > patience) {
            seen.excess_since = Some(now);
            let message = format!(
                "{protected} old tasks of {service} are protected while {missing} ready replacements are missing"
            );
            self.violations.push(InvariantViolation { invariant: Invariant::I1, at: now, message });
        }
    }

    /// When the last protection has expired, and the deployments that it delayed have ended; `None` if there is none.
    pub fn settles_at(cloud: &Cloud) -> Option<Timestamp> {
        let last = cloud.all_tasks().filter_map(|task| task.protected_until).max();
        last.map(|until| until.plus(Duration::from_mins(2)))
    }

    /// Checks the state after [`Self::settles_at`]: no task is protected, and each deployment has ended.
    pub fn check_after_quiet(services: &[ScenarioService], cloud: &Cloud) -> Vec<String> {
        let protected = cloud.all_tasks().filter_map(|task| {
            let until = task.protected_until?;
            Some(format!("task {} of {} is protected until {until}", short(task.id()), task.family))
        });
        let deploying = services.iter().filter(|service| {
            service_state(cloud, &service.name).is_some_and(|state| state.deployments.len() > 1)
        });
        let deploying = deploying.map(|service| format!("the deployment of {} has not ended", service.name));
        protected.chain(deploying).collect()
    }

    fn report(&mut self, invariant: Invariant, task: &CloudTask, message: &str, now: Timestamp) {
        let message = format!("task {} of {}: {message}", short(task.id()), task.family);
        self.violations.push(InvariantViolation { invariant, at: now, message });
    }
}

fn service_state(cloud: &Cloud, service: &str) -> Option<EcsServiceState> {
    let (found, _) = cloud.describe_services(CLUSTER, &[service]).ok()?;
    found.first().map(|service| service.to_model())
}
