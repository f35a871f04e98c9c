//! The journal: each change, warning, held removal and control-plane state of a run, in order, for those who show or forward
//! them.
//!
//! Guarantees that a reconcile never waits for a subscriber: [`JournalSubscriber::receive`] may only copy an entry into a
//! bounded place of its own. A dry run records nothing here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ecs_mesh_clock::Clock;
use ecs_mesh_core::plan::Evidence;
use ecs_mesh_model::{EcsServiceRef, RoleArn, TaskArn, Timestamp};

/// Longest text of an entry that subscribers keep or send, in characters. The audit log has the rest.
const MAX_TEXT: usize = 1_000;
/// Most paths of changed fields that subscribers keep or send.
pub(crate) const MAX_FIELDS: usize = 20;

/// The text, with an ellipsis where it is longer than subscribers keep.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT - 1) {
        Some((end, last)) if text.len() > end + last.len_utf8() => format!("{}…", &text[..end]),
        _ => text.to_owned(),
    }
}

/// One record of the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    /// Grows by one with each entry of this process, from 1.
    pub sequence: u64,
    /// The wall-clock time of the record.
    pub at: Timestamp,
    /// The task, registration and control plane of the record.
    pub subject: JournalSubject,
    /// The record.
    pub event: JournalEvent,
}

/// The subject of an entry, as far as it has the parts and they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalSubject {
    /// The `ControlPlane`'s name.
    pub control_plane: Option<Arc<str>>,
    /// The mesh; none at Consul, and none of resources of a zone.
    pub mesh: Option<Arc<str>>,
    /// The `MeshBinding`'s name.
    pub binding: Option<Arc<str>>,
    /// The task, and with it the cluster.
    pub task: Option<TaskArn>,
    /// The ECS service that started the task.
    pub ecs_service: Option<EcsServiceRef>,
    /// The service in the mesh.
    pub service: Option<Arc<str>>,
    /// The `Workload` that selects the task; the service's name where the task's tags describe it.
    pub workload: Option<Arc<str>>,
    /// The name of the registration, token or ACL object.
    pub name: Option<Arc<str>>,
    /// The task's role.
    pub role: Option<RoleArn>,
}

/// The record of an entry. Messages are for people and name what to do; reasons and causes are bounded labels.
#[derive(Clone, Debug, PartialEq)]
pub enum JournalEvent {
    /// A write of a registration, a token, an ACL object or a task's protection.
    Change(JournalChange),
    /// A condition of a task began or changed. A repetition is no entry.
    Warning(JournalWarning),
    /// A condition of the task is over.
    Resolved {
        /// The reason of its [`JournalEvent::Warning`], or `held_by_guard`.
        reason: &'static str,
    },
    /// The guard holds a removal or drain of the task; ends with [`JournalEvent::Resolved`] of `held_by_guard`.
    HeldByGuard(JournalHold),
    /// The control plane's version is not supported, so that nothing is written to it.
    Unsupported {
        /// Why.
        message: String,
    },
    /// The control plane is supported again.
    Supported,
}

/// A write, and how it ended.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalChange {
    /// The kind of object: `registration`, `protection`, `data_plane_token`, or a kind of ACL object such as `role` or `auth_method`.
    pub object: &'static str,
    /// The value of the log field `change`: `create`, `update`, `adopt`, `drain`, `remove`, `protect`, `unprotect`, or one of
    /// tokens.
    pub change: &'static str,
    /// Why it was made.
    pub cause: ChangeCause,
    /// The cause, for a person.
    pub message: String,
    /// The paths of the fields that an update changed, without values.
    pub fields: Vec<String>,
    /// How it ended.
    pub result: ChangeResult,
}

/// Why a change was made.
#[derive(Clone, Debug, PartialEq)]
pub enum ChangeCause {
    /// The manifests and the task ask for it.
    Declared,
    /// Another writer changed or removed what this process had seen exactly as declared.
    Drift,
    /// The evidence of a drain or removal.
    Evidence(Evidence),
    /// A deployment of the task's service.
    Deployment,
}

impl ChangeCause {
    /// A bounded label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Drift => "drift",
            Self::Evidence(evidence) => evidence.as_str(),
            Self::Deployment => "deployment",
        }
    }
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeResult {
    /// It took effect.
    Success,
    /// It took effect, and its response was lost.
    SuccessResponseLost,
    /// It failed, or its result is unknown.
    Error(String),
}

impl ChangeResult {
    /// The value of the log field `result`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::SuccessResponseLost => "success_response_lost",
            Self::Error(_) => "error",
        }
    }
}

/// A condition of a task that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalWarning {
    /// A bounded label: `rejected`, `name_conflict`, an error kind.
    pub reason: &'static str,
    /// Equal for all tasks with the same cause, whatever their roles and services are called.
    pub key: String,
    /// For a person; names the task's role or registration.
    pub message: String,
    /// The rules that a rejected task breaks: [`RoleRule::label`](ecs_mesh_core::intent::RoleRule::label).
    pub rules: Vec<&'static str>,
    /// The next step, where it is known.
    pub fix: Option<String>,
}

/// A removal or drain that the guard holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalHold {
    /// `drain` or `remove`.
    pub change: &'static str,
    /// [`Evidence::as_str`] of the held step.
    pub cause: &'static str,
    /// For a person.
    pub message: String,
    /// Registrations of the binding that were withdrawn in the last hour without a STOPPED of their own.
    pub admitted: usize,
    /// Registrations of the binding.
    pub owned: usize,
    /// How long until the step follows by itself if the manifests stay as they are; `None` if it does not.
    pub stable_in: Option<Duration>,
    /// The next step.
    pub fix: String,
}

/// Receives entries.
pub trait JournalSubscriber: Send + Sync {
    /// Takes an entry. Called in the order of the sequence numbers, while the journal is locked: an implementation copies the
    /// entry into a bounded place, and neither waits nor logs nor records.
    fn receive(&self, entry: &Arc<JournalEntry>);
}

/// Numbers entries and passes them to its subscribers.
pub struct Journal {
    clock: Clock,
    inner: Mutex<JournalState>,
    observed: AtomicBool,
}

#[derive(Default)]
struct JournalState {
    last: u64,
    subscribers: Vec<Arc<dyn JournalSubscriber>>,
}

impl Journal {
    /// A journal without subscribers.
    pub fn new(clock: Clock) -> Self {
        Self { clock, inner: Mutex::default(), observed: AtomicBool::new(false) }
    }

    /// Passes each later entry to the subscriber, for the life of the journal.
    pub fn subscribe(&self, subscriber: Arc<dyn JournalSubscriber>) {
        self.lock().subscribers.push(subscriber);
        self.observed.store(true, Ordering::Release);
    }

    /// Whether an entry would have a receiver. Without one, callers need not build it.
    pub fn is_observed(&self) -> bool {
        self.observed.load(Ordering::Acquire)
    }

    /// Records an entry; nothing where no subscriber would receive it.
    pub fn record(&self, entry: impl FnOnce() -> (JournalSubject, JournalEvent)) {
        if !self.is_observed() {
            return;
        }
        let (subject, event) = entry();
        let at = self.clock.wall();
        let mut state = self.lock();
        state.last += 1;
        let entry = Arc::new(JournalEntry { sequence: state.last, at, subject, event });
        state.subscribers.iter().for_each(|subscriber| subscriber.receive(&entry));
    }

    fn lock(&self) -> MutexGuard<'_, JournalState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_ends_with_an_ellipsis() {
        for (length, expected) in [(0, 0), (999, 999), (1_000, 1_000), (1_001, 1_000), (5_000, 1_000)] {
            let text = "ü".repeat(length);
            let short = shortened(&text);
            assert_eq!((short.chars().count(), short.ends_with('…')), (expected, length > 1_000), "{length}");
        }
    }

    #[derive(Default)]
    struct Sequence(Mutex<Vec<u64>>);

    impl JournalSubscriber for Sequence {
        fn receive(&self, entry: &Arc<JournalEntry>) {
            self.0.lock().unwrap().push(entry.sequence);
        }
    }

    #[test]
    fn subscribers_receive_entries_in_order_of_their_numbers() {
        let journal = Journal::new(Clock::system());
        journal.record(|| panic!("without a subscriber no entry is built"));
        let received = Arc::new(Sequence::default());
        journal.subscribe(Arc::clone(&received) as _);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        journal.record(|| (JournalSubject::default(), JournalEvent::Supported));
                    }
                });
            }
        });
        assert_eq!(*received.0.lock().unwrap(), (1..=400).collect::<Vec<u64>>());
    }
}
