//! Reads from AWS: running tasks, services, task definitions, roles, and who may tag roles.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::facts::{AuditFacts, AuditedDefinition, AuditedRole, DefinitionOrigin, DefinitionUse};
use crate::parse::config::is_of_consul;
use ecs_mesh_api::manifests::{Binding, ManifestSet};
use ecs_mesh_api::{ControlPlaneType, RoleTagMode};
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind, Ecs as _, Iam as _, ListPage};
use ecs_mesh_aws::inspect::{AuditApi, AuthorizationDetails};
use ecs_mesh_aws::sdk::SdkAccounts;
use ecs_mesh_core::intent;
use ecs_mesh_model::{ClusterArn, DesiredStatus, Task, TaskArn, TaskDefinitionArn, TaskId};
use tokio::time::{Instant, timeout_at};

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

pub(super) async fn ask(accounts: &SdkAccounts, scope: &AuditScope<'_>, facts: &mut AuditFacts) {
    let mut uses = Uses::new();
    for cluster in clusters(accounts, scope, facts).await {
        let running = running_tasks(accounts, &cluster).await.map(|tasks| {
            for task in &tasks {
                record_use(scope, facts, &mut uses, task);
            }
            tasks.len()
        });
        let names = services(accounts, &cluster).await;
        facts.services.insert(cluster.clone(), names);
        facts.clusters.insert(cluster, running);
    }
    for (arn, (uses, planes)) in uses {
        match retry_throttled(|| accounts.definition(&arn)).await {
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
    roles(accounts, facts).await;
    if scope.set.bindings.values().any(|binding| tags_count(binding)) {
        let details = authorization_details(accounts).await;
        if details.is_ok() {
            facts.in_organization = in_organization(accounts, facts).await;
        }
        facts.authorization = Some(details);
    }
}

/// Reads the running tasks of bound clusters and their definitions until `end`. Returns how many definitions are left, and
/// the first failure.
pub(super) async fn ask_until(
    accounts: &SdkAccounts,
    set: &ManifestSet,
    end: Instant,
    facts: &mut AuditFacts,
) -> (usize, Option<String>) {
    let named = BTreeSet::new();
    let scope = AuditScope { set, named: &named, running_tasks: true };
    let (mut uses, mut failure) = (Uses::new(), None);
    let unfinished = || "not all running tasks were listed in time".to_owned();
    let Ok(clusters) = timeout_at(end, clusters(accounts, &scope, facts)).await else {
        return (0, Some(unfinished()));
    };
    if let Some(Err(error)) = &facts.aws {
        failure = Some(error.clone());
    }
    for cluster in clusters {
        match timeout_at(end, running_tasks(accounts, &cluster)).await {
            Ok(Ok(tasks)) => tasks.iter().for_each(|task| record_use(&scope, facts, &mut uses, task)),
            Ok(Err(error)) => drop(failure.get_or_insert_with(|| error.to_string())),
            Err(_) => drop(failure.get_or_insert_with(unfinished)),
        }
    }
    let mut left = 0;
    for (arn, (uses, _)) in uses {
        match timeout_at(end, retry_throttled(|| accounts.definition(&arn))).await {
            Ok(Ok(definition)) => facts.definitions.push(AuditedDefinition {
                origin: DefinitionOrigin::Ecs,
                definition,
                uses: uses.into_iter().collect(),
                control_planes: Vec::new(),
            }),
            Ok(Err(error)) => {
                left += 1;
                failure.get_or_insert_with(|| error.to_string());
            }
            Err(_) => left += 1,
        }
    }
    (left, failure)
}

/// Whether the tags of roles decide what tasks of the binding may be.
fn tags_count(binding: &Binding) -> bool {
    binding.control_plane_type == ControlPlaneType::Consul || binding.spec.role_tags.mode != RoleTagMode::Off
}

async fn services(accounts: &SdkAccounts, cluster: &ClusterArn) -> Result<BTreeSet<String>, AwsError> {
    let (mut names, mut next) = (BTreeSet::new(), None);
    for _ in 0..MAX_PAGES {
        let page = retry_throttled(|| accounts.services(cluster, next.clone())).await?;
        names.extend(page.items);
        next = page.next;
        if next.is_none() {
            return Ok(names);
        }
    }
    Err(unending("ecs:ListServices", cluster.as_str()))
}

/// Of the caller's account and of each declared one.
async fn authorization_details(accounts: &SdkAccounts) -> Result<AuthorizationDetails, AwsError> {
    let mut all = AuthorizationDetails::default();
    read_authorization_details(accounts, &mut all).await?;
    let mut read = BTreeSet::new();
    for place in accounts.members().into_iter().filter(|place| read.insert(Arc::clone(&place.account))) {
        read_authorization_details(&accounts.clients(&place).await?.inspect, &mut all).await?;
    }
    Ok(all)
}

async fn read_authorization_details(
    account: &impl AuditApi,
    all: &mut AuthorizationDetails,
) -> Result<(), AwsError> {
    let mut next = None;
    for _ in 0..MAX_PAGES {
        let (page, more) = retry_throttled(|| account.authorization_details(next.clone())).await?;
        all.extend(page);
        next = more;
        if next.is_none() {
            return Ok(());
        }
    }
    Err(unending("iam:GetAccountAuthorizationDetails", ""))
}

/// A list whose pages do not end: the pages so far do not count as complete.
fn unending(operation: &'static str, resource: &str) -> AwsError {
    AwsError {
        kind: AwsErrorKind::Invalid,
        operation,
        resource: resource.to_owned(),
        code: "response".to_owned(),
        message: format!("more than {MAX_PAGES} pages"),
        hint: "",
    }
}

/// Whether the account belongs to an organisation, as a simulation for any role shows.
async fn in_organization(accounts: &SdkAccounts, facts: &AuditFacts) -> Option<bool> {
    let mut simulated = facts.roles.values().filter_map(|role| role.get_role.as_ref()?.as_ref().ok());
    if let Some(result) = simulated.next() {
        return Some(result.in_organization);
    }
    let known = facts.roles.iter().find(|(_, role)| role.tags.is_ok())?;
    let result = retry_throttled(|| accounts.may_get_own_role(known.0)).await;
    result.ok().map(|result| result.in_organization)
}

/// The clusters whose tasks are audited. Clusters that patterns select are added to their control planes.
async fn clusters(
    accounts: &SdkAccounts,
    scope: &AuditScope<'_>,
    facts: &mut AuditFacts,
) -> BTreeSet<ClusterArn> {
    let bindings = || scope.set.bindings.values();
    let has_patterns = bindings().flat_map(|one| &one.spec.selector.clusters).any(|glob| !glob.is_literal());
    if has_patterns {
        let (all, failure) = list_clusters(accounts).await;
        bindings().for_each(|binding| add_clusters(facts, binding, &all));
        if let Some(error) = failure {
            facts.aws = Some(Err(error.to_string()));
        }
    }
    let mut found = scope.named.clone();
    if scope.running_tasks {
        found.extend(facts.bound_clusters().cloned());
    }
    found
}

/// Adds the clusters that the binding selects to those of its control plane.
fn add_clusters(facts: &mut AuditFacts, binding: &Binding, all: &[ClusterArn]) {
    let selected = all.iter().filter(|cluster| binding.selects_cluster(cluster)).cloned();
    let name = binding.spec.control_plane.as_str();
    if let Some(plane) = facts.control_planes.get_mut(name) {
        plane.clusters.extend(selected);
    } else if let Some(plane) = facts.kuma.get_mut(name) {
        plane.clusters.extend(selected);
    }
}

/// The clusters of the caller's account and Region, and of each declared one, with the first failure.
async fn list_clusters(accounts: &SdkAccounts) -> (Vec<ClusterArn>, Option<AwsError>) {
    let mut lists = vec![all_pages(|next| accounts.list_clusters(next)).await];
    for place in accounts.members() {
        lists.push(all_pages(|next| accounts.list_clusters_in(&place, next)).await);
    }
    let (mut all, mut failure) = (Vec::new(), None);
    for list in lists {
        match list {
            Ok(clusters) => all.extend(clusters),
            Err(error) => drop(failure.get_or_insert(error)),
        }
    }
    (all, failure)
}

async fn all_pages<F: Future<Output = Result<ListPage<ClusterArn>, AwsError>>>(
    list: impl Fn(Option<String>) -> F,
) -> Result<Vec<ClusterArn>, AwsError> {
    let (mut all, mut next) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page = retry_throttled(|| list(next.clone())).await?;
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
async fn running_tasks(accounts: &SdkAccounts, cluster: &ClusterArn) -> Result<Vec<Task>, AwsError> {
    let (mut ids, mut next): (Vec<TaskId>, _) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page =
            retry_throttled(|| accounts.list_tasks(cluster, DesiredStatus::Running, next.clone())).await?;
        ids.extend(page.items.iter().map(TaskArn::id).cloned());
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    let mut tasks = Vec::new();
    for batch in ids.chunks(MAX_TASKS_PER_CALL) {
        let described = retry_throttled(|| accounts.describe_tasks(cluster, batch)).await?;
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

/// Records the task's definition if the manifests bind the task, or its cluster was requested.
fn record_use(scope: &AuditScope<'_>, facts: &mut AuditFacts, uses: &mut Uses, task: &Task) {
    let bindings = |kind| intent::bindings(scope.set, kind, task);
    let workloads = |binding: &Binding| -> Vec<Arc<str>> {
        intent::workloads(scope.set, &binding.name, task).cloned().collect()
    };
    let kuma: BTreeMap<Arc<str>, Vec<Arc<str>>> = bindings(ControlPlaneType::Kuma)
        .map(|binding| (Arc::clone(&binding.name), workloads(binding)))
        .collect();
    let mut bound = BTreeSet::new();
    for binding in bindings(ControlPlaneType::Consul) {
        facts.workloads_in_use.extend(workloads(binding));
        let plane = facts.control_planes.get_key_value(binding.spec.control_plane.as_str());
        bound.extend(plane.map(|(name, _)| Arc::clone(name)));
    }
    facts.workloads_in_use.extend(kuma.values().flatten().cloned());
    let is_named = scope.named.contains(task.arn.cluster());
    if bound.is_empty() && kuma.is_empty() && !is_named {
        return;
    }
    let (uses, planes) = uses.entry(task.definition.clone()).or_default();
    let is_unbound = bound.is_empty() && is_named;
    planes.extend(if is_unbound { facts.control_planes.keys().cloned().collect() } else { bound });
    uses.insert(DefinitionUse {
        cluster: task.arn.cluster().clone(),
        service: task.group.service().map(Arc::from),
        role: task.role_override.clone(),
        tags: task.tags.as_deref().cloned().unwrap_or_default(),
        kuma,
    });
}

async fn roles(accounts: &SdkAccounts, facts: &mut AuditFacts) {
    let roles: BTreeSet<_> = facts.definitions.iter().flat_map(AuditedDefinition::roles).collect();
    // The simulator's quota is small, and only a login to Consul needs iam:GetRole.
    let consul = facts.definitions.iter().filter(|definition| is_of_consul(definition));
    let log_in: BTreeSet<_> = consul.flat_map(AuditedDefinition::roles).collect();
    for role in roles {
        let tags = retry_throttled(|| accounts.role_tags(&role)).await;
        let get_role = if log_in.contains(&role) {
            Some(retry_throttled(|| accounts.may_get_own_role(&role)).await)
        } else {
            None
        };
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
