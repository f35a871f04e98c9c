//! The SDK's default chain of credential sources, step by step, so that an error says which step failed.
//!
//! The SDK's own chain drops the name of the step, and goes on to the next one where `AWS_PROFILE` names a profile that does
//! not exist: a wrong name would end in the role of the machine.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_config::SdkConfig;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};

/// A source of credentials, in the order of the chain.
///
/// Source: <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialStep {
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    Environment,
    /// A profile of the configuration files; the name if `AWS_PROFILE` has it. It may lead to SSO, to a process, or to roles
    /// that are assumed one after the other.
    Profile(Option<String>),
    /// `AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_ROLE_ARN`.
    WebIdentity,
    /// The endpoint in `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` (the task role on ECS) or `…_FULL_URI`.
    Container,
    /// The instance profile of an EC2 instance.
    Instance,
    /// A role of another account, which these clients assume: its ARN.
    AssumedRole(String),
    /// Credentials that the caller gave.
    Fixed,
}

impl fmt::Display for CredentialStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("the environment (AWS_ACCESS_KEY_ID)"),
            Self::Profile(Some(name)) => write!(f, "the profile {name:?} (AWS_PROFILE)"),
            Self::Profile(None) => f.write_str("the default profile"),
            Self::WebIdentity => f.write_str("the web identity (AWS_WEB_IDENTITY_TOKEN_FILE)"),
            Self::Container => f.write_str("the container's credentials (the task role on ECS)"),
            Self::Instance => f.write_str("the EC2 instance's role"),
            Self::AssumedRole(role) => write!(f, "the assumed role {role}"),
            Self::Fixed => f.write_str("fixed credentials"),
        }
    }
}

impl CredentialStep {
    /// The next step where this source fails.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Environment => "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY both, or neither",
            Self::Profile(_) => {
                "; correct the profile that AWS_PROFILE names, in the files of AWS_CONFIG_FILE and \
                 AWS_SHARED_CREDENTIALS_FILE; for SSO, run `aws sso login`"
            }
            Self::WebIdentity => {
                "; check that the token file is readable and that the trust policy of AWS_ROLE_ARN admits its issuer"
            }
            Self::Container => {
                "; check the task role and its trust policy, or the container's credentials endpoint"
            }
            Self::Instance => "; give the task a task role, or the instance an instance profile",
            Self::AssumedRole(_) | Self::Fixed => "",
        }
    }
}

/// A step of the chain that is configured and failed.
#[derive(Debug, thiserror::Error)]
#[error("credentials of {step}")]
pub(super) struct FailedStep {
    pub(super) step: CredentialStep,
    source: CredentialsError,
}

/// No step of the chain is configured.
#[derive(Debug, thiserror::Error)]
#[error("no source of credentials is configured: {0}")]
pub(super) struct NoStep(String);

/// The step that has given credentials last. Shared by its clones.
#[derive(Clone, Debug, Default)]
pub(super) struct CredentialSource(Arc<Mutex<Option<CredentialStep>>>);

impl CredentialSource {
    pub(super) fn set(&self, step: CredentialStep) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
    }

    pub(super) fn get(&self) -> Option<CredentialStep> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The sources in their order.
#[derive(Debug)]
pub(super) struct CredentialChain {
    steps: Vec<(CredentialStep, Box<dyn ProvideCredentials>)>,
    used: CredentialSource,
}

impl CredentialChain {
    /// The SDK's default chain, for clients of this configuration. `used` shows the step that gives credentials.
    pub(super) fn of(config: &SdkConfig, used: CredentialSource) -> Self {
        let mut sources = ProviderConfig::default()
            .with_region(config.region().cloned())
            .with_use_fips(config.use_fips())
            .with_use_dual_stack(config.use_dual_stack());
        if let Some(client) = config.http_client() {
            sources = sources.with_http_client(client);
        }
        let profile = std::env::var("AWS_PROFILE").ok().filter(|name| !name.is_empty());
        let steps: Vec<(CredentialStep, Box<dyn ProvideCredentials>)> = vec![
            (CredentialStep::Environment, Box::new(EnvironmentVariableCredentialsProvider::new())),
            (
                CredentialStep::Profile(profile),
                Box::new(ProfileFileCredentialsProvider::builder().configure(&sources).build()),
            ),
            (
                CredentialStep::WebIdentity,
                Box::new(WebIdentityTokenCredentialsProvider::builder().configure(&sources).build()),
            ),
            (
                CredentialStep::Container,
                Box::new(EcsCredentialsProvider::builder().configure(&sources).build()),
            ),
            (
                CredentialStep::Instance,
                Box::new(ImdsCredentialsProvider::builder().configure(&sources).build()),
            ),
        ];
        Self { steps, used }
    }

    async fn first(&self) -> provider::Result {
        let mut attempts = Vec::new();
        for (step, source) in &self.steps {
            match source.provide_credentials().await {
                Ok(credentials) => {
                    self.used.set(step.clone());
                    return Ok(credentials);
                }
                // A profile that was asked for by its name is meant.
                Err(error @ CredentialsError::CredentialsNotLoaded(_))
                    if !matches!(step, CredentialStep::Profile(Some(_))) =>
                {
                    attempts.push(format!("{step}: {}", super::error::chain(&error)));
                }
                Err(source) => {
                    return Err(CredentialsError::provider_error(FailedStep { step: step.clone(), source }));
                }
            }
        }
        Err(CredentialsError::not_loaded(NoStep(attempts.join("; "))))
    }
}

impl ProvideCredentials for CredentialChain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.first())
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.steps.iter().find_map(|(_, source)| source.fallback_on_interrupt())
    }
}

#[cfg(test)]
mod tests {
    use aws_credential_types::credential_fn::provide_credentials_fn;
    use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};

    use super::super::error::chain;
    use super::*;

    /// A chain of one profile in this configuration file, and a role of the instance.
    fn of_profile(name: Option<&str>, config: &str) -> CredentialChain {
        let files = EnvConfigFiles::builder().with_contents(EnvConfigFileKind::Config, config).build();
        let sources =
            ProviderConfig::without_region().with_http_client(super::super::http_client(false, None));
        let mut profile = ProfileFileCredentialsProvider::builder().configure(&sources).profile_files(files);
        if let Some(name) = name {
            profile = profile.profile_name(name);
        }
        let instance = provide_credentials_fn(|| async {
            Ok(Credentials::new("AKIDTEST", "secret", None, None, "test"))
        });
        CredentialChain {
            steps: vec![
                (CredentialStep::Profile(name.map(str::to_owned)), Box::new(profile.build())),
                (CredentialStep::Instance, Box::new(instance)),
            ],
            used: CredentialSource::default(),
        }
    }

    #[tokio::test]
    async fn error_names_the_step_that_failed() {
        for (config, cause) in [
            ("[profile dev]\ncredential_process = exit 3\n", "exit status: 3"),
            ("[profile dev]\nrole_arn = arn:aws:iam::111122223333:role/a\nsource_profile = gone\n", "gone"),
            (
                "[profile dev]\nrole_arn = arn:aws:iam::111122223333:role/a\nsource_profile = empty\n[profile empty]\n",
                "empty",
            ),
            (
                "[profile dev]\nsso_session = corp\nsso_account_id = 111122223333\nsso_role_name = dev\n[sso-session corp]\n\
                 sso_region = eu-west-1\nsso_start_url = https://example.awsapps.com/start\n",
                "token",
            ),
            ("[profile other]\nregion = eu-west-1\n", "was not defined"),
        ] {
            let chain_of = of_profile(Some("dev"), config);
            let error = chain_of.provide_credentials().await.unwrap_err();
            let text = chain(&error);
            assert!(text.contains("credentials of the profile \"dev\" (AWS_PROFILE)"), "{text}");
            assert!(text.contains(cause), "{text}");
            assert_eq!(chain_of.used.get(), None);
        }
    }

    #[tokio::test]
    async fn next_step_gives_credentials_where_no_profile_is_named() {
        let chain = of_profile(None, "[profile other]\nregion = eu-west-1\n");
        assert_eq!(chain.provide_credentials().await.unwrap().access_key_id(), "AKIDTEST");
        assert_eq!(chain.used.get(), Some(CredentialStep::Instance));
    }

    #[tokio::test]
    async fn error_without_any_source_lists_all() {
        let mut chain_of = of_profile(None, "");
        chain_of.steps.truncate(1);
        let error = chain_of.provide_credentials().await.unwrap_err();
        let text = chain(&error);
        assert!(text.contains("no source of credentials is configured: the default profile"), "{text}");
    }
}
