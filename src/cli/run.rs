//! `ecs-mesh-operator run`.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::duration;
use super::common::{RateArgs, CommonArgs};
use crate::operator::{DryRunRecorder, RunOptions};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::server::{ListenAddress, MetricsServer};
use ecs_mesh_aws::aws::EventQueue;
use ecs_mesh_aws::consumer::PoisonPolicy;
use ecs_mesh_aws::sdk::{AwsClients, SdkQueue};
use ecs_mesh_controller::Signals;

/// What becomes of messages that cannot be read.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Poison {
    /// Deleted, after it was counted and logged.
    Delete,
    /// Left for the queue's redrive policy, which moves it to the dead-letter queue.
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

/// What `run` takes.
#[derive(clap::Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    setup: CommonArgs,

    #[command(flatten)]
    pace: RateArgs,

    /// SQS queue with the EventBridge events. Without it changes are found by sweeps only.
    #[arg(long, env = "ECS_MESH_QUEUE_URL")]
    queue_url: Option<String>,

    /// Go on planning and write nothing: what would change is logged and counted. Reads no queue but that of
    /// `--dry-run-queue-url`, since it would take the events from the real operator.
    #[arg(long)]
    dry_run: bool,

    /// A queue of its own for the dry run, with events that no other operator needs.
    #[arg(long, requires = "dry_run")]
    dry_run_queue_url: Option<String>,

    /// Receivers of the queue that work side by side.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    receivers: u16,

    /// Tasks worked on at once, for each control plane. A describe takes a hundred of them; calls to a control plane are few at a time whatever this is.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=512))]
    concurrency: u16,

    /// What becomes of messages that cannot be read: deleted, or left to the queue's redrive policy.
    #[arg(long, value_enum, default_value = "delete")]
    poison: Poison,

    /// How long a stop waits for what is in flight; keep it below the ECS task's stopTimeout (default there: 30s).
    #[arg(long, default_value = "20s", value_parser = duration)]
    graceful_shutdown_timeout: Duration,

    /// Where /metrics, /healthz and /readyz are served: IP:PORT, or none.
    #[arg(long, env = "ECS_MESH_METRICS_ADDRESS", default_value = "0.0.0.0:9102")]
    metrics_address: ListenAddress,
}

impl RunArgs {
    pub(super) async fn run(self) -> Result<(), String> {
        let signals = Signals::listen().map_err(|error| format!("signals cannot be handled: {error}"))?;
        let metrics = Arc::new(Metrics::default());
        // Before all else: a start that hangs can be seen from outside.
        let server = MetricsServer::start(self.metrics_address, Arc::clone(&metrics), fastrand::u64(..));
        let aws = self.setup.aws(&metrics).await?;
        let queue_url = self.event_queue_url()?;
        let queue = queue_url.map(|url| aws.queue(url).map_err(|error| error.to_string())).transpose()?;
        let manifests = self.setup.manifests(&metrics).await?;
        if let Some(queue) = &queue {
            check_queue(queue).await;
        }
        let book = self.dry_run.then(|| Arc::new(DryRunRecorder::new(Arc::clone(&metrics))));
        let operator = self.setup.operator(&aws, metrics, &self.pace, book);
        self.log_start(&aws, queue_url);
        let options = RunOptions {
            concurrency: usize::from(self.concurrency),
            receivers: usize::from(self.receivers),
            poison: self.poison.into(),
            graceful_shutdown_timeout: self.graceful_shutdown_timeout,
        };
        let immediate = signals.immediate.clone();
        let queue = queue.map(|queue| Arc::new(queue) as Arc<dyn EventQueue>);
        let ended = tokio::select! {
            ended = operator.run(queue, manifests, options, signals.stop) => {
                ended.map(|_| ()).map_err(|error| error.to_string())
            }
            () = immediate.cancelled() => Err("stopped at once by a second signal".to_owned()),
        };
        server.stop().await;
        ended
    }

    /// A dry run that read the real one's queue would steal its events.
    fn event_queue_url(&self) -> Result<Option<&str>, String> {
        if !self.dry_run {
            return Ok(self.queue_url.as_deref());
        }
        match (self.dry_run_queue_url.as_deref(), self.queue_url.as_deref()) {
            (Some(own), Some(real)) if own == real => Err(format!(
                "--dry-run-queue-url and --queue-url are both {own}: a dry run that reads the operator's queue takes its \
                 events away; give it a queue of its own (a second target of the rules), or none"
            )),
            (own, _) => Ok(own),
        }
    }

    fn log_start(&self, aws: &AwsClients, queue_url: Option<&str>) {
        if self.dry_run && self.queue_url.is_some() {
            info!("a dry run leaves the queue of --queue-url to the real operator");
        }
        info!(
            operator = %self.setup.operator_id, version = env!("CARGO_PKG_VERSION"), region = aws.region(),
            queue = queue_url.unwrap_or("none"), dry_run = self.dry_run, "started"
        );
    }
}

/// Says what is wrong with the queue; the operator goes on by sweeps.
async fn check_queue(queue: &SdkQueue) {
    match queue.attributes().await {
        Ok(attributes) if !attributes.has_redrive => {
            warn!("the queue has no redrive policy: messages that nobody can handle are delivered for ever");
        }
        Ok(_) => {}
        Err(error) => warn!(%error, "the queue cannot be read; sweeps go on without it"),
    }
}
