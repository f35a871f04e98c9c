//! The printed table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::client::SentRequest;
use crate::machine::Machine;
use crate::row::{Reaction, Row, RowTimes};

/// The result of one cell.
#[derive(Clone, Debug, Default)]
pub(crate) struct CellOutcome {
    pub requests: usize,
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
    /// Failed requests by kind.
    pub failures: BTreeMap<String, FailureKind>,
}

/// Failed requests of one kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailureKind {
    pub count: usize,
    /// When the first was sent, since the beginning.
    pub first: Duration,
    /// When the last was sent, since the beginning.
    pub last: Duration,
}

/// The results of one row.
#[derive(Clone, Debug)]
pub(crate) struct RowResult {
    pub row: Row,
    pub with_operator: Option<CellOutcome>,
    pub without: Option<CellOutcome>,
}

/// All results.
#[derive(Clone, Debug)]
pub(crate) struct DeploymentReport {
    pub machine: Machine,
    pub software: String,
    pub times: RowTimes,
    pub rate: u32,
    pub rows: Vec<RowResult>,
}

impl CellOutcome {
    /// Sums up the requests of a measurement that began at `start`. Percentiles include failed requests.
    pub(crate) fn of(start: Instant, requests: &[SentRequest]) -> Self {
        let mut latencies: Vec<Duration> = requests.iter().map(|request| request.latency).collect();
        latencies.sort_unstable();
        let at = |percent: usize| {
            let index = latencies.len().saturating_sub(1) * percent / 100;
            latencies.get(index).copied().unwrap_or_default()
        };
        let mut failures: BTreeMap<String, FailureKind> = BTreeMap::new();
        for (failure, request) in
            requests.iter().filter_map(|request| Some((request.failure.as_ref()?, request)))
        {
            let at = request.at.duration_since(start);
            let kind =
                failures.entry(failure.clone()).or_insert(FailureKind { count: 0, first: at, last: at });
            kind.count += 1;
            (kind.first, kind.last) = (kind.first.min(at), kind.last.max(at));
        }
        Self { requests: requests.len(), p50: at(50), p99: at(99), max: at(100), failures }
    }

    /// Number of failed requests.
    pub(crate) fn failed(&self) -> usize {
        self.failures.values().map(|kind| kind.count).sum()
    }

    /// One line for people.
    pub(crate) fn summary(&self) -> String {
        let (p50, p99, max) = (millis(self.p50), millis(self.p99), millis(self.max));
        format!("{} of {} failed, p50 {p50}, p99 {p99}, max {max}", self.failed(), self.requests)
    }
}

impl RowResult {
    /// Whether a request failed with the operator.
    pub(crate) fn has_lost_with_operator(&self) -> bool {
        self.with_operator.as_ref().is_some_and(|outcome| outcome.failed() > 0)
    }

    fn outcomes(&self) -> impl Iterator<Item = (Reaction, &CellOutcome)> {
        let with = self.with_operator.iter().map(|outcome| (Reaction::Operator, outcome));
        with.chain(self.without.iter().map(|outcome| (Reaction::Without, outcome)))
    }
}

impl DeploymentReport {
    /// The report as Markdown.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Machine { cpu, cores, kernel, rustc, commit, profile, command, load } = &self.machine;
        writeln!(out, "| | |\n|---|---|")?;
        writeln!(out, "| machine | {cpu}, {cores} cores, Linux {kernel}, load average {load} |")?;
        writeln!(out, "| software | {}; {rustc}, {commit}, {profile} build |", self.software)?;
        writeln!(out, "| command | `{command}` |")?;
        writeln!(out, "| load | {} requests a second |\n", self.rate)?;
        writeln!(
            out,
            "| old tasks stopped | app serves after SIGTERM | failed, with the operator | p50, p99 | failed, without | p50, p99 |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|")?;
        for result in &self.rows {
            let (stopped, serving) = (result.row.label(&self.times), result.row.serving_label(&self.times));
            let with = cells(result.with_operator.as_ref());
            writeln!(out, "| {stopped} | {serving} | {with} | {} |", cells(result.without.as_ref()))?;
        }
        self.write_failures(out)
    }

    fn write_failures(&self, out: &mut String) -> std::fmt::Result {
        if self.rows.iter().flat_map(RowResult::outcomes).all(|(_, outcome)| outcome.failures.is_empty()) {
            return Ok(());
        }
        writeln!(out, "\n| row | column | failed | between | as |\n|---|---|---|---|---|")?;
        for result in &self.rows {
            for (column, outcome) in result.outcomes() {
                for (failure, FailureKind { count, first, last }) in &outcome.failures {
                    let (row, column) = (result.row.name(), column.label());
                    let (first, last) = (first.as_secs_f64(), last.as_secs_f64());
                    writeln!(
                        out,
                        "| {row} | {column} | {count} | {first:.1} s and {last:.1} s | {failure} |"
                    )?;
                }
            }
        }
        Ok(())
    }
}

/// Two cells.
fn cells(outcome: Option<&CellOutcome>) -> String {
    outcome.map_or_else(
        || "not measured | ".to_owned(),
        |outcome| {
            let (p50, p99) = (millis(outcome.p50), millis(outcome.p99));
            format!("{} of {} | {p50}, {p99}", outcome.failed(), outcome.requests)
        },
    )
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1_000.0)
}
