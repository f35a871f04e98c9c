//! Violations that the oracle for Kuma finds.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::{
    ADMISSION_LAG, CLUSTER_LABEL, DRAIN_LABEL, KumaOracle, MAX_UNCONFIRMED, OPERATOR_LABEL, SEEN_WITHIN,
    TASK_LABEL,
};
use super::{
    Invariant, NEVER, START, STEP, account, assert_violation, drain, oracle_config, running, runs, step_for,
};
use crate::aws::Cloud;
use crate::control_planes::ControlPlanes;
use crate::kuma::{EmulatedRelease, KumaConfig, KumaCp, KumaRequest};
use crate::world::{
    CLUSTER, FOREIGN_OPERATOR, Naming, Rollouts, RoutedEvents, SECRET, ScenarioService, World, WorldConfig,
    create_queue_and_rules, role_name,
};
use ecs_mesh_model::Timestamp;

/// A world with registered tasks, and an oracle. The test acts as the operator.
pub(super) struct KumaFixture {
    pub(super) cloud: Cloud,
    pub(super) kuma: KumaCp,
    pub(super) world: World,
    oracle: KumaOracle,
    pub(super) now: Timestamp,
}

impl KumaFixture {
    pub(super) fn new() -> Self {
        Self::at(KumaConfig::default().release)
    }

    fn at(release: EmulatedRelease) -> Self {
        Self::with(release, Vec::new())
    }

    /// The services of the world and further ones. Tasks whose sidecars have a template are registered by these.
    fn with(release: EmulatedRelease, further: Vec<ScenarioService>) -> Self {
        let config = KumaConfig { release, ..KumaConfig::default() };
        let (mut cloud, mut kuma) = (account(), KumaCp::new(config, START));
        let cluster = create_queue_and_rules(&mut cloud, RoutedEvents::Tasks, START).unwrap();
        let config = WorldConfig {
            tasks: 20,
            seed: 1,
            interval: NEVER,
            naming: Naming::TaskId,
            control_planes: ControlPlanes::Kuma,
            revoked_for: NEVER,
            rollouts: Rollouts::Simple,
            host_mode: false,
        };
        let templates: Vec<String> = further.iter().map(|service| service.name.clone()).collect();
        let world = World::start_with(config, further, &mut cloud, &mut kuma, START).unwrap();
        let oracle = KumaOracle::new(oracle_config("op".to_owned(), &cluster));
        let mut fixture = Self { cloud, kuma, world, oracle, now: START };
        fixture.pass(Duration::from_secs(30));
        let registered = fixture.registrations();
        for (service, task, body) in
            registered.into_iter().filter(|(service, ..)| !templates.contains(service))
        {
            assert_eq!(fixture.put(&task, &body), 201, "{service}");
        }
        fixture.assert_clean();
        fixture.pass(SEEN_WITHIN);
        fixture
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while self.now < end {
            self.now = self.now.plus(step_for(time));
            self.world.step(&mut self.cloud, &mut self.kuma, None, self.now);
        }
    }

    /// Service, task id and correct registration of each running task.
    pub(super) fn registrations(&self) -> Vec<(String, String, Value)> {
        let mut registrations = Vec::new();
        // Includes the task that belongs to no service.
        for task in self.cloud.all_tasks().filter(|task| runs(task)) {
            let address = task.address().unwrap().to_string();
            let body = dataplane(&task.family, task.id(), &address, &json!({}));
            registrations.push((task.family.clone(), task.id().to_owned(), body));
        }
        registrations
    }

    fn task_of(&self, service: &str) -> (String, Value) {
        let found = self.registrations().into_iter().find(|(name, ..)| name == service);
        let (_, task, body) = found.unwrap();
        (task, body)
    }

    fn send(&mut self, method: &str, name: &str, body: &Value) -> u16 {
        self.send_to(method, &format!("/meshes/default/dataplanes/{name}"), body)
    }

    /// Sends a write to this path, and has the oracle judge it.
    fn send_to(&mut self, method: &str, path: &str, body: &Value) -> u16 {
        let status = self.request(method, path, body);
        let journal = self.kuma.take_journal();
        self.oracle.check_writes(journal, &self.cloud, &self.kuma);
        status
    }

    fn send_unchecked(&mut self, method: &str, name: &str, body: &Value) -> u16 {
        self.request(method, &format!("/meshes/default/dataplanes/{name}"), body)
    }

    fn request(&mut self, method: &str, path: &str, body: &Value) -> u16 {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.kuma.handle(self.now, &KumaRequest::json(method, path, body)).status
    }

    pub(super) fn put(&mut self, name: &str, body: &Value) -> u16 {
        self.send("PUT", name, body)
    }

    fn remove(&mut self, name: &str) {
        assert_eq!(self.send("DELETE", name, &Value::Null), 200, "{name}");
    }

    fn drain(&mut self, task: &str, body: &Value) {
        self.drain_for("not-desired", task, body);
    }

    fn drain_for(&mut self, reason: &str, task: &str, body: &Value) {
        let mut drained = body.clone();
        drained["labels"][DRAIN_LABEL] = reason.into();
        drained["networking"]["inbound"][0]["health"] = json!({});
        assert_eq!(self.put(task, &drained), 200);
    }

    fn kill(&mut self, service: &str) -> String {
        let task = running(&self.cloud, service).remove(0);
        assert!(self.cloud.kill_hard(&task.arn, self.now));
        self.pass(Duration::from_secs(3));
        task.id().to_owned()
    }

    fn remove_role_tag(&mut self, service: &str) {
        self.cloud.untag_role(&role_name(service), &["kuma.io/mesh".to_owned()], self.now).unwrap();
        self.pass(STEP);
    }

    fn assert_violation(&self, invariant: Invariant, message: &[&str]) {
        assert_violation(self.oracle.violations(), invariant, message);
    }

    fn assert_clean(&self) {
        assert_eq!(self.oracle.violations(), []);
    }
}

fn dataplane(service: &str, task: &str, address: &str, more: &Value) -> Value {
    let mut labels = json!({
        OPERATOR_LABEL: "op", TASK_LABEL: task, CLUSTER_LABEL: "c1", "kuma.io/workload": service,
    });
    labels.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({
        "type": "Dataplane", "mesh": "default", "name": task, "labels": labels,
        "networking": {
            "address": address,
            "inbound": [{"port": 15_000, "servicePort": 5_000, "tags": {"kuma.io/service": service}}],
        },
    })
}

#[test]
fn zone_proxies_are_judged_by_role_and_task() {
    let path = |task: &str| format!("/zoneingresses/{task}");
    let ingress = |task: &str| {
        let labels = json!({OPERATOR_LABEL: "op", TASK_LABEL: task, CLUSTER_LABEL: "c1"});
        let networking = json!({"address": "10.0.0.9", "port": 10_001});
        json!({"type": "ZoneIngress", "name": task, "labels": labels, "networking": networking})
    };
    let with_role = |role_type: &str| {
        let mut fixture = KumaFixture::new();
        let tags = [("kuma.io/type".to_owned(), role_type.to_owned())].into();
        fixture.cloud.tag_role(&role_name("redis"), &tags, fixture.now).unwrap();
        fixture.pass(Duration::from_mins(3));
        let (task, _) = fixture.task_of("redis");
        assert_eq!(fixture.send_to("PUT", &path(&task), &ingress(&task)), 201);
        (fixture, task)
    };
    let (fixture, task) = with_role("dataplane");
    fixture.assert_violation(Invariant::I4, &[&task, "the role's tags do not allow it"]);

    let (mut fixture, task) = with_role("ingress");
    fixture.assert_clean();
    let _ = fixture.send_to("PUT", &path(&task), &ingress(&task));
    fixture.assert_violation(Invariant::I6, &[&task]);

    let (mut fixture, task) = with_role("ingress");
    assert_eq!(fixture.send_to("DELETE", &path(&task), &Value::Null), 200);
    fixture.assert_violation(Invariant::I2, &[&task, "removed while its task lives"]);

    let (mut fixture, task) = with_role("ingress");
    fixture.kill("redis");
    let leaks = |fixture: &KumaFixture| {
        let found = fixture.oracle.find_leaks(&fixture.cloud, &fixture.kuma, &|_| false, fixture.now);
        found.into_iter().filter(|leak| leak.starts_with("ZoneIngress")).count()
    };
    assert_eq!(leaks(&fixture), 1);
    assert_eq!(fixture.send_to("DELETE", &path(&task), &Value::Null), 200);
    assert_eq!(leaks(&fixture), 0);
    fixture.assert_clean();

    let (mut fixture, _) = with_role("ingress");
    let mut foreign = ingress("f");
    foreign["labels"][OPERATOR_LABEL] = FOREIGN_OPERATOR.into();
    let _ = fixture.send_to("PUT", &path("f"), &foreign);
    assert!(fixture.oracle.violations().iter().any(|found| found.invariant == Invariant::I3));
}

#[test]
fn oracle_accepts_and_counts_correct_writes() {
    let mut fixture = KumaFixture::new();
    let task = fixture.kill("kv");
    fixture.remove(&task);
    let (stopping, body) = fixture.task_of("redis");
    drain(&mut fixture.cloud, "redis", fixture.now);
    fixture.drain(&stopping, &body);
    fixture.assert_clean();
    let tally = fixture.oracle.tally();
    assert_eq!((tally.drained, tally.removed), (1, 1));
    assert!(tally.created >= 20);
}

#[test]
fn live_or_draining_task_must_not_be_removed() {
    let mut fixture = KumaFixture::new();
    let (task, _) = fixture.task_of("kv");
    fixture.remove(&task);
    fixture.assert_violation(Invariant::I2, &[&task, "removed while its task is RUNNING"]);
    let mut fixture = KumaFixture::new();
    drain(&mut fixture.cloud, "kv", fixture.now);
    fixture.remove(&task);
    fixture.assert_violation(Invariant::I2, &[&task, "removed while its task is RUNNING"]);
}

#[test]
fn live_task_must_not_be_drained() {
    let mut fixture = KumaFixture::new();
    let (task, body) = fixture.task_of("kv");
    fixture.drain(&task, &body);
    fixture.assert_violation(Invariant::I2, &[&task, "drained while its task is RUNNING"]);
    let mut fixture = KumaFixture::new();
    fixture.remove_role_tag("kv");
    fixture.drain(&task, &body);
    fixture.assert_clean();
    let mut fixture = KumaFixture::new();
    fixture.oracle.record_undeclared("kv", fixture.now, fixture.now);
    fixture.drain(&task, &body);
    fixture.assert_clean();
    fixture.now = fixture.now.plus(STEP);
    fixture.put(&task, &body);
    fixture.drain(&task, &body);
    fixture.assert_violation(Invariant::I2, &[&task, "drained"]);
}

#[test]
fn workload_label_names_the_service_at_3_0() {
    let mut fixture = KumaFixture::at(EmulatedRelease::V3_0);
    let (task, body) = fixture.task_of("kv");
    let stored = fixture.kuma.dataplanes().find(|(_, name, _)| *name == task).unwrap().2;
    assert_eq!(stored["networking"]["inbound"][0]["tags"], Value::Null);
    fixture.remove_role_tag("kv");
    fixture.drain(&task, &body);
    fixture.assert_clean();
    let (task, body) = fixture.task_of("redis");
    fixture.drain(&task, &body);
    fixture.assert_violation(Invariant::I2, &[&task, "drained while its task is RUNNING"]);
}

#[test]
fn dataplane_without_ownership_must_not_be_removed() {
    let mut fixture = KumaFixture::new();
    fixture.remove(FOREIGN_OPERATOR);
    let found = fixture.oracle.violations();
    assert_eq!(found[0].invariant, Invariant::I3);
    assert!(
        found[0].message.contains(FOREIGN_OPERATOR) && found[0].message.contains("ownership labels"),
        "{found:?}"
    );
}

#[test]
fn registration_must_not_move_to_another_task() {
    let mut fixture = KumaFixture::new();
    let (task, mut body) = fixture.task_of("kv");
    let other = running(&fixture.cloud, "kv")[1].id().to_owned();
    body["labels"][TASK_LABEL] = other.into();
    fixture.put(&task, &body);
    fixture.assert_violation(Invariant::I3, &[&task, "it belonged to another task"]);
}

#[test]
fn registration_needs_role_tags_and_a_live_task() {
    let mut fixture = KumaFixture::new();
    let (task, mut body) = fixture.task_of("kv");
    fixture.remove_role_tag("kv");
    // The lag is over.
    fixture.pass(Duration::from_secs(150));
    body["networking"]["inbound"][0]["port"] = 15_001.into();
    fixture.put(&task, &body);
    fixture.assert_violation(Invariant::I4, &[&task, "the role's tags do not allow it"]);

    let mut fixture = KumaFixture::new();
    let dead = fixture.kill("kv");
    fixture.remove(&dead);
    fixture.pass(Duration::from_mins(2));
    fixture.put(&dead, &dataplane("kv", &dead, "10.0.0.1", &json!({})));
    fixture.assert_violation(Invariant::I4, &[&dead, "stopped long before"]);
}

#[test]
fn unchanged_write_and_secret_are_violations() {
    let mut fixture = KumaFixture::new();
    let (task, body) = fixture.task_of("kv");
    fixture.put(&task, &body);
    fixture.assert_violation(Invariant::I6, &[&task, "unchanged"]);
    let mut fixture = KumaFixture::new();
    let mut leaking = body;
    leaking["labels"]["note"] = SECRET.into();
    fixture.put(&task, &leaking);
    fixture.assert_violation(Invariant::I9, &[&task, "secret"]);
    assert!(!fixture.oracle.violations()[0].message.contains(SECRET));
}

#[test]
fn removals_above_the_guard_limit_are_violations() {
    let mut fixture = KumaFixture::new();
    let services: Vec<String> = fixture.world.services().iter().map(|one| one.name.clone()).collect();
    for service in &services {
        fixture.remove_role_tag(service);
    }
    let mut tasks = fixture.registrations().into_iter().map(|(_, task, _)| task);
    for task in tasks.by_ref().take(6) {
        fixture.remove(&task);
    }
    fixture.assert_clean();
    for task in tasks.take(3) {
        fixture.remove(&task);
    }
    let found = fixture.oracle.violations();
    assert!(!found.is_empty() && found.iter().all(|one| one.invariant == Invariant::I5), "{found:?}");
}

impl KumaFixture {
    /// Another process leads, and its guard has counted registrations.
    fn lead(&mut self, process: &str) {
        self.oracle.record_takeover(process);
        let (task, mut body) = self.task_of("kv");
        body["networking"]["inbound"][0]["servicePort"] = (self.now.0 % 10_000 + 10_000).into();
        assert_eq!(self.put(&task, &body), 200);
        self.pass(SEEN_WITHIN);
    }
}

/// A replica counts its own removals, those before another one led included.
#[test]
fn replica_that_leads_again_keeps_its_hour() {
    for (process, is_violation) in [("a", true), ("c", false)] {
        let mut fixture = KumaFixture::new();
        ["a", "b", "c"].into_iter().for_each(|replica| fixture.oracle.record_start(replica));
        let services: Vec<String> = fixture.world.services().iter().map(|one| one.name.clone()).collect();
        for service in &services {
            fixture.remove_role_tag(service);
        }
        let going: Vec<_> =
            fixture.registrations().into_iter().filter(|(service, ..)| service != "kv").collect();
        for (leader, tasks) in [("a", 0..6), ("b", 6..9), (process, 9..12)] {
            fixture.assert_clean();
            fixture.lead(leader);
            going[tasks].iter().for_each(|(_, task, _)| fixture.remove(task));
        }
        let found = fixture.oracle.violations();
        assert_eq!(!found.is_empty(), is_violation, "{process}: {found:?}");
        assert!(found.iter().all(|one| one.invariant == Invariant::I5), "{found:?}");
    }
}

#[test]
fn task_that_is_not_registered_in_time_is_late() {
    let mut fixture = KumaFixture::new();
    let (task, _) = fixture.task_of("kv");
    let late = |fixture: &KumaFixture, within: u64| {
        let services = fixture.world.services();
        let within = Duration::from_secs(within);
        fixture.oracle.find_late(&fixture.cloud, &fixture.kuma, services, within, fixture.now)
    };
    assert_eq!(late(&fixture, 15), Vec::<String>::new());
    fixture.send_unchecked("DELETE", &task, &Value::Null);
    assert_eq!(late(&fixture, 15), [format!("task {task} of kv is not registered after 15s")]);
    assert_eq!(late(&fixture, 600), Vec::<String>::new());
    fixture.remove_role_tag("kv");
    assert_eq!(late(&fixture, 15), Vec::<String>::new());
}

#[test]
fn registrations_of_an_excluded_cluster_are_not_judged() {
    let mut fixture = KumaFixture::new();
    let dead = fixture.kill("kv");
    let leaks = |fixture: &KumaFixture| {
        fixture.oracle.find_leaks(&fixture.cloud, &fixture.kuma, &|_| false, fixture.now).len()
    };
    assert_eq!(leaks(&fixture), 1, "{dead}");
    fixture.oracle = KumaOracle::new(fixture.oracle.config.clone()).without_cluster("c1");
    assert_eq!(leaks(&fixture), 0);
    fixture.oracle = KumaOracle::new(fixture.oracle.config.clone()).without_cluster("c2");
    assert_eq!(leaks(&fixture), 1);
}

/// Of few registrations, the guard admits one removal an hour, and any because of role tags.
#[test]
fn few_registrations_may_lose_one_an_hour() {
    let mut fixture = KumaFixture::new();
    (fixture.oracle.config.min_owned, fixture.oracle.config.max_fraction) = (100, 0.01);
    let guard = &mut fixture.oracle.guards.current;
    (guard.guarded_since, guard.enough_since) = (None, None);
    fixture.remove_role_tag("kv");
    let (revoked, declared): (Vec<_>, Vec<_>) =
        fixture.registrations().into_iter().partition(|(service, ..)| service == "kv");
    revoked.iter().for_each(|(_, task, _)| fixture.remove(task));
    assert!(revoked.len() > 1);
    let end = fixture.now.plus(Duration::from_hours(2));
    for (service, ..) in &declared {
        fixture.oracle.record_undeclared(service, fixture.now, end);
    }
    fixture.remove(&declared[0].1);
    fixture.assert_clean();
    fixture.now = fixture.now.plus(Duration::from_hours(1));
    fixture.remove(&declared[1].1);
    fixture.assert_clean();
    fixture.remove(&declared[2].1);
    fixture.assert_violation(Invariant::I5, &[&declared[2].1, "2 of "]);
}

#[test]
fn events_alone_may_drain_few_of_few() {
    let mut fixture = KumaFixture::new();
    (fixture.oracle.config.min_owned, fixture.oracle.config.max_fraction) = (100, 0.01);
    let all = fixture.registrations();
    for (number, (_, task, body)) in all.iter().enumerate().take(3) {
        fixture.drain_for("unconfirmed", task, body);
        assert_eq!(fixture.oracle.violations().is_empty(), number < 2, "{number}");
    }
    // Another process counts from zero.
    let mut fixture = KumaFixture::new();
    (fixture.oracle.config.min_owned, fixture.oracle.config.max_fraction) = (100, 0.01);
    for (_, task, body) in all.iter().take(3) {
        fixture.drain_for("unconfirmed", task, body);
        fixture.oracle.record_restart();
    }
    fixture.assert_clean();
}

/// The guard admits a withdrawal at its drain. Below its floor it does not limit those for role tags, whatever is
/// registered before the removal.
#[test]
fn removal_of_a_drain_below_the_guards_floor_is_no_violation() {
    for drained_first in [true, false] {
        let mut fixture = KumaFixture::new();
        let services: Vec<String> = fixture.world.services().iter().map(|one| one.name.clone()).collect();
        for service in &services {
            fixture.remove_role_tag(service);
        }
        let floor = std::mem::replace(&mut fixture.oracle.config.min_owned, 100);
        let guard = &mut fixture.oracle.guards.current;
        (guard.guarded_since, guard.enough_since) = (None, None);
        let going: Vec<_> = fixture.registrations().into_iter().take(9).collect();
        if drained_first {
            going.iter().for_each(|(_, task, body)| fixture.drain(task, body));
        }
        fixture.oracle.config.min_owned = floor;
        fixture.oracle.guards.current.enough_since = Some(fixture.now);
        fixture.pass(SEEN_WITHIN);
        going.iter().for_each(|(_, task, _)| fixture.remove(task));
        let found = fixture.oracle.violations();
        assert_eq!(found.is_empty(), drained_first, "{found:?}");
    }
}

/// Events alone may drain a part of the live tasks, and only a part.
#[test]
fn unconfirmed_drains_are_judged_by_the_guards_limit() {
    let mut fixture = KumaFixture::new();
    fixture.pass(ADMISSION_LAG + SEEN_WITHIN);
    let all = fixture.registrations();
    let limit = all.len() * 3 / 10 + MAX_UNCONFIRMED as usize;
    for (number, (_, task, body)) in all.iter().enumerate() {
        fixture.drain_for("unconfirmed", task, body);
        let found = fixture.oracle.violations();
        assert_eq!(found.is_empty(), number < limit, "{number} of {}: {found:?}", all.len());
        if number > limit {
            break;
        }
    }
    assert!(fixture.oracle.violations().iter().all(|one| one.invariant == Invariant::I5));
}

#[test]
fn leaks_and_missing_tasks_are_found_after_quiet() {
    let mut fixture = KumaFixture::new();
    let quiet = |fixture: &mut KumaFixture, held: &dyn Fn(&str) -> bool| {
        let services = fixture.world.services().to_vec();
        fixture.oracle.check_after_quiet(&fixture.cloud, &fixture.kuma, &services, held, fixture.now)
    };
    assert_eq!(quiet(&mut fixture, &|_| false), Vec::<String>::new());
    // The service starts a replacement, which is not registered.
    let dead = fixture.kill("kv");
    let left = quiet(&mut fixture, &|id| id == dead);
    assert!(matches!(&left[..], [one] if one.contains("of kv is running and is not registered")), "{left:?}");
    let left = quiet(&mut fixture, &|_| false);
    assert!(left[0].contains(&dead) && left[0].contains("its task is gone"), "{left:?}");
    fixture.assert_violation(Invariant::I1, &[&dead]);
}

#[test]
fn wrong_address_and_stale_drain_are_found() {
    let mut fixture = KumaFixture::new();
    let (task, body) = fixture.task_of("kv");
    let mut elsewhere = body.clone();
    elsewhere["networking"]["address"] = "10.9.9.9".into();
    fixture.put(&task, &elsewhere);
    let services = fixture.world.services().to_vec();
    let missing = fixture.oracle.find_missing(&fixture.cloud, &fixture.kuma, &services, &|_| false);
    assert_eq!(missing, [format!("task {task} of kv is running and has another address")]);
    fixture.drain(&task, &body);
    let missing = fixture.oracle.find_missing(&fixture.cloud, &fixture.kuma, &services, &|_| false);
    assert_eq!(missing, [format!("task {task} of kv is running and is drained")]);
}

impl KumaFixture {
    /// Waits until health discovery has found the apps, and records what is ready.
    fn settle(&mut self) {
        self.pass(Duration::from_secs(30));
        self.watch(Duration::from_secs(20));
    }

    /// Lets time pass, and records at each step what is ready.
    fn watch(&mut self, time: Duration) {
        let until = self.now.plus(time);
        while self.now < until {
            self.pass(STEP);
            self.oracle.record_ready(&self.kuma, self.now);
        }
    }

    /// Begins the stop of the first `count` tasks of a service, and returns them.
    fn stop(&mut self, service: &str, count: usize) -> Vec<(String, Value)> {
        let of_service: Vec<_> =
            self.registrations().into_iter().filter(|(name, ..)| name == service).collect();
        for (_, task, _) in of_service.iter().take(count) {
            self.cloud.stop_task(CLUSTER, task, "by hand", self.now).unwrap();
        }
        of_service.into_iter().take(count).map(|(_, task, body)| (task, body)).collect()
    }
}

#[test]
fn last_ready_registration_must_not_be_drained_while_its_task_serves() {
    // By reason of the drains, the time from the stop to the last of them, and whether that one is created anew.
    for (reason, later, recreated, is_violation) in [
        ("stopping", Duration::ZERO, false, true),
        // A revoked identity ends, whatever is ready.
        ("revoked", Duration::ZERO, false, false),
        // The containers have ended.
        ("stopping", Duration::from_secs(12), false, false),
        // Health discovery has not found the app behind the new registration.
        ("stopping", Duration::ZERO, true, false),
    ] {
        let mut fixture = KumaFixture::new();
        fixture.settle();
        let mut stopped = fixture.stop("kv", running(&fixture.cloud, "kv").len());
        let (last, body) = stopped.pop().unwrap();
        assert!(!stopped.is_empty());
        for (task, body) in &stopped {
            fixture.drain_for(reason, task, body);
        }
        fixture.assert_clean();
        fixture.pass(later);
        fixture.oracle.record_ready(&fixture.kuma, fixture.now);
        if recreated {
            fixture.now = fixture.now.plus(Duration::from_millis(50));
            assert_eq!(fixture.send_unchecked("DELETE", &last, &Value::Null), 200);
            assert_eq!(fixture.send_unchecked("PUT", &last, &body), 201);
            fixture.kuma.take_journal();
        }
        fixture.drain_for(reason, &last, &body);
        if is_violation {
            fixture.assert_violation(Invariant::I10, &["kv", &last, "serves"]);
        } else {
            fixture.assert_clean();
        }
    }
}

#[test]
fn drain_under_way_is_excused_by_revocations_only_while_it_may_be() {
    // By the time from the revocation of the others to the drain of the last one.
    for (later, is_violation) in [(Duration::from_secs(4), false), (Duration::from_secs(6), true)] {
        let mut fixture = KumaFixture::new();
        fixture.settle();
        let mut stopped = fixture.stop("kv", running(&fixture.cloud, "kv").len());
        let (last, body) = stopped.pop().unwrap();
        for (task, body) in &stopped {
            fixture.drain_for("revoked", task, body);
        }
        fixture.watch(later);
        fixture.drain_for("stopping", &last, &body);
        if is_violation {
            fixture.assert_violation(Invariant::I10, &["kv", &last, "serves"]);
        } else {
            fixture.assert_clean();
        }
    }
}

#[test]
fn undone_drain_is_a_break_of_readiness() {
    let mut fixture = KumaFixture::new();
    fixture.settle();
    let stopped = fixture.stop("kv", running(&fixture.cloud, "kv").len());
    for (task, body) in &stopped {
        fixture.drain_for("revoked", task, body);
        fixture.put(task, body);
    }
    fixture.watch(Duration::from_secs(6));
    for (task, body) in &stopped {
        fixture.drain_for("stopping", task, body);
    }
    fixture.assert_clean();
}

#[test]
fn dataplane_of_a_template_is_written_by_its_sidecar_alone() {
    for is_removed in [false, true] {
        let further = vec![ScenarioService::in_template_mode("op")];
        let mut fixture = KumaFixture::with(KumaConfig::default().release, further);
        let (task, mut body) = fixture.task_of("reports");
        if is_removed {
            fixture.remove_role_tag("reports");
            fixture.remove(&task);
        } else {
            // Its owner before is no other one.
            body["labels"][TASK_LABEL] = json!("other");
            assert_eq!(fixture.put(&task, &body), 200);
        }
        let found = fixture.oracle.violations();
        let is_found =
            |violation: &&super::super::InvariantViolation| violation.message.contains("is its sidecar's");
        assert_eq!(found.iter().filter(is_found).count(), 1, "{found:?}");
    }
}

#[test]
fn dataplane_of_a_killed_task_in_template_mode_may_be_removed() {
    let further = vec![ScenarioService::in_template_mode("op")];
    let mut fixture = KumaFixture::with(KumaConfig::default().release, further);
    let (task, _) = fixture.task_of("reports");
    let arn =
        running(&fixture.cloud, "reports").into_iter().find(|found| found.id() == task).unwrap().arn.clone();
    fixture.cloud.kill_hard(&arn, fixture.now);
    fixture.pass(Duration::from_secs(30));
    fixture.remove(&task);
    fixture.assert_clean();
}
