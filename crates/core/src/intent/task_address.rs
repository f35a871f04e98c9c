//! The address under which other tasks reach a task.
//!
//! | network mode | on | address |
//! |---|---|---|
//! | `awsvpc` | Fargate, EC2, Managed Instances | the task's own network interface |
//! | `host` | EC2, Managed Instances | the container instance, once EC2 has shown it |
//! | `bridge`, `none`, `default` | EC2 | refused: no port of the task is one that the mesh can route to |
//! | any | external instances | refused: ECS and EC2 do not show the address |

use std::net::{IpAddr, Ipv4Addr};

use super::evaluator::known_definition;
use super::{Fact, HoldReason, IgnoreReason, MissingFact, TaskFacts, Verdict};
use ecs_mesh_api::{AddressFamily, ProxyRole, Reach, WorkloadSpec};
use ecs_mesh_model::{InterfaceAddresses, Reason, Task, TaskDefinition, TaskHost};

/// The address of a task.
#[derive(Clone, Copy, Debug)]
pub(super) struct TaskAddress {
    /// The address to register.
    pub(super) address: IpAddr,
    /// The IPv4 address of the same interface, which the host's name has.
    pub(super) v4: Option<Ipv4Addr>,
    /// Other tasks may have the same address: network mode `host`.
    pub(super) is_shared: bool,
}

impl TaskAddress {
    /// The task's address of the preferred family, or the verdict on a task without one.
    pub(super) fn of(task: &Task, facts: &TaskFacts, family: AddressFamily) -> Result<Self, Verdict> {
        if task.host == TaskHost::External {
            return Err(Verdict::Ignore(IgnoreReason::ExternalInstance));
        }
        if let Some(own) = Self::preferred(task.addresses, family, false) {
            return Ok(own);
        }
        match known_definition(facts)?.network_mode.as_deref() {
            Some("awsvpc") => Err(Verdict::Hold(HoldReason::AddressPending)),
            Some("host") => Self::of_host(task, facts, family),
            // ECS's default for Linux tasks is bridge.
            mode => Err(Verdict::Ignore(IgnoreReason::NetworkMode(mode.unwrap_or("bridge").to_owned()))),
        }
    }

    fn of_host(task: &Task, facts: &TaskFacts, family: AddressFamily) -> Result<Self, Verdict> {
        let TaskHost::ContainerInstance(instance) = &task.host else {
            return Err(Verdict::Hold(HoldReason::AddressPending));
        };
        match &facts.host {
            Fact::NotAsked => Err(Verdict::NeedsFact(MissingFact::Host(instance.clone()))),
            Fact::Unknown(reason) => {
                let reason = reason.clone().with_prefix("the container instance's address");
                Err(Verdict::Hold(HoldReason::Unknown(reason)))
            }
            Fact::Known(addresses) => Self::preferred(*addresses, family, true).ok_or_else(|| {
                let message = "the container instance's address: EC2 shows none";
                Verdict::Hold(HoldReason::Unknown(Reason::constant(message)))
            }),
        }
    }

    fn preferred(addresses: InterfaceAddresses, family: AddressFamily, is_shared: bool) -> Option<Self> {
        let address = family.prefer(addresses)?;
        Some(Self { address, v4: addresses.v4(), is_shared })
    }

    /// Refuses inbound ports that ECS does not keep apart: on one instance it starts no two tasks with the same port
    /// mapping, but without a mapping another task's sidecar may listen on the port, and would receive what is sent to
    /// this one.
    ///
    /// Source: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_PortMapping.html> (`hostPort`).
    pub(super) fn check_ports(&self, workload: &WorkloadSpec, facts: &TaskFacts) -> Result<(), Verdict> {
        let Fact::Known(definition) = &facts.definition else { return Ok(()) };
        if !self.is_shared {
            return Ok(());
        }
        let zone_proxy = match workload.proxy_role() {
            ProxyRole::Zone(proxy) => Some(proxy.port),
            ProxyRole::Sidecar | ProxyRole::Gateway(_) => None,
        };
        let unmapped: Vec<String> = workload
            .inbounds
            .iter()
            .map(|inbound| inbound.port)
            .chain(zone_proxy)
            .filter(|port| !is_mapped(definition, port.get()))
            .map(|port| port.to_string())
            .collect();
        if unmapped.is_empty() {
            return Ok(());
        }
        Err(Verdict::Hold(HoldReason::Unusable(Reason::constant(format!(
            "no container of {} maps inbound port {} (TCP), so another task of the instance may listen on it (network mode \
             host); add a port mapping for it to the sidecar's container",
            definition.arn,
            unmapped.join(", ")
        )))))
    }

    /// Warns of sidecars that bind a listener for each service on the loopback that all tasks of the instance share.
    pub(super) fn shared_listeners(&self, name: &str, reach: Reach) -> Option<Reason> {
        (self.is_shared && reach == Reach::BindOutbounds).then(|| {
            Reason::constant(format!(
                "Workload {name}: reach is bindOutbounds, and in network mode host all sidecars of an instance would bind the \
                 same addresses, so that only the first can; help: run one such task on an instance, or use `reach: outbounds` \
                 with listen addresses that differ between Workloads, or network mode awsvpc"
            ))
        })
    }
}

fn is_mapped(definition: &TaskDefinition, port: u16) -> bool {
    definition.containers.iter().any(|container| container.ports.contains(&port))
}
