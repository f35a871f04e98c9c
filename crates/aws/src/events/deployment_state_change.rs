//! `ECS Deployment State Change`: which deployment of which service has started or ended.
//!
//! An event is a hint: DescribeServices shows the deployments.
//! Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_service_deployment_events.html>.

use serde::Deserialize;

use super::envelope::EventEnvelope;
use super::json::{BorrowedText, need};
use super::poison::{PoisonMessage, PoisonReason};
use super::{Decoded, DeploymentHint};
use ecs_mesh_model::EcsServiceArn;

/// Longest id of a deployment, several times that of any that ECS makes.
const MAX_ID: usize = 128;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeploymentDetail<'a> {
    #[serde(borrow)]
    deployment_id: Option<BorrowedText<'a>>,
}

/// Reads the hint.
pub(super) fn read(envelope: &EventEnvelope<'_>) -> Result<Decoded, PoisonMessage> {
    let path = "resources[0]";
    let service = EcsServiceArn::parse(&envelope.resource()?)
        .map_err(|_| PoisonMessage::new(PoisonReason::InvalidArn, path))?;
    if envelope.account()? != service.account() {
        return Err(PoisonMessage::new(PoisonReason::OriginMismatch, "account"));
    }
    if envelope.region()? != service.region() {
        return Err(PoisonMessage::new(PoisonReason::OriginMismatch, "region"));
    }
    let detail: DeploymentDetail<'_> = envelope.detail()?;
    let path = "detail.deploymentId";
    let deployment = need(detail.deployment_id.as_ref(), path)?;
    let is_id = deployment.len() <= MAX_ID && deployment.bytes().all(|b| b.is_ascii_graphic());
    if !is_id || !deployment.starts_with("ecs-svc/") {
        return Err(PoisonMessage::new(PoisonReason::InvalidName, path));
    }
    Ok(Decoded::Deployment(DeploymentHint { service, deployment: deployment.to_owned() }))
}
