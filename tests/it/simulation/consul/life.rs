//! One life at Consul: a world, an operator that is now and then killed and started again, and the end of all faults.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ecs_mesh_operator::api::ConsulConnection;
use ecs_mesh_operator::manifests::{ManifestSet, Status};
use ecs_mesh_operator::mesh::consul::ConsulControlPlane;
use ecs_mesh_operator::mesh::{ControlPlane, NoObserver};
use ecs_mesh_operator::model::{OperatorId, Timestamp};
use ecs_mesh_operator::reconcile::{Operator, Parts, ReadRates, RunOptions};
use ecs_mesh_operator::sandbox::consul::{ConsulRequest, ConsulServer};
use ecs_mesh_operator::sandbox::judge::{ConsulJudge, Rules};
use ecs_mesh_operator::sandbox::kuma::{KumaConfig, KumaCp};
use ecs_mesh_operator::sandbox::planes::ControlPlanes;
use ecs_mesh_operator::sandbox::world::{
    Care, ConsulCare, ConsulHome, MANAGEMENT_TOKEN, Naming, World, WorldConfig, manifests,
};
use ecs_mesh_operator::telemetry::metrics::Metrics;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::super::aws::SimAws;
use super::super::ground::{
    Ending, Ground, SETTLE, SILENCE, SLOW_STEP, START, STEP, load_whatever, under_paused_clock,
};
use super::transport::SimTransport;

/// Where the account is, for logins.
const AWS: &str = "http://aws.simulated";

/// The operator's own token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Good,
    /// The servers do not know it.
    Unknown,
    /// It may remove, and see no services: lists are cut short.
    Blind,
}

/// What both sides of the simulation see.
pub(super) struct Shared {
    pub(super) ground: Arc<Ground>,
    pub(super) consul: Mutex<ConsulServer>,
    judge: Mutex<ConsulJudge>,
    /// What the operator's token is until then.
    token: Mutex<(Token, Timestamp)>,
    blind: String,
}

impl Deref for Shared {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

impl Shared {
    pub(super) fn token_now(&self) -> Token {
        let (token, until) = *self.token.lock().unwrap();
        if self.now() < until { token } else { Token::Good }
    }

    pub(super) fn secret_of(&self, token: Token) -> &str {
        match token {
            Token::Good => MANAGEMENT_TOKEN,
            Token::Unknown => "deadbeef-dead-4ead-8ead-deadbeefdead",
            Token::Blind => &self.blind,
        }
    }

    /// Judges what was just written, against the world as it is at this moment.
    pub(super) fn judge_writes(&self) {
        let mut cloud = self.cloud.lock().unwrap();
        let mut consul = self.consul.lock().unwrap();
        let journal = consul.take_journal();
        if !journal.is_empty() {
            cloud.step(self.clock.now());
            self.judge.lock().unwrap().writes(&journal, &cloud, &consul);
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
    /// There is none in this life; the world moves both.
    kuma: KumaCp,
    withdraws: bool,
    manifests: watch::Sender<Arc<Status>>,
    care: Care,
    generation: u64,
    operator: Option<(Arc<Operator>, JoinHandle<()>)>,
    ending: Ending,
}

/// The secret of a token with every power over tokens and nodes that sees no services.
fn blind_token(consul: &mut ConsulServer) -> String {
    let mut put = |path: &str, body: &Value| {
        let answer = consul.handle(START, &ConsulRequest::new("PUT", path, Some(MANAGEMENT_TOKEN), body));
        assert_eq!(answer.status, 200, "{path}");
        answer.json()
    };
    let rules =
        "acl = \"write\"\nnode_prefix \"\" { policy = \"write\" }\nagent_prefix \"\" { policy = \"read\" }";
    put("/v1/acl/policy", &json!({"Name": "blind", "Rules": rules}));
    let token = put("/v1/acl/token", &json!({"Policies": [{"Name": "blind"}]}));
    token["SecretID"].as_str().unwrap().to_owned()
}

impl Life {
    fn begin(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1));
        let ground = Ground::new(seed, &mut rng);
        let withdraws = rng.u8(..3) == 0;
        let (cluster, mut kuma) = (ground.cluster.to_string(), KumaCp::new(KumaConfig::default(), START));
        let home =
            ConsulHome { cluster: cluster.clone(), aws: AWS.to_owned(), region: "eu-west-1".to_owned() };
        let mut consul = ConsulHome::server(seed, START);
        home.furnish(&mut consul, START).unwrap();
        let blind = blind_token(&mut consul);
        let world = WorldConfig {
            tasks: rng.usize(8..40),
            seed,
            gap: (Duration::from_millis(500), Duration::from_secs(8)),
            naming: Naming::TaskId,
            planes: ControlPlanes::Consul,
            revoked_for: (Duration::from_secs(10), Duration::from_secs(90)),
        };
        let (world, planted) = {
            let mut cloud = ground.cloud.lock().unwrap();
            let mut world = World::begin(world, &mut cloud, &mut kuma, START).unwrap();
            let planted = world.join(&home, &mut cloud, &mut consul, START).unwrap();
            (world, planted)
        };
        let care = Care {
            kuma: None,
            consul: Some(ConsulCare {
                address: "http://consul:8500".to_owned(),
                // The transport sends the token.
                token: "timeout: 5s".to_owned(),
                on_revoked: withdraws.then_some("withdraw"),
            }),
            cluster: cluster.clone(),
            sweep_interval: "30s",
            grace_age: "1m",
            drain: "2s",
            recheck: "1m",
            dataplane_name: "{taskId}",
        };
        let rules = Rules {
            operator: ConsulHome::operator(&mut consul, START),
            cluster,
            tags_lag: Duration::from_secs(100),
            max_fraction: 0.3,
            min_owned: 10,
        };
        let shared = Shared {
            ground: Arc::new(ground),
            consul: Mutex::new(consul),
            judge: Mutex::new(ConsulJudge::new(rules, withdraws, planted)),
            token: Mutex::new((Token::Good, START)),
            blind,
        };
        let status = Arc::new(status_of(&manifests(&care, &[]), 1));
        assert!(status.set.complete);
        Self {
            seed,
            rng,
            shared: Arc::new(shared),
            world,
            kuma,
            withdraws,
            manifests: watch::channel(status).0,
            care,
            generation: 1,
            operator: None,
            ending: Ending::default(),
        }
    }

    async fn live(mut self) -> Ending {
        self.start_operator();
        self.eventful_time().await;
        self.edit(false, false);
        self.shared.lease.hold();
        self.shared.faults.end();
        *self.shared.token.lock().unwrap() = (Token::Good, START);
        self.world.calm_down(&mut self.shared.cloud.lock().unwrap(), self.shared.now());
        self.pass(SETTLE).await;
        self.check_quiet();
        let before = self.shared.judge.lock().unwrap().tally();
        self.pass(SILENCE).await;
        let after = self.shared.judge.lock().unwrap().tally();
        if before != after {
            let words = format!("I6: written although nothing happened: {before:?} then {after:?}");
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
        let mut next_token = self.in_a_while(40..160);
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
            if now >= next_token {
                self.spoil_token();
                next_token = self.in_a_while(40..160);
            }
            if now >= lease_turns {
                let held = self.shared.lease.turn();
                self.shared.note(|| format!("lease held: {held}"));
                lease_turns = self.in_a_while(if held { 60..200 } else { 3..25 });
            }
            if now >= next_edit {
                let (unbound, broken) = (self.rng.u8(..4) == 0, self.rng.u8(..4) == 0);
                self.edit(unbound, broken);
                next_edit = self.in_a_while(15..60);
            }
            if now >= next_ghost {
                self.shared.send_ghost(&mut self.rng);
                next_ghost = self.in_a_while(20..90);
            }
        }
    }

    /// For a while the operator's own token is not known, or may not see all there is.
    fn spoil_token(&mut self) {
        let token = if self.rng.bool() { Token::Unknown } else { Token::Blind };
        let until = self.shared.now().plus(Duration::from_secs(self.rng.u64(5..40)));
        if self.shared.faults.strikes(1.0) {
            self.shared.note(|| format!("token {token:?} until {}", until.0 - START.0));
            *self.shared.token.lock().unwrap() = (token, until);
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
                let mut consul = self.shared.consul.lock().unwrap();
                self.world.step(&mut cloud, &mut self.kuma, Some(&mut consul), self.shared.now());
            }
            self.shared.judge_writes();
            for happening in self.world.take_happenings() {
                self.shared.note(|| format!("{} {} {}", happening.who, happening.what, happening.words));
            }
        }
    }

    fn start_operator(&mut self) {
        let shared = Arc::clone(&self.shared);
        let id = OperatorId::parse("simulated").unwrap();
        let (connected, connect_id) = (Arc::clone(&shared), id.clone());
        let aws = Arc::new(SimAws(Arc::clone(&shared.ground)));
        let operator = Operator::new(Parts {
            book: None,
            id,
            ecs: Arc::clone(&aws) as _,
            iam: Arc::clone(&aws) as _,
            connect: Arc::new(move |_, spec| {
                let transport = SimTransport(Arc::clone(&connected));
                let connection: &ConsulConnection = spec.consul.as_ref().ok_or("no Consul")?;
                let observer = Arc::new(NoObserver);
                let plane = ConsulControlPlane::new(transport, connection, connect_id.clone(), observer);
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

    /// The binding comes and goes, and sometimes a file has a slip in it: nothing may go for either.
    fn edit(&mut self, unbound: bool, broken: bool) {
        let mut text = manifests(&self.care, &[]);
        if unbound {
            text.truncate(text.find("---").unwrap());
        }
        if broken {
            text.push_str(
                "---\napiVersion: ecs-mesh.dev/v1alpha1\nkind: Workload\nmetadata: {name: slip}\nspec: {}\n",
            );
        }
        self.generation += 1;
        let status = status_of(&text, self.generation);
        assert_eq!(status.set.complete, !broken);
        self.shared.note(|| format!("edit: unbound {unbound}, broken {broken}"));
        self.manifests.send_replace(Arc::new(status));
    }

    fn check_quiet(&mut self) {
        let held: BTreeSet<String> = match &self.operator {
            Some((operator, _)) => {
                let planes = operator.planes();
                planes.values().flat_map(|p| p.held_tasks()).map(|task| task.id().to_string()).collect()
            }
            None => BTreeSet::default(),
        };
        let (cloud, consul) = (self.shared.cloud.lock().unwrap(), self.shared.consul.lock().unwrap());
        let (judge, now) = (self.shared.judge.lock().unwrap(), self.shared.now());
        let leaks = judge.leaks(&cloud, &consul, &|id| held.contains(id), now);
        let leaks = leaks.into_iter().map(|words| format!("I1 after quiet: {words}"));
        let touched = judge.touched(&consul).into_iter().map(|words| format!("I3 after quiet: {words}"));
        let missing = judge.missing(&cloud, &consul, &|_| self.withdraws, now);
        let missing = missing.into_iter().map(|words| format!("after quiet: {words}"));
        self.ending.wrong.extend(leaks.chain(touched).chain(missing));
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
        self.ending.created = self.world.membership().logins;
        self.ending.removed = judge.tally().tokens + judge.tally().services;
        self.ending.tasks = self.world.census().started;
        self.ending.faults = self.shared.faults.injected();
        self.ending.history = self.shared.take_history();
        self.ending
    }
}

fn status_of(text: &str, generation: u64) -> Status {
    let (set, errors) = load_whatever(text);
    let set = Arc::new(ManifestSet { generation, ..(*set).clone() });
    Status { set, errors, warnings: Vec::new(), files: 1 }
}
