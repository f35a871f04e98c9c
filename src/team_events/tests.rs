use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::delivery::{MAX_ATTEMPTS, MAX_BATCH, MAX_BATCH_BYTES};
use super::groups::{COUNT_INTERVAL, GROUP_ENDS_AFTER, HELD_BY_GUARD, MAX_EXAMPLES, MAX_GROUPS};
use super::*;
use crate::operator::{
    ChangeCause, ChangeResult, JournalChange, JournalEvent, JournalHold, JournalSubject, JournalWarning,
};
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind, RefusedEvent};
use ecs_mesh_aws::fakes::{clock, error, task_arn};
use ecs_mesh_controller::LeaseTerm;
use ecs_mesh_core::plan::Evidence;
use ecs_mesh_model::{EcsServiceRef, OperatorId, Timestamp};

// Entries

fn subject(n: usize, service: &str) -> JournalSubject {
    let task = task_arn(n);
    JournalSubject {
        control_plane: Some("kuma".into()),
        mesh: Some("default".into()),
        binding: Some("prod".into()),
        ecs_service: Some(EcsServiceRef::new(task.cluster(), service)),
        task: Some(task),
        service: Some("kv".into()),
        workload: Some("kv".into()),
        name: Some(format!("kv-{n}").into()),
        ..JournalSubject::default()
    }
}

fn warning(reason: &'static str, n: usize) -> JournalEvent {
    JournalEvent::Warning(JournalWarning {
        reason,
        key: "kuma.io/service missing".to_owned(),
        message: format!("role kv-{n}-task: tag kuma.io/service is missing"),
        rules: vec!["kuma.io/service"],
        fix: Some(format!("aws iam tag-role --role-name kv-{n}-task --tags Key=kuma.io/service,Value=kv")),
    })
}

fn change(change: &'static str, cause: ChangeCause, result: ChangeResult) -> JournalEvent {
    JournalEvent::Change(JournalChange {
        object: "registration",
        change,
        cause,
        message: "for a reason".to_owned(),
        fields: vec!["networking.address".to_owned()],
        result,
    })
}

fn written(what: &'static str, cause: ChangeCause) -> JournalEvent {
    change(what, cause, ChangeResult::Success)
}

fn held() -> JournalEvent {
    JournalEvent::HeldByGuard(JournalHold {
        change: "remove",
        cause: "role_tags",
        message: "held".to_owned(),
        admitted: 3,
        owned: 10,
        stable_in: None,
        fix: "set spec.cleanup.guard.releaseUntil".to_owned(),
    })
}

fn unsupported() -> JournalEvent {
    JournalEvent::Unsupported { message: "version 2.6 is not supported".to_owned() }
}

fn of_control_plane() -> JournalSubject {
    JournalSubject { control_plane: Some("kuma".into()), ..JournalSubject::default() }
}

// Groups

/// Groups with a clock of their own.
#[derive(Default)]
struct Grouping {
    groups: TeamEventGroups,
    now: Timestamp,
    sequence: u64,
}

impl Grouping {
    fn record(&mut self, subject: JournalSubject, event: JournalEvent) -> bool {
        self.sequence += 1;
        let entry = JournalEntry { sequence: self.sequence, at: self.now, subject, event };
        self.groups.record(&Arc::new(entry), self.now)
    }

    fn reject(&mut self, n: usize) {
        self.record(subject(n, "kv"), warning("rejected", n));
    }

    /// The counts of the events that are due after this time.
    fn due(&mut self, after: Duration) -> Vec<usize> {
        self.now = self.now.plus(after);
        self.groups.take_due(self.now).into_iter().map(|due| due.count).collect()
    }
}

const NOW: Duration = Duration::ZERO;

#[test]
fn rejections_of_one_cause_are_one_event_and_a_count() {
    let mut grouping = Grouping::default();
    grouping.reject(1);
    assert_eq!(grouping.due(NOW), [1], "the first at once");
    (2..=400).for_each(|n| grouping.reject(n));
    assert_eq!(grouping.due(NOW), [0_usize; 0], "counts wait");
    assert_eq!(grouping.due(COUNT_INTERVAL), [400]);
    (401..=799).for_each(|n| grouping.reject(n));
    assert_eq!(grouping.due(COUNT_INTERVAL), [0_usize; 0], "not doubled");
    grouping.reject(800);
    let due = grouping.groups.take_due(grouping.now.plus(COUNT_INTERVAL));
    assert_eq!((due[0].count, due[0].examples.len()), (800, MAX_EXAMPLES));
    assert_eq!(due[0].examples[0], task_arn(800), "the latest first");
}

#[test]
fn each_ecs_service_has_an_event_of_its_own() {
    let mut grouping = Grouping::default();
    for (n, service) in [(1, "kv"), (2, "web"), (3, "kv")] {
        grouping.record(subject(n, service), warning("rejected", n));
    }
    grouping.record(JournalSubject { ecs_service: None, ..subject(4, "kv") }, warning("rejected", 4));
    grouping.record(subject(5, "kv"), warning("name_conflict", 5));
    let mut due = grouping.due(NOW);
    due.sort_unstable();
    assert_eq!(due, [1, 1, 1, 2]);
}

#[test]
fn tasks_that_fail_in_turn_are_told_on_doubling() {
    let mut grouping = Grouping::default();
    let mut told = Vec::new();
    for n in 1..=64 {
        grouping.reject(n);
        told.extend(grouping.due(Duration::from_mins(1)));
        grouping.record(subject(n, "kv"), JournalEvent::Resolved { reason: "rejected" });
    }
    assert_eq!(told, [1, 2, 4, 8, 16, 32, 64]);
}

#[test]
fn group_ends_when_its_warnings_have_long_been_over() {
    let mut grouping = Grouping::default();
    grouping.reject(1);
    assert_eq!(grouping.due(NOW), [1]);
    assert_eq!(grouping.due(GROUP_ENDS_AFTER * 3), [0_usize; 0]);
    grouping.reject(2);
    assert_eq!(grouping.due(NOW), [2], "the first is still rejected");
    for n in 1..=2 {
        grouping.record(subject(n, "kv"), JournalEvent::Resolved { reason: "rejected" });
    }
    assert_eq!(grouping.due(GROUP_ENDS_AFTER), [0_usize; 0]);
    grouping.reject(3);
    assert_eq!(grouping.due(NOW), [1], "a new group");
}

#[test]
fn changes_become_events_by_their_cause() {
    let stopped = || ChangeCause::Evidence(Evidence::Stopped);
    let revoked = || ChangeCause::Evidence(Evidence::RoleTags);
    for (event, kind) in [
        (written("create", ChangeCause::Declared), Some(TeamEventKind::TaskRegistered)),
        (written("create", ChangeCause::Drift), Some(TeamEventKind::DriftRepaired)),
        (written("update", ChangeCause::Drift), Some(TeamEventKind::DriftRepaired)),
        (written("update", ChangeCause::Declared), None),
        (written("drain", stopped()), None),
        (written("remove", stopped()), None),
        (written("drain", revoked()), Some(TeamEventKind::IdentityWithdrawn)),
        (
            written("remove", ChangeCause::Evidence(Evidence::Manifests)),
            Some(TeamEventKind::IdentityWithdrawn),
        ),
        (change("remove", revoked(), ChangeResult::Error("403".to_owned())), None),
        (held(), Some(TeamEventKind::GuardTripped)),
        (warning("rejected", 1), Some(TeamEventKind::TaskRejected)),
        (warning("degraded", 1), None),
    ] {
        let mut grouping = Grouping::default();
        grouping.record(subject(1, "kv"), event.clone());
        let found: Vec<_> = grouping.groups.take_due(grouping.now).into_iter().map(|due| due.kind).collect();
        assert_eq!(found, kind.into_iter().collect::<Vec<_>>(), "{event:?}");
    }
}

#[test]
fn unsupported_control_plane_is_told_again_after_it_was_supported() {
    let mut grouping = Grouping::default();
    grouping.record(of_control_plane(), unsupported());
    assert_eq!(grouping.due(NOW), [0], "no task is the subject");
    assert_eq!(grouping.due(GROUP_ENDS_AFTER * 2), [0_usize; 0]);
    grouping.record(of_control_plane(), JournalEvent::Supported);
    grouping.record(of_control_plane(), unsupported());
    assert_eq!(grouping.due(NOW), [0]);
}

#[test]
fn groups_are_bounded_and_told_ones_make_room() {
    let mut grouping = Grouping::default();
    for n in 0..MAX_GROUPS {
        assert!(grouping.record(subject(n, &format!("s{n}")), written("create", ChangeCause::Declared)));
    }
    let one_more = || (subject(1, "one-more"), written("create", ChangeCause::Declared));
    let (about, event) = one_more();
    assert!(!grouping.record(about, event), "no group was told");
    assert_eq!(grouping.due(NOW).len(), MAX_GROUPS);
    grouping.now = grouping.now.plus(GROUP_ENDS_AFTER);
    let (about, event) = one_more();
    assert!(grouping.record(about, event));
}

#[test]
fn guard_group_ends_with_the_hold() {
    let mut grouping = Grouping::default();
    grouping.record(subject(1, "kv"), held());
    assert_eq!(grouping.due(NOW), [1]);
    grouping.record(subject(1, "kv"), JournalEvent::Resolved { reason: HELD_BY_GUARD });
    assert_eq!(grouping.due(GROUP_ENDS_AFTER), [0_usize; 0]);
    grouping.record(subject(1, "kv"), held());
    assert_eq!(grouping.due(NOW), [1]);
}

// Delivery

/// The answer of the bus to a call.
enum BusAnswer {
    Fails(AwsErrorKind),
    /// Refuses these entries.
    Refuses(Vec<(usize, AwsErrorKind)>),
    Hangs,
}

/// A bus that records what it takes.
#[derive(Default)]
struct FakeBus {
    /// Answers to the next calls; later ones take all.
    answers: Mutex<VecDeque<BusAnswer>>,
    calls: Mutex<Vec<usize>>,
    taken: Mutex<Vec<BusEvent>>,
}

#[async_trait]
impl EventBus for FakeBus {
    async fn put(&self, events: &[BusEvent]) -> Result<Vec<Result<(), RefusedEvent>>, AwsError> {
        self.calls.lock().unwrap().push(events.len());
        let answer = self.answers.lock().unwrap().pop_front();
        let refused = match answer {
            Some(BusAnswer::Fails(kind)) => return Err(error(kind)),
            Some(BusAnswer::Hangs) => std::future::pending().await,
            Some(BusAnswer::Refuses(refused)) => refused,
            None => Vec::new(),
        };
        let result = |(n, event): (usize, &BusEvent)| {
            if let Some((_, kind)) = refused.iter().find(|(at, _)| *at == n) {
                let (code, message) = (kind.label().to_owned(), String::new());
                return Err(RefusedEvent { kind: *kind, code, message });
            }
            self.taken.lock().unwrap().push(event.clone());
            Ok(())
        };
        Ok(events.iter().enumerate().map(result).collect())
    }
}

/// A lease that tests take away.
struct SwitchedLease(AtomicBool);

impl Lease for SwitchedLease {
    fn term(&self) -> LeaseTerm {
        LeaseTerm::unlimited(self.0.load(Ordering::Acquire))
    }
}

struct Sending {
    journal: Journal,
    bus: Arc<FakeBus>,
    lease: Arc<SwitchedLease>,
    metrics: Arc<Metrics>,
    events: TeamEvents,
}

fn sender() -> TeamEventSender {
    TeamEventSender {
        operator: OperatorId::parse("op").unwrap(),
        region: "eu-west-1".to_owned(),
        account: Arc::new(|| Some("111122223333".to_owned())),
    }
}

impl Sending {
    fn start(answers: impl IntoIterator<Item = BusAnswer>) -> Self {
        let journal = Journal::new(clock());
        let bus =
            Arc::new(FakeBus { answers: Mutex::new(answers.into_iter().collect()), ..FakeBus::default() });
        let lease = Arc::new(SwitchedLease(AtomicBool::new(true)));
        let metrics = Arc::new(Metrics::default());
        let deps = TeamEventDeps {
            bus: Arc::clone(&bus) as _,
            sender: sender(),
            lease: Arc::clone(&lease) as _,
            clock: clock(),
            metrics: Arc::clone(&metrics),
            seed: 1,
        };
        let events = TeamEvents::start(&journal, deps);
        Self { journal, bus, lease, metrics, events }
    }

    /// Records the rejection of a task of each of these services.
    fn reject(&self, services: std::ops::Range<usize>) {
        for n in services {
            self.journal.record(|| (subject(n, &format!("s{n}")), warning("rejected", n)));
        }
    }

    fn taken(&self) -> usize {
        self.bus.taken.lock().unwrap().len()
    }
}

/// Lets all that is due happen.
async fn settle() {
    tokio::time::sleep(Duration::from_mins(10)).await;
}

#[tokio::test(start_paused = true)]
async fn events_are_sent_in_batches() {
    let sending = Sending::start([]);
    sending.reject(0..25);
    settle().await;
    assert_eq!(*sending.bus.calls.lock().unwrap(), [10, 10, 5]);
    assert_eq!(sending.metrics.team_events.sent_count("TaskRejected"), 25);
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_flood_are_limited_per_second() {
    let sending = Sending::start([]);
    sending.reject(0..500);
    tokio::time::sleep(Duration::from_millis(900)).await;
    let at_first = sending.bus.calls.lock().unwrap().len();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let later = sending.bus.calls.lock().unwrap().len() - at_first;
    // A burst of 10, and 5 a second. The first batch may wait a quarter of a second for others.
    assert!((10..=14).contains(&at_first), "{at_first}");
    assert!((20..=21).contains(&later), "{later}");
    settle().await;
    assert_eq!(sending.metrics.team_events.sent_count("TaskRejected"), 500);
}

#[tokio::test(start_paused = true)]
async fn refused_entries_are_sent_again_alone() {
    let temporary = BusAnswer::Refuses(vec![(1, AwsErrorKind::Throttled), (2, AwsErrorKind::Unavailable)]);
    let final_ = BusAnswer::Refuses(vec![(0, AwsErrorKind::Denied)]);
    let sending = Sending::start([temporary, final_]);
    sending.reject(0..4);
    settle().await;
    assert_eq!(*sending.bus.calls.lock().unwrap(), [4, 2]);
    let metrics = &sending.metrics.team_events;
    assert_eq!((sending.taken(), metrics.sent_count("TaskRejected")), (3, 3));
    assert_eq!(metrics.dropped_count("refused"), 1);
}

#[tokio::test(start_paused = true)]
async fn failing_calls_are_repeated_up_to_a_bound() {
    let fails = || BusAnswer::Fails(AwsErrorKind::Throttled);
    let sending = Sending::start((0..MAX_ATTEMPTS).map(|_| fails()));
    sending.reject(0..2);
    settle().await;
    let metrics = &sending.metrics.team_events;
    assert_eq!(sending.bus.calls.lock().unwrap().len(), MAX_ATTEMPTS as usize);
    assert_eq!((sending.taken(), metrics.dropped_count("unavailable")), (0, 2));
    sending.reject(2..3);
    settle().await;
    assert_eq!(sending.taken(), 1, "later events are sent");
}

#[tokio::test(start_paused = true)]
async fn hung_bus_drops_events_and_never_the_recorder() {
    let sending = Sending::start([BusAnswer::Hangs]);
    sending.reject(0..1);
    settle().await;
    // Each record returns at once, whatever the bus does.
    sending.reject(1..2_000);
    settle().await;
    assert_eq!(sending.taken(), 0);
    let dropped = sending.metrics.team_events.dropped_count("queue_full");
    assert_eq!(dropped, 1_999 - QUEUED_EVENTS as u64);
    let limit = Duration::from_secs(5);
    let began = Instant::now();
    sending.events.finish(limit).await;
    assert_eq!(began.elapsed(), limit, "the stop waits for one call at most");
}

#[tokio::test(start_paused = true)]
async fn entries_beyond_the_queue_are_counted() {
    let sending = Sending::start([]);
    // Without an await in between nothing takes them.
    sending.reject(0..QUEUED_ENTRIES + 7);
    settle().await;
    assert!(sending.metrics.team_events.dropped_count("queue_full") >= 7);
}

#[tokio::test(start_paused = true)]
async fn standby_sends_nothing_but_what_it_leads_with() {
    let sending = Sending::start([]);
    sending.lease.0.store(false, Ordering::Release);
    sending.journal.record(|| (of_control_plane(), unsupported()));
    settle().await;
    assert_eq!(sending.bus.calls.lock().unwrap().len(), 0);
    sending.lease.0.store(true, Ordering::Release);
    settle().await;
    assert_eq!(sending.metrics.team_events.sent_count("ControlPlaneUnsupported"), 1);
}

#[tokio::test(start_paused = true)]
async fn stop_sends_what_was_recorded_before() {
    let sending = Sending::start([]);
    sending.reject(0..3);
    let Sending { bus, events, .. } = sending;
    events.finish(Duration::from_secs(5)).await;
    assert_eq!(bus.taken.lock().unwrap().len(), 3);
}

#[test]
fn largest_batch_fits_into_a_call() {
    let long = "x".repeat(5_000);
    let about = JournalSubject { name: Some("n".repeat(253).into()), ..subject(1, &"s".repeat(255)) };
    let event = JournalEvent::Warning(JournalWarning {
        reason: "rejected",
        key: String::new(),
        message: long.clone(),
        rules: ecs_mesh_core::intent::RoleRule::ALL.map(ecs_mesh_core::intent::RoleRule::label).to_vec(),
        fix: Some(long),
    });
    let event = bus_event(&rendered(about, event), Timestamp(0)).unwrap();
    assert!(event.size() * MAX_BATCH < MAX_BATCH_BYTES, "{}", event.size());
}

// Form

fn rendered(subject: JournalSubject, event: JournalEvent) -> TeamEvent {
    let mut grouping = Grouping::default();
    grouping.record(subject, event);
    sender().render(&grouping.groups.take_due(grouping.now)[0])
}

/// One event of each kind.
fn examples() -> Vec<TeamEvent> {
    let revoked = ChangeCause::Evidence(Evidence::RoleTags);
    let events = [
        written("create", ChangeCause::Declared),
        warning("rejected", 1),
        written("drain", revoked),
        held(),
        written("update", ChangeCause::Drift),
    ];
    let of_tasks = events.into_iter().map(|event| rendered(subject(1, "kv"), event));
    of_tasks.chain([rendered(of_control_plane(), unsupported())]).collect()
}

fn schema() -> Value {
    schemars::generate::SchemaSettings::default()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<TeamEvent>()
        .to_value()
}

/// The committed schema is that of the types. `UPDATE_GOLDEN=1` renews it.
#[test]
fn committed_team_event_schema_is_current() {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/team-events.schema.json");
    let schema = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), schema, "renew it with UPDATE_GOLDEN=1");
}

#[test]
fn events_have_the_fields_of_the_schema() {
    let schema = schema();
    let detail = &schema["$defs"]["TeamEventDetail"];
    let names = |fields: &Value| -> Vec<String> { fields.as_object().unwrap().keys().cloned().collect() };
    let known = names(&detail["properties"]);
    let required: Vec<String> = serde_json::from_value(detail["required"].clone()).unwrap();
    let kinds: BTreeMap<_, _> = examples().into_iter().map(|event| (event.detail_type, event)).collect();
    assert_eq!(kinds.keys().copied().collect::<Vec<_>>(), TeamEventKind::ALL);
    for event in kinds.values() {
        let json = json!(event);
        assert_eq!(names(&json), ["detail", "detail-type", "resources", "source"]);
        let fields = names(&json["detail"]);
        assert!(fields.iter().all(|field| known.contains(field)), "{json}");
        assert!(required.iter().all(|field| fields.contains(field)), "{json}");
    }
    for name in ["schemaVersion", "operator", "region", "reason", "message", "count"] {
        assert!(required.contains(&name.to_owned()), "{required:?}");
    }
}

#[test]
fn rejection_names_service_role_rule_and_fix() {
    let event = json!(rendered(subject(7, "kv-api"), warning("rejected", 7)));
    let detail = &event["detail"];
    assert_eq!(event["source"], "ecs-mesh.dev");
    assert_eq!(event["detail-type"], "TaskRejected");
    assert_eq!((&detail["ecsService"], &detail["cluster"]), (&json!("kv-api"), &json!("c")));
    assert_eq!((&detail["account"], &detail["region"]), (&json!("111122223333"), &json!("eu-west-1")));
    assert_eq!(detail["rules"], json!(["kuma.io/service"]));
    assert!(detail["fix"].as_str().unwrap().starts_with("aws iam tag-role"));
    let task = task_arn(7).to_string();
    assert_eq!((&detail["tasks"], &detail["count"]), (&json!([task]), &json!(1)));
    let service = "arn:aws:ecs:eu-west-1:111122223333:service/c/kv-api";
    assert_eq!(event["resources"], json!([service, task]));
}
