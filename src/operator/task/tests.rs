//! The audit trail of a removal when its response is lost or its run ends early, and the handling of an event
//! that a run did not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet, spawn_local};
use tracing::subscriber::DefaultGuard;

use super::*;
use crate::operator::recorder::OwnerInfo;
use crate::operator::{Connected, Journal, Operator, OperatorDeps};
use crate::telemetry::log::testing::LogBuffer;
use crate::telemetry::log::{LogFormat, subscriber};
use crate::telemetry::state::StateSource as _;
use ecs_mesh_api::manifests::Binding;
use ecs_mesh_api::{ControlPlaneSpec, MeshBindingSpec};
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind};
use ecs_mesh_aws::fakes::{FakeEcs, clock, task, task_arn};
use ecs_mesh_clock::Clock;
use ecs_mesh_control_plane::{
    ContentHash, ControlPlane, ListSegment, MeshError, MeshErrorKind, PartialList, Registration,
    RegistrationOwner, RegistrationSummary, RenderedRegistration, SupportGate,
};
use ecs_mesh_controller::{Lease, LeaseTerm, WriteObstacle};
use ecs_mesh_core::intent::{
    DesiredRegistration, HoldReason, OwnershipLabels, RegistrationId, RoleRule, RoleViolation,
};
use ecs_mesh_core::plan::{Action, DrainReason, Evidence, PlanStep};
use ecs_mesh_model::{ClusterArn, LastStatus, MeshName, OperatorId, RoleArn, Task, TaskId, Timestamp};

/// A time that is longer ago than anything settles.
const LONG_AGO: Timestamp = Timestamp(0);

/// A journal that no subscriber reads.
fn journal() -> Arc<Journal> {
    Arc::new(Journal::new(clock()))
}

/// The result of a removal.
#[derive(Clone, Copy)]
enum RemovalBehavior {
    Done,
    /// The removal takes effect, and the response is lost.
    Lost,
    /// The request fails.
    Failed(MeshErrorKind),
    /// The removal takes effect, and the call never returns.
    Hangs,
    /// The removal takes effect, and the caller panics.
    Panics,
}

/// A control plane with login tokens.
struct FakeTokens {
    registered: Mutex<BTreeSet<RegistrationId>>,
    /// Results of the next removals; later ones are done.
    removal_behaviors: Mutex<Vec<RemovalBehavior>>,
    lookups: Mutex<usize>,
    /// Duration of a list.
    list_delay: Mutex<Duration>,
    /// Number of next lookups that cannot read services.
    partial_lookups: Mutex<usize>,
}

/// The list segment of services.
#[derive(Debug)]
struct ServiceSegment;

impl std::fmt::Display for ServiceSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the services")
    }
}

impl ListSegment for ServiceSegment {
    fn contains(&self, id: &RegistrationId) -> bool {
        id.name.starts_with("service/")
    }
}

fn lost() -> MeshError {
    failed(MeshErrorKind::Unreachable)
}

fn failed(kind: MeshErrorKind) -> MeshError {
    MeshError::new(kind, format!("DELETE token: {}", kind.label()))
}

fn marks() -> OwnershipLabels {
    OwnershipLabels::of(&OperatorId::parse("op").unwrap(), &task_arn(1))
}

impl FakeTokens {
    fn sighting(id: &RegistrationId) -> RegistrationSummary {
        let content_hash = ContentHash::of(&json!({}));
        let (id, owner) = (id.clone(), RegistrationOwner::Owned(marks()));
        RegistrationSummary {
            id,
            owner,
            cluster_name: None,
            service: Some("web".into()),
            drained: None,
            ready: None,
            has_writer_mark: false,
            content_hash,
        }
    }
}

#[async_trait]
impl ControlPlane for FakeTokens {
    async fn list_owned(
        &self,
        _: &BTreeSet<ClusterArn>,
        take: &mut (dyn FnMut(RegistrationSummary) + Send),
    ) -> Result<Vec<FailedSegment>, MeshError> {
        let list_delay = *self.list_delay.lock().unwrap();
        tokio::time::sleep(list_delay).await;
        self.registered.lock().unwrap().iter().map(Self::sighting).for_each(take);
        Ok(Vec::new())
    }

    async fn list_for_task(&self, _: &TaskArn) -> Result<PartialList, MeshError> {
        *self.lookups.lock().unwrap() += 1;
        let registered = self.registered.lock().unwrap();
        let mut left = self.partial_lookups.lock().unwrap();
        if *left == 0 {
            let seen = registered.iter().map(Self::sighting).collect();
            return Ok(PartialList { seen, failed: Vec::new() });
        }
        *left -= 1;
        let seen = registered.iter().filter(|id| !ServiceSegment.contains(id)).map(Self::sighting).collect();
        let error = failed(MeshErrorKind::Unreachable);
        Ok(PartialList { seen, failed: vec![FailedSegment { segment: Arc::new(ServiceSegment), error }] })
    }

    async fn get(&self, id: &RegistrationId) -> Result<Option<Registration>, MeshError> {
        let registered = self.registered.lock().unwrap().contains(id);
        Ok(registered.then(|| Registration {
            id: id.clone(),
            cluster_name: None,
            owner: RegistrationOwner::Owned(marks()),
            service: Some("web".into()),
            created_at: None,
            drained: None,
            ready: None,
            has_writer_mark: false,
            normal: json!({}),
            stored: json!({}),
        }))
    }

    async fn put(&self, _: &RegistrationId, _: &Value) -> Result<(), MeshError> {
        panic!("tasks register themselves")
    }

    async fn delete(&self, id: &RegistrationId) -> Result<bool, MeshError> {
        let end = self.removal_behaviors.lock().unwrap().pop().unwrap_or(RemovalBehavior::Done);
        if let RemovalBehavior::Failed(kind) = end {
            return Err(failed(kind));
        }
        let was_there = self.registered.lock().unwrap().remove(id);
        match end {
            RemovalBehavior::Lost => Err(lost()),
            RemovalBehavior::Hangs => std::future::pending().await,
            RemovalBehavior::Panics => panic!("a defect"),
            RemovalBehavior::Done | RemovalBehavior::Failed(_) => Ok(was_there),
        }
    }

    async fn list_services(&self, _: &MeshName) -> Result<BTreeSet<String>, MeshError> {
        Ok(BTreeSet::new())
    }

    fn support(&self) -> Arc<SupportGate> {
        Arc::default()
    }

    async fn refresh_capabilities(&self, _: &BTreeSet<MeshName>) -> Result<(), MeshError> {
        Ok(())
    }

    fn render(&self, _: &DesiredRegistration, _: Option<&Registration>) -> RenderedRegistration {
        panic!("tasks register themselves")
    }

    fn render_drained(&self, _: &Registration, _: DrainReason) -> RenderedRegistration {
        panic!("tasks register themselves")
    }
}

/// An operator and a worker with one task, which has a login token.
struct TaskRunFixture {
    operator: Arc<Operator>,
    worker: ControlPlaneWorker,
    tokens: Arc<FakeTokens>,
    ecs: Arc<FakeEcs>,
    clock: Clock,
    lines: LogBuffer,
    audit: Arc<AuditBacklog>,
    _logging: DefaultGuard,
}

/// The lease of a process whose audit lines wait, or do not.
#[derive(Default)]
struct AuditBacklog(AtomicBool);

impl Lease for AuditBacklog {
    fn term(&self) -> LeaseTerm {
        LeaseTerm::Unlimited
    }

    fn obstacle(&self) -> Option<WriteObstacle> {
        self.0.load(Ordering::Relaxed).then_some(WriteObstacle::AuditBacklog)
    }
}

fn token() -> RegistrationId {
    RegistrationId { mesh: MeshName::default(), name: "token/1".into() }
}

fn binding() -> Arc<Binding> {
    let spec = json!({
        "controlPlane": "consul", "selector": {"clusters": ["*"]}, "roleTags": {"mode": "off"},
    });
    Arc::new(Binding {
        name: "house".into(),
        spec: serde_json::from_value::<MeshBindingSpec>(spec).unwrap(),
        control_plane_type: ecs_mesh_api::ControlPlaneType::Consul,
        guard_released_until: None,
    })
}

impl TaskRunFixture {
    /// The results of the next removals, in this order.
    fn with_removal_behaviors(removal_behaviors: &[RemovalBehavior]) -> Self {
        let lines = LogBuffer::default();
        let writer = lines.clone();
        let logging = subscriber(LogFormat::Json, "debug", false, move || writer.clone()).unwrap();
        let logging = tracing::subscriber::set_default(logging);
        let spec = json!({"type": "consul", "consul": {"address": "http://127.0.0.1:1", "tokenEnv": "T"}});
        let spec: Arc<ControlPlaneSpec> = Arc::new(serde_json::from_value(spec).unwrap());
        let tokens = Arc::new(FakeTokens {
            registered: Mutex::new([token()].into()),
            removal_behaviors: Mutex::new(removal_behaviors.iter().rev().copied().collect()),
            lookups: Mutex::default(),
            list_delay: Mutex::default(),
            partial_lookups: Mutex::default(),
        });
        let (ecs, clock) = (Arc::new(FakeEcs::default()), clock());
        let audit = Arc::<AuditBacklog>::default();
        let operator = Operator::new(OperatorDeps {
            clock: clock.clone(),
            lease: Arc::clone(&audit) as _,
            ..OperatorDeps::for_tests(Arc::clone(&ecs) as _)
        });
        let bindings: BTreeMap<_, _> = [("house".into(), binding())].into();
        operator.context.manifests.record(
            Arc::new(ManifestSet { bindings, complete: true, ..ManifestSet::default() }),
            true,
            LONG_AGO,
        );
        let worker = ControlPlaneWorker::new(
            "consul".into(),
            spec,
            Connected::new(Arc::clone(&tokens) as _),
            journal(),
            1,
        );
        worker.registry.record_seen(&task_arn(1), &FakeTokens::sighting(&token()), clock.now());
        worker.record_list_result(&[]);
        let fixture = Self { operator, worker, tokens, ecs, clock, lines, audit, _logging: logging };
        fixture.is(LastStatus::Stopped);
        fixture
    }

    /// Sets the task in ECS's responses.
    fn is(&self, last_status: LastStatus) {
        let described = task(1, last_status);
        self.ecs.tasks.lock().unwrap().insert(TaskId::parse("1").unwrap(), described.clone());
        self.operator.context.aws.store.observe(described, self.clock.now());
    }

    /// Dependencies of another operator with the same ECS and clock.
    fn operator_deps(&self) -> OperatorDeps {
        OperatorDeps { clock: self.clock.clone(), ..OperatorDeps::for_tests(Arc::clone(&self.ecs) as _) }
    }

    async fn run(&self) -> Requeue {
        TaskRun::new(&self.operator.context, &self.worker, &task_arn(1)).reconcile().await
    }

    /// The same, a while later: the circuit lets calls through again.
    async fn run_later(&self) -> Requeue {
        tokio::time::advance(Duration::from_mins(5)).await;
        self.run().await
    }

    /// Change and result of each line of the audit trail, each of which has all fields.
    fn audited(&self) -> Vec<(String, String)> {
        let text = String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines = lines.filter(|line| line["target"] == "audit");
        let described = |line: Value| {
            let task = task_arn(1).to_string();
            for (field, expected) in [
                ("operator", "op"),
                ("version", env!("CARGO_PKG_VERSION")),
                ("control_plane", "consul"),
                ("binding", "house"),
                ("name", "token/1"),
                ("task", &task),
                ("service", "web"),
            ] {
                assert_eq!(line[field], expected, "{line}");
            }
            assert!(line["reason"].as_str().is_some_and(|why| !why.is_empty()), "{line}");
            (line["change"].as_str().unwrap().to_owned(), line["result"].as_str().unwrap().to_owned())
        };
        lines.map(described).collect()
    }

    /// The warnings that match.
    fn warnings(&self, are: impl Fn(&Value) -> bool) -> Vec<Value> {
        let text = String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["level"] == "WARN" && are(line)).collect()
    }

    /// The time of the pending event of the task.
    fn unanswered(&self) -> Option<tokio::time::Instant> {
        let since = self.worker.take_pending_event(&task_arn(1))?;
        self.worker.record_event(&task_arn(1), since);
        Some(since)
    }

    fn removals(&self) -> u64 {
        self.operator.context.metrics().changes.change_count("remove")
    }
}

fn line(change: &str, result: &str) -> (String, String) {
    (change.to_owned(), result.to_owned())
}

#[tokio::test(start_paused = true)]
async fn removal_is_audited_with_its_result() {
    let fixture = TaskRunFixture::with_removal_behaviors(&[RemovalBehavior::Done]);
    assert_eq!(fixture.run().await, Requeue::Forget);
    let text = String::from_utf8(fixture.lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains(r#""mesh""#), "Consul has none: {text}");
    assert_eq!((fixture.audited(), fixture.removals()), (vec![line("remove", "success")], 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_while_the_audit_log_is_blocked() {
    let fixture = TaskRunFixture::with_removal_behaviors(&[RemovalBehavior::Done]);
    fixture.audit.0.store(true, Ordering::Relaxed);
    assert!(matches!(fixture.run().await, Requeue::After(_)));
    assert!(fixture.tokens.registered.lock().unwrap().contains(&token()));
    assert_eq!(fixture.audited(), []);
    assert_eq!(fixture.operator.context.metrics().warning_count("audit_backlog"), 1);
    let state = fixture.operator.status.state();
    assert!(!state.is_ready() && state.leader, "{:?}", state.pending);
    assert!(state.pending[0].contains("audit lines"), "{:?}", state.pending);
    fixture.audit.0.store(false, Ordering::Relaxed);
    assert_eq!(fixture.run().await, Requeue::Forget);
    assert_eq!(fixture.audited(), [line("remove", "success")]);
    assert!(fixture.worker.tasks_with_warnings().is_empty());
}

/// A first attempt whose response is lost.
async fn with_lost_response() -> TaskRunFixture {
    let fixture = TaskRunFixture::with_removal_behaviors(&[RemovalBehavior::Lost]);
    assert_eq!(fixture.run().await, Requeue::Backoff);
    assert_eq!(fixture.audited(), [line("remove", "error")]);
    assert_eq!(fixture.removals(), 0, "not confirmed yet");
    fixture
}

fn assert_warned_once(fixture: &TaskRunFixture) {
    let logged = line("remove", "success_response_lost");
    let audited = fixture.audited();
    assert_eq!(audited.iter().filter(|line| **line == logged).count(), 1, "{audited:?}");
    assert_eq!(fixture.removals(), 1);
    let metrics = fixture.operator.context.metrics().render();
    assert!(metrics.contains("ecs_mesh_removals_total{evidence=\"stopped\"} 1"), "{metrics}");
    assert!(!fixture.worker.registry.contains(&task_arn(1)));
}

#[tokio::test(start_paused = true)]
async fn lost_removal_response_is_audited_on_retry() {
    let fixture = with_lost_response().await;
    assert_eq!(fixture.run_later().await, Requeue::Forget);
    assert_warned_once(&fixture);
    fixture.run_later().await;
    assert_warned_once(&fixture);
}

#[tokio::test(start_paused = true)]
async fn list_without_registration_keeps_unacknowledged_removal() {
    let fixture = with_lost_response().await;
    let later = fixture.clock.now().plus(Duration::from_mins(1));
    fixture.worker.registry.finish_list(&[], later);
    fixture.worker.registry.replace_task(&task_arn(1), &[], &[], later, later);
    fixture.run_later().await;
    assert_warned_once(&fixture);
}

#[tokio::test(start_paused = true)]
async fn cancelled_run_leaves_removal_to_the_next_run() {
    let fixture = TaskRunFixture::with_removal_behaviors(&[RemovalBehavior::Hangs]);
    let cut_off = tokio::time::timeout(Duration::from_mins(2), fixture.run()).await;
    assert!(cut_off.is_err());
    fixture.run().await;
    assert_warned_once(&fixture);
}

#[tokio::test(start_paused = true)]
async fn cancelled_removal_is_still_verified() {
    for took_effect in [true, false] {
        let fixture = TaskRunFixture::with_removal_behaviors(&[]);
        let action = Action::Remove(Evidence::Stopped);
        fixture
            .worker
            .registry
            .begin_removal(&task_arn(1), &PlanStep { id: token(), binding: binding(), action });
        if took_effect {
            fixture.tokens.registered.lock().unwrap().clear();
        }
        // By complete manifests without bindings, the task is not bound.
        fixture.operator.context.manifests.record(
            Arc::new(ManifestSet { complete: true, ..ManifestSet::default() }),
            true,
            LONG_AGO,
        );
        fixture.run().await;
        if took_effect {
            assert_warned_once(&fixture);
        } else {
            assert_eq!((fixture.audited(), fixture.removals()), (Vec::new(), 0));
            assert!(fixture.worker.registry.contains(&task_arn(1)), "it is there");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn foreign_removal_is_not_audited() {
    let fixture =
        TaskRunFixture::with_removal_behaviors(&[RemovalBehavior::Failed(MeshErrorKind::Forbidden)]);
    fixture.run().await;
    fixture.tokens.registered.lock().unwrap().clear();
    fixture.run_later().await;
    let refused = line("remove", "error");
    assert_eq!((fixture.audited(), fixture.removals()), (vec![refused], 0));
}

#[tokio::test(start_paused = true)]
async fn warnings_of_many_tasks_are_grouped() {
    let fixture = TaskRunFixture::with_removal_behaviors(&[]);
    let role = |n: usize| RoleArn::parse(&format!("arn:aws:iam::111122223333:role/s{n}-task")).unwrap();
    let denied = |n: usize| AwsError {
        kind: AwsErrorKind::Denied,
        operation: "iam:GetRole",
        resource: role(n).to_string(),
        code: "AccessDenied".to_owned(),
        message: format!("not authorized on resource: role s{n}-task"),
        hint: "",
    };
    let step = |n: usize| PlanStep {
        id: RegistrationId { name: format!("token/{n}").into(), ..token() },
        binding: binding(),
        action: Action::Remove(Evidence::Stopped),
    };
    for n in 1..=100 {
        let arn = task_arn(n);
        let _at_work = fixture.worker.begin_run();
        let run = TaskRun::new(&fixture.operator.context, &fixture.worker, &arn);
        let recorder = &run.recorder;
        let (found, needed) = (None, format!("s{n}"));
        recorder.rejected(&[RoleViolation {
            rule: RoleRule::ConsulService,
            role: Some(role(n)),
            found,
            needed,
        }]);
        recorder.held(&HoldReason::Unknown(Reason::from(denied(n)).with_prefix("the role's tags")));
        let message = format!("DELETE /v1/acl/token/{n}: Permission denied");
        let error = MeshError::new(MeshErrorKind::Forbidden, message);
        recorder.removal_failed(&step(n), &OwnerInfo { service: None, role: None }, &error);
    }
    for reason in ["rejected", "unknown", "removal_failed"] {
        let logged = fixture.warnings(|line| line["reason"] == reason && !line["tasks"].is_null());
        // Of 2, 4, 8, and so on.
        assert_eq!(logged.len(), 6, "{reason}: {logged:?}");
    }
    let firsts = fixture.warnings(|line| line["tasks"].is_null() && !line["task"].is_null());
    assert_eq!(firsts.len(), 3, "each cause once: {firsts:?}");
}

#[tokio::test(start_paused = true)]
async fn removal_failure_is_logged_once_per_error_kind() {
    let (forbidden, invalid) = (MeshErrorKind::Forbidden, MeshErrorKind::Invalid);
    let removal_behaviors = [forbidden, forbidden, invalid, invalid].map(RemovalBehavior::Failed);
    let fixture = TaskRunFixture::with_removal_behaviors(&removal_behaviors);
    for _ in 0..4 {
        fixture.run_later().await;
        // A sweep sees the registration between the attempts.
        fixture.worker.registry.record_seen(
            &task_arn(1),
            &FakeTokens::sighting(&token()),
            fixture.clock.now(),
        );
    }
    fixture.run_later().await;
    let expected = [line("remove", "error"), line("remove", "error"), line("remove", "success")];
    assert_eq!(fixture.audited(), expected);
}

#[tokio::test(start_paused = true)]
async fn cancelled_run_audits_every_removal() {
    for steps in 0..10 {
        let fixture = TaskRunFixture::with_removal_behaviors(&[]);
        // The role is not read yet.
        let run = tokio::time::timeout(Duration::from_millis(300) * steps, fixture.run());
        let ended = run.await.is_ok();
        let is_gone = fixture.tokens.registered.lock().unwrap().is_empty();
        assert_eq!(fixture.audited().len(), usize::from(is_gone), "cut off after {steps}");
        assert_eq!(is_gone, ended, "cut off after {steps}");
    }
}

#[tokio::test(start_paused = true)]
async fn event_before_first_list_stays_pending() {
    let fixture = TaskRunFixture::with_removal_behaviors(&[]);
    let (unsynced, task) = (
        ControlPlaneWorker::new(
            "consul".into(),
            Arc::clone(&fixture.worker.spec),
            Connected::new(Arc::clone(&fixture.tokens) as _),
            journal(),
            1,
        ),
        task_arn(1),
    );
    unsynced.record_event(&task, tokio::time::Instant::now());
    unsynced.record_stop(&task);
    TaskRun::new(&fixture.operator.context, &unsynced, &task).reconcile().await;
    assert_eq!(*fixture.tokens.lookups.lock().unwrap(), 0);
    unsynced.record_list_result(&[]);
    // The token was created after the list: only a lookup by task finds it.
    TaskRun::new(&fixture.operator.context, &unsynced, &task).reconcile().await;
    assert_eq!(*fixture.tokens.lookups.lock().unwrap(), 1);
    assert!(fixture.tokens.registered.lock().unwrap().is_empty());
    assert_eq!(unsynced.take_pending_event(&task), None);
}

#[tokio::test(start_paused = true)]
async fn cancelled_run_keeps_the_event_pending() {
    let fixture = TaskRunFixture::with_removal_behaviors(&[RemovalBehavior::Hangs]);
    let since = tokio::time::Instant::now();
    fixture.worker.record_event(&task_arn(1), since);
    let cut_off = tokio::time::timeout(Duration::from_mins(2), fixture.run()).await;
    assert!(cut_off.is_err());
    assert_eq!(fixture.worker.take_pending_event(&task_arn(1)), Some(since));
}

#[tokio::test(start_paused = true)]
async fn sweep_waits_for_slow_list_but_not_for_hung_one() {
    let fixture = TaskRunFixture::with_removal_behaviors(&[]);
    fixture.is(LastStatus::Running);
    let worker = ControlPlaneWorker::new(
        "consul".into(),
        Arc::clone(&fixture.worker.spec),
        Connected::new(Arc::clone(&fixture.tokens) as _),
        journal(),
        1,
    );
    let planes = [(Arc::clone(&worker.name), Arc::new(worker))].into();
    fixture.operator.context.workers.store(planes);
    let (mut lists, pulse) = (JoinSet::new(), fixture.operator.context.metrics().health().register("sweep"));
    let list_delay = |seconds| *fixture.tokens.list_delay.lock().unwrap() = Duration::from_secs(seconds);
    list_delay(8);
    let mut sweep = async || {
        let began = tokio::time::Instant::now();
        let whole = Arc::clone(&fixture.operator.sweeper).sweep(&mut lists, &pulse).await;
        (whole, began.elapsed().as_secs())
    };
    assert_eq!(sweep().await, (false, 2), "the delay is not known yet");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(sweep().await, (true, 8));
    list_delay(3_600);
    assert_eq!(sweep().await, (false, 16));
}

#[tokio::test(start_paused = true)]
async fn panicked_run_keeps_the_event_pending() {
    let fixture = Rc::new(TaskRunFixture::with_removal_behaviors(&[RemovalBehavior::Panics]));
    let since = tokio::time::Instant::now();
    fixture.worker.record_event(&task_arn(1), since);
    let run = Rc::clone(&fixture);
    let ended =
        LocalSet::new().run_until(async move { spawn_local(async move { run.run().await }).await }).await;
    assert!(ended.unwrap_err().is_panic());
    assert_eq!(fixture.worker.take_pending_event(&task_arn(1)), Some(since));
}

#[tokio::test(start_paused = true)]
async fn partial_lookup_is_applied_and_repeated() {
    let fixture = TaskRunFixture::with_removal_behaviors(&[]);
    let service = RegistrationId { name: "service/web".into(), ..token() };
    fixture.tokens.registered.lock().unwrap().insert(service.clone());
    *fixture.tokens.partial_lookups.lock().unwrap() = 2;
    let since = tokio::time::Instant::now();
    fixture.worker.record_event(&task_arn(1), since);
    fixture.worker.record_stop(&task_arn(1));
    for lookups in 1..=2 {
        assert_eq!(fixture.run_later().await, Requeue::Backoff, "it is not all that the task has made");
        assert_eq!(*fixture.tokens.lookups.lock().unwrap(), lookups);
        assert_eq!(*fixture.tokens.registered.lock().unwrap(), [service.clone()].into());
        assert_eq!(fixture.unanswered(), Some(since));
    }
    assert_eq!(fixture.run_later().await, Requeue::Forget);
    assert!(fixture.tokens.registered.lock().unwrap().is_empty());
    assert_eq!(fixture.unanswered(), None);
    fixture.run_later().await;
    assert_eq!(*fixture.tokens.lookups.lock().unwrap(), 3, "no new login was searched");
}

#[tokio::test(start_paused = true)]
async fn run_searches_when_describe_shows_a_concurrent_stop() {
    let fixture = TaskRunFixture::with_removal_behaviors(&[]);
    let (operator, arn) = (Operator::new(fixture.operator_deps()), task_arn(1));
    operator.context.manifests.record(fixture.operator.manifests(), true, LONG_AGO);
    let running = Task { version: 1, ..task(1, LastStatus::Running) };
    operator.context.aws.store.observe(running, fixture.clock.now());
    let worker = ControlPlaneWorker::new(
        "consul".into(),
        Arc::clone(&fixture.worker.spec),
        Connected::new(Arc::clone(&fixture.tokens) as _),
        journal(),
        1,
    );
    // The token was created after the last list.
    worker.record_list_result(&[]);
    let worker = Arc::new(worker);
    operator.context.workers.store([(Arc::clone(&worker.name), Arc::clone(&worker))].into());
    let run = TaskRun::new(&operator.context, &worker, &arn);
    let describe = async {
        // The run waits for the task definition meanwhile.
        tokio::time::sleep(Duration::from_millis(1)).await;
        operator.context.aws.describer.describe(&arn, Duration::MAX).await.unwrap();
        assert!(worker.is_unsearched(&arn));
    };
    let (next, ()) = tokio::join!(run.reconcile(), describe);
    let again = TaskRun::new(&operator.context, &worker, &arn).reconcile().await;
    assert_eq!((next, again), (Requeue::Forget, Requeue::Forget));
    assert!(fixture.tokens.registered.lock().unwrap().is_empty());
    assert!(!worker.is_unsearched(&arn));
    assert!(worker.queue.take().is_some_and(|taken| taken.key == arn), "the describe queued it");
}

#[tokio::test(start_paused = true)]
async fn absence_is_described_again_before_the_removal() {
    let fixture = TaskRunFixture::with_removal_behaviors(&[]);
    let (operator, arn) = (Operator::new(fixture.operator_deps()), task_arn(1));
    operator.context.manifests.record(fixture.operator.manifests(), true, LONG_AGO);
    operator.context.clusters.record_full_sweep(arn.cluster(), fixture.clock.now());
    let began = fixture.clock.now();
    operator.context.aws.store.record_absence(&arn, began, began);
    tokio::time::advance(Duration::from_mins(10)).await;
    operator.context.aws.store.record_absence(&arn, fixture.clock.now(), fixture.clock.now());
    fixture.ecs.tasks.lock().unwrap().clear();
    operator.context.aws.describer.describe(&arn, Duration::from_mins(5)).await.unwrap();
    // The removal is delayed, for example by an open circuit, until ECS shows the task again.
    tokio::time::advance(Duration::from_secs(5)).await;
    fixture.ecs.tasks.lock().unwrap().insert(TaskId::parse("1").unwrap(), task(1, LastStatus::Running));
    let _ = TaskRun::new(&operator.context, &fixture.worker, &arn).reconcile().await;
    assert_eq!(*fixture.tokens.registered.lock().unwrap(), [token()].into(), "the task lives");
}

#[tokio::test(start_paused = true)]
async fn page_counts_when_a_later_page_fails() {
    let fixture = TaskRunFixture::with_removal_behaviors(&[]);
    let operator = Operator::new(fixture.operator_deps());
    let cluster = task_arn(1).cluster().clone();
    let began = fixture.clock.now();
    operator.context.aws.store.record_absence(&task_arn(1), began, began);
    fixture.ecs.tasks.lock().unwrap().insert(TaskId::parse("1").unwrap(), task(1, LastStatus::Running));
    *fixture.ecs.list_ends_after.lock().unwrap() = Some(1);
    let pulse = operator.context.metrics().health().register("sweep");
    let (known, registered) = (BTreeSet::new(), BTreeSet::new());
    let (_, is_whole) = operator.sweeper.sweep_cluster(&cluster, &known, &registered, &pulse).await;
    assert!(!is_whole);
    let life =
        operator.context.aws.store.snapshot(&task_arn(1), Duration::ZERO, fixture.clock.now()).liveness;
    assert_eq!(life, TaskLiveness::Live, "the page shows the task, and is described");
}

#[tokio::test(start_paused = true)]
async fn clusters_of_known_registrations_are_listed() {
    let fixture = TaskRunFixture::with_removal_behaviors(&[]);
    let unbound = ManifestSet { complete: true, ..ManifestSet::default() };
    let cluster = task_arn(1).cluster().clone();
    assert_eq!(fixture.operator.sweeper.clusters_to_list(&unbound, &fixture.worker), [cluster].into());
    fixture.worker.registry.forget(&task_arn(1), &token());
    assert!(fixture.operator.sweeper.clusters_to_list(&unbound, &fixture.worker).is_empty());
}

#[tokio::test(start_paused = true)]
async fn forbidden_removal_does_not_block_others() {
    for kind in [MeshErrorKind::Forbidden, MeshErrorKind::ServerError] {
        blocks_nothing_else(kind).await;
    }
}

async fn blocks_nothing_else(kind: MeshErrorKind) {
    let fixture = TaskRunFixture::with_removal_behaviors(&[RemovalBehavior::Failed(kind)]);
    let other = RegistrationId { name: "token/2".into(), ..token() };
    fixture.tokens.registered.lock().unwrap().insert(other.clone());
    fixture.worker.registry.record_seen(&task_arn(1), &FakeTokens::sighting(&other), fixture.clock.now());
    let next = fixture.run().await;
    let is_tried_again = match kind {
        MeshErrorKind::ServerError => next == Requeue::Backoff,
        _ => matches!(next, Requeue::DeferUntil(_)),
    };
    assert!(is_tried_again, "{next:?}");
    assert_eq!(*fixture.tokens.registered.lock().unwrap(), [token()].into());
    assert_eq!(fixture.removals(), 1);
}

#[tokio::test(start_paused = true)]
async fn transient_error_decides_the_requeue() {
    let fixture = TaskRunFixture::with_removal_behaviors(
        &[MeshErrorKind::Invalid, MeshErrorKind::ServerError].map(RemovalBehavior::Failed),
    );
    let other = RegistrationId { name: "token/2".into(), ..token() };
    fixture.tokens.registered.lock().unwrap().insert(other.clone());
    fixture.worker.registry.record_seen(&task_arn(1), &FakeTokens::sighting(&other), fixture.clock.now());
    assert_eq!(fixture.run().await, Requeue::Backoff);
}
