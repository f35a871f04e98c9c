//! Secrets Manager: secrets with text, tags and a key.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Cloud;
use crate::aws::{AwsApiError, AwsApiResult};
use ecs_mesh_model::Timestamp;

/// A secret.
#[derive(Clone, Debug)]
pub struct StoredSecret {
    /// The ARN, which ends in six characters that a policy cannot foresee.
    pub arn: String,
    /// The name.
    pub name: String,
    /// The text of the current version.
    pub text: String,
    /// The KMS key, if one was given.
    pub kms_key: Option<String>,
    /// The tags.
    pub tags: BTreeMap<String, String>,
    version: u64,
    created: Timestamp,
    changed: Timestamp,
}

impl StoredSecret {
    fn version_id(&self) -> String {
        format!("00000000-0000-4000-8000-{:012}", self.version)
    }

    /// The secret as DescribeSecret shows it.
    pub fn to_api_json(&self) -> Value {
        let mut shown = self.summary_json();
        shown["VersionIdsToStages"] = json!({self.version_id(): ["AWSCURRENT"]});
        shown
    }

    /// The secret as ListSecrets shows it.
    pub fn to_list_json(&self) -> Value {
        let mut shown = self.summary_json();
        shown["SecretVersionsToStages"] = json!({self.version_id(): ["AWSCURRENT"]});
        shown
    }

    fn summary_json(&self) -> Value {
        let tags = self.tags.iter().map(|(key, value)| json!({"Key": key, "Value": value}));
        let mut shown = json!({
            "ARN": self.arn, "Name": self.name, "CreatedDate": self.created.as_secs_f64(),
            "LastChangedDate": self.changed.as_secs_f64(), "Tags": tags.collect::<Vec<_>>(),
        });
        if let Some(key) = &self.kms_key {
            shown["KmsKeyId"] = json!(key);
        }
        shown
    }

    /// The secret as GetSecretValue shows it.
    pub fn value_json(&self) -> Value {
        let mut shown = self.version_json();
        shown["SecretString"] = json!(self.text);
        shown["VersionStages"] = json!(["AWSCURRENT"]);
        shown["CreatedDate"] = json!(self.changed.as_secs_f64());
        shown
    }

    /// The answer to a call that names a version.
    pub fn version_json(&self) -> Value {
        json!({"ARN": self.arn, "Name": self.name, "VersionId": self.version_id()})
    }
}

/// A new secret.
#[derive(Clone, Debug)]
pub struct CreateSecret {
    /// The name.
    pub name: String,
    /// The text.
    pub text: String,
    /// The KMS key.
    pub kms_key: Option<String>,
    /// The tags.
    pub tags: BTreeMap<String, String>,
}

fn not_found() -> AwsApiError {
    AwsApiError::new("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
}

impl Cloud {
    /// All secrets by name.
    pub fn secrets(&self) -> impl Iterator<Item = &StoredSecret> {
        self.secrets.values()
    }

    /// Creates a secret. The name must be free.
    pub fn create_secret(&mut self, new: CreateSecret, now: Timestamp) -> AwsApiResult<&StoredSecret> {
        if self.secrets.contains_key(&new.name) {
            let message = format!("the operation failed because the secret {} already exists", new.name);
            return Err(AwsApiError::new("ResourceExistsException", message));
        }
        let CreateSecret { name, text, kms_key, tags } = new;
        let arn = format!(
            "arn:aws:secretsmanager:{}:{}:secret:{name}-{}",
            self.config.region,
            self.config.account,
            suffix(&name)
        );
        let secret = StoredSecret {
            arn,
            name: name.clone(),
            text,
            kms_key,
            tags,
            version: 1,
            created: now,
            changed: now,
        };
        Ok(self.secrets.entry(name).or_insert(secret))
    }

    /// A secret by name or ARN.
    pub fn secret(&self, id: &str) -> AwsApiResult<&StoredSecret> {
        self.secrets.values().find(|secret| secret.name == id || secret.arn == id).ok_or_else(not_found)
    }

    fn secret_mut(&mut self, id: &str) -> AwsApiResult<&mut StoredSecret> {
        self.secrets.values_mut().find(|secret| secret.name == id || secret.arn == id).ok_or_else(not_found)
    }

    /// Stores another text.
    pub fn put_secret_value(&mut self, id: &str, text: &str, now: Timestamp) -> AwsApiResult<&StoredSecret> {
        let secret = self.secret_mut(id)?;
        text.clone_into(&mut secret.text);
        secret.version += 1;
        secret.changed = now;
        Ok(secret)
    }

    /// Adds or changes tags.
    pub fn tag_secret(&mut self, id: &str, tags: BTreeMap<String, String>) -> AwsApiResult<()> {
        self.secret_mut(id)?.tags.extend(tags);
        Ok(())
    }

    /// Deletes a secret at once. One that does not exist is an error, except where the deletion is forced.
    pub fn delete_secret(&mut self, id: &str) -> AwsApiResult<StoredSecret> {
        let name = self.secret(id)?.name.clone();
        self.secrets.remove(&name).ok_or_else(not_found)
    }
}

/// Six characters that depend on the name.
fn suffix(name: &str) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(name.as_bytes()).iter().take(3) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
