//! HCL as agents and policies are written in, read with tolerance: what is not understood is passed over, and never an
//! error, since it may be a shell script around it. JSON is read by the same types.

use serde_json::Value as Json;

/// A block: its fields in order, and blocks within it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block(Vec<(String, Item)>);

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Text(String),
    Word(String),
    Block { label: Option<String>, block: Block },
    Other,
}

impl Block {
    /// Reads HCL, or JSON where the text is that.
    pub(crate) fn read(text: &str) -> Self {
        if let Ok(Json::Object(fields)) = serde_json::from_str(text) {
            return Self::of_json(&fields);
        }
        let tokens = tokens(text);
        let mut at = 0;
        let mut all = Self::default();
        while at < tokens.len() {
            read_fields(&tokens, &mut at, &mut all);
            // A brace that nothing opened.
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
                        Json::String(text) => Item::Text(text.clone()),
                        Json::Bool(_) | Json::Number(_) => Item::Word(item.to_string()),
                        Json::Object(fields) => Item::Block { label: None, block: Self::of_json(fields) },
                        Json::Null | Json::Array(_) => Item::Other,
                    },
                ));
            }
        }
        block
    }

    /// The last text or word of this name.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find_map(|(key, item)| match item {
            Item::Text(text) | Item::Word(text) if key == name => Some(text.as_str()),
            _ => None,
        })
    }

    /// Whether the field is there and `true`.
    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    /// The blocks of this name, with their labels.
    pub(crate) fn blocks(&self, name: &str) -> Vec<(Option<&str>, &Self)> {
        let mine = self.0.iter().filter_map(|(key, item)| match item {
            Item::Block { label, block } if key == name => Some((label.as_deref(), block)),
            _ => None,
        });
        mine.collect()
    }

    /// The first text of the path, whichever of several blocks of a name has it.
    pub(crate) fn text_at<'a>(&'a self, path: &[&str]) -> Option<&'a str> {
        match path {
            [] => None,
            [name] => self.text(name),
            [name, rest @ ..] => self.blocks(name).into_iter().find_map(|(_, block)| block.text_at(rest)),
        }
    }

    /// Whether a block of this name is there.
    pub(crate) fn has_block(&self, name: &str) -> bool {
        !self.blocks(name).is_empty()
    }

    /// Every text and block within, however deep: the names around it, its label, and its text.
    pub(crate) fn walk(&self, visit: &mut dyn FnMut(&[&str], &str)) {
        fn within<'a>(block: &'a Block, path: &mut Vec<&'a str>, visit: &mut dyn FnMut(&[&str], &str)) {
            for (key, item) in &block.0 {
                path.push(key);
                match item {
                    Item::Text(text) | Item::Word(text) => visit(path, text),
                    Item::Block { label, block } => {
                        let length = path.len();
                        path.extend(label.as_deref());
                        within(block, path, visit);
                        path.truncate(length);
                    }
                    Item::Other => {}
                }
                path.pop();
            }
        }
        within(self, &mut Vec::new(), visit);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Mark(char),
    Line,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '\n' => found.push(Token::Line),
            '#' => while rest.next_if(|c| *c != '\n').is_some() {},
            '/' if rest.peek() == Some(&'/') => while rest.next_if(|c| *c != '\n').is_some() {},
            '"' => {
                let mut text = String::new();
                while let Some(c) = rest.next() {
                    match c {
                        '"' => break,
                        '\\' => text.extend(rest.next()),
                        c => text.push(c),
                    }
                }
                found.push(Token::Text(text));
            }
            '{' | '}' | '[' | ']' | '=' | ',' => found.push(Token::Mark(next)),
            c if c.is_alphanumeric() || matches!(c, '_' | '$' | '-') => {
                let mut word = String::from(c);
                while let Some(c) = rest.next_if(|c| c.is_alphanumeric() || "_-.$/:".contains(*c)) {
                    word.push(c);
                }
                found.push(Token::Word(word));
            }
            _ => {}
        }
    }
    found
}

/// Reads up to the brace that ends the block, which it does not pass.
fn read_fields(tokens: &[Token], at: &mut usize, into: &mut Block) {
    while let Some(token) = tokens.get(*at) {
        let key = match token {
            Token::Mark('}') => return,
            Token::Word(key) | Token::Text(key) => key.clone(),
            _ => {
                *at += 1;
                continue;
            }
        };
        *at += 1;
        let mut label = None;
        if let (Some(Token::Text(text)), Some(Token::Mark('{'))) = (tokens.get(*at), tokens.get(*at + 1)) {
            label = Some(text.clone());
            *at += 1;
        }
        let assigned = tokens.get(*at) == Some(&Token::Mark('='));
        *at += usize::from(assigned);
        let item = match tokens.get(*at) {
            Some(Token::Mark('{')) => {
                *at += 1;
                let mut block = Block::default();
                read_fields(tokens, at, &mut block);
                Item::Block { label, block }
            }
            Some(Token::Text(text)) if assigned => Item::Text(text.clone()),
            Some(Token::Word(word)) if assigned => Item::Word(word.clone()),
            Some(Token::Mark('[')) if assigned => {
                while !matches!(tokens.get(*at), None | Some(Token::Mark(']'))) {
                    *at += 1;
                }
                Item::Other
            }
            // A word of a shell script.
            _ => continue,
        };
        *at += 1;
        into.0.push((key, item));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_and_policies_are_read_in_hcl_and_json_alike() {
        let hcl = "# a comment\nacl = {\n enabled = true\n tokens { agent = \"$T\" }\n}\nretry_join = [\"a\", \"b\"]\n\
                   tls { defaults { ca_file = \"/ca.pem\" } }\npartition = \"p1\"";
        let json = r#"{"acl": {"enabled": true, "tokens": {"agent": "$T"}}, "retry_join": ["a"],
            "tls": {"defaults": {"ca_file": "/ca.pem"}}, "partition": "p1"}"#;
        for text in [hcl, json] {
            let block = Block::read(text);
            assert_eq!(block.text_at(&["acl", "enabled"]), Some("true"), "{text}");
            assert_eq!(block.text_at(&["acl", "tokens", "agent"]), Some("$T"));
            assert_eq!(block.text_at(&["tls", "defaults", "ca_file"]), Some("/ca.pem"));
            assert_eq!(block.text("partition"), Some("p1"));
        }
    }

    #[test]
    fn labels_are_part_of_the_way_to_a_text() {
        let block = Block::read("node_prefix \"\" { policy = \"write\" }\noperator = \"read\"");
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
    fn a_shell_script_around_it_does_no_harm() {
        let block = Block::read(
            "set -e\nfoo() { echo \"$A\"; }\ncat << EOF > /c.hcl\nacl {\n enabled = true\n}\nEOF\n",
        );
        assert_eq!(block.text_at(&["acl", "enabled"]), Some("true"));
        for text in ["{", "}", "a {", "a = [", "\"", "a = {\n}}}{"] {
            let _ = Block::read(text);
        }
    }
}
