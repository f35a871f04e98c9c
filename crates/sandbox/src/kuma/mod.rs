//! An emulated Kuma control plane, 2.7 to 3.0, with the REST API of a real one.
//!
//! [`KumaCp`] is the control plane as a value, without I/O and without a clock. [`KumaCp::handle`] handles a request;
//! other methods connect sidecars, change applications and advance time. [`http::serve`] serves it on a socket.
//!
//! It implements the server's rules instead of recorded responses: decoding (`proto`, `schema`), validation (`rules`,
//! `check_dataplane`, `check_others`), storage (`write`, `object`), reads (`list`, `insights`), and background
//! changes (`world`, `services`). The rules are those of the release of [`KumaConfig`]; `instances` has the processes of an
//! upgrade. Statuses, stored bodies and the fields of errors equal the server's; error texts
//! differ.

mod body;
mod check_dataplane;
mod check_others;
pub mod http;
mod insights;
mod instances;
mod journal;
mod kinds;
mod list;
mod message;
mod object;
mod problem;
mod proto;
mod reach;
mod release;
mod rules;
mod schema;
mod server;
mod services;
mod template_mode;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_releases;
mod tokens;
mod world;
mod write;

pub use body::{service_of, takes_traffic};
pub use journal::KumaJournalEntry;
pub use message::{KumaConfig, KumaMode, KumaRequest, KumaResponse};
pub use reach::{BIND_OUTBOUNDS, ReachedService, outbounds_by_tag};
pub use release::{EmulatedRelease, EmulatedReleaseError};
pub use server::KumaCp;
pub use tokens::token_claims;
