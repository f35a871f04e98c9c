//! `CONSUL_ECS_CONFIG_JSON`: the value, the login, the servers.

use serde_json::{Value, json};

use super::Severity::{Error, Info, Unknown, Warning};
use super::{AuditCase, AuditFixture, SECRET, check, findings};
use crate::facts::AuditedAuthMethod;

fn login(world: &mut AuditFixture, field: &str, value: Value) {
    world.config["consulLogin"][field] = value;
}

fn servers(world: &mut AuditFixture, value: Value) {
    world.config["consulServers"] = value;
}

fn without_cas(world: &mut AuditFixture) {
    world.definition["containerDefinitions"][0]["secrets"] = json!([]);
}

fn older(world: &mut AuditFixture) {
    world.config.as_object_mut().unwrap().remove("consulServers");
    world.config["consulHTTPAddr"] = json!("https://consul.internal:8501");
    world.config["consulCACertFile"] = json!("/consul/ca.pem");
}

pub(super) const CASES: &[AuditCase] = &[
    ("CONSUL-CONFIG-MISSING", Error, "no container has", |world| world.config = Value::Null),
    ("CONSUL-CONFIG-MISSING", Unknown, "is a secret", |world| {
        world.config = Value::Null;
        let secret = json!({"name": "CONSUL_ECS_CONFIG_JSON", "valueFrom": "arn"});
        world.definition["containerDefinitions"][0]["secrets"] = json!([secret]);
    }),
    ("CONSUL-CONFIG-NOT-JSON", Error, "at line 1", |world| {
        world.config = Value::Null;
        world.more_configs = vec![(0, "{\"bootstrapDir\": ".to_owned())];
    }),
    ("CONSUL-CONFIG-NOT-JSON", Error, "not an object", |world| world.config = json!([])),
    ("CONSUL-CONFIG-DUPLICATED", Error, "differs from that of container consul-ecs-mesh-init", |world| {
        world.more_configs = vec![(1, json!({"bootstrapDir": "/other"}).to_string())];
    }),
    ("CONSUL-CONFIG-DUPLICATED", Warning, "twice", |world| {
        world.more_configs = vec![(0, world.config.to_string())];
    }),
    ("CONSUL-CONFIG-FIELD", Error, "did you mean enabled?", |world| login(world, "enable", json!(true))),
    ("CONSUL-CONFIG-FIELD", Warning, "ignores it", |world| {
        servers(world, json!({"hosts": "consul.internal", "http": {"ports": 8501}}));
    }),
    ("CONSUL-CONFIG-FIELD", Error, "neither service nor gateway", |world| {
        world.config.as_object_mut().unwrap().remove("service");
    }),
    ("CONSUL-SERVICE-NAME", Error, "the family gives \"kv-\"", |world| {
        world.config["service"] = json!({"port": 1});
        world.definition["family"] = json!("kv-");
    }),
    ("CONSUL-SERVICE-NAME", Error, "\"Kv\"", |world| world.config["service"]["name"] = json!("Kv")),
    ("CONSUL-SERVICE-META", Error, "task-id is set", |world| {
        world.config["service"]["meta"] = json!({"task-id": "x"});
    }),
    ("CONSUL-SERVICE-META", Error, "refuses the key \"a.b\"", |world| {
        world.config["service"]["meta"] = json!({"a.b": "x"});
    }),
    ("CONSUL-LOGIN-DISABLED", Error, "is false, and ACLs are on", |world| {
        login(world, "enabled", json!(false));
    }),
    ("CONSUL-LOGIN-DISABLED", Error, "absent", |world| world.config["consulLogin"] = Value::Null),
    ("CONSUL-LOGIN-DISABLED", Info, "was not requested", |world| {
        login(world, "enabled", json!(false));
        world.facts.control_planes.clear();
    }),
    ("CONSUL-LOGIN-STATIC-TOKEN", Warning, "login is skipped", |world| {
        let token = json!({"name": "CONSUL_HTTP_TOKEN", "valueFrom": "arn"});
        let secrets = &mut world.definition["containerDefinitions"][0]["secrets"];
        secrets.as_array_mut().unwrap().push(token);
    }),
    ("CONSUL-LOGIN-METHOD", Error, "prod has iam-ecs-service-token", |world| {
        login(world, "method", json!("other"));
    }),
    ("CONSUL-LOGIN-METHOD", Error, "none of type aws-iam", |world| {
        world.plane().declared = Some(Vec::new());
        world.plane().response = None;
    }),
    ("CONSUL-LOGIN-META", Error, "sets this key itself", |world| {
        login(world, "meta", json!({"consul.hashicorp.com/task-id": "x"}));
    }),
    ("CONSUL-LOGIN-FLAGS", Error, "-meta sets consul.hashicorp.com/cluster", |world| {
        older(world);
        login(world, "extraLoginFlags", json!(["-meta", "consul.hashicorp.com/cluster=x"]));
    }),
    ("CONSUL-LOGIN-FLAGS", Error, "-type is \"jwt\"", |world| {
        older(world);
        login(world, "extraLoginFlags", json!(["-type=jwt"]));
    }),
    ("CONSUL-LOGIN-FLAGS", Error, "-partition is \"p2\"", |world| {
        older(world);
        login(world, "extraLoginFlags", json!(["-partition", "p2"]));
    }),
    ("CONSUL-LOGIN-ENTITY", Error, "has EnableIAMEntityDetails", |world| {
        login(world, "includeEntity", json!(false));
    }),
    ("CONSUL-LOGIN-ENTITY", Warning, "has no EnableIAMEntityDetails", |world| {
        let method = world.method();
        method.entity_details = false;
        method.principals = vec![super::ROLE.replace("consul-ecs/", "")];
    }),
    ("CONSUL-LOGIN-STS", Error, "has none", |world| {
        login(world, "stsEndpoint", json!("https://sts.eu-west-1.amazonaws.com"));
    }),
    ("CONSUL-LOGIN-STS", Error, "stsEndpoint is in \"eu-west-1\"", |world| {
        login(world, "stsEndpoint", json!("https://sts.eu-west-1.amazonaws.com"));
        login(world, "region", json!("us-east-1"));
        world.method().sts_endpoint = Some("https://sts.eu-west-1.amazonaws.com".to_owned());
    }),
    ("CONSUL-LOGIN-STS", Error, "not the ServerIDHeaderValue", |world| {
        login(world, "serverIdHeaderValue", json!(SECRET));
    }),
    ("CONSUL-SERVERS-ADDRESS", Error, "has a scheme", |world| {
        servers(world, json!({"hosts": "https://consul.internal"}));
    }),
    ("CONSUL-SERVERS-ADDRESS", Error, "is missing, and the login needs it", |world| {
        older(world);
        world.config.as_object_mut().unwrap().remove("consulHTTPAddr");
    }),
    ("CONSUL-SERVERS-TLS", Warning, "off for HTTP and on for gRPC", |world| {
        servers(world, json!({"hosts": "consul.internal", "http": {"https": false, "port": 8500}}));
    }),
    ("CONSUL-SERVERS-TLS", Warning, "8501 (the default)", |world| {
        let tls = json!({"tls": false});
        servers(
            world,
            json!({"hosts": "c", "defaults": tls, "http": {"https": false}, "grpc": {"port": 8502}}),
        );
    }),
    ("CONSUL-SERVERS-CA", Warning, "TLS is on for http without a CA", |world| {
        world.definition["containerDefinitions"][0]["secrets"].as_array_mut().unwrap().remove(0);
    }),
    ("CONSUL-SERVERS-CA", Info, "a public CA", without_cas),
    ("CONSUL-SERVERS-CA", Warning, "TLS is off", |world| {
        let (grpc, http) = (json!({"tls": false, "port": 8502}), json!({"https": false, "port": 8500}));
        servers(world, json!({"hosts": "consul.internal", "grpc": grpc, "http": http}));
    }),
    ("CONSUL-SERVERS-NAME", Info, "gives addresses", |world| servers(world, json!({"hosts": "10.0.0.7"}))),
];

#[test]
fn each_case_is_found() {
    check(CASES);
}

#[test]
fn same_value_in_several_containers_is_valid() {
    assert_eq!(findings(|world| world.more_configs = vec![(1, world.config.to_string())]), []);
}

#[test]
fn disabled_login_is_valid_when_acls_are_off() {
    let without = |world: &mut AuditFixture| {
        login(world, "enabled", json!(false));
        world.consul().acls = Ok(false);
    };
    let found = findings(without);
    let of_logins = ["CONSUL-LOGIN-DISABLED", "CONSUL-ACLS-OFF"];
    assert!(!found.iter().any(|one| of_logins.contains(&one.rule)), "{found:#?}");
    // A declared ConsulAuth implies that ACLs are needed.
    let found = findings(|world| {
        without(world);
        world.plane().declared = Some(vec![AuditedAuthMethod::default()]);
    });
    assert!(found.iter().any(|one| one.rule == "CONSUL-ACLS-OFF"), "{found:#?}");
}

#[test]
fn older_form_with_partition_flag_is_valid() {
    let found = findings(|world| {
        older(world);
        login(world, "extraLoginFlags", json!(["-partition", "p1"]));
        world.config["service"]["partition"] = json!("p1");
        world.config["service"]["namespace"] = json!("default");
        let tag = |key: &str, value: &str| json!({"key": key, "value": value});
        world.definition["tags"] = json!([
            tag("consul.hashicorp.com/mesh", "true"),
            tag("consul.hashicorp.com/partition", "p1"),
            tag("consul.hashicorp.com/namespace", "default"),
        ]);
    });
    assert_eq!(found, []);
}

#[test]
fn controller_configuration_is_not_checked_as_a_task() {
    let found = findings(|world| {
        world.config = json!({
            "bootstrapDir": "/consul",
            "controller": {"iamRolePath": "/consul-ecs/"},
            "consulServers": {"hosts": "consul.internal"},
        });
        let token = json!({"name": "CONSUL_HTTP_TOKEN", "valueFrom": "arn"});
        let secrets = &mut world.definition["containerDefinitions"][0]["secrets"];
        secrets.as_array_mut().unwrap().push(token);
        world.definition["networkMode"] = Value::Null;
    });
    assert_eq!(found, []);
}
