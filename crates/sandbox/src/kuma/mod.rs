//! An emulated Kuma 2.14 control plane with the REST API of a real one.
//!
//! [`KumaCp`] is the control plane as a value, without I/O and without a clock. [`KumaCp::handle`] handles a request;
//! other methods connect sidecars, change applications and advance time. [`http::serve`] serves it on a socket.
//!
//! It implements the server's rules instead of recorded responses: decoding (`proto`, `schema`), validation (`rules`,
//! `check_dataplane`, `check_others`), storage (`write`, `object`), reads (`list`, `insights`), and background
//! changes (`world`, `services`). Statuses, stored bodies and the fields of errors equal the server's; error texts
//! differ.

mod body;
mod check_dataplane;
mod check_others;
pub mod http;
mod insights;
mod journal;
mod kinds;
mod list;
mod message;
mod object;
mod problem;
mod proto;
mod rules;
mod schema;
mod server;
mod services;
#[cfg(test)]
mod tests;
mod tokens;
mod world;
mod write;

pub use body::takes_traffic;
pub use journal::KumaJournalEntry;
pub use message::{KumaConfig, KumaMode, KumaRequest, KumaResponse};
pub use server::KumaCp;
