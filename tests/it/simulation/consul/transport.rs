//! The way to Consul, and the token that goes along: slow, broken before the effect, in the middle of an answer, and
//! after the effect.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ecs_mesh_operator::mesh::http::{
    Head, Method, Sink, StreamTransport, TransportError, TransportErrorKind,
};
use ecs_mesh_operator::sandbox::consul::ConsulRequest;
use tokio::time::sleep;

use super::life::Shared;

/// How long a call waits for its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Answers come in parts of so many bytes.
const PART: usize = 500;

pub(super) struct SimTransport(pub(super) Arc<Shared>);

fn broken(kind: TransportErrorKind) -> TransportError {
    TransportError { kind, message: "simulated".to_owned() }
}

/// An answer in words.
fn said(status: u16, retry_after: Option<Duration>, text: &str, sink: &mut dyn Sink) -> Head {
    let head = Head { status, retry_after, filtered: false };
    sink.take(&head, text.as_bytes());
    head
}

#[async_trait]
impl StreamTransport for SimTransport {
    async fn stream(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        sink: &mut dyn Sink,
    ) -> Result<Head, TransportError> {
        if method != Method::Get {
            self.0.must_hold_the_lease(&format_args!("{method} {path}"));
        }
        let faults = &self.0.faults;
        sleep(faults.latency()).await;
        let now = self.0.now();
        let token = self.0.token_now();
        self.0.note(|| format!("{method} {path} as {token:?}"));
        if faults.mesh_is_down(now) || faults.strikes(0.02) {
            return Err(broken(TransportErrorKind::Connect));
        }
        if faults.strikes(0.01) {
            // The server hangs.
            sleep(TIMEOUT).await;
            return Err(broken(TransportErrorKind::Timeout));
        }
        if faults.strikes(0.01) {
            return Ok(said(500, None, "No cluster leader", sink));
        }
        if faults.strikes(0.01) {
            return Ok(said(429, Some(Duration::from_secs(2)), "rate limit", sink));
        }
        let request = ConsulRequest {
            method: method.as_str().to_owned(),
            path_and_query: path.to_owned(),
            token: Some(self.0.secret_of(token).to_owned()),
            enterprise_header: None,
            body: body.unwrap_or_default(),
        };
        let answer = self.0.consul.lock().unwrap().handle(now, &request);
        self.0.judge_writes();
        sleep(faults.latency()).await;
        if faults.strikes(0.02) {
            // It took effect, and nobody hears of it.
            sleep(TIMEOUT).await;
            return Err(broken(TransportErrorKind::Timeout));
        }
        if faults.strikes(0.01) {
            return Ok(said(500, None, "rpc error getting client", sink));
        }
        let filtered = answer.header("X-Consul-Results-Filtered-By-ACLs") == Some("true");
        let head = Head { status: answer.status, retry_after: None, filtered };
        let breaks = faults.strikes(0.01).then(|| faults.pick(answer.body.len().div_ceil(PART)));
        for (number, part) in answer.body.chunks(PART).enumerate() {
            if breaks == Some(number) {
                return Err(broken(TransportErrorKind::Broken));
            }
            if !sink.take(&head, part) {
                return Err(broken(TransportErrorKind::TooLarge));
            }
        }
        Ok(head)
    }
}
