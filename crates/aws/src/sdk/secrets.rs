//! Secrets Manager with the SDK: reads a secret's text from the Region of its ARN. No error contains the text.

use async_trait::async_trait;
use aws_config::{Region, SdkConfig};

use super::call::CallRunner;
use ecs_mesh_controller::{SecretError, SecretRequest, Secrets};

const GET_SECRET_VALUE: &str = "secretsmanager:GetSecretValue";

/// Secrets Manager of one account.
#[derive(Clone)]
pub struct SdkSecrets {
    config: SdkConfig,
    calls: CallRunner,
}

impl SdkSecrets {
    pub(super) fn new(config: SdkConfig, calls: CallRunner) -> Self {
        Self { config, calls }
    }
}

#[async_trait]
impl Secrets for SdkSecrets {
    async fn read(&self, secret: SecretRequest<'_>) -> Result<String, SecretError> {
        let SecretRequest { arn, version_stage, version_id } = secret;
        let mut config = aws_sdk_secretsmanager::Config::new(&self.config).to_builder();
        if let Some(region) = arn.split(':').nth(3).filter(|region| !region.is_empty()) {
            config.set_region(Some(Region::new(region.to_owned())));
        }
        let client = aws_sdk_secretsmanager::Client::from_conf(config.build());
        let call = client
            .get_secret_value()
            .secret_id(arn)
            .set_version_stage(version_stage.map(str::to_owned))
            .set_version_id(version_id.map(str::to_owned));
        let answer = Box::pin(self.calls.run(GET_SECRET_VALUE, arn, call.send()))
            .await
            .map_err(|error| SecretError::Call(error.into()))?;
        answer.secret_string.ok_or_else(|| SecretError::NoText { arn: arn.to_owned() })
    }
}
