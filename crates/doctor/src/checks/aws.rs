//! Region, credentials, identity, and whether everything is in one account and Region.

use std::time::SystemTime;

use crate::catalogue::{ASSUME_ROLE, CERTIFICATES, CREDENTIALS, IDENTITY, REGION, SCOPE};
use crate::facts::{AwsFacts, AwsUnavailable, DoctorFacts, MemberFacts};
use crate::report::CheckResult;
use crate::scope::{DoctorScope, partition_of};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_aws::aws::AwsErrorKind;
use ecs_mesh_model::ClusterArn;

pub(super) fn check(facts: &DoctorFacts) -> Vec<CheckResult> {
    let aws = match &facts.aws {
        Ok(aws) => aws,
        Err(AwsUnavailable::NoRegion(error)) => {
            return vec![REGION.error("AWS", error, "set AWS_REGION, or give --region")];
        }
        Err(AwsUnavailable::NoRoots(error)) => {
            let (message, fix) = error.split_once("; ").unwrap_or((error, ""));
            return vec![CERTIFICATES.error("AWS", message, fix)];
        }
    };
    let trust = CERTIFICATES.ok("AWS", "found, or the configured endpoint needs none");
    let mut checks = vec![REGION.ok("AWS", &aws.region), trust, credentials(aws), identity(aws)];
    checks.extend(scope(facts, aws));
    checks.extend(members(facts, aws));
    checks
}

fn credentials(aws: &AwsFacts) -> CheckResult {
    match &aws.credentials {
        Ok(found) => {
            let life = found.expiry.map_or_else(|| "without expiry".to_owned(), remaining);
            CREDENTIALS.ok(found.step.to_string(), format!("found, {life}"))
        }
        // The message names the source that failed.
        Err(error) => CREDENTIALS.error("AWS", &error.message, error.hint.trim_start_matches("; ")),
    }
}

fn remaining(end: SystemTime) -> String {
    match end.duration_since(SystemTime::now()) {
        Ok(left) => format!("expire in {} min and are refreshed", left.as_secs() / 60),
        Err(_) => "expired".to_owned(),
    }
}

fn identity(aws: &AwsFacts) -> CheckResult {
    match &aws.caller {
        Ok(caller) => IDENTITY.ok(&caller.account, &caller.arn),
        Err(error) => {
            let found = format!("{} failed: {}: {}", error.operation, error.code, error.message);
            let fix = error.hint.trim_start_matches("; ");
            match error.kind {
                AwsErrorKind::Credentials => IDENTITY.error("AWS", found, fix),
                _ => IDENTITY.unknown("AWS", found, format!("{fix}; STS needs its own reachable endpoint")),
            }
        }
    }
}

fn scope(facts: &DoctorFacts, aws: &AwsFacts) -> Vec<CheckResult> {
    let scope = match &facts.scope {
        Ok(scope) => scope,
        Err(error) => {
            let fix = "`aws sqs get-queue-url --queue-name NAME` prints it";
            return vec![SCOPE.error(facts.queue_url.clone().unwrap_or_default(), error, fix)];
        }
    };
    let account = aws.caller.as_ref().ok().map(|caller| caller.account.as_str());
    let partition = aws.caller.as_ref().ok().and_then(|caller| caller.arn.split(':').nth(1));
    let partition = partition.unwrap_or_else(|| partition_of(&aws.region));
    let set = &facts.manifests.set;
    let mut checks = unreadable_clusters(set, scope, account, partition);
    if let Some(check) = queue(scope, aws, account) {
        checks.push(check);
    }
    if checks.is_empty() {
        let of = account.map_or_else(String::new, |account| format!(", account {account}"));
        checks.push(SCOPE.ok("all", format!("partition {partition}, Region {}{of}", aws.region)));
    }
    checks
}

/// The accounts that the manifests declare: whether the caller may assume their roles, and is then in them.
fn members(facts: &DoctorFacts, aws: &AwsFacts) -> Vec<CheckResult> {
    let Some(observations) = &aws.observations else { return Vec::new() };
    let member = |MemberFacts { place, identity }: &MemberFacts| {
        let name = facts.manifests.set.aws_account(&place.account).map_or("", |(name, _)| name);
        let subject = format!("{name}: {place}");
        match identity {
            Ok(caller) if caller.account == *place.account => ASSUME_ROLE.ok(&subject, &caller.arn),
            Ok(caller) => {
                let found = format!("the role's session is in account {}", caller.account);
                ASSUME_ROLE.error(
                    &subject,
                    found,
                    "correct spec.account or spec.assumeRole of the AwsAccount",
                )
            }
            Err(error) => super::failed(ASSUME_ROLE, &subject, error),
        }
    };
    observations.members.iter().map(member).collect()
}

/// Clusters that no credentials reach: of another partition, or of an account or Region that is not declared.
fn unreadable_clusters(
    set: &ManifestSet,
    scope: &DoctorScope,
    account: Option<&str>,
    partition: &str,
) -> Vec<CheckResult> {
    let literal = scope.clusters.iter().filter(|cluster| cluster.glob.is_literal());
    let named = literal.filter_map(|cluster| ClusterArn::parse(cluster.glob.as_str()).ok());
    let outside = named.filter_map(|cluster| {
        let declared = set.aws_account(cluster.account());
        let (found, fix) = if cluster.partition() != partition {
            let found =
                format!("the cluster is in partition {}, the caller in {partition}", cluster.partition());
            (found, "run an operator in that partition; or correct MeshBinding.spec.selector.clusters")
        } else if let Some((name, spec)) = declared {
            if spec.regions.iter().any(|region| *region == cluster.region()) {
                return None;
            }
            let found =
                format!("the cluster is in {}, which AwsAccount {name} does not list", cluster.region());
            (found, "add the Region to spec.regions of the AwsAccount")
        } else if let Some(account) = account.filter(|account| *account != cluster.account()) {
            let found = format!("the cluster is in account {}, the caller in {account}", cluster.account());
            let fix = "declare an AwsAccount with a role that the caller may assume; or correct \
                       MeshBinding.spec.selector.clusters";
            (found, fix)
        } else {
            return None;
        };
        Some(SCOPE.error(cluster.as_str(), found, fix))
    });
    outside.collect()
}

fn queue(scope: &DoctorScope, aws: &AwsFacts, account: Option<&str>) -> Option<CheckResult> {
    let queue = scope.queue.as_ref()?;
    let region = queue.region.as_deref().unwrap_or(&aws.region);
    if region != aws.region {
        let found = format!("the queue is in Region {region}, the clusters' events are in {}", aws.region);
        return Some(SCOPE.error(
            &queue.name,
            found,
            "create the queue in the clusters' Region, since rules send to no other",
        ));
    }
    if account.is_some_and(|account| account != queue.account) {
        let found = format!(
            "the queue is in account {}, the caller in {}",
            queue.account,
            account.unwrap_or_default()
        );
        let fix = "use a queue of the caller's account, or let its policy allow both accounts";
        return Some(SCOPE.warning(&queue.name, found, fix));
    }
    None
}
