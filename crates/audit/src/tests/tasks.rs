//! The task, its upstreams, its secrets, and facts that could not be read.

use serde_json::{Value, json};

use super::Severity::{Error, Info, Unknown, Warning};
use super::{AuditCase, AuditFinding, AuditFixture, SECRET, check, failure, findings};
use crate::report::FindingLocation;
use ecs_mesh_aws::aws::AwsErrorKind;
use ecs_mesh_model::TaskDefinitionArn;

fn upstreams(world: &mut AuditFixture, all: Value) {
    world.config["proxy"]["upstreams"] = all;
}

fn variable(world: &mut AuditFixture, name: &str, value: &str) {
    world.definition["containerDefinitions"][1]["environment"] = json!([{"name": name, "value": value}]);
}

/// A Workload of this service, with an outbound to `db` on this port.
fn outbound(world: &mut AuditFixture, service: &str, port: u16) {
    let workload = json!({
        "apiVersion": "ecs-mesh.dev/v1alpha1",
        "kind": "Workload",
        "metadata": {"name": "kv"},
        "spec": {"service": "kv", "selector": {"families": ["kv"]}},
    });
    let list = json!({
        "apiVersion": "ecs-mesh.dev/v1alpha1",
        "kind": "OutboundList",
        "metadata": {"name": "dbs"},
        "spec": {"workloads": ["kv"], "outbounds": [{"service": service, "targetPort": 5432, "listen": {"port": port}}]},
    });
    world.manifests = format!("{workload}\n---\n{list}\n");
}

pub(super) const CASES: &[AuditCase] = &[
    ("TASK-DEFINITION-UNREADABLE", Error, "not JSON", |world| {
        let at = FindingLocation { file: Some("bad.json".into()), ..FindingLocation::default() };
        world.facts.unreadable.push((at, "not JSON".to_owned()));
    }),
    ("TASK-DEFINITION-UNREADABLE", Unknown, "Denied", |world| {
        let arn = TaskDefinitionArn::parse("arn:aws:ecs:eu-west-1:111122223333:task-definition/x:1").unwrap();
        world
            .facts
            .unreadable_definitions
            .insert(arn, failure(AwsErrorKind::Denied, "ecs:DescribeTaskDefinition"));
    }),
    ("MANIFEST-INVALID", Error, "", |world| world.manifests = "kind: Nothing\n".to_owned()),
    ("NOT-IN-MESH", Info, "no container of kuma-dp or consul-ecs", |world| {
        world.config = Value::Null;
        world.definition["containerDefinitions"] = json!([{"name": "app", "image": "kv:1"}]);
        world.definition["tags"] = json!([]);
    }),
    ("AUDIT-AWS-NO-ANSWER", Unknown, "no Region", |world| {
        world.facts.aws = Some(Err("no Region was found".to_owned()));
    }),
    ("AUDIT-AWS-NO-ANSWER", Unknown, "ecs:ListTasks failed", |world| {
        let error = Err(failure(AwsErrorKind::Denied, "ecs:ListTasks"));
        world.facts.clusters.insert(super::cluster(), error);
    }),
    ("SECRET-IN-PLAIN-TEXT", Error, "CONSUL_HTTP_TOKEN contains a token", |world| {
        variable(world, "CONSUL_HTTP_TOKEN", SECRET);
    }),
    ("SECRET-IN-PLAIN-TEXT", Error, "CONSUL_ECS_CONFIG_JSON contains a token", |world| {
        world.config["proxy"]["config"] = json!({"token": SECRET});
    }),
    ("SECRET-IN-PLAIN-TEXT", Error, "the value contains a token", |world| {
        world.definition["containerDefinitions"][1]["command"] =
            json!(["consul", "login", format!("-token={SECRET}")]);
    }),
    ("TASK-ROLE-MISSING", Error, "absent", |world| world.definition["taskRoleArn"] = Value::Null),
    ("NETWORK-MODE", Error, "\"bridge\"", |world| world.definition["networkMode"] = json!("bridge")),
    ("NETWORK-MODE", Error, "absent", |world| world.definition["networkMode"] = Value::Null),
    (
        "CONSUL-HEALTH-SYNC-CONTAINER",
        Error,
        "container \"web\" does not exist; containers are consul-ecs-mesh-init, app",
        |world| {
            world.config["healthSyncContainers"] = json!(["web"]);
        },
    ),
    ("CONSUL-HEALTH-SYNC-CONTAINER", Error, "has no healthCheck", |world| {
        world.definition["containerDefinitions"][1]["healthCheck"] = Value::Null;
    }),
    ("CONSUL-TASK-TAG-MESH", Warning, "do not have the tag", |world| world.runs(&[])),
    ("CONSUL-TASK-TAG-MESH", Warning, "\"True\"", |world| {
        world.definition["tags"] = json!([{"key": "consul.hashicorp.com/mesh", "value": "True"}]);
    }),
    ("CONSUL-TASK-TAG-MESH", Info, "the service may add it", |world| world.definition["tags"] = json!([])),
    ("CONSUL-TASK-TAG-PARTITION", Error, "without consul.hashicorp.com/namespace", |world| {
        world.runs(&[("consul.hashicorp.com/mesh", "true"), ("consul.hashicorp.com/partition", "default")]);
    }),
    ("CONSUL-TASK-TAG-PARTITION", Error, "\"p1\", and service.partition \"default\"", |world| {
        world.runs(&[
            ("consul.hashicorp.com/mesh", "true"),
            ("consul.hashicorp.com/partition", "p1"),
            ("consul.hashicorp.com/namespace", "default"),
        ]);
    }),
    ("CONSUL-UPSTREAM-NAME", Error, "\"DB\"", |world| {
        upstreams(world, json!([{"destinationName": "DB", "localBindPort": 5432}]));
    }),
    ("CONSUL-UPSTREAM-DUPLICATE", Error, "\"db\" is also proxy.upstreams[0]", |world| {
        let one = |port: u16| json!({"destinationName": "db", "localBindPort": port});
        upstreams(world, json!([one(5432), one(5433)]));
    }),
    ("PORT-CLASH", Error, "127.0.0.1:5432 is also used by proxy.upstreams[0]", |world| {
        let one = |name: &str| json!({"destinationName": name, "localBindPort": 5432});
        upstreams(world, json!([one("db"), one("cache")]));
    }),
    ("CONSUL-UPSTREAM-PORT", Error, "70000 is not a port", |world| {
        upstreams(world, json!([{"destinationName": "db", "localBindPort": 70_000}]));
    }),
    ("PORT-CLASH", Error, "20000 is the proxy's public listener", |world| {
        upstreams(world, json!([{"destinationName": "db", "localBindPort": 20_000}]));
    }),
    ("CONSUL-OUTBOUND-UNREACHED", Warning, "may call cache on port 6379", |world| {
        outbound(world, "cache", 6379);
    }),
    ("CONSUL-OUTBOUND-UNREACHED", Warning, "the upstream's port is 5432", |world| {
        outbound(world, "db", 5555);
    }),
    ("CONSUL-UPSTREAM-UNLISTED", Warning, "calls db", |world| outbound(world, "cache", 6379)),
];

#[test]
fn each_case_is_found() {
    check(CASES);
}

#[test]
fn outbound_with_matching_upstream_is_valid() {
    assert_eq!(findings(|world| outbound(world, "db", 5432)), []);
}

#[test]
fn outbounds_are_compared_for_tasks_and_files_alike() {
    let differ = |world: &mut AuditFixture| outbound(world, "cache", 6379);
    let rules = |message: Vec<AuditFinding>| message.iter().map(|one| one.rule).collect::<Vec<_>>();
    let of_a_file = rules(findings(differ));
    let of_what_runs = rules(findings(|world| {
        world.runs(&[("consul.hashicorp.com/mesh", "true")]);
        differ(world);
    }));
    assert_eq!(of_a_file, ["CONSUL-OUTBOUND-UNREACHED", "CONSUL-UPSTREAM-UNLISTED"]);
    assert_eq!(of_what_runs, of_a_file);
}

#[test]
fn workload_of_other_mesh_does_not_affect_upstreams() {
    let kuma = json!({
        "apiVersion": "ecs-mesh.dev/v1alpha1", "kind": "ControlPlane", "metadata": {"name": "kuma"},
        "spec": {"type": "kuma", "kuma": {"address": "https://kuma.internal:5682"}},
    });
    let binding = json!({
        "apiVersion": "ecs-mesh.dev/v1alpha1", "kind": "MeshBinding", "metadata": {"name": "kuma"},
        "spec": {"controlPlane": "kuma", "mesh": "default", "selector": {"clusters": ["*"]}, "roleTags": {"mode": "off"}},
    });
    let found = findings(|world| {
        outbound(world, "cache", 6379);
        let of_kuma =
            world.manifests.replacen("\"service\":\"kv\"", "\"service\":\"kv\",\"bindings\":[\"kuma\"]", 1);
        assert_ne!(of_kuma, world.manifests);
        world.manifests = format!("{kuma}\n---\n{binding}\n---\n{of_kuma}");
    });
    assert_eq!(found, []);
}

#[test]
fn task_with_consul_dns_needs_no_upstream() {
    let found = findings(|world| {
        outbound(world, "cache", 6379);
        world.config["transparentProxy"] = json!({"enabled": true, "consulDNS": {"enabled": true}});
        upstreams(world, json!([]));
    });
    assert_eq!(found, []);
}

#[test]
fn prepared_query_may_have_any_name() {
    let query = json!({"destinationType": "prepared_query", "destinationName": "Any", "localBindPort": 5432});
    assert_eq!(findings(|world| upstreams(world, json!([query]))), []);
}

#[test]
fn finding_has_file_line_container_and_field() {
    let found = findings(|world| world.config["consulLogin"]["enabled"] = json!(false));
    let at = &found[0].location;
    assert_eq!((at.file.as_deref(), at.line), (Some("task.json"), Some(1)));
    assert_eq!(at.container.as_deref(), Some("consul-ecs-mesh-init"));
    assert_eq!(at.field.as_deref(), Some("CONSUL_ECS_CONFIG_JSON.consulLogin.enabled"));
    let running = findings(|world| {
        world.runs(&[("consul.hashicorp.com/mesh", "true")]);
        world.definition["networkMode"] = json!("host");
    });
    let at = &running[0].location;
    assert_eq!(at.resource.as_deref(), Some("arn:aws:ecs:eu-west-1:111122223333:task-definition/kv:7"));
    assert_eq!((at.file.as_deref(), at.field.as_deref()), (None, Some("networkMode")));
}

#[test]
fn running_definitions_outside_consul_are_one_finding() {
    let found = findings(|world| {
        world.runs(&[]);
        world.config = Value::Null;
        world.definition["tags"] = json!([]);
        world.definition["containerDefinitions"] = json!([{"name": "app", "image": "kv:1"}]);
    });
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].message.contains("1 running task definitions: kv"), "{found:#?}");
}
