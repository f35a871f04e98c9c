//! Tasks that register themselves at Consul: they log in at start, register, update their checks, and on a clean stop
//! deregister and log out. A killed task leaves its token and services.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::bootstrap::{ConsulBootstrap, call};
use crate::aws::{Cloud, CloudTask, StopCode};
use crate::consul::ConsulServer;
use crate::world::task_states::TaskStates;
use crate::world::{ScenarioService, WorldEvent, short};
use ecs_mesh_model::{DesiredStatus, LastStatus, Timestamp};

/// Time between two login attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);
/// Time from the login to the registration.
const REGISTRATION_DELAY: Duration = Duration::from_millis(150);

/// Logins and logouts of tasks at Consul.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskAgentCounts {
    /// Logins.
    pub logins: u64,
    /// Tasks that deregistered and logged out.
    pub logouts: u64,
    /// Tasks that crashed and did not log out.
    pub crashes: u64,
}

/// The agents of all tasks.
#[derive(Debug)]
pub(in crate::world) struct TaskAgents {
    bootstrap: ConsulBootstrap,
    ports: BTreeMap<String, u16>,
    agents: TaskStates<TaskAgent>,
    tally: TaskAgentCounts,
    events: Vec<WorldEvent>,
}

/// The part of a task that talks to Consul.
#[derive(Default)]
struct TaskAgent {
    /// Secret of its token.
    secret: Option<String>,
    since: Option<Timestamp>,
    next_try: Option<Timestamp>,
    was_rejected: bool,
    /// Status of its checks, once registered.
    status: Option<&'static str>,
}

impl fmt::Debug for TaskAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskAgent")
            .field("since", &self.since)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl TaskAgents {
    pub(in crate::world) fn new(bootstrap: ConsulBootstrap, services: &[ScenarioService]) -> Self {
        let ports = services.iter().map(|service| (service.name.clone(), service.app_port)).collect();
        let agents = TaskStates::default();
        Self { bootstrap, ports, agents, tally: TaskAgentCounts::default(), events: Vec::new() }
    }

    pub(in crate::world) fn tally(&self) -> TaskAgentCounts {
        self.tally
    }

    pub(in crate::world) fn take_events(&mut self) -> Vec<WorldEvent> {
        std::mem::take(&mut self.events)
    }

    pub(in crate::world) fn step(&mut self, cloud: &mut Cloud, consul: &mut ConsulServer, now: Timestamp) {
        self.agents.update(cloud);
        let mut agents = std::mem::take(&mut self.agents);
        for tracked in agents.unfinished() {
            self.step_agent(&mut tracked.state, &tracked.task, cloud, consul, now);
            tracked.is_finished = tracked.task.last_status.is_stopped();
        }
        self.agents = agents;
    }

    fn step_agent(
        &mut self,
        agent: &mut TaskAgent,
        task: &CloudTask,
        cloud: &mut Cloud,
        consul: &mut ConsulServer,
        now: Timestamp,
    ) {
        if task.desired_status == DesiredStatus::Stopped {
            if task.last_status >= LastStatus::Stopping {
                self.end(agent, task, consul, now);
            } else if agent.status == Some("passing") {
                self.register(agent, task, "critical", consul, now);
            }
            return;
        }
        if task.last_status < LastStatus::Activating {
            return;
        }
        match (&agent.secret, agent.status) {
            (None, _) => self.log_in(agent, task, cloud, consul, now),
            (Some(_), None) if agent.since.is_some_and(|at| at.age_at(now) >= REGISTRATION_DELAY) => {
                self.register(agent, task, "critical", consul, now);
                let took = task.created_at.age_at(now).as_millis();
                self.record_event("registers", task, &format!("{took} ms after RunTask"));
            }
            (Some(_), Some("critical")) if task.container("app").is_some_and(|app| app.answers(now)) => {
                self.register(agent, task, "passing", consul, now);
            }
            _ => {}
        }
    }

    fn log_in(
        &mut self,
        agent: &mut TaskAgent,
        task: &CloudTask,
        cloud: &mut Cloud,
        consul: &mut ConsulServer,
        now: Timestamp,
    ) {
        if agent.next_try.is_some_and(|at| now < at) {
            return;
        }
        agent.next_try = Some(now.plus(RETRY_INTERVAL));
        let Some(role) = task.task_role_arn() else { return };
        let meta = ConsulBootstrap::meta(&self.bootstrap.cluster, task.id());
        match self.bootstrap.log_in(cloud, consul, role, &meta, now) {
            Ok(token) => {
                agent.secret = token["SecretID"].as_str().map(str::to_owned);
                agent.since = Some(now);
                self.tally.logins += 1;
            }
            Err(_) if !std::mem::replace(&mut agent.was_rejected, true) => {
                self.record_event("waits", task, "login rejected; retrying every 3 s");
            }
            Err(_) => {}
        }
    }

    /// Registers service and proxy with their checks. Errors are ignored: the token may have been revoked.
    fn register(
        &self,
        agent: &mut TaskAgent,
        task: &CloudTask,
        status: &'static str,
        consul: &mut ConsulServer,
        now: Timestamp,
    ) {
        let address = task.address().map(|address| address.to_string()).unwrap_or_default();
        let (name, id) = (task.family.as_str(), task.id());
        let port = self.ports.get(name).copied().unwrap_or(8_080);
        for body in [
            self.bootstrap.service(name, id, &address, port, status),
            self.bootstrap.sidecar(name, id, &address, status),
        ] {
            let _ = call(consul, now, agent.secret.as_deref(), "PUT", "/v1/catalog/register", &body);
        }
        agent.status = Some(status);
    }

    fn end(&mut self, agent: &mut TaskAgent, task: &CloudTask, consul: &mut ConsulServer, now: Timestamp) {
        let Some(secret) = agent.secret.take() else { return };
        let crashed =
            matches!(task.stop_code, Some(StopCode::EssentialContainerExited | StopCode::TaskFailedToStart));
        if crashed {
            self.tally.crashes += 1;
            return;
        }
        self.tally.logouts += 1;
        for proxy in ["-sidecar-proxy", ""] {
            let id = format!("{}-{}{proxy}", task.family, task.id());
            let body = json!({"Node": self.bootstrap.cluster, "ServiceID": id});
            let _ = call(consul, now, Some(&secret), "PUT", "/v1/catalog/deregister", &body);
        }
        let _ = call(consul, now, Some(&secret), "POST", "/v1/acl/logout", &Value::Null);
        self.record_event("deregisters", task, "and logs out");
    }

    fn record_event(&mut self, action: &'static str, task: &CloudTask, message: &str) {
        let message = format!("{:<10} {:<8}  {message}", task.family, short(task.id()));
        self.events.push(WorldEvent { actor: "task", action, message });
    }
}
