use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::telemetry::state::ManifestState;
use crate::telemetry::state::tests::state;

struct Fixed(OperatorState);

impl Tells for Fixed {
    fn state(&self) -> OperatorState {
        self.0.clone()
    }
}

/// Metrics that have something of everything.
fn furnished() -> (Metrics, Arc<dyn Tells>) {
    let metrics = Metrics::default();
    let manifests = ManifestState {
        loaded: [("Workload", 1)].into(),
        errors: [("unknown", 0)].into(),
        ..ManifestState::default()
    };
    let teller: Arc<dyn Tells> = Arc::new(Fixed(OperatorState { manifests, ..state() }));
    metrics.told_by(Arc::downgrade(&teller));
    metrics.queue_is(QueueState::Readable);
    metrics.plane("kuma");
    metrics.planned("kuma", "create", 2);
    (metrics, teller)
}

#[derive(Debug, Default, PartialEq)]
struct Shape {
    kind: String,
    labels: BTreeSet<String>,
}

/// The families of a text in Prometheus' format, with their types and the labels of their samples.
fn shapes(text: &str) -> BTreeMap<String, Shape> {
    let mut shapes: BTreeMap<String, Shape> = BTreeMap::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            family = name.to_owned();
            let shape = Shape { kind: kind.to_owned(), ..Shape::default() };
            assert!(shapes.insert(family.clone(), shape).is_none(), "{name} comes twice");
        } else if let Some((_, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = rest.rsplit_once('}').unwrap().0;
            // No value here holds a comma.
            let names = labels.split(',').map(|label| label.split_once('=').unwrap().0.to_owned());
            shapes.get_mut(&family).unwrap().labels.extend(names.filter(|name| name != "le"));
        }
    }
    shapes
}

/// The rows `| name | type | labels | meaning |` of the reference.
fn documented() -> BTreeMap<String, Shape> {
    let page = include_str!("../../../docs/reference/metrics.md");
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split('|').map(str::trim).collect();
        let kind = *cells.get(1)?;
        ["counter", "gauge", "histogram"].contains(&kind).then(|| {
            let labels = cells[2].split(',').map(|label| label.trim().trim_matches('`').to_owned());
            let labels = labels.filter(|label| !label.is_empty()).collect();
            (cells[0].trim_matches('`').to_owned(), Shape { kind: kind.to_owned(), labels })
        })
    });
    rows.collect()
}

#[test]
fn the_reference_lists_just_what_is_served_with_types_and_labels() {
    let (metrics, _teller) = furnished();
    let (served, documented) = (shapes(&metrics.render()), documented());
    for (name, shape) in &served {
        assert_eq!(documented.get(name), Some(shape), "{name} in docs/reference/metrics.md");
    }
    for name in documented.keys() {
        assert!(served.contains_key(name), "docs/reference/metrics.md lists {name}, which is not served");
    }
}

#[test]
fn every_value_of_a_bounded_label_is_in_the_reference() {
    let page = include_str!("../../../docs/reference/metrics.md");
    let messages = labels::MESSAGES.into_iter().flat_map(|(kind, all)| all.iter().copied().chain([kind]));
    let all = messages
        .chain(labels::held())
        .chain(labels::AWS_OPERATIONS)
        .chain(labels::PLANE_OPERATIONS)
        .chain(labels::UNPLACED)
        .chain(labels::CHANGES)
        .chain(labels::OBJECT_CHANGES)
        .chain(labels::OBJECT_RESULTS)
        .chain(ecs_mesh_consul_acl::reconcile::OBJECT_STATES)
        .chain(ObjectKind::ALL.map(ObjectKind::as_str))
        .chain(labels::EVIDENCE)
        .chain(labels::RULES)
        .chain(labels::IGNORED)
        .chain(labels::SWEEPS)
        .chain(ecs_mesh_controller::controller::OUTCOMES);
    for value in all {
        assert!(page.contains(&format!("`{value}`")), "docs/reference/metrics.md does not explain {value:?}");
    }
}

#[test]
fn counters_are_there_at_zero_before_anything_happens() {
    let metrics = Metrics::default();
    metrics.plane("kuma");
    let text = metrics.render();
    for line in [
        "ecs_mesh_messages_total{kind=\"poison\",result=\"not_json\"} 0",
        "ecs_mesh_aws_calls_total{operation=\"ecs:ListTasks\",outcome=\"denied\"} 0",
        "ecs_mesh_control_plane_calls_total{control_plane=\"kuma\",operation=\"put\",outcome=\"forbidden\"} 0",
        "controller_runtime_reconcile_total{controller=\"kuma\",result=\"error\"} 0",
        "ecs_mesh_removals_total{reason=\"absent\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn what_is_comes_from_the_operator_at_each_scrape_and_goes_with_it() {
    let (metrics, teller) = furnished();
    let text = metrics.render();
    for line in [
        "ecs_mesh_owned_registrations{control_plane=\"kuma\",state=\"drained\"} 2",
        "ecs_mesh_guard_tripped{binding=\"demo\",control_plane=\"kuma\"} 1",
        "ecs_mesh_guard_limit{binding=\"demo\",control_plane=\"kuma\"} 3",
        "ecs_mesh_troubled_tasks{control_plane=\"kuma\",reason=\"rejected\"} 6",
        "ecs_mesh_unknown_targets{control_plane=\"kuma\",mesh=\"default\"} 5",
        "ecs_mesh_identity_objects{control_plane=\"kuma\",kind=\"policy\",state=\"drifted\"} 2",
        "ecs_mesh_identity_checked_timestamp_seconds{control_plane=\"kuma\"} 1500.0",
        "ecs_mesh_last_sweep_timestamp_seconds{cluster=\"two\"} 0.0",
        "leader_election_master_status{name=\"op\"} 1",
        "ecs_mesh_ready 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    drop(teller);
    let text = metrics.render();
    assert!(!text.contains("ecs_mesh_owned_registrations{") && text.contains("ecs_mesh_ready 0"), "{text}");
}

#[test]
fn what_is_planned_is_as_it_was_last_said() {
    let (metrics, _teller) = furnished();
    let line = "ecs_mesh_planned_changes{control_plane=\"kuma\",change=\"create\"}";
    assert!(metrics.render().contains(&format!("{line} 2")));
    metrics.planned("kuma", "create", 0);
    assert!(metrics.render().contains(&format!("{line} 0")));
}
