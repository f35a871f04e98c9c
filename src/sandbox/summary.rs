//! The result of a demo, as a table or as one JSON object.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::terminal::paragraph;

use super::checks::{DemoCheck, DemoCheckStatus};
use ecs_mesh_sandbox::oracle::{ConsulWriteCounts, Invariant, InvariantViolation, WriteCounts};
use ecs_mesh_sandbox::world::{TaskAgentCounts, TaskCounts};

/// Columns of a row's name, with its indent.
const NAME_WIDTH: usize = 31;

/// Distribution of latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// The median.
    pub p50: Duration,
    /// The 99th percentile.
    pub p99: Duration,
    /// Number of samples.
    pub count: usize,
}

impl Latencies {
    /// Computes the distribution of the samples.
    pub fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        let at = |percent: usize| samples.get((samples.len().saturating_sub(1)) * percent / 100).copied();
        Self { p50: at(50).unwrap_or_default(), p99: at(99).unwrap_or_default(), count: samples.len() }
    }
}

/// The result of a demo.
#[derive(Clone, Debug)]
pub struct DemoSummary {
    /// Duration of the run.
    pub took: Duration,
    /// Whether a signal ended it early.
    pub interrupted: bool,
    /// Number of tasks.
    pub task_counts: TaskCounts,
    /// The operator's processes that have named themselves in writes to Kuma.
    pub writing_processes: usize,
    /// Writes to Kuma, if it is emulated.
    pub kuma: Option<WriteCounts>,
    /// Logins of tasks and writes of the operator at Consul, if it is emulated.
    pub consul: Option<(TaskAgentCounts, ConsulWriteCounts)>,
    /// Tasks rejected for their role's tags.
    pub rejected: u64,
    /// Further judgements.
    pub checks: Vec<DemoCheck>,
    /// Violations of invariants.
    pub violations: Vec<InvariantViolation>,
    /// Time from receiving an event to the resulting write.
    pub event_to_write: Latencies,
    /// Time from a task's STOPPED to the removal of its registration.
    pub removed_after_stop: Latencies,
    /// AWS calls by operation, as the endpoint counted them.
    pub aws_calls: BTreeMap<String, u64>,
}

fn invariant_name(invariant: Invariant) -> &'static str {
    match invariant {
        Invariant::I1 => "no leak",
        Invariant::I2 => "no wrongful removal",
        Invariant::I3 => "only ours",
        Invariant::I4 => "no unearned identity",
        Invariant::I5 => "bounded blast radius",
        Invariant::I6 => "quiet when equal",
        Invariant::I7 => "one writer",
        Invariant::I8 => "no head-of-line blocking",
        Invariant::I9 => "no secrets",
        Invariant::I10 => "never the last endpoint",
        Invariant::I11 => "unsupported, untouched",
    }
}

#[allow(clippy::cast_precision_loss)] // milliseconds of a run
fn milliseconds(time: Duration) -> f64 {
    (time.as_micros() as f64 / 100.0).round() / 10.0
}

impl DemoSummary {
    /// Whether no invariant was violated, and no other check failed.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.checks.iter().all(|check| check.status != DemoCheckStatus::Failed)
    }

    fn violation_count(&self, invariant: Invariant) -> usize {
        self.violations.iter().filter(|violation| violation.invariant == invariant).count()
    }

    /// The result as a JSON object.
    pub fn json(&self) -> Value {
        let violations: BTreeMap<String, usize> = Invariant::ALL
            .iter()
            .map(|invariant| (invariant.to_string(), self.violation_count(*invariant)))
            .collect();
        let times = |of: &Latencies| json!({"p50": milliseconds(of.p50), "p99": milliseconds(of.p99), "count": of.count});
        let writes =
            self.kuma.map_or(0, |tally| tally.writes()) + self.consul.map_or(0, |(_, tally)| tally.writes());
        let mut all = json!({
            "tasks": {"started": self.task_counts.started, "stopped": self.task_counts.stopped},
            "violations": violations,
            "latencyMs": {
                "eventToWrite": times(&self.event_to_write),
                "stoppedToRemoved": times(&self.removed_after_stop),
            },
            "awsCalls": self.aws_calls,
            "controlPlaneWrites": writes,
        });
        if !self.checks.is_empty() {
            let checks: BTreeMap<&str, Value> =
                self.checks.iter().map(|check| (check.subject.key(), check.json())).collect();
            all["checks"] = json!(checks);
        }
        if let Some(WriteCounts { created, updated, drained, removed }) = self.kuma {
            all["dataplanes"] = json!({
                "created": created, "updated": updated, "drained": drained, "removed": removed,
                "rejected": self.rejected,
            });
            all["writingProcesses"] = json!(self.writing_processes);
        }
        if let Some((TaskAgentCounts { logins, logouts, crashes }, tally)) = self.consul {
            all["consul"] = json!({
                "logins": logins, "logouts": logouts, "crashes": crashes,
                "tokensRemoved": tally.tokens, "servicesRemoved": tally.services,
            });
        }
        all
    }

    /// The result as a table of this many columns.
    pub fn table(&self, width: usize) -> String {
        let mut text = String::new();
        let mut row = |name: &str, message: String| text.push_str(&table_row(name, &message, width));
        row("tasks", format!("{} started, {} stopped", self.task_counts.started, self.task_counts.stopped));
        if let Some(WriteCounts { created, updated, drained, removed }) = self.kuma {
            let written =
                format!("{created} created, {updated} updated, {drained} drained, {removed} removed");
            row("dataplanes", format!("{written}; {} tasks rejected for their role tags", self.rejected));
        }
        if let Some((TaskAgentCounts { logins, logouts, crashes }, tally)) = self.consul {
            let message =
                format!("{logins} logged in, {logouts} logged out, {crashes} crashed without logging out");
            row("tasks at Consul", message);
            let message = format!("{} tokens and {} services removed", tally.tokens, tally.services);
            row("Consul clean-up", message);
        }
        for (name, times) in
            [("event to write", &self.event_to_write), ("STOPPED to removed", &self.removed_after_stop)]
        {
            let Latencies { p50, p99, count } = times;
            let message =
                format!("p50 {} ms, p99 {} ms ({count} samples)", milliseconds(*p50), milliseconds(*p99));
            row(name, message);
        }
        let calls: Vec<String> =
            self.aws_calls.iter().map(|(name, count)| format!("{name} {count}")).collect();
        row("AWS calls", calls.join(", "));
        for check in &self.checks {
            row(&check.subject.to_string(), check.cell());
        }
        for invariant in Invariant::ALL {
            let status = match self.violation_count(invariant) {
                0 if invariant == Invariant::I7 => match self.writing_processes {
                    0 if self.kuma.is_none() => "not checked: writes to Consul name no process".to_owned(),
                    0 => "not checked: nothing was written to Kuma".to_owned(),
                    1 => "ok: one process wrote".to_owned(),
                    count => format!("ok: {count} processes wrote, one after the other"),
                },
                // A removal cannot be repeated, so I6 cannot be violated without registrations or declared objects.
                0 if invariant == Invariant::I6 && self.kuma.is_none() => {
                    "not checked: without a ConsulAuth, the operator writes only removals to Consul"
                        .to_owned()
                }
                0 if invariant == Invariant::I10 && self.kuma.is_none() => {
                    "not checked: tasks leave Consul's load balancing by themselves".to_owned()
                }
                0 if invariant == Invariant::I11 => {
                    "not checked: the demo's control planes are supported".to_owned()
                }
                0 => "ok".to_owned(),
                count => format!("VIOLATED {count} times"),
            };
            row(&format!("{invariant} {}", invariant_name(invariant)), status);
        }
        for violation in &self.violations {
            let name = format!("{} VIOLATED", violation.invariant);
            text.push_str(&table_row(&name, &violation.message, width));
        }
        text
    }
}

/// A row of the table. A message that exceeds the width continues below its own start, after a word.
fn table_row(name: &str, message: &str, width: usize) -> String {
    let label = format!("{:NAME_WIDTH$}", format!("  {name}"));
    paragraph(&label, message, width)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{
        DemoCheck, DemoCheckStatus, DemoSummary, Duration, Latencies, NAME_WIDTH, TaskCounts, table_row,
    };
    use crate::sandbox::DemoSubject;

    fn summary(checks: Vec<DemoCheck>) -> DemoSummary {
        DemoSummary {
            took: Duration::ZERO,
            interrupted: false,
            task_counts: TaskCounts::default(),
            writing_processes: 0,
            kuma: None,
            consul: None,
            rejected: 0,
            checks,
            violations: Vec::new(),
            event_to_write: Latencies::default(),
            removed_after_stop: Latencies::default(),
            aws_calls: BTreeMap::new(),
        }
    }

    #[test]
    fn failed_check_makes_the_demo_fail() {
        for (status, at_end, is_clean) in [
            (DemoCheckStatus::Passed, "passed", true),
            (DemoCheckStatus::Skipped, "skipped", true),
            (DemoCheckStatus::Pending, "failed", false),
            (DemoCheckStatus::Failed, "failed", false),
        ] {
            let check = DemoCheck::new(DemoSubject::Upgrade, status, "a reason");
            let ended = summary(vec![check.clone().at_end()]);
            assert_eq!(ended.is_clean(), is_clean, "{status:?}");
            assert_eq!(ended.json()["checks"]["upgrade"]["status"], at_end);
            let interrupted = summary(vec![check]);
            assert_eq!(interrupted.is_clean(), status != DemoCheckStatus::Failed, "{status:?}");
        }
        let failed = DemoCheck::new(DemoSubject::Upgrade, DemoCheckStatus::Failed, "kv lost its outbound");
        assert!(summary(vec![failed]).table(80).contains("FAILED: kv lost its outbound"));
    }

    #[test]
    fn one_writer_is_judged_where_processes_are_named() {
        for (writing_processes, judged) in [(0, false), (1, true), (2, true)] {
            let table = DemoSummary { writing_processes, ..summary(Vec::new()) }.table(120);
            let row = table.lines().find(|line| line.contains("I7 ")).unwrap().to_owned();
            assert_eq!(row.contains(" ok"), judged, "{row}");
        }
    }

    #[test]
    fn table_row_wraps_within_the_width() {
        let calls: Vec<String> = (0..20).map(|n| format!("ecs.Operation{n} {}", n * 100)).collect();
        for width in [80, 120] {
            let row = table_row("AWS calls", &calls.join(", "), width);
            assert!(row.lines().count() > 1 && row.lines().all(|line| line.len() <= width), "{row}");
            let indent = " ".repeat(NAME_WIDTH);
            assert!(row.lines().skip(1).all(|line| line.starts_with(&indent)), "{row}");
            let message: Vec<&str> = row.lines().map(|line| line[NAME_WIDTH..].trim()).collect();
            assert_eq!(message.join(" "), calls.join(", "));
        }
        assert_eq!(
            table_row("tasks", "1 started, 0 stopped", 80),
            format!("  {:<29}1 started, 0 stopped\n", "tasks")
        );
    }
}
