//! The least ACL policy that the operator's own token needs at a Consul control plane, in HCL.

use std::collections::BTreeSet;

use super::scope::named_clusters;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{ConsulConnection, ControlPlaneType, LifecyclePolicy};
use ecs_mesh_consul::AclPermission;
use ecs_mesh_model::ClusterArn;

const READ: &str = "read";
const WRITE: &str = "write";

/// The policy for the `ControlPlane` of this name, or for the only one of type `consul`.
///
/// # Errors
/// In words, where there is none, or several and none is named.
pub fn token_policy(set: &ManifestSet, name: Option<&str>) -> Result<String, String> {
    let of_consul = set.control_planes.iter().filter(|(_, spec)| spec.kind == ControlPlaneType::Consul);
    let all: Vec<_> = of_consul.filter_map(|(name, spec)| Some((&**name, spec.consul.as_ref()?))).collect();
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let chosen = match name {
        Some(wanted) => all.iter().find(|(name, _)| *name == wanted),
        None if all.len() > 1 => {
            return Err(format!(
                "several ControlPlanes are of type consul ({}): give one by --control-plane",
                names.join(", ")
            ));
        }
        None => all.first(),
    };
    let Some((name, connection)) = chosen else {
        let known = if names.is_empty() { "there is none".to_owned() } else { names.join(", ") };
        return Err(format!("the manifests have no such ControlPlane of type consul: {known}"));
    };
    Ok(RequiredPermissions::of(set, name).hcl(name, connection))
}

/// What the manifests let the operator do there.
pub(super) struct RequiredPermissions {
    /// The clusters whose nodes it keeps.
    nodes: BTreeSet<ClusterArn>,
    /// What the names of further such clusters begin with, where a pattern selects them.
    node_prefixes: BTreeSet<String>,
    /// Whether it attaches policies to namespaces.
    writes_namespaces: bool,
    /// Whether it removes what tasks have left.
    removes: bool,
    /// Whether it keeps the identity set-up.
    keeps_identities: bool,
}

impl RequiredPermissions {
    pub(super) fn of(set: &ManifestSet, name: &str) -> Self {
        let bindings = || set.bindings.values().filter(|binding| binding.spec.control_plane == name);
        let clusters = bindings().flat_map(|binding| named_clusters(&binding.spec.selector.clusters));
        let patterns = bindings().flat_map(|binding| &binding.spec.selector.clusters);
        let prefixes = patterns.filter(|glob| !glob.is_literal()).map(|glob| prefix(glob.as_str()));
        let auth = set.consul_auths.values().find(|auth| auth.control_plane == name);
        let enterprise = auth.and_then(|auth| auth.enterprise.clone()).unwrap_or_default();
        Self {
            nodes: clusters.filter(|_| auth.is_some()).collect(),
            node_prefixes: prefixes.filter(|_| auth.is_some()).collect(),
            writes_namespaces: enterprise.cross_namespace.is_some() || enterprise.cross_partition.is_some(),
            // A binding that is paused is meant to go on.
            removes: bindings().any(|binding| binding.spec.policy == LifecyclePolicy::Sync),
            keeps_identities: auth.is_some(),
        }
    }

    /// The rights to write among them.
    pub(super) fn rights(&self) -> BTreeSet<AclPermission> {
        let mut rights = BTreeSet::new();
        if self.writes_acls() {
            rights.insert(AclPermission::Acls);
        }
        if self.removes {
            rights.insert(AclPermission::Services);
        }
        if self.writes_namespaces {
            rights.insert(AclPermission::Operator);
        }
        rights.extend(self.nodes.iter().map(|cluster| AclPermission::Node(cluster.as_str().into())));
        rights.extend(self.node_prefixes.iter().map(|prefix| AclPermission::Nodes(prefix.as_str().into())));
        rights
    }

    fn writes_acls(&self) -> bool {
        self.removes || self.keeps_identities
    }

    fn hcl(&self, name: &str, connection: &ConsulConnection) -> String {
        let acls = if self.writes_acls() {
            "# Tokens of logins: to list them, and to remove those of tasks that are gone. The identity set-up.\n\
             acl = \"write\"\n"
        } else {
            "# Tokens of logins: to list them.\nacl = \"read\"\n"
        };
        let mut nodes = String::from(
            "# Whatever may not be seen is left out of answers, and then nothing follows from them.\n",
        );
        nodes += &rule("node_prefix", "", READ);
        if !self.nodes.is_empty() || !self.node_prefixes.is_empty() {
            nodes += "# The nodes of the identity set-up.\n";
        }
        nodes.extend(self.nodes.iter().map(|cluster| rule("node", cluster.as_str(), WRITE)));
        nodes.extend(self.node_prefixes.iter().map(|prefix| rule("node_prefix", prefix, WRITE)));
        let power = if self.removes { WRITE } else { READ };
        let services = format!("# Services of tasks that are gone.\n{}", rule("service_prefix", "", power));
        let agents = format!("# The servers' version.\n{}", rule("agent_prefix", "", READ));
        let head = format!("# The operator's token at ControlPlane {name}.\n");
        let namespaces = if self.writes_namespaces {
            "# Policies that all tokens of a namespace get.\noperator = \"write\"\n"
        } else if !connection.namespaces.is_empty() {
            "# Which namespaces there are.\noperator = \"read\"\n"
        } else {
            ""
        };
        if connection.partition.is_none() && connection.namespaces.is_empty() {
            return format!("{head}{acls}{nodes}{services}{agents}");
        }
        // Of Enterprise's resources, nodes and agents belong to the partition, and the rest to namespaces.
        let within = block("namespace_prefix \"\"", &format!("{acls}{services}"));
        let within = format!("{namespaces}{nodes}{agents}{within}");
        match &connection.partition {
            Some(partition) => format!("{head}{}", block(&format!("partition \"{partition}\""), &within)),
            None => format!("{head}{within}"),
        }
    }
}

/// What every cluster that the pattern selects begins with.
fn prefix(pattern: &str) -> String {
    const OF_EVERY_CLUSTER: &str = "arn:aws";
    let literal = pattern.split(['*', '?']).next().unwrap_or_default();
    if literal.starts_with(OF_EVERY_CLUSTER) { literal.to_owned() } else { OF_EVERY_CLUSTER.to_owned() }
}

fn rule(word: &str, name: &str, policy: &str) -> String {
    format!("{word} \"{name}\" {{\n  policy = \"{policy}\"\n}}\n")
}

fn block(head: &str, rules: &str) -> String {
    let lines: Vec<String> = rules.lines().map(|line| format!("  {line}")).collect();
    format!("{head} {{\n{}\n}}\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_manifests::ManifestSources;

    fn set(planes: &[(&str, &str)], cluster: &str, more: &str) -> std::sync::Arc<ManifestSet> {
        set_with(planes, cluster, more, &format!("controlPlane: {}, ", planes[0].0))
    }

    /// `binding` are fields of the binding.
    fn set_with(
        planes: &[(&str, &str)],
        cluster: &str,
        more: &str,
        binding: &str,
    ) -> std::sync::Arc<ManifestSet> {
        let directory = tempfile::tempdir().unwrap();
        let document = |kind: &str, name: &str, spec: &str| {
            format!(
                "apiVersion: ecs-mesh.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"
            )
        };
        let mut text = String::new();
        for (name, block) in planes {
            let spec = format!("{{type: consul, consul: {{address: 'https://{name}:8501'{block}}}}}");
            text += &document("ControlPlane", name, &spec);
        }
        let binding = format!("{{{binding}selector: {{clusters: ['{cluster}']}}}}");
        text += &document("MeshBinding", "here", &binding);
        text += more;
        std::fs::write(directory.path().join("all.yaml"), text).unwrap();
        let loaded = ManifestSources::new([directory.path().to_owned()]).load(None).into_loaded().unwrap();
        assert_eq!(loaded.errors, []);
        std::sync::Arc::clone(&loaded.set)
    }

    const PROD: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/prod";

    fn auth(more: &str) -> String {
        format!(
            "apiVersion: ecs-mesh.dev/v1alpha1\nkind: ConsulAuth\nmetadata: {{name: ecs}}\nspec: {{controlPlane: consul, \
             serviceTokens: {{boundPrincipals: ['arn:aws:iam::111122223333:role/consul-ecs/*']}}{more}}}\n"
        )
    }

    #[test]
    fn the_policy_on_the_page_is_the_one_that_is_printed() {
        let page = include_str!("../../../docs/reference/permissions.md");
        let block = page.split("```hcl\n").nth(1).unwrap().split("```").next().unwrap();
        let block = block.replace("PARTITION", "aws").replace("REGION", "eu-west-1");
        let block = block.replace("ACCOUNT", "111122223333").replace("CLUSTER", "prod");
        assert_eq!(block, token_policy(&set(&[("consul", "")], PROD, &auth("")), None).unwrap());
    }

    #[test]
    fn nodes_are_written_only_where_they_are_kept() {
        let pattern = "arn:aws:ecs:eu-west-1:111122223333:cluster/prod-*";
        for (cluster, more, is_written) in
            [(PROD, auth(""), true), (PROD, String::new(), false), (pattern, String::new(), false)]
        {
            let printed = token_policy(&set(&[("consul", "")], cluster, &more), None).unwrap();
            assert_eq!(printed.contains("node \"arn:"), is_written, "{printed}");
            assert!(!printed.contains("node_prefix \"arn:"), "{printed}");
        }
        for (pattern, prefix) in
            [(pattern, "arn:aws:ecs:eu-west-1:111122223333:cluster/prod-"), ("*:cluster/prod-*", "arn:aws")]
        {
            let printed = token_policy(&set(&[("consul", "")], pattern, &auth("")), None).unwrap();
            let rule = format!("node_prefix \"{prefix}\" {{\n  policy = \"write\"\n}}");
            assert!(printed.contains(&rule), "{printed}");
        }
    }

    #[test]
    fn enterprise_acl_policy_is_scoped_to_its_partition() {
        let planes = [("consul", ", partition: ecs, namespaces: ['*']")];
        insta::assert_snapshot!(token_policy(&set(&planes, PROD, &auth(", enterprise: {crossNamespace: present}")), None).unwrap(), @r#"
        # The operator's token at ControlPlane consul.
        partition "ecs" {
          # Policies that all tokens of a namespace get.
          operator = "write"
          # Whatever may not be seen is left out of answers, and then nothing follows from them.
          node_prefix "" {
            policy = "read"
          }
          # The nodes of the identity set-up.
          node "arn:aws:ecs:eu-west-1:111122223333:cluster/prod" {
            policy = "write"
          }
          # The servers' version.
          agent_prefix "" {
            policy = "read"
          }
          namespace_prefix "" {
            # Tokens of logins: to list them, and to remove those of tasks that are gone. The identity set-up.
            acl = "write"
            # Services of tasks that are gone.
            service_prefix "" {
              policy = "write"
            }
          }
        }
        "#);
    }

    #[test]
    fn who_removes_nothing_needs_to_write_nothing() {
        let set = |more: &str| {
            let binding = "controlPlane: consul, policy: upsert-only, ";
            set_with(&[("consul", "")], PROD, more, binding)
        };
        let printed = token_policy(&set(""), None).unwrap();
        assert!(!printed.contains("write") && printed.contains("acl = \"read\""), "{printed}");
        assert_eq!(RequiredPermissions::of(&set(""), "consul").rights(), BTreeSet::new());
        let rights = RequiredPermissions::of(&set(&auth("")), "consul").rights();
        assert_eq!(rights, [AclPermission::Acls, AclPermission::Node(PROD.into())].into());
    }

    #[test]
    fn namespaces_are_seen_by_a_rule_of_their_own() {
        let planes = [("consul", ", namespaces: ['*']")];
        let printed = token_policy(&set(&planes, PROD, ""), None).unwrap();
        assert!(printed.contains("\noperator = \"read\"\n"), "{printed}");
    }

    #[test]
    fn of_several_control_planes_one_must_be_named() {
        let set = set(&[("a", ""), ("b", "")], PROD, "");
        assert!(token_policy(&set, None).unwrap_err().contains("a, b"));
        assert!(token_policy(&set, Some("c")).unwrap_err().contains("a, b"));
        let printed = token_policy(&set, Some("b")).unwrap();
        assert!(printed.contains("ControlPlane b") && !printed.contains(PROD), "{printed}");
    }
}
