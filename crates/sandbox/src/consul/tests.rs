//! Tests of the server.

mod acl;
mod catalog;
mod locks;
mod logins;

use serde_json::{Value, json};

use ecs_mesh_model::Timestamp;

use super::{ConsulConfig, ConsulRequest, ConsulResponse, ConsulServer};

pub(super) const MANAGEMENT: &str = "cccccccc-0000-4000-8000-000000000001";
pub(super) const START: Timestamp = Timestamp(1_800_000_000_000);

/// A server and its current time.
pub(super) struct ConsulServerFixture {
    pub(super) server: ConsulServer,
    pub(super) now: Timestamp,
}

impl ConsulServerFixture {
    pub(super) fn new() -> Self {
        Self::with(ConsulConfig::default())
    }

    pub(super) fn with(config: ConsulConfig) -> Self {
        let config = ConsulConfig { management_token: Some(MANAGEMENT.to_owned()), ..config };
        Self { server: ConsulServer::new(config, START), now: START }
    }

    pub(super) fn call(
        &mut self,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: &Value,
    ) -> ConsulResponse {
        self.server.handle(self.now, &ConsulRequest::new(method, path, token, body))
    }

    /// Sends a request with the management token, and requires success.
    pub(super) fn done(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let response = self.call(Some(MANAGEMENT), method, path, body);
        let text = String::from_utf8_lossy(&response.body);
        assert_eq!(response.status, 200, "{method} {path}: {text}");
        response.json()
    }

    pub(super) fn get(&mut self, path: &str) -> Value {
        self.done("GET", path, &Value::Null)
    }

    /// Creates a token with these rules and returns its secret.
    pub(super) fn token(&mut self, rules: &str) -> String {
        let name = format!("p{}", self.server.index());
        let policy = self.done("PUT", "/v1/acl/policy", &json!({"Name": name, "Rules": rules}));
        let token = self.done("PUT", "/v1/acl/token", &json!({"Policies": [{"ID": policy["ID"]}]}));
        token["SecretID"].as_str().unwrap().to_owned()
    }

    pub(super) fn passes(&mut self, seconds: u64) {
        self.now = self.now.plus(std::time::Duration::from_secs(seconds));
    }
}
