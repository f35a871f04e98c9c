//! What the judge of Kuma finds.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::{CLUSTER_LABEL, DRAIN_LABEL, KumaOracle, OPERATOR_LABEL, TASK_LABEL};
use super::{Invariant, NEVER, START, STEP, account, drain, is, rules, running, runs, step_of};
use crate::aws::Cloud;
use crate::kuma::{KumaConfig, KumaCp, KumaRequest};
use crate::control_planes::ControlPlanes;
use crate::world::{FOREIGN_OPERATOR, Naming, SECRET, World, WorldConfig, create_queue_and_rules, role_name};
use ecs_mesh_model::Timestamp;

/// A world whose tasks are registered, an operator that the test plays, and the judge.
struct KumaFixture {
    cloud: Cloud,
    kuma: KumaCp,
    world: World,
    judge: KumaOracle,
    now: Timestamp,
}

impl KumaFixture {
    fn new() -> Self {
        let (mut cloud, mut kuma) = (account(), KumaCp::new(KumaConfig::default(), START));
        let cluster = create_queue_and_rules(&mut cloud, START).unwrap();
        let config = WorldConfig {
            tasks: 20,
            seed: 1,
            interval: NEVER,
            naming: Naming::TaskId,
            control_planes: ControlPlanes::Kuma,
            revoked_for: NEVER,
        };
        let world = World::start(config, &mut cloud, &mut kuma, START).unwrap();
        let judge = KumaOracle::new(rules("op".to_owned(), &cluster));
        let mut court = Self { cloud, kuma, world, judge, now: START };
        court.pass(Duration::from_secs(30));
        for (service, task, body) in court.wanted() {
            assert_eq!(court.puts(&task, &body), 201, "{service}");
        }
        court.found_nothing();
        court
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while self.now < end {
            self.now = self.now.plus(step_of(time));
            self.world.step(&mut self.cloud, &mut self.kuma, None, self.now);
        }
    }

    /// What each running task should be registered as.
    fn wanted(&self) -> Vec<(String, String, Value)> {
        let mut wanted = Vec::new();
        // That of no service, too.
        for task in self.cloud.all_tasks().filter(|task| runs(task)) {
            let address = task.address().unwrap().to_string();
            let body = dataplane(&task.family, task.id(), &address, &json!({}));
            wanted.push((task.family.clone(), task.id().to_owned(), body));
        }
        wanted
    }

    fn a_task(&self, service: &str) -> (String, Value) {
        let found = self.wanted().into_iter().find(|(name, ..)| name == service);
        let (_, task, body) = found.unwrap();
        (task, body)
    }

    fn send(&mut self, method: &str, name: &str, body: &Value) -> u16 {
        let request = KumaRequest {
            method: method.to_owned(),
            path_and_query: format!("/meshes/default/dataplanes/{name}"),
            content_type: Some("application/json".to_owned()),
            host: "kuma".to_owned(),
            bearer: None,
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
        };
        let answer = self.kuma.handle(self.now, &request);
        let journal = self.kuma.take_journal();
        self.judge.writes(journal, &self.cloud, &self.kuma);
        answer.status
    }

    fn puts(&mut self, name: &str, body: &Value) -> u16 {
        self.send("PUT", name, body)
    }

    fn removes(&mut self, name: &str) {
        assert_eq!(self.send("DELETE", name, &Value::Null), 200, "{name}");
    }

    fn drains(&mut self, task: &str, body: &Value) {
        let mut drained = body.clone();
        drained["labels"][DRAIN_LABEL] = "unwanted".into();
        drained["networking"]["inbound"][0]["health"] = json!({});
        assert_eq!(self.puts(task, &drained), 200);
    }

    fn dies(&mut self, service: &str) -> String {
        let task = running(&self.cloud, service).remove(0);
        assert!(self.cloud.kill_hard(&task.arn, self.now));
        self.pass(Duration::from_secs(3));
        task.id().to_owned()
    }

    fn loses_its_tag(&mut self, service: &str) {
        self.cloud.untag_role(&role_name(service), &["kuma.io/mesh".to_owned()], self.now).unwrap();
        self.pass(STEP);
    }

    fn report(&self, invariant: Invariant, message: &[&str]) {
        is(self.judge.violations(), invariant, message);
    }

    fn found_nothing(&self) {
        assert_eq!(self.judge.violations(), []);
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
fn what_is_right_is_found_right_and_counted() {
    let mut court = KumaFixture::new();
    let task = court.dies("kv");
    court.removes(&task);
    let (stopping, body) = court.a_task("redis");
    drain(&mut court.cloud, "redis", court.now);
    court.drains(&stopping, &body);
    court.found_nothing();
    let tally = court.judge.tally();
    assert_eq!((tally.drained, tally.removed), (1, 1));
    assert!(tally.created >= 20);
}

#[test]
fn a_live_or_draining_task_stays_registered() {
    let mut court = KumaFixture::new();
    let (task, _) = court.a_task("kv");
    court.removes(&task);
    court.found(Invariant::I2, &[&task, "removed while its task is RUNNING"]);
    let mut court = KumaFixture::new();
    drain(&mut court.cloud, "kv", court.now);
    court.removes(&task);
    court.found(Invariant::I2, &[&task, "removed while its task is RUNNING"]);
}

#[test]
fn live_task_must_not_be_drained() {
    let mut court = KumaFixture::new();
    let (task, body) = court.a_task("kv");
    court.drains(&task, &body);
    court.found(Invariant::I2, &[&task, "drained while its task is RUNNING"]);
    let mut court = KumaFixture::new();
    court.loses_its_tag("kv");
    court.drains(&task, &body);
    court.found_nothing();
    let mut court = KumaFixture::new();
    court.judge.is_undeclared("kv", court.now, court.now);
    court.drains(&task, &body);
    court.found_nothing();
    court.now = court.now.plus(STEP);
    court.puts(&task, &body);
    court.drains(&task, &body);
    court.found(Invariant::I2, &[&task, "drained"]);
}

#[test]
fn what_is_not_marked_as_the_operators_must_not_be_touched() {
    let mut court = KumaFixture::new();
    court.removes(FOREIGN_OPERATOR);
    let found = court.judge.violations();
    assert_eq!(found[0].invariant, Invariant::I3);
    assert!(found[0].message.contains(FOREIGN_OPERATOR) && found[0].message.contains("marks"), "{found:?}");
}

#[test]
fn one_tasks_registration_must_not_become_anothers() {
    let mut court = KumaFixture::new();
    let (task, mut body) = court.a_task("kv");
    let other = running(&court.cloud, "kv")[1].id().to_owned();
    body["labels"][TASK_LABEL] = other.into();
    court.puts(&task, &body);
    court.found(Invariant::I3, &[&task, "it was another task's"]);
}

#[test]
fn nobody_is_registered_without_having_earned_it() {
    let mut court = KumaFixture::new();
    let (task, mut body) = court.a_task("kv");
    court.loses_its_tag("kv");
    // Nobody may not have heard of it by now.
    court.pass(Duration::from_secs(150));
    body["networking"]["inbound"][0]["port"] = 15_001.into();
    court.puts(&task, &body);
    court.found(Invariant::I4, &[&task, "the role's tags do not allow it"]);

    let mut court = KumaFixture::new();
    let dead = court.dies("kv");
    court.removes(&dead);
    court.pass(Duration::from_mins(2));
    court.puts(&dead, &dataplane("kv", &dead, "10.0.0.1", &json!({})));
    court.found(Invariant::I4, &[&dead, "stopped long before"]);
}

#[test]
fn an_unchanged_write_and_a_shown_secret_are_found() {
    let mut court = KumaFixture::new();
    let (task, body) = court.a_task("kv");
    court.puts(&task, &body);
    court.found(Invariant::I6, &[&task, "unchanged"]);
    let mut court = KumaFixture::new();
    let mut telling = body;
    telling["labels"]["note"] = SECRET.into();
    court.puts(&task, &telling);
    court.found(Invariant::I9, &[&task, "secret"]);
    assert!(!court.judge.violations()[0].message.contains(SECRET));
}

#[test]
fn too_many_removals_that_no_stop_backs_are_too_many() {
    let mut court = KumaFixture::new();
    let services: Vec<String> = court.world.services().iter().map(|one| one.name.clone()).collect();
    for service in &services {
        court.loses_its_tag(service);
    }
    let mut tasks = court.wanted().into_iter().map(|(_, task, _)| task);
    for task in tasks.by_ref().take(6) {
        court.removes(&task);
    }
    court.found_nothing();
    for task in tasks.take(3) {
        court.removes(&task);
    }
    let found = court.judge.violations();
    assert!(!found.is_empty() && found.iter().all(|one| one.invariant == Invariant::I5), "{found:?}");
}

#[test]
fn after_quiet_leftovers_and_what_is_missing_show() {
    let mut court = KumaFixture::new();
    let quiet = |court: &mut KumaFixture, held: &dyn Fn(&str) -> bool| {
        let services = court.world.services().to_vec();
        court.judge.check_after_quiet(&court.cloud, &court.kuma, &services, held, court.now)
    };
    assert_eq!(quiet(&mut court, &|_| false), Vec::<String>::new());
    // Its service starts another, which nobody registers.
    let dead = court.dies("kv");
    let left = quiet(&mut court, &|id| id == dead);
    assert!(matches!(&left[..], [one] if one.contains("of kv runs and is not registered")), "{left:?}");
    let left = quiet(&mut court, &|_| false);
    assert!(left[0].contains(&dead) && left[0].contains("its task is gone"), "{left:?}");
    court.found(Invariant::I1, &[&dead]);
}

#[test]
fn a_wrong_address_and_a_drain_that_is_over_show() {
    let mut court = KumaFixture::new();
    let (task, body) = court.a_task("kv");
    let mut elsewhere = body.clone();
    elsewhere["networking"]["address"] = "10.9.9.9".into();
    court.puts(&task, &elsewhere);
    let services = court.world.services().to_vec();
    let missing = court.judge.check_missing(&court.cloud, &court.kuma, &services, &|_| false);
    assert_eq!(missing, [format!("task {task} of kv runs and has another address")]);
    court.drains(&task, &body);
    let missing = court.judge.check_missing(&court.cloud, &court.kuma, &services, &|_| false);
    assert_eq!(missing, [format!("task {task} of kv runs and is drained")]);
}
