//! The record of the lease that the replicas share, and the judge of their writes. The judge knows when each renewal took
//! effect: from then on the lease lasts for its duration, whatever the holder's own clock and answers say.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use ecs_mesh_lease::{HolderId, LeaseRecord, LeaseTiming, LeaseWrite, LeaseWriteKind, StoredRecord};
use ecs_mesh_model::Timestamp;

/// Two calls to the store, each of two messages, and a wait of the election loop.
const CALLS: Duration = Duration::from_secs(1);

/// How long a stopped operator may take to end: its default for what is in flight, and the longest call that is then left.
const SHUTDOWN: Duration = Duration::from_secs(20 + 5);

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
    /// The longest time from a clean stop to the release.
    pub(in super::super) longest_to_release: Duration,
    /// Takeovers after a clean stop, or after silence, whose time was checked.
    pub(in super::super) timed_after_stop: u64,
    pub(in super::super) timed_after_silence: u64,
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
        self.longest_to_release = self.longest_to_release.max(other.longest_to_release);
        self.timed_after_stop += other.timed_after_stop;
        self.timed_after_silence += other.timed_after_silence;
    }
}

/// Runs at each change of the leader, before the new one knows of it.
pub(in super::super) type TakeoverHook = Box<dyn Fn(&HolderId) + Send + Sync>;

/// The shared record.
pub(in super::super) struct SharedLeaseRecord {
    timing: LeaseTiming,
    state: Mutex<LeaseRecordState>,
    on_takeover: Mutex<Option<TakeoverHook>>,
}

struct LeaseRecordState {
    stored: Option<StoredRecord>,
    /// When the holder's last write of the record took effect.
    renewed: Timestamp,
    /// The process that held the lease last.
    leader: Option<HolderId>,
    forced: Option<ForcedHandover>,
    /// When the last lease of each process ended.
    ended: HashMap<HolderId, Timestamp>,
    /// Until when all replicas were frozen last.
    frozen_until: Timestamp,
    counts: HandoverCounts,
    violations: Vec<String>,
}

/// A handover that a fault of the life forces.
struct ForcedHandover {
    by: ForcedBy,
    since: Timestamp,
    /// When the lease was released after a stop.
    released: Option<Timestamp>,
    /// A renewal or a call of the process that stops failed: it may end without a release.
    may_lose_release: bool,
    /// How much longer failed calls may make the handover.
    extension: Duration,
}

impl SharedLeaseRecord {
    pub(in super::super) fn new(timing: LeaseTiming, now: Timestamp) -> Self {
        let state = LeaseRecordState {
            stored: None,
            renewed: now,
            leader: None,
            forced: None,
            ended: HashMap::new(),
            frozen_until: now,
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
        healthy_since: Timestamp,
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
                state.record_acquisition(&write.writer, is_takeover, &self.timing, healthy_since, now);
            }
            LeaseWriteKind::Renew => {}
            LeaseWriteKind::Release => state.record_release(&write.writer, now),
        }
        state.store(write.record.clone(), now);
        let version = state.stored.as_ref().map(|stored| stored.version);
        drop(state);
        if is_takeover && let Some(hook) = &*self.on_takeover.lock().unwrap() {
            hook(&write.writer);
        }
        version
    }

    /// Another process takes the lease at `at`, when that of all replicas has expired, and falls silent. It writes nothing
    /// else, so no hook runs.
    pub(in super::super) fn take_by_other(&self, at: Timestamp) {
        let mut state = self.state.lock().unwrap();
        let Some(StoredRecord { mut record, .. }) = state.stored.clone() else { return };
        let other = HolderId::recorded(OTHER);
        state.check_expiry(&other, at);
        state.record_end(at);
        state.leader = Some(other.clone());
        record.holder = Some(other);
        record.epoch += 1;
        state.store(record, at);
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

    /// When the lease of this process ended, or `None` while it lasts. A process that has never led has no lease that lasts.
    pub(in super::super) fn ended(&self, holder: &HolderId, now: Timestamp) -> Option<Timestamp> {
        let state = self.state.lock().unwrap();
        if state.holder() == Some(holder) {
            return state.ends_at().filter(|end| now >= *end);
        }
        Some(state.ended.get(holder).copied().unwrap_or(Timestamp(i64::MIN)))
    }

    /// Until when all replicas were frozen last.
    pub(in super::super) fn frozen_until(&self) -> Timestamp {
        self.state.lock().unwrap().frozen_until
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
        let may_lose_release = state.renewed.age_at(now) > self.timing.retry_period() * 2;
        let (released, extension) = (None, Duration::ZERO);
        state.forced = Some(ForcedHandover { by, since: now, released, may_lose_release, extension });
    }

    /// Records that a call of this process to the store fails. The process waits for an answer at most, and then for the
    /// next look.
    pub(in super::super) fn record_failed_call(&self, holder: &HolderId) {
        let mut state = self.state.lock().unwrap();
        let is_leaders = state.leader.as_ref() == Some(holder);
        if let Some(forced) = &mut state.forced {
            forced.extension += self.timing.renew_deadline() / 2 + self.timing.retry_period();
            forced.may_lose_release |= is_leaders;
        }
    }

    /// Records that all replicas are frozen until then.
    pub(in super::super) fn record_freeze(&self, until: Timestamp) {
        self.state.lock().unwrap().frozen_until = until;
    }

    pub(in super::super) fn counts(&self) -> HandoverCounts {
        self.state.lock().unwrap().counts
    }

    pub(in super::super) fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().violations)
    }
}

impl LeaseRecordState {
    fn holder(&self) -> Option<&HolderId> {
        self.stored.as_ref()?.record.holder.as_ref()
    }

    /// When the lease ends that the record shows.
    fn ends_at(&self) -> Option<Timestamp> {
        let record = &self.stored.as_ref()?.record;
        record.holder.as_ref()?;
        Some(self.renewed.plus(record.duration))
    }

    fn store(&mut self, record: LeaseRecord, now: Timestamp) {
        let version = self.stored.as_ref().map_or(0, |stored| stored.version) + 1;
        self.stored = Some(StoredRecord { record, version });
        self.renewed = now;
    }

    /// Records that the holder's lease ends at `at` at the latest.
    fn record_end(&mut self, at: Timestamp) {
        if let (Some(holder), Some(end)) = (self.holder().cloned(), self.ends_at()) {
            self.ended.insert(holder, end.min(at));
        }
    }

    fn record_release(&mut self, writer: &HolderId, now: Timestamp) {
        self.record_end(now);
        let Some(forced) = self.forced.as_mut().filter(|forced| forced.by == ForcedBy::Stop) else { return };
        if self.leader.as_ref() != Some(writer) {
            return;
        }
        forced.released = Some(now);
        let (took, most) = (forced.since.age_at(now), SHUTDOWN + CALLS + forced.extension);
        self.counts.longest_to_release = self.counts.longest_to_release.max(took);
        if took > most {
            self.violations.push(format!("release after a stop took {took:?}, more than {most:?}"));
        }
    }

    fn record_acquisition(
        &mut self,
        writer: &HolderId,
        is_takeover: bool,
        timing: &LeaseTiming,
        healthy_since: Timestamp,
        now: Timestamp,
    ) {
        self.check_expiry(writer, now);
        self.record_end(now);
        let forced = self.forced.take();
        if !is_takeover {
            return;
        }
        let is_first = self.leader.replace(writer.clone()).is_none();
        self.counts.takeovers += u64::from(!is_first);
        let Some(forced) = forced else { return };
        self.counts.forced += 1;
        if healthy_since <= forced.since {
            self.check_time(&forced, timing, now);
        }
    }

    /// Checks the time of a takeover by a process that nothing but failed calls disturbed.
    fn check_time(&mut self, forced: &ForcedHandover, timing: &LeaseTiming, now: Timestamp) {
        let ForcedHandover { by, since, released, may_lose_release, extension } = *forced;
        let (waited, most) = match (by, released) {
            (ForcedBy::Stop, Some(released)) => {
                let waited = released.age_at(now);
                self.counts.timed_after_stop += 1;
                self.counts.longest_after_stop = self.counts.longest_after_stop.max(waited);
                (waited, timing.retry_period())
            }
            (ForcedBy::Stop, None) if !may_lose_release => {
                self.violations.push("a stop released nothing, although no call failed".to_owned());
                return;
            }
            (ForcedBy::Silence, _) => {
                let waited = since.age_at(now);
                self.counts.timed_after_silence += 1;
                self.counts.longest_after_silence = self.counts.longest_after_silence.max(waited);
                (waited, timing.lease_duration() + timing.retry_period())
            }
            (ForcedBy::Stop, None) | (ForcedBy::Freeze, _) => return,
        };
        let most = most + CALLS + extension;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(0).plus(Duration::from_secs(seconds))
    }

    /// A lease of 15 s, and its candidates.
    struct LeaseRecordFixture(SharedLeaseRecord);

    impl LeaseRecordFixture {
        /// Replica `a` has held the lease since 0 s.
        fn led_by_a() -> Self {
            let fixture = Self(SharedLeaseRecord::new(LeaseTiming::default(), at(0)));
            fixture.write(LeaseWriteKind::Acquire, "a", 0);
            fixture
        }

        fn write(&self, kind: LeaseWriteKind, name: &str, seconds: u64) {
            let (writer, stored) = (HolderId::recorded(name), self.0.read());
            let holder = (kind != LeaseWriteKind::Release).then(|| writer.clone());
            let duration = self.0.timing().lease_duration();
            let write = LeaseWrite {
                kind,
                writer,
                expected: stored.map(|stored| stored.version),
                record: LeaseRecord { holder, epoch: 1, duration },
            };
            assert!(self.0.write(&write, at(0), at(seconds)).is_some());
        }

        fn judge(&self, name: &str, seconds: u64) -> u64 {
            self.0.judge(&HolderId::recorded(name), &"a write", at(seconds));
            self.0.counts().deposed_writes
        }

        fn assert_violation(&self, message: Option<&str>) {
            let found = self.0.take_violations();
            match (message, &found[..]) {
                (None, []) => {}
                (Some(part), [one]) if one.contains(part) => {}
                _ => panic!("{message:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn write_without_the_lease_is_a_violation() {
        let fixture = LeaseRecordFixture::led_by_a();
        assert_eq!((fixture.judge("a", 14), fixture.judge("a", 15)), (0, 1));
        fixture.assert_violation(Some("its lease ended"));
        fixture.write(LeaseWriteKind::Renew, "a", 14);
        assert_eq!((fixture.judge("a", 15), fixture.judge("b", 15)), (1, 2));
        fixture.assert_violation(Some("a leads"));
        fixture.write(LeaseWriteKind::Release, "a", 16);
        assert_eq!(fixture.judge("a", 16), 3);
        fixture.assert_violation(Some("it has released the lease"));
    }

    #[test]
    fn lease_that_lasts_must_not_be_taken() {
        for (seconds, message) in [(14, Some("b takes the lease of a")), (15, None)] {
            let fixture = LeaseRecordFixture::led_by_a();
            fixture.write(LeaseWriteKind::Acquire, "b", seconds);
            fixture.assert_violation(message);
        }
    }

    #[test]
    fn clean_stop_must_release_in_time() {
        // By the time of the release.
        for (released, message) in [(10, None), (27, Some("release after a stop")), (26, None)] {
            let fixture = LeaseRecordFixture::led_by_a();
            fixture.0.record_forced(ForcedBy::Stop, at(0));
            fixture.write(LeaseWriteKind::Renew, "a", released - 1);
            fixture.write(LeaseWriteKind::Release, "a", released);
            fixture.write(LeaseWriteKind::Acquire, "b", released + 3);
            fixture.assert_violation(message);
            assert_eq!((fixture.0.counts().forced, fixture.0.counts().timed_after_stop), (1, 1));
        }
        // Without a release, by whether a call of the leader failed.
        for (failed, message) in [("b", Some("a stop released nothing")), ("a", None)] {
            let fixture = LeaseRecordFixture::led_by_a();
            fixture.0.record_forced(ForcedBy::Stop, at(0));
            fixture.0.record_failed_call(&HolderId::recorded(failed));
            fixture.write(LeaseWriteKind::Acquire, "b", 15);
            fixture.assert_violation(message);
        }
    }

    #[test]
    fn takeover_must_not_be_late() {
        // By the time of the takeover, and whether a call to the record failed.
        for (by, seconds, is_failed, message) in [
            (ForcedBy::Stop, 3, false, None),
            (ForcedBy::Stop, 4, false, Some("takeover after Stop")),
            (ForcedBy::Stop, 4, true, None),
            (ForcedBy::Silence, 18, false, None),
            (ForcedBy::Silence, 19, false, Some("takeover after Silence")),
            (ForcedBy::Silence, 25, true, None),
            (ForcedBy::Silence, 26, true, Some("takeover after Silence")),
        ] {
            let fixture = LeaseRecordFixture::led_by_a();
            fixture.0.record_forced(by, at(0));
            if by == ForcedBy::Stop {
                fixture.write(LeaseWriteKind::Release, "a", 0);
            }
            if is_failed {
                fixture.0.record_failed_call(&HolderId::recorded("b"));
            }
            fixture.write(LeaseWriteKind::Acquire, "b", seconds);
            fixture.assert_violation(message);
        }
    }

    #[test]
    fn lease_taken_by_another_forces_no_handover_by_itself() {
        let fixture = LeaseRecordFixture::led_by_a();
        fixture.0.record_forced(ForcedBy::Freeze, at(1));
        fixture.0.take_by_other(at(20));
        assert_eq!((fixture.0.counts().takeovers, fixture.0.counts().forced), (0, 0));
        let ended = |name: &str| fixture.0.ended(&HolderId::recorded(name), at(21));
        assert_eq!((ended("a"), ended("b")), (Some(at(15)), Some(Timestamp(i64::MIN))));
        fixture.write(LeaseWriteKind::Acquire, "a", 35);
        assert_eq!((fixture.0.counts().takeovers, fixture.0.counts().forced), (1, 1));
        assert_eq!(ended("a"), None);
        fixture.assert_violation(None);
    }
}
