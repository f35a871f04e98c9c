//! Workloads that docker labels and ECS tags of a task describe (`discovery: tags`).

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use ecs_mesh_api::limits::DNS_LABEL_RULE;
use ecs_mesh_api::manifests::{is_dns_label, reserved};
use ecs_mesh_api::{Inbound, Probe, Protocol, ProxyKind, Reach, WorkloadSelector, WorkloadSpec};
use ecs_mesh_model::{Reason, ServiceName, Tags, TaskDefinition};

/// The service's name; without it the task describes no workload. The same key as in the mesh.
pub const SERVICE: &str = "kuma.io/service";
/// The protocol of the port.
pub const PROTOCOL: &str = "kuma.io/protocol";
/// The label `kuma.io/workload`.
pub const WORKLOAD: &str = "kuma.io/workload";
/// The port that the sidecar listens on.
pub const INBOUND_PORT: &str = "ecs-mesh.dev/inbound-port";
/// The port that the app listens on; default: the only port of the labelled container, or of the task.
pub const CONTAINER_PORT: &str = "ecs-mesh.dev/container-port";

/// The workload that a task describes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum DiscoveredWorkload {
    /// None: the task has no `kuma.io/service`.
    Nothing,
    /// A workload.
    Workload(Box<WorkloadSpec>),
    /// An invalid description.
    Unusable(Reason),
}

/// Reads docker labels, which take precedence, and ECS tags. Without an inbound port the task only calls others. The
/// description must pass the rules of a `Workload`.
pub(super) fn describe(definition: &TaskDefinition, tags: &Tags) -> DiscoveredWorkload {
    let labels = |key: &str| definition.containers.iter().find_map(|c| c.docker_labels.get(key));
    let value = |key: &str| labels(key).or_else(|| tags.get(key)).map(String::as_str);
    let Some(service) = value(SERVICE) else { return DiscoveredWorkload::Nothing };
    match consistent_value(definition).and_then(|()| workload(definition, service, &value)) {
        Ok(workload) => DiscoveredWorkload::Workload(Box::new(workload)),
        Err(message) => DiscoveredWorkload::Unusable(Reason::constant(message)),
    }
}

/// The workload that docker labels and ECS tags of a task describe, if they describe one.
///
/// # Errors
/// The description is invalid, for this reason.
pub fn discovered_workload(definition: &TaskDefinition, tags: &Tags) -> Result<Option<WorkloadSpec>, Reason> {
    match describe(definition, tags) {
        DiscoveredWorkload::Nothing => Ok(None),
        DiscoveredWorkload::Workload(workload) => Ok(Some(*workload)),
        DiscoveredWorkload::Unusable(reason) => Err(reason),
    }
}

/// Different values of one label on several containers are an error, since either may be intended.
fn consistent_value(definition: &TaskDefinition) -> Result<(), String> {
    for key in [SERVICE, PROTOCOL, WORKLOAD, INBOUND_PORT, CONTAINER_PORT] {
        let mut labels =
            definition.containers.iter().filter_map(|c| Some((&c.name, c.docker_labels.get(key)?)));
        let Some((first, value)) = labels.next() else { continue };
        if let Some((other, differs)) = labels.find(|(_, other)| *other != value) {
            return Err(format!(
                "docker label {key} is {value:?} on container {first} and {differs:?} on container {other}; keep one"
            ));
        }
    }
    Ok(())
}

fn workload<'a>(
    definition: &TaskDefinition,
    service: &str,
    value: &impl Fn(&str) -> Option<&'a str>,
) -> Result<WorkloadSpec, String> {
    let service = ServiceName::parse(service).map_err(|error| format!("{SERVICE}: {error}"))?;
    let label = value(WORKLOAD);
    if let Some(label) = label.filter(|label| !is_dns_label(label)) {
        return Err(format!("{WORKLOAD} is {label:?}, allowed are {DNS_LABEL_RULE}"));
    }
    let inbounds = match value(INBOUND_PORT) {
        None => Vec::new(),
        Some(text) => {
            let port = port(INBOUND_PORT, text)?;
            let container_port = container_port(definition, value(CONTAINER_PORT))?;
            if port == container_port {
                return Err(format!("{INBOUND_PORT} is {port}, on which the app listens; choose another"));
            }
            for (key, port) in [(INBOUND_PORT, port), (CONTAINER_PORT, container_port)] {
                if let Some(user) = reserved(port) {
                    return Err(format!("{key} is {port}, which is {user}; choose another"));
                }
            }
            let protocol = value(PROTOCOL).map_or(Ok(Protocol::Tcp), protocol)?;
            vec![inbound(port, container_port, protocol)]
        }
    };
    Ok(WorkloadSpec {
        bindings: Vec::new(),
        selector: WorkloadSelector::default(),
        service,
        workload: label.map(str::to_owned),
        proxy: ProxyKind::default(),
        gateway: None,
        zone_ingress: None,
        zone_egress: None,
        inbounds,
        reach: Reach::default(),
        outbounds: None,
        probe: Probe::default(),
        dataplanes: None,
    })
}

fn inbound(port: NonZeroU16, container_port: NonZeroU16, protocol: Protocol) -> Inbound {
    Inbound {
        name: None,
        container: None,
        container_port,
        port,
        service_address: None,
        protocol,
        tags: Tags::new(),
    }
}

fn port(key: &str, text: &str) -> Result<NonZeroU16, String> {
    text.parse().map_err(|_| format!("{key} is {text:?}, allowed is a port from 1 to 65535"))
}

fn protocol(text: &str) -> Result<Protocol, String> {
    [Protocol::Tcp, Protocol::Http, Protocol::Http2, Protocol::Grpc, Protocol::Kafka]
        .into_iter()
        .find(|p| p.as_str() == text)
        .ok_or_else(|| format!("{PROTOCOL} is {text:?}, allowed are tcp, http, http2, grpc and kafka"))
}

fn container_port(definition: &TaskDefinition, given: Option<&str>) -> Result<NonZeroU16, String> {
    if let Some(text) = given {
        return port(CONTAINER_PORT, text);
    }
    let labelled = definition.containers.iter().find(|c| c.docker_labels.contains_key(SERVICE));
    // One port may be mapped for TCP and for UDP.
    let ports: BTreeSet<u16> = match labelled {
        Some(container) => container.ports.iter().copied().collect(),
        None => definition.containers.iter().flat_map(|c| c.ports.iter().copied()).collect(),
    };
    match Vec::from_iter(ports).as_slice() {
        [one] => NonZeroU16::new(*one).ok_or_else(|| "the container's port mapping is 0".to_owned()),
        several => Err(format!(
            "{INBOUND_PORT} is given and {CONTAINER_PORT} is not, and the container has {} port mappings to choose \
             from; set {CONTAINER_PORT}",
            several.len()
        )),
    }
}
