//! Sidecars of Kuma and Consul: they authenticate, the task ends with them, and the app starts after them and stops before.

use super::membership::Membership;
use crate::facts::AuditedDefinition;
use crate::parse::config::TaskConfig;
use crate::parse::sidecar::{self, SidecarAuthentication, SidecarContainer, SidecarKind};
use crate::report::{AuditFinding, Severity};
use crate::rules_catalog::{SIDECAR_AUTHENTICATION, SIDECAR_ESSENTIAL, SIDECAR_ORDER};
use ecs_mesh_aws::inspect::FullContainer;

pub(super) fn check(
    definition: &AuditedDefinition,
    memberships: &[Membership<'_>],
    config: Option<&TaskConfig>,
) -> Vec<AuditFinding> {
    let sidecars = sidecar::of(definition);
    let mut findings: Vec<AuditFinding> =
        sidecars.iter().filter_map(|sidecar| authentication(definition, sidecar)).collect();
    findings.extend(sidecars.iter().filter_map(|sidecar| essential(definition, sidecar)));
    let apps = AppContainers::of(definition, &sidecars, memberships, config);
    for proxy in sidecars.iter().filter(|one| one.kind != SidecarKind::ConsulHealthSync) {
        findings.extend(apps.unordered(definition, &proxy.container.name).map(|(index, _)| {
            let found = format!("the container does not depend on {}", proxy.container.name);
            SIDECAR_ORDER.violation(definition.container_place(*index, "dependsOn"), found)
        }));
    }
    findings
}

fn authentication(definition: &AuditedDefinition, sidecar: &SidecarContainer<'_>) -> Option<AuditFinding> {
    if sidecar.kind != SidecarKind::KumaDataplane {
        return None;
    }
    let at = || definition.container_place(sidecar.index, "command");
    match sidecar.authentication() {
        SidecarAuthentication::Given => None,
        SidecarAuthentication::Absent => Some(
            SIDECAR_AUTHENTICATION.violation(at(), "neither --auth-type nor a data plane token is given"),
        ),
        SidecarAuthentication::OtherType(kind) => Some(
            SIDECAR_AUTHENTICATION.violation(at(), format!("--auth-type is {kind:?}, and only aws exists")),
        ),
        SidecarAuthentication::Hidden(reason) => {
            Some(SIDECAR_AUTHENTICATION.unknown(at(), reason.to_string()))
        }
    }
}

fn essential(definition: &AuditedDefinition, sidecar: &SidecarContainer<'_>) -> Option<AuditFinding> {
    if sidecar.container.is_essential() {
        return None;
    }
    let at = definition.container_place(sidecar.index, "essential");
    let finding = SIDECAR_ESSENTIAL.violation(at, "essential is false");
    Some(match sidecar.kind {
        SidecarKind::KumaDataplane => finding,
        // HashiCorp's own Terraform module sets it.
        SidecarKind::ConsulDataplane | SidecarKind::ConsulHealthSync => finding.with_severity(Severity::Info),
    })
}

/// The containers that use the mesh.
struct AppContainers<'a> {
    containers: Vec<(usize, &'a FullContainer)>,
    /// Whether manifests or consul-ecs name them or their ports. Otherwise these are all essential containers that neither
    /// belong to the mesh nor prepare it, and an agent for logs or traces may be among them.
    are_declared: bool,
}

impl<'a> AppContainers<'a> {
    fn of(
        definition: &'a AuditedDefinition,
        sidecars: &[SidecarContainer<'_>],
        memberships: &[Membership<'_>],
        config: Option<&TaskConfig>,
    ) -> Self {
        let prepares = |name: &str| {
            sidecars.iter().any(|one| sidecar::starts_after(definition, &one.container.name, name))
        };
        let candidates: Vec<(usize, &FullContainer)> = definition
            .containers()
            .filter(|(index, container)| {
                !sidecars.iter().any(|sidecar| sidecar.index == *index)
                    && !container.image.contains("consul-ecs")
                    && !prepares(&container.name)
            })
            .collect();
        let is_declared = |container: &FullContainer| {
            is_of_workload(container, memberships) || is_of_consul(container, config)
        };
        let declared: Vec<_> = candidates.iter().copied().filter(|(_, one)| is_declared(one)).collect();
        if declared.is_empty() {
            let essential = candidates.into_iter().filter(|(_, container)| container.is_essential());
            return Self { containers: essential.collect(), are_declared: false };
        }
        Self { containers: declared, are_declared: true }
    }

    /// The containers that do not start after the sidecar. Among undeclared ones, one that does is taken for the app.
    fn unordered(
        &self,
        definition: &AuditedDefinition,
        sidecar: &str,
    ) -> impl Iterator<Item = &(usize, &'a FullContainer)> {
        let is_ordered =
            |container: &FullContainer| sidecar::starts_after(definition, &container.name, sidecar);
        let is_app_ordered = !self.are_declared && self.containers.iter().any(|(_, one)| is_ordered(one));
        self.containers.iter().filter(move |(_, container)| !is_app_ordered && !is_ordered(container))
    }
}

fn is_of_workload(container: &FullContainer, memberships: &[Membership<'_>]) -> bool {
    memberships.iter().flat_map(|one| &one.workload.inbounds).any(|inbound| {
        inbound.container.as_ref() == Some(&container.name)
            || container.ports().any(|port| port == inbound.container_port.get())
    })
}

fn is_of_consul(container: &FullContainer, config: Option<&TaskConfig>) -> bool {
    let Some(config) = config else { return false };
    config.texts("/healthSyncContainers").contains(&container.name.as_str())
        || config
            .number("/service/port")
            .is_some_and(|port| container.ports().any(|one| i64::from(one) == port))
}
