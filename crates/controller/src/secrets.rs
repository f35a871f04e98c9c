//! Reads secrets from an external store at the time of use.

use std::error::Error;

use async_trait::async_trait;

/// A secret that cannot be read. Never contains the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The call failed.
    #[error(transparent)]
    Call(Box<dyn Error + Send + Sync>),
    /// The secret has bytes and no text.
    #[error("the secret {arn} has no text (SecretString)")]
    NoText {
        /// The secret's ARN.
        arn: String,
    },
    /// This process reads no secrets.
    #[error("reading the secret {arn}: no AWS client is configured")]
    NoClient {
        /// The secret's ARN.
        arn: String,
    },
}

/// The secret to read. With neither stage nor id, its current version is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretRequest<'a> {
    /// The secret's ARN.
    pub arn: &'a str,
    /// The staging label of the version.
    pub version_stage: Option<&'a str>,
    /// The id of the version.
    pub version_id: Option<&'a str>,
}

/// Reads secrets by ARN.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// Reads the text of the secret. The implementation limits the call's time.
    async fn read(&self, secret: SecretRequest<'_>) -> Result<String, SecretError>;
}

/// Rejects every read, for commands that run without AWS.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSecrets;

#[async_trait]
impl Secrets for NoSecrets {
    async fn read(&self, secret: SecretRequest<'_>) -> Result<String, SecretError> {
        Err(SecretError::NoClient { arn: secret.arn.to_owned() })
    }
}
