"""Checks `deploy/terraform`: `terraform.py CHECK`, where CHECK is one of the functions at the end.

Needs tests/python/requirements-deploy.txt. Some checks need more, by variables: TERRAFORM_TEST_SCHEMA (the package with the
provider's schema), HCLFMT_TEST_BIN (tests/hclfmt), TERRAFORM_TEST_PLUGINS (Terraform or OpenTofu, and the provider),
CHECKOV_TEST_BIN, OPERATOR.
"""

import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import deploy
import terraform_modules
import terraform_schema
from deploy import ACCOUNT, CLUSTERS, MAIN, POLICY, REGION, ROLE_EVENTS, ROOT, VALUES, plain, sorted_json, template
from terraform_examples import examples
from terraform_modules import EXAMPLES, MODULES, TERRAFORM, Module
from terraform_program import copied

README = "README.md"
CLUSTER = CLUSTERS[0]

# --- Without Terraform ------------------------------------------------------------------------------------------------


def wiring():
    """Every reference leads somewhere, every call of a module is complete, every argument is one of the provider's."""
    schema = terraform_schema.load(os.environ["TERRAFORM_TEST_SCHEMA"], terraform_modules.required_types())
    for path in MODULES + EXAMPLES:
        terraform_modules.check_wiring(path, schema)
        terraform_modules.check_arguments(path, schema)
        versions = Module(path).terraform
        assert versions == Module(MODULES[0]).terraform, f"{path.name}: other versions than {MODULES[0].name}: {versions}"


# Texts that `terraform fmt` would change, or that are no configuration.
NOT_ACCEPTED = {
    "alignment": 'locals {\n  a = 1\n  bcd = 2\n}\n',
    "indentation": "locals {\n    a = 1\n}\n",
    "space": "locals {\n  a=1\n}\n",
    "interpolation": 'locals {\n  a = "${local.b}"\n}\n',
    "type": 'variable "a" {\n  type = "string"\n}\n',
    "element": 'variable "a" {\n  type = list\n}\n',
    "label": "resource aws_sqs_queue this {\n}\n",
    "syntax": "locals {\n  a = [\n}\n",
}


def parser():
    """Terraform's own parser accepts every file in its format, and finds the references that `wiring` checks."""
    for path in MODULES + EXAMPLES:
        files = [file for file in sorted(path.rglob("*")) if re.search(r"\.(tf|tfvars\.example|tftest\.hcl)$", file.name)]
        found = hclfmt(files)
        assert not found["faults"], "\n".join(found["faults"])
        parsed = {name for file in path.glob("*.tf") for name in found["references"][str(file)]}
        parsed = {".".join(name.split(".")[: 3 if name.startswith("data.") else 2]) for name in parsed}
        parsed = {name for name in parsed if re.match(r"(var|local|module|data|aws_\w+)\.", name)}
        read = terraform_modules.all_references(path)
        assert read == parsed, f"{path.name}: `wiring` misses {parsed - read}, and makes up {read - parsed}"
    with tempfile.TemporaryDirectory() as folder:
        for name, text in NOT_ACCEPTED.items():
            file = pathlib.Path(folder, f"{name}.tf")
            file.write_text(text)
            assert hclfmt([file])["faults"], f"{name} is accepted"
    if "TERRAFORM_TEST_PLUGINS" not in os.environ:
        print("skipped: comparison with `terraform fmt`: TERRAFORM_TEST_PLUGINS is not set")
        return
    with copied() as terraform:
        for name, text in NOT_ACCEPTED.items():
            (terraform.folder / "main.tf").write_text(text)
            assert terraform.run("fmt", "-check", check=False).strip(), f"terraform fmt accepts {name}"


def hclfmt(files):
    done = subprocess.run([os.environ["HCLFMT_TEST_BIN"], *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def readmes():
    """The README of each module has its inputs and outputs. UPDATE_GOLDEN=1 writes them."""
    for path in MODULES:
        file = path / README
        text = file.read_text()
        before, rest = text.split(terraform_modules.BEGIN)
        after = rest.split(terraform_modules.END)[1]
        new = before + terraform_modules.tables(path) + after
        if os.environ.get("UPDATE_GOLDEN"):
            file.write_text(new)
        assert file.read_text() == new, f"{file}: run this test with UPDATE_GOLDEN=1"


def checkov():
    """checkov accepts the modules, the examples and the templates, but for the checks in .ci/checkov.yaml."""
    places = ["--directory", str(ROOT / "deploy"), "--config-file", str(ROOT / ".ci/checkov.yaml")]
    # Otherwise it asks a service for further policies.
    command = [os.environ["CHECKOV_TEST_BIN"], *places, "--skip-download", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    reports = json.loads(done.stdout)
    frameworks = {report["check_type"]: report for report in reports}
    assert set(frameworks) == {"terraform", "cloudformation"}, done.stdout[:2000]
    for report in reports:
        assert report["summary"]["passed"] > 20 and not report["summary"]["parsing_errors"], report["summary"]
        failed = [
            f"{one['check_id']} {one['check_name']}: {one['file_path']} {one['resource']}"
            for one in report["results"]["failed_checks"]
        ]
        assert not failed, "\n".join(failed)


def role_tags():
    """The policy that protects role tags covers every path of roles in modules, examples, manifests and the guides."""
    covered = set()
    for statement in json.loads(POLICY.read_text())["Statement"]:
        covered |= role_paths(json.dumps(statement["Resource"]))
    used = set(re.findall(r'"(/[a-z-]+/)"', Module(TERRAFORM / "modules/workload").locals["role_path"]))
    assert used == {"/mesh/", "/consul-ecs/"}, used
    for file in [*TERRAFORM.rglob("*.tf"), *(ROOT / "examples").rglob("*.yaml"), *(ROOT / "docs/how-to").glob("*.md")]:
        used |= role_paths(file.read_text())
    assert used - {"/"} <= covered, f"{used - covered} are not in {POLICY.name}"


def role_paths(text):
    return set(re.findall(r"arn:[\w*-]*:iam::[\w*{}.$]*:role(/[a-z-]+/)\*", text))


# --- With Terraform ---------------------------------------------------------------------------------------------------


def validate():
    """Terraform accepts the examples, and so the modules that they call, and the format of all."""
    with copied() as terraform:
        unformatted = terraform.run("fmt", "-check", "-recursive", "-list=true", check=False)
        assert not unformatted.strip(), f"terraform fmt would change\n{unformatted}"
        assert {module.name for path in EXAMPLES for module in calls(path)} == {path.name for path in MODULES}
        for path in EXAMPLES:
            at = path.relative_to(TERRAFORM)
            terraform.init(at)
            found = json.loads(terraform.run("validate", "-json", at=at, check=False))
            assert found["valid"] and not found["diagnostics"], f"{at}: {found['diagnostics']}"


def calls(path):
    """The modules that a directory calls, and those that they call."""
    module = Module(path)
    for name in module.module:
        called = module.called(name).path
        yield called
        yield from calls(called)


# The parameter of CloudFormation with the same pattern as an input.
SAME_PATTERN = {
    "operator_id": "OperatorId",
    "image": "Image",
    "kuma_token_secret_arn": "ControlPlaneTokenSecretArn",
    "consul_token_secret_arn": "ConsulTokenSecretArn",
    "consul_ca_secret_arn": "ConsulCaSecretArn",
    "secret_kms_key_arn": "SecretKeyArn",
    "manifests_kms_key_arn": "ManifestsKeyArn",
    "watched_cluster_arns": "WatchedClusterArns",
    "mesh_role_arns": "MeshRoleArns",
    "service_discovery_namespace_id": "DiscoveryNamespaceId",
    "prometheus_workspace_arn": "PrometheusWorkspaceArn",
    "token_kms_key_arn": "TokenKeyArn",
    "alarm_topic_arn": "AlarmTopicArn",
    "team_events_bus_arn": "TeamEventsBusArn",
    "api_token_secret_arn": "ApiTokenSecretArn",
    "api_tls_cert_file": "ApiTlsCertFile",
    "api_tls_key_file": "ApiTlsKeyFile",
}
# The same of the module team-events.
SAME_TEAM_PATTERN = {
    "event_bus_name": "EventBusName",
    "ecs_service_prefix": "EcsServicePrefix",
    "detail_types": "DetailTypes",
    "topic_kms_key_arn": "TopicKeyArn",
}
OTHER_VALUES = {
    "manifests_source": (
        ["/etc/mesh/manifests", "s3://mesh-manifests/", "s3://mesh-manifests/a/b/", "ssm:/mesh/prod/"],
        ["", "mesh", "s3://mesh-manifests/prod", "s3://b/", "ssm:/", "ssm:/mesh", "https://x/"],
    ),
    "name": (["ecs-mesh-operator"], ["", "A", "x" * 37, "-a"]),
    "token_path": (["/mesh", "/mesh/prod"], ["", "mesh", "/", "/mesh/", "/mesh/*"]),
}


def inputs():
    """The inputs of operator and team-events accept and reject the same values as the parameters of CloudFormation."""
    values = OTHER_VALUES | {name: VALUES[one] for name, one in SAME_PATTERN.items()}
    addresses = Module(TERRAFORM / "modules/operator").variable["api_address"]["validation"][0]["condition"]
    allowed = template(MAIN)["Parameters"]["ApiAddress"]["AllowedValues"]
    assert re.findall(r'"([^"]+)"', addresses) == allowed, f"api_address: {addresses} differs from {allowed}"
    check_inputs("operator", values, {"cluster_arn", "member_role_arns", "member_account_ids"})
    check_inputs("team-events", {name: VALUES[one] for name, one in SAME_TEAM_PATTERN.items()}, {"name"})


def check_inputs(module, values, others):
    """The module's inputs accept and reject these values; only `others` have patterns without values."""
    variables = Module(TERRAFORM / "modules" / module).variable
    for name, (accepted, rejected) in values.items():
        [validation] = variables[name]["validation"]
        [pattern] = re.findall(r'regex\("((?:[^"\\]|\\.)*)"', validation["condition"])
        pattern = json.loads(f'"{pattern}"')
        not_latest = "endswith" in validation["condition"]

        def is_valid(value):
            return re.search(pattern, value) and not (not_latest and value.endswith(":latest"))

        # Absent is null instead of an empty text.
        wrong = [value for value in accepted if value and not is_valid(value)]
        wrong += [value for value in rejected if is_valid(value)]
        assert not wrong, f"{name}: {wrong}"
    patterns = {name for name, one in variables.items() if "regex(" in json.dumps(one.get("validation", []))}
    unchecked = patterns - set(values) - others
    assert not unchecked, f"no values for {unchecked}"


def preconditions():
    """Inputs that contradict each other are refused."""
    with copied() as terraform:
        at = "modules/operator"
        terraform.init(at)
        output = terraform.run("test", "-no-color", at=at)
        assert " 0 failed" in output, output


def operator_inputs():
    """What a small installation gives."""
    return {
        "operator_id": "prod",
        "image": VALUES["Image"][0][0],
        "kuma_token_secret_arn": VALUES["ControlPlaneTokenSecretArn"][0][0],
        "watched_cluster_arns": CLUSTERS,
        "mesh_role_arns": VALUES["MeshRoleArns"][0][:1],
        "cluster_arn": CLUSTER,
        "subnet_ids": ["subnet-0a1b2c3d"],
        "security_group_ids": ["sg-0a1b2c3d"],
    }


# --- Comparison with CloudFormation -----------------------------------------------------------------------------------

# Everything that both can do. The names of one have the same meaning in the other.
EVERYTHING = {
    "ConsulTokenSecretArn": ("consul_token_secret_arn", VALUES["ConsulTokenSecretArn"][0][0]),
    "ConsulCaSecretArn": ("consul_ca_secret_arn", VALUES["ConsulCaSecretArn"][0][0]),
    "SecretKeyArn": ("secret_kms_key_arn", VALUES["SecretKeyArn"][0][1]),
    "ManifestsBucket": ("manifests_source", "s3://mesh-manifests/prod/"),
    "ManifestsPrefix": (None, "prod/"),
    "ManifestsContent": ("manifests_content", "# none"),
    "ManifestsKeyArn": ("manifests_kms_key_arn", VALUES["SecretKeyArn"][0][1]),
    "HoldDeployments": ("hold_deployments", True),
    "HostMode": ("host_mode", True),
    "PrometheusWorkspaceArn": ("prometheus_workspace_arn", VALUES["PrometheusWorkspaceArn"][0][0]),
    "TokenPath": ("token_path", "/mesh/prod"),
    "TokenKeyArn": ("token_kms_key_arn", VALUES["SecretKeyArn"][0][1]),
    "LogMode": ("log_mode", "non-blocking"),
    "AlarmTopicArn": ("alarm_topic_arn", VALUES["AlarmTopicArn"][0][1]),
    "TeamEventsBusArn": ("team_events_bus_arn", VALUES["TeamEventsBusArn"][0][1]),
    "ApiAddress": ("api_address", "0.0.0.0:9103"),
    "ApiTokenSecretArn": ("api_token_secret_arn", VALUES["ApiTokenSecretArn"][0][1]),
    "ApiTlsCertFile": ("api_tls_cert_file", "/etc/mesh/api.pem"),
    "ApiTlsKeyFile": ("api_tls_key_file", "/etc/mesh/api-key.pem"),
    "PermissionsBoundaryArn": ("permissions_boundary_arn", f"arn:aws:iam::{ACCOUNT}:policy/boundary"),
}


def cloudformation():
    """Terraform and CloudFormation create the same resources with the same policies, on moto."""
    parameters = {name: str(value).lower() if isinstance(value, bool) else value for name, (_, value) in EVERYTHING.items()}
    parameters["ManifestsBucket"] = "mesh-manifests"
    with deploy.moto() as (client, _):
        make_boundary(client)
        _, made = deploy.create_stack(client, **parameters)
        expected = described(client, made)
    arguments = operator_inputs() | {name: value for name, value in EVERYTHING.values() if name}
    with deploy.moto() as (client, url), copied(url) as terraform:
        make_boundary(client)
        client("ecs").create_cluster(clusterName="demo")
        given = parameters | deploy.required_parameters(client)
        arguments |= {"subnet_ids": [given["SubnetIds"]], "security_group_ids": [given["SecurityGroupIds"]]}
        expected |= in_template(given)
        # A name that is no part of another word.
        arguments["name"] = "compared"
        terraform.write("operator", arguments)
        terraform.init()
        terraform.apply()
        state = json.loads(terraform.run("show", "-json"))
        found = described(client, made_by_terraform(state)) | in_terraform(client, state)
    different = [
        f"{part}\nTerraform:      {sorted_json(found.get(part))}\nCloudFormation: {sorted_json(expected.get(part))}"
        for part in expected | found
        if found.get(part) != expected.get(part)
    ]
    assert not different, "\n".join(different)


def team_events():
    """The module team-events and its template create the same rule, topic, queue and policies, on moto."""
    given = {"EventBusName": "ecs-mesh", "EcsServicePrefix": "shop-", "DetailTypes": "TaskRejected,GuardTripped"}
    with deploy.moto() as (client, _):
        client("events").create_event_bus(Name="ecs-mesh")
        stacks = client("cloudformation")
        parameters = [{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()]
        stacks.create_stack(StackName="team", TemplateBody=deploy.TEAM_EVENTS.read_text(), Parameters=parameters)
        [stack] = stacks.describe_stacks(StackName="team")["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE", stack
        outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
        expected = described_team_events(client, outputs["TopicArn"], outputs["DeadLettersUrl"])
    # moto's CloudFormation lacks policies of topics and queues.
    for name, one in template(deploy.TEAM_EVENTS)["Resources"].items():
        if name.endswith("Policy"):
            values = {"Topic": "<topic>", "DeadLetters": "<queue>", "Rule": "<rule>"}
            expected[name] = plain(with_names(one["Properties"]["PolicyDocument"], values))
    arguments = {
        "event_bus_name": given["EventBusName"],
        "ecs_service_prefix": given["EcsServicePrefix"],
        "detail_types": given["DetailTypes"].split(","),
    }
    with deploy.moto() as (client, url), copied(url) as terraform:
        client("events").create_event_bus(Name="ecs-mesh")
        terraform.write("team-events", arguments)
        terraform.init()
        terraform.apply()
        outputs = terraform.outputs()
        topic, queue = outputs["topic_arn"], outputs["dead_letters_url"]
        found = described_team_events(client, topic, queue)
        queue_arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue.rsplit('/', 1)[1]}"
        names = {queue_arn: "<queue>", topic: "<topic>", outputs["rule_arn"]: "<rule>"}
        policies = {
            "TopicPolicy": client("sns").get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"],
            "DeadLettersPolicy": client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["Policy"])["Attributes"]["Policy"],
        }
        for name, text in policies.items():
            for physical, logical in names.items():
                text = text.replace(f'"{physical}"', f'"{logical}"')
            found[name] = plain(json.loads(text))
    different = [f"{part}: {found.get(part)}\n{expected.get(part)}" for part in expected if found.get(part) != expected[part]]
    assert not different, "\n".join(different)


def described_team_events(client, topic, queue):
    """The rule of the bus, its target and the queue, with logical names."""
    events = client("events")
    [rule] = events.list_rules(EventBusName="ecs-mesh")["Rules"]
    [target] = events.list_targets_by_rule(Rule=rule["Name"], EventBusName="ecs-mesh")["Targets"]
    dead = target["DeadLetterConfig"]["Arn"].rsplit(":", 1)[1]
    assert (target["Arn"], dead) == (topic, queue.rsplit("/", 1)[1]), target
    attributes = client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    return {
        "pattern": plain(json.loads(rule["EventPattern"])),
        "rule": [rule["Description"], rule["State"], target["Id"]],
        "queue": [str(attributes.get(name)).lower() for name in ("MessageRetentionPeriod", "SqsManagedSseEnabled")],
    }


def with_names(value, names):
    """A part of a template with names for the ARNs of its resources."""
    if isinstance(value, list):
        return [with_names(one, names) for one in value]
    if not isinstance(value, dict):
        return value
    if "Fn::GetAtt" in value:
        return names[value["Fn::GetAtt"][0]]
    if "Fn::Sub" in value:
        return re.sub(r"\$\{AWS::\w+\}", "x", value["Fn::Sub"])
    return names[value["Ref"]] if "Ref" in value else {key: with_names(one, names) for key, one in value.items()}


def member():
    """Terraform and CloudFormation create the same role and the same rules in a member account, on moto."""
    with deploy.moto() as (client, _):
        _, made = deploy.create_member(client)
        expected = deploy.described_member(client, made["MemberRole"])
    # moto's CloudFormation lacks policies of queues.
    document = template(deploy.MEMBER)["Resources"]["DeadLettersPolicy"]["Properties"]["PolicyDocument"]
    expected["dead letters"] = deploy.with_rule_names(with_names(document, {"DeadLetters": "<queue>"}))
    with deploy.moto() as (client, url), copied(url) as terraform:
        arguments = {
            "operator_role_arn": deploy.MEMBER_PARAMETERS["OperatorRoleArn"],
            "external_id": deploy.MEMBER_PARAMETERS["ExternalId"],
            "event_bus_arn": deploy.MEMBER_PARAMETERS["EventBusArn"],
            "watched_cluster_arns": CLUSTERS,
            "mesh_role_arns": [deploy.MEMBER_PARAMETERS["MeshRoleArns"]],
            "hold_deployments": True,
            "host_mode": True,
        }
        terraform.write("member-account", arguments)
        terraform.init()
        terraform.apply()
        found = deploy.described_member(client, "ecs-mesh-member")
        [queue] = client("sqs").list_queues()["QueueUrls"]
        policy = client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["Policy"])["Attributes"]["Policy"]
        policy = policy.replace(f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue.rsplit('/', 1)[1]}", "<queue>")
        found["dead letters"] = deploy.with_rule_names(json.loads(policy))
    different = [
        f"{part}\nTerraform:      {sorted_json(found[part])}\nCloudFormation: {sorted_json(expected[part])}"
        for part in expected
        if found[part] != expected[part]
    ]
    assert not different, "\n".join(different)


def make_boundary(client):
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    client("iam").create_policy(PolicyName="boundary", PolicyDocument=json.dumps(document))


QUEUES = {
    "EventQueue": "EventQueuePolicy",
    "RuleDeadLetters": "RuleDeadLettersPolicy",
    "EventDeadLetters": "EventDeadLettersPolicy",
}
# The logical names of the template by the addresses of the module.
ADDRESSES = {
    "aws_sqs_queue.events": "EventQueue",
    "aws_sqs_queue.event_dead_letters": "EventDeadLetters",
    "aws_sqs_queue.rule_dead_letters": "RuleDeadLetters",
    'aws_cloudwatch_event_rule.this["tasks"]': "TaskRule",
    'aws_cloudwatch_event_rule.this["roles"]': "RoleRule",
    'aws_cloudwatch_event_rule.this["deployments"]': "DeploymentRule",
    "aws_iam_role.task": "TaskRole",
    "aws_iam_role.execution": "ExecutionRole",
    "aws_cloudwatch_log_group.this": "LogGroup",
    "aws_ecs_task_definition.this": "TaskDefinition",
    "aws_ecs_service.this": "Service",
    "aws_dynamodb_table.leases[0]": "LeaseTable",
    'aws_cloudwatch_metric_alarm.this["events-wait"]': "EventsWaitAlarm",
    'aws_cloudwatch_metric_alarm.this["event-dead-letters"]': "EventDeadLettersAlarm",
    'aws_cloudwatch_metric_alarm.this["rule-dead-letters"]': "RuleDeadLettersAlarm",
}


def by_address(state):
    [module] = state["values"]["root_module"]["child_modules"]
    return {one["address"].removeprefix("module.this."): one["values"] for one in module["resources"]}


def made_by_terraform(state):
    """Physical ids by the template's logical names."""
    resources = by_address(state)
    ids = {"aws_ecs_task_definition.this": "arn"}
    return {name: resources[address][ids.get(address, "id")] for address, name in ADDRESSES.items()}


# --- What moto's CloudFormation does not support: policies of queues, alarms, and much of ECS. Compared with the template.

ALARM = (
    *("Namespace", "MetricName", "Dimensions", "Statistic", "Period", "EvaluationPeriods", "Threshold"),
    *("ComparisonOperator", "TreatMissingData", "AlarmActions", "OKActions", "AlarmDescription"),
)
TASK = ("requiresCompatibilities", "networkMode", "cpu", "memory", "runtimePlatform", "taskRoleArn", "executionRoleArn")
SERVICE = ("desiredCount", "launchType", "networkConfiguration", "propagateTags")


def in_template(parameters):
    resources = {name: resolved(one["Properties"], parameters) for name, one in template(MAIN)["Resources"].items()}
    found = {policy: plain(resources[policy]["PolicyDocument"]) for policy in QUEUES.values()}
    alarms = [one for name, one in resources.items() if name.endswith("Alarm")]
    found["alarms"] = plain([{key: alarm.get(key, []) for key in ALARM} for alarm in alarms])
    task, service = lower_first(resources["TaskDefinition"]), lower_first(resources["Service"])
    found["TaskDefinition"] = plain({key: task.get(key) for key in TASK})
    found["Service"] = plain({key: service.get(key) for key in SERVICE})
    found["health check"] = plain(task["containerDefinitions"][0]["healthCheck"])
    limits = service["deploymentConfiguration"]
    found["deployment"] = [limits["maximumPercent"], limits["minimumHealthyPercent"]]
    return found


def in_terraform(client, state):
    made = made_by_terraform(state)
    logical = logical_names(made)
    found = {}
    for queue, policy in QUEUES.items():
        attributes = client("sqs").get_queue_attributes(QueueUrl=made[queue], AttributeNames=["Policy"])["Attributes"]
        found[policy] = logical(json.loads(attributes["Policy"]))
    alarms = client("cloudwatch").describe_alarms()["MetricAlarms"]
    found["alarms"] = logical([{key: alarm.get(key) for key in ALARM} for alarm in alarms])
    task = client("ecs").describe_task_definition(taskDefinition=made["TaskDefinition"])["taskDefinition"]
    found["TaskDefinition"] = logical({key: task.get(key) for key in TASK})
    found["health check"] = logical(task["containerDefinitions"][0]["healthCheck"])
    [service] = client("ecs").describe_services(cluster=CLUSTER, services=[made["Service"]])["services"]
    found["Service"] = logical({key: service.get(key) for key in SERVICE})
    values = by_address(state)["aws_ecs_service.this"]
    found["deployment"] = [values["deployment_maximum_percent"], values["deployment_minimum_healthy_percent"]]
    return found


def resolved(value, parameters):
    """A part of the template where every condition holds; resources have their logical names."""
    if isinstance(value, list):
        found = [resolved(inner, parameters) for inner in value]
        return [one for one in found if one != {"Ref": "AWS::NoValue"}]
    if not isinstance(value, dict):
        return value
    if "Fn::If" in value:
        return resolved(value["Fn::If"][1], parameters)
    if "Fn::GetAtt" in value:
        return f"<{value['Fn::GetAtt'][0]}>"
    if "Ref" not in value:
        return {key: resolved(inner, parameters) for key, inner in value.items()}
    declared = template_parameters().get(value["Ref"])
    if declared is None:
        return value if value["Ref"].startswith("AWS::") else f"<{value['Ref']}>"
    given = parameters.get(value["Ref"], declared.get("Default"))
    return int(given) if declared["Type"] == "Number" else given


@functools.cache
def template_parameters():
    return template(MAIN)["Parameters"]


def lower_first(value):
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: lower_first(inner) for key, inner in value.items()}
    return [lower_first(inner) for inner in value] if isinstance(value, list) else value


# --- What moto has of both ---------------------------------------------------------------------------------------------


def logical_names(made):
    """A function that replaces physical names by logical ones, and normalizes the rest."""
    names = {}
    for name, physical in made.items():
        short = physical.rsplit("/", 1)[-1] if name != "LogGroup" else physical
        names[physical] = names[short] = name
        for service in ("sqs", "events"):
            names[f"arn:aws:{service}:{REGION}:{ACCOUNT}:{'rule/' if service == 'events' else ''}{short}"] = name
        names[f"arn:aws:iam::{ACCOUNT}:role/{short}"] = name
        names[f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{short}"] = name
        # CloudFormation's ARN of a log group ends with :*, except in moto.
        names[f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{short}:*"] = name
        names[f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{short}"] = name

    def logical(value):
        text = json.dumps(value, default=str)
        for physical in sorted(names, key=len, reverse=True):
            # Only whole names: one may be a part of another.
            text = re.sub(rf"(?<![\w-]){re.escape(physical)}(?![\w-])", f"<{names[physical]}>", text)
        return plain(json.loads(text))

    return logical


def described(client, made):
    """The resources as AWS describes them, in one form: logical names for ARNs, sorted lists."""
    logical = logical_names(made)
    found = {}
    for queue in QUEUES:
        attributes = client("sqs").get_queue_attributes(QueueUrl=made[queue], AttributeNames=["All"])["Attributes"]
        kept = ("MessageRetentionPeriod", "VisibilityTimeout", "ReceiveMessageWaitTimeSeconds", "SqsManagedSseEnabled")
        found[queue] = {name: str(attributes.get(name)).lower() for name in kept}
        redrive = json.loads(attributes.get("RedrivePolicy", "{}"))
        found[f"{queue} redrive"] = logical({key: str(value) for key, value in redrive.items()})
    events = client("events")
    for rule in ("TaskRule", "RoleRule", "DeploymentRule"):
        name = made[rule].rsplit("/", 1)[-1]
        has = events.describe_rule(Name=name)
        targets = events.list_targets_by_rule(Rule=name)["Targets"]
        found[rule] = logical([json.loads(has["EventPattern"]), has["Description"], targets])
    for role in ("TaskRole", "ExecutionRole"):
        has = client("iam").get_role(RoleName=made[role])["Role"]
        boundary = has["PermissionsBoundary"]["PermissionsBoundaryArn"]
        found[role] = logical([has["AssumeRolePolicyDocument"], has["Description"], boundary])
        # The same statements, in whatever policies they are.
        for name in client("iam").list_role_policies(RoleName=made[role])["PolicyNames"]:
            for statement in deploy.inline_policy(client, made[role], name)["Statement"]:
                found[f"{role} {statement['Sid']}"] = logical(statement)
    table = client("dynamodb").describe_table(TableName=made["LeaseTable"])["Table"]
    found["LeaseTable"] = [table["KeySchema"], table["AttributeDefinitions"], table["BillingModeSummary"]["BillingMode"]]
    [group] = client("logs").describe_log_groups(logGroupNamePrefix=made["LogGroup"])["logGroups"]
    found["LogGroup"] = group["retentionInDays"]
    task = client("ecs").describe_task_definition(taskDefinition=made["TaskDefinition"])["taskDefinition"]
    for container in task["containerDefinitions"]:
        # YAML in two styles.
        for variable in container["environment"]:
            if variable["name"] == "AOT_CONFIG_CONTENT":
                variable["value"] = yaml_of(variable["value"])
        # moto fills these in where they are absent.
        for key in [key for key, value in container.items() if value in ([], None, 0)]:
            del container[key]
        for mapping in container.get("portMappings", []):
            mapping.setdefault("hostPort", mapping["containerPort"])
        found[f"container {container['name']}"] = logical(container)
    return found


def yaml_of(text):
    import yaml

    return yaml.safe_load(text)


# --- Workloads --------------------------------------------------------------------------------------------------------

WORKLOADS = {
    "kuma": {
        "name": "demo-app",
        "kuma": {
            "cp_address": "https://kuma-cp.internal:5678",
            "image": "registry.internal/kuma-dp:2.14.3",
            "ca_cert_file": "/etc/mesh/ca.pem",
        },
        "inbounds": [{"name": "http", "container_port": 5050, "port": 15000}],
        "outbounds": [{"service": "kv", "target_port": 15050, "listen_port": 15050}],
    },
    "consul": {
        "name": "kv",
        "consul": {
            "server_hosts": "consul.internal",
            "consul_ecs_image": "public.ecr.aws/hashicorp/consul-ecs:0.10.0",
            "consul_dataplane_image": "hashicorp/consul-dataplane:1.5",
            "ca_secret_arn": VALUES["ConsulCaSecretArn"][0][0],
            "port": 8080,
            "health_sync_containers": ["app"],
            "upstreams": [{"destination_name": "db", "local_bind_port": 5432}],
        },
    },
}


def workload():
    """The operator accepts the workload's manifest, and `audit` finds nothing wrong with its task definition."""
    for control_plane, arguments in WORKLOADS.items():
        with deploy.moto() as (client, url), copied(url) as terraform:
            terraform.write("workload", arguments)
            terraform.init()
            terraform.apply()
            outputs = terraform.outputs()
            role = client("iam").get_role(RoleName=outputs["task_role_name"])["Role"]
            check_stop_order(outputs)
            check_tags(outputs["discovery_tags"], arguments)
            check_with_operator(terraform.folder, control_plane, outputs, role)


def check_stop_order(outputs):
    """The app starts after a healthy sidecar and stops before it, which has more time."""
    app = outputs["app_container_settings"]
    [needed] = app["dependsOn"]
    assert needed["condition"] == "HEALTHY", needed
    [sidecar] = [one for one in outputs["sidecar_containers"] if one["name"] == needed["containerName"]]
    assert sidecar["essential"] and sidecar["healthCheck"] and app["stopTimeout"] < sidecar["stopTimeout"] <= 120, sidecar


def check_tags(tags, arguments):
    """The tags that describe the task have documented keys, and the same content as the manifest."""
    documented = (ROOT / "docs/how-to/describe-tasks-by-tags.md").read_text()
    for key in tags:
        short = re.sub(r"\.\d+\.", ".N.", key.removeprefix("ecs-mesh.dev/"))
        assert f"`{short}`" in documented, f"{key} is not documented"
    if "kuma" in arguments:
        assert tags["ecs-mesh.dev/service"] == "demo-app" and tags["ecs-mesh.dev/inbound.1.port"] == "15000", tags
        assert tags["ecs-mesh.dev/outbound.1.target-port"] == "15050", tags


def check_with_operator(folder, control_plane, outputs, role):
    app = {"name": "app", "image": "registry.internal/app:1", "portMappings": [{"containerPort": 8080}]}
    app |= {"healthCheck": {"command": ["CMD", "true"]}} | outputs["app_container_settings"]
    definition = {
        "family": "app",
        "networkMode": "awsvpc",
        "taskRoleArn": outputs["task_role_arn"],
        "containerDefinitions": [app, *outputs["sidecar_containers"]],
        "volumes": [{"name": name} for name in outputs["volumes"]],
        "tags": [{"key": key, "value": value} for key, value in outputs["task_tags"].items()],
    }
    task = pathlib.Path(folder, "task.json")
    task.write_text(json.dumps(definition))
    manifests = pathlib.Path(folder, "mesh.yaml")
    manifests.write_text(MANIFESTS[control_plane] + "---\n" + outputs["manifest"])
    for command in (
        ["validate", str(manifests)],
        ["audit", "--offline", "--task-definition", str(task), "--manifests", str(manifests), "--output", "json"],
    ):
        environment = os.environ | {"AWS_REGION": REGION}
        done = subprocess.run([os.environ["OPERATOR"], *command], capture_output=True, text=True, env=environment)
        if command[0] == "validate":
            assert done.returncode == 0, done.stdout + done.stderr
            continue
        findings = [one for one in json.loads(done.stdout)["findings"] if one["severity"] in ("error", "warning")]
        assert not findings, json.dumps(findings, indent=1)
    tags = {one["Key"]: one["Value"] for one in role["Tags"]}
    expected = {
        "kuma": {"kuma.io/type": "dataplane", "kuma.io/mesh": "default", "kuma.io/service": "demo-app"},
        "consul": {"consul.hashicorp.com.service-name": "kv"},
    }[control_plane]
    assert tags == expected and role["Path"] == {"kuma": "/mesh/", "consul": "/consul-ecs/"}[control_plane], role


BINDING = f"""
---
apiVersion: ecs-mesh.dev/v1alpha1
kind: MeshBinding
metadata: {{name: demo}}
spec: {{controlPlane: main, selector: {{clusters: ["{CLUSTER}"]}}}}
"""
MANIFESTS = {
    "kuma": """apiVersion: ecs-mesh.dev/v1alpha1
kind: ControlPlane
metadata: {name: main}
spec: {type: kuma, kuma: {address: "https://kuma-cp.internal:5682", tokenEnv: KUMA_TOKEN}}"""
    + BINDING,
    "consul": f"""apiVersion: ecs-mesh.dev/v1alpha1
kind: ControlPlane
metadata: {{name: main}}
spec:
  type: consul
  consul: {{address: "https://consul.internal:8501", tokenSecret: "{VALUES["ConsulTokenSecretArn"][0][0]}"}}"""
    + BINDING,
}

CHECKS = {
    check.__name__: check
    for check in (
        *(wiring, parser, readmes, checkov, role_tags, inputs, validate, preconditions),
        *(cloudformation, team_events, member, workload, examples),
    )
}

if __name__ == "__main__":
    CHECKS[sys.argv[1]]()
