//! Asks AWS and the control planes, each question with a time limit, several at once. Reads alone.

mod aws;
mod hosts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::acl_policy::RequiredPermissions;
use super::facts::{
    AwsFacts, AwsUnavailable, ControlPlaneFacts, DoctorFacts, KumaPlaneFacts, LeaseFacts, TeamEventFacts,
};
use super::scope::{DoctorScope, named_clusters};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{AllowList, ControlPlaneSpec, ControlPlaneType, HumanDuration};
use ecs_mesh_audit::check_workloads;
use ecs_mesh_aws::sdk::{AwsClients, AwsOptions, ConnectError};
use ecs_mesh_consul::{AclPermission, ConsulControlPlane, DEFAULT_METHOD, DiagnosticsRequest};
use ecs_mesh_consul_acl::reconcile::watched_auth_methods;
use ecs_mesh_control_plane::NoObserver;
use ecs_mesh_control_plane::http::SettingsError;
use ecs_mesh_controller::{BlockingLane, NoSecrets, Secrets};
use ecs_mesh_kuma::KumaControlPlane;
use ecs_mesh_lease::{
    LeaseClients, LeaseLocation, LeaseStore as _, LeaseStoreError, LeaseStoreErrorKind, LeaseTiming,
};
use ecs_mesh_manifests::{ManifestSource, ManifestStatus};
use ecs_mesh_model::{ClusterArn, EventBusRef, MeshName, OperatorId};

/// The longest wait for one answer; a control plane's own limit counts where it is shorter.
const DEADLINE: Duration = Duration::from_secs(5);
/// The SDK may ask the EC2 instance for the Region, in several steps.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// The scope of the checks.
#[derive(Clone, Debug)]
pub struct DoctorRequest {
    /// The operator's identity.
    pub operator: OperatorId,
    /// The manifests as loaded.
    pub manifests: ManifestStatus,
    /// The manifests' remote sources.
    pub sources: Vec<ManifestSource>,
    /// The queues.
    pub queue_urls: Vec<String>,
    /// The Region, where it is given.
    pub region: Option<String>,
    /// The files and environment variables that the manifests may name.
    pub allowed: AllowList,
    /// Where the lease is kept.
    pub lease: LeaseLocation,
    /// The bus of events to teams.
    pub team_events_bus: Option<EventBusRef>,
}

/// Gathers all facts. Always ends; one failure does not prevent other reads.
pub async fn gather(request: DoctorRequest) -> DoctorFacts {
    let DoctorRequest { operator, manifests, sources, queue_urls, region, allowed, lease, team_events_bus } =
        request;
    let (queue_url, more) = match queue_urls.split_first() {
        Some((first, more)) => (Some(first.clone()), more.to_vec()),
        None => (None, Vec::new()),
    };
    let set = Arc::clone(&manifests.set);
    let options = AwsOptions { region: region.clone(), ..AwsOptions::default() };
    let clients = tokio::time::timeout(CONNECT_DEADLINE, AwsClients::connect(options)).await;
    let clients = clients
        .map_err(|_| {
            let error = format!("no Region found within {CONNECT_DEADLINE:?}: set AWS_REGION or --region");
            AwsUnavailable::NoRegion(error)
        })
        .and_then(|clients| {
            clients.map_err(|error| match error {
                ConnectError::NoRoots => AwsUnavailable::NoRoots(error.to_string()),
                _ => AwsUnavailable::NoRegion(error.to_string()),
            })
        });
    let known = clients.as_ref().ok().map(|clients| clients.region().to_owned()).or(region);
    let scope = DoctorScope::new(&set, queue_url.as_deref(), known.as_deref());
    let scope = if more.is_empty() { scope } else { scope.map(DoctorScope::of_one_queue) };
    let secrets: Arc<dyn Secrets> = match &clients {
        Ok(clients) => Arc::new(clients.secrets.clone()),
        Err(_) => Arc::new(NoSecrets),
    };
    let of_aws = async {
        match &clients {
            Ok(clients) => {
                Ok(aws::ask(clients, &manifests, queue_url.as_deref(), scope.as_ref().ok(), &operator).await)
            }
            Err(error) => Err(error.clone()),
        }
    };
    let of_lease = async {
        let clients = LeaseClients { aws: clients.as_ref().ok()?, manifests: &set, allowed: &allowed };
        read_lease(&lease, &operator, &clients).await
    };
    let of_team_events = async {
        let (clients, bus) = (clients.as_ref().ok()?, team_events_bus.as_ref()?);
        let described = clients.event_bus(bus).describe().await;
        Some(TeamEventFacts { bus: bus.to_string(), described })
    };
    let of_control_planes = control_planes(&set, &allowed, &operator, &secrets);
    let (aws, control_planes, lease, team_events) =
        tokio::join!(of_aws, of_control_planes, of_lease, of_team_events);
    let mut facts = DoctorFacts {
        manifests,
        sources,
        queue_url,
        scope,
        aws,
        control_planes,
        lease,
        team_events,
        more_queues: Vec::new(),
    };
    for url in more {
        let scope = DoctorScope::new(&set, Some(&url), known.as_deref()).map(DoctorScope::of_one_queue);
        let aws = match (&clients, &facts.aws, &scope) {
            (Ok(clients), Ok(aws), Ok(scope)) if aws.observations.is_some() => {
                let observations = Some(aws::queue_and_rules(clients, &url, scope).await);
                Ok(AwsFacts { observations, ..aws.clone() })
            }
            _ => facts.aws.clone(),
        };
        let queue = DoctorFacts { queue_url: Some(url), scope, aws, ..facts.clone() };
        facts.more_queues.push(queue);
    }
    facts
}

async fn read_lease(
    location: &LeaseLocation,
    operator: &OperatorId,
    clients: &LeaseClients<'_>,
) -> Option<LeaseFacts> {
    let record = match location.store(operator, clients, LeaseTiming::default()) {
        Ok(None) => return None,
        Ok(Some(store)) => tokio::time::timeout(DEADLINE, store.read()).await.unwrap_or_else(|_| {
            let message = format!("reading the lease: no answer within {DEADLINE:?}");
            Err(LeaseStoreError::new(LeaseStoreErrorKind::Unreachable, message))
        }),
        Err(message) => Err(LeaseStoreError::new(LeaseStoreErrorKind::Invalid, message)),
    };
    Some(LeaseFacts { location: location.to_string(), record })
}

async fn control_planes(
    set: &Arc<ManifestSet>,
    allowed: &AllowList,
    operator: &OperatorId,
    secrets: &Arc<dyn Secrets>,
) -> BTreeMap<Arc<str>, Result<ControlPlaneFacts, String>> {
    let mut probes = tokio::task::JoinSet::new();
    for (name, spec) in &set.control_planes {
        let wanted = ProbeScope::of(set, name);
        let (name, spec) = (Arc::clone(name), Arc::clone(spec));
        let (allowed, operator, secrets) = (allowed.clone(), operator.clone(), Arc::clone(secrets));
        let set = Arc::clone(set);
        probes.spawn(async move {
            let facts = match spec.kind {
                ControlPlaneType::Kuma => {
                    kuma((&set, &name, &spec), allowed, operator, secrets, &wanted).await
                }
                ControlPlaneType::Consul => consul(&spec, allowed, operator, secrets, &wanted).await,
            };
            (name, facts)
        });
    }
    // `join_all` panics if a probe panicked, instead of omitting its checks.
    probes.join_all().await.into_iter().collect()
}

/// The objects of a control plane that the manifests name.
struct ProbeScope {
    meshes: BTreeSet<MeshName>,
    /// Literal clusters.
    clusters: BTreeSet<ClusterArn>,
    /// The tasks' auth methods: declared ones, or the default.
    methods: BTreeSet<Arc<str>>,
    /// Auth methods whose tokens the operator removes.
    watched: BTreeSet<Arc<str>>,
    /// Required write permissions of the operator's token.
    rights: BTreeSet<AclPermission>,
}

impl ProbeScope {
    fn of(set: &ManifestSet, name: &str) -> Self {
        let bound = || set.bindings.values().filter(|binding| binding.spec.control_plane == name);
        let auths = set.consul_auths.values().filter(|auth| auth.control_plane == name);
        let declared =
            auths.filter_map(|auth| Some(auth.service_tokens.as_ref()?.auth_method.as_str().into()));
        let mut methods: BTreeSet<Arc<str>> = declared.collect();
        if methods.is_empty() {
            methods.insert(DEFAULT_METHOD.into());
        }
        Self {
            meshes: bound().map(|binding| binding.spec.mesh.clone()).collect(),
            clusters: bound().flat_map(|binding| named_clusters(&binding.spec.selector.clusters)).collect(),
            methods,
            watched: watched_auth_methods(set, name),
            rights: RequiredPermissions::of(set, name).rights(),
        }
    }
}

/// Connects where file systems may hang: connecting reads the CA's file and calls no server.
async fn off_the_runtime<T: Send + 'static>(
    connect: impl FnOnce() -> Result<T, SettingsError> + Send + 'static,
) -> Result<T, String> {
    let connected = BlockingLane::default().run(DEADLINE, connect).await;
    connected
        .ok_or_else(|| format!("reading the files of its manifest: no end within {DEADLINE:?}"))?
        .map_err(|error| error.to_string())
}

async fn kuma(
    (set, name, spec): (&ManifestSet, &str, &ControlPlaneSpec),
    allowed: AllowList,
    operator: OperatorId,
    secrets: Arc<dyn Secrets>,
    wanted: &ProbeScope,
) -> Result<ControlPlaneFacts, String> {
    let mut connection = spec.kuma.clone().ok_or("spec.kuma is missing")?;
    connection.timeout = HumanDuration(connection.timeout.0.min(DEADLINE));
    let connect =
        move || KumaControlPlane::connect(&connection, &allowed, operator, Arc::new(NoObserver), secrets);
    let plane = off_the_runtime(connect).await?;
    let diagnostics = plane.diagnose(&wanted.meshes).await;
    let workloads = match (&diagnostics.probes, &diagnostics.rules) {
        (Some(_), Some(Ok(_))) => Some(check_workloads(&plane, set, name).await),
        _ => None,
    };
    Ok(ControlPlaneFacts::Kuma(Box::new(KumaPlaneFacts { diagnostics, workloads })))
}

async fn consul(
    spec: &ControlPlaneSpec,
    allowed: AllowList,
    operator: OperatorId,
    secrets: Arc<dyn Secrets>,
    wanted: &ProbeScope,
) -> Result<ControlPlaneFacts, String> {
    let mut connection = spec.consul.clone().ok_or("spec.consul is missing")?;
    connection.timeout = HumanDuration(connection.timeout.0.min(DEADLINE));
    let connect =
        move || ConsulControlPlane::connect(&connection, &allowed, operator, Arc::new(NoObserver), secrets);
    let plane = off_the_runtime(connect).await?;
    plane.watch_auth_methods(wanted.watched.clone());
    let (clusters, methods) = (wanted.clusters.clone(), wanted.methods.clone());
    let asked = DiagnosticsRequest { clusters, methods, permissions: wanted.rights.clone() };
    Ok(ControlPlaneFacts::Consul(Box::new(plane.diagnose(&asked).await)))
}
