//! What runs in a task: a sidecar that asks for its bootstrap every 3 s for 5 min, and an app that answers some time
//! after it was started.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::scenario::{MESH, ScenarioService};
use super::{Census, Naming};
use crate::aws::{Cloud, CloudTask};
use crate::kuma::KumaCp;
use crate::control_planes::ControlPlanes;
use ecs_mesh_model::{LastStatus, Timestamp};

/// When it is time to drop what ECS has forgotten, too.
const SHUTDOWN_TIME: usize = 100_000;
/// Between two attempts of a sidecar.
const RETRY: Duration = Duration::from_secs(3);
/// When a sidecar gives up.
const GIVES_UP: Duration = Duration::from_mins(5);
/// From RUNNING to the app's first answer.
const APP_START: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct SimulatedSidecars {
    app_ports: BTreeMap<String, u16>,
    naming: Naming,
    /// Whether there is a Kuma to connect to.
    connects: bool,
    alive: BTreeMap<Arc<str>, SimulatedSidecar>,
    /// Stopped and counted. Never iterated in an order that shows.
    finished: HashSet<Arc<str>>,
    census: Census,
}

#[derive(Debug, Default)]
struct SimulatedSidecar {
    started: Option<Timestamp>,
    next_try: Option<Timestamp>,
    connected: bool,
    gave_up: bool,
    app_up: bool,
    /// What it was started with.
    name: String,
}

impl SimulatedSidecars {
    pub(super) fn new(services: &[ScenarioService], naming: Naming, control_planes: ControlPlanes) -> Self {
        let app_ports = services.iter().map(|service| (service.name.clone(), service.app_port)).collect();
        let (alive, over, census) = (BTreeMap::new(), HashSet::new(), Census::default());
        Self { app_ports, naming, connects: control_planes.has_kuma(), alive, finished: over, census }
    }

    pub(super) fn census(&self) -> Census {
        self.census
    }

    pub(super) fn step(&mut self, cloud: &Cloud, kuma: &mut KumaCp, now: Timestamp) {
        for task in cloud.all_tasks() {
            if task.last_status.is_stopped() && self.finished.contains(&task.arn) {
                continue;
            }
            if !self.alive.contains_key(&task.arn) {
                self.census.started += 1;
            }
            let port = self.app_ports.get(&task.family).copied().unwrap_or(8_080);
            let sidecar = self.alive.entry(Arc::clone(&task.arn)).or_default();
            if task.last_status >= LastStatus::Stopping {
                sidecar.end(port, kuma, now);
            } else if self.connects {
                self.census.sidecars_lost += u64::from(sidecar.live(task, self.naming, port, kuma, now));
            }
            if task.last_status.is_stopped() {
                self.alive.remove(&task.arn);
                self.finished.insert(Arc::clone(&task.arn));
                self.census.stopped += 1;
            }
        }
        // ECS has forgotten these without a word.
        let forgotten = |arn: &&Arc<str>| cloud.task(arn).is_none();
        let forgotten: Vec<Arc<str>> = self.alive.keys().filter(forgotten).cloned().collect();
        for arn in forgotten {
            if let Some(mut sidecar) = self.alive.remove(&arn) {
                sidecar.end(0, kuma, now);
                self.census.stopped += 1;
            }
        }
        if self.finished.len() > SHUTDOWN_TIME {
            self.finished.retain(|arn| cloud.task(arn).is_some());
        }
    }
}

impl SimulatedSidecar {
    /// Whether the sidecar gave up just now.
    fn live(
        &mut self,
        task: &CloudTask,
        naming: Naming,
        port: u16,
        kuma: &mut KumaCp,
        now: Timestamp,
    ) -> bool {
        let (Some(address), true) = (task.address(), task.last_status >= LastStatus::Activating) else {
            return false;
        };
        if self.name.is_empty() {
            self.name = match naming {
                Naming::TaskId => task.id().to_owned(),
                Naming::Hostname => host_name(address),
            };
        }
        let started = *self.started.get_or_insert(now);
        if !self.connected && !self.gave_up && self.next_try.is_none_or(|at| now >= at) {
            self.next_try = Some(now.plus(RETRY));
            self.connected = kuma.connect_sidecar(MESH, &self.name, &address.to_string(), now);
        }
        let runs = task.started_at.is_some_and(|at| at.age_at(now) >= APP_START);
        if self.connected && runs && !self.app_up {
            self.app_up = true;
            kuma.set_app_up(MESH, &self.name, port, true, now);
        }
        let late = !self.connected && !self.gave_up && started.age_at(now) >= GIVES_UP;
        self.gave_up |= late;
        late
    }

    fn end(&mut self, port: u16, kuma: &mut KumaCp, now: Timestamp) {
        if std::mem::take(&mut self.connected) {
            kuma.disconnect_sidecar(MESH, &self.name, now);
        }
        if std::mem::take(&mut self.app_up) {
            kuma.set_app_up(MESH, &self.name, port, false, now);
        }
        self.gave_up = true;
    }
}

/// The name that a container with this address has.
pub fn host_name(address: std::net::Ipv4Addr) -> String {
    format!("ip-{}", address.to_string().replace('.', "-"))
}
