//! A live task that its role or the manifests no longer let in: what an edit of manifests brings about, only manifests
//! that are all valid bring about, and nobody calls it the role's tags.

use super::tests::{binding, broken, id, judgement, known, situation, words};
use super::*;

/// Rejected for good by these rules.
fn for_good(violations: Vec<Violation>) -> Judgement {
    judgement(Verdict::Reject { violations, confirmed: true }, "sync")
}

/// A token of a binding that withdraws what is revoked.
fn token() -> [Known; 1] {
    let mut binding = Binding::clone(&binding("sync"));
    binding.spec.role_tags.on_revoked = Some(OnRevoked::Withdraw);
    [Known { id: id("default/token/1"), drained: None, caretaker: Some(Arc::new(binding)) }]
}

/// What is done with a task's token and with a Dataplane.
fn follows(violations: Vec<Violation>, manifests_complete: bool) -> [String; 2] {
    let (judgement, token, dataplane) = (for_good(violations), token(), [known("default/a", "sync")]);
    let decided = |known: &[Known], self_registered: bool| {
        let situation = situation(Standing::Live, Some(&judgement), known);
        words(&decide(&Situation { manifests_complete, self_registered, ..situation }))
    };
    [decided(&token, true), decided(&dataplane, false)]
}

/// The rules that an edit of manifests alone can break, for a task that goes on as it was.
fn by_an_edit() -> [Violation; 7] {
    [
        broken(Rule::BoundPrincipals, Some("arn:aws:iam::111122223333:role/web")),
        broken(Rule::ConsulService, Some("web")),
        broken(Rule::NoTaskRole, None),
        broken(Rule::Account, Some("111122223333")),
        broken(Rule::Mesh, Some("default")),
        broken(Rule::Service, Some("web")),
        broken(Rule::Workload, Some("web")),
    ]
}

#[test]
fn an_edit_of_manifests_that_did_not_all_load_takes_nothing_from_a_live_task() {
    for violation in by_an_edit() {
        assert_eq!(follows(vec![violation.clone()], false), ["nothing"; 2], "{violation:?}");
    }
}

#[test]
fn an_edit_of_manifests_that_are_all_valid_withdraws_for_the_manifests() {
    for violation in by_an_edit() {
        let expected = [
            "remove (manifests) default/token/1, guarded",
            "drain unwanted (manifests) default/a, guarded; again in 5s",
        ];
        assert_eq!(follows(vec![violation.clone()], true), expected, "{violation:?}");
    }
}

#[test]
fn tags_that_no_manifest_could_make_good_withdraw_whatever_the_manifests() {
    for violation in [
        broken(Rule::ConsulService, None),
        broken(Rule::ConsulService, Some("")),
        broken(Rule::ConsulGateway, Some("ingress")),
        broken(Rule::Type, Some("ingress")),
        broken(Rule::Mesh, None),
        broken(Rule::NoSuchRole, None),
    ] {
        let bound = broken(Rule::BoundPrincipals, Some("arn:aws:iam::111122223333:role/web"));
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
    let bound = broken(Rule::BoundPrincipals, Some("arn:aws:iam::111122223333:role/web"));
    let (judgement, token) = (for_good(vec![bound]), token());
    let situation =
        Situation { self_registered: true, ..situation(Standing::Live, Some(&judgement), &token) };
    let Action::Remove(evidence) = &decide(&situation).steps[0].action else { panic!("no removal") };
    assert_eq!(evidence.to_string(), "the manifests do not let its role in: bound_principals");
}
