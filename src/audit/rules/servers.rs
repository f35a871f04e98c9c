//! How the task reaches the servers: address, ports, TLS and CA.

use std::net::IpAddr;

use crate::audit::catalogue::{SERVERS_ADDRESS, SERVERS_CA, SERVERS_NAME, SERVERS_TLS};
use crate::audit::facts::Definition;
use crate::audit::parse::config::Configured;
use crate::audit::report::{Finding, Severity};

const HTTPS_CA: &str = "CONSUL_HTTPS_CACERT_PEM";
const GRPC_CA: &str = "CONSUL_GRPC_CACERT_PEM";
const COMMAND: &str = "exec=";

pub(super) fn check(definition: &Definition, config: &Configured) -> Vec<Finding> {
    if config.is_older {
        return older(config);
    }
    let Some(hosts) = config.value.pointer("/consulServers/hosts").and_then(|hosts| hosts.as_str()) else {
        // The schema's rule tells of it.
        return Vec::new();
    };
    let mut findings: Vec<Finding> = address(hosts)
        .map(|found| SERVERS_ADDRESS.broken(config.at("consulServers.hosts"), found))
        .into_iter()
        .collect();
    let settings = Settings::of(definition, config);
    findings.extend(tls(config, &settings));
    findings.extend(ca(config, &settings));
    let by_address = hosts.starts_with(COMMAND) || hosts.parse::<IpAddr>().is_ok();
    if by_address && ((settings.https && !settings.http_name) || (settings.grpc_tls && !settings.grpc_name)) {
        let found = "TLS is on, tlsServerName is left out, and hosts gives addresses";
        findings.push(SERVERS_NAME.broken(config.at("consulServers.defaults.tlsServerName"), found));
    }
    findings
}

/// What is wrong with an address of servers.
fn address(hosts: &str) -> Option<String> {
    let text = hosts.trim();
    if let Some(command) = text.strip_prefix(COMMAND) {
        return command.trim().is_empty().then(|| "exec= without a command".to_owned());
    }
    if text.is_empty() {
        return Some("it is empty".to_owned());
    }
    if text.contains("://") {
        return Some(format!("{text:?} has a scheme"));
    }
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        let wrong = ip.is_loopback() || ip.is_unspecified();
        return wrong.then(|| format!("{text:?} is the task itself"));
    }
    if text == "localhost" || text.ends_with(".localhost") {
        return Some(format!("{text:?} is the task itself"));
    }
    if text.contains([',', ' ', ';']) {
        return Some(format!("{text:?} is a list"));
    }
    if text.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())) {
        return Some(format!("{text:?} has a port"));
    }
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    (!fits).then(|| format!("{text:?} is no DNS name"))
}

/// What counts, defaults included.
struct Settings {
    https: bool,
    grpc_tls: bool,
    http_port: i64,
    grpc_port: i64,
    http_ca: bool,
    grpc_ca: bool,
    http_name: bool,
    grpc_name: bool,
}

impl Settings {
    fn of(definition: &Definition, config: &Configured) -> Self {
        let flag = |pointer: &str| config.flag(&format!("/consulServers/{pointer}"));
        let text = |pointer: &str| config.text(&format!("/consulServers/{pointer}")).is_some();
        let number = |pointer: &str| config.number(&format!("/consulServers/{pointer}"));
        let container = definition.whole.containers.get(config.container);
        let given = |name: &str| {
            container.is_some_and(|one| one.has_variable(name) || !one.environment_files.is_empty())
        };
        Self {
            https: flag("http/https").unwrap_or(true),
            grpc_tls: flag("grpc/tls").or(flag("defaults/tls")).unwrap_or(true),
            http_port: number("http/port").unwrap_or(8501),
            grpc_port: number("grpc/port").unwrap_or(8503),
            http_ca: given(HTTPS_CA) || text("http/caCertFile") || text("defaults/caCertFile"),
            grpc_ca: given(GRPC_CA) || text("grpc/caCertFile") || text("defaults/caCertFile"),
            http_name: text("http/tlsServerName") || text("defaults/tlsServerName"),
            grpc_name: text("grpc/tlsServerName") || text("defaults/tlsServerName"),
        }
    }
}

fn tls(config: &Configured, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |field: &str, words: String| {
        findings.push(SERVERS_TLS.broken(config.at(&format!("consulServers.{field}")), words));
    };
    match (settings.https, settings.grpc_tls) {
        (true, false) => found("grpc.tls", "TLS is off for gRPC and on for HTTP".to_owned()),
        (false, true) => found("http.https", "TLS is off for HTTP and on for gRPC".to_owned()),
        _ => {}
    }
    for (field, port, is_on, secure, plain) in [
        ("http.port", settings.http_port, settings.https, 8501, 8500),
        ("grpc.port", settings.grpc_port, settings.grpc_tls, 8503, 8502),
    ] {
        if is_on && port == plain {
            found(field, format!("TLS is on, and {port} is the port without it"));
        } else if !is_on && port == secure {
            found(field, format!("TLS is off, and {port} (which it is when left out) is the port with it"));
        }
    }
    findings
}

fn ca(config: &Configured, settings: &Settings) -> Vec<Finding> {
    let at = |field: &str| config.at(&format!("consulServers.{field}"));
    let mut findings = Vec::new();
    for (name, field, is_on, has_ca) in [
        (HTTPS_CA, "http.caCertFile", settings.https, settings.http_ca),
        (GRPC_CA, "grpc.caCertFile", settings.grpc_tls, settings.grpc_ca),
    ] {
        if !is_on && has_ca {
            let found = format!("a CA is given ({name} or caCertFile), and TLS is off");
            findings.push(SERVERS_CA.broken(at(field), found));
        }
    }
    let missing = |is_on: bool, has_ca: bool| is_on && !has_ca;
    match (
        missing(settings.https, settings.http_ca),
        missing(settings.grpc_tls, settings.grpc_ca),
    ) {
        (true, true) => {
            let found = "TLS is on, and neither caCertFile nor a CA variable is there: right only for certificates of a \
                         public CA";
            findings.push(SERVERS_CA.broken(at("defaults.caCertFile"), found).but(Severity::Note));
        }
        (true, false) => {
            let found = format!("HTTPS is on without a CA ({HTTPS_CA} or caCertFile); gRPC has one or needs none");
            findings.push(SERVERS_CA.broken(at("http.caCertFile"), found));
        }
        (false, true) => {
            let found = format!("TLS is on for gRPC without a CA ({GRPC_CA} or caCertFile); HTTP has one or needs none");
            findings.push(SERVERS_CA.broken(at("grpc.caCertFile"), found));
        }
        (false, false) => {}
    }
    findings
}

/// Before 0.6 the address was a URL, and the CA a file.
fn older(config: &Configured) -> Vec<Finding> {
    let at = || config.at("consulHTTPAddr");
    let fix = "write the servers' URL, such as https://consul.internal:8501";
    let Some(url) = config.text("/consulHTTPAddr") else {
        let needed = config.logs_in().then(|| SERVERS_ADDRESS.broken(at(), "it is missing, and the login needs it"));
        return needed.into_iter().map(|finding| finding.fix(fix)).collect();
    };
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return vec![SERVERS_ADDRESS.broken(at(), format!("{url:?} has no scheme")).fix(fix)];
    }
    let has_ca = config.text("/consulCACertFile").is_some();
    let ca_at = config.at("consulCACertFile");
    match (url.starts_with("https://"), has_ca) {
        (false, true) => vec![SERVERS_CA.broken(ca_at, "a CA is given, and consulHTTPAddr is http://")],
        (true, false) => {
            let found = "consulHTTPAddr is https:// without a CA: right only for certificates of a public CA";
            vec![SERVERS_CA.broken(ca_at, found).but(Severity::Note)]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn an_address_is_one_name_one_ip_or_a_command() {
        for (hosts, is_good) in [
            ("consul.internal", true),
            ("10.0.0.7", true),
            ("2001:db8::7", true),
            ("exec=/bin/find-servers", true),
            ("", false),
            ("exec=", false),
            ("https://consul.internal", false),
            ("consul.internal:8501", false),
            ("a.internal,b.internal", false),
            ("127.0.0.1", false),
            ("::1", false),
            ("0.0.0.0", false),
            ("localhost", false),
            ("consul/internal", false),
        ] {
            assert_eq!(address(hosts).is_none(), is_good, "{hosts}");
        }
    }
}
