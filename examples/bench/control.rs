//! The protocol between benchmark and sandbox process: one JSON object a line, one response for each order.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An order to the sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Creates running tasks without events.
    CreateTasks(usize),
    /// Creates running tasks, sends all RUNNING events to the queue at once, and restarts the measurement.
    Burst(usize),
    /// Starts and stops this many tasks a second until the next order of this kind.
    Churn(u32),
    /// Logs in all running tasks to Consul and registers their services.
    LogIn,
    /// Stops this many running tasks at once, and restarts the measurement.
    Stop(usize),
    /// Stops this many tasks a second until the next order of this kind.
    StopRate(u32),
    /// Restarts the measurement.
    Mark,
    /// Requests a snapshot.
    Snapshot,
}

/// The size of the sandbox's account.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct AccountSize {
    /// Clusters, over which tasks are spread evenly
    #[arg(long, default_value_t = 1)]
    pub clusters: usize,
    /// Services, each with a role and a task definition of its own
    #[arg(long, default_value_t = 20)]
    pub services: u16,
}

impl Default for AccountSize {
    fn default() -> Self {
        Self { clusters: 1, services: 20 }
    }
}

/// Addresses of the sandbox's servers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxAddresses {
    /// Environment variables for an AWS SDK.
    pub environment: BTreeMap<String, String>,
    /// The queue's URL.
    pub queue_url: String,
    /// The clusters' ARNs.
    pub clusters: Vec<String>,
    /// Kuma's address.
    pub kuma_url: String,
    /// Consul's address, if Consul runs.
    pub consul_url: Option<String>,
}

/// A snapshot from the servers' side. Counts are since the start of the measurement.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SandboxSnapshot {
    /// Time since the start of the measurement.
    pub elapsed: Duration,
    /// Messages in the queue, visible or in flight.
    pub queued: usize,
    /// Delivered messages, redeliveries included.
    pub delivered: u64,
    /// Deleted messages.
    pub deleted: u64,
    /// Time of the last deletion, from the start of the measurement.
    pub last_deleted: Duration,
    /// Current number of Dataplanes.
    pub dataplanes: usize,
    /// Current number of login tokens and services in Consul.
    pub identities: usize,
    /// Time of the last removal, from the start of the measurement.
    pub last_identity_removed: Duration,
    /// Tasks in the answers of DescribeTasks, found or missing.
    pub described: u64,
    /// Lists of one service's Dataplanes with their readiness.
    pub readiness_reads: u64,
    /// Time of the last write to a Dataplane, from the start of the measurement.
    pub last_written: Duration,
    /// Time of the last read of ECS or IAM, from the start of the measurement.
    pub last_read: Duration,
    /// AWS calls by `service.Operation`.
    pub calls: BTreeMap<String, u64>,
    /// Latency from the delivery of an event to its write, by kind of write.
    pub latency: BTreeMap<WriteKind, LatencySummary>,
}

/// A kind of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum WriteKind {
    /// Creation of a Dataplane, for the first event with the task's address.
    Create,
    /// Drain, for the first event with desired status STOPPED.
    Drain,
    /// Removal, for the first event with last status STOPPED; includes a describe.
    Remove,
    /// Removal of a Consul token, for the same event.
    Token,
}

/// A latency distribution in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LatencySummary {
    pub count: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl SandboxSnapshot {
    /// Calls of an operation since the start of the measurement.
    pub(crate) fn calls_to(&self, operation: &str) -> u64 {
        self.calls.get(operation).copied().unwrap_or_default()
    }

    /// ECS and IAM reads since the start of the measurement.
    pub(crate) fn reads(&self) -> u64 {
        self.calls_of("ecs.") + self.calls_of("iam.")
    }

    /// Calls with this prefix since the start of the measurement.
    pub(crate) fn calls_of(&self, prefix: &str) -> u64 {
        self.calls.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, count)| count).sum()
    }
}
