//! Each row is a case of the decision table: the input, and the steps by policy.

use std::fmt::Write as _;

use serde_json::json;

use super::*;
use crate::intent::{
    CalledWorkloads, DesiredProxy, DesiredReach, HoldReason, MissingFact, Outbounds, OwnershipLabels,
    RoleRule, RoleViolation,
};
use crate::plan::DrainReason::{NotDesired, Revoked, Stopping, Unconfirmed};
use ecs_mesh_api::{
    ControlPlaneType, MeshBindingSpec, Probe, ProxyRole, WorkloadSpec, ZoneProxyForm, ZoneProxyKind,
};
use ecs_mesh_model::{OperatorId, Reason, ServiceName, TaskArn};

pub(super) const NOW: Timestamp = Timestamp(1_000_000);
pub(super) const ABSENT: TaskLiveness = TaskLiveness::Absent { sweeps: 2, since: Timestamp(0) };
const POLICIES: [&str; 3] = ["sync", "upsert-only", "create-only"];

/// A binding of this policy to the mesh `default`, with a drain of 5 s.
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

/// A registration owned by a binding of this policy.
pub(super) fn known(name: &str, policy: &str) -> KnownRegistration {
    KnownRegistration {
        id: id(name),
        drained: None,
        binding: Some(binding(policy)),
        was_declared: true,
        owner: DataplaneOwner::Operator,
    }
}

impl KnownRegistration {
    pub(super) fn drained(self, reason: DrainReason, ago_ms: i64) -> Self {
        Self { drained: Some((reason, Timestamp(NOW.0 - ago_ms))), ..self }
    }

    pub(super) fn with(self, change: impl FnOnce(&mut MeshBindingSpec)) -> Self {
        let mut binding = Binding::clone(self.binding.as_deref().unwrap());
        change(&mut binding.spec);
        Self { binding: Some(Arc::new(binding)), ..self }
    }
}

fn desired(name: &str) -> DesiredRegistration {
    let task = TaskArn::parse("arn:aws:ecs:eu-west-1:111122223333:task/c/1").unwrap();
    DesiredRegistration {
        id: id(name),
        marks: OwnershipLabels::of(&OperatorId::parse("op").unwrap(), &task),
        cluster_name: task.cluster().name().into(),
        binding: "b".into(),
        address: "10.0.0.1".parse().unwrap(),
        service: ServiceName::parse("kv").unwrap(),
        workload: None,
        proxy: DesiredProxy::Sidecar,
        inbounds: Vec::new(),
        probe: Probe::Tcp,
        reach: DesiredReach::Listeners(Outbounds::Exactly(Vec::new())),
        called_workloads: CalledWorkloads::default(),
    }
}

pub(super) fn evaluation(verdict: Verdict, policy: &str) -> Evaluation {
    let owner = DataplaneOwner::Operator;
    Evaluation { binding: Some(binding(policy)), owner, workload: None, verdict, warnings: Vec::new() }
}

pub(super) fn register(policy: &str) -> Evaluation {
    evaluation(Verdict::Register(Box::new(desired("default/task"))), policy)
}

/// A violation by this value of a tag, or by a missing tag.
pub(super) fn violation(rule: RoleRule, found: Option<&str>) -> RoleViolation {
    RoleViolation { rule, role: None, found: found.map(str::to_owned), needed: String::new() }
}

/// Rejected for a missing tag.
pub(super) fn reject(confirmed: bool) -> Evaluation {
    evaluation(
        Verdict::Reject { violations: vec![violation(RoleRule::Mesh, None)], confirmed, id: None },
        "sync",
    )
}

pub(super) fn ignore(reason: IgnoreReason) -> Evaluation {
    Evaluation { binding: None, ..evaluation(Verdict::Ignore(reason), "sync") }
}

/// The input for a task that was just seen alive, with complete manifests.
pub(super) fn input<'a>(
    liveness: TaskLiveness,
    evaluation: Option<&'a Evaluation>,
    known: &'a [KnownRegistration],
) -> DecisionInput<'a> {
    DecisionInput {
        liveness,
        evaluation,
        known,
        sighting: Sighting::Recent,
        manifests_complete: true,
        settling: None,
        self_registered: false,
        now: NOW,
    }
}

/// The decision as text; `guarded` where the guard must admit the step.
pub(super) fn words(decision: &Decision) -> String {
    let mut parts: Vec<String> = Vec::new();
    for step in &decision.steps {
        let mut text = match &step.action {
            Action::Ensure { desired, may_update } => {
                assert_eq!(desired.id, step.id, "the step and its registration agree");
                if *may_update { "ensure".to_owned() } else { "ensure, no update".to_owned() }
            }
            Action::Drain(reason, evidence) => format!("drain {} ({})", reason.as_str(), evidence.as_str()),
            Action::Remove(evidence) => format!("remove ({})", evidence.as_str()),
            Action::Skip { action, evidence } => format!("skip {} ({})", action.as_str(), evidence.as_str()),
        };
        let guarded = if step.needs_guard() { ", guarded" } else { "" };
        write!(text, " {}{guarded}", step.id).unwrap();
        parts.push(text);
    }
    for step in &decision.owner_steps {
        let owner = step.owner;
        let text = match &step.action {
            OwnerAction::Check(desired) => {
                assert_eq!(desired.id, step.id, "the step and its registration agree");
                format!("check for {owner}")
            }
            OwnerAction::Withhold(action, evidence) => {
                format!("withhold {} ({}) from {owner}", action.as_str(), evidence.as_str())
            }
        };
        parts.push(format!("{text} {}", step.id));
    }
    let Decision { describe, confirm_running, recheck_role, requeue_after, .. } = decision;
    parts.extend(confirm_running.then(|| "confirm that it runs".to_owned()));
    parts.extend(describe.then(|| "describe".to_owned()));
    parts.extend(recheck_role.then(|| "reread role".to_owned()));
    parts.extend(requeue_after.map(|after| format!("again in {after:?}")));
    if parts.is_empty() { "nothing".to_owned() } else { parts.join("; ") }
}

pub(super) fn decided(
    liveness: TaskLiveness,
    evaluation: Option<&Evaluation>,
    known: &[KnownRegistration],
) -> String {
    words(&decide(&input(liveness, evaluation, known)))
}

/// The decision on one registration of the task, by policy.
pub(super) fn by_policy(
    liveness: TaskLiveness,
    evaluation: Option<&Evaluation>,
    of: impl Fn(KnownRegistration) -> KnownRegistration,
) -> [String; 3] {
    POLICIES.map(|policy| decided(liveness, evaluation, &[of(known("default/task", policy))]))
}

type TaskState = fn(KnownRegistration) -> KnownRegistration;

#[test]
fn liveness_and_policy_decide_the_action() {
    let serving = |known: KnownRegistration| known;
    let drained = |known: KnownRegistration| known.drained(Stopping, 60_000);
    let revoked = |known: KnownRegistration| known.drained(Revoked, 60_000);
    let table: [(&str, TaskLiveness, TaskState, [&str; 3]); 13] = [
        (
            "stopped",
            TaskLiveness::Stopped,
            serving,
            [
                "remove (stopped) default/task",
                "drain stopping (stopped) default/task",
                "skip remove (stopped) default/task",
            ],
        ),
        (
            "stopped, and drained before",
            TaskLiveness::Stopped,
            drained,
            [
                "remove (stopped) default/task",
                "skip remove (stopped) default/task",
                "skip remove (stopped) default/task",
            ],
        ),
        (
            "absent",
            ABSENT,
            serving,
            [
                "remove (absent) default/task, guarded",
                "skip remove (absent) default/task",
                "skip remove (absent) default/task",
            ],
        ),
        (
            "stop reported by an event, and ECS cannot be asked",
            TaskLiveness::StopUnconfirmed,
            serving,
            [
                "drain unconfirmed (unconfirmed) default/task, guarded; again in 30s",
                "drain unconfirmed (unconfirmed) default/task, guarded; again in 30s",
                "skip drain (unconfirmed) default/task; again in 30s",
            ],
        ),
        ("the same, drained", TaskLiveness::StopUnconfirmed, drained, ["again in 30s"; 3]),
        ("the same, drained for its role", TaskLiveness::StopUnconfirmed, revoked, ["again in 30s"; 3]),
        (
            "leaving",
            TaskLiveness::Leaving,
            serving,
            [
                "drain stopping (stopping) default/task",
                "drain stopping (stopping) default/task",
                "skip drain (stopping) default/task",
            ],
        ),
        ("leaving, drained", TaskLiveness::Leaving, drained, ["nothing"; 3]),
        (
            "leaving, drained for its role",
            TaskLiveness::Leaving,
            revoked,
            [
                "drain stopping (stopping) default/task",
                "drain stopping (stopping) default/task",
                "skip drain (stopping) default/task",
            ],
        ),
        ("missing for a while", TaskLiveness::Missing { due: false }, serving, ["nothing"; 3]),
        ("missing for long", TaskLiveness::Missing { due: true }, serving, ["describe"; 3]),
        ("unknown", TaskLiveness::Unknown, serving, ["nothing"; 3]),
        ("live, not evaluated", TaskLiveness::Live, serving, ["nothing"; 3]),
    ];
    for (subject, liveness, of, expected) in table {
        assert_eq!(by_policy(liveness, None, of), expected, "{subject}");
    }
}

#[test]
fn verdict_and_policy_decide_the_action() {
    let hold = |reason| evaluation(Verdict::Hold(reason), "sync");
    let table: [(&str, Evaluation, [&str; 3]); 10] = [
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
                "drain not-desired (manifests) default/task, guarded; again in 5s",
                "drain not-desired (manifests) default/task, guarded; again in 5s",
                "skip remove (manifests) default/task",
            ],
        ),
        (
            "bound to another control plane",
            ignore(IgnoreReason::OtherControlPlane),
            [
                "drain not-desired (manifests) default/task, guarded; again in 5s",
                "drain not-desired (manifests) default/task, guarded; again in 5s",
                "skip remove (manifests) default/task",
            ],
        ),
        (
            "no workload",
            ignore(IgnoreReason::NoWorkload),
            [
                "drain not-desired (manifests) default/task, guarded; again in 5s",
                "drain not-desired (manifests) default/task, guarded; again in 5s",
                "skip remove (manifests) default/task",
            ],
        ),
        ("network mode bridge", ignore(IgnoreReason::NetworkMode("bridge".to_owned())), ["nothing"; 3]),
        ("external instance", ignore(IgnoreReason::ExternalInstance), ["nothing"; 3]),
        ("held: several bindings", hold(HoldReason::Bindings(Vec::new())), ["nothing"; 3]),
        ("held: unknown fact", hold(HoldReason::Unknown(Reason::default())), ["nothing"; 3]),
        ("fact missing", evaluation(Verdict::NeedsFact(MissingFact::Tags), "sync"), ["nothing"; 3]),
    ];
    for (subject, evaluation, expected) in table {
        assert_eq!(by_policy(TaskLiveness::Live, Some(&evaluation), |known| known), expected, "{subject}");
    }
}

#[test]
fn withdrawn_task_is_removed_after_its_drain() {
    let removed = "remove (role_tags) default/task, guarded";
    for (subject, ago_ms, expected) in [
        ("just drained", 0, "again in 5s"),
        ("half drained", 2_000, "again in 3s"),
        ("almost drained", 4_999, "again in 1ms"),
        ("drained", 5_000, removed),
        ("drained long ago", 5_000_000, removed),
        ("drained by a clock that was ahead", -60_000, "again in 5s"),
    ] {
        let known = [known("default/task", "sync").drained(Revoked, ago_ms)];
        assert_eq!(decided(TaskLiveness::Live, Some(&reject(true)), &known), expected, "{subject}");
    }
}

#[test]
fn drained_task_stays_drained_under_upsert_only() {
    for reason in [Revoked, NotDesired] {
        let known = [known("default/task", "upsert-only").drained(reason, 60_000)];
        let decided = decided(TaskLiveness::Live, Some(&reject(true)), &known);
        assert_eq!(decided, "skip remove (role_tags) default/task");
    }
}

#[test]
fn removal_follows_at_once_without_a_drain_time() {
    let at_once = |known: KnownRegistration| known.with(|spec| spec.cleanup.drain.0 = Duration::ZERO);
    let first = [at_once(known("default/task", "sync"))];
    let expected = "drain revoked (role_tags) default/task, guarded; again in 0ns";
    assert_eq!(decided(TaskLiveness::Live, Some(&reject(true)), &first), expected);
    let then = [at_once(known("default/task", "sync")).drained(Revoked, 0)];
    let expected = "remove (role_tags) default/task, guarded";
    assert_eq!(decided(TaskLiveness::Live, Some(&reject(true)), &then), expected);
}

#[test]
fn concurrent_drains_requeue_for_the_first_end() {
    let known = [
        known("a/task", "sync").drained(NotDesired, 1_000),
        known("b/task", "sync").drained(NotDesired, 3_000),
    ];
    let decided = decided(TaskLiveness::Live, Some(&ignore(IgnoreReason::NoWorkload)), &known);
    assert_eq!(decided, "again in 2s");
}

#[test]
fn incomplete_manifests_withdraw_nothing() {
    let known = [known("default/task", "sync"), known("other/task", "sync"), known("default/twice", "sync")];
    let incomplete = |evaluation: &Evaluation, known: &[KnownRegistration]| {
        let input = input(TaskLiveness::Live, Some(evaluation), known);
        words(&decide(&DecisionInput { manifests_complete: false, ..input }))
    };
    for reason in [IgnoreReason::NoBinding, IgnoreReason::OtherControlPlane, IgnoreReason::NoWorkload] {
        assert_eq!(incomplete(&ignore(reason), &known), "nothing");
    }
    assert_eq!(
        incomplete(&register("sync"), &known),
        "ensure default/task",
        "registrations elsewhere and duplicates are kept"
    );
}

#[test]
fn recent_task_is_registered_under_every_policy() {
    for policy in POLICIES {
        assert_eq!(
            decided(TaskLiveness::Live, Some(&register(policy)), &[]),
            "ensure default/task",
            "{policy}"
        );
    }
    let evaluation = register("sync");
    let stale =
        DecisionInput { sighting: Sighting::Old, ..input(TaskLiveness::Live, Some(&evaluation), &[]) };
    assert_eq!(words(&decide(&stale)), "describe", "the address may belong to another task");
}

#[test]
fn update_needs_no_describe_unless_create_only() {
    for (policy, expected) in [
        ("sync", "ensure default/task"),
        ("upsert-only", "ensure default/task"),
        ("create-only", "ensure, no update default/task"),
    ] {
        let (evaluation, known) = (register(policy), [known("default/task", policy)]);
        let input = input(TaskLiveness::Live, Some(&evaluation), &known);
        assert_eq!(words(&decide(&DecisionInput { sighting: Sighting::Old, ..input })), expected);
    }
}

#[test]
fn drained_task_is_ensured_when_its_role_allows_again() {
    let known = [known("default/task", "sync").drained(Revoked, 1_000)];
    assert_eq!(decided(TaskLiveness::Live, Some(&register("sync")), &known), "ensure default/task");
}

#[test]
fn registered_task_keeps_its_name() {
    let known = [known("default/old-name", "sync")];
    assert_eq!(decided(TaskLiveness::Live, Some(&register("sync")), &known), "ensure default/old-name");
}

#[test]
fn duplicate_registration_keeps_the_current_name() {
    let known = [known("default/a", "sync"), known("default/task", "sync")];
    assert_eq!(
        decided(TaskLiveness::Live, Some(&register("sync")), &known),
        "ensure default/task; drain not-desired (manifests) default/a, guarded; again in 5s"
    );
}

#[test]
fn first_of_two_renamed_registrations_is_kept() {
    let known = [known("default/a", "sync"), known("default/b", "sync").drained(NotDesired, 9_000)];
    assert_eq!(
        decided(TaskLiveness::Live, Some(&register("sync")), &known),
        "ensure default/a; remove (manifests) default/b, guarded"
    );
}

#[test]
fn task_moved_to_other_mesh_is_withdrawn_from_old_one() {
    let old = [known("old/task", "sync")];
    let withdrawn = "drain not-desired (manifests) old/task, guarded; again in 5s";
    let moved = decided(TaskLiveness::Live, Some(&register("sync")), &old);
    assert_eq!(moved, format!("ensure default/task; {withdrawn}"));
    let evaluation = register("sync");
    let stale =
        DecisionInput { sighting: Sighting::Old, ..input(TaskLiveness::Live, Some(&evaluation), &old) };
    let decision = decide(&stale);
    assert!(words(&decision).contains("describe"), "{}", words(&decision));
}

#[test]
fn registration_left_in_old_mesh_follows_its_policy() {
    let old = [known("old/task", "create-only")];
    let decided = decided(TaskLiveness::Live, Some(&register("sync")), &old);
    assert_eq!(decided, "ensure default/task; skip remove (manifests) old/task");
}

#[test]
fn registration_without_binding_is_never_changed() {
    let orphan = [KnownRegistration { binding: None, ..known("default/task", "sync") }];
    for liveness in [TaskLiveness::Stopped, ABSENT, TaskLiveness::Leaving] {
        assert_eq!(decided(liveness, None, &orphan), "nothing", "{liveness:?}");
    }
    for evaluation in [reject(true), ignore(IgnoreReason::NoBinding)] {
        assert_eq!(decided(TaskLiveness::Live, Some(&evaluation), &orphan), "nothing");
    }
}

#[test]
fn pause_does_not_change_the_decision() {
    let paused = |known: KnownRegistration| known.with(|spec| spec.paused = true);
    for liveness in [TaskLiveness::Stopped, ABSENT, TaskLiveness::Leaving] {
        assert_eq!(by_policy(liveness, None, paused), by_policy(liveness, None, |known| known));
    }
}

#[test]
fn unregistered_dead_task_needs_no_describe() {
    let dead = [TaskLiveness::Stopped, TaskLiveness::Leaving, TaskLiveness::Unknown];
    for liveness in dead {
        assert_eq!(decided(liveness, None, &[]), "nothing", "{liveness:?}");
    }
}

#[test]
fn only_confirmed_stop_bypasses_the_guard() {
    let asked_for = Duration::from_secs(9);
    let by_manifests = RemovalBasis::Manifests { asked_for };
    let disallowed = |by_edit| Evidence::RoleNotAllowed { rules: vec![RoleRule::Account], by_edit };
    for (evidence, basis) in [
        (Evidence::Stopping, None),
        (Evidence::Stopped, None),
        (Evidence::StopEvent, Some(RemovalBasis::Unconfirmed)),
        (Evidence::StoppedMissing { doubtful: true }, Some(RemovalBasis::Unconfirmed)),
        (Evidence::StoppedMissing { doubtful: false }, None),
        (Evidence::Absent { sweeps: 2, since: NOW, after_stop: false }, Some(RemovalBasis::Unconfirmed)),
        (Evidence::RoleTags, Some(RemovalBasis::RoleTags)),
        (Evidence::Manifests, Some(by_manifests)),
        (disallowed(true), Some(by_manifests)),
        (disallowed(false), Some(RemovalBasis::RoleTags)),
    ] {
        assert_eq!(evidence.is_confirmed_stop(), basis.is_none(), "{evidence}");
        let action = Action::Remove(evidence.clone());
        let step = PlanStep { id: id("default/task"), binding: binding("sync"), action };
        assert_eq!(step.needs_guard(), basis.is_some(), "{evidence}");
        if let Some(basis) = basis {
            assert_eq!(step.removal_basis(asked_for), basis, "{evidence}");
        }
    }
}

#[test]
fn missing_after_a_stop_event_is_doubtful_for_an_hour() {
    let serving = |known: KnownRegistration| known;
    let drained = |known: KnownRegistration| known.drained(Stopping, 60_000);
    let decided = |age: i64, state: TaskState| {
        by_policy(TaskLiveness::StoppedMissing { since: Timestamp(NOW.0 - age) }, None, state)
    };
    assert_eq!(
        decided(1_000, serving),
        [
            "remove (stopped_missing) default/task, guarded; again in 3599s",
            "skip remove (stopped_missing) default/task; again in 3599s",
            "skip remove (stopped_missing) default/task; again in 3599s",
        ]
    );
    assert_eq!(
        decided(3_600_000, serving),
        [
            "remove (stopped_missing) default/task",
            "drain stopping (stopped_missing) default/task",
            "skip remove (stopped_missing) default/task",
        ]
    );
    assert_eq!(decided(0, drained)[0], "remove (stopped_missing) default/task; again in 3600s");
}

#[test]
fn drain_for_stopping_is_undone_only_by_two_describes() {
    let evaluation = register("sync");
    let drained = [known("default/task", "sync").drained(Stopping, 1_000)];
    let once = input(TaskLiveness::Live, Some(&evaluation), &drained);
    assert_eq!(words(&decide(&once)), "confirm that it runs");
    let twice = DecisionInput { sighting: Sighting::Confirmed, ..once };
    assert_eq!(words(&decide(&twice)), "ensure default/task");
}

#[test]
fn unconfirmed_drain_is_undone_by_one_describe() {
    let evaluation = register("sync");
    let drained = [known("default/task", "sync").drained(Unconfirmed, 1_000)];
    assert_eq!(decided(TaskLiveness::Live, Some(&evaluation), &drained), "ensure default/task");
    assert_eq!(
        decided(TaskLiveness::Leaving, None, &drained),
        "drain stopping (stopping) default/task",
        "or confirmed by one"
    );
}

#[test]
fn absence_after_a_drain_for_stopping_needs_no_guard() {
    for (reason, guarded) in [(Stopping, ""), (Revoked, ", guarded"), (NotDesired, ", guarded")] {
        let drained = [known("default/a", "sync").drained(reason, 1_000)];
        let expected = format!("remove (absent) default/a{guarded}");
        assert_eq!(decided(ABSENT, None, &drained), expected, "{reason:?}");
    }
}

#[test]
fn unconfirmed_absence_is_previewed_as_removal() {
    let known = [known("default/a", "sync")];
    let input = DecisionInput {
        liveness: TaskLiveness::Missing { due: false },
        evaluation: None,
        known: &known,
        sighting: Sighting::Old,
        manifests_complete: true,
        settling: None,
        self_registered: false,
        now: NOW,
    };
    assert_eq!(decide(&input), Decision::default());
    let (awaited, decision) = decide_if_confirmed(&input, Duration::from_mins(5)).unwrap();
    assert_eq!(awaited, PendingConfirmation::Absence(Duration::from_mins(5)));
    assert!(matches!(decision.steps[0].action, Action::Remove(Evidence::Absent { .. })), "{decision:?}");
}

#[test]
fn unconfirmed_revocation_is_previewed_as_withdrawal() {
    let known = [known("default/a", "sync")];
    for (confirmed, foreseen) in [(false, true), (true, false)] {
        let evaluation = Evaluation { binding: None, ..reject(confirmed) };
        let input = DecisionInput {
            liveness: TaskLiveness::Live,
            evaluation: Some(&evaluation),
            known: &known,
            sighting: Sighting::Recent,
            manifests_complete: true,
            settling: None,
            self_registered: false,
            now: NOW,
        };
        let found = decide_if_confirmed(&input, Duration::ZERO);
        assert_eq!(found.is_some(), foreseen);
        if let Some((awaited, decision)) = found {
            assert_eq!(awaited, PendingConfirmation::SecondRoleRead);
            assert!(
                matches!(decision.steps[0].action, Action::Drain(Revoked, Evidence::RoleTags)),
                "{decision:?}"
            );
        }
    }
}

#[test]
fn registration_of_another_type_is_replaced() {
    let zone_proxy = |name: &str| RegistrationId::of_zone_proxy(ZoneProxyKind::Ingress, name);
    let as_zone_proxy = KnownRegistration { id: zone_proxy("task"), ..known("default/task", "sync") };
    let evaluation = register("sync");
    assert_eq!(
        decided(TaskLiveness::Live, Some(&evaluation), &[as_zone_proxy]),
        "ensure default/task; drain not-desired (manifests) zoneingress/task, guarded; again in 5s"
    );
    let spec =
        json!({"selector": {}, "service": "kv", "proxy": "zoneIngress", "zoneIngress": {"scope": "mesh"}});
    let workload: WorkloadSpec = serde_json::from_value(spec).unwrap();
    let ProxyRole::Zone(proxy) = workload.proxy_role() else { panic!("{workload:?}") };
    let proxy = DesiredProxy::Zone(proxy, ZoneProxyForm::Listener);
    let listener = DesiredRegistration { proxy, ..desired("default/task") };
    let evaluation = self::evaluation(Verdict::Register(Box::new(listener)), "sync");
    let running = KnownRegistration { id: zone_proxy("task"), ..known("default/task", "sync") };
    assert_eq!(
        decided(TaskLiveness::Live, Some(&evaluation), std::slice::from_ref(&running)),
        "ensure default/task",
        "the running proxy is still a ZoneIngress"
    );
    assert_eq!(decided(TaskLiveness::Stopped, None, &[running]), "remove (stopped) zoneingress/task");
    let desired = DesiredRegistration { id: zone_proxy("task"), ..desired("default/task") };
    let evaluation = self::evaluation(Verdict::Register(Box::new(desired)), "sync");
    let elsewhere = KnownRegistration { id: zone_proxy("older"), ..known("default/task", "sync") };
    assert_eq!(decided(TaskLiveness::Live, Some(&evaluation), &[elsewhere]), "ensure zoneingress/older");
}
