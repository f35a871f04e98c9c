//! A proxy before a server that records requests: the writes, and the calls that keep or release a lease.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use ecs_mesh_model::Timestamp;
use serde_json::Value;

use super::servers::now;

/// The arrival of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// On the wall clock, as in logs.
    pub(super) at: Timestamp,
    /// On the clock that measures the lease.
    pub(super) instant: Instant,
}

/// A call that changed the lease, since the server answered so.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LeaseCall {
    /// It acquired or renewed the lease. In Consul, by the lock of this session.
    Held {
        session: Option<String>,
    },
    Released,
}

/// Forwards each request to another server, and records the writes and the changes of a lease.
pub(super) struct RecordingProxy {
    pub(super) url: String,
    state: Arc<ProxyState>,
}

struct ProxyState {
    target: String,
    client: reqwest::Client,
    writes: Mutex<Vec<Arrival>>,
    lease_calls: Mutex<Vec<(Arrival, LeaseCall)>>,
    cut: AtomicBool,
}

impl RecordingProxy {
    pub(super) async fn to(target: &str) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let state = Arc::new(ProxyState {
            target: target.to_owned(),
            client,
            writes: Mutex::default(),
            lease_calls: Mutex::default(),
            cut: AtomicBool::new(false),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(forward).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, state }
    }

    /// Cuts the server off, or connects it again.
    pub(super) fn cut(&self, cut: bool) {
        self.state.cut.store(cut, Ordering::SeqCst);
    }

    /// The requests that are no reads.
    pub(super) fn writes(&self) -> Vec<Arrival> {
        self.state.writes.lock().unwrap().clone()
    }

    /// The times at which the lease that is kept behind this proxy was acquired or renewed.
    pub(super) fn lease_extensions(&self) -> Vec<Instant> {
        let calls = self.state.lease_calls.lock().unwrap();
        let held = calls.iter().filter(|(_, kind)| *kind != LeaseCall::Released);
        held.map(|(call, _)| call.instant).collect()
    }

    /// Whether the lease that is kept behind this proxy was held at `instant`: its last change until then was an acquisition
    /// or a renewal, and came at most `duration` before.
    pub(super) fn holds_lease_at(&self, instant: Instant, duration: Duration) -> bool {
        let calls = self.state.lease_calls.lock().unwrap();
        let last =
            calls.iter().filter(|(call, _)| call.instant <= instant).max_by_key(|(call, _)| call.instant);
        last.is_some_and(|(call, kind)| *kind != LeaseCall::Released && instant <= call.instant + duration)
    }
}

impl ProxyState {
    /// Records a change of the lease that the server has answered with success.
    fn record_lease_call(&self, arrival: Arrival, request: &LeaseRequest, answer: &[u8]) {
        let mut calls = self.lease_calls.lock().unwrap();
        // Consul answers with whether it has done it.
        let is_done = answer == b"true";
        let call = match request {
            LeaseRequest::Item { is_held: true } => LeaseCall::Held { session: None },
            LeaseRequest::Item { is_held: false } => LeaseCall::Released,
            LeaseRequest::Acquire { session } if is_done => {
                LeaseCall::Held { session: Some(session.clone()) }
            }
            LeaseRequest::Release if is_done => LeaseCall::Released,
            LeaseRequest::RenewSession { session } => LeaseCall::Held { session: Some(session.clone()) },
            LeaseRequest::Acquire { .. } | LeaseRequest::Release => return,
        };
        // A session without the lock keeps no lease.
        let is_renewal = matches!(request, LeaseRequest::RenewSession { .. });
        if !is_renewal || calls.last().is_some_and(|(_, last)| *last == call) {
            calls.push((arrival, call));
        }
    }
}

/// A request that changes a lease if the server agrees.
enum LeaseRequest {
    /// DynamoDB's conditional write of the item, with or without a holder.
    Item {
        is_held: bool,
    },
    Acquire {
        session: String,
    },
    Release,
    RenewSession {
        session: String,
    },
}

impl LeaseRequest {
    fn of(uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
        if target.is_some_and(|target| target.ends_with(".PutItem")) {
            let put: Value = serde_json::from_slice(body).ok()?;
            return Some(Self::Item { is_held: put["Item"]["holder"].is_object() });
        }
        if let Some(session) = uri.path().strip_prefix("/v1/session/renew/") {
            return Some(Self::RenewSession { session: session.to_owned() });
        }
        uri.path().strip_prefix("/v1/kv/")?;
        let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        query.into_iter().find_map(|(name, session)| match &*name {
            "acquire" => Some(Self::Acquire { session: session.into_owned() }),
            "release" => Some(Self::Release),
            _ => None,
        })
    }
}

async fn forward(
    State(state): State<Arc<ProxyState>>,
    method: Method,
    uri: Uri,
    mut headers: HeaderMap,
    body: Bytes,
) -> Response {
    if state.cut.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    let arrival = Arrival { at: now(), instant: Instant::now() };
    if method != Method::GET {
        state.writes.lock().unwrap().push(arrival);
    }
    let lease_request = LeaseRequest::of(&uri, &headers, &body);
    headers.remove("host");
    headers.remove("content-length");
    let url = format!("{}{uri}", state.target);
    let answer = state.client.request(method, url).headers(headers).body(body).send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if name != "transfer-encoding" && name != "content-length" {
            response = response.header(name, value);
        }
    }
    let is_success = answer.status().is_success();
    let answer = answer.bytes().await.unwrap();
    if let Some(request) = lease_request.filter(|_| is_success) {
        state.record_lease_call(arrival, &request, answer.trim_ascii());
    }
    response.body(Body::from(answer)).unwrap()
}
