//! A write follows the lease up to its bytes.

use std::io::Read as _;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use ecs_mesh_api::AllowList;
use ecs_mesh_controller::{HeldTerm, Lease, LeaseTerm, NoSecrets, WriteObstacle};

use super::settings::Credential;
use super::{
    ConnectionSettings, HttpMethod, HttpTransport, Product, TextSources, Transport, TransportError,
    TransportErrorKind,
};

const PRODUCT: Product = Product {
    name: "Kuma",
    block: "spec.kuma",
    ports: (5681, 5682),
    token: "a token",
    credential: Credential::Bearer,
    client_certificate_help: "",
    max_concurrent_calls: None,
};

/// A term whose rest depends on the number of the look and of the bytes that the server has received.
struct ScriptedTerm<F> {
    rest: F,
    looks: AtomicUsize,
    received: Arc<AtomicUsize>,
}

impl<F: Fn(usize, usize) -> u64 + Send + Sync> HeldTerm for ScriptedTerm<F> {
    fn left(&self) -> Duration {
        let look = self.looks.fetch_add(1, Ordering::Relaxed);
        Duration::from_secs((self.rest)(look, self.received.load(Ordering::Relaxed)))
    }
}

struct ScriptedLease<F>(Arc<ScriptedTerm<F>>);

impl<F: Fn(usize, usize) -> u64 + Send + Sync + 'static> Lease for ScriptedLease<F> {
    fn term(&self) -> LeaseTerm {
        LeaseTerm::Held(Arc::clone(&self.0) as Arc<dyn HeldTerm>)
    }
}

/// A server that reads and never answers. Counts the bytes that it reads, and closes the channel with the connection.
fn silent_server() -> (String, Arc<AtomicUsize>, UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (count, (closed, is_closed)) = (Arc::new(AtomicUsize::new(0)), unbounded_channel());
    let received = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            while let Ok(bytes @ 1..) = stream.read(&mut [0; 4096]) {
                count.fetch_add(bytes, Ordering::Relaxed);
            }
            let _ = closed.send(());
        }
    });
    (address, received, is_closed)
}

/// Writes to a server that does not answer, with a time-out of 5 s. Returns the error and the number of bytes that arrived.
async fn write(
    method: HttpMethod,
    rest: impl Fn(usize, usize) -> u64 + Send + Sync + 'static,
) -> (TransportError, usize) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (address, received, mut is_closed) = silent_server();
    let settings = ConnectionSettings {
        product: PRODUCT,
        address,
        tls_server_name: None,
        ca: TextSources::default(),
        token: TextSources::default(),
        allowed: AllowList::default(),
        proxy: None,
        timeout: Duration::from_secs(5),
    };
    let transport = HttpTransport::new(settings, Arc::new(NoSecrets)).unwrap();
    let term = ScriptedTerm { rest, looks: AtomicUsize::new(0), received: Arc::clone(&received) };
    let term = Arc::new(term);
    Transport::set_lease(&transport, Arc::new(ScriptedLease(Arc::clone(&term))));
    let body = (method != HttpMethod::Delete).then(|| b"{}".to_vec());
    let error = Transport::send(&transport, method, "/", body).await.unwrap_err();
    // Bytes that were sent have arrived when the connection is closed. Without a connection none were sent.
    drop(transport);
    let was_connected = term.looks.load(Ordering::Relaxed) > BEFORE_STEPS + 1;
    if was_connected {
        let closed = tokio::time::timeout(Duration::from_mins(1), is_closed.recv()).await;
        closed.expect("the connection was not closed");
    }
    (error, received.load(Ordering::Relaxed))
}

/// Looks before the first step of a write: obstacle, permit, and start.
const BEFORE_STEPS: usize = 3;

#[tokio::test]
async fn write_is_not_sent_when_the_lease_is_short_before_its_bytes() {
    let (error, received) = write(HttpMethod::Put, |look, _| if look < BEFORE_STEPS { 60 } else { 4 }).await;
    assert_eq!(error.kind, TransportErrorKind::Obstructed(WriteObstacle::LeaseEnds), "{error}");
    assert_eq!(received, 0);
}

#[tokio::test]
async fn write_is_not_sent_when_the_lease_ends_before_its_bytes() {
    for method in [HttpMethod::Delete, HttpMethod::Put] {
        // The first step opens the connection.
        let (error, received) = write(method, |look, _| if look <= BEFORE_STEPS { 60 } else { 0 }).await;
        assert_eq!(error.kind, TransportErrorKind::Broken, "{method} {error}");
        assert_eq!(received, 0, "{method}");
    }
}

#[tokio::test]
async fn write_is_aborted_at_the_end_of_the_lease() {
    for method in [HttpMethod::Delete, HttpMethod::Put] {
        let (error, received) = write(method, |_, received| if received == 0 { 60 } else { 0 }).await;
        assert_eq!(error.kind, TransportErrorKind::Broken, "{method} {error}");
        assert!(error.message.contains("lease ended"), "{error}");
        assert!(received > 0, "nothing was sent");
    }
}

#[tokio::test]
async fn write_is_not_started_without_the_lease() {
    let (error, received) = write(HttpMethod::Put, |_, _| 0).await;
    assert_eq!(error.kind, TransportErrorKind::Obstructed(WriteObstacle::NotLeader), "{error}");
    assert_eq!(received, 0);
}
