//! `ecs-mesh-operator plan`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::common::{CommonArgs, RateArgs};
use super::duration;
use super::output::{print, to_json};
use crate::operator::{DryRunRecorder, PlanOptions};
use crate::telemetry::metrics::Metrics;
use ecs_mesh_controller::Signals;
use ecs_mesh_core::plan::report::{PlanDetail, PlanReport, render};

/// Exit code of a plan with changes.
const EXIT_CHANGES: u8 = 2;

/// Arguments of `plan`.
#[derive(clap::Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    common: CommonArgs,

    #[command(flatten)]
    rates: RateArgs,

    /// Output format: `text` or `json`
    #[arg(long, value_enum, default_value = "text")]
    output: PlanOutput,

    /// Also show unchanged and ignored tasks, and list every task individually
    #[arg(long)]
    all: bool,

    /// Time to retry failed calls before reporting their part as unknown
    #[arg(long, default_value = "10s", value_parser = duration)]
    retry_timeout: Duration,

    /// Overall time limit
    #[arg(long, default_value = "5m", value_parser = duration)]
    timeout: Duration,

    /// Maximum concurrent reconciles per control plane
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
        let signals = Signals::listen().map_err(|error| format!("installing signal handlers: {error}"))?;
        let metrics = Arc::new(Metrics::default());
        let aws = self.common.aws(&metrics).await?;
        let manifests = self.common.manifests(&metrics).await?;
        let recorder = Arc::new(DryRunRecorder::new(Arc::clone(&metrics)));
        let operator = self.common.operator(&aws, metrics, &self.rates, Some(Arc::clone(&recorder)));
        let options = PlanOptions {
            retry_timeout: self.retry_timeout,
            timeout: self.timeout,
            concurrency: usize::from(self.concurrency),
        };
        let report = tokio::select! {
            planned = operator.plan(&recorder, manifests, options) => planned.map_err(|error| error.to_string())?,
            () = signals.stop.cancelled() => return Err("interrupted; nothing was written".to_owned()),
        };
        let code = exit_code(&report);
        print(&self.text(report)?)?;
        Ok(code)
    }

    fn text(&self, report: PlanReport) -> Result<String, String> {
        let report = if self.all { report } else { report.without_unchanged() };
        match self.output {
            PlanOutput::Text => {
                let detail = if self.all { PlanDetail::All } else { PlanDetail::Changes };
                Ok(render(&report, detail))
            }
            PlanOutput::Json => to_json(&report),
        }
    }
}

/// An incomplete plan is an error in any case, so that it is not mistaken for a complete one.
fn exit_code(report: &PlanReport) -> ExitCode {
    match (report.complete, report.will_write()) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::from(EXIT_CHANGES),
        (true, false) => ExitCode::SUCCESS,
    }
}
