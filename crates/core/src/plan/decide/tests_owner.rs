//! Dataplanes that the operator does not own: those of sidecars, and those that it only observes.

use super::tests::{ABSENT, decided, evaluation, ignore, known, register, reject, words};
use super::*;
use crate::intent::HoldReason;
use crate::plan::DrainReason::{Revoked, Stopping, Unconfirmed};
use DataplaneOwner::{Observe, Operator, Sidecar};

const POLICIES: [&str; 3] = ["sync", "upsert-only", "create-only"];

fn owned_by(owner: DataplaneOwner, policy: &str) -> KnownRegistration {
    KnownRegistration { owner, ..known("default/task", policy) }
}

fn registered_by(owner: DataplaneOwner) -> Evaluation {
    Evaluation { owner, ..register("sync") }
}

/// The decisions by policy about a task whose Dataplane has this owner.
fn by_policy(liveness: TaskLiveness, owner: DataplaneOwner) -> [String; 3] {
    POLICIES.map(|policy| decided(liveness, None, &[owned_by(owner, policy)]))
}

#[test]
fn gone_task_loses_the_dataplane_of_its_sidecar() {
    for (liveness, label, guarded) in
        [(TaskLiveness::Stopped, "stopped", ""), (ABSENT, "absent", ", guarded")]
    {
        assert_eq!(
            by_policy(liveness, Sidecar),
            [
                format!("remove ({label}) default/task{guarded}"),
                format!("skip remove ({label}) default/task"),
                format!("skip remove ({label}) default/task"),
            ]
        );
    }
}

#[test]
fn dataplane_of_a_sidecar_is_never_drained() {
    for (liveness, again) in
        [(TaskLiveness::Leaving, "nothing"), (TaskLiveness::StopUnconfirmed, "again in 30s")]
    {
        assert_eq!(by_policy(liveness, Sidecar), [again; 3], "{liveness:?}");
        assert!(by_policy(liveness, Operator)[0].starts_with("drain"), "{liveness:?}");
    }
}

#[test]
fn live_task_keeps_the_dataplane_of_its_sidecar() {
    let known = [owned_by(Sidecar, "sync")];
    let live = |evaluation: &Evaluation| decided(TaskLiveness::Live, Some(evaluation), &known);
    assert_eq!(live(&registered_by(Sidecar)), "check for sidecar default/task");
    assert_eq!(live(&reject(true)), "withhold drain (role_tags) from sidecar default/task");
    let undeclared = "withhold drain (manifests) from sidecar default/task";
    assert_eq!(live(&ignore(IgnoreReason::NoWorkload)), undeclared);
    let template = HoldReason::TemplateMode(ecs_mesh_model::Reason::default());
    assert_eq!(live(&evaluation(Verdict::Hold(template), "sync")), "nothing");
}

#[test]
fn task_without_a_dataplane_is_checked_and_not_registered() {
    for owner in [Sidecar, Observe] {
        let decided = decided(TaskLiveness::Live, Some(&registered_by(owner)), &[]);
        assert_eq!(decided, format!("check for {owner} default/task"));
    }
}

#[test]
fn observed_dataplane_is_never_written() {
    for (liveness, expected) in [
        (TaskLiveness::Stopped, "withhold remove (stopped) from observe default/task"),
        (ABSENT, "withhold remove (absent) from observe default/task"),
        (TaskLiveness::Leaving, "withhold drain (stopping) from observe default/task"),
    ] {
        assert_eq!(by_policy(liveness, Observe), [expected; 3], "{liveness:?}");
    }
    let known = [owned_by(Observe, "sync")];
    for (evaluation, expected) in [
        (registered_by(Observe), "check for observe default/task"),
        (reject(true), "withhold drain (role_tags) from observe default/task"),
        (ignore(IgnoreReason::NoBinding), "withhold drain (manifests) from observe default/task"),
    ] {
        assert_eq!(decided(TaskLiveness::Live, Some(&evaluation), &known), expected);
    }
}

/// The manifests name the sidecar, and the sidecar of the running task starts by name: the operator has registered it.
#[test]
fn own_registration_stays_as_it_is_after_the_switch() {
    let own = [owned_by(Operator, "sync")];
    let evaluation = registered_by(Sidecar);
    assert_eq!(decided(TaskLiveness::Live, Some(&evaluation), &own), "check for sidecar default/task");
    assert_eq!(decided(TaskLiveness::Leaving, None, &own), "drain stopping (stopping) default/task");
    assert_eq!(decided(TaskLiveness::Stopped, None, &own), "remove (stopped) default/task");
    let revoked = decided(TaskLiveness::Live, Some(&reject(true)), &own);
    assert_eq!(revoked, "drain revoked (role_tags) default/task, guarded; again in 5s");
}

#[test]
fn own_drain_of_a_live_task_is_undone_after_the_switch() {
    let evaluation = registered_by(Sidecar);
    for reason in [Unconfirmed, Revoked] {
        let drained = [owned_by(Operator, "sync").drained(reason, 1_000)];
        assert_eq!(
            decided(TaskLiveness::Live, Some(&evaluation), &drained),
            "ensure default/task",
            "{reason:?}"
        );
    }
    let observed = [owned_by(Observe, "sync").drained(Unconfirmed, 1_000)];
    let decided = decided(TaskLiveness::Live, Some(&registered_by(Observe)), &observed);
    assert_eq!(decided, "check for observe default/task");
}

#[test]
fn checked_task_needs_no_guard_and_no_describe() {
    let evaluation = registered_by(Sidecar);
    let input = super::tests::input(TaskLiveness::Live, Some(&evaluation), &[]);
    let decision = decide(&DecisionInput { sighting: Sighting::Old, ..input });
    assert_eq!(words(&decision), "check for sidecar default/task");
    assert!(!decision.is_withdrawing());
    let drained = [owned_by(Sidecar, "sync").drained(Stopping, 1_000)];
    assert_eq!(decided(TaskLiveness::Stopped, None, &drained), "remove (stopped) default/task");
}
