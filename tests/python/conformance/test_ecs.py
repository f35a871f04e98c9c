"""ECS, as the operator and its users call it."""

import datetime

from calls import ACCOUNT, REGION, eventually, fresh, rejected

ECS = f"arn:aws:ecs:{REGION}:{ACCOUNT}"
UNKNOWN = "0" * 32


def listed(aws, cluster, **filters):
    return sorted(aws.ecs.list_tasks(cluster=cluster, **filters)["taskArns"])


def arns(tasks):
    return sorted(task["taskArn"] for task in tasks)


def test_list_clusters_includes_a_created_cluster(aws):
    name = fresh("cluster")
    cluster = aws.ecs.create_cluster(clusterName=name, tags=[{"key": "a", "value": "b"}])["cluster"]
    assert (cluster["clusterArn"], cluster["status"]) == (f"{ECS}:cluster/{name}", "ACTIVE")
    pages = aws.ecs.get_paginator("list_clusters").paginate(PaginationConfig={"PageSize": 1})
    assert cluster["clusterArn"] in pages.build_full_result()["clusterArns"]


def test_list_clusters_paginates(aws):
    aws.cluster(), aws.cluster()
    page = aws.ecs.list_clusters(maxResults=1)
    assert len(page["clusterArns"]) == 1 and page["nextToken"]


def test_ecs_rejects_an_unknown_cluster(aws):
    rejected("ClusterNotFoundException", 400, aws.ecs.list_tasks, cluster="none")
    rejected("ClusterNotFoundException", 400, aws.ecs.describe_tasks, cluster="none", tasks=[UNKNOWN])


def test_describe_clusters_reports_unknown_clusters_as_missing(aws):
    answer = aws.ecs.describe_clusters(clusters=[aws.cluster(), f"{ECS}:cluster/none"])
    assert [cluster["status"] for cluster in answer["clusters"]] == ["ACTIVE"]
    assert [(one["arn"], one["reason"]) for one in answer["failures"]] == [(f"{ECS}:cluster/none", "MISSING")]


def test_deleted_cluster_is_inactive_and_not_listed(aws):
    name = fresh("cluster")
    arn = aws.ecs.create_cluster(clusterName=name)["cluster"]["clusterArn"]
    assert aws.ecs.delete_cluster(cluster=name)["cluster"]["status"] == "INACTIVE"
    assert [one["status"] for one in aws.ecs.describe_clusters(clusters=[arn])["clusters"]] == ["INACTIVE"]
    pages = aws.ecs.get_paginator("list_clusters").paginate()
    assert arn not in pages.build_full_result()["clusterArns"]



def test_describe_task_definition_accepts_family_and_arn(aws):
    definition = aws.family()
    for name in (definition["family"], definition["taskDefinitionArn"]):
        assert aws.ecs.describe_task_definition(taskDefinition=name)["taskDefinition"] == definition
    assert definition["taskDefinitionArn"] == f"{ECS}:task-definition/{definition['family']}:1"
    assert definition["taskRoleArn"] == f"arn:aws:iam::{ACCOUNT}:role/team/app"
    assert definition["networkMode"] == "awsvpc"
    app = definition["containerDefinitions"][0]
    assert app["dockerLabels"] == {"x": "y"} and app["portMappings"][0]["containerPort"] == 80
    assert app["essential"] is True


def test_task_definition_has_a_registration_time(aws):
    assert isinstance(aws.family()["registeredAt"], datetime.datetime)


def test_describe_task_definition_returns_tags_on_request(aws):
    family = aws.family(tags=[{"key": "k", "value": "v"}])["family"]
    with_tags = aws.ecs.describe_task_definition(taskDefinition=family, include=["TAGS"])
    assert with_tags["tags"] == [{"key": "k", "value": "v"}]
    assert not aws.ecs.describe_task_definition(taskDefinition=family).get("tags")



def test_describe_task_definition_rejects_an_unknown_family(aws):
    rejected("ClientException", 400, aws.ecs.describe_task_definition, taskDefinition="none")


def test_run_task_returns_the_started_tasks(aws):
    cluster, family = aws.cluster(), aws.family()
    call = {"cluster": cluster, "taskDefinition": family["family"], "networkConfiguration": aws.network}
    started = aws.ecs.run_task(**call, launchType="FARGATE", count=3, startedBy="me")
    assert started["failures"] == [] and len(started["tasks"]) == 3
    task = started["tasks"][0]
    assert task["taskArn"].startswith(f"{ECS}:task/{cluster}/")
    assert task["clusterArn"] == f"{ECS}:cluster/{cluster}"
    assert task["taskDefinitionArn"] == family["taskDefinitionArn"]
    assert (task["desiredStatus"], task["launchType"], task["startedBy"]) == ("RUNNING", "FARGATE", "me")


def test_run_task_sets_the_group_of_the_family(aws):
    family = aws.family()["family"]
    assert aws.run(aws.cluster(), family=family)[0]["group"] == f"family:{family}"


def test_task_starts_in_provisioning(aws):
    assert aws.run(aws.cluster())[0]["lastStatus"] == "PROVISIONING"


def test_run_task_requires_a_network_configuration_for_awsvpc(aws):
    family = aws.family()["family"]
    rejected("InvalidParameterException", 400, aws.ecs.run_task, cluster=aws.cluster(), taskDefinition=family)


def test_run_task_rejects_a_count_above_ten(aws):
    call = {"cluster": aws.cluster(), "taskDefinition": aws.family()["family"], "networkConfiguration": aws.network}
    rejected("InvalidParameterException", 400, aws.ecs.run_task, **call, count=11)


def test_list_tasks_paginates(aws):
    cluster = aws.cluster()
    tasks = aws.run(cluster, count=5)
    pages = list(aws.ecs.get_paginator("list_tasks").paginate(cluster=cluster, PaginationConfig={"PageSize": 2}))
    assert sorted(arn for page in pages for arn in page["taskArns"]) == arns(tasks)
    assert [len(page["taskArns"]) for page in pages] == [2, 2, 1]


def test_list_tasks_rejects_an_invalid_next_token(aws):
    rejected("InvalidParameterException", 400, aws.ecs.list_tasks, cluster=aws.cluster(), nextToken="?")


def test_list_tasks_filters_by_family_and_started_by(aws):
    cluster, family = aws.cluster(), aws.family()["family"]
    tasks = aws.run(cluster, family=family, startedBy="me", count=2)
    aws.run(cluster)
    assert listed(aws, cluster, family=family) == arns(tasks)
    assert listed(aws, cluster, startedBy="me") == arns(tasks)
    assert listed(aws, cluster, startedBy="you") == []


def test_list_tasks_defaults_to_desired_status_running(aws):
    cluster = aws.cluster()
    kept, stopping = aws.run(cluster, count=2)
    aws.running(cluster, stopping)
    aws.ecs.stop_task(cluster=cluster, task=stopping["taskArn"])
    for wanted, expected in [("RUNNING", kept), ("STOPPED", stopping)]:
        assert listed(aws, cluster, desiredStatus=wanted) == [expected["taskArn"]]
    assert listed(aws, cluster) == [kept["taskArn"]]


def test_describe_tasks_reports_unknown_tasks_as_missing(aws):
    cluster = aws.cluster()
    tasks = aws.run(cluster)
    found = aws.ecs.describe_tasks(cluster=cluster, tasks=[tasks[0]["taskArn"], UNKNOWN])
    assert arns(found["tasks"]) == arns(tasks)
    missing = {"arn": f"{ECS}:task/{cluster}/{UNKNOWN}", "reason": "MISSING"}
    assert found["failures"] == [missing]


def test_describe_tasks_rejects_more_than_a_hundred_tasks(aws):
    call = {"cluster": aws.cluster(), "tasks": ["x"] * 101}
    rejected("InvalidParameterException", 400, aws.ecs.describe_tasks, **call)


def test_describe_tasks_accepts_ids_and_arns(aws):
    cluster = aws.cluster()
    arn = aws.run(cluster)[0]["taskArn"]
    for name in (arn, arn.rpartition("/")[2]):
        assert [task["taskArn"] for task in aws.ecs.describe_tasks(cluster=cluster, tasks=[name])["tasks"]] == [arn]


def test_describe_tasks_returns_tags_on_request(aws):
    cluster = aws.cluster()
    task = aws.run(cluster, tags=[{"key": "t", "value": "1"}])[0]
    assert aws.described(cluster, task, include=["TAGS"])["tags"] == [{"key": "t", "value": "1"}]
    assert not aws.described(cluster, task).get("tags")


def test_task_attachment_has_the_private_address(aws):
    cluster = aws.cluster()
    task = aws.running(cluster, aws.run(cluster)[0])
    attachment = task["attachments"][0]
    assert (attachment["type"], attachment["status"]) == ("ElasticNetworkInterface", "ATTACHED")
    details = {detail["name"]: detail["value"] for detail in attachment["details"]}
    assert len(details["privateIPv4Address"].split(".")) == 4
    assert {"subnetId", "networkInterfaceId", "macAddress", "privateDnsName"} <= details.keys()


def test_task_containers_have_the_private_address(aws):
    cluster = aws.cluster()
    task = aws.running(cluster, aws.run(cluster)[0])
    details = {detail["name"]: detail["value"] for detail in task["attachments"][0]["details"]}
    interface = task["containers"][0]["networkInterfaces"][0]
    assert interface["privateIpv4Address"] == details["privateIPv4Address"]
    assert interface["attachmentId"] == task["attachments"][0]["id"]


def test_container_has_the_arn_of_its_task(aws):
    task = aws.run(aws.cluster())[0]
    assert [container["taskArn"] for container in task["containers"]] == [task["taskArn"]]


def test_task_timestamps_are_in_order(aws):
    cluster = aws.cluster()
    task = aws.running(cluster, aws.run(cluster)[0])
    times = [task.get(name) for name in ("createdAt", "pullStartedAt", "pullStoppedAt", "startedAt")]
    assert all(isinstance(time, datetime.datetime) for time in times), "timestamps are missing"
    assert times == sorted(times)


def test_task_version_increases_with_each_change(aws):
    cluster = aws.cluster()
    task = aws.run(cluster)[0]
    running = aws.running(cluster, task)
    aws.ecs.stop_task(cluster=cluster, task=task["taskArn"])
    stopping = aws.described(cluster, task)
    versions = [one.get("version") for one in (task, running, stopping)]
    assert None not in versions, "no version"
    assert versions[0] <= versions[1] < versions[2]


def test_task_overrides_contain_the_task_role(aws):
    cluster, role = aws.cluster(), f"arn:aws:iam::{ACCOUNT}:role/own"
    task = aws.run(cluster, overrides={"taskRoleArn": role})[0]
    assert aws.described(cluster, task)["overrides"]["taskRoleArn"] == role


def test_stop_task_sets_desired_status_stopped_at_once(aws):
    cluster = aws.cluster()
    task = aws.running(cluster, aws.run(cluster)[0])
    assert aws.ecs.stop_task(cluster=cluster, task=task["taskArn"])["task"]["desiredStatus"] == "STOPPED"


def test_stop_task_leaves_last_status_running_at_first(aws):
    cluster = aws.cluster()
    task = aws.running(cluster, aws.run(cluster)[0])
    assert aws.ecs.stop_task(cluster=cluster, task=task["taskArn"])["task"]["lastStatus"] == "RUNNING"


def stopped(aws):
    cluster = aws.cluster()
    task = aws.running(cluster, aws.run(cluster)[0])
    aws.ecs.stop_task(cluster=cluster, task=task["taskArn"], reason="enough")

    def look():
        found = aws.described(cluster, task)
        return found if found["lastStatus"] == "STOPPED" else None

    return eventually(look)


def test_stopped_task_keeps_its_stopped_reason(aws):
    task = stopped(aws)
    assert (task["desiredStatus"], task["stoppedReason"]) == ("STOPPED", "enough")


def test_stopped_task_has_a_stop_code(aws):
    assert stopped(aws).get("stopCode") == "UserInitiated"


def test_stopped_task_has_stop_timestamps(aws):
    task = stopped(aws)
    assert {"stoppingAt", "stoppedAt"} <= task.keys(), "timestamps are missing"
    assert task["stoppingAt"] <= task["stoppedAt"]



def service(aws, cluster, count):
    family = aws.family()["family"]
    call = {"cluster": cluster, "serviceName": "web", "taskDefinition": family, "launchType": "FARGATE"}
    return aws.ecs.create_service(**call, desiredCount=count, networkConfiguration=aws.network)["service"]



def started(aws, cluster, count):
    """Waits for `count` tasks of the service, and describes them."""
    eventually(lambda: len(listed(aws, cluster, serviceName="web")) == count)
    return aws.ecs.describe_tasks(cluster=cluster, tasks=listed(aws, cluster, serviceName="web"))["tasks"]


def test_service_tasks_have_the_group_of_the_service(aws):
    cluster = aws.cluster()
    service(aws, cluster, 2)
    assert {task["group"] for task in started(aws, cluster, 2)} == {"service:web"}


def test_service_tasks_are_started_by_the_deployment(aws):
    cluster = aws.cluster()
    created = service(aws, cluster, 1)
    assert started(aws, cluster, 1)[0]["startedBy"] == created["deployments"][0]["id"]


def test_forced_deployment_replaces_all_tasks(aws):
    cluster = aws.cluster()
    service(aws, cluster, 1)
    before = started(aws, cluster, 1)[0]["taskArn"]
    aws.ecs.update_service(cluster=cluster, service="web", desiredCount=2, forceNewDeployment=True)

    def look():
        now = listed(aws, cluster, serviceName="web")
        return len(now) == 2 and before not in now

    eventually(look)



def test_update_service_rejects_an_unknown_service(aws):
    call = {"cluster": aws.cluster(), "service": "none"}
    rejected("ServiceNotFoundException", 400, aws.ecs.update_service, **call)


def test_describe_services_shows_the_primary_deployment(aws):
    cluster = aws.cluster()
    created = service(aws, cluster, 1)
    found = aws.ecs.describe_services(cluster=cluster, services=["web"])
    assert found["failures"] == [] and found["services"][0]["status"] == "ACTIVE"
    deployment = found["services"][0]["deployments"][0]
    assert (deployment["status"], deployment["desiredCount"]) == ("PRIMARY", 1)
    assert deployment["id"] == created["deployments"][0]["id"]
    assert deployment["taskDefinition"] == created["taskDefinition"]


def test_describe_services_reports_unknown_services_as_missing(aws):
    cluster = aws.cluster()
    found = aws.ecs.describe_services(cluster=cluster, services=["none"])
    missing = {"arn": f"{ECS}:service/{cluster}/none", "reason": "MISSING"}
    assert (found["services"], found["failures"]) == ([], [missing])


def test_deployment_completes_when_its_tasks_run(aws):
    cluster = aws.cluster()
    service(aws, cluster, 1)

    def look():
        deployment = aws.ecs.describe_services(cluster=cluster, services=["web"])["services"][0]["deployments"][0]
        return (deployment["rolloutState"], deployment["runningCount"]) == ("COMPLETED", 1)

    eventually(look)


def test_delete_service_requires_force_above_zero_tasks(aws):
    cluster = aws.cluster()
    service(aws, cluster, 1)
    call = {"cluster": cluster, "service": "web"}
    rejected("InvalidParameterException", 400, aws.ecs.delete_service, **call)
    deleted = aws.ecs.delete_service(**call, force=True)["service"]
    assert deleted["status"] in ("DRAINING", "INACTIVE")


def protected(aws, cluster, task, **more):
    """Protects a task, and returns its protection with the failures."""
    call = {"cluster": cluster, "tasks": [task["taskArn"]], "protectionEnabled": True, **more}
    answer = aws.ecs.update_task_protection(**call)
    return answer["protectedTasks"], [failure["reason"] for failure in answer["failures"]]


def test_task_protection_has_an_expiration_date(aws):
    cluster = aws.cluster()
    service(aws, cluster, 1)
    task = started(aws, cluster, 1)[0]
    before = datetime.datetime.now(datetime.UTC)
    tasks, failures = protected(aws, cluster, task, expiresInMinutes=10)
    assert failures == [] and tasks[0]["protectionEnabled"] is True
    lasts = tasks[0]["expirationDate"] - before
    assert datetime.timedelta(minutes=9) < lasts < datetime.timedelta(minutes=11)
    assert aws.ecs.get_task_protection(cluster=cluster, tasks=[task["taskArn"]])["protectedTasks"] == tasks


def test_task_protection_requires_a_task_of_a_service(aws):
    cluster = aws.cluster()
    tasks, failures = protected(aws, cluster, aws.run(cluster)[0])
    assert (tasks, failures) == ([], ["TASK_NOT_VALID"])


def test_task_protection_rejects_more_than_two_days(aws):
    call = {"cluster": aws.cluster(), "tasks": [UNKNOWN], "protectionEnabled": True, "expiresInMinutes": 2881}
    rejected("InvalidParameterException", 400, aws.ecs.update_task_protection, **call)


def test_scale_in_spares_protected_tasks(aws):
    cluster = aws.cluster()
    service(aws, cluster, 2)
    kept = started(aws, cluster, 2)[0]
    assert protected(aws, cluster, kept)[1] == []
    aws.ecs.update_service(cluster=cluster, service="web", desiredCount=0)
    eventually(lambda: listed(aws, cluster, serviceName="web") == [kept["taskArn"]])


def container(name, **more):
    return {"name": name, "image": name, "memory": 128, **more}


def test_task_definition_rejects_an_unknown_dependency(aws):
    app = container("app", dependsOn=[{"containerName": "none", "condition": "START"}])
    rejected("ClientException", 400, aws.family, containerDefinitions=[app])


def test_task_with_a_health_check_becomes_healthy(aws):
    cluster = aws.cluster()
    app = container("app", healthCheck={"command": ["CMD", "true"], "interval": 5})
    task = aws.run(cluster, family=aws.family(containerDefinitions=[app])["family"])[0]

    def look():
        found = aws.described(cluster, task)
        return (found["healthStatus"], found["containers"][0]["healthStatus"]) == ("HEALTHY", "HEALTHY")

    eventually(look)


def test_containers_stop_in_reverse_order_of_dependencies(aws):
    cluster = aws.cluster()
    app = container("app", dependsOn=[{"containerName": "sidecar", "condition": "START"}])
    family = aws.family(containerDefinitions=[app, container("sidecar")])["family"]
    task = aws.running(cluster, aws.run(cluster, family=family)[0])
    aws.ecs.stop_task(cluster=cluster, task=task["taskArn"])

    def look():
        names = {found["name"]: found["lastStatus"] for found in aws.described(cluster, task)["containers"]}
        return names == {"app": "STOPPED", "sidecar": "RUNNING"}

    eventually(look)
