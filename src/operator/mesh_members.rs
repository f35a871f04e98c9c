//! Lists the members of each mesh, with their readiness, while readers ask for the operator's view.
//!
//! Guarantees that readers cost a control plane little: one list at a time for all readers, at most every [`MIN_PAUSE`], and at
//! most a fortieth of the time. Without a reader, and by a standby, nothing is listed. A control plane that does not answer
//! delays no other. The found members are shown, and decide nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::context::Context;
use super::control_plane_worker::ControlPlaneWorker;
use ecs_mesh_control_plane::{MeshMember, RegistrationOwner};
use ecs_mesh_model::{ClusterArn, ClusterId, MeshName, TaskArn};

/// The shortest pause between two lists of a control plane.
pub(super) const MIN_PAUSE: Duration = Duration::from_secs(5);

/// The pause is this many times as long as the lists took.
const PAUSE_PER_COST: u32 = 40;

/// The limit of the lists of one control plane. A list that was read before counts.
const LIST_TIMEOUT: Duration = Duration::from_mins(1);

/// Whether there are readers.
#[derive(Debug, Default)]
pub(super) struct ReaderDemand(Notify);

impl ReaderDemand {
    /// A reader asks now.
    pub(super) fn record(&self) {
        self.0.notify_one();
    }
}

/// Registrations of a service that are not this operator's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OtherMembers {
    pub(super) total: usize,
    pub(super) ready: usize,
}

/// The services of each mesh that others have registered.
type MembersByMesh = BTreeMap<MeshName, Arc<BTreeMap<Arc<str>, OtherMembers>>>;

/// The registrations of others in each mesh of a control plane, by service, as last listed.
#[derive(Debug, Default)]
pub(super) struct OthersByMesh(Mutex<MembersByMesh>);

impl OthersByMesh {
    fn lock(&self) -> MutexGuard<'_, MembersByMesh> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of all.
    pub(super) fn all(&self) -> MembersByMesh {
        self.lock().clone()
    }

    /// Forgets meshes that no binding names any more.
    pub(super) fn retain(&self, bound: &BTreeSet<MeshName>) {
        self.lock().retain(|mesh, _| bound.contains(mesh));
    }
}

/// Lists until `stop`, as far as there are readers.
pub(super) async fn run(context: Arc<Context>, stop: CancellationToken) {
    let mut due: BTreeMap<Arc<str>, Instant> = BTreeMap::new();
    let mut lists = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(ended) = lists.join_next() => {
                // One that panicked is listed again after the limit.
                if let Ok((name, took)) = ended {
                    let pause = Duration::saturating_mul(took, PAUSE_PER_COST).max(MIN_PAUSE);
                    due.insert(name, Instant::now() + pause);
                }
            }
            () = context.readers.0.notified() => {
                if context.process.lease.holds() {
                    begin_due(&context, &mut due, &mut lists);
                }
            }
        }
    }
}

/// Begins the lists of the control planes that are due.
fn begin_due(
    context: &Arc<Context>,
    due: &mut BTreeMap<Arc<str>, Instant>,
    lists: &mut JoinSet<(Arc<str>, Duration)>,
) {
    let workers = context.workers.load();
    due.retain(|name, _| workers.contains_key(name));
    let now = Instant::now();
    for worker in workers.values().filter(|worker| worker.is_synced()) {
        if due.get(&worker.name).is_some_and(|at| now < *at) {
            continue;
        }
        due.insert(Arc::clone(&worker.name), now + LIST_TIMEOUT * 2);
        let (context, worker) = (Arc::clone(context), Arc::clone(worker));
        lists.spawn(async move {
            let began = Instant::now();
            if timeout(LIST_TIMEOUT, list(&context, &worker)).await.is_err() {
                debug!(control_plane = %worker.name, "listing members for readers took too long");
            }
            (Arc::clone(&worker.name), began.elapsed())
        });
    }
}

/// Lists the meshes of one control plane, one after the other.
async fn list(context: &Context, worker: &ControlPlaneWorker) {
    let manifests = context.manifests.load();
    let here = manifests.bindings.values().filter(|binding| *binding.spec.control_plane == *worker.name);
    let meshes: BTreeSet<MeshName> = here.map(|binding| binding.spec.mesh.clone()).collect();
    worker.others.retain(&meshes);
    let clusters = context.clusters.by_id();
    for mesh in meshes {
        let at = context.now();
        let (mut others, mut seen) = (BTreeMap::<Arc<str>, OtherMembers>::new(), BTreeSet::new());
        let mut take = |member: MeshMember| {
            if let Some(task) = owner_task(&member.owner, &clusters) {
                worker.registry.record_readiness(&task, &member.id, member.ready, at);
            }
            // A member may be read twice.
            if is_ours(context, worker, &member.owner, &clusters) || !seen.insert(member.id.clone()) {
                return;
            }
            for service in member.services {
                let counts = others.entry(service).or_default();
                counts.total += 1;
                counts.ready += usize::from(member.ready);
            }
        };
        if let Err(error) = worker.call(worker.client.list_members(&mesh, &mut take)).await {
            debug!(control_plane = %worker.name, %mesh, ?error, "cannot list members for readers");
            continue;
        }
        worker.others.lock().insert(mesh, Arc::new(others));
    }
}

/// The task of a registration of this operator.
pub(super) fn owner_task(
    owner: &RegistrationOwner,
    clusters: &BTreeMap<ClusterId, ClusterArn>,
) -> Option<TaskArn> {
    let RegistrationOwner::Owned(labels) = owner else { return None };
    Some(clusters.get(&labels.cluster)?.task(labels.task.clone()))
}

/// Whether a registration is this operator's. Where tasks register themselves, those of other clusters are not.
fn is_ours(
    context: &Context,
    worker: &ControlPlaneWorker,
    owner: &RegistrationOwner,
    clusters: &BTreeMap<ClusterId, ClusterArn>,
) -> bool {
    let RegistrationOwner::Owned(labels) = owner else { return false };
    let is_known = || clusters.contains_key(&labels.cluster);
    labels.operator == context.process.id && (!worker.kind.tasks_register_themselves() || is_known())
}
