//! The manifests: the same errors and warnings as at a start of the operator.

use crate::catalogue::{MANIFEST_SOURCES, MANIFESTS};
use crate::facts::DoctorFacts;
use crate::report::CheckResult;
use ecs_mesh_manifests::ManifestSource;
use ecs_mesh_model::docs_url;

pub(super) fn check(facts: &DoctorFacts) -> Vec<CheckResult> {
    let status = &facts.manifests;
    let fix = format!("correct the manifest; {} has every field", docs_url("reference/manifests.md"));
    let file = |finding: &ecs_mesh_api::manifests::ManifestFinding| finding.file.display().to_string();
    let invalid = status.errors.iter().filter(|finding| !status.unread.contains(finding));
    let errors = invalid.map(|finding| MANIFESTS.error(file(finding), finding.to_string(), fix.as_str()));
    let warnings = status
        .warnings
        .iter()
        .map(|finding| MANIFESTS.warning(file(finding), finding.to_string(), fix.as_str()));
    let mut checks: Vec<CheckResult> = errors.chain(warnings).collect();
    checks.extend(sources(facts));
    let set = &status.set;
    let kinds = [
        (set.control_planes.len(), "ControlPlane"),
        (set.consul_auths.len(), "ConsulAuth"),
        (set.bindings.len(), "MeshBinding"),
        (set.workloads.len(), "Workload"),
        (set.outbound_lists.len(), "OutboundList"),
        (set.aws_accounts.len(), "AwsAccount"),
    ];
    let counted =
        |(count, kind): (usize, &str)| format!("{count} {kind}{}", if count == 1 { "" } else { "s" });
    let found = format!("{}: {}", counted((status.files, "file")), kinds.map(counted).join(", "));
    if status.errors.is_empty() {
        let subject = "all manifests";
        checks.push(if set.control_planes.is_empty() || set.bindings.is_empty() {
            MANIFESTS.warning(
                subject,
                found,
                "write a ControlPlane and a MeshBinding: without them the operator does nothing",
            )
        } else {
            MANIFESTS.ok(subject, found)
        });
    }
    checks
}

/// The remote sources: each entry that cannot be read, or that the source can.
fn sources(facts: &DoctorFacts) -> Vec<CheckResult> {
    let unread = &facts.manifests.unread;
    let fix = "make the source readable for the operator; `doctor --print-iam-policy` prints the statements";
    let failed = unread.iter().map(|finding| {
        MANIFEST_SOURCES.error(finding.file.display().to_string(), finding.message.as_str(), fix)
    });
    let is_read = |source: &&ManifestSource| {
        let name = source.to_string();
        !unread.iter().any(|finding| finding.file.starts_with(&name))
    };
    let read = facts.sources.iter().filter(is_read);
    failed.chain(read.map(|source| MANIFEST_SOURCES.ok(source.to_string(), "readable"))).collect()
}
