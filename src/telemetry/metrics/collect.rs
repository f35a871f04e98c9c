//! What *is*, asked for at each scrape: a gauge that is set by hand is wrong as soon as somebody forgets to.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use super::{ScrapeSource, labels};
use crate::telemetry::state::{ManifestState, OperatorState, ControlPlaneState};
use ecs_mesh_aws::consumer::QueueState;
use ecs_mesh_consul_acl::reconcile::OBJECT_STATES;
use ecs_mesh_controller::CircuitState;
use ecs_mesh_core::plan::report::ObjectKind;

/// Asks the operator.
#[derive(Debug)]
pub(super) struct StateCollector(pub(super) Arc<ScrapeSource>);

/// Labels with their values.
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
        to.gauge("ecs_mesh_stuck_loops", "Loops that make no progress", count(stuck))?;
        let ready = !health.is_stopping() && state.as_ref().is_some_and(OperatorState::is_ready);
        to.gauge("ecs_mesh_ready", "Whether /readyz answers 200", i64::from(ready))?;
        to.event_queue(self.0.queue_state())?;
        let Some(state) = state else { return Ok(()) };
        to.operator(&state)?;
        to.manifests(&state.manifests)?;
        to.clusters(&state)?;
        to.work_queues(&state)?;
        to.registrations(&state)?;
        to.unknown_outbounds(&state)?;
        to.guards(&state)?;
        to.identities(&state)?;
        to.circuits(&state)
    }
}

/// Far fewer than 2^63 of anything.
fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
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
    fn counters<'a, const N: usize>(
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
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)];
        self.gauges("ecs_mesh_build_info", "Always 1; the labels tell what runs", [(labels, 1_i64)])
    }

    fn event_queue(&mut self, queue: QueueState) -> Result<(), Error> {
        let readable = match queue {
            QueueState::Unknown => return Ok(()),
            QueueState::Ok => 1_i64,
            QueueState::Failing(_) => 0,
        };
        self.gauge(
            "ecs_mesh_queue_readable",
            "Whether the last receive went well; absent without a queue",
            readable,
        )
    }

    fn operator(&mut self, state: &OperatorState) -> Result<(), Error> {
        let labels = [("name", &*state.operator)];
        let help = "Whether this process may write";
        self.gauges("leader_election_master_status", help, [(labels, i64::from(state.leader))])?;
        self.gauge("ecs_mesh_known_tasks", "ECS tasks that are known", count(state.known_tasks))
    }

    fn manifests(&mut self, manifests: &ManifestState) -> Result<(), Error> {
        let by_kind = |all: &std::collections::BTreeMap<&'static str, usize>| {
            let all: Vec<_> = all.iter().map(|(kind, n)| ([("kind", *kind)], count(*n))).collect();
            all
        };
        self.gauges("ecs_mesh_manifests", "Documents in force by kind", by_kind(&manifests.loaded))?;
        let help = "Errors in the manifests as they are now by kind";
        self.gauges("ecs_mesh_manifest_errors", help, by_kind(&manifests.errors))?;
        let help = "Warnings of the manifests as they are now";
        self.gauge("ecs_mesh_manifest_warnings", help, count(manifests.warnings))?;
        let help = "Grows with each set of manifests that comes into force";
        self.gauge("ecs_mesh_manifests_generation", help, manifests.generation)
    }

    fn clusters(&mut self, state: &OperatorState) -> Result<(), Error> {
        let all = state.clusters.iter().map(|(name, at)| ([("cluster", name.as_str())], at.unwrap_or(0.0)));
        let help = "When a sweep last saw the cluster whole; 0: not yet";
        self.gauges("ecs_mesh_last_sweep_timestamp_seconds", help, all)
    }

    fn work_queues(&mut self, state: &OperatorState) -> Result<(), Error> {
        let all = |value: fn(&ControlPlaneState) -> i64| {
            state.control_planes.iter().map(move |(name, plane)| ([("name", &**name)], value(plane)))
        };
        let seconds = |value: fn(&ControlPlaneState) -> f64| {
            state.control_planes.iter().map(move |(name, plane)| ([("name", &**name)], value(plane)))
        };
        let total = |value: fn(&ControlPlaneState) -> u64| {
            state.control_planes.iter().map(move |(name, plane)| ([("name", &**name)], value(plane)))
        };
        let workers = |value: fn(&ControlPlaneState) -> i64| {
            state.control_planes.iter().map(move |(name, plane)| ([("controller", &**name)], value(plane)))
        };
        self.gauges("workqueue_depth", "Tasks that could be worked on now", all(|p| count(p.queue.ready)))?;
        let help = "Tasks whose time has not come: requeued, backing off or held";
        self.gauges("ecs_mesh_workqueue_delayed", help, all(|p| count(p.queue.delayed)))?;
        self.counters("workqueue_adds", "Runs asked for", total(|p| p.queue.adds))?;
        self.counters("workqueue_retries", "Runs that ended in a backoff", total(|p| p.queue.retries))?;
        let help = "How long the task has waited that is ready longest";
        let oldest = seconds(|p| p.queue.oldest_waiting.as_secs_f64());
        self.gauges("ecs_mesh_workqueue_oldest_waiting_seconds", help, oldest)?;
        let help = "How long the longest run under way has taken";
        let longest = seconds(|p| p.queue.longest_running.as_secs_f64());
        self.gauges("workqueue_longest_running_processor_seconds", help, longest)?;
        let active = workers(|p| count(p.queue.processing));
        self.gauges("controller_runtime_active_workers", "Runs under way", active)?;
        let most = workers(|p| count(p.workers));
        self.gauges("controller_runtime_max_concurrent_reconciles", "Most runs under way", most)
    }

    fn registrations(&mut self, state: &OperatorState) -> Result<(), Error> {
        let owned = state.control_planes.iter().flat_map(|(name, plane)| {
            let owned = plane.owned;
            [("ready", owned.ready), ("drained", owned.drained), ("unconfirmed", owned.unconfirmed)]
                .map(|(state, n)| ([("control_plane", &**name), ("state", state)], count(n)))
        });
        self.gauges("ecs_mesh_owned_registrations", "This operator's registrations by state", owned)?;
        let unattributed_registrations = state
            .control_planes
            .iter()
            .map(|(name, plane)| ([("control_plane", &**name)], count(plane.unattributed_registrations)));
        let help = "Registrations of ours whose cluster no binding names";
        self.gauges("ecs_mesh_unplaced_registrations", help, unattributed_registrations)?;
        let troubled = state.control_planes.iter().flat_map(|(name, plane)| {
            labels::TASK_WARNING_REASONS.into_iter().map(move |reason| {
                let n = plane.tasks_with_warnings.get(reason).copied().unwrap_or(0);
                ([("control_plane", &**name), ("reason", reason)], count(n))
            })
        });
        self.gauges("ecs_mesh_troubled_tasks", "Tasks that are not as they should be by reason", troubled)
    }

    fn unknown_outbounds(&mut self, state: &OperatorState) -> Result<(), Error> {
        let all = state.control_planes.iter().flat_map(|(name, plane)| {
            plane
                .unknown_outbound_services
                .iter()
                .map(move |(mesh, n)| ([("control_plane", &**name), ("mesh", &**mesh)], count(*n)))
        });
        self.gauges("ecs_mesh_unknown_targets", "Services called that the mesh does not know", all)
    }

    fn guards(&mut self, state: &OperatorState) -> Result<(), Error> {
        let all = |value: fn(&ecs_mesh_core::plan::GuardState) -> usize| {
            state.control_planes.iter().flat_map(move |(name, plane)| {
                plane.guards.iter().map(move |(binding, guard)| {
                    ([("binding", &**binding), ("control_plane", &**name)], count(value(guard)))
                })
            })
        };
        self.gauges(
            "ecs_mesh_guard_tripped",
            "Whether the guard holds anything",
            all(|g| (g.held > 0).into()),
        )?;
        self.gauges("ecs_mesh_guard_held", "Removals that the guard holds back", all(|g| g.held))?;
        let help = "Removals without a STOPPED of their own, of the last hour";
        self.gauges("ecs_mesh_guard_admitted", help, all(|g| g.admitted))?;
        self.gauges("ecs_mesh_guard_limit", "How many of them the guard lets through", all(|g| g.limit))
    }

    fn identities(&mut self, state: &OperatorState) -> Result<(), Error> {
        let planes = || {
            let all = state.control_planes.iter();
            all.filter_map(|(name, plane)| Some((&**name, plane.identity.as_ref()?)))
        };
        let objects = planes().flat_map(|(name, identity)| {
            ObjectKind::ALL.map(ObjectKind::as_str).into_iter().flat_map(move |kind| {
                OBJECT_STATES.map(|state| {
                    let n = identity.objects.get(kind).and_then(|of_kind| of_kind.get(state)).copied();
                    ([("control_plane", name), ("kind", kind), ("state", state)], count(n.unwrap_or(0)))
                })
            })
        });
        let help = "Objects of the identity set-up by how they are";
        self.gauges("ecs_mesh_identity_objects", help, objects)?;
        let checked =
            planes().map(|(name, identity)| ([("control_plane", name)], identity.checked_at.unwrap_or(0.0)));
        let help = "When the identity set-up was last found or made as declared; 0: not yet";
        self.gauges("ecs_mesh_identity_checked_timestamp_seconds", help, checked)
    }

    fn circuits(&mut self, state: &OperatorState) -> Result<(), Error> {
        let circuits = state.control_planes.iter().flat_map(|(name, plane)| {
            [CircuitState::Closed, CircuitState::HalfOpen, CircuitState::Open].map(|circuit| {
                let labels = [("control_plane", &**name), ("state", circuit.as_str())];
                (labels, i64::from(plane.circuit == circuit))
            })
        });
        self.gauges("ecs_mesh_circuit_state", "1 for the state that the circuit is in", circuits)?;
        let synced = state
            .control_planes
            .iter()
            .map(|(name, plane)| ([("control_plane", &**name)], i64::from(plane.synced)));
        let help = "Whether all that is registered there was listed since the start";
        self.gauges("ecs_mesh_control_plane_listed", help, synced)?;
        let parts = state.control_planes.iter().map(|(name, plane)| {
            let parts = i64::try_from(plane.unlisted_segments.len()).unwrap_or(i64::MAX);
            ([("control_plane", &**name)], parts)
        });
        let help = "Parts of what is registered there that the last list failed at";
        self.gauges("ecs_mesh_control_plane_unlisted_parts", help, parts)
    }
}
