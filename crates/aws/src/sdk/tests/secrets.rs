use super::*;
use ecs_mesh_controller::Secrets as _;

const SECRET: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:consul-token";

#[tokio::test]
async fn secret_is_read_by_its_arn() {
    let world = SdkFixture::answering([ok(
        &json!({"ARN": SECRET, "Name": "consul-token", "SecretString": "s3cret"}),
    )])
    .await;
    assert_eq!(world.aws.secrets.read(SECRET).await.unwrap(), "s3cret");
    assert_eq!(world.script.seen.lock().unwrap()[0].target, "secretsmanager.GetSecretValue");
    assert_eq!(world.seen(0), json!({"SecretId": SECRET}));
    assert_eq!(world.calls(), [("secretsmanager:GetSecretValue", "success")]);
}

#[tokio::test]
async fn unreadable_secret_has_a_reason() {
    let world = SdkFixture::answering([
        refused(400, "AccessDeniedException", "not authorised"),
        ok(&json!({"ARN": SECRET, "SecretBinary": "c2VjcmV0"})),
    ])
    .await;
    let denied = world.aws.secrets.read(SECRET).await.unwrap_err().to_string();
    assert!(denied.contains(SECRET) && denied.contains("secretsmanager:GetSecretValue"), "{denied}");
    let binary = world.aws.secrets.read(SECRET).await.unwrap_err().to_string();
    assert!(binary.contains("SecretString") && !binary.contains("c2VjcmV0"), "{binary}");
    assert_eq!(world.calls()[0], ("secretsmanager:GetSecretValue", "access_denied"));
}
