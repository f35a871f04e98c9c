//! The questions to AWS. The queue is never received from: a message that the doctor takes is one that nobody handles.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalogue;
use crate::facts::{Attributes, AwsFacts, QueueFacts, ReadAttempt, RuleFacts, AwsObservations};
use crate::scope::{DoctorScope, iam_region};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind, Ecs as _, Iam as _};
use ecs_mesh_aws::sdk::AwsClients;
use ecs_mesh_model::{ClusterArn, DesiredStatus, RoleArn, TaskArn, TaskDefinitionArn, TaskId};

/// Most clusters that are tried; who has more has them by a pattern, and one permission for all.
const MOST_CLUSTERS: usize = 20;
/// Most tasks of a cluster that are looked at for their definitions.
const MOST_TASKS: usize = 20;
/// Most definitions and roles that are tried.
const MOST_ROLES: usize = 10;
/// Most pages of clusters that are searched for those that a pattern selects.
const MOST_PAGES: usize = 10;
/// The id of no task.
const NO_TASK: &str = "00000000000000000000000000000000";

pub(super) async fn ask(
    clients: &AwsClients,
    set: &ManifestSet,
    queue_url: Option<&str>,
    scope: Option<&DoctorScope>,
) -> AwsFacts {
    let (credentials, caller) = tokio::join!(clients.setup.credentials_end(), clients.setup.caller());
    // Whom AWS does not know it tells nothing, each time after the same wait.
    let is_known = !matches!(&caller, Err(error) if error.kind == AwsErrorKind::Credentials);
    let seen = if is_known { Some(see(clients, set, queue_url, scope).await) } else { None };
    AwsFacts { region: clients.region().to_owned(), source: source(), credentials, caller, observations: seen }
}

/// Where the default chain looks first, of what is there.
fn source() -> &'static str {
    const SOURCES: [(&str, &str); 5] = [
        ("AWS_ACCESS_KEY_ID", "the environment (AWS_ACCESS_KEY_ID)"),
        ("AWS_PROFILE", "the profile that AWS_PROFILE names"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "a web identity (AWS_WEB_IDENTITY_TOKEN_FILE)"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "the ECS task's role"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "the container's credentials endpoint"),
    ];
    let found =
        SOURCES.iter().find(|(variable, _)| std::env::var_os(variable).is_some_and(|v| !v.is_empty()));
    found.map_or("the default profile, or the EC2 instance", |(_, words)| words)
}

async fn see(clients: &AwsClients, set: &ManifestSet, url: Option<&str>, scope: Option<&DoctorScope>) -> AwsObservations {
    let of_queue = async {
        match (url, scope) {
            (Some(url), Some(place)) => queue_and_rules(clients, url, place).await,
            _ => AwsObservations::default(),
        }
    };
    let (seen, reads) = tokio::join!(of_queue, reads(clients, set));
    AwsObservations { reads, ..seen }
}

/// The queue, the rules that fill it, and where each puts what it cannot deliver.
async fn queue_and_rules(clients: &AwsClients, url: &str, scope: &DoctorScope) -> AwsObservations {
    let arn = scope.queue_arn().unwrap_or_default();
    let home = iam_region(&scope.partition).filter(|home| scope.region.as_deref() != Some(home));
    let forwarding = async {
        let bus = scope.arn("events", "event-bus/default");
        match home {
            Some(home) if scope.reads_roles => Some(rules(clients, Some(home), &bus).await),
            _ => None,
        }
    };
    let (attributes, rules, forwarding) =
        tokio::join!(attributes(clients, url), rules(clients, scope.region.as_deref(), &arn), forwarding);
    let dead = attributes.as_ref().ok().and_then(dead_letters_of);
    let dead_letters = match &dead {
        Some(dead) => Some(attributes_by_arn(clients, url, dead).await),
        None => None,
    };
    let mut undelivered = BTreeMap::new();
    let targets = rules.iter().flatten().flat_map(|rule| rule.targets.iter().flatten());
    let named: BTreeSet<&str> = targets.filter_map(|target| target.dead_letters.as_deref()).collect();
    for dead in named {
        undelivered.insert(dead.to_owned(), attributes_by_arn(clients, url, dead).await);
    }
    let queue = Some(QueueFacts { attributes, dead_letters });
    AwsObservations { queue, rules: Some(rules), forwarding, undelivered, reads: Vec::new() }
}

async fn attributes(clients: &AwsClients, url: &str) -> Result<Attributes, AwsError> {
    let queue = clients.queue(url).map_err(|error| AwsError {
        kind: AwsErrorKind::Invalid,
        operation: "sqs:GetQueueAttributes",
        resource: url.to_owned(),
        code: "url".to_owned(),
        message: error.to_string(),
        hint: "",
    })?;
    queue.all_attributes().await
}

/// Dead-letter queues lie in the account and Region of their queue, so their URL differs in the name alone.
async fn attributes_by_arn(clients: &AwsClients, url: &str, arn: &str) -> Result<Attributes, AwsError> {
    let base = url.rsplit_once('/').map_or("", |(base, _)| base);
    let name = arn.rsplit(':').next().unwrap_or_default();
    attributes(clients, &format!("{base}/{name}")).await
}

fn dead_letters_of(attributes: &Attributes) -> Option<String> {
    let policy: serde_json::Value = serde_json::from_str(attributes.get("RedrivePolicy")?).ok()?;
    policy["deadLetterTargetArn"].as_str().map(str::to_owned)
}

async fn rules(clients: &AwsClients, region: Option<&str>, target: &str) -> Result<Vec<RuleFacts>, AwsError> {
    let mut seen = Vec::new();
    for name in clients.setup.list_rules_of_target(region, target).await? {
        let (rule, targets) =
            tokio::join!(clients.setup.rule(region, &name), clients.setup.targets(region, &name));
        let targets = targets.map(|all| all.into_iter().filter(|one| one.arn == target).collect());
        seen.push(RuleFacts { name, rule, targets });
    }
    Ok(seen)
}

/// Every read call of the operator, on what it would read.
async fn reads(clients: &AwsClients, set: &ManifestSet) -> Vec<ReadAttempt> {
    let mut reads = Vec::new();
    let mut definitions = BTreeSet::new();
    let mut roles = BTreeSet::new();
    for cluster in clusters(clients, set, &mut reads).await.iter().take(MOST_CLUSTERS) {
        try_cluster(clients, cluster, &mut reads, &mut definitions, &mut roles).await;
        if reads.last().is_some_and(is_unavailable) {
            return reads;
        }
    }
    if definitions.is_empty() {
        try_no_definition(clients, set, &mut reads).await;
    }
    try_definitions(clients, &definitions, &mut reads, &mut roles).await;
    for role in roles.iter().take(MOST_ROLES) {
        let outcome = clients.iam.role_tags(role).await;
        let outcome = outcome.map(|tags| format!("its {} tags can be read", tags.len()));
        reads.push(ReadAttempt { id: catalogue::GET_ROLE, subject: role.to_string(), outcome });
        if reads.last().is_some_and(is_unavailable) {
            break;
        }
    }
    reads
}

/// Who does not answer once is not waited for again.
fn is_unavailable(read: &ReadAttempt) -> bool {
    matches!(&read.outcome, Err(error) if error.kind == AwsErrorKind::Unavailable)
}

/// The bound clusters of this Region, those that patterns select included.
async fn clusters(clients: &AwsClients, set: &ManifestSet, reads: &mut Vec<ReadAttempt>) -> BTreeSet<ClusterArn> {
    let globs: BTreeSet<_> = set.bindings.values().flat_map(|b| &b.spec.selector.clusters).collect();
    let mut message: BTreeSet<ClusterArn> = globs
        .iter()
        .filter(|glob| glob.is_literal())
        .filter_map(|glob| ClusterArn::parse(glob.as_str()).ok())
        .collect();
    if globs.iter().any(|glob| !glob.is_literal()) {
        let outcome = listed_clusters(clients).await.map(|all| {
            let count = all.len();
            let selected: Vec<_> =
                all.into_iter().filter(|c| globs.iter().any(|glob| glob.matches(c.as_str()))).collect();
            let words = format!("{} of {count} clusters are selected", selected.len());
            message.extend(selected);
            words
        });
        reads.push(ReadAttempt { id: catalogue::LIST_CLUSTERS, subject: clients.region().to_owned(), outcome });
    }
    // In another Region there is nobody to ask; `aws.scope` says so.
    message.retain(|cluster| cluster.region() == clients.region());
    message
}

async fn listed_clusters(clients: &AwsClients) -> Result<Vec<ClusterArn>, AwsError> {
    let (mut all, mut next) = (Vec::new(), None);
    for _ in 0..MOST_PAGES {
        let page = clients.ecs.list_clusters(next).await?;
        all.extend(page.items);
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    Ok(all)
}

async fn try_cluster(
    clients: &AwsClients,
    cluster: &ClusterArn,
    reads: &mut Vec<ReadAttempt>,
    definitions: &mut BTreeSet<TaskDefinitionArn>,
    roles: &mut BTreeSet<RoleArn>,
) {
    let mut some: Vec<TaskId> = Vec::new();
    let mut outcome = Ok(Vec::new());
    for desired in [DesiredStatus::Running, DesiredStatus::Stopped] {
        match clients.ecs.list_tasks(cluster, desired, None).await {
            Ok(page) => {
                let more = if page.next.is_some() { " and more" } else { "" };
                if let Ok(counts) = &mut outcome {
                    let (count, desired) = (page.items.len(), desired.as_str());
                    counts.push(format!("{count} tasks{more} with desired status {desired}"));
                }
                some.extend(page.items.iter().map(TaskArn::id).cloned());
            }
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    let outcome = outcome.map(|counts| counts.join(", "));
    reads.push(ReadAttempt { id: catalogue::LIST_TASKS, subject: cluster.to_string(), outcome });
    if reads.last().is_some_and(is_unavailable) {
        return;
    }
    some.truncate(MOST_TASKS);
    if some.is_empty() {
        // Any answer about it tells that it may be asked.
        some.extend(TaskId::parse(NO_TASK));
    }
    let outcome = clients.ecs.describe_tasks(cluster, &some).await.map(|described| {
        definitions.extend(described.tasks.iter().map(|task| task.definition.clone()));
        roles.extend(described.tasks.iter().filter_map(|task| task.role_override.clone()));
        format!("{} tasks described", described.tasks.len())
    });
    reads.push(ReadAttempt { id: catalogue::DESCRIBE_TASKS, subject: cluster.to_string(), outcome });
}

/// Where no task runs, the answer about a definition that does not exist tells whether it may be asked.
async fn try_no_definition(clients: &AwsClients, set: &ManifestSet, reads: &mut Vec<ReadAttempt>) {
    let mut globs = set.bindings.values().flat_map(|b| &b.spec.selector.clusters);
    let Some(cluster) = globs.find_map(|glob| ClusterArn::parse(glob.as_str()).ok()) else { return };
    let (partition, region, account) = (cluster.partition(), clients.region(), cluster.account());
    let text = format!("arn:{partition}:ecs:{region}:{account}:task-definition/ecs-mesh-operator-doctor:1");
    let Ok(arn) = TaskDefinitionArn::parse(&text) else { return };
    let outcome = match clients.ecs.describe_task_definition(&arn).await {
        Err(error) if matches!(error.kind, AwsErrorKind::Invalid | AwsErrorKind::NotFound) => {
            Ok("it may be asked; no task runs whose definition could be looked at".to_owned())
        }
        other => other.map(|_| "it may be asked".to_owned()),
    };
    reads.push(ReadAttempt { id: catalogue::DESCRIBE_DEFINITIONS, subject: clients.region().to_owned(), outcome });
}

async fn try_definitions(
    clients: &AwsClients,
    definitions: &BTreeSet<TaskDefinitionArn>,
    reads: &mut Vec<ReadAttempt>,
    roles: &mut BTreeSet<RoleArn>,
) {
    for arn in definitions.iter().take(MOST_ROLES) {
        let outcome = clients.ecs.describe_task_definition(arn).await.map(|definition| {
            let words =
                if definition.task_role.is_some() { "it has a task role" } else { "it has no task role" };
            roles.extend(definition.task_role);
            words.to_owned()
        });
        reads.push(ReadAttempt { id: catalogue::DESCRIBE_DEFINITIONS, subject: arn.to_string(), outcome });
    }
}
