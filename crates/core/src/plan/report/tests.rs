//! The text and JSON forms of a plan.

use serde_json::json;

use super::*;
use crate::plan::FieldChange;

fn planned(id: &str, change: PlannedChange) -> PlanEntry {
    let task = format!("arn:aws:ecs:eu-west-1:111122223333:task/demo/{id}");
    PlanEntry { control_plane: "kuma".into(), task: Some(TaskArn::parse(&task).unwrap()), change }
}

fn change(change: Change, reason: &str) -> PlannedChange {
    PlannedChange {
        mesh: Some("default".into()),
        name: Some("dp-1".into()),
        service: Some("app".into()),
        binding: Some("demo".into()),
        ..PlannedChange::new(change, reason)
    }
}

/// A report with one change of each kind.
fn report() -> PlanReport {
    let field = FieldChange {
        path: "networking.outbound[0].port".into(),
        before: Some(json!(15050)),
        after: Some(json!(15051)),
    };
    let registration = json!({
        "type": "Dataplane", "mesh": "default", "name": "dp-1",
        "labels": {"ecs-mesh.dev/operator": "op", "kuma.io/workload": "app"},
        "networking": {"address": "10.0.0.1", "inbound": [{"port": 15000}]},
    });
    let changes = vec![
        planned(
            "1",
            PlannedChange { registration: Some(registration), ..change(Change::Create, "the task runs") },
        ),
        planned(
            "2",
            PlannedChange { fields: vec![field], ..change(Change::Update, "differs in these fields") },
        ),
        planned(
            "3",
            PlannedChange {
                follow_up: Some("removed later".into()),
                ..change(Change::Drain, "ECS is stopping the task")
            },
        ),
        planned(
            "4",
            PlannedChange {
                precondition: Some("once it is missing".into()),
                ..change(Change::Remove, "not listed")
            },
        ),
        planned(
            "5",
            PlannedChange { blocked_by: Some(BlockedBy::Guard), ..change(Change::Remove, "too many") },
        ),
        planned(
            "6",
            PlannedChange { blocked_by: Some(BlockedBy::Policy), ..change(Change::Drain, "upsert-only") },
        ),
        planned(
            "7",
            PlannedChange { blocked_by: Some(BlockedBy::Paused), ..change(Change::Create, "the task runs") },
        ),
        planned("8", PlannedChange::new(Change::Reject, "tag kuma.io/mesh is missing")),
        planned("9", PlannedChange::new(Change::Unknown, "GetRole was denied")),
        planned("10", PlannedChange::new(Change::Unknown, "GetRole was denied")),
        planned("11", PlannedChange::new(Change::Ignore, "no Workload selects the task")),
        planned("12", change(Change::Unchanged, "it is as it should be")),
    ];
    let unresolved =
        vec![Unresolved { subject: "control plane away".into(), error: "connection refused".into() }];
    let warning = |task: &str| PlanWarning {
        control_plane: "kuma".into(),
        task: task.into(),
        message: "role tags".into(),
        key: "role tags".into(),
    };
    PlanReport::new(
        "op",
        Timestamp(0),
        ManifestsSummary::default(),
        unresolved,
        vec![warning("1"), warning("2")],
        changes,
    )
}

#[test]
fn plan_renders_its_sections() {
    let text = anstream::adapter::strip_str(&render(&report(), PlanDetail::Changes)).to_string();
    insta::assert_snapshot!(text);
}

#[test]
fn inputs_unknown_for_one_cause_are_one_line() {
    let throttled = |n: usize| Unresolved {
        subject: format!("data plane tokens: /mesh/default/w{n}/token"),
        error: format!("ssm:ListTagsForResource on /mesh/default/w{n}/token failed: ThrottlingException"),
    };
    let mut unresolved: Vec<Unresolved> = (0..400).map(throttled).collect();
    unresolved.push(Unresolved { subject: "control plane away".into(), error: "refused".into() });
    let report =
        PlanReport::new("op", Timestamp(0), ManifestsSummary::default(), unresolved, Vec::new(), Vec::new());
    let text = anstream::adapter::strip_str(&render(&report, PlanDetail::Changes)).to_string();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("  ? ")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains("w2/token and 397 more: ssm:ListTagsForResource on /mesh/default/w0/token"));
    assert_eq!(report.unresolved.len(), 401);
}

fn text(changes: Vec<PlanEntry>, detail: PlanDetail) -> String {
    let report =
        PlanReport::new("op", Timestamp(0), ManifestsSummary::default(), Vec::new(), Vec::new(), changes);
    anstream::adapter::strip_str(&render(&report, detail)).to_string()
}

/// The removals of a dead task's registrations at Consul.
fn removals(n: usize) -> Vec<PlanEntry> {
    let (id, service) = (format!("{n:032x}"), if n.is_multiple_of(2) { "kv" } else { "web" });
    let cluster = "arn:aws:ecs:eu-west-1:111122223333:cluster/demo";
    let names = [
        format!("token/4fa6e11c-21d1-3462-a316-{n:012x}"),
        format!("service/{service}-{id}@{cluster}"),
        format!("service/{service}-{id}-sidecar-proxy@{cluster}"),
    ];
    let entry = |name: String| PlanEntry {
        control_plane: "consul".into(),
        ..planned(
            &id,
            PlannedChange {
                name: Some(name),
                service: Some(service.into()),
                binding: Some("demo".into()),
                ..PlannedChange::with_reason(
                    Change::Remove,
                    &Reason::new("absent", format!("not listed by two sweeps since {n} minutes ago")),
                )
            },
        )
    };
    names.map(entry).into()
}

fn rejected(n: usize, role: usize) -> PlanEntry {
    let message = format!("role r{role}-task: tag x is missing; aws iam tag-role --role-name r{role}-task");
    planned(
        &format!("{n:032x}"),
        PlannedChange::with_reason(Change::Reject, &Reason::new("x missing", message)),
    )
}

#[test]
fn plan_groups_registrations_of_a_dead_task() {
    insta::assert_snapshot!(text(removals(7), PlanDetail::Changes));
}

#[test]
fn plan_groups_many_tasks_by_reason() {
    let mut changes: Vec<PlanEntry> = (0..1_000).flat_map(removals).collect();
    changes.extend((0..500).map(|n| rejected(n, n % 5)));
    insta::assert_snapshot!(text(changes.clone(), PlanDetail::Changes));
    let all = text(changes, PlanDetail::All);
    assert_eq!(all.matches("\n  - remove").count(), 1_000);
    assert_eq!(all.matches("\n  x reject").count(), 500);
}

#[test]
fn plan_counts_unattributed_tokens() {
    let mut report = report();
    let examples = vec!["4fa6e11c-21d1-3462-a316-99515e5544f7".to_owned()];
    let reason = "no_metadata";
    report.unattributed_tokens.push(UnattributedTokens {
        control_plane: "consul".into(),
        reason,
        count: 12,
        examples,
    });
    let text = anstream::adapter::strip_str(&render(&report, PlanDetail::Changes)).to_string();
    let line = text.lines().find(|line| line.starts_with("unattributed tokens: ")).unwrap();
    assert!(line.contains("12 login tokens") && line.contains("4fa6e11c-21d1"), "{line}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["unattributedTokens"][0]["count"], 12);
}

#[test]
fn consul_location_has_partition_and_no_mesh() {
    let at = |partition: Option<&str>| {
        let mut changes = removals(1);
        changes.iter_mut().for_each(|planned| planned.change.partition = partition.map(str::to_owned));
        text(changes, PlanDetail::Changes).lines().next().unwrap().to_owned()
    };
    assert_eq!(at(None), "control plane consul");
    assert_eq!(at(Some("team")), "control plane consul, partition team");
}

#[test]
fn blocked_changes_are_not_counted_as_writes() {
    let report = report();
    let s = &report.summary;
    assert_eq!((s.create, s.update, s.drain, s.remove), (1, 1, 1, 1));
    assert_eq!((s.held_by_guard, s.skipped_by_policy, s.paused, s.unknown), (1, 1, 1, 2));
    assert!(report.will_write() && !report.complete);
}

#[test]
fn labels_list_every_value() {
    let labels: Vec<&str> = super::labels().collect();
    for planned in report().changes {
        assert!(labels.contains(&label(&planned.change)), "{planned:?}");
    }
}

/// The schema of the serialised form: fields that are omitted where empty are optional.
fn schema() -> schemars::Schema {
    schemars::generate::SchemaSettings::default()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<PlanReport>()
}

/// The committed schema is that of the types. `UPDATE_GOLDEN=1` renews it.
#[test]
fn committed_plan_schema_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/plan.schema.json");
    let schema = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), schema, "renew it with UPDATE_GOLDEN=1");
}

#[test]
fn required_schema_fields_are_always_present() {
    let schema = schema().to_value();
    let required = |of: &serde_json::Value| -> Vec<String> {
        serde_json::from_value(of["required"].clone()).unwrap_or_default()
    };
    let of_change = required(&schema["$defs"]["PlanEntry"]);
    assert!(of_change.iter().any(|name| name == "change"), "{schema}");
    let json = serde_json::to_value(report()).unwrap();
    assert!(required(&schema).iter().all(|name| json.get(name).is_some()), "{json}");
    for change in json["changes"].as_array().unwrap() {
        assert!(of_change.iter().all(|name| change.get(name).is_some()), "{change}");
    }
}

fn created(id: &str, service: &str, port: u16) -> PlanEntry {
    let registration = json!({
        "type": "Dataplane", "mesh": "default", "name": id,
        "labels": {"ecs-mesh.dev/operator": "op", "kuma.io/workload": service},
        "networking": {"address": format!("10.0.0.{id}"), "inbound": [{"port": port, "servicePort": 8080}]},
    });
    let change = PlannedChange {
        name: Some(id.to_owned()),
        service: Some(service.to_owned()),
        registration: Some(registration),
        ..change(Change::Create, "the task runs")
    };
    planned(id, change)
}

#[test]
fn many_creates_are_grouped_by_service() {
    let few: Vec<PlanEntry> = (1..=3).map(|n| created(&n.to_string(), "kv", 15_050)).collect();
    assert_eq!(text(few.clone(), PlanDetail::Changes).matches("+ create").count(), 3);

    let many: Vec<PlanEntry> = few
        .into_iter()
        .chain((4..=8).map(|n| created(&n.to_string(), "app", 15_000)))
        .chain([planned(
            "9",
            PlannedChange { precondition: Some("later".into()), ..created("9", "app", 1).change },
        )])
        .collect();
    insta::assert_snapshot!(text(many.clone(), PlanDetail::Changes), @r#"
    control plane kuma, mesh default
      + create  8 tasks of 2 services
          networking.inbound[0].servicePort: 8080
          for each task its own: networking.address
          reason: the task runs (MeshBinding demo)
      + service app  5 tasks: demo/4, demo/5, demo/6 and 2 more
          labels["kuma.io/workload"]: "app", networking.inbound[0].port: 15000
      + service kv  3 tasks: demo/1, demo/2, demo/3
          labels["kuma.io/workload"]: "kv", networking.inbound[0].port: 15050
      + create, later  9  service app  task demo/9
          labels["kuma.io/workload"]: "app"
          networking.address: "10.0.0.9"
          networking.inbound[0].port: 1
          networking.inbound[0].servicePort: 8080
          reason: the task runs (MeshBinding demo)
          precondition: later

    Entries of many tasks show examples; --all and --output json show each task.

    Plan: 9 to create, 0 to update, 0 to drain, 0 to remove; 0 unchanged, 0 ignored.
    "#);
    assert_eq!(text(many, PlanDetail::All).matches("+ create").count(), 9);
}
