//! Each row of a table is a sentence: in this situation, this is done.

use std::fmt::Write as _;

use serde_json::json;

use super::*;
use crate::intent::{HoldReason, Marks, Need, Outbounds, Rule, Violation};
use crate::plan::DrainReason::{Revoked, Stopping, Unwanted};
use ecs_mesh_api::{ControlPlaneType, MeshBindingSpec, Probe};
use ecs_mesh_model::{OperatorId, ServiceName, TaskArn, Why};

pub(super) const NOW: Timestamp = Timestamp(1_000_000);
pub(super) const ABSENT: Evidence = Evidence::Absent { sweeps: 2, since: Timestamp(0), after_stop: false };
const POLICIES: [&str; 3] = ["sync", "upsert-only", "create-only"];

/// Of the policy, into the mesh `default`; drains for 5 s.
pub(super) fn binding(policy: &str) -> Arc<Binding> {
    let spec =
        json!({"controlPlane": "kuma", "mesh": "default", "selector": {"clusters": ["*"]}, "policy": policy});
    Arc::new(Binding {
        name: policy.into(),
        spec: serde_json::from_value::<MeshBindingSpec>(spec).unwrap(),
        control_plane_type: ControlPlaneType::Kuma,
        guard_released_until: None,
    })
}

pub(super) fn id(text: &str) -> RegistrationId {
    let (mesh, name) = text.split_once('/').unwrap();
    RegistrationId { mesh: ecs_mesh_model::MeshName::parse(mesh).unwrap(), name: name.into() }
}

/// A registration in the care of a binding of this policy.
pub(super) fn known(name: &str, policy: &str) -> Known {
    Known { id: id(name), drained: None, caretaker: Some(binding(policy)) }
}

impl Known {
    fn drained(self, reason: DrainReason, ago_ms: i64) -> Self {
        Self { drained: Some((reason, Timestamp(NOW.0 - ago_ms))), ..self }
    }

    pub(super) fn with(self, change: impl FnOnce(&mut MeshBindingSpec)) -> Self {
        let mut caretaker = Binding::clone(self.caretaker.as_deref().unwrap());
        change(&mut caretaker.spec);
        Self { caretaker: Some(Arc::new(caretaker)), ..self }
    }
}

fn desired(name: &str) -> Desired {
    let task = TaskArn::parse("arn:aws:ecs:eu-west-1:111122223333:task/c/1").unwrap();
    Desired {
        id: id(name),
        marks: Marks::of(&OperatorId::parse("op").unwrap(), &task),
        binding: "b".into(),
        address: "10.0.0.1".parse().unwrap(),
        service: ServiceName::parse("kv").unwrap(),
        workload: None,
        inbounds: Vec::new(),
        probe: Probe::Tcp,
        outbounds: Outbounds::Exactly(Vec::new()),
    }
}

pub(super) fn judgement(verdict: Verdict, policy: &str) -> Judgement {
    Judgement { binding: Some(binding(policy)), verdict, warnings: Vec::new() }
}

fn register(policy: &str) -> Judgement {
    judgement(Verdict::Register(Box::new(desired("default/task"))), policy)
}

/// A rule that is broken by this value of a tag, or by its absence.
pub(super) fn broken(rule: Rule, found: Option<&str>) -> Violation {
    Violation { rule, role: None, found: found.map(str::to_owned), needed: String::new() }
}

/// A tag is missing.
pub(super) fn reject(confirmed: bool) -> Judgement {
    judgement(Verdict::Reject { violations: vec![broken(Rule::Mesh, None)], confirmed }, "sync")
}

pub(super) fn ignore(reason: IgnoreReason) -> Judgement {
    Judgement { binding: None, verdict: Verdict::Ignore(reason), warnings: Vec::new() }
}

/// Seen alive just now, with manifests that are all valid.
pub(super) fn situation<'a>(
    standing: Standing,
    judgement: Option<&'a Judgement>,
    known: &'a [Known],
) -> Situation<'a> {
    Situation {
        standing,
        judgement,
        known,
        fresh: true,
        manifests_complete: true,
        self_registered: false,
        now: NOW,
    }
}

/// The decision in words; `guarded` where the guard is asked.
pub(super) fn words(decision: &Decision) -> String {
    let mut said: Vec<String> = Vec::new();
    for step in &decision.steps {
        let mut text = match &step.action {
            Action::Ensure { desired, may_update } => {
                assert_eq!(desired.id, step.id, "what is ensured is what the step is about");
                if *may_update { "ensure".to_owned() } else { "ensure, no update".to_owned() }
            }
            Action::Drain(reason, evidence) => format!("drain {} ({})", reason.as_str(), evidence.label()),
            Action::Remove(evidence) => format!("remove ({})", evidence.label()),
            Action::Skip { would, evidence } => format!("skip {would} ({})", evidence.label()),
        };
        let guarded = if step.needs_guard() { ", guarded" } else { "" };
        write!(text, " {}{guarded}", step.id).unwrap();
        said.push(text);
    }
    let Decision { describe, reread_role, again, .. } = decision;
    said.extend(describe.then(|| "describe".to_owned()));
    said.extend(reread_role.then(|| "reread role".to_owned()));
    said.extend(again.map(|after| format!("again in {after:?}")));
    if said.is_empty() { "nothing".to_owned() } else { said.join("; ") }
}

pub(super) fn decided(standing: Standing, judgement: Option<&Judgement>, known: &[Known]) -> String {
    words(&decide(&situation(standing, judgement, known)))
}

/// What is done with one registration of the task under each policy.
pub(super) fn by_policy(
    standing: &Standing,
    judgement: Option<&Judgement>,
    of: impl Fn(Known) -> Known,
) -> [String; 3] {
    POLICIES.map(|policy| decided(standing.clone(), judgement, &[of(known("default/task", policy))]))
}

type Of = fn(Known) -> Known;

#[test]
fn what_ecs_says_of_a_registered_task_decides_by_policy() {
    let serving = |known: Known| known;
    let drained = |known: Known| known.drained(Stopping, 60_000);
    let revoked = |known: Known| known.drained(Revoked, 60_000);
    let table: [(&str, Standing, Of, [&str; 3]); 12] = [
        (
            "stopped",
            Standing::Gone(Evidence::Stopped),
            serving,
            [
                "remove (stopped) default/task",
                "drain stopping (stopped) default/task",
                "skip remove (stopped) default/task",
            ],
        ),
        (
            "stopped, and drained before",
            Standing::Gone(Evidence::Stopped),
            drained,
            [
                "remove (stopped) default/task",
                "skip remove (stopped) default/task",
                "skip remove (stopped) default/task",
            ],
        ),
        (
            "absent",
            Standing::Gone(ABSENT),
            serving,
            [
                "remove (absent) default/task, guarded",
                "skip remove (absent) default/task",
                "skip remove (absent) default/task",
            ],
        ),
        (
            "said to have stopped",
            Standing::SaidStopped,
            serving,
            [
                "drain stopping (stopping) default/task; describe",
                "drain stopping (stopping) default/task; describe",
                "skip drain (stopping) default/task; describe",
            ],
        ),
        ("said to have stopped, drained", Standing::SaidStopped, drained, ["describe"; 3]),
        (
            "leaving",
            Standing::Leaving,
            serving,
            [
                "drain stopping (stopping) default/task",
                "drain stopping (stopping) default/task",
                "skip drain (stopping) default/task",
            ],
        ),
        ("leaving, drained", Standing::Leaving, drained, ["nothing"; 3]),
        (
            "leaving, drained for its role",
            Standing::Leaving,
            revoked,
            [
                "drain stopping (stopping) default/task",
                "drain stopping (stopping) default/task",
                "skip drain (stopping) default/task",
            ],
        ),
        ("missing for a while", Standing::Missing { due: false }, serving, ["nothing"; 3]),
        ("missing for long", Standing::Missing { due: true }, serving, ["describe"; 3]),
        ("unknown", Standing::Unknown, serving, ["nothing"; 3]),
        ("live, and not judged", Standing::Live, serving, ["nothing"; 3]),
    ];
    for (what, standing, of, expected) in table {
        assert_eq!(by_policy(&standing, None, of), expected, "{what}");
    }
}

#[test]
fn the_verdict_on_a_live_registered_task_decides_by_policy() {
    let hold = |reason| judgement(Verdict::Hold(reason), "sync");
    let table: [(&str, Judgement, [&str; 3]); 9] = [
        (
            "rejected, read twice",
            reject(true),
            [
                "drain revoked (role_tags) default/task, guarded; again in 5s",
                "drain revoked (role_tags) default/task, guarded; again in 5s",
                "skip remove (role_tags) default/task",
            ],
        ),
        ("rejected, read once", reject(false), ["reread role"; 3]),
        (
            "no binding",
            ignore(IgnoreReason::NoBinding),
            [
                "drain unwanted (manifests) default/task, guarded; again in 5s",
                "drain unwanted (manifests) default/task, guarded; again in 5s",
                "skip remove (manifests) default/task",
            ],
        ),
        (
            "another control plane's",
            ignore(IgnoreReason::OtherControlPlane),
            [
                "drain unwanted (manifests) default/task, guarded; again in 5s",
                "drain unwanted (manifests) default/task, guarded; again in 5s",
                "skip remove (manifests) default/task",
            ],
        ),
        (
            "no workload",
            ignore(IgnoreReason::NoWorkload),
            [
                "drain unwanted (manifests) default/task, guarded; again in 5s",
                "drain unwanted (manifests) default/task, guarded; again in 5s",
                "skip remove (manifests) default/task",
            ],
        ),
        ("in bridge mode", ignore(IgnoreReason::NetworkMode("bridge".to_owned())), ["nothing"; 3]),
        ("held for its bindings", hold(HoldReason::Bindings(Vec::new())), ["nothing"; 3]),
        ("held for the unknown", hold(HoldReason::Unknown(Why::default())), ["nothing"; 3]),
        ("in need of a fact", judgement(Verdict::Need(Need::Tags), "sync"), ["nothing"; 3]),
    ];
    for (what, judgement, expected) in table {
        assert_eq!(by_policy(&Standing::Live, Some(&judgement), |known| known), expected, "{what}");
    }
}

#[test]
fn a_withdrawn_task_is_removed_once_its_drain_is_over() {
    let removed = "remove (role_tags) default/task, guarded";
    for (what, ago_ms, expected) in [
        ("just drained", 0, "again in 5s"),
        ("half drained", 2_000, "again in 3s"),
        ("almost drained", 4_999, "again in 1ms"),
        ("drained", 5_000, removed),
        ("drained long ago", 5_000_000, removed),
        ("drained by a clock that was ahead", -60_000, "again in 5s"),
    ] {
        let known = [known("default/task", "sync").drained(Revoked, ago_ms)];
        assert_eq!(decided(Standing::Live, Some(&reject(true)), &known), expected, "{what}");
    }
}

#[test]
fn a_drained_task_stays_drained_where_the_policy_removes_nothing() {
    for reason in [Revoked, Unwanted] {
        let known = [known("default/task", "upsert-only").drained(reason, 60_000)];
        let decided = decided(Standing::Live, Some(&reject(true)), &known);
        assert_eq!(decided, "skip remove (role_tags) default/task");
    }
}

#[test]
fn without_a_drain_time_the_removal_follows_at_once() {
    let at_once = |known: Known| known.with(|spec| spec.cleanup.drain.0 = Duration::ZERO);
    let first = [at_once(known("default/task", "sync"))];
    let expected = "drain revoked (role_tags) default/task, guarded; again in 0ns";
    assert_eq!(decided(Standing::Live, Some(&reject(true)), &first), expected);
    let then = [at_once(known("default/task", "sync")).drained(Revoked, 0)];
    let expected = "remove (role_tags) default/task, guarded";
    assert_eq!(decided(Standing::Live, Some(&reject(true)), &then), expected);
}

#[test]
fn several_drains_in_progress_come_back_for_the_first_that_ends() {
    let known =
        [known("a/task", "sync").drained(Unwanted, 1_000), known("b/task", "sync").drained(Unwanted, 3_000)];
    let decided = decided(Standing::Live, Some(&ignore(IgnoreReason::NoWorkload)), &known);
    assert_eq!(decided, "again in 2s");
}

#[test]
fn manifests_that_did_not_all_load_withdraw_nothing() {
    let known = [known("default/task", "sync"), known("other/task", "sync"), known("default/twice", "sync")];
    let silent = |judgement: &Judgement, known: &[Known]| {
        let situation = situation(Standing::Live, Some(judgement), known);
        words(&decide(&Situation { manifests_complete: false, ..situation }))
    };
    for reason in [IgnoreReason::NoBinding, IgnoreReason::OtherControlPlane, IgnoreReason::NoWorkload] {
        assert_eq!(silent(&ignore(reason), &known), "nothing");
    }
    assert_eq!(silent(&register("sync"), &known), "ensure default/task", "elsewhere and twice are left");
}

#[test]
fn a_new_task_is_registered_under_every_policy_if_it_was_seen_alive_just_now() {
    for policy in POLICIES {
        assert_eq!(decided(Standing::Live, Some(&register(policy)), &[]), "ensure default/task", "{policy}");
    }
    let judgement = register("sync");
    let stale = Situation { fresh: false, ..situation(Standing::Live, Some(&judgement), &[]) };
    assert_eq!(words(&decide(&stale)), "describe", "its address may be another task's by now");
}

#[test]
fn a_registered_task_is_updated_without_a_describe_unless_the_policy_only_creates() {
    for (policy, expected) in [
        ("sync", "ensure default/task"),
        ("upsert-only", "ensure default/task"),
        ("create-only", "ensure, no update default/task"),
    ] {
        let (judgement, known) = (register(policy), [known("default/task", policy)]);
        let situation = situation(Standing::Live, Some(&judgement), &known);
        assert_eq!(words(&decide(&Situation { fresh: false, ..situation })), expected);
    }
}

#[test]
fn a_task_that_its_role_allows_again_goes_back_into_service() {
    let known = [known("default/task", "sync").drained(Revoked, 1_000)];
    assert_eq!(decided(Standing::Live, Some(&register("sync")), &known), "ensure default/task");
}

#[test]
fn another_name_template_counts_for_tasks_to_come() {
    let known = [known("default/old-name", "sync")];
    assert_eq!(decided(Standing::Live, Some(&register("sync")), &known), "ensure default/old-name");
}

#[test]
fn of_two_registrations_in_one_mesh_the_one_with_the_right_name_stays() {
    let known = [known("default/a", "sync"), known("default/task", "sync")];
    assert_eq!(
        decided(Standing::Live, Some(&register("sync")), &known),
        "ensure default/task; drain unwanted (manifests) default/a, guarded; again in 5s"
    );
}

#[test]
fn of_two_registrations_with_old_names_the_first_stays() {
    let known = [known("default/a", "sync"), known("default/b", "sync").drained(Unwanted, 9_000)];
    assert_eq!(
        decided(Standing::Live, Some(&register("sync")), &known),
        "ensure default/a; remove (manifests) default/b, guarded"
    );
}

#[test]
fn a_task_that_moved_to_another_mesh_is_withdrawn_from_the_old_one() {
    let old = [known("old/task", "sync")];
    let withdrawn = "drain unwanted (manifests) old/task, guarded; again in 5s";
    let moved = decided(Standing::Live, Some(&register("sync")), &old);
    assert_eq!(moved, format!("ensure default/task; {withdrawn}"));
    let judgement = register("sync");
    let stale = Situation { fresh: false, ..situation(Standing::Live, Some(&judgement), &old) };
    let decision = decide(&stale);
    assert!(words(&decision).contains("describe"), "{}", words(&decision));
}

#[test]
fn the_old_meshs_policy_counts_for_what_is_left_there() {
    let old = [known("old/task", "create-only")];
    let decided = decided(Standing::Live, Some(&register("sync")), &old);
    assert_eq!(decided, "ensure default/task; skip remove (manifests) old/task");
}

#[test]
fn what_nobody_takes_care_of_is_left_alone_whatever_happens() {
    let orphan = [Known { caretaker: None, ..known("default/task", "sync") }];
    for standing in [Standing::Gone(Evidence::Stopped), Standing::Gone(ABSENT), Standing::Leaving] {
        assert_eq!(decided(standing.clone(), None, &orphan), "nothing", "{standing:?}");
    }
    for judgement in [reject(true), ignore(IgnoreReason::NoBinding)] {
        assert_eq!(decided(Standing::Live, Some(&judgement), &orphan), "nothing");
    }
}

#[test]
fn a_pause_changes_no_decision_since_it_is_only_not_carried_out() {
    let paused = |known: Known| known.with(|spec| spec.paused = true);
    for standing in [Standing::Gone(Evidence::Stopped), Standing::Gone(ABSENT), Standing::Leaving] {
        assert_eq!(by_policy(&standing, None, paused), by_policy(&standing, None, |known| known));
    }
}

#[test]
fn nothing_is_asked_of_a_task_that_is_not_registered_and_not_live() {
    let over =
        [Standing::Gone(Evidence::Stopped), Standing::SaidStopped, Standing::Leaving, Standing::Unknown];
    for standing in over {
        assert_eq!(decided(standing.clone(), None, &[]), "nothing", "{standing:?}");
    }
}

#[test]
fn only_a_stop_of_the_tasks_own_spares_the_guard() {
    for (evidence, own) in [
        (Evidence::Stopping, true),
        (Evidence::Stopped, true),
        (ABSENT, false),
        (Evidence::RoleTags, false),
        (Evidence::Manifests, false),
        (Evidence::Disallowed(vec![Rule::Account]), false),
    ] {
        assert_eq!(evidence.is_own_stop(), own, "{evidence}");
        let action = Action::Remove(evidence.clone());
        let step = Step { id: id("default/task"), binding: binding("sync"), action };
        assert_eq!(step.needs_guard(), !own, "{evidence}");
    }
}

#[test]
fn absence_after_a_drain_for_stopping_needs_no_guard() {
    for (reason, guarded) in [(Stopping, ""), (Revoked, ", guarded"), (Unwanted, ", guarded")] {
        let drained = [known("default/a", "sync").drained(reason, 1_000)];
        let expected = format!("remove (absent) default/a{guarded}");
        assert_eq!(decided(Standing::Gone(ABSENT), None, &drained), expected, "{reason:?}");
    }
}

#[test]
fn an_absence_not_proved_yet_is_foreseen_as_a_removal() {
    let known = [known("default/a", "sync")];
    let situation = Situation {
        standing: Standing::Missing { due: false },
        judgement: None,
        known: &known,
        fresh: false,
        manifests_complete: true,
        self_registered: false,
        now: NOW,
    };
    assert_eq!(decide(&situation), Decision::default());
    let (awaited, decision) = foresee(&situation, Duration::from_mins(5)).unwrap();
    assert_eq!(awaited, Awaited::Absence(Duration::from_mins(5)));
    assert!(matches!(decision.steps[0].action, Action::Remove(Evidence::Absent { .. })), "{decision:?}");
}

#[test]
fn a_revocation_read_once_is_foreseen_as_a_withdrawal() {
    let known = [known("default/a", "sync")];
    for (confirmed, foreseen) in [(false, true), (true, false)] {
        let judgement = Judgement { binding: None, ..reject(confirmed) };
        let situation = Situation {
            standing: Standing::Live,
            judgement: Some(&judgement),
            known: &known,
            fresh: true,
            manifests_complete: true,
            self_registered: false,
            now: NOW,
        };
        let found = foresee(&situation, Duration::ZERO);
        assert_eq!(found.is_some(), foreseen);
        if let Some((awaited, decision)) = found {
            assert_eq!(awaited, Awaited::SecondRead);
            assert!(
                matches!(decision.steps[0].action, Action::Drain(Revoked, Evidence::RoleTags)),
                "{decision:?}"
            );
        }
    }
}
