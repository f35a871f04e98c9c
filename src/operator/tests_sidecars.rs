//! A sidecar's report to the control plane outranks its container definition.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::test_fixture::{OperatorFixture, document, workload};
use ecs_mesh_sandbox::kuma::KumaRequest;

/// The feature of a sidecar with `--bind-outbounds`.
const BINDS: &str = "feature-bind-outbounds";

/// A workload `a` with this reach, and a list with an outbound to `kv`.
fn caller(reach: &str) -> String {
    let inbound = "{name: http, containerPort: 8080, port: 15000, protocol: http}";
    let spec = format!("selector: {{services: [a]}}, service: a, reach: {reach}, inbounds: [{inbound}]");
    let outbound = "{service: kv, targetPort: 15000, listen: {port: 9001}}";
    let list = format!("workloads: [a], outbounds: [{outbound}]");
    document("Workload", "a", &spec) + &document("OutboundList", "callers-of-kv", &list)
}

impl OperatorFixture {
    /// A running operator with a registered task of `a`, whose definition shows no sidecar.
    async fn with_caller(reach: &str) -> Self {
        let mut fixture = Self::new(&[("a", 1), ("kv", 1)]);
        let mesh = json!({"type": "Mesh", "name": "default", "meshServices": {"mode": "Exclusive"}});
        let request = KumaRequest::json("PUT", "/meshes/default", mesh.to_string().into_bytes());
        assert!(fixture.kuma.lock().unwrap().handle(fixture.clock.now(), &request).status < 300);
        fixture.cleanup = "{sweepInterval: 20s, drain: 1s}".to_owned();
        fixture.edit(&(caller(reach) + &workload("kv", "kv")));
        fixture.start();
        sleep(Duration::from_mins(3)).await;
        fixture
    }

    /// The networking of `a`.
    fn networking(&self) -> (String, Value) {
        let kuma = self.kuma.lock().unwrap();
        let is_a = |body: &Value| body["labels"]["kuma.io/workload"] == "a";
        let (_, name, body) = kuma.dataplanes().find(|(_, _, body)| is_a(body)).unwrap();
        (name.to_owned(), body["networking"].clone())
    }

    /// Connects the sidecar of `a`.
    async fn connect_with(&self, features: &[&str]) {
        let name = self.networking().0;
        {
            let mut kuma = self.kuma.lock().unwrap();
            assert!(kuma.connect_sidecar("default", &name, "10.0.0.1", self.clock.now()));
            kuma.set_sidecar_features("default", &name, features);
        }
        sleep(Duration::from_mins(1)).await;
    }

    async fn plan_text(&self) -> String {
        serde_json::to_string(&self.plan().await).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn sidecar_that_reports_no_binding_gets_its_listeners() {
    let fixture = OperatorFixture::with_caller("bindOutbounds").await;
    let networking = fixture.networking().1;
    assert_eq!(networking["outbound"], Value::Null);
    assert!(networking["transparentProxying"]["reachableBackends"].is_object(), "{networking}");
    fixture.connect_with(&[]).await;
    assert_eq!(fixture.networking().1["outbound"][0]["backendRef"]["name"], "kv");
    let plan = fixture.plan_text().await;
    assert!(plan.contains("as it reports to the control plane, runs without --bind-outbounds"), "{plan}");
    // A sidecar that disconnects starts again as before.
    let name = fixture.networking().0;
    fixture.kuma.lock().unwrap().disconnect_sidecar("default", &name, fixture.clock.now());
    sleep(Duration::from_mins(1)).await;
    assert_eq!(fixture.networking().1["outbound"][0]["backendRef"]["name"], "kv");
}

#[tokio::test(start_paused = true)]
async fn sidecar_that_binds_against_the_manifest_is_a_warning() {
    let fixture = OperatorFixture::with_caller("outbounds").await;
    fixture.connect_with(&[BINDS]).await;
    assert_eq!(fixture.networking().1["outbound"][0]["backendRef"]["name"], "kv", "the listeners are kept");
    let plan = fixture.plan_text().await;
    assert!(plan.contains("as it reports to the control plane, runs with --bind-outbounds"), "{plan}");
}
