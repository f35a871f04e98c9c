//! Rules of a `ControlPlane`. Its address is never shown: it could hold a secret that does not belong there.

use super::Report;
use crate::api::{ControlPlaneSpec, ControlPlaneType, KumaConnection, limits};

pub(super) fn check(spec: &ControlPlaneSpec, report: &mut Report<'_>, warn: &mut Report<'_>) {
    report.number("spec.writesPerSecond", &spec.writes_per_second, &limits::WRITES_PER_SECOND);
    match (spec.kind, &spec.kuma) {
        (ControlPlaneType::Kuma, Some(kuma)) => check_kuma(kuma, report, warn),
        (ControlPlaneType::Kuma, None) => {
            report.add(
                "spec.kuma",
                "required where type is kuma, and missing: it says how to reach the control plane",
            );
        }
    }
}

fn check_kuma(kuma: &KumaConnection, report: &mut Report<'_>, warn: &mut Report<'_>) {
    let has_token = kuma.token_file.is_some() || kuma.token_env.is_some();
    check_address(&kuma.address, has_token, report, warn);
    for (first, second, both) in [
        ("caFile", "caEnv", kuma.ca_file.is_some() && kuma.ca_env.is_some()),
        ("tokenFile", "tokenEnv", kuma.token_file.is_some() && kuma.token_env.is_some()),
    ] {
        if both {
            report.add(format!("spec.kuma.{second}"), format!("{first} is given too: keep one of the two"));
        }
    }
    for (field, file) in [("caFile", &kuma.ca_file), ("tokenFile", &kuma.token_file)] {
        if file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
            report.add(format!("spec.kuma.{field}"), "is empty: write a file's path, or leave the field out");
        }
    }
    for (field, name) in [("caEnv", &kuma.ca_env), ("tokenEnv", &kuma.token_env)] {
        if name.as_deref().is_some_and(|name| !is_variable(name)) {
            // Not shown: most likely it is the secret itself.
            let message =
                "is not an environment variable's name: write letters, digits and '_', such as KUMA_TOKEN";
            report.add(format!("spec.kuma.{field}"), message);
        }
    }
    report.duration("spec.kuma.timeout", kuma.timeout, limits::TIMEOUT);
}

fn check_address(address: &str, has_token: bool, report: &mut Report<'_>, warn: &mut Report<'_>) {
    const PATH: &str = "spec.kuma.address";
    const EXPECTED: &str = "write https://HOST:5682 or http://HOST:5681";
    let Ok(url) = reqwest::Url::parse(address) else {
        return report.add(PATH, format!("is not a URL: {EXPECTED}"));
    };
    if !matches!(url.scheme(), "http" | "https") {
        return report.add(PATH, format!("is neither http:// nor https://: {EXPECTED}"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        report.add(PATH, format!("has no host: {EXPECTED}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        report
            .add(PATH, "has credentials in it, which do not belong in a manifest: use tokenFile or tokenEnv");
    }
    if url.query().is_some() || url.fragment().is_some() {
        report.add(PATH, format!("has a part after ? or #, which the API does not take: {EXPECTED}"));
    }
    if has_token && url.scheme() == "http" && !is_loopback(&url) {
        warn.add(PATH, "the token would cross the network unencrypted: use https:// (port 5682)");
    }
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_variable(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
