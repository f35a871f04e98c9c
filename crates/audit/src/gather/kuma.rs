//! Reads Kuma control planes: the services of the bound meshes, what the version cannot express, and what blocks an upgrade.
//! A failed answer affects that fact alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::facts::{
    AuditedKumaPlane, CheckedWorkloads, Fetched, InexpressibleWorkload, IngressListener, KumaFacts,
    KumaUpgrade,
};
use ecs_mesh_api::manifests::{Binding, ManifestSet};
use ecs_mesh_api::{
    AllowList, HumanDuration, KumaConnection, KumaRelease, ProxyRole, WorkloadSpec, ZoneProxyForm,
    ZoneProxyKind,
};
use ecs_mesh_control_plane::{ControlPlane as _, NoObserver};
use ecs_mesh_controller::{BlockingLane, Secrets};
use ecs_mesh_core::intent::{DesiredRegistration, workloads_in};
use ecs_mesh_kuma::{HttpTransport, KumaControlPlane, Transport};
use ecs_mesh_model::{MeshName, OperatorId, TaskArn};

/// Longest wait for one answer.
const MAX_TIMEOUT: Duration = Duration::from_secs(5);
/// Stands for the operator and a task where a registration is rendered and never written.
const NOBODY: &str = "audit";
const NO_TASK: &str = "arn:aws:ecs:us-east-1:000000000000:task/audit/00000000000000000000000000000000";

/// The inputs of the calls to the control planes.
pub(super) struct KumaAuditScope<'a> {
    pub(super) set: &'a Arc<ManifestSet>,
    pub(super) allowed: &'a AllowList,
    pub(super) secrets: &'a Arc<dyn Secrets>,
    pub(super) target: Option<KumaRelease>,
}

/// Asks all control planes at once.
pub(super) async fn ask_all(request: &KumaAuditScope<'_>, planes: &mut BTreeMap<Arc<str>, AuditedKumaPlane>) {
    let mut reads = tokio::task::JoinSet::new();
    for name in planes.keys() {
        let Some(spec) = request.set.control_planes.get(name) else { continue };
        let (name, spec, set) = (Arc::clone(name), Arc::clone(spec), Arc::clone(request.set));
        let (allowed, secrets, target) =
            (request.allowed.clone(), Arc::clone(request.secrets), request.target);
        reads.spawn(async move {
            let response = match &spec.kuma {
                None => Err("spec.kuma is missing".to_owned()),
                Some(connection) => match connect(connection, allowed, secrets).await {
                    Ok(plane) => ask(plane, &set, &name, target).await,
                    Err(reason) => Err(reason),
                },
            };
            (name, response)
        });
    }
    for (name, response) in reads.join_all().await {
        if let Some(plane) = planes.get_mut(&name) {
            plane.response = Some(response);
        }
    }
}

async fn connect(
    spec: &KumaConnection,
    allowed: AllowList,
    secrets: Arc<dyn Secrets>,
) -> Fetched<KumaControlPlane<HttpTransport>> {
    let timeout = HumanDuration(spec.timeout.0.min(MAX_TIMEOUT));
    let spec = KumaConnection { timeout, ..spec.clone() };
    // Ownership decides nothing here: what blocks an upgrade is read of every owner, this operator's templates included.
    let operator = OperatorId::parse(NOBODY).map_err(|error| error.to_string())?;
    // Reads the CA's file, and file systems can hang.
    let connect = move || KumaControlPlane::connect(&spec, &allowed, operator, Arc::new(NoObserver), secrets);
    BlockingLane::default()
        .run(MAX_TIMEOUT, connect)
        .await
        .ok_or_else(|| format!("reading spec.kuma.caFile: no end within {MAX_TIMEOUT:?}"))?
        .map_err(|error| error.to_string())
}

/// An error is the reason why Kuma does not answer at all, or is of an unsupported version.
async fn ask(
    plane: KumaControlPlane<HttpTransport>,
    set: &ManifestSet,
    name: &str,
    target: Option<KumaRelease>,
) -> Fetched<KumaFacts> {
    let bindings: Vec<&Binding> =
        set.bindings.values().map(|one| &**one).filter(|one| one.spec.control_plane == name).collect();
    let meshes: BTreeSet<MeshName> = bindings.iter().map(|binding| binding.spec.mesh.clone()).collect();
    let refreshed = plane.refresh_capabilities(&BTreeSet::new()).await;
    let Some(version) = plane.version() else {
        let reason = refreshed.err().map(|error| error.message);
        return Err(reason.unwrap_or_else(|| "the version was not read".to_owned()));
    };
    if let Some(refusal) = plane.support().refusal() {
        return Err(refusal.to_string());
    }
    let mut services = BTreeMap::new();
    for mesh in meshes {
        // Without the mesh's own settings, what it can express is not known either.
        let known = match plane.refresh_capabilities(&[mesh.clone()].into()).await {
            Ok(()) => plane.list_callable(&mesh).await,
            Err(error) => Err(error),
        };
        services.insert(mesh, known.map_err(|error| error.message));
    }
    let is_read = |binding: &&Binding| services.get(&binding.spec.mesh).is_some_and(Result::is_ok);
    let bindings: Vec<&Binding> = bindings.into_iter().filter(is_read).collect();
    let now = not_expressible(&plane, set, &bindings)?;
    let ingresses = ingresses(&plane, set, &bindings).await;
    let is_newer = |target: &KumaRelease| version.release.is_none_or(|release| release < *target);
    let upgrade = match target.filter(is_newer) {
        None => None,
        Some(target) => {
            let plane = plane.with_target(Some(target));
            let check = plane.check_upgrade(None).await.map_err(|error| error.message);
            let mut then = not_expressible(&plane, set, &bindings)?;
            then.retain(|one| !now.iter().any(|known| known.workload == one.workload));
            let upgrade = |check: Option<_>| Some(KumaUpgrade { check: check?, not_expressible: then });
            check.map(upgrade).transpose()
        }
    };
    Ok(KumaFacts { services, not_expressible: now, ingresses, upgrade })
}

/// The zone ingresses with a listener, and whether their meshes have an address of this zone.
async fn ingresses<T: Transport>(
    plane: &KumaControlPlane<T>,
    set: &ManifestSet,
    bindings: &[&Binding],
) -> Vec<IngressListener> {
    let form = plane.zone_proxy_form().unwrap_or_default();
    let mut by_mesh: BTreeMap<&MeshName, BTreeSet<&Arc<str>>> = BTreeMap::new();
    for binding in bindings {
        let ingresses =
            workloads_in(set, binding).filter(|(_, workload)| is_ingress_listener(workload, form));
        by_mesh.entry(&binding.spec.mesh).or_default().extend(ingresses.map(|(name, _)| name));
    }
    let mut found = Vec::new();
    for (mesh, workloads) in by_mesh.into_iter().filter(|(_, workloads)| !workloads.is_empty()) {
        let has_address = plane.has_zone_address(mesh).await.map_err(|error| error.message);
        found.extend(workloads.into_iter().map(|workload| IngressListener {
            workload: Arc::clone(workload),
            mesh: mesh.clone(),
            has_address: has_address.clone(),
        }));
    }
    found
}

fn is_ingress_listener(workload: &WorkloadSpec, form: ZoneProxyForm) -> bool {
    matches!(workload.proxy_role(), ProxyRole::Zone(proxy)
        if proxy.kind() == ZoneProxyKind::Ingress && form.of(&proxy) == ZoneProxyForm::Listener)
}

/// Checks the workloads of a control plane against what the server's version can express, as a plan does. Reads the settings
/// of the bound meshes.
pub async fn check_workloads<T: Transport>(
    plane: &KumaControlPlane<T>,
    set: &ManifestSet,
    control_plane: &str,
) -> Fetched<CheckedWorkloads> {
    let (mut bindings, mut unread) = (Vec::new(), BTreeSet::new());
    for binding in set.bindings.values().filter(|one| one.spec.control_plane == control_plane) {
        match plane.refresh_capabilities(&[binding.spec.mesh.clone()].into()).await {
            Ok(()) => bindings.push(&**binding),
            Err(_) => _ = unread.insert(binding.spec.mesh.clone()),
        }
    }
    let names: BTreeSet<&Arc<str>> =
        bindings.iter().flat_map(|binding| workloads_in(set, binding)).map(|(name, _)| name).collect();
    Ok(CheckedWorkloads {
        count: names.len(),
        inexpressible: not_expressible(plane, set, &bindings)?,
        unread,
    })
}

/// The workloads that the client's version, or the one that it plans for, has no form for.
fn not_expressible<T: Transport>(
    plane: &KumaControlPlane<T>,
    set: &ManifestSet,
    bindings: &[&Binding],
) -> Fetched<Vec<InexpressibleWorkload>> {
    let operator = OperatorId::parse(NOBODY).map_err(|error| error.to_string())?;
    let task = TaskArn::parse(NO_TASK).map_err(|error| error.to_string())?;
    let form = plane.zone_proxy_form().unwrap_or_default();
    let mut found = BTreeSet::new();
    for binding in bindings {
        for (name, workload) in workloads_in(set, binding) {
            let desired =
                DesiredRegistration::of_workload(set, binding, (name, workload), (&operator, &task), form);
            if let Err(error) = plane.check_desired(&desired) {
                let (message, fix) = error.split_help();
                found.insert(InexpressibleWorkload {
                    workload: Arc::clone(name),
                    message: message.to_owned(),
                    fix: fix.unwrap_or("change the Workload").to_owned(),
                });
            }
        }
    }
    Ok(found.into_iter().collect())
}
