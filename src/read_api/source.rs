//! The operator's view, for readers.

use std::cmp::Ordering;
use std::sync::Arc;

use async_trait::async_trait;

use super::history::History;
use ecs_mesh_model::Timestamp;
use ecs_mesh_read_api::{
    BindingView, ChangedView, ErrorView, EvidenceView, IdentityView, OutboundView, PageItem, RoleTagView,
    ServiceView, StatusView, TaskRegistrationsView, TaskView, VerdictView, WarningView,
};

/// Most names of one notice of changed views.
const MAX_CHANGED: usize = 1_000;

/// A source of views: the operator, or fixed views in tests.
#[async_trait]
pub trait ReadSource: Send + Sync {
    /// All views at this moment. Called on a thread for blocking work, at intervals that depend on how long it takes.
    fn snapshot(&self) -> Snapshot;

    /// The facts behind a task's view. Called on a thread for blocking work.
    fn task_facts(&self, task: &TaskView) -> ReadTaskFacts;

    /// The wall-clock time.
    fn now(&self) -> Timestamp;

    /// The status alone, as of now.
    fn status(&self) -> StatusView;

    /// The changes and warnings of this process.
    fn history(&self) -> &Arc<History>;

    /// The task's registrations as their control planes have them.
    ///
    /// # Errors
    /// The control plane cannot be asked now.
    async fn registrations(&self, task: &TaskView) -> Result<TaskRegistrationsView, ErrorView>;
}

/// The facts behind a task's view.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadTaskFacts {
    /// ECS's answer.
    pub evidence: Option<EvidenceView>,
    /// The role's tags against their rules.
    pub role_tags: Vec<RoleTagView>,
    /// The verdict at each control plane.
    pub verdict: Vec<VerdictView>,
}

/// All views at one moment, each list in the order of its keys.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) status: StatusView,
    pub(crate) tasks: Vec<TaskView>,
    pub(crate) services: Vec<ServiceView>,
    pub(crate) bindings: Vec<BindingView>,
    pub(crate) identities: Vec<IdentityView>,
    pub(crate) outbounds: Vec<OutboundView>,
    pub(crate) warnings: Vec<WarningView>,
}

/// The lists of a [`Snapshot`], in any order.
#[derive(Clone, Debug, Default)]
pub struct SnapshotLists {
    /// Tasks, ignored ones included.
    pub tasks: Vec<TaskView>,
    /// Services.
    pub services: Vec<ServiceView>,
    /// Bindings.
    pub bindings: Vec<BindingView>,
    /// Identities.
    pub identities: Vec<IdentityView>,
    /// Outbounds.
    pub outbounds: Vec<OutboundView>,
    /// Warnings.
    pub warnings: Vec<WarningView>,
}

impl Snapshot {
    /// Sorts the lists. Of two items with one key, one stays.
    pub fn new(status: StatusView, lists: SnapshotLists) -> Self {
        let SnapshotLists { tasks, services, bindings, identities, outbounds, warnings } = lists;
        Self {
            status,
            tasks: sorted(tasks),
            services: sorted(services),
            bindings: sorted(bindings),
            identities: sorted(identities),
            outbounds: sorted(outbounds),
            warnings: sorted(warnings),
        }
    }

    /// The tasks and services whose views differ from those before, and the services to which an outbound does: the graph
    /// shows its state.
    pub(super) fn changed_since(&self, before: &Self) -> ChangedView {
        let mut changed = ChangedView::default();
        differing(&before.tasks, &self.tasks, |task| changed.tasks.push(Arc::clone(&task.name)));
        differing(&before.services, &self.services, |service| {
            changed.services.push(service_key(
                &service.control_plane,
                service.mesh.as_deref(),
                &service.name,
            ));
        });
        differing(&before.outbounds, &self.outbounds, |outbound| {
            let mesh = outbound.mesh.as_deref();
            changed.services.push(service_key(&outbound.control_plane, mesh, &outbound.to));
        });
        changed.services.sort_unstable();
        changed.services.dedup();
        changed.more = changed.tasks.len() > MAX_CHANGED || changed.services.len() > MAX_CHANGED;
        changed.tasks.truncate(MAX_CHANGED);
        changed.services.truncate(MAX_CHANGED);
        changed
    }
}

/// The key of a service in events, which is its path below `/services/`.
fn service_key(control_plane: &str, mesh: Option<&str>, name: &str) -> Arc<str> {
    format!("{control_plane}/{}/{name}", mesh.unwrap_or("-")).into()
}

fn sorted<T: PageItem>(mut items: Vec<T>) -> Vec<T> {
    items.sort_by_cached_key(PageItem::key);
    items.dedup_by_key(|item| item.key());
    items
}

/// Visits the items of either list that the other one lacks or has otherwise.
fn differing<T: PageItem + PartialEq>(before: &[T], after: &[T], mut visit: impl FnMut(&T)) {
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            // Nearly all are equal, and need no key.
            (Some(one), Some(other)) if one == other => Ordering::Equal,
            (Some(one), Some(other)) => match one.key().cmp(&other.key()) {
                Ordering::Equal => {
                    visit(other);
                    Ordering::Equal
                }
                order => order,
            },
        };
        match order {
            Ordering::Less => old.next().into_iter().for_each(&mut visit),
            Ordering::Greater => new.next().into_iter().for_each(&mut visit),
            Ordering::Equal => {
                old.next();
                new.next();
            }
        }
    }
}
