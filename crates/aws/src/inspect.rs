//! AWS reads of the audit alone: complete task definitions, the services of a cluster, and permissions in IAM. Environment
//! values and commands may contain secrets, so `Debug` never prints them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Deserializer};

use super::aws::{AwsError, ListPage};
use ecs_mesh_model::{
    ClusterArn, ContainerStart, RoleArn, Tags, TaskContainer, TaskDefinition, TaskDefinitionArn,
};

/// A text that may be a secret; hidden from `Debug`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct Redacted(String);

impl Redacted {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for evaluation; never for output.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A task definition with everything that affects the start of its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FullTaskDefinition {
    /// The ARN; `None` before registration.
    #[serde(default, rename = "taskDefinitionArn", deserialize_with = "arn_or_none")]
    pub arn: Option<TaskDefinitionArn>,
    /// The family.
    #[serde(default)]
    pub family: String,
    /// `taskRoleArn`; before registration also a bare role name.
    #[serde(default, rename = "taskRoleArn")]
    pub task_role: Option<String>,
    /// `networkMode`.
    #[serde(default)]
    pub network_mode: Option<String>,
    /// `containerDefinitions`.
    #[serde(rename = "containerDefinitions")]
    pub containers: Vec<FullContainer>,
    /// `tags`; `None` if absent or unknown.
    #[serde(default, deserialize_with = "tags_or_none")]
    pub tags: Option<Tags>,
}

/// A container of a task definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FullContainer {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// `environment`, in order.
    #[serde(deserialize_with = "null_is_empty")]
    pub environment: Vec<Variable>,
    /// `secrets`: variables with a reference to their value.
    #[serde(deserialize_with = "null_is_empty")]
    pub secrets: Vec<SecretVariable>,
    /// `environmentFiles`: files with further variables.
    #[serde(deserialize_with = "null_is_empty")]
    pub environment_files: Vec<serde_json::Value>,
    /// `entryPoint`.
    #[serde(deserialize_with = "null_is_empty")]
    pub entry_point: Vec<Redacted>,
    /// `command`.
    #[serde(deserialize_with = "null_is_empty")]
    pub command: Vec<Redacted>,
    /// `healthCheck`.
    pub health_check: Option<ContainerHealthCheck>,
    /// `portMappings`.
    #[serde(deserialize_with = "null_is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// `essential`: whether the task stops when the container does; ECS's default is `true`.
    pub essential: Option<bool>,
    /// `dependsOn`.
    #[serde(deserialize_with = "null_is_empty")]
    pub depends_on: Vec<ContainerDependency>,
    /// `stopTimeout`: the seconds between SIGTERM and SIGKILL; `None` where the default applies.
    pub stop_timeout: Option<u64>,
    /// `dockerLabels`.
    #[serde(deserialize_with = "null_is_default")]
    pub docker_labels: Tags,
}

/// The health check of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ContainerHealthCheck {
    /// `command`.
    #[serde(deserialize_with = "null_is_empty")]
    pub command: Vec<Redacted>,
}

/// A container that must reach a state before another one starts. ECS stops containers in the reverse order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerDependency {
    /// The container that comes first.
    pub container_name: String,
}

/// A variable and its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Redacted,
}

/// A variable whose value ECS reads from a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SecretVariable {
    /// Its name.
    pub name: String,
}

/// A listening port of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortMapping {
    /// `containerPort`.
    pub container_port: Option<u16>,
}

impl FullTaskDefinition {
    /// The parts of the containers that the operator's decisions depend on.
    pub fn to_containers(&self) -> Vec<TaskContainer> {
        let containers = self.containers.iter().map(|container| TaskContainer {
            name: container.name.clone(),
            docker_labels: container.docker_labels.clone(),
            ports: container.ports().collect(),
            essential: container.is_essential(),
            stop_timeout: container.stop_timeout.map(Duration::from_secs),
            sidecar_outbounds: container.start().kuma_sidecar().map(|sidecar| sidecar.outbounds()),
            sidecar_dataplane: container.start().kuma_sidecar().and_then(|sidecar| sidecar.dataplane()),
        });
        containers.collect()
    }

    /// The parts that the operator's decisions depend on; `None` before registration.
    pub fn to_model(&self) -> Option<TaskDefinition> {
        Some(TaskDefinition {
            arn: self.arn.clone()?,
            task_role: self.task_role.as_deref().and_then(|role| RoleArn::parse(role).ok()),
            network_mode: self.network_mode.clone(),
            containers: self.to_containers(),
        })
    }
}

impl FullContainer {
    /// How the container is started.
    pub fn start(&self) -> ContainerStart<'_> {
        let variables = self.environment.iter().map(|one| (one.name.as_str(), Some(one.value.expose())));
        let secrets = self.secrets.iter().map(|one| (one.name.as_str(), None));
        ContainerStart {
            image: &self.image,
            arguments: self.entry_point.iter().chain(&self.command).map(Redacted::expose).collect(),
            environment: variables.chain(secrets).collect(),
            has_environment_files: !self.environment_files.is_empty(),
        }
    }

    /// The mapped container ports.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.port_mappings.iter().filter_map(|mapping| mapping.container_port)
    }

    /// Whether the task stops when the container does.
    pub fn is_essential(&self) -> bool {
        self.essential != Some(false)
    }

    /// Whether the container has a variable of this name, from a secret or in plain text.
    pub fn has_variable(&self, name: &str) -> bool {
        self.environment.iter().any(|variable| variable.name == name && !variable.value.expose().is_empty())
            || self.secrets.iter().any(|secret| secret.name == name)
    }
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn arn_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<TaskDefinitionArn>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.and_then(|text| TaskDefinitionArn::parse(&text).ok()))
}

fn tags_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Tags>, D::Error> {
    #[derive(Deserialize)]
    struct Tag {
        key: String,
        #[serde(default)]
        value: String,
    }
    let tags = Option::<Vec<Tag>>::deserialize(from)?;
    Ok(tags.map(|tags| tags.into_iter().map(|tag| (tag.key, tag.value)).collect()))
}

/// The result of IAM's policy simulator for one action on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulationResult {
    /// Whether all policies together allow the action.
    pub allowed: bool,
    /// `allowed`, `explicitDeny` or `implicitDeny`.
    pub decision: String,
    /// Context keys that the policies use and the simulation lacked.
    pub missing_context: Vec<String>,
    /// Whether the role's account belongs to an organisation, whose service control policies may deny more. The simulator
    /// ignores those with conditions.
    ///
    /// Source: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_EvaluationResult.html> (`OrganizationsDecisionDetail`).
    pub in_organization: bool,
}

/// The identity policies of an account, as far as IAM shows them. Service control policies are not among them.
///
/// Source: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetAccountAuthorizationDetails.html>.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorizationDetails {
    /// Users and roles.
    pub principals: Vec<PrincipalDetails>,
    /// The policies of groups, by the group's name.
    pub groups: BTreeMap<String, AttachedPolicies>,
    /// The default version of each managed policy, by ARN.
    pub managed: BTreeMap<String, String>,
}

impl AuthorizationDetails {
    /// Adds a further page.
    pub fn extend(&mut self, page: Self) {
        self.principals.extend(page.principals);
        self.groups.extend(page.groups);
        self.managed.extend(page.managed);
    }
}

/// A user or role with its policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrincipalDetails {
    /// Its ARN.
    pub arn: String,
    /// Its tags.
    pub tags: Tags,
    /// Its own policies.
    pub policies: AttachedPolicies,
    /// The names of its groups.
    pub groups: Vec<String>,
    /// The ARN of its permissions boundary.
    pub boundary: Option<String>,
}

/// The policies of a user, group or role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachedPolicies {
    /// The documents of inline policies, by name.
    pub inline: BTreeMap<String, String>,
    /// The ARNs of managed policies.
    pub managed: Vec<String>,
}

/// The calls of the audit.
#[async_trait]
pub trait AuditApi: Send + Sync {
    /// The task definition of this ARN, with its tags.
    async fn definition(&self, arn: &TaskDefinitionArn) -> Result<FullTaskDefinition, AwsError>;

    /// The names of the services of a cluster, a page at a time.
    async fn services(
        &self,
        cluster: &ClusterArn,
        page: Option<String>,
    ) -> Result<ListPage<String>, AwsError>;

    /// Users, groups, roles and policies of the caller's account, a page at a time, with the token of the next page.
    async fn authorization_details(
        &self,
        page: Option<String>,
    ) -> Result<(AuthorizationDetails, Option<String>), AwsError>;

    /// Whether the role's own policies let it call `iam:GetRole` on itself, by IAM's policy simulator.
    async fn may_get_own_role(&self, role: &RoleArn) -> Result<SimulationResult, AwsError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_values_and_commands() {
        let definition: FullTaskDefinition = serde_json::from_value(serde_json::json!({
            "family": "kv",
            "containerDefinitions": [{
                "name": "app",
                "environment": [{"name": "TOKEN", "value": "planted"}],
                "command": ["run", "--token=planted"],
                "healthCheck": null,
                "secrets": null,
            }],
        }))
        .unwrap();
        assert!(!format!("{definition:?}").contains("planted"), "{definition:?}");
        assert!(definition.containers[0].has_variable("TOKEN"));
        assert_eq!(definition.containers[0].health_check, None);
        assert!(definition.containers[0].is_essential());
    }
}
