//! What the bench and its sandbox process say to one another: one JSON object a line, each order answered once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An order to the sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Makes tasks that run already, and of which no event tells.
    Standing(usize),
    /// Makes tasks that run, and puts the RUNNING event of each into the queue, all at once. Measuring begins anew.
    Burst(usize),
    /// Begins to start and stop tasks, so many a second, until the next order of this kind.
    Lives(u32),
    /// Every task that runs logs in to Consul and registers its services there.
    LogIn,
    /// So many tasks that run die without a word, all at once. Measuring begins anew.
    Kill(usize),
    /// Tasks die without a word, so many a second, until the next order of this kind.
    Deaths(u32),
    /// Measuring begins anew.
    Mark,
    /// Says how things are.
    Look,
}

/// Where the sandbox's servers are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxAddresses {
    /// The environment that leads an AWS SDK to them.
    pub environment: BTreeMap<String, String>,
    /// The queue.
    pub queue_url: String,
    /// The cluster's ARN.
    pub cluster: String,
    /// Kuma's address.
    pub kuma_url: String,
    /// Consul's address, where there is one.
    pub consul_url: Option<String>,
}

/// What the sandbox saw, seen from the servers' side; counts are since the last mark.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SandboxSnapshot {
    /// Since the mark.
    pub elapsed: Duration,
    /// Messages in the queue, waiting or in flight.
    pub queued: usize,
    /// Messages that were handed out, repeats included.
    pub handed_out: u64,
    /// Messages that were deleted.
    pub deleted: u64,
    /// From the mark to the last deletion.
    pub last_deleted: Duration,
    /// Dataplanes that there are now.
    pub dataplanes: usize,
    /// Login tokens and services that there are in Consul now.
    pub identities: usize,
    /// From the mark to the last that went.
    pub last_identity_gone: Duration,
    /// AWS calls by `service.Operation`.
    pub calls: BTreeMap<String, u64>,
    /// From an event handed out to the write that it led to, by write.
    pub latency: BTreeMap<WriteKind, LatencySummary>,
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum WriteKind {
    /// The first write of a Dataplane; its event is the first that tells of a task with an address.
    Create,
    /// A later one; its event is the first that says that the task shall stop.
    Drain,
    /// The removal; its event is the first that says that it has stopped. It waits for a describe.
    Remove,
    /// The removal of a Consul token, for the same event.
    Token,
}

/// A distribution of times, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LatencySummary {
    pub count: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl SandboxSnapshot {
    /// ECS and IAM reads since the mark.
    pub(crate) fn reads(&self) -> u64 {
        self.calls_of("ecs.") + self.calls_of("iam.")
    }

    /// Calls since the mark whose names begin so.
    pub(crate) fn calls_of(&self, prefix: &str) -> u64 {
        self.calls.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, count)| count).sum()
    }
}
