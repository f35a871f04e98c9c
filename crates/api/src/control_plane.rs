//! `ControlPlane`: the connection to a mesh's control plane.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ApiDialect, HumanDuration, limits, patterns};
use ecs_mesh_model::{SecretRef, TlsServerName};

/// Connection to a control plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = patterns::block_of_type(["kuma", "consul"])))]
pub struct ControlPlaneSpec {
    /// Kind of control plane.
    ///
    /// The block of the same name is required.
    #[serde(rename = "type")]
    pub kind: ControlPlaneType,
    /// Connection to a Kuma or Kong Mesh control plane.
    ///
    /// Of a zone, or standalone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kuma: Option<KumaConnection>,
    /// Connection to Consul servers.
    ///
    /// Logins by AWS IAM need Consul 1.12 or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consul: Option<ConsulConnection>,
    /// Limit of writes a second.
    ///
    /// Consul services that are removed in one transaction count as one write.
    #[serde(default = "default_writes_per_second")]
    #[schemars(range(min = *limits::WRITES_PER_SECOND.start(), max = *limits::WRITES_PER_SECOND.end()))]
    pub writes_per_second: u32,
}

fn default_writes_per_second() -> u32 {
    500
}

/// Kinds of control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ControlPlaneType {
    /// Kuma or Kong Mesh.
    Kuma,
    /// Consul's service mesh.
    Consul,
}

impl ControlPlaneType {
    /// The value in a manifest and in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kuma => "kuma",
            Self::Consul => "consul",
        }
    }

    /// Whether tasks register themselves at control planes of this type. The operator then creates and drains nothing for
    /// them, and removes what stopped tasks leave registered.
    pub fn tasks_register_themselves(self) -> bool {
        self == Self::Consul
    }
}

/// Proxies for calls to a control plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ControlPlaneProxy {
    /// Direct connections.
    #[default]
    None,
    /// The proxy of the operator's environment.
    Environment,
}

impl ControlPlaneProxy {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Connection to a Kuma control plane's REST API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("allOf" = patterns::not_both([
    ("caFile", "caEnv"), ("caFile", "caSecret"), ("caEnv", "caSecret"),
    ("tokenFile", "tokenEnv"), ("tokenFile", "tokenSecret"), ("tokenEnv", "tokenSecret")
])))]
pub struct KumaConnection {
    /// Address of the API.
    ///
    /// Port 5681 is HTTP, 5682 HTTPS. Without a path, unless a proxy adds one.
    #[schemars(schema_with = "patterns::api_address")]
    pub address: String,
    /// PEM file with the CA of the server.
    ///
    /// Without any CA, the system's roots are used. The certificate that kuma-cp makes for itself is a CA and the server's
    /// at once: with it here, exactly that certificate is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::path")]
    pub ca_file: Option<PathBuf>,
    /// Environment variable with the CA's PEM text, instead of `caFile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::variable")]
    pub ca_env: Option<String>,
    /// Secrets Manager secret with the CA's PEM text, instead of `caFile`.
    ///
    /// `:json-key:version-stage:version-id` after the ARN selects a key or a version, as in ECS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret: Option<SecretRef>,
    /// File with the user token; reread when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::path")]
    pub token_file: Option<PathBuf>,
    /// Environment variable with the user token, instead of `tokenFile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::variable")]
    pub token_env: Option<String>,
    /// Secrets Manager secret with the user token, instead of `tokenFile`.
    ///
    /// `:json-key:version-stage:version-id` after the ARN selects a key or a version, as in ECS. Reread every few minutes,
    /// and when Kuma refuses the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret: Option<SecretRef>,
    /// Name in the server's certificate, where it is not the address's host.
    ///
    /// Sent as SNI, unless it is an IP address. The `Host` header stays the address's. Needs `https://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<TlsServerName>,
    /// Format of Dataplanes, where the server's version does not decide it.
    ///
    /// Such as a preview, a build from source, a release before 2.7 or another major version, to which nothing is
    /// written otherwise. Ignored where the version is 2.7 or later, or 3.x. The server's features must not contradict
    /// it, and the first write is read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<ApiDialect>,
    /// Proxy for calls to the API.
    ///
    /// `environment`: `HTTPS_PROXY` and `NO_PROXY` of the operator, as for AWS. Needs `https://`, since a proxy reads what is
    /// not encrypted, the token included.
    #[serde(default, skip_serializing_if = "ControlPlaneProxy::is_none")]
    pub proxy: ControlPlaneProxy,
    /// Longest wait for one answer.
    #[serde(default = "default_timeout")]
    #[schemars(extend("x-allowed" = limits::TIMEOUT.description))]
    pub timeout: HumanDuration,
}

impl KumaConnection {
    /// A connection to this address with the defaults of a manifest: without a CA and a token.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            ca_file: None,
            ca_env: None,
            ca_secret: None,
            token_file: None,
            token_env: None,
            token_secret: None,
            tls_server_name: None,
            dialect: None,
            proxy: ControlPlaneProxy::default(),
            timeout: default_timeout(),
        }
    }
}

fn default_timeout() -> HumanDuration {
    HumanDuration(std::time::Duration::from_secs(5))
}

/// Connection to Consul's HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("allOf" = patterns::not_both([
    ("caFile", "caEnv"), ("caFile", "caSecret"), ("caEnv", "caSecret"),
    ("tokenFile", "tokenEnv"), ("tokenFile", "tokenSecret"), ("tokenEnv", "tokenSecret")
])))]
pub struct ConsulConnection {
    /// Address of the API.
    ///
    /// Port 8500 is HTTP, 8501 HTTPS. Without a path, unless a proxy adds one.
    #[schemars(schema_with = "patterns::api_address")]
    pub address: String,
    /// PEM file with the CA of the servers.
    ///
    /// Without any CA, the system's roots are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::path")]
    pub ca_file: Option<PathBuf>,
    /// Environment variable with the CA's PEM text, instead of `caFile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::variable")]
    pub ca_env: Option<String>,
    /// Secrets Manager secret with the CA's PEM text, instead of `caFile`.
    ///
    /// `:json-key:version-stage:version-id` after the ARN selects a key or a version, as in ECS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret: Option<SecretRef>,
    /// File with the ACL token; reread when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::path")]
    pub token_file: Option<PathBuf>,
    /// Environment variable with the ACL token, instead of `tokenFile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::variable")]
    pub token_env: Option<String>,
    /// Secrets Manager secret with the ACL token, instead of `tokenFile`.
    ///
    /// `:json-key:version-stage:version-id` after the ARN selects a key or a version, as in ECS. Reread every few minutes,
    /// and when Consul refuses the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret: Option<SecretRef>,
    /// Name in the servers' certificates, where it is not the address's host: `server.dc1.consul`.
    ///
    /// Sent as SNI, unless it is an IP address. The `Host` header stays the address's. Needs `https://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<TlsServerName>,
    /// Datacenter; default: that of the answering server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::datacenter")]
    pub datacenter: Option<String>,
    /// Enterprise: admin partition.
    ///
    /// Left out, no partition is sent, as the open-source edition requires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::dns_label")]
    pub partition: Option<String>,
    /// Enterprise: namespaces to manage, or `*` for all of the partition.
    ///
    /// Left out, no namespace is sent, as the open-source edition requires.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns::namespaces")]
    pub namespaces: Vec<String>,
    /// Proxy for calls to the API.
    ///
    /// `environment`: `HTTPS_PROXY` and `NO_PROXY` of the operator, as for AWS. Needs `https://`, since a proxy reads what is
    /// not encrypted, the token included.
    #[serde(default, skip_serializing_if = "ControlPlaneProxy::is_none")]
    pub proxy: ControlPlaneProxy,
    /// Longest wait for one answer.
    #[serde(default = "default_timeout")]
    #[schemars(extend("x-allowed" = limits::TIMEOUT.description))]
    pub timeout: HumanDuration,
}

impl ConsulConnection {
    /// A connection to this address with the defaults of a manifest: without a CA and a token.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            ca_file: None,
            ca_env: None,
            ca_secret: None,
            token_file: None,
            token_env: None,
            token_secret: None,
            tls_server_name: None,
            datacenter: None,
            partition: None,
            namespaces: Vec::new(),
            proxy: ControlPlaneProxy::default(),
            timeout: default_timeout(),
        }
    }
}
