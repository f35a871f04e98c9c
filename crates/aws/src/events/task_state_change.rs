//! `ECS Task State Change`: which task changed, at which version, and whether ECS is stopping it.
//!
//! An event is a hint. Everything else about the task comes from DescribeTasks, since any principal that may send to the
//! queue can write an event. The rest of the body, container environments included, is skipped.
//! Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_task_events.html>.

use serde::Deserialize;

use super::envelope::EventEnvelope;
use super::json::{BorrowedText, need};
use super::poison::{PoisonMessage, PoisonReason};
use super::{Decoded, HintedState, TaskHint};
use ecs_mesh_model::{ClusterArn, DesiredStatus, LastStatus, TaskArn};

pub(super) const DETAIL_TYPE: &str = "ECS Task State Change";
pub(super) const SOURCE: &str = "aws.ecs";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TaskDetail<'a> {
    #[serde(borrow)]
    task_arn: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    cluster_arn: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    last_status: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    desired_status: Option<BorrowedText<'a>>,
    version: Option<serde_json::Number>,
}

/// Reads the hint.
pub(super) fn read(envelope: &EventEnvelope<'_>) -> Result<Decoded, PoisonMessage> {
    read_hint(envelope, &envelope.detail()?)
}

/// Reads the body of such an event in one pass. `None`: the body is another event, or has an error, and is to be read with its
/// `detail` apart.
pub(super) fn read_body(body: &str) -> Option<Decoded> {
    let envelope: EventEnvelope<'_, TaskDetail<'_>> = serde_json::from_str(body).ok()?;
    let is_task = envelope.detail_type().ok()? == DETAIL_TYPE && envelope.source().ok()? == SOURCE;
    let detail = envelope.parsed_detail().filter(|_| is_task)?;
    read_hint(&envelope, detail).ok()
}

fn read_hint<D>(envelope: &EventEnvelope<'_, D>, detail: &TaskDetail<'_>) -> Result<Decoded, PoisonMessage> {
    let task = task_arn(detail)?;
    if envelope.account()? != task.cluster().account() {
        return Err(PoisonMessage::new(PoisonReason::OriginMismatch, "account"));
    }
    if envelope.region()? != task.cluster().region() {
        return Err(PoisonMessage::new(PoisonReason::OriginMismatch, "region"));
    }
    let last = status(detail.last_status.as_ref(), "detail.lastStatus", LastStatus::parse)?;
    let desired = status(detail.desired_status.as_ref(), "detail.desiredStatus", DesiredStatus::parse)?;
    let state = match (last.is_stopped(), desired) {
        (true, _) => HintedState::Stopped,
        (false, DesiredStatus::Stopped) => HintedState::Stopping,
        (false, DesiredStatus::Running) => HintedState::Running,
    };
    Ok(Decoded::Task(TaskHint { task, version: version(detail)?, state }))
}

fn task_arn(detail: &TaskDetail<'_>) -> Result<TaskArn, PoisonMessage> {
    let path = "detail.taskArn";
    let task = need(detail.task_arn.as_ref(), path)?;
    let cluster = ClusterArn::parse(need(detail.cluster_arn.as_ref(), "detail.clusterArn")?)
        .map_err(|_| PoisonMessage::new(PoisonReason::InvalidArn, "detail.clusterArn"))?;
    TaskArn::parse_in(task, &cluster).map_err(|_| match TaskArn::parse(task) {
        Ok(_) => PoisonMessage::new(PoisonReason::ClusterMismatch, "detail.clusterArn"),
        Err(_) => PoisonMessage::new(PoisonReason::InvalidArn, path),
    })
}

fn version(detail: &TaskDetail<'_>) -> Result<u64, PoisonMessage> {
    let path = "detail.version";
    let number =
        detail.version.as_ref().ok_or_else(|| PoisonMessage::new(PoisonReason::MissingField, path))?;
    number.as_u64().ok_or_else(|| PoisonMessage::new(PoisonReason::InvalidVersion, path))
}

fn status<T>(
    field: Option<&BorrowedText<'_>>,
    path: &'static str,
    parse: fn(&str) -> Option<T>,
) -> Result<T, PoisonMessage> {
    parse(need(field, path)?).ok_or_else(|| PoisonMessage::new(PoisonReason::UnknownStatus, path))
}
