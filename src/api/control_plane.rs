//! `ControlPlane`: where a mesh's control plane is, and how to reach it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::HumanDuration;

/// A control plane to keep right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ControlPlaneSpec {
    /// Which kind of control plane; the block of the same name must be given.
    #[serde(rename = "type")]
    pub kind: ControlPlaneType,
    /// Connection to a Kuma / Kong Mesh control plane (of a zone, or standalone).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kuma: Option<KumaConnection>,
    /// Most writes a second that this operator sends to it (1–10000, default 500).
    #[serde(default = "default_writes_per_second")]
    pub writes_per_second: u32,
}

fn default_writes_per_second() -> u32 {
    500
}

/// The kinds of control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlPlaneType {
    /// Kuma, or Kong Mesh, which speaks the same API.
    Kuma,
}

/// How to reach a Kuma control plane's REST API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KumaConnection {
    /// `http://` (port 5681) or `https://` (port 5682) URL, without a path unless a proxy adds one.
    pub address: String,
    /// PEM file with the CA that signed the server's certificate; without it the system's roots count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Environment variable that holds that PEM text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_env: Option<String>,
    /// File with the user token; read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Environment variable that holds the user token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
    /// Longest wait for one answer (default 5s).
    #[serde(default = "default_timeout")]
    pub timeout: HumanDuration,
}

fn default_timeout() -> HumanDuration {
    HumanDuration(std::time::Duration::from_secs(5))
}
