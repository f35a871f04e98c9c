mod queries;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::telemetry::state::ManifestState;
use crate::telemetry::state::tests::state;
use ecs_mesh_core::intent::RoleRule;
use ecs_mesh_core::plan::HoldEnd;
use ecs_mesh_core::plan::report::ObjectKind;

struct FixedState(OperatorState);

impl StateSource for FixedState {
    fn state(&self) -> OperatorState {
        self.0.clone()
    }
}

/// Metrics with at least one series of each family.
fn populated() -> (Metrics, Arc<dyn StateSource>) {
    let metrics = Metrics::default();
    let manifests = ManifestState {
        loaded: [("Workload", 1)].into(),
        errors: [("unknown", 0)].into(),
        ..ManifestState::default()
    };
    let state_source: Arc<dyn StateSource> = Arc::new(FixedState(OperatorState { manifests, ..state() }));
    metrics.set_state_source(Arc::downgrade(&state_source));
    metrics.set_queue_state("events", QueueState::Ok);
    metrics.control_plane("kuma");
    metrics.add_manifest_source("s3://manifests/prod/");
    metrics.api.set_certificate_expiry(Some(Duration::from_secs(4_000)));
    metrics.changes.set_planned("kuma", "create", 2);
    (metrics, state_source)
}

#[derive(Debug, Default, PartialEq)]
struct MetricShape {
    kind: String,
    labels: BTreeSet<String>,
}

/// The families of a text in the Prometheus format, with their types and the labels of their samples.
fn shapes(text: &str) -> BTreeMap<String, MetricShape> {
    let mut shapes: BTreeMap<String, MetricShape> = BTreeMap::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            family = name.to_owned();
            let shape = MetricShape { kind: kind.to_owned(), ..MetricShape::default() };
            assert!(shapes.insert(family.clone(), shape).is_none(), "{name} is described twice");
        } else if let Some((_, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = rest.rsplit_once('}').unwrap().0;
            // No label value of these tests contains a comma.
            let names = labels.split(',').map(|label| label.split_once('=').unwrap().0.to_owned());
            shapes.get_mut(&family).unwrap().labels.extend(names.filter(|name| name != "le"));
        }
    }
    shapes
}

/// The rows `| name | type | labels | meaning |` of the reference.
fn documented() -> BTreeMap<String, MetricShape> {
    let page = include_str!("../../../docs/reference/metrics.md");
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split('|').map(str::trim).collect();
        let kind = *cells.get(1)?;
        ["counter", "gauge", "histogram"].contains(&kind).then(|| {
            let labels = cells[2].split(',').map(|label| label.trim().trim_matches('`').to_owned());
            let labels = labels.filter(|label| !label.is_empty()).collect();
            (cells[0].trim_matches('`').to_owned(), MetricShape { kind: kind.to_owned(), labels })
        })
    });
    rows.collect()
}

#[test]
fn metrics_reference_matches_served_metrics() {
    let (metrics, _state_source) = populated();
    let (served, documented) = (shapes(&metrics.render()), documented());
    for (name, shape) in &served {
        assert_eq!(documented.get(name), Some(shape), "{name} in docs/reference/metrics.md");
    }
    for name in documented.keys() {
        assert!(served.contains_key(name), "docs/reference/metrics.md lists {name}, which is not served");
    }
}

#[test]
fn metrics_reference_lists_every_label_value() {
    let page = include_str!("../../../docs/reference/metrics.md");
    let messages =
        labels::MESSAGE_RESULTS.into_iter().flat_map(|(kind, all)| all.iter().copied().chain([kind]));
    let all = messages
        .chain(labels::warning_reasons())
        .chain(labels::AWS_OPERATIONS)
        .chain(labels::CONTROL_PLANE_OPERATIONS)
        .chain(labels::UNATTRIBUTED_REASONS)
        .chain(labels::CHANGE_VALUES)
        .chain(labels::PROTECTION_CHANGES)
        .chain(HoldEnd::ALL.map(HoldEnd::label))
        .chain(labels::ACL_CHANGES)
        .chain(labels::TOKEN_CHANGES)
        .chain(ecs_mesh_core::tokens::TOKEN_STATES)
        .chain(labels::ACL_RESULTS)
        .chain(ecs_mesh_consul_acl::reconcile::OBJECT_STATES)
        .chain(ObjectKind::ALL.map(ObjectKind::label))
        .chain(labels::EVIDENCE_VALUES)
        .chain(RoleRule::ALL.map(RoleRule::label))
        .chain(labels::IGNORE_REASONS)
        .chain(labels::LOG_DROP_REASONS)
        .chain(labels::API_RESULTS)
        .chain(labels::API_HANDSHAKE_RESULTS)
        .chain(labels::TEAM_EVENT_TYPES)
        .chain(labels::TEAM_EVENT_DROP_REASONS)
        .chain(labels::SWEEP_RESULTS)
        .chain(ecs_mesh_manifests::SOURCE_RESULTS)
        .chain(ecs_mesh_controller::controller::RUN_RESULTS);
    for value in all {
        assert!(page.contains(&format!("`{value}`")), "docs/reference/metrics.md does not explain {value:?}");
    }
}

#[test]
fn counters_start_at_zero() {
    let metrics = Metrics::default();
    metrics.control_plane("kuma");
    let text = metrics.render();
    for line in [
        "ecs_mesh_messages_total{kind=\"poison\",result=\"not_json\"} 0",
        "ecs_mesh_aws_calls_total{operation=\"ecs:ListTasks\",result=\"access_denied\"} 0",
        "ecs_mesh_control_plane_calls_total{control_plane=\"kuma\",operation=\"put\",result=\"forbidden\"} 0",
        "controller_runtime_reconcile_total{controller=\"kuma\",result=\"error\"} 0",
        "ecs_mesh_removals_total{evidence=\"absent\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn gauges_are_read_at_each_scrape() {
    let (metrics, state_source) = populated();
    let text = metrics.render();
    for line in [
        "ecs_mesh_owned_registrations{control_plane=\"kuma\",state=\"drained\"} 2",
        "ecs_mesh_guard_tripped{binding=\"demo\",control_plane=\"kuma\"} 1",
        "ecs_mesh_guard_limit{binding=\"demo\",control_plane=\"kuma\"} 3",
        "ecs_mesh_tasks_with_warnings{control_plane=\"kuma\",reason=\"rejected\"} 6",
        "ecs_mesh_unknown_outbound_services{control_plane=\"kuma\",mesh=\"default\"} 5",
        "ecs_mesh_acl_objects{control_plane=\"kuma\",kind=\"policy\",state=\"drifted\"} 2",
        "ecs_mesh_acl_last_sync_timestamp_seconds{control_plane=\"kuma\"} 1500.0",
        "ecs_mesh_dataplane_tokens{control_plane=\"kuma\",state=\"held\"} 2",
        "ecs_mesh_dataplane_token_expiry_timestamp_seconds{control_plane=\"kuma\"} 2500.0",
        "ecs_mesh_last_sweep_timestamp_seconds{cluster=\"two\"} 0.0",
        "leader_election_master_status{name=\"op\"} 1",
        "ecs_mesh_lease_changes_total{change=\"lost\"} 1",
        "ecs_mesh_lease_store_up 1",
        "ecs_mesh_foreign_writer{control_plane=\"kuma\"} 1",
        "ecs_mesh_ready 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    drop(state_source);
    let text = metrics.render();
    assert!(!text.contains("ecs_mesh_owned_registrations{") && text.contains("ecs_mesh_ready 0"), "{text}");
}

#[test]
fn planned_gauge_shows_the_last_value() {
    let (metrics, _state_source) = populated();
    let line = "ecs_mesh_planned_changes{control_plane=\"kuma\",change=\"create\"}";
    assert!(metrics.render().contains(&format!("{line} 2")));
    metrics.changes.set_planned("kuma", "create", 0);
    assert!(metrics.render().contains(&format!("{line} 0")));
}
