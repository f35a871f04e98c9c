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
    /// The end of its recovery window, if it is scheduled for deletion.
    deleted: Option<Timestamp>,
}

impl StoredSecret {
    /// Whether it is scheduled for deletion.
    pub fn is_deleting(&self) -> bool {
        self.deleted.is_some()
    }

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
        if let Some(deleted) = self.deleted {
            shown["DeletedDate"] = json!(deleted.as_secs_f64());
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

fn invalid(message: &str) -> AwsApiError {
    AwsApiError::new("InvalidRequestException", message)
}

fn marked_for_deletion() -> AwsApiError {
    invalid("You can't perform this operation on the secret because it was marked for deletion.")
}

impl Cloud {
    /// All secrets by name.
    pub fn secrets(&self) -> impl Iterator<Item = &StoredSecret> {
        self.secrets.values()
    }

    /// Creates a secret. The name must be free.
    pub fn create_secret(&mut self, new: CreateSecret, now: Timestamp) -> AwsApiResult<&StoredSecret> {
        if self.secrets.get(&new.name).is_some_and(StoredSecret::is_deleting) {
            let message = "You can't create this secret because a secret with this name is already scheduled for deletion.";
            return Err(invalid(message));
        }
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
            deleted: None,
        };
        Ok(self.secrets.entry(name).or_insert(secret))
    }

    /// A secret by name or ARN.
    pub fn secret(&self, id: &str) -> AwsApiResult<&StoredSecret> {
        self.secrets.values().find(|secret| secret.name == id || secret.arn == id).ok_or_else(not_found)
    }

    /// The value of a secret, which one that is scheduled for deletion does not have.
    pub fn secret_value(&self, id: &str) -> AwsApiResult<&StoredSecret> {
        let secret = self.secret(id)?;
        if secret.is_deleting() { Err(marked_for_deletion()) } else { Ok(secret) }
    }

    fn secret_mut(&mut self, id: &str) -> AwsApiResult<&mut StoredSecret> {
        let mut secrets = self.secrets.values_mut();
        let secret = secrets.find(|secret| secret.name == id || secret.arn == id).ok_or_else(not_found)?;
        if secret.is_deleting() { Err(marked_for_deletion()) } else { Ok(secret) }
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

    /// Schedules the deletion of a secret for the end of its recovery window.
    pub fn schedule_secret_deletion(&mut self, id: &str, end: Timestamp) -> AwsApiResult<&StoredSecret> {
        let secret = self.secret_mut(id)?;
        secret.deleted = Some(end);
        Ok(secret)
    }

    /// Ends the schedule of a deletion.
    pub fn restore_secret(&mut self, id: &str) -> AwsApiResult<&StoredSecret> {
        let name = self.secret(id)?.name.clone();
        let secret = self.secrets.get_mut(&name).ok_or_else(not_found)?;
        secret.deleted = None;
        Ok(secret)
    }

    /// Deletes the secrets whose recovery window is over.
    pub fn purge_secrets(&mut self, now: Timestamp) {
        self.secrets.retain(|_, secret| secret.deleted.is_none_or(|end| now < end));
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
