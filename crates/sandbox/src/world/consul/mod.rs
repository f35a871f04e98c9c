//! Consul's side of the world: what a platform team sets up there, what others have left there, and what tasks do there
//! by themselves.

mod bootstrap;
mod task_agents;
mod fixtures;

pub use bootstrap::{CLIENT_METHOD, ConsulBootstrap, LOGIN_METHOD, MANAGEMENT_TOKEN, SERVICE_TAG, human_token};
pub use task_agents::TaskAgentCounts;
pub use fixtures::ForeignFixture;

pub(super) use task_agents::TaskAgents;
pub(super) use fixtures::plant;
