//! The living world: services that are deployed, scaled and killed, addresses that are used again, roles that lose their
//! tags, and the sidecars that wait for their Dataplanes. Knows nothing of the operator.

mod manifests;
mod consul;
mod scenario;
mod sidecars;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use self::consul::TaskAgents;
use self::sidecars::SimulatedSidecars;
use super::aws::{Cloud, CloudTask, UpdateService};
use super::consul::ConsulServer;
use super::kuma::KumaCp;
use super::control_planes::ControlPlanes;
use ecs_mesh_model::{DesiredStatus, LastStatus, Timestamp};

pub use manifests::{ManifestOptions, ConsulManifestOptions, consul_auth, manifests};
pub use consul::{
    CLIENT_METHOD, ConsulBootstrap, LOGIN_METHOD, MANAGEMENT_TOKEN, TaskAgentCounts, ForeignFixture, SERVICE_TAG,
    human_token,
};
pub use scenario::{
    CLUSTER, DEAD_LETTERS, FOREIGN_OPERATOR, MESH, QUEUE, SECRET, ScenarioService, deploy, create_queue_and_rules, role_name, role_tags,
    run_batch, services,
};
pub use sidecars::host_name;

/// What sidecars are started as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// The task's id, which never recurs.
    #[default]
    TaskId,
    /// `ip-10-0-1-7`, which recurs with the address.
    Hostname,
}

/// What kind of world it is.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// About how many tasks it begins with.
    pub tasks: usize,
    /// Decides everything that happens.
    pub seed: u64,
    /// The shortest and the longest time between two happenings.
    pub interval: (Duration, Duration),
    /// What sidecars are started as.
    pub naming: Naming,
    /// Where tasks are to be.
    pub control_planes: ControlPlanes,
    /// How long a role is without its tag.
    pub revoked_for: (Duration, Duration),
}

/// Something that happened, for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldEvent {
    /// `world` or `task`.
    pub who: &'static str,
    /// `deploy`, `scale`, `kill`, …
    pub what: &'static str,
    /// In words.
    pub message: String,
}

/// What the world has seen of its tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Tasks that were started.
    pub started: u64,
    /// Tasks that have stopped.
    pub stopped: u64,
    /// Sidecars that gave up waiting for their Dataplane.
    pub sidecars_lost: u64,
}

/// The world.
#[derive(Debug)]
pub struct World {
    config: WorldConfig,
    rng: fastrand::Rng,
    services: Vec<ScenarioService>,
    sidecars: SimulatedSidecars,
    members: Option<TaskAgents>,
    next: Timestamp,
    /// Roles without their tags, and when they get them back.
    revoked: BTreeMap<String, Timestamp>,
    has_begun: bool,
    quiet: bool,
    events: Vec<WorldEvent>,
}

impl World {
    /// Sets up the world: deploys every service, and another team's hand-made Dataplane.
    ///
    /// # Errors
    /// In words, when the account or the control plane is not new.
    pub fn start(
        config: WorldConfig,
        cloud: &mut Cloud,
        kuma: &mut KumaCp,
        now: Timestamp,
    ) -> Result<Self, String> {
        let services = services(config.tasks);
        for service in &services {
            deploy(cloud, service, config.control_planes, now).map_err(|error| error.to_string())?;
        }
        run_batch(cloud, &services[0], SECRET, config.control_planes, now).map_err(|error| error.to_string())?;
        if config.control_planes.has_kuma() {
            let foreign = json!({
                "type": "Dataplane", "mesh": MESH, "name": FOREIGN_OPERATOR, "labels": {"team": "payments"},
                "networking": {
                    "address": "10.255.0.1",
                    "inbound": [{"port": 8443, "tags": {"kuma.io/service": "legacy-gateway"}}],
                },
            });
            kuma.insert_foreign(MESH, FOREIGN_OPERATOR, &foreign, now)?;
        }
        Ok(Self {
            rng: fastrand::Rng::with_seed(config.seed),
            sidecars: SimulatedSidecars::new(&services, config.naming, config.control_planes),
            members: None,
            services,
            next: now.plus(config.interval.1),
            revoked: BTreeMap::new(),
            has_begun: false,
            quiet: false,
            events: Vec::new(),
            config,
        })
    }

    /// From now on tasks also join this Consul, which is furnished. Gives what others have left there.
    ///
    /// # Errors
    /// In words, when Consul or AWS refuse something.
    pub fn join_consul(
        &mut self,
        bootstrap: &ConsulBootstrap,
        cloud: &mut Cloud,
        consul: &mut ConsulServer,
        now: Timestamp,
    ) -> Result<Vec<ForeignFixture>, String> {
        let name = self.services[0].name.clone();
        let role = scenario::role_arn(cloud, &name, self.config.control_planes);
        let fixtures = consul::plant(bootstrap, cloud, consul, &role, &name, now)?;
        consul.take_journal();
        self.members = Some(TaskAgents::new(bootstrap.clone(), &self.services));
        Ok(fixtures)
    }

    /// What tasks did at Consul.
    pub fn membership(&self) -> TaskAgentCounts {
        self.members.as_ref().map(TaskAgents::tally).unwrap_or_default()
    }

    /// The services that there are.
    pub fn services(&self) -> &[ScenarioService] {
        &self.services
    }

    /// What it has seen of its tasks.
    pub fn census(&self) -> Census {
        self.sidecars.census()
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<WorldEvent> {
        std::mem::take(&mut self.events)
    }

    /// Nothing happens any more but what is under way; roles get their tags back.
    pub fn stop_events(&mut self, cloud: &mut Cloud, now: Timestamp) {
        self.quiet = true;
        self.restore_tags(cloud, now.plus(Duration::from_hours(24)), now);
    }

    /// Lets happen what is due: life in ECS, sidecars, health discovery, and now and then something worse.
    pub fn step(
        &mut self,
        cloud: &mut Cloud,
        kuma: &mut KumaCp,
        consul: Option<&mut ConsulServer>,
        now: Timestamp,
    ) {
        cloud.step(now);
        self.sidecars.step(cloud, kuma, now);
        kuma.tick(now);
        if let (Some(members), Some(consul)) = (&mut self.members, consul) {
            members.step(cloud, consul, now);
            self.events.append(&mut members.take_events());
        }
        self.restore_tags(cloud, now, now);
        if !self.quiet && now >= self.next {
            self.next_event(cloud, now);
            let (min, max) = self.config.interval;
            self.next = now.plus(min + max.saturating_sub(min).mul_f64(self.rng.f64()));
        }
    }

    fn restore_tags(&mut self, cloud: &mut Cloud, until: Timestamp, now: Timestamp) {
        let due: Vec<String> =
            self.revoked.iter().filter(|(_, at)| **at <= until).map(|(service, _)| service.clone()).collect();
        for service in due {
            self.revoked.remove(&service);
            let tags = role_tags(&service, self.config.control_planes);
            if cloud.tag_role(&role_name(&service), &tags, now).is_ok() {
                let tag = scenario::deciding_tag(self.config.control_planes);
                self.record_event("role", format!("role {} gets its tag {tag} back", role_name(&service)));
            }
        }
    }

    fn next_event(&mut self, cloud: &mut Cloud, now: Timestamp) {
        // First of all what takes longest to play out.
        if !std::mem::replace(&mut self.has_begun, true) {
            let service = self.services[1].clone();
            return self.revoke(cloud, &service, now);
        }
        let index = self.rng.usize(..self.services.len());
        let service = self.services[index].clone();
        match self.rng.u8(..100) {
            0..25 => self.kill(cloud, &service, false, now),
            25..40 => self.kill(cloud, &service, true, now),
            40..60 => self.redeploy(cloud, &service, now),
            60..80 => self.scale(cloud, index, now),
            80..88 => self.stop_one(cloud, &service, now),
            88..92 => self.fail_one(cloud, now),
            _ => self.revoke(cloud, &service, now),
        }
    }

    fn running(cloud: &Cloud, service: &str) -> Vec<Arc<CloudTask>> {
        let runs = |task: &&Arc<CloudTask>| {
            task.service() == Some(service)
                && task.last_status == LastStatus::Running
                && task.desired_status == DesiredStatus::Running
        };
        cloud.all_tasks().filter(runs).cloned().collect()
    }

    fn one_of(&mut self, tasks: &[Arc<CloudTask>]) -> Option<Arc<CloudTask>> {
        (!tasks.is_empty()).then(|| Arc::clone(&tasks[self.rng.usize(..tasks.len())]))
    }

    /// Without a drain; with `reuse` its address goes to the next task that starts.
    fn kill(&mut self, cloud: &mut Cloud, service: &ScenarioService, reuse: bool, now: Timestamp) {
        let Some(task) = self.one_of(&Self::running(cloud, &service.name)) else { return };
        let address = task.address();
        cloud.kill_hard(&task.arn, now);
        let again = match address.filter(|_| reuse) {
            Some(address) => {
                cloud.force_address(address);
                format!("; the next task gets its address {address}")
            }
            None => String::new(),
        };
        self.record_event("kill", format!("{} task {} dies without a drain{again}", service.name, short(task.id())));
    }

    fn redeploy(&mut self, cloud: &mut Cloud, service: &ScenarioService, now: Timestamp) {
        let Ok(definition) = scenario::define(cloud, service, self.config.control_planes, now) else { return };
        let request = UpdateService {
            cluster: CLUSTER.to_owned(),
            service: service.name.clone(),
            task_definition: Some(definition.clone()),
            ..UpdateService::default()
        };
        if cloud.update_service(&request, now).is_ok() {
            let revision = definition.rsplit(':').next().unwrap_or_default();
            self.record_event("deploy", format!("{} revision {revision} replaces all its tasks", service.name));
        }
    }

    fn scale(&mut self, cloud: &mut Cloud, index: usize, now: Timestamp) {
        let most = self.services[index].count + 3;
        let count = self.rng.usize(1..=most.max(2));
        let name = self.services[index].name.clone();
        let request = UpdateService {
            cluster: CLUSTER.to_owned(),
            service: name.clone(),
            desired_count: Some(count),
            ..UpdateService::default()
        };
        if cloud.update_service(&request, now).is_ok() {
            self.record_event("scale", format!("{name} shall have {count} tasks"));
        }
    }

    fn stop_one(&mut self, cloud: &mut Cloud, service: &ScenarioService, now: Timestamp) {
        let Some(task) = self.one_of(&Self::running(cloud, &service.name)) else { return };
        if cloud.stop_task(CLUSTER, &task.arn, "stopped by a person", now).is_ok() {
            self.record_event("stop", format!("somebody stops {} task {}", service.name, short(task.id())));
        }
    }

    fn fail_one(&mut self, cloud: &mut Cloud, now: Timestamp) {
        let starting: Vec<_> =
            cloud.all_tasks().filter(|task| task.last_status < LastStatus::Running).cloned().collect();
        let Some(task) = self.one_of(&starting) else { return };
        if cloud.fail_to_start(&task.arn, "CannotPullContainerError", now) {
            self.record_event("fail", format!("task {} of {} fails to start", short(task.id()), task.family));
        }
    }

    fn revoke(&mut self, cloud: &mut Cloud, service: &ScenarioService, now: Timestamp) {
        if self.revoked.contains_key(&service.name) {
            return;
        }
        let role = role_name(&service.name);
        let tag = scenario::deciding_tag(self.config.control_planes);
        if cloud.untag_role(&role, &[tag.to_owned()], now).is_ok() {
            let (min, max) = self.config.revoked_for;
            let back = now.plus(min + max.saturating_sub(min).mul_f64(self.rng.f64()));
            self.revoked.insert(service.name.clone(), back);
            self.record_event("role", format!("role {role} loses its tag {tag}"));
        }
    }

    /// All roles lose their tags at once, as by a slip in the code that makes them, and for as long as any ever does.
    pub fn revoke_all(&mut self, cloud: &mut Cloud, now: Timestamp) {
        for service in self.services.clone() {
            self.revoke(cloud, &service, now);
        }
        let back = now.plus(self.config.revoked_for.1);
        self.revoked.values_mut().for_each(|at| *at = back.max(*at));
    }

    fn record_event(&mut self, what: &'static str, message: String) {
        self.events.push(WorldEvent { who: "world", what, message });
    }
}

/// The first eight characters of a task's id, for people.
pub fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}
