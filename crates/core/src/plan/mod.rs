//! Compares a task's desired state with its registrations and decides the steps. Pure, so that a plan shows exactly the
//! steps of a run.

mod decide;
mod deployment_hold;
mod diff;
mod drain;
mod drain_hold;
mod guard;
mod liveness;
pub mod report;

pub use decide::{
    Action, Decision, DecisionInput, Evidence, KnownRegistration, OwnerAction, OwnerStep,
    PendingConfirmation, PlanStep, Settling, Sighting, SkippedAction, decide, decide_if_confirmed,
};
pub use deployment_hold::{DeployedTask, DeploymentHold, HoldDecision, HoldEnd, HoldRequest, HoldState};
pub use diff::{FieldChange, diff};
pub use drain::DrainReason;
pub use drain_hold::{DrainCause, DrainHolds, DrainPermit, DrainRequest, ServiceEndpoint};
pub use guard::{
    GuardDecision, GuardState, HeldRemoval, OwnedCount, RemovalBasis, RemovalGuard, RemovalRequest,
};
pub use liveness::TaskLiveness;
