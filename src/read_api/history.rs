//! The last changes and warnings, in a ring of bounded size, by task and by service.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use ecs_mesh_model::Timestamp;
use ecs_mesh_read_api::{ChangeView, HistoryView, ResolvedView, WarningView};

/// Entries of a history that no flag sets.
pub const DEFAULT_HISTORY_ENTRIES: usize = 10_000;

/// Most entries that a stream reads at a time.
const MAX_BATCH: usize = 256;

/// One change or warning.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    /// Grows with each entry.
    pub id: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// The entry as a list of changes has it.
    pub change: Arc<ChangeView>,
    /// The entry as the stream has it.
    pub record: HistoryRecord,
}

/// The kind of an entry.
#[derive(Clone, Debug)]
pub enum HistoryRecord {
    /// A change.
    Change,
    /// A warning began or changed.
    Warning(Arc<WarningView>),
    /// A condition is over.
    Resolved(Arc<ResolvedView>),
}

/// The ring. Entries that it has no room for any more are dropped, the oldest first.
#[derive(Debug)]
pub struct History {
    capacity: usize,
    inner: Mutex<Ring>,
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<HistoryEntry>,
    changes: usize,
    /// Changes and warnings by task ARN and by service, the oldest first.
    by_task: BTreeMap<Arc<str>, VecDeque<Arc<ChangeView>>>,
    by_service: BTreeMap<Arc<str>, VecDeque<Arc<ChangeView>>>,
}

/// Entries that a stream has not sent.
#[derive(Debug)]
pub(super) struct Unsent {
    /// The entries, the oldest first.
    pub(super) entries: Vec<HistoryEntry>,
    /// Entries before them are gone.
    pub(super) has_gap: bool,
}

impl History {
    /// An empty history of this many entries, at least one.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), inner: Mutex::default(), last: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // Each change leaves the indexes consistent as far as readers need it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an entry, whose id is greater than all before. Waits for no reader.
    pub fn record(&self, entry: HistoryEntry) {
        let id = entry.id;
        let mut ring = self.lock();
        while ring.entries.len() >= self.capacity {
            ring.drop_oldest();
        }
        ring.index(&entry);
        ring.entries.push_back(entry);
        drop(ring);
        self.last.send_replace(id);
    }

    /// All changes and warnings, the newest first.
    pub(crate) fn changes(&self) -> Vec<Arc<ChangeView>> {
        self.lock().entries.iter().rev().map(|entry| Arc::clone(&entry.change)).collect()
    }

    /// The changes and warnings of a task, by its ARN, the newest first.
    pub(super) fn changes_of_task(&self, task: &str) -> Vec<Arc<ChangeView>> {
        newest_first(self.lock().by_task.get(task))
    }

    /// The changes and warnings of a service in the mesh or in ECS, or of a `Workload`, the newest first.
    pub(super) fn changes_of_service(&self, service: &str) -> Vec<Arc<ChangeView>> {
        newest_first(self.lock().by_service.get(service))
    }

    /// The first entries after this id.
    pub(super) fn after(&self, id: u64) -> Unsent {
        let ring = self.lock();
        let first = ring.entries.partition_point(|entry| entry.id <= id);
        let has_gap = ring.entries.front().is_some_and(|oldest| oldest.id > id + 1);
        Unsent { entries: ring.entries.iter().skip(first).take(MAX_BATCH).cloned().collect(), has_gap }
    }

    /// The id of the last entry, and a receiver that follows it.
    pub(super) fn follow(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// The numbers of the history.
    pub fn view(&self) -> HistoryView {
        let ring = self.lock();
        HistoryView {
            changes: ring.changes,
            capacity: self.capacity,
            oldest: ring.entries.front().map(|entry| entry.at.into()),
        }
    }
}

fn newest_first(changes: Option<&VecDeque<Arc<ChangeView>>>) -> Vec<Arc<ChangeView>> {
    changes.into_iter().flat_map(|changes| changes.iter().rev().cloned()).collect()
}

impl Ring {
    fn index(&mut self, HistoryEntry { change, .. }: &HistoryEntry) {
        self.changes += usize::from(!change.is_warning());
        if let Some(task) = &change.task {
            self.by_task.entry(Arc::clone(task)).or_default().push_back(Arc::clone(change));
        }
        for service in services_of(change) {
            self.by_service.entry(Arc::clone(service)).or_default().push_back(Arc::clone(change));
        }
    }

    fn drop_oldest(&mut self) {
        let Some(HistoryEntry { change, .. }) = self.entries.pop_front() else { return };
        self.changes -= usize::from(!change.is_warning());
        if let Some(task) = &change.task {
            drop_first(&mut self.by_task, task);
        }
        for service in services_of(&change) {
            drop_first(&mut self.by_service, service);
        }
    }
}

/// The names under which a change is found by its service, each once: that in the mesh, that in ECS, and the `Workload`.
fn services_of(change: &ChangeView) -> impl Iterator<Item = &Arc<str>> {
    let (service, of_ecs) = (change.service.as_ref(), change.ecs_service.as_ref());
    let workload = change.workload.as_ref().filter(|name| ![service, of_ecs].contains(&Some(*name)));
    service.into_iter().chain(of_ecs.filter(|name| service != Some(*name))).chain(workload)
}

/// Drops the first change of an index: the oldest entry of the ring is the oldest of its task and of its services.
fn drop_first(index: &mut BTreeMap<Arc<str>, VecDeque<Arc<ChangeView>>>, key: &Arc<str>) {
    let Some(changes) = index.get_mut(key) else { return };
    changes.pop_front();
    if changes.is_empty() {
        index.remove(key);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ecs_mesh_read_api::{ChangeFilter, ChangeResultView, ReasonView};

    pub(in crate::read_api) fn change(id: u64, task: &str, service: &str) -> HistoryEntry {
        let text = |text: &str| Some(Arc::from(text));
        let change = ChangeView {
            id,
            time: Timestamp(i64::try_from(id).unwrap() * 1_000).into(),
            kind: "create".into(),
            object: "registration".into(),
            control_plane: text("kuma"),
            mesh: text("default"),
            name: text(task),
            task: text(task),
            cluster: None,
            ecs_service: text(service),
            service: text(service),
            workload: None,
            role: None,
            binding: None,
            reason: ReasonView { key: "declared".into(), message: "the task runs".to_owned() },
            fields: Vec::new(),
            result: Some(ChangeResultView::Success),
            error: None,
        };
        HistoryEntry { id, at: change.time.0, change: Arc::new(change), record: HistoryRecord::Change }
    }

    fn ids(changes: &[Arc<ChangeView>]) -> Vec<u64> {
        changes.iter().map(|change| change.id).collect()
    }

    #[test]
    fn history_keeps_the_newest_entries_and_their_indexes() {
        let history = History::new(4);
        for id in 1..=6 {
            history.record(change(id, if id % 2 == 0 { "even" } else { "odd" }, "web"));
        }
        assert_eq!(ids(&history.changes()), [6, 5, 4, 3]);
        assert_eq!(ids(&history.changes_of_task("even")), [6, 4]);
        assert_eq!(ids(&history.changes_of_service("web")), [6, 5, 4, 3]);
        assert_eq!(history.view().changes, 4);
        assert_eq!(history.view().oldest, Some(Timestamp(3_000).into()));
        for id in 7..=10 {
            history.record(change(id, "new", "api"));
        }
        assert_eq!((ids(&history.changes_of_task("even")), history.lock().by_task.len()), (vec![], 1));
        assert_eq!(history.lock().by_service.len(), 1);
    }

    #[test]
    fn warnings_are_found_by_task_and_listed_on_request() {
        let history = History::new(10);
        history.record(change(1, "t", "web"));
        let HistoryEntry { change: view, .. } = change(2, "t", "web");
        let view = ChangeView { kind: "resolved".into(), result: None, ..ChangeView::clone(&view) };
        let ended =
            ResolvedView { reason: "rejected".into(), control_plane: None, task: None, service: None };
        let record = HistoryRecord::Resolved(Arc::new(ended));
        history.record(HistoryEntry { id: 2, at: view.time.0, change: Arc::new(view), record });
        assert_eq!(ids(&history.changes_of_task("t")), [2, 1]);
        assert_eq!(history.view().changes, 1);
        let listed = |query: &str| {
            let body = super::super::answers::changes(&history, query, Timestamp(0)).unwrap();
            let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
            list["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["id"].as_u64().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(listed(""), [1]);
        assert_eq!(listed("service=web&warnings=true"), [2, 1]);
        assert_eq!(listed("warnings=true&kind=resolved"), [2]);
    }

    #[test]
    fn change_is_found_by_each_name_of_its_service() {
        let history = History::new(2);
        for (id, names) in [(1, ["shop", "app", "checkout"]), (2, ["shop", "shop", "shop"])] {
            let HistoryEntry { change: made, at, record, .. } = change(id, "t", "");
            let [service, ecs_service, workload] = names.map(|name| Some(Arc::from(name)));
            let made = ChangeView { service, ecs_service, workload, ..ChangeView::clone(&made) };
            history.record(HistoryEntry { id, at, change: Arc::new(made), record });
        }
        for (name, expected) in [("shop", &[2, 1][..]), ("app", &[1]), ("checkout", &[1]), ("t", &[])] {
            assert_eq!(ids(&history.changes_of_service(name)), expected, "{name}");
            let filter = ChangeFilter { service: Some(name.to_owned()), ..ChangeFilter::default() };
            let matching =
                history.changes().into_iter().filter(|change| filter.matches(change, Timestamp(0)));
            assert_eq!(ids(&matching.collect::<Vec<_>>()), expected, "{name}");
        }
        for id in 3..=4 {
            history.record(change(id, "t", "web"));
        }
        assert_eq!(history.lock().by_service.len(), 1);
    }

    #[test]
    fn reader_behind_the_ring_is_told_of_the_gap() {
        let history = History::new(3);
        for id in 1..=5 {
            history.record(change(id, "t", "s"));
        }
        for (after, first, has_gap) in
            [(0, Some(3), true), (1, Some(3), true), (2, Some(3), false), (4, Some(5), false)]
        {
            let unsent = history.after(after);
            assert_eq!(
                (unsent.entries.first().map(|entry| entry.id), unsent.has_gap),
                (first, has_gap),
                "{after}"
            );
        }
        assert!(history.after(5).entries.is_empty());
    }
}
