//! Outbounds to what a mesh does not have: reported once, with the reason.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use super::test_fixture::{OperatorFixture, document, workload};
use ecs_mesh_sandbox::kuma::KumaRequest;

const UNKNOWN: &str = "outbound targets unknown service; keeping the outbound";
const UNBINDABLE: &str = "sidecars cannot bind service addresses outside 127.0.0.0/8";

type LoggedFields = BTreeMap<String, String>;

/// The log lines of a test's thread.
#[derive(Clone, Debug, Default)]
struct RecordedLog(Arc<Mutex<Vec<LoggedFields>>>);

struct FieldRecorder(LoggedFields);

impl Visit for FieldRecorder {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: tracing::Subscriber> Layer<S> for RecordedLog {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = FieldRecorder(LoggedFields::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }
}

impl RecordedLog {
    /// Records from now on.
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
        (log, guard)
    }

    /// One field of each line with this message.
    fn field(&self, message: &str, field: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        let lines = lines.iter().filter(|line| line.get("message").is_some_and(|found| found == message));
        lines.map(|line| line.get(field).cloned().unwrap_or_default()).collect()
    }
}

impl OperatorFixture {
    fn put_resource(&self, path: &str, body: &Value) {
        let request = KumaRequest::json("PUT", path, body.to_string().into_bytes());
        let response = self.kuma.lock().unwrap().handle(self.clock.now(), &request);
        assert!(response.status < 300, "{path}: {}", String::from_utf8_lossy(&response.body));
    }

    /// A mesh with services as resources only, one of them outside of the mesh.
    fn with_payments(services: &[(&str, usize)]) -> Self {
        let mut fixture = Self::new(services);
        let mesh = json!({"type": "Mesh", "name": "default", "meshServices": {"mode": "Exclusive"}});
        fixture.put_resource("/meshes/default", &mesh);
        let payments = json!({
            "type": "MeshExternalService", "mesh": "default", "name": "payments",
            "spec": {
                "match": {"type": "HostnameGenerator", "port": 443, "protocol": "tcp"},
                "endpoints": [{"address": "payments.example.com", "port": 443}],
            },
        });
        fixture.put_resource("/meshes/default/meshexternalservices/payments", &payments);
        fixture.cleanup = "{sweepInterval: 20s, drain: 1s}".to_owned();
        fixture
    }

    /// The number of unknown outbounds of each mesh.
    fn unknown_outbounds(&self) -> Vec<(String, usize)> {
        let workers = self.operator.as_ref().unwrap().workers();
        let worker = workers.values().next().unwrap();
        let counts = worker.unknown_outbound_counts().into_iter().filter(|(_, count)| *count > 0);
        counts.map(|(mesh, count)| (mesh.to_string(), count)).collect()
    }
}

/// The workload `a` with more fields.
fn caller(more: &str) -> String {
    let inbound = "{name: http, containerPort: 8080, port: 15000, protocol: http}";
    let spec = format!("selector: {{services: [a]}}, service: a, inbounds: [{inbound}], {more}");
    document("Workload", "a", &spec)
}

#[tokio::test(start_paused = true)]
async fn outbound_to_another_type_names_the_type() {
    let (log, _guard) = RecordedLog::start();
    let mut fixture = OperatorFixture::with_payments(&[("a", 1)]);
    let outbound = "outbounds: [{service: payments, targetPort: 443, listen: {port: 9001}}]";
    fixture.edit(&(caller(outbound) + &workload("kv", "kv")));
    fixture.start();
    sleep(Duration::from_mins(3)).await;
    assert_eq!(log.field(UNKNOWN, "service"), ["payments"]);
    assert_eq!(log.field(UNKNOWN, "reason"), ["payments is a MeshExternalService"]);
    assert_eq!(fixture.unknown_outbounds(), [("default".to_owned(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn outbound_counts_only_in_meshes_that_the_workload_may_be_in() {
    let (log, _guard) = RecordedLog::start();
    let mut fixture = OperatorFixture::with_payments(&[("a", 1), ("kv", 1)]);
    let mesh = json!({"type": "Mesh", "name": "other", "meshServices": {"mode": "Exclusive"}});
    fixture.put_resource("/meshes/other", &mesh);
    let stage = document(
        "MeshBinding",
        "stage",
        "controlPlane: kuma, mesh: other, roleTags: {mode: off}, selector: {clusters: [\"*:cluster/stage-*\"]}",
    );
    let selector = "selector: {clusters: [\"*:cluster/c\"], services: [a]}";
    let outbounds = "outbounds: [{service: kv, targetPort: 15000, listen: {port: 9001}}]";
    let a = document("Workload", "a", &format!("{selector}, service: a, {outbounds}"));
    fixture.edit(&(stage + &a + &workload("kv", "kv")));
    fixture.start();
    sleep(Duration::from_mins(5)).await;
    assert_eq!(fixture.unknown_outbounds(), [], "kv is in the mesh of the tasks");
    assert_eq!(log.field(UNKNOWN, "mesh"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn unknown_service_of_tags_is_reported_with_the_nearest_name() {
    let (log, _guard) = RecordedLog::start();
    let mut fixture = OperatorFixture::new(&[("a", 1), ("kv", 1)]);
    fixture.cleanup = "{sweepInterval: 20s, drain: 1s}".to_owned();
    let calls = |service: &str| {
        format!("outbounds: [{{service: {service}, targetPort: 15000, listen: {{port: 9001}}}}]")
    };
    fixture.edit(&(caller(&calls("kvv")) + &workload("kv", "kv")));
    fixture.start();
    sleep(Duration::from_mins(3)).await;
    let reason = "the mesh has no such service; did you mean kv? There are: a, kv";
    assert_eq!(log.field(UNKNOWN, "reason"), [reason]);
    fixture.edit(&(caller(&calls("kv")) + &workload("kv", "kv")));
    sleep(Duration::from_mins(1)).await;
    assert_eq!(log.field("outbound service is known to the mesh again", "service"), ["kvv"]);
    assert_eq!(fixture.unknown_outbounds(), []);
}

#[tokio::test(start_paused = true)]
async fn unbindable_addresses_are_reported_once_while_sidecars_bind_them() {
    let (log, _guard) = RecordedLog::start();
    let mut fixture = OperatorFixture::with_payments(&[("a", 1), ("kv", 1)]);
    fixture.edit(&(caller("reach: bindOutbounds") + &workload("kv", "kv")));
    fixture.start();
    sleep(Duration::from_mins(3)).await;
    // The emulator gives services addresses in 241.0.0.0/8, as Kuma does by default.
    let [example] = &log.field(UNBINDABLE, "addresses")[..] else { panic!("{log:?}") };
    assert!(example.contains("241."), "{example}");
    fixture.edit(&(caller("outbounds: []") + &workload("kv", "kv")));
    sleep(Duration::from_mins(1)).await;
    fixture.edit(&(caller("reach: bindOutbounds") + &workload("kv", "kv")));
    sleep(Duration::from_mins(1)).await;
    assert_eq!(log.field(UNBINDABLE, "mesh"), ["default", "default"], "it is reported again");
}
