//! `AwsAccount`: how the operator reads an account other than its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{limits, patterns};

/// An account whose clusters bindings select, and that is not the operator's own.
///
/// The operator assumes a role in it. Its own account needs no `AwsAccount`, in any Region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsAccountSpec {
    /// The account's id.
    #[schemars(schema_with = "patterns::account")]
    pub account: String,
    /// ARN of the role to assume.
    ///
    /// In this account. Its trust policy admits the operator's task role, and requires `externalId`.
    #[schemars(schema_with = "patterns::role_arn")]
    pub assume_role: String,
    /// External id that the role's trust policy requires; default: none is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::external_id")]
    pub external_id: Option<String>,
    /// Regions of the account whose clusters are read.
    ///
    /// Patterns of bindings select clusters of these Regions. A cluster of another Region is not read, and its
    /// registrations are kept.
    #[schemars(length(min = 1), schema_with = "patterns::regions")]
    pub regions: Vec<String>,
    /// Rate limits of reads, for this account in each of its Regions.
    #[serde(default, skip_serializing_if = "AccountReadRates::is_default")]
    pub reads_per_second: AccountReadRates,
}

/// Rate limits of reads in one account and Region, in calls a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AccountReadRates {
    /// Of ECS; default: `--ecs-reads-per-second`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *limits::READS_PER_SECOND.start(), max = *limits::READS_PER_SECOND.end()))]
    pub ecs: Option<u16>,
    /// Of task definitions; default: `--definition-reads-per-second`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *limits::READS_PER_SECOND.start(), max = *limits::READS_PER_SECOND.end()))]
    pub definitions: Option<u16>,
    /// Of roles, in all Regions of the account together; default: `--role-reads-per-second`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *limits::READS_PER_SECOND.start(), max = *limits::READS_PER_SECOND.end()))]
    pub roles: Option<u16>,
}

impl AccountReadRates {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
