//! Compares the backends that outbounds call with those that a mesh has. A control plane skips what it does not find
//! without an error.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;

use super::CalledWorkloads;
use ecs_mesh_api::manifests::suggestion;
use ecs_mesh_api::{BackendKind, CalledBackend, ReachableBackend};
use ecs_mesh_model::{ServiceName, Tags};

/// A resource of a mesh that Dataplanes can call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshBackend {
    /// Its type.
    pub kind: BackendKind,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Tags,
    /// Its ports.
    pub ports: Vec<u16>,
    /// The virtual IPs on which sidecars bind it (`status.vips`).
    pub addresses: Vec<IpAddr>,
}

impl MeshBackend {
    /// Whether a sidecar can bind the backend: a task has no addresses but its own and those of its loopback interface.
    pub fn is_bindable(&self) -> bool {
        self.addresses.iter().all(IpAddr::is_loopback)
    }
}

/// The backends that Dataplanes of a mesh can call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshServices {
    /// The names of its services, which are tags, or Consul's; `None` where services are MeshServices.
    pub names: Option<BTreeSet<String>>,
    /// Its resources, of all types.
    pub resources: Vec<MeshBackend>,
}

impl MeshServices {
    /// The called backends that the mesh does not have, each with the reason.
    pub fn missing(
        &self,
        called: &BTreeSet<ReachableBackend>,
        workloads: &CalledWorkloads,
    ) -> BTreeMap<String, String> {
        let missing = |called: &ReachableBackend| {
            let service = called.one().and_then(CalledBackend::service);
            match service.zip(self.names.as_ref()) {
                Some((service, names)) => missing_name(service, names, &self.resources, workloads),
                None => missing_resource(called, &self.resources, workloads),
            }
        };
        called.iter().filter_map(missing).collect()
    }
}

fn missing_name(
    service: &ServiceName,
    known: &BTreeSet<String>,
    resources: &[MeshBackend],
    workloads: &CalledWorkloads,
) -> Option<(String, String)> {
    let mut labels = workloads.labels(service).into_iter().flatten();
    if known.contains(service.as_str()) || labels.any(|label| known.contains(&**label)) {
        return None;
    }
    let reason = match resources.iter().find(|one| one.name == service.as_str()) {
        Some(other) if other.kind != BackendKind::MeshService => {
            format!("{service} is a {}", other.kind.as_str())
        }
        _ => {
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            let nearest = suggestion(service.as_str(), "There are", &names);
            format!("the mesh has no such service{nearest}")
        }
    };
    Some((service.to_string(), reason))
}

fn missing_resource(
    called: &ReachableBackend,
    known: &[MeshBackend],
    workloads: &CalledWorkloads,
) -> Option<(String, String)> {
    match called {
        ReachableBackend::All { kind, labels } => missing_labels(*kind, labels, None, known),
        ReachableBackend::One { backend: CalledBackend::Labelled { kind, labels }, port } => {
            missing_labels(*kind, labels, *port, known)
        }
        ReachableBackend::One { backend, port } => {
            let (kind, names) = names_of(backend, workloads);
            let subject = |port: Option<NonZeroU16>| {
                port.map_or_else(|| backend.to_string(), |port| format!("{backend}:{port}"))
            };
            let found = known.iter().find(|one| one.kind == kind && names.contains(&one.name));
            match (found, port) {
                (None, _) => Some((subject(None), unknown_name(kind, &names, known))),
                (Some(found), Some(port)) if !found.ports.contains(&port.get()) => {
                    let ports: Vec<String> = found.ports.iter().map(ToString::to_string).collect();
                    let reason =
                        format!("the {} {} has the ports {}", kind.as_str(), found.name, ports.join(", "));
                    Some((subject(Some(*port)), reason))
                }
                (Some(_), _) => None,
            }
        }
    }
}

fn missing_labels(
    kind: BackendKind,
    labels: &Tags,
    port: Option<NonZeroU16>,
    known: &[MeshBackend],
) -> Option<(String, String)> {
    let has_all = |one: &&MeshBackend| {
        one.kind == kind && labels.iter().all(|(key, value)| one.labels.get(key) == Some(value))
    };
    let found: Vec<&MeshBackend> = known.iter().filter(has_all).collect();
    let subject = CalledBackend::Labelled { kind, labels: labels.clone() }.to_string();
    match port {
        _ if found.is_empty() => Some((subject, format!("no {} has these labels", kind.as_str()))),
        Some(port) if !found.iter().any(|one| one.ports.contains(&port.get())) => {
            let reason = format!("no {} with these labels has the port {port}", kind.as_str());
            Some((format!("{subject}:{port}"), reason))
        }
        _ => None,
    }
}

/// The names that the resource of a backend may have.
fn names_of(backend: &CalledBackend, workloads: &CalledWorkloads) -> (BackendKind, Vec<String>) {
    match backend {
        // Labels are no name, and are compared before.
        CalledBackend::Labelled { kind, .. } => (*kind, Vec::new()),
        CalledBackend::Resource { kind, name } => (*kind, vec![name.clone()]),
        CalledBackend::Service(service) => {
            let labels = workloads.labels(service).into_iter().flatten().map(ToString::to_string);
            (BackendKind::MeshService, std::iter::once(service.to_string()).chain(labels).collect())
        }
    }
}

fn unknown_name(kind: BackendKind, names: &[String], known: &[MeshBackend]) -> String {
    let name = names.last().map(String::as_str).unwrap_or_default();
    if let Some(other) = known.iter().find(|one| one.name == name) {
        return format!("{name} is a {}", other.kind.as_str());
    }
    if let Some(zones) = zones_with(kind, names, known) {
        return format!(
            "no {kind} of this zone is named {name}; zone {zones} has one: call it by the labels {DISPLAY_NAME} and {ZONE} \
             or by the name of a MeshMultiZoneService",
            kind = kind.as_str()
        );
    }
    let is_callable = |one: &&MeshBackend| {
        one.kind == kind && one.labels.get(DISPLAY_NAME).is_none_or(|name| **name == *one.name)
    };
    let of_kind: Vec<&str> = known.iter().filter(is_callable).map(|one| one.name.as_str()).collect();
    format!("no {} is named {name}{}", kind.as_str(), suggestion(name, "There are", &of_kind))
}

/// The zones whose resource of this name a global control plane has synchronised to this one. Its name there is another,
/// with a hash; seen on 2.14.3.
///
/// Source: <https://kuma.io/docs/2.14.x/networking/meshservice/>.
fn zones_with(kind: BackendKind, names: &[String], known: &[MeshBackend]) -> Option<String> {
    let is_named = |one: &&MeshBackend| {
        one.kind == kind
            && one.labels.get(DISPLAY_NAME).is_some_and(|name| names.iter().any(|one| **one == **name))
    };
    let zones: BTreeSet<&str> =
        known.iter().filter(is_named).filter_map(|one| one.labels.get(ZONE).map(AsRef::as_ref)).collect();
    (!zones.is_empty()).then(|| zones.into_iter().collect::<Vec<_>>().join(", "))
}

const DISPLAY_NAME: &str = "kuma.io/display-name";
const ZONE: &str = "kuma.io/zone";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn backend(kind: BackendKind, name: &str, port: u16) -> MeshBackend {
        let labels = [("team".to_owned(), "a".to_owned())].into_iter().collect();
        MeshBackend { kind, name: name.to_owned(), labels, ports: vec![port], addresses: Vec::new() }
    }

    /// As a global control plane synchronises the service `ledger` of zone west.
    fn of_other_zone() -> MeshBackend {
        let labels = [(DISPLAY_NAME, "ledger"), (ZONE, "west")];
        let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        MeshBackend { labels, ..backend(BackendKind::MeshService, "ledger-4fd96c42684xxd74", 9000) }
    }

    fn found(outbound: &Value) -> Vec<(String, String)> {
        let spec = json!({"selector": {}, "service": "x", "reach": "bindOutbounds", "outbounds": [outbound]});
        let workload = serde_json::from_value(spec).unwrap();
        let called =
            ecs_mesh_api::manifests::ManifestSet::default().declared_reach("w", &workload).backends();
        let known = vec![
            backend(BackendKind::MeshService, "redis", 6379),
            backend(BackendKind::MeshExternalService, "payments", 443),
            of_other_zone(),
        ];
        let known = MeshServices { names: None, resources: known };
        known.missing(&called, &CalledWorkloads::default()).into_iter().collect()
    }

    #[test]
    fn called_backends_are_compared_with_the_mesh() {
        let pair = |subject: &str, reason: &str| vec![(subject.to_owned(), reason.to_owned())];
        for (outbound, expected) in [
            (json!({"service": "redis"}), Vec::new()),
            (json!({"service": "redis", "targetPort": 6379}), Vec::new()),
            (json!({"backend": {"kind": "MeshService", "labels": {"team": "a"}}}), Vec::new()),
            (
                json!({"service": "redis", "targetPort": 1}),
                pair("redis:1", "the MeshService redis has the ports 6379"),
            ),
            (
                json!({"service": "rediss"}),
                pair("rediss", "no MeshService is named rediss; did you mean redis? There are: redis"),
            ),
            (
                json!({"backend": {"kind": "MeshService", "labels": {DISPLAY_NAME: "ledger", ZONE: "west"}}}),
                Vec::new(),
            ),
            (
                json!({"service": "ledger"}),
                pair(
                    "ledger",
                    "no MeshService of this zone is named ledger; zone west has one: call it by the labels \
                     kuma.io/display-name and kuma.io/zone or by the name of a MeshMultiZoneService",
                ),
            ),
            (json!({"service": "payments"}), pair("payments", "payments is a MeshExternalService")),
            (
                json!({"backend": {"kind": "MeshService", "labels": {"team": "b"}}}),
                pair("MeshService team=b", "no MeshService has these labels"),
            ),
        ] {
            assert_eq!(found(&outbound), expected, "{outbound}");
        }
    }

    #[test]
    fn unknown_service_of_tags_has_the_nearest_name() {
        let known = MeshServices {
            names: Some(["redis", "kv"].map(str::to_owned).into()),
            resources: vec![backend(BackendKind::MeshExternalService, "payments", 443)],
        };
        let called = ["redis", "rediss", "payments"].map(|service| ReachableBackend::One {
            backend: CalledBackend::Service(ServiceName::parse(service).unwrap()),
            port: None,
        });
        let missing = known.missing(&called.into(), &CalledWorkloads::default());
        let reasons = [
            ("payments", "payments is a MeshExternalService"),
            ("rediss", "the mesh has no such service; did you mean redis? There are: kv, redis"),
        ];
        assert_eq!(missing, reasons.map(|(name, reason)| (name.to_owned(), reason.to_owned())).into());
    }

    #[test]
    fn sidecar_binds_loopback_addresses_alone() {
        let at = |address: &str| MeshBackend {
            addresses: vec![address.parse().unwrap()],
            ..backend(BackendKind::MeshService, "kv", 1)
        };
        assert!(at("127.251.0.7").is_bindable());
        assert!(!at("241.0.0.7").is_bindable());
    }
}
