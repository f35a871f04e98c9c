"""The page docs/reference/sandbox-conformance.md, from the table of deviations."""

import pathlib

import servers
from deviations import BEHAVIOUR, LEFT_OUT, SHAPES

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "reference" / "sandbox-conformance.md"

HEAD = """\
# How much the sandbox is like AWS

The same test functions ([tests/python/conformance](../../tests/python/conformance)) call three servers with boto3: \
the sandbox, and the Python packages moto and ministack. They make the calls of ECS, SQS, EventBridge, IAM and STS \
that the operator makes, and those that set a scene. Each function says what AWS does, by its documentation: no test \
asks AWS itself. Each answer is also held against AWS's own model of the service: no unknown member, right types, \
known values of enums.

What is not listed here is alike in all three. The list is made from the tests' own table \
([deviations.py](../../tests/python/conformance/deviations.py)), and a row that no longer holds fails its test.

`UPDATE_GOLDEN=1 ./test.sh --test it conformance` renews this page.
"""


NAMES = {"arn": "ARN", "aws": "AWS", "cloudtrail": "CloudTrail", "sqs": "SQS"}


def sentence(test):
    """A test's name as it is read: `test_nobody_but_aws_sends` is `nobody but AWS sends`."""
    return " ".join(NAMES.get(word, word) for word in test.removeprefix("test_").split("_"))


def page():
    return "\n".join(
        [HEAD, "## What they do", "", *behaviour(), "", "## What their answers look like", "", *shapes(), ""]
    )


def behaviour():
    yield row("at AWS", *servers.NAMES)
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
    for call, one in LEFT_OUT.items():
        yield row("sandbox", call, "; ".join(f"no `{member}`" for member in one.shows), one.why)


def row(*cells):
    return f"| {' | '.join(cells)} |"
