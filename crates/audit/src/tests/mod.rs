//! Each rule has at least one input that violates it. The initial facts violate none, so each finding comes from the one
//! change of its case.

mod agents;
mod configs;
mod control_planes;
mod kuma;
mod roles;
mod sidecars;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::facts::{
    AuditFacts, AuditedAuthMethod, AuditedBindingRule, AuditedControlPlane, AuditedDefinition, AuditedRole,
    ConsulFacts, DefinitionOrigin, DefinitionUse, PolicyText,
};
use super::parse::definition;
use super::rules_catalog;
use super::{AuditFinding, Severity, examine};
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind};
use ecs_mesh_aws::inspect::SimulationResult;
use ecs_mesh_consul::ConsulVersion;
use ecs_mesh_manifests::{ManifestSources, ManifestStatus};
use ecs_mesh_model::{ClusterArn, RoleArn, Tags};

pub(super) const CLUSTER: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/prod";
pub(super) const ROLE: &str = "arn:aws:iam::111122223333:role/consul-ecs/kv-task";
pub(super) const SECRET: &str = "3f2a9c0d-5e6b-4a71-8293-a4b5c6d7e8f9";

/// A task definition, its configuration, and the other facts.
pub(super) struct AuditFixture {
    pub(super) config: Value,
    /// Without the configuration, which [`AuditFixture::facts`] puts into container 0.
    pub(super) definition: Value,
    /// Other values of the variable, by container.
    pub(super) more_configs: Vec<(usize, String)>,
    /// Running tasks of the definition; with any, its origin is ECS instead of a file.
    pub(super) uses: Vec<DefinitionUse>,
    pub(super) facts: AuditFacts,
    pub(super) manifests: String,
}

pub(super) fn cluster() -> ClusterArn {
    ClusterArn::parse(CLUSTER).unwrap()
}

pub(super) fn tags(pairs: &[(&str, &str)]) -> Tags {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn failure(kind: AwsErrorKind, operation: &'static str) -> AwsError {
    AwsError {
        kind,
        operation,
        resource: "x".to_owned(),
        code: format!("{kind:?}"),
        message: "for a reason".to_owned(),
        hint: "; ask for it",
    }
}

impl AuditFixture {
    pub(super) fn good() -> Self {
        let config = json!({
            "bootstrapDir": "/consul",
            // Consul ignores the case of the auth method's name.
            "consulLogin": {"enabled": true, "method": "IAM-ecs-service-token"},
            "consulServers": {"hosts": "consul.internal"},
            "service": {"name": "kv", "port": 8080},
            "healthSyncContainers": ["app"],
            "proxy": {"upstreams": [{"destinationName": "db", "localBindPort": 5432}]},
        });
        let definition = json!({
            "family": "kv",
            "taskRoleArn": ROLE,
            "networkMode": "awsvpc",
            "containerDefinitions": [
                {
                    "name": "consul-ecs-mesh-init",
                    "image": "public.ecr.aws/hashicorp/consul-ecs:0.10.0",
                    "environment": [],
                    "secrets": [
                        {"name": "CONSUL_HTTPS_CACERT_PEM", "valueFrom": "arn:aws:secretsmanager:eu-west-1:111122223333:secret:ca"},
                        {"name": "CONSUL_GRPC_CACERT_PEM", "valueFrom": "arn:aws:secretsmanager:eu-west-1:111122223333:secret:ca"},
                    ],
                },
                {
                    "name": "app",
                    "image": "kv:1",
                    "portMappings": [{"containerPort": 8080}],
                    "healthCheck": {"command": ["CMD", "true"]},
                },
            ],
            "tags": [{"key": "consul.hashicorp.com/mesh", "value": "true"}],
        });
        let may = SimulationResult {
            allowed: true,
            decision: "allowed".to_owned(),
            missing_context: Vec::new(),
            in_organization: false,
        };
        let role = AuditedRole {
            // Consul converts the tag to lower case.
            tags: Ok(tags(&[("consul.hashicorp.com.service-name", "KV")])),
            get_role: Some(Ok(may)),
        };
        let plane = AuditedControlPlane {
            clusters: BTreeSet::from([cluster()]),
            declared: None,
            response: Some(Ok(consul())),
        };
        let facts = AuditFacts {
            aws: Some(Ok(())),
            clusters: BTreeMap::from([(cluster(), Ok(1))]),
            roles: BTreeMap::from([(RoleArn::parse(ROLE).unwrap(), role)]),
            control_planes: BTreeMap::from([(Arc::from("prod"), plane)]),
            ..AuditFacts::default()
        };
        Self {
            config,
            definition,
            more_configs: Vec::new(),
            uses: Vec::new(),
            facts,
            manifests: String::new(),
        }
    }

    pub(super) fn consul(&mut self) -> &mut ConsulFacts {
        self.plane().response.as_mut().unwrap().as_mut().unwrap()
    }

    pub(super) fn plane(&mut self) -> &mut AuditedControlPlane {
        self.facts.control_planes.get_mut("prod").unwrap()
    }

    pub(super) fn method(&mut self) -> &mut AuditedAuthMethod {
        &mut self.consul().auth_methods.as_mut().unwrap()[0]
    }

    pub(super) fn rules(&mut self) -> &mut Vec<AuditedBindingRule> {
        self.consul().binding_rules.as_mut().unwrap()
    }

    pub(super) fn role(&mut self) -> &mut AuditedRole {
        self.facts.roles.values_mut().next().unwrap()
    }

    pub(super) fn role_tag(&mut self, tag: &str, value: &str) {
        self.role().tags.as_mut().unwrap().insert(tag.to_owned(), value.to_owned());
    }

    /// The task runs, with these tags.
    pub(super) fn runs(&mut self, pairs: &[(&str, &str)]) {
        self.definition["taskDefinitionArn"] =
            json!("arn:aws:ecs:eu-west-1:111122223333:task-definition/kv:7");
        self.uses.push(DefinitionUse {
            cluster: cluster(),
            service: Some("kv".into()),
            role: None,
            tags: tags(pairs),
            kuma: BTreeMap::new(),
        });
    }

    pub(super) fn facts(mut self) -> AuditFacts {
        let text = self.config.to_string();
        let configs = std::iter::once((0, text)).filter(|_| !self.config.is_null()).chain(self.more_configs);
        for (container, value) in configs {
            let container = &mut self.definition["containerDefinitions"][container];
            if container["environment"].is_null() {
                container["environment"] = json!([]);
            }
            let variables = container["environment"].as_array_mut().unwrap();
            variables.push(json!({"name": "CONSUL_ECS_CONFIG_JSON", "value": value}));
        }
        let read = definition::read("task.json", &self.definition.to_string()).unwrap();
        let origin = if self.uses.is_empty() { read.origin.clone() } else { DefinitionOrigin::Ecs };
        let planes = self.facts.control_planes.keys().cloned().collect();
        self.facts
            .definitions
            .insert(0, AuditedDefinition { origin, uses: self.uses, control_planes: planes, ..read });
        if !self.manifests.is_empty() {
            self.facts.manifests = Some(manifests(&self.manifests));
        }
        self.facts
    }
}

/// Consul as the operator or the consul-ecs controller configures it.
fn consul() -> ConsulFacts {
    const SERVICE: &str = "consul.hashicorp.com.service-name";
    const GATEWAY: &str = "consul.hashicorp.com.gateway-kind";
    let method = "iam-ecs-service-token";
    let rule = |id: &str, bind_type: &str, bind_name: String, selector: String| AuditedBindingRule {
        id: id.to_owned(),
        method: method.to_owned(),
        bind_type: bind_type.to_owned(),
        bind_name,
        selector,
    };
    ConsulFacts {
        version: Ok(version("1.21.4")),
        acls: Ok(true),
        auth_methods: Ok(vec![AuditedAuthMethod {
            name: method.to_owned(),
            kind: "aws-iam".to_owned(),
            principals: vec!["arn:aws:iam::111122223333:role/consul-ecs/*".to_owned()],
            entity_details: true,
            server_id_is_known: true,
            entity_tags: [SERVICE, GATEWAY].iter().map(|tag| (*tag).to_owned()).collect(),
            ..AuditedAuthMethod::default()
        }]),
        binding_rules: Ok(vec![
            rule("r1", "service", format!("${{entity_tags.{SERVICE}}}"), String::new()),
            rule(
                "r2",
                "role",
                "consul-ecs-mesh-gateway-role".to_owned(),
                format!("entity_tags[\"{GATEWAY}\"] == \"mesh-gateway\""),
            ),
        ]),
        roles: Ok(BTreeSet::from(["consul-ecs-mesh-gateway-role".to_owned()])),
        anonymous: Ok(vec![PolicyText {
            name: "anonymous-token-policy".to_owned(),
            rules:
                "node_prefix \"\" {\n  policy = \"read\"\n}\nservice_prefix \"\" {\n  policy = \"read\"\n}"
                    .to_owned(),
        }]),
        nodes: BTreeMap::from([(cluster(), Ok(true))]),
    }
}

pub(super) fn version(text: &str) -> ConsulVersion {
    ConsulVersion::parse(text).unwrap()
}

fn manifests(text: &str) -> ManifestStatus {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("all.yaml"), text).unwrap();
    let loaded = ManifestSources::new([directory.path().to_owned()]).load(None).into_loaded().unwrap();
    ManifestStatus::from(&loaded)
}

/// A rule, the severity and a part of the message of its finding, and the change that violates the rule.
pub(super) type AuditCase = (&'static str, Severity, &'static str, fn(&mut AuditFixture));

pub(super) fn findings(break_it: impl FnOnce(&mut AuditFixture)) -> Vec<AuditFinding> {
    let mut world = AuditFixture::good();
    break_it(&mut world);
    examine(&world.facts()).findings
}

/// Asserts that each case has a finding with its severity and message, without any secret.
pub(super) fn check(cases: &[AuditCase]) {
    for (rule, severity, words, break_it) in cases {
        let findings = findings(break_it);
        let fits = |one: &&AuditFinding| {
            one.rule == *rule && one.severity == *severity && one.message.contains(words)
        };
        assert!(findings.iter().any(|one| fits(&one)), "{rule} {severity:?} {words:?} in {findings:#?}");
        assert!(!format!("{findings:?}").contains(SECRET), "{findings:#?}");
    }
}

#[test]
fn valid_setup_has_no_finding() {
    assert_eq!(findings(|_| {}), []);
    let runs = findings(|world| world.runs(&[("consul.hashicorp.com/mesh", "true")]));
    assert_eq!(runs, []);
}

fn all_cases() -> [&'static [AuditCase]; 7] {
    [
        agents::CASES,
        configs::CASES,
        control_planes::CASES,
        kuma::CASES,
        roles::CASES,
        sidecars::CASES,
        tasks::CASES,
    ]
}

#[test]
fn each_case_has_one_cause_and_one_row() {
    let all = all_cases();
    let mut several = Vec::new();
    for (rule, severity, words, break_it) in all.iter().flat_map(|cases| cases.iter()) {
        // Each error of a manifest is a finding; and a list may lack one item and have another too many.
        let has_several = ["MANIFEST-INVALID", "CONSUL-OUTBOUND-UNREACHED", "CONSUL-UPSTREAM-UNLISTED"];
        let findings = findings(break_it);
        if findings.len() != 1 && !has_several.contains(rule) {
            let message: Vec<_> = findings
                .iter()
                .map(|one| format!("{} {}: {}", one.rule, one.location.subject(), one.message))
                .collect();
            several.push(format!("{rule} {severity:?} {words}:\n    {}", message.join("\n    ")));
        }
    }
    assert!(several.is_empty(), "{}", several.join("\n"));
}

#[test]
fn every_rule_is_broken_by_some_case() {
    let all = all_cases();
    let covered: BTreeSet<&str> = all.iter().flat_map(|cases| cases.iter()).map(|(rule, ..)| *rule).collect();
    let known: BTreeSet<&str> = rules_catalog::ALL.iter().map(|rule| rule.id).collect();
    assert_eq!(covered, known);
}

/// Compares the committed schema with the types. `UPDATE_GOLDEN=1` renews it.
#[test]
fn committed_json_schema_is_current() {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/audit.schema.json");
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(super::AuditReport)).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), schema, "renew it with UPDATE_GOLDEN=1");
}
