//! The key-value store, with check-and-set and locks.

use serde_json::{Value, json};

use ecs_mesh_model::Timestamp;

use super::acl::AclCaller;
use super::ids;
use super::permissions::{AccessLevel, Resource};
use super::response::{ConsulErrorResponse, HandlerResponse, HandlerResult, ReadResult};
use super::server::{ConsulServer, RequestContext};
use super::sessions::Locks;

/// A stored value. Without `Debug`, since it may be a secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct KvEntry {
    pub(super) value: Vec<u8>,
    pub(super) flags: u64,
    pub(super) session: Option<String>,
    locked: u64,
    created: u64,
    pub(super) modified: u64,
}

impl KvEntry {
    pub(super) fn shown(&self, key: &str, with_value: bool) -> Value {
        let value =
            if with_value && !self.value.is_empty() { json!(ids::base64(&self.value)) } else { Value::Null };
        let mut shown = json!({
            "LockIndex": self.locked,
            "Key": key,
            "Flags": self.flags,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    None,
    /// The key's `ModifyIndex`; 0 if it must not exist.
    Index(u64),
    Acquire(String),
    Release(String),
}

impl Locks {
    /// Writes a key. Returns whether the condition held.
    pub(super) fn put(
        &mut self,
        now: Timestamp,
        index: u64,
        key: &str,
        (value, flags): (Vec<u8>, u64),
        condition: &Condition,
    ) -> Result<bool, String> {
        let before = self.entries.get(key);
        let holder = before.and_then(|entry| entry.session.clone());
        let mut entry = before.cloned().unwrap_or_default();
        match condition {
            Condition::Index(wanted) if *wanted != entry.modified => return Ok(false),
            // A plain write resets `LockIndex`, although the key stays locked.
            Condition::None | Condition::Index(_) => entry.locked = 0,
            Condition::Acquire(session) => {
                if !self.sessions.contains_key(session) {
                    return Err(format!("there is no session {session:?}"));
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
            Condition::Release(session) => {
                if holder.as_ref() != Some(session) {
                    return Ok(false);
                }
                entry.session = None;
            }
        }
        entry.value = value;
        entry.flags = flags;
        if before == Some(&entry) {
            return Ok(true);
        }
        entry.created = if entry.created == 0 { index } else { entry.created };
        entry.modified = index;
        self.entries.insert(key.to_owned(), entry);
        self.entries_changed = index;
        Ok(true)
    }

    /// Deletes a key, with an index only if it is the key's `ModifyIndex`. Returns whether the condition held.
    pub(super) fn remove(&mut self, index: u64, key: &str, wanted: Option<u64>) -> bool {
        let found = self.entries.get(key).map(|entry| entry.modified);
        if wanted.is_some_and(|wanted| wanted != 0 && found.is_some_and(|found| found != wanted)) {
            return false;
        }
        if self.entries.remove(key).is_some() {
            self.entries_changed = index;
        }
        true
    }
}

impl ConsulServer {
    pub(super) fn read_key(&self, call: &RequestContext<'_>, key: &str) -> HandlerResult {
        let caller = self.caller(call.secret)?;
        if call.target.has("recurse") || call.target.has("keys") {
            return self.list_keys(call, &caller, key);
        }
        caller.require(Resource::Key, key, AccessLevel::Read)?;
        let missing = || ConsulErrorResponse::no_key(self.locks.entries_changed);
        let entry = self.locks.entries.get(key).ok_or_else(missing)?;
        if call.target.has("raw") {
            return Ok(HandlerResponse::Raw { body: entry.value.clone(), index: entry.modified });
        }
        Ok(HandlerResponse::read(json!([entry.shown(key, true)]), entry.modified))
    }

    fn list_keys(&self, call: &RequestContext<'_>, caller: &AclCaller, prefix: &str) -> HandlerResult {
        let index = self.locks.entries_changed;
        let below = self.locks.entries.iter().filter(|(key, _)| key.starts_with(prefix));
        let (seen, hidden): (Vec<_>, Vec<_>) =
            below.partition(|(key, _)| caller.may(Resource::Key, key, AccessLevel::Read));
        let filtered = !hidden.is_empty() && caller.reports_filtering();
        if seen.is_empty() {
            return Err(ConsulErrorResponse::no_key_shown(index, filtered));
        }
        let read =
            |body: Value| Ok(HandlerResponse::Read(ReadResult { body, index, filtered, catalog: false }));
        if call.target.has("recurse") {
            return read(seen.iter().map(|(key, entry)| entry.shown(key, true)).collect());
        }
        let separator = call.target.parameter("separator");
        let mut keys: Vec<&str> = Vec::new();
        for (key, _) in seen {
            let end = if separator.is_empty() { None } else { key[prefix.len()..].find(separator) };
            let key = end.map_or(key.as_str(), |end| &key[..prefix.len() + end + separator.len()]);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        read(json!(keys))
    }

    pub(super) fn write_key(&mut self, call: &RequestContext<'_>, key: &str) -> HandlerResult {
        if key.is_empty() {
            return Err(ConsulErrorResponse::malformed("the key is missing"));
        }
        let parameter = |name: &str| call.target.parameter(name).to_owned();
        let given = ["cas", "acquire", "release"].into_iter().filter(|name| call.target.has(name));
        let condition = match given.collect::<Vec<_>>()[..] {
            [] => Condition::None,
            ["cas"] => Condition::Index(number("cas", &parameter("cas"))?),
            ["acquire"] => Condition::Acquire(parameter("acquire")),
            ["release"] => Condition::Release(parameter("release")),
            _ => return Err(ConsulErrorResponse::malformed("cas, acquire and release exclude one another")),
        };
        let flags = if call.target.has("flags") { number("flags", &parameter("flags"))? } else { 0 };
        let caller = self.caller(call.secret)?;
        caller.require(Resource::Key, key, AccessLevel::Write)?;
        let index = self.commit();
        let before = self.locks.entries.get(key).map(|entry| entry.shown(key, false));
        let value = (call.request.body.clone(), flags);
        let done =
            self.locks.put(call.now, index, key, value, &condition).map_err(ConsulErrorResponse::invalid)?;
        if done {
            let after = self.locks.entries.get(key).map(|entry| entry.shown(key, false));
            self.record(call, &caller, "kv", key, before, after.as_ref());
        }
        Ok(HandlerResponse::Plain(json!(done)))
    }

    pub(super) fn delete_key(&mut self, call: &RequestContext<'_>, key: &str) -> HandlerResult {
        let cas = Some(call.target.parameter("cas")).filter(|_| call.target.has("cas"));
        let wanted = cas.map(|cas| number("cas", cas)).transpose()?;
        let caller = self.caller(call.secret)?;
        let keys: Vec<String> = if call.target.has("recurse") {
            self.locks.entries.keys().filter(|known| known.starts_with(key)).cloned().collect()
        } else {
            vec![key.to_owned()]
        };
        for key in &keys {
            caller.require(Resource::Key, key, AccessLevel::Write)?;
        }
        let index = self.commit();
        let mut done = true;
        for key in keys {
            let before = self.locks.entries.get(&key).map(|entry| entry.shown(&key, false));
            done &= self.locks.remove(index, &key, wanted);
            if done && before.is_some() {
                self.record(call, &caller, "kv", &key, before, None);
            }
        }
        Ok(HandlerResponse::Plain(json!(done)))
    }
}

fn number(name: &str, text: &str) -> Result<u64, ConsulErrorResponse> {
    text.parse()
        .map_err(|_| ConsulErrorResponse::invalid(format!("{name} is {text:?}; a whole number is needed")))
}
