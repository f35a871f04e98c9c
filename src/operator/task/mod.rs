//! One reconcile of one task at one control plane: read what is known, evaluate what should be, decide, execute, requeue.

mod drain;
mod execute;
mod owner;
mod pending_event;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use self::pending_event::PendingEvent;
use super::context::{Context, ManifestsInForce};
use super::control_plane_worker::ControlPlaneWorker;
use super::deployments::NotedTask;
use super::fact_waiters::AwsFact;
use super::recorder::{Subject, TaskRecorder};
use super::registry::RegistryEntry;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_aws::role_tag_cache::ROLE_CONFIRM_INTERVAL;
use ecs_mesh_aws::store::TaskSnapshot;
use ecs_mesh_aws::task_describer::DescribeOutcome;
use ecs_mesh_control_plane::{CallError, FailedSegment};
use ecs_mesh_controller::{Priority, Reconciler, Requeue};
use ecs_mesh_core::intent::{
    Evaluation, Evaluator, Fact, HoldReason, IgnoreReason, MissingFact, RoleTags, TaskFacts, Verdict,
    owning_binding,
};
use ecs_mesh_core::plan::report::Change;
use ecs_mesh_core::plan::{
    Decision, DecisionInput, HoldEnd, KnownRegistration, Settling, TaskLiveness, decide, decide_if_confirmed,
};
use ecs_mesh_model::{
    ContainerInstanceArn, EcsServiceRef, InterfaceAddresses, Reason, RoleArn, Task, TaskArn, TaskDefinition,
    TaskDefinitionArn,
};

/// Wait for the event that has a new task's address, before a describe asks for it.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before another look at a name that another owner holds.
const NAME_CONFLICT_RETRY: Duration = Duration::from_mins(1);

/// Wait for the control plane's first list, which enqueues all tasks by itself.
const FIRST_SYNC_WAIT: Duration = Duration::from_secs(10);

/// Wait for a fact whose reading wakes the task, in case that it does not.
const FACT_RECHECK: Duration = Duration::from_secs(30);

/// Attempts of one reconcile. Each describe may change what is known; after the third, waiting is due.
const MAX_ATTEMPTS: usize = 3;

/// Grace age for a task that no binding owns.
const DEFAULT_GRACE_AGE: Duration = Duration::from_mins(5);

/// Reconciles tasks at one control plane.
pub(super) struct TaskReconciler {
    pub(super) context: Arc<Context>,
    pub(super) worker: Arc<ControlPlaneWorker>,
}

#[async_trait]
impl Reconciler<TaskArn> for TaskReconciler {
    async fn reconcile(&self, task: &TaskArn, _cause: Priority) -> Requeue {
        TaskRun::new(&self.context, &self.worker, task).reconcile().await
    }
}

/// A reconcile in progress.
pub(super) struct TaskRun<'a> {
    context: &'a Context,
    worker: &'a ControlPlaneWorker,
    task: &'a TaskArn,
    manifests: Arc<ManifestsInForce>,
    recorder: Box<dyn TaskRecorder + 'a>,
    event: PendingEvent<'a>,
    /// Why a part of what the task may have registered could not be searched.
    search_error: Mutex<Option<CallError>>,
}

/// A fact is being read; the task runs again afterwards.
#[derive(Clone, Copy, Debug)]
struct FactPending;

/// How executing a decision ended.
enum ExecuteOutcome {
    Settled(Requeue),
    /// The state that the decision rests on has changed.
    Reevaluate,
}

impl<'a> TaskRun<'a> {
    pub(super) fn new(context: &'a Context, worker: &'a ControlPlaneWorker, task: &'a TaskArn) -> Self {
        Self {
            context,
            worker,
            task,
            manifests: context.manifests.in_force(),
            recorder: Arc::clone(&context.process.recorder).of_task(Subject { context, worker, task }),
            event: PendingEvent::take(worker, task),
            search_error: Mutex::default(),
        }
    }

    /// Brings the task's registrations to their desired state as far as that is possible now.
    pub(super) async fn reconcile(&self) -> Requeue {
        let _in_flight = self.worker.begin_run();
        if !self.worker.is_synced() {
            return Requeue::After(FIRST_SYNC_WAIT);
        }
        if !self.context.process.lease.holds() {
            return self.stand_by().await;
        }
        if self.known_registrations().iter().any(|known| self.worker.drains.is_held(&known.id)) {
            // Shows whether the task still serves. Where it fails, what is known decides.
            let _ = self.context.aws.describer.describe(self.task, Duration::MAX).await;
        }
        let event_since = self.event.since();
        let Ok(mut next) = self.attempt().await else {
            // The event stays pending, and so do warnings: nothing is known yet.
            return Requeue::After(FACT_RECHECK);
        };
        let search_error = self.search_error.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(error) = &search_error {
            // The registrations found are processed, which acknowledges the event; the rest is searched again.
            event_since.into_iter().for_each(|at| self.worker.record_event(self.task, at));
            if !is_retry(next) {
                next = error.requeue();
            }
        }
        self.recorder.finish();
        // An event that changed nothing is acknowledged; one that still may change something is not.
        if search_error.is_none() && !is_retry(next) {
            self.event.acknowledge();
        }
        next
    }

    /// A standby reads the facts that it needs as leader, and decides nothing: the sweep of its term enqueues the task again.
    async fn stand_by(&self) -> Requeue {
        // The leader has received the event, or receives it again, and warns.
        self.event.acknowledge();
        self.worker.clear_warnings(self.task);
        let known = self.known_registrations();
        let snapshot = self.snapshot(&known);
        self.recorder.start_attempt();
        let evaluation = match (&snapshot.liveness, &snapshot.task) {
            (TaskLiveness::Live, Some(task)) => {
                match self.evaluate(&self.manifests.set, task, !known.is_empty()).await {
                    Ok(evaluation) => Some(evaluation),
                    Err(FactPending) => return Requeue::After(FACT_RECHECK),
                }
            }
            _ => None,
        };
        evaluation.iter().for_each(|evaluation| self.worker.record_evaluation(self.task, evaluation));
        if self.recorder.shows_verdict() {
            let input = self.decision_input(&snapshot, &known, evaluation.as_ref());
            self.recorder.stood_by(evaluation.as_ref(), &decide(&input));
            if let Some((awaited, decision)) = decide_if_confirmed(&input, grace_age(&known)) {
                self.recorder.decided_later(&awaited, &decision);
            }
            record_unchanged(self.recorder.as_ref(), &snapshot, &known);
        }
        self.recorder.finish();
        Requeue::Forget
    }

    async fn attempt(&self) -> Result<Requeue, FactPending> {
        let mut searched = false;
        for _ in 0..MAX_ATTEMPTS {
            self.recorder.start_attempt();
            let mut known = self.known_registrations();
            let snapshot = self.snapshot(&known);
            let unsearched = !searched && self.worker.is_unsearched(self.task);
            let stopped =
                matches!(snapshot.liveness, TaskLiveness::Stopped | TaskLiveness::StoppedMissing { .. });
            if unsearched && stopped {
                if let Err(error) = self.search().await {
                    return Ok(self.requeue_after_error(&error));
                }
                searched = true;
                known = self.known_registrations();
            }
            let may_run = snapshot.liveness == TaskLiveness::Live && !snapshot.is_lost();
            if known.is_empty() && !may_run {
                self.note_deployment(&snapshot, None);
                match self.check_left_behind(&snapshot).await {
                    Ok(Some(again)) => return Ok(Requeue::After(again)),
                    Ok(None) => {}
                    Err(error) => return Ok(self.requeue_after_error(&error)),
                }
                self.worker.clear_warnings(self.task);
                return Ok(Requeue::Forget);
            }
            let evaluation = match (&snapshot.liveness, &snapshot.task) {
                (TaskLiveness::Live, Some(task)) => {
                    Some(self.evaluate(&self.manifests.set, task, !known.is_empty()).await?)
                }
                _ => None,
            };
            // Evaluating may have waited for AWS, and a describe may have shown meanwhile that the task stopped. The
            // event of that stop is stale then, and nothing else enqueues the task.
            let unknown = self.ensure_owner_is_known(&snapshot, &known, evaluation.as_ref()).await?;
            if evaluation.is_some() && self.snapshot(&known).liveness != snapshot.liveness {
                continue;
            }
            self.note_deployment(&snapshot, evaluation.as_ref());
            evaluation.iter().for_each(|evaluation| self.recorder.evaluated(evaluation));
            if let Some(reason) = unknown {
                self.recorder.held(&reason);
                return Ok(Requeue::Backoff);
            }
            // Facts that were read meanwhile decide which binding owns a registration, and who owns the Dataplane.
            let known = self.known_registrations();
            let mut input = self.decision_input(&snapshot, &known, evaluation.as_ref());
            let mut decision = decide(&input);
            let retained = self.evaluate_retained(&decision, &snapshot, &known).await?;
            if retained.is_some() && self.snapshot(&known).liveness != snapshot.liveness {
                continue;
            }
            input.settling = self.settling(&decision, &known, retained.as_ref());
            if input.settling.is_some() {
                decision = decide(&input);
            }
            if let Some(evaluation) = &evaluation {
                self.record_declarations(evaluation, &decision, &known);
            }
            self.end_checks(evaluation.as_ref(), &known, &decision);
            let next = match self.execute(&decision, &known).await {
                Ok(ExecuteOutcome::Settled(next)) => next,
                Ok(ExecuteOutcome::Reevaluate) => continue,
                Err(error) => return Ok(self.requeue_after_error(&error)),
            };
            if let Err(error) = self.check_not_allowed(evaluation.as_ref(), &known).await {
                return Ok(self.requeue_after_error(&error));
            }
            if decision.confirm_running {
                let wait = snapshot.confirms_running_in(self.context.now());
                if !wait.is_zero() {
                    return Ok(Requeue::After(wait));
                }
            }
            if decision.describe || decision.confirm_running {
                match self.describe(grace_age(&known)).await {
                    Ok(()) => continue,
                    Err(next) => return Ok(next),
                }
            }
            let is_plan = self.recorder.plan().is_some();
            if self.recorder.shows_verdict()
                && let Err(error) = self.preview(&input).await
            {
                return Ok(self.requeue_after_error(&error));
            }
            let next = if is_plan { Requeue::Forget } else { next };
            let next = self.requeue(&snapshot, evaluation.as_ref(), &decision, next).await;
            record_unchanged(self.recorder.as_ref(), &snapshot, &known);
            return Ok(next);
        }
        self.recorder.no_change("ECS contradicts its own answers about the task", Change::Unknown);
        // ECS is eventually consistent: its answers differ.
        Ok(Requeue::Backoff)
    }

    /// Tells the hold of the task's deployment whether the task is, or will be, registered.
    fn note_deployment(&self, snapshot: &TaskSnapshot, evaluation: Option<&Evaluation>) {
        // At Consul, tasks leave service by themselves.
        if self.worker.kind.tasks_register_themselves() {
            return;
        }
        let watches = &self.context.deployments;
        let (Some(task), Some(evaluation)) = (&snapshot.task, evaluation) else {
            return watches.forget(self.task);
        };
        let (Some(service), Some(deployment)) = (task.group.service(), &task.deployment) else { return };
        if matches!(evaluation.verdict, Verdict::Ignore(IgnoreReason::OtherControlPlane)) {
            return;
        }
        let binding = evaluation.binding.as_ref();
        let hold = binding.filter(|binding| binding.spec.deployments.hold);
        let noted = NotedTask {
            deployment: Arc::clone(deployment),
            control_plane: Arc::clone(&self.worker.name),
            hold: hold.map(|binding| (Arc::clone(&binding.name), binding.spec.deployments.max_hold.0)),
            obstacle: HoldEnd::of_evaluation(evaluation),
        };
        watches.note(EcsServiceRef::new(self.task.cluster(), service), self.task, noted);
    }

    fn snapshot(&self, known: &[KnownRegistration]) -> TaskSnapshot {
        self.context.aws.store.snapshot(self.task, grace_age(known), self.context.now())
    }

    /// Describes the task. `Err` is when to try again.
    async fn describe(&self, grace: Duration) -> Result<(), Requeue> {
        let error = match self.context.aws.describer.describe(self.task, grace).await {
            Ok(DescribeOutcome::Found | DescribeOutcome::Missing) => return Ok(()),
            Ok(DescribeOutcome::Failed(error)) => Reason::constant(error),
            Err(error) => error,
        };
        self.recorder.problem("describe_failed", &error);
        Err(Requeue::Backoff)
    }

    /// Searches for what the task has registered itself. The task has stopped, so it registers nothing more.
    async fn search(&self) -> Result<(), CallError> {
        let requested = self.context.now();
        let found = self.worker.call(self.worker.client.list_for_task(self.task)).await?;
        let registry = &self.worker.registry;
        registry.replace_task(self.task, &found.seen, &found.failed, requested, self.context.now());
        if let Some(FailedSegment { error, .. }) = found.failed.first() {
            self.context.metrics().record_warning(error.kind.label());
            self.worker.warn_failed_segments(&found.failed);
            let error = CallError::Failed(error.clone());
            *self.search_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        } else {
            self.worker.record_search(self.task);
        }
        for known in self.known_registrations() {
            let binding = known.binding.as_ref().map(|binding| &binding.name);
            registry.assign_binding(self.task, &known.id, binding);
        }
        Ok(())
    }

    fn known_registrations(&self) -> Vec<KnownRegistration> {
        let entries = self.worker.registry.entries(self.task);
        let task = self.context.aws.store.snapshot(self.task, Duration::MAX, self.context.now()).task;
        let known = |entry: RegistryEntry| {
            let (control_plane, cluster) = (&self.worker.name, self.task.cluster());
            let binding = owning_binding(
                &self.manifests.set,
                control_plane,
                entry.id.mesh_scope(),
                cluster,
                task.as_ref(),
            );
            let owner = self.owner_of(binding.as_deref(), task.as_ref(), &entry);
            let RegistryEntry { id, drained, was_declared, .. } = entry;
            KnownRegistration { id, drained, binding, was_declared, owner }
        };
        entries.into_iter().map(known).collect()
    }

    /// Evaluates the task, and reads each fact that the verdict turns out to need.
    async fn evaluate(
        &self,
        manifests: &ManifestSet,
        task: &Task,
        registered: bool,
    ) -> Result<Evaluation, FactPending> {
        let evaluator = Evaluator {
            manifests,
            control_plane: &self.worker.name,
            kind: self.worker.kind,
            zone_proxies: self.worker.client.zone_proxy_form(),
            operator: &self.context.process.id,
            history: &self.manifests.history,
            now: self.context.now(),
        };
        let aws = &self.context.aws;
        let mut task = task.clone();
        let outbounds_seen = self.worker.registry.were_exact(self.task);
        let reported_outbounds = self.worker.reported_outbounds(self.task);
        let mut facts = TaskFacts { registered, outbounds_seen, reported_outbounds, ..TaskFacts::default() };
        let mut reread = false;
        let mut requested = None;
        loop {
            let evaluation = evaluator.evaluate(&task, &facts);
            match &evaluation.verdict {
                Verdict::NeedsFact(MissingFact::Tags) => match self.describe_tags().await {
                    Ok(described) => task = described,
                    Err(error) => facts.tags_unknown = Some(error),
                },
                Verdict::NeedsFact(MissingFact::Definition) => {
                    facts.definition = match self.definition(&task.definition).await? {
                        Ok(definition) => Fact::Known(definition),
                        Err(error) => Fact::Unknown(error),
                    };
                }
                Verdict::NeedsFact(MissingFact::Role(role)) => {
                    aws.store.set_role(self.task, role);
                    requested = Some(role.clone());
                    let max_age = evaluation.binding.as_ref().map(|b| b.spec.role_tags.recheck.0);
                    facts.role = self.role(role, max_age.unwrap_or(ROLE_CONFIRM_INTERVAL)).await?;
                }
                Verdict::NeedsFact(MissingFact::Host(instance)) => {
                    facts.host = match self.host(instance).await? {
                        Ok(addresses) => Fact::Known(addresses),
                        Err(error) => Fact::Unknown(error),
                    };
                }
                // One read is no proof. A second read is, if it is late enough to be a different answer.
                Verdict::Reject { confirmed: false, .. } | Verdict::Hold(HoldReason::Unknown(_))
                    if !reread =>
                {
                    reread = true;
                    let unconfirmed = matches!(&facts.role, Fact::Known(read) if !read.confirmed);
                    let late =
                        |role: &&RoleArn| aws.roles.age(role).is_some_and(|age| age >= ROLE_CONFIRM_INTERVAL);
                    match requested.as_ref().filter(|_| unconfirmed).filter(late) {
                        Some(role) => facts.role = aws.roles.read(role).await.0,
                        None => return Ok(evaluation),
                    }
                }
                _ => return Ok(evaluation),
            }
        }
    }

    /// The task definition, or the result of an attempt to read it.
    async fn definition(
        &self,
        arn: &TaskDefinitionArn,
    ) -> Result<Result<Arc<TaskDefinition>, Reason>, FactPending> {
        let definitions = &self.context.aws.definitions;
        if let Some(cached) = definitions.cached(arn) {
            return Ok(cached);
        }
        if self.recorder.plan().is_some() {
            return Ok(definitions.get(arn).await);
        }
        let (definitions, arn) = (definitions.clone(), arn.clone());
        let fact = AwsFact::Definition(arn.clone());
        Err(self.wait_for(fact, async move { drop(definitions.get(&arn).await) }))
    }

    /// The role's tags, not older than `max_age`, or the result of an attempt to read them.
    async fn role(&self, role: &RoleArn, max_age: Duration) -> Result<Fact<RoleTags>, FactPending> {
        let roles = &self.context.aws.roles;
        if let Some(cached) = roles.cached(role, max_age) {
            return Ok(cached);
        }
        if self.recorder.plan().is_some() {
            return Ok(roles.get(role, max_age).await);
        }
        let (roles, role) = (roles.clone(), role.clone());
        let fact = AwsFact::Role(role.clone());
        Err(self.wait_for(fact, async move { drop(roles.get(&role, max_age).await) }))
    }

    /// The container instance's addresses, or the result of an attempt to read them.
    async fn host(
        &self,
        instance: &ContainerInstanceArn,
    ) -> Result<Result<InterfaceAddresses, Reason>, FactPending> {
        let hosts = &self.context.aws.hosts;
        let (cluster, instance) = (self.task.cluster().clone(), instance.clone());
        if let Some(cached) = hosts.cached(&cluster, &instance) {
            return Ok(cached);
        }
        if self.recorder.plan().is_some() {
            return Ok(hosts.get(&cluster, &instance).await);
        }
        let hosts = hosts.clone();
        let fact = AwsFact::Host(instance.clone());
        Err(self.wait_for(fact, async move { drop(hosts.get(&cluster, &instance).await) }))
    }

    /// Runs again once the fact was read.
    fn wait_for(&self, fact: AwsFact, read: impl Future<Output = ()> + Send + 'static) -> FactPending {
        let task = (Arc::clone(&self.worker.name), self.task.clone());
        self.context.aws.waiters.wait(fact, task, self.worker.queue.clone(), read);
        FactPending
    }

    /// Where the manifests ask for a withdrawal: the evaluation as if the documents were still there that have left them
    /// less than `cleanup.settle` ago.
    async fn evaluate_retained(
        &self,
        decision: &Decision,
        snapshot: &TaskSnapshot,
        known: &[KnownRegistration],
    ) -> Result<Option<Evaluation>, FactPending> {
        let ManifestsInForce { set, history } = &*self.manifests;
        let may_be_retained = !decision.undeclared.is_empty();
        let retained =
            may_be_retained.then(|| history.retained(set, settle_time(known), self.context.now())).flatten();
        match (retained, &snapshot.task) {
            (Some(retained), Some(task)) => self.evaluate(&retained, task, true).await.map(Some),
            _ => Ok(None),
        }
    }

    /// The condition under which a withdrawal by the manifests waits.
    fn settling<'e>(
        &self,
        decision: &Decision,
        known: &[KnownRegistration],
        retained: Option<&'e Evaluation>,
    ) -> Option<Settling<'e>> {
        let settle = settle_time(known);
        let starting = self.manifests.history.is_starting(settle, self.context.now());
        let may_wait = !decision.undeclared.is_empty() && (starting || retained.is_some());
        may_wait.then_some(Settling { settle, starting, retained })
    }

    /// Records which registrations the manifests declare, and since when they ask for the withdrawal of the others.
    fn record_declarations(&self, evaluation: &Evaluation, decision: &Decision, known: &[KnownRegistration]) {
        self.recorder.settling(&decision.settling, settle_time(known));
        let ManifestsInForce { set, history } = &*self.manifests;
        let is_declared = match &evaluation.verdict {
            Verdict::Register(_) | Verdict::Admit | Verdict::Reject { .. } => true,
            Verdict::Hold(reason) => !matches!(reason, HoldReason::Unknown(_)),
            Verdict::Ignore(_) | Verdict::NeedsFact(_) => false,
        };
        let valid_for = history.valid_for(self.context.now());
        self.worker.registry.record_declarations(
            self.task,
            &decision.undeclared,
            is_declared && set.complete,
            valid_for,
        );
    }

    async fn describe_tags(&self) -> Result<Task, Reason> {
        let aws = &self.context.aws;
        aws.describer.describe(self.task, Duration::MAX).await?;
        let task = aws.store.snapshot(self.task, Duration::MAX, self.context.now()).task;
        task.filter(|task| task.tags.is_some())
            .ok_or_else(|| Reason::constant("ECS does not find the task (yet)"))
    }

    fn decision_input<'i>(
        &self,
        snapshot: &TaskSnapshot,
        known: &'i [KnownRegistration],
        evaluation: Option<&'i Evaluation>,
    ) -> DecisionInput<'i> {
        let now = self.context.now();
        DecisionInput {
            liveness: snapshot.liveness,
            evaluation,
            known,
            sighting: snapshot.sighting(now),
            manifests_complete: self.manifests.set.complete,
            settling: None,
            self_registered: self.worker.kind.tasks_register_themselves(),
            now,
        }
    }

    /// Also shows the changes that await a second confirmation. A dry run carries them out as far as their obstacles.
    async fn preview(&self, input: &DecisionInput<'_>) -> Result<(), CallError> {
        let Some((awaited, decision)) = decide_if_confirmed(input, grace_age(input.known)) else {
            return Ok(());
        };
        let Some(plan) = self.recorder.plan() else {
            self.recorder.decided_later(&awaited, &decision);
            return Ok(());
        };
        let first = plan.len();
        self.execute(&decision, input.known).await?;
        plan.set_precondition_from(first, &awaited);
        Ok(())
    }

    fn requeue_after_error(&self, error: &CallError) -> Requeue {
        match error {
            CallError::Failed(error) => self.recorder.call_failed(error),
            CallError::CircuitOpen(_) => self.recorder.unreachable(),
        }
        error.requeue()
    }

    /// Records the verdict, and says when to reconcile again.
    async fn requeue(
        &self,
        snapshot: &TaskSnapshot,
        evaluation: Option<&Evaluation>,
        decision: &Decision,
        next: Requeue,
    ) -> Requeue {
        let Some(evaluation) = evaluation else {
            // No registrations left: clear the task's warnings.
            if self.worker.registry.entries(self.task).is_empty() {
                self.worker.clear_warnings(self.task);
            }
            return next;
        };
        if !evaluation.warnings.is_empty() {
            self.recorder.warnings(&evaluation.warnings);
        }
        match &evaluation.verdict {
            Verdict::Register(_) | Verdict::Admit => {
                if evaluation.warnings.is_empty() && next == Requeue::Forget {
                    self.worker.clear_warnings(self.task);
                }
                next
            }
            Verdict::Reject { violations, .. } => {
                self.recorder.rejected(violations);
                if decision.recheck_role { earlier(next, ROLE_CONFIRM_INTERVAL) } else { next }
            }
            Verdict::Hold(HoldReason::AddressPending) => {
                let next = self.wait_for_address(snapshot).await;
                self.recorder.awaits_address();
                next
            }
            Verdict::Hold(reason @ HoldReason::Unknown(_)) => {
                self.recorder.held(reason);
                Requeue::Backoff
            }
            Verdict::Hold(reason) => {
                self.recorder.held(reason);
                next
            }
            Verdict::Ignore(reason) => {
                self.recorder.ignored(reason);
                next
            }
            Verdict::NeedsFact(_) => next,
        }
    }

    /// The next event has the address. A describe asks for it in case that event was lost.
    async fn wait_for_address(&self, snapshot: &TaskSnapshot) -> Requeue {
        let now = self.context.now();
        let created_at = snapshot.task.as_ref().and_then(|task| task.created_at);
        if created_at.is_none_or(|at| at.age_at(now) >= ADDRESS_TIMEOUT) {
            if let Err(error) = self.context.aws.describer.describe(self.task, Duration::MAX).await {
                self.recorder.problem("describe_failed", &error);
                return Requeue::Backoff;
            }
            let found = self.context.aws.store.snapshot(self.task, Duration::MAX, now).task;
            let place = |task: &Task| (task.addresses, task.host.clone());
            // Without a difference the verdict would be the same.
            if found.as_ref().map(place) != snapshot.task.as_ref().map(place) {
                return Requeue::After(Duration::ZERO);
            }
        }
        Requeue::After(ADDRESS_TIMEOUT)
    }
}

/// A registered task for which nothing is due has a verdict, too.
fn record_unchanged(recorder: &dyn TaskRecorder, snapshot: &TaskSnapshot, known: &[KnownRegistration]) {
    if known.is_empty() {
        return;
    }
    if known.iter().any(|known| known.binding.is_none()) {
        recorder.no_change("no MeshBinding owns the registration any more; it is kept", Change::Hold);
    }
    if snapshot.liveness == TaskLiveness::Unknown {
        let reason = "the cluster could not be listed completely, so nothing is known of the task";
        recorder.no_change(reason, Change::Unknown);
    }
    recorder.no_change("nothing is due", Change::Unchanged);
}

/// The longest grace age of the bindings that own the registrations.
fn grace_age(known: &[KnownRegistration]) -> Duration {
    let ages = known.iter().filter_map(|known| Some(known.binding.as_ref()?.spec.cleanup.grace_age.0));
    ages.max().unwrap_or(DEFAULT_GRACE_AGE)
}

/// The longest `cleanup.settle` of the bindings that own the registrations.
fn settle_time(known: &[KnownRegistration]) -> Duration {
    let times = known.iter().filter_map(|known| Some(known.binding.as_ref()?.spec.cleanup.settle.0));
    times.max().unwrap_or_default()
}

/// Whether a failure is why the task comes back.
fn is_retry(next: Requeue) -> bool {
    matches!(next, Requeue::Backoff | Requeue::DeferUntil(_))
}

fn earlier(next: Requeue, wait: Duration) -> Requeue {
    match next {
        Requeue::After(earlier) => Requeue::After(earlier.min(wait)),
        Requeue::Forget => Requeue::After(wait),
        other => other,
    }
}
