//! TLS with a certificate and a key from files, which are read again when they change.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use ecs_mesh_controller::{BlockingLane, ReadFileError, read_file};

/// Interval at which the files are read again.
const REREAD: Duration = Duration::from_secs(30);

/// The longest read of both files.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of a file.
const MAX_BYTES: u64 = 1024 * 1024;

/// A certificate or a key that cannot be used. Never contains a file's text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFileError {
    #[error("reading {}: {source}; help: create it or correct {flag}", file.display())]
    Read { file: PathBuf, flag: &'static str, source: ReadFileError },
    #[error("reading {} and {}: timed out", certificate.display(), key.display())]
    TimedOut { certificate: PathBuf, key: PathBuf },
    #[error("parsing {}: no certificate found; help: use PEM text with the chain, the server's certificate first", file.display())]
    NoCertificate { file: PathBuf },
    #[error("parsing {}: certificate {number} of the chain is malformed; help: use PEM text with the chain, the server's certificate first", file.display())]
    BadCertificate { file: PathBuf, number: usize },
    #[error("parsing {}: no private key found; help: use PEM text of PKCS #8, PKCS #1 or SEC 1, without a passphrase", file.display())]
    NoKey { file: PathBuf },
    #[error("{} and {}: {source}", certificate.display(), key.display())]
    Mismatch { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

/// The files of a certificate chain and its key, in PEM.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl TlsFiles {
    fn read(&self) -> Result<[Vec<u8>; 2], TlsFileError> {
        let read = |file: &PathBuf, flag| {
            read_file(file, MAX_BYTES).map_err(|source| TlsFileError::Read {
                file: file.clone(),
                flag,
                source,
            })
        };
        Ok([read(&self.certificate, "--api-tls-cert-file")?, read(&self.key, "--api-tls-key-file")?])
    }

    fn parse(&self, [certificate, key]: &[Vec<u8>; 2]) -> Result<CurrentCertificate, TlsFileError> {
        // A chain without its malformed part would be served, and clients would not find its issuer.
        let bad = |number| TlsFileError::BadCertificate { file: self.certificate.clone(), number };
        let chain = CertificateDer::pem_slice_iter(certificate).enumerate();
        let chain: Vec<CertificateDer<'static>> =
            chain.map(|(index, found)| found.map_err(|_| bad(index + 1))).collect::<Result<_, _>>()?;
        if chain.is_empty() {
            return Err(TlsFileError::NoCertificate { file: self.certificate.clone() });
        }
        let expires_at = expiry(&chain[0]);
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsFileError::NoKey { file: self.key.clone() })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        let mut config = config.map_err(|source| TlsFileError::Mismatch {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(CurrentCertificate { config: Arc::new(config), expires_at })
    }
}

/// The content of the files when they were read last.
struct CurrentCertificate {
    config: Arc<ServerConfig>,
    /// Since 1970; `None` where the certificate's period cannot be parsed.
    expires_at: Option<Duration>,
}

/// The end of a certificate's validity, since 1970.
fn expiry(certificate: &CertificateDer<'_>) -> Option<Duration> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate().validity().not_after.to_unix_duration())
}

/// The current certificate and key.
pub(crate) struct TlsKeys {
    files: TlsFiles,
    lane: BlockingLane,
    current: ArcSwap<CurrentCertificate>,
    texts: std::sync::Mutex<[Vec<u8>; 2]>,
}

impl fmt::Debug for TlsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsKeys").field("files", &self.files).finish_non_exhaustive()
    }
}

impl TlsKeys {
    /// Reads the files.
    pub(crate) async fn load(files: TlsFiles) -> Result<Self, TlsFileError> {
        let lane = BlockingLane::default();
        let texts = read(&lane, &files).await?;
        let current = ArcSwap::from_pointee(files.parse(&texts)?);
        Ok(Self { files, lane, current, texts: std::sync::Mutex::new(texts) })
    }

    /// The configuration of the next connection.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// Reads the files again, and uses them if they changed. Returns whether they did.
    pub(crate) async fn reload(&self) -> Result<bool, TlsFileError> {
        let texts = read(&self.lane, &self.files).await?;
        let lock = || self.texts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *lock() == texts {
            return Ok(false);
        }
        self.current.store(Arc::new(self.files.parse(&texts)?));
        *lock() = texts;
        Ok(true)
    }

    /// Reads the files again and again, and reports when the certificate expires, since 1970, or `None` where its period cannot
    /// be parsed. Files that cannot be used leave the last ones in use.
    pub(crate) async fn keep_current(&self, report_expiry: impl Fn(Option<Duration>)) {
        let report = || report_expiry(self.current.load().expires_at);
        report();
        let mut last_error = None;
        loop {
            tokio::time::sleep(REREAD).await;
            match self.reload().await {
                Ok(changed) => {
                    let was_failing = last_error.take().is_some();
                    report();
                    if changed || was_failing {
                        info!(file = %self.files.certificate.display(), "certificate of the API read again");
                    }
                }
                Err(error) => {
                    let text = error.to_string();
                    if last_error.as_ref() != Some(&text) {
                        warn!(%error, "cannot use the certificate of the API; keeping the last one");
                    }
                    last_error = Some(text);
                }
            }
        }
    }
}

async fn read(lane: &BlockingLane, files: &TlsFiles) -> Result<[Vec<u8>; 2], TlsFileError> {
    let reader = files.clone();
    let read = lane.run(READ_TIMEOUT, move || reader.read()).await;
    let timed_out =
        || TlsFileError::TimedOut { certificate: files.certificate.clone(), key: files.key.clone() };
    read.ok_or_else(timed_out)?
}

/// A connection, with TLS or without.
pub(super) enum MaybeTls {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for MaybeTls {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for MaybeTls {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
