//! What a client knows to be at Consul, held against what is: what it has forgotten must be gone. That something could
//! not be seen, or that the client's own token was told nothing, is no reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{ConsulOracle, Invariant, InvariantViolation};
use crate::consul::ConsulServer;
use ecs_mesh_model::Timestamp;

/// By its name among the client's registrations: when it was made.
pub(super) type KnownRegistrations = BTreeMap<Arc<str>, Option<u64>>;

/// When it was made that a client knows by this name, `token/ACCESSOR` or `service/ID@NODE`; nothing if it is not there.
fn creation_index(consul: &ConsulServer, name: &str) -> Option<u64> {
    let (kind, id) = name.split_once('/')?;
    let found = match kind {
        "token" => consul.tokens().find(|token| token["AccessorID"] == id)?,
        _ => {
            let (id, node) = id.split_once('@')?;
            consul.services(node).remove(id)?
        }
    };
    found.get("CreateIndex").and_then(Value::as_u64)
}

impl ConsulOracle {
    /// The operator knows these to be there.
    pub fn knows(&mut self, names: impl Iterator<Item = Arc<str>>, consul: &ConsulServer, now: Timestamp) {
        let mut known = KnownRegistrations::new();
        for name in names {
            let since = self.known.remove(&name).unwrap_or_else(|| creation_index(consul, &name));
            known.insert(name, since);
        }
        // What is left it knew before. What was made anew since it need not know.
        for (name, since) in std::mem::replace(&mut self.known, known) {
            if since.is_some() && creation_index(consul, &name) == since {
                let message = format!("{name} is forgotten, and it is there");
                self.violations.push(InvariantViolation { invariant: Invariant::I1, at: now, message });
            }
        }
    }
}
