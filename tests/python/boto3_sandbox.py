"""Walks the sandbox's AWS with boto3, as a user's own scripts would.

Needs boto3 (written with 1.44.5) and a sandbox at AWS_ENDPOINT_URL whose tasks live by the default times. botocore
parses every answer by AWS's own service models, so a wrong shape shows as a missing field.
"""

import datetime
import json
import time

import boto3
import botocore
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

CONFIG = Config(retries={"max_attempts": 1})
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}
FAST = {"Delay": 0.1, "MaxAttempts": 100}


def client(name, **more):
    return boto3.client(name, config=CONFIG, **more)


def refused(code, status, call, **arguments):
    """The call fails with this code and status; returns the error."""
    try:
        call(**arguments)
    except ClientError as error:
        found = (error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"])
        assert found == (code, status), f"{found} instead of {(code, status)}: {error}"
        assert error.response["Error"]["Message"], error.response
        return error
    raise AssertionError(f"{call} with {arguments} was not refused")


def ecs_tasks(ecs):
    cluster = ecs.create_cluster(clusterName="boto", tags=[{"key": "a", "value": "b"}])["cluster"]
    assert cluster["clusterArn"].endswith(":cluster/boto") and cluster["status"] == "ACTIVE"
    assert cluster["clusterArn"] in ecs.get_paginator("list_clusters").paginate().build_full_result()["clusterArns"]
    refused("ClusterNotFoundException", 400, ecs.list_tasks, cluster="none")
    refused("ClientException", 400, ecs.describe_task_definition, taskDefinition="none")

    definition = ecs.register_task_definition(
        family="boto",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="256",
        memory="512",
        taskRoleArn="arn:aws:iam::111122223333:role/boto",
        containerDefinitions=[
            {"name": "app", "image": "app:1", "portMappings": [{"containerPort": 80}], "dockerLabels": {"x": "y"}}
        ],
        tags=[{"key": "k", "value": "v"}],
    )["taskDefinition"]
    described = ecs.describe_task_definition(taskDefinition="boto", include=["TAGS"])
    assert described["taskDefinition"] == definition and described["tags"] == [{"key": "k", "value": "v"}]
    assert definition["containerDefinitions"][0]["essential"] is True
    assert isinstance(definition["registeredAt"], datetime.datetime)
    listed = ecs.get_paginator("list_task_definitions").paginate(familyPrefix="boto").build_full_result()
    assert listed["taskDefinitionArns"] == [definition["taskDefinitionArn"]]

    run = {"cluster": "boto", "taskDefinition": "boto", "networkConfiguration": NETWORK}
    refused("InvalidParameterException", 400, ecs.run_task, cluster="boto", taskDefinition="boto")
    refused("InvalidParameterException", 400, ecs.run_task, **{**run, "count": 11})
    started = ecs.run_task(**run, count=5, startedBy="me", tags=[{"key": "t", "value": "1"}])
    assert started["failures"] == [] and len(started["tasks"]) == 5
    arns = [task["taskArn"] for task in started["tasks"]]
    assert started["tasks"][0]["lastStatus"] == "PROVISIONING" and started["tasks"][0]["group"] == "family:boto"
    ecs.get_waiter("tasks_running").wait(cluster="boto", tasks=arns, WaiterConfig=FAST)
    pages = list(ecs.get_paginator("list_tasks").paginate(cluster="boto", PaginationConfig={"PageSize": 2}))
    assert [len(page["taskArns"]) for page in pages] == [2, 2, 1]
    for filters, count in [({"startedBy": "me"}, 5), ({"startedBy": "you"}, 0), ({"family": "boto"}, 5)]:
        assert len(ecs.list_tasks(cluster="boto", **filters)["taskArns"]) == count, filters
    refused("InvalidParameterException", 400, ecs.list_tasks, cluster="boto", nextToken="?")

    tasks = ecs.describe_tasks(cluster="boto", tasks=[*arns, "0" * 32], include=["TAGS"])
    assert tasks["failures"] == [{"arn": arns[0][:-32] + "0" * 32, "reason": "MISSING"}], tasks["failures"]
    task = tasks["tasks"][0]
    assert task["tags"] == [{"key": "t", "value": "1"}] and task["version"] == 5 and task["launchType"] == "FARGATE"
    attachment = task["attachments"][0]
    details = {detail["name"]: detail["value"] for detail in attachment["details"]}
    assert attachment["type"] == "ElasticNetworkInterface" and attachment["status"] == "ATTACHED"
    address = task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"]
    assert details["privateIPv4Address"] == address and address.startswith("10.0.")
    assert task["createdAt"] <= task["pullStartedAt"] <= task["pullStoppedAt"] <= task["startedAt"]

    ecs.tag_resource(resourceArn=arns[0], tags=[{"key": "u", "value": "2"}])
    ecs.untag_resource(resourceArn=arns[0], tagKeys=["t"])
    assert ecs.list_tags_for_resource(resourceArn=arns[0])["tags"] == [{"key": "u", "value": "2"}]
    refused("InvalidParameterException", 400, ecs.list_tags_for_resource, resourceArn=arns[0][:-1] + "!")

    stopping = ecs.stop_task(cluster="boto", task=arns[0], reason="enough")["task"]
    assert (stopping["lastStatus"], stopping["desiredStatus"]) == ("RUNNING", "STOPPED")
    ecs.get_waiter("tasks_stopped").wait(cluster="boto", tasks=arns[:1], WaiterConfig=FAST)
    stopped = ecs.describe_tasks(cluster="boto", tasks=arns[:1])["tasks"][0]
    assert (stopped["stopCode"], stopped["stoppedReason"]) == ("UserInitiated", "enough")
    assert stopped["containers"][0]["exitCode"] == 0 and stopped["stoppedAt"] >= stopped["stoppingAt"]
    assert ecs.list_tasks(cluster="boto", desiredStatus="STOPPED")["taskArns"] == arns[:1]
    assert ecs.list_container_instances(cluster="boto")["containerInstanceArns"] == []
    for arn in arns[1:]:
        ecs.stop_task(cluster="boto", task=arn)
    ecs.get_waiter("tasks_stopped").wait(cluster="boto", tasks=arns, WaiterConfig=FAST)


def ecs_services(ecs):
    service = ecs.create_service(
        cluster="boto", serviceName="web", taskDefinition="boto", desiredCount=2, networkConfiguration=NETWORK
    )["service"]
    assert (service["status"], service["desiredCount"]) == ("ACTIVE", 2)
    stable = ecs.get_waiter("services_stable")
    stable.wait(cluster="boto", services=["web"], WaiterConfig=FAST)
    before = set(ecs.list_tasks(cluster="boto", serviceName="web")["taskArns"])
    assert len(before) == 2
    ecs.update_service(cluster="boto", service="web", desiredCount=3, forceNewDeployment=True)
    stable.wait(cluster="boto", services=["web"], WaiterConfig=FAST)
    after = set(ecs.list_tasks(cluster="boto", serviceName="web")["taskArns"])
    assert len(after) == 3 and not after & before
    described = ecs.describe_services(cluster="boto", services=["web", "none"], include=["TAGS"])
    assert described["failures"][0]["reason"] == "MISSING"
    deployment = described["services"][0]["deployments"][0]
    assert (deployment["status"], deployment["rolloutState"]) == ("PRIMARY", "COMPLETED"), deployment
    task = ecs.describe_tasks(cluster="boto", tasks=list(after))["tasks"][0]
    assert (task["group"], task["startedBy"]) == ("service:web", deployment["id"])
    listed = ecs.get_paginator("list_services").paginate(cluster="boto").build_full_result()
    assert listed["serviceArns"] == [service["serviceArn"]]
    refused("ServiceNotFoundException", 400, ecs.update_service, cluster="boto", service="none")
    refused("InvalidParameterException", 400, ecs.delete_service, cluster="boto", service="web")
    refused("ClusterContainsTasksException", 400, ecs.delete_cluster, cluster="boto")
    assert ecs.delete_service(cluster="boto", service="web", force=True)["service"]["status"] == "DRAINING"
    ecs.get_waiter("services_inactive").wait(cluster="boto", services=["web"], WaiterConfig=FAST)
    assert ecs.delete_cluster(cluster="boto")["cluster"]["status"] == "INACTIVE"
    assert ecs.describe_clusters(clusters=["boto"])["failures"][0]["reason"] == "MISSING"


def sqs_queues(sqs):
    missing = refused("AWS.SimpleQueueService.NonExistentQueue", 400, sqs.get_queue_url, QueueName="none")
    assert isinstance(missing, sqs.exceptions.QueueDoesNotExist), type(missing)
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    names = ["QueueArn"]
    dead_arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=names)["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": "1"})
    url = sqs.create_queue(
        QueueName="boto", Attributes={"VisibilityTimeout": "60", "RedrivePolicy": redrive}, tags={"a": "b"}
    )["QueueUrl"]
    assert sqs.create_queue(QueueName="boto", Attributes={"VisibilityTimeout": "60"})["QueueUrl"] == url
    taken = {"QueueName": "boto", "Attributes": {"VisibilityTimeout": "61"}}
    refused("QueueAlreadyExists", 400, sqs.create_queue, **taken)
    assert sqs.get_queue_url(QueueName="boto")["QueueUrl"] == url
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"a": "b"}
    assert sqs.list_queues(QueueNamePrefix="bo")["QueueUrls"] == [url]
    pages = list(sqs.get_paginator("list_queues").paginate(PaginationConfig={"PageSize": 1}))
    assert len(pages) == 2

    attribute = {"n": {"DataType": "String", "StringValue": "v"}}
    sent = sqs.send_message(QueueUrl=url, MessageBody="hello", MessageAttributes=attribute)
    assert sent["MD5OfMessageBody"] == "5d41402abc4b2a76b9719d911017c592" and sent["MD5OfMessageAttributes"]
    message = sqs.receive_message(QueueUrl=url, AttributeNames=["All"], MessageAttributeNames=["All"])["Messages"][0]
    assert (message["Body"], message["MD5OfBody"]) == ("hello", sent["MD5OfMessageBody"])
    assert message["MessageAttributes"] == attribute
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    assert abs(int(message["Attributes"]["SentTimestamp"]) / 1000 - time.time()) < 60
    counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert counts["ApproximateNumberOfMessagesNotVisible"] == "1" and counts["ApproximateNumberOfMessages"] == "0"
    handle = message["ReceiptHandle"]
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
    again = {"QueueUrl": url, "ReceiptHandle": handle, "VisibilityTimeout": 0}
    refused("AWS.SimpleQueueService.MessageNotInflight", 400, sqs.change_message_visibility, **again)
    assert "Messages" not in sqs.receive_message(QueueUrl=url), "received once already: it is dead"
    buried = sqs.receive_message(QueueUrl=dead, MessageSystemAttributeNames=["DeadLetterQueueSourceArn"])
    assert buried["Messages"][0]["Attributes"]["DeadLetterQueueSourceArn"].endswith(":boto")
    refused("ReceiptHandleIsInvalid", 400, sqs.delete_message, QueueUrl=url, ReceiptHandle="x")

    entries = [{"Id": str(n), "MessageBody": f"m{n}"} for n in range(10)]
    assert len(sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 10
    code = "AWS.SimpleQueueService."
    many = {"QueueUrl": url, "Entries": [*entries, {"Id": "x", "MessageBody": "m"}]}
    refused(code + "TooManyEntriesInBatchRequest", 400, sqs.send_message_batch, **many)
    same = {"QueueUrl": url, "Entries": [entries[0], entries[0]]}
    refused(code + "BatchEntryIdsNotDistinct", 400, sqs.send_message_batch, **same)
    refused(code + "EmptyBatchRequest", 400, sqs.send_message_batch, QueueUrl=url, Entries=[])
    received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)["Messages"]
    assert sorted(message["Body"] for message in received) == [f"m{n}" for n in range(10)]
    refused("InvalidParameterValue", 400, sqs.receive_message, QueueUrl=url, MaxNumberOfMessages=11)
    handles = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(received)]
    longer = [{**entry, "VisibilityTimeout": 90} for entry in handles]
    assert len(sqs.change_message_visibility_batch(QueueUrl=url, Entries=longer)["Successful"]) == 10
    handles[0]["ReceiptHandle"] = "x"
    deleted = sqs.delete_message_batch(QueueUrl=url, Entries=handles)
    assert len(deleted["Successful"]) == 9
    assert (deleted["Failed"][0]["Code"], deleted["Failed"][0]["SenderFault"]) == ("ReceiptHandleIsInvalid", True)
    sqs.purge_queue(QueueUrl=url)
    bad = {"QueueUrl": url, "Attributes": {"VisibilityTimeout": "x"}}
    refused("InvalidAttributeValue", 400, sqs.set_queue_attributes, **bad)
    sqs.delete_queue(QueueUrl=url)
    refused("AWS.SimpleQueueService.NonExistentQueue", 400, sqs.receive_message, QueueUrl=url)


def events_and_roles(events, sqs, ecs, iam):
    url = sqs.create_queue(QueueName="changes")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = json.dumps({"source": ["aws.ecs", "aws.iam", "mine"]})
    rule = events.put_rule(Name="changes", EventPattern=pattern, Description="d")["RuleArn"]
    refused("InvalidEventPatternException", 400, events.put_rule, Name="bad", EventPattern='{"a": "b"}')
    assert events.put_targets(Rule="changes", Targets=[{"Id": "1", "Arn": arn}])["FailedEntryCount"] == 0
    described = events.describe_rule(Name="changes")
    assert (described["Arn"], described["EventPattern"], described["State"]) == (rule, pattern, "ENABLED")
    assert [one["Name"] for one in events.list_rules(NamePrefix="ch")["Rules"]] == ["changes"]
    assert events.list_targets_by_rule(Rule="changes")["Targets"] == [{"Id": "1", "Arn": arn}]
    entry = {"Source": "mine", "DetailType": "t", "Detail": '{"x": 1}'}
    put = events.put_events(Entries=[entry, {**entry, "Source": "aws.ecs"}])
    assert put["FailedEntryCount"] == 1 and put["Entries"][0]["EventId"]
    assert put["Entries"][1]["ErrorCode"] == "NotAuthorizedForSourceException"

    trust = {"Version": "2012-10-17", "Statement": []}
    made = iam.create_role(
        RoleName="boto", Path="/team/", AssumeRolePolicyDocument=json.dumps(trust), Tags=[{"Key": "a", "Value": "<&>"}]
    )["Role"]
    assert made["Arn"] == "arn:aws:iam::111122223333:role/team/boto"
    assert made["AssumeRolePolicyDocument"] == trust and isinstance(made["CreateDate"], datetime.datetime)
    refused("EntityAlreadyExists", 409, iam.create_role, RoleName="boto", AssumeRolePolicyDocument="{}")
    missing = refused("NoSuchEntity", 404, iam.get_role, RoleName="none")
    assert isinstance(missing, iam.exceptions.NoSuchEntityException)
    iam.tag_role(RoleName="boto", Tags=[{"Key": "mesh", "Value": "x"}])
    assert iam.get_role(RoleName="boto")["Role"]["Tags"] == [
        {"Key": "a", "Value": "<&>"},
        {"Key": "mesh", "Value": "x"},
    ]
    iam.untag_role(RoleName="boto", TagKeys=["a"])
    assert iam.list_role_tags(RoleName="boto")["Tags"] == [{"Key": "mesh", "Value": "x"}]
    for n in range(5):
        iam.create_role(RoleName=f"r{n}", AssumeRolePolicyDocument="{}")
    pages = list(iam.get_paginator("list_roles").paginate(PaginationConfig={"PageSize": 4}))
    assert [len(page["Roles"]) for page in pages] == [4, 2]
    assert all("Tags" not in role for page in pages for role in page["Roles"])
    iam.put_role_policy(RoleName="boto", PolicyName="p", PolicyDocument=json.dumps(trust))
    assert iam.get_role_policy(RoleName="boto", PolicyName="p")["PolicyDocument"] == trust
    refused("DeleteConflict", 409, iam.delete_role, RoleName="boto")
    iam.delete_role_policy(RoleName="boto", PolicyName="p")

    ecs.create_cluster(clusterName="events")
    override = {"taskRoleArn": made["Arn"]}
    ecs.run_task(cluster="events", taskDefinition="boto", networkConfiguration=NETWORK, overrides=override)
    iam.delete_role(RoleName="boto")
    told = []
    while not any(one["detail"].get("lastStatus") == "RUNNING" for one in told):
        batch = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=10)["Messages"]
        told += [json.loads(message["Body"]) for message in batch]
        for message in batch:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    calls = [one["detail"]["eventName"] for one in told if one["source"] == "aws.iam"]
    assert calls == ["TagRole", "UntagRole", "DeleteRole"], calls
    running = told[-1]["detail"]
    assert running["overrides"]["taskRoleArn"] == made["Arn"] and running["version"] == 5
    assert running["attachments"][0]["type"] == "eni" and running["updatedAt"].endswith("Z")
    assert told[0]["source"] == "mine" and told[0]["detail"] == {"x": 1}
    refused("ValidationException", 400, events.delete_rule, Name="changes")
    assert events.remove_targets(Rule="changes", Ids=["1", "2"])["FailedEntryCount"] == 1
    events.delete_rule(Name="changes")
    refused("ResourceNotFoundException", 400, events.describe_rule, Name="changes")


def sts_identities(sts, iam):
    assert sts.get_caller_identity()["Account"] == "111122223333"
    role = iam.create_role(RoleName="task", AssumeRolePolicyDocument="{}")["Role"]
    assumed = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="one")
    credentials = assumed["Credentials"]
    assert credentials["Expiration"] > datetime.datetime.now(datetime.timezone.utc)
    there = client(
        "sts",
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
    )
    assert there.get_caller_identity()["Arn"] == assumed["AssumedRoleUser"]["Arn"]
    refused("AccessDenied", 403, sts.assume_role, RoleArn=role["Arn"] + "x", RoleSessionName="one")


def unsigned():
    nobody = Config(signature_version=UNSIGNED, retries={"max_attempts": 1})
    call = boto3.client("ecs", config=nobody).list_clusters
    refused("MissingAuthenticationTokenException", 400, call)
    refused("MissingAuthenticationToken", 403, boto3.client("iam", config=nobody).list_roles)


def main():
    ecs, sqs, events, iam, sts = map(client, ("ecs", "sqs", "events", "iam", "sts"))
    ecs_tasks(ecs)
    ecs_services(ecs)
    sqs_queues(sqs)
    events_and_roles(events, sqs, ecs, iam)
    sts_identities(sts, iam)
    unsigned()
    print(f"boto3 {boto3.__version__}, botocore {botocore.__version__}: all as expected")


if __name__ == "__main__":
    main()
