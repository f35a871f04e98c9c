//! `ecs-mesh-operator plan`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::duration;
use super::output::print;
use super::common::{RateArgs, CommonArgs};
use crate::operator::{DryRunRecorder, PlanOptions};
use crate::telemetry::metrics::Metrics;
use ecs_mesh_controller::Signals;
use ecs_mesh_core::plan::report::{PlanDetail, PlanReport, render};

/// Exit code of a plan that has something to do.
const EXIT_CHANGES: u8 = 2;

/// What `plan` takes.
#[derive(clap::Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    setup: CommonArgs,

    #[command(flatten)]
    pace: RateArgs,

    /// What to print: `text` for people, `json` for one object.
    #[arg(long, value_enum, default_value = "text")]
    output: PlanOutput,

    /// Show what is unchanged or ignored, too, and each task by itself.
    #[arg(long)]
    all: bool,

    /// How long a call that fails is tried again before its part counts as unknown.
    #[arg(long, default_value = "10s", value_parser = duration)]
    retry_timeout: Duration,

    /// How long the plan takes at most; what is not known then is unknown.
    #[arg(long, default_value = "5m", value_parser = duration)]
    timeout: Duration,

    /// Tasks looked at side by side, for each control plane.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=512))]
    concurrency: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PlanOutput {
    Text,
    Json,
}

impl PlanArgs {
    pub(super) async fn run(self) -> Result<ExitCode, String> {
        let signals = Signals::listen().map_err(|error| format!("signals cannot be handled: {error}"))?;
        let metrics = Arc::new(Metrics::default());
        let aws = self.setup.aws(&metrics).await?;
        let manifests = self.setup.manifests(&metrics).await?;
        let book = Arc::new(DryRunRecorder::new(Arc::clone(&metrics)));
        let operator = self.setup.operator(&aws, metrics, &self.pace, Some(Arc::clone(&book)));
        let options = PlanOptions {
            retry_timeout: self.retry_timeout,
            timeout: self.timeout,
            concurrency: usize::from(self.concurrency),
        };
        let proposal = tokio::select! {
            planned = operator.plan(&book, manifests, options) => planned.map_err(|error| error.to_string())?,
            () = signals.stop.cancelled() => return Err("interrupted; nothing was written".to_owned()),
        };
        let code = exit_code(&proposal);
        print(&self.text(proposal)?)?;
        Ok(code)
    }

    fn text(&self, proposal: PlanReport) -> Result<String, String> {
        let proposal = if self.all { proposal } else { proposal.without_unchanged() };
        match self.output {
            PlanOutput::Text => {
                let detail = if self.all { PlanDetail::All } else { PlanDetail::Changes };
                Ok(render(&proposal, detail))
            }
            PlanOutput::Json => serde_json::to_string_pretty(&proposal)
                .map(|text| text + "\n")
                .map_err(|error| format!("it cannot be printed: {error}")),
        }
    }
}

/// An incomplete plan is an error whatever it found: nobody should take it for the whole.
fn exit_code(proposal: &PlanReport) -> ExitCode {
    match (proposal.complete, proposal.will_write()) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::from(EXIT_CHANGES),
        (true, false) => ExitCode::SUCCESS,
    }
}
