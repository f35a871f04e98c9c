//! A Consul 1.21 server of our own: a client of its HTTP API can't tell it from a real one.
//!
//! [`ConsulServer`] is the server as a value, without I/O and without a clock: [`ConsulServer::handle`] answers a
//! request, [`ConsulServer::login_with`] one that needs AWS, [`ConsulServer::tick`] lets time pass. [`http::serve`] puts
//! it behind a socket, where reads can wait for changes. [`SignedLogin`] is the other side: it makes the bearer token of a
//! login with a role's credentials, which a real server takes as well.
//!
//! It implements the server's rules, not its recorded answers: who may do what (`acl`, `powers`, `hcl`), the ACL
//! objects (`policies`, `roles`, `tokens`, `methods`, `binding`), the exchange of an AWS identity for a token (`bearer`,
//! `identity`, `login`), the catalog (`catalog`, `register`, `lists`, `txn`) and locks (`sessions`, `kv`). Wording is
//! our own; statuses, headers and stored bodies are the server's.

mod acl;
mod response;
mod aws_iam;
mod bearer;
mod bexpr;
mod binding;
mod catalog;
mod connections;
mod decode;
mod duration;
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
mod policies;
mod permissions;
mod register;
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
