//! The client of Kuma and Kong Mesh: implements [`ControlPlane`].
//!
//! One call is one bounded exchange (lists: one per page). Its result is reported to the observer, and an error contains
//! the call, the response and the next step. A malformed Dataplane is skipped and logged; it never fails a list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use serde_json::Value;
use tokio::time::Instant;

use super::backends;
use super::capabilities::{
    self, DataplaneCapabilities, HealthDiscovery, KumaVersion, RulesBasis, ServerCapabilities, ServicesMode,
    WriteRules,
};
use super::connection::settings;
use super::dataplane;
use super::drift;
use super::endpoints::{self, ServiceNaming};
use super::errors::{self, RequestKind};
use super::expressible;
use super::first_write::{self, FIRST_WRITE_PAUSE, FIRST_WRITE_READS, FirstWrite};
use super::labels::{self, DISPLAY_NAME_LABEL, DRAIN_LABEL, OPERATOR_LABEL, TASK_LABEL};
use super::list::{self, ListFilter, MAX_PAGES, OFFSET, PageFlaw, page_path};
use super::members;
use super::normalise::normalise;
use super::previous_operator::PreviousOperator;
use super::reachable;
use super::rolling_upgrade::{HIDDEN_READS, RESOURCE_READS, RESOURCE_WRITES, RollingUpgrade, VERSION_READS};
use super::sidecars;
use super::upgrade::UpgradeScan;
use super::writers::RegistrationWriters;
use super::zone_proxy::{self, ZoneProxySegment};
use ecs_mesh_api::{
    AllowList, ApiDialect, BackendKind, KumaConnection, KumaFeature, KumaRelease, ZoneProxyForm,
    ZoneProxyKind,
};
use ecs_mesh_control_plane::http::{
    HttpMethod, HttpResponse, HttpTransport, SettingsError, Transport, TransportError, quote, quote_name,
    segment,
};
use ecs_mesh_control_plane::skipped_items::{SkipReason, SkippedItemLog, SkippedItems};
use ecs_mesh_control_plane::{
    ControlPlane, FailedSegment, MeshCallObserver, MeshError, MeshErrorKind, MeshMember, OwnedEndpoint,
    Registration, RegistrationOwner, RegistrationSummary, RenderedRegistration, SupportGate, WriterId,
};
use ecs_mesh_controller::{ActiveWarnings, Lease, LeaseTerm, Secrets};
use ecs_mesh_core::intent::{DesiredProxy, DesiredRegistration, MeshBackend, MeshServices, RegistrationId};
use ecs_mesh_core::plan::report::UpgradeCheck;
use ecs_mesh_core::plan::{DrainReason, FieldChange};
use ecs_mesh_model::{ClusterArn, MeshName, OperatorId, SidecarOutbounds, Timestamp};

/// The warning about a version that is not tested.
const UNTESTED_VERSION: &str = "untested version";

/// The condition of an operator with the previous id that still registers.
const PREVIOUS_OPERATOR_RUNS: &str = "previous operator runs";

/// The condition of a control plane with instances of several releases.
const ROLLING_UPGRADE: &str = "rolling upgrade";

/// How long an answer about the version permits writes. An upgrade replaces the server under a running operator.
const VERSION_VALID_FOR: Duration = Duration::from_secs(5);

/// Shortest time between two reads of the version where a registration lacks what the version has.
const VERSION_RECHECK: Duration = Duration::from_secs(1);

/// How long the last answer about the version counts while the server gives another answer than a version. A server that
/// can't be reached gets no writes.
const LAST_VERSION_COUNTS_FOR: Duration = Duration::from_mins(5);

/// A Kuma or Kong Mesh control plane.
pub struct KumaControlPlane<T> {
    transport: T,
    operator: OperatorId,
    /// Another id whose registrations are this operator's, too.
    previous_operator: Option<PreviousOperator>,
    observer: Arc<dyn MeshCallObserver>,
    skipped_items: SkippedItemLog,
    capabilities: ArcSwap<ServerCapabilities>,
    support: Arc<SupportGate>,
    version_check: Mutex<VersionCheck>,
    /// The dialect in the manifest.
    named_dialect: Option<ApiDialect>,
    /// The release for which a plan renders registrations, instead of the server's.
    target: Option<KumaRelease>,
    first_write: FirstWrite,
    rolling_upgrade: RollingUpgrade,
    writers: RegistrationWriters,
    /// Checked before each write, since one call may make several.
    lease: OnceLock<Arc<dyn Lease>>,
    /// Warnings that were logged, with the version where they concern one.
    warnings: ActiveWarnings<&'static str, Option<Arc<str>>>,
}

/// When the version was read last.
#[derive(Clone, Copy, Debug, Default)]
struct VersionCheck {
    read: Option<Instant>,
    /// How many connections have failed: the server may be another one since.
    failures: u64,
    /// The failures before the last read.
    failures_at_read: u64,
}

impl KumaControlPlane<HttpTransport> {
    /// Prepares a connection without sending anything or reading a secret. The manifest may name the `allowed` files and
    /// variables. The process must have a default rustls provider.
    ///
    /// # Errors
    /// Names the invalid field of the manifest.
    pub fn connect(
        spec: &KumaConnection,
        allowed: &AllowList,
        operator: OperatorId,
        observer: Arc<dyn MeshCallObserver>,
        secrets: Arc<dyn Secrets>,
    ) -> Result<Self, SettingsError> {
        let transport = HttpTransport::new(settings(spec, allowed), secrets)?;
        Ok(Self::new(transport, operator, observer).with_dialect(spec.dialect))
    }
}

impl<T: Transport> KumaControlPlane<T> {
    /// Creates a client on this transport. Capabilities have their defaults until they are refreshed.
    pub fn new(transport: T, operator: OperatorId, observer: Arc<dyn MeshCallObserver>) -> Self {
        Self {
            transport,
            operator,
            previous_operator: None,
            observer,
            skipped_items: SkippedItemLog::default(),
            capabilities: ArcSwap::default(),
            support: Arc::default(),
            version_check: Mutex::default(),
            named_dialect: None,
            target: None,
            first_write: FirstWrite::default(),
            rolling_upgrade: RollingUpgrade::default(),
            writers: RegistrationWriters::of(None),
            lease: OnceLock::new(),
            warnings: ActiveWarnings::default(),
        }
    }

    /// The same client with the dialect that the manifest names for a server whose version decides none.
    #[must_use]
    pub fn with_dialect(self, named_dialect: Option<ApiDialect>) -> Self {
        Self { named_dialect, ..self }
    }

    /// The same client for an operator that had this id before: registrations with its labels are owned, and the next write
    /// gives each the new id. No operator with the previous id may run.
    #[must_use]
    pub fn with_previous_operator(self, previous: Option<OperatorId>) -> Self {
        let previous = previous.filter(|previous| *previous != self.operator);
        Self { previous_operator: previous.map(PreviousOperator::new), ..self }
    }

    /// The ids whose registrations are owned: this operator's, and the previous one.
    fn operators(&self) -> impl Iterator<Item = &str> {
        let previous = self.previous_operator.as_ref().map(|previous| &previous.id);
        std::iter::once(&self.operator).chain(previous).map(OperatorId::as_str)
    }

    /// A registration with its owner as this operator sees it: those of its previous id are its own.
    fn claimed(&self, registration: Registration) -> Registration {
        let previous = self.previous_operator.as_ref();
        let owner = registration.owner.clone();
        let claimed = match previous {
            Some(previous) => previous.claim(registration, &self.operator),
            None => return registration,
        };
        let is_new = matches!(&owner, RegistrationOwner::Owned(labels) if Some(&labels.operator) == previous.map(|one| &one.id));
        if is_new && claimed.owner == owner && self.warnings.raise(PREVIOUS_OPERATOR_RUNS, None) {
            let name = claimed.id.to_string();
            let help = "stop the operator with the previous id; its new registrations are left to it";
            tracing::error!(%name, help, "the previous operator still runs");
        }
        claimed
    }

    fn claimed_endpoint(&self, endpoint: OwnedEndpoint) -> OwnedEndpoint {
        match &self.previous_operator {
            Some(previous) => {
                OwnedEndpoint { owner: previous.claim_owner(endpoint.owner, &self.operator), ..endpoint }
            }
            None => endpoint,
        }
    }

    fn claimed_member(&self, member: MeshMember) -> MeshMember {
        match &self.previous_operator {
            Some(previous) => {
                MeshMember { owner: previous.claim_owner(member.owner, &self.operator), ..member }
            }
            None => member,
        }
    }

    /// The same client for a plan of an upgrade to this release: registrations are rendered for it. For dry
    /// runs alone.
    #[must_use]
    pub fn with_target(self, target: Option<KumaRelease>) -> Self {
        Self { target, ..self }
    }

    /// The same client, which marks what it writes as written by this process. `None`: it writes nothing.
    #[must_use]
    pub fn with_writer(self, writer: Option<WriterId>) -> Self {
        Self { writers: RegistrationWriters::of(writer), ..self }
    }

    /// The term of the lease now.
    fn term(&self) -> LeaseTerm {
        self.lease.get().map_or(LeaseTerm::Unlimited, |lease| lease.term())
    }

    /// The release of the planned upgrade; `None` also where the server is of that release or a later one.
    fn upgrade_target(&self) -> Option<KumaRelease> {
        let current = self.capabilities.load().version.as_ref().and_then(|version| version.release);
        self.target.filter(|target| current.is_none_or(|current| current < *target))
    }

    /// The capabilities by which registrations of this mesh are rendered.
    fn rendering(&self, mesh: &MeshName) -> DataplaneCapabilities {
        let known = self.capabilities.load();
        self.upgrade_target().map_or_else(|| known.of_mesh(mesh), |target| known.at_release(mesh, target))
    }

    /// The capabilities that decide how registrations of this mesh are written, as of the last refresh.
    pub fn capabilities(&self, mesh: &MeshName) -> DataplaneCapabilities {
        self.capabilities.load().of_mesh(mesh)
    }

    /// The release whose rules apply, as of the last refresh; the oldest during a rolling upgrade.
    pub(super) fn release(&self) -> KumaRelease {
        self.upgrade_target().unwrap_or_else(|| self.capabilities.load().release())
    }

    /// The server's version; `None` before the first refresh or write.
    pub fn version(&self) -> Option<KumaVersion> {
        self.capabilities.load().version.clone()
    }

    /// The rules by which the server is written to, or the reason why it is not; `None` before the version is read.
    pub(super) fn known_rules(&self) -> Option<Result<WriteRules, Arc<String>>> {
        match self.support.refusal() {
            Some(reason) => Some(Err(reason)),
            None => self.capabilities.load().rules.map(Ok),
        }
    }

    pub(super) async fn observed<R>(
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

    pub(super) async fn send(
        &self,
        method: HttpMethod,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, MeshError> {
        // Instances are asked in turn: a connection that is used again reaches the same one each time.
        let has_instances = self.capabilities.load().newer.is_some();
        let response = if has_instances {
            self.transport.send_on_new_connection(method, path, body).await
        } else {
            self.transport.send(method, path, body).await
        };
        self.received(method, path, response)
    }

    fn received(
        &self,
        method: HttpMethod,
        path: &str,
        response: Result<HttpResponse, TransportError>,
    ) -> Result<HttpResponse, MeshError> {
        if response.as_ref().is_err_and(|error| error.kind.mesh_kind() == MeshErrorKind::Unreachable) {
            self.with_version_check(|check| check.failures += 1);
        }
        response.map_err(|error| errors::transport_error(&call(method, path), error))
    }

    pub(super) async fn get_json(&self, path: &str, request: RequestKind) -> Result<Value, MeshError> {
        let response = self.send(HttpMethod::Get, path, None).await?;
        read_json(HttpMethod::Get, path, request, &response)
    }

    /// As [`Self::get_json`], by any instance behind a load balancer.
    async fn get_json_anew(&self, path: &str, request: RequestKind) -> Result<Value, MeshError> {
        let response = self.transport.send_on_new_connection(HttpMethod::Get, path, None).await;
        let response = self.received(HttpMethod::Get, path, response)?;
        read_json(HttpMethod::Get, path, request, &response)
    }

    /// Passes all items of a list to `sink`, one by one, since lists are long.
    async fn list(
        &self,
        path: &str,
        filter: Option<ListFilter<'_>>,
        request: RequestKind,
        mut sink: impl FnMut(Value) + Send,
    ) -> Result<(), MeshError> {
        let mut offsets = BTreeSet::new();
        let mut page = page_path(path, filter, None);
        for _ in 0..MAX_PAGES {
            let response = self.send(HttpMethod::Get, &page, None).await?;
            let Some(next) = read_items(&page, request, &response, &mut sink)? else { return Ok(()) };
            let next_page = page_path(path, filter, Some(&next));
            if !offsets.insert(next) {
                break;
            }
            page = next_page;
        }
        Err(errors::unexpected(
            &call(HttpMethod::Get, &page),
            "the list does not end: its pages repeat or exceed the limit",
        ))
    }

    /// Lists the owned registrations of all types. The zone proxies fail by themselves.
    pub(super) async fn list_all_owned(
        &self,
        sink: &mut (dyn FnMut(RegistrationSummary) + Send),
    ) -> Result<Vec<FailedSegment>, MeshError> {
        let mut skipped = SkippedItems::default();
        self.list_owned_dataplanes(sink, &mut skipped).await?;
        let mut failed = Vec::new();
        let release = self.capabilities.load().rules.map(|rules| rules.release);
        // Until the version is known, no zone proxy is written either.
        if release.is_some_and(|release| release.has(KumaFeature::ZoneProxyResources)) {
            for kind in ZoneProxyKind::ALL {
                if let Err(error) = self.list_owned_zone_proxies(kind, sink, &mut skipped).await {
                    failed.push(FailedSegment { segment: Arc::new(ZoneProxySegment(kind)), error });
                }
            }
        }
        self.skipped_items.report(skipped, failed.is_empty());
        if let Some(previous) = self.previous_operator.as_ref().filter(|_| failed.is_empty()) {
            previous.complete();
        }
        Ok(failed)
    }

    async fn list_owned_zone_proxies(
        &self,
        kind: ZoneProxyKind,
        sink: &mut (dyn FnMut(RegistrationSummary) + Send),
        skipped: &mut SkippedItems,
    ) -> Result<(), MeshError> {
        for operator in self.operators() {
            self.list_zone_proxies_of(operator, kind, sink, skipped).await?;
        }
        Ok(())
    }

    async fn list_zone_proxies_of(
        &self,
        operator: &str,
        kind: ZoneProxyKind,
        sink: &mut (dyn FnMut(RegistrationSummary) + Send),
        skipped: &mut SkippedItems,
    ) -> Result<(), MeshError> {
        let mut read = |item: Value| {
            // Also where the server ignores the filter.
            if labels::label(&item, OPERATOR_LABEL) != Some(operator) {
                return;
            }
            match zone_proxy::registration(kind, item) {
                Ok(found) if found.owner == RegistrationOwner::Foreign => {}
                Ok(registration) => {
                    self.writers.observe(&self.operator, &self.term(), &registration);
                    sink(RegistrationSummary::from(&self.claimed(registration)));
                }
                Err(malformed) => {
                    self.observer.skipped("list_owned");
                    skipped.add(&malformed.id, unreadable(kind.resource(), malformed.problem));
                }
            }
        };
        let path = zone_proxy::list_path(kind, self.capabilities.load().release());
        let filter = Some(ListFilter::Label(OPERATOR_LABEL, operator));
        let mut listed = self.list(path, filter, RequestKind::Server, &mut read).await;
        for _ in 1..self.reads() {
            // An instance of 3.0 has no such type.
            if listed.is_ok() {
                break;
            }
            listed = self.list(path, filter, RequestKind::Server, &mut read).await;
        }
        let newer = self.capabilities.load().newer;
        match (listed, newer.filter(|newer| !newer.has(KumaFeature::ZoneProxyResources))) {
            (Err(error), Some(newer)) if error.kind == MeshErrorKind::UnexpectedResponse => {
                let what = kind.resource();
                let message = format!(
                    "GET {path}: instances of {newer} alone have answered, which have no {what}; an older one may still have some"
                );
                Err(MeshError { message, source: None, ..error })
            }
            (listed, _) => listed,
        }
    }

    async fn list_owned_dataplanes(
        &self,
        sink: &mut (dyn FnMut(RegistrationSummary) + Send),
        skipped: &mut SkippedItems,
    ) -> Result<(), MeshError> {
        for operator in self.operators() {
            self.list_dataplanes_of(operator, sink, skipped).await?;
        }
        Ok(())
    }

    async fn list_dataplanes_of(
        &self,
        operator: &str,
        sink: &mut (dyn FnMut(RegistrationSummary) + Send),
        skipped: &mut SkippedItems,
    ) -> Result<(), MeshError> {
        let read = |item: Value| {
            // Servers before 2.10 ignore the filter and return all Dataplanes.
            if item.is_object() && labels::label(&item, OPERATOR_LABEL) != Some(operator) {
                return;
            }
            match dataplane::registration(item) {
                Ok(registration) => {
                    self.writers.observe(&self.operator, &self.term(), &registration);
                    sink(RegistrationSummary::from(&self.claimed(registration)));
                }
                Err(malformed) => {
                    self.observer.skipped("list_owned");
                    skipped.add(&malformed.id, unreadable("Dataplane", malformed.problem));
                }
            }
        };
        let filter = Some(ListFilter::Label(OPERATOR_LABEL, operator));
        self.list("/dataplanes", filter, RequestKind::Server, read).await
    }

    /// How often something is read of which an instance may show a part: once, unless a rolling upgrade has several releases.
    fn reads(&self) -> usize {
        if self.capabilities.load().newer.is_some() { RESOURCE_READS } else { 1 }
    }

    /// Reads a Dataplane, and prefers a complete answer where instances show different parts of it. A field that no
    /// answer shows is dropped, and is to be written again.
    async fn read_complete(&self, id: &RegistrationId) -> Result<Option<Registration>, MeshError> {
        let found = self.read_by_instances(id).await?;
        let known = self.capabilities.load();
        let is_whole = |found: &Registration| dataplane::is_complete(&found.stored, known.of_mesh(&id.mesh));
        let is_recent =
            self.with_version_check(|check| check.read).is_none_or(|at| at.elapsed() < VERSION_RECHECK);
        if known.newer.is_some() || is_recent || found.as_ref().is_none_or(is_whole) {
            return Ok(found);
        }
        // The server may have been upgraded since its version was read, and hide what it no longer knows. If the version
        // cannot be read now, the next write finds that, too.
        let is_read = self.load_version().await.is_ok();
        if is_read && self.capabilities.load().older_answers {
            return self.read_by_instances(id).await;
        }
        Ok(found)
    }

    async fn read_by_instances(&self, id: &RegistrationId) -> Result<Option<Registration>, MeshError> {
        let known = self.capabilities.load_full();
        let (reads, capabilities) = match known.newer {
            None => (1, known.of_mesh(&id.mesh)),
            Some(newer) if self.rolling_upgrade.has_newer_form(id) => (1, known.at_release(&id.mesh, newer)),
            Some(_) if known.older_answers => (HIDDEN_READS, known.of_mesh(&id.mesh)),
            Some(_) => (RESOURCE_READS, known.of_mesh(&id.mesh)),
        };
        let mut found = None;
        for _ in 0..reads {
            found = self.read_one(id).await?;
            if found.as_ref().is_none_or(|found| dataplane::is_complete(&found.stored, capabilities)) {
                break;
            }
        }
        Ok(found)
    }

    async fn read_one(&self, id: &RegistrationId) -> Result<Option<Registration>, MeshError> {
        check_name(id)?;
        let Some(path) = self.path_of(id) else { return Ok(None) };
        let mut response = self.send(HttpMethod::Get, &path, None).await?;
        for _ in 1..self.reads() {
            // An instance of 3.0 has no zone proxies of this form, and answers otherwise.
            if id.zone_proxy().is_none() || response.status == 200 || errors::is_not_found(&response) {
                break;
            }
            response = self.send(HttpMethod::Get, &path, None).await?;
        }
        if errors::is_not_found(&response) {
            return Ok(None);
        }
        let stored = read_json(HttpMethod::Get, &path, RequestKind::Dataplane, &response)?;
        let unexpected = |problem: &str| errors::unexpected(&call(HttpMethod::Get, &path), problem);
        let read = match id.zone_proxy() {
            Some((kind, _)) => zone_proxy::registration(kind, stored),
            None => dataplane::registration(stored),
        };
        let registration = read.map_err(|malformed| {
            unexpected(&format!("parsing the registration {id}: {}", malformed.problem))
        })?;
        if registration.id != *id {
            let other = quote_name(&registration.id.to_string());
            return Err(unexpected(&format!("the response contains {other} instead of {id}")));
        }
        self.writers.observe(&self.operator, &self.term(), &registration);
        Ok(Some(self.claimed(registration)))
    }

    async fn write(&self, id: &RegistrationId, body: &Value) -> Result<(), MeshError> {
        check_name(id)?;
        self.check_known_support().await?;
        let path = self.path_of(id).ok_or_else(|| self.no_such_type(id))?;
        self.check_rendering(id, &path, body)?;
        if self.capabilities.load().newer.is_some() {
            return self.write_until_complete(id, &path, body).await;
        }
        match self.unverified_version() {
            None => self.send_write(id, &path, body).await,
            Some(version) => self.write_first(id, &path, body, &version).await,
        }
    }

    /// The path of a registration; `None` where the server has no such type.
    fn path_of(&self, id: &RegistrationId) -> Option<String> {
        let release = self.capabilities.load().release();
        match id.zone_proxy() {
            Some(_) if !release.has(KumaFeature::ZoneProxyResources) => None,
            Some((kind, name)) => Some(zone_proxy::path(kind, name, release)),
            None => Some(format!("/meshes/{}/dataplanes/{}", segment(id.mesh.as_str()), segment(&id.name))),
        }
    }

    /// The control plane was upgraded since the registration was rendered. The caller evaluates the task again.
    fn no_such_type(&self, id: &RegistrationId) -> MeshError {
        let release = self.capabilities.load().release();
        let message = format!("writing {id}: not sent, since Kuma {release} has no such type");
        MeshError::new(MeshErrorKind::Conflict, message)
    }

    /// Fails if this process may not write now.
    pub(super) fn check_lease(&self, call: &str) -> Result<(), MeshError> {
        let obstacle = self.lease.get().and_then(|lease| lease.obstacle());
        let refused = |obstacle| {
            MeshError::new(MeshErrorKind::Obstructed(obstacle), format!("{call}: not sent: {obstacle}"))
        };
        obstacle.map_or(Ok(()), |obstacle| Err(refused(obstacle)))
    }

    async fn send_write(&self, id: &RegistrationId, path: &str, body: &Value) -> Result<(), MeshError> {
        self.check_lease(&format!("PUT {path}"))?;
        let mut body = body.clone();
        self.writers.label(&mut body);
        let response = self.send(HttpMethod::Put, path, Some(body.to_string().into_bytes())).await?;
        let result = read_write_result(HttpMethod::Put, path, RequestKind::Write, &response)?;
        for warning in result.get("warnings").and_then(Value::as_array).into_iter().flatten() {
            tracing::warn!(
                registration = %id,
                warning = quote(warning.as_str().unwrap_or("?")),
                "control plane accepted the registration with a warning"
            );
        }
        Ok(())
    }

    /// Writes and reads back until nothing of the body is dropped. The fields of both the old and the new instances are
    /// then stored. Where no old instance answers, one write is enough.
    async fn write_until_complete(
        &self,
        id: &RegistrationId,
        path: &str,
        body: &Value,
    ) -> Result<(), MeshError> {
        let sent = normalise(body);
        let mut body = body.clone();
        let mut refused = None;
        let mut shown = None;
        let writes = if self.capabilities.load().older_answers { RESOURCE_WRITES } else { 1 };
        for _ in 0..writes {
            match self.send_write(id, path, &body).await {
                // A new instance refuses outbounds without the target that it knows.
                Err(error) if error.kind == MeshErrorKind::Invalid => {
                    refused = Some(error);
                    continue;
                }
                result => result?,
            }
            refused = None;
            // If a new instance has stored it, an old one refuses an update without its label.
            if let Some(labels) = body.get_mut("labels").and_then(Value::as_object_mut) {
                labels.insert(DISPLAY_NAME_LABEL.to_owned(), (*id.name).into());
            }
            for _ in 0..RESOURCE_READS {
                let Some(stored) = self.read_one(id).await? else { return Ok(()) };
                if !has_owner_of(&stored.stored, &body) {
                    return Err(overwritten(path));
                }
                if stored.normal == sent {
                    return Ok(());
                }
                shown = Some(stored.stored);
            }
        }
        self.verify_newer(&body, shown.as_ref())?;
        let Some(error) = refused else {
            // Complete for the new instances, and written again when it is compared next.
            return Ok(());
        };
        if self.rolling_upgrade.has_newer_form(id) {
            return Err(error);
        }
        self.rolling_upgrade.use_newer_form(id);
        Err(MeshError::new(MeshErrorKind::Conflict, error.message))
    }

    /// Fails if the newer release is not tested, and an instance shows the first write to it otherwise than that release is
    /// known to: without the fields that it does not know, and with all others.
    fn verify_newer(&self, body: &Value, shown: Option<&Value>) -> Result<(), MeshError> {
        let known = self.capabilities.load();
        let (Some(version), Some(release), Some(shown)) = (&known.newer_untested, known.newer, shown) else {
            return Ok(());
        };
        if self.first_write.is_verified(version) {
            return Ok(());
        }
        self.record_first_write(version, &release.without_unknown_fields(body), Some(shown))
    }

    /// The server's version, if it needs evidence and no write to it was read back yet.
    fn unverified_version(&self) -> Option<Arc<str>> {
        let known = self.capabilities.load();
        let version = &known.version.as_ref()?.text;
        let needs_evidence = known.rules.is_some_and(WriteRules::needs_evidence);
        (needs_evidence && !self.first_write.is_verified(version)).then(|| Arc::clone(version))
    }

    /// Writes and reads back, several times where the answer differs: a store's replica may lag. Other writes fail meanwhile,
    /// since nothing may wait between a write and its caller's checks; [`Self::check_support`] waits.
    async fn write_first(
        &self,
        id: &RegistrationId,
        path: &str,
        body: &Value,
        version: &Arc<str>,
    ) -> Result<(), MeshError> {
        let Ok(_in_progress) = self.first_write.in_progress.try_lock() else {
            let message = format!("PUT {path}: not sent while the first write to {version} is read back");
            return Err(MeshError::new(MeshErrorKind::Conflict, message));
        };
        self.send_write(id, path, body).await?;
        let mut stored = None;
        for read in 0..FIRST_WRITE_READS {
            if read > 0 {
                tokio::time::sleep(FIRST_WRITE_PAUSE).await;
            }
            stored = self.read_one(id).await?.map(|stored| stored.stored);
            if first_write::difference(body, stored.as_ref()).is_none() {
                break;
            }
        }
        if stored.as_ref().is_some_and(|stored| !has_owner_of(stored, body)) {
            return Err(overwritten(path));
        }
        self.record_first_write(version, body, stored.as_ref())
    }

    /// Records what an untested version stored of the first write to it. Fails if it stored it differently.
    fn record_first_write(
        &self,
        version: &Arc<str>,
        sent: &Value,
        stored: Option<&Value>,
    ) -> Result<(), MeshError> {
        self.first_write.record(version, sent, stored, Instant::now());
        if let Some(reason) = self.first_write.refutation(version, Instant::now()) {
            self.support.record(Some(reason));
        }
        self.support.check()
    }

    /// Fails if the body was rendered for another release than the server has now: it was upgraded in between, and would drop
    /// fields. The caller reads and renders again.
    fn check_rendering(&self, id: &RegistrationId, path: &str, body: &Value) -> Result<(), MeshError> {
        let known = self.capabilities.load();
        let newer = known.newer.filter(|_| self.rolling_upgrade.has_newer_form(id));
        let release = newer.unwrap_or_else(|| known.release());
        let mut fields = release.unknown_fields(body);
        fields.extend(release.refused_fields(body));
        let is_unknown = zone_proxy::is_resource(body) && !release.has(KumaFeature::ZoneProxyResources);
        fields.extend(is_unknown.then(|| "type".to_owned()));
        // A drained body is the stored one, which may have no tags.
        if release.has(KumaFeature::InboundTags) && labels::label(body, DRAIN_LABEL).is_none() {
            let inbounds = body.pointer("/networking/inbound").and_then(Value::as_array);
            let untagged = inbounds.into_iter().flatten().any(|inbound| inbound.get("tags").is_none());
            fields.extend(untagged.then(|| "networking.inbound[].tags".to_owned()));
        }
        if fields.is_empty() {
            return Ok(());
        }
        let message = format!(
            "PUT {path}: not sent, since the body does not fit Kuma {release} ({}): the control plane has changed since the \
             body was rendered",
            fields.join(", ")
        );
        Err(MeshError::new(MeshErrorKind::Conflict, message))
    }

    async fn remove(&self, id: &RegistrationId) -> Result<bool, MeshError> {
        check_name(id)?;
        self.check_known_support().await?;
        let Some(path) = self.path_of(id) else { return Ok(false) };
        let response = self.send(HttpMethod::Delete, &path, None).await?;
        if errors::is_not_found(&response) {
            return Ok(false);
        }
        read_write_result(HttpMethod::Delete, &path, RequestKind::Dataplane, &response).map(|_| true)
    }

    async fn list_endpoints_of(
        &self,
        mesh: &MeshName,
        service: &str,
    ) -> Result<Vec<OwnedEndpoint>, MeshError> {
        let path = format!("/meshes/{}/dataplanes+insights", segment(mesh.as_str()));
        let mut found = Vec::new();
        let has_tags = self.capabilities(mesh).has(KumaFeature::InboundTags);
        let naming = if has_tags { ServiceNaming::Tag } else { ServiceNaming::Label };
        let has_listeners = self.capabilities(mesh).has(KumaFeature::Listeners);
        // Zone proxies with a listener have no tag to filter by. No service has both them and inbounds.
        let by_label = (has_tags && has_listeners).then_some(ServiceNaming::Label);
        for filter in std::iter::once(naming).chain(by_label) {
            let mut read = |item: Value| match endpoints::read(item, service, naming) {
                Ok(endpoint) => found.extend(endpoint.map(|endpoint| self.claimed_endpoint(endpoint))),
                // Unreadable items do not count as ready.
                Err(_) => self.observer.skipped("list_endpoints"),
            };
            for _ in 0..self.reads() {
                self.list(&path, Some(filter.filter(service)), RequestKind::Mesh, &mut read).await?;
            }
            if !found.is_empty() {
                break;
            }
        }
        found.sort_by(|a: &OwnedEndpoint, b| a.endpoint.id.cmp(&b.endpoint.id));
        found.dedup_by(|a, b| a.endpoint.id == b.endpoint.id);
        Ok(found)
    }

    async fn list_all_members(
        &self,
        mesh: &MeshName,
        sink: &mut (dyn FnMut(MeshMember) + Send),
    ) -> Result<(), MeshError> {
        let path = format!("/meshes/{}/dataplanes+insights", segment(mesh.as_str()));
        let read = |item: Value| match members::read(item) {
            Ok(member) => sink(self.claimed_member(member)),
            Err(_) => self.observer.skipped("list_members"),
        };
        self.list(&path, None, RequestKind::Mesh, read).await
    }

    async fn list_reported_outbounds(
        &self,
        mesh: &MeshName,
    ) -> Result<Vec<(RegistrationId, SidecarOutbounds)>, MeshError> {
        if !self.capabilities(mesh).has(KumaFeature::BindOutbounds) {
            return Ok(Vec::new());
        }
        let path = format!("/meshes/{}/dataplanes+insights", segment(mesh.as_str()));
        let mut found = Vec::new();
        for operator in self.operators() {
            let sink = |item: Value| found.extend(sidecars::read(&item, operator));
            let filter = Some(ListFilter::Label(OPERATOR_LABEL, operator));
            self.list(&path, filter, RequestKind::Mesh, sink).await?;
        }
        Ok(found)
    }

    async fn list_service_names(&self, mesh: &MeshName) -> Result<BTreeSet<String>, MeshError> {
        let path_of = |list: &str| format!("/meshes/{}/{list}", segment(mesh.as_str()));
        match self.list_names(&path_of("service-insights")).await {
            // The server has no such list, or no such mesh: the list of Dataplanes distinguishes the two.
            Err(error) if error.kind == MeshErrorKind::MeshNotFound => {
                let mut services = BTreeSet::new();
                let sink = |item: Value| services.extend(dataplane::services(&item).map(str::to_owned));
                self.list(&path_of("dataplanes"), None, RequestKind::Mesh, sink).await?;
                Ok(services)
            }
            result => result,
        }
    }

    /// The resources of a mesh, of all types: an outbound to a resource of another type is named as such, and sidecars bind
    /// the addresses of all. Older releases than 2.9 can call none of them.
    async fn list_mesh_backends(&self, mesh: &MeshName) -> Result<Vec<MeshBackend>, MeshError> {
        if !self.capabilities(mesh).has(KumaFeature::ReachableBackends) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for kind in BackendKind::ALL {
            let path = format!("/meshes/{}/{}", segment(mesh.as_str()), backends::list_name(kind));
            let sink = |item: Value| found.extend(backends::read(kind, &item));
            self.list(&path, None, RequestKind::Mesh, sink).await?;
        }
        Ok(found)
    }

    /// The names of a list's items.
    async fn list_names(&self, list: &str) -> Result<BTreeSet<String>, MeshError> {
        let mut names = BTreeSet::new();
        let sink = |item: Value| names.extend(item.get("name").and_then(Value::as_str).map(str::to_owned));
        self.list(list, None, RequestKind::Mesh, sink).await?;
        Ok(names)
    }

    /// The ports of a list's MeshServices, by name.
    async fn list_ports(&self, list: &str) -> Result<BTreeMap<String, Vec<u16>>, MeshError> {
        let mut ports = BTreeMap::new();
        let sink = |item: Value| {
            let service = backends::read(BackendKind::MeshService, &item);
            ports.extend(service.map(|service| (service.name, service.ports)));
        };
        self.list(list, None, RequestKind::Mesh, sink).await?;
        Ok(ports)
    }

    fn with_version_check<R>(&self, work: impl FnOnce(&mut VersionCheck) -> R) -> R {
        // Every change leaves it consistent, so the lock may be used after a panic.
        work(&mut self.version_check.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fails if the last version that was read is not supported. Reads it only if none was: callers have made sure before
    /// that it is not old, and nothing may wait between their check of the lease and the write.
    pub(super) async fn check_known_support(&self) -> Result<(), MeshError> {
        if self.with_version_check(|check| check.read).is_none() {
            self.load_version().await?;
        }
        self.support.check()
    }

    /// Fails if the server's version is not supported, or can't be read where the last answer is old. Waits for the first
    /// write to an untested version.
    async fn check_support(&self) -> Result<(), MeshError> {
        let VersionCheck { read, failures, failures_at_read } = self.with_version_check(|check| *check);
        let is_old = read.is_none_or(|at| at.elapsed() >= VERSION_VALID_FOR);
        if failures != failures_at_read || is_old {
            // After an outage, the server may be another one.
            let counts =
                failures == failures_at_read && read.is_some_and(|at| at.elapsed() < LAST_VERSION_COUNTS_FOR);
            match self.load_version().await {
                Ok(_) => {}
                Err(error) if !is_outage(error.kind) && counts => {
                    tracing::debug!(%error, "cannot read the version; using the last one");
                }
                Err(error) => return Err(error),
            }
        }
        drop(self.first_write.in_progress.lock().await);
        self.support.check()
    }

    pub(super) async fn load_version(&self) -> Result<KumaVersion, MeshError> {
        let began = Instant::now();
        // As of now: a connection that fails during the read makes its answer old, too.
        let failures = self.with_version_check(|check| check.failures);
        let read = self.read_version().await;
        self.with_version_check(|check| match &read {
            Ok(_) => {
                check.read = Some(began);
                check.failures_at_read = failures;
            }
            Err(error) => check.failures += u64::from(is_outage(error.kind)),
        });
        read
    }

    /// Reads the version, and what the server offers where the version alone decides nothing.
    async fn read_version(&self) -> Result<KumaVersion, MeshError> {
        let (mut reads, began) = (0, Instant::now());
        while reads < self.read_instance().await? {
            reads += 1;
        }
        let versions = self.rolling_upgrade.settle(Instant::now());
        // A newer release does not need the fields that the oldest lacks; those that the newer one lacks are read back.
        let Some(version) = versions.first().cloned() else {
            return Err(errors::unexpected("GET /", "no instance has answered"));
        };
        let newest = versions.last().filter(|_| versions.len() > 1);
        let newer = newest.and_then(|newest| newest.release);
        if let Some(release) = newer
            && self.warnings.raise(ROLLING_UPGRADE, None)
        {
            tracing::info!(oldest = %version.text, newest = %release, "rolling upgrade of the control plane; reading back writes");
        } else if newer.is_none() && self.warnings.clear(&ROLLING_UPGRADE) {
            tracing::info!(version = %version.text, "rolling upgrade of the control plane has ended");
        }
        let rules = self.confirm_versions(&versions).await?;
        let needs_evidence =
            |version: &&KumaVersion| version.rules(self.named_dialect).is_ok_and(WriteRules::needs_evidence);
        let older_answers = newer.is_some() && self.rolling_upgrade.older_answers_since(began);
        let newer_untested = newest.filter(needs_evidence).map(|newest| Arc::clone(&newest.text));
        self.update_capabilities(|known| {
            known.version = Some(version.clone());
            known.newer = newer;
            known.older_answers = older_answers;
            known.newer_untested.clone_from(&newer_untested);
            // Reads and plans go on with the last rules.
            known.rules = rules.as_ref().ok().copied().or(known.rules);
        });
        self.support.record(rules.err());
        Ok(version)
    }

    /// Reads the version of the instance that answers. Returns how often more it is to be read.
    async fn read_instance(&self) -> Result<usize, MeshError> {
        let index = self.get_json_anew("/", RequestKind::Server).await?;
        let version = KumaVersion::read(&index).map_err(|problem| {
            self.support.record(Some(problem.to_owned()));
            errors::unexpected("GET /", &format!("{problem}; help: check ControlPlane.spec.kuma.address"))
        })?;
        let instance = index.get("instanceId").and_then(Value::as_str).unwrap_or_default();
        let has_several_releases = self.rolling_upgrade.record(instance, &version, Instant::now());
        Ok(match instance {
            _ if has_several_releases => VERSION_READS - 1,
            // Instances cannot be told apart.
            "" => 0,
            // Where two answer in turn, the other one does. A single read could reach the same one each time, since the calls
            // in between repeat, too, and the writes would reach the other one.
            _ => 1,
        })
    }

    /// The rules of the oldest of the versions that answer. The inner error is the reason why nothing is written: one of them
    /// is not supported, or not of a known dialect.
    async fn confirm_versions(
        &self,
        versions: &[KumaVersion],
    ) -> Result<Result<WriteRules, String>, MeshError> {
        let mut oldest = None;
        let mut untested = Vec::new();
        for version in versions {
            let rules = match version.rules(self.named_dialect) {
                Ok(rules) => rules,
                Err(reason) => return Ok(Err(reason)),
            };
            if rules.needs_evidence() {
                if let Err(reason) = self.confirm_rules(version, rules, versions.len()).await? {
                    return Ok(Err(reason));
                }
                untested.push(&*version.text);
            }
            oldest = oldest.or(Some(rules));
        }
        if untested.is_empty() {
            self.warnings.clear(&UNTESTED_VERSION);
        } else if self.warnings.raise(UNTESTED_VERSION, Some(untested.join(", ").into())) {
            tracing::warn!(
                version = untested.join(", "),
                "control plane version is not tested; the first write is read back"
            );
        }
        Ok(oldest.ok_or_else(|| "no instance has answered".to_owned()))
    }

    /// Whether the server's resource types are those of the dialect. The inner error is the reason why nothing is written.
    async fn confirm_rules(
        &self,
        version: &KumaVersion,
        rules: WriteRules,
        releases: usize,
    ) -> Result<Result<(), String>, MeshError> {
        if let Some(reason) = self.first_write.refutation(&version.text, Instant::now()) {
            return Ok(Err(reason));
        }
        if self.capabilities.load().confirmed.get(&version.text) == Some(&rules.dialect) {
            return Ok(Ok(()));
        }
        // The instance that answers is not known.
        for _ in 0..if releases > 1 { VERSION_READS } else { 1 } {
            let resources = self.get_json_anew("/_resources", RequestKind::Server).await?;
            if capabilities::dialect_of_resources(&resources) == Some(rules.dialect) {
                self.update_capabilities(|known| {
                    known.confirmed.insert(Arc::clone(&version.text), rules.dialect);
                });
                return Ok(Ok(()));
            }
        }
        let help = match rules.basis {
            RulesBasis::Named => "correct ControlPlane.spec.kuma.dialect",
            _ => "use a tested version, or an operator release that supports this one",
        };
        Ok(Err(format!(
            "{} is not supported: GET /_resources does not list the resource types of dialect {}, so nothing is written to it; \
             help: {help}",
            version.text,
            rules.dialect.as_str()
        )))
    }

    async fn load_capabilities(&self, meshes: &BTreeSet<MeshName>) -> Result<(), MeshError> {
        // Read each time, since the server may have been upgraded.
        self.load_version().await?;
        self.support.check()?;
        let mut first_error = self.load_configuration().await.err();
        for mesh in meshes {
            if first_error.as_ref().is_some_and(|error| error.kind == MeshErrorKind::Unreachable) {
                break; // The other reads would wait for the same time limit.
            }
            if let Err(error) = self.load_mesh(mesh).await {
                first_error = first_error.or(Some(error));
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Reads all resources that may block the upgrade to this release.
    async fn scan_for_upgrade(
        &self,
        target: KumaRelease,
        unmanaged: Option<&BTreeSet<RegistrationId>>,
    ) -> Result<UpgradeCheck, MeshError> {
        let current = match self.version() {
            Some(version) => version,
            None => self.load_version().await?,
        };
        let mut scan = UpgradeScan::new(target, self.operator.as_str(), unmanaged);
        self.list("/dataplanes", None, RequestKind::Server, |item| scan.dataplane(&item)).await?;
        let release = self.capabilities.load().release();
        if release.has(KumaFeature::ZoneProxyResources) {
            for kind in ZoneProxyKind::ALL {
                let sink = |item: Value| scan.zone_proxy(kind.resource(), &item);
                self.list(zone_proxy::list_path(kind, release), None, RequestKind::Server, sink).await?;
            }
        }
        let mut meshes = Vec::new();
        self.list("/meshes", None, RequestKind::Server, |item| meshes.push(item)).await?;
        for mesh in meshes {
            let name = mesh.get("name").and_then(Value::as_str).unwrap_or_default();
            let mut has_identity = false;
            self.list_known(name, "meshidentities", |_| has_identity = true).await?;
            self.list_known(name, "meshservices", |item| scan.mesh_service(&item)).await?;
            scan.mesh(&mesh, has_identity);
        }
        Ok(scan.finish(&current))
    }

    /// Whether the mesh has a `MeshZoneAddress` of this zone, by which other zones find its zone ingresses. Those of other zones
    /// are synced here, too. Servers before 2.14 have none.
    ///
    /// # Errors
    /// If the list cannot be read.
    pub async fn has_zone_address(&self, mesh: &MeshName) -> Result<bool, MeshError> {
        let mut found = false;
        let sink = |item: Value| found |= !zone_proxy::is_of_other_zone(&item);
        self.observed("list_backends", self.list_known(mesh.as_str(), "meshzoneaddresses", sink)).await?;
        Ok(found)
    }

    /// Lists resources of a mesh, of a type that older servers do not have.
    async fn list_known(
        &self,
        mesh: &str,
        list: &str,
        sink: impl FnMut(Value) + Send,
    ) -> Result<(), MeshError> {
        let path = format!("/meshes/{}/{list}", segment(mesh));
        match self.list(&path, None, RequestKind::Mesh, sink).await {
            Err(error) if error.kind == MeshErrorKind::MeshNotFound => Ok(()),
            result => result,
        }
    }

    /// Renders with the MeshServices that the mesh is known to have.
    fn render_where_known(
        &self,
        desired: &DesiredRegistration,
        current: Option<&Registration>,
        capabilities: DataplaneCapabilities,
    ) -> RenderedRegistration {
        let known = self.capabilities.load();
        let services = known.mesh_services.get(&desired.id.mesh).filter(|_| self.upgrade_target().is_none());
        let has_mesh_service = |name: &str, port: u16| {
            services.is_none_or(|services| services.get(name).is_some_and(|ports| ports.contains(&port)))
        };
        dataplane::render_with_services(desired, current, capabilities, &has_mesh_service)
    }

    /// Renders for the instances of a rolling upgrade: in the form of the older release, without removing an outbound.
    fn render_for_both(
        &self,
        desired: &DesiredRegistration,
        current: Option<&Registration>,
        older: DataplaneCapabilities,
        newer: KumaRelease,
    ) -> RenderedRegistration {
        let id = &desired.id;
        let mut desired = desired.clone();
        desired.reach = reachable::without_removals(desired.reach, current);
        if self.rolling_upgrade.has_newer_form(id) {
            let newer = self.capabilities.load().at_release(&id.mesh, newer);
            return dataplane::render(&desired, current, newer);
        }
        let rendered = self.render_where_known(&desired, current, older);
        match current.filter(|current| self.is_kept_by_newer(&rendered, current, newer)) {
            Some(current) => {
                RenderedRegistration { body: current.stored.clone(), normal: current.normal.clone() }
            }
            None => rendered,
        }
    }

    /// Whether the current copy has all that an instance of the newer release keeps of the rendered one, and no other instance
    /// answers: a write would change nothing.
    fn is_kept_by_newer(
        &self,
        rendered: &RenderedRegistration,
        current: &Registration,
        newer: KumaRelease,
    ) -> bool {
        let known = self.capabilities.load();
        let kept = newer.without_unknown_fields(&rendered.body);
        !known.older_answers
            && dataplane::is_complete(&kept, known.at_release(&current.id.mesh, newer))
            && normalise(&kept) == current.normal
    }

    async fn load_configuration(&self) -> Result<(), MeshError> {
        let config = match self.get_json("/config", RequestKind::Server).await {
            Ok(config) => config,
            Err(error)
                if matches!(error.kind, MeshErrorKind::Forbidden | MeshErrorKind::UnexpectedResponse) =>
            {
                // A token that may write Dataplanes may lack access to the configuration.
                if self.capabilities.load().health_discovery.is_none()
                    && self.warnings.raise("health discovery unknown", None)
                {
                    // If the assumption is wrong, new registrations stay not ready.
                    tracing::warn!(%error, "cannot read health-discovery setting; assuming enabled");
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // Every supported version prints the field; a configuration without it has the default.
        let discovery = capabilities::health_discovery(&config).unwrap_or(HealthDiscovery::On);
        let service_naming = capabilities::service_naming(&config);
        self.update_capabilities(|known| {
            known.health_discovery = Some(discovery);
            known.service_naming = service_naming;
        });
        match capabilities::refuses_writes(&config) {
            None => Ok(()),
            Some(reason) => Err(MeshError::new(
                MeshErrorKind::ReadOnly,
                format!(
                    "GET /config: {reason}; help: set ControlPlane.spec.kuma.address to the zone's own control plane, \
                     with writes enabled"
                ),
            )),
        }
    }

    async fn load_mesh(&self, mesh: &MeshName) -> Result<(), MeshError> {
        let path = format!("/meshes/{}", segment(mesh.as_str()));
        let mut mode = ServicesMode::of(&self.get_json(&path, RequestKind::Mesh).await?);
        // A new instance, which may not be known yet, does not show the mode.
        let last = self.capabilities.load().services.get(mesh).copied().unwrap_or_default();
        let reads = if last == ServicesMode::Disabled { self.reads() } else { RESOURCE_READS };
        for _ in 1..reads {
            if mode != ServicesMode::Disabled {
                break;
            }
            mode = ServicesMode::of(&self.get_json_anew(&path, RequestKind::Mesh).await?);
        }
        // Where new instances alone answer, as after an upgrade in place, the mode is the one that an old instance has shown.
        let newer = self.capabilities.load().newer;
        let hides_mode = newer.is_some_and(|newer| !newer.has(KumaFeature::MeshServicesMode));
        if mode == ServicesMode::Disabled && hides_mode {
            mode = last;
        }
        let has_tags = self.capabilities.load().release().has(KumaFeature::OutboundTags);
        // Before the mode is recorded: without the list, outbounds would name services that the mesh does not have.
        let services = if mode != ServicesMode::Disabled && has_tags {
            Some(self.list_ports(&format!("{path}/meshservices")).await?)
        } else {
            None
        };
        self.update_capabilities(|known| {
            known.services.insert(mesh.clone(), mode);
            match &services {
                Some(services) => known.mesh_services.insert(mesh.clone(), services.clone()),
                None => known.mesh_services.remove(mesh),
            };
        });
        Ok(())
    }

    fn update_capabilities(&self, change: impl Fn(&mut ServerCapabilities)) {
        self.capabilities.rcu(|current| {
            let mut updated = ServerCapabilities::clone(current);
            change(&mut updated);
            updated
        });
    }
}

/// Whether another server may answer the next call. One that answers 429 is the same.
fn is_outage(kind: MeshErrorKind) -> bool {
    kind.affects_all_calls() && kind != MeshErrorKind::Throttled
}

fn overwritten(path: &str) -> MeshError {
    let message = format!("PUT {path}: not repeated, since the name has another owner by now");
    MeshError::new(MeshErrorKind::Conflict, message)
}

/// Whether the stored Dataplane has the ownership labels of the body.
fn has_owner_of(stored: &Value, body: &Value) -> bool {
    [OPERATOR_LABEL, TASK_LABEL].iter().all(|key| labels::label(stored, key) == labels::label(body, key))
}

#[async_trait]
impl<T: Transport> ControlPlane for KumaControlPlane<T> {
    async fn list_owned(
        &self,
        _clusters: &BTreeSet<ClusterArn>,
        sink: &mut (dyn FnMut(RegistrationSummary) + Send),
    ) -> Result<Vec<FailedSegment>, MeshError> {
        let (began, term) = (Instant::now(), self.term());
        let failed = self.observed("list_owned", self.list_all_owned(sink)).await?;
        if failed.is_empty() {
            self.writers.end_list(began, &term);
        }
        Ok(failed)
    }

    fn foreign_writer(&self) -> Option<Arc<str>> {
        self.writers.foreign()
    }

    fn set_lease(&self, lease: Arc<dyn Lease>) {
        // Only the first call has an effect.
        let _ = self.lease.set(Arc::clone(&lease));
        self.transport.set_lease(lease);
    }

    fn token_expiry(&self) -> Option<Timestamp> {
        self.transport.token_expiry()
    }

    fn server_version(&self) -> Option<Arc<str>> {
        self.version().map(|version| version.text)
    }

    async fn get(&self, id: &RegistrationId) -> Result<Option<Registration>, MeshError> {
        self.observed("get", self.read_complete(id)).await
    }

    async fn put(&self, id: &RegistrationId, body: &Value) -> Result<(), MeshError> {
        self.observed("put", self.write(id, body)).await
    }

    async fn delete(&self, id: &RegistrationId) -> Result<bool, MeshError> {
        self.observed("delete", self.remove(id)).await
    }

    fn support(&self) -> Arc<SupportGate> {
        Arc::clone(&self.support)
    }

    async fn check_upgrade(
        &self,
        unmanaged: Option<&BTreeSet<RegistrationId>>,
    ) -> Result<Option<UpgradeCheck>, MeshError> {
        if self.target.is_some() && self.version().is_none() {
            self.load_version().await?;
        }
        let Some(target) = self.upgrade_target() else { return Ok(None) };
        self.observed("check_upgrade", self.scan_for_upgrade(target, unmanaged)).await.map(Some)
    }

    async fn ensure_supported(&self) -> Result<(), MeshError> {
        self.check_support().await
    }

    async fn list_endpoints(&self, mesh: &MeshName, service: &str) -> Result<Vec<OwnedEndpoint>, MeshError> {
        self.observed("list_endpoints", self.list_endpoints_of(mesh, service)).await
    }

    async fn list_members(
        &self,
        mesh: &MeshName,
        sink: &mut (dyn FnMut(MeshMember) + Send),
    ) -> Result<(), MeshError> {
        self.observed("list_members", self.list_all_members(mesh, sink)).await
    }

    async fn list_sidecar_outbounds(
        &self,
        mesh: &MeshName,
    ) -> Result<Vec<(RegistrationId, SidecarOutbounds)>, MeshError> {
        self.observed("list_sidecars", self.list_reported_outbounds(mesh)).await
    }

    async fn list_services(&self, mesh: &MeshName) -> Result<BTreeSet<String>, MeshError> {
        self.observed("list_services", self.list_service_names(mesh)).await
    }

    async fn list_callable(&self, mesh: &MeshName) -> Result<MeshServices, MeshError> {
        let resources = self.observed("list_backends", self.list_mesh_backends(mesh)).await?;
        let names = match self.capabilities(mesh).services {
            ServicesMode::Exclusive => None,
            _ => Some(self.list_services(mesh).await?),
        };
        Ok(MeshServices { names, resources })
    }

    async fn refresh_capabilities(&self, meshes: &BTreeSet<MeshName>) -> Result<(), MeshError> {
        self.observed("refresh_capabilities", self.load_capabilities(meshes)).await
    }

    fn has_several_releases(&self) -> bool {
        self.capabilities.load().newer.is_some()
    }

    fn registration_format(&self) -> Option<Arc<str>> {
        let known = self.capabilities.load();
        let release = known.rules?.release;
        Some(match known.newer {
            Some(newer) => format!("{release} and {newer}").into(),
            None => release.to_string().into(),
        })
    }

    fn zone_proxy_form(&self) -> Option<ZoneProxyForm> {
        let release = self.upgrade_target().or_else(|| Some(self.capabilities.load().rules?.release));
        release.map(KumaRelease::zone_proxy_form)
    }

    fn check_desired(&self, desired: &DesiredRegistration) -> Result<(), MeshError> {
        let known = self.capabilities.load();
        let Some(version) = &known.version else { return Ok(()) };
        let version = self
            .upgrade_target()
            .map_or_else(|| Arc::clone(&version.text), |target| target.to_string().into());
        expressible::check(desired, self.rendering(&desired.id.mesh), &version)
    }

    fn registered_service<'a>(&self, desired: &'a DesiredRegistration) -> &'a str {
        let has_tags = self.capabilities(&desired.id.mesh).has(KumaFeature::InboundTags);
        let has_tags = has_tags && !matches!(desired.proxy, DesiredProxy::Zone(_, ZoneProxyForm::Listener));
        let label = desired.workload.as_deref().filter(|_| !has_tags);
        label.unwrap_or(desired.service.as_str())
    }

    fn has_readiness(&self, current: &Registration) -> bool {
        endpoints::has_readiness(&current.stored)
    }

    fn render(&self, desired: &DesiredRegistration, current: Option<&Registration>) -> RenderedRegistration {
        let capabilities = self.rendering(&desired.id.mesh);
        let newer = self.capabilities.load().newer.filter(|_| self.upgrade_target().is_none());
        match newer {
            Some(newer) => self.render_for_both(desired, current, capabilities, newer),
            None => self.render_where_known(desired, current, capabilities),
        }
    }

    fn drift(&self, desired: &DesiredRegistration, current: &Registration) -> Vec<FieldChange> {
        let rendered = self.render(desired, Some(current));
        let found = drift::drift(&current.stored, &rendered.body, self.rendering(&desired.id.mesh));
        let newer = self.capabilities.load().newer.filter(|_| self.target.is_none() && !found.is_empty());
        let Some(newer) = newer else { return found };
        // A newer instance does not show what its release does not know, and which one has answered is not known.
        let newer = self.capabilities.load().at_release(&desired.id.mesh, newer);
        let rendered = dataplane::render(desired, Some(current), newer);
        let of_newer = drift::drift(&current.stored, &rendered.body, newer);
        if of_newer.is_empty() { of_newer } else { found }
    }

    fn render_drained(&self, current: &Registration, reason: DrainReason) -> RenderedRegistration {
        dataplane::render_drained(current, reason)
    }
}

/// The call in error messages. A page's offset is the server's text, so only a number is shown.
fn call(method: HttpMethod, path: &str) -> String {
    let path = match path.split_once(OFFSET) {
        Some((list, offset)) if !offset.bytes().all(|b| b.is_ascii_digit()) => list,
        _ => path,
    };
    format!("{method} {path}")
}

/// Refuses names that clients and proxies resolve as path steps, even if they are encoded.
fn check_name(id: &RegistrationId) -> Result<(), MeshError> {
    let name = id.zone_proxy().map_or(&*id.name, |(_, name)| name);
    if !matches!(name, "" | "." | "..") {
        return Ok(());
    }
    let message = format!("invalid Dataplane name {name:?}; help: correct MeshBinding.spec.dataplaneName");
    Err(MeshError::new(MeshErrorKind::Invalid, message))
}

/// Reads the JSON body of a response that must be 200.
fn read_json(
    method: HttpMethod,
    path: &str,
    request: RequestKind,
    response: &HttpResponse,
) -> Result<Value, MeshError> {
    if response.status != 200 {
        return Err(errors::response_error(&call(method, path), request, response));
    }
    serde_json::from_slice(&response.body)
        .map_err(|error| errors::unreadable(&call(method, path), &response.body, &error))
}

/// Reads the body of a successful write: an object, or (up to 2.7) nothing.
fn read_write_result(
    method: HttpMethod,
    path: &str,
    request: RequestKind,
    response: &HttpResponse,
) -> Result<Value, MeshError> {
    match response.status {
        200..=299 if response.body.trim_ascii().is_empty() => Ok(Value::Null),
        200..=299 => serde_json::from_slice(&response.body)
            .map_err(|error| errors::unreadable(&call(method, path), &response.body, &error)),
        _ => Err(errors::response_error(&call(method, path), request, response)),
    }
}

/// Passes the items of a page to `sink` and returns the offset of the next page.
fn read_items(
    path: &str,
    request: RequestKind,
    response: &HttpResponse,
    sink: &mut impl FnMut(Value),
) -> Result<Option<String>, MeshError> {
    let call = call(HttpMethod::Get, path);
    if response.status != 200 {
        return Err(errors::response_error(&call, request, response));
    }
    let unreadable = |error| errors::unreadable(&call, &response.body, &error);
    let page = list::read_page(&response.body).map_err(|flaw| match flaw {
        PageFlaw::NotJson(error) => unreadable(error),
        PageFlaw::Shape(problem) => errors::unexpected(&call, &format!("parsing the list: {problem}")),
    })?;
    for item in page.items {
        sink(serde_json::from_str(item.get()).map_err(unreadable)?);
    }
    Ok(page.next)
}

fn unreadable(kind: &'static str, problem: &'static str) -> SkipReason {
    let fix = "inspect it with kumactl; delete it if it is a leftover";
    SkipReason { kind, problem, fix }
}
