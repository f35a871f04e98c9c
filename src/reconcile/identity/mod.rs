//! Keeps each control plane's identity set-up as its `ConsulAuth` declares it: at the start, after manifests or
//! clusters changed, at each sweep's interval, and soon after a failure. Beside the controllers, so that neither holds
//! up the other.

mod keeping;
mod pass;
mod report;
mod round;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Operator, Plane};
use ecs_mesh_api::ConsulAuthSpec;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_consul::{DEFAULT_CLIENT_METHOD, DEFAULT_METHOD};
use ecs_mesh_consul_acl::desired::named_clusters;
use ecs_mesh_consul_acl::plan::ActualObjects;
use ecs_mesh_controller::{Backoff, Drained};
use ecs_mesh_core::plan::proposal::ObjectKind;
use ecs_mesh_model::ClusterArn;

pub(super) use keeping::Keeping;
use pass::{Ended, Pass};
use report::Report;

/// A look with all its writes that takes longer is cut off, and begun anew later.
const LONGEST: Duration = Duration::from_mins(10);
/// What the loop does beside looking is done within this.
const PROGRESS: Duration = Duration::from_mins(2);
/// Between two looks while something fails.
const RETRY: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_mins(2) };

impl Operator {
    /// Looks after a plane's objects until `stop`; a write that is under way then has `drain` to end.
    pub(super) async fn keep_identities(
        self: Arc<Self>,
        plane: Arc<Plane>,
        drain: Duration,
        stop: CancellationToken,
    ) -> Drained {
        let pulse = self.metrics.health().pulse(format!("identities of {}", plane.name));
        let seed = self.seed.wrapping_add(5);
        let mut jitter = fastrand::Rng::with_seed(seed);
        let mut trouble = None;
        while !stop.is_cancelled() {
            pulse.beat(LONGEST + PROGRESS);
            let asked = plane.keeping.begins();
            let pass = Pass { operator: &self, plane: &plane, stop: &stop };
            let too_late = async {
                stop.cancelled().await;
                tokio::time::sleep(drain).await;
            };
            let ended = tokio::select! {
                biased;
                ended = tokio::time::timeout(LONGEST, pass.run()) => Some(ended.unwrap_or(Ended::Again(None))),
                () = too_late => None,
            };
            Report { operator: &self, plane: &plane, is_declared: true }.tell_of_cut_off();
            let Some(ended) = ended else { break };
            plane.keeping.ends(asked);
            let pause = match ended {
                Ended::Well => {
                    trouble = None;
                    self.sweep_interval().mul_f64(0.95 + 0.1 * jitter.f64())
                }
                Ended::Again(not_before) => {
                    let delays = trouble.get_or_insert_with(|| RETRY.start(seed));
                    let at_least = not_before.map(|at| at.saturating_duration_since(Instant::now()));
                    delays.after_failure().max(at_least.unwrap_or_default())
                }
            };
            pulse.beat(pause + PROGRESS);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = plane.keeping.asked_for() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        pulse.retire();
        Drained::default()
    }

    /// The clusters that a plane's bindings select: those named in full, and those that patterns have been found to
    /// stand for.
    pub(super) fn clusters_at(&self, set: &ManifestSet, plane: &Plane) -> BTreeSet<ClusterArn> {
        let mut clusters = named_clusters(set, &plane.name);
        let bindings = set.bindings.values().filter(|binding| *binding.spec.control_plane == *plane.name);
        let bindings: Vec<_> = bindings.collect();
        let known = self.clusters();
        let selected = known.by_id.values().filter(|known| bindings.iter().any(|b| b.selects_cluster(known)));
        clusters.extend(selected.cloned());
        clusters
    }
}

/// What is declared for a plane, if anything. (There is at most one: the manifests' rules see to it.)
fn declared<'a>(set: &'a ManifestSet, control_plane: &str) -> Option<&'a Arc<ConsulAuthSpec>> {
    set.consul_auths.values().find(|spec| *spec.control_plane == *control_plane)
}

/// Has the plane look after the tokens of the auth methods that are declared for tasks and for clients, beside the usual
/// ones', and of all that bear our mark, since those hand out tokens for as long as they are there.
pub(super) fn look_after_methods(set: &ManifestSet, plane: &Plane) {
    if let Some(identities) = &plane.acl {
        identities.look_after(methods_of(set, plane));
    }
}

/// What a look found of methods of ours. Tokens of those that it found first are listed soon.
fn learn_methods(operator: &Operator, plane: &Plane, actual: &ActualObjects) {
    let Some(ours) = actual.ours(ObjectKind::AuthMethod, &operator.id) else { return };
    let set = operator.manifests();
    let before = methods_of(&set, plane);
    plane.keeping.methods_are(ours);
    look_after_methods(&set, plane);
    if !methods_of(&set, plane).is_subset(&before) {
        operator.sweep_anew();
    }
}

/// Those that manifests name and the usual ones, and those of ours that looks found.
fn methods_of(set: &ManifestSet, plane: &Plane) -> BTreeSet<Arc<str>> {
    let mut methods = methods_at(set, &plane.name);
    methods.extend(plane.keeping.methods());
    methods
}

/// The auth methods whose logins' tokens are looked after, whatever is found.
pub(crate) fn methods_at(set: &ManifestSet, control_plane: &str) -> BTreeSet<Arc<str>> {
    let declared = declared(set, control_plane);
    let tasks = declared.and_then(|spec| Some(spec.service_tokens.as_ref()?.auth_method.as_str()));
    let clients = declared.and_then(|spec| Some(spec.client_tokens.as_ref()?.auth_method.as_str()));
    let usual = [DEFAULT_METHOD, DEFAULT_CLIENT_METHOD];
    usual.into_iter().chain(tasks).chain(clients).map(Arc::from).collect()
}
