//! Resolves the functions of a CloudFormation template as far as the template alone decides them.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::tree::{SourceEntry, SourceNode, SourceValue};

/// The reason for what is in a template beside its resources.
pub(crate) const PART_OF_TEMPLATE: &str = "a part of the template: defaults of parameters, mappings and conditions are used where functions refer to them";

/// How deep functions may refer to others.
const MAX_REFERENCES: usize = 16;
/// The sum of all results, in bytes of text and values: functions that refer to each other can expand a small template into
/// a large one.
const MAX_EXPANSION: usize = 16 * 1024 * 1024;

/// A template.
pub(crate) struct StackTemplate<'a> {
    root: &'a SourceNode,
    /// The rest of [`MAX_EXPANSION`].
    budget: Cell<usize>,
}

impl<'a> StackTemplate<'a> {
    pub(crate) fn of(root: &'a SourceNode) -> Self {
        Self { root, budget: Cell::new(MAX_EXPANSION) }
    }

    /// The value with its functions resolved. A value that only a stack knows stays as `${NAME}`.
    pub(crate) fn resolve(&self, node: &SourceNode) -> SourceNode {
        self.resolve_within(node, 0)
    }

    fn resolve_within(&self, node: &SourceNode, depth: usize) -> SourceNode {
        let line = node.line;
        let value = match &node.value {
            SourceValue::List(items) => {
                SourceValue::List(items.iter().map(|item| self.resolve_within(item, depth)).collect())
            }
            SourceValue::Map(entries) => match entries.as_slice() {
                [SourceEntry { key, node }] if key == "Ref" || key.starts_with("Fn::") => {
                    self.charged(key, self.call(key, node, depth + 1))
                }
                entries => {
                    let entry = |entry: &SourceEntry| SourceEntry {
                        key: entry.key.clone(),
                        node: self.resolve_within(&entry.node, depth),
                    };
                    SourceValue::Map(entries.iter().map(entry).collect())
                }
            },
            other => other.clone(),
        };
        SourceNode { line, value }
    }

    /// The result, or the function's name where the results have become too large.
    fn charged(&self, function: &str, result: SourceValue) -> SourceValue {
        if self.charge(size(&result)) { result } else { unresolved(function) }
    }

    /// Whether the budget has this much left.
    fn charge(&self, amount: usize) -> bool {
        let left = self.budget.get().checked_sub(amount);
        self.budget.set(left.unwrap_or_default());
        left.is_some()
    }

    fn call(&self, function: &str, argument: &SourceNode, depth: usize) -> SourceValue {
        let unresolved = || unresolved(function);
        if depth > MAX_REFERENCES || self.budget.get() == 0 {
            return unresolved();
        }
        // Only one branch of a condition is a part of the stack.
        if function == "Fn::If" {
            return self.choose(argument, depth).unwrap_or_else(unresolved);
        }
        let argument =
            if function == "Fn::Sub" { argument.clone() } else { self.resolve_within(argument, depth) };
        match function {
            "Ref" => self.reference(&argument.as_text().unwrap_or_default(), depth),
            "Fn::Sub" => self.substitute(&argument, depth),
            "Fn::Join" => join(&argument).map_or_else(unresolved, SourceValue::Text),
            "Fn::Split" => split(&argument).unwrap_or_else(unresolved),
            "Fn::Select" => select(&argument).unwrap_or_else(unresolved),
            // User data: the text that a reader writes.
            "Fn::Base64" => argument.value,
            "Fn::FindInMap" => self.find_in_map(&argument).unwrap_or_else(unresolved),
            "Fn::GetAtt" => {
                let name = argument.as_text().or_else(|| {
                    let parts: Vec<String> =
                        argument.items().iter().filter_map(SourceNode::as_text).collect();
                    (parts.len() == 2).then(|| parts.join("."))
                });
                name.map_or_else(unresolved, |name| self.reference(&name, depth))
            }
            "Fn::ImportValue" => {
                SourceValue::Text(format!("${{{}}}", argument.as_text().unwrap_or_default()))
            }
            _ => unresolved(),
        }
    }

    /// A parameter's default, or a resource's property where the template says it.
    fn reference(&self, name: &str, depth: usize) -> SourceValue {
        if name == "AWS::NoValue" {
            return SourceValue::Null;
        }
        if let Some(default) = self.root.at(&["Parameters", name, "Default"]) {
            return default.value.clone();
        }
        let property = name
            .split_once('.')
            .and_then(|(resource, property)| self.root.at(&["Resources", resource, "Properties", property]));
        match property {
            Some(node) => self.resolve_within(node, depth + 1).value,
            None => SourceValue::Text(format!("${{{name}}}")),
        }
    }

    /// The branch of a condition that parameters' defaults decide.
    fn choose(&self, argument: &SourceNode, depth: usize) -> Option<SourceValue> {
        let [condition, if_true, if_false] = argument.items() else { return None };
        let is_true = self.named_condition(&condition.as_text()?, depth)?;
        Some(self.resolve_within(if is_true { if_true } else { if_false }, depth).value)
    }

    fn named_condition(&self, name: &str, depth: usize) -> Option<bool> {
        self.condition(self.root.at(&["Conditions", name])?, depth + 1)
    }

    fn condition(&self, node: &SourceNode, depth: usize) -> Option<bool> {
        let [SourceEntry { key, node }] = node.entries() else { return None };
        if depth > MAX_REFERENCES || !self.charge(1) {
            return None;
        }
        let parts = || node.items().iter().map(|part| self.condition(part, depth + 1));
        match key.as_str() {
            "Condition" => self.named_condition(&node.as_text()?, depth),
            "Fn::Equals" => {
                let [one, other] = node.items() else { return None };
                Some(self.known_text(one, depth)? == self.known_text(other, depth)?)
            }
            "Fn::Not" => parts().next()?.map(|is_true| !is_true),
            "Fn::And" if parts().any(|part| part == Some(false)) => Some(false),
            "Fn::And" => parts().all(|part| part == Some(true)).then_some(true),
            "Fn::Or" if parts().any(|part| part == Some(true)) => Some(true),
            "Fn::Or" => parts().all(|part| part == Some(false)).then_some(false),
            _ => None,
        }
    }

    /// The text, if it does not depend on the stack.
    fn known_text(&self, node: &SourceNode, depth: usize) -> Option<String> {
        self.resolve_within(node, depth).as_text().filter(|text| !is_of_stack(text))
    }

    fn find_in_map(&self, argument: &SourceNode) -> Option<SourceValue> {
        let keys: Option<Vec<String>> = argument.items().iter().map(SourceNode::as_text).collect();
        let keys = keys.filter(|keys| keys.len() >= 3)?;
        Some(self.root.at(&["Mappings", &keys[0], &keys[1], &keys[2]])?.value.clone())
    }

    /// `${NAME}` by the function's own variables, parameters and properties; `${!NAME}` is the text `${NAME}`.
    fn substitute(&self, argument: &SourceNode, depth: usize) -> SourceValue {
        let (text, variables) = match argument.items() {
            [] => (argument.as_text(), BTreeMap::new()),
            [text, variables, ..] => {
                let resolved = |entry: &SourceEntry| {
                    Some((entry.key.clone(), self.resolve_within(&entry.node, depth).as_text()?))
                };
                (text.as_text(), variables.entries().iter().filter_map(resolved).collect())
            }
            [text] => (text.as_text(), BTreeMap::new()),
        };
        let text = text.unwrap_or_default();
        let mut result = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(start) = rest.find("${") {
            let (before, from) = rest.split_at(start);
            result.push_str(before);
            let Some(end) = from.find('}') else { break };
            let name = &from[2..end];
            let value = match name.strip_prefix('!') {
                Some(literal) => Some(format!("${{{literal}}}")),
                None => variables.get(name).cloned().or_else(|| {
                    let line = argument.line;
                    SourceNode { line, value: self.reference(name, depth) }.as_text()
                }),
            };
            result.push_str(&value.unwrap_or_else(|| from[..=end].to_owned()));
            rest = &from[end + 1..];
        }
        SourceValue::Text(result + rest)
    }
}

/// Whether a resolved text has a part that only a stack knows.
pub(crate) fn is_of_stack(text: &str) -> bool {
    text.contains("${")
}

/// The logical ids of the resources that the functions of a value refer to.
pub(crate) fn references(node: &SourceNode) -> Vec<String> {
    let mut found = Vec::new();
    collect_references(node, &mut found);
    found
}

fn collect_references(node: &SourceNode, found: &mut Vec<String>) {
    let id = |text: String| text.split('.').next().unwrap_or_default().to_owned();
    for SourceEntry { key, node } in node.entries() {
        match key.as_str() {
            "Ref" => found.extend(node.as_text()),
            "Fn::GetAtt" => {
                found.extend(node.as_text().or_else(|| node.items().first()?.as_text()).map(id));
            }
            "Fn::Sub" => {
                let text = node.as_text().or_else(|| node.items().first()?.as_text()).unwrap_or_default();
                let names =
                    text.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0.to_owned()));
                found.extend(names.map(id));
            }
            _ => {}
        }
        collect_references(node, found);
    }
    node.items().iter().for_each(|item| collect_references(item, found));
}

fn unresolved(function: &str) -> SourceValue {
    SourceValue::Text(format!("${{{function}}}"))
}

/// The bytes of text in a value, and one for each value.
fn size(value: &SourceValue) -> usize {
    match value {
        SourceValue::Text(text) | SourceValue::Number(text) => 1 + text.len(),
        SourceValue::List(items) => 1 + items.iter().map(|item| size(&item.value)).sum::<usize>(),
        SourceValue::Map(entries) => {
            1 + entries.iter().map(|entry| entry.key.len() + size(&entry.node.value)).sum::<usize>()
        }
        SourceValue::Null | SourceValue::Bool(_) => 1,
    }
}

fn split(argument: &SourceNode) -> Option<SourceValue> {
    let [delimiter, text] = argument.items() else { return None };
    let (delimiter, text) = (delimiter.as_text()?, text.as_text()?);
    if delimiter.is_empty() || is_of_stack(&text) {
        return None;
    }
    let part = |part: &str| SourceNode { line: argument.line, value: SourceValue::Text(part.to_owned()) };
    Some(SourceValue::List(text.split(&delimiter).map(part).collect()))
}

fn select(argument: &SourceNode) -> Option<SourceValue> {
    let [index, items] = argument.items() else { return None };
    let index: usize = index.as_text()?.parse().ok()?;
    Some(items.items().get(index)?.value.clone())
}

fn join(argument: &SourceNode) -> Option<String> {
    let [delimiter, parts] = argument.items() else { return None };
    let parts: Option<Vec<String>> = parts.items().iter().map(SourceNode::as_text).collect();
    Some(parts?.join(&delimiter.as_text()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    fn resolved(text: &str) -> SourceNode {
        let root = yaml::documents(text).remove(0).unwrap();
        StackTemplate::of(&root).resolve(root.get("Test").unwrap())
    }

    #[test]
    fn condition_chooses_by_defaults_of_parameters() {
        let found = resolved(
            "
Parameters: {Tls: {Default: 'no'}, Zone: {Type: String}}
Conditions:
  HasTls: !Equals [!Ref Tls, 'yes']
  Plain: !Not [!Condition HasTls]
  Known: !Equals [!Ref Zone, a]
  Either: !Or [!Condition Known, !Condition Plain]
  Both: !And [!Condition Known, !Condition HasTls]
  Loop: !Not [!Condition Loop]
Test:
  plain: !If [Plain, {port: 80}, {port: 443}]
  nested: !If [HasTls, a, !If [Either, b, c]]
  both: !If [Both, a, b]
  unknown: !If [Known, a, b]
  loop: !If [Loop, a, b]
  gone: !If [HasTls, a, !Ref AWS::NoValue]
",
        );
        assert_eq!(found.at(&["plain", "port"]).unwrap().as_text().unwrap(), "80");
        for (key, value) in [("nested", "b"), ("both", "b"), ("unknown", "${Fn::If}"), ("loop", "${Fn::If}")]
        {
            assert_eq!(found.get(key).unwrap().as_text().as_deref(), Some(value), "{key}");
        }
        assert_eq!(found.get("gone").unwrap().value, SourceValue::Null);
    }

    #[test]
    fn expansion_of_a_template_is_bounded() {
        let mut text = "Resources:\n  A0: {Properties: {P: '0123456789'}}\n".to_owned();
        for number in 1..16 {
            let before = format!("${{A{}.P}}", number - 1).repeat(16);
            text = format!("{text}  A{number}: {{Properties: {{P: !Sub '{before}'}}}}\n");
        }
        let found = resolved(&format!("{text}Test: !GetAtt A15.P\n"));
        assert!(size(&found.value) <= MAX_EXPANSION);
    }

    #[test]
    fn references_of_a_value_are_found() {
        let text = "a: !Ref One\nb: !GetAtt Two.Arn\nc: !Sub 'x${Three}y${Four.Arn}'\nd: !Join ['', [!Ref Five, z]]\n";
        let root = yaml::documents(text).remove(0).unwrap();
        assert_eq!(references(&root), ["One", "Two", "Three", "Four", "Five"]);
    }

    #[test]
    fn functions_are_resolved_as_far_as_the_template_says() {
        let text = "
Parameters: {Name: {Default: kv}, Stack: {Type: String}}
Mappings: {Config: {Workload: {Port: 5050}}}
Resources:
  Mesh: {Type: AWS::AppMesh::Mesh, Properties: {MeshName: !Sub '${Name}-mesh'}}
  A: {Type: X, Properties: {Loop: !GetAtt A.Loop}}
Test:
  ref: !Ref Name
  unknown: !Ref Stack
  sub: !Sub ['${Name}/${Port}/${!Shell}/${Stack}', {Port: !FindInMap [Config, Workload, Port]}]
  join: !Join ['=', [port, !FindInMap [Config, Workload, Port]]]
  att: !GetAtt Mesh.MeshName
  import: {Fn::ImportValue: !Join [':', [!Ref Stack, Cluster]]}
  part: !Select [1, !Split [',', 'a,b,c']]
  data: {Fn::Base64: !Sub 'run ${Name}'}
  none: !Ref AWS::NoValue
  list: [!Ref Name, {a: !Ref Name}]
  loop: !GetAtt A.Loop
";
        let found = resolved(text);
        for (key, value) in [
            ("ref", "kv"),
            ("unknown", "${Stack}"),
            ("sub", "kv/5050/${Shell}/${Stack}"),
            ("join", "port=5050"),
            ("att", "kv-mesh"),
            ("import", "${${Stack}:Cluster}"),
            ("loop", "${Fn::GetAtt}"),
            ("part", "b"),
            ("data", "run kv"),
        ] {
            assert_eq!(found.get(key).unwrap().as_text().as_deref(), Some(value), "{key}");
        }
        assert_eq!(found.get("none").unwrap().value, SourceValue::Null);
        assert_eq!(found.get("list").unwrap().items()[1].get("a").unwrap().as_text().unwrap(), "kv");
    }
}
