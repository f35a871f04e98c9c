//! A tolerant reader of HCL and JSON for agent configuration and ACL policies. Unknown text is skipped and never an error,
//! since a shell script may surround the HCL.

use serde_json::Value as Json;

/// Whether two ACL rule texts are equivalent.
pub fn same_rules(a: &str, b: &str) -> bool {
    a == b || tokens(a) == tokens(b)
}

/// A block: its fields in order, and blocks within it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HclBlock(Vec<(String, HclItem)>);

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
enum HclItem {
    Text(String),
    Word(String),
    HclBlock { label: Option<String>, block: HclBlock },
    Other,
}

impl HclBlock {
    /// Reads HCL, or JSON if the text is JSON.
    pub fn read(text: &str) -> Self {
        if let Ok(Json::Object(fields)) = serde_json::from_str(text) {
            return Self::of_json(&fields);
        }
        let tokens: Vec<HclToken> = tokens(text).into_iter().filter_map(HclToken::of).collect();
        let mut at = 0;
        let mut all = Self::default();
        while at < tokens.len() {
            read_fields(&tokens, &mut at, 0, &mut all);
            // An unmatched closing brace.
            at += 1;
        }
        all
    }

    fn of_json(fields: &serde_json::Map<String, Json>) -> Self {
        let mut block = Self::default();
        for (key, value) in fields {
            let items = match value {
                Json::Array(items) => items.iter().collect(),
                one => vec![one],
            };
            for item in items {
                block.0.push((
                    key.clone(),
                    match item {
                        Json::String(text) => HclItem::Text(text.clone()),
                        Json::Bool(_) | Json::Number(_) => HclItem::Word(item.to_string()),
                        Json::Object(fields) => {
                            HclItem::HclBlock { label: None, block: Self::of_json(fields) }
                        }
                        Json::Null | Json::Array(_) => HclItem::Other,
                    },
                ));
            }
        }
        block
    }

    /// The last value with this name.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find_map(|(key, item)| match item {
            HclItem::Text(text) | HclItem::Word(text) if key == name => Some(text.as_str()),
            _ => None,
        })
    }

    /// Whether the field is `true`.
    pub fn is_true(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    /// The blocks with this name, with their labels.
    pub fn blocks(&self, name: &str) -> Vec<(Option<&str>, &Self)> {
        let mine = self.0.iter().filter_map(|(key, item)| match item {
            HclItem::HclBlock { label, block } if key == name => Some((label.as_deref(), block)),
            _ => None,
        });
        mine.collect()
    }

    /// The first value at the path, in any of several blocks of the same name.
    pub fn text_at<'a>(&'a self, path: &[&str]) -> Option<&'a str> {
        match path {
            [] => None,
            [name] => self.text(name),
            [name, rest @ ..] => self.blocks(name).into_iter().find_map(|(_, block)| block.text_at(rest)),
        }
    }

    /// Whether a block with this name exists.
    pub fn has_block(&self, name: &str) -> bool {
        !self.blocks(name).is_empty()
    }

    /// Visits every nested value with its path (block names and labels) and text.
    pub fn walk(&self, visit: &mut dyn FnMut(&[&str], &str)) {
        fn within<'a>(block: &'a HclBlock, path: &mut Vec<&'a str>, visit: &mut dyn FnMut(&[&str], &str)) {
            for (key, item) in &block.0 {
                path.push(key);
                match item {
                    HclItem::Text(text) | HclItem::Word(text) => visit(path, text),
                    HclItem::HclBlock { label, block } => {
                        let length = path.len();
                        path.extend(label.as_deref());
                        within(block, path, visit);
                        path.truncate(length);
                    }
                    HclItem::Other => {}
                }
                path.pop();
            }
        }
        within(self, &mut Vec::new(), visit);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HclToken {
    Word(String),
    Text(String),
    Mark(char),
}

impl HclToken {
    /// `None`: shell syntax instead of HCL.
    fn of(text: &str) -> Option<Self> {
        let first = text.chars().next()?;
        match first {
            '"' => Some(Self::Text(unescaped(text))),
            '{' | '}' | '=' | '[' | ']' | ',' => Some(Self::Mark(first)),
            _ => {
                let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '-' | '.' | '/' | ':');
                let word = text.trim_matches(|c| !is_part(c));
                (!word.is_empty()).then(|| Self::Word(word.to_owned()))
            }
        }
    }
}

/// The text between the quotes; the closing one may be missing.
fn unescaped(text: &str) -> String {
    let mut found = String::new();
    let mut rest = text.chars().skip(1);
    while let Some(c) = rest.next() {
        match c {
            '"' => break,
            '\\' => found.extend(rest.next()),
            c => found.push(c),
        }
    }
    found
}

/// The tokens of a text, without comments.
fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '#' => line(rest),
            '/' if rest.starts_with("//") => line(rest),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => string(rest),
            '{' | '}' | '=' | '[' | ']' | ',' => 1,
            _ => rest.find(|c: char| c.is_whitespace() || "{}=[],\"#".contains(c)).unwrap_or(rest.len()),
        };
        let is_comment = first == '#' || rest.starts_with("//") || rest.starts_with("/*");
        if !is_comment {
            found.push(&rest[..length]);
        }
        rest = rest[length..].trim_start();
    }
    found
}

fn line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// Length up to the closing quote.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (index, character) in text.char_indices().skip(1) {
        match character {
            '\\' => escaped = !escaped,
            '"' if !escaped => return index + 1,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Limit of nested blocks; agents and policies have a few.
const MAX_DEPTH: usize = 64;

/// Reads up to the closing brace of the block, without consuming it.
fn read_fields(tokens: &[HclToken], at: &mut usize, depth: usize, into: &mut HclBlock) {
    while let Some(token) = tokens.get(*at) {
        let key = match token {
            HclToken::Mark('}') => return,
            HclToken::Word(key) | HclToken::Text(key) => key.clone(),
            HclToken::Mark(_) => {
                *at += 1;
                continue;
            }
        };
        *at += 1;
        let mut label = None;
        if let (Some(HclToken::Text(text)), Some(HclToken::Mark('{'))) =
            (tokens.get(*at), tokens.get(*at + 1))
        {
            label = Some(text.clone());
            *at += 1;
        }
        let assigned = tokens.get(*at) == Some(&HclToken::Mark('='));
        *at += usize::from(assigned);
        let item = match tokens.get(*at) {
            Some(HclToken::Mark('{')) if depth == MAX_DEPTH => {
                pass_block(tokens, at);
                HclItem::Other
            }
            Some(HclToken::Mark('{')) => {
                *at += 1;
                let mut block = HclBlock::default();
                read_fields(tokens, at, depth + 1, &mut block);
                HclItem::HclBlock { label, block }
            }
            Some(HclToken::Text(text)) if assigned => HclItem::Text(text.clone()),
            Some(HclToken::Word(word)) if assigned => HclItem::Word(word.clone()),
            Some(HclToken::Mark('[')) if assigned => {
                while !matches!(tokens.get(*at), None | Some(HclToken::Mark(']'))) {
                    *at += 1;
                }
                HclItem::Other
            }
            // Shell syntax.
            _ => continue,
        };
        *at += 1;
        into.0.push((key, item));
    }
}

/// Skips from a brace to the closing one.
fn pass_block(tokens: &[HclToken], at: &mut usize) {
    let mut open = 0_usize;
    while let Some(token) = tokens.get(*at) {
        match token {
            HclToken::Mark('{') => open += 1,
            HclToken::Mark('}') if open == 1 => return,
            HclToken::Mark('}') => open -= 1,
            _ => {}
        }
        *at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hcl_parser_skips_blocks_nested_too_deep() {
        let text = format!("{}{} acl = \"write\"", "a {".repeat(100_000), "}".repeat(100_000));
        assert_eq!(HclBlock::read(&text).text("acl"), Some("write"));
        assert!(HclBlock::read(&"a {".repeat(100_000)).has_block("a"));
    }

    #[test]
    fn equivalent_rules_are_equal() {
        let rules = "mesh = \"read\"\nnode_prefix \"\" {\n  policy = \"read\"\n}\n";
        for (text, expected) in [
            ("mesh = \"read\"\n\tnode_prefix \"\" {\n\t\tpolicy = \"read\"\n\t}", true),
            ("# for gateways\nmesh=\"read\" node_prefix \"\"{policy=\"read\"} // end", true),
            ("/* a */ mesh = \"read\" node_prefix \"\" { policy = \"read\" }", true),
            ("mesh = \"write\"\nnode_prefix \"\" {\n  policy = \"read\"\n}\n", false),
            ("mesh = \"read\"\nnode_prefix \" \" {\n  policy = \"read\"\n}\n", false),
            ("mesh = \"read\"", false),
            ("mesh = \"read\"\nnode_prefix \"\" {\n  policy = \"read\"\n}\nacl = \"write\"", false),
            ("", false),
            ("mesh = \"read", false),
        ] {
            assert_eq!(same_rules(rules, text), expected, "{text}");
        }
        assert!(same_rules("a \"\\\"#\" {}", "a\n\"\\\"#\"{}"), "a quote within a text does not end it");
        assert!(same_rules("é = \"ü\"", "é=\"ü\""));
    }

    #[test]
    fn hcl_and_json_give_the_same_result() {
        let hcl = "# a comment\nacl = {\n enabled = true\n tokens { agent = \"$T\" }\n}\nretry_join = [\"a\", \"b\"]\n\
                   tls { defaults { ca_file = \"/ca.pem\" } }\npartition = \"p1\"";
        let json = r#"{"acl": {"enabled": true, "tokens": {"agent": "$T"}}, "retry_join": ["a"],
            "tls": {"defaults": {"ca_file": "/ca.pem"}}, "partition": "p1"}"#;
        for text in [hcl, json] {
            let block = HclBlock::read(text);
            assert_eq!(block.text_at(&["acl", "enabled"]), Some("true"), "{text}");
            assert_eq!(block.text_at(&["acl", "tokens", "agent"]), Some("$T"));
            assert_eq!(block.text_at(&["tls", "defaults", "ca_file"]), Some("/ca.pem"));
            assert_eq!(block.text("partition"), Some("p1"));
        }
    }

    #[test]
    fn path_of_a_value_includes_labels() {
        let block = HclBlock::read("node_prefix \"\" { policy = \"write\" }\noperator = \"read\"");
        let mut seen = Vec::new();
        block.walk(&mut |path, text| seen.push((path.join("/"), text.to_owned())));
        assert_eq!(
            seen,
            [
                ("node_prefix//policy".to_owned(), "write".to_owned()),
                ("operator".to_owned(), "read".to_owned())
            ]
        );
    }

    #[test]
    fn hcl_in_a_shell_script_is_read() {
        let block = HclBlock::read(
            "set -e\nfoo() { echo \"$A\"; }\ncat << EOF > /c.hcl\nacl {\n enabled = true\n}\nEOF\n",
        );
        assert_eq!(block.text_at(&["acl", "enabled"]), Some("true"));
        for text in ["{", "}", "a {", "a = [", "\"", "a = {\n}}}{"] {
            let _ = HclBlock::read(text);
        }
    }

    #[test]
    fn hcl_parser_ignores_comments_and_shell_characters() {
        let block = HclBlock::read(
            "/* acl = \"write\" */ # a\nacl = \"read\" // b\nuse = true;\nurl = https://a:1/b",
        );
        assert_eq!((block.text("acl"), block.text("use")), (Some("read"), Some("true")));
        assert_eq!(block.text("url"), Some("https://a:1/b"));
    }
}
