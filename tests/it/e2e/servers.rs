//! Working and broken control planes in this process that count calls.

use std::io::{Read as _, Write as _};
use std::net::TcpListener as StdListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::response::Html;
use ecs_mesh_model::Timestamp;
use ecs_mesh_sandbox::kuma::http::{KumaFault, KumaFaults, serve};
use ecs_mesh_sandbox::kuma::{KumaConfig, KumaCp};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;

/// A server's URL and its number of calls, or of connections if it does not respond.
pub(super) struct TestServer {
    pub(super) url: String,
    calls: Arc<AtomicUsize>,
}

impl TestServer {
    pub(super) fn call_count(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

/// Delays writes and counts calls.
struct DelayedWrites {
    calls: Arc<AtomicUsize>,
    writes: Arc<AtomicUsize>,
    delay: Duration,
}

impl KumaFaults for DelayedWrites {
    fn decide(&self, method: &str, _path: &str) -> KumaFault {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if !matches!(method, "PUT" | "DELETE") {
            return KumaFault::None;
        }
        self.writes.fetch_add(1, Ordering::SeqCst);
        if self.delay.is_zero() { KumaFault::None } else { KumaFault::Delay(self.delay) }
    }
}

/// A Kuma control plane in this process.
pub(super) struct TestKuma {
    pub(super) server: TestServer,
    pub(super) cp: Arc<Mutex<KumaCp>>,
    writes: Arc<AtomicUsize>,
}

impl TestKuma {
    pub(super) async fn start(config: KumaConfig, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (calls, writes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let cp = Arc::new(Mutex::new(KumaCp::new(config, now())));
        let watch = Arc::new(DelayedWrites { calls: Arc::clone(&calls), writes: Arc::clone(&writes), delay });
        tokio::spawn(serve(listener, Arc::clone(&cp), watch, Arc::new(now), std::future::pending()));
        Self { server: TestServer { url, calls }, cp, writes }
    }

    /// Number of PUT and DELETE requests.
    pub(super) fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    /// Number of Dataplanes.
    pub(super) fn dataplanes(&self) -> usize {
        self.cp.lock().unwrap().dataplanes().count()
    }
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_millis()).unwrap())
}

/// Accepts connections and never responds.
pub(super) async fn hanging_server() -> TestServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            kept.push(stream);
        }
    });
    TestServer { url, calls }
}

/// An address that refuses connections.
pub(super) fn refused_address() -> TestServer {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    TestServer { url, calls: Arc::default() }
}

/// A host name that does not resolve.
pub(super) fn unresolvable_name() -> TestServer {
    TestServer { url: "http://kuma.invalid:5681".to_owned(), calls: Arc::default() }
}

/// A web server that answers an HTML page for each path.
pub(super) async fn html_server() -> TestServer {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let page = move || {
        count.fetch_add(1, Ordering::SeqCst);
        async { Html("<html><title>Welcome</title></html>") }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(page)).await });
    TestServer { url, calls }
}

/// A TLS server with an untrusted certificate.
pub(super) fn self_signed_server() -> TestServer {
    let fixture = |name| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls")).join(name);
    let certificate = CertificateDer::from_pem_file(fixture("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(fixture("server.key")).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![certificate], key).unwrap());
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            // The client aborts the handshake.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.flush();
        }
    });
    TestServer { url, calls }
}
