//! What is answered to whom.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use crate::telemetry::metrics::{Format, Metrics};
use ecs_mesh_aws::intake::QueueState;

const TEXT: &str = "text/plain; charset=utf-8";

pub(super) fn router(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .method_not_allowed_fallback(only_reads)
        .fallback(nothing_here)
        .with_state(metrics)
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let headers = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        // A connection has a short life: see `limits`.
        (CONNECTION, "close"),
    ];
    (status, headers, body).into_response()
}

async fn scrape(State(metrics): State<Arc<Metrics>>, headers: HeaderMap) -> Response {
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accept.join(","));
    answer(StatusCode::OK, format.content_type(), metrics.render_as(format))
}

async fn healthz(State(metrics): State<Arc<Metrics>>) -> Response {
    let health = metrics.health();
    if health.is_stopping() {
        return answer(StatusCode::OK, TEXT, "stopping\n".to_owned());
    }
    let of_queues = metrics.state().map(|state| state.stuck()).unwrap_or_default();
    let stuck = health.stuck().into_iter().chain(of_queues);
    let words: Vec<String> = stuck.map(|stuck| stuck.to_string()).collect();
    if words.is_empty() {
        answer(StatusCode::OK, TEXT, "every loop makes progress\n".to_owned())
    } else {
        answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, words.join("\n") + "\n")
    }
}

async fn readyz(State(metrics): State<Arc<Metrics>>) -> Response {
    let state = metrics.state();
    let mut waits_for = match &state {
        None => vec!["the operator has not begun yet".to_owned()],
        Some(state) => state.waits_for.clone(),
    };
    if metrics.health().is_stopping() {
        waits_for = vec!["the operator is stopping".to_owned()];
    }
    let ready = waits_for.is_empty();
    let queue = match metrics.queue() {
        QueueState::Unread => json!({"state": "unread"}),
        QueueState::Readable => json!({"state": "readable"}),
        QueueState::Failing(why) => json!({"state": "failing", "why": why}),
    };
    let mut body = serde_json::to_value(&state).unwrap_or_default();
    if !body.is_object() {
        body = json!({});
    }
    body["ready"] = ready.into();
    body["waits_for"] = waits_for.into();
    body["queue"] = queue;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, "application/json", format!("{body}\n"))
}

async fn only_reads() -> Response {
    let mut answer =
        answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD are answered here\n".to_owned());
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

async fn nothing_here() -> Response {
    let words = "nothing is here; there are /metrics, /healthz and /readyz\n";
    answer(StatusCode::NOT_FOUND, TEXT, words.to_owned())
}
