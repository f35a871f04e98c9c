//! Compares `Workload.spec.reach` with the sidecar in the task definition. Each task is compared by itself, since tasks of an
//! old and a new definition run side by side during a deployment.

use ecs_mesh_api::Reach;
use ecs_mesh_model::{BIND_OUTBOUNDS_FLAG, Reason, SidecarOutbounds, TaskDefinition, TaskDefinitionArn};

/// The Kuma sidecar of a task definition.
#[derive(Clone, Copy, Debug)]
pub(super) struct KumaSidecar<'a> {
    definition: &'a TaskDefinitionArn,
    container: &'a str,
    outbounds: SidecarOutbounds,
}

impl<'a> KumaSidecar<'a> {
    /// The sidecar; `None` where not exactly one container is one.
    pub(super) fn of(definition: &'a TaskDefinition) -> Option<Self> {
        let (container, outbounds) = definition.kuma_sidecar()?;
        Some(Self { definition: &definition.arn, container, outbounds })
    }

    /// Whether the workload wants outbounds that the sidecar does not bind. Without listeners, the task would have none.
    pub(super) fn cannot_bind(&self, reach: Reach) -> bool {
        reach == Reach::BindOutbounds && self.outbounds == SidecarOutbounds::Listeners
    }

    /// The warning that the workload `name` and its sidecar differ.
    pub(super) fn mismatch(&self, name: &str, reach: Reach) -> Option<Reason> {
        let Self { definition, container, outbounds } = self;
        let start = format!(
            "Workload {name}: spec.reach is {}, and container {container} of {definition}",
            reach.as_str()
        );
        let message = match (reach, outbounds) {
            (Reach::BindOutbounds, SidecarOutbounds::Listeners) => format!(
                "{start} runs without {BIND_OUTBOUNDS_FLAG}: the task keeps its listeners; help: deploy a task definition \
                 whose sidecar has the flag"
            ),
            (Reach::Outbounds, SidecarOutbounds::Bound) => format!(
                "{start} runs with {BIND_OUTBOUNDS_FLAG}: the control plane ignores the listeners, and the sidecar binds \
                 every service of the mesh; help: set spec.reach to {}",
                Reach::BindOutbounds.as_str()
            ),
            (Reach::BindOutbounds, SidecarOutbounds::Bound)
            | (Reach::Outbounds, SidecarOutbounds::Listeners)
            | (_, SidecarOutbounds::Hidden) => {
                return None;
            }
        };
        Some(Reason::constant(message))
    }
}
