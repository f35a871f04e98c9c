//! Signed calls without a generated client, by the SDK's own orchestrator, signer and connection pool: for services of
//! whose many operations few are needed.

use aws_config::{Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4AuthScheme};
use aws_runtime::auth::{SigV4OperationSigningConfig, SigningOptions};
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime::client::orchestrator::operation::{Operation, OperationBuilder};
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::auth::{AuthSchemeOptionResolverParams, SharedAuthSchemeOptionResolver};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SigningName;
use aws_types::region::SigningRegion;
use aws_types::service_config::ServiceConfigKey;

/// A service without a generated client here.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignedService {
    /// The id in environment variables and profiles: `AWS_ENDPOINT_URL_EC2`.
    pub(super) id: &'static str,
    /// The name in signatures and endpoints.
    pub(super) name: &'static str,
}

/// An operation that lacks its serializer and deserializer; `None` without Region, credentials provider or HTTP client.
pub(super) fn builder(
    config: &SdkConfig,
    service: SignedService,
    operation: &'static str,
) -> Option<OperationBuilder> {
    let region = config.region()?.clone();
    let url = endpoint(config, service, &region);
    builder_at(config, service, OperationEndpoint { region, url }, SigningOptions::default(), operation)
}

/// Where an operation is sent, and the Region that its signatures name.
pub(super) struct OperationEndpoint {
    pub(super) region: Region,
    pub(super) url: String,
}

/// As [`builder()`], with this endpoint and these options of signatures.
pub(super) fn builder_at(
    config: &SdkConfig,
    service: SignedService,
    endpoint: OperationEndpoint,
    options: SigningOptions,
    operation: &'static str,
) -> Option<OperationBuilder> {
    let OperationEndpoint { region, url } = endpoint;
    let builder = Operation::builder()
        .service_name(service.name)
        .operation_name(operation)
        .http_client(config.http_client()?)
        .endpoint_url(&url)
        .no_retry()
        .timeout_config(config.timeout_config().cloned().unwrap_or_else(TimeoutConfig::disabled))
        .runtime_plugin(signing(service, options, config.credentials_provider()?, config, region));
    let builder = match config.sleep_impl() {
        Some(sleep) => builder.sleep_impl(sleep),
        None => builder,
    };
    let builder = match config.stalled_stream_protection() {
        Some(protection) => builder.stalled_stream_protection(protection),
        None => builder,
    };
    Some(builder)
}

fn signing(
    service: SignedService,
    options: SigningOptions,
    credentials: SharedCredentialsProvider,
    config: &SdkConfig,
    region: Region,
) -> StaticRuntimePlugin {
    let mut layer = Layer::new("signing");
    layer.store_put(AuthSchemeOptionResolverParams::new(()));
    layer.store_put(SigV4OperationSigningConfig {
        region: Some(SigningRegion::from(region)),
        region_set: None,
        name: Some(SigningName::from_static(service.name)),
        signing_options: options,
    });
    let resolver = StaticAuthSchemeOptionResolver::new(vec![SCHEME_ID]);
    let mut components = RuntimeComponentsBuilder::new("signing")
        .with_auth_scheme_option_resolver(Some(SharedAuthSchemeOptionResolver::new(resolver)))
        .with_auth_scheme(SigV4AuthScheme::new())
        .with_identity_resolver(SCHEME_ID, credentials);
    match config.identity_cache() {
        Some(cache) => components.set_identity_cache(Some(cache)),
        None => components.set_identity_cache(Some(IdentityCache::lazy().build())),
    };
    components.set_time_source(config.time_source());
    StaticRuntimePlugin::new().with_config(layer.freeze()).with_runtime_components(components)
}

/// The endpoint: that of [`AwsOptions`](super::AwsOptions), `AWS_ENDPOINT_URL_SERVICE`, `AWS_ENDPOINT_URL`, or that of the
/// Region. Generated clients have the same order.
///
/// Sources: <https://docs.aws.amazon.com/general/latest/gr/ec2-service.html>,
/// <https://docs.aws.amazon.com/general/latest/gr/ssm.html>.
fn endpoint(config: &SdkConfig, service: SignedService, region: &Region) -> String {
    if let Some(url) = configured_endpoint(config, service) {
        return url;
    }
    let (fips, dual_stack) = (config.use_fips() == Some(true), config.use_dual_stack() == Some(true));
    regional_endpoint(service.name, region.as_ref(), fips, dual_stack)
}

/// The endpoint of the options, the environment or the profile.
pub(super) fn configured_endpoint(config: &SdkConfig, service: SignedService) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id(service.id)
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok();
    let is_in_code = config.get_origin("endpoint_url").is_client_config();
    let of_service = key.filter(|_| !is_in_code).and_then(|key| config.service_config()?.load_config(key));
    of_service.or_else(|| config.endpoint_url().map(str::to_owned))
}

/// The DNS suffixes of partitions by the prefix of their Regions: of the default endpoints, and of dual-stack ones.
///
/// Source: <https://docs.aws.amazon.com/general/latest/gr/rande.html>, and the partitions of AWS's SDKs.
const SUFFIXES: [(&str, &str, &str); 6] = [
    ("cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    ("eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    ("us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
    ("eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    ("us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
];

/// The DNS suffixes of the Region's partition: of the default endpoints, and of dual-stack ones.
fn suffixes(region: &str) -> (&'static str, &'static str) {
    let partition = SUFFIXES.iter().find(|(prefix, ..)| region.starts_with(prefix));
    partition.map_or(("amazonaws.com", "api.aws"), |(_, one, two)| (*one, *two))
}

/// The host of S3 in a Region, whose names differ from those of other services.
///
/// Source: <https://docs.aws.amazon.com/general/latest/gr/s3.html>.
pub(super) fn s3_host(config: &SdkConfig, region: &str) -> String {
    let fips = if config.use_fips() == Some(true) { "-fips" } else { "" };
    let dual_stack = if config.use_dual_stack() == Some(true) { ".dualstack" } else { "" };
    format!("s3{fips}{dual_stack}.{region}.{}", suffixes(region).0)
}

fn regional_endpoint(service: &str, region: &str, fips: bool, dual_stack: bool) -> String {
    let (default, of_dual_stack) = suffixes(region);
    // In GovCloud every endpoint is a FIPS endpoint.
    let fips = if fips && !region.starts_with("us-gov-") { "-fips" } else { "" };
    format!("https://{service}{fips}.{region}.{}", if dual_stack { of_dual_stack } else { default })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_types::origin::Origin;
    use aws_types::service_config::LoadServiceConfig;

    const EC2: SignedService = SignedService { id: "EC2", name: "ec2" };

    #[test]
    fn endpoint_follows_region_and_options() {
        for (region, fips, dual_stack, expected) in [
            ("eu-west-1", false, false, "https://ec2.eu-west-1.amazonaws.com"),
            ("us-east-1", true, false, "https://ec2-fips.us-east-1.amazonaws.com"),
            ("us-gov-west-1", true, false, "https://ec2.us-gov-west-1.amazonaws.com"),
            ("eu-west-1", false, true, "https://ec2.eu-west-1.api.aws"),
            ("cn-north-1", false, false, "https://ec2.cn-north-1.amazonaws.com.cn"),
            ("cn-north-1", false, true, "https://ec2.cn-north-1.api.amazonwebservices.com.cn"),
            ("eusc-de-east-1", false, false, "https://ec2.eusc-de-east-1.amazonaws.eu"),
            ("us-iso-east-1", false, false, "https://ec2.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", false, true, "https://ec2.us-isob-east-1.api.aws.scloud"),
            ("eu-isoe-west-1", false, false, "https://ec2.eu-isoe-west-1.cloud.adc-e.uk"),
            ("us-isof-south-1", true, false, "https://ec2-fips.us-isof-south-1.csp.hci.ic.gov"),
        ] {
            assert_eq!(regional_endpoint("ec2", region, fips, dual_stack), expected);
        }
    }

    /// Settings of the service, as the environment and the profile give them.
    #[derive(Debug)]
    struct ServiceEndpoint;

    impl LoadServiceConfig for ServiceEndpoint {
        fn load_config(&self, _: ServiceConfigKey<'_>) -> Option<String> {
            Some("http://service".to_owned())
        }
    }

    #[test]
    fn endpoint_in_code_comes_before_those_of_the_environment() {
        let region = Region::new("eu-west-1");
        for (origin, expected) in [
            (Origin::shared_config(), "http://all"),
            (Origin::shared_environment_variable(), "http://service"),
        ] {
            let mut config = SdkConfig::builder();
            config.set_endpoint_url(Some("http://all".to_owned()));
            config.set_service_config(Some(ServiceEndpoint));
            config.insert_origin("endpoint_url", origin);
            assert_eq!(endpoint(&config.build(), EC2, &region), expected);
        }
    }
}
