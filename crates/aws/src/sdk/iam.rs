//! IAM with the SDK. Guarantees that returned tags belong to the role with the requested ARN, never to another role of the
//! same name.
//!
//! `GetRole` takes a name and searches the caller's account only; the answer has all tags (IAM allows 50).

use async_trait::async_trait;
use aws_sdk_iam::Client;

use super::call::CallRunner;
use crate::aws::{AwsError, AwsErrorKind, Iam};
use ecs_mesh_model::{RoleArn, Tags};

const GET_ROLE: &str = "iam:GetRole";

/// IAM of one account.
#[derive(Clone)]
pub struct SdkIam {
    client: Client,
    calls: CallRunner,
}

impl SdkIam {
    pub(super) fn new(client: Client, calls: CallRunner) -> Self {
        Self { client, calls }
    }
}

#[async_trait]
impl Iam for SdkIam {
    async fn role_tags(&self, role: &RoleArn) -> Result<Tags, AwsError> {
        self.reject_other_accounts(role)?;
        let call = self.client.get_role().role_name(role.name()).send();
        let answer = match self.calls.run(GET_ROLE, role.as_str(), call).await {
            Ok(answer) => answer,
            Err(error) => {
                // The account may be known by now; NoSuchEntity of another account is no evidence.
                self.reject_other_accounts(role)?;
                return Err(error);
            }
        };
        let found = answer.role();
        let found_arn = found.map_or("", |found| found.arn());
        if let Ok(found) = RoleArn::parse(found_arn) {
            self.calls.set_account(found.account());
            self.reject_other_accounts(role)?;
        }
        if found_arn != role.as_str() {
            return Err(another_role(role, found_arn));
        }
        let tags = found.map(aws_sdk_iam::types::Role::tags).unwrap_or_default();
        Ok(tags.iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect())
    }
}

impl SdkIam {
    /// Rejects a role of another account, once an answer of ECS or IAM has shown the caller's account: IAM would search this
    /// account for the role's name.
    fn reject_other_accounts(&self, role: &RoleArn) -> Result<(), AwsError> {
        let Some(own) = self.calls.account().filter(|own| *own != role.account()) else {
            return Ok(());
        };
        Err(AwsError {
            kind: AwsErrorKind::Denied,
            operation: GET_ROLE,
            resource: role.as_str().to_owned(),
            code: "OtherAccount".to_owned(),
            message: format!("the role is not in the operator's account {own}"),
            hint: "; iam:GetRole reads roles of the caller's account only: declare an AwsAccount for the role's account",
        })
    }
}

fn another_role(role: &RoleArn, found: &str) -> AwsError {
    AwsError {
        kind: AwsErrorKind::NotFound,
        operation: GET_ROLE,
        resource: role.as_str().to_owned(),
        code: "AnotherRole".to_owned(),
        message: format!("the role of this name is now {}", super::error::clean(found)),
        hint: "; the role was recreated under another path: deploy the tasks with the new role",
    }
}
