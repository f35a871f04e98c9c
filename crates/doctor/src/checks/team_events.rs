//! The bus of events to teams, where one is named. No event is sent.

use crate::catalogue::TEAM_EVENT_BUS;
use crate::facts::DoctorFacts;
use crate::report::CheckResult;
use ecs_mesh_aws::aws::AwsErrorKind;

pub(super) fn check(facts: &DoctorFacts) -> Option<CheckResult> {
    let facts = facts.team_events.as_ref()?;
    let subject = &facts.bus;
    Some(match &facts.described {
        Ok(arn) => TEAM_EVENT_BUS.ok(subject, format!("the bus exists: {arn}")),
        Err(error) if error.kind == AwsErrorKind::NotFound => {
            let found = format!("{} failed: {}: {}", error.operation, error.code, error.message);
            let fix = "create the bus, or correct --team-events-bus; a bus of another account needs its ARN";
            TEAM_EVENT_BUS.error(subject, found, fix)
        }
        Err(error) => super::failed(TEAM_EVENT_BUS, subject, error),
    })
}
