//! Container instances and their EC2 instances. An instance exists once a task was placed on it, and is never replaced.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::protection::check_count;
use super::{DescribeFailure, task};
use crate::aws::{AwsApiResult, Cloud, CloudTask};

/// A container instance.
#[derive(Clone, Debug)]
pub(super) struct ContainerHost {
    /// `mi-…` of an external instance, which EC2 does not know.
    ec2_id: String,
    address: Ipv4Addr,
    /// Whether ECS Managed Instances runs it: EC2 shows it on request only.
    is_managed: bool,
}

impl ContainerHost {
    /// The instance with this number of the account, from 0, outside of the subnet of tasks.
    fn numbered(number: usize, launch_type: &str) -> Self {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let first = u32::from(Ipv4Addr::new(172, 31, 0, 4));
        let prefix = if launch_type == "EXTERNAL" { "mi" } else { "i" };
        Self {
            ec2_id: format!("{prefix}-{:017x}", number.saturating_add(1)),
            address: first.saturating_add(number).into(),
            is_managed: launch_type == "MANAGED_INSTANCES",
        }
    }

    fn is_shown_by_ec2(&self, include_managed: bool) -> bool {
        self.ec2_id.starts_with("i-") && (include_managed || !self.is_managed)
    }
}

impl Cloud {
    /// Records that a task was placed on its container instance.
    pub(super) fn place(&mut self, task: &CloudTask) {
        let number = self.hosts.len();
        if let Some(instance) = task.container_instance_arn() {
            let numbered = || ContainerHost::numbered(number, &task.launch_type);
            self.hosts.entry(instance).or_insert_with(numbered);
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

    /// The response of EC2's `DescribeInstances` with the filter `instance-id`, in the query protocol's structure. The
    /// account hides managed resources, so those of ECS Managed Instances are shown on request only.
    ///
    /// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ManagedResourceVisibilitySettings.html>.
    pub fn describe_instances(&self, ids: &[String], include_managed: bool) -> Value {
        let hosts = self.hosts.values().filter(|host| host.is_shown_by_ec2(include_managed));
        let items = hosts.filter(|host| ids.contains(&host.ec2_id)).map(|host| {
            let v6 = self.v6_of(host.address);
            let all_v6: Vec<_> = v6.iter().map(|address| json!({"ipv6Address": address})).collect();
            json!({"instancesSet": [{
                "instanceId": host.ec2_id,
                "instanceState": {"code": 16, "name": "running"},
                "privateIpAddress": host.address,
                "ipv6Address": v6,
                "networkInterfaceSet": [{
                    "attachment": {"deviceIndex": 0, "status": "attached"},
                    "privateIpAddress": host.address,
                    "ipv6AddressesSet": all_v6,
                }],
            }]})
        });
        json!({"reservationSet": items.collect::<Vec<_>>()})
    }

    /// The IPv4 address under which others reach a task: its own, or in network mode `host` that of its instance.
    pub fn reachable_address(&self, task: &CloudTask) -> Option<Ipv4Addr> {
        let of_host = || {
            let instance =
                task.container_instance_arn().filter(|_| task.definition.network_mode == "host")?;
            self.hosts.get(&instance).map(|host| host.address)
        };
        task.address().or_else(of_host)
    }

    /// The IPv6 address of the interface with this IPv4 address, if the subnets are dual-stack.
    fn v6_of(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        self.config.dual_stack.then(|| task::v6_of(address))
    }
}
