//! Reads the text of a secret, or of one key of its JSON, as ECS does for a container's `secrets`.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use ecs_mesh_controller::{SecretError, SecretRequest, Secrets};
use ecs_mesh_model::SecretRef;

/// A secret without the text that the reference names. Never contains anything of the secret; a parser's error may, so
/// none is kept.
#[derive(Debug, thiserror::Error)]
pub enum SecretTextError {
    /// The secret cannot be read.
    #[error(transparent)]
    Read(#[from] SecretError),
    /// The reference names a key, and the text is no JSON object.
    #[error("reading the secret {arn}: its text is no JSON object, so it has no key {key:?}")]
    NotJson {
        /// The secret.
        arn: String,
        /// The key.
        key: String,
    },
    /// The JSON object lacks the key.
    #[error("reading the secret {arn}: its JSON object has no key {key:?}")]
    NoKey {
        /// The secret.
        arn: String,
        /// The key.
        key: String,
    },
    /// The key's value is neither text nor a number.
    #[error("reading the secret {arn}: expected text or a number under the key {key:?}, found {found}")]
    NotText {
        /// The secret.
        arn: String,
        /// The key.
        key: String,
        /// The kind of the value.
        found: &'static str,
    },
}

/// Reads the text that the reference names.
///
/// # Errors
/// The secret cannot be read, or lacks the text. No error contains anything of it.
pub async fn read_secret(secrets: &dyn Secrets, secret: &SecretRef) -> Result<String, SecretTextError> {
    let request = SecretRequest {
        arn: secret.arn(),
        version_stage: secret.version_stage(),
        version_id: secret.version_id(),
    };
    let text = secrets.read(request).await?;
    match secret.json_key() {
        Some(key) => value_of(&text, secret.arn(), key),
        None => Ok(text),
    }
}

/// The value of a key: text, or a number as it is written. ECS also renders other values, in ways of its language that are
/// no token and no CA.
fn value_of(text: &str, arn: &str, key: &str) -> Result<String, SecretTextError> {
    let (arn, key) = (arn.to_owned(), key.to_owned());
    let Ok(object) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text) else {
        return Err(SecretTextError::NotJson { arn, key });
    };
    let Some(value) = object.get(&key).map(|value| value.get()) else {
        return Err(SecretTextError::NoKey { arn, key });
    };
    let found = match value.as_bytes().first() {
        Some(b'"') => match serde_json::from_str(value) {
            Ok(text) => return Ok(text),
            // Half of a surrogate pair, for example.
            Err(_) => "text with an invalid escape",
        },
        Some(b'-' | b'0'..=b'9') => return Ok(value.to_owned()),
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b't' | b'f') => "true or false",
        _ => "null",
    };
    Err(SecretTextError::NotText { arn, key, found })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;

    const ARN: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:consul-a1B2c3";
    const ID: &str = "9d4cb84b-ad69-40c0-a0ab-cead36b967e8";

    /// Returns one text, and keeps the ARN, stage and id of the last request.
    struct OneSecret {
        text: &'static str,
        request: Mutex<[String; 3]>,
    }

    #[async_trait]
    impl Secrets for OneSecret {
        async fn read(&self, secret: SecretRequest<'_>) -> Result<String, SecretError> {
            let SecretRequest { arn, version_stage, version_id } = secret;
            *self.request.lock().unwrap() =
                [arn, version_stage.unwrap_or("none"), version_id.unwrap_or("none")].map(str::to_owned);
            Ok(self.text.to_owned())
        }
    }

    async fn read(suffix: &str, text: &'static str) -> (Result<String, SecretTextError>, [String; 3]) {
        let secrets = OneSecret { text, request: Mutex::default() };
        let secret = SecretRef::parse(&format!("{ARN}{suffix}")).unwrap();
        let read = read_secret(&secrets, &secret).await;
        (read, secrets.request.into_inner().unwrap())
    }

    #[tokio::test]
    async fn version_of_the_reference_is_requested() {
        for (suffix, stage, id) in [
            ("", "none", "none"),
            ("::AWSPREVIOUS:", "AWSPREVIOUS", "none"),
            (&format!(":::{ID}"), "none", ID),
        ] {
            let (text, request) = read(suffix, "t").await;
            assert_eq!((text.unwrap(), request), ("t".to_owned(), [ARN, stage, id].map(str::to_owned)));
        }
    }

    #[tokio::test]
    async fn value_of_a_json_key_is_text_or_a_number() {
        for (json, value) in [
            (r#"{"token": "a\nb\u00e4", "other": 1}"#, "a\nbä"),
            (r#"{"token": 12345678901234567890123}"#, "12345678901234567890123"),
            (r#" { "token" : -1.50 } "#, "-1.50"),
            (r#"{"token": "first", "token": "last"}"#, "last"),
        ] {
            assert_eq!(read(":token::", json).await.0.unwrap(), value);
        }
        // Without a key, JSON is a text as any other.
        assert_eq!(read("", r#"{"token": "t"}"#).await.0.unwrap(), r#"{"token": "t"}"#);
    }

    #[tokio::test]
    async fn secret_without_the_key_is_refused_without_its_content() {
        for (text, expected) in [
            ("hunter2", "no JSON object"),
            (r#""hunter2""#, "no JSON object"),
            (r#"["hunter2"]"#, "no JSON object"),
            (r#"{"token": "hunter2""#, "no JSON object"),
            (r#"{"hunter2": "hunter2"}"#, "no key \"token\""),
            (r#"{"token": {"hunter2": 1}}"#, "found an object"),
            (r#"{"token": ["hunter2"]}"#, "found a list"),
            (r#"{"token": true}"#, "found true or false"),
            (r#"{"token": null}"#, "found null"),
            (r#"{"token": "hunter2\ud800"}"#, "invalid escape"),
        ] {
            let error = read(":token::", text).await.0.unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(expected) && shown.contains(ARN), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(std::error::Error::source(&error).is_none());
        }
    }
}
