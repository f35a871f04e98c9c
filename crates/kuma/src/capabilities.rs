//! The capabilities of a control plane, read from its API, which decide how Dataplanes are rendered.
//!
//! Unread capabilities have the defaults of the 2.x line: health discovery on, `kuma.io/service` tags in outbounds. An
//! unsupported version is an error, since a 3.x server accepts a 2.x body and silently drops unknown fields.

use std::collections::BTreeMap;

use serde_json::Value;

use ecs_mesh_control_plane::http::quote;
use ecs_mesh_model::MeshName;

/// The format of Dataplanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiDialect {
    /// Kuma and Kong Mesh 2.x: services are tags of inbounds.
    V2,
}

/// The server's version, as `GET /` returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KumaVersion {
    /// The major version.
    pub major: u32,
    /// The minor version.
    pub minor: u32,
    /// Product and version as the server writes them, quoted for messages.
    pub text: String,
}

impl KumaVersion {
    /// Whether the server is Kuma itself and not a product based on it, such as Kong Mesh, which has its own access control.
    pub fn is_open_source(&self) -> bool {
        self.text.starts_with("Kuma ")
    }

    /// Whether a Dataplane may have neither inbounds nor a gateway: 400 up to 2.13.
    pub(super) fn allows_no_inbounds(&self) -> bool {
        (self.major, self.minor) >= (2, 14)
    }

    /// Reads the response to `GET /`. The error names the problem.
    pub fn read(index: &Value) -> Result<Self, &'static str> {
        let field = |name: &str| index.get(name).and_then(Value::as_str);
        let (Some(version), Some(product)) =
            (field("version"), field("product").or_else(|| field("tagline")))
        else {
            return Err("the response has no product and version of a Kuma control plane");
        };
        let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']).map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            return Err("the response's version is invalid (expected a number such as 2.14.0)");
        };
        Ok(Self { major, minor, text: quote(&format!("{product} {version}")) })
    }

    /// The dialect of this version. The error names the supported versions.
    pub fn dialect(&self) -> Result<ApiDialect, String> {
        match (self.major, self.minor) {
            (2, 7..) => Ok(ApiDialect::V2),
            _ => Err(format!(
                "{} is not supported (supported: 2.7 to 2.14), and nothing is written to it, since it may silently drop \
                 fields that it does not know; help: use a 2.x control plane from 2.7 on, or an operator release that \
                 supports this version",
                self.text
            )),
        }
    }
}

/// Whether the control plane determines readiness itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthDiscovery {
    /// The default: inbounds are created not ready and become ready by discovery.
    #[default]
    On,
    /// `dpServer.hds.enabled: false`: an inbound that is created not ready never becomes ready.
    Off,
}

/// The capabilities that decide how a registration of one mesh is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataplaneCapabilities {
    /// The format of the resource.
    pub dialect: ApiDialect,
    /// Whether the control plane determines readiness.
    pub health_discovery: HealthDiscovery,
    /// Whether the mesh has services only as `MeshService`s (`meshServices.mode: Exclusive`).
    pub mesh_services_only: bool,
    /// Whether inbounds have names (2.8 and later). Older servers drop a name, which would be a permanent difference.
    pub inbound_names: bool,
}

impl Default for DataplaneCapabilities {
    fn default() -> Self {
        Self {
            dialect: ApiDialect::V2,
            health_discovery: HealthDiscovery::On,
            mesh_services_only: false,
            inbound_names: true,
        }
    }
}

/// The capabilities that were read from a control plane; `None` if not read yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerCapabilities {
    pub(super) version: Option<KumaVersion>,
    pub(super) health_discovery: Option<HealthDiscovery>,
    /// Whether a mesh has `meshServices.mode: Exclusive`.
    pub(super) exclusive: BTreeMap<MeshName, bool>,
}

impl ServerCapabilities {
    /// The capabilities for registrations of this mesh, with defaults for unread ones.
    pub(super) fn of_mesh(&self, mesh: &MeshName) -> DataplaneCapabilities {
        DataplaneCapabilities {
            dialect: ApiDialect::V2,
            health_discovery: self.health_discovery.unwrap_or_default(),
            mesh_services_only: self.exclusive.get(mesh).copied().unwrap_or(false),
            inbound_names: self.version.as_ref().is_none_or(|v| (v.major, v.minor) >= (2, 8)),
        }
    }
}

/// `meshServices.mode` of a Mesh resource.
pub(super) fn is_exclusive(mesh: &Value) -> bool {
    mesh.pointer("/meshServices/mode").and_then(Value::as_str) == Some("Exclusive")
}

/// `dpServer.hds.enabled` of the response to `GET /config`.
pub(super) fn health_discovery(config: &Value) -> Option<HealthDiscovery> {
    let enabled = config.pointer("/dpServer/hds/enabled")?.as_bool()?;
    Some(if enabled { HealthDiscovery::On } else { HealthDiscovery::Off })
}

/// The reason if the configuration shows that this control plane accepts no Dataplanes.
pub(super) fn refuses_writes(config: &Value) -> Option<&'static str> {
    if config.get("mode").and_then(Value::as_str) == Some("global") {
        return Some("a global control plane accepts no Dataplanes");
    }
    if config.pointer("/apiServer/readOnly").and_then(Value::as_bool) == Some(true) {
        return Some("the API is read-only (KUMA_API_SERVER_READ_ONLY)");
    }
    None
}
