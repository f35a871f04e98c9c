//! Reads from AWS: running tasks, their task definitions and their roles.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::facts::{AuditFacts, AuditedDefinition, AuditedRole, DefinitionOrigin, DefinitionUse};
use ecs_mesh_api::ControlPlaneType;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind, Ecs as _, Iam as _};
use ecs_mesh_aws::inspect::AuditApi as _;
use ecs_mesh_aws::sdk::AwsClients;
use ecs_mesh_core::intent;
use ecs_mesh_model::{ClusterArn, DesiredStatus, Task, TaskArn, TaskDefinitionArn, TaskId};

/// Most tasks of one DescribeTasks call.
const MAX_TASKS_PER_CALL: usize = 100;
/// Limit of pages, against a list that never ends.
const MAX_PAGES: usize = 1_000;
/// Attempts of a throttled call.
const MAX_ATTEMPTS: u32 = 4;
/// First pause after a throttled call; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The requested scope.
pub(super) struct AuditScope<'a> {
    pub(super) set: &'a ManifestSet,
    /// Clusters whose tasks are all audited.
    pub(super) named: &'a BTreeSet<ClusterArn>,
    /// Whether the running tasks of bound clusters are audited too.
    pub(super) running_tasks: bool,
}

/// For each definition: its uses, and the control planes of the tasks.
type Uses = BTreeMap<TaskDefinitionArn, (BTreeSet<DefinitionUse>, BTreeSet<Arc<str>>)>;

pub(super) async fn ask(clients: &AwsClients, scope: &AuditScope<'_>, facts: &mut AuditFacts) {
    let mut uses = Uses::new();
    for cluster in clusters(clients, scope, facts).await {
        let running = running_tasks(clients, &cluster).await.map(|tasks| {
            for task in &tasks {
                record_use(scope, facts, &mut uses, task);
            }
            tasks.len()
        });
        facts.clusters.insert(cluster, running);
    }
    for (arn, (uses, planes)) in uses {
        match retry_throttled(|| clients.inspect.definition(&arn)).await {
            Ok(definition) => facts.definitions.push(AuditedDefinition {
                origin: DefinitionOrigin::Ecs,
                definition,
                uses: uses.into_iter().collect(),
                control_planes: planes.into_iter().collect(),
            }),
            Err(error) => {
                facts.unreadable_definitions.insert(arn, error);
            }
        }
    }
    roles(clients, facts).await;
}

/// The clusters whose tasks are audited. Clusters that patterns select are added to their control planes.
async fn clusters(
    clients: &AwsClients,
    scope: &AuditScope<'_>,
    facts: &mut AuditFacts,
) -> BTreeSet<ClusterArn> {
    let set = scope.set;
    let of_consul = || set.bindings.values().filter(|one| one.control_plane_type == ControlPlaneType::Consul);
    let has_patterns = of_consul().flat_map(|one| &one.spec.selector.clusters).any(|glob| !glob.is_literal());
    if has_patterns {
        match list_clusters(clients).await {
            Ok(all) => {
                for binding in of_consul() {
                    if let Some(plane) = facts.control_planes.get_mut(binding.spec.control_plane.as_str()) {
                        plane.clusters.extend(all.iter().filter(|one| binding.selects_cluster(one)).cloned());
                    }
                }
            }
            Err(error) => facts.aws = Some(Err(error.to_string())),
        }
    }
    let mut found = scope.named.clone();
    if scope.running_tasks {
        let bound = facts.control_planes.values().flat_map(|plane| plane.clusters.iter().cloned());
        found.extend(bound.filter(|cluster| cluster.region() == clients.region()));
    }
    found
}

async fn list_clusters(clients: &AwsClients) -> Result<Vec<ClusterArn>, AwsError> {
    let (mut all, mut next) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page = retry_throttled(|| clients.ecs.list_clusters(next.clone())).await?;
        all.extend(page.items);
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    Ok(all)
}

/// Describes every task with desired status RUNNING. One failed task fails the call, since it may be the only user of a
/// definition.
async fn running_tasks(clients: &AwsClients, cluster: &ClusterArn) -> Result<Vec<Task>, AwsError> {
    let (mut ids, mut next): (Vec<TaskId>, _) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page =
            retry_throttled(|| clients.ecs.list_tasks(cluster, DesiredStatus::Running, next.clone())).await?;
        ids.extend(page.items.iter().map(TaskArn::id).cloned());
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    let mut tasks = Vec::new();
    for batch in ids.chunks(MAX_TASKS_PER_CALL) {
        let described = retry_throttled(|| clients.ecs.describe_tasks(cluster, batch)).await?;
        if let Some((id, reason)) = described.failed.first() {
            return Err(AwsError {
                kind: AwsErrorKind::Unavailable,
                operation: "ecs:DescribeTasks",
                resource: id.to_string(),
                code: "failure".to_owned(),
                message: reason.clone(),
                hint: "",
            });
        }
        // A missing task has ended since the list.
        tasks.extend(described.tasks);
    }
    Ok(tasks)
}

/// Records the task's definition if the manifests bind the task to Consul, or its cluster was requested.
fn record_use(scope: &AuditScope<'_>, facts: &AuditFacts, uses: &mut Uses, task: &Task) {
    let bound: BTreeSet<Arc<str>> = intent::bindings(scope.set, ControlPlaneType::Consul, task)
        .filter_map(|binding| facts.control_planes.get_key_value(binding.spec.control_plane.as_str()))
        .map(|(name, _)| Arc::clone(name))
        .collect();
    let is_named = scope.named.contains(task.arn.cluster());
    if bound.is_empty() && !is_named {
        return;
    }
    let (uses, planes) = uses.entry(task.definition.clone()).or_default();
    planes.extend(if bound.is_empty() { facts.control_planes.keys().cloned().collect() } else { bound });
    uses.insert(DefinitionUse {
        cluster: task.arn.cluster().clone(),
        service: task.group.service().map(Arc::from),
        role: task.role_override.clone(),
        tags: task.tags.as_deref().cloned().unwrap_or_default(),
    });
}

async fn roles(clients: &AwsClients, facts: &mut AuditFacts) {
    let roles: BTreeSet<_> = facts.definitions.iter().flat_map(AuditedDefinition::roles).collect();
    for role in roles {
        let tags = retry_throttled(|| clients.iam.role_tags(&role)).await;
        let get_role = retry_throttled(|| clients.inspect.may_get_own_role(&role)).await;
        facts.roles.insert(role, AuditedRole { tags, get_role });
    }
}

/// Retries throttled calls: quotas are shared by the whole account.
async fn retry_throttled<T, F: Future<Output = Result<T, AwsError>>>(
    call: impl Fn() -> F,
) -> Result<T, AwsError> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..MAX_ATTEMPTS {
        match call().await {
            Err(error) if error.kind == AwsErrorKind::Throttled => tokio::time::sleep(pause).await,
            result => return result,
        }
        pause *= 2;
    }
    call().await
}
