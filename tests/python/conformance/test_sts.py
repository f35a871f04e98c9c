"""STS, and unsigned requests."""

import datetime

from botocore import UNSIGNED
from botocore.config import Config

from calls import ACCOUNT, rejected


def test_get_caller_identity_returns_the_caller(aws):
    caller = aws.sts.get_caller_identity()
    assert caller["Account"] == ACCOUNT and caller["UserId"]
    assert caller["Arn"].startswith("arn:aws:") and f"::{ACCOUNT}:" in caller["Arn"]


def test_get_caller_identity_returns_an_assumed_role(aws):
    role = aws.role()
    assumed = aws.sts.assume_role(RoleArn=role["Arn"], RoleSessionName="one")
    credentials = assumed["Credentials"]
    assert credentials["Expiration"] > datetime.datetime.now(datetime.timezone.utc)
    there = aws.client(
        "sts",
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
    )
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/{role['RoleName']}/one"
    assert there.get_caller_identity()["Arn"] == assumed["AssumedRoleUser"]["Arn"] == arn


def test_assume_role_rejects_an_unknown_role(aws):
    call = {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/none", "RoleSessionName": "one"}
    rejected("AccessDenied", 403, aws.sts.assume_role, **call)


def test_unsigned_requests_are_rejected(aws):
    unsigned = Config(signature_version=UNSIGNED)
    clusters = aws.client("ecs", config=unsigned).list_clusters
    rejected("MissingAuthenticationTokenException", 400, clusters)
    rejected("MissingAuthenticationToken", 403, aws.client("iam", config=unsigned).list_roles)
