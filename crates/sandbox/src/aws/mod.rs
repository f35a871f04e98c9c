//! An in-process AWS account: the parts of ECS, SQS, EventBridge, IAM, STS and DynamoDB that the operator and its tests use.
//!
//! [`Cloud`] is a synchronous state machine: the same configuration, seed, calls and times give the same state, byte
//! for byte. [`serve`] adds the wire protocols, so that AWS SDKs can call it.

mod cloud;
mod config;
mod error;
mod wire;

pub use cloud::{
    ArnPage, AssumeRole, AssumedRole, CloudTask, Cluster, ContainerState, ContainerStatus, CreateRole,
    CreateService, DefinitionRecord, DescribedTasks, EcsService, EventBridgeRule, HealthStatus, IamRole,
    ItemCondition, ItemTable, ListTasks, MessageAttribute, Network, ProtectedTask, PutEvent, PutEventOutcome,
    QueueCounts, ReceiveMessages, ReceivedMessage, RegisterTaskDefinition, RuleTarget, RunTask, SendMessage,
    SentMessage, StopCode, StoredItem, TaskOverrides, TaskProtections, UpdateService, UpdateTaskProtection,
    pattern_matches,
};
pub use cloud::{BatchFailure, Cloud, DescribeFailure};
pub use cloud::{BucketPage, CreateSecret, PutParameter, S3Object, StoredParameter, StoredSecret};
pub use cloud::{EXIT_CODE_LABEL, EXITS_LABEL, READY_LABEL, SERVING_LABEL};
pub use config::{AddressReuse, Bucket, CloudConfig, Delivery, LifeTimes, Throttling};
pub use error::{AwsApiError, AwsApiResult};
pub use wire::{AwsCall, AwsFault, AwsFaults, AwsFront, NoAwsFaults, QueryAnswer, query, serve};
