//! The state of the emulated AWS account.
//!
//! [`Cloud`] reads neither a clock nor outside randomness: all changes follow from its configuration and the calls
//! with their times. Operations act on the current state; call [`Cloud::step`] first to advance it.

mod addresses;
mod buckets;
mod clusters;
mod container_spec;
mod containers;
mod controls;
mod definitions;
mod delivery;
mod deployments;
mod ecs_tags;
mod history;
mod instances;
mod life_cycle;
mod listing;
mod messages;
mod parameters;
mod pattern;
mod protection;
mod queue;
mod queues;
mod quota;
mod roles;
mod rules;
mod scheduler;
mod secrets;
mod services;
mod simulator;
mod sts;
mod tables;
mod task;
mod task_json;
mod tasks;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests_containers;
#[cfg(test)]
mod tests_deployments;
#[cfg(test)]
mod tests_life;
#[cfg(test)]
mod tests_protection;
#[cfg(test)]
mod tests_queues;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use self::addresses::Addresses;
use self::buckets::S3Bucket;
use self::clusters::ClusterState;
use self::history::TaskHistory;
use self::instances::ContainerHost;
use self::queue::SqsQueue;
use self::quota::Quota;
use self::sts::StsSession;
use super::CloudConfig;
use ecs_mesh_model::Timestamp;

pub use self::buckets::{BucketPage, S3Object};
pub use self::clusters::Cluster;
pub use self::container_spec::{EXIT_CODE_LABEL, EXITS_LABEL, READY_LABEL, SERVING_LABEL};
pub use self::containers::{ContainerState, ContainerStatus, HealthStatus};
pub use self::definitions::{DefinitionRecord, RegisterTaskDefinition};
pub use self::listing::{ArnPage, DescribeFailure, DescribedTasks, ListTasks};
pub use self::messages::{MessageAttribute, ReceiveMessages, ReceivedMessage, SendMessage, SentMessage};
pub use self::parameters::{PutParameter, StoredParameter};
pub use self::pattern::matches as pattern_matches;
pub use self::protection::{ProtectedTask, TaskProtections, UpdateTaskProtection};
pub use self::queues::{BatchFailure, QueueCounts};
pub use self::roles::{CreateRole, IamRole};
pub use self::rules::{EventBridgeRule, PutEvent, PutEventOutcome, RuleTarget};
pub use self::secrets::{CreateSecret, StoredSecret};
pub use self::services::{CreateService, EcsService, UpdateService};
pub use self::sts::{AssumeRole, AssumedRole};
pub use self::tables::{ItemCondition, ItemTable, StoredItem};
pub use self::task::{CloudTask, Network, StopCode, TaskOverrides};
pub use self::tasks::RunTask;

pub(super) use self::delivery::ForwardedEvent;
pub(super) use self::ecs_tags::{tags_from, tags_json};
pub(super) use self::messages::{attributes_md5, md5_hex};
pub(super) use self::rules::validation;

type TaskKey = Arc<str>;
/// Cluster and name.
type EcsServiceKey = (String, String);

/// A scheduled change.
#[derive(Debug)]
enum Timer {
    /// Something is due in the task, unless it has changed since.
    Task { arn: TaskKey, change_number: u64 },
    /// ECS forgets the stopped task.
    Forget(TaskKey),
    /// The task's history is dropped.
    Purge(TaskKey),
    /// The scheduler checks the service.
    Service(EcsServiceKey),
    /// An event reaches the queue.
    Deliver { queue: String, body: Arc<str> },
}

/// One AWS account in one Region, with IAM.
#[derive(Debug)]
pub struct Cloud {
    config: CloudConfig,
    rng: fastrand::Rng,
    timers: BTreeMap<(Timestamp, u64), Timer>,
    last_timer: u64,
    clusters: BTreeMap<String, ClusterState>,
    definitions: BTreeMap<String, Vec<Arc<DefinitionRecord>>>,
    tasks: BTreeMap<TaskKey, TaskHistory>,
    services: BTreeMap<EcsServiceKey, EcsService>,
    addresses: Addresses,
    /// By the container instance's ARN.
    hosts: BTreeMap<String, ContainerHost>,
    roles: BTreeMap<String, IamRole>,
    /// Past tags of roles by role name, since a role can be created again.
    role_history: BTreeMap<String, history::RoleHistory>,
    queues: BTreeMap<String, SqsQueue>,
    /// Buses beside the default one.
    event_buses: BTreeSet<String>,
    /// By name; of another bus than the default one by `BUS/NAME`.
    rules: BTreeMap<String, EventBridgeRule>,
    /// The answers of `PutEvents` for its next entries.
    scripted_put_events: VecDeque<Option<&'static str>>,
    sessions: BTreeMap<String, StsSession>,
    secrets: BTreeMap<String, StoredSecret>,
    parameters: BTreeMap<String, StoredParameter>,
    tables: BTreeMap<String, ItemTable>,
    buckets: BTreeMap<String, S3Bucket>,
    quota: Quota,
    events_lost_until: Option<Timestamp>,
    /// Events for other accounts and Regions.
    leaving_events: Vec<ForwardedEvent>,
    message_arrived: bool,
}

impl Cloud {
    /// An empty account.
    pub fn new(config: CloudConfig, now: Timestamp) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(config.seed),
            timers: BTreeMap::new(),
            last_timer: 0,
            clusters: BTreeMap::new(),
            definitions: BTreeMap::new(),
            tasks: BTreeMap::new(),
            services: BTreeMap::new(),
            addresses: Addresses::new(&config.subnet, config.reuse_addresses),
            hosts: BTreeMap::new(),
            roles: BTreeMap::new(),
            role_history: BTreeMap::new(),
            queues: BTreeMap::new(),
            event_buses: BTreeSet::new(),
            rules: BTreeMap::new(),
            scripted_put_events: VecDeque::new(),
            sessions: BTreeMap::new(),
            secrets: BTreeMap::new(),
            parameters: BTreeMap::new(),
            tables: BTreeMap::new(),
            buckets: BTreeMap::new(),
            quota: Quota::new(config.throttling.clone(), now),
            events_lost_until: None,
            leaving_events: Vec::new(),
            message_arrived: false,
            config,
        }
    }

    /// The account's settings.
    pub fn config(&self) -> &CloudConfig {
        &self.config
    }

    /// Applies all changes that are due by `now`, each at its own time and in order.
    pub fn step(&mut self, now: Timestamp) {
        while let Some(entry) = self.timers.first_entry() {
            let at = entry.key().0;
            if at > now {
                break;
            }
            match entry.remove() {
                Timer::Task { arn, change_number } => self.advance_task(&arn, change_number, at),
                Timer::Forget(arn) => self.forget_task(&arn, at),
                Timer::Purge(arn) => self.purge_task(&arn),
                Timer::Service(key) => self.schedule_service(&key, at),
                Timer::Deliver { queue, body } => self.enqueue_event(&queue, &body, at),
            }
        }
        for queue in self.queues.values_mut() {
            self.message_arrived |= queue.release_due(now);
        }
    }

    /// Time of the next scheduled change.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let timer = self.timers.first_key_value().map(|((at, _), _)| *at);
        let message = self.queues.values().filter_map(SqsQueue::next_release).min();
        timer.into_iter().chain(message).min()
    }

    /// Whether a message has become visible since the last call, so that long polls retry.
    pub fn take_message_arrived(&mut self) -> bool {
        std::mem::take(&mut self.message_arrived)
    }

    fn at(&mut self, when: Timestamp, what: Timer) {
        self.last_timer += 1;
        self.timers.insert((when, self.last_timer), what);
    }

    fn hex(&mut self, digits: usize) -> String {
        (0..digits).map(|_| char::from(b"0123456789abcdef"[self.rng.usize(..16)])).collect()
    }

    fn uuid(&mut self) -> String {
        let hex = self.hex(32);
        format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
    }

    /// An id in the style of IAM: a prefix and 17 letters or digits.
    fn iam_id(&mut self, prefix: &str) -> String {
        let tail: String =
            (0..17).map(|_| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[self.rng.usize(..32)])).collect();
        format!("{prefix}{tail}")
    }

    fn arn(&self, service: &str, resource: &str) -> String {
        let CloudConfig { partition, region, account, .. } = &self.config;
        format!("arn:{partition}:{service}:{region}:{account}:{resource}")
    }

    fn global_arn(&self, service: &str, resource: &str) -> String {
        let CloudConfig { partition, account, .. } = &self.config;
        format!("arn:{partition}:{service}::{account}:{resource}")
    }
}

/// One page of a sorted list: up to `limit` items after `after`, and the token of the next page.
fn page<'a, T: 'a>(
    items: impl Iterator<Item = (&'a str, T)>,
    after: Option<&str>,
    limit: usize,
) -> (Vec<T>, Option<String>) {
    let mut found = Vec::new();
    let mut last = None;
    for (key, item) in items.skip_while(|(key, _)| after.is_some_and(|after| *key <= after)) {
        if found.len() == limit {
            return (found, last);
        }
        last = Some(key.to_owned());
        found.push(item);
    }
    (found, None)
}
