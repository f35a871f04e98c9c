//! Tokens and keys in plain text. A finding has the location and the kind, never the value.

use crate::facts::AuditedDefinition;
use crate::parse::config::VARIABLE;
use crate::parse::secrets;
use crate::report::AuditFinding;
use crate::rules_catalog::SECRET_IN_PLAIN;
use ecs_mesh_aws::inspect::Redacted;

pub(super) fn check(definition: &AuditedDefinition) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    for (index, container) in definition.containers() {
        let found = |field: &str, message: String| {
            let at = definition.container_place(index, field);
            SECRET_IN_PLAIN.violation(at, message)
        };
        for (position, variable) in container.environment.iter().enumerate() {
            let (name, value) = (variable.name.as_str(), variable.value.expose());
            let is_text = name == VARIABLE || value.len() > 200 || value.contains(['{', '\n']);
            let kind =
                secrets::in_variable(name, value).or_else(|| secrets::in_text(value).filter(|_| is_text));
            let message = kind.map(|kind| format!("{name} contains {kind}"));
            findings.extend(message.map(|message| found(&format!("environment[{position}].value"), message)));
        }
        for (field, texts) in [("entryPoint", &container.entry_point), ("command", &container.command)] {
            let joined: Vec<&str> = texts.iter().map(Redacted::expose).collect();
            let kind = secrets::in_text(&joined.join(" "));
            findings.extend(kind.map(|kind| found(field, format!("the value contains {kind}"))));
        }
    }
    findings
}
