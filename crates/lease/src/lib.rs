//! Elects one of several copies of an operator, so that one process at a time writes (invariant I7).
//!
//! | module | contents |
//! |---|---|
//! | [`election`] | the state machine: pure, with time as a parameter |
//! | [`elector`] | runs it over a store |
//! | [`handle`] | what writers and loops see of it |
//! | [`store`] | the record's store as a trait; [`dynamodb`] and [`consul`] implement it |
//! | [`location`] | where a lease is kept, as the command line names it |
//! | [`timing`] | durations, with client-go's names and defaults |
//!
//! ```
//! use ecs_mesh_lease::{Election, ElectionStep, ExpiryJudge, HolderId, LeaseTiming};
//! use ecs_mesh_model::Timestamp;
//!
//! let mut election = Election::new(HolderId::generate("host"), LeaseTiming::default(), ExpiryJudge::Observer);
//! assert_eq!(election.next_step(Timestamp(0)), ElectionStep::Read);
//! // No process has ever held the lease.
//! election.on_read(Timestamp(5), Some(None), 0.0);
//! let ElectionStep::Write(write) = election.next_step(Timestamp(5)) else { unreachable!() };
//! election.on_write(&write, (Timestamp(5), Timestamp(9)), Some(Some(1)), 0.0);
//! assert_eq!(election.valid_until(), Some(Timestamp(5 + 14_700)));
//! ```

#![forbid(unsafe_code)]

pub mod consul;
pub mod dynamodb;
pub mod election;
pub mod elector;
pub mod handle;
pub mod location;
pub mod record;
pub mod store;
pub mod timing;

#[cfg(test)]
mod tests;

pub use consul::ConsulLeaseStore;
pub use dynamodb::DynamoDbLeaseStore;
pub use election::{Election, ElectionChange, ElectionRole, ElectionStep, ExpiryJudge, LeaseLoss};
pub use elector::Elector;
pub use handle::{ElectionStatus, LeaseHandle};
pub use location::{LeaseClients, LeaseLocation, consul_key};
pub use record::{HolderId, LeaseRecord, LeaseWrite, LeaseWriteKind, StoredRecord};
pub use store::{LeaseStore, LeaseStoreError, LeaseStoreErrorKind};
pub use timing::{LeaseTiming, LeaseTimingError};
