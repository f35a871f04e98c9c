//! SSM Parameter Store: parameters with a value, tags and a key.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Cloud;
use crate::aws::{AwsApiError, AwsApiResult};
use ecs_mesh_model::Timestamp;

/// A parameter.
#[derive(Clone, Debug, Default)]
pub struct StoredParameter {
    /// The name.
    pub name: String,
    /// `String` or `SecureString`.
    pub kind: String,
    /// The value.
    pub value: String,
    /// The KMS key, if one was given.
    pub kms_key: Option<String>,
    /// The tags.
    pub tags: BTreeMap<String, String>,
    /// The number of the version, from 1.
    pub version: u64,
    /// The time of the last change.
    pub changed: Timestamp,
}

impl StoredParameter {
    /// The parameter as DescribeParameters shows it, without its value.
    pub fn to_api_json(&self, account: &str) -> Value {
        let mut shown = self.summary_json();
        shown["Tier"] = json!("Standard");
        shown["LastModifiedUser"] = json!(format!("arn:aws:iam::{account}:root"));
        if self.kind == "SecureString" {
            shown["KeyId"] = json!(self.kms_key.as_deref().unwrap_or("alias/aws/ssm"));
        }
        shown
    }

    /// The parameter as GetParameter shows it, without ARN and value.
    pub fn summary_json(&self) -> Value {
        json!({
            "Name": self.name, "Type": self.kind, "Version": self.version, "DataType": "text",
            "LastModifiedDate": self.changed.as_secs_f64(),
        })
    }
}

/// A parameter to store.
#[derive(Clone, Debug)]
pub struct PutParameter {
    /// The parameter. Its version is not read.
    pub parameter: StoredParameter,
    /// Whether an existing one is replaced, which keeps its tags.
    pub overwrite: bool,
}

impl Cloud {
    /// All parameters by name.
    pub fn parameters(&self) -> impl Iterator<Item = &StoredParameter> {
        self.parameters.values()
    }

    /// Stores a parameter and returns its version.
    pub fn put_parameter(&mut self, put: PutParameter) -> AwsApiResult<u64> {
        let PutParameter { parameter: mut new, overwrite } = put;
        if overwrite && !new.tags.is_empty() {
            let message = "tags and overwrite can't be used together";
            return Err(AwsApiError::new("ValidationException", message));
        }
        let existing = self.parameters.get(&new.name);
        if existing.is_some() && !overwrite {
            let message = "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.";
            return Err(AwsApiError::new("ParameterAlreadyExists", message));
        }
        if let Some(existing) = existing {
            new.tags = existing.tags.clone();
            new.version = existing.version;
        }
        new.version += 1;
        let version = new.version;
        self.parameters.insert(new.name.clone(), new);
        Ok(version)
    }

    /// A parameter by name.
    pub fn parameter(&self, name: &str) -> AwsApiResult<&StoredParameter> {
        self.parameters
            .get(name)
            .ok_or_else(|| AwsApiError::new("ParameterNotFound", format!("Parameter {name} not found.")))
    }

    /// The parameter that a call about tags names.
    pub fn tagged_parameter(&mut self, name: &str) -> AwsApiResult<&mut StoredParameter> {
        let message = format!("The resource ID {name:?} is not valid. Verify the ID and try again.");
        self.parameters.get_mut(name).ok_or_else(|| AwsApiError::new("InvalidResourceId", message))
    }

    /// Deletes a parameter.
    pub fn delete_parameter(&mut self, name: &str) -> AwsApiResult<()> {
        self.parameter(name)?;
        self.parameters.remove(name);
        Ok(())
    }
}
