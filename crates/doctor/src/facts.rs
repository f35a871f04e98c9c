//! What was found when the set-up was looked at: answers and failures, not judged yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::scope::DoctorScope;
use super::report::CheckKind;
use ecs_mesh_aws::aws::AwsError;
use ecs_mesh_aws::sdk::{CallerIdentity, EventRule, EventTarget};
use ecs_mesh_consul as consul;
use ecs_mesh_kuma as kuma;
use ecs_mesh_manifests::ManifestStatus;

/// A queue's attributes by name, as SQS gives them.
pub type Attributes = BTreeMap<String, String>;

/// Everything that was found.
#[derive(Clone, Debug)]
pub struct DoctorFacts {
    /// The manifests as loaded.
    pub manifests: ManifestStatus,
    /// The queue's URL as given.
    pub queue_url: Option<String>,
    /// Where things are; an error for a queue URL that is none.
    pub scope: Result<DoctorScope, String>,
    /// AWS; an error where it cannot even be asked.
    pub aws: Result<AwsFacts, AwsUnavailable>,
    /// Each control plane; an error where the manifest's connection cannot even be prepared.
    pub control_planes: BTreeMap<Arc<str>, Result<ControlPlaneFacts, String>>,
}

/// What a control plane said of itself.
#[derive(Clone, Debug)]
pub enum ControlPlaneFacts {
    /// Kuma or Kong Mesh.
    Kuma(Box<kuma::KumaDiagnostics>),
    /// Consul.
    Consul(Box<consul::ConsulDiagnostics>),
}

/// Why AWS was not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwsUnavailable {
    /// There is no Region to ask in.
    NoRegion(String),
    /// There is nothing to trust it by.
    NoRoots(String),
}

/// What AWS said.
#[derive(Clone, Debug)]
pub struct AwsFacts {
    /// The Region that is asked.
    pub region: String,
    /// Where the credentials come from, in words.
    pub source: &'static str,
    /// When they end, if they do.
    pub credentials: Result<Option<SystemTime>, AwsError>,
    /// Who AWS says it is.
    pub caller: Result<CallerIdentity, AwsError>,
    /// The rest; `None` where AWS takes nothing from this caller.
    pub observations: Option<AwsObservations>,
}

/// What a caller whom AWS knows was told.
#[derive(Clone, Debug, Default)]
pub struct AwsObservations {
    /// The queue and its dead-letter queue.
    pub queue: Option<QueueFacts>,
    /// The rules that send to the queue.
    pub rules: Option<Result<Vec<RuleFacts>, AwsError>>,
    /// The rules in IAM's Region that send to the default bus of the queue's, where these are two.
    pub forwarding: Option<Result<Vec<RuleFacts>, AwsError>>,
    /// The dead-letter queues of targets, by ARN.
    pub undelivered: BTreeMap<String, Result<Attributes, AwsError>>,
    /// Each of the operator's read calls that was tried.
    pub reads: Vec<ReadAttempt>,
}

/// A queue.
#[derive(Clone, Debug)]
pub struct QueueFacts {
    /// Its attributes.
    pub attributes: Result<Attributes, AwsError>,
    /// Those of the queue that its redrive policy names.
    pub dead_letters: Option<Result<Attributes, AwsError>>,
}

/// A rule and what it does.
#[derive(Clone, Debug)]
pub struct RuleFacts {
    /// Its name.
    pub name: String,
    /// The rule.
    pub rule: Result<EventRule, AwsError>,
    /// Its targets.
    pub targets: Result<Vec<EventTarget>, AwsError>,
}

/// A read call that was tried.
#[derive(Clone, Debug)]
pub struct ReadAttempt {
    /// The check that it answers.
    pub id: CheckKind,
    /// What was asked for.
    pub subject: String,
    /// What came of it, in words.
    pub outcome: Result<String, AwsError>,
}
