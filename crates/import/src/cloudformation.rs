//! Resolves the functions of a CloudFormation template as far as the template alone decides them.

use std::collections::BTreeMap;

use crate::tree::{SourceEntry, SourceNode, SourceValue};

/// The reason for what is in a template beside its resources.
pub(crate) const PART_OF_TEMPLATE: &str =
    "a part of the template, whose values are used where functions refer to them";

/// How deep functions may refer to others.
const MAX_REFERENCES: usize = 16;

/// A template.
pub(crate) struct StackTemplate<'a> {
    root: &'a SourceNode,
}

impl<'a> StackTemplate<'a> {
    pub(crate) fn of(root: &'a SourceNode) -> Self {
        Self { root }
    }

    /// The value with its functions resolved. What only a stack knows stays as `${NAME}`.
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
                    self.call(key, node, depth + 1)
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

    fn call(&self, function: &str, argument: &SourceNode, depth: usize) -> SourceValue {
        let unresolved = || SourceValue::Text(format!("${{{function}}}"));
        if depth > MAX_REFERENCES {
            return unresolved();
        }
        let argument =
            if function == "Fn::Sub" { argument.clone() } else { self.resolve_within(argument, depth) };
        match function {
            "Ref" => self.reference(&argument.as_text().unwrap_or_default(), depth),
            "Fn::Sub" => self.substitute(&argument, depth),
            "Fn::Join" => join(&argument).map_or_else(unresolved, SourceValue::Text),
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

fn join(argument: &SourceNode) -> Option<String> {
    let [delimiter, parts] = argument.items() else { return None };
    let parts: Option<Vec<String>> = parts.items().iter().map(SourceNode::as_text).collect();
    Some(parts?.join(&delimiter.as_text()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

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
  none: !Ref AWS::NoValue
  list: [!Ref Name, {a: !Ref Name}]
  loop: !GetAtt A.Loop
";
        let root = yaml::documents(text).remove(0).unwrap();
        let found = StackTemplate::of(&root).resolve(root.get("Test").unwrap());
        for (key, value) in [
            ("ref", "kv"),
            ("unknown", "${Stack}"),
            ("sub", "kv/5050/${Shell}/${Stack}"),
            ("join", "port=5050"),
            ("att", "kv-mesh"),
            ("import", "${${Stack}:Cluster}"),
            ("loop", "${Fn::GetAtt}"),
        ] {
            assert_eq!(found.get(key).unwrap().as_text().as_deref(), Some(value), "{key}");
        }
        assert_eq!(found.get("none").unwrap().value, SourceValue::Null);
        assert_eq!(found.get("list").unwrap().items()[1].get("a").unwrap().as_text().unwrap(), "kv");
    }
}
