//! What kind of AWS the sandbox is: where, how fast tasks live, and how badly events are delivered.

use std::time::Duration;

/// The settings of one [`super::Cloud`].
#[derive(Clone, Debug)]
pub struct CloudConfig {
    /// `aws`, `aws-cn`, `aws-us-gov`, …
    pub partition: String,
    /// The Region of everything but IAM.
    pub region: String,
    /// The account, 12 digits.
    pub account: String,
    /// The IPv4 range that tasks' addresses come from, as `10.0.0.0/16`. The first four addresses and the last
    /// are kept back, as in a VPC. A text that is no such range counts as `10.0.0.0/16`.
    pub subnet: String,
    /// Decides every random choice and every id.
    pub seed: u64,
    /// How long tasks stay in each state.
    pub life: LifeTimes,
    /// Which address a new task gets.
    pub reuse_addresses: AddressReuse,
    /// How events reach the targets of rules.
    pub delivery: Delivery,
    /// Request quotas; `None` never throttles.
    pub throttling: Option<Throttling>,
    /// Lets `PutEvents` send events whose source starts with `aws.`, which AWS refuses.
    pub accept_aws_sources: bool,
    /// How far back `…_as_of` can look.
    pub history: Duration,
}

impl Default for CloudConfig {
    fn default() -> Self {
        Self {
            partition: "aws".into(),
            region: "eu-west-1".into(),
            account: "111122223333".into(),
            subnet: "10.0.0.0/16".into(),
            seed: 1,
            life: LifeTimes::default(),
            reuse_addresses: AddressReuse::Fifo,
            delivery: Delivery::default(),
            throttling: None,
            accept_aws_sources: false,
            history: Duration::from_mins(5),
        }
    }
}

/// How long a task stays in each state of its life, and how fast the service scheduler is.
#[derive(Clone, Debug)]
pub struct LifeTimes {
    /// PROVISIONING; the address comes after half of it.
    pub provisioning: Duration,
    /// PENDING.
    pub pending: Duration,
    /// ACTIVATING.
    pub activating: Duration,
    /// RUNNING although STOPPED is desired.
    pub draining: Duration,
    /// DEACTIVATING.
    pub deactivating: Duration,
    /// STOPPING: the stop grace between SIGTERM and SIGKILL.
    pub stopping: Duration,
    /// DEPROVISIONING; the address is free from its beginning on.
    pub deprovisioning: Duration,
    /// How long DescribeTasks still knows a stopped task.
    pub stopped_kept: Duration,
    /// How long the service scheduler takes to notice a change.
    pub scheduling: Duration,
}

impl Default for LifeTimes {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            provisioning: ms(300),
            pending: ms(200),
            activating: ms(100),
            draining: ms(100),
            deactivating: ms(100),
            stopping: ms(300),
            deprovisioning: ms(200),
            stopped_kept: Duration::from_hours(1),
            scheduling: ms(50),
        }
    }
}

/// Which address a new task gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressReuse {
    /// The address freed last, even a moment ago; a new one only where none is free. The harshest world.
    Immediate,
    /// New addresses until the subnet is used up, then the one freed last.
    Lifo,
    /// New addresses until the subnet is used up, then the one free for longest.
    Fifo,
}

/// How events reach the targets of rules. Messages sent to a queue directly are never touched.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// The probability that an event is delivered twice.
    pub duplicate: f64,
    /// The probability that an event is not delivered.
    pub lose: f64,
    /// The shortest delay of a delivery.
    pub delay_min: Duration,
    /// The longest delay of a delivery; each is drawn evenly.
    pub delay_max: Duration,
    /// Hands out messages out of order, within a window of 64.
    pub shuffle: bool,
    /// The probability that an event comes once more after `replay_after`, long out of date.
    pub replay: f64,
    /// When such a late copy comes.
    pub replay_after: Duration,
}

/// Token buckets over operations.
#[derive(Clone, Debug)]
pub struct Throttling {
    /// An operation takes a token from each bucket that names it.
    pub buckets: Vec<Bucket>,
}

/// One token bucket, shared by the operations it names.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// `service.Operation`, such as `ecs.ListTasks`.
    pub operations: Vec<String>,
    /// How many calls may come at once.
    pub burst: f64,
    /// How many tokens come back a second.
    pub per_second: f64,
}

impl Throttling {
    /// The request quotas that ECS publishes for an account and Region, and a modest one for IAM, which
    /// publishes none.
    ///
    /// Source: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html>.
    pub fn published() -> Self {
        let bucket = |operations: &[&str], burst: f64, per_second: f64| Bucket {
            operations: operations.iter().map(|&operation| operation.to_owned()).collect(),
            burst,
            per_second,
        };
        Self {
            buckets: vec![
                bucket(
                    &[
                        "ecs.ListTasks",
                        "ecs.DescribeTasks",
                        "ecs.ListContainerInstances",
                        "ecs.DescribeContainerInstances",
                    ],
                    100.0,
                    20.0,
                ),
                bucket(&["ecs.DescribeTaskDefinition"], 50.0, 20.0),
                bucket(&["ecs.ListTagsForResource"], 50.0, 20.0),
                bucket(&["iam.GetRole", "iam.ListRoleTags", "iam.ListRoles"], 100.0, 20.0),
            ],
        }
    }
}
