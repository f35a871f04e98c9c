//! Consul: what tasks have registered themselves, and what they leave behind, over the HTTP API.
//!
//! Guarantees: only what names a task of a bound cluster by its own evidence counts as a task's; nothing is inferred
//! from an answer that the token may have been kept from seeing; a service is removed only as it was when it was last
//! read; no secret of any token is kept; a handful of connections is all that is made.

#![forbid(unsafe_code)]

mod api;
mod client;
mod connection;
mod errors;
mod resource_key;
mod objects;
mod own_token;
mod segments;
mod removal;
mod permissions;
mod scope;
mod services;
mod auth_config;
mod diagnostics;
mod tokens;
mod version;

pub use client::ConsulControlPlane;
pub use connection::{PRODUCT, settings};
pub use resource_key::ResourceKey;
pub use objects::{
    ANONYMOUS_TOKEN, AclPolicy, AclRole, AnonymousToken, AuthMethod, BindingRule, ClusterNode, TokenRefKind, TokenRefs,
    ObjectLink, NODE_MARK, ConsulNamespace, NamespaceAcls, AclObjects, SYNTHETIC_NODE,
};
pub use own_token::OwnToken;
pub use permissions::{AclPermission, AclPermissions};
pub use auth_config::AuthConfig;
pub use diagnostics::{ConsulProbes, DiagnosticsRequest, LoginTokenCounts, ClusterNodeInfo, ConsulDiagnostics};
pub use tokens::{DEFAULT_CLIENT_METHOD, DEFAULT_METHOD};
pub use version::ConsulVersion;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
