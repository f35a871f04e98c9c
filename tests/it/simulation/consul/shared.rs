//! State shared by operator and world at Consul: environment, servers, oracle, and the operator's token.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ecs_mesh_model::{DesiredStatus, LastStatus, Timestamp};
use ecs_mesh_sandbox::aws::{CloudTask, RunTask};
use ecs_mesh_sandbox::consul::{ConsulRequest, ConsulServer};
use ecs_mesh_sandbox::oracle::ConsulOracle;
use ecs_mesh_sandbox::world::{CLUSTER, ConsulBootstrap, MANAGEMENT_TOKEN};
use serde_json::{Value, json};

use super::super::env::{START, SimEnv};
use super::super::faults::SimFault;

/// Maximum live tasks that were started between two lists.
const RUSHED: usize = 3;

/// The state of the operator's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OperatorToken {
    Good,
    /// Unknown to the servers.
    Unknown,
    /// May remove, but reads no services: lists are filtered.
    CannotRead,
    /// May remove, and reads some services.
    CannotReadAll,
}

pub(super) struct ConsulShared {
    pub(super) env: Arc<SimEnv>,
    pub(super) consul: Mutex<ConsulServer>,
    pub(super) oracle: Mutex<ConsulOracle>,
    pub(super) home: ConsulBootstrap,
    /// Number of operator reads while each foreign fixture existed.
    pub(super) fixture_observations: Mutex<BTreeMap<&'static str, u64>>,
    /// The state of the operator's token until an instant.
    token: Mutex<(OperatorToken, Timestamp)>,
    blind: String,
    shortsighted: String,
    rushed: Mutex<Vec<Arc<str>>>,
}

impl Deref for ConsulShared {
    type Target = SimEnv;

    fn deref(&self) -> &SimEnv {
        &self.env
    }
}

/// Creates a token with all permissions on tokens and nodes, and these rules; returns its secret.
fn token_with(consul: &mut ConsulServer, name: &str, services: &str) -> String {
    let mut put = |path: &str, body: &Value| {
        let answer = consul.handle(START, &ConsulRequest::new("PUT", path, Some(MANAGEMENT_TOKEN), body));
        assert_eq!(answer.status, 200, "{path}");
        answer.json()
    };
    let rules = format!(
        "acl = \"write\"\nnode_prefix \"\" {{ policy = \"write\" }}\nagent_prefix \"\" {{ policy = \"read\" }}\n{services}"
    );
    put("/v1/acl/policy", &json!({"Name": name, "Rules": rules}));
    let token = put("/v1/acl/token", &json!({"Policies": [{"Name": name}]}));
    token["SecretID"].as_str().unwrap().to_owned()
}

impl ConsulShared {
    pub(super) fn new(
        env: SimEnv,
        mut consul: ConsulServer,
        home: ConsulBootstrap,
        oracle: impl FnOnce(&mut ConsulServer) -> ConsulOracle,
    ) -> Arc<Self> {
        let blind = token_with(&mut consul, "blind", "");
        let some = "service_prefix \"svc-\" { policy = \"write\" }";
        let shortsighted = token_with(&mut consul, "shortsighted", some);
        consul.take_journal();
        let oracle = oracle(&mut consul);
        // Reads of this node do not show other nodes.
        let listed = |node: Option<&str>| node.is_none_or(|node| node == home.cluster);
        let fixtures = oracle.fixtures().iter().filter(|fixture| listed(fixture.node()));
        let shared = Arc::new(Self {
            fixture_observations: Mutex::new(fixtures.map(|fixture| (fixture.description, 0)).collect()),
            env: Arc::new(env),
            consul: Mutex::new(consul),
            oracle: Mutex::new(oracle),
            home,
            token: Mutex::new((OperatorToken::Good, START)),
            blind,
            shortsighted,
            rushed: Mutex::default(),
        });
        let weak = Arc::downgrade(&shared);
        shared.env.after_each_list(move || {
            if let Some(shared) = weak.upgrade() {
                shared.rush();
            }
        });
        shared
    }

    pub(super) fn token_now(&self) -> OperatorToken {
        let (token, until) = *self.token.lock().unwrap();
        if self.now() < until { token } else { OperatorToken::Good }
    }

    /// Replaces the operator's token for some time.
    pub(super) fn spoil_token(&self, token: OperatorToken, time: Duration) {
        let until = self.now().plus(time);
        self.record(|| format!("token {token:?} until {}", until.0 - START.0));
        *self.token.lock().unwrap() = (token, until);
    }

    pub(super) fn token_is_good(&self) {
        *self.token.lock().unwrap() = (OperatorToken::Good, START);
    }

    pub(super) fn secret_of(&self, token: OperatorToken) -> &str {
        match token {
            OperatorToken::Good => MANAGEMENT_TOKEN,
            OperatorToken::Unknown => "deadbeef-dead-4ead-8ead-deadbeefdead",
            OperatorToken::CannotRead => &self.blind,
            OperatorToken::CannotReadAll => &self.shortsighted,
        }
    }

    /// Checks the latest writes, which this process of the operator has sent, against the current world.
    pub(super) fn check_writes(&self, process: u64) {
        let mut cloud = self.cloud.lock().unwrap();
        let mut consul = self.consul.lock().unwrap();
        let journal = consul.take_journal();
        if !journal.is_empty() {
            cloud.step(self.clock.now());
            let mut oracle = self.oracle.lock().unwrap();
            oracle.record_sender(process < self.process());
            oracle.check_writes(&journal, &cloud, &consul);
        }
    }

    /// Runs after the operator has listed tokens or the services of the cluster's node.
    pub(super) fn was_listed(&self, tokens: bool, body: &[u8]) {
        let oracle = self.oracle.lock().unwrap();
        let mut fixture_observations = self.fixture_observations.lock().unwrap();
        // Their existence is checked at the end.
        for fixture in oracle.fixtures().iter().filter(|fixture| fixture.node().is_none() == tokens) {
            fixture_observations.entry(fixture.description).and_modify(|count| *count += 1);
        }
        let body = String::from_utf8_lossy(body);
        let stopping = |task: &&Arc<CloudTask>| {
            task.desired_status == DesiredStatus::Stopped && !task.last_status.is_stopped()
        };
        if tokens
            && self.cloud.lock().unwrap().all_tasks().filter(stopping).any(|task| body.contains(task.id()))
        {
            self.faults.count(SimFault::DrainingTask);
        }
    }

    /// At times starts a task that logs in at this moment.
    fn rush(&self) {
        if !self.faults.happens(0.04) {
            return;
        }
        let now = self.now();
        let mut cloud = self.cloud.lock().unwrap();
        let running: Vec<_> = cloud
            .all_tasks()
            .filter(|task| task.service().is_some() && task.last_status == LastStatus::Running)
            .cloned()
            .collect();
        let Some(like) = running.get(self.faults.pick(running.len())) else { return };
        let Ok(begun) = cloud.run_task(&RunTask::awsvpc(CLUSTER, &like.definition.arn), now) else { return };
        let (task, role) = (&begun[0], like.task_role_arn().unwrap_or_default());
        let meta = ConsulBootstrap::meta(&self.home.cluster, task.id());
        let mut consul = self.consul.lock().unwrap();
        // The role may have lost its tag.
        if self.home.log_in(&mut cloud, &mut consul, role, &meta, now).is_ok() {
            self.faults.count(SimFault::LoginBetweenLists);
            self.record(|| format!("task {} logs in between two lists", task.id()));
        }
        let mut rushed = self.rushed.lock().unwrap();
        rushed.push(Arc::clone(&task.arn));
        if rushed.len() > RUSHED {
            cloud.kill_hard(&rushed.remove(0), now);
        }
    }
}
