//! The way to the control plane: slow, broken before the effect, and broken after it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ecs_mesh_kuma::{Answer, Method, Transport, TransportError, TransportErrorKind};
use ecs_mesh_sandbox::kuma::KumaRequest;
use tokio::time::sleep;

use super::faults::Fault;
use super::life::Shared;

pub(super) struct SimTransport(pub(super) Arc<Shared>);

fn broken(kind: TransportErrorKind) -> TransportError {
    TransportError { kind, message: "simulated".to_owned() }
}

#[async_trait]
impl Transport for SimTransport {
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, TransportError> {
        if method != Method::Get {
            self.0.must_hold_the_lease(&format_args!("{method} {path}"));
        }
        let faults = &self.0.faults;
        sleep(faults.latency()).await;
        self.0.note(|| format!("{} {path}", method.as_str()));
        if faults.mesh_is_down(self.0.now()) || faults.strikes(Fault::Unreachable, 0.02) {
            return Err(broken(TransportErrorKind::Connect));
        }
        if faults.strikes(Fault::ServerError, 0.01) {
            return Ok(Answer { status: 503, retry_after: None, body: Vec::new() });
        }
        if faults.strikes(Fault::RateLimited, 0.01) {
            let retry_after = Some(Duration::from_secs(2));
            return Ok(Answer { status: 429, retry_after, body: Vec::new() });
        }
        let request = KumaRequest {
            method: method.as_str().to_owned(),
            path_and_query: path.to_owned(),
            content_type: Some("application/json".to_owned()),
            host: "kuma".to_owned(),
            bearer: None,
            body: body.unwrap_or_default(),
        };
        if method == Method::Put && faults.strikes(Fault::WriteConflict, 0.02) {
            let mut parts = path.split('/').skip(2);
            let (mesh, name) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
            self.0.kuma.lock().unwrap().inject_conflict(mesh, name);
        }
        let answer = self.0.kuma.lock().unwrap().handle(self.0.now(), &request);
        self.0.judge_writes();
        sleep(faults.latency()).await;
        if faults.strikes(Fault::LostAnswer, 0.02) {
            // It took effect, and nobody hears of it.
            sleep(Duration::from_secs(5)).await;
            return Err(broken(TransportErrorKind::Timeout));
        }
        if faults.strikes(Fault::ErrorAfterEffect, 0.01) {
            return Ok(Answer { status: 500, retry_after: None, body: Vec::new() });
        }
        Ok(Answer { status: answer.status, retry_after: None, body: answer.body })
    }
}
