"""Checks `deploy/` with cfn-lint, hadolint and moto: `deploy.py CHECK`, where CHECK is one of the functions at the end.

Needs tests/python/requirements-deploy.txt. Most checks start moto as a server on loopback; `stack` and `dashboard` also start
the operator named by OPERATOR.
"""

import ast
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import boto3
import cfnlint.decode
import cloudwatch
from botocore.exceptions import BotoCoreError, ClientError

ROOT = pathlib.Path(__file__).parents[2]
MAIN = ROOT / "deploy/cloudformation/ecs-mesh-operator.yaml"
ROLE_EVENTS = ROOT / "deploy/cloudformation/role-events.yaml"
TEAM_EVENTS = ROOT / "deploy/cloudformation/team-events.yaml"
MEMBER = ROOT / "deploy/cloudformation/member-account.yaml"
DASHBOARD = ROOT / "deploy/cloudformation/dashboard.yaml"
POLICY = ROOT / "deploy/iam/protect-role-tags.json"
PERMISSIONS = ROOT / "docs/reference/permissions.md"
METRICS = ROOT / "docs/reference/metrics.md"
OBSERVE = ROOT / "docs/how-to/observe.md"
TOOLS = pathlib.Path(sys.executable).parent

REGION, ACCOUNT = "eu-west-1", "123456789012"  # moto's account
CLUSTERS = [f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{name}" for name in ("demo", "two")]
UUID = "0a1b2c3d-1111-2222-3333-0a1b2c3d4e5f"
DEADLINE = 60

# Accepted and rejected values of each parameter with a pattern.
VALUES = {
    "Image": (
        [
            "111122223333.dkr.ecr.eu-west-1.amazonaws.com/ecs-mesh-operator:0.1.0-1",
            "registry.internal:5000/mesh/operator@sha256:" + "0a" * 32,
        ],
        ["", "operator", "operator:latest", "registry.internal:5000/operator", "operator@sha256:0a", "op erator:1"],
    ),
    "OperatorId": (["prod", "a", "eu-west-1.demo_2", "x" * 63], ["", "-prod", "a b", "prod/1", "x" * 64]),
    "ControlPlaneTokenSecretArn": (
        [
            "arn:aws:secretsmanager:eu-west-1:111122223333:secret:ecs-mesh/kuma-token-a1B2c3",
            "arn:aws-us-gov:secretsmanager:us-gov-west-1:111122223333:secret:t-a1B2c3",
            "",
        ],
        ["kuma-token", "arn:aws:secretsmanager:eu-west-1:111122223333:secret:kuma", "eyJhbGciOi.J9"],
    ),
    "ConsulTokenSecretArn": (
        [f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:consul-token-d4E5f6", ""],
        ["consul-token", "arn:aws:secretsmanager:eu-west-1:111122223333:secret:consul", UUID],
    ),
    "ConsulCaSecretArn": (
        [f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:consul-ca-a1B2c3", ""],
        ["/etc/mesh/ca.pem", "arn:aws:secretsmanager:eu-west-1:111122223333:secret:consul"],
    ),
    "SecretKeyArn": (
        ["", f"arn:aws:kms:eu-west-1:111122223333:key/{UUID}"],
        ["alias/mesh", "arn:aws:kms:eu-west-1:111122223333:alias/mesh"],
    ),
    "ManifestsBucket": (["", "mesh-manifests", "mesh.manifests"], ["a", "Mesh", "s3://mesh", "mesh/"]),
    "ManifestsPrefix": (["", "prod/", "a/b/"], ["/", "/prod/", "prod", "a*/"]),
    "ManifestsParameterPath": (["", "/mesh", "/mesh/prod"], ["/", "mesh", "/mesh/", "/mesh//prod", "/me*sh"]),
    "ManifestsKeyArn": (["", f"arn:aws:kms:eu-west-1:111122223333:key/{UUID}"], ["alias/mesh"]),
    "WatchedClusterArns": (
        [
            CLUSTERS[0],
            "arn:aws-cn:ecs:cn-north-1:111122223333:cluster/a_B-1",
            "arn:aws:ecs:eu-west-1:111122223333:cluster/prod-*",
            "arn:aws:ecs:eu-west-1:111122223333:cluster/prod-?",
        ],
        ["", "demo", f" {CLUSTERS[0]}", "arn:aws:ecs:*:111122223333:cluster/demo"],
    ),
    "MeshRoleArns": (
        [
            f"arn:aws:iam::{ACCOUNT}:role/mesh/*",
            f"arn:aws:iam::{ACCOUNT}:role/*",
            "arn:aws-us-gov:iam::111122223333:role/demo-app-task",
        ],
        ["", "/mesh/", "arn:aws:iam::*:role/mesh/*", f"arn:aws:iam::{ACCOUNT}:user/mesh", "arn:aws:iam::1:role/mesh/*"],
    ),
    "TaskRolePolicyArns": (
        ["", f"arn:aws:iam::{ACCOUNT}:policy/tokens", "arn:aws:iam::aws:policy/ReadOnlyAccess"],
        ["tokens", f"arn:aws:iam::{ACCOUNT}:role/tokens"],
    ),
    "PermissionsBoundaryArn": (["", f"arn:aws:iam::{ACCOUNT}:policy/boundary"], ["boundary"]),
    "DiscoveryNamespaceId": (["", "ns-0a1b2c3d4e5f6a7b"], ["mesh.internal", "srv-0a1b2c3d"]),
    "PrometheusWorkspaceArn": (
        [f"arn:aws:aps:{REGION}:{ACCOUNT}:workspace/ws-{UUID}", ""],
        ["ws-0a1b", f"arn:aws:aps:{REGION}:{ACCOUNT}:rulegroupsnamespace/ws-1/x"],
    ),
    "CollectorImage": (["registry.internal/collector:v1"], ["", "collector", "registry.internal/collector:latest"]),
    "TokenPath": (["", "/mesh", "/mesh/prod"], ["mesh", "/", "/mesh/", "/mesh/*", "/a b"]),
    "TokenKeyArn": (
        ["", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{UUID}"],
        ["alias/mesh", f"arn:aws:kms:{REGION}:{ACCOUNT}:alias/mesh"],
    ),
    "MemberRoleArns": (
        ["", "arn:aws:iam::444455556666:role/ecs-mesh-member", "arn:aws-cn:iam::444455556666:role/mesh/member"],
        ["ecs-mesh-member", "arn:aws:iam::444455556666:role/*", "arn:aws:iam::1:role/member"],
    ),
    "MemberAccountIds": (["", "444455556666"], ["4444", "arn:aws:iam::444455556666:root"]),
    "OperatorRoleArn": (
        ["arn:aws:iam::111122223333:role/ecs-mesh-operator-eu-west-1"],
        ["", "ecs-mesh-operator", "arn:aws:iam::111122223333:role/*", "arn:aws:iam::111122223333:root"],
    ),
    "ExternalId": (["mesh-7", "a/b:c=d"], ["", "a b"]),
    "EventBusArn": (
        [f"arn:aws:events:{REGION}:111122223333:event-bus/default", ""],
        ["default", f"arn:aws:events:{REGION}:111122223333:rule/x"],
    ),
    "RoleName": (["ecs-mesh-member", ""], ["-member", "a b", "role/member"]),
    "RunInCluster": (["demo", CLUSTERS[0]], ["", "arn:aws:ecs:eu-west-1:1:cluster/demo", "a b"]),
    "AlarmTopicArn": (["", f"arn:aws:sns:{REGION}:{ACCOUNT}:pages"], ["pages", f"arn:aws:sns:{REGION}:{ACCOUNT}:q.fifo"]),
    "TeamEventsBusArn": (
        ["", f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/ecs-mesh"],
        ["ecs-mesh", f"arn:aws:events:{REGION}:{ACCOUNT}:rule/ecs-mesh"],
    ),
    "ApiTokenSecretArn": (
        ["", f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:api-token-a1B2c3"],
        ["api-token", "arn:aws:secretsmanager:eu-west-1:111122223333:secret:api"],
    ),
    "ApiTlsCertFile": (["", "/etc/mesh/api.pem"], ["api.pem", "/etc/mesh/a b", "/"]),
    "ApiTlsKeyFile": (["", "/etc/mesh/api-key.pem"], ["api-key.pem", "/"]),
    "EventBusName": (["default", "ecs-mesh"], ["", "a/b", f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/ecs-mesh"]),
    "EcsServicePrefix": (["", "shop-", "x" * 255], ["shop/", "shop*", "x" * 256]),
    "DetailTypes": (["TaskRejected", "GuardTripped"], ["", "Taskrejected", "ControlPlaneUnsupported", "TaskRejected "]),
    "TopicKeyArn": (["", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{UUID}"], ["alias/mesh", "alias/aws/sns"]),
    "LogGroupName": (["mesh-LogGroup-1A2b", "/ecs/mesh"], ["", "log group", "a:b"]),
    "EventQueueName": (["mesh-EventQueue-1A2b"], ["", "https://sqs.eu-west-1.amazonaws.com/123456789012/q", "q.fifo"]),
    "EventDeadLettersName": (["mesh-EventDeadLetters-1A2b"], ["", "https://sqs.eu-west-1.amazonaws.com/1/q"]),
    "RuleDeadLettersName": (["mesh-RuleDeadLetters-1A2b"], ["", "https://sqs.eu-west-1.amazonaws.com/1/q"]),
    "ClusterName": (["demo"], ["", CLUSTERS[0]]),
    "ServiceName": (["mesh-Service-1A2b"], ["", f"arn:aws:ecs:{REGION}:{ACCOUNT}:service/demo/mesh"]),
    "OperatorRegion": (["eu-west-1", "us-east-2", "ap-southeast-10"], ["", "us-east-1", "Ireland", "eu-west"]),
}


def template(path):
    """The template as plain values, with cfn-lint's reading of the short forms such as !Ref."""
    decoded, problems = cfnlint.decode.decode(str(path))
    assert not problems, problems
    return json.loads(json.dumps(decoded, default=str))


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.returncode, done.stdout + done.stderr


def cfn_lint(path, *arguments):
    """Runs cfn-lint on a template, with every rule."""
    return run(TOOLS / "cfn-lint", "--include-checks", "I", "--template", str(path), *arguments)


def cfn_lint_with(path, parameters):
    """Runs cfn-lint on a template with these parameters, through a deployment file."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump({"template-file-path": str(path), "parameters": parameters}, file)
        file.flush()
        return run(TOOLS / "cfn-lint", "--include-checks", "I", "--deployment-files", file.name)


# --- moto -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def moto(managed_policies=False):
    """Starts a moto server, on request with the policies that AWS manages; yields a factory of clients, and its URL."""
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, ROOT / "tests/python/moto_server.py", "--patched"]
        environment = os.environ | {"MOTO_IAM_LOAD_MANAGED_POLICIES": str(managed_policies).lower()}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
        server = subprocess.Popen(command, **pipes, text=True, env=environment)
        url = server.stdout.readline().strip()

        def client(name):
            return boto3.client(
                name, region_name=REGION, endpoint_url=url, aws_access_key_id="AKIDTEST", aws_secret_access_key="secret"
            )

        def caller():
            assert server.poll() is None, (log.seek(0), log.read())
            try:
                return client("sts").get_caller_identity()
            except (BotoCoreError, ClientError):
                return None

        try:
            until("a response of moto", caller)
            yield client, url
        finally:
            server.terminate()
            server.wait()


def until(what, condition):
    """Waits for a condition and returns its value."""
    end = time.monotonic() + DEADLINE
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, f"timed out after {DEADLINE} s: {what}"
        time.sleep(0.1)


def required_parameters(client):
    """What a small installation gives."""
    ec2 = client("ec2")
    return {
        "Image": VALUES["Image"][0][0],
        "OperatorId": "prod",
        "ControlPlaneTokenSecretArn": VALUES["ControlPlaneTokenSecretArn"][0][0],
        "WatchedClusterArns": ",".join(CLUSTERS),
        "MeshRoleArns": f"arn:aws:iam::{ACCOUNT}:role/mesh/*",
        "RunInCluster": "demo",
        "SubnetIds": ec2.describe_subnets()["Subnets"][0]["SubnetId"],
        "SecurityGroupIds": ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"],
    }


def create_stack(client, **more):
    """Creates the stack with required parameters, a token and `more`. Returns outputs, and resources by logical id."""
    client("ecs").create_cluster(clusterName="demo")
    given = required_parameters(client)
    needed = {name for name, has in template(MAIN)["Parameters"].items() if "Default" not in has}
    assert needed | {"ControlPlaneTokenSecretArn"} == set(given), needed ^ set(given)
    given |= more
    stacks = client("cloudformation")
    stacks.create_stack(
        StackName="mesh",
        TemplateBody=MAIN.read_text(),
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    [stack] = stacks.describe_stacks(StackName="mesh")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    found = stacks.describe_stack_resources(StackName="mesh")["StackResources"]
    made = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in found if "LogicalResourceId" in one}
    for name, resource in template(MAIN)["Resources"].items():
        if name not in made and "Condition" not in resource:
            print(f"skipped: {name}: moto's CloudFormation does not support {resource['Type']}")
            assert resource["Type"] == "AWS::SQS::QueuePolicy", name
    return outputs, made


MEMBER_PARAMETERS = {
    "OperatorRoleArn": VALUES["OperatorRoleArn"][0][0],
    "ExternalId": "mesh-7",
    "EventBusArn": VALUES["EventBusArn"][0][0],
    "WatchedClusterArns": ",".join(CLUSTERS),
    "MeshRoleArns": f"arn:aws:iam::{ACCOUNT}:role/mesh/*",
    "HoldDeployments": "true",
    "HostMode": "true",
}


def create_member(client, **more):
    """Creates the stack of a member account. Returns outputs, and resources by logical id."""
    stacks = client("cloudformation")
    stacks.create_stack(
        StackName="member",
        TemplateBody=MEMBER.read_text(),
        Parameters=[
            {"ParameterKey": name, "ParameterValue": value} for name, value in (MEMBER_PARAMETERS | more).items()
        ],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    [stack] = stacks.describe_stacks(StackName="member")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    found = stacks.describe_stack_resources(StackName="member")["StackResources"]
    return outputs, {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in found if "LogicalResourceId" in one}


def described_member(client, role):
    """What a member account has: who may assume the role, what it may do, and what is forwarded where by whom."""
    iam, events = client("iam"), client("events")
    trust = plain(iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"])
    statements = {}
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        statements |= {one["Sid"]: plain(one) for one in inline_policy(client, role, name)["Statement"]}
    forwarded, roles = [], set()
    for rule in events.list_rules()["Rules"]:
        [target] = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        forwarded.append([plain(json.loads(rule["EventPattern"])), target["Arn"]])
        roles.add(target["RoleArn"].rsplit("/", 1)[1])
    [forward] = roles
    return {
        "trust": trust,
        "statements": statements,
        "forwarded": sorted(forwarded, key=sorted_json),
        "forwarding trust": with_rule_names(iam.get_role(RoleName=forward)["Role"]["AssumeRolePolicyDocument"]),
        "forwarding policy": plain(inline_policy(client, forward)),
    }


def with_rule_names(document):
    """A policy with the last word of rules' names for their ARNs. The template also lists the rule that only us-east-1 has."""
    text = re.sub(r"arn:\w+:events:[\w-]+:\w+:rule/[\w-]+-(tasks|roles|deployments)", r"<\1>", json.dumps(document))
    return plain(json.loads(re.sub(r'"<roles>", |, "<roles>"', "", text)))


def inline_policy(client, role, name=None):
    iam = client("iam")
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    [name] = [name] if name else names
    document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    # moto prints policies of CloudFormation as Python literals.
    return document if isinstance(document, dict) else ast.literal_eval(document)


def in_queue(client, url):
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(found[name]) for name in names)


# --- Documents --------------------------------------------------------------------------------------------------------


def documented(heading, level="##", number=0):
    """A JSON of a section of the permissions reference, the first by default, with the stack's names in its placeholders."""
    section = PERMISSIONS.read_text().split(f"\n{level} {heading}\n")[1].split(f"\n{level} ")[0]
    text = re.findall(r"```json\n(.*?)```", section, re.DOTALL)[number]
    for placeholder, value in {"PARTITION": "aws", "REGION": REGION, "ACCOUNT": ACCOUNT, "CLUSTER": "demo"}.items():
        text = text.replace(placeholder, value)
    return json.loads(text)


def of_clusters(value):
    """A part of the reference, which has one cluster, for the clusters of the stacks."""
    if isinstance(value, dict):
        return {key: of_clusters(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [of_clusters(inner) for inner in value]
    if isinstance(value, str) and re.search(r":(cluster|service|task|container-instance)/demo(/\*)?$", value):
        return [value.replace("/demo", f"/{arn.rsplit('/', 1)[1]}") for arn in CLUSTERS]
    return value


def sorted_json(value):
    return json.dumps(value, sort_keys=True)


def plain(value):
    """Normalizes a policy: a list of one element becomes the element, longer lists are sorted."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return plain(value[0]) if len(value) == 1 else sorted((plain(inner) for inner in value), key=sorted_json)
    return value


# --- The checks -------------------------------------------------------------------------------------------------------


def lint():
    """cfn-lint accepts the templates, and the policy as part of a template."""
    for path in (MAIN, ROLE_EVENTS, MEMBER, TEAM_EVENTS, DASHBOARD):
        code, output = cfn_lint(path)
        assert (code, output) == (0, ""), output
    policy = {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": json.loads(POLICY.read_text())}}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"Policy": policy}}, file)
        file.flush()
        # The policy is for the partition aws; the how-to explains how to change that.
        code, output = cfn_lint(file.name, "--ignore-checks", "I3042")
    assert (code, output) == (0, ""), output


def images():
    """hadolint accepts the Dockerfiles, and the image has no shell and does not run as root."""
    for name in ("Dockerfile", "Dockerfile.manifests"):
        code, output = run(TOOLS / "hadolint", "--no-color", f"deploy/{name}")
        assert (code, output) == (0, ""), output
    final = (ROOT / "deploy/Dockerfile").read_text().split("\nFROM scratch\n")[1]
    lines = [line for line in final.splitlines() if not line.startswith("#")]
    assert "USER 65532:65532" in lines and 'ENTRYPOINT ["/ecs-mesh-operator"]' in lines, final
    assert not any(line.startswith("RUN") for line in lines), "scratch has nothing to run"


def parameters():
    """cfn-lint names each missing parameter. Each pattern accepts and rejects the values above, and is described."""
    for path in (MAIN, ROLE_EVENTS, MEMBER, TEAM_EVENTS, DASHBOARD):
        declared = template(path)["Parameters"]
        good = {name: VALUES[name][0][0] for name in declared if name in VALUES}
        lists = ("WatchedClusterArns", "MeshRoleArns", "TaskRolePolicyArns", "DetailTypes")
        lists += ("MemberRoleArns", "MemberAccountIds")
        good |= {name: [value] for name, value in good.items() if name in lists}
        good |= {"WatchedClusterArns": CLUSTERS} if path == MAIN else {}
        good |= {"SubnetIds": ["subnet-0a1b2c3d"], "SecurityGroupIds": ["sg-0a1b2c3d"]} if path == MAIN else {}
        code, output = cfn_lint_with(path, good)
        assert (code, output) == (0, ""), output
        given = {name: value for name, value in good.items() if "Default" in declared[name]}
        code, output = cfn_lint_with(path, given)
        required = [name for name, has in declared.items() if "Default" not in has]
        assert bool(code) == bool(required), f"cfn-lint without the required parameters of {path.name}: {output}"
        for name in required:
            assert f"'{name}' is a required property" in output, f"{name} missing: {output}"
        for name, has in declared.items():
            if "AllowedPattern" not in has:
                limited = "AllowedValues" in has or has["Type"].startswith("List<AWS::")
                assert limited or name == "ManifestsContent", f"{name} accepts any value"
                continue
            assert has["ConstraintDescription"].startswith("must be"), name
            accepted, rejected = VALUES[name]
            wrong = [value for value in accepted if not re.search(has["AllowedPattern"], value)]
            wrong += [value for value in rejected if re.search(has["AllowedPattern"], value)]
            assert not wrong, f"{name}: {wrong}"


def role():
    """The stack's task role has exactly the permissions in the reference."""
    with moto() as (client, _):
        outputs, made = create_stack(client)
        found = inline_policy(client, made["TaskRole"], "observe")
        queue = outputs["QueueUrl"].rsplit("/", 1)[1]
    expected = of_clusters(documented("The operator's task role"))
    expected = json.loads(json.dumps(expected).replace("ecs-mesh-events", queue))
    assert plain(found) == plain(expected), f"{plain(found)}\ndiffers from the reference\n{plain(expected)}"
    with moto() as (client, _):
        _, made = create_stack(client, OperatorId="prod")
        [found] = inline_policy(client, made["TaskRole"], "lease")["Statement"]
        [key] = client("dynamodb").describe_table(TableName=made["LeaseTable"])["Table"]["KeySchema"]
    expected = json.dumps(documented("Lease", "###")).replace("OPERATOR-ID", "prod").replace("TABLE", made["LeaseTable"])
    assert plain(found) == plain(json.loads(expected)), f"{plain(found)}\ndiffers from the reference\n{expected}"
    assert key == {"AttributeName": "operatorId", "KeyType": "HASH"}, key
    bus = VALUES["TeamEventsBusArn"][0][1]
    with moto() as (client, _):
        _, made = create_stack(client, TeamEventsBusArn=bus)
        [found] = inline_policy(client, made["TaskRole"], "team-events")["Statement"]
        task = client("ecs").describe_task_definition(taskDefinition=made["TaskDefinition"])["taskDefinition"]
    expected = json.dumps(documented("Events to teams", "###")).replace("BUS", "ecs-mesh")
    assert plain(found) == plain(json.loads(expected)), f"{plain(found)}\ndiffers from the reference\n{expected}"
    environment = {one["name"]: one["value"] for one in task["containerDefinitions"][0]["environment"]}
    assert environment["ECS_MESH_TEAM_EVENTS_BUS"] == bus, environment
    secret, key = VALUES["ApiTokenSecretArn"][0][1], VALUES["SecretKeyArn"][0][1]
    with moto() as (client, _):
        _, made = create_stack(client, ApiAddress="0.0.0.0:9103", ApiTokenSecretArn=secret, SecretKeyArn=key)
        found = {one["Sid"]: one for one in inline_policy(client, made["TaskRole"], "api-token")["Statement"]}
        task = client("ecs").describe_task_definition(taskDefinition=made["TaskDefinition"])["taskDefinition"]
    expected = documented("Token of the read API", "###")
    expected["Resource"] = secret
    assert plain(found["ReadApiToken"]) == plain(expected), f"{found}\ndiffers from the reference\n{expected}"
    assert found["DecryptApiToken"]["Resource"] == key, found
    container = task["containerDefinitions"][0]
    environment = {one["name"]: one["value"] for one in container["environment"]}
    given = {name: value for name, value in environment.items() if "_API_" in name}
    assert given == {"ECS_MESH_API_ADDRESS": "0.0.0.0:9103", "ECS_MESH_API_TOKEN_SECRET": secret}, environment
    assert {one["containerPort"] for one in container["portMappings"]} == {9102, 9103}, container["portMappings"]
    with moto() as (client, _):
        _, made = create_stack(client)
        task = client("ecs").describe_task_definition(taskDefinition=made["TaskDefinition"])["taskDefinition"]
        policies = client("iam").list_role_policies(RoleName=made["TaskRole"])["PolicyNames"]
    [api] = [one["value"] for one in task["containerDefinitions"][0]["environment"] if "_API_" in one["name"]]
    assert api == "none" and "api-token" not in policies, (api, policies)
    with moto() as (client, _):
        _, made = create_stack(client, HoldDeployments="true")
        found = inline_policy(client, made["TaskRole"], "hold-deployments")["Statement"]
    expected = of_clusters(documented("Held deployments", "###"))
    assert plain(found) == plain(expected), f"{plain(found)}\ndiffers from the reference\n{plain(expected)}"
    with moto() as (client, _):
        _, made = create_stack(client, HostMode="true", ManifestsParameterPath="/mesh/prod")
        [manifests] = inline_policy(client, made["TaskRole"], "manifests")["Statement"]
        found = inline_policy(client, made["TaskRole"], "host-mode")["Statement"]
    assert manifests["Action"] == "ssm:GetParametersByPath" and len(manifests["Resource"]) == 2, manifests
    expected = of_clusters(documented("Tasks in network mode host", "###"))
    assert plain(found) == plain(expected), f"{plain(found)}\ndiffers from the reference\n{plain(expected)}"
    pattern = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/prod-*"
    with moto() as (client, _):
        _, made = create_stack(client, WatchedClusterArns=pattern, ManifestsBucket="mesh-manifests", ManifestsPrefix="prod/")
        found = {one["Sid"]: one for one in inline_policy(client, made["TaskRole"], "observe")["Statement"]}
        manifests = {one["Sid"]: one for one in inline_policy(client, made["TaskRole"], "manifests")["Statement"]}
        rule = client("events").describe_rule(Name=made["TaskRule"].rsplit("/", 1)[-1])
    assert found["ListClusters"]["Action"] == "ecs:ListClusters", found
    assert plain(found["ListTasks"]["Condition"]) == {"ArnLike": {"ecs:cluster": pattern}}, found
    assert plain(found["DescribeTasks"]["Resource"]) == pattern.replace(":cluster/", ":task/") + "/*", found
    # EventBridge needs another form of patterns than IAM, which a template cannot make.
    assert "detail" not in json.loads(rule["EventPattern"]), rule
    assert manifests["ListManifests"]["Condition"] == {"StringEquals": {"s3:prefix": "prod/"}}, manifests
    assert manifests["ReadManifests"]["Resource"] == "arn:aws:s3:::mesh-manifests/prod/*", manifests
    token_key = VALUES["TokenKeyArn"][0][1]
    policies = {"secretsManager": "token-secrets", "parameterStore": "token-parameters"}
    for number, (store, name) in enumerate(policies.items()):
        with moto() as (client, _):
            _, made = create_stack(client, TokenPath="/mesh/prod", TokenStore=store, TokenKeyArn=token_key)
            found = inline_policy(client, made["TaskRole"], name)["Statement"]
            attached = client("iam").list_role_policies(RoleName=made["TaskRole"])["PolicyNames"]
        assert set(attached) & set(policies.values()) == {name}, attached
        expected = documented("Data plane tokens", "###", number)
        # The reference shows a key by its alias, too; the stack has its ARN.
        encrypt = expected[-1]
        encrypt["Resource"] = token_key
        encrypt["Condition"].pop("ForAnyValue:StringEquals", None)
        assert plain(found) == plain(expected), f"{plain(found)}\ndiffers from the reference\n{plain(expected)}"
    secrets = {name: VALUES[name][0][0] for name in ("ConsulTokenSecretArn", "ConsulCaSecretArn")}
    key = VALUES["SecretKeyArn"][0][1]
    with moto() as (client, _):
        _, made = create_stack(client, ControlPlaneTokenSecretArn="", SecretKeyArn=key, **secrets)
        found = {one["Sid"]: one for one in inline_policy(client, made["TaskRole"], "consul-secrets")["Statement"]}
        start = {one["Sid"] for one in inline_policy(client, made["ExecutionRole"])["Statement"]}
        task = client("ecs").describe_task_definition(taskDefinition=made["TaskDefinition"])["taskDefinition"]
    expected = documented("Secrets of control planes", "###")
    assert plain(found[expected["Sid"]]) == plain(expected), found
    assert (found["DecryptThem"]["Action"], found["DecryptThem"]["Resource"]) == ("kms:Decrypt", key), found
    # The operator reads Consul's secrets itself: ECS needs none.
    assert not start & {"ReadTheToken", "DecryptTheToken"} and not task["containerDefinitions"][0].get("secrets"), start


def member():
    """The role of a member account has what the reference says for its clusters, and trusts the operator's role alone."""
    with moto() as (client, _):
        outputs, made = create_member(client)
        found = described_member(client, made["MemberRole"])
        _, made = create_member_in_second_region(client)
    assert outputs["RoleArn"] == f"arn:aws:iam::{ACCOUNT}:role/ecs-mesh-member", outputs
    assert "MemberRole" not in made and "TaskRule" in made, made
    expected = {one["Sid"]: one for one in documented("The operator's task role")["Statement"]}
    expected |= {one["Sid"]: one for one in documented("Held deployments", "###")}
    expected |= {one["Sid"]: one for one in documented("Tasks in network mode host", "###")}
    del expected["ConsumeQueue"]
    expected = of_clusters(expected)
    different = [name for name in expected | found["statements"] if found["statements"].get(name) != plain(expected.get(name))]
    assert not different, f"{different} of {found['statements']}\ndiffer from the reference\n{plain(expected)}"
    trust = json.dumps(documented("Member accounts", "###", 1))
    trust = trust.replace(f"arn:aws:iam::{ACCOUNT}:role/OPERATOR-TASK-ROLE", MEMBER_PARAMETERS["OperatorRoleArn"])
    trust = json.loads(trust.replace("EXTERNAL-ID", MEMBER_PARAMETERS["ExternalId"]))
    assert found["trust"] == plain(trust), f"{found['trust']}\ndiffers from the reference\n{plain(trust)}"
    assert [target for _, target in found["forwarded"]] == [MEMBER_PARAMETERS["EventBusArn"]] * 2, found
    with moto() as (client, _):
        roles = VALUES["MemberRoleArns"][0][1]
        _, made = create_stack(client, MemberRoleArns=roles, MemberAccountIds="444455556666")
        [found] = inline_policy(client, made["TaskRole"], "member-accounts")["Statement"]
    expected = documented("Member accounts", "###")
    assert plain(found) == plain(expected | {"Resource": roles}), found


def create_member_in_second_region(client):
    client("cloudformation").delete_stack(StackName="member")
    return create_member(client, RoleName="")


def queue_policy():
    """The event queue accepts messages only from the stack's rules, as in the reference, and only with TLS."""
    resources = template(MAIN)["Resources"]
    reference = documented("The queue")["Statement"]
    queues = {"EventQueue": "EventQueuePolicy", "RuleDeadLetters": "RuleDeadLettersPolicy"}
    rules = [{"Fn::GetAtt": [rule, "Arn"]} for rule in ("TaskRule", "RoleRule")]
    held = {"Fn::GetAtt": ["DeploymentRule", "Arn"]}
    rules.append({"Fn::If": ["HoldsDeployments", held, {"Ref": "AWS::NoValue"}]})
    for queue, policy in queues.items():
        *senders, tls = resources[policy]["Properties"]["PolicyDocument"]["Statement"]
        assert len(senders) == len(reference), senders
        for found, documented_one in zip(senders, reference):
            [operator] = documented_one["Condition"]
            expected = dict(documented_one, Sid=found["Sid"], Resource={"Fn::GetAtt": [queue, "Arn"]})
            expected["Condition"] = {operator: {"aws:SourceArn": rules}}
            assert found == expected, f"{policy}: {found}"
        assert tls["Effect"] == "Deny" and tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}, tls
    for rule in ("TaskRule", "RoleRule", "DeploymentRule"):
        [target] = resources[rule]["Properties"]["Targets"]
        assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": ["RuleDeadLetters", "Arn"]}}, target


def service():
    """The service replaces copies one by one, which share a lease, with time to stop, blocking logs and a hardened container."""
    resources = template(MAIN)["Resources"]
    service = resources["Service"]["Properties"]
    deployment = service["DeploymentConfiguration"]
    assert service["DesiredCount"] == {"Ref": "Replicas"}
    assert (deployment["MaximumPercent"], deployment["MinimumHealthyPercent"]) == (200, 100)
    assert service["NetworkConfiguration"]["AwsvpcConfiguration"]["AssignPublicIp"] == "DISABLED"
    container, _ = resources["TaskDefinition"]["Properties"]["ContainerDefinitions"]
    lease = [one["Value"] for one in container["Environment"] if one.get("Name") == "ECS_MESH_LEASE"]
    assert lease == [{"Fn::Sub": "dynamodb:${LeaseTable}"}], "several copies without a lease would all write"
    command = container["Command"]
    shutdown = int(command[command.index("--graceful-shutdown-timeout") + 1].removesuffix("s"))
    assert shutdown + 5 <= container["StopTimeout"] <= 120, "ECS would kill the operator while it shuts down"
    assert container["LogConfiguration"]["Options"]["mode"] == {"Ref": "LogMode"}
    assert template(MAIN)["Parameters"]["LogMode"]["Default"] == "blocking"
    assert container["ReadonlyRootFilesystem"] and container["User"] == "65532:65532"
    check = container["HealthCheck"]
    assert check["Command"][0] == "CMD", "there is no shell in the image"
    assert "--started" in check["Command"], "a copy that cannot start would replace one that works"
    # A standby reads 10,000 tasks of one cluster in 201 calls: a burst of 50, and the rest at a fifteenth of 10 a second.
    sweep = (201 - 50) / (10 / 15)
    assert check["StartPeriod"] + check["Interval"] * check["Retries"] >= 1.5 * sweep, "a cold start takes longer"
    assert check["StartPeriod"] <= 300 and check["Retries"] <= 10, "ECS allows no more"


def stack():
    """An event reaches the stack's queue, and the operator, run with its task definition's command, consumes it."""
    with moto() as (client, url), tempfile.TemporaryDirectory() as folder:
        outputs, made = create_stack(client)
        event = json.loads((ROOT / "tests/fixtures/events/task_fargate_running.json").read_text())
        here = json.loads(json.dumps(event["detail"]).replace(f"{event['account']}:cluster/prod", f"{ACCOUNT}:cluster/demo"))
        here = json.loads(json.dumps(here).replace(f"{event['account']}:task/prod", f"{ACCOUNT}:task/demo"))
        elsewhere = json.loads(json.dumps(here).replace(":cluster/demo", ":cluster/other"))
        for detail in (elsewhere, here):
            entry = {"Source": "aws.ecs", "DetailType": event["detail-type"], "Detail": json.dumps(detail)}
            client("events").put_events(Entries=[entry])
        until("the event reaches the queue", lambda: in_queue(client, outputs["QueueUrl"]))
        assert in_queue(client, outputs["QueueUrl"]) == 1, "the rule matched an event of another cluster"

        task = client("ecs").describe_task_definition(taskDefinition=made["TaskDefinition"])["taskDefinition"]
        [container] = task["containerDefinitions"]
        assert container["stopTimeout"] == 30 and container["logConfiguration"]["options"]["mode"] == "blocking", container
        manifests = pathlib.Path(folder, "mesh.yaml")
        manifests.write_text(MANIFESTS)
        environment = {one["name"]: one["value"] for one in container["environment"]}
        environment |= {one["name"]: "a-token" for one in container["secrets"]}
        environment |= {"ECS_MESH_MANIFESTS": folder, "ECS_MESH_METRICS_ADDRESS": "127.0.0.1:0", "AWS_ENDPOINT_URL": url}
        environment |= {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "secret"}
        log = pathlib.Path(folder, "log")
        with log.open("w") as file:
            operator = subprocess.Popen([os.environ["OPERATOR"], *container["command"]], env=environment, stderr=file)
        try:
            ended = lambda: operator.poll() is not None  # The log explains an early exit better than a timeout.
            until("the operator consumes the event", lambda: ended() or not in_queue(client, outputs["QueueUrl"]))
            operator.send_signal(signal.SIGTERM)
            code = operator.wait(DEADLINE)
        finally:
            operator.kill()
        output = log.read_text()
        assert code == 0 and not in_queue(client, outputs["QueueUrl"]), output
        for wrong in ("redrive policy", "cannot read the queue", "receiving from the event queue failed", "unparseable message"):
            assert wrong not in output, output


def dashboard():
    """Each metric of dashboard and alarms exists with its dimensions, and filters and queries match what the program logs."""
    resources = template(DASHBOARD)["Resources"]
    # Parameters stand for themselves, so that each place has to name the right one.
    body = re.sub(r"\$\{([^}]+)\}", r"<\1>", resources["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"])
    widgets = json.loads(body)["widgets"]
    cells = [
        (x, y)
        for one in widgets
        for x in range(one["x"], one["x"] + one["width"])
        for y in range(one["y"], one["y"] + one["height"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24, "widgets overlap"
    regions = {one["properties"]["region"] for one in widgets}
    assert regions == {"<AWS::Region>"}, f"widgets of {regions}"
    filters = {one["MetricTransformations"][0]["MetricName"]: one for one in properties_of(resources, "AWS::Logs::MetricFilter")}
    check_dashboard_metrics(widgets, filters)
    check_dashboard_alarms(properties_of(resources, "AWS::CloudWatch::Alarm"), filters)
    queries = [one["properties"]["query"] for one in widgets if one["type"] == "log"]
    check_dashboard_log(filters, queries, sandbox_log())
    check_dashboard_command()


def properties_of(resources, type_):
    return [one["Properties"] for one in resources.values() if one["Type"] == type_]


def dimensions_of(metric_filter):
    """The fields of the log that are dimensions of a filter's metric, by dimension."""
    [transformation] = metric_filter["MetricTransformations"]
    assert transformation["MetricNamespace"] == {"Fn::Sub": "EcsMesh/${OperatorId}"}, transformation
    dimensions = {one["Key"]: one["Value"].removeprefix("$.") for one in transformation.get("Dimensions", [])}
    assert not dimensions or "DefaultValue" not in transformation, "CloudWatch allows no default with dimensions"
    return dimensions


def check_dashboard_metrics(widgets, filters):
    """Each metric is one of AWS for a resource of the stack, or one of the filters; and each filter is shown."""
    of_stack = {
        "QueueName": {"<EventQueueName>", "<EventDeadLettersName>", "<RuleDeadLettersName>"},
        "ClusterName": {"<ClusterName>"},
        "ServiceName": {"<ServiceName>"},
    }
    shown, used = set(), set()
    for one in widgets:
        if one["type"] != "metric":
            continue
        for namespace, name, dimensions in cloudwatch.metrics_of(one["properties"]["metrics"]):
            where = f"{one['properties']['title']}: {namespace} {name} {dimensions}"
            if namespace == "EcsMesh/<OperatorId>":
                assert name in filters, f"{where}: no filter has this metric"
                assert set(dimensions) == set(dimensions_of(filters[name])), f"{where}: not the dimensions of the filter"
                shown.add(name)
                continue
            known = cloudwatch.AWS_METRICS[namespace]
            assert name in known["metrics"] and set(dimensions) == known["dimensions"], where
            assert all(value in of_stack[dimension] for dimension, value in dimensions.items()), where
            used |= set(dimensions.values())
    assert shown == set(filters), f"{shown} are shown, and {set(filters)} exist"
    assert used == set.union(*of_stack.values()), f"{used} are shown"


def check_dashboard_alarms(alarms, filters):
    """Each alarm is on a metric of a filter. An alarm names all dimensions, and these metrics have none."""
    assert alarms
    for alarm in alarms:
        assert alarm["Namespace"] == {"Fn::Sub": "EcsMesh/${OperatorId}"}, alarm
        assert alarm["MetricName"] in filters, f"{alarm['MetricName']}: no filter has this metric"
        assert not dimensions_of(filters[alarm["MetricName"]]) and "Dimensions" not in alarm, alarm
        for page, heading in re.findall(r"(docs/[\w/-]+\.md), ([\w ]+)\.", alarm["AlarmDescription"]):
            assert f"## {heading}\n" in (ROOT / page).read_text(), f"{page} has no heading {heading}"


# Filters on conditions that the sandbox's demo does not have. Their messages and reasons are looked up instead.
NOT_IN_DEMO = {"Errors", "UnsupportedControlPlanes", "HeldRemovals"}


def sandbox_log():
    """The lines that an operator logs in a demo with Kuma and Consul."""
    command = ["sandbox", "--duration", "12s", "--control-plane", "both", "--seed", "7", "--api-address", "none"]
    command += ["--log", "info", "--log-format", "json", "--output", "json"]
    done = subprocess.run([os.environ["OPERATOR"], *command], capture_output=True, text=True, timeout=10 * DEADLINE)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]


def check_dashboard_log(filters, queries, lines):
    """Filters and queries match lines of the log, which have their fields, and dimensions have documented values."""
    values = {"change": {"create", "update", "drain", "remove"}, "reason": documented_reasons()}
    sources = "".join(path.read_text() for path in sorted((ROOT / "src").rglob("*.rs")))
    for name, one in filters.items():
        conditions = cloudwatch.conditions_of(one["FilterPattern"])
        matched = [line for line in lines if cloudwatch.matches(conditions, line)]
        assert matched or name in NOT_IN_DEMO, f"{name}: no line of the log matches"
        for field in dimensions_of(one).values():
            found = {line.get(field) for line in matched}
            known = values.get(field, set())
            assert found <= known, f"{name}: the dimension {field} has the values {found - known}"
        check_conditions(name, conditions, sources)
    changes = cloudwatch.conditions_of(filters["Changes"]["FilterPattern"])
    changed = [line for line in lines if line.get("result") == "success" and line.get("change") in values["change"]]
    missed = [line for line in changed if not cloudwatch.matches(changes, line)]
    assert not missed and {line["change"] for line in changed} == values["change"], f"Changes does not count {missed[:1]}"
    for query in queries:
        fields, conditions = cloudwatch.query_of(query)
        matched = [line for line in lines if cloudwatch.matches(conditions, line)]
        absent = fields - set().union(*matched)
        assert matched and not absent, f"no line of {len(matched)} has {absent}: {query}"
        check_conditions(query, conditions, sources)


def check_conditions(where, alternatives, sources):
    """Every value that a condition names is one that the program writes."""
    known = {"level": {"ERROR", "WARN"}, "target": {"audit"}, "reason": documented_reasons() | {"*"}}
    for field, values in ((field, values) for one in alternatives for field, values in one.items()):
        if field == "message":
            absent = {value for value in values if f'"{value}"' not in sources}
        else:
            absent = values - known[field]
        assert not absent, f"{where}: no line of the log has {field} {absent}"


def documented_reasons():
    """The reasons of tasks' warnings. Those of other warnings may be texts, which would each be a metric."""
    section = METRICS.read_text().split("\n## Warnings\n")[1].split("\n## ")[0]
    return {name for row in re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}


def check_dashboard_command():
    """The guide's command gives every parameter, from outputs that the operator's stack has."""
    command = OBSERVE.read_text().split("--template-file deploy/cloudformation/dashboard.yaml")[1].split("```")[0]
    given = set(re.findall(r"(\w+)=", command))
    assert given == set(template(DASHBOARD)["Parameters"]), f"{OBSERVE.name} gives {given}"
    outputs = set(re.findall(r"\$\((?:output|name) (\w+)\)", command))
    assert outputs and outputs <= set(template(MAIN)["Outputs"]), f"{OBSERVE.name} names the outputs {outputs}"


MANIFESTS = f"""
apiVersion: ecs-mesh.dev/v1alpha1
kind: ControlPlane
metadata: {{name: kuma}}
spec:
  type: kuma
  kuma: {{address: "http://127.0.0.1:1", tokenEnv: KUMA_TOKEN}}
---
apiVersion: ecs-mesh.dev/v1alpha1
kind: MeshBinding
metadata: {{name: demo}}
spec:
  controlPlane: kuma
  mesh: default
  selector: {{clusters: ["{CLUSTERS[0]}"]}}
"""

CHECKS = {
    check.__name__: check
    for check in (lint, images, parameters, role, member, queue_policy, service, stack, dashboard)
}

if __name__ == "__main__":
    CHECKS[sys.argv[1]]()
