//! `MeshBinding.spec.tokens`: data plane tokens that the operator issues.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, limits, patterns};

/// Data plane tokens for sidecars of open-source Kuma, one for each workload.
///
/// For control planes with `KUMA_DP_SERVER_AUTHN_DP_PROXY_TYPE=dpToken`. A token is bound to the mesh and to the label
/// `kuma.io/workload` (Kuma 2.13 and later) or the tag `kuma.io/service`. It is stored as
/// `PATH/MESH/WORKLOAD/token`, where task definitions read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TokenPolicy {
    /// Issue, rotate and revoke tokens.
    ///
    /// Needs an admin's user token and permissions for the store. `false` with a `path` revokes and removes the tokens that
    /// were issued below it.
    pub issue: bool,
    /// Where tokens are stored.
    pub store: TokenStoreKind,
    /// Path of the stored tokens, which no other binding has.
    ///
    /// Required where tokens are issued. A secret or parameter below it that has not this operator's tags is left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::token_path")]
    pub path: Option<String>,
    /// KMS key of stored tokens: an ARN, an id or `alias/NAME`; default: the key of the store.
    ///
    /// Another key applies to a token when it is rotated, and at Secrets Manager only to new secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::kms_key")]
    pub kms_key: Option<String>,
    /// How long a token is valid.
    #[schemars(extend("x-allowed" = limits::TOKEN_VALID_FOR.description))]
    pub valid_for: HumanDuration,
    /// How long before its end a token is replaced; at most half of `validFor`.
    #[schemars(extend("x-allowed" = limits::TOKEN_ROTATE_BEFORE.description))]
    pub rotate_before: HumanDuration,
    /// How long a replaced token stays valid before it is revoked; at most `rotateBefore`.
    ///
    /// Tasks that started with it can connect again until then, so they must be replaced within this time. Connected
    /// sidecars keep their stream.
    #[schemars(extend("x-allowed" = limits::TOKEN_OVERLAP.description))]
    pub overlap: HumanDuration,
}

impl Default for TokenPolicy {
    fn default() -> Self {
        Self {
            issue: false,
            store: TokenStoreKind::default(),
            path: None,
            kms_key: None,
            valid_for: HumanDuration(Duration::from_hours(30 * 24)),
            rotate_before: HumanDuration(Duration::from_hours(10 * 24)),
            overlap: HumanDuration(Duration::from_hours(7 * 24)),
        }
    }
}

/// Where tokens are stored.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum TokenStoreKind {
    /// AWS Secrets Manager.
    #[default]
    SecretsManager,
    /// SSM Parameter Store, as `SecureString`.
    ParameterStore,
}

impl TokenStoreKind {
    /// The text in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SecretsManager => "secretsManager",
            Self::ParameterStore => "parameterStore",
        }
    }
}
