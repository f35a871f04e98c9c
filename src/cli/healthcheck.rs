//! `ecs-mesh-operator healthcheck`: the health check of a container image without a shell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use super::output::print;
use crate::telemetry::server::ListenAddress;

/// Shorter than the minimum timeout of an ECS container health check (2 s), so that the reason is printed before ECS ends
/// the command.
const TIMEOUT: Duration = Duration::from_millis(1_500);

/// Limit of the printed part of a response body.
const MAX_BODY_SHOWN: usize = 2_000;

/// Arguments of `healthcheck`.
#[derive(clap::Args)]
pub(super) struct HealthcheckArgs {
    /// Metrics address of the operator; 0.0.0.0 and [::] mean loopback
    #[arg(long, env = "ECS_MESH_METRICS_ADDRESS", default_value = "127.0.0.1:9102")]
    metrics_address: ListenAddress,

    /// Check readiness (/readyz) instead of health (/healthz)
    #[arg(long, conflicts_with = "started")]
    ready: bool,

    /// Fail until this copy has been ready once or leads (/startupz); then check health
    #[arg(long)]
    started: bool,
}

impl HealthcheckArgs {
    pub(super) async fn run(self) -> Result<ExitCode, String> {
        let ListenAddress::At(address) = self.metrics_address else {
            return Err("the operator serves no health endpoint (--metrics-address is none)".to_owned());
        };
        let path = match () {
            () if self.ready => "readyz",
            () if self.started => "startupz",
            () => "healthz",
        };
        let url = format!("http://{}/{path}", connect_address(address));
        let (status, body) = get(&url).await?;
        let text = if self.ready { readiness_line(&body) } else { body.trim().replace('\n', "; ") };
        if status != 200 {
            return Err(format!("{url} returned {status}: {text}"));
        }
        print(&format!("{url} returned 200: {text}\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The address to connect to: an unspecified address is replaced by loopback.
fn connect_address(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn get(url: &str) -> Result<(u16, String), String> {
    let failed = |error: reqwest::Error| {
        let cause = if error.is_timeout() {
            format!("no response within {TIMEOUT:?}")
        } else if error.is_connect() {
            "connection refused: is the operator running with this --metrics-address?".to_owned()
        } else {
            error.without_url().to_string()
        };
        format!("{url}: {cause}")
    };
    // Plain HTTP on loopback or in the same network needs neither root certificates nor a proxy.
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(TIMEOUT);
    let client = client.build().map_err(failed)?;
    let mut response = client.get(url).send().await.map_err(failed)?;
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&part);
        if body.len() > 1024 * 1024 {
            return Err(format!(
                "{url}: the response is too long; is this the operator's --metrics-address?"
            ));
        }
    }
    Ok((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
}

/// The unmet conditions of a `/readyz` body on one line.
fn readiness_line(body: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    match json["pending"].as_array() {
        Some(all) if all.is_empty() => "ready".to_owned(),
        Some(all) => {
            let all: Vec<&str> = all.iter().filter_map(serde_json::Value::as_str).collect();
            format!("not ready: {}", all.join("; "))
        }
        None => body.trim().chars().take(MAX_BODY_SHOWN).collect::<String>().replace('\n', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspecified_address_is_replaced_by_loopback() {
        for (given, to) in [
            ("0.0.0.0:9102", "127.0.0.1:9102"),
            ("[::]:9102", "[::1]:9102"),
            ("10.0.0.7:9200", "10.0.0.7:9200"),
        ] {
            assert_eq!(connect_address(given.parse().unwrap()).to_string(), to);
        }
    }

    #[test]
    fn readiness_line_lists_pending_conditions() {
        assert_eq!(readiness_line(r#"{"pending": ["a", "b"]}"#), "not ready: a; b");
        assert_eq!(readiness_line(r#"{"pending": []}"#), "ready");
        assert_eq!(readiness_line("<p>\nhello</p>"), "<p> hello</p>");
    }
}
