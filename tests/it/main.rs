//! All integration tests in one binary, so that the AWS SDK is linked once.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod audit;
mod browser;
mod conformance;
mod consul_real;
mod consul_replay;
mod crds;
mod deploy;
mod doctor;
mod e2e;
mod features;
mod golden;
mod golden_cases;
mod golden_consul_auth;
mod identity;
mod kuma_real;
mod kuma_replay;
mod lease;
mod manifest_sources;
mod prometheus;
mod sandbox_aws;
mod simulation;
mod terraform;

/// Manifests of tests may name every file and variable.
fn allow_all() -> ecs_mesh_api::AllowList {
    ecs_mesh_api::AllowList::new(["*"], ["/"])
}

/// Stores of data plane tokens in memory.
fn fake_token_stores() -> ecs_mesh_operator::operator::TokenStores {
    use ecs_mesh_aws::fakes::FakeTokenStore;
    use std::sync::Arc;
    let (secrets, parameters) = (FakeTokenStore::default(), FakeTokenStore::default());
    let (secrets_manager, parameter_store) = (Arc::new(secrets) as _, Arc::new(parameters) as _);
    ecs_mesh_operator::operator::TokenStores::new(secrets_manager, parameter_store)
}
