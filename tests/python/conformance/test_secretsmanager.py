"""Secrets Manager: the secrets of data plane tokens."""

from calls import ACCOUNT, REGION, fresh, rejected

OWNER = {"Key": "ecs-mesh.dev/operator", "Value": "op"}


def name():
    return f"/{fresh('tokens')}/default/web"


def secret(aws, **more):
    found = {"Name": name(), "SecretString": "first", "Tags": [OWNER], **more}
    aws.secretsmanager.create_secret(**found)
    return found["Name"]


def value(aws, id):
    return aws.secretsmanager.get_secret_value(SecretId=id)["SecretString"]


def test_create_secret_stores_text_and_tags(aws):
    id = name()
    arn = aws.secretsmanager.create_secret(Name=id, SecretString="text", Tags=[OWNER])["ARN"]
    assert arn.startswith(f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{id}-") and len(arn.rsplit("-")[-1]) == 6
    found = aws.secretsmanager.describe_secret(SecretId=id)
    assert (found["ARN"], found["Name"], found["Tags"]) == (arn, id, [OWNER])
    assert value(aws, id) == value(aws, arn) == "text"


def test_create_secret_keeps_the_key(aws):
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/0e120ec9-6b42-495d-9758-07b59fe86fb9"
    assert aws.secretsmanager.describe_secret(SecretId=secret(aws, KmsKeyId=key))["KmsKeyId"] == key


def test_create_secret_rejects_a_taken_name(aws):
    id = secret(aws)
    rejected("ResourceExistsException", 400, aws.secretsmanager.create_secret, Name=id, SecretString="other")
    assert value(aws, id) == "first"


def test_put_secret_value_keeps_the_tags(aws):
    id = secret(aws)
    aws.secretsmanager.put_secret_value(SecretId=id, SecretString="second")
    assert value(aws, id) == "second"
    assert aws.secretsmanager.describe_secret(SecretId=id)["Tags"] == [OWNER]


def test_tag_resource_changes_tags_of_a_secret(aws):
    id = secret(aws)
    more = {"Key": "ecs-mesh.dev/token", "Value": "a@1800000000"}
    empty = {"Key": "ecs-mesh.dev/prior-tokens", "Value": ""}
    aws.secretsmanager.tag_resource(SecretId=id, Tags=[{**OWNER, "Value": "other"}, more, empty])
    tags = {tag["Key"]: tag["Value"] for tag in aws.secretsmanager.describe_secret(SecretId=id)["Tags"]}
    assert tags == {OWNER["Key"]: "other", more["Key"]: more["Value"], empty["Key"]: ""}


def test_secretsmanager_rejects_an_unknown_secret(aws):
    client = aws.secretsmanager
    rejected("ResourceNotFoundException", 400, client.describe_secret, SecretId="none")
    rejected("ResourceNotFoundException", 400, client.get_secret_value, SecretId="none")
    rejected("ResourceNotFoundException", 400, client.put_secret_value, SecretId="none", SecretString="x")
    rejected("ResourceNotFoundException", 400, client.tag_resource, SecretId="none", Tags=[OWNER])


def test_list_secrets_filters_by_prefix_and_paginates(aws):
    path = f"/{fresh('tokens')}"
    names = [f"{path}/default/w{n}" for n in range(3)]
    for id in [*names, f"{path}-other/default/w"]:
        aws.secretsmanager.create_secret(Name=id, SecretString="x")
    pages = aws.secretsmanager.get_paginator("list_secrets")
    filters = [{"Key": "name", "Values": [f"{path}/"]}]
    found = [page["SecretList"] for page in pages.paginate(Filters=filters, PaginationConfig={"PageSize": 2})]
    assert [len(page) for page in found] == [2, 1]
    assert sorted(one["Name"] for page in found for one in page) == names


def test_forced_delete_secret_frees_the_name(aws):
    id = secret(aws)
    aws.secretsmanager.delete_secret(SecretId=id, ForceDeleteWithoutRecovery=True)
    rejected("ResourceNotFoundException", 400, aws.secretsmanager.describe_secret, SecretId=id)
    aws.secretsmanager.create_secret(Name=id, SecretString="again")
    assert value(aws, id) == "again"
