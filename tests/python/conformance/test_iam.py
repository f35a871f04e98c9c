"""IAM: roles and their tags."""

import datetime
import json

from calls import ACCOUNT, TRUST, fresh, rejected


def test_get_role_returns_tags(aws):
    tags = [{"Key": "a", "Value": "<&>"}]
    made = aws.role(Path="/team/", Tags=tags)
    role = aws.iam.get_role(RoleName=made["RoleName"])["Role"]
    assert role["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/team/{role['RoleName']}"
    assert (role["Path"], role["Tags"]) == ("/team/", tags)
    assert role["AssumeRolePolicyDocument"] == TRUST
    assert isinstance(role["CreateDate"], datetime.datetime)
    assert role["RoleId"].startswith("AROA")
    assert role["MaxSessionDuration"] == 3600


def test_get_role_omits_tags_when_there_are_none(aws):
    assert not aws.iam.get_role(RoleName=aws.role()["RoleName"])["Role"].get("Tags")


def test_get_role_rejects_an_unknown_role(aws):
    error = rejected("NoSuchEntity", 404, aws.iam.get_role, RoleName="none")
    assert isinstance(error, aws.iam.exceptions.NoSuchEntityException)


def test_create_role_rejects_an_existing_name(aws):
    name = aws.role()["RoleName"]
    again = {"RoleName": name, "AssumeRolePolicyDocument": json.dumps(TRUST)}
    rejected("EntityAlreadyExists", 409, aws.iam.create_role, **again)


def test_tag_role_adds_and_replaces_tags(aws):
    name = aws.role(Tags=[{"Key": "a", "Value": "1"}])["RoleName"]
    aws.iam.tag_role(RoleName=name, Tags=[{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}])
    assert aws.iam.get_role(RoleName=name)["Role"]["Tags"] == [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}]
    aws.iam.untag_role(RoleName=name, TagKeys=["a", "none"])
    assert aws.iam.get_role(RoleName=name)["Role"]["Tags"] == [{"Key": "b", "Value": "3"}]



def test_delete_role_rejects_a_role_with_policies(aws):
    name = aws.role()["RoleName"]
    policy = {"RoleName": name, "PolicyName": "p"}
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    aws.iam.put_role_policy(**policy, PolicyDocument=json.dumps(document))
    rejected("DeleteConflict", 409, aws.iam.delete_role, RoleName=name)


def test_deleted_role_does_not_exist(aws):
    name = aws.role()["RoleName"]
    aws.iam.delete_role(RoleName=name)
    rejected("NoSuchEntity", 404, aws.iam.get_role, RoleName=name)


def test_simulate_principal_policy_evaluates_role_policies(aws):
    role = aws.role(Path="/team/")
    name, arn = role["RoleName"], role["Arn"]

    def decision(action):
        answer = aws.iam.simulate_principal_policy(PolicySourceArn=arn, ActionNames=[action], ResourceArns=[arn])
        (result,) = answer["EvaluationResults"]
        assert (result["EvalActionName"], result["EvalResourceName"]) == (action, arn)
        return result["EvalDecision"]

    assert decision("iam:GetRole") == "implicitDeny"
    statements = [
        {"Effect": "Allow", "Action": ["iam:Get*"], "Resource": arn},
        {"Effect": "Deny", "Action": "iam:GetRolePolicy", "Resource": "*"},
    ]
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    aws.iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document)
    found = [decision(action) for action in ["iam:GetRole", "iam:GetRolePolicy", "iam:DeleteRole"]]
    assert found == ["allowed", "explicitDeny", "implicitDeny"]
