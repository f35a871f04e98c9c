//! Emulated AWS, Kuma and Consul, and simulated services, for tests and the demo. Production code never uses this
//! crate.
//!
//! - [`aws`], [`kuma`] and [`consul`] emulate the servers, as values and behind sockets.
//! - [`world`] deploys, scales and kills services.
//! - [`oracle`] checks a client's writes against the invariants.
//! - [`endpoints`] serves everything on loopback.
//!
//! All state is in plain values. Time is a parameter and randomness comes from a seed, so that a run can be replayed:
//!
//! ```
//! use ecs_mesh_model::Timestamp;
//! use ecs_mesh_sandbox::aws::{Cloud, CloudConfig};
//! use ecs_mesh_sandbox::control_planes::ControlPlanes;
//! use ecs_mesh_sandbox::world::{RoutedEvents, create_queue_and_rules, deploy, services};
//!
//! let start = Timestamp(1_800_000_000_000);
//! let mut cloud = Cloud::new(CloudConfig::default(), start);
//! create_queue_and_rules(&mut cloud, RoutedEvents::Tasks, start)?;
//! let service = &services(5)[0];
//! deploy(&mut cloud, service, ControlPlanes::Kuma, start)?;
//! cloud.step(start.plus(std::time::Duration::from_secs(60)));
//! assert_eq!(cloud.all_tasks().count(), service.count);
//! # Ok::<(), ecs_mesh_sandbox::aws::AwsApiError>(())
//! ```

#![forbid(unsafe_code)]

pub mod aws;
pub mod consul;
pub mod control_planes;
mod cuttable;
pub mod endpoints;
pub mod fault_injection;
pub mod kuma;
pub mod oracle;
pub mod world;
