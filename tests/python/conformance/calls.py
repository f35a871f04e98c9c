"""Clients and helpers of the test functions."""

import itertools
import json
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from servers import ACCOUNT, REGION
from shapes import Findings

TIMEOUT = 30
# The time limit of a wait that is known to fail.
KNOWN_FAILURE_TIMEOUT = 2
NAMES = itertools.count(1)
# The findings in the responses of each server, by call.
FINDINGS = {}

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ecs-tasks.amazonaws.com"}}],
}


def fresh(what):
    """A name that no other test uses: the tests share each server."""
    return f"{what}-{next(NAMES)}"


def rejected(code, status, call, **arguments):
    """The call fails with this code and status; returns the error."""
    try:
        answer = call(**arguments)
    except ClientError as error:
        found = (error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"])
        assert found == (code, status), error
        assert error.response["Error"]["Message"], error.response
        return error
    answer.pop("ResponseMetadata", None)
    raise AssertionError(f"not rejected; the response is {str(answer)[:200]}")


class Waiting:
    timeout = TIMEOUT


def eventually(look):
    """The first result of `look` that is true."""
    end = time.monotonic() + Waiting.timeout
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, "timed out"
        time.sleep(0.1)


class Aws:
    """Clients of one server. Each response is also checked against AWS's model."""

    def __init__(self, server, endpoint):
        self.server = server
        self.endpoint = endpoint
        self.findings = {}
        self.ecs, self.ec2, self.sqs, self.events, self.iam, self.sts = map(
            self.client, ("ecs", "ec2", "sqs", "events", "iam", "sts")
        )
        self.secretsmanager, self.ssm = map(self.client, ("secretsmanager", "ssm"))
        self.dynamodb = self.client("dynamodb")
        self.s3 = self.client("s3", config=Config(s3={"addressing_style": "path"}))
        subnet = "subnet-1" if server == "sandbox" else self._default_subnet()
        self.network = {"awsvpcConfiguration": {"subnets": [subnet], "securityGroups": []}}

    def client(self, service, **more):
        config = more.pop("config", Config())
        config = Config(retries={"total_max_attempts": 1}).merge(config)
        # ministack takes an access key of 12 digits for the account.
        given = {"aws_access_key_id": ACCOUNT, "aws_secret_access_key": "secret", "region_name": REGION, **more}
        client = boto3.client(service, endpoint_url=self.endpoint, config=config, **given)
        client.meta.events.register("before-parse.*.*", self._read)
        return client

    def _read(self, operation_model, response_dict, **_):
        if response_dict["status_code"] == 200:
            key = f"{operation_model.service_model.service_name}.{operation_model.name}"
            self.findings.setdefault(key, Findings()).read(operation_model, response_dict["body"])

    def uncompared_ec2(self):
        """A client of EC2 for calls that the sandbox does not have."""
        ec2 = self.client("ec2")
        ec2.meta.events.unregister("before-parse.*.*", self._read)
        return ec2

    def _default_subnet(self):
        # The sandbox accepts any subnet.
        return self.uncompared_ec2().describe_subnets()["Subnets"][0]["SubnetId"]

    # Fixtures of many tests.

    def cluster(self):
        name = fresh("cluster")
        self.ecs.create_cluster(clusterName=name)
        return name

    def family(self, **more):
        app = {
            "name": "app",
            "image": "app:1",
            "cpu": 64,
            "memory": 128,
            "portMappings": [{"containerPort": 80}],
            "dockerLabels": {"x": "y"},
        }
        definition = {
            "family": fresh("family"),
            "networkMode": "awsvpc",
            "requiresCompatibilities": ["FARGATE"],
            "cpu": "256",
            "memory": "512",
            "taskRoleArn": f"arn:aws:iam::{ACCOUNT}:role/team/app",
            "containerDefinitions": [app],
            **more,
        }
        return self.ecs.register_task_definition(**definition)["taskDefinition"]

    def run(self, cluster, **more):
        """Starts tasks and returns them."""
        family = more.pop("family", None) or self.family()["family"]
        call = {"launchType": "FARGATE", "networkConfiguration": self.network, **more}
        return self.ecs.run_task(cluster=cluster, taskDefinition=family, **call)["tasks"]

    def described(self, cluster, task, **more):
        return self.ecs.describe_tasks(cluster=cluster, tasks=[task["taskArn"]], **more)["tasks"][0]

    def running(self, cluster, task):
        def look():
            found = self.described(cluster, task)
            return found if found["lastStatus"] == "RUNNING" else None

        return eventually(look)

    def queue(self, **attributes):
        return self.sqs.create_queue(QueueName=fresh("queue"), Attributes=attributes)["QueueUrl"]

    def queue_arn(self, url):
        return self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

    def rule(self, pattern, url):
        """Creates a rule that sends to the queue, and returns its name."""
        name = fresh("rule")
        self.events.put_rule(Name=name, EventPattern=json.dumps(pattern))
        self.events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": self.queue_arn(url)}])
        return name

    def received(self, url, count, fits=lambda body: True):
        """Waits for `count` events that fit, and returns their bodies."""
        bodies = []

        def look():
            answer = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for message in answer.get("Messages", []):
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                body = json.loads(message["Body"])
                if fits(body):
                    bodies.append(body)
            return len(bodies) >= count

        eventually(look)
        return bodies

    def role(self, **more):
        role = {"RoleName": fresh("role"), "AssumeRolePolicyDocument": json.dumps(TRUST), **more}
        return self.iam.create_role(**role)["Role"]
