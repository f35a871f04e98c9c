"""Where a server does not do as AWS does. Held true: a row that no longer shows fails its test.

What is told here is printed as the reason of the skip, and is the page docs/reference/sandbox-conformance.md.
"""

from typing import NamedTuple


class Deviation(NamedTuple):
    """`shows` is in what the failing test finds; `why` says what the server does instead; and why, if on purpose."""

    shows: str
    why: str


class Shape(NamedTuple):
    """`shows` are all findings in the answers of one call."""

    shows: tuple
    why: str


# server -> test -> deviation
BEHAVIOUR = {
    "sandbox": {
        "test_nobody_but_aws_sends_from_aws": Deviation(
            "the source aws.ecs was accepted", "accepted on purpose: tests send ECS events of their own"
        ),
    },
    "moto": {
        "test_list_clusters_pages": Deviation("assert (", "all clusters on one page"),
        "test_a_definition_knows_when_it_was_registered": Deviation("registeredAt", "no registeredAt"),
        "test_a_task_begins_in_provisioning": Deviation("'RUNNING' == 'PROVISIONING'", "RUNNING at once"),
        "test_run_task_in_awsvpc_needs_a_network": Deviation("(500)", "fails with status 500"),
        "test_run_task_starts_ten_tasks_at_most": Deviation("(500)", "fails with status 500"),
        "test_list_tasks_pages": Deviation("[5] == [2, 2, 1]", "all tasks on one page"),
        "test_list_tasks_refuses_a_token_that_it_did_not_give": Deviation("not refused", "looks at no token"),
        "test_list_tasks_lists_what_is_to_run_unless_asked_for_stopped": Deviation(
            "assert [", "lists both unless asked for one"
        ),
        "test_describe_tasks_names_what_is_missing": Deviation("[] == [{", "no failures: an unknown task is left out"),
        "test_describe_tasks_takes_a_hundred_at_most": Deviation("not refused", "takes any number"),
        "test_a_task_has_its_address_at_its_containers_too": Deviation(
            "list index out of range", "in the attachment only"
        ),
        "test_a_container_names_its_task": Deviation(":task-definition/", "it names the task definition"),
        "test_the_times_of_a_task_are_in_order": Deviation("times are missing", "no times"),
        "test_the_version_of_a_task_grows_with_its_changes": Deviation("no version", "no version"),
        "test_a_stopped_task_still_runs_at_first": Deviation("'STOPPED' == 'RUNNING'", "STOPPED at once"),
        "test_a_stopped_task_has_a_stop_code": Deviation("None == 'UserInitiated'", "no stopCode"),
        "test_a_stopped_task_knows_when_it_stopped": Deviation("times are missing", "no times"),
        "test_a_service_starts_tasks_that_name_it": Deviation("has not come", "a service starts no tasks"),
        "test_tasks_of_a_service_are_started_by_its_deployment": Deviation("has not come", "a service starts no tasks"),
        "test_a_forced_deployment_replaces_all_tasks": Deviation("has not come", "a service starts no tasks"),
        "test_a_cluster_with_tasks_is_not_deleted": Deviation("not refused", "deleted with its tasks"),
        "test_tags_of_what_is_no_resource_are_refused": Deviation("(500)", "fails with status 500"),
        "test_a_service_becomes_stable_by_the_waiter_of_the_sdk": Deviation(
            "Max attempts exceeded", "a service starts no tasks"
        ),
        "test_a_deleted_service_drains_and_becomes_inactive": Deviation("'INACTIVE' ==", "INACTIVE at once"),
        "test_an_event_that_fits_reaches_the_queue_in_its_envelope": Deviation(
            "'account'", "no account in the envelope"
        ),
        "test_nobody_but_aws_sends_from_aws": Deviation("the source aws.ecs was accepted", "accepted and delivered"),
        "test_a_task_tells_of_its_changes": Deviation("has not come", "ECS sends no events"),
        "test_changed_role_tags_are_told_by_cloudtrail": Deviation("has not come", "IAM sends no events"),
        "test_a_setting_that_is_no_number_is_refused": Deviation("(500)", "fails with status 500"),
        "test_a_message_that_is_not_in_flight_is_not_given_back": Deviation("not refused", "accepted"),
        "test_a_dead_message_says_where_it_died": Deviation("assert None ==", "no DeadLetterQueueSourceArn"),
        "test_an_unknown_role_is_not_assumed": Deviation("not refused", "any role can be assumed"),
        "test_an_unsigned_call_is_refused": Deviation("Expecting value", "takes it for a call of S3"),
        "test_the_simulator_tells_what_a_roles_policies_allow": Deviation(
            "Internal Server Error", "fails with status 500"
        ),
    },
    "ministack": {
        "test_list_clusters_pages": Deviation("assert (", "all clusters on one page"),
        "test_calls_on_an_unknown_cluster_are_refused": Deviation("not refused", "an empty list"),
        "test_tags_of_a_definition_come_where_they_are_asked_for": Deviation("assert not [", "always with tags"),
        "test_a_task_that_was_run_is_in_the_group_of_its_family": Deviation("'' == 'family:", "group is empty"),
        "test_a_task_begins_in_provisioning": Deviation("'RUNNING' == 'PROVISIONING'", "RUNNING at once"),
        "test_run_task_in_awsvpc_needs_a_network": Deviation("not refused", "started without one"),
        "test_run_task_starts_ten_tasks_at_most": Deviation("not refused", "starts any number"),
        "test_list_tasks_refuses_a_token_that_it_did_not_give": Deviation("(InternalError)", "fails with status 500"),
        "test_describe_tasks_takes_a_hundred_at_most": Deviation("not refused", "takes any number"),
        "test_tags_of_a_task_come_where_they_are_asked_for": Deviation("assert not [", "always with tags"),
        "test_a_task_has_its_address_in_its_attachment": Deviation("list index out of range", "no attachments"),
        "test_a_task_has_its_address_at_its_containers_too": Deviation("list index out of range", "no addresses"),
        "test_a_stopped_task_still_runs_at_first": Deviation("'STOPPED' == 'RUNNING'", "STOPPED at once"),
        "test_tasks_of_a_service_are_started_by_its_deployment": Deviation("'web' ==", "startedBy names the service"),
        "test_a_cluster_with_tasks_is_not_deleted": Deviation("not refused", "deleted with its tasks"),
        "test_tags_of_what_is_no_resource_are_refused": Deviation("not refused", "an empty list"),
        "test_a_deleted_service_drains_and_becomes_inactive": Deviation("'INACTIVE' ==", "INACTIVE at once"),
        "test_an_unknown_rule_is_refused": Deviation("not refused", "ListTargetsByRule gives an empty list"),
        "test_a_rule_with_targets_is_not_deleted": Deviation("not refused", "deleted with its targets"),
        "test_a_task_tells_of_its_changes": Deviation("has not come", "ECS sends no events"),
        "test_changed_role_tags_are_told_by_cloudtrail": Deviation("has not come", "IAM sends no events"),
        "test_a_role_is_told_with_its_tags": Deviation("not well-formed", "`<` and `&` in a tag's value break the XML"),
        "test_roles_are_listed_in_pages_by_path_without_tags": Deviation("with tags", "with tags"),
        "test_a_message_that_is_not_in_flight_is_not_given_back": Deviation("not refused", "accepted"),
        "test_an_unknown_role_is_not_assumed": Deviation("not refused", "any role can be assumed"),
        "test_an_unsigned_call_is_refused": Deviation("not refused", "signatures are not needed"),
        "test_the_simulator_tells_what_a_roles_policies_allow": Deviation(
            "== ['allowed'", "always implicitDeny"
        ),
    },
}

_NULLS = ("ephemeralStorage", "proxyConfiguration", "runtimePlatform")
_DEFINITION = Shape(
    (
        *(f"taskDefinition.{name}: null instead of structure" for name in _NULLS),
        "taskDefinition.ipcMode: '' is not in the enum IpcMode",
        "taskDefinition.pidMode: '' is not in the enum PidMode",
    ),
    "null and empty for what was not given; AWS leaves it out",
)
_TOKEN = Shape(("NextToken: null instead of string",), "null for what is not there; AWS leaves it out")
_STOP_CODE = Shape(
    ("tasks[].stopCode: '' is not in the enum TaskStopCode",), "empty while the task runs; AWS leaves it out"
)

# server -> call -> what breaks AWS's model of the answer
SHAPES = {
    "moto": {
        "events.ListRuleNamesByTarget": _TOKEN,
        "events.ListRules": Shape(
            ("NextToken: null instead of string", "Rules[].CreatedBy: not in the model"),
            "a null, and a member that AWS has in DescribeRule only",
        ),
        "events.ListTargetsByRule": _TOKEN,
    },
    "ministack": {
        "ecs.DescribeTaskDefinition": _DEFINITION,
        "ecs.DescribeTasks": _STOP_CODE,
        "ecs.RegisterTaskDefinition": _DEFINITION,
        "ecs.RunTask": _STOP_CODE,
        "events.ListRules": Shape(
            ("Rules[].CreatedBy: not in the model",), "a member that AWS has in DescribeRule only"
        ),
    },
}

# call -> members that both others give and the sandbox does not
LEFT_OUT = {
    "ecs.RunTask": Shape(("tasks[].stoppedReason",), "the others give it empty; AWS leaves it out"),
    "ecs.StopTask": Shape(
        ("task.containers[].exitCode", "task.startedBy"),
        "the others stop at once, and give an empty startedBy; at AWS the task still runs",
    ),
    "events.ListRules": Shape(("Rules[].CreatedBy",), "it is in AWS's model of DescribeRule only"),
    "sts.AssumeRole": Shape(("PackedPolicySize",), "AWS gives it where session policies or tags were passed"),
}
