//! Data plane tokens that the operator issues, one for each workload of a binding: which to issue, replace, revoke and
//! remove.
//!
//! Nothing is kept but the stored token and the tags beside it ([`TokenRecord`]), and the mesh's list of revoked ids
//! ([`RevocationList`]). [`plan_entry`] compares them with what the manifests declare ([`desired_tokens`]).
//!
//! Guarantees:
//!
//! - A secret or parameter without this operator's tags is never written.
//! - The id of each token that tasks may have read is in the tags before the token is stored, so that it can be revoked.
//! - A token is revoked only after another one has been stored for `overlap`, or because its workload was withdrawn.

mod desired;
mod entry;
mod record;
mod revocations;

pub use desired::{DesiredToken, EntryName, desired_tokens};
pub use entry::{
    EntryInput, EntryPlan, IssueReason, StoredEntry, TOKEN_STATES, TokenAction, TokenState, WantedToken,
    plan_entry,
};
pub use record::{
    ClockOffset, IssuedToken, NoTokenIdentity, OPERATOR_TAG, PriorToken, TokenId, TokenIdentity, TokenOwner,
    TokenRecord, TokenRecordError,
};
pub use revocations::RevocationList;
