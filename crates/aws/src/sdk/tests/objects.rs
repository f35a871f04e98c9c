//! Manifests in S3 and in SSM Parameter Store.

use std::fmt::Write as _;

use ring::{digest, hmac};

use super::*;
use crate::sdk::PathParameter;

const SECRET: &str = "secret";

fn list(objects: &str, count: usize, next: Option<&str>) -> (u16, String) {
    let next = next.map_or("<IsTruncated>false</IsTruncated>".to_owned(), |next| {
        format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{next}</NextContinuationToken>")
    });
    let document =
        format!("<ListBucketResult><KeyCount>{count}</KeyCount>{next}{objects}</ListBucketResult>");
    (200, document)
}

fn listed(key: &str) -> String {
    format!("<Contents><Key>{key}</Key><ETag>&quot;1&quot;</ETag><Size>3</Size></Contents>")
}

fn failure(status: u16, code: &str, extra: &str) -> (u16, String) {
    (status, format!("<Error><Code>{code}</Code><Message>because</Message>{extra}</Error>"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The signature of a request as S3 computes it: over the path as sent.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>.
fn expected_signature(request: &RecordedRequest) -> String {
    let part = |name: &str| {
        let (_, rest) = request.authorization.split_once(&format!("{name}=")).unwrap();
        rest.split(',').next().unwrap().trim().to_owned()
    };
    let (signed, scope) = (part("SignedHeaders"), part("Credential"));
    let scope = scope.split_once('/').unwrap().1.to_owned();
    let (path, query) = request.uri.split_once('?').unwrap_or((&request.uri, ""));
    let mut query: Vec<&str> = query.split('&').collect();
    query.sort_unstable();
    let headers = signed.split(';').fold(String::new(), |mut lines, name| {
        let _ = writeln!(lines, "{name}:{}", request.headers[name].to_str().unwrap());
        lines
    });
    let hash = request.headers["x-amz-content-sha256"].to_str().unwrap();
    let canonical = format!("GET\n{path}\n{}\n{headers}\n{signed}\n{hash}", query.join("&"));
    let date = request.headers["x-amz-date"].to_str().unwrap();
    let hashed = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashed}");
    let sign = |key: &[u8], text: &str| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
    };
    let key = scope.split('/').fold(format!("AWS4{SECRET}").into_bytes(), |key, part| sign(&key, part));
    hex(&sign(&key, &text))
}

#[tokio::test]
async fn objects_are_listed_page_by_page() {
    let world = SdkFixture::answering([
        list(&listed("prod/a.yaml"), 1, Some("to=/k+n")),
        list(&listed("prod/b.yaml"), 1, None),
    ])
    .await;
    let first = world.aws.objects.list("manifests", "prod/", None).await.unwrap();
    let second = world.aws.objects.list("manifests", "prod/", first.next.as_deref()).await.unwrap();
    assert_eq!((first.items[0].key.as_str(), second.items[0].key.as_str()), ("prod/a.yaml", "prod/b.yaml"));
    assert_eq!(second.next, None);
    let seen = world.script.seen.lock().unwrap();
    assert_eq!(seen[0].uri, "/manifests/?list-type=2&encoding-type=url&prefix=prod%2F");
    assert!(seen[1].uri.ends_with("&continuation-token=to%3D%2Fk%2Bn"), "{}", seen[1].uri);
    assert!(seen[1].authorization.contains("/eu-west-1/s3/aws4_request"), "{}", seen[1].authorization);
}

#[tokio::test]
async fn signature_is_that_of_s3_for_any_key() {
    let world = SdkFixture::answering([(200, "a: 1".to_owned()), list("", 0, None)]).await;
    let key = "prod/team a//../ü+%41=~(1).yaml";
    let read = world.aws.objects.get("manifests", key, "\"e1\"").await.unwrap().unwrap();
    assert_eq!((read.bytes.as_slice(), read.version), (b"a: 1".as_slice(), None));
    world.aws.objects.list("manifests", key, None).await.unwrap();
    let seen = world.script.seen.lock().unwrap();
    assert_eq!(seen[0].uri, "/manifests/prod/team%20a//../%C3%BC%2B%2541%3D~%281%29.yaml");
    assert_eq!(seen[0].headers["if-match"], "\"e1\"");
    for request in seen.iter() {
        let signature = request.authorization.rsplit_once("Signature=").unwrap().1;
        assert_eq!(signature, expected_signature(request), "{}", request.uri);
    }
}

#[tokio::test]
async fn changed_or_deleted_object_is_not_read() {
    let world =
        SdkFixture::answering([failure(412, "PreconditionFailed", ""), failure(404, "NoSuchKey", "")]).await;
    for _ in 0..2 {
        assert_eq!(world.aws.objects.get("manifests", "prod/a.yaml", "\"e1\"").await.unwrap(), None);
    }
}

#[tokio::test]
async fn bucket_of_another_region_is_read_there() {
    let elsewhere = || failure(301, "PermanentRedirect", "<Region>eu-central-1</Region>");
    let world =
        SdkFixture::answering([elsewhere(), list("", 0, None), (200, String::new()), elsewhere()]).await;
    world.aws.objects.list("manifests", "prod/", None).await.unwrap();
    world.aws.objects.get("manifests", "prod/a.yaml", "\"e1\"").await.unwrap();
    {
        let seen = world.script.seen.lock().unwrap();
        let regions: Vec<_> =
            seen.iter().map(|request| request.authorization.split('/').nth(2).unwrap()).collect();
        assert_eq!(regions, ["eu-west-1", "eu-central-1", "eu-central-1"]);
    }
    // A Region that sends back to itself is an error.
    let error = world.aws.objects.list("manifests", "prod/", None).await.unwrap_err();
    assert_eq!(error.code, "PermanentRedirect");
    assert!(error.to_string().contains("another Region"), "{error}");
}

#[tokio::test]
async fn failed_read_names_resource_cause_and_permission() {
    let denied = |status| failure(status, "AccessDenied", "");
    let world = SdkFixture::answering([
        denied(403),
        denied(403),
        failure(404, "NoSuchBucket", ""),
        failure(503, "SlowDown", ""),
        (503, "<html>".to_owned()),
        (200, "<ListBucketResult><KeyCount>1</KeyCount>".to_owned()),
        refused(400, "AccessDeniedException", "not authorized to perform"),
        ok(&json!({"NextToken": "more"})),
    ])
    .await;
    let objects = &world.aws.objects;
    let errors = [
        objects.list("manifests", "prod/", None).await.unwrap_err(),
        objects.get("manifests", "prod/a.yaml", "1").await.unwrap_err(),
        objects.list("manifests", "prod/", None).await.unwrap_err(),
        objects.list("manifests", "prod/", None).await.unwrap_err(),
        objects.list("manifests", "prod/", None).await.unwrap_err(),
        objects.list("manifests", "prod/", None).await.unwrap_err(),
        world.aws.parameter_store.page_by_path("/mesh", None).await.unwrap_err(),
        world.aws.parameter_store.page_by_path("/mesh", None).await.unwrap_err(),
    ];
    for (error, (kind, resource, words)) in errors.iter().zip([
        (AwsErrorKind::Denied, "s3://manifests/prod/", "s3:ListBucket"),
        (AwsErrorKind::Denied, "s3://manifests/prod/a.yaml", "kms:Decrypt"),
        (AwsErrorKind::NotFound, "s3://manifests/prod/", "NoSuchBucket"),
        (AwsErrorKind::Throttled, "s3://manifests/prod/", "SlowDown"),
        (AwsErrorKind::Unavailable, "s3://manifests/prod/", "HTTP 503"),
        (AwsErrorKind::Unavailable, "s3://manifests/prod/", "truncated"),
        (AwsErrorKind::Denied, "/mesh", "ssm:GetParametersByPath on the path"),
        (AwsErrorKind::Invalid, "/mesh", "has no Parameters"),
    ]) {
        assert_eq!((error.kind, error.resource.as_str()), (kind, resource), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn parameters_below_a_path_are_read_page_by_page() {
    let parameter = |name: &str| json!({"Name": name, "Version": 3, "Value": "kind: x", "Type": "String"});
    let world = SdkFixture::answering([
        ok(&json!({"Parameters": [parameter("/mesh/a")], "NextToken": "more"})),
        ok(&json!({"Parameters": [parameter("/mesh/team/b")]})),
    ])
    .await;
    let store = &world.aws.parameter_store;
    let first = store.page_by_path("/mesh", None).await.unwrap();
    let second = store.page_by_path("/mesh", first.next.as_deref()).await.unwrap();
    let expected = PathParameter { name: "/mesh/a".to_owned(), version: 3, value: "kind: x".to_owned() };
    assert_eq!((&first.items, second.next), (&vec![expected], None));
    assert_eq!(second.items[0].name, "/mesh/team/b");
    let body = json!({"Path": "/mesh", "Recursive": true, "WithDecryption": true, "MaxResults": 10});
    assert_eq!(world.seen(0), body);
    assert_eq!(world.seen(1)["NextToken"], json!("more"));
    assert!(!format!("{first:?}").contains("kind: x"));
}
