//! The record of every write that the HTTP API accepted, for those who check what a client did.

use serde_json::Value;

use ecs_mesh_model::Timestamp;

use super::acl::AclCaller;
use super::server::{RequestContext, ConsulServer};

/// One accepted write. Secrets are not in it.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsulJournalEntry {
    /// When it took effect.
    pub at: Timestamp,
    /// `token`, `policy`, `role`, `auth-method`, `binding-rule`, `node`, `service`, `check`, `session` or `kv`.
    pub kind: &'static str,
    /// The accessor, id or name; of a service or check its node, a space, and its id.
    pub id: String,
    /// The accessor of the token that wrote it; nothing for nobody in particular.
    pub by: Option<String>,
    /// How it was shown before; nothing where the write made it.
    pub before: Option<Value>,
    /// How it is shown after; nothing where the write removed it.
    pub after: Option<Value>,
}

impl ConsulServer {
    /// The accepted writes since the last call.
    pub fn take_journal(&mut self) -> Vec<ConsulJournalEntry> {
        std::mem::take(&mut self.journal)
    }

    pub(super) fn record(
        &mut self,
        call: &RequestContext<'_>,
        caller: &AclCaller,
        kind: &'static str,
        id: &str,
        before: Option<Value>,
        after: Option<&Value>,
    ) {
        self.record_by(call, caller.accessor.as_deref(), kind, id, before, after);
    }

    pub(super) fn record_by(
        &mut self,
        call: &RequestContext<'_>,
        by: Option<&str>,
        kind: &'static str,
        id: &str,
        before: Option<Value>,
        after: Option<&Value>,
    ) {
        self.journal.push(ConsulJournalEntry {
            at: call.now,
            kind,
            id: id.to_owned(),
            by: by.map(str::to_owned),
            before,
            after: after.cloned(),
        });
    }
}
