//! Objects in Consul.

use std::collections::BTreeSet;

use super::Severity::{Error, Unknown, Warning};
use super::{AuditCase, AuditFixture, check, cluster, findings, version};
use crate::examine;
use crate::facts::{AuditFacts, PolicyText};

pub(super) const CASES: &[AuditCase] = &[
    ("AUDIT-CONTROL-PLANE-NO-ANSWER", Unknown, "the manifests have no ControlPlane", |world| {
        world.facts.control_planes.clear();
        world.facts.manifests = Some(super::manifests(""));
    }),
    ("AUDIT-CONTROL-PLANE-NO-ANSWER", Unknown, "connection refused", |world| {
        world.plane().response = Some(Err("connection refused".to_owned()));
    }),
    ("AUDIT-CONTROL-PLANE-NO-ANSWER", Unknown, "may not read it", |world| {
        world.consul().roles = Err("the token may not read it".to_owned());
    }),
    ("AUDIT-CONTROL-PLANE-NO-ANSWER", Unknown, "proves nothing", |world| {
        world.consul().nodes.insert(cluster(), Err("proves nothing".to_owned()));
    }),
    ("CONSUL-ACLS-OFF", Error, "no login works", |world| {
        // Servers without ACLs answer like this.
        world.consul().acls = Ok(false);
        world.consul().auth_methods = Ok(Vec::new());
    }),
    ("CONSUL-SERVER-VERSION", Error, "1.11.9", |world| world.consul().version = Ok(version("1.11.9"))),
    ("CONSUL-AUTH-METHOD-MISSING", Error, "no auth method is of type aws-iam", |world| {
        world.consul().auth_methods = Ok(Vec::new());
    }),
    ("CONSUL-AUTH-METHOD-TYPE", Error, "\"jwt\"", |world| "jwt".clone_into(&mut world.method().kind)),
    (
        "CONSUL-AUTH-METHOD-TAGS",
        Error,
        "entity_tags.consul.hashicorp.com.service-name is not listed",
        |world| {
            world.method().entity_tags.remove("consul.hashicorp.com.service-name");
        },
    ),
    (
        "CONSUL-AUTH-METHOD-TAGS",
        Error,
        "a namespace rule uses entity_tags.consul.hashicorp.com.namespace",
        |world| {
            world.method().namespace_rules =
                vec![(String::new(), "${entity_tags.consul.hashicorp.com.namespace}".to_owned())];
        },
    ),
    ("CONSUL-AUTH-METHOD-WILDCARD", Error, "EnableIAMEntityDetails is off", |world| {
        world.method().entity_details = false;
    }),
    ("CONSUL-AUTH-METHOD-WILDCARD", Error, "one * at the end", |world| {
        world.method().principals.push("arn:aws:iam::111122223333:role/*/kv".to_owned());
    }),
    ("CONSUL-AUTH-METHOD-WHOLE-ACCOUNT", Warning, "every role", |world| {
        world.method().principals.push("arn:aws:iam::111122223333:role/*".to_owned());
    }),
    ("CONSUL-AUTH-METHOD-FOREIGN-ACCOUNT", Warning, "bound clusters are in 111122223333", |world| {
        world.method().principals.push("arn:aws:iam::999988887777:role/consul-ecs/*".to_owned());
    }),
    ("CONSUL-BINDING-RULE-MISSING", Error, "no binding rule", |world| world.rules().clear()),
    ("CONSUL-BINDING-RULE-MISSING", Error, "of type service", |world| {
        world.rules().remove(0);
    }),
    ("CONSUL-BINDING-RULE-SELECTOR", Error, "consul.hashicorp.com.gateway-kind", |world| {
        world.method().entity_tags.remove("consul.hashicorp.com.gateway-kind");
    }),
    ("CONSUL-BINDING-RULE-ROLE", Error, "\"consul-ecs-mesh-gateway-role\" does not exist", |world| {
        world.consul().roles = Ok(BTreeSet::new());
    }),
    ("CONSUL-BINDING-RULE-DUPLICATE", Warning, "selector as r1", |world| {
        let mut again = world.rules()[0].clone();
        "r9".clone_into(&mut again.id);
        world.rules().push(again);
    }),
    ("CONSUL-ANONYMOUS-POWER", Error, "acl = read", |world| {
        let policy = PolicyText { name: "more".to_owned(), rules: "acl = \"read\"".to_owned() };
        world.consul().anonymous.as_mut().unwrap().push(policy);
    }),
    ("CONSUL-ANONYMOUS-POWER", Error, "everything", |world| {
        let policy = PolicyText { name: "global-management".to_owned(), rules: String::new() };
        world.consul().anonymous.as_mut().unwrap().push(policy);
    }),
    ("CONSUL-NODE-MISSING", Error, "no such node", |world| {
        world.consul().nodes.insert(cluster(), Ok(false));
    }),
];

#[test]
fn each_case_is_found() {
    check(CASES);
}

#[test]
fn client_auth_method_needs_no_service_rule() {
    let found = findings(|world| {
        let mut client = world.method().clone();
        "iam-ecs-client-token".clone_into(&mut client.name);
        let mut rule = world.rules()[1].clone();
        "iam-ecs-client-token".clone_into(&mut rule.method);
        rule.selector.clear();
        world.consul().auth_methods.as_mut().unwrap().push(client);
        world.rules().push(rule);
    });
    assert_eq!(found, []);
}

#[test]
fn unreadable_facts_are_reported_once_as_unknown() {
    let found = findings(|world| world.consul().auth_methods = Err("denied".to_owned()));
    let rules: Vec<&str> = found.iter().map(|one| one.rule).collect();
    assert_eq!(rules, ["AUDIT-CONTROL-PLANE-NO-ANSWER"], "{found:#?}");
}

#[test]
fn unlisted_tag_is_one_finding_for_many_rules() {
    let found = findings(|world| {
        for id in ["r3", "r4"] {
            let rule = world.rules()[1].clone();
            let selector = rule.selector.replace("mesh", id);
            world.rules().push(crate::facts::AuditedBindingRule { id: id.to_owned(), selector, ..rule });
        }
        world.method().entity_tags.remove("consul.hashicorp.com.gateway-kind");
    });
    assert_eq!(found.iter().map(|one| one.rule).collect::<Vec<_>>(), ["CONSUL-BINDING-RULE-SELECTOR"]);
    assert!(found[0].message.contains("(r2, r3, r4)"), "{found:#?}");
}

#[test]
fn unrequested_sources_are_listed_as_not_checked() {
    let not_checked = |change: fn(&mut AuditFixture)| {
        let mut world = AuditFixture::good();
        change(&mut world);
        let report = examine(&world.facts());
        assert_eq!((report.exit_code(), &report.findings), (0, &Vec::new()));
        report.not_checked
    };
    assert_eq!(not_checked(|_| {}), Vec::<String>::new());
    let alone = not_checked(|world| {
        world.facts.aws = None;
        world.facts.control_planes.clear();
        world.facts.clusters.clear();
        world.facts.roles.clear();
    });
    assert_eq!(alone.len(), 2, "{alone:?}");
    assert!(alone[0].contains("AWS was not requested") && alone[0].contains("--manifests"), "{alone:?}");
    assert!(alone[1].contains("Consul was not requested") && alone[1].contains("--manifests"), "{alone:?}");
    let offline = not_checked(|world| {
        let methods = world.consul().auth_methods.clone().unwrap();
        world.plane().declared = Some(methods);
        world.plane().response = None;
        world.facts.aws = None;
    });
    assert!(
        offline[1].contains("checked against the manifests") && offline[1].contains("--offline"),
        "{offline:?}"
    );
}

#[test]
fn empty_audit_lists_available_sources() {
    let report = examine(&AuditFacts::default());
    let first = &report.not_checked[0];
    assert!(first.contains("--task-definition") && first.contains("--cluster"), "{first}");
}
