//! Reads secrets from an external store at the time of use.

use async_trait::async_trait;

/// Reads secrets by ARN.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// Reads the current text of the secret. The implementation limits the call's time. The error is a message for a
    /// person and never contains the secret.
    async fn read(&self, arn: &str) -> Result<String, String>;
}

/// Rejects every read, for commands that run without AWS.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSecrets;

#[async_trait]
impl Secrets for NoSecrets {
    async fn read(&self, arn: &str) -> Result<String, String> {
        Err(format!("reading the secret {arn}: no AWS client is configured"))
    }
}
