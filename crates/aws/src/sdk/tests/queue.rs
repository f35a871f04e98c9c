//! Messages are received, deleted and released, and the queue's settings are read.

use super::*;

#[tokio::test]
async fn received_message_has_sent_time_and_count() {
    let world = SdkFixture::answering([
        ok(&json!({"Messages": [
            {"MessageId": "m", "ReceiptHandle": "r1", "Body": "{}",
             "Attributes": {"SentTimestamp": "1795317818145", "ApproximateReceiveCount": "3"}},
            {"MessageId": "n", "ReceiptHandle": "r2", "Body": "x"},
        ]})),
        ok(&json!({})),
    ])
    .await;
    let messages = world.queue().receive().await.unwrap();
    assert_eq!(
        (messages[0].receipt.as_str(), messages[0].body.as_str(), messages[0].receives),
        ("r1", "{}", 3)
    );
    assert_eq!(messages[0].sent_at, Some(Timestamp(1_795_317_818_145)));
    assert_eq!((messages[1].sent_at, messages[1].receives), (None, 1));
    let asked = world.seen(0);
    assert_eq!((&asked["MaxNumberOfMessages"], &asked["WaitTimeSeconds"]), (&json!(10), &json!(20)));
    assert_eq!(asked["MessageSystemAttributeNames"], json!(["SentTimestamp", "ApproximateReceiveCount"]));
    assert_eq!(world.queue().receive().await.unwrap(), []);
}

#[tokio::test]
async fn batch_delete_returns_failed_receipts() {
    let world = SdkFixture::answering([ok(&json!({
        "Successful": [{"Id": "0"}],
        "Failed": [{"Id": "1", "SenderFault": true, "Code": "ReceiptHandleIsInvalid", "Message": "old"}],
    }))])
    .await;
    let receipts = ["r1".to_owned(), "r2".to_owned()];
    assert_eq!(world.queue().delete(&receipts).await.unwrap(), ["r2"]);
    assert_eq!(world.seen(0)["Entries"][1], json!({"Id": "1", "ReceiptHandle": "r2"}));
    assert_eq!(world.script.seen.lock().unwrap()[0].target, "AmazonSQS.DeleteMessageBatch");
}

#[tokio::test]
async fn released_messages_become_visible_at_once() {
    let failed = json!({"Successful": [], "Failed": [
        {"Id": "0", "SenderFault": true, "Code": "ReceiptHandleIsInvalid", "Message": "old"}]});
    let world =
        SdkFixture::answering([ok(&json!({"Successful": [{"Id": "0"}], "Failed": []})), ok(&failed)]).await;
    let receipts = ["r1".to_owned()];
    world.queue().release(&receipts).await.unwrap();
    assert_eq!(world.seen(0)["Entries"], json!([{"Id": "0", "ReceiptHandle": "r1", "VisibilityTimeout": 0}]));
    let error = world.queue().release(&receipts).await.unwrap_err();
    assert!(error.to_string().contains("ReceiptHandleIsInvalid: 1 of 1 messages: old"), "{error}");
}

#[tokio::test]
async fn queue_attributes_include_visibility_and_redrive() {
    let world = SdkFixture::answering([
        ok(&json!({"Attributes": {"VisibilityTimeout": "60", "MessageRetentionPeriod": "1209600",
                   "RedrivePolicy": "{\"maxReceiveCount\":5}"}})),
        ok(&json!({"Attributes": {"VisibilityTimeout": "30", "MessageRetentionPeriod": "345600"}})),
    ])
    .await;
    let good = world.queue().attributes().await.unwrap();
    assert_eq!(
        (good.visibility_timeout.as_secs(), good.retention.as_secs(), good.has_redrive),
        (60, 1_209_600, true)
    );
    assert!(!world.queue().attributes().await.unwrap().has_redrive);
}

#[tokio::test]
async fn invalid_queue_url_is_rejected() {
    let world = SdkFixture::answering([]).await;
    for bad in
        ["", "ecs-events", "arn:aws:sqs:eu-west-1:111122223333:q", "https://sqs.eu-west-1.amazonaws.com/"]
    {
        assert!(world.aws.queue(bad).is_err(), "{bad:?} was accepted");
    }
    let error = world.aws.queue("ecs-events").err().unwrap().to_string();
    assert!(error.contains("get-queue-url"), "{error}");
}

#[test]
fn queue_region_comes_from_its_url() {
    for (host, region) in [
        ("sqs.us-east-1.amazonaws.com", Some("us-east-1")),
        ("sqs.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
        ("eu-west-1.queue.amazonaws.com", Some("eu-west-1")),
        ("vpce-1.sqs.eu-west-1.vpce.amazonaws.com", None),
        ("127.0.0.1", None),
        ("localhost", None),
        ("sqs-fips.us-east-1.amazonaws.com", Some("us-east-1")),
        ("sqs.eu-west-1.api.aws", Some("eu-west-1")),
        ("sqs-fips.us-west-2.api.aws", Some("us-west-2")),
        ("sqs.cn-north-1.api.amazonwebservices.com.cn", Some("cn-north-1")),
    ] {
        assert_eq!(region_of_queue_host(host), region, "{host}");
    }
}
