//! An emulated Consul 1.21 server with the HTTP API of a real one.
//!
//! [`ConsulServer`] is the server as a value, without I/O and without a clock. [`ConsulServer::handle`] handles a
//! request, [`ConsulServer::login_with`] one that needs AWS, and [`ConsulServer::tick`] advances time.
//! [`http::serve`] serves it on a socket, with blocking queries. [`SignedLogin`] is the client's side of a login: it
//! builds a bearer token that a real server accepts as well.
//!
//! It implements the server's rules instead of recorded responses: permissions (`acl`, `permissions`, `hcl`), ACL
//! objects (`policies`, `roles`, `tokens`, `methods`, `binding`), logins (`bearer`, `identity`, `login`), the catalog
//! (`catalog`, `register`, `lists`, `txn`) and locks (`sessions`, `kv`). Statuses, headers and stored bodies equal
//! the server's; error texts differ.

mod acl;
mod aws_iam;
mod bearer;
mod bexpr;
mod binding;
mod catalog;
mod connections;
mod decode;
mod grants;
mod hcl;
pub mod http;
mod identity;
mod ids;
pub mod in_process;
mod journal;
mod kv;
mod lists;
mod login;
mod message;
mod methods;
mod permissions;
mod policies;
mod register;
mod response;
mod roles;
mod route;
mod server;
mod service;
mod sessions;
mod sign;
#[cfg(test)]
mod tests;
mod tokens;
mod txn;

pub use bearer::{AwsAnswer, SignedCall};
pub use journal::ConsulJournalEntry;
pub use message::{ConsulConfig, ConsulRequest, ConsulResponse};
pub use server::ConsulServer;
pub use sign::{EntityDetails, SignedLogin};
pub use tokens::TokenSummary;
