//! From facts to findings: pure, one file for each group of checks.

mod aws;
mod consul;
mod consul_rights;
mod control_planes;
mod events;
mod manifests;
mod permissions;
mod queue;

use super::facts::DoctorFacts;
use super::report::DoctorReport;
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind};

use super::report::{CheckResult, CheckKind};

/// Judges what was found.
pub fn examine(facts: &DoctorFacts) -> DoctorReport {
    let mut checks = manifests::check(facts);
    checks.extend(aws::check(facts));
    checks.extend(queue::check(facts));
    checks.extend(events::check(facts));
    checks.extend(permissions::check(facts));
    checks.extend(control_planes::check(facts));
    DoctorReport::new(checks)
}

/// A read call that failed: denied and not found are errors, since nothing will come of it; the rest is not known.
fn failed(id: CheckKind, subject: &str, error: &AwsError) -> CheckResult {
    let found = format!("{} failed: {}: {}", error.operation, error.code, error.message);
    let fix = error.hint.trim_start_matches("; ");
    match error.kind {
        AwsErrorKind::Denied if !is_of_the_doctor(error) => {
            let all = "`ecs-mesh-operator doctor --print-iam-policy` prints the whole policy";
            id.error(subject, found, format!("{fix}; {all}"))
        }
        AwsErrorKind::Denied => {
            let all = "`ecs-mesh-operator doctor --print-iam-policy --for doctor` prints what the doctor needs";
            id.unknown(subject, found, format!("{fix}; {all}"))
        }
        AwsErrorKind::NotFound => id.error(subject, found, fix),
        AwsErrorKind::Credentials | AwsErrorKind::Invalid => id.unknown(subject, found, fix),
        AwsErrorKind::Throttled | AwsErrorKind::Unavailable => {
            id.unknown(subject, found, if fix.is_empty() { "run the doctor again" } else { fix })
        }
    }
}

/// What the operator itself never calls.
fn is_of_the_doctor(error: &AwsError) -> bool {
    error.operation.starts_with("events:") || error.operation.starts_with("sts:")
}
