//! Consul's identity set-up over the wire, against the sandbox's Consul: a plan shows what a run does, a run does it and
//! nothing else, and the next one has nothing left to do.

mod adoption;
pub(crate) mod desk;
mod drifts;
pub(crate) mod removal;
mod trouble;
mod whole;

use std::sync::{Arc, Mutex};

use ecs_mesh_operator::runtime::Clock;
use ecs_mesh_operator::sandbox::consul::http::{ConsulFaults, ConsulFront, NoFaults, serve};
use ecs_mesh_operator::sandbox::consul::{ConsulConfig, ConsulServer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use desk::Desk;

const MANAGEMENT: &str = "cccccccc-0000-4000-8000-000000000001";

/// A sandbox's Consul with nothing in it.
async fn fresh() -> Desk {
    fresh_with(ConsulConfig::default(), Arc::new(NoFaults)).await
}

async fn fresh_with(config: ConsulConfig, faults: Arc<dyn ConsulFaults>) -> Desk {
    let clock = Clock::system();
    let config = ConsulConfig { management_token: Some(MANAGEMENT.to_owned()), ..config };
    let server = Arc::new(Mutex::new(ConsulServer::new(config, clock.now())));
    let nobody = Arc::new(|_: &_| Err("nobody logs in here".to_owned()));
    let front = ConsulFront::new(server, nobody, faults, Arc::new(move || clock.now()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, front, std::future::pending()));
    Desk::at(&url, MANAGEMENT)
}

/// All that can be declared without Enterprise.
pub(crate) fn everything() -> Value {
    json!({
        "controlPlane": "consul",
        "serviceTokens": {
            "boundPrincipals": ["arn:aws:iam::000000000000:role/consul-ecs/*"],
            "gateways": ["mesh-gateway", "terminating-gateway", "api-gateway"],
            "tokenTtl": "24h",
            "stsEndpoint": "https://sts.us-east-1.amazonaws.com",
        },
        "clientTokens": {"boundPrincipals": ["arn:aws:iam::000000000000:role/consul-agents/*"]},
        "anonymousPolicy": "present",
    })
}

/// A Consul with all of it made.
async fn made() -> Desk {
    let desk = fresh().await;
    desk.run(Some(&everything())).await;
    desk
}
