//! Determines whether the datacenter is the primary one.

use serde::Deserialize;

use super::ConsulAclBackend;
use crate::desired::DatacenterRole;
use ecs_mesh_control_plane::MeshError;
use ecs_mesh_control_plane::http::StreamTransport;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentDatacenter {
    config: AgentDatacenterConfig,
    /// Location of the setting in servers before 1.9.
    #[serde(default)]
    debug_config: AgentDebugConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentDatacenterConfig {
    datacenter: String,
    #[serde(flatten)]
    primary: AgentDebugConfig,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct AgentDebugConfig {
    primary_datacenter: String,
}

impl<T: StreamTransport + 'static> ConsulAclBackend<T> {
    pub(super) async fn find_datacenter(&self) -> DatacenterRole {
        match self.consul.observed("acl_snapshot", self.read_datacenter()).await {
            Ok(datacenter) => datacenter,
            Err(error) => DatacenterRole::Unknown(error.message),
        }
    }

    async fn read_datacenter(&self) -> Result<DatacenterRole, MeshError> {
        let Some((_, agent)) = self.consul.agent().await? else { return self.is_single_datacenter().await };
        Ok(match serde_json::from_slice::<AgentDatacenter>(&agent) {
            Ok(agent) => agent.of(self.consul.datacenter()),
            Err(_) => DatacenterRole::Unknown("the agent does not report its datacenter".to_owned()),
        })
    }

    /// A single datacenter is the primary one. Needs no permission.
    async fn is_single_datacenter(&self) -> Result<DatacenterRole, MeshError> {
        let all = self.consul.datacenters().await?;
        Ok(match all.as_slice() {
            [_] => DatacenterRole::Primary,
            _ => DatacenterRole::Unknown(
                "the token that ControlPlane.spec.consul names needs `agent_prefix \"\" { policy = \"read\" }` to see \
                 which of several datacenters is the primary one: add that to one of its policies"
                    .to_owned(),
            ),
        })
    }
}

impl AgentDatacenter {
    fn of(self, wanted: Option<&str>) -> DatacenterRole {
        let here = wanted.unwrap_or(&self.config.datacenter);
        let names = [&self.config.primary.primary_datacenter, &self.debug_config.primary_datacenter];
        // An agent without a primary datacenter is in it.
        let primary = names.into_iter().find(|name| !name.is_empty()).unwrap_or(&self.config.datacenter);
        if here.eq_ignore_ascii_case(primary) { DatacenterRole::Primary } else { DatacenterRole::Secondary }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn primary_datacenter_is_detected_on_all_versions() {
        let secondary = json!({"Config": {"Datacenter": "dc2", "PrimaryDatacenter": "dc1"}});
        let older = json!({"Config": {"Datacenter": "dc2"}, "DebugConfig": {"PrimaryDatacenter": "dc1"}});
        let alone = json!({"Config": {"Datacenter": "dc1"}});
        for (agent, wanted, expected) in [
            (&secondary, None, DatacenterRole::Secondary),
            (&secondary, Some("dc1"), DatacenterRole::Primary),
            (&older, None, DatacenterRole::Secondary),
            (&alone, None, DatacenterRole::Primary),
            (&alone, Some("dc2"), DatacenterRole::Secondary),
        ] {
            let agent: AgentDatacenter = serde_json::from_value(agent.clone()).unwrap();
            assert_eq!(agent.of(wanted), expected);
        }
    }
}
