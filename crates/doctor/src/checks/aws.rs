//! Who asks, and whether all is in one place.

use std::time::SystemTime;

use crate::catalogue::{CERTIFICATES, CREDENTIALS, IDENTITY, REGION, SCOPE};
use crate::facts::{AwsFacts, DoctorFacts, AwsUnavailable};
use crate::scope::{DoctorScope, partition_of};
use crate::report::CheckResult;
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
    let trust = CERTIFICATES.ok("AWS", "there are some, or the endpoint that is set needs none");
    let mut checks = vec![REGION.ok("AWS", &aws.region), trust, credentials(aws), identity(aws)];
    checks.extend(scope(facts, aws));
    checks
}

fn credentials(aws: &AwsFacts) -> CheckResult {
    match &aws.credentials {
        Ok(end) => {
            let life = match end {
                Some(end) => remaining(*end),
                None => "which do not end".to_owned(),
            };
            CREDENTIALS.ok(aws.source, format!("found, {life}"))
        }
        Err(error) => CREDENTIALS.error(aws.source, &error.message, error.hint.trim_start_matches("; ")),
    }
}

fn remaining(end: SystemTime) -> String {
    match end.duration_since(SystemTime::now()) {
        Ok(left) => format!("which end in {} min and are fetched anew", left.as_secs() / 60),
        Err(_) => "which have ended".to_owned(),
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
                _ => IDENTITY.unknown(
                    "AWS",
                    found,
                    format!("{fix}; STS has an endpoint of its own to be reached"),
                ),
            }
        }
    }
}

fn scope(facts: &DoctorFacts, aws: &AwsFacts) -> Vec<CheckResult> {
    let place = match &facts.scope {
        Ok(place) => place,
        Err(error) => {
            let fix = "`aws sqs get-queue-url --queue-name NAME` prints it";
            return vec![SCOPE.error(facts.queue_url.clone().unwrap_or_default(), error, fix)];
        }
    };
    let account = aws.caller.as_ref().ok().map(|caller| caller.account.as_str());
    let partition = aws.caller.as_ref().ok().and_then(|caller| caller.arn.split(':').nth(1));
    let partition = partition.unwrap_or_else(|| partition_of(&aws.region));
    let mut checks = unreadable_clusters(place, aws, account, partition);
    if let Some(check) = queue(place, aws, account) {
        checks.push(check);
    }
    if checks.is_empty() {
        let of = account.map_or_else(String::new, |account| format!(", account {account}"));
        checks.push(SCOPE.ok("all", format!("partition {partition}, Region {}{of}", aws.region)));
    }
    checks
}

/// Clusters that nobody here can read.
fn unreadable_clusters(scope: &DoctorScope, aws: &AwsFacts, account: Option<&str>, partition: &str) -> Vec<CheckResult> {
    let literal = scope.clusters.iter().filter(|cluster| cluster.glob.is_literal());
    let named = literal.filter_map(|cluster| ClusterArn::parse(cluster.glob.as_str()).ok());
    let wrong = named.filter_map(|cluster| {
        let (what, theirs, ours) = if cluster.partition() != partition {
            ("partition", cluster.partition(), partition)
        } else if account.is_some_and(|account| account != cluster.account()) {
            ("account", cluster.account(), account.unwrap_or_default())
        } else if cluster.region() != aws.region {
            ("Region", cluster.region(), aws.region.as_str())
        } else {
            return None;
        };
        let found = format!("the cluster is in {what} {theirs}, and the caller in {ours}");
        let fix = "run an operator there, with credentials of that account and --region; or correct \
                    MeshBinding.spec.selector.clusters";
        Some(SCOPE.error(cluster.as_str(), found, fix))
    });
    wrong.collect()
}

fn queue(scope: &DoctorScope, aws: &AwsFacts, account: Option<&str>) -> Option<CheckResult> {
    let queue = scope.queue.as_ref()?;
    let region = queue.region.as_deref().unwrap_or(&aws.region);
    if region != aws.region {
        let found = format!("the queue is in Region {region}, and the clusters' events in {}", aws.region);
        return Some(SCOPE.error(
            &queue.name,
            found,
            "make the queue in the clusters' Region: rules send to no other",
        ));
    }
    if account.is_some_and(|account| account != queue.account) {
        let found = format!(
            "the queue is in account {}, and the caller in {}",
            queue.account,
            account.unwrap_or_default()
        );
        let fix = "use a queue of the caller's account, or let its policy allow both accounts";
        return Some(SCOPE.warning(&queue.name, found, fix));
    }
    None
}
