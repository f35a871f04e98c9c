//! The resources.

mod change;
mod labels;
mod mesh;
mod status;
mod task;
mod task_state;

pub use change::{ChangeResultView, ChangeView, WarningView};
pub use mesh::{
    BindingView, EdgeView, GuardView, IdentityKindView, IdentityStateView, IdentityView,
    OtherRegistrationsView, OutboundStateView, OutboundView, RegistrationCountsView, ServiceDetailView,
    ServicePresence, ServiceStateFacts, ServiceStateView, ServiceView, TaskCountsView, TopologyServiceView,
    TopologyView,
};
pub use status::{
    CircuitView, ClusterView, ControlPlaneTypeView, ControlPlaneView, CountsView, HistoryView, LeaseRoleView,
    ManifestsView, StatusView,
};
pub use task::{
    DrainedView, EvidenceView, ReasonView, RegistrationBodyView, RegistrationView, RoleTagView, SeenByView,
    TaskDetailView, TaskRegistrationsView, TaskView, TaskWarningView, VerdictView,
};
pub use task_state::{RegistrationFacts, TaskStateFacts, TaskStateView, VerdictFacts};
