//! Boolean expressions over an object, for selectors of binding rules and filters of lists.
//!
//! Supports `==`, `!=`, `in`, `not in`, `contains`, `not contains`, `is empty`, `is not empty`, `and`, `or`, `not`
//! and parentheses, but not `matches`.

use serde_json::Value;

/// Fields for expressions, with their types.
pub(super) struct SelectableFields(pub(super) &'static [(&'static str, FieldShape)]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldShape {
    Text,
    Number,
    Bool,
    Texts,
    TextMap,
    Object(&'static [(&'static str, FieldShape)]),
}

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    /// The empty expression, which selects everything.
    All,
    Or(Box<Expression>, Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    Equal(Selector, String),
    Contains(Selector, String),
    Empty(Selector),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selector {
    path: Vec<String>,
    shape: FieldShape,
}

impl Expression {
    /// Parses an expression and checks its fields.
    pub(super) fn parse(text: &str, fields: &SelectableFields) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::All);
        }
        let tokens = tokens(text)?;
        let mut parser = ExprParser { tokens: &tokens, at: 0, fields };
        let expression = parser.or()?;
        match parser.peek() {
            None => Ok(expression),
            Some(token) => Err(format!("{token} is left over")),
        }
    }

    /// Whether the object is selected. An absent map entry equals no value.
    pub(super) fn selects(&self, object: &Value) -> bool {
        match self {
            Self::All => true,
            Self::Or(left, right) => left.selects(object) || right.selects(object),
            Self::And(left, right) => left.selects(object) && right.selects(object),
            Self::Not(inner) => !inner.selects(object),
            Self::Equal(selector, wanted) => selector.text(object).is_some_and(|found| found == *wanted),
            Self::Contains(selector, wanted) => match selector.find(object) {
                Some(Value::Array(items)) => items.iter().any(|item| item == wanted.as_str()),
                Some(Value::Object(entries)) => entries.contains_key(wanted),
                Some(Value::String(text)) => text.contains(wanted.as_str()),
                _ => false,
            },
            Self::Empty(selector) => match selector.find(object) {
                Some(Value::Array(items)) => items.is_empty(),
                Some(Value::Object(entries)) => entries.is_empty(),
                Some(Value::String(text)) => text.is_empty(),
                Some(Value::Null) | None => true,
                Some(_) => false,
            },
        }
    }
}

impl Selector {
    fn find<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        self.path.iter().try_fold(object, |value, name| value.get(name))
    }

    /// The value as text. An absent field has its zero value.
    fn text(&self, object: &Value) -> Option<String> {
        match (self.find(object), self.shape) {
            (Some(Value::String(text)), _) => Some(text.clone()),
            (Some(other), FieldShape::Number | FieldShape::Bool) => Some(other.to_string()),
            (None, FieldShape::Number) => Some("0".to_owned()),
            (None, FieldShape::Bool) => Some("false".to_owned()),
            (None, FieldShape::Text) if self.path.len() == 1 => Some(String::new()),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum ExprToken {
    Word(String),
    Text(String),
    Sign(&'static str),
}

impl std::fmt::Display for ExprToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Word(word) => write!(f, "{word:?}"),
            Self::Text(text) => write!(f, "the text {text:?}"),
            Self::Sign(sign) => write!(f, "{sign:?}"),
        }
    }
}

const SIGNS: [&str; 8] = ["==", "!=", "(", ")", "[", "]", ".", ","];

fn tokens(text: &str) -> Result<Vec<ExprToken>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            tokens.push(ExprToken::Sign(sign));
            sign.len()
        } else if first == '`' || first == '"' {
            let end = closing(rest, first).ok_or("a text has no end")?;
            let quoted = &rest[..=end];
            tokens.push(ExprToken::Text(if first == '`' {
                quoted[1..end].to_owned()
            } else {
                serde_json::from_str(quoted).map_err(|_| format!("{quoted} is not text"))?
            }));
            end + 1
        } else {
            let sign = usize::from(first == '-');
            let end = rest[sign..]
                .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '/')))
                .map_or(rest.len(), |end| end + sign);
            if end == sign {
                return Err(format!("{first:?} is not expected"));
            }
            tokens.push(ExprToken::Word(rest[..end].to_owned()));
            end
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

/// End of the quoted text at the start of `quoted`.
fn closing(quoted: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    let end = quoted[1..].find(|c: char| {
        let closes = c == quote && !escaped;
        escaped = quote == '"' && c == '\\' && !escaped;
        closes
    });
    end.map(|end| end + 1)
}

struct ExprParser<'a> {
    tokens: &'a [ExprToken],
    at: usize,
    fields: &'a SelectableFields,
}

impl ExprParser<'_> {
    fn peek(&self) -> Option<&ExprToken> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<ExprToken> {
        self.at += 1;
        self.tokens.get(self.at - 1).cloned()
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(ExprToken::Word(found)) if found == word);
        self.at += usize::from(found);
        found
    }

    fn takes_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(ExprToken::Sign(found)) if *found == sign);
        self.at += usize::from(found);
        found
    }

    fn wants_sign(&mut self, sign: &str) -> Result<(), String> {
        if self.takes_sign(sign) { Ok(()) } else { Err(self.unexpected(&format!("{sign:?}"))) }
    }

    fn unexpected(&self, wanted: &str) -> String {
        match self.peek() {
            Some(token) => format!("found {token} where {wanted} is needed"),
            None => format!("it ends where {wanted} is needed"),
        }
    }

    fn or(&mut self) -> Result<Expression, String> {
        let mut left = self.and()?;
        while self.takes_word("or") {
            left = Expression::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expression, String> {
        let mut left = self.not()?;
        while self.takes_word("and") {
            left = Expression::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expression, String> {
        if self.takes_word("not") {
            return Ok(Expression::Not(Box::new(self.not()?)));
        }
        if self.takes_sign("(") {
            let inner = self.or()?;
            self.wants_sign(")")?;
            return Ok(inner);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expression, String> {
        // `VALUE in SELECTOR` begins with a value, all other forms with a selector.
        if let Some(ExprToken::Text(value)) = self.peek().cloned() {
            self.at += 1;
            return self.membership(value);
        }
        let start = self.at;
        if let Some(ExprToken::Word(value)) = self.next()
            && matches!(self.peek(), Some(ExprToken::Word(word)) if word == "in" || word == "not")
            && !matches!(self.tokens.get(self.at + 1), Some(ExprToken::Word(word)) if word == "contains")
        {
            return self.membership(value);
        }
        self.at = start;
        let selector = self.selector()?;
        self.operation(selector)
    }

    fn membership(&mut self, value: String) -> Result<Expression, String> {
        let negated = self.takes_word("not");
        if !self.takes_word("in") {
            return Err(self.unexpected("\"in\""));
        }
        let selector = self.selector()?;
        contains(selector, value, negated)
    }

    fn operation(&mut self, selector: Selector) -> Result<Expression, String> {
        if self.takes_sign("==") {
            return equal(selector, self.value()?, false);
        }
        if self.takes_sign("!=") {
            return equal(selector, self.value()?, true);
        }
        if self.takes_word("is") {
            let negated = self.takes_word("not");
            if !self.takes_word("empty") {
                return Err(self.unexpected("\"empty\""));
            }
            return Ok(unless(negated, Expression::Empty(selector)));
        }
        let negated = self.takes_word("not");
        if self.takes_word("contains") {
            let value = self.value()?;
            return contains(selector, value, negated);
        }
        Err(self.unexpected("an operator such as \"==\""))
    }

    fn value(&mut self) -> Result<String, String> {
        match self.next() {
            Some(ExprToken::Text(value) | ExprToken::Word(value)) => Ok(value),
            _ => {
                self.at -= 1;
                Err(self.unexpected("a value"))
            }
        }
    }

    fn selector(&mut self) -> Result<Selector, String> {
        let Some(ExprToken::Word(first)) = self.next() else {
            self.at -= 1;
            return Err(self.unexpected("a field"));
        };
        let mut path = vec![first];
        loop {
            if self.takes_sign(".") {
                match self.next() {
                    Some(ExprToken::Word(name)) => path.push(name),
                    _ => return Err("a name must follow '.'".to_owned()),
                }
            } else if self.takes_sign("[") {
                match self.next() {
                    Some(ExprToken::Text(name)) => path.push(name),
                    _ => return Err("a text must follow '['".to_owned()),
                }
                self.wants_sign("]")?;
            } else {
                break;
            }
        }
        let shape =
            shape(self.fields.0, &path).ok_or_else(|| format!("there is no field {}", path.join(".")))?;
        Ok(Selector { path, shape })
    }
}

fn shape(fields: &[(&'static str, FieldShape)], path: &[String]) -> Option<FieldShape> {
    let (first, rest) = path.split_first()?;
    let (_, shape) = fields.iter().find(|(name, _)| name == first)?;
    match (shape, rest) {
        (_, []) => Some(*shape),
        (FieldShape::TextMap, [_]) => Some(FieldShape::Text),
        (FieldShape::Object(fields), rest) => self::shape(fields, rest),
        _ => None,
    }
}

fn equal(selector: Selector, value: String, negated: bool) -> Result<Expression, String> {
    match selector.shape {
        FieldShape::Number if value.parse::<i64>().is_err() => Err(format!("{value:?} is not a number")),
        FieldShape::Bool if value.parse::<bool>().is_err() => {
            Err(format!("{value:?} is neither true nor false"))
        }
        FieldShape::Text | FieldShape::Number | FieldShape::Bool => {
            Ok(unless(negated, Expression::Equal(selector, value)))
        }
        _ => Err(format!("{} cannot be compared with a text", selector.path.join("."))),
    }
}

fn contains(selector: Selector, value: String, negated: bool) -> Result<Expression, String> {
    match selector.shape {
        FieldShape::Text | FieldShape::Texts | FieldShape::TextMap => {
            Ok(unless(negated, Expression::Contains(selector, value)))
        }
        _ => Err(format!("{} contains nothing", selector.path.join("."))),
    }
}

fn unless(negated: bool, expression: Expression) -> Expression {
    if negated { Expression::Not(Box::new(expression)) } else { expression }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FIELDS: SelectableFields = SelectableFields(&[
        ("ID", FieldShape::Text),
        ("Port", FieldShape::Number),
        ("Tags", FieldShape::Texts),
        ("Meta", FieldShape::TextMap),
        ("Proxy", FieldShape::Object(&[("DestinationServiceName", FieldShape::Text)])),
    ]);

    fn selects(text: &str) -> Result<bool, String> {
        let object = json!({
            "ID": "web-1", "Tags": ["v1"], "Meta": {"task-id": "1", "x.y": "z"},
            "Proxy": {"DestinationServiceName": "web"},
        });
        Ok(Expression::parse(text, &FIELDS)?.selects(&object))
    }

    #[test]
    fn expressions_select_matching_objects() {
        for yes in [
            "",
            "ID == \"web-1\"",
            "ID == `web-1`",
            "Meta[\"x.y\"] == z",
            "Meta.other != 2 or ID == x",
            "Proxy.DestinationServiceName == web and Port == 0",
            "\"v1\" in Tags",
            "v1 in Tags",
            "v2 not in Tags and Tags contains v1",
            "not (ID == a or ID == b)",
            "Meta is not empty",
            "\"task-id\" in Meta",
        ] {
            assert_eq!(selects(yes), Ok(true), "{yes}");
        }
        for no in ["ID == web", "Meta[\"absent\"] == \"\"", "Tags is empty", "not ID == \"web-1\""] {
            assert_eq!(selects(no), Ok(false), "{no}");
        }
    }

    #[test]
    fn absent_entry_differs_from_every_text() {
        assert_eq!(selects("Meta[\"absent\"] != \"\""), Ok(true));
    }

    #[test]
    fn invalid_expression_or_field_is_rejected() {
        for wrong in [
            "xx",
            "ID",
            "ID == ",
            "Meta[",
            "nosuch == x",
            "Meta == x",
            "Port == x",
            "(ID == x",
            "ID == x y",
            "ID = x",
            "Meta.a.b == x",
        ] {
            assert!(selects(wrong).is_err(), "{wrong}");
        }
    }
}
