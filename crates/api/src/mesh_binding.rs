//! `MeshBinding`: the tasks of a mesh, and the policy for their registrations.

use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, Percent, TokenPolicy, limits, patterns};
use ecs_mesh_model::{ClusterArn, DataplaneOwner, Glob, InterfaceAddresses, MeshName, Tags};

/// Binds the tasks of some clusters to one mesh of one control plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshBindingSpec {
    /// Name of a `ControlPlane`.
    pub control_plane: String,
    /// Kuma: the mesh, which must exist.
    ///
    /// Consul: the admin partition (Enterprise), or left out.
    #[serde(default = "default_mesh")]
    pub mesh: MeshName,
    /// Tasks that belong to the mesh.
    pub selector: BindingSelector,
    /// Checks of the task role's tags.
    #[serde(default)]
    pub role_tags: RoleTagPolicy,
    /// Where a task may be described.
    #[serde(default)]
    pub discovery: Discovery,
    /// With `discovery: tags`: the services that tasks may name in their tags.
    ///
    /// A task may always name its ECS service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ServiceClaim>,
    /// Kuma: who owns the Dataplanes of the tasks.
    ///
    /// A `Workload` may name another owner.
    #[serde(default)]
    pub dataplanes: DataplaneOwner,
    /// Permitted changes of registrations.
    #[serde(default)]
    pub policy: LifecyclePolicy,
    /// Removal of stale registrations.
    #[serde(default)]
    pub cleanup: CleanupPolicy,
    /// Kuma: what a drain leaves in load balancing.
    #[serde(default)]
    pub drain: DrainPolicy,
    /// Kuma: whether the old tasks of a deployment wait for their replacements.
    #[serde(default)]
    pub deployments: DeploymentPolicy,
    /// Kuma: data plane tokens that the operator issues.
    #[serde(default)]
    pub tokens: TokenPolicy,
    /// Kuma: which address of a dual-stack task is registered.
    ///
    /// A task with addresses of one family is registered with what it has.
    #[serde(default)]
    pub address_family: AddressFamily,
    /// Name of each Dataplane (Kuma).
    ///
    /// `{taskId}`, `{hostname}` and `{service}`, with `a-z 0-9 - .` around them. Each task needs a name of its
    /// own, so `{taskId}` or `{hostname}` is required. Tasks in network mode `host` share a host name and need `{taskId}`.
    #[schemars(schema_with = "patterns::dataplane_name")]
    #[serde(default = "default_dataplane_name")]
    pub dataplane_name: String,
    /// Observe and plan without writing.
    #[serde(default)]
    pub paused: bool,
}

fn default_mesh() -> MeshName {
    MeshName::default()
}

fn default_dataplane_name() -> String {
    MeshBindingSpec::DATAPLANE_NAME.to_owned()
}

impl MeshBindingSpec {
    /// Default of `dataplaneName`.
    pub const DATAPLANE_NAME: &str = "{taskId}";
}

/// A preference among the addresses of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AddressFamily {
    /// IPv4, or else IPv6.
    #[default]
    Ipv4,
    /// IPv6, or else IPv4.
    Ipv6,
}

impl AddressFamily {
    /// The preferred address of an interface; `None` while it has none.
    pub fn prefer(self, addresses: InterfaceAddresses) -> Option<IpAddr> {
        let (v4, v6) = (addresses.v4().map(IpAddr::V4), addresses.v6().map(IpAddr::V6));
        match self {
            Self::Ipv4 => v4.or(v6),
            Self::Ipv6 => v6.or(v4),
        }
    }
}

/// Selects the tasks of a binding. All given conditions must hold; an empty list is no condition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BindingSelector {
    /// Cluster ARNs, or patterns over them; at least one.
    ///
    /// A bare name is an error, since names recur; `*:cluster/NAME` selects all clusters of that name.
    #[schemars(length(min = 1), schema_with = "patterns::clusters")]
    pub clusters: Vec<Glob>,
    /// Only tasks of these ECS services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Glob>,
    /// Only tasks of these task definition families.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<Glob>,
    /// Only tasks with these ECS tags.
    ///
    /// Costs a describe for each new task.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    #[schemars(schema_with = "patterns::texts_by_key")]
    pub tags: Tags,
}

/// Checks of the task role's tags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RoleTagPolicy {
    /// Effect of role tags that do not allow the registration.
    pub mode: RoleTagMode,
    /// Under `enforce`: effect on a running task that is no longer allowed.
    ///
    /// Its role's tags have changed, or manifests have (service, authorised accounts, `boundPrincipals`,
    /// namespaces). Default: `withdraw` for Kuma, `keep` for Consul, where the task could not log in again
    /// without a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_revoked: Option<OnRevoked>,
    /// Accounts whose roles may be in the mesh; default: the task's own.
    #[schemars(schema_with = "patterns::accounts")]
    pub authorized_accounts: Vec<String>,
    /// How often each role's tags are read again.
    #[schemars(extend("x-allowed" = limits::RECHECK.description))]
    pub recheck: HumanDuration,
}

impl Default for RoleTagPolicy {
    fn default() -> Self {
        Self {
            mode: RoleTagMode::default(),
            on_revoked: None,
            authorized_accounts: Vec::new(),
            recheck: HumanDuration(Duration::from_mins(10)),
        }
    }
}

/// Effect of role tags that do not allow the registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoleTagMode {
    /// Not registered, and withdrawn when the tags stop allowing it.
    #[default]
    Enforce,
    /// Registered, with a warning.
    Warn,
    /// Not checked.
    Off,
}

/// Effect on a running task that is no longer allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnRevoked {
    /// Registrations and identities are removed after a second read agrees.
    Withdraw,
    /// Kept, with a warning.
    Keep,
}

/// Where a task may be described.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Discovery {
    /// In `Workload` manifests only.
    #[default]
    Manifests,
    /// Also in ECS task tags and docker labels, for tasks that no `Workload` selects.
    Tags,
}

/// Services that some tasks may name in their tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 2))]
pub struct ServiceClaim {
    /// Path and name of the task role, or a pattern over them; default: any role.
    ///
    /// Such as `/team-a/*` for the roles below a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::role_path")]
    pub role_path: Option<Glob>,
    /// Accounts of the tasks; default: any account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns::accounts")]
    pub accounts: Vec<String>,
    /// The services, or patterns over them; at least one.
    #[schemars(length(min = 1))]
    pub services: Vec<Glob>,
}

/// Permitted changes of registrations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LifecyclePolicy {
    /// Create, update, drain and remove.
    #[default]
    Sync,
    /// Create, update and drain.
    UpsertOnly,
    /// Create only.
    CreateOnly,
}

/// Removal of stale registrations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CleanupPolicy {
    /// How long a task must be missing before absence is evidence.
    #[schemars(extend("x-allowed" = limits::GRACE_AGE.description))]
    pub grace_age: HumanDuration,
    /// Time between full sweeps.
    #[schemars(extend("x-allowed" = limits::SWEEP_INTERVAL.description))]
    pub sweep_interval: HumanDuration,
    /// Kuma: time between drain and removal when a running task is withdrawn.
    #[schemars(extend("x-allowed" = limits::DRAIN.description))]
    pub drain: HumanDuration,
    /// How long a document must be absent before its registrations are withdrawn.
    ///
    /// The same holds for the outbounds of a list. Counts while all manifests are valid, and from zero after a start of
    /// the operator. Edits of a document that stays take effect at once.
    #[schemars(extend("x-allowed" = limits::SETTLE.description))]
    pub settle: HumanDuration,
    /// ARNs of clusters that were deleted, for those that ECS no longer finds.
    ///
    /// Their tasks then count as absent, as those of a cluster that ECS reports as INACTIVE do: after the grace age, within
    /// the guard's limit. No effect on a cluster that exists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns::cluster_arns")]
    pub removed_clusters: Vec<ClusterArn>,
    /// Limit of removals without the task's own STOPPED.
    pub guard: GuardPolicy,
}

impl Default for CleanupPolicy {
    fn default() -> Self {
        Self {
            grace_age: HumanDuration(Duration::from_mins(5)),
            sweep_interval: HumanDuration(Duration::from_mins(10)),
            drain: HumanDuration(Duration::from_secs(5)),
            settle: HumanDuration(Duration::from_mins(1)),
            removed_clusters: Vec::new(),
            guard: GuardPolicy::default(),
        }
    }
}

/// Registrations that a drain leaves in load balancing.
///
/// A task that ECS stops, or that manifests no longer declare, is taken out of load balancing at once while its
/// service keeps enough ready registrations. The last ones stay until replacements are ready, or until they no longer
/// serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DrainPolicy {
    /// The part of a service's ready registrations that stays, and at least one.
    ///
    /// Of those that were ready when the first of them was to be drained.
    pub keep_ready: Percent,
    /// How long a drain waits at most.
    ///
    /// Default: the longest `stopTimeout` of the task's essential containers, and 5 seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-allowed" = limits::MAX_HOLD.description))]
    pub max_hold: Option<HumanDuration>,
    /// How long the drain of a task whose role tags no longer allow it waits at most.
    #[schemars(extend("x-allowed" = limits::REVOKED_WITHIN.description))]
    pub revoked_within: HumanDuration,
}

impl Default for DrainPolicy {
    fn default() -> Self {
        Self { keep_ready: Percent::default(), max_hold: None, revoked_within: HumanDuration(Duration::ZERO) }
    }
}

/// Holds the old tasks of a deployment until their replacements are ready in the mesh.
///
/// For apps that exit at once on SIGTERM. The old tasks get ECS's scale-in protection, which also delays scale-in; it may
/// come too late for the first of them. Only for rolling updates whose `maximumPercent` leaves room for replacements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeploymentPolicy {
    /// Protect the old tasks. Needs `ecs:UpdateTaskProtection`.
    pub hold: bool,
    /// How long a deployment is held at most.
    ///
    /// The protection also expires by itself then, in whole minutes.
    #[schemars(extend("x-allowed" = limits::DEPLOYMENT_HOLD.description))]
    pub max_hold: HumanDuration,
}

impl Default for DeploymentPolicy {
    fn default() -> Self {
        Self { hold: false, max_hold: HumanDuration(Duration::from_mins(15)) }
    }
}

/// Limit of removals without the task's own STOPPED.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GuardPolicy {
    /// Largest part of owned registrations removed within an hour without a STOPPED.
    #[schemars(range(min = *limits::MAX_FRACTION.start(), max = *limits::MAX_FRACTION.end()))]
    pub max_fraction: f64,
    /// With fewer owned registrations the guard admits those of one task an hour.
    ///
    /// A removal by the manifests is also admitted once they have asked for it for 10 minutes. Registrations that role
    /// tags no longer allow are withdrawn without this limit.
    pub min_owned: u32,
    /// Removals are admitted until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::time")]
    pub release_until: Option<String>,
}

impl Default for GuardPolicy {
    fn default() -> Self {
        Self { max_fraction: 0.3, min_owned: 10, release_until: None }
    }
}
