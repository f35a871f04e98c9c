//! Failures have the right kind and next step, and calls end in time.

use super::*;

#[tokio::test]
async fn each_error_code_has_its_kind() {
    use AwsErrorKind::{Credentials as Creds, Denied, Invalid, NotFound, Throttled, Unavailable};
    for (status, code, kind, hint) in [
        (400, "ThrottlingException", Throttled, ""),
        (429, "Whatever", Throttled, ""),
        (500, "ServerException", Unavailable, ""),
        (503, "Whatever", Unavailable, ""),
        (400, "AccessDeniedException", Denied, "ecs:DescribeTasks on task/CLUSTER/*"),
        (403, "Whatever", Denied, "ecs:DescribeTasks"),
        (400, "ExpiredTokenException", Creds, "expired"),
        (400, "UnrecognizedClientException", Creds, "does not accept these credentials"),
        (400, "InvalidSignatureException", Creds, "clock"),
        (400, "ClusterNotFoundException", NotFound, "no such cluster"),
        (400, "InvalidParameterException", Invalid, ""),
    ] {
        let world = SdkFixture::answering([refused(status, code, "Said AWS.")]).await;
        let error = world.aws.ecs.describe_tasks(&cluster(), &[id("a1")]).await.unwrap_err();
        assert_eq!((error.kind, error.code.as_str()), (kind, code), "{error}");
        assert!(error.hint.contains(hint), "{error}");
        let start = format!("ecs:DescribeTasks on 1 tasks of {CLUSTER} failed: {code}: Said AWS.");
        assert!(error.to_string().starts_with(&start), "{error}");
        assert_eq!(world.calls(), [("ecs:DescribeTasks", kind.label())]);
    }
}

#[tokio::test]
async fn missing_queue_is_not_found() {
    for code in ["QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"] {
        let world = SdkFixture::answering([refused(400, code, "None.")]).await;
        let error = world.queue().receive().await.unwrap_err();
        assert_eq!(error.kind, AwsErrorKind::NotFound);
        assert!(error.hint.contains("does not exist in this account and Region"), "{error}");
    }
}

#[tokio::test]
async fn foreign_response_is_classified_by_its_status() {
    for (status, kind) in [
        (200, AwsErrorKind::Unavailable),
        (404, AwsErrorKind::Invalid),
        (502, AwsErrorKind::Unavailable),
        (403, AwsErrorKind::Denied),
    ] {
        let world = SdkFixture::answering([(status, "<html>a proxy</html>".to_owned())]).await;
        let error = world.aws.ecs.list_clusters(None).await.unwrap_err();
        assert_eq!((error.kind, error.code), (kind, format!("HTTP {status}")));
    }
}

#[tokio::test]
async fn unreadable_response_has_a_reason() {
    let mut odd = task("a1");
    odd["cpu"] = json!(256);
    let world = SdkFixture::answering([ok(&json!({"tasks": [odd]}))]).await;
    let error = world.aws.ecs.describe_tasks(&cluster(), &[id("a1")]).await.unwrap_err();
    assert!(error.message.starts_with("reading the response: "), "{error}");
    assert!(error.message.contains("expected string"), "{error}");
}

#[tokio::test]
async fn call_is_attempted_once() {
    let world =
        SdkFixture::answering([refused(500, "ServerException", "x"), ok(&json!({"clusterArns": []}))]).await;
    assert!(world.aws.ecs.list_clusters(None).await.is_err());
    assert_eq!(world.script.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn unreachable_server_is_a_connection_failure() {
    let world = SdkFixture::answering([]).await;
    let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/111122223333/q", unused.local_addr().unwrap());
    drop(unused);
    let options = AwsOptions {
        endpoint_url: Some(url),
        region: Some("eu-west-1".to_owned()),
        credentials: Some(Credentials::new("a", "b", None, None, "test")),
        observer: Arc::clone(&world.recorded) as Arc<dyn AwsCallObserver>,
        proxy: None,
    };
    let error = AwsClients::connect(options).await.unwrap().ecs.list_clusters(None).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (AwsErrorKind::Unavailable, "connection"), "{error}");
    assert!(error.hint.contains("could not be reached"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn call_without_answer_ends_after_five_seconds() {
    let world = SdkFixture::slow(Duration::from_hours(1), []).await;
    let started = tokio::time::Instant::now();
    let error = world.aws.ecs.list_clusters(None).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (AwsErrorKind::Unavailable, "timeout"), "{error}");
    assert_eq!(started.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn long_poll_waits_for_sqs() {
    let world = SdkFixture::slow(Duration::from_secs(20), [ok(&json!({}))]).await;
    assert_eq!(world.queue().receive().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn long_poll_without_answer_ends_after_25_seconds() {
    let world = SdkFixture::slow(Duration::from_hours(1), []).await;
    let started = tokio::time::Instant::now();
    assert_eq!(world.queue().receive().await.unwrap_err().code, "timeout");
    assert_eq!(started.elapsed().as_secs(), 25);
}

#[tokio::test]
async fn missing_credentials_have_a_next_step() {
    let world = SdkFixture::answering([]).await;
    let none = aws_config::profile::ProfileFileCredentialsProvider::builder()
        .profile_name("a-profile-that-unused-has")
        .configure(
            &aws_config::provider_config::ProviderConfig::without_region()
                .with_http_client(http_client(true, None)),
        )
        .build();
    let config = aws_sdk_ecs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .endpoint_url(&world.url)
        .credentials_provider(none)
        .http_client(http_client(true, None))
        .build();
    let calls = CallRunner::new(Arc::clone(&world.recorded) as Arc<dyn AwsCallObserver>);
    let ecs = SdkEcs::new(aws_sdk_ecs::Client::from_conf(config), calls);
    let error: AwsError = ecs.list_clusters(None).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (AwsErrorKind::Credentials, "credentials"), "{error}");
    assert!(error.hint.contains("give the task a task role"), "{error}");
    assert_eq!(world.calls(), [("ecs:ListClusters", "credentials")]);
}
