//! Withdrawals that only the absence of a document causes.

use super::tests::{ABSENT, evaluation, ignore, input, known, reject, violation, words};
use super::*;
use crate::intent::{HoldReason, RoleRule};

const SETTLE: Duration = Duration::from_mins(1);

const WITHDRAWN: &str = "drain not-desired (manifests) default/a, guarded; again in 5s";

/// The decision on the Dataplane `default/a` of a task that no workload selects any more.
fn undeclared(settling: Option<Settling<'_>>, was_declared: bool) -> Decision {
    let (ignored, known) = (ignore(IgnoreReason::NoWorkload), [known("default/a", "sync")]);
    let known = known.map(|known| KnownRegistration { was_declared, ..known });
    decide(&DecisionInput { settling, ..input(TaskLiveness::Live, Some(&ignored), &known) })
}

fn with_retained(evaluation: &Evaluation) -> Settling<'_> {
    Settling { settle: SETTLE, starting: false, retained: Some(evaluation) }
}

#[test]
fn withdrawal_waits_while_an_absent_document_declares() {
    // A renamed document selects the same tasks, so with the absent one there are two.
    let held = evaluation(Verdict::Hold(HoldReason::Workloads(Vec::new())), "sync");
    let unknown = evaluation(Verdict::Hold(HoldReason::Unknown(ecs_mesh_model::Reason::default())), "sync");
    for declaring in [evaluation(Verdict::Admit, "sync"), held, unknown] {
        let decision = undeclared(Some(with_retained(&declaring)), true);
        assert_eq!(words(&decision), "nothing", "{declaring:?}");
        assert_eq!((decision.undeclared.len(), decision.settling.len()), (1, 1), "{declaring:?}");
    }
}

#[test]
fn edit_withdraws_at_once_while_another_document_is_absent() {
    let neither = ignore(IgnoreReason::NoBinding);
    let decision = undeclared(Some(with_retained(&neither)), true);
    assert_eq!((words(&decision).as_str(), decision.settling.len()), (WITHDRAWN, 0));
    assert_eq!(words(&undeclared(None, true)), WITHDRAWN);
}

#[test]
fn unknown_document_may_declare_after_a_start() {
    let starting = Settling { settle: SETTLE, starting: true, retained: None };
    assert_eq!(undeclared(Some(starting), false).settling.len(), 1);
    assert_eq!(words(&undeclared(Some(starting), true)), WITHDRAWN, "this process saw it declared: an edit");
}

#[test]
fn role_tags_do_not_wait_for_an_absent_document() {
    let rejected = reject(true);
    let decision = undeclared(Some(with_retained(&rejected)), true);
    assert_eq!(words(&decision), "drain revoked (role_tags) default/a, guarded; again in 5s");
    // The absent document rejects the role by its own rules, so it withdraws as well.
    let violations = vec![violation(RoleRule::Account, Some("111122223333"))];
    let disallowed = evaluation(Verdict::Reject { violations, confirmed: true, id: None }, "sync");
    assert_eq!(words(&undeclared(Some(with_retained(&disallowed)), true)), WITHDRAWN);
}

#[test]
fn rejection_by_the_manifests_waits_and_by_role_tags_does_not() {
    let admitted = evaluation(Verdict::Admit, "sync");
    let decided = |found: Option<&str>| {
        let violations = vec![violation(RoleRule::Service, found)];
        let rejected = evaluation(Verdict::Reject { violations, confirmed: true, id: None }, "sync");
        let known = [known("default/a", "sync")];
        let input = input(TaskLiveness::Live, Some(&rejected), &known);
        words(&decide(&DecisionInput { settling: Some(with_retained(&admitted)), ..input }))
    };
    assert_eq!(decided(Some("web")), "nothing");
    assert_eq!(decided(None), "drain revoked (role_tags) default/a, guarded; again in 5s");
}

#[test]
fn absence_of_documents_keeps_no_ended_task() {
    let (admitted, known) = (evaluation(Verdict::Admit, "sync"), [known("default/a", "sync")]);
    for (liveness, expected) in [
        (TaskLiveness::Stopped, "remove (stopped) default/a"),
        (ABSENT, "remove (absent) default/a, guarded"),
        (TaskLiveness::Leaving, "drain stopping (stopping) default/a"),
    ] {
        let input = input(liveness, None, &known);
        let decision = decide(&DecisionInput { settling: Some(with_retained(&admitted)), ..input });
        assert_eq!(words(&decision), expected);
    }
}

#[test]
fn waiting_withdrawal_is_previewed_with_its_time() {
    let (ignored, known) = (ignore(IgnoreReason::NoWorkload), [known("default/a", "sync")]);
    let known = known.map(|known| KnownRegistration { was_declared: false, ..known });
    let starting = Settling { settle: SETTLE, starting: true, retained: None };
    let input =
        DecisionInput { settling: Some(starting), ..input(TaskLiveness::Live, Some(&ignored), &known) };
    let (awaited, decision) = decide_if_confirmed(&input, Duration::ZERO).unwrap();
    assert_eq!(awaited, PendingConfirmation::Settle(SETTLE));
    assert_eq!(words(&decision), WITHDRAWN);
    // A withdrawal that does not wait is in the decision itself.
    let declared = known.clone().map(|known| KnownRegistration { was_declared: true, ..known });
    assert_eq!(decide_if_confirmed(&DecisionInput { known: &declared, ..input }, Duration::ZERO), None);
}
