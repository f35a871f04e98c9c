//! A relay between the operator and a control plane that keeps the operator's writes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use serde_json::Value;
use tokio::net::TcpListener;

/// A request that writes, and the status of its response.
#[derive(Clone, Debug)]
pub(super) struct RecordedWrite {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Value,
    pub(super) status: u16,
}

/// Forwards all requests to a control plane.
pub(super) struct RecordingRelay {
    pub(super) url: String,
    writes: Arc<Mutex<Vec<RecordedWrite>>>,
}

impl RecordingRelay {
    pub(super) async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let writes: Arc<Mutex<Vec<RecordedWrite>>> = Arc::default();
        let (target, kept) = (target.to_owned(), Arc::clone(&writes));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let forward = move |request: Request| {
            let (target, kept, http) = (target.clone(), Arc::clone(&kept), http.clone());
            async move { relay(&http, &target, request, &kept).await }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(forward)).await });
        Self { url, writes }
    }

    /// All writes so far, the oldest first.
    pub(super) fn writes(&self) -> Vec<RecordedWrite> {
        self.writes.lock().unwrap().clone()
    }

    /// The body that was accepted last for each path.
    pub(super) fn accepted(&self) -> BTreeMap<String, Value> {
        let accepted = self.writes().into_iter().filter(|write| write.method == "PUT" && write.status < 300);
        accepted.map(|write| (write.path, write.body)).collect()
    }
}

async fn relay(
    http: &reqwest::Client,
    target: &str,
    request: Request,
    kept: &Mutex<Vec<RecordedWrite>>,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let path = parts.uri.path_and_query().unwrap().to_string();
    let mut forwarded = http.request(parts.method.clone(), format!("{target}{path}")).body(body.to_vec());
    for name in ["accept", "authorization", "content-type"] {
        if let Some(value) = parts.headers.get(name) {
            forwarded = forwarded.header(name, value.clone());
        }
    }
    let Ok(answer) = forwarded.send().await else {
        return Response::builder().status(502).body(Body::empty()).unwrap();
    };
    let mut response = Response::builder().status(answer.status());
    if let Some(kind) = answer.headers().get("content-type") {
        response = response.header("content-type", kind.clone());
    }
    let status = answer.status().as_u16();
    if parts.method != "GET" {
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let method = parts.method.to_string();
        kept.lock().unwrap().push(RecordedWrite { method, path, body, status });
    }
    response.body(Body::from(answer.bytes().await.unwrap_or_default())).unwrap()
}
