use super::*;
use ecs_mesh_controller::{SecretRequest, Secrets as _};

const SECRET: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:consul-token";
const ID: &str = "9d4cb84b-ad69-40c0-a0ab-cead36b967e8";

const CURRENT: SecretRequest<'_> = SecretRequest { arn: SECRET, version_stage: None, version_id: None };

#[tokio::test]
async fn secret_is_read_by_its_arn() {
    let world = SdkFixture::answering([ok(
        &json!({"ARN": SECRET, "Name": "consul-token", "SecretString": "s3cret"}),
    )])
    .await;
    assert_eq!(world.aws.secrets.read(CURRENT).await.unwrap(), "s3cret");
    assert_eq!(world.script.seen.lock().unwrap()[0].target, "secretsmanager.GetSecretValue");
    assert_eq!(world.seen(0), json!({"SecretId": SECRET}));
    assert_eq!(world.calls(), [("secretsmanager:GetSecretValue", "success")]);
}

#[tokio::test]
async fn version_of_a_secret_is_requested_by_stage_or_id() {
    for (request, sent) in [
        (
            SecretRequest { version_stage: Some("AWSPREVIOUS"), ..CURRENT },
            json!({"SecretId": SECRET, "VersionStage": "AWSPREVIOUS"}),
        ),
        (SecretRequest { version_id: Some(ID), ..CURRENT }, json!({"SecretId": SECRET, "VersionId": ID})),
    ] {
        let world = SdkFixture::answering([ok(&json!({"ARN": SECRET, "SecretString": "s3cret"}))]).await;
        assert_eq!(world.aws.secrets.read(request).await.unwrap(), "s3cret");
        assert_eq!(world.seen(0), sent);
    }
}

#[tokio::test]
async fn unreadable_secret_has_a_reason() {
    let world = SdkFixture::answering([
        refused(400, "AccessDeniedException", "not authorised"),
        ok(&json!({"ARN": SECRET, "SecretBinary": "c2VjcmV0"})),
    ])
    .await;
    let denied = world.aws.secrets.read(CURRENT).await.unwrap_err().to_string();
    assert!(denied.contains(SECRET) && denied.contains("secretsmanager:GetSecretValue"), "{denied}");
    let binary = world.aws.secrets.read(CURRENT).await.unwrap_err().to_string();
    assert!(binary.contains("SecretString") && !binary.contains("c2VjcmV0"), "{binary}");
    assert_eq!(world.calls()[0], ("secretsmanager:GetSecretValue", "access_denied"));
}
