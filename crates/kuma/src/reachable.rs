//! Renders the backends that a sidecar may bind: `networking.transparentProxying.reachableBackends`.
//!
//! A sidecar that was started with `--bind-outbounds` binds a listener for each port of every backend, on the backend's
//! virtual IP, and the field limits the backends. In 2.14.3 and 3.0-dev, with a running server and sidecar
//! (`tests/it/kuma_real`):
//!
//! - without the field, and with an empty `transparentProxying`, all backends are bound;
//! - with an empty `reachableBackends`, which the server keeps, none is;
//! - a name that no backend has is skipped, and a port that the backend does not have means all of its ports;
//! - with `networking.outbound`, whose `backendRef`s the server resolves, the field is ignored.

use serde_json::{Map, Value, json};

use super::capabilities::{DataplaneCapabilities, MeshServiceNaming};
use super::normalise::ref_key;
use ecs_mesh_api::{BackendKind, CalledBackend, ReachableBackend};
use ecs_mesh_control_plane::Registration;
use ecs_mesh_core::intent::{DesiredReach, DesiredRegistration, Outbounds, RegisteredBackends};
use ecs_mesh_model::ServiceName;

/// The name of the MeshService that the control plane makes for a service. `None` where the control plane names it by the
/// label `kuma.io/workload`, and the manifests give the service several labels.
pub(super) fn mesh_service<'a>(
    desired: &'a DesiredRegistration,
    service: &'a ServiceName,
    capabilities: DataplaneCapabilities,
) -> Option<&'a str> {
    if capabilities.service_naming == MeshServiceNaming::ServiceTag {
        return Some(service.as_str());
    }
    let Some(labels) = desired.called_workloads.labels(service) else { return Some(service.as_str()) };
    let mut labels = labels.iter();
    labels.next().filter(|_| labels.next().is_none()).map(AsRef::as_ref)
}

/// Type and name of a backend, or its labels. Of several with the labels, the server takes the oldest.
pub(super) fn backend_ref(
    backend: &CalledBackend,
    desired: &DesiredRegistration,
    capabilities: DataplaneCapabilities,
) -> Map<String, Value> {
    let (kind, field, target) = match backend {
        CalledBackend::Service(service) => {
            (BackendKind::MeshService, "name", json!(mesh_service(desired, service, capabilities)))
        }
        CalledBackend::Resource { kind, name } => (*kind, "name", json!(name)),
        CalledBackend::Labelled { kind, labels } => (*kind, "labels", json!(labels)),
    };
    Map::from_iter([("kind".to_owned(), kind.as_str().into()), (field.to_owned(), target)])
}

/// The references to all backends that the sidecar may bind; `None` where it binds every backend. `current` is of the same
/// task.
pub(super) fn render_refs(
    desired: &DesiredRegistration,
    current: Option<&Registration>,
    capabilities: DataplaneCapabilities,
) -> Option<Vec<Value>> {
    let registered = current.map(|current| RegisteredReach::of(&current.stored));
    let render = |backends: &[ReachableBackend]| {
        backends.iter().map(|backend| render_ref(backend, desired, capabilities)).collect::<Vec<Value>>()
    };
    let outbounds = match &desired.reach {
        DesiredReach::Listeners(_) | DesiredReach::EveryBackend(RegisteredBackends::Remove) => return None,
        DesiredReach::EveryBackend(_) => return registered.and_then(RegisteredReach::into_refs),
        DesiredReach::Backends(outbounds) => outbounds,
    };
    let mut refs = match (outbounds, registered) {
        (Outbounds::KeepCurrent { .. }, Some(RegisteredReach::EveryBackend)) => return None,
        (Outbounds::KeepCurrent { .. }, Some(RegisteredReach::Backends(refs))) => refs,
        (Outbounds::AtLeast(backends), Some(RegisteredReach::Backends(refs))) => {
            let mut all = render(backends);
            all.extend(refs);
            all
        }
        (outbounds, _) => render(outbounds.declared()),
    };
    refs.sort_by_cached_key(ref_key);
    refs.dedup();
    Some(refs)
}

/// The reach without a change that takes an outbound from the task. `current` is of the same task.
pub(super) fn without_removals(reach: DesiredReach, current: Option<&Registration>) -> DesiredReach {
    let has_listeners = || {
        let registered = current.map(|current| RegisteredReach::of(&current.stored));
        matches!(registered, Some(RegisteredReach::Listeners))
    };
    match reach {
        DesiredReach::Listeners(Outbounds::Exactly(outbounds)) => {
            DesiredReach::Listeners(Outbounds::AtLeast(outbounds))
        }
        DesiredReach::Backends(_) | DesiredReach::EveryBackend(_) if has_listeners() => {
            DesiredReach::Listeners(Outbounds::KeepCurrent { fallback: Vec::new() })
        }
        DesiredReach::Backends(Outbounds::Exactly(backends)) => {
            DesiredReach::Backends(Outbounds::AtLeast(backends))
        }
        other => other,
    }
}

/// The reach where the manifests say that an existing registration keeps what it has: of the registered kind, so that a task
/// loses no listener and no limit of its backends. `current` is of the same task.
pub(super) fn keeping(reach: &DesiredReach, current: Option<&Registration>) -> Option<DesiredReach> {
    let registered = RegisteredReach::of(&current?.stored);
    match (reach, registered) {
        (
            DesiredReach::Backends(Outbounds::KeepCurrent { .. })
            | DesiredReach::EveryBackend(RegisteredBackends::Keep | RegisteredBackends::RemoveOnceSettled),
            RegisteredReach::Listeners,
        ) => Some(DesiredReach::Listeners(Outbounds::KeepCurrent { fallback: Vec::new() })),
        (DesiredReach::Listeners(Outbounds::KeepCurrent { .. }), RegisteredReach::Backends(_)) => {
            Some(DesiredReach::Backends(Outbounds::KeepCurrent { fallback: Vec::new() }))
        }
        _ => None,
    }
}

/// The reach of a stored Dataplane.
enum RegisteredReach {
    Listeners,
    Backends(Vec<Value>),
    EveryBackend,
}

impl RegisteredReach {
    fn of(stored: &Value) -> Self {
        let networking = &stored["networking"];
        match (&networking["transparentProxying"]["reachableBackends"], &networking["outbound"]) {
            (Value::Object(backends), _) => {
                Self::Backends(backends.get("refs").and_then(Value::as_array).cloned().unwrap_or_default())
            }
            (_, Value::Array(outbounds)) if !outbounds.is_empty() => Self::Listeners,
            _ => Self::EveryBackend,
        }
    }

    fn into_refs(self) -> Option<Vec<Value>> {
        match self {
            Self::Backends(refs) => Some(refs),
            Self::Listeners | Self::EveryBackend => None,
        }
    }
}

fn render_ref(
    backend: &ReachableBackend,
    desired: &DesiredRegistration,
    capabilities: DataplaneCapabilities,
) -> Value {
    match backend {
        ReachableBackend::One { backend, port } => {
            let mut target: Map<String, Value> = backend_ref(backend, desired, capabilities);
            if let Some(port) = port {
                target.insert("port".to_owned(), port.get().into());
            }
            target.into()
        }
        ReachableBackend::All { kind, labels } => json!({"kind": kind.as_str(), "labels": labels}),
    }
}
