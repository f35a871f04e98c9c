//! The Consul client agent in the task (consul-ecs before 0.6): its configuration and its login.

use super::auth_methods::has_none;
use super::login::{AWS_IAM, OWN_META};
use super::planes;
use crate::facts::{AuditFacts, AuditedDefinition};
use crate::parse::agent::{AgentConfig, values};
use crate::parse::config::{CLIENT, TaskConfig};
use crate::report::{AuditFinding, FindingLocation};
use crate::rules_catalog::{
    AGENT_ACL, AGENT_AUDIT, AGENT_CA, AGENT_LOGIN, AGENT_PARTITION, AGENT_POLICY, AGENT_TOKEN, LOGIN_METHOD,
};
use ecs_mesh_consul_acl::hcl::HclBlock;

pub(super) fn check(
    facts: &AuditFacts,
    definition: &AuditedDefinition,
    config: Option<&TaskConfig>,
) -> Vec<AuditFinding> {
    let Some((index, container)) = definition.containers().find(|(_, container)| container.name == CLIENT)
    else {
        return Vec::new();
    };
    let agent = AgentConfig::of(container);
    let at = || definition.container_place(index, "command");
    let mut findings = Vec::new();
    for login in &agent.logins {
        findings.extend(of_login(facts, definition, login, &at()));
    }
    let wanted = config.and_then(|config| config.of_subject("partition")).unwrap_or("default");
    for partition in agent.logins.iter().flat_map(|login| values(login, "partition")) {
        if partition != wanted && !partition.starts_with('$') {
            let found =
                format!("the login's -partition is {partition:?}, and the service's partition {wanted:?}");
            findings.push(AGENT_PARTITION.violation(at(), found));
        }
    }
    if !agent.is_seen {
        let found = "the agent's configuration is neither in the command nor in CONSUL_LOCAL_CONFIG";
        findings.push(AGENT_ACL.unknown(at(), found));
        return findings;
    }
    let acls_are_on = config.is_some_and(TaskConfig::logs_in)
        || !agent.logins.is_empty()
        || planes(facts, definition).any(|(_, plane)| plane.acls() == Ok(true));
    findings.extend(acl(&agent.config, acls_are_on, &at));
    findings.extend(ca(&agent.config, &at));
    let partition = agent.config.text("partition").unwrap_or("default");
    if partition != wanted && !partition.starts_with('$') {
        let found = format!("the agent's partition is {partition:?}, and the service's {wanted:?}");
        findings.push(AGENT_PARTITION.violation(at(), found));
    }
    findings.extend(audit(&agent.config, &at));
    findings
}

fn of_login(
    facts: &AuditFacts,
    definition: &AuditedDefinition,
    flags: &[String],
    location: &FindingLocation,
) -> Vec<AuditFinding> {
    let is_there =
        |name: &str| flags.iter().any(|flag| flag.trim_start_matches('-').split('=').next() == Some(name));
    let mut lacks = Vec::new();
    if !values(flags, "type").iter().any(|kind| [AWS_IAM, "aws"].contains(kind)) {
        lacks.push("-type aws-iam".to_owned());
    }
    for flag in ["aws-auto-bearer-token", "aws-include-entity"] {
        if !is_there(flag) {
            lacks.push(format!("-{flag}"));
        }
    }
    let metas = values(flags, "meta");
    for key in OWN_META {
        if !metas.iter().any(|meta| meta.split('=').next() == Some(key)) {
            lacks.push(format!("-meta {key}=…"));
        }
    }
    let mut findings = Vec::new();
    if !lacks.is_empty() {
        findings
            .push(AGENT_LOGIN.violation(location.clone(), format!("the login lacks {}", lacks.join(", "))));
    }
    for method in values(flags, "method").into_iter().filter(|method| !method.starts_with('$')) {
        for (name, plane) in planes(facts, definition) {
            if plane.method(method) == Ok(None) && !has_none(plane) {
                let found = format!("the login names {method:?}, which {name} does not have");
                findings.push(LOGIN_METHOD.violation(location.clone(), found));
            }
        }
    }
    findings
}

fn acl(config: &HclBlock, acls_are_on: bool, location: &dyn Fn() -> FindingLocation) -> Vec<AuditFinding> {
    let field = |name: &'static str| config.text_at(&["acl", name]);
    let is_enabled = field("enabled") == Some("true");
    let mut findings = Vec::new();
    if !is_enabled && acls_are_on {
        let found =
            if field("enabled").is_some() { "acl.enabled is not true" } else { "acl.enabled is absent" };
        findings.push(AGENT_ACL.violation(location(), found));
    }
    let token = config.text_at(&["acl", "tokens", "agent"]).or(config.text_at(&["acl", "tokens", "default"]));
    if is_enabled && token.is_none_or(str::is_empty) {
        findings.push(AGENT_TOKEN.violation(location(), "acl.tokens.agent is absent"));
    }
    if field("default_policy") == Some("allow") {
        findings.push(AGENT_POLICY.violation(location(), "acl.default_policy is \"allow\""));
    }
    findings
}

fn ca(config: &HclBlock, location: &dyn Fn() -> FindingLocation) -> Vec<AuditFinding> {
    let any = |name: &str| {
        ["defaults", "internal_rpc"]
            .iter()
            .find_map(|part| config.text_at(&["tls", part, name]))
            .or_else(|| config.text(name))
    };
    let mut lacks = Vec::new();
    if any("ca_file").or_else(|| any("ca_path")).is_none_or(str::is_empty) {
        lacks.push("tls.defaults.ca_file is absent");
    }
    if any("verify_outgoing") != Some("true") {
        lacks.push("tls.defaults.verify_outgoing is not true");
    }
    let finding = (!lacks.is_empty()).then(|| AGENT_CA.violation(location(), lacks.join(", ")));
    finding.into_iter().collect()
}

fn audit(config: &HclBlock, location: &dyn Fn() -> FindingLocation) -> Option<AuditFinding> {
    let (_, stanza) = config.blocks("audit").into_iter().next()?;
    let mut lacks = Vec::new();
    if !stanza.is_true("enabled") {
        lacks.push("enabled is not true".to_owned());
    }
    if !stanza.has_block("sink") {
        lacks.push("no sink is configured".to_owned());
    }
    for (label, sink) in stanza.blocks("sink") {
        let name = label.unwrap_or("sink");
        for (field, wanted) in [("type", "file"), ("format", "json")] {
            if sink.text(field) != Some(wanted) {
                lacks.push(format!("{name}: {field} is not {wanted:?}"));
            }
        }
        for field in ["path", "delivery_guarantee"] {
            if sink.text(field).is_none_or(str::is_empty) {
                lacks.push(format!("{name}: {field} is absent"));
            }
        }
    }
    (!lacks.is_empty()).then(|| AGENT_AUDIT.violation(location(), lacks.join(", ")))
}
