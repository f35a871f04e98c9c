//! A write follows the lease up to its bytes.

use std::io::Read as _;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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

/// A term with these rests, one for each look, the last one for all further looks.
struct ScriptedTerm(Vec<Duration>, AtomicUsize);

impl HeldTerm for ScriptedTerm {
    fn left(&self) -> Duration {
        self.0[self.1.fetch_add(1, Ordering::Relaxed).min(self.0.len() - 1)]
    }
}

struct ScriptedLease(Arc<ScriptedTerm>);

impl Lease for ScriptedLease {
    fn term(&self) -> LeaseTerm {
        LeaseTerm::Held(Arc::clone(&self.0) as Arc<dyn HeldTerm>)
    }
}

/// A server that reads and never answers. The receiver gets the number of bytes of each read.
fn silent_server() -> (String, Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            while let Ok(bytes @ 1..) = stream.read(&mut [0; 4096]) {
                let _ = sender.lock().unwrap().send(bytes);
            }
        }
    });
    (address, receiver)
}

/// Puts a body to a server that does not answer, with a time-out of 5 s.
async fn put(rests: &[u64]) -> (TransportError, Receiver<usize>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (address, received) = silent_server();
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
    let rests = rests.iter().map(|rest| Duration::from_secs(*rest)).collect();
    let lease = ScriptedLease(Arc::new(ScriptedTerm(rests, AtomicUsize::new(0))));
    Transport::set_lease(&transport, Arc::new(lease));
    (Transport::send(&transport, HttpMethod::Put, "/", Some(b"{}".to_vec())).await.unwrap_err(), received)
}

#[tokio::test]
async fn write_is_not_sent_when_the_lease_is_short_before_its_bytes() {
    // Looks: obstacle, permit, start of the write; then, with a connection, the body.
    let (error, received) = put(&[60, 60, 60, 4]).await;
    assert_eq!(error.kind, TransportErrorKind::Obstructed(WriteObstacle::LeaseEnds), "{error}");
    assert!(received.recv_timeout(Duration::from_millis(200)).is_err(), "bytes were sent");
}

#[tokio::test]
async fn write_is_aborted_at_the_end_of_the_lease() {
    let (error, received) = put(&[60, 60, 60, 60, 0]).await;
    assert_eq!(error.kind, TransportErrorKind::Broken, "{error}");
    assert!(error.message.contains("lease ended"), "{error}");
    assert!(received.recv_timeout(Duration::from_secs(5)).is_ok(), "nothing was sent");
}

#[tokio::test]
async fn write_is_not_started_without_the_lease() {
    let (error, _) = put(&[0]).await;
    assert_eq!(error.kind, TransportErrorKind::Obstructed(WriteObstacle::NotLeader), "{error}");
}
