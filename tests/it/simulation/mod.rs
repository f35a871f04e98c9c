//! Simulation: the real operator over a simulated AWS and control plane, with a paused clock and faults drawn from a
//! seed. The oracle checks each write against the world's truth. After the settle phase nothing may be left over, and
//! nothing may be written.
//!
//! At Kuma the operator registers tasks; at Consul tasks register themselves. Data plane tokens have lives of their own.
//! `SIM_SEEDS=5000 cargo test --test it simulation -- --nocapture` runs seeds 0 to 4999 of both,
//! `SIM_FIRST=17 SIM_SEEDS=1 …` replays seed 17.

mod aws;
mod consul;
mod deleted_cluster;
mod driver;
mod env;
mod faults;
mod held_deployments;
mod kuma_transport;
mod life;
mod manifest_sources;
mod members;
mod owners;
mod replicas;
mod tokens;
mod two_operators;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ecs_mesh_operator::operator::ReadRates;
use env::SimReport;
use faults::SimFault;

/// Seeds that found defects. They run every time.
const REGRESSIONS: &[u64] = &[
    2,       // a document of an incomplete set at the start left, and did not settle
    23,      // a read of the version lay between the check of the lease and the write
    164, // the oracle took a registration for ready that had become so between the operator's read and its write
    70783, // a sidecar without a connection to the control plane was taken for one that serves no clients
    90145, // a drain for stopping counted on registrations that were being drained for their role
    90289, // the same
    228, // repeated writes of a rolling upgrade did not check the lease
    151_562, // an upgrade at once looked like a rolling one for a while, and a write was repeated
    101_378, // a drain was sent seconds after it was permitted, when its replacements were drained
    101_535, // the same
    120_435, // the oracle blamed a drain in flight for the drains of a revoked role
    122_105, // the oracle took registrations for ready whose revocation had just been undone
    141_793, // an incomplete set replaced another that had more documents, which the loader never does
    110_829, // the last ready registration was drained by an event alone, once its hold was over
    71460, // the oracle took a new registration for ready since the one before it under the same name was
    24,  // two tasks that want one name at a time each found it free
    70,  // the same, at a restart
    110, // a guarded removal with a lost response that was then no longer desired was not counted
    20234, // a registration drained for a stop was held by the guard, and its host name with it
    21412, // the same
    20325, // unconfirmed creates did not count as owned, and the guard was off at its floor
    32725, // the oracle judged drains of a small fleet by what was registered later
    50823, // the same, where the first attempt to drain had failed
    60262, // the same, where the fleet reached the floor for milliseconds
    401, // a step of the clock made the operator forget which protections it had set
    60463, // two wrong MISSING answers 20 s apart after a forged stop
];

fn number(name: &str, default: u64) -> u64 {
    given_number(name).unwrap_or(default)
}

/// The number in a variable, if it is set.
fn given_number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// Runs seeds on all cores, each on one thread.
fn run_all(seeds: &[u64], run: fn(u64) -> SimReport) -> Vec<(u64, SimReport)> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let began = std::time::Instant::now();
    let chunks: Vec<Vec<u64>> =
        (0..threads).map(|n| seeds.iter().skip(n).step_by(threads).copied().collect()).collect();
    let mut reports: Vec<(u64, SimReport)> = std::thread::scope(|scope| {
        let handles: Vec<_> = chunks
            .into_iter()
            .map(|chunk| {
                // Thousands of histories would fill the memory.
                let without_history = move |seed| SimReport { history: Vec::new(), ..run(seed) };
                scope.spawn(move || {
                    chunk.into_iter().map(|seed| (seed, without_history(seed))).collect::<Vec<_>>()
                })
            })
            .collect();
        handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect()
    });
    reports.sort_by_key(|(seed, _)| *seed);
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    #[allow(clippy::cast_precision_loss)] // a few thousand
    let rate = reports.len() as f64 / minutes;
    println!("{} lives in {minutes:.1} min on {threads} threads: {rate:.0} a minute", reports.len());
    reports
}

/// The seeds to run: those that the environment selects, and the regressions.
fn seeds(default: u64, regressions: &[u64]) -> Vec<u64> {
    let first = number("SIM_FIRST", 0);
    let mut seeds: Vec<u64> = (first..first + number("SIM_SEEDS", default)).collect();
    if std::env::var_os("SIM_FIRST").is_none() {
        seeds.extend(regressions.iter().filter(|seed| !seeds.contains(seed)).copied().collect::<Vec<_>>());
    }
    seeds
}

/// Number of runs in which each kind of fault must occur, and enough must happen.
const MANY: usize = 30;

/// Number of faults by kind, and of operator reads while each foreign fixture existed.
fn struck(reports: &[(u64, SimReport)], kinds: &[SimFault]) -> BTreeMap<String, u64> {
    let mut all: BTreeMap<String, u64> = kinds.iter().map(|kind| (format!("{kind:?}"), 0)).collect();
    for (_, report) in reports {
        let faults = report.faults.iter().map(|(kind, count)| (format!("{kind:?}"), count));
        let fixture_observations =
            report.fixture_observations.iter().map(|(what, count)| ((*what).to_owned(), count));
        for (what, count) in faults.chain(fixture_observations) {
            *all.entry(what).or_default() += count;
        }
    }
    all
}

/// Checks that the runs have no violation and enough activity.
fn assert_runs(kind: &str, reports: &[(u64, SimReport)], kinds: &[SimFault]) {
    let mut failures = String::new();
    for (seed, report) in reports.iter().filter(|(_, report)| !report.violations.is_empty()) {
        writeln!(
            failures,
            "{kind} seed {seed}: SIM_FIRST={seed} SIM_SEEDS=1 cargo test --test it simulation::{kind}::invariants_hold_for_every_seed -- --nocapture"
        )
        .unwrap();
        for message in report.violations.iter().take(6) {
            writeln!(failures, "    {message}").unwrap();
        }
    }
    let total = |what: fn(&SimReport) -> u64| reports.iter().map(|(_, report)| what(report)).sum::<u64>();
    println!(
        "{} runs at {kind}: {} tasks, {} joined, {} removed, {} restarts, {} faults",
        reports.len(),
        total(|e| e.tasks),
        total(|e| e.created),
        total(|e| e.removed),
        total(|e| e.restarts),
        total(|e| e.faults.values().sum()),
    );
    let most = |calls: fn(&SimReport) -> u64| reports.iter().map(|(_, report)| calls(report)).max();
    let (ecs, mesh) = (most(|e| e.silent_calls.0), most(|e| e.silent_calls.1));
    println!("in the quiet phase at most {ecs:?} calls to ECS and {mesh:?} to the control plane");
    let struck = struck(reports, kinds);
    for (what, count) in &struck {
        println!("{count:>7} {what}");
    }
    assert!(failures.is_empty(), "{failures}");
    // Runs with little activity prove little. A single one may have little.
    if reports.len() >= MANY {
        assert!(total(|e| e.created) > 10 * reports.len() as u64, "hardly anything was registered");
        assert!(total(|e| e.removed) > 3 * reports.len() as u64, "hardly anything was removed");
        let never: Vec<_> = struck.iter().filter(|(_, count)| **count == 0).map(|(what, _)| what).collect();
        assert!(never.is_empty(), "never struck: {never:?}");
    }
}

/// Checks that a seed gives the same history twice.
fn replays(seed: u64, run: fn(u64) -> SimReport) {
    let (once, again) = (run(seed), run(seed));
    let differs = once.history.iter().zip(&again.history).position(|(a, b)| a != b);
    let where_to = differs.map(|n| (&once.history[n], &again.history[n]));
    assert_eq!(differs, None, "seed {seed} differs: {where_to:?}");
    assert_eq!(once.history.len(), again.history.len(), "seed {seed}");
    assert!(once.history.len() > 500, "seed {seed} hardly did anything");
}

/// Prints the counts of handovers, and checks that the faults of replicas struck where enough lives have replicas.
fn add_replica_faults(reports: &[(u64, SimReport)], kinds: &mut Vec<SimFault>) {
    let total = replicas::total(reports);
    let with_replicas = reports.iter().filter(|(_, report)| report.has_replicas).count();
    println!("{with_replicas} lives with replicas: {total:?}");
    if with_replicas >= MANY {
        kinds.extend(SimFault::OF_REPLICAS);
    }
}

mod kuma {
    /// Enough for a thousand forced handovers.
    const HANDOVER_LIVES: u64 = 120;
    #[test]
    fn invariants_hold_for_every_seed() {
        let reports = super::run_all(&super::seeds(200, super::REGRESSIONS), super::life::run);
        let mut kinds = super::SimFault::at_kuma();
        if reports.len() >= super::MANY * super::held_deployments::ONE_IN {
            kinds.extend(super::SimFault::WHILE_HELD);
        }
        super::add_replica_faults(&reports, &mut kinds);
        super::assert_runs("kuma", &reports, &kinds);
        let total = |what: fn(&super::SimReport) -> u64| reports.iter().map(|(_, report)| what(report)).sum();
        let (protected, cleared): (u64, u64) = (total(|e| e.holds.protected), total(|e| e.holds.cleared));
        let kept: u64 = total(|e| e.holds.kept);
        println!(
            "{protected} old tasks protected, {cleared} cleared, {kept} undisturbed deployments kept endpoints"
        );
        let confined = total(|e| e.confined);
        println!("{confined} checks of one account while another one failed");
        assert!(
            reports.len() < super::MANY * 5 || confined > 0,
            "no account failed while another one was checked"
        );
        let enough = protected > 0 && cleared > 0 && kept > 0;
        assert!(
            reports.len() < super::MANY * super::held_deployments::ONE_IN || enough,
            "hardly any deployment was held"
        );
    }

    /// The seeds of the lives: `SIM_HANDOVER_LIVES` of them, or `SIM_HANDOVER_SEED`, which an earlier run printed.
    fn handover_seeds() -> Vec<u64> {
        let lives = super::given_number("SIM_HANDOVER_LIVES");
        let Some(seed) = super::given_number("SIM_HANDOVER_SEED") else {
            let lives = lives.unwrap_or(HANDOVER_LIVES);
            return (0..lives).zip(super::replicas::handover_lives()).map(|(_, seed)| seed).collect();
        };
        assert!(lives.is_none(), "SIM_HANDOVER_LIVES and SIM_HANDOVER_SEED exclude each other");
        let first = super::replicas::HANDOVERS;
        assert!(seed >= first, "SIM_HANDOVER_SEED={seed}: seeds of handovers begin at {first}");
        vec![seed]
    }

    /// Lives whose lease is short and taken from the leader again and again.
    #[test]
    fn deposed_leaders_write_nothing() {
        let seeds = handover_seeds();
        let reports = super::run_all(&seeds, super::life::run);
        let total = super::replicas::total(&reports);
        println!("{total:?}");
        let failed: Vec<_> = reports.iter().filter(|(_, report)| !report.violations.is_empty()).collect();
        for (seed, report) in &failed {
            println!("SIM_HANDOVER_SEED={seed}: {:#?}", report.violations.iter().take(6).collect::<Vec<_>>());
        }
        assert!(failed.is_empty(), "{} lives have violations", failed.len());
        assert_eq!(total.deposed_writes, 0);
        if seeds.len() as u64 >= HANDOVER_LIVES {
            assert!(reports.iter().all(|(_, report)| report.has_replicas), "a life has no replicas");
            assert!(total.forced >= 1_000, "too few handovers: {total:?}");
            assert!(total.writes >= 10_000, "too few writes were judged: {total:?}");
            let timed = (total.timed_after_stop, total.timed_after_silence);
            assert!(timed.0 >= 100 && timed.1 >= 300, "too few takeovers were timed: {timed:?}");
        }
    }

    /// One read of tasks a second is less than two replicas want.
    #[test]
    fn replicas_share_the_read_rates() {
        let rates = super::ReadRates { ecs: 1.0, ..super::ReadRates::default() };
        let report = super::life::run_at(15, rates);
        assert!(report.has_replicas);
        let late = report.violations.iter().filter(|message| message.contains("reads of tasks"));
        assert_eq!(late.collect::<Vec<_>>(), [""; 0]);
        println!("{} reads within a minute", report.most_reads);
        assert!(report.most_reads >= 50, "the rates did not bind: {}", report.most_reads);
    }

    #[test]
    fn seed_replays_exactly() {
        let (second_account, replicas) = (super::members::are_in, super::replicas::are_in);
        // With a second account there are two queues, with replicas two processes that wait for them.
        assert!(second_account(65) && replicas(65));
        assert!(second_account(28) && !replicas(28));
        let handovers = super::replicas::handover_lives().next().unwrap();
        assert!(replicas(handovers));
        for seed in [3, 6, 11, 16, 65, 28, handovers] {
            super::replays(seed, super::life::run);
        }
    }
}
