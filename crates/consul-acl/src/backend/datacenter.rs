//! Whether the datacenter that the objects are in is the primary one.

use serde::Deserialize;

use super::ConsulAclBackend;
use crate::desired::Datacenter;
use ecs_mesh_control_plane::MeshError;
use ecs_mesh_control_plane::http::StreamTransport;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Agent {
    config: Config,
    /// Where servers before 1.9 have it.
    #[serde(default)]
    debug_config: Primary,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    datacenter: String,
    #[serde(flatten)]
    primary: Primary,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Primary {
    primary_datacenter: String,
}

impl<T: StreamTransport + 'static> ConsulAclBackend<T> {
    pub(super) async fn find_datacenter(&self) -> Datacenter {
        match self.consul.observed("objects", self.ask_for_datacenter()).await {
            Ok(datacenter) => datacenter,
            Err(error) => Datacenter::Unknown(error.message),
        }
    }

    async fn ask_for_datacenter(&self) -> Result<Datacenter, MeshError> {
        let Some((_, agent)) = self.consul.agent().await? else { return self.is_the_only_one().await };
        Ok(match serde_json::from_slice::<Agent>(&agent) {
            Ok(agent) => agent.of(self.consul.datacenter()),
            Err(_) => Datacenter::Unknown("the agent does not say which one it is of".to_owned()),
        })
    }

    /// Where there is one datacenter, it is the primary one. Needs no permission.
    async fn is_the_only_one(&self) -> Result<Datacenter, MeshError> {
        let all = self.consul.datacenters().await?;
        Ok(match all.as_slice() {
            [_] => Datacenter::Primary,
            _ => Datacenter::Unknown(
                "the token that ControlPlane.spec.consul names needs `agent_prefix \"\" { policy = \"read\" }` to see \
                 which of several datacenters is the primary one: add that to one of its policies"
                    .to_owned(),
            ),
        })
    }
}

impl Agent {
    fn of(self, wanted: Option<&str>) -> Datacenter {
        let here = wanted.unwrap_or(&self.config.datacenter);
        let said = [&self.config.primary.primary_datacenter, &self.debug_config.primary_datacenter];
        // Who names none is its own.
        let primary = said.into_iter().find(|name| !name.is_empty()).unwrap_or(&self.config.datacenter);
        if here.eq_ignore_ascii_case(primary) { Datacenter::Primary } else { Datacenter::Secondary }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_primary_one_is_told_from_the_others_however_old_the_servers_are() {
        let secondary = json!({"Config": {"Datacenter": "dc2", "PrimaryDatacenter": "dc1"}});
        let older = json!({"Config": {"Datacenter": "dc2"}, "DebugConfig": {"PrimaryDatacenter": "dc1"}});
        let alone = json!({"Config": {"Datacenter": "dc1"}});
        for (agent, wanted, expected) in [
            (&secondary, None, Datacenter::Secondary),
            (&secondary, Some("dc1"), Datacenter::Primary),
            (&older, None, Datacenter::Secondary),
            (&alone, None, Datacenter::Primary),
            (&alone, Some("dc2"), Datacenter::Secondary),
        ] {
            let agent: Agent = serde_json::from_value(agent.clone()).unwrap();
            assert_eq!(agent.of(wanted), expected);
        }
    }
}
