"""SQS, as the operator receives, deletes and gives back, and as `doctor` reads a queue's settings."""

import json
import time

from calls import ACCOUNT, REGION, fresh, refused

CODE = "AWS.SimpleQueueService."
HELLO = "5d41402abc4b2a76b9719d911017c592"


def receive(aws, url, **more):
    return aws.sqs.receive_message(QueueUrl=url, **more).get("Messages", [])


def attributes(aws, url, *names):
    return aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names)).get("Attributes", {})


def test_an_unknown_queue_is_refused_by_an_error_of_its_own(aws):
    error = refused(CODE + "NonExistentQueue", 400, aws.sqs.get_queue_url, QueueName="none")
    assert isinstance(error, aws.sqs.exceptions.QueueDoesNotExist), type(error)


def test_a_deleted_queue_is_unknown(aws):
    url = aws.queue()
    aws.sqs.delete_queue(QueueUrl=url)
    for call in (aws.sqs.receive_message, aws.sqs.get_queue_attributes):
        refused(CODE + "NonExistentQueue", 400, call, QueueUrl=url)


def test_a_queue_is_made_once_and_found_by_its_name(aws):
    name = fresh("queue")
    call = {"QueueName": name, "Attributes": {"VisibilityTimeout": "60"}}
    url = aws.sqs.create_queue(**call, tags={"a": "b"})["QueueUrl"]
    assert url.endswith(f"/{ACCOUNT}/{name}")
    assert aws.sqs.create_queue(**call)["QueueUrl"] == url
    assert aws.sqs.get_queue_url(QueueName=name)["QueueUrl"] == url
    assert aws.sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"a": "b"}
    assert aws.sqs.list_queues(QueueNamePrefix=name)["QueueUrls"] == [url]


def test_a_queue_is_not_made_again_with_other_settings(aws):
    name = fresh("queue")
    aws.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "60"})
    other = {"QueueName": name, "Attributes": {"VisibilityTimeout": "61"}}
    refused("QueueAlreadyExists", 400, aws.sqs.create_queue, **other)


def test_list_queues_pages(aws):
    prefix = fresh("pages")
    for n in range(3):
        aws.sqs.create_queue(QueueName=f"{prefix}-{n}")
    pages = aws.sqs.get_paginator("list_queues").paginate(QueueNamePrefix=prefix, PaginationConfig={"PageSize": 2})
    assert [len(page["QueueUrls"]) for page in pages] == [2, 1]


def test_settings_of_a_queue_are_told_as_texts(aws):
    dead = aws.queue_arn(aws.queue())
    redrive = {"deadLetterTargetArn": dead, "maxReceiveCount": 5}
    url = aws.queue(VisibilityTimeout="60", MessageRetentionPeriod="600", RedrivePolicy=json.dumps(redrive))
    found = attributes(aws, url, "VisibilityTimeout", "MessageRetentionPeriod", "RedrivePolicy", "QueueArn")
    told = json.loads(found.pop("RedrivePolicy"))
    assert {**told, "maxReceiveCount": int(told["maxReceiveCount"])} == redrive
    name = url.rpartition("/")[2]
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"
    assert found == {"VisibilityTimeout": "60", "MessageRetentionPeriod": "600", "QueueArn": arn}


def test_a_queue_without_redrive_has_no_such_attribute(aws):
    assert "RedrivePolicy" not in attributes(aws, aws.queue(), "All")


def test_settings_of_a_queue_default_to_those_that_sqs_documents(aws):
    found = attributes(aws, aws.queue(), "All")
    assert (found["VisibilityTimeout"], found["MessageRetentionPeriod"]) == ("30", "345600")


def test_the_policy_of_a_queue_is_told_as_it_was_set(aws):
    url = aws.queue()
    statement = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = {"Version": "2012-10-17", "Statement": [{**statement, "Resource": aws.queue_arn(url)}]}
    aws.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
    assert json.loads(attributes(aws, url, "Policy")["Policy"]) == policy


def test_a_setting_that_is_no_number_is_refused(aws):
    bad = {"QueueUrl": aws.queue(), "Attributes": {"VisibilityTimeout": "x"}}
    refused("InvalidAttributeValue", 400, aws.sqs.set_queue_attributes, **bad)


def test_a_message_is_received_as_it_was_sent(aws):
    url = aws.queue()
    attribute = {"n": {"DataType": "String", "StringValue": "v"}}
    sent = aws.sqs.send_message(QueueUrl=url, MessageBody="hello", MessageAttributes=attribute)
    assert sent["MD5OfMessageBody"] == HELLO and sent["MD5OfMessageAttributes"]
    message = receive(aws, url, AttributeNames=["All"], MessageAttributeNames=["All"])[0]
    assert (message["MessageId"], message["Body"], message["MD5OfBody"]) == (sent["MessageId"], "hello", HELLO)
    assert message["MessageAttributes"] == attribute


def test_a_message_says_when_it_was_sent_and_how_often_received(aws):
    url = aws.queue(VisibilityTimeout="0")
    aws.sqs.send_message(QueueUrl=url, MessageBody="hello")
    for count in ("1", "2"):
        names = ["SentTimestamp", "ApproximateReceiveCount"]
        found = receive(aws, url, MessageSystemAttributeNames=names)[0]["Attributes"]
        assert found.keys() == set(names) and found["ApproximateReceiveCount"] == count
        assert abs(int(found["SentTimestamp"]) / 1000 - time.time()) < 60


def test_a_received_message_is_hidden_and_counted_as_in_flight(aws):
    url = aws.queue()
    aws.sqs.send_message(QueueUrl=url, MessageBody="hello")
    assert receive(aws, url) and not receive(aws, url)
    counts = attributes(aws, url, "All")
    assert counts["ApproximateNumberOfMessagesNotVisible"] == "1"
    assert counts["ApproximateNumberOfMessages"] == "0"


def test_an_empty_receive_has_no_messages_field(aws):
    assert "Messages" not in aws.sqs.receive_message(QueueUrl=aws.queue())


def test_a_message_that_is_given_back_comes_again_at_once(aws):
    url = aws.queue()
    aws.sqs.send_message(QueueUrl=url, MessageBody="hello")
    handle = receive(aws, url)[0]["ReceiptHandle"]
    entries = [{"Id": "0", "ReceiptHandle": handle, "VisibilityTimeout": 0}]
    given = aws.sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries)
    assert [one["Id"] for one in given["Successful"]] == ["0"] and not given.get("Failed")
    assert receive(aws, url)[0]["Body"] == "hello"


def test_a_message_that_is_not_in_flight_is_not_given_back(aws):
    url = aws.queue()
    aws.sqs.send_message(QueueUrl=url, MessageBody="hello")
    call = {"QueueUrl": url, "ReceiptHandle": receive(aws, url)[0]["ReceiptHandle"], "VisibilityTimeout": 0}
    aws.sqs.change_message_visibility(**call)
    refused(CODE + "MessageNotInflight", 400, aws.sqs.change_message_visibility, **call)


def test_a_message_that_was_received_too_often_is_dead(aws):
    dead = aws.queue()
    redrive = json.dumps({"deadLetterTargetArn": aws.queue_arn(dead), "maxReceiveCount": "1"})
    url = aws.queue(RedrivePolicy=redrive, VisibilityTimeout="0")
    aws.sqs.send_message(QueueUrl=url, MessageBody="hello")
    assert receive(aws, url) and not receive(aws, url)
    assert receive(aws, dead)[0]["Body"] == "hello"


def test_a_dead_message_says_where_it_died(aws):
    dead = aws.queue()
    redrive = json.dumps({"deadLetterTargetArn": aws.queue_arn(dead), "maxReceiveCount": "1"})
    url = aws.queue(RedrivePolicy=redrive, VisibilityTimeout="0")
    aws.sqs.send_message(QueueUrl=url, MessageBody="hello")
    receive(aws, url), receive(aws, url)
    source = "DeadLetterQueueSourceArn"
    found = receive(aws, dead, MessageSystemAttributeNames=["All"])[0]["Attributes"]
    assert found.get(source) == aws.queue_arn(url)


def ten(url):
    return {"QueueUrl": url, "Entries": [{"Id": str(n), "MessageBody": f"m{n}"} for n in range(10)]}


def test_ten_messages_are_sent_received_and_deleted_at_once(aws):
    url = aws.queue()
    assert len(aws.sqs.send_message_batch(**ten(url))["Successful"]) == 10
    messages = receive(aws, url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
    assert sorted(message["Body"] for message in messages) == [f"m{n}" for n in range(10)]
    handles = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
    deleted = aws.sqs.delete_message_batch(QueueUrl=url, Entries=handles)
    assert len(deleted["Successful"]) == 10 and not deleted.get("Failed")
    assert attributes(aws, url, "All")["ApproximateNumberOfMessagesNotVisible"] == "0"


def test_a_batch_deletes_what_it_can_and_names_what_it_cannot(aws):
    url = aws.queue()
    aws.sqs.send_message(QueueUrl=url, MessageBody="hello")
    good = {"Id": "good", "ReceiptHandle": receive(aws, url)[0]["ReceiptHandle"]}
    deleted = aws.sqs.delete_message_batch(QueueUrl=url, Entries=[good, {"Id": "bad", "ReceiptHandle": "x"}])
    assert [one["Id"] for one in deleted["Successful"]] == ["good"]
    failed = [(one["Id"], one["Code"], one["SenderFault"]) for one in deleted.get("Failed", [])]
    assert failed == [("bad", "ReceiptHandleIsInvalid", True)]


def test_a_message_is_not_deleted_by_a_receipt_that_is_none(aws):
    call = {"QueueUrl": aws.queue(), "ReceiptHandle": "x"}
    refused("ReceiptHandleIsInvalid", 400, aws.sqs.delete_message, **call)


def test_a_batch_of_more_than_ten_is_refused(aws):
    batch = ten(aws.queue())
    batch["Entries"].append({"Id": "x", "MessageBody": "m"})
    refused(CODE + "TooManyEntriesInBatchRequest", 400, aws.sqs.send_message_batch, **batch)


def test_a_batch_with_one_id_twice_is_refused(aws):
    batch = ten(aws.queue())
    batch["Entries"] = batch["Entries"][:1] * 2
    refused(CODE + "BatchEntryIdsNotDistinct", 400, aws.sqs.send_message_batch, **batch)


def test_an_empty_batch_is_refused(aws):
    refused(CODE + "EmptyBatchRequest", 400, aws.sqs.delete_message_batch, QueueUrl=aws.queue(), Entries=[])


def test_more_than_ten_messages_cannot_be_asked_for(aws):
    call = {"QueueUrl": aws.queue(), "MaxNumberOfMessages": 11}
    refused("InvalidParameterValue", 400, aws.sqs.receive_message, **call)


def test_a_purged_queue_is_empty(aws):
    url = aws.queue()
    aws.sqs.send_message(QueueUrl=url, MessageBody="hello")
    aws.sqs.purge_queue(QueueUrl=url)
    assert not receive(aws, url)
