//! Violations that the oracle for held deployments finds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::HoldOracle;
use super::kuma::KumaFixture;
use super::{Invariant, assert_violation, running};
use crate::aws::{CloudTask, LifeTimes, UpdateService, UpdateTaskProtection};
use crate::world::CLUSTER;

const SECOND: Duration = Duration::from_secs(1);
const MAX_HOLD: Duration = Duration::from_mins(15);
const PATIENCE: Duration = Duration::from_secs(20);

/// The service whose deployment is held: two tasks.
const SERVICE: &str = "kv";

/// A world whose tasks are ready. The test acts as the operator.
struct HoldFixture {
    base: KumaFixture,
    oracle: HoldOracle,
    old: Vec<Arc<CloudTask>>,
}

impl HoldFixture {
    fn new() -> Self {
        let mut base = KumaFixture::new();
        base.pass(Duration::from_secs(5));
        let oracle = HoldOracle::holding(MAX_HOLD, Some(PATIENCE), base.now);
        let old = running(&base.cloud, SERVICE);
        let mut fixture = Self { base, oracle, old };
        fixture.pass(40);
        fixture
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.base.pass(SECOND);
            let KumaFixture { cloud, kuma, world, now, .. } = &self.base;
            self.oracle.step(world.services(), cloud, kuma, false, *now);
        }
    }

    /// Begins a deployment whose tasks count as healthy after this time.
    fn deploy(&mut self, healthy_after: Duration) {
        let life = self.base.cloud.config().life.clone();
        self.base.cloud.set_life(LifeTimes { unchecked_healthy: healthy_after, ..life });
        let request = UpdateService {
            cluster: CLUSTER.to_owned(),
            service: SERVICE.to_owned(),
            force_new_deployment: true,
            ..UpdateService::default()
        };
        self.base.cloud.update_service(&request, self.base.now).unwrap();
        self.pass(3);
        assert_eq!(self.new_tasks().len(), 2);
    }

    fn new_tasks(&self) -> Vec<Arc<CloudTask>> {
        let is_new = |task: &Arc<CloudTask>| task.started_by != self.old[0].started_by;
        running(&self.base.cloud, SERVICE).into_iter().filter(is_new).collect()
    }

    /// Registers the replacements, and waits until they are ready.
    fn register_replacements(&mut self) {
        for (_, task, body) in self.base.registrations() {
            self.base.put(&task, &body);
        }
        self.pass(10);
    }

    fn update(&mut self, tasks: &[Arc<CloudTask>], minutes: Option<i64>, by_others: bool) {
        let request = UpdateTaskProtection {
            cluster: CLUSTER.to_owned(),
            tasks: tasks.iter().map(|task| task.arn.to_string()).collect(),
            protection_enabled: Some(minutes.is_some()),
            expires_in_minutes: minutes,
        };
        let KumaFixture { cloud, now, .. } = &mut self.base;
        let protection = |task: &Arc<CloudTask>| Some((Arc::clone(&task.arn), task.protected_until?));
        let before: BTreeMap<_, _> = cloud.all_tasks().filter_map(protection).collect();
        let answer = cloud.update_task_protection(&request, *now).unwrap();
        assert_eq!(answer.failures, []);
        if by_others {
            self.oracle.record_foreign_update(&answer, cloud, *now);
        } else {
            self.oracle.check_update(&before, &answer, false, cloud, *now);
        }
    }

    fn protect(&mut self, minutes: i64) {
        let old = self.old.clone();
        self.update(&old, Some(minutes), false);
    }

    fn clear(&mut self) {
        let old = self.old.clone();
        self.update(&old, None, false);
    }

    fn assert_violation(&self, invariant: Invariant, message: &[&str]) {
        assert_violation(self.oracle.violations(), invariant, message);
    }

    fn after_quiet(&self) -> Vec<String> {
        HoldOracle::check_after_quiet(self.base.world.services(), &self.base.cloud)
    }
}

#[test]
fn oracle_accepts_a_hold_until_replacements_are_ready() {
    let mut fixture = HoldFixture::new();
    fixture.deploy(Duration::from_secs(8));
    fixture.protect(15);
    fixture.pass(60);
    assert_eq!(running(&fixture.base.cloud, SERVICE).len(), 4, "ECS would have stopped the old ones");
    assert_eq!(fixture.oracle.held_services().into_iter().collect::<Vec<_>>(), [SERVICE]);
    fixture.register_replacements();
    fixture.clear();
    fixture.pass(60);
    assert_eq!(fixture.oracle.violations(), []);
    assert_eq!((fixture.oracle.tally().protected, fixture.oracle.tally().cleared), (2, 2));
    assert_eq!(fixture.after_quiet(), Vec::<String>::new());
}

#[test]
fn protection_was_not_asked_for() {
    let mut fixture = HoldFixture::new();
    fixture.old.truncate(1);
    fixture.oracle.record_wanted(false, fixture.base.now);
    fixture.pass(101);
    fixture.deploy(MAX_HOLD);
    fixture.protect(15);
    fixture.assert_violation(Invariant::I3, &[SERVICE, "no manifest asks for it"]);
}

#[test]
fn task_of_the_current_deployment_must_not_be_protected() {
    let mut fixture = HoldFixture::new();
    fixture.deploy(MAX_HOLD);
    let new = fixture.new_tasks();
    fixture.update(&new[..1], Some(15), false);
    fixture.assert_violation(Invariant::I3, &[SERVICE, "of the current deployment"]);
    let mut fixture = HoldFixture::new();
    fixture.old.truncate(1);
    fixture.protect(15);
    fixture.assert_violation(Invariant::I3, &[SERVICE, "of the current deployment"]);
}

#[test]
fn protection_of_others_must_not_be_touched() {
    for (minutes, how) in [(Some(15), "replaced"), (None, "cleared")] {
        let mut fixture = HoldFixture::new();
        fixture.old.truncate(1);
        let old = fixture.old.clone();
        fixture.update(&old, Some(60), true);
        fixture.deploy(MAX_HOLD);
        fixture.pass(20);
        fixture.update(&old, minutes, false);
        fixture.assert_violation(Invariant::I3, &[how, "another"]);
        // The operator could not have known of this one.
        let mut fixture = HoldFixture::new();
        fixture.old.truncate(1);
        fixture.deploy(MAX_HOLD);
        fixture.update(&old, Some(60), true);
        fixture.pass(5);
        fixture.update(&old, minutes, false);
        assert_eq!(fixture.oracle.violations(), []);
    }
}

#[test]
fn protection_that_others_set_anew_is_theirs() {
    let mut fixture = HoldFixture::new();
    fixture.old.truncate(1);
    fixture.deploy(MAX_HOLD);
    fixture.protect(15);
    let old = fixture.old.clone();
    fixture.update(&old, Some(60), true);
    fixture.pass(20);
    fixture.clear();
    fixture.assert_violation(Invariant::I3, &["cleared", "another"]);
}

#[test]
fn another_process_knows_of_no_protection() {
    let mut fixture = HoldFixture::new();
    fixture.old.truncate(1);
    fixture.deploy(MAX_HOLD);
    fixture.protect(15);
    fixture.oracle.record_restart(fixture.base.now);
    fixture.pass(20);
    fixture.clear();
    fixture.assert_violation(Invariant::I3, &["cleared", "another"]);
}

#[test]
fn replica_that_leads_again_knows_its_protections() {
    for (process, is_violation) in [("b", true), ("a", false)] {
        let mut fixture = HoldFixture::new();
        fixture.old.truncate(1);
        fixture.deploy(MAX_HOLD);
        fixture.oracle.record_takeover("a", fixture.base.now);
        fixture.protect(15);
        fixture.oracle.record_takeover("b", fixture.base.now);
        fixture.oracle.record_takeover(process, fixture.base.now);
        fixture.pass(20);
        fixture.clear();
        if is_violation {
            fixture.assert_violation(Invariant::I3, &["cleared", "another"]);
        } else {
            assert_eq!(fixture.oracle.violations(), []);
        }
    }
}

#[test]
fn protection_must_not_outlive_its_reason() {
    let mut fixture = HoldFixture::new();
    fixture.deploy(MAX_HOLD);
    fixture.protect(15);
    fixture.register_replacements();
    fixture.pass(5);
    assert_eq!(fixture.oracle.violations(), []);
    fixture.pass(20);
    fixture.assert_violation(Invariant::I1, &["2 old tasks of kv are protected while 0"]);

    let mut fixture = HoldFixture::new();
    fixture.deploy(MAX_HOLD);
    fixture.protect(15);
    fixture.oracle.record_wanted(false, fixture.base.now);
    fixture.pass(30);
    fixture.assert_violation(Invariant::I1, &["2 old tasks of kv are protected while 0"]);
}

#[test]
fn protection_must_not_exceed_the_longest_hold() {
    let mut fixture = HoldFixture::new();
    fixture.old.truncate(1);
    fixture.deploy(MAX_HOLD);
    fixture.protect(17);
    fixture.assert_violation(Invariant::I1, &["protected until"]);
}

#[test]
fn nothing_is_protected_for_an_unsupported_control_plane() {
    let mut fixture = HoldFixture::new();
    fixture.old.truncate(1);
    fixture.deploy(MAX_HOLD);
    fixture.oracle.record_unsupported(Some(fixture.base.now));
    fixture.pass(20);
    fixture.protect(15);
    fixture.assert_violation(Invariant::I11, &[SERVICE, "unsupported"]);
}

#[test]
fn held_deployment_must_leave_ready_endpoints() {
    let mut fixture = HoldFixture::new();
    fixture.deploy(Duration::from_secs(8));
    fixture.pass(20);
    let found = fixture.oracle.violations();
    assert!(!found.is_empty());
    for violation in found {
        assert_eq!(violation.invariant, Invariant::I10);
        assert!(violation.message.contains("the last ready endpoint of kv"), "{}", violation.message);
    }
    // Something else kept the operator from it.
    let mut fixture = HoldFixture::new();
    fixture.deploy(Duration::from_secs(8));
    fixture.oracle.record_disturbance(fixture.base.now);
    fixture.pass(20);
    assert_eq!(fixture.oracle.violations(), []);
}

#[test]
fn deployments_must_end() {
    let mut fixture = HoldFixture::new();
    fixture.deploy(Duration::from_secs(8));
    fixture.old.truncate(1);
    fixture.protect(15);
    fixture.pass(60);
    let left = fixture.after_quiet();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left[0].contains("of kv is protected until"), "{left:?}");
    assert_eq!(left[1], "the deployment of kv has not ended");
    let until = HoldOracle::settles_at(&fixture.base.cloud).unwrap();
    fixture.base.pass(fixture.base.now.age_at(until));
    assert_eq!(fixture.after_quiet(), Vec::<String>::new());
    assert_eq!(HoldOracle::settles_at(&fixture.base.cloud), None);
}
