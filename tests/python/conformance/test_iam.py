"""IAM: roles and their tags."""

import datetime
import json

from calls import ACCOUNT, TRUST, fresh, refused


def test_a_role_is_told_with_its_tags(aws):
    tags = [{"Key": "a", "Value": "<&>"}]
    made = aws.role(Path="/team/", Tags=tags)
    role = aws.iam.get_role(RoleName=made["RoleName"])["Role"]
    assert role["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/team/{role['RoleName']}"
    assert (role["Path"], role["Tags"]) == ("/team/", tags)
    assert role["AssumeRolePolicyDocument"] == TRUST
    assert isinstance(role["CreateDate"], datetime.datetime)
    assert role["RoleId"].startswith("AROA")
    assert role["MaxSessionDuration"] == 3600


def test_a_role_without_tags_has_no_such_field(aws):
    assert not aws.iam.get_role(RoleName=aws.role()["RoleName"])["Role"].get("Tags")


def test_an_unknown_role_is_refused_by_an_error_of_its_own(aws):
    error = refused("NoSuchEntity", 404, aws.iam.get_role, RoleName="none")
    assert isinstance(error, aws.iam.exceptions.NoSuchEntityException)
    refused("NoSuchEntity", 404, aws.iam.list_role_tags, RoleName="none")


def test_a_role_is_made_once(aws):
    name = aws.role()["RoleName"]
    again = {"RoleName": name, "AssumeRolePolicyDocument": json.dumps(TRUST)}
    refused("EntityAlreadyExists", 409, aws.iam.create_role, **again)


def test_tags_of_a_role_are_added_changed_and_removed(aws):
    name = aws.role(Tags=[{"Key": "a", "Value": "1"}])["RoleName"]
    aws.iam.tag_role(RoleName=name, Tags=[{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}])
    assert aws.iam.get_role(RoleName=name)["Role"]["Tags"] == [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}]
    aws.iam.untag_role(RoleName=name, TagKeys=["a", "none"])
    assert aws.iam.list_role_tags(RoleName=name)["Tags"] == [{"Key": "b", "Value": "3"}]


def test_roles_are_listed_in_pages_by_path_without_tags(aws):
    path = f"/{fresh('path')}/"
    names = [aws.role(Path=path, Tags=[{"Key": "a", "Value": "b"}])["RoleName"] for _ in range(3)]
    pages = aws.iam.get_paginator("list_roles").paginate(PathPrefix=path, PaginationConfig={"PageSize": 2})
    pages = [page["Roles"] for page in pages]
    assert sorted(role["RoleName"] for page in pages for role in page) == sorted(names)
    assert not any("Tags" in role for page in pages for role in page), "with tags"
    assert [len(page) for page in pages] == [2, 1]


def test_policies_of_a_role_are_told_and_keep_it_from_deletion(aws):
    name = aws.role()["RoleName"]
    policy = {"RoleName": name, "PolicyName": "p"}
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    aws.iam.put_role_policy(**policy, PolicyDocument=json.dumps(document))
    assert aws.iam.get_role_policy(**policy)["PolicyDocument"] == document
    assert aws.iam.list_role_policies(RoleName=name)["PolicyNames"] == ["p"]
    assert aws.iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"] == []
    refused("DeleteConflict", 409, aws.iam.delete_role, RoleName=name)
    aws.iam.delete_role_policy(**policy)
    aws.iam.delete_role(RoleName=name)
    refused("NoSuchEntity", 404, aws.iam.get_role, RoleName=name)


def test_the_simulator_tells_what_a_roles_policies_allow(aws):
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
