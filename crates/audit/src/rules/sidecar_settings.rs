//! Settings of Kuma's sidecars: name, mesh, outbounds, health check and stop. A setting that a definition hides is
//! reported once, by the rule of authentication.

use super::membership::Membership;
use crate::facts::AuditedDefinition;
use crate::parse::sidecar::{self, SidecarContainer};
use crate::report::AuditFinding;
use crate::rules_catalog::{
    SIDECAR_HEALTH_CHECK, SIDECAR_MESH, SIDECAR_NAME, SIDECAR_OWNER, SIDECAR_REACH, SIDECAR_STOP,
};
use ecs_mesh_aws::inspect::Redacted;
use ecs_mesh_core::intent::{ReachMismatch, reach_mismatch};
use ecs_mesh_model::{DataplaneOwner, GoDuration, KumaSidecarStart, SidecarDataplane, SidecarSetting};

/// `--drain-time` by default, and `stopTimeout` by default, in seconds.
///
/// Sources: `pkg/config/app/kuma-dp/config.go` of Kuma, and
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html>.
const DEFAULT_SECONDS: u64 = 30;

/// Envoy's admin port by default.
const ADMIN_PORT: u16 = 9901;

pub(super) fn check(definition: &AuditedDefinition, memberships: &[Membership<'_>]) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    let sidecars = sidecar::of(definition);
    let started: Vec<_> = sidecars.iter().filter_map(|one| Some((one, one.start()?))).collect();
    for (sidecar, start) in &started {
        findings.extend(health_check(definition, sidecar));
        findings.extend(stop_timeout(definition, sidecar, start));
        // Of several, the one that is the task's own is not known.
        let is_only = started.len() == 1;
        for membership in memberships.iter().filter(|_| is_only) {
            findings.extend(owner(definition, sidecar, start, membership));
            if registers_itself(start) {
                continue;
            }
            findings.extend(name(definition, sidecar, start));
            findings.extend(mesh(definition, sidecar, start, membership));
            findings.extend(reach(definition, sidecar, start, membership));
        }
    }
    findings.sort_by(|a, b| (a.rule, &a.location, &a.message).cmp(&(b.rule, &b.location, &b.message)));
    findings.dedup();
    findings
}

/// Whether name and mesh are the sidecar's own: it has a template, or is a zone proxy.
fn registers_itself(start: &KumaSidecarStart<'_>) -> bool {
    let is_zone_proxy = match start.setting("proxy-type", "KUMA_DATAPLANE_PROXY_TYPE") {
        SidecarSetting::Given(value) => value != "dataplane",
        SidecarSetting::Absent | SidecarSetting::Hidden(_) => false,
    };
    is_zone_proxy || start.dataplane() == Some(SidecarDataplane::Template)
}

fn owner(
    definition: &AuditedDefinition,
    sidecar: &SidecarContainer<'_>,
    start: &KumaSidecarStart<'_>,
    membership: &Membership<'_>,
) -> Option<AuditFinding> {
    let declared = membership.workload.dataplanes.unwrap_or(membership.binding.spec.dataplanes);
    let (found, fits) = match start.dataplane()? {
        SidecarDataplane::Template => ("has a Dataplane template", DataplaneOwner::Sidecar),
        SidecarDataplane::Named => ("starts by name", DataplaneOwner::Operator),
    };
    let is_as_declared = declared == fits || declared == DataplaneOwner::Observe;
    let found = format!(
        "the sidecar {found}, and dataplanes is {declared} in Workload {} or MeshBinding {}",
        membership.name, membership.binding.name
    );
    let at = definition.container_place(sidecar.index, "command");
    (!is_as_declared).then(|| SIDECAR_OWNER.violation(at, found))
}

fn name(
    definition: &AuditedDefinition,
    sidecar: &SidecarContainer<'_>,
    start: &KumaSidecarStart<'_>,
) -> Option<AuditFinding> {
    let found = match start.setting("name", "KUMA_DATAPLANE_NAME") {
        SidecarSetting::Absent => "--name is missing".to_owned(),
        SidecarSetting::Given(value) if is_literal(value) => {
            format!("--name is {value:?} in every task of the definition")
        }
        SidecarSetting::Given(_) | SidecarSetting::Hidden(_) => return None,
    };
    Some(SIDECAR_NAME.violation(definition.container_place(sidecar.index, "command"), found))
}

fn mesh(
    definition: &AuditedDefinition,
    sidecar: &SidecarContainer<'_>,
    start: &KumaSidecarStart<'_>,
    membership: &Membership<'_>,
) -> Option<AuditFinding> {
    let joined = match start.setting("mesh", "KUMA_DATAPLANE_MESH") {
        SidecarSetting::Given(value) if is_literal(value) => value,
        SidecarSetting::Absent => "default",
        SidecarSetting::Given(_) | SidecarSetting::Hidden(_) => return None,
    };
    let bound = membership.binding.spec.mesh.as_str();
    let found = format!("the mesh is {joined:?}, and {bound:?} in MeshBinding {}", membership.binding.name);
    let at = definition.container_place(sidecar.index, "command");
    (joined != bound).then(|| SIDECAR_MESH.violation(at, found))
}

fn reach(
    definition: &AuditedDefinition,
    sidecar: &SidecarContainer<'_>,
    start: &KumaSidecarStart<'_>,
    membership: &Membership<'_>,
) -> Option<AuditFinding> {
    let reach = membership.workload.reach;
    let ReachMismatch { found, help } = reach_mismatch(reach, start.outbounds())?;
    let found = format!("Workload {} has reach {}, and the sidecar {found}", membership.name, reach.as_str());
    let at = definition.container_place(sidecar.index, "command");
    Some(SIDECAR_REACH.violation(at, found).with_fix(help))
}

fn health_check(definition: &AuditedDefinition, sidecar: &SidecarContainer<'_>) -> Option<AuditFinding> {
    let check = sidecar.container.health_check.as_ref()?;
    let moved = sidecar.moved_ports();
    let admin = moved.iter().find(|port| port.default == ADMIN_PORT).map_or(ADMIN_PORT, |port| port.port);
    let asks = |command: &Redacted| numbers(command.expose()).any(|number| number == admin.to_string());
    let found = format!("the health check asks port {admin}");
    let at = definition.container_place(sidecar.index, "healthCheck.command");
    check.command.iter().any(asks).then(|| SIDECAR_HEALTH_CHECK.violation(at, found))
}

fn stop_timeout(
    definition: &AuditedDefinition,
    sidecar: &SidecarContainer<'_>,
    start: &KumaSidecarStart<'_>,
) -> Option<AuditFinding> {
    let drain = match start.setting("drain-time", "KUMA_DATAPLANE_DRAIN_TIME") {
        SidecarSetting::Given(value) => u64::try_from(GoDuration::parse(value)?.0 / 1_000_000_000).ok()?,
        SidecarSetting::Absent => DEFAULT_SECONDS,
        SidecarSetting::Hidden(_) => return None,
    };
    let stop = sidecar.container.stop_timeout.unwrap_or(DEFAULT_SECONDS);
    let found = format!("stopTimeout is {stop} s, and the sidecar drains for {drain} s");
    let at = definition.container_place(sidecar.index, "stopTimeout");
    (stop < drain).then(|| SIDECAR_STOP.violation(at, found))
}

/// Whether no shell gives the value another meaning in each task.
fn is_literal(value: &str) -> bool {
    !value.contains(['$', '`', '{'])
}

/// The numbers in a text.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty())
}
