//! Credentials of a role in another account. A failure names the role, and is not repeated at once by every call that waits
//! for credentials.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use tokio::time::{Instant, timeout};

use super::call::CallRunner;
use crate::aws::{AwsError, AwsErrorKind, MemberAccount};

/// The operation, as errors and metrics have it.
const ASSUME_ROLE: &str = "sts:AssumeRole";

/// Shorter than the time that the SDK waits for credentials, so that the error is of this call.
const TIMEOUT: Duration = Duration::from_millis(3_500);

/// How long a failure is the answer: a sweep and the events of an account need its credentials many times a second.
const FAILURE_TTL: Duration = Duration::from_secs(5);

/// Assumes a role with the credentials of the operator.
pub(super) struct AssumedCredentials {
    client: aws_sdk_sts::Client,
    calls: CallRunner,
    role: String,
    external_id: Option<String>,
    session: String,
    failed: Mutex<Option<(Instant, AwsError)>>,
}

impl AssumedCredentials {
    /// `own` are the settings of the operator's own clients. STS is asked in their Region: credentials are valid in all.
    pub(super) fn new(own: &SdkConfig, account: &MemberAccount, session: &str, calls: CallRunner) -> Self {
        Self {
            client: aws_sdk_sts::Client::new(own),
            calls,
            role: account.role.as_str().to_owned(),
            external_id: account.external_id.clone(),
            session: session.to_owned(),
            failed: Mutex::default(),
        }
    }

    async fn assume(&self) -> Result<Credentials, AwsError> {
        let call = self
            .client
            .assume_role()
            .role_arn(&self.role)
            .set_external_id(self.external_id.clone())
            .role_session_name(&self.session)
            .send();
        let call = Box::pin(self.calls.run(ASSUME_ROLE, &self.role, call));
        let answer =
            timeout(TIMEOUT, call).await.map_err(|_| self.failure("timeout", "no answer in time"))??;
        let found = answer.credentials().ok_or_else(|| self.failure("response", "no credentials in it"))?;
        let expiry = SystemTime::try_from(*found.expiration())
            .map_err(|_| self.failure("response", "an expiration that is no time"))?;
        Ok(Credentials::new(
            found.access_key_id(),
            found.secret_access_key(),
            Some(found.session_token().to_owned()),
            Some(expiry),
            "AssumedRole",
        ))
    }

    fn failure(&self, code: &str, message: &str) -> AwsError {
        AwsError {
            kind: AwsErrorKind::Unavailable,
            operation: ASSUME_ROLE,
            resource: self.role.clone(),
            code: code.to_owned(),
            message: message.to_owned(),
            hint: "; check the network's way to the Region's STS endpoint",
        }
    }

    fn recent_failure(&self) -> Option<AwsError> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().filter(|(at, _)| at.elapsed() < FAILURE_TTL).map(|(_, error)| error.clone())
    }

    async fn provide(&self) -> provider::Result {
        if let Some(error) = self.recent_failure() {
            return Err(CredentialsError::provider_error(error));
        }
        self.assume().await.map_err(|mut error| {
            // That a role does not exist must not look as if what is read with it does not.
            if error.kind == AwsErrorKind::NotFound || error.kind == AwsErrorKind::Invalid {
                error.kind = AwsErrorKind::Credentials;
            }
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            *failed = Some((Instant::now(), error.clone()));
            CredentialsError::provider_error(error)
        })
    }
}

/// Names the role alone.
impl fmt::Debug for AssumedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssumedCredentials").field("role", &self.role).finish_non_exhaustive()
    }
}

impl ProvideCredentials for AssumedCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.provide())
    }
}
