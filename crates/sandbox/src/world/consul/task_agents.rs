//! What tasks do at Consul by themselves: log in as they start, register, tell how they are, and on a clean stop
//! deregister and log out. What dies leaves everything behind.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::bootstrap::{ConsulBootstrap, call};
use crate::aws::{Cloud, CloudTask, StopCode};
use crate::consul::ConsulServer;
use crate::world::{WorldEvent, ScenarioService, short};
use ecs_mesh_model::{DesiredStatus, LastStatus, Timestamp};

/// When it is time to drop what ECS has forgotten, too.
const SHUTDOWN_TIME: usize = 100_000;
/// Between two attempts to log in.
const RETRY: Duration = Duration::from_secs(3);
/// From the login to the registration.
const REGISTERS: Duration = Duration::from_millis(150);
/// From RUNNING to the app's first answer.
const APP_START: Duration = Duration::from_millis(500);

/// What tasks did at Consul.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskAgentCounts {
    /// Logins.
    pub logins: u64,
    /// Tasks that took everything with them.
    pub logouts: u64,
    /// Tasks that died and left something.
    pub died_registered: u64,
}

/// The tasks that are, or want to be, at Consul.
#[derive(Debug)]
pub(in crate::world) struct TaskAgents {
    bootstrap: ConsulBootstrap,
    ports: BTreeMap<String, u16>,
    alive: BTreeMap<Arc<str>, TaskAgent>,
    /// Never iterated in an order that shows.
    finished: HashSet<Arc<str>>,
    tally: TaskAgentCounts,
    events: Vec<WorldEvent>,
}

/// One of them.
#[derive(Default)]
struct TaskAgent {
    /// Of its token.
    secret: Option<String>,
    since: Option<Timestamp>,
    next_try: Option<Timestamp>,
    was_refused: bool,
    /// The status of its checks, once it is registered.
    status: Option<&'static str>,
}

impl fmt::Debug for TaskAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("since", &self.since)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl TaskAgents {
    pub(in crate::world) fn new(bootstrap: ConsulBootstrap, services: &[ScenarioService]) -> Self {
        let ports = services.iter().map(|service| (service.name.clone(), service.app_port)).collect();
        let (alive, over) = (BTreeMap::new(), HashSet::new());
        Self { bootstrap: bootstrap, ports, alive, finished: over, tally: TaskAgentCounts::default(), events: Vec::new() }
    }

    pub(in crate::world) fn tally(&self) -> TaskAgentCounts {
        self.tally
    }

    pub(in crate::world) fn take_events(&mut self) -> Vec<WorldEvent> {
        std::mem::take(&mut self.events)
    }

    pub(in crate::world) fn step(&mut self, cloud: &mut Cloud, consul: &mut ConsulServer, now: Timestamp) {
        let over = |task: &&Arc<CloudTask>| task.last_status.is_stopped() && self.finished.contains(&task.arn);
        let tasks: Vec<Arc<CloudTask>> = cloud.all_tasks().filter(|task| !over(task)).cloned().collect();
        for task in tasks {
            let mut member = self.alive.remove(&task.arn).unwrap_or_default();
            self.live(&mut member, &task, cloud, consul, now);
            if task.last_status.is_stopped() {
                self.finished.insert(Arc::clone(&task.arn));
            } else {
                self.alive.insert(Arc::clone(&task.arn), member);
            }
        }
        if self.finished.len() > SHUTDOWN_TIME {
            self.finished.retain(|arn| cloud.task(arn).is_some());
            self.alive.retain(|arn, _| cloud.task(arn).is_some());
        }
    }

    fn live(
        &mut self,
        member: &mut TaskAgent,
        task: &CloudTask,
        cloud: &mut Cloud,
        consul: &mut ConsulServer,
        now: Timestamp,
    ) {
        if task.desired_status == DesiredStatus::Stopped {
            if task.last_status >= LastStatus::Stopping {
                self.end(member, task, consul, now);
            } else if member.status == Some("passing") {
                self.register(member, task, "critical", consul, now);
            }
            return;
        }
        if task.last_status < LastStatus::Activating {
            return;
        }
        match (&member.secret, member.status) {
            (None, _) => self.log_in(member, task, cloud, consul, now),
            (Some(_), None) if member.since.is_some_and(|at| at.age_at(now) >= REGISTERS) => {
                self.register(member, task, "critical", consul, now);
                let took = task.created_at.age_at(now).as_millis();
                self.record_event("joins", task, &format!("logs in and registers  {took} ms after RunTask"));
            }
            (Some(_), Some("critical")) if task.started_at.is_some_and(|at| at.age_at(now) >= APP_START) => {
                self.register(member, task, "passing", consul, now);
            }
            _ => {}
        }
    }

    fn log_in(
        &mut self,
        member: &mut TaskAgent,
        task: &CloudTask,
        cloud: &mut Cloud,
        consul: &mut ConsulServer,
        now: Timestamp,
    ) {
        if member.next_try.is_some_and(|at| now < at) {
            return;
        }
        member.next_try = Some(now.plus(RETRY));
        let Some(role) = task.task_role_arn() else { return };
        let meta = ConsulBootstrap::meta(&self.bootstrap.cluster, task.id());
        match self.bootstrap.log_in(cloud, consul, role, &meta, now) {
            Ok(token) => {
                member.secret = token["SecretID"].as_str().map(str::to_owned);
                member.since = Some(now);
                self.tally.logins += 1;
            }
            Err(_) if !std::mem::replace(&mut member.was_refused, true) => {
                self.record_event("waits", task, "its login is refused; it tries again every 3 s");
            }
            Err(_) => {}
        }
    }

    /// Writes service and proxy with their checks. Should somebody have taken away the token, nothing comes of it.
    fn register(
        &self,
        member: &mut TaskAgent,
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
            let _ = call(consul, now, member.secret.as_deref(), "PUT", "/v1/catalog/register", &body);
        }
        member.status = Some(status);
    }

    fn end(&mut self, member: &mut TaskAgent, task: &CloudTask, consul: &mut ConsulServer, now: Timestamp) {
        let Some(secret) = member.secret.take() else { return };
        let died =
            matches!(task.stop_code, Some(StopCode::EssentialContainerExited | StopCode::TaskFailedToStart));
        if died {
            self.tally.died_registered += 1;
            return;
        }
        self.tally.logouts += 1;
        for proxy in ["-sidecar-proxy", ""] {
            let id = format!("{}-{}{proxy}", task.family, task.id());
            let body = json!({"Node": self.bootstrap.cluster, "ServiceID": id});
            let _ = call(consul, now, Some(&secret), "PUT", "/v1/catalog/deregister", &body);
        }
        let _ = call(consul, now, Some(&secret), "POST", "/v1/acl/logout", &Value::Null);
        self.record_event("leaves", task, "deregisters and logs out");
    }

    fn record_event(&mut self, what: &'static str, task: &CloudTask, message: &str) {
        let message = format!("{:<10} {:<8}  {message}", task.family, short(task.id()));
        self.events.push(WorldEvent { who: "task", what, message });
    }
}
