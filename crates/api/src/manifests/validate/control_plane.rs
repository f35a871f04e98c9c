//! Rules of a `ControlPlane`. The address is never shown, since it may contain a secret by mistake.

use std::path::Path;

use super::{FindingCollector, is_dns_label};
use crate::limits::DNS_LABEL_RULE;
use crate::manifests::finding::quoted;
use crate::{
    AllowList, ConsulConnection, ControlPlaneSpec, ControlPlaneType, HumanDuration, KumaConnection, limits,
};
use ecs_mesh_model::{SecretRef, TlsServerName};

pub(super) fn check(
    spec: &ControlPlaneSpec,
    report: &mut FindingCollector<'_>,
    warn: &mut FindingCollector<'_>,
) {
    report.number("spec.writesPerSecond", &spec.writes_per_second, &limits::WRITES_PER_SECOND);
    match ConnectionFields::of(spec) {
        Some(block) => block.check(report, warn),
        None => {
            let name = spec.kind.as_str();
            let message =
                format!("required where type is {name}, and missing: the connection to the control plane");
            report.add(format!("spec.{name}"), message);
        }
    }
    let (other, is_given) = match spec.kind {
        ControlPlaneType::Kuma => ("consul", spec.consul.is_some()),
        ControlPlaneType::Consul => ("kuma", spec.kuma.is_some()),
    };
    if is_given {
        let message = format!("does not belong to type {}: leave it out", spec.kind.as_str());
        report.add(format!("spec.{other}"), message);
    }
    if let Some(consul) = &spec.consul {
        check_location(consul, report);
    }
}

/// Checks datacenter, partition and namespaces of Consul.
fn check_location(consul: &ConsulConnection, report: &mut FindingCollector<'_>) {
    let is_datacenter = |text: &str| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    if let Some(name) = consul.datacenter.as_deref().filter(|name| !is_datacenter(name)) {
        let rule = "lower-case letters, digits, '-' and '_', at most 63 characters";
        report.add(
            "spec.consul.datacenter",
            format!("{} is not a valid datacenter name: {rule}", quoted(name)),
        );
    }
    if let Some(name) = consul.partition.as_deref().filter(|name| !is_dns_label(name)) {
        report.add(
            "spec.consul.partition",
            format!("{} is not a valid partition name: {DNS_LABEL_RULE}", quoted(name)),
        );
    }
    for (index, name) in consul.namespaces.iter().enumerate() {
        let path = format!("spec.consul.namespaces[{index}]");
        if name == "*" {
            if consul.namespaces.len() > 1 {
                report.add(path, "means every namespace: remove the others, or this");
            }
        } else if !is_namespace(name) {
            let rule = "letters, digits and '-', starting and ending with a letter or digit, at most 64 characters; \
                        or * for every namespace";
            report.add(path, format!("{} is not a valid namespace name: {rule}", quoted(name)));
        }
    }
}

fn is_namespace(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The common fields of the connections of all types.
struct ConnectionFields<'a> {
    name: &'static str,
    /// Default ports of the API: HTTP and HTTPS.
    ports: (u16, u16),
    address: &'a str,
    files: [(&'static str, Option<&'a Path>); 2],
    variables: [(&'static str, Option<&'a str>); 2],
    secrets: [(&'static str, Option<&'a SecretRef>); 2],
    tls_server_name: Option<&'a TlsServerName>,
    timeout: HumanDuration,
}

/// Reports files and variables that manifests may not name.
pub(super) fn check_allowed(spec: &ControlPlaneSpec, allowed: &AllowList, report: &mut FindingCollector<'_>) {
    let Some(block) = ConnectionFields::of(spec) else { return };
    let files = block.files.into_iter().filter_map(|(field, file)| Some((field, file?)));
    for (field, file) in files.filter(|(_, file)| !file.as_os_str().is_empty()) {
        if let Err(refused) = allowed.check_path(file) {
            report.add(block.path(field), refused.to_string());
        }
    }
    let variables = block.variables.into_iter().filter_map(|(field, name)| Some((field, name?)));
    for (field, name) in variables.filter(|(_, name)| is_variable(name)) {
        if let Err(refused) = allowed.check_variable(name) {
            report.add(block.path(field), refused.to_string());
        }
    }
}

impl<'a> ConnectionFields<'a> {
    /// The block of the control plane's type.
    fn of(spec: &'a ControlPlaneSpec) -> Option<Self> {
        match spec.kind {
            ControlPlaneType::Kuma => spec.kuma.as_ref().map(Self::kuma),
            ControlPlaneType::Consul => spec.consul.as_ref().map(Self::consul),
        }
    }

    fn kuma(kuma: &'a KumaConnection) -> Self {
        Self {
            name: "kuma",
            ports: (5681, 5682),
            address: &kuma.address,
            files: [("caFile", kuma.ca_file.as_deref()), ("tokenFile", kuma.token_file.as_deref())],
            variables: [("caEnv", kuma.ca_env.as_deref()), ("tokenEnv", kuma.token_env.as_deref())],
            secrets: [("caSecret", kuma.ca_secret.as_ref()), ("tokenSecret", kuma.token_secret.as_ref())],
            tls_server_name: kuma.tls_server_name.as_ref(),
            timeout: kuma.timeout,
        }
    }

    fn consul(consul: &'a ConsulConnection) -> Self {
        Self {
            name: "consul",
            ports: (8500, 8501),
            address: &consul.address,
            files: [("caFile", consul.ca_file.as_deref()), ("tokenFile", consul.token_file.as_deref())],
            variables: [("caEnv", consul.ca_env.as_deref()), ("tokenEnv", consul.token_env.as_deref())],
            secrets: [("caSecret", consul.ca_secret.as_ref()), ("tokenSecret", consul.token_secret.as_ref())],
            tls_server_name: consul.tls_server_name.as_ref(),
            timeout: consul.timeout,
        }
    }

    fn path(&self, field: &str) -> String {
        format!("spec.{}.{field}", self.name)
    }

    fn check(&self, report: &mut FindingCollector<'_>, warn: &mut FindingCollector<'_>) {
        self.check_address(report, warn);
        self.check_sources(report);
        for (field, file) in self.files {
            if file.is_some_and(|file| file.as_os_str().is_empty()) {
                report.add(self.path(field), "is empty: write a file's path, or leave the field out");
            }
        }
        for (field, name) in self.variables {
            if name.is_some_and(|name| !is_variable(name)) {
                // The value is not shown, since it may be the secret itself.
                let example = self.name.to_ascii_uppercase();
                let message = format!(
                    "is not an environment variable's name: write letters, digits and '_', such as {example}_TOKEN"
                );
                report.add(self.path(field), message);
            }
        }
        report.duration(&self.path("timeout"), self.timeout, limits::TIMEOUT);
    }

    /// Checks that CA and token have at most one source each.
    fn check_sources(&self, report: &mut FindingCollector<'_>) {
        for index in 0..2 {
            let sources = [
                (self.files[index].0, self.files[index].1.is_some()),
                (self.variables[index].0, self.variables[index].1.is_some()),
                (self.secrets[index].0, self.secrets[index].1.is_some()),
            ];
            let mut given = sources.iter().filter(|(_, is_given)| *is_given).map(|(field, _)| *field);
            if let Some(first) = given.next() {
                for second in given {
                    report.add(self.path(second), format!("{first} is given too: keep one of the two"));
                }
            }
        }
    }

    fn check_address(&self, report: &mut FindingCollector<'_>, warn: &mut FindingCollector<'_>) {
        let path = self.path("address");
        let (plain, tls) = self.ports;
        let expected = format!("write https://HOST:{tls} or http://HOST:{plain}");
        let Ok(url) = url::Url::parse(self.address) else {
            return report.add(path, format!("is not a URL: {expected}"));
        };
        if !matches!(url.scheme(), "http" | "https") {
            return report.add(path, format!("is neither http:// nor https://: {expected}"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            report.add(path.clone(), format!("has no host: {expected}"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let message = "has credentials in it, which do not belong in a manifest: use tokenSecret, tokenFile or \
                           tokenEnv";
            report.add(path.clone(), message);
        }
        if url.query().is_some() || url.fragment().is_some() {
            report.add(
                path.clone(),
                format!("has a part after ? or #, which the API does not take: {expected}"),
            );
        }
        if self.tls_server_name.is_some() && url.scheme() == "http" {
            let message =
                format!("has no use for an http:// address: use https:// (port {tls}), or leave it out");
            report.add(self.path("tlsServerName"), message);
        }
        if self.has_token() && url.scheme() == "http" && !is_loopback(&url) {
            let message = format!("the token would cross the network unencrypted: use https:// (port {tls})");
            warn.add(path, message);
        }
    }

    fn has_token(&self) -> bool {
        self.files[1].1.is_some() || self.variables[1].1.is_some() || self.secrets[1].1.is_some()
    }
}

pub(super) fn is_loopback(url: &url::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_variable(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
