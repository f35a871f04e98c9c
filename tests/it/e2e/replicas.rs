//! Several operators with one id, as processes: one writes, the others take over. A proxy before the control plane records the
//! writes of each process, and one before the lease's store its renewals. Each write must be one of the process that acquired
//! the lease last, and must come before the lease ends that its process renewed last.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ecs_mesh_model::Timestamp;
use serde_json::Value;

use super::harness::{Harness, OperatorProcess, binding, control_plane, document, eventually, workload};
use super::recording_proxy::RecordingProxy;
use crate::conformance::python;
use crate::consul_real::server::{Acls, ConsulRelease, MANAGEMENT, RealConsul};
use crate::lease::{Moto, create_table};

const LEASE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(500);
/// The shortest lease, so that takeovers are quick.
const TIMING: [&str; 6] =
    ["--lease-duration", "10s", "--lease-renew-deadline", "6s", "--lease-retry-period", "500ms"];
/// The time that a busy machine may add to a takeover.
const SLACK: Duration = Duration::from_secs(5);

const ACQUIRED: &str = "acquired the lease; this copy leads";
const LOST: &str = "lost the lease; standing by";
const STANDBY: &str = "another copy leads; standing by";

/// One process, with its own way to the control plane and to the lease's store.
struct Replica {
    name: String,
    process: OperatorProcess,
    control_plane: RecordingProxy,
    store: RecordingProxy,
}

impl Replica {
    /// The times at which it acquired the lease.
    fn acquired(&self) -> Vec<Timestamp> {
        let lines = self.process.lines(&[("message", ACQUIRED)]);
        lines.iter().map(|line| Timestamp::parse(line["timestamp"].as_str().unwrap()).unwrap()).collect()
    }

    /// Waits until it has acquired the lease this often.
    async fn leads(&self, count: usize) {
        let what = format!("{} leads", self.name);
        eventually(&what, || async { (self.acquired().len() >= count).then_some(()) }).await;
    }

    async fn logs(&self, message: &str) {
        self.process.line(&[("message", message)]).await;
    }
}

/// The processes of one operator id, ended ones included.
struct Replicas {
    harness: Harness,
    /// Where the lease is kept, and the address of its store.
    lease: String,
    store: String,
    all: Vec<Replica>,
}

impl Replicas {
    /// Replicas whose lease is in a table of the sandbox, or at another address.
    async fn with_table(store: Option<&str>) -> Self {
        let harness = Harness::start().await;
        let store = store.unwrap_or(harness.variable("AWS_ENDPOINT_URL")).to_owned();
        create_table(&store).await;
        Self::new(harness, "dynamodb:leases".to_owned(), store).await
    }

    async fn new(harness: Harness, lease: String, store: String) -> Self {
        harness.deploy("app", 2).await;
        Self { harness, lease, store, all: Vec::new() }
    }

    /// Starts another process, and returns its index.
    async fn start(&mut self) -> usize {
        self.start_with(&[]).await
    }

    /// The same, with more environment variables.
    async fn start_with(&mut self, variables: &[(&str, &str)]) -> usize {
        let name = format!("replica-{}", self.all.len());
        let control_plane = RecordingProxy::to(self.harness.variable("KUMA_API_URL")).await;
        let store = RecordingProxy::to(&self.store).await;
        let process = self.process(&name, &control_plane.url, &store.url, variables);
        self.all.push(Replica { name, process, control_plane, store });
        self.all.len() - 1
    }

    fn process(&self, name: &str, kuma: &str, store: &str, variables: &[(&str, &str)]) -> OperatorProcess {
        let folder = self.harness.path(name);
        std::fs::create_dir(&folder).unwrap();
        let mut manifests = [
            control_plane("kuma", kuma, ", timeout: 5s"),
            binding("harness", "kuma", self.harness.variable("ECS_MESH_CLUSTER_ARN"), ""),
            workload("app", "app"),
        ]
        .concat();
        if self.lease.starts_with("consul") {
            std::fs::write(folder.join("token"), MANAGEMENT).unwrap();
            let token = folder.join("token");
            let connection =
                format!("{{address: \"{store}\", timeout: 5s, tokenFile: \"{}\"}}", token.display());
            manifests +=
                &document("ControlPlane", "locks", &format!("{{type: consul, consul: {connection}}}"));
        }
        std::fs::write(folder.join("all.yaml"), manifests).unwrap();
        let mut environment = self.harness.environment.clone();
        if self.lease.starts_with("dynamodb") {
            environment.insert("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), store.to_owned());
        }
        environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let manifests = folder.join("all.yaml");
        let mut arguments =
            vec!["run", "--operator-id", "harness", "--log-format", "json", "--lease", &self.lease];
        arguments.extend(["--manifests", manifests.to_str().unwrap()]);
        arguments.extend(TIMING);
        OperatorProcess::start(self.harness.directory.path(), name, &environment, &arguments)
    }

    /// Writes that a process sent after another one had acquired the lease.
    fn writes_of_deposed(&self) -> Vec<(String, Timestamp)> {
        let mut terms: Vec<(Timestamp, usize)> = Vec::new();
        for (index, replica) in self.all.iter().enumerate() {
            terms.extend(replica.acquired().into_iter().map(|at| (at, index)));
        }
        terms.sort_unstable();
        let leader_at =
            |at: Timestamp| terms.iter().rev().find(|(since, _)| *since <= at).map(|(_, index)| *index);
        let mut deposed = Vec::new();
        for (index, replica) in self.all.iter().enumerate() {
            let late =
                replica.control_plane.writes().into_iter().filter(|came| leader_at(came.at) != Some(index));
            deposed.extend(late.map(|came| (replica.name.clone(), came.at)));
        }
        deposed
    }

    /// Writes that a process sent after the lease that it had renewed last was over, whether or not another one led by then.
    fn writes_without_lease(&self) -> Vec<(String, Timestamp)> {
        let mut late = Vec::new();
        for replica in &self.all {
            let writes = replica.control_plane.writes().into_iter();
            let of_none = writes.filter(|came| !replica.store.holds_lease_at(came.instant, LEASE));
            late.extend(of_none.map(|came| (replica.name.clone(), came.at)));
        }
        late
    }

    /// Processes that acquired or renewed the lease while it was another one's.
    fn early_takeovers(&self) -> Vec<(&str, &str)> {
        let mut early = Vec::new();
        for replica in &self.all {
            let extensions = replica.store.lease_extensions();
            for other in self.all.iter().filter(|other| other.name != replica.name) {
                let is_held = |at: &Instant| other.store.holds_lease_at(*at, LEASE);
                early.extend(extensions.iter().any(is_held).then_some((&*replica.name, &*other.name)));
            }
        }
        early
    }

    fn assert_only_leaders_wrote(&self) {
        assert_eq!(self.writes_of_deposed(), []);
        self.assert_lease_kept();
    }

    /// Judges by the lease alone: logs have the time of a clock that may have jumped.
    fn assert_lease_kept(&self) {
        assert_eq!(self.writes_without_lease(), []);
        assert_eq!(self.early_takeovers(), []);
    }

    fn count_writes(&self) -> usize {
        self.all.iter().map(|replica| replica.control_plane.writes().len()).sum()
    }

    /// Scales the service, and waits until exactly its running tasks are registered.
    async fn scale_and_wait(&self, count: i32) {
        self.harness.scale("app", count).await;
        let ids = self.harness.running(usize::try_from(count).unwrap()).await;
        let all_registered = |found: &BTreeMap<String, Value>| {
            let of_task =
                |id: &String| found.values().any(|item| item["labels"]["ecs-mesh.dev/task-id"] == **id);
            found.len() == ids.len() && ids.iter().all(of_task)
        };
        self.harness.wait_for_dataplanes("the running tasks are registered", all_registered).await;
    }
}

#[tokio::test]
async fn one_replica_writes_through_crash_freeze_partition_and_stop() {
    let mut replicas = Replicas::with_table(None).await;
    let a = replicas.start().await;
    replicas.all[a].leads(1).await;
    let b = replicas.start().await;
    replicas.all[b].logs(STANDBY).await;
    replicas.scale_and_wait(2).await;
    replicas.all[b].process.wait_for_sweep(true).await;
    assert_eq!(replicas.all[b].control_plane.writes().len(), 0, "a standby has written");

    // A crash. The events of the tasks that start meanwhile are not lost.
    replicas.all[a].process.signal("KILL");
    let crash = Instant::now();
    replicas.harness.scale("app", 4).await;
    replicas.all[b].leads(1).await;
    let waited = crash.elapsed();
    assert!(waited < LEASE + RETRY + SLACK, "the takeover after a crash took {waited:?}");
    replicas.scale_and_wait(4).await;

    // A freeze that is longer than the lease, with work to do.
    let c = replicas.start().await;
    replicas.all[c].logs(STANDBY).await;
    replicas.harness.scale("app", 1).await;
    replicas.all[b].process.signal("STOP");
    replicas.all[c].leads(1).await;
    replicas.scale_and_wait(3).await;
    replicas.all[b].process.signal("CONT");
    replicas.all[b].logs(LOST).await;
    replicas.scale_and_wait(2).await;

    // The leader is cut off from the store: it steps down before the lease ends, and the frozen one leads again.
    replicas.all[c].store.cut(true);
    replicas.all[b].leads(2).await;
    replicas.all[c].logs(LOST).await;
    replicas.scale_and_wait(4).await;
    replicas.all[c].store.cut(false);

    // A clean stop.
    replicas.all[b].process.signal("TERM");
    assert_eq!(replicas.all[b].process.code().await, Some(0));
    let stop = Instant::now();
    replicas.all[c].leads(2).await;
    let waited = stop.elapsed();
    assert!(waited < RETRY + SLACK, "the takeover after a clean stop took {waited:?}");
    replicas.scale_and_wait(1).await;

    replicas.assert_only_leaders_wrote();
    assert!(replicas.count_writes() >= 12, "{} writes", replicas.count_writes());
}

/// The wall clock of a process, which a test moves by libfaketime.
struct FakedClock {
    library: String,
    offset: PathBuf,
}

impl FakedClock {
    /// `None` if the library is not named, which is printed.
    fn new(harness: &Harness, name: &str) -> Option<Self> {
        let Ok(library) = std::env::var("FAKETIME_TEST_LIB") else {
            println!("skipped: FAKETIME_TEST_LIB does not name libfaketime");
            return None;
        };
        let clock = Self { library, offset: harness.path(name) };
        clock.jump("+0");
        Some(clock)
    }

    fn jump(&self, offset: &str) {
        // The library reads the file at each call, so the change must be one step.
        let draft = self.offset.with_extension("draft");
        std::fs::write(&draft, offset).unwrap();
        std::fs::rename(draft, &self.offset).unwrap();
    }

    fn variables(&self) -> [(&str, &str); 4] {
        [
            ("LD_PRELOAD", &self.library),
            ("FAKETIME_TIMESTAMP_FILE", self.offset.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            // Only the wall clock jumps.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }
}

/// Checks by its log that the clock of a process jumped ahead and back.
fn assert_clock_jumped(replica: &Replica) {
    let hour = Duration::from_hours(1).as_secs_f64() / 2.0;
    let times = replica.process.lines(&[("timestamp", "")]);
    let times: Vec<f64> = times
        .iter()
        .map(|line| Timestamp::parse(line["timestamp"].as_str().unwrap()).unwrap().as_secs_f64())
        .collect();
    let name = &replica.name;
    assert!(times.windows(2).any(|pair| pair[1] - pair[0] > hour), "{name}: the clock has not jumped ahead");
    assert!(times.windows(2).any(|pair| pair[0] - pair[1] > hour), "{name}: the clock has not jumped back");
}

/// The wall clock of the leader jumps ahead and back by more than the lease, with work to do.
#[tokio::test]
async fn leader_keeps_the_lease_when_its_wall_clock_jumps() {
    let mut replicas = Replicas::with_table(None).await;
    let Some(clock) = FakedClock::new(&replicas.harness, "clock") else { return };
    let a = replicas.start_with(&clock.variables()).await;
    replicas.all[a].leads(1).await;
    let b = replicas.start().await;
    replicas.all[b].logs(STANDBY).await;
    replicas.scale_and_wait(3).await;

    for (offset, count) in [("+1h", 5), ("-1h", 2), ("+0", 4)] {
        clock.jump(offset);
        // Longer than the lease: a renewal that depended on the wall clock would fail.
        tokio::time::sleep(LEASE + RETRY).await;
        replicas.scale_and_wait(count).await;
    }
    assert_eq!(replicas.all[b].acquired().len(), 0, "the standby has taken over");
    assert_eq!(replicas.all[b].control_plane.writes().len(), 0, "the standby has written");
    assert_clock_jumped(&replicas.all[a]);

    // A crash after a jump ahead: the standby waits for its own clock, which has not jumped.
    clock.jump("+1h");
    replicas.all[a].process.signal("KILL");
    let crash = Instant::now();
    replicas.all[b].leads(1).await;
    let waited = crash.elapsed();
    assert!(waited < LEASE + RETRY + SLACK, "the takeover took {waited:?}");
    replicas.scale_and_wait(1).await;
    replicas.assert_only_leaders_wrote();
}

/// The wall clock of the standby jumps ahead and back by more than the lease, while the leader renews and after it crashed.
#[tokio::test]
async fn standby_waits_the_lease_out_when_its_wall_clock_jumps() {
    let mut replicas = Replicas::with_table(None).await;
    let Some(clock) = FakedClock::new(&replicas.harness, "clock") else { return };
    let a = replicas.start().await;
    replicas.all[a].leads(1).await;
    let b = replicas.start_with(&clock.variables()).await;
    replicas.all[b].logs(STANDBY).await;

    for (offset, count) in [("+1h", 3), ("-1h", 1), ("+0", 4)] {
        clock.jump(offset);
        // Several looks at the lease, each with the leader's last renewal far in the past or in the future.
        tokio::time::sleep(4 * RETRY).await;
        replicas.scale_and_wait(count).await;
    }
    assert_eq!(replicas.all[b].acquired().len(), 0, "the standby has taken over");
    assert_eq!(replicas.all[b].control_plane.writes().len(), 0, "the standby has written");

    // The rest of the leader's lease is waited out.
    replicas.all[a].process.signal("KILL");
    let crash = Instant::now();
    clock.jump("+1h");
    replicas.all[b].leads(1).await;
    let waited = crash.elapsed();
    assert!(waited < LEASE + RETRY + SLACK, "the takeover took {waited:?}");
    replicas.scale_and_wait(2).await;
    clock.jump("-1h");
    replicas.scale_and_wait(3).await;
    assert_clock_jumped(&replicas.all[b]);
    replicas.assert_lease_kept();
}

#[tokio::test]
async fn replicas_hand_over_at_moto() {
    let Some(python) = python("replicas with the lease at moto's DynamoDB") else { return };
    let moto = Moto::start(&python);
    let mut replicas = Replicas::with_table(Some(&moto.url)).await;
    hand_over_by_crash_and_stop(&mut replicas, LEASE + RETRY).await;
}

#[tokio::test]
async fn replicas_hand_over_at_a_real_consul() {
    let what = "replicas with the lease at a real Consul";
    let Some(consul) = RealConsul::start(ConsulRelease::Oldest, what, Acls::On).await else { return };
    let harness = Harness::start().await;
    let mut replicas = Replicas::new(harness, "consul".to_owned(), consul.url().to_owned()).await;
    // Consul ends a session within twice its TTL, and the lock-delay is the lease duration.
    hand_over_by_crash_and_stop(&mut replicas, 3 * LEASE + RETRY).await;
}

/// A leader that is frozen for longer than its session lasts has lost the lease when it resumes.
#[tokio::test]
async fn frozen_leader_writes_nothing_at_a_real_consul() {
    let what = "a frozen leader with the lease at a real Consul";
    let Some(consul) = RealConsul::start(ConsulRelease::Oldest, what, Acls::On).await else { return };
    let harness = Harness::start().await;
    let mut replicas = Replicas::new(harness, "consul".to_owned(), consul.url().to_owned()).await;
    let a = replicas.start().await;
    replicas.all[a].leads(1).await;
    let b = replicas.start().await;
    replicas.all[b].logs(STANDBY).await;
    replicas.scale_and_wait(3).await;
    // With work to do.
    replicas.harness.scale("app", 1).await;
    replicas.all[a].process.signal("STOP");
    let freeze = Instant::now();
    replicas.all[b].leads(1).await;
    assert!(freeze.elapsed() < 3 * LEASE + RETRY + SLACK, "{:?}", freeze.elapsed());
    let before = replicas.all[a].control_plane.writes().len();
    assert!(before >= 2, "the leader has written {before} times");
    replicas.scale_and_wait(4).await;
    replicas.all[a].process.signal("CONT");
    replicas.all[a].logs(LOST).await;
    replicas.scale_and_wait(2).await;
    assert_eq!(replicas.all[a].control_plane.writes().len(), before, "the frozen leader has written");
    replicas.assert_only_leaders_wrote();
}

async fn hand_over_by_crash_and_stop(replicas: &mut Replicas, after_crash: Duration) {
    let a = replicas.start().await;
    replicas.all[a].leads(1).await;
    let b = replicas.start().await;
    replicas.all[b].logs(STANDBY).await;
    replicas.scale_and_wait(3).await;
    replicas.all[a].process.signal("KILL");
    let crash = Instant::now();
    replicas.all[b].leads(1).await;
    assert!(crash.elapsed() < after_crash + SLACK, "{:?}", crash.elapsed());
    let c = replicas.start().await;
    replicas.all[c].logs(STANDBY).await;
    replicas.scale_and_wait(1).await;
    replicas.all[b].process.signal("TERM");
    assert_eq!(replicas.all[b].process.code().await, Some(0));
    let stop = Instant::now();
    replicas.all[c].leads(1).await;
    assert!(stop.elapsed() < RETRY + SLACK, "{:?}", stop.elapsed());
    replicas.scale_and_wait(2).await;
    replicas.assert_only_leaders_wrote();
}

#[tokio::test]
async fn unusable_lease_is_reported_and_nothing_is_written() {
    let harness = Harness::start().await;
    harness.manifest("base.yaml", &harness.base_manifests());
    harness.deploy("app", 1).await;
    let more = ["--lease", "dynamodb:missing", "--metrics-address", "127.0.0.1:0"];
    let operator = harness.operator(&more);
    let line = operator
        .line(&[("message", "cannot use the lease store; retrying"), ("reason", "table_missing")])
        .await;
    assert!(line["error"].as_str().unwrap().contains("partition key operatorId of type S"), "{line}");
    operator.wait_for_sweep(true).await;
    let address = operator.line(&[("address", "127.0.0.1:"), ("server", "metrics")]).await;
    let url = format!("http://{}/readyz", address["address"].as_str().unwrap());
    let answer = harness.http.get(url).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 503);
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(
        (&body["lease"]["role"], &body["lease"]["store_error"]),
        (&"standby".into(), &"table_missing".into())
    );
    assert_eq!(harness.dataplanes().await.len(), 0);

    for (arguments, expected) in [
        (&["--lease", "consul"][..], "no ControlPlane of type consul"),
        (&["--lease", "etcd"], "none of dynamodb:TABLE"),
        (&["--lease", "dynamodb:missing", "--lease-duration", "5s"], "allowed are 10s to 1h"),
    ] {
        let mut operator = harness.operator_with("refused", &harness.environment, arguments);
        assert_ne!(operator.code().await, Some(0));
        assert!(operator.stderr().contains(expected), "{}", operator.stderr());
    }
}

#[tokio::test]
async fn two_operators_without_a_lease_notice_each_other() {
    let harness = Harness::start().await;
    harness.manifest("base.yaml", &harness.base_manifests());
    harness.deploy("app", 1).await;
    let more = ["--metrics-address", "127.0.0.1:0"];
    let start = |name: &str| harness.operator_with(name, &harness.environment, &more);
    let (one, other) = (start("one"), start("other"));
    for operator in [&one, &other] {
        operator.line(&[("message", "no lease: this must be the only copy with this operator id")]).await;
        operator.wait_for_sweep(true).await;
    }
    // Each writes some of the tasks that start: which of them receives an event is the queue's choice.
    let mut count = 1;
    let end = Instant::now() + super::harness::TIMEOUT;
    while !(has_noticed_another_writer(&one) && has_noticed_another_writer(&other)) {
        assert!(Instant::now() < end, "they do not notice each other:\n{}\n{}", one.stderr(), other.stderr());
        count = if count < 8 { count + 1 } else { 1 };
        harness.scale("app", count).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    for operator in [&one, &other] {
        assert_foreign_writer_reported(&harness, operator, "kuma").await;
    }
}

/// Whether the operator has warned of another process with its id.
pub(super) fn has_noticed_another_writer(operator: &OperatorProcess) -> bool {
    let message = "another process writes with this operator id";
    !operator.lines(&[("level", "WARN"), ("message", message)]).is_empty()
}

/// Checks readiness and metrics of an operator that has noticed another one.
pub(super) async fn assert_foreign_writer_reported(
    harness: &Harness,
    operator: &OperatorProcess,
    control_plane: &str,
) {
    let address = operator.line(&[("address", "127.0.0.1:"), ("server", "metrics")]).await;
    let url = format!("http://{}", address["address"].as_str().unwrap());
    let readiness = harness.http.get(format!("{url}/readyz")).send().await.unwrap();
    assert_eq!(readiness.status().as_u16(), 503);
    assert!(readiness.text().await.unwrap().contains("with this operator id"));
    let metrics = harness.http.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    let gauge = format!("ecs_mesh_foreign_writer{{control_plane=\"{control_plane}\"}} 1");
    assert!(metrics.contains(&gauge), "{metrics}");
}

/// `HANDOVERS=50 … fifty_forced_handovers --ignored --nocapture` prints the table of docs/benchmarks.md.
#[tokio::test]
#[ignore = "takes minutes; prints takeover times"]
async fn fifty_forced_handovers() {
    let count: usize = std::env::var("HANDOVERS").ok().and_then(|count| count.parse().ok()).unwrap_or(50);
    let mut replicas = Replicas::with_table(None).await;
    let mut leader = replicas.start().await;
    replicas.all[leader].leads(1).await;
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for round in 0..count {
        let standby = replicas.start().await;
        replicas.all[standby].logs(STANDBY).await;
        // Writes are under way when the leader ends.
        replicas.harness.scale("app", if round % 2 == 0 { 6 } else { 2 }).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (kind, signal) = [("clean stop", "TERM"), ("crash", "KILL"), ("freeze", "STOP")][round % 3];
        replicas.all[leader].process.signal(signal);
        if signal == "TERM" {
            replicas.all[leader].process.code().await;
        }
        let ended = Instant::now();
        let end = ended + super::harness::TIMEOUT;
        while replicas.all[standby].acquired().is_empty() {
            assert!(Instant::now() < end, "no takeover in round {round}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        times.entry(kind).or_default().push(ended.elapsed());
        if signal == "STOP" {
            replicas.all[leader].process.signal("CONT");
            replicas.all[leader].logs(LOST).await;
            replicas.all[leader].process.signal("TERM");
            replicas.all[leader].process.code().await;
        }
        leader = standby;
    }
    replicas.scale_and_wait(3).await;
    println!("| leader ends by | handovers | takeover: median | longest |\n|---|---|---|---|");
    for (kind, mut times) in times {
        times.sort_unstable();
        let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
        println!(
            "| {kind} | {} | {:.2} s | {:.2} s |",
            times.len(),
            median.as_secs_f64(),
            longest.as_secs_f64()
        );
    }
    println!(
        "{} writes, of which {:?} by the deposed",
        replicas.count_writes(),
        replicas.writes_of_deposed()
    );
    replicas.assert_only_leaders_wrote();
}
