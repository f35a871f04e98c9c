//! Calls to other accounts: whose credentials they have, and what a refused role looks like.

use super::*;
use crate::aws::{MemberAccount, MemberAccounts as _};
use ecs_mesh_model::AccountRegion;

const MEMBER: &str = "arn:aws:ecs:eu-north-1:444455556666:cluster/prod";

fn cluster(text: &str) -> ClusterArn {
    ClusterArn::parse(text).unwrap()
}

/// The own account, and account 444455556666 in `eu-north-1`.
fn accounts(world: &SdkFixture) -> SdkAccounts {
    let accounts = SdkAccounts::new(world.aws.clone(), "prod");
    accounts.set_members(vec![MemberAccount {
        role: RoleArn::parse("arn:aws:iam::444455556666:role/ecs-mesh").unwrap(),
        external_id: Some("mesh-7".to_owned()),
        regions: ["eu-north-1".to_owned()].into(),
    }]);
    accounts
}

fn assumed(key: &str) -> String {
    format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
         <AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>\
         <Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
    )
}

#[tokio::test]
async fn call_has_the_credentials_of_its_account_and_region() {
    let none = json!({"taskArns": []}).to_string();
    let world = SdkFixture::answering([(200, assumed("ASIAMEMBER")), (200, none.clone()), (200, none)]).await;
    let accounts = accounts(&world);
    for _ in 0..2 {
        accounts.list_tasks(&cluster(MEMBER), DesiredStatus::Running, None).await.unwrap();
    }
    let seen = world.script.seen.lock().unwrap();
    let body = &seen[0].body;
    assert!(body.contains("ExternalId=mesh-7") && body.contains("RoleSessionName=ecs-mesh-prod"), "{body}");
    assert!(seen[0].authorization.contains("/eu-west-1/sts/"), "{}", seen[0].authorization);
    for call in &seen[1..] {
        let scope = &call.authorization;
        assert!(scope.contains("ASIAMEMBER") && scope.contains("/eu-north-1/ecs/"), "{scope}");
    }
    assert_eq!(seen.len(), 3, "the role is assumed once");
}

#[tokio::test]
async fn refused_role_is_named_and_not_asked_for_again_at_once() {
    let refused = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized</Message>\
                   </Error></ErrorResponse>";
    let world = SdkFixture::answering([(403, refused.to_owned())]).await;
    let accounts = accounts(&world);
    for _ in 0..2 {
        let error = accounts.list_tasks(&cluster(MEMBER), DesiredStatus::Running, None).await.unwrap_err();
        assert_eq!((error.kind, error.operation), (AwsErrorKind::Denied, "sts:AssumeRole"), "{error}");
        assert!(error.resource.ends_with(":role/ecs-mesh") && error.message == "not authorized", "{error}");
    }
    assert_eq!(world.script.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn undeclared_account_and_unlisted_region_are_not_called() {
    let caller = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                  <GetCallerIdentityResult><Arn>arn:aws:iam::111122223333:user/a</Arn><UserId>a</UserId>\
                  <Account>111122223333</Account></GetCallerIdentityResult></GetCallerIdentityResponse>";
    let world = SdkFixture::answering([(200, caller.to_owned())]).await;
    let accounts = accounts(&world);
    for (arn, code) in [
        ("arn:aws:ecs:eu-west-1:777788889999:cluster/prod", "UndeclaredAccount"),
        ("arn:aws:ecs:us-east-1:444455556666:cluster/prod", "UnlistedRegion"),
    ] {
        let error = accounts.describe_cluster(&cluster(arn)).await.unwrap_err();
        assert_eq!((error.kind, error.code.as_str()), (AwsErrorKind::Denied, code));
    }
    assert_eq!(world.calls(), [("sts:GetCallerIdentity", "success")]);
}

#[tokio::test]
async fn own_account_needs_no_manifest_in_any_region() {
    let none = || (200, json!({"taskArns": []}).to_string());
    let world = SdkFixture::answering([none(), none()]).await;
    let accounts = SdkAccounts::new(world.aws.clone(), "prod");
    for region in ["eu-west-1", "eu-north-1"] {
        let arn = format!("arn:aws:ecs:{region}:111122223333:cluster/prod");
        accounts.list_tasks(&cluster(&arn), DesiredStatus::Running, None).await.unwrap();
    }
    let seen = world.script.seen.lock().unwrap();
    assert!(seen[0].authorization.contains("/eu-west-1/ecs/"), "{}", seen[0].authorization);
    assert!(seen[1].authorization.contains("/eu-north-1/ecs/"), "{}", seen[1].authorization);
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn accounts_of_forged_events_keep_few_sessions() {
    let world = SdkFixture::answering([]).await;
    // Without an AwsAccount, each account is taken for the own one.
    let accounts = SdkAccounts::new(world.aws.clone(), "prod");
    for number in 0..300 {
        let place = AccountRegion::new(&format!("{number:012}"), "eu-west-1");
        accounts.clients(&place).await.unwrap();
    }
    assert!(accounts.session_count() <= 128, "{}", accounts.session_count());
}
