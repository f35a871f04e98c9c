//! Notices another process that writes with the same operator id, by a mark of the writing process in each object.
//!
//! No comparison looks at the mark, so nothing is written because of it. An object that another process has written since this
//! one listed them all shows that both run at once. Marks in the first list are from a predecessor.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ecs_mesh_controller::LeaseTerm;
use tokio::time::Instant;

/// How long another process counts as running after its last write that was seen: longer than the default time between two
/// sweeps.
pub const FOREIGN_WRITER_WINDOW: Duration = Duration::from_mins(15);

/// One process that writes: another one at each start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterId(Arc<str>);

impl WriterId {
    /// A new identity.
    pub fn generate() -> Self {
        Self(format!("{:016x}", fastrand::u64(..)).into())
    }

    /// The mark.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An owned object as a list or a read shows it.
#[derive(Clone, Debug)]
pub struct WrittenObject<'w, K, T> {
    /// Its identity.
    pub key: K,
    /// The process that has written it last; `None` without a mark.
    pub writer: Option<&'w str>,
    /// When it was created. `T` is the server's own time or, where lists skip nothing, the number of the list.
    pub created: Option<T>,
    /// When it was changed last.
    pub modified: Option<T>,
}

/// The writer of each owned object.
pub struct WriterLog<K, T> {
    /// `None` where nothing is written.
    own: Option<WriterId>,
    seen: Mutex<SeenWriters<K, T>>,
}

struct SeenWriters<K, T> {
    /// The writer of each object, and when the object was seen last.
    by_object: BTreeMap<K, (Option<Arc<str>>, Instant)>,
    /// The term in which all objects were listed; the leader of a later one may not know what was written in between.
    baseline: Option<LeaseTerm>,
    /// The last time at which anything was written that was seen before the baseline.
    newest: Option<T>,
    foreign: Option<(Arc<str>, Instant)>,
}

impl<K: Ord + fmt::Display, T: Ord + Copy> WriterLog<K, T> {
    /// The log of this process. `None`: it writes nothing, and notices nothing.
    pub fn of(own: Option<WriterId>) -> Self {
        let seen = SeenWriters { by_object: BTreeMap::new(), baseline: None, newest: None, foreign: None };
        Self { own, seen: Mutex::new(seen) }
    }

    /// This process, where it writes.
    pub fn own(&self) -> Option<&WriterId> {
        self.own.as_ref()
    }

    fn lock(&self) -> MutexGuard<'_, SeenWriters<K, T>> {
        // Every change leaves it consistent, so the lock may be used after a panic.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of an object that this operator owns, in this term of the lease.
    pub fn observe(&self, term: &LeaseTerm, shown: WrittenObject<'_, K, T>) {
        let Some(own) = &self.own else { return };
        let WrittenObject { key, writer, created, modified } = shown;
        let now = Instant::now();
        let mut seen = self.lock();
        let before = seen.by_object.get(&key).map(|(writer, _)| writer.clone());
        let is_known_before = before.is_some();
        let is_same = before.as_ref().is_some_and(|before| before.as_deref() == writer);
        let writer: Option<Arc<str>> = match before {
            Some(before) if is_same => before,
            _ => writer.map(Into::into),
        };
        let is_new = is_known_before || created > seen.newest;
        // Between two terms of this process, another one leads and writes.
        let has_ended = |term: &LeaseTerm| term.left() == Duration::ZERO;
        if has_ended(term) || seen.baseline.as_ref().is_some_and(has_ended) {
            seen.baseline = None;
        }
        if seen.baseline.is_none() {
            seen.newest = seen.newest.max(created).max(modified);
        } else if let Some(writer) = writer.clone().filter(|writer| is_new && !is_same && **writer != *own.0)
        {
            let is_reported =
                seen.foreign.as_ref().is_some_and(|(_, at)| at.elapsed() < FOREIGN_WRITER_WINDOW);
            if !is_reported {
                let fix = "stop one of the two, or give both a lease (run --lease)";
                tracing::warn!(name = %key, %writer, %own, fix, "another process writes with this operator id");
            }
            seen.foreign = Some((writer, now));
        }
        seen.by_object.insert(key, (writer, now));
    }

    /// A complete list that began then, in this term of the lease, has ended.
    pub fn end_list(&self, began: Instant, term: &LeaseTerm) {
        let mut seen = self.lock();
        seen.by_object.retain(|_, (_, at)| *at >= began);
        seen.baseline = (self.own.is_some() && term.left() > Duration::ZERO).then(|| term.clone());
    }

    /// The other process whose write was seen last, if that was not long ago.
    pub fn foreign(&self) -> Option<Arc<str>> {
        let seen = self.lock();
        let recent = seen.foreign.as_ref().filter(|(_, at)| at.elapsed() < FOREIGN_WRITER_WINDOW);
        recent.map(|(writer, _)| Arc::clone(writer))
    }
}
