//! Consul's ACL objects for logins of ECS tasks: what they should be, what they are, and what is done about it.

#![forbid(unsafe_code)]

pub mod backend;
pub mod desired;
pub mod hcl;
pub mod plan;
pub mod reconcile;
