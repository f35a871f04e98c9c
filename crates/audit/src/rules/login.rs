//! The login: enabled, to a fitting auth method, and with metadata by which clean-up finds its token.

use std::collections::BTreeSet;

use super::auth_methods::{has_dead_wildcards, has_none};
use super::{consul_path, planes};
use crate::facts::{AuditFacts, AuditedAuthMethod, AuditedControlPlane, AuditedDefinition};
use crate::parse::agent::values;
use crate::parse::config::{CLIENT, TaskConfig};
use crate::report::{AuditFinding, FindingLocation, Severity};
use crate::rules_catalog::{
    LOGIN_DISABLED, LOGIN_ENTITY, LOGIN_FLAGS, LOGIN_META, LOGIN_METHOD, LOGIN_STATIC, LOGIN_STS, METHOD_TYPE,
};

/// Metadata that consul-ecs sets on the token, and clean-up reads.
pub(super) const OWN_META: [&str; 2] = ["consul.hashicorp.com/task-id", "consul.hashicorp.com/cluster"];
pub(super) const AWS_IAM: &str = "aws-iam";
const TOKEN: &str = "CONSUL_HTTP_TOKEN";

pub(super) fn check(
    facts: &AuditFacts,
    definition: &AuditedDefinition,
    config: &TaskConfig,
) -> Vec<AuditFinding> {
    let mut findings = meta(config);
    findings.extend(flags(definition, config));
    findings.extend(sts_region(config));
    let is_static = static_token(definition, config);
    findings.extend(is_static.clone());
    if !config.logs_in() {
        if is_static.is_none() {
            findings.extend(disabled(facts, definition, config));
        }
        return findings;
    }
    for (name, plane) in planes(facts, definition) {
        match plane.method(config.method()) {
            // The control plane's finding reports that there is no auth method.
            Ok(None) if has_none(plane) => {}
            Ok(None) => findings.push(no_method(name, plane, config)),
            Ok(Some(method)) => findings.extend(against(name, method, config)),
            // The control plane's findings report missing facts and ACLs that are off.
            Err(_) => {}
        }
    }
    findings
}

fn disabled(facts: &AuditFacts, definition: &AuditedDefinition, config: &TaskConfig) -> Vec<AuditFinding> {
    let at = || config.location("consulLogin.enabled");
    let found = match config.flag("/consulLogin/enabled") {
        Some(_) => "consulLogin.enabled is false",
        None => "consulLogin.enabled is absent, which is false",
    };
    let mut findings = Vec::new();
    for (name, plane) in planes(facts, definition) {
        match plane.acls() {
            Ok(true) => {
                findings.push(LOGIN_DISABLED.violation(at(), format!("{found}, and ACLs are on at {name}")));
            }
            Ok(false) => {}
            // The control plane's finding has the reason, unless Consul was not requested.
            Err(_) => findings
                .push(not_judged(at(), &format!("{found}; whether ACLs are on at {name} is not known"))),
        }
    }
    if definition.control_planes.is_empty() {
        findings
            .push(not_judged(at(), &format!("{found}; whether ACLs are on was not requested from Consul")));
    }
    findings
}

/// Informational: cannot be judged without Consul.
fn not_judged(location: FindingLocation, message: &str) -> AuditFinding {
    LOGIN_DISABLED.violation(location, message).with_severity(Severity::Info)
}

/// A fixed token of a consul-ecs container. An app's own token is not checked.
fn static_token(definition: &AuditedDefinition, config: &TaskConfig) -> Option<AuditFinding> {
    let (index, container) = definition
        .containers()
        .find(|(index, container)| *index == config.container && container.has_variable(TOKEN))?;
    let secret = container.secrets.iter().position(|secret| secret.name == TOKEN);
    let plain = container.environment.iter().position(|variable| variable.name == TOKEN);
    let field = match (secret, plain) {
        (Some(at), _) => format!("secrets[{at}]"),
        (None, at) => format!("environment[{}]", at.unwrap_or_default()),
    };
    let found = format!("{TOKEN} is set, so the login is skipped");
    Some(LOGIN_STATIC.violation(definition.container_place(index, &field), found))
}

fn no_method(name: &str, plane: &AuditedControlPlane, config: &TaskConfig) -> AuditFinding {
    let fitting: BTreeSet<&str> =
        plane.methods().filter(|method| method.kind == AWS_IAM).map(|method| method.name.as_str()).collect();
    let fitting: Vec<&str> = fitting.into_iter().collect();
    let existing = if fitting.is_empty() { "none of type aws-iam".to_owned() } else { fitting.join(", ") };
    let found = format!("the method is {:?}; {name} has {existing}", config.method());
    LOGIN_METHOD.violation(config.location("consulLogin.method"), found)
}

/// Compares the login with its auth method.
fn against(plane: &str, method: &AuditedAuthMethod, config: &TaskConfig) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    if method.kind != AWS_IAM {
        let at = FindingLocation::resource(consul_path(plane, "auth-method", &method.name));
        findings.push(METHOD_TYPE.violation(at, format!("the auth method has type {:?}", method.kind)));
        return findings;
    }
    let entity = config.location("consulLogin.includeEntity");
    match (config.includes_entity(), method.entity_details) {
        (false, true) => {
            let found =
                format!("includeEntity is false, and {} at {plane} has EnableIAMEntityDetails", method.name);
            findings.push(LOGIN_ENTITY.violation(entity, found));
        }
        // The auth method's finding reports it.
        (true, false) if has_dead_wildcards(method) => {}
        (true, false) => {
            let found = format!(
                "includeEntity is true, and {} at {plane} has no EnableIAMEntityDetails",
                method.name
            );
            findings.push(LOGIN_ENTITY.violation(entity, found).with_severity(Severity::Warning));
        }
        _ => {}
    }
    let ours = config.text("/consulLogin/stsEndpoint").map(|url| url.trim_end_matches('/'));
    let theirs = method.sts_endpoint.as_deref().map(|url| url.trim_end_matches('/'));
    if ours != theirs {
        let say = |url: Option<&str>| url.map_or_else(|| "none".to_owned(), |url| format!("{url:?}"));
        let found = format!("stsEndpoint is {}; {} at {plane} has {}", say(ours), method.name, say(theirs));
        findings.push(LOGIN_STS.violation(config.location("consulLogin.stsEndpoint"), found));
    }
    if method.server_id_is_known && config.server_id() != method.server_id {
        let found =
            format!("serverIdHeaderValue is not the ServerIDHeaderValue of {} at {plane}", method.name);
        findings.push(LOGIN_STS.violation(config.location("consulLogin.serverIdHeaderValue"), found));
    }
    findings
}

fn sts_region(config: &TaskConfig) -> Option<AuditFinding> {
    let (endpoint, region) = (config.text("/consulLogin/stsEndpoint")?, config.text("/consulLogin/region")?);
    let host = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let of_host = host.strip_prefix("sts.")?.split_once(".amazonaws.com")?.0;
    let found = format!("region is {region:?}, and stsEndpoint is in {of_host:?}");
    (of_host != region).then(|| LOGIN_STS.violation(config.location("consulLogin.region"), found))
}

fn meta(config: &TaskConfig) -> Vec<AuditFinding> {
    let meta = config.map("/consulLogin/meta");
    let own = OWN_META.iter().filter(|key| meta.contains_key(**key));
    own.map(|key| {
        LOGIN_META.violation(
            config.location(&format!("consulLogin.meta[{key:?}]")),
            "consul-ecs sets this key itself",
        )
    })
    .collect()
}

fn flags(definition: &AuditedDefinition, config: &TaskConfig) -> Vec<AuditFinding> {
    let flags: Vec<String> =
        config.texts("/consulLogin/extraLoginFlags").iter().map(|flag| (*flag).to_owned()).collect();
    let at = || config.location("consulLogin.extraLoginFlags");
    let mut findings = Vec::new();
    let mut report = |message: String| findings.push(LOGIN_FLAGS.violation(at(), message));
    for meta in values(&flags, "meta") {
        let key = meta.split('=').next().unwrap_or_default();
        if OWN_META.contains(&key) {
            report(format!("-meta sets {key}, which consul-ecs sets itself"));
        }
    }
    for kind in values(&flags, "type").into_iter().filter(|kind| ![AWS_IAM, "aws"].contains(kind)) {
        report(format!("-type is {kind:?}"));
    }
    for method in
        values(&flags, "method").into_iter().filter(|method| !method.eq_ignore_ascii_case(config.method()))
    {
        report(format!("-method is {method:?}, and consulLogin.method {:?}", config.method()));
    }
    if !values(&flags, "token-sink-file").is_empty() {
        report("-token-sink-file: consul-ecs reads the token from its own file".to_owned());
    }
    let wanted = config.of_subject("partition").unwrap_or("default");
    let given = values(&flags, "partition");
    for partition in given.iter().filter(|partition| **partition != wanted) {
        report(format!("-partition is {partition:?}, and the service's partition {wanted:?}"));
    }
    let has_client = definition.containers().any(|(_, container)| container.name == CLIENT);
    if config.is_older && has_client && config.logs_in() && wanted != "default" && given.is_empty() {
        report(format!("-partition is absent, and the service's partition is {wanted:?}"));
    }
    findings
}
