//! What *is*: tasks, role tags and messages as AWS tells of them. Decides nothing.

pub mod aws;
pub mod definitions;
pub mod describer;
pub mod events;
#[cfg(test)]
pub(crate) mod fakes;
pub mod inspect;
pub mod intake;
pub mod roles;
pub mod sdk;
pub mod store;
