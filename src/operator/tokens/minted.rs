//! Tokens that were issued and are not stored yet, and the backoff of names whose token was not issued. A store or control
//! plane that fails for long gets one token, and not one for each attempt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ecs_mesh_controller::{Backoff, Delays};
use ecs_mesh_core::tokens::{EntryName, StoredEntry, TokenIdentity, WantedToken};
use ecs_mesh_kuma::NewToken;
use ecs_mesh_model::Timestamp;

/// Backoff of one name while the control plane refuses its token, or issues one that is not as requested.
const REFUSED_RETRY: Backoff = Backoff { min: Duration::from_secs(10), max: Duration::from_mins(30) };

/// A token in memory, with what was requested.
#[derive(Debug)]
pub(super) struct MintedToken {
    pub(super) new: NewToken,
    identity: TokenIdentity,
    valid_for: Duration,
}

impl MintedToken {
    /// Whether storing the token gives what is wanted: as requested, not close to its end, and neither stored nor replaced
    /// before.
    fn fits(&self, wanted: &WantedToken, stored: &StoredEntry, now: Timestamp) -> bool {
        let issued = &self.new.issued;
        let is_fresh = match stored {
            StoredEntry::Recorded(record) => {
                (!record.stored || record.current != *issued)
                    && record.prior.iter().all(|prior| prior.token.id != issued.id)
            }
            StoredEntry::Absent | StoredEntry::Foreign(_) | StoredEntry::Deleting(_) => true,
        };
        is_fresh
            && wanted.identity.as_ref() == Ok(&self.identity)
            && wanted.terms.valid_for.0 == self.valid_for
            && !issued.expires_within(wanted.terms.rotate_before.0, now)
    }
}

/// The last refusal of a name's token.
struct Refusal {
    delays: Delays,
    retry_at: Timestamp,
    error: String,
}

/// The tokens in memory, and the refusals, by name.
#[derive(Default)]
pub(super) struct MintedTokens {
    tokens: BTreeMap<EntryName, Arc<MintedToken>>,
    refusals: BTreeMap<EntryName, Refusal>,
}

impl MintedTokens {
    /// The name's token, if it can still be stored.
    pub(super) fn reusable(
        &self,
        name: &EntryName,
        wanted: &WantedToken,
        stored: &StoredEntry,
        now: Timestamp,
    ) -> Option<Arc<MintedToken>> {
        self.tokens.get(name).filter(|minted| minted.fits(wanted, stored, now)).cloned()
    }

    /// Keeps a token until it is stored.
    pub(super) fn keep(
        &mut self,
        name: &EntryName,
        new: NewToken,
        identity: &TokenIdentity,
        valid_for: Duration,
    ) -> Arc<MintedToken> {
        let minted = Arc::new(MintedToken { new, identity: identity.clone(), valid_for });
        self.refusals.remove(name);
        self.tokens.insert(name.clone(), Arc::clone(&minted));
        minted
    }

    /// The name's token is stored.
    pub(super) fn stored(&mut self, name: &EntryName) {
        self.tokens.remove(name);
    }

    /// No token was issued: the next attempt waits.
    pub(super) fn refused(&mut self, name: &EntryName, error: String, seed: u64, now: Timestamp) {
        let refusal = self.refusals.entry(name.clone()).or_insert_with(|| Refusal {
            delays: REFUSED_RETRY.start(seed),
            retry_at: now,
            error: String::new(),
        });
        refusal.retry_at = now.plus(refusal.delays.after_failure());
        refusal.error = error;
    }

    /// The error of the last attempt, while the next one waits.
    pub(super) fn waits_after(&self, name: &EntryName, now: Timestamp) -> Option<&str> {
        self.refusals.get(name).filter(|refusal| now < refusal.retry_at).map(|refusal| refusal.error.as_str())
    }

    /// Drops what is kept for other names.
    pub(super) fn retain(&mut self, is_declared: impl Fn(&EntryName) -> bool) {
        self.tokens.retain(|name, _| is_declared(name));
        self.refusals.retain(|name, _| is_declared(name));
    }
}
