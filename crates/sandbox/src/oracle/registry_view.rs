//! Compares the operator's registry with Consul: an entry that the registry drops must be gone from Consul.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{ConsulOracle, Invariant, InvariantViolation};
use crate::consul::ConsulServer;
use ecs_mesh_model::Timestamp;

/// `CreateIndex` of each registration in the operator's registry, by name; `None` if Consul does not have it.
pub(super) type KnownRegistrations = BTreeMap<Arc<str>, Option<u64>>;

/// `CreateIndex` of the registration `token/ACCESSOR` or `service/ID@NODE`.
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
    /// Records the content of the operator's registry. Reports entries that it dropped although Consul still has
    /// them.
    pub fn record_known(
        &mut self,
        names: impl Iterator<Item = Arc<str>>,
        consul: &ConsulServer,
        now: Timestamp,
    ) {
        let mut known = KnownRegistrations::new();
        for name in names {
            let since = self.known.remove(&name).unwrap_or_else(|| creation_index(consul, &name));
            known.insert(name, since);
        }
        // The rest was dropped. A registration that was created again since then is another one.
        for (name, since) in std::mem::replace(&mut self.known, known) {
            if since.is_some() && creation_index(consul, &name) == since {
                let message = format!("{name} was dropped from the registry but still exists");
                self.violations.push(InvariantViolation { invariant: Invariant::I1, at: now, message });
            }
        }
    }
}
