//! Tasks that register themselves (Consul): a live task's registrations are kept.

use super::tests::{ABSENT, binding, by_policy, decided, evaluation, ignore, input, known, reject, words};
use super::*;
use crate::intent::{RoleRule, RoleViolation};
use ecs_mesh_api::MeshBindingSpec;

fn self_registered_input<'a>(
    liveness: TaskLiveness,
    evaluation: Option<&'a Evaluation>,
    known: &'a [KnownRegistration],
) -> DecisionInput<'a> {
    DecisionInput { self_registered: true, ..input(liveness, evaluation, known) }
}

fn decide_self_registered(
    liveness: TaskLiveness,
    evaluation: Option<&Evaluation>,
    known: &[KnownRegistration],
) -> String {
    words(&decide(&self_registered_input(liveness, evaluation, known)))
}

#[test]
fn leaving_task_keeps_its_registrations() {
    let known = [known("default/token/1", "sync")];
    assert_eq!(decide_self_registered(TaskLiveness::Leaving, None, &known), "nothing");
    assert_ne!(decided(TaskLiveness::Leaving, None, &known), "nothing", "other control planes drain it");
}

#[test]
fn unconfirmed_stop_changes_nothing() {
    let known = [known("default/token/1", "sync")];
    assert_eq!(decide_self_registered(TaskLiveness::StopUnconfirmed, None, &known), "nothing");
}

#[test]
fn only_confirmed_end_removes_under_sync() {
    for (liveness, label, guarded) in
        [(TaskLiveness::Stopped, "stopped", ""), (ABSENT, "absent", ", guarded")]
    {
        for (policy, action) in
            [("sync", "remove"), ("upsert-only", "skip remove"), ("create-only", "skip remove")]
        {
            let guarded = if policy == "sync" { guarded } else { "" };
            let expected = format!("{action} ({label}) default/token/1{guarded}");
            let known = [known("default/token/1", policy)];
            assert_eq!(decide_self_registered(liveness, None, &known), expected);
        }
    }
    for liveness in [TaskLiveness::Unknown, TaskLiveness::Missing { due: false }] {
        assert_eq!(decide_self_registered(liveness, None, &[known("default/token/1", "sync")]), "nothing");
    }
}

#[test]
fn undeclared_live_task_keeps_registrations() {
    for reason in [IgnoreReason::NoBinding, IgnoreReason::OtherControlPlane, IgnoreReason::NoWorkload] {
        let known = [known("default/token/1", "sync")];
        assert_eq!(decide_self_registered(TaskLiveness::Live, Some(&ignore(reason)), &known), "nothing");
    }
}

#[test]
fn revoked_live_task_keeps_identity_unless_withdraw() {
    let of = |on_revoked: Option<OnRevoked>| {
        let mut binding = Binding::clone(&binding("sync"));
        binding.spec.role_tags.on_revoked = on_revoked;
        [KnownRegistration { binding: Some(Arc::new(binding)), ..known("default/token/1", "sync") }]
    };
    let rejected = reject(true);
    for keeps in [None, Some(OnRevoked::Keep)] {
        assert_eq!(decide_self_registered(TaskLiveness::Live, Some(&rejected), &of(keeps)), "nothing");
    }
    let withdrawn = of(Some(OnRevoked::Withdraw));
    let removed = "remove (role_tags) default/token/1, guarded";
    assert_eq!(decide_self_registered(TaskLiveness::Live, Some(&rejected), &withdrawn), removed);
    assert_eq!(decide_self_registered(TaskLiveness::Live, Some(&reject(false)), &withdrawn), "reread role");
}

#[test]
fn violation_outside_the_role_keeps_identity() {
    let withdraw = |spec: &mut MeshBindingSpec| spec.role_tags.on_revoked = Some(OnRevoked::Withdraw);
    let known = [known("default/token/1", "sync").with(withdraw)];
    for rule in
        [RoleRule::InvalidService, RoleRule::TaskMesh, RoleRule::TaskPartition, RoleRule::TaskNamespace]
    {
        let violation = RoleViolation { rule, role: None, found: None, needed: String::new() };
        let rejected =
            evaluation(Verdict::Reject { violations: vec![violation], confirmed: true, id: None }, "sync");
        assert_eq!(
            decide_self_registered(TaskLiveness::Live, Some(&rejected), &known),
            "nothing",
            "{rule:?}"
        );
    }
}

#[test]
fn admitted_task_is_unchanged() {
    let admitted = evaluation(Verdict::Admit, "sync");
    assert_eq!(
        decide_self_registered(TaskLiveness::Live, Some(&admitted), &[known("default/token/1", "sync")]),
        "nothing"
    );
}

#[test]
fn on_revoked_keep_applies_to_dataplanes() {
    let kept = by_policy(TaskLiveness::Live, Some(&reject(true)), |known| {
        known.with(|spec| spec.role_tags.on_revoked = Some(OnRevoked::Keep))
    });
    assert_eq!(kept, ["nothing"; 3]);
}
