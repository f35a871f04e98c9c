//! The course of a life, wherever it is lived: an eventful time, in which the operator is now and then killed and
//! started again; the end of all faults; a time to settle; and a silence in which nothing may be written.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ecs_mesh_manifests::Status;
use ecs_mesh_model::OperatorId;
use ecs_mesh_operator::reconcile::{Connect, Operator, Parts, ReadRates, RunOptions};
use ecs_mesh_operator::telemetry::metrics::Metrics;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::aws::SimAws;
use super::ground::{Ending, Ground, SETTLE, SILENCE, SLOW_STEP, STEP};

/// The operator's id.
pub(super) const OPERATOR: &str = "simulated";
/// A document in which somebody made a slip.
pub(super) const SLIP: &str =
    "---\napiVersion: ecs-mesh.dev/v1alpha1\nkind: Workload\nmetadata: {name: slip}\nspec: {}\n";

/// What is particular to the place where a life is lived.
pub(super) trait Setting {
    fn ground(&self) -> &Arc<Ground>;

    /// Makes control plane clients.
    fn connect(&self) -> Connect;

    /// The manifests to begin with.
    fn manifests(&self) -> Status;

    /// The world moves on, and the judge looks.
    fn step(&mut self);

    /// What the operator knows now.
    fn looks_at(&mut self, _operator: &Operator) {}

    /// What else happens in an eventful time.
    fn meanwhile(&mut self, _rng: &mut fastrand::Rng) {}

    /// Somebody edits the manifests; nobody does so everywhere.
    fn edit(&mut self, rng: &mut fastrand::Rng) -> Option<Status>;

    /// Somebody puts them right.
    fn mend(&mut self) -> Option<Status>;

    /// The operator is another process now.
    fn restarted(&mut self);

    /// Nothing goes wrong any more.
    fn calm_down(&mut self);

    /// What is not as it should be after quiet. `held` are the tasks that a guard holds.
    fn after_quiet(&mut self, held: &BTreeSet<String>) -> Vec<String>;

    /// What the operator has written, in numbers.
    fn written(&self) -> String;

    /// The sum of it all.
    fn end(self, ending: &mut Ending);
}

/// A life under way.
pub(super) struct Course<S> {
    seed: u64,
    rng: fastrand::Rng,
    setting: S,
    manifests: watch::Sender<Arc<Status>>,
    operator: Option<(Arc<Operator>, JoinHandle<()>)>,
    ending: Ending,
}

impl<S: Setting> Course<S> {
    pub(super) fn new(seed: u64, rng: fastrand::Rng, setting: S) -> Self {
        let manifests = watch::channel(Arc::new(setting.manifests())).0;
        Self { seed, rng, setting, manifests, operator: None, ending: Ending::default() }
    }

    pub(super) async fn live(mut self) -> Ending {
        self.start_operator();
        self.eventful_time().await;
        let mended = self.setting.mend();
        self.publish(mended);
        self.setting.ground().lease.hold();
        self.setting.ground().faults.end();
        self.setting.calm_down();
        self.pass(SETTLE).await;
        let held = self.held();
        let left = self.setting.after_quiet(&held);
        self.ending.wrong.extend(left);
        let calls = |ground: &Ground| (ground.calls_to("ecs:"), ground.calls_to("mesh"));
        let (before, called) = (self.setting.written(), calls(self.setting.ground()));
        self.pass(SILENCE).await;
        let (after, calls) = (self.setting.written(), calls(self.setting.ground()));
        self.ending.silent_calls = (calls.0 - called.0, calls.1 - called.1);
        if before != after {
            let words = format!("I6: written although nothing happened: {before} then {after}");
            self.ending.wrong.push(words);
        }
        self.finish()
    }

    async fn eventful_time(&mut self) {
        let end = Instant::now() + Duration::from_secs(self.rng.u64(120..330));
        let mut next_restart = self.in_a_while(40..200);
        let mut next_outage = self.in_a_while(60..200);
        let mut next_ghost = self.in_a_while(20..90);
        let mut next_edit = self.in_a_while(15..60);
        let mut lease_turns = self.in_a_while(30..200);
        while Instant::now() < end {
            self.pass(STEP).await;
            let now = Instant::now();
            if now >= next_restart {
                self.restart_operator();
                next_restart = self.in_a_while(40..200);
            }
            if now >= next_outage {
                let ground = self.setting.ground();
                let until = ground.now().plus(Duration::from_secs(self.rng.u64(5..60)));
                ground.faults.outage(self.rng.bool(), until);
                next_outage = self.in_a_while(60..200);
            }
            if now >= lease_turns {
                let ground = self.setting.ground();
                let held = ground.lease.turn();
                ground.note(|| format!("lease held: {held}"));
                lease_turns = self.in_a_while(if held { 60..200 } else { 3..25 });
            }
            if now >= next_edit {
                let edited = self.setting.edit(&mut self.rng);
                self.publish(edited);
                next_edit = self.in_a_while(15..60);
            }
            if now >= next_ghost {
                self.setting.ground().send_ghost(&mut self.rng);
                next_ghost = self.in_a_while(20..90);
            }
            self.setting.meanwhile(&mut self.rng);
        }
    }

    fn in_a_while(&mut self, seconds: std::ops::Range<u64>) -> Instant {
        in_a_while(&mut self.rng, seconds)
    }

    async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep(if time > STEP { SLOW_STEP } else { STEP }).await;
            self.setting.step();
            if let Some((operator, _)) = &self.operator {
                self.setting.looks_at(operator);
            }
        }
    }

    fn publish(&self, status: Option<Status>) {
        if let Some(status) = status {
            self.manifests.send_replace(Arc::new(status));
        }
    }

    fn start_operator(&mut self) {
        let ground = Arc::clone(self.setting.ground());
        let aws = Arc::new(SimAws(Arc::clone(&ground)));
        let operator = Operator::new(Parts {
            book: None,
            id: OperatorId::parse(OPERATOR).unwrap(),
            ecs: Arc::clone(&aws) as _,
            iam: Arc::clone(&aws) as _,
            connect: self.setting.connect(),
            lease: Arc::clone(&ground.lease) as _,
            clock: ground.clock.clone(),
            metrics: Arc::new(Metrics::default()),
            rates: ReadRates::default(),
            seed: self.seed.wrapping_add(self.ending.restarts),
        });
        let (running, manifests) = (Arc::clone(&operator), self.manifests.subscribe());
        let task = tokio::spawn(async move {
            let options = RunOptions { receivers: 2, ..RunOptions::default() };
            running.run(Some(aws), manifests, options, CancellationToken::new()).await.unwrap();
        });
        self.operator = Some((operator, task));
    }

    /// Killed wherever it just is, and started again.
    fn restart_operator(&mut self) {
        if let Some((_, task)) = self.operator.take() {
            task.abort();
        }
        self.ending.restarts += 1;
        self.setting.restarted();
        self.setting.ground().note(|| "restart".to_owned());
        self.start_operator();
    }

    /// The tasks that a guard holds.
    fn held(&self) -> BTreeSet<String> {
        let Some((operator, _)) = &self.operator else { return BTreeSet::new() };
        let planes = operator.planes();
        planes.values().flat_map(|plane| plane.held_tasks()).map(|task| task.id().to_string()).collect()
    }

    fn finish(mut self) -> Ending {
        if let Some((_, task)) = self.operator.take() {
            task.abort();
        }
        let ground = Arc::clone(self.setting.ground());
        self.ending.wrong.append(&mut ground.unleased.lock().unwrap());
        self.setting.end(&mut self.ending);
        self.ending.faults = ground.faults.struck();
        self.ending.history = ground.take_history();
        self.ending
    }
}

/// Some time from now.
pub(super) fn in_a_while(rng: &mut fastrand::Rng, seconds: std::ops::Range<u64>) -> Instant {
    Instant::now() + Duration::from_millis(rng.u64(seconds.start * 1_000..seconds.end * 1_000))
}
