//! Where the record of a lease is kept.

use async_trait::async_trait;

use ecs_mesh_controller::FencingToken;

use crate::election::ExpiryJudge;
use crate::record::{LeaseWrite, StoredRecord};

/// Keeps one record with conditional writes.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// The store's name, for logs: `dynamodb` or `consul`.
    fn name(&self) -> &'static str;

    /// The party that decides that a lease has expired.
    fn judge(&self) -> ExpiryJudge;

    /// The condition that writes to this store can have while this process holds the lease.
    fn fencing_token(&self) -> Option<FencingToken> {
        None
    }

    /// Reads the record as it was after every write that was answered before.
    async fn read(&self) -> Result<Option<StoredRecord>, LeaseStoreError>;

    /// Writes the record if its version is the expected one, and returns the new version; `None` if it is another.
    async fn write(&self, write: &LeaseWrite) -> Result<Option<u64>, LeaseStoreError>;
}

#[async_trait]
impl LeaseStore for Box<dyn LeaseStore> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn judge(&self) -> ExpiryJudge {
        (**self).judge()
    }

    fn fencing_token(&self) -> Option<FencingToken> {
        (**self).fencing_token()
    }

    async fn read(&self) -> Result<Option<StoredRecord>, LeaseStoreError> {
        (**self).read().await
    }

    async fn write(&self, write: &LeaseWrite) -> Result<Option<u64>, LeaseStoreError> {
        (**self).write(write).await
    }
}

/// Why the store did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseStoreErrorKind {
    /// The table does not exist.
    TableMissing,
    /// The caller lacks a permission, or has no valid credentials.
    AccessDenied,
    /// Too many calls.
    Throttled,
    /// No answer: a connection failure, a time-out, or a failure of the store.
    Unreachable,
    /// The record has a form that this version does not know.
    Malformed,
    /// The store refuses the call: wrong key schema, invalid session.
    Invalid,
}

impl LeaseStoreErrorKind {
    /// A bounded label for metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::TableMissing => "table_missing",
            Self::AccessDenied => "access_denied",
            Self::Throttled => "throttled",
            Self::Unreachable => "unreachable",
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
        }
    }
}

/// A failed call to the store. A write may have taken effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LeaseStoreError {
    /// The kind of failure.
    pub kind: LeaseStoreErrorKind,
    /// The call, the cause and the next step.
    pub message: String,
}

impl LeaseStoreError {
    /// An error of this kind.
    pub fn new(kind: LeaseStoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}
