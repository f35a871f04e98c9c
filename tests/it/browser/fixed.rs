//! The read API's server over views that a test sets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use ecs_mesh_controller::NoSecrets;
use ecs_mesh_operator::read_api::{
    History, HistoryEntry, HistoryRecord, ReadApiOptions, ReadServer, ReadSource, ReadTaskFacts,
    ReadTokenSource, Snapshot, SnapshotLists,
};
use ecs_mesh_operator::telemetry::metrics::{ApiMetrics, Metrics};
use ecs_mesh_read_api::{
    ChangeView, ControlPlaneView, ErrorView, GuardView, OutboundView, ServiceView, StatusView,
    TaskRegistrationsView, TaskView, WarningView,
};

/// A time in the past of every test.
const TIME: &str = "2026-11-22T03:00:00Z";

/// Views that a test sets, behind the real server.
pub(super) struct FixedSource {
    lists: Mutex<SnapshotLists>,
    status: Mutex<StatusView>,
    history: Arc<History>,
    /// The server's requests.
    pub(super) metrics: ApiMetrics,
}

impl FixedSource {
    pub(super) fn new(lists: SnapshotLists) -> Arc<Self> {
        let history = Arc::new(History::new(1_000));
        let metrics = Metrics::default().api.clone();
        Arc::new(Self { lists: Mutex::new(lists), status: Mutex::new(status()), history, metrics })
    }

    /// Changes the views; the stream tells readers.
    pub(super) fn edit(&self, edit: impl FnOnce(&mut SnapshotLists)) {
        edit(&mut self.lists.lock().unwrap());
    }

    /// Changes the status; the stream tells readers. Numbers of views and of the history follow from those.
    pub(super) fn edit_status(&self, edit: impl FnOnce(&mut StatusView)) {
        edit(&mut self.status.lock().unwrap());
    }

    /// Records a change of a task.
    pub(super) fn record(&self, id: u64, kind: &str, task: &TaskView) {
        let change: ChangeView = view(json!({
            "id": id, "time": TIME, "kind": kind, "object": "registration", "controlPlane": "kuma", "mesh": "default",
            "name": task.name, "task": task.arn, "service": task.service, "result": "success",
            "reason": {"key": "desired", "message": format!("test change {id}")},
        }));
        self.enter(change, HistoryRecord::Change);
    }

    /// Records a warning about a task, or the end of one.
    pub(super) fn record_warning(&self, id: u64, task: &TaskView, is_over: bool) {
        let kind = if is_over { "resolved" } else { "warning" };
        let entry: ChangeView = view(json!({
            "id": id, "time": TIME, "kind": kind, "object": "registration", "controlPlane": "kuma",
            "task": task.arn, "service": task.service,
            "reason": {"key": "rejected", "message": format!("test {kind} {id}")},
        }));
        let record = if is_over {
            HistoryRecord::Resolved(Arc::new(view(json!({
                "reason": "rejected", "controlPlane": "kuma", "task": task.arn, "service": task.service
            }))))
        } else {
            let service = task.service.as_deref().unwrap_or_default();
            HistoryRecord::Warning(Arc::new(WarningView {
                examples: vec![task.name.clone()],
                ..warning(0, service)
            }))
        };
        self.enter(entry, record);
    }

    fn enter(&self, change: ChangeView, record: HistoryRecord) {
        let at = ecs_mesh_model::Timestamp::parse(TIME).unwrap();
        self.history.record(HistoryEntry { id: change.id, at, change: Arc::new(change), record });
    }

    /// Serves at this address; port 0 takes a free one. Returns the page's URL.
    pub(super) async fn serve(
        self: &Arc<Self>,
        address: SocketAddr,
        token: Option<PathBuf>,
    ) -> (ReadServer, String) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let token = token.map(ReadTokenSource::File);
        let metrics = self.metrics.clone();
        let options = ReadApiOptions { address, token, tls: None, metrics };
        let server =
            ReadServer::serve(listener, options, Arc::new(NoSecrets), Arc::clone(self) as _).await.unwrap();
        (server, format!("http://{address}/"))
    }

    /// Serves at a free port until [`ServerProcess::kill`], which ends all connections as the end of a process does.
    pub(super) async fn serve_apart(self: &Arc<Self>) -> (ServerProcess, String) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let source = Arc::clone(self);
        let (server, url) = runtime.spawn(async move { source.serve_anywhere().await }).await.unwrap();
        (ServerProcess { _server: server, runtime: Some(runtime) }, url)
    }

    /// Serves at a free port without a token.
    pub(super) async fn serve_anywhere(self: &Arc<Self>) -> (ReadServer, String) {
        self.serve(ANYWHERE.parse().unwrap(), None).await
    }
}

/// A server with a runtime of its own. Dropping it ends the server and its connections.
pub(super) struct ServerProcess {
    _server: ReadServer,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(tokio::runtime::Runtime::shutdown_background);
    }
}

pub(super) const ANYWHERE: &str = "127.0.0.1:0";

#[async_trait]
impl ReadSource for FixedSource {
    fn now(&self) -> ecs_mesh_model::Timestamp {
        crate::e2e::servers::now()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.status(), self.lists.lock().unwrap().clone())
    }

    fn task_facts(&self, task: &TaskView) -> ReadTaskFacts {
        let is_rejected = task.state == ecs_mesh_read_api::TaskStateView::Rejected;
        let found = if is_rejected { Value::Null } else { json!(task.service) };
        ReadTaskFacts {
            evidence: Some(view(json!({"lastStatus": "RUNNING", "desiredStatus": "RUNNING", "version": 3}))),
            role_tags: vec![view(json!({
                "key": "kuma.io/service", "value": found, "expected": task.service, "ok": !is_rejected
            }))],
            verdict: vec![view(json!({"controlPlane": "kuma", "text": format!("verdict on {}", task.name)}))],
        }
    }

    fn status(&self) -> StatusView {
        let mut status = self.status.lock().unwrap().clone();
        let lists = self.lists.lock().unwrap();
        let counts = status.counts.get_or_insert_default();
        counts.tasks = lists.tasks.len();
        counts.services = lists.services.len();
        counts.warnings = lists.warnings.len();
        status.history = self.history.view();
        status
    }

    fn history(&self) -> &Arc<History> {
        &self.history
    }

    async fn registrations(&self, task: &TaskView) -> Result<TaskRegistrationsView, ErrorView> {
        let registrations: Vec<Value> = task
            .registrations
            .iter()
            .map(|one| json!({"controlPlane": "kuma", "name": one.name, "body": {"type": "Dataplane", "name": one.name}}))
            .collect();
        Ok(view(json!({"name": task.name, "registrations": registrations})))
    }
}

/// A view from its JSON.
fn view<T: serde::de::DeserializeOwned>(json: Value) -> T {
    let text = json.to_string();
    serde_json::from_value(json).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn status() -> StatusView {
    let counts = json!({
        "tasks": 0, "services": 0, "bindings": 1, "identities": 0, "outbounds": 0, "warnings": 0, "changes": 0
    });
    view(json!({
        "operator": "fixed", "version": "0.0.0", "startedAt": TIME, "now": TIME, "role": "leader", "leader": "copy-b",
        "ready": true, "pending": [], "guards": [], "clusters": [], "counts": counts,
        "controlPlanes": [control_plane("kuma")],
        "manifests": {"documents": 3, "complete": true, "errors": [], "warnings": [], "unread": []},
        "history": {"changes": 0, "capacity": 1000}
    }))
}

/// A control plane that works.
pub(super) fn control_plane(name: &str) -> ControlPlaneView {
    view(json!({
        "name": name, "type": "kuma", "version": "2.14.3", "supported": true, "synced": true, "circuit": "closed",
        "registrations": 0, "drained": 0, "tasksWithWarnings": 0
    }))
}

/// The guard of a binding, which has withdrawn all that it admits and holds this many removals.
pub(super) fn guard(binding: &str, held: usize) -> GuardView {
    view(json!({
        "controlPlane": "kuma", "binding": binding, "tripped": held > 0, "withdrawn": 3, "limit": 3, "held": held
    }))
}

/// The id of the nth task.
pub(super) fn task_id(number: usize) -> String {
    format!("{number:032x}")
}

/// The nth task, in a state.
pub(super) fn task(number: usize, service: &str, state: &str) -> TaskView {
    let id = task_id(number);
    let registration = json!({
        "controlPlane": "kuma", "mesh": "default", "name": id, "service": service, "kind": "dataplane",
        "ready": state == "registered"
    });
    let registrations =
        if matches!(state, "registered" | "drained") { vec![registration] } else { Vec::new() };
    let warning = json!({
        "reason": "rejected", "message": "the role lacks a tag", "fix": "aws iam tag-role --role-name task"
    });
    let warnings = if state == "rejected" { vec![warning] } else { Vec::new() };
    view(json!({
        "name": id, "arn": format!("arn:aws:ecs:eu-west-1:111122223333:task/prod/{id}"),
        "cluster": "arn:aws:ecs:eu-west-1:111122223333:cluster/prod", "account": "111122223333",
        "region": "eu-west-1", "ecsService": service, "definition": format!("{service}:1"),
        "lastStatus": "RUNNING", "desiredStatus": "RUNNING", "address": "10.0.0.1",
        "role": format!("arn:aws:iam::111122223333:role/{service}-task"), "createdAt": TIME, "state": state,
        "workloads": [service], "binding": "prod", "controlPlane": "kuma", "service": service,
        "registrations": registrations, "warnings": warnings
    }))
}

/// A service in a state.
pub(super) fn service(name: &str, state: &str, total: usize) -> ServiceView {
    let ready = if state == "down" { 0 } else { total };
    let rejected = usize::from(state == "degraded");
    let is_declared = state != "undeclared";
    view(json!({
        "name": name, "controlPlane": "kuma", "mesh": "default", "state": state,
        "registrations": {"total": total, "ready": ready, "drained": 0, "unknown": 0},
        "tasks": {"total": total + rejected, "rejected": rejected, "held": 0, "pending": 0, "warnings": rejected},
        "workloads": if is_declared { vec![name] } else { Vec::new() },
        "bindings": if is_declared { vec!["prod"] } else { Vec::new() },
        "ecsServices": [name], "outbounds": [], "callers": [], "declared": is_declared
    }))
}

/// An outbound between two workloads of the services' names.
pub(super) fn outbound(from: &str, to: &str, state: &str) -> OutboundView {
    view(json!({
        "from": from, "to": to, "controlPlane": "kuma", "mesh": "default", "port": 8080,
        "declaredBy": format!("Workload/{from}"), "state": state
    }))
}

/// A warning about the nth task.
pub(super) fn warning(number: usize, service: &str) -> WarningView {
    view(json!({
        "id": format!("rejected-{service}"), "controlPlane": "kuma", "reason": "rejected",
        "message": format!("the role of {service} lacks a tag"), "fix": "aws iam tag-role --role-name task",
        "tasks": 1, "examples": [task_id(number)], "services": [service], "since": TIME
    }))
}

/// A service that markup would end up in if text became HTML.
pub(super) const HOSTILE: &str = "<img src=x onerror=\"document.title='hit'\">";

/// Five services, one of them hostile, one rejected task, one undeclared and one missing service.
pub(super) fn small_mesh() -> SnapshotLists {
    let names = ["web", "shop", "orders", HOSTILE];
    let mut services: Vec<ServiceView> = names.iter().map(|name| service(name, "ok", 2)).collect();
    services[2] = service("orders", "degraded", 2);
    services.push(service("legacy", "undeclared", 1));
    services.push(service("kv", "missing", 0));
    link(&mut services, "web", "shop");
    link(&mut services, "shop", "orders");
    link(&mut services, "orders", "kv");
    link(&mut services, "shop", HOSTILE);
    let mut tasks: Vec<TaskView> = Vec::new();
    for (number, name) in names.iter().flat_map(|name| [name, name]).enumerate() {
        tasks.push(task(number, name, "registered"));
    }
    tasks.push(task(8, "orders", "rejected"));
    tasks.push(task(9, "web", "drained"));
    SnapshotLists {
        services,
        tasks,
        outbounds: vec![
            outbound("web", "shop", "ok"),
            outbound("shop", "orders", "ok"),
            outbound("orders", "kv", "unknownTarget"),
            outbound("shop", HOSTILE, "ok"),
        ],
        warnings: vec![warning(8, "orders")],
        ..SnapshotLists::default()
    }
}

/// Adds a call to the views of both services.
pub(super) fn link(services: &mut [ServiceView], from: &str, to: &str) {
    for service in services {
        if *service.name == *from {
            service.outbounds.push(to.into());
        }
        if *service.name == *to {
            service.callers.push(from.into());
        }
    }
}
