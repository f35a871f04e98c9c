//! Parser for the HCL subset of ACL rules, and for their JSON form.

use serde_json::Value;

/// `key = "value"`, or `key "label" { … }`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PolicyItem {
    pub(super) key: String,
    pub(super) labels: Vec<String>,
    pub(super) body: PolicyBody,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum PolicyBody {
    Value(Value),
    Block(Vec<PolicyItem>),
}

/// Parses rules.
pub(super) fn parse(text: &str) -> Result<Vec<PolicyItem>, String> {
    if text.trim_start().starts_with('{') {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        return Ok(items_of(&value));
    }
    let mut parser = PolicyParser { rest: text, line: 1 };
    let items = parser.items()?;
    match parser.peek()? {
        None => Ok(items),
        Some(other) => Err(parser.wrong(&format!("{other:?} closes nothing"))),
    }
}

/// The items of the JSON form, where a labelled block is a nested object.
fn items_of(value: &Value) -> Vec<PolicyItem> {
    let mut items = Vec::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Object(labels) if labels.values().all(Value::is_object) => {
                items.extend(labels.iter().map(|(label, body)| PolicyItem {
                    key: key.clone(),
                    labels: vec![label.clone()],
                    body: PolicyBody::Block(items_of(body)),
                }));
            }
            other => {
                items.push(PolicyItem {
                    key: key.clone(),
                    labels: Vec::new(),
                    body: PolicyBody::Value(other.clone()),
                });
            }
        }
    }
    items
}

struct PolicyParser<'a> {
    rest: &'a str,
    line: usize,
}

impl PolicyParser<'_> {
    fn wrong(&self, what: &str) -> String {
        format!("line {}: {what}", self.line)
    }

    fn skip(&mut self, bytes: usize) {
        self.line += self.rest[..bytes].matches('\n').count();
        self.rest = &self.rest[bytes..];
    }

    /// The next character after spaces and comments.
    fn peek(&mut self) -> Result<Option<char>, String> {
        loop {
            let space = self.rest.len() - self.rest.trim_start().len();
            self.skip(space);
            let comment = if self.rest.starts_with('#') || self.rest.starts_with("//") {
                self.rest.find('\n').unwrap_or(self.rest.len())
            } else if self.rest.starts_with("/*") {
                self.rest.find("*/").ok_or_else(|| self.wrong("a comment has no end"))? + 2
            } else {
                return Ok(self.rest.chars().next());
            };
            self.skip(comment);
        }
    }

    fn items(&mut self) -> Result<Vec<PolicyItem>, String> {
        let mut items = Vec::new();
        while let Some(next) = self.peek()? {
            match next {
                '}' => break,
                ',' | ';' => self.skip(1),
                _ => items.push(self.item()?),
            }
        }
        Ok(items)
    }

    fn item(&mut self) -> Result<PolicyItem, String> {
        let key = if self.rest.starts_with('"') { self.text()? } else { self.word()? };
        let mut labels = Vec::new();
        loop {
            match self.peek()? {
                Some('"') => labels.push(self.text()?),
                Some('=') if labels.is_empty() => {
                    self.skip(1);
                    let body = match self.peek()? {
                        Some('{') => self.block()?,
                        _ => PolicyBody::Value(self.value()?),
                    };
                    return Ok(PolicyItem { key, labels, body });
                }
                Some('{') => return Ok(PolicyItem { key, labels, body: self.block()? }),
                _ => return Err(self.wrong(&format!("after {key:?} there must be '=', a label or '{{'"))),
            }
        }
    }

    fn block(&mut self) -> Result<PolicyBody, String> {
        self.skip(1);
        let items = self.items()?;
        match self.peek()? {
            Some('}') => self.skip(1),
            _ => return Err(self.wrong("a '{' has no '}'")),
        }
        Ok(PolicyBody::Block(items))
    }

    fn value(&mut self) -> Result<Value, String> {
        match self.peek()? {
            Some('"') => Ok(Value::from(self.text()?)),
            Some('[') => {
                self.skip(1);
                let mut items = Vec::new();
                loop {
                    match self.peek()? {
                        Some(']') => break self.skip(1),
                        Some(',') => self.skip(1),
                        Some(_) => items.push(self.value()?),
                        None => return Err(self.wrong("a '[' has no ']'")),
                    }
                }
                Ok(Value::Array(items))
            }
            _ => {
                let word = self.word()?;
                // Unquoted values are numbers or booleans.
                serde_json::from_str(&word).map_err(|_| self.wrong(&format!("{word:?} is not a value")))
            }
        }
    }

    fn word(&mut self) -> Result<String, String> {
        let end = self
            .rest
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':')))
            .unwrap_or(self.rest.len());
        if end == 0 {
            let found = self.rest.chars().next().map_or_else(|| "the end".to_owned(), |c| format!("{c:?}"));
            return Err(self.wrong(&format!("found {found} where a name is needed")));
        }
        let word = self.rest[..end].to_owned();
        self.skip(end);
        Ok(word)
    }

    fn text(&mut self) -> Result<String, String> {
        let mut escaped = false;
        let end = self.rest[1..].find(|c: char| match (escaped, c) {
            (false, '"') => true,
            (_, c) => {
                escaped = !escaped && c == '\\';
                false
            }
        });
        let Some(end) = end else { return Err(self.wrong("a text has no end")) };
        let quoted = &self.rest[..end + 2];
        let text = serde_json::from_str(quoted).map_err(|_| self.wrong(&format!("{quoted} is not text")))?;
        self.skip(end + 2);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Vec<(String, Vec<String>)>, String> {
        Ok(parse(text)?.into_iter().map(|item| (item.key, item.labels)).collect())
    }

    #[test]
    fn values_and_blocks_may_span_lines() {
        let text = "# rules\nmesh = \"write\"\n\tnode_prefix \"\" {\n\t\tpolicy = \"read\" // all\n\t}\nkey \"a/b\" { policy = \"list\" }";
        let names = keys(text).unwrap().into_iter().map(|(key, labels)| (key, labels.concat()));
        let wanted = [("mesh", ""), ("node_prefix", ""), ("key", "a/b")];
        assert_eq!(names.collect::<Vec<_>>(), wanted.map(|(key, label)| (key.to_owned(), label.to_owned())));
    }

    #[test]
    fn json_form_equals_hcl() {
        let hcl = parse("acl = \"read\"\nnode_prefix \"\" { policy = \"read\" }").unwrap();
        assert_eq!(parse(r#"{"acl": "read", "node_prefix": {"": {"policy": "read"}}}"#).unwrap(), hcl);
    }

    #[test]
    fn unclosed_block_is_rejected() {
        for wrong in ["{{{", "node \"\" {", "mesh = ", "mesh", "}", "a = \"b", "/* x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
