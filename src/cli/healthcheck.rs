//! `ecs-mesh-operator healthcheck`: asks a running operator, for images without a shell or curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use super::output::print;
use crate::telemetry::server::ListenAddress;

/// Shorter than the shortest time-out that ECS allows for a container's health check (2 s), so that the reason is told.
const TIMEOUT: Duration = Duration::from_millis(1_500);

/// The longest answer that is repeated.
const MAX_BODY_SHOWN: usize = 2_000;

/// What `healthcheck` takes.
#[derive(clap::Args)]
pub(super) struct HealthcheckArgs {
    /// Where the operator serves its metrics; an unspecified address (0.0.0.0, [::]) is asked on loopback.
    #[arg(long, env = "ECS_MESH_METRICS_ADDRESS", default_value = "127.0.0.1:9102")]
    metrics_address: ListenAddress,

    /// Ask whether it is ready (first sweep done), and not only whether it makes progress.
    #[arg(long)]
    ready: bool,
}

impl HealthcheckArgs {
    pub(super) async fn run(self) -> Result<ExitCode, String> {
        let ListenAddress::At(address) = self.metrics_address else {
            return Err(
                "there is nothing to ask: the operator serves no metrics (--metrics-address is none)"
                    .to_owned(),
            );
        };
        let url = format!("http://{}/{}", connect_address(address), if self.ready { "readyz" } else { "healthz" });
        let (status, body) = get(&url).await?;
        let words = if self.ready { readiness_line(&body) } else { body.trim().replace('\n', "; ") };
        if status != 200 {
            return Err(format!("{url} answers {status}: {words}"));
        }
        print(&format!("{url} answers 200: {words}\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Nobody can be called at the address that stands for all addresses.
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
        let why = if error.is_timeout() {
            format!("no answer within {TIMEOUT:?}")
        } else if error.is_connect() {
            "nobody listens there; does the operator run, and is --address its --metrics-address?".to_owned()
        } else {
            error.without_url().to_string()
        };
        format!("{url}: {why}")
    };
    // Without TLS no roots are needed, and no proxy stands before oneself.
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(TIMEOUT);
    let client = client.build().map_err(failed)?;
    let mut response = client.get(url).send().await.map_err(failed)?;
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&part);
        if body.len() > 1024 * 1024 {
            return Err(format!("{url}: the answer is too long for an operator's; check --address"));
        }
    }
    Ok((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
}

/// The one line of `/readyz` that matters here.
fn readiness_line(body: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    match json["waits_for"].as_array() {
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
    fn the_address_that_stands_for_all_is_asked_on_loopback() {
        for (given, to) in [
            ("0.0.0.0:9102", "127.0.0.1:9102"),
            ("[::]:9102", "[::1]:9102"),
            ("10.0.0.7:9200", "10.0.0.7:9200"),
        ] {
            assert_eq!(connect_address(given.parse().unwrap()).to_string(), to);
        }
    }

    #[test]
    fn one_line_says_why_it_is_not_ready() {
        assert_eq!(readiness_line(r#"{"waits_for": ["a", "b"]}"#), "not ready: a; b");
        assert_eq!(readiness_line(r#"{"waits_for": []}"#), "ready");
        assert_eq!(readiness_line("<p>\nhello</p>"), "<p> hello</p>");
    }
}
