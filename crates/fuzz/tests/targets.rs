//! The fuzz targets. None may panic; the rest is asserted by each.

#![allow(clippy::unwrap_used, reason = "tests alone")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bolero::check;
use serde_json::json;

use ecs_mesh_api::manifests::{ManifestScope, assemble, read_file};
use ecs_mesh_aws::events::decode;
use ecs_mesh_consul::ConsulControlPlane;
use ecs_mesh_consul_acl::hcl::{HclBlock, same_rules};
use ecs_mesh_control_plane::http::{
    BodySink, HttpMethod, HttpResponse, ResponseHead, StreamTransport, Transport, TransportError,
};
use ecs_mesh_control_plane::{ControlPlane, NoObserver, RegistrationOwner, RegistrationSummary};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_fuzz::{Edits, edited};
use ecs_mesh_kuma::KumaControlPlane;
use ecs_mesh_model::{ClusterArn, MeshName, OperatorId, TaskArn};

/// How long each target runs.
fn test_time() -> Duration {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
}

// A macro, since the name of a target is that of the function that it is in.
macro_rules! target {
    () => {
        check!().with_iterations(usize::MAX).with_test_time(test_time())
    };
}

const SECRET: &str = "PLANTED-SECRET";
const CLUSTER: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/prod";
const TASK: &str = "3f2a9c0d5e6b4a718293a4b5c6d7e8f9";

/// Runs async code that waits for nothing.
fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(work)
}

fn operator() -> OperatorId {
    OperatorId::parse("op").unwrap()
}

#[test]
fn event_decoder() {
    let events = [
        include_str!("../../../tests/fixtures/events/task_fargate_running.json"),
        include_str!("../../../tests/fixtures/events/task_stopped.json"),
    ];
    let events: Vec<String> = events
        .into_iter()
        .map(|event| {
            let mut event: serde_json::Value = serde_json::from_str(event).unwrap();
            let environment = json!([{"name": "app", "environment": [{"name": "TOKEN", "value": SECRET}]}]);
            event["detail"]["overrides"] = json!({"containerOverrides": environment});
            event.to_string()
        })
        .collect();
    let enveloped = json!({"Type": "Notification", "Message": events[0]}).to_string();
    let confirmation = json!({"Type": "SubscriptionConfirmation", "Token": SECRET}).to_string();
    let events = [&events[0], &events[1], &enveloped, &confirmation];
    target!().with_type::<(u8, Edits)>().for_each(|(which, edits)| {
        let bytes = edited(events[usize::from(*which) % events.len()], edits);
        if let Ok(body) = std::str::from_utf8(&bytes) {
            let decoded = format!("{:?}", decode(body));
            assert!(!decoded.contains(SECRET), "{decoded}");
        }
    });
}

#[test]
fn manifests() {
    let files = [
        include_str!("../../../examples/manifests/mesh.yaml"),
        include_str!("../../../examples/manifests/counter-demo.yaml"),
        include_str!("../../../examples/manifests/redis-users.yaml"),
    ];
    let name: Arc<Path> = Path::new("mesh.yaml").into();
    target!().with_type::<(u8, Edits)>().for_each(|(which, edits)| {
        let bytes = edited(files[usize::from(*which) % files.len()], edits);
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let (documents, errors) = read_file(&name, text);
            let loaded = assemble(documents, ManifestScope::Complete);
            // Each error names a place and says something.
            for error in errors.iter().chain(&loaded.errors) {
                assert!(!error.message.is_empty() && error.to_string().starts_with("mesh.yaml"), "{error:?}");
            }
        }
    });
}

#[test]
fn acl_rules() {
    let rules = [
        "acl = \"write\"\nservice_prefix \"\" { policy = \"read\" }\nnode \"a\" {\n  policy = \"write\" # why\n}\n",
        r#"{"service_prefix": {"": {"policy": "read"}}, "mesh": "write"}"#,
        "partition \"p\" { namespace \"n\" { key_prefix \"k/\" { policy = <<EOF\nread\nEOF\n } } }",
    ];
    target!().with_type::<(u8, Edits)>().for_each(|(which, edits)| {
        let bytes = edited(rules[usize::from(*which) % rules.len()], edits);
        if let Ok(text) = std::str::from_utf8(&bytes) {
            HclBlock::read(text).walk(&mut |_, _| ());
            assert!(same_rules(text, text), "{text:?} differs from itself");
        }
    });
}

/// Answers every request alike.
struct SameAnswer {
    status: u16,
    body: Mutex<Vec<u8>>,
}

impl SameAnswer {
    fn new(status: u16, body: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { status, body: Mutex::new(body) })
    }

    fn body(&self) -> Vec<u8> {
        self.body.lock().unwrap().clone()
    }
}

#[async_trait]
impl Transport for SameAnswer {
    async fn send(
        &self,
        _method: HttpMethod,
        path: &str,
        _body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        // The version is right, so that writes are sent.
        let version = json!({"product": "Kuma", "version": "2.14.3"}).to_string().into_bytes();
        let (status, body) = if path == "/" { (200, version) } else { (self.status, self.body()) };
        Ok(HttpResponse { status, retry_after: Some(Duration::from_secs(1)), body })
    }
}

#[async_trait]
impl StreamTransport for SameAnswer {
    async fn stream(
        &self,
        _method: HttpMethod,
        _path: &str,
        _body: Option<Vec<u8>>,
        sink: &mut dyn BodySink,
    ) -> Result<ResponseHead, TransportError> {
        let head = ResponseHead { status: self.status, ..ResponseHead::default() };
        for chunk in self.body().chunks(100) {
            if !sink.write(&head, chunk) {
                break;
            }
        }
        Ok(head)
    }
}

const STATUSES: [u16; 8] = [200, 201, 204, 400, 404, 409, 500, 302];

#[test]
fn kuma_answers() {
    let dataplane = json!({
        "type": "Dataplane", "mesh": "default", "name": TASK, "creationTime": "2026-11-22T03:26:52.446375772Z",
        "labels": {"ecs-mesh.dev/operator": "op", "ecs-mesh.dev/cluster-id": "0123456789abcdef", "ecs-mesh.dev/task-id": TASK},
        "networking": {"address": "10.0.1.7", "inbound": [
            {"port": 15000, "servicePort": 5050, "tags": {"kuma.io/service": "web"}, "health": {"ready": true}},
        ]},
    });
    let overview = json!({
        "type": "DataplaneOverview", "mesh": "default", "name": TASK, "labels": dataplane["labels"],
        "dataplane": {"networking": dataplane["networking"]},
        "dataplaneInsight": {"subscriptions": [{"connectTime": "2026-11-22T03:26:52Z"}]},
    });
    let list = |items: &[&serde_json::Value]| json!({"total": items.len(), "items": items, "next": null});
    let error = json!({"type": "/std-errors", "status": 400, "title": "no", "detail": "why", "invalid_parameters": []});
    let bodies: Vec<String> = [
        dataplane.clone(),
        list(&[&dataplane, &dataplane]),
        list(&[&overview]),
        error,
        json!({"mode": "zone", "dpServer": {"hds": {"enabled": true}}}),
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    let id = RegistrationId { mesh: MeshName::default(), name: TASK.into() };
    target!().with_type::<(u8, u8, Edits)>().for_each(|(which, status, edits)| {
        let body = edited(&bodies[usize::from(*which) % bodies.len()], edits);
        let status = STATUSES[usize::from(*status) % STATUSES.len()];
        let kuma = KumaControlPlane::new(SameAnswer::new(status, body), operator(), Arc::new(NoObserver));
        run(async {
            let mut owned = |seen: RegistrationSummary| assert!(!seen.id.name.is_empty());
            let _ = kuma.list_owned(&BTreeSet::new(), &mut owned).await;
            let _ = kuma.list_endpoints(&id.mesh, "web").await;
            let _ = kuma.list_services(&id.mesh).await;
            let _ = kuma.refresh_capabilities(&[id.mesh.clone()].into()).await;
            let _ = kuma.put(&id, &dataplane).await;
            let _ = kuma.delete(&id).await;
            if let Ok(Some(found)) = kuma.get(&id).await {
                // The response is about the requested object, and a drain keeps it so.
                assert_eq!(found.id, id);
                let drained = kuma.render_drained(&found, ecs_mesh_core::plan::DrainReason::Stopping);
                assert_eq!(drained.body["name"], TASK);
            }
        });
    });
}

#[test]
fn consul_answers() {
    let cluster = ClusterArn::parse(CLUSTER).unwrap();
    let task = TaskArn::parse(&format!("arn:aws:ecs:eu-west-1:111122223333:task/prod/{TASK}")).unwrap();
    let description = format!(
        "token created via login: {}",
        json!({"consul.hashicorp.com/cluster": CLUSTER, "consul.hashicorp.com/task-id": TASK})
    );
    let token = json!({
        "AccessorID": "210e0252-912a-1c45-4f95-16ae2b6cd8d7", "Description": description,
        "AuthMethod": "iam-ecs-service-token", "ServiceIdentities": [{"ServiceName": "web"}],
        "CreateIndex": 7, "ModifyIndex": 7, "Hash": "x", "Local": true,
    });
    let service = json!({
        "ID": format!("web-{TASK}"), "Service": "web", "Port": 8080, "Address": "10.0.0.1",
        "Meta": {"source": "consul-ecs", "task-id": TASK, "task-arn": task.to_string()},
        "CreateIndex": 9, "ModifyIndex": 9,
    });
    let bodies: Vec<String> = [
        json!([token, token]),
        json!({"Node": {"Node": CLUSTER}, "Services": [service]}),
        json!({"Config": {"Version": "1.16.6", "Datacenter": "dc1"}}),
        json!("10.0.0.1:8300"),
        json!({"Results": [], "Errors": [{"OpIndex": 0, "What": "index is stale"}]}),
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    let connection = json!({"address": "http://consul:8500"});
    let connection = serde_json::from_value(connection).unwrap();
    target!().with_type::<(u8, u8, Edits)>().for_each(|(which, status, edits)| {
        let body = edited(&bodies[usize::from(*which) % bodies.len()], edits);
        let status = STATUSES[usize::from(*status) % STATUSES.len()];
        let transport = SameAnswer::new(status, body);
        run(async {
            let consul = ConsulControlPlane::new(transport, &connection, operator(), Arc::new(NoObserver));
            let clusters = [cluster.clone()].into();
            let mut found = Vec::new();
            let _ = consul.list_owned(&clusters, &mut |seen| found.push(seen)).await;
            // Nothing that an answer says makes an object of another cluster the operator's.
            for RegistrationSummary { owner, .. } in &found {
                let RegistrationOwner::Owned(labels) = owner else { continue };
                assert_eq!(labels.operator, operator());
                assert_eq!(labels.cluster, ecs_mesh_model::ClusterId::of(&cluster));
            }
            let _ = consul.list_for_task(&task).await;
            let _ = consul.refresh_capabilities(&BTreeSet::new()).await;
            for seen in found.iter().take(2) {
                let _ = consul.get(&seen.id).await;
            }
        });
    });
}
