//! The connection to the servers: address, ports, TLS and CA.

use std::net::IpAddr;

use crate::facts::AuditedDefinition;
use crate::parse::config::TaskConfig;
use crate::report::{AuditFinding, Severity};
use crate::rules_catalog::{SERVERS_ADDRESS, SERVERS_CA, SERVERS_NAME, SERVERS_TLS};

const COMMAND: &str = "exec=";

pub(super) fn check(definition: &AuditedDefinition, config: &TaskConfig) -> Vec<AuditFinding> {
    if config.is_older {
        return older(config);
    }
    let Some(hosts) = config.value.pointer("/consulServers/hosts").and_then(|hosts| hosts.as_str()) else {
        // The schema's rule reports a missing field.
        return Vec::new();
    };
    let mut findings: Vec<AuditFinding> = address(hosts)
        .map(|found| SERVERS_ADDRESS.violation(config.location("consulServers.hosts"), found))
        .into_iter()
        .collect();
    let channels = channels(definition, config);
    let of_tls = tls(config, &channels);
    // If TLS is off by mistake, that is the finding, and not the CA.
    let is_off_on_purpose = of_tls.is_empty();
    findings.extend(of_tls);
    findings.extend(ca(config, &channels, is_off_on_purpose));
    let by_address = hosts.starts_with(COMMAND) || hosts.parse::<IpAddr>().is_ok();
    if by_address && channels.iter().any(|one| one.tls && !one.has_name) {
        let found = "TLS is on without tlsServerName, and hosts gives addresses";
        findings.push(SERVERS_NAME.violation(config.location("consulServers.defaults.tlsServerName"), found));
    }
    findings
}

/// The reason why an address is not valid.
fn address(hosts: &str) -> Option<String> {
    let text = hosts.trim();
    if let Some(command) = text.strip_prefix(COMMAND) {
        return command.trim().is_empty().then(|| "exec= without a command".to_owned());
    }
    if text.is_empty() {
        return Some("the address is empty".to_owned());
    }
    if text.contains('@') {
        // The text before `@` may contain a password.
        return Some("the address contains a user".to_owned());
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
    (!fits).then(|| format!("{text:?} is not a DNS name"))
}

/// Settings of one protocol, HTTP or gRPC, defaults included.
struct ServerChannel {
    /// `http` or `grpc`.
    name: &'static str,
    /// The variable with the CA.
    variable: &'static str,
    tls: bool,
    port: i64,
    /// Default ports with and without TLS.
    ports: (i64, i64),
    has_ca: bool,
    has_name: bool,
}

fn channels(definition: &AuditedDefinition, config: &TaskConfig) -> [ServerChannel; 2] {
    let flag = |pointer: &str| config.flag(&format!("/consulServers/{pointer}"));
    let text = |pointer: &str| config.text(&format!("/consulServers/{pointer}")).is_some();
    let container = definition.definition.containers.get(config.container);
    let channel = |name: &'static str, variable: &'static str, tls: bool, ports: (i64, i64)| ServerChannel {
        name,
        variable,
        tls,
        port: config.number(&format!("/consulServers/{name}/port")).unwrap_or(ports.0),
        ports,
        // An environment file may contain the CA.
        has_ca: container.is_some_and(|one| one.has_variable(variable) || !one.environment_files.is_empty())
            || text(&format!("{name}/caCertFile"))
            || text("defaults/caCertFile"),
        has_name: text(&format!("{name}/tlsServerName")) || text("defaults/tlsServerName"),
    };
    let grpc_tls = flag("grpc/tls").or(flag("defaults/tls")).unwrap_or(true);
    [
        channel("http", "CONSUL_HTTPS_CACERT_PEM", flag("http/https").unwrap_or(true), (8501, 8500)),
        channel("grpc", "CONSUL_GRPC_CACERT_PEM", grpc_tls, (8503, 8502)),
    ]
}

fn tls(config: &TaskConfig, channels: &[ServerChannel; 2]) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    let mut found = |field: &str, words: String| {
        findings.push(SERVERS_TLS.violation(config.location(&format!("consulServers.{field}")), words));
    };
    match (channels[0].tls, channels[1].tls) {
        (true, false) => found("grpc.tls", "TLS is off for gRPC and on for HTTP".to_owned()),
        (false, true) => found("http.https", "TLS is off for HTTP and on for gRPC".to_owned()),
        _ => {}
    }
    for ServerChannel { name, tls, port, ports: (secure, plain), .. } in channels {
        let field = format!("{name}.port");
        if *tls && port == plain {
            found(&field, format!("TLS is on, and {port} is the port without it"));
        } else if !tls && port == secure {
            found(&field, format!("TLS is off, and {port} (the default) is the port with it"));
        }
    }
    findings
}

fn ca(config: &TaskConfig, channels: &[ServerChannel; 2], is_off_on_purpose: bool) -> Vec<AuditFinding> {
    let at = |name: &str| config.location(&format!("consulServers.{name}.caCertFile"));
    let mut findings = Vec::new();
    let idle: Vec<&ServerChannel> =
        channels.iter().filter(|one| is_off_on_purpose && !one.tls && one.has_ca).collect();
    if let Some(first) = idle.first() {
        let variables: Vec<&str> = idle.iter().map(|one| one.variable).collect();
        let found = format!("a CA is given ({} or caCertFile), and TLS is off", variables.join(", "));
        findings.push(SERVERS_CA.violation(at(if idle.len() > 1 { "defaults" } else { first.name }), found));
    }
    let without: Vec<&ServerChannel> = channels.iter().filter(|one| one.tls && !one.has_ca).collect();
    match without.as_slice() {
        [] => {}
        [ServerChannel { name, variable, .. }] => {
            let found = format!(
                "TLS is on for {name} without a CA ({variable} or caCertFile); the other has one or no TLS"
            );
            findings.push(SERVERS_CA.violation(at(name), found));
        }
        _ => {
            let found = "TLS is on, and neither caCertFile nor a CA variable is set: right only for certificates of a \
                         public CA";
            findings.push(SERVERS_CA.violation(at("defaults"), found).with_severity(Severity::Info));
        }
    }
    findings
}

/// consul-ecs before 0.6: the address is a URL, the CA a file.
fn older(config: &TaskConfig) -> Vec<AuditFinding> {
    let at = || config.location("consulHTTPAddr");
    let fix = "set the servers' URL, such as https://consul.internal:8501";
    let Some(url) = config.text("/consulHTTPAddr") else {
        let needed = config
            .logs_in()
            .then(|| SERVERS_ADDRESS.violation(at(), "the address is missing, and the login needs it"));
        return needed.into_iter().map(|finding| finding.with_fix(fix)).collect();
    };
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return vec![SERVERS_ADDRESS.violation(at(), "the address has no scheme").with_fix(fix)];
    }
    let has_ca = config.text("/consulCACertFile").is_some();
    let ca_at = config.location("consulCACertFile");
    match (url.starts_with("https://"), has_ca) {
        (false, true) => vec![SERVERS_CA.violation(ca_at, "a CA is given, and consulHTTPAddr is http://")],
        (true, false) => {
            let found = "consulHTTPAddr is https:// without a CA: right only for certificates of a public CA";
            vec![SERVERS_CA.violation(ca_at, found).with_severity(Severity::Info)]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn server_address_is_one_name_ip_or_command() {
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
            ("https://me:planted@consul.internal", false),
        ] {
            let found = address(hosts);
            assert_eq!(found.is_none(), is_good, "{hosts}");
            assert!(!found.unwrap_or_default().contains("planted"));
        }
    }
}
