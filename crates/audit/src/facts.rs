//! What was found when the set-up was looked at: answers and failures, not judged yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::parse::config::TaskConfig;
use super::parse::lines::LineIndex;
use super::report::FindingLocation;
use ecs_mesh_aws::aws::AwsError;
use ecs_mesh_aws::inspect::{Redacted, SimulationResult, FullContainer, FullTaskDefinition};
use ecs_mesh_consul::ConsulVersion;
use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::{ClusterArn, RoleArn, Tags, TaskDefinitionArn};

/// Everything that was found.
#[derive(Clone, Debug, Default)]
pub struct AuditFacts {
    /// The task definitions that could be read.
    pub definitions: Vec<AuditedDefinition>,
    /// Files that could not.
    pub unreadable: Vec<(FindingLocation, String)>,
    /// The manifests as loaded, where any were given.
    pub manifests: Option<ManifestStatus>,
    /// AWS; why it was not asked, or could not be.
    pub aws: Option<Result<(), String>>,
    /// What ECS said of each cluster.
    pub clusters: BTreeMap<ClusterArn, Result<usize, AwsError>>,
    /// Task definitions that ECS did not show.
    pub unreadable_clusters: BTreeMap<TaskDefinitionArn, AwsError>,
    /// The roles of the task definitions.
    pub roles: BTreeMap<RoleArn, AuditedRole>,
    /// Each Consul control plane by name.
    pub control_planes: BTreeMap<Arc<str>, AuditedControlPlane>,
}

/// A task definition and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditedDefinition {
    /// A file or ECS.
    pub origin: DefinitionOrigin,
    /// What it says.
    pub definition: FullTaskDefinition,
    /// How running tasks use it.
    pub uses: Vec<DefinitionUse>,
    /// The Consul control planes of its tasks.
    pub control_planes: Vec<Arc<str>>,
}

/// Where a task definition was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefinitionOrigin {
    /// A file.
    File {
        /// As given.
        path: Arc<str>,
        /// The lines of its fields.
        lines: LineIndex,
        /// What stands before each field's path: `taskDefinition.` or nothing.
        prefix: &'static str,
    },
    /// ECS.
    Ecs,
}

/// How some running tasks of one service use a task definition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DefinitionUse {
    /// Where they run.
    pub cluster: ClusterArn,
    /// The ECS service, if one started them.
    pub service: Option<Arc<str>>,
    /// `overrides.taskRoleArn`.
    pub role: Option<RoleArn>,
    /// Their ECS tags.
    pub tags: Tags,
}

/// A role as IAM shows it.
#[derive(Clone, Debug)]
pub struct AuditedRole {
    /// Its tags.
    pub tags: Result<Tags, AwsError>,
    /// Whether it may read itself.
    pub get_role: Result<SimulationResult, AwsError>,
}

/// A Consul control plane of the manifests.
#[derive(Clone, Debug, Default)]
pub struct AuditedControlPlane {
    /// The clusters whose tasks are bound to it, as far as they are known.
    pub clusters: BTreeSet<ClusterArn>,
    /// What the manifests declare for it.
    pub declared: Option<Vec<AuditedAuthMethod>>,
    /// What it said; `None`: it was not asked.
    pub response: Option<Result<ConsulFacts, String>>,
}

/// A fact, or why it could not be had.
pub type Fetched<T> = Result<T, String>;

/// What Consul said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulFacts {
    /// The version of the server that answered.
    pub version: Fetched<ConsulVersion>,
    /// Whether ACLs are on.
    pub acls: Fetched<bool>,
    /// The auth methods, each whole.
    pub auth_methods: Fetched<Vec<AuditedAuthMethod>>,
    /// The binding rules of all auth methods.
    pub binding_rules: Fetched<Vec<AuditedBindingRule>>,
    /// The names of all roles.
    pub roles: Fetched<BTreeSet<String>>,
    /// The policies of the anonymous token.
    pub anonymous: Fetched<Vec<PolicyText>>,
    /// Whether each bound cluster has its node.
    pub nodes: BTreeMap<ClusterArn, Fetched<bool>>,
}

/// An auth method, of Consul or as declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditedAuthMethod {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// `BoundIAMPrincipalARNs`.
    pub principals: Vec<String>,
    /// `EnableIAMEntityDetails`.
    pub entity_details: bool,
    /// `IAMEntityTags`.
    pub entity_tags: BTreeSet<String>,
    /// `STSEndpoint`.
    pub sts_endpoint: Option<String>,
    /// `ServerIDHeaderValue`.
    pub server_id: Option<Redacted>,
    /// Whether that is known; a manifest that leaves it out does not say.
    pub server_id_is_known: bool,
    /// `NamespaceRules`: selector and name.
    pub namespace_rules: Vec<(String, String)>,
}

/// A binding rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditedBindingRule {
    /// Its id.
    pub id: String,
    /// Its auth method.
    pub method: String,
    /// `service`, `role`, `node`, `policy` or `templated-policy`.
    pub bind_type: String,
    /// What is bound, with variables.
    pub bind_name: String,
    /// For which logins; empty: for all.
    pub selector: String,
}

/// A policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyText {
    /// Its name.
    pub name: String,
    /// Its rules, in HCL or JSON.
    pub rules: String,
}

impl AuditedDefinition {
    /// The place of a field of it.
    pub(crate) fn place(&self, field: &str) -> FindingLocation {
        let resource = self.definition.arn.as_ref().map(|arn| arn.as_str().to_owned());
        match &self.origin {
            DefinitionOrigin::File { path, lines, prefix } => {
                // `describe-task-definition` prints the tags beside the definition.
                let is_beside = field == "tags" && lines.has(field);
                let full = if is_beside { field.to_owned() } else { format!("{prefix}{field}") };
                FindingLocation {
                    file: Some(Arc::clone(path)),
                    line: lines.get(full.trim_end_matches('.')),
                    resource,
                    container: None,
                    field: Some(full).filter(|full| !full.is_empty()),
                }
            }
            DefinitionOrigin::Ecs => FindingLocation {
                resource,
                field: Some(field.to_owned()).filter(|field| !field.is_empty()),
                ..FindingLocation::default()
            },
        }
    }

    /// The place of a field of a container.
    pub(crate) fn container_place(&self, index: usize, field: &str) -> FindingLocation {
        let dot = if field.is_empty() { "" } else { "." };
        let place = self.place(&format!("containerDefinitions[{index}]{dot}{field}"));
        FindingLocation { container: self.definition.containers.get(index).map(|container| container.name.clone()), ..place }
    }

    /// Containers with their places in the list.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (usize, &FullContainer)> {
        self.definition.containers.iter().enumerate()
    }

    /// The first value of `CONSUL_ECS_CONFIG_JSON` that is an object.
    pub(crate) fn configured(&self) -> Option<TaskConfig> {
        super::parse::config::all(self).into_iter().find_map(Result::ok)
    }

    /// Its family; the ARN's where the definition does not say.
    pub(crate) fn family(&self) -> &str {
        let arn = self.definition.arn.as_ref();
        if self.definition.family.is_empty() {
            arn.map_or("", TaskDefinitionArn::family)
        } else {
            &self.definition.family
        }
    }

    /// All roles that its tasks run as, in full; a bare name is none.
    pub(crate) fn roles(&self) -> BTreeSet<RoleArn> {
        let own = self.definition.task_role.iter().filter_map(|role| RoleArn::parse(role).ok());
        own.chain(self.uses.iter().filter_map(|one| one.role.clone())).collect()
    }

    /// The accounts in which its tasks run, as far as they are known.
    pub(crate) fn accounts(&self) -> BTreeSet<String> {
        let clusters = self.uses.iter().map(|one| one.cluster.account().to_owned());
        clusters.chain(self.definition.arn.iter().map(|arn| arn.account().to_owned())).collect()
    }
}

impl AuditedControlPlane {
    /// The auth method of this name, as it is or else as it is declared; an error says why nobody knows. Consul takes
    /// names that differ in case alone for one.
    pub(crate) fn method(&self, name: &str) -> Fetched<Option<&AuditedAuthMethod>> {
        if self.acls() == Ok(false) {
            return Err("ACLs are off".to_owned());
        }
        let is_it = |method: &&AuditedAuthMethod| method.name.eq_ignore_ascii_case(name);
        let declared = self.declared.iter().flatten().find(is_it);
        let said = match (&self.response, declared) {
            (Some(Ok(said)), _) => said.auth_methods.as_ref().map_err(Clone::clone),
            (_, Some(_)) => return Ok(declared),
            (Some(Err(why)), None) => Err(why.clone()),
            (None, None) if self.declared.is_some() => return Ok(None),
            (None, None) => Err("it was not asked, and no manifest declares auth methods".to_owned()),
        };
        Ok(said?.iter().find(is_it).or(declared))
    }

    /// All auth methods that are known, those that are declared and not there yet included.
    pub(crate) fn methods(&self) -> impl Iterator<Item = &AuditedAuthMethod> {
        let said = self.response.iter().flatten().flat_map(|said| said.auth_methods.iter().flatten());
        said.chain(self.declared.iter().flatten())
    }

    /// Whether ACLs are on.
    pub(crate) fn acls(&self) -> Fetched<bool> {
        match (&self.response, &self.declared) {
            (Some(Ok(said)), _) => said.acls.clone(),
            // Nobody declares auth methods for servers without ACLs.
            (_, Some(declared)) if !declared.is_empty() => Ok(true),
            (Some(Err(why)), _) => Err(why.clone()),
            (None, _) => Err("no control plane was asked".to_owned()),
        }
    }
}
