//! Holds drains back so that a service keeps ready registrations while its tasks still serve (invariant I10).
//!
//! Registrations of a service that are to be drained form a wave, which ends when none of them is left. A drain is
//! permitted at once while enough other registrations are ready: a part of those that were ready when the wave began. The
//! last ones wait for replacements, for the end of their own service, or for their time limit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::intent::RegistrationId;
use crate::plan::DrainReason;
use ecs_mesh_model::{MeshName, Timestamp};

/// A registration of a service, of any owner, as the control plane reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEndpoint {
    /// Mesh and name.
    pub id: RegistrationId,
    /// Clients are routed to it: its inbounds are ready, and it is not drained.
    pub routed: bool,
    /// Its sidecar is connected to the control plane. Clients are also routed to one that is not, such as after a hard kill,
    /// or while the control plane restarts.
    pub connected: bool,
    /// Why this operator drained it, if it did.
    pub drained: Option<DrainReason>,
    /// Its task is known to be leaving.
    pub leaving: bool,
}

impl ServiceEndpoint {
    /// Whether it serves, as far as the control plane can tell.
    pub fn is_ready(&self) -> bool {
        self.routed && self.connected
    }

    /// Whether it is drained, and its task has not ended yet.
    fn is_draining(&self) -> bool {
        self.drained == Some(DrainReason::Stopping) && self.connected
    }
}

/// A drain that is due.
#[derive(Clone, Debug)]
pub struct DrainRequest<'a> {
    /// The registration to drain.
    pub id: &'a RegistrationId,
    /// Its service.
    pub service: &'a str,
    /// Why it is to be drained. Another reason starts another hold.
    pub reason: DrainReason,
    /// All registrations of the service; `None` if they could not be read.
    pub endpoints: Option<&'a [ServiceEndpoint]>,
    /// `drain.keepReady`, in percent.
    pub keep_ready: u8,
    /// Whether the task may still serve: no essential container has stopped.
    pub serving: bool,
    /// How long the drain is held at most.
    pub max_hold: Duration,
    /// The current time.
    pub now: Timestamp,
}

impl DrainRequest<'_> {
    /// Whether only an event says that the task stops, and its sidecar, which would stop with it, is connected as far as
    /// known. The last ready registration does not go by a hint, however long ECS does not answer.
    fn rests_on_doubt(&self) -> bool {
        let is_connected = |all: &[ServiceEndpoint]| {
            all.iter().any(|endpoint| endpoint.id == *self.id && endpoint.connected)
        };
        self.reason == DrainReason::Unconfirmed && self.endpoints.is_none_or(is_connected)
    }
}

/// The answer to a [`DrainRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainPermit {
    /// Drain now.
    Now(DrainCause),
    /// Wait: too few others are ready.
    Held {
        /// Ready registrations of the service that stay.
        ready: usize,
        /// Ready registrations that must stay.
        needed: usize,
    },
}

/// Why a drain is permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainCause {
    /// Enough other registrations are ready.
    EnoughReady,
    /// An essential container of the task has stopped.
    NotServing,
    /// The control plane routes nothing to the registration.
    NotReady,
    /// The time limit is over.
    Expired,
}

/// A service of a mesh.
type ServiceKey = (MeshName, Box<str>);

/// The waves of drains at one control plane.
#[derive(Clone, Debug, Default)]
pub struct DrainHolds {
    waves: BTreeMap<ServiceKey, DrainWave>,
}

#[derive(Clone, Debug, Default)]
struct DrainWave {
    /// Ready registrations when the wave began; `None` until they could be read.
    base: Option<usize>,
    /// Registrations to drain that are not drained yet.
    marked: BTreeMap<RegistrationId, MarkedDrain>,
}

#[derive(Clone, Copy, Debug)]
struct MarkedDrain {
    reason: DrainReason,
    since: Timestamp,
    held: bool,
}

impl DrainHolds {
    /// Decides on a drain. The first request marks the registration; [`Self::release`], the drain itself and an end of the
    /// registration unmark it. A wave ends when nothing is marked and none of its drained registrations is connected any
    /// more.
    ///
    /// In this order:
    ///
    /// | condition | answer |
    /// |---|---|
    /// | an essential container has stopped | now |
    /// | nothing is routed to the registration | now |
    /// | at least `keepReady` of the wave's base, and one, are ready and stay | now |
    /// | the drain rests on an event alone, and the sidecar is connected | held |
    /// | `maxHold` is over | now |
    /// | else | held |
    pub fn request(&mut self, request: &DrainRequest<'_>) -> DrainPermit {
        let DrainRequest { id, endpoints, now, .. } = request;
        let wave = self.waves.entry((id.mesh.clone(), request.service.into())).or_default();
        if let Some(endpoints) = endpoints {
            wave.update(endpoints);
        }
        let first = MarkedDrain { reason: request.reason, since: *now, held: false };
        let marked = wave.marked.entry((*id).clone()).or_insert(first);
        if marked.reason != request.reason {
            *marked = first;
        }
        let since = marked.since;
        let permit = wave.permit(request, since);
        if let Some(marked) = wave.marked.get_mut(id) {
            marked.held = matches!(permit, DrainPermit::Held { .. });
        }
        permit
    }

    /// Whether a drain that was permitted is still permitted by what the request shows. Asked right before the write, which
    /// may have waited for slow calls while others were drained.
    pub fn still_permits(&self, request: &DrainRequest<'_>) -> bool {
        let wave = self.waves.get(&(request.id.mesh.clone(), request.service.into()));
        // Without a mark the drain is not due any more.
        let marked = wave.and_then(|wave| Some((wave, wave.marked.get(request.id)?)));
        marked.is_some_and(|(wave, marked)| matches!(wave.permit(request, marked.since), DrainPermit::Now(_)))
    }

    /// Marks a registration whose drain is permitted without a look at others: other drains do not count on it.
    pub fn mark(&mut self, id: &RegistrationId, service: &str, reason: DrainReason, now: Timestamp) {
        let wave = self.waves.entry((id.mesh.clone(), service.into())).or_default();
        wave.marked.entry(id.clone()).or_insert(MarkedDrain { reason, since: now, held: false });
    }

    /// The registration is not to be drained any more, or is gone.
    pub fn release(&mut self, id: &RegistrationId) {
        for wave in self.waves.values_mut() {
            wave.marked.remove(id);
        }
    }

    /// Whether nothing is to be drained.
    pub fn is_empty(&self) -> bool {
        self.waves.is_empty()
    }

    /// Unmarks the registrations that do not exist any more, and forgets waves without any.
    pub fn retain(&mut self, exists: impl Fn(&RegistrationId) -> bool) {
        self.waves.retain(|_, wave| {
            wave.marked.retain(|id, _| exists(id));
            !wave.marked.is_empty()
        });
    }

    /// Whether a drain of the registration is held.
    pub fn is_held(&self, id: &RegistrationId) -> bool {
        let marks = |wave: &DrainWave| wave.marked.get(id).is_some_and(|marked| marked.held);
        self.waves.values().any(marks)
    }

    /// The number of held drains.
    pub fn held_count(&self) -> usize {
        self.waves.values().flat_map(|wave| wave.marked.values()).filter(|marked| marked.held).count()
    }
}

impl DrainWave {
    /// Takes in what the control plane has listed.
    fn update(&mut self, endpoints: &[ServiceEndpoint]) {
        let pending: BTreeSet<&RegistrationId> = endpoints
            .iter()
            .filter(|endpoint| endpoint.drained.is_none())
            .map(|endpoint| &endpoint.id)
            .collect();
        self.marked.retain(|marked, _| pending.contains(marked));
        let draining = endpoints.iter().filter(|endpoint| endpoint.is_draining()).count();
        let is_over = self.marked.is_empty() && draining == 0;
        if is_over || self.base.is_none() {
            // After a restart, those that an earlier process drained belong to the wave.
            let ready = endpoints.iter().filter(|endpoint| endpoint.is_ready()).count();
            self.base = Some(ready + draining);
        }
    }

    fn permit(&self, request: &DrainRequest<'_>, since: Timestamp) -> DrainPermit {
        if !request.serving {
            return DrainPermit::Now(DrainCause::NotServing);
        }
        let needed = self.needed(request.keep_ready);
        let ready = match request.endpoints {
            // Unknown registrations do not count.
            None => 0,
            Some(endpoints) => {
                if !endpoints.iter().any(|endpoint| endpoint.id == *request.id && endpoint.routed) {
                    return DrainPermit::Now(DrainCause::NotReady);
                }
                let stays = |endpoint: &&ServiceEndpoint| {
                    endpoint.is_ready() && !endpoint.leaving && !self.marked.contains_key(&endpoint.id)
                };
                endpoints.iter().filter(stays).count()
            }
        };
        if ready >= needed {
            DrainPermit::Now(DrainCause::EnoughReady)
        } else if since.age_at(request.now) >= request.max_hold && !request.rests_on_doubt() {
            DrainPermit::Now(DrainCause::Expired)
        } else {
            DrainPermit::Held { ready, needed }
        }
    }

    /// `keep_ready` percent of the base, rounded up, and at least one.
    fn needed(&self, keep_ready: u8) -> usize {
        (self.base.unwrap_or(0) * usize::from(keep_ready)).div_ceil(100).max(1)
    }
}

#[cfg(test)]
mod tests;
