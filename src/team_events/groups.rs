//! Groups entries of the journal by kind, ECS service and cause: the first is due at once, and then a group is due each time
//! its count has doubled. Pure: time is a parameter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::event::TeamEventKind;
use crate::operator::{ChangeCause, ChangeResult, JournalChange, JournalEntry, JournalEvent, JournalWarning};
use ecs_mesh_core::plan::Evidence;
use ecs_mesh_model::{ClusterArn, EcsServiceRef, TaskArn, Timestamp};

/// The reason of warnings that the guard holds a step.
pub(super) const HELD_BY_GUARD: &str = "held_by_guard";

/// The reasons of warnings that say why a task is not registered, where its team can correct that.
pub(super) const REJECTIONS: [&str; 7] = [
    "rejected",
    "name_conflict",
    "invalid_metadata",
    "workloads_overlap",
    "bindings_overlap",
    "unsupported_network_mode",
    "external_instance",
];

/// Most groups. Each has a cause and an ECS service.
pub(super) const MAX_GROUPS: usize = 10_000;
/// Most tasks whose active warnings are followed; of further ones, only the number counts.
const MAX_MEMBERS: usize = 50_000;
/// Tasks that an event names.
pub(super) const MAX_EXAMPLES: usize = 5;
/// Shortest time between two events of one group.
pub(super) const COUNT_INTERVAL: Duration = Duration::from_secs(10);
/// A group ends this long after its last entry, if no task's warning is active. The next entry is the first of a new group.
pub(super) const GROUP_ENDS_AFTER: Duration = Duration::from_mins(10);

/// Whether an entry starts, grows or ends a group.
pub(super) fn concerns_teams(entry: &JournalEntry) -> bool {
    match &entry.event {
        JournalEvent::Resolved { reason } => *reason == HELD_BY_GUARD || REJECTIONS.contains(reason),
        JournalEvent::Supported => true,
        _ => kind_of(&entry.event).is_some(),
    }
}

/// The kind of event that an entry becomes.
fn kind_of(event: &JournalEvent) -> Option<TeamEventKind> {
    match event {
        JournalEvent::Change(change) => kind_of_change(change),
        JournalEvent::Warning(JournalWarning { reason, .. }) => {
            REJECTIONS.contains(reason).then_some(TeamEventKind::TaskRejected)
        }
        JournalEvent::HeldByGuard(_) => Some(TeamEventKind::GuardTripped),
        JournalEvent::Unsupported { .. } => Some(TeamEventKind::ControlPlaneUnsupported),
        JournalEvent::Resolved { .. } | JournalEvent::Supported => None,
    }
}

fn kind_of_change(change: &JournalChange) -> Option<TeamEventKind> {
    if matches!(change.result, ChangeResult::Error(_)) {
        return None;
    }
    match (change.object, change.change, &change.cause) {
        ("registration", "create" | "update", ChangeCause::Drift) => Some(TeamEventKind::DriftRepaired),
        ("registration", "create", _) => Some(TeamEventKind::TaskRegistered),
        // A task that has stopped needs no identity.
        (
            "registration" | "data_plane_token",
            "drain" | "remove" | "revoke",
            ChangeCause::Evidence(Evidence::RoleTags | Evidence::RoleNotAllowed { .. } | Evidence::Manifests),
        ) => Some(TeamEventKind::IdentityWithdrawn),
        _ => None,
    }
}

/// Entries with one key become one event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    kind: TeamEventKind,
    control_plane: Option<Arc<str>>,
    owner: GroupOwner,
    binding: Option<Arc<str>>,
    cause: String,
}

/// The owner of a group's tasks, so that a rule can forward events by ECS service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum GroupOwner {
    Service(EcsServiceRef),
    /// Tasks of no known service.
    Cluster(ClusterArn),
    /// No task.
    ControlPlane,
}

impl GroupKey {
    fn of(entry: &JournalEntry) -> Option<Self> {
        let kind = kind_of(&entry.event)?;
        let subject = &entry.subject;
        let owner = match (&subject.ecs_service, &subject.task) {
            (Some(service), _) => GroupOwner::Service(service.clone()),
            (None, Some(task)) => GroupOwner::Cluster(task.cluster().clone()),
            (None, None) => GroupOwner::ControlPlane,
        };
        let cause = match &entry.event {
            JournalEvent::Change(change) => {
                format!("{} {} {}", change.object, change.change, change.cause.label())
            }
            JournalEvent::Warning(warning) => format!("{} {}", warning.reason, warning.key),
            JournalEvent::HeldByGuard(held) => format!("{} {}", held.change, held.cause),
            _ => String::new(),
        };
        // Names contain task ids.
        let cause = match &subject.task {
            Some(task) => cause.replace(task.id().as_str(), "TASK"),
            None => cause,
        };
        let (control_plane, binding) = (subject.control_plane.clone(), subject.binding.clone());
        Some(Self { kind, control_plane, owner, binding, cause })
    }
}

/// A task's active warning: the control plane, the task and the reason.
type Member = (Option<Arc<str>>, TaskArn, &'static str);

#[derive(Debug)]
struct Group {
    /// Tasks with this cause since the group began.
    count: usize,
    /// The count of the last event.
    told: usize,
    told_at: Timestamp,
    last_at: Timestamp,
    /// Tasks whose warning is active.
    active: usize,
    /// The latest tasks, the latest first.
    examples: VecDeque<TaskArn>,
    /// The latest entry.
    latest: Arc<JournalEntry>,
}

impl Group {
    /// When the next event is due, once the group has grown enough. It is the same until then.
    fn due_at(&self) -> Timestamp {
        let interval = i64::try_from(COUNT_INTERVAL.as_millis()).unwrap_or(i64::MAX);
        if self.told == 0 { Timestamp(i64::MIN) } else { Timestamp(self.told_at.0.saturating_add(interval)) }
    }

    fn has_doubled(&self) -> bool {
        self.count >= self.told * 2
    }
}

/// A group that an event is due for.
#[derive(Clone, Debug)]
pub(super) struct DueGroup {
    pub(super) kind: TeamEventKind,
    /// Tasks with the cause since the first event; 0 where no task is the subject.
    pub(super) count: usize,
    /// The latest tasks, the latest first: the entry's own.
    pub(super) examples: Vec<TaskArn>,
    pub(super) latest: Arc<JournalEntry>,
}

/// The groups.
#[derive(Debug, Default)]
pub(super) struct TeamEventGroups {
    groups: BTreeMap<GroupKey, Group>,
    members: BTreeMap<Member, GroupKey>,
    /// Groups that have grown enough, by the time at which they are due: a look at those that are due costs nothing for the
    /// others, however many there are.
    grown: BTreeSet<(Timestamp, GroupKey)>,
    pruned_at: Timestamp,
}

impl TeamEventGroups {
    /// Records an entry. `false` if it would start one group too many.
    pub(super) fn record(&mut self, entry: &Arc<JournalEntry>, now: Timestamp) -> bool {
        match &entry.event {
            JournalEvent::Resolved { reason } => {
                let Some(task) = entry.subject.task.clone() else { return true };
                self.leave(&(entry.subject.control_plane.clone(), task, *reason), now);
                true
            }
            JournalEvent::Supported => {
                let control_plane = &entry.subject.control_plane;
                let is_over = |key: &GroupKey| {
                    key.kind == TeamEventKind::ControlPlaneUnsupported && key.control_plane == *control_plane
                };
                self.groups.retain(|key, _| !is_over(key));
                self.grown.retain(|(_, key)| !is_over(key));
                true
            }
            _ => GroupKey::of(entry).is_none_or(|key| self.join(key, entry, now)),
        }
    }

    fn join(&mut self, key: GroupKey, entry: &Arc<JournalEntry>, now: Timestamp) -> bool {
        let reason = match &entry.event {
            JournalEvent::Warning(warning) => Some(warning.reason),
            JournalEvent::HeldByGuard(_) => Some(HELD_BY_GUARD),
            _ => None,
        };
        let task = entry.subject.task.clone();
        let member = reason.zip(task.clone());
        let member = member.map(|(reason, task)| (entry.subject.control_plane.clone(), task, reason));
        // A warning with another cause replaces the one before.
        if let Some(member) = &member {
            self.leave(member, now);
        }
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            self.prune(now);
            if self.groups.len() >= MAX_GROUPS {
                return false;
            }
        }
        let group = self.groups.entry(key.clone()).or_insert_with(|| Group {
            count: 0,
            told: 0,
            told_at: now,
            last_at: now,
            active: 0,
            examples: VecDeque::new(),
            latest: Arc::clone(entry),
        });
        group.count += 1;
        group.last_at = now;
        group.latest = Arc::clone(entry);
        if let Some(task) = task {
            group.examples.retain(|known| *known != task);
            group.examples.push_front(task);
            group.examples.truncate(MAX_EXAMPLES);
        }
        if let Some(member) = member
            && self.members.len() < MAX_MEMBERS
        {
            group.active += 1;
            self.members.insert(member, key.clone());
        }
        if group.has_doubled() {
            self.grown.insert((group.due_at(), key));
        }
        true
    }

    /// A warning is over.
    fn leave(&mut self, member: &Member, now: Timestamp) {
        if let Some(group) = self.members.remove(member).and_then(|key| self.groups.get_mut(&key)) {
            group.active -= 1;
            group.last_at = now;
        }
    }

    /// The groups that an event is due for; each counts as told.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<DueGroup> {
        if self.pruned_at.age_at(now) >= GROUP_ENDS_AFTER {
            self.prune(now);
        }
        let mut due = Vec::new();
        while self.grown.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, key)) = self.grown.pop_first()
        {
            due.extend(self.tell(&key, now));
        }
        due
    }

    fn tell(&mut self, key: &GroupKey, now: Timestamp) -> Option<DueGroup> {
        let group = self.groups.get_mut(key)?;
        (group.told, group.told_at) = (group.count, now);
        Some(DueGroup {
            kind: key.kind,
            count: if key.owner == GroupOwner::ControlPlane { 0 } else { group.count },
            examples: group.examples.iter().cloned().collect(),
            latest: Arc::clone(&group.latest),
        })
    }

    /// Ends groups without active warnings and recent entries. Entries that were never sent stay.
    fn prune(&mut self, now: Timestamp) {
        self.pruned_at = now;
        let lasts = |key: &GroupKey, group: &Group| {
            key.kind == TeamEventKind::ControlPlaneUnsupported
                || group.active > 0
                || group.told == 0
                || group.last_at.age_at(now) < GROUP_ENDS_AFTER
        };
        self.groups.retain(|key, group| lasts(key, group));
        let groups = &self.groups;
        self.grown.retain(|(_, key)| groups.contains_key(key));
    }
}
