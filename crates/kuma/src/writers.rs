//! Notices another process that writes with the same operator id.
//!
//! Each write carries a label with the process that made it, which no comparison looks at, so nothing is written
//! because of it. A registration that another process has written since this one listed them all shows that both run at
//! once. An id that was there before is from a predecessor, by the server's own times: a list may skip items.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::labels::{PROCESS_LABEL, label};
use ecs_mesh_control_plane::{Registration, RegistrationOwner};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::{OperatorId, Timestamp};

/// How long another process counts as running after its last write that was seen: longer than the default time between two
/// sweeps.
const FOREIGN_WRITER_WINDOW: Duration = Duration::from_mins(15);

/// One process that writes: another one at each start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterId(Arc<str>);

impl WriterId {
    /// A new identity.
    pub fn generate() -> Self {
        Self(format!("{:016x}", fastrand::u64(..)).into())
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The writer of each registration.
#[derive(Default)]
pub(super) struct WriterLog {
    /// `None` where nothing is written.
    own: Option<WriterId>,
    seen: Mutex<SeenWriters>,
}

#[derive(Default)]
struct SeenWriters {
    /// The writer of each registration, and when the registration was seen last.
    by_registration: BTreeMap<RegistrationId, (Option<Arc<str>>, Instant)>,
    /// Whether all registrations were listed since this process leads.
    has_baseline: bool,
    /// The last time of the server at which anything was written that was seen before.
    newest: Option<Timestamp>,
    foreign: Option<(Arc<str>, Instant)>,
}

impl WriterLog {
    pub(super) fn of(own: Option<WriterId>) -> Self {
        Self { own, ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, SeenWriters> {
        // Every change leaves it consistent, so the lock may be used after a panic.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds this process's label to a body.
    pub(super) fn label(&self, body: &mut Value) {
        if let Some(own) = &self.own
            && let Some(labels) = body.get_mut("labels").and_then(Value::as_object_mut)
        {
            labels.insert(PROCESS_LABEL.to_owned(), own.0.as_ref().into());
        }
    }

    /// Takes note of a registration as the server shows it. `leads`: whether this process may write.
    pub(super) fn observe(&self, operator: &OperatorId, leads: bool, shown: &Registration) {
        let Some(own) = &self.own else { return };
        let RegistrationOwner::Owned(labels) = &shown.owner else { return };
        if labels.operator != *operator {
            return;
        }
        let (now, writer) = (Instant::now(), label(&shown.stored, PROCESS_LABEL));
        let mut seen = self.lock();
        if !leads {
            // The leader writes. Its last writes are known after the first list of the own term.
            seen.has_baseline = false;
        }
        let before = seen.by_registration.get(&shown.id).map(|(writer, _)| writer.clone());
        let is_known_before = before.is_some();
        let is_same = before.as_ref().is_some_and(|before| before.as_deref() == writer);
        let writer: Option<Arc<str>> = match before {
            Some(before) if is_same => before,
            _ => writer.map(Into::into),
        };
        let is_new = is_known_before || shown.created_at > seen.newest;
        if !seen.has_baseline {
            seen.newest = seen.newest.max(shown.created_at).max(modified_at(shown));
        } else if let Some(writer) = writer.clone().filter(|writer| is_new && !is_same && *writer != own.0) {
            let is_reported =
                seen.foreign.as_ref().is_some_and(|(_, at)| at.elapsed() < FOREIGN_WRITER_WINDOW);
            if !is_reported {
                tracing::warn!(registration = %shown.id, %writer, own = %own, "another process writes with this operator id");
            }
            seen.foreign = Some((writer, now));
        }
        seen.by_registration.insert(shown.id.clone(), (writer, now));
    }

    /// A complete list that began then has ended. `leads`: whether this process may write, and could when it began.
    pub(super) fn end_list(&self, began: Instant, leads: bool) {
        let mut seen = self.lock();
        seen.by_registration.retain(|_, (_, at)| *at >= began);
        seen.has_baseline = leads && self.own.is_some();
    }

    /// The other process whose write was seen last, if that was not long ago.
    pub(super) fn foreign(&self) -> Option<Arc<str>> {
        let seen = self.lock();
        let recent = seen.foreign.as_ref().filter(|(_, at)| at.elapsed() < FOREIGN_WRITER_WINDOW);
        recent.map(|(writer, _)| Arc::clone(writer))
    }
}

fn modified_at(shown: &Registration) -> Option<Timestamp> {
    Timestamp::parse(shown.stored.get("modificationTime")?.as_str()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::dataplane;
    use super::*;

    fn written_by(name: &str, writer: Option<&str>) -> Registration {
        written_at("2026-11-30T00:00:00Z", name, writer)
    }

    fn written_at(time: &str, name: &str, writer: Option<&str>) -> Registration {
        let mut labels = json!({
            "ecs-mesh.dev/operator": "op", "ecs-mesh.dev/cluster-id": "0123456789abcdef",
            "ecs-mesh.dev/task-id": "0123456789abcdef0123456789abcdef"
        });
        if let Some(writer) = writer {
            labels[PROCESS_LABEL] = writer.into();
        }
        let stored = json!({
            "type": "Dataplane", "mesh": "default", "name": name, "labels": labels, "creationTime": time,
            "modificationTime": time
        });
        dataplane::registration(stored).unwrap()
    }

    fn log() -> (WriterLog, String, OperatorId) {
        let own = WriterId::generate();
        (WriterLog::of(Some(own.clone())), own.to_string(), OperatorId::parse("op").unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn predecessor_is_no_foreign_writer() {
        let (log, own, operator) = log();
        let began = Instant::now();
        log.observe(&operator, true, &written_by("a", Some("predecessor")));
        log.end_list(began, true);
        // The list has skipped `c`.
        let skipped = written_by("c", Some("predecessor"));
        for shown in [written_by("a", Some(&own)), written_at("2026-11-30T01:00:00Z", "b", None), skipped] {
            log.observe(&operator, true, &shown);
            assert_eq!(log.foreign(), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn write_after_the_first_list_is_noticed_for_a_while() {
        for (name, before) in [("a", Some(Some("predecessor"))), ("b", None), ("c", Some(None))] {
            let (log, _, operator) = log();
            let began = Instant::now();
            before.into_iter().for_each(|before| log.observe(&operator, true, &written_by(name, before)));
            log.end_list(began, true);
            log.observe(&operator, true, &written_at("2026-11-30T01:00:00Z", name, Some("other")));
            assert_eq!(log.foreign().as_deref(), Some("other"), "{name}");
            tokio::time::advance(FOREIGN_WRITER_WINDOW).await;
            assert_eq!(log.foreign(), None, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn leader_before_is_no_foreign_writer() {
        let (log, _, operator) = log();
        let began = Instant::now();
        log.observe(&operator, false, &written_by("a", Some("leader")));
        log.end_list(began, false);
        // As a standby, and in the first list of the own term.
        log.observe(&operator, false, &written_by("a", Some("leader 2")));
        let began = Instant::now();
        log.observe(&operator, true, &written_by("b", Some("leader 2")));
        log.end_list(began, true);
        assert_eq!(log.foreign(), None);
        log.observe(&operator, true, &written_by("b", Some("leader 3")));
        assert_eq!(log.foreign().as_deref(), Some("leader 3"));
    }

    #[test]
    fn label_is_written_and_not_compared() {
        let (log, own, _) = log();
        let plain = written_by("a", None);
        let mut body = plain.stored.clone();
        log.label(&mut body);
        assert_eq!(label(&body, PROCESS_LABEL), Some(own.as_str()));
        assert_eq!(dataplane::registration(body).unwrap().normal, plain.normal);
    }
}
