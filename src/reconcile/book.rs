//! What a dry run would have done: kept here instead of being written to the control planes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::info;

use crate::telemetry::metrics::Metrics;
use ecs_mesh_core::plan::Awaited;
use ecs_mesh_core::plan::proposal::{Blocked, Gap, Item, Planned, Warning, label};
use ecs_mesh_model::{TaskArn, Why};

/// The plan as far as it is known, by control plane and task, or of a control plane's own objects. A task's page is replaced by its next run.
pub struct Book {
    metrics: Arc<Metrics>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    pages: BTreeMap<(Arc<str>, Option<TaskArn>), Page>,
    /// By what could not be found out.
    gaps: BTreeMap<String, String>,
    counts: BTreeMap<(Arc<str>, &'static str), i64>,
}

/// What one run noted about one task, or about a control plane's objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Page {
    items: Vec<Item>,
    warnings: Vec<Why>,
}

impl Page {
    pub(super) fn note(&mut self, item: Item) {
        self.items.push(item);
    }

    pub(super) fn warn(&mut self, warnings: &[Why]) {
        self.warnings.extend_from_slice(warnings);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds to everything noted from the `first` item on what must come before it.
    pub(super) fn all_after(&mut self, first: usize, awaited: &Awaited) {
        for item in &mut self.items[first..] {
            awaited.seen().clone_into(&mut item.reason);
            awaited.seen().clone_into(&mut item.cause);
            item.after = Some(awaited.to_string());
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }
}

impl Book {
    /// An empty one, that counts into these metrics.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change below leaves it whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a run found out about a task, or about the control plane's objects; an empty page takes it out.
    /// Says what is new.
    pub(super) fn turn(&self, control_plane: &Arc<str>, task: Option<&TaskArn>, page: Page) {
        let key = (Arc::clone(control_plane), task.cloned());
        let mut inner = self.lock();
        let before = inner.pages.remove(&key).unwrap_or_default();
        for item in &before.items {
            inner.count(&self.metrics, control_plane, label(item), -1);
        }
        for item in &page.items {
            inner.count(&self.metrics, control_plane, label(item), 1);
        }
        let news: Vec<Item> = page
            .items
            .iter()
            .filter(|item| {
                (item.change.writes() || item.blocked_by.is_some()) && !before.items.contains(item)
            })
            .cloned()
            .collect();
        if page != Page::default() {
            inner.pages.insert(key, page);
        }
        drop(inner);
        for item in news {
            let (mesh, partition, name) =
                (item.mesh.as_deref(), item.partition.as_deref(), item.name.as_deref());
            let object = item.object.map(ecs_mesh_core::plan::proposal::ObjectKind::as_str);
            info!(
                %control_plane, mesh, partition, object, name = name.unwrap_or_default(), task = task.map(tracing::field::display),
                service = item.service.as_deref().unwrap_or_default(), change = item.change.as_str(),
                reason = item.reason, blocked_by = item.blocked_by.map(Blocked::as_str), after = item.after, "planned"
            );
        }
    }

    /// Something could not be found out.
    pub(super) fn gap(&self, what: impl Into<String>, why: impl Into<String>) {
        self.lock().gaps.insert(what.into(), why.into());
    }

    /// It was found out now.
    pub(super) fn no_gap(&self, what: &str) {
        self.lock().gaps.remove(what);
    }

    /// Whether something is missing, of the whole or of a task.
    pub(super) fn has_gaps(&self) -> bool {
        let inner = self.lock();
        !inner.gaps.is_empty()
            || inner.counts.iter().any(|((_, label), count)| *label == "unknown" && *count > 0)
    }

    /// Keeps the pages of these control planes alone.
    pub(super) fn keep_only(&self, control_planes: &BTreeSet<Arc<str>>) {
        let mut inner = self.lock();
        let Inner { pages, counts, .. } = &mut *inner;
        pages.retain(|(control_plane, _), _| control_planes.contains(control_plane));
        counts.retain(|(control_plane, label), _| {
            let stays = control_planes.contains(control_plane);
            if !stays {
                self.metrics.planned(control_plane, label, 0);
            }
            stays
        });
    }

    /// All of it.
    pub fn read(&self) -> (Vec<Gap>, Vec<Warning>, Vec<Planned>) {
        let inner = self.lock();
        let gaps =
            inner.gaps.iter().map(|(what, why)| Gap { what: what.clone(), why: why.clone() }).collect();
        let mut warnings = Vec::new();
        let mut items = Vec::new();
        for ((control_plane, task), page) in &inner.pages {
            warnings.extend(page.warnings.iter().map(|why| Warning {
                control_plane: Arc::clone(control_plane),
                task: task.as_ref().map(ToString::to_string).unwrap_or_default(),
                message: why.words.clone(),
                cause: why.cause.clone(),
            }));
            items.extend(page.items.iter().map(|item| Planned {
                control_plane: Arc::clone(control_plane),
                task: task.clone(),
                item: item.clone(),
            }));
        }
        (gaps, warnings, items)
    }
}

impl Inner {
    fn count(&mut self, metrics: &Metrics, control_plane: &Arc<str>, label: &'static str, by: i64) {
        let count = self.counts.entry((Arc::clone(control_plane), label)).or_default();
        *count += by;
        metrics.planned(control_plane, label, *count);
    }
}
