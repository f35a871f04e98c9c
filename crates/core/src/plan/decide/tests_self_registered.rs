//! Where tasks register themselves: what they have made is theirs as long as they live.

use super::tests::{
    ABSENT, binding, by_policy, decided, id, ignore, evaluation, known, reject, situation, words,
};
use super::*;
use crate::intent::{RoleRule, RoleViolation};
use ecs_mesh_api::MeshBindingSpec;

fn itself<'a>(liveness: TaskLiveness, evaluation: Option<&'a Evaluation>, known: &'a [KnownRegistration]) -> DecisionInput<'a> {
    DecisionInput { self_registered: true, ..situation(liveness, evaluation, known) }
}

fn what_follows(liveness: TaskLiveness, evaluation: Option<&Evaluation>, known: &[KnownRegistration]) -> String {
    words(&decide(&itself(liveness, evaluation, known)))
}

#[test]
fn a_draining_task_keeps_what_it_has_registered() {
    let known = [known("default/token/1", "sync")];
    assert_eq!(what_follows(TaskLiveness::Leaving, None, &known), "nothing");
    assert_ne!(decided(TaskLiveness::Leaving, None, &known), "nothing", "elsewhere it is drained");
}

#[test]
fn stop_event_is_confirmed_without_known_registrations() {
    assert_eq!(what_follows(TaskLiveness::StoppedUnconfirmed, None, &[]), "describe");
    assert_eq!(what_follows(TaskLiveness::StoppedUnconfirmed, None, &[known("default/token/1", "sync")]), "describe");
}

#[test]
fn only_proof_of_its_end_removes_it_and_only_under_sync() {
    for (liveness, label, guarded) in [(TaskLiveness::Stopped, "stopped", ""), (ABSENT, "absent", ", guarded")] {
        for (policy, said) in
            [("sync", "remove"), ("upsert-only", "skip remove"), ("create-only", "skip remove")]
        {
            let guarded = if policy == "sync" { guarded } else { "" };
            let expected = format!("{said} ({label}) default/token/1{guarded}");
            let known = [known("default/token/1", policy)];
            assert_eq!(what_follows(liveness, None, &known), expected);
        }
    }
    for liveness in [TaskLiveness::Unknown, TaskLiveness::Missing { due: false }] {
        assert_eq!(what_follows(liveness, None, &[known("default/token/1", "sync")]), "nothing");
    }
}

#[test]
fn manifests_that_do_not_want_it_remove_nothing() {
    for reason in [IgnoreReason::NoBinding, IgnoreReason::OtherControlPlane, IgnoreReason::NoWorkload] {
        let known = [known("default/token/1", "sync")];
        assert_eq!(what_follows(TaskLiveness::Live, Some(&ignore(reason)), &known), "nothing");
    }
}

#[test]
fn revoked_live_task_keeps_identity_unless_withdraw() {
    let of = |on_revoked: Option<OnRevoked>| {
        let mut binding = Binding::clone(&binding("sync"));
        binding.spec.role_tags.on_revoked = on_revoked;
        [KnownRegistration { id: id("default/token/1"), drained: None, binding: Some(Arc::new(binding)) }]
    };
    let twice = reject(true);
    for keeps in [None, Some(OnRevoked::Keep)] {
        assert_eq!(what_follows(TaskLiveness::Live, Some(&twice), &of(keeps)), "nothing");
    }
    let withdrawn = of(Some(OnRevoked::Withdraw));
    let gone = "remove (role_tags) default/token/1, guarded";
    assert_eq!(what_follows(TaskLiveness::Live, Some(&twice), &withdrawn), gone);
    assert_eq!(what_follows(TaskLiveness::Live, Some(&reject(false)), &withdrawn), "reread role");
}

#[test]
fn what_is_not_the_roles_own_fault_takes_no_identity_away() {
    let withdraw = |spec: &mut MeshBindingSpec| spec.role_tags.on_revoked = Some(OnRevoked::Withdraw);
    let known = [known("default/token/1", "sync").with(withdraw)];
    for rule in [RoleRule::InvalidService, RoleRule::TaskMesh, RoleRule::TaskPartition, RoleRule::TaskNamespace] {
        let violation = RoleViolation { rule, role: None, found: None, needed: String::new() };
        let rejected = evaluation(Verdict::Reject { violations: vec![violation], confirmed: true }, "sync");
        assert_eq!(what_follows(TaskLiveness::Live, Some(&rejected), &known), "nothing", "{rule:?}");
    }
}

#[test]
fn a_task_that_may_be_in_the_mesh_is_left_alone() {
    let admitted = evaluation(Verdict::Admit, "sync");
    assert_eq!(what_follows(TaskLiveness::Live, Some(&admitted), &[known("default/token/1", "sync")]), "nothing");
}

#[test]
fn keeping_what_is_revoked_can_be_chosen_elsewhere_too() {
    let kept = by_policy(TaskLiveness::Live, Some(&reject(true)), |known| {
        known.with(|spec| spec.role_tags.on_revoked = Some(OnRevoked::Keep))
    });
    assert_eq!(kept, ["nothing"; 3]);
}
