//! The AWS calls that the operator makes, as traits: production has the SDK behind them, a simulation has a world.

use async_trait::async_trait;

use ecs_mesh_controller::BatchError;
use ecs_mesh_model::{
    ClusterArn, DesiredStatus, RoleArn, Tags, Task, TaskArn, TaskDefinition, TaskDefinitionArn, TaskId,
    Timestamp, Reason,
};

/// What kind of failure a call ended in: what the caller may do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AwsErrorKind {
    /// Too many calls; slow down.
    Throttled,
    /// Time-outs, connection failures, 5xx: worth another try.
    Unavailable,
    /// The caller's permissions do not reach.
    Denied,
    /// Missing, invalid or expired credentials.
    Credentials,
    /// The thing that was named does not exist (or not yet: AWS is eventually consistent).
    NotFound,
    /// Anything else; trying the same again will not help.
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

/// A failed AWS call, with words for a person: which call on which resource, what AWS said, what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} on {resource} failed: {code}: {message}{hint}")]
pub struct AwsError {
    /// What may be done about it.
    pub kind: AwsErrorKind,
    /// `ecs:DescribeTasks` and its like.
    pub operation: &'static str,
    /// The resource that the call was about.
    pub resource: String,
    /// AWS's error code, or `timeout`, `connection`, `credentials`.
    pub code: String,
    /// AWS's message, cut to a few hundred characters, without secrets.
    pub message: String,
    /// What to do next; empty, or starting with `; `.
    pub hint: &'static str,
}

impl From<AwsError> for Reason {
    /// What AWS says names the resource and the caller: the cause is the call and the code.
    fn from(error: AwsError) -> Self {
        Self::new(format!("{} {}", error.operation, error.code), error.to_string())
    }
}

/// Why a shared call gave nothing.
pub(crate) fn why(error: BatchError<AwsError>) -> Reason {
    match error {
        BatchError::Call(error) => error.into(),
        error => Reason::constant(error.to_string()),
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage<T> {
    /// What is on it; may be empty although more follows.
    pub items: Vec<T>,
    /// The token of the next page. Only its absence ends a list.
    pub next: Option<String>,
}

/// DescribeTasks' answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribeTasksOutput {
    /// The tasks that were found.
    pub tasks: Vec<Task>,
    /// Tasks that ECS says are MISSING: long gone, or not visible yet.
    pub missing: Vec<TaskId>,
    /// Tasks that failed for another reason, with it. Nothing is known of these.
    pub failed: Vec<(TaskId, String)>,
}

/// The part of ECS that the operator reads.
#[async_trait]
pub trait Ecs: Send + Sync {
    /// Clusters of the account and Region, a page at a time.
    async fn list_clusters(&self, page: Option<String>) -> Result<ListPage<ClusterArn>, AwsError>;

    /// Tasks of a cluster with this desired status, a page (100) at a time.
    async fn list_tasks(
        &self,
        cluster: &ClusterArn,
        desired: DesiredStatus,
        page: Option<String>,
    ) -> Result<ListPage<TaskArn>, AwsError>;

    /// Up to 100 tasks of one cluster, with their ECS tags.
    async fn describe_tasks(&self, cluster: &ClusterArn, tasks: &[TaskId]) -> Result<DescribeTasksOutput, AwsError>;

    /// One revision of a task definition; it never changes.
    async fn describe_task_definition(&self, arn: &TaskDefinitionArn) -> Result<TaskDefinition, AwsError>;
}

/// The part of IAM that the operator reads.
#[async_trait]
pub trait Iam: Send + Sync {
    /// All tags of a role. `NotFound` is `NoSuchEntity`, which proves nothing until read twice.
    async fn role_tags(&self, role: &RoleArn) -> Result<Tags, AwsError>;
}

/// A message as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueMessage {
    /// For deletion; valid until the visibility time-out.
    pub receipt: String,
    /// The body: an EventBridge envelope, or anything.
    pub body: String,
    /// `SentTimestamp`.
    pub sent_at: Option<Timestamp>,
    /// `ApproximateReceiveCount`.
    pub receives: u32,
}

/// The one queue that the operator reads.
#[async_trait]
pub trait EventQueue: Send + Sync {
    /// Up to 10 messages, waiting up to 20 s for the first.
    async fn receive(&self) -> Result<Vec<QueueMessage>, AwsError>;

    /// Deletes up to 10 messages; gives back the receipts that failed.
    async fn delete(&self, receipts: &[String]) -> Result<Vec<String>, AwsError>;

    /// Makes up to 10 messages visible again at once, for whoever comes next.
    async fn release(&self, receipts: &[String]) -> Result<(), AwsError>;
}
