//! What the judge of Consul finds.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::ConsulOracle;
use super::{Invariant, NEVER, OracleConfig, START, STEP, account, drain, is, rules, running, step_of};
use crate::aws::Cloud;
use crate::consul::{ConsulRequest, ConsulServer};
use crate::kuma::{KumaConfig, KumaCp};
use crate::control_planes::ControlPlanes;
use crate::world::{
    CLIENT_METHOD, ConsulBootstrap, LOGIN_METHOD, MANAGEMENT_TOKEN, Naming, ForeignFixture, SERVICE_TAG, World,
    WorldConfig, human_token, create_queue_and_rules, role_name,
};
use ecs_mesh_model::Timestamp;

const WITHIN: Duration = Duration::from_secs(1);

/// A world whose tasks have joined, an operator that the test plays, and the judge.
struct ConsulFixture {
    cloud: Cloud,
    consul: ConsulServer,
    kuma: KumaCp,
    world: World,
    fixtures: Vec<ForeignFixture>,
    rules: OracleConfig,
    judge: ConsulOracle,
    cluster: String,
    person: String,
    now: Timestamp,
}

impl ConsulFixture {
    fn new() -> Self {
        Self::of(false)
    }

    /// Where running tasks lose what they have when their role's tags go.
    fn that_withdraws() -> Self {
        Self::of(true)
    }

    fn of(withdraws: bool) -> Self {
        let (mut cloud, mut kuma) = (account(), KumaCp::new(KumaConfig::default(), START));
        let cluster = create_queue_and_rules(&mut cloud, START).unwrap();
        let home = ConsulBootstrap {
            cluster: cluster.clone(),
            aws: "http://aws".to_owned(),
            region: "eu-west-1".to_owned(),
        };
        let mut consul = ConsulBootstrap::server(1, START);
        home.configure(&mut consul, START).unwrap();
        let config = WorldConfig {
            tasks: 20,
            seed: 1,
            interval: NEVER,
            naming: Naming::TaskId,
            control_planes: ControlPlanes::Consul,
            revoked_for: NEVER,
        };
        let mut world = World::start(config, &mut cloud, &mut kuma, START).unwrap();
        let fixtures = world.join_consul(&home, &mut cloud, &mut consul, START).unwrap();
        let operator = ConsulBootstrap::operator(&mut consul, START);
        let person = human_token(&mut consul, START).unwrap();
        consul.take_journal();
        let rules = rules(operator, &cluster);
        let judge = ConsulOracle::new(rules.clone(), withdraws, fixtures.clone());
        let mut court =
            Self { cloud, consul, kuma, world, fixtures, rules, judge, cluster, person, now: START };
        court.pass(Duration::from_secs(30));
        court
    }

    /// What happens of itself meanwhile, the judge sees too.
    fn pass(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while self.now < end {
            self.now = self.now.plus(step_of(time));
            self.world.step(&mut self.cloud, &mut self.kuma, Some(&mut self.consul), self.now);
            self.judges();
        }
    }

    fn judges(&mut self) {
        let journal = self.consul.take_journal();
        self.judge.writes(&journal, &self.cloud, &self.consul);
    }

    fn send(&mut self, token: &str, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.consul.handle(self.now, &ConsulRequest::new(method, path, Some(token), body));
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 200, "{method} {path}: {text}");
        let body = answer.json();
        self.judges();
        body
    }

    /// As the operator.
    fn operator(&mut self, method: &str, path: &str, body: &Value) -> Value {
        self.send(MANAGEMENT_TOKEN, method, path, body)
    }

    /// As somebody with every power.
    fn person(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let person = self.person.clone();
        self.send(&person, method, path, body)
    }

    fn a_task(&self, service: &str) -> String {
        running(&self.cloud, service)[0].id().to_owned()
    }

    /// By the method of the manual set-up's clients. Gives the accessor.
    fn logs_in_as_a_client(&mut self, task: &str) -> String {
        let home = ConsulBootstrap {
            cluster: self.cluster.clone(),
            aws: "http://aws".to_owned(),
            region: "eu-west-1".to_owned(),
        };
        let role = running(&self.cloud, "demo-app")[0].task_role_arn().unwrap().to_owned();
        let meta = ConsulBootstrap::meta(&self.cluster, task);
        let (now, cloud, consul) = (self.now, &mut self.cloud, &mut self.consul);
        let token = home.log_in_by(CLIENT_METHOD, cloud, consul, (&role, &meta), now).unwrap();
        self.judges();
        token["AccessorID"].as_str().unwrap().to_owned()
    }

    fn tokens_of(&self, task: &str) -> Vec<String> {
        let of = |token: &Value| {
            token["AuthMethod"] == LOGIN_METHOD && token["Description"].as_str().unwrap().contains(task)
        };
        self.consul
            .tokens()
            .filter(of)
            .map(|token| token["AccessorID"].as_str().unwrap().to_owned())
            .collect()
    }

    fn services_of(&self, task: &str) -> Vec<String> {
        self.consul.services(&self.cluster).into_keys().filter(|id| id.contains(task)).collect()
    }

    fn removes_tokens(&mut self, task: &str) {
        let tokens = self.tokens_of(task);
        assert!(!tokens.is_empty(), "{task}");
        for accessor in tokens {
            self.operator("DELETE", &format!("/v1/acl/token/{accessor}"), &Value::Null);
        }
    }

    fn removes_service(&mut self, node: &str, id: &str) {
        let body = json!({"Node": node, "ServiceID": id});
        self.operator("PUT", "/v1/catalog/deregister", &body);
    }

    fn removes_services(&mut self, task: &str) {
        let (cluster, services) = (self.cluster.clone(), self.services_of(task));
        assert_eq!(services.len(), 2, "{task}");
        for id in services {
            self.removes_service(&cluster, &id);
        }
    }

    /// A task that dies, and is known to be STOPPED by the end of this.
    fn dies(&mut self, service: &str) -> String {
        let task = self.a_task(service);
        let arn = running(&self.cloud, service)[0].arn.clone();
        assert!(self.cloud.kill_hard(&arn, self.now));
        self.pass(Duration::from_secs(3));
        task
    }

    fn loses_its_tag(&mut self, service: &str) {
        self.cloud.untag_role(&role_name(service), &[SERVICE_TAG.to_owned()], self.now).unwrap();
    }

    fn report(&self, invariant: Invariant, message: &[&str]) {
        is(self.judge.violations(), invariant, message);
    }

    fn found_nothing(&self) {
        assert_eq!(self.judge.violations(), []);
    }
}

#[test]
fn oracle_accepts_and_counts_correct_cleanup() {
    let mut court = ConsulFixture::new();
    let task = court.dies("kv");
    court.removes_tokens(&task);
    court.removes_services(&task);
    court.pass(Duration::from_secs(30));
    court.found_nothing();
    assert_eq!(court.judge.tally().tokens, 1);
    assert_eq!(court.judge.tally().services, 2);
    assert_eq!(court.judge.tally().writes(), 3);
}

#[test]
fn a_clients_token_is_its_tasks() {
    let mut court = ConsulFixture::new();
    let (dead, alive) = (court.dies("kv"), court.a_task("kv"));
    for (task, expected) in [(dead, None), (alive, Some("is RUNNING"))] {
        let token = court.logs_in_as_a_client(&task);
        court.operator("DELETE", &format!("/v1/acl/token/{token}"), &Value::Null);
        match expected {
            None => court.found_nothing(),
            Some(message) => court.found(Invariant::I2, &["removal of token", &task, message]),
        }
    }
    let another = court.logs_in_as_a_client("0badc0de0badc0de0badc0de0badc0de");
    let leaks = court.judge.check_secret_leaks(&court.cloud, &court.consul, &|_| false, court.now);
    assert!(leaks.iter().filter(|message| message.contains("0badc0de")).count() > 4, "{another}: {leaks:?}");
}

#[test]
fn what_the_operator_forgets_has_to_be_gone() {
    let mut court = ConsulFixture::new();
    let (kept, gone) = (court.a_task("kv"), court.dies("redis"));
    let known = |court: &ConsulFixture, task: &str| -> Vec<Arc<str>> {
        let tokens = court.tokens_of(task).into_iter().map(|accessor| format!("token/{accessor}"));
        let services =
            court.services_of(task).into_iter().map(|id| format!("service/{id}@{}", court.cluster));
        tokens.chain(services).map(Into::into).collect()
    };
    let (all_kept, all_gone) = (known(&court, &kept), known(&court, &gone));
    assert_eq!((all_kept.len(), all_gone.len()), (3, 3));
    let names = all_kept.iter().chain(&all_gone).cloned();
    court.judge.knows(names, &court.consul, court.now);
    court.removes_tokens(&gone);
    court.removes_services(&gone);
    court.judge.knows(all_kept.clone().into_iter(), &court.consul, court.now);
    court.found_nothing();
    // Another process begins anew.
    court.judge.restarted();
    court.judge.knows(std::iter::empty(), &court.consul, court.now);
    court.judge.knows(all_kept.clone().into_iter(), &court.consul, court.now);
    court.found_nothing();
    court.judge.knows(all_kept[1..].iter().cloned(), &court.consul, court.now);
    court.found(Invariant::I1, &[&all_kept[0], "is forgotten, and it is there"]);
}

#[test]
fn what_was_made_anew_need_not_be_known() {
    let mut court = ConsulFixture::new();
    let (task, cluster) = (court.a_task("kv"), court.cluster.clone());
    let id = format!("kv-{task}");
    let before = court.consul.services(&cluster).remove(&id).unwrap();
    court.judge.knows([format!("service/{id}@{cluster}").into()].into_iter(), &court.consul, court.now);
    court.person("PUT", "/v1/catalog/deregister", &json!({"Node": cluster, "ServiceID": id}));
    let again = json!({
        "Node": cluster, "SkipNodeUpdate": true, "Address": "127.0.0.1",
        "Service": {"ID": id, "Service": before["Service"], "Meta": before["Meta"]},
    });
    court.person("PUT", "/v1/catalog/register", &again);
    court.judge.knows(std::iter::empty(), &court.consul, court.now);
    court.found_nothing();
}

#[test]
fn what_tasks_and_people_do_themselves_is_theirs() {
    let mut court = ConsulFixture::new();
    // It logs out, and another logs in.
    let task = drain(&mut court.cloud, "kv", court.now).id().to_owned();
    court.pass(Duration::from_secs(30));
    assert_eq!(court.tokens_of(&task), Vec::<String>::new());
    let token = court.tokens_of(&court.a_task("redis")).remove(0);
    court.person("DELETE", &format!("/v1/acl/token/{token}"), &Value::Null);
    court.person("PUT", "/v1/acl/policy", &json!({"Name": "p", "Rules": ""}));
    court.found_nothing();
    assert_eq!(court.judge.tally().writes(), 0);
}

#[test]
fn a_live_tasks_token_must_not_go() {
    let mut court = ConsulFixture::new();
    let task = court.a_task("kv");
    court.removes_tokens(&task);
    court.found(Invariant::I2, &["removal of token", &task, "of kv is RUNNING", "nothing excuses it"]);
}

#[test]
fn a_live_tasks_service_must_not_go_by_either_way() {
    let mut court = ConsulFixture::new();
    let (task, cluster) = (court.a_task("kv"), court.cluster.clone());
    court.removes_service(&cluster, &format!("kv-{task}"));
    court.found(Invariant::I2, &["removal of service", &format!("kv-{task}"), "RUNNING"]);
    let mut court = ConsulFixture::new();
    let id = format!("kv-{task}-sidecar-proxy");
    let service = json!({"ID": id, "Service": "kv-sidecar-proxy"});
    let delete = json!([{"Service": {"Verb": "delete", "Node": cluster, "Service": service}}]);
    court.operator("PUT", "/v1/txn", &delete);
    court.found(Invariant::I2, &["removal of service", &id, "RUNNING"]);
}

#[test]
fn a_draining_task_keeps_its_token_until_it_has_stopped() {
    let mut court = ConsulFixture::new();
    let task = drain(&mut court.cloud, "kv", court.now).id().to_owned();
    court.pass(Duration::from_secs(5));
    court.removes_tokens(&task);
    court.found(Invariant::I2, &[&task, "is RUNNING and wanted STOPPED"]);
}

#[test]
fn a_task_that_dies_keeps_its_token_until_it_has_stopped() {
    let mut court = ConsulFixture::new();
    let task = running(&court.cloud, "kv").remove(0);
    assert!(court.cloud.kill_hard(&task.arn, court.now));
    court.removes_tokens(task.id());
    court.found(Invariant::I2, &[task.id(), "is DEPROVISIONING"]);
}

#[test]
fn lost_tag_allows_withdrawal_only_within_lag() {
    let mut court = ConsulFixture::that_withdraws();
    let task = court.a_task("kv");
    court.loses_its_tag("kv");
    court.pass(STEP);
    court.removes_tokens(&task);
    court.found_nothing();

    // By default a running task keeps what it has.
    let mut court = ConsulFixture::new();
    court.loses_its_tag("kv");
    court.pass(STEP);
    court.removes_tokens(&task);
    court.found(Invariant::I2, &[&task]);

    // It has it back for longer than anybody may not have heard of it.
    let mut court = ConsulFixture::that_withdraws();
    court.loses_its_tag("kv");
    court.pass(STEP);
    let tags = crate::world::role_tags("kv", ControlPlanes::Consul);
    court.cloud.tag_role(&role_name("kv"), &tags, court.now).unwrap();
    court.pass(Duration::from_secs(150));
    court.removes_tokens(&task);
    court.found(Invariant::I2, &[&task]);
}

#[test]
fn whatever_others_have_left_must_not_go() {
    let mut court = ConsulFixture::new();
    let fixtures = court.fixtures.clone();
    assert!(fixtures.len() > 10);
    for one in fixtures.iter().rev() {
        court.judge = ConsulOracle::new(court.rules.clone(), false, vec![one.clone()]);
        match one.node() {
            None => drop(court.operator("DELETE", &format!("/v1/acl/token/{}", one.id()), &Value::Null)),
            Some(node) => court.removes_service(node, one.id()),
        }
        court.found(Invariant::I3, &[one.what]);
        assert_eq!(court.judge.modified_fixtures(&court.consul), [format!("{} is not as it was", one.what)]);
    }
}

#[test]
fn what_somebody_else_did_to_it_shows_at_the_end() {
    let mut court = ConsulFixture::new();
    assert_eq!(court.judge.modified_fixtures(&court.consul), Vec::<String>::new());
    let cluster = court.cluster.clone();
    court.person("PUT", "/v1/catalog/deregister", &json!({"Node": cluster, "ServiceID": "by-hand"}));
    court.found_nothing();
    assert_eq!(court.judge.modified_fixtures(&court.consul), ["a service that a person made is not as it was"]);
}

#[test]
fn new_foreign_object_must_not_be_removed() {
    let mut court = ConsulFixture::new();
    let token = court.person("PUT", "/v1/acl/token", &json!({"Description": "a person's"}));
    let accessor = token["AccessorID"].as_str().unwrap();
    court.operator("DELETE", &format!("/v1/acl/token/{accessor}"), &Value::Null);
    court.found(Invariant::I3, &["removal of token", accessor, "does not name a task"]);
}

#[test]
fn the_operator_registers_and_changes_nothing() {
    let mut court = ConsulFixture::new();
    let cluster = court.cluster.clone();
    let body = json!({
        "Node": cluster, "SkipNodeUpdate": true, "Address": "127.0.0.1",
        "Service": {"ID": "made-up", "Service": "made-up"},
    });
    court.operator("PUT", "/v1/catalog/register", &body);
    court.found(Invariant::I3, &["write of service", "made-up", "tasks register themselves"]);
    let mut court = ConsulFixture::new();
    court.operator("PUT", "/v1/acl/token", &json!({"Description": "for me"}));
    court.found(Invariant::I3, &["write of token"]);
}

#[test]
fn undeclared_objects_must_not_be_written() {
    let policy = json!({"Name": "p", "Rules": "", "Description": "mine [ecs-mesh:op]"});
    let rule = json!({"AuthMethod": LOGIN_METHOD, "BindType": "service", "BindName": "x"});
    let node = json!({"Node": "other", "Address": "127.0.0.1"});
    for (what, path, body) in [
        ("write of policy", "/v1/acl/policy", &policy),
        ("write of binding-rule", "/v1/acl/binding-rule", &rule),
        ("write of node", "/v1/catalog/register", &node),
    ] {
        let mut court = ConsulFixture::new();
        court.operator("PUT", path, body);
        court.found(Invariant::I3, &[what, "nothing of the kind is declared"]);
    }
}

#[test]
fn only_marked_declared_objects_may_change() {
    let marked = json!({"Name": "p", "Rules": "", "Description": "Gateways [ecs-mesh:op]"});
    let mut court = ConsulFixture::new();
    court.judge = court.judge.with_fixtures("[ecs-mesh:op]");
    let made = court.operator("PUT", "/v1/acl/policy", &marked);
    let path = format!("/v1/acl/policy/{}", made["ID"].as_str().unwrap());
    court.operator(
        "PUT",
        &path,
        &json!({"Name": "p", "Rules": "mesh = \"read\"", "Description": "[ecs-mesh:op]"}),
    );
    court.operator("DELETE", &path, &Value::Null);
    court.found_nothing();
    assert_eq!(court.judge.tally().other, 3);

    let theirs = json!({"Name": "p", "Rules": "", "Description": "Gateways [ecs-mesh:other]"});
    let made = court.person("PUT", "/v1/acl/policy", &theirs);
    let path = format!("/v1/acl/policy/{}", made["ID"].as_str().unwrap());
    court.operator("PUT", &path, &marked);
    court.found(Invariant::I3, &["write of policy", "does not bear the mark"]);

    let mut court = ConsulFixture::new();
    court.judge = court.judge.with_fixtures("[ecs-mesh:op]");
    let made = court.operator("PUT", "/v1/acl/policy", &marked);
    court.operator("PUT", &format!("/v1/acl/policy/{}", made["ID"].as_str().unwrap()), &marked);
    court.found(Invariant::I6, &["write of policy", "written again as it was"]);

    // A deleted method takes its tokens with it: those of live tasks, too.
    let mut court = ConsulFixture::new();
    court.judge = court.judge.with_fixtures("[ecs-mesh:op]");
    court.operator("DELETE", &format!("/v1/acl/auth-method/{LOGIN_METHOD}"), &Value::Null);
    let found = |invariant| court.judge.violations().iter().any(|one| one.invariant == invariant);
    assert!(found(Invariant::I2) && found(Invariant::I3), "{:?}", court.judge.violations());
}

#[test]
fn a_leftover_shows_unless_a_guard_holds_it() {
    let mut court = ConsulFixture::new();
    court.dies("redis");
    let task = court.dies("kv");
    let leaks = |held: &dyn Fn(&str) -> bool| -> Vec<String> {
        let leaks = court.judge.check_secret_leaks(&court.cloud, &court.consul, held, court.now);
        leaks.into_iter().filter(|message| message.contains(&task)).collect()
    };
    assert_eq!(leaks(&|id| id == task), Vec::<String>::new());
    let found = leaks(&|_| false);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("the token of kv"), "{found:?}");
    // Of a task that ECS has forgotten, too.
    let all = court.judge.check_secret_leaks(&court.cloud, &court.consul, &|_| false, court.now);
    assert!(all.iter().any(|message| message.contains("0badc0de")), "{all:?}");
}

#[test]
fn cleanup_after_the_deadline_is_a_violation() {
    let mut court = ConsulFixture::new();
    let task = court.dies("kv");
    let stops_delivered = court.now;
    court.judge.record_stop_delivered(&task, stops_delivered);
    court.removes_services(&task);
    court.judge.check_deadlines(&court.consul, WITHIN, stops_delivered.plus(WITHIN));
    court.found_nothing();
    // The token is still there.
    for _ in 0..2 {
        court.judge.check_deadlines(&court.consul, WITHIN, stops_delivered.plus(WITHIN).plus(STEP));
    }
    court.found(Invariant::I1, &["the token of kv", "1000 ms", &task]);
}

#[test]
fn who_was_in_time_or_disturbed_is_not_late() {
    let mut court = ConsulFixture::new();
    let (gone, disturbed, killed) = (court.dies("kv"), court.dies("redis"), court.dies("demo-app"));
    let stops_delivered = court.now;
    court.judge.record_stop_delivered(&gone, stops_delivered);
    court.removes_tokens(&gone);
    court.removes_services(&gone);
    let after = stops_delivered.plus(Duration::from_mins(1));
    court.judge.check_deadlines(&court.consul, WITHIN, after);
    court.judge.record_stop_delivered(&disturbed, stops_delivered);
    court.judge.is_disturbed();
    court.judge.check_deadlines(&court.consul, WITHIN, after);
    court.judge.record_stop_delivered(&killed, stops_delivered);
    court.judge.restarted();
    court.judge.check_deadlines(&court.consul, WITHIN, after);
    court.found_nothing();
}

#[test]
fn running_task_must_be_registered() {
    let mut court = ConsulFixture::new();
    let task = court.a_task("kv");
    let missing = |court: &ConsulFixture, but: &dyn Fn(&str) -> bool| {
        court.judge.check_missing(&court.cloud, &court.consul, but, court.now)
    };
    assert_eq!(missing(&court, &|_| false), Vec::<String>::new());
    court.removes_tokens(&task);
    court.removes_services(&task);
    assert_eq!(missing(&court, &|_| false), [format!("task {task} of kv runs and has nothing at Consul")]);
    assert_eq!(missing(&court, &|id| id == task), Vec::<String>::new());
}

/// Of about 66 objects, so many of running tasks go, which their roles allow.
fn withdraws(court: &mut ConsulFixture, tasks: usize) {
    let services: Vec<String> = court.world.services().iter().map(|one| one.name.clone()).collect();
    for service in &services {
        court.loses_its_tag(service);
    }
    court.pass(STEP);
    let all = services.iter().flat_map(|service| running(&court.cloud, service));
    let all = all.map(|task| task.id().to_owned()).filter(|task| !court.tokens_of(task).is_empty());
    let all: Vec<_> = all.take(tasks).collect();
    assert_eq!(all.len(), tasks);
    for task in all {
        court.removes_tokens(&task);
        court.removes_services(&task);
    }
}

#[test]
fn too_many_removals_that_no_stop_backs_are_too_many() {
    let mut court = ConsulFixture::that_withdraws();
    withdraws(&mut court, 6);
    court.found_nothing();
    let mut court = ConsulFixture::that_withdraws();
    withdraws(&mut court, 10);
    let found = court.judge.violations();
    assert!(!found.is_empty() && found.iter().all(|one| one.invariant == Invariant::I5), "{found:?}");
    assert!(found[0].message.contains("went within an hour without a STOPPED"), "{found:?}");
}

#[test]
fn guard_window_resets_per_hour_and_process() {
    let mut court = ConsulFixture::that_withdraws();
    withdraws(&mut court, 6);
    court.now = court.now.plus(Duration::from_hours(1));
    court.cloud.step(court.now);
    withdraws(&mut court, 3);
    court.judge.restarted();
    withdraws(&mut court, 3);
    court.found_nothing();
    let mut court = ConsulFixture::new();
    let mut dead = Vec::new();
    for service in ["kv", "demo-app", "svc-01", "svc-02", "svc-03"] {
        dead.extend([court.dies(service), court.dies(service)]);
    }
    for task in dead {
        court.removes_tokens(&task);
        court.removes_services(&task);
    }
    court.found_nothing();
}
