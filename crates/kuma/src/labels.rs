//! Whose a Dataplane is: three labels, all of which must be there and well formed. Names recur; marks decide.

use serde_json::{Map, Value};

use ecs_mesh_control_plane::RegistrationOwner;
use ecs_mesh_core::intent::OwnershipLabels;
use ecs_mesh_core::plan::DrainReason;
use ecs_mesh_model::{ClusterId, OperatorId, TaskId};

/// Which operator keeps the Dataplane.
pub const OPERATOR_LABEL: &str = "ecs-mesh.dev/operator";
/// Which cluster its task runs in.
pub const CLUSTER_LABEL: &str = "ecs-mesh.dev/cluster-id";
/// Which task it stands for.
pub const TASK_LABEL: &str = "ecs-mesh.dev/task-id";
/// Why this operator drained it; there only while it is drained.
pub const DRAIN_LABEL: &str = "ecs-mesh.dev/drain";

/// Writes the marks.
pub(super) fn write_labels(labels: &mut Map<String, Value>, marks: &OwnershipLabels) {
    labels.insert(OPERATOR_LABEL.to_owned(), marks.operator.as_str().into());
    labels.insert(CLUSTER_LABEL.to_owned(), marks.cluster.as_str().into());
    labels.insert(TASK_LABEL.to_owned(), marks.task.as_str().into());
}

/// Reads the marks of a stored Dataplane.
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

/// Why it is drained. A reason that this version does not know is the weakest one: a later version's drain is still
/// ours, and is undone once the task should be registered.
pub(super) fn read_drain_reason(stored: &Value) -> Option<DrainReason> {
    label(stored, DRAIN_LABEL).map(|text| DrainReason::parse(text).unwrap_or(DrainReason::Unwanted))
}

/// A label's value.
pub(super) fn label<'a>(stored: &'a Value, name: &str) -> Option<&'a str> {
    stored.get("labels")?.get(name)?.as_str()
}
