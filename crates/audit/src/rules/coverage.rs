//! Facts that could not be read, and sources that were not requested. Each is reported once, so that a rule without a
//! finding was either kept or is named here.

use super::consul_path;
use crate::facts::{AuditFacts, ConsulFacts};
use crate::report::{AuditFinding, FindingLocation};
use crate::rules_catalog::{AWS_UNKNOWN, DEFINITION_UNREADABLE, MANIFEST_INVALID, PLANE_UNKNOWN};

pub(super) fn check(facts: &AuditFacts) -> Vec<AuditFinding> {
    let unreadable = facts
        .unreadable
        .iter()
        .map(|(location, reason)| DEFINITION_UNREADABLE.violation(location.clone(), reason));
    let hidden = facts.unreadable_definitions.iter().map(|(arn, error)| {
        let found = format!("{} failed: {}: {}", error.operation, error.code, error.message);
        DEFINITION_UNREADABLE
            .unknown(FindingLocation::resource(arn.as_str()), found)
            .with_fix(fix(error.hint))
    });
    let mut findings: Vec<AuditFinding> = unreadable.chain(hidden).collect();
    findings.extend(manifests(facts));
    findings.extend(aws(facts));
    findings.extend(planes(facts));
    findings
}

fn manifests(facts: &AuditFacts) -> Vec<AuditFinding> {
    let errors = facts.manifests.iter().flat_map(|status| &status.errors);
    let finding = |error: &ecs_mesh_api::manifests::ManifestFinding| {
        let field = Some(error.path.clone()).filter(|path| !path.is_empty());
        let resource = error.subject.as_ref().map(ToString::to_string);
        let file = Some(error.file.display().to_string().into());
        let at = FindingLocation { file, line: error.line, resource, container: None, field };
        MANIFEST_INVALID.violation(at, &error.message)
    };
    errors.map(finding).collect()
}

fn aws(facts: &AuditFacts) -> Vec<AuditFinding> {
    let at = || FindingLocation::resource("aws");
    match &facts.aws {
        None => Vec::new(),
        Some(Err(reason)) => {
            vec![AWS_UNKNOWN.unknown(at(), reason).with_fix("correct that, and run the audit again")]
        }
        Some(Ok(())) => {
            let failed = facts.clusters.iter().filter_map(|(arn, tasks)| Some((arn, tasks.as_ref().err()?)));
            let finding = |(arn, error): (&ecs_mesh_model::ClusterArn, &ecs_mesh_aws::aws::AwsError)| {
                let found = format!("{} failed: {}: {}", error.operation, error.code, error.message);
                AWS_UNKNOWN.unknown(FindingLocation::resource(arn.as_str()), found).with_fix(fix(error.hint))
            };
            failed.map(finding).collect()
        }
    }
}

fn fix(hint: &str) -> String {
    let hint = hint.trim_start_matches("; ");
    if hint.is_empty() { "run the audit again".to_owned() } else { hint.to_owned() }
}

fn planes(facts: &AuditFacts) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    // Manifests without --offline are a request to compare them with Consul.
    if names_no_consul(facts) {
        let found = "the manifests have no ControlPlane of type consul: auth methods, binding rules, policies and nodes were \
                     not checked";
        findings.push(PLANE_UNKNOWN.unknown(FindingLocation::resource("consul"), found));
    }
    for (name, plane) in &facts.control_planes {
        let at = || FindingLocation::resource(format!("consul/{name}"));
        match &plane.response {
            None => {}
            Some(Err(reason)) => findings.push(
                PLANE_UNKNOWN
                    .unknown(at(), reason)
                    .with_fix("make the control plane reachable, and check ControlPlane.spec.consul"),
            ),
            Some(Ok(consul)) => findings.extend(missing(name, consul)),
        }
    }
    findings
}

fn names_no_consul(facts: &AuditFacts) -> bool {
    facts.control_planes.is_empty() && facts.manifests.is_some() && facts.aws.is_some()
}

/// Checks that were not requested.
pub(super) fn not_checked(facts: &AuditFacts) -> Vec<String> {
    let mut checks = Vec::new();
    if facts.definitions.is_empty() && facts.unreadable.is_empty() && facts.unreadable_definitions.is_empty()
    {
        let reason = match &facts.aws {
            None => "none was given, and running tasks were not requested",
            Some(_) => "none was given, and no running task was found in the requested clusters",
        };
        checks.push(format!("task definitions: {reason} (--task-definition FILE, or --cluster ARN)"));
    }
    if facts.aws.is_none() {
        checks.push(
            "task roles, their tags and running tasks: AWS was not requested (--manifests or --cluster, without --offline)"
                .to_owned(),
        );
    }
    if facts.control_planes.is_empty() && !names_no_consul(facts) {
        checks.push(
            "auth methods, binding rules, policies and nodes, and whether ACLs are on: Consul was not requested \
             (--manifests with a ControlPlane of type consul, without --offline)"
                .to_owned(),
        );
    }
    for (name, plane) in facts.control_planes.iter().filter(|(_, plane)| plane.response.is_none()) {
        let by = if plane.declared.is_some() {
            "auth methods are checked against the manifests alone"
        } else {
            "no manifest declares its auth methods"
        };
        checks.push(format!("objects in {name}: Consul was not requested, and {by} (leave out --offline)"));
    }
    checks
}

fn missing(name: &str, consul: &ConsulFacts) -> Vec<AuditFinding> {
    let facts = [
        ("version", consul.version.as_ref().err()),
        ("acls", consul.acls.as_ref().err()),
        ("auth-methods", consul.auth_methods.as_ref().err()),
        ("binding-rules", consul.binding_rules.as_ref().err()),
        ("roles", consul.roles.as_ref().err()),
        ("anonymous-token", consul.anonymous.as_ref().err()),
    ];
    let nodes =
        consul.nodes.iter().filter_map(|(cluster, known)| Some((cluster.as_str(), known.as_ref().err()?)));
    let finding = |kind: &str, reason: &String| {
        PLANE_UNKNOWN
            .unknown(FindingLocation::resource(format!("consul/{name}/{kind}")), reason)
            .with_fix("give the ControlPlane a token that may read it (acl = \"read\", node and agent read)")
    };
    let facts = facts.into_iter().filter_map(|(kind, reason)| Some(finding(kind, reason?)));
    let nodes = nodes.map(|(cluster, reason)| {
        PLANE_UNKNOWN.unknown(FindingLocation::resource(consul_path(name, "node", cluster)), reason)
    });
    facts.chain(nodes).collect()
}
