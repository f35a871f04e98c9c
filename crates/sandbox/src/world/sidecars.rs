//! Sidecars and apps at Kuma: a sidecar requests its bootstrap every 3 s for 5 min, and an app answers on its port. Both
//! live as long as their containers.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::scenario::{MESH, ScenarioService};
use super::serving::app_and_sidecar;
use super::{Naming, TaskCounts};
use crate::aws::{Cloud, CloudTask};
use crate::control_planes::ControlPlanes;
use crate::kuma::KumaCp;
use ecs_mesh_model::Timestamp;

/// Number of finished tasks above which those that ECS has forgotten are dropped.
const MAX_FINISHED: usize = 100_000;
/// Time between two bootstrap requests of a sidecar.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);
/// Time after which a sidecar stops requesting its bootstrap.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_mins(5);
#[derive(Debug)]
pub(super) struct SimulatedSidecars {
    app_ports: BTreeMap<String, u16>,
    naming: Naming,
    /// Whether Kuma is among the control planes.
    connects: bool,
    alive: BTreeMap<Arc<str>, SimulatedSidecar>,
    /// Stopped and counted tasks. The iteration order of this set must not affect the result.
    finished: HashSet<Arc<str>>,
    task_counts: TaskCounts,
}

#[derive(Debug, Default)]
struct SimulatedSidecar {
    started: Option<Timestamp>,
    next_try: Option<Timestamp>,
    connected: bool,
    timed_out: bool,
    app_up: bool,
    /// Name of its Dataplane.
    name: String,
}

impl SimulatedSidecars {
    pub(super) fn new(services: &[ScenarioService], naming: Naming, control_planes: ControlPlanes) -> Self {
        let app_ports = services.iter().map(|service| (service.name.clone(), service.app_port)).collect();
        let (alive, finished, task_counts) = (BTreeMap::new(), HashSet::new(), TaskCounts::default());
        Self { app_ports, naming, connects: control_planes.has_kuma(), alive, finished, task_counts }
    }

    pub(super) fn task_counts(&self) -> TaskCounts {
        self.task_counts
    }

    pub(super) fn step(&mut self, cloud: &Cloud, kuma: &mut KumaCp, now: Timestamp) {
        for task in cloud.all_tasks() {
            if task.last_status.is_stopped() && self.finished.contains(&task.arn) {
                continue;
            }
            if !self.alive.contains_key(&task.arn) {
                self.task_counts.started += 1;
            }
            let port = self.app_ports.get(&task.family).copied().unwrap_or(8_080);
            let sidecar = self.alive.entry(Arc::clone(&task.arn)).or_default();
            if self.connects {
                self.task_counts.sidecars_lost += u64::from(sidecar.step(task, self.naming, port, kuma, now));
            }
            if task.last_status.is_stopped() {
                self.alive.remove(&task.arn);
                self.finished.insert(Arc::clone(&task.arn));
                self.task_counts.stopped += 1;
            }
        }
        // Tasks that ECS has forgotten without a STOPPED state.
        let forgotten = |arn: &&Arc<str>| cloud.task(arn).is_none();
        let forgotten: Vec<Arc<str>> = self.alive.keys().filter(forgotten).cloned().collect();
        for arn in forgotten {
            if let Some(mut sidecar) = self.alive.remove(&arn) {
                sidecar.end(0, kuma, now);
                self.task_counts.stopped += 1;
            }
        }
        if self.finished.len() > MAX_FINISHED {
            self.finished.retain(|arn| cloud.task(arn).is_some());
        }
    }
}

impl SimulatedSidecar {
    /// Advances the sidecar and returns whether it timed out in this step.
    fn step(
        &mut self,
        task: &CloudTask,
        naming: Naming,
        port: u16,
        kuma: &mut KumaCp,
        now: Timestamp,
    ) -> bool {
        let (Some((app, sidecar)), Some(address)) = (app_and_sidecar(task), task.address()) else {
            return false;
        };
        if !sidecar.is_up(now) {
            self.end(port, kuma, now);
            return false;
        }
        if self.name.is_empty() {
            self.name = match naming {
                Naming::TaskId => task.id().to_owned(),
                Naming::Hostname => host_name(address),
            };
        }
        let started = *self.started.get_or_insert(now);
        if !self.connected && !self.timed_out && self.next_try.is_none_or(|at| now >= at) {
            self.next_try = Some(now.plus(RETRY_INTERVAL));
            self.connected = kuma.connect_sidecar(MESH, &self.name, &address.to_string(), now);
        }
        if self.connected {
            self.set_app_up(app.answers(now), port, kuma, now);
        }
        let timed_out = !self.connected && !self.timed_out && started.age_at(now) >= BOOTSTRAP_TIMEOUT;
        self.timed_out |= timed_out;
        timed_out
    }

    fn set_app_up(&mut self, up: bool, port: u16, kuma: &mut KumaCp, now: Timestamp) {
        if std::mem::replace(&mut self.app_up, up) != up {
            kuma.set_app_up(MESH, &self.name, port, up, now);
        }
    }

    fn disconnect(&mut self, kuma: &mut KumaCp, now: Timestamp) {
        if std::mem::take(&mut self.connected) {
            kuma.disconnect_sidecar(MESH, &self.name, now);
        }
    }

    /// Ends both.
    fn end(&mut self, port: u16, kuma: &mut KumaCp, now: Timestamp) {
        self.disconnect(kuma, now);
        self.set_app_up(false, port, kuma, now);
    }
}

/// The host name of a container with this address.
pub fn host_name(address: std::net::Ipv4Addr) -> String {
    format!("ip-{}", address.to_string().replace('.', "-"))
}
