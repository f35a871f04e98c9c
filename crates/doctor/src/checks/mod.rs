//! Evaluates the checks: pure, one file for each group.

mod aws;
mod consul;
mod consul_rights;
mod control_planes;
mod events;
mod lease;
mod manifests;
mod permissions;
mod queue;
mod sidecars;
mod team_events;

use super::facts::DoctorFacts;
use super::report::DoctorReport;
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind};

use super::report::{CheckKind, CheckResult};

/// Evaluates all checks.
pub fn examine(facts: &DoctorFacts) -> DoctorReport {
    let mut checks = manifests::check(facts);
    checks.extend(aws::check(facts));
    for facts in std::iter::once(facts).chain(&facts.more_queues) {
        checks.extend(queue::check(facts));
        checks.extend(events::check(facts));
    }
    checks.extend(permissions::check(facts));
    checks.extend(lease::check(facts));
    checks.extend(team_events::check(facts));
    checks.extend(control_planes::check(facts));
    checks.extend(sidecars::check(facts));
    DoctorReport::new(checks)
}

/// The result for a failed read: denied and not found are errors, since retries do not help; others are unknown.
fn failed(id: CheckKind, subject: &str, error: &AwsError) -> CheckResult {
    let found = format!("{} failed: {}: {}", error.operation, error.code, error.message);
    let fix = error.hint.trim_start_matches("; ");
    match error.kind {
        AwsErrorKind::Denied if !is_called_by_doctor_only(error) => {
            let all = "`ecs-mesh-operator doctor --print-iam-policy` prints the complete policy";
            id.error(subject, found, format!("{fix}; {all}"))
        }
        AwsErrorKind::Denied => {
            let all = "`ecs-mesh-operator doctor --print-iam-policy --for doctor` prints the policy of the doctor command";
            id.unknown(subject, found, format!("{fix}; {all}"))
        }
        AwsErrorKind::NotFound => id.error(subject, found, fix),
        AwsErrorKind::Credentials | AwsErrorKind::Invalid => id.unknown(subject, found, fix),
        AwsErrorKind::Throttled => id.unknown(subject, found, slow_down(error.operation)),
        AwsErrorKind::Unavailable => {
            id.unknown(subject, found, if fix.is_empty() { "run the doctor again" } else { fix })
        }
    }
}

/// The remedy for throttled calls: the quotas are those of the account, which the operator shares with others.
fn slow_down(operation: &str) -> String {
    let flag = match operation {
        "iam:GetRole" => "role",
        "ecs:DescribeTaskDefinition" => "definition",
        _ if operation.starts_with("ecs:") => "ecs",
        _ => return "run the doctor again".to_owned(),
    };
    format!(
        "run the doctor again; if the operator is throttled, too, lower its rate by --{flag}-reads-per-second"
    )
}

/// Whether the operator itself never makes this call.
fn is_called_by_doctor_only(error: &AwsError) -> bool {
    error.operation.starts_with("events:") || error.operation == "sts:GetCallerIdentity"
}
