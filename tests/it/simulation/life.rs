//! A life at Kuma, where the operator registers tasks.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_kuma::{KumaControlPlane, NoObserver};
use ecs_mesh_manifests::Status;
use ecs_mesh_model::{DesiredStatus, OperatorId, TaskId};
use ecs_mesh_operator::reconcile::{Connect, Connected};
use ecs_mesh_sandbox::judge::{Judge, Rules};
use ecs_mesh_sandbox::kuma::{KumaConfig, KumaCp};
use ecs_mesh_sandbox::planes::ControlPlanes;
use ecs_mesh_sandbox::world::{Care, Naming, World, WorldConfig, manifests};

use super::course::{Course, OPERATOR, SLIP, Setting};
use super::ground::{Ending, Ground, START, load_whatever, under_paused_clock, violation};
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
    under_paused_clock(|| {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let setting = AtKuma::begin(seed, &mut rng);
        Course::new(seed, rng, setting).live()
    })
}

struct AtKuma {
    shared: Arc<Shared>,
    world: World,
    /// What the manifests are written for.
    care: Care,
    /// Edits so far.
    generation: u64,
    /// Whether the list that lets svc-* call kv is in force.
    more_outbounds: bool,
}

impl AtKuma {
    fn begin(seed: u64, rng: &mut fastrand::Rng) -> Self {
        let ground = Ground::new(seed, rng, false);
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
        let judge = Judge::new(Rules {
            operator: OPERATOR.to_owned(),
            cluster: cluster.clone(),
            tags_lag: Duration::from_secs(100),
            max_fraction: 0.3,
            min_owned: 10,
        });
        let shared = Shared { ground: Arc::new(ground), kuma: Mutex::new(kuma), judge: Mutex::new(judge) };
        Self { shared: Arc::new(shared), world, care, generation: 1, more_outbounds: false }
    }

    /// The manifests, without the workloads of some services, and perhaps with a slip.
    fn written_down(&self, without: &[&str], broken: bool) -> Status {
        let services: Vec<_> =
            self.world.services().iter().filter(|s| !without.contains(&s.name.as_str())).cloned().collect();
        let mut text = manifests(&self.care, &services);
        if self.more_outbounds {
            text.push_str(MORE_OUTBOUNDS);
        }
        if broken {
            text.push_str(SLIP);
        }
        let (set, errors) = load_whatever(&text);
        assert_eq!(set.complete, !broken);
        let set = Arc::new(ManifestSet { generation: self.generation, ..(*set).clone() });
        Status { set, errors, warnings: Vec::new(), files: 1 }
    }

    fn rewritten(&mut self, without: &[&str], broken: bool) -> Status {
        self.generation += 1;
        self.shared
            .note(|| format!("edit without {without:?}, broken {broken}, more {}", self.more_outbounds));
        self.written_down(without, broken)
    }

    fn a_service(&self, rng: &mut fastrand::Rng) -> String {
        let services = self.world.services();
        services[rng.usize(..services.len())].name.clone()
    }

    /// Running tasks have the outbounds that the manifests in force give them. Those that are gone, and whose removal
    /// the guard holds back, have what they had.
    fn wrong_outbounds(&self, held: &BTreeSet<String>) -> Vec<String> {
        let mut wrong = Vec::new();
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
                wrong.push(format!("after quiet: {name} of {service} has the outbounds {outbounds:?}"));
            }
        }
        wrong
    }
}

impl Setting for AtKuma {
    fn ground(&self) -> &Arc<Ground> {
        &self.shared.ground
    }

    fn connect(&self) -> Connect {
        let shared = Arc::clone(&self.shared);
        Arc::new(move |_, _| {
            let id = OperatorId::parse(OPERATOR).unwrap();
            let plane = KumaControlPlane::new(SimTransport(Arc::clone(&shared)), id, Arc::new(NoObserver));
            Ok(Connected::new(Arc::new(plane)))
        })
    }

    fn manifests(&self) -> Status {
        self.written_down(&[], false)
    }

    fn step(&mut self) {
        {
            let mut cloud = self.shared.cloud.lock().unwrap();
            let mut kuma = self.shared.kuma.lock().unwrap();
            self.world.step(&mut cloud, &mut kuma, None, self.shared.now());
        }
        for happening in self.world.take_happenings() {
            self.shared.note(|| format!("world {}", happening.words));
        }
    }

    /// Lists come and go, workloads are deleted and written again, and sometimes a file has a slip in it.
    fn edit(&mut self, rng: &mut fastrand::Rng) -> Option<Status> {
        Some(match rng.u8(..10) {
            0..5 => {
                self.more_outbounds = !self.more_outbounds;
                self.rewritten(&[], false)
            }
            5..7 => {
                let service = self.a_service(rng);
                let now = self.shared.now();
                // Until the next edit at least, and what that leads to.
                let until = now.plus(Duration::from_mins(3));
                self.shared.judge.lock().unwrap().is_unwanted(&service, now, until);
                self.rewritten(&[&service], false)
            }
            7..9 => {
                // Nothing may go for the silence of a set that could not be read whole.
                let service = self.a_service(rng);
                self.rewritten(&[&service], true)
            }
            _ => self.rewritten(&[], false),
        })
    }

    fn mend(&mut self) -> Option<Status> {
        Some(self.rewritten(&[], false))
    }

    fn restarted(&mut self) {
        self.shared.judge.lock().unwrap().restarted();
    }

    fn calm_down(&mut self) {
        self.world.calm_down(&mut self.shared.cloud.lock().unwrap(), self.shared.now());
    }

    fn after_quiet(&mut self, held: &BTreeSet<String>) -> Vec<String> {
        let mut wrong = self.wrong_outbounds(held);
        let (cloud, kuma) = (self.shared.cloud.lock().unwrap(), self.shared.kuma.lock().unwrap());
        let mut judge = self.shared.judge.lock().unwrap();
        let (services, now) = (self.world.services(), self.shared.now());
        let left = judge.quiet(&cloud, &kuma, services, &|id| held.contains(id), now);
        wrong.extend(left.into_iter().map(|words| format!("after quiet: {words}")));
        wrong
    }

    fn written(&self) -> String {
        format!("{:?}", self.shared.judge.lock().unwrap().tally())
    }

    fn end(self, ending: &mut Ending) {
        let judge = self.shared.judge.lock().unwrap();
        ending.wrong.extend(judge.violations().iter().map(violation));
        ending.created = judge.tally().created;
        ending.removed = judge.tally().removed;
        ending.tasks = self.world.census().started;
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
