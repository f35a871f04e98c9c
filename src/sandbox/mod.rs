//! The demonstration: an operator in the embedded world, told as a story and judged.

mod event_printer;
pub mod demo;
mod summary;

pub use event_printer::EventPrinter;
pub use summary::{Latencies, DemoSummary};
