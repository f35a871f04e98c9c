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

fn text(items: Vec<Planned>, detail: Detail) -> String {
    let proposal = Proposal::new("op", Timestamp(0), Manifests::default(), Vec::new(), Vec::new(), items);
    anstream::adapter::strip_str(&render(&proposal, detail)).to_string()
}

/// What a dead task left at Consul.
fn left(n: usize) -> Vec<Planned> {
    let (id, service) = (format!("{n:032x}"), if n.is_multiple_of(2) { "kv" } else { "web" });
    let cluster = "arn:aws:ecs:eu-west-1:111122223333:cluster/demo";
    let names = [
        format!("token/4fa6e11c-21d1-3462-a316-{n:012x}"),
        format!("service/{service}-{id}@{cluster}"),
        format!("service/{service}-{id}-sidecar-proxy@{cluster}"),
    ];
    let item = |name: String| Planned {
        control_plane: "consul".into(),
        ..planned(
            &id,
            Item {
                name: Some(name),
                service: Some(service.into()),
                binding: Some("demo".into()),
                ..Item::because(
                    Change::Remove,
                    &Why::new("absent", format!("not listed by two sweeps since {n} minutes ago")),
                )
            },
        )
    };
    names.map(item).into()
}

fn rejected(n: usize, role: usize) -> Planned {
    let words = format!("role r{role}-task: tag x is missing; aws iam tag-role --role-name r{role}-task");
    planned(&format!("{n:032x}"), Item::because(Change::Reject, &Why::new("x missing", words)))
}

#[test]
fn what_a_dead_task_left_is_one_entry() {
    insta::assert_snapshot!(text(left(7), Detail::Changes));
}

#[test]
fn many_dead_tasks_and_many_rejected_ones_are_an_entry_for_each_cause() {
    let mut items: Vec<Planned> = (0..1_000).flat_map(left).collect();
    items.extend((0..500).map(|n| rejected(n, n % 5)));
    insta::assert_snapshot!(text(items.clone(), Detail::Changes));
    let all = text(items, Detail::All);
    assert_eq!(all.matches("\n  - remove").count(), 1_000);
    assert_eq!(all.matches("\n  x reject").count(), 500);
}

#[test]
fn tokens_that_name_no_task_are_counted_and_some_are_named() {
    let mut proposal = proposal();
    let examples = vec!["4fa6e11c-21d1-3462-a316-99515e5544f7".to_owned()];
    let reason = "no_metadata";
    proposal.unplaced.push(Unplaced { control_plane: "consul".into(), reason, count: 12, examples });
    let text = anstream::adapter::strip_str(&render(&proposal, Detail::Changes)).to_string();
    let line = text.lines().find(|line| line.starts_with("not looked after: ")).unwrap();
    assert!(line.contains("12 login tokens") && line.contains("4fa6e11c-21d1"), "{line}");
    let json = serde_json::to_value(&proposal).unwrap();
    assert_eq!(json["unplaced"][0]["count"], 12);
}

#[test]
fn consul_has_no_mesh_and_an_enterprise_a_partition() {
    let at = |partition: Option<&str>| {
        let mut items = left(1);
        items.iter_mut().for_each(|planned| planned.item.partition = partition.map(str::to_owned));
        text(items, Detail::Changes).lines().next().unwrap().to_owned()
    };
    assert_eq!(at(None), "control plane consul");
    assert_eq!(at(Some("team")), "control plane consul, partition team");
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
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/plan.schema.json");
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
