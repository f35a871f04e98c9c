//! The least IAM policy for a set-up: for the operator, and for a person or pipeline that runs the doctor.

use serde::Serialize;
use serde_json::Value;

use super::scope::DoctorScope;

/// For whom the policy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PolicyPrincipal {
    /// The operator's task role.
    #[default]
    Operator,
    /// Whoever runs `doctor`: all that the operator reads, and the rules.
    Doctor,
}

/// A policy document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct IamPolicy {
    version: &'static str,
    statement: Vec<IamStatement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct IamStatement {
    sid: &'static str,
    effect: &'static str,
    action: OneOrMany,
    resource: OneOrMany,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn of<S: Into<String>>(items: impl IntoIterator<Item = S>) -> Self {
        let mut items: Vec<String> = items.into_iter().map(Into::into).collect();
        match items.len() {
            1 => Self::One(items.remove(0)),
            _ => Self::Many(items),
        }
    }
}

fn statement<A: Into<String>, R: Into<String>>(
    sid: &'static str,
    actions: impl IntoIterator<Item = A>,
    resources: impl IntoIterator<Item = R>,
) -> IamStatement {
    let (action, resource) = (OneOrMany::of(actions), OneOrMany::of(resources));
    IamStatement { sid, effect: "Allow", action, resource, condition: None }
}

impl IamPolicy {
    /// What the reader needs for this set-up. `role_path` is the IAM path below which the tasks' roles lie: `/`, or
    /// `/mesh/`.
    ///
    /// # Errors
    /// In words, when the set-up does not tell the queue's Region or binds no cluster.
    pub fn new(scope: &DoctorScope, reader: PolicyPrincipal, role_path: &str) -> Result<Self, String> {
        if scope.clusters.is_empty() {
            return Err("no MeshBinding in the manifests names a cluster, so there is nothing to scope the policy to: \
                        give the manifests that bind one"
                .to_owned());
        }
        let mut statements = clusters(scope);
        if scope.reads_roles {
            statements.push(roles(scope, role_path));
        }
        if !scope.secrets.is_empty() {
            let secrets = scope.secrets.iter().map(|arn| whole(arn));
            statements.push(statement(
                "SecretsOfTheControlPlanes",
                ["secretsmanager:GetSecretValue"],
                secrets,
            ));
        }
        if let Some(queue) = &scope.queue {
            let arn = scope.queue_arn().ok_or("the queue's Region is not known: give --region")?;
            let read = ["sqs:GetQueueAttributes"];
            let work = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", read[0]];
            statements.push(match reader {
                PolicyPrincipal::Operator => statement("TheQueue", work, [arn]),
                // Its dead-letter queue, too, which by custom has the queue's name and something behind it.
                PolicyPrincipal::Doctor => {
                    let family = scope.arn("sqs", &format!("{}*", queue.name));
                    statement("TheQueueAndItsDeadLetters", read, [family])
                }
            });
            if reader == PolicyPrincipal::Doctor {
                statements.extend(rules(scope));
            }
        }
        Ok(Self { version: "2012-10-17", statement: statements })
    }
}

/// A secret's ARN ends in six random characters, which may be left out where it is read and must not be in a policy.
fn whole(arn: &str) -> String {
    let name = arn.rsplit(':').next().unwrap_or_default();
    let tail = name.rsplit_once('-').map_or("", |(_, tail)| tail);
    let is_whole = tail.len() == 6 && tail.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_whole { arn.to_owned() } else { format!("{arn}-??????") }
}

fn clusters(scope: &DoctorScope) -> Vec<IamStatement> {
    let partition = &scope.partition;
    let arns = OneOrMany::of(unique(scope.clusters.iter().map(|cluster| cluster.arn(partition))));
    let patterns = scope.clusters.iter().any(|cluster| !cluster.glob.is_literal());
    let operator = if patterns { "ArnLike" } else { "ArnEquals" };
    let mut statements = Vec::new();
    if patterns {
        statements.push(statement("ClustersByPattern", ["ecs:ListClusters"], ["*"]));
    }
    let mut list = statement("ListTasksOfTheCluster", ["ecs:ListTasks"], ["*"]);
    list.condition = Some(serde_json::json!({ operator: {"ecs:cluster": arns} }));
    statements.push(list);
    let tasks = unique(scope.clusters.iter().map(|cluster| cluster.tasks(partition)));
    statements.push(statement("DescribeTasksOfTheCluster", ["ecs:DescribeTasks"], tasks));
    statements.push(statement("TaskDefinitionsTellTheTaskRole", ["ecs:DescribeTaskDefinition"], ["*"]));
    statements
}

fn roles(scope: &DoctorScope, role_path: &str) -> IamStatement {
    let account = scope.account.as_deref().unwrap_or("*");
    let path = role_path.trim_matches('/');
    let path = if path.is_empty() { String::new() } else { format!("{path}/") };
    let arn = format!("arn:{}:iam::{account}:role/{path}*", scope.partition);
    statement("TagsOfTheTasksRoles", ["iam:GetRole"], [arn])
}

/// The rules of the queue's Region, and of the Region in which IAM tells of its calls.
fn rules(scope: &DoctorScope) -> [IamStatement; 2] {
    let account = scope.account.as_deref().unwrap_or("*");
    let rules = format!("arn:{}:events:*:{account}:rule/*", scope.partition);
    [
        statement("RulesOfTheQueue", ["events:ListRuleNamesByTarget"], ["*"]),
        statement("TheRules", ["events:DescribeRule", "events:ListTargetsByRule"], [rules]),
    ]
}

fn unique(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut items: Vec<String> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}
