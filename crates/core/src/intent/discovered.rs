//! Workloads that docker labels and ECS tags of a task describe (`discovery: tags`).
//!
//! Each field has a key of its own, and list items have numbers, since a tag's value may have neither commas nor brackets
//! (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-using-tags.html>).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use super::tag_key::{InboundField, OutboundField, PREFIX, SERVICE_KEY, TagKey, unknown_key};
use ecs_mesh_api::manifests::broken_description;
use ecs_mesh_api::{
    Backend, BackendKind, Inbound, Listen, Outbound, Probe, Protocol, ProxyKind, Reach, WorkloadSelector,
    WorkloadSpec,
};
use ecs_mesh_model::{Reason, ServiceName, Tags, TaskContainer, printable};

/// The workload that a task describes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum DiscoveredWorkload {
    /// None: the task has no key of a description.
    Nothing,
    /// A workload.
    Workload(Box<WorkloadSpec>),
    /// An invalid description.
    Unusable(Reason),
}

/// Reads docker labels, which take precedence key by key, and ECS tags. The description must pass the rules of a `Workload`.
pub(super) fn describe(containers: &[TaskContainer], tags: &Tags) -> DiscoveredWorkload {
    let described = Description::read(containers, tags).and_then(|description| {
        let is_empty = description.values.is_empty();
        (!is_empty).then(|| description.workload(containers)).transpose()
    });
    match described {
        Ok(None) => DiscoveredWorkload::Nothing,
        Ok(Some(workload)) => DiscoveredWorkload::Workload(Box::new(workload)),
        Err(message) => DiscoveredWorkload::Unusable(Reason::constant(message)),
    }
}

/// The workload that docker labels of a task definition's containers and ECS tags of a task describe, if they describe one.
///
/// # Errors
/// The description is invalid, for this reason.
pub fn discovered_workload(
    containers: &[TaskContainer],
    tags: &Tags,
) -> Result<Option<WorkloadSpec>, Reason> {
    match describe(containers, tags) {
        DiscoveredWorkload::Nothing => Ok(None),
        DiscoveredWorkload::Workload(workload) => Ok(Some(*workload)),
        DiscoveredWorkload::Unusable(reason) => Err(reason),
    }
}

/// A value, and where it stands.
#[derive(Clone, Copy)]
struct TagValue<'a> {
    key: &'a str,
    text: &'a str,
    /// The container of a docker label; `None` for an ECS tag.
    container: Option<&'a str>,
}

impl TagValue<'_> {
    fn refused(&self, allowed: &str) -> String {
        format!("{self} is {}, allowed is {allowed}", quoted(self.text))
    }

    fn parsed<T: std::str::FromStr>(&self, allowed: &str) -> Result<T, String> {
        self.text.parse().map_err(|_| self.refused(allowed))
    }

    fn service(&self) -> Result<ServiceName, String> {
        ServiceName::parse(self.text).map_err(|error| format!("{self}: {error}"))
    }

    fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, String> {
        let chosen = choices.iter().find(|(text, _)| *text == self.text);
        let names = || choices.iter().map(|(text, _)| *text).collect::<Vec<_>>().join(", ");
        chosen.map(|(_, value)| *value).ok_or_else(|| self.refused(&names()))
    }
}

impl fmt::Display for TagValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = shown_key(self.key);
        match self.container {
            Some(container) => write!(f, "docker label {key} of container {container}"),
            None => write!(f, "ECS tag {key}"),
        }
    }
}

/// Characters of a key or value that a message repeats: a label may have thousands, and each task keeps its message.
const SHOWN: usize = 120;

/// A key, which may have any characters in a label.
fn shown_key(key: &str) -> String {
    match key.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}…", printable(&key[..cut])),
        None => printable(key).into_owned(),
    }
}

/// A value in quotes.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// All values of a description.
struct Description<'a> {
    values: BTreeMap<TagKey<'a>, TagValue<'a>>,
}

impl<'a> Description<'a> {
    fn read(containers: &'a [TaskContainer], tags: &'a Tags) -> Result<Self, String> {
        let labels = containers.iter().flat_map(|container| {
            let container_name = Some(&*container.name);
            let labels = container.docker_labels.iter();
            labels.map(move |(key, text)| TagValue { key, text, container: container_name })
        });
        let tags = tags.iter().map(|(key, text)| TagValue { key, text, container: None });
        let mut values: BTreeMap<TagKey<'a>, TagValue<'a>> = BTreeMap::new();
        // Labels come first, and take precedence.
        for value in labels.chain(tags) {
            let Some(field) = value.key.strip_prefix(PREFIX) else { continue };
            let key = TagKey::parse(field).ok_or_else(|| format!("{value}: {}", unknown_key(field)))?;
            match values.get(&key) {
                // Either may be intended.
                Some(other) if value.container.is_some() && other.text != value.text => {
                    let (first, second) = (quoted(other.text), quoted(value.text));
                    return Err(format!("{other} is {first}, and {value} is {second}; keep one"));
                }
                Some(_) => {}
                None => {
                    values.insert(key, value);
                }
            }
        }
        Ok(Self { values })
    }

    fn get(&self, key: TagKey<'_>) -> Option<TagValue<'a>> {
        self.values.get(&key).copied()
    }

    fn workload(&self, containers: &[TaskContainer]) -> Result<WorkloadSpec, String> {
        let service = self.get(TagKey::Service).ok_or_else(|| {
            let given = self.values.values().next().map(ToString::to_string).unwrap_or_default();
            format!("{given} is given, and {SERVICE_KEY} is not; add it, with the service's name")
        })?;
        let reach = [Reach::Outbounds, Reach::BindOutbounds].map(|reach| (reach.as_str(), reach));
        let probe = [("tcp", Probe::Tcp), ("none", Probe::None)];
        let numbers = ItemNumbers::of(self.values.keys());
        let workload = WorkloadSpec {
            bindings: Vec::new(),
            selector: WorkloadSelector::default(),
            service: service.service()?,
            workload: self.get(TagKey::Workload).map(|value| value.text.to_owned()),
            proxy: ProxyKind::default(),
            gateway: None,
            zone_ingress: None,
            zone_egress: None,
            inbounds: numbers
                .inbounds
                .iter()
                .map(|number| self.inbound(*number, containers))
                .collect::<Result<_, _>>()?,
            reach: self.get(TagKey::Reach).map_or(Ok(Reach::default()), |value| value.one_of(&reach))?,
            outbounds: self.outbounds(&numbers.outbounds)?,
            probe: self.get(TagKey::Probe).map_or(Ok(Probe::default()), |value| value.one_of(&probe))?,
            dataplanes: None,
        };
        match broken_description(&workload).into_iter().next() {
            None => Ok(workload),
            Some((path, message)) => Err(self.broken(&path, &message, &numbers)),
        }
    }

    fn inbound(&self, number: u8, containers: &[TaskContainer]) -> Result<Inbound, String> {
        let key = |field| TagKey::Inbound(number, field);
        let value = |field| self.get(key(field));
        let port = value(InboundField::Port).ok_or_else(|| missing(&key(InboundField::Port)))?;
        let (labelled, port) = (port.container, port.parsed(PORT)?);
        let container_port = match value(InboundField::ContainerPort) {
            Some(value) => value.parsed(PORT)?,
            None => only_port(containers, labelled, &key(InboundField::ContainerPort))?,
        };
        let protocols = [Protocol::Tcp, Protocol::Http, Protocol::Http2, Protocol::Grpc, Protocol::Kafka];
        let protocols = protocols.map(|protocol| (protocol.as_str(), protocol));
        let protocol = value(InboundField::Protocol);
        let service_address = value(InboundField::ServiceAddress);
        let tags = self.values.iter().filter_map(|(key, value)| match key {
            TagKey::Inbound(of, InboundField::Tag(name)) if *of == number => {
                Some(((*name).to_owned(), value.text.to_owned()))
            }
            _ => None,
        });
        Ok(Inbound {
            name: value(InboundField::Name).map(|value| value.text.to_owned()),
            container: labelled.map(str::to_owned),
            container_port,
            port,
            service_address: service_address.map(|value| value.parsed("an IP address")).transpose()?,
            protocol: protocol.map_or(Ok(Protocol::default()), |value| value.one_of(&protocols))?,
            tags: tags.collect(),
        })
    }

    /// `None` if the task declares nothing about outbounds, which is not the same as none.
    fn outbounds(&self, numbers: &[u8]) -> Result<Option<Vec<Outbound>>, String> {
        let Some(value) = self.get(TagKey::Outbounds) else {
            let outbounds = || numbers.iter().map(|number| self.outbound(*number)).collect::<Result<_, _>>();
            return (!numbers.is_empty()).then(outbounds).transpose();
        };
        value.one_of(&[("none", ())])?;
        match self.values.iter().find(|(key, _)| matches!(key, TagKey::Outbound(..))) {
            Some((_, other)) => Err(format!("{value} is none, and {other} is given; keep one")),
            None => Ok(Some(Vec::new())),
        }
    }

    fn outbound(&self, number: u8) -> Result<Outbound, String> {
        let key = |field| TagKey::Outbound(number, field);
        let value = |field| self.get(key(field));
        let port = |field| value(field).map(|value| value.parsed::<NonZeroU16>(PORT)).transpose();
        let kinds =
            [BackendKind::MeshService, BackendKind::MeshExternalService, BackendKind::MeshMultiZoneService];
        let kinds = kinds.map(|kind| (kind.as_str(), kind));
        let (name, backend_port) = (value(OutboundField::BackendName), port(OutboundField::BackendPort)?);
        let backend = match value(OutboundField::BackendKind) {
            Some(kind) => Some(Backend {
                kind: kind.one_of(&kinds)?,
                name: name.map(|name| name.text.to_owned()),
                labels: Tags::new(),
                port: backend_port,
            }),
            None if name.is_some() || backend_port.is_some() => {
                return Err(missing(&key(OutboundField::BackendKind)));
            }
            None => None,
        };
        let address = value(OutboundField::ListenAddress);
        let listen = match port(OutboundField::ListenPort)? {
            Some(port) => {
                let loopback = Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
                Some(Listen {
                    address: address.map_or(loopback, |value| value.parsed("an IP address"))?,
                    port,
                })
            }
            None if address.is_some() => return Err(missing(&key(OutboundField::ListenPort))),
            None => None,
        };
        Ok(Outbound {
            service: value(OutboundField::Service).map(|value| value.service()).transpose()?,
            target_port: port(OutboundField::TargetPort)?,
            backend,
            listen,
        })
    }

    /// A rule of a `Workload` that the description breaks, with keys instead of the manifest's fields.
    fn broken(&self, path: &str, message: &str, numbers: &ItemNumbers) -> String {
        let key = numbers.with_keys(path);
        let value = self.values.values().find(|value| value.key == key);
        let place = value.map_or(key, ToString::to_string);
        format!("{place}: {}", numbers.with_keys(message))
    }
}

const PORT: &str = "a port from 1 to 65535";

fn missing(key: &TagKey<'_>) -> String {
    format!("{PREFIX}{key} is missing; add it")
}

/// The only port of the labelled container, or of the task.
fn only_port(
    containers: &[TaskContainer],
    container: Option<&str>,
    key: &TagKey<'_>,
) -> Result<NonZeroU16, String> {
    let is_meant = |name: &str| container.is_none_or(|container| container == name);
    let meant = containers.iter().filter(|container| is_meant(&container.name));
    // One port may be mapped for TCP and for UDP.
    let ports: BTreeSet<u16> = meant.flat_map(|container| container.ports.iter().copied()).collect();
    let refused = |problem: &str| {
        let owner = container.map_or_else(|| "the task".to_owned(), |name| format!("container {name}"));
        format!("{PREFIX}{key} is missing, and {owner} has {problem}; add it")
    };
    match Vec::from_iter(ports).as_slice() {
        [one] => NonZeroU16::new(*one).ok_or_else(|| refused("the port mapping 0")),
        several => Err(refused(&format!("{} port mappings to choose from", several.len()))),
    }
}

/// The numbers of list items, in order. Gaps are allowed.
struct ItemNumbers {
    inbounds: Vec<u8>,
    outbounds: Vec<u8>,
}

impl ItemNumbers {
    fn of<'a>(keys: impl Iterator<Item = &'a TagKey<'a>>) -> Self {
        let (mut inbounds, mut outbounds) = (BTreeSet::new(), BTreeSet::new());
        for key in keys {
            match key {
                TagKey::Inbound(number, _) => {
                    inbounds.insert(*number);
                }
                TagKey::Outbound(number, _) => {
                    outbounds.insert(*number);
                }
                _ => {}
            }
        }
        Self { inbounds: Vec::from_iter(inbounds), outbounds: Vec::from_iter(outbounds) }
    }

    /// The text with the keys of the fields that it names as a `Workload` has them.
    fn with_keys(&self, text: &str) -> String {
        let is_path = |c: char| c.is_ascii_alphanumeric() || "._[]/-".contains(c);
        // A field whose name is no identifier, such as `tags["kuma.io/zone"]`.
        let text = text.replace("[\"", ".").replace("\"]", "");
        let (mut written, mut rest) = (String::new(), &*text);
        while let Some(at) = rest.find("spec.") {
            let path = rest[at..].split(|c: char| !is_path(c)).next().unwrap_or_default();
            let path = path.trim_end_matches('.');
            written.push_str(&rest[..at]);
            written.push_str(&self.key_of(path));
            rest = &rest[at + path.len()..];
        }
        written.push_str(rest);
        let fields = [("containerPort", "container-port"), ("targetPort", "target-port")];
        let fields = fields.into_iter().chain([("serviceAddress", "service-address")]);
        fields.fold(written, |text, (field, key)| text.replace(field, key))
    }

    fn key_of(&self, path: &str) -> String {
        let field = path.strip_prefix("spec.").unwrap_or(path);
        for (list, item, numbers) in
            [("inbounds[", "inbound", &self.inbounds), ("outbounds[", "outbound", &self.outbounds)]
        {
            let Some((index, field)) = field.strip_prefix(list).and_then(|rest| rest.split_once(']')) else {
                continue;
            };
            let number = index.parse().ok().and_then(|index: usize| numbers.get(index));
            let item = format!("{PREFIX}{item}.{}", number.copied().unwrap_or_default());
            return match field.trim_start_matches('.') {
                "" => item,
                "listen" => format!("{item}.listen-port"),
                field => match field.strip_prefix("tags.") {
                    Some(tag) => format!("{item}.tag.{tag}"),
                    None => format!("{item}.{}", field.replace('.', "-")),
                },
            };
        }
        format!("{PREFIX}{field}")
    }
}

#[cfg(test)]
mod tests;
