//! Reconciles with servers that replicate late, refuse a write, are too old, or answer wrongly.

mod answers;
mod meanwhile;

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;
use crate::backend::ConsulAclBackend;
use ecs_mesh_api::ControlPlaneSpec;
use ecs_mesh_consul::ConsulControlPlane;
use ecs_mesh_control_plane::ControlPlane as _;
use ecs_mesh_control_plane::NoObserver;
use ecs_mesh_control_plane::http::{
    BodySink, HttpMethod, ResponseHead, StreamTransport, TransportError, TransportErrorKind,
};
use ecs_mesh_controller::{AlwaysHeld, CircuitConfig, Lease, LeaseTerm, WriteObstacle};
use ecs_mesh_manifests::ManifestSources;
use ecs_mesh_model::OperatorId;
use ecs_mesh_model::{ClusterArn, Timestamp};
use ecs_mesh_sandbox::consul::{ConsulConfig, ConsulRequest, ConsulServer};

fn clock() -> Clock {
    Clock::simulated(Timestamp(1_000_000_000))
}

const MANAGEMENT: &str = "cccccccc-0000-4000-8000-000000000001";

/// A fault of the server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum ServerFault {
    /// Reads of policies and roles return the state before the last write for this long.
    Late(Duration),
    /// A policy is not stored, although the response is a success.
    DropsFields,
    /// A rule with this text in its selector is rejected.
    Refuses(&'static str),
    /// The server has this version.
    Old(&'static str),
    /// The first write with this prefix takes effect, and its response is lost.
    Loses(&'static str),
    /// The first write with this prefix takes effect, and gets no response.
    Hangs(&'static str),
    /// Calls with this prefix get status 429, with or without `Retry-After`.
    Busy(&'static str, Option<Duration>),
    /// Nothing.
    None,
}

type ServerMutation = (&'static str, Box<dyn FnOnce() + Send>);

struct FakeServer {
    trouble: Mutex<ServerFault>,
    /// A hook for the first call with this prefix.
    meanwhile: Mutex<Option<ServerMutation>>,
    consul: Mutex<ConsulServer>,
    /// Reads of policies and roles, and the time of the last write.
    before: Mutex<BTreeMap<String, (ResponseHead, Vec<u8>)>>,
    wrote: Mutex<Option<Instant>>,
    /// Method and path of each call, and of each write.
    calls: Mutex<Vec<String>>,
    writes: Mutex<Vec<String>>,
}

impl FakeServer {
    fn with(trouble: ServerFault) -> Arc<Self> {
        let config =
            ConsulConfig { management_token: Some(MANAGEMENT.to_owned()), ..ConsulConfig::default() };
        let consul = Mutex::new(ConsulServer::new(config, clock().now()));
        Arc::new(Self {
            trouble: Mutex::new(trouble),
            meanwhile: Mutex::default(),
            consul,
            before: Mutex::default(),
            wrote: Mutex::default(),
            calls: Mutex::default(),
            writes: Mutex::default(),
        })
    }

    fn acknowledge(&self, method: HttpMethod, path: &str, body: Vec<u8>) -> (ResponseHead, Vec<u8>) {
        let is_shared = path.starts_with("/v1/acl/polic") || path.starts_with("/v1/acl/role");
        let is_write = method != HttpMethod::Get;
        if is_write {
            self.writes.lock().unwrap().push(format!("{method} {path}"));
        }
        self.calls.lock().unwrap().push(format!("{method} {path}"));
        let trouble = *self.trouble.lock().unwrap();
        match trouble {
            ServerFault::Busy(prefix, retry_after) if format!("{method} {path}").starts_with(prefix) => {
                return (
                    ResponseHead { status: 429, retry_after, ..ResponseHead::default() },
                    b"too much to do".to_vec(),
                );
            }
            ServerFault::Late(lag) if is_shared && !is_write => {
                let is_late = self.wrote.lock().unwrap().is_some_and(|at| at.elapsed() < lag);
                let before = self.before.lock().unwrap().get(path).cloned();
                if let Some(before) = before.filter(|_| is_late) {
                    return before;
                }
            }
            ServerFault::DropsFields if is_write && path == "/v1/acl/policy" => {
                return (ResponseHead { status: 200, ..ResponseHead::default() }, body);
            }
            ServerFault::Refuses(prefix) if is_write && String::from_utf8_lossy(&body).contains(prefix) => {
                let last_warnings = b"the selector says nothing".to_vec();
                return (ResponseHead { status: 500, ..ResponseHead::default() }, last_warnings);
            }
            ServerFault::Old(version) if path == "/v1/agent/self" => {
                let agent = json!({"Config": {"Datacenter": "dc1", "Version": version}});
                return (
                    ResponseHead { status: 200, ..ResponseHead::default() },
                    agent.to_string().into_bytes(),
                );
            }
            _ => {}
        }
        let request = ConsulRequest {
            method: method.as_str().to_owned(),
            path_and_query: path.to_owned(),
            token: Some(MANAGEMENT.to_owned()),
            enterprise_header: None,
            body,
        };
        let answer = self.consul.lock().unwrap().handle(clock().now(), &request);
        let head = ResponseHead { status: answer.status, ..ResponseHead::default() };
        if is_shared && is_write {
            *self.wrote.lock().unwrap() = Some(Instant::now());
        } else if is_shared {
            self.before.lock().unwrap().insert(path.to_owned(), (head, answer.body.clone()));
        }
        (head, answer.body)
    }

    fn contains(&self, trouble: ServerFault) {
        *self.trouble.lock().unwrap() = trouble;
    }

    /// A request of a user.
    fn by_hand(&self, method: HttpMethod, path: &str, body: &Value) -> Value {
        self.contains(ServerFault::None);
        let (head, body) = self.acknowledge(method, path, body.to_string().into_bytes());
        assert_eq!(head.status, 200, "{}", String::from_utf8_lossy(&body));
        self.calls.lock().unwrap().clear();
        self.writes.lock().unwrap().clear();
        serde_json::from_slice(&body).unwrap()
    }

    fn writes_of(&self, what: &str) -> usize {
        self.writes.lock().unwrap().iter().filter(|write| write.starts_with(what)).count()
    }
}

#[async_trait]
impl StreamTransport for FakeServer {
    async fn stream(
        &self,
        method: HttpMethod,
        path: &str,
        body: Option<Vec<u8>>,
        sink: &mut dyn BodySink,
    ) -> Result<ResponseHead, TransportError> {
        let call = format!("{method} {path}");
        let (head, body) = self.acknowledge(method, path, body.unwrap_or_default());
        let mutation = self.meanwhile.lock().unwrap().take_if(|(prefix, _)| call.starts_with(*prefix));
        if let Some((_, mutation)) = mutation {
            mutation();
        }
        let trouble = *self.trouble.lock().unwrap();
        match trouble {
            ServerFault::Loses(prefix) if call.starts_with(prefix) => {
                self.contains(ServerFault::None);
                let message = "no whole answer within 10 s".to_owned();
                return Err(TransportError::new(TransportErrorKind::Timeout, message));
            }
            ServerFault::Hangs(prefix) if call.starts_with(prefix) => {
                self.contains(ServerFault::None);
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        assert!(sink.write(&head, &body));
        Ok(head)
    }
}

/// The result of a reconcile.
struct PassSummary {
    ended_well: bool,
    /// Delay before the next attempt.
    not_before: Option<Duration>,
    /// Number of objects in each state.
    states: BTreeMap<&'static str, usize>,
    took: Duration,
    log: String,
}

#[derive(Clone, Default)]
struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl CapturedLog {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// The audit trail: name, change and result of each line.
fn audited(log: &str) -> Vec<(String, String, String)> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let audit = lines.filter(|line| line["target"] == "audit");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    audit.map(|line| (text(&line["name"]), text(&line["change"]), text(&line["result"]))).collect()
}

impl io::Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn auth() -> Value {
    json!({
        "boundPrincipals": ["arn:aws:iam::000000000000:role/consul-ecs/*"],
        "gateways": ["mesh-gateway", "api-gateway"],
    })
}

/// Manifests with these `serviceTokens`, or without a `ConsulAuth`.
fn manifests(service_tokens: Option<Value>) -> ManifestSet {
    let directory = tempfile::tempdir().unwrap();
    let all = [
        ("ControlPlane", Some(json!({"type": "consul", "consul": {"address": "http://127.0.0.1:8500"}}))),
        (
            "MeshBinding",
            Some(json!({"controlPlane": "consul", "selector": {
                "clusters": ["arn:aws:ecs:us-east-1:000000000000:cluster/anchor"],
            }})),
        ),
        (
            "ConsulAuth",
            service_tokens.map(|tokens| json!({"controlPlane": "consul", "serviceTokens": tokens})),
        ),
    ];
    for (kind, spec) in all.into_iter().filter_map(|(kind, spec)| Some((kind, spec?))) {
        let document: Value = json!({
            "apiVersion": "ecs-mesh.dev/v1alpha1", "kind": kind, "metadata": {"name": "consul"}, "spec": spec,
        });
        std::fs::write(directory.path().join(format!("{kind}.json")), document.to_string()).unwrap();
    }
    let loaded = ManifestSources::new([directory.path().to_owned()]).load(None).into_loaded().unwrap();
    assert_eq!(loaded.errors, []);
    (*loaded.set).clone()
}

/// The host: given manifests, and ignored metrics.
#[derive(Default)]
struct Host {
    set: Mutex<Arc<ManifestSet>>,
    sweep_soon: tokio::sync::Notify,
    /// Name, change and result of each recorded change.
    changes: Mutex<Vec<(String, String, String)>>,
}

impl AclHost for Host {
    fn manifests(&self) -> Arc<ManifestSet> {
        Arc::clone(&self.set.lock().unwrap())
    }

    fn clusters_at(&self, set: &ManifestSet, control_plane: &str) -> BTreeSet<ClusterArn> {
        crate::desired::named_clusters(set, control_plane)
    }

    fn sweep_interval(&self) -> Duration {
        Duration::from_mins(5)
    }

    fn invalidate_sweep(&self) {
        self.sweep_soon.notify_one();
    }

    fn record_change(&self, change: AclChange<'_>) {
        let texts = [change.name, change.change, change.result.label()].map(str::to_owned);
        self.changes.lock().unwrap().push(texts.into());
    }
}

impl AclMetrics for Host {
    fn record_acl_change(&self, _kind: ObjectKind, _change: &'static str, _ok: bool) {}

    fn record_warning(&self, _reason: &'static str) {}
}

fn target(
    name: &str,
    spec: &ControlPlaneSpec,
    consul: Arc<ConsulControlPlane<Arc<FakeServer>>>,
) -> AclTarget {
    let rate = spec.writes_per_second.max(1);
    AclTarget::new(
        name.into(),
        spec.consul.clone(),
        Arc::new(ConsulAclBackend::new(consul)),
        Circuit::new(name, CircuitConfig::default(), 2),
        TokenBucket::new(f64::from(rate), rate),
    )
}

/// A reconciler with a fake server.
struct AclReconcileFixture {
    host: Arc<Host>,
    consul: Arc<ConsulControlPlane<Arc<FakeServer>>>,
    target: Arc<AclTarget>,
    log: CapturedLog,
    lease: Arc<dyn Lease>,
}

impl AclReconcileFixture {
    fn at(server: &Arc<FakeServer>) -> Self {
        let id = OperatorId::parse("op").unwrap();
        let set = manifests(Some(auth()));
        let spec: Arc<ControlPlaneSpec> = Arc::clone(&set.control_planes["consul"]);
        let host = Arc::new(Host { set: Mutex::new(Arc::new(set)), ..Host::default() });
        let connection = spec.consul.as_ref().unwrap();
        let consul = ConsulControlPlane::new(Arc::clone(server), connection, id, Arc::new(NoObserver));
        let consul = Arc::new(consul);
        let target = Arc::new(target("consul", &spec, Arc::clone(&consul)));
        Self { host, consul, target, lease: Arc::new(AlwaysHeld), log: CapturedLog::default() }
    }

    fn reconciler(&self) -> AclReconciler {
        AclReconciler {
            target: Arc::clone(&self.target),
            host: self.host.clone(),
            metrics: self.host.clone(),
            dry_run: None,
            lease: Arc::clone(&self.lease),
            clock: clock(),
            seed: 1,
        }
    }

    /// Puts other manifests into force.
    fn declare(&self, service_tokens: Option<Value>) {
        let generation = self.host.manifests().generation + 1;
        let set = ManifestSet { generation, ..manifests(service_tokens) };
        *self.host.set.lock().unwrap() = Arc::new(set);
    }

    fn log_from_here(&self) -> tracing::subscriber::DefaultGuard {
        self.log.0.lock().unwrap().clear();
        let writer = self.log.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    async fn pass(&self) -> PassSummary {
        let _logging = self.log_from_here();
        self.host.changes.lock().unwrap().clear();
        let began = Instant::now();
        let stop = CancellationToken::new();
        let ended = AclReconcile { acl: &self.reconciler(), stop: &stop }.run().await;
        let mut states = BTreeMap::new();
        for (state, count) in self.target.state().objects.into_values().flatten() {
            *states.entry(state).or_default() += count;
        }
        let not_before = match ended {
            ReconcileEnd::Settled => None,
            ReconcileEnd::Retry(at) => at.map(|at| at.saturating_duration_since(Instant::now())),
        };
        let ended_well = matches!(ended, ReconcileEnd::Settled);
        // The host receives what the audit log has.
        assert_eq!(*self.host.changes.lock().unwrap(), audited(&self.log.text()));
        PassSummary { ended_well, not_before, states, took: began.elapsed(), log: self.log.text() }
    }
}

async fn pass(server: &Arc<FakeServer>) -> PassSummary {
    AclReconcileFixture::at(server).pass().await
}

const CREATES_POLICY: &str = "PUT /v1/acl/policy";
const CREATES_ROLE: &str = "PUT /v1/acl/role";

#[tokio::test(start_paused = true)]
async fn apply_waits_for_replication_to_secondary() {
    for lag in [0, 3, 12] {
        let server = FakeServer::with(ServerFault::Late(Duration::from_secs(lag)));
        let kept = pass(&server).await;
        assert!(kept.ended_well, "{}", kept.log);
        assert_eq!(kept.states, [("ok", 9)].into(), "after {lag} s: {}", kept.log);
        assert_eq!((server.writes_of(CREATES_POLICY), server.writes_of(CREATES_ROLE)), (2, 2), "once each");
        assert!(!kept.log.contains("differs from what was written"), "{}", kept.log);
        assert!(kept.took < Duration::from_secs(3 * lag + 5), "{:?}", kept.took);
    }
}

/// The lease of a process whose audit lines wait.
struct AuditBacklog;

impl Lease for AuditBacklog {
    fn term(&self) -> LeaseTerm {
        LeaseTerm::Unlimited
    }

    fn obstacle(&self) -> Option<WriteObstacle> {
        Some(WriteObstacle::AuditBacklog)
    }
}

#[tokio::test(start_paused = true)]
async fn pass_writes_nothing_while_the_audit_log_is_blocked() {
    let server = FakeServer::with(ServerFault::None);
    let mut fixture = AclReconcileFixture::at(&server);
    fixture.lease = Arc::new(AuditBacklog);
    let blocked = fixture.pass().await;
    assert!(!blocked.ended_well, "it is retried");
    assert_eq!(server.writes_of("PUT"), 0, "{}", blocked.log);
    fixture.lease = Arc::new(AlwaysHeld);
    assert!(fixture.pass().await.ended_well);
}

#[tokio::test(start_paused = true)]
async fn non_converging_write_is_reported_and_not_repeated() {
    let server = FakeServer::with(ServerFault::DropsFields);
    let kept = pass(&server).await;
    assert!(kept.log.contains("differs from what was written"), "{}", kept.log);
    assert_eq!(server.writes_of(CREATES_POLICY), 2, "once each");
    assert!(kept.states["drifted"] >= 2, "{:?}", kept.states);
}

#[tokio::test(start_paused = true)]
async fn rejected_selector_is_reported_and_others_are_applied() {
    let server = FakeServer::with(ServerFault::Refuses("\\\"mesh-gateway\\\""));
    let kept = pass(&server).await;
    assert!(!kept.ended_well);
    assert_eq!(kept.states, [("ok", 8), ("drifted", 1)].into(), "{}", kept.log);
    let lines: Vec<Value> = kept.log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failed: Vec<&Value> = lines.iter().filter(|line| line["result"] == "error").collect();
    let [failed] = failed[..] else { panic!("{failed:#?}") };
    assert_eq!((&failed["target"], &failed["level"]), (&json!("audit"), &json!("WARN")));
    assert_eq!(
        (&failed["kind"], &failed["name"], &failed["change"]),
        (&json!("binding_rule"), &json!("iam-ecs-service-token/mesh-gateway"), &json!("create"))
    );
    let error = failed["error"].as_str().unwrap();
    assert!(
        error.contains("PUT /v1/acl/binding-rule") && error.contains("the selector says nothing"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn unsupported_auth_method_does_not_block_others() {
    let server = FakeServer::with(ServerFault::Old("1.11.4"));
    let kept = pass(&server).await;
    // Two policies, two roles and the node; the method and its three rules wait.
    assert_eq!(kept.states, [("ok", 5), ("drifted", 4)].into(), "{}", kept.log);
    assert_eq!(
        (server.writes_of("PUT /v1/acl/auth-method"), server.writes_of("PUT /v1/acl/binding-rule")),
        (0, 0)
    );
    assert!(kept.log.contains("Consul 1.11.4") && kept.log.contains("it came with 1.12"), "{}", kept.log);
}

#[test]
fn declared_and_default_auth_methods_are_watched() {
    let directory = tempfile::tempdir().unwrap();
    let text = "apiVersion: ecs-mesh.dev/v1alpha1\nkind: ControlPlane\nmetadata: {name: consul}\n\
                spec: {type: consul, consul: {address: 'http://127.0.0.1:8500'}}\n---\n\
                apiVersion: ecs-mesh.dev/v1alpha1\nkind: ConsulAuth\nmetadata: {name: auth}\n\
                spec: {controlPlane: consul, serviceTokens: {authMethod: of-tasks, boundPrincipals: [ROLES]}, \
                clientTokens: {authMethod: of-clients, boundPrincipals: [ROLES]}}\n";
    let text = text.replace("ROLES", "'arn:aws:iam::111122223333:role/consul-ecs/*'");
    std::fs::write(directory.path().join("all.yaml"), text).unwrap();
    let loaded = ManifestSources::new([directory.path().to_owned()]).load(None).into_loaded().unwrap();
    assert_eq!(loaded.errors, []);
    let all = ["iam-ecs-client-token", "iam-ecs-service-token", "of-clients", "of-tasks"];
    let watched_auth_methods = |name: &str| {
        let server = FakeServer::with(ServerFault::None);
        let spec = &loaded.set.control_planes["consul"];
        let (connection, id) = (spec.consul.as_ref().unwrap(), OperatorId::parse("op").unwrap());
        let consul = ConsulControlPlane::new(server, connection, id, Arc::new(NoObserver));
        target(name, spec, Arc::new(consul)).methods(&loaded.set)
    };
    assert_eq!(watched_auth_methods("consul"), all.map(Arc::from).into());
    assert_eq!(watched_auth_methods("other"), all[..2].iter().map(|name| Arc::from(*name)).collect());
}
