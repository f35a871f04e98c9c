//! Tokens in Secrets Manager and in Parameter Store.

use super::*;
use crate::metered_token_store::{MeteredTokenStore, TokenStoreRates};
use crate::token_store::{EntryDescription, EntryTags, NewEntry, TokenStore};

const NAME: &str = "/mesh/default/web/token";
const TOKEN: &str = "eyJ.eyJ.c2ln";
const KEY: &str = "alias/mesh";

fn tags() -> EntryTags {
    [("ecs-mesh.dev/operator".to_owned(), "op".to_owned())].into()
}

fn entry(tags: &EntryTags) -> NewEntry<'_> {
    NewEntry { name: NAME, kms_key: Some(KEY), tags, text: TOKEN }
}

#[tokio::test]
async fn secret_is_created_with_key_and_tags() {
    let world = SdkFixture::answering([ok(&json!({})), ok(&json!({})), ok(&json!({})), ok(&json!({}))]).await;
    let store = &world.aws.secret_store;
    store.create(entry(&tags())).await.unwrap();
    store.put(NAME, Some(KEY), TOKEN).await.unwrap();
    store.set_tags(NAME, &tags()).await.unwrap();
    store.remove(NAME).await.unwrap();
    let operator = json!([{"Key": "ecs-mesh.dev/operator", "Value": "op"}]);
    let created = world.seen(0);
    for (field, value) in [
        ("Name", json!(NAME)),
        ("KmsKeyId", json!(KEY)),
        ("SecretString", json!(TOKEN)),
        ("Tags", operator.clone()),
    ] {
        assert_eq!(created[field], value);
    }
    assert_eq!((&world.seen(1)["SecretId"], &world.seen(1)["SecretString"]), (&json!(NAME), &json!(TOKEN)));
    assert_eq!(world.seen(2), json!({"SecretId": NAME, "Tags": operator}));
    assert_eq!(world.seen(3), json!({"SecretId": NAME, "ForceDeleteWithoutRecovery": true}));
    let operations = ["CreateSecret", "PutSecretValue", "TagResource", "DeleteSecret"];
    let calls: Vec<_> = world.calls().into_iter().map(|(operation, _)| operation).collect();
    assert_eq!(calls, operations.map(|operation| format!("secretsmanager:{operation}")));
}

#[tokio::test]
async fn parameter_is_created_encrypted_with_key_and_tags() {
    let world =
        SdkFixture::answering([ok(&json!({"Version": 1})), ok(&json!({})), ok(&json!({})), ok(&json!({}))])
            .await;
    let store = &world.aws.parameter_store;
    store.create(entry(&tags())).await.unwrap();
    store.put(NAME, None, TOKEN).await.unwrap();
    store.set_tags(NAME, &tags()).await.unwrap();
    store.remove(NAME).await.unwrap();
    let operator = json!([{"Key": "ecs-mesh.dev/operator", "Value": "op"}]);
    let created = world.seen(0);
    for (field, value) in [
        ("Name", json!(NAME)),
        ("Type", json!("SecureString")),
        ("KeyId", json!(KEY)),
        ("Value", json!(TOKEN)),
        ("Tags", operator.clone()),
        // A parameter that another writer made meanwhile is not overwritten.
        ("Overwrite", Value::Null),
    ] {
        assert_eq!(created[field], value);
    }
    // Tags and Overwrite exclude each other.
    let put = world.seen(1);
    assert_eq!((&put["Overwrite"], put.get("Tags"), put.get("KeyId")), (&json!(true), None, None));
    assert_eq!(world.seen(2), json!({"ResourceType": "Parameter", "ResourceId": NAME, "Tags": operator}));
    assert_eq!(world.seen(3), json!({"Name": NAME}));
    let script = world.script.seen.lock().unwrap();
    assert_eq!(script[0].target, "AmazonSSM.PutParameter");
    assert!(script[0].authorization.contains("/eu-west-1/ssm/aws4_request"), "{}", script[0].authorization);
}

#[tokio::test]
async fn names_below_a_path_are_listed_page_by_page() {
    let world = SdkFixture::answering([
        ok(&json!({"SecretList": [{"Name": "/mesh/a"}, {"Name": "/meshes/x"}], "NextToken": "more"})),
        ok(&json!({"SecretList": [{"Name": "/mesh/b"}]})),
        ok(&json!({"Parameters": [{"Name": "/mesh/a"}], "NextToken": "more"})),
        ok(&json!({"Parameters": [{"Name": "/mesh/b"}], "NextToken": ""})),
        ok(&json!({})),
    ])
    .await;
    let stores: [Arc<dyn TokenStore>; 2] =
        [Arc::new(world.aws.secret_store.clone()), Arc::new(world.aws.parameter_store.clone())];
    for store in stores {
        let store = MeteredTokenStore::new(store, TokenStoreRates::SECRETS_MANAGER);
        let names = store.list("/mesh").await.unwrap();
        assert_eq!(names.iter().collect::<Vec<_>>(), ["/mesh/a", "/mesh/b"]);
    }
    assert_eq!(world.seen(0)["IncludePlannedDeletion"], true);
    assert_eq!(world.seen(0)["Filters"], json!([{"Key": "name", "Values": ["/mesh/"]}]));
    assert_eq!(world.seen(2)["ParameterFilters"][0]["Values"], json!(["/mesh/"]));
    assert_eq!((&world.seen(1)["NextToken"], &world.seen(3)["NextToken"]), (&json!("more"), &json!("more")));
    // A list without items is no empty list.
    assert!(world.aws.parameter_store.list("/mesh", None).await.is_err());
}

#[tokio::test]
async fn missing_entry_has_no_tags() {
    let world = SdkFixture::answering([
        ok(&json!({"Name": NAME, "Tags": [{"Key": "ecs-mesh.dev/operator", "Value": "op"}, {"Key": "empty"}]})),
        refused(400, "ResourceNotFoundException", "no secret"),
        ok(&json!({"TagList": [{"Key": "ecs-mesh.dev/operator", "Value": "op"}, {"Key": "empty", "Value": ""}]})),
        refused(400, "InvalidResourceId", "no parameter"),
    ])
    .await;
    let mut expected = tags();
    expected.insert("empty".to_owned(), String::new());
    let stores: [&dyn TokenStore; 2] = [&world.aws.secret_store, &world.aws.parameter_store];
    for store in stores {
        let described = EntryDescription { tags: expected.clone(), is_deleting: false };
        assert_eq!(store.describe(NAME).await.unwrap(), Some(described));
        assert_eq!(store.describe(NAME).await.unwrap(), None);
    }
}

#[tokio::test]
async fn secret_scheduled_for_deletion_is_described_as_such() {
    let answer = json!({"Name": NAME, "DeletedDate": 1.7e9, "Tags": []});
    let world = SdkFixture::answering([ok(&answer)]).await;
    let described = world.aws.secret_store.describe(NAME).await.unwrap().unwrap();
    assert!(described.is_deleting);
}

#[tokio::test]
async fn failed_store_has_a_reason_without_the_token() {
    let denied = || refused(400, "AccessDeniedException", "not authorized to perform");
    let garbled = || (200, format!("{{\"echo\": \"{TOKEN}\""));
    let world = SdkFixture::answering([
        denied(),
        denied(),
        garbled(),
        refused(400, "ParameterAlreadyExists", "taken"),
    ])
    .await;
    let stores: [&dyn TokenStore; 2] = [&world.aws.secret_store, &world.aws.parameter_store];
    for store in stores {
        let error = store.create(entry(&tags())).await.unwrap_err();
        assert_eq!(error.kind, AwsErrorKind::Denied);
        assert!(error.to_string().contains("doctor --print-iam-policy"), "{error}");
    }
    let error = world.aws.parameter_store.put(NAME, None, TOKEN).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains(TOKEN), "{error:?}");
    let error = world.aws.parameter_store.create(entry(&tags())).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (AwsErrorKind::Invalid, "ParameterAlreadyExists"));
    assert!(!format!("{:?}", entry(&tags())).contains(TOKEN));
}

#[tokio::test]
async fn entries_with_a_tag_are_listed_wherever_they_are() {
    let tag = |value: &str| json!([{"Key": "ecs-mesh.dev/operator", "Value": value}]);
    let secrets = json!([{"Name": "/old/a", "Tags": tag("op")}, {"Name": "/b", "Tags": tag("op2")}]);
    let world = SdkFixture::answering([
        ok(&json!({"SecretList": secrets, "NextToken": "more"})),
        ok(&json!({"Parameters": [{"Name": "/old/a"}]})),
    ])
    .await;
    let stores: [&dyn TokenStore; 2] = [&world.aws.secret_store, &world.aws.parameter_store];
    for (store, next) in stores.into_iter().zip([Some("more"), None]) {
        let page = store.list_tagged("ecs-mesh.dev/operator", "op", None).await.unwrap();
        assert_eq!((page.names, page.next.as_deref()), (vec!["/old/a".to_owned()], next));
    }
    let filters = json!([
        {"Key": "tag-key", "Values": ["ecs-mesh.dev/operator"]},
        {"Key": "tag-value", "Values": ["op"]},
    ]);
    assert_eq!(world.seen(0)["Filters"], filters);
    let filters = json!([{"Key": "tag:ecs-mesh.dev/operator", "Values": ["op"]}]);
    assert_eq!(world.seen(1)["ParameterFilters"], filters);
}
