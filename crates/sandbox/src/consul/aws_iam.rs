//! The configuration of an `aws-iam` auth method.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::bexpr::{FieldShape, SelectableFields};

/// Fields for selectors of binding rules.
pub(super) const SELECTABLE: SelectableFields = SelectableFields(&[
    ("entity_name", FieldShape::Text),
    ("entity_id", FieldShape::Text),
    ("account_id", FieldShape::Text),
    ("entity_path", FieldShape::Text),
    ("entity_tags", FieldShape::TextMap),
]);

/// The parsed configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AwsIam {
    bound: Vec<String>,
    /// Whether logins also read the role with its path and tags.
    pub(super) with_entity: bool,
    pub(super) tags: Vec<String>,
    pub(super) server_id: String,
    pub(super) sts_endpoint: String,
    pub(super) iam_endpoint: String,
    pub(super) allowed_headers: Vec<String>,
}

impl AwsIam {
    /// Parses the configuration. As on a real server, a single text counts as a list.
    pub(super) fn read(config: &Map<String, Value>) -> Result<Self, String> {
        let (mut read, mut keys) = (Self::default(), BTreeSet::new());
        for (key, value) in config {
            let plain = key.to_ascii_lowercase();
            if !keys.insert(plain.clone()) {
                return Err(format!("Config.{key} is given twice, in different case"));
            }
            match plain.as_str() {
                "boundiamprincipalarns" => read.bound = texts(key, value)?,
                "enableiamentitydetails" => read.with_entity = boolean(key, value)?,
                "iamentitytags" => read.tags = texts(key, value)?,
                "serveridheadervalue" => read.server_id = text(key, value)?,
                "stsendpoint" => read.sts_endpoint = text(key, value)?,
                "iamendpoint" => read.iam_endpoint = text(key, value)?,
                "allowedstsheadervalues" => read.allowed_headers = texts(key, value)?,
                "maxretries" if value.is_i64() || value.is_null() => {}
                "maxretries" => return Err(format!("Config.{key} is not an integer")),
                _ => return Err(format!("Config.{key} is not known")),
            }
        }
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<(), String> {
        if self.bound.is_empty() {
            return Err("Config.BoundIAMPrincipalARNs needs at least one ARN".to_owned());
        }
        for arn in &self.bound {
            let stars = arn.matches('*').count();
            if stars > 0 && !self.with_entity {
                return Err(format!("{arn:?}: wildcards need Config.EnableIAMEntityDetails"));
            }
            if stars > 1 || (stars == 1 && !arn.ends_with('*')) {
                return Err(format!("{arn:?}: the one wildcard that is allowed stands at the end"));
            }
            let parts: Vec<&str> = arn.splitn(6, ':').collect();
            if parts.len() != 6 || parts[0] != "arn" || !matches!(parts[2], "iam" | "sts") {
                return Err(format!("{arn:?} is not an ARN of IAM or STS"));
            }
        }
        if !self.tags.is_empty() && !self.with_entity {
            return Err("Config.IAMEntityTags needs Config.EnableIAMEntityDetails".to_owned());
        }
        for (key, url) in [("STSEndpoint", &self.sts_endpoint), ("IAMEndpoint", &self.iam_endpoint)] {
            if !url.is_empty() && !is_url(url) {
                return Err(format!("Config.{key} is {url:?}, which is not a URL"));
            }
        }
        Ok(())
    }

    /// Whether the principal is bound.
    pub(super) fn trusts(&self, arn: &str) -> bool {
        self.bound.iter().any(|bound| match bound.strip_suffix('*') {
            Some(prefix) if self.with_entity => arn.starts_with(prefix),
            _ => bound == arn,
        })
    }

    /// Variables for names of binding rules.
    pub(super) fn variables(&self) -> Vec<String> {
        let mut names = ["entity_name", "entity_id", "account_id"].map(str::to_owned).to_vec();
        if self.with_entity {
            names.push("entity_path".to_owned());
            names.extend(self.tags.iter().map(|tag| format!("entity_tags.{tag}")));
        }
        names
    }
}

pub(super) fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.split(['/', '?']).next().unwrap_or_default().is_empty()
    })
}

fn texts(key: &str, value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items.iter().map(|item| text(key, item)).collect(),
        one => Ok(vec![text(key, one)?]),
    }
}

fn text(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(format!("Config.{key} is not text")),
    }
}

fn boolean(key: &str, value: &Value) -> Result<bool, String> {
    match value {
        Value::Null => Ok(false),
        Value::Bool(value) => Ok(*value),
        Value::Number(number) => Ok(number.as_f64() != Some(0.0)),
        Value::String(text) => match text.as_str() {
            "" | "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
            _ => Err(format!("Config.{key} is neither true nor false")),
        },
        _ => Err(format!("Config.{key} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: &Value) -> Result<AwsIam, String> {
        AwsIam::read(config.as_object().unwrap())
    }

    #[test]
    fn wildcard_trusts_the_whole_path_below_it() {
        let config =
            json!({"BoundIAMPrincipalARNs": "arn:aws:iam::1:role/a/*", "EnableIAMEntityDetails": true});
        let method = read(&config).unwrap();
        assert!(method.trusts("arn:aws:iam::1:role/a/b/c"));
        assert!(!method.trusts("arn:aws:iam::1:role/b"));
        assert!(!method.trusts("arn:aws:iam::2:role/a/b"));
    }

    #[test]
    fn configuration_keys_ignore_case() {
        let config = json!({"boundiamPRINCIPALarns": ["arn:aws:iam::1:role/a"]});
        assert!(read(&config).unwrap().trusts("arn:aws:iam::1:role/a"));
    }

    #[test]
    fn invalid_configuration_is_rejected() {
        let bound = "arn:aws:iam::1:role/x";
        for wrong in [
            json!({}),
            json!({"BoundIAMPrincipalARNs": ["arn:aws:iam::1:role/*"]}),
            json!({"BoundIAMPrincipalARNs": ["arn:aws:iam::1:role/*/x"], "EnableIAMEntityDetails": true}),
            json!({"BoundIAMPrincipalARNs": ["arn:aws:ecs::1:role/x"]}),
            json!({"BoundIAMPrincipalARNs": [bound], "IAMEntityTags": ["a"]}),
            json!({"BoundIAMPrincipalARNs": [bound], "Bogus": 1}),
            json!({"BoundIAMPrincipalARNs": [bound], "IAMEndpoint": "nohost"}),
            json!({"BoundIAMPrincipalARNs": [bound], "boundIamPrincipalArns": [bound]}),
        ] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }
}
