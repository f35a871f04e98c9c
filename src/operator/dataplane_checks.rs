//! The Dataplanes of tasks that the operator does not own, as last checked: those of sidecars, and those that it only observes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ecs_mesh_control_plane::RegistrationOwner;
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_core::plan::FieldChange;
use ecs_mesh_model::{DataplaneOwner, TaskArn, Timestamp};
use serde_json::Value;

/// How long a sidecar tries to connect before it ends.
///
/// Source: `controlPlane.retry.maxDuration` in `pkg/config/app/kuma-dp/config.go` of Kuma.
const CONNECT_LIMIT: Duration = Duration::from_mins(5);

/// The result of a check at the control plane.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum DataplaneFinding {
    /// The Dataplane does not exist; this is its normal form as the operator would create it.
    Missing(Value),
    /// The name belongs to another owner or task.
    Taken(RegistrationOwner),
    /// The Dataplane exists.
    Found {
        /// It carries the ownership labels of the operator and the task.
        labelled: bool,
        /// The fields that differ from the manifests.
        changes: Vec<FieldChange>,
    },
}

/// The state of a Dataplane that the operator does not own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DataplaneState {
    /// As the manifests declare it, and removed once the task is gone if it is a sidecar's.
    AsDeclared,
    /// It differs from the manifests.
    Differs,
    /// It does not exist, although the task runs.
    Missing,
    /// It lacks ownership labels, so it is not removed once the task is gone.
    Unlabelled,
    /// Its name belongs to another owner or task.
    NameConflict,
    /// The role of its task does not allow it.
    NotAllowed,
    /// It should be drained or removed.
    Stale,
    /// Its task is gone, and it lacks ownership labels.
    LeftBehind,
}

impl DataplaneState {
    /// All states.
    pub(super) const ALL: [Self; 8] = [
        Self::AsDeclared,
        Self::Differs,
        Self::Missing,
        Self::Unlabelled,
        Self::NameConflict,
        Self::NotAllowed,
        Self::Stale,
        Self::LeftBehind,
    ];

    /// A bounded label for metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::AsDeclared => "as_declared",
            Self::Differs => "differs",
            Self::Missing => "missing",
            Self::Unlabelled => "unlabelled",
            Self::NameConflict => "name_conflict",
            Self::NotAllowed => "not_allowed",
            Self::Stale => "stale",
            Self::LeftBehind => "left_behind",
        }
    }
}

impl DataplaneFinding {
    /// The state that the finding shows.
    pub(super) fn state(&self) -> DataplaneState {
        match self {
            Self::Missing(_) => DataplaneState::Missing,
            Self::Taken(_) => DataplaneState::NameConflict,
            Self::Found { changes, .. } if !changes.is_empty() => DataplaneState::Differs,
            Self::Found { labelled: false, .. } => DataplaneState::Unlabelled,
            Self::Found { .. } => DataplaneState::AsDeclared,
        }
    }

    /// Whether the task has a Dataplane that lacks ownership labels.
    pub(super) fn is_unlabelled(&self) -> bool {
        matches!(self, Self::Found { labelled: false, .. })
    }
}

/// The last check of a task's Dataplane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DataplaneCheck {
    pub(super) id: RegistrationId,
    pub(super) owner: DataplaneOwner,
    pub(super) state: DataplaneState,
    /// It exists without ownership labels.
    pub(super) unlabelled: bool,
    /// Since when it is in this state.
    pub(super) since: Timestamp,
}

/// The last checks at one control plane, by task.
#[derive(Debug, Default)]
pub(super) struct DataplaneChecks {
    by_task: Mutex<BTreeMap<TaskArn, DataplaneCheck>>,
}

impl DataplaneChecks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskArn, DataplaneCheck>> {
        self.by_task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a check, and returns since when the Dataplane is in this state.
    pub(super) fn record(&self, task: &TaskArn, check: DataplaneCheck) -> Timestamp {
        let mut all = self.lock();
        let since = all
            .get(task)
            .filter(|last| last.state == check.state && last.id == check.id)
            .map(|last| last.since);
        let since = since.unwrap_or(check.since);
        all.insert(task.clone(), DataplaneCheck { since, ..check });
        since
    }

    /// The last check of the task.
    pub(super) fn get(&self, task: &TaskArn) -> Option<DataplaneCheck> {
        self.lock().get(task).cloned()
    }

    /// Drops the checks of tasks that are neither known nor registered any more, except of what they left behind.
    pub(super) fn retain(&self, is_known: impl Fn(&TaskArn) -> bool) {
        self.lock().retain(|task, check| check.state == DataplaneState::LeftBehind || is_known(task));
    }

    /// Nothing of the task is left to check.
    pub(super) fn forget(&self, task: &TaskArn) {
        self.lock().remove(task);
    }

    /// Whether another task has this name, such as one with the address of a gone task.
    pub(super) fn is_name_of_another(&self, id: &RegistrationId, task: &TaskArn) -> bool {
        self.find_other(id, task, |check| check.state != DataplaneState::LeftBehind).is_some()
    }

    /// Another task whose sidecar is about to register this name: it does so soon after its start, or never.
    pub(super) fn awaiting_task(
        &self,
        id: &RegistrationId,
        task: &TaskArn,
        now: Timestamp,
    ) -> Option<TaskArn> {
        self.find_other(id, task, |check| {
            check.owner == DataplaneOwner::Sidecar
                && matches!(check.state, DataplaneState::Missing | DataplaneState::NameConflict)
                && check.since.age_at(now) < CONNECT_LIMIT
        })
    }

    fn find_other(
        &self,
        id: &RegistrationId,
        task: &TaskArn,
        is: impl Fn(&DataplaneCheck) -> bool,
    ) -> Option<TaskArn> {
        let all = self.lock();
        let found = all.iter().find(|(other, check)| *other != task && check.id == *id && is(check));
        found.map(|(other, _)| other.clone())
    }

    /// The number of Dataplanes by owner and state.
    pub(super) fn counts(&self) -> BTreeMap<(DataplaneOwner, DataplaneState), usize> {
        let mut counts = BTreeMap::new();
        for check in self.lock().values() {
            *counts.entry((check.owner, check.state)).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_aws::fakes::task_arn;
    use ecs_mesh_model::MeshName;

    fn check(name: &str, state: DataplaneState, since: i64) -> DataplaneCheck {
        DataplaneCheck {
            id: RegistrationId { mesh: MeshName::default(), name: name.into() },
            owner: DataplaneOwner::Sidecar,
            state,
            unlabelled: false,
            since: Timestamp(since),
        }
    }

    #[test]
    fn state_begins_when_it_was_first_seen() {
        let (checks, task) = (DataplaneChecks::default(), task_arn(1));
        for (name, state, now, expected) in [
            ("a", DataplaneState::Missing, 1, 1),
            ("a", DataplaneState::Missing, 2, 1),
            ("b", DataplaneState::Missing, 3, 3),
            ("b", DataplaneState::AsDeclared, 4, 4),
            ("b", DataplaneState::Missing, 5, 5),
        ] {
            assert_eq!(
                checks.record(&task, check(name, state, now)),
                Timestamp(expected),
                "{name} {state:?} {now}"
            );
        }
        assert_eq!(checks.counts(), [((DataplaneOwner::Sidecar, DataplaneState::Missing), 1)].into());
    }

    #[test]
    fn recurring_name_is_that_of_the_live_task() {
        let checks = DataplaneChecks::default();
        let id = check("ip-10-0-0-1", DataplaneState::Missing, 0).id;
        checks.record(&task_arn(1), check("ip-10-0-0-1", DataplaneState::LeftBehind, 0));
        assert!(!checks.is_name_of_another(&id, &task_arn(1)));
        assert!(!checks.is_name_of_another(&id, &task_arn(2)), "a leftover waits for no sidecar");
        checks.record(&task_arn(2), check("ip-10-0-0-1", DataplaneState::Missing, 0));
        assert!(checks.is_name_of_another(&id, &task_arn(1)));
        let awaits = |seconds: i64| checks.awaiting_task(&id, &task_arn(1), Timestamp(seconds * 1_000));
        assert_eq!(awaits(299), Some(task_arn(2)));
        assert_eq!(awaits(300), None, "its sidecar has given up");
        let observed = DataplaneCheck {
            owner: DataplaneOwner::Observe,
            ..check("ip-10-0-0-1", DataplaneState::Missing, 0)
        };
        checks.record(&task_arn(2), observed);
        assert_eq!(awaits(0), None, "no sidecar is known to register it");
        checks.record(&task_arn(2), check("ip-10-0-0-1", DataplaneState::AsDeclared, 0));
        assert_eq!(awaits(0), None, "its sidecar has registered it");
    }
}
