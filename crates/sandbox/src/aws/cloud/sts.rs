//! STS: identifies callers by access key. Signatures are not checked.

use std::time::Duration;

use super::roles::invalid;
use crate::aws::{AwsApiError, AwsApiResult, Cloud};
use ecs_mesh_model::{RoleArn, Timestamp};

/// Request of `AssumeRole`.
#[derive(Clone, Debug, Default)]
pub struct AssumeRole {
    /// The role's ARN.
    pub role_arn: String,
    /// The session's name.
    pub session_name: String,
    /// Seconds; default 3600.
    pub duration_seconds: Option<u32>,
}

/// Temporary credentials.
#[derive(Clone, Debug)]
pub struct AssumedRole {
    /// `ASIA…`.
    pub access_key_id: String,
    /// The secret key.
    pub secret_access_key: String,
    /// The session token.
    pub session_token: String,
    /// Expiry.
    pub expiration: Timestamp,
    /// `arn:…:sts::ACCOUNT:assumed-role/ROLE/SESSION`.
    pub arn: String,
    /// `AROA…:SESSION`.
    pub id: String,
}

/// The session of an access key.
#[derive(Clone, Debug)]
pub(super) struct StsSession {
    arn: String,
    id: String,
    until: Timestamp,
}

impl Cloud {
    /// Issues credentials of a role. The trust policy is not enforced.
    pub fn assume_role(&mut self, request: &AssumeRole, now: Timestamp) -> AwsApiResult<AssumedRole> {
        let denied =
            || AwsApiError::new("AccessDenied", format!("the caller may not assume {}", request.role_arn));
        let named = RoleArn::parse(&request.role_arn).map_err(|error| invalid(error.to_string()))?;
        let role =
            self.roles.get(named.name()).filter(|role| role.arn == request.role_arn).ok_or_else(denied)?;
        let duration = request.duration_seconds.unwrap_or(3600);
        if duration < 900 || duration > role.max_session_duration {
            let most = role.max_session_duration;
            return Err(invalid(format!("DurationSeconds is {duration}; 900 to {most} are allowed")));
        }
        if request.session_name.len() < 2 || request.session_name.len() > 64 {
            return Err(invalid("RoleSessionName has 2 to 64 characters"));
        }
        let id = format!("{}:{}", role.id, request.session_name);
        let arn = self.global_arn("sts", &format!("assumed-role/{}/{}", named.name(), request.session_name));
        let expiration = now.plus(Duration::from_secs(duration.into()));
        let assumed = AssumedRole {
            access_key_id: self.iam_id("ASIA"),
            secret_access_key: self.hex(40),
            session_token: self.hex(64),
            expiration,
            arn: arn.clone(),
            id: id.clone(),
        };
        self.sessions.retain(|_, session| session.until > now);
        self.sessions.insert(assumed.access_key_id.clone(), StsSession { arn, id, until: expiration });
        Ok(assumed)
    }

    /// ARN and id of the caller with this access key: a role session, or the account's only user. Credentials of an
    /// expired or unknown session are rejected.
    pub fn caller_identity(&self, access_key_id: &str, now: Timestamp) -> AwsApiResult<(String, String)> {
        match self.sessions.get(access_key_id) {
            Some(session) if session.until > now => Ok((session.arn.clone(), session.id.clone())),
            None if !access_key_id.starts_with("ASIA") => {
                Ok((self.global_arn("iam", "user/sandbox"), "AIDASANDBOX0000000000".into()))
            }
            Some(_) => Err(AwsApiError::new("ExpiredToken", "the session of these credentials has ended")),
            None => Err(AwsApiError::new("InvalidClientTokenId", "no session has this access key")),
        }
    }
}
