//! Facts that could not be read, and sources that were not requested. Each is reported once, so that a rule without a
//! finding was either kept or is named here.

use std::collections::{BTreeMap, BTreeSet};

use super::membership::{is_of_kuma, kuma_bindings, memberships};
use super::{consul_path, workloads};
use crate::facts::{AuditFacts, AuditedDefinition, ConsulFacts, KumaFacts};
use crate::parse::config::is_of_consul;
use crate::parse::sidecar;
use crate::report::{AuditFinding, FindingLocation};
use crate::rules_catalog::{AWS_UNKNOWN, DEFINITION_UNREADABLE, MANIFEST_INVALID, PLANE_UNKNOWN};
use ecs_mesh_api::manifests::{Binding, ManifestSet};
use ecs_mesh_api::{Discovery, RoleTagMode};
use ecs_mesh_aws::aws::AwsError;
use ecs_mesh_core::intent::SERVICE_KEY;

/// The subjects that one entry names.
const MAX_NAMES: usize = 5;

pub(super) fn check(facts: &AuditFacts) -> Vec<AuditFinding> {
    let unreadable = facts
        .unreadable
        .iter()
        .map(|(location, reason)| DEFINITION_UNREADABLE.violation(location.clone(), reason));
    let hidden = facts.unreadable_definitions.iter();
    let hidden = hidden.map(|(arn, error)| (FindingLocation::resource(arn.as_str()), arn.as_str(), error));
    let hidden = by_cause(hidden).into_iter().map(|one| {
        let finding = DEFINITION_UNREADABLE.unknown(one.location, one.message);
        finding.with_fix(fix(one.hint))
    });
    let mut findings: Vec<AuditFinding> = unreadable.chain(hidden).collect();
    findings.extend(manifests(facts));
    findings.extend(aws(facts));
    findings.extend(planes(facts));
    findings.extend(kuma_planes(facts));
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
            let tasks = facts.clusters.iter().filter_map(|(arn, tasks)| Some((arn, tasks.as_ref().err()?)));
            let services =
                facts.services.iter().filter_map(|(arn, names)| Some((arn, names.as_ref().err()?)));
            let failed = tasks.chain(services);
            let finding = |(arn, error): (&ecs_mesh_model::ClusterArn, &ecs_mesh_aws::aws::AwsError)| {
                let found = format!("{} failed: {}: {}", error.operation, error.code, error.message);
                AWS_UNKNOWN.unknown(FindingLocation::resource(arn.as_str()), found).with_fix(fix(error.hint))
            };
            failed.map(finding).collect()
        }
    }
}

/// Reads that failed for one cause.
pub(super) struct FailedReads<'a> {
    /// The place of the first.
    pub(super) location: FindingLocation,
    pub(super) message: String,
    pub(super) hint: &'a str,
}

/// Failed reads by operation and error code: hundreds of calls fail for one cause, such as a quota. An item is the place, the
/// name, and the error.
pub(super) fn by_cause<'a>(
    failed: impl Iterator<Item = (FindingLocation, &'a str, &'a AwsError)>,
) -> Vec<FailedReads<'a>> {
    let mut causes: BTreeMap<(&str, &str), (FindingLocation, &AwsError, BTreeSet<&str>)> = BTreeMap::new();
    for (location, name, error) in failed {
        let cause = causes.entry((error.operation, error.code.as_str()));
        let (_, _, names) = cause.or_insert_with(|| (location, error, BTreeSet::new()));
        names.insert(name.rsplit('/').next().unwrap_or(name));
    }
    let read = |(location, error, names): (FindingLocation, &'a AwsError, BTreeSet<&str>)| {
        let found = format!("{} failed: {}: {}", error.operation, error.code, error.message);
        let message = if names.len() == 1 {
            found
        } else {
            let shown: Vec<&str> = names.iter().take(MAX_NAMES).copied().collect();
            let more = match names.len() - shown.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("{} are affected ({}{more}); {found}", names.len(), shown.join(", "))
        };
        FailedReads { location, message, hint: error.hint }
    };
    causes.into_values().map(read).collect()
}

fn fix(hint: &str) -> String {
    let hint = hint.trim_start_matches("; ");
    if hint.is_empty() { "run the audit again".to_owned() } else { hint.to_owned() }
}

fn planes(facts: &AuditFacts) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    // Manifests without --offline are a request to compare them with a control plane.
    if names_no_plane(facts) {
        let found = "the manifests have no ControlPlane: nothing was compared with Kuma or Consul";
        findings.push(PLANE_UNKNOWN.unknown(FindingLocation::resource("manifests"), found));
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

fn names_no_plane(facts: &AuditFacts) -> bool {
    facts.control_planes.is_empty()
        && facts.kuma.is_empty()
        && facts.manifests.is_some()
        && facts.aws.is_some()
}

fn kuma_planes(facts: &AuditFacts) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    for (name, plane) in &facts.kuma {
        match &plane.response {
            None => {}
            Some(Err(reason)) => findings.push(
                PLANE_UNKNOWN
                    .unknown(FindingLocation::resource(format!("kuma/{name}")), reason)
                    .with_fix("make the control plane reachable, and check ControlPlane.spec.kuma"),
            ),
            Some(Ok(kuma)) => findings.extend(missing_at_kuma(name, kuma)),
        }
    }
    findings
}

fn missing_at_kuma(name: &str, kuma: &KumaFacts) -> Vec<AuditFinding> {
    let finding = |part: String, reason: &String| {
        let at = FindingLocation::resource(format!("kuma/{name}/{part}"));
        PLANE_UNKNOWN
            .unknown(at, reason)
            .with_fix("give the ControlPlane a token that may read it, and run the audit again")
    };
    let services = kuma.services.iter().filter_map(|(mesh, known)| Some((mesh, known.as_ref().err()?)));
    let services = services.map(|(mesh, reason)| finding(format!("{mesh}/services"), reason));
    let addresses: BTreeMap<_, _> = kuma
        .ingresses
        .iter()
        .filter_map(|ingress| Some((&ingress.mesh, ingress.has_address.as_ref().err()?)))
        .collect();
    let addresses =
        addresses.into_iter().map(|(mesh, reason)| finding(format!("{mesh}/meshzoneaddresses"), reason));
    let upgrade = kuma.upgrade.iter().filter_map(|upgrade| upgrade.as_ref().err());
    services.chain(addresses).chain(upgrade.map(|reason| finding("upgrade".to_owned(), reason))).collect()
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
    let needs_consul = facts.kuma.is_empty() || facts.definitions.iter().any(is_of_consul);
    if facts.control_planes.is_empty() && !names_no_plane(facts) && needs_consul {
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
    let has_files = facts.definitions.iter().any(|one| one.uses.is_empty() && is_described(one));
    match &facts.manifests {
        Some(manifests) => {
            let by_tags = |binding: &Binding| binding.spec.discovery == Discovery::Tags;
            if has_files && kuma_bindings(&manifests.set).any(by_tags) {
                checks.push(
                    "claims of services by the labels of files, and labels that tags of tasks may complete: a file names no \
                     ECS service and no tags of tasks (--cluster ARN checks running tasks)"
                        .to_owned(),
                );
            }
            checks.extend(not_checked_at_kuma(facts, &manifests.set));
        }
        None if has_files => checks.push(
            "services that labels and tags describe: the bindings are not known (--manifests PATH)"
                .to_owned(),
        ),
        None => {}
    }
    checks
}

/// Whether labels or tags of a definition describe its tasks.
fn is_described(definition: &AuditedDefinition) -> bool {
    let prefix = SERVICE_KEY.trim_end_matches(|letter| letter != '/');
    let containers = definition.definition.to_containers();
    let labels = containers.iter().flat_map(|container| container.docker_labels.keys());
    let tags = definition.definition.tags.iter().flat_map(|tags| tags.keys());
    labels.chain(tags).any(|key| key.starts_with(prefix))
}

fn not_checked_at_kuma(facts: &AuditFacts, set: &ManifestSet) -> Vec<String> {
    let mut checks = Vec::new();
    for (name, _) in facts.kuma.iter().filter(|(_, plane)| plane.response.is_none()) {
        checks.push(format!(
            "outbounds to services of {name}, and what its version cannot express: Kuma was not requested (leave out --offline)"
        ));
    }
    if !facts.upgrade_requested && facts.kuma.values().any(|plane| plane.response.is_some()) {
        checks.push("what blocks an upgrade of Kuma: no version was given (--target-version 3.0)".to_owned());
    }
    if !set.workloads.is_empty()
        && let Err(reason) = workloads::selection_is_known(facts)
    {
        checks.push(format!("workloads that select nothing: {reason}"));
    }
    if !facts.kuma.is_empty() && facts.manifests.iter().any(|status| !status.errors.is_empty()) {
        checks.push(
            "outbounds to nothing, and role tags that nothing allows: a manifest has an error".to_owned(),
        );
    }
    let off = kuma_bindings(set).filter(|binding| binding.spec.role_tags.mode == RoleTagMode::Off);
    for name in off.map(|binding| &binding.name) {
        checks.push(format!("role tags of MeshBinding {name}: its roleTags.mode is off"));
    }
    checks.extend(other_accounts(facts, set));
    checks.extend(definitions_in_part(facts));
    checks
}

/// IAM shows the caller's account alone.
fn other_accounts(facts: &AuditFacts, set: &ManifestSet) -> Option<String> {
    facts.authorization.as_ref()?.as_ref().ok()?;
    let read: BTreeSet<&str> = facts.bound_clusters().map(ecs_mesh_model::ClusterArn::account).collect();
    let authorised = kuma_bindings(set).flat_map(|binding| &binding.spec.role_tags.authorized_accounts);
    let others: BTreeSet<&str> = authorised.map(String::as_str).filter(|one| !read.contains(one)).collect();
    let names: Vec<&str> = others.into_iter().collect();
    (!names.is_empty()).then(|| {
        format!(
            "roles and principals of accounts {}: IAM shows those of the caller's account alone",
            names.join(", ")
        )
    })
}

/// Definitions of Kuma whose sidecar or workload is not known.
fn definitions_in_part(facts: &AuditFacts) -> Vec<String> {
    let of_kuma: Vec<&AuditedDefinition> =
        facts.definitions.iter().filter(|definition| is_of_kuma(facts, definition)).collect();
    let unknown = |is_unknown: &dyn Fn(&AuditedDefinition) -> bool| {
        let names: Vec<&str> =
            of_kuma.iter().filter(|one| is_unknown(one)).map(|definition| definition.family()).collect();
        let more = if names.len() > MAX_NAMES { ", …" } else { "" };
        let first: Vec<&str> = names.iter().take(MAX_NAMES).copied().collect();
        (!names.is_empty()).then(|| {
            let noun = if names.len() == 1 { "task definition" } else { "task definitions" };
            format!("{} {noun} ({}{more})", names.len(), first.join(", "))
        })
    };
    let mut checks = Vec::new();
    if let Some(which) = unknown(&|definition| !sidecar::has_kuma(definition)) {
        checks.push(format!("sidecars of {which}: no container is known to run kuma-dp"));
    }
    if let Some(which) = unknown(&|definition| memberships(facts, definition).is_empty()) {
        checks.push(format!(
            "role tags and ports of {which}: no single MeshBinding and Workload describe the tasks"
        ));
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
