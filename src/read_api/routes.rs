//! The paths of the API: who may ask, what is asked, and the answer.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST,
    IF_NONE_MATCH, REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::ReadApiOptions;
use super::access::{is_loopback_host, is_of_another_origin};
use super::answers::{self, ListKind};
use super::cache::{AnsweredSnapshot, SharedViews};
use super::page::{self, Asset, PAGE_POLICY};
use super::read_thread::ReadThread;
use super::source::{ReadSource, Snapshot};
use super::stream::{ChangeNotices, ReaderStream};
use super::token::ReadToken;
use crate::listener::{ClientRates, ConnectionHandle, Rate};
use crate::telemetry::metrics::ApiMetrics;
use ecs_mesh_read_api::{ErrorCodeView, ErrorView, decode};

/// Most bytes of a request's target, and of its whole head.
const MAX_TARGET: usize = 2 * 1024;
const MAX_HEAD: usize = 8 * 1024;

/// Most streams.
const MAX_STREAMS: usize = 32;

/// Requests of one client address.
const REQUESTS: Rate = Rate { per_second: 200.0, burst: 400 };

/// The shortest interval of reads of registrations at control planes, over all readers.
const REGISTRATION_INTERVAL: Duration = Duration::from_secs(1);

const JSON: &str = "application/json";

/// The content security policy of answers, which are no documents.
const ANSWER_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Shared by all requests.
pub(super) struct ApiState {
    source: Arc<dyn ReadSource>,
    pub(super) views: SharedViews,
    pub(super) notices: Arc<ChangeNotices>,
    token: Option<ReadToken>,
    /// The listener is on loopback, so requests must name it.
    is_loopback: bool,
    rates: ClientRates,
    streams: Arc<Semaphore>,
    last_registrations: tokio::sync::Mutex<Option<Instant>>,
    pub(super) metrics: ApiMetrics,
    /// Ends the server, its streams included.
    pub(super) stop: CancellationToken,
}

impl ApiState {
    pub(super) fn new(
        source: Arc<dyn ReadSource>,
        thread: ReadThread,
        token: Option<ReadToken>,
        options: &ReadApiOptions,
    ) -> Self {
        Self {
            views: SharedViews::new(&source, thread),
            source,
            notices: Arc::default(),
            token,
            is_loopback: options.address.ip().to_canonical().is_loopback(),
            rates: ClientRates::new(REQUESTS),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            last_registrations: tokio::sync::Mutex::default(),
            metrics: options.metrics.clone(),
            stop: CancellationToken::new(),
        }
    }
}

/// All paths.
pub(super) fn router(state: Arc<ApiState>) -> Router {
    Router::new().fallback(answer).with_state(state)
}

async fn answer(
    State(state): State<Arc<ApiState>>,
    ConnectInfo(connection): ConnectInfo<ConnectionHandle>,
    request: Request,
) -> Response {
    let (parts, _body) = request.into_parts();
    let path = parts.uri.path();
    let result = async {
        check_request(&state, &connection, &parts.method, &parts.uri, &parts.headers)?;
        let Some(path) = path.strip_prefix("/api/") else {
            return asset(path, &parts.headers);
        };
        check_token(&state, &parts.headers).await?;
        // Those who may read keep their connections, whatever the others do.
        connection.begin_response();
        let path = path.strip_prefix("v1/").ok_or_else(not_found)?;
        api(&state, &connection, path, parts.uri.query().unwrap_or_default(), &parts).await
    };
    let result = result.await;
    state.metrics.record_request(result.as_ref().map_or_else(|error| error.code.label(), |_| "ok"));
    result.unwrap_or_else(|error| error_response(&error))
}

fn check_request(
    state: &ApiState,
    connection: &ConnectionHandle,
    method: &Method,
    uri: &axum::http::Uri,
    headers: &HeaderMap,
) -> Result<(), ErrorView> {
    if !state.rates.admit(connection.peer().ip()) {
        let message = "too many requests from this address; try again in a second";
        return Err(ErrorView::new(ErrorCodeView::TooManyRequests, message));
    }
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    let head: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if target > MAX_TARGET || head + target > MAX_HEAD {
        let message = format!(
            "the request is too long: at most {MAX_TARGET} bytes of path and query, and {MAX_HEAD} bytes of head"
        );
        return Err(ErrorView::new(ErrorCodeView::TooLarge, message));
    }
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).filter(|_| hosts.next().is_none());
    if state.is_loopback && !host.is_some_and(is_loopback_host) {
        let message = "the Host header must name this machine's loopback, such as localhost:9103";
        return Err(ErrorView::new(ErrorCodeView::Forbidden, message));
    }
    if uri.path().starts_with("/api/") && is_of_another_origin(headers) {
        let message = "pages of other origins may not use the API";
        return Err(ErrorView::new(ErrorCodeView::Forbidden, message));
    }
    if method != Method::GET && method != Method::HEAD {
        return Err(ErrorView::new(ErrorCodeView::MethodNotAllowed, "only GET and HEAD are allowed"));
    }
    Ok(())
}

async fn check_token(state: &ApiState, headers: &HeaderMap) -> Result<(), ErrorView> {
    let Some(token) = &state.token else { return Ok(()) };
    let presented = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let presented = presented.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match presented {
        Some(presented) if token.accepts(presented).await => Ok(()),
        Some(_) => Err(ErrorView::new(ErrorCodeView::Unauthorized, "the bearer token is not the API's")),
        None => {
            let message = "send the API's token: Authorization: Bearer TOKEN";
            Err(ErrorView::new(ErrorCodeView::Unauthorized, message))
        }
    }
}

async fn api(
    state: &Arc<ApiState>,
    connection: &ConnectionHandle,
    path: &str,
    query: &str,
    parts: &axum::http::request::Parts,
) -> Result<Response, ErrorView> {
    let segments: Option<Vec<String>> = path.split('/').map(decode_segment).collect();
    let segments = segments.ok_or_else(not_found)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let body = match segments.as_slice() {
        ["stream"] => {
            no_parameters(query)?;
            return stream(state, connection, &parts.method, &parts.headers);
        }
        ["status"] => {
            no_parameters(query)?;
            answers::object(state.views.status().await.ok_or_else(defect)?)?
        }
        ["topology"] => render_once(state, (path, query), answers::topology).await?,
        ["tasks", task] => {
            no_parameters(query)?;
            let (known, task) = (snapshot(state).await?, (*task).to_owned());
            let source = Arc::clone(&state.source);
            render(state, move || {
                let view = answers::find_task(&known.snapshot, &task)?;
                answers::task(view, source.task_facts(view), source.history())
            })
            .await?
        }
        ["tasks", task, "registrations"] => {
            no_parameters(query)?;
            registrations(state, task).await?
        }
        ["services", control_plane, mesh, name] => {
            no_parameters(query)?;
            let place = [*control_plane, *mesh, *name].map(str::to_owned);
            let (known, source) = (snapshot(state).await?, Arc::clone(&state.source));
            render(state, move || {
                answers::service(&known.snapshot, source.history(), (&place[0], &place[1], &place[2]))
            })
            .await?
        }
        ["changes"] => {
            let (source, query, at) = (Arc::clone(&state.source), query.to_owned(), state.source.now());
            render(state, move || answers::changes(source.history(), &query, at)).await?
        }
        [list] => {
            let kind = ListKind::of(list).ok_or_else(not_found)?;
            let work = move |snapshot: &Snapshot, query: &str| answers::list(kind, snapshot, query);
            render_once(state, (path, query), work).await?
        }
        _ => return Err(not_found()),
    };
    Ok(response(StatusCode::OK, JSON, Body::from(body)))
}

/// A segment of a path, in which `+` is no space.
fn decode_segment(segment: &str) -> Option<String> {
    decode(&segment.replace('+', "%2B"))
}

fn no_parameters(query: &str) -> Result<(), ErrorView> {
    match query.split('&').find(|pair| !pair.is_empty()) {
        None => Ok(()),
        Some(pair) => {
            let name: String = pair.split('=').next().unwrap_or_default().chars().take(60).collect();
            Err(ErrorView::parameter(&name, format!("unknown parameter {name:?}; none is allowed here")))
        }
    }
}

fn not_found() -> ErrorView {
    let message = "no such path; below /api/v1/ are status, tasks, services, bindings, identities, outbounds, warnings, \
                   changes, topology and stream";
    ErrorView::new(ErrorCodeView::NotFound, message)
}

fn defect() -> ErrorView {
    ErrorView::new(ErrorCodeView::NotReady, "the answer could not be rendered; the log has the cause")
}

async fn snapshot(state: &ApiState) -> Result<Arc<AnsweredSnapshot>, ErrorView> {
    state.views.snapshot.get().await.ok_or_else(defect)
}

/// Renders on the readers' thread.
async fn render(
    state: &ApiState,
    work: impl FnOnce() -> Result<Bytes, ErrorView> + Send + 'static,
) -> Result<Bytes, ErrorView> {
    state.views.thread.render(work).await.ok_or_else(defect)?
}

/// Renders an answer that depends on snapshot and query alone, once for all readers of the snapshot.
async fn render_once(
    state: &ApiState,
    (path, query): (&str, &str),
    work: impl FnOnce(&Snapshot, &str) -> Result<Bytes, ErrorView> + Send + 'static,
) -> Result<Bytes, ErrorView> {
    let known = snapshot(state).await?;
    let target = format!("{path}?{query}");
    if let Some(body) = known.answer(&target) {
        return Ok(body);
    }
    let query = query.to_owned();
    let rendered = move || known.answer_or_make(&target, |snapshot| work(snapshot, &query));
    state.views.thread.render(rendered).await.ok_or_else(defect)?
}

async fn registrations(state: &Arc<ApiState>, task: &str) -> Result<Bytes, ErrorView> {
    let known = snapshot(state).await?;
    let view = answers::find_task(&known.snapshot, task)?;
    {
        let mut last = state.last_registrations.lock().await;
        if last.is_some_and(|at| at.elapsed() < REGISTRATION_INTERVAL) {
            let message =
                "registrations are read at control planes once a second over all readers; try again";
            return Err(ErrorView::new(ErrorCodeView::TooManyRequests, message));
        }
        *last = Some(Instant::now());
    }
    let read = state.source.registrations(view).await?;
    render(state, move || answers::object(read)).await
}

fn stream(
    state: &Arc<ApiState>,
    connection: &ConnectionHandle,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, ErrorView> {
    const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
    if method == Method::HEAD {
        return Ok(response(StatusCode::OK, "text/event-stream", Body::empty()));
    }
    let permit = Arc::clone(&state.streams).try_acquire_owned().map_err(|_| {
        let message = format!("{MAX_STREAMS} streams are open, and no more are allowed; try again later");
        ErrorView::new(ErrorCodeView::TooManyRequests, message)
    })?;
    let last_id =
        headers.get(LAST_EVENT_ID).map(|id| String::from_utf8_lossy(id.as_bytes()).trim().to_owned());
    connection.begin_stream();
    let stream = ReaderStream {
        last_id,
        source: Arc::clone(&state.source),
        views: state.views.clone(),
        notices: Arc::clone(&state.notices),
        stop: state.stop.clone(),
        _permit: permit,
    };
    Ok(response(StatusCode::OK, "text/event-stream", Body::new(stream.into_body())))
}

fn asset(path: &str, headers: &HeaderMap) -> Result<Response, ErrorView> {
    let Asset { content_type, content, etag } = page::find(path).ok_or_else(not_found)?;
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| known.split(',').any(|one| one.trim() == etag));
    let mut found = if is_known {
        response(StatusCode::NOT_MODIFIED, content_type, Body::empty())
    } else {
        response(StatusCode::OK, content_type, Body::from(content))
    };
    let headers = found.headers_mut();
    // Compared at each load: another version of the program has another page.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ETAG, HeaderValue::from_static(etag));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(found)
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, ANSWER_POLICY),
        (RESOURCE_POLICY, "same-origin"),
        // A connection has a limited age.
        (CONNECTION, "close"),
    ];
    (status, headers, body).into_response()
}

fn error_response(error: &ErrorView) -> Response {
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut body = serde_json::to_vec(error).unwrap_or_default();
    body.push(b'\n');
    let mut response = response(status, JSON, Body::from(body));
    let header = match error.code {
        ErrorCodeView::Unauthorized => Some((WWW_AUTHENTICATE, "Bearer")),
        ErrorCodeView::MethodNotAllowed => Some((ALLOW, "GET, HEAD")),
        ErrorCodeView::TooManyRequests | ErrorCodeView::NotReady => Some((RETRY_AFTER, "1")),
        _ => None,
    };
    if let Some((name, value)) = header {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
