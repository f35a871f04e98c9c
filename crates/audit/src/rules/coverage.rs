//! What could not be read, or did not answer, and what was not asked for. Each is said once, so that a rule that is silent
//! for want of a fact is not taken for one that is kept.

use super::consul_path;
use crate::rules_catalog::{AWS_UNKNOWN, DEFINITION_UNREADABLE, MANIFEST_INVALID, PLANE_UNKNOWN};
use crate::facts::{ConsulFacts, AuditFacts};
use crate::report::{AuditFinding, FindingLocation};

pub(super) fn check(facts: &AuditFacts) -> Vec<AuditFinding> {
    let unreadable =
        facts.unreadable.iter().map(|(place, why)| DEFINITION_UNREADABLE.violation(place.clone(), why));
    let hidden = facts.unreadable_clusters.iter().map(|(arn, error)| {
        let found = format!("{} failed: {}: {}", error.operation, error.code, error.message);
        DEFINITION_UNREADABLE.unknown(FindingLocation::resource(arn.as_str()), found).with_fix(fix(error.hint))
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
        Some(Err(why)) => vec![AWS_UNKNOWN.unknown(at(), why).with_fix("mend that, and run the audit again")],
        Some(Ok(())) => {
            let failed = facts.clusters.iter().filter_map(|(arn, said)| Some((arn, said.as_ref().err()?)));
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
    // Whoever gives manifests and asks means them to be held against Consul.
    if names_no_consul(facts) {
        let found = "the manifests have no ControlPlane of type consul: auth methods, binding rules, policies and nodes were \
                     not looked at";
        findings.push(PLANE_UNKNOWN.unknown(FindingLocation::resource("consul"), found));
    }
    for (name, plane) in &facts.control_planes {
        let at = || FindingLocation::resource(format!("consul/{name}"));
        match &plane.response {
            None => {}
            Some(Err(why)) => findings.push(
                PLANE_UNKNOWN
                    .unknown(at(), why)
                    .with_fix("see that it answers, and that ControlPlane.spec.consul is right"),
            ),
            Some(Ok(said)) => findings.extend(missing(name, said)),
        }
    }
    findings
}

fn names_no_consul(facts: &AuditFacts) -> bool {
    facts.control_planes.is_empty() && facts.manifests.is_some() && facts.aws.is_some()
}

/// What nobody asked for.
pub(super) fn not_checked(facts: &AuditFacts) -> Vec<String> {
    let mut left = Vec::new();
    if facts.definitions.is_empty() && facts.unreadable.is_empty() && facts.unreadable_clusters.is_empty() {
        let why = match &facts.aws {
            None => "none was given, and AWS was not asked which run",
            Some(_) => "none was given, and no running task was found in the clusters that were asked for",
        };
        left.push(format!("task definitions: {why} (--task-definition FILE, or --cluster ARN)"));
    }
    if facts.aws.is_none() {
        left.push(
            "the task roles, their tags and what runs: AWS was not asked (--manifests or --cluster, without --offline)"
                .to_owned(),
        );
    }
    if facts.control_planes.is_empty() && !names_no_consul(facts) {
        left.push(
            "auth methods, binding rules, policies and nodes, and whether ACLs are on: no Consul was asked \
             (--manifests with a ControlPlane of type consul, without --offline)"
                .to_owned(),
        );
    }
    for (name, plane) in facts.control_planes.iter().filter(|(_, plane)| plane.response.is_none()) {
        let by = if plane.declared.is_some() {
            "auth methods are judged by the manifests alone"
        } else {
            "no manifest declares its auth methods"
        };
        left.push(format!("what {name} holds: it was not asked, and {by} (leave out --offline)"));
    }
    left
}

fn missing(name: &str, said: &ConsulFacts) -> Vec<AuditFinding> {
    let facts = [
        ("version", said.version.as_ref().err()),
        ("acls", said.acls.as_ref().err()),
        ("auth-methods", said.auth_methods.as_ref().err()),
        ("binding-rules", said.binding_rules.as_ref().err()),
        ("roles", said.roles.as_ref().err()),
        ("anonymous-token", said.anonymous.as_ref().err()),
    ];
    let nodes =
        said.nodes.iter().filter_map(|(cluster, known)| Some((cluster.as_str(), known.as_ref().err()?)));
    let finding = |kind: &str, rationale: &String| {
        PLANE_UNKNOWN
            .unknown(FindingLocation::resource(format!("consul/{name}/{kind}")), rationale)
            .with_fix("give the ControlPlane a token that may read it (acl = \"read\", node and agent read)")
    };
    let facts = facts.into_iter().filter_map(|(kind, why)| Some(finding(kind, why?)));
    let nodes =
        nodes.map(|(cluster, why)| PLANE_UNKNOWN.unknown(FindingLocation::resource(consul_path(name, "node", cluster)), why));
    facts.chain(nodes).collect()
}
