//! The mark of the writing process in Dataplanes and zone proxies: the label `ecs-mesh.dev/process`, which no comparison looks
//! at. A registration from before this process listed everything is from a predecessor, by the server's own times: a list may
//! skip items.

use std::sync::Arc;

use serde_json::Value;
use tokio::time::Instant;

use super::labels::{PROCESS_LABEL, label};
use ecs_mesh_control_plane::{Registration, RegistrationOwner, WriterId, WriterLog, WrittenObject};
use ecs_mesh_controller::LeaseTerm;
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::{OperatorId, Timestamp};

/// The writer of each registration.
pub(super) struct RegistrationWriters(WriterLog<RegistrationId, Timestamp>);

impl RegistrationWriters {
    pub(super) fn of(own: Option<WriterId>) -> Self {
        Self(WriterLog::of(own))
    }

    /// Adds this process's label to a body.
    pub(super) fn label(&self, body: &mut Value) {
        if let Some(own) = self.0.own()
            && let Some(labels) = body.get_mut("labels").and_then(Value::as_object_mut)
        {
            labels.insert(PROCESS_LABEL.to_owned(), own.as_str().into());
        }
    }

    /// Takes note of a registration as the server shows it, in this term of the lease.
    pub(super) fn observe(&self, operator: &OperatorId, term: &LeaseTerm, shown: &Registration) {
        let RegistrationOwner::Owned(labels) = &shown.owner else { return };
        if labels.operator == *operator {
            let writer = label(&shown.stored, PROCESS_LABEL);
            let (created, modified) = (shown.created_at, modified_at(shown));
            self.0.observe(term, WrittenObject { key: shown.id.clone(), writer, created, modified });
        }
    }

    /// A complete list that began then, in this term of the lease, has ended.
    pub(super) fn end_list(&self, began: Instant, term: &LeaseTerm) {
        self.0.end_list(began, term);
    }

    /// The other process whose write was seen last, if that was not long ago.
    pub(super) fn foreign(&self) -> Option<Arc<str>> {
        self.0.foreign()
    }
}

fn modified_at(shown: &Registration) -> Option<Timestamp> {
    Timestamp::parse(shown.stored.get("modificationTime")?.as_str()?)
}

#[cfg(test)]
mod tests {
    use ecs_mesh_control_plane::FOREIGN_WRITER_WINDOW;
    use serde_json::json;

    use super::super::dataplane;
    use super::*;

    const LEADS: LeaseTerm = LeaseTerm::Unlimited;
    const STANDS_BY: LeaseTerm = LeaseTerm::NotHeld;

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

    fn log() -> (RegistrationWriters, String, OperatorId) {
        let own = WriterId::generate();
        (RegistrationWriters::of(Some(own.clone())), own.to_string(), OperatorId::parse("op").unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn predecessor_is_no_foreign_writer() {
        let (log, own, operator) = log();
        let began = Instant::now();
        log.observe(&operator, &LEADS, &written_by("a", Some("predecessor")));
        log.end_list(began, &LEADS);
        // The list has skipped `c`.
        let skipped = written_by("c", Some("predecessor"));
        for shown in [written_by("a", Some(&own)), written_at("2026-11-30T01:00:00Z", "b", None), skipped] {
            log.observe(&operator, &LEADS, &shown);
            assert_eq!(log.foreign(), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn write_after_the_first_list_is_noticed_for_a_while() {
        for (name, before) in [("a", Some(Some("predecessor"))), ("b", None), ("c", Some(None))] {
            let (log, _, operator) = log();
            let began = Instant::now();
            before.into_iter().for_each(|before| log.observe(&operator, &LEADS, &written_by(name, before)));
            log.end_list(began, &LEADS);
            log.observe(&operator, &LEADS, &written_at("2026-11-30T01:00:00Z", name, Some("other")));
            assert_eq!(log.foreign().as_deref(), Some("other"), "{name}");
            tokio::time::advance(FOREIGN_WRITER_WINDOW).await;
            assert_eq!(log.foreign(), None, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn leader_before_is_no_foreign_writer() {
        let (log, _, operator) = log();
        let began = Instant::now();
        log.observe(&operator, &STANDS_BY, &written_by("a", Some("leader")));
        log.end_list(began, &STANDS_BY);
        // As a standby, and in the first list of the own term.
        log.observe(&operator, &STANDS_BY, &written_by("a", Some("leader 2")));
        let began = Instant::now();
        log.observe(&operator, &LEADS, &written_by("b", Some("leader 2")));
        log.end_list(began, &LEADS);
        assert_eq!(log.foreign(), None);
        log.observe(&operator, &LEADS, &written_by("b", Some("leader 3")));
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
