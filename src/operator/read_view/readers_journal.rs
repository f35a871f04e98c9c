//! The journal for readers: a history of views, and the warnings that still hold.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::operator::journal::{
    ChangeResult, JournalChange, JournalEntry, JournalEvent, JournalSubject, JournalSubscriber, MAX_FIELDS,
    shortened,
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
            message: shortened(message).into(),
            fix: fix.map(|fix| shortened(fix).into()),
            service: entry.subject.service.clone(),
            since: entry.at,
        };
        let record = match &entry.event {
            JournalEvent::Change(_) => HistoryRecord::Change,
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
        let change = Arc::new(match (&entry.event, &record) {
            (JournalEvent::Change(change), _) => change_view(entry, change),
            (_, HistoryRecord::Warning(warning)) => {
                warning_view(entry, "warning", &warning.reason, warning.message.to_string())
            }
            (_, HistoryRecord::Resolved(ended)) => {
                let view = warning_view(entry, "resolved", &ended.reason, "the condition is over".to_owned());
                ChangeView { service: ended.service.clone(), ..view }
            }
            (_, HistoryRecord::Change) => return,
        });
        self.history.record(HistoryEntry { id: entry.sequence, at: entry.at, change, record });
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
    let (result, error) = match &change.result {
        ChangeResult::Success => (ChangeResultView::Success, None),
        ChangeResult::SuccessResponseLost => (ChangeResultView::SuccessResponseLost, None),
        ChangeResult::Error(error) => (ChangeResultView::Error, Some(shortened(error))),
    };
    ChangeView {
        object: intern(change.object),
        fields: change.fields.iter().take(MAX_FIELDS).map(|field| shortened(field)).collect(),
        result: Some(result),
        error,
        ..entry_view(
            entry,
            change.change,
            ReasonView { key: intern(change.cause.label()), message: shortened(&change.message) },
        )
    }
}

/// A warning, or its end, as an entry of the history.
fn warning_view(entry: &JournalEntry, kind: &str, reason: &Arc<str>, message: String) -> ChangeView {
    entry_view(entry, kind, ReasonView { key: Arc::clone(reason), message })
}

fn entry_view(entry: &JournalEntry, kind: &str, reason: ReasonView) -> ChangeView {
    let JournalSubject { control_plane, mesh, binding, task, ecs_service, service, workload, name, role } =
        &entry.subject;
    ChangeView {
        id: entry.sequence,
        time: entry.at.into(),
        kind: intern(kind),
        object: intern("registration"),
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
        reason,
        fields: Vec::new(),
        result: None,
        error: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::journal::{ChangeCause, JournalWarning};
    use ecs_mesh_core::plan::Evidence;
    use ecs_mesh_model::{ClusterArn, EcsServiceRef, TaskId};

    const TASK: &str = "arn:aws:ecs:eu-west-1:111122223333:task/demo/0123456789abcdef0123456789abcdef";

    fn entry(sequence: u64, event: JournalEvent) -> Arc<JournalEntry> {
        let subject = JournalSubject {
            control_plane: Some("kuma".into()),
            task: Some(TaskArn::parse(TASK).unwrap()),
            ..JournalSubject::default()
        };
        Arc::new(JournalEntry { sequence, at: Timestamp(0), subject, event })
    }

    /// The size of all entries in JSON.
    fn size(journal: &ReadersJournal) -> usize {
        let changes = journal.history.changes();
        changes.iter().map(|change| serde_json::to_vec(&**change).unwrap().len()).sum()
    }

    #[test]
    fn entry_is_small_however_much_a_change_says() {
        let journal = ReadersJournal::new(History::new(10));
        let long = "x".repeat(1024 * 1024);
        let change = JournalChange {
            object: "registration",
            change: "update",
            cause: ChangeCause::Declared,
            message: long.clone(),
            fields: vec![long.clone(); 500],
            result: ChangeResult::Error(long.clone()),
        };
        journal.receive(&entry(1, JournalEvent::Change(change)));
        assert!((1_000..32 * 1024).contains(&size(&journal)), "{}", size(&journal));
        let warning = JournalWarning {
            reason: "rejected",
            key: "k".to_owned(),
            message: long.clone(),
            rules: Vec::new(),
            fix: Some(long),
        };
        journal.receive(&entry(2, JournalEvent::Warning(warning)));
        let task = TaskArn::parse(TASK).unwrap();
        let shown = journal.active().of_task(&task, &["kuma".into()]);
        let TaskWarningView { message, fix, .. } = &shown[0].1;
        assert!(message.len() < 2_000 && fix.as_ref().unwrap().len() < 2_000);
    }

    #[test]
    fn warning_holds_until_it_is_resolved() {
        let journal = ReadersJournal::new(History::new(10));
        let warning = |message: &str| {
            JournalEvent::Warning(JournalWarning {
                reason: "rejected",
                key: "k".to_owned(),
                message: message.to_owned(),
                rules: Vec::new(),
                fix: None,
            })
        };
        let task = TaskArn::parse(TASK).unwrap();
        let of_task = || journal.active().of_task(&task, &["kuma".into()]);
        journal.receive(&entry(1, warning("first")));
        journal.receive(&entry(2, warning("second")));
        assert_eq!(of_task().iter().map(|(_, view)| &*view.message).collect::<Vec<_>>(), ["second"]);
        journal.receive(&entry(3, JournalEvent::Resolved { reason: "name_conflict" }));
        assert_eq!(of_task().len(), 1, "another condition");
        journal.receive(&entry(4, JournalEvent::Resolved { reason: "rejected" }));
        assert!(of_task().is_empty());
        let all = journal.history.changes();
        let found: Vec<_> =
            all.iter().map(|one| (&*one.kind, &*one.reason.key, one.task.as_deref() == Some(TASK))).collect();
        assert_eq!(
            found,
            [
                ("resolved", "rejected", true),
                ("resolved", "name_conflict", true),
                ("warning", "rejected", true),
                ("warning", "rejected", true),
            ]
        );
        assert_eq!(journal.history.view().changes, 0);
    }

    /// The entries of one task's life: as long as those of a demo.
    fn life_of(task: &TaskArn, number: u64) -> Vec<JournalEvent> {
        let change = |change, cause, message: &str, fields: &[&str]| {
            JournalEvent::Change(JournalChange {
                object: "registration",
                change,
                cause,
                message: message.to_owned(),
                fields: fields.iter().map(ToString::to_string).collect(),
                result: ChangeResult::Success,
            })
        };
        let (stopping, stopped) =
            (ChangeCause::Evidence(Evidence::Stopping), ChangeCause::Evidence(Evidence::Stopped));
        let mut life = vec![
            change("create", ChangeCause::Declared, "the task runs", &[]),
            change("drain", stopping, "ECS is stopping the task", &[]),
            change("remove", stopped, "ECS reports that the task has stopped", &[]),
        ];
        if number.is_multiple_of(4) {
            let fields = ["networking.outbound[0].port", "networking.outbound[0].tags.kuma.io/service"];
            let message = format!("differs in {}", fields.join(", "));
            life.insert(1, change("update", ChangeCause::Declared, &message, &fields));
            let role = "arn:aws:iam::111122223333:role/mesh/shop-backend-task";
            let message = format!(
                "the task role is not allowed in the mesh: role {role} lacks the tag kuma.io/service"
            );
            life.push(JournalEvent::Warning(JournalWarning {
                reason: "rejected",
                key: "lacks the tag kuma.io/service".to_owned(),
                message,
                rules: vec!["kuma.io/service"],
                fix: Some(format!(
                    "aws iam tag-role --role-name {task} --tags Key=kuma.io/service,Value=shop"
                )),
            }));
            life.push(JournalEvent::Resolved { reason: "rejected" });
        }
        life
    }

    /// Resident memory in KiB; `None` where there is no `/proc`.
    fn resident() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// Prints what `docs/reference/api.md` says of an entry's size. In a process of its own, as other tests use memory too.
    #[test]
    fn history_entry_takes_less_than_two_kilobytes() {
        const TEST: &str = "operator::read_view::readers_journal::tests::measured_in_a_process_of_its_own";
        let Some(_) = resident() else {
            println!("skipped: this system has no /proc/self/status");
            return;
        };
        let measured = std::process::Command::new(std::env::current_exe().unwrap())
            .args([TEST, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&measured.stdout);
        print!("{printed}{}", String::from_utf8_lossy(&measured.stderr));
        assert!(measured.status.success());
        assert!(printed.contains("bytes an entry"), "no measurement");
    }

    #[test]
    #[ignore = "run by history_entry_takes_less_than_two_kilobytes"]
    fn measured_in_a_process_of_its_own() {
        const ENTRIES: u64 = 100_000;
        let before = resident().unwrap();
        let journal = ReadersJournal::new(History::new(100_000));
        let cluster = ClusterArn::parse("arn:aws:ecs:eu-west-1:111122223333:cluster/production").unwrap();
        let (mut sequence, mut number) = (0, 0);
        while sequence < ENTRIES {
            number += 1;
            let task = cluster.task(TaskId::parse(&format!("{number:032x}")).unwrap());
            let service = format!("shop-backend-{}", number % 400);
            let subject = JournalSubject {
                control_plane: Some("kuma".into()),
                mesh: Some("default".into()),
                binding: Some("production".into()),
                task: Some(task.clone()),
                ecs_service: Some(EcsServiceRef::new(&cluster, &service)),
                service: Some(intern(&service)),
                workload: Some(intern(&service)),
                name: Some(format!("{service}-{number:032x}").into()),
                role: RoleArn::parse(&format!("arn:aws:iam::111122223333:role/mesh/{service}")).ok(),
            };
            for event in life_of(&task, number) {
                sequence += 1;
                let at = Timestamp(i64::try_from(sequence).unwrap());
                journal.receive(&Arc::new(JournalEntry { sequence, at, subject: subject.clone(), event }));
            }
        }
        let grown = resident().unwrap().saturating_sub(before) * 1024;
        println!("history: {} bytes an entry", grown / ENTRIES);
        assert!(grown / ENTRIES < 2_048, "{} bytes an entry", grown / ENTRIES);
        assert_eq!(journal.history().view().capacity, 100_000);
    }
}
