use std::net::TcpListener as StdListener;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::telemetry::state::tests::state;
use crate::telemetry::state::{OperatorState, StateSource};

struct StaticState(OperatorState);

impl StateSource for StaticState {
    fn state(&self) -> OperatorState {
        self.0.clone()
    }
}

/// Starts a server at a free port.
async fn serve_at_free_port(metrics: &Arc<Metrics>) -> (SocketAddr, CancellationToken) {
    serve_with(ConnectionLimits::default(), metrics).await
}

async fn serve_with(limits: ConnectionLimits, metrics: &Arc<Metrics>) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let served = axum::serve(LimitedListener::new(listener, limits), handlers::router(Arc::clone(metrics)));
    let until = stop.clone().cancelled_owned();
    tokio::spawn(async move { served.with_graceful_shutdown(until).await });
    (address, stop)
}

/// The response in lower case, head and body.
async fn send(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{request}\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response.to_lowercase()
}

async fn get(address: SocketAddr, path: &str) -> String {
    send(address, &format!("GET {path} HTTP/1.1")).await
}

#[tokio::test]
async fn metrics_are_served_in_the_requested_format() {
    let (address, _stop) = serve_at_free_port(&Arc::default()).await;
    let plain = get(address, "/metrics").await;
    assert!(plain.contains("content-type: text/plain; version=0.0.4") && !plain.contains("# eof"), "{plain}");
    let accept = "GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text;version=1.0.0";
    let open = send(address, accept).await;
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0"), "{open}");
    assert!(open.ends_with("# eof\n"), "{open}");
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let (address, _stop) = serve_at_free_port(&Arc::default()).await;
    assert!(get(address, "/other").await.contains("try /, /metrics, /healthz, /readyz or /startupz"));
    assert!(get(address, "/metricsx").await.starts_with("http/1.1 404"));
    let post = send(address, "POST /metrics HTTP/1.1\r\ncontent-length: 0").await;
    assert!(post.starts_with("http/1.1 405") && post.contains("allow: get, head"), "{post}");
    let head = send(address, "HEAD /healthz HTTP/1.1").await;
    assert!(head.starts_with("http/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test(start_paused = true)]
async fn only_stuck_loops_make_healthz_fail() {
    let metrics = Arc::<Metrics>::default();
    let (address, _stop) = serve_at_free_port(&metrics).await;
    let mut down = state();
    down.control_planes.get_mut("kuma").unwrap().circuit = ecs_mesh_controller::CircuitState::Open;
    let state_source: Arc<dyn StateSource> = Arc::new(StaticState(down));
    metrics.set_state_source(Arc::downgrade(&state_source));
    let sweep = metrics.health().register("sweep");
    sweep.expect_within(Duration::from_mins(1));
    assert!(get(address, "/healthz").await.starts_with("http/1.1 200"));
    tokio::time::advance(Duration::from_secs(61)).await;
    let response = get(address, "/healthz").await;
    assert!(
        response.starts_with("http/1.1 503") && response.contains("sweep: no progress for 61 s"),
        "{response}"
    );
}

#[tokio::test]
async fn readyz_lists_pending_conditions() {
    let metrics = Arc::<Metrics>::default();
    let (address, _stop) = serve_at_free_port(&metrics).await;
    let early = get(address, "/readyz").await;
    assert!(early.starts_with("http/1.1 503") && early.contains("is starting"), "{early}");
    let waiting = OperatorState { pending: vec!["the first sweep".to_owned()], ..state() };
    let state_source: Arc<dyn StateSource> = Arc::new(StaticState(waiting));
    metrics.set_state_source(Arc::downgrade(&state_source));
    let waiting = get(address, "/readyz").await;
    assert!(waiting.starts_with("http/1.1 503") && waiting.contains("the first sweep"), "{waiting}");
    let state_source: Arc<dyn StateSource> = Arc::new(StaticState(state()));
    metrics.set_state_source(Arc::downgrade(&state_source));
    let ready = get(address, "/readyz").await;
    assert!(ready.starts_with("http/1.1 200"), "{ready}");
    for detail in [
        "\"ready\":true",
        "\"guards\":{\"demo\":{",
        "\"event_queue\":{\"state\":\"unknown\"}",
        "\"circuit\":\"closed\"",
    ] {
        assert!(ready.contains(detail), "{detail}: {ready}");
    }
}

#[tokio::test(start_paused = true)]
async fn startupz_waits_for_the_start_and_is_healthz_then() {
    let metrics = Arc::<Metrics>::default();
    let (address, _stop) = serve_at_free_port(&metrics).await;
    let early = get(address, "/startupz").await;
    assert!(early.starts_with("http/1.1 503") && early.contains("is starting"), "{early}");
    let waiting = OperatorState { startup_pending: vec!["a cluster".to_owned()], ..state() };
    let state_source: Arc<dyn StateSource> = Arc::new(StaticState(waiting));
    metrics.set_state_source(Arc::downgrade(&state_source));
    let waiting = get(address, "/startupz").await;
    assert!(
        waiting.starts_with("http/1.1 503") && waiting.ends_with("not started: a cluster\n"),
        "{waiting}"
    );
    assert!(get(address, "/healthz").await.starts_with("http/1.1 200"), "it is alive");
    // Started, and no longer ready.
    let unready = OperatorState { pending: vec!["no writes".to_owned()], ..state() };
    let state_source: Arc<dyn StateSource> = Arc::new(StaticState(unready));
    metrics.set_state_source(Arc::downgrade(&state_source));
    assert!(get(address, "/readyz").await.starts_with("http/1.1 503"));
    let started = get(address, "/startupz").await;
    assert!(started.starts_with("http/1.1 200") && started.ends_with("\r\nok\n"), "{started}");
    let sweep = metrics.health().register("sweep");
    sweep.expect_within(Duration::from_mins(1));
    tokio::time::advance(Duration::from_secs(61)).await;
    let stuck = get(address, "/startupz").await;
    assert!(stuck.starts_with("http/1.1 503") && stuck.contains("sweep: no progress"), "{stuck}");
}

#[tokio::test]
async fn startupz_is_ok_while_the_operator_stops() {
    let metrics = Arc::<Metrics>::default();
    let (address, _stop) = serve_at_free_port(&metrics).await;
    let stop = CancellationToken::new();
    metrics.health().set_stop_token(stop.clone());
    stop.cancel();
    assert!(get(address, "/startupz").await.starts_with("http/1.1 200"));
}

#[tokio::test]
async fn status_page_is_html_that_loads_nothing() {
    let metrics = Arc::<Metrics>::default();
    let (address, _stop) = serve_at_free_port(&metrics).await;
    let page = get(address, "/").await;
    assert!(page.starts_with("http/1.1 200") && page.contains("content-type: text/html"), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none'"), "{page}");
    assert!(page.contains("the operator is starting"), "{page}");
    let state_source: Arc<dyn StateSource> = Arc::new(StaticState(state()));
    metrics.set_state_source(Arc::downgrade(&state_source));
    assert!(get(address, "/").await.contains("kuma 2.14.1"));
}

#[tokio::test]
async fn readiness_ends_before_metrics_at_shutdown() {
    let metrics = Arc::<Metrics>::default();
    let (address, _stop) = serve_at_free_port(&metrics).await;
    let state_source: Arc<dyn StateSource> = Arc::new(StaticState(state()));
    metrics.set_state_source(Arc::downgrade(&state_source));
    let stop = CancellationToken::new();
    metrics.health().set_stop_token(stop.clone());
    stop.cancel();
    let ready = get(address, "/readyz").await;
    assert!(ready.starts_with("http/1.1 503") && ready.contains("the operator is stopping"), "{ready}");
    assert!(get(address, "/healthz").await.starts_with("http/1.1 200"));
    assert!(get(address, "/metrics").await.contains("ecs_mesh_ready 0"));
}

/// Connects silent clients and slow ones, in turn.
async fn connect_idle(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut idle = Vec::new();
    for n in 0..count {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if n % 2 == 0 {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: ").await.unwrap();
        }
        idle.push(stream);
    }
    idle
}

#[tokio::test]
async fn probes_are_answered_while_idle_clients_fill_the_port() {
    // No time limit helps here.
    let hour = Duration::from_hours(1);
    let limits = ConnectionLimits { request: hour, age: hour, ..ConnectionLimits::default() };
    let (address, _stop) = serve_with(limits, &Arc::default()).await;
    let mut idle = connect_idle(address, 64).await;
    let answered = async {
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert!(get(address, path).await.starts_with("http/1.1 "), "{path}");
        }
        // The oldest made room, with an end or a reset.
        let ended = idle[0].read(&mut [0]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    };
    tokio::time::timeout(Duration::from_mins(1), answered).await.expect("answered");
    let open = idle[63].try_read(&mut [0]);
    assert!(open.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "the newest is open");
}

#[tokio::test(start_paused = true)]
async fn clients_without_a_request_are_disconnected() {
    let (address, _stop) = serve_at_free_port(&Arc::default()).await;
    for mut stream in connect_idle(address, 8).await {
        // The read returns once the connection is closed, with or without an error.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn server_binds_a_taken_port_once_it_is_free() {
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let server = MetricsServer::start(ListenAddress::At(address), Arc::default(), 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(taken);
    let response = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if TcpStream::connect(address).await.is_ok() {
                return get(address, "/healthz").await;
            }
        }
    };
    assert!(response.await.starts_with("http/1.1 200"));
    server.stop().await;
}

#[test]
fn listen_address_parser_names_the_allowed_forms() {
    assert_eq!("none".parse(), Ok(ListenAddress::Disabled));
    assert_eq!("[::]:9102".parse(), Ok(ListenAddress::At("[::]:9102".parse().unwrap())));
    for bad in ["9102", "localhost:9102", "0.0.0.0", "0.0.0.0:99999", ""] {
        let error = bad.parse::<ListenAddress>().unwrap_err();
        assert!(error.contains("0.0.0.0:9102") && error.contains("none"), "{error}");
    }
}
