//! Arguments and clients that `run`, `plan` and `doctor` share.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::warn;

use super::allow::AllowArgs;
use super::lease::ConfiguredLease;
use super::manifest_args::ManifestArgs;
use crate::operator::{
    AuditedLease, ConnectFn, Connected, DryRunRecorder, Operator, OperatorDeps, ReadRates, TokenStores,
};
use crate::telemetry::metrics::Metrics;
use ecs_mesh_api::{AllowList, ControlPlaneType, KumaRelease};
use ecs_mesh_aws::sdk::{AwsClients, AwsOptions, SdkAccounts};
use ecs_mesh_clock::Clock;
use ecs_mesh_consul::ConsulControlPlane;
use ecs_mesh_control_plane::{MeshCallObserver, WriterId};
use ecs_mesh_controller::{AlwaysHeld, Lease, Secrets};
use ecs_mesh_kuma::KumaControlPlane;
use ecs_mesh_manifests::{ManifestStatus, WatchObservers, WatchOptions, watch_observed};
use ecs_mesh_model::OperatorId;

/// Arguments of commands that read a deployment.
#[derive(clap::Args)]
pub(super) struct CommonArgs {
    /// Ownership id written on every registration; registrations of other ids are never changed
    #[arg(long, env = "ECS_MESH_OPERATOR_ID", value_parser = operator_id)]
    pub operator_id: OperatorId,

    /// The id that this operator had before: its registrations at Kuma get the new one
    #[arg(long, value_parser = operator_id)]
    pub previous_operator_id: Option<OperatorId>,

    #[command(flatten)]
    pub manifests: ManifestArgs,

    /// AWS Region [default: from the environment]
    #[arg(long)]
    pub region: Option<String>,

    #[command(flatten)]
    pub allow: AllowArgs,
}

/// Arguments that limit the rate of AWS calls.
#[derive(clap::Args)]
#[allow(clippy::struct_field_names)] // the flags' names
pub(super) struct RateArgs {
    /// Rate limit for ListTasks, DescribeTasks and DescribeContainerInstances, in calls per second (account quota: 20);
    /// the same for each of DescribeServices, task protection and DescribeInstances
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub ecs_reads_per_second: u16,
    /// Rate limit for DescribeTaskDefinition, in calls per second (account quota: 20)
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub definition_reads_per_second: u16,
    /// Rate limit for GetRole, in calls per second (AWS publishes no quota)
    #[arg(long, alias = "iam-reads-per-second", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub role_reads_per_second: u16,
}

fn operator_id(text: &str) -> Result<OperatorId, String> {
    OperatorId::parse(text).map_err(|error| error.to_string())
}

impl CommonArgs {
    /// AWS clients whose calls are counted in `metrics`.
    pub(super) async fn aws(&self, metrics: &Arc<Metrics>) -> Result<AwsClients, String> {
        let options = AwsOptions {
            region: self.region.clone(),
            observer: Arc::clone(metrics) as _,
            ..AwsOptions::default()
        };
        AwsClients::connect(options).await.map_err(|error| error.to_string())
    }

    /// Loads the manifests and watches them. Fails if every manifest is invalid, since the operator would do nothing. A
    /// source that cannot be read may be readable later.
    pub(super) async fn manifests(
        &self,
        aws: &AwsClients,
        metrics: &Arc<Metrics>,
        options: WatchOptions,
    ) -> Result<watch::Receiver<Arc<ManifestStatus>>, String> {
        let given = &self.manifests.manifests;
        for source in given.iter().filter(|source| source.is_remote()) {
            metrics.add_manifest_source(&source.to_string());
        }
        let heartbeat = metrics.health().register("manifests");
        let observers = WatchObservers { heartbeat, sources: Arc::clone(metrics) as _ };
        let manifests = watch_observed(self.manifests.sources(&Ok(aws.clone())), options, observers).await;
        let status = Arc::clone(&manifests.borrow());
        let empty = status.set.control_planes.is_empty()
            && status.set.bindings.is_empty()
            && status.set.workloads.is_empty();
        if empty && !status.errors.is_empty() && status.unread.is_empty() {
            let errors: Vec<String> = status.errors.iter().map(|error| format!("\n  {error}")).collect();
            return Err(format!("all manifests are invalid:{}", errors.concat()));
        }
        if empty {
            let sources: Vec<String> = given.iter().map(ToString::to_string).collect();
            warn!(sources = sources.join(","), "no manifests found; waiting");
        }
        Ok(manifests)
    }

    /// Creates the operator. With a recorder, it is a dry run. With a target, it plans for Kuma of that release. Without a
    /// lease, it is the only copy.
    pub(super) fn operator(
        &self,
        aws: &AwsClients,
        metrics: Arc<Metrics>,
        rates: &RateArgs,
        recorder: Option<Arc<DryRunRecorder>>,
        target: Option<KumaRelease>,
        lease: Option<&ConfiguredLease>,
    ) -> Arc<Operator> {
        let connect = connect(
            self.operator_id.clone(),
            self.allow.list(),
            Arc::clone(&metrics),
            Arc::new(aws.secrets.clone()),
            ControlPlaneOptions {
                previous_operator: self.previous_operator_id.clone(),
                target,
                writer: recorder.is_none().then(WriterId::generate),
            },
        );
        let held =
            lease.map_or_else(|| Arc::new(AlwaysHeld) as Arc<dyn Lease>, |lease| Arc::new(lease.handle()));
        let accounts = Arc::new(SdkAccounts::new(aws.clone(), self.operator_id.as_str()));
        Operator::new(OperatorDeps {
            id: self.operator_id.clone(),
            previous_id: self.previous_operator_id.clone().filter(|previous| *previous != self.operator_id),
            ecs: Arc::clone(&accounts) as _,
            ec2: Arc::clone(&accounts) as _,
            iam: Arc::clone(&accounts) as _,
            accounts,
            token_stores: TokenStores::of_aws(aws),
            connect: match lease {
                Some(lease) => lease.limit(connect),
                None => connect,
            },
            lease: Arc::new(AuditedLease::new(held, Arc::clone(metrics.log()))),
            replicas: lease.map(ConfiguredLease::replicas),
            clock: Clock::system(),
            metrics,
            rates: ReadRates {
                ecs: f64::from(rates.ecs_reads_per_second),
                definitions: f64::from(rates.definition_reads_per_second),
                iam: f64::from(rates.role_reads_per_second),
            },
            seed: fastrand::u64(..),
            recorder,
        })
    }
}

/// Options of the control planes' clients.
#[derive(Clone, Default)]
pub(super) struct ControlPlaneOptions {
    /// The id that the operator had before.
    pub(super) previous_operator: Option<OperatorId>,
    /// The release of Kuma for which they plan an upgrade.
    pub(super) target: Option<KumaRelease>,
    /// This process, where it writes.
    pub(super) writer: Option<WriterId>,
}

/// The function that creates the client of a control plane by its type. Manifests may name what is `allowed`.
pub(super) fn connect(
    operator: OperatorId,
    allowed: AllowList,
    metrics: Arc<Metrics>,
    secrets: Arc<dyn Secrets>,
    options: ControlPlaneOptions,
) -> ConnectFn {
    Arc::new(move |name, spec| {
        let observer = metrics.control_plane(name) as Arc<dyn MeshCallObserver>;
        let (operator, secrets) = (operator.clone(), Arc::clone(&secrets));
        Ok(match spec.kind {
            ControlPlaneType::Kuma => {
                let connection = spec.kuma.as_ref().ok_or("spec.kuma is missing")?;
                let client = KumaControlPlane::connect(connection, &allowed, operator, observer, secrets)?;
                let client = client.with_previous_operator(options.previous_operator.clone());
                Connected::kuma(client.with_target(options.target).with_writer(options.writer.clone()))
            }
            ControlPlaneType::Consul => {
                let connection = spec.consul.as_ref().ok_or("spec.consul is missing")?;
                let client = ConsulControlPlane::connect(connection, &allowed, operator, observer, secrets)?;
                let client = client.with_previous_operator(options.previous_operator.clone());
                Connected::consul(client.with_writer(options.writer.clone()))
            }
        })
    })
}
