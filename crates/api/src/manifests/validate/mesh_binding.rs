//! Rules of a `MeshBinding`.

use super::{FindingCollector, cluster, tokens};
use crate::manifests::finding::{quoted, suggestion};
use crate::{AddressFamily, ControlPlaneSpec, MeshBindingSpec, ServiceClaim, TokenPolicy, limits};
use ecs_mesh_model::{DataplaneOwner, MeshName, Timestamp};

/// Placeholders of a Dataplane's name.
const PLACEHOLDERS: [&str; 3] = ["{taskId}", "{hostname}", "{service}"];

pub(super) fn check(spec: &MeshBindingSpec, report: &mut FindingCollector<'_>) {
    let selector = &spec.selector;
    if selector.clusters.is_empty() {
        report.add(
            "spec.selector.clusters",
            "is empty: name at least one cluster's ARN, or a pattern over them",
        );
    }
    cluster::check("spec.selector.clusters", &selector.clusters, report);
    report.globs_have_content("spec.selector.services", &selector.services);
    report.globs_have_content("spec.selector.families", &selector.families);
    check_accounts("spec.roleTags.authorizedAccounts", &spec.role_tags.authorized_accounts, report);
    check_claims(&spec.claims, report);
    check_name_template(&spec.dataplane_name, report);
    check_ranges(spec, report);
    tokens::check(&spec.tokens, report);
    if let Some(text) = &spec.cleanup.guard.release_until
        && Timestamp::parse(text).is_none()
    {
        let message =
            format!("{} is not an RFC 3339 time: write one such as 2026-01-31T12:00:00Z", quoted(text));
        report.add("spec.cleanup.guard.releaseUntil", message);
    }
}

/// Rules that depend on the type of the control plane: at Consul the mesh is the partition, and tasks name themselves.
pub(super) fn check_against_control_plane(
    spec: &MeshBindingSpec,
    control_plane: &ControlPlaneSpec,
    mut add: impl FnMut(&str, String),
) {
    let Some(consul) = &control_plane.consul else { return };
    let of = &spec.control_plane;
    match &consul.partition {
        _ if spec.mesh == MeshName::default() => {}
        Some(partition) if partition == spec.mesh.as_str() => {}
        Some(partition) => {
            let message = format!(
                "{} is not the partition of ControlPlane {of}, which is {}: leave mesh out",
                quoted(spec.mesh.as_str()),
                quoted(partition)
            );
            add("spec.mesh", message);
        }
        None => {
            let message = format!(
                "{} would be a partition of Consul Enterprise, and ControlPlane {of} has none: leave mesh out",
                quoted(spec.mesh.as_str())
            );
            add("spec.mesh", message);
        }
    }
    if spec.dataplane_name != MeshBindingSpec::DATAPLANE_NAME {
        let message = format!("has no effect at ControlPlane {of}, which is of type consul: leave it out");
        add("spec.dataplaneName", message);
    }
    if spec.address_family != AddressFamily::default() {
        let message = format!("has no effect at ControlPlane {of}, which is of type consul: leave it out");
        add("spec.addressFamily", message);
    }
    if spec.dataplanes != DataplaneOwner::default() {
        let message = format!("has no effect at ControlPlane {of}, which is of type consul: leave it out");
        add("spec.dataplanes", message);
    }
    if spec.deployments.hold {
        let message = format!("has no effect at ControlPlane {of}, which is of type consul: leave it out");
        add("spec.deployments.hold", message);
    }
    if spec.tokens != TokenPolicy::default() {
        let message = format!("has no effect at ControlPlane {of}, which is of type consul: leave it out");
        add("spec.tokens", message);
    }
}

fn check_ranges(spec: &MeshBindingSpec, report: &mut FindingCollector<'_>) {
    let cleanup = &spec.cleanup;
    for (path, value, allowed) in [
        ("spec.roleTags.recheck", spec.role_tags.recheck, limits::RECHECK),
        ("spec.cleanup.sweepInterval", cleanup.sweep_interval, limits::SWEEP_INTERVAL),
        ("spec.cleanup.graceAge", cleanup.grace_age, limits::GRACE_AGE),
        ("spec.cleanup.drain", cleanup.drain, limits::DRAIN),
        ("spec.deployments.maxHold", spec.deployments.max_hold, limits::DEPLOYMENT_HOLD),
        ("spec.drain.revokedWithin", spec.drain.revoked_within, limits::REVOKED_WITHIN),
        ("spec.cleanup.settle", cleanup.settle, limits::SETTLE),
    ] {
        report.duration(path, value, allowed);
    }
    if let Some(max_hold) = spec.drain.max_hold {
        report.duration("spec.drain.maxHold", max_hold, limits::MAX_HOLD);
    }
    report.number("spec.cleanup.guard.maxFraction", &cleanup.guard.max_fraction, &limits::MAX_FRACTION);
}

fn check_claims(claims: &[ServiceClaim], report: &mut FindingCollector<'_>) {
    for (index, claim) in claims.iter().enumerate() {
        let path = format!("spec.claims[{index}]");
        let ServiceClaim { role_path, accounts, services } = claim;
        if role_path.is_none() && accounts.is_empty() {
            report.add(&path, "is for every task: give rolePath or accounts");
        }
        if let Some(pattern) = role_path
            && !pattern.as_str().starts_with(['/', '*'])
        {
            let found = quoted(pattern.as_str());
            let message = format!("{found} matches no role: write the path and the name, such as /team-a/*");
            report.add(format!("{path}.rolePath"), message);
        }
        check_accounts(&format!("{path}.accounts"), accounts, report);
        if services.is_empty() {
            report.add(format!("{path}.services"), "is empty: name at least one service, or a pattern");
        }
        report.globs_have_content(&format!("{path}.services"), services);
    }
}

fn check_accounts(path: &str, accounts: &[String], report: &mut FindingCollector<'_>) {
    for (index, account) in accounts.iter().enumerate() {
        if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
            let message = format!("{} is not an AWS account id: write its 12 digits", quoted(account));
            report.add(format!("{path}[{index}]"), message);
        }
    }
}

fn check_name_template(template: &str, report: &mut FindingCollector<'_>) {
    const PATH: &str = "spec.dataplaneName";
    let (mut literal, mut rest) = (String::new(), template);
    let mut is_unique = false;
    while let Some(open) = rest.find('{') {
        literal.push_str(&rest[..open]);
        let Some(close) = rest[open..].find('}') else {
            return report.add(PATH, format!("{} has a {{ without a }}", quoted(template)));
        };
        let placeholder = &rest[open..=open + close];
        if !PLACEHOLDERS.contains(&placeholder) {
            let known = suggestion(placeholder, "Allowed", &PLACEHOLDERS);
            report.add(PATH, format!("unknown placeholder {}{known}", quoted(placeholder)));
        }
        // `{service}` alone gives all tasks of a service one name. An unknown placeholder has an error of its own.
        is_unique |= placeholder != "{service}";
        rest = &rest[open + close + 1..];
    }
    literal.push_str(rest);
    if !is_unique {
        let found = quoted(template);
        report.add(
            PATH,
            format!("{found} would name several tasks alike: put {{taskId}} or {{hostname}} in it"),
        );
    }
    if !literal.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.')) {
        let found = quoted(template);
        let allowed = "lower-case letters, digits, '-' and '.'";
        report.add(PATH, format!("{found} has characters that a Dataplane's name cannot have: around placeholders write {allowed}"));
    }
    if template.starts_with(['-', '.']) || template.ends_with(['-', '.']) {
        report.add(
            PATH,
            format!("{} must start and end with a letter, a digit or a placeholder", quoted(template)),
        );
    }
}
