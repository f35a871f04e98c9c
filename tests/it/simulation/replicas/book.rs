//! The record of the lease that the replicas share, and the judge of their writes. The judge knows when each renewal took
//! effect: from then on the lease lasts for its duration, whatever the holder's own clock and answers say.

use std::sync::Mutex;
use std::time::Duration;

use ecs_mesh_lease::{HolderId, LeaseTiming, LeaseWrite, LeaseWriteKind, StoredRecord};
use ecs_mesh_model::Timestamp;

/// Two calls to the store, each of two messages, and a wait of the election loop.
const CALLS: Duration = Duration::from_secs(1);

/// A candidate of the world, which takes the lease while all replicas are frozen.
const OTHER: &str = "other";

/// How a forced handover takes the lease from the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum ForcedBy {
    /// A clean stop, which releases the lease.
    Stop,
    /// A crash, a hang, or a store out of reach: the lease expires.
    Silence,
    /// All replicas stand still, and other time limits apply.
    Freeze,
}

/// Counts of one life, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct HandoverCounts {
    /// Changes of the leader.
    pub(in super::super) takeovers: u64,
    /// Those that a fault of the life has forced.
    pub(in super::super) forced: u64,
    /// Writes that reached a control plane or AWS from a process whose lease may have ended.
    pub(in super::super) deposed_writes: u64,
    /// Writes that were judged.
    pub(in super::super) writes: u64,
    /// The longest time without a leader after a clean stop, where nothing else disturbed the replicas.
    pub(in super::super) longest_after_stop: Duration,
    /// The same after a crash, from the crash on.
    pub(in super::super) longest_after_silence: Duration,
}

impl HandoverCounts {
    /// Adds the counts of another life.
    pub(in super::super) fn add(&mut self, other: Self) {
        self.takeovers += other.takeovers;
        self.forced += other.forced;
        self.deposed_writes += other.deposed_writes;
        self.writes += other.writes;
        self.longest_after_stop = self.longest_after_stop.max(other.longest_after_stop);
        self.longest_after_silence = self.longest_after_silence.max(other.longest_after_silence);
    }
}

/// Runs at each change of the leader, before the new one knows of it.
pub(in super::super) type TakeoverHook = Box<dyn Fn(&HolderId) + Send + Sync>;

/// The shared record.
pub(in super::super) struct LeaseBook {
    timing: LeaseTiming,
    state: Mutex<BookState>,
    on_takeover: Mutex<Option<TakeoverHook>>,
}

struct BookState {
    stored: Option<StoredRecord>,
    /// When the holder's last write of the record took effect.
    renewed: Timestamp,
    /// The process that held the lease last.
    leader: Option<HolderId>,
    forced: Option<(ForcedBy, Timestamp)>,
    /// Since when the lease is free after a release.
    released: Option<Timestamp>,
    /// When the store, or a replica, was disturbed last.
    disturbed: Timestamp,
    counts: HandoverCounts,
    violations: Vec<String>,
}

impl LeaseBook {
    pub(in super::super) fn new(timing: LeaseTiming, now: Timestamp) -> Self {
        let state = BookState {
            stored: None,
            renewed: now,
            leader: None,
            forced: None,
            released: None,
            disturbed: now,
            counts: HandoverCounts::default(),
            violations: Vec::new(),
        };
        Self { timing, state: Mutex::new(state), on_takeover: Mutex::default() }
    }

    pub(in super::super) fn timing(&self) -> LeaseTiming {
        self.timing
    }

    /// Sets a hook that runs at each change of the leader.
    pub(in super::super) fn on_takeover(&self, hook: TakeoverHook) {
        *self.on_takeover.lock().unwrap() = Some(hook);
    }

    pub(in super::super) fn read(&self) -> Option<StoredRecord> {
        self.state.lock().unwrap().stored.clone()
    }

    /// Carries out a conditional write.
    pub(in super::super) fn write(
        &self,
        write: &LeaseWrite,
        steady_since: Timestamp,
        now: Timestamp,
    ) -> Option<u64> {
        let mut state = self.state.lock().unwrap();
        if state.stored.as_ref().map(|stored| stored.version) != write.expected {
            return None;
        }
        let is_takeover =
            write.kind == LeaseWriteKind::Acquire && state.leader.as_ref() != Some(&write.writer);
        match write.kind {
            LeaseWriteKind::Acquire => {
                state.record_acquisition(&write.writer, is_takeover, &self.timing, steady_since, now);
            }
            LeaseWriteKind::Renew => {}
            LeaseWriteKind::Release => state.released = Some(now),
        }
        let version = write.expected.unwrap_or(0) + 1;
        state.stored = Some(StoredRecord { record: write.record.clone(), version });
        state.renewed = now;
        drop(state);
        if is_takeover && let Some(hook) = &*self.on_takeover.lock().unwrap() {
            hook(&write.writer);
        }
        Some(version)
    }

    /// Another process takes an expired lease at `at`, and falls silent. Returns whether the lease had expired.
    pub(in super::super) fn take_by_other(&self, at: Timestamp) -> bool {
        let Some(StoredRecord { mut record, version }) = self.read() else { return false };
        record.holder = Some(HolderId::recorded(OTHER));
        record.epoch += 1;
        let kind = LeaseWriteKind::Acquire;
        let writer = HolderId::recorded(OTHER);
        self.write(&LeaseWrite { kind, writer, expected: Some(version), record }, at, at).is_some()
    }

    /// The process in the record, if its lease lasts.
    pub(in super::super) fn leader(&self, now: Timestamp) -> Option<HolderId> {
        let state = self.state.lock().unwrap();
        let record = &state.stored.as_ref()?.record;
        let lasts = now < state.renewed.plus(record.duration);
        record.holder.clone().filter(|holder| lasts && holder.as_str() != OTHER)
    }

    /// The process that is known to lead or to have led last.
    pub(in super::super) fn last_leader(&self) -> Option<HolderId> {
        self.state.lock().unwrap().leader.clone()
    }

    /// Judges a write of this process that reaches its receiver now.
    pub(in super::super) fn judge(&self, holder: &HolderId, what: &dyn std::fmt::Display, now: Timestamp) {
        let mut state = self.state.lock().unwrap();
        state.counts.writes += 1;
        let objection = match state.stored.as_ref().map(|stored| &stored.record) {
            Some(record) if record.holder.as_ref() == Some(holder) => {
                let ended = state.renewed.plus(record.duration);
                (now >= ended).then(|| format!("its lease ended {} ms before", ended.age_at(now).as_millis()))
            }
            Some(record) => match &record.holder {
                Some(other) => Some(format!("{other} leads since epoch {}", record.epoch)),
                None => Some("it has released the lease".to_owned()),
            },
            None => Some("it never held the lease".to_owned()),
        };
        if let Some(objection) = objection {
            state.counts.deposed_writes += 1;
            state.violations.push(format!("I7: {what} of {holder}, although {objection}"));
        }
    }

    pub(in super::super) fn record_violation(&self, message: String) {
        self.state.lock().unwrap().violations.push(message);
    }

    /// Records that a fault takes the lease from its holder.
    pub(in super::super) fn record_forced(&self, by: ForcedBy, now: Timestamp) {
        let mut state = self.state.lock().unwrap();
        state.forced = Some((by, now));
        state.released = None;
    }

    /// Records that a call to the store fails, or that another replica is disturbed.
    pub(in super::super) fn record_disturbance(&self, until: Timestamp) {
        let mut state = self.state.lock().unwrap();
        state.disturbed = state.disturbed.max(until);
    }

    pub(in super::super) fn counts(&self) -> HandoverCounts {
        self.state.lock().unwrap().counts
    }

    pub(in super::super) fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().violations)
    }
}

impl BookState {
    fn record_acquisition(
        &mut self,
        writer: &HolderId,
        is_takeover: bool,
        timing: &LeaseTiming,
        steady_since: Timestamp,
        now: Timestamp,
    ) {
        self.check_expiry(writer, now);
        let (forced, released) = (self.forced.take(), self.released.take());
        if !is_takeover {
            return;
        }
        let is_first = self.leader.replace(writer.clone()).is_none();
        self.counts.takeovers += u64::from(!is_first);
        let Some((by, since)) = forced else { return };
        self.counts.forced += 1;
        if self.disturbed > since || steady_since > since {
            return;
        }
        let (waited, most) = match (by, released) {
            (ForcedBy::Stop, Some(released)) => {
                let waited = released.age_at(now);
                self.counts.longest_after_stop = self.counts.longest_after_stop.max(waited);
                (waited, timing.retry_period() + CALLS)
            }
            (ForcedBy::Silence, _) => {
                let waited = since.age_at(now);
                self.counts.longest_after_silence = self.counts.longest_after_silence.max(waited);
                (waited, timing.lease_duration() + timing.retry_period() + CALLS)
            }
            _ => return,
        };
        if waited > most {
            self.violations.push(format!("takeover after {by:?} took {waited:?}, more than {most:?}"));
        }
    }

    /// A lease that has not been released lasts for its duration, also for the processes that want it.
    fn check_expiry(&mut self, writer: &HolderId, now: Timestamp) {
        let Some(StoredRecord { record, .. }) = &self.stored else { return };
        if let Some(holder) = record.holder.as_ref().filter(|holder| *holder != writer)
            && now < self.renewed.plus(record.duration)
        {
            self.violations.push(format!("I7: {writer} takes the lease of {holder}, which lasts"));
        }
    }
}
