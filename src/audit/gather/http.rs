//! Reads over HTTP: every wait and every answer bounded, no proxy from the environment, no redirect followed.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::HeaderValue;
use reqwest::{Certificate, Client};
use serde_json::Value;

use super::consul::{Answer, ConsulReads};
use crate::api::ConsulConnection;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Waiting longer for one answer helps nobody who runs an audit.
const DEADLINE: Duration = Duration::from_secs(5);
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// One Consul server.
pub(super) struct HttpReads {
    client: Client,
    base: String,
    query: String,
    token: Option<HeaderValue>,
}

impl HttpReads {
    /// Reads CA and token; connects to nothing yet.
    pub(super) fn connect(connection: &ConsulConnection) -> Result<Self, String> {
        let base = connection.address.trim_end_matches('/').to_owned();
        let builder = Client::builder()
            .user_agent(concat!("ecs-mesh-operator/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(connection.timeout.0.min(DEADLINE))
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let builder = match ca(connection)? {
            Some(certificates) => builder.tls_certs_only(certificates),
            None if !base.starts_with("https://") => builder.tls_certs_only([]),
            None => builder,
        };
        let client = builder.build().map_err(|_| "the client cannot be made: is a CA missing?".to_owned())?;
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [("dc", &connection.datacenter), ("partition", &connection.partition)] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        Ok(Self { client, base, query: query.finish(), token: token(connection)? })
    }
}

#[async_trait]
impl ConsulReads for HttpReads {
    async fn get(&self, path: &str) -> Result<Answer, String> {
        let mark = if self.query.is_empty() { "" } else { "?" };
        let mut request = self.client.get(format!("{}{path}{mark}{}", self.base, self.query));
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token.clone());
        }
        let failed = |error: reqwest::Error| {
            let why = if error.is_timeout() {
                "no whole answer in time"
            } else if error.is_connect() {
                "it is not reached: look at the address, the port's TLS, the CA and the network's rules"
            } else {
                "the connection broke"
            };
            format!("{}: {why}", self.base)
        };
        let mut response = request.send().await.map_err(failed)?;
        let (status, headers) = (response.status().as_u16(), response.headers());
        let filtered = headers.get("X-Consul-Results-Filtered-By-ACLs").is_some_and(|value| value == "true");
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(failed)? {
            if body.len() + part.len() > LARGEST_ANSWER {
                return Err(format!("{}: its answer is longer than any of Consul's", self.base));
            }
            body.extend_from_slice(&part);
        }
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok(Answer { status, filtered, body })
    }
}

fn ca(connection: &ConsulConnection) -> Result<Option<Vec<Certificate>>, String> {
    if connection.ca_secret.is_some() {
        return Err("caSecret is not read by an audit: give caFile or caEnv".to_owned());
    }
    let Some(pem) = text("ca", connection.ca_file.as_deref(), connection.ca_env.as_deref())? else {
        return Ok(None);
    };
    let certificates = Certificate::from_pem_bundle(pem.as_bytes()).unwrap_or_default();
    if certificates.is_empty() {
        return Err("spec.consul's CA holds no certificate in PEM form".to_owned());
    }
    Ok(Some(certificates))
}

fn token(connection: &ConsulConnection) -> Result<Option<HeaderValue>, String> {
    if connection.token_secret.is_some() {
        return Err("tokenSecret is not read by an audit: give tokenFile or tokenEnv".to_owned());
    }
    let Some(token) = text("token", connection.token_file.as_deref(), connection.token_env.as_deref())? else {
        return Ok(None);
    };
    let mut header = HeaderValue::try_from(token.trim())
        .map_err(|_| "spec.consul's token is not one line of printable characters".to_owned())?;
    header.set_sensitive(true);
    Ok(Some(header))
}

fn text(what: &str, file: Option<&std::path::Path>, variable: Option<&str>) -> Result<Option<String>, String> {
    match (file, variable) {
        (Some(file), _) => std::fs::read_to_string(file)
            .map(Some)
            .map_err(|error| format!("spec.consul.{what}File {} cannot be read: {error}", file.display())),
        (None, Some(name)) => std::env::var(name)
            .map(Some)
            .map_err(|_| format!("spec.consul.{what}Env {name} is not set, or is no text")),
        (None, None) => Ok(None),
    }
}
