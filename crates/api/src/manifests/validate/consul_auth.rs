//! Rules of a `ConsulAuth`: values that Consul rejects, and values that admit more logins than probably intended.

use std::collections::BTreeSet;

use super::FindingCollector;
use crate::limits::CONSUL_NAME_RULE;
use crate::manifests::finding::quoted;
use crate::{
    ConsulAuthSpec, ConsulConnection, GatewayKind, HumanDuration, LoginSettings, Presence, ServiceTokens,
    limits,
};

/// Consul's built-in policy with all permissions.
const BUILT_IN: &str = "global-management";

pub(super) fn check(
    spec: &ConsulAuthSpec,
    report: &mut FindingCollector<'_>,
    warn: &mut FindingCollector<'_>,
) {
    report.globs_have_content("spec.adopt", &spec.adopt);
    if let Some(tokens) = &spec.service_tokens {
        AuthSection { path: "spec.serviceTokens", state: tokens.state, login: tokens.login() }
            .check(report, warn);
        check_gateways(tokens, report);
    }
    if let Some(tokens) = &spec.client_tokens {
        AuthSection { path: "spec.clientTokens", state: tokens.state, login: tokens.login() }
            .check(report, warn);
    }
    if let (Some(service), Some(client)) = (&spec.service_tokens, &spec.client_tokens)
        && service.auth_method == client.auth_method
    {
        let message = format!(
            "{} is also spec.serviceTokens.authMethod: one method cannot issue both kinds of token",
            quoted(&client.auth_method)
        );
        report.add("spec.clientTokens.authMethod", message);
    }
}

/// Rules that depend on the control plane.
pub(super) fn check_against_control_plane(
    spec: &ConsulAuthSpec,
    consul: &ConsulConnection,
    mut add: impl FnMut(&str, String),
) {
    let Some(enterprise) = &spec.enterprise else { return };
    let control_plane = &spec.control_plane;
    if consul.partition.is_none() && consul.namespaces.is_empty() {
        let message = format!(
            "needs Consul Enterprise, and ControlPlane {control_plane} has neither partition nor namespaces: give it \
             one of them, or leave this out"
        );
        return add("spec.enterprise", message);
    }
    if enterprise.cross_partition == Some(Presence::Present)
        && let Some(partition) = consul.partition.as_deref().filter(|partition| *partition != "default")
    {
        let message = format!(
            "the partition of ControlPlane {control_plane} is {partition:?}, and only policies of the partition \
             \"default\" may refer to others: leave this out, and declare it with a control plane of that partition"
        );
        add("spec.enterprise.crossPartition", message);
    }
}

fn check_gateways(tokens: &ServiceTokens, report: &mut FindingCollector<'_>) {
    const PATH: &str = "spec.serviceTokens.terminatingGatewayPolicies";
    let mut seen = BTreeSet::new();
    for (field, kinds) in [("gateways", &tokens.gateways), ("absentGateways", &tokens.absent_gateways)] {
        for (index, kind) in kinds.iter().enumerate() {
            if !seen.insert(*kind) {
                let kind_of = kind.as_str();
                let message = if field == "absentGateways" && tokens.gateways.contains(kind) {
                    format!("{kind_of} is also in gateways, which creates it: remove it from one of the two")
                } else {
                    format!("{kind_of} is given twice: keep it once")
                };
                report.add(format!("spec.serviceTokens.{field}[{index}]"), message);
            }
        }
    }
    if !tokens.terminating_gateway_policies.is_empty()
        && !tokens.gateways.contains(&GatewayKind::TerminatingGateway)
    {
        report.add(PATH, "has no effect without terminating-gateway among gateways: leave it out");
    }
    for (index, policy) in tokens.terminating_gateway_policies.iter().enumerate() {
        let path = format!("{PATH}[{index}]");
        if policy == BUILT_IN || policy.starts_with("builtin/") {
            let message = format!(
                "{} is built into Consul and not for gateways: write a policy with `service:write` for each service \
                 that the gateway represents",
                quoted(policy)
            );
            report.add(path, message);
        } else if !is_policy_name(policy) {
            let rule = "letters, digits, '-', '_' and one '/', at most 128 characters";
            report.add(path, format!("{} is not a valid policy name: {rule}", quoted(policy)));
        }
    }
}

/// A section with an auth method.
struct AuthSection<'a> {
    path: &'static str,
    state: Presence,
    login: LoginSettings<'a>,
}

impl AuthSection<'_> {
    fn field(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    fn check(&self, report: &mut FindingCollector<'_>, warn: &mut FindingCollector<'_>) {
        self.check_principals(report, warn);
        if !is_name(self.login.auth_method) {
            let message = format!(
                "{} is not a valid auth method name: {CONSUL_NAME_RULE}",
                quoted(self.login.auth_method)
            );
            report.add(self.field("authMethod"), message);
        }
        if let Some(ttl) = self.login.token_ttl
            && ttl != HumanDuration(std::time::Duration::ZERO)
            && !(limits::TOKEN_TTL.min..=limits::TOKEN_TTL.max).contains(&ttl.0)
        {
            let message = format!("{ttl} is out of range: write {}", limits::TOKEN_TTL_OR_NONE);
            report.add(self.field("tokenTtl"), message);
        }
        for (field, address) in
            [("stsEndpoint", self.login.sts_endpoint), ("iamEndpoint", self.login.iam_endpoint)]
        {
            if let Some(address) = address {
                check_endpoint(&self.field(field), address, report, warn);
            }
        }
        if self.login.server_id_header_value.is_some_and(|value| !is_header_value(value)) {
            let message = "is not a valid header value: write ASCII text without spaces at its ends";
            report.add(self.field("serverIdHeaderValue"), message);
        }
        for (index, name) in self.login.allowed_sts_headers.iter().enumerate() {
            if name.is_empty() || !name.bytes().all(is_name_byte) {
                let message =
                    format!("{} is not a valid header name: letters, digits, '-' and '_'", quoted(name));
                report.add(format!("{}[{index}]", self.field("allowedStsHeaders")), message);
            }
        }
    }

    fn check_principals(&self, report: &mut FindingCollector<'_>, warn: &mut FindingCollector<'_>) {
        let path = self.field("boundPrincipals");
        if self.login.bound_principals.is_empty() && self.state == Presence::Present {
            let message = "is empty or missing: write the ARNs of the roles that may log in, such as \
                           arn:aws:iam::111122223333:role/consul-ecs/*";
            return report.add(path, message);
        }
        for (index, arn) in self.login.bound_principals.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Some(role) = bound_role(arn) else {
                let message = format!(
                    "{} is not the ARN of a role: write arn:PARTITION:iam::ACCOUNT:role/PATH/NAME, or `*` at the end \
                     for all roles that begin so",
                    quoted(arn)
                );
                report.add(path, message);
                continue;
            };
            if !self.login.entity_details && role.contains(['*', '/']) {
                let message = format!(
                    "{} has a path or a wildcard, which Consul only knows with entityDetails: true",
                    quoted(arn)
                );
                report.add(path, message);
            } else if role == "*" {
                warn.add(
                    path,
                    "lets every role of the account log in: name a path, such as role/consul-ecs/*",
                );
            }
        }
    }
}

/// The part after `role/` of a valid bound principal.
fn bound_role(arn: &str) -> Option<&str> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = parts[..] else { return None };
    let role = resource.strip_prefix("role/")?;
    let before_wildcard = role.strip_suffix('*').unwrap_or(role);
    let is_valid = partition.starts_with("aws")
        && partition.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && !role.is_empty()
        && !role.ends_with('/')
        && !before_wildcard.contains('*')
        && role.bytes().all(|b| b.is_ascii_graphic());
    is_valid.then_some(role)
}

fn check_endpoint(
    path: &str,
    address: &str,
    report: &mut FindingCollector<'_>,
    warn: &mut FindingCollector<'_>,
) {
    let expected = "write https://HOST, without credentials and without a part after ? or #";
    let Ok(url) = url::Url::parse(address) else {
        return report.add(path, format!("is not a URL: {expected}"));
    };
    let is_valid = matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some_and(|host| !host.is_empty())
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !is_valid {
        report.add(path, format!("is not an address that a server can call: {expected}"));
    } else if url.scheme() == "http" && !super::control_plane::is_loopback(&url) {
        warn.add(path, "an attacker on the network could forge identities: use https://");
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(is_name_byte)
}

fn is_policy_name(text: &str) -> bool {
    let (first, rest) = text.split_once('/').unwrap_or((text, ""));
    text.len() <= 128 && !first.is_empty() && first.bytes().chain(rest.bytes()).all(is_name_byte)
}

fn is_header_value(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') && text.trim() == text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principal_is_role_arn_with_optional_trailing_wildcard() {
        for (arn, role) in [
            ("arn:aws:iam::111122223333:role/consul-ecs/*", Some("consul-ecs/*")),
            ("arn:aws-us-gov:iam::111122223333:role/kv", Some("kv")),
            ("arn:aws-cn:iam::111122223333:role/*", Some("*")),
            ("arn:aws:iam::111122223333:role/a*", Some("a*")),
            ("arn:aws:iam::111122223333:role/*/a", None),
            ("arn:aws:iam::111122223333:role/a/**", None),
            ("arn:aws:iam::*:role/a", None),
            ("arn:aws:iam::1:role/a", None),
            ("arn:aws:iam::111122223333:role/", None),
            ("arn:aws:iam::111122223333:role/a/", None),
            ("arn:aws:iam::111122223333:user/a", None),
            ("arn:aws:sts::111122223333:assumed-role/a/b", None),
            ("arn:gcp:iam::111122223333:role/a", None),
            ("*", None),
        ] {
            assert_eq!(bound_role(arn), role, "{arn}");
        }
    }
}
