//! Kuma and Kong Mesh: Dataplane resources over the REST API.
//!
//! Guarantees: only registrations with all three marks count as owned; a body is compared in a normal form, so that
//! what the control plane adds of its own accord is no difference; readiness belongs to the control plane and is
//! carried forward; nothing is written to a server whose dialect is not spoken here.

#![forbid(unsafe_code)]

mod client;
mod connection;
mod dataplane;
mod capabilities;
mod errors;
mod list;
mod labels;
mod normalise;
mod diagnostics;

pub use client::KumaControlPlane;
pub use connection::{PRODUCT, settings};
pub use capabilities::{ApiDialect, HealthDiscovery, DataplaneCapabilities, KumaVersion};
pub use labels::{CLUSTER_LABEL, DRAIN_LABEL, OPERATOR_LABEL, TASK_LABEL};
pub use normalise::normalise;
pub use diagnostics::{KumaProbes, ServerConfig, CallerInfo, MeshSettings, KumaDiagnostics};

pub use ecs_mesh_control_plane::http::{
    HttpResponse, HttpTransport, HttpMethod, Transport, TransportError, TransportErrorKind,
};
pub use ecs_mesh_control_plane::{MeshCallObserver, NoObserver};

#[cfg(test)]
mod tests;
