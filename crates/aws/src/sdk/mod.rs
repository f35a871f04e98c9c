//! Implements the calls of [`crate::aws`] with the AWS SDK: one connection pool, one TLS stack, no retries.
//!
//! A call ends within 5 seconds (a long poll within 25) and is attempted once, since the controller decides on retries.
//! Credentials, Region and endpoint come from the SDK's default chain, so `AWS_PROFILE`, `AWS_REGION`, `AWS_ENDPOINT_URL`
//! and a task role work as usual.

mod accounts;
mod address;
mod call;
mod credentials;
mod dynamodb;
mod ec2;
mod ecs;
mod error;
mod event_bus;
mod iam;
mod inspect;
mod member;
mod operation;
mod queue;
mod s3;
mod secret_store;
mod secrets;
mod services;
mod setup;
mod ssm;
#[cfg(test)]
mod tests;
mod xml;

use std::sync::Arc;
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

pub use aws_sdk_ecs::config::Credentials;
use aws_sdk_ecs::config::{SharedHttpClient, SharedIdentityCache};

pub use accounts::SdkAccounts;
pub use call::AwsCallObserver;
pub use credentials::CredentialStep;
pub use dynamodb::SdkDynamoDb;
pub use ec2::SdkEc2;
pub use ecs::SdkEcs;
pub use event_bus::SdkEventBus;
pub use iam::SdkIam;
pub use inspect::SdkInspect;
pub use queue::{QueueAttributes, SdkQueue};
pub use s3::{ListedObject, ObjectContent, SdkObjectStore};
pub use secret_store::SdkSecretStore;
pub use secrets::SdkSecrets;
pub use setup::{CallerIdentity, EventRule, EventTarget, FoundCredentials, SdkSetup};
pub use ssm::{PathParameter, SdkParameterStore};

use crate::aws::MemberAccount;
use call::CallRunner;
use credentials::{CredentialChain, CredentialSource};
use ecs_mesh_controller::ProxyVariables;
use ecs_mesh_model::EventBusRef;

/// Allows for one lost SYN (3 s).
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3_100);
/// Time limit of a call, except a long poll.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than [`ATTEMPT_TIMEOUT`], so that missing credentials are reported as such and not as a time-out of AWS.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(4);

/// Connection options.
#[derive(Clone)]
pub struct AwsOptions {
    /// The Region; default: from the SDK's default chain.
    pub region: Option<String>,
    /// Endpoint of all services; default: `AWS_ENDPOINT_URL`, else AWS.
    pub endpoint_url: Option<String>,
    /// Fixed credentials; default: from the SDK's default chain.
    pub credentials: Option<Credentials>,
    /// The proxy for HTTPS; default: `HTTPS_PROXY` and `NO_PROXY`.
    pub proxy: Option<ProxyVariables>,
    /// Records each call.
    pub observer: Arc<dyn AwsCallObserver>,
}

impl Default for AwsOptions {
    fn default() -> Self {
        Self {
            region: None,
            endpoint_url: None,
            credentials: None,
            proxy: ProxyVariables::from_environment(),
            observer: Arc::new(()),
        }
    }
}

/// Why clients cannot be created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Neither the options nor the default chain have a Region.
    #[error("no AWS Region found; set AWS_REGION, or `region` in the AWS profile (ECS and EC2 provide it)")]
    NoRegion,
    /// The system has no CA certificates.
    #[error(
        "no CA certificates found, so no HTTPS endpoint of AWS can be verified; install the package ca-certificates, or set \
         SSL_CERT_FILE"
    )]
    NoRoots,
    /// The proxy's URL is not valid.
    #[error(
        "HTTPS_PROXY {address:?} cannot be used: {reason}; help: write http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT"
    )]
    Proxy {
        /// The URL without user and password.
        address: String,
        /// Why.
        reason: &'static str,
    },
    /// The queue's URL is not valid.
    #[error(
        "{found:?} is not the URL of an SQS queue: expected https://sqs.REGION.amazonaws.com/ACCOUNT/NAME without user and \
         password; `aws sqs get-queue-url --queue-name NAME` prints it"
    )]
    QueueUrl {
        /// The given value, shortened, without user and password.
        found: String,
    },
}

/// The clients of one account and Region. Clones share one connection pool.
#[derive(Clone)]
pub struct AwsClients {
    /// DynamoDB.
    pub dynamodb: SdkDynamoDb,
    /// ECS.
    pub ecs: SdkEcs,
    /// EC2.
    pub ec2: SdkEc2,
    /// IAM.
    pub iam: SdkIam,
    /// Reads of the audit.
    pub inspect: SdkInspect,
    /// Secrets Manager.
    pub secrets: SdkSecrets,
    /// Tokens in Secrets Manager.
    pub secret_store: SdkSecretStore,
    /// SSM Parameter Store: tokens, and manifests.
    pub parameter_store: SdkParameterStore,
    /// Manifests in S3.
    pub objects: SdkObjectStore,
    /// Reads of `doctor`.
    pub setup: SdkSetup,
    /// EventBridge configuration, for [`Self::event_bus`].
    events: aws_sdk_eventbridge::Config,
    /// SQS configuration, for [`Self::queue`].
    sqs: aws_sdk_sqs::Config,
    calls: CallRunner,
    config: SdkConfig,
    region: String,
}

impl AwsClients {
    /// Creates the clients. Reads the environment and profile files, and requests the Region from the EC2 instance if
    /// nothing else has it. The first call that needs credentials fetches them.
    pub async fn connect(options: AwsOptions) -> Result<Self, ConnectError> {
        let calls = CallRunner::new(Arc::clone(&options.observer));
        let roots = has_roots();
        let proxy = options.proxy.as_ref().map(proxy_config).transpose()?;
        let used = CredentialSource::default();
        let config = config(options, roots, proxy, &used).await;
        let is_plain_http = config.endpoint_url().is_some_and(|url| url.starts_with("http://"));
        if !roots && !is_plain_http {
            return Err(ConnectError::NoRoots);
        }
        if config.region().is_none() {
            return Err(ConnectError::NoRegion);
        }
        Ok(Self::new(config, calls, used))
    }

    fn new(config: SdkConfig, calls: CallRunner, used: CredentialSource) -> Self {
        let region = config.region().map(ToString::to_string).unwrap_or_default();
        let (ecs, iam) = (aws_sdk_ecs::Client::new(&config), aws_sdk_iam::Client::new(&config));
        Self {
            inspect: SdkInspect::new(ecs.clone(), iam.clone(), calls.clone()),
            ecs: SdkEcs::new(ecs, calls.clone()),
            dynamodb: SdkDynamoDb::new(&config, calls.clone()),
            ec2: SdkEc2::new(&config, calls.clone()),
            iam: SdkIam::new(iam, calls.clone()),
            events: aws_sdk_eventbridge::Config::new(&config),
            sqs: aws_sdk_sqs::Config::new(&config),
            secrets: SdkSecrets::new(config.clone(), calls.clone()),
            secret_store: SdkSecretStore::new(&config, calls.clone()),
            parameter_store: SdkParameterStore::new(&config, calls.clone()),
            objects: SdkObjectStore::new(config.clone(), calls.clone()),
            setup: SdkSetup::new(config.clone(), calls.clone(), used),
            calls,
            config,
            region,
        }
    }

    /// The clients of the same account in another Region.
    fn in_region(&self, region: &str) -> Self {
        let config = self.config.to_builder().region(Region::new(region.to_owned())).build();
        Self::new(config, self.calls.clone(), self.setup.source())
    }

    /// The clients of another account in this Region, by a role that the caller of these clients assumes. The first call
    /// that needs credentials assumes it, and the SDK does so again before they expire. They share the connection pool.
    #[must_use]
    pub fn member(&self, account: &MemberAccount, session: &str, region: &str) -> Self {
        let calls = self.calls.of_another_account();
        let used = CredentialSource::default();
        used.set(CredentialStep::AssumedRole(account.role.as_str().to_owned()));
        let credentials = member::AssumedCredentials::new(&self.config, account, session, calls.clone());
        let config = self
            .config
            .to_builder()
            .region(Region::new(region.to_owned()))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .identity_cache(identity_cache())
            .build();
        Self::new(config, calls, used)
    }

    /// The Region in use.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The caller's account, once a response of ECS or IAM has shown it.
    pub fn account(&self) -> Option<&str> {
        self.calls.account()
    }

    /// This event bus. An ARN also determines the Region: `PutEvents` is sent to the Region of the bus.
    pub fn event_bus(&self, bus: &EventBusRef) -> SdkEventBus {
        let mut config = self.events.to_builder();
        if let Some(region) = bus.region() {
            config.set_region(Some(Region::new(region.to_owned())));
        }
        let client = aws_sdk_eventbridge::Client::from_conf(config.build());
        SdkEventBus::new(client, self.calls.clone(), bus.clone())
    }

    /// The queue of this URL. An AWS URL also determines the Region, since the endpoint of another Region does not know the
    /// queue.
    pub fn queue(&self, url: &str) -> Result<SdkQueue, ConnectError> {
        let host = queue_host(url).ok_or_else(|| ConnectError::QueueUrl { found: without_userinfo(url) })?;
        let mut config = self.sqs.to_builder();
        if let Some(region) = region_of_queue_host(host) {
            config.set_region(Some(Region::new(region.to_owned())));
        }
        Ok(SdkQueue::new(aws_sdk_sqs::Client::from_conf(config.build()), self.calls.clone(), url))
    }
}

fn identity_cache() -> SharedIdentityCache {
    IdentityCache::lazy().load_timeout(CREDENTIALS_TIMEOUT).build()
}

async fn config(
    options: AwsOptions,
    roots: bool,
    proxy: Option<ProxyConfig>,
    used: &CredentialSource,
) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client(roots, proxy))
        .timeout_config(timeouts)
        .retry_config(RetryConfig::disabled())
        .identity_cache(identity_cache())
        // A long poll is a stalled stream by design; the time-outs above bound every call.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // All its characters are allowed in an application name.
        .app_name(AppName::new("ecs-mesh-operator").expect("a valid application name"));
    if let Some(region) = options.region {
        loader = loader.region(Region::new(region));
    }
    if let Some(url) = options.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    if let Some(credentials) = options.credentials {
        used.set(CredentialStep::Fixed);
        return loader.credentials_provider(credentials).load().await;
    }
    // The chain needs the Region that is loaded first.
    let config = loader.no_credentials().load().await;
    let chain = SharedCredentialsProvider::new(CredentialChain::of(&config, used.clone()));
    let mut builder = config.into_builder();
    builder.set_credentials_provider(Some(chain));
    builder.build()
}

/// The proxy for HTTPS. Plain HTTP, such as the endpoints of credentials, is never sent to a proxy.
fn proxy_config(proxy: &ProxyVariables) -> Result<ProxyConfig, ConnectError> {
    // The library accepts URLs that have no scheme of a proxy, and fails at the first call.
    let invalid = |reason| ConnectError::Proxy { address: proxy.address(), reason };
    if !proxy.https.starts_with("http://") && !proxy.https.starts_with("https://") {
        return Err(invalid("only HTTP proxies are supported"));
    }
    let config = ProxyConfig::https(proxy.https.as_str()).map_err(|_| invalid("it is not a URL"))?;
    Ok(config.no_proxy(&proxy.no_proxy))
}

/// The shared connection pool.
fn http_client(roots: bool, proxy: Option<ProxyConfig>) -> SharedHttpClient {
    // Without roots, the SDK's debug builds would panic when they load them.
    let trusted = if roots { TrustStore::default() } else { TrustStore::empty() };
    let context =
        TlsContext::builder().with_trust_store(trusted).build().expect("nothing in it can be wrong");
    let tls = Provider::Rustls(CryptoMode::Ring);
    let builder = aws_smithy_http_client::Builder::new();
    let Some(proxy) = proxy else { return builder.tls_provider(tls).tls_context(context).build_https() };
    builder.build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.proxy_config(proxy.clone()).tls_provider(tls.clone()).tls_context(context.clone()).build()
    })
}

/// Whether the system has a readable CA certificate.
fn has_roots() -> bool {
    let found = rustls_native_certs::load_native_certs().certs;
    rustls::RootCertStore::empty().add_parsable_certificates(found).0 > 0
}

/// The host of `http(s)://HOST[:PORT]/…/NAME`.
pub fn queue_host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let (authority, path) = rest.split_once('/')?;
    if authority.contains('@') {
        return None;
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    let host = authority.split(':').next().unwrap_or_default();
    (!host.is_empty() && !name.is_empty() && url.bytes().all(|b| b.is_ascii_graphic())).then_some(host)
}

/// The URL for an error message, without user and password.
fn without_userinfo(url: &str) -> String {
    let cut = |text: &str| text.chars().take(200).collect();
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => cut(&format!("{scheme}://***@{host}")),
        (None, Some((_, host))) => cut(&format!("***@{host}")),
        _ => cut(url),
    }
}

/// `eu-west-1` of `sqs.eu-west-1.amazonaws.com` (also `.cn`, and FIPS and dual-stack endpoints), or of the older
/// `eu-west-1.queue.amazonaws.com`.
pub fn region_of_queue_host(host: &str) -> Option<&str> {
    let suffixes = [".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn"];
    let name = suffixes.iter().find_map(|suffix| host.strip_suffix(suffix))?;
    let prefixes = ["sqs.", "sqs-fips."];
    let region = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix));
    let region = region.or_else(|| name.strip_suffix(".queue"))?;
    (!region.is_empty() && !region.contains('.')).then_some(region)
}
