//! The election as a state machine: no I/O, no clock, no randomness of its own.
//!
//! Safety rests on three rules, and on no comparison of two machines' clocks:
//!
//! - Every write is conditional on the version that was read last, so a lost or late write never overwrites another's.
//! - A leader's term counts from the moment **before** it sent the write that succeeded last.
//! - Where the observer judges, another candidate takes the lease only after the version has stood still for the lease
//!   duration on its own steady clock, counted from **after** the answer that showed it first.
//!
//! So the term has ended on the leader's clock before the earliest takeover on the candidate's clock, as long as both clocks
//! run at the same rate but for [`LeaseTiming::term`]'s margin. A freeze of either only adds to the distance.

use std::time::Duration;

use ecs_mesh_model::Timestamp;

use crate::record::{HolderId, LeaseRecord, LeaseWrite, LeaseWriteKind, StoredRecord};
use crate::timing::LeaseTiming;

/// How often a release is tried where the version is in doubt.
const MAX_RELEASES: u8 = 2;

/// The party that decides that a lease has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryJudge {
    /// Each candidate, by its own clock: the store keeps records and no time.
    Observer,
    /// The store, which then shows a record without holder.
    Store,
}

/// The role of a process in the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionRole {
    /// Another process leads, or none yet: standby.
    Follower,
    /// This process leads.
    Leader,
    /// This process has stopped and takes no part any more.
    Released,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElectionStep {
    /// Do nothing for that long.
    Wait(Duration),
    /// Read the record, then call [`Election::on_read`].
    Read,
    /// Write the record, then call [`Election::on_write`].
    Write(LeaseWrite),
    /// Nothing more is to be done.
    Done,
}

/// Why a leader leads no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseLoss {
    /// No renewal succeeded within the renew deadline.
    RenewDeadline,
    /// The record has another holder, or none.
    TakenOver,
}

impl LeaseLoss {
    /// A bounded label for metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::RenewDeadline => "renew_deadline",
            Self::TakenOver => "taken_over",
        }
    }
}

/// A change that a person wants to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElectionChange {
    /// This process leads now.
    Acquired {
        /// The epoch of its term.
        epoch: u64,
    },
    /// This process leads no more.
    Lost(LeaseLoss),
    /// Another process leads, or none.
    LeaderSeen(Option<HolderId>),
    /// The lease was released.
    Released,
}

/// One term of this process.
#[derive(Clone, Copy, Debug)]
struct OwnTerm {
    epoch: u64,
    /// The version of the last write known to have succeeded.
    version: u64,
    /// The moment before the last successful write was sent.
    renewed: Timestamp,
    /// A later write had no answer: the version may be another, written by this process.
    in_doubt: bool,
    /// Whether the record must be read before it is written again.
    reread: bool,
}

/// A term that the record may show although this process does not lead: its acquisition had no answer, or its renewals failed.
#[derive(Clone, Copy, Debug)]
struct UnreleasedTerm {
    epoch: u64,
    /// The version that a write without an answer expects. As long as the record has it, the write may still take effect.
    expected: Option<u64>,
}

impl OwnTerm {
    /// A term that the record shows, if a write without an answer has taken effect. It permits nothing but its release.
    fn in_doubt(epoch: u64) -> Self {
        Self { epoch, version: 0, renewed: Timestamp(i64::MIN), in_doubt: true, reread: true }
    }
}

#[derive(Clone, Copy, Debug)]
enum ElectionState {
    Follower,
    Leader(OwnTerm),
    /// The lease is being released.
    Releasing {
        term: OwnTerm,
        attempts: u8,
    },
    Released,
}

/// The record that was read last.
#[derive(Clone, Debug)]
struct ObservedRecord {
    stored: Option<StoredRecord>,
    /// After the answer that showed this version first.
    since: Timestamp,
}

/// One candidate.
#[derive(Debug)]
pub struct Election {
    holder: HolderId,
    timing: LeaseTiming,
    judge: ExpiryJudge,
    state: ElectionState,
    observed: Option<ObservedRecord>,
    /// When the next read or renewal is due.
    next_at: Timestamp,
    /// No acquisition before: the last one failed.
    acquire_at: Timestamp,
    unreleased: Option<UnreleasedTerm>,
}

impl Election {
    /// A candidate that has read nothing yet.
    pub fn new(holder: HolderId, timing: LeaseTiming, judge: ExpiryJudge) -> Self {
        Self {
            holder,
            timing,
            judge,
            state: ElectionState::Follower,
            observed: None,
            next_at: Timestamp(i64::MIN),
            acquire_at: Timestamp(i64::MIN),
            unreleased: None,
        }
    }

    /// This candidate's identity.
    pub fn holder(&self) -> &HolderId {
        &self.holder
    }

    /// The candidate's role.
    pub fn role(&self) -> ElectionRole {
        match self.state {
            ElectionState::Follower => ElectionRole::Follower,
            ElectionState::Leader(_) => ElectionRole::Leader,
            ElectionState::Releasing { .. } | ElectionState::Released => ElectionRole::Released,
        }
    }

    /// Until when this process may write; `None` if it does not lead.
    pub fn valid_until(&self) -> Option<Timestamp> {
        match &self.state {
            ElectionState::Leader(term) => Some(term.renewed.plus(self.timing.term())),
            _ => None,
        }
    }

    /// When the leader steps down unless a renewal succeeds.
    pub fn renew_by(&self) -> Option<Timestamp> {
        match &self.state {
            ElectionState::Leader(term) => Some(term.renewed.plus(self.timing.renew_deadline())),
            _ => None,
        }
    }

    /// Lets time pass: a leader without a renewal for the renew deadline steps down.
    pub fn tick(&mut self, now: Timestamp) -> Option<ElectionChange> {
        let deadline = self.renew_by()?;
        (now >= deadline).then(|| self.lose(LeaseLoss::RenewDeadline, now))
    }

    /// The next step. Call [`Self::tick`] before.
    pub fn next_step(&self, now: Timestamp) -> ElectionStep {
        match &self.state {
            ElectionState::Released => ElectionStep::Done,
            ElectionState::Releasing { term, .. } if term.reread => ElectionStep::Read,
            ElectionState::Releasing { term, .. } => {
                let record = LeaseRecord { holder: None, ..self.record(term.epoch) };
                self.write(LeaseWriteKind::Release, Some(term.version), record)
            }
            ElectionState::Leader(term) if term.reread && now >= self.next_at => ElectionStep::Read,
            ElectionState::Leader(term) if now >= self.next_at => {
                self.write(LeaseWriteKind::Renew, Some(term.version), self.record(term.epoch))
            }
            ElectionState::Leader(_) => ElectionStep::Wait(now.age_at(self.next_at)),
            ElectionState::Follower => self.next_of_follower(now),
        }
    }

    fn next_of_follower(&self, now: Timestamp) -> ElectionStep {
        let free_at = self.observed.as_ref().and_then(|observed| self.free_at(observed));
        let acquire_at = free_at.map(|at| at.max(self.acquire_at));
        if let (Some(at), Some(observed)) = (acquire_at, &self.observed)
            && now >= at
        {
            let (expected, epoch) = match &observed.stored {
                None => (None, 1),
                Some(StoredRecord { record, version }) if record.holder.as_ref() == Some(&self.holder) => {
                    (Some(*version), record.epoch)
                }
                Some(StoredRecord { record, version }) => (Some(*version), record.epoch.saturating_add(1)),
            };
            return self.write(LeaseWriteKind::Acquire, expected, self.record(epoch));
        }
        if now >= self.next_at {
            return ElectionStep::Read;
        }
        let next = acquire_at.map_or(self.next_at, |at| at.min(self.next_at));
        ElectionStep::Wait(now.age_at(next))
    }

    /// When the observed lease may be taken; `None` as long as another process holds it.
    fn free_at(&self, observed: &ObservedRecord) -> Option<Timestamp> {
        let Some(StoredRecord { record, .. }) = &observed.stored else { return Some(observed.since) };
        match (&record.holder, self.judge) {
            (None, _) => Some(observed.since),
            // An acquisition or renewal of this process whose answer was lost.
            (Some(holder), _) if *holder == self.holder => Some(observed.since),
            (Some(_), ExpiryJudge::Observer) => {
                // The holder may have been started with another duration.
                Some(observed.since.plus(record.duration.max(self.timing.lease_duration())))
            }
            (Some(_), ExpiryJudge::Store) => None,
        }
    }

    /// Records the result of a read, which was received at `now`. `random` (`0.0..1.0`) is for the jitter.
    pub fn on_read(
        &mut self,
        now: Timestamp,
        result: Option<Option<StoredRecord>>,
        random: f64,
    ) -> Option<ElectionChange> {
        self.next_at = now.plus(self.timing.jittered_retry(random));
        let Some(stored) = result else {
            // A release is not waited for: the lease expires by itself.
            return matches!(self.state, ElectionState::Releasing { .. }).then(|| self.released());
        };
        let before = self.leader_seen();
        if self.observed.as_ref().is_none_or(|observed| observed.stored != stored) {
            self.observed = Some(ObservedRecord { stored, since: now });
        }
        match self.state {
            ElectionState::Leader(term) => self.resolve_doubt(term, now),
            ElectionState::Releasing { term, attempts } => match self.own_version(term.epoch) {
                Some(version) => {
                    let term = OwnTerm { version, reread: false, ..term };
                    self.state = ElectionState::Releasing { term, attempts };
                    None
                }
                None => Some(self.released()),
            },
            _ => {
                let seen = self.leader_seen();
                let version = self.version_seen();
                if seen.as_ref() != Some(&self.holder) {
                    self.unreleased = self.unreleased.filter(|unreleased| unreleased.expected == version);
                }
                (seen != before && seen.as_ref() != Some(&self.holder))
                    .then_some(ElectionChange::LeaderSeen(seen))
            }
        }
    }

    /// A leader's version was in doubt and has been read.
    fn resolve_doubt(&mut self, term: OwnTerm, now: Timestamp) -> Option<ElectionChange> {
        let Some(version) = self.own_version(term.epoch) else {
            return Some(self.lose(LeaseLoss::TakenOver, now));
        };
        self.state = ElectionState::Leader(OwnTerm { version, in_doubt: false, reread: false, ..term });
        self.next_at = now;
        None
    }

    /// Records the result of a write that was sent after `sent`, and whose answer was received at `now`. `Some(Some(_))`: it
    /// succeeded, with the new version; `Some(None)`: its condition does not hold; `None`: unknown.
    pub fn on_write(
        &mut self,
        write: &LeaseWrite,
        (sent, now): (Timestamp, Timestamp),
        result: Option<Option<u64>>,
        random: f64,
    ) -> Option<ElectionChange> {
        let retry = self.timing.jittered_retry(random);
        match (self.state, write.kind) {
            (ElectionState::Follower, LeaseWriteKind::Acquire) => {
                self.on_acquire(write, (sent, now), result, retry)
            }
            (ElectionState::Leader(term), LeaseWriteKind::Renew) => match result {
                Some(Some(version)) => {
                    let renewed = OwnTerm { version, renewed: sent, in_doubt: false, reread: false, ..term };
                    self.state = ElectionState::Leader(renewed);
                    self.next_at = sent.plus(retry);
                    None
                }
                Some(None) if term.in_doubt => {
                    self.state = ElectionState::Leader(OwnTerm { reread: true, ..term });
                    self.next_at = now;
                    None
                }
                Some(None) => Some(self.lose(LeaseLoss::TakenOver, now)),
                None => {
                    self.state = ElectionState::Leader(OwnTerm { in_doubt: true, ..term });
                    self.next_at = now.plus(retry);
                    None
                }
            },
            (ElectionState::Releasing { term, attempts }, LeaseWriteKind::Release) => match result {
                Some(None) if term.in_doubt && attempts + 1 < MAX_RELEASES => {
                    let term = OwnTerm { reread: true, ..term };
                    self.state = ElectionState::Releasing { term, attempts: attempts + 1 };
                    None
                }
                _ => Some(self.released()),
            },
            // The answer to a write of an earlier state: the process has stepped down since.
            _ => None,
        }
    }

    #[allow(clippy::option_option)] // the three results of `on_write`
    fn on_acquire(
        &mut self,
        write: &LeaseWrite,
        (sent, now): (Timestamp, Timestamp),
        result: Option<Option<u64>>,
        retry: Duration,
    ) -> Option<ElectionChange> {
        let (epoch, expected) = (write.record.epoch, write.expected);
        if let Some(Some(version)) = result {
            let term = OwnTerm { epoch, version, renewed: sent, in_doubt: false, reread: false };
            self.state = ElectionState::Leader(term);
            self.unreleased = None;
            self.next_at = sent.plus(retry);
            return Some(ElectionChange::Acquired { epoch });
        }
        if result.is_none() {
            self.unreleased = Some(UnreleasedTerm { epoch, expected });
        }
        // Another candidate was faster, or the write may have succeeded: the record is read.
        self.acquire_at = now.plus(retry);
        self.next_at = if result.is_some() { now } else { now.plus(retry) };
        None
    }

    /// Begins to release the lease, also one that this process may have without knowing. This process does not lead from now
    /// on: call it once no write is in flight.
    pub fn release(&mut self) {
        self.state = match self.state {
            ElectionState::Leader(term) => {
                let term = OwnTerm { reread: false, ..term };
                ElectionState::Releasing { term, attempts: 0 }
            }
            ElectionState::Follower => match self.unreleased {
                Some(UnreleasedTerm { epoch, .. }) => {
                    ElectionState::Releasing { term: OwnTerm::in_doubt(epoch), attempts: 0 }
                }
                None => ElectionState::Released,
            },
            other => other,
        };
    }

    fn released(&mut self) -> ElectionChange {
        self.state = ElectionState::Released;
        ElectionChange::Released
    }

    fn lose(&mut self, loss: LeaseLoss, now: Timestamp) -> ElectionChange {
        if let (ElectionState::Leader(term), LeaseLoss::RenewDeadline) = (self.state, loss) {
            self.unreleased = Some(UnreleasedTerm { epoch: term.epoch, expected: Some(term.version) });
        }
        self.state = ElectionState::Follower;
        // An observation as a follower is older than the own term.
        self.observed = None;
        self.next_at = now;
        ElectionChange::Lost(loss)
    }

    /// The version of the record that was read, if it is this process's own of this epoch.
    fn own_version(&self, epoch: u64) -> Option<u64> {
        let StoredRecord { record, version } = self.observed.as_ref()?.stored.as_ref()?;
        (record.holder.as_ref() == Some(&self.holder) && record.epoch == epoch).then_some(*version)
    }

    /// The version of the record that was read last.
    fn version_seen(&self) -> Option<u64> {
        Some(self.observed.as_ref()?.stored.as_ref()?.version)
    }

    /// The holder in the record that was read last.
    fn leader_seen(&self) -> Option<HolderId> {
        self.observed.as_ref()?.stored.as_ref()?.record.holder.clone()
    }

    fn record(&self, epoch: u64) -> LeaseRecord {
        LeaseRecord { holder: Some(self.holder.clone()), epoch, duration: self.timing.lease_duration() }
    }

    fn write(&self, kind: LeaseWriteKind, expected: Option<u64>, record: LeaseRecord) -> ElectionStep {
        ElectionStep::Write(LeaseWrite { kind, writer: self.holder.clone(), expected, record })
    }
}
