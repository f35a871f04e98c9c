//! What a run of the sandbox came to: a table for people, one JSON object for machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use ecs_mesh_sandbox::oracle::{ConsulWriteCounts, Invariant, WriteCounts, InvariantViolation};
use ecs_mesh_sandbox::world::{Census, TaskAgentCounts};

/// A distribution of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// The median.
    pub p50: Duration,
    /// 99 of 100 are not longer.
    pub p99: Duration,
    /// How many there were.
    pub count: usize,
}

impl Latencies {
    /// Of these times.
    pub fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        let at = |percent: usize| samples.get((samples.len().saturating_sub(1)) * percent / 100).copied();
        Self { p50: at(50).unwrap_or_default(), p99: at(99).unwrap_or_default(), count: samples.len() }
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct DemoSummary {
    /// How long it took.
    pub took: Duration,
    /// Whether a person ended it.
    pub interrupted: bool,
    /// Tasks.
    pub census: Census,
    /// Writes to Kuma, if there is one.
    pub kuma: Option<WriteCounts>,
    /// What tasks did at Consul, and what the operator did there, if there is one.
    pub consul: Option<(TaskAgentCounts, ConsulWriteCounts)>,
    /// Tasks whose role did not allow them in, each time that this began.
    pub rejected: u64,
    /// Broken promises.
    pub violations: Vec<InvariantViolation>,
    /// From receiving an event to the write that it led to.
    pub event_to_write: Latencies,
    /// From a task's STOPPED to the removal of its registration.
    pub removed_after_stop: Latencies,
    /// Calls by operation, as the endpoint counted them.
    pub aws_calls: BTreeMap<String, u64>,
}

fn invariant_name(invariant: Invariant) -> &'static str {
    match invariant {
        Invariant::I1 => "no leak",
        Invariant::I2 => "no wrongful removal",
        Invariant::I3 => "only ours",
        Invariant::I4 => "no unearned identity",
        Invariant::I5 => "bounded blast",
        Invariant::I6 => "quiet when equal",
        Invariant::I7 => "one writer",
        Invariant::I8 => "nothing stalls",
        Invariant::I9 => "secrets stay secret",
    }
}

#[allow(clippy::cast_precision_loss)] // milliseconds of a run
fn milliseconds(time: Duration) -> f64 {
    (time.as_micros() as f64 / 100.0).round() / 10.0
}

impl DemoSummary {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    fn violation_count(&self, invariant: Invariant) -> usize {
        self.violations.iter().filter(|violation| violation.invariant == invariant).count()
    }

    /// One JSON object.
    pub fn json(&self) -> Value {
        let violations: BTreeMap<String, usize> =
            Invariant::ALL.iter().map(|invariant| (invariant.to_string(), self.violation_count(*invariant))).collect();
        let times = |of: &Latencies| json!({"p50": milliseconds(of.p50), "p99": milliseconds(of.p99), "count": of.count});
        let writes =
            self.kuma.map_or(0, |tally| tally.writes()) + self.consul.map_or(0, |(_, tally)| tally.writes());
        let mut all = json!({
            "tasks": {"started": self.census.started, "stopped": self.census.stopped},
            "violations": violations,
            "latency_ms": {
                "event_to_write": times(&self.event_to_write),
                "stopped_to_removed": times(&self.removed_after_stop),
            },
            "aws_calls": self.aws_calls,
            "cp_writes": writes,
        });
        if let Some(WriteCounts { created, updated, drained, removed }) = self.kuma {
            all["dataplanes"] = json!({
                "created": created, "updated": updated, "drained": drained, "removed": removed,
                "rejected": self.rejected,
            });
        }
        if let Some((TaskAgentCounts { logins, logouts, died_registered }, tally)) = self.consul {
            all["consul"] = json!({
                "logins": logins, "logouts": logouts, "left_behind": died_registered,
                "tokens_removed": tally.tokens, "services_removed": tally.services,
            });
        }
        all
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, message: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name:<26}{message}");
        };
        row("tasks", format!("{} started, {} stopped", self.census.started, self.census.stopped));
        if let Some(WriteCounts { created, updated, drained, removed }) = self.kuma {
            let written =
                format!("{created} created, {updated} updated, {drained} drained, {removed} removed");
            row("dataplanes", format!("{written}; {} tasks rejected for their role's tags", self.rejected));
        }
        if let Some((TaskAgentCounts { logins, logouts, died_registered }, tally)) = self.consul {
            let message = format!(
                "{logins} logged in, {logouts} logged out, {died_registered} died and left what they had"
            );
            row("tasks at Consul", message);
            let message = format!("{} tokens and {} services removed", tally.tokens, tally.services);
            row("left behind at Consul", message);
        }
        for (name, times) in
            [("event to write", &self.event_to_write), ("STOPPED to removed", &self.removed_after_stop)]
        {
            let Latencies { p50, p99, count } = times;
            let message =
                format!("p50 {} ms, p99 {} ms ({count} times)", milliseconds(*p50), milliseconds(*p99));
            row(name, message);
        }
        let calls: Vec<String> =
            self.aws_calls.iter().map(|(name, count)| format!("{name} {count}")).collect();
        row("AWS calls", calls.join(", "));
        for invariant in Invariant::ALL {
            let verdict = match self.violation_count(invariant) {
                0 if invariant == Invariant::I7 => {
                    "not judged here: there is one copy, and no lease to lose".to_owned()
                }
                // What is not there cannot be removed twice.
                0 if invariant == Invariant::I6 && self.kuma.is_none() => {
                    "not judged here: at Consul nothing is written but removals, since no ConsulAuth is declared"
                        .to_owned()
                }
                0 => "kept".to_owned(),
                count => format!("BROKEN {count} times"),
            };
            row(&format!("{invariant} {}", invariant_name(invariant)), verdict);
        }
        for violation in &self.violations {
            let _ = writeln!(text, "  {} {}", violation.invariant, violation.message);
        }
        text
    }
}
