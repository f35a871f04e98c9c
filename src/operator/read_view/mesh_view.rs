//! Views of services, outbounds and bindings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::OperatorReads;
use crate::operator::context::WorkerMap;
use crate::operator::control_plane_worker::{ControlPlaneWorker, UNKNOWN_OUTBOUND_WARN_AFTER};
use crate::operator::mesh_members::OtherMembers;
use ecs_mesh_api::manifests::{Binding, DeclaredReach, ManifestSet, OutboundClaim, OutboundConflict};
use ecs_mesh_api::{
    CalledBackend, ControlPlaneType, LifecyclePolicy, OutboundListener, ProxyRole, ReachableBackend,
    RoleTagMode, WorkloadSpec, ZoneProxyForm,
};
use ecs_mesh_core::intent::workloads_in;
use ecs_mesh_core::plan::GuardState;
use ecs_mesh_model::{MeshName, Timestamp, intern};
use ecs_mesh_read_api::{
    BindingView, GuardView, IdentityKindView, OtherRegistrationsView, OutboundStateView, OutboundView,
    RegistrationCountsView, ServicePresence, ServiceStateFacts, ServiceStateView, ServiceView,
    TaskCountsView, TaskStateView, TaskView, TimeView,
};

/// A service of a mesh: the control plane, the mesh where there is one, and the name.
type ServicePlace = (Arc<str>, Option<Arc<str>>, Arc<str>);

/// The known facts of a service.
#[derive(Default)]
struct ServiceFacts {
    registrations: RegistrationCountsView,
    tasks: TaskCountsView,
    workloads: BTreeSet<Arc<str>>,
    bindings: BTreeSet<Arc<str>>,
    ecs_services: BTreeSet<Arc<str>>,
    outbounds: BTreeSet<Arc<str>>,
    callers: BTreeSet<Arc<str>>,
    is_called: bool,
    is_in_mesh: bool,
    others: Option<OtherRegistrationsView>,
    /// The oldest reading of a readiness.
    observed_at: Option<TimeView>,
}

/// Collects services and outbounds.
#[derive(Default)]
pub(super) struct MeshViews {
    services: BTreeMap<ServicePlace, ServiceFacts>,
    outbounds: Vec<OutboundView>,
    /// The control planes that were listed completely since the start.
    read: BTreeSet<Arc<str>>,
}

impl MeshViews {
    /// The services and outbounds that the manifests declare, and the services that the meshes have.
    pub(super) fn new(workers: &WorkerMap, manifests: &ManifestSet, now: Timestamp) -> Self {
        let read = workers.values().filter(|worker| worker.is_fully_synced());
        let read = read.map(|worker| Arc::clone(&worker.name)).collect();
        let mut views = Self { read, ..Self::default() };
        for binding in manifests.bindings.values() {
            let Some(worker) = workers.get(binding.spec.control_plane.as_str()) else { continue };
            for (name, workload) in workloads_in(manifests, binding) {
                views.add_workload(manifests, (worker, binding), (name, workload), now);
            }
        }
        for worker in workers.values() {
            for (mesh, services) in worker.mesh_services() {
                let mesh = mesh_of(worker, &mesh);
                for service in services.iter() {
                    let place = (Arc::clone(&worker.name), mesh.clone(), Arc::clone(service));
                    views.services.entry(place).or_default().is_in_mesh = true;
                }
            }
            for (mesh, services) in worker.others.all() {
                let mesh = mesh_of(worker, &mesh);
                for (service, OtherMembers { total, ready }) in services.iter() {
                    let place = (Arc::clone(&worker.name), mesh.clone(), Arc::clone(service));
                    let facts = views.services.entry(place).or_default();
                    facts.is_in_mesh = true;
                    facts.others = Some(OtherRegistrationsView { total: *total, ready: *ready });
                }
            }
        }
        views
    }

    fn add_workload(
        &mut self,
        manifests: &ManifestSet,
        (worker, binding): (&ControlPlaneWorker, &Binding),
        (name, workload): (&Arc<str>, &WorkloadSpec),
        now: Timestamp,
    ) {
        let form = worker.client.zone_proxy_form().unwrap_or_default();
        let mesh = match &workload.proxy_role() {
            // A resource of its own is of no mesh.
            ProxyRole::Zone(proxy) if form.of(proxy) == ZoneProxyForm::Resource => None,
            _ => mesh_of(worker, &binding.spec.mesh),
        };
        let here = |service: &str| (Arc::clone(&worker.name), mesh.clone(), intern(service));
        let own = here(workload.service.as_str());
        let facts = self.services.entry(own.clone()).or_default();
        facts.workloads.insert(Arc::clone(name));
        facts.bindings.insert(Arc::clone(&binding.name));
        // Nothing at Consul is made of outbounds.
        if worker.kind == ControlPlaneType::Consul {
            return;
        }
        for declared in declared_outbounds(manifests, name, workload) {
            let (state, reason) = outbound_state(worker, &binding.spec.mesh, &declared, now);
            let view = OutboundView {
                from: Arc::clone(name),
                to: Arc::clone(&declared.to),
                control_plane: Arc::clone(&worker.name),
                mesh: mesh.clone(),
                port: declared.port,
                listen: declared.listen,
                declared_by: declared.by,
                state,
                reason,
            };
            let to = here(&declared.to);
            let called = self.services.entry(to.clone()).or_default();
            called.is_called = true;
            called.callers.insert(Arc::clone(&own.2));
            self.services.entry(own.clone()).or_default().outbounds.insert(Arc::clone(&to.2));
            self.outbounds.push(view);
        }
    }

    /// Adds tasks and their registrations.
    pub(super) fn add_tasks(&mut self, tasks: &[TaskView]) {
        for task in tasks {
            let mut places = BTreeSet::new();
            for known in task.registrations.iter().filter(|known| known.kind != IdentityKindView::Token) {
                let Some(service) = &known.service else { continue };
                let place = (Arc::clone(&known.control_plane), known.mesh.clone(), Arc::clone(service));
                let facts = self.services.entry(place.clone()).or_default();
                facts.is_in_mesh = true;
                let counts = &mut facts.registrations;
                counts.total += 1;
                counts.drained += usize::from(known.drained.is_some());
                counts.ready += usize::from(known.ready == Some(true));
                counts.unknown += usize::from(known.ready.is_none());
                let observed = known.readiness_observed_at;
                facts.observed_at = facts.observed_at.into_iter().chain(observed).min();
                facts.bindings.extend(task.binding.clone());
                places.insert(place);
            }
            let evaluated = task.control_plane.as_ref().zip(task.service.as_ref());
            if let Some((control_plane, service)) = evaluated.filter(|_| places.is_empty()) {
                let mut all = self.services.keys();
                let place = all.find(|(at, _, name)| at == control_plane && name == service).cloned();
                places.extend(place);
            }
            for place in places {
                let facts = self.services.entry(place).or_default();
                count_task(&mut facts.tasks, task);
                facts.ecs_services.extend(task.ecs_service.clone());
            }
        }
    }

    /// The views, with the states that follow from all that was added.
    pub(super) fn finish(self) -> (Vec<ServiceView>, Vec<OutboundView>) {
        let Self { services, mut outbounds, read } = self;
        for outbound in outbounds.iter_mut().filter(|outbound| outbound.state != OutboundStateView::Discarded)
        {
            let place =
                (Arc::clone(&outbound.control_plane), outbound.mesh.clone(), Arc::clone(&outbound.to));
            let Some(facts) = services.get(&place).filter(|facts| facts.is_in_mesh) else { continue };
            // Registered since the mesh was compared.
            (outbound.state, outbound.reason) = (OutboundStateView::Ok, None);
            if has_no_ready_target(facts.registrations, facts.others) {
                outbound.state = OutboundStateView::NoReadyTarget;
                outbound.reason = Some("no registration of the service is ready".to_owned());
            }
        }
        let view = |(place, facts): (ServicePlace, ServiceFacts)| {
            let is_read = read.contains(&place.0);
            facts.view(place, is_read)
        };
        (services.into_iter().map(view).collect(), outbounds)
    }
}

/// Whether a service of the mesh is known to have no ready registration, whoever registered it. One of ours whose readiness
/// was not read may be ready. A service without registrations, as an external one, has none that could be ready.
fn has_no_ready_target(ours: RegistrationCountsView, others: Option<OtherRegistrationsView>) -> bool {
    let others = others.unwrap_or_default();
    ours.total + others.total > 0 && ours.ready + ours.unknown + others.ready == 0
}

/// The state of an outbound, by what sweeps found in the mesh, with the reason. A service may register a moment later, so it
/// counts as unknown only after a while.
fn outbound_state(
    worker: &ControlPlaneWorker,
    mesh: &MeshName,
    declared: &DeclaredOutbound,
    now: Timestamp,
) -> (OutboundStateView, Option<String>) {
    if let Some(conflict) = &declared.conflict {
        return (OutboundStateView::Discarded, Some(conflict.clone()));
    }
    if !worker.has_compared_outbounds(mesh) {
        return (
            OutboundStateView::NotRead,
            Some("the services of the mesh have not been read yet".to_owned()),
        );
    }
    match worker.unknown_outbound_since(mesh, &declared.to) {
        Some(since) if since.age_at(now) >= UNKNOWN_OUTBOUND_WARN_AFTER => {
            (OutboundStateView::UnknownTarget, Some("the mesh has no such service".to_owned()))
        }
        Some(_) => (OutboundStateView::NotRead, Some("the mesh does not show the service yet".to_owned())),
        None => (OutboundStateView::Ok, None),
    }
}

/// The mesh for readers; none at Consul.
fn mesh_of(worker: &ControlPlaneWorker, mesh: &MeshName) -> Option<Arc<str>> {
    (worker.kind != ControlPlaneType::Consul).then(|| intern(mesh.as_str()))
}

fn count_task(counts: &mut TaskCountsView, task: &TaskView) {
    if matches!(task.state, TaskStateView::Ignored | TaskStateView::Stopped) {
        return;
    }
    counts.total += 1;
    counts.rejected += usize::from(task.state == TaskStateView::Rejected);
    counts.held += usize::from(task.state == TaskStateView::Held);
    counts.pending += usize::from(task.state == TaskStateView::Pending);
    counts.warnings += usize::from(!task.warnings.is_empty());
    let is_stuck = matches!(task.state, TaskStateView::Rejected | TaskStateView::Held);
    counts.attention += usize::from(is_stuck || !task.warnings.is_empty());
}

impl ServiceFacts {
    fn view(self, (control_plane, mesh, name): ServicePlace, is_read: bool) -> ServiceView {
        let declared = !self.workloads.is_empty();
        let state = ServiceStateView::of(&ServiceStateFacts {
            registrations: self.registrations,
            tasks: self.tasks,
            is_expected: declared || self.is_called,
            is_declared: declared,
            presence: match (self.is_in_mesh, is_read) {
                (true, _) => ServicePresence::Present,
                (false, true) => ServicePresence::Absent,
                (false, false) => ServicePresence::NotRead,
            },
        });
        let all = |names: BTreeSet<Arc<str>>| names.into_iter().collect();
        ServiceView {
            name,
            control_plane,
            mesh,
            state,
            registrations: self.registrations,
            readiness_observed_at: self.observed_at,
            others: self.others,
            tasks: self.tasks,
            workloads: all(self.workloads),
            bindings: all(self.bindings),
            ecs_services: all(self.ecs_services),
            outbounds: all(self.outbounds),
            callers: all(self.callers),
            declared,
        }
    }
}

/// An outbound of a workload.
struct DeclaredOutbound {
    to: Arc<str>,
    port: Option<u16>,
    listen: Option<Arc<str>>,
    by: Arc<str>,
    conflict: Option<String>,
}

/// The outbounds of a workload, those that conflict included.
fn declared_outbounds(
    manifests: &ManifestSet,
    name: &Arc<str>,
    workload: &WorkloadSpec,
) -> Vec<DeclaredOutbound> {
    match manifests.declared_reach(name, workload) {
        DeclaredReach::EveryBackend => Vec::new(),
        DeclaredReach::Backends(backends) => {
            backends.iter().map(|backend| bound_outbound(manifests, name, backend)).collect()
        }
        DeclaredReach::Listeners(merged) => {
            let resolved = merged.resolved.iter().map(|one| {
                let by = declared_by(manifests, name, &one.backend);
                listener_outbound(one, by, None)
            });
            let discarded = merged.conflicts.iter().flat_map(|conflict| {
                let claims: Vec<&OutboundClaim> = match conflict {
                    OutboundConflict::Contradiction { first, second } => vec![first, second],
                    OutboundConflict::PortInUse { claim, .. } => vec![claim],
                    OutboundConflict::NoListener { .. } => Vec::new(),
                };
                let reason = conflict.to_string();
                claims.into_iter().map(move |claim| {
                    let by = document(name, claim.list.as_deref());
                    listener_outbound(&claim.outbound, by, Some(reason.clone()))
                })
            });
            resolved.chain(discarded).collect()
        }
    }
}

fn listener_outbound(one: &OutboundListener, by: Arc<str>, conflict: Option<String>) -> DeclaredOutbound {
    let listen = std::net::SocketAddr::new(one.listen.address, one.listen.port.get());
    DeclaredOutbound {
        to: backend_name(&one.backend),
        port: Some(one.port.get()),
        listen: Some(listen.to_string().into()),
        by,
        conflict,
    }
}

fn bound_outbound(manifests: &ManifestSet, name: &Arc<str>, backend: &ReachableBackend) -> DeclaredOutbound {
    let (to, port, by) = match backend {
        ReachableBackend::One { backend, port } => (
            backend_name(backend),
            port.map(std::num::NonZeroU16::get),
            declared_by(manifests, name, backend),
        ),
        ReachableBackend::All { kind, labels } => {
            let backend = CalledBackend::Labelled { kind: *kind, labels: labels.clone() };
            (backend_name(&backend), None, document(name, None))
        }
    };
    DeclaredOutbound { to, port, listen: None, by, conflict: None }
}

fn backend_name(backend: &CalledBackend) -> Arc<str> {
    match backend {
        CalledBackend::Service(service) => intern(service.as_str()),
        CalledBackend::Resource { name, .. } => intern(name),
        CalledBackend::Labelled { .. } => intern(&backend.to_string()),
    }
}

/// The document that declares a call of this backend: the first list that does, or else the workload itself.
fn declared_by(manifests: &ManifestSet, name: &Arc<str>, backend: &CalledBackend) -> Arc<str> {
    let calls = |outbound: &ecs_mesh_api::Outbound| match backend {
        CalledBackend::Service(service) => outbound.service.as_ref() == Some(service),
        CalledBackend::Resource { name, .. } => {
            outbound.backend.as_ref().is_some_and(|called| called.name.as_ref() == Some(name))
        }
        CalledBackend::Labelled { labels, .. } => {
            outbound.backend.as_ref().is_some_and(|called| called.labels == *labels)
        }
    };
    let mut lists = manifests.outbound_lists.iter().filter(|(_, list)| {
        list.workloads.iter().any(|glob| glob.matches(name)) && list.outbounds.iter().any(calls)
    });
    document(name, lists.next().map(|(list, _)| &**list))
}

fn document(workload: &str, list: Option<&str>) -> Arc<str> {
    match list {
        Some(list) => intern(&format!("OutboundList/{list}")),
        None => intern(&format!("Workload/{workload}")),
    }
}

impl OperatorReads {
    /// The bindings in force.
    pub(super) fn bindings(
        &self,
        workers: &WorkerMap,
        manifests: &ManifestSet,
        tasks: &[TaskView],
    ) -> Vec<BindingView> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let counted = tasks.iter().filter(|task| task.state != TaskStateView::Stopped);
        for binding in counted.filter_map(|task| task.binding.as_deref()) {
            *counts.entry(binding).or_default() += 1;
        }
        let guards: BTreeMap<Arc<str>, GuardView> = self
            .guards(workers, manifests)
            .into_iter()
            .map(|guard| (Arc::clone(&guard.binding), guard))
            .collect();
        let view = |binding: &Arc<Binding>| {
            let spec = &binding.spec;
            let worker = workers.get(spec.control_plane.as_str());
            BindingView {
                name: Arc::clone(&binding.name),
                control_plane: intern(&spec.control_plane),
                mesh: worker.and_then(|worker| mesh_of(worker, &spec.mesh)),
                clusters: spec.selector.clusters.iter().map(|glob| intern(glob.as_str())).collect(),
                policy: match spec.policy {
                    LifecyclePolicy::Sync => "sync",
                    LifecyclePolicy::UpsertOnly => "upsert-only",
                    LifecyclePolicy::CreateOnly => "create-only",
                }
                .into(),
                role_tags_mode: match spec.role_tags.mode {
                    RoleTagMode::Enforce => "enforce",
                    RoleTagMode::Warn => "warn",
                    RoleTagMode::Off => "off",
                }
                .into(),
                paused: spec.paused,
                tasks: counts.get(&*binding.name).copied().unwrap_or_default(),
                registrations: worker.map_or(0, |worker| worker.registry.owned_by(&binding.name).possible),
                guard: guards.get(&binding.name).cloned(),
            }
        };
        manifests.bindings.values().map(view).collect()
    }

    /// The guards of all bindings that guard something.
    pub(super) fn guards(&self, workers: &WorkerMap, manifests: &ManifestSet) -> Vec<GuardView> {
        let (now, wall) = (self.context.now(), self.context.wall());
        let of_worker = |worker: &Arc<ControlPlaneWorker>| {
            let name = Arc::clone(&worker.name);
            let states = worker.guard_states(manifests, now, wall).into_iter();
            states.map(move |(binding, state)| {
                let released = manifests.bindings.get(&binding).and_then(|known| known.guard_released_until);
                let GuardState { held, admitted, limit, .. } = state;
                GuardView {
                    control_plane: Arc::clone(&name),
                    binding,
                    tripped: held > 0,
                    withdrawn: admitted,
                    limit,
                    held,
                    release_until: released.filter(|until| wall < *until).map(Into::into),
                }
            })
        };
        workers.values().flat_map(of_worker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_unready_when_all_its_registrations_are() {
        // Ours: all, ready and unread; of others: all and ready.
        for (ours, others, expected) in [
            ((0, 0, 0), None, false),
            ((2, 0, 0), None, true),
            ((2, 1, 0), None, false),
            ((2, 0, 1), None, false),
            ((2, 0, 0), Some((1, 0)), true),
            ((2, 0, 0), Some((1, 1)), false),
            ((0, 0, 0), Some((2, 0)), true),
            ((0, 0, 0), Some((2, 1)), false),
        ] {
            let (total, ready, unknown) = ours;
            let counts = RegistrationCountsView { total, ready, unknown, drained: 0 };
            let of_others = others.map(|(total, ready)| OtherRegistrationsView { total, ready });
            assert_eq!(has_no_ready_target(counts, of_others), expected, "{ours:?} {others:?}");
        }
    }
}
