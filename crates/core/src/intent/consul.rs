//! The requirements of a Consul login: a role within the bound principals, a valid service name, a known gateway kind; and
//! in Enterprise a managed partition and namespace.
//!
//! Sources: <https://developer.hashicorp.com/consul/docs/secure/acl/auth-method/aws-iam>, and for the names of services
//! [`is_consul_service`]. The open-source edition has no partitions and namespaces, so tags for them have no effect there.

use super::BoundPrincipals;
use super::violation::{RoleRule, RoleViolation, SERVICE_PLACEHOLDER};
use ecs_mesh_api::{ConsulConnection, GatewayKind};
use ecs_mesh_model::{CONSUL_SERVICE_RULE, RoleArn, ServiceName, Tags, is_consul_service};

/// The role's tag with the name of the service.
pub const SERVICE_TAG: &str = "consul.hashicorp.com.service-name";
/// The role's tag with the kind of gateway, for gateways.
pub const GATEWAY_TAG: &str = "consul.hashicorp.com.gateway-kind";
/// The role's tag with the namespace (Enterprise).
pub const NAMESPACE_TAG: &str = "consul.hashicorp.com.namespace";
/// The task's tag that admits it to the mesh.
pub const TASK_MESH_TAG: &str = "consul.hashicorp.com/mesh";
/// The task's tag with its partition; required together with [`TASK_NAMESPACE_TAG`].
pub const TASK_PARTITION_TAG: &str = "consul.hashicorp.com/partition";
/// The task's tag with its namespace; required together with [`TASK_PARTITION_TAG`].
pub const TASK_NAMESPACE_TAG: &str = "consul.hashicorp.com/namespace";

/// The default partition and namespace.
const DEFAULT: &str = "default";
/// All namespaces, in a manifest.
const EVERY: &str = "*";

/// The identity that a task claims at Consul.
#[derive(Clone, Copy)]
pub(super) struct ConsulClaim<'a> {
    /// The service, where the manifests declare one. The role's tag decides whether the task is also a gateway.
    pub service: Option<&'a ServiceName>,
    /// The principals that may log in, where the manifests declare them.
    pub bound: Option<BoundPrincipals<'a>>,
    /// Partition and namespaces, in Enterprise.
    pub location: Option<ConsulLocation<'a>>,
}

/// The partition and namespaces of Consul Enterprise in a control plane's manifest.
#[derive(Clone, Copy)]
pub(super) struct ConsulLocation<'a> {
    partition: &'a str,
    namespaces: &'a [String],
}

impl<'a> ConsulLocation<'a> {
    /// `None` where the manifest has neither, as the open-source edition requires.
    pub(super) fn of(consul: &'a ConsulConnection) -> Option<Self> {
        let is_named = consul.partition.is_some() || !consul.namespaces.is_empty();
        let partition = consul.partition.as_deref().unwrap_or(DEFAULT);
        is_named.then_some(Self { partition, namespaces: &consul.namespaces })
    }

    /// The managed namespaces. Without any, requests name none, and the servers use the default.
    fn names(&self) -> Vec<&'a str> {
        let names: Vec<&str> = self.namespaces.iter().map(String::as_str).collect();
        if names.is_empty() { vec![DEFAULT] } else { names }
    }
}

/// The rules that the role breaks, and those that the task's own tags break where they are known.
pub(super) fn violations(
    claim: &ConsulClaim<'_>,
    role: &RoleArn,
    tags: &Tags,
    of_task: Option<&Tags>,
) -> Vec<RoleViolation> {
    let login = RoleLogin { role, tags };
    let mut found: Vec<RoleViolation> = login.outside(claim.bound).into_iter().collect();
    found.extend(login.gateway());
    found.extend(login.service(claim.service));
    if let Some(location) = claim.location {
        found.extend(login.namespace(&location));
        found.extend(of_task.into_iter().flat_map(|tags| login.task(&location, tags)));
    }
    found
}

/// The login of a task.
struct RoleLogin<'a> {
    role: &'a RoleArn,
    tags: &'a Tags,
}

impl RoleLogin<'_> {
    /// The value of a tag. To Consul, an empty one is a missing one.
    fn tag(&self, name: &str) -> Option<&str> {
        self.tags.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn violation(&self, rule: RoleRule, found: Option<&str>, needed: impl Into<String>) -> RoleViolation {
        RoleViolation {
            rule,
            role: Some(self.role.clone()),
            found: found.map(str::to_owned),
            needed: needed.into(),
        }
    }

    fn outside(&self, bound: Option<BoundPrincipals<'_>>) -> Option<RoleViolation> {
        let bound = bound.filter(|bound| !bound.allows(self.role))?;
        let login_arn = bound.login_arn(self.role);
        Some(self.violation(RoleRule::BoundPrincipals, Some(&login_arn), bound.arns.join(" or ")))
    }

    fn gateway(&self) -> Option<RoleViolation> {
        let found = self.tag(GATEWAY_TAG)?;
        let kinds = GatewayKind::ALL.map(GatewayKind::as_str);
        (!kinds.contains(&found)).then(|| {
            self.violation(RoleRule::ConsulGateway, Some(found), format!("one of {}", kinds.join(", ")))
        })
    }

    /// Consul converts tags to lower case before it binds them to a name. Gateways need the tag as well: Consul refuses a login
    /// for which any rule has an empty name.
    fn service(&self, service: Option<&ServiceName>) -> Vec<RoleViolation> {
        let is_invalid = |name: &str| !is_consul_service(&name.to_ascii_lowercase());
        let written = self.tags.get(SERVICE_TAG).map(String::as_str);
        let named = self.tag(SERVICE_TAG);
        let invalid_tag = || {
            let invalid = named.filter(|name| is_invalid(name));
            invalid.map(|name| self.violation(RoleRule::InvalidServiceTag, Some(name), CONSUL_SERVICE_RULE))
        };
        let Some(service) = service.map(ServiceName::as_str) else {
            let missing = || self.violation(RoleRule::ConsulService, written, SERVICE_PLACEHOLDER);
            return named.map_or_else(|| vec![missing()], |_| invalid_tag().into_iter().collect());
        };
        if is_invalid(service) {
            // No tag value is valid.
            let invalid = self.violation(RoleRule::InvalidService, Some(service), CONSUL_SERVICE_RULE);
            return std::iter::once(invalid).chain(invalid_tag()).collect();
        }
        if named.is_some_and(|named| named.eq_ignore_ascii_case(service)) {
            return Vec::new();
        }
        vec![self.violation(RoleRule::ConsulService, written, service.to_ascii_lowercase())]
    }

    /// The login's token is created in the namespace of this tag, or in the default one.
    fn namespace(&self, location: &ConsulLocation<'_>) -> Option<RoleViolation> {
        let (found, names) = (self.tag(NAMESPACE_TAG), location.names());
        let own = found.unwrap_or(DEFAULT);
        if names.iter().any(|name| *name == EVERY || name.eq_ignore_ascii_case(own)) {
            return None;
        }
        Some(self.violation(RoleRule::ConsulNamespace, found, names.join(" or ")))
    }

    /// Controllers of Consul on ECS find the task's token in the partition and namespace of these tags.
    fn task(&self, location: &ConsulLocation<'_>, tags: &Tags) -> Vec<RoleViolation> {
        let get = |tag: &str| tags.get(tag).map(String::as_str);
        let (mesh, partition, namespace) =
            (get(TASK_MESH_TAG), get(TASK_PARTITION_TAG), get(TASK_NAMESPACE_TAG));
        let own_namespace = self.tag(NAMESPACE_TAG).unwrap_or(DEFAULT);
        let mut found = Vec::new();
        if mesh != Some("true") {
            found.push(self.violation(RoleRule::TaskMesh, mesh, "true"));
        }
        for (rule, tag, other, needed) in [
            (RoleRule::TaskPartition, partition, namespace, location.partition),
            (RoleRule::TaskNamespace, namespace, partition, own_namespace),
        ] {
            let is_half = tag.is_none() && other.is_some();
            if is_half || !tag.unwrap_or(DEFAULT).eq_ignore_ascii_case(needed) {
                found.push(self.violation(rule, tag, needed));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = SERVICE_TAG;
    const GATEWAY: &str = GATEWAY_TAG;
    const NAMESPACE: &str = NAMESPACE_TAG;
    type Pairs<'a> = &'a [(&'a str, &'a str)];

    fn tags(pairs: Pairs<'_>) -> Tags {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn violation(claim: &ConsulClaim<'_>, role_tags: Pairs<'_>, of_task: Option<Pairs<'_>>) -> Vec<RoleRule> {
        let role = RoleArn::parse("arn:aws:iam::111122223333:role/mesh/kv-task").unwrap();
        let of_task = of_task.map(tags);
        violations(claim, &role, &tags(role_tags), of_task.as_ref()).into_iter().map(|v| v.rule).collect()
    }

    fn claim(service: Option<&ServiceName>) -> ConsulClaim<'_> {
        ConsulClaim { service, bound: None, location: None }
    }

    #[test]
    fn role_tags_name_service_and_gateway_kind() {
        type Row = (&'static [(&'static str, &'static str)], Option<&'static str>, &'static [RoleRule]);
        let table: [Row; 19] = [
            (&[], None, &[RoleRule::ConsulService]),
            (&[(SERVICE, "web")], None, &[]),
            (&[(SERVICE, "Web")], Some("web"), &[]),
            (&[(SERVICE, "web")], Some("Web"), &[]),
            (&[(SERVICE, "web")], Some("kv"), &[RoleRule::ConsulService]),
            (&[(SERVICE, "")], None, &[RoleRule::ConsulService]),
            (&[(GATEWAY, "mesh-gateway")], None, &[RoleRule::ConsulService]),
            (&[(SERVICE, "edge"), (GATEWAY, "mesh-gateway")], None, &[]),
            (&[(SERVICE, "edge"), (GATEWAY, "api-gateway")], Some("edge"), &[]),
            (&[(SERVICE, "edge"), (GATEWAY, "terminating-gateway")], Some("edge"), &[]),
            (&[(SERVICE, "edge"), (GATEWAY, "ingress")], None, &[RoleRule::ConsulGateway]),
            // An empty tag selects no gateway, so the rule for services applies.
            (&[(SERVICE, "web"), (GATEWAY, "")], Some("web"), &[]),
            (&[(GATEWAY, "")], None, &[RoleRule::ConsulService]),
            (&[("kuma.io/type", "dataplane")], Some("web"), &[RoleRule::ConsulService]),
            // Names that Consul rejects.
            (&[(SERVICE, "web.app")], None, &[RoleRule::InvalidServiceTag]),
            (&[(SERVICE, "web-")], None, &[RoleRule::InvalidServiceTag]),
            (&[(SERVICE, "web.app")], Some("web"), &[RoleRule::ConsulService]),
            (&[(SERVICE, "web")], Some("web.app"), &[RoleRule::InvalidService]),
            (
                &[(SERVICE, "web.app")],
                Some("web.app"),
                &[RoleRule::InvalidService, RoleRule::InvalidServiceTag],
            ),
        ];
        for (tags, service, expected) in table {
            let service = service.map(|name| ServiceName::parse(name).unwrap());
            assert_eq!(violation(&claim(service.as_ref()), tags, None), expected, "{tags:?} {service:?}");
        }
    }

    #[test]
    fn role_must_match_declared_bound_principals() {
        // The role is arn:aws:iam::111122223333:role/mesh/kv-task.
        for (principals, details, expected) in [
            (&["arn:aws:iam::111122223333:role/mesh/*"][..], true, &[][..]),
            (&["arn:aws:iam::111122223333:role/mesh/kv-task"], true, &[]),
            (&["arn:aws:iam::111122223333:role/a/*", "arn:aws:iam::111122223333:role/mesh/kv-*"], true, &[]),
            (&["arn:aws:iam::111122223333:role/consul-ecs/*"], true, &[RoleRule::BoundPrincipals]),
            (&["arn:aws:iam::999988887777:role/mesh/*"], true, &[RoleRule::BoundPrincipals]),
            (&["arn:aws-cn:iam::111122223333:role/mesh/*"], true, &[RoleRule::BoundPrincipals]),
            (&["arn:aws:iam::*:role/mesh/*"], true, &[RoleRule::BoundPrincipals]),
            (&["arn:aws:iam::111122223333:role/kv-task"], true, &[RoleRule::BoundPrincipals]),
            (&["arn:aws:iam::111122223333:role/kv-task"], false, &[]),
            (&["arn:aws:iam::111122223333:role/mesh/*"], false, &[RoleRule::BoundPrincipals]),
            (&[], true, &[RoleRule::BoundPrincipals]),
        ] {
            let arns: Vec<String> = principals.iter().map(|arn| (*arn).to_owned()).collect();
            let bound = Some(BoundPrincipals { arns: &arns, entity_details: details });
            let claim = ConsulClaim { bound, ..claim(None) };
            assert_eq!(violation(&claim, &[(SERVICE, "kv")], None), expected, "{principals:?} {details}");
        }
    }

    fn connection(partition: Option<&str>, namespaces: &[&str]) -> ConsulConnection {
        let address = "https://consul.internal:8501";
        let place = serde_json::json!({"address": address, "partition": partition, "namespaces": namespaces});
        serde_json::from_value(place).unwrap()
    }

    /// The violations of a role and a task with these location tags.
    fn misplaced(
        consul: &ConsulConnection,
        namespace: Option<&str>,
        of_task: Option<Pairs<'_>>,
    ) -> Vec<RoleRule> {
        let claim = ConsulClaim { location: ConsulLocation::of(consul), ..claim(None) };
        let named = namespace.map(|name| (NAMESPACE, name));
        let role_tags: Vec<(&str, &str)> = [(SERVICE, "kv")].into_iter().chain(named).collect();
        violation(&claim, &role_tags, of_task)
    }

    #[test]
    fn enterprise_role_namespace_must_be_managed() {
        for (partition, namespaces, tag, is_in) in [
            (None, &[][..], Some("anything"), true),
            (None, &[], None, true),
            (Some("ecs"), &[], None, true),
            (Some("ecs"), &[], Some("default"), true),
            (Some("ecs"), &[], Some("team"), false),
            (Some("ecs"), &["team"], Some("team"), true),
            (None, &["team", "other"], Some("Team"), true),
            (None, &["team"], None, false),
            (None, &["team"], Some(""), false),
            (None, &["team", "default"], None, true),
            (None, &["*"], None, true),
            (None, &["*"], Some("team"), true),
        ] {
            let expected = if is_in { vec![] } else { vec![RoleRule::ConsulNamespace] };
            let found = misplaced(&connection(partition, namespaces), tag, None);
            assert_eq!(found, expected, "{partition:?} {namespaces:?} {tag:?}");
        }
    }

    #[test]
    fn enterprise_task_needs_both_location_tags_or_neither() {
        use RoleRule::{TaskMesh, TaskNamespace, TaskPartition};
        const MESH: (&str, &str) = (TASK_MESH_TAG, "true");
        let at = |partition| (TASK_PARTITION_TAG, partition);
        let within = |namespace| (TASK_NAMESPACE_TAG, namespace);
        let ecs = connection(Some("ecs"), &["team"]);
        let home = connection(Some("default"), &[]);
        for (consul, namespace, of_task, expected) in [
            (&ecs, Some("team"), &[MESH, at("ecs"), within("team")][..], &[][..]),
            (&ecs, Some("team"), &[at("ecs"), within("team")], &[TaskMesh]),
            (&ecs, Some("team"), &[(TASK_MESH_TAG, "yes"), at("ecs"), within("team")], &[TaskMesh]),
            (&ecs, Some("team"), &[MESH, at("other"), within("team")], &[TaskPartition]),
            (&ecs, Some("team"), &[MESH, at("ecs"), within("other")], &[TaskNamespace]),
            (&ecs, Some("team"), &[MESH], &[TaskPartition, TaskNamespace]),
            (&home, None, &[MESH], &[]),
            (&home, None, &[MESH, at("default"), within("default")], &[]),
            (&home, None, &[MESH, at("default")], &[TaskNamespace]),
            (&home, None, &[MESH, within("default")], &[TaskPartition]),
            (&connection(None, &[]), None, &[at("other")], &[]),
        ] {
            assert_eq!(misplaced(consul, namespace, Some(of_task)), expected, "{of_task:?}");
        }
        assert_eq!(misplaced(&ecs, Some("team"), None), [], "unknown tags break no rule");
    }
}
