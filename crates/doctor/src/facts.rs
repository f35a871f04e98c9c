//! Facts about AWS and the control planes, failures included, before the checks are evaluated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::report::CheckKind;
use super::scope::DoctorScope;
use ecs_mesh_api::TokenStoreKind;
use ecs_mesh_audit::{CheckedWorkloads, SidecarReport};
use ecs_mesh_aws::aws::AwsError;
use ecs_mesh_aws::sdk::{CallerIdentity, EventRule, EventTarget, FoundCredentials};
use ecs_mesh_consul as consul;
use ecs_mesh_kuma as kuma;
use ecs_mesh_lease::{LeaseStoreError, StoredRecord};
use ecs_mesh_manifests::{ManifestSource, ManifestStatus};
use ecs_mesh_model::AccountRegion;

/// A queue's attributes by name.
pub type Attributes = BTreeMap<String, String>;

/// All gathered facts.
#[derive(Clone, Debug)]
pub struct DoctorFacts {
    /// The loaded manifests.
    pub manifests: ManifestStatus,
    /// The manifests' remote sources.
    pub sources: Vec<ManifestSource>,
    /// The given queue URL.
    pub queue_url: Option<String>,
    /// Account, Region and clusters; an error for an invalid queue URL.
    pub scope: Result<DoctorScope, String>,
    /// AWS; an error if no client could be created.
    pub aws: Result<AwsFacts, AwsUnavailable>,
    /// Each control plane; an error if its connection could not be prepared.
    pub control_planes: BTreeMap<Arc<str>, Result<ControlPlaneFacts, String>>,
    /// The lease; `None` without one, and without a client of AWS.
    pub lease: Option<LeaseFacts>,
    /// The bus of events to teams; `None` without one, and without a client of AWS.
    pub team_events: Option<TeamEventFacts>,
    /// The facts for each further queue, of which the queue and its rules are checked.
    pub more_queues: Vec<DoctorFacts>,
}

/// The bus of events to teams.
#[derive(Clone, Debug)]
pub struct TeamEventFacts {
    /// Its name or ARN, as given.
    pub bus: String,
    /// Its ARN.
    pub described: Result<String, AwsError>,
}

/// The lease.
#[derive(Clone, Debug)]
pub struct LeaseFacts {
    /// Where it is kept, as given.
    pub location: String,
    /// The record.
    pub record: Result<Option<StoredRecord>, LeaseStoreError>,
}

/// Diagnostics of a control plane.
#[derive(Clone, Debug)]
pub enum ControlPlaneFacts {
    /// Kuma or Kong Mesh.
    Kuma(Box<KumaPlaneFacts>),
    /// Consul.
    Consul(Box<consul::ConsulDiagnostics>),
}

/// Diagnostics of Kuma or Kong Mesh.
#[derive(Clone, Debug)]
pub struct KumaPlaneFacts {
    /// The server's answers.
    pub diagnostics: kuma::KumaDiagnostics,
    /// The check of its workloads; `None` if the server is not supported.
    pub workloads: Option<Result<CheckedWorkloads, String>>,
}

/// Why no AWS client could be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwsUnavailable {
    /// No Region is configured.
    NoRegion(String),
    /// No CA certificates are available.
    NoRoots(String),
}

/// Facts about AWS.
#[derive(Clone, Debug)]
pub struct AwsFacts {
    /// The Region in use.
    pub region: String,
    /// Source and expiry of the credentials.
    pub credentials: Result<FoundCredentials, AwsError>,
    /// The caller's identity.
    pub caller: Result<CallerIdentity, AwsError>,
    /// Other reads; `None` if AWS does not accept the credentials.
    pub observations: Option<AwsObservations>,
}

/// Reads with accepted credentials.
#[derive(Clone, Debug, Default)]
pub struct AwsObservations {
    /// The queue and its dead-letter queue.
    pub queue: Option<QueueFacts>,
    /// The rules that send to the queue.
    pub rules: Option<Result<Vec<RuleFacts>, AwsError>>,
    /// Rules in IAM's Region that forward to the default bus of the queue's Region, if the Regions differ.
    pub forwarding: Option<Result<Vec<RuleFacts>, AwsError>>,
    /// The dead-letter queues of targets, by ARN.
    pub undelivered: BTreeMap<String, Result<Attributes, AwsError>>,
    /// Attempted read calls of the operator.
    pub reads: Vec<ReadAttempt>,
    /// The accounts that the manifests declare.
    pub members: Vec<MemberFacts>,
    /// Stored tokens of this operator that are below no path of the manifests, by store.
    pub former_tokens: BTreeMap<TokenStoreKind, BTreeSet<String>>,
    /// The sidecars of running tasks at Kuma; `None` if ECS does not answer, or no binding is of Kuma.
    pub sidecars: Option<SidecarReport>,
}

/// An account that an `AwsAccount` declares, in one of its Regions.
#[derive(Clone, Debug)]
pub struct MemberFacts {
    /// The account and the Region.
    pub place: AccountRegion,
    /// The identity after the role was assumed, or why that failed.
    pub identity: Result<CallerIdentity, AwsError>,
}

/// A queue.
#[derive(Clone, Debug)]
pub struct QueueFacts {
    /// The queue's attributes.
    pub attributes: Result<Attributes, AwsError>,
    /// Attributes of the dead-letter queue of the redrive policy.
    pub dead_letters: Option<Result<Attributes, AwsError>>,
}

/// A rule and its targets.
#[derive(Clone, Debug)]
pub struct RuleFacts {
    /// The rule's name.
    pub name: String,
    /// The rule.
    pub rule: Result<EventRule, AwsError>,
    /// The rule's targets.
    pub targets: Result<Vec<EventTarget>, AwsError>,
}

/// An attempted read call.
#[derive(Clone, Debug)]
pub struct ReadAttempt {
    /// The check that uses the result.
    pub id: CheckKind,
    /// The resource of the call.
    pub subject: String,
    /// The result as text.
    pub outcome: Result<String, AwsError>,
}
