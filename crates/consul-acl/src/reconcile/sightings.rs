//! Other processes, as far as the snapshots of one process show them: one that writes with the same operator id, and one with the
//! operator's previous id that still runs.
//!
//! Lists of ACL objects are complete, so an object that the list before did not have was written in between. A secondary
//! datacenter shows policies and roles only after they were replicated: they prove nothing there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::time::Instant;

use crate::desired::{DatacenterRole, ExistingObject, ObjectScope, OperatorIds, is_ours, writer};
use crate::plan::ActualObjects;
use ecs_mesh_control_plane::{WriterId, WriterLog, WrittenObject};
use ecs_mesh_controller::LeaseTerm;
use ecs_mesh_core::plan::report::ObjectKind;

/// A list: all objects of a kind in a scope.
type ListId = (ObjectKind, ObjectScope);

/// A snapshot that was read.
pub(super) struct SnapshotSeen<'s> {
    pub(super) actual: &'s ActualObjects,
    pub(super) datacenter: &'s DatacenterRole,
    /// When the read began, and in which term of the lease.
    pub(super) began: Instant,
    pub(super) term: &'s LeaseTerm,
}

/// Objects and writers that were seen since this process began.
pub(super) struct AclSightings {
    operators: OperatorIds,
    /// Times are the numbers of snapshots.
    writers: WriterLog<ExistingObject, u64>,
    inner: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    snapshots: u64,
    /// The lists that the last snapshot had.
    listed: BTreeSet<ListId>,
    /// The lists that any snapshot had.
    ever_listed: BTreeSet<ListId>,
    /// Objects of the previous id that were there when this process began.
    inherited: BTreeSet<ExistingObject>,
    /// Objects of the previous id that were created since.
    left: BTreeSet<ExistingObject>,
}

impl AclSightings {
    pub(super) fn new(operators: OperatorIds, writer: Option<WriterId>) -> Self {
        Self { operators, writers: WriterLog::of(writer), inner: Mutex::default() }
    }

    /// The other process whose write was seen last, if that was not long ago.
    pub(super) fn foreign_writer(&self) -> Option<Arc<str>> {
        self.writers.foreign()
    }

    /// Takes note of a snapshot. Returns the ids whose objects in it are owned.
    pub(super) fn observe(&self, seen: &SnapshotSeen<'_>) -> OperatorIds {
        // Every change leaves it consistent, so the lock may be used after a panic.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.snapshots += 1;
        let listed: BTreeSet<ListId> = seen.actual.listed_kinds().collect();
        for (kind, scope, body) in seen.actual.all().filter(|(kind, ..)| shows_writes(*kind, seen.datacenter))
        {
            let list = (kind, scope.clone());
            if self.operators.is_of_previous(kind, body) {
                inner.inherit(&list, ExistingObject::of(kind, body));
            } else if is_ours(kind, body, &self.operators) {
                self.observe_writer(&inner, &list, body, seen.term);
            }
        }
        if !listed.is_empty() {
            self.writers.end_list(seen.began, seen.term);
        }
        inner.ever_listed.extend(listed.iter().cloned());
        inner.listed = listed;
        self.operators.clone().without(inner.left.clone())
    }

    fn observe_writer(&self, inner: &Seen, list: &ListId, body: &Value, term: &LeaseTerm) {
        // Objects of a list that the snapshot before did not have may be from then.
        let created = inner.listed.contains(list).then_some(inner.snapshots);
        let (key, writer) = (ExistingObject::of(list.0, body), writer(list.0, body));
        let shown = WrittenObject { key, writer, created, modified: None };
        self.writers.observe(term, shown);
    }
}

impl Seen {
    fn inherit(&mut self, list: &ListId, object: ExistingObject) {
        if self.inherited.contains(&object) || self.left.contains(&object) {
            return;
        }
        if !self.ever_listed.contains(list) {
            self.inherited.insert(object);
            return;
        }
        if self.left.is_empty() {
            let help = "stop the operator with the previous id; its new registrations are left to it";
            tracing::error!(name = %object, help, "the previous operator still runs");
        }
        self.left.insert(object);
    }
}

/// Whether the datacenter shows objects of the kind as soon as they are written.
fn shows_writes(kind: ObjectKind, datacenter: &DatacenterRole) -> bool {
    *datacenter == DatacenterRole::Primary || !matches!(kind, ObjectKind::Policy | ObjectKind::Role)
}

#[cfg(test)]
mod tests {
    use ecs_mesh_model::OperatorId;
    use serde_json::json;

    use super::*;
    use crate::desired::{sign, with_mark};

    const LEADS: LeaseTerm = LeaseTerm::Unlimited;
    const STANDS_BY: LeaseTerm = LeaseTerm::NotHeld;

    fn operators() -> OperatorIds {
        let [current, previous] = ["op", "op-1"].map(|id| OperatorId::parse(id).unwrap());
        OperatorIds::new(current).with_previous(Some(previous))
    }

    /// The sightings of this process.
    fn sightings(own: &WriterId) -> AclSightings {
        AclSightings::new(operators(), Some(own.clone()))
    }

    fn of(owner: &str, name: &str, writer: Option<&WriterId>) -> Value {
        let mark = with_mark("text", &OperatorId::parse(owner).unwrap());
        let mut body = json!({ "Name": name, "Description": mark });
        if let Some(writer) = writer {
            sign(ObjectKind::Role, &mut body, writer);
        }
        body
    }

    fn role(name: &str, writer: Option<&WriterId>) -> Value {
        of("op", name, writer)
    }

    fn show(
        sightings: &AclSightings,
        term: &LeaseTerm,
        datacenter: &DatacenterRole,
        lists: &[(ObjectKind, Vec<Value>)],
    ) -> OperatorIds {
        let mut actual = ActualObjects::default();
        for (kind, bodies) in lists {
            actual.set_listed(*kind, ObjectScope::default(), bodies.clone());
        }
        sightings.observe(&SnapshotSeen { actual: &actual, datacenter, began: Instant::now(), term })
    }

    fn roles(sightings: &AclSightings, bodies: &[Value]) -> OperatorIds {
        show(sightings, &LEADS, &DatacenterRole::Primary, &[(ObjectKind::Role, bodies.to_vec())])
    }

    #[tokio::test(start_paused = true)]
    async fn write_of_another_process_is_noticed() {
        let [own, before, other] = std::array::from_fn(|_| WriterId::generate());
        for changed in [role("a", Some(&other)), role("new", Some(&other))] {
            let seen = sightings(&own);
            roles(&seen, &[role("a", Some(&before)), role("b", None)]);
            roles(&seen, &[role("a", Some(&own)), role("b", Some(&own)), role("c", None)]);
            assert_eq!(seen.foreign_writer(), None, "a predecessor");
            roles(&seen, &[changed]);
            assert_eq!(seen.foreign_writer().as_deref(), Some(other.as_str()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn object_of_a_list_that_was_missing_proves_nothing() {
        let [own, before] = std::array::from_fn(|_| WriterId::generate());
        let seen = sightings(&own);
        let (known, late) = (vec![role("a", Some(&own))], vec![role("p", Some(&before))]);
        let lists = [(ObjectKind::Role, known.clone()), (ObjectKind::AuthMethod, late)];
        show(&seen, &LEADS, &DatacenterRole::Primary, &lists[..1]);
        show(&seen, &LEADS, &DatacenterRole::Primary, &lists);
        // Not listed once, and then again.
        show(&seen, &LEADS, &DatacenterRole::Primary, &lists[1..]);
        show(&seen, &LEADS, &DatacenterRole::Primary, &lists);
        assert_eq!(seen.foreign_writer(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn leader_in_between_is_no_foreign_writer() {
        let [own, leader] = std::array::from_fn(|_| WriterId::generate());
        let seen = sightings(&own);
        let list = |writer| [(ObjectKind::Role, vec![role("a", Some(writer)), role("b", Some(writer))])];
        show(&seen, &LEADS, &DatacenterRole::Primary, &list(&own)[..]);
        show(&seen, &STANDS_BY, &DatacenterRole::Primary, &list(&leader)[..]);
        show(&seen, &LEADS, &DatacenterRole::Primary, &list(&leader)[..]);
        assert_eq!(seen.foreign_writer(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn replicated_object_proves_nothing() {
        let [own, before] = std::array::from_fn(|_| WriterId::generate());
        let seen = sightings(&own);
        for bodies in [vec![], vec![role("a", Some(&before)), of("op-1", "b", None)]] {
            let ids = show(&seen, &LEADS, &DatacenterRole::Secondary, &[(ObjectKind::Role, bodies.clone())]);
            assert!(bodies.iter().all(|body| is_ours(ObjectKind::Role, body, &ids)));
        }
        assert_eq!(seen.foreign_writer(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn new_object_of_the_previous_id_is_left() {
        let seen = sightings(&WriterId::generate());
        let [old, new] = ["old", "new"].map(|name| of("op-1", name, None));
        let ids = roles(&seen, std::slice::from_ref(&old));
        assert!(is_ours(ObjectKind::Role, &old, &ids));
        let ids = roles(&seen, &[old.clone(), new.clone()]);
        assert!(is_ours(ObjectKind::Role, &old, &ids) && !is_ours(ObjectKind::Role, &new, &ids));
    }
}
