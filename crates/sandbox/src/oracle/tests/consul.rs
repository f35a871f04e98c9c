//! Violations that the oracle for Consul finds.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::ConsulOracle;
use super::{
    Invariant, NEVER, OracleConfig, START, STEP, account, assert_violation, drain, oracle_config, running,
    step_for,
};
use crate::aws::Cloud;
use crate::consul::{ConsulRequest, ConsulServer};
use crate::control_planes::ControlPlanes;
use crate::kuma::{KumaConfig, KumaCp};
use crate::world::{
    CLIENT_METHOD, ConsulBootstrap, ForeignFixture, LOGIN_METHOD, MANAGEMENT_TOKEN, Naming, Rollouts,
    RoutedEvents, SERVICE_TAG, World, WorldConfig, admin_token, create_queue_and_rules, role_name,
};
use ecs_mesh_model::Timestamp;

const WITHIN: Duration = Duration::from_secs(1);

/// A world with registered tasks, and an oracle. The test acts as the operator.
struct ConsulFixture {
    cloud: Cloud,
    consul: ConsulServer,
    kuma: KumaCp,
    world: World,
    fixtures: Vec<ForeignFixture>,
    config: OracleConfig,
    oracle: ConsulOracle,
    cluster: String,
    person: String,
    now: Timestamp,
}

impl ConsulFixture {
    fn new() -> Self {
        Self::of(false)
    }

    /// With an oracle that allows the removal of revoked running tasks.
    fn removing_revoked() -> Self {
        Self::of(true)
    }

    fn of(removes_revoked: bool) -> Self {
        let (mut cloud, mut kuma) = (account(), KumaCp::new(KumaConfig::default(), START));
        let cluster = create_queue_and_rules(&mut cloud, RoutedEvents::Tasks, START).unwrap();
        let bootstrap = ConsulBootstrap {
            cluster: cluster.clone(),
            aws: "http://aws".to_owned(),
            region: "eu-west-1".to_owned(),
        };
        let mut consul = ConsulBootstrap::server(1, START);
        bootstrap.configure(&mut consul, START).unwrap();
        let config = WorldConfig {
            tasks: 20,
            seed: 1,
            interval: NEVER,
            naming: Naming::TaskId,
            control_planes: ControlPlanes::Consul,
            revoked_for: NEVER,
            rollouts: Rollouts::Simple,
            host_mode: false,
        };
        let mut world = World::start(config, &mut cloud, &mut kuma, START).unwrap();
        let fixtures = world.join_consul(&bootstrap, &mut cloud, &mut consul, START).unwrap();
        let operator = ConsulBootstrap::operator(&mut consul, START);
        let person = admin_token(&mut consul, START).unwrap();
        consul.take_journal();
        let config = oracle_config(operator, &cluster);
        let oracle = ConsulOracle::new(config.clone(), removes_revoked, fixtures.clone());
        let mut fixture =
            Self { cloud, consul, kuma, world, fixtures, config, oracle, cluster, person, now: START };
        fixture.pass(Duration::from_secs(30));
        fixture
    }

    /// Lets time pass and checks the writes of the world.
    fn pass(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while self.now < end {
            self.now = self.now.plus(step_for(time));
            self.world.step(&mut self.cloud, &mut self.kuma, Some(&mut self.consul), self.now);
            self.check_writes();
        }
    }

    fn check_writes(&mut self) {
        let journal = self.consul.take_journal();
        self.oracle.check_writes(&journal, &self.cloud, &self.consul);
    }

    fn send(&mut self, token: &str, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.consul.handle(self.now, &ConsulRequest::new(method, path, Some(token), body));
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 200, "{method} {path}: {text}");
        let body = answer.json();
        self.check_writes();
        body
    }

    /// As the operator.
    fn operator(&mut self, method: &str, path: &str, body: &Value) -> Value {
        self.send(MANAGEMENT_TOKEN, method, path, body)
    }

    /// As a platform administrator.
    fn person(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let person = self.person.clone();
        self.send(&person, method, path, body)
    }

    fn task_of(&self, service: &str) -> String {
        running(&self.cloud, service)[0].id().to_owned()
    }

    /// Logs in by the auth method of Consul clients and returns the accessor.
    fn log_in_as_client(&mut self, task: &str) -> String {
        let bootstrap = ConsulBootstrap {
            cluster: self.cluster.clone(),
            aws: "http://aws".to_owned(),
            region: "eu-west-1".to_owned(),
        };
        let role = running(&self.cloud, "demo-app")[0].task_role_arn().unwrap().to_owned();
        let meta = ConsulBootstrap::meta(&self.cluster, task);
        let (now, cloud, consul) = (self.now, &mut self.cloud, &mut self.consul);
        let token = bootstrap.log_in_by(CLIENT_METHOD, cloud, consul, (&role, &meta), now).unwrap();
        self.check_writes();
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

    fn remove_tokens(&mut self, task: &str) {
        let tokens = self.tokens_of(task);
        assert!(!tokens.is_empty(), "{task}");
        for accessor in tokens {
            self.operator("DELETE", &format!("/v1/acl/token/{accessor}"), &Value::Null);
        }
    }

    fn remove_service(&mut self, node: &str, id: &str) {
        let body = json!({"Node": node, "ServiceID": id});
        self.operator("PUT", "/v1/catalog/deregister", &body);
    }

    fn remove_services(&mut self, task: &str) {
        let (cluster, services) = (self.cluster.clone(), self.services_of(task));
        assert_eq!(services.len(), 2, "{task}");
        for id in services {
            self.remove_service(&cluster, &id);
        }
    }

    /// Kills a task, waits until it is STOPPED, and returns its id.
    fn kill(&mut self, service: &str) -> String {
        let task = self.task_of(service);
        let arn = running(&self.cloud, service)[0].arn.clone();
        assert!(self.cloud.kill_hard(&arn, self.now));
        self.pass(Duration::from_secs(3));
        task
    }

    fn remove_role_tag(&mut self, service: &str) {
        self.cloud.untag_role(&role_name(service), &[SERVICE_TAG.to_owned()], self.now).unwrap();
    }

    fn assert_violation(&self, invariant: Invariant, message: &[&str]) {
        assert_violation(self.oracle.violations(), invariant, message);
    }

    fn assert_clean(&self) {
        assert_eq!(self.oracle.violations(), []);
    }
}

#[test]
fn oracle_accepts_and_counts_correct_cleanup() {
    let mut fixture = ConsulFixture::new();
    let task = fixture.kill("kv");
    fixture.remove_tokens(&task);
    fixture.remove_services(&task);
    fixture.pass(Duration::from_secs(30));
    fixture.assert_clean();
    assert_eq!(fixture.oracle.tally().tokens, 1);
    assert_eq!(fixture.oracle.tally().services, 2);
    assert_eq!(fixture.oracle.tally().writes(), 3);
}

#[test]
fn client_token_counts_as_its_tasks_token() {
    let mut fixture = ConsulFixture::new();
    let (dead, alive) = (fixture.kill("kv"), fixture.task_of("kv"));
    for (task, expected) in [(dead, None), (alive, Some("is RUNNING"))] {
        let token = fixture.log_in_as_client(&task);
        fixture.operator("DELETE", &format!("/v1/acl/token/{token}"), &Value::Null);
        match expected {
            None => fixture.assert_clean(),
            Some(message) => fixture.assert_violation(Invariant::I2, &["removal of token", &task, message]),
        }
    }
    let another = fixture.log_in_as_client("0badc0de0badc0de0badc0de0badc0de");
    let leaks = fixture.oracle.find_leaks(&fixture.cloud, &fixture.consul, &|_| false, fixture.now);
    assert!(leaks.iter().filter(|message| message.contains("0badc0de")).count() > 4, "{another}: {leaks:?}");
}

#[test]
fn dropped_registry_entry_must_be_gone() {
    let mut fixture = ConsulFixture::new();
    let (kept, gone) = (fixture.task_of("kv"), fixture.kill("redis"));
    let known = |fixture: &ConsulFixture, task: &str| -> Vec<Arc<str>> {
        let tokens = fixture.tokens_of(task).into_iter().map(|accessor| format!("token/{accessor}"));
        let services =
            fixture.services_of(task).into_iter().map(|id| format!("service/{id}@{}", fixture.cluster));
        tokens.chain(services).map(Into::into).collect()
    };
    let (all_kept, all_gone) = (known(&fixture, &kept), known(&fixture, &gone));
    assert_eq!((all_kept.len(), all_gone.len()), (3, 3));
    let names = all_kept.iter().chain(&all_gone).cloned();
    fixture.oracle.record_known(names, &fixture.consul, fixture.now);
    fixture.remove_tokens(&gone);
    fixture.remove_services(&gone);
    fixture.oracle.record_known(all_kept.clone().into_iter(), &fixture.consul, fixture.now);
    fixture.assert_clean();
    // A restarted operator begins with an empty registry.
    fixture.oracle.record_restart();
    fixture.oracle.record_known(std::iter::empty(), &fixture.consul, fixture.now);
    fixture.oracle.record_known(all_kept.clone().into_iter(), &fixture.consul, fixture.now);
    fixture.assert_clean();
    fixture.oracle.record_known(all_kept[1..].iter().cloned(), &fixture.consul, fixture.now);
    fixture.assert_violation(Invariant::I1, &[&all_kept[0], "was dropped from the registry"]);
}

#[test]
fn recreated_service_may_be_unknown() {
    let mut fixture = ConsulFixture::new();
    let (task, cluster) = (fixture.task_of("kv"), fixture.cluster.clone());
    let id = format!("kv-{task}");
    let before = fixture.consul.services(&cluster).remove(&id).unwrap();
    fixture.oracle.record_known(
        [format!("service/{id}@{cluster}").into()].into_iter(),
        &fixture.consul,
        fixture.now,
    );
    fixture.person("PUT", "/v1/catalog/deregister", &json!({"Node": cluster, "ServiceID": id}));
    let again = json!({
        "Node": cluster, "SkipNodeUpdate": true, "Address": "127.0.0.1",
        "Service": {"ID": id, "Service": before["Service"], "Meta": before["Meta"]},
    });
    fixture.person("PUT", "/v1/catalog/register", &again);
    fixture.oracle.record_known(std::iter::empty(), &fixture.consul, fixture.now);
    fixture.assert_clean();
}

#[test]
fn writes_of_tasks_and_people_are_not_checked() {
    let mut fixture = ConsulFixture::new();
    // The task logs out, and its replacement logs in.
    let task = drain(&mut fixture.cloud, "kv", fixture.now).id().to_owned();
    fixture.pass(Duration::from_secs(30));
    assert_eq!(fixture.tokens_of(&task), Vec::<String>::new());
    let token = fixture.tokens_of(&fixture.task_of("redis")).remove(0);
    fixture.person("DELETE", &format!("/v1/acl/token/{token}"), &Value::Null);
    fixture.person("PUT", "/v1/acl/policy", &json!({"Name": "p", "Rules": ""}));
    fixture.assert_clean();
    assert_eq!(fixture.oracle.tally().writes(), 0);
}

#[test]
fn live_tasks_token_must_not_be_removed() {
    let mut fixture = ConsulFixture::new();
    let task = fixture.task_of("kv");
    fixture.remove_tokens(&task);
    fixture.assert_violation(
        Invariant::I2,
        &["removal of token", &task, "of kv is RUNNING", "without evidence"],
    );
}

#[test]
fn live_tasks_service_must_not_be_removed() {
    let mut fixture = ConsulFixture::new();
    let (task, cluster) = (fixture.task_of("kv"), fixture.cluster.clone());
    fixture.remove_service(&cluster, &format!("kv-{task}"));
    fixture.assert_violation(Invariant::I2, &["removal of service", &format!("kv-{task}"), "RUNNING"]);
    let mut fixture = ConsulFixture::new();
    let id = format!("kv-{task}-sidecar-proxy");
    let service = json!({"ID": id, "Service": "kv-sidecar-proxy"});
    let delete = json!([{"Service": {"Verb": "delete", "Node": cluster, "Service": service}}]);
    fixture.operator("PUT", "/v1/txn", &delete);
    fixture.assert_violation(Invariant::I2, &["removal of service", &id, "RUNNING"]);
}

#[test]
fn draining_task_keeps_its_token_until_stopped() {
    let mut fixture = ConsulFixture::new();
    let task = drain(&mut fixture.cloud, "kv", fixture.now).id().to_owned();
    fixture.pass(Duration::from_secs(5));
    fixture.remove_tokens(&task);
    fixture.assert_violation(Invariant::I2, &[&task, "is RUNNING (desired STOPPED)"]);
}

#[test]
fn killed_task_keeps_its_token_until_stopped() {
    let mut fixture = ConsulFixture::new();
    let task = running(&fixture.cloud, "kv").remove(0);
    assert!(fixture.cloud.kill_hard(&task.arn, fixture.now));
    fixture.remove_tokens(task.id());
    fixture.assert_violation(Invariant::I2, &[task.id(), "is DEPROVISIONING"]);
}

#[test]
fn lost_tag_allows_withdrawal_only_within_lag() {
    let mut fixture = ConsulFixture::removing_revoked();
    let task = fixture.task_of("kv");
    fixture.remove_role_tag("kv");
    fixture.pass(STEP);
    fixture.remove_tokens(&task);
    fixture.assert_clean();

    // By default a running task keeps its registrations.
    let mut fixture = ConsulFixture::new();
    fixture.remove_role_tag("kv");
    fixture.pass(STEP);
    fixture.remove_tokens(&task);
    fixture.assert_violation(Invariant::I2, &[&task]);

    // The tag is back for longer than the lag.
    let mut fixture = ConsulFixture::removing_revoked();
    fixture.remove_role_tag("kv");
    fixture.pass(STEP);
    let tags = crate::world::role_tags("kv", ControlPlanes::Consul);
    fixture.cloud.tag_role(&role_name("kv"), &tags, fixture.now).unwrap();
    fixture.pass(Duration::from_secs(150));
    fixture.remove_tokens(&task);
    fixture.assert_violation(Invariant::I2, &[&task]);
}

/// A client's token, and one that a widened binding rule gave, name no service.
#[test]
fn withdrawal_is_judged_by_the_tasks_role() {
    let mut fixture = ConsulFixture::removing_revoked();
    let task = fixture.task_of("demo-app");
    let accessor = fixture.log_in_as_client(&task);
    fixture.remove_role_tag("demo-app");
    fixture.pass(STEP);
    fixture.operator("DELETE", &format!("/v1/acl/token/{accessor}"), &Value::Null);
    fixture.assert_clean();
}

#[test]
fn fixtures_must_not_be_removed() {
    let mut fixture = ConsulFixture::new();
    let fixtures = fixture.fixtures.clone();
    assert!(fixtures.len() > 10);
    for one in fixtures.iter().rev() {
        fixture.oracle = ConsulOracle::new(fixture.config.clone(), false, vec![one.clone()]);
        match one.node() {
            None => drop(fixture.operator("DELETE", &format!("/v1/acl/token/{}", one.id()), &Value::Null)),
            Some(node) => fixture.remove_service(node, one.id()),
        }
        fixture.assert_violation(Invariant::I3, &[one.description]);
        assert_eq!(
            fixture.oracle.modified_fixtures(&fixture.consul),
            [format!("{} was modified", one.description)]
        );
    }
}

#[test]
fn fixture_changed_by_others_is_reported_as_modified() {
    let mut fixture = ConsulFixture::new();
    assert_eq!(fixture.oracle.modified_fixtures(&fixture.consul), Vec::<String>::new());
    let cluster = fixture.cluster.clone();
    fixture.person("PUT", "/v1/catalog/deregister", &json!({"Node": cluster, "ServiceID": "by-hand"}));
    fixture.assert_clean();
    assert_eq!(
        fixture.oracle.modified_fixtures(&fixture.consul),
        ["a service that a person made was modified"]
    );
}

#[test]
fn new_foreign_object_must_not_be_removed() {
    let mut fixture = ConsulFixture::new();
    let token = fixture.person("PUT", "/v1/acl/token", &json!({"Description": "a person's"}));
    let accessor = token["AccessorID"].as_str().unwrap();
    fixture.operator("DELETE", &format!("/v1/acl/token/{accessor}"), &Value::Null);
    fixture.assert_violation(Invariant::I3, &["removal of token", accessor, "does not name a task"]);
}

#[test]
fn operator_must_not_register_or_create_tokens() {
    let mut fixture = ConsulFixture::new();
    let cluster = fixture.cluster.clone();
    let body = json!({
        "Node": cluster, "SkipNodeUpdate": true, "Address": "127.0.0.1",
        "Service": {"ID": "made-up", "Service": "made-up"},
    });
    fixture.operator("PUT", "/v1/catalog/register", &body);
    fixture
        .assert_violation(Invariant::I3, &["write of service", "made-up", "only tasks register themselves"]);
    let mut fixture = ConsulFixture::new();
    fixture.operator("PUT", "/v1/acl/token", &json!({"Description": "for me"}));
    fixture.assert_violation(Invariant::I3, &["write of token"]);
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
        let mut fixture = ConsulFixture::new();
        fixture.operator("PUT", path, body);
        fixture.assert_violation(Invariant::I3, &[what, "no object of this kind is declared"]);
    }
}

#[test]
fn only_marked_declared_objects_may_change() {
    let marked = json!({"Name": "p", "Rules": "", "Description": "Gateways [ecs-mesh:op]"});
    let mut fixture = ConsulFixture::new();
    fixture.oracle = fixture.oracle.with_ownership_marker("[ecs-mesh:op]");
    let made = fixture.operator("PUT", "/v1/acl/policy", &marked);
    let path = format!("/v1/acl/policy/{}", made["ID"].as_str().unwrap());
    fixture.operator(
        "PUT",
        &path,
        &json!({"Name": "p", "Rules": "mesh = \"read\"", "Description": "[ecs-mesh:op]"}),
    );
    fixture.operator("DELETE", &path, &Value::Null);
    fixture.assert_clean();
    assert_eq!(fixture.oracle.tally().other, 3);

    let theirs = json!({"Name": "p", "Rules": "", "Description": "Gateways [ecs-mesh:other]"});
    let made = fixture.person("PUT", "/v1/acl/policy", &theirs);
    let path = format!("/v1/acl/policy/{}", made["ID"].as_str().unwrap());
    fixture.operator("PUT", &path, &marked);
    fixture.assert_violation(
        Invariant::I3,
        &["write of policy", "the ownership marker [ecs-mesh:op] is missing"],
    );

    let mut fixture = ConsulFixture::new();
    fixture.oracle = fixture.oracle.with_ownership_marker("[ecs-mesh:op]");
    let made = fixture.operator("PUT", "/v1/acl/policy", &marked);
    fixture.operator("PUT", &format!("/v1/acl/policy/{}", made["ID"].as_str().unwrap()), &marked);
    fixture.assert_violation(Invariant::I6, &["write of policy", "an unchanged object was written again"]);

    // Deleting an auth method deletes its tokens, including those of live tasks.
    let mut fixture = ConsulFixture::new();
    fixture.oracle = fixture.oracle.with_ownership_marker("[ecs-mesh:op]");
    fixture.operator("DELETE", &format!("/v1/acl/auth-method/{LOGIN_METHOD}"), &Value::Null);
    let found = |invariant| fixture.oracle.violations().iter().any(|one| one.invariant == invariant);
    assert!(found(Invariant::I2) && found(Invariant::I3), "{:?}", fixture.oracle.violations());
}

#[test]
fn leak_is_found_unless_held_by_the_guard() {
    let mut fixture = ConsulFixture::new();
    fixture.kill("redis");
    let task = fixture.kill("kv");
    let leaks = |held: &dyn Fn(&str) -> bool| -> Vec<String> {
        let leaks = fixture.oracle.find_leaks(&fixture.cloud, &fixture.consul, held, fixture.now);
        leaks.into_iter().filter(|message| message.contains(&task)).collect()
    };
    assert_eq!(leaks(&|id| id == task), Vec::<String>::new());
    let found = leaks(&|_| false);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("the token of kv"), "{found:?}");
    // The task that ECS has forgotten counts as well.
    let all = fixture.oracle.find_leaks(&fixture.cloud, &fixture.consul, &|_| false, fixture.now);
    assert!(all.iter().any(|message| message.contains("0badc0de")), "{all:?}");
}

#[test]
fn cleanup_after_the_deadline_is_a_violation() {
    let mut fixture = ConsulFixture::new();
    let task = fixture.kill("kv");
    let delivered = fixture.now;
    fixture.oracle.record_stop_delivered(&task, delivered);
    fixture.remove_services(&task);
    fixture.oracle.check_deadlines(&fixture.consul, WITHIN, delivered.plus(WITHIN));
    fixture.assert_clean();
    // The token remains.
    for _ in 0..2 {
        fixture.oracle.check_deadlines(&fixture.consul, WITHIN, delivered.plus(WITHIN).plus(STEP));
    }
    fixture.assert_violation(Invariant::I1, &["the token of kv", "1000 ms after the stop event", &task]);
}

#[test]
fn deadline_ignores_timely_and_disturbed_cleanup() {
    let mut fixture = ConsulFixture::new();
    let (gone, disturbed, killed) = (fixture.kill("kv"), fixture.kill("redis"), fixture.kill("demo-app"));
    let delivered = fixture.now;
    fixture.oracle.record_stop_delivered(&gone, delivered);
    fixture.remove_tokens(&gone);
    fixture.remove_services(&gone);
    let after = delivered.plus(Duration::from_mins(1));
    fixture.oracle.check_deadlines(&fixture.consul, WITHIN, after);
    fixture.oracle.record_stop_delivered(&disturbed, delivered);
    fixture.oracle.record_disturbance();
    fixture.oracle.check_deadlines(&fixture.consul, WITHIN, after);
    fixture.oracle.record_stop_delivered(&killed, delivered);
    fixture.oracle.record_restart();
    fixture.oracle.check_deadlines(&fixture.consul, WITHIN, after);
    fixture.assert_clean();
}

#[test]
fn running_task_must_be_registered() {
    let mut fixture = ConsulFixture::new();
    let task = fixture.task_of("kv");
    let missing = |fixture: &ConsulFixture, but: &dyn Fn(&str) -> bool| {
        fixture.oracle.find_missing(&fixture.cloud, &fixture.consul, but, fixture.now)
    };
    assert_eq!(missing(&fixture, &|_| false), Vec::<String>::new());
    fixture.remove_tokens(&task);
    fixture.remove_services(&task);
    assert_eq!(
        missing(&fixture, &|_| false),
        [format!("task {task} of kv is running and has no registration at Consul")]
    );
    assert_eq!(missing(&fixture, &|id| id == task), Vec::<String>::new());
}

/// Removes the registrations of this many running tasks, about 66 objects in all, after their roles lose the tag.
fn remove_revoked_tasks(fixture: &mut ConsulFixture, tasks: usize) {
    let services: Vec<String> = fixture.world.services().iter().map(|one| one.name.clone()).collect();
    for service in &services {
        fixture.remove_role_tag(service);
    }
    fixture.pass(STEP);
    let all = services.iter().flat_map(|service| running(&fixture.cloud, service));
    let all = all.map(|task| task.id().to_owned()).filter(|task| !fixture.tokens_of(task).is_empty());
    let all: Vec<_> = all.take(tasks).collect();
    assert_eq!(all.len(), tasks);
    for task in all {
        fixture.remove_tokens(&task);
        fixture.remove_services(&task);
    }
}

#[test]
fn removals_above_the_guard_limit_are_violations() {
    let mut fixture = ConsulFixture::removing_revoked();
    remove_revoked_tasks(&mut fixture, 6);
    fixture.assert_clean();
    let mut fixture = ConsulFixture::removing_revoked();
    remove_revoked_tasks(&mut fixture, 10);
    let found = fixture.oracle.violations();
    assert!(!found.is_empty() && found.iter().all(|one| one.invariant == Invariant::I5), "{found:?}");
    assert!(found[0].message.contains("removed within an hour without a STOPPED task"), "{found:?}");
}

#[test]
fn guard_window_resets_per_hour_and_process() {
    let mut fixture = ConsulFixture::removing_revoked();
    remove_revoked_tasks(&mut fixture, 6);
    fixture.now = fixture.now.plus(Duration::from_hours(1));
    fixture.cloud.step(fixture.now);
    remove_revoked_tasks(&mut fixture, 3);
    fixture.oracle.record_restart();
    remove_revoked_tasks(&mut fixture, 3);
    fixture.assert_clean();
    let mut fixture = ConsulFixture::new();
    let mut dead = Vec::new();
    for service in ["kv", "demo-app", "svc-01", "svc-02", "svc-03"] {
        dead.extend([fixture.kill(service), fixture.kill(service)]);
    }
    for task in dead {
        fixture.remove_tokens(&task);
        fixture.remove_services(&task);
    }
    fixture.assert_clean();
}

/// A replica counts its own removals, those before another one led included.
#[test]
fn replica_that_leads_again_keeps_its_hour() {
    for (process, is_violation) in [("a", true), ("c", false)] {
        let mut fixture = ConsulFixture::removing_revoked();
        ["a", "b", "c"].into_iter().for_each(|replica| fixture.oracle.record_start(replica));
        for leader in ["a", "b", process] {
            fixture.assert_clean();
            fixture.oracle.record_takeover(leader);
            remove_revoked_tasks(&mut fixture, 5);
        }
        let found = fixture.oracle.violations();
        assert_eq!(!found.is_empty(), is_violation, "{process}: {found:?}");
        assert!(found.iter().all(|one| one.invariant == Invariant::I5), "{found:?}");
    }
}

#[test]
fn late_removals_of_an_ended_process_do_not_count() {
    let mut fixture = ConsulFixture::removing_revoked();
    fixture.oracle.record_restart();
    fixture.oracle.record_sender(true);
    remove_revoked_tasks(&mut fixture, 4);
    fixture.oracle.record_sender(false);
    remove_revoked_tasks(&mut fixture, 6);
    fixture.assert_clean();
}

/// Deregisters and logs out this many tasks in one batch of writes, as tasks do that ECS stops together.
fn leave_together(fixture: &mut ConsulFixture, tasks: usize) {
    let services: Vec<String> = fixture.world.services().iter().map(|one| one.name.clone()).collect();
    let all = services.iter().flat_map(|service| running(&fixture.cloud, service));
    let all: Vec<String> = all.map(|task| task.id().to_owned()).take(tasks).collect();
    assert_eq!(all.len(), tasks);
    let (person, cluster) = (fixture.person.clone(), fixture.cluster.clone());
    for task in all {
        let tokens = fixture.tokens_of(&task).into_iter();
        let tokens = tokens.map(|id| ("DELETE", format!("/v1/acl/token/{id}"), Value::Null));
        let services = fixture.services_of(&task).into_iter();
        let services = services.map(|id| {
            ("PUT", "/v1/catalog/deregister".to_owned(), json!({"Node": cluster, "ServiceID": id}))
        });
        for (method, path, body) in tokens.chain(services).collect::<Vec<_>>() {
            let request = ConsulRequest::new(method, &path, Some(&person), &body);
            assert_eq!(fixture.consul.handle(fixture.now, &request).status, 200, "{method} {path}");
        }
    }
    fixture.check_writes();
}

/// A restarted operator lists what exists before a task leaves: 19 of about 66 objects may go, and 14 of the 48 that
/// are left once six tasks have left.
#[test]
fn restart_counts_what_was_owned_before_tasks_left() {
    let mut fixture = ConsulFixture::removing_revoked();
    fixture.oracle.record_restart();
    leave_together(&mut fixture, 6);
    remove_revoked_tasks(&mut fixture, 6);
    fixture.assert_clean();
    let mut fixture = ConsulFixture::removing_revoked();
    leave_together(&mut fixture, 6);
    fixture.oracle.record_restart();
    remove_revoked_tasks(&mut fixture, 6);
    assert!(fixture.oracle.violations().iter().any(|one| one.invariant == Invariant::I5));
}
