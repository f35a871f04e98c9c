//! What was found when the set-up was looked at: answers and failures, not judged yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::parse::config::Configured;
use super::parse::lines::Lines;
use super::report::Place;
use ecs_mesh_aws::aws::AwsError;
use ecs_mesh_aws::inspect::{Hidden, Simulated, WholeContainer, WholeDefinition};
use ecs_mesh_consul::ConsulVersion;
use ecs_mesh_manifests::Status;
use ecs_mesh_model::{ClusterArn, RoleArn, Tags, TaskDefinitionArn};

/// Everything that was found.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The task definitions that could be read.
    pub definitions: Vec<Definition>,
    /// Files that could not.
    pub unreadable: Vec<(Place, String)>,
    /// The manifests as loaded, where any were given.
    pub manifests: Option<Status>,
    /// AWS; why it was not asked, or could not be.
    pub aws: Option<Result<(), String>>,
    /// What ECS said of each cluster.
    pub clusters: BTreeMap<ClusterArn, Result<usize, AwsError>>,
    /// Task definitions that ECS did not show.
    pub hidden: BTreeMap<TaskDefinitionArn, AwsError>,
    /// The roles of the task definitions.
    pub roles: BTreeMap<RoleArn, RoleSeen>,
    /// Each Consul control plane by name.
    pub planes: BTreeMap<Arc<str>, Plane>,
}

/// A task definition and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// A file or ECS.
    pub origin: Origin,
    /// What it says.
    pub whole: WholeDefinition,
    /// How running tasks use it.
    pub uses: Vec<Use>,
    /// The Consul control planes of its tasks.
    pub planes: Vec<Arc<str>>,
}

/// Where a task definition was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File {
        /// As given.
        path: Arc<str>,
        /// The lines of its fields.
        lines: Lines,
        /// What stands before each field's path: `taskDefinition.` or nothing.
        prefix: &'static str,
    },
    /// ECS.
    Ecs,
}

/// How some running tasks of one service use a task definition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
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
pub struct RoleSeen {
    /// Its tags.
    pub tags: Result<Tags, AwsError>,
    /// Whether it may read itself.
    pub get_role: Result<Simulated, AwsError>,
}

/// A Consul control plane of the manifests.
#[derive(Clone, Debug, Default)]
pub struct Plane {
    /// The clusters whose tasks are bound to it, as far as they are known.
    pub clusters: BTreeSet<ClusterArn>,
    /// What the manifests declare for it.
    pub declared: Option<Vec<AuthMethod>>,
    /// What it said; `None`: it was not asked.
    pub said: Option<Result<ConsulFacts, String>>,
}

/// A fact, or why it could not be had.
pub type Known<T> = Result<T, String>;

/// What Consul said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulFacts {
    /// The version of the server that answered.
    pub version: Known<ConsulVersion>,
    /// Whether ACLs are on.
    pub acls: Known<bool>,
    /// The auth methods, each whole.
    pub auth_methods: Known<Vec<AuthMethod>>,
    /// The binding rules of all auth methods.
    pub binding_rules: Known<Vec<BindingRule>>,
    /// The names of all roles.
    pub roles: Known<BTreeSet<String>>,
    /// The policies of the anonymous token.
    pub anonymous: Known<Vec<PolicyText>>,
    /// Whether each bound cluster has its node.
    pub nodes: BTreeMap<ClusterArn, Known<bool>>,
}

/// An auth method, of Consul or as declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthMethod {
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
    pub server_id: Option<Hidden>,
    /// Whether that is known; a manifest that leaves it out does not say.
    pub server_id_is_known: bool,
    /// `NamespaceRules`: selector and name.
    pub namespace_rules: Vec<(String, String)>,
}

/// A binding rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingRule {
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

impl Definition {
    /// The place of a field of it.
    pub(crate) fn place(&self, field: &str) -> Place {
        let resource = self.whole.arn.as_ref().map(|arn| arn.as_str().to_owned());
        match &self.origin {
            Origin::File { path, lines, prefix } => {
                // `describe-task-definition` prints the tags beside the definition.
                let is_beside = field == "tags" && lines.has(field);
                let full = if is_beside { field.to_owned() } else { format!("{prefix}{field}") };
                Place {
                    file: Some(Arc::clone(path)),
                    line: lines.get(full.trim_end_matches('.')),
                    resource,
                    container: None,
                    field: Some(full).filter(|full| !full.is_empty()),
                }
            }
            Origin::Ecs => Place {
                resource,
                field: Some(field.to_owned()).filter(|field| !field.is_empty()),
                ..Place::default()
            },
        }
    }

    /// The place of a field of a container.
    pub(crate) fn container_place(&self, index: usize, field: &str) -> Place {
        let dot = if field.is_empty() { "" } else { "." };
        let place = self.place(&format!("containerDefinitions[{index}]{dot}{field}"));
        Place { container: self.whole.containers.get(index).map(|container| container.name.clone()), ..place }
    }

    /// Containers with their places in the list.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (usize, &WholeContainer)> {
        self.whole.containers.iter().enumerate()
    }

    /// The first value of `CONSUL_ECS_CONFIG_JSON` that is an object.
    pub(crate) fn configured(&self) -> Option<Configured> {
        super::parse::config::all(self).into_iter().find_map(Result::ok)
    }

    /// Its family; the ARN's where the definition does not say.
    pub(crate) fn family(&self) -> &str {
        let arn = self.whole.arn.as_ref();
        if self.whole.family.is_empty() {
            arn.map_or("", TaskDefinitionArn::family)
        } else {
            &self.whole.family
        }
    }

    /// All roles that its tasks run as, in full; a bare name is none.
    pub(crate) fn roles(&self) -> BTreeSet<RoleArn> {
        let own = self.whole.task_role.iter().filter_map(|role| RoleArn::parse(role).ok());
        own.chain(self.uses.iter().filter_map(|one| one.role.clone())).collect()
    }

    /// The accounts in which its tasks run, as far as they are known.
    pub(crate) fn accounts(&self) -> BTreeSet<String> {
        let clusters = self.uses.iter().map(|one| one.cluster.account().to_owned());
        clusters.chain(self.whole.arn.iter().map(|arn| arn.account().to_owned())).collect()
    }
}

impl Plane {
    /// The auth method of this name, as it is or else as it is declared; an error says why nobody knows. Consul takes
    /// names that differ in case alone for one.
    pub(crate) fn method(&self, name: &str) -> Known<Option<&AuthMethod>> {
        if self.acls() == Ok(false) {
            return Err("ACLs are off".to_owned());
        }
        let is_it = |method: &&AuthMethod| method.name.eq_ignore_ascii_case(name);
        let declared = self.declared.iter().flatten().find(is_it);
        let said = match (&self.said, declared) {
            (Some(Ok(said)), _) => said.auth_methods.as_ref().map_err(Clone::clone),
            (_, Some(_)) => return Ok(declared),
            (Some(Err(why)), None) => Err(why.clone()),
            (None, None) if self.declared.is_some() => return Ok(None),
            (None, None) => Err("it was not asked, and no manifest declares auth methods".to_owned()),
        };
        Ok(said?.iter().find(is_it).or(declared))
    }

    /// All auth methods that are known, those that are declared and not there yet included.
    pub(crate) fn methods(&self) -> impl Iterator<Item = &AuthMethod> {
        let said = self.said.iter().flatten().flat_map(|said| said.auth_methods.iter().flatten());
        said.chain(self.declared.iter().flatten())
    }

    /// Whether ACLs are on.
    pub(crate) fn acls(&self) -> Known<bool> {
        match (&self.said, &self.declared) {
            (Some(Ok(said)), _) => said.acls.clone(),
            // Nobody declares auth methods for servers without ACLs.
            (_, Some(declared)) if !declared.is_empty() => Ok(true),
            (Some(Err(why)), _) => Err(why.clone()),
            (None, _) => Err("no control plane was asked".to_owned()),
        }
    }
}
