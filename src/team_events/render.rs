//! Renders a group as an event.

use super::event::{
    TEAM_EVENT_SCHEMA_VERSION, TeamEvent, TeamEventCause, TeamEventDetail, TeamEventOrigin, TeamEventSource,
    TeamEventSubject, TeamEventTasks,
};
use super::groups::{DueGroup, HELD_BY_GUARD};
use crate::operator::{JournalEvent, MAX_FIELDS, shortened};
use ecs_mesh_aws::aws::BusEvent;
use ecs_mesh_model::{EcsServiceRef, OperatorId};

/// The sender that events name.
#[derive(Clone)]
pub struct TeamEventSender {
    /// The operator's id.
    pub operator: OperatorId,
    /// The operator's Region.
    pub region: String,
    /// The operator's account, once it is known.
    pub account: std::sync::Arc<dyn Fn() -> Option<String> + Send + Sync>,
}

impl TeamEventSender {
    /// The event of a group.
    pub(super) fn render(&self, due: &DueGroup) -> TeamEvent {
        let subject = &due.latest.subject;
        let cluster = subject.task.as_ref().map(ecs_mesh_model::TaskArn::cluster);
        let origin = TeamEventOrigin {
            schema_version: TEAM_EVENT_SCHEMA_VERSION,
            operator: self.operator.as_str().to_owned(),
            account: cluster.map_or_else(|| (self.account)(), |cluster| Some(cluster.account().to_owned())),
            region: cluster.map_or_else(|| self.region.clone(), |cluster| cluster.region().to_owned()),
        };
        let text = |part: &Option<std::sync::Arc<str>>| part.as_deref().map(str::to_owned);
        let service = subject.ecs_service.as_ref();
        let tasks = due.examples.iter().map(ToString::to_string);
        TeamEvent {
            source: TeamEventSource::EcsMesh,
            detail_type: due.kind,
            resources: service.map(service_arn).into_iter().chain(tasks).collect(),
            detail: TeamEventDetail {
                origin,
                subject: TeamEventSubject {
                    cluster: cluster.map(|cluster| cluster.name().to_owned()),
                    ecs_service: service.map(|service| service.name().to_owned()),
                    workload: text(&subject.workload),
                    service: text(&subject.service),
                    binding: text(&subject.binding),
                    control_plane: text(&subject.control_plane),
                    mesh: text(&subject.mesh),
                    registration: text(&subject.name),
                    role: subject.role.clone(),
                },
                cause: cause(&due.latest.event),
                tasks: TeamEventTasks { count: due.count, tasks: due.examples.clone() },
            },
        }
    }
}

fn cause(event: &JournalEvent) -> TeamEventCause {
    match event {
        JournalEvent::Change(change) => TeamEventCause {
            reason: change.cause.label().to_owned(),
            message: shortened(&change.message),
            change: Some(change.change),
            fields: change.fields.iter().take(MAX_FIELDS).map(|field| shortened(field)).collect(),
            ..TeamEventCause::default()
        },
        JournalEvent::Warning(warning) => TeamEventCause {
            reason: warning.reason.to_owned(),
            message: shortened(&warning.message),
            rules: warning.rules.clone(),
            fix: warning.fix.as_deref().map(shortened),
            ..TeamEventCause::default()
        },
        JournalEvent::HeldByGuard(held) => TeamEventCause {
            reason: HELD_BY_GUARD.to_owned(),
            message: shortened(&held.message),
            fix: Some(shortened(&held.fix)),
            change: Some(held.change),
            ..TeamEventCause::default()
        },
        JournalEvent::Unsupported { message } => TeamEventCause {
            reason: "unsupported_control_plane".to_owned(),
            message: shortened(message),
            ..TeamEventCause::default()
        },
        JournalEvent::Resolved { .. } | JournalEvent::Supported => TeamEventCause::default(),
    }
}

/// The ARN of the service.
fn service_arn(service: &EcsServiceRef) -> String {
    let (cluster, name) = (service.cluster(), service.name());
    let (partition, region, account) = (cluster.partition(), cluster.region(), cluster.account());
    format!("arn:{partition}:ecs:{region}:{account}:service/{}/{name}", cluster.name())
}

/// The event as an entry of `PutEvents`.
pub(super) fn bus_event(
    event: &TeamEvent,
    at: ecs_mesh_model::Timestamp,
) -> Result<BusEvent, serde_json::Error> {
    Ok(BusEvent {
        at,
        source: event.source.as_str(),
        detail_type: event.detail_type.as_str(),
        resources: event.resources.clone(),
        detail: serde_json::to_string(&event.detail)?,
    })
}
