//! `ControlPlane`: where a mesh's control plane is, and how to reach it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, limits, words};

/// A control plane to keep right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = words::block_of_type("kuma")))]
pub struct ControlPlaneSpec {
    /// Which kind of control plane; the block of the same name must be given.
    #[serde(rename = "type")]
    pub kind: ControlPlaneType,
    /// Connection to a Kuma / Kong Mesh control plane (of a zone, or standalone).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kuma: Option<KumaConnection>,
    /// Most writes a second that the operator sends to it.
    #[serde(default = "default_writes_per_second")]
    #[schemars(range(min = *limits::WRITES_PER_SECOND.start(), max = *limits::WRITES_PER_SECOND.end()))]
    pub writes_per_second: u32,
}

fn default_writes_per_second() -> u32 {
    500
}

/// The kinds of control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ControlPlaneType {
    /// Kuma, or Kong Mesh, which speaks the same API.
    Kuma,
}

/// How to reach a Kuma control plane's REST API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("allOf" = words::not_both([("caFile", "caEnv"), ("tokenFile", "tokenEnv")])))]
pub struct KumaConnection {
    /// The API's address: port 5681 for http, 5682 for https. Without a path, unless a proxy adds one.
    #[schemars(schema_with = "words::api_address")]
    pub address: String,
    /// PEM file with the CA that signed the server's certificate; without it the system's roots count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::path")]
    pub ca_file: Option<PathBuf>,
    /// Environment variable that holds that PEM text, instead of `caFile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::variable")]
    pub ca_env: Option<String>,
    /// File with the user token; read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::path")]
    pub token_file: Option<PathBuf>,
    /// Environment variable that holds the user token, instead of `tokenFile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::variable")]
    pub token_env: Option<String>,
    /// Longest wait for one answer.
    #[serde(default = "default_timeout")]
    #[schemars(extend("x-allowed" = limits::TIMEOUT.words))]
    pub timeout: HumanDuration,
}

fn default_timeout() -> HumanDuration {
    HumanDuration(std::time::Duration::from_secs(5))
}
