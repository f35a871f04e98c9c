//! Observes AWS: tasks, task definitions, role tags and queue messages. Makes no decision about registrations.
//!
//! - [`aws`]: the calls as traits; [`sdk`]: their implementation with the AWS SDK.
//! - [`consumer`] receives messages, [`events`] decodes them, [`hint_resolver`] describes the tasks that they name.
//!   [`queue_backlog`] lets receives go first.
//! - [`service_reader`] describes services, and reads and sets the protection of their tasks.
//! - [`store`] keeps the newest state of each task; [`task_describer`], [`task_definition_cache`], [`role_tag_cache`] and
//!   [`host_address_cache`] read from AWS below its quotas.
//! - [`read_buckets`]: the rate limits of reads, by account and Region. [`sdk::SdkAccounts`] calls the account and Region of
//!   each ARN.
//! - [`token_store`]: where tokens for sidecars are kept; [`metered_token_store`]: the same below AWS's quotas.
//!
//! ```
//! use ecs_mesh_aws::events::{Decoded, decode};
//!
//! let body = r#"{"source": "aws.ecs", "detail-type": "ECS Service Action", "detail": {}}"#;
//! assert_eq!(decode(body), Decoded::Ignored { detail_type: "service_action" });
//! assert!(matches!(decode("{not json"), Decoded::Poison { .. }));
//! ```

#![forbid(unsafe_code)]

pub mod aws;
pub mod cluster_checker;
pub mod consumer;
pub mod events;
mod fact_cache;
#[cfg(any(test, feature = "testing"))]
pub mod fakes;
pub mod hint_resolver;
pub mod host_address_cache;
pub mod inspect;
pub mod metered_token_store;
pub mod queue_backlog;
pub mod read_buckets;
pub mod role_tag_cache;
pub mod sdk;
pub mod service_reader;
pub mod store;
pub mod task_definition_cache;
pub mod task_describer;
pub mod token_store;
