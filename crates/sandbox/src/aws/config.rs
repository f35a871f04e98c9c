//! Settings of the emulated AWS account.

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
    /// IPv4 range of task addresses, such as `10.0.0.0/16`. The first four addresses and the last are reserved, as in
    /// a VPC. An invalid range counts as `10.0.0.0/16`.
    pub subnet: String,
    /// Seed of all random choices and ids.
    pub seed: u64,
    /// Durations of task states.
    pub life: LifeTimes,
    /// Address of a new task.
    pub reuse_addresses: AddressReuse,
    /// Faults of event delivery.
    pub delivery: Delivery,
    /// Request quotas; `None` disables throttling.
    pub throttling: Option<Throttling>,
    /// Whether `PutEvents` accepts sources that start with `aws.`, which AWS rejects.
    pub accept_aws_sources: bool,
    /// How long past states are kept for `…_as_of`.
    pub history: Duration,
    /// Number of container instances of each cluster. A `DAEMON` service has a task on each; the other tasks on EC2
    /// are on the first, since placement is not emulated.
    pub container_instances: usize,
    /// Whether the interfaces of tasks and of container instances also have an IPv6 address.
    pub dual_stack: bool,
    /// How long credentials of assumed roles are valid, in place of what callers ask for.
    pub session_lifetime: Option<Duration>,
    /// The URL of the account's API, if it is not AWS's own.
    pub endpoint: Option<String>,
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
            container_instances: 1,
            dual_stack: false,
            session_lifetime: None,
            endpoint: None,
        }
    }
}

/// Durations of task states, and the delays of containers and of the service scheduler.
///
/// The default is about fifty times as fast as AWS, except that a running task of a service counts as healthy at once.
/// Docker labels of a container definition override what the defaults say about its container: see
/// [`super::READY_LABEL`] and the other labels.
#[derive(Clone, Debug)]
pub struct LifeTimes {
    /// PROVISIONING; the address is assigned after half of it.
    pub provisioning: Duration,
    /// PENDING until the images are pulled. Then containers start, in the order of their dependencies.
    pub pending: Duration,
    /// From the start of a container until it is RUNNING.
    pub container_start: Duration,
    /// ACTIVATING: all containers run.
    pub activating: Duration,
    /// From RUNNING of a container until it answers on its port, and so passes its health check.
    pub ready: Duration,
    /// How long a task of a service must run until it counts towards `minimumHealthyPercent`, if none of its essential
    /// containers has a health check. 40 s at AWS; zero by default.
    pub unchecked_healthy: Duration,
    /// Factor of the times in task definitions: `stopTimeout`, and those of health checks.
    pub time_scale: f64,
    /// RUNNING with desired status STOPPED.
    pub draining: Duration,
    /// DEACTIVATING.
    pub deactivating: Duration,
    /// How long a container answers after SIGTERM.
    pub serving: Duration,
    /// From SIGTERM until a container exits, if it does not serve longer. STOPPING ends when all containers have exited.
    pub stopping: Duration,
    /// DEPROVISIONING; the address is released at its beginning.
    pub deprovisioning: Duration,
    /// How long DescribeTasks returns a stopped task.
    pub stopped_kept: Duration,
    /// Delay of the service scheduler after a change.
    pub scheduling: Duration,
}

impl Default for LifeTimes {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            provisioning: ms(300),
            pending: ms(200),
            container_start: Duration::ZERO,
            activating: ms(100),
            ready: ms(600),
            unchecked_healthy: Duration::ZERO,
            time_scale: 0.02,
            draining: ms(100),
            deactivating: ms(100),
            serving: Duration::ZERO,
            stopping: ms(300),
            deprovisioning: ms(200),
            stopped_kept: Duration::from_hours(1),
            scheduling: ms(50),
        }
    }
}

/// Address of a new task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressReuse {
    /// The address released last; an unused one only if none was released. The hardest case for the operator.
    Immediate,
    /// Unused addresses until the subnet is used up, then the address released last.
    Lifo,
    /// Unused addresses until the subnet is used up, then the address released first.
    Fifo,
}

/// Faults of event delivery to rule targets. Messages sent to a queue directly are not affected.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// The probability that an event is delivered twice.
    pub duplicate: f64,
    /// The probability that an event is not delivered.
    pub lose: f64,
    /// Minimum delivery delay.
    pub delay_min: Duration,
    /// Maximum delivery delay; drawn uniformly.
    pub delay_max: Duration,
    /// Whether messages are reordered, within a window of 64.
    pub shuffle: bool,
    /// The probability that an event is delivered again after `replay_after`.
    pub replay: f64,
    /// Delay of the repeated delivery.
    pub replay_after: Duration,
}

/// Request quotas as token buckets.
#[derive(Clone, Debug)]
pub struct Throttling {
    /// Buckets. An operation takes a token from each bucket that contains it.
    pub buckets: Vec<Bucket>,
}

/// A token bucket of one or more operations.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// `service.Operation`, such as `ecs.ListTasks`.
    pub operations: Vec<String>,
    /// Capacity.
    pub burst: f64,
    /// Refill rate.
    pub per_second: f64,
}

impl Throttling {
    /// The published request quotas of ECS for an account and Region, and an assumed one for IAM, which publishes
    /// none. Of EC2 the bucket of reads with a filter and pages.
    ///
    /// Sources: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html>,
    /// <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html>.
    pub fn published() -> Self {
        let bucket = |operations: &[&str], burst: f64, per_second: f64| Bucket {
            operations: operations.iter().map(|&operation| operation.to_owned()).collect(),
            burst,
            per_second,
        };
        Self {
            buckets: vec![
                bucket(
                    &["ecs.ListTasks", "ecs.DescribeTasks", "ecs.DescribeContainerInstances"],
                    100.0,
                    20.0,
                ),
                bucket(&["ecs.DescribeTaskDefinition"], 50.0, 20.0),
                bucket(&["iam.GetRole"], 100.0, 20.0),
                bucket(&["ec2.DescribeInstances"], 100.0, 20.0),
            ],
        }
    }
}
