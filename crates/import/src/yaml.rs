//! Reads the YAML documents of a text. Tags such as `!Sub` become the functions that CloudFormation means by them, and
//! placeholders of kuma-dp's templates stay readable.

use ecs_mesh_api::yaml::{ParsedNode, ParsedValue, chunks, line_number, written};
use serde_saphyr::{DuplicateKeyPolicy, Location, NonFiniteFloatPolicy, Spanned, Tagged};

use crate::place::SourceError;
use crate::tree::{SourceEntry, SourceNode, SourceValue, child};

/// Maximum number of values in a document, with aliases expanded: room for a list of ten thousand Dataplanes.
const MAX_NODES: usize = 2_000_000;
/// Maximum number of the parser's events in a document.
const MAX_EVENTS: usize = 4 * MAX_NODES;
/// Maximum number of values from aliases in a document.
const MAX_FROM_ALIASES: usize = 10_000;

/// Stand-ins for `{{` and `}}` while the text is parsed: YAML reads braces without quotes as a mapping. Both are of
/// Unicode's private use area, which no template contains.
const OPEN: char = '\u{e000}';
const CLOSE: char = '\u{e001}';

/// The documents with content, each with its number, from 1.
pub(crate) fn documents(text: &str) -> Vec<Result<SourceNode, SourceError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let masked = mask_placeholders(text);
    let mut found = Vec::new();
    for (lines_before, chunk) in chunks(&masked) {
        match parse(chunk, lines_before) {
            Ok(SourceNode { value: SourceValue::Null, .. }) => {}
            parsed => found.push(parsed),
        }
    }
    found
}

/// `{{ name }}` with other marks. Kuma's templates are replaced before the YAML is parsed, so a placeholder may stand
/// anywhere.
fn mask_placeholders(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let (before, from) = rest.split_at(start);
        masked.push_str(before);
        let name = from[2..].find("}}").map(|end| &from[2..2 + end]);
        match name.filter(|name| is_placeholder(name)) {
            Some(name) => {
                masked.push(OPEN);
                masked.push_str(name.trim());
                masked.push(CLOSE);
                rest = &from[name.len() + 4..];
            }
            None => {
                masked.push_str("{{");
                rest = &from[2..];
            }
        }
    }
    masked + rest
}

fn is_placeholder(name: &str) -> bool {
    let name = name.trim();
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

fn unmask(text: &str) -> String {
    text.replace(OPEN, "{{ ").replace(CLOSE, " }}")
}

fn parse(chunk: &str, lines_before: u32) -> Result<SourceNode, SourceError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_events: MAX_EVENTS,
            max_depth: crate::json::MAX_DEPTH,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_FROM_ALIASES,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        // A snippet could show a secret next to the error.
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<ParsedNode>(chunk, options) {
        Ok(raw) => YamlTreeReader { chunk, lines_before }.node(raw, ""),
        Err(error) => {
            let text = error.to_string();
            let cause = text.split(" at line ").next().unwrap_or_default();
            let cause = cause.rsplit_once(": line ").map_or(cause, |(before, _)| before);
            Err(SourceError {
                line: Some(lines_before + error.location().map_or(1, |at| line_number(at.line()))),
                column: error.location().and_then(|at| usize::try_from(at.column()).ok()),
                path: String::new(),
                message: format!("not valid YAML: {}", unmask(cause)),
            })
        }
    }
}

/// Converts the parser's output, with lines counted from the start of the file.
struct YamlTreeReader<'a> {
    chunk: &'a str,
    lines_before: u32,
}

impl YamlTreeReader<'_> {
    fn node(&self, raw: ParsedNode, path: &str) -> Result<SourceNode, SourceError> {
        let Spanned { value: Tagged(value, tag), referenced, defined } = raw;
        let line = self.lines_before + line_number(referenced.line());
        let value = match value {
            ParsedValue::Null => SourceValue::Null,
            ParsedValue::Bool(value) => SourceValue::Bool(value),
            ParsedValue::Unsigned(number) => self.number(defined, number.to_string()),
            ParsedValue::Float(number) => self.number(defined, number.to_string()),
            ParsedValue::Text(text) => SourceValue::Text(unmask(&text)),
            ParsedValue::List(items) => SourceValue::List(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| self.node(item, &format!("{path}[{index}]")))
                    .collect::<Result<_, _>>()?,
            ),
            ParsedValue::Map(entries) => SourceValue::Map(self.entries(entries, path)?),
        };
        Ok(apply_tag(tag.as_deref(), SourceNode { line, value }))
    }

    /// A number as it is written in the file.
    fn number(&self, at: Location, parsed: String) -> SourceValue {
        SourceValue::Number(written(self.chunk, at).unwrap_or(parsed))
    }

    fn entries(
        &self,
        raw: Vec<(Spanned<String>, ParsedNode)>,
        path: &str,
    ) -> Result<Vec<SourceEntry>, SourceError> {
        let mut lines = std::collections::BTreeMap::new();
        let mut entries = Vec::with_capacity(raw.len());
        for (key, value) in raw {
            let line = self.lines_before + line_number(key.referenced.line());
            let key = unmask(&key.value);
            let path = child(path, &key);
            if let Some(first) = lines.insert(key.clone(), line) {
                let message = format!("given twice, first on line {first}: keep one of them");
                return Err(SourceError { line: Some(line), column: None, path, message });
            }
            entries.push(SourceEntry { node: self.node(value, &path)?, key });
        }
        Ok(entries)
    }
}

/// `!Ref X` is `{Ref: X}`, and `!Sub X` is `{Fn::Sub: X}`. `!GetAtt A.B` is a list in its long form.
fn apply_tag(tag: Option<&str>, node: SourceNode) -> SourceNode {
    let Some(name) = tag.and_then(|tag| tag.strip_prefix('!')).filter(|name| !name.is_empty()) else {
        return node;
    };
    let key = match name {
        "Ref" | "Condition" => name.to_owned(),
        _ => format!("Fn::{name}"),
    };
    SourceNode { line: node.line, value: SourceValue::Map(vec![SourceEntry { key, node }]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> SourceNode {
        let mut found = documents(text);
        assert_eq!(found.len(), 1, "{text}");
        found.remove(0).unwrap()
    }

    #[test]
    fn placeholders_and_numbers_keep_their_text() {
        let node = one("port: {{ port }}\nname: \"{{name}}-1\"\nversion: 1.10\nmap: {a: {b: 1}}\n");
        assert_eq!(node.get("port").unwrap().as_text().unwrap(), "{{ port }}");
        assert_eq!(node.get("name").unwrap().as_text().unwrap(), "{{ name }}-1");
        assert_eq!(node.get("version").unwrap().value, SourceValue::Number("1.10".into()));
        assert_eq!(node.at(&["map", "a", "b"]).unwrap().as_text().unwrap(), "1");
    }

    #[test]
    fn tags_become_functions() {
        let node = one("a: !Ref X\nb: !Sub |\n  ${Y}\n  z\nc: !Join ['', [a, !Ref B]]\nd: !GetAtt A.B\n");
        assert_eq!(node.at(&["a", "Ref"]).unwrap().as_text().unwrap(), "X");
        assert_eq!(node.at(&["b", "Fn::Sub"]).unwrap().as_text().unwrap(), "${Y}\nz\n");
        let parts = node.at(&["c", "Fn::Join"]).unwrap().items()[1].items();
        assert_eq!(parts[1].get("Ref").unwrap().as_text().unwrap(), "B");
        assert_eq!(node.at(&["d", "Fn::GetAtt"]).unwrap().as_text().unwrap(), "A.B");
    }

    #[test]
    fn documents_have_lines_of_the_file() {
        let found = documents("# comment\n---\na: 1\n---\n\nb:\n  c: 2\n");
        let last = found[1].as_ref().unwrap();
        assert_eq!(last.leaves(), [("b.c".to_owned(), 7)]);
        let found = documents("a: 1\n---\nb: [1\n---\nc: 3\n");
        assert!(found[1].is_err() && found[2].is_ok());
    }

    #[test]
    fn duplicate_key_is_an_error_with_path_and_line() {
        let error = documents("a:\n  b: 1\n  b: 2\n").remove(0).unwrap_err();
        assert_eq!((error.line, error.path.as_str()), (Some(3), "a.b"));
    }
}
