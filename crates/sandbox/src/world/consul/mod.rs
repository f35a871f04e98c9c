//! The world's part of Consul: the platform team's setup, objects of other owners, and tasks that register
//! themselves.

mod bootstrap;
mod fixtures;
mod task_agents;

pub use bootstrap::{
    CLIENT_METHOD, ConsulBootstrap, LOGIN_METHOD, MANAGEMENT_TOKEN, SERVICE_TAG, admin_token,
};
pub use fixtures::ForeignFixture;
pub use task_agents::TaskAgentCounts;

pub(super) use fixtures::create_fixtures;
pub(super) use task_agents::TaskAgents;
