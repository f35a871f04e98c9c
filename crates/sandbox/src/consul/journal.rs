//! The journal of writes that the HTTP API accepted.

use serde_json::Value;

use ecs_mesh_model::Timestamp;

use super::acl::AclCaller;
use super::server::{ConsulServer, RequestContext};

/// One accepted write, without secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsulJournalEntry {
    /// Time of the write.
    pub at: Timestamp,
    /// `token`, `policy`, `role`, `auth-method`, `binding-rule`, `node`, `service` or `check`.
    pub kind: &'static str,
    /// The accessor, id or name; for a service or check, the node, a space and the id.
    pub id: String,
    /// The accessor of the writer's token; `None` for the anonymous token.
    pub by: Option<String>,
    /// The response form before the write; `None` if the write created it.
    pub before: Option<Value>,
    /// The response form after the write; `None` if the write removed it.
    pub after: Option<Value>,
}

impl ConsulServer {
    /// Takes the accepted writes since the last call.
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
        after: Option<Value>,
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
        after: Option<Value>,
    ) {
        self.journal.push(ConsulJournalEntry {
            at: call.now,
            kind,
            id: id.to_owned(),
            by: by.map(str::to_owned),
            before,
            after,
        });
    }
}
