//! The questions to AWS: what runs, by which definitions, as which roles.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::facts::{AuditedDefinition, AuditFacts, DefinitionOrigin, AuditedRole, DefinitionUse};
use ecs_mesh_api::ControlPlaneType;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind, Ecs as _, Iam as _};
use ecs_mesh_aws::inspect::AuditApi as _;
use ecs_mesh_aws::sdk::AwsClients;
use ecs_mesh_core::intent;
use ecs_mesh_model::{ClusterArn, DesiredStatus, Task, TaskArn, TaskDefinitionArn, TaskId};

/// DescribeTasks takes as many.
const TASKS_A_CALL: usize = 100;
/// A list with more pages than this does not end.
const MOST_PAGES: usize = 1_000;
/// How often a call that came too fast is tried again, and after what pause at first.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);

/// What is to be looked at.
pub(super) struct AuditScope<'a> {
    pub(super) set: &'a ManifestSet,
    /// Clusters that were named: all their tasks.
    pub(super) named: &'a BTreeSet<ClusterArn>,
    /// Whether the tasks of bound clusters are wanted, too.
    pub(super) runs: bool,
}

/// How each definition is used, and by the tasks of which control planes.
type Uses = BTreeMap<TaskDefinitionArn, (BTreeSet<DefinitionUse>, BTreeSet<Arc<str>>)>;

pub(super) async fn ask(clients: &AwsClients, wanted: &AuditScope<'_>, facts: &mut AuditFacts) {
    let mut uses = Uses::new();
    for cluster in clusters(clients, wanted, facts).await {
        let said = running(clients, &cluster).await.map(|tasks| {
            for task in &tasks {
                note(wanted, facts, &mut uses, task);
            }
            tasks.len()
        });
        facts.clusters.insert(cluster, said);
    }
    for (arn, (uses, planes)) in uses {
        match retry_throttled(|| clients.inspect.definition(&arn)).await {
            Ok(whole) => facts.definitions.push(AuditedDefinition {
                origin: DefinitionOrigin::Ecs,
                definition: whole,
                uses: uses.into_iter().collect(),
                control_planes: planes.into_iter().collect(),
            }),
            Err(error) => {
                facts.unreadable_clusters.insert(arn, error);
            }
        }
    }
    roles(clients, facts).await;
}

/// The clusters whose tasks are looked at. Those that patterns select become known to their control planes, too.
async fn clusters(clients: &AwsClients, wanted: &AuditScope<'_>, facts: &mut AuditFacts) -> BTreeSet<ClusterArn> {
    let set = wanted.set;
    let of_consul = || set.bindings.values().filter(|one| one.control_plane_type == ControlPlaneType::Consul);
    let has_patterns = of_consul().flat_map(|one| &one.spec.selector.clusters).any(|glob| !glob.is_literal());
    if has_patterns {
        match listed(clients).await {
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
    let mut found = wanted.named.clone();
    if wanted.runs {
        let bound = facts.control_planes.values().flat_map(|plane| plane.clusters.iter().cloned());
        found.extend(bound.filter(|cluster| cluster.region() == clients.region()));
    }
    found
}

async fn listed(clients: &AwsClients) -> Result<Vec<ClusterArn>, AwsError> {
    let (mut all, mut next) = (Vec::new(), None);
    for _ in 0..MOST_PAGES {
        let page = retry_throttled(|| clients.ecs.list_clusters(next.clone())).await?;
        all.extend(page.items);
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    Ok(all)
}

/// Every task that is to run in the cluster, described. One that cannot be described fails the whole: a definition may
/// be used by it alone.
async fn running(clients: &AwsClients, cluster: &ClusterArn) -> Result<Vec<Task>, AwsError> {
    let (mut ids, mut next): (Vec<TaskId>, _) = (Vec::new(), None);
    for _ in 0..MOST_PAGES {
        let page =
            retry_throttled(|| clients.ecs.list_tasks(cluster, DesiredStatus::Running, next.clone())).await?;
        ids.extend(page.items.iter().map(TaskArn::id).cloned());
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    let mut tasks = Vec::new();
    for some in ids.chunks(TASKS_A_CALL) {
        let described = retry_throttled(|| clients.ecs.describe_tasks(cluster, some)).await?;
        if let Some((id, why)) = described.failed.first() {
            return Err(AwsError {
                kind: AwsErrorKind::Unavailable,
                operation: "ecs:DescribeTasks",
                resource: id.to_string(),
                code: "failure".to_owned(),
                message: why.clone(),
                hint: "",
            });
        }
        // A task that is missing has ended since it was listed.
        tasks.extend(described.tasks);
    }
    Ok(tasks)
}

/// Notes the task's definition, if the task is one of Consul's by the manifests, or its cluster was named.
fn note(wanted: &AuditScope<'_>, facts: &AuditFacts, uses: &mut Uses, task: &Task) {
    let bound: BTreeSet<Arc<str>> = intent::bindings(wanted.set, ControlPlaneType::Consul, task)
        .filter_map(|binding| facts.control_planes.get_key_value(binding.spec.control_plane.as_str()))
        .map(|(name, _)| Arc::clone(name))
        .collect();
    let is_named = wanted.named.contains(task.arn.cluster());
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

/// Quotas are shared with everybody in the account, so "too many calls" is no answer yet.
async fn retry_throttled<T, F: Future<Output = Result<T, AwsError>>>(call: impl Fn() -> F) -> Result<T, AwsError> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match call().await {
            Err(error) if error.kind == AwsErrorKind::Throttled => tokio::time::sleep(pause).await,
            said => return said,
        }
        pause *= 2;
    }
    call().await
}
