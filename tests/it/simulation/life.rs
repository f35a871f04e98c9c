//! One life: a world, an operator that is now and then killed and started again, and the end of all faults.

use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ecs_mesh_operator::manifests::{ManifestSet, Status};
use ecs_mesh_operator::mesh::ControlPlane;
use ecs_mesh_operator::mesh::kuma::{KumaControlPlane, NoObserver};
use ecs_mesh_operator::model::{DesiredStatus, OperatorId, TaskId};
use ecs_mesh_operator::reconcile::{Operator, Parts, ReadRates, RunOptions};
use ecs_mesh_operator::sandbox::judge::{Judge, Rules};
use ecs_mesh_operator::sandbox::kuma::{KumaConfig, KumaCp};
use ecs_mesh_operator::sandbox::planes::ControlPlanes;
use ecs_mesh_operator::sandbox::world::{Care, Naming, World, WorldConfig, manifests};
use ecs_mesh_operator::telemetry::metrics::Metrics;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::aws::SimAws;
use super::ground::{
    Ending, Ground, SETTLE, SILENCE, SLOW_STEP, START, STEP, load, load_whatever, under_paused_clock,
};
use super::mesh::SimTransport;

/// What both sides of the simulation see.
pub(super) struct Shared {
    pub(super) ground: Arc<Ground>,
    pub(super) kuma: Mutex<KumaCp>,
    judge: Mutex<Judge>,
}

impl Deref for Shared {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

impl Shared {
    /// Judges what was just written, against the world as it is at this moment.
    pub(super) fn judge_writes(&self) {
        let mut kuma = self.kuma.lock().unwrap();
        let journal = kuma.take_journal();
        if !journal.is_empty() {
            let mut cloud = self.cloud.lock().unwrap();
            cloud.step(self.clock.now());
            self.judge.lock().unwrap().writes(journal, &cloud, &kuma);
        }
    }
}

/// Lives the life of a seed.
pub(super) fn live(seed: u64) -> Ending {
    under_paused_clock(|| Life::begin(seed).live())
}

struct Life {
    seed: u64,
    rng: fastrand::Rng,
    shared: Arc<Shared>,
    world: World,
    manifests: watch::Sender<Arc<Status>>,
    /// What the manifests are written for.
    care: Care,
    /// Edits so far.
    generation: u64,
    /// Whether the list that lets svc-* call kv is in force.
    more_outbounds: bool,
    operator: Option<(Arc<Operator>, JoinHandle<()>)>,
    ending: Ending,
}

impl Life {
    fn begin(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let ground = Ground::new(seed, &mut rng);
        let naming = if rng.bool() { Naming::TaskId } else { Naming::Hostname };
        let mut kuma = KumaCp::new(KumaConfig::default(), START);
        let cluster = ground.cluster.to_string();
        let world = WorldConfig {
            tasks: rng.usize(8..40),
            seed,
            gap: (Duration::from_millis(500), Duration::from_secs(8)),
            naming,
            planes: ControlPlanes::Kuma,
            revoked_for: (Duration::from_secs(10), Duration::from_secs(90)),
        };
        let world = World::begin(world, &mut ground.cloud.lock().unwrap(), &mut kuma, START).unwrap();
        let care = Care {
            kuma: Some("http://kuma:5681".to_owned()),
            consul: None,
            cluster: cluster.clone(),
            sweep_interval: "30s",
            grace_age: "1m",
            drain: "2s",
            recheck: "1m",
            dataplane_name: if naming == Naming::TaskId { "{taskId}" } else { "{hostname}" },
        };
        let set = load(&manifests(&care, world.services()));
        let judge = Judge::new(Rules {
            operator: "simulated".to_owned(),
            cluster: cluster.clone(),
            tags_lag: Duration::from_secs(100),
            max_fraction: 0.3,
            min_owned: 10,
        });
        let shared = Shared { ground: Arc::new(ground), kuma: Mutex::new(kuma), judge: Mutex::new(judge) };
        let status = Status { set, errors: Vec::new(), warnings: Vec::new(), files: 1 };
        Self {
            seed,
            rng,
            shared: Arc::new(shared),
            world,
            manifests: watch::channel(Arc::new(status)).0,
            care,
            generation: 1,
            more_outbounds: false,
            operator: None,
            ending: Ending::default(),
        }
    }

    async fn live(mut self) -> Ending {
        self.start_operator();
        self.eventful_time().await;
        self.edit(&[], false);
        self.shared.lease.hold();
        self.shared.faults.end();
        self.world.calm_down(&mut self.shared.cloud.lock().unwrap(), self.shared.now());
        self.pass(SETTLE).await;
        self.check_quiet();
        let before = self.shared.judge.lock().unwrap().tally();
        self.pass(SILENCE).await;
        let after = self.shared.judge.lock().unwrap().tally();
        if before != after {
            self.ending
                .wrong
                .push(format!("I6: written although nothing happened: {before:?} then {after:?}"));
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
                let until = self.shared.now().plus(Duration::from_secs(self.rng.u64(5..60)));
                self.shared.faults.outage(self.rng.bool(), until);
                next_outage = self.in_a_while(60..200);
            }
            if now >= lease_turns {
                let held = self.shared.lease.turn();
                self.shared.note(|| format!("lease held: {held}"));
                lease_turns = self.in_a_while(if held { 60..200 } else { 3..25 });
            }
            if now >= next_edit {
                self.edit_something();
                next_edit = self.in_a_while(15..60);
            }
            if now >= next_ghost {
                self.shared.send_ghost(&mut self.rng);
                next_ghost = self.in_a_while(20..90);
            }
        }
    }

    fn in_a_while(&mut self, seconds: std::ops::Range<u64>) -> Instant {
        Instant::now() + Duration::from_millis(self.rng.u64(seconds.start * 1_000..seconds.end * 1_000))
    }

    async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep(if time > STEP { SLOW_STEP } else { STEP }).await;
            {
                let mut cloud = self.shared.cloud.lock().unwrap();
                let mut kuma = self.shared.kuma.lock().unwrap();
                self.world.step(&mut cloud, &mut kuma, None, self.shared.now());
            }
            for happening in self.world.take_happenings() {
                self.shared.note(|| format!("world {}", happening.words));
            }
        }
    }

    fn start_operator(&mut self) {
        let shared = Arc::clone(&self.shared);
        let id = OperatorId::parse("simulated").unwrap();
        let connected = Arc::clone(&shared);
        let connect_id = id.clone();
        let aws = Arc::new(SimAws(Arc::clone(&shared.ground)));
        let operator = Operator::new(Parts {
            book: None,
            id,
            ecs: Arc::clone(&aws) as _,
            iam: Arc::clone(&aws) as _,
            connect: Arc::new(move |_, _| {
                let transport = SimTransport(Arc::clone(&connected));
                let plane = KumaControlPlane::new(transport, connect_id.clone(), Arc::new(NoObserver));
                Ok(Arc::new(plane) as Arc<dyn ControlPlane>)
            }),
            lease: Arc::clone(&shared.lease) as _,
            clock: shared.clock.clone(),
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
        self.shared.judge.lock().unwrap().restarted();
        self.shared.note(|| "restart".to_owned());
        self.start_operator();
    }

    /// Lists come and go, workloads are deleted and written again, and sometimes a file has a slip in it.
    fn edit_something(&mut self) {
        match self.rng.u8(..10) {
            0..5 => {
                self.more_outbounds = !self.more_outbounds;
                self.edit(&[], false);
            }
            5..7 => {
                let services = self.world.services();
                let service = services[self.rng.usize(..services.len())].name.clone();
                let now = self.shared.now();
                // Until the next edit at least, and what that leads to.
                let until = now.plus(Duration::from_mins(3));
                self.shared.judge.lock().unwrap().is_unwanted(&service, now, until);
                self.edit(&[&service], false);
            }
            7..9 => {
                // Nothing may go for the silence of a set that could not be read whole.
                let services = self.world.services();
                let service = services[self.rng.usize(..services.len())].name.clone();
                self.edit(&[&service], true);
            }
            _ => self.edit(&[], false),
        }
    }

    fn edit(&mut self, without: &[&str], broken: bool) {
        let services: Vec<_> =
            self.world.services().iter().filter(|s| !without.contains(&s.name.as_str())).cloned().collect();
        let mut text = manifests(&self.care, &services);
        if self.more_outbounds {
            text.push_str(MORE_OUTBOUNDS);
        }
        if broken {
            text.push_str(
                "---\napiVersion: ecs-mesh.dev/v1alpha1\nkind: Workload\nmetadata: {name: slip}\nspec: {}\n",
            );
        }
        let (set, errors) = load_whatever(&text);
        assert_eq!(set.complete, !broken);
        self.generation += 1;
        let set = Arc::new(ManifestSet { generation: self.generation, ..(*set).clone() });
        self.shared
            .note(|| format!("edit without {without:?}, broken {broken}, more {}", self.more_outbounds));
        let status = Status { set, errors, warnings: Vec::new(), files: 1 };
        self.manifests.send_replace(Arc::new(status));
    }

    /// Running tasks have the outbounds that the manifests in force give them. Those that are gone, and whose removal
    /// the guard holds back, have what they had.
    fn check_outbounds(&mut self, held: &std::collections::BTreeSet<String>) {
        let (cloud, kuma) = (self.shared.cloud.lock().unwrap(), self.shared.kuma.lock().unwrap());
        for (_, name, body) in kuma.dataplanes() {
            let id = body["labels"]["ecs-mesh.dev/task-id"].as_str().unwrap_or("");
            let task =
                TaskId::parse(id).ok().and_then(|id| cloud.task(&self.shared.cluster.task(id).to_string()));
            if task.is_none_or(|task| task.desired_status == DesiredStatus::Stopped) {
                // A guard may hold what is left of a task that is gone.
                continue;
            }
            let service = body["networking"]["inbound"][0]["tags"]["kuma.io/service"].as_str().unwrap_or("");
            let outbounds = body["networking"]["outbound"].as_array().cloned().unwrap_or_default();
            let has = outbounds.iter().any(|outbound| outbound["port"] == 15_052);
            let task = body["labels"]["ecs-mesh.dev/task-id"].as_str().unwrap_or("");
            if service.starts_with("svc-") && !held.contains(task) && has != self.more_outbounds {
                self.ending
                    .wrong
                    .push(format!("after quiet: {name} of {service} has the outbounds {outbounds:?}"));
            }
        }
    }

    fn check_quiet(&mut self) {
        let held: std::collections::BTreeSet<String> = match &self.operator {
            Some((operator, _)) => {
                let planes = operator.planes();
                planes.values().flat_map(|p| p.held_tasks()).map(|task| task.id().to_string()).collect()
            }
            None => std::collections::BTreeSet::default(),
        };
        self.check_outbounds(&held);
        let (cloud, kuma) = (self.shared.cloud.lock().unwrap(), self.shared.kuma.lock().unwrap());
        let mut judge = self.shared.judge.lock().unwrap();
        let left =
            judge.quiet(&cloud, &kuma, self.world.services(), &|id| held.contains(id), self.shared.now());
        self.ending.wrong.extend(left.into_iter().map(|words| format!("after quiet: {words}")));
    }

    fn finish(mut self) -> Ending {
        if let Some((_, task)) = self.operator.take() {
            task.abort();
        }
        self.ending.wrong.append(&mut self.shared.unleased.lock().unwrap());
        let judge = self.shared.judge.lock().unwrap();
        for violation in judge.violations() {
            let at = (violation.at.0 - START.0) / 1_000;
            self.ending.wrong.push(format!("{} at {at}s: {}", violation.invariant, violation.words));
        }
        self.ending.created = judge.tally().created;
        self.ending.removed = judge.tally().removed;
        self.ending.tasks = self.world.census().started;
        self.ending.faults = self.shared.faults.injected();
        self.ending.history = self.shared.take_history();
        self.ending
    }
}

const MORE_OUTBOUNDS: &str = "---
apiVersion: ecs-mesh.dev/v1alpha1
kind: OutboundList
metadata: {name: kv-users}
spec:
  workloads: [\"svc-*\"]
  outbounds:
    - {service: kv, targetPort: 15050, listen: {port: 15052}}
";
