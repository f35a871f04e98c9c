//! All integration tests in one binary, so that the AWS SDK is linked once.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod audit;
mod conformance;
mod consul_real;
mod consul_replay;
mod crds;
mod deploy;
mod doctor;
mod e2e;
mod features;
mod golden;
mod golden_consul_auth;
mod identity;
mod kuma_replay;
mod prometheus;
mod sandbox_aws;
mod simulation;

/// Manifests of tests may name every file and variable.
fn allow_all() -> ecs_mesh_api::AllowList {
    ecs_mesh_api::AllowList::new(["*"], ["/"])
}
