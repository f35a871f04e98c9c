//! A life of tokens.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::OperatorId;
use ecs_mesh_operator::operator::{Operator, OperatorDeps, ReadRates, RunOptions, TokenStores};
use ecs_mesh_operator::telemetry::metrics::Metrics;
use ecs_mesh_sandbox::kuma::{KumaConfig, KumaCp};
use ecs_mesh_sandbox::oracle::TokenOracle;
use ecs_mesh_sandbox::world::MESH;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::super::aws::SimAws;
use super::super::driver::{INVALID_DOCUMENT, OPERATOR, in_a_while};
use super::super::env::{START, SimEnv, SimReport, load_whatever, under_paused_clock, violation};
use super::super::faults::SimFault;
use super::super::life::KumaShared;
use super::store::{PATH, SimTokenStore};

const HOUR: u64 = 3_600;
/// Step of the world: much shorter than any time of a token.
const STEP: Duration = Duration::from_secs(30);
const OVERLAP: Duration = Duration::from_hours(2);
/// `cleanup.settle`.
const SETTLE: Duration = Duration::from_mins(1);
/// The settle phase: the longest backoff, the guard's hour for each workload, and the overlap.
const SETTLE_TIME: Duration = Duration::from_hours(8);

pub(super) fn run(seed: u64) -> SimReport {
    under_paused_clock(|| async move {
        let mut life = TokenLife::start(seed);
        life.run_operator();
        life.run_events().await;
        life.settle().await;
        life.finish()
    })
}

struct TokenLife {
    seed: u64,
    rng: fastrand::Rng,
    shared: Arc<KumaShared>,
    store: Arc<SimTokenStore>,
    workloads: Vec<String>,
    declared: BTreeSet<String>,
    manifests: watch::Sender<Arc<ManifestStatus>>,
    operator: Option<JoinHandle<()>>,
    restarts: u64,
}

impl TokenLife {
    fn start(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x70CE);
        let env = Arc::new(SimEnv::new(seed, &mut rng, false));
        let workloads: Vec<String> = (0..rng.usize(3..7)).map(|n| format!("web-{n}")).collect();
        let declared: BTreeSet<String> = workloads.iter().cloned().collect();
        let kuma = KumaCp::new(KumaConfig::default(), START);
        let shared = Arc::new(KumaShared::of_tokens(Arc::clone(&env), kuma));
        let store = Arc::new(SimTokenStore::new(env, TokenOracle::new(OVERLAP, SETTLE)));
        let manifests = watch::channel(Arc::new(status(&declared, false, 0))).0;
        Self { seed, rng, shared, store, workloads, declared, manifests, operator: None, restarts: 0 }
    }

    fn env(&self) -> &SimEnv {
        &self.shared.env
    }

    fn run_operator(&mut self) {
        let env = Arc::clone(&self.shared.env);
        let aws = Arc::new(SimAws { env: Arc::clone(&env), replica: None });
        let store = Arc::clone(&self.store);
        let operator = Operator::new(OperatorDeps {
            recorder: None,
            previous_id: None,
            id: OperatorId::parse(OPERATOR).unwrap(),
            ecs: Arc::clone(&aws) as _,
            ec2: Arc::clone(&aws) as _,
            iam: Arc::clone(&aws) as _,
            accounts: Arc::new(()),
            token_stores: TokenStores::new(Arc::clone(&store) as _, store as _),
            connect: self.shared.connect(OPERATOR, None),
            lease: Arc::clone(&env.lease) as _,
            replicas: None,
            clock: env.clock.clone(),
            metrics: Arc::new(Metrics::default()),
            rates: ReadRates::default(),
            seed: self.seed.wrapping_add(self.restarts),
        });
        let manifests = self.manifests.subscribe();
        self.operator = Some(tokio::spawn(async move {
            operator.run(None, manifests, RunOptions::default(), CancellationToken::new()).await.unwrap();
        }));
    }

    fn restart(&mut self) {
        self.operator.take().iter().for_each(JoinHandle::abort);
        self.restarts += 1;
        self.env().record_other_process(|| "restart".to_owned());
        self.run_operator();
    }

    async fn advance(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep(STEP).await;
            if self.store.takes_kill() {
                self.restart();
            }
            let (now, kuma) = (self.env().now(), self.shared.kuma.lock().unwrap());
            self.store.oracle.lock().unwrap().check(&kuma, now);
        }
    }

    async fn run_events(&mut self) {
        let end = Instant::now() + Duration::from_secs(self.rng.u64(40 * HOUR..70 * HOUR));
        let mut next = [2..10, 1..8, 3..12, 4..20, 2..9].map(|hours| self.in_hours(hours));
        while Instant::now() < end {
            self.advance(STEP).await;
            let now = Instant::now();
            let [edit, restart, outage, lease, list] = next.map(|at| now >= at);
            if edit {
                self.edit();
                next[0] = self.in_hours(2..10);
            }
            if restart {
                self.restart();
                next[1] = self.in_hours(1..8);
            }
            if outage {
                let lasts = Duration::from_secs(self.rng.u64(10..HOUR));
                let env = Arc::clone(&self.shared.env);
                env.faults.outage(self.rng.bool(), env.now().plus(lasts));
                next[2] = self.in_hours(3..12);
            }
            if lease {
                let held = self.env().lease.toggle();
                self.env().record(|| format!("lease held: {held}"));
                next[3] = if held { self.in_hours(4..20) } else { in_a_while(&mut self.rng, 60..1_800) };
            }
            if list {
                self.revoke_by_hand();
                next[4] = self.in_hours(2..9);
            }
        }
    }

    fn in_hours(&mut self, hours: std::ops::Range<u64>) -> Instant {
        in_a_while(&mut self.rng, hours.start * HOUR..hours.end * HOUR)
    }

    /// Removes or restores a workload, or adds an invalid document, which withdraws nothing.
    fn edit(&mut self) {
        let workload = self.workloads[self.rng.usize(..self.workloads.len())].clone();
        let broken = self.rng.u8(..4) == 0;
        if !broken {
            if !self.declared.remove(&workload) {
                self.declared.insert(workload);
            }
            self.env().faults.count(SimFault::WorkloadEdit);
        }
        self.publish(broken);
    }

    fn publish(&self, broken: bool) {
        let (env, now) = (self.env(), self.env().now());
        env.record(|| format!("edit: {:?}, broken {broken}", self.declared));
        let mut oracle = self.store.oracle.lock().unwrap();
        for workload in &self.workloads {
            oracle.record_declared(workload, self.declared.contains(workload), now);
        }
        drop(oracle);
        let generation = self.manifests.borrow().set.generation + 1;
        self.manifests.send_replace(Arc::new(status(&self.declared, broken, generation)));
    }

    /// Another writer adds an id to the list: one of its own, or that of a token that tasks read.
    fn revoke_by_hand(&mut self) {
        if !self.env().faults.are_enabled() {
            return;
        }
        let now = self.env().now();
        let mut oracle = self.store.oracle.lock().unwrap();
        let workload = &self.workloads[self.rng.usize(..self.workloads.len())];
        let stored = oracle.stored_id(workload).filter(|_| self.rng.bool()).map(str::to_owned);
        let (fault, id) = match stored {
            Some(id) => (SimFault::RevokedByHand, id),
            None => (SimFault::ForeignRevocation, format!("foreign-{:08x}", self.rng.u32(..))),
        };
        let mut kuma = self.shared.kuma.lock().unwrap();
        kuma.revoke_token(MESH, &id, now).unwrap();
        oracle.record_revoked_by_others(&id, now);
        drop((kuma, oracle));
        self.env().faults.count(fault);
        self.env().record(|| format!("another writer revokes {id}"));
    }

    /// Ends all faults, declares all workloads, and checks what is left.
    async fn settle(&mut self) {
        self.declared = self.workloads.iter().cloned().collect();
        self.publish(false);
        self.env().lease.acquire();
        self.env().faults.end();
        self.advance(SETTLE_TIME).await;
        let now = self.env().now();
        self.store.oracle.lock().unwrap().check_after_quiet(&self.workloads, now);
    }

    fn finish(mut self) -> SimReport {
        self.operator.take().iter().for_each(JoinHandle::abort);
        let env = &self.shared.env;
        let oracle = self.store.oracle.lock().unwrap();
        let mut violations = std::mem::take(&mut *env.writes_without_lease.lock().unwrap());
        violations.extend(oracle.violations().iter().map(violation));
        let (created, removed) = oracle.counts();
        SimReport {
            violations,
            tasks: u64::try_from(self.workloads.len()).unwrap_or_default(),
            created,
            removed,
            restarts: self.restarts,
            faults: env.faults.struck(),
            history: env.take_history(),
            ..SimReport::default()
        }
    }
}

fn status(declared: &BTreeSet<String>, broken: bool, generation: u64) -> ManifestStatus {
    let mut text = format!(
        "apiVersion: ecs-mesh.dev/v1alpha1
kind: ControlPlane
metadata: {{name: kuma}}
spec: {{type: kuma, kuma: {{address: \"http://kuma:5681\"}}}}
---
apiVersion: ecs-mesh.dev/v1alpha1
kind: MeshBinding
metadata: {{name: tokens}}
spec:
  controlPlane: kuma
  mesh: {MESH}
  selector: {{clusters: [\"arn:aws:ecs:*:*:cluster/*\"]}}
  roleTags: {{mode: \"off\"}}
  cleanup: {{sweepInterval: 1h, settle: {}s}}
  tokens: {{issue: true, path: {PATH}, validFor: 24h, rotateBefore: 6h, overlap: {}s}}
",
        SETTLE.as_secs(),
        OVERLAP.as_secs()
    );
    for name in declared {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "---
apiVersion: ecs-mesh.dev/v1alpha1
kind: Workload
metadata: {{name: {name}}}
spec: {{selector: {{services: [{name}]}}, service: {name}, inbounds: [{{containerPort: 8080, port: 15000, protocol: http}}]}}
"
        );
    }
    if broken {
        text.push_str(INVALID_DOCUMENT);
    }
    let (set, errors) = load_whatever(&text);
    assert_eq!(set.complete, !broken, "{errors:?}");
    let set = Arc::new(ecs_mesh_api::manifests::ManifestSet { generation, ..(*set).clone() });
    ManifestStatus { set, errors, warnings: Vec::new(), files: 1, unread: Vec::new() }
}
