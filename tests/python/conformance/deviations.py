"""Known deviations of the servers from AWS. A deviation that no longer occurs fails its test.

The texts are printed as the reasons of skipped tests, and make the page docs/reference/sandbox-conformance.md.
"""

from typing import NamedTuple


class Deviation(NamedTuple):
    """`shows` is part of the failing test's message; `why` is the server's behaviour, with the reason if intended."""

    shows: str
    why: str


class Shape(NamedTuple):
    """`shows` are all findings in the responses of one call; `why` explains them."""

    shows: tuple
    why: str


# server -> test -> deviation
BEHAVIOUR = {
    "sandbox": {
        "test_put_events_rejects_sources_of_aws": Deviation(
            "the source aws.ecs was accepted", "accepted by design: tests send their own ECS events"
        ),
    },
    "moto": {
        "test_list_clusters_paginates": Deviation("assert (", "all clusters on one page"),
        "test_deleted_cluster_is_inactive_and_not_listed": Deviation("not in [", "ListClusters lists deleted clusters"),
        "test_task_definition_has_a_registration_time": Deviation("registeredAt", "no registeredAt"),
        "test_task_starts_in_provisioning": Deviation("'RUNNING' == 'PROVISIONING'", "RUNNING immediately"),
        "test_run_task_requires_a_network_configuration_for_awsvpc": Deviation("(500)", "fails with status 500"),
        "test_run_task_rejects_a_count_above_ten": Deviation("(500)", "fails with status 500"),
        "test_list_tasks_paginates": Deviation("[5] == [2, 2, 1]", "all tasks on one page"),
        "test_list_tasks_rejects_an_invalid_next_token": Deviation("not rejected", "ignores the token"),
        "test_list_tasks_defaults_to_desired_status_running": Deviation(
            "assert [", "lists both unless one is requested"
        ),
        "test_describe_tasks_reports_unknown_tasks_as_missing": Deviation(
            "[] == [{", "no failures: unknown tasks are omitted"
        ),
        "test_describe_tasks_rejects_more_than_a_hundred_tasks": Deviation("not rejected", "accepts any number"),
        "test_task_containers_have_the_private_address": Deviation(
            "list index out of range", "only the attachment has it"
        ),
        "test_container_has_the_arn_of_its_task": Deviation(":task-definition/", "the ARN of the task definition"),
        "test_task_timestamps_are_in_order": Deviation("timestamps are missing", "no timestamps"),
        "test_task_version_increases_with_each_change": Deviation("no version", "no version"),
        "test_stop_task_leaves_last_status_running_at_first": Deviation(
            "'STOPPED' == 'RUNNING'", "STOPPED immediately"
        ),
        "test_stopped_task_has_a_stop_code": Deviation("None == 'UserInitiated'", "no stopCode"),
        "test_stopped_task_has_stop_timestamps": Deviation("timestamps are missing", "no timestamps"),
        "test_service_tasks_have_the_group_of_the_service": Deviation("timed out", "services start no tasks"),
        "test_service_tasks_are_started_by_the_deployment": Deviation("timed out", "services start no tasks"),
        "test_forced_deployment_replaces_all_tasks": Deviation("timed out", "services start no tasks"),
        "test_describe_services_reports_unknown_services_as_missing": Deviation(
            ":service/none'", "the ARN without the cluster"
        ),
        "test_deployment_completes_when_its_tasks_run": Deviation("timed out", "services start no tasks"),
        "test_task_protection_has_an_expiration_date": Deviation("timed out", "services start no tasks"),
        "test_task_protection_requires_a_task_of_a_service": Deviation("(500)", "fails with status 500"),
        "test_task_protection_rejects_more_than_two_days": Deviation("(500)", "fails with status 500"),
        "test_scale_in_spares_protected_tasks": Deviation("timed out", "services start no tasks"),
        "test_task_definition_rejects_an_unknown_dependency": Deviation("not rejected", "accepts any dependency"),
        "test_describe_container_instances_reports_unknown_instances_as_missing": Deviation(
            "(500)", "fails with status 500"
        ),
        "test_describe_container_instances_rejects_more_than_a_hundred_instances": Deviation(
            "(500)", "fails with status 500"
        ),
        "test_task_with_a_health_check_becomes_healthy": Deviation("'healthStatus'", "no health"),
        "test_containers_stop_in_reverse_order_of_dependencies": Deviation("timed out", "all at once"),
        "test_rule_delivers_matching_events_with_envelope": Deviation(
            "'account'", "no account in the envelope"
        ),
        "test_put_events_rejects_sources_of_aws": Deviation(
            "the source aws.ecs was accepted", "accepted and delivered"
        ),
        "test_ecs_sends_task_state_change_events": Deviation("timed out", "ECS sends no events"),
        "test_cloudtrail_sends_events_for_role_changes": Deviation("timed out", "IAM sends no events"),
        "test_set_queue_attributes_rejects_a_non_numeric_value": Deviation("(500)", "fails with status 500"),
        "test_delete_message_batch_rejects_more_than_ten_entries": Deviation("not rejected", "accepts any number"),
        "test_redriven_message_has_the_arn_of_its_source_queue": Deviation(
            "assert None ==", "no DeadLetterQueueSourceArn"
        ),
        "test_assume_role_rejects_an_unknown_role": Deviation("not rejected", "any role can be assumed"),
        "test_unsigned_requests_are_rejected": Deviation("Expecting value", "handles the request as S3"),
        "test_simulate_principal_policy_evaluates_role_policies": Deviation(
            "Internal Server Error", "fails with status 500"
        ),
        "test_conditions_need_their_values": Deviation("(500)", "fails with status 500"),
        "test_secretsmanager_rejects_an_unknown_secret": Deviation("(ResourceNotFoundException)", "with status 404"),
        "test_forced_delete_secret_frees_the_name": Deviation(
            "(ResourceNotFoundException)", "unknown secrets are rejected with status 404"
        ),
        "test_put_parameter_rejects_a_long_value": Deviation("not rejected", "accepts any length"),
        "test_bucket_of_another_region_is_named": Deviation("(301, ", "serves it in any Region"),
        "test_describe_parameters_filters_by_prefix_and_paginates": Deviation(
            "[3] == [2, 1]", "all parameters on one page"
        ),
    },
    "ministack": {
        "test_list_clusters_paginates": Deviation("assert (", "all clusters on one page"),
        "test_deleted_cluster_is_inactive_and_not_listed": Deviation(
            "[] == ['INACTIVE']", "a deleted cluster is MISSING at once"
        ),
        "test_ecs_rejects_an_unknown_cluster": Deviation("not rejected", "an empty list"),
        "test_describe_task_definition_returns_tags_on_request": Deviation("assert not [", "always with tags"),
        "test_run_task_sets_the_group_of_the_family": Deviation("'' == 'family:", "group is empty"),
        "test_task_starts_in_provisioning": Deviation("'RUNNING' == 'PROVISIONING'", "RUNNING immediately"),
        "test_run_task_requires_a_network_configuration_for_awsvpc": Deviation("not rejected", "started without one"),
        "test_run_task_rejects_a_count_above_ten": Deviation("not rejected", "starts any number"),
        "test_list_tasks_rejects_an_invalid_next_token": Deviation("(InternalError)", "fails with status 500"),
        "test_describe_tasks_rejects_more_than_a_hundred_tasks": Deviation("not rejected", "accepts any number"),
        "test_describe_tasks_returns_tags_on_request": Deviation("assert not [", "always with tags"),
        "test_task_attachment_has_the_private_address": Deviation("list index out of range", "no attachments"),
        "test_task_containers_have_the_private_address": Deviation("list index out of range", "no addresses"),
        "test_stop_task_leaves_last_status_running_at_first": Deviation(
            "'STOPPED' == 'RUNNING'", "STOPPED immediately"
        ),
        "test_service_tasks_are_started_by_the_deployment": Deviation(
            "'web' ==", "startedBy is the name of the service"
        ),
        "test_task_protection_has_an_expiration_date": Deviation(
            "list index out of range", "an answer without tasks and failures"
        ),
        "test_task_protection_requires_a_task_of_a_service": Deviation(
            "([], []) ==", "an answer without tasks and failures"
        ),
        "test_task_protection_rejects_more_than_two_days": Deviation("not rejected", "accepts any time"),
        "test_scale_in_spares_protected_tasks": Deviation("timed out", "stops protected tasks"),
        "test_task_definition_rejects_an_unknown_dependency": Deviation("not rejected", "accepts any dependency"),
        "test_describe_container_instances_returns_ec2_instances": Deviation(
            "RegisterContainerInstance", "no container instances"
        ),
        "test_describe_container_instances_reports_unknown_instances_as_missing": Deviation(
            "[] == [{", "no failures"
        ),
        "test_describe_container_instances_rejects_more_than_a_hundred_instances": Deviation(
            "not rejected", "accepts any number"
        ),
        "test_describe_instances_returns_the_primary_private_address": Deviation(
            "too many values", "ignores the filter `instance-id`"
        ),
        "test_describe_instances_omits_unknown_instances_of_a_filter": Deviation(
            "== []", "ignores the filter `instance-id`"
        ),
        "test_task_with_a_health_check_becomes_healthy": Deviation("timed out", "always UNKNOWN"),
        "test_containers_stop_in_reverse_order_of_dependencies": Deviation("timed out", "all at once"),
        "test_eventbridge_rejects_an_unknown_rule": Deviation(
            "not rejected", "`ListTargetsByRule` returns an empty list"
        ),
        "test_ecs_sends_task_state_change_events": Deviation("timed out", "ECS sends no events"),
        "test_cloudtrail_sends_events_for_role_changes": Deviation("timed out", "IAM sends no events"),
        "test_get_role_returns_tags": Deviation("not well-formed", "`<` and `&` in a tag's value break the XML"),
        "test_assume_role_rejects_an_unknown_role": Deviation("not rejected", "any role can be assumed"),
        "test_unsigned_requests_are_rejected": Deviation("not rejected", "signatures are not required"),
        "test_simulate_principal_policy_evaluates_role_policies": Deviation(
            "== ['allowed'", "always implicitDeny"
        ),
        "test_put_parameter_rejects_a_long_value": Deviation("not rejected", "accepts any length"),
        "test_ssm_rejects_an_unknown_parameter": Deviation(
            "not rejected", "`ListTagsForResource` returns an empty list"
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
    "null or empty for unset members; AWS omits them",
)
_TOKEN = Shape(("NextToken: null instead of string",), "null for an unset member; AWS omits it")
_STOP_CODE = Shape(
    ("tasks[].stopCode: '' is not in the enum TaskStopCode",), "empty while the task runs; AWS omits it"
)

_NULL_SECRET = ("DeletedDate", "KmsKeyId", "LastAccessedDate", "NextRotationDate")


def _null_secret(prefix, names):
    kinds = {"KmsKeyId": "string"}
    return tuple(f"{prefix}{name}: null instead of {kinds.get(name, 'timestamp')}" for name in names)


_UNREAD = "null until the secret is read; AWS omits it"

# server -> call -> violations of AWS's model of the response
SHAPES = {
    "moto": {
        "secretsmanager.DescribeSecret": Shape(
            (*_null_secret("", _NULL_SECRET), "SecretVersionsToStages: not in the model"),
            "null for unset members, and the versions of ListSecrets",
        ),
        "secretsmanager.ListSecrets": Shape(
            (
                *_null_secret("SecretList[].", _NULL_SECRET),
                "NextToken: null instead of string",
                "SecretList[].VersionIdsToStages: not in the model",
            ),
            "null for unset members, and the versions of DescribeSecret",
        ),
        "events.ListRuleNamesByTarget": _TOKEN,
        "events.ListTargetsByRule": _TOKEN,
        "ec2.DescribeInstances": Shape(
            ("reservationSet[].instancesSet[].platform: 'windows' is not in the enum PlatformValues",),
            "the first image is one of Windows, which AWS writes with a capital",
        ),
    },
    "ministack": {
        "secretsmanager.DescribeSecret": Shape(_null_secret("", ("LastAccessedDate",)), _UNREAD),
        "secretsmanager.ListSecrets": Shape(_null_secret("SecretList[].", ("LastAccessedDate",)), _UNREAD),
        "ecs.DescribeTaskDefinition": _DEFINITION,
        "ecs.DescribeTasks": _STOP_CODE,
        "ecs.RegisterTaskDefinition": _DEFINITION,
        "ecs.RunTask": _STOP_CODE,
    },
}

# Calls of which the sandbox has the members that the operator reads alone.
PARTIAL = {"ec2.DescribeInstances", "events.DescribeEventBus"}

# call -> members that both others return and the sandbox omits
OMITTED = {
    "secretsmanager.DescribeSecret": Shape(("LastAccessedDate",), "AWS returns it only for secrets that were read"),
    "secretsmanager.ListSecrets": Shape(
        ("SecretList[].LastAccessedDate",), "AWS returns it only for secrets that were read"
    ),
    "ecs.RunTask": Shape(("tasks[].stoppedReason",), "the others return it empty; AWS omits it"),
    "ecs.StopTask": Shape(
        ("task.containers[].exitCode", "task.startedBy"),
        "the others stop the task immediately and return an empty startedBy; at AWS the task still runs",
    ),
    "sts.AssumeRole": Shape(("PackedPolicySize",), "AWS returns it only for session policies or tags"),
}
