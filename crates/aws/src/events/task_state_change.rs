//! `ECS Task State Change`: the whole task, except its tags, at one version.
//!
//! Only the fields below are read. `overrides.containerOverrides` above all is skipped, since environments hold
//! secrets. Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_task_events.html>.

use serde::Deserialize;

use super::Decoded;
use super::address::{self, Attachment};
use super::envelope::Envelope;
use super::json::{self, Text, given, need};
use super::poison::{Poison, PoisonReason};
use ecs_mesh_model::{
    ArnError, ClusterArn, DesiredStatus, LastStatus, RoleArn, Task, TaskArn, TaskDefinitionArn, TaskGroup,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail<'a> {
    #[serde(borrow)]
    task_arn: Option<Text<'a>>,
    #[serde(borrow)]
    cluster_arn: Option<Text<'a>>,
    #[serde(borrow)]
    task_definition_arn: Option<Text<'a>>,
    #[serde(borrow)]
    last_status: Option<Text<'a>>,
    #[serde(borrow)]
    desired_status: Option<Text<'a>>,
    #[serde(borrow)]
    group: Option<Text<'a>>,
    version: Option<serde_json::Number>,
    #[serde(borrow)]
    created_at: Option<Text<'a>>,
    #[serde(borrow)]
    updated_at: Option<Text<'a>>,
    #[serde(borrow)]
    overrides: Option<Overrides<'a>>,
    #[serde(borrow)]
    attachments: Option<Vec<EventAttachment<'a>>>,
    #[serde(borrow)]
    containers: Option<Vec<Container<'a>>>,
}

#[derive(Deserialize)]
struct Overrides<'a> {
    #[serde(rename = "taskRoleArn", borrow)]
    task_role_arn: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct EventAttachment<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    status: Option<Text<'a>>,
    #[serde(borrow)]
    details: Option<Vec<Pair<'a>>>,
}

#[derive(Deserialize)]
struct Pair<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Container<'a> {
    #[serde(rename = "networkInterfaces", borrow)]
    interfaces: Option<Vec<ContainerInterface<'a>>>,
}

#[derive(Deserialize)]
struct ContainerInterface<'a> {
    #[serde(rename = "privateIpv4Address", borrow)]
    v4: Option<Text<'a>>,
    #[serde(rename = "ipv6Address", borrow)]
    v6: Option<Text<'a>>,
}

/// Reads the task. An error names the field and why.
pub(super) fn read(body: &str, _: &Envelope<'_>) -> Result<Decoded, Poison> {
    let detail: Detail<'_> = json::detail(body)?;
    Ok(Decoded::Task(Box::new(task(&detail)?)))
}

fn task(detail: &Detail<'_>) -> Result<Task, Poison> {
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

fn task_arn(detail: &Detail<'_>) -> Result<TaskArn, Poison> {
    let task = arn(need(detail.task_arn.as_ref(), "detail.taskArn")?, "detail.taskArn", TaskArn::parse)?;
    let cluster = need(detail.cluster_arn.as_ref(), "detail.clusterArn")?;
    let cluster = arn(cluster, "detail.clusterArn", ClusterArn::parse)?;
    if *task.cluster() != cluster {
        return Err(Poison::new(PoisonReason::ClusterMismatch, "detail.clusterArn"));
    }
    Ok(task)
}

fn version(detail: &Detail<'_>) -> Result<u64, Poison> {
    let path = "detail.version";
    let number = detail.version.as_ref().ok_or_else(|| Poison::new(PoisonReason::MissingField, path))?;
    number.as_u64().ok_or_else(|| Poison::new(PoisonReason::BadVersion, path))
}

/// An override that cannot be read must not fall back to the definition's role: that role may be allowed more.
fn role_override(detail: &Detail<'_>) -> Result<Option<RoleArn>, Poison> {
    let text = detail.overrides.as_ref().and_then(|overrides| given(overrides.task_role_arn.as_ref()));
    text.map(|text| arn(text, "detail.overrides.taskRoleArn", RoleArn::parse)).transpose()
}

fn own_address(detail: &Detail<'_>) -> Result<Option<std::net::IpAddr>, Poison> {
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
    address::of_task(&attachments, containers)
        .map_err(|_| Poison::new(PoisonReason::BadAddress, "detail.attachments or detail.containers"))
}

fn text<'t>(field: Option<&'t Text<'_>>) -> &'t str {
    given(field).unwrap_or_default()
}

fn arn<T>(text: &str, path: &'static str, parse: fn(&str) -> Result<T, ArnError>) -> Result<T, Poison> {
    parse(text).map_err(|_| Poison::new(PoisonReason::BadArn, path))
}

fn status<T>(
    field: Option<&Text<'_>>,
    path: &'static str,
    parse: fn(&str) -> Option<T>,
) -> Result<T, Poison> {
    parse(need(field, path)?).ok_or_else(|| Poison::new(PoisonReason::UnknownStatus, path))
}
