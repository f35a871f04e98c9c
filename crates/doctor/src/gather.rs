//! Asks AWS and the control planes, each question with a time limit, several at once. Reads alone.

mod aws;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::facts::{DoctorFacts, AwsUnavailable, ControlPlaneFacts};
use super::scope::{DoctorScope, named_clusters};
use super::acl_policy::RequiredPermissions;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{ControlPlaneSpec, ControlPlaneType, HumanDuration};
use ecs_mesh_aws::sdk::{AwsClients, AwsOptions, ConnectError};
use ecs_mesh_consul::{DiagnosticsRequest, ConsulControlPlane, DEFAULT_METHOD, AclPermission};
use ecs_mesh_consul_acl::reconcile::watched_auth_methods;
use ecs_mesh_control_plane::NoObserver;
use ecs_mesh_controller::{NoSecrets, Secrets};
use ecs_mesh_kuma::KumaControlPlane;
use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::{ClusterArn, MeshName, OperatorId};

/// The longest wait for one answer; a control plane's own limit counts where it is shorter.
const DEADLINE: Duration = Duration::from_secs(5);
/// The SDK may ask the EC2 instance for the Region, in several steps.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// What to look at.
#[derive(Clone, Debug)]
pub struct DoctorRequest {
    /// The operator's identity.
    pub operator: OperatorId,
    /// The manifests as loaded.
    pub manifests: ManifestStatus,
    /// The queue.
    pub queue_url: Option<String>,
    /// The Region, where it is given.
    pub region: Option<String>,
}

/// Finds out everything. Ends, whatever does not answer; no failure stops another question.
pub async fn gather(question: DoctorRequest) -> DoctorFacts {
    let DoctorRequest { operator, manifests, queue_url, region } = question;
    let set = Arc::clone(&manifests.set);
    let options = AwsOptions { region: region.clone(), ..AwsOptions::default() };
    let clients = tokio::time::timeout(CONNECT_DEADLINE, AwsClients::connect(options)).await;
    let clients = clients
        .map_err(|_| {
            let why = format!("no Region was found within {CONNECT_DEADLINE:?}: set AWS_REGION or --region");
            AwsUnavailable::NoRegion(why)
        })
        .and_then(|clients| {
            clients.map_err(|error| match error {
                ConnectError::NoRoots => AwsUnavailable::NoRoots(error.to_string()),
                _ => AwsUnavailable::NoRegion(error.to_string()),
            })
        });
    let known = clients.as_ref().ok().map(|clients| clients.region().to_owned()).or(region);
    let place = DoctorScope::new(&set, queue_url.as_deref(), known.as_deref());
    let secrets: Arc<dyn Secrets> = match &clients {
        Ok(clients) => Arc::new(clients.secrets.clone()),
        Err(_) => Arc::new(NoSecrets),
    };
    let of_aws = async {
        match &clients {
            Ok(clients) => Ok(aws::ask(clients, &set, queue_url.as_deref(), place.as_ref().ok()).await),
            Err(error) => Err(error.clone()),
        }
    };
    let (aws, control_planes) = tokio::join!(of_aws, control_planes(&set, &operator, &secrets));
    DoctorFacts { manifests, queue_url, scope: place, aws, control_planes }
}

async fn control_planes(
    set: &ManifestSet,
    operator: &OperatorId,
    secrets: &Arc<dyn Secrets>,
) -> BTreeMap<Arc<str>, Result<ControlPlaneFacts, String>> {
    let mut looks = tokio::task::JoinSet::new();
    for (name, spec) in &set.control_planes {
        let wanted = ProbeScope::of(set, name);
        let (name, spec) = (Arc::clone(name), Arc::clone(spec));
        let (operator, secrets) = (operator.clone(), Arc::clone(secrets));
        looks.spawn(async move {
            let read_cache = match spec.kind {
                ControlPlaneType::Kuma => kuma(&spec, operator, &wanted).await,
                ControlPlaneType::Consul => consul(&spec, operator, secrets, &wanted).await,
            };
            (name, read_cache)
        });
    }
    // A look that panicked would be missing, and a missing one is a check that is missing: it fails loudly instead.
    looks.join_all().await.into_iter().collect()
}

/// What the manifests have of a control plane's.
struct ProbeScope {
    meshes: BTreeSet<MeshName>,
    /// Those that are named in full.
    clusters: BTreeSet<ClusterArn>,
    /// The auth methods by which tasks log in: those that are declared, or the usual one.
    methods: BTreeSet<Arc<str>>,
    /// Those whose logins' tokens are looked after.
    looked_after: BTreeSet<Arc<str>>,
    /// What the operator's own token must be allowed to write.
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
            looked_after: watched_auth_methods(set, name),
            rights: RequiredPermissions::of(set, name).rights(),
        }
    }
}

async fn kuma(spec: &ControlPlaneSpec, operator: OperatorId, wanted: &ProbeScope) -> Result<ControlPlaneFacts, String> {
    let mut connection = spec.kuma.clone().ok_or("spec.kuma is missing")?;
    connection.timeout = HumanDuration(connection.timeout.0.min(DEADLINE));
    let plane = KumaControlPlane::connect(&connection, operator, Arc::new(NoObserver))?;
    Ok(ControlPlaneFacts::Kuma(Box::new(plane.diagnose(&wanted.meshes).await)))
}

async fn consul(
    spec: &ControlPlaneSpec,
    operator: OperatorId,
    secrets: Arc<dyn Secrets>,
    wanted: &ProbeScope,
) -> Result<ControlPlaneFacts, String> {
    let mut connection = spec.consul.clone().ok_or("spec.consul is missing")?;
    connection.timeout = HumanDuration(connection.timeout.0.min(DEADLINE));
    let plane = ConsulControlPlane::connect(&connection, operator, Arc::new(NoObserver), secrets)?;
    plane.watch_auth_methods(wanted.looked_after.clone());
    let (clusters, methods) = (wanted.clusters.clone(), wanted.methods.clone());
    let asked = DiagnosticsRequest { clusters, methods, permissions: wanted.rights.clone() };
    Ok(ControlPlaneFacts::Consul(Box::new(plane.diagnose(&asked).await)))
}
