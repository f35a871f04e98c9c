//! `ecs-mesh-operator run`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::api_args::ApiArgs;
use super::common::{CommonArgs, RateArgs};
use super::lease::{LeaseArgs, LeaseCandidate};
use super::output::print;
use super::plan::{exit_code as plan_exit_code, plan};
use super::team_events::{FINISH_TIMEOUT, TeamEventArgs};
use super::{duration, once};
use crate::operator::{DryRunRecorder, Operator, PlanOptions, RunOptions};
use crate::team_events::TeamEvents;
use crate::telemetry::log::LogStats;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::server::{ListenAddress, MetricsServer};
use ecs_mesh_aws::aws::EventQueue;
use ecs_mesh_aws::consumer::PoisonPolicy;
use ecs_mesh_aws::sdk::{AwsClients, SdkQueue};
use ecs_mesh_controller::Signals;
use ecs_mesh_core::plan::report::{PlanDetail, render};
use ecs_mesh_lease::LeaseClients;
use ecs_mesh_manifests::{ManifestStatus, WatchOptions};

/// Handling of unparseable messages.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Poison {
    /// Delete the message after it was counted and logged
    Delete,
    /// Leave the message to the queue's redrive policy, which moves it to the dead-letter queue
    Redrive,
}

impl From<Poison> for PoisonPolicy {
    fn from(poison: Poison) -> Self {
        match poison {
            Poison::Delete => Self::Delete,
            Poison::Redrive => Self::Redrive,
        }
    }
}

/// Arguments of `run`.
#[derive(clap::Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    common: CommonArgs,

    #[command(flatten)]
    rates: RateArgs,

    #[command(flatten)]
    lease: LeaseArgs,

    #[command(flatten)]
    team_events: TeamEventArgs,

    #[command(flatten)]
    api: ApiArgs,

    /// SQS queue of EventBridge events, also several; without one the operator relies on periodic sweeps
    #[arg(long, env = "ECS_MESH_QUEUE_URL", value_name = "URL", value_delimiter = ',')]
    queue_url: Vec<String>,

    /// Interval of the reads of S3 and SSM sources of `--manifests`, from 5s to 5m
    #[arg(long, default_value = "30s", value_parser = poll_interval)]
    manifests_poll_interval: Duration,

    /// Log and count changes without writing; does not read `--queue-url`
    #[arg(long)]
    dry_run: bool,

    /// Separate SQS queue for the dry run
    #[arg(long, requires = "dry_run")]
    dry_run_queue_url: Option<String>,

    /// Concurrent receivers of each SQS queue
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    receivers: u16,

    /// Maximum concurrent reconciles per control plane
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=512))]
    concurrency: u16,

    /// How to handle unparseable messages: delete them, or leave them to the redrive policy
    #[arg(long, value_enum, default_value = "delete")]
    poison: Poison,

    /// Time to finish in-flight work at shutdown; keep it below the task's stopTimeout
    #[arg(long, default_value = "20s", value_parser = duration)]
    graceful_shutdown_timeout: Duration,

    /// End once nothing is left to do, without a queue and without serving metrics; print a summary
    #[arg(long)]
    once: bool,

    /// Time limit of `--once`
    #[arg(long, default_value = "10m", value_parser = duration)]
    once_timeout: Duration,

    /// Listen address of the status page, /metrics, /healthz, /readyz and /startupz: IP:PORT, or none
    #[arg(long, env = "ECS_MESH_METRICS_ADDRESS", default_value = "0.0.0.0:9102")]
    metrics_address: ListenAddress,
}

impl RunArgs {
    pub(super) async fn run(self, log: Arc<LogStats>) -> Result<ExitCode, String> {
        if self.once {
            return Box::pin(self.run_once(log)).await;
        }
        let signals = Signals::listen().map_err(|error| format!("installing signal handlers: {error}"))?;
        let metrics = Arc::new(Metrics::new(log));
        // First, so that a start that hangs is visible from outside.
        let server = MetricsServer::start(self.metrics_address, Arc::clone(&metrics), fastrand::u64(..));
        let aws = self.common.aws(&metrics).await?;
        let queue_urls = self.event_queue_urls()?;
        let queues = event_queues(&aws, &queue_urls)?;
        let watch = WatchOptions {
            remote_interval: self.manifests_poll_interval,
            seed: fastrand::u64(..),
            ..WatchOptions::default()
        };
        let manifests = self.common.manifests(&aws, &metrics, watch).await?;
        for queue in &queues {
            check_queue(queue).await;
        }
        let recorder = self.dry_run.then(|| Arc::new(DryRunRecorder::new(Arc::clone(&metrics))));
        self.log_start(&aws, &queue_urls);
        let candidate = self.candidate(&aws, &manifests.borrow())?;
        let health = metrics.health().clone();
        let lease = candidate.as_ref().map(LeaseCandidate::lease);
        let operator =
            self.common.operator(&aws, Arc::clone(&metrics), &self.rates, recorder, None, lease.as_ref());
        let team_events = self.start_team_events(&operator, &aws, &metrics);
        let api = self.api.serve(&operator, Arc::new(aws.secrets.clone())).await?;
        let standing = candidate.map(|candidate| candidate.stand(&health));
        let options = self.options();
        let immediate = signals.immediate.clone();
        let queues: Vec<_> = queues.into_iter().map(|queue| Arc::new(queue) as Arc<dyn EventQueue>).collect();
        let ended = tokio::select! {
            ended = operator.run(queues, manifests, options, signals.stop) => {
                ended.map(|_| ()).map_err(|error| error.to_string())
            }
            () = immediate.cancelled() => Err("stopped at once by a second signal".to_owned()),
        };
        if let Some(events) = team_events {
            events.finish(FINISH_TIMEOUT).await;
        }
        // After the last write. A process that a second signal stops has dropped its writes.
        if let Some(standing) = standing {
            standing.release().await;
        }
        if let Some(api) = api {
            api.stop().await;
        }
        server.stop().await;
        ended.map(|()| ExitCode::SUCCESS)
    }

    /// Runs until nothing is left to do. With `--dry-run` it is a plan.
    async fn run_once(self, log: Arc<LogStats>) -> Result<ExitCode, String> {
        if self.dry_run {
            let options = PlanOptions {
                timeout: self.once_timeout,
                concurrency: usize::from(self.concurrency),
                ..PlanOptions::default()
            };
            let (report, _) = Box::pin(plan(&self.common, &self.rates, options, None)).await?;
            let report = report.without_unchanged();
            print(&render(&report, PlanDetail::Changes))?;
            return Ok(plan_exit_code(&report));
        }
        let signals = Signals::listen().map_err(|error| format!("installing signal handlers: {error}"))?;
        let metrics = Arc::new(Metrics::new(log));
        let aws = self.common.aws(&metrics).await?;
        let manifests = self.common.manifests(&aws, &metrics, WatchOptions::default()).await?;
        self.log_start(&aws, &[]);
        let candidate = self.candidate(&aws, &manifests.borrow())?;
        let (health, lease) = (metrics.health().clone(), candidate.as_ref().map(LeaseCandidate::lease));
        let standing = candidate.map(|candidate| candidate.stand(&health));
        if let Some(standing) = &standing {
            standing.lead_within(self.once_timeout, &signals.stop).await?;
        }
        let operator =
            self.common.operator(&aws, Arc::clone(&metrics), &self.rates, None, None, lease.as_ref());
        let team_events = self.start_team_events(&operator, &aws, &metrics);
        let immediate = signals.immediate.clone();
        let report = tokio::select! {
            report = operator.run_once(manifests, self.options(), self.once_timeout, signals.stop) => {
                report.map_err(|error| error.to_string())?
            }
            () = immediate.cancelled() => return Err("stopped at once by a second signal".to_owned()),
        };
        if let Some(events) = team_events {
            events.finish(FINISH_TIMEOUT).await;
        }
        if let Some(standing) = standing {
            standing.release().await;
        }
        print(&once::summary(&report))?;
        Ok(once::exit_code(&report))
    }

    fn start_team_events(
        &self,
        operator: &Operator,
        aws: &AwsClients,
        metrics: &Arc<Metrics>,
    ) -> Option<TeamEvents> {
        self.team_events.start(operator, &self.common.operator_id, aws, metrics, self.dry_run)
    }

    /// The part in the election; `None` without a lease, and in a dry run, which writes nothing.
    fn candidate(
        &self,
        aws: &AwsClients,
        manifests: &ManifestStatus,
    ) -> Result<Option<LeaseCandidate>, String> {
        if self.dry_run {
            return Ok(None);
        }
        let allowed = self.common.allow.list();
        let clients = LeaseClients { aws, manifests: &manifests.set, allowed: &allowed };
        self.lease.candidate(&self.common.operator_id, &clients).map_err(|error| {
            let unread: Vec<String> = manifests.unread.iter().map(ToString::to_string).collect();
            // The ControlPlane that keeps the lease may be in one of them.
            if unread.is_empty() { error } else { format!("{error}; not read: {}", unread.join("; ")) }
        })
    }

    fn options(&self) -> RunOptions {
        RunOptions {
            concurrency: usize::from(self.concurrency),
            receivers: usize::from(self.receivers),
            poison: self.poison.into(),
            graceful_shutdown_timeout: self.graceful_shutdown_timeout,
        }
    }

    /// The queues to read, each once. A dry run never reads the operator's queues, since each event is received once.
    fn event_queue_urls(&self) -> Result<Vec<String>, String> {
        if !self.dry_run {
            return distinct(&self.queue_url);
        }
        match &self.dry_run_queue_url {
            Some(own) if self.queue_url.contains(own) => Err(format!(
                "--dry-run-queue-url and --queue-url are both {own}: the dry run would take events from the operator; \
                 help: use a separate queue (a second target of the rules), or none"
            )),
            own => Ok(own.iter().cloned().collect()),
        }
    }

    fn log_start(&self, aws: &AwsClients, queue_urls: &[String]) {
        if self.dry_run && !self.queue_url.is_empty() {
            info!("dry run: not reading the queue of --queue-url");
        }
        let all = queue_urls.join(",");
        let queue_url = if all.is_empty() { "none" } else { &all };
        info!(
            operator = %self.common.operator_id, version = env!("CARGO_PKG_VERSION"), commit = crate::COMMIT,
            region = aws.region(), queue_url, dry_run = self.dry_run, "started"
        );
    }
}

/// The URLs, each once.
fn distinct(urls: &[String]) -> Result<Vec<String>, String> {
    match urls.iter().enumerate().find(|(index, url)| urls[..*index].contains(url)) {
        Some((_, url)) => Err(format!("--queue-url: {url} is given twice; help: give each queue once")),
        None => Ok(urls.to_vec()),
    }
}

/// The queues, each with a name of its own: queues of several Regions often have the same.
fn event_queues(aws: &AwsClients, urls: &[String]) -> Result<Vec<SdkQueue>, String> {
    let name = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
    let queue = |url: &String| {
        let queue = aws.queue(url).map_err(|error| error.to_string())?;
        let is_alone = urls.iter().filter(|other| name(other) == name(url)).count() == 1;
        let whole = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        Ok(if is_alone { queue } else { queue.named(whole) })
    };
    urls.iter().map(queue).collect()
}

/// An interval of reads: often enough for the alert of unread sources, and no load for AWS.
fn poll_interval(text: &str) -> Result<Duration, String> {
    let bounds = Duration::from_secs(5)..=Duration::from_mins(5);
    let interval = duration(text)?;
    if bounds.contains(&interval) { Ok(interval) } else { Err("use 5s to 5m".to_owned()) }
}

/// Warns about an unsuitable queue. The operator starts in any case and relies on sweeps.
async fn check_queue(queue: &SdkQueue) {
    match queue.attributes().await {
        Ok(attributes) if !attributes.has_redrive => {
            warn!("the queue has no redrive policy; unparseable messages return permanently");
        }
        Ok(_) => {}
        Err(error) => warn!(%error, "cannot read the queue; relying on periodic sweeps"),
    }
}
