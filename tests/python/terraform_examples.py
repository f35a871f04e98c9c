"""Applies the examples of `deploy/terraform` on moto, as docs/how-to/deploy-with-terraform.md says."""

import json
import os
import pathlib
import re
import subprocess

import boto3
import deploy
from deploy import ACCOUNT, REGION, ROOT, inline_policy, plain, until
from terraform_modules import EXAMPLES, Module
from terraform_program import copied

GUIDE = ROOT / "docs/how-to/deploy-with-terraform.md"
OPERATOR, WORKLOAD, MEMBER, TEAM = (f"examples/{path.name}" for path in EXAMPLES)
# Of the member account, as in the guide and in terraform.tfvars.example.
MEMBER_ACCOUNT = "444455556666"
MEMBER_CLUSTER = f"arn:aws:ecs:{REGION}:{MEMBER_ACCOUNT}:cluster/demo"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:pages"

# moto's ECS does not keep these, so that each plan sets them again. Any other change after an apply is a defect.
NOT_IN_MOTO = {
    "aws_ecs_service": {"enable_ecs_managed_tags", "availability_zone_rebalancing"},
}
# Buckets have no host names of their own there.
OVERRIDE = 'provider "aws" {\n  s3_use_path_style = true\n}\n'


class Newcomer:
    """Follows the guide: copies and edits terraform.tfvars, and applies."""

    def __init__(self, terraform):
        self.terraform = terraform

    def edit(self, example, text="", **edits):
        """Copies terraform.tfvars.example, and writes `text` and `edits` over its values."""
        folder = self.terraform.folder / example
        given = (folder / "terraform.tfvars.example").read_text()
        (folder / "terraform.tfvars").write_text(given)
        (folder / "guide.auto.tfvars").write_text(text)
        (folder / "newcomer.auto.tfvars.json").write_text(json.dumps(edits))
        (folder / "moto_override.tf").write_text(OVERRIDE)
        required = {name for name, one in Module(folder).variable.items() if "default" not in one}
        named = set(re.findall(r"^(\w+) *=", given, re.MULTILINE))
        assert named == required, f"{example}: terraform.tfvars.example differs from the required variables: {named ^ required}"

    def apply(self, example, credentials=None):
        """Applies an edited example, and plans it again: nothing may be left. Returns its outputs."""
        if not (self.terraform.folder / example / ".terraform").exists():
            self.terraform.init(example)
        self.terraform.apply(example, credentials)
        left = self.changes(example, credentials)
        assert not left, f"{example}: a second apply would change {left}"
        return self.terraform.outputs(example)

    def changes(self, example, credentials=None):
        """What a plan would change, without what moto does not keep: actions and attributes, by address."""
        found = {}
        for address, change in self.terraform.changes(example, credentials).items():
            [type_] = re.findall(r"(?:^|\.)(aws_\w+)\.", address)
            before, after = change["before"] or {}, change["after"] or {}
            names = {name for name in before | after if before.get(name) != after.get(name)}
            names |= {name for name, unknown in change["after_unknown"].items() if unknown not in (False, [], {})}
            if change["actions"] != ["update"] or names - NOT_IN_MOTO.get(type_, set()):
                found[address] = f"{' '.join(change['actions'])} {', '.join(sorted(names))}"
        return found


def passed_on(heading, outputs):
    """The outputs of example 1 that a section of the guide tells to give to the next example."""
    names = re.findall(r"terraform -chdir=\.\./1-operator output +# (.*)", section(heading))
    [names] = names
    return {name: outputs[name] for name in re.findall(r"\w+", names) if name != "and"}


def section(heading):
    return GUIDE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]


def examples():
    """Each example applies, finds what the former ones created, and creates what the guide promises."""
    with deploy.moto(managed_policies=True) as (client, url), copied(url) as terraform:
        assert set(section("2. Apply the operator").split()) >= {"terraform", "init", "apply"}
        newcomer = Newcomer(terraform)
        network = prepare(client)
        newcomer.edit(OPERATOR, **network)
        first = newcomer.apply(OPERATOR)
        check_operator(client, first, url)
        check_manifests(client, first, url, paused=True, names={"mesh.yaml"})

        tasks = {"subnet_ids": network["subnet_ids"], "security_group_ids": [security_group(client)]}
        newcomer.edit(WORKLOAD, **tasks, **passed_on("3. Add a service", first))
        check_workload(client, newcomer.apply(WORKLOAD), terraform.folder, first, url)

        newcomer.edit(OPERATOR, paused=False, **network)
        changed = newcomer.changes(OPERATOR)
        assert set(changed) == {'aws_s3_object.manifests["mesh.yaml"]'}, f"step 4 of the guide changes {changed}"

        credentials, member = credentials_of_member(client, url)
        newcomer.edit(MEMBER, **passed_on("5. Add another account", first))
        role = newcomer.apply(MEMBER, credentials)["role_arn"]
        check_member(member, role, first)

        [text] = re.findall(r"```hcl\n(.*?)```", section("5. Add another account"), re.DOTALL)
        newcomer.edit(OPERATOR, text, paused=False, alarm_topic_arn=TOPIC, **network)
        assert newcomer.apply(OPERATOR) == first, "the outputs of example 1 changed"
        check_manifests(client, first, url, paused=False, names={"mesh.yaml", "demo-app.yaml"})
        check_members_of_operator(client, first, role)
        check_events(client, member, url)

        newcomer.edit(TEAM)
        check_team(client, newcomer.apply(TEAM))


# --- The world before the first example -------------------------------------------------------------------------------


def prepare(client):
    """The cluster, the token's secret and the network that the guide asks for."""
    client("ecs").create_cluster(clusterName="demo")
    client("secretsmanager").create_secret(Name="ecs-mesh/kuma-token", SecretString="a-token")
    subnets = client("ec2").describe_subnets()["Subnets"][:2]
    return {"vpc_id": subnets[0]["VpcId"], "subnet_ids": [one["SubnetId"] for one in subnets]}


def security_group(client):
    groups = client("ec2").describe_security_groups()["SecurityGroups"]
    return next(one["GroupId"] for one in groups if one["GroupName"] == "default")


def credentials_of_member(client, url):
    """Credentials of the member account, as variables, and a factory of clients for both of its Regions."""
    role = f"arn:aws:iam::{MEMBER_ACCOUNT}:role/deployer"
    given = client("sts").assume_role(RoleArn=role, RoleSessionName="newcomer")["Credentials"]
    keys = {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }

    def member(name, region=REGION):
        return boto3.client(name, region_name=region, endpoint_url=url, **keys)

    return {name.upper(): value for name, value in keys.items()}, member


# --- The world after each example -------------------------------------------------------------------------------------


def check_operator(client, outputs, url):
    """Example 1 has what step 2 of the guide lists."""
    names = {one.rsplit("/", 1)[1] for one in client("sqs").list_queues()["QueueUrls"]}
    assert names == {f"ecs-mesh-operator-{name}" for name in ("events", "events-dead", "rules-dead")}, names
    rules = {one["Name"] for one in client("events").list_rules()["Rules"]}
    assert rules == {"ecs-mesh-operator-tasks", "ecs-mesh-operator-roles"}, rules
    assert not client("cloudwatch").describe_alarms()["MetricAlarms"], "alarms without a topic"
    [group] = client("logs").describe_log_groups(logGroupNamePrefix=outputs["log_group_name"])["logGroups"]
    assert group["retentionInDays"] >= 90, group
    [table] = client("dynamodb").list_tables()["TableNames"]
    [service] = services(client)
    assert service["desiredCount"] == 2 and service["clusterArn"] == outputs["cluster_arn"], service
    task = client("ecs").describe_task_definition(taskDefinition=service["taskDefinition"], include=["TAGS"])
    [container] = task["taskDefinition"]["containerDefinitions"]
    environment = {one["name"]: one["value"] for one in container["environment"]}
    source = f"s3://{outputs['manifests_bucket']}/{outputs['manifests_prefix']}"
    assert environment["ECS_MESH_MANIFESTS"] == source, environment
    assert environment["ECS_MESH_LEASE"] == f"dynamodb:{table}", environment
    assert {"key": "project", "value": "ecs-mesh"} in task["tags"], task["tags"]
    assert task["taskDefinition"]["taskRoleArn"] == outputs["operator_role_arn"], task
    versions = client("s3").get_bucket_versioning(Bucket=outputs["manifests_bucket"])
    assert versions["Status"] == "Enabled", versions
    there = boto3_at(url, "us-east-1")("events")
    [rule] = there.list_rules()["Rules"]
    [target] = there.list_targets_by_rule(Rule=rule["Name"])["Targets"]
    assert target["Arn"] == outputs["event_bus_arn"], target


def boto3_at(url, region):
    keys = {"aws_access_key_id": "AKIDTEST", "aws_secret_access_key": "secret"}
    return lambda name: boto3.client(name, region_name=region, endpoint_url=url, **keys)


def services(client):
    ecs = client("ecs")
    arns = ecs.list_services(cluster="demo")["serviceArns"]
    return ecs.describe_services(cluster="demo", services=sorted(arns))["services"] if arns else []


def check_manifests(client, outputs, url, paused, names):
    """The bucket has these manifests, and the operator accepts them from there."""
    bucket, prefix = outputs["manifests_bucket"], outputs["manifests_prefix"]
    found = client("s3").list_objects_v2(Bucket=bucket)["Contents"]
    assert {one["Key"] for one in found} == {prefix + name for name in names}, found
    mesh = client("s3").get_object(Bucket=bucket, Key=f"{prefix}mesh.yaml")["Body"].read().decode()
    assert f"paused: {str(paused).lower()}\n" in mesh and outputs["cluster_arn"] in mesh, mesh
    done = operator(url, "validate", "--deny-warnings", "--output", "json", f"s3://{bucket}/{prefix}")
    assert done.returncode == 0, done.stdout + done.stderr


def operator(url, *arguments):
    keys = {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": REGION}
    environment = os.environ | keys | {"AWS_ENDPOINT_URL": url}
    return subprocess.run([os.environ["OPERATOR"], *arguments], capture_output=True, text=True, env=environment)


def check_workload(client, outputs, folder, first, url):
    """Example 2 has a role with the identity in the mesh, a service, and a task definition without findings."""
    role = client("iam").get_role(RoleName=outputs["task_role_arn"].rsplit("/", 1)[1])["Role"]
    tags = {one["Key"]: one["Value"] for one in role["Tags"]}
    assert tags == {"kuma.io/type": "dataplane", "kuma.io/mesh": "default", "kuma.io/service": "demo-app"}, tags
    assert role["Path"] == "/mesh/", role
    [service] = [one for one in services(client) if one["serviceName"] == "demo-app"]
    assert service["desiredCount"] == 2 and service["clusterArn"] == first["cluster_arn"], service
    ecs = client("ecs")
    task = ecs.describe_task_definition(taskDefinition=service["taskDefinition"])["taskDefinition"]
    assert task["taskRoleArn"] == outputs["task_role_arn"], task
    app, sidecar = sorted(task["containerDefinitions"], key=lambda one: one["name"])
    assert app["dependsOn"] == [{"containerName": "sidecar", "condition": "HEALTHY"}], app
    assert app["stopTimeout"] < sidecar["stopTimeout"], sidecar
    file, manifests = pathlib.Path(folder, "task.json"), pathlib.Path(folder, "manifests")
    file.write_text(json.dumps(task, default=str))
    manifests.mkdir()
    bucket, prefix = first["manifests_bucket"], first["manifests_prefix"]
    for name in ("mesh.yaml", "demo-app.yaml"):
        client("s3").download_file(bucket, prefix + name, str(manifests / name))
    done = operator(url, "audit", "--offline", "--task-definition", file, "--manifests", manifests, "--output", "json")
    assert done.stdout, done.stderr
    findings = [one for one in json.loads(done.stdout)["findings"] if one["severity"] in ("error", "warning")]
    assert not findings, json.dumps(findings, indent=1)


def check_member(member, role, first):
    """Example 3 trusts the operator's role alone, and forwards events of both Regions to its bus."""
    assert role.startswith(f"arn:aws:iam::{MEMBER_ACCOUNT}:role/"), role
    name = role.rsplit("/", 1)[1]
    [trust] = member("iam").get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"AWS": first["operator_role_arn"]}, trust
    assert trust["Condition"] == {"StringEquals": {"sts:ExternalId": "ecs-mesh-prod"}}, trust
    statements = {one["Sid"]: plain(one) for one in inline_policy(member, name)["Statement"]}
    assert statements["DescribeClusters"]["Resource"] == MEMBER_CLUSTER, statements
    assert statements["GetTaskRoles"]["Resource"] == f"arn:aws:iam::{MEMBER_ACCOUNT}:role/mesh/*", statements
    for region in (REGION, "us-east-1"):
        events = member("events", region)
        [rule] = events.list_rules()["Rules"]
        [target] = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        assert target["Arn"] == first["event_bus_arn"], target


def check_members_of_operator(client, first, role):
    """Example 1, applied again, lets the operator assume the member's role and its bus take the member's events."""
    [assume] = inline_policy(client, first["operator_role_arn"].rsplit("/", 1)[1], "member-accounts")["Statement"]
    assert (assume["Action"], plain(assume["Resource"])) == ("sts:AssumeRole", role), assume
    [admits] = json.loads(client("events").describe_event_bus(Name="default")["Policy"])["Statement"]
    assert admits["Principal"] == {"AWS": f"arn:aws:iam::{MEMBER_ACCOUNT}:root"}, admits
    alarms = client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert len(alarms) == 3 and all(one["AlarmActions"] == [TOPIC] for one in alarms), alarms


def check_events(client, member, url):
    """Events of a task and of a role's tags, of both accounts, reach the operator's queue."""
    [queue] = [one for one in client("sqs").list_queues()["QueueUrls"] if one.endswith("-events")]
    here = boto3_at(url, "us-east-1")
    tagged = ("aws.iam", "AWS API Call via CloudTrail", {"eventName": "TagRole"})
    sent = [
        (client("events"), "aws.ecs", "ECS Task State Change", {"clusterArn": f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/demo"}),
        (member("events"), "aws.ecs", "ECS Task State Change", {"clusterArn": MEMBER_CLUSTER}),
        (here("events"), *tagged),
        (member("events", "us-east-1"), *tagged),
    ]
    for number, (events, source, kind, detail) in enumerate(sent, 1):
        events.put_events(Entries=[{"Source": source, "DetailType": kind, "Detail": json.dumps(detail)}])
        until(f"event {number} of {len(sent)}", lambda: deploy.in_queue(client, queue) >= number)
    other = {"clusterArn": MEMBER_CLUSTER.replace("demo", "other")}
    member("events").put_events(
        Entries=[{"Source": "aws.ecs", "DetailType": "ECS Task State Change", "Detail": json.dumps(other)}]
    )
    assert deploy.in_queue(client, queue) == len(sent), "an event of a cluster that is not watched arrived"


def check_team(client, outputs):
    """Example 4 has the bus, and a rule of the team that leads to its topic and its mail."""
    events, sns = client("events"), client("sns")
    bus = outputs["event_bus_arn"].rsplit("/", 1)[1]
    [rule] = events.list_rules(EventBusName=bus)["Rules"]
    [target] = events.list_targets_by_rule(Rule=rule["Name"], EventBusName=bus)["Targets"]
    [subscription] = sns.list_subscriptions_by_topic(TopicArn=target["Arn"])["Subscriptions"]
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "shop-team@example.com"), subscription
