//! The configuration of the agent in a `consul-client` container (consul-ecs before 0.6), from its command and variables,
//! and the flags of its `consul login`.

use ecs_mesh_aws::inspect::{FullContainer, Redacted};
use ecs_mesh_consul_acl::hcl::HclBlock;

/// The variables from which the agent's image takes configuration.
const VARIABLES: [&str; 2] = ["CONSUL_LOCAL_CONFIG", "CONSUL_CLIENT_CONFIG"];

/// Configuration and logins of one container.
#[derive(Clone, Debug, Default)]
pub(crate) struct AgentConfig {
    /// The visible configuration.
    pub(crate) config: HclBlock,
    /// Whether any configuration is visible. It may be in a file of the image.
    pub(crate) is_seen: bool,
    /// The flags of each `consul login`.
    pub(crate) logins: Vec<Vec<String>>,
}

impl AgentConfig {
    /// Reads the container.
    pub(crate) fn of(container: &FullContainer) -> Self {
        let command: Vec<&str> =
            container.entry_point.iter().chain(&container.command).map(Redacted::expose).collect();
        let command = command.join("\n");
        let mut text = heredocs(&command);
        text.push_str(&hcl_flags(&command));
        let of_variables =
            container.environment.iter().filter(|variable| VARIABLES.contains(&&*variable.name));
        let json: Vec<&str> = of_variables.map(|variable| variable.value.expose()).collect();
        let is_json = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
        let config = match json.first() {
            Some(json) if text.trim().is_empty() && is_json(json) => HclBlock::read(json),
            _ => HclBlock::read(&[text.as_str(), &json.join("\n")].join("\n")),
        };
        let is_seen = config != HclBlock::default();
        Self { config, is_seen, logins: logins(&command) }
    }
}

/// The contents of the script's heredocs (`<< EOF … EOF`).
fn heredocs(script: &str) -> String {
    let mut found = String::new();
    let mut lines = script.lines();
    while let Some(line) = lines.next() {
        let Some((_, after)) = line.split_once("<<") else { continue };
        let word = after.trim_start_matches('-').trim_start();
        let end: String = word
            .trim_start_matches(['\'', '"'])
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if end.is_empty() {
            continue;
        }
        for line in lines.by_ref().take_while(|line| line.trim() != end) {
            found.push_str(line);
            found.push('\n');
        }
    }
    found
}

/// The values of the script's `-hcl` flags.
fn hcl_flags(script: &str) -> String {
    let mut found = String::new();
    let mut rest = script;
    while let Some((_, after)) = rest.split_once("-hcl") {
        let after = after.trim_start_matches(['=', ' ', '\n']);
        let (body, next) = match after.chars().next() {
            Some(quote @ ('\'' | '"')) => after[1..].split_once(quote).unwrap_or((&after[1..], "")),
            _ => after.split_once('\n').unwrap_or((after, "")),
        };
        found.push_str(body);
        found.push('\n');
        rest = next;
    }
    found
}

/// The flags of each `consul login`; `\` at the end continues a line.
fn logins(script: &str) -> Vec<Vec<String>> {
    let joined = script.replace("\\\n", " ");
    let calls = joined.lines().filter_map(|line| line.split_once("consul login"));
    calls
        .map(|(_, flags)| {
            let end = flags.find([';', '|', '&']).unwrap_or(flags.len());
            flags[..end].split_whitespace().map(|flag| flag.trim_matches(['"', '\'']).to_owned()).collect()
        })
        .collect()
}

/// The values of a flag, written `-flag value` or `-flag=value`, with one dash or two.
pub(crate) fn values<'a>(flags: &'a [String], name: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (index, flag) in flags.iter().enumerate() {
        let Some(bare) = flag.strip_prefix("--").or_else(|| flag.strip_prefix('-')) else { continue };
        match bare.split_once('=') {
            Some((given, value)) if given == name => found.push(value.trim_matches(['"', '\''])),
            None if bare == name => found.push(flags.get(index + 1).map_or("", String::as_str)),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_aws::inspect::Variable;

    const SCRIPT: &str = "cp /bin/consul /bin/consul-inject/consul\nconsul_login() {\n  consul login \\\n    -type aws-iam \\\n    \
        -meta \"consul.hashicorp.com/task-id=$TASK_ID\" \\\n    -meta=\"consul.hashicorp.com/cluster=$C\"\n}\n\
        cat << EOF > /consul/agent-defaults.hcl\nacl {\n  enabled = true\n}\nEOF\nexec consul agent -data-dir /consul/data";

    fn container(command: &str) -> FullContainer {
        FullContainer { command: vec![Redacted::new(command)], ..FullContainer::default() }
    }

    #[test]
    fn script_has_configuration_and_login() {
        let agent = AgentConfig::of(&container(SCRIPT));
        assert!(agent.is_seen);
        assert_eq!(agent.config.text_at(&["acl", "enabled"]), Some("true"));
        let [login] = agent.logins.as_slice() else { panic!("{:?}", agent.logins) };
        assert_eq!(values(login, "type"), ["aws-iam"]);
        assert_eq!(values(login, "meta").len(), 2);
    }

    #[test]
    fn configuration_is_read_from_variables_and_flags() {
        let mut with_variable = container("agent");
        with_variable.environment = vec![Variable {
            name: "CONSUL_LOCAL_CONFIG".to_owned(),
            value: Redacted::new(r#"{"acl": {"enabled": true}}"#),
        }];
        let with_flag = container("exec consul agent -hcl='acl { enabled = true }' -data-dir /d");
        for container in [with_variable, with_flag] {
            assert_eq!(AgentConfig::of(&container).config.text_at(&["acl", "enabled"]), Some("true"));
        }
        assert!(!AgentConfig::of(&container("agent -config-dir /etc/consul")).is_seen);
    }
}
