//! Changes in the operator's log: lines of JSON or logfmt, also behind the prefixes and inside the objects of log services.
//!
//! A log is read as a stream: memory does not grow with its size. A line that cannot be read is counted, and the next one is
//! read.

mod change;
mod fields;
mod lines;
mod reader;

pub use reader::{LogReader, LogStep, LogSummary};
