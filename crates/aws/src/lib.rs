//! What *is*: tasks, role tags and messages as AWS tells of them. Decides nothing.

#![forbid(unsafe_code)]

pub mod aws;
pub mod task_definition_cache;
pub mod task_describer;
pub mod events;
#[cfg(any(test, feature = "testing"))]
pub mod fakes;
pub mod inspect;
pub mod consumer;
pub mod role_tag_cache;
pub mod sdk;
pub mod store;
