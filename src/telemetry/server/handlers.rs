//! The responses of `/`, `/metrics`, `/healthz`, `/readyz` and `/startupz`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::sync::Semaphore;

use super::startup::StartupCheck;
use super::status_page::StatusPage;
use crate::telemetry::metrics::{ExpositionFormat, Metrics};
use crate::telemetry::state::OperatorState;
use ecs_mesh_aws::consumer::QueueState;
use ecs_mesh_controller::health::StuckLoop;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// The page loads nothing and runs nothing, whatever a name in it contains.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The condition of an operator whose state cannot be read yet.
const STARTING: &str = "the operator is starting";

/// Held while metrics are rendered, which takes the longest by far: scrapes wait for one another, and probes for none.
static RENDERING: Semaphore = Semaphore::const_new(1);

pub(super) fn router(metrics: Arc<Metrics>) -> Router {
    let startup = Arc::new(StartupCheck::default());
    Router::new()
        .route("/", get(status_page))
        .route("/metrics", get(scrape))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route(
            "/startupz",
            get(move |State(metrics): State<Arc<Metrics>>| async move { startupz(&metrics, &startup) }),
        )
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
    health(&metrics, metrics.state().as_ref())
}

/// Whether the loops make progress, or the process is stopping.
fn health(metrics: &Metrics, state: Option<&OperatorState>) -> Response {
    if metrics.health().is_stopping() {
        return response(StatusCode::OK, TEXT, "stopping\n".to_owned());
    }
    let stuck = stuck_loops(metrics, state);
    let lines: Vec<String> = stuck.iter().map(ToString::to_string).collect();
    if lines.is_empty() {
        response(StatusCode::OK, TEXT, "ok\n".to_owned())
    } else {
        response(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines.join("\n") + "\n")
    }
}

/// As `/healthz`, once this copy has started.
fn startupz(metrics: &Metrics, startup: &StartupCheck) -> Response {
    let state = metrics.state();
    if metrics.health().is_stopping() {
        return health(metrics, state.as_ref());
    }
    let pending =
        state.as_ref().map_or_else(|| vec![STARTING.to_owned()], |state| state.startup_pending.clone());
    match startup.judge(&pending, metrics.uptime()) {
        None => health(metrics, state.as_ref()),
        Some(reason) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not started: {reason}\n")),
    }
}

/// The stuck loops, controllers included.
fn stuck_loops(metrics: &Metrics, state: Option<&OperatorState>) -> Vec<StuckLoop> {
    let controllers = state.map(OperatorState::stuck).unwrap_or_default();
    metrics.health().stuck().into_iter().chain(controllers).collect()
}

/// The unmet readiness conditions.
fn pending_conditions(metrics: &Metrics, state: Option<&OperatorState>) -> Vec<String> {
    if metrics.health().is_stopping() {
        return vec!["the operator is stopping".to_owned()];
    }
    state.map_or_else(|| vec![STARTING.to_owned()], |state| state.pending.clone())
}

/// For people: the state of `/readyz` as a page.
async fn status_page(State(metrics): State<Arc<Metrics>>) -> Response {
    let state = metrics.state();
    let page = StatusPage {
        pending: pending_conditions(&metrics, state.as_ref()),
        stuck: stuck_loops(&metrics, state.as_ref()),
        queue: metrics.queue_state(),
        uptime: metrics.uptime(),
        now: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        state,
    };
    let mut response = response(StatusCode::OK, HTML, page.to_string());
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn readyz(State(metrics): State<Arc<Metrics>>) -> Response {
    let state = metrics.state();
    let pending = pending_conditions(&metrics, state.as_ref());
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
    response(
        StatusCode::NOT_FOUND,
        TEXT,
        "not found; try /, /metrics, /healthz, /readyz or /startupz\n".to_owned(),
    )
}
