//! The words every room shares: identifiers and observed facts, parsed once into types that cannot be wrong.
//!
//! Nothing here does I/O, reads a clock or decides anything.

#![forbid(unsafe_code)]

mod arn;
mod glob;
mod name;
#[cfg(feature = "schema")]
mod schema;
mod intern;
mod task;
mod time;
mod reason;

pub use self::time::Timestamp;
pub use arn::{ArnError, ClusterArn, RoleArn, TaskArn, TaskDefinitionArn};
pub use glob::Glob;
pub use name::{
    CONSUL_SERVICE_RULE, ClusterId, MeshName, NameError, OperatorId, ServiceName, TaskId, is_consul_service,
};
pub use intern::{intern, intern_tags};
pub use task::{TaskContainer, DesiredStatus, LastStatus, Tags, Task, TaskDefinition, TaskGroup};
pub use reason::Reason;
