"""ECS, as the operator and its users call it."""

import datetime

from calls import ACCOUNT, REGION, eventually, fresh, refused

ECS = f"arn:aws:ecs:{REGION}:{ACCOUNT}"
UNKNOWN = "0" * 32


def listed(aws, cluster, **filters):
    return sorted(aws.ecs.list_tasks(cluster=cluster, **filters)["taskArns"])


def arns(tasks):
    return sorted(task["taskArn"] for task in tasks)


def test_a_cluster_is_named_by_its_arn_and_listed(aws):
    name = fresh("cluster")
    cluster = aws.ecs.create_cluster(clusterName=name, tags=[{"key": "a", "value": "b"}])["cluster"]
    assert (cluster["clusterArn"], cluster["status"]) == (f"{ECS}:cluster/{name}", "ACTIVE")
    pages = aws.ecs.get_paginator("list_clusters").paginate(PaginationConfig={"PageSize": 1})
    assert cluster["clusterArn"] in pages.build_full_result()["clusterArns"]


def test_list_clusters_pages(aws):
    aws.cluster(), aws.cluster()
    page = aws.ecs.list_clusters(maxResults=1)
    assert len(page["clusterArns"]) == 1 and page["nextToken"]


def test_calls_on_an_unknown_cluster_are_refused(aws):
    refused("ClusterNotFoundException", 400, aws.ecs.list_tasks, cluster="none")
    refused("ClusterNotFoundException", 400, aws.ecs.describe_tasks, cluster="none", tasks=[UNKNOWN])


def test_an_unknown_cluster_is_described_as_missing(aws):
    assert aws.ecs.describe_clusters(clusters=["none"])["failures"][0]["reason"] == "MISSING"


def test_a_definition_is_described_by_family_and_by_arn_as_it_was_registered(aws):
    definition = aws.family()
    for name in (definition["family"], definition["taskDefinitionArn"]):
        assert aws.ecs.describe_task_definition(taskDefinition=name)["taskDefinition"] == definition
    assert definition["taskDefinitionArn"] == f"{ECS}:task-definition/{definition['family']}:1"
    assert definition["taskRoleArn"] == f"arn:aws:iam::{ACCOUNT}:role/team/app"
    assert definition["networkMode"] == "awsvpc"
    app = definition["containerDefinitions"][0]
    assert app["dockerLabels"] == {"x": "y"} and app["portMappings"][0]["containerPort"] == 80
    assert app["essential"] is True


def test_a_definition_knows_when_it_was_registered(aws):
    assert isinstance(aws.family()["registeredAt"], datetime.datetime)


def test_tags_of_a_definition_come_where_they_are_asked_for(aws):
    family = aws.family(tags=[{"key": "k", "value": "v"}])["family"]
    with_tags = aws.ecs.describe_task_definition(taskDefinition=family, include=["TAGS"])
    assert with_tags["tags"] == [{"key": "k", "value": "v"}]
    assert not aws.ecs.describe_task_definition(taskDefinition=family).get("tags")


def test_definitions_are_listed_by_family(aws):
    definition = aws.family()
    found = aws.ecs.list_task_definitions(familyPrefix=definition["family"])["taskDefinitionArns"]
    assert found == [definition["taskDefinitionArn"]]


def test_an_unknown_definition_is_refused(aws):
    refused("ClientException", 400, aws.ecs.describe_task_definition, taskDefinition="none")


def test_run_task_answers_with_the_tasks(aws):
    cluster, family = aws.cluster(), aws.family()
    call = {"cluster": cluster, "taskDefinition": family["family"], "networkConfiguration": aws.network}
    started = aws.ecs.run_task(**call, launchType="FARGATE", count=3, startedBy="me")
    assert started["failures"] == [] and len(started["tasks"]) == 3
    task = started["tasks"][0]
    assert task["taskArn"].startswith(f"{ECS}:task/{cluster}/")
    assert task["clusterArn"] == f"{ECS}:cluster/{cluster}"
    assert task["taskDefinitionArn"] == family["taskDefinitionArn"]
    assert (task["desiredStatus"], task["launchType"], task["startedBy"]) == ("RUNNING", "FARGATE", "me")


def test_a_task_that_was_run_is_in_the_group_of_its_family(aws):
    family = aws.family()["family"]
    assert aws.run(aws.cluster(), family=family)[0]["group"] == f"family:{family}"


def test_a_task_begins_in_provisioning(aws):
    assert aws.run(aws.cluster())[0]["lastStatus"] == "PROVISIONING"


def test_run_task_in_awsvpc_needs_a_network(aws):
    family = aws.family()["family"]
    refused("InvalidParameterException", 400, aws.ecs.run_task, cluster=aws.cluster(), taskDefinition=family)


def test_run_task_starts_ten_tasks_at_most(aws):
    call = {"cluster": aws.cluster(), "taskDefinition": aws.family()["family"], "networkConfiguration": aws.network}
    refused("InvalidParameterException", 400, aws.ecs.run_task, **call, count=11)


def test_list_tasks_pages(aws):
    cluster = aws.cluster()
    tasks = aws.run(cluster, count=5)
    pages = list(aws.ecs.get_paginator("list_tasks").paginate(cluster=cluster, PaginationConfig={"PageSize": 2}))
    assert sorted(arn for page in pages for arn in page["taskArns"]) == arns(tasks)
    assert [len(page["taskArns"]) for page in pages] == [2, 2, 1]


def test_list_tasks_refuses_a_token_that_it_did_not_give(aws):
    refused("InvalidParameterException", 400, aws.ecs.list_tasks, cluster=aws.cluster(), nextToken="?")


def test_list_tasks_filters_by_family_and_by_who_started_them(aws):
    cluster, family = aws.cluster(), aws.family()["family"]
    tasks = aws.run(cluster, family=family, startedBy="me", count=2)
    aws.run(cluster)
    assert listed(aws, cluster, family=family) == arns(tasks)
    assert listed(aws, cluster, startedBy="me") == arns(tasks)
    assert listed(aws, cluster, startedBy="you") == []


def test_list_tasks_lists_what_is_to_run_unless_asked_for_stopped(aws):
    cluster = aws.cluster()
    stays, goes = aws.run(cluster, count=2)
    aws.running(cluster, goes)
    aws.ecs.stop_task(cluster=cluster, task=goes["taskArn"])
    for wanted, expected in [("RUNNING", stays), ("STOPPED", goes)]:
        assert listed(aws, cluster, desiredStatus=wanted) == [expected["taskArn"]]
    assert listed(aws, cluster) == [stays["taskArn"]]


def test_describe_tasks_names_what_is_missing(aws):
    cluster = aws.cluster()
    tasks = aws.run(cluster)
    found = aws.ecs.describe_tasks(cluster=cluster, tasks=[tasks[0]["taskArn"], UNKNOWN])
    assert arns(found["tasks"]) == arns(tasks)
    missing = {"arn": f"{ECS}:task/{cluster}/{UNKNOWN}", "reason": "MISSING"}
    assert found["failures"] == [missing]


def test_describe_tasks_takes_a_hundred_at_most(aws):
    call = {"cluster": aws.cluster(), "tasks": ["x"] * 101}
    refused("InvalidParameterException", 400, aws.ecs.describe_tasks, **call)


def test_describe_tasks_takes_ids_and_arns(aws):
    cluster = aws.cluster()
    arn = aws.run(cluster)[0]["taskArn"]
    for name in (arn, arn.rpartition("/")[2]):
        assert [task["taskArn"] for task in aws.ecs.describe_tasks(cluster=cluster, tasks=[name])["tasks"]] == [arn]


def test_tags_of_a_task_come_where_they_are_asked_for(aws):
    cluster = aws.cluster()
    task = aws.run(cluster, tags=[{"key": "t", "value": "1"}])[0]
    assert aws.described(cluster, task, include=["TAGS"])["tags"] == [{"key": "t", "value": "1"}]
    assert not aws.described(cluster, task).get("tags")


def test_a_task_has_its_address_in_its_attachment(aws):
    cluster = aws.cluster()
    task = aws.running(cluster, aws.run(cluster)[0])
    attachment = task["attachments"][0]
    assert (attachment["type"], attachment["status"]) == ("ElasticNetworkInterface", "ATTACHED")
    details = {detail["name"]: detail["value"] for detail in attachment["details"]}
    assert len(details["privateIPv4Address"].split(".")) == 4
    assert {"subnetId", "networkInterfaceId", "macAddress", "privateDnsName"} <= details.keys()


def test_a_task_has_its_address_at_its_containers_too(aws):
    cluster = aws.cluster()
    task = aws.running(cluster, aws.run(cluster)[0])
    details = {detail["name"]: detail["value"] for detail in task["attachments"][0]["details"]}
    interface = task["containers"][0]["networkInterfaces"][0]
    assert interface["privateIpv4Address"] == details["privateIPv4Address"]
    assert interface["attachmentId"] == task["attachments"][0]["id"]


def test_a_container_names_its_task(aws):
    task = aws.run(aws.cluster())[0]
    assert [container["taskArn"] for container in task["containers"]] == [task["taskArn"]]


def test_the_times_of_a_task_are_in_order(aws):
    cluster = aws.cluster()
    task = aws.running(cluster, aws.run(cluster)[0])
    times = [task.get(name) for name in ("createdAt", "pullStartedAt", "pullStoppedAt", "startedAt")]
    assert all(isinstance(time, datetime.datetime) for time in times), "times are missing"
    assert times == sorted(times)


def test_the_version_of_a_task_grows_with_its_changes(aws):
    cluster = aws.cluster()
    task = aws.run(cluster)[0]
    running = aws.running(cluster, task)
    aws.ecs.stop_task(cluster=cluster, task=task["taskArn"])
    stopping = aws.described(cluster, task)
    versions = [one.get("version") for one in (task, running, stopping)]
    assert None not in versions, "no version"
    assert versions[0] <= versions[1] < versions[2]


def test_a_role_of_its_own_is_in_the_overrides_of_a_task(aws):
    cluster, role = aws.cluster(), f"arn:aws:iam::{ACCOUNT}:role/own"
    task = aws.run(cluster, overrides={"taskRoleArn": role})[0]
    assert aws.described(cluster, task)["overrides"]["taskRoleArn"] == role


def test_a_stopped_task_is_wanted_no_more_at_once(aws):
    cluster = aws.cluster()
    task = aws.running(cluster, aws.run(cluster)[0])
    assert aws.ecs.stop_task(cluster=cluster, task=task["taskArn"])["task"]["desiredStatus"] == "STOPPED"


def test_a_stopped_task_still_runs_at_first(aws):
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


def test_a_stopped_task_is_still_described_and_says_who_wanted_it(aws):
    task = stopped(aws)
    assert (task["desiredStatus"], task["stoppedReason"]) == ("STOPPED", "enough")


def test_a_stopped_task_has_a_stop_code(aws):
    assert stopped(aws).get("stopCode") == "UserInitiated"


def test_a_stopped_task_knows_when_it_stopped(aws):
    task = stopped(aws)
    assert {"stoppingAt", "stoppedAt"} <= task.keys(), "times are missing"
    assert task["stoppingAt"] <= task["stoppedAt"]


def test_tags_of_a_task_can_be_changed(aws):
    arn = aws.run(aws.cluster(), tags=[{"key": "t", "value": "1"}])[0]["taskArn"]
    aws.ecs.tag_resource(resourceArn=arn, tags=[{"key": "u", "value": "2"}])
    aws.ecs.untag_resource(resourceArn=arn, tagKeys=["t"])
    assert aws.ecs.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "u", "value": "2"}]


def test_tags_of_what_is_no_resource_are_refused(aws):
    refused("InvalidParameterException", 400, aws.ecs.list_tags_for_resource, resourceArn=f"{ECS}:task/x/!")


def test_there_are_no_container_instances_on_fargate(aws):
    assert aws.ecs.list_container_instances(cluster=aws.cluster())["containerInstanceArns"] == []


def service(aws, cluster, count):
    family = aws.family()["family"]
    call = {"cluster": cluster, "serviceName": "web", "taskDefinition": family, "launchType": "FARGATE"}
    return aws.ecs.create_service(**call, desiredCount=count, networkConfiguration=aws.network)["service"]


def described_service(aws, cluster, name="web"):
    return aws.ecs.describe_services(cluster=cluster, services=[name])


def test_a_service_is_described_and_listed(aws):
    cluster = aws.cluster()
    made = service(aws, cluster, 1)
    assert (made["status"], made["desiredCount"], made["serviceName"]) == ("ACTIVE", 1, "web")
    assert made["serviceArn"] == f"{ECS}:service/{cluster}/web"
    assert described_service(aws, cluster)["services"][0]["serviceArn"] == made["serviceArn"]
    assert aws.ecs.list_services(cluster=cluster)["serviceArns"] == [made["serviceArn"]]
    assert described_service(aws, cluster, "none")["failures"][0]["reason"] == "MISSING"


def started(aws, cluster, count):
    """The service's tasks, described, once there are so many."""
    eventually(lambda: len(listed(aws, cluster, serviceName="web")) == count)
    return aws.ecs.describe_tasks(cluster=cluster, tasks=listed(aws, cluster, serviceName="web"))["tasks"]


def test_a_service_starts_tasks_that_name_it(aws):
    cluster = aws.cluster()
    service(aws, cluster, 2)
    assert {task["group"] for task in started(aws, cluster, 2)} == {"service:web"}


def test_tasks_of_a_service_are_started_by_its_deployment(aws):
    cluster = aws.cluster()
    service(aws, cluster, 1)
    task = started(aws, cluster, 1)[0]
    assert task["startedBy"] == described_service(aws, cluster)["services"][0]["deployments"][0]["id"]


def test_a_forced_deployment_replaces_all_tasks(aws):
    cluster = aws.cluster()
    service(aws, cluster, 1)
    before = started(aws, cluster, 1)[0]["taskArn"]
    aws.ecs.update_service(cluster=cluster, service="web", desiredCount=2, forceNewDeployment=True)

    def look():
        now = listed(aws, cluster, serviceName="web")
        return len(now) == 2 and before not in now

    eventually(look)


def test_a_service_becomes_stable_by_the_waiter_of_the_sdk(aws):
    cluster = aws.cluster()
    service(aws, cluster, 1)
    config = {"Delay": 0.1, "MaxAttempts": 50}
    aws.ecs.get_waiter("services_stable").wait(cluster=cluster, services=["web"], WaiterConfig=config)

    # The waiter looks at the running tasks; that the rollout is complete comes a little later.
    def look():
        deployment = described_service(aws, cluster)["services"][0]["deployments"][0]
        return (deployment["status"], deployment["rolloutState"]) == ("PRIMARY", "COMPLETED")

    eventually(look)


def test_a_deleted_service_drains_and_becomes_inactive(aws):
    cluster = aws.cluster()
    service(aws, cluster, 1)
    deleted = aws.ecs.delete_service(cluster=cluster, service="web", force=True)["service"]
    config = {"Delay": 0.1, "MaxAttempts": 50}
    aws.ecs.get_waiter("services_inactive").wait(cluster=cluster, services=["web"], WaiterConfig=config)
    assert deleted["status"] == "DRAINING"


def test_an_unknown_service_is_not_updated(aws):
    call = {"cluster": aws.cluster(), "service": "none"}
    refused("ServiceNotFoundException", 400, aws.ecs.update_service, **call)


def test_a_service_with_tasks_is_not_deleted_unless_forced(aws):
    cluster = aws.cluster()
    service(aws, cluster, 1)
    refused("InvalidParameterException", 400, aws.ecs.delete_service, cluster=cluster, service="web")
    aws.ecs.delete_service(cluster=cluster, service="web", force=True)


def test_a_cluster_with_tasks_is_not_deleted(aws):
    cluster = aws.cluster()
    aws.run(cluster)
    refused("ClusterContainsTasksException", 400, aws.ecs.delete_cluster, cluster=cluster)


def test_an_empty_cluster_is_deleted(aws):
    assert aws.ecs.delete_cluster(cluster=aws.cluster())["cluster"]["status"] == "INACTIVE"
