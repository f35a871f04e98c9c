//! Counts the endpoints that services keep while they are deployed.

use std::collections::BTreeMap;

use ecs_mesh_sandbox::aws::Cloud;
use ecs_mesh_sandbox::kuma::{KumaCp, service_of};
use ecs_mesh_sandbox::world::{CLUSTER, ScenarioService, WorldEvent};

/// The deployments in progress, by service.
#[derive(Debug, Default)]
pub(super) struct DeployedEndpoints(BTreeMap<String, EndpointCount>);

#[derive(Clone, Copy, Debug)]
struct EndpointCount {
    /// Endpoints in load balancing when the deployment began.
    before: usize,
    /// The smallest number since.
    least: usize,
}

impl DeployedEndpoints {
    /// Counts the endpoints now. Returns an event for each deployment that has ended.
    pub(super) fn step(
        &mut self,
        cloud: &Cloud,
        kuma: &KumaCp,
        services: &[ScenarioService],
    ) -> Vec<WorldEvent> {
        let mut ended = Vec::new();
        for ScenarioService { name, .. } in services {
            let found = cloud.describe_services(CLUSTER, &[name]).ok();
            let deploys = found.is_some_and(|(found, _)| found.iter().any(|service| service.is_deploying()));
            if deploys {
                let ready = ready_endpoints(kuma, name);
                let count =
                    self.0.entry(name.clone()).or_insert(EndpointCount { before: ready, least: ready });
                count.least = count.least.min(ready);
            } else if let Some(EndpointCount { before, least }) = self.0.remove(name)
                && before > 0
            {
                let message =
                    format!("{name} is deployed; at least {least} of its {before} endpoints stayed ready");
                ended.push(WorldEvent { actor: "world", action: "deployed", message });
            }
        }
        ended
    }
}

/// The endpoints of a service to which clients are routed.
fn ready_endpoints(kuma: &KumaCp, service: &str) -> usize {
    let is_ready = |(mesh, name, body): &(&str, &str, &serde_json::Value)| {
        service_of(body) == Some(service)
            && body["labels"]["ecs-mesh.dev/drain"].is_null()
            && kuma.is_online(mesh, name)
    };
    kuma.dataplanes().filter(is_ready).count()
}
