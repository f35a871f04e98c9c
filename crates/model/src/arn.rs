//! ARNs of ECS and IAM resources, in any AWS partition (aws, aws-cn, aws-us-gov, …).
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html>.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{EcsServiceRef, NameError, TaskId, intern};

/// A text is not an ARN of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArnError {
    /// The text has another shape.
    #[error("{found:?} is not the ARN of {kind}: expected {expected}")]
    Shape {
        /// The kind of resource that was expected.
        kind: &'static str,
        /// The rejected text, cut to 120 characters.
        found: String,
        /// The shape that is allowed.
        expected: &'static str,
    },
    /// The task id in the ARN has characters that are not allowed.
    #[error(transparent)]
    Id(#[from] NameError),
}

/// The five parts after `arn:`.
struct ArnParts<'a> {
    partition: &'a str,
    service: &'a str,
    region: &'a str,
    account: &'a str,
    resource: &'a str,
}

fn split(text: &str) -> Option<ArnParts<'_>> {
    let mut parts = text.splitn(6, ':');
    if parts.next()? != "arn" {
        return None;
    }
    let found = ArnParts {
        partition: parts.next()?,
        service: parts.next()?,
        region: parts.next()?,
        account: parts.next()?,
        resource: parts.next()?,
    };
    let sane = found.partition.starts_with("aws")
        && is_region_or_none(found.region)
        && found.account.len() == 12
        && found.account.bytes().all(|b| b.is_ascii_digit())
        && text.len() <= 2048
        && text.bytes().all(|b| b.is_ascii_graphic());
    sane.then_some(found)
}

/// A Region, which becomes a part of host names, or none, as of IAM.
fn is_region_or_none(text: &str) -> bool {
    text.len() <= 32 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn shape(kind: &'static str, text: &str, expected: &'static str) -> ArnError {
    ArnError::Shape { kind, found: text.chars().take(120).collect(), expected }
}

/// Region, account and name of the ARN of an event bus.
pub(super) fn event_bus_parts(text: &str) -> Option<(&str, &str, &str)> {
    let parts = split(text).filter(|parts| parts.service == "events" && !parts.region.is_empty())?;
    Some((parts.region, parts.account, parts.resource.strip_prefix("event-bus/")?))
}

macro_rules! arn_text {
    ($name:ident) => {
        impl $name {
            /// The whole ARN.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The AWS partition (`aws`, `aws-cn`, `aws-us-gov`, …).
            pub fn partition(&self) -> &str {
                self.part(1)
            }

            /// The account, 12 digits.
            pub fn account(&self) -> &str {
                self.part(4)
            }

            fn part(&self, index: usize) -> &str {
                // The constructor has checked that all six parts are there.
                self.0.splitn(6, ':').nth(index).unwrap_or_default()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = ArnError;
            fn try_from(text: String) -> Result<Self, ArnError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(arn: $name) -> Self {
                arn.0.as_ref().to_owned()
            }
        }
    };
}

/// `arn:PARTITION:ecs:REGION:ACCOUNT:cluster/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterArn(Arc<str>);
arn_text!(ClusterArn);

/// By text. The ARNs of one cluster share their text, and maps by task compare it at each step: the same text is not read.
impl Ord for ClusterArn {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl PartialOrd for ClusterArn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl ClusterArn {
    /// Reads a cluster's ARN.
    pub fn parse(text: &str) -> Result<Self, ArnError> {
        let error = || shape("an ECS cluster", text, "arn:PARTITION:ecs:REGION:ACCOUNT:cluster/NAME");
        let parts = split(text).ok_or_else(error)?;
        let name = parts.resource.strip_prefix("cluster/").ok_or_else(error)?;
        if parts.service != "ecs" || parts.region.is_empty() || name.is_empty() || name.contains('/') {
            return Err(error());
        }
        Ok(Self(intern(text)))
    }

    /// The cluster's name, the last part.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The Region that the cluster is in.
    pub fn region(&self) -> &str {
        self.part(3)
    }

    /// The ARN of the cluster of this name in the same account and Region.
    ///
    /// # Errors
    /// If the name is empty or contains `/`.
    pub fn sibling(&self, name: &str) -> Result<Self, ArnError> {
        let prefix = &self.0[..self.0.len() - self.name().len()];
        Self::parse(&format!("{prefix}{name}"))
    }

    /// The ARN of the task with this id in this cluster.
    pub fn task(&self, id: TaskId) -> TaskArn {
        TaskArn { cluster: self.clone(), id }
    }
}

/// `arn:PARTITION:ecs:REGION:ACCOUNT:task/CLUSTER/ID`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskArn {
    cluster: ClusterArn,
    id: TaskId,
}

impl TaskArn {
    /// Reads a task's ARN in the long form. The short form names no cluster: see [`Self::parse_in`].
    pub fn parse(text: &str) -> Result<Self, ArnError> {
        let error = || shape("an ECS task", text, "arn:PARTITION:ecs:REGION:ACCOUNT:task/CLUSTER/ID");
        let parts = split(text).ok_or_else(error)?;
        let (cluster, id) =
            parts.resource.strip_prefix("task/").and_then(|rest| rest.split_once('/')).ok_or_else(error)?;
        if parts.service != "ecs" || cluster.is_empty() || id.contains('/') {
            return Err(error());
        }
        let cluster =
            format!("arn:{}:ecs:{}:{}:cluster/{cluster}", parts.partition, parts.region, parts.account);
        Ok(Self { cluster: ClusterArn::parse(&cluster)?, id: TaskId::parse(id)? })
    }

    /// Reads the ARN of a task of `cluster`, also in the short form `arn:…:task/ID`, which services created before the
    /// long-ARN opt-in may still give. The result has the long form.
    ///
    /// Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-arn-migration.html>.
    ///
    /// # Errors
    /// When the text is no task's ARN, or names another cluster, Region, account or partition.
    pub fn parse_in(text: &str, cluster: &ClusterArn) -> Result<Self, ArnError> {
        let error = || {
            shape("an ECS task of the cluster", text, "arn:PARTITION:ecs:REGION:ACCOUNT:task/[CLUSTER/]ID")
        };
        let parts = split(text).ok_or_else(error)?;
        let same_place = parts.service == "ecs"
            && parts.partition == cluster.partition()
            && parts.region == cluster.region()
            && parts.account == cluster.account();
        let rest = parts.resource.strip_prefix("task/").filter(|_| same_place).ok_or_else(error)?;
        let id = match rest.split_once('/') {
            Some((name, id)) if name == cluster.name() => id,
            Some(_) => return Err(error()),
            None => rest,
        };
        Ok(cluster.task(TaskId::parse(id)?))
    }

    /// The cluster that the task runs in.
    pub fn cluster(&self) -> &ClusterArn {
        &self.cluster
    }

    /// The last part of the ARN.
    pub fn id(&self) -> &TaskId {
        &self.id
    }
}

impl fmt::Display for TaskArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cluster = &self.cluster;
        write!(
            f,
            "arn:{}:ecs:{}:{}:task/{}/{}",
            cluster.partition(),
            cluster.region(),
            cluster.account(),
            cluster.name(),
            self.id
        )
    }
}

impl TryFrom<String> for TaskArn {
    type Error = ArnError;
    fn try_from(text: String) -> Result<Self, ArnError> {
        Self::parse(&text)
    }
}

impl From<TaskArn> for String {
    fn from(arn: TaskArn) -> Self {
        arn.to_string()
    }
}

/// `arn:PARTITION:ecs:REGION:ACCOUNT:task-definition/FAMILY:REVISION`. A revision never changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskDefinitionArn(Arc<str>);
arn_text!(TaskDefinitionArn);

impl TaskDefinitionArn {
    /// The Region that the task definition is in.
    pub fn region(&self) -> &str {
        self.part(3)
    }

    /// Reads a task definition's ARN, which must name a revision.
    pub fn parse(text: &str) -> Result<Self, ArnError> {
        let error = || {
            shape(
                "a task definition",
                text,
                "arn:PARTITION:ecs:REGION:ACCOUNT:task-definition/FAMILY:REVISION",
            )
        };
        let parts = split(text).ok_or_else(error)?;
        let named = parts.resource.strip_prefix("task-definition/").ok_or_else(error)?;
        let (family, revision) = named.rsplit_once(':').ok_or_else(error)?;
        if parts.service != "ecs" || family.is_empty() || revision.parse::<u64>().is_err() {
            return Err(error());
        }
        Ok(Self(intern(text)))
    }

    /// The family, without the revision.
    pub fn family(&self) -> &str {
        let named = self.0.rsplit('/').next().unwrap_or_default();
        named.rsplit_once(':').map_or(named, |(family, _)| family)
    }
}

/// `arn:PARTITION:ecs:REGION:ACCOUNT:service/CLUSTER/NAME`, or the short form `…:service/NAME`, which services created
/// before the long-ARN opt-in have.
///
/// Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-arn-migration.html>.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EcsServiceArn(Arc<str>);
arn_text!(EcsServiceArn);

impl EcsServiceArn {
    /// Reads a service's ARN in either form.
    pub fn parse(text: &str) -> Result<Self, ArnError> {
        let error =
            || shape("an ECS service", text, "arn:PARTITION:ecs:REGION:ACCOUNT:service/[CLUSTER/]NAME");
        let parts = split(text).ok_or_else(error)?;
        let named = parts.resource.strip_prefix("service/").ok_or_else(error)?;
        let is_named = named.split('/').count() <= 2 && named.split('/').all(|part| !part.is_empty());
        if parts.service != "ecs" || parts.region.is_empty() || !is_named {
            return Err(error());
        }
        Ok(Self(intern(text)))
    }

    /// The Region that the service is in.
    pub fn region(&self) -> &str {
        self.part(3)
    }

    /// The service, if it may be one of this cluster: the short form names no cluster.
    pub fn in_cluster(&self, cluster: &ClusterArn) -> Option<EcsServiceRef> {
        let same_place = self.partition() == cluster.partition()
            && self.region() == cluster.region()
            && self.account() == cluster.account();
        let named = self.part(5).strip_prefix("service/").filter(|_| same_place)?;
        let name = match named.split_once('/') {
            Some((of, name)) => Some(name).filter(|_| of == cluster.name())?,
            None => named,
        };
        Some(EcsServiceRef::new(cluster, name))
    }
}

/// `arn:PARTITION:ecs:REGION:ACCOUNT:container-instance/CLUSTER/ID`, or the short form `…:container-instance/ID` of
/// instances registered before the long-ARN opt-in.
///
/// Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-account-settings.html>.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerInstanceArn(Arc<str>);
arn_text!(ContainerInstanceArn);

impl ContainerInstanceArn {
    /// Reads a container instance's ARN in either form.
    pub fn parse(text: &str) -> Result<Self, ArnError> {
        let error = || {
            shape(
                "a container instance",
                text,
                "arn:PARTITION:ecs:REGION:ACCOUNT:container-instance/[CLUSTER/]ID",
            )
        };
        let parts = split(text).ok_or_else(error)?;
        let named = parts.resource.strip_prefix("container-instance/").ok_or_else(error)?;
        let is_named = named.split('/').count() <= 2 && named.split('/').all(|part| !part.is_empty());
        if parts.service != "ecs" || parts.region.is_empty() || !is_named {
            return Err(error());
        }
        Ok(Self(intern(text)))
    }
}

/// `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoleArn(Arc<str>);
arn_text!(RoleArn);

impl RoleArn {
    /// Reads a role's ARN.
    pub fn parse(text: &str) -> Result<Self, ArnError> {
        let error = || shape("an IAM role", text, "arn:PARTITION:iam::ACCOUNT:role/PATH/NAME");
        let parts = split(text).ok_or_else(error)?;
        let named = parts.resource.strip_prefix("role/").ok_or_else(error)?;
        if parts.service != "iam" || named.rsplit('/').next().is_none_or(str::is_empty) {
            return Err(error());
        }
        Ok(Self(intern(text)))
    }

    /// The role's path and name, such as `/team-a/web`; `/web` for a role without a path.
    pub fn path_and_name(&self) -> &str {
        self.0.split_once(":role").map_or("", |(_, path)| path)
    }

    /// The role's name without its path, as IAM's API expects it. Names are unique within an account across all paths.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str =
        "arn:aws-us-gov:ecs:us-gov-west-1:111122223333:task/prod/3f2a9c0d5e6b4a718293a4b5c6d7e8f9";

    #[test]
    fn task_arn_round_trips_in_any_partition() {
        let task = TaskArn::parse(TASK).unwrap();
        assert_eq!(task.to_string(), TASK);
        assert_eq!(task.cluster().as_str(), "arn:aws-us-gov:ecs:us-gov-west-1:111122223333:cluster/prod");
        assert_eq!(task.id().as_str(), "3f2a9c0d5e6b4a718293a4b5c6d7e8f9");
    }

    #[test]
    fn short_task_arn_gets_its_cluster_from_the_context() {
        let cluster = ClusterArn::parse("arn:aws:ecs:eu-west-1:111122223333:cluster/prod").unwrap();
        let id = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
        for text in [
            format!("arn:aws:ecs:eu-west-1:111122223333:task/{id}"),
            format!("arn:aws:ecs:eu-west-1:111122223333:task/prod/{id}"),
        ] {
            let task = TaskArn::parse_in(&text, &cluster).unwrap();
            assert_eq!((task.cluster(), task.id().as_str()), (&cluster, id), "{text}");
        }
        for text in [
            "arn:aws:ecs:eu-west-1:111122223333:task/other/3f2a",
            "arn:aws:ecs:us-east-1:111122223333:task/3f2a",
            "arn:aws:ecs:eu-west-1:444455556666:task/3f2a",
            "arn:aws-cn:ecs:eu-west-1:111122223333:task/3f2a",
            "arn:aws:ecs:eu-west-1:111122223333:task/",
            "arn:aws:ecs:eu-west-1:111122223333:service/3f2a",
        ] {
            assert!(TaskArn::parse_in(text, &cluster).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn region_that_is_no_part_of_a_host_name_is_rejected() {
        for region in
            ["evil.example/", "x@evil.example", "EU-WEST-1", "eu_west_1", "eu-west-1#", &"e".repeat(33)]
        {
            let arn = |resource: &str| format!("arn:aws:ecs:{region}:111122223333:{resource}");
            assert!(ClusterArn::parse(&arn("cluster/prod")).is_err(), "{region}");
            assert!(TaskArn::parse(&arn("task/prod/3f2a")).is_err(), "{region}");
        }
    }

    #[test]
    fn invalid_task_arn_is_rejected_with_expected_shape() {
        for bad in [
            "",
            "arn:aws:ecs:eu-west-1:111122223333:task/3f2a",
            "arn:aws:ecs:eu-west-1:1111:task/c/3f2a",
            "arn:aws:ecs:eu-west-1:111122223333:cluster/c",
            "arn:aws:ecs:eu-west-1:111122223333:task/c/../x",
            "arn:aws:ecs::111122223333:task/c/3f2a",
        ] {
            assert!(TaskArn::parse(bad).is_err(), "{bad:?} was accepted");
        }
        let error = TaskArn::parse("x").unwrap_err().to_string();
        assert!(error.contains("task/CLUSTER/ID"), "{error}");
    }

    #[test]
    fn service_arn_names_its_cluster_or_none() {
        let cluster = ClusterArn::parse("arn:aws:ecs:eu-west-1:111122223333:cluster/prod").unwrap();
        let service = |text: &str| EcsServiceArn::parse(text).unwrap().in_cluster(&cluster);
        for text in [
            "arn:aws:ecs:eu-west-1:111122223333:service/prod/web",
            "arn:aws:ecs:eu-west-1:111122223333:service/web",
        ] {
            assert_eq!(service(text), Some(EcsServiceRef::new(&cluster, "web")), "{text}");
        }
        for text in [
            "arn:aws:ecs:eu-west-1:111122223333:service/other/web",
            "arn:aws:ecs:us-east-1:111122223333:service/web",
            "arn:aws:ecs:eu-west-1:444455556666:service/prod/web",
        ] {
            assert_eq!(service(text), None, "{text}");
        }
        for text in [
            "arn:aws:ecs:eu-west-1:111122223333:service/",
            "arn:aws:ecs:eu-west-1:111122223333:service/a/b/c",
            "arn:aws:ecs:eu-west-1:111122223333:task/prod/web",
        ] {
            assert!(EcsServiceArn::parse(text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn container_instance_arn_may_name_no_cluster() {
        for text in [
            "arn:aws:ecs:eu-west-1:111122223333:container-instance/prod/3f2a",
            "arn:aws:ecs:eu-west-1:111122223333:container-instance/3f2a",
        ] {
            assert_eq!(ContainerInstanceArn::parse(text).unwrap().as_str(), text);
        }
        for text in [
            "arn:aws:ecs:eu-west-1:111122223333:container-instance/",
            "arn:aws:ecs:eu-west-1:111122223333:container-instance/a/b/c",
            "arn:aws:ecs:eu-west-1:111122223333:task/prod/3f2a",
            "arn:aws:ec2:eu-west-1:111122223333:instance/i-0123",
        ] {
            assert!(ContainerInstanceArn::parse(text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn role_name_excludes_the_path() {
        let role = RoleArn::parse("arn:aws:iam::111122223333:role/consul-ecs/team/kv-task").unwrap();
        assert_eq!((role.name(), role.account()), ("kv-task", "111122223333"));
    }

    #[test]
    fn task_definition_arn_requires_a_revision() {
        let arn = "arn:aws:ecs:eu-west-1:111122223333:task-definition/kv:3";
        assert_eq!(TaskDefinitionArn::parse(arn).unwrap().family(), "kv");
        assert!(TaskDefinitionArn::parse("arn:aws:ecs:eu-west-1:111122223333:task-definition/kv").is_err());
    }
}
