//! The AWS calls of the operator, as traits. Implemented by [`sdk`](crate::sdk) and by the simulation.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use ecs_mesh_controller::BatchError;
use ecs_mesh_model::{
    AccountRegion, ClusterArn, ContainerInstanceArn, DesiredStatus, EcsServiceState, InterfaceAddresses,
    Reason, RoleArn, Tags, Task, TaskArn, TaskDefinition, TaskDefinitionArn, TaskId, Timestamp,
};

/// Kind of a failed call, which decides how the caller reacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AwsErrorKind {
    /// Too many calls: slow down.
    Throttled,
    /// Time-outs, connection failures, 5xx: retry.
    Unavailable,
    /// The caller lacks a permission.
    Denied,
    /// Missing, invalid or expired credentials.
    Credentials,
    /// The resource does not exist, or not yet: AWS is eventually consistent.
    NotFound,
    /// Anything else: a retry does not help.
    Invalid,
}

impl AwsErrorKind {
    /// A bounded label for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Denied => "access_denied",
            Self::Credentials => "credentials",
            Self::NotFound => "not_found",
            Self::Invalid => "invalid",
        }
    }
}

/// A failed AWS call: the operation, the resource, AWS's message and the next step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} on {resource} failed: {code}: {message}{hint}")]
pub struct AwsError {
    /// The kind of failure.
    pub kind: AwsErrorKind,
    /// The operation, such as `ecs:DescribeTasks`.
    pub operation: &'static str,
    /// The resource of the call.
    pub resource: String,
    /// AWS's error code, or `timeout`, `connection`, `credentials`.
    pub code: String,
    /// AWS's message, shortened, without secrets.
    pub message: String,
    /// The next step; empty, or starting with `; `.
    pub hint: &'static str,
}

impl From<AwsError> for Reason {
    /// AWS's message contains the resource and the caller, so the key is the operation and the code.
    fn from(error: AwsError) -> Self {
        Self::new(format!("{} {}", error.operation, error.code), error.to_string())
    }
}

/// The reason why a batched call failed.
pub(crate) fn batch_failure(error: BatchError<AwsError>) -> Reason {
    match error {
        BatchError::Call(error) => error.into(),
        error => Reason::constant(error.to_string()),
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage<T> {
    /// The items; may be empty although more pages follow.
    pub items: Vec<T>,
    /// Why items of the page were skipped: each has a form that this version does not know. The others are complete.
    pub skipped: Vec<String>,
    /// The token of the next page; `None` on the last page.
    pub next: Option<String>,
}

/// The result of DescribeTasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribeTasksOutput {
    /// Found tasks.
    pub tasks: Vec<Task>,
    /// Tasks reported as MISSING: long gone, or not visible yet.
    pub missing: Vec<TaskId>,
    /// Tasks that failed for another reason. Their state is unknown.
    pub failed: Vec<(TaskId, String)>,
}

/// The existence of a cluster, as `DescribeClusters` reports it.
///
/// Source: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Cluster.html> (`status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClusterStatus {
    /// It exists: `ACTIVE`, or a state of its capacity providers.
    Exists,
    /// `INACTIVE`: it was deleted, which ECS permits only without tasks.
    Inactive,
    /// Not found: it was deleted long ago, or has never existed.
    Missing,
}

/// The result of DescribeServices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribeServicesOutput {
    /// Found services, by name.
    pub services: BTreeMap<String, EcsServiceState>,
    /// Services reported as MISSING, by name: deleted long ago, or not visible yet.
    pub missing: BTreeSet<String>,
    /// Services that failed for another reason, or with an unreadable answer: name and reason.
    pub failed: BTreeMap<String, String>,
}

/// The result of DescribeContainerInstances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribeContainerInstancesOutput {
    /// The EC2 instance of each found container instance.
    pub ec2_ids: BTreeMap<ContainerInstanceArn, String>,
    /// Container instances that are missing, failed, or are no EC2 instances: with the reason.
    pub failed: BTreeMap<ContainerInstanceArn, String>,
}

/// The scale-in protection of tasks, as GetTaskProtection shows it and UpdateTaskProtection answers. A task that neither map
/// has was not in the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskProtectionOutput {
    /// When each task's protection expires, by ECS's clock; `None` if it has none.
    pub tasks: BTreeMap<TaskId, Option<Timestamp>>,
    /// Tasks that failed, with ECS's reason: `MISSING`, `TASK_NOT_VALID` (no task of a service, or one that is being stopped)
    /// or `DEPLOYMENT_BLOCKED`.
    ///
    /// Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/api_failures_messages.html>.
    pub failed: BTreeMap<TaskId, String>,
}

/// The operator's calls to ECS.
#[async_trait]
pub trait Ecs: Send + Sync {
    /// Clusters of the account and Region, a page at a time.
    async fn list_clusters(&self, page: Option<String>) -> Result<ListPage<ClusterArn>, AwsError>;

    /// As [`Self::list_clusters`], of this account and Region. An implementation of one account and Region has no other.
    async fn list_clusters_in(
        &self,
        place: &AccountRegion,
        page: Option<String>,
    ) -> Result<ListPage<ClusterArn>, AwsError> {
        let _ = place;
        self.list_clusters(page).await
    }

    /// Whether a cluster exists.
    async fn describe_cluster(&self, cluster: &ClusterArn) -> Result<ClusterStatus, AwsError>;

    /// Tasks of a cluster with this desired status, a page (100) at a time.
    async fn list_tasks(
        &self,
        cluster: &ClusterArn,
        desired: DesiredStatus,
        page: Option<String>,
    ) -> Result<ListPage<TaskArn>, AwsError>;

    /// Up to 100 tasks of one cluster, with their ECS tags.
    async fn describe_tasks(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskId],
    ) -> Result<DescribeTasksOutput, AwsError>;

    /// One revision of a task definition; it never changes.
    async fn describe_task_definition(&self, arn: &TaskDefinitionArn) -> Result<TaskDefinition, AwsError>;

    /// Up to 10 services of one cluster, with their deployments.
    async fn describe_services(
        &self,
        cluster: &ClusterArn,
        names: &[String],
    ) -> Result<DescribeServicesOutput, AwsError>;

    /// Up to 100 container instances of one cluster.
    async fn describe_container_instances(
        &self,
        cluster: &ClusterArn,
        instances: &[ContainerInstanceArn],
    ) -> Result<DescribeContainerInstancesOutput, AwsError>;

    /// The scale-in protection of up to 100 tasks of services of one cluster.
    async fn task_protection(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskId],
    ) -> Result<TaskProtectionOutput, AwsError>;

    /// Protects up to 10 tasks of services of one cluster from scale-in and deployments for `minutes` (1 to 2,880), or, with
    /// `None`, ends their protection. A write: whatever the protection was before is replaced.
    ///
    /// Source: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateTaskProtection.html>.
    async fn update_task_protection(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskId],
        minutes: Option<u16>,
    ) -> Result<TaskProtectionOutput, AwsError>;
}

/// EC2 reads of the operator.
#[async_trait]
pub trait Ec2: Send + Sync {
    /// The addresses of the primary interface of up to 100 instances. Instances that EC2 does not find are left out.
    async fn instance_addresses(
        &self,
        ids: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, InterfaceAddresses>, AwsError>;

    /// As [`Self::instance_addresses`], in this account and Region. An implementation of one account and Region has no other.
    async fn instance_addresses_in(
        &self,
        place: &AccountRegion,
        ids: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, InterfaceAddresses>, AwsError> {
        let _ = place;
        self.instance_addresses(ids).await
    }
}

/// An account other than the operator's own, as manifests declare it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberAccount {
    /// The role to assume, in this account.
    pub role: RoleArn,
    /// The external id that the role's trust policy requires.
    pub external_id: Option<String>,
    /// The Regions that are read.
    pub regions: BTreeSet<String>,
}

/// Where the accounts are set that the operator may read beside its own.
pub trait MemberAccounts: Send + Sync {
    /// Replaces the accounts. Sessions of accounts that have not changed go on.
    fn set_members(&self, members: Vec<MemberAccount>);
}

/// Has one account.
impl MemberAccounts for () {
    fn set_members(&self, _: Vec<MemberAccount>) {}
}

/// An item of a table of DynamoDB, or its key: attributes by name.
pub type TableItem = BTreeMap<String, ItemAttribute>;

/// An attribute's value. Other types are not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemAttribute {
    /// A text.
    #[serde(rename = "S")]
    Text(String),
    /// A number, in decimal.
    #[serde(rename = "N")]
    Number(String),
}

/// The condition on the item with the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutCondition {
    /// There is none: it would have this attribute.
    Missing(&'static str),
    /// This attribute has this value.
    Equals(&'static str, ItemAttribute),
}

/// A conditional write of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemPut<'a> {
    /// The table.
    pub table: &'a str,
    /// The complete item with its key.
    pub item: &'a TableItem,
    /// The condition.
    pub condition: PutCondition,
}

/// The operator's calls to DynamoDB.
#[async_trait]
pub trait DynamoDb: Send + Sync {
    /// The item of this key, as it was after every write that was answered before.
    async fn get_item(&self, table: &str, key: &TableItem) -> Result<Option<TableItem>, AwsError>;

    /// Replaces an item; `false` if the condition does not hold.
    async fn put_item(&self, put: &ItemPut<'_>) -> Result<bool, AwsError>;
}

/// An event for a bus of EventBridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusEvent {
    /// `Time`, by the wall clock.
    pub at: Timestamp,
    /// `Source`.
    pub source: &'static str,
    /// `DetailType`.
    pub detail_type: &'static str,
    /// `Resources`: ARNs.
    pub resources: Vec<String>,
    /// `Detail`: a JSON object as text.
    pub detail: String,
}

impl BusEvent {
    /// The size that counts towards the limit of a call, in bytes.
    ///
    /// Source: <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevent-size.html>.
    pub fn size(&self) -> usize {
        const TIME: usize = 14;
        let resources: usize = self.resources.iter().map(String::len).sum();
        TIME + self.source.len() + self.detail_type.len() + self.detail.len() + resources
    }
}

/// Why EventBridge did not take one event of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedEvent {
    /// The kind of failure.
    pub kind: AwsErrorKind,
    /// EventBridge's code, such as `InternalFailure`.
    pub code: String,
    /// EventBridge's message, shortened, without secrets.
    pub message: String,
}

/// A bus of EventBridge.
#[async_trait]
pub trait EventBus: Send + Sync {
    /// Sends 1 to 10 events. Returns the result of each, in order.
    async fn put(&self, events: &[BusEvent]) -> Result<Vec<Result<(), RefusedEvent>>, AwsError>;
}

/// IAM reads of the operator.
#[async_trait]
pub trait Iam: Send + Sync {
    /// All tags of a role. `NotFound` (`NoSuchEntity`) is evidence only when two reads agree.
    async fn role_tags(&self, role: &RoleArn) -> Result<Tags, AwsError>;
}

/// A received message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueMessage {
    /// Receipt handle for deletion; valid until the visibility time-out.
    pub receipt: String,
    /// The body, usually an EventBridge envelope.
    pub body: String,
    /// `SentTimestamp`.
    pub sent_at: Option<Timestamp>,
    /// `ApproximateReceiveCount`.
    pub receives: u32,
}

/// The event queue.
#[async_trait]
pub trait EventQueue: Send + Sync {
    /// The queue's name, for metrics.
    #[allow(clippy::unnecessary_literal_bound, reason = "other queues own their name")]
    fn name(&self) -> &str {
        "events"
    }

    /// Up to 10 messages, waiting up to 20 s for the first.
    async fn receive(&self) -> Result<Vec<QueueMessage>, AwsError>;

    /// Deletes up to 10 messages and returns the receipts that failed.
    async fn delete(&self, receipts: &[String]) -> Result<Vec<String>, AwsError>;

    /// Makes up to 10 messages visible to other receivers at once.
    async fn release(&self, receipts: &[String]) -> Result<(), AwsError>;
}
