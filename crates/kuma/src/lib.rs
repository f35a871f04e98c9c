//! Kuma and Kong Mesh: Dataplane resources over the REST API.
//!
//! Guarantees:
//!
//! - Only registrations with all three ownership labels are owned.
//! - Bodies are compared in a [normal form](normalise), without the fields that the control plane adds.
//! - The control plane decides readiness; a write carries readiness forward.
//! - A server of an unsupported version is never written to, and one of an untested version only after its resource types
//!   and its first stored Dataplane have shown a known dialect.
//! - What a dialect cannot express is refused and never written in part.
//!
//! ```
//! use ecs_mesh_kuma::normalise;
//! use serde_json::json;
//!
//! let sent = json!({"mesh": "default", "name": "web-1", "networking": {"inbound": [{"port": 8080}]}});
//! let stored = json!({
//!     "mesh": "default", "name": "web-1", "creationTime": "2026-11-22T03:26:52Z",
//!     "labels": {"kuma.io/zone": "east"},
//!     "networking": {"inbound": [{"port": 8080, "state": "NotReady", "tags": {"kuma.io/zone": "east"}}]},
//! });
//! assert_eq!(normalise(&sent), normalise(&stored)); // No write is needed.
//! ```

#![forbid(unsafe_code)]

mod backends;
mod capabilities;
mod client;
mod connection;
mod dataplane;
mod diagnostics;
mod drift;
mod endpoints;
mod errors;
mod expressible;
mod first_write;
mod labels;
mod list;
mod members;
mod normalise;
mod previous_operator;
mod reachable;
mod readiness;
mod rolling_upgrade;
mod sidecars;
mod stored;
mod tokens;
mod upgrade;
mod writers;
mod zone_proxy;

pub use capabilities::{
    DataplaneCapabilities, HealthDiscovery, KumaVersion, MeshServiceNaming, RulesBasis, ServicesMode,
    WriteRules,
};
pub use client::KumaControlPlane;
pub use connection::{PRODUCT, settings};
pub use diagnostics::{
    CallerInfo, KumaDiagnostics, KumaProbes, MeshSettings, ProxyAuth, ServerConfig, StaticAccess,
};
pub use labels::{
    CLUSTER_LABEL, CLUSTER_NAME_LABEL, DRAIN_LABEL, OPERATOR_LABEL, OWNERSHIP_LABELS, TASK_LABEL,
    WRITER_LABEL,
};
pub use normalise::normalise;
pub use tokens::{NewToken, TokenIssuer, TokenRequest, TokenText};

pub use ecs_mesh_control_plane::http::{
    HttpMethod, HttpResponse, HttpTransport, Transport, TransportError, TransportErrorKind,
};
pub use ecs_mesh_control_plane::{MeshCallObserver, NoObserver};

#[cfg(test)]
mod tests;
