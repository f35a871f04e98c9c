//! Sidecars of Kuma and Consul.

use serde_json::{Value, json};

use super::Severity::{Error, Info, Unknown, Warning};
use super::kuma::{at_kuma, declare};
use super::{AuditCase, AuditFixture, check, findings};

/// The field of a container of a task at Kuma: 0 is the app, 1 the sidecar.
fn at_kuma_with(world: &mut AuditFixture, container: usize, field: &str, value: Value) {
    at_kuma(world);
    world.definition["containerDefinitions"][container][field] = value;
}

/// A task at Consul with its proxy and its health sync, as the Terraform module of consul-ecs makes it.
fn at_consul(world: &mut AuditFixture) {
    let containers = world.definition["containerDefinitions"].as_array_mut().unwrap();
    containers[1]["dependsOn"] = json!([{"containerName": "consul-dataplane", "condition": "HEALTHY"}]);
    let init = json!([{"containerName": "consul-ecs-mesh-init", "condition": "SUCCESS"}]);
    containers.push(json!({
        "name": "consul-dataplane",
        "image": "hashicorp/consul-dataplane:1.5",
        "entryPoint": ["/consul/consul-ecs", "envoy-entrypoint"],
        "command": ["consul-dataplane", "-config-file", "/consul/consul-dataplane.json"],
        "dependsOn": init,
    }));
    containers.push(json!({
        "name": "consul-ecs-health-sync",
        "image": "public.ecr.aws/hashicorp/consul-ecs:0.10.0",
        "command": ["health-sync"],
        "dependsOn": init,
    }));
}

pub(super) const CASES: &[AuditCase] = &[
    ("KUMA-SIDECAR-AUTHENTICATION", Error, "neither --auth-type nor a data plane token", |world| {
        at_kuma_with(
            world,
            1,
            "command",
            json!(["kuma-dp run --name $ID --cp-address https://kuma.internal:5678"]),
        );
    }),
    ("KUMA-SIDECAR-AUTHENTICATION", Error, "--auth-type is \"iam\"", |world| {
        at_kuma_with(world, 1, "command", json!(["kuma-dp run --name $ID --auth-type=iam"]));
    }),
    ("KUMA-SIDECAR-AUTHENTICATION", Unknown, "environment file", |world| {
        at_kuma_with(world, 1, "command", json!(["kuma-dp", "run"]));
        world.definition["containerDefinitions"][1]["environmentFiles"] =
            json!([{"value": "arn", "type": "s3"}]);
    }),
    ("KUMA-SIDECAR-AUTHENTICATION", Unknown, "the image's own", |world| {
        at_kuma_with(world, 1, "command", Value::Null);
    }),
    ("KUMA-SIDECAR-NAME", Error, "--name is missing", |world| {
        at_kuma_with(world, 1, "command", json!(["kuma-dp run --auth-type=aws"]));
    }),
    ("KUMA-SIDECAR-NAME", Error, "\"kv\" in every task", |world| {
        at_kuma_with(world, 1, "command", json!(["kuma-dp", "run", "--auth-type=aws", "--name", "kv"]));
    }),
    ("KUMA-SIDECAR-MESH", Error, "\"other\", and \"default\" in MeshBinding prod", |world| {
        at_kuma_with(world, 1, "command", json!(["kuma-dp run --auth-type=aws --name $ID --mesh=other"]));
    }),
    ("KUMA-SIDECAR-MESH", Error, "\"other\"", |world| {
        at_kuma_with(world, 1, "environment", json!([{"name": "KUMA_DATAPLANE_MESH", "value": "other"}]));
    }),
    ("KUMA-SIDECAR-OWNER", Error, "has a Dataplane template, and dataplanes is operator", |world| {
        at_kuma_with(world, 1, "command", json!(["kuma-dp run --auth-type=aws -d /dp.yaml"]));
    }),
    ("KUMA-SIDECAR-OWNER", Error, "starts by name, and dataplanes is sidecar", |world| {
        at_kuma(world);
        declare(world, &json!({"dataplanes": "sidecar"}), &json!({}));
    }),
    ("KUMA-SIDECAR-REACH", Warning, "runs with --bind-outbounds", |world| {
        at_kuma_with(world, 1, "command", json!(["kuma-dp run --auth-type=aws --name $ID --bind-outbounds"]));
    }),
    ("KUMA-SIDECAR-HEALTH-CHECK", Warning, "asks port 9901", |world| {
        let check = json!({"command": ["CMD-SHELL", "curl -f http://127.0.0.1:9901/ready"]});
        at_kuma_with(world, 1, "healthCheck", check);
    }),
    ("KUMA-SIDECAR-STOP-TIMEOUT", Warning, "stopTimeout is 10 s, and the sidecar drains for 30 s", |world| {
        at_kuma_with(world, 1, "stopTimeout", json!(10));
    }),
    ("SIDECAR-NOT-ESSENTIAL", Warning, "essential is false", |world| {
        at_kuma_with(world, 1, "essential", json!(false));
    }),
    ("SIDECAR-NOT-ESSENTIAL", Info, "essential is false", |world| {
        at_consul(world);
        world.definition["containerDefinitions"][2]["essential"] = json!(false);
    }),
    ("SIDECAR-NOT-ESSENTIAL", Info, "essential is false", |world| {
        at_consul(world);
        world.definition["containerDefinitions"][3]["essential"] = json!(false);
    }),
    ("SIDECAR-ORDER", Warning, "does not depend on sidecar", |world| {
        at_kuma_with(world, 0, "dependsOn", json!([]));
    }),
    ("SIDECAR-ORDER", Warning, "does not depend on consul-dataplane", |world| {
        at_consul(world);
        world.definition["containerDefinitions"][1]["dependsOn"] = Value::Null;
    }),
];

#[test]
fn each_case_is_found() {
    check(CASES);
}

#[test]
fn task_of_the_terraform_module_is_valid() {
    assert_eq!(findings(at_consul), []);
}

#[test]
fn app_may_depend_on_its_sidecar_through_another_container() {
    let found = findings(|world| {
        at_kuma_with(world, 0, "dependsOn", json!([{"containerName": "wait", "condition": "SUCCESS"}]));
        let wait = json!({
            "name": "wait",
            "image": "wait:1",
            "essential": false,
            "dependsOn": [{"containerName": "sidecar", "condition": "START"}],
        });
        world.definition["containerDefinitions"].as_array_mut().unwrap().push(wait);
    });
    assert_eq!(found, []);
}

#[test]
fn every_essential_app_is_ordered_where_no_port_is_declared() {
    let found = findings(|world| {
        at_kuma_with(world, 0, "portMappings", json!([]));
        world.definition["containerDefinitions"][0]["name"] = json!("worker");
        world.definition["containerDefinitions"][0]["dependsOn"] = json!([]);
        world.definition["containerDefinitions"][2]["essential"] = json!(false);
    });
    let [only] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((only.rule, only.location.container.as_deref()), ("SIDECAR-ORDER", Some("worker")));
}

#[test]
fn zone_ingress_alone_in_its_task_needs_no_order() {
    let found = findings(|world| {
        at_kuma(world);
        let containers = world.definition["containerDefinitions"].as_array_mut().unwrap();
        containers.retain(|container| container["name"] == "sidecar");
    });
    assert_eq!(found, []);
}

#[test]
fn settings_that_fit_are_no_findings() {
    for (field, value) in [
        ("command", json!(["kuma-dp run --auth-type=aws --name $ID --mesh $MESH --drain-time=10s"])),
        ("command", json!(["kuma-dp run --auth-type=aws --proxy-type=ingress --name ingress"])),
        ("healthCheck", json!({"command": ["CMD-SHELL", "wget -qO- http://127.0.0.1:9902/ready"]})),
        ("stopTimeout", json!(120)),
    ] {
        assert_eq!(findings(|world| at_kuma_with(world, 1, field, value.clone())), [], "{value}");
    }
}

#[test]
fn sidecar_with_a_template_fits_its_workload() {
    for (binding, workload) in
        [("operator", json!({"dataplanes": "sidecar"})), ("sidecar", json!({})), ("observe", json!({}))]
    {
        let found = findings(|world| {
            let template = "kuma-dp run --auth-type=aws --dataplane-file=/dp.yaml --mesh other";
            at_kuma_with(world, 1, "command", json!([template]));
            declare(world, &json!({"dataplanes": binding}), &workload);
        });
        assert_eq!(found, [], "{binding} {workload}");
    }
}

#[test]
fn workloads_that_break_a_rule_are_one_problem() {
    let mut world = AuditFixture::good();
    at_kuma_with(&mut world, 1, "essential", json!(false));
    let mut facts = world.facts();
    let mut second = facts.definitions[0].clone();
    second.definition.containers[1].depends_on = Vec::new();
    second.definition.containers[1].stop_timeout = Some(10);
    facts.definitions.push(second);
    let report = crate::SidecarReport::of(&facts);
    let seen: Vec<_> = report.problems.iter().map(|one| (one.rule, one.definitions, &*one.example)).collect();
    assert_eq!(report.workloads, 1);
    assert_eq!(seen, [("KUMA-SIDECAR-STOP-TIMEOUT", 1, "kv"), ("SIDECAR-NOT-ESSENTIAL", 2, "kv")]);
    assert_eq!(report.problems[1].message, "sidecar: essential is false");
}
