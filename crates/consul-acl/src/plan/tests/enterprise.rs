//! Enterprise objects: kept, corrected, and blocked if their namespace does not exist.

use serde_json::{Value, json};

use super::fixture::{AclPlanFixture, everything};
use crate::desired::{Edition, ObjectScope};
use crate::plan::AclAction;
use ecs_mesh_consul::ANONYMOUS_TOKEN;
use ecs_mesh_core::plan::report::ObjectKind::{self, AnonymousToken, AuthMethod, Namespace, Policy};

const METHOD: &str = "iam-ecs-service-token";
const CROSS: &str = "cross-namespace-read";

/// The partition `ecs` with managed and existing namespaces, without owned objects.
fn empty(after: &[&str], there: &[&str]) -> AclPlanFixture {
    let mut spec = everything();
    spec["enterprise"] = json!({ "crossNamespace": "present" });
    let mut world = AclPlanFixture::empty(spec);
    world.edition = Edition::Enterprise {
        partition: "ecs".into(),
        namespaces: after.iter().map(|name| (*name).into()).collect(),
    };
    let anonymous = json!({ "AccessorID": ANONYMOUS_TOKEN });
    world.objects = vec![(AnonymousToken, ObjectScope::new("default", Some("default")), anonymous)];
    for name in there {
        let acls = json!({ "PolicyDefaults": [{ "ID": "1", "Name": "audit" }] });
        let body = json!({ "Name": name, "Description": "theirs", "ACLs": acls });
        world.objects.push((Namespace, ObjectScope::new("ecs", None), body));
    }
    world
}

fn made() -> AclPlanFixture {
    let mut world = empty(&["default", "team-a"], &["default", "team-a"]);
    world.run();
    world
}

type EnterpriseDriftCase = (&'static str, ObjectKind, &'static str, fn(&mut Value), &'static [&'static str]);

const DRIFTS: &[EnterpriseDriftCase] = &[
    (
        "the namespace rules were emptied",
        AuthMethod,
        METHOD,
        |method| method["NamespaceRules"] = json!([]),
        &["update auth method iam-ecs-service-token (NamespaceRules)"],
    ),
    (
        "the namespace rules are gone",
        AuthMethod,
        METHOD,
        |method| drop(method.as_object_mut().unwrap().remove("NamespaceRules")),
        &["update auth method iam-ecs-service-token (NamespaceRules)"],
    ),
    (
        "every login gets into one namespace",
        AuthMethod,
        METHOD,
        |method| method["NamespaceRules"][0]["BindNamespace"] = json!("team-a"),
        &["update auth method iam-ecs-service-token (NamespaceRules[0].BindNamespace)"],
    ),
    (
        "another namespace rule was added",
        AuthMethod,
        METHOD,
        |method| {
            let more = json!({ "Selector": "", "BindNamespace": "team-a" });
            method["NamespaceRules"].as_array_mut().unwrap().push(more);
        },
        &["update auth method iam-ecs-service-token (NamespaceRules)"],
    ),
    (
        "a namespace lost its defaults",
        Namespace,
        "team-a",
        |namespace| namespace["ACLs"] = json!({ "PolicyDefaults": [] }),
        &["update namespace team-a (ACLs.PolicyDefaults)"],
    ),
    (
        "the home namespace lost its defaults",
        Namespace,
        "default",
        |namespace| namespace["ACLs"] = Value::Null,
        &["update namespace default (ACLs.PolicyDefaults)"],
    ),
    (
        "the policy across namespaces may write",
        Policy,
        CROSS,
        |policy| policy["Rules"] = json!("namespace_prefix \"\" { acl = \"write\" }"),
        &["update policy cross-namespace-read (Rules)"],
    ),
    (
        "the policy across namespaces was emptied",
        Policy,
        CROSS,
        |policy| policy["Rules"] = json!(""),
        &["update policy cross-namespace-read (Rules)"],
    ),
    (
        "the anonymous policy, in the partition default, may write",
        Policy,
        "anonymous-token-policy",
        |policy| policy["Rules"] = json!("partition_prefix \"\" { acl = \"write\" }"),
        &["update policy anonymous-token-policy (Rules)"],
    ),
    (
        "the anonymous token, in the partition default, lost its policy",
        AnonymousToken,
        ANONYMOUS_TOKEN,
        |token| token["Policies"] = json!([]),
        &["update the anonymous token (Policies)"],
    ),
];

#[test]
fn each_drift_is_planned_and_corrected_by_one_run() {
    assert_eq!(made().lines(), Vec::<String>::new());
    for (subject, kind, name, change, expected) in DRIFTS {
        let mut world = made();
        world.edit(*kind, name, *change);
        assert_eq!(world.lines(), *expected, "{subject}");
        world.run();
        assert_eq!(world.lines(), Vec::<String>::new(), "{subject}: after a run");
    }
}

#[test]
fn namespace_keeps_other_policies() {
    let mut world = made();
    let namespace = world.object(Namespace, "team-a").clone();
    assert_eq!(namespace["Description"], "theirs");
    assert_eq!(
        namespace["ACLs"]["PolicyDefaults"],
        json!([{ "ID": "1", "Name": "audit" }, { "Name": CROSS }])
    );
}

#[test]
fn missing_namespace_blocks_only_itself() {
    let mut world = empty(&["default", "gone"], &["default"]);
    let held = world.step("hold namespace gone");
    assert!(held.reason.contains("namespace gone does not exist: create it"), "{}", held.reason);
    let others = world.plan().into_iter().filter(|step| step.action == AclAction::Hold).count();
    assert_eq!(others, 1, "all else goes on: {:#?}", world.lines());
    world.run();
    assert_eq!(world.lines(), ["hold namespace gone"]);
    let body = json!({ "Name": "gone", "Description": "" });
    world.objects.push((Namespace, ObjectScope::new("ecs", None), body));
    assert_eq!(world.lines(), ["update namespace gone (ACLs.PolicyDefaults)"], "once it is there");
}
