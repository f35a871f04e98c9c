//! The operator's read calls, each attempted.

use crate::catalogue::{
    DESCRIBE_HOSTS, DESCRIBE_INSTANCES, GET_ROLE, LIST_TASKS, SET_PROTECTION, STORE_TOKENS,
};
use crate::facts::DoctorFacts;
use crate::report::CheckResult;

pub(super) fn check(facts: &DoctorFacts) -> Vec<CheckResult> {
    let Ok(aws) = &facts.aws else { return Vec::new() };
    let Some(observations) = &aws.observations else {
        let found = "no call attempted: AWS does not accept the credentials";
        return vec![LIST_TASKS.unknown("ECS and IAM", found, "fix aws.credentials first")];
    };
    let mut checks: Vec<CheckResult> = observations
        .reads
        .iter()
        .map(|read| match &read.outcome {
            Ok(found) => read.id.ok(&read.subject, found),
            Err(error) => super::failed(read.id, &read.subject, error),
        })
        .collect();
    if facts.scope.as_ref().is_ok_and(|scope| scope.holds_deployments) {
        let found = "not attempted: it is a write; `--print-iam-policy` prints the statement";
        checks.push(SET_PROTECTION.info("the tasks of bound clusters", found));
    }
    if let Ok(scope) = &facts.scope {
        for store in &scope.token_stores {
            let found = "not attempted: these are writes; `--print-iam-policy` prints the statement";
            checks.push(STORE_TOKENS.info(format!("{} {}", store.kind.as_str(), store.path), found));
        }
    }
    let reads_roles = facts.scope.as_ref().is_ok_and(|scope| scope.reads_roles);
    if reads_roles && !observations.reads.iter().any(|read| read.id == GET_ROLE) {
        checks.push(GET_ROLE.info("the tasks' roles", "not attempted: no described task has a role"));
    }
    for id in [DESCRIBE_HOSTS, DESCRIBE_INSTANCES] {
        if !observations.reads.iter().any(|read| read.id == id) {
            let found = "not attempted: no described task runs in network mode host";
            checks.push(id.info("tasks in network mode host", found));
        }
    }
    checks
}
