use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::cache::AnsweredSnapshot;
use super::history::tests::change;
use super::*;
use ecs_mesh_controller::NoSecrets;
use ecs_mesh_model::Timestamp;
use ecs_mesh_read_api::{
    ChangedView, CountsView, ErrorView, HistoryView, LeaseRoleView, ManifestsView, OutboundStateView,
    OutboundView, ServiceView, StatusView, TaskRegistrationsView, TaskStateView, TaskView,
};

/// A source of these tasks.
struct FakeReads {
    tasks: Mutex<Vec<TaskView>>,
    history: Arc<History>,
    snapshots: AtomicUsize,
    /// Snapshots wait for as long as it is set.
    is_held: AtomicBool,
}

fn task(number: usize) -> TaskView {
    let name = format!("{number:032x}");
    let state = if number.is_multiple_of(3) { TaskStateView::Held } else { TaskStateView::Registered };
    TaskView {
        arn: format!("arn:aws:ecs:eu-west-1:111122223333:task/demo/{name}").into(),
        name: name.into(),
        cluster: "arn:aws:ecs:eu-west-1:111122223333:cluster/demo".into(),
        account: "111122223333".into(),
        region: "eu-west-1".into(),
        ecs_service: Some("web".into()),
        definition: None,
        last_status: Some("RUNNING".into()),
        desired_status: Some("RUNNING".into()),
        address: None,
        role: None,
        created_at: None,
        state,
        reason: None,
        workloads: vec!["web".into()],
        binding: Some("demo".into()),
        control_plane: Some("kuma".into()),
        service: Some("web".into()),
        registrations: Vec::new(),
        warnings: Vec::new(),
    }
}

impl FakeReads {
    fn new(tasks: usize) -> Arc<Self> {
        let tasks = Mutex::new((0..tasks).map(task).collect());
        let history = Arc::new(History::new(100));
        Arc::new(Self { tasks, history, snapshots: AtomicUsize::new(0), is_held: AtomicBool::new(false) })
    }
}

#[async_trait]
impl ReadSource for FakeReads {
    fn snapshot(&self) -> Snapshot {
        self.snapshots.fetch_add(1, Ordering::Relaxed);
        while self.is_held.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let tasks = self.tasks.lock().unwrap().clone();
        let counts = Some(CountsView { tasks: tasks.len(), ..CountsView::default() });
        let status = StatusView { counts, ..self.status() };
        Snapshot::new(status, SnapshotLists { tasks, ..SnapshotLists::default() })
    }

    fn task_facts(&self, _task: &TaskView) -> ReadTaskFacts {
        ReadTaskFacts::default()
    }

    fn now(&self) -> Timestamp {
        self.status().now.0
    }

    fn status(&self) -> StatusView {
        let at = Timestamp::parse("2026-11-22T03:24:21Z").unwrap();
        StatusView {
            operator: "op".into(),
            version: "0".into(),
            started_at: at.into(),
            now: at.into(),
            role: LeaseRoleView::Single,
            leader: None,
            epoch: None,
            ready: true,
            pending: Vec::new(),
            control_planes: Vec::new(),
            guards: Vec::new(),
            clusters: Vec::new(),
            manifests: ManifestsView::default(),
            counts: None,
            history: HistoryView::default(),
        }
    }

    fn history(&self) -> &Arc<History> {
        &self.history
    }

    async fn registrations(&self, task: &TaskView) -> Result<TaskRegistrationsView, ErrorView> {
        Ok(TaskRegistrationsView { name: Arc::clone(&task.name), registrations: Vec::new() })
    }
}

const LOOPBACK: &str = "127.0.0.1:0";

fn options() -> ReadApiOptions {
    let metrics = crate::telemetry::metrics::Metrics::default().api.clone();
    ReadApiOptions { address: LOOPBACK.parse().unwrap(), token: None, tls: None, metrics }
}

async fn serve_with(
    source: &Arc<FakeReads>,
    options: ReadApiOptions,
    limits: ConnectionLimits,
) -> (ReadServer, SocketAddr) {
    serve_within(source, options, limits, HANDSHAKES).await
}

async fn serve_within(
    source: &Arc<FakeReads>,
    options: ReadApiOptions,
    limits: ConnectionLimits,
    handshakes: HandshakeLimits,
) -> (ReadServer, SocketAddr) {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let source = Arc::clone(source) as Arc<dyn ReadSource>;
    let prepared =
        Prepared::new(&ReadApiOptions { address, ..options }, Arc::new(NoSecrets), source).await.unwrap();
    (Prepared { limits, handshakes, ..prepared }.spawn(async move { listener }), address)
}

async fn serve(source: &Arc<FakeReads>) -> (ReadServer, SocketAddr) {
    serve_with(source, options(), LIMITS).await
}

/// Sends a request with these further lines, and returns status, head and body.
async fn request(address: SocketAddr, line: &str, more: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let host = if more.to_lowercase().contains("host:") { "" } else { "host: localhost\r\n" };
    stream.write_all(format!("{line} HTTP/1.1\r\n{host}{more}\r\n").as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, head.to_lowercase(), body.to_owned())
}

async fn get(address: SocketAddr, path: &str) -> (u16, Value) {
    let (status, _, body) = request(address, &format!("GET {path}"), "").await;
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn list_is_paged_while_tasks_come_and_go() {
    let source = FakeReads::new(250);
    let (_server, address) = serve(&source).await;
    let mut path = "/api/v1/tasks?limit=60".to_owned();
    let mut seen = Vec::new();
    loop {
        let (status, page) = get(address, &path).await;
        assert_eq!((status, &page["kind"]), (200, &"TaskList".into()));
        seen.extend(page["items"].as_array().unwrap().iter().map(|task| task["name"].clone()));
        let Some(next) = page["continue"].as_str() else { break };
        path = format!("/api/v1/tasks?limit=60&continue={next}");
        // The last task of the page stops.
        let last = seen.last().unwrap().clone();
        source.tasks.lock().unwrap().retain(|task| *task.name != *last.as_str().unwrap());
    }
    assert_eq!(seen.len(), 250);
    let (_, held) = get(address, "/api/v1/tasks?state=held&limit=1&q=00").await;
    assert_eq!(held["items"].as_array().unwrap().len(), 1);
    assert!(held["total"].as_u64().unwrap() > 50);
}

#[tokio::test]
async fn refused_request_has_a_code_and_the_parameter() {
    let (_server, address) = serve(&FakeReads::new(3)).await;
    for (path, status, code, parameter) in [
        ("/api/v1/tasks?limit=1000000", 400, "invalidParameter", Some("limit")),
        ("/api/v1/tasks?colour=red", 400, "invalidParameter", Some("colour")),
        ("/api/v1/status?limit=1", 400, "invalidParameter", Some("limit")),
        ("/api/v1/changes?since=yesterday", 400, "invalidParameter", Some("since")),
        ("/api/v1/tasks/none", 404, "notFound", None),
        ("/api/v1/services/kuma/default/none", 404, "notFound", None),
        ("/api/v1/pods", 404, "notFound", None),
        ("/api/v2/tasks", 404, "notFound", None),
        ("/api/v1/tasks/%zz", 404, "notFound", None),
        ("/secrets", 404, "notFound", None),
        (&format!("/api/v1/tasks?q={}", "x".repeat(3_000)), 414, "tooLarge", None),
    ] {
        let (found, error) = get(address, path).await;
        assert_eq!(
            (found, &error["kind"], &error["code"]),
            (status, &"Error".into(), &code.into()),
            "{path}"
        );
        assert_eq!(error["parameter"].as_str(), parameter, "{path}");
    }
    let (status, head, _) = request(address, "POST /api/v1/tasks", "content-length: 0\r\n").await;
    assert!(status == 405 && head.contains("allow: get, head"), "{head}");
    let (status, head, body) = request(address, "HEAD /api/v1/tasks", "").await;
    assert!(status == 200 && head.contains("application/json") && body.is_empty(), "{head}");
    let (status, ..) =
        request(address, "GET /api/v1/tasks", &format!("x-long: {}\r\n", "x".repeat(9_000))).await;
    assert_eq!(status, 414);
}

#[tokio::test]
async fn loopback_answers_loopback_hosts_alone() {
    let (_server, address) = serve(&FakeReads::new(1)).await;
    for (host, status) in [
        ("localhost", 200),
        ("127.0.0.1:9103", 200),
        ("rebound.example", 403),
        ("localhost\r\nhost: rebound.example", 403),
    ] {
        for path in ["/api/v1/status", "/"] {
            let (found, head, _) =
                request(address, &format!("GET {path}"), &format!("host: {host}\r\n")).await;
            assert_eq!(found, status, "{host} {path}");
            assert!(!head.contains("access-control"), "{head}");
        }
    }
    // A client of HTTP/1.0 may name no host.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /api/v1/status HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 403"), "{answer}");
}

#[tokio::test]
async fn page_of_another_origin_gets_nothing() {
    let (_server, address) = serve(&FakeReads::new(1)).await;
    let from = |lines: &str| format!("host: localhost:9103\r\n{lines}\r\n");
    for (lines, status) in [
        ("sec-fetch-site: cross-site", 403),
        ("origin: https://evil.example", 403),
        ("sec-fetch-site: same-origin\r\norigin: http://localhost:9103", 200),
    ] {
        for path in ["/api/v1/status", "/api/v1/tasks/none/registrations", "/api/v1/stream"] {
            let (found, head, body) = request(address, &format!("HEAD {path}"), &from(lines)).await;
            assert_eq!(found == 403, status == 403, "{lines} {path} {head} {body}");
            assert!(head.contains("cross-origin-resource-policy: same-origin"), "{head}");
        }
    }
    // Another site may have a link to the page.
    let (status, head, _) = request(address, "GET /", &from("sec-fetch-site: cross-site")).await;
    assert!(status == 200 && head.contains("frame-ancestors 'none'"), "{head}");
}

#[tokio::test]
async fn address_beyond_loopback_needs_a_token() {
    let source = FakeReads::new(1);
    let start = |options: ReadApiOptions| {
        let source = Arc::clone(&source) as Arc<dyn ReadSource>;
        async move { ReadServer::start(options, Arc::new(NoSecrets), source, 1).await }
    };
    let at = |address: &str| ReadApiOptions { address: address.parse().unwrap(), ..options() };
    for address in
        ["0.0.0.0:0", "[::]:0", "[::ffff:0.0.0.0]:0", "[::ffff:10.0.0.1]:0", "10.0.0.1:0", "[fe80::1]:0"]
    {
        let error = start(at(address)).await.unwrap_err();
        assert!(matches!(error, ReadApiError::NeedsToken(_)), "{error}");
    }
    start(at("[::ffff:127.0.0.1]:0")).await.unwrap().stop().await;
    let everywhere = at("0.0.0.0:0");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "a-token-of-readers").unwrap();
    let token = Some(ReadTokenSource::File(file));
    start(ReadApiOptions { token: token.clone(), ..everywhere }).await.unwrap().stop().await;
    let options = ReadApiOptions { token, ..options() };
    let (_server, address) = serve_with(&source, options.clone(), LIMITS).await;
    for (header, status) in [
        ("", 401),
        ("authorization: Bearer another-token-of-readers\r\n", 401),
        ("authorization: Basic a-token-of-readers\r\n", 401),
        ("authorization: Bearer a-token-of-readers\r\n", 200),
    ] {
        for path in ["status", "tasks", "stream", "no-such-path", "../v1/status", "tasks/0/registrations"] {
            let line = format!("HEAD /api/v1/{path}");
            let (found, head, _) = request(address, &line, header).await;
            let is_refused = (found == 401, head.contains("www-authenticate: bearer"));
            assert_eq!(is_refused, (status == 401, status == 401), "{header} {path}: {head}");
        }
        let (found, _, body) = request(address, "GET /api/v1/status", header).await;
        assert_eq!(found, status, "{header}");
        assert!(!body.contains("token-of-readers"), "{body}");
    }
    assert_eq!((options.metrics.request_count("unauthorized"), options.metrics.request_count("ok")), (21, 4));
}

/// Keeps a paused clock still until the sender is dropped. It would go on by itself while a test waits for the readers' thread,
/// of which the runtime does not know.
fn hold_clock() -> std::sync::mpsc::Sender<()> {
    let (sender, dropped) = std::sync::mpsc::channel();
    tokio::task::spawn_blocking(move || dropped.recv());
    sender
}

#[tokio::test(start_paused = true)]
async fn reader_over_a_rate_is_refused_until_it_waits() {
    let _clock = hold_clock();
    let (_server, address) = serve(&FakeReads::new(1)).await;
    let registrations = format!("/api/v1/tasks/{:032x}/registrations", 0);
    // The control planes are asked once a second, whoever asks.
    for (path, expected) in [(&registrations, 200), (&registrations, 429)] {
        assert_eq!(get(address, path).await.0, expected, "{path}");
    }
    let mut refused = 0;
    for _ in 0..1_000 {
        let (status, head, _) = request(address, "GET /api/v1/none", "").await;
        refused += usize::from(status == 429 && head.contains("retry-after: 1"));
    }
    assert!(refused > 100, "{refused}");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(get(address, &registrations).await.0, 200);
}

#[tokio::test]
async fn readers_share_a_snapshot() {
    let source = FakeReads::new(10);
    let (_server, address) = serve(&source).await;
    let readers: Vec<_> = (0..20).map(|_| tokio::spawn(get(address, "/api/v1/services"))).collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap().0, 200);
    }
    assert!(source.snapshots.load(Ordering::Relaxed) < 10);
}

fn shared_views(source: &Arc<FakeReads>) -> super::cache::SharedViews {
    let source: Arc<dyn ReadSource> = Arc::clone(source) as _;
    super::cache::SharedViews::new(&source, ReadThread::start().unwrap())
}

#[tokio::test(start_paused = true)]
async fn last_snapshot_is_answered_while_the_next_is_made() {
    let source = FakeReads::new(10);
    let views = shared_views(&source);
    let first = views.snapshot.get().await.unwrap();
    source.is_held.store(true, Ordering::Relaxed);
    tokio::time::advance(Duration::from_millis(251)).await;
    let meanwhile = views.snapshot.get().await.unwrap();
    assert!(Arc::ptr_eq(&first, &meanwhile));
    source.is_held.store(false, Ordering::Relaxed);
    tokio::time::advance(Duration::from_mins(1)).await;
    let later = views.snapshot.get().await.unwrap();
    assert!(!Arc::ptr_eq(&first, &later));
}

#[tokio::test]
async fn equal_requests_are_rendered_once() {
    let snapshot = AnsweredSnapshot::from(FakeReads::new(1).snapshot());
    let refused = || ErrorView::parameter("limit", "no number".to_owned());
    assert_eq!(snapshot.answer_or_make("tasks?limit=x", |_| Err(refused())), Err(refused()));
    let [large, other] = [5, 4].map(|megabytes| bytes::Bytes::from(vec![0; megabytes << 20]));
    for (target, body, is_kept) in
        [("a", &large, true), ("b", &other, false), ("tasks?limit=x", &"[]".into(), true)]
    {
        assert_eq!(snapshot.answer_or_make(target, |_| Ok(body.clone())), Ok(body.clone()));
        assert_eq!(snapshot.answer(target), is_kept.then(|| body.clone()), "{target}");
    }
    let again = snapshot.answer_or_make("a", |_| panic!("it was rendered"));
    assert_eq!(again, Ok(large));
}

#[tokio::test]
async fn clients_that_come_and_go_cause_one_snapshot() {
    let source = FakeReads::new(10);
    let views = shared_views(&source);
    let reader = || {
        tokio::spawn({
            let snapshot = Arc::clone(&views.snapshot);
            async move { snapshot.get().await.is_some() }
        })
    };
    source.is_held.store(true, Ordering::Relaxed);
    for _ in 0..20 {
        let gone = reader();
        while source.snapshots.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        gone.abort();
        let _ = gone.await;
    }
    let last = reader();
    assert_eq!(source.snapshots.load(Ordering::Relaxed), 1);
    source.is_held.store(false, Ordering::Relaxed);
    assert!(last.await.unwrap());
    assert_eq!(source.snapshots.load(Ordering::Relaxed), 1);
}

/// A stream, and the text that it has sent.
struct StreamReader {
    stream: TcpStream,
    text: String,
}

impl StreamReader {
    async fn open(address: SocketAddr, more: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /api/v1/stream HTTP/1.1\r\nhost: localhost\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Self { stream, text: String::new() }
    }

    /// Reads until the text appears.
    async fn read_until(&mut self, text: &str) {
        while !self.text.contains(text) {
            let mut buffer = [0; 4_096];
            let read = self.stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "the stream ended before {text}: {}", self.text);
            self.text += std::str::from_utf8(&buffer[..read]).unwrap();
        }
    }
}

#[tokio::test]
async fn stream_sends_changes_and_resumes_from_the_ring() {
    let source = FakeReads::new(2);
    for id in 1..=3 {
        source.history.record(change(id, "t", "web"));
    }
    let (_server, address) = serve(&source).await;
    let process = format!("-{:x}", source.status().started_at.0.0);
    let mut stream = StreamReader::open(address, &format!("last-event-id: 1{process}\r\n")).await;
    stream.read_until(&format!("id: 3{process}\n")).await;
    assert!(stream.text.contains("event: status\n") && !stream.text.contains("event: change\nid: 1-"));
    source.history.record(change(4, "t", "web"));
    stream.read_until("event: change\nid: 4-").await;
    // The ring has 100 entries.
    for id in 5..=200 {
        source.history.record(change(id, "t", "web"));
    }
    let mut late = StreamReader::open(address, &format!("last-event-id: 4{process}\r\n")).await;
    late.read_until("id: 200-").await;
    assert!(late.text.contains("event: reset\nid: 100-"), "{}", late.text);
    let mut fresh = StreamReader::open(address, "").await;
    fresh.read_until("event: status\nid: 200-").await;
    assert!(!fresh.text.contains("event: reset"), "{}", fresh.text);
}

#[tokio::test]
async fn stream_of_another_process_begins_with_reset() {
    let source = FakeReads::new(2);
    (1..=9).for_each(|id| source.history.record(change(id, "t", "web")));
    let (_server, address) = serve(&source).await;
    // A number that the ring has says nothing: another process has counted it.
    for foreign in ["5-1", "5", "100000-1", "18446744073709551615-1", "\u{fc}", "-"] {
        let mut stream = StreamReader::open(address, &format!("last-event-id: {foreign}\r\n")).await;
        stream.read_until("event: status").await;
        assert!(stream.text.contains("event: reset\nid: 9-"), "{foreign}: {}", stream.text);
    }
}

#[tokio::test]
async fn stream_names_tasks_whose_views_changed() {
    let source = FakeReads::new(3);
    let (_server, address) = serve(&source).await;
    let mut stream = StreamReader::open(address, "").await;
    stream.read_until("event: status").await;
    stream.read_until("\"counts\":{\"tasks\":").await;
    // Until the search has seen a first snapshot, a change is no difference.
    while source.snapshots.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    source.tasks.lock().unwrap()[1].state = TaskStateView::Rejected;
    stream.read_until("event: tasks").await;
    stream.read_until(&format!("{:032x}", 1)).await;
    assert!(!stream.text.contains(&format!("{:032x}", 2)));
}

/// From `web` to `kv`.
fn outbound(state: OutboundStateView) -> OutboundView {
    OutboundView {
        from: "web".into(),
        to: "kv".into(),
        control_plane: "kuma".into(),
        mesh: Some("default".into()),
        port: None,
        listen: None,
        declared_by: "Workload/web".into(),
        state,
        reason: None,
    }
}

/// A graph shows the state of an outbound, which may change without its services.
#[test]
fn service_changes_with_an_outbound_to_it() {
    let status = FakeReads::new(0).status();
    let snapshot = |state| {
        let outbounds = vec![outbound(state)];
        Snapshot::new(status.clone(), SnapshotLists { outbounds, ..SnapshotLists::default() })
    };
    let before = snapshot(OutboundStateView::NotRead);
    assert_eq!(before.changed_since(&before), ChangedView::default());
    let changed = snapshot(OutboundStateView::UnknownTarget).changed_since(&before);
    assert_eq!((changed.services, changed.tasks.len()), (vec!["kuma/default/kv".into()], 0));
}

#[test]
fn edge_shows_the_worst_of_its_outbounds() {
    let service = |name: &str| -> ServiceView {
        serde_json::from_value(serde_json::json!({
            "name": name, "controlPlane": "kuma", "mesh": "default", "state": "ok", "declared": true,
            "registrations": {"total": 1, "ready": 1, "drained": 0, "unknown": 0},
            "tasks": {"total": 1, "rejected": 0, "held": 0, "pending": 0, "warnings": 0},
            "workloads": [name], "bindings": [], "ecsServices": [], "outbounds": [], "callers": []
        }))
        .unwrap()
    };
    let status = FakeReads::new(0).status();
    let from_best = [
        OutboundStateView::Ok,
        OutboundStateView::NotRead,
        OutboundStateView::Discarded,
        OutboundStateView::NoReadyTarget,
        OutboundStateView::UnknownTarget,
    ];
    for (better, one) in from_best.iter().enumerate() {
        for (rank, other) in from_best.iter().enumerate() {
            let outbounds = [(80, one), (81, other)]
                .map(|(port, state)| OutboundView { port: Some(port), ..outbound(*state) })
                .to_vec();
            let services = vec![service("kv"), service("web")];
            let lists = SnapshotLists { services, outbounds, ..SnapshotLists::default() };
            let body = super::answers::topology(&Snapshot::new(status.clone(), lists), "").unwrap();
            let topology: Value = serde_json::from_slice(&body).unwrap();
            let worst = serde_json::to_value(from_best[better.max(rank)]).unwrap();
            let edges = serde_json::json!([{"from": 1, "to": 0, "state": worst}]);
            assert_eq!(topology["edges"], edges, "{one:?}, {other:?}");
        }
    }
}

#[tokio::test]
async fn streams_are_limited_and_leave_room_for_requests() {
    let (_server, address) = serve(&FakeReads::new(1)).await;
    let mut open = Vec::new();
    for _ in 0..32 {
        let mut stream = StreamReader::open(address, "").await;
        stream.read_until("event: status").await;
        open.push(stream);
    }
    let (status, error) = get(address, "/api/v1/stream").await;
    assert_eq!((status, &error["code"]), (429, &"tooManyRequests".into()));
    for _ in 0..100 {
        assert_eq!(get(address, "/api/v1/status").await.0, 200);
    }
    for stream in &mut open {
        let still_open = stream.stream.try_read(&mut [0]);
        assert!(still_open.is_err(), "the stream is open and silent");
    }
}

#[tokio::test]
async fn stalled_reader_of_a_stream_is_disconnected() {
    let source = FakeReads::new(1);
    let limits = ConnectionLimits { stall: Duration::from_millis(50), ..LIMITS };
    let (_server, address) = serve_with(&source, options(), limits).await;
    let mut stalled = StreamReader::open(address, "").await;
    stalled.read_until("event: status").await;
    // More than the buffers of both sockets hold.
    let large = "x".repeat(16 * 1024);
    for id in 1..=2_000 {
        source.history.record(change(id, &large, "web"));
        tokio::task::yield_now().await;
    }
    // A stream holds the history for as long as it is served.
    let ended = async {
        while Arc::strong_count(&source.history) > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), ended).await.expect("disconnected");
}

#[tokio::test(start_paused = true)]
async fn answer_may_take_longer_than_a_request() {
    let _clock = hold_clock();
    let source = FakeReads::new(1);
    let limits = ConnectionLimits { open: 4, ..LIMITS };
    let (_server, address) = serve_with(&source, options(), limits).await;
    source.is_held.store(true, Ordering::Relaxed);
    let waiting = tokio::spawn(get(address, "/api/v1/tasks"));
    while source.snapshots.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    // Clients that send nothing make room for each other, and not the one that waits.
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(address).await.unwrap());
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    tokio::time::advance(LIMITS.request * 2).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    source.is_held.store(false, Ordering::Relaxed);
    assert_eq!(waiting.await.unwrap().0, 200);
}

#[tokio::test]
async fn http2_is_refused() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // An empty SETTINGS frame, which a server of HTTP/2 answers with its own.
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let (_server, address) = serve(&FakeReads::new(1)).await;
    for size in [1, 5, PREFACE.len()] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in PREFACE.chunks(size).chain([SETTINGS]) {
            // Fails once the server has closed the connection.
            let _ = stream.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(&[0]), "{size}: {answer:?}");
    }
    assert_eq!(get(address, "/api/v1/status").await.0, 200);
}

#[tokio::test]
async fn slow_request_is_disconnected_and_holds_up_no_other() {
    let source = FakeReads::new(1);
    let limits = ConnectionLimits { open: 4, request: Duration::from_millis(100), ..LIMITS };
    let (_server, address) = serve_with(&source, options(), limits).await;
    let mut slow = Vec::new();
    for _ in 0..16 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /api/v1/st").await.unwrap();
        slow.push(stream);
    }
    assert_eq!(get(address, "/api/v1/status").await.0, 200);
    for mut stream in slow {
        // An end or a reset.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    let mut endless = TcpStream::connect(address).await.unwrap();
    endless.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    let chunk = [b'x'; 4_096];
    let mut sent = 0;
    while endless.write_all(&chunk).await.is_ok() {
        sent += chunk.len();
        assert!(sent < 64 * 1024 * 1024, "an endless head is cut off");
        if endless.try_read(&mut [0; 64]).is_ok() {
            break;
        }
    }
}

/// A certificate for localhost, in files.
fn certificate(directory: &std::path::Path) -> (PathBuf, PathBuf, rcgen::CertifiedKey<rcgen::KeyPair>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key, made)
}

/// A client that trusts the certificate.
fn connector(made: &rcgen::CertifiedKey<rcgen::KeyPair>) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

/// A connection from this loopback address.
async fn connect_from(client: &str, address: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{client}:0").parse().unwrap()).unwrap();
    socket.connect(address).await.unwrap()
}

/// Waits until the server closes the connection, with an end or a reset.
async fn closed(mut stream: TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn handshakes_over_a_rate_are_closed_unread() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key, made) = certificate(directory.path());
    let metrics = crate::telemetry::metrics::Metrics::default();
    let served = ReadApiOptions { tls: Some((certificate, key)), metrics: metrics.api.clone(), ..options() };
    // Nothing is earned while the test runs.
    let rate = |burst| Rate { per_second: 0.001, burst };
    let handshakes = HandshakeLimits { client: rate(3), all: rate(5) };
    let limits = ConnectionLimits { request: Duration::from_hours(1), ..LIMITS };
    let (_server, address) = serve_within(&FakeReads::new(1), served, limits, handshakes).await;
    let mut hung = Vec::new();
    for _ in 0..3 {
        hung.push(connect_from("127.0.0.2", address).await);
    }
    closed(connect_from("127.0.0.2", address).await).await;
    assert_eq!(metrics.api.handshake_count("refused"), 1, "over the rate of its address");
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let connector = connector(&made);
    for _ in 0..2 {
        let stream = connect_from("127.0.0.3", address).await;
        connector.connect(name.clone(), stream).await.expect("another address has its own rate");
    }
    closed(connect_from("127.0.0.3", address).await).await;
    assert_eq!(metrics.api.handshake_count("refused"), 2, "over the rate of all");
    for stream in hung {
        let open = stream.try_read(&mut [0]);
        assert!(open.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }
}

#[tokio::test]
async fn handshakes_that_fail_are_counted_by_their_end() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key, made) = certificate(directory.path());
    let metrics = crate::telemetry::metrics::Metrics::default();
    let served = ReadApiOptions { tls: Some((certificate, key)), metrics: metrics.api.clone(), ..options() };
    let count = |result| metrics.api.handshake_count(result);
    let hasty = ConnectionLimits { request: Duration::from_millis(200), ..LIMITS };
    let (_server, address) = serve_with(&FakeReads::new(1), served.clone(), hasty).await;
    closed(TcpStream::connect(address).await.unwrap()).await;
    assert_eq!(count("timeout"), 1);
    let patient = ConnectionLimits { open: 4, request: Duration::from_hours(1), ..LIMITS };
    let (_server, address) = serve_with(&FakeReads::new(1), served, patient).await;
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    closed(plain).await;
    assert_eq!((count("failed"), count("evicted")), (1, 0));
    // More than there is room for, each with the first byte of a handshake.
    let mut slow = Vec::new();
    for _ in 0..12 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(&[22]).await;
        slow.push(stream);
    }
    let left = slow.split_off(8);
    for stream in slow {
        closed(stream).await;
    }
    assert_eq!(count("evicted"), 8);
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = connector(&made).connect(name, stream).await.expect("it takes the room of another");
    stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    // The server ends its part of the handshake after the client.
    let _ = stream.read_to_end(&mut Vec::new()).await;
    assert_eq!((count("ok"), count("refused"), count("timeout")), (1, 0, 1));
    drop(left);
}

#[tokio::test]
async fn tls_serves_the_certificate_that_the_files_have() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate_file, key_file, made) = certificate(directory.path());
    let source = FakeReads::new(1);
    let tls = Some((certificate_file.clone(), key_file.clone()));
    let limits = ConnectionLimits { request: Duration::from_hours(1), ..LIMITS };
    let metrics = crate::telemetry::metrics::Metrics::default();
    let served = ReadApiOptions { tls: tls.clone(), metrics: metrics.api.clone(), ..options() };
    assert!(!metrics.render().contains("certificate_expiry"), "absent without a certificate");
    let (_server, address) = serve_with(&source, served, limits).await;
    let connector = connector(&made);
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    // Clients that do not finish the handshake hold up no other.
    let mut silent = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[22]).await.unwrap();
        silent.push(stream);
    }
    let stream = TcpStream::connect(address).await.unwrap();
    let connected = tokio::time::timeout(Duration::from_mins(1), connector.connect(name, stream)).await;
    let mut stream = connected.expect("silent clients hold it up").unwrap();
    stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut response = Vec::new();
    // The server may close without a close_notify.
    let _ = stream.read_to_end(&mut response).await;
    assert!(response.starts_with(b"HTTP/1.1 200"));
    // The first of January of the year 4096, which rcgen takes by default.
    let expiry = "ecs_mesh_api_certificate_expiry_timestamp_seconds 67090118400.0";
    assert!(metrics.render().contains(expiry), "{}", metrics.render());

    let keys = TlsKeys::load(TlsFiles { certificate: certificate_file.clone(), key: key_file.clone() })
        .await
        .unwrap();
    assert!(!keys.reload().await.unwrap(), "nothing has changed");
    certificate(directory.path());
    assert!(keys.reload().await.unwrap());
    let chain = std::fs::read_to_string(&certificate_file).unwrap();
    // A chain whose second certificate is cut off, and the key of another certificate.
    let cut = format!("{chain}-----BEGIN CERTIFICATE-----\nhunter2\n");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().signing_key;
    for (file, content, part) in [
        (&certificate_file, cut, "certificate 2 "),
        (&certificate_file, String::new(), "no certificate"),
        (&key_file, "hunter2".to_owned(), "no private key"),
        (&key_file, other.serialize_pem(), "key.pem: "),
    ] {
        let before = std::fs::read(file).unwrap();
        std::fs::write(file, content).unwrap();
        let error = keys.reload().await.unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("hunter2"), "{error}");
        std::fs::write(file, before).unwrap();
        assert!(!keys.reload().await.unwrap(), "the last pair stays in use");
    }
    std::fs::write(&key_file, "hunter2").unwrap();
    let refused = Prepared::new(&ReadApiOptions { tls, ..options() }, Arc::new(NoSecrets), source).await;
    assert!(matches!(refused.err(), Some(ReadApiError::Tls(_))));
}
