//! The demo: runs the operator against the emulated servers, prints the events, and checks the invariants.

pub mod demo;
mod deployed_endpoints;
mod event_printer;
mod summary;

pub use event_printer::EventPrinter;
pub use summary::{DemoSummary, Latencies};
