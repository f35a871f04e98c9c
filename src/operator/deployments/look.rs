//! One look at a service: describe it, read the readiness of its tasks, decide, and change their protection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::{debug, info, warn};

use super::super::apply::WriteDecision;
use super::super::context::Context;
use super::super::control_plane_worker::ControlPlaneWorker;
use super::super::recorder::{HoldRecorder, ServiceSubject};
use super::{NotedTask, ServiceWatch};
use ecs_mesh_aws::aws::TaskProtectionOutput;
use ecs_mesh_aws::sdk::ATTEMPT_TIMEOUT;
use ecs_mesh_aws::service_reader::MAX_UPDATED_TASKS;
use ecs_mesh_control_plane::{CallError, MeshError, MeshErrorKind};
use ecs_mesh_controller::{BatchError, Lease, Priority, Reconciler, Requeue, WriteObstacle, WritePermit};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_core::plan::{DeployedTask, DeploymentHold, HoldEnd, HoldRequest, HoldState};
use ecs_mesh_model::{EcsServiceRef, EcsServiceState, MeshName, Reason, TaskArn};

/// Interval at which a held deployment is decided on again.
const RECHECK: Duration = Duration::from_secs(2);

/// Pause before another attempt of a write that this process may not make now.
const OBSTRUCTED_RETRY: Duration = Duration::from_secs(10);

/// Looks at services.
pub(super) struct DeploymentReconciler {
    pub(super) context: Arc<Context>,
}

#[async_trait]
impl Reconciler<EcsServiceRef> for DeploymentReconciler {
    async fn reconcile(&self, service: &EcsServiceRef, _cause: Priority) -> Requeue {
        let watches = &self.context.deployments;
        // A new term looks at every service again.
        if !self.context.process.lease.holds() {
            return Requeue::Forget;
        }
        let subject = format!("deployments of service {service}");
        let next = match self.look(service).await {
            Ok(next) => {
                watches.warnings.clear(&(service.clone(), "deployment_read_failed"));
                self.context.record_unresolved(&subject, None);
                next
            }
            Err(error) => {
                self.warn_once(service, "deployment_read_failed", &error.message);
                self.context.record_unresolved(&subject, Some(error.message.clone()));
                Requeue::Backoff
            }
        };
        watches.expire(service);
        next
    }
}

/// Whether the control plane can be written to, and its ready registrations.
struct MeshView {
    obstacle: Option<HoldEnd>,
    ready: BTreeSet<RegistrationId>,
}

impl DeploymentReconciler {
    /// # Errors
    /// When ECS or the control plane does not show what the decision rests on. Nothing is decided then.
    async fn look(&self, service: &EcsServiceRef) -> Result<Requeue, Reason> {
        let (context, watches) = (&self.context, &self.context.deployments);
        let Some(noted) = watches.tasks(service) else { return Ok(Requeue::Forget) };
        let store = &context.aws.store;
        let is_wanted =
            |task: &TaskArn| store.contains(task) && !store.is_leaving(task) && !store.is_over(task);
        let noted: BTreeMap<TaskArn, NotedTask> =
            noted.into_iter().filter(|(task, _)| is_wanted(task)).collect();
        let described = context.aws.services.describe(service).await?;
        let awaited = watches.awaits(service, described.as_ref().map_or(&[], |state| &state.deployments));
        let Some(state) = described else {
            // MISSING proves nothing while there are tasks. Those of a deleted service leave.
            if noted.is_empty() {
                watches.remove(service);
            }
            let is_protecting = watches.with(service, |watch| watch.hold.protected_count() > 0);
            let wait = awaited.or(is_protecting.then_some(RECHECK));
            return Ok(wait.map_or(Requeue::Forget, Requeue::After));
        };

        let first = noted.values().find_map(|task| Some((&task.control_plane, task.hold.as_ref()?)));
        let none: Arc<str> = "".into();
        let (control_plane, binding) = first.map_or((&none, &none), |(name, (binding, _))| (name, binding));
        let max_hold = first.map(|(_, (_, max_hold))| *max_hold);
        let worker = context.workers.load().get(control_plane).map(Arc::clone);
        let deploys = state.active && state.deployments.len() > 1;
        let view = match &worker {
            Some(worker) if deploys => self.view(worker, noted.keys()).await?,
            _ => MeshView { obstacle: None, ready: BTreeSet::new() },
        };
        // Without a worker, the manifests have just lost the control plane.
        let max_hold = max_hold.filter(|_| worker.is_some());
        let tasks: Vec<DeployedTask> =
            noted.iter().map(|task| deployed(worker.as_deref(), &view.ready, task)).collect();
        let request = HoldRequest {
            service: &state,
            tasks: &tasks,
            max_hold,
            obstacle: view.obstacle,
            now: context.now(),
        };
        let decision = watches.with(service, |watch| watch.hold.decide(&request));
        let subject = ServiceSubject { context, service, control_plane, binding };
        let recorder = Arc::clone(&context.process.recorder).of_service(subject);
        let reason = self.report(service, &state, decision.state);
        let steps = HoldSteps { context, service, recorder: recorder.as_ref(), worker: worker.as_deref() };
        let mut next = match decision.state {
            HoldState::Holding { .. } => Requeue::After(RECHECK),
            HoldState::Idle | HoldState::Ended { .. } => Requeue::Forget,
        };
        if !steps.clear(&decision.clear, reason).await? {
            next = Requeue::After(OBSTRUCTED_RETRY);
        }
        if !steps.protect(&decision.protect, decision.protect_for).await? {
            next = Requeue::After(OBSTRUCTED_RETRY);
        }
        if matches!(decision.state, HoldState::Idle | HoldState::Ended { reason: HoldEnd::Over, .. }) {
            watches.with(service, ServiceWatch::end);
        }
        // An answer may have lacked tasks to clear.
        let is_protecting = watches.with(service, |watch| watch.hold.protected_count() > 0);
        let again = awaited.or(is_protecting.then_some(RECHECK));
        Ok(match (next, again) {
            (Requeue::Forget, Some(wait)) => Requeue::After(wait),
            (next, _) => next,
        })
    }

    /// # Errors
    /// When the readiness could not be read for now.
    async fn view(
        &self,
        worker: &ControlPlaneWorker,
        tasks: impl Iterator<Item = &TaskArn>,
    ) -> Result<MeshView, Reason> {
        let blocked = |reason| Ok(MeshView { obstacle: Some(reason), ready: BTreeSet::new() });
        match worker.ensure_supported().await {
            Ok(()) => {}
            Err(CallError::CircuitOpen(_)) => return blocked(HoldEnd::Unreachable),
            Err(CallError::Failed(MeshError { kind: MeshErrorKind::Obstructed(_), .. })) => {
                return blocked(HoldEnd::Unsupported);
            }
            Err(CallError::Failed(error)) => return Err(Reason::constant(error.message)),
        }
        let entries = tasks.flat_map(|task| worker.registry.entries(task));
        let services: BTreeSet<(MeshName, Arc<str>)> = entries
            .filter_map(|entry| Some((entry.id.mesh_scope()?.clone(), entry.service.clone()?)))
            .collect();
        let mut ready = BTreeSet::new();
        for (mesh, service) in services {
            match worker.drains.endpoints(&mesh, &service).await {
                Ok(found) => {
                    let endpoints = found.iter().map(|found| &found.endpoint);
                    ready.extend(
                        endpoints.filter(|endpoint| endpoint.is_ready()).map(|endpoint| endpoint.id.clone()),
                    );
                }
                Err(BatchError::Call(CallError::CircuitOpen(_))) => return blocked(HoldEnd::Unreachable),
                Err(BatchError::Call(CallError::Failed(error))) => {
                    return Err(Reason::constant(error.message));
                }
                Err(BatchError::Missing | BatchError::Lost) => {
                    return Err(Reason::constant("the list of the service was cancelled"));
                }
            }
        }
        Ok(MeshView { obstacle: None, ready })
    }

    /// Logs and counts the end of a hold, once. Returns why protection is cleared.
    fn report(&self, service: &EcsServiceRef, state: &EcsServiceState, hold: HoldState) -> &'static str {
        let (reason, now) = match hold {
            HoldState::Ended { reason, now } => (reason, now),
            HoldState::Idle => return HoldEnd::Over.label(),
            HoldState::Holding { ready, needed } => {
                debug!(ecs_service = %service, ready, needed, "deployment held; too few replacements are ready");
                return HoldEnd::Ready.label();
            }
        };
        if now {
            self.context.metrics().deployments.record_end(reason);
            let deployment = state.primary().map(|deployment| &*deployment.id);
            let (desired, maximum_percent) = (state.desired_count, state.maximum_percent);
            if reason.is_expected() {
                info!(ecs_service = %service, deployment, reason = reason.label(), "deployment hold ended");
            } else {
                warn!(
                    ecs_service = %service, deployment, reason = reason.label(), desired, maximum_percent,
                    "deployment not held"
                );
            }
        }
        reason.label()
    }

    fn warn_once(&self, service: &EcsServiceRef, reason: &'static str, error: &str) {
        self.context.metrics().record_warning(reason);
        if self.context.deployments.warnings.raise((service.clone(), reason), ()) {
            warn!(ecs_service = %service, reason, error, "cannot decide on a deployment; retrying");
        } else {
            debug!(ecs_service = %service, reason, error, "cannot decide on a deployment; retrying");
        }
    }
}

/// A noted task with its readiness: it has registrations, and all of them are ready.
fn deployed(
    worker: Option<&ControlPlaneWorker>,
    ready: &BTreeSet<RegistrationId>,
    (task, noted): (&TaskArn, &NotedTask),
) -> DeployedTask {
    let entries = worker.map(|worker| worker.registry.entries(task)).unwrap_or_default();
    DeployedTask {
        arn: task.clone(),
        deployment: Arc::clone(&noted.deployment),
        ready: !entries.is_empty() && entries.iter().all(|entry| ready.contains(&entry.id)),
        obstacle: noted.obstacle,
    }
}

/// Changes the protection of tasks of one service. Each write reads the current protection first.
struct HoldSteps<'a> {
    context: &'a Context,
    service: &'a EcsServiceRef,
    recorder: &'a dyn HoldRecorder,
    worker: Option<&'a ControlPlaneWorker>,
}

impl HoldSteps<'_> {
    /// Protects the tasks that have no protection. `false` if this process may not write.
    async fn protect(&self, tasks: &[TaskArn], lasts: Duration) -> Result<bool, Reason> {
        let mut planned = BTreeSet::new();
        let mut written = true;
        if let Some(worker) = self.worker.filter(|_| !tasks.is_empty()) {
            let lease = worker.lease(&self.context.process.lease);
            let shown = self.read(tasks).await?;
            let free: Vec<TaskArn> =
                tasks.iter().filter(|task| self.is_free(&shown, task)).cloned().collect();
            for chunk in free.chunks(MAX_UPDATED_TASKS) {
                match self.write(&lease, "protect", chunk, Some(minutes(lasts))).await? {
                    Written::Planned => planned.extend(chunk.iter().cloned()),
                    Written::Obstructed => written = false,
                    Written::Sent(output) => self.record_protected(worker, chunk, &output, lasts),
                }
            }
        }
        let all = self.hold_watch(|watch| {
            let before = std::mem::replace(&mut watch.planned, planned.clone());
            planned.union(&before).cloned().collect()
        });
        self.recorder.planned(&planned, &all);
        Ok(written)
    }

    /// Clears the protection that this operator has set. `false` if this process may not write. The control plane is not
    /// asked: the protection ends because of it, too.
    async fn clear(&self, tasks: &[TaskArn], reason: &'static str) -> Result<bool, Reason> {
        if tasks.is_empty() {
            return Ok(true);
        }
        let shown = self.read(tasks).await?;
        let is_own = |task: &&TaskArn| {
            let Some(until) = shown.tasks.get(task.id()) else {
                // The task is leaving.
                if shown.failed.contains_key(task.id()) {
                    self.hold(|hold| hold.record_cleared(task));
                }
                return false;
            };
            let is_own = self.hold(|hold| hold.may_clear(task, *until));
            if !is_own && until.is_some() {
                info!(%task, ecs_service = %self.service, "protection was changed by another; left alone");
            }
            is_own
        };
        let own: Vec<TaskArn> = tasks.iter().filter(is_own).cloned().collect();
        let mut written = true;
        for chunk in own.chunks(MAX_UPDATED_TASKS) {
            match self.write(&*self.context.process.lease, "unprotect", chunk, None).await? {
                Written::Planned => {}
                Written::Obstructed => written = false,
                Written::Sent(output) => {
                    for task in chunk {
                        if output.tasks.contains_key(task.id()) {
                            self.recorder.unprotected(task, reason);
                        }
                        self.hold(|hold| hold.record_cleared(task));
                    }
                }
            }
        }
        Ok(written)
    }

    async fn read(&self, tasks: &[TaskArn]) -> Result<TaskProtectionOutput, Reason> {
        Ok(self.context.aws.services.protection(self.service.cluster(), tasks).await?)
    }

    /// Whether ECS shows that the task can be protected and is not.
    fn is_free(&self, shown: &TaskProtectionOutput, task: &TaskArn) -> bool {
        if let Some(reason) = shown.failed.get(task.id()) {
            debug!(%task, ecs_service = %self.service, reason, "task cannot be protected");
            self.hold(|hold| hold.record_refused(task));
        }
        let Some(until) = shown.tasks.get(task.id()) else { return false };
        let is_free = self.hold(|hold| hold.may_protect(task, *until));
        if !is_free {
            info!(%task, ecs_service = %self.service, "task is protected by another; left alone");
        }
        is_free
    }

    async fn write(
        &self,
        lease: &dyn Lease,
        change: &'static str,
        tasks: &[TaskArn],
        minutes: Option<u16>,
    ) -> Result<Written, Reason> {
        let services = &self.context.aws.services;
        if self.recorder.write_decision(lease) == WriteDecision::Send {
            services.acquire_write(self.service.cluster()).await;
        }
        match self.recorder.write_decision(lease) {
            WriteDecision::DryRun => return Ok(Written::Planned),
            WriteDecision::Obstructed(obstacle) => {
                self.warn_obstructed(obstacle);
                return Ok(Written::Obstructed);
            }
            WriteDecision::Send => {}
        }
        let permit = match WritePermit::request(lease, ATTEMPT_TIMEOUT) {
            Ok(permit) => permit,
            Err(obstacle) => {
                self.warn_obstructed(obstacle);
                return Ok(Written::Obstructed);
            }
        };
        let written = permit.run(services.update_protection(self.service.cluster(), tasks, minutes)).await;
        match written {
            Some(Ok(output)) => Ok(Written::Sent(output)),
            // The lease has ended: the next leader reads whether it took effect.
            None => Ok(Written::Obstructed),
            Some(Err(error)) => {
                self.recorder.failed(change, tasks, &error.to_string());
                Err(error.into())
            }
        }
    }

    fn record_protected(
        &self,
        worker: &ControlPlaneWorker,
        tasks: &[TaskArn],
        output: &TaskProtectionOutput,
        lasts: Duration,
    ) {
        let expires = self.context.now().plus(Duration::from_mins(minutes(lasts).into()));
        for task in tasks {
            if let Some(Some(until)) = output.tasks.get(task.id()) {
                self.hold_watch(|watch| {
                    watch.hold.record_protected(task, *until, expires);
                    watch.control_plane = Some(Arc::clone(&worker.name));
                });
                self.recorder.protected(task, *until);
            } else if let Some(reason) = output.failed.get(task.id()) {
                self.hold(|hold| hold.record_refused(task));
                self.recorder.failed("protect", std::slice::from_ref(task), reason);
            }
        }
    }

    fn warn_obstructed(&self, obstacle: WriteObstacle) {
        let (reason, service) = (obstacle.label(), self.service);
        self.context.metrics().record_warning(reason);
        if self.context.deployments.warnings.raise((service.clone(), reason), ()) {
            warn!(ecs_service = %service, reason, error = obstacle.reason(), "protection of tasks not changed");
        }
    }

    fn hold<T>(&self, work: impl FnOnce(&mut DeploymentHold) -> T) -> T {
        self.hold_watch(|watch| work(&mut watch.hold))
    }

    fn hold_watch<T>(&self, work: impl FnOnce(&mut ServiceWatch) -> T) -> T {
        self.context.deployments.with(self.service, work)
    }
}

/// The outcome of a write.
enum Written {
    Sent(TaskProtectionOutput),
    /// A dry run.
    Planned,
    /// This process may not write.
    Obstructed,
}

/// Whole minutes, rounded up, as ECS takes them.
fn minutes(lasts: Duration) -> u16 {
    u16::try_from(lasts.as_secs().div_ceil(60).max(1)).unwrap_or(u16::MAX)
}

impl ServiceWatch {
    /// Ends the hold, if nothing of it is left to clear, so that the next deployment starts another.
    fn end(&mut self) {
        if self.hold.protected_count() == 0 {
            (self.hold, self.control_plane) = (DeploymentHold::default(), None);
        }
    }
}
