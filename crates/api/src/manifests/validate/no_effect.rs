//! Warnings of fields that are valid by themselves and have no effect beside others.

use std::sync::Arc;

use super::Assembly;
use crate::manifests::outbounds::DeclaredReach;
use crate::manifests::set::Binding;
use crate::{ApiDialect, ControlPlaneType, Discovery, OutboundListener, Probe, ProxyKind, WorkloadSpec};
use ecs_mesh_model::DataplaneOwner;

impl Assembly {
    /// Warns of each field without effect.
    pub(super) fn warn_of_no_effect(&mut self) {
        let mut warnings = Vec::new();
        for (name, workload) in &self.set.workloads {
            let origin = &self.workload_origins[name];
            let found = unused_probe(workload).into_iter().chain(self.unused_at_consul(workload));
            warnings.extend(found.map(|(field, message)| origin.finding(field, message)));
            let lost = self.lost_listeners(name, workload);
            warnings.extend(lost.into_iter().map(|message| origin.finding("spec.outbounds", message)));
        }
        for (name, binding) in &self.set.bindings {
            if let Some(message) = self.unused_hold(binding) {
                warnings.push(self.binding_origins[name].finding("spec.deployments.hold", message));
            }
            if !binding.spec.claims.is_empty() && binding.spec.discovery == Discovery::Manifests {
                let message =
                    "has no effect with discovery: manifests: write discovery: tags, or leave it out";
                warnings.push(self.binding_origins[name].finding("spec.claims", message));
            }
        }
        for (name, list) in &self.set.outbound_lists {
            for (index, workload) in list.workloads.iter().enumerate().filter(|(_, glob)| glob.is_literal()) {
                let named = self.set.workloads.get(workload.as_str());
                if named.is_some_and(|named| !named.proxy_role().may_have_outbounds()) {
                    let message = format!(
                        "Workload {workload} is a zone proxy or a built-in gateway, which has no outbounds: delete the name",
                        workload = workload.as_str()
                    );
                    let field = format!("spec.workloads[{index}]");
                    warnings.push(self.list_origins[name].finding(field, message));
                }
            }
        }
        self.warnings.extend(warnings);
    }

    pub(super) fn bindings_of<'a>(
        &'a self,
        workload: &'a WorkloadSpec,
    ) -> impl Iterator<Item = &'a Arc<Binding>> {
        let is_for =
            |name: &str| workload.bindings.is_empty() || workload.bindings.iter().any(|one| one == name);
        self.set.bindings.values().filter(move |binding| is_for(&binding.name))
    }

    /// A field that a workload declares for Kuma alone, if all its control planes are of type consul.
    fn unused_at_consul(&self, workload: &WorkloadSpec) -> Option<(&'static str, String)> {
        let field = if workload.proxy != ProxyKind::Sidecar {
            "spec.proxy"
        } else if workload.dataplanes.is_some() {
            "spec.dataplanes"
        } else {
            return None;
        };
        let mut kinds = self.bindings_of(workload).map(|binding| binding.control_plane_type).peekable();
        let is_consul = self.knows_all_bindings(workload)
            && kinds.peek().is_some()
            && kinds.all(|kind| kind == ControlPlaneType::Consul);
        let message = "has no effect: all control planes of the workload are of type consul: leave it out";
        is_consul.then(|| (field, message.to_owned()))
    }

    /// The listeners that Kuma 3.0 does not open, unless all control planes of the workload are named as others.
    fn lost_listeners(&self, name: &str, workload: &WorkloadSpec) -> Vec<String> {
        let may_be_3_0 = |binding: &Arc<Binding>| {
            let control_plane = self.set.control_planes.get(binding.spec.control_plane.as_str());
            let kuma = control_plane.and_then(|control_plane| control_plane.kuma.as_ref());
            kuma.is_some_and(|kuma| kuma.dialect != Some(ApiDialect::V2))
        };
        if !self.bindings_of(workload).any(may_be_3_0) {
            return Vec::new();
        }
        let DeclaredReach::Listeners(merged) = self.set.declared_reach(name, workload) else {
            return Vec::new();
        };
        let message = |lost: &OutboundListener| {
            format!(
                "Kuma 3.0 does not open {lost}, since another listener has the same destination and a higher port: let the \
                 app use one of them"
            )
        };
        merged.lost_in_3_0().into_iter().map(message).collect()
    }

    /// Why no deployment is held, if the operator registers no task of the binding.
    fn unused_hold(&self, binding: &Binding) -> Option<String> {
        let spec = &binding.spec;
        let is_owned = |workload: &WorkloadSpec| {
            workload.dataplanes == Some(DataplaneOwner::Operator)
                && self.bindings_of(workload).any(|of| of.name == binding.name)
        };
        let is_unused = spec.deployments.hold
            && spec.dataplanes != DataplaneOwner::Operator
            && !self.set.workloads.values().any(|workload| is_owned(workload));
        is_unused.then(|| {
            format!(
                "has no effect with dataplanes: {}, since the operator does not register the tasks: leave it out",
                spec.dataplanes.as_str()
            )
        })
    }
}

/// The inbounds have the probe.
fn unused_probe(workload: &WorkloadSpec) -> Option<(&'static str, String)> {
    let is_unused = workload.probe != Probe::default() && workload.proxy != ProxyKind::Sidecar;
    let proxy = workload.proxy.as_str();
    let message = || format!("has no effect with proxy: {proxy}, which has no inbounds: leave it out");
    is_unused.then(|| ("spec.probe", message()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use crate::manifests::{ManifestScope, assemble, read_file};

    /// The documents and fields that have a warning.
    fn warned(binding: &str, workload: &str, control_plane: &str, scope: ManifestScope) -> Vec<String> {
        let address = "address: 'https://cp:5682'";
        let document = |kind: &str, name: &str, spec: &str| {
            format!(
                "apiVersion: ecs-mesh.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
            )
        };
        let text =
            document("ControlPlane", "cp", &format!("type: {control_plane}, {control_plane}: {{{address}}}"))
                + &document(
                    "MeshBinding",
                    "b",
                    &format!("controlPlane: cp, selector: {{clusters: ['*']}}{binding}"),
                )
                + &document("Workload", "w", &format!("selector: {{services: [w]}}, service: w{workload}"))
                + &document(
                    "OutboundList",
                    "l",
                    "workloads: [w], outbounds: [{service: kv, targetPort: 80, listen: {port: 15001}}]",
                );
        let file: Arc<Path> = Path::new("a.yaml").into();
        let (manifests, errors) = read_file(&file, &text);
        let found = assemble(manifests, scope);
        let errors: Vec<_> = errors.iter().chain(&found.errors).collect();
        assert!(errors.is_empty(), "{errors:?}");
        found.warnings.iter().map(|finding| finding.path.clone()).collect()
    }

    #[test]
    fn field_without_effect_has_one_warning() {
        let hold = ", deployments: {hold: true}";
        for (binding, workload, control_plane, fields) in [
            ("", ", proxy: gateway", "kuma", vec![]),
            ("", ", proxy: gateway, probe: none", "kuma", vec!["spec.probe"]),
            ("", ", probe: none, dataplanes: sidecar", "kuma", vec![]),
            ("", ", proxy: gateway, gateway: {type: builtin}", "kuma", vec!["spec.workloads[0]"]),
            ("", ", proxy: zoneEgress", "kuma", vec!["spec.workloads[0]"]),
            ("", ", proxy: gateway", "consul", vec!["spec.proxy"]),
            ("", ", dataplanes: operator", "consul", vec!["spec.dataplanes"]),
            ("", "", "consul", vec![]),
            (hold, "", "kuma", vec![]),
            (&format!("{hold}, dataplanes: sidecar"), "", "kuma", vec!["spec.deployments.hold"]),
            (&format!("{hold}, dataplanes: observe"), ", dataplanes: operator", "kuma", vec![]),
        ] {
            let found = warned(binding, workload, control_plane, ManifestScope::Complete);
            assert_eq!(found, fields, "{binding} {workload} {control_plane}");
        }
        let outbound = |port: u16| format!("{{service: kv, targetPort: 80, listen: {{port: {port}}}}}");
        let same = format!(", outbounds: [{}, {}]", outbound(15002), outbound(15003));
        assert_eq!(
            warned("", &same, "kuma", ManifestScope::Complete),
            ["spec.outbounds", "spec.outbounds"],
            "15001 of the list and 15002 are lost"
        );
        assert_eq!(
            warned("", ", proxy: gateway", "consul", ManifestScope::Partial),
            [""; 0],
            "another binding may be of Kuma"
        );
    }
}
