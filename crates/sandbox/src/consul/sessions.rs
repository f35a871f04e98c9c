//! Sessions, which hold locks until they expire or their node is removed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use ecs_mesh_model::{GoDuration, Timestamp};

use super::decode::{self, JsonFieldKind, JsonMessage, UnknownFields, text, texts};
use super::kv::KvEntry;
use super::permissions::{AccessLevel, Resource};
use super::response::{ConsulErrorResponse, HandlerResponse, HandlerResult};
use super::server::{ConsulServer, NODE_NAME, RequestContext};

const BODY: JsonMessage = JsonMessage(&[
    ("Name", JsonFieldKind::Text),
    ("Node", JsonFieldKind::Text),
    ("NodeChecks", JsonFieldKind::Texts),
    ("Checks", JsonFieldKind::Texts),
    ("Behavior", JsonFieldKind::Text),
    ("TTL", JsonFieldKind::Text),
    ("LockDelay", JsonFieldKind::Text),
]);
const SECOND: i64 = 1_000_000_000;
const SHORTEST: i64 = 10 * SECOND;
const LONGEST: i64 = 86_400 * SECOND;
/// A session expires after this multiple of its TTL without a renewal.
const TTL_FACTOR: u32 = 2;

/// The keys with their values, and the sessions.
#[derive(Clone, Default)]
pub(super) struct Locks {
    pub(super) entries: BTreeMap<String, KvEntry>,
    pub(super) sessions: BTreeMap<String, ConsulSession>,
    pub(super) entries_changed: u64,
    /// Ends of the lock-delays of keys.
    pub(super) delays: BTreeMap<String, Timestamp>,
}

/// A session.
#[derive(Clone)]
pub(super) struct ConsulSession {
    id: String,
    name: String,
    node: String,
    checks: Vec<String>,
    lock_delay: i64,
    ttl: String,
    ends: Option<Timestamp>,
    created: u64,
}

impl ConsulSession {
    fn shown(&self) -> Value {
        json!({
            "ID": self.id,
            "Name": self.name,
            "Node": self.node,
            "LockDelay": self.lock_delay,
            "Behavior": "release",
            "TTL": self.ttl,
            "NodeChecks": self.checks,
            "ServiceChecks": null,
            "CreateIndex": self.created,
            "ModifyIndex": self.created,
        })
    }

    fn renewed(&mut self, now: Timestamp) {
        let ttl = GoDuration::parse(&self.ttl).and_then(|ttl| u64::try_from(ttl.0).ok()).unwrap_or(0);
        self.ends = (ttl > 0).then(|| now.plus(Duration::from_nanos(ttl) * TTL_FACTOR));
    }
}

impl ConsulServer {
    pub(super) fn create_session(&mut self, call: &RequestContext<'_>) -> HandlerResult {
        let body = match call.request.body.as_slice() {
            [] => Ok(Map::new()),
            body => decode::body(&BODY, body, UnknownFields::Dropped),
        };
        let body =
            body.map_err(|what| ConsulErrorResponse::malformed(format!("decoding the session: {what}")))?;
        let caller = self.caller(call.secret)?;
        let node = match text(&body, "Node") {
            "" => NODE_NAME.to_owned(),
            node => node.to_owned(),
        };
        caller.require(Resource::Session, &node, AccessLevel::Write)?;
        let mut session = self.session(&body, node).map_err(ConsulErrorResponse::invalid)?;
        session.created = self.commit();
        session.renewed(call.now);
        let id = session.id.clone();
        self.locks.sessions.insert(id.clone(), session);
        Ok(HandlerResponse::Plain(json!({"ID": id})))
    }

    fn session(&mut self, body: &Map<String, Value>, node: String) -> Result<ConsulSession, String> {
        let checks = match (body.contains_key("NodeChecks"), body.contains_key("Checks")) {
            (true, _) => texts(body, "NodeChecks"),
            (false, true) => texts(body, "Checks"),
            (false, false) => vec!["serfHealth".to_owned()],
        };
        let stored = self.catalog.nodes.get(&node).ok_or_else(|| format!("there is no node {node:?}"))?;
        // Whether a check is critical is not emulated: the operator's sessions have none.
        if let Some(id) = checks.iter().find(|id| !stored.checks.contains_key(*id)) {
            return Err(format!("there is no check {id:?} on {node:?}"));
        }
        let behaviour = text(body, "Behavior");
        if !matches!(behaviour, "" | "release") {
            return Err(format!("Behavior is {behaviour:?}; the sandbox serves release alone"));
        }
        let ttl = text(body, "TTL");
        let length = if ttl.is_empty() { Some(0) } else { GoDuration::parse(ttl).map(|length| length.0) };
        if !length.is_some_and(|length| length == 0 || (SHORTEST..=LONGEST).contains(&length)) {
            return Err(format!("TTL is {ttl:?}; durations of 10s to 24h are allowed"));
        }
        Ok(ConsulSession {
            id: self.ids.uuid(),
            name: text(body, "Name").to_owned(),
            node,
            checks,
            lock_delay: lock_delay(text(body, "LockDelay"))?,
            ttl: ttl.to_owned(),
            ends: None,
            created: 0,
        })
    }

    /// Destroys a session, if it exists.
    pub(super) fn destroy_session(&mut self, call: &RequestContext<'_>, id: &str) -> HandlerResult {
        let caller = self.caller(call.secret)?;
        if let Some(session) = self.locks.sessions.get(id) {
            caller.require(Resource::Session, &session.node, AccessLevel::Write)?;
            let index = self.commit();
            self.end_session(call.now, index, id);
        }
        Ok(HandlerResponse::done())
    }

    pub(super) fn renew_session(&mut self, call: &RequestContext<'_>, id: &str) -> HandlerResult {
        let caller = self.caller(call.secret)?;
        let session =
            self.locks.sessions.get_mut(id).ok_or_else(|| ConsulErrorResponse::not_found("session"))?;
        caller.require(Resource::Session, &session.node, AccessLevel::Write)?;
        session.renewed(call.now);
        Ok(HandlerResponse::Plain(json!([session.shown()])))
    }

    /// Ends a session, and releases its keys with their lock-delay.
    fn end_session(&mut self, now: Timestamp, index: u64, id: &str) {
        let Some(session) = self.locks.sessions.remove(id) else { return };
        let held = self.locks.entries.iter_mut().filter(|(_, entry)| entry.session.as_deref() == Some(id));
        for (key, entry) in held {
            self.locks.entries_changed = index;
            entry.session = None;
            entry.modified = index;
            if let Ok(delay) = u64::try_from(session.lock_delay) {
                self.locks.delays.insert(key.clone(), now.plus(Duration::from_nanos(delay)));
            }
        }
    }

    /// Ends the sessions of a removed node.
    pub(super) fn end_sessions_of(&mut self, now: Timestamp, index: u64, node: &str) {
        let on_it = self.locks.sessions.values().filter(|session| session.node == node);
        let ids: Vec<String> = on_it.map(|session| session.id.clone()).collect();
        for id in ids {
            self.end_session(now, index, &id);
        }
    }

    /// Ends expired sessions.
    pub(super) fn expire_sessions(&mut self, now: Timestamp) {
        let ended =
            self.locks.sessions.values().filter_map(|session| Some((session.ends?, session.id.clone())));
        let mut finished: Vec<(Timestamp, String)> = ended.filter(|(ends, _)| *ends <= now).collect();
        finished.sort();
        for (ends, id) in finished {
            let index = self.commit();
            self.end_session(ends, index, &id);
        }
        self.locks.delays.retain(|_, until| *until > now);
    }

    pub(super) fn next_session_end(&self) -> Option<Timestamp> {
        self.locks.sessions.values().filter_map(|session| session.ends).min()
    }
}

/// Nanoseconds from a text.
fn lock_delay(given: &str) -> Result<i64, String> {
    let delay =
        if given.is_empty() { Some(15 * SECOND) } else { GoDuration::parse(given).map(|delay| delay.0) };
    delay
        .filter(|delay| (0..=60 * SECOND).contains(delay))
        .ok_or_else(|| format!("LockDelay is {given:?}; durations of 0s to 1m are allowed"))
}
