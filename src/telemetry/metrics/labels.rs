//! The labels, and every value that a bounded one may have: counters are there at 0 from the start, since a rate over a
//! series that begins at 1 misses the 1.
//!
//! `control_plane`, `controller`, `name`, `binding`, `mesh` and `cluster` are names of what the manifests select, so they
//! are bounded too.

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
    /// One label.
    ReasonLabels { reason: &'static str }
);
labels!(
    /// A queue's messages.
    MessageLabels { kind: &'static str, result: &'static str }
);
labels!(
    /// An AWS call.
    AwsCallLabels { operation: &'static str, outcome: &'static str }
);
labels!(
    /// An operation, whatever came of it.
    AwsOperationLabels { operation: &'static str }
);
labels!(
    /// A call to a control plane.
    ControlPlaneCallLabels { control_plane: Arc<str>, operation: &'static str, outcome: &'static str }
);
labels!(
    /// A control plane's operation, whatever came of it.
    ControlPlaneOperationLabels { control_plane: Arc<str>, operation: &'static str }
);
labels!(
    /// Tokens of a control plane that name no task, and why.
    UnattributedTokenLabels { control_plane: Arc<str>, reason: &'static str }
);
labels!(
    /// What a thing came to.
    ResultLabels { result: &'static str }
);
labels!(
    /// What a controller's run came to.
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
    /// A written change.
    ChangeLabels { change: &'static str }
);
labels!(
    /// A change that would be written.
    PlannedChangeLabels { control_plane: Arc<str>, change: &'static str }
);
labels!(
    /// A broken rule.
    RuleLabels { rule: &'static str }
);

labels!(
    /// A change of an object of the identity set-up, and what came of it.
    AclChangeLabels { kind: &'static str, change: &'static str, result: &'static str }
);

/// What is done to objects of the identity set-up.
pub(super) const ACL_CHANGES: [&str; 4] = ["create", "update", "adopt", "remove"];
pub(super) const ACL_RESULTS: [&str; 2] = ["ok", "failed"];

/// What became of messages, by their kind.
pub(super) const MESSAGE_RESULTS: [(&str, &[&str]); 5] = [
    ("task", &["accepted", "stale", "unbound_cluster"]),
    ("role_change", &["accepted", "unknown_role"]),
    (
        "ignored",
        &[
            "container_instance_state_change",
            "service_action",
            "deployment_state_change",
            "unexpected_source",
            "unknown",
        ],
    ),
    (
        "poison",
        &[
            "too_large",
            "not_json",
            "missing_field",
            "wrong_type",
            "invalid_arn",
            "invalid_timestamp",
            "invalid_address",
            "invalid_name",
            "invalid_version",
            "unknown_status",
            "cluster_mismatch",
        ],
    ),
    ("receive_error", AWS_ERRORS),
];

pub(super) const AWS_OPERATIONS: [&str; 10] = [
    "ecs:ListClusters",
    "ecs:ListTasks",
    "ecs:DescribeTasks",
    "ecs:DescribeTaskDefinition",
    "iam:GetRole",
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibility",
    "sqs:GetQueueAttributes",
    "secretsmanager:GetSecretValue",
];
pub(super) const AWS_ERRORS: &[&str] =
    &["throttled", "unavailable", "access_denied", "credentials", "not_found", "invalid"];

pub(super) const CONTROL_PLANE_OPERATIONS: [&str; 9] =
    ["owned", "find", "read", "put", "delete", "services", "refresh", "objects", "object"];
pub(super) const CONTROL_PLANE_ERRORS: [&str; 9] = [
    "unreachable",
    "busy",
    "failed",
    "conflict",
    "invalid",
    "forbidden",
    "no_such_mesh",
    "read_only",
    "unexpected",
];

/// Why a login's token names no task.
pub(super) const UNATTRIBUTED_REASONS: [&str; 2] = ["no_metadata", "malformed"];

pub(super) const CHANGE_VALUES: [&str; 4] = ["create", "update", "drain", "remove"];
pub(super) const EVIDENCE_VALUES: [&str; 4] = ["stopped", "absent", "role_tags", "manifests"];
pub(super) const ROLE_RULES: [&str; 16] = [
    "no_task_role",
    "no_such_role",
    "account",
    "kuma.io/type",
    "kuma.io/mesh",
    "kuma.io/service",
    "kuma.io/workload",
    "bound_principals",
    "consul.hashicorp.com.service-name",
    "consul.hashicorp.com.gateway-kind",
    "consul.hashicorp.com.namespace",
    "refused_service_tag",
    "refused_service",
    "consul.hashicorp.com/mesh",
    "consul.hashicorp.com/partition",
    "consul.hashicorp.com/namespace",
];
pub(super) const IGNORE_REASONS: [&str; 5] =
    ["no_binding", "other_control_plane", "no_workload", "nothing_there", "network_mode"];
pub(super) const SWEEP_RESULTS: [&str; 3] = ["complete", "undescribed", "incomplete"];

/// What keeps a task from being as it should be, or is worth a warning.
pub(super) const TASK_WARNING_REASONS: [&str; 19] = [
    "bindings_overlap",
    "workloads_overlap",
    "unknown",
    "address_pending",
    "unusable",
    "rejected",
    "warning",
    "network_mode",
    "name_taken",
    "guard",
    "skipped_by_policy",
    "paused",
    "lease",
    "describe",
    "not_swept",
    "not_removed",
    "invalid",
    "conflict",
    "failed",
];

/// What is held for reasons that are no single task's, beside [`CONTROL_PLANE_ERRORS`].
pub(super) const OTHER_WARNING_REASONS: [&str; 4] =
    ["unknown_target", "role_unknown", "sweep_incomplete", "registrations_unlisted"];

/// The reasons of [`TASK_WARNING_REASONS`], [`OTHER_WARNING_REASONS`] and [`CONTROL_PLANE_ERRORS`], each once.
pub(super) fn warning_reasons() -> impl Iterator<Item = &'static str> {
    let planes = CONTROL_PLANE_ERRORS.into_iter().filter(|reason| !TASK_WARNING_REASONS.contains(reason));
    TASK_WARNING_REASONS.into_iter().chain(OTHER_WARNING_REASONS).chain(planes)
}
