//! ECS with the SDK.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ecs::Client;
use aws_sdk_ecs::types;

use super::address::{self, Attachment, ContainerInterface};
use super::call::CallRunner;
use super::error;
use super::services;
use crate::aws::{
    AwsError, AwsErrorKind, ClusterStatus, DescribeContainerInstancesOutput, DescribeServicesOutput,
    DescribeTasksOutput, Ecs, ListPage, TaskProtectionOutput,
};
use ecs_mesh_model::{
    ArnError, ClusterArn, ContainerInstanceArn, ContainerStart, DesiredStatus, InterfaceAddresses,
    LastStatus, RoleArn, Tags, Task, TaskArn, TaskContainer, TaskDefinition, TaskDefinitionArn, TaskGroup,
    TaskHost, TaskId, Timestamp, intern, intern_tags,
};

/// ECS of one account and Region.
#[derive(Clone)]
pub struct SdkEcs {
    client: Client,
    calls: CallRunner,
}

impl SdkEcs {
    pub(super) fn new(client: Client, calls: CallRunner) -> Self {
        Self { client, calls }
    }
}

#[async_trait]
impl Ecs for SdkEcs {
    async fn list_clusters(&self, page: Option<String>) -> Result<ListPage<ClusterArn>, AwsError> {
        let (operation, resource) = ("ecs:ListClusters", "the account's clusters");
        let call = self.client.list_clusters().set_next_token(page).send();
        let answer = self.calls.run(operation, resource, call).await?;
        let (items, skipped) = arns(answer.cluster_arns(), ClusterArn::parse);
        if let Some(cluster) = items.first() {
            self.calls.set_account(cluster.account());
        }
        Ok(ListPage { items, skipped, next: token(answer.next_token) })
    }

    async fn describe_cluster(&self, cluster: &ClusterArn) -> Result<ClusterStatus, AwsError> {
        let (operation, resource) = ("ecs:DescribeClusters", cluster.as_str());
        let call = self.client.describe_clusters().clusters(resource).send();
        let answer = self.calls.run(operation, resource, call).await?;
        match (answer.clusters(), answer.failures()) {
            ([found], _) if found.cluster_arn() == Some(resource) => match found.status() {
                Some("INACTIVE") => Ok(ClusterStatus::Inactive),
                _ => Ok(ClusterStatus::Exists),
            },
            ([], [failure]) if failure.reason() == Some("MISSING") => Ok(ClusterStatus::Missing),
            _ => Err(unreadable(operation, resource, "the response does not have the cluster")),
        }
    }

    async fn list_tasks(
        &self,
        cluster: &ClusterArn,
        desired: DesiredStatus,
        page: Option<String>,
    ) -> Result<ListPage<TaskArn>, AwsError> {
        let (operation, resource) = ("ecs:ListTasks", cluster.as_str());
        // No launchType: one that is given leaves out the tasks of all others.
        let call = self
            .client
            .list_tasks()
            .cluster(cluster.as_str())
            .desired_status(desired.as_str().into())
            .set_next_token(page)
            .send();
        let answer = self.calls.run(operation, resource, call).await?;
        // ECS has no access across accounts, so an answer proves whose the cluster is.
        self.calls.set_account(cluster.account());
        let (items, skipped) = arns(answer.task_arns(), |text| TaskArn::parse_in(text, cluster));
        Ok(ListPage { items, skipped, next: token(answer.next_token) })
    }

    async fn describe_tasks(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskId],
    ) -> Result<DescribeTasksOutput, AwsError> {
        if tasks.is_empty() {
            return Ok(DescribeTasksOutput::default());
        }
        let resource = format!("{} tasks of {cluster}", tasks.len());
        let call = self
            .client
            .describe_tasks()
            .cluster(cluster.as_str())
            .set_tasks(Some(tasks.iter().map(|id| id.as_str().to_owned()).collect()))
            .include(types::TaskField::Tags)
            .send();
        let answer = self.calls.run("ecs:DescribeTasks", &resource, call).await?;
        self.calls.set_account(cluster.account());
        Ok(classify(cluster, tasks, answer.tasks(), answer.failures()))
    }

    async fn describe_task_definition(&self, arn: &TaskDefinitionArn) -> Result<TaskDefinition, AwsError> {
        let (operation, resource) = ("ecs:DescribeTaskDefinition", arn.as_str());
        let call = self.client.describe_task_definition().task_definition(resource).send();
        let answer = self.calls.run(operation, resource, call).await?;
        let found = answer.task_definition.unwrap_or_else(|| types::TaskDefinition::builder().build());
        if found.task_definition_arn() != Some(resource) {
            return Err(unreadable(operation, resource, "the response has another task definition"));
        }
        let task_role = given(found.task_role_arn())
            .map(RoleArn::parse)
            .transpose()
            .map_err(|error| unreadable(operation, resource, &error.to_string()))?;
        Ok(TaskDefinition {
            arn: arn.clone(),
            task_role,
            network_mode: found.network_mode().map(|mode| mode.as_str().to_owned()),
            containers: found.container_definitions().iter().map(container).collect(),
        })
    }

    async fn describe_services(
        &self,
        cluster: &ClusterArn,
        names: &[String],
    ) -> Result<DescribeServicesOutput, AwsError> {
        let resource = format!("{} services of {cluster}", names.len());
        let call = self.client.describe_services().cluster(cluster.as_str());
        let call = call.set_services(Some(names.to_vec())).send();
        let answer = self.calls.run("ecs:DescribeServices", &resource, call).await?;
        Ok(services::classify(names, answer.services(), answer.failures()))
    }

    async fn describe_container_instances(
        &self,
        cluster: &ClusterArn,
        instances: &[ContainerInstanceArn],
    ) -> Result<DescribeContainerInstancesOutput, AwsError> {
        let resource = format!("{} container instances of {cluster}", instances.len());
        let call = self.client.describe_container_instances().cluster(cluster.as_str());
        let asked = instances.iter().map(|instance| instance.as_str().to_owned()).collect();
        let call = call.set_container_instances(Some(asked)).send();
        let answer = self.calls.run("ecs:DescribeContainerInstances", &resource, call).await?;
        Ok(container_instances(instances, answer.container_instances(), answer.failures()))
    }

    async fn task_protection(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskId],
    ) -> Result<TaskProtectionOutput, AwsError> {
        let resource = format!("{} tasks of {cluster}", tasks.len());
        let call = self.client.get_task_protection().cluster(cluster.as_str());
        let call = call.set_tasks(Some(services::ids(tasks))).send();
        let answer = self.calls.run("ecs:GetTaskProtection", &resource, call).await?;
        Ok(services::protections(tasks, answer.protected_tasks(), answer.failures()))
    }

    async fn update_task_protection(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskId],
        minutes: Option<u16>,
    ) -> Result<TaskProtectionOutput, AwsError> {
        let resource = format!("{} tasks of {cluster}", tasks.len());
        let call = self.client.update_task_protection().cluster(cluster.as_str());
        let call = call
            .set_tasks(Some(services::ids(tasks)))
            .protection_enabled(minutes.is_some())
            .set_expires_in_minutes(minutes.map(i32::from))
            .send();
        let answer = self.calls.run("ecs:UpdateTaskProtection", &resource, call).await?;
        Ok(services::protections(tasks, answer.protected_tasks(), answer.failures()))
    }
}

/// Classifies each requested task as found, missing or failed. A task without an answer has failed, which is no evidence of
/// absence.
fn classify(
    cluster: &ClusterArn,
    requested: &[TaskId],
    tasks: &[types::Task],
    failures: &[types::Failure],
) -> DescribeTasksOutput {
    let mut described = DescribeTasksOutput::default();
    let mut unanswered: BTreeMap<&str, &TaskId> = requested.iter().map(|id| (id.as_str(), id)).collect();
    for found in tasks {
        let Some(id) = unanswered.remove(last_part(found.task_arn())) else { continue };
        match task(cluster, found) {
            Ok(task) => described.tasks.push(task),
            Err(reason) => described.failed.push((id.clone(), reason)),
        }
    }
    for failure in failures {
        let Some(id) = unanswered.remove(last_part(failure.arn())) else { continue };
        match failure.reason().unwrap_or_default() {
            "MISSING" => described.missing.push(id.clone()),
            reason => described.failed.push((id.clone(), failure_text(reason, failure.detail()))),
        }
    }
    let unanswered =
        unanswered.into_values().map(|id| (id.clone(), "the response does not mention the task".to_owned()));
    described.failed.extend(unanswered);
    described
}

/// The EC2 instance of each requested container instance, or why it is not known.
fn container_instances(
    requested: &[ContainerInstanceArn],
    found: &[types::ContainerInstance],
    failures: &[types::Failure],
) -> DescribeContainerInstancesOutput {
    let mut described = DescribeContainerInstancesOutput::default();
    for instance in requested {
        let id = last_part(Some(instance.as_str()));
        let found = found.iter().find(|one| last_part(one.container_instance_arn()) == id);
        let failure = failures.iter().find(|one| last_part(one.arn()) == id);
        let error = match (found.and_then(|one| given(one.ec2_instance_id())), failure) {
            (Some(ec2_id), _) if ec2_id.starts_with("i-") => {
                described.ec2_ids.insert(instance.clone(), ec2_id.to_owned());
                continue;
            }
            (Some(other), _) => error::clean(&format!("{other} is no EC2 instance")),
            (None, Some(failure)) => failure_text(failure.reason().unwrap_or_default(), failure.detail()),
            (None, None) => "the response does not mention the container instance".to_owned(),
        };
        described.failed.insert(instance.clone(), error);
    }
    described
}

pub(super) fn failure_text(reason: &str, detail: Option<&str>) -> String {
    let reason = if reason.is_empty() { "no reason given" } else { reason };
    error::clean(&detail.map_or_else(|| reason.to_owned(), |detail| format!("{reason}: {detail}")))
}

/// A task of DescribeTasks. An error names the unreadable field.
fn task(cluster: &ClusterArn, found: &types::Task) -> Result<Task, String> {
    let arn =
        TaskArn::parse_in(found.task_arn().unwrap_or_default(), cluster).map_err(in_field("taskArn"))?;
    let definition = TaskDefinitionArn::parse(found.task_definition_arn().unwrap_or_default())
        .map_err(in_field("taskDefinitionArn"))?;
    let role = found.overrides().and_then(|overrides| given(overrides.task_role_arn()));
    let last_status = LastStatus::parse(found.last_status().unwrap_or_default())
        .ok_or_else(|| unknown("lastStatus", found.last_status()))?;
    let desired_status = DesiredStatus::parse(found.desired_status().unwrap_or_default())
        .ok_or_else(|| unknown("desiredStatus", found.desired_status()))?;
    let addresses = match own_addresses(found) {
        // A task that leaves needs no address, and must not stay because of an unreadable one.
        Err(_) if desired_status == DesiredStatus::Stopped || last_status.is_stopped() => {
            InterfaceAddresses::NONE
        }
        addresses => addresses?,
    };
    let host = TaskHost::of(
        found.launch_type().map_or("", types::LaunchType::as_str),
        container_instance(&arn, found),
    );
    Ok(Task {
        arn,
        version: u64::try_from(found.version()).map_err(|_| "version: negative".to_owned())?,
        last_status,
        desired_status,
        group: TaskGroup::parse(found.group().unwrap_or_default()),
        definition,
        role_override: role.map(RoleArn::parse).transpose().map_err(in_field("overrides.taskRoleArn"))?,
        addresses,
        host,
        deployment: found.started_by().and_then(Task::parse_deployment),
        created_at: found.created_at().map(nearest_millisecond),
        tags: Some(intern_tags(tags(found.tags()))),
        stopped_containers: stopped_containers(found),
    })
}

/// The container instance. Few tasks need it: an unreadable one fails no task.
fn container_instance(task: &TaskArn, found: &types::Task) -> Option<ContainerInstanceArn> {
    let parsed = ContainerInstanceArn::parse(given(found.container_instance_arn())?);
    if let Err(error) = &parsed {
        tracing::debug!(%task, %error, "unreadable containerInstanceArn; taken as none");
    }
    parsed.ok()
}

fn stopped_containers(task: &types::Task) -> Box<[Arc<str>]> {
    let stopped = task.containers().iter().filter(|container| container.last_status() == Some("STOPPED"));
    stopped.filter_map(|container| container.name().map(intern)).collect()
}

/// Rounds to milliseconds. The API's times are binary fractions of a second: truncated, 0.145 s would become 144 ms and
/// differ from the event of the same task.
pub(super) fn nearest_millisecond(at: &aws_sdk_ecs::primitives::DateTime) -> Timestamp {
    let millis = (i64::from(at.subsec_nanos()) + 500_000) / 1_000_000;
    Timestamp(at.secs().saturating_mul(1_000).saturating_add(millis))
}

fn own_addresses(task: &types::Task) -> Result<InterfaceAddresses, String> {
    let attachments: Vec<_> = task
        .attachments()
        .iter()
        .map(|attachment| Attachment {
            id: attachment.id().unwrap_or_default(),
            kind: attachment.r#type().unwrap_or_default(),
            status: attachment.status().unwrap_or_default(),
            details: attachment
                .details()
                .iter()
                .map(|pair| (pair.name().unwrap_or_default(), pair.value().unwrap_or_default()))
                .collect(),
        })
        .collect();
    let interfaces = task.containers().iter().flat_map(types::Container::network_interfaces);
    let interfaces: Vec<_> = interfaces
        .map(|interface| ContainerInterface {
            attachment: interface.attachment_id().unwrap_or_default(),
            v4: interface.private_ipv4_address().unwrap_or_default(),
            v6: interface.ipv6_address().unwrap_or_default(),
        })
        .collect();
    address::of_task(&attachments, &interfaces).map_err(|bad| bad.to_string())
}

pub(super) fn tags(found: &[types::Tag]) -> Tags {
    found
        .iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
        .collect()
}

fn container(found: &types::ContainerDefinition) -> TaskContainer {
    TaskContainer {
        name: found.name().unwrap_or_default().to_owned(),
        docker_labels: found.docker_labels().into_iter().flatten().map(owned).collect(),
        ports: found
            .port_mappings()
            .iter()
            .filter(|mapping| mapping.protocol() != Some(&types::TransportProtocol::Udp))
            .filter_map(|mapping| u16::try_from(mapping.container_port()?).ok())
            .filter(|port| *port != 0)
            .collect(),
        // "If the essential parameter is omitted, the container is assumed to be essential."
        essential: found.essential().unwrap_or(true),
        stop_timeout: found.stop_timeout().and_then(|secs| Some(Duration::from_secs(secs.try_into().ok()?))),
        sidecar_outbounds: start(found).kuma_sidecar().map(|sidecar| sidecar.outbounds()),
        sidecar_dataplane: start(found).kuma_sidecar().and_then(|sidecar| sidecar.dataplane()),
    }
}

/// How the container is started. Values of variables are not kept.
fn start(found: &types::ContainerDefinition) -> ContainerStart<'_> {
    let variables = found.environment().iter().filter_map(|one| Some((one.name()?, one.value())));
    let secrets = found.secrets().iter().map(|one| (one.name(), None));
    ContainerStart {
        image: found.image().unwrap_or_default(),
        arguments: found.entry_point().iter().chain(found.command()).map(String::as_str).collect(),
        environment: variables.chain(secrets).collect(),
        has_environment_files: !found.environment_files().is_empty(),
    }
}

fn owned((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

/// Parses each item by itself. Returns the items, and an error for each that is skipped.
fn arns<T>(found: &[String], parse: impl Fn(&str) -> Result<T, ArnError>) -> (Vec<T>, Vec<String>) {
    let (mut items, mut skipped) = (Vec::with_capacity(found.len()), Vec::new());
    for text in found {
        match parse(text) {
            Ok(item) => items.push(item),
            Err(error) => skipped.push(error::clean(&error.to_string())),
        }
    }
    (items, skipped)
}

pub(super) fn unreadable(operation: &'static str, resource: &str, message: &str) -> AwsError {
    AwsError {
        kind: AwsErrorKind::Invalid,
        operation,
        resource: resource.to_owned(),
        code: "response".to_owned(),
        message: error::clean(message),
        hint: "; the response does not follow ECS's documentation: check AWS_ENDPOINT_URL if set",
    }
}

fn in_field(field: &'static str) -> impl Fn(ArnError) -> String {
    move |error| format!("{field}: {error}")
}

fn unknown(field: &str, status: Option<&str>) -> String {
    let status: String = status.unwrap_or_default().chars().take(40).collect();
    format!("{field}: {status:?} is not a documented status")
}

pub(super) fn last_part(arn: Option<&str>) -> &str {
    arn.and_then(|arn| arn.rsplit('/').next()).unwrap_or_default()
}

fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// An empty token counts as none: ECS would restart the list with it, without end.
fn token(next: Option<String>) -> Option<String> {
    next.filter(|token| !token.is_empty())
}
