//! `ECS Task State Change`: the complete task at one version, without its tags.
//!
//! Only the fields below are read. `overrides.containerOverrides` is skipped, since environments may contain secrets.
//! Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_task_events.html>.

use serde::Deserialize;

use super::Decoded;
use super::address::{self, Attachment};
use super::envelope::EventEnvelope;
use super::json::{self, BorrowedText, given, need};
use super::poison::{PoisonMessage, PoisonReason};
use ecs_mesh_model::{
    ArnError, ClusterArn, DesiredStatus, LastStatus, RoleArn, Task, TaskArn, TaskDefinitionArn, TaskGroup,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TaskDetail<'a> {
    #[serde(borrow)]
    task_arn: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    cluster_arn: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    task_definition_arn: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    last_status: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    desired_status: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    group: Option<BorrowedText<'a>>,
    version: Option<serde_json::Number>,
    #[serde(borrow)]
    created_at: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    updated_at: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    overrides: Option<Overrides<'a>>,
    #[serde(borrow)]
    attachments: Option<Vec<EventAttachment<'a>>>,
    #[serde(borrow)]
    containers: Option<Vec<EventContainer<'a>>>,
}

#[derive(Deserialize)]
struct Overrides<'a> {
    #[serde(rename = "taskRoleArn", borrow)]
    task_role_arn: Option<BorrowedText<'a>>,
}

#[derive(Deserialize)]
struct EventAttachment<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    status: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    details: Option<Vec<NameValue<'a>>>,
}

#[derive(Deserialize)]
struct NameValue<'a> {
    #[serde(borrow)]
    name: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    value: Option<BorrowedText<'a>>,
}

#[derive(Deserialize)]
struct EventContainer<'a> {
    #[serde(rename = "networkInterfaces", borrow)]
    interfaces: Option<Vec<ContainerInterface<'a>>>,
}

#[derive(Deserialize)]
struct ContainerInterface<'a> {
    #[serde(rename = "privateIpv4Address", borrow)]
    v4: Option<BorrowedText<'a>>,
    #[serde(rename = "ipv6Address", borrow)]
    v6: Option<BorrowedText<'a>>,
}

/// Reads the task.
pub(super) fn read(envelope: &EventEnvelope<'_>) -> Result<Decoded, PoisonMessage> {
    let detail: TaskDetail<'_> = envelope.detail()?;
    Ok(Decoded::Task(Box::new(task(&detail)?)))
}

fn task(detail: &TaskDetail<'_>) -> Result<Task, PoisonMessage> {
    Ok(Task {
        arn: task_arn(detail)?,
        version: version(detail)?,
        last_status: status(detail.last_status.as_ref(), "detail.lastStatus", LastStatus::parse)?,
        desired_status: status(detail.desired_status.as_ref(), "detail.desiredStatus", DesiredStatus::parse)?,
        group: TaskGroup::parse(given(detail.group.as_ref()).unwrap_or_default()),
        definition: arn(
            need(detail.task_definition_arn.as_ref(), "detail.taskDefinitionArn")?,
            "detail.taskDefinitionArn",
            TaskDefinitionArn::parse,
        )?,
        role_override: role_override(detail)?,
        address: own_address(detail)?,
        created_at: json::time(detail.created_at.as_ref(), "detail.createdAt")?,
        updated_at: json::time(detail.updated_at.as_ref(), "detail.updatedAt")?,
        tags: None,
    })
}

fn task_arn(detail: &TaskDetail<'_>) -> Result<TaskArn, PoisonMessage> {
    let task = arn(need(detail.task_arn.as_ref(), "detail.taskArn")?, "detail.taskArn", TaskArn::parse)?;
    let cluster = need(detail.cluster_arn.as_ref(), "detail.clusterArn")?;
    let cluster = arn(cluster, "detail.clusterArn", ClusterArn::parse)?;
    if *task.cluster() != cluster {
        return Err(PoisonMessage::new(PoisonReason::ClusterMismatch, "detail.clusterArn"));
    }
    Ok(task)
}

fn version(detail: &TaskDetail<'_>) -> Result<u64, PoisonMessage> {
    let path = "detail.version";
    let number =
        detail.version.as_ref().ok_or_else(|| PoisonMessage::new(PoisonReason::MissingField, path))?;
    number.as_u64().ok_or_else(|| PoisonMessage::new(PoisonReason::InvalidVersion, path))
}

/// An unreadable override is an error and not the definition's role, which may have more permissions.
fn role_override(detail: &TaskDetail<'_>) -> Result<Option<RoleArn>, PoisonMessage> {
    let text = detail.overrides.as_ref().and_then(|overrides| given(overrides.task_role_arn.as_ref()));
    text.map(|text| arn(text, "detail.overrides.taskRoleArn", RoleArn::parse)).transpose()
}

fn own_address(detail: &TaskDetail<'_>) -> Result<Option<std::net::IpAddr>, PoisonMessage> {
    let attachments: Vec<_> = detail
        .attachments
        .iter()
        .flatten()
        .map(|attachment| Attachment {
            kind: text(attachment.kind.as_ref()),
            status: text(attachment.status.as_ref()),
            details: attachment
                .details
                .iter()
                .flatten()
                .map(|pair| (text(pair.name.as_ref()), text(pair.value.as_ref())))
                .collect(),
        })
        .collect();
    let containers = detail
        .containers
        .iter()
        .flatten()
        .flat_map(|container| container.interfaces.iter().flatten())
        .map(|interface| (text(interface.v4.as_ref()), text(interface.v6.as_ref())));
    address::of_task(&attachments, containers).map_err(|_| {
        PoisonMessage::new(PoisonReason::InvalidAddress, "detail.attachments or detail.containers")
    })
}

fn text<'t>(field: Option<&'t BorrowedText<'_>>) -> &'t str {
    given(field).unwrap_or_default()
}

fn arn<T>(
    text: &str,
    path: &'static str,
    parse: fn(&str) -> Result<T, ArnError>,
) -> Result<T, PoisonMessage> {
    parse(text).map_err(|_| PoisonMessage::new(PoisonReason::InvalidArn, path))
}

fn status<T>(
    field: Option<&BorrowedText<'_>>,
    path: &'static str,
    parse: fn(&str) -> Option<T>,
) -> Result<T, PoisonMessage> {
    parse(need(field, path)?).ok_or_else(|| PoisonMessage::new(PoisonReason::UnknownStatus, path))
}
