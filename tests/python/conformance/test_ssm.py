"""SSM Parameter Store: the parameters of data plane tokens."""

from calls import fresh, rejected

OWNER = {"Key": "ecs-mesh.dev/operator", "Value": "op"}


def name():
    return f"/{fresh('tokens')}/default/web"


def parameter(aws, **more):
    found = {"Name": name(), "Value": "first", "Type": "SecureString", "Tags": [OWNER], **more}
    aws.ssm.put_parameter(**found)
    return found["Name"]


def value(aws, id):
    return aws.ssm.get_parameter(Name=id, WithDecryption=True)["Parameter"]["Value"]


def tags(aws, id):
    found = aws.ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=id)["TagList"]
    return {tag["Key"]: tag["Value"] for tag in found}


def described(aws, id):
    filters = [{"Key": "Name", "Option": "BeginsWith", "Values": [id]}]
    return aws.ssm.describe_parameters(ParameterFilters=filters)["Parameters"]


def test_put_parameter_encrypts_a_secure_string(aws):
    id = parameter(aws)
    assert aws.ssm.get_parameter(Name=id)["Parameter"]["Value"] != "first"
    assert value(aws, id) == "first"
    assert tags(aws, id) == {OWNER["Key"]: OWNER["Value"]}
    assert [(one["Name"], one["Type"], one["KeyId"]) for one in described(aws, id)] == [
        (id, "SecureString", "alias/aws/ssm")
    ]


def test_put_parameter_keeps_the_key(aws):
    assert described(aws, parameter(aws, KeyId="alias/mesh"))[0]["KeyId"] == "alias/mesh"


def test_put_parameter_rejects_a_taken_name(aws):
    id = parameter(aws)
    rejected("ParameterAlreadyExists", 400, aws.ssm.put_parameter, Name=id, Value="x", Type="SecureString")
    assert value(aws, id) == "first"


def test_overwritten_parameter_keeps_its_tags(aws):
    id = parameter(aws)
    put = aws.ssm.put_parameter(Name=id, Value="second", Type="SecureString", Overwrite=True)
    assert (put["Version"], value(aws, id)) == (2, "second")
    assert tags(aws, id) == {OWNER["Key"]: OWNER["Value"]}


def test_put_parameter_rejects_tags_with_overwrite(aws):
    more = {"Name": parameter(aws), "Value": "x", "Type": "SecureString", "Overwrite": True, "Tags": [OWNER]}
    rejected("ValidationException", 400, aws.ssm.put_parameter, **more)


def test_put_parameter_rejects_a_long_value(aws):
    more = {"Name": name(), "Value": "x" * 4097, "Type": "SecureString"}
    rejected("ValidationException", 400, aws.ssm.put_parameter, **more)


def test_add_tags_to_resource_changes_tags_of_a_parameter(aws):
    id = parameter(aws)
    more = [{**OWNER, "Value": "other"}, {"Key": "empty", "Value": ""}]
    aws.ssm.add_tags_to_resource(ResourceType="Parameter", ResourceId=id, Tags=more)
    assert tags(aws, id) == {OWNER["Key"]: "other", "empty": ""}


def test_ssm_rejects_an_unknown_parameter(aws):
    unknown = {"ResourceType": "Parameter", "ResourceId": "/none"}
    rejected("InvalidResourceId", 400, aws.ssm.list_tags_for_resource, **unknown)
    rejected("InvalidResourceId", 400, aws.ssm.add_tags_to_resource, **unknown, Tags=[OWNER])
    rejected("ParameterNotFound", 400, aws.ssm.get_parameter, Name="/none")
    rejected("ParameterNotFound", 400, aws.ssm.delete_parameter, Name="/none")


def test_describe_parameters_filters_by_prefix_and_paginates(aws):
    path = f"/{fresh('tokens')}"
    names = [f"{path}/default/w{n}" for n in range(3)]
    for id in [*names, f"{path}-other/default/w"]:
        aws.ssm.put_parameter(Name=id, Value="x", Type="SecureString")
    pages = aws.ssm.get_paginator("describe_parameters")
    filters = [{"Key": "Name", "Option": "BeginsWith", "Values": [f"{path}/"]}]
    found = pages.paginate(ParameterFilters=filters, PaginationConfig={"PageSize": 2})
    found = [page["Parameters"] for page in found]
    assert [len(page) for page in found] == [2, 1]
    assert sorted(one["Name"] for page in found for one in page) == names


def test_delete_parameter_frees_the_name(aws):
    id = parameter(aws)
    aws.ssm.delete_parameter(Name=id)
    assert described(aws, id) == []
    aws.ssm.put_parameter(Name=id, Value="again", Type="SecureString")
    assert tags(aws, id) == {}


def test_get_parameters_by_path_decrypts_and_paginates(aws):
    path = f"/{fresh('manifests')}"
    for n in range(12):
        aws.ssm.put_parameter(Name=f"{path}/team/w{n:02}", Value=f"text {n}", Type="SecureString")
    aws.ssm.put_parameter(Name=f"{path}-other/w", Value="x", Type="String")
    call = {"Path": f"{path}", "Recursive": True, "WithDecryption": True, "MaxResults": 10}
    first = aws.ssm.get_parameters_by_path(**call)
    second = aws.ssm.get_parameters_by_path(**call, NextToken=first["NextToken"])
    assert (len(first["Parameters"]), len(second["Parameters"]), "NextToken" in second) == (10, 2, False)
    found = {one["Name"]: (one["Value"], one["Version"]) for one in first["Parameters"] + second["Parameters"]}
    assert found == {f"{path}/team/w{n:02}": (f"text {n}", 1) for n in range(12)}


def test_get_parameters_by_path_is_not_recursive_by_default(aws):
    path = f"/{fresh('manifests')}"
    for name in ("a", "team/b"):
        aws.ssm.put_parameter(Name=f"{path}/{name}", Value="x", Type="String")
    found = aws.ssm.get_parameters_by_path(Path=path)["Parameters"]
    assert [one["Name"] for one in found] == [f"{path}/a"]
