//! A live task that its role or the manifests no longer let in: what an edit of manifests brings about, only manifests
//! that are all valid bring about, and nobody calls it the role's tags.

use super::tests::{binding, broken, id, evaluation, known, situation, words};
use super::*;

/// Rejected for good by these rules.
fn for_good(violations: Vec<RoleViolation>) -> Evaluation {
    evaluation(Verdict::Reject { violations, confirmed: true }, "sync")
}

/// A token of a binding that withdraws what is revoked.
fn token() -> [KnownRegistration; 1] {
    let mut binding = Binding::clone(&binding("sync"));
    binding.spec.role_tags.on_revoked = Some(OnRevoked::Withdraw);
    [KnownRegistration { id: id("default/token/1"), drained: None, binding: Some(Arc::new(binding)) }]
}

/// What is done with a task's token and with a Dataplane.
fn follows(violations: Vec<RoleViolation>, manifests_complete: bool) -> [String; 2] {
    let (evaluation, token, dataplane) = (for_good(violations), token(), [known("default/a", "sync")]);
    let decided = |known: &[KnownRegistration], self_registered: bool| {
        let situation = situation(TaskLiveness::Live, Some(&evaluation), known);
        words(&decide(&DecisionInput { manifests_complete, self_registered, ..situation }))
    };
    [decided(&token, true), decided(&dataplane, false)]
}

/// The rules that an edit of manifests alone can break, for a task that goes on as it was.
fn by_an_edit() -> [RoleViolation; 7] {
    [
        broken(RoleRule::BoundPrincipals, Some("arn:aws:iam::111122223333:role/web")),
        broken(RoleRule::ConsulService, Some("web")),
        broken(RoleRule::NoTaskRole, None),
        broken(RoleRule::Account, Some("111122223333")),
        broken(RoleRule::Mesh, Some("default")),
        broken(RoleRule::Service, Some("web")),
        broken(RoleRule::Workload, Some("web")),
    ]
}

#[test]
fn incomplete_manifests_withdraw_nothing_from_live_task() {
    for violation in by_an_edit() {
        assert_eq!(follows(vec![violation.clone()], false), ["nothing"; 2], "{violation:?}");
    }
}

#[test]
fn complete_manifests_withdraw_on_edit() {
    for violation in by_an_edit() {
        let expected = [
            "remove (manifests) default/token/1, guarded",
            "drain unwanted (manifests) default/a, guarded; again in 5s",
        ];
        assert_eq!(follows(vec![violation.clone()], true), expected, "{violation:?}");
    }
}

#[test]
fn wrong_tags_withdraw_despite_incomplete_manifests() {
    for violation in [
        broken(RoleRule::ConsulService, None),
        broken(RoleRule::ConsulService, Some("")),
        broken(RoleRule::ConsulGateway, Some("ingress")),
        broken(RoleRule::Type, Some("ingress")),
        broken(RoleRule::Mesh, None),
        broken(RoleRule::RoleNotFound, None),
    ] {
        let bound = broken(RoleRule::BoundPrincipals, Some("arn:aws:iam::111122223333:role/web"));
        for (violations, complete) in [(vec![violation.clone()], false), (vec![bound, violation], true)] {
            let expected = [
                "remove (role_tags) default/token/1, guarded",
                "drain revoked (role_tags) default/a, guarded; again in 5s",
            ];
            assert_eq!(follows(violations, complete), expected);
        }
    }
}

#[test]
fn what_the_manifests_brought_about_is_not_said_of_the_tags() {
    let bound = broken(RoleRule::BoundPrincipals, Some("arn:aws:iam::111122223333:role/web"));
    let (evaluation, token) = (for_good(vec![bound]), token());
    let situation =
        DecisionInput { self_registered: true, ..situation(TaskLiveness::Live, Some(&evaluation), &token) };
    let Action::Remove(evidence) = &decide(&situation).steps[0].action else { panic!("no removal") };
    assert_eq!(evidence.to_string(), "the manifests do not let its role in: bound_principals");
}
