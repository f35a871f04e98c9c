//! The capabilities of a control plane, read from its API, which decide how Dataplanes are rendered.
//!
//! The version decides the dialect (`ecs_mesh_api::KumaRelease`). A version that is not tested with this operator needs
//! evidence: the resource types that the server lists must be those of the dialect, and the first write is read back, since
//! a server accepts a Dataplane of the other dialect and drops what it does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use ecs_mesh_api::{ApiDialect, BackendKind, KumaFeature, KumaRelease};
use ecs_mesh_control_plane::http::quote;
use ecs_mesh_model::MeshName;

/// The server's version, as `GET /` returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KumaVersion {
    /// The release; `None` if the version has no number, as in builds from source (`unknown`), or if the product is neither Kuma
    /// nor based on it.
    pub release: Option<KumaRelease>,
    /// Whether the version is not that of a release, such as `3.0.0-dev`.
    pub is_preview: bool,
    /// Product and version as the server writes them, quoted for messages.
    pub text: Arc<str>,
}

/// The rules by which a server is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteRules {
    /// The release whose rules apply.
    pub release: KumaRelease,
    /// The dialect of that release.
    pub dialect: ApiDialect,
    /// Why these rules apply.
    pub basis: RulesBasis,
}

/// Why a server is written to by some rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RulesBasis {
    /// The version is one that this operator is tested with.
    Tested,
    /// The version is a later minor release, or a preview.
    Untested,
    /// The version decides nothing, and the `ControlPlane` names the dialect.
    Named,
}

impl WriteRules {
    /// Whether the server's resource types and the first write must confirm the rules.
    pub fn needs_evidence(self) -> bool {
        self.basis != RulesBasis::Tested
    }
}

impl KumaVersion {
    /// Whether the server is Kuma itself and not a product based on it, such as Kong Mesh, which has its own access control.
    pub fn is_open_source(&self) -> bool {
        self.text.starts_with("Kuma ")
    }

    /// Reads the response to `GET /`. The error names the problem.
    pub fn read(index: &Value) -> Result<Self, &'static str> {
        let field = |name: &str| index.get(name).and_then(Value::as_str);
        let (Some(version), Some(product)) =
            (field("version"), field("product").or_else(|| field("tagline")))
        else {
            return Err("the response has no product and version of a Kuma control plane");
        };
        let number = version.trim_start_matches('v');
        // Other products have versions with the same numbers, and fields of these names: Kong Gateway answers with
        // `"tagline": "Welcome to kong"`.
        let release = KumaRelease::of_version(number).filter(|_| is_mesh(product));
        // The part after `+` names a build of the release.
        let (number, _) = number.split_once('+').unwrap_or((number, ""));
        let is_preview = number.split('.').any(|part| part.parse::<u32>().is_err());
        Ok(Self { release, is_preview, text: quote(&format!("{product} {version}")).into() })
    }

    /// The rules by which a server of this version is written to. `named` is the dialect in the manifest, which counts only
    /// where the version decides nothing. The error says why nothing is written.
    pub fn rules(&self, named: Option<ApiDialect>) -> Result<WriteRules, String> {
        let known = self.release.and_then(|release| Some((release, release.dialect()?)));
        match (known, named) {
            (Some((release, dialect)), _) => {
                let is_tested = release.is_tested() && !self.is_preview;
                let basis = if is_tested { RulesBasis::Tested } else { RulesBasis::Untested };
                Ok(WriteRules { release, dialect, basis })
            }
            (None, Some(dialect)) => {
                let newest = dialect.newest_tested();
                // An older release lacks what the tested ones have.
                let older = self.release.filter(|release| release.major == newest.major);
                let release = older.unwrap_or(newest);
                Ok(WriteRules { release, dialect, basis: RulesBasis::Named })
            }
            (None, None) if !is_mesh(&self.text) => Err(format!(
                "{} is neither Kuma nor a product based on it, and nothing is written to it; help: check \
                 ControlPlane.spec.kuma.address, or set ControlPlane.spec.kuma.dialect to the format that it has",
                self.text
            )),
            (None, None) => Err(format!(
                "{} is not supported (supported: 2.7 to {}, {}), and nothing is written to it, since it may silently drop \
                 fields that it does not know; help: use a control plane of a supported version, or set \
                 ControlPlane.spec.kuma.dialect to the format that it has",
                self.text,
                ApiDialect::V2.newest_tested(),
                ApiDialect::V3.newest_tested(),
            )),
        }
    }
}

/// Whether this is Kuma or a product that is based on it, such as Kong Mesh.
fn is_mesh(product: &str) -> bool {
    let product = product.to_ascii_lowercase();
    ["kuma", "mesh"].iter().any(|name| product.contains(name))
}

/// The dialect of a server by its resource types, as `GET /_resources` lists them; `None` if they are those of no known
/// dialect. In 3.0 zone proxies are Dataplanes, and their own types are gone.
pub(super) fn dialect_of_resources(response: &Value) -> Option<ApiDialect> {
    let listed = response.get("resources").and_then(Value::as_array)?;
    let names: BTreeSet<&str> = listed.iter().filter_map(|one| one.get("name")?.as_str()).collect();
    let zone_proxies = ["ZoneIngress", "ZoneEgress"].map(|name| names.contains(name));
    match (names.contains("Dataplane"), zone_proxies) {
        (true, [true, true]) => Some(ApiDialect::V2),
        (true, [false, false]) if names.contains("MeshService") => Some(ApiDialect::V3),
        _ => None,
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
    /// The release whose rules apply.
    pub release: KumaRelease,
    /// Whether the control plane determines readiness.
    pub health_discovery: HealthDiscovery,
    /// The form of the mesh's services.
    pub services: ServicesMode,
    /// The source of MeshServices' names.
    pub service_naming: MeshServiceNaming,
}

/// The source of the names of MeshServices that the control plane makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MeshServiceNaming {
    /// The tag `kuma.io/service`. The default of 2.x.
    #[default]
    ServiceTag,
    /// The label `kuma.io/workload`: in 3.x, and in 2.14 with `KUMA_EXPERIMENTAL_INBOUND_TAGS_DISABLED`
    /// (`pkg/core/resources/apis/meshservice/generate/generator.go`).
    WorkloadLabel,
}

/// The form of a mesh's services: `meshServices.mode` in 2.x.
///
/// The control plane resolves the `backendRef` of an outbound in each mode (`asOutbounds` in
/// `pkg/xds/sync/dataplane_proxy_builder.go` of 2.14), and makes no MeshServices in the mode `Disabled`
/// (`pkg/core/resources/apis/meshservice/generate/generator.go`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServicesMode {
    /// Tags. The default of 2.x.
    #[default]
    Disabled,
    /// Tags, and MeshServices beside them.
    Everywhere,
    /// As `Everywhere`. Sidecars that bind their outbounds bind those resources alone that they list.
    ReachableBackends,
    /// MeshServices alone. Every mesh of 3.x.
    Exclusive,
}

impl ServicesMode {
    /// `meshServices.mode` of a Mesh resource. A mode that is not known counts as the default.
    pub(super) fn of(mesh: &Value) -> Self {
        match mesh.pointer("/meshServices/mode").and_then(Value::as_str) {
            Some("Everywhere") => Self::Everywhere,
            Some("ReachableBackends") => Self::ReachableBackends,
            Some("Exclusive") => Self::Exclusive,
            _ => Self::Disabled,
        }
    }
}

impl DataplaneCapabilities {
    /// Whether services are MeshServices alone.
    pub fn mesh_services_only(self) -> bool {
        self.services == ServicesMode::Exclusive
    }

    /// Whether an outbound may name a resource of this type.
    pub fn allows_backend(self, kind: BackendKind) -> bool {
        match (kind, self.services) {
            (BackendKind::MeshService, ServicesMode::Disabled) => false,
            (BackendKind::MeshService, ServicesMode::Exclusive) => true,
            _ => self.has(KumaFeature::ReachableBackends),
        }
    }

    /// Whether the release has the feature.
    pub fn has(self, feature: KumaFeature) -> bool {
        self.release.has(feature)
    }
}

impl Default for DataplaneCapabilities {
    fn default() -> Self {
        ServerCapabilities::default().of_mesh(&MeshName::default())
    }
}

/// The capabilities that were read from a control plane; `None` if not read yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerCapabilities {
    pub(super) version: Option<KumaVersion>,
    /// The rules of that version, if it is supported.
    pub(super) rules: Option<WriteRules>,
    /// The newest release of the instances, while a rolling upgrade has several. The rules are the oldest's.
    pub(super) newer: Option<KumaRelease>,
    /// Whether an instance of an older release is among those that answered the last reads of the version. Where none is, as
    /// after an upgrade in place, nothing is gained by another read or write.
    pub(super) older_answers: bool,
    /// The version of that release, if it needs evidence.
    pub(super) newer_untested: Option<Arc<str>>,
    /// The untested versions whose resource types were those of their dialect.
    pub(super) confirmed: BTreeMap<Arc<str>, ApiDialect>,
    pub(super) health_discovery: Option<HealthDiscovery>,
    /// The source of MeshServices' names in 2.x.
    pub(super) service_naming: MeshServiceNaming,
    /// `meshServices.mode` of the meshes, in 2.x.
    pub(super) services: BTreeMap<MeshName, ServicesMode>,
    /// The MeshServices of the meshes that have some, in 2.x, and their ports.
    pub(super) mesh_services: BTreeMap<MeshName, BTreeMap<String, Vec<u16>>>,
}

impl ServerCapabilities {
    /// The release whose rules apply; until one is read, the newest with tags.
    pub(super) fn release(&self) -> KumaRelease {
        self.rules.map_or(ApiDialect::V2.newest_tested(), |rules| rules.release)
    }

    /// The capabilities for registrations of this mesh, with defaults for unread ones.
    pub(super) fn of_mesh(&self, mesh: &MeshName) -> DataplaneCapabilities {
        self.at_release(mesh, self.release())
    }

    /// The capabilities for registrations of this mesh once the server is of `release`.
    pub(super) fn at_release(&self, mesh: &MeshName, release: KumaRelease) -> DataplaneCapabilities {
        let services = self.services.get(mesh).copied().unwrap_or_default();
        let has_tags = release.has(KumaFeature::TagServices);
        DataplaneCapabilities {
            release,
            health_discovery: self.health_discovery.unwrap_or_default(),
            services: if has_tags { services } else { ServicesMode::Exclusive },
            service_naming: if has_tags { self.service_naming } else { MeshServiceNaming::WorkloadLabel },
        }
    }
}

/// `dpServer.hds.enabled` of the response to `GET /config`.
pub(super) fn health_discovery(config: &Value) -> Option<HealthDiscovery> {
    let enabled = config.pointer("/dpServer/hds/enabled")?.as_bool()?;
    Some(if enabled { HealthDiscovery::On } else { HealthDiscovery::Off })
}

/// `experimental.inboundTagsDisabled` of the response to `GET /config`.
pub(super) fn service_naming(config: &Value) -> MeshServiceNaming {
    match config.pointer("/experimental/inboundTagsDisabled").and_then(Value::as_bool) {
        Some(true) => MeshServiceNaming::WorkloadLabel,
        _ => MeshServiceNaming::ServiceTag,
    }
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
