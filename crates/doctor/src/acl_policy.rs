//! The least-privilege ACL policy of the operator's own token, in HCL.

use std::collections::BTreeSet;

use super::scope::named_clusters;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{ConsulConnection, ControlPlaneType, LifecyclePolicy};
use ecs_mesh_consul::AclPermission;
use ecs_mesh_lease::consul_key;
use ecs_mesh_model::{ClusterArn, OperatorId};

const READ: &str = "read";
const WRITE: &str = "write";

/// The policy for the `ControlPlane` of this name, or for the only one of type `consul`.
///
/// # Errors
/// If no such control plane exists, or several and none is named.
///
/// With `lease`, this Consul keeps the lease of that operator.
pub fn token_policy(
    set: &ManifestSet,
    name: Option<&str>,
    lease: Option<&OperatorId>,
) -> Result<String, String> {
    let of_consul = set.control_planes.iter().filter(|(_, spec)| spec.kind == ControlPlaneType::Consul);
    let all: Vec<_> = of_consul.filter_map(|(name, spec)| Some((&**name, spec.consul.as_ref()?))).collect();
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let chosen = match name {
        Some(wanted) => all.iter().find(|(name, _)| *name == wanted),
        None if all.len() > 1 => {
            return Err(format!(
                "several ControlPlanes are of type consul ({}): name one with --control-plane",
                names.join(", ")
            ));
        }
        None => all.first(),
    };
    let Some((name, connection)) = chosen else {
        let known = if names.is_empty() { "none is of type consul".to_owned() } else { names.join(", ") };
        return Err(format!("no such ControlPlane of type consul in the manifests; found: {known}"));
    };
    let lease = lease.map(consul_key);
    Ok(RequiredPermissions::of(set, name).hcl(name, connection, lease.as_deref()))
}

/// The operator's permissions that the manifests require.
pub(super) struct RequiredPermissions {
    /// Clusters whose nodes the operator registers.
    nodes: BTreeSet<ClusterArn>,
    /// Name prefixes of further such clusters, which patterns select.
    node_prefixes: BTreeSet<String>,
    /// Whether the operator attaches policies to namespaces.
    writes_namespaces: bool,
    /// Whether the operator removes registrations.
    removes: bool,
    /// Whether the operator manages ACL objects.
    manages_acl_objects: bool,
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
            // A paused binding will continue later.
            removes: bindings().any(|binding| binding.spec.policy == LifecyclePolicy::Sync),
            manages_acl_objects: auth.is_some(),
        }
    }

    /// The write permissions.
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
        self.removes || self.manages_acl_objects
    }

    fn hcl(&self, name: &str, connection: &ConsulConnection, lease: Option<&str>) -> String {
        let acls = if self.writes_acls() {
            "# List login tokens, remove those of stopped tasks, and manage ACL objects.\n\
             acl = \"write\"\n"
        } else {
            "# List login tokens.\nacl = \"read\"\n"
        };
        let mut nodes =
            String::from("# Consul filters answers by permission, and filtered answers are not used.\n");
        nodes += &rule("node_prefix", "", READ);
        if !self.nodes.is_empty() || !self.node_prefixes.is_empty() {
            nodes += "# Nodes of the bound clusters.\n";
        }
        nodes.extend(self.nodes.iter().map(|cluster| rule("node", cluster.as_str(), WRITE)));
        nodes.extend(self.node_prefixes.iter().map(|prefix| rule("node_prefix", prefix, WRITE)));
        let power = if self.removes { WRITE } else { READ };
        let services = format!("# Remove services of stopped tasks.\n{}", rule("service_prefix", "", power));
        let agents = format!("# Read the servers' version.\n{}", rule("agent_prefix", "", READ));
        let locks = lease.map_or_else(String::new, |key| {
            let (sessions, key) = (rule("session_prefix", "", WRITE), rule("key", key, WRITE));
            format!("# Hold the lease.\n{sessions}{key}")
        });
        let head = format!("# The operator's token at ControlPlane {name}.\n");
        let namespaces = if self.writes_namespaces {
            "# Attach default policies to namespaces.\noperator = \"write\"\n"
        } else if !connection.namespaces.is_empty() {
            "# List namespaces.\noperator = \"read\"\n"
        } else {
            ""
        };
        if connection.partition.is_none() && connection.namespaces.is_empty() {
            return format!("{head}{acls}{nodes}{services}{agents}{locks}");
        }
        // Of Enterprise's resources, nodes and agents belong to the partition, and the rest to namespaces.
        let within = block("namespace_prefix \"\"", &format!("{acls}{services}{locks}"));
        let within = format!("{namespaces}{nodes}{agents}{within}");
        match &connection.partition {
            Some(partition) => format!("{head}{}", block(&format!("partition \"{partition}\""), &within)),
            None => format!("{head}{within}"),
        }
    }
}

/// The common prefix of all clusters that the pattern selects.
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

    /// `binding`: fields of the binding.
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
    fn documented_acl_policy_is_the_printed_one() {
        let page = include_str!("../../../docs/reference/permissions.md");
        let block = page.split("```hcl\n").nth(1).unwrap().split("```").next().unwrap();
        let block = block.replace("PARTITION", "aws").replace("REGION", "eu-west-1");
        let block = block.replace("ACCOUNT", "111122223333").replace("CLUSTER", "prod");
        assert_eq!(block, token_policy(&set(&[("consul", "")], PROD, &auth("")), None, None).unwrap());
    }

    #[test]
    fn node_write_needs_a_consul_auth() {
        let pattern = "arn:aws:ecs:eu-west-1:111122223333:cluster/prod-*";
        for (cluster, more, is_written) in
            [(PROD, auth(""), true), (PROD, String::new(), false), (pattern, String::new(), false)]
        {
            let printed = token_policy(&set(&[("consul", "")], cluster, &more), None, None).unwrap();
            assert_eq!(printed.contains("node \"arn:"), is_written, "{printed}");
            assert!(!printed.contains("node_prefix \"arn:"), "{printed}");
        }
        for (pattern, prefix) in
            [(pattern, "arn:aws:ecs:eu-west-1:111122223333:cluster/prod-"), ("*:cluster/prod-*", "arn:aws")]
        {
            let printed = token_policy(&set(&[("consul", "")], pattern, &auth("")), None, None).unwrap();
            let rule = format!("node_prefix \"{prefix}\" {{\n  policy = \"write\"\n}}");
            assert!(printed.contains(&rule), "{printed}");
        }
    }

    #[test]
    fn enterprise_acl_policy_is_scoped_to_its_partition() {
        let planes = [("consul", ", partition: ecs, namespaces: ['*']")];
        insta::assert_snapshot!(token_policy(&set(&planes, PROD, &auth(", enterprise: {crossNamespace: present}")), None, None).unwrap(), @r#"
        # The operator's token at ControlPlane consul.
        partition "ecs" {
          # Attach default policies to namespaces.
          operator = "write"
          # Consul filters answers by permission, and filtered answers are not used.
          node_prefix "" {
            policy = "read"
          }
          # Nodes of the bound clusters.
          node "arn:aws:ecs:eu-west-1:111122223333:cluster/prod" {
            policy = "write"
          }
          # Read the servers' version.
          agent_prefix "" {
            policy = "read"
          }
          namespace_prefix "" {
            # List login tokens, remove those of stopped tasks, and manage ACL objects.
            acl = "write"
            # Remove services of stopped tasks.
            service_prefix "" {
              policy = "write"
            }
          }
        }
        "#);
    }

    #[test]
    fn policy_without_removals_needs_no_write() {
        let set = |more: &str| {
            let binding = "controlPlane: consul, policy: upsert-only, ";
            set_with(&[("consul", "")], PROD, more, binding)
        };
        let printed = token_policy(&set(""), None, None).unwrap();
        assert!(!printed.contains("write") && printed.contains("acl = \"read\""), "{printed}");
        assert_eq!(RequiredPermissions::of(&set(""), "consul").rights(), BTreeSet::new());
        let rights = RequiredPermissions::of(&set(&auth("")), "consul").rights();
        assert_eq!(rights, [AclPermission::Acls, AclPermission::Node(PROD.into())].into());
    }

    #[test]
    fn listing_namespaces_needs_operator_read() {
        let planes = [("consul", ", namespaces: ['*']")];
        let printed = token_policy(&set(&planes, PROD, ""), None, None).unwrap();
        assert!(printed.contains("\noperator = \"read\"\n"), "{printed}");
    }

    #[test]
    fn control_plane_must_be_named_if_there_are_several() {
        let set = set(&[("a", ""), ("b", "")], PROD, "");
        assert!(token_policy(&set, None, None).unwrap_err().contains("a, b"));
        assert!(token_policy(&set, Some("c"), None).unwrap_err().contains("a, b"));
        let printed = token_policy(&set, Some("b"), None).unwrap();
        assert!(printed.contains("ControlPlane b") && !printed.contains(PROD), "{printed}");
    }

    #[test]
    fn lease_of_the_operator_is_covered_where_this_consul_keeps_it() {
        let set = set(&[("consul", "")], PROD, "");
        let operator = OperatorId::parse("prod").unwrap();
        let printed = token_policy(&set, None, Some(&operator)).unwrap();
        for rule in [
            "session_prefix \"\" {\n  policy = \"write\"",
            "key \"ecs-mesh/prod/lease\" {\n  policy = \"write\"",
        ] {
            assert!(printed.contains(rule), "{printed}");
        }
        assert!(!token_policy(&set, None, None).unwrap().contains("session"));
    }
}
