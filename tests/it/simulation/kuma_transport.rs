//! The transport to Kuma: slow, and broken before or after the effect.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ecs_mesh_kuma::{HttpMethod, HttpResponse, Transport, TransportError, TransportErrorKind};
use ecs_mesh_sandbox::kuma::KumaRequest;
use tokio::time::sleep;

use super::faults::SimFault;
use super::life::KumaShared;
use super::replicas::{self, RunningReplica};

/// Time limit of a call.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The transport of a process: one of several replicas, or the only one.
#[derive(Clone)]
pub(super) struct SimKumaTransport(pub(super) Arc<KumaShared>, pub(super) Option<Arc<RunningReplica>>);

fn broken(kind: TransportErrorKind) -> TransportError {
    TransportError::new(kind, "simulated")
}

/// The drain that a write asks for, for the history.
fn drain_of(body: Option<&[u8]>) -> String {
    let body: serde_json::Value = body.and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
    match &body["labels"]["ecs-mesh.dev/drain"] {
        serde_json::Value::String(reason) => format!(" drained: {reason}"),
        _ => String::new(),
    }
}

#[async_trait]
impl Transport for SimKumaTransport {
    async fn send(
        &self,
        method: HttpMethod,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        let (transport, to, has_body) = (self.clone(), path.to_owned(), body.is_some());
        let exchange = async move { transport.exchange(method, &to, body).await };
        let call = (method, path, has_body);
        replicas::send(&self.0, self.1.as_deref(), call, TIMEOUT, exchange).await.map_err(broken)?
    }
}

impl SimKumaTransport {
    /// One request and its answer.
    async fn exchange(
        &self,
        method: HttpMethod,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        let (faults, process) = (&self.0.faults, self.0.process());
        sleep(faults.latency()).await;
        self.0.record(|| format!("{} {path}{}", method.as_str(), drain_of(body.as_deref())));
        if faults.mesh_is_down(self.0.now()) || faults.fires(SimFault::Unreachable, 0.02) {
            return Err(broken(TransportErrorKind::Connect));
        }
        if faults.fires(SimFault::ServerHangs, 0.005) {
            sleep(TIMEOUT).await;
            return Err(broken(TransportErrorKind::Timeout));
        }
        if faults.fires(SimFault::SlowServer, 0.01) {
            sleep(TIMEOUT.mul_f64(0.8)).await;
        }
        if faults.fires(SimFault::ServerError, 0.01) {
            return Ok(HttpResponse { status: 503, retry_after: None, body: Vec::new() });
        }
        if faults.fires(SimFault::RateLimited, 0.01) {
            let retry_after = Some(Duration::from_secs(2));
            return Ok(HttpResponse { status: 429, retry_after, body: Vec::new() });
        }
        if let (true, Some(running)) = (method.writes(), &self.1) {
            running.replica.judge(&format_args!("{method} {path}"));
        }
        let request = KumaRequest::json(method.as_str(), path, body.unwrap_or_default());
        if method == HttpMethod::Put && faults.fires(SimFault::WriteConflict, 0.02) {
            let mut parts = path.split('/').skip(2);
            let (mesh, name) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
            self.0.kuma.lock().unwrap().inject_conflict(mesh, name);
        }
        let mut answer = self.0.kuma.lock().unwrap().handle(self.0.now(), &request);
        if method == HttpMethod::Get && answer.status == 200 {
            faults.add_odd_item(&mut answer.body);
        }
        self.0.check_writes(process);
        sleep(faults.latency()).await;
        if faults.fires(SimFault::LostAnswer, 0.02) {
            // The write took effect, and the response is lost.
            sleep(TIMEOUT).await;
            return Err(broken(TransportErrorKind::Timeout));
        }
        if faults.fires(SimFault::BrokenAnswer, 0.01) {
            return Err(broken(TransportErrorKind::Broken));
        }
        if faults.fires(SimFault::ErrorAfterEffect, 0.01) {
            return Ok(HttpResponse { status: 500, retry_after: None, body: Vec::new() });
        }
        Ok(HttpResponse { status: answer.status, retry_after: None, body: answer.body })
    }
}
