//! AWS as the operator sees it: delayed, stale, throttled, truncated, and sometimes down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ecs_mesh_aws::aws::{
    AwsError, AwsErrorKind, ClusterStatus, DescribeContainerInstancesOutput, DescribeServicesOutput,
    DescribeTasksOutput, Ec2, Ecs, EventQueue, Iam, ListPage, QueueMessage, TaskProtectionOutput,
};
use ecs_mesh_model::{
    ClusterArn, ContainerInstanceArn, DesiredStatus, InterfaceAddresses, RoleArn, Tags, TaskArn,
    TaskDefinition, TaskDefinitionArn, TaskId, Timestamp,
};
use ecs_mesh_sandbox::aws::{CloudTask, ListTasks, ReceiveMessages, TaskProtections, UpdateTaskProtection};
use ecs_mesh_sandbox::world::QUEUE;
use tokio::time::{Instant, sleep};

use super::env::SimEnv;
use super::faults::SimFault;
use super::held_deployments::{STALE, shown};
use super::replicas::RunningReplica;

/// Time after its start in which a task may be missing from reads.
const NEWBORN: Duration = Duration::from_secs(10);

/// AWS, for a process of the operator: one of several replicas, or the only one.
#[derive(Clone)]
pub(super) struct SimAws {
    pub(super) env: Arc<SimEnv>,
    pub(super) replica: Option<Arc<RunningReplica>>,
}

pub(super) fn error(kind: AwsErrorKind, operation: &'static str) -> AwsError {
    AwsError {
        kind,
        operation,
        resource: "simulated".to_owned(),
        code: kind.label().to_owned(),
        message: "simulated".to_owned(),
        hint: "",
    }
}

impl SimAws {
    /// The delay and the faults of a call.
    async fn call(&self, operation: &'static str, what: &str) -> Result<Timestamp, AwsError> {
        self.resumed().await;
        sleep(self.env.faults.latency()).await;
        self.resumed().await;
        self.arrive(operation, what).await
    }

    /// The faults of a call that reaches AWS.
    async fn arrive(&self, operation: &'static str, what: &str) -> Result<Timestamp, AwsError> {
        self.env.count_call(operation);
        if let Some(RunningReplica { replica, .. }) = self.replica.as_deref() {
            replica.record_read(operation, &self.env);
        }
        let failed = self.inject().await;
        if failed.is_some() && operation == "ecs:DescribeTasks" {
            self.env.faults.count(SimFault::FailedDescribe);
        }
        let outcome = failed.map_or("success", AwsErrorKind::label);
        self.env.record(|| format!("{operation} {what} {outcome}"));
        match failed {
            Some(kind) => Err(error(kind, operation)),
            None => Ok(self.env.now()),
        }
    }

    /// Waits while the calling process hangs.
    async fn resumed(&self) {
        if let Some(RunningReplica { replica, .. }) = self.replica.as_deref() {
            replica.resumed().await;
        }
    }

    async fn inject(&self) -> Option<AwsErrorKind> {
        let faults = &self.env.faults;
        if faults.aws_is_down(self.env.now()) {
            return Some(AwsErrorKind::Unavailable);
        }
        if faults.fires(SimFault::Throttled, 0.03) {
            return Some(AwsErrorKind::Throttled);
        }
        if faults.fires(SimFault::AwsError, 0.03) {
            return Some(AwsErrorKind::Unavailable);
        }
        if faults.fires(SimFault::AwsHangs, 0.01) {
            sleep(Duration::from_secs(5)).await;
            return Some(AwsErrorKind::Unavailable);
        }
        faults.fires(SimFault::Denied, 0.005).then_some(AwsErrorKind::Denied)
    }

    /// Whether DescribeTasks reports a live task as MISSING. Tasks that a list has hidden are described until a list shows
    /// them again, since they would otherwise look like removed tasks.
    fn misses(&self, task: &CloudTask, now: Timestamp) -> bool {
        let faults = &self.env.faults;
        let may_be = faults.may_be_missing(task.id(), now);
        if !may_be || faults.hides(task.id(), now) || faults.is_unlisted(task.id()) {
            return false;
        }
        if task.created_at.age_at(now) < NEWBORN {
            return faults.fires(SimFault::MissingNewborn, 0.4);
        }
        faults.fires(SimFault::FalselyMissing, 0.1)
    }

    /// Tasks of a page: few in the harsh environment, so that lists have several pages.
    fn page(&self) -> usize {
        if self.env.counts_calls() { 100 } else { 7 }
    }
}

fn output(answer: &TaskProtections) -> TaskProtectionOutput {
    let id = |arn: &str| TaskArn::parse(arn).unwrap().id().clone();
    TaskProtectionOutput {
        tasks: answer.tasks.iter().map(|task| (id(&task.arn), task.until)).collect(),
        failed: answer.failures.iter().map(|failure| (id(&failure.arn), failure.reason.to_owned())).collect(),
    }
}

#[async_trait]
impl Ecs for SimAws {
    async fn list_clusters(&self, _page: Option<String>) -> Result<ListPage<ClusterArn>, AwsError> {
        self.call("ecs:ListClusters", "").await?;
        let (arns, next) = self.env.cloud.lock().unwrap().list_clusters(None, 100);
        let items = arns.iter().map(|arn| ClusterArn::parse(arn).unwrap()).collect();
        Ok(ListPage { items, skipped: Vec::new(), next })
    }

    async fn describe_cluster(&self, cluster: &ClusterArn) -> Result<ClusterStatus, AwsError> {
        self.call("ecs:DescribeClusters", cluster.as_str()).await?;
        let (found, _) = self.env.cloud.lock().unwrap().describe_clusters(&[cluster.to_string()]);
        Ok(match found.first().and_then(|found| found["status"].as_str()) {
            None => ClusterStatus::Missing,
            Some("INACTIVE") => ClusterStatus::Inactive,
            Some(_) => ClusterStatus::Exists,
        })
    }

    async fn list_tasks(
        &self,
        cluster: &ClusterArn,
        desired: DesiredStatus,
        page: Option<String>,
    ) -> Result<ListPage<TaskArn>, AwsError> {
        let now = self.call("ecs:ListTasks", desired.as_str()).await?;
        let faults = &self.env.faults;
        if page.is_none() && faults.lacks_tasks(SimFault::EmptyList, 0.02) {
            let all = self.env.cloud.lock().unwrap().list_tasks(&ListTasks::of(cluster.as_str(), desired));
            for arn in all.into_iter().flat_map(|all| all.arns) {
                faults.record_listed(TaskArn::parse(&arn).unwrap().id().as_str(), false);
            }
            return Ok(ListPage { items: Vec::new(), skipped: Vec::new(), next: None });
        }
        if let Some(token) =
            page.clone().or(Some(String::new())).filter(|_| faults.fires(SimFault::EmptyPage, 0.03))
        {
            // An empty page with a token: more pages follow.
            return Ok(ListPage { items: Vec::new(), skipped: Vec::new(), next: Some(token) });
        }
        let request = ListTasks {
            max_results: Some(self.page()),
            next_token: page.filter(|token| !token.is_empty()),
            ..ListTasks::of(cluster.as_str(), desired)
        };
        let stale = faults.staleness(SimFault::StaleList, 0.3, Duration::from_secs(4));
        let as_of = Timestamp(now.0 - i64::try_from(stale.as_millis()).unwrap());
        let listed = {
            let cloud = self.env.cloud.lock().unwrap();
            if stale.is_zero() { cloud.list_tasks(&request) } else { cloud.list_tasks_as_of(&request, as_of) }
        };
        let listed = listed.map_err(|_| error(AwsErrorKind::Invalid, "ecs:ListTasks"))?;
        let mut items: Vec<TaskArn> = listed.arns.iter().map(|arn| TaskArn::parse(arn).unwrap()).collect();
        let all = items.len();
        let omit = |task: &TaskArn| faults.record_listed(task.id().as_str(), false);
        items.retain(|task| {
            let hidden = faults.hides(task.id().as_str(), now);
            if hidden {
                omit(task);
            }
            !hidden
        });
        if items.len() < all {
            faults.count(SimFault::HiddenTasks);
        }
        if faults.lacks_tasks(SimFault::ShortList, 0.03) {
            let shown = faults.pick(self.page()).min(items.len());
            items.split_off(shown).iter().for_each(omit);
        }
        items.iter().for_each(|task| faults.record_listed(task.id().as_str(), true));
        self.env.between_lists();
        let skipped = faults.odd_item().map(|item| item.to_string()).into_iter().collect();
        Ok(ListPage { items, skipped, next: listed.next_token })
    }

    async fn describe_tasks(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskId],
    ) -> Result<DescribeTasksOutput, AwsError> {
        let now = self.call("ecs:DescribeTasks", &tasks.len().to_string()).await?;
        let faults = &self.env.faults;
        let stale = faults.staleness(SimFault::StaleDescribe, 0.3, Duration::from_secs(3));
        let as_of = Timestamp(now.0 - i64::try_from(stale.as_millis()).unwrap());
        let mut described = DescribeTasksOutput::default();
        let cloud = self.env.cloud.lock().unwrap();
        let of_cluster =
            ListTasks { max_results: Some(1), ..ListTasks::of(cluster.as_str(), DesiredStatus::Running) };
        if cloud.list_tasks(&of_cluster).is_err() {
            return Err(error(AwsErrorKind::Invalid, "ecs:DescribeTasks"));
        }
        for id in tasks {
            let arn = cluster.task(id.clone()).to_string();
            let found = if stale.is_zero() { cloud.task(&arn) } else { cloud.task_as_of(&arn, as_of) };
            match found {
                _ if faults.fires(SimFault::FailureInDescribe, 0.02) => {
                    described.failed.push((id.clone(), "simulated".to_owned()));
                }
                Some(task) if !task.last_status.is_stopped() && self.misses(&task, now) => {
                    described.missing.push(id.clone());
                }
                Some(task) => described.tasks.push(task.to_model().unwrap()),
                None => described.missing.push(id.clone()),
            }
        }
        self.env.record(|| {
            let shown =
                described.tasks.iter().map(|t| format!("{:.8} {} v{}", t.arn.id(), t.last_status, t.version));
            let missing = described.missing.iter().map(|id| format!("{id:.8} MISSING"));
            let failed = described.failed.iter().map(|(id, _)| format!("{id:.8} failed"));
            format!("described: {}", shown.chain(missing).chain(failed).collect::<Vec<_>>().join(", "))
        });
        Ok(described)
    }

    async fn describe_task_definition(&self, arn: &TaskDefinitionArn) -> Result<TaskDefinition, AwsError> {
        self.call("ecs:DescribeTaskDefinition", arn.as_str()).await?;
        let cloud = self.env.cloud.lock().unwrap();
        let found = cloud.describe_task_definition(arn.as_str());
        Ok(found.unwrap().to_model().unwrap())
    }

    async fn describe_services(
        &self,
        cluster: &ClusterArn,
        names: &[String],
    ) -> Result<DescribeServicesOutput, AwsError> {
        let now = self.call("ecs:DescribeServices", cluster.as_str()).await?;
        let faults = &self.env.faults;
        let stale = faults.staleness(SimFault::StaleService, 0.2, STALE);
        let as_of = Timestamp(now.0 - i64::try_from(stale.as_millis()).unwrap());
        let (cloud, holds) = (self.env.cloud.lock().unwrap(), self.env.holds.lock().unwrap());
        let mut described = DescribeServicesOutput::default();
        for name in names {
            let is_missing = faults.fires(SimFault::MissingService, 0.03);
            match holds.service(name, as_of, &cloud).filter(|_| !is_missing) {
                Some(state) => drop(described.services.insert(name.clone(), state)),
                None => drop(described.missing.insert(name.clone())),
            }
        }
        Ok(described)
    }

    async fn describe_container_instances(
        &self,
        cluster: &ClusterArn,
        instances: &[ContainerInstanceArn],
    ) -> Result<DescribeContainerInstancesOutput, AwsError> {
        self.call("ecs:DescribeContainerInstances", cluster.as_str()).await?;
        let asked: Vec<String> = instances.iter().map(ToString::to_string).collect();
        let described = self.env.cloud.lock().unwrap().describe_container_instances(cluster.as_str(), &asked);
        let not_found = |_| error(AwsErrorKind::NotFound, "ecs:DescribeContainerInstances");
        let (found, missing) = described.map_err(not_found)?;
        let arn = |text: &str| ContainerInstanceArn::parse(text).unwrap();
        let ec2_ids = found.iter().map(|one| {
            let instance = arn(one["containerInstanceArn"].as_str().unwrap());
            (instance, one["ec2InstanceId"].as_str().unwrap().to_owned())
        });
        Ok(DescribeContainerInstancesOutput {
            ec2_ids: ec2_ids.collect(),
            failed: missing.iter().map(|one| (arn(&one.arn), one.reason.to_owned())).collect(),
        })
    }

    async fn task_protection(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskId],
    ) -> Result<TaskProtectionOutput, AwsError> {
        let now = self.call("ecs:GetTaskProtection", cluster.as_str()).await?;
        let ids: Vec<&str> = tasks.iter().map(TaskId::as_str).collect();
        let mut cloud = self.env.cloud.lock().unwrap();
        cloud.step(now);
        Ok(output(&cloud.task_protection(cluster.as_str(), &ids).unwrap()))
    }

    async fn update_task_protection(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskId],
        minutes: Option<u16>,
    ) -> Result<TaskProtectionOutput, AwsError> {
        let Some(RunningReplica { replica, .. }) = self.replica.as_deref() else {
            self.env.must_hold_the_lease(&protection(minutes));
            return self.protect(cluster, tasks, minutes).await;
        };
        replica.resumed().await;
        let (aws, cluster, tasks) = (self.clone(), cluster.clone(), tasks.to_vec());
        let sent = replica.deliver(async move { aws.protect(&cluster, &tasks, minutes).await }).await;
        sent.unwrap_or_else(|| Err(error(AwsErrorKind::Unavailable, "ecs:UpdateTaskProtection")))
    }
}

/// An update of protections, for messages.
fn protection(minutes: Option<u16>) -> String {
    format!("ecs:UpdateTaskProtection for {minutes:?} minutes")
}

impl SimAws {
    /// Carries out an update of protections whose bytes are on their way.
    async fn protect(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskId],
        minutes: Option<u16>,
    ) -> Result<TaskProtectionOutput, AwsError> {
        sleep(self.env.faults.latency()).await;
        let now = self.arrive("ecs:UpdateTaskProtection", cluster.as_str()).await?;
        // A write of a replica is judged as it arrives.
        if let Some(RunningReplica { replica, .. }) = self.replica.as_deref() {
            replica.judge(&protection(minutes));
        }
        let request = UpdateTaskProtection {
            cluster: cluster.to_string(),
            tasks: tasks.iter().map(ToString::to_string).collect(),
            protection_enabled: Some(minutes.is_some()),
            expires_in_minutes: minutes.map(i64::from),
        };
        let is_lost = self.env.faults.fires(SimFault::LostProtection, 0.05);
        let answer = {
            let (mut cloud, mut holds) = (self.env.cloud.lock().unwrap(), self.env.holds.lock().unwrap());
            holds.update(&request, is_lost, &mut cloud, now)
        };
        self.env.record(|| format!("the operator protects: {}, lost {is_lost}", shown(&answer)));
        if is_lost {
            sleep(Duration::from_secs(5)).await;
            return Err(error(AwsErrorKind::Unavailable, "ecs:UpdateTaskProtection"));
        }
        Ok(output(&answer))
    }
}

#[async_trait]
impl Ec2 for SimAws {
    async fn instance_addresses(
        &self,
        ids: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, InterfaceAddresses>, AwsError> {
        self.call("ec2:DescribeInstances", "").await?;
        let ids: Vec<String> = ids.iter().cloned().collect();
        let shown = self.env.cloud.lock().unwrap().describe_instances(&ids, true);
        let instances = shown["reservationSet"].as_array().unwrap().iter().map(|one| &one["instancesSet"][0]);
        let addresses = instances.map(|one| {
            let v4 = one["privateIpAddress"].as_str().unwrap().parse().unwrap();
            let id = one["instanceId"].as_str().unwrap().to_owned();
            (id, InterfaceAddresses::new(Some(v4), None).unwrap())
        });
        Ok(addresses.collect())
    }
}

#[async_trait]
impl Iam for SimAws {
    async fn role_tags(&self, role: &RoleArn) -> Result<Tags, AwsError> {
        let now = self.call("iam:GetRole", role.name()).await?;
        let stale = self.env.faults.staleness(SimFault::StaleTags, 0.4, Duration::from_secs(6));
        let as_of = Timestamp(now.0 - i64::try_from(stale.as_millis()).unwrap());
        let tags = self.env.cloud.lock().unwrap().role_tags_as_of(role.name(), as_of);
        tags.ok_or_else(|| error(AwsErrorKind::NotFound, "iam:GetRole"))
    }
}

#[async_trait]
impl EventQueue for SimAws {
    async fn receive(&self) -> Result<Vec<QueueMessage>, AwsError> {
        if let Some(RunningReplica { replica, lease }) = self.replica.as_deref() {
            replica.record_receive(&**lease);
        }
        self.call("sqs:ReceiveMessage", "").await?;
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let received = {
                let mut cloud = self.env.cloud.lock().unwrap();
                let request = ReceiveMessages { max: 10, visibility: None };
                cloud.receive_message(QUEUE, request, self.env.now()).unwrap()
            };
            self.resumed().await;
            let receipts = received.iter().map(|message| message.receipt_handle.as_str());
            let is_for_caller =
                self.replica.as_deref().is_none_or(|running| running.replica.record_received(receipts));
            for message in received.iter().filter(|_| is_for_caller) {
                self.env.record_delivery(&message.body);
            }
            if !received.is_empty() || Instant::now() >= until {
                let messages = received.into_iter().map(|message| QueueMessage {
                    receipt: message.receipt_handle,
                    body: message.body.to_string(),
                    sent_at: message
                        .system
                        .get("SentTimestamp")
                        .and_then(|at| at.parse().ok())
                        .map(Timestamp),
                    receives: 1,
                });
                return Ok(messages.collect());
            }
            sleep(Duration::from_millis(150)).await;
        }
    }

    async fn delete(&self, receipts: &[String]) -> Result<Vec<String>, AwsError> {
        self.call("sqs:DeleteMessage", "").await?;
        let mut failed = Vec::new();
        for receipt in receipts {
            self.replica.iter().for_each(|running| running.replica.record_deleted(receipt));
            if self.env.faults.fires(SimFault::UndeletedMessage, 0.05) {
                failed.push(receipt.clone());
            } else {
                let _ = self.env.cloud.lock().unwrap().delete_message(QUEUE, receipt);
            }
        }
        Ok(failed)
    }

    async fn release(&self, receipts: &[String]) -> Result<(), AwsError> {
        self.call("sqs:ChangeMessageVisibility", "").await?;
        let mut cloud = self.env.cloud.lock().unwrap();
        for receipt in receipts {
            let _ = cloud.change_message_visibility(QUEUE, receipt, 0, self.env.now());
        }
        Ok(())
    }
}
