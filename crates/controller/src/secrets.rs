//! Secrets that are kept elsewhere, and read when they are needed.

use async_trait::async_trait;

/// Reads secrets by ARN.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The secret's text as it is now. The call has a time limit of its own. The error is for a person, and never
    /// quotes the secret.
    async fn read(&self, arn: &str) -> Result<String, String>;
}

/// Has no secrets: where AWS is not asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSecrets;

#[async_trait]
impl Secrets for NoSecrets {
    async fn read(&self, arn: &str) -> Result<String, String> {
        Err(format!("the secret {arn} is not read here: no AWS client is set up"))
    }
}
