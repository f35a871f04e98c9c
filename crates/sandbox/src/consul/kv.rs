//! Keys with locks: what a lease needs of the key-value store.

use serde_json::{Value, json};

use ecs_mesh_model::Timestamp;

use super::ids;
use super::permissions::{AccessLevel, Resource};
use super::response::{ConsulErrorResponse, HandlerResponse, HandlerResult};
use super::server::{ConsulServer, RequestContext};
use super::sessions::Locks;

/// A stored value. Without `Debug`, since it may be a secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct KvEntry {
    value: Vec<u8>,
    pub(super) session: Option<String>,
    locked: u64,
    created: u64,
    pub(super) modified: u64,
}

impl KvEntry {
    fn shown(&self, key: &str) -> Value {
        let value = if self.value.is_empty() { Value::Null } else { json!(ids::base64(&self.value)) };
        let mut shown = json!({
            "LockIndex": self.locked,
            "Key": key,
            "Flags": 0,
            "Value": value,
            "CreateIndex": self.created,
            "ModifyIndex": self.modified,
        });
        if let Some(session) = &self.session {
            shown["Session"] = json!(session);
        }
        shown
    }
}

/// The condition of a write.
enum KeyCondition {
    None,
    Acquire(String),
    Release(String),
}

impl Locks {
    /// Writes a key. Returns whether the condition held.
    fn put(
        &mut self,
        now: Timestamp,
        index: u64,
        key: &str,
        value: Vec<u8>,
        condition: &KeyCondition,
    ) -> Result<bool, String> {
        let before = self.entries.get(key);
        let holder = before.and_then(|entry| entry.session.clone());
        let mut entry = before.cloned().unwrap_or_default();
        match condition {
            // A plain write resets `LockIndex`, although the key stays locked.
            KeyCondition::None => entry.locked = 0,
            KeyCondition::Acquire(session) => {
                if !self.sessions.contains_key(session) {
                    // Clients match this text.
                    return Err(format!("invalid session {session:?}"));
                }
                if holder.as_ref().is_some_and(|holder| holder != session) {
                    return Ok(false);
                }
                if holder.is_none() {
                    if self.delays.get(key).is_some_and(|until| *until > now) {
                        return Ok(false);
                    }
                    entry.locked += 1;
                }
                entry.session = Some(session.clone());
            }
            KeyCondition::Release(session) => {
                if holder.as_ref() != Some(session) {
                    return Ok(false);
                }
                entry.session = None;
            }
        }
        entry.value = value;
        if before == Some(&entry) {
            return Ok(true);
        }
        entry.created = if entry.created == 0 { index } else { entry.created };
        entry.modified = index;
        self.entries.insert(key.to_owned(), entry);
        self.entries_changed = index;
        Ok(true)
    }

    /// Whether the session has locked the key: the verb `check-session` of a transaction.
    pub(super) fn check_session(&self, key: &str, session: &str) -> Result<(), String> {
        let Some(entry) = self.entries.get(key) else {
            return Err(format!("failed to check session, key {key:?} doesn't exist"));
        };
        if entry.session.as_deref() == Some(session) {
            return Ok(());
        }
        let holder = entry.session.as_deref().unwrap_or_default();
        Err(format!("failed session check for key {key:?}, current session {holder:?} != {session:?}"))
    }
}

impl ConsulServer {
    pub(super) fn read_key(&self, call: &RequestContext<'_>, key: &str) -> HandlerResult {
        self.caller(call.secret)?.require(Resource::Key, key, AccessLevel::Read)?;
        let missing = || ConsulErrorResponse::no_key(self.locks.entries_changed);
        let entry = self.locks.entries.get(key).ok_or_else(missing)?;
        Ok(HandlerResponse::read(&json!([entry.shown(key)]), entry.modified))
    }

    pub(super) fn write_key(&mut self, call: &RequestContext<'_>, key: &str) -> HandlerResult {
        if key.is_empty() {
            return Err(ConsulErrorResponse::malformed("the key is missing"));
        }
        let parameter = |name: &str| call.target.has(name).then(|| call.target.parameter(name).to_owned());
        let condition = match (parameter("acquire"), parameter("release")) {
            (None, None) => KeyCondition::None,
            (Some(session), None) => KeyCondition::Acquire(session),
            (None, Some(session)) => KeyCondition::Release(session),
            (Some(_), Some(_)) => {
                return Err(ConsulErrorResponse::malformed("acquire and release exclude one another"));
            }
        };
        self.caller(call.secret)?.require(Resource::Key, key, AccessLevel::Write)?;
        let (index, value) = (self.commit(), call.request.body.clone());
        let done = self.locks.put(call.now, index, key, value, &condition);
        Ok(HandlerResponse::Plain(json!(done.map_err(ConsulErrorResponse::invalid)?)))
    }

    pub(super) fn delete_key(&mut self, call: &RequestContext<'_>, key: &str) -> HandlerResult {
        self.caller(call.secret)?.require(Resource::Key, key, AccessLevel::Write)?;
        let index = self.commit();
        if self.locks.entries.remove(key).is_some() {
            self.locks.entries_changed = index;
        }
        Ok(HandlerResponse::done())
    }
}
