//! Settings that a release has no form for. A server of that release would refuse them, or accept them and drop a part without
//! an error, so they are refused here, with all reasons.

use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write as _;

use super::capabilities::{DataplaneCapabilities, MeshServiceNaming};
use super::reachable::mesh_service;
use ecs_mesh_api::limits::DNS_LABEL_RULE;
use ecs_mesh_api::manifests::is_dns_label;
use ecs_mesh_api::{
    ApiDialect, CalledBackend, Inbound, InexpressibleProxy, InexpressibleTag, KumaFeature, Protocol,
    ZoneProxyForm, ZoneProxyKind,
};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
use ecs_mesh_core::intent::{DesiredProxy, DesiredReach, DesiredRegistration};
use ecs_mesh_model::ServiceName;

/// Checks that a Dataplane of the release can express all of `desired`. `version` is the server's, for the message.
pub(super) fn check(
    desired: &DesiredRegistration,
    capabilities: DataplaneCapabilities,
    version: &str,
) -> Result<(), MeshError> {
    check_form(desired, capabilities, version)?;
    let problems = problems(desired, capabilities);
    let Some(first) = problems.first() else { return Ok(()) };
    let mut message = format!("rendering service {} for {version}", desired.service);
    for (at, problem) in problems.iter().enumerate() {
        let _ = write!(message, "{} {problem}", if at == 0 { ":" } else { "," });
    }
    let _ = write!(message, "; help: {}", first.help());
    Err(MeshError::new(MeshErrorKind::NotExpressible, message))
}

/// Checks that a zone proxy was evaluated for the form of the release.
fn check_form(
    desired: &DesiredRegistration,
    capabilities: DataplaneCapabilities,
    version: &str,
) -> Result<(), MeshError> {
    let DesiredProxy::Zone(proxy, form) = &desired.proxy else { return Ok(()) };
    if capabilities.release.zone_proxy_form().of(proxy) == *form {
        return Ok(());
    }
    let message = format!(
        "rendering service {} for {version}: the control plane has changed since the task was evaluated",
        desired.service
    );
    Err(MeshError::new(MeshErrorKind::Conflict, message))
}

/// One thing that a release cannot express.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Inexpressible<'a> {
    /// A kind of proxy, or one of its settings.
    Proxy(InexpressibleProxy),
    /// A listener of a zone proxy, in a mesh whose services are tags.
    NoListener(ZoneProxyKind),
    /// A Dataplane without inbounds.
    NoInbounds,
    /// A service whose name is no workload label, without another label.
    NoWorkloadLabel(&'a ServiceName),
    /// A protocol of an inbound.
    Protocol { port: u16, protocol: Protocol },
    /// A tag of an inbound.
    Tag(InexpressibleTag<'a>),
    /// Sidecars that bind their outbounds.
    NoBoundOutbounds,
    /// Sidecars that bind their outbounds, in a mesh whose services are tags.
    NoBoundTags,
    /// An outbound to a resource of the mesh, which the mesh does not have or the release cannot call.
    NoBackend { backend: &'a CalledBackend, has_resources: bool },
    /// An outbound to a service whose name cannot be that of a MeshService.
    NoMeshService(&'a ServiceName),
    /// An outbound to a service with several workload labels.
    SeveralMeshServices { service: &'a ServiceName, labels: String },
}

impl fmt::Display for Inexpressible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy(problem) => problem.fmt(f),
            Self::NoListener(kind) => write!(
                f,
                "a listener of type {} needs a mesh with meshServices.mode Exclusive (scope: mesh)",
                kind.resource()
            ),
            Self::NoInbounds => {
                f.write_str("2.14 is the first version that accepts a Dataplane without inbounds")
            }
            Self::NoWorkloadLabel(service) => {
                write!(f, "the service's name {service} is no label kuma.io/workload ({DNS_LABEL_RULE})")
            }
            Self::Protocol { port, protocol } => {
                write!(f, "the inbound on port {port} has protocol {}, which 3.0 removed", protocol.as_str())
            }
            Self::Tag(problem) => problem.fmt(f),
            Self::NoBoundOutbounds => {
                f.write_str("2.11 is the first version whose sidecars bind their outbounds (reach: bindOutbounds)")
            }
            Self::NoBoundTags => f.write_str(
                "the mesh does not have meshServices.mode Exclusive, so sidecars cannot bind its services (reach: bindOutbounds)",
            ),
            Self::NoBackend { backend, has_resources: true } => {
                write!(f, "the outbound's {backend} needs a mesh with MeshServices, and its meshServices.mode is Disabled")
            }
            Self::NoBackend { backend, has_resources: false } => {
                write!(f, "2.9 is the first version with outbounds to resources, such as {backend}")
            }
            Self::NoMeshService(service) => {
                write!(f, "the outbound's service {service} can be no MeshService ({DNS_LABEL_RULE})")
            }
            Self::SeveralMeshServices { service, labels } => {
                write!(f, "the outbound's service {service} has several MeshServices: {labels}")
            }
        }
    }
}

impl Inexpressible<'_> {
    fn help(&self) -> &'static str {
        match self {
            Self::Proxy(problem) => problem.help(),
            Self::NoListener(_) => "set meshServices.mode of the Mesh to Exclusive, or leave `scope` out",
            Self::NoInbounds => "give the Workload an inbound, or upgrade the control plane",
            Self::NoWorkloadLabel(_) => "set Workload.spec.workload, or rename the service",
            Self::Protocol { .. } => "set the inbound's protocol to tcp",
            Self::Tag(_) => InexpressibleTag::HELP,
            Self::NoBoundOutbounds => "set Workload.spec.reach to outbounds, or upgrade the control plane",
            Self::NoBoundTags => {
                "set meshServices.mode of the Mesh to Exclusive, or Workload.spec.reach to outbounds"
            }
            Self::NoBackend { has_resources: true, .. } => {
                "set meshServices.mode of the Mesh to Everywhere or Exclusive, or name a service"
            }
            Self::NoBackend { has_resources: false, .. } => "name a service, or upgrade the control plane",
            Self::NoMeshService(_) => "set `workload` in the Workload of that service, or rename the service",
            Self::SeveralMeshServices { .. } => "give all Workloads of that service one `workload`",
        }
    }
}

fn problems(desired: &DesiredRegistration, capabilities: DataplaneCapabilities) -> Vec<Inexpressible<'_>> {
    let mut problems = Vec::new();
    problems.extend(desired.proxy.role().inexpressible(capabilities.release).map(Inexpressible::Proxy));
    // Servers of 2.14 skip it without an error (`UPGRADE.md`).
    if let DesiredProxy::Zone(proxy, ZoneProxyForm::Listener) = &desired.proxy
        && capabilities.has(KumaFeature::Listeners)
        && !capabilities.mesh_services_only()
    {
        problems.push(Inexpressible::NoListener(proxy.kind()));
    }
    let needs_inbounds =
        desired.proxy == DesiredProxy::Sidecar && !capabilities.has(KumaFeature::OptionalInbounds);
    if desired.inbounds.is_empty() && needs_inbounds {
        problems.push(Inexpressible::NoInbounds);
    }
    let refused = desired.inbounds.iter().filter(|inbound| !capabilities.release.allows(inbound.protocol));
    problems.extend(refused.map(|Inbound { port, protocol, .. }| Inexpressible::Protocol {
        port: port.get(),
        protocol: *protocol,
    }));
    problems.extend(reach_problems(desired, capabilities));
    if capabilities.release.dialect() == Some(ApiDialect::V3) {
        if desired.workload.is_none() {
            problems.push(Inexpressible::NoWorkloadLabel(&desired.service));
        }
        problems.extend(InexpressibleTag::of(&desired.inbounds).into_iter().map(Inexpressible::Tag));
    }
    if capabilities.mesh_services_only() && capabilities.service_naming == MeshServiceNaming::WorkloadLabel {
        problems.extend(outbound_problems(desired, capabilities));
    }
    problems
}

fn reach_problems(
    desired: &DesiredRegistration,
    capabilities: DataplaneCapabilities,
) -> Vec<Inexpressible<'_>> {
    match &desired.reach {
        DesiredReach::Listeners(outbounds) => {
            let backends = outbounds.declared().iter().map(|outbound| &outbound.backend);
            let refused = backends.filter(|backend| match backend {
                CalledBackend::Resource { kind, .. } => !capabilities.allows_backend(*kind),
                CalledBackend::Labelled { kind, .. } => {
                    !capabilities.allows_backend(*kind) || !capabilities.has(KumaFeature::ReachableBackends)
                }
                CalledBackend::Service(_) => false,
            });
            let refused: BTreeSet<&CalledBackend> = refused.collect();
            let has_resources = capabilities.has(KumaFeature::ReachableBackends);
            refused.into_iter().map(|backend| Inexpressible::NoBackend { backend, has_resources }).collect()
        }
        DesiredReach::Backends(_) | DesiredReach::EveryBackend(_) => {
            if !capabilities.has(KumaFeature::BindOutbounds) {
                vec![Inexpressible::NoBoundOutbounds]
            } else if !capabilities.mesh_services_only() {
                vec![Inexpressible::NoBoundTags]
            } else {
                Vec::new()
            }
        }
    }
}

fn outbound_problems(
    desired: &DesiredRegistration,
    capabilities: DataplaneCapabilities,
) -> Vec<Inexpressible<'_>> {
    let mut problems = Vec::new();
    for service in desired.reach.called_services() {
        let problem = match mesh_service(desired, service, capabilities) {
            Some(name) if is_dns_label(name) => continue,
            Some(_) => Inexpressible::NoMeshService(service),
            None => {
                let labels = desired.called_workloads.labels(service).into_iter().flatten();
                let labels = labels.map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
                Inexpressible::SeveralMeshServices { service, labels }
            }
        };
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    problems
}
