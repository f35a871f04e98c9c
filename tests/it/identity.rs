//! ACL objects at the sandbox's Consul and at the real one that `CONSUL_BIN` names: a run makes exactly the planned
//! changes, and the next run makes none.

/// Runs each test against the sandbox's Consul and a real one, 1.12 or later.
macro_rules! at_both_consuls {
    ($($test:ident)+) => {
        mod at_the_sandboxs {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(crate::identity::empty_consul().await).await;
                }
            )+
        }
        mod at_a_newer {
            use crate::consul_real::server::{Acls, MANAGEMENT, ConsulRelease, RealConsul};
            use crate::identity::fixture::IdentityFixture;
            $(
                #[tokio::test]
                async fn $test() {
                    let what = stringify!($test).replace('_', " ");
                    let Some(server) = RealConsul::start(ConsulRelease::Newer, &what, Acls::On).await else { return };
                    super::$test(IdentityFixture::at(server.url(), MANAGEMENT)).await;
                }
            )+
        }
    };
}

mod adoption;
mod drifts;
mod faults;
pub(crate) mod fixture;
mod import;
mod lifecycle;
mod logins;
pub(crate) mod removal;

use std::sync::{Arc, Mutex};

use ecs_mesh_clock::Clock;
use ecs_mesh_sandbox::consul::http::{ConsulFaults, ConsulFront, NoConsulFaults, serve};
use ecs_mesh_sandbox::consul::{ConsulConfig, ConsulServer, in_process};
use ecs_mesh_sandbox::endpoints::Endpoints;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use fixture::IdentityFixture;

pub(crate) const MANAGEMENT: &str = "cccccccc-0000-4000-8000-000000000001";

/// An empty Consul of the sandbox.
pub(crate) async fn empty_consul() -> IdentityFixture {
    empty_consul_with(ConsulConfig::default(), Arc::new(NoConsulFaults)).await
}

async fn empty_consul_with(config: ConsulConfig, faults: Arc<dyn ConsulFaults>) -> IdentityFixture {
    let clock = Clock::system();
    let config = ConsulConfig { management_token: Some(MANAGEMENT.to_owned()), ..config };
    let server = Arc::new(Mutex::new(ConsulServer::new(config, clock.now())));
    let no_account = Arc::new(|_: &_| Err("no account".to_owned()));
    let front = ConsulFront::new(server, no_account, faults, Arc::new(move || clock.now()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, front, std::future::pending()));
    IdentityFixture::at(&url, MANAGEMENT)
}

/// The address of a sandbox Consul that accepts logins of this account's roles.
async fn consul_with_account(aws: &Endpoints) -> String {
    let clock = Clock::system();
    let config = ConsulConfig { management_token: Some(MANAGEMENT.to_owned()), ..ConsulConfig::default() };
    let server = Arc::new(Mutex::new(ConsulServer::new(config, clock.now())));
    let account = in_process::account(aws.front.clone(), aws.aws_url.clone());
    let front = ConsulFront::new(server, account, Arc::new(NoConsulFaults), Arc::new(move || clock.now()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, front, std::future::pending()));
    url
}

/// A spec with all fields of open-source Consul.
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

/// Creates all objects of [`everything`].
async fn create_everything(fixture: &IdentityFixture) {
    fixture.run(Some(&everything())).await;
}
