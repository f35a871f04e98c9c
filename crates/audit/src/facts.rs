//! Facts about task definitions, roles, manifests and control planes, failures included, before the rules are applied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::line_index::LineIndex;
use super::report::FindingLocation;
use ecs_mesh_aws::aws::AwsError;
use ecs_mesh_aws::inspect::{
    AuthorizationDetails, FullContainer, FullTaskDefinition, Redacted, SimulationResult,
};
use ecs_mesh_consul::ConsulVersion;
use ecs_mesh_core::intent::MeshServices;
use ecs_mesh_core::plan::report::UpgradeCheck;
use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::{ClusterArn, MeshName, RoleArn, Tags, TaskDefinitionArn};

/// All gathered facts.
#[derive(Clone, Debug, Default)]
pub struct AuditFacts {
    /// Task definitions that were read.
    pub definitions: Vec<AuditedDefinition>,
    /// Files that could not be read, with the reason.
    pub unreadable: Vec<(FindingLocation, String)>,
    /// The loaded manifests, if any were given.
    pub manifests: Option<ManifestStatus>,
    /// Whether AWS could be reached; `None`: not requested.
    pub aws: Option<Result<(), String>>,
    /// Number of running tasks of each cluster, as listed by ECS.
    pub clusters: BTreeMap<ClusterArn, Result<usize, AwsError>>,
    /// The names of the services of each cluster, where its tasks were listed.
    pub services: BTreeMap<ClusterArn, Result<BTreeSet<String>, AwsError>>,
    /// The workloads that describe a running task in one of its bindings.
    pub workloads_in_use: BTreeSet<Arc<str>>,
    /// Task definitions that could not be read from ECS.
    pub unreadable_definitions: BTreeMap<TaskDefinitionArn, AwsError>,
    /// The roles of the task definitions.
    pub roles: BTreeMap<RoleArn, AuditedRole>,
    /// The principals of the caller's account; `None`: not requested.
    pub authorization: Option<Result<AuthorizationDetails, AwsError>>,
    /// Whether the account belongs to an organisation, whose service control policies the audit cannot read; `None`: not
    /// known.
    pub in_organization: Option<bool>,
    /// Consul control planes by name.
    pub control_planes: BTreeMap<Arc<str>, AuditedControlPlane>,
    /// Kuma control planes by name.
    pub kuma: BTreeMap<Arc<str>, AuditedKumaPlane>,
    /// Whether an upgrade of the Kuma control planes was to be checked.
    pub upgrade_requested: bool,
}

/// A task definition and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditedDefinition {
    /// A file or ECS.
    pub origin: DefinitionOrigin,
    /// The task definition.
    pub definition: FullTaskDefinition,
    /// How running tasks use the definition.
    pub uses: Vec<DefinitionUse>,
    /// The Consul control planes of its tasks.
    pub control_planes: Vec<Arc<str>>,
}

/// The source of a task definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefinitionOrigin {
    /// A file.
    File {
        /// As given.
        path: Arc<str>,
        /// The lines of its fields.
        lines: LineIndex,
        /// Prefix of each field's path: `taskDefinition.` or empty.
        prefix: &'static str,
    },
    /// ECS.
    Ecs,
}

/// One use of a task definition by running tasks of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DefinitionUse {
    /// The cluster.
    pub cluster: ClusterArn,
    /// The ECS service, if a service started the tasks.
    pub service: Option<Arc<str>>,
    /// `overrides.taskRoleArn`.
    pub role: Option<RoleArn>,
    /// The tasks' ECS tags.
    pub tags: Tags,
    /// The Kuma bindings that select the tasks, each with the workloads that describe them in it.
    pub kuma: BTreeMap<Arc<str>, Vec<Arc<str>>>,
}

/// A role as read from IAM.
#[derive(Clone, Debug)]
pub struct AuditedRole {
    /// The role's tags.
    pub tags: Result<Tags, AwsError>,
    /// Whether the role may call `iam:GetRole` on itself; `None` where no login needs it.
    pub get_role: Option<Result<SimulationResult, AwsError>>,
}

/// A Kuma control plane of the manifests.
#[derive(Clone, Debug, Default)]
pub struct AuditedKumaPlane {
    /// Known clusters whose tasks are bound to the control plane.
    pub clusters: BTreeSet<ClusterArn>,
    /// Kuma's answers; `None`: not requested.
    pub response: Option<Result<KumaFacts, String>>,
}

/// Kuma's answers.
#[derive(Clone, Debug, Default)]
pub struct KumaFacts {
    /// The backends that Dataplanes of each bound mesh can call.
    pub services: BTreeMap<MeshName, Fetched<MeshServices>>,
    /// Workloads for which the server's version has no form.
    pub not_expressible: Vec<InexpressibleWorkload>,
    /// The zone ingresses that are Dataplanes with a listener.
    pub ingresses: Vec<IngressListener>,
    /// The blockers of the upgrade; `None`: not requested, or the server has the target version.
    pub upgrade: Option<Fetched<KumaUpgrade>>,
}

/// A zone ingress that other zones find by a `MeshZoneAddress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressListener {
    /// The name of its Workload.
    pub workload: Arc<str>,
    /// The mesh.
    pub mesh: MeshName,
    /// Whether this zone has an address in the mesh.
    pub has_address: Fetched<bool>,
}

/// A workload for which a version of Kuma has no form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InexpressibleWorkload {
    /// Its name.
    pub workload: Arc<str>,
    /// The part without a form.
    pub message: String,
    /// The change to make.
    pub fix: String,
}

/// The workloads of a Kuma control plane, as far as they were checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckedWorkloads {
    /// The number of workloads in meshes whose settings were read.
    pub count: usize,
    /// Those for which the server's version has no form.
    pub inexpressible: Vec<InexpressibleWorkload>,
    /// The meshes whose settings could not be read.
    pub unread: BTreeSet<MeshName>,
}

/// An upgrade of a Kuma control plane, and what blocks it.
#[derive(Clone, Debug)]
pub struct KumaUpgrade {
    /// Resources of the control plane.
    pub check: UpgradeCheck,
    /// Workloads for which the target version has no form, and the current one has.
    pub not_expressible: Vec<InexpressibleWorkload>,
}

/// A Consul control plane of the manifests.
#[derive(Clone, Debug, Default)]
pub struct AuditedControlPlane {
    /// Known clusters whose tasks are bound to the control plane.
    pub clusters: BTreeSet<ClusterArn>,
    /// Auth methods that the manifests declare; `None` without a `ConsulAuth`.
    pub declared: Option<Vec<AuditedAuthMethod>>,
    /// Consul's answers; `None`: not requested.
    pub response: Option<Result<ConsulFacts, String>>,
}

/// A fact, or the reason why it is not known.
pub type Fetched<T> = Result<T, String>;

/// Consul's answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulFacts {
    /// The version of the server that answered.
    pub version: Fetched<ConsulVersion>,
    /// Whether ACLs are on.
    pub acls: Fetched<bool>,
    /// The auth methods with their configuration.
    pub auth_methods: Fetched<Vec<AuditedAuthMethod>>,
    /// The binding rules of all auth methods.
    pub binding_rules: Fetched<Vec<AuditedBindingRule>>,
    /// The names of all roles.
    pub roles: Fetched<BTreeSet<String>>,
    /// The policies of the anonymous token.
    pub anonymous: Fetched<Vec<PolicyText>>,
    /// Whether each bound cluster has a node.
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
    /// Whether `server_id` is known: a manifest without the field leaves the current value.
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
    /// The bound name, with variables.
    pub bind_name: String,
    /// Selector of logins; empty: all.
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

impl AuditFacts {
    /// The known clusters that the manifests bind.
    pub(crate) fn bound_clusters(&self) -> impl Iterator<Item = &ClusterArn> {
        let consul = self.control_planes.values().flat_map(|plane| &plane.clusters);
        consul.chain(self.kuma.values().flat_map(|plane| &plane.clusters))
    }
}

impl AuditedDefinition {
    /// The location of a field.
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

    /// The location of a container's field.
    pub(crate) fn container_place(&self, index: usize, field: &str) -> FindingLocation {
        let dot = if field.is_empty() { "" } else { "." };
        let place = self.place(&format!("containerDefinitions[{index}]{dot}{field}"));
        FindingLocation {
            container: self.definition.containers.get(index).map(|container| container.name.clone()),
            ..place
        }
    }

    /// Containers with their index.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (usize, &FullContainer)> {
        self.definition.containers.iter().enumerate()
    }

    /// The family; from the ARN if the definition has none.
    pub(crate) fn family(&self) -> &str {
        let arn = self.definition.arn.as_ref();
        if self.definition.family.is_empty() {
            arn.map_or("", TaskDefinitionArn::family)
        } else {
            &self.definition.family
        }
    }

    /// ARNs of all roles that its tasks run as. A bare role name is omitted.
    pub(crate) fn roles(&self) -> BTreeSet<RoleArn> {
        let own = self.definition.task_role.iter().filter_map(|role| RoleArn::parse(role).ok());
        own.chain(self.uses.iter().filter_map(|one| one.role.clone())).collect()
    }

    /// Known accounts in which its tasks run.
    pub(crate) fn accounts(&self) -> BTreeSet<String> {
        let clusters = self.uses.iter().map(|one| one.cluster.account().to_owned());
        clusters.chain(self.definition.arn.iter().map(|arn| arn.account().to_owned())).collect()
    }
}

impl AuditedControlPlane {
    /// The auth method of this name, actual or else declared; an error is the reason why neither is known. Consul ignores
    /// the case of names.
    pub(crate) fn method(&self, name: &str) -> Fetched<Option<&AuditedAuthMethod>> {
        if self.acls() == Ok(false) {
            return Err("ACLs are off".to_owned());
        }
        let is_it = |method: &&AuditedAuthMethod| method.name.eq_ignore_ascii_case(name);
        let declared = self.declared.iter().flatten().find(is_it);
        let methods = match (&self.response, declared) {
            (Some(Ok(consul)), _) => consul.auth_methods.as_ref().map_err(Clone::clone),
            (_, Some(_)) => return Ok(declared),
            (Some(Err(reason)), None) => Err(reason.clone()),
            (None, None) if self.declared.is_some() => return Ok(None),
            (None, None) => Err("Consul was not requested, and no manifest declares auth methods".to_owned()),
        };
        Ok(methods?.iter().find(is_it).or(declared))
    }

    /// All known auth methods: actual and declared.
    pub(crate) fn methods(&self) -> impl Iterator<Item = &AuditedAuthMethod> {
        let actual = self.response.iter().flatten().flat_map(|consul| consul.auth_methods.iter().flatten());
        actual.chain(self.declared.iter().flatten())
    }

    /// Whether ACLs are on.
    pub(crate) fn acls(&self) -> Fetched<bool> {
        match (&self.response, &self.declared) {
            (Some(Ok(consul)), _) => consul.acls.clone(),
            // Declared auth methods imply ACLs.
            (_, Some(declared)) if !declared.is_empty() => Ok(true),
            (Some(Err(reason)), _) => Err(reason.clone()),
            (None, _) => Err("no control plane was requested".to_owned()),
        }
    }
}
