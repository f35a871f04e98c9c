//! The event patterns that the rules need, from the manifests alone.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::event_coverage::{Known, Need};
use super::place::Place;
use ecs_mesh_model::Glob;

/// The name under which the documents have the rule of task state changes.
pub(super) const TASKS_RULE: &str = "ecs-mesh-tasks";
/// The name under which the documents have the rule of role tags.
pub(super) const ROLES_RULE: &str = "ecs-mesh-roles";
const TASK_STATE_CHANGE: &str = "ECS Task State Change";
const CLOUDTRAIL: &str = "AWS API Call via CloudTrail";
/// The calls that change a role's tags, or end it.
const ROLE_CALLS: [&str; 3] = ["TagRole", "UntagRole", "DeleteRole"];

/// The patterns by rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventPatterns {
    /// Task state changes of the bound clusters.
    #[serde(rename = "ecs-mesh-tasks")]
    pub tasks: Value,
    /// Changes of role tags; none where no binding looks at them.
    #[serde(rename = "ecs-mesh-roles", skip_serializing_if = "Option::is_none")]
    pub roles: Option<Value>,
}

impl EventPatterns {
    /// What the set-up needs.
    pub fn new(place: &Place) -> Self {
        let mut tasks = json!({"source": ["aws.ecs"], "detail-type": [TASK_STATE_CHANGE]});
        let clusters: Vec<Value> = place.clusters.iter().map(|cluster| allowing(&cluster.glob)).collect();
        let takes_all = place.clusters.iter().any(|cluster| cluster.glob.as_str() == "*");
        if !clusters.is_empty() && !takes_all {
            tasks["detail"] = Value::Object(Map::from_iter([("clusterArn".to_owned(), json!(clusters))]));
        }
        let roles = json!({
            "source": ["aws.iam"], "detail-type": [CLOUDTRAIL], "detail": {"eventName": ROLE_CALLS},
        });
        Self { tasks, roles: place.reads_roles.then_some(roles) }
    }
}

/// A rule knows `*` alone, and not twice in a row; what comes too much for that is counted and deleted.
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

/// What a rule must let through for one of the clusters.
pub(super) fn need_of_tasks(place: &Place, cluster: &Glob) -> Need {
    let cluster = if cluster.is_literal() {
        Known::Text(cluster.as_str().to_owned())
    } else {
        Known::Matching(cluster.clone())
    };
    let mut need = envelope(place, "aws.ecs", TASK_STATE_CHANGE, place.region.as_deref());
    need.push(("detail.clusterArn", cluster));
    // Each of these is in every such event.
    for field in
        ["detail.taskArn", "detail.lastStatus", "detail.desiredStatus", "detail.version", "detail.group"]
    {
        need.push((field, Known::Something));
    }
    Need(need)
}

/// What a rule must let through for each call that changes role tags.
pub(super) fn needs_of_roles(place: &Place, iam_region: &str) -> Vec<Need> {
    let of = |call: &str| {
        let mut need = envelope(place, "aws.iam", CLOUDTRAIL, Some(iam_region));
        need.push(("detail.eventName", Known::Text(call.to_owned())));
        need.push(("detail.eventSource", Known::Text("iam.amazonaws.com".to_owned())));
        need.push(("detail.awsRegion", Known::Text(iam_region.to_owned())));
        Need(need)
    };
    ROLE_CALLS.into_iter().map(of).collect()
}

fn envelope(place: &Place, source: &str, kind: &str, region: Option<&str>) -> Vec<(&'static str, Known)> {
    let text = |text: &str| Known::Text(text.to_owned());
    let mut fields = vec![("source", text(source)), ("detail-type", text(kind))];
    fields.extend(place.account.as_deref().map(|account| ("account", text(account))));
    fields.extend(region.map(|region| ("region", text(region))));
    fields
}
