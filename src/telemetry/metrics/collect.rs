//! Gauges that are read from the state at each scrape. A gauge that is set by hand is wrong after the first forgotten
//! update.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use super::{ScrapeSource, labels};
use crate::telemetry::state::{ControllerState, ManifestState, OperatorState};
use ecs_mesh_aws::consumer::QueueState;
use ecs_mesh_consul_acl::reconcile::OBJECT_STATES;
use ecs_mesh_controller::CircuitState;
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_core::tokens::TOKEN_STATES;

/// Reads the state of the operator, its loops and its event queue.
#[derive(Debug)]
pub(super) struct StateCollector(pub(super) Arc<ScrapeSource>);

/// Label names with their values.
type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

/// Writes families of metrics.
pub(super) struct MetricWriter<'a>(pub(super) DescriptorEncoder<'a>);

impl Collector for StateCollector {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
        let ScrapeSource { health, .. } = &*self.0;
        let state = self.0.state();
        let mut to = MetricWriter(encoder);
        to.build_info()?;
        let stuck = health.stuck().len() + state.as_ref().map_or(0, |state| state.stuck().len());
        to.gauge("ecs_mesh_stuck_loops", "Loops without progress", count(stuck))?;
        let ready = !health.is_stopping() && state.as_ref().is_some_and(OperatorState::is_ready);
        to.gauge("ecs_mesh_ready", "1 while /readyz answers 200", i64::from(ready))?;
        to.event_queues(&self.0.queue_states())?;
        let Some(state) = state else { return Ok(()) };
        to.operator(&state)?;
        to.manifests(&state.manifests)?;
        to.clusters(&state)?;
        to.work_queues(&state)?;
        to.registrations(&state)?;
        to.checked_dataplanes(&state)?;
        to.unknown_outbounds(&state)?;
        to.token_expiries(&state)?;
        to.guards(&state)?;
        to.acl_objects(&state)?;
        to.dataplane_tokens(&state)?;
        to.circuits(&state)
    }
}

/// A number as a gauge's value. No number comes near the limit.
fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn counted<L>((labels, n): (L, usize)) -> (L, i64) {
    (labels, count(n))
}

impl MetricWriter<'_> {
    /// A gauge without labels.
    pub(super) fn gauge<V: EncodeGaugeValue + Copy>(
        &mut self,
        name: &str,
        help: &str,
        value: V,
    ) -> Result<(), Error> {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// A gauge with labels.
    fn gauges<'a, V: EncodeGaugeValue, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        all: impl IntoIterator<Item = (Labels<'a, N>, V)>,
    ) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in all {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A counter without labels.
    pub(super) fn counter<V: EncodeCounterValue + Copy>(
        &mut self,
        name: &str,
        help: &str,
        value: V,
    ) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter(&value, None::<&Exemplar<NoLabelSet, f64>>)
    }

    /// A counter with labels.
    pub(super) fn counters<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        all: impl IntoIterator<Item = (Labels<'a, N>, u64)>,
    ) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in all {
            metric.encode_family(&labels)?.encode_counter(&value, None::<&Exemplar<NoLabelSet, f64>>)?;
        }
        Ok(())
    }

    fn build_info(&mut self) -> Result<(), Error> {
        let version = env!("CARGO_PKG_VERSION");
        let labels = [("version", version), ("commit", crate::COMMIT), ("arch", std::env::consts::ARCH)];
        self.gauges("ecs_mesh_build_info", "Always 1; the labels name the build", [(labels, 1_i64)])
    }

    fn event_queues(&mut self, queues: &BTreeMap<String, QueueState>) -> Result<(), Error> {
        let known = queues.iter().filter(|(_, state)| **state != QueueState::Unknown);
        let up = known.map(|(name, state)| ([("queue", name.as_str())], i64::from(*state == QueueState::Ok)));
        let help = "1: the last receive succeeded; 0: it failed; absent without a queue";
        self.gauges("ecs_mesh_event_queue_up", help, up)
    }

    fn operator(&mut self, state: &OperatorState) -> Result<(), Error> {
        let labels = [("name", &*state.operator)];
        let help = "1 while this process may write";
        self.gauges("leader_election_master_status", help, [(labels, i64::from(state.leader))])?;
        if let Some(lease) = &state.lease {
            let help = "How often this process has acquired the lease, and lost it without a release";
            let changes = [([("change", "acquired")], lease.acquired), ([("change", "lost")], lease.lost)];
            self.counters("ecs_mesh_lease_changes", help, changes)?;
            let help = "1 if the last call to the lease's store succeeded";
            self.gauge("ecs_mesh_lease_store_up", help, i64::from(lease.store_error.is_none()))?;
        }
        self.gauge("ecs_mesh_known_tasks", "Known ECS tasks", count(state.known_tasks))
    }

    fn manifests(&mut self, manifests: &ManifestState) -> Result<(), Error> {
        let by_kind = |all: &BTreeMap<&'static str, usize>| {
            let all: Vec<_> = all.iter().map(|(kind, n)| ([("kind", *kind)], count(*n))).collect();
            all
        };
        self.gauges("ecs_mesh_manifests", "Manifest documents in force by kind", by_kind(&manifests.loaded))?;
        let help = "Errors in the manifest files by kind";
        self.gauges("ecs_mesh_manifest_errors", help, by_kind(&manifests.errors))?;
        let help = "Warnings in the manifest files";
        self.gauge("ecs_mesh_manifest_warnings", help, count(manifests.warnings))?;
        let help = "Increases with each set of manifests that comes into force";
        self.gauge("ecs_mesh_manifests_generation", help, manifests.generation)
    }

    fn clusters(&mut self, state: &OperatorState) -> Result<(), Error> {
        let all = state.clusters.iter().map(|(name, at)| ([("cluster", name.as_str())], at.unwrap_or(0.0)));
        let help = "Last complete sweep of the cluster; 0: none yet";
        self.gauges("ecs_mesh_last_sweep_timestamp_seconds", help, all)?;
        let accounts = state
            .accounts
            .iter()
            .map(|of| ([("account", &*of.account), ("region", &*of.region)], i64::from(of.error.is_none())));
        let help = "1 if the last sweep could read the account in this Region";
        self.gauges("ecs_mesh_aws_account_up", help, accounts)
    }

    fn work_queues(&mut self, state: &OperatorState) -> Result<(), Error> {
        fn by<'a, V>(
            label: &'static str,
            state: &'a OperatorState,
            value: fn(&ControllerState) -> V,
        ) -> impl Iterator<Item = (Labels<'a, 1>, V)> {
            state.controllers().map(move |(name, controller)| ([(label, name)], value(controller)))
        }
        let tasks = |value: fn(&ControllerState) -> usize| by("name", state, value).map(counted);
        let total = |value: fn(&ControllerState) -> u64| by("name", state, value);
        let seconds = |value: fn(&ControllerState) -> f64| by("name", state, value);
        let runs = |value: fn(&ControllerState) -> usize| by("controller", state, value).map(counted);
        self.gauges("workqueue_depth", "Tasks that are ready to run", tasks(|c| c.queue.ready))?;
        let help = "Tasks that are not yet due: requeued, backing off or deferred";
        self.gauges("ecs_mesh_workqueue_delayed", help, tasks(|c| c.queue.delayed))?;
        self.counters("workqueue_adds", "Requested reconciles", total(|c| c.queue.adds))?;
        self.counters("workqueue_retries", "Reconciles that ended in a backoff", total(|c| c.queue.retries))?;
        let help = "Wait of the task that has been ready longest";
        let oldest = seconds(|c| c.queue.oldest_waiting.as_secs_f64());
        self.gauges("ecs_mesh_workqueue_oldest_waiting_seconds", help, oldest)?;
        let help = "Age of the longest reconcile in flight";
        let longest = seconds(|c| c.queue.longest_running.as_secs_f64());
        self.gauges("workqueue_longest_running_processor_seconds", help, longest)?;
        self.gauges(
            "controller_runtime_active_workers",
            "Reconciles in flight",
            runs(|c| c.queue.processing),
        )?;
        let help = "Limit of reconciles in flight";
        self.gauges("controller_runtime_max_concurrent_reconciles", help, runs(|c| c.workers))
    }

    fn registrations(&mut self, state: &OperatorState) -> Result<(), Error> {
        let owned = state.control_planes.iter().flat_map(|(name, plane)| {
            let owned = plane.owned;
            [("ready", owned.ready), ("drained", owned.drained), ("unconfirmed", owned.unconfirmed)]
                .map(|(state, n)| ([("control_plane", &**name), ("state", state)], count(n)))
        });
        self.gauges("ecs_mesh_owned_registrations", "Registrations of this operator by state", owned)?;
        let unattributed = state
            .control_planes
            .iter()
            .map(|(name, plane)| ([("control_plane", &**name)], count(plane.unattributed_registrations)));
        let help = "Owned registrations in clusters that no binding names";
        self.gauges("ecs_mesh_unattributed_registrations", help, unattributed)?;
        let with_warnings = state.control_planes.iter().flat_map(|(name, plane)| {
            labels::TASK_WARNING_REASONS.into_iter().map(move |reason| {
                let n = plane.tasks_with_warnings.get(reason).copied().unwrap_or(0);
                ([("control_plane", &**name), ("reason", reason)], count(n))
            })
        });
        self.gauges("ecs_mesh_tasks_with_warnings", "Tasks with active warnings by reason", with_warnings)
    }

    fn checked_dataplanes(&mut self, state: &OperatorState) -> Result<(), Error> {
        let all = state.control_planes.iter().flat_map(|(name, plane)| {
            plane.checked_dataplanes.iter().map(move |checked| {
                let labels =
                    [("control_plane", &**name), ("dataplanes", checked.owner), ("state", checked.state)];
                (labels, count(checked.count))
            })
        });
        let help = "Dataplanes that the operator does not own, by owner and state";
        self.gauges("ecs_mesh_checked_dataplanes", help, all)
    }

    fn token_expiries(&mut self, state: &OperatorState) -> Result<(), Error> {
        let all = state
            .control_planes
            .iter()
            .filter_map(|(name, plane)| Some(([("control_plane", &**name)], plane.token_expiry?)));
        let help = "Expiry of the operator's own token; absent if the token does not name one";
        self.gauges("ecs_mesh_token_expiry_timestamp_seconds", help, all)
    }

    fn unknown_outbounds(&mut self, state: &OperatorState) -> Result<(), Error> {
        let all = state.control_planes.iter().flat_map(|(name, plane)| {
            plane
                .unknown_outbound_services
                .iter()
                .map(move |(mesh, n)| ([("control_plane", &**name), ("mesh", &**mesh)], count(*n)))
        });
        let help = "Services that outbounds name and the mesh does not know";
        self.gauges("ecs_mesh_unknown_outbound_services", help, all)
    }

    fn guards(&mut self, state: &OperatorState) -> Result<(), Error> {
        let all = |value: fn(&ecs_mesh_core::plan::GuardState) -> usize| {
            state.control_planes.iter().flat_map(move |(name, plane)| {
                plane.guards.iter().map(move |(binding, guard)| {
                    ([("binding", &**binding), ("control_plane", &**name)], count(value(guard)))
                })
            })
        };
        let held = state
            .control_planes
            .iter()
            .map(|(name, plane)| ([("control_plane", &**name)], count(plane.held_drains)));
        let help = "Drains that wait until enough other registrations of their service are ready";
        self.gauges("ecs_mesh_held_drains", help, held)?;
        let protected = state
            .control_planes
            .iter()
            .map(|(name, plane)| ([("control_plane", &**name)], count(plane.protected_tasks)));
        let help = "Old tasks of deployments that this operator protects from ECS";
        self.gauges("ecs_mesh_protected_tasks", help, protected)?;
        let help = "1 while the guard holds removals that time alone does not release soon";
        self.gauges("ecs_mesh_guard_tripped", help, all(|g| (g.held > g.stabilising).into()))?;
        self.gauges("ecs_mesh_guard_held", "Removals that the guard holds", all(|g| g.held))?;
        let help = "Removals within the last hour without the task's own STOPPED";
        self.gauges("ecs_mesh_guard_admitted", help, all(|g| g.admitted))?;
        self.gauges("ecs_mesh_guard_limit", "Most such removals within an hour", all(|g| g.limit))
    }

    fn acl_objects(&mut self, state: &OperatorState) -> Result<(), Error> {
        let planes = || {
            let all = state.control_planes.iter();
            all.filter_map(|(name, plane)| Some((&**name, plane.acl.as_ref()?)))
        };
        let objects = planes().flat_map(|(name, acl)| {
            ObjectKind::ALL.map(ObjectKind::label).into_iter().flat_map(move |kind| {
                OBJECT_STATES.map(|state| {
                    let n = acl.objects.get(kind).and_then(|of_kind| of_kind.get(state)).copied();
                    ([("control_plane", name), ("kind", kind), ("state", state)], count(n.unwrap_or(0)))
                })
            })
        });
        let help = "ACL objects by state";
        self.gauges("ecs_mesh_acl_objects", help, objects)?;
        let synced = planes().map(|(name, acl)| ([("control_plane", name)], acl.last_sync.unwrap_or(0.0)));
        let help = "Last time that all ACL objects were as declared; 0: not yet";
        self.gauges("ecs_mesh_acl_last_sync_timestamp_seconds", help, synced)
    }

    fn dataplane_tokens(&mut self, state: &OperatorState) -> Result<(), Error> {
        let planes = || {
            let all = state.control_planes.iter();
            all.filter_map(|(name, plane)| Some((&**name, plane.tokens.as_ref()?)))
        };
        let tokens = planes().flat_map(|(name, status)| {
            TOKEN_STATES.map(|state| {
                let n = status.tokens.get(state).copied().unwrap_or(0);
                ([("control_plane", name), ("state", state)], count(n))
            })
        });
        self.gauges("ecs_mesh_dataplane_tokens", "Data plane tokens by state", tokens)?;
        let expiries =
            planes().filter_map(|(name, status)| Some(([("control_plane", name)], status.next_expiry?)));
        let help = "Expiry of the first data plane token to expire; absent without tokens";
        self.gauges("ecs_mesh_dataplane_token_expiry_timestamp_seconds", help, expiries)
    }

    fn circuits(&mut self, state: &OperatorState) -> Result<(), Error> {
        let circuits = state.control_planes.iter().flat_map(|(name, plane)| {
            [CircuitState::Closed, CircuitState::HalfOpen, CircuitState::Open].map(|circuit| {
                let labels = [("control_plane", &**name), ("state", circuit.as_str())];
                (labels, i64::from(plane.circuit == circuit))
            })
        });
        self.gauges("ecs_mesh_circuit_state", "1 for the current state of the circuit", circuits)?;
        let synced = state
            .control_planes
            .iter()
            .map(|(name, plane)| ([("control_plane", &**name)], i64::from(plane.synced)));
        let help = "1 once all registrations were listed since the start";
        self.gauges("ecs_mesh_control_plane_synced", help, synced)?;
        let unsupported = state
            .control_planes
            .iter()
            .map(|(name, plane)| ([("control_plane", &**name)], i64::from(plane.unsupported.is_some())));
        let help = "1 while the version is not supported, so that nothing is written";
        self.gauges("ecs_mesh_control_plane_unsupported", help, unsupported)?;
        let foreign = state
            .control_planes
            .iter()
            .map(|(name, plane)| ([("control_plane", &**name)], i64::from(plane.foreign_writer.is_some())));
        let help = "1 while another process writes registrations or ACL objects with this operator's id";
        self.gauges("ecs_mesh_foreign_writer", help, foreign)?;
        let unlisted = state
            .control_planes
            .iter()
            .map(|(name, plane)| ([("control_plane", &**name)], count(plane.unlisted_segments.len())));
        let help = "Segments of the registrations at which the last list failed";
        self.gauges("ecs_mesh_control_plane_unlisted_segments", help, unlisted)
    }
}
