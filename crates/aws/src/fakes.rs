//! Fakes of AWS for tests: they return preset responses and record calls.

#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::must_use_candidate,
    reason = "tests alone"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::aws::{
    AwsError, AwsErrorKind, ClusterStatus, DescribeContainerInstancesOutput, DescribeServicesOutput,
    DescribeTasksOutput, Ec2, Ecs, Iam, ListPage, TaskProtectionOutput,
};
use super::token_store::{EntryDescription, EntryPage, EntryTags, NewEntry, TokenStore};
use ecs_mesh_clock::Clock;
use ecs_mesh_controller::TokenBucket;
use ecs_mesh_model::{
    ClusterArn, ContainerInstanceArn, DesiredStatus, InterfaceAddresses, LastStatus, RoleArn,
    SidecarDataplane, Tags, Task, TaskArn, TaskContainer, TaskDefinition, TaskDefinitionArn, TaskGroup,
    TaskHost, TaskId, Timestamp,
};

/// Duration of each call of a fake.
pub const CALL: Duration = Duration::from_secs(1);

pub fn error(kind: AwsErrorKind) -> AwsError {
    AwsError {
        kind,
        operation: "aws:Call",
        resource: "it".to_owned(),
        code: "Code".to_owned(),
        message: "for a reason".to_owned(),
        hint: "",
    }
}

pub fn clock() -> Clock {
    Clock::simulated(Timestamp(1_000_000_000))
}

/// Never empty.
pub fn bucket() -> TokenBucket {
    TokenBucket::new(1_000.0, 1_000)
}

pub fn cluster() -> ClusterArn {
    ClusterArn::parse("arn:aws:ecs:eu-west-1:111122223333:cluster/c").unwrap()
}

pub fn task_arn(n: usize) -> TaskArn {
    cluster().task(TaskId::parse(&n.to_string()).unwrap())
}

pub fn definition_arn(revision: usize) -> TaskDefinitionArn {
    let arn = format!("arn:aws:ecs:eu-west-1:111122223333:task-definition/kv:{revision}");
    TaskDefinitionArn::parse(&arn).unwrap()
}

pub fn task(n: usize, last_status: LastStatus) -> Task {
    let leaving = last_status > LastStatus::Running;
    Task {
        arn: task_arn(n),
        version: 5,
        last_status,
        desired_status: if leaving { DesiredStatus::Stopped } else { DesiredStatus::Running },
        group: TaskGroup::parse("service:kv"),
        definition: definition_arn(1),
        role_override: None,
        addresses: InterfaceAddresses::NONE,
        host: TaskHost::None,
        deployment: None,
        created_at: None,
        tags: None,
        stopped_containers: Box::default(),
    }
}

/// The container instance whose EC2 instance is `i-N`.
pub fn instance_arn(n: usize) -> ContainerInstanceArn {
    let arn = format!("arn:aws:ecs:eu-west-1:111122223333:container-instance/c/i-{n}");
    ContainerInstanceArn::parse(&arn).unwrap()
}

/// An EC2 with some instances.
#[derive(Default)]
pub struct FakeEc2 {
    addresses: Mutex<BTreeMap<String, InterfaceAddresses>>,
    calls: Mutex<usize>,
    pub fails: Mutex<Option<AwsErrorKind>>,
}

impl FakeEc2 {
    /// Gives an instance this IPv4 address.
    pub fn set(&self, n: usize, v4: &str) {
        let addresses = InterfaceAddresses::new(Some(v4.parse().unwrap()), None).unwrap();
        self.addresses.lock().unwrap().insert(format!("i-{n}"), addresses);
    }

    /// Gives an instance these addresses.
    pub fn set_dual_stack(&self, n: usize, v4: &str, v6: &str) {
        let addresses =
            InterfaceAddresses::new(Some(v4.parse().unwrap()), Some(v6.parse().unwrap())).unwrap();
        self.addresses.lock().unwrap().insert(format!("i-{n}"), addresses);
    }

    pub fn forget(&self, n: usize) {
        self.addresses.lock().unwrap().remove(&format!("i-{n}"));
    }

    pub fn calls(&self) -> usize {
        *self.calls.lock().unwrap()
    }
}

#[async_trait]
impl Ec2 for FakeEc2 {
    async fn instance_addresses(
        &self,
        ids: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, InterfaceAddresses>, AwsError> {
        *self.calls.lock().unwrap() += 1;
        tokio::time::sleep(CALL).await;
        if let Some(kind) = *self.fails.lock().unwrap() {
            return Err(error(kind));
        }
        let all = self.addresses.lock().unwrap();
        Ok(ids.iter().filter_map(|id| Some((id.clone(), *all.get(id)?))).collect())
    }
}

/// The response for a role.
pub type RoleResponse = Result<Tags, AwsErrorKind>;

/// An IAM with one role.
pub struct FakeIam {
    response: Mutex<RoleResponse>,
    calls: Mutex<usize>,
}

impl FakeIam {
    pub fn returning(response: RoleResponse) -> Arc<Self> {
        Arc::new(Self { response: Mutex::new(response), calls: Mutex::default() })
    }

    pub fn set_response(&self, response: RoleResponse) {
        *self.response.lock().unwrap() = response;
    }

    pub fn calls(&self) -> usize {
        *self.calls.lock().unwrap()
    }
}

#[async_trait]
impl Iam for FakeIam {
    async fn role_tags(&self, _: &RoleArn) -> Result<Tags, AwsError> {
        *self.calls.lock().unwrap() += 1;
        let response = self.response.lock().unwrap().clone();
        tokio::time::sleep(CALL).await;
        response.map_err(error)
    }
}

/// An ECS with some tasks, per-task failures, optional failures of whole calls, and every task definition.
#[derive(Default)]
pub struct FakeEcs {
    pub tasks: Mutex<BTreeMap<TaskId, Task>>,
    pub failing: Mutex<Vec<TaskId>>,
    /// That of every task definition.
    pub network_mode: Mutex<Option<String>>,
    /// How the sidecars of task definitions get their Dataplane.
    pub sidecars: Mutex<BTreeMap<TaskDefinitionArn, SidecarDataplane>>,
    pub missing_instances: Mutex<Vec<ContainerInstanceArn>>,
    /// Calls of DescribeContainerInstances.
    pub instance_reads: Mutex<usize>,
    /// Tasks omitted from responses.
    pub unanswered: Mutex<Vec<TaskId>>,
    pub fails: Mutex<Option<AwsErrorKind>>,
    /// The ids of each DescribeTasks.
    pub described: Mutex<Vec<Vec<String>>>,
    pub definitions_read: Mutex<Vec<TaskDefinitionArn>>,
    /// Failure of each DescribeTaskDefinition.
    pub definition_fails: Mutex<Option<AwsErrorKind>>,
    /// A list fails after this many pages, each with a next token.
    pub list_ends_after: Mutex<Option<usize>>,
    /// The answer of `DescribeClusters`, and the kind of the failure of calls on a cluster; `None` for a cluster that exists.
    pub deleted: Mutex<Option<(ClusterStatus, AwsErrorKind)>>,
    /// Whether lists of tasks get no answer.
    pub lists_hang: Mutex<bool>,
    /// Whether lists panic.
    pub panics: bool,
}

#[async_trait]
impl Ecs for FakeEcs {
    async fn list_clusters(&self, _: Option<String>) -> Result<ListPage<ClusterArn>, AwsError> {
        assert!(!self.panics, "as the test wants it");
        let clusters: BTreeSet<ClusterArn> =
            self.tasks.lock().unwrap().values().map(|task| task.arn.cluster().clone()).collect();
        Ok(ListPage { items: clusters.into_iter().collect(), skipped: Vec::new(), next: None })
    }

    async fn describe_cluster(&self, _: &ClusterArn) -> Result<ClusterStatus, AwsError> {
        Ok(self.deleted.lock().unwrap().map_or(ClusterStatus::Exists, |(status, _)| status))
    }

    async fn list_tasks(
        &self,
        cluster: &ClusterArn,
        desired: DesiredStatus,
        page: Option<String>,
    ) -> Result<ListPage<TaskArn>, AwsError> {
        if let Some((_, kind)) = *self.deleted.lock().unwrap() {
            return Err(error(kind));
        }
        if *self.lists_hang.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        let read = page.map_or(0, |page| page.len());
        let ends_after = *self.list_ends_after.lock().unwrap();
        if ends_after.is_some_and(|pages| read >= pages) {
            return Err(error(AwsErrorKind::Unavailable));
        }
        let next = ends_after.map(|_| "n".repeat(read + 1));
        let tasks = self.tasks.lock().unwrap();
        let listed =
            tasks.values().filter(|task| task.arn.cluster() == cluster && task.desired_status == desired);
        Ok(ListPage { items: listed.map(|task| task.arn.clone()).collect(), skipped: Vec::new(), next })
    }

    async fn describe_tasks(&self, _: &ClusterArn, ids: &[TaskId]) -> Result<DescribeTasksOutput, AwsError> {
        self.described.lock().unwrap().push(ids.iter().map(ToString::to_string).collect());
        tokio::time::sleep(CALL).await;
        if let Some(kind) = *self.fails.lock().unwrap() {
            return Err(error(kind));
        }
        if let Some((_, kind)) = *self.deleted.lock().unwrap() {
            return Err(error(kind));
        }
        let mut said = DescribeTasksOutput::default();
        for id in ids {
            if self.unanswered.lock().unwrap().contains(id) {
                continue;
            }
            match self.tasks.lock().unwrap().get(id) {
                _ if self.failing.lock().unwrap().contains(id) => {
                    said.failed.push((id.clone(), "its agent is away".to_owned()));
                }
                Some(task) => said.tasks.push(task.clone()),
                None => said.missing.push(id.clone()),
            }
        }
        Ok(said)
    }

    async fn describe_task_definition(&self, arn: &TaskDefinitionArn) -> Result<TaskDefinition, AwsError> {
        self.definitions_read.lock().unwrap().push(arn.clone());
        tokio::time::sleep(CALL).await;
        if let Some(kind) = self.fails.lock().unwrap().or(*self.definition_fails.lock().unwrap()) {
            return Err(error(kind));
        }
        let network_mode = self.network_mode.lock().unwrap().clone();
        let sidecar = TaskContainer {
            name: "kuma-dp".to_owned(),
            ports: vec![15000],
            sidecar_dataplane: self.sidecars.lock().unwrap().get(arn).copied(),
            ..TaskContainer::default()
        };
        Ok(TaskDefinition { arn: arn.clone(), task_role: None, network_mode, containers: vec![sidecar] })
    }

    async fn describe_services(
        &self,
        _: &ClusterArn,
        names: &[String],
    ) -> Result<DescribeServicesOutput, AwsError> {
        Ok(DescribeServicesOutput {
            missing: names.iter().cloned().collect(),
            ..DescribeServicesOutput::default()
        })
    }

    async fn describe_container_instances(
        &self,
        _: &ClusterArn,
        instances: &[ContainerInstanceArn],
    ) -> Result<DescribeContainerInstancesOutput, AwsError> {
        *self.instance_reads.lock().unwrap() += 1;
        if let Some(kind) = *self.fails.lock().unwrap() {
            return Err(error(kind));
        }
        let missing = self.missing_instances.lock().unwrap();
        let mut described = DescribeContainerInstancesOutput::default();
        for instance in instances {
            if missing.contains(instance) {
                described.failed.insert(instance.clone(), "MISSING".to_owned());
            } else {
                let id = instance.as_str().rsplit('/').next().unwrap();
                described.ec2_ids.insert(instance.clone(), id.to_owned());
            }
        }
        Ok(described)
    }

    async fn task_protection(
        &self,
        _: &ClusterArn,
        ids: &[TaskId],
    ) -> Result<TaskProtectionOutput, AwsError> {
        Ok(TaskProtectionOutput {
            tasks: ids.iter().map(|id| (id.clone(), None)).collect(),
            ..TaskProtectionOutput::default()
        })
    }

    async fn update_task_protection(
        &self,
        cluster: &ClusterArn,
        ids: &[TaskId],
        _: Option<u16>,
    ) -> Result<TaskProtectionOutput, AwsError> {
        self.task_protection(cluster, ids).await
    }
}

/// Names in a page of [`FakeTokenStore`].
const PAGE: usize = 50;

/// Tokens in memory.
#[derive(Default)]
pub struct FakeTokenStore {
    /// By name: the tags, and the text.
    pub entries: Mutex<BTreeMap<String, (EntryTags, String)>>,
    /// The names that are scheduled for deletion.
    pub deleting: Mutex<BTreeSet<String>>,
    /// The writes so far: the operation, and the name.
    pub writes: Mutex<Vec<(&'static str, String)>>,
    /// The operations that fail.
    pub failing: Mutex<BTreeSet<&'static str>>,
    /// How many of the next calls are throttled.
    pub throttled: Mutex<usize>,
}

impl FakeTokenStore {
    fn check(&self, operation: &'static str) -> Result<(), AwsError> {
        let mut throttled = self.throttled.lock().unwrap();
        if *throttled > 0 {
            *throttled -= 1;
            return Err(error(AwsErrorKind::Throttled));
        }
        let is_failing = self.failing.lock().unwrap().contains(operation);
        if is_failing { Err(error(AwsErrorKind::Denied)) } else { Ok(()) }
    }

    fn write<R>(
        &self,
        operation: &'static str,
        name: &str,
        work: impl FnOnce(&mut BTreeMap<String, (EntryTags, String)>) -> R,
    ) -> Result<R, AwsError> {
        self.check(operation)?;
        self.writes.lock().unwrap().push((operation, name.to_owned()));
        Ok(work(&mut self.entries.lock().unwrap()))
    }
}

#[async_trait]
impl TokenStore for FakeTokenStore {
    async fn list(&self, path: &str, next: Option<String>) -> Result<EntryPage, AwsError> {
        self.check("list")?;
        let prefix = format!("{path}/");
        let entries = self.entries.lock().unwrap();
        let is_next =
            |name: &&String| name.starts_with(&prefix) && next.as_ref().is_none_or(|last| *name > last);
        let names: Vec<String> = entries.keys().filter(is_next).take(PAGE).cloned().collect();
        Ok(EntryPage { next: names.get(PAGE - 1).cloned(), names })
    }

    async fn list_tagged(&self, key: &str, value: &str, _: Option<String>) -> Result<EntryPage, AwsError> {
        let entries = self.entries.lock().unwrap();
        let tagged = entries.iter().filter(|(_, (tags, _))| tags.get(key).is_some_and(|tag| tag == value));
        Ok(EntryPage { names: tagged.map(|(name, _)| name.clone()).collect(), next: None })
    }

    async fn describe(&self, name: &str) -> Result<Option<EntryDescription>, AwsError> {
        self.check("tags")?;
        let is_deleting = self.deleting.lock().unwrap().contains(name);
        let entries = self.entries.lock().unwrap();
        Ok(entries.get(name).map(|(tags, _)| EntryDescription { tags: tags.clone(), is_deleting }))
    }

    async fn create(&self, entry: NewEntry<'_>) -> Result<(), AwsError> {
        self.write("create", entry.name, |entries| {
            let taken = entries.insert(entry.name.to_owned(), (entry.tags.clone(), entry.text.to_owned()));
            assert!(taken.is_none(), "{} is taken", entry.name);
        })
    }

    async fn put(&self, name: &str, _kms_key: Option<&str>, text: &str) -> Result<(), AwsError> {
        self.write("put", name, |entries| text.clone_into(&mut entries.get_mut(name).unwrap().1))
    }

    async fn set_tags(&self, name: &str, tags: &EntryTags) -> Result<(), AwsError> {
        self.write("set_tags", name, |entries| entries.get_mut(name).unwrap().0.extend(tags.clone()))
    }

    async fn remove(&self, name: &str) -> Result<(), AwsError> {
        self.write("remove", name, |entries| drop(entries.remove(name)))
    }
}
