//! The vocabulary of all crates: identifiers and observed facts, valid by construction.
//!
//! Constructors validate, so code that holds a value does not check it again. Nothing here does I/O, reads a clock or
//! decides anything.
//!
//! ```
//! use ecs_mesh_model::{RoleArn, TaskArn};
//!
//! let task = TaskArn::parse("arn:aws:ecs:eu-west-1:111122223333:task/prod/3f2a9c0d")?;
//! assert_eq!(task.cluster().name(), "prod");
//! assert_eq!(task.id().as_str(), "3f2a9c0d");
//!
//! let error = RoleArn::parse("arn:aws:iam::111122223333:user/web").unwrap_err();
//! assert!(error.to_string().contains("role/PATH/NAME"));
//! # Ok::<(), ecs_mesh_model::ArnError>(())
//! ```

#![forbid(unsafe_code)]

mod account_region;
mod advertised_address;
mod arn;
mod dataplane_owner;
mod ecs_service;
mod event_bus;
mod glob;
mod go_duration;
mod interface;
mod intern;
mod kuma_sidecar;
mod links;
mod name;
mod printable;
mod reason;
#[cfg(feature = "schema")]
mod schema;
mod secret_ref;
mod shell_words;
mod sidecar_dataplane;
mod task;
mod time;
mod tls_server_name;

pub use self::time::Timestamp;
pub use account_region::{AccountRegion, partition_of_region};
pub use advertised_address::AdvertisedAddress;
pub use arn::{
    ArnError, ClusterArn, ContainerInstanceArn, EcsServiceArn, RoleArn, TaskArn, TaskDefinitionArn,
};
pub use dataplane_owner::DataplaneOwner;
pub use ecs_service::{EcsDeployment, EcsRollout, EcsServiceRef, EcsServiceState};
pub use event_bus::EventBusRef;
pub use glob::Glob;
pub use go_duration::GoDuration;
pub use interface::{InterfaceAddresses, UnreachableAddress};
pub use intern::{intern, intern_tags};
pub use kuma_sidecar::{
    BIND_OUTBOUNDS_FLAG, ContainerStart, HiddenSetting, KumaSidecarStart, SidecarOutbounds, SidecarSetting,
};
pub use links::{REPOSITORY, docs_url};
pub use name::{
    CONSUL_SERVICE_RULE, ClusterId, MeshName, NameError, OperatorId, ServiceName, TaskId, is_consul_service,
    is_label_value, short_digest,
};
pub use printable::{is_unsafe, printable};
pub use reason::Reason;
pub use secret_ref::{SecretRef, SecretRefError};
pub use sidecar_dataplane::SidecarDataplane;
pub use task::{DesiredStatus, LastStatus, Tags, Task, TaskContainer, TaskDefinition, TaskGroup, TaskHost};
pub use tls_server_name::TlsServerName;
