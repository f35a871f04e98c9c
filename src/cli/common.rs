//! What every subcommand that looks at a real set-up takes, and how the pieces are made from it.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::warn;

use crate::operator::{DryRunRecorder, ConnectFn, Connected, Operator, OperatorDeps, ReadRates};
use crate::telemetry::metrics::Metrics;
use ecs_mesh_api::ControlPlaneType;
use ecs_mesh_aws::sdk::{AwsClients, AwsOptions};
use ecs_mesh_clock::Clock;
use ecs_mesh_consul::ConsulControlPlane;
use ecs_mesh_control_plane::MeshCallObserver;
use ecs_mesh_controller::AlwaysHeld;
use ecs_mesh_controller::Secrets;
use ecs_mesh_kuma::KumaControlPlane;
use ecs_mesh_manifests::{ManifestSources, ManifestStatus, WatchOptions, watch_with_heartbeat};
use ecs_mesh_model::OperatorId;

/// Whose set-up, by which manifests, where.
#[derive(clap::Args)]
pub(super) struct CommonArgs {
    /// Stable identity of this operator, written on everything that it registers; another id never touches it.
    #[arg(long, env = "ECS_MESH_OPERATOR_ID", value_parser = operator_id)]
    pub operator_id: OperatorId,

    /// Manifest files or directories (*.yaml, *.yml, *.json).
    #[arg(long, env = "ECS_MESH_MANIFESTS", required = true, value_delimiter = ',', num_args = 1..)]
    pub manifests: Vec<PathBuf>,

    /// AWS Region [default: that of the environment].
    #[arg(long)]
    pub region: Option<String>,
}

/// How fast AWS may be asked.
#[derive(clap::Args)]
pub(super) struct RateArgs {
    /// ListTasks and DescribeTasks calls a second; the account's quota, shared by everybody in it, is 20.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub ecs_reads_per_second: u16,
}

fn operator_id(text: &str) -> Result<OperatorId, String> {
    OperatorId::parse(text).map_err(|error| error.to_string())
}

impl CommonArgs {
    /// Clients of AWS, whose calls are counted.
    pub(super) async fn aws(&self, metrics: &Arc<Metrics>) -> Result<AwsClients, String> {
        let options = AwsOptions {
            region: self.region.clone(),
            observer: Arc::clone(metrics) as _,
            ..AwsOptions::default()
        };
        AwsClients::connect(options).await.map_err(|error| error.to_string())
    }

    /// Loads the manifests, and watches them. With none at all the operator would sit there and do nothing, which nobody
    /// wants.
    pub(super) async fn manifests(&self, metrics: &Metrics) -> Result<watch::Receiver<Arc<ManifestStatus>>, String> {
        let pulse = metrics.health().register("manifests");
        let sources = ManifestSources::new(self.manifests.clone());
        let manifests = watch_with_heartbeat(sources, WatchOptions::default(), pulse).await;
        let status = Arc::clone(&manifests.borrow());
        let empty = status.set.control_planes.is_empty()
            && status.set.bindings.is_empty()
            && status.set.workloads.is_empty();
        if empty && !status.errors.is_empty() {
            let errors: Vec<String> = status.errors.iter().map(|error| format!("\n  {error}")).collect();
            return Err(format!("no manifest can be used:{}", errors.concat()));
        }
        if empty {
            warn!(paths = ?self.manifests, "there are no manifests yet: nothing is done until there are");
        }
        Ok(manifests)
    }

    /// An operator that has done nothing yet; a dry one where there is a book.
    pub(super) fn operator(
        &self,
        aws: &AwsClients,
        metrics: Arc<Metrics>,
        pace: &RateArgs,
        recorder: Option<Arc<DryRunRecorder>>,
    ) -> Arc<Operator> {
        Operator::new(OperatorDeps {
            id: self.operator_id.clone(),
            ecs: Arc::new(aws.ecs.clone()),
            iam: Arc::new(aws.iam.clone()),
            connect: connect(self.operator_id.clone(), Arc::clone(&metrics), Arc::new(aws.secrets.clone())),
            lease: Arc::new(AlwaysHeld),
            clock: Clock::system(),
            metrics,
            rates: ReadRates { ecs: f64::from(pace.ecs_reads_per_second), ..ReadRates::default() },
            seed: fastrand::u64(..),
            recorder,
        })
    }
}

/// Makes clients of control planes, by their type.
pub(super) fn connect(operator: OperatorId, metrics: Arc<Metrics>, secrets: Arc<dyn Secrets>) -> ConnectFn {
    Arc::new(move |name, spec| {
        let observer = metrics.plane(name) as Arc<dyn MeshCallObserver>;
        Ok(match spec.kind {
            ControlPlaneType::Kuma => {
                let connection = spec.kuma.as_ref().ok_or("spec.kuma is missing")?;
                Connected::new(Arc::new(KumaControlPlane::connect(connection, operator.clone(), observer)?))
            }
            ControlPlaneType::Consul => {
                let connection = spec.consul.as_ref().ok_or("spec.consul is missing")?;
                let secrets = Arc::clone(&secrets);
                Connected::consul(ConsulControlPlane::connect(
                    connection,
                    operator.clone(),
                    observer,
                    secrets,
                )?)
            }
        })
    })
}
