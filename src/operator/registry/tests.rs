use super::*;
use ecs_mesh_model::MeshName;
use serde_json::json;

fn task() -> TaskArn {
    TaskArn::parse("arn:aws:ecs:eu-west-1:111122223333:task/c/1").unwrap()
}

fn id(mesh: &str) -> RegistrationId {
    RegistrationId { mesh: MeshName::parse(mesh).unwrap(), name: "1".into() }
}

fn listed(mesh: &str, drained: Option<DrainReason>, normal: &Value) -> (TaskArn, RegistrationSummary) {
    let (owner, content_hash) = (ecs_mesh_control_plane::RegistrationOwner::Foreign, ContentHash::of(normal));
    (
        task(),
        RegistrationSummary {
            id: id(mesh),
            owner,
            cluster_name: None,
            service: None,
            drained,
            ready: None,
            has_writer_mark: true,
            content_hash,
        },
    )
}

/// A complete list requested at `asked`.
fn replace(
    registry: &Registry,
    list: &[(TaskArn, RegistrationSummary)],
    requested: Timestamp,
    now: Timestamp,
) {
    list.iter().for_each(|(task, seen)| registry.record_listed(task, seen, requested, now));
    registry.finish_list(&[], requested);
}

#[test]
fn list_keeps_what_was_written_while_it_was_read() {
    let registry = Registry::default();
    registry.record_written(&task(), &id("default"), None, &json!({}), Timestamp(10));
    registry.finish_list(&[], Timestamp(5));
    assert!(registry.contains(&task()));
    registry.finish_list(&[], Timestamp(15));
    assert!(!registry.contains(&task()));
}

#[test]
fn partial_list_adds_without_forgetting() {
    let registry = Registry::default();
    registry.record_written(&task(), &id("default"), None, &json!({}), Timestamp(10));
    let (of, seen) = listed("other", None, &json!({}));
    registry.record_listed(&of, &seen, Timestamp(15), Timestamp(20));
    let ids =
        |registry: &Registry| registry.entries(&task()).into_iter().map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!(ids(&registry), [id("default"), id("other")]);
    // A clock that was set back makes no entry stale.
    registry.finish_list(&[], Timestamp(15));
    registry.record_listed(&of, &seen, Timestamp(25), Timestamp(5));
    registry.finish_list(&[], Timestamp(25));
    assert_eq!(ids(&registry), [id("other")]);
    // The next list is complete and lacks both.
    registry.finish_list(&[], Timestamp(30));
    assert_eq!(ids(&registry), []);
}

#[test]
fn list_does_not_undo_a_concurrent_write() {
    let registry = Registry::default();
    registry.record_written(
        &task(),
        &id("default"),
        Some(DrainReason::Stopping),
        &json!({"new": 1}),
        Timestamp(10),
    );
    let list = [listed("default", None, &json!({"old": 1})), listed("other", None, &json!({}))];
    replace(&registry, &list, Timestamp(5), Timestamp(20));
    let entries = registry.entries(&task());
    assert_eq!(entries[0].content_hash, Some(ContentHash::of(&json!({"new": 1}))));
    assert_eq!(entries[0].drained, Some((DrainReason::Stopping, Timestamp(10))));
    assert_eq!(entries[1].id, id("other"), "the rest of the list counts");
    replace(&registry, &list, Timestamp(15), Timestamp(20));
    assert_eq!(registry.entries(&task())[0].drained, None, "a later list is newer");
}

/// All registrations of a mesh.
#[derive(Debug)]
struct MeshSegment(&'static str);

impl std::fmt::Display for MeshSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl ecs_mesh_control_plane::ListSegment for MeshSegment {
    fn contains(&self, id: &RegistrationId) -> bool {
        id.mesh.as_str() == self.0
    }
}

fn failed(mesh: &'static str) -> FailedSegment {
    let kind = ecs_mesh_control_plane::MeshErrorKind::Forbidden;
    let error = ecs_mesh_control_plane::MeshError::new(kind, "");
    FailedSegment { segment: Arc::new(MeshSegment(mesh)), error }
}

#[test]
fn failed_segment_keeps_its_registrations() {
    let registry = Registry::default();
    for mesh in ["default", "other"] {
        registry.record_written(&task(), &id(mesh), None, &json!({}), Timestamp(10));
    }
    let ids = || registry.entries(&task()).into_iter().map(|entry| entry.id).collect::<Vec<_>>();
    registry.finish_list(&[failed("other")], Timestamp(15));
    assert_eq!(ids(), [id("other")]);
    registry.replace_task(&task(), &[], &[failed("other")], Timestamp(15), Timestamp(20));
    assert_eq!(ids(), [id("other")]);
    registry.replace_task(&task(), &[], &[], Timestamp(15), Timestamp(20));
    assert!(ids().is_empty());
}

#[test]
fn drain_is_dated_from_the_first_time_it_was_seen() {
    let registry = Registry::default();
    let list = [listed("default", Some(DrainReason::Revoked), &json!({}))];
    replace(&registry, &list, Timestamp(10), Timestamp(10));
    registry.record_written(&task(), &id("default"), Some(DrainReason::Revoked), &json!({}), Timestamp(20));
    assert_eq!(registry.entries(&task())[0].drained, Some((DrainReason::Revoked, Timestamp(10))));
}

#[test]
fn drain_with_another_reason_gets_a_new_date() {
    let registry = Registry::default();
    for (reason, at) in [(DrainReason::Revoked, 10), (DrainReason::Stopping, 20)] {
        registry.record_written(&task(), &id("default"), Some(reason), &json!({}), Timestamp(at));
    }
    assert_eq!(registry.entries(&task())[0].drained, Some((DrainReason::Stopping, Timestamp(20))));
}

#[test]
fn pending_write_has_no_content_hash() {
    let registry = Registry::default();
    registry.record_pending(&task(), &id("default"), "app", &"one".into(), Timestamp(10));
    let unconfirmed = OwnedCount { confirmed: 0, possible: 1 };
    assert_eq!((registry.entries(&task())[0].content_hash, registry.owned_by("one")), (None, unconfirmed));
    // A registration that is found again counts for the guard of its owning binding.
    registry.record_written(&task(), &id("default"), None, &json!({}), Timestamp(20));
    assert_eq!(registry.owned_by("one"), OwnedCount::confirmed(1));
    registry.forget(&task(), &id("default"));
    assert!(registry.tasks().is_empty());
    assert_eq!(registry.owned_by("one"), OwnedCount::default());
}

#[test]
fn owned_registrations_are_counted_per_binding() {
    let registry = Registry::default();
    registry.record_written(&task(), &id("a"), None, &json!({}), Timestamp(10));
    registry.record_written(&task(), &id("b"), Some(DrainReason::NotDesired), &json!({}), Timestamp(10));
    registry.assign_binding(&task(), &id("a"), Some(&"one".into()));
    registry.assign_binding(&task(), &id("b"), Some(&"one".into()));
    registry.assign_binding(&task(), &id("b"), Some(&"two".into()));
    let owned = || ["one", "two"].map(|binding| registry.owned_by(binding));
    assert_eq!((owned(), registry.counts()), ([OwnedCount::confirmed(1); 2], (1, 1)));
    registry.forget(&task(), &id("b"));
    assert_eq!(owned(), [1, 0].map(OwnedCount::confirmed));
}
