//! The Kuma control plane as the rest sees it.
//!
//! Whatever the server answers, one call is one bounded exchange (lists: one a page), its outcome is reported to the
//! observer, and an error says what was called, what came back and what to do next. One malformed Dataplane is left
//! out of a list and reported; it never fails the list.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use serde_json::Value;
use tokio::time::Instant;

use super::connection::settings;
use super::dataplane;
use super::capabilities::{self, ApiDialect, HealthDiscovery, ServerCapabilities, DataplaneCapabilities, KumaVersion};
use super::errors::{self, RequestKind};
use super::list::{self, MAX_PAGES, PageFlaw, page_path};
use super::labels::{self, OPERATOR_LABEL};
use ecs_mesh_api::KumaConnection;
use ecs_mesh_control_plane::http::{HttpResponse, HttpTransport, HttpMethod, Transport, segment};
use ecs_mesh_control_plane::skipped_items::{SkippedItemLog, SkippedItems, SkipReason};
use ecs_mesh_control_plane::{
    ControlPlane, FailedSegment, MeshCallObserver, MeshError, MeshErrorKind, Registration, RenderedRegistration, RegistrationSummary,
};
use ecs_mesh_controller::Lease;
use ecs_mesh_core::intent::{DesiredRegistration, RegistrationId};
use ecs_mesh_core::plan::DrainReason;
use ecs_mesh_model::{ClusterArn, MeshName, OperatorId};

/// A Kuma or Kong Mesh control plane.
pub struct KumaControlPlane<T> {
    transport: T,
    operator: OperatorId,
    observer: Arc<dyn MeshCallObserver>,
    skipped_items: SkippedItemLog,
    capabilities: ArcSwap<ServerCapabilities>,
    /// It was told of that health discovery is not known.
    warned_of_discovery: AtomicBool,
}

impl KumaControlPlane<HttpTransport> {
    /// Prepares a connection; nothing is sent yet. The error names the field of the manifest that is at fault.
    /// The process must have a default rustls provider.
    pub fn connect(
        spec: &KumaConnection,
        operator: OperatorId,
        observer: Arc<dyn MeshCallObserver>,
    ) -> Result<Self, String> {
        Ok(Self::new(HttpTransport::new(settings(spec))?, operator, observer))
    }
}

impl<T: Transport> KumaControlPlane<T> {
    /// A control plane behind this transport, of which nothing is known yet.
    pub fn new(transport: T, operator: OperatorId, observer: Arc<dyn MeshCallObserver>) -> Self {
        Self {
            transport,
            operator,
            observer,
            skipped_items: SkippedItemLog::default(),
            capabilities: ArcSwap::default(),
            warned_of_discovery: AtomicBool::new(false),
        }
    }

    /// How registrations of this mesh are written, as far as is known.
    pub fn rules(&self, mesh: &MeshName) -> DataplaneCapabilities {
        self.capabilities.load().rules(mesh)
    }

    /// The server's version, once a refresh or a write has learned it.
    pub fn version(&self) -> Option<KumaVersion> {
        self.capabilities.load().version.clone()
    }

    async fn observed<R>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<R, MeshError>> + Send,
    ) -> Result<R, MeshError> {
        let began = Instant::now();
        let result = work.await;
        let outcome = result.as_ref().map_or_else(|error| error.kind.label(), |_| "success");
        self.observer.call(operation, outcome, began.elapsed());
        result
    }

    async fn send(&self, method: HttpMethod, path: &str, body: Option<Vec<u8>>) -> Result<HttpResponse, MeshError> {
        let answer = self.transport.send(method, path, body).await;
        answer.map_err(|error| errors::of_transport(&call(method, path), &error))
    }

    pub(super) async fn get_json(&self, path: &str, asked: RequestKind) -> Result<Value, MeshError> {
        let answer = self.send(HttpMethod::Get, path, None).await?;
        json(HttpMethod::Get, path, asked, &answer)
    }

    /// Gives all items of a list to `take`, one by one: lists are long, and what nobody needs is not kept.
    async fn list(
        &self,
        path: &str,
        filter: Option<(&str, &str)>,
        asked: RequestKind,
        mut take: impl FnMut(Value) + Send,
    ) -> Result<(), MeshError> {
        let mut offsets = BTreeSet::new();
        let mut here = page_path(path, filter, None);
        for _ in 0..MAX_PAGES {
            let answer = self.send(HttpMethod::Get, &here, None).await?;
            let Some(fix) = read_items(&here, asked, &answer, &mut take)? else { return Ok(()) };
            let objects = page_path(path, filter, Some(&fix));
            if !offsets.insert(fix) {
                break;
            }
            here = objects;
        }
        Err(errors::unexpected(
            &call(HttpMethod::Get, &here),
            "the list does not end: its pages lead back or go on",
        ))
    }

    pub(super) async fn list_owned(&self, take: &mut (dyn FnMut(RegistrationSummary) + Send)) -> Result<(), MeshError> {
        let operator = self.operator.as_str();
        let mut skipped_items = SkippedItems::default();
        let read = |item: Value| {
            // Servers before 2.10 know no such filter and give all.
            if item.is_object() && labels::label(&item, OPERATOR_LABEL) != Some(operator) {
                return;
            }
            match dataplane::registration(item) {
                Ok(found) => take(RegistrationSummary::from(&found)),
                Err(malformed) => {
                    self.observer.skipped("list_owned");
                    skipped_items.add(&malformed.id, unreadable(malformed.why));
                }
            }
        };
        self.list("/dataplanes", Some((OPERATOR_LABEL, operator)), RequestKind::Server, read).await?;
        self.skipped_items.report(skipped_items, true);
        Ok(())
    }

    async fn read_one(&self, id: &RegistrationId) -> Result<Option<Registration>, MeshError> {
        let path = path_of(id)?;
        let answer = self.send(HttpMethod::Get, &path, None).await?;
        if errors::is_not_found(&answer) {
            return Ok(None);
        }
        let stored = json(HttpMethod::Get, &path, RequestKind::Dataplane, &answer)?;
        let unexpected = |what: &str| errors::unexpected(&call(HttpMethod::Get, &path), what);
        let registration = dataplane::registration(stored).map_err(|malformed| {
            unexpected(&format!("the Dataplane {id} cannot be read: {}", malformed.why))
        })?;
        if registration.id != *id {
            return Err(unexpected(&format!("the answer is about {}, not {id}", registration.id)));
        }
        Ok(Some(registration))
    }

    async fn write(&self, id: &RegistrationId, body: &Value) -> Result<(), MeshError> {
        let path = path_of(id)?;
        self.ensure_supported_version().await?;
        let answer = self.send(HttpMethod::Put, &path, Some(body.to_string().into_bytes())).await?;
        let said = accepted(HttpMethod::Put, &path, RequestKind::Write, &answer)?;
        for warning in said.get("warnings").and_then(Value::as_array).into_iter().flatten() {
            tracing::warn!(dataplane = %id, warning = warning.as_str().unwrap_or("?"), "accepted with a warning");
        }
        Ok(())
    }

    async fn remove(&self, id: &RegistrationId) -> Result<bool, MeshError> {
        let path = path_of(id)?;
        let answer = self.send(HttpMethod::Delete, &path, None).await?;
        if errors::is_not_found(&answer) {
            return Ok(false);
        }
        accepted(HttpMethod::Delete, &path, RequestKind::Dataplane, &answer).map(|_| true)
    }

    async fn known_services(&self, mesh: &MeshName) -> Result<BTreeSet<String>, MeshError> {
        let within = |list: &str| format!("/meshes/{}/{list}", segment(mesh.as_str()));
        if self.rules(mesh).mesh_services_only {
            return self.names(&within("meshservices")).await;
        }
        match self.names(&within("service-insights")).await {
            // No such list on this server, or no such mesh: the Dataplanes tell which.
            Err(error) if error.kind == MeshErrorKind::MeshNotFound => {
                let mut services = BTreeSet::new();
                let take = |item: Value| services.extend(dataplane::services(&item).map(str::to_owned));
                self.list(&within("dataplanes"), None, RequestKind::Mesh, take).await?;
                Ok(services)
            }
            known => known,
        }
    }

    /// The names of a list's items.
    async fn names(&self, list: &str) -> Result<BTreeSet<String>, MeshError> {
        let mut names = BTreeSet::new();
        let take = |item: Value| names.extend(item.get("name").and_then(Value::as_str).map(str::to_owned));
        self.list(list, None, RequestKind::Mesh, take).await?;
        Ok(names)
    }

    /// Fails where the server's dialect is not spoken here; asks for its version where that is not known.
    async fn ensure_supported_version(&self) -> Result<ApiDialect, MeshError> {
        let version = match self.version() {
            Some(version) => version,
            None => self.load_version().await?,
        };
        version.dialect().map_err(|why| errors::unexpected("the control plane is not written to", &why))
    }

    pub(super) async fn load_version(&self) -> Result<KumaVersion, MeshError> {
        let index = self.get_json("/", RequestKind::Server).await?;
        let version = KumaVersion::read(&index).map_err(|why| {
            errors::unexpected("GET /", &format!("{why}: check ControlPlane.spec.kuma.address"))
        })?;
        self.update_capabilities(|known| known.version = Some(version.clone()));
        Ok(version)
    }

    async fn load_capabilities(&self, meshes: &BTreeSet<MeshName>) -> Result<(), MeshError> {
        // Read anew each time: the server may have been upgraded under us.
        let version = self.load_version().await?;
        if (version.major, version.minor) < (2, 7) {
            tracing::warn!(version = %version.text, "older than 2.7, the first version that this operator is tried with");
        }
        self.ensure_supported_version().await?;
        let mut first_error = self.load_configuration().await.err();
        for mesh in meshes {
            if first_error.as_ref().is_some_and(|error| error.kind == MeshErrorKind::Unreachable) {
                break; // The others would only wait for the same time limit.
            }
            if let Err(error) = self.load_mesh(mesh).await {
                first_error = first_error.or(Some(error));
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    async fn load_configuration(&self) -> Result<(), MeshError> {
        let config = match self.get_json("/config", RequestKind::Server).await {
            Ok(config) => config,
            Err(error) if matches!(error.kind, MeshErrorKind::Forbidden | MeshErrorKind::UnexpectedResponse) => {
                // A token that may write Dataplanes need not reach the configuration.
                if self.capabilities.load().health_discovery.is_none()
                    && !self.warned_of_discovery.swap(true, Ordering::Relaxed)
                {
                    tracing::warn!(
                        error = %error,
                        "whether health discovery is on cannot be read; taken to be on, which is the default: \
                         where it is off, new registrations stay not ready"
                    );
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // The field has always been printed; a configuration without it is one with the default.
        let found = capabilities::health_discovery(&config).unwrap_or(HealthDiscovery::On);
        self.update_capabilities(|known| known.health_discovery = Some(found));
        match capabilities::refuses_writes(&config) {
            None => Ok(()),
            Some(why) => Err(MeshError {
                kind: MeshErrorKind::ReadOnly,
                message: format!("GET /config: {why} (ControlPlane.spec.kuma.address)"),
                retry_after: None,
            }),
        }
    }

    async fn load_mesh(&self, mesh: &MeshName) -> Result<(), MeshError> {
        let found = self.get_json(&format!("/meshes/{}", segment(mesh.as_str())), RequestKind::Mesh).await?;
        self.update_capabilities(|known| {
            known.exclusive.insert(mesh.clone(), capabilities::is_exclusive(&found));
        });
        Ok(())
    }

    fn update_capabilities(&self, change: impl Fn(&mut ServerCapabilities)) {
        self.capabilities.rcu(|known| {
            let mut known = ServerCapabilities::clone(known);
            change(&mut known);
            known
        });
    }
}

#[async_trait]
impl<T: Transport> ControlPlane for KumaControlPlane<T> {
    async fn list_owned(
        &self,
        _clusters: &BTreeSet<ClusterArn>,
        take: &mut (dyn FnMut(RegistrationSummary) + Send),
    ) -> Result<Vec<FailedSegment>, MeshError> {
        self.observed("list_owned", self.list_owned(take)).await.map(|()| Vec::new())
    }

    fn set_lease(&self, lease: Arc<dyn Lease>) {
        self.transport.set_lease(lease);
    }

    async fn get(&self, id: &RegistrationId) -> Result<Option<Registration>, MeshError> {
        self.observed("get", self.read_one(id)).await
    }

    async fn put(&self, id: &RegistrationId, body: &Value) -> Result<(), MeshError> {
        self.observed("put", self.write(id, body)).await
    }

    async fn delete(&self, id: &RegistrationId) -> Result<bool, MeshError> {
        self.observed("delete", self.remove(id)).await
    }

    async fn list_services(&self, mesh: &MeshName) -> Result<BTreeSet<String>, MeshError> {
        self.observed("list_services", self.known_services(mesh)).await
    }

    async fn refresh_capabilities(&self, meshes: &BTreeSet<MeshName>) -> Result<(), MeshError> {
        self.observed("refresh_capabilities", self.load_capabilities(meshes)).await
    }

    fn render(&self, desired: &DesiredRegistration, current: Option<&Registration>) -> RenderedRegistration {
        let rules = self.rules(&desired.id.mesh);
        match rules.dialect {
            ApiDialect::V2 => dataplane::render(desired, current, rules),
        }
    }

    fn render_drained(&self, current: &Registration, reason: DrainReason) -> RenderedRegistration {
        dataplane::render_drained(current, reason)
    }
}

fn call(method: HttpMethod, path: &str) -> String {
    format!("{method} {path}")
}

fn path_of(id: &RegistrationId) -> Result<String, MeshError> {
    // Such a segment would be taken for a step in the path, however it is encoded.
    if matches!(&*id.name, "" | "." | "..") {
        return Err(MeshError {
            kind: MeshErrorKind::Invalid,
            message: format!(
                "{:?} cannot be a Dataplane's name: correct MeshBinding.spec.dataplaneName",
                id.name
            ),
            retry_after: None,
        });
    }
    Ok(format!("/meshes/{}/dataplanes/{}", segment(id.mesh.as_str()), segment(&id.name)))
}

/// The JSON of an answer that must be 200.
fn json(method: HttpMethod, path: &str, asked: RequestKind, answer: &HttpResponse) -> Result<Value, MeshError> {
    if answer.status != 200 {
        return Err(errors::of_answer(&call(method, path), asked, answer));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| errors::unreadable(&call(method, path), &answer.body, &error.to_string()))
}

/// What was said to a write that worked: an object, or (up to 2.7) nothing.
fn unreadable(why: &'static str) -> SkipReason {
    let fix = "look at it with kumactl, and remove it if it is a leftover";
    SkipReason { what: "Dataplane", why, fix }
}

fn accepted(method: HttpMethod, path: &str, asked: RequestKind, answer: &HttpResponse) -> Result<Value, MeshError> {
    match answer.status {
        200..=299 if answer.body.trim_ascii().is_empty() => Ok(Value::Null),
        200..=299 => serde_json::from_slice(&answer.body)
            .map_err(|error| errors::unreadable(&call(method, path), &answer.body, &error.to_string())),
        _ => Err(errors::of_answer(&call(method, path), asked, answer)),
    }
}

/// Gives the items of a page to `take`, and returns the offset of the next page.
fn read_items(
    path: &str,
    asked: RequestKind,
    answer: &HttpResponse,
    take: &mut impl FnMut(Value),
) -> Result<Option<String>, MeshError> {
    let call = call(HttpMethod::Get, path);
    if answer.status != 200 {
        return Err(errors::of_answer(&call, asked, answer));
    }
    let unreadable = |error: &serde_json::Error| errors::unreadable(&call, &answer.body, &error.to_string());
    let page = list::read_page(&answer.body).map_err(|flaw| match flaw {
        PageFlaw::NotJson(error) => unreadable(&error),
        PageFlaw::Shape(why) => errors::unexpected(&call, &format!("{why}, as a list has")),
    })?;
    for item in page.items {
        take(serde_json::from_str(item.get()).map_err(|error| unreadable(&error))?);
    }
    Ok(page.fix)
}
