//! One standard queue: each message is ready, delayed or in flight, and the counts are exact.
//!
//! Ready and hidden messages are kept in order, so that no operation reads all messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::messages::MessageAttribute;
use super::queues::QueueCounts;
use ecs_mesh_model::Timestamp;

/// State of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageState {
    Ready,
    Delayed(Timestamp),
    InFlight(Timestamp),
}

/// A message in a queue.
#[derive(Clone, Debug)]
pub(super) struct StoredMessage {
    pub(super) id: String,
    pub(super) body: Arc<str>,
    pub(super) attributes: Arc<BTreeMap<String, MessageAttribute>>,
    pub(super) sender: String,
    pub(super) sent_at: Timestamp,
    pub(super) first_received_at: Option<Timestamp>,
    pub(super) receives: u32,
    /// ARN of the queue that the message was moved from.
    pub(super) dead_letter_source: Option<String>,
}

#[derive(Debug)]
struct MessageSlot {
    message: StoredMessage,
    order: u64,
    state: MessageState,
}

/// A queue.
#[derive(Debug)]
pub(super) struct SqsQueue {
    pub(super) arn: String,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) created_at: Timestamp,
    pub(super) modified_at: Timestamp,
    /// Part of this queue's receipt handles, different for a deleted queue of the same name.
    uid: u64,
    slots: BTreeMap<u64, MessageSlot>,
    ready: BTreeSet<(u64, u64)>,
    hidden: BTreeSet<(Timestamp, u64)>,
    last_id: u64,
    in_flight: usize,
}

/// Reason to reject a receipt handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandleError {
    /// The handle belongs to another queue.
    Invalid,
    /// The message was deleted, or received again since.
    Stale,
    /// The message is not in flight.
    NotInFlight,
}

impl SqsQueue {
    pub(super) fn new(arn: String, uid: u64, now: Timestamp) -> Self {
        Self {
            arn,
            attributes: BTreeMap::new(),
            created_at: now,
            modified_at: now,
            uid,
            slots: BTreeMap::new(),
            ready: BTreeSet::new(),
            hidden: BTreeSet::new(),
            last_id: 0,
            in_flight: 0,
        }
    }

    /// Adds a message, `jitter` places behind the end. Returns whether it is visible.
    pub(super) fn put(
        &mut self,
        message: StoredMessage,
        delay: Duration,
        jitter: u64,
        now: Timestamp,
    ) -> bool {
        self.last_id += 1;
        let id = self.last_id;
        let order = id + jitter;
        let state =
            if delay.is_zero() { MessageState::Ready } else { MessageState::Delayed(now.plus(delay)) };
        match state {
            MessageState::Ready => self.ready.insert((order, id)),
            MessageState::Delayed(until) | MessageState::InFlight(until) => self.hidden.insert((until, id)),
        };
        self.slots.insert(id, MessageSlot { message, order, state });
        state == MessageState::Ready
    }

    /// Makes due messages visible and drops expired ones. Returns whether a message became visible.
    pub(super) fn release_due(&mut self, now: Timestamp) -> bool {
        let mut released = false;
        while let Some(&(until, id)) = self.hidden.first() {
            if until > now {
                break;
            }
            self.hidden.pop_first();
            if let Some(slot) = self.slots.get_mut(&id) {
                if matches!(slot.state, MessageState::InFlight(_)) {
                    self.in_flight -= 1;
                }
                slot.state = MessageState::Ready;
                self.ready.insert((slot.order, id));
                released = true;
            }
        }
        while let Some((&id, slot)) = self.slots.first_key_value() {
            if slot.message.sent_at.plus(self.seconds("MessageRetentionPeriod")) > now {
                break;
            }
            self.remove(id);
        }
        released
    }

    pub(super) fn next_release(&self) -> Option<Timestamp> {
        self.hidden.first().map(|(until, _)| *until)
    }

    /// Takes the first ready message, to be received or moved to the dead-letter queue.
    pub(super) fn pop_ready(&mut self) -> Option<u64> {
        self.ready.pop_first().map(|(_, id)| id)
    }

    pub(super) fn message(&self, id: u64) -> Option<&StoredMessage> {
        self.slots.get(&id).map(|slot| &slot.message)
    }

    /// Receives a taken message: it is in flight until `until`, or ready if that is now.
    pub(super) fn hand_out(
        &mut self,
        id: u64,
        until: Timestamp,
        now: Timestamp,
    ) -> Option<(StoredMessage, String)> {
        let slot = self.slots.get_mut(&id)?;
        slot.message.receives += 1;
        slot.message.first_received_at.get_or_insert(now);
        if until > now {
            slot.state = MessageState::InFlight(until);
            self.hidden.insert((until, id));
            self.in_flight += 1;
        } else {
            slot.state = MessageState::Ready;
            self.ready.insert((slot.order, id));
        }
        let handle = format!("AQEB-{id:016x}-{:08x}-{:016x}", slot.message.receives, self.uid);
        Some((slot.message.clone(), handle))
    }

    /// Deletes by the latest handle. An older handle deletes nothing and returns no error.
    pub(super) fn delete(&mut self, handle: &str) -> Result<(), HandleError> {
        match self.resolve(handle) {
            Ok(id) => {
                self.remove(id);
                Ok(())
            }
            Err(HandleError::Invalid) => Err(HandleError::Invalid),
            Err(_) => Ok(()),
        }
    }

    /// Sets the time at which an in-flight message becomes visible. Returns whether that is now.
    pub(super) fn change_visibility(
        &mut self,
        handle: &str,
        timeout: Duration,
        now: Timestamp,
    ) -> Result<bool, HandleError> {
        let id = self.resolve(handle)?;
        let slot = self.slots.get_mut(&id).ok_or(HandleError::Stale)?;
        let MessageState::InFlight(until) = slot.state else { return Err(HandleError::NotInFlight) };
        self.hidden.remove(&(until, id));
        if timeout.is_zero() {
            self.in_flight -= 1;
            slot.state = MessageState::Ready;
            self.ready.insert((slot.order, id));
            return Ok(true);
        }
        slot.state = MessageState::InFlight(now.plus(timeout));
        self.hidden.insert((now.plus(timeout), id));
        Ok(false)
    }

    fn resolve(&self, handle: &str) -> Result<u64, HandleError> {
        let mut parts = handle.strip_prefix("AQEB-").ok_or(HandleError::Invalid)?.split('-');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let (Some(id), Some(receives), Some(uid)) = (number(), number(), number()) else {
            return Err(HandleError::Invalid);
        };
        if uid != self.uid {
            return Err(HandleError::Invalid);
        }
        match self.slots.get(&id) {
            Some(slot) if u64::from(slot.message.receives) == receives => Ok(id),
            _ => Err(HandleError::Stale),
        }
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<StoredMessage> {
        let slot = self.slots.remove(&id)?;
        match slot.state {
            MessageState::Ready => self.ready.remove(&(slot.order, id)),
            MessageState::Delayed(until) => self.hidden.remove(&(until, id)),
            MessageState::InFlight(until) => {
                self.in_flight -= 1;
                self.hidden.remove(&(until, id))
            }
        };
        Some(slot.message)
    }

    pub(super) fn purge(&mut self) {
        self.slots.clear();
        self.ready.clear();
        self.hidden.clear();
        self.in_flight = 0;
    }

    pub(super) fn counts(&self) -> QueueCounts {
        QueueCounts {
            visible: self.ready.len(),
            in_flight: self.in_flight,
            delayed: self.hidden.len() - self.in_flight,
        }
    }

    /// An attribute in seconds, or its default.
    pub(super) fn seconds(&self, name: &str) -> Duration {
        let set = self.attributes.get(name).map(String::as_str);
        let text = set.or_else(|| super::queues::default_of(name)).unwrap_or("0");
        Duration::from_secs(text.parse().unwrap_or(0))
    }

    /// ARN of the dead-letter queue, and the maximum receive count.
    pub(super) fn redrive(&self) -> Option<(String, u32)> {
        let policy: serde_json::Value = serde_json::from_str(self.attributes.get("RedrivePolicy")?).ok()?;
        let count = &policy["maxReceiveCount"];
        let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
        Some((policy["deadLetterTargetArn"].as_str()?.to_owned(), u32::try_from(count).ok()?))
    }
}
