//! Consul: finds and removes the login tokens and services that tasks have registered, over the HTTP API.
//!
//! Guarantees:
//!
//! - A token or service is attributed to a task of a bound cluster only by its own metadata.
//! - A response that Consul may have filtered by the token's permissions proves no absence.
//! - A service is removed only in the version that was last read.
//! - Secrets of tokens are never kept.
//! - The client uses few connections, which it keeps.
//!
//! ```
//! use ecs_mesh_consul::ResourceKey;
//!
//! let name = "service/web-1@arn:aws:ecs:eu-west-1:111122223333:cluster/prod";
//! let Some(ResourceKey::Service { cluster, id, .. }) = ResourceKey::parse(name) else { unreachable!() };
//! assert_eq!((cluster.name(), &*id), ("prod", "web-1"));
//! ```

#![forbid(unsafe_code)]

mod api;
mod auth_config;
mod client;
mod connection;
mod context;
mod diagnostics;
mod errors;
mod members;
mod objects;
mod own_token;
mod permissions;
mod removal;
mod reply;
mod resource_key;
mod scope;
mod segments;
mod services;
mod session_lock;
mod tokens;
mod version;

pub use auth_config::AuthConfig;
pub use client::ConsulControlPlane;
pub use connection::{PRODUCT, settings};
pub use diagnostics::{
    ClusterNodeInfo, ConsulDiagnostics, ConsulProbes, DiagnosticsRequest, LoginTokenCounts,
};
pub use objects::{
    ANONYMOUS_TOKEN, AclObjects, AclPolicy, AclRole, AnonymousToken, AuthMethod, BindingRule, ClusterNode,
    ConsulNamespace, NODE_MARK, NODE_WRITER, NamespaceAcls, ObjectLink, SYNTHETIC_NODE, TokenRefKind,
    TokenRefs,
};
pub use own_token::OwnToken;
pub use permissions::{AclPermission, AclPermissions};
pub use resource_key::ResourceKey;
pub use session_lock::{ConsulSessionLock, LockedKey};
pub use tokens::{DEFAULT_CLIENT_METHOD, DEFAULT_METHOD};
pub use version::ConsulVersion;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
