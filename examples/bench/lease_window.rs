//! The lease window phase: the time between the last look at the lease and the arrival of a write's bytes. A process that is
//! frozen within this time, for longer than the rest of its lease, sends the bytes when it wakes.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ecs_mesh_api::AllowList;
use ecs_mesh_control_plane::http::{ConnectionSettings, HttpMethod, HttpTransport, TextSources, Transport};
use ecs_mesh_controller::{HeldTerm, Lease, LeaseTerm, NoSecrets};
use ecs_mesh_kuma::PRODUCT;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A Dataplane has about this size.
const BODY_BYTES: usize = 1_500;

/// Result for one kind of write.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LeaseWindowResult {
    pub method: &'static str,
    pub new_connection: bool,
    pub writers: usize,
    pub writes: usize,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

/// The lease of one writer: the time of the last look at it, in nanoseconds since `start`.
struct WatchedTerm {
    start: Instant,
    last_look: AtomicU64,
}

impl WatchedTerm {
    fn elapsed(&self) -> u64 {
        self.start.elapsed().as_nanos().try_into().unwrap_or(u64::MAX)
    }
}

impl HeldTerm for WatchedTerm {
    fn left(&self) -> Duration {
        self.last_look.store(self.elapsed(), Ordering::Relaxed);
        Duration::from_mins(1)
    }
}

struct WatchedLease(Arc<WatchedTerm>);

impl Lease for WatchedLease {
    fn term(&self) -> LeaseTerm {
        LeaseTerm::Held(Arc::clone(&self.0) as Arc<dyn HeldTerm>)
    }
}

/// A writer with a server of its own, so that each arrival belongs to one write.
struct Writer {
    transport: HttpTransport,
    windows: Arc<std::sync::Mutex<Vec<u64>>>,
}

impl Writer {
    async fn new() -> Result<Self, String> {
        let term = Arc::new(WatchedTerm { start: Instant::now(), last_look: AtomicU64::new(0) });
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let settings = ConnectionSettings {
            product: PRODUCT,
            address: format!("http://{address}"),
            tls_server_name: None,
            ca: TextSources::default(),
            token: TextSources::default(),
            allowed: AllowList::default(),
            proxy: None,
            timeout: Duration::from_secs(30),
        };
        let transport =
            HttpTransport::new(settings, Arc::new(NoSecrets)).map_err(|error| error.to_string())?;
        Transport::set_lease(&transport, Arc::new(WatchedLease(Arc::clone(&term))));
        let windows = Arc::<std::sync::Mutex<Vec<u64>>>::default();
        let recorded = Arc::clone(&windows);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&term), Arc::clone(&recorded)));
            }
        });
        Ok(Self { transport, windows })
    }

    async fn write(&self, method: HttpMethod, new_connection: bool) -> Result<(), String> {
        let body = (method == HttpMethod::Put).then(|| vec![b' '; BODY_BYTES]);
        let answer = if new_connection {
            self.transport.send_on_new_connection(method, "/", body).await
        } else {
            self.transport.send(method, "/", body).await
        };
        answer.map(|_| ()).map_err(|error| error.to_string())
    }
}

/// Answers the requests of a connection, and records how long before their first bytes the lease was looked at last.
async fn answer(
    mut stream: TcpStream,
    term: Arc<WatchedTerm>,
    windows: Arc<std::sync::Mutex<Vec<u64>>>,
) -> io::Result<()> {
    let (mut buffer, mut request) = (vec![0; 16 * 1024], Vec::new());
    loop {
        let bytes = stream.read(&mut buffer).await?;
        if bytes == 0 {
            return Ok(());
        }
        if request.is_empty() {
            let window = term.elapsed().saturating_sub(term.last_look.load(Ordering::Relaxed));
            windows.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(window);
        }
        request.extend_from_slice(&buffer[..bytes]);
        let Some(head) = request.windows(4).position(|part| part == b"\r\n\r\n") else { continue };
        let body = if request.starts_with(b"PUT") { BODY_BYTES } else { 0 };
        if request.len() >= head + 4 + body {
            request.clear();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
        }
    }
}

/// Measures each kind of write, by one writer and by many at once.
///
/// # Errors
/// Describes the failure.
pub(crate) fn measure(writes: usize, writers: usize) -> Result<Vec<LeaseWindowResult>, String> {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let mut results = Vec::new();
    for writers in [1, writers] {
        for method in [HttpMethod::Put, HttpMethod::Delete] {
            for new_connection in [false, true] {
                results.push(runtime.block_on(measure_one(method, new_connection, writes, writers))?);
            }
        }
    }
    runtime.shutdown_background();
    Ok(results)
}

async fn measure_one(
    method: HttpMethod,
    new_connection: bool,
    writes: usize,
    writers: usize,
) -> Result<LeaseWindowResult, String> {
    let mut running = JoinSet::new();
    for _ in 0..writers {
        let writer = Writer::new().await?;
        running.spawn(async move {
            for _ in 0..writes.div_ceil(writers) {
                writer.write(method, new_connection).await?;
            }
            let windows = writer.windows.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            Ok::<_, String>(windows.clone())
        });
    }
    let mut windows = Vec::new();
    while let Some(done) = running.join_next().await {
        windows.extend(done.map_err(|error| error.to_string())??);
    }
    windows.sort_unstable();
    let at = |share: usize| windows.get(windows.len() * share / 100).map_or(0, |nanos| nanos / 1_000);
    Ok(LeaseWindowResult {
        method: method.as_str(),
        new_connection,
        writers,
        writes: windows.len(),
        p50_us: at(50),
        p99_us: at(99),
        max_us: windows.last().map_or(0, |nanos| nanos / 1_000),
    })
}
