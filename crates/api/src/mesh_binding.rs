//! `MeshBinding`: which tasks are in which mesh, and how carefully.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, limits, patterns};
use ecs_mesh_model::{Glob, MeshName, Tags};

/// Puts the tasks of some clusters into one mesh of one control plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshBindingSpec {
    /// The name of a `ControlPlane`.
    pub control_plane: String,
    /// The Kuma mesh, which must exist. For Consul the admin partition (Enterprise), or else left out.
    #[serde(default = "default_mesh")]
    pub mesh: MeshName,
    /// Which tasks.
    pub selector: BindingSelector,
    /// What the task role's tags must allow.
    #[serde(default)]
    pub role_tags: RoleTagPolicy,
    /// Where a task's place in the mesh may be written besides the manifests.
    #[serde(default)]
    pub discovery: Discovery,
    /// What may be done to registrations.
    #[serde(default)]
    pub policy: LifecyclePolicy,
    /// How stale registrations are found and taken away.
    #[serde(default)]
    pub cleanup: CleanupPolicy,
    /// The Dataplane's name (Kuma alone). Each task must have its own, so `{taskId}` or `{hostname}` is in it.
    #[schemars(schema_with = "patterns::dataplane_name")]
    #[serde(default = "default_dataplane_name")]
    pub dataplane_name: String,
    /// `true`: observe and plan, and write nothing.
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
    /// What `dataplaneName` is where it is left out.
    pub const DATAPLANE_NAME: &str = "{taskId}";
}

/// Which tasks a binding takes. All given conditions must hold; an empty list is no condition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BindingSelector {
    /// ARNs of clusters, or patterns over them; at least one. A bare name is refused, since names recur;
    /// `*:cluster/NAME` takes all of that name.
    #[schemars(length(min = 1), schema_with = "patterns::clusters")]
    pub clusters: Vec<Glob>,
    /// Only tasks of these ECS services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Glob>,
    /// Only tasks of these task definition families.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<Glob>,
    /// Only tasks with these ECS tags (costs a describe per new task).
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    #[schemars(schema_with = "patterns::texts_by_key")]
    pub tags: Tags,
}

/// What the task role's tags must say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RoleTagPolicy {
    /// What follows where the task role's tags don't allow the registration.
    pub mode: RoleTagMode,
    /// What follows for a running task that is not allowed any more, under `enforce`: its role's tags have changed, or
    /// manifests have (the service, authorised accounts, `boundPrincipals` and so the role's path, namespaces). Left
    /// out: `withdraw` for Kuma, `keep` for Consul, where the task could not log in again without a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_revoked: Option<OnRevoked>,
    /// Accounts whose roles may be in the mesh; empty: the task's own account only.
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

/// What follows from role tags that do not allow the registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoleTagMode {
    /// Not registered; withdrawn when the tags stop allowing it.
    #[default]
    Enforce,
    /// Registered all the same, and reported.
    Warn,
    /// Not looked at.
    Off,
}

/// What follows for a running task that is not allowed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnRevoked {
    /// Its registrations and identities are taken away, after a second reading that says the same.
    Withdraw,
    /// It keeps them, and is reported.
    Keep,
}

/// Where a task's place in the mesh may be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Discovery {
    /// Only in `Workload` manifests.
    #[default]
    Manifests,
    /// Also in ECS task tags and docker labels, for tasks that no `Workload` selects.
    Tags,
}

/// What may be done to registrations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LifecyclePolicy {
    /// Create, update, drain and remove.
    #[default]
    Sync,
    /// Create, update and drain; remove nothing.
    UpsertOnly,
    /// Create, and nothing else.
    CreateOnly,
}

/// How stale registrations are found and taken away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CleanupPolicy {
    /// How long a task must have been missing before its registration may go without a STOPPED of its own.
    #[schemars(extend("x-allowed" = limits::GRACE_AGE.description))]
    pub grace_age: HumanDuration,
    /// Time between full sweeps.
    #[schemars(extend("x-allowed" = limits::SWEEP_INTERVAL.description))]
    pub sweep_interval: HumanDuration,
    /// Time between drain and removal when a running task is withdrawn. Of Kuma alone: at Consul nothing is drained.
    #[schemars(extend("x-allowed" = limits::DRAIN.description))]
    pub drain: HumanDuration,
    /// The limit on removals that no STOPPED backs.
    pub guard: GuardPolicy,
}

impl Default for CleanupPolicy {
    fn default() -> Self {
        Self {
            grace_age: HumanDuration(Duration::from_mins(5)),
            sweep_interval: HumanDuration(Duration::from_mins(10)),
            drain: HumanDuration(Duration::from_secs(5)),
            guard: GuardPolicy::default(),
        }
    }
}

/// Stops removals that are too many to be true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GuardPolicy {
    /// The largest part of the owned registrations that may go within an hour without a STOPPED.
    #[schemars(range(min = *limits::MAX_FRACTION.start(), max = *limits::MAX_FRACTION.end()))]
    pub max_fraction: f64,
    /// With fewer owned than this the guard lets everything through.
    pub min_owned: u32,
    /// Until then you let removals through.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::time")]
    pub release_until: Option<String>,
}

impl Default for GuardPolicy {
    fn default() -> Self {
        Self { max_fraction: 0.3, min_owned: 10, release_until: None }
    }
}
