//! Templates within texts: a variable that is one, and those that a shell writes to a file.

use std::collections::BTreeMap;

use super::documents::TYPES;
use crate::place::SourceError;
use crate::tree::{SourceEntry, SourceNode, SourceValue};
use crate::yaml;

/// The documents of Kuma's proxies in a text, where the text is a template or a shell's here-document has one.
pub(super) fn embedded_documents(text: &str) -> Vec<Result<SourceNode, SourceError>> {
    if !names_a_type(text) {
        return Vec::new();
    }
    let here = here_documents(text);
    if here.is_empty() {
        return yaml::documents(text);
    }
    here.iter().filter(|text| names_a_type(text)).flat_map(|text| yaml::documents(text)).collect()
}

/// Whether a line of the text has the type of a proxy.
fn names_a_type(text: &str) -> bool {
    text.lines().any(|line| {
        let (key, value) = line.split_once(':').unwrap_or_default();
        let is_plain = |c: char| c.is_whitespace() || "\"'{,".contains(c);
        let value = value.split([',', '}']).next().unwrap_or_default();
        key.trim_matches(is_plain) == "type" && TYPES.contains(&value.trim_matches(is_plain))
    })
}

/// The texts between `<<WORD` and the line `WORD`.
fn here_documents(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some((_, after)) = line.split_once("<<") else { continue };
        let (after, has_tabs) = match after.strip_prefix('-') {
            Some(after) => (after, true),
            None => (after, false),
        };
        let after = after.trim_start().trim_start_matches(['"', '\'', '\\']);
        let word: String = after.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        if word.is_empty() {
            continue;
        }
        let content = lines
            .by_ref()
            .map(|line| if has_tabs { line.trim_start_matches('\t') } else { line })
            .take_while(|line| line.trim_end() != word);
        found.push(content.fold(String::new(), |text, line| text + line + "\n"));
    }
    found
}

/// The template with the values of the variables that the definition gives, at one line of the file. A mesh that the
/// template does not name is that of the sidecar.
pub(super) fn substituted(
    root: &SourceNode,
    variables: &BTreeMap<String, String>,
    mesh: Option<&str>,
    line: u32,
) -> SourceNode {
    let mut root = substitute(root, variables, line);
    let kind = root.get("type").and_then(SourceNode::as_text);
    if let (Some(mesh), None, Some("Dataplane")) = (mesh, root.get("mesh"), kind.as_deref())
        && let SourceValue::Map(entries) = &mut root.value
    {
        let node = SourceNode { line, value: SourceValue::Text(mesh.to_owned()) };
        entries.push(SourceEntry { key: "mesh".to_owned(), node });
    }
    root
}

fn substitute(node: &SourceNode, variables: &BTreeMap<String, String>, line: u32) -> SourceNode {
    let value = match &node.value {
        SourceValue::Text(text) => SourceValue::Text(replace(text, variables)),
        SourceValue::List(items) => {
            SourceValue::List(items.iter().map(|item| substitute(item, variables, line)).collect())
        }
        SourceValue::Map(entries) => SourceValue::Map(
            entries
                .iter()
                .map(|entry| SourceEntry {
                    key: replace(&entry.key, variables),
                    node: substitute(&entry.node, variables, line),
                })
                .collect(),
        ),
        other => other.clone(),
    };
    SourceNode { line, value }
}

/// A variable whose value only a running task knows stays a placeholder.
fn replace(text: &str, variables: &BTreeMap<String, String>) -> String {
    variables
        .iter()
        .filter(|(_, value)| !value.contains('$'))
        .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{{ {name} }}}}"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "type: Dataplane\nname: {{ name }}\nnetworking:\n  address: {{ address }}\n";

    #[test]
    fn templates_are_found_in_texts() {
        let script = format!(
            "set -e\ncat <<'EOF' >/tmp/dp.yaml\n{TEMPLATE}EOF\nexec kuma-dp run --dataplane-file=/tmp/dp.yaml\n"
        );
        for (text, count) in [
            (TEMPLATE, 1),
            (&script, 1),
            ("{\"type\": \"ZoneEgress\", \"name\": \"e\"}", 1),
            ("kuma-dp run --type=Dataplane", 0),
            ("type: Other", 0),
        ] {
            assert_eq!(embedded_documents(text).len(), count, "{text}");
        }
        assert_eq!(
            embedded_documents(&script)[0].as_ref().unwrap().get("name").unwrap().as_text().unwrap(),
            "{{ name }}"
        );
    }

    #[test]
    fn variables_of_the_definition_are_filled_in() {
        let root = embedded_documents(TEMPLATE).remove(0).unwrap();
        let variables =
            [("name", "kv-1"), ("address", "$()")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let found = substituted(&root, &variables, Some("prod"), 7);
        assert_eq!(found.get("name").unwrap().as_text().unwrap(), "kv-1");
        assert_eq!(found.at(&["networking", "address"]).unwrap().as_text().unwrap(), "{{ address }}");
        assert_eq!(found.get("mesh").unwrap().as_text().unwrap(), "prod");
    }
}
