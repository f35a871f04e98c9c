//! Ownership and drain labels of Dataplanes. A Dataplane is owned only if all three ownership labels are present and
//! valid; names do not decide, since they are reused.

use serde_json::{Map, Value};

use ecs_mesh_control_plane::RegistrationOwner;
use ecs_mesh_core::intent::OwnershipLabels;
use ecs_mesh_core::plan::DrainReason;
use ecs_mesh_model::{ClusterId, OperatorId, TaskId, is_label_value, short_digest};

/// The operator that owns the Dataplane.
pub const OPERATOR_LABEL: &str = "ecs-mesh.dev/operator";
/// The name of that cluster, from which its ARN can be rebuilt once ECS no longer lists it.
pub const CLUSTER_NAME_LABEL: &str = "ecs-mesh.dev/cluster";
/// The cluster of the Dataplane's task: a hash, since an ARN is no label value.
pub const CLUSTER_LABEL: &str = "ecs-mesh.dev/cluster-id";
/// The task that the Dataplane registers.
pub const TASK_LABEL: &str = "ecs-mesh.dev/task-id";
/// The labels of an owner: a Dataplane that lacks one of them is foreign.
pub const OWNERSHIP_LABELS: [&str; 3] = [OPERATOR_LABEL, CLUSTER_LABEL, TASK_LABEL];
/// The mark of the operator as the writer of a copy: a hash of the ownership labels. A template that was copied from a
/// Dataplane has the mark of another task, and a sidecar that connects with its template overwrites the mark.
pub const WRITER_LABEL: &str = "ecs-mesh.dev/writer";
/// The reason for draining; present only while the Dataplane is drained.
pub const DRAIN_LABEL: &str = "ecs-mesh.dev/drain";

/// The process that wrote the Dataplane last. No comparison looks at it.
pub(super) const PROCESS_LABEL: &str = "ecs-mesh.dev/process";

/// The label that 3.0 adds to each resource. 2.13 and 2.14 refuse an update that changes or omits a stored one: of an
/// instance of 3.0 during a rolling upgrade, or before a rollback.
pub(super) const DISPLAY_NAME_LABEL: &str = "kuma.io/display-name";

/// Writes the ownership labels, the writer mark, and the cluster's name where it is a label value: ECS allows 255 characters.
pub(super) fn write_labels(labels: &mut Map<String, Value>, owner: &OwnershipLabels, cluster_name: &str) {
    if is_label_value(cluster_name) {
        labels.insert(CLUSTER_NAME_LABEL.to_owned(), cluster_name.into());
    }
    labels.insert(OPERATOR_LABEL.to_owned(), owner.operator.as_str().into());
    labels.insert(CLUSTER_LABEL.to_owned(), owner.cluster.as_str().into());
    labels.insert(TASK_LABEL.to_owned(), owner.task.as_str().into());
    labels.extend(writer_mark(&RegistrationOwner::Owned(owner.clone())));
}

/// The writer mark of the owner's copies.
pub(super) fn writer_mark(owner: &RegistrationOwner) -> Option<(String, Value)> {
    let RegistrationOwner::Owned(owner) = owner else { return None };
    let mark = short_digest(&format!("{} {} {}", owner.operator, owner.cluster, owner.task));
    Some((WRITER_LABEL.to_owned(), mark.into()))
}

/// Whether the operator wrote the stored copy last.
pub(super) fn has_writer_mark(stored: &Value) -> bool {
    writer_mark(&read_owner(stored)).is_some_and(|(name, mark)| label(stored, &name) == mark.as_str())
}

/// Reads the ownership labels of a stored Dataplane.
pub(super) fn read_owner(stored: &Value) -> RegistrationOwner {
    let read = || {
        Some(OwnershipLabels {
            operator: OperatorId::parse(label(stored, OPERATOR_LABEL)?).ok()?,
            cluster: ClusterId::parse(label(stored, CLUSTER_LABEL)?).ok()?,
            task: TaskId::parse(label(stored, TASK_LABEL)?).ok()?,
        })
    };
    read().map_or(RegistrationOwner::Foreign, RegistrationOwner::Owned)
}

/// Reads the reason for draining. An unknown reason of a later version counts as the weakest one, so that the drain is
/// still this operator's and ends once the task should be registered.
pub(super) fn read_drain_reason(stored: &Value) -> Option<DrainReason> {
    label(stored, DRAIN_LABEL).map(|text| DrainReason::parse(text).unwrap_or(DrainReason::NotDesired))
}

/// The value of a label.
pub(super) fn label<'a>(stored: &'a Value, name: &str) -> Option<&'a str> {
    stored.get("labels")?.get(name)?.as_str()
}
