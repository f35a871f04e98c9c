//! A plan as its readers see it.

use serde_json::json;

use super::*;
use crate::plan::FieldChange;

fn planned(id: &str, item: Item) -> Planned {
    let task = format!("arn:aws:ecs:eu-west-1:111122223333:task/demo/{id}");
    Planned { control_plane: "kuma".into(), task: Some(TaskArn::parse(&task).unwrap()), item }
}

fn item(change: Change, reason: &str) -> Item {
    Item {
        mesh: Some("default".into()),
        name: Some("dp-1".into()),
        service: Some("app".into()),
        binding: Some("demo".into()),
        ..Item::new(change, reason)
    }
}

/// One of everything.
fn proposal() -> Proposal {
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
    let items = vec![
        planned("1", Item { registration: Some(registration), ..item(Change::Create, "the task runs") }),
        planned("2", Item { fields: vec![field], ..item(Change::Update, "it differs in these fields") }),
        planned(
            "3",
            Item { then: Some("removed later".into()), ..item(Change::Drain, "ECS is stopping the task") },
        ),
        planned("4", Item { after: Some("once it is missing".into()), ..item(Change::Remove, "not listed") }),
        planned("5", Item { blocked_by: Some(Blocked::Guard), ..item(Change::Remove, "too many") }),
        planned("6", Item { blocked_by: Some(Blocked::Policy), ..item(Change::Drain, "upsert-only") }),
        planned("7", Item { blocked_by: Some(Blocked::Paused), ..item(Change::Create, "the task runs") }),
        planned("8", Item::new(Change::Reject, "tag kuma.io/mesh is missing")),
        planned("9", Item::new(Change::Unknown, "GetRole was denied")),
        planned("10", Item::new(Change::Unknown, "GetRole was denied")),
        planned("11", Item::new(Change::Ignore, "no Workload selects the task")),
        planned("12", item(Change::Unchanged, "it is as it should be")),
    ];
    let gaps = vec![Gap { what: "control plane away".into(), why: "connection refused".into() }];
    let warning = |task: &str| Warning {
        control_plane: "kuma".into(),
        task: task.into(),
        message: "role tags".into(),
        cause: "role tags".into(),
    };
    Proposal::new("op", Timestamp(0), Manifests::default(), gaps, vec![warning("1"), warning("2")], items)
}

#[test]
fn a_plan_reads_as_its_sections() {
    let text = anstream::adapter::strip_str(&render(&proposal(), Detail::Changes)).to_string();
    insta::assert_snapshot!(text);
}

#[test]
fn what_is_blocked_is_not_counted_as_to_be_done() {
    let proposal = proposal();
    let s = &proposal.summary;
    assert_eq!((s.create, s.update, s.drain, s.remove), (1, 1, 1, 1));
    assert_eq!((s.held_back_by_guard, s.skipped_by_policy, s.paused, s.unknown), (1, 1, 1, 2));
    assert!(proposal.will_write() && !proposal.complete);
}

#[test]
fn every_label_of_the_metric_is_listed() {
    let listed: Vec<&str> = labels().collect();
    for planned in proposal().items {
        assert!(listed.contains(&label(&planned.item)), "{planned:?}");
    }
}

/// Of what is written: a field that is left out where it is empty need not be there.
fn schema() -> schemars::Schema {
    schemars::generate::SchemaSettings::default()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<Proposal>()
}

/// The committed schema is that of the types. `UPDATE_GOLDEN=1` renews it.
#[test]
fn the_schema_of_the_json_form_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/plan.schema.json");
    let schema = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), schema, "renew it with UPDATE_GOLDEN=1");
}

#[test]
fn what_the_schema_requires_is_there_even_where_it_is_empty() {
    let schema = schema().to_value();
    let required = |of: &serde_json::Value| -> Vec<String> {
        serde_json::from_value(of["required"].clone()).unwrap_or_default()
    };
    let of_item = required(&schema["$defs"]["Planned"]);
    assert!(of_item.iter().any(|name| name == "change"), "{schema}");
    let json = serde_json::to_value(proposal()).unwrap();
    assert!(required(&schema).iter().all(|name| json.get(name).is_some()), "{json}");
    for item in json["items"].as_array().unwrap() {
        assert!(of_item.iter().all(|name| item.get(name).is_some()), "{item}");
    }
}
