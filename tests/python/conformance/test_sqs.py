"""SQS: receiving, deleting and releasing messages, and the queue settings that `doctor` reads."""

import json
import time

from calls import ACCOUNT, REGION, fresh, rejected

CODE = "AWS.SimpleQueueService."
HELLO = "5d41402abc4b2a76b9719d911017c592"


def receive(aws, url, **more):
    return aws.sqs.receive_message(QueueUrl=url, **more).get("Messages", [])


def attributes(aws, url, *names):
    return aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names)).get("Attributes", {})


def test_get_queue_url_rejects_an_unknown_queue(aws):
    error = rejected(CODE + "NonExistentQueue", 400, aws.sqs.get_queue_url, QueueName="none")
    assert isinstance(error, aws.sqs.exceptions.QueueDoesNotExist), type(error)



def test_create_queue_is_idempotent(aws):
    name = fresh("queue")
    call = {"QueueName": name, "Attributes": {"VisibilityTimeout": "60"}}
    url = aws.sqs.create_queue(**call)["QueueUrl"]
    assert url.endswith(f"/{ACCOUNT}/{name}")
    assert aws.sqs.create_queue(**call)["QueueUrl"] == url
    assert aws.sqs.get_queue_url(QueueName=name)["QueueUrl"] == url


def test_create_queue_rejects_other_attributes_for_a_name(aws):
    name = fresh("queue")
    aws.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "60"})
    other = {"QueueName": name, "Attributes": {"VisibilityTimeout": "61"}}
    rejected("QueueAlreadyExists", 400, aws.sqs.create_queue, **other)



def test_get_queue_attributes_returns_strings(aws):
    dead = aws.queue_arn(aws.queue())
    redrive = {"deadLetterTargetArn": dead, "maxReceiveCount": 5}
    url = aws.queue(VisibilityTimeout="60", MessageRetentionPeriod="600", RedrivePolicy=json.dumps(redrive))
    found = attributes(aws, url, "VisibilityTimeout", "MessageRetentionPeriod", "RedrivePolicy", "QueueArn")
    redrive_policy = json.loads(found.pop("RedrivePolicy"))
    assert {**redrive_policy, "maxReceiveCount": int(redrive_policy["maxReceiveCount"])} == redrive
    name = url.rpartition("/")[2]
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"
    assert found == {"VisibilityTimeout": "60", "MessageRetentionPeriod": "600", "QueueArn": arn}


def test_get_queue_attributes_omits_an_unset_redrive_policy(aws):
    assert "RedrivePolicy" not in attributes(aws, aws.queue(), "All")


def test_queue_attributes_have_the_documented_defaults(aws):
    found = attributes(aws, aws.queue(), "All")
    assert (found["VisibilityTimeout"], found["MessageRetentionPeriod"]) == ("30", "345600")


def test_get_queue_attributes_returns_the_policy_as_set(aws):
    url = aws.queue()
    statement = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = {"Version": "2012-10-17", "Statement": [{**statement, "Resource": aws.queue_arn(url)}]}
    aws.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
    assert json.loads(attributes(aws, url, "Policy")["Policy"]) == policy


def test_set_queue_attributes_rejects_a_non_numeric_value(aws):
    bad = {"QueueUrl": aws.queue(), "Attributes": {"VisibilityTimeout": "x"}}
    rejected("InvalidAttributeValue", 400, aws.sqs.set_queue_attributes, **bad)


def test_receive_message_returns_the_message_as_sent(aws):
    url = aws.queue()
    attribute = {"n": {"DataType": "String", "StringValue": "v"}}
    sent = aws.sqs.send_message(QueueUrl=url, MessageBody="hello", MessageAttributes=attribute)
    assert sent["MD5OfMessageBody"] == HELLO and sent["MD5OfMessageAttributes"]
    message = receive(aws, url, AttributeNames=["All"], MessageAttributeNames=["All"])[0]
    assert (message["MessageId"], message["Body"], message["MD5OfBody"]) == (sent["MessageId"], "hello", HELLO)
    assert message["MessageAttributes"] == attribute


def test_receive_message_returns_system_attributes(aws):
    url = aws.queue(VisibilityTimeout="0")
    aws.sqs.send_message(QueueUrl=url, MessageBody="hello")
    for count in ("1", "2"):
        names = ["SentTimestamp", "ApproximateReceiveCount"]
        found = receive(aws, url, MessageSystemAttributeNames=names)[0]["Attributes"]
        assert found.keys() == set(names) and found["ApproximateReceiveCount"] == count
        assert abs(int(found["SentTimestamp"]) / 1000 - time.time()) < 60


def test_received_message_is_in_flight(aws):
    url = aws.queue()
    aws.sqs.send_message(QueueUrl=url, MessageBody="hello")
    assert receive(aws, url) and not receive(aws, url)
    counts = attributes(aws, url, "All")
    assert counts["ApproximateNumberOfMessagesNotVisible"] == "1"
    assert counts["ApproximateNumberOfMessages"] == "0"


def test_receive_message_omits_messages_when_empty(aws):
    assert "Messages" not in aws.sqs.receive_message(QueueUrl=aws.queue())


def test_zero_visibility_timeout_makes_a_message_visible(aws):
    url = aws.queue()
    aws.sqs.send_message(QueueUrl=url, MessageBody="hello")
    handle = receive(aws, url)[0]["ReceiptHandle"]
    entries = [{"Id": "0", "ReceiptHandle": handle, "VisibilityTimeout": 0}]
    given = aws.sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries)
    assert [one["Id"] for one in given["Successful"]] == ["0"] and not given.get("Failed")
    assert receive(aws, url)[0]["Body"] == "hello"



def test_redrive_moves_a_message_after_max_receives(aws):
    dead = aws.queue()
    redrive = json.dumps({"deadLetterTargetArn": aws.queue_arn(dead), "maxReceiveCount": "1"})
    url = aws.queue(RedrivePolicy=redrive, VisibilityTimeout="0")
    aws.sqs.send_message(QueueUrl=url, MessageBody="hello")
    assert receive(aws, url) and not receive(aws, url)
    assert receive(aws, dead)[0]["Body"] == "hello"


def test_redriven_message_has_the_arn_of_its_source_queue(aws):
    dead = aws.queue()
    redrive = json.dumps({"deadLetterTargetArn": aws.queue_arn(dead), "maxReceiveCount": "1"})
    url = aws.queue(RedrivePolicy=redrive, VisibilityTimeout="0")
    aws.sqs.send_message(QueueUrl=url, MessageBody="hello")
    receive(aws, url), receive(aws, url)
    source = "DeadLetterQueueSourceArn"
    found = receive(aws, dead, MessageSystemAttributeNames=["All"])[0]["Attributes"]
    assert found.get(source) == aws.queue_arn(url)


def ten(url):
    return {"QueueUrl": url, "Entries": [{"Id": str(n), "ReceiptHandle": f"x{n}"} for n in range(10)]}


def test_delete_message_batch_deletes_ten_messages(aws):
    url = aws.queue()
    for n in range(10):
        aws.sqs.send_message(QueueUrl=url, MessageBody=f"m{n}")
    messages = receive(aws, url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
    assert sorted(message["Body"] for message in messages) == [f"m{n}" for n in range(10)]
    handles = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
    deleted = aws.sqs.delete_message_batch(QueueUrl=url, Entries=handles)
    assert len(deleted["Successful"]) == 10 and not deleted.get("Failed")
    assert attributes(aws, url, "All")["ApproximateNumberOfMessagesNotVisible"] == "0"


def test_delete_message_batch_reports_failures_by_entry(aws):
    url = aws.queue()
    aws.sqs.send_message(QueueUrl=url, MessageBody="hello")
    good = {"Id": "good", "ReceiptHandle": receive(aws, url)[0]["ReceiptHandle"]}
    deleted = aws.sqs.delete_message_batch(QueueUrl=url, Entries=[good, {"Id": "bad", "ReceiptHandle": "x"}])
    assert [one["Id"] for one in deleted["Successful"]] == ["good"]
    failed = [(one["Id"], one["Code"], one["SenderFault"]) for one in deleted.get("Failed", [])]
    assert failed == [("bad", "ReceiptHandleIsInvalid", True)]


def test_delete_message_rejects_an_invalid_receipt_handle(aws):
    call = {"QueueUrl": aws.queue(), "ReceiptHandle": "x"}
    rejected("ReceiptHandleIsInvalid", 400, aws.sqs.delete_message, **call)


def test_delete_message_batch_rejects_more_than_ten_entries(aws):
    batch = ten(aws.queue())
    batch["Entries"].append({"Id": "x", "ReceiptHandle": "x"})
    rejected(CODE + "TooManyEntriesInBatchRequest", 400, aws.sqs.delete_message_batch, **batch)


def test_delete_message_batch_rejects_duplicate_ids(aws):
    batch = ten(aws.queue())
    batch["Entries"] = batch["Entries"][:1] * 2
    rejected(CODE + "BatchEntryIdsNotDistinct", 400, aws.sqs.delete_message_batch, **batch)


def test_delete_message_batch_rejects_an_empty_batch(aws):
    rejected(CODE + "EmptyBatchRequest", 400, aws.sqs.delete_message_batch, QueueUrl=aws.queue(), Entries=[])


def test_receive_message_rejects_more_than_ten_messages(aws):
    call = {"QueueUrl": aws.queue(), "MaxNumberOfMessages": 11}
    rejected("InvalidParameterValue", 400, aws.sqs.receive_message, **call)
