//! `ecs-mesh-operator status`.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use serde_json::Value;

use super::api_client_args::{ApiClientArgs, notice};
use super::output::print;
use super::terminal;
use ecs_mesh_client::output::document::{to_json, to_yaml};
use ecs_mesh_client::output::status::render_status;
use ecs_mesh_client::watch::watch_status;

/// Clears a terminal, and goes to its first line.
const CLEAR_SCREEN: &[u8] = b"\x1b[2J\x1b[H";

/// Arguments of `status`.
#[derive(clap::Args)]
pub(super) struct StatusArgs {
    /// Output format: `text`, `json` or `yaml`
    #[arg(short, long, value_enum, default_value = "text")]
    output: StatusOutput,

    /// After the state, print each state that differs until interrupted
    #[arg(short, long)]
    watch: bool,

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
        let (output, is_watch) = (self.output, self.watch);
        let client = self.api.client().map_err(|error| error.to_string())?;
        if is_watch {
            let mut shown = 0;
            let mut show = |status: &Value| {
                shown += 1;
                print_again(&output.render(status)?, shown > 1, output)
            };
            return match watch_status(&client, &mut show, &mut notice).await {
                Err(error) if !error.is_closed_output() => Err(error.to_string()),
                _ => Ok(ExitCode::SUCCESS),
            };
        }
        let status = client.get(&["status"], &[]).await.map_err(|error| error.to_string())?;
        print(&output.render(&status).map_err(|error| format!("rendering the state: {error}"))?)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl StatusOutput {
    fn render(self, status: &Value) -> io::Result<String> {
        Ok(match self {
            Self::Json => to_json(status),
            Self::Yaml => to_yaml(status),
            Self::Text => render_status(status, terminal::line_limit())?,
        })
    }
}

/// Prints a state in the place of the one before, where standard output is a terminal, and behind it elsewhere.
fn print_again(text: &str, is_again: bool, output: StatusOutput) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match output {
        StatusOutput::Text if out.is_terminal() => out.write_all(CLEAR_SCREEN)?,
        StatusOutput::Text if is_again => out.write_all(b"\n")?,
        StatusOutput::Yaml if is_again => out.write_all(b"---\n")?,
        StatusOutput::Text | StatusOutput::Yaml | StatusOutput::Json => {}
    }
    out.write_all(text.as_bytes())?;
    out.flush()
}
