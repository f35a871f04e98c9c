//! What a control plane told of itself, and what follows for the bodies that are sent to it.
//!
//! Where it has not told yet, the defaults of the 2.x line hold: health discovery on, `kuma.io/service` tags in
//! outbounds. A version that is not spoken here is refused rather than guessed at, since a 3.x server takes a 2.x body
//! and silently drops what it does not know.

use std::collections::BTreeMap;

use serde_json::Value;

use ecs_mesh_model::MeshName;

/// A way of writing Dataplanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiDialect {
    /// Kuma and Kong Mesh 2.x: services are tags of inbounds.
    V2,
}

/// The server's version, as `GET /` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KumaVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Product and version as written, for messages.
    pub text: String,
}

impl KumaVersion {
    /// Whether it is Kuma itself, and not a product made of it such as Kong Mesh, which has access control of its own.
    pub fn is_open_source(&self) -> bool {
        self.text.starts_with("Kuma ")
    }

    /// Reads the answer to `GET /`; the error says what is wrong with it.
    pub fn read(index: &Value) -> Result<Self, String> {
        let field = |name: &str| index.get(name).and_then(Value::as_str);
        let (Some(version), Some(product)) =
            (field("version"), field("product").or_else(|| field("tagline")))
        else {
            return Err("the answer names no product and version, as a Kuma control plane's does".to_owned());
        };
        let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']).map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            return Err(format!("its version {version:?} is not a number such as 2.14.0"));
        };
        Ok(Self { major, minor, text: format!("{product} {version}") })
    }

    /// The dialect that this version speaks; the error says what to do.
    pub fn dialect(&self) -> Result<ApiDialect, String> {
        match self.major {
            2 => Ok(ApiDialect::V2),
            _ => Err(format!(
                "it is {}, and this operator speaks to 2.7 to 2.14: nothing is written to it, since such a server may \
                 drop what it does not know without saying so; use a 2.x control plane, or an operator that names this \
                 version as supported",
                self.text
            )),
        }
    }
}

/// Whether the control plane finds out readiness itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthDiscovery {
    /// It does, which is also its default: inbounds are created not ready.
    #[default]
    On,
    /// It does not (`dpServer.hds.enabled: false`): nobody would ever make an inbound ready.
    Off,
}

/// All that decides how one registration is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataplaneCapabilities {
    /// The form of the resource.
    pub dialect: ApiDialect,
    /// Who decides readiness.
    pub health_discovery: HealthDiscovery,
    /// Whether the mesh knows services only as `MeshService`s (`meshServices.mode: Exclusive`).
    pub mesh_services_only: bool,
    /// Whether inbounds can have names (2.8 and later; before, a name is dropped and would differ for ever).
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

/// What is known of a control plane, learned piece by piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerCapabilities {
    pub(super) version: Option<KumaVersion>,
    pub(super) health_discovery: Option<HealthDiscovery>,
    /// Whether a mesh has `meshServices.mode: Exclusive`.
    pub(super) exclusive: BTreeMap<MeshName, bool>,
}

impl ServerCapabilities {
    /// How to write registrations of this mesh.
    pub(super) fn rules(&self, mesh: &MeshName) -> DataplaneCapabilities {
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

/// `dpServer.hds.enabled` of the answer to `GET /config`.
pub(super) fn health_discovery(config: &Value) -> Option<HealthDiscovery> {
    let enabled = config.pointer("/dpServer/hds/enabled")?.as_bool()?;
    Some(if enabled { HealthDiscovery::On } else { HealthDiscovery::Off })
}

/// Why this control plane takes no Dataplanes at all, if its configuration says so.
pub(super) fn refuses_writes(config: &Value) -> Option<&'static str> {
    if config.get("mode").and_then(Value::as_str) == Some("global") {
        return Some(
            "it is a global control plane, which takes no Dataplanes: give the address of the zone's own",
        );
    }
    if config.pointer("/apiServer/readOnly").and_then(Value::as_bool) == Some(true) {
        return Some("its API is read-only (KUMA_API_SERVER_READ_ONLY): give an address that takes writes");
    }
    None
}
