//! A lease as the lock of a key in Consul, held by a session.
//!
//! The session's TTL is the lease duration, and Consul decides when it has ended: never before the TTL has passed since a
//! renewal, and at the latest after twice that. The lock-delay is the lease duration as well. A session may end early, since
//! it is destroyed by hand or its node leaves the catalog; then the lock-delay covers what is left of the leader's term. So a
//! takeover after a crash needs at most twice the lease duration plus the lock-delay, and a takeover after a release none of
//! them.
//!
//! Source: <https://developer.hashicorp.com/consul/docs/dynamic-app-config/sessions>.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use ecs_mesh_consul::ConsulSessionLock;
use ecs_mesh_control_plane::http::StreamTransport;
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
use ecs_mesh_controller::FencingToken;

use crate::election::ExpiryJudge;
use crate::record::{HolderId, LeaseRecord, LeaseWrite, LeaseWriteKind, StoredRecord};
use crate::store::{LeaseStore, LeaseStoreError, LeaseStoreErrorKind};
use crate::timing::LeaseTiming;

/// The longest lock-delay that Consul keeps.
const MAX_LOCK_DELAY: Duration = Duration::from_mins(1);

/// The key's value.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyValue {
    /// Also after a release, for people; the lock decides who holds the lease.
    holder: String,
    epoch: u64,
}

/// Keeps the lease of one operator as the lock of a key.
pub struct ConsulLeaseStore<T> {
    lock: ConsulSessionLock<T>,
    ttl: Duration,
    /// The own session. It may have ended.
    session: Mutex<Option<String>>,
}

impl<T: StreamTransport> ConsulLeaseStore<T> {
    /// The lease that `lock` keeps.
    pub fn new(lock: ConsulSessionLock<T>, timing: LeaseTiming) -> Self {
        Self { lock, ttl: timing.lease_duration(), session: Mutex::default() }
    }

    fn session(&self) -> Option<String> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_session(&self, session: Option<String>) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }

    /// The own session, renewed or new.
    async fn live_session(&self, holder: &HolderId) -> Result<String, MeshError> {
        if let Some(session) = self.session()
            && self.lock.renew_session(&session).await?
        {
            return Ok(session);
        }
        let lock_delay = self.ttl.min(MAX_LOCK_DELAY);
        let session = self.lock.create_session(holder.as_str(), self.ttl, lock_delay).await?;
        self.set_session(Some(session.clone()));
        Ok(session)
    }

    async fn acquire(&self, write: &LeaseWrite) -> Result<bool, MeshError> {
        let session = self.live_session(&write.writer).await?;
        // Consul does not check the version: without this look, an epoch could be used twice.
        let version = self.lock.read().await?.map(|key| key.modify_index);
        if version != write.expected {
            return Ok(false);
        }
        self.lock.acquire(&session, value(write)).await
    }

    async fn renew(&self) -> Result<bool, MeshError> {
        let Some(session) = self.session() else { return Ok(false) };
        if !self.lock.renew_session(&session).await? {
            return Ok(false);
        }
        // A live session may have lost its lock: anybody who may write the key can delete it.
        let key = self.lock.read().await?;
        Ok(key.is_some_and(|key| key.session.as_deref() == Some(&session)))
    }

    async fn release(&self, write: &LeaseWrite) -> Result<bool, MeshError> {
        let Some(session) = self.session() else { return Ok(false) };
        // In this order: a session that ends with a lock leaves a lock-delay.
        let released = self.lock.release(&session, value(write)).await?;
        self.set_session(None);
        if let Err(error) = self.lock.destroy_session(&session).await {
            tracing::debug!(%error, "cannot destroy the session; it ends by itself");
        }
        Ok(released)
    }
}

fn value(write: &LeaseWrite) -> Vec<u8> {
    let value = KeyValue { holder: write.writer.as_str().to_owned(), epoch: write.record.epoch };
    // A text and a number always have a form in JSON.
    serde_json::to_vec(&value).unwrap_or_default()
}

#[async_trait]
impl<T: StreamTransport> LeaseStore for ConsulLeaseStore<T> {
    fn name(&self) -> &'static str {
        "consul"
    }

    fn judge(&self) -> ExpiryJudge {
        ExpiryJudge::Store
    }

    fn fencing_token(&self) -> Option<FencingToken> {
        self.session().map(|session| self.lock.fencing_token(&session))
    }

    async fn read(&self) -> Result<Option<StoredRecord>, LeaseStoreError> {
        let Some(key) = self.lock.read().await.map_err(|error| failure(&error))? else { return Ok(None) };
        let value: KeyValue = serde_json::from_slice(&key.value).map_err(|error| {
            let message = format!(
                "reading the lease: the key's value is not that of a lease: {error}; help: stop all copies of the \
                 operator, delete the key, and start them again"
            );
            LeaseStoreError::new(LeaseStoreErrorKind::Malformed, message)
        })?;
        let holder = key.session.is_some().then(|| HolderId::recorded(value.holder));
        let record = LeaseRecord { holder, epoch: value.epoch, duration: self.ttl };
        Ok(Some(StoredRecord { record, version: key.modify_index }))
    }

    async fn write(&self, write: &LeaseWrite) -> Result<Option<u64>, LeaseStoreError> {
        let done = match write.kind {
            LeaseWriteKind::Acquire => self.acquire(write).await,
            LeaseWriteKind::Renew => self.renew().await,
            LeaseWriteKind::Release => self.release(write).await,
        };
        // Later writes are conditional on the session, not on a version.
        done.map(|done| done.then_some(write.expected.unwrap_or(0))).map_err(|error| failure(&error))
    }
}

fn failure(error: &MeshError) -> LeaseStoreError {
    let kind = match error.kind {
        MeshErrorKind::Forbidden | MeshErrorKind::ReadOnly => LeaseStoreErrorKind::AccessDenied,
        MeshErrorKind::Throttled => LeaseStoreErrorKind::Throttled,
        MeshErrorKind::Unreachable | MeshErrorKind::ServerError => LeaseStoreErrorKind::Unreachable,
        MeshErrorKind::UnexpectedResponse => LeaseStoreErrorKind::Malformed,
        MeshErrorKind::Conflict
        | MeshErrorKind::Invalid
        | MeshErrorKind::NotExpressible
        | MeshErrorKind::MeshNotFound
        | MeshErrorKind::Obstructed(_) => LeaseStoreErrorKind::Invalid,
    };
    LeaseStoreError::new(kind, error.message.clone())
}
