//! Candidates with clocks of their own, over a simulated store and a network that delays and loses: two permits are never
//! valid at one time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ecs_mesh_model::Timestamp;

use crate::{
    Election, ElectionRole, ElectionStep, ExpiryJudge, HolderId, LeaseRecord, LeaseTiming, LeaseWrite,
    LeaseWriteKind, StoredRecord,
};

const CANDIDATES: usize = 4;
/// The clocks' rates differ by up to 0.5 %; [`LeaseTiming::term`] allows for 2 %.
const MAX_DRIFT_PPM: i64 = 2_500;
const CALL_TIMEOUT: i64 = 5_000;
/// In the longest run without a new leader, faults included.
const MAX_WITHOUT_LEADER: i64 = 240_000;

/// Milliseconds of the true time.
type Instants = i64;

enum SimStore {
    /// Records with versions, as DynamoDB keeps them.
    Records(Option<StoredRecord>),
    /// A lock, as Consul keeps it.
    Lock(SimLock),
}

/// Consul's lock of a key: sessions end between once and twice the TTL after their last renewal.
#[derive(Default)]
struct SimLock {
    record: Option<StoredRecord>,
    /// The session with the lock, and when it ends.
    session: Option<(HolderId, Instants)>,
    locked_until: Instants,
}

impl SimLock {
    const LOCK_DELAY: Instants = 15_000;

    /// Ends the session, with its lock-delay.
    fn end_session(&mut self, at: Instants) {
        self.session = None;
        self.locked_until = at + Self::LOCK_DELAY;
        if let Some(stored) = &mut self.record {
            stored.record.holder = None;
            stored.version += 1;
        }
    }

    fn expire(&mut self, now: Instants) {
        if let Some((_, ends)) = self.session.clone().filter(|(_, ends)| *ends <= now) {
            self.end_session(ends);
        }
    }

    fn write(&mut self, now: Instants, write: &LeaseWrite, random: f64) -> Option<u64> {
        self.expire(now);
        #[allow(clippy::cast_possible_truncation)] // At most 30,000.
        let ttl = 15_000 + (15_000.0 * random) as Instants;
        let is_own = self.session.as_ref().is_some_and(|(holder, _)| *holder == write.writer);
        match write.kind {
            LeaseWriteKind::Acquire if is_own || (self.session.is_none() && now >= self.locked_until) => {
                self.session = Some((write.writer.clone(), now + ttl));
                let version = self.record.as_ref().map_or(1, |stored| stored.version + 1);
                self.record = Some(StoredRecord { record: write.record.clone(), version });
            }
            LeaseWriteKind::Renew if is_own => self.session = Some((write.writer.clone(), now + ttl)),
            LeaseWriteKind::Release if is_own => {
                self.end_session(now);
                self.locked_until = now;
            }
            _ => return None,
        }
        Some(write.expected.unwrap_or(0))
    }
}

impl SimStore {
    fn judge(&self) -> ExpiryJudge {
        match self {
            Self::Records(_) => ExpiryJudge::Observer,
            Self::Lock(_) => ExpiryJudge::Store,
        }
    }

    fn read(&mut self, now: Instants) -> Option<StoredRecord> {
        match self {
            Self::Records(record) => record.clone(),
            Self::Lock(lock) => {
                lock.expire(now);
                lock.record.clone()
            }
        }
    }

    fn write(&mut self, now: Instants, write: &LeaseWrite, random: f64) -> Option<u64> {
        match self {
            Self::Records(stored) => {
                if stored.as_ref().map(|stored| stored.version) != write.expected {
                    return None;
                }
                if let Some(StoredRecord { record, .. }) = stored {
                    check_epoch(record, &write.record);
                }
                let version = write.expected.unwrap_or(0) + 1;
                *stored = Some(StoredRecord { record: write.record.clone(), version });
                Some(version)
            }
            Self::Lock(lock) => lock.write(now, write, random),
        }
    }
}

/// The epoch grows with each change of the holder.
fn check_epoch(before: &LeaseRecord, after: &LeaseRecord) {
    let is_other = after.holder.is_some() && after.holder != before.holder;
    assert!(
        if is_other { after.epoch > before.epoch } else { after.epoch == before.epoch },
        "{before:?} {after:?}"
    );
}

struct Candidate {
    election: Election,
    /// The rate and the origin of its clock.
    drift_ppm: i64,
    origin: i64,
    /// The lease as its writers see it.
    valid_until: Option<Timestamp>,
    /// Grows with each start of the process.
    start: u64,
    frozen_until: Instants,
    /// No request reaches the store before.
    cut_off_until: Instants,
    /// No answer comes back before.
    deaf_until: Instants,
    /// The open call.
    call: Option<u64>,
    acquired: u64,
}

impl Candidate {
    fn local(&self, now: Instants) -> Timestamp {
        Timestamp(self.origin + now + now * self.drift_ppm / 1_000_000)
    }

    fn may_write(&self, now: Instants) -> bool {
        self.valid_until.is_some_and(|until| until > self.local(now))
    }
}

#[derive(Clone)]
#[allow(clippy::option_option)] // the results of `Election::on_read` and `on_write`
enum Event {
    Wake,
    Arrive { call: u64, step: ElectionStep, sent: Timestamp },
    ReadAnswer { call: u64, result: Option<Option<StoredRecord>> },
    WriteAnswer { call: u64, write: LeaseWrite, sent: Timestamp, result: Option<Option<u64>> },
}

impl Event {
    /// Whether the event happens at the candidate, which may be frozen.
    fn is_local(&self) -> bool {
        !matches!(self, Self::Arrive { .. })
    }
}

struct Simulation {
    now: Instants,
    random: fastrand::Rng,
    store: SimStore,
    candidates: Vec<Candidate>,
    events: BTreeMap<(Instants, u64), (usize, u64, Event)>,
    last_event: u64,
    /// Chance of each fault of the network.
    noise: f64,
}

impl Simulation {
    fn new(seed: u64, store: SimStore, noise: f64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let judge = store.judge();
        let candidates = (0..CANDIDATES).map(|index| Candidate {
            election: Election::new(holder(index, 0), LeaseTiming::default(), judge),
            drift_ppm: random.i64(-MAX_DRIFT_PPM..=MAX_DRIFT_PPM),
            origin: random.i64(-1_000_000_000..1_000_000_000),
            valid_until: None,
            start: 0,
            frozen_until: 0,
            cut_off_until: 0,
            deaf_until: 0,
            call: None,
            acquired: 0,
        });
        let candidates: Vec<_> = candidates.collect();
        let mut simulation =
            Self { now: 0, random, store, candidates, events: BTreeMap::new(), last_event: 0, noise };
        (0..CANDIDATES).for_each(|index| simulation.schedule(index, 1, Event::Wake));
        simulation
    }

    fn schedule(&mut self, index: usize, delay: Instants, event: Event) {
        self.last_event += 1;
        let start = self.candidates[index].start;
        self.events.insert((self.now + delay.max(0), self.last_event), (index, start, event));
    }

    fn chance(&mut self, of: f64) -> bool {
        self.random.f64() < of
    }

    /// The delay of a message: mostly short, at times longer than any time-out.
    fn delay(&mut self) -> Instants {
        if self.chance(self.noise / 4.0) { self.random.i64(500..30_000) } else { self.random.i64(1..40) }
    }

    /// Runs the next event.
    fn step(&mut self) {
        let ((at, _), (index, start, event)) = self.events.pop_first().expect("candidates always have one");
        self.now = at;
        let candidate = &self.candidates[index];
        // The process that this concerned is gone. Its earlier requests still arrive.
        if event.is_local() {
            if candidate.start != start {
                return;
            }
            if candidate.frozen_until > at {
                let left = candidate.frozen_until - at;
                return self.schedule(index, left, event);
            }
        }
        match event {
            Event::Wake => self.run(index),
            Event::Arrive { call, step, sent } => self.arrive(index, start, call, step, sent),
            Event::ReadAnswer { call, result } => {
                if self.candidates[index].call == Some(call) {
                    let (local, random) = (self.local(index), self.random.f64());
                    self.candidates[index].call = None;
                    self.candidates[index].election.on_read(local, result, random);
                    self.run(index);
                }
            }
            Event::WriteAnswer { call, write, sent, result } => {
                if self.candidates[index].call == Some(call) {
                    let (local, random) = (self.local(index), self.random.f64());
                    self.candidates[index].call = None;
                    self.candidates[index].election.on_write(&write, (sent, local), result, random);
                    self.run(index);
                }
            }
        }
    }

    fn local(&self, index: usize) -> Timestamp {
        self.candidates[index].local(self.now)
    }

    /// The candidate's loop, up to its next call or wait.
    fn run(&mut self, index: usize) {
        let local = self.local(index);
        self.candidates[index].election.tick(local);
        self.publish(index);
        match self.candidates[index].election.next_step(local) {
            ElectionStep::Done => self.restart(index),
            ElectionStep::Wait(pause) => {
                let pause = i64::try_from(pause.as_millis()).unwrap().max(1);
                self.schedule(index, pause, Event::Wake);
            }
            step => self.call(index, step),
        }
    }

    fn call(&mut self, index: usize, step: ElectionStep) {
        let (call, sent) = (self.last_event + 1, self.local(index));
        self.candidates[index].call = Some(call);
        let by = self.candidates[index].election.renew_by().map(|by| sent.age_at(by).as_millis());
        let limit = by.map_or(CALL_TIMEOUT, |by| CALL_TIMEOUT.min(i64::try_from(by).unwrap()));
        let timed_out = match &step {
            ElectionStep::Write(write) => {
                Event::WriteAnswer { call, write: write.clone(), sent, result: None }
            }
            _ => Event::ReadAnswer { call, result: None },
        };
        let delay = self.delay();
        let is_lost = self.chance(self.noise) || self.candidates[index].cut_off_until > self.now;
        if !is_lost {
            self.schedule(index, delay, Event::Arrive { call, step, sent });
        }
        self.schedule(index, limit, timed_out);
    }

    /// A request reaches the store.
    fn arrive(&mut self, index: usize, start: u64, call: u64, step: ElectionStep, sent: Timestamp) {
        let is_refused = self.chance(self.noise);
        let (now, random) = (self.now, self.random.f64());
        let answer = match step {
            ElectionStep::Write(write) => {
                let result = (!is_refused).then(|| self.store.write(now, &write, random));
                Event::WriteAnswer { call, write, sent, result }
            }
            _ => Event::ReadAnswer { call, result: (!is_refused).then(|| self.store.read(now)) },
        };
        let delay = self.delay();
        let is_lost = self.chance(self.noise) || self.candidates[index].deaf_until > now;
        if !is_lost && self.candidates[index].start == start {
            self.schedule(index, delay, answer);
        }
    }

    /// Shows the candidate's writers what the election says, and checks the invariant: from here on a permit may be given.
    fn publish(&mut self, index: usize) {
        let (now, candidate) = (self.now, &mut self.candidates[index]);
        let led = candidate.valid_until.is_some();
        candidate.valid_until = candidate.election.valid_until();
        if !led && candidate.valid_until.is_some() {
            candidate.acquired += 1;
        }
        let writers: Vec<_> = (0..CANDIDATES).filter(|&one| self.candidates[one].may_write(now)).collect();
        assert!(writers.len() <= 1, "{writers:?} may write at {now}");
    }

    /// Ends the process, and starts another one.
    fn restart(&mut self, index: usize) {
        let judge = self.store.judge();
        let candidate = &mut self.candidates[index];
        candidate.start += 1;
        candidate.call = None;
        candidate.valid_until = None;
        candidate.frozen_until = 0;
        candidate.election = Election::new(holder(index, candidate.start), LeaseTiming::default(), judge);
        let delay = self.random.i64(1..10_000);
        self.schedule(index, delay, Event::Wake);
    }

    fn leader(&self) -> Option<usize> {
        self.candidates.iter().position(|one| one.may_write(self.now))
    }

    fn acquired(&self) -> u64 {
        self.candidates.iter().map(|one| one.acquired).sum()
    }

    fn run_until(&mut self, until: Instants) {
        while self.events.first_key_value().is_some_and(|((at, _), _)| *at <= until) {
            self.step();
        }
        self.now = until;
    }

    /// Runs until a term begins that is not one of the first `acquired`, and returns its holder.
    fn run_until_acquired(&mut self, acquired: u64) -> usize {
        let start = self.now;
        while self.acquired() <= acquired || self.leader().is_none() {
            self.step();
            assert!(self.now - start < MAX_WITHOUT_LEADER, "no leader since {start}");
        }
        self.leader().unwrap()
    }

    /// Takes the lease from the leader by a fault.
    fn force_handover(&mut self, leader: usize) {
        let until = self.now + self.random.i64(16_000..40_000);
        match self.random.u8(0..6) {
            0 => self.restart(leader),
            1 => self.candidates[leader].frozen_until = until,
            2 => self.candidates[leader].cut_off_until = until,
            3 => self.candidates[leader].deaf_until = until,
            4 => {
                self.candidates[leader].election.release();
                self.publish(leader);
            }
            _ => {
                // An administrator destroys the session at Consul. Records have none.
                match &mut self.store {
                    SimStore::Lock(lock) => lock.end_session(self.now),
                    SimStore::Records(_) => self.candidates[leader].frozen_until = until,
                }
            }
        }
    }

    fn run_handovers(&mut self, count: usize) {
        for _ in 0..count {
            let leader = self.run_until_acquired(0);
            let pause = self.now + self.random.i64(0..8_000);
            self.run_until(pause);
            let before = self.acquired();
            // The leader may have lost the lease by itself.
            if let Some(leader) = self.leader() {
                self.force_handover(leader);
            }
            // Freezes of others, short and long, at any moment.
            if self.chance(0.3) {
                let other = (leader + 1) % CANDIDATES;
                self.candidates[other].frozen_until = self.now + self.random.i64(1..30_000);
            }
            self.run_until_acquired(before);
        }
    }
}

fn holder(index: usize, start: u64) -> HolderId {
    HolderId::recorded(format!("c{index}.{start}"))
}

/// Seed, and store.
fn run(seed: u64, store: SimStore) {
    let started = Instant::now();
    let mut simulation = Simulation::new(seed, store, 0.04);
    simulation.run_handovers(1_000);
    let each = started.elapsed() / 1_000;
    assert!(each < Duration::from_millis(20), "{each:?} for each handover");
}

#[test]
fn thousand_handovers_over_records_have_one_writer_at_a_time() {
    run(1, SimStore::Records(None));
}

#[test]
fn thousand_handovers_over_a_lock_have_one_writer_at_a_time() {
    run(2, SimStore::Lock(SimLock::default()));
}

/// The time from the fault to the next leader, without noise.
fn takeover(seed: u64, store: SimStore, fault: impl Fn(&mut Simulation, usize)) -> Instants {
    let mut simulation = Simulation::new(seed, store, 0.0);
    let leader = simulation.run_until_acquired(0);
    let pause = simulation.now + simulation.random.i64(3_000..9_000);
    simulation.run_until(pause);
    let before = simulation.acquired();
    fault(&mut simulation, leader);
    let start = simulation.now;
    simulation.run_until_acquired(before);
    simulation.now - start
}

fn release(simulation: &mut Simulation, leader: usize) {
    // The loop ends a renewal first.
    while simulation.candidates[leader].call.is_some() {
        simulation.step();
    }
    simulation.candidates[leader].election.release();
    simulation.run(leader);
}

#[test]
fn takeover_needs_one_retry_after_a_release_and_a_lease_more_after_a_crash() {
    let most = |fault: fn(&mut Simulation, usize), store: fn() -> SimStore| {
        (0..100).map(|seed| takeover(seed, store(), fault)).max().unwrap()
    };
    let records = || SimStore::Records(None);
    let lock = || SimStore::Lock(SimLock::default());
    // Messages need up to 40 ms, and clocks drift.
    let slack = 300;
    assert!(most(release, records) <= 2_000 + slack);
    assert!(most(release, lock) <= 2_000 + slack);
    assert!(most(Simulation::restart, records) <= 15_000 + 2_000 + slack);
    assert!(most(Simulation::restart, lock) <= 2 * 15_000 + 15_000 + 2_000 + slack);
}

#[test]
fn leader_keeps_the_lease_while_the_store_answers() {
    let mut simulation = Simulation::new(3, SimStore::Records(None), 0.0);
    let leader = simulation.run_until_acquired(0);
    simulation.run_until(3_600_000);
    assert_eq!((simulation.leader(), simulation.acquired()), (Some(leader), 1));
    assert_eq!(simulation.candidates[leader].election.role(), ElectionRole::Leader);
}
