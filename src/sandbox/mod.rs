//! The demonstration: an operator in the embedded world, told as a story and judged.

mod scribe;
pub mod stage;
mod summary;

pub use scribe::Scribe;
pub use summary::{Latencies, Summary};
