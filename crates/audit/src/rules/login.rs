//! The login: whether there is one, where, and whether clean-up will know its token.

use std::collections::BTreeSet;

use super::auth_methods::{has_dead_wildcards, has_none};
use super::{consul_path, planes};
use crate::rules_catalog::{
    LOGIN_DISABLED, LOGIN_ENTITY, LOGIN_FLAGS, LOGIN_META, LOGIN_METHOD, LOGIN_STATIC, LOGIN_STS, METHOD_TYPE,
};
use crate::facts::{AuditedAuthMethod, AuditedDefinition, AuditFacts, AuditedControlPlane};
use crate::parse::agent::values;
use crate::parse::config::{CLIENT, TaskConfig};
use crate::report::{AuditFinding, FindingLocation, Severity};

/// What consul-ecs writes on the token, and clean-up goes by.
pub(super) const OWN_META: [&str; 2] = ["consul.hashicorp.com/task-id", "consul.hashicorp.com/cluster"];
pub(super) const AWS_IAM: &str = "aws-iam";
const TOKEN: &str = "CONSUL_HTTP_TOKEN";

pub(super) fn check(facts: &AuditFacts, definition: &AuditedDefinition, config: &TaskConfig) -> Vec<AuditFinding> {
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
            // That there is none at all is said once, with the control plane.
            Ok(None) if has_none(plane) => {}
            Ok(None) => findings.push(no_method(name, plane, config)),
            Ok(Some(method)) => findings.extend(against(name, method, config)),
            // That nobody knows, or that ACLs are off, is said once, with the control plane.
            Err(_) => {}
        }
    }
    findings
}

fn disabled(facts: &AuditFacts, definition: &AuditedDefinition, config: &TaskConfig) -> Vec<AuditFinding> {
    let at = || config.location("consulLogin.enabled");
    let found = match config.flag("/consulLogin/enabled") {
        Some(_) => "it is false",
        None => "it is left out, which is false",
    };
    let mut findings = Vec::new();
    for (name, plane) in planes(facts, definition) {
        match plane.acls() {
            Ok(true) => {
                findings.push(LOGIN_DISABLED.violation(at(), format!("{found}, and ACLs are on at {name}")));
            }
            Ok(false) => {}
            // Why it is not is said with the control plane, or was not asked for.
            Err(_) => findings
                .push(not_judged(at(), &format!("{found}; whether ACLs are on at {name} is not known"))),
        }
    }
    if definition.control_planes.is_empty() {
        findings.push(not_judged(at(), &format!("{found}; no Consul was asked whether ACLs are on")));
    }
    findings
}

/// It is good to know; whether it is wrong nobody knows.
fn not_judged(location: FindingLocation, message: &str) -> AuditFinding {
    LOGIN_DISABLED.violation(location, message).with_severity(Severity::Info)
}

/// Of the containers that consul-ecs runs in; an app's own token is its own matter.
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
    let there = if fitting.is_empty() { "none of type aws-iam".to_owned() } else { fitting.join(", ") };
    let found = format!("it is {:?}; {name} has {there}", config.method());
    LOGIN_METHOD.violation(config.location("consulLogin.method"), found)
}

/// The login as that auth method will take it.
fn against(plane: &str, method: &AuditedAuthMethod, config: &TaskConfig) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    if method.kind != AWS_IAM {
        let at = FindingLocation::resource(consul_path(plane, "auth-method", &method.name));
        findings.push(METHOD_TYPE.violation(at, format!("it is of type {:?}", method.kind)));
        return findings;
    }
    let entity = config.location("consulLogin.includeEntity");
    match (config.includes_entity(), method.entity_details) {
        (false, true) => {
            let found = format!("it is false, and {} at {plane} has EnableIAMEntityDetails", method.name);
            findings.push(LOGIN_ENTITY.violation(entity, found));
        }
        // It is told of with the auth method.
        (true, false) if has_dead_wildcards(method) => {}
        (true, false) => {
            let found = format!("it is true, and {} at {plane} has no EnableIAMEntityDetails", method.name);
            findings.push(LOGIN_ENTITY.violation(entity, found).with_severity(Severity::Warning));
        }
        _ => {}
    }
    let ours = config.text("/consulLogin/stsEndpoint").map(|url| url.trim_end_matches('/'));
    let theirs = method.sts_endpoint.as_deref().map(|url| url.trim_end_matches('/'));
    if ours != theirs {
        let say = |url: Option<&str>| url.map_or_else(|| "none".to_owned(), |url| format!("{url:?}"));
        let found = format!("it is {}; {} at {plane} has {}", say(ours), method.name, say(theirs));
        findings.push(LOGIN_STS.violation(config.location("consulLogin.stsEndpoint"), found));
    }
    if method.server_id_is_known && config.server_id() != method.server_id {
        let found = format!("it is not the ServerIDHeaderValue of {} at {plane}", method.name);
        findings.push(LOGIN_STS.violation(config.location("consulLogin.serverIdHeaderValue"), found));
    }
    findings
}

fn sts_region(config: &TaskConfig) -> Option<AuditFinding> {
    let (endpoint, region) = (config.text("/consulLogin/stsEndpoint")?, config.text("/consulLogin/region")?);
    let host = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let of_host = host.strip_prefix("sts.")?.split_once(".amazonaws.com")?.0;
    let found = format!("it is {region:?}, and stsEndpoint is in {of_host:?}");
    (of_host != region).then(|| LOGIN_STS.violation(config.location("consulLogin.region"), found))
}

fn meta(config: &TaskConfig) -> Vec<AuditFinding> {
    let meta = config.map("/consulLogin/meta");
    let own = OWN_META.iter().filter(|key| meta.contains_key(**key));
    own.map(|key| {
        LOGIN_META.violation(config.location(&format!("consulLogin.meta[{key:?}]")), "consul-ecs sets this key itself")
    })
    .collect()
}

fn flags(definition: &AuditedDefinition, config: &TaskConfig) -> Vec<AuditFinding> {
    let flags: Vec<String> =
        config.texts("/consulLogin/extraLoginFlags").iter().map(|flag| (*flag).to_owned()).collect();
    let at = || config.location("consulLogin.extraLoginFlags");
    let mut findings = Vec::new();
    let mut broken = |message: String| findings.push(LOGIN_FLAGS.violation(at(), message));
    for meta in values(&flags, "meta") {
        let key = meta.split('=').next().unwrap_or_default();
        if OWN_META.contains(&key) {
            broken(format!("-meta sets {key}, which consul-ecs sets itself"));
        }
    }
    for kind in values(&flags, "type").into_iter().filter(|kind| ![AWS_IAM, "aws"].contains(kind)) {
        broken(format!("-type is {kind:?}"));
    }
    for method in
        values(&flags, "method").into_iter().filter(|method| !method.eq_ignore_ascii_case(config.method()))
    {
        broken(format!("-method is {method:?}, and consulLogin.method {:?}", config.method()));
    }
    if !values(&flags, "token-sink-file").is_empty() {
        broken("-token-sink-file: consul-ecs reads the token from its own file".to_owned());
    }
    let wanted = config.of_subject("partition").unwrap_or("default");
    let given = values(&flags, "partition");
    for partition in given.iter().filter(|partition| **partition != wanted) {
        broken(format!("-partition is {partition:?}, and the service's partition {wanted:?}"));
    }
    let has_client = definition.containers().any(|(_, container)| container.name == CLIENT);
    if config.is_older && has_client && config.logs_in() && wanted != "default" && given.is_empty() {
        broken(format!("there is no -partition, and the service's partition is {wanted:?}"));
    }
    findings
}
