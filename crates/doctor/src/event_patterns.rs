//! The required EventBridge event patterns, from the manifests.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::event_coverage::{FieldKnowledge, RequiredEvents};
use super::scope::DoctorScope;
use ecs_mesh_model::Glob;

/// Documented name of the rule for task state changes.
pub(super) const TASKS_RULE: &str = "ecs-mesh-tasks";
/// Documented name of the rule for deployments.
pub(super) const DEPLOYMENTS_RULE: &str = "ecs-mesh-deployments";
/// Documented name of the rule for role tags.
pub(super) const ROLES_RULE: &str = "ecs-mesh-roles";
const TASK_STATE_CHANGE: &str = "ECS Task State Change";
const DEPLOYMENT_STATE_CHANGE: &str = "ECS Deployment State Change";
const CLOUDTRAIL: &str = "AWS API Call via CloudTrail";
/// The calls that change a role's tags or delete it.
const ROLE_CALLS: [&str; 3] = ["TagRole", "UntagRole", "DeleteRole"];

/// The patterns by rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventPatterns {
    /// Task state changes of the bound clusters.
    #[serde(rename = "ecs-mesh-tasks")]
    pub tasks: Value,
    /// Deployments of all services; `None` if no binding holds deployments.
    #[serde(rename = "ecs-mesh-deployments", skip_serializing_if = "Option::is_none")]
    pub deployments: Option<Value>,
    /// Changes of role tags; `None` if no binding checks role tags.
    #[serde(rename = "ecs-mesh-roles", skip_serializing_if = "Option::is_none")]
    pub roles: Option<Value>,
}

impl EventPatterns {
    /// The patterns for this scope.
    pub fn new(scope: &DoctorScope) -> Self {
        let mut tasks = json!({"source": ["aws.ecs"], "detail-type": [TASK_STATE_CHANGE]});
        let clusters: Vec<Value> = scope.clusters.iter().map(|cluster| allowing(&cluster.glob)).collect();
        let selects_all = scope.clusters.iter().any(|cluster| cluster.glob.as_str() == "*");
        if !clusters.is_empty() && !selects_all {
            tasks["detail"] = Value::Object(Map::from_iter([("clusterArn".to_owned(), json!(clusters))]));
        }
        let roles = json!({
            "source": ["aws.iam"], "detail-type": [CLOUDTRAIL], "detail": {"eventName": ROLE_CALLS},
        });
        // A service with a short ARN names no cluster, so the events are not restricted to clusters.
        let deployments = json!({"source": ["aws.ecs"], "detail-type": [DEPLOYMENT_STATE_CHANGE]});
        Self {
            tasks,
            deployments: scope.holds_deployments.then_some(deployments),
            roles: scope.reads_roles.then_some(roles),
        }
    }
}

/// The pattern of a glob. EventBridge supports `*` only, without repetition; surplus events are counted and deleted.
fn allowing(glob: &Glob) -> Value {
    if glob.is_literal() {
        return json!(glob.as_str());
    }
    let mut pattern = String::new();
    for character in glob.as_str().chars().map(|c| if c == '?' { '*' } else { c }) {
        if character != '*' || !pattern.ends_with('*') {
            pattern.push(character);
        }
    }
    json!({"wildcard": pattern})
}

/// The events of one cluster that a rule must match.
pub(super) fn need_of_tasks(scope: &DoctorScope, cluster: &Glob) -> RequiredEvents {
    let cluster = if cluster.is_literal() {
        FieldKnowledge::Text(cluster.as_str().to_owned())
    } else {
        FieldKnowledge::Matching(cluster.clone())
    };
    let mut need = envelope(scope, "aws.ecs", TASK_STATE_CHANGE, scope.region.as_deref());
    need.push(("detail.clusterArn", cluster));
    // Every such event has these fields.
    for field in
        ["detail.taskArn", "detail.lastStatus", "detail.desiredStatus", "detail.version", "detail.group"]
    {
        need.push((field, FieldKnowledge::Something));
    }
    RequiredEvents(need)
}

/// The events of deployments that a rule must match.
pub(super) fn need_of_deployments(scope: &DoctorScope) -> RequiredEvents {
    let mut need = envelope(scope, "aws.ecs", DEPLOYMENT_STATE_CHANGE, scope.region.as_deref());
    // Every such event has these fields.
    for field in ["detail.eventName", "detail.eventType", "detail.deploymentId"] {
        need.push((field, FieldKnowledge::Something));
    }
    RequiredEvents(need)
}

/// The events of role changes that a rule must match.
pub(super) fn needs_of_roles(scope: &DoctorScope, iam_region: &str) -> Vec<RequiredEvents> {
    let of = |call: &str| {
        let mut need = envelope(scope, "aws.iam", CLOUDTRAIL, Some(iam_region));
        need.push(("detail.eventName", FieldKnowledge::Text(call.to_owned())));
        need.push(("detail.eventSource", FieldKnowledge::Text("iam.amazonaws.com".to_owned())));
        need.push(("detail.awsRegion", FieldKnowledge::Text(iam_region.to_owned())));
        RequiredEvents(need)
    };
    ROLE_CALLS.into_iter().map(of).collect()
}

fn envelope(
    scope: &DoctorScope,
    source: &str,
    kind: &str,
    region: Option<&str>,
) -> Vec<(&'static str, FieldKnowledge)> {
    let text = |text: &str| FieldKnowledge::Text(text.to_owned());
    let mut fields = vec![("source", text(source)), ("detail-type", text(kind))];
    fields.extend(scope.account.as_deref().map(|account| ("account", text(account))));
    fields.extend(region.map(|region| ("region", text(region))));
    fields
}
