//! The operator's read calls, each attempted: one line for each call that works, and one for each cause of failures, however
//! many objects it has.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalogue::{
    DESCRIBE_HOSTS, DESCRIBE_INSTANCES, GET_ROLE, LIST_TASKS, LIST_TOKENS, SET_PROTECTION, STORE_TOKENS,
};
use crate::facts::{DoctorFacts, ReadAttempt};
use crate::report::CheckResult;
use ecs_mesh_api::TokenStoreKind;
use ecs_mesh_aws::aws::AwsError;
use ecs_mesh_model::docs_url;

pub(super) fn check(facts: &DoctorFacts) -> Vec<CheckResult> {
    let Ok(aws) = &facts.aws else { return Vec::new() };
    let Some(observations) = &aws.observations else {
        let found = "no call attempted: AWS does not accept the credentials";
        return vec![LIST_TASKS.unknown("ECS and IAM", found, "fix aws.credentials first")];
    };
    let mut checks = of_reads(&observations.reads);
    checks.extend(former_tokens(&observations.former_tokens));
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

/// Tokens that the operator neither rotates nor revokes: tasks may still read them.
fn former_tokens(found: &BTreeMap<TokenStoreKind, BTreeSet<String>>) -> Vec<CheckResult> {
    let check = |(store, names): (&TokenStoreKind, &BTreeSet<String>)| {
        let shown: Vec<&str> = names.iter().take(MAX_NAMES).map(String::as_str).collect();
        let more = match names.len() - shown.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let found = format!(
            "{} stored tokens of this operator are below no tokens.path ({}{more}): they are neither rotated nor revoked",
            names.len(),
            shown.join(", ")
        );
        let page = docs_url("how-to/kuma-tokens.md");
        let fix = format!("{page}#find-tokens-below-a-former-path");
        LIST_TOKENS.warning(format!("{}, former paths", store.as_str()), found, fix)
    };
    found.iter().filter(|(_, names)| !names.is_empty()).map(check).collect()
}

/// The subjects that one check names.
const MAX_NAMES: usize = 3;

fn of_reads(reads: &[ReadAttempt]) -> Vec<CheckResult> {
    let mut reported = BTreeSet::new();
    let mut checks = Vec::new();
    for read in reads {
        let error = match &read.outcome {
            Ok(found) => {
                checks.push(read.id.ok(&read.subject, found));
                continue;
            }
            Err(error) => error,
        };
        let cause = |read: &ReadAttempt| {
            let error = read.outcome.as_ref().err()?;
            Some((read.id.name, error.operation, error.kind.label(), error.code.clone()))
        };
        if !reported.insert(cause(read)) {
            continue;
        }
        let same: Vec<&ReadAttempt> = reads.iter().filter(|one| cause(one) == cause(read)).collect();
        let all = reads.iter().filter(|one| one.id == read.id).count();
        checks.push(of_cause(read, error, &same, all));
    }
    checks
}

/// `same`: the reads that failed for one cause. `all`: the number of reads of the check.
fn of_cause(read: &ReadAttempt, error: &AwsError, same: &[&ReadAttempt], all: usize) -> CheckResult {
    if same.len() == 1 {
        return super::failed(read.id, &read.subject, error);
    }
    let names: Vec<&str> = same.iter().take(MAX_NAMES).map(|one| short(&one.subject)).collect();
    let more = match same.len() - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let subject = format!("{} of {all} ({}{more})", same.len(), names.join(", "));
    let check = super::failed(read.id, &subject, error);
    CheckResult { message: format!("{}: {}", short(&read.subject), check.message), ..check }
}

/// The name at the end of an ARN.
fn short(subject: &str) -> &str {
    match subject.rsplit_once('/') {
        Some((_, name)) if subject.starts_with("arn:") => name,
        _ => subject,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::CheckStatus;
    use ecs_mesh_aws::aws::AwsErrorKind;
    use ecs_mesh_aws::fakes::error;

    fn read(role: usize, outcome: Result<String, AwsError>) -> ReadAttempt {
        let subject = format!("arn:aws:iam::111122223333:role/mesh/web-{role:03}");
        ReadAttempt { id: GET_ROLE, subject, outcome }
    }

    #[test]
    fn tokens_below_a_former_path_are_named() {
        let names = ["/a", "/b", "/c", "/d"].map(|path| format!("{path}/default/web/token"));
        let found = former_tokens(
            &[
                (TokenStoreKind::SecretsManager, names.into()),
                (TokenStoreKind::ParameterStore, BTreeSet::new()),
            ]
            .into(),
        );
        assert_eq!((found.len(), found[0].status), (1, CheckStatus::Warning));
        assert!(found[0].message.starts_with("4 stored tokens"), "{found:?}");
        assert!(found[0].message.contains("/c/default/web/token and 1 more"), "{found:?}");
    }

    #[test]
    fn throttled_reads_of_many_roles_are_one_line() {
        let of =
            |kind, code: &str| AwsError { operation: "iam:GetRole", code: code.to_owned(), ..error(kind) };
        let mut reads: Vec<ReadAttempt> =
            (0..400).map(|n| read(n, Err(of(AwsErrorKind::Throttled, "Throttling")))).collect();
        reads.push(read(400, Ok("2 tags were read".to_owned())));
        reads.push(read(401, Err(of(AwsErrorKind::Denied, "AccessDenied"))));
        let found = of_reads(&reads);
        let seen: Vec<_> = found.iter().map(|one| (one.status, one.subject.as_str())).collect();
        assert_eq!(
            seen,
            [
                (CheckStatus::Unknown, "400 of 402 (web-000, web-001, web-002 and 397 more)"),
                (CheckStatus::Ok, "arn:aws:iam::111122223333:role/mesh/web-400"),
                (CheckStatus::Error, "arn:aws:iam::111122223333:role/mesh/web-401"),
            ]
        );
        assert_eq!(found[0].message, "web-000: iam:GetRole failed: Throttling: for a reason");
        assert!(found[0].fix.as_deref().unwrap().contains("--role-reads-per-second"), "{found:?}");
    }
}
