//! The bodies of answers, from a snapshot. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::history::History;
use super::source::{ReadTaskFacts, Snapshot};
use ecs_mesh_model::Timestamp;
use ecs_mesh_read_api::{
    BindingFilter, ChangeFilter, ChangeView, EdgeView, ErrorCodeView, ErrorView, Filter, IdentityFilter,
    ListView, ObjectView, OutboundFilter, OutboundStateView, PageItem, Query, ResourceView,
    ServiceDetailView, ServiceFilter, ServiceView, TaskDetailView, TaskFilter, TaskView, TopologyFilter,
    TopologyServiceView, TopologyView, WarningFilter, page,
};

/// Most changes on the page of a task or a service.
const MAX_HISTORY: usize = 100;

/// Most tasks that a service names.
const MAX_TASK_NAMES: usize = 200;

/// Most services and calls of a topology.
const MAX_SERVICES: usize = 2_000;
const MAX_EDGES: usize = 10_000;

/// The lists that a snapshot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListKind {
    Tasks,
    Services,
    Bindings,
    Identities,
    Outbounds,
    Warnings,
}

impl ListKind {
    /// The list of this path.
    pub(super) fn of(path: &str) -> Option<Self> {
        Some(match path {
            "tasks" => Self::Tasks,
            "services" => Self::Services,
            "bindings" => Self::Bindings,
            "identities" => Self::Identities,
            "outbounds" => Self::Outbounds,
            "warnings" => Self::Warnings,
            _ => return None,
        })
    }
}

/// One page of a list of the snapshot.
pub(super) fn list(kind: ListKind, snapshot: &Snapshot, query: &str) -> Result<Bytes, ErrorView> {
    match kind {
        ListKind::Tasks => items(&snapshot.tasks, query, TaskFilter::matches),
        ListKind::Services => items(&snapshot.services, query, ServiceFilter::matches),
        ListKind::Bindings => items(&snapshot.bindings, query, BindingFilter::matches),
        ListKind::Identities => items(&snapshot.identities, query, IdentityFilter::matches),
        ListKind::Outbounds => items(&snapshot.outbounds, query, OutboundFilter::matches),
        ListKind::Warnings => items(&snapshot.warnings, query, WarningFilter::matches),
    }
}

fn items<T: PageItem + Serialize, F: Filter>(
    all: &[T],
    query: &str,
    matches: impl Fn(&F, &T) -> bool,
) -> Result<Bytes, ErrorView> {
    let query = Query::<F>::parse(query)?;
    json(&page(all, &query.paging, |item| matches(&query.filter, item)))
}

/// One page of the changes that the history has.
pub(super) fn changes(history: &History, query: &str, now: Timestamp) -> Result<Bytes, ErrorView> {
    let Query { paging, filter } = Query::<ChangeFilter>::parse(query)?;
    let all = match (&filter.task, &filter.service) {
        (Some(task), _) if task.starts_with("arn:") => history.changes_of_task(task),
        (_, Some(service)) => history.changes_of_service(service),
        _ => history.changes(),
    };
    let list: ListView<ChangeView> =
        page(all.iter().map(AsRef::as_ref), &paging, |change: &ChangeView| filter.matches(change, now));
    json(&list)
}

/// The task with this id or ARN.
pub(super) fn find_task<'s>(snapshot: &'s Snapshot, task: &str) -> Result<&'s TaskView, ErrorView> {
    let found = snapshot.tasks.iter().find(|view| *view.name == *task || *view.arn == *task);
    found.ok_or_else(|| {
        let message = "no such task; a stopped task is shown for 15 minutes, and its changes as long as the history has them";
        ErrorView::new(ErrorCodeView::NotFound, message)
    })
}

/// A task with what its state rests on.
pub(super) fn task(view: &TaskView, facts: ReadTaskFacts, history: &History) -> Result<Bytes, ErrorView> {
    object(TaskDetailView {
        task: view.clone(),
        evidence: facts.evidence,
        role_tags: facts.role_tags,
        verdict: facts.verdict,
        history: newest(&history.changes_of_task(&view.arn), |_| true),
    })
}

/// The service of this path.
pub(super) fn service(
    snapshot: &Snapshot,
    history: &History,
    (control_plane, mesh, name): (&str, &str, &str),
) -> Result<Bytes, ErrorView> {
    let is_here =
        |at: &str, of: Option<&Arc<str>>| at == control_plane && of.map_or("-", AsRef::as_ref) == mesh;
    let found = snapshot
        .services
        .iter()
        .find(|view| *view.name == *name && is_here(&view.control_plane, view.mesh.as_ref()));
    let Some(view) = found else {
        return Err(ErrorView::new(ErrorCodeView::NotFound, "no such service; /api/v1/services lists all"));
    };
    let has_service = |task: &&TaskView| {
        let registered = task.registrations.iter().any(|known| {
            known.service.as_deref() == Some(name) && is_here(&known.control_plane, known.mesh.as_ref())
        });
        registered
            || (task.service.as_deref() == Some(name) && task.control_plane.as_deref() == Some(control_plane))
    };
    let tasks = snapshot.tasks.iter().filter(has_service).take(MAX_TASK_NAMES);
    object(ServiceDetailView {
        service: view.clone(),
        task_names: tasks.map(|task| Arc::clone(&task.name)).collect(),
        history: newest(&history.changes_of_service(name), |change| {
            change.control_plane.as_deref().is_none_or(|at| at == control_plane)
        }),
    })
}

fn newest(changes: &[Arc<ChangeView>], matches: impl Fn(&ChangeView) -> bool) -> Vec<ChangeView> {
    let matching = changes.iter().filter(|change| !change.is_warning() && matches(change)).take(MAX_HISTORY);
    matching.map(|change| ChangeView::clone(change)).collect()
}

/// The graph of services.
pub(super) fn topology(snapshot: &Snapshot, query: &str) -> Result<Bytes, ErrorView> {
    let filter = TopologyFilter::parse(query)?;
    let matching: Vec<&ServiceView> =
        snapshot.services.iter().filter(|service| filter.matches(service)).collect();
    let shown = &matching[..matching.len().min(MAX_SERVICES)];
    let mut nodes = BTreeMap::new();
    let mut callers: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, service) in shown.iter().enumerate() {
        let place = (&*service.control_plane, service.mesh.as_deref());
        nodes.insert((place, &*service.name), index);
        for workload in &service.workloads {
            callers.entry((place, &**workload)).or_default().push(index);
        }
    }
    let mut edges: BTreeMap<(usize, usize), EdgeView> = BTreeMap::new();
    let mut is_cut = false;
    for outbound in &snapshot.outbounds {
        let place = (&*outbound.control_plane, outbound.mesh.as_deref());
        let Some(to) = nodes.get(&(place, &*outbound.to)).copied() else { continue };
        for from in callers.get(&(place, &*outbound.from)).into_iter().flatten().copied() {
            if edges.len() >= MAX_EDGES && !edges.contains_key(&(from, to)) {
                is_cut = true;
                continue;
            }
            let edge = edges.entry((from, to)).or_insert(EdgeView { from, to, state: outbound.state });
            edge.state = worse(edge.state, outbound.state);
        }
    }
    object(TopologyView {
        services: shown.iter().map(|service| topology_service(service)).collect(),
        edges: edges.into_values().collect(),
        truncated: is_cut || shown.len() < matching.len(),
    })
}

/// The state that an edge shows of two outbounds: what is broken comes before what is not known.
fn worse(one: OutboundStateView, other: OutboundStateView) -> OutboundStateView {
    let rank = |state: &OutboundStateView| match state {
        OutboundStateView::Ok => 0,
        OutboundStateView::NotRead => 1,
        OutboundStateView::Discarded => 2,
        OutboundStateView::NoReadyTarget => 3,
        OutboundStateView::UnknownTarget => 4,
    };
    std::cmp::max_by_key(one, other, rank)
}

fn topology_service(service: &ServiceView) -> TopologyServiceView {
    TopologyServiceView {
        name: Arc::clone(&service.name),
        control_plane: Arc::clone(&service.control_plane),
        mesh: service.mesh.clone(),
        state: service.state,
        ready: service.registrations.ready,
        unknown: service.registrations.unknown,
        total: service.registrations.total,
        others: service.others.map_or(0, |others| others.total),
        trouble: service.tasks.attention,
        binding: service.bindings.first().cloned(),
    }
}

/// One object.
pub(super) fn object<T: ResourceView + Serialize>(object: T) -> Result<Bytes, ErrorView> {
    json(&ObjectView::from(object))
}

fn json(value: &impl Serialize) -> Result<Bytes, ErrorView> {
    let mut body = serde_json::to_vec(value).map_err(|error| {
        // Keys are strings, and no value of a view fails: a defect.
        ErrorView::new(ErrorCodeView::NotReady, format!("rendering the answer: {error}"))
    })?;
    body.push(b'\n');
    Ok(body.into())
}
