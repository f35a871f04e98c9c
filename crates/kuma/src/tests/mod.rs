//! Tests of the client: rendering, scripted responses, and calls over real HTTP.

mod calls;
mod dialects;
mod instances;
mod over_http;
mod previous_operator;
mod recorded;
mod rendering;
mod rolling;
mod tokens;
mod versions;
mod zone_proxies;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;
use ecs_mesh_api::{CalledBackend, Inbound, OutboundListener, Probe};
use ecs_mesh_control_plane::Registration;
use ecs_mesh_core::intent::{
    CalledWorkloads, DesiredProxy, DesiredReach, DesiredRegistration, Outbounds, OwnershipLabels,
    RegistrationId,
};
use ecs_mesh_model::{ClusterId, MeshName, OperatorId, ServiceName, TaskId};

const TASK: &str = "3f2a9c0d5e6b4a718293a4b5c6d7e8f9";
const CLUSTER: &str = "0123456789abcdef";

fn operator() -> OperatorId {
    OperatorId::parse("op-1").unwrap()
}

fn mesh(name: &str) -> MeshName {
    MeshName::parse(name).unwrap()
}

fn id(mesh_name: &str, name: &str) -> RegistrationId {
    RegistrationId { mesh: mesh(mesh_name), name: name.into() }
}

fn marks(task: &str) -> OwnershipLabels {
    OwnershipLabels {
        operator: operator(),
        cluster: ClusterId::parse(CLUSTER).unwrap(),
        task: TaskId::parse(task).unwrap(),
    }
}

fn inbound(value: Value) -> Inbound {
    serde_json::from_value(value).unwrap()
}

fn outbound(service: &str, target: u16, port: u16) -> OutboundListener {
    OutboundListener {
        backend: CalledBackend::Service(ServiceName::parse(service).unwrap()),
        port: target.try_into().unwrap(),
        listen: serde_json::from_value(json!({"port": port})).unwrap(),
    }
}

/// The demo app: one HTTP inbound, one outbound to kv.
fn demo() -> DesiredRegistration {
    DesiredRegistration {
        id: id("default", TASK),
        marks: marks(TASK),
        cluster_name: "demo".into(),
        binding: "prod".into(),
        address: "10.0.1.7".parse::<IpAddr>().unwrap(),
        service: ServiceName::parse("demo-app").unwrap(),
        workload: Some("demo-app".into()),
        proxy: DesiredProxy::Sidecar,
        inbounds: vec![inbound(json!({
            "name": "http", "container": "workload", "containerPort": 5050, "port": 15000, "protocol": "http",
            "tags": {"version": "v1"},
        }))],
        probe: Probe::Tcp,
        reach: DesiredReach::Listeners(Outbounds::Exactly(vec![outbound("kv", 15050, 15050)])),
        called_workloads: CalledWorkloads::default(),
    }
}

fn demo_rendered(capabilities: DataplaneCapabilities) -> Value {
    super::dataplane::render(&demo(), None, capabilities).body
}

/// The body as a 2.x control plane stores it: with labels, zone tag and times, without zero values. An inbound with a
/// probe starts not ready.
fn stored_by_2x(sent: &Value, created: bool) -> Value {
    let mut stored = sent.clone();
    let mesh = sent["mesh"].as_str().unwrap().to_owned();
    let name = sent["name"].as_str().unwrap().to_owned();
    stored["creationTime"] = "2026-11-22T03:26:52.446375772Z".into();
    stored["modificationTime"] = "2026-11-22T03:26:53.553250262Z".into();
    stored["kri"] = format!("kri_dp_{mesh}_default__{name}_").into();
    for (label, value) in [
        ("kuma.io/env", "universal"),
        ("kuma.io/mesh", mesh.as_str()),
        ("kuma.io/origin", "zone"),
        ("kuma.io/proxy-type", "sidecar"),
        ("kuma.io/zone", "default"),
    ] {
        stored["labels"][label] = value.into();
    }
    for inbound in super::normalise::inbounds_mut(&mut stored) {
        inbound.entry("tags").or_insert_with(|| json!({}))["kuma.io/zone"] = "default".into();
        if created && inbound.contains_key("serviceProbe") {
            inbound.insert("state".to_owned(), "NotReady".into());
            inbound.insert("health".to_owned(), json!({}));
        }
        if inbound.get("state") == Some(&json!("Ready")) {
            inbound.remove("state");
        }
        if inbound.get("health") == Some(&json!({"ready": false})) {
            inbound.insert("health".to_owned(), json!({}));
        }
    }
    stored
}

fn registration(stored: Value) -> Registration {
    super::dataplane::registration(stored).unwrap()
}

/// A registration of the demo app, changed as the control plane would over time.
fn registered(change: impl FnOnce(&mut Value)) -> Registration {
    let mut stored = stored_by_2x(&demo_rendered(DataplaneCapabilities::default()), true);
    change(&mut stored);
    registration(stored)
}

/// Responds in the order of a script and records the requests.
#[derive(Default)]
struct ScriptedKumaTransport {
    responses: Mutex<VecDeque<Result<HttpResponse, TransportError>>>,
    requests: Mutex<Vec<(HttpMethod, String, Option<Value>)>>,
}

impl ScriptedKumaTransport {
    fn of(responses: Vec<Result<HttpResponse, TransportError>>) -> Arc<Self> {
        Arc::new(Self { responses: Mutex::new(responses.into()), requests: Mutex::default() })
    }

    fn paths(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|(method, path, _)| format!("{method} {path}")).collect()
    }
}

#[async_trait]
impl Transport for ScriptedKumaTransport {
    async fn send(
        &self,
        method: HttpMethod,
        path_and_query: &str,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        let body = body.map(|body| serde_json::from_slice(&body).unwrap());
        self.requests.lock().unwrap().push((method, path_and_query.to_owned(), body));
        let next = self.responses.lock().unwrap().pop_front();
        next.unwrap_or_else(|| panic!("no scripted response for {method} {path_and_query}"))
    }
}

#[allow(clippy::unnecessary_wraps, reason = "scripts are lists of results")]
fn responds(status: u16, body: &Value) -> Result<HttpResponse, TransportError> {
    Ok(HttpResponse { status, retry_after: None, body: body.to_string().into_bytes() })
}

fn page(items: &[Value], next: Option<&str>) -> Result<HttpResponse, TransportError> {
    responds(200, &json!({"total": items.len(), "items": items, "next": next}))
}

/// An error body of Kuma.
fn std_error(status: u16) -> Result<HttpResponse, TransportError> {
    responds(
        status,
        &json!({"type": "/std-errors", "status": status, "title": "It failed", "detail": "for a reason"}),
    )
}

fn unreachable_server() -> Result<HttpResponse, TransportError> {
    Err(TransportError::new(TransportErrorKind::Connect, "connection refused"))
}

#[derive(Default)]
struct RecordingKumaObserver(Mutex<Vec<String>>);

impl MeshCallObserver for RecordingKumaObserver {
    fn call(&self, operation: &'static str, outcome: &'static str, _took: Duration) {
        self.0.lock().unwrap().push(format!("{operation} {outcome}"));
    }

    fn skipped(&self, operation: &'static str) {
        self.0.lock().unwrap().push(format!("{operation} skipped"));
    }
}

fn kuma(script: &Arc<ScriptedKumaTransport>) -> KumaControlPlane<Arc<ScriptedKumaTransport>> {
    KumaControlPlane::new(script.clone(), operator(), Arc::new(NoObserver))
}
