//! What a removal leaves in the audit trail, whatever becomes of its answer or of its run, and what becomes of an event
//! that a run did not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet, spawn_local};
use tracing::subscriber::DefaultGuard;

use super::*;
use crate::reconcile::report::Whose;
use crate::reconcile::{Connected, Parts};
use crate::telemetry::log::testing::Lines;
use crate::telemetry::log::{LogFormat, subscriber};
use ecs_mesh_api::manifests::Binding;
use ecs_mesh_api::{ControlPlaneSpec, MeshBindingSpec};
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind};
use ecs_mesh_aws::fakes::{FakeEcs, clock, task, task_arn};
use ecs_mesh_aws::store::Source;
use ecs_mesh_clock::Clock;
use ecs_mesh_control_plane::{
    ControlPlane, Fingerprint, Listed, MeshError, MeshErrorKind, Owner, Part, Registration, Rendered,
    Sighting,
};
use ecs_mesh_core::intent::{Desired, HoldReason, Marks, RegistrationId, Rule, Violation};
use ecs_mesh_core::plan::{Action, DrainReason, Evidence, Step};
use ecs_mesh_model::{ClusterArn, LastStatus, MeshName, OperatorId, RoleArn, Task, TaskId, Timestamp};

/// How a removal ends.
#[derive(Clone, Copy)]
enum Removal {
    Done,
    /// It takes effect, and the answer does not come.
    Lost,
    /// It does not even arrive.
    Failed(MeshErrorKind),
    /// It takes effect, and the answer takes for ever.
    Hangs,
    /// It takes effect, and whoever sent it fails.
    Panics,
}

/// A control plane with tokens that tasks have made.
struct Tokens {
    there: Mutex<BTreeSet<RegistrationId>>,
    /// How the next removals end; after these, all are done.
    ends: Mutex<Vec<Removal>>,
    sought: Mutex<usize>,
    /// How long a list takes.
    takes: Mutex<Duration>,
    /// In so many of the next looks for a task's the services cannot be looked at.
    half_found: Mutex<usize>,
}

/// What a task's services are in.
#[derive(Debug)]
struct Services;

impl std::fmt::Display for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the services")
    }
}

impl Part for Services {
    fn holds(&self, id: &RegistrationId) -> bool {
        id.name.starts_with("service/")
    }
}

fn lost() -> MeshError {
    failed(MeshErrorKind::Unreachable)
}

fn failed(kind: MeshErrorKind) -> MeshError {
    MeshError { kind, message: format!("DELETE token: {}", kind.label()), retry_after: None }
}

fn marks() -> Marks {
    Marks::of(&OperatorId::parse("op").unwrap(), &task_arn(1))
}

impl Tokens {
    fn sighting(id: &RegistrationId) -> Sighting {
        let fingerprint = Fingerprint::of(&json!({}));
        let (id, owner) = (id.clone(), Owner::Marked(marks()));
        Sighting { id, owner, service: Some("web".into()), drained: None, fingerprint }
    }
}

#[async_trait]
impl ControlPlane for Tokens {
    async fn owned(
        &self,
        _: &BTreeSet<ClusterArn>,
        take: &mut (dyn FnMut(Sighting) + Send),
    ) -> Result<Vec<FailedPart>, MeshError> {
        let takes = *self.takes.lock().unwrap();
        tokio::time::sleep(takes).await;
        self.there.lock().unwrap().iter().map(Self::sighting).for_each(take);
        Ok(Vec::new())
    }

    async fn find(&self, _: &TaskArn) -> Result<Listed, MeshError> {
        *self.sought.lock().unwrap() += 1;
        let there = self.there.lock().unwrap();
        let mut left = self.half_found.lock().unwrap();
        if *left == 0 {
            let seen = there.iter().map(Self::sighting).collect();
            return Ok(Listed { seen, failed: Vec::new() });
        }
        *left -= 1;
        let seen = there.iter().filter(|id| !Services.holds(id)).map(Self::sighting).collect();
        let error = failed(MeshErrorKind::Unreachable);
        Ok(Listed { seen, failed: vec![FailedPart { part: Arc::new(Services), error }] })
    }

    async fn read(&self, id: &RegistrationId) -> Result<Option<Registration>, MeshError> {
        let there = self.there.lock().unwrap().contains(id);
        Ok(there.then(|| Registration {
            id: id.clone(),
            owner: Owner::Marked(marks()),
            service: Some("web".into()),
            created_at: None,
            drained: None,
            normal: json!({}),
            stored: json!({}),
        }))
    }

    async fn put(&self, _: &RegistrationId, _: &Value) -> Result<(), MeshError> {
        panic!("tasks register themselves")
    }

    async fn delete(&self, id: &RegistrationId) -> Result<bool, MeshError> {
        let end = self.ends.lock().unwrap().pop().unwrap_or(Removal::Done);
        if let Removal::Failed(kind) = end {
            return Err(failed(kind));
        }
        let was_there = self.there.lock().unwrap().remove(id);
        match end {
            Removal::Lost => Err(lost()),
            Removal::Hangs => std::future::pending().await,
            Removal::Panics => panic!("a defect"),
            Removal::Done | Removal::Failed(_) => Ok(was_there),
        }
    }

    async fn services(&self, _: &MeshName) -> Result<BTreeSet<String>, MeshError> {
        Ok(BTreeSet::new())
    }

    async fn refresh(&self, _: &BTreeSet<MeshName>) -> Result<(), MeshError> {
        Ok(())
    }

    fn render(&self, _: &Desired, _: Option<&Registration>) -> Rendered {
        panic!("tasks register themselves")
    }

    fn render_drained(&self, _: &Registration, _: DrainReason) -> Rendered {
        panic!("tasks register themselves")
    }
}

/// An operator and a plane with one task, which has made a token.
struct Desk {
    operator: Arc<Operator>,
    plane: Plane,
    tokens: Arc<Tokens>,
    ecs: Arc<FakeEcs>,
    clock: Clock,
    lines: Lines,
    _logging: DefaultGuard,
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

impl Desk {
    /// The ends of the removals that are sent, in this order.
    fn where_removals_end(ends: &[Removal]) -> Self {
        let lines = Lines::default();
        let writer = lines.clone();
        let logging = subscriber(LogFormat::Json, "debug", false, move || writer.clone()).unwrap();
        let logging = tracing::subscriber::set_default(logging);
        let spec = json!({"type": "consul", "consul": {"address": "http://127.0.0.1:1", "tokenEnv": "T"}});
        let spec: Arc<ControlPlaneSpec> = Arc::new(serde_json::from_value(spec).unwrap());
        let tokens = Arc::new(Tokens {
            there: Mutex::new([token()].into()),
            ends: Mutex::new(ends.iter().rev().copied().collect()),
            sought: Mutex::default(),
            takes: Mutex::default(),
            half_found: Mutex::default(),
        });
        let (ecs, clock) = (Arc::new(FakeEcs::default()), clock());
        let operator = Operator::new(Parts { clock: clock.clone(), ..Parts::around(Arc::clone(&ecs) as _) });
        let bindings: BTreeMap<_, _> = [("house".into(), binding())].into();
        operator.set.store(Arc::new(ManifestSet { bindings, complete: true, ..ManifestSet::default() }));
        let plane = Plane::new("consul".into(), spec, Connected::new(Arc::clone(&tokens) as _), 1);
        plane.registry.record(&task_arn(1), &Tokens::sighting(&token()), clock.now());
        plane.was_listed(&[]);
        let desk = Self { operator, plane, tokens, ecs, clock, lines, _logging: logging };
        desk.is(LastStatus::Stopped);
        desk
    }

    /// What ECS says of the task.
    fn is(&self, last_status: LastStatus) {
        let said = task(1, last_status);
        self.ecs.tasks.lock().unwrap().insert(TaskId::parse("1").unwrap(), said.clone());
        self.operator.store.observe(said, Source::Describe, self.clock.now());
    }

    /// What another operator over the same ECS, with the same clock, is made of.
    fn operator_deps(&self) -> Parts {
        Parts { clock: self.clock.clone(), ..Parts::around(Arc::clone(&self.ecs) as _) }
    }

    async fn run(&self) -> Next {
        Run::new(&self.operator, &self.plane, &task_arn(1)).reconcile().await
    }

    /// The same, a while later: the circuit lets calls through again.
    async fn run_later(&self) -> Next {
        tokio::time::advance(Duration::from_mins(5)).await;
        self.run().await
    }

    /// Change and result of each line of the audit trail. Each says who, what, whose and why.
    fn audited(&self) -> Vec<(String, String)> {
        let text = String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines = lines.filter(|line| line["target"] == "audit");
        let said = |line: Value| {
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
        lines.map(said).collect()
    }

    /// The warnings that are so.
    fn warnings(&self, are: impl Fn(&Value) -> bool) -> Vec<Value> {
        let text = String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["level"] == "WARN" && are(line)).collect()
    }

    /// Since when an event of the task is.
    fn unanswered(&self) -> Option<tokio::time::Instant> {
        let since = self.plane.answered(&task_arn(1))?;
        self.plane.heard_of(&task_arn(1), since);
        Some(since)
    }

    fn removals(&self) -> u64 {
        self.operator.metrics.written("remove")
    }
}

fn line(change: &str, result: &str) -> (String, String) {
    (change.to_owned(), result.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_removal_is_in_the_audit_trail_with_its_result() {
    let desk = Desk::where_removals_end(&[Removal::Done]);
    assert_eq!(desk.run().await, Next::Forget);
    let text = String::from_utf8(desk.lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains(r#""mesh""#), "Consul has none: {text}");
    assert_eq!((desk.audited(), desk.removals()), (vec![line("removed", "done")], 1));
}

/// A first attempt, whose answer was lost.
async fn with_a_lost_answer() -> Desk {
    let desk = Desk::where_removals_end(&[Removal::Lost]);
    assert_eq!(desk.run().await, Next::Backoff);
    assert_eq!(desk.audited(), [line("remove", "failed: DELETE token: unreachable")]);
    assert_eq!(desk.removals(), 0, "nobody knows yet");
    desk
}

fn assert_told_of_once(desk: &Desk) {
    let told = line("removed", "removed, the answer was lost");
    let audited = desk.audited();
    assert_eq!(audited.iter().filter(|line| **line == told).count(), 1, "{audited:?}");
    assert_eq!(desk.removals(), 1);
    let metrics = desk.operator.metrics.render();
    assert!(metrics.contains("ecs_mesh_removals_total{reason=\"stopped\"} 1"), "{metrics}");
    assert!(!desk.plane.registry.has(&task_arn(1)));
}

#[tokio::test(start_paused = true)]
async fn a_removal_whose_answer_was_lost_is_told_of_when_the_retry_finds_it_gone() {
    let desk = with_a_lost_answer().await;
    assert_eq!(desk.run_later().await, Next::Forget);
    assert_told_of_once(&desk);
    desk.run_later().await;
    assert_told_of_once(&desk);
}

#[tokio::test(start_paused = true)]
async fn a_list_without_it_does_not_take_the_word_away() {
    let desk = with_a_lost_answer().await;
    let later = desk.clock.now().plus(Duration::from_mins(1));
    desk.plane.registry.end_list(&[], later);
    desk.plane.registry.replace_of(&task_arn(1), &[], &[], later, later);
    desk.run_later().await;
    assert_told_of_once(&desk);
}

#[tokio::test(start_paused = true)]
async fn a_run_cut_off_while_it_waits_for_the_answer_leaves_the_word_to_the_next() {
    let desk = Desk::where_removals_end(&[Removal::Hangs]);
    let cut_off = tokio::time::timeout(Duration::from_mins(2), desk.run()).await;
    assert!(cut_off.is_err());
    desk.run().await;
    assert_told_of_once(&desk);
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_is_not_due_any_more_is_looked_after_all_the_same() {
    for took_effect in [true, false] {
        let desk = Desk::where_removals_end(&[]);
        let action = Action::Remove(Evidence::Stopped);
        desk.plane.registry.sends_removal(&task_arn(1), &Step { id: token(), binding: binding(), action });
        if took_effect {
            desk.tokens.there.lock().unwrap().clear();
        }
        // ECS is eventually consistent; whatever has brought it about, there is nothing to remove.
        desk.operator.set.store(Arc::new(ManifestSet { complete: true, ..ManifestSet::default() }));
        desk.run().await;
        if took_effect {
            assert_told_of_once(&desk);
        } else {
            assert_eq!((desk.audited(), desk.removals()), (Vec::new(), 0));
            assert!(desk.plane.registry.has(&task_arn(1)), "it is there");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_has_removed_is_not_said_to_be_ours() {
    let desk = Desk::where_removals_end(&[Removal::Failed(MeshErrorKind::Forbidden)]);
    desk.run().await;
    desk.tokens.there.lock().unwrap().clear();
    desk.run_later().await;
    let refused = line("remove", "failed: DELETE token: forbidden");
    assert_eq!((desk.audited(), desk.removals()), (vec![refused], 0));
}

#[tokio::test(start_paused = true)]
async fn what_befalls_many_tasks_for_one_cause_is_one_line_and_their_number() {
    let desk = Desk::where_removals_end(&[]);
    let role = |n: usize| RoleArn::parse(&format!("arn:aws:iam::111122223333:role/s{n}-task")).unwrap();
    let denied = |n: usize| AwsError {
        kind: AwsErrorKind::Denied,
        operation: "iam:GetRole",
        resource: role(n).to_string(),
        code: "AccessDenied".to_owned(),
        message: format!("not authorized on resource: role s{n}-task"),
        hint: "",
    };
    let step = |n: usize| Step {
        id: RegistrationId { name: format!("token/{n}").into(), ..token() },
        binding: binding(),
        action: Action::Remove(Evidence::Stopped),
    };
    for n in 1..=100 {
        let arn = task_arn(n);
        let _at_work = desk.plane.begin();
        let report = Report::new(Subject { operator: &desk.operator, plane: &desk.plane, task: &arn });
        let (found, needed) = (None, format!("s{n}"));
        report.rejected(&[Violation { rule: Rule::ConsulService, role: Some(role(n)), found, needed }]);
        report.held(&HoldReason::Unknown(Why::from(denied(n)).about("the role's tags")));
        let message = format!("DELETE /v1/acl/token/{n}: Permission denied");
        let error = MeshError { kind: MeshErrorKind::Forbidden, message, retry_after: None };
        report.not_removed(&step(n), &Whose { service: None, role: None }, &error);
    }
    for reason in ["rejected", "unknown", "not_removed"] {
        let told = desk.warnings(|line| line["reason"] == reason && !line["tasks"].is_null());
        // Of 2, 4, 8, and so on.
        assert_eq!(told.len(), 6, "{reason}: {told:?}");
    }
    let firsts = desk.warnings(|line| line["tasks"].is_null() && !line["task"].is_null());
    assert_eq!(firsts.len(), 3, "each cause once: {firsts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_fails_is_told_of_once_for_each_kind_of_failure() {
    let (forbidden, invalid) = (MeshErrorKind::Forbidden, MeshErrorKind::Invalid);
    let ends = [forbidden, forbidden, invalid, invalid].map(Removal::Failed);
    let desk = Desk::where_removals_end(&ends);
    for _ in 0..4 {
        desk.run_later().await;
        // A sweep sees it between the attempts.
        desk.plane.registry.record(&task_arn(1), &Tokens::sighting(&token()), desk.clock.now());
    }
    desk.run_later().await;
    let expected = [
        line("remove", "failed: DELETE token: forbidden"),
        line("remove", "failed: DELETE token: invalid"),
        line("removed", "done"),
    ];
    assert_eq!(desk.audited(), expected);
}

#[tokio::test(start_paused = true)]
async fn wherever_a_run_is_cut_off_what_it_has_removed_is_in_the_audit_trail() {
    for steps in 0..10 {
        let desk = Desk::where_removals_end(&[]);
        // The role has yet to be asked for, which takes a while.
        let run = tokio::time::timeout(Duration::from_millis(300) * steps, desk.run());
        let ended = run.await.is_ok();
        let is_gone = desk.tokens.there.lock().unwrap().is_empty();
        assert_eq!(desk.audited().len(), usize::from(is_gone), "cut off after {steps}");
        assert_eq!(is_gone, ended, "cut off after {steps}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_came_before_the_first_list_is_not_forgotten() {
    let desk = Desk::where_removals_end(&[]);
    let (unlisted, task) = (
        Plane::new(
            "consul".into(),
            Arc::clone(&desk.plane.spec),
            Connected::new(Arc::clone(&desk.tokens) as _),
            1,
        ),
        task_arn(1),
    );
    unlisted.heard_of(&task, tokio::time::Instant::now());
    unlisted.record_stop(&task);
    Run::new(&desk.operator, &unlisted, &task).reconcile().await;
    assert_eq!(*desk.tokens.sought.lock().unwrap(), 0);
    unlisted.was_listed(&[]);
    // The token was made after the list: only a look for this task's finds it.
    Run::new(&desk.operator, &unlisted, &task).reconcile().await;
    assert_eq!(*desk.tokens.sought.lock().unwrap(), 1);
    assert!(desk.tokens.there.lock().unwrap().is_empty());
    assert_eq!(unlisted.answered(&task), None);
}

#[tokio::test(start_paused = true)]
async fn an_event_is_unanswered_still_when_its_run_was_cut_off() {
    let desk = Desk::where_removals_end(&[Removal::Hangs]);
    let since = tokio::time::Instant::now();
    desk.plane.heard_of(&task_arn(1), since);
    let cut_off = tokio::time::timeout(Duration::from_mins(2), desk.run()).await;
    assert!(cut_off.is_err());
    assert_eq!(desk.plane.answered(&task_arn(1)), Some(since));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_always_takes_long_is_waited_for_and_one_that_hangs_is_not() {
    let desk = Desk::where_removals_end(&[]);
    desk.is(LastStatus::Running);
    let plane = Plane::new(
        "consul".into(),
        Arc::clone(&desk.plane.spec),
        Connected::new(Arc::clone(&desk.tokens) as _),
        1,
    );
    let planes = [(Arc::clone(&plane.name), Arc::new(plane))].into();
    desk.operator.planes.store(Arc::new(planes));
    let (mut lists, pulse) = (JoinSet::new(), desk.operator.metrics.health().pulse("sweep"));
    let takes = |seconds| *desk.tokens.takes.lock().unwrap() = Duration::from_secs(seconds);
    takes(8);
    let mut sweep = async || {
        let began = tokio::time::Instant::now();
        let whole = Arc::clone(&desk.operator).sweep(&mut lists, &pulse).await;
        (whole, began.elapsed().as_secs())
    };
    assert_eq!(sweep().await, (false, 2), "nobody knows yet how long it takes");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(sweep().await, (true, 8));
    takes(3_600);
    assert_eq!(sweep().await, (false, 16));
}

#[tokio::test(start_paused = true)]
async fn an_event_is_unanswered_still_when_its_run_panicked() {
    let desk = Rc::new(Desk::where_removals_end(&[Removal::Panics]));
    let since = tokio::time::Instant::now();
    desk.plane.heard_of(&task_arn(1), since);
    let run = Rc::clone(&desk);
    let ended =
        LocalSet::new().run_until(async move { spawn_local(async move { run.run().await }).await }).await;
    assert!(ended.unwrap_err().is_panic());
    assert_eq!(desk.plane.answered(&task_arn(1)), Some(since));
}

#[tokio::test(start_paused = true)]
async fn what_was_found_is_worked_on_and_the_rest_is_sought_again() {
    let desk = Desk::where_removals_end(&[]);
    let service = RegistrationId { name: "service/web".into(), ..token() };
    desk.tokens.there.lock().unwrap().insert(service.clone());
    *desk.tokens.half_found.lock().unwrap() = 2;
    let since = tokio::time::Instant::now();
    desk.plane.heard_of(&task_arn(1), since);
    desk.plane.record_stop(&task_arn(1));
    for sought in 1..=2 {
        assert_eq!(desk.run_later().await, Next::Backoff, "it is not all that the task has made");
        assert_eq!(*desk.tokens.sought.lock().unwrap(), sought);
        assert_eq!(*desk.tokens.there.lock().unwrap(), [service.clone()].into());
        assert_eq!(desk.unanswered(), Some(since));
    }
    assert_eq!(desk.run_later().await, Next::Forget);
    assert!(desk.tokens.there.lock().unwrap().is_empty());
    assert_eq!(desk.unanswered(), None);
    desk.run_later().await;
    assert_eq!(*desk.tokens.sought.lock().unwrap(), 3, "nobody has told of it again");
}

#[tokio::test(start_paused = true)]
async fn a_run_searches_when_a_describe_shows_a_stop_meanwhile() {
    let desk = Desk::where_removals_end(&[]);
    let (operator, arn) = (Operator::new(desk.operator_deps()), task_arn(1));
    operator.set.store(desk.operator.manifests());
    let running = Task { version: 1, ..task(1, LastStatus::Running) };
    operator.store.observe(running, Source::Describe, desk.clock.now());
    let plane = Plane::new(
        "consul".into(),
        Arc::clone(&desk.plane.spec),
        Connected::new(Arc::clone(&desk.tokens) as _),
        1,
    );
    // The token was made after the list that this process knows.
    plane.was_listed(&[]);
    let plane = Arc::new(plane);
    operator.planes.store(Arc::new([(Arc::clone(&plane.name), Arc::clone(&plane))].into()));
    let run = Run::new(&operator, &plane, &arn);
    let describe = async {
        // The run waits for the task definition meanwhile.
        tokio::time::sleep(Duration::from_millis(1)).await;
        operator.describer.describe(&arn, Duration::MAX).await.unwrap();
        assert!(plane.is_unsearched(&arn));
    };
    let (next, ()) = tokio::join!(run.reconcile(), describe);
    let again = Run::new(&operator, &plane, &arn).reconcile().await;
    assert_eq!((next, again), (Next::Forget, Next::Forget));
    assert!(desk.tokens.there.lock().unwrap().is_empty());
    assert!(!plane.is_unsearched(&arn));
    assert!(plane.queue.take().is_some_and(|taken| taken.key == arn), "the describe queued it");
}

#[tokio::test(start_paused = true)]
async fn an_absence_is_described_again_right_before_the_removal() {
    let desk = Desk::where_removals_end(&[]);
    let (operator, arn) = (Operator::new(desk.operator_deps()), task_arn(1));
    operator.set.store(desk.operator.manifests());
    operator.clusters().swept.insert(arn.cluster().clone(), desk.clock.now());
    let began = desk.clock.now();
    operator.store.missed_by_sweep(&arn, began, began);
    tokio::time::advance(Duration::from_mins(10)).await;
    operator.store.missed_by_sweep(&arn, desk.clock.now(), desk.clock.now());
    desk.ecs.tasks.lock().unwrap().clear();
    operator.describer.describe(&arn, Duration::from_mins(5)).await.unwrap();
    // An open circuit, say, keeps the removal for a while, in which ECS shows the task again.
    tokio::time::advance(Duration::from_secs(5)).await;
    desk.ecs.tasks.lock().unwrap().insert(TaskId::parse("1").unwrap(), task(1, LastStatus::Running));
    let _ = Run::new(&operator, &desk.plane, &arn).reconcile().await;
    assert_eq!(*desk.tokens.there.lock().unwrap(), [token()].into(), "the task lives");
}

#[tokio::test(start_paused = true)]
async fn a_page_that_was_read_counts_although_a_later_one_fails() {
    let desk = Desk::where_removals_end(&[]);
    let operator = Operator::new(desk.operator_deps());
    let cluster = task_arn(1).cluster().clone();
    let began = desk.clock.now();
    operator.store.missed_by_sweep(&task_arn(1), began, began);
    desk.ecs.tasks.lock().unwrap().insert(TaskId::parse("1").unwrap(), task(1, LastStatus::Running));
    *desk.ecs.list_ends_after.lock().unwrap() = Some(1);
    let pulse = operator.metrics.health().pulse("sweep");
    let (known, registered) = (BTreeSet::new(), BTreeSet::new());
    assert!(!operator.sweep_cluster(&cluster, &known, &registered, &pulse).await, "it is not whole");
    let life = operator.store.snapshot(&task_arn(1), Duration::ZERO, desk.clock.now()).life;
    assert_eq!(life, Life::Unknown, "the page shows the task alive, so the absence is over");
}

#[tokio::test(start_paused = true)]
async fn the_clusters_of_leftovers_are_listed_although_no_binding_selects_them() {
    let desk = Desk::where_removals_end(&[]);
    let unbound = ManifestSet { complete: true, ..ManifestSet::default() };
    let cluster = task_arn(1).cluster().clone();
    assert_eq!(desk.operator.clusters_to_list(&unbound, &desk.plane), [cluster].into());
    desk.plane.registry.forget(&task_arn(1), &token());
    assert!(desk.operator.clusters_to_list(&unbound, &desk.plane).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_removed_keeps_nothing_else() {
    for kind in [MeshErrorKind::Forbidden, MeshErrorKind::Failed] {
        keeps_nothing_else(kind).await;
    }
}

async fn keeps_nothing_else(kind: MeshErrorKind) {
    let desk = Desk::where_removals_end(&[Removal::Failed(kind)]);
    let other = RegistrationId { name: "token/2".into(), ..token() };
    desk.tokens.there.lock().unwrap().insert(other.clone());
    desk.plane.registry.record(&task_arn(1), &Tokens::sighting(&other), desk.clock.now());
    let next = desk.run().await;
    let is_tried_again = match kind {
        MeshErrorKind::Failed => next == Next::Backoff,
        _ => matches!(next, Next::HoldUntil(_)),
    };
    assert!(is_tried_again, "{next:?}");
    assert_eq!(*desk.tokens.there.lock().unwrap(), [token()].into());
    assert_eq!(desk.removals(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_may_be_over_later_decides_when_a_task_is_looked_at_again() {
    let desk =
        Desk::where_removals_end(&[MeshErrorKind::Invalid, MeshErrorKind::Failed].map(Removal::Failed));
    let other = RegistrationId { name: "token/2".into(), ..token() };
    desk.tokens.there.lock().unwrap().insert(other.clone());
    desk.plane.registry.record(&task_arn(1), &Tokens::sighting(&other), desk.clock.now());
    assert_eq!(desk.run().await, Next::Backoff);
}

#[tokio::test(start_paused = true)]
async fn old_event_of_a_task_that_ecs_lacks_is_followed_up_once() {
    let desk = Desk::where_removals_end(&[]);
    let mut by_tags = binding();
    Arc::make_mut(&mut by_tags).spec.selector.tags = [("team".into(), "a".into())].into();
    let bindings = [("house".into(), by_tags)].into();
    desk.operator.set.store(Arc::new(ManifestSet { bindings, complete: true, ..ManifestSet::default() }));
    let now = desk.clock.now();
    let described = || desk.ecs.described.lock().unwrap().len();
    let event = |number, updated_at| {
        let said = ecs_mesh_model::Task { updated_at: Some(updated_at), ..task(number, LastStatus::Running) };
        desk.operator.store.observe(said, Source::Event, desk.clock.now());
    };
    let run = async |number| Run::new(&desk.operator, &desk.plane, &task_arn(number)).reconcile().await;
    event(2, now);
    for _ in 0..2 {
        assert!(matches!(run(2).await, Next::Backoff), "a new task may not be known everywhere yet");
    }
    assert_eq!(described(), 2);
    event(3, Timestamp(now.0 - 3_600_000));
    run(3).await;
    assert!(matches!(run(3).await, Next::Forget));
    assert_eq!(described(), 3);
    // A list shows it after all.
    desk.operator.store.listed_alive(&task_arn(3), desk.clock.now());
    assert!(matches!(run(3).await, Next::Backoff));
    assert_eq!(described(), 4);
}
