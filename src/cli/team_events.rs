//! Events to teams, for `run` and `doctor`.

use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use crate::operator::Operator;
use crate::team_events::{TeamEventDeps, TeamEventSender, TeamEvents};
use crate::telemetry::metrics::Metrics;
use ecs_mesh_aws::sdk::{ATTEMPT_TIMEOUT, AwsClients};
use ecs_mesh_clock::Clock;
use ecs_mesh_model::{EventBusRef, OperatorId};

/// How long a stop waits for events that are not sent yet: one call.
pub(super) const FINISH_TIMEOUT: Duration = ATTEMPT_TIMEOUT;

/// Arguments of events to teams.
#[derive(clap::Args)]
pub(super) struct TeamEventArgs {
    /// EventBridge bus for events to teams, by its name or ARN; without it none are sent
    #[arg(long, value_name = "NAME|ARN", value_parser = event_bus)]
    pub team_events_bus: Option<EventBusRef>,
}

fn event_bus(text: &str) -> Result<EventBusRef, String> {
    text.parse().map_err(|error: ecs_mesh_model::ArnError| error.to_string())
}

impl TeamEventArgs {
    /// Starts to send what the operator records, where a bus is named. A dry run sends nothing.
    pub(super) fn start(
        &self,
        operator: &Operator,
        id: &OperatorId,
        aws: &AwsClients,
        metrics: &Arc<Metrics>,
        dry_run: bool,
    ) -> Option<TeamEvents> {
        let bus = self.team_events_bus.as_ref()?;
        if dry_run {
            info!("dry run: no events to teams");
            return None;
        }
        info!(%bus, "sending events to teams");
        let account = aws.clone();
        Some(TeamEvents::start(
            operator.journal(),
            TeamEventDeps {
                bus: Arc::new(aws.event_bus(bus)),
                sender: TeamEventSender {
                    operator: id.clone(),
                    region: aws.region().to_owned(),
                    account: Arc::new(move || account.account().map(str::to_owned)),
                },
                lease: operator.lease(),
                clock: Clock::system(),
                metrics: Arc::clone(metrics),
                seed: fastrand::u64(..),
            },
        ))
    }
}
