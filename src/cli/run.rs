//! `ecs-mesh-operator run`.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::duration;
use super::setup::Setup;
use crate::manifests::{Sources, WatchOptions, watch};
use crate::mesh::ControlPlane;
use crate::mesh::kuma::KumaControlPlane;
use crate::model::OperatorId;
use crate::observe::aws::Queue;
use crate::observe::intake::PoisonPolicy;
use crate::observe::sdk::{AwsClients, AwsOptions, SdkQueue};
use crate::reconcile::{Connect, Operator, Parts, ReadRates, RunOptions};
use crate::runtime::{AlwaysHeld, Clock, Signals};
use crate::telemetry::metrics::Metrics;

/// What `run` takes.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    setup: Setup,

    /// Receivers of the queue that work side by side.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    receivers: u16,

    /// Tasks worked on at once, for each control plane.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512))]
    concurrency: u16,

    /// What becomes of messages that cannot be read: deleted, or left to the queue's redrive policy.
    #[arg(long, value_enum, default_value = "delete")]
    poison: PoisonPolicy,

    /// How long a stop waits for what is in flight; keep it below the ECS task's stopTimeout (default there: 30s).
    #[arg(long, default_value = "20s", value_parser = duration)]
    drain_deadline: Duration,

    /// ListTasks and DescribeTasks calls a second; the account's quota, shared by everybody in it, is 20.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    ecs_reads_per_second: u16,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), String> {
        let signals = Signals::listen().map_err(|error| format!("signals cannot be handled: {error}"))?;
        let metrics = Arc::new(Metrics::default());
        let options = AwsOptions {
            region: self.setup.region.clone(),
            observer: Arc::clone(&metrics) as _,
            ..AwsOptions::default()
        };
        let aws = AwsClients::connect(options).await.map_err(|error| error.to_string())?;
        let queue = self.queue(&aws)?;
        let manifests = watch(Sources::new(self.setup.manifests.clone()), WatchOptions::default()).await;
        self.refuse_nothing_at_all(&manifests.borrow())?;
        if let Some(queue) = &queue {
            check(queue).await;
        }
        let operator = Operator::new(Parts {
            id: self.setup.operator_id.clone(),
            ecs: Arc::new(aws.ecs.clone()),
            iam: Arc::new(aws.iam.clone()),
            connect: connect_kuma(self.setup.operator_id.clone(), Arc::clone(&metrics)),
            lease: Arc::new(AlwaysHeld),
            clock: Clock::system(),
            metrics,
            rates: ReadRates { ecs: f64::from(self.ecs_reads_per_second), ..ReadRates::default() },
            seed: fastrand::u64(..),
        });
        info!(
            operator = %self.setup.operator_id, version = env!("CARGO_PKG_VERSION"), region = aws.region(),
            queue = self.setup.queue_url.as_deref().unwrap_or("none"), "started"
        );
        let options = RunOptions {
            concurrency: usize::from(self.concurrency),
            receivers: usize::from(self.receivers),
            poison: self.poison,
            drain: self.drain_deadline,
        };
        let at_once = signals.at_once.clone();
        let queue = queue.map(|queue| Arc::new(queue) as Arc<dyn Queue>);
        tokio::select! {
            ended = operator.run(queue, manifests, options, signals.stop) => {
                ended.map(|_| ()).map_err(|error| error.to_string())
            }
            () = at_once.cancelled() => Err("stopped at once by a second signal".to_owned()),
        }
    }

    fn queue(&self, aws: &AwsClients) -> Result<Option<SdkQueue>, String> {
        self.setup
            .queue_url
            .as_deref()
            .map(|url| aws.queue(url).map_err(|error| error.to_string()))
            .transpose()
    }

    /// With no manifest at all the operator would sit there and do nothing, which nobody wants.
    fn refuse_nothing_at_all(&self, status: &crate::manifests::Status) -> Result<(), String> {
        let empty = status.set.control_planes.is_empty()
            && status.set.bindings.is_empty()
            && status.set.workloads.is_empty();
        if empty && !status.errors.is_empty() {
            let errors: Vec<String> = status.errors.iter().map(|error| format!("\n  {error}")).collect();
            return Err(format!("no manifest can be used:{}", errors.concat()));
        }
        if empty {
            warn!(paths = ?self.setup.manifests, "there are no manifests yet: nothing is done until there are");
        }
        Ok(())
    }
}

/// Says what is wrong with the queue; the operator goes on by sweeps.
async fn check(queue: &SdkQueue) {
    match queue.attributes().await {
        Ok(attributes) if !attributes.has_redrive => {
            warn!("the queue has no redrive policy: messages that nobody can handle are delivered for ever");
        }
        Ok(_) => {}
        Err(error) => warn!(%error, "the queue cannot be read; sweeps go on without it"),
    }
}

/// Makes clients of Kuma control planes.
pub(super) fn connect_kuma(operator: OperatorId, metrics: Arc<Metrics>) -> Connect {
    Arc::new(move |_name, spec| {
        let connection = spec.kuma.as_ref().ok_or("spec.kuma is missing")?;
        let observer = Arc::clone(&metrics) as Arc<dyn crate::mesh::kuma::MeshCallObserver>;
        let plane = KumaControlPlane::connect(connection, operator.clone(), observer)?;
        Ok(Arc::new(plane) as Arc<dyn ControlPlane>)
    })
}
