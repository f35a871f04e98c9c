//! What is known of each task: the newest version wins, and what looks like absence is counted until it proves
//! something. Synchronous; decides nothing about registrations.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::{ClusterArn, DesiredStatus, RoleArn, Task, TaskArn, Timestamp};

/// How long after a sighting a task may be created in the mesh without being described first: a queue may hold
/// messages for days, and the address may have gone to another task.
pub const FRESH: Duration = Duration::from_mins(1);

/// How long a stopped task is remembered, so that late events of its earlier life find it stopped. Longer than
/// [`FRESH`], after which such an event creates nothing unasked.
const TOMBSTONE: Duration = Duration::from_mins(15);

/// Complete sweeps that must miss a task before its absence counts.
const SWEEPS: u32 = 2;

/// Who told of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A task state change event: may be late, repeated, or out of order.
    Event,
    /// DescribeTasks: may lag behind for a moment.
    Describe,
}

/// What an observation changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// It is newer than what was known, or adds to it.
    News,
    /// It was known, or older.
    Stale,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stopped {
    #[default]
    No,
    /// An event said STOPPED.
    Said,
    /// DescribeTasks said STOPPED, or MISSING after an event's STOPPED.
    Confirmed,
}

/// All that is known of one task.
#[derive(Clone, Debug, Default)]
struct Record {
    task: Option<Task>,
    role: Option<RoleArn>,
    stopped: Stopped,
    /// When it was last seen wanted and alive: the event's own time, or the time of a list or describe.
    alive_at: Option<Timestamp>,
    /// When a describe last found it wanted and alive.
    described_at: Option<Timestamp>,
    /// When this record last changed, for forgetting it.
    touched_at: Timestamp,
    absence: Option<Absence>,
}

#[derive(Clone, Copy, Debug)]
struct Absence {
    since: Timestamp,
    sweeps: u32,
    /// A describe of its own said MISSING after the sweeps had missed it often enough.
    described: bool,
}

/// What is known of a task's life, for a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// Nothing.
    Unknown,
    /// ECS wants it to run.
    Live,
    /// ECS is taking it down.
    Leaving,
    /// An event said STOPPED.
    SaidStopped,
    /// It has stopped.
    Stopped,
    /// Sweeps miss it, and nothing else is known of it or it has been missed long enough. `due`: a describe decides.
    Missing {
        /// Missed often and long enough.
        due: bool,
    },
    /// Sweeps miss it, long enough, and a describe did not find it either.
    Absent {
        /// Complete sweeps without it.
        sweeps: u32,
        /// Since when.
        since: Timestamp,
    },
}

/// A copy of what is known of a task.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The newest observation; `None` where only a registration tells of the task.
    pub task: Option<Task>,
    /// What is known of its life.
    pub life: Life,
    /// When it was last seen wanted and alive.
    pub alive_at: Option<Timestamp>,
    /// When a describe last found it so.
    pub described_at: Option<Timestamp>,
}

impl Snapshot {
    /// Whether it was seen alive within [`FRESH`]: by a describe, or by whomsoever after `since`, when this process
    /// began to know its cluster whole. What an event tells of an earlier time may be all that is left of a task whose
    /// STOPPED an earlier process has taken in.
    pub fn is_fresh(&self, since: Option<Timestamp>, now: Timestamp) -> bool {
        let young = |at: &Timestamp| at.age_at(now) < FRESH;
        self.described_at.as_ref().is_some_and(young)
            || self.alive_at.is_some_and(|at| young(&at) && since.is_some_and(|since| at >= since))
    }
}

/// Every known task, by ARN.
#[derive(Debug, Default)]
pub struct Store {
    // In boxes: the nodes of a map are a third empty.
    records: Mutex<BTreeMap<TaskArn, Box<Record>>>,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskArn, Box<Record>>> {
        // Every change below leaves the map whole, so a panic elsewhere has broken nothing in it.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in an observation.
    pub fn observe(&self, task: Task, source: Source, now: Timestamp) -> Observed {
        let mut records = self.lock();
        let record = records.entry(task.arn.clone()).or_default();
        let before = record.stopped;
        if task.last_status.is_stopped() {
            match source {
                Source::Describe => record.stopped = Stopped::Confirmed,
                Source::Event if record.stopped == Stopped::No => record.stopped = Stopped::Said,
                Source::Event => {}
            }
        }
        let known = record.task.as_ref();
        let newer = known.is_none_or(|known| task.version > known.version);
        let adds_tags = known.is_some_and(|known| {
            task.version == known.version && known.tags != task.tags && task.tags.is_some()
        });
        let seen_at = match source {
            // The sender's clock may be ahead; nothing is fresher than now.
            Source::Event => task.updated_at.map(|at| at.min(now)),
            Source::Describe => Some(now),
        };
        if newer || source == Source::Describe {
            // Even a late sighting is a reason for doubt, and doubt keeps registrations.
            record.absence = None;
            if !task.is_leaving() {
                record.alive_at = record.alive_at.max(seen_at);
                if source == Source::Describe {
                    record.described_at = Some(now);
                }
            }
        }
        if newer {
            let tags = task.tags.clone().or_else(|| record.task.take().and_then(|old| old.tags));
            record.task = Some(Task { tags, ..task });
            record.touched_at = now;
        } else if adds_tags && let Some(known) = &mut record.task {
            known.tags = task.tags;
        }
        if newer || adds_tags || before != record.stopped { Observed::News } else { Observed::Stale }
    }

    /// DescribeTasks said MISSING: long gone, or not visible yet. Proof only after a STOPPED event, or after
    /// enough complete sweeps.
    pub fn described_missing(&self, task: &TaskArn, grace: Duration, now: Timestamp) {
        let mut records = self.lock();
        let Some(record) = records.get_mut(task) else { return };
        if record.stopped == Stopped::Said {
            record.stopped = Stopped::Confirmed;
            record.touched_at = now;
        }
        if let Some(absence) = &mut record.absence
            && absence.is_due(grace, now)
        {
            absence.described = true;
        }
    }

    /// A list showed the task with desired status RUNNING.
    pub fn listed_alive(&self, task: &TaskArn, now: Timestamp) {
        if let Some(record) = self.lock().get_mut(task) {
            record.absence = None;
            if record.stopped == Stopped::No && record.task.as_ref().is_some_and(|task| !task.is_leaving()) {
                record.alive_at = record.alive_at.max(Some(now));
            }
        }
    }

    /// A list showed the task with desired status STOPPED: it exists, so it is not absent.
    pub fn listed_leaving(&self, task: &TaskArn) {
        if let Some(record) = self.lock().get_mut(task) {
            record.absence = None;
        }
    }

    /// A complete sweep of its cluster, begun after the task was known or registered, did not show it.
    pub fn missed_by_sweep(&self, task: &TaskArn, now: Timestamp) {
        let mut records = self.lock();
        let record = records
            .entry(task.clone())
            .or_insert_with(|| Box::new(Record { touched_at: now, ..Record::default() }));
        let absence = record.absence.get_or_insert(Absence { since: now, sweeps: 0, described: false });
        absence.sweeps += 1;
    }

    /// Remembers which role the task runs as, so that a changed role finds its tasks.
    pub fn runs_as(&self, task: &TaskArn, role: &RoleArn) {
        if let Some(record) = self.lock().get_mut(task)
            && record.role.as_ref() != Some(role)
        {
            record.role = Some(role.clone());
        }
    }

    /// The role that the task runs, or ran, as, where that is known.
    pub fn role_of(&self, task: &TaskArn) -> Option<RoleArn> {
        let records = self.lock();
        let record = records.get(task)?;
        record.role.clone().or_else(|| record.task.as_ref()?.role_override.clone())
    }

    /// All tasks that run as this role.
    pub fn tasks_of_role(&self, role: &RoleArn) -> Vec<TaskArn> {
        self.lock()
            .iter()
            .filter(|(_, r)| r.role.as_ref() == Some(role))
            .map(|(arn, _)| arn.clone())
            .collect()
    }

    /// All roles that living tasks run as.
    pub fn roles(&self) -> std::collections::BTreeSet<RoleArn> {
        self.lock().values().filter(|r| r.stopped == Stopped::No).filter_map(|r| r.role.clone()).collect()
    }

    /// What is known of one task.
    pub fn snapshot(&self, task: &TaskArn, grace: Duration, now: Timestamp) -> Snapshot {
        let records = self.lock();
        let Some(record) = records.get(task) else {
            return Snapshot { task: None, life: Life::Unknown, alive_at: None, described_at: None };
        };
        Snapshot {
            task: record.task.clone(),
            life: record.life(grace, now),
            alive_at: record.alive_at,
            described_at: record.described_at,
        }
    }

    /// The tasks of a cluster, with what a sweep compares: what ECS wants of each, and whether it is known whole.
    pub fn of_cluster(&self, cluster: &ClusterArn) -> BTreeMap<TaskArn, Brief> {
        let records = self.lock();
        records
            .iter()
            .filter(|(arn, record)| arn.cluster() == cluster && record.task.is_some())
            .map(|(arn, record)| (arn.clone(), record.brief()))
            .collect()
    }

    /// How many tasks are known.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// All known tasks.
    pub fn all(&self) -> Vec<TaskArn> {
        self.lock().keys().cloned().collect()
    }

    /// Forgets what stopped long ago, and what sweeps miss and nobody has registered.
    pub fn forget_old(&self, registered: impl Fn(&TaskArn) -> bool, now: Timestamp) {
        self.lock().retain(|arn, record| {
            let over =
                record.stopped == Stopped::Confirmed || record.absence.is_some_and(|a| a.sweeps >= SWEEPS);
            !over || record.touched_at.age_at(now) < TOMBSTONE || registered(arn)
        });
    }
}

/// What a sweep compares with the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief {
    /// What ECS wants of the task, as far as known.
    pub desired: DesiredStatus,
    /// It has stopped for sure.
    pub stopped: bool,
    /// It has an address, or never will need one.
    pub has_address: bool,
}

impl Record {
    fn brief(&self) -> Brief {
        let task = self.task.as_ref();
        Brief {
            desired: task.map_or(DesiredStatus::Running, |task| {
                if task.is_leaving() { DesiredStatus::Stopped } else { DesiredStatus::Running }
            }),
            stopped: self.stopped == Stopped::Confirmed,
            has_address: task.is_some_and(|task| task.address.is_some()),
        }
    }

    fn life(&self, grace: Duration, now: Timestamp) -> Life {
        match (self.stopped, self.absence, &self.task) {
            (Stopped::Confirmed, _, _) => Life::Stopped,
            (Stopped::Said, _, _) => Life::SaidStopped,
            (_, Some(absence), _) if absence.is_due(grace, now) => {
                if absence.described {
                    Life::Absent { sweeps: absence.sweeps, since: absence.since }
                } else {
                    Life::Missing { due: true }
                }
            }
            (_, Some(_), None) => Life::Missing { due: false },
            (_, None, None) => Life::Unknown,
            (_, _, Some(task)) if task.is_leaving() => Life::Leaving,
            (_, _, Some(_)) => Life::Live,
        }
    }
}

impl Absence {
    fn is_due(&self, grace: Duration, now: Timestamp) -> bool {
        self.sweeps >= SWEEPS && self.since.age_at(now) >= grace
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LastStatus, TaskGroup};

    const NOW: Timestamp = Timestamp(1_000_000);
    const GRACE: Duration = Duration::from_mins(5);

    fn arn() -> TaskArn {
        TaskArn::parse("arn:aws:ecs:eu-west-1:111122223333:task/c/3f2a9c0d5e6b4a718293a4b5c6d7e8f9").unwrap()
    }

    fn task(version: u64, last_status: LastStatus) -> Task {
        let desired_status =
            if last_status > LastStatus::Running { DesiredStatus::Stopped } else { DesiredStatus::Running };
        Task {
            arn: arn(),
            version,
            last_status,
            desired_status,
            group: TaskGroup::parse("service:kv"),
            definition: crate::model::TaskDefinitionArn::parse(
                "arn:aws:ecs:eu-west-1:111122223333:task-definition/kv:1",
            )
            .unwrap(),
            role_override: None,
            address: None,
            created_at: None,
            updated_at: Some(NOW),
            tags: None,
        }
    }

    fn life(store: &Store, now: Timestamp) -> Life {
        store.snapshot(&arn(), GRACE, now).life
    }

    #[test]
    fn an_older_event_changes_nothing() {
        let store = Store::default();
        store.observe(task(5, LastStatus::Deactivating), Source::Event, NOW);
        assert_eq!(store.observe(task(4, LastStatus::Running), Source::Event, NOW), Observed::Stale);
        assert_eq!(life(&store, NOW), Life::Leaving);
    }

    #[test]
    fn an_event_that_says_stopped_needs_a_describe() {
        let store = Store::default();
        store.observe(task(9, LastStatus::Stopped), Source::Event, NOW);
        assert_eq!(life(&store, NOW), Life::SaidStopped);
        store.observe(task(9, LastStatus::Stopped), Source::Describe, NOW);
        assert_eq!(life(&store, NOW), Life::Stopped);
    }

    #[test]
    fn missing_after_an_event_that_said_stopped_is_proof() {
        let store = Store::default();
        store.observe(task(9, LastStatus::Stopped), Source::Event, NOW);
        store.described_missing(&arn(), GRACE, NOW);
        assert_eq!(life(&store, NOW), Life::Stopped);
    }

    #[test]
    fn missing_alone_proves_nothing() {
        let store = Store::default();
        store.observe(task(3, LastStatus::Running), Source::Event, NOW);
        store.described_missing(&arn(), GRACE, NOW);
        assert_eq!(life(&store, NOW), Life::Live);
    }

    #[test]
    fn absence_needs_two_sweeps_the_grace_age_and_a_describe() {
        let store = Store::default();
        store.missed_by_sweep(&arn(), NOW);
        assert_eq!(life(&store, NOW.plus(GRACE)), Life::Missing { due: false });
        store.missed_by_sweep(&arn(), NOW.plus(Duration::from_mins(1)));
        assert_eq!(life(&store, NOW.plus(Duration::from_mins(1))), Life::Missing { due: false });
        let later = NOW.plus(GRACE);
        assert_eq!(life(&store, later), Life::Missing { due: true });
        store.described_missing(&arn(), GRACE, later);
        assert_eq!(life(&store, later), Life::Absent { sweeps: 2, since: NOW });
    }

    #[test]
    fn a_describe_from_before_the_second_sweep_does_not_count() {
        let store = Store::default();
        store.missed_by_sweep(&arn(), NOW);
        store.described_missing(&arn(), GRACE, NOW.plus(GRACE));
        store.missed_by_sweep(&arn(), NOW.plus(GRACE));
        assert_eq!(life(&store, NOW.plus(GRACE)), Life::Missing { due: true });
    }

    #[test]
    fn one_sighting_ends_an_absence() {
        let store = Store::default();
        store.missed_by_sweep(&arn(), NOW);
        store.missed_by_sweep(&arn(), NOW);
        store.observe(task(1, LastStatus::Running), Source::Describe, NOW.plus(GRACE));
        assert_eq!(life(&store, NOW.plus(GRACE)), Life::Live);
    }

    #[test]
    fn an_event_is_fresh_by_its_own_time_not_by_its_arrival() {
        let store = Store::default();
        let day = Duration::from_hours(24);
        store.observe(task(1, LastStatus::Running), Source::Event, NOW.plus(day));
        assert!(!store.snapshot(&arn(), GRACE, NOW.plus(day)).is_fresh(Some(NOW), NOW.plus(day)));
        store.observe(task(1, LastStatus::Running), Source::Describe, NOW.plus(day));
        assert!(store.snapshot(&arn(), GRACE, NOW.plus(day)).is_fresh(Some(NOW), NOW.plus(day)));
    }

    #[test]
    fn before_its_cluster_was_seen_whole_a_task_is_fresh_by_a_describe_alone() {
        let store = Store::default();
        let young = Task { updated_at: Some(NOW), ..task(1, LastStatus::Running) };
        store.observe(young.clone(), Source::Event, NOW);
        store.listed_alive(&arn(), NOW);
        assert!(!store.snapshot(&arn(), GRACE, NOW).is_fresh(None, NOW));
        store.observe(young, Source::Describe, NOW);
        assert!(store.snapshot(&arn(), GRACE, NOW).is_fresh(None, NOW));
        let later = NOW.plus(FRESH);
        assert!(!store.snapshot(&arn(), GRACE, later).is_fresh(None, later));
    }

    #[test]
    fn an_event_from_a_clock_that_is_ahead_is_no_fresher_than_its_arrival() {
        let store = Store::default();
        let ahead =
            Task { updated_at: Some(NOW.plus(Duration::from_hours(1))), ..task(1, LastStatus::Running) };
        store.observe(ahead, Source::Event, NOW);
        let later = NOW.plus(FRESH);
        assert!(store.snapshot(&arn(), GRACE, NOW).is_fresh(Some(NOW), NOW));
        assert!(!store.snapshot(&arn(), GRACE, later).is_fresh(Some(NOW), later));
    }

    #[test]
    fn a_stopped_task_is_remembered_long_enough_for_its_late_events() {
        let store = Store::default();
        store.observe(task(9, LastStatus::Stopped), Source::Describe, NOW);
        store.forget_old(|_| false, NOW.plus(FRESH));
        assert_eq!(
            store.observe(task(5, LastStatus::Running), Source::Event, NOW.plus(FRESH)),
            Observed::Stale
        );
        store.forget_old(|_| false, NOW.plus(TOMBSTONE));
        assert!(store.is_empty());
    }

    #[test]
    fn tags_are_kept_over_events_that_carry_none() {
        let store = Store::default();
        let tags = crate::model::shared_tags([("team".to_owned(), "a".to_owned())].into());
        store.observe(Task { tags: Some(tags), ..task(1, LastStatus::Pending) }, Source::Describe, NOW);
        store.observe(task(2, LastStatus::Running), Source::Event, NOW);
        assert!(store.snapshot(&arn(), GRACE, NOW).task.unwrap().tags.is_some());
    }
}
