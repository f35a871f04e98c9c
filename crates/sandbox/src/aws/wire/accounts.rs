//! Several accounts and Regions behind one port. The access key of a call says whose it is, and the signature's scope says
//! in which Region: a key that an assumed role got belongs to the account of the role, and any other to the first account.

use std::sync::{Arc, Mutex, PoisonError};

use super::AwsFront;
use super::request::{AwsProtocol, AwsRequest};
use crate::aws::{AssumeRole, AssumedRole, AwsApiError, AwsApiResult, AwsFaults, Cloud};
use ecs_mesh_model::{RoleArn, Timestamp};

impl AwsFront {
    /// Adds an account, or another Region of one, with faults of its own. IAM of an account is in the part that was added
    /// first. Its rules may forward events to a queue or to the default bus of the first account.
    #[must_use]
    pub fn add_account(&self, cloud: Arc<Mutex<Cloud>>, faults: Arc<dyn AwsFaults>) -> Self {
        let member = Self { cloud, faults, is_member: true, members: Arc::default(), ..self.clone() };
        self.members.lock().unwrap_or_else(PoisonError::into_inner).push(member.clone());
        self.rescheduled.notify_one();
        member
    }

    pub(super) fn all(&self) -> Vec<Self> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(self).chain(members.iter()).cloned().collect()
    }

    /// The part that answers a call.
    pub(super) fn route(&self, request: &AwsRequest) -> AwsApiResult<Self> {
        let all = self.all();
        if all.len() == 1 {
            return Ok(self.clone());
        }
        let account = self.account_of(&all, request)?;
        let parts: Vec<&Self> = all.iter().filter(|front| front.account() == account).collect();
        if matches!(request.service, "iam" | "sts") {
            return Ok(parts.first().map_or_else(|| self.clone(), |front| (*front).clone()));
        }
        let here = parts.iter().find(|front| front.region() == request.region);
        let disabled = || {
            let message = format!("account {account} has not enabled the Region {}", request.region);
            AwsApiError::new("OptInRequired", message)
        };
        here.map(|front| (**front).clone()).ok_or_else(disabled)
    }

    /// The account of the caller. A key of a session that has ended, or that was never issued, is refused.
    fn account_of(&self, all: &[Self], request: &AwsRequest) -> AwsApiResult<String> {
        let key = &request.access_key_id;
        if !key.starts_with("ASIA") {
            return Ok(self.account());
        }
        let mut last = None;
        for front in all {
            match front.with(|cloud, now| cloud.caller_identity(key, now)) {
                Ok(_) => return Ok(front.account()),
                Err(error) if error.code == "ExpiredToken" => last = Some(error),
                Err(_) => {}
            }
        }
        let json = matches!(request.protocol, AwsProtocol::Json(_));
        Err(match (last, json) {
            (Some(_), true) => AwsApiError::new("ExpiredTokenException", "the security token has expired"),
            (Some(error), false) => error,
            (None, true) => AwsApiError::new("UnrecognizedClientException", "the security token is invalid"),
            (None, false) => AwsApiError::new("InvalidClientTokenId", "the security token is invalid"),
        })
    }

    /// `AssumeRole` of a role in another account, whose trust policy is enforced; `None` for a role of this account.
    pub(super) fn assume_foreign_role(
        &self,
        caller: &Self,
        access_key_id: &str,
        asked: &AssumeRole,
    ) -> Option<AwsApiResult<AssumedRole>> {
        let role = RoleArn::parse(&asked.role_arn).ok()?;
        if role.account() == caller.account() {
            return None;
        }
        let identity = caller.with(|cloud, now| cloud.caller_identity(access_key_id, now));
        let denied = || AwsApiError::new("AccessDenied", format!("not authorized to assume {role}"));
        let target = self.all().into_iter().find(|front| front.account() == role.account());
        Some(identity.and_then(|(arn, _)| {
            let assume = |cloud: &mut Cloud, now: Timestamp| cloud.assume_role_as(&arn, asked, now);
            target.ok_or_else(denied)?.with(assume)
        }))
    }

    fn account(&self) -> String {
        self.with(|cloud, _| cloud.config().account.clone())
    }

    fn region(&self) -> String {
        self.with(|cloud, _| cloud.config().region.clone())
    }
}
