//! `ecs-mesh-operator plan`.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::common::{CommonArgs, RateArgs};
use super::duration;
use super::output::{print, to_json};
use crate::operator::{
    DryRunRecorder, Operator, PlanOptions, PlanProgress, PlanProgressCounts, PlanSelection,
};
use crate::telemetry::metrics::Metrics;
use ecs_mesh_api::{ApiDialect, ControlPlaneType, KumaRelease};
use ecs_mesh_controller::Signals;
use ecs_mesh_core::plan::report::{PlanDetail, PlanReport, render};
use ecs_mesh_manifests::WatchOptions;
use ecs_mesh_model::Glob;

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

    /// Plan the tasks of these clusters alone: names or ARNs, `*` and `?` allowed
    #[arg(long, value_name = "CLUSTER", value_parser = glob, value_delimiter = ',', num_args = 1..)]
    cluster: Vec<Glob>,

    /// Plan the tasks of these services alone, as named in ECS or in the mesh; `*` and `?` allowed
    #[arg(long, value_name = "SERVICE", value_parser = glob, value_delimiter = ',', num_args = 1..)]
    service: Vec<Glob>,

    /// Plan these tasks alone: ids or ARNs, `*` and `?` allowed
    #[arg(long, value_name = "TASK", value_parser = glob, value_delimiter = ',', num_args = 1..)]
    task: Vec<Glob>,

    /// Plan for Kuma of this version, such as `3.0`, and show what blocks the upgrade to it
    #[arg(long, value_name = "VERSION", value_parser = target_version)]
    target_version: Option<KumaRelease>,

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

fn glob(text: &str) -> Result<Glob, String> {
    if text.trim().is_empty() {
        Err("is empty: write a name, or a pattern with * and ?".to_owned())
    } else {
        Ok(Glob::new(text))
    }
}

/// A release that this operator is tested with.
pub(super) fn target_version(text: &str) -> Result<KumaRelease, String> {
    let release = KumaRelease::of_version(text).filter(|release| release.is_tested());
    release.ok_or_else(|| {
        let [old, new] = [ApiDialect::V2, ApiDialect::V3].map(ApiDialect::newest_tested);
        format!("{text:?} is not a supported version of Kuma: use 2.7 to {old}, or {new}")
    })
}

impl PlanArgs {
    pub(super) async fn run(self) -> Result<ExitCode, String> {
        let selection = PlanSelection {
            clusters: self.cluster.clone(),
            services: self.service.clone(),
            tasks: self.task.clone(),
        };
        let options = PlanOptions {
            retry_timeout: self.retry_timeout,
            timeout: self.timeout,
            concurrency: usize::from(self.concurrency),
            selection,
        };
        let (report, _) = Box::pin(plan(&self.common, &self.rates, options, self.target_version)).await?;
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

/// Plans, and shows the progress on a terminal.
pub(super) async fn plan(
    common: &CommonArgs,
    rates: &RateArgs,
    options: PlanOptions,
    target: Option<KumaRelease>,
) -> Result<(PlanReport, Arc<Operator>), String> {
    let signals = Signals::listen().map_err(|error| format!("installing signal handlers: {error}"))?;
    let metrics = Arc::new(Metrics::default());
    let aws = common.aws(&metrics).await?;
    let manifests = common.manifests(&aws, &metrics, WatchOptions::default()).await?;
    let has_kuma =
        manifests.borrow().set.control_planes.values().any(|spec| spec.kind == ControlPlaneType::Kuma);
    if target.is_some() && !has_kuma {
        return Err("--target-version: no ControlPlane is of type kuma".to_owned());
    }
    let recorder = Arc::new(DryRunRecorder::new(Arc::clone(&metrics)));
    let operator = common.operator(&aws, metrics, rates, Some(Arc::clone(&recorder)), target, None);
    let progress = Arc::<PlanProgress>::default();
    let mut line = ProgressLine::default();
    let planned = tokio::select! {
        planned = Arc::clone(&operator).plan(&recorder, manifests, options, &progress) => {
            planned.map_err(|error| error.to_string())
        }
        () = signals.stop.cancelled() => Err("interrupted; nothing was written".to_owned()),
        () = line.follow(&progress), if std::io::stderr().is_terminal() => Err("the progress ended".to_owned()),
    };
    line.clear();
    let report = planned?;
    check_target(target, &report)?;
    Ok((report, operator))
}

/// Refuses a target version that is newer than none of the control planes.
fn check_target(target: Option<KumaRelease>, report: &PlanReport) -> Result<(), String> {
    match target {
        Some(target) if report.complete && report.upgrades.is_empty() => Err(format!(
            "--target-version: every ControlPlane of type kuma has version {target} or a later one"
        )),
        _ => Ok(()),
    }
}

/// Time before a progress is shown: most plans take less.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);

/// Interval between two updates of the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// A line on standard error that is overwritten, and erased at the end.
#[derive(Default)]
struct ProgressLine {
    is_shown: bool,
}

impl ProgressLine {
    /// Shows the progress until it is dropped.
    async fn follow(&mut self, progress: &PlanProgress) {
        tokio::time::sleep(PROGRESS_AFTER).await;
        loop {
            self.is_shown = true;
            // A progress that cannot be shown is not worth an error.
            let _ = write!(std::io::stderr(), "\r{}\x1b[K", progress_text(progress.counts()));
            tokio::time::sleep(PROGRESS_INTERVAL).await;
        }
    }

    fn clear(&self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn progress_text(counts: PlanProgressCounts) -> String {
    let PlanProgressCounts { swept, evaluated, expected } = counts;
    if swept {
        format!("evaluated {evaluated} of {expected} tasks")
    } else {
        "listing clusters and registrations".to_owned()
    }
}

/// An incomplete plan is an error in any case, so that it is not mistaken for a complete one; so is a blocked upgrade.
pub(super) fn exit_code(report: &PlanReport) -> ExitCode {
    match (report.complete && !report.blocks_upgrade(), report.will_write()) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::from(EXIT_CHANGES),
        (true, false) => ExitCode::SUCCESS,
    }
}
