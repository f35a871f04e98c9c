//! `ecs-mesh-operator status`.

use std::process::ExitCode;

use super::api_client_args::ApiClientArgs;
use super::output::print;
use super::terminal;
use ecs_mesh_client::output::document::{to_json, to_yaml};
use ecs_mesh_client::output::status::render_status;

/// Arguments of `status`.
#[derive(clap::Args)]
pub(super) struct StatusArgs {
    /// Output format: `text`, `json` or `yaml`
    #[arg(short, long, value_enum, default_value = "text")]
    output: StatusOutput,

    #[command(flatten)]
    api: ApiClientArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum StatusOutput {
    #[value(alias = "table")]
    Text,
    Json,
    Yaml,
}

impl StatusArgs {
    pub(super) async fn run(self) -> Result<ExitCode, String> {
        let client = self.api.client().map_err(|error| error.to_string())?;
        let status = client.get(&["status"], &[]).await.map_err(|error| error.to_string())?;
        print(&match self.output {
            StatusOutput::Json => to_json(&status),
            StatusOutput::Yaml => to_yaml(&status),
            StatusOutput::Text => render_status(&status, terminal::line_limit())
                .map_err(|error| format!("rendering the state: {error}"))?,
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
