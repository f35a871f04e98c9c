//! What *is*: tasks, role tags and messages as AWS tells of them. Decides nothing.

pub mod aws;
pub mod events;
pub mod sdk;
