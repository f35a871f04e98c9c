//! Sidecars and apps at Kuma: a sidecar requests its bootstrap every 3 s for 5 min, and an app answers on its port. Both
//! live as long as their containers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};

use super::scenario::{MESH, ScenarioService, TEMPLATE_LABEL};
use super::serving::app_and_sidecar;
use super::task_states::TaskStates;
use super::{Naming, TaskCounts};
use crate::aws::{Cloud, CloudTask};
use crate::control_planes::ControlPlanes;
use crate::kuma::{BIND_OUTBOUNDS, KumaCp};
use ecs_mesh_model::{ClusterId, TaskArn, Timestamp};

/// Time between two bootstrap requests of a sidecar.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);
/// Time after which a sidecar stops requesting its bootstrap.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_mins(5);
#[derive(Debug)]
pub(super) struct SimulatedSidecars {
    /// The services by name, which is the family of their tasks.
    services: BTreeMap<String, ScenarioService>,
    /// The operator that templates name.
    template_operator: Option<String>,
    naming: Naming,
    /// Whether Kuma is among the control planes.
    connects: bool,
    sidecars: TaskStates<SimulatedSidecar>,
    task_counts: TaskCounts,
}

#[derive(Debug, Default)]
struct SimulatedSidecar {
    started: Option<Timestamp>,
    next_try: Option<Timestamp>,
    connected: ConnectedAs,
    timed_out: bool,
    app_up: bool,
    /// Name of its Dataplane.
    name: String,
}

/// The resource that a proxy is connected as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ConnectedAs {
    #[default]
    Nothing,
    Dataplane,
    /// A zone ingress or egress, which has no app and no health discovery.
    ZoneProxy,
}

impl SimulatedSidecars {
    pub(super) fn new(services: &[ScenarioService], naming: Naming, control_planes: ControlPlanes) -> Self {
        let template_operator = services.iter().find_map(|service| service.template_operator.clone());
        let services = services.iter().map(|service| (service.name.clone(), service.clone())).collect();
        let (sidecars, task_counts) = (TaskStates::default(), TaskCounts::default());
        let connects = control_planes.has_kuma();
        Self { services, template_operator, naming, connects, sidecars, task_counts }
    }

    /// Adds a service that is deployed later.
    pub(super) fn add(&mut self, service: &ScenarioService) {
        self.template_operator = self.template_operator.take().or_else(|| service.template_operator.clone());
        self.services.insert(service.name.clone(), service.clone());
    }

    pub(super) fn task_counts(&self) -> TaskCounts {
        self.task_counts
    }

    pub(super) fn step(&mut self, cloud: &Cloud, kuma: &mut KumaCp, now: Timestamp) {
        let (started, forgotten) = self.sidecars.update(cloud);
        self.task_counts.started += u64::try_from(started).unwrap_or(u64::MAX);
        for tracked in self.sidecars.unfinished() {
            let (task, sidecar) = (&tracked.task, &mut tracked.state);
            if self.connects {
                let service = self.services.get(&task.family);
                let port = service.map_or(8_080, |service| service.app_port);
                let template = self.template_operator.as_deref().filter(|_| has_template(task));
                let address = cloud.reachable_address(task);
                let timed_out =
                    sidecar.step(task, address, self.naming, (port, service, template), kuma, now);
                self.task_counts.sidecars_lost += u64::from(timed_out);
            }
            if task.last_status.is_stopped() {
                tracked.is_finished = true;
                self.task_counts.stopped += 1;
            }
        }
        // Tasks that ECS has forgotten without a STOPPED state.
        for mut tracked in forgotten.into_iter().filter(|tracked| !tracked.is_finished) {
            tracked.state.end(0, kuma, now);
            self.task_counts.stopped += 1;
        }
    }
}

impl SimulatedSidecar {
    /// Advances the sidecar and returns whether it timed out in this step.
    fn step(
        &mut self,
        task: &CloudTask,
        address: Option<Ipv4Addr>,
        naming: Naming,
        (port, service, template): (u16, Option<&ScenarioService>, Option<&str>),
        kuma: &mut KumaCp,
        now: Timestamp,
    ) -> bool {
        let (Some((app, sidecar)), Some(address)) = (app_and_sidecar(task), address) else {
            return false;
        };
        if !sidecar.is_up(now) {
            // One that got no SIGTERM does not disconnect cleanly.
            if sidecar.sigterm_at.is_none() && self.connected == ConnectedAs::Dataplane {
                kuma.kill_sidecar(MESH, &self.name, now);
            }
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
        let is_waiting = self.connected == ConnectedAs::Nothing && !self.timed_out;
        if is_waiting && self.next_try.is_none_or(|at| now >= at) {
            self.next_try = Some(now.plus(RETRY_INTERVAL));
            let address = address.to_string();
            let template =
                template.zip(service).and_then(|template| template_of(template, task, &self.name, &address));
            self.connected = if kuma.zone_proxies().any(|(_, name, _)| name == self.name) {
                ConnectedAs::ZoneProxy
            } else {
                let is_dataplane = match template {
                    Some(template) => {
                        kuma.connect_with_template((MESH, &self.name), &address, &template, now).is_ok()
                    }
                    None => kuma.connect_sidecar(MESH, &self.name, &address, now),
                };
                if is_dataplane && service.is_some_and(|service| service.binds_outbounds) {
                    kuma.set_sidecar_features(MESH, &self.name, &[BIND_OUTBOUNDS]);
                }
                if is_dataplane { ConnectedAs::Dataplane } else { ConnectedAs::Nothing }
            };
        }
        if self.connected == ConnectedAs::Dataplane {
            self.set_app_up(app.answers(now), port, kuma, now);
        }
        let is_waiting = self.connected == ConnectedAs::Nothing && !self.timed_out;
        let timed_out = is_waiting && started.age_at(now) >= BOOTSTRAP_TIMEOUT;
        self.timed_out |= timed_out;
        timed_out
    }

    fn set_app_up(&mut self, up: bool, port: u16, kuma: &mut KumaCp, now: Timestamp) {
        if std::mem::replace(&mut self.app_up, up) != up {
            kuma.set_app_up(MESH, &self.name, port, up, now);
        }
    }

    fn disconnect(&mut self, kuma: &mut KumaCp, now: Timestamp) {
        if std::mem::take(&mut self.connected) == ConnectedAs::Dataplane {
            kuma.disconnect_sidecar(MESH, &self.name, now);
        }
    }

    /// Ends both.
    fn end(&mut self, port: u16, kuma: &mut KumaCp, now: Timestamp) {
        self.disconnect(kuma, now);
        self.set_app_up(false, port, kuma, now);
    }
}

/// The Dataplane of a template, with the ownership labels.
fn template_of(
    (operator, service): (&str, &ScenarioService),
    task: &CloudTask,
    name: &str,
    address: &str,
) -> Option<Value> {
    let ScenarioService { port, app_port, .. } = service;
    let arn = TaskArn::parse(&task.arn).ok()?;
    let cluster = arn.cluster();
    let tags = json!({"kuma.io/service": service.name, "kuma.io/protocol": "http"});
    Some(json!({
        "type": "Dataplane", "mesh": MESH, "name": name,
        "labels": {
            "ecs-mesh.dev/operator": operator,
            "ecs-mesh.dev/cluster": cluster.name(),
            "ecs-mesh.dev/cluster-id": ClusterId::of(cluster).as_str(),
            "ecs-mesh.dev/task-id": arn.id().as_str(),
            "kuma.io/workload": service.name,
        },
        "networking": {"address": address, "inbound": [{
            "port": port, "servicePort": app_port, "protocol": "http", "serviceProbe": {"tcp": {}}, "tags": tags,
        }]},
    }))
}

/// Whether the sidecar of the task registers its Dataplane from a template.
pub fn has_template(task: &CloudTask) -> bool {
    let containers = &task.definition.containers;
    containers.iter().any(|container| !container["dockerLabels"][TEMPLATE_LABEL].is_null())
}

/// The host name of a container with this address.
pub fn host_name(address: Ipv4Addr) -> String {
    format!("ip-{}", address.to_string().replace('.', "-"))
}
