//! The demo: runs the operator against the emulated servers, prints the events, and checks the invariants.

mod checks;
pub mod demo;
mod demo_manifests;
mod deployed_endpoints;
mod event_printer;
mod mesh_changes;
mod replicas;
mod summary;

pub use checks::{DemoCheck, DemoCheckStatus, DemoSubject};
pub use demo_manifests::{DemoManifests, MANIFESTS, first_zone_proxies, manifest_options};
pub use event_printer::{EventOutput, EventPrinter};
pub use mesh_changes::MeshPlan;
pub use summary::{DemoSummary, Latencies};
