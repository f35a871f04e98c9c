//! One change of a stored token. Ownership is read again before each write, and the lease is asked right before it.

use std::fmt;
use std::sync::Arc;

use super::TokenLoop;
use super::minted::MintedToken;
use super::pass::{describe, stored_entry};
use super::report::TokenReporter;
use ecs_mesh_aws::aws::AwsError;
use ecs_mesh_aws::metered_token_store::{MeteredTokenStore, StoreWrite};
use ecs_mesh_aws::sdk::ATTEMPT_TIMEOUT;
use ecs_mesh_aws::token_store::{EntryTags, NewEntry};
use ecs_mesh_control_plane::CallError;
use ecs_mesh_controller::{Lease, WriteObstacle, WritePermit};
use ecs_mesh_core::tokens::{
    ClockOffset, EntryName, IssuedToken, OPERATOR_TAG, RevocationList, StoredEntry, TokenId, TokenIdentity,
    TokenRecord, TokenRecordError, WantedToken,
};
use ecs_mesh_kuma::{NewToken, TokenRequest};

/// Why a token was not changed. Never contains a token.
#[derive(Debug)]
pub(super) enum TokenChangeError {
    /// The control plane's answer.
    ControlPlane(CallError),
    /// The control plane's last answer, before the next attempt is due.
    Refused(String),
    /// The store's answer.
    Store(AwsError),
    /// The tags have no room for another replaced token.
    Record(TokenRecordError),
    /// Another writer changed the secret or parameter since it was read.
    Stale,
    /// This process may not write.
    Obstructed(WriteObstacle),
}

impl From<WriteObstacle> for TokenChangeError {
    fn from(obstacle: WriteObstacle) -> Self {
        Self::Obstructed(obstacle)
    }
}

impl fmt::Display for TokenChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlPlane(error) => f.write_str(&describe(error)),
            Self::Refused(error) => f.write_str(error),
            Self::Store(error) => error.fmt(f),
            Self::Record(error) => error.fmt(f),
            Self::Stale => f.write_str("its tags have changed since they were read"),
            Self::Obstructed(obstacle) => obstacle.fmt(f),
        }
    }
}

impl From<AwsError> for TokenChangeError {
    fn from(error: AwsError) -> Self {
        Self::Store(error)
    }
}

/// Changes one stored token.
pub(super) struct TokenApply<'a> {
    pub(super) of: &'a TokenLoop,
    pub(super) name: &'a EntryName,
    /// As it was planned.
    pub(super) stored: &'a StoredEntry,
    /// The list of its mesh, if it can be read.
    pub(super) revoked: Option<&'a RevocationList>,
}

impl TokenApply<'_> {
    /// Issues a token and stores it. Its id is in the tags before the text is stored: if this ends in between, the
    /// token may have been read and can be revoked. A token whose id was not recorded was given to no task. After any
    /// failure in between, the next attempt stores the same token.
    pub(super) async fn issue(&self, wanted: &WantedToken) -> Result<IssuedToken, TokenChangeError> {
        let Ok(identity) = &wanted.identity else { return Err(TokenChangeError::Stale) };
        self.check_unchanged().await?;
        let minted = self.mint(wanted, identity).await?;
        match self.stored {
            StoredEntry::Recorded(record) => self.replace(wanted, identity, record, &minted.new).await?,
            StoredEntry::Absent | StoredEntry::Foreign(_) | StoredEntry::Deleting(_) => {
                self.create(wanted, identity, &minted.new).await?;
            }
        }
        self.of.target.with(|inner| inner.minted.stored(self.name));
        Ok(minted.new.issued.clone())
    }

    /// The token to store: one that could not be stored yet, or a new one.
    async fn mint(
        &self,
        wanted: &WantedToken,
        identity: &TokenIdentity,
    ) -> Result<Arc<MintedToken>, TokenChangeError> {
        let wall = self.of.context.wall();
        let reusable =
            self.of.target.with(|inner| inner.minted.reusable(self.name, wanted, self.stored, wall));
        if let StoredEntry::Recorded(record) = self.stored
            && reusable.as_ref().is_none_or(|minted| minted.new.issued != record.current)
        {
            record.with_room(self.revoked, wall).map_err(TokenChangeError::Record)?;
        }
        match reusable {
            Some(minted) => Ok(minted),
            None => self.request(wanted, identity).await,
        }
    }

    async fn request(
        &self,
        wanted: &WantedToken,
        identity: &TokenIdentity,
    ) -> Result<Arc<MintedToken>, TokenChangeError> {
        let now = self.of.context.now();
        if let Some(error) =
            self.of.target.with(|inner| inner.minted.waits_after(self.name, now).map(str::to_owned))
        {
            return Err(TokenChangeError::Refused(error));
        }
        self.of.worker.writes.acquire().await;
        self.check_lease()?;
        let (mesh, valid_for) = (&wanted.owner.mesh, wanted.terms.valid_for.0);
        let request = TokenRequest { mesh, identity, valid_for };
        let mut issued = self.of.worker.call(self.of.target.issuer.issue_token(request)).await;
        if let Ok(new) = &mut issued {
            new.issued.clock = ClockOffset::between(new.issued_at, self.of.context.wall());
            TokenReporter { of: self.of }.clock(new.issued.clock);
        }
        // Kept before anything else is awaited, so that a pass that is cancelled loses no token.
        self.of.target.with(|inner| match issued {
            Ok(new) => Ok(inner.minted.keep(self.name, new, identity, valid_for)),
            Err(error) => {
                if matches!(error, CallError::Failed(_)) {
                    let seed = self.of.context.process.seed;
                    inner.minted.refused(self.name, describe(&error), seed, self.of.context.now());
                }
                Err(TokenChangeError::ControlPlane(error))
            }
        })
    }

    /// Stores the first token.
    async fn create(
        &self,
        wanted: &WantedToken,
        identity: &TokenIdentity,
        new: &NewToken,
    ) -> Result<(), TokenChangeError> {
        let record = TokenRecord::first(wanted.owner.clone(), identity.clone(), new.issued.clone());
        let tags = record.tags();
        let (kms_key, text) = (wanted.terms.kms_key.as_deref(), new.text.expose());
        let entry = NewEntry { name: &self.name.name, kms_key, tags: &tags, text };
        self.store().write(StoreWrite::Put, || self.permit(), |store| store.create(entry)).await
    }

    /// Stores a token in the place of that of `record`.
    async fn replace(
        &self,
        wanted: &WantedToken,
        identity: &TokenIdentity,
        record: &TokenRecord,
        new: &NewToken,
    ) -> Result<(), TokenChangeError> {
        let name = &*self.name.name;
        let next = if record.current == new.issued {
            record.clone()
        } else {
            let record = record.with_room(self.revoked, self.of.context.wall());
            let record = record.map_err(TokenChangeError::Record)?;
            let next = record.replaced_by(new.issued.clone(), identity.clone());
            self.set_tags(&next.tags()).await?;
            next
        };
        let (kms_key, text) = (wanted.terms.kms_key.as_deref(), new.text.expose());
        let put: Result<(), TokenChangeError> = self
            .store()
            .write(StoreWrite::Put, || self.permit(), |store| store.put(name, kms_key, text))
            .await;
        put?;
        self.set_tags(&next.stored(self.of.context.wall()).tags()).await
    }

    async fn set_tags(&self, tags: &EntryTags) -> Result<(), TokenChangeError> {
        let name = &*self.name.name;
        let call =
            self.store().write(StoreWrite::Change, || self.permit(), |store| store.set_tags(name, tags));
        call.await
    }

    /// Takes expired tokens from the tags.
    pub(super) async fn forget(&self, record: &TokenRecord, ids: &[TokenId]) -> Result<(), TokenChangeError> {
        self.check_unchanged().await?;
        self.set_tags(&record.without(ids).tags()).await
    }

    /// Writes the operator's id into the tags. Token and ids stay.
    pub(super) async fn take_over(&self) -> Result<(), TokenChangeError> {
        self.check_unchanged().await?;
        let owner = (OPERATOR_TAG.to_owned(), self.of.context.process.id.as_str().to_owned());
        self.set_tags(&[owner].into()).await
    }

    /// Removes the secret or parameter.
    pub(super) async fn remove(&self) -> Result<(), TokenChangeError> {
        self.check_unchanged().await?;
        let name = &*self.name.name;
        self.store().write(StoreWrite::Change, || self.permit(), |store| store.remove(name)).await
    }

    fn store(&self) -> &MeteredTokenStore {
        self.of.stores.of(self.name.store)
    }

    async fn check_unchanged(&self) -> Result<(), TokenChangeError> {
        let described = self.store().describe(&self.name.name).await?;
        if stored_entry(described.as_ref()) == *self.stored { Ok(()) } else { Err(TokenChangeError::Stale) }
    }

    fn check_lease(&self) -> Result<(), TokenChangeError> {
        let obstacle = self.of.worker.lease(&self.of.context.process.lease).obstacle();
        obstacle.map_or(Ok(()), |obstacle| Err(TokenChangeError::Obstructed(obstacle)))
    }

    /// Permits one attempt of a write to the store within the lease's term.
    fn permit(&self) -> Result<WritePermit, WriteObstacle> {
        WritePermit::request(&self.of.worker.lease(&self.of.context.process.lease), ATTEMPT_TIMEOUT)
    }
}
