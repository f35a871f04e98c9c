//! Reads what an operator knows: its read API, and the changes in its log. Prints the result as kubectl does.
//!
//! | module | guarantee |
//! |---|---|
//! | [`log`] | a log of any size is read in flat memory, and a line that cannot be read is counted |
//! | [`http`] | a token goes to the configured address alone, and no call waits without a limit |
//! | [`get`] | a list is printed page by page; a named object that does not exist is an error |
//! | [`watch`] | each change of a row is printed once, across lost connections |
//! | [`describe`] | a named object that does not exist is an error; a history is bounded |
//! | [`output`] | no text of others reaches a terminal as anything but text; a table fits the terminal |
//! | [`resource`] | each kind has one name, by which an object is found again |
//!
//! Answers stay JSON: an operator of another version may have fields and values that this program does not know, and they are
//! printed as well.
//!
//! ```
//! use ecs_mesh_client::change_selector::ChangeSelector;
//! use ecs_mesh_client::log::LogReader;
//!
//! let log = r#"{"timestamp":"2026-11-30T01:00:00Z","target":"audit","change":"create","service":"kv","result":"success"}
//! this line is cut of"#;
//! let mut reader = LogReader::new(log.as_bytes(), ChangeSelector::default(), false);
//! assert_eq!(reader.next_change().unwrap().unwrap()["service"], "kv");
//! assert_eq!(reader.next_change().unwrap(), None);
//! assert_eq!(reader.summary().malformed, 1);
//! ```

#![forbid(unsafe_code)]

mod address;
pub mod change_selector;
pub mod describe;
mod error;
pub mod field;
pub mod get;
pub mod http;
pub mod log;
pub mod output;
mod pages;
pub mod resource;
mod sse;
mod stream;
pub mod text;
pub mod time_bound;
pub mod watch;

#[cfg(test)]
mod tests;

pub use address::ApiAddress;
pub use error::ApiError;
pub use pages::{Page, Pages};
