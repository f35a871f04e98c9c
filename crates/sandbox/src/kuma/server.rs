//! The control plane as a value, without I/O and without a clock.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use ecs_mesh_model::Timestamp;

use super::insights;
use super::instances::KumaInstances;
use super::journal::KumaJournalEntry;
use super::kinds::{self, BodyShape, ResourceType};
use super::list::ListQuery;
use super::message::{KumaConfig, KumaMode, KumaRequest, KumaRequestTarget, KumaResponse};
use super::object::{MeshAndName, ObjectStore, StoredObject};
use super::problem::KumaProblem;
use super::release::EmulatedRelease;
use super::rules::{ENV, MESH, ORIGIN, ZONE};
use super::tokens;
use super::world::{ConnectedSidecars, DATAPLANE_CLEANUP_AGE};
use ecs_mesh_api::KumaFeature;

/// A Kuma control plane in memory.
///
/// Every method that changes something takes the time as a parameter, so that a run can be replayed.
#[derive(Debug)]
pub struct KumaCp {
    pub(super) config: KumaConfig,
    pub(super) instances: KumaInstances,
    pub(super) store: ObjectStore,
    pub(super) journal: Vec<KumaJournalEntry>,
    pub(super) sidecars: ConnectedSidecars,
    /// Scheduled changes of Dataplanes, by time.
    pub(super) due: BTreeSet<(Timestamp, MeshAndName)>,
    pub(super) due_of: BTreeMap<MeshAndName, Timestamp>,
    /// Meshes with outdated `MeshService`s, and the times of their next refresh.
    pub(super) stale_services: BTreeMap<String, Timestamp>,
    pub(super) next_vip: u32,
    conflicts: BTreeMap<MeshAndName, u32>,
    pub(super) tokens_issued: u64,
}

/// Route of a request.
enum KumaRoute<'a> {
    Index,
    WhoAmI,
    Config,
    Resources,
    Token { zone: bool },
    List { kind: &'static ResourceType, mesh: Option<&'a str>, overview: bool },
    Item { kind: &'static ResourceType, key: MeshAndName, overview: bool },
    Rules { key: MeshAndName },
}

/// How a mesh has `MeshService`s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MeshServicesMode {
    Disabled,
    /// Beside the services by tag: `Everywhere` and `ReachableBackends`.
    Beside,
    Exclusive,
}

/// User of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KumaUser {
    Admin,
    Anonymous,
}

impl KumaUser {
    fn name(self) -> &'static str {
        match self {
            Self::Admin => "mesh-system:admin",
            Self::Anonymous => "mesh-system:anonymous",
        }
    }

    fn groups(self) -> &'static [&'static str] {
        match self {
            Self::Admin => &["mesh-system:admin", "mesh-system:authenticated"],
            Self::Anonymous => &["mesh-system:unauthenticated"],
        }
    }
}

impl KumaCp {
    /// A control plane with only the mesh `default`.
    pub fn new(config: KumaConfig, now: Timestamp) -> Self {
        let release = config.release;
        let mut cp = Self {
            config,
            instances: KumaInstances::new(release),
            store: ObjectStore::default(),
            journal: Vec::new(),
            sidecars: ConnectedSidecars::default(),
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
            stale_services: BTreeMap::new(),
            next_vip: 0,
            conflicts: BTreeMap::new(),
            tokens_issued: 0,
        };
        if let Some(kind) = kinds::named("Mesh") {
            let key = (String::new(), "default".to_owned());
            let mesh = StoredObject::new(kind, &key, release, (now, now), Map::new(), Map::new());
            cp.store.put(kind.name, key, mesh);
        }
        cp
    }

    /// Shows another version from now on, and keeps the API of the release: `unknown`, a preview, a release to come.
    pub fn set_version(&mut self, version: &str) {
        version.clone_into(&mut self.instances.leader.version);
    }

    /// Replaces the control plane by one of another release on the same store: an upgrade, the end of a rolling upgrade, or a
    /// rollback.
    ///
    /// The new release reads the stored objects without the fields that it does not know, and keeps them in the store until
    /// it writes the object. A rollback shows them again.
    pub fn upgrade(&mut self, release: EmulatedRelease, now: Timestamp) {
        self.tick(now);
        self.instances.replace(release);
        self.store.show(release);
        let meshes: Vec<String> = self.store.list("Mesh", None).map(|((_, name), _)| name.clone()).collect();
        for mesh in meshes {
            self.refresh_by(&mesh, now);
        }
    }

    /// Starts an instance of another release beside the running one. They handle requests in turn, the new one first, until
    /// [`upgrade`](Self::upgrade) ends it.
    pub fn begin_rolling_upgrade(&mut self, release: EmulatedRelease) {
        self.instances.join(release);
    }

    /// The version that the leading instance shows.
    pub fn version(&self) -> &str {
        &self.instances.leader.version
    }

    /// The release that reads and writes now.
    pub(super) fn release(&self) -> EmulatedRelease {
        self.instances.acting().release
    }

    /// The `instanceId` of the instance that acts now.
    pub(super) fn instance_id(&self) -> String {
        format!("sandbox-{}-{}", self.config.zone, self.instances.acting().number)
    }

    /// Advances the control plane to `now` and handles a request.
    pub fn handle(&mut self, now: Timestamp, request: &KumaRequest) -> KumaResponse {
        self.tick(now);
        self.instances.begin_request();
        let response = self.respond(now, request);
        self.instances.end();
        response
    }

    fn respond(&mut self, now: Timestamp, request: &KumaRequest) -> KumaResponse {
        let Some(target) = KumaRequestTarget::parse(&request.path_and_query) else {
            return KumaResponse::plain(400, "Bad Request");
        };
        let user = match self.user(request) {
            Ok(user) => user,
            Err(problem) => return problem.response(),
        };
        let Some(route) = route(&target, &request.method, self.release()) else {
            return KumaResponse::plain(404, "Page Not Found");
        };
        if !methods(&route).contains(&request.method.as_str()) {
            return KumaResponse::plain(405, "Method Not Allowed");
        }
        if !takes_content_type(&request.method, request.content_type.as_deref()) {
            return KumaResponse::plain(415, "Unsupported Media Type");
        }
        self.answer(now, request, &target, &route, user).unwrap_or_else(|problem| problem.response())
    }

    /// Makes the next PUT of this name fail with a conflict (409).
    pub fn inject_conflict(&mut self, mesh: &str, name: &str) {
        *self.conflicts.entry((mesh.to_owned(), name.to_owned())).or_default() += 1;
    }

    /// Takes the accepted HTTP writes since the last call.
    pub fn take_journal(&mut self) -> Vec<KumaJournalEntry> {
        std::mem::take(&mut self.journal)
    }

    /// The number of tokens that were issued.
    pub fn tokens_issued(&self) -> u64 {
        self.tokens_issued
    }

    /// All Dataplanes by mesh and name, in their response form.
    pub fn dataplanes(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        let all = self.store.list("Dataplane", None);
        all.map(|((mesh, name), object)| (mesh.as_str(), name.as_str(), &object.body))
    }

    /// All `ZoneIngress`es and `ZoneEgress`es by type and name, in their response form.
    pub fn zone_proxies(&self) -> impl Iterator<Item = (&'static str, &str, &Value)> {
        ["ZoneIngress", "ZoneEgress"].into_iter().flat_map(|kind| {
            self.store.list(kind, None).map(move |((_, name), object)| (kind, name.as_str(), &object.body))
        })
    }

    /// All `MeshService`s of a mesh by name, in their response form.
    pub fn mesh_services(&self, mesh: &str) -> impl Iterator<Item = (&str, &Value)> {
        self.store.list("MeshService", Some(mesh)).map(|((_, name), object)| (name.as_str(), &object.body))
    }

    /// Number of changes of objects and sidecars so far. While it is the same, so is what is stored, and who is online.
    pub fn changes(&self) -> u64 {
        self.store.changes() + self.sidecars.changes()
    }

    /// Whether clients are routed to the Dataplane: its sidecar is connected, and its inbounds are ready.
    pub fn is_online(&self, mesh: &str, name: &str) -> bool {
        let key = (mesh.to_owned(), name.to_owned());
        self.store.get("Dataplane", &key).is_some_and(|stored| insights::is_online(self, &key, &stored.body))
    }

    pub(super) fn take_conflict(&mut self, key: &MeshAndName) -> bool {
        let Some(left) = self.conflicts.get_mut(key) else { return false };
        *left -= 1;
        if *left == 0 {
            self.conflicts.remove(key);
        }
        true
    }

    pub(super) fn require_mesh(&self, mesh: &str) -> Result<(), KumaProblem> {
        let known = mesh.is_empty() || self.store.get("Mesh", &(String::new(), mesh.to_owned())).is_some();
        if known { Ok(()) } else { Err(KumaProblem::no_mesh()) }
    }

    /// A mesh, as a server of `release` reads it.
    pub(super) fn mesh(&self, mesh: &str, release: EmulatedRelease) -> Option<Cow<'_, Value>> {
        let key = (String::new(), mesh.to_owned());
        self.store.get("Mesh", &key)?.read(kinds::named("Mesh")?, &key, release).ok()
    }

    /// The mesh's `meshServices.mode`. `Disabled` is the zero value, which is not printed, and the only mode up to 2.8. Since
    /// 3.0, every mesh has services only as `MeshService`s.
    pub(super) fn mesh_services_mode(&self, mesh: &str, release: EmulatedRelease) -> MeshServicesMode {
        if !release.has(KumaFeature::TagServices) {
            return MeshServicesMode::Exclusive;
        }
        match self.mesh(mesh, release).as_ref().and_then(|mesh| mesh["meshServices"]["mode"].as_str()) {
            None => MeshServicesMode::Disabled,
            Some("Exclusive") => MeshServicesMode::Exclusive,
            Some(_) => MeshServicesMode::Beside,
        }
    }

    /// Whether the mesh has services only as `MeshService`s, for the instance that acts now.
    pub(super) fn is_exclusive(&self, mesh: &str) -> bool {
        self.mesh_services_mode(mesh, self.release()) == MeshServicesMode::Exclusive
    }

    fn is_read_only(&self, kind: &ResourceType) -> bool {
        kind.read_only
            || self.config.read_only
            || (self.config.mode == KumaMode::Global && kind.only_in_zones())
    }

    fn user(&self, request: &KumaRequest) -> Result<KumaUser, KumaProblem> {
        if self.config.localhost_is_admin {
            return Ok(KumaUser::Admin);
        }
        let index = request.path_and_query.split('?').next() == Some("/");
        match &request.bearer {
            Some(token) if Some(token) == self.config.admin_token.as_ref() => Ok(KumaUser::Admin),
            Some(_) if !index => Err(KumaProblem::new(
                401,
                "Not authenticated",
                "The bearer token is not one of this server's",
            )),
            _ => Ok(KumaUser::Anonymous),
        }
    }

    fn answer(
        &mut self,
        now: Timestamp,
        request: &KumaRequest,
        target: &KumaRequestTarget,
        route: &KumaRoute<'_>,
        user: KumaUser,
    ) -> Result<KumaResponse, KumaProblem> {
        let body = match route {
            KumaRoute::Index => self.index(),
            KumaRoute::WhoAmI => json!({"name": user.name(), "groups": user.groups()}),
            KumaRoute::Config => self.shown_config(),
            KumaRoute::Resources => kinds::described(self.release(), |kind| self.is_read_only(kind)),
            KumaRoute::Token { zone } => {
                return tokens::issue(self, now, request, *zone, user == KumaUser::Admin);
            }
            KumaRoute::List { kind, mesh, overview } => {
                let page = ListQuery::parse(target, kind, mesh.is_some(), *overview, self.release())?;
                self.require_mesh(mesh.unwrap_or_default())?;
                readable(kind, user)?;
                self.catch_up_for(kind, now);
                let list = self.listed(kind, *mesh, *overview, &page, target, &request.host)?;
                return Ok(KumaResponse::json(200, &list));
            }
            KumaRoute::Rules { key } => {
                self.require_mesh(&key.0)?;
                let found =
                    kinds::named("Dataplane").map(|kind| self.found(kind, key)).transpose()?.flatten();
                let found = found.ok_or_else(|| KumaProblem::not_found("Nothing to show"))?;
                insights::rules(&found, self.release())
            }
            KumaRoute::Item { kind, key, overview } => {
                return self.item(now, request, (kind, key, *overview), user);
            }
        };
        Ok(KumaResponse::json(200, &body))
    }

    fn item(
        &mut self,
        now: Timestamp,
        request: &KumaRequest,
        (kind, key, overview): (&'static ResourceType, &MeshAndName, bool),
        user: KumaUser,
    ) -> Result<KumaResponse, KumaProblem> {
        self.catch_up_for(kind, now);
        match request.method.as_str() {
            "GET" => {
                self.require_mesh(&key.0)?;
                readable(kind, user)?;
                let found = self.report(kind, key, overview)?;
                let found = found.ok_or_else(|| KumaProblem::not_found("Nothing to show"))?;
                Ok(KumaResponse::json(200, &found))
            }
            _ if self.is_read_only(kind) => {
                let place = if self.config.mode == KumaMode::Global { "a zone's" } else { "another" };
                let detail = format!("A {} cannot be written here: use {place} control plane", kind.name);
                Err(KumaProblem::new(405, "Not allowed here", detail))
            }
            "DELETE" => {
                readable(kind, user)?;
                self.journaled(now, "DELETE", kind, key, |cp| cp.delete(now, kind, key))?;
                Ok(KumaResponse::json(200, &json!({})))
            }
            _ => {
                readable(kind, user)?;
                let (new, warnings) =
                    self.journaled(now, "PUT", kind, key, |cp| cp.put(now, kind, key, &request.body))?;
                let body = if warnings.is_empty() { json!({}) } else { json!({ "warnings": warnings }) };
                Ok(KumaResponse::json(if new { 201 } else { 200 }, &body))
            }
        }
    }

    /// Generated objects are refreshed on reads, since a refresh at each write would read the whole mesh.
    fn catch_up_for(&mut self, kind: &ResourceType, now: Timestamp) {
        if matches!(kind.shape, BodyShape::MeshService) {
            self.catch_up(now);
        }
    }

    fn index(&self) -> Value {
        json!({
            "hostname": "sandbox",
            "product": "Kuma",
            "version": self.instances.acting().version,
            "instanceId": self.instance_id(),
            "clusterId": "00000000-0000-4000-8000-000000000001",
            "gui": "/gui",
        })
    }

    fn shown_config(&self) -> Value {
        let hours = DATAPLANE_CLEANUP_AGE.as_secs() / 3600;
        let validator = json!({"useSecrets": true, "publicKeys": []});
        let mut universal = json!({
            "dataplaneCleanupAge": format!("{hours}h0m0s"),
            "spire": {"socketPath": "/tmp/spire-agent/public/api.sock"},
            "workload": {"generationInterval": "2s"},
        });
        if self.release() < EmulatedRelease::V3_0 {
            universal["zoneResourceCleanupAge"] = json!("72h0m0s");
            universal["vipRefreshInterval"] = json!("500ms");
        }
        json!({
            "mode": if self.config.mode == KumaMode::Global { "global" } else { "zone" },
            "environment": "universal",
            "store": {"type": "memory"},
            "multizone": {"zone": {"name": self.config.zone}},
            "dpServer": {
                "authn": {
                    "dpProxy": {"type": "dpToken", "dpToken": {"enableIssuer": true, "validator": validator}},
                    "zoneProxy": {"type": "zoneToken", "zoneToken": {"enableIssuer": true, "validator": validator}},
                    "enableReloadableTokens": false,
                },
                "auth": null,
                "hds": {"enabled": true, "interval": "5s", "refreshInterval": "10s"},
            },
            "runtime": {"universal": universal},
            "apiServer": {
                "readOnly": self.config.read_only,
                "authn": {
                    "type": "tokens",
                    "localhostIsAdmin": self.config.localhost_is_admin,
                    "tokens": {"bootstrapAdminToken": true, "enableIssuer": true, "validator": validator},
                },
            },
        })
    }

    /// An object as the instance that acts now reads it.
    fn found(&self, kind: &ResourceType, key: &MeshAndName) -> Result<Option<Value>, KumaProblem> {
        let object = self.store.get(kind.name, key);
        object.map(|object| object.read(kind, key, self.release()).map(Cow::into_owned)).transpose()
    }

    fn report(
        &self,
        kind: &ResourceType,
        key: &MeshAndName,
        overview: bool,
    ) -> Result<Option<Value>, KumaProblem> {
        match kind.name {
            "ServiceInsight" => Ok(insights::service(self, &key.0, &key.1)),
            "DataplaneInsight" => Ok(insights::dataplane_resource(self, key)),
            _ => {
                let found = self.found(kind, key)?;
                if !overview {
                    return Ok(found);
                }
                let insight = insights::of(self, kind, key).unwrap_or_else(|| json!({}));
                Ok(found.map(|body| insights::overview(kind, &body, Some(insight))))
            }
        }
    }
}

/// The labels of objects that the server creates in a zone.
pub(super) fn zone_labels(mesh: &str, zone: &str) -> Value {
    json!({ENV: "universal", MESH: mesh, ORIGIN: "zone", ZONE: zone})
}

fn readable(kind: &ResourceType, user: KumaUser) -> Result<(), KumaProblem> {
    if kind.is_secret() && user != KumaUser::Admin {
        return Err(KumaProblem::denied(user.name(), &format!("use a {}", kind.name)));
    }
    Ok(())
}

fn route<'a>(target: &'a KumaRequestTarget, method: &str, release: EmulatedRelease) -> Option<KumaRoute<'a>> {
    let segments: Vec<&str> = target.segments.iter().map(String::as_str).collect();
    // A static path segment takes precedence over a name, for its own methods only.
    let reads = !matches!(method, "PUT" | "DELETE");
    let key = |mesh: &str, name: &str| (mesh.to_owned(), name.to_owned());
    match segments[..] {
        [] => Some(KumaRoute::Index),
        ["who-am-i"] => Some(KumaRoute::WhoAmI),
        ["config"] => Some(KumaRoute::Config),
        ["_resources"] => Some(KumaRoute::Resources),
        ["tokens", "dataplane"] => Some(KumaRoute::Token { zone: false }),
        ["tokens", "zone"] => Some(KumaRoute::Token { zone: true }),
        ["meshes", mesh, path, ref rest @ ..] => {
            let (kind, overview) = kinds::at(path, release).filter(|(kind, _)| kind.in_mesh)?;
            match *rest {
                [] => Some(KumaRoute::List { kind, mesh: Some(mesh), overview }),
                ["_overview"] if kind.name == "Dataplane" && reads && !overview => {
                    Some(KumaRoute::List { kind, mesh: Some(mesh), overview: true })
                }
                [name] => Some(KumaRoute::Item { kind, key: key(mesh, name), overview }),
                [name, "_overview"] if kind.name == "Dataplane" && !overview => {
                    Some(KumaRoute::Item { kind, key: key(mesh, name), overview: true })
                }
                [name, "_rules"] if kind.name == "Dataplane" => {
                    Some(KumaRoute::Rules { key: key(mesh, name) })
                }
                _ => None,
            }
        }
        [path, ref rest @ ..] => {
            let (kind, _) = kinds::at(path, release).filter(|(_, overview)| !overview)?;
            match *rest {
                [] => Some(KumaRoute::List { kind, mesh: None, overview: false }),
                [name] if !kind.in_mesh => {
                    Some(KumaRoute::Item { kind, key: key("", name), overview: false })
                }
                _ => None,
            }
        }
    }
}

fn methods(route: &KumaRoute<'_>) -> &'static [&'static str] {
    match route {
        KumaRoute::Token { .. } => &["POST"],
        KumaRoute::Item { overview: false, .. } => &["GET", "PUT", "DELETE"],
        _ => &["GET"],
    }
}

/// Whether the content type is JSON. It is optional for methods without a body.
fn takes_content_type(method: &str, content_type: Option<&str>) -> bool {
    let given = content_type.unwrap_or_default();
    if given.is_empty() {
        return matches!(method, "GET" | "HEAD" | "OPTIONS" | "DELETE" | "TRACE");
    }
    given
        .split(',')
        .map(|one| one.split(';').next().unwrap_or_default().trim())
        .any(|one| one == "application/json" || one == "*/*")
}
