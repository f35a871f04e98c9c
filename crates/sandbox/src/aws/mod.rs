//! An in-process AWS: ECS, SQS, EventBridge, IAM and STS as far as the operator and boto3 need them.
//!
//! [`Cloud`] is a synchronous state machine: the same configuration, seed, calls and times give the same world,
//! byte for byte, which is what lets a simulation replay a seed. [`serve`] puts the real wire protocols in front
//! of one, so that any AWS SDK can be pointed at it.

mod cloud;
mod config;
mod error;
mod wire;

pub use cloud::{
    AssumeRole, AssumedRole, CloudTask, Cluster, CreateRole, CreateService, DefinitionRecord, DescribedTasks,
    ListTasks, ArnPage, MessageAttribute, Network, PutEvent, PutEventOutcome, QueueCounts, ReceiveMessages,
    ReceivedMessage, RegisterTaskDefinition, IamRole, EventBridgeRule, RunTask, SendMessage, SentMessage, EcsService,
    StopCode, RuleTarget, TaskOverrides, UpdateService, pattern_matches,
};
pub use cloud::{BatchFailure, Cloud, DescribeFailure};
pub use config::{AddressReuse, Bucket, CloudConfig, Delivery, LifeTimes, Throttling};
pub use error::{AwsApiError, AwsApiResult};
pub use wire::{AwsFault, AwsFaults, AwsFront, NoAwsFaults, QueryAnswer, query, serve};
