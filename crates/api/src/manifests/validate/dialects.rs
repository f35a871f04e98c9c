//! Warnings of what the dialects that control planes name have no form for. The versions of the others are not known here.

use std::collections::BTreeSet;

use super::workload::is_dns_label;
use super::{Assembly, ManifestScope};
use crate::limits::DNS_LABEL_RULE;
use crate::manifests::finding::quoted;
use crate::{
    ApiDialect, CalledBackend, InexpressibleTag, KumaFeature, KumaRelease, ReachableBackend, WorkloadSpec,
};
use ecs_mesh_model::ServiceName;

impl Assembly {
    /// Warns of the fields that no release of the named dialect has a form for, by its newest one.
    pub(super) fn warn_of_dialects(&mut self) {
        let mut warnings = Vec::new();
        for (name, workload) in &self.set.workloads {
            let control_planes = self.bindings_of(workload).filter_map(|binding| {
                self.set.control_planes.get(binding.spec.control_plane.as_str())?.kuma.as_ref()?.dialect
            });
            for dialect in control_planes.collect::<BTreeSet<ApiDialect>>() {
                let release = dialect.newest_tested();
                let found = not_expressible(workload, release).into_iter();
                let found = found.chain(self.without_mesh_service(name, workload, release));
                warnings
                    .extend(found.map(|(path, message)| self.workload_origins[name].finding(path, message)));
            }
        }
        self.warnings.extend(warnings);
    }

    /// The called services that can have no MeshService: it is named by the label `workload` of the service's Workloads,
    /// or else by the service.
    fn without_mesh_service(
        &self,
        name: &str,
        workload: &WorkloadSpec,
        release: KumaRelease,
    ) -> Vec<(String, String)> {
        // A Workload that is not known here may give the service a label.
        if release.has(KumaFeature::TagServices) || self.scope == ManifestScope::Partial {
            return Vec::new();
        }
        let has_label = |service: &ServiceName| {
            let mut workloads = self.set.workloads.values();
            workloads.any(|one| one.service == *service && one.workload.is_some())
        };
        let called = self.set.declared_reach(name, workload).backends();
        let services: BTreeSet<&ServiceName> =
            called.iter().filter_map(ReachableBackend::one).filter_map(CalledBackend::service).collect();
        let broken = services.into_iter().filter(|one| !is_dns_label(one.as_str()) && !has_label(one));
        let message = |service: &ServiceName| {
            format!(
                "{} can be no MeshService, which all services are in Kuma {release}: set `workload` in the Workload of that \
                 service, or rename the service ({DNS_LABEL_RULE})",
                quoted(service.as_str())
            )
        };
        broken.map(|service| ("spec.outbounds".to_owned(), message(service))).collect()
    }
}

/// The fields that a release of Kuma has no form for, each with the reason and the next step.
fn not_expressible(spec: &WorkloadSpec, release: KumaRelease) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let has_label = spec.workload.is_some() || is_dns_label(spec.service.as_str());
    if !release.has(KumaFeature::InboundTags) && !has_label {
        let service = quoted(spec.service.as_str());
        let message = format!(
            "{service} is no valid label kuma.io/workload, which names the service in Kuma {release}: set spec.workload \
             ({DNS_LABEL_RULE})"
        );
        found.push(("spec.service".to_owned(), message));
    }
    if let Some(problem) = spec.proxy_role().inexpressible(release) {
        let message = format!("Kuma {release} cannot express {problem}: {}", problem.help());
        found.push((problem.field().to_owned(), message));
    }
    for (index, inbound) in spec.inbounds.iter().enumerate() {
        if !release.allows(inbound.protocol) {
            let message = format!("Kuma {release} has no protocol {}: write tcp", inbound.protocol.as_str());
            found.push((format!("spec.inbounds[{index}].protocol"), message));
        }
    }
    if !release.has(KumaFeature::InboundTags) {
        let tags = InexpressibleTag::of(&spec.inbounds).into_iter();
        let message = |tag: InexpressibleTag<'_>| format!("{tag}: {}", InexpressibleTag::HELP);
        found.extend(tags.map(|tag| ("spec.inbounds".to_owned(), message(tag))));
    }
    found
}
