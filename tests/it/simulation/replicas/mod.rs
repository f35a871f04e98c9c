//! Lives with two replicas of one operator, which share a lease. Real elections choose the one that writes. The leader is
//! killed, stopped, frozen, hung, or cut off from the lease's store; the store fails, before or after a write takes effect;
//! the wall clock of one machine jumps. No write may arrive from a replica whose lease may have ended (I7), and all else
//! holds across takeovers as well.
//!
//! Time limits of registrations and protections are off while a fault may keep the replicas from acting, which is a fixed time
//! for the worst case. Where handovers are forced every few seconds, they are nearly always off.

mod lease_record;
mod reads;
mod replica;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ecs_mesh_control_plane::http::{HttpMethod, TransportErrorKind};
use ecs_mesh_controller::{Heartbeat, Lease};
use ecs_mesh_lease::{Elector, LeaseTiming};
use ecs_mesh_operator::operator::{Replicas, StandbyReads};
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance};
use tokio_util::sync::CancellationToken;

use super::driver::{Driver, RunningOperator, Scenario, in_a_while};
use super::env::{START, SimEnv, SimReport};
use super::faults::SimFault;
use super::two_operators;
use lease_record::ForcedBy;
use replica::{ReplicaLease, SimLeaseStore, SimReplica};

pub(super) use lease_record::{HandoverCounts, SharedLeaseRecord, TakeoverHook};

/// Replicas of a life.
pub(super) const COUNT: u64 = 2;

/// Seeds from here on have replicas whose lease is short and often taken from the leader.
pub(super) const HANDOVERS: u64 = 1 << 40;

/// How often a life with replicas forces a handover, in seconds.
const PAUSE: Range<u64> = 20..90;
const SHORT_PAUSE: Range<u64> = 11..16;

/// How long after the end of a fault of the replicas the leader may be behind.
const RECOVERY: Duration = Duration::from_secs(10);

/// The lease of a life that has replicas. Not by a draw, so that other lives do not depend on it. Deployments are held in
/// some of these lives, and none has two operators.
pub(super) fn of_life(seed: u64) -> Option<SharedLeaseRecord> {
    let timing = if seed >= HANDOVERS {
        let [lease, deadline] = [10, 6].map(Duration::from_secs);
        LeaseTiming::new(lease, deadline, Duration::from_millis(500)).unwrap()
    } else {
        LeaseTiming::default()
    };
    are_in(seed).then(|| SharedLeaseRecord::new(timing, START))
}

/// Whether a life has replicas.
pub(super) fn are_in(seed: u64) -> bool {
    (seed >= HANDOVERS || (seed / 5) % 5 == 3) && !two_operators::are_in(seed)
}

/// The seeds of lives whose lease is often taken from the leader.
pub(super) fn handover_lives() -> impl Iterator<Item = u64> {
    (HANDOVERS..).filter(|seed| are_in(*seed))
}

/// A replica that runs, and its lease.
pub(super) struct RunningReplica {
    pub(super) replica: Arc<SimReplica>,
    pub(super) lease: Arc<dyn Lease>,
}

/// Sends a request of a process to a control plane: of one of several replicas, or of the only one.
pub(super) async fn send<T: Send + 'static>(
    env: &SimEnv,
    replica: Option<&RunningReplica>,
    (method, path, has_body): (HttpMethod, &str, bool),
    timeout: Duration,
    exchange: impl Future<Output = T> + Send + 'static,
) -> Result<T, TransportErrorKind> {
    let Some(RunningReplica { replica, lease }) = replica else {
        if method.writes() {
            env.must_hold_the_lease(&format_args!("{method} {path}"));
        }
        return Ok(exchange.await);
    };
    replica.resumed().await;
    if !method.writes() {
        let answer = exchange.await;
        replica.resumed().await;
        return Ok(answer);
    }
    let sent = replica.send_write(&**lease, timeout, has_body, exchange).await;
    sent.map_err(TransportErrorKind::Obstructed)?.ok_or(TransportErrorKind::Broken)
}

/// A replica's part in the election.
pub(super) struct RunningCandidate {
    pub(super) running: Arc<RunningReplica>,
    pub(super) replicas: Replicas,
    stop: CancellationToken,
    elector: JoinHandle<()>,
}

impl RunningCandidate {
    fn start(name: &str, env: &Arc<SimEnv>, lease_record: &Arc<SharedLeaseRecord>, seed: u64) -> Self {
        let replica = SimReplica::new(name, env, lease_record);
        let (holder, clock) = (replica.holder.clone(), replica.clock.clone());
        let elector =
            Elector::new(SimLeaseStore(Arc::clone(&replica)), holder, lease_record.timing(), clock, seed);
        let election = elector.handle();
        let lease = Arc::new(ReplicaLease { election: election.clone(), env: Arc::clone(env) });
        let stop = CancellationToken::new();
        let elector = tokio::spawn(elector.run(Heartbeat::default(), stop.clone()));
        let replicas = Replicas { election, reads: StandbyReads::default() };
        Self { running: Arc::new(RunningReplica { replica, lease }), replicas, stop, elector }
    }

    fn replica(&self) -> &Arc<SimReplica> {
        &self.running.replica
    }
}

/// The faults of the replicas of one life.
pub(super) struct ReplicaFaults {
    lease_record: Arc<SharedLeaseRecord>,
    /// Of its own, so that the rest of a life does not depend on it.
    rng: fastrand::Rng,
    pause: Range<u64>,
    next: Instant,
    /// When a process starts in the place of one that has ended.
    replacements: Vec<Instant>,
    started: u64,
}

impl ReplicaFaults {
    pub(super) fn of_life(seed: u64, env: &SimEnv) -> Option<Self> {
        let lease_record = Arc::clone(env.lease_record.as_ref()?);
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x1EA5_E000);
        let pause = if seed >= HANDOVERS { SHORT_PAUSE } else { PAUSE };
        let next = in_a_while(&mut rng, pause.clone());
        Some(Self { lease_record, rng, pause, next, replacements: Vec::new(), started: 0 })
    }

    /// The number of processes that have started.
    pub(super) fn started(&self) -> u64 {
        self.started
    }

    /// A time that is longer than the lease.
    fn longer_than_lease(&mut self) -> Duration {
        let lease = self.lease_record.timing().lease_duration();
        lease + Duration::from_millis(self.rng.u64(1_000..20_000))
    }
}

impl<S: Scenario> Driver<S> {
    /// Starts the processes of the operator.
    pub(super) fn start_operators(&mut self) {
        let Some(faults) = &self.replicas else { return self.start_operator(None) };
        faults.lease_record.on_takeover(self.scenario.takeover_hook());
        (0..COUNT).for_each(|_| self.start_replica());
    }

    fn start_replica(&mut self) {
        let Some(faults) = &mut self.replicas else { return };
        faults.started += 1;
        let (env, name) = (self.scenario.env(), format!("replica-{}", faults.started));
        let candidate =
            RunningCandidate::start(&name, env, &faults.lease_record, self.seed.wrapping_add(faults.started));
        let holder = candidate.replica().holder.clone();
        self.start_operator(Some(candidate));
        self.scenario.on_replica_start(&holder);
        self.set_clocks();
    }

    /// Sets the clocks that may be stepped: those of the replicas that run.
    fn set_clocks(&self) {
        let clock = |running: &RunningOperator| Some(running.candidate.as_ref()?.replica().clock.clone());
        self.scenario.env().set_clocks(self.operators.iter().filter_map(clock).collect());
    }

    /// The index of the replica that leads, or led last.
    fn leader(&self) -> Option<usize> {
        let leader = self.replicas.as_ref()?.lease_record.last_leader()?;
        self.operators.iter().position(|running| {
            running.candidate.as_ref().is_some_and(|candidate| candidate.replica().holder == leader)
        })
    }

    /// The process whose state is checked: the one that leads.
    pub(super) fn acting_operator(&self) -> Option<&RunningOperator> {
        match &self.replicas {
            None => self.operators.first(),
            Some(_) => self.leader().map(|index| &self.operators[index]),
        }
    }

    /// Kills the process that acts, and starts another one.
    pub(super) fn restart_operator(&mut self) {
        self.report.restarts += 1;
        let env = Arc::clone(self.scenario.env());
        if self.replicas.is_none() {
            self.operators.drain(..).for_each(|running| running.task.abort());
            self.scenario.on_restart();
            env.record_other_process(|| "restart".to_owned());
            return self.start_operator(None);
        }
        if let Some(index) = self.leader() {
            self.kill_replica(index);
        }
    }

    fn kill_replica(&mut self, index: usize) {
        let running = self.operators.remove(index);
        running.task.abort();
        let Some(candidate) = &running.candidate else { return };
        candidate.elector.abort();
        let holder = &candidate.replica().holder;
        self.scenario.env().record(|| format!("{holder} is killed"));
        self.scenario.on_kill();
        self.after_end(ForcedBy::Silence);
    }

    /// Stops a replica as SIGTERM does: the operator finishes, then the lease is released.
    fn stop_replica(&mut self, index: usize) {
        let running = self.operators.remove(index);
        running.stop.cancel();
        let Some(candidate) = running.candidate else { return };
        let (env, holder) = (Arc::clone(self.scenario.env()), candidate.replica().holder.clone());
        env.record(|| format!("{holder} is stopped"));
        tokio::spawn(async move {
            let _ = running.task.await;
            candidate.stop.cancel();
            let _ = candidate.elector.await;
            env.record(|| format!("{holder} has ended"));
        });
        self.after_end(ForcedBy::Stop);
    }

    fn after_end(&mut self, by: ForcedBy) {
        self.set_clocks();
        let now = self.scenario.env().now();
        let Some(faults) = &mut self.replicas else { return };
        faults.lease_record.record_forced(by, now);
        let lease = faults.lease_record.timing().lease_duration();
        faults.replacements.push(in_a_while(&mut faults.rng, 0..10));
        self.scenario.env().disturb_until(now.plus(lease + RECOVERY));
    }

    /// Lets the faults of the replicas strike.
    pub(super) async fn disturb_replicas(&mut self) {
        let Some(faults) = &mut self.replicas else { return };
        let due = faults.replacements.iter().filter(|at| Instant::now() >= **at).count();
        faults.replacements.retain(|at| Instant::now() < *at);
        let strikes = Instant::now() >= faults.next && faults.replacements.is_empty();
        (0..due).for_each(|_| self.start_replica());
        self.check_reads();
        if strikes {
            self.force_handover().await;
        }
    }

    async fn force_handover(&mut self) {
        let (env, leader) = (Arc::clone(self.scenario.env()), self.leader());
        let now = env.now();
        let Some(faults) = &mut self.replicas else { return };
        // Only a leader is deposed. The one before may still hang, and then faults overlap.
        if faults.lease_record.leader(now).is_none() {
            return;
        }
        let Some(leader) = leader else { return };
        faults.next = in_a_while(&mut faults.rng, faults.pause.clone());
        let lasts = faults.longer_than_lease();
        let kind = faults.rng.u8(..12);
        let hangs = faults.rng.bool();
        let until = now.plus(lasts);
        let fault = match kind {
            0..2 => SimFault::LeaderKilled,
            2..4 => SimFault::LeaderStopped,
            4..6 => SimFault::LeaderHangs,
            6..8 => SimFault::LeaderCutOff,
            8..10 => return self.freeze(lasts, hangs).await,
            _ => return self.disturb_standby(leader, lasts, hangs),
        };
        let replica =
            self.operators[leader].candidate.as_ref().map(|candidate| Arc::clone(candidate.replica()));
        let Some(replica) = replica else { return };
        env.faults.count(fault);
        env.record(|| format!("{fault:?}: {} for {lasts:?}", replica.holder));
        match fault {
            SimFault::LeaderKilled => self.kill_replica(leader),
            SimFault::LeaderStopped => self.stop_replica(leader),
            SimFault::LeaderHangs => {
                replica.hang_until(until);
                faults.lease_record.record_forced(ForcedBy::Silence, now);
                env.disturb_until(until.plus(RECOVERY));
            }
            _ => {
                replica.cut_off_until(until, hangs);
                faults.lease_record.record_forced(ForcedBy::Silence, now);
                env.disturb_until(until.plus(RECOVERY));
            }
        }
    }

    fn disturb_standby(&mut self, leader: usize, lasts: Duration, hangs: bool) {
        let env = Arc::clone(self.scenario.env());
        let standby = self.operators.iter().enumerate().find(|(index, _)| *index != leader);
        let Some(candidate) = standby.and_then(|(_, running)| running.candidate.as_ref()) else { return };
        let replica = Arc::clone(candidate.replica());
        env.faults.count(SimFault::StandbyDisturbed);
        env.record(|| format!("{} is disturbed for {lasts:?}, hangs {hangs}", replica.holder));
        let until = env.now().plus(lasts);
        if hangs {
            replica.hang_until(until);
        } else {
            let hangs = self.replicas.as_mut().is_some_and(|faults| faults.rng.bool());
            replica.cut_off_until(until, hangs);
        }
    }

    /// Lets time pass in which no replica runs, as long as no bytes of a write are on their way. A process that wakes up has
    /// not been polled: nothing but its clock says that its lease has ended, and another process may lead.
    async fn freeze(&mut self, lasts: Duration, is_taken: bool) {
        let is_writing = |running: &RunningOperator| {
            running.candidate.as_ref().is_some_and(|candidate| candidate.replica().is_writing())
        };
        let env = Arc::clone(self.scenario.env());
        let Some(faults) = &mut self.replicas else { return };
        if self.operators.iter().any(is_writing) {
            faults.next = Instant::now();
            return;
        }
        let (now, lease_record) = (env.now(), Arc::clone(&faults.lease_record));
        env.faults.count(SimFault::LeaderFrozen);
        env.record(|| format!("all replicas are frozen for {lasts:?}, another takes the lease: {is_taken}"));
        lease_record.record_forced(ForcedBy::Freeze, now);
        let woken = now.plus(lasts);
        env.disturb_until(woken.plus(lease_record.timing().lease_duration() + RECOVERY));
        lease_record.record_freeze(woken);
        if is_taken {
            lease_record.take_by_other(woken);
        }
        advance(lasts).await;
    }

    /// Checks that the replicas together keep to the rates.
    fn check_reads(&mut self) {
        let now = self.scenario.env().now();
        let counts: Vec<usize> = self
            .operators
            .iter()
            .filter_map(|running| Some(running.candidate.as_ref()?.replica().reads.count(now)))
            .collect();
        let (all, most) = (counts.iter().sum::<usize>(), reads::most(self.rates.ecs, counts.len()));
        self.report.most_reads = self.report.most_reads.max(all);
        if all > most {
            self.report.violations.push(format!("{all} reads of tasks within a minute, more than {most}"));
        }
    }

    /// Ends the faults of the replicas, so that two of them run.
    pub(super) fn end_replica_faults(&mut self) {
        let Some(faults) = &mut self.replicas else { return };
        let due = std::mem::take(&mut faults.replacements).len();
        (0..due).for_each(|_| self.start_replica());
        for candidate in self.operators.iter().filter_map(|running| running.candidate.as_ref()) {
            candidate.replica().recover();
        }
    }

    /// Fills in the report, after the end.
    pub(super) fn finish_replicas(&mut self) {
        for running in self.operators.drain(..) {
            running.task.abort();
            running.candidate.iter().for_each(|candidate| candidate.elector.abort());
        }
        if let Some(faults) = &self.replicas {
            self.report.has_replicas = true;
            self.report.handovers = faults.lease_record.counts();
            self.report.violations.append(&mut faults.lease_record.take_violations());
        }
    }
}

/// The counts of many lives.
pub(super) fn total(reports: &[(u64, SimReport)]) -> HandoverCounts {
    let mut total = HandoverCounts::default();
    reports.iter().for_each(|(_, report)| total.add(report.handovers));
    total
}
