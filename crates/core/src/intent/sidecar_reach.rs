//! Compares `Workload.spec.reach` with the task's sidecar: as it reports to the control plane, or else as the task definition
//! shows it. Each task is compared by itself, since tasks of an old and a new definition run side by side during a deployment.

use ecs_mesh_api::Reach;
use ecs_mesh_model::{BIND_OUTBOUNDS_FLAG, Reason, SidecarOutbounds, TaskDefinition, TaskDefinitionArn};

/// The Kuma sidecar of a task.
#[derive(Clone, Copy, Debug)]
pub(super) struct KumaSidecar<'a> {
    /// The container that shows how it is started; `None` where the control plane reports it.
    container: Option<(&'a TaskDefinitionArn, &'a str)>,
    outbounds: SidecarOutbounds,
}

impl<'a> KumaSidecar<'a> {
    /// The sidecar; `None` where not exactly one container is one.
    pub(super) fn of(definition: &'a TaskDefinition) -> Option<Self> {
        let (container, outbounds) = definition.kuma_sidecar()?;
        Some(Self { container: Some((&definition.arn, container)), outbounds })
    }

    /// The sidecar that has connected to the control plane, which knows better than the definition how it runs.
    pub(super) fn connected(outbounds: SidecarOutbounds) -> Self {
        Self { container: None, outbounds }
    }

    /// Whether the workload wants outbounds that the sidecar does not bind. Without listeners, the task would have none.
    pub(super) fn cannot_bind(&self, reach: Reach) -> bool {
        reach == Reach::BindOutbounds && self.outbounds == SidecarOutbounds::Listeners
    }

    /// The warning that the workload `name` and its sidecar differ.
    pub(super) fn mismatch(&self, name: &str, reach: Reach) -> Option<Reason> {
        let ReachMismatch { found, help } = reach_mismatch(reach, self.outbounds)?;
        let reach = reach.as_str();
        let which = match self.container {
            Some((definition, container)) => format!("container {container} of {definition}"),
            None => "the sidecar, as it reports to the control plane,".to_owned(),
        };
        Some(Reason::constant(format!(
            "Workload {name}: spec.reach is {reach}, and {which} {found}; help: {help}"
        )))
    }
}

/// How a workload's reach and its sidecar differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReachMismatch {
    /// How the sidecar runs, and what follows.
    pub found: String,
    /// The change.
    pub help: String,
}

/// Compares a workload's reach with how its sidecar gets its outbounds.
pub fn reach_mismatch(reach: Reach, outbounds: SidecarOutbounds) -> Option<ReachMismatch> {
    match (reach, outbounds) {
        (Reach::BindOutbounds, SidecarOutbounds::Listeners) => Some(ReachMismatch {
            found: format!("runs without {BIND_OUTBOUNDS_FLAG}: the task keeps its listeners"),
            help: "deploy a task definition whose sidecar has the flag".to_owned(),
        }),
        (Reach::Outbounds, SidecarOutbounds::Bound) => Some(ReachMismatch {
            found: format!(
                "runs with {BIND_OUTBOUNDS_FLAG}: the control plane ignores the listeners, and the sidecar binds every \
                 service of the mesh"
            ),
            help: format!("set spec.reach to {}", Reach::BindOutbounds.as_str()),
        }),
        (Reach::BindOutbounds, SidecarOutbounds::Bound)
        | (Reach::Outbounds, SidecarOutbounds::Listeners)
        | (_, SidecarOutbounds::Hidden) => None,
    }
}
