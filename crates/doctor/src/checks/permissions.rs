//! The operator's read calls, each tried on what it would read.

use crate::catalogue::{GET_ROLE, LIST_TASKS};
use crate::facts::DoctorFacts;
use crate::report::CheckResult;

pub(super) fn check(facts: &DoctorFacts) -> Vec<CheckResult> {
    let Ok(aws) = &facts.aws else { return Vec::new() };
    let Some(seen) = &aws.observations else {
        let found = "no call was tried: AWS does not know the caller";
        return vec![LIST_TASKS.unknown("ECS and IAM", found, "mend aws.credentials first")];
    };
    let mut checks: Vec<CheckResult> = seen
        .reads
        .iter()
        .map(|read| match &read.outcome {
            Ok(found) => read.id.ok(&read.subject, found),
            Err(error) => super::failed(read.id, &read.subject, error),
        })
        .collect();
    let reads_roles = facts.scope.as_ref().is_ok_and(|place| place.reads_roles);
    if reads_roles && !seen.reads.iter().any(|read| read.id == GET_ROLE) {
        checks.push(GET_ROLE.info("the tasks' roles", "not tried: no task was seen that has one"));
    }
    checks
}
