//! References to secrets of Secrets Manager, in the syntax of ECS container definitions.
//!
//! Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html>.

use std::fmt;

use serde::{Deserialize, Serialize};

// Lengths of parameters of GetSecretValue. Source:
// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>.
const MAX_ARN_LEN: usize = 2048;
const MAX_STAGE_LEN: usize = 256;
const MIN_ID_LEN: usize = 32;
const MAX_ID_LEN: usize = 64;

/// A text that is no reference to a secret. Never contains the text, which may be the secret itself by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretRefError {
    /// The text is no ARN of a secret.
    #[error(
        "is not the ARN of a Secrets Manager secret: write arn:PARTITION:secretsmanager:REGION:ACCOUNT:secret:NAME"
    )]
    Arn,
    /// Another number of parts than none or three follows the ARN.
    #[error(
        "needs none or all three parts of :json-key:version-stage:version-id after the ARN, each of which may be \
         empty; found {0}"
    )]
    Parts(usize),
    /// A part contains characters that cannot be printed.
    #[error("has a control character after the secret's ARN: remove it")]
    Characters,
    /// Both a staging label and an id of a version are given, which ECS refuses.
    #[error("names both a version stage and a version id: keep one of them")]
    StageAndId,
    /// The staging label is too long.
    #[error("has a version stage of {0} characters: write at most {MAX_STAGE_LEN}")]
    StageLength(usize),
    /// The id of the version is too short or too long.
    #[error("has a version id of {0} characters: write {MIN_ID_LEN} to {MAX_ID_LEN}")]
    IdLength(usize),
}

/// A secret of Secrets Manager, or the value of one key of its JSON text: `ARN`, or
/// `ARN:json-key:version-stage:version-id`, where each of the three parts may be empty.
///
/// ```
/// use ecs_mesh_model::SecretRef;
///
/// let arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:consul-a1B2c3";
/// let token = SecretRef::parse(&format!("{arn}:token::"))?;
/// assert_eq!((token.arn(), token.json_key(), token.version_stage()), (arn, Some("token"), None));
/// # Ok::<(), ecs_mesh_model::SecretRefError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretRef(
    /// The ARN alone, or with all three parts, of which one at least is not empty.
    String,
);

/// The number of parts of the ARN itself.
const ARN_PARTS: usize = 7;

impl SecretRef {
    /// Reads a reference.
    ///
    /// # Errors
    /// Says what is wrong and what is allowed, without the text.
    pub fn parse(text: &str) -> Result<Self, SecretRefError> {
        let parts: Vec<&str> = text.split(':').collect();
        let Some((["arn", partition, "secretsmanager", region, account, "secret", name], suffix)) =
            parts.split_first_chunk::<ARN_PARTS>()
        else {
            return Err(SecretRefError::Arn);
        };
        let arn = parts[..ARN_PARTS].join(":");
        let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        if !(is_place(partition) && is_place(region) && is_account && is_name(name))
            || arn.len() > MAX_ARN_LEN
        {
            return Err(SecretRefError::Arn);
        }
        let (version_stage, version_id) = match suffix {
            [] => return Ok(Self(arn)),
            [_, stage, id] => (*stage, *id),
            other => return Err(SecretRefError::Parts(other.len())),
        };
        if suffix.iter().any(|part| part.contains(char::is_control)) {
            return Err(SecretRefError::Characters);
        }
        let characters = version_stage.chars().count();
        if characters > MAX_STAGE_LEN {
            return Err(SecretRefError::StageLength(characters));
        }
        if !version_stage.is_empty() && !version_id.is_empty() {
            return Err(SecretRefError::StageAndId);
        }
        let characters = version_id.chars().count();
        if characters > 0 && !(MIN_ID_LEN..=MAX_ID_LEN).contains(&characters) {
            return Err(SecretRefError::IdLength(characters));
        }
        Ok(Self(if suffix.iter().all(|part| part.is_empty()) { arn } else { text.to_owned() }))
    }

    /// The secret's ARN, with or without the six random characters at its end.
    pub fn arn(&self) -> &str {
        let suffix = self.0.match_indices(':').nth(ARN_PARTS - 1);
        suffix.map_or(&self.0, |(at, _)| &self.0[..at])
    }

    /// The key whose value is meant; `None` for the whole text.
    pub fn json_key(&self) -> Option<&str> {
        self.part(ARN_PARTS)
    }

    /// The staging label of the version. Without it and without an id, the current version is meant.
    pub fn version_stage(&self) -> Option<&str> {
        self.part(ARN_PARTS + 1)
    }

    /// The id of the version; never together with a staging label.
    pub fn version_id(&self) -> Option<&str> {
        self.part(ARN_PARTS + 2)
    }

    fn part(&self, index: usize) -> Option<&str> {
        self.0.split(':').nth(index).filter(|part| !part.is_empty())
    }
}

/// A partition or a Region.
fn is_place(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Source: <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html>.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+=.@-".contains(&b))
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SecretRef {
    type Error = SecretRefError;

    fn try_from(text: String) -> Result<Self, SecretRefError> {
        Self::parse(&text)
    }
}

impl From<SecretRef> for String {
    fn from(secret: SecretRef) -> Self {
        secret.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws-us-gov:secretsmanager:us-gov-west-1:111122223333:secret:mesh/consul-a1B2c3";
    const ID: &str = "9d4cb84b-ad69-40c0-a0ab-cead36b967e8";

    #[test]
    fn secret_reference_is_read_as_ecs_reads_it() {
        for (suffix, key, stage, id) in [
            ("", None, None, None),
            (":::", None, None, None),
            (":token::", Some("token"), None, None),
            (":a key, with \"quotes\"::", Some("a key, with \"quotes\""), None, None),
            ("::AWSPREVIOUS:", None, Some("AWSPREVIOUS"), None),
            (&format!(":::{ID}"), None, None, Some(ID)),
            (&format!(":token::{ID}"), Some("token"), None, Some(ID)),
        ] {
            let secret = SecretRef::parse(&format!("{ARN}{suffix}")).unwrap();
            assert_eq!(secret.arn(), ARN, "{suffix}");
            assert_eq!(
                (secret.json_key(), secret.version_stage(), secret.version_id()),
                (key, stage, id),
                "{suffix}"
            );
            assert_eq!(SecretRef::parse(&secret.to_string()), Ok(secret), "{suffix}");
        }
    }

    #[test]
    fn invalid_secret_reference_is_refused() {
        for (suffix, error) in [
            (":token", SecretRefError::Parts(1)),
            (":token:", SecretRefError::Parts(2)),
            (":token:::", SecretRefError::Parts(4)),
            (":a\nb::", SecretRefError::Characters),
            (&format!("::AWSCURRENT:{ID}"), SecretRefError::StageAndId),
            (&format!("::{}:", "s".repeat(257)), SecretRefError::StageLength(257)),
            (":::1", SecretRefError::IdLength(1)),
        ] {
            assert_eq!(SecretRef::parse(&format!("{ARN}{suffix}")), Err(error), "{suffix}");
        }
        for text in [
            "consul-token",
            "arn:aws:ssm:eu-west-1:111122223333:parameter/token",
            "arn:aws:secretsmanager:eu-west-1:111122223333:secret",
            "arn:aws:secretsmanager:eu-west-1:111122223333:secret:",
            "arn:aws:secretsmanager:eu-west-1:1111:secret:token",
            "arn:aws:secretsmanager::111122223333:secret:token",
            "arn:aws:secretsmanager:eu-west-1:111122223333:secret:a token",
        ] {
            assert_eq!(SecretRef::parse(text), Err(SecretRefError::Arn), "{text}");
        }
    }

    #[test]
    fn secret_reference_error_does_not_repeat_the_text() {
        for text in ["hunter2", &format!("{ARN}:hunter2"), &format!("{ARN}:::hunter2")] {
            let error = SecretRef::parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
