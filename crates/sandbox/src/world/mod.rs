//! The simulated world: services that are deployed, scaled and killed, reused addresses, role tags that are removed
//! and restored, and the sidecars of the tasks.
//!
//! All events follow from the seed. The world has no access to the operator.

mod consul;
mod manifests;
mod mesh_changes;
mod proxies;
mod rollout;
mod scenario;
mod serving;
mod sidecars;
mod task_states;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use self::consul::TaskAgents;
use self::sidecars::SimulatedSidecars;
use super::aws::{Cloud, CloudTask, UpdateService};
use super::consul::ConsulServer;
use super::control_planes::ControlPlanes;
use super::kuma::KumaCp;
use ecs_mesh_model::{DesiredStatus, LastStatus, Timestamp};

pub use consul::{
    CLIENT_METHOD, ConsulBootstrap, ForeignFixture, LOGIN_METHOD, MANAGEMENT_TOKEN, SERVICE_TAG,
    TaskAgentCounts, admin_token,
};
pub use manifests::{ConsulManifestOptions, ManifestOptions, consul_auth, manifests};
pub use mesh_changes::{select_by_workload, set_mesh_services_mode};
pub use proxies::{
    ZoneProxyGeneration, delete_zone_proxies, deploy_gateway, deploy_zone_proxies, proxy_manifests,
};
pub use rollout::{Rollout, Rollouts};
pub use scenario::{
    BOUND_SERVICES, CLUSTER, DEAD_LETTERS, FOREIGN_OPERATOR, MESH, QUEUE, RoutedEvents, SECRET,
    ScenarioService, create_queue_and_rules, deploy, role_name, role_tags, route_deployments, run_batch,
    services,
};
pub use serving::{ServingTasks, can_serve, serving_tasks};
pub use sidecars::{has_template, host_name};

/// Longer than any simulated time.
const NEVER_READY: Duration = Duration::from_hours(24);

/// The service of [`WorldConfig::host_mode`].
const HOST_SERVICE: &str = "redis";

/// How sidecars name their Dataplanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// By task id, which is unique.
    #[default]
    TaskId,
    /// By host name, such as `ip-10-0-1-7`, which is reused with the address.
    Hostname,
}

/// Settings of a [`World`].
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// Approximate number of initial tasks.
    pub tasks: usize,
    /// Seed of all events.
    pub seed: u64,
    /// Minimum and maximum time between two events.
    pub interval: (Duration, Duration),
    /// How sidecars name their Dataplanes.
    pub naming: Naming,
    /// The control planes that tasks are registered with.
    pub control_planes: ControlPlanes,
    /// Minimum and maximum time until a removed role tag is restored.
    pub revoked_for: (Duration, Duration),
    /// How tasks are defined, replaced and stopped. The durations are those of the account's `LifeTimes`.
    pub rollouts: Rollouts,
    /// Whether the tasks of `redis` run in network mode `host`. Their sidecars need [`Naming::TaskId`].
    pub host_mode: bool,
}

/// An event of the world, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldEvent {
    /// The actor: `world` or `task`.
    pub actor: &'static str,
    /// The action: `deploy`, `scale`, `kill`, `register`, …
    pub action: &'static str,
    /// Description of the event.
    pub message: String,
}

/// Number of tasks by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// Started tasks.
    pub started: u64,
    /// Stopped tasks.
    pub stopped: u64,
    /// Sidecars that timed out while waiting for their Dataplane.
    pub sidecars_lost: u64,
}

/// The simulated services and their tasks.
#[derive(Debug)]
pub struct World {
    config: WorldConfig,
    rng: fastrand::Rng,
    services: Vec<ScenarioService>,
    sidecars: SimulatedSidecars,
    task_agents: Option<TaskAgents>,
    next: Timestamp,
    /// Services whose role has lost its tag, with the time at which the tag is restored.
    revoked: BTreeMap<String, Timestamp>,
    has_revoked: bool,
    quiet: bool,
    events: Vec<WorldEvent>,
}

impl World {
    /// Deploys every service, and creates the Dataplane of another team.
    ///
    /// # Errors
    /// Describes the conflict if the account or the control plane is not empty.
    pub fn start(
        config: WorldConfig,
        cloud: &mut Cloud,
        kuma: &mut KumaCp,
        now: Timestamp,
    ) -> Result<Self, String> {
        Self::start_with(config, Vec::new(), cloud, kuma, now)
    }

    /// As [`Self::start`], with further services.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        config: WorldConfig,
        further: Vec<ScenarioService>,
        cloud: &mut Cloud,
        kuma: &mut KumaCp,
        now: Timestamp,
    ) -> Result<Self, String> {
        let mut services = services(config.tasks);
        // A source of its own, so that the rest of a world does not depend on it.
        let mut rng = fastrand::Rng::with_seed(config.seed ^ 0x5E11);
        for (index, service) in services.iter_mut().enumerate() {
            service.rollout = config.rollouts.rollout(index, &mut rng);
            service.rollout.host_mode = config.host_mode && service.name == HOST_SERVICE;
            deploy(cloud, service, config.control_planes, now).map_err(|error| error.to_string())?;
        }
        for service in further {
            deploy(cloud, &service, config.control_planes, now).map_err(|error| error.to_string())?;
            services.push(service);
        }
        run_batch(cloud, &services[0], SECRET, config.control_planes, now)
            .map_err(|error| error.to_string())?;
        if config.control_planes.has_kuma() {
            let foreign = json!({
                "type": "Dataplane", "mesh": MESH, "name": FOREIGN_OPERATOR,
                "labels": {"team": "payments", "kuma.io/workload": "legacy-gateway"},
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
            task_agents: None,
            services,
            next: now.plus(config.interval.1),
            revoked: BTreeMap::new(),
            has_revoked: false,
            quiet: false,
            events: Vec::new(),
            config,
        })
    }

    /// Makes tasks register themselves with this Consul, which [`ConsulBootstrap::configure`] has prepared. Returns
    /// objects of other owners, which must stay unmodified.
    ///
    /// # Errors
    /// Describes the request that Consul or AWS rejected.
    pub fn join_consul(
        &mut self,
        bootstrap: &ConsulBootstrap,
        cloud: &mut Cloud,
        consul: &mut ConsulServer,
        now: Timestamp,
    ) -> Result<Vec<ForeignFixture>, String> {
        let name = self.services[0].name.clone();
        let role = scenario::role_arn(cloud, &name, self.config.control_planes);
        let fixtures = consul::create_fixtures(bootstrap, cloud, consul, &role, &name, now)?;
        consul.take_journal();
        self.task_agents = Some(TaskAgents::new(bootstrap.clone(), &self.services));
        Ok(fixtures)
    }

    /// Logins and logouts of tasks at Consul.
    pub fn agent_counts(&self) -> TaskAgentCounts {
        self.task_agents.as_ref().map(TaskAgents::tally).unwrap_or_default()
    }

    /// The deployed services.
    pub fn services(&self) -> &[ScenarioService] {
        &self.services
    }

    /// Number of tasks by outcome.
    pub fn task_counts(&self) -> TaskCounts {
        self.sidecars.task_counts()
    }

    /// Takes the events since the last call.
    pub fn take_events(&mut self) -> Vec<WorldEvent> {
        std::mem::take(&mut self.events)
    }

    /// Stops new events and restores all role tags. Deployments and stops in progress continue.
    pub fn stop_events(&mut self, cloud: &mut Cloud, now: Timestamp) {
        self.quiet = true;
        self.restore_tags(cloud, now.plus(Duration::from_hours(24)), now);
    }

    /// Advances everything to `now`: ECS, sidecars, health discovery, tasks at Consul, and the next random event if
    /// it is due.
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
        if let (Some(task_agents), Some(consul)) = (&mut self.task_agents, consul) {
            task_agents.step(cloud, consul, now);
            self.events.append(&mut task_agents.take_events());
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
            let Some(known) = self.services.iter().find(|known| known.name == service) else { continue };
            let tags = known.role_tags(self.config.control_planes);
            let tag = known.deciding_tag(self.config.control_planes);
            if cloud.tag_role(&role_name(&service), &tags, now).is_ok() {
                self.record_event("role", format!("role {} regains its tag {tag}", role_name(&service)));
            }
        }
    }

    fn next_event(&mut self, cloud: &mut Cloud, now: Timestamp) {
        // The first event is a revocation, which takes longest to complete.
        if !std::mem::replace(&mut self.has_revoked, true) {
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

    fn choose_task(&mut self, tasks: &[Arc<CloudTask>]) -> Option<Arc<CloudTask>> {
        (!tasks.is_empty()).then(|| Arc::clone(&tasks[self.rng.usize(..tasks.len())]))
    }

    /// Kills a task without a drain. With `reuse`, the next task gets its address.
    fn kill(&mut self, cloud: &mut Cloud, service: &ScenarioService, reuse: bool, now: Timestamp) {
        let Some(task) = self.choose_task(&Self::running(cloud, &service.name)) else { return };
        let address = task.address();
        cloud.kill_hard(&task.arn, now);
        let reused = match address.filter(|_| reuse) {
            Some(address) => {
                cloud.force_address(address);
                format!("; the next task reuses its address {address}")
            }
            None => String::new(),
        };
        self.record_event(
            "kill",
            format!("{} task {} is killed without a drain{reused}", service.name, short(task.id())),
        );
    }

    fn redeploy(&mut self, cloud: &mut Cloud, service: &ScenarioService, now: Timestamp) {
        let Ok(definition) = scenario::define(cloud, service, self.config.control_planes, now) else {
            return;
        };
        let request = UpdateService {
            cluster: CLUSTER.to_owned(),
            service: service.name.clone(),
            task_definition: Some(definition.clone()),
            ..UpdateService::default()
        };
        if cloud.update_service(&request, now).is_ok() {
            let revision = definition.rsplit(':').next().unwrap_or_default();
            self.record_event("deploy", format!("{} deploys revision {revision}", service.name));
        }
    }

    /// Deploys a revision of a service whose sidecars get their Dataplanes in this way: from a template with the labels of the
    /// operator, or by name.
    pub fn deploy_sidecar(
        &mut self,
        cloud: &mut Cloud,
        service: &str,
        template_operator: Option<&str>,
        hides_start: bool,
        now: Timestamp,
    ) {
        let Some(known) = self.services.iter_mut().find(|known| known.name == service) else { return };
        known.template_operator = template_operator.map(str::to_owned);
        known.hides_start = hides_start;
        let service = known.clone();
        self.redeploy(cloud, &service, now);
    }

    /// Deploys a revision whose app never serves, of a service without health checks: a task that fails its check is
    /// replaced again and again. Returns the service's name, if there is such a service.
    pub fn deploy_unready(&mut self, cloud: &mut Cloud, pick: usize, now: Timestamp) -> Option<String> {
        let unchecked: Vec<_> =
            self.services.iter().filter(|service| !service.rollout.has_health_check).collect();
        let mut service = (*unchecked.get(pick % unchecked.len().max(1))?).clone();
        service.rollout.ready = Some(NEVER_READY);
        self.redeploy(cloud, &service, now);
        Some(service.name)
    }

    /// Removes the role tag of this service, until it is restored.
    pub fn revoke_service(&mut self, cloud: &mut Cloud, service: &str, now: Timestamp) {
        if let Some(service) = self.services.iter().find(|known| known.name == service).cloned() {
            self.revoke(cloud, &service, now);
        }
    }

    fn scale(&mut self, cloud: &mut Cloud, index: usize, now: Timestamp) {
        let max_count = self.services[index].count + 3;
        let least = usize::from(!matches!(self.config.rollouts, Rollouts::Mixed | Rollouts::Abrupt));
        let count = self.rng.usize(least..=max_count.max(2));
        let name = self.services[index].name.clone();
        let request = UpdateService {
            cluster: CLUSTER.to_owned(),
            service: name.clone(),
            desired_count: Some(count),
            ..UpdateService::default()
        };
        if cloud.update_service(&request, now).is_ok() {
            self.record_event("scale", format!("{name} scales to a desired count of {count}"));
        }
    }

    fn stop_one(&mut self, cloud: &mut Cloud, service: &ScenarioService, now: Timestamp) {
        let Some(task) = self.choose_task(&Self::running(cloud, &service.name)) else { return };
        if cloud.stop_task(CLUSTER, &task.arn, "stopped by a person", now).is_ok() {
            self.record_event(
                "stop",
                format!("{} task {} is stopped by a user", service.name, short(task.id())),
            );
        }
    }

    fn fail_one(&mut self, cloud: &mut Cloud, now: Timestamp) {
        let starting: Vec<_> =
            cloud.all_tasks().filter(|task| task.last_status < LastStatus::Running).cloned().collect();
        let Some(task) = self.choose_task(&starting) else { return };
        if cloud.fail_to_start(&task.arn, "CannotPullContainerError", now) {
            self.record_event("fail", format!("task {} of {} fails to start", short(task.id()), task.family));
        }
    }

    fn revoke(&mut self, cloud: &mut Cloud, service: &ScenarioService, now: Timestamp) {
        if self.revoked.contains_key(&service.name) {
            return;
        }
        let role = role_name(&service.name);
        let tag = service.deciding_tag(self.config.control_planes);
        if cloud.untag_role(&role, &[tag.to_owned()], now).is_ok() {
            let (min, max) = self.config.revoked_for;
            let back = now.plus(min + max.saturating_sub(min).mul_f64(self.rng.f64()));
            self.revoked.insert(service.name.clone(), back);
            self.record_event("role", format!("role {role} loses its tag {tag}"));
        }
    }

    /// Removes the tags of all roles at once, for the longest configured time.
    pub fn revoke_all(&mut self, cloud: &mut Cloud, now: Timestamp) {
        for service in self.services.clone() {
            self.revoke(cloud, &service, now);
        }
        let back = now.plus(self.config.revoked_for.1);
        self.revoked.values_mut().for_each(|at| *at = back.max(*at));
    }

    fn record_event(&mut self, action: &'static str, message: String) {
        self.events.push(WorldEvent { actor: "world", action, message });
    }
}

/// The first eight characters of a task id, for display.
pub fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}
