//! Task roles.

use serde_json::{Value, json};

use super::Severity::{Error, Unknown, Warning};
use super::{AuditCase, AuditFixture, ROLE, check, failure, findings};
use ecs_mesh_aws::aws::AwsErrorKind;
use ecs_mesh_model::RoleArn;

const SERVICE: &str = "consul.hashicorp.com.service-name";
const NAMESPACE: &str = "consul.hashicorp.com.namespace";
const GATEWAY: &str = "consul.hashicorp.com.gateway-kind";

fn gateway(world: &mut AuditFixture, kind: &str) {
    let config = world.config.as_object_mut().unwrap();
    config.remove("service");
    config.remove("proxy");
    config.remove("healthSyncContainers");
    config.insert("gateway".to_owned(), json!({"kind": kind, "name": "kv"}));
}

/// The same task with another role whose other facts are unknown.
fn role(world: &mut AuditFixture, arn: &str) {
    world.definition["taskRoleArn"] = json!(arn);
    let seen = world.facts.roles.remove(&RoleArn::parse(ROLE).unwrap()).unwrap();
    world.facts.roles.insert(RoleArn::parse(arn).unwrap(), seen);
}

pub(super) const CASES: &[AuditCase] = &[
    ("ROLE-MISSING", Error, "NotFound", |world| {
        world.role().tags = Err(failure(AwsErrorKind::NotFound, "iam:GetRole"));
    }),
    ("ROLE-UNREADABLE", Unknown, "iam:GetRole failed: Denied", |world| {
        world.role().tags = Err(failure(AwsErrorKind::Denied, "iam:GetRole"));
    }),
    ("ROLE-UNREADABLE", Unknown, "not an ARN", |world| {
        world.definition["taskRoleArn"] = json!("kv-task");
    }),
    ("CONSUL-ROLE-TAG-SERVICE", Error, "\"web\"; the task registers \"kv\"", |world| {
        world.role_tag(SERVICE, "web");
    }),
    ("CONSUL-ROLE-TAG-SERVICE", Error, "the tag is missing", |world| {
        world.role().tags.as_mut().unwrap().clear();
    }),
    ("CONSUL-ROLE-TAG-NAMESPACE", Error, "\"team\", and service.namespace missing", |world| {
        world.role_tag(NAMESPACE, "team");
    }),
    ("CONSUL-ROLE-TAG-NAMESPACE", Error, "missing, and service.namespace \"team\"", |world| {
        world.config["service"]["namespace"] = json!("team");
        let tags = world.definition["tags"].as_array_mut().unwrap();
        for (what, value) in [("partition", "default"), ("namespace", "team")] {
            tags.push(json!({"key": format!("consul.hashicorp.com/{what}"), "value": value}));
        }
    }),
    ("CONSUL-ROLE-TAG-GATEWAY", Error, "known are", |world| world.role_tag(GATEWAY, "ingress-gateway")),
    ("CONSUL-ROLE-TAG-GATEWAY", Error, "missing, and gateway.kind is \"mesh-gateway\"", |world| {
        gateway(world, "mesh-gateway");
    }),
    ("CONSUL-ROLE-TAG-GATEWAY", Error, "and gateway.kind \"mesh-gateway\"", |world| {
        gateway(world, "mesh-gateway");
        world.role_tag(GATEWAY, "api-gateway");
    }),
    ("CONSUL-ROLE-TAG-GATEWAY", Warning, "is no gateway", |world| world.role_tag(GATEWAY, "mesh-gateway")),
    ("CONSUL-ROLE-PATH", Error, "trusts arn:aws:iam::111122223333:role/consul-ecs/*", |world| {
        role(world, "arn:aws:iam::111122223333:role/kv-task");
    }),
    ("ROLE-ACCOUNT", Error, "in account 999988887777, the tasks are in 111122223333", |world| {
        role(world, "arn:aws:iam::999988887777:role/consul-ecs/kv-task");
    }),
    ("CONSUL-ROLE-GET-ROLE", Error, "implicitDeny", |world| {
        let simulated = world.role().get_role.as_mut().unwrap().as_mut().unwrap();
        simulated.allowed = false;
        "implicitDeny".clone_into(&mut simulated.decision);
    }),
    ("CONSUL-ROLE-GET-ROLE", Unknown, "without the context keys aws:SourceVpc", |world| {
        let simulated = world.role().get_role.as_mut().unwrap().as_mut().unwrap();
        simulated.allowed = false;
        simulated.missing_context = vec!["aws:SourceVpc".to_owned()];
    }),
    ("CONSUL-ROLE-GET-ROLE", Unknown, "not checked for kv-task: Denied", |world| {
        world.role().get_role = Some(Err(failure(AwsErrorKind::Denied, "iam:SimulatePrincipalPolicy")));
    }),
    ("CONSUL-ROLE-SHARED", Warning, "tasks of kv, web run as this role", |world| {
        let mut other = AuditFixture::good();
        other.config["service"]["name"] = json!("web");
        world.facts.definitions.push(other.facts().definitions.remove(0));
        world.facts.roles.clear();
    }),
];

#[test]
fn shared_role_is_one_finding_naming_the_service_tag() {
    let found = findings(|world| {
        let mut other = AuditFixture::good();
        other.config["service"]["name"] = json!("web");
        world.facts.definitions.push(other.facts().definitions.remove(0));
    });
    assert_eq!(found.iter().map(|one| one.rule).collect::<Vec<_>>(), ["CONSUL-ROLE-TAG-SERVICE"]);
    assert!(found[0].fix.contains("role of its own: tasks of kv, web run as this role"), "{found:#?}");
}

#[test]
fn fix_never_sets_an_unknown_gateway_kind() {
    let fixes = |kind: Option<&str>, tag: Option<&str>| {
        let found = findings(|world| {
            if let Some(kind) = kind {
                gateway(world, kind);
            }
            if let Some(tag) = tag {
                world.role_tag(GATEWAY, tag);
            }
        });
        let of_tag = found.into_iter().filter(|one| one.rule == "CONSUL-ROLE-TAG-GATEWAY");
        of_tag.map(|one| one.fix).collect::<Vec<_>>()
    };
    for (kind, tag, words) in [
        (Some("mesh-gateway"), Some("ingress-gateway"), "Value=mesh-gateway"),
        (None, Some("ingress-gateway"), "Value=api-gateway"),
        (None, Some("mesh_gateway"), "Value=mesh-gateway"),
        (None, Some("mesh-gatway"), "Value=mesh-gateway"),
        (None, Some("terminating"), "Value=terminating-gateway"),
        (None, Some("whatever"), "untag-role"),
        (Some("ingress-gateway"), None, "first set gateway.kind to one of mesh-gateway"),
    ] {
        let fixes = fixes(kind, tag);
        assert_eq!(fixes.len(), 1, "{kind:?} {tag:?}");
        assert!(fixes[0].contains(words) && !fixes[0].contains("Value=ingress"), "{}", fixes[0]);
    }
    assert_eq!(fixes(Some("ingress-gateway"), Some("ingress-gateway")), Vec::<String>::new());
}

#[test]
fn each_case_is_found() {
    check(CASES);
}

#[test]
fn gateway_with_its_tag_is_valid() {
    let found = findings(|world| {
        gateway(world, "mesh-gateway");
        world.role_tag(GATEWAY, "mesh-gateway");
    });
    assert_eq!(found, []);
}

#[test]
fn definition_role_is_optional_when_tasks_override_it() {
    let found = findings(|world| {
        world.runs(&[("consul.hashicorp.com/mesh", "true")]);
        world.definition["taskRoleArn"] = Value::Null;
        world.uses[0].role = Some(RoleArn::parse(ROLE).unwrap());
    });
    assert_eq!(found, []);
}

#[test]
fn fix_names_the_role_and_the_service() {
    let found = findings(|world| world.role_tag(SERVICE, "web"));
    let fix = "aws iam tag-role --role-name kv-task --tags Key=consul.hashicorp.com.service-name,Value=kv";
    assert_eq!(found[0].fix, fix);
    assert_eq!(found[0].location.resource.as_deref(), Some(ROLE));
}
