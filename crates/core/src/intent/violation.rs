//! Violations of the rules for a task's role, tags and service: found value, needed value and fix.

use std::fmt;

use super::consul::{
    GATEWAY_TAG, NAMESPACE_TAG, SERVICE_TAG, TASK_MESH_TAG, TASK_NAMESPACE_TAG, TASK_PARTITION_TAG,
};
use super::tag_key::{SERVICE_KEY, WORKLOAD_KEY};
use ecs_mesh_api::GatewayKind;
use ecs_mesh_model::{Reason, RoleArn};

/// Placeholder for a name that only the task's author knows. Shells reject it.
pub(super) const SERVICE_PLACEHOLDER: &str = "<its service>";

/// The rules for a task's role; the value of a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleRule {
    /// The task has no task role at all.
    NoTaskRole,
    /// The role does not exist.
    RoleNotFound,
    /// The role is of an account that is not authorised.
    Account,
    /// `kuma.io/type` is not that of the proxy.
    Type,
    /// `kuma.io/mesh` is not the mesh.
    Mesh,
    /// `kuma.io/service` names another service.
    Service,
    /// `kuma.io/workload` names another workload.
    Workload,
    /// The task's own tags name a service that the binding does not let it claim.
    ServiceClaim,
    /// The role is outside the bound principals of Consul's auth method.
    BoundPrincipals,
    /// `consul.hashicorp.com.service-name` is missing, or names another service.
    ConsulService,
    /// `consul.hashicorp.com.service-name` is not a valid Consul service name.
    InvalidServiceTag,
    /// The `Workload`'s service is not a valid Consul service name.
    InvalidService,
    /// `consul.hashicorp.com.gateway-kind` is not a gateway kind.
    ConsulGateway,
    /// Enterprise: `consul.hashicorp.com.namespace` is not a managed namespace.
    ConsulNamespace,
    /// Enterprise: the task's own `consul.hashicorp.com/mesh` is not `true`.
    TaskMesh,
    /// Enterprise: the task's own `consul.hashicorp.com/partition` is not the control plane's partition.
    TaskPartition,
    /// Enterprise: the task's own `consul.hashicorp.com/namespace` is not its role's namespace.
    TaskNamespace,
}

impl RoleRule {
    /// All rules.
    pub const ALL: [Self; 17] = [
        Self::NoTaskRole,
        Self::RoleNotFound,
        Self::Account,
        Self::Type,
        Self::Mesh,
        Self::Service,
        Self::Workload,
        Self::ServiceClaim,
        Self::BoundPrincipals,
        Self::ConsulService,
        Self::InvalidServiceTag,
        Self::InvalidService,
        Self::ConsulGateway,
        Self::ConsulNamespace,
        Self::TaskMesh,
        Self::TaskPartition,
        Self::TaskNamespace,
    ];

    /// A bounded label for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoTaskRole => "no_task_role",
            Self::RoleNotFound => "role_not_found",
            Self::Account => "account",
            Self::Type => "kuma.io/type",
            Self::Mesh => "kuma.io/mesh",
            Self::Service => "kuma.io/service",
            Self::Workload => "kuma.io/workload",
            Self::ServiceClaim => "service_claim",
            Self::BoundPrincipals => "bound_principals",
            Self::ConsulService => SERVICE_TAG,
            Self::InvalidServiceTag => "invalid_service_tag",
            Self::InvalidService => "invalid_service",
            Self::ConsulGateway => GATEWAY_TAG,
            Self::ConsulNamespace => NAMESPACE_TAG,
            Self::TaskMesh => TASK_MESH_TAG,
            Self::TaskPartition => TASK_PARTITION_TAG,
            Self::TaskNamespace => TASK_NAMESPACE_TAG,
        }
    }
}

/// The source of a violation: what has changed if the task was allowed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViolationBasis {
    /// The role's tags alone: no edit of manifests resolves it.
    Tags,
    /// The role's tags and the manifests: either may have changed.
    TagsAndManifests,
    /// The manifests alone: a task keeps the role that it was started with, and a role its account and path.
    Manifests,
}

/// A rule that a role breaks, with the found and the needed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleViolation {
    /// The rule.
    pub rule: RoleRule,
    /// The role; `None` where the task has none.
    pub role: Option<RoleArn>,
    /// The found value; `None` where the tag is missing.
    pub found: Option<String>,
    /// The needed value; empty where the tag must not exist.
    pub needed: String,
}

impl RoleViolation {
    /// The source of the violation; `None` where the role is not the cause. A `Workload`'s service and a task's own tags do
    /// not decide the identity of the login, so they never cause a removal.
    pub fn basis(&self) -> Option<ViolationBasis> {
        let is_tagged = self.found.as_ref().is_some_and(|value| !value.is_empty());
        match self.rule {
            RoleRule::InvalidService
            | RoleRule::TaskMesh
            | RoleRule::TaskPartition
            | RoleRule::TaskNamespace => None,
            RoleRule::NoTaskRole | RoleRule::Account | RoleRule::BoundPrincipals | RoleRule::ServiceClaim => {
                Some(ViolationBasis::Manifests)
            }
            // A deleted role has no tags.
            RoleRule::RoleNotFound
            | RoleRule::Type
            | RoleRule::ConsulGateway
            | RoleRule::InvalidServiceTag => Some(ViolationBasis::Tags),
            // A missing tag means the namespace `default`, which the manifests may name or not.
            RoleRule::ConsulNamespace => Some(ViolationBasis::TagsAndManifests),
            RoleRule::Mesh | RoleRule::Service | RoleRule::Workload | RoleRule::ConsulService
                if is_tagged =>
            {
                Some(ViolationBasis::TagsAndManifests)
            }
            RoleRule::Mesh | RoleRule::Service | RoleRule::Workload | RoleRule::ConsulService => {
                Some(ViolationBasis::Tags)
            }
        }
    }
}

impl RoleViolation {
    /// The reason, with the rule and missing or wrong as its key: role and service differ for each task.
    pub fn reason(&self) -> Reason {
        let how = if self.found.is_none() { "missing" } else { "wrong" };
        Reason::new(format!("{} {how}", self.rule.label()), self.to_string())
    }
}

impl RoleViolation {
    /// The finding, without the fix.
    fn finding(&self) -> String {
        let role = self.role.as_ref().map_or("", RoleArn::as_str);
        let (tag, needed) = (self.rule.label(), &self.needed);
        let found = self.found.as_deref().unwrap_or("");
        match self.rule {
            RoleRule::NoTaskRole => "the task has no task role, so it can prove no identity".to_owned(),
            RoleRule::RoleNotFound => format!("role {role} does not exist"),
            RoleRule::Account => format!("role {role} is of account {found}, needed is one of {needed}"),
            RoleRule::BoundPrincipals => {
                format!("role {role} is outside the bound principals of Consul, {needed}")
            }
            RoleRule::ServiceClaim => {
                format!("the task claims {found} in its tags or docker labels, and may claim {needed}")
            }
            RoleRule::ConsulGateway => format!(
                "role {role}: tag {tag} is {found:?}, needed is {needed}, or none where the task is no gateway"
            ),
            RoleRule::InvalidServiceTag => format!(
                "role {role}: tag {SERVICE_TAG} is {found:?}, which is not a valid Consul service name, so the login is \
                 refused; allowed are {needed}"
            ),
            RoleRule::InvalidService => format!(
                "service {found:?} is not a valid Consul service name, so no role's tag allows it; allowed are {needed}"
            ),
            RoleRule::ConsulNamespace => {
                let found = self.found.as_ref().map_or_else(
                    || "is missing, which is the namespace \"default\"".to_owned(),
                    |found| format!("is {found:?}"),
                );
                format!("role {role}: tag {NAMESPACE_TAG} {found}, needed is {needed}")
            }
            RoleRule::TaskMesh | RoleRule::TaskPartition | RoleRule::TaskNamespace => {
                let both = "partition and namespace go together";
                let both = if self.rule == RoleRule::TaskMesh { String::new() } else { format!(" ({both})") };
                format!("the task's tag {tag} {}{both}", self.found_and_needed())
            }
            RoleRule::Type
            | RoleRule::Mesh
            | RoleRule::Service
            | RoleRule::Workload
            | RoleRule::ConsulService
                if needed.is_empty() =>
            {
                format!("role {role}: tag {tag} is {found:?}, and the task has no workload label")
            }
            RoleRule::Type
            | RoleRule::Mesh
            | RoleRule::Service
            | RoleRule::Workload
            | RoleRule::ConsulService => format!("role {role}: tag {tag} {}", self.found_and_needed()),
        }
    }

    fn found_and_needed(&self) -> String {
        let needed = &self.needed;
        match &self.found {
            Some(found) => format!("is {found:?}, needed is {needed:?}"),
            None => format!("is missing, needed is {needed:?}"),
        }
    }

    /// The next step for the owner of the role or of the manifests.
    pub fn fix(&self) -> String {
        let name = self.role.as_ref().map_or("", RoleArn::name);
        let (tag, needed) = (self.rule.label(), &self.needed);
        match self.rule {
            RoleRule::NoTaskRole => {
                format!("set taskRoleArn in the task definition to a role tagged {needed}")
            }
            RoleRule::RoleNotFound => format!("create it with tags {needed}, or correct taskRoleArn"),
            RoleRule::Account => "add the account to spec.roleTags.authorizedAccounts of the MeshBinding, or use a role of an \
                                  authorised account"
                .to_owned(),
            RoleRule::BoundPrincipals => "create the role below such a path, or add it to \
                                          spec.serviceTokens.boundPrincipals of the ConsulAuth"
                .to_owned(),
            RoleRule::ServiceClaim => {
                let role =
                    self.role.as_ref().map_or_else(String::new, |role| format!(" (its role is {role})"));
                format!(
                    "correct {SERVICE_KEY} or {WORKLOAD_KEY}, or allow it by spec.claims of the MeshBinding{role}"
                )
            }
            RoleRule::ConsulGateway => {
                let found = self.found.as_deref().unwrap_or("");
                let kind = GatewayKind::suggest(found).map_or("KIND", GatewayKind::as_str);
                format!(
                    "aws iam tag-role --role-name {name} --tags Key={tag},Value={kind}, or aws iam untag-role --role-name \
                     {name} --tag-keys {tag}"
                )
            }
            RoleRule::InvalidServiceTag => format!(
                "rename the service, and then aws iam tag-role --role-name {name} --tags \
                 Key={SERVICE_TAG},Value={SERVICE_PLACEHOLDER}"
            ),
            RoleRule::InvalidService => {
                "change spec.service of the Workload to the name that the task registers".to_owned()
            }
            RoleRule::ConsulNamespace => format!(
                "aws iam tag-role --role-name {name} --tags Key={NAMESPACE_TAG},Value=NAMESPACE, or add the namespace to \
                 spec.consul.namespaces of the ControlPlane"
            ),
            RoleRule::TaskMesh | RoleRule::TaskPartition | RoleRule::TaskNamespace => {
                "set it on the task definition or the service that the tasks get their tags from (propagateTags), and deploy \
                 it"
                .to_owned()
            }
            RoleRule::Type
            | RoleRule::Mesh
            | RoleRule::Service
            | RoleRule::Workload
            | RoleRule::ConsulService
                if needed.is_empty() =>
            {
                format!(
                    "set spec.workload in its Workload, or aws iam untag-role --role-name {name} --tag-keys {tag}"
                )
            }
            RoleRule::Type
            | RoleRule::Mesh
            | RoleRule::Service
            | RoleRule::Workload
            | RoleRule::ConsulService => {
                format!("aws iam tag-role --role-name {name} --tags Key={tag},Value={needed}")
            }
        }
    }
}

impl fmt::Display for RoleViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.finding(), self.fix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_violation_of_many_roles_has_one_key() {
        let violation = |name: &str, found: Option<&str>| RoleViolation {
            rule: RoleRule::ConsulService,
            role: Some(RoleArn::parse(&format!("arn:aws:iam::111122223333:role/{name}-task")).unwrap()),
            found: found.map(str::to_owned),
            needed: name.to_owned(),
        };
        let [kv, web] = ["kv", "web"].map(|name| violation(name, None).reason());
        assert_eq!(kv.key, web.key);
        assert_ne!(kv.message, web.message);
        assert_ne!(
            kv.key,
            violation("kv", Some("web")).reason().key,
            "missing and wrong have different fixes"
        );
    }

    #[test]
    fn violation_names_role_tag_values_and_fix() {
        let violation = RoleViolation {
            rule: RoleRule::Mesh,
            role: Some(RoleArn::parse("arn:aws:iam::111122223333:role/kv-task").unwrap()),
            found: Some("other".to_owned()),
            needed: "default".to_owned(),
        };
        insta::assert_snapshot!(violation, @r#"role arn:aws:iam::111122223333:role/kv-task: tag kuma.io/mesh is "other", needed is "default"; aws iam tag-role --role-name kv-task --tags Key=kuma.io/mesh,Value=default"#);
    }
}
