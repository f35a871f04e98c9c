"""Container instances and their EC2 instances, as the operator reads them for tasks in network mode host."""

import json

from calls import ACCOUNT, REGION, rejected

UNKNOWN = "0" * 32
NO_INSTANCE = "i-00000000000000000"


def ec2_instance(aws):
    """An instance of EC2 alone."""
    ec2 = aws.uncompared_ec2()
    image = ec2.describe_images()["Images"][0]["ImageId"]
    return ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]


def container_instance(aws, cluster):
    """A container instance of the cluster, and its EC2 instance."""
    if aws.server == "sandbox":
        # An instance exists once a task was placed on it.
        family = aws.family(networkMode="host", requiresCompatibilities=["EC2"])["family"]
        task = aws.ecs.run_task(cluster=cluster, taskDefinition=family, launchType="EC2")["tasks"][0]
        arn = aws.running(cluster, task)["containerInstanceArn"]
    else:
        document = json.dumps({"instanceId": ec2_instance(aws), "accountId": ACCOUNT, "region": REGION})
        call = {"cluster": cluster, "instanceIdentityDocument": document}
        arn = aws.ecs.register_container_instance(**call)["containerInstance"]["containerInstanceArn"]
    answer = aws.ecs.describe_container_instances(cluster=cluster, containerInstances=[arn])
    [found] = answer["containerInstances"]
    assert (found["containerInstanceArn"], answer["failures"]) == (arn, [])
    return arn, found["ec2InstanceId"]


def shown(aws, ids):
    """The instances that EC2 shows of these."""
    answer = aws.ec2.describe_instances(Filters=[{"Name": "instance-id", "Values": ids}], MaxResults=1000)
    return [instance for reservation in answer["Reservations"] for instance in reservation["Instances"]]


def test_describe_container_instances_returns_ec2_instances(aws):
    _, instance = container_instance(aws, aws.cluster())
    assert instance.startswith("i-")


def test_describe_container_instances_reports_unknown_instances_as_missing(aws):
    cluster = aws.cluster()
    arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:container-instance/{cluster}/{UNKNOWN}"
    answer = aws.ecs.describe_container_instances(cluster=cluster, containerInstances=[arn])
    assert answer["containerInstances"] == []
    assert answer["failures"] == [{"arn": arn, "reason": "MISSING"}]


def test_describe_container_instances_rejects_more_than_a_hundred_instances(aws):
    call = {"cluster": aws.cluster(), "containerInstances": [UNKNOWN] * 101}
    rejected("InvalidParameterException", 400, aws.ecs.describe_container_instances, **call)


def test_describe_instances_returns_the_primary_private_address(aws):
    id = container_instance(aws, aws.cluster())[1] if aws.server == "sandbox" else ec2_instance(aws)
    [instance] = shown(aws, [id, NO_INSTANCE])
    assert instance["InstanceId"] == id
    [primary] = [one for one in instance["NetworkInterfaces"] if one["Attachment"]["DeviceIndex"] == 0]
    assert primary["PrivateIpAddress"] == instance["PrivateIpAddress"]


def test_describe_instances_omits_unknown_instances_of_a_filter(aws):
    assert shown(aws, [NO_INSTANCE]) == []
