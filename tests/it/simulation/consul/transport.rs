//! The transport to Consul with the operator's token: slow, and broken before the effect, within a response, or after
//! the effect.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ecs_mesh_control_plane::http::{
    BodySink, HttpMethod, ResponseHead, StreamTransport, TransportError, TransportErrorKind,
};
use ecs_mesh_sandbox::consul::ConsulRequest;
use tokio::time::sleep;

use super::super::faults::SimFault;
use super::super::replicas::{self, RunningReplica};
use super::shared::{ConsulShared, OperatorToken};

/// Time limit of a call.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Size of a response's chunks in bytes.
const PART: usize = 500;

/// The transport of a process: one of several replicas, or the only one.
#[derive(Clone)]
pub(super) struct SimConsulTransport(pub(super) Arc<ConsulShared>, pub(super) Option<Arc<RunningReplica>>);

fn broken(kind: TransportErrorKind) -> TransportError {
    TransportError::new(kind, "simulated")
}

/// A text response.
fn said(status: u16, retry_after: Option<Duration>, text: &str, sink: &mut dyn BodySink) -> ResponseHead {
    let head = ResponseHead { status, retry_after, filtered: false };
    sink.write(&head, text.as_bytes());
    head
}

/// An empty list with the filter header.
fn is_empty(body: &[u8]) -> bool {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let list = body.get("Services").unwrap_or(&body);
    list.is_null() || list.as_array().is_some_and(Vec::is_empty)
}

impl SimConsulTransport {
    /// Faults before a call takes effect.
    async fn inject(&self, sink: &mut dyn BodySink) -> Option<Result<ResponseHead, TransportError>> {
        let faults = &self.0.faults;
        if faults.mesh_is_down(self.0.now()) || faults.fires(SimFault::Unreachable, 0.02) {
            return Some(Err(broken(TransportErrorKind::Connect)));
        }
        if faults.fires(SimFault::ServerHangs, 0.01) {
            sleep(TIMEOUT).await;
            return Some(Err(broken(TransportErrorKind::Timeout)));
        }
        if faults.fires(SimFault::ServerError, 0.01) {
            return Some(Ok(said(500, None, "No cluster leader", sink)));
        }
        if faults.fires(SimFault::RateLimited, 0.01) {
            return Some(Ok(said(429, Some(Duration::from_secs(2)), "rate limit", sink)));
        }
        if faults.fires(SimFault::SlowServer, 0.01) {
            sleep(TIMEOUT.mul_f64(0.8)).await;
        }
        None
    }

    /// Counts kinds of faults that show in a response.
    fn counts(&self, method: HttpMethod, path: &str, token: OperatorToken, head: &ResponseHead, body: &[u8]) {
        let faults = &self.0.faults;
        if token == OperatorToken::Unknown {
            faults.count(SimFault::UnknownToken);
            if method == HttpMethod::Delete && head.status == 404 {
                faults.count(SimFault::NotFoundForBadToken);
            }
        }
        if head.filtered {
            let all = is_empty(body);
            faults.count(if all { SimFault::FilteredEmptyList } else { SimFault::FilteredList });
        }
        let tokens = path.starts_with("/v1/acl/tokens");
        if (tokens || path.starts_with("/v1/catalog/node-services/")) && head.status == 200 {
            self.0.was_listed(tokens, body);
        }
    }
}

/// Keeps a response, for a caller that may have given up.
#[derive(Default)]
struct KeptResponse(Vec<(ResponseHead, Vec<u8>)>);

impl BodySink for KeptResponse {
    fn write(&mut self, head: &ResponseHead, chunk: &[u8]) -> bool {
        self.0.push((*head, chunk.to_vec()));
        true
    }
}

#[async_trait]
impl StreamTransport for SimConsulTransport {
    async fn stream(
        &self,
        method: HttpMethod,
        path: &str,
        body: Option<Vec<u8>>,
        sink: &mut dyn BodySink,
    ) -> Result<ResponseHead, TransportError> {
        let (transport, to, has_body) = (self.clone(), path.to_owned(), body.is_some());
        let exchange = async move {
            let mut kept = KeptResponse::default();
            let answer = transport.exchange(method, &to, body, &mut kept).await;
            (answer, kept)
        };
        let call = (method, path, has_body);
        let sent = replicas::send(&self.0, self.1.as_deref(), call, TIMEOUT, exchange).await;
        let (answer, kept) = sent.map_err(broken)?;
        let is_complete = kept.0.iter().all(|(head, chunk)| sink.write(head, chunk));
        if is_complete { answer } else { Err(broken(TransportErrorKind::TooLarge)) }
    }
}

impl SimConsulTransport {
    /// One request and its answer.
    async fn exchange(
        &self,
        method: HttpMethod,
        path: &str,
        body: Option<Vec<u8>>,
        sink: &mut dyn BodySink,
    ) -> Result<ResponseHead, TransportError> {
        let (faults, process) = (&self.0.faults, self.0.process());
        sleep(faults.latency()).await;
        self.0.count_call("mesh");
        if method == HttpMethod::Delete && faults.happens(0.1) {
            // The token was valid before.
            self.0.spoil_token(OperatorToken::Unknown, Duration::from_secs(15));
        }
        let token = self.0.token_now();
        self.0.record(|| format!("{method} {path} as {token:?}"));
        if let Some(failed) = self.inject(sink).await {
            return failed;
        }
        if let (true, Some(running)) = (method.writes(), &self.1) {
            running.replica.judge(&format_args!("{method} {path}"));
        }
        let request = ConsulRequest {
            method: method.as_str().to_owned(),
            path_and_query: path.to_owned(),
            token: Some(self.0.secret_of(token).to_owned()),
            enterprise_header: None,
            body: body.unwrap_or_default(),
        };
        let mut answer = self.0.consul.lock().unwrap().handle(self.0.now(), &request);
        self.0.check_writes(process);
        let filtered = answer.header("X-Consul-Results-Filtered-By-ACLs") == Some("true");
        let head = ResponseHead { status: answer.status, retry_after: None, filtered };
        self.counts(method, path, token, &head, &answer.body);
        if method == HttpMethod::Get {
            self.0.between_lists();
        }
        let of_tasks = path.starts_with("/v1/acl/tokens") || path.starts_with("/v1/catalog/node-services/");
        if of_tasks && head.status == 200 {
            faults.add_odd_item(&mut answer.body);
        }
        sleep(faults.latency()).await;
        if faults.fires(SimFault::LostAnswer, 0.02) {
            // The write took effect, and the response is lost.
            sleep(TIMEOUT).await;
            return Err(broken(TransportErrorKind::Timeout));
        }
        if faults.fires(SimFault::ErrorAfterEffect, 0.01) {
            return Ok(said(500, None, "rpc error getting client", sink));
        }
        let breaks =
            faults.fires(SimFault::BrokenAnswer, 0.01).then(|| faults.pick(answer.body.len().div_ceil(PART)));
        for (number, part) in answer.body.chunks(PART).enumerate() {
            if breaks == Some(number) {
                return Err(broken(TransportErrorKind::Broken));
            }
            if !sink.write(&head, part) {
                return Err(broken(TransportErrorKind::TooLarge));
            }
        }
        Ok(head)
    }
}
