//! Reconciles Consul's ACL objects for logins of ECS tasks: auth methods, binding rules, roles, policies, nodes.
//!
//! | step | module | result |
//! |---|---|---|
//! | desired | [`desired`] | the objects that a `ConsulAuth` declares (pure) |
//! | snapshot | [`backend`] | the objects in Consul; unreadable parts are unknown, not absent |
//! | plan | [`plan`] | one step for each object, in a working order (pure) |
//! | apply | [`backend`] | one step at a time, checked against the server's current copy |
//! | reconcile | [`reconcile`] | the loop: at start, after changes, at each sweep interval |
//!
//! ```
//! use ecs_mesh_consul_acl::desired::{DesiredObjects, OperatorIds};
//! use ecs_mesh_consul_acl::plan::{ActualObjects, plan_objects};
//! use ecs_mesh_model::OperatorId;
//!
//! let operators = OperatorIds::new(OperatorId::parse("op").unwrap());
//! assert_eq!(plan_objects(&DesiredObjects::default(), &ActualObjects::default(), &operators), []);
//! ```

#![forbid(unsafe_code)]

pub mod backend;
pub mod desired;
pub mod hcl;
mod normalise;
pub mod plan;
pub mod reconcile;
