//! The responses of `/metrics`, `/healthz` and `/readyz`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::telemetry::metrics::{ExpositionFormat, Metrics};
use ecs_mesh_aws::consumer::QueueState;

const TEXT: &str = "text/plain; charset=utf-8";

/// Held while metrics are rendered, which takes the longest by far: scrapes wait for one another, and probes for none.
static RENDERING: Semaphore = Semaphore::const_new(1);

pub(super) fn router(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(metrics)
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let headers = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        // A connection has a limited age: see `limits`.
        (CONNECTION, "close"),
    ];
    (status, headers, body).into_response()
}

async fn scrape(State(metrics): State<Arc<Metrics>>, headers: HeaderMap) -> Response {
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = ExpositionFormat::accepted(&accept.join(","));
    // The semaphore is never closed, so this is always a permit.
    let _permit = RENDERING.acquire().await.ok();
    response(StatusCode::OK, format.content_type(), metrics.render_as(format))
}

async fn healthz(State(metrics): State<Arc<Metrics>>) -> Response {
    let health = metrics.health();
    if health.is_stopping() {
        return response(StatusCode::OK, TEXT, "stopping\n".to_owned());
    }
    let controllers = metrics.state().map(|state| state.stuck()).unwrap_or_default();
    let stuck = health.stuck().into_iter().chain(controllers);
    let lines: Vec<String> = stuck.map(|stuck| stuck.to_string()).collect();
    if lines.is_empty() {
        response(StatusCode::OK, TEXT, "ok\n".to_owned())
    } else {
        response(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines.join("\n") + "\n")
    }
}

async fn readyz(State(metrics): State<Arc<Metrics>>) -> Response {
    let state = metrics.state();
    let mut pending = match &state {
        None => vec!["the operator is starting".to_owned()],
        Some(state) => state.pending.clone(),
    };
    if metrics.health().is_stopping() {
        pending = vec!["the operator is stopping".to_owned()];
    }
    let ready = pending.is_empty();
    let event_queue = match metrics.queue_state() {
        QueueState::Unknown => json!({"state": "unknown"}),
        QueueState::Ok => json!({"state": "ok"}),
        QueueState::Failing(error) => json!({"state": "failing", "error": error}),
    };
    let mut body = serde_json::to_value(&state).unwrap_or_default();
    if !body.is_object() {
        body = json!({});
    }
    body["ready"] = ready.into();
    body["pending"] = pending.into();
    body["event_queue"] = event_queue;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    response(status, "application/json", format!("{body}\n"))
}

async fn method_not_allowed() -> Response {
    let text = "only GET and HEAD are allowed\n";
    let mut response = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, text.to_owned());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

async fn not_found() -> Response {
    response(StatusCode::NOT_FOUND, TEXT, "not found; try /metrics, /healthz or /readyz\n".to_owned())
}
