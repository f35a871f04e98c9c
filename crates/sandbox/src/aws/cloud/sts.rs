//! STS: identifies callers by access key. Signatures are not checked.

use std::time::Duration;

use serde_json::Value;

use super::roles::invalid;
use crate::aws::{AwsApiError, AwsApiResult, Cloud};
use ecs_mesh_model::{RoleArn, Timestamp};

/// How long the key of a session that has ended is known.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);

/// Request of `AssumeRole`.
#[derive(Clone, Debug, Default)]
pub struct AssumeRole {
    /// The role's ARN.
    pub role_arn: String,
    /// The session's name.
    pub session_name: String,
    /// The external id, where the caller sends one.
    pub external_id: Option<String>,
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
    /// Issues credentials of a role to a caller of another account, if the role's trust policy admits it.
    pub fn assume_role_as(
        &mut self,
        caller: &str,
        request: &AssumeRole,
        now: Timestamp,
    ) -> AwsApiResult<AssumedRole> {
        let name = request.role_arn.rsplit('/').next().unwrap_or_default();
        let policy = self.roles.get(name).filter(|role| role.arn == request.role_arn);
        let admits = policy
            .is_some_and(|role| trusts(&role.assume_role_policy, caller, request.external_id.as_deref()));
        if !admits {
            let message = format!(
                "User: {caller} is not authorized to perform: sts:AssumeRole on resource: {}",
                request.role_arn
            );
            return Err(AwsApiError::new("AccessDenied", message));
        }
        self.assume_role(request, now)
    }

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
        let lifetime = self.config.session_lifetime.unwrap_or(Duration::from_secs(duration.into()));
        let expiration = now.plus(lifetime);
        let assumed = AssumedRole {
            access_key_id: self.iam_id("ASIA"),
            secret_access_key: self.hex(40),
            session_token: self.hex(64),
            expiration,
            arn: arn.clone(),
            id: id.clone(),
        };
        // Those that ended a while ago are no longer told from keys that were never issued.
        self.sessions.retain(|_, session| session.until.plus(FORGOTTEN_AFTER) > now);
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

/// Whether a trust policy lets the caller assume the role with this external id. Statements that deny, and other conditions
/// than that of the external id, are not emulated.
fn trusts(policy: &str, caller: &str, external_id: Option<&str>) -> bool {
    let Ok(policy) = serde_json::from_str::<Value>(policy) else { return false };
    texts(&policy["Statement"]).any(|statement| {
        let principals = [caller.to_owned(), role_of_session(caller), account_root(caller)];
        statement["Effect"] == "Allow"
            && texts(&statement["Action"]).any(|action| action == "sts:AssumeRole")
            && texts(&statement["Principal"]["AWS"])
                .any(|one| one.as_str().is_some_and(|one| principals.iter().any(|caller| caller == one)))
            && match &statement["Condition"]["StringEquals"]["sts:ExternalId"] {
                Value::Null => true,
                required => texts(required).any(|required| required.as_str() == external_id),
            }
    })
}

/// The items of a list, or the one value.
fn texts(value: &Value) -> impl Iterator<Item = &Value> {
    let items: &[Value] = match value {
        Value::Array(items) => items,
        Value::Null => &[],
        one => std::slice::from_ref(one),
    };
    items.iter()
}

/// `arn:aws:iam::ACCOUNT:role/NAME` of `arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION`.
fn role_of_session(caller: &str) -> String {
    let Some((account, rest)) = caller.split_once(":assumed-role/") else { return caller.to_owned() };
    let name = rest.split('/').next().unwrap_or_default();
    format!("{}:role/{name}", account.replacen(":sts:", ":iam:", 1))
}

fn account_root(caller: &str) -> String {
    let account: Vec<&str> = caller.split(':').collect();
    let (partition, account) =
        (account.get(1).copied().unwrap_or_default(), account.get(4).copied().unwrap_or_default());
    format!("arn:{partition}:iam::{account}:root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_policy_admits_a_principal_with_the_external_id() {
        let policy = r#"{"Statement": {"Effect": "Allow", "Action": "sts:AssumeRole",
            "Principal": {"AWS": "arn:aws:iam::111122223333:role/operator"},
            "Condition": {"StringEquals": {"sts:ExternalId": "mesh-7"}}}}"#;
        let session = "arn:aws:sts::111122223333:assumed-role/operator/i-1";
        for (caller, id, expected) in [
            (session, Some("mesh-7"), true),
            (session, Some("mesh-8"), false),
            (session, None, false),
            ("arn:aws:sts::111122223333:assumed-role/other/i-1", Some("mesh-7"), false),
            ("arn:aws:sts::444455556666:assumed-role/operator/i-1", Some("mesh-7"), false),
        ] {
            assert_eq!(trusts(policy, caller, id), expected, "{caller} {id:?}");
        }
        let root = r#"{"Statement": [{"Effect": "Allow", "Action": ["sts:AssumeRole"],
            "Principal": {"AWS": ["arn:aws:iam::111122223333:root"]}}]}"#;
        assert!(trusts(root, "arn:aws:iam::111122223333:user/sandbox", None));
    }
}
