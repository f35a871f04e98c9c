//! Live tasks that their role or the manifests no longer allow. Violations that an edit of manifests can cause withdraw
//! under complete manifests alone, and their evidence is the manifests.

use super::tests::{binding, evaluation, input, known, violation, words};
use super::*;

/// A confirmed rejection by these rules.
fn confirmed_reject(violations: Vec<RoleViolation>) -> Evaluation {
    evaluation(Verdict::Reject { violations, confirmed: true, id: None }, "sync")
}

/// A token of a binding with `onRevoked: withdraw`.
fn token() -> [KnownRegistration; 1] {
    let mut binding = Binding::clone(&binding("sync"));
    binding.spec.role_tags.on_revoked = Some(OnRevoked::Withdraw);
    [KnownRegistration { binding: Some(Arc::new(binding)), ..known("default/token/1", "sync") }]
}

/// The decisions on a task's token and on a Dataplane.
fn decisions(violations: Vec<RoleViolation>, manifests_complete: bool) -> [String; 2] {
    let (evaluation, token, dataplane) =
        (confirmed_reject(violations), token(), [known("default/a", "sync")]);
    let decided = |known: &[KnownRegistration], self_registered: bool| {
        let input = input(TaskLiveness::Live, Some(&evaluation), known);
        words(&decide(&DecisionInput { manifests_complete, self_registered, ..input }))
    };
    [decided(&token, true), decided(&dataplane, false)]
}

/// The violations that an edit of manifests alone can cause, for an unchanged task.
fn caused_by_edit() -> [RoleViolation; 7] {
    [
        violation(RoleRule::BoundPrincipals, Some("arn:aws:iam::111122223333:role/web")),
        violation(RoleRule::ConsulService, Some("web")),
        violation(RoleRule::NoTaskRole, None),
        violation(RoleRule::Account, Some("111122223333")),
        violation(RoleRule::Mesh, Some("default")),
        violation(RoleRule::Service, Some("web")),
        violation(RoleRule::Workload, Some("web")),
    ]
}

#[test]
fn incomplete_manifests_withdraw_nothing_from_live_task() {
    for broken in caused_by_edit() {
        assert_eq!(decisions(vec![broken.clone()], false), ["nothing"; 2], "{broken:?}");
    }
}

#[test]
fn complete_manifests_withdraw_on_edit() {
    for broken in caused_by_edit() {
        let expected = [
            "remove (manifests) default/token/1, guarded",
            "drain not-desired (manifests) default/a, guarded; again in 5s",
        ];
        assert_eq!(decisions(vec![broken.clone()], true), expected, "{broken:?}");
    }
}

#[test]
fn wrong_tags_withdraw_despite_incomplete_manifests() {
    for broken in [
        violation(RoleRule::ConsulService, None),
        violation(RoleRule::ConsulService, Some("")),
        violation(RoleRule::ConsulGateway, Some("ingress")),
        violation(RoleRule::Type, Some("ingress")),
        violation(RoleRule::Mesh, None),
        violation(RoleRule::RoleNotFound, None),
    ] {
        let bound = violation(RoleRule::BoundPrincipals, Some("arn:aws:iam::111122223333:role/web"));
        for (violations, complete) in [(vec![broken.clone()], false), (vec![bound, broken], true)] {
            let expected = [
                "remove (role_tags) default/token/1, guarded",
                "drain revoked (role_tags) default/a, guarded; again in 5s",
            ];
            assert_eq!(decisions(violations, complete), expected);
        }
    }
}

#[test]
fn violation_by_edit_has_manifests_as_evidence() {
    let bound = violation(RoleRule::BoundPrincipals, Some("arn:aws:iam::111122223333:role/web"));
    let (evaluation, token) = (confirmed_reject(vec![bound]), token());
    let input =
        DecisionInput { self_registered: true, ..input(TaskLiveness::Live, Some(&evaluation), &token) };
    let Action::Remove(evidence) = &decide(&input).steps[0].action else { panic!("no removal") };
    assert_eq!(evidence.to_string(), "the task role is not allowed by the manifests: bound_principals");
}

#[test]
fn guard_of_few_holds_edits_and_not_role_tags() {
    for broken in caused_by_edit() {
        let by_edit =
            matches!(broken.rule, RoleRule::BoundPrincipals | RoleRule::NoTaskRole | RoleRule::Account);
        let (evaluation, known) = (confirmed_reject(vec![broken]), [known("default/a", "sync")]);
        let decision = decide(&input(TaskLiveness::Live, Some(&evaluation), &known));
        let basis = decision.steps[0].removal_basis(Duration::ZERO);
        assert_eq!(basis == RemovalBasis::RoleTags, !by_edit, "{basis:?}");
    }
}
