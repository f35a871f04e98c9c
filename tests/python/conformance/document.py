"""The page docs/reference/sandbox-conformance.md, from the table of deviations."""

import functools
import pathlib

import botocore
import botocore.session

import servers
from deviations import BEHAVIOUR, OMITTED, SHAPES

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "reference" / "sandbox-conformance.md"

HEAD = """\
# Sandbox conformance with AWS

The same test functions ([tests/python/conformance](../../tests/python/conformance)) call three servers with boto3: \
the sandbox, and the Python packages moto and ministack. They make the calls of ECS, EC2, SQS, EventBridge, IAM, STS, \
DynamoDB, Secrets Manager, SSM and S3 that the operator makes, and those that prepare a test. Each function asserts the behaviour \
that AWS documents; no test calls AWS itself. Each response is also checked against AWS's own model of the service: no \
unknown members, correct types, known enum values. Of `DescribeInstances` the sandbox has what the operator reads: \
ids, states and addresses.

Behaviour that is not listed here is the same in all three. The list is generated from the tests' own table \
([deviations.py](../../tests/python/conformance/deviations.py)), and a row that no longer holds fails its test.

`UPDATE_GOLDEN=1 ./test.sh --test it conformance` renews this page.
"""


SERVICES = ("dynamodb", "ec2", "ecs", "events", "iam", "s3", "secretsmanager", "sqs", "ssm", "sts")
NAMES = {
    "arn": "ARN",
    "aws": "AWS",
    "cloudtrail": "CloudTrail",
    "dynamodb": "DynamoDB",
    "ec2": "EC2",
    "ecs": "ECS",
    "eventbridge": "EventBridge",
    "provisioning": "PROVISIONING",
    "region": "Region",
    "running": "RUNNING",
    "s3": "S3",
    "sdk": "SDK",
    "secretsmanager": "Secrets Manager",
    "ssm": "SSM",
}


@functools.cache
def operations():
    """The API's name of each operation by that of boto3, such as `ListTasks` by `list_tasks`."""
    session = botocore.session.get_session()
    models = [session.get_service_model(service) for service in SERVICES]
    return {botocore.xform_name(name): name for model in models for name in model.operation_names}


def sentence(test):
    """A test's name as a sentence: `test_list_tasks_paginates` is `ListTasks` in code, then `paginates`."""
    words = test.removeprefix("test_").split("_")
    for count in range(len(words), 0, -1):
        operation = operations().get("_".join(words[:count]))
        if operation:
            return " ".join([f"`{operation}`", *plain(words[count:])])
    return " ".join(plain(words))


def plain(words):
    return [NAMES.get(word, word) for word in words]


def page():
    return "\n".join(
        [HEAD, "## Behaviour", "", *behaviour(), "", "## Shape of responses", "", *shapes(), ""]
    )


def behaviour():
    yield row("AWS", *servers.NAMES)
    yield row(*["---"] * (1 + len(servers.NAMES)))
    tests = dict.fromkeys(test for name in servers.NAMES for test in BEHAVIOUR.get(name, {}))
    for test in tests:
        known = (BEHAVIOUR.get(name, {}).get(test) for name in servers.NAMES)
        yield row(sentence(test), *(one.why if one else "as AWS" for one in known))


def shapes():
    yield row("server", "call", "found", "why")
    yield row(*["---"] * 4)
    for server in servers.NAMES:
        for call, one in SHAPES.get(server, {}).items():
            yield row(server, call, "; ".join(f"`{found}`" for found in one.shows), one.why)
    for call, one in OMITTED.items():
        yield row("sandbox", call, "; ".join(f"no `{member}`" for member in one.shows), one.why)


def row(*cells):
    return f"| {' | '.join(cells)} |"
