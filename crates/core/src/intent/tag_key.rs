//! The keys by which a task describes itself, in ECS tags and docker labels.

use std::fmt;

use ecs_mesh_api::manifests::nearest;

/// Keys of other tags do not begin with it.
pub(super) const PREFIX: &str = "ecs-mesh.dev/";

/// The service's name.
pub const SERVICE_KEY: &str = "ecs-mesh.dev/service";

/// The label `kuma.io/workload`, which names the service in Kuma 3.x.
pub(super) const WORKLOAD_KEY: &str = "ecs-mesh.dev/workload";

/// A key without its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TagKey<'a> {
    /// `service`.
    Service,
    /// `workload`.
    Workload,
    /// `probe`.
    Probe,
    /// `reach`.
    Reach,
    /// `outbounds`, for none at all.
    Outbounds,
    /// `inbound.N.FIELD`.
    Inbound(u8, InboundField<'a>),
    /// `outbound.N.FIELD`.
    Outbound(u8, OutboundField),
}

/// A field of an inbound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum InboundField<'a> {
    /// The port that the sidecar listens on.
    Port,
    /// The port that the app listens on; default: the only one of the labelled container, or of the task.
    ContainerPort,
    /// The protocol.
    Protocol,
    /// The name.
    Name,
    /// The address that the app listens on.
    ServiceAddress,
    /// A further tag of this name.
    Tag(&'a str),
}

/// A field of an outbound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OutboundField {
    /// The called service.
    Service,
    /// The port of the service.
    TargetPort,
    /// The type of a called resource.
    BackendKind,
    /// The name of a called resource.
    BackendName,
    /// The port of a called resource.
    BackendPort,
    /// The port that the app calls.
    ListenPort,
    /// The address that the app calls.
    ListenAddress,
}

/// The keys of the whole task.
const TASK_KEYS: [(&str, TagKey<'_>); 5] = [
    ("service", TagKey::Service),
    ("workload", TagKey::Workload),
    ("probe", TagKey::Probe),
    ("reach", TagKey::Reach),
    ("outbounds", TagKey::Outbounds),
];
const INBOUND_FIELDS: [(&str, InboundField<'_>); 5] = [
    ("port", InboundField::Port),
    ("container-port", InboundField::ContainerPort),
    ("protocol", InboundField::Protocol),
    ("name", InboundField::Name),
    ("service-address", InboundField::ServiceAddress),
];
const OUTBOUND_FIELDS: [(&str, OutboundField); 7] = [
    ("service", OutboundField::Service),
    ("target-port", OutboundField::TargetPort),
    ("backend-kind", OutboundField::BackendKind),
    ("backend-name", OutboundField::BackendName),
    ("backend-port", OutboundField::BackendPort),
    ("listen-port", OutboundField::ListenPort),
    ("listen-address", OutboundField::ListenAddress),
];

impl<'a> TagKey<'a> {
    /// Reads a key without its prefix.
    pub(super) fn parse(field: &'a str) -> Option<Self> {
        if let Some((_, key)) = TASK_KEYS.iter().find(|(name, _)| *name == field) {
            return Some(*key);
        }
        let (list, rest) = field.split_once('.')?;
        let (number, field) = rest.split_once('.')?;
        let is_plain = number.starts_with(|c: char| c.is_ascii_digit() && c != '0') && number.len() <= 2;
        let number = number.parse::<u8>().ok().filter(|_| is_plain)?;
        match list {
            "inbound" => {
                let known = INBOUND_FIELDS.iter().find(|(name, _)| *name == field).map(|(_, field)| *field);
                let tag = || field.strip_prefix("tag.").filter(|tag| !tag.is_empty()).map(InboundField::Tag);
                known.or_else(tag).map(|field| Self::Inbound(number, field))
            }
            "outbound" => {
                let known = OUTBOUND_FIELDS.iter().find(|(name, _)| *name == field);
                known.map(|(_, field)| Self::Outbound(number, *field))
            }
            _ => None,
        }
    }
}

impl fmt::Display for TagKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inbound(number, InboundField::Tag(name)) => write!(f, "inbound.{number}.tag.{name}"),
            Self::Inbound(number, field) => {
                write!(f, "inbound.{number}.{}", name_of(&INBOUND_FIELDS, field))
            }
            Self::Outbound(number, field) => {
                write!(f, "outbound.{number}.{}", name_of(&OUTBOUND_FIELDS, field))
            }
            key => f.write_str(name_of(&TASK_KEYS, key)),
        }
    }
}

fn name_of<T: PartialEq>(names: &[(&'static str, T)], field: &T) -> &'static str {
    names.iter().find(|(_, known)| known == field).map_or("", |(name, _)| name)
}

/// A message about a key that no field has. A misspelt key would otherwise have no effect, without a word.
pub(super) fn unknown_key(field: &str) -> String {
    let found: String = field.split('.').map(with_placeholder).collect::<Vec<_>>().join(".");
    let items = INBOUND_FIELDS.iter().map(|(name, _)| format!("inbound.N.{name}"));
    let items = items.chain(OUTBOUND_FIELDS.iter().map(|(name, _)| format!("outbound.N.{name}")));
    let known: Vec<String> = TASK_KEYS.iter().map(|(name, _)| (*name).to_owned()).chain(items).collect();
    if known.contains(&found) {
        return "the number is not allowed; write 1 to 99".to_owned();
    }
    match nearest(&found, known.iter().map(String::as_str)) {
        Some(near) => format!("no field has this key; did you mean {PREFIX}{near}?"),
        None => "no field has this key; remove it".to_owned(),
    }
}

/// A number as `N`.
fn with_placeholder(part: &str) -> &str {
    let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { "N" } else { part }
}
