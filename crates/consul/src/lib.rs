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
mod handle;
mod objects;
mod own_token;
mod parts;
mod removal;
mod rights;
mod scope;
mod services;
mod set_up;
mod survey;
mod tokens;
mod version;

pub use client::ConsulControlPlane;
pub use connection::{PRODUCT, settings};
pub use handle::Handle;
pub use objects::{
    ANONYMOUS_TOKEN, AclPolicy, AclRole, AnonymousToken, AuthMethod, BindingRule, ClusterNode, Held, Holders,
    Link, NODE_MARK, Namespace, NamespaceAcls, Objects, SYNTHETIC_NODE,
};
pub use own_token::OwnToken;
pub use rights::{Right, Rights};
pub use set_up::SetUp;
pub use survey::{Answers, Asked, LoginTokens, OfCluster, Survey};
pub use tokens::{DEFAULT_CLIENT_METHOD, DEFAULT_METHOD};
pub use version::ConsulVersion;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
