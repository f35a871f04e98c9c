//! Tasks, roles and workloads at Kuma.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::Severity::{Error, Info, Unknown, Warning};
use super::{AuditCase, AuditFixture, ROLE, check, cluster, failure, findings, tags};
use crate::examine;
use crate::facts::{
    AuditedKumaPlane, DefinitionUse, InexpressibleWorkload, IngressListener, KumaFacts, KumaUpgrade,
};
use ecs_mesh_api::BackendKind;
use ecs_mesh_aws::aws::AwsErrorKind;
use ecs_mesh_aws::inspect::{AttachedPolicies, AuthorizationDetails, PrincipalDetails};
use ecs_mesh_core::intent::{MeshBackend, MeshServices};
use ecs_mesh_core::plan::report::{UpgradeBlocker, UpgradeBlockerKind, UpgradeCheck};
use ecs_mesh_model::{MeshName, RoleArn, Tags};

const ADMIN: &str = "arn:aws:iam::aws:policy/AdministratorAccess";

fn document(kind: &str, name: &str, spec: &Value) -> String {
    json!({"apiVersion": "ecs-mesh.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
        .to_string()
}

/// Manifests with changes of the binding and of the workload `kv`.
pub(super) fn declare(world: &mut AuditFixture, binding_changes: &Value, workload_changes: &Value) {
    let merged = |mut spec: Value, changes: &Value| {
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        spec
    };
    let control_plane = json!({"type": "kuma", "kuma": {"address": "https://kuma.internal:5682"}});
    let binding =
        json!({"controlPlane": "kuma", "mesh": "default", "selector": {"clusters": [super::CLUSTER]}});
    let kv = json!({
        "service": "kv",
        "selector": {"services": ["kv"]},
        "inbounds": [{"name": "http", "container": "app", "containerPort": 8080, "port": 15_000}],
        "outbounds": [{"service": "db", "targetPort": 15_432, "listen": {"port": 5_432}}],
    });
    let db = json!({
        "service": "db",
        "selector": {"services": ["db"]},
        "inbounds": [{"containerPort": 5_433, "port": 15_432}],
    });
    world.manifests = [
        document("ControlPlane", "kuma", &control_plane),
        document("MeshBinding", "prod", &merged(binding, binding_changes)),
        document("Workload", "kv", &merged(kv, workload_changes)),
        document("Workload", "db", &db),
    ]
    .join("\n---\n");
}

/// Adds a document.
fn declare_more(world: &mut AuditFixture, kind: &str, name: &str, spec: &Value) {
    world.manifests = format!("{}\n---\n{}", world.manifests, document(kind, name, spec));
}

/// A correct set-up of a running task at Kuma instead of one at Consul.
pub(super) fn at_kuma(world: &mut AuditFixture) {
    world.config = Value::Null;
    world.definition = json!({
        "taskDefinitionArn": "arn:aws:ecs:eu-west-1:111122223333:task-definition/kv:7",
        "family": "kv",
        "taskRoleArn": ROLE,
        "networkMode": "awsvpc",
        "containerDefinitions": [
            {
                "name": "app",
                "image": "kv:1",
                "portMappings": [{"containerPort": 8080}],
                "dependsOn": [{"containerName": "sidecar", "condition": "START"}],
            },
            {
                "name": "sidecar",
                "image": "kong/kuma-dp:2.14.0",
                "essential": true,
                "portMappings": [{"containerPort": 15_000}, {"containerPort": 9_901}],
                "command": ["kuma-dp run --name \"$TASK_ID\" --auth-type=aws --cp-address https://kuma.internal:5678"],
            },
            {"name": "xray", "image": "xray:1", "portMappings": [{"containerPort": 2_000}]},
        ],
    });
    world.uses = vec![DefinitionUse {
        cluster: cluster(),
        service: Some("kv".into()),
        role: None,
        tags: Tags::new(),
        kuma: BTreeMap::from([(Arc::from("prod"), vec![Arc::from("kv")])]),
    }];
    declare(world, &json!({}), &json!({}));
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let facts = &mut world.facts;
    facts.control_planes.clear();
    let kuma = KumaFacts {
        services: BTreeMap::from([(
            MeshName::default(),
            Ok(MeshServices { names: Some(names(&["kv", "db", "legacy"])), resources: Vec::new() }),
        )]),
        ..KumaFacts::default()
    };
    let plane = AuditedKumaPlane { clusters: BTreeSet::from([cluster()]), response: Some(Ok(kuma)) };
    facts.kuma = BTreeMap::from([(Arc::from("kuma"), plane)]);
    facts.services = BTreeMap::from([(cluster(), Ok(names(&["kv", "db"])))]);
    facts.workloads_in_use = BTreeSet::from([Arc::from("kv")]);
    facts.in_organization = Some(false);
    facts.authorization = Some(Ok(AuthorizationDetails::default()));
    facts.upgrade_requested = true;
    let role = world.role();
    role.tags = Ok(tags(&[
        ("kuma.io/type", "dataplane"),
        ("kuma.io/mesh", "default"),
        ("kuma.io/service", "kv"),
        ("team", "a"),
    ]));
    role.get_role = None;
}

fn ingress(has_address: Result<bool, String>) -> IngressListener {
    IngressListener { workload: "kv".into(), mesh: MeshName::default(), has_address }
}

fn kuma_facts(world: &mut AuditFixture) -> &mut KumaFacts {
    world.facts.kuma.values_mut().next().unwrap().response.as_mut().unwrap().as_mut().unwrap()
}

/// A mesh with services as resources, none of which is of a Workload.
fn with_resources(world: &mut AuditFixture) {
    let backend = |kind: BackendKind, name: &str, port: u16| MeshBackend {
        kind,
        name: name.to_owned(),
        labels: Tags::new(),
        ports: vec![port],
        addresses: Vec::new(),
    };
    let known = vec![
        backend(BackendKind::MeshService, "legacy", 15_000),
        backend(BackendKind::MeshExternalService, "payments", 443),
    ];
    kuma_facts(world)
        .services
        .insert(MeshName::default(), Ok(MeshServices { names: None, resources: known }));
}

fn details(world: &mut AuditFixture) -> &mut AuthorizationDetails {
    world.facts.authorization.as_mut().unwrap().as_mut().unwrap()
}

fn principal(name: &str, role_tags: &[(&str, &str)], managed: &[&str]) -> PrincipalDetails {
    PrincipalDetails {
        arn: format!("arn:aws:iam::111122223333:role/{name}"),
        tags: tags(role_tags),
        policies: AttachedPolicies {
            managed: managed.iter().map(|arn| (*arn).to_owned()).collect(),
            ..AttachedPolicies::default()
        },
        ..PrincipalDetails::default()
    }
}

/// An administrator, whom no statement restricts.
fn administrator(world: &mut AuditFixture) {
    let details = details(world);
    let everything = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}});
    details.managed.insert(ADMIN.to_owned(), everything.to_string());
    details.principals.push(principal("admin", &[], &[ADMIN]));
}

/// No workload selects the tasks, and their tags describe them.
fn describe_by_tags(world: &mut AuditFixture, keys: &[(&str, &str)]) {
    declare(world, &json!({"discovery": "tags"}), &json!({}));
    world.uses[0].tags = tags(keys);
    world.uses[0].kuma = BTreeMap::from([(Arc::from("prod"), Vec::new())]);
}

fn blocked_upgrade() -> KumaUpgrade {
    let blocker = UpgradeBlocker {
        kind: UpgradeBlockerKind::BuiltinGateway,
        mesh: Some("default".to_owned()),
        resource: "Dataplane",
        count: 4,
        examples: vec!["edge-1".to_owned(), "edge-2".to_owned(), "edge-3".to_owned()],
        reason: "3.0 cannot read it".to_owned(),
        fix: "delete it".to_owned(),
    };
    let check = UpgradeCheck {
        current_version: "Kuma 2.14.3".to_owned(),
        target_version: "3.0".to_owned(),
        blockers: vec![blocker],
    };
    KumaUpgrade { check, not_expressible: Vec::new() }
}

/// A rule, and what breaks it, at Kuma.
macro_rules! cases {
    ($(($rule:literal, $severity:ident, $words:literal, $break_it:expr)),* $(,)?) => {
        &[$(($rule, $severity, $words, |world| {
            at_kuma(world);
            let break_it: fn(&mut AuditFixture) = $break_it;
            break_it(world);
        })),*]
    };
}

pub(super) const CASES: &[AuditCase] = cases![
    ("KUMA-ROLE-TAG", Error, "kuma.io/mesh is \"other\", needed is \"default\"", |world| {
        world.role_tag("kuma.io/mesh", "other");
    }),
    ("KUMA-ROLE-TAG", Error, "kuma.io/type is missing", |world| {
        world.role().tags.as_mut().unwrap().remove("kuma.io/type");
    }),
    ("KUMA-ROLE-TAG", Warning, "kuma.io/service is \"web\"", |world| {
        declare(world, &json!({"roleTags": {"mode": "warn"}}), &json!({}));
        world.role_tag("kuma.io/service", "web");
    }),
    ("KUMA-ROLE-ACCOUNT", Error, "the binding authorises 444455556666", |world| {
        declare(world, &json!({"roleTags": {"authorizedAccounts": ["444455556666"]}}), &json!({}));
    }),
    ("KUMA-ROLE-TAG-UNUSED", Warning, "kuma.io/mesh is \"old\": no MeshBinding has this mesh", |world| {
        details(world).principals.push(principal("old", &[("kuma.io/mesh", "old")], &[]));
    }),
    ("KUMA-ROLE-TAG-UNUSED", Warning, "no Workload has this service", |world| {
        details(world).principals.push(principal("old", &[("kuma.io/service", "web")], &[]));
    }),
    ("KUMA-ROLE-TAG-UNUSED", Warning, "no Workload has this label", |world| {
        details(world).principals.push(principal("old", &[("kuma.io/workload", "web")], &[]));
    }),
    ("KUMA-ROLE-TAG-UNUSED", Warning, "none of dataplane", |world| {
        details(world).principals.push(principal("old", &[("kuma.io/type", "gateway")], &[]));
    }),
    ("KUMA-ROLE-TAG-UNUSED", Warning, "did you mean kuma.io/mesh?", |world| {
        world.role_tag("Kuma.io/mesh", "default");
    }),
    ("MESH-TAGS-UNRESTRICTED", Warning, "to 1 principals: role/admin", administrator),
    ("MESH-TAGS-UNRESTRICTED", Info, "service control policy", |world| {
        administrator(world);
        world.facts.in_organization = Some(true);
    }),
    ("MESH-TAGS-UNRESTRICTED", Unknown, "Denied", |world| {
        let error = failure(AwsErrorKind::Denied, "iam:GetAccountAuthorizationDetails");
        world.facts.authorization = Some(Err(error));
    }),
    ("TASK-ROLE-MISSING", Error, "taskRoleArn is absent", |world| {
        world.definition["taskRoleArn"] = Value::Null;
        world.facts.roles.clear();
    }),
    ("NETWORK-MODE", Error, "\"bridge\"", |world| world.definition["networkMode"] = json!("bridge")),
    ("ROLE-MISSING", Error, "NotFound", |world| {
        world.role().tags = Err(failure(AwsErrorKind::NotFound, "iam:GetRole"));
    }),
    ("ROLE-ACCOUNT", Error, "the tasks are in 111122223333", |world| {
        let foreign = ROLE.replace("111122223333", "999988887777");
        let role = world.role().clone();
        world.definition["taskRoleArn"] = json!(foreign);
        world.facts.roles = BTreeMap::from([(RoleArn::parse(&foreign).unwrap(), role)]);
    }),
    ("WORKLOAD-AMBIGUOUS", Error, "several MeshBindings select the tasks: other, prod", |world| {
        world.uses[0].kuma.insert("other".into(), vec!["kv".into()]);
    }),
    ("WORKLOAD-AMBIGUOUS", Error, "several Workloads select the tasks: kv, web", |world| {
        world.uses[0].kuma.insert("prod".into(), vec!["kv".into(), "web".into()]);
    }),
    ("WORKLOAD-TAGS", Error, "ECS tag ecs-mesh.dev/inbound.1.port is \"x\"", |world| {
        describe_by_tags(world, &[("ecs-mesh.dev/service", "kv"), ("ecs-mesh.dev/inbound.1.port", "x")]);
    }),
    ("WORKLOAD-TAGS", Error, "docker label ecs-mesh.dev/inbound.1.port of container app is \"y\"", |world| {
        declare(world, &json!({"discovery": "tags"}), &json!({}));
        world.uses.clear();
        let labels = json!({"ecs-mesh.dev/service": "kv", "ecs-mesh.dev/inbound.1.port": "y"});
        world.definition["containerDefinitions"][0]["dockerLabels"] = labels;
    }),
    ("WORKLOAD-CLAIM", Error, "claims service \"payments\"", |world| {
        describe_by_tags(world, &[("ecs-mesh.dev/service", "payments")]);
        world.role().tags.as_mut().unwrap().remove("kuma.io/service");
    }),
    ("WORKLOAD-UNUSED", Warning, "did you mean db?", |world| {
        declare_more(world, "Workload", "dbx", &json!({"service": "dbx", "selector": {"services": ["dbx"]}}));
    }),
    ("WORKLOAD-UNUSED", Info, "no running task has its families", |world| {
        declare_more(world, "Workload", "x", &json!({"service": "x", "selector": {"families": ["x"]}}));
    }),
    (
        "KUMA-OUTBOUND-NOWHERE",
        Warning,
        "outbound to dbb in mesh default: the mesh has no such service; did you mean db?",
        |world| {
            let outbound = json!({"service": "dbb", "targetPort": 15_432, "listen": {"port": 5_432}});
            declare(world, &json!({}), &json!({"outbounds": [outbound]}));
        }
    ),
    ("KUMA-OUTBOUND-NOWHERE", Warning, "no MeshService is named dbb; did you mean db?", |world| {
        with_resources(world);
        let outbound = json!({"service": "dbb", "targetPort": 15_432, "listen": {"port": 5_432}});
        declare(world, &json!({}), &json!({"outbounds": [outbound]}));
    }),
    ("KUMA-OUTBOUND-NOWHERE", Warning, "no MeshExternalService is named nowhere", |world| {
        with_resources(world);
        let backend = json!({"kind": "MeshExternalService", "name": "nowhere", "port": 443});
        let outbound = json!({"backend": backend, "listen": {"port": 5_432}});
        declare(world, &json!({}), &json!({"outbounds": [outbound]}));
    }),
    ("KUMA-OUTBOUND-NOWHERE", Warning, "no MeshService has these labels", |world| {
        with_resources(world);
        let backend = json!({"kind": "MeshService", "labels": {"team": "b"}, "port": 1});
        let outbound = json!({"backend": backend, "listen": {"port": 5_432}});
        declare(world, &json!({}), &json!({"outbounds": [outbound]}));
    }),
    ("KUMA-OUTBOUND-NOWHERE", Warning, "the MeshService legacy has the ports 15000", |world| {
        with_resources(world);
        let outbound = json!({"service": "legacy", "targetPort": 1, "listen": {"port": 5_432}});
        declare(world, &json!({}), &json!({"outbounds": [outbound]}));
    }),
    ("KUMA-OUTBOUND-NOWHERE", Warning, "db has no inbound on port 5433; its Workloads have 15432", |world| {
        let outbound = json!({"service": "db", "targetPort": 5_433, "listen": {"port": 5_432}});
        declare(world, &json!({}), &json!({"outbounds": [outbound]}));
    }),
    ("PORT-CLASH", Error, "db:15432 on 127.0.0.1:5432 (OutboundList more)", |world| {
        let outbound = json!({"service": "db", "targetPort": 15_432, "listen": {"port": 5_432}});
        let other = json!({"service": "kv", "targetPort": 15_000, "listen": {"port": 5_432}});
        declare(world, &json!({}), &json!({"outbounds": [other]}));
        declare_more(world, "OutboundList", "more", &json!({"workloads": ["kv"], "outbounds": [outbound]}));
    }),
    ("PORT-CLASH", Error, "port 15000, which is Workload kv's inbound port", |world| {
        world.definition["containerDefinitions"][2]["portMappings"] = json!([{"containerPort": 15_000}]);
    }),
    ("PORT-CLASH", Error, "port 5432, which is Workload kv's outbound to db", |world| {
        world.definition["containerDefinitions"][2]["portMappings"] = json!([{"containerPort": 5_432}]);
    }),
    ("PORT-CLASH", Error, "port 9901, which is the sidecar's admin port", |world| {
        world.definition["containerDefinitions"][2]["portMappings"] = json!([{"containerPort": 9_901}]);
    }),
    ("PORT-CLASH", Error, "the sidecar's readiness port is 5432, which Workload kv uses, too", |world| {
        let variable = json!({"name": "KUMA_READINESS_PORT", "value": "5432"});
        world.definition["containerDefinitions"][1]["environment"] = json!([variable]);
    }),
    ("KUMA-NOT-EXPRESSIBLE", Error, "protocol kafka", |world| {
        let found = InexpressibleWorkload {
            workload: "kv".into(),
            message: "protocol kafka".to_owned(),
            fix: "set tcp".to_owned(),
        };
        kuma_facts(world).not_expressible.push(found);
    }),
    ("KUMA-INGRESS-ADDRESS", Warning, "no MeshZoneAddress of this zone in mesh default", |world| {
        kuma_facts(world).ingresses.push(ingress(Ok(false)));
    }),
    (
        "KUMA-UPGRADE-BLOCKED",
        Warning,
        "4 Dataplane (edge-1, edge-2, edge-3, …): 3.0 cannot read it",
        |world| {
            kuma_facts(world).upgrade = Some(Ok(blocked_upgrade()));
        }
    ),
    ("AUDIT-CONTROL-PLANE-NO-ANSWER", Unknown, "connection refused", |world| {
        world.facts.kuma.values_mut().next().unwrap().response = Some(Err("connection refused".to_owned()));
    }),
    ("AUDIT-CONTROL-PLANE-NO-ANSWER", Unknown, "forbidden", |world| {
        kuma_facts(world).services.insert(MeshName::default(), Err("forbidden".to_owned()));
    }),
    ("AUDIT-CONTROL-PLANE-NO-ANSWER", Unknown, "denied", |world| {
        kuma_facts(world).ingresses.push(ingress(Err("denied".to_owned())));
    }),
    ("AUDIT-CONTROL-PLANE-NO-ANSWER", Unknown, "timeout", |world| {
        kuma_facts(world).upgrade = Some(Err("timeout".to_owned()));
    }),
    ("AUDIT-AWS-NO-ANSWER", Unknown, "ecs:ListServices failed", |world| {
        let error = Err(failure(AwsErrorKind::Denied, "ecs:ListServices"));
        world.facts.services.insert(cluster(), error);
    }),
];

#[test]
fn each_case_is_found() {
    check(CASES);
}

fn not_checked(change: impl FnOnce(&mut AuditFixture)) -> Vec<String> {
    let mut world = AuditFixture::good();
    at_kuma(&mut world);
    change(&mut world);
    let report = examine(&world.facts());
    assert_eq!((report.exit_code(), report.findings), (0, Vec::new()));
    report.not_checked
}

#[test]
fn correct_set_up_at_kuma_has_no_finding() {
    assert_eq!(not_checked(|_| {}), Vec::<String>::new());
}

#[test]
fn outbound_to_a_service_of_the_mesh_has_no_finding() {
    for with_resources in [|_: &mut AuditFixture| {}, with_resources] {
        let calls = ["legacy", "db"].map(|service| {
            let port = if service == "db" { 15_432 } else { 15_000 };
            json!({"service": service, "targetPort": port, "listen": {"port": port + 1_000}})
        });
        let unchecked = not_checked(|world| {
            with_resources(world);
            declare(world, &json!({}), &json!({"outbounds": calls}));
        });
        assert_eq!(unchecked, Vec::<String>::new());
    }
}

#[test]
fn file_is_described_by_the_workload_of_its_family() {
    let found = findings(|world| {
        at_kuma(world);
        world.uses.clear();
        world.role_tag("kuma.io/mesh", "other");
    });
    assert_eq!(found.iter().map(|one| one.rule).collect::<Vec<_>>(), ["KUMA-ROLE-TAG"], "{found:#?}");
    assert_eq!(found[0].location.file.as_deref(), Some("task.json"));
    assert_eq!(found[0].location.field.as_deref(), Some("tags[\"kuma.io/mesh\"]"));
    assert_eq!(found[0].fix, "aws iam tag-role --role-name kv-task --tags Key=kuma.io/mesh,Value=default");
    let unknown = not_checked(|world| {
        world.uses.clear();
        world.definition["family"] = json!("other");
    });
    assert!(unknown.iter().any(|one| one.starts_with("role tags and ports of 1 task")), "{unknown:?}");
}

#[test]
fn workload_of_tags_is_checked_like_a_declared_one() {
    let found = findings(|world| {
        at_kuma(world);
        describe_by_tags(world, &[("ecs-mesh.dev/service", "web")]);
        let claims = json!([{"rolePath": "/consul-ecs/*", "services": ["web"]}]);
        declare(world, &json!({"discovery": "tags", "claims": claims}), &json!({}));
    });
    let [only] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((only.rule, only.severity), ("KUMA-ROLE-TAG", Error));
    assert_eq!(only.location.field.as_deref(), Some("tags[\"kuma.io/service\"]"));
}

#[test]
fn unrequested_checks_at_kuma_are_listed() {
    let offline = not_checked(|world| {
        world.uses.clear();
        world.facts.aws = None;
        world.facts.clusters.clear();
        world.facts.services.clear();
        world.facts.authorization = None;
        world.facts.roles.clear();
        world.facts.kuma.values_mut().next().unwrap().response = None;
    });
    for part in
        ["outbounds to services of kuma", "workloads that select nothing: running tasks", "task roles"]
    {
        assert!(offline.iter().any(|one| one.contains(part)), "{part}: {offline:?}");
    }
    let target = not_checked(|world| world.facts.upgrade_requested = false);
    assert!(target[0].contains("--target-version 3.0"), "{target:?}");
    let off = not_checked(|world| {
        declare(world, &json!({"roleTags": {"mode": "off"}}), &json!({}));
        world.role().tags = Ok(Tags::new());
    });
    assert!(off[0].contains("MeshBinding prod: its roleTags.mode is off"), "{off:?}");
    let sidecar = not_checked(|world| {
        world.definition["containerDefinitions"] = json!([{"name": "app", "image": "kv:1"}]);
    });
    assert!(sidecar[0].starts_with("sidecars of 1 task definition (kv)"), "{sidecar:?}");
    let file = not_checked(|world| {
        declare(world, &json!({"discovery": "tags"}), &json!({}));
        world.uses.clear();
        world.definition["containerDefinitions"][0]["dockerLabels"] = json!({"ecs-mesh.dev/service": "kv"});
    });
    assert!(file.iter().any(|one| one.starts_with("claims of services by the labels")), "{file:?}");
    let accounts = not_checked(|world| {
        let both = json!({"roleTags": {"authorizedAccounts": ["111122223333", "444455556666"]}});
        declare(world, &both, &json!({}));
    });
    assert!(accounts[0].contains("accounts 444455556666"), "{accounts:?}");
}

#[test]
fn invalid_manifest_judges_no_absence() {
    let found = findings(|world| {
        at_kuma(world);
        declare(
            world,
            &json!({}),
            &json!({"outbounds": [{"service": "x", "targetPort": 1, "listen": {"port": 7000}}]}),
        );
        declare_more(world, "Workload", "unused", &json!({"service": "u", "selector": {"services": ["u"]}}));
        world.manifests.push_str("\n---\nkind: Nothing\n");
    });
    assert!(found.iter().all(|one| one.rule == "MANIFEST-INVALID"), "{found:#?}");
}

#[test]
fn many_roles_with_one_cause_have_one_message() {
    let found = findings(|world| {
        at_kuma(world);
        for n in 0..400 {
            details(world).principals.push(principal(&format!("r{n}"), &[("kuma.io/mesh", "old")], &[]));
        }
    });
    let messages: BTreeSet<&str> = found.iter().map(|one| one.message.as_str()).collect();
    assert_eq!((found.len(), messages.len()), (400, 1));
}
