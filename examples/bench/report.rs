//! The figures as text, and the comparison with the targets.

use std::fmt::Write as _;

use serde::Serialize;

use crate::control::{LatencySummary, WriteKind};
use crate::identities::{GradualStopsResult, IdentityResults, MassStopResult};
use crate::lease_window::LeaseWindowResult;
use crate::machine::Machine;
use crate::phases::{BurstResult, IdleResult, StartResult, SteadyResult, Stream};
use crate::readers::ReadersResult;
use crate::takeover::TakeoverResult;

/// All results.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BenchReport {
    pub machine: Machine,
    pub bursts: Vec<BurstResult>,
    pub steady: Vec<SteadyResult>,
    pub starts: Vec<StartResult>,
    pub takeovers: Vec<TakeoverResult>,
    pub lease_windows: Vec<LeaseWindowResult>,
    pub readers: Vec<ReadersResult>,
    pub idle: Vec<IdleResult>,
    pub identities: IdentityResults,
    pub targets: Vec<BenchTarget>,
}

/// A target and the measured value.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BenchTarget {
    pub what: String,
    pub limit: String,
    pub measured: String,
    pub met: bool,
}

impl BenchTarget {
    fn at_most(what: &str, limit: f64, unit: &str, measured: f64) -> Self {
        Self {
            what: what.to_owned(),
            limit: format!("≤ {limit} {unit}"),
            measured: format!("{measured:.2} {unit}"),
            met: measured <= limit,
        }
    }
}

impl BenchReport {
    /// Compares the figures with the targets whose size was measured.
    pub(crate) fn judged(self) -> Self {
        Self { targets: self.evaluate(), ..self }
    }

    fn evaluate(&self) -> Vec<BenchTarget> {
        let mut targets = Vec::new();
        for SteadyResult { stream, gone_after_s, seen, .. } in &self.steady {
            let Stream { by_tag, clusters, per_second } = *stream;
            let limit = match (by_tag, clusters, per_second) {
                (false, 1, 1_000) => Some(200.0),
                (false, 10, 1_000) => Some(1_500.0),
                _ => None,
            };
            for (limit, (change, name)) in limit.iter().flat_map(|limit| {
                [(WriteKind::Create, "create"), (WriteKind::Drain, "drain")].map(|change| (limit, change))
            }) {
                let p99 = latency(&seen.latency, change).p99_ms;
                let what = format!("p99 from event to {name}, {per_second} events/s of {clusters} clusters");
                targets.push(BenchTarget::at_most(&what, *limit, "ms", p99));
            }
            targets.push(BenchTarget {
                what: format!("registrations left after {per_second} events/s of {clusters} clusters"),
                limit: "none".to_owned(),
                measured: if gone_after_s.is_some() { "none" } else { "some" }.to_owned(),
                met: gone_after_s.is_some(),
            });
        }
        for StartResult { tasks, roles, warm, seconds, floor_s, .. } in &self.starts {
            let mesh = if *warm { "warm" } else { "empty" };
            let what = format!("start with {tasks} tasks and {roles} roles, {mesh} mesh: share of the floor");
            targets.push(BenchTarget::at_most(&what, 110.0, "%", seconds / floor_s * 100.0));
        }
        for result in &self.readers {
            let ReadersResult { tasks, readers, failed, .. } = result;
            let what = format!("p99 to create with {readers} readers at {tasks} tasks, of that without");
            targets.push(BenchTarget::at_most(&what, 105.0, "%", result.percent()));
            targets.push(BenchTarget {
                what: format!("requests of {readers} readers that failed"),
                limit: "none".to_owned(),
                measured: failed.to_string(),
                met: *failed == 0,
            });
        }
        for TakeoverResult { tasks, roles, leads_after_s, bound_s, .. } in &self.takeovers {
            let what = format!("takeover after a crash with {tasks} tasks and {roles} roles");
            targets.push(BenchTarget::at_most(&what, *bound_s, "s", *leads_after_s));
        }
        for burst in self.bursts.iter().filter(|burst| burst.events == 15_000 && !burst.by_tag) {
            let share = burst.share() * 100.0;
            targets.push(BenchTarget {
                what: "15,000 events: share of the bare loop's rate".to_owned(),
                limit: "≥ 80 %".to_owned(),
                measured: format!("{share:.0} %"),
                met: share >= 80.0,
            });
        }
        for idle in &self.idle {
            match idle.tasks {
                0 => targets.push(BenchTarget::at_most("resident, idle", 20.0, "MB", idle.memory.resident)),
                10_000 => {
                    let (reads, cpu) = (idle.ecs_reads_per_minute, idle.cpu_percent_of_a_core);
                    targets.push(BenchTarget::at_most(
                        "resident, 10,000 tasks",
                        40.0,
                        "MB",
                        idle.memory.resident,
                    ));
                    targets.push(BenchTarget::at_most(
                        "ECS reads a minute, 10,000 idle tasks",
                        30.0,
                        "reads",
                        reads,
                    ));
                    targets.push(BenchTarget::at_most("CPU, 10,000 idle tasks", 0.2, "% of a core", cpu));
                }
                100_000 => targets.push(BenchTarget::at_most(
                    "resident, 100,000 tasks",
                    150.0,
                    "MB",
                    idle.memory.resident,
                )),
                _ => {}
            }
        }
        self.identities.evaluate(&mut targets);
        targets
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail, here and below.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Machine { cpu, cores, kernel, rustc, commit, profile, command, load } = &self.machine;
        writeln!(out, "{cpu}, {cores} cores, Linux {kernel}, {rustc}, {profile} build of {commit}")?;
        writeln!(out, "{command}; load before: {load}\n")?;
        write_bursts(out, &self.bursts)?;
        write_steady(out, &self.steady)?;
        write_starts(out, &self.starts)?;
        write_takeovers(out, &self.takeovers)?;
        write_lease_windows(out, &self.lease_windows)?;
        write_readers(out, &self.readers)?;
        write_idle(out, "Idle", &self.idle)?;
        self.identities.write(out)?;
        for BenchTarget { what, limit, measured, met } in &self.targets {
            writeln!(out, "{}  {what}: {measured} (target {limit})", if *met { "met   " } else { "MISSED" })?;
        }
        Ok(())
    }
}

impl BurstResult {
    fn share(&self) -> f64 {
        if self.bare_per_second > 0.0 { self.events_per_second / self.bare_per_second } else { 0.0 }
    }
}

fn latency(all: &std::collections::BTreeMap<WriteKind, LatencySummary>, change: WriteKind) -> LatencySummary {
    all.get(&change).copied().unwrap_or_default()
}

fn selector(by_tag: bool) -> &'static str {
    if by_tag { "ECS tag" } else { "cluster" }
}

fn write_bursts(out: &mut String, bursts: &[BurstResult]) -> std::fmt::Result {
    if bursts.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "Bursts: events queued at once, each of a new task (write limit: 500 a second, the default)"
    )?;
    writeln!(
        out,
        "{:>7}  {:<8} {:>9} {:>9} {:>6} {:>10} {:>9} {:>9} {:>11} {:>8} {:>7} {:>7} {:>7}",
        "events",
        "selector",
        "events/s",
        "bare/s",
        "share",
        "written s",
        "p50 ms",
        "p99 ms",
        "reads/1000",
        "peak MB",
        "cpu s",
        "sandbox",
        "bare"
    )?;
    for burst in bursts {
        let create = latency(&burst.seen.latency, WriteKind::Create);
        writeln!(
            out,
            "{:>7}  {:<8} {:>9.0} {:>9.0} {:>5.0}% {:>10.1} {:>9.1} {:>9.1} {:>11.1} {:>8.1} {:>7.2} {:>7.2} {:>7.2}",
            burst.events,
            selector(burst.by_tag),
            burst.events_per_second,
            burst.bare_per_second,
            burst.share() * 100.0,
            burst.written_after_s,
            create.p50_ms,
            create.p99_ms,
            burst.seen.reads_per_1000_events,
            burst.seen.memory.peak,
            burst.seen.operator_cpu_s,
            burst.seen.sandbox_cpu_s,
            burst.bare_cpu_s,
        )?;
    }
    writeln!(out)
}

fn write_steady(out: &mut String, steady: &[SteadyResult]) -> std::fmt::Result {
    for result in steady {
        let SteadyResult { stream, events_per_second, seconds, seen, .. } = result;
        writeln!(
            out,
            "Steady: {events_per_second:.0} events/s of {} clusters for {seconds:.0} s, complete task lifecycles, selected by {}",
            stream.clusters,
            selector(stream.by_tag)
        )?;
        for (change, name) in [
            (WriteKind::Create, "created"),
            (WriteKind::Drain, "drained"),
            (WriteKind::Remove, "removed, after a describe"),
        ] {
            let LatencySummary { count, p50_ms, p99_ms, max_ms } = latency(&seen.latency, change);
            writeln!(
                out,
                "  {name:<26} {count:>6}   p50 {p50_ms:>7.1} ms   p99 {p99_ms:>7.1} ms   max {max_ms:>7.1} ms"
            )?;
        }
        writeln!(
            out,
            "  DescribeTasks calls per 1,000 events {:.1}, of {:.1} tasks each; reads of readiness per drain {:.2}; {}",
            result.describes_per_1000_events,
            result.tasks_per_describe,
            result.reads_of_readiness_per_drain,
            match result.gone_after_s {
                Some(seconds) => format!("all gone {seconds:.1} s after the end"),
                None => "REGISTRATIONS ARE LEFT".to_owned(),
            }
        )?;
        writeln!(
            out,
            "  AWS reads per 1,000 events {:.1}; peak {:.1} MB; CPU: operator {:.0} %, sandbox {:.0} % of a core\n",
            seen.reads_per_1000_events,
            seen.memory.peak,
            seen.operator_cpu_s / seconds * 100.0,
            seen.sandbox_cpu_s / seconds * 100.0,
        )?;
    }
    Ok(())
}

impl IdentityResults {
    fn evaluate(&self, targets: &mut Vec<BenchTarget>) {
        if let Some(GradualStopsResult { tasks: 1_000, token_removed, .. }) = &self.gradual_stops {
            let what = "Consul: p99 from STOPPED to token removed, 1,000 tasks";
            targets.push(BenchTarget::at_most(what, 250.0, "ms", token_removed.p99_ms));
        }
        if let Some(MassStopResult { tasks: 2_000, stopped: 1_000, removed_after_s, .. }) = &self.mass_stop {
            targets.push(BenchTarget::at_most(
                "Consul: 1,000 of 2,000 stopped at once, all removed",
                5.0,
                "s",
                *removed_after_s,
            ));
        }
        for idle in self.idle.iter().filter(|idle| idle.tasks == 10_000) {
            targets.push(BenchTarget::at_most(
                "Consul: resident, 10,000 tasks",
                40.0,
                "MB",
                idle.memory.resident,
            ));
            let reads = idle.ecs_reads_per_minute;
            targets.push(BenchTarget::at_most(
                "Consul: ECS reads a minute, 10,000 idle tasks",
                30.0,
                "reads",
                reads,
            ));
        }
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        if let Some(GradualStopsResult {
            tasks,
            per_second,
            seconds,
            token_removed,
            ecs_reads,
            memory,
            operator_cpu_s,
        }) = &self.gradual_stops
        {
            let LatencySummary { count, p50_ms, p99_ms, max_ms } = token_removed;
            writeln!(out, "Consul: {tasks} tasks, {per_second} stopped a second for {seconds:.0} s")?;
            writeln!(
                out,
                "  STOPPED to token removed   {count:>6}   p50 {p50_ms:>7.1} ms   p99 {p99_ms:>7.1} ms   max {max_ms:>7.1} ms"
            )?;
            writeln!(
                out,
                "  {ecs_reads} ECS reads; peak {:.1} MB; CPU: operator {:.0} % of a core\n",
                memory.peak,
                operator_cpu_s / seconds * 100.0
            )?;
        }
        if let Some(MassStopResult { tasks, stopped, removed_after_s, ecs_reads, memory, operator_cpu_s }) =
            &self.mass_stop
        {
            writeln!(out, "Consul: {stopped} of {tasks} tasks stopped at once")?;
            writeln!(
                out,
                "  all tokens and services removed after {removed_after_s:.2} s; {ecs_reads} ECS reads; peak {:.1} MB; CPU {operator_cpu_s:.2} s\n",
                memory.peak
            )?;
        }
        write_idle(out, "Idle with Consul", &self.idle)
    }
}

fn write_starts(out: &mut String, starts: &[StartResult]) -> std::fmt::Result {
    for StartResult { tasks, roles, warm, seconds, floor_s, floor_by, memory, calls } in starts {
        let mesh = if *warm { "all registered" } else { "none registered" };
        let calls: Vec<String> = calls.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(
            out,
            "Start: {tasks} tasks, {roles} roles, {mesh}: {seconds:.1} s; floor {floor_s:.1} s ({floor_by}); {:.0} %; peak {:.1} MB\n  {}\n",
            seconds / floor_s * 100.0,
            memory.peak,
            calls.join(", ")
        )?;
    }
    Ok(())
}

fn write_takeovers(out: &mut String, takeovers: &[TakeoverResult]) -> std::fmt::Result {
    for TakeoverResult {
        tasks,
        roles,
        leads_after_s,
        bound_s,
        registered_after_s,
        swept_after_s,
        calls,
        memory,
    } in takeovers
    {
        let calls: Vec<String> = calls.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(
            out,
            "Takeover after a crash: {tasks} tasks, {roles} roles: leads after {leads_after_s:.1} s (bound {bound_s:.0} s); \
             tasks started meanwhile registered after {registered_after_s:.1} s; first sweep complete {swept_after_s:.1} s \
             after the takeover; standby {:.1} MB\n  {}\n",
            memory.resident,
            calls.join(", ")
        )?;
    }
    Ok(())
}

fn write_lease_windows(out: &mut String, windows: &[LeaseWindowResult]) -> std::fmt::Result {
    if windows.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "From the last look at the lease to the arrival of the first bytes of a write, over loopback"
    )?;
    for window in windows {
        let LeaseWindowResult { method, new_connection, writers, writes, p50_us, p99_us, max_us } = window;
        writeln!(
            out,
            "  {method:<6} {:<19} {writers:>3} at once   {writes:>6} writes   p50 {p50_us:>6} µs   p99 {p99_us:>6} µs   max \
             {max_us:>6} µs",
            if *new_connection { "new connection" } else { "kept connection" },
        )?;
    }
    writeln!(out)
}

fn write_readers(out: &mut String, readers: &[ReadersResult]) -> std::fmt::Result {
    for result in readers {
        let ReadersResult {
            tasks, readers, p99_without_ms, p99_with_ms, creates, requests_per_second, ..
        } = result;
        writeln!(
            out,
            "Readers of the API: {tasks} tasks, {readers} readers with {requests_per_second:.0} requests/s, {} failed, {} \
             streams with {} events: p99 to create {p99_with_ms:.1} ms, {p99_without_ms:.1} ms without readers ({:.0} %), of {creates} creates; operator \
             {:.2} s of CPU a second, {:.2} s without\n",
            result.failed,
            result.streams,
            result.stream_events,
            result.percent(),
            result.cpu_with,
            result.cpu_without,
        )?;
    }
    Ok(())
}

fn write_idle(out: &mut String, title: &str, idle: &[IdleResult]) -> std::fmt::Result {
    let Some(first) = idle.first() else { return Ok(()) };
    writeln!(
        out,
        "{title}: {:.0} s, with a sweep and a read of each role every {} s",
        first.seconds, first.interval_s
    )?;
    writeln!(
        out,
        "{:>7} {:>12} {:>9} {:>13} {:>8} {:>8} {:>14}  calls",
        "tasks", "resident MB", "peak MB", "anonymous MB", "pss MB", "cpu %", "ECS reads/min"
    )?;
    for row in idle {
        let calls: Vec<String> = row.calls.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let IdleResult { tasks, memory, cpu_percent_of_a_core: cpu, ecs_reads_per_minute: reads, .. } = row;
        writeln!(
            out,
            "{tasks:>7} {:>12.1} {:>9.1} {:>13.1} {:>8.1} {cpu:>8.3} {reads:>14.1}  {}",
            memory.resident,
            memory.peak,
            memory.anonymous,
            memory.proportional.unwrap_or_default(),
            calls.join(", ")
        )?;
    }
    writeln!(out)
}
