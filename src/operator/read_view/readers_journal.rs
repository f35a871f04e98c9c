//! The journal for readers: a history of views, and the warnings that still hold.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::operator::journal::{
    ChangeResult, JournalChange, JournalEntry, JournalEvent, JournalSubject, JournalSubscriber,
};
use crate::read_api::{History, HistoryEntry, HistoryRecord};
use ecs_mesh_aws::store::MAX_TASKS;
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::{RoleArn, TaskArn, Timestamp, intern};
use ecs_mesh_read_api::{
    ChangeResultView, ChangeView, ReasonView, ResolvedView, TaskView, TaskWarningView, WarningView,
};

/// Most tasks and services that a warning names.
const MAX_EXAMPLES: usize = 5;
const MAX_SERVICES: usize = 20;

/// The reason of a held removal.
const HELD_BY_GUARD: &str = "held_by_guard";
/// The reason of a control plane that is not supported.
const UNSUPPORTED: &str = "unsupported_control_plane";

/// Receives the journal.
pub(super) struct ReadersJournal {
    history: Arc<History>,
    active: Mutex<ActiveTaskWarnings>,
}

/// A warning of a control plane, and of a task where it has one, by its reason.
type WarningKey = (Option<Arc<str>>, Option<TaskArn>, &'static str);

/// The warnings that hold.
#[derive(Clone, Debug, Default)]
pub(super) struct ActiveTaskWarnings(BTreeMap<WarningKey, Arc<ActiveWarning>>);

#[derive(Debug)]
struct ActiveWarning {
    key: String,
    message: Arc<str>,
    fix: Option<Arc<str>>,
    service: Option<Arc<str>>,
    since: Timestamp,
}

impl ReadersJournal {
    pub(super) fn new(history: History) -> Self {
        Self { history: Arc::new(history), active: Mutex::default() }
    }

    pub(super) fn history(&self) -> &Arc<History> {
        &self.history
    }

    fn lock(&self) -> MutexGuard<'_, ActiveTaskWarnings> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The warnings that hold now.
    pub(super) fn active(&self) -> ActiveTaskWarnings {
        self.lock().clone()
    }

    /// Forgets the warnings of tasks that are not known any more.
    pub(super) fn retain(&self, is_known: impl Fn(&TaskArn) -> bool) {
        self.lock().0.retain(|(_, task, _), _| task.as_ref().is_none_or(&is_known));
    }

    fn begin(&self, entry: &JournalEntry, reason: &'static str, warning: ActiveWarning) -> HistoryRecord {
        let JournalSubject { control_plane, task, .. } = &entry.subject;
        let view = WarningView {
            id: warning_id(control_plane.as_ref(), reason, &warning.key),
            control_plane: control_plane.clone(),
            reason: intern(reason),
            message: Arc::clone(&warning.message),
            fix: warning.fix.clone(),
            tasks: usize::from(task.is_some()),
            examples: task.iter().map(|task| task.id().as_str().into()).collect(),
            services: warning.service.iter().cloned().collect(),
            since: Some(warning.since.into()),
        };
        let key = (control_plane.clone(), task.clone(), reason);
        let mut active = self.lock();
        if active.0.len() < MAX_TASKS || active.0.contains_key(&key) {
            active.0.insert(key, Arc::new(warning));
        }
        drop(active);
        HistoryRecord::Warning(Arc::new(view))
    }

    fn end(&self, entry: &JournalEntry, reason: &'static str) -> HistoryRecord {
        let JournalSubject { control_plane, task, service, .. } = &entry.subject;
        let ended = self.lock().0.remove(&(control_plane.clone(), task.clone(), reason));
        HistoryRecord::Resolved(Arc::new(ResolvedView {
            reason: intern(reason),
            control_plane: control_plane.clone(),
            task: task.as_ref().map(|task| task.to_string().into()),
            service: service.clone().or_else(|| ended?.service.clone()),
        }))
    }
}

impl JournalSubscriber for ReadersJournal {
    fn receive(&self, entry: &Arc<JournalEntry>) {
        let warning = |key: &str, message: &str, fix: Option<&str>| ActiveWarning {
            key: key.to_owned(),
            message: message.into(),
            fix: fix.map(Into::into),
            service: entry.subject.service.clone(),
            since: entry.at,
        };
        let record = match &entry.event {
            JournalEvent::Change(change) => HistoryRecord::Change(Arc::new(change_view(entry, change))),
            JournalEvent::Warning(raised) => {
                self.begin(entry, raised.reason, warning(&raised.key, &raised.message, raised.fix.as_deref()))
            }
            JournalEvent::HeldByGuard(held) => {
                let key = format!("{} {}", held.change, entry.subject.binding.as_deref().unwrap_or_default());
                self.begin(entry, HELD_BY_GUARD, warning(&key, &held.message, Some(&held.fix)))
            }
            JournalEvent::Resolved { reason } => self.end(entry, reason),
            JournalEvent::Unsupported { message } => {
                self.begin(entry, UNSUPPORTED, warning("", message, None))
            }
            JournalEvent::Supported => self.end(entry, UNSUPPORTED),
        };
        self.history.record(HistoryEntry { id: entry.sequence, at: entry.at, record });
    }
}

/// The same for all tasks with this cause.
fn warning_id(control_plane: Option<&Arc<str>>, reason: &str, key: &str) -> Arc<str> {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let control_plane = control_plane.map_or("-", AsRef::as_ref);
    format!("{control_plane}.{reason}.{:016x}", hasher.finish()).into()
}

fn change_view(entry: &JournalEntry, change: &JournalChange) -> ChangeView {
    let JournalSubject { control_plane, mesh, binding, task, ecs_service, service, workload, name, role } =
        &entry.subject;
    let (result, error) = match &change.result {
        ChangeResult::Success => (ChangeResultView::Success, None),
        ChangeResult::SuccessResponseLost => (ChangeResultView::SuccessResponseLost, None),
        ChangeResult::Error(error) => (ChangeResultView::Error, Some(error.clone())),
    };
    ChangeView {
        id: entry.sequence,
        time: entry.at.into(),
        kind: intern(change.change),
        object: intern(change.object),
        control_plane: control_plane.clone(),
        mesh: mesh.clone(),
        name: name.as_deref().map(display_name),
        task: task.as_ref().map(|task| task.to_string().into()),
        cluster: task.as_ref().map(|task| intern(task.cluster().as_str())),
        ecs_service: ecs_service.as_ref().map(|service| intern(service.name())),
        service: service.clone(),
        workload: workload.clone(),
        role: role.as_ref().map(RoleArn::as_str).map(intern),
        binding: binding.clone(),
        reason: ReasonView { key: intern(change.cause.label()), message: change.message.clone() },
        fields: change.fields.clone(),
        result,
        error,
    }
}

/// A zone proxy's name without its type.
fn display_name(name: &str) -> Arc<str> {
    let id = RegistrationId { mesh: ecs_mesh_model::MeshName::default(), name: name.into() };
    id.zone_proxy().map_or_else(|| name.into(), |(_, name)| name.into())
}

impl ActiveTaskWarnings {
    /// The warnings of a task.
    pub(super) fn of_task(
        &self,
        task: &TaskArn,
        control_planes: &[Arc<str>],
    ) -> Vec<(&'static str, TaskWarningView)> {
        let mut found = Vec::new();
        for control_plane in control_planes {
            let first = (Some(Arc::clone(control_plane)), Some(task.clone()), "");
            let all = self.0.range(first..);
            let of_task = all.take_while(|((at, of, _), _)| {
                at.as_ref() == Some(control_plane) && of.as_ref() == Some(task)
            });
            found.extend(of_task.map(|((_, _, reason), warning)| {
                let view = TaskWarningView {
                    reason: intern(reason),
                    message: Arc::clone(&warning.message),
                    fix: warning.fix.clone(),
                };
                (*reason, view)
            }));
        }
        found
    }

    /// The warnings by cause.
    pub(super) fn grouped(&self, tasks: &[TaskView]) -> Vec<WarningView> {
        let known: BTreeSet<&str> = tasks.iter().map(|task| &*task.arn).collect();
        let mut groups: BTreeMap<Arc<str>, (WarningView, BTreeSet<Arc<str>>)> = BTreeMap::new();
        for ((control_plane, task, reason), warning) in &self.0 {
            if task.as_ref().is_some_and(|task| !known.contains(&*task.to_string())) {
                continue;
            }
            let id = warning_id(control_plane.as_ref(), reason, &warning.key);
            let (view, services) = groups.entry(Arc::clone(&id)).or_insert_with(|| {
                let view = WarningView {
                    id,
                    control_plane: control_plane.clone(),
                    reason: intern(reason),
                    message: Arc::clone(&warning.message),
                    fix: warning.fix.clone(),
                    tasks: 0,
                    examples: Vec::new(),
                    services: Vec::new(),
                    since: Some(warning.since.into()),
                };
                (view, BTreeSet::new())
            });
            view.since = view.since.min(Some(warning.since.into()));
            if let Some(task) = task {
                view.tasks += 1;
                if view.examples.len() < MAX_EXAMPLES {
                    view.examples.push(task.id().as_str().into());
                }
            }
            if services.len() < MAX_SERVICES {
                services.extend(warning.service.clone());
            }
        }
        let views = groups.into_values();
        views
            .map(|(view, services)| WarningView { services: services.into_iter().collect(), ..view })
            .collect()
    }
}
