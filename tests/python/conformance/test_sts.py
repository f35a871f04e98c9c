"""STS, and calls that nobody has signed."""

import datetime

from botocore import UNSIGNED
from botocore.config import Config

from calls import ACCOUNT, refused


def test_the_caller_is_told_who_it_is(aws):
    caller = aws.sts.get_caller_identity()
    assert caller["Account"] == ACCOUNT and caller["UserId"]
    assert caller["Arn"].startswith("arn:aws:") and f"::{ACCOUNT}:" in caller["Arn"]


def test_an_assumed_role_is_the_caller(aws):
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


def test_an_unknown_role_is_not_assumed(aws):
    call = {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/none", "RoleSessionName": "one"}
    refused("AccessDenied", 403, aws.sts.assume_role, **call)


def test_an_unsigned_call_is_refused(aws):
    nobody = Config(signature_version=UNSIGNED)
    clusters = aws.client("ecs", config=nobody).list_clusters
    refused("MissingAuthenticationTokenException", 400, clusters)
    refused("MissingAuthenticationToken", 403, aws.client("iam", config=nobody).list_roles)
