//! The AWS calls of [`crate::aws`] through the AWS SDK: one connection pool, one TLS stack, no retries here.
//!
//! A call ends within 5 seconds (a long poll within 25) and is tried once: the runtime decides when to try again, since
//! it knows what else waits. Credentials, Region and endpoint come from the SDK's default chain, so `AWS_PROFILE`,
//! `AWS_REGION`, `AWS_ENDPOINT_URL` and a task role work as everywhere.

mod call;
mod ecs;
mod error;
mod iam;
mod inspect;
mod queue;
mod secrets;
mod setup;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};

pub use aws_sdk_ecs::config::Credentials;
use aws_sdk_ecs::config::SharedHttpClient;

pub use call::AwsCallObserver;
pub use ecs::SdkEcs;
pub use iam::SdkIam;
pub use inspect::SdkInspect;
pub use queue::{QueueAttributes, SdkQueue};
pub use secrets::SdkSecrets;
pub use setup::{CallerIdentity, EventRule, EventTarget, SdkSetup};

use call::CallRunner;

/// AWS is near; a connection that takes longer than one lost SYN (3 s) does not come.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3_100);
/// From the first byte sent to the last received, for everything but a long poll.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than an attempt, so that credentials that do not come are reported as such and not as a time-out of AWS.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(4);

/// Where to find AWS, and who is told of the calls.
#[derive(Clone)]
pub struct AwsOptions {
    /// The Region; without it the default chain's.
    pub region: Option<String>,
    /// Another endpoint for all services; without it `AWS_ENDPOINT_URL`, else AWS.
    pub endpoint_url: Option<String>,
    /// Fixed credentials; without them the default chain's.
    pub credentials: Option<Credentials>,
    /// Is told of each call.
    pub observer: Arc<dyn AwsCallObserver>,
}

impl Default for AwsOptions {
    fn default() -> Self {
        Self { region: None, endpoint_url: None, credentials: None, observer: Arc::new(()) }
    }
}

/// Why there can be no clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Neither the options nor the chain have a Region.
    #[error(
        "no AWS Region was found; set AWS_REGION, or `region` in the AWS profile (in ECS and EC2 it comes by itself)"
    )]
    NoRegion,
    /// There is nothing to check the certificates of AWS by.
    #[error(
        "this system has no CA certificates, so no HTTPS endpoint of AWS can be trusted; install them (the package \
         ca-certificates), or name a file with them in SSL_CERT_FILE"
    )]
    NoRoots,
    /// The queue's URL is none.
    #[error(
        "{found:?} is not the URL of an SQS queue (without name and password): expected https://sqs.REGION.amazonaws.com/ACCOUNT/NAME; \
         `aws sqs get-queue-url --queue-name NAME` tells it"
    )]
    QueueUrl {
        /// What was given, cut to 200 characters, without name and password.
        found: String,
    },
}

/// The clients of one account and Region. Clones share one connection pool.
#[derive(Clone)]
pub struct AwsClients {
    /// ECS.
    pub ecs: SdkEcs,
    /// IAM.
    pub iam: SdkIam,
    /// What only an audit asks.
    pub inspect: SdkInspect,
    /// Secrets Manager.
    pub secrets: SdkSecrets,
    /// Reads of the set-up.
    pub setup: SdkSetup,
    /// SQS; [`Self::queue`] makes the queue from it.
    sqs: aws_sdk_sqs::Config,
    calls: CallRunner,
    region: String,
}

impl AwsClients {
    /// Makes the clients. Reads the environment and profile files; calls AWS only where the Region has to be asked of
    /// the EC2 instance. Credentials are fetched by the first call that needs them.
    pub async fn connect(options: AwsOptions) -> Result<Self, ConnectError> {
        let calls = CallRunner::new(Arc::clone(&options.observer));
        let roots = has_roots();
        let config = config(options, roots).await;
        let clear = config.endpoint_url().is_some_and(|url| url.starts_with("http://"));
        if !roots && !clear {
            return Err(ConnectError::NoRoots);
        }
        let region = config.region().ok_or(ConnectError::NoRegion)?.to_string();
        let (ecs, iam) = (aws_sdk_ecs::Client::new(&config), aws_sdk_iam::Client::new(&config));
        Ok(Self {
            inspect: SdkInspect::new(ecs.clone(), iam.clone(), calls.clone()),
            ecs: SdkEcs::new(ecs, calls.clone()),
            iam: SdkIam::new(iam, calls.clone()),
            sqs: aws_sdk_sqs::Config::new(&config),
            secrets: SdkSecrets::new(config.clone(), calls.clone()),
            setup: SdkSetup::new(config, calls.clone()),
            calls,
            region,
        })
    }

    /// The Region that was found.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The caller's account, once an answer of ECS or IAM has told it.
    pub fn account(&self) -> Option<&str> {
        self.calls.account()
    }

    /// The queue of this URL. Its Region is that of the URL, where the URL is one of AWS's, since a request to another
    /// Region's endpoint would find nothing.
    pub fn queue(&self, url: &str) -> Result<SdkQueue, ConnectError> {
        let host = queue_host(url).ok_or_else(|| ConnectError::QueueUrl { found: without_userinfo(url) })?;
        let mut config = self.sqs.to_builder();
        if let Some(region) = region_of_queue_host(host) {
            config.set_region(Some(Region::new(region.to_owned())));
        }
        Ok(SdkQueue::new(aws_sdk_sqs::Client::from_conf(config.build()), self.calls.clone(), url))
    }
}

async fn config(options: AwsOptions, roots: bool) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client(roots))
        .timeout_config(timeouts)
        .retry_config(RetryConfig::disabled())
        .identity_cache(IdentityCache::lazy().load_timeout(CREDENTIALS_TIMEOUT).build())
        // A long poll is a stalled stream by design; the time-outs above bound every call.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // Every character of it is allowed in an application's name.
        .app_name(AppName::new("ecs-mesh-operator").expect("a valid application name"));
    if let Some(region) = options.region {
        loader = loader.region(Region::new(region));
    }
    if let Some(url) = options.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    if let Some(credentials) = options.credentials {
        loader = loader.credentials_provider(credentials);
    }
    loader.load().await
}

/// The one connection pool, over the one TLS stack of the program.
fn http_client(roots: bool) -> SharedHttpClient {
    // Where there are none, the SDK's debug builds would panic in looking for them.
    let trusted = if roots { TrustStore::default() } else { TrustStore::empty() };
    aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(
            TlsContext::builder().with_trust_store(trusted).build().expect("nothing in it can be wrong"),
        )
        .build_https()
}

/// Whether the system has a CA certificate that can be read.
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

/// For an error: a password in a URL is nobody's business.
fn without_userinfo(url: &str) -> String {
    let cut = |text: &str| text.chars().take(200).collect();
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => cut(&format!("{scheme}://***@{host}")),
        (None, Some((_, host))) => cut(&format!("***@{host}")),
        _ => cut(url),
    }
}

/// `eu-west-1` of `sqs.eu-west-1.amazonaws.com` (also `.cn`), or of the older `eu-west-1.queue.amazonaws.com`.
pub fn region_of_queue_host(host: &str) -> Option<&str> {
    let name = host.strip_suffix(".cn").unwrap_or(host).strip_suffix(".amazonaws.com")?;
    let region = name.strip_prefix("sqs.").or_else(|| name.strip_suffix(".queue"))?;
    (!region.is_empty() && !region.contains('.')).then_some(region)
}
