//! Scripted Consul servers for tests of several crates.

#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::must_use_candidate,
    reason = "tests alone"
)]

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::{ConsulControlPlane, DEFAULT_METHOD};
use ecs_mesh_api::ConsulConnection;
use ecs_mesh_control_plane::http::{
    BodySink, HttpMethod, ResponseHead, StreamTransport, TransportError, TransportErrorKind,
};
use ecs_mesh_control_plane::{MeshCallObserver, MeshError, NoObserver, PartialList, RegistrationSummary};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::{ClusterArn, MeshName, OperatorId, TaskArn, TaskId};

pub const CLUSTER: &str = "arn:aws:ecs:us-east-1:123456789012:cluster/anchor";
pub const TOKENS: &str = "GET /v1/acl/tokens?authmethod=iam-ecs-service-token";
pub const SERVICES: &str =
    "GET /v1/catalog/node-services/arn%3Aaws%3Aecs%3Aus-east-1%3A123456789012%3Acluster%2Fanchor";
pub const SELF: &str = "GET /v1/acl/token/self";
pub const TXN: &str = "PUT /v1/txn";

pub fn operator() -> OperatorId {
    OperatorId::parse("op-1").unwrap()
}

pub fn cluster() -> ClusterArn {
    ClusterArn::parse(CLUSTER).unwrap()
}

pub fn clusters() -> BTreeSet<ClusterArn> {
    BTreeSet::from([cluster()])
}

pub fn task(number: u32) -> TaskArn {
    cluster().task(TaskId::parse(&format!("{number:032x}")).unwrap())
}

pub fn accessor(number: u32) -> String {
    format!("4fa6e11c-21d1-3462-a316-{number:012x}")
}

pub fn id(name: impl AsRef<str>) -> RegistrationId {
    RegistrationId { mesh: MeshName::default(), name: name.as_ref().into() }
}

pub fn token_id(number: u32) -> RegistrationId {
    id(format!("token/{}", accessor(number)))
}

pub fn service_id(service: &str) -> RegistrationId {
    id(format!("service/{service}@{CLUSTER}"))
}

/// The login token of this task.
pub fn token(number: u32) -> Value {
    token_with_description(
        number,
        &format!(
            "token created via login: {}",
            json!({"consul.hashicorp.com/cluster": CLUSTER, "consul.hashicorp.com/task-id": task(number).id().as_str()})
        ),
    )
}

pub fn token_with_description(number: u32, description: &str) -> Value {
    json!({
        "AccessorID": accessor(number), "SecretID": "hunter2", "Description": description,
        "ServiceIdentities": [{"ServiceName": "web"}], "Local": true, "AuthMethod": "iam-ecs-service-token",
        "CreateTime": "2026-11-22T03:50:10.087943825Z", "Hash": "h=", "CreateIndex": 37, "ModifyIndex": 37,
    })
}

/// A service of this task on its cluster's node.
pub fn service(number: u32, index: u64) -> Value {
    let task = task(number);
    json!({
        "ID": format!("web-{number}"), "Service": "web", "Tags": [], "Address": "10.0.0.9", "Port": 9090,
        "Meta": {"source": "consul-ecs", "task-id": task.id().as_str(), "task-arn": task.to_string()},
        "CreateIndex": index, "ModifyIndex": index,
    })
}

pub fn spec(more: &Value) -> ConsulConnection {
    let mut spec = json!({"address": "http://127.0.0.1:8500"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

/// One response.
#[derive(Clone)]
pub struct ScriptedResponse {
    pub head: ResponseHead,
    pub body: Vec<u8>,
}

pub type ScriptedResult = Result<ScriptedResponse, TransportError>;

#[allow(clippy::unnecessary_wraps, reason = "scripts are lists of results")]
pub fn responds(status: u16, body: &Value) -> ScriptedResult {
    text(status, &body.to_string())
}

#[allow(clippy::unnecessary_wraps, reason = "scripts are lists of results")]
pub fn text(status: u16, body: &str) -> ScriptedResult {
    Ok(ScriptedResponse {
        head: ResponseHead { status, ..ResponseHead::default() },
        body: body.as_bytes().to_vec(),
    })
}

pub fn filtered(body: &Value) -> ScriptedResult {
    responds(200, body).map(|response| ScriptedResponse {
        head: ResponseHead { filtered: true, ..response.head },
        ..response
    })
}

pub fn tokens(tokens: &[Value]) -> ScriptedResult {
    responds(200, &tokens.into())
}

pub fn services(services: &[Value]) -> ScriptedResult {
    responds(
        200,
        &json!({"Node": {"Node": CLUSTER, "Meta": {"synthetic-node": "true"}}, "Services": services}),
    )
}

/// A node with a service that belongs to no task.
pub fn foreign_services() -> ScriptedResult {
    services(&[json!({"ID": "vm", "Service": "vm", "Meta": null, "ModifyIndex": 1})])
}

/// A node that does not exist or that the token may not read.
pub fn no_node() -> ScriptedResult {
    responds(200, &json!({"Node": null, "Services": null}))
}

/// The response to a known own token.
pub fn known_token() -> ScriptedResult {
    responds(
        200,
        &json!({"AccessorID": accessor(0), "SecretID": "hunter2", "Policies": [{"ID": "1", "Name": "operator"}]}),
    )
}

/// The response to an unknown own token.
pub fn unknown_token() -> ScriptedResult {
    text(403, "ACL not found")
}

pub fn unreachable_server() -> ScriptedResult {
    Err(TransportError::new(TransportErrorKind::Connect, "connection refused"))
}

/// Responds in the order of a script, each time after a second, and records the calls.
#[derive(Default)]
pub struct ScriptedConsulTransport {
    responses: Mutex<VecDeque<ScriptedResult>>,
    calls: Mutex<Vec<(String, Option<Value>)>>,
}

impl ScriptedConsulTransport {
    pub fn of(responses: Vec<ScriptedResult>) -> Arc<Self> {
        Arc::new(Self { responses: Mutex::new(responses.into()), calls: Mutex::default() })
    }

    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().map(|(call, _)| call.clone()).collect()
    }

    /// The body of the call of this number.
    pub fn body(&self, number: usize) -> Value {
        self.calls.lock().unwrap()[number].1.clone().unwrap()
    }
}

#[async_trait]
impl StreamTransport for ScriptedConsulTransport {
    async fn stream(
        &self,
        method: HttpMethod,
        path_and_query: &str,
        body: Option<Vec<u8>>,
        sink: &mut dyn BodySink,
    ) -> Result<ResponseHead, TransportError> {
        let call = format!("{method} {path_and_query}");
        let body = body.map(|body| serde_json::from_slice(&body).unwrap());
        self.calls.lock().unwrap().push((call.clone(), body));
        let next = self.responses.lock().unwrap().pop_front();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let response = next.unwrap_or_else(|| panic!("no scripted response for {call}"))?;
        // In chunks, as from a network.
        for chunk in response.body.chunks(100) {
            assert!(sink.write(&response.head, chunk));
        }
        Ok(response.head)
    }
}

#[derive(Default)]
pub struct RecordingConsulObserver(Mutex<Vec<String>>);

impl RecordingConsulObserver {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl MeshCallObserver for RecordingConsulObserver {
    fn call(&self, operation: &'static str, outcome: &'static str, _took: Duration) {
        self.0.lock().unwrap().push(format!("{operation} {outcome}"));
    }

    fn skipped(&self, operation: &'static str) {
        self.0.lock().unwrap().push(format!("{operation} skipped"));
    }

    fn unattributed_tokens(&self, reason: &'static str, count: usize) {
        self.0.lock().unwrap().push(format!("{reason}: {count}"));
    }
}

/// A client of one auth method, so that a token scan is one response.
pub fn consul(script: &Arc<ScriptedConsulTransport>) -> ConsulControlPlane<Arc<ScriptedConsulTransport>> {
    consul_of(script, &json!({}), Arc::new(NoObserver))
}

pub fn consul_of(
    script: &Arc<ScriptedConsulTransport>,
    more: &Value,
    observer: Arc<dyn MeshCallObserver>,
) -> ConsulControlPlane<Arc<ScriptedConsulTransport>> {
    let consul = ConsulControlPlane::new(script.clone(), &spec(more), operator(), observer);
    consul.watch_auth_methods(BTreeSet::from([DEFAULT_METHOD.into()]));
    consul
}

/// The registrations of a list without failed segments.
pub fn complete(listed: Result<PartialList, MeshError>) -> Vec<RegistrationSummary> {
    let listed = listed.unwrap();
    assert!(listed.failed.is_empty(), "{:?}", listed.failed);
    listed.seen
}

/// The failed segments, as messages show them.
pub fn failed_segments(listed: &PartialList) -> Vec<String> {
    listed.failed.iter().map(|failed| failed.segment.to_string()).collect()
}

pub fn observed(
    script: &Arc<ScriptedConsulTransport>,
) -> (ConsulControlPlane<Arc<ScriptedConsulTransport>>, Arc<RecordingConsulObserver>) {
    let reported = Arc::new(RecordingConsulObserver::default());
    let observer = reported.clone();
    (consul_of(script, &json!({}), observer), reported)
}
