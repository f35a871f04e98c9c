//! Reads from AWS. Never receives messages, since the operator would miss them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::hosts::try_hosts;
use crate::catalogue;
use crate::facts::{Attributes, AwsFacts, AwsObservations, MemberFacts, QueueFacts, ReadAttempt, RuleFacts};
use crate::scope::{DoctorScope, TokenStoreScope, iam_region, named_clusters};
use ecs_mesh_api::manifests::{Binding, ManifestSet};
use ecs_mesh_api::{ControlPlaneType, TokenStoreKind};
use ecs_mesh_audit::{check_sidecars, member_accounts};
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind, ClusterStatus, Ecs as _, Iam as _, MemberAccounts as _};
use ecs_mesh_aws::sdk::{AwsClients, SdkAccounts};
use ecs_mesh_aws::token_store::TokenStore;
use ecs_mesh_kuma::OPERATOR_LABEL;
use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::{
    AccountRegion, ClusterArn, ContainerInstanceArn, DesiredStatus, OperatorId, RoleArn, Task, TaskArn,
    TaskDefinitionArn, TaskHost, TaskId,
};
use tokio::time::Instant;

/// Limit of checked clusters; more than that are usually selected by a pattern, with one permission for all.
const MAX_CLUSTERS: usize = 20;
/// Limit of described tasks of a cluster.
const MAX_TASKS: usize = 20;
/// Limit of read definitions of tasks with and of tasks without a network interface, and of roles.
const MAX_ROLES: usize = 10;
/// The time for the definitions of running tasks, of which there may be hundreds.
const SIDECAR_READS: Duration = Duration::from_secs(30);
/// Limit of pages of the cluster list.
const MAX_PAGES: usize = 10;
/// A service that does not exist.
const NO_SERVICE: &str = "ecs-mesh-operator-doctor";
/// A task id that does not exist.
const NO_TASK: &str = "00000000000000000000000000000000";

pub(super) async fn ask(
    clients: &AwsClients,
    manifests: &ManifestStatus,
    queue_url: Option<&str>,
    scope: Option<&DoctorScope>,
    operator: &OperatorId,
) -> AwsFacts {
    let (credentials, caller) = tokio::join!(clients.setup.credentials(), clients.setup.caller());
    // With rejected credentials every further call fails after the same wait.
    let is_known = !matches!(&caller, Err(error) if error.kind == AwsErrorKind::Credentials);
    let observations = if is_known {
        Some(Box::pin(observe(clients, manifests, queue_url, scope, operator)).await)
    } else {
        None
    };
    AwsFacts { region: clients.region().to_owned(), credentials, caller, observations }
}

async fn observe(
    clients: &AwsClients,
    manifests: &ManifestStatus,
    url: Option<&str>,
    scope: Option<&DoctorScope>,
    operator: &OperatorId,
) -> AwsObservations {
    let of_queue = async {
        match (url, scope) {
            (Some(url), Some(scope)) => queue_and_rules(clients, url, scope).await,
            _ => AwsObservations::default(),
        }
    };
    let accounts = SdkAccounts::new(clients.clone(), operator.as_str());
    accounts.set_members(member_accounts(&manifests.set));
    let (observations, (mut reads, members)) =
        tokio::join!(of_queue, reads_of_all(&accounts, &manifests.set));
    for store in scope.map(|scope| &scope.token_stores).into_iter().flatten() {
        try_token_store(clients, store, &mut reads).await;
    }
    // Where ECS does not answer, each further call waits in vain.
    let answers = !reads.iter().any(is_unavailable);
    let is_kuma = |binding: &Binding| binding.control_plane_type == ControlPlaneType::Kuma;
    let sidecars = if answers && manifests.set.bindings.values().any(|binding| is_kuma(binding)) {
        Some(check_sidecars(clients, manifests, Instant::now() + SIDECAR_READS).await)
    } else {
        None
    };
    let former_tokens = match scope {
        Some(scope) if answers => former_tokens(clients, scope, operator).await,
        _ => BTreeMap::new(),
    };
    AwsObservations { reads, members, former_tokens, sidecars, ..observations }
}

/// The queue, its rules, and the targets' dead-letter queues.
pub(super) async fn queue_and_rules(clients: &AwsClients, url: &str, scope: &DoctorScope) -> AwsObservations {
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
    AwsObservations { queue, rules: Some(rules), forwarding, undelivered, ..AwsObservations::default() }
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

/// A dead-letter queue is in the account and Region of its queue, so only the name in the URL differs.
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
    let mut rules = Vec::new();
    for name in clients.setup.list_rules_of_target(region, target).await? {
        let (rule, targets) =
            tokio::join!(clients.setup.rule(region, &name), clients.setup.targets(region, &name));
        let targets = targets.map(|all| all.into_iter().filter(|one| one.arn == target).collect());
        rules.push(RuleFacts { name, rule, targets });
    }
    Ok(rules)
}

/// Attempts every read call of the operator, in its own account and in each that is declared. One that does not answer, or
/// whose role cannot be assumed, is left out of the rest.
async fn reads_of_all(accounts: &SdkAccounts, set: &ManifestSet) -> (Vec<ReadAttempt>, Vec<MemberFacts>) {
    let declared = accounts.members();
    let named = set.bindings.values().flat_map(|binding| named_clusters(&binding.spec.selector.clusters));
    let undeclared = |place: &AccountRegion| declared.iter().all(|other| other.account != place.account);
    let mut own: BTreeSet<AccountRegion> =
        named.map(|cluster| AccountRegion::of(&cluster)).filter(undeclared).collect();
    let caller = accounts.own();
    own.retain(|place| *place.region != *caller.region());
    let is_own = |cluster: &ClusterArn| undeclared(&AccountRegion::of(cluster));
    let mut all = reads(caller, set, &is_own).await;
    let (mut members, mut reads_elsewhere) = (Vec::new(), Vec::new());
    for place in own {
        if let Ok(clients) = accounts.clients(&place).await {
            reads_elsewhere.extend(reads(&clients, set, &is_own).await);
        }
    }
    for place in declared {
        let clients = accounts.clients(&place).await;
        let identity = match &clients {
            Ok(clients) => clients.setup.caller().await,
            Err(error) => Err(error.clone()),
        };
        if let (Ok(clients), Ok(_)) = (&clients, &identity) {
            let is_there = |cluster: &ClusterArn| *cluster.account() == *place.account;
            reads_elsewhere.extend(reads(clients, set, &is_there).await);
        }
        members.push(MemberFacts { place, identity });
    }
    all.extend(reads_elsewhere);
    (all, members)
}

/// Attempts every read call of the operator on the clusters of one account and Region.
async fn reads(
    clients: &AwsClients,
    set: &ManifestSet,
    is_there: &dyn Fn(&ClusterArn) -> bool,
) -> Vec<ReadAttempt> {
    let mut reads = Vec::new();
    let mut found = DescribedFacts::default();
    for cluster in clusters(clients, set, is_there, &mut reads).await.iter().take(MAX_CLUSTERS) {
        try_cluster(clients, cluster, &mut reads, &mut found).await;
        if reads.last().is_some_and(is_unavailable) {
            return reads;
        }
        if set.bindings.values().any(|b| b.spec.deployments.hold && b.selects_cluster(cluster)) {
            try_deployments(clients, cluster, &mut reads).await;
        }
    }
    if found.definitions.is_empty() {
        try_no_definition(clients, set, is_there, &mut reads).await;
    }
    try_definitions(clients, &mut found, &mut reads).await;
    reads.extend(try_hosts(&clients.ecs, &clients.ec2, clients.region(), &found.hosts()).await);
    for role in found.roles.iter().take(MAX_ROLES) {
        let outcome = clients.iam.role_tags(role).await;
        let outcome = outcome.map(|tags| format!("{} tags were read", tags.len()));
        reads.push(ReadAttempt { id: catalogue::GET_ROLE, subject: role.to_string(), outcome });
        if reads.last().is_some_and(is_unavailable) {
            break;
        }
    }
    reads
}

/// Whether the endpoint did not answer; further calls would wait again.
fn is_unavailable(read: &ReadAttempt) -> bool {
    matches!(&read.outcome, Err(error) if error.kind == AwsErrorKind::Unavailable)
}

/// The bound clusters of this Region, including those that patterns select.
async fn clusters(
    clients: &AwsClients,
    set: &ManifestSet,
    is_there: &dyn Fn(&ClusterArn) -> bool,
    reads: &mut Vec<ReadAttempt>,
) -> BTreeSet<ClusterArn> {
    let globs: BTreeSet<_> = set.bindings.values().flat_map(|b| &b.spec.selector.clusters).collect();
    let mut clusters_found: BTreeSet<ClusterArn> = globs
        .iter()
        .filter(|glob| glob.is_literal())
        .filter_map(|glob| ClusterArn::parse(glob.as_str()).ok())
        .collect();
    if globs.iter().any(|glob| !glob.is_literal()) {
        let outcome = listed_clusters(clients).await.map(|all| {
            let count = all.len();
            let selected: Vec<_> =
                all.into_iter().filter(|c| globs.iter().any(|glob| glob.matches(c.as_str()))).collect();
            let text = format!("{} of {count} clusters are selected", selected.len());
            clusters_found.extend(selected);
            text
        });
        reads.push(ReadAttempt {
            id: catalogue::LIST_CLUSTERS,
            subject: clients.region().to_owned(),
            outcome,
        });
    }
    // Those that the caller cannot read at all are reported by `aws.scope`.
    clusters_found.retain(|cluster| cluster.region() == clients.region() && is_there(cluster));
    clusters_found
}

async fn listed_clusters(clients: &AwsClients) -> Result<Vec<ClusterArn>, AwsError> {
    let (mut all, mut next) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page = clients.ecs.list_clusters(next).await?;
        all.extend(page.items);
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    Ok(all)
}

/// The facts that described tasks refer to.
#[derive(Default)]
struct DescribedFacts {
    definitions: BTreeSet<TaskDefinitionArn>,
    /// Those of them with network mode `host`.
    host_definitions: BTreeSet<TaskDefinitionArn>,
    roles: BTreeSet<RoleArn>,
    /// Tasks on a container instance without an interface of their own: in network mode `host`, `bridge` or `none`.
    without_interface: BTreeSet<(ClusterArn, TaskDefinitionArn, ContainerInstanceArn)>,
}

impl DescribedFacts {
    fn add(&mut self, task: &Task) {
        self.definitions.insert(task.definition.clone());
        self.roles.extend(task.role_override.clone());
        if let TaskHost::ContainerInstance(instance) = &task.host
            && task.addresses.is_empty()
        {
            let cluster = task.arn.cluster().clone();
            self.without_interface.insert((cluster, task.definition.clone(), instance.clone()));
        }
    }

    /// The definitions to read, each of them of its kind up to the limit: those that may have network mode `host`, and
    /// others.
    fn read_definitions(&self) -> BTreeSet<TaskDefinitionArn> {
        let hosts = self.without_interface.iter().map(|(_, definition, _)| definition);
        let hosts: BTreeSet<_> = hosts.cloned().collect();
        let others = self.definitions.difference(&hosts).take(MAX_ROLES).cloned();
        hosts.iter().take(MAX_ROLES).cloned().chain(others).collect()
    }

    /// A container instance of each cluster with a task in network mode `host`.
    fn hosts(&self) -> BTreeMap<ClusterArn, ContainerInstanceArn> {
        let all = self.without_interface.iter();
        let hosts = all.filter(|(_, definition, _)| self.host_definitions.contains(definition));
        hosts.map(|(cluster, _, instance)| (cluster.clone(), instance.clone())).collect()
    }
}

async fn try_cluster(
    clients: &AwsClients,
    cluster: &ClusterArn,
    reads: &mut Vec<ReadAttempt>,
    found: &mut DescribedFacts,
) {
    let mut tasks: Vec<TaskId> = Vec::new();
    let mut outcome = Ok(Vec::new());
    for desired in [DesiredStatus::Running, DesiredStatus::Stopped] {
        match clients.ecs.list_tasks(cluster, desired, None).await {
            Ok(page) => {
                let more = if page.next.is_some() { " and more" } else { "" };
                if let Ok(counts) = &mut outcome {
                    let (count, desired) = (page.items.len(), desired.as_str());
                    counts.push(format!("{count} tasks{more} with desired status {desired}"));
                }
                tasks.extend(page.items.iter().map(TaskArn::id).cloned());
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
    tasks.truncate(MAX_TASKS);
    if tasks.is_empty() {
        // Any answer shows that the call is allowed.
        tasks.extend(TaskId::parse(NO_TASK));
    }
    let outcome = clients.ecs.describe_tasks(cluster, &tasks).await.map(|described| {
        for task in &described.tasks {
            found.add(task);
        }
        format!("{} tasks described", described.tasks.len())
    });
    reads.push(ReadAttempt { id: catalogue::DESCRIBE_TASKS, subject: cluster.to_string(), outcome });
    if reads.last().is_some_and(is_unavailable) {
        return;
    }
    let outcome = clients.ecs.describe_cluster(cluster).await.map(|status| {
        let text = match status {
            ClusterStatus::Exists => "the cluster exists",
            ClusterStatus::Inactive => "the cluster was deleted",
            ClusterStatus::Missing => "ECS does not find the cluster",
        };
        text.to_owned()
    });
    reads.push(ReadAttempt { id: catalogue::DESCRIBE_CLUSTERS, subject: cluster.to_string(), outcome });
}

/// Any answer shows that the calls are allowed. The write is not attempted.
async fn try_deployments(clients: &AwsClients, cluster: &ClusterArn, reads: &mut Vec<ReadAttempt>) {
    let subject = cluster.to_string();
    let allowed = "the call is allowed".to_owned();
    let services = clients.ecs.describe_services(cluster, &[NO_SERVICE.to_owned()]).await;
    let outcome = services.map(|_| allowed.clone());
    reads.push(ReadAttempt { id: catalogue::DESCRIBE_SERVICES, subject: subject.clone(), outcome });
    let Ok(task) = TaskId::parse(NO_TASK) else { return };
    let outcome = clients.ecs.task_protection(cluster, &[task]).await.map(|_| allowed);
    reads.push(ReadAttempt { id: catalogue::READ_PROTECTION, subject, outcome });
}

/// Without running tasks, the answer about a missing definition shows whether the call is allowed.
async fn try_no_definition(
    clients: &AwsClients,
    set: &ManifestSet,
    is_there: &dyn Fn(&ClusterArn) -> bool,
    reads: &mut Vec<ReadAttempt>,
) {
    let globs = set.bindings.values().flat_map(|b| &b.spec.selector.clusters);
    let mut named = globs.filter_map(|glob| ClusterArn::parse(glob.as_str()).ok());
    let Some(cluster) = named.find(|cluster| is_there(cluster)) else { return };
    let (partition, region, account) = (cluster.partition(), clients.region(), cluster.account());
    let text = format!("arn:{partition}:ecs:{region}:{account}:task-definition/ecs-mesh-operator-doctor:1");
    let Ok(arn) = TaskDefinitionArn::parse(&text) else { return };
    let outcome = match clients.ecs.describe_task_definition(&arn).await {
        Err(error) if matches!(error.kind, AwsErrorKind::Invalid | AwsErrorKind::NotFound) => {
            Ok("the call is allowed; no running task has a definition to read".to_owned())
        }
        other => other.map(|_| "the call is allowed".to_owned()),
    };
    reads.push(ReadAttempt {
        id: catalogue::DESCRIBE_DEFINITIONS,
        subject: clients.region().to_owned(),
        outcome,
    });
}

async fn try_definitions(clients: &AwsClients, found: &mut DescribedFacts, reads: &mut Vec<ReadAttempt>) {
    for arn in found.read_definitions() {
        let outcome = clients.ecs.describe_task_definition(&arn).await.map(|definition| {
            let text =
                if definition.task_role.is_some() { "it has a task role" } else { "it has no task role" };
            if definition.network_mode.as_deref() == Some("host") {
                found.host_definitions.insert(arn.clone());
            }
            found.roles.extend(definition.task_role);
            text.to_owned()
        });
        reads.push(ReadAttempt { id: catalogue::DESCRIBE_DEFINITIONS, subject: arn.to_string(), outcome });
    }
}

/// Any answer shows that the calls are allowed. The writes are not attempted.
async fn try_token_store(clients: &AwsClients, scope: &TokenStoreScope, reads: &mut Vec<ReadAttempt>) {
    let store: &dyn TokenStore = match scope.kind {
        TokenStoreKind::SecretsManager => &clients.secret_store,
        TokenStoreKind::ParameterStore => &clients.parameter_store,
    };
    let subject = format!("{} {}", scope.kind.as_str(), scope.path);
    let listed = store.list(&scope.path, None).await;
    let outcome = listed.map(|page| {
        let or_more = if page.next.is_some() { " or more" } else { "" };
        format!("{}{or_more} names below the path", page.names.len())
    });
    reads.push(ReadAttempt { id: catalogue::LIST_TOKENS, subject: subject.clone(), outcome });
    if reads.last().is_some_and(is_unavailable) {
        return;
    }
    let name = format!("{}/{}/{NO_SERVICE}", scope.path, scope.mesh);
    let outcome = store.describe(&name).await.map(|_| "the call is allowed".to_owned());
    reads.push(ReadAttempt { id: catalogue::READ_TOKEN_TAGS, subject, outcome });
}

/// Stored tokens below no path of the manifests: those from before a change of `tokens.path` or `tokens.store`. A store that
/// no binding has may be forbidden.
async fn former_tokens(
    clients: &AwsClients,
    scope: &DoctorScope,
    operator: &OperatorId,
) -> BTreeMap<TokenStoreKind, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    if scope.token_stores.is_empty() {
        return found;
    }
    let stores: [(TokenStoreKind, &dyn TokenStore); 2] = [
        (TokenStoreKind::SecretsManager, &clients.secret_store),
        (TokenStoreKind::ParameterStore, &clients.parameter_store),
    ];
    for (kind, store) in stores {
        let mut next = None;
        for _ in 0..MAX_PAGES {
            // The tag has the name of the label.
            let page = store.list_tagged(OPERATOR_LABEL, operator.as_str(), next).await;
            let Ok(page) = page else { break };
            let former = page.names.into_iter().filter(|name| !scope.stores_token(kind, name));
            found.entry(kind).or_insert_with(BTreeSet::new).extend(former);
            next = page.next;
            if next.is_none() {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use ecs_mesh_aws::fakes::{cluster, definition_arn, instance_arn, task};
    use ecs_mesh_model::{InterfaceAddresses, LastStatus};

    use super::*;

    #[test]
    fn definitions_without_interface_are_read_first() {
        let mut found = DescribedFacts::default();
        for n in 1..=MAX_ROLES + 5 {
            let definition = definition_arn(n);
            let addresses = InterfaceAddresses::new(Some("10.0.0.9".parse().unwrap()), None).unwrap();
            found.add(&Task { definition, addresses, ..task(n, LastStatus::Running) });
        }
        let (definition, host) = (definition_arn(99), TaskHost::ContainerInstance(instance_arn(1)));
        found.add(&Task { definition: definition.clone(), host, ..task(99, LastStatus::Running) });
        assert_eq!(found.read_definitions().len(), MAX_ROLES + 1);
        assert!(found.read_definitions().contains(&definition));
        assert!(found.hosts().is_empty());
        found.host_definitions.insert(definition);
        assert_eq!(found.hosts(), [(cluster(), instance_arn(1))].into());
    }
}
