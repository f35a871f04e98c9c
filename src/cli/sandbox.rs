//! `ecs-mesh-operator sandbox`.

use std::process::ExitCode;

/// What `sandbox` takes.
#[derive(clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) async fn run(self) -> Result<ExitCode, String> {
        Ok(ExitCode::SUCCESS)
    }
}
