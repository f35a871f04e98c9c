//! The HTTP client of one control plane: few, short-lived connections to servers that the configured CA signs.
//!
//! Where the CA is a secret, it is read at the first call, and again after a TLS failure.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Proxy};
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::allowed_file::{AllowedFileError, read_allowed};
use super::endpoint::Endpoint;
use super::failure::innermost_cause;
use super::secret_text::{SecretTextError, read_secret};
use super::settings::{SettingsError, TextSource};
use super::transport::{TransportError, TransportErrorKind};
use super::trust::{InvalidCa, TlsConfigError, TrustedCertificates};
use ecs_mesh_api::AllowList;
use ecs_mesh_controller::Secrets;
use ecs_mesh_model::SecretRef;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle connections that are kept; more may be open during calls.
const IDLE_CONNECTIONS: usize = 4;
/// Control planes move behind their names: after this idle time a new connection resolves the name again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A bundle of all public CAs is a fifth of this.
pub(super) const MAX_CA_BYTES: u64 = 1024 * 1024;
/// The shortest interval between reads of a CA secret after TLS failures.
const CA_REFRESH_INTERVAL: Duration = Duration::from_mins(1);

/// A client that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// TLS cannot be configured.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// The HTTP library refused.
    #[error("{}", innermost_cause(.0))]
    Http(#[from] reqwest::Error),
}

/// A CA of a secret that cannot be used.
#[derive(Debug, thiserror::Error)]
enum CaSecretError {
    #[error(transparent)]
    Read(#[from] SecretTextError),
    #[error(transparent)]
    Parse(#[from] InvalidCa),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Where the trusted certificates are from, for error messages.
#[derive(Debug)]
pub(super) struct TrustSource {
    /// The field of the manifest: `caFile`.
    pub(super) field: &'static str,
    /// `the CA in /etc/mesh/ca.pem`.
    pub(super) description: String,
}

impl TrustSource {
    fn system() -> Self {
        Self { field: "caFile", description: "the system's roots (no CA is configured)".to_owned() }
    }

    fn file(file: &Path) -> Self {
        Self { field: "caFile", description: format!("the CA in {}", file.display()) }
    }

    fn env(name: &str) -> Self {
        Self { field: "caEnv", description: format!("the CA in the environment variable {name}") }
    }

    fn secret(secret: &SecretRef) -> Self {
        Self { field: "caSecret", description: format!("the CA in the secret {secret}") }
    }
}

/// Clients with the source of the certificates that they trust.
#[derive(Clone)]
pub(super) struct PreparedClient {
    /// Keeps idle connections.
    pub(super) pooled: Client,
    /// Closes each connection after its call.
    pub(super) unpooled: Client,
    pub(super) trust: Arc<TrustSource>,
    since: Instant,
}

/// Builds the client of one control plane.
pub(super) struct ClientSource {
    /// The manifest's block.
    block: &'static str,
    endpoint: Arc<Endpoint>,
    timeout: Duration,
    proxy: Option<Proxy>,
    provider: Arc<CryptoProvider>,
    state: ClientState,
}

enum ClientState {
    Prepared(PreparedClient),
    /// Built at the first call: the CA is a secret, which has to be read.
    Lazy {
        secret: SecretRef,
        secrets: Arc<dyn Secrets>,
        cached: Mutex<Option<PreparedClient>>,
    },
}

impl ClientSource {
    /// Reads the CA, whose file blocks the caller, unless it is a secret.
    ///
    /// # Errors
    /// Names the invalid field and the allowed values.
    pub(super) fn new(
        block: &'static str,
        endpoint: Arc<Endpoint>,
        timeout: Duration,
        proxy: Option<Proxy>,
        ca: TextSource,
        allowed: &AllowList,
        secrets: Arc<dyn Secrets>,
    ) -> Result<Self, SettingsError> {
        let provider = CryptoProvider::get_default().ok_or(SettingsError::NoTlsProvider)?;
        let build = |trusted: Option<TrustedCertificates>, trust: TrustSource| {
            let prepared = build_clients(&endpoint, timeout, proxy.as_ref(), provider, trusted, trust);
            let prepared = prepared.map_err(|source| SettingsError::Client {
                base: endpoint.base.clone(),
                block,
                source,
            })?;
            Ok::<_, SettingsError>(ClientState::Prepared(prepared))
        };
        let state = match ca {
            TextSource::File(file) => {
                let trust = TrustSource::file(&file);
                let pem = read_allowed(allowed, &file, MAX_CA_BYTES).map_err(|error| match error {
                    AllowedFileError::Refused(source) => {
                        SettingsError::Refused { block, name: "ca", kind: "File", source }
                    }
                    AllowedFileError::Read(source) => SettingsError::CaFile { block, file, source },
                })?;
                build(Some(TrustedCertificates::from_pem(&pem, &trust.description)?), trust)?
            }
            TextSource::Env(name) => {
                let trust = TrustSource::env(&name);
                let pem = std::env::var_os(&name).ok_or_else(|| SettingsError::CaEnv { block, name })?;
                let trusted = TrustedCertificates::from_pem(pem.as_encoded_bytes(), &trust.description)?;
                build(Some(trusted), trust)?
            }
            TextSource::Secret(secret) => ClientState::Lazy { secret, secrets, cached: Mutex::default() },
            // Without TLS no roots are needed, and an image may have none.
            TextSource::None if !endpoint.is_secure() => build(None, TrustSource::system())?,
            TextSource::None => build(Some(TrustedCertificates::of_system()), TrustSource::system())?,
        };
        Ok(Self { block, endpoint, timeout, proxy, provider: Arc::clone(provider), state })
    }

    /// The client, after reading the CA where that is due.
    pub(super) async fn client(&self) -> Result<PreparedClient, TransportError> {
        let (secret, secrets, cached) = match &self.state {
            ClientState::Prepared(prepared) => return Ok(prepared.clone()),
            ClientState::Lazy { secret, secrets, cached } => (secret, secrets, cached),
        };
        let mut cached = cached.lock().await;
        if let Some(prepared) = cached.as_ref() {
            return Ok(prepared.clone());
        }
        let trust = TrustSource::secret(secret);
        let new = self.read(secret, secrets.as_ref(), trust).await.map_err(|cause| {
            let base = &self.endpoint.base;
            let message = format!("calling {base}: {cause} (ControlPlane.{}.caSecret)", self.block);
            TransportError::new(TransportErrorKind::Tls, message).with_source(cause)
        })?;
        *cached = Some(new.clone());
        Ok(new)
    }

    async fn read(
        &self,
        secret: &SecretRef,
        secrets: &dyn Secrets,
        trust: TrustSource,
    ) -> Result<PreparedClient, CaSecretError> {
        let pem = read_secret(secrets, secret).await?;
        let trusted = TrustedCertificates::from_pem(pem.as_bytes(), &trust.description)?;
        Ok(build_clients(
            &self.endpoint,
            self.timeout,
            self.proxy.as_ref(),
            &self.provider,
            Some(trusted),
            trust,
        )?)
    }

    /// Drops the cached client after a TLS failure: the CA may have been replaced in its secret.
    pub(super) async fn on_failure(&self, error: &TransportError) {
        if let ClientState::Lazy { cached, .. } = &self.state
            && error.kind == TransportErrorKind::Tls
        {
            cached.lock().await.take_if(|prepared| prepared.since.elapsed() >= CA_REFRESH_INTERVAL);
        }
    }
}

/// Builds clients that trust these certificates, or ones without TLS.
fn build_clients(
    endpoint: &Endpoint,
    timeout: Duration,
    proxy: Option<&Proxy>,
    provider: &Arc<CryptoProvider>,
    trusted: Option<TrustedCertificates>,
    trust: TrustSource,
) -> Result<PreparedClient, ClientError> {
    let tls = match trusted {
        Some(trusted) => Some(trusted.tls_config(provider, endpoint.server_name.clone())?),
        None => None,
    };
    let build = |idle_connections| build_client(endpoint, timeout, proxy, tls.clone(), idle_connections);
    Ok(PreparedClient {
        pooled: build(IDLE_CONNECTIONS)?,
        unpooled: build(0)?,
        trust: Arc::new(trust),
        since: Instant::now(),
    })
}

fn build_client(
    endpoint: &Endpoint,
    timeout: Duration,
    proxy: Option<&Proxy>,
    tls: Option<ClientConfig>,
    idle_connections: usize,
) -> Result<Client, ClientError> {
    let builder = Client::builder()
        .user_agent(concat!("ecs-mesh-operator/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout)
        .pool_max_idle_per_host(idle_connections)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http1_only()
        // The environment's proxy is for those that ask for it.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    let builder = match endpoint.resolver() {
        Some(resolver) => builder.dns_resolver(resolver),
        None => builder,
    };
    let builder = match proxy {
        Some(proxy) => builder.proxy(proxy.clone()),
        None => builder,
    };
    let builder = match tls {
        Some(tls) => builder.tls_backend_preconfigured(tls),
        // Otherwise the library loads the system's roots.
        None => builder.tls_certs_only([]),
    };
    Ok(builder.build()?)
}
