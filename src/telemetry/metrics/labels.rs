//! The labels, and every value of those with a fixed set of values. Their counters start at 0, since a rate over a series
//! that begins at 1 misses the 1.
//!
//! `control_plane`, `controller`, `name`, `binding`, `mesh` and `cluster` are names from the manifests, `account` and `region`
//! those of the clusters that they select, and `source` is from the command line, so they are bounded as well.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { $(pub(super) $field: $type),* }
    };
}
labels!(
    /// Warnings and ignored tasks.
    ReasonLabels { reason: &'static str }
);
labels!(
    /// A remote source of manifests.
    SourceLabels { source: Arc<str> }
);
labels!(
    /// Reads of a remote source of manifests.
    SourceReadLabels { source: Arc<str>, result: &'static str }
);
labels!(
    /// Removals.
    EvidenceLabels { evidence: &'static str }
);
labels!(
    /// Messages of the event queue.
    MessageLabels { kind: &'static str, result: &'static str }
);
labels!(
    /// An AWS call.
    AwsCallLabels { operation: &'static str, result: &'static str }
);
labels!(
    /// An AWS operation with any result.
    AwsOperationLabels { operation: &'static str }
);
labels!(
    /// A call to a control plane.
    ControlPlaneCallLabels { control_plane: Arc<str>, operation: &'static str, result: &'static str }
);
labels!(
    /// An operation of a control plane with any result.
    ControlPlaneOperationLabels { control_plane: Arc<str>, operation: &'static str }
);
labels!(
    /// Login tokens of a control plane that name no task.
    UnattributedTokenLabels { control_plane: Arc<str>, reason: &'static str }
);
labels!(
    /// Sweeps.
    ResultLabels { result: &'static str }
);
labels!(
    /// Runs of a controller.
    ReconcileLabels { controller: Arc<str>, result: &'static str }
);
labels!(
    /// A controller.
    ControllerLabels { controller: Arc<str> }
);
labels!(
    /// A work queue.
    WorkqueueLabels { name: Arc<str> }
);
labels!(
    /// An event to teams.
    TeamEventLabels { r#type: &'static str }
);
labels!(
    /// A written change.
    ChangeLabels { change: &'static str }
);
labels!(
    /// A change that a dry run would write.
    PlannedChangeLabels { control_plane: Arc<str>, change: &'static str }
);
labels!(
    /// A violation of a rule for role tags.
    RuleLabels { rule: &'static str }
);

labels!(
    /// A change of the protection of a task.
    ProtectionLabels { change: &'static str, result: &'static str }
);
labels!(
    /// A change of an ACL object.
    AclChangeLabels { kind: &'static str, change: &'static str, result: &'static str }
);

labels!(
    /// A change of a data plane token.
    TokenChangeLabels { change: &'static str, result: &'static str }
);

/// Changes of data plane tokens.
pub(super) const TOKEN_CHANGES: [&str; 6] = ["create", "update", "rotate", "revoke", "prune", "remove"];
/// Changes of ACL objects.
pub(super) const ACL_CHANGES: [&str; 4] = ["create", "update", "adopt", "remove"];
/// Changes of the scale-in protection of tasks.
pub(super) const PROTECTION_CHANGES: [&str; 2] = ["protect", "unprotect"];
/// Results of changes of ACL objects.
pub(super) const ACL_RESULTS: [&str; 2] = [SUCCESS, "error"];

/// The result of a call or a change that worked.
pub(super) const SUCCESS: &str = "success";

/// Results of messages, by their kind.
pub(super) const MESSAGE_RESULTS: [(&str, &[&str]); 7] = [
    ("task", &["accepted", "stale", "unbound_cluster", "overflow"]),
    ("deployment", &["accepted", "not_held"]),
    ("role_change", &["accepted", "unknown_role"]),
    ("ignored", &["container_instance_state_change", "service_action", "unexpected_source", "unknown"]),
    (
        "poison",
        &[
            "too_large",
            "not_json",
            "missing_field",
            "wrong_type",
            "invalid_arn",
            "invalid_timestamp",
            "invalid_name",
            "invalid_version",
            "unknown_status",
            "cluster_mismatch",
            "origin_mismatch",
        ],
    ),
    ("subscription_confirmation", &["kept"]),
    ("receive_error", AWS_ERRORS),
];

/// Operations of AWS.
pub(super) const AWS_OPERATIONS: [&str; 35] = [
    "sts:AssumeRole",
    "sts:GetCallerIdentity",
    "ecs:ListClusters",
    "ecs:DescribeClusters",
    "ecs:ListTasks",
    "ecs:DescribeTasks",
    "ecs:DescribeTaskDefinition",
    "ecs:DescribeServices",
    "ecs:DescribeContainerInstances",
    "ecs:GetTaskProtection",
    "ecs:UpdateTaskProtection",
    "ec2:DescribeInstances",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "events:PutEvents",
    "iam:GetRole",
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibility",
    "sqs:GetQueueAttributes",
    "secretsmanager:GetSecretValue",
    "secretsmanager:ListSecrets",
    "secretsmanager:DescribeSecret",
    "secretsmanager:CreateSecret",
    "secretsmanager:PutSecretValue",
    "secretsmanager:TagResource",
    "secretsmanager:DeleteSecret",
    "s3:ListObjectsV2",
    "s3:GetObject",
    "ssm:GetParametersByPath",
    "ssm:DescribeParameters",
    "ssm:ListTagsForResource",
    "ssm:PutParameter",
    "ssm:AddTagsToResource",
    "ssm:DeleteParameter",
];
/// Results of AWS calls beside [`SUCCESS`].
pub(super) const AWS_ERRORS: &[&str] =
    &["throttled", "unavailable", "access_denied", "credentials", "not_found", "invalid"];

/// Operations of control planes.
pub(super) const CONTROL_PLANE_OPERATIONS: [&str; 17] = [
    "list_owned",
    "list_clusters",
    "list_for_task",
    "get",
    "put",
    "delete",
    "list_services",
    "list_backends",
    "list_sidecars",
    "list_endpoints",
    "list_members",
    "refresh_capabilities",
    "acl_snapshot",
    "acl_apply",
    "issue_token",
    "revocations",
    "change_revocations",
];
/// Results of calls to control planes beside [`SUCCESS`].
pub(super) const CONTROL_PLANE_ERRORS: [&str; 9] = [
    "unreachable",
    "throttled",
    "server_error",
    "conflict",
    "invalid",
    "forbidden",
    "mesh_not_found",
    "read_only",
    "unexpected_response",
];

/// Why a login token names no task.
pub(super) const UNATTRIBUTED_REASONS: [&str; 2] = ["no_metadata", "malformed"];

/// Written changes of registrations.
pub(super) const CHANGE_VALUES: [&str; 4] = ["create", "update", "drain", "remove"];
/// Evidence for removals.
pub(super) const EVIDENCE_VALUES: [&str; 5] =
    ["stopped", "stopped_missing", "absent", "role_tags", "manifests"];
/// Why a log line was not written.
pub(super) const LOG_DROP_REASONS: [&str; 2] = ["queue_full", "write_failed"];
/// Detail types of events to teams.
pub(super) const TEAM_EVENT_TYPES: [&str; 6] = [
    "TaskRegistered",
    "TaskRejected",
    "IdentityWithdrawn",
    "GuardTripped",
    "DriftRepaired",
    "ControlPlaneUnsupported",
];
/// Why an event to teams was dropped.
pub(super) const TEAM_EVENT_DROP_REASONS: [&str; 5] =
    ["queue_full", "too_many_groups", "refused", "unavailable", "not_leader"];
/// How requests to the read API were answered: `ok`, or the code of the error.
pub(super) const API_RESULTS: [&str; 9] = [
    "ok",
    "invalid_parameter",
    "unauthorized",
    "forbidden",
    "not_found",
    "method_not_allowed",
    "too_large",
    "too_many_requests",
    "not_ready",
];
/// How handshakes of TLS with the read API ended.
pub(super) const API_HANDSHAKE_RESULTS: [&str; 5] = ["ok", "failed", "timeout", "evicted", "refused"];
/// Why a task is ignored.
pub(super) const IGNORE_REASONS: [&str; 6] = [
    "no_binding",
    "other_control_plane",
    "no_workload",
    "not_registered",
    "unsupported_network_mode",
    "external_instance",
];
/// Results of sweeps of a cluster.
pub(super) const SWEEP_RESULTS: [&str; 4] =
    ["complete", "describe_failed", "list_failed", "cluster_not_found"];

/// Warnings of one task.
pub(super) const TASK_WARNING_REASONS: [&str; 34] = [
    "bindings_overlap",
    "workloads_overlap",
    "unknown",
    "address_pending",
    "invalid_metadata",
    "template_mode",
    "dataplane_missing",
    "dataplane_differs",
    "dataplane_unlabelled",
    "dataplane_left_behind",
    "observed",
    "rejected",
    "not_revocable",
    "awaiting_sidecar",
    "degraded",
    "unsupported_network_mode",
    "external_instance",
    "name_conflict",
    "unsupported_control_plane",
    "readiness_unknown",
    "held_by_guard",
    "settling",
    "skipped_by_policy",
    "paused",
    "not_leader",
    "lease_ends",
    "audit_backlog",
    "describe_failed",
    "awaiting_first_sweep",
    "removal_failed",
    "not_expressible",
    "invalid",
    "conflict",
    "server_error",
];

/// Warnings that concern no single task, beside [`CONTROL_PLANE_ERRORS`].
pub(super) const OTHER_WARNING_REASONS: [&str; 12] = [
    "account_unreadable",
    "cluster_not_found",
    "unknown_outbound_service",
    "unbindable_addresses",
    "role_read_failed",
    "sweep_incomplete",
    "registration_list_incomplete",
    "list_item_skipped",
    "task_limit",
    "deployment_read_failed",
    "protection_failed",
    "token_failed",
];

/// The reasons of [`TASK_WARNING_REASONS`], [`OTHER_WARNING_REASONS`] and [`CONTROL_PLANE_ERRORS`], each once.
pub(super) fn warning_reasons() -> impl Iterator<Item = &'static str> {
    let calls = CONTROL_PLANE_ERRORS.into_iter().filter(|reason| !TASK_WARNING_REASONS.contains(reason));
    TASK_WARNING_REASONS.into_iter().chain(OTHER_WARNING_REASONS).chain(calls)
}
