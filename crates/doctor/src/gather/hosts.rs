//! Attempts the reads that tasks in network mode `host` need.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalogue;
use crate::facts::ReadAttempt;
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind, Ec2, Ecs};
use ecs_mesh_model::{ClusterArn, ContainerInstanceArn};

/// The id of an instance that does not exist.
const NO_INSTANCE: &str = "i-00000000000000000";

/// Reads one container instance of each cluster, and the addresses of its EC2 instance.
pub(super) async fn try_hosts(
    ecs: &dyn Ecs,
    ec2: &dyn Ec2,
    region: &str,
    instances: &BTreeMap<ClusterArn, ContainerInstanceArn>,
) -> Vec<ReadAttempt> {
    let (mut reads, mut ids) = (Vec::new(), BTreeSet::new());
    for (cluster, instance) in instances {
        let outcome = describe(ecs, cluster, instance).await;
        if let Ok(id) = &outcome {
            ids.insert(id.clone());
        }
        let outcome = outcome.map(|id| format!("{instance} is the EC2 instance {id}"));
        reads.push(ReadAttempt { id: catalogue::DESCRIBE_HOSTS, subject: cluster.to_string(), outcome });
    }
    if !instances.is_empty() {
        let (id, subject) = (catalogue::DESCRIBE_INSTANCES, region.to_owned());
        reads.push(ReadAttempt { id, subject, outcome: addresses(ec2, ids).await });
    }
    reads
}

/// The id of the container instance's EC2 instance.
async fn describe(
    ecs: &dyn Ecs,
    cluster: &ClusterArn,
    instance: &ContainerInstanceArn,
) -> Result<String, AwsError> {
    let described = ecs.describe_container_instances(cluster, std::slice::from_ref(instance)).await?;
    let reason = described.failed.get(instance).map_or("the response does not mention it", String::as_str);
    let unknown = || not_found("ecs:DescribeContainerInstances", instance.as_str(), reason);
    described.ec2_ids.get(instance).cloned().ok_or_else(unknown)
}

/// Reads the addresses of these instances. Without one, the answer about a missing instance shows whether the call is
/// allowed.
async fn addresses(ec2: &dyn Ec2, ids: BTreeSet<String>) -> Result<String, AwsError> {
    if ids.is_empty() {
        let allowed = "the call is allowed; no container instance has an EC2 instance to read";
        return ec2.instance_addresses(&[NO_INSTANCE.to_owned()].into()).await.map(|_| allowed.to_owned());
    }
    let found = ec2.instance_addresses(&ids).await?;
    let has_address = |id: &&String| found.get(*id).is_some_and(|addresses| !addresses.is_empty());
    match ids.iter().find(|id| !has_address(id)) {
        Some(id) => Err(not_found("ec2:DescribeInstances", id, "EC2 shows no address of the instance")),
        None => Ok(format!("the addresses of {} instances were read", ids.len())),
    }
}

fn not_found(operation: &'static str, resource: &str, message: &str) -> AwsError {
    AwsError {
        kind: AwsErrorKind::NotFound,
        operation,
        resource: resource.to_owned(),
        code: resource.to_owned(),
        message: message.to_owned(),
        hint: "; run the doctor again; if it persists, replace the container instance, whose tasks are not registered",
    }
}

#[cfg(test)]
mod tests {
    use ecs_mesh_aws::fakes::{FakeEc2, FakeEcs, cluster, instance_arn};

    use super::*;

    /// The attempts on instance 1: the check's name, and what was found, or the kind of the failure and its message.
    async fn attempts(ecs: &FakeEcs, ec2: &FakeEc2) -> Vec<(&'static str, Result<String, AwsError>)> {
        let reads = try_hosts(ecs, ec2, "eu-west-1", &[(cluster(), instance_arn(1))].into()).await;
        reads.into_iter().map(|read| (read.id.name, read.outcome)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn both_calls_are_tried_on_an_instance() {
        let (ecs, ec2) = (FakeEcs::default(), FakeEc2::default());
        ec2.set(1, "10.0.2.1");
        let found = attempts(&ecs, &ec2).await;
        let names: Vec<_> = found.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["permissions.describe-container-instances", "permissions.describe-instances"]);
        assert!(found[0].1.as_ref().unwrap().contains("is the EC2 instance i-1"), "{found:?}");
        assert_eq!(found[1].1.as_ref().unwrap(), "the addresses of 1 instances were read");
        assert!(try_hosts(&ecs, &ec2, "eu-west-1", &BTreeMap::new()).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn instance_that_ecs_or_ec2_lacks_is_an_error() {
        let (ecs, ec2) = (FakeEcs::default(), FakeEc2::default());
        let found = attempts(&ecs, &ec2).await;
        let error = found[1].1.as_ref().unwrap_err();
        assert_eq!((error.kind, error.operation), (AwsErrorKind::NotFound, "ec2:DescribeInstances"));
        ecs.missing_instances.lock().unwrap().push(instance_arn(1));
        let found = attempts(&ecs, &ec2).await;
        let error = found[0].1.as_ref().unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (AwsErrorKind::NotFound, "MISSING"));
    }

    #[tokio::test(start_paused = true)]
    async fn ec2_is_tried_although_ecs_denies() {
        let (ecs, ec2) = (FakeEcs::default(), FakeEc2::default());
        *ecs.fails.lock().unwrap() = Some(AwsErrorKind::Denied);
        let found = attempts(&ecs, &ec2).await;
        assert_eq!(found[0].1.as_ref().unwrap_err().kind, AwsErrorKind::Denied);
        assert!(found[1].1.as_ref().unwrap().starts_with("the call is allowed"), "{found:?}");
        *ec2.fails.lock().unwrap() = Some(AwsErrorKind::Denied);
        let found = attempts(&ecs, &ec2).await;
        assert_eq!(found[1].1.as_ref().unwrap_err().kind, AwsErrorKind::Denied);
    }
}
