use super::*;
use ecs_mesh_model::MeshName;
use serde_json::json;

fn task() -> TaskArn {
    TaskArn::parse("arn:aws:ecs:eu-west-1:111122223333:task/c/1").unwrap()
}

fn id(mesh: &str) -> RegistrationId {
    RegistrationId { mesh: MeshName::parse(mesh).unwrap(), name: "1".into() }
}

fn listed(mesh: &str, drained: Option<DrainReason>, normal: &Value) -> (TaskArn, Sighting) {
    let (owner, fingerprint) = (ecs_mesh_control_plane::Owner::Foreign, Fingerprint::of(normal));
    (task(), Sighting { id: id(mesh), owner, service: None, drained, fingerprint })
}

/// A whole list that was asked for at `asked`.
fn replace(registry: &Registry, list: &[(TaskArn, Sighting)], asked: Timestamp, now: Timestamp) {
    list.iter().for_each(|(task, seen)| registry.listed(task, seen, asked, now));
    registry.end_list(&[], asked);
}

#[test]
fn a_list_does_not_forget_what_was_written_while_it_was_read() {
    let registry = Registry::default();
    registry.wrote(&task(), &id("default"), None, &json!({}), Timestamp(10));
    registry.end_list(&[], Timestamp(5));
    assert!(registry.has(&task()));
    registry.end_list(&[], Timestamp(15));
    assert!(!registry.has(&task()));
}

#[test]
fn a_list_that_broke_off_adds_what_it_showed_and_forgets_nothing() {
    let registry = Registry::default();
    registry.wrote(&task(), &id("default"), None, &json!({}), Timestamp(10));
    let (of, seen) = listed("other", None, &json!({}));
    registry.listed(&of, &seen, Timestamp(15), Timestamp(20));
    let ids =
        |registry: &Registry| registry.of(&task()).into_iter().map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!(ids(&registry), [id("default"), id("other")]);
    // A clock that was set back meanwhile makes nothing old.
    registry.end_list(&[], Timestamp(15));
    registry.listed(&of, &seen, Timestamp(25), Timestamp(5));
    registry.end_list(&[], Timestamp(25));
    assert_eq!(ids(&registry), [id("other")]);
    // The next one is whole, and lacks both.
    registry.end_list(&[], Timestamp(30));
    assert_eq!(ids(&registry), []);
}

#[test]
fn a_list_does_not_undo_what_was_written_while_it_was_read() {
    let registry = Registry::default();
    registry.wrote(&task(), &id("default"), Some(DrainReason::Stopping), &json!({"new": 1}), Timestamp(10));
    let list = [listed("default", None, &json!({"old": 1})), listed("other", None, &json!({}))];
    replace(&registry, &list, Timestamp(5), Timestamp(20));
    let entries = registry.of(&task());
    assert_eq!(entries[0].fingerprint, Some(Fingerprint::of(&json!({"new": 1}))));
    assert_eq!(entries[0].drained, Some((DrainReason::Stopping, Timestamp(10))));
    assert_eq!(entries[1].id, id("other"), "the rest of the list counts");
    replace(&registry, &list, Timestamp(15), Timestamp(20));
    assert_eq!(registry.of(&task())[0].drained, None, "a later list is newer");
}

/// All of a mesh.
#[derive(Debug)]
struct OfMesh(&'static str);

impl std::fmt::Display for OfMesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl ecs_mesh_control_plane::Part for OfMesh {
    fn holds(&self, id: &RegistrationId) -> bool {
        id.mesh.as_str() == self.0
    }
}

fn failed(mesh: &'static str) -> FailedPart {
    let kind = ecs_mesh_control_plane::MeshErrorKind::Forbidden;
    let error = ecs_mesh_control_plane::MeshError { kind, message: String::new(), retry_after: None };
    FailedPart { part: Arc::new(OfMesh(mesh)), error }
}

#[test]
fn a_part_that_failed_is_not_forgotten_and_the_rest_of_the_list_counts() {
    let registry = Registry::default();
    for mesh in ["default", "other"] {
        registry.wrote(&task(), &id(mesh), None, &json!({}), Timestamp(10));
    }
    let ids = || registry.of(&task()).into_iter().map(|entry| entry.id).collect::<Vec<_>>();
    registry.end_list(&[failed("other")], Timestamp(15));
    assert_eq!(ids(), [id("other")]);
    registry.replace_of(&task(), &[], &[failed("other")], Timestamp(15), Timestamp(20));
    assert_eq!(ids(), [id("other")]);
    registry.replace_of(&task(), &[], &[], Timestamp(15), Timestamp(20));
    assert!(ids().is_empty());
}

#[test]
fn a_drain_is_dated_from_its_first_sight() {
    let registry = Registry::default();
    let list = [listed("default", Some(DrainReason::Revoked), &json!({}))];
    replace(&registry, &list, Timestamp(10), Timestamp(10));
    registry.wrote(&task(), &id("default"), Some(DrainReason::Revoked), &json!({}), Timestamp(20));
    assert_eq!(registry.of(&task())[0].drained, Some((DrainReason::Revoked, Timestamp(10))));
}

#[test]
fn another_reason_to_drain_is_another_drain() {
    let registry = Registry::default();
    for (reason, at) in [(DrainReason::Revoked, 10), (DrainReason::Stopping, 20)] {
        registry.wrote(&task(), &id("default"), Some(reason), &json!({}), Timestamp(at));
    }
    assert_eq!(registry.of(&task())[0].drained, Some((DrainReason::Stopping, Timestamp(20))));
}

#[test]
fn a_write_whose_answer_may_be_lost_is_remembered_without_a_fingerprint() {
    let registry = Registry::default();
    registry.expect(&task(), &id("default"), "app", &"one".into(), Timestamp(10));
    let unconfirmed = OwnedCount { confirmed: 0, possible: 1 };
    assert_eq!((registry.of(&task())[0].fingerprint, registry.owned_by("one")), (None, unconfirmed));
    // Found again, it counts for the guard of the binding that made it.
    registry.wrote(&task(), &id("default"), None, &json!({}), Timestamp(20));
    assert_eq!(registry.owned_by("one"), OwnedCount::confirmed(1));
    registry.forget(&task(), &id("default"));
    assert!(registry.tasks().is_empty());
    assert_eq!(registry.owned_by("one"), OwnedCount::default());
}

#[test]
fn what_is_owned_is_counted_by_the_binding_that_takes_care_of_it() {
    let registry = Registry::default();
    registry.wrote(&task(), &id("a"), None, &json!({}), Timestamp(10));
    registry.wrote(&task(), &id("b"), Some(DrainReason::Unwanted), &json!({}), Timestamp(10));
    registry.assign(&task(), &id("a"), Some(&"one".into()));
    registry.assign(&task(), &id("b"), Some(&"one".into()));
    registry.assign(&task(), &id("b"), Some(&"two".into()));
    let owned = || ["one", "two"].map(|binding| registry.owned_by(binding));
    assert_eq!((owned(), registry.counts()), ([OwnedCount::confirmed(1); 2], (1, 1)));
    registry.forget(&task(), &id("b"));
    assert_eq!(owned(), [1, 0].map(OwnedCount::confirmed));
}
