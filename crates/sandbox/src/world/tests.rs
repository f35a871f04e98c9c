//! Deployments of the world's services, seen from ECS and from the mesh.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{
    CLUSTER, MESH, Naming, QUEUE, Rollout, Rollouts, RoutedEvents, ScenarioService, ServingTasks, World,
    WorldConfig, ZoneProxyGeneration, can_serve, create_queue_and_rules, deploy, deploy_gateway,
    deploy_zone_proxies, route_deployments, serving_tasks,
};
use crate::aws::{Cloud, CloudConfig, CloudTask, LifeTimes, ReceiveMessages, UpdateService};
use crate::control_planes::ControlPlanes;
use crate::kuma::{EmulatedRelease, KumaConfig, KumaCp, KumaRequest, takes_traffic};
use ecs_mesh_model::{DesiredStatus, LastStatus, Timestamp};

const START: Timestamp = Timestamp(1_800_000_000_000);
const STEP: Duration = Duration::from_millis(100);
const NEVER: (Duration, Duration) = (Duration::from_hours(1_000), Duration::from_hours(1_000));
/// How long tasks without a health check must run to count.
const WAIT: Duration = Duration::from_secs(10);

/// A world whose tasks are registered as an operator would, and never drained.
struct WorldFixture {
    cloud: Cloud,
    kuma: KumaCp,
    world: World,
    now: Timestamp,
}

impl WorldFixture {
    fn new(rollouts: Rollouts, seed: u64, interval: (Duration, Duration)) -> Self {
        Self::at(KumaConfig::default().release, rollouts, seed, interval)
    }

    fn at(release: EmulatedRelease, rollouts: Rollouts, seed: u64, interval: (Duration, Duration)) -> Self {
        let life = LifeTimes { unchecked_healthy: WAIT, time_scale: 1.0, ..LifeTimes::default() };
        let mut cloud = Cloud::new(CloudConfig { seed, life, ..CloudConfig::default() }, START);
        let mut kuma = KumaCp::new(KumaConfig { release, ..KumaConfig::default() }, START);
        create_queue_and_rules(&mut cloud, RoutedEvents::Tasks, START).unwrap();
        let config = WorldConfig {
            tasks: 12,
            seed,
            interval,
            naming: Naming::TaskId,
            control_planes: ControlPlanes::Kuma,
            revoked_for: (Duration::from_secs(10), Duration::from_secs(20)),
            rollouts,
            host_mode: false,
        };
        let world = World::start(config, &mut cloud, &mut kuma, START).unwrap();
        Self { cloud, kuma, world, now: START }
    }

    /// A step of the world. Registers each task that has an address.
    fn step(&mut self) {
        self.now = self.now.plus(STEP);
        self.world.step(&mut self.cloud, &mut self.kuma, None, self.now);
        let is_new = |task: &&Arc<CloudTask>| {
            task.desired_status == DesiredStatus::Running
                && task.address().is_some()
                && !self.kuma.dataplanes().any(|(_, name, _)| name == task.id())
        };
        let new: Vec<_> = self.cloud.all_tasks().filter(is_new).cloned().collect();
        for task in new {
            let port = self.world.services().iter().find(|service| service.name == task.family);
            let path = format!("/meshes/{MESH}/dataplanes/{}", task.id());
            let body = dataplane(&task, port.map_or(8_080, |service| service.app_port)).to_string();
            let request = KumaRequest::json("PUT", &path, body.into_bytes());
            assert_eq!(self.kuma.handle(self.now, &request).status, 201);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while self.now < end {
            self.step();
        }
    }

    fn redeploy(&mut self, service: &str, (least, most): (u16, u16)) {
        let limits = json!({"minimumHealthyPercent": least, "maximumPercent": most});
        let request = UpdateService {
            cluster: CLUSTER.to_owned(),
            service: service.to_owned(),
            force_new_deployment: true,
            deployment_configuration: Some(limits),
            ..UpdateService::default()
        };
        self.cloud.update_service(&request, self.now).unwrap();
    }

    fn tasks(&self, service: &str) -> Vec<Arc<CloudTask>> {
        self.cloud.all_tasks().filter(|task| task.service() == Some(service)).cloned().collect()
    }

    fn routed(&self, task: &CloudTask) -> bool {
        self.kuma.dataplanes().any(|(_, name, body)| name == task.id() && takes_traffic(body))
    }

    fn serving(&self, service: &str) -> ServingTasks {
        serving_tasks(&self.cloud, self.now).remove(&(MESH, service.to_owned())).unwrap_or_default()
    }
}

fn dataplane(task: &CloudTask, app_port: u16) -> Value {
    json!({
        "type": "Dataplane",
        "mesh": MESH,
        "name": task.id(),
        "labels": {"kuma.io/workload": task.family},
        "networking": {
            "address": task.address().unwrap(),
            "inbound": [{
                "port": 15_000,
                "servicePort": app_port,
                "tags": {"kuma.io/service": task.family},
                "state": "NotReady",
                "serviceProbe": {"tcp": {}},
            }],
        },
    })
}

#[test]
fn sidecars_are_ready_at_every_release_and_through_an_upgrade() {
    for release in [EmulatedRelease::V2_7, EmulatedRelease::V2_14, EmulatedRelease::V3_0] {
        let mut fixture = WorldFixture::at(release, Rollouts::Ordered, 1, NEVER);
        fixture.pass(Duration::from_secs(30));
        let online = |fixture: &WorldFixture| {
            let all = fixture.cloud.all_tasks().filter(|task| task.last_status == LastStatus::Running);
            all.filter(|task| fixture.kuma.is_online(MESH, task.id())).count()
        };
        let running = online(&fixture);
        assert!(running >= 12, "{release} {running}");
        assert_eq!(fixture.world.task_counts().sidecars_lost, 0, "{release}");
        fixture.kuma.upgrade(EmulatedRelease::V3_0, fixture.now);
        fixture.pass(Duration::from_secs(10));
        assert_eq!(online(&fixture), running, "{release}");
    }
}

#[test]
fn new_tasks_are_ready_in_the_mesh_before_old_ones_stop() {
    // Without a health check, with one, and where the limits let ECS stop old tasks at once.
    for (service, limits, ready_at_stop) in
        [("demo-app", (100, 200), 2), ("kv", (100, 200), 2), ("kv", (0, 100), 0)]
    {
        let mut fixture = WorldFixture::new(Rollouts::Ordered, 1, NEVER);
        fixture.pass(Duration::from_secs(20));
        let old = fixture.tasks(service);
        assert!(old.len() == 2 && old.iter().all(|task| fixture.routed(task)), "{service}");
        fixture.redeploy(service, limits);
        let (mut ready, mut at_stop) = (BTreeMap::new(), None);
        for _ in 0..300 {
            fixture.step();
            for task in fixture.tasks(service) {
                if old.iter().any(|old| old.arn == task.arn) {
                    if task.desired_status == DesiredStatus::Stopped {
                        at_stop.get_or_insert(ready.len());
                    }
                } else if fixture.routed(&task) {
                    let started = task.containers.iter().filter_map(|container| container.started_at).min();
                    let took = started.unwrap().age_at(fixture.now);
                    ready.entry(task.id().to_owned()).or_insert(took);
                }
            }
        }
        let times: Vec<_> = ready.values().copied().collect();
        let range = Duration::from_secs(6)..=Duration::from_secs(9);
        assert!(times.len() == 2 && times.iter().all(|time| range.contains(time)), "{service} {times:?}");
        assert_eq!(at_stop, Some(ready_at_stop), "{service} {limits:?}");
    }
}

#[test]
fn leaving_tasks_serve_until_their_app_is_done() {
    let mut fixture = WorldFixture::new(Rollouts::Ordered, 1, NEVER);
    fixture.pass(Duration::from_secs(20));
    let task = fixture.tasks("kv").remove(0);
    let all = fixture.serving("kv");
    assert_eq!((all.serving.len(), all.leaving.len()), (2, 0));
    fixture.cloud.stop_task(CLUSTER, &task.arn, "", fixture.now).unwrap();
    let mut last_seen = None;
    let stop = fixture.now;
    for _ in 0..50 {
        let all = fixture.serving("kv");
        if let Some(leaving) = all.leaving.first() {
            assert_eq!(leaving.arn, task.arn);
            assert_eq!(all.serving.len(), 2);
            last_seen = Some((fixture.now, leaving.last_status));
        }
        fixture.step();
    }
    // 200 ms until SIGTERM, and one second after it; then the app's container is gone, and the sidecar's follows.
    let (at, status) = last_seen.unwrap();
    assert_eq!((stop.age_at(at), status), (Duration::from_millis(1_100), LastStatus::Stopping));
    let seen = fixture.cloud.task(&task.arn).unwrap();
    let (app, sidecar) = (seen.container("app").unwrap(), seen.container("kuma-dp").unwrap());
    assert_eq!(app.sigterm_at.unwrap().plus(Duration::from_secs(1)), sidecar.sigterm_at.unwrap());
    // The past is as it was.
    let before = fixture.cloud.task_as_of(&task.arn, at).unwrap();
    assert!(can_serve(&before, at) && !can_serve(&before, at.plus(STEP)));
    assert_eq!(serving_tasks(&fixture.cloud, at)[&(MESH, "kv".to_owned())].leaving.len(), 1);
}

#[test]
fn killed_task_serves_no_longer() {
    let mut fixture = WorldFixture::new(Rollouts::Ordered, 1, NEVER);
    fixture.pass(Duration::from_secs(20));
    let task = fixture.tasks("kv").remove(0);
    fixture.cloud.kill_hard(&task.arn, fixture.now);
    let all = fixture.serving("kv");
    assert_eq!((all.serving.len(), all.leaving.len()), (1, 0));
    assert!(fixture.routed(&task), "clients are still routed to it");
}

#[test]
fn health_discovery_follows_the_app_behind_its_sidecar() {
    let mut fixture = WorldFixture::new(Rollouts::Ordered, 1, NEVER);
    fixture.pass(Duration::from_secs(20));
    let task = fixture.tasks("kv").remove(0);
    assert!(fixture.cloud.set_answering(&task.arn, "app", false, fixture.now));
    fixture.pass(Duration::from_secs(6));
    assert!(!fixture.routed(&task) && fixture.serving("kv").serving.len() == 1);
    assert!(fixture.cloud.set_answering(&task.arn, "app", true, fixture.now));
    fixture.pass(Duration::from_secs(7));
    assert!(fixture.routed(&task) && fixture.serving("kv").serving.len() == 2);
}

#[test]
fn app_without_a_sidecar_does_not_serve() {
    let mut fixture = WorldFixture::new(Rollouts::Ordered, 1, NEVER);
    fixture.pass(Duration::from_secs(20));
    let task = fixture.tasks("kv").remove(0);
    fixture.cloud.exit_container(&task.arn, "kuma-dp", 1, fixture.now);
    let seen = fixture.cloud.task(&task.arn).unwrap();
    assert!(seen.container("app").unwrap().answers(fixture.now) && !can_serve(&seen, fixture.now));
}

#[test]
fn mixed_rollouts_follow_the_seed_and_differ() {
    let history = |seed| {
        let interval = (Duration::from_millis(500), Duration::from_secs(4));
        let mut fixture = WorldFixture::new(Rollouts::Mixed, seed, interval);
        let rollouts: Vec<Rollout> =
            fixture.world.services().iter().map(|service| service.rollout.clone()).collect();
        let mut history = Vec::new();
        for _ in 0..600 {
            fixture.step();
            history.extend(fixture.world.take_events().into_iter().map(|event| event.message));
        }
        let shown = fixture.cloud.all_tasks().map(|task| task.to_api_json(false).to_string());
        history.extend(shown);
        (rollouts, history)
    };
    let (rollouts, first) = history(7);
    assert!(rollouts.iter().any(|rollout| *rollout != rollouts[0]), "{rollouts:?}");
    assert_eq!((rollouts, first.clone()), history(7));
    assert_ne!(first, history(8).1);
}

#[test]
fn abrupt_rollouts_end_also_with_apps_that_never_serve() {
    for seed in 0..4 {
        let mut fixture = WorldFixture::new(Rollouts::Abrupt, seed, NEVER);
        fixture.pass(Duration::from_secs(30));
        let broken = fixture.world.deploy_unready(&mut fixture.cloud, 0, fixture.now);
        for service in fixture.world.services().to_vec() {
            if broken.as_ref() != Some(&service.name) {
                fixture.world.redeploy(&mut fixture.cloud, &service, fixture.now);
            }
        }
        fixture.pass(Duration::from_mins(2));
        for ScenarioService { name, .. } in fixture.world.services() {
            let (found, _) = fixture.cloud.describe_services(CLUSTER, &[name]).unwrap();
            assert!(!found[0].is_deploying(), "seed {seed}: {name}");
            let serves = fixture.serving(name).serving.iter().any(|task| task.service() == Some(&**name));
            assert_ne!(serves, broken.as_ref() == Some(name), "seed {seed}: {name}");
        }
    }
}

#[test]
fn deployment_events_are_lost_while_their_rule_is_off() {
    let mut cloud = Cloud::new(CloudConfig::default(), START);
    create_queue_and_rules(&mut cloud, RoutedEvents::TasksAndDeployments, START).unwrap();
    let events = |cloud: &mut Cloud, name: &str, now: Timestamp| {
        deploy(cloud, &ScenarioService::new(name, 15_000, 8_080, 0), ControlPlanes::Kuma, now).unwrap();
        cloud.step(now.plus(Duration::from_secs(5)));
        let request = ReceiveMessages { max: 10, visibility: None };
        cloud.receive_message(QUEUE, request, now.plus(Duration::from_secs(5))).unwrap().len()
    };
    route_deployments(&mut cloud, false).unwrap();
    assert_eq!(events(&mut cloud, "one", START), 0);
    route_deployments(&mut cloud, true).unwrap();
    // It begins, and is completed.
    assert_eq!(events(&mut cloud, "two", START.plus(Duration::from_secs(10))), 2);
}

/// Sidecars in template mode register their own tasks, and the control plane removes those that stop cleanly.
#[test]
fn sidecars_in_template_mode_register_their_tasks() {
    let mut fixture = WorldFixture::new(Rollouts::Simple, 1, NEVER);
    let further = vec![ScenarioService::in_template_mode("op")];
    let (mut cloud, mut kuma) =
        (Cloud::new(CloudConfig::default(), START), KumaCp::new(KumaConfig::default(), START));
    create_queue_and_rules(&mut cloud, RoutedEvents::Tasks, START).unwrap();
    let config = fixture.world.config.clone();
    fixture.world = World::start_with(config, further, &mut cloud, &mut kuma, START).unwrap();
    (fixture.cloud, fixture.kuma) = (cloud, kuma);
    let registered = |fixture: &WorldFixture| {
        let is_report = |body: &Value| body["labels"]["ecs-mesh.dev/operator"] == "op";
        fixture.kuma.dataplanes().filter(|(_, _, body)| is_report(body)).count()
    };
    for _ in 0..600 {
        fixture.now = fixture.now.plus(STEP);
        fixture.world.step(&mut fixture.cloud, &mut fixture.kuma, None, fixture.now);
    }
    assert_eq!(registered(&fixture), 2);
    let definition = fixture.tasks("reports")[0].definition.clone().to_model().unwrap();
    assert_eq!(definition.sidecar_dataplane(), Some(("kuma-dp", ecs_mesh_model::SidecarDataplane::Template)));
    let [killed, stopped] = &fixture.tasks("reports")[..] else { panic!("two tasks") };
    fixture.cloud.kill_hard(&killed.arn, fixture.now);
    fixture.cloud.stop_task(CLUSTER, &stopped.arn, "by a person", fixture.now).unwrap();
    let [killed, stopped] = [killed.id().to_owned(), stopped.id().to_owned()];
    for _ in 0..1_200 {
        fixture.now = fixture.now.plus(STEP);
        fixture.world.step(&mut fixture.cloud, &mut fixture.kuma, None, fixture.now);
    }
    let names: Vec<&str> = fixture.kuma.dataplanes().map(|(_, name, _)| name).collect();
    assert!(names.contains(&killed.as_str()), "a killed sidecar leaves its Dataplane");
    assert!(!names.contains(&stopped.as_str()), "{names:?}");
    assert_eq!(registered(&fixture), 3, "two replacements, and one leftover");
}

/// A sidecar that waits for its Dataplane gives up after five minutes; so does a zone proxy that waits for its resource.
#[test]
fn zone_proxies_connect_once_their_resources_exist() {
    let mut fixture = WorldFixture::new(Rollouts::Simple, 1, NEVER);
    deploy_gateway(&mut fixture.cloud, fixture.now).unwrap();
    deploy_zone_proxies(ZoneProxyGeneration::Resources, &mut fixture.cloud, &mut fixture.kuma, fixture.now)
        .unwrap();
    let role_type = |fixture: &WorldFixture, service: &str| {
        fixture.cloud.get_role(&super::role_name(service)).unwrap().tags["kuma.io/type"].clone()
    };
    for (service, wanted) in [("edge", "dataplane"), ("zone-ingress", "ingress"), ("zone-egress", "egress")] {
        assert_eq!(role_type(&fixture, service), wanted);
    }
    // The fixture registers Dataplanes alone.
    let end = fixture.now.plus(Duration::from_mins(7));
    while fixture.now < end {
        fixture.now = fixture.now.plus(Duration::from_secs(1));
        fixture.world.step(&mut fixture.cloud, &mut fixture.kuma, None, fixture.now);
        let tasks = fixture.tasks("zone-ingress");
        let waiting = tasks.iter().filter(|task| task.address().is_some());
        for task in waiting.cloned().collect::<Vec<_>>() {
            let body = json!({"type": "ZoneIngress", "name": task.id(),
                "networking": {"address": task.address().unwrap().to_string(), "port": 10_001}});
            let path = format!("/zoneingresses/{}", task.id());
            let request = KumaRequest::json("PUT", &path, body.to_string().into_bytes());
            assert!(fixture.kuma.handle(fixture.now, &request).status < 300);
        }
    }
    let services = fixture.world.services().iter().map(|service| service.count).sum::<usize>();
    let lost = usize::try_from(fixture.world.task_counts().sidecars_lost).unwrap();
    // One task more than those of the services is run by hand. The gateway and the egress wait in vain.
    assert_eq!(lost, services + 1 + 2, "the ingress is connected");
}
