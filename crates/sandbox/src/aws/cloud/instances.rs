//! Container instances and their EC2 instances. An instance exists once a task was placed on it, and is never replaced.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::DescribeFailure;
use super::protection::check_count;
use crate::aws::{AwsApiResult, Cloud};

/// A container instance.
#[derive(Clone, Debug)]
pub(super) struct ContainerHost {
    ec2_id: String,
    address: Ipv4Addr,
}

impl ContainerHost {
    /// The instance with this number of the account, from 0, outside of the subnet of tasks.
    fn numbered(number: usize) -> Self {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let first = u32::from(Ipv4Addr::new(172, 31, 0, 4));
        Self { ec2_id: format!("i-{number:017x}"), address: first.saturating_add(number).into() }
    }
}

impl Cloud {
    /// Records that a task was placed on the container instance.
    pub(super) fn place(&mut self, instance: Option<String>) {
        let number = self.hosts.len();
        if let Some(instance) = instance {
            self.hosts.entry(instance).or_insert_with(|| ContainerHost::numbered(number));
        }
    }

    /// The response of `DescribeContainerInstances` for up to 100 instances: found and unknown ones.
    ///
    /// # Errors
    /// For no instance, more than 100, and an unknown cluster.
    pub fn describe_container_instances(
        &self,
        cluster: &str,
        instances: &[String],
    ) -> AwsApiResult<(Vec<Value>, Vec<DescribeFailure>)> {
        check_count(instances, 100)?;
        let cluster = self.cluster_name(cluster)?;
        let prefix = self.arn("ecs", &format!("container-instance/{cluster}/"));
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for asked in instances {
            let arn = format!("{prefix}{}", asked.rsplit('/').next().unwrap_or_default());
            match self.hosts.get(&arn) {
                Some(host) => found.push(json!({
                    "containerInstanceArn": arn,
                    "ec2InstanceId": host.ec2_id,
                    "status": "ACTIVE",
                    "agentConnected": true,
                })),
                None => missing.push(DescribeFailure::missing(arn)),
            }
        }
        Ok((found, missing))
    }

    /// The response of EC2's `DescribeInstances` with the filter `instance-id`, in the query protocol's structure.
    pub fn describe_instances(&self, ids: &[String]) -> Value {
        let instances = self.hosts.values().filter(|host| ids.contains(&host.ec2_id));
        let items = instances.map(|host| {
            json!({"instancesSet": [{
                "instanceId": host.ec2_id,
                "instanceState": {"code": 16, "name": "running"},
                "privateIpAddress": host.address,
            }]})
        });
        json!({"reservationSet": items.collect::<Vec<_>>()})
    }

    /// The address of a container instance.
    pub fn host_address(&self, container_instance: &str) -> Option<Ipv4Addr> {
        self.hosts.get(container_instance).map(|host| host.address)
    }
}
