//! The life of registrations at a real server: everything that the operator writes is stored, and nothing else changes.

use std::collections::BTreeMap;

use ecs_mesh_kuma::normalise;
use serde_json::{Value, json};

use super::relay::RecordingRelay;
use super::server::RealKuma;
use super::storage::dropped_fields;
use crate::e2e::harness::{Harness, OperatorProcess, binding, control_plane, document, eventually, workload};

/// The sidecar's port of both services.
const PORT: u16 = 15_000;
/// Called services with their listeners.
const KV: (&str, u16) = ("kv", 6379);
const APP: (&str, u16) = ("app", 6380);
const FOREIGN: &str = "/meshes/default/dataplanes/legacy-gateway";

/// A real server behind a relay, an emulated account, and the operator.
struct RegistrationTest {
    // Dropped in this order: the operator before its servers and files.
    operator: OperatorProcess,
    kuma: RealKuma,
    relay: RecordingRelay,
    harness: Harness,
}

/// Service `app` calls `kv` through its lists of outbounds.
fn base_manifests(harness: &Harness, app: &str) -> String {
    [
        control_plane("kuma", harness.variable("KUMA_API_URL"), ""),
        binding("harness", "kuma", harness.variable("ECS_MESH_CLUSTER_ARN"), ""),
        app.to_owned(),
        workload("kv", "kv"),
    ]
    .concat()
}

/// An `OutboundList` with a listener for each of these services.
fn outbounds(listeners: &[(&str, u16)]) -> String {
    let entries: Vec<String> = listeners
        .iter()
        .map(|(service, port)| {
            format!("{{service: {service}, targetPort: {PORT}, listen: {{port: {port}}}}}")
        })
        .collect();
    document("OutboundList", "callers", &format!("{{workloads: [app], outbounds: [{}]}}", entries.join(", ")))
}

/// The Workload `app` whose sidecars bind these outbounds; `None` binds every service.
fn binding_workload(outbounds: Option<&str>) -> String {
    let outbounds = outbounds.map(|outbounds| format!(", outbounds: {outbounds}")).unwrap_or_default();
    let inbound = format!("{{name: http, containerPort: 8080, port: {PORT}, protocol: http}}");
    let spec = format!(
        "{{selector: {{families: [app]}}, service: app, reach: bindOutbounds, inbounds: [{inbound}]{outbounds}}}"
    );
    document("Workload", "app", &spec)
}

impl RegistrationTest {
    async fn start(kuma: RealKuma) -> Self {
        let relay = RecordingRelay::start(&kuma.url).await;
        let mut harness = Harness::start().await;
        harness.environment.insert("KUMA_API_URL".to_owned(), relay.url.clone());
        let foreign =
            json!({"address": "10.9.9.9", "inbound": [{"port": 8080, "name": "http", "protocol": "http"}]});
        kuma.put_dataplane("legacy-gateway", &foreign).await;
        harness.manifest("base.yaml", &base_manifests(&harness, &workload("app", "app")));
        harness.manifest("outbounds.yaml", &outbounds(&[KV]));
        let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
        let operator = harness.operator_with("operator", &harness.environment, &["--queue-url", &queue]);
        Self { operator, kuma, relay, harness }
    }

    /// Waits for the Dataplanes of `app` to fit, and checks that the server has stored the operator's last writes.
    async fn wait(&self, expected: &str, fits: impl Fn(&Value) -> bool) -> BTreeMap<String, Value> {
        let of_app = |found: &BTreeMap<String, Value>| -> BTreeMap<String, Value> {
            let of_app = |body: &Value| body["labels"]["kuma.io/workload"] == "app";
            found
                .iter()
                .filter(|(_, body)| of_app(body))
                .map(|(name, body)| (name.clone(), body.clone()))
                .collect()
        };
        let fit = |found: &BTreeMap<String, Value>| {
            let app = of_app(found);
            app.len() == 2 && app.values().all(&fits)
        };
        let found = of_app(&self.harness.wait_for_dataplanes(expected, fit).await);
        self.assert_stored_as_written().await;
        found
    }

    /// Compares the last accepted body of each Dataplane with the stored one.
    async fn assert_stored_as_written(&self) {
        let stored = self.harness.dataplanes().await;
        let mut compared = 0;
        for (path, sent) in self.relay.accepted() {
            let Some(stored) = stored.get(sent["name"].as_str().unwrap_or_default()) else { continue };
            assert_eq!(dropped_fields(&sent, stored), Vec::<String>::new(), "{path}: {stored}");
            assert_eq!(normalise(&sent), normalise(stored), "{path}");
            compared += 1;
        }
        assert_eq!(compared, stored.len(), "a Dataplane was not written through the relay");
    }

    /// Checks that two sweeps write nothing.
    async fn assert_quiet(&self) {
        let (writes, sweeps) = (self.relay.writes().len(), self.operator.sweeps("").len());
        self.operator.wait_for_sweeps(sweeps + 2).await;
        let more: Vec<_> = self.relay.writes().split_off(writes);
        assert!(more.is_empty(), "writes without a change: {more:?}");
    }

    /// The outbound to a service, as this server has it.
    fn outbound(&self, (service, port): (&str, u16), has_mesh_services: bool) -> Value {
        let mut outbound = json!({"address": "127.0.0.1", "port": port});
        if has_mesh_services || self.kuma.is_v3() {
            outbound["backendRef"] = json!({"kind": "MeshService", "name": service, "port": PORT});
        } else {
            outbound["tags"] = json!({"kuma.io/service": service});
        }
        outbound
    }
}

#[tokio::test]
async fn registrations_follow_tasks_and_manifests() {
    let Some(kuma) = RealKuma::start("registrations").await else { return };
    let test = RegistrationTest::start(kuma).await;
    let foreign = test.kuma.get(FOREIGN).await;

    // Tasks start.
    test.harness.deploy("kv", 1).await;
    test.harness.deploy("app", 2).await;
    let expected = json!([test.outbound(KV, false)]);
    let found = test.wait("the tasks' Dataplanes", |body| body["networking"]["outbound"] == expected).await;
    for (name, body) in &found {
        assert_labels(name, body);
        assert_inbound(&test.kuma, body);
    }
    test.kuma.report("created", json!({"dataplane": found.values().next()}));
    assert_version_is_reported(&test).await;
    test.assert_quiet().await;

    // An edited list changes the outbounds of all tasks.
    test.harness.manifest("outbounds.yaml", &outbounds(&[KV, APP]));
    let expected = json!([test.outbound(KV, false), test.outbound(APP, false)]);
    test.wait("the edited outbounds", |body| body["networking"]["outbound"] == expected).await;
    let (code, plan) = test.harness.plan().await;
    assert_eq!((code, &plan["summary"]["unchanged"]), (0, &json!(3)), "{plan}");

    // A mesh that is moved to MeshServices keeps its outbounds.
    test.kuma.use_mesh_services().await;
    let expected = json!([test.outbound(KV, true), test.outbound(APP, true)]);
    test.wait("outbounds to the MeshService", |body| body["networking"]["outbound"] == expected).await;
    let service = test.kuma.mesh_service("kv").await;
    assert_eq!(service["spec"]["ports"][0]["port"], PORT, "{service}");
    test.kuma.report("MeshService", json!({"spec": service["spec"], "vip": service["status"]["vips"]}));
    assert_kept_outbounds(&test);

    assert_bound_outbounds(&test).await;
    test.assert_quiet().await;
    assert_drained_and_removed(&test).await;
    assert_eq!(test.kuma.get(FOREIGN).await, foreign, "a foreign Dataplane was changed");
    assert_eq!(test.relay.writes().iter().filter(|write| write.path == FOREIGN).count(), 0);
}

/// Ownership labels, and those of the server.
fn assert_labels(name: &str, body: &Value) {
    let labels = &body["labels"];
    assert_eq!(labels["ecs-mesh.dev/operator"], "harness", "{labels}");
    assert_eq!(labels["ecs-mesh.dev/cluster"], "sandbox", "{labels}");
    assert_eq!(labels["ecs-mesh.dev/task-id"], name, "{labels}");
    assert!(labels["ecs-mesh.dev/cluster-id"].is_string(), "{labels}");
    assert_eq!(labels["kuma.io/workload"], "app", "{labels}");
    assert_eq!(labels["kuma.io/origin"], "zone", "{labels}");
}

fn assert_inbound(kuma: &RealKuma, body: &Value) {
    let inbound = &body["networking"]["inbound"][0];
    for (field, value) in [
        ("port", json!(PORT)),
        ("servicePort", json!(8080)),
        ("name", json!("http")),
        ("protocol", json!("http")),
        ("state", json!("NotReady")),
        ("serviceProbe", json!({"tcp": {}})),
    ] {
        assert_eq!(inbound[field], value, "{field}: {inbound}");
    }
    let service = &inbound["tags"]["kuma.io/service"];
    assert_eq!(service, &if kuma.is_v3() { Value::Null } else { json!("app") }, "{inbound}");
}

/// A preview is written to after its resource types and its first stored Dataplane have shown the dialect; a release at once.
async fn assert_version_is_reported(test: &RegistrationTest) {
    let is_release = test.kuma.version.split('.').all(|part| part.parse::<u32>().is_ok());
    if is_release {
        assert_eq!(test.operator.lines(&[("dialect", "")]), Vec::<Value>::new());
        return;
    }
    let dialect = test.kuma.release.dialect().unwrap().as_str();
    let fields = [("level", "WARN"), ("version", &*test.kuma.version), ("dialect", dialect)];
    test.operator.line(&fields).await;
}

/// No write on the way took an outbound from a task.
fn assert_kept_outbounds(test: &RegistrationTest) {
    let mut ports: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for write in
        test.relay.writes().into_iter().filter(|write| write.body["labels"]["kuma.io/workload"] == "app")
    {
        let outbounds = write.body["networking"]["outbound"].as_array().cloned().unwrap_or_default();
        let now: Vec<Value> = outbounds.iter().map(|outbound| outbound["port"].clone()).collect();
        let before = ports.insert(write.path.clone(), now.clone()).unwrap_or_default();
        assert!(before.iter().all(|port| now.contains(port)), "{}: {before:?}, then {now:?}", write.path);
    }
}

/// Outbounds become backends that sidecars bind: some, none and every one.
async fn assert_bound_outbounds(test: &RegistrationTest) {
    let kv = json!({"kind": "MeshService", "name": "kv", "port": PORT});
    let proxying = |body: &Value| body["networking"]["transparentProxying"].clone();
    // An empty file could be a mistake, so it would make the manifests incomplete.
    test.harness.manifest("outbounds.yaml", "# none\n");
    for (outbounds, expected) in [
        (
            Some(format!("[{{service: kv, targetPort: {PORT}}}]")),
            json!({"reachableBackends": {"refs": [kv]}}),
        ),
        (Some("[]".to_owned()), json!({"reachableBackends": {}})),
        (None, Value::Null),
        (
            Some(format!("[{{service: kv, targetPort: {PORT}}}]")),
            json!({"reachableBackends": {"refs": [kv]}}),
        ),
    ] {
        let app = binding_workload(outbounds.as_deref());
        test.harness.manifest("base.yaml", &base_manifests(&test.harness, &app));
        let fits = |body: &Value| body["networking"]["outbound"].is_null() && proxying(body) == expected;
        test.wait(&format!("outbounds {outbounds:?}"), fits).await;
        let (code, plan) = test.harness.plan().await;
        assert_eq!((code, &plan["summary"]["unchanged"]), (0, &json!(3)), "{outbounds:?}: {plan}");
        test.kuma.report("bound", json!({"outbounds": outbounds, "transparentProxying": expected}));
    }
}

/// A stopping task is drained, and removed once it has stopped; the others stay.
async fn assert_drained_and_removed(test: &RegistrationTest) {
    let before = test.harness.dataplanes().await.len();
    test.harness.scale("app", 1).await;
    let left = test.harness.wait_for_dataplanes("removal of one", |found| found.len() == before - 1).await;
    let writes = test.relay.writes();
    let removed: Vec<&str> =
        writes.iter().filter(|write| write.method == "DELETE").map(|write| &*write.path).collect();
    let [removed] = removed[..] else { panic!("not one removal: {removed:?}") };
    assert!(!left.contains_key(removed.rsplit('/').next().unwrap()), "{removed}");
    let drain = writes.iter().rfind(|write| write.method == "PUT" && write.path == removed).unwrap();
    assert_eq!((drain.status, &drain.body["labels"]["ecs-mesh.dev/drain"]), (200, &json!("stopping")));
    assert_eq!(drain.body["networking"]["inbound"][0]["health"], json!({}), "{}", drain.body);
    test.harness.scale("app", 0).await;
    test.harness.scale("kv", 0).await;
    eventually("removal of all", || async { test.harness.dataplanes().await.is_empty().then_some(()) }).await;
    let (code, plan) = test.harness.plan().await;
    assert_eq!((code, &plan["changes"]), (0, &json!([])), "{plan}");
    test.kuma.report("removed", json!({"writes": test.relay.writes().len()}));
}
