//! A Kuma 2.14 control plane of our own: a client of its REST API can't tell it from a real one.
//!
//! [`KumaCp`] is the control plane as a value, without I/O and without a clock: [`KumaCp::handle`] answers a request,
//! and the methods beside it are what the world does to it: sidecars connect, applications die, time passes.
//! [`http::serve`] puts it behind a socket.
//!
//! It implements the server's rules, not its recorded answers: how bodies are read (`proto`, `schema`), what is valid
//! (`rules`, `check_dataplane`, `check_others`), what is stored (`write`, `object`), what is shown (`list`,
//! `insights`), and what happens by itself (`world`, `services`). Wording is our own; statuses, stored bodies and the
//! fields of errors are the server's.

mod body;
mod check_dataplane;
mod check_others;
mod duration;
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

pub use journal::KumaJournalEntry;
pub use message::{KumaConfig, KumaMode, KumaRequest, KumaResponse};
pub use server::KumaCp;
