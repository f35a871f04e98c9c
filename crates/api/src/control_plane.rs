//! `ControlPlane`: where a mesh's control plane is, and how to reach it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, limits, patterns};

/// A control plane to keep right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = patterns::block_of_type(["kuma", "consul"])))]
pub struct ControlPlaneSpec {
    /// Which kind of control plane; the block of the same name must be given.
    #[serde(rename = "type")]
    pub kind: ControlPlaneType,
    /// Connection to a Kuma / Kong Mesh control plane (of a zone, or standalone).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kuma: Option<KumaConnection>,
    /// Connection to Consul servers (1.12 or later for AWS IAM logins).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consul: Option<ConsulConnection>,
    /// Most writes a second that the operator sends to it. Services that go out of Consul's catalog many in a
    /// transaction are one write.
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
    /// Consul's service mesh.
    Consul,
}

impl ControlPlaneType {
    /// As written in a manifest; also a bounded label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kuma => "kuma",
            Self::Consul => "consul",
        }
    }

    /// Whether tasks register and identify themselves there, so that the operator creates and drains nothing for them,
    /// and only takes away what they leave behind.
    pub fn tasks_register_themselves(self) -> bool {
        self == Self::Consul
    }
}

/// How to reach a Kuma control plane's REST API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("allOf" = patterns::not_both([("caFile", "caEnv"), ("tokenFile", "tokenEnv")])))]
pub struct KumaConnection {
    /// The API's address: port 5681 for http, 5682 for https. Without a path, unless a proxy adds one.
    #[schemars(schema_with = "patterns::api_address")]
    pub address: String,
    /// PEM file with the CA that signed the server's certificate; without it the system's roots count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::path")]
    pub ca_file: Option<PathBuf>,
    /// Environment variable that holds that PEM text, instead of `caFile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::variable")]
    pub ca_env: Option<String>,
    /// File with the user token; read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::path")]
    pub token_file: Option<PathBuf>,
    /// Environment variable that holds the user token, instead of `tokenFile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::variable")]
    pub token_env: Option<String>,
    /// Longest wait for one answer.
    #[serde(default = "default_timeout")]
    #[schemars(extend("x-allowed" = limits::TIMEOUT.description))]
    pub timeout: HumanDuration,
}

fn default_timeout() -> HumanDuration {
    HumanDuration(std::time::Duration::from_secs(5))
}

/// How to reach Consul's HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("allOf" = patterns::not_both([
    ("caFile", "caEnv"), ("caFile", "caSecret"), ("caEnv", "caSecret"),
    ("tokenFile", "tokenEnv"), ("tokenFile", "tokenSecret"), ("tokenEnv", "tokenSecret")
])))]
pub struct ConsulConnection {
    /// The API's address: port 8500 for http, 8501 for https. Without a path, unless a proxy adds one.
    #[schemars(schema_with = "patterns::api_address")]
    pub address: String,
    /// PEM file with the CA that signed the servers' certificates; without any CA the system's roots count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::path")]
    pub ca_file: Option<PathBuf>,
    /// Environment variable that holds that PEM text, instead of `caFile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::variable")]
    pub ca_env: Option<String>,
    /// ARN of a Secrets Manager secret that holds that PEM text, instead of `caFile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::secret_arn")]
    pub ca_secret: Option<String>,
    /// File with the ACL token; read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::path")]
    pub token_file: Option<PathBuf>,
    /// Environment variable that holds the ACL token, instead of `tokenFile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::variable")]
    pub token_env: Option<String>,
    /// ARN of a Secrets Manager secret that holds the ACL token, instead of `tokenFile`; read again every few minutes,
    /// and when Consul refuses the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::secret_arn")]
    pub token_secret: Option<String>,
    /// The datacenter; left out: that of the server that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::datacenter")]
    pub datacenter: Option<String>,
    /// Enterprise: the admin partition. Left out, none is sent, which the open-source edition needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::dns_label")]
    pub partition: Option<String>,
    /// Enterprise: the namespaces to look after, or `*` for all in the partition. Left out, none is sent, which the
    /// open-source edition needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns::namespaces")]
    pub namespaces: Vec<String>,
    /// Longest wait for one answer.
    #[serde(default = "default_timeout")]
    #[schemars(extend("x-allowed" = limits::TIMEOUT.description))]
    pub timeout: HumanDuration,
}
