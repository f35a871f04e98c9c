//! The tokens that the manifests declare: one for each workload of each issuing binding.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ecs_mesh_api::manifests::{Binding, ManifestSet};
use ecs_mesh_api::{KumaFeature, KumaRelease, ProxyRole, TokenStoreKind, WorkloadSpec, ZoneProxyForm};
use ecs_mesh_model::MeshName;

use super::record::{NoTokenIdentity, TokenIdentity};
use crate::intent::{workload_label, workloads_in};

/// The name of a stored token: `PATH/MESH/WORKLOAD/token`.
///
/// The name ends in a fixed part because a task definition names a secret by its ARN without the random suffix, which
/// Secrets Manager takes for complete where the name ends in a hyphen and six characters, as `web-server` does.
/// Source: <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html>.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName {
    /// Where it is stored.
    pub store: TokenStoreKind,
    /// The name of the secret or parameter.
    pub name: Arc<str>,
}

impl EntryName {
    fn new(binding: &Binding, path: &str, workload: &str) -> Self {
        let name = format!("{path}/{}/{workload}/token", binding.spec.mesh);
        Self { store: binding.spec.tokens.store, name: name.into() }
    }

    /// Whether the entry is below the path of the binding.
    pub fn is_of(&self, binding: &Binding) -> bool {
        let tokens = &binding.spec.tokens;
        let below = tokens.path.as_ref().and_then(|path| self.name.strip_prefix(path.as_str()));
        self.store == tokens.store && below.is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A token that the manifests declare.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredToken {
    /// The issuing binding.
    pub binding: Arc<Binding>,
    /// The name of the `Workload`.
    pub workload: Arc<str>,
    /// The workload.
    pub spec: Arc<WorkloadSpec>,
}

impl DesiredToken {
    /// The mesh.
    pub fn mesh(&self) -> &MeshName {
        &self.binding.spec.mesh
    }

    /// The binding of the token at a server of this release. Names of Dataplanes vary by task, so a token is bound to
    /// none.
    ///
    /// Tokens bound to a workload are new in Kuma 2.13; 3.0 has no tags. A zone proxy is a Dataplane in 3.0, and by
    /// `scope: mesh`.
    ///
    /// # Errors
    /// Where the Dataplane would have neither the label nor the tag, or there is none.
    pub fn identity(&self, release: KumaRelease) -> Result<TokenIdentity, NoTokenIdentity> {
        if let ProxyRole::Zone(proxy) = self.spec.proxy_role()
            && release.zone_proxy_form().of(&proxy) == ZoneProxyForm::Resource
        {
            return Err(NoTokenIdentity::ZoneProxy);
        }
        match workload_label(&self.spec).filter(|_| release.has(KumaFeature::WorkloadLabel)) {
            Some(label) => Ok(TokenIdentity::Workload(label.into())),
            None if release.has(KumaFeature::InboundTags) => {
                Ok(TokenIdentity::Service(self.spec.service.as_str().into()))
            }
            None => Err(NoTokenIdentity::NoLabel),
        }
    }
}

/// The declared tokens of a control plane: one for each workload that may describe tasks of an issuing binding.
pub fn desired_tokens(set: &ManifestSet, control_plane: &str) -> BTreeMap<EntryName, DesiredToken> {
    let mut desired = BTreeMap::new();
    let issuing =
        |binding: &&Arc<Binding>| *binding.spec.control_plane == *control_plane && binding.spec.tokens.issue;
    for binding in set.bindings.values().filter(issuing) {
        let Some(path) = &binding.spec.tokens.path else { continue };
        for (name, spec) in workloads_in(set, binding) {
            let token = DesiredToken {
                binding: Arc::clone(binding),
                workload: Arc::clone(name),
                spec: Arc::clone(spec),
            };
            desired.insert(EntryName::new(binding, path, name), token);
        }
    }
    desired
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A set with these fields of the bindings' `tokens`, and these fields of workloads.
    fn set(bindings: &[(&str, Value)], workloads: &[(&str, Value)]) -> ManifestSet {
        let binding = |(name, tokens): &(&str, Value)| {
            let spec =
                json!({"controlPlane": "kuma", "selector": {"clusters": ["*:cluster/c"]}, "tokens": tokens});
            let binding = Binding {
                name: (*name).into(),
                spec: serde_json::from_value(spec).unwrap(),
                control_plane_type: ecs_mesh_api::ControlPlaneType::Kuma,
                guard_released_until: None,
            };
            (Arc::from(*name), Arc::new(binding))
        };
        let workload = |(name, fields): &(&str, Value)| {
            let mut spec = json!({"selector": {"services": [name]}, "service": name});
            spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            (Arc::from(*name), Arc::new(serde_json::from_value(spec).unwrap()))
        };
        ManifestSet {
            bindings: bindings.iter().map(binding).collect(),
            workloads: workloads.iter().map(workload).collect(),
            ..ManifestSet::default()
        }
    }

    #[test]
    fn each_workload_of_an_issuing_binding_has_a_token() {
        let set = set(
            &[
                ("prod", json!({"issue": true, "path": "/mesh/prod"})),
                ("off", json!({"issue": false, "path": "/mesh/off"})),
            ],
            &[
                ("web", json!({})),
                ("kv", json!({"bindings": ["prod"]})),
                ("other", json!({"bindings": ["off"]})),
                // No task is of both clusters.
                ("elsewhere", json!({"selector": {"clusters": ["*:cluster/d"]}})),
            ],
        );
        let names = desired_tokens(&set, "kuma").keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names, ["/mesh/prod/default/kv/token", "/mesh/prod/default/web/token"]);
        assert!(desired_tokens(&set, "another").is_empty());
    }

    #[test]
    fn token_is_bound_to_what_the_dataplane_has() {
        let set = set(
            &[("prod", json!({"issue": true, "path": "/m"}))],
            &[
                ("web", json!({})),
                ("named", json!({"workload": "w"})),
                ("dotted", json!({"service": "a.b"})),
                ("ingress", json!({"proxy": "zoneIngress"})),
                ("egress", json!({"proxy": "zoneEgress"})),
                ("of-mesh", json!({"proxy": "zoneEgress", "zoneEgress": {"scope": "mesh"}})),
            ],
        );
        let desired = desired_tokens(&set, "kuma");
        for (workload, release, expected) in [
            ("web", (2, 12), Some("service=web")),
            ("web", (2, 13), Some("workload=web")),
            ("web", (3, 0), Some("workload=web")),
            ("named", (2, 14), Some("workload=w")),
            ("named", (2, 7), Some("service=named")),
            // The name is no label, so the Dataplane has none.
            ("dotted", (2, 14), Some("service=a.b")),
            ("dotted", (3, 0), None),
            // They need zone tokens.
            ("ingress", (2, 14), None),
            ("egress", (2, 9), None),
            ("ingress", (3, 0), Some("workload=ingress")),
            ("of-mesh", (2, 14), Some("workload=of-mesh")),
        ] {
            let token = desired.values().find(|token| *token.workload == *workload).unwrap();
            let identity = token.identity(KumaRelease::new(release.0, release.1));
            assert_eq!(
                identity.ok().map(|identity| identity.to_string()).as_deref(),
                expected,
                "{workload} {release:?}"
            );
        }
    }
}
