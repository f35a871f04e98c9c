use serde_json::json;

use super::*;
use crate::intent::DesiredRegistration;
use ecs_mesh_api::manifests::{Binding, ManifestSet};
use ecs_mesh_api::{ControlPlaneType, WorkloadSpec, ZoneProxyForm};
use ecs_mesh_model::{EcsDeployment, OperatorId};

const SECOND: Duration = Duration::from_secs(1);
const START: Timestamp = Timestamp(1_000_000);
const MAX_HOLD: Duration = Duration::from_mins(15);
const UNTIL: Timestamp = Timestamp(2_000_000_000);

/// ECS takes whole minutes.
fn expires() -> Timestamp {
    START.plus(MAX_HOLD + Duration::from_mins(1))
}

fn arn(name: &str) -> TaskArn {
    TaskArn::parse(&format!("arn:aws:ecs:eu-west-1:111122223333:task/c/{name}")).unwrap()
}

/// Tasks by name and state: `r` ready, `n` not ready, and obstacles: `x` rejected, `h` held, `i` not registered, `p` paused.
/// Names that start with `o` are old ones.
fn tasks(all: &[(&str, char)]) -> Vec<DeployedTask> {
    let task = |(name, state): &(&str, char)| DeployedTask {
        arn: arn(name),
        deployment: if name.starts_with('o') { "ecs-svc/1".into() } else { "ecs-svc/2".into() },
        ready: *state == 'r',
        obstacle: match state {
            'x' => Some(HoldEnd::Rejected),
            'h' => Some(HoldEnd::TaskHeld),
            'i' => Some(HoldEnd::NotRegistered),
            'p' => Some(HoldEnd::Paused),
            _ => None,
        },
    };
    all.iter().map(task).collect()
}

/// A service of two tasks whose second deployment replaces the first.
fn service() -> EcsServiceState {
    let deployment = |id: &str, primary, rollout| EcsDeployment { id: id.into(), primary, rollout };
    EcsServiceState {
        active: true,
        daemon: false,
        rolling: true,
        desired_count: 2,
        maximum_percent: 200,
        deployments: vec![
            deployment("ecs-svc/2", true, EcsRollout::InProgress),
            deployment("ecs-svc/1", false, EcsRollout::Completed),
        ],
    }
}

struct Facts {
    service: EcsServiceState,
    tasks: Vec<DeployedTask>,
    max_hold: Option<Duration>,
    obstacle: Option<HoldEnd>,
    after: Duration,
}

impl Facts {
    fn of(all: &[(&str, char)]) -> Self {
        Self {
            service: service(),
            tasks: tasks(all),
            max_hold: Some(MAX_HOLD),
            obstacle: None,
            after: Duration::ZERO,
        }
    }

    fn decide(&self, hold: &mut DeploymentHold) -> HoldDecision {
        hold.decide(&HoldRequest {
            service: &self.service,
            tasks: &self.tasks,
            max_hold: self.max_hold,
            obstacle: self.obstacle,
            now: START.plus(self.after),
        })
    }
}

/// A hold with two old tasks, both protected by this operator.
fn holding() -> DeploymentHold {
    let mut hold = DeploymentHold::default();
    let decision = Facts::of(&[("o1", 'r'), ("o2", 'r')]).decide(&mut hold);
    assert_eq!(decision.protect, [arn("o1"), arn("o2")]);
    assert_eq!(decision.protect_for, MAX_HOLD);
    for task in &decision.protect {
        assert!(hold.may_protect(task, None));
        hold.record_protected(task, UNTIL, expires());
    }
    hold
}

fn decide(hold: &mut DeploymentHold, all: &[(&str, char)]) -> (Vec<TaskArn>, Vec<TaskArn>, HoldState) {
    let HoldDecision { protect, clear, state, .. } = Facts::of(all).decide(hold);
    (protect, clear, state)
}

fn ended(reason: HoldEnd, now: bool) -> HoldState {
    HoldState::Ended { reason, now }
}

#[test]
fn old_tasks_are_released_as_replacements_get_ready() {
    let mut hold = holding();
    let waiting = HoldState::Holding { ready: 0, needed: 2 };
    let both = [("o1", 'r'), ("o2", 'r'), ("n1", 'n'), ("n2", 'n')];
    assert_eq!(decide(&mut hold, &both), (vec![], vec![], waiting));
    let one = [("o1", 'r'), ("o2", 'r'), ("n1", 'r'), ("n2", 'n')];
    let state = HoldState::Holding { ready: 1, needed: 2 };
    assert_eq!(decide(&mut hold, &one), (vec![], vec![arn("o2")], state));
    hold.record_cleared(&arn("o2"));
    // Another replacement is lost: the other old task is needed again, while ECS has not stopped it.
    assert_eq!(decide(&mut hold, &both), (vec![arn("o2")], vec![], waiting));
    let all = [("o1", 'r'), ("n1", 'r'), ("n2", 'r')];
    assert_eq!(decide(&mut hold, &all), (vec![], vec![arn("o1")], ended(HoldEnd::Ready, true)));
    assert_eq!(decide(&mut hold, &all), (vec![], vec![arn("o1")], ended(HoldEnd::Ready, false)));
    hold.record_cleared(&arn("o1"));
    // It does not begin again.
    assert_eq!(decide(&mut hold, &both), (vec![], vec![], ended(HoldEnd::Ready, false)));
}

#[test]
fn hold_ends_at_once_for_each_reason() {
    type Change = fn(&mut Facts);
    let cases: [(HoldEnd, Change); 13] = [
        (HoldEnd::Disabled, |facts| facts.max_hold = None),
        (HoldEnd::Daemon, |facts| facts.service.daemon = true),
        (HoldEnd::NotRolling, |facts| facts.service.rolling = false),
        (HoldEnd::NoRoom, |facts| facts.service.maximum_percent = 149),
        (HoldEnd::Unsupported, |facts| facts.obstacle = Some(HoldEnd::Unsupported)),
        (HoldEnd::Unreachable, |facts| facts.obstacle = Some(HoldEnd::Unreachable)),
        (HoldEnd::DeploymentFailed, |facts| facts.service.deployments[0].rollout = EcsRollout::Failed),
        (HoldEnd::Rejected, |facts| facts.tasks.extend(tasks(&[("n1", 'n'), ("n2", 'x')]))),
        (HoldEnd::TaskHeld, |facts| facts.tasks.extend(tasks(&[("n1", 'h')]))),
        (HoldEnd::NotRegistered, |facts| facts.tasks.extend(tasks(&[("n1", 'i')]))),
        (HoldEnd::Paused, |facts| facts.tasks.extend(tasks(&[("n1", 'p')]))),
        (HoldEnd::Paused, |facts| facts.tasks[0].obstacle = Some(HoldEnd::Paused)),
        (HoldEnd::Expired, |facts| facts.after = MAX_HOLD),
    ];
    for (reason, change) in cases {
        let mut facts = Facts::of(&[("o1", 'r'), ("o2", 'r')]);
        change(&mut facts);
        let mut hold = holding();
        let decision = facts.decide(&mut hold);
        assert_eq!(decision.state, ended(reason, true));
        assert_eq!((decision.protect, decision.clear), (vec![], vec![arn("o1"), arn("o2")]), "{reason:?}");
        if reason != HoldEnd::Expired {
            let mut fresh = DeploymentHold::default();
            let first = facts.decide(&mut fresh);
            assert_eq!((first.protect, first.clear, first.state), (vec![], vec![], ended(reason, true)));
        }
    }
}

#[test]
fn obstacles_of_old_tasks_do_not_end_the_hold() {
    for state in ['x', 'h', 'i'] {
        let (protect, clear, state) = decide(&mut holding(), &[("o1", 'r'), ("o2", state)]);
        assert_eq!((protect, clear, state), (vec![], vec![], HoldState::Holding { ready: 0, needed: 2 }));
    }
}

#[test]
fn service_without_deployment_is_idle_and_clears() {
    type Change = fn(&mut EcsServiceState);
    let cases: [Change; 2] = [|service| service.active = false, |service| service.deployments.truncate(1)];
    for change in cases {
        let mut facts = Facts::of(&[("o1", 'r'), ("o2", 'r')]);
        change(&mut facts.service);
        let mut hold = DeploymentHold::default();
        assert_eq!(facts.decide(&mut hold).state, HoldState::Idle);
        let mut hold = holding();
        let decision = facts.decide(&mut hold);
        assert_eq!((decision.clear.len(), decision.state), (2, ended(HoldEnd::Over, true)));
    }
}

#[test]
fn answer_older_than_the_hold_changes_nothing() {
    let mut facts = Facts::of(&[("o1", 'r'), ("o2", 'r'), ("n1", 'r')]);
    facts.service.deployments.remove(0);
    facts.service.deployments[0].primary = true;
    let mut hold = holding();
    let decision = facts.decide(&mut hold);
    assert_eq!((decision.protect, decision.clear), (vec![], vec![]));
    assert_eq!(decision.state, HoldState::Holding { ready: 0, needed: 2 });
    facts.after = MAX_HOLD;
    assert_eq!(facts.decide(&mut hold).clear.len(), 2, "not beyond the time limit");
}

#[test]
fn tasks_that_do_not_serve_are_not_protected() {
    let mut hold = DeploymentHold::default();
    let (protect, ..) = decide(&mut hold, &[("o1", 'n'), ("o2", 'r'), ("o3", 'r'), ("o4", 'r')]);
    assert_eq!(protect, [arn("o2"), arn("o3")], "as many as desired");
}

#[test]
fn protection_of_others_is_left_alone_and_counts() {
    let mut hold = DeploymentHold::default();
    assert!(!hold.may_protect(&arn("o1"), Some(UNTIL)));
    let all = [("o1", 'r'), ("o2", 'r'), ("o3", 'r')];
    let (protect, clear, _) = decide(&mut hold, &all);
    assert_eq!((protect, clear), (vec![arn("o2")], vec![]));
    hold.record_protected(&arn("o2"), UNTIL, expires());
    assert_eq!(hold.protected_count(), 1);
    let done = [("o1", 'r'), ("o2", 'r'), ("n1", 'r'), ("n2", 'r')];
    assert_eq!(decide(&mut hold, &done).1, [arn("o2")]);
}

#[test]
fn only_the_protection_as_it_was_set_is_cleared() {
    for (shown, clears, protected) in [
        (Some(UNTIL), true, 2),
        (Some(UNTIL.plus(SECOND)), false, 1),
        (Some(START), false, 1),
        (None, false, 1),
    ] {
        let mut hold = holding();
        assert_eq!(hold.may_clear(&arn("o1"), shown), clears, "{shown:?}");
        assert_eq!(hold.protected_count(), protected, "{shown:?}");
    }
    assert!(!DeploymentHold::default().may_clear(&arn("o1"), Some(UNTIL)), "after a restart");
}

#[test]
fn refused_task_is_not_asked_for_again() {
    let mut hold = DeploymentHold::default();
    hold.decide(&HoldRequest {
        service: &service(),
        tasks: &tasks(&[("o1", 'r'), ("o2", 'r'), ("o3", 'r')]),
        max_hold: Some(MAX_HOLD),
        obstacle: None,
        now: START,
    });
    hold.record_refused(&arn("o1"));
    assert_eq!(decide(&mut hold, &[("o1", 'r'), ("o2", 'r')]).0, [arn("o2")]);
}

/// Whether a task that is not shown has left, or is not shown for now, GetTaskProtection tells when the hold ends.
#[test]
fn protection_of_a_task_that_is_not_shown_is_not_forgotten() {
    let mut hold = holding();
    let (protect, clear, _) = decide(&mut hold, &[("o2", 'r'), ("n1", 'n')]);
    assert_eq!((protect, clear, hold.protected_count()), (vec![], vec![], 2));
    let (protect, clear, _) = decide(&mut hold, &[("o1", 'r'), ("o2", 'r'), ("n1", 'n')]);
    assert_eq!((protect, clear), (vec![], vec![]));
    let (_, clear, _) = decide(&mut hold, &[("o2", 'r'), ("n1", 'r'), ("n2", 'r')]);
    assert_eq!(clear, [arn("o1"), arn("o2")]);
    hold.record_cleared(&arn("o1"));
    hold.record_cleared(&arn("o2"));
    assert_eq!(hold.protected_count(), 0);
}

#[test]
fn another_deployment_starts_another_hold() {
    let mut hold = holding();
    let mut facts = Facts::of(&[("o1", 'r'), ("o2", 'r'), ("n1", 'x')]);
    assert_eq!(facts.decide(&mut hold).state, ended(HoldEnd::Rejected, true));
    hold.record_cleared(&arn("o1"));
    hold.record_cleared(&arn("o2"));
    // A rollback: all tasks so far are old.
    facts.service.deployments[0].primary = false;
    facts.service.deployments.push(EcsDeployment {
        id: "ecs-svc/3".into(),
        primary: true,
        rollout: EcsRollout::InProgress,
    });
    facts.after = MAX_HOLD;
    let decision = facts.decide(&mut hold);
    assert_eq!(decision.state, HoldState::Holding { ready: 0, needed: 2 });
    assert_eq!((decision.protect.len(), decision.protect_for), (2, MAX_HOLD));
}

#[test]
fn later_protections_end_with_the_hold() {
    let mut hold = DeploymentHold::default();
    decide(&mut hold, &[("o1", 'n'), ("o2", 'n')]);
    let mut facts = Facts::of(&[("o1", 'r'), ("o2", 'n')]);
    facts.after = Duration::from_mins(10);
    let decision = facts.decide(&mut hold);
    assert_eq!((decision.protect, decision.protect_for), (vec![arn("o1")], Duration::from_mins(5)));
}

#[test]
fn labels_of_hold_ends_are_distinct() {
    let labels: BTreeSet<&str> = HoldEnd::ALL.iter().map(|end| end.label()).collect();
    assert_eq!(labels.len(), HoldEnd::ALL.len());
}

#[test]
fn refused_task_is_asked_for_in_the_next_deployment() {
    let mut hold = DeploymentHold::default();
    let mut facts = Facts::of(&[("o1", 'r')]);
    assert_eq!(facts.decide(&mut hold).protect, [arn("o1")]);
    hold.record_refused(&arn("o1"));
    assert_eq!(facts.decide(&mut hold).protect, []);
    facts.service.deployments[0].id = "ecs-svc/3".into();
    assert_eq!(facts.decide(&mut hold).protect, [arn("o1")]);
}

#[test]
fn protection_that_has_expired_is_not_this_operators_any_more() {
    let mut hold = DeploymentHold::default();
    let facts = Facts::of(&[("o1", 'r')]);
    facts.decide(&mut hold);
    hold.record_protected(&arn("o1"), UNTIL, START);
    // Another may have protected the task since, so it is read again.
    assert_eq!(facts.decide(&mut hold).protect, [arn("o1")]);
    assert_eq!(hold.protected_count(), 0);
}

#[test]
fn replacement_without_readiness_is_not_awaited() {
    let spec = json!({"controlPlane": "kuma", "mesh": "default", "selector": {"clusters": ["*"]}});
    let binding = Arc::new(Binding {
        name: "prod".into(),
        spec: serde_json::from_value(spec).unwrap(),
        control_plane_type: ControlPlaneType::Kuma,
        guard_released_until: None,
    });
    let inbounds = json!([{"containerPort": 8080, "port": 15000}]);
    for (more, expected) in [
        (json!({"inbounds": inbounds}), None),
        (json!({"proxy": "zoneEgress", "zoneEgress": {"scope": "mesh"}}), None),
        (json!({"proxy": "zoneEgress"}), Some(HoldEnd::NoReadiness)),
        (json!({"proxy": "gateway"}), Some(HoldEnd::NoReadiness)),
        (json!({}), Some(HoldEnd::NoReadiness)),
    ] {
        let mut spec = json!({"selector": {}, "service": "a"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let workload: WorkloadSpec = serde_json::from_value(spec).unwrap();
        let desired = DesiredRegistration::of_workload(
            &ManifestSet::default(),
            &binding,
            ("a", &workload),
            (&OperatorId::parse("op").unwrap(), &arn("n")),
            ZoneProxyForm::Resource,
        );
        let evaluation = Evaluation {
            binding: Some(Arc::clone(&binding)),
            owner: DataplaneOwner::Operator,
            workload: None,
            verdict: Verdict::Register(Box::new(desired)),
            warnings: Vec::new(),
        };
        assert_eq!(HoldEnd::of_evaluation(&evaluation), expected, "{more}");
    }
}
