//! What could not be read, or did not answer, and what was not asked for. Each is said once, so that a rule that is silent
//! for want of a fact is not taken for one that is kept.

use super::held;
use crate::catalogue::{AWS_UNKNOWN, DEFINITION_UNREADABLE, MANIFEST_INVALID, PLANE_UNKNOWN};
use crate::facts::{ConsulFacts, Facts};
use crate::report::{Finding, Place};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let unreadable =
        facts.unreadable.iter().map(|(place, why)| DEFINITION_UNREADABLE.broken(place.clone(), why));
    let hidden = facts.hidden.iter().map(|(arn, error)| {
        let found = format!("{} failed: {}: {}", error.operation, error.code, error.message);
        DEFINITION_UNREADABLE.unknown(Place::resource(arn.as_str()), found).fix(mend(error.hint))
    });
    let mut findings: Vec<Finding> = unreadable.chain(hidden).collect();
    findings.extend(manifests(facts));
    findings.extend(aws(facts));
    findings.extend(planes(facts));
    findings
}

fn manifests(facts: &Facts) -> Vec<Finding> {
    let errors = facts.manifests.iter().flat_map(|status| &status.errors);
    let finding = |error: &ecs_mesh_api::manifests::Finding| {
        let field = Some(error.path.clone()).filter(|path| !path.is_empty());
        let resource = error.subject.as_ref().map(ToString::to_string);
        let file = Some(error.file.display().to_string().into());
        let at = Place { file, line: error.line, resource, container: None, field };
        MANIFEST_INVALID.broken(at, &error.message)
    };
    errors.map(finding).collect()
}

fn aws(facts: &Facts) -> Vec<Finding> {
    let at = || Place::resource("aws");
    match &facts.aws {
        None => Vec::new(),
        Some(Err(why)) => vec![AWS_UNKNOWN.unknown(at(), why).fix("mend that, and run the audit again")],
        Some(Ok(())) => {
            let failed = facts.clusters.iter().filter_map(|(arn, said)| Some((arn, said.as_ref().err()?)));
            let finding = |(arn, error): (&ecs_mesh_model::ClusterArn, &ecs_mesh_aws::aws::AwsError)| {
                let found = format!("{} failed: {}: {}", error.operation, error.code, error.message);
                AWS_UNKNOWN.unknown(Place::resource(arn.as_str()), found).fix(mend(error.hint))
            };
            failed.map(finding).collect()
        }
    }
}

fn mend(hint: &str) -> String {
    let hint = hint.trim_start_matches("; ");
    if hint.is_empty() { "run the audit again".to_owned() } else { hint.to_owned() }
}

fn planes(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Whoever gives manifests and asks means them to be held against Consul.
    if names_no_consul(facts) {
        let found = "the manifests have no ControlPlane of type consul: auth methods, binding rules, policies and nodes were \
                     not looked at";
        findings.push(PLANE_UNKNOWN.unknown(Place::resource("consul"), found));
    }
    for (name, plane) in &facts.planes {
        let at = || Place::resource(format!("consul/{name}"));
        match &plane.said {
            None => {}
            Some(Err(why)) => findings.push(
                PLANE_UNKNOWN
                    .unknown(at(), why)
                    .fix("see that it answers, and that ControlPlane.spec.consul is right"),
            ),
            Some(Ok(said)) => findings.extend(missing(name, said)),
        }
    }
    findings
}

fn names_no_consul(facts: &Facts) -> bool {
    facts.planes.is_empty() && facts.manifests.is_some() && facts.aws.is_some()
}

/// What nobody asked for.
pub(super) fn not_checked(facts: &Facts) -> Vec<String> {
    let mut left = Vec::new();
    if facts.definitions.is_empty() && facts.unreadable.is_empty() && facts.hidden.is_empty() {
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
    if facts.planes.is_empty() && !names_no_consul(facts) {
        left.push(
            "auth methods, binding rules, policies and nodes, and whether ACLs are on: no Consul was asked \
             (--manifests with a ControlPlane of type consul, without --offline)"
                .to_owned(),
        );
    }
    for (name, plane) in facts.planes.iter().filter(|(_, plane)| plane.said.is_none()) {
        let by = if plane.declared.is_some() {
            "auth methods are judged by the manifests alone"
        } else {
            "no manifest declares its auth methods"
        };
        left.push(format!("what {name} holds: it was not asked, and {by} (leave out --offline)"));
    }
    left
}

fn missing(name: &str, said: &ConsulFacts) -> Vec<Finding> {
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
    let finding = |kind: &str, why: &String| {
        PLANE_UNKNOWN
            .unknown(Place::resource(format!("consul/{name}/{kind}")), why)
            .fix("give the ControlPlane a token that may read it (acl = \"read\", node and agent read)")
    };
    let facts = facts.into_iter().filter_map(|(kind, why)| Some(finding(kind, why?)));
    let nodes =
        nodes.map(|(cluster, why)| PLANE_UNKNOWN.unknown(Place::resource(held(name, "node", cluster)), why));
    facts.chain(nodes).collect()
}
